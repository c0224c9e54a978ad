//! Who keeps whom: the nodes of the store, the edges between them, and what is reachable.
//!
//! Pure: it reads no store. `collect` fills it.

use std::collections::{HashMap, HashSet};

use storage_model::{Digest, Labels, Namespace};

use crate::lease::LeaseId;
use crate::thing::Thing;

/// A lease or image with this label ends at the RFC 3339 time in its value.
pub(crate) const EXPIRE_LABEL: &str = "containerd.io/gc.expire";
/// A blob or snapshot with this label is kept, whoever refers to it.
const ROOT_LABEL: &str = "containerd.io/gc.root";
/// A lease with this label keeps the things it lists, not what these refer to.
const FLAT_LABEL: &str = "containerd.io/gc.flat";
/// Labels that begin so refer to what is kept.
const REFERENCE_PREFIX: &str = "containerd.io/gc.ref.";
/// Labels that begin so refer to who keeps their bearer.
const BACK_REFERENCE_PREFIX: &str = "containerd.io/gc.bref.";

/// Something that keeps or is kept. Nothing refers to anything of another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) thing: Thing,
}

impl Node {
    pub(crate) fn new(namespace: &Namespace, thing: Thing) -> Self {
        Self { namespace: namespace.clone(), thing }
    }

    pub(crate) fn blob(namespace: &Namespace, digest: &Digest) -> Self {
        Self::new(namespace, Thing::Blob(*digest))
    }

    pub(crate) fn snapshot(namespace: &Namespace, snapshotter: &str, key: &str) -> Self {
        Self::new(namespace, Thing::snapshot(snapshotter, key))
    }

    pub(crate) fn image(namespace: &Namespace, name: &str) -> Self {
        Self::new(namespace, Thing::Image(name.to_owned()))
    }

    pub(crate) fn ingest(namespace: &Namespace, reference: &str) -> Self {
        Self::new(namespace, Thing::Ingest(reference.to_owned()))
    }

    pub(crate) fn container(namespace: &Namespace, id: &str) -> Self {
        Self::new(namespace, Thing::Container(id.to_owned()))
    }

    pub(crate) fn lease(namespace: &Namespace, id: &LeaseId) -> Self {
        Self::new(namespace, Thing::Lease(id.as_str().to_owned()))
    }

    /// What `rest`, the end of a reference label's key, and its value refer to.
    fn referred(namespace: &Namespace, rest: &str, value: &str) -> Option<Self> {
        let word = rest.split(['.', '/']).next().unwrap_or(rest);
        match word {
            "content" => Some(Self::blob(namespace, &value.parse().ok()?)),
            "image" => Some(Self::image(namespace, value)),
            "container" => Some(Self::container(namespace, value)),
            "snapshot" => {
                let snapshotter = rest.strip_prefix("snapshot.")?.split('/').next()?;
                Some(Self::snapshot(namespace, snapshotter, value))
            }
            _ => None,
        }
    }
}

/// What a node is reached by: through its own references, or alone (from a flat lease).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    Full,
    Flat,
}

/// What one node says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    /// Kept whoever refers to it.
    pub(crate) root: bool,
    /// It keeps what it lists alone.
    pub(crate) flat: bool,
    /// What it keeps, however it is reached: parents, the target of an image.
    pub(crate) firm: Vec<Node>,
    /// What it keeps besides when it is reached in full.
    pub(crate) references: Vec<Node>,
    /// Who keeps it.
    pub(crate) back_references: Vec<Node>,
    /// What it takes on the disk, as far as its record says.
    pub(crate) bytes: u64,
}

impl Facts {
    /// What the labels of something in `namespace` say.
    pub(crate) fn of_labels(namespace: &Namespace, labels: &Labels) -> Self {
        let mut facts = Self::default();
        for (key, value) in labels {
            if key == ROOT_LABEL {
                facts.root = !value.is_empty();
            } else if key == FLAT_LABEL {
                facts.flat = true;
            } else if let Some(rest) = key.strip_prefix(REFERENCE_PREFIX) {
                facts.references.extend(Node::referred(namespace, rest, value));
            } else if let Some(rest) = key.strip_prefix(BACK_REFERENCE_PREFIX) {
                facts.back_references.extend(Node::referred(namespace, rest, value));
            }
        }
        facts
    }
}

/// The marks of one collection.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    full: HashSet<Node>,
    flat: HashSet<Node>,
}

