//! Names of snapshots: the key of one that is being made, the name of one that is done.
//!
//! Both live in one space of names (a key and a name may not be equal at the same time); as types they differ, so that
//! an active snapshot cannot be passed where a parent is wanted.

use std::fmt;
use std::str::FromStr;

use crate::SnapshotError;

/// Longest key or name, in bytes. containerd's are `<namespace>/<number>/<client's key>`, far below.
pub const KEY_BYTES_MAX: usize = 4096;

macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to [`KEY_BYTES_MAX`] bytes of any text without NUL: containerd's keys hold spaces, colons and slashes.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = SnapshotError;

            /// # Errors
            /// [`SnapshotError::Key`] if the text is empty, too long or holds a NUL.
            fn from_str(text: &str) -> Result<Self, SnapshotError> {
                if text.is_empty() || text.len() > KEY_BYTES_MAX || text.contains('\0') {
                    return Err(SnapshotError::Key { key: text.chars().take(64).collect(), length: text.len() });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key_type! {
    /// Key of a snapshot that is not committed: an active one or a view.
    ActiveKey
}
key_type! {
    /// Name of a committed snapshot: immutable, may be a parent.
    CommittedName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_any_text_within_the_limit() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        for text in ["a", "default/3/extract-57 sha256:4d02", "../..", "\u{fc}\n", longest.as_str()] {
            assert_eq!(text.parse::<ActiveKey>().unwrap().as_str(), text);
        }
        let too_long = "k".repeat(KEY_BYTES_MAX + 1);
        for text in ["", "a\0b", too_long.as_str()] {
            let error = text.parse::<CommittedName>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
            assert!(error.to_string().len() < 200, "a long key is not repeated whole");
        }
    }
}
