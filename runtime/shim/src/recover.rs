//! Cleaning up behind a shim that was killed.
//!
//! Its mount is gone with it; the process it watched may still run, unwatched. Nobody can learn its status any more, so
//! it is ended, the OCI runtime forgets it, and `exit.json` says what happened.
use std::io;
use std::path::{Path, PathBuf};

use runtime_container::runtime::{OciRuntime, RuntimeError};

use crate::client::{Client, ClientError};
use crate::config::{ConfigError, ShimConfig, socket_path};
use crate::exit::{ExitStatus, read_exit, write_exit};
use crate::protocol::{Failure, FailureKind, Phase};

/// Why a bundle could not be cleaned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Its shim answers: nothing to recover from.
    #[error("the shim of {bundle} is alive")]
    Alive {
        /// The bundle.
        bundle: PathBuf,
    },
    /// What to clean is not known.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The OCI runtime refused.
    #[error("cannot take the container of {bundle} away")]
    Runtime {
        /// The bundle.
        bundle: PathBuf,
        /// The cause.
        #[source]
        source: RuntimeError,
    },
    /// The status could not be written.
    #[error("cannot write how the container of {bundle} ended")]
    Io {
        /// The bundle.
        bundle: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Makes sure that nothing is left of the container of `bundle`, and returns how it ended: its own status when its
/// shim could still write it, 137 otherwise.
///
/// # Errors
/// [`RecoverError`]; calling again is safe.
pub fn recover(bundle: &Path) -> Result<ExitStatus, RecoverError> {
    let bundle = bundle.to_path_buf();
    // A connection alone proves nothing: while the kernel ends a killed shim, its socket still takes one.
    match Client::connect(&socket_path(&bundle)).and_then(|client| Ok((client.state()?, client))) {
        Err(ClientError::Gone { .. }) => {}
        Ok((report, client)) if report.phase == Phase::Ended => {
            // At worst the connection fails: then it is gone, too.
            let _ = client.wait_gone();
        }
        _ => return Err(RecoverError::Alive { bundle }),
    }
    let config = ShimConfig::read(&bundle)?;
    let runtime = OciRuntime::at(&config.runtime);
    runtime
        .delete(&config.target(), true)
        .map_err(|source| RecoverError::Runtime { bundle: bundle.clone(), source })?;
    let io_failed = |source| RecoverError::Io { bundle: bundle.clone(), source };
    if let Some(status) = read_exit(&bundle).map_err(io_failed)? {
        return Ok(status);
    }
    let mut lost =
        Failure::new(FailureKind::Internal, "the container's shim was killed; the process was ended");
    lost.exit_code = 137;
    let status = ExitStatus::of_failure(&lost);
    write_exit(&bundle, &status).map_err(io_failed)?;
    let _ = std::fs::remove_file(socket_path(&bundle));
    Ok(status)
}
