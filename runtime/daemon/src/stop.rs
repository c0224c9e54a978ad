//! The daemon's end, as everything that would outlast it sees it.

use tokio::sync::watch;

/// Tells whether the daemon is stopping. Clones are cheap and tell the same.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Says so. Dropping it says so too.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

pub(crate) fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Stops whoever waits.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the daemon is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until the daemon is stopping.
    pub(crate) async fn stopping(&self) {
        // An error means that the stopper is gone, which is stopping as well.
        let _ = self.0.clone().wait_for(|stopping| *stopping).await;
    }
}
