//! What a client asks a lazy server to show, and how the server may get at the bytes.

use std::fmt;
use std::path::PathBuf;

pub use lazy_fetch::{Access, Origin};
use serde::{Deserialize, Serialize};

/// Longest name of a mount, in bytes. A chain ID in hexadecimal has 64.
pub const NAME_BYTES_MAX: usize = 128;

/// One image to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRequest {
    /// Name of the mount, unique per server: the chain ID of the top layer in hexadecimal. 1..=[`NAME_BYTES_MAX`] bytes
    /// of `a-z A-Z 0-9 . _ -`, not beginning with a dot.
    pub name: String,
    /// The merged index.
    pub index: PathBuf,
    /// The canonical table of contents of each layer, in the order of `ImageIndex::blobs`; read only when a gzip layer
    /// without frames is entered at a checkpoint. May be empty if no layer is such a one.
    pub tocs: Vec<PathBuf>,
    /// Where it is to appear: an existing or new directory. A dead mount of an earlier server there is taken away.
    pub mountpoint: PathBuf,
    /// Where the blob of each layer can be fetched, in the order of `ImageIndex::blobs`. May be empty if all blobs are in
    /// the engine's store.
    pub origins: Vec<Vec<Origin>>,
    /// A login given by hand, for the registry of the origins. It lives in the memory of keeper and server only.
    pub login: Option<Login>,
    /// A recorded trace ([`lazy_fetch::Trace`] as JSON) to fetch along, from now on. One that cannot be read is as none.
    pub trace: Option<PathBuf>,
    /// Whether to fetch everything else behind the readers' backs.
    pub fill: bool,
}

impl MountRequest {
    /// Whether `name` may be the name of a mount.
    pub fn is_name(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    }
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Says nothing of the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}
