//! Changes to labels.

use std::collections::BTreeMap;

use storage_model::{Labels, validate_labels};

use crate::StoreError;

/// A change to the labels of something: all of them, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// These are the labels from now on.
    Replace(Labels),
    /// These keys change and the others stay: an absent or empty value deletes its key (containerd's rule for a field
    /// mask of `labels.<key>`).
    Patch(BTreeMap<String, Option<String>>),
}

impl LabelChange {
    /// A patch that sets one label.
    pub fn set(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Patch(BTreeMap::from([(key.into(), Some(value.into()))]))
    }

    /// Applies the change to `labels`.
    ///
    /// # Errors
    /// [`StoreError::Labels`] if the result holds a pair over containerd's limit; `labels` is then unspecified.
    pub fn apply(&self, labels: &mut Labels) -> Result<(), StoreError> {
        match self {
            Self::Replace(new) => labels.clone_from(new),
            Self::Patch(changes) => {
                for (key, value) in changes {
                    match value.as_deref() {
                        None | Some("") => labels.remove(key),
                        Some(value) => labels.insert(key.clone(), value.to_owned()),
                    };
                }
            }
        }
        Ok(validate_labels(labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_sets_and_deletes_single_keys_and_leaves_the_rest() {
        let mut labels = Labels::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        LabelChange::Patch(BTreeMap::from([
            ("a".into(), None),
            ("c".into(), Some("3".into())),
            ("d".into(), Some(String::new())),
        ]))
        .apply(&mut labels)
        .unwrap();
        assert_eq!(labels, Labels::from([("b".into(), "2".into()), ("c".into(), "3".into())]));
    }

    #[test]
    fn a_label_over_the_limit_is_refused() {
        let mut labels = Labels::new();
        assert!(LabelChange::set("key", "v".repeat(5000)).apply(&mut labels).is_err());
    }
}
