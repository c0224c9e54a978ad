//! Looking into containers from outside: their processes ([`top`]), what they use ([`stats`]), their files ([`copy`]).
//!
//! All of it is read from the kernel (`/proc`, cgroups, the root as the container sees it), so it is the same under any shim
//! and any OCI runtime.
//!
//! Not here: starting anything inside (`task`, `container`).

mod copy;
mod stats;
mod top;

pub use copy::{CopiedOut, CopyError, Found};
pub use stats::Usage;
pub use top::TopProcess;

use storage_model::Namespace;

use crate::{Engine, EngineError, Status};

impl Engine {
    /// The first process of a container that runs.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`], [`EngineError::NoContainer`].
    fn first_process(&self, namespace: &Namespace, id: &str) -> Result<u32, EngineError> {
        match self.container(namespace, id)?.status {
            Status::Running { pid } => Ok(pid),
            _ => Err(EngineError::NotRunning { id: id.to_owned() }),
        }
    }
}
