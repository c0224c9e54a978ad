//! What was chosen for an image, and why: a label on its manifest, so that it goes where the image goes.

use serde::{Deserialize, Serialize};
use storage_content::Space;
use storage_model::{Digest, Labels};

use super::LazyMode;
use super::policy::Estimate;

/// The label. Its value is JSON.
const LABEL: &str = "windlass.io/lazy";

/// Longest reason that is kept, in bytes: key and value of a label may have 4096 together.
const REASON_BYTES_MAX: usize = 700;

/// Most reasons that are kept.
const REASONS_MAX: usize = 4;

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// What was asked for.
    pub(crate) asked: String,
    /// Whether the image is shown before it has arrived.
    pub(crate) is_lazy: bool,
    /// Why, a sentence each.
    pub(crate) reasons: Vec<String>,
    /// Seconds to the first output as they were estimated.
    #[serde(default)]
    pub(crate) full_seconds: f64,
    #[serde(default)]
    pub(crate) lazy_seconds: f64,
    /// Nothing but what is read is to be brought in.
    #[serde(default)]
    pub(crate) no_fill: bool,
    /// The image was found to be another than it shows: the first difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lied: Option<String>,
}

impl Choice {
    pub(crate) fn new(asked: LazyMode, is_lazy: bool, reasons: Vec<String>) -> Self {
        let cut = |reason: String| {
            let mut end = reason.len().min(REASON_BYTES_MAX);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason[..end].to_owned()
        };
        let reasons = reasons.into_iter().take(REASONS_MAX).map(cut).collect();
        Self {
            asked: asked.to_string(),
            is_lazy,
            reasons,
            full_seconds: 0.0,
            lazy_seconds: 0.0,
            no_fill: false,
            lied: None,
        }
    }

    pub(crate) fn estimated(mut self, estimate: &Estimate) -> Self {
        self.full_seconds = estimate.full_seconds;
        self.lazy_seconds = estimate.lazy_seconds;
        self
    }

    /// As a label of the image's manifest.
    pub(crate) fn label(&self) -> Labels {
        let value = serde_json::to_string(self).expect("strings and numbers");
        Labels::from([(LABEL.to_owned(), value)])
    }

    /// What the manifest `digest` says; none if nobody chose, or the label was written by others.
    pub(crate) fn read(space: &Space, digest: &Digest) -> Option<Self> {
        let blob = space.blob(digest).ok()?;
        serde_json::from_str(blob.labels.get(LABEL)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_choice_is_a_label_that_the_store_takes() {
        let reasons = vec!["\u{fc}\"\\".repeat(1000); 9];
        let choice = Choice::new(LazyMode::Required, true, reasons);
        assert_eq!(choice.reasons.len(), REASONS_MAX);
        let label = choice.label();
        assert_eq!(serde_json::from_str::<Choice>(&label[LABEL]).unwrap(), choice);
        storage_model::validate_labels(&Choice::new(LazyMode::Auto, true, vec!["x".repeat(5000); 9]).label())
            .unwrap();
    }
}
