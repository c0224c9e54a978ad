//! The content store: what is on disk, who keeps it, and what a crash may not take.
//!
//! [`Store`] is the root of it, held by one process; a [`Space`] is the view of one namespace, optionally bound to a lease.
//! In a space there are blobs (verified bytes by digest), [`Ingest`]s (bytes on their way in), images, containers, leases
//! and the table of snapshots. [`Store::collect`] removes what nothing keeps; [`Store::plan`] says what that would be, and
//! [`Space::why`] what keeps a thing. [`Store::check`] compares what is stored with what it should be,
//! [`Store::begin_blob_repair`], [`Store::quarantine_blob`] and [`Store::repair_records`] deal with what it finds.
//! [`Store::observe`] tells of every change.
//!
//! What is promised: acknowledged means durable; what was not acknowledged is absent or can be resumed, never half there;
//! what is reachable is never collected; opening after a crash takes under a second and needs nobody's help.
//!
//! Synchronous and silent (`tracing` only). Calls block on the disk: an asynchronous caller puts them on a blocking thread.
//!
//! Not here: bytes from a registry (`storage-registry`), trees of files (`storage-layer`, the snapshotters).

mod blob;
mod change;
mod check;
mod collect;
mod container;
mod error;
mod format;
mod image;
mod image_use;
mod ingest;
mod ingest_files;
mod kind;
mod label;
mod layout;
mod lease;
mod metadata;
mod namespace;
mod numbers;
mod publish;
mod quarantine;
mod rebuild;
mod recovery;
mod repair;
mod snapshot;
mod space;
mod store;
mod thing;
mod trash;
mod usage;

pub use blob::BlobInfo;
pub use change::{Change, Observer};
pub use check::{
    CheckEvent, CheckOptions, CheckPhase, CheckProgress, CheckSummary, Finding, Problem, Suspect,
};
pub use collect::{Collected, DoomReason, Doomed, KeeperChain, Plan, RemovedSnapshot};
pub use container::{ContainerRecord, Extension};
pub use error::{FormatProblem, RecordProblem, StoreError};
pub use image::ImageRecord;
pub use image_use::IdleImage;
pub use ingest::{Expected, Ingest, IngestStatus};
pub use kind::{ErrorKind, Subject};
pub use label::LabelChange;
pub use lease::{EPHEMERAL_LABEL, Lease, LeaseId, Resource, ResourceKind};
pub use metadata::MetadataState;
pub use namespace::NamespaceInfo;
pub use quarantine::QuarantinedBlob;
pub use rebuild::RecordRepair;
pub use recovery::Recovery;
pub use repair::BlobRepair;
pub use snapshot::{NewSnapshot, SnapshotKind, SnapshotRecord, SnapshotTable, Usage};
pub use space::Space;
pub use store::{Store, SyncMark};
pub use thing::Thing;
pub use usage::{DiskUsage, KindUsage};
