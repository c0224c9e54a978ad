//! In which order the entries of a layer are written: what is read first at the front, each path once.
//!
//! Of a path that occurs twice the last entry counts, as everywhere; formats whose table of contents is keyed by path cannot
//! show both. Where leaving one out would change the tree, the layer cannot be expressed.

use std::collections::{HashMap, HashSet};

use storage_layer::EntryName;
use storage_layer::tar::EntryKind;
use storage_sys::tree::EntryPath;

use crate::BuildError;
use crate::scan::Item;

/// Names that the formats keep for themselves; entries of a layer that was lazy before, left out.
pub(crate) const TOC_NAME: &str = "stargz.index.json";
/// Ends what is to be fetched first.
pub(crate) const PREFETCH_LANDMARK: &str = ".prefetch.landmark";
/// Says that nothing is to be fetched first.
pub(crate) const NO_PREFETCH_LANDMARK: &str = ".no.prefetch.landmark";

/// Numbers of items in the order in which they are written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// What is read first, with the directories it lies in.
    pub(crate) front: Vec<usize>,
    /// Everything else, in the order of the tar.
    pub(crate) rest: Vec<usize>,
}

/// Orders `items`, those named in `prioritized` first and in that order. Names that are not there do not matter: a list is
/// for all layers of an image.
///
/// # Errors
/// [`BuildError::Entry`] if a path occurs twice in a way that cannot be said by its last entry alone.
pub(crate) fn order(items: &[Item], prioritized: &[Vec<u8>]) -> Result<Order, BuildError> {
    let own = |path: &[u8]| {
        [TOC_NAME, PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK].iter().any(|name| name.as_bytes() == path)
    };
    let mut last: HashMap<&[u8], usize> = HashMap::new();
    for (number, item) in items.iter().enumerate().filter(|(_, item)| !own(&item.path)) {
        last.insert(&item.path, number);
    }
    let targets = check(items, &last)?;
    let mut picker =
        Picker { items, last: &last, targets: &targets, taken: HashSet::new(), front: Vec::new() };
    for path in prioritized {
        picker.take(path);
    }
    let Picker { taken, front, .. } = picker;
    let kept = |number: &usize| last.get(&items[*number].path[..]) == Some(number) && !taken.contains(number);
    let rest = (0..items.len()).filter(kept).collect();
    Ok(Order { front, rest })
}

/// Finds what each hard link means, and refuses what the last entry of a path does not say.
fn check(items: &[Item], last: &HashMap<&[u8], usize>) -> Result<HashMap<usize, usize>, BuildError> {
    let refused =
        |item: &Item, reason| BuildError::Entry { name: EntryName(item.entry.name.clone()), reason };
    let mut so_far: HashMap<&[u8], usize> = HashMap::new();
    let mut targets = HashMap::new();
    for (number, item) in items.iter().enumerate() {
        if last.get(&item.path[..]) == Some(&number) {
            if let EntryKind::HardLink(target) = &item.entry.kind {
                let path = EntryPath::parse_confined(target)
                    .map_err(|_| refused(item, "its target lies outside"))?;
                match so_far.get(path.as_bytes()) {
                    Some(target) if last.get(path.as_bytes()) == Some(target) => {
                        targets.insert(number, *target);
                    }
                    Some(_) => {
                        return Err(refused(item, "what it is a link to is replaced later in the layer"));
                    }
                    None => return Err(refused(item, "what it is a link to is not in the layer before it")),
                }
            }
            for parent in parents(&item.path) {
                let is_directory = |number: &usize| items[*number].entry.kind == EntryKind::Directory;
                if !last.get(parent).is_none_or(is_directory) {
                    return Err(refused(
                        item,
                        "the directory it lies in is something else later in the layer",
                    ));
                }
            }
        }
        so_far.insert(&item.path, number);
    }
    Ok(targets)
}

/// The paths of all directories that `path` lies in, from the root.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let root = (!path.is_empty()).then_some(&path[..0]);
    root.into_iter().chain(slashes.map(|at| &path[..at]))
}

struct Picker<'a> {
    items: &'a [Item],
    last: &'a HashMap<&'a [u8], usize>,
    targets: &'a HashMap<usize, usize>,
    taken: HashSet<usize>,
    front: Vec<usize>,
}

impl Picker<'_> {
    fn take(&mut self, path: &[u8]) {
        let mut wanted = vec![path.to_vec()];
        // A link's target comes before it; targets are always earlier entries, so this ends.
        while let Some(number) = wanted.last().and_then(|path| self.last.get(&path[..])).copied() {
            match self.targets.get(&number) {
                Some(target) => wanted.push(self.items[*target].path.clone()),
                None => break,
            }
        }
        for path in wanted.into_iter().rev() {
            for parent in parents(&path) {
                self.one(parent);
            }
            self.one(&path);
        }
    }

    fn one(&mut self, path: &[u8]) {
        if let Some(&number) = self.last.get(path)
            && self.taken.insert(number)
        {
            self.front.push(number);
        }
    }
}
