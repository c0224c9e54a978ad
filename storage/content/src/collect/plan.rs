//! What a collection would remove, without removing it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::SystemTime;

use storage_model::{Digest, Namespace};

use super::Collected;
use super::graph::Node;
use super::survey::Survey;
use crate::StoreError;
use crate::blob::ContentRecord;
use crate::ingest::is_written;
use crate::store::Store;
use crate::thing::Thing;

/// What a collection removed, or would remove, in the order it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The things.
    pub doomed: Vec<Doomed>,
    /// Their numbers and bytes.
    pub totals: Collected,
}

impl Plan {
    pub(super) fn of(doomed: Vec<Doomed>) -> Self {
        let mut totals = Collected::default();
        doomed.iter().for_each(|one| totals.count(one));
        Self { doomed, totals }
    }
}

/// Something that a collection removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its namespace.
    pub namespace: Namespace,
    /// What it is.
    pub thing: Thing,
    /// Bytes that its removal frees. A blob that several namespaces have frees its bytes with the last of them; a snapshot
    /// what it took when it was committed, one that never was nothing.
    pub bytes: u64,
    /// Why it goes.
    pub reason: DoomReason,
}

impl Doomed {
    pub(super) fn new(node: &Node, bytes: u64, reason: DoomReason) -> Self {
        Self { namespace: node.namespace.clone(), thing: node.thing.clone(), bytes, reason }
    }
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DoomReason {
    /// Nothing that is kept refers to it.
    Unreferenced,
    /// Its time has passed: an image, a lease, an ingest.
    Expired,
    /// It was asked what goes without this image ([`Store::plan_without`]).
    LeastUsed,
}

impl fmt::Display for DoomReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreferenced => "nothing keeps it",
            Self::Expired => "expired",
            Self::LeastUsed => "least recently used",
        })
    }
}

impl Store {
    /// What a collection would remove now, exactly, if nothing changed before it.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] or [`StoreError::Record`] if the records cannot be read; a collection would fail too.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        self.plan_without(&[])
    }

    /// What a collection would remove if these images were deleted before: the images themselves come first. One that a
    /// lease keeps stays although it is named here; one that does not exist is fine.
    ///
    /// # Errors
    /// Those of [`Store::plan`].
    pub fn plan_without(&self, images: &[(Namespace, String)]) -> Result<Plan, StoreError> {
        let without = images.iter().map(|(namespace, name)| Node::image(namespace, name)).collect();
        let _one = self.alone_collecting();
        let watch = self.0.gate.watch();
        let mut survey = Survey::take(self, SystemTime::now(), &without)?;
        {
            let (_closed, touched) = watch.close();
            survey.mark_touched(self, touched)?;
        }
        self.foresee(&survey, &without)
    }

    /// What a sweep after `survey` would take.
    fn foresee(&self, survey: &Survey, without: &HashSet<Node>) -> Result<Plan, StoreError> {
        let mut doomed = Vec::new();
        let mut holders: HashMap<Digest, u32> = HashMap::new();
        for node in survey.unmarked() {
            let bytes = match &node.thing {
                Thing::Blob(digest) => {
                    let left = match holders.get(digest) {
                        Some(left) => *left,
                        None => self.holders(digest)?,
                    };
                    holders.insert(*digest, left.saturating_sub(1));
                    if left == 1 { survey.bytes(&node) } else { 0 }
                }
                Thing::Ingest(_) if survey.ingest(&node).is_none_or(|found| is_written(self, &found.id)) => {
                    continue;
                }
                _ => survey.bytes(&node),
            };
            doomed.push(Doomed::new(&node, bytes, survey.reason(&node)));
        }
        doomed.sort_by_key(|one| !without.contains(&Node::new(&one.namespace, one.thing.clone())));
        Ok(Plan::of(doomed))
    }

    /// How many namespaces have a blob.
    fn holders(&self, digest: &Digest) -> Result<u32, StoreError> {
        let content: Option<ContentRecord> = self.0.metadata.get(digest.as_bytes())?;
        Ok(content.map_or(0, |content| content.holders))
    }
}
