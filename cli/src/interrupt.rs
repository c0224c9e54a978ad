//! Ctrl-C and SIGTERM while a command waits for the engine.
//!
//! Cancelling is dropping: the engine sees the stream of a call go and ends its work, unless another client waits for it too.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;

/// Number of the signal that Ctrl-C sends.
pub(crate) const SIGINT: u8 = 2;

const SIGTERM: u8 = 15;

/// Waits for `work`, or for a signal that asks us to end; then `work` is dropped.
///
/// # Errors
/// Those of `work`, and [`CliError::Interrupted`].
pub(crate) async fn or_interrupted<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let signals = |source| CliError::Process("signals", source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Err(CliError::Interrupted(SIGINT)),
        _ = terminate.recv() => Err(CliError::Interrupted(SIGTERM)),
    }
}
