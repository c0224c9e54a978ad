//! Why something is kept: the ways from what keeps without being kept down to it.
//!
//! The search goes backwards, from the thing to its keepers, over the same edges that a collection marks along; so an
//! answer without a chain means that the next collection removes the thing, and the other way round.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::expires;
use super::expiry::INGEST_KEPT;
use super::graph::{Facts, Node, Reach};
use super::source::Picture;
use crate::StoreError;
use crate::image::ImageRecord;
use crate::ingest_files;
use crate::lease::LeaseRecord;
use crate::metadata::key;
use crate::space::Space;
use crate::thing::Thing;

/// One way in which something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperChain {
    /// From the root, which keeps without being kept, down to the thing itself: each keeps the next.
    pub links: Vec<Thing>,
    /// When the root ends by itself; none if it does not.
    pub expires: Option<SystemTime>,
    /// The root would not keep, but a record of its namespace cannot be read, and until it is repaired nothing there goes.
    pub guarded: bool,
}

impl KeeperChain {
    /// The links in words: `lease 7 (until 2026-01-01T00:00:00Z)`, `blob sha256:... (labelled gc.root)`, `image x:1`.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.links.iter().map(Thing::to_string).collect();
        if let (Some(root), Some(first)) = (self.links.first(), words.first_mut()) {
            if self.guarded {
                first.push_str(" (a record of its namespace cannot be read)");
            } else if matches!(root, Thing::Blob(_) | Thing::Snapshot { .. }) {
                first.push_str(" (labelled gc.root)");
            }
            let end = self.expires.and_then(|end| OffsetDateTime::from(end).format(&Rfc3339).ok());
            if let Some(end) = end {
                first.push_str(&format!(" (until {end})"));
            }
        }
        words
    }
}

/// Most chains in one answer, the shortest first: a base layer may have a thousand images above it.
const CHAINS_MAX: usize = 100;

impl Space {
    /// What keeps `thing`: for each root it is reachable from, the shortest chain; at most 100 of them, the shortest
    /// first. None means that the next collection removes it.
    ///
    /// Costs reading every record, as a collection does.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such thing; [`StoreError::Metadata`] or [`StoreError::Record`] if the
    /// records cannot be read.
    pub fn why(&self, thing: &Thing) -> Result<Vec<KeeperChain>, StoreError> {
        let ingests = ingest_files::list(&self.store.0.layout)?;
        let picture = Picture::take(&self.store.0.metadata, &ingests, SystemTime::now())?;
        let node = Node::new(&self.namespace, thing.clone());
        if !picture.facts.contains_key(&node) {
            return Err(StoreError::not_found(thing.subject(), thing.name()));
        }
        let paths = Backward::of(&picture).paths_to(&node, &picture);
        paths
            .into_iter()
            .map(|path| {
                let keeps =
                    path.first().and_then(|root| picture.facts.get(root)).is_some_and(|facts| facts.root);
                let links: Vec<Thing> = path.into_iter().map(|node| node.thing.clone()).collect();
                let expires = links.first().map(|root| self.end_of(root)).transpose()?.flatten();
                Ok(KeeperChain { links, expires, guarded: !keeps })
            })
            .collect()
    }

    /// When a root ends by itself.
    fn end_of(&self, root: &Thing) -> Result<Option<SystemTime>, StoreError> {
        let metadata = &self.store.0.metadata;
        Ok(match root {
            Thing::Lease(id) => {
                let record: Option<LeaseRecord> = metadata.get(&key::key(&self.namespace, &[id]))?;
                record.and_then(|record| expires(&record.labels))
            }
            Thing::Image(name) => {
                let record: Option<ImageRecord> = metadata.get(&key::key(&self.namespace, &[name]))?;
                record.and_then(|record| expires(&record.labels))
            }
            Thing::Ingest(reference) => {
                self.ingest_status(reference).ok().map(|status| status.started + INGEST_KEPT)
            }
            Thing::Blob(_) | Thing::Snapshot { .. } | Thing::Container(_) => None,
        })
    }
}

/// A node and how far its keeping reaches.
type State<'a> = (&'a Node, Reach);

/// The edges of a picture, from the kept to the keeper.
struct Backward<'a>(HashMap<State<'a>, Vec<State<'a>>>);

impl<'a> Backward<'a> {
    fn of(picture: &'a Picture) -> Self {
        let mut keepers: HashMap<State<'a>, Vec<State<'a>>> = HashMap::new();
        for (node, facts) in &picture.facts {
            for reach in [Reach::Full, Reach::Flat] {
                for (kept, onward) in onward(facts, picture.kept_by.get(node), reach) {
                    keepers.entry((kept, onward)).or_default().push((node, reach));
                }
            }
        }
        Self(keepers)
    }

    /// For each root that `target` is reachable from, the shortest path from it down to `target`.
    fn paths_to(&self, target: &'a Node, picture: &'a Picture) -> Vec<Vec<&'a Node>> {
        let roots: HashSet<&Node> = picture.roots.iter().collect();
        // What was found, and the state below it that it was found from.
        let mut below: HashMap<State<'_>, Option<State<'_>>> = HashMap::new();
        let mut open = VecDeque::from([(target, Reach::Full), (target, Reach::Flat)]);
        below.extend(open.iter().map(|state| (*state, None)));
        let mut found = Vec::new();
        while let Some(state) = open.pop_front() {
            if state.1 == Reach::Full && roots.contains(state.0) {
                found.push(state);
                if found.len() == CHAINS_MAX {
                    break;
                }
            }
            for keeper in self.0.get(&state).into_iter().flatten() {
                below.entry(*keeper).or_insert_with(|| {
                    open.push_back(*keeper);
                    Some(state)
                });
            }
        }
        let path = |root: State<'a>| {
            std::iter::successors(Some(root), |state| below.get(state).copied().flatten())
                .map(|(node, _)| node)
                .collect()
        };
        found.into_iter().map(path).collect()
    }
}

/// What a node keeps when it is kept as far as `reach`, and how far: the rule of [`super::graph::Marks::mark`].
fn onward<'a>(
    facts: &'a Facts,
    kept_by: Option<&'a Vec<Node>>,
    reach: Reach,
) -> impl Iterator<Item = (&'a Node, Reach)> {
    let firm_reach = if facts.flat { Reach::Flat } else { reach };
    let firm = facts.firm.iter().map(move |node| (node, firm_reach));
    let full = facts.references.iter().chain(kept_by.into_iter().flatten());
    firm.chain(full.filter(move |_| reach == Reach::Full).map(|node| (node, Reach::Full)))
}
