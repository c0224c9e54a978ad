//! What somebody wants: whether an image may be shown before it has arrived.

use std::fmt;
use std::str::FromStr;

use crate::lazy::LazyError;

/// Whether an image may be shown before all of it has arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LazyMode {
    /// Where that is expected to be sooner, and every layer says how it can be read in pieces.
    Auto,
    /// Wherever it is possible: layers that cannot be read in pieces are brought whole and indexed on the way.
    Always,
    /// Never: everything is brought and unpacked.
    #[default]
    Never,
    /// Or not at all: a layer that cannot be read in pieces is an error.
    Required,
}

impl LazyMode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
            Self::Required => "required",
        }
    }
}

impl FromStr for LazyMode {
    type Err = LazyError;

    /// # Errors
    /// [`LazyError::Mode`] for any other word.
    fn from_str(text: &str) -> Result<Self, LazyError> {
        [Self::Auto, Self::Always, Self::Never, Self::Required]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| LazyError::Mode(text.chars().take(64).collect()))
    }
}

impl fmt::Display for LazyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
