//! Pulling and unpacking on the wire, and how a registry is spoken to.

use std::path::{Path, PathBuf};

use runtime_api::windlass::v1 as wire;
use runtime_engine::{
    EngineError, LayerState, LazyMode, PullEvent, PullRequest, Pulled, RegistryOptions, UnpackRequest,
    UnpackedImage,
};
use storage_registry::Credentials;
use tonic::Status;

use crate::convert::checked_labels;
use crate::status::{invalid, status};

/// # Errors
/// `InvalidArgument` for a relative path, which would mean something else here than where the client is.
pub(super) fn absolute(path: &str, what: &str) -> Result<PathBuf, Status> {
    if Path::new(path).is_absolute() {
        Ok(path.into())
    } else {
        Err(invalid(format!(
            "{what} {path:?} is not an absolute path: the daemon has another working directory"
        )))
    }
}

/// A path that need not be given.
fn optional(path: &str, what: &str) -> Result<Option<PathBuf>, Status> {
    if path.is_empty() { Ok(None) } else { absolute(path, what).map(Some) }
}

pub(crate) fn registry_in(options: Option<wire::RegistryOptions>) -> Result<RegistryOptions, Status> {
    let options = options.unwrap_or_default();
    Ok(RegistryOptions {
        ca_files: optional(&options.ca_file, "ca_file")?.into_iter().collect(),
        hosts_dir: optional(&options.hosts_dir, "hosts_dir")?,
        docker_config: optional(&options.docker_config, "docker_config")?,
        plain_http: options.plain_http,
        skip_verify: options.skip_verify,
        credentials: options.credentials.map(|given| Credentials::password(given.username, given.password)),
    })
}

pub(super) fn pull_in(request: wire::PullRequest) -> Result<PullRequest, Status> {
    let registry = wire::RegistryOptions {
        plain_http: request.plain_http,
        skip_verify: request.skip_verify,
        ca_file: request.ca_file,
        hosts_dir: request.hosts_dir,
        credentials: request.credentials,
        docker_config: request.docker_config,
    };
    Ok(PullRequest {
        registry: registry_in(Some(registry))?,
        labels: checked_labels(request.labels)?,
        reference: request.reference,
        platform: request.platform,
        platforms: request.platforms,
        all_platforms: request.all_platforms,
        no_unpack: request.no_unpack,
        max_concurrent_downloads: count_in(request.max_concurrent_downloads),
        snapshotter: request.snapshotter,
        lazy: match request.lazy.as_str() {
            "" => LazyMode::Auto,
            word => word.parse().map_err(|error| status(EngineError::Lazy(error)))?,
        },
        no_fill: request.no_fill,
    })
}

/// A number of things at once.
pub(super) fn count_in(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

pub(super) fn unpack_in(request: wire::UnpackRequest) -> UnpackRequest {
    UnpackRequest { image: request.image, platform: request.platform, snapshotter: request.snapshotter }
}

fn layer_state_out(state: LayerState) -> wire::LayerState {
    match state {
        LayerState::Waiting => wire::LayerState::Waiting,
        LayerState::Downloading => wire::LayerState::Downloading,
        LayerState::Unpacking => wire::LayerState::Unpacking,
        LayerState::Done => wire::LayerState::Done,
        LayerState::Exists => wire::LayerState::Exists,
    }
}

pub(super) fn event_out(event: PullEvent) -> wire::PullEvent {
    use wire::pull_event::Event;
    let event = match event {
        PullEvent::Resolved { reference, digest, platform, layers } => Event::Resolved(wire::Resolved {
            reference,
            digest: digest.to_string(),
            platform: platform.to_string(),
            layers: layers
                .into_iter()
                .map(|(digest, size_bytes)| wire::Layer { digest: digest.to_string(), size_bytes })
                .collect(),
        }),
        PullEvent::Layer { digest, state, received_bytes, total_bytes, unpacked_bytes } => {
            Event::Layer(wire::LayerProgress {
                digest: digest.to_string(),
                state: layer_state_out(state).into(),
                received_bytes,
                total_bytes,
                unpacked_bytes,
            })
        }
        PullEvent::Message(text) => Event::Message(wire::Message { text }),
    };
    wire::PullEvent { event: Some(event) }
}

pub(super) fn done_out(pulled: Pulled) -> wire::PullEvent {
    let done = wire::Done {
        name: pulled.name,
        digest: pulled.digest.to_string(),
        chain_id: pulled.chain.map(|chain| chain.to_string()).unwrap_or_default(),
        fetched_bytes: pulled.fetched_bytes,
        seconds: pulled.seconds,
        parts_seconds: pulled.parts.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect(),
        snapshotter: pulled.snapshotter.to_owned(),
        lazy_reasons: pulled.lazy_reasons,
    };
    wire::PullEvent { event: Some(wire::pull_event::Event::Done(done)) }
}

pub(super) fn unpacked_out(unpacked: UnpackedImage) -> wire::PullEvent {
    let done = wire::Done {
        name: unpacked.image.record.name,
        digest: unpacked.image.record.target.digest.to_string(),
        chain_id: unpacked.image.chain.map(|chain| chain.to_string()).unwrap_or_default(),
        seconds: unpacked.seconds,
        snapshotter: unpacked.snapshotter.to_owned(),
        ..Default::default()
    };
    wire::PullEvent { event: Some(wire::pull_event::Event::Done(done)) }
}
