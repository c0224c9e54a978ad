//! Compares what is stored with what it should be, and changes nothing.
//!
//! Three passes: every record can be read and agrees with those it belongs to ([`records`]); what images, snapshots and
//! containers refer to is here ([`references`]); every blob's file has its size and, when asked, its digest ([`blobs`]).
//! Clients go on meanwhile: what looks damaged is looked at again before it is reported, so that something deleted a
//! moment ago is no finding.
//!
//! Not here: the trees of snapshots (the snapshotters), and repairing (`repair`, `quarantine`, the engine).

mod blobs;
mod finding;
mod records;
mod references;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use finding::{Finding, Problem, Suspect};

use crate::StoreError;
use crate::store::Store;
use references::Needs;

/// What [`Store::check`] looks at.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Read and hash every blob; otherwise the sizes of files are compared.
    pub read_data: bool,
    /// Part `.0` of `.1`, counted from 1, of what `read_data` reads: all parts together are everything, and each blob
    /// is always in the same one. None reads all.
    pub subset: Option<(u32, u32)>,
    /// Set it to end the check early; the summary says that it is not complete.
    pub stop: Arc<AtomicBool>,
}

/// Where a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckPhase {
    /// Reading the records.
    Records,
    /// Following references.
    References,
    /// Looking at files of blobs.
    Blobs,
}

impl fmt::Display for CheckPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Records => "records",
            Self::References => "references",
            Self::Blobs => "blobs",
        })
    }
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckProgress {
    /// Its pass.
    pub phase: CheckPhase,
    /// Objects looked at, in all passes.
    pub objects: u64,
    /// Bytes read in this pass.
    pub done_bytes: u64,
    /// Bytes to read in this pass.
    pub total_bytes: u64,
}

/// News of a check.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckEvent {
    /// It went on: at the end of each pass, and at most ten times a second between.
    Progress(CheckProgress),
    /// Something is not as it should be.
    Found(Finding),
}

/// Result of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckSummary {
    /// Objects looked at: records, references, blobs.
    pub objects: u64,
    /// Bytes of blobs that were read.
    pub bytes_read: u64,
    /// Findings.
    pub damaged: u64,
    /// Whether it was ended early by [`CheckOptions::stop`].
    pub stopped: bool,
}

impl Store {
    /// Checks the store; `visit` hears of every finding and of progress, on the thread that calls.
    ///
    /// Costs a read of every record, of every image's manifests, and with `read_data` of every blob, on as many threads as
    /// there are processors.
    ///
    /// # Errors
    /// [`StoreError::Subset`] if the subset is not one. Everything else that goes wrong is a finding.
    pub fn check(
        &self,
        options: &CheckOptions,
        visit: &mut dyn FnMut(CheckEvent),
    ) -> Result<CheckSummary, StoreError> {
        if let Some((index, count)) = options.subset
            && !(1..=count).contains(&index)
        {
            return Err(StoreError::Subset { index, count });
        }
        let mut pass =
            Pass { store: self, options, visit, summary: CheckSummary::default(), needs: Needs::default() };
        pass.check_references();
        pass.check_records();
        pass.check_blobs();
        pass.summary.stopped = pass.stopped();
        Ok(pass.summary)
    }
}

/// A check that is going on.
struct Pass<'a> {
    store: &'a Store,
    options: &'a CheckOptions,
    visit: &'a mut dyn FnMut(CheckEvent),
    summary: CheckSummary,
    /// Which images need which blobs, for the findings.
    needs: Needs,
}

impl Pass<'_> {
    fn stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    fn found(&mut self, finding: Finding) {
        self.summary.damaged += 1;
        (self.visit)(CheckEvent::Found(finding));
    }

    fn progress(&mut self, phase: CheckPhase, done_bytes: u64, total_bytes: u64) {
        let objects = self.summary.objects;
        (self.visit)(CheckEvent::Progress(CheckProgress { phase, objects, done_bytes, total_bytes }));
    }
}
