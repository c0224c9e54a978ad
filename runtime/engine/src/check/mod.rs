//! Compares what is stored with what it should be, and repairs it when asked: records, blobs, unpacked trees.
//!
//! `records, references, blobs (the store) -> damaged blobs fetched again -> trees against what was recorded at unpack ->
//! damaged files unpacked again`. In this order, because a tree is repaired from its blob.
//!
//! Nothing is unmounted and no container is touched: a repair puts right bytes where wrong ones are, entry by entry.

mod heal;
mod layers;
mod trees;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use storage_content::{CheckEvent, CheckOptions, Finding, Problem, Suspect, Thing};
use storage_model::{Digest, Namespace};
use tokio::sync::mpsc::Sender;

pub use heal::Healed;

use crate::pull::RegistryOptions;
use crate::work::blocking;
use crate::{Engine, EngineError};

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct CheckRequest {
    /// Read and hash every blob and every file of every tree; otherwise sizes and types are compared.
    pub read_data: bool,
    /// Part `.0` of `.1`, counted from 1, of what `read_data` reads.
    pub subset: Option<(u32, u32)>,
    /// Repair what can be repaired, put aside what cannot.
    pub repair: bool,
    /// How registries are spoken to for that.
    pub registry: RegistryOptions,
}

/// News of a check.
#[derive(Debug, Clone)]
pub enum CheckNews {
    /// It went on; at most ten times a second.
    Progress {
        /// Its pass: records, references, blobs, snapshots.
        phase: String,
        /// Objects looked at so far.
        objects: u64,
        /// Bytes read in this pass.
        done_bytes: u64,
        /// Bytes to read in this pass; 0 when nobody knows.
        total_bytes: u64,
    },
    /// Something is, or was, not as it should be.
    Found(Found),
}

/// Something that is not as it should be, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// `blob`, `snapshot`, `image`, `record`, ...
    pub kind: String,
    /// Digest, key or name.
    pub name: String,
    /// Snapshotter, of a snapshot.
    pub snapshotter: String,
    /// Namespaces that have it.
    pub namespaces: Vec<Namespace>,
    /// What is wrong.
    pub problem: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Images that need it.
    pub images: Vec<String>,
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is as it was: damaged.
    Damaged,
    /// It is as it should be again.
    Repaired,
    /// It could not be repaired and is put aside, so that nobody reads it.
    Quarantined,
}

impl From<Healed> for Outcome {
    fn from(healed: Healed) -> Self {
        match healed {
            Healed::Repaired => Self::Repaired,
            Healed::Quarantined => Self::Quarantined,
        }
    }
}

/// Result of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Objects looked at: records, references, blobs, trees.
    pub objects: u64,
    /// Bytes of content that were read.
    pub bytes_read: u64,
    /// Findings.
    pub damaged: u64,
    /// Those of them that are repaired.
    pub repaired: u64,
    /// How long it took.
    pub took: Duration,
}

impl CheckReport {
    fn count(&mut self, outcome: Outcome) {
        self.damaged += 1;
        self.repaired += u64::from(outcome == Outcome::Repaired);
    }
}

