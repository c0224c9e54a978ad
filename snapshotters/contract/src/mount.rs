//! A mount as it is handed out: containerd's words, so that its clients can make it themselves.

use serde::{Deserialize, Serialize};

/// One mount. Several are mounted one on top of the other, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `bind`, `overlay` or the name of another file system.
    pub kind: String,
    /// What is mounted: a path for `bind`, a word otherwise.
    pub source: String,
    /// Place below the mount point. Always empty: every mount covers the whole mount point. The wire has the field, and
    /// the conformance suite holds snapshotters to this.
    pub target: String,
    /// Options as `mount(8)` takes them, one each.
    pub options: Vec<String>,
}

impl From<Mount> for storage_sys::mount::Mount {
    fn from(mount: Mount) -> Self {
        Self { kind: mount.kind, source: mount.source, options: mount.options }
    }
}

impl From<&Mount> for storage_sys::mount::Mount {
    fn from(mount: &Mount) -> Self {
        mount.clone().into()
    }
}
