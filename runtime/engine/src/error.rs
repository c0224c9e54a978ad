//! What can go wrong in a use case, in words for the person who asked.

use std::path::{Path, PathBuf};

use snapshotters_contract::SnapshotError;
use storage_content::{ErrorKind, StoreError};
use storage_layer::LayerError;
use storage_model::{ConfigError, DiffId, Digest, DocumentError, NameError, PlatformError, ReferenceError};
use storage_registry::RegistryError;

/// Why a use case failed. Each message names the thing; its `source` tells the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The reference cannot be read.
    #[error("invalid image reference {text:?}")]
    Reference {
        /// What was given.
        text: String,
        /// Why.
        source: ReferenceError,
    },
    /// The platform cannot be read.
    #[error("invalid platform")]
    Platform(#[from] PlatformError),
    /// A name cannot be read.
    #[error("invalid name")]
    Name(#[from] NameError),
    /// No such snapshotter.
    #[error("no snapshotter is called {name:?}: there is {known}")]
    UnknownSnapshotter {
        /// What was asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The registry refused, failed or lied.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshotter refused or failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A manifest or index is not one.
    #[error("the manifest {digest} of {reference} cannot be used")]
    Document {
        /// Reference it was reached by.
        reference: String,
        /// Its digest.
        digest: Digest,
        /// Why.
        source: DocumentError,
    },
    /// The image config is not one.
    #[error("the config {digest} of {reference} cannot be used")]
    Config {
        /// Reference it was reached by.
        reference: String,
        /// Its digest.
        digest: Digest,
        /// Why.
        source: ConfigError,
    },
    /// The image exists, but not for this platform.
    #[error("{reference} has no image for {wanted}: it has {offered}")]
    NoPlatform {
        /// Reference asked for.
        reference: String,
        /// Platform asked for.
        wanted: String,
        /// Platforms there are.
        offered: String,
    },
    /// A layer cannot be unpacked by this version.
    #[error("layer {digest} of {reference} has type {media_type}, which cannot be unpacked{hint}")]
    LayerType {
        /// Reference.
        reference: String,
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// What to do.
        hint: &'static str,
    },
    /// What is to be unpacked is no layer of a kind we know.
    #[error(
        "{digest} has type {media_type:?}, which is no layer that can be unpacked here: tars, plain or compressed with gzip or zstd, can"
    )]
    NoLayer {
        /// What was given.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Layers of that kind cannot be written.
    #[error(
        "layers of type {media_type:?} cannot be written here: OCI's and docker's tars, plain or compressed with gzip or zstd, can"
    )]
    NoLayerType {
        /// What was asked for.
        media_type: String,
    },
    /// A tree could not be packed into a layer.
    #[error("the difference of the trees cannot be packed into a layer")]
    Pack {
        /// Why.
        source: storage_layer::PackError,
    },
    /// An unpacked tree could not be compared with its record, or repaired.
    #[error("the tree of snapshot {name} cannot be repaired")]
    Tree {
        /// The snapshot.
        name: String,
        /// Why.
        source: storage_layer::TreeError,
    },
    /// A repair changed nothing for the better: the disk may be failing.
    #[error("it is still damaged afterwards: {problem}")]
    StillDamaged {
        /// What is wrong.
        problem: String,
    },
    /// A word that names no kind of thing.
    #[error("{kind:?} is no kind of thing: blob, snapshot, image and ingest are")]
    UnknownKind {
        /// What was given.
        kind: String,
    },
    /// Nothing has that name.
    #[error(
        "nothing is called {name:?} in namespace {namespace}: no image, blob, snapshot or ingest (a digest may be shortened to its first 7 digits)"
    )]
    NothingCalled {
        /// What was asked for.
        name: String,
        /// Where.
        namespace: String,
    },
    /// A layer is to be unpacked where nothing may be written.
    #[error(
        "the mounts to unpack into are read-only: take those of an active snapshot (`prepare`, not `view`)"
    )]
    ReadOnlyMounts,
    /// A layer is damaged or hostile.
    #[error("layer {digest} of {reference} cannot be unpacked")]
    Layer {
        /// Reference.
        reference: String,
        /// The layer.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
    /// A layer unpacks to another tar than the config promises: the image is wrong, not the transfer.
    #[error(
        "layer {digest} of {reference} unpacks to diff ID {actual}, but the image config says {expected}: \
         the image was put together wrongly, or tampered with"
    )]
    DiffIdMismatch {
        /// Reference.
        reference: String,
        /// The layer.
        digest: Digest,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// No image of that name.
    #[error("no image is called {name:?} in namespace {namespace}{}", instead(.similar))]
    NoImage {
        /// What was asked for.
        name: String,
        /// Where.
        namespace: String,
        /// Names of images of the same last name, separated by commas.
        similar: String,
    },
    /// An image that is here, or should be, cannot be used as asked.
    #[error(transparent)]
    Image(#[from] crate::ImageError),
    /// An archive cannot be read or written.
    #[error(transparent)]
    Archive(#[from] crate::ArchiveError),
    /// A layer could not be compressed anew.
    #[error("layer {digest} of {reference} cannot be compressed anew")]
    Recompress {
        /// The image.
        reference: String,
        /// The layer.
        digest: Digest,
        /// Why.
        source: storage_layer::PackError,
    },
    /// A layer could not be written in a form that is read lazily.
    #[error("layer {digest} of {reference} cannot be made lazy")]
    MakeLazy {
        /// The image.
        reference: String,
        /// The layer.
        digest: Digest,
        /// Why.
        source: lazy_build::BuildError,
    },
    /// Not a form of layers that are read lazily.
    #[error(
        "{0:?} is no form of lazy layers: estargz, zstd-chunked, zstd-chunked=stargz and soci are, without a compression"
    )]
    UnknownLazyForm(String),
    /// What is to be read first is neither a list of paths nor a trace.
    #[error("the list of files to put first cannot be read: {0}")]
    Prioritized(&'static str),
    /// Not a compression.
    #[error("{0:?} is no compression of layers: gzip, zstd and uncompressed are")]
    UnknownCompression(String),
    /// The operation was told to stop: another part of it failed, or its caller went away.
    #[error("the operation was called off")]
    CalledOff,
    /// The image is known, but its layers are not unpacked here.
    #[error("image {name} is not unpacked for snapshotter {snapshotter}: pull it again")]
    NotUnpacked {
        /// The image.
        name: String,
        /// Where it should be.
        snapshotter: String,
    },
    /// No container of that name.
    #[error("no container is called {id:?} in namespace {namespace}")]
    NoContainer {
        /// What was asked for.
        id: String,
        /// Where.
        namespace: String,
    },
    /// The name is taken.
    #[error(
        "a container is called {id:?} already: remove it with `windlass containers rm {id}`, or choose another name"
    )]
    ContainerExists {
        /// The name.
        id: String,
    },
    /// The container runs.
    #[error("container {id} is running: stop it with `windlass tasks kill {id}`, or use --force")]
    Running {
        /// The container.
        id: String,
    },
    /// The container does not run.
    #[error("container {id} is not running")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// It was made by a client of containerd, or an older version: what it was started with is not known here.
    #[error("container {id} was not made by `windlass run`: start it with the client that made it")]
    NotOurs {
        /// The container.
        id: String,
    },
    /// Not a signal's name or number.
    #[error("{0:?} is no signal: it is a number from 1 to 64, or a name like TERM")]
    SignalName(String),
    /// It does not die.
    #[error("container {id} has not ended {seconds} s after SIGKILL: its process hangs in the kernel")]
    Stuck {
        /// The container.
        id: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Not a restart policy.
    #[error("{0:?} is no restart policy: no, always, unless-stopped and on-failure[:COUNT] are")]
    RestartPolicy(String),
    /// What an exec asks for cannot be had in this container.
    #[error("the exec cannot be made in container {id}")]
    ExecSpec {
        /// The container.
        id: String,
        /// Why.
        source: runtime_container::spec::SpecError,
    },
    /// No command.
    #[error("an exec needs a command")]
    NoCommand,
    /// Not a signal.
    #[error("{0} is not a signal number: Linux has 1 to 64")]
    Signal(u32),
    /// The OCI runtime cannot be used.
    #[error(transparent)]
    Runtime(#[from] runtime_container::runtime::RuntimeError),
    /// A task does not do what was asked.
    #[error(transparent)]
    Task(#[from] crate::TaskError),
    /// Files were not copied into or out of a container.
    #[error(transparent)]
    Copy(#[from] crate::CopyError),
    /// The network could not be given.
    #[error(transparent)]
    Network(#[from] runtime_network::NetworkError),
    /// Not a way to choose a namespace.
    #[error("{given:?} is no {kind} namespace: private, host, or container:ID")]
    NamespaceMode {
        /// `pid`, `ipc`, ...
        kind: String,
        /// What was given.
        given: String,
    },
    /// Options of a log that make no sense.
    #[error(transparent)]
    Log(#[from] runtime_logs::SettingsError),
    /// No way to keep output is called so.
    #[error("{0:?} is no log driver: json-file, none, or a URI such as file:///PATH or binary:///PROGRAM")]
    LogDriver(String),
    /// A root that is not there.
    #[error("{path} is not a directory that could be a container's root")]
    RootDirectory {
        /// What was given.
        path: PathBuf,
    },
    /// The shim failed.
    #[error("the shim of container {id} failed")]
    Shim {
        /// The container.
        id: String,
        /// Why.
        source: ShimFault,
    },
    /// The container's process could not be started: its command, user, directory or a mount is at fault.
    #[error("container {id} could not be started: {}", failure.message)]
    Start {
        /// The container.
        id: String,
        /// What the shim says, with the exit code a shell would give.
        failure: runtime_shim::Failure,
    },
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] storage_sys::mount::MountError),
    /// The target of an image mount is not one of ours.
    #[error("{0} is not an image mount of this engine")]
    NotMounted(PathBuf),
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An image cannot be shown before it has arrived.
    #[error(transparent)]
    Lazy(#[from] crate::lazy::LazyError),
    /// A worker thread died: a defect of ours.
    #[error("a worker died while it had layer {0}: this is a defect, please report it")]
    Worker(Digest),
}

/// What failed about a shim.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimFault {
    /// Its instructions could not be written.
    #[error(transparent)]
    Config(#[from] runtime_shim::ConfigError),
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] runtime_shim::SpawnError),
    /// It did not answer as it should.
    #[error(transparent)]
    Client(#[from] runtime_shim::ClientError),
    /// What a killed shim left could not be cleaned up.
    #[error(transparent)]
    Recover(#[from] runtime_shim::RecoverError),
}

impl EngineError {
    /// The error of a shim call for container `id`.
    pub(crate) fn shim(id: &str) -> impl Fn(ShimFault) -> Self {
        let id = id.to_owned();
        move |source| match source {
            ShimFault::Client(runtime_shim::ClientError::Failed(failure)) => {
                Self::Start { id: id.clone(), failure }
            }
            source => Self::Shim { id: id.clone(), source },
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// What kind of failure this is, for the edge (gRPC codes, exit codes).
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference { .. }
            | Self::Platform(_)
            | Self::Name(_)
            | Self::UnknownSnapshotter { .. }
            | Self::Signal(_)
            | Self::SignalName(_)
            | Self::RestartPolicy(_)
            | Self::ExecSpec { .. }
            | Self::NoCommand
            | Self::Document { .. }
            | Self::Config { .. } => ErrorKind::InvalidArgument,
            Self::Registry(error) => registry_kind(error),
            Self::Lazy(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Task(error) => error.kind(),
            Self::Copy(error) => error.kind(),
            Self::Network(error) if error.is_bad_request() => ErrorKind::InvalidArgument,
            Self::Network(_) => ErrorKind::FailedPrecondition,
            Self::NamespaceMode { .. } | Self::Log(_) | Self::LogDriver(_) | Self::RootDirectory { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::Archive(error) => error.kind(),
            Self::UnknownCompression(_) => ErrorKind::InvalidArgument,
            Self::Recompress { source, .. } if is_disk_full(source) => ErrorKind::ResourceExhausted,
            Self::Recompress { source: storage_layer::PackError::Level { .. }, .. } => {
                ErrorKind::InvalidArgument
            }
            Self::Recompress { .. } => ErrorKind::DataLoss,
            Self::MakeLazy { source: lazy_build::BuildError::Level { .. }, .. }
            | Self::UnknownLazyForm(_)
            | Self::Prioritized(_) => ErrorKind::InvalidArgument,
            Self::MakeLazy { source, .. } if is_disk_full(source) => ErrorKind::ResourceExhausted,
            Self::MakeLazy { .. } => ErrorKind::DataLoss,
            Self::CalledOff => ErrorKind::Cancelled,
            Self::Store(error) => error.kind(),
            Self::Snapshot(error) => error.kind(),
            Self::NoPlatform { .. }
            | Self::NoImage { .. }
            | Self::NoContainer { .. }
            | Self::NotMounted(_) => ErrorKind::NotFound,
            Self::LayerType { .. } | Self::ReadOnlyMounts => ErrorKind::FailedPrecondition,
            Self::NoLayer { .. } | Self::NoLayerType { .. } => ErrorKind::Unimplemented,
            Self::Layer { source, .. } if is_disk_full(source) => ErrorKind::ResourceExhausted,
            Self::Layer { .. } | Self::DiffIdMismatch { .. } => ErrorKind::DataLoss,
            Self::ContainerExists { .. } => ErrorKind::AlreadyExists,
            Self::NotUnpacked { .. }
            | Self::Running { .. }
            | Self::NotRunning { .. }
            | Self::NotOurs { .. }
            | Self::Runtime(_) => ErrorKind::FailedPrecondition,
            Self::Io { source, .. } => io_kind(source),
            Self::Pack { .. } | Self::Tree { .. } => ErrorKind::Internal,
            Self::StillDamaged { .. } => ErrorKind::DataLoss,
            Self::Stuck { .. } => ErrorKind::DeadlineExceeded,
            Self::UnknownKind { .. } => ErrorKind::InvalidArgument,
            Self::NothingCalled { .. } => ErrorKind::NotFound,
            Self::Start { .. } => ErrorKind::FailedPrecondition,
            Self::Shim { .. } | Self::Mount(_) | Self::Worker(_) => ErrorKind::Internal,
        }
    }
}

/// What to do about an image that is not there.
fn instead(similar: &str) -> String {
    if similar.is_empty() { ": pull it first".to_owned() } else { format!(": do you mean {similar}?") }
}

/// Whether an error or one of its causes is a full disk or quota.
fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let error = error.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| io_kind(error) == ErrorKind::ResourceExhausted)
    })
}

fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    }
}

fn registry_kind(error: &RegistryError) -> ErrorKind {
    match error {
        RegistryError::NotFound { .. } => ErrorKind::NotFound,
        RegistryError::Unauthorized { .. } => ErrorKind::Unauthenticated,
        RegistryError::Denied { .. } => ErrorKind::PermissionDenied,
        RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. } => ErrorKind::DataLoss,
        RegistryError::Timeout { .. } => ErrorKind::DeadlineExceeded,
        error if error.is_transient() => ErrorKind::Unavailable,
        RegistryError::Connect { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::FailedPrecondition,
    }
}
