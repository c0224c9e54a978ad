//! Being a containerd's proxy plug-in: what is different for its snapshots.
//!
//! A containerd that has us in its configuration keeps the metadata itself. It makes every key unique over its namespaces,
//! collects on its own, and its collector's calls name no namespace at all. So its calls are told by the snapshotter's name
//! alone ([`Plugin::called`]): they go to one namespace of ours, whatever they say, and what they make carries a label that
//! keeps it from our own collections. That label is ours and is not told to them.
//!
//! Not here: the configuration on containerd's side (`docs/containerd.md`).

use storage_content::LabelChange;
use storage_model::{Labels, Namespace};

/// Where the snapshots of such a containerd are.
const NAMESPACE: &str = "containerd-plugin";

/// The names under which containerd's configuration knows our snapshotters, and ours.
pub(crate) const SNAPSHOTTERS: [(&str, &str); 3] =
    [("windlass", "overlayfs"), ("windlass-native", "native"), ("windlass-lazy", "lazy")];

/// Keeps from collection whatever carries it. containerd passes none of its own `gc` labels on, so it is never theirs.
const ROOT: &str = "containerd.io/gc.root";

/// Whether this is the namespace of such snapshots.
pub(crate) fn is_namespace(namespace: &Namespace) -> bool {
    namespace.as_str() == NAMESPACE
}

/// A snapshotter in the service of a containerd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plugin {
    /// Our name of it.
    pub(crate) snapshotter: &'static str,
}

impl Plugin {
    /// The plug-in that `name` calls, if it calls one.
    pub(crate) fn called(name: &str) -> Option<Self> {
        SNAPSHOTTERS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| Self { snapshotter: ours })
    }

    /// Its namespace.
    pub(crate) fn namespace() -> Namespace {
        NAMESPACE.parse().expect("a constant that the test below reads")
    }

    /// Labels for something new.
    pub(crate) fn keep(mut labels: Labels) -> Labels {
        labels.insert(ROOT.to_owned(), "plugin".to_owned());
        labels
    }

    /// A change of labels that leaves ours alone.
    pub(crate) fn keep_through(change: LabelChange) -> LabelChange {
        match change {
            LabelChange::Replace(labels) => LabelChange::Replace(Self::keep(labels)),
            LabelChange::Patch(mut patch) => {
                patch.remove(ROOT);
                LabelChange::Patch(patch)
            }
        }
    }

    /// Labels as they are told.
    pub(crate) fn hide(mut labels: Labels) -> Labels {
        labels.remove(ROOT);
        labels
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_the_names_of_the_configuration_are_plug_ins() {
        assert_eq!(Plugin::called("windlass").map(|plugin| plugin.snapshotter), Some("overlayfs"));
        assert_eq!(Plugin::called("windlass-native").map(|plugin| plugin.snapshotter), Some("native"));
        assert_eq!(Plugin::called("windlass-lazy").map(|plugin| plugin.snapshotter), Some("lazy"));
        assert!(Plugin::called("overlayfs").is_none());
        assert!(is_namespace(&Plugin::namespace()));
    }

    #[test]
    fn no_change_of_labels_lets_go_of_what_containerd_has() {
        let theirs = Labels::from([("containerd.io/snapshot.ref".to_owned(), "x".to_owned())]);
        let patch = BTreeMap::from([(ROOT.to_owned(), None), ("a".to_owned(), Some("1".to_owned()))]);
        for change in [LabelChange::Replace(theirs.clone()), LabelChange::Patch(patch)] {
            let mut labels = Plugin::keep(theirs.clone());
            Plugin::keep_through(change).apply(&mut labels).unwrap();
            assert!(labels.contains_key(ROOT));
            assert!(!Plugin::hide(labels).contains_key(ROOT));
        }
    }
}
