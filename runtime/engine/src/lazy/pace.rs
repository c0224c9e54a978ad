//! How fast registries have been: learned from every layer and document that comes, kept over restarts.
//!
//! `ROOT/lazy/pace.json`, one entry a registry. Losing it costs a worse guess, so it is written whole and never synced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Weight of the newest measurement against all before it.
const NEWEST: f64 = 0.3;

/// Smallest transfer that says anything of bandwidth, in bytes: below, it is the round trip that was measured.
const BYTES_MIN: u64 = 1 << 20;

/// Registries that are remembered; the file is small and read at every start.
const REGISTRIES_MAX: usize = 256;

/// How fast a registry is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Bytes a second of one image's transfer.
    pub(crate) bytes_per_second: f64,
    /// From a request to the first byte of the answer.
    pub(crate) round_trip_seconds: f64,
    /// Or only assumed.
    pub(crate) is_measured: bool,
}

impl Default for Pace {
    /// A cloud machine and a public registry: 200 Mbit/s, 20 ms.
    fn default() -> Self {
        Self { bytes_per_second: 25e6, round_trip_seconds: 0.02, is_measured: false }
    }
}

/// The paces of all registries.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Pace>>,
}

impl Paces {
    /// Reads what is known from below `root`; a file that cannot be read is as if there were none.
    pub(crate) fn open(root: &Path) -> Self {
        let path = root.join("lazy/pace.json");
        let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { path, known: Mutex::new(known.unwrap_or_default()) }
    }

    /// How fast `registry` is, or the assumption.
    pub(crate) fn of(&self, registry: &str) -> Pace {
        self.lock().get(registry).copied().unwrap_or_default()
    }

    /// Learns from one small request that `registry` answered in `took`.
    pub(crate) fn answered(&self, registry: &str, took: Duration) {
        self.learn(registry, |pace| {
            pace.round_trip_seconds = blend(pace, pace.round_trip_seconds, took.as_secs_f64());
        });
    }

    /// Learns from a transfer of `bytes` that took `took` in all.
    pub(crate) fn sent(&self, registry: &str, bytes: u64, took: Duration) {
        let seconds = took.as_secs_f64();
        if bytes >= BYTES_MIN && seconds > 0.0 {
            self.learn(registry, |pace| {
                pace.bytes_per_second = blend(pace, pace.bytes_per_second, bytes as f64 / seconds);
            });
        }
    }

    fn learn(&self, registry: &str, change: impl FnOnce(&mut Pace)) {
        let mut known = self.lock();
        if known.len() >= REGISTRIES_MAX && !known.contains_key(registry) {
            known.pop_first();
        }
        let pace = known.entry(registry.to_owned()).or_default();
        change(pace);
        pace.is_measured = true;
        let text = serde_json::to_vec(&*known).unwrap_or_default();
        let new = self.path.with_extension("new");
        if let Err(error) = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path)) {
            tracing::debug!(%error, path = %self.path.display(), "how fast registries are is not kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pace>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn blend(pace: &Pace, before: f64, newest: f64) -> f64 {
    if pace.is_measured { before * (1.0 - NEWEST) + newest * NEWEST } else { newest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learned_is_known_after_a_restart_and_other_registries_are_assumed() {
        let root = std::env::temp_dir().join(format!("pace-{}", std::process::id()));
        fs::create_dir_all(root.join("lazy")).unwrap();
        let paces = Paces::open(&root);
        paces.answered("r.example", Duration::from_millis(80));
        paces.sent("r.example", 10 << 20, Duration::from_secs(1));
        paces.sent("r.example", 10, Duration::from_secs(1));
        let known = Paces::open(&root).of("r.example");
        assert!(known.is_measured && (known.round_trip_seconds - 0.08).abs() < 1e-9);
        assert!(known.bytes_per_second > 9e6, "{known:?}");
        assert_eq!(Paces::open(&root).of("other.example"), Pace::default());
        fs::remove_dir_all(&root).unwrap();
    }
}
