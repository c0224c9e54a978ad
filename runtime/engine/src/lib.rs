//! The use cases: pull an image, run it, mount it, remove what nothing keeps.
//!
//! This is the composition root. It knows which store, which snapshotters, which registry client and which shim work
//! together, and in which order; each of them knows only its own work. It is silent: what happens is told through
//! return values, [`PullEvent`]s and `tracing`, never by printing.
//!
//! Not here: the wire (`runtime-daemon`), words for a terminal (`cli`).
#![forbid(unsafe_code)]

mod apply;
mod archive;
mod check;
mod collect;
mod container;
mod convert;
mod diff;
mod engine;
mod error;
mod image;
mod layers;
mod lazy;
mod mount;
mod mounted;
mod pull;
mod push;
mod snapshotters;
mod task;
mod transfer;
mod unpack;
mod why;
mod work;

pub use archive::{ArchiveError, ExportRequest, ImportRequest};
pub use check::{CheckNews, CheckReport, CheckRequest, Found, Healed, Outcome};
pub use collect::{Budget, CollectRequest};
pub use container::{
    ContainerDetails, ContainerState, CopiedOut, CopyError, ExecRequest, FoundPath, LogWish, NetworkWish,
    ProcessLine, RUNTIME_OPTIONS, RunRequest, Started, Status, Stopped, Usage,
};
pub use convert::{ConvertRequest, LazyForm};
pub use diff::DiffRequest;
pub use engine::{Engine, EngineConfig, EngineInfo};
pub use error::EngineError;
pub use image::{Image, ImageError};
pub use layers::{LayerState, Parts, PullEvent};
pub use lazy::{LazyError, LazyImage, LazyLayer, LazyMode, SNAPSHOT_REF};
pub use mount::{MountRequest, MountedImage};
pub use pull::{PullRequest, Pulled, RegistryOptions};
pub use push::PushRequest;
pub use storage_content::ErrorKind;
pub use task::{
    CreateTask, EventSink, ExecTask, Exit, OWN_RUNTIME, STOCK_RUNTIME, TaskError, Waiter, ttrpc_address,
};
pub use transfer::{TransferEvent, TransferKind, TransferState, Transferred, TransferredImage};
pub use unpack::{UnpackRequest, UnpackedImage};
pub use why::{Kept, WhyRequest};
