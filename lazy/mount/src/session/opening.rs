//! How files of a mount are opened: without asking, or with a question that lets the kernel read large ones by itself.
//!
//! It is one or the other for a whole connection. Asking costs four to five times an open of a small file; reading by the
//! kernel itself saves up to half of a random read of a large one (`datapath.md`). So a mount asks only if nearly all of its
//! bytes are in large files: images of models and data sets. In all others pages once read are in the page cache and
//! cost the same either way.
//!
//! The kernel's rules, found by running: a node has one backing file at a time, and while it is open in the cached way it
//! cannot be opened in the other. So a node keeps its backing file for the life of the connection, the keeper remembers
//! its number, and a server that took over opens in the cached way all nodes it knows nothing of.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazy_index::{ImageIndex, NodeId, NodeKind};
use storage_sys::fuse::{BackingId, Device};

use crate::bytes::FileBytes;
use crate::status::Opening;

/// A file from here on is large, in bytes: reading it takes much longer than opening it.
const LARGE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Share of an image's bytes that is in large files if its mount asks at each open, in per cent.
const LARGE_SHARE_MIN: u64 = 90;

/// Most other files of such an image: opening all of them costs 20 ms more than it would.
const SMALL_FILES_MAX: u64 = 1000;

/// Most files the kernel reads by itself, per connection; the others go through the server.
const BACKINGS_MAX: usize = 1024;

/// What an image's nodes ask of its mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How its files are best opened.
    pub(crate) opening: Opening,
    /// Whether a node has an access control list.
    pub(crate) lists: bool,
}

impl Shape {
    /// Looks at all nodes: some milliseconds for 100,000.
    pub(crate) fn of(index: &ImageIndex) -> Self {
        let (mut large, mut small, mut lists) = (0, 0, false);
        for node in (1..=index.nodes()).map(NodeId) {
            lists = lists || index.xattrs(node).any(|(name, _)| name.starts_with(b"system.posix_acl_"));
            match index.attr(node) {
                Some(attr) if attr.kind == NodeKind::File && attr.size >= LARGE_BYTES_MIN => {
                    large += attr.size
                }
                Some(attr) if attr.kind == NodeKind::File => small += 1,
                _ => {}
            }
        }
        let enough = u128::from(large) * 100 >= u128::from(index.bytes_total()) * u128::from(LARGE_SHARE_MIN);
        let asks = large > 0 && enough && small <= SMALL_FILES_MAX;
        Self { opening: if asks { Opening::Passthrough } else { Opening::Silent }, lists }
    }
}

#[derive(Debug, Default)]
struct State {
    backings: HashMap<NodeId, BackingId>,
    cached: HashMap<NodeId, u64>,
    refused: bool,
}

/// What is open, of a connection whose opens ask.
#[derive(Debug)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
    /// Whether nodes may be open that this server has not opened.
    inherited: bool,
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), inherited: false }
    }

    /// Those of a connection another server has served.
    pub(super) fn inherited(backings: &[(u32, BackingId)]) -> Self {
        let backings = backings.iter().map(|&(node, id)| (NodeId(node), id)).collect();
        Self { state: Mutex::new(State { backings, ..State::default() }), inherited: true }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is opened: the number of the file the kernel is to read, and whether that is new and has to be remembered.
    pub(super) fn open(
        &self,
        node: NodeId,
        device: &Device,
        bytes: &dyn FileBytes,
    ) -> (Option<BackingId>, bool) {
        let mut state = self.state();
        if let Some(&id) = state.backings.get(&node) {
            return (Some(id), false);
        }
        let possible = !self.inherited
            && !state.refused
            && !state.cached.contains_key(&node)
            && state.backings.len() < BACKINGS_MAX;
        if let Some(file) = possible.then(|| bytes.whole_file(node)).flatten() {
            match device.open_backing(&*file) {
                Ok(id) => {
                    state.backings.insert(node, id);
                    return (Some(id), true);
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel reads no files by itself here");
                    state.refused = true;
                }
            }
        }
        *state.cached.entry(node).or_default() += 1;
        (None, false)
    }

    /// A node that was opened is closed.
    pub(super) fn release(&self, node: NodeId) {
        let mut state = self.state();
        if let Some(count) = state.cached.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                state.cached.remove(&node);
            }
        }
    }

    /// What a successor has to know.
    pub(super) fn backings(&self) -> Vec<(u32, BackingId)> {
        let mut all: Vec<_> = self.state().backings.iter().map(|(node, &id)| (node.0, id)).collect();
        all.sort_unstable();
        all
    }
}