/// Ends a check whose caller has gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Engine {
    /// Checks the store, and repairs it when asked; tells of findings and progress through `events`.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the subset is none, or if a repair meets a disk that refuses. Damage is no error: it is
    /// told, and counted in the report.
    ///
    /// # Cancel safety
    /// Dropping the future ends the check; each repair is whole or has not happened.
    pub async fn check(
        &self,
        request: CheckRequest,
        events: Sender<CheckNews>,
    ) -> Result<CheckReport, EngineError> {
        let begun = Instant::now();
        let stop = StopOnDrop(Arc::default());
        let options =
            CheckOptions { read_data: request.read_data, subset: request.subset, stop: stop.0.clone() };
        let (mut report, findings) = self.check_store(options, events.clone()).await?;
        if request.repair && findings.iter().any(|finding| records(finding).is_some()) {
            let store = self.store().clone();
            blocking(move || Ok(store.repair_records()?)).await?;
        }
        for finding in findings {
            let outcome = match records(&finding) {
                _ if !request.repair => Outcome::Damaged,
                Some(outcome) => outcome,
                None => self.repair(&finding, &request.registry).await?,
            };
            report.count(outcome);
            // Who asked may have stopped listening; the report is theirs all the same.
            let _ = events.send(CheckNews::Found(told(&finding, outcome))).await;
        }
        let trees = self.check_trees(&request, stop.0.clone(), events).await?;
        report.objects += trees.objects;
        report.bytes_read += trees.bytes_read;
        report.damaged += trees.damaged;
        report.repaired += trees.repaired;
        report.took = begun.elapsed();
        Ok(report)
    }

    /// What the store itself finds. Findings are kept back until it is known what becomes of them.
    async fn check_store(
        &self,
        options: CheckOptions,
        events: Sender<CheckNews>,
    ) -> Result<(CheckReport, Vec<Finding>), EngineError> {
        let store = self.store().clone();
        blocking(move || {
            let mut findings = Vec::new();
            let summary = store.check(&options, &mut |event| match event {
                CheckEvent::Found(finding) => findings.push(finding),
                CheckEvent::Progress(progress) => {
                    let _ = events.try_send(CheckNews::Progress {
                        phase: progress.phase.to_string(),
                        objects: progress.objects,
                        done_bytes: progress.done_bytes,
                        total_bytes: progress.total_bytes,
                    });
                }
                _ => {}
            })?;
            let report = CheckReport {
                objects: summary.objects,
                bytes_read: summary.bytes_read,
                ..CheckReport::default()
            };
            Ok((report, findings))
        })
        .await
    }

    /// Repairs what a finding is about, if that is something that can be fetched again.
    async fn repair(&self, finding: &Finding, registry: &RegistryOptions) -> Result<Outcome, EngineError> {
        if let Some(digest) = damaged_blob(finding) {
            return Ok(self.heal_blob(&digest, &finding.images, registry).await?.into());
        }
        if matches!(finding.problem, Problem::ContentGone { .. }) {
            for (namespace, image) in &finding.images {
                if self.complete_image(namespace, image, registry).await {
                    return Ok(Outcome::Repaired);
                }
            }
        }
        Ok(Outcome::Damaged)
    }
}

/// What repairing the records makes of a finding that is about them; none if it is about something else.
fn records(finding: &Finding) -> Option<Outcome> {
    match finding.problem {
        // What it was is lost; nobody stumbles over it any more.
        Problem::Record(_) => Some(Outcome::Quarantined),
        Problem::Holders { .. } | Problem::Edge { .. } => Some(Outcome::Repaired),
        _ => None,
    }
}

/// The blob whose bytes are wrong or gone.
fn damaged_blob(finding: &Finding) -> Option<Digest> {
    match (&finding.suspect, &finding.problem) {
        (
            Suspect::Thing(Thing::Blob(digest)),
            Problem::FileGone | Problem::Size { .. } | Problem::Digest { .. } | Problem::Unreadable(_),
        ) => Some(*digest),
        _ => None,
    }
}

fn told(finding: &Finding, outcome: Outcome) -> Found {
    let (kind, name, snapshotter) = match &finding.suspect {
        Suspect::Thing(thing) => {
            (thing.subject().to_string(), thing.name(), thing.snapshotter().unwrap_or_default().to_owned())
        }
        other => ("record".to_owned(), other.to_string(), String::new()),
    };
    Found {
        kind,
        name,
        snapshotter,
        namespaces: finding.namespaces.clone(),
        problem: in_words(&finding.problem),
        outcome,
        images: finding.images.iter().map(|(_, name)| name.clone()).collect(),
    }
}

/// An error and its causes in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