impl Marks {
    /// Whether `node` is kept.
    pub(crate) fn keeps(&self, node: &Node) -> bool {
        self.full.contains(node) || self.flat.contains(node)
    }

    /// Marks everything reachable from `start`. `facts` answers what a node says, with nothing for one that is not there;
    /// `kept_by` lists, for a node, those whose back references name it.
    pub(crate) fn mark<E>(
        &mut self,
        start: impl IntoIterator<Item = Node>,
        mut facts: impl FnMut(&Node) -> Result<Option<Facts>, E>,
        kept_by: &HashMap<Node, Vec<Node>>,
    ) -> Result<(), E> {
        // What is in `open` is marked. The start is followed even if it was marked before: it may refer to more now.
        let mut open: Vec<(Node, Reach)> = start.into_iter().map(|node| (node, Reach::Full)).collect();
        self.full.extend(open.iter().map(|(node, _)| node.clone()));
        while let Some((node, reach)) = open.pop() {
            let Some(found) = facts(&node)? else { continue };
            let onward = if found.flat { Reach::Flat } else { reach };
            let mut next: Vec<(Node, Reach)> = found.firm.into_iter().map(|next| (next, onward)).collect();
            if reach == Reach::Full {
                next.extend(found.references.into_iter().map(|next| (next, Reach::Full)));
                let backward = kept_by.get(&node).into_iter().flatten();
                next.extend(backward.map(|next| (next.clone(), Reach::Full)));
            }
            next.retain(|(node, reach)| self.add(node, *reach));
            open.extend(next);
        }
        Ok(())
    }

    /// Marks one node; answers whether that is news.
    fn add(&mut self, node: &Node, reach: Reach) -> bool {
        match reach {
            Reach::Full => self.full.insert(node.clone()),
            Reach::Flat => !self.full.contains(node) && self.flat.insert(node.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace() -> Namespace {
        "n".parse().unwrap()
    }

    #[test]
    fn reference_labels_are_read_with_and_without_suffixes() {
        let digest = Digest::of(b"x");
        let text = digest.to_string();
        let labels = Labels::from([
            ("containerd.io/gc.ref.content".into(), text.clone()),
            ("containerd.io/gc.ref.content.l.0".into(), text.clone()),
            ("containerd.io/gc.ref.content/any".into(), text.clone()),
            ("containerd.io/gc.ref.contents".into(), text.clone()),
            ("containerd.io/gc.ref.snapshot.overlayfs".into(), "a".into()),
            ("containerd.io/gc.ref.snapshot.my.sn/1".into(), "b".into()),
            ("containerd.io/gc.ref.image.x".into(), "name".into()),
            ("containerd.io/gc.bref.container".into(), "c".into()),
            ("containerd.io/gc.ref.content.bad".into(), "not a digest".into()),
        ]);
        let facts = Facts::of_labels(&namespace(), &labels);
        let blobs =
            facts.references.iter().filter(|node| **node == Node::blob(&namespace(), &digest)).count();
        assert_eq!(blobs, 3);
        assert!(facts.references.contains(&Node::snapshot(&namespace(), "overlayfs", "a")));
        assert!(facts.references.contains(&Node::snapshot(&namespace(), "my.sn", "b")));
        assert!(facts.references.contains(&Node::image(&namespace(), "name")));
        assert_eq!(facts.references.len(), 6);
        assert_eq!(facts.back_references, [Node::container(&namespace(), "c")]);
    }

    #[test]
    fn what_is_reached_flat_first_and_in_full_later_keeps_its_references() {
        let node = |name: &str| Node::image(&namespace(), name);
        let mut marks = Marks::default();
        let facts = |at: &Node| -> Result<Option<Facts>, ()> {
            Ok(Some(match &at.thing {
                Thing::Image(name) if name == "flat-lease" => {
                    Facts { flat: true, firm: vec![node("a")], ..Facts::default() }
                }
                Thing::Image(name) if name == "lease" => Facts { firm: vec![node("a")], ..Facts::default() },
                Thing::Image(name) if name == "a" => {
                    Facts { references: vec![node("b")], ..Facts::default() }
                }
                _ => Facts::default(),
            }))
        };
        marks.mark([node("flat-lease")], facts, &HashMap::new()).unwrap();
        assert!(marks.keeps(&node("a")) && !marks.keeps(&node("b")));
        marks.mark([node("lease")], facts, &HashMap::new()).unwrap();
        assert!(marks.keeps(&node("b")));
    }
}
