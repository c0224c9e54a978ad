//! `windlass.v1.Engine`: whole use cases over the wire, thin translations of the engine's own.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use runtime_api::windlass::v1 as wire;
use runtime_container::spec::{MountOption, RunOptions};
use runtime_engine::{
    ContainerState, Engine, EngineError, LayerState, MountRequest, PullEvent, PullRequest, Pulled, RegistryOptions, RunRequest,
    Status as Process,
};
use storage_model::Namespace;
use storage_registry::Credentials;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::call::{blocking, namespace};
use crate::convert::{checked_labels, labels_out};
use crate::status::{invalid, status, stopping};
use crate::stop::Stop;

/// Events of a pull that wait for a slow client; progress is ten times a second and layer, so this is seconds of it.
const EVENTS_WAITING: usize = 256;

/// The service.
#[derive(Clone)]
pub(crate) struct EngineService {
    engine: Engine,
    stop: Stop,
}

impl EngineService {
    pub(crate) fn new(engine: Engine, stop: Stop) -> Self {
        Self { engine, stop }
    }
}

fn absolute(path: &str, what: &str) -> Result<PathBuf, Status> {
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

fn pull_in(request: wire::PullRequest) -> Result<PullRequest, Status> {
    let credentials = request.credentials.map(|given| Credentials::password(given.username, given.password));
    Ok(PullRequest {
        registry: RegistryOptions {
            ca_files: optional(&request.ca_file, "ca_file")?.into_iter().collect(),
            hosts_dir: optional(&request.hosts_dir, "hosts_dir")?,
            docker_config: optional(&request.docker_config, "docker_config")?,
            plain_http: request.plain_http,
            skip_verify: request.skip_verify,
            credentials,
        },
        labels: checked_labels(request.labels)?,
        reference: request.reference,
        platform: request.platform,
        platforms: request.platforms,
        all_platforms: request.all_platforms,
        no_unpack: request.no_unpack,
        max_concurrent_downloads: usize::try_from(request.max_concurrent_downloads).unwrap_or(usize::MAX),
        snapshotter: request.snapshotter,
    })
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

fn event_out(event: PullEvent) -> wire::PullEvent {
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

fn done_out(pulled: Pulled) -> wire::PullEvent {
    let done = wire::Done {
        name: pulled.name,
        digest: pulled.digest.to_string(),
        chain_id: pulled.chain.map(|chain| chain.to_string()).unwrap_or_default(),
        fetched_bytes: pulled.fetched_bytes,
        seconds: pulled.seconds,
        parts_seconds: pulled.parts.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect(),
    };
    wire::PullEvent { event: Some(wire::pull_event::Event::Done(done)) }
}

/// Runs a pull for as long as its client listens; the last message is `Done` or a status.
async fn pull(
    engine: Engine,
    namespace: Namespace,
    request: PullRequest,
    client: mpsc::Sender<Result<wire::PullEvent, Status>>,
    stop: Stop,
) {
    let (sender, mut events) = mpsc::channel(EVENTS_WAITING);
    let forwarding = async {
        while let Some(event) = events.recv().await {
            if client.send(Ok(event_out(event))).await.is_err() {
                return;
            }
        }
    };
    // The pull owns the sender: when it ends, so does the forwarding, after the last event.
    let both = async { tokio::join!(engine.pull(&namespace, request, sender), forwarding).0 };
    let last = tokio::select! {
        pulled = both => pulled.map(done_out).map_err(status),
        () = client.closed() => {
            tracing::info!("the client of a pull is gone: the pull is cancelled");
            return;
        }
        () = stop.stopping() => Err(stopping()),
    };
    // A client that left at the last moment needs no last message.
    let _ = client.send(last).await;
}

fn run_in(request: wire::RunRequest) -> Result<RunRequest, Status> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let options = RunOptions {
        args: request.args,
        entrypoint: request.entrypoint_set.then_some(request.entrypoint),
        env: request.env,
        cwd: given(request.cwd),
        user: given(request.user),
        terminal: request.terminal,
        net_host: request.net_host,
        mounts: request.mounts.into_iter().map(mount_in).collect(),
        hostname: given(request.hostname),
        read_only: request.read_only,
        privileged: request.privileged,
    };
    Ok(RunRequest {
        image: request.image,
        id: request.id,
        snapshotter: request.snapshotter,
        runtime: request.runtime,
        options,
        remove: request.remove,
        detach: request.detach,
        labels: checked_labels(request.labels)?,
    })
}

fn mount_in(mount: wire::Mount) -> MountOption {
    MountOption {
        kind: mount.r#type,
        source: mount.source,
        destination: mount.destination,
        options: mount.options,
    }
}

/// Words for the state of a process, and its id and exit code where it has them.
fn process_out(status: Process) -> (&'static str, u32, u32) {
    match status {
        Process::Created => ("created", 0, 0),
        Process::Running { pid } => ("running", pid, 0),
        Process::Exited { code } => ("exited", 0, code),
        Process::Lost => ("unknown", 0, 0),
    }
}

fn container_out(state: ContainerState) -> wire::Container {
    let (status, pid, exit_code) = process_out(state.status);
    let record = state.record;
    // A clock before 1970 is no reason to hide a container.
    let age = record.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    wire::Container {
        id: record.id.to_string(),
        image: record.image,
        runtime: record.runtime,
        snapshotter: record.snapshotter,
        created_at: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
        status: status.to_owned(),
        pid,
        exit_code,
        args: state.args,
        spec_json: state.spec_json,
        labels: labels_out(record.labels),
    }
}

#[tonic::async_trait]
impl wire::engine_server::Engine for EngineService {
    type PullStream = ReceiverStream<Result<wire::PullEvent, Status>>;

    async fn pull(&self, request: Request<wire::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = pull_in(request.into_inner())?;
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(pull(self.engine.clone(), namespace, request, sender, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<wire::RunResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = run_in(request.into_inner())?;
        let engine = self.engine.clone();
        engine.ensure_unpacked(&namespace, &request.image, "", &request.snapshotter).await.map_err(status)?;
        let started = blocking(move || engine.run(&namespace, request)).await?;
        Ok(Response::new(wire::RunResponse {
            id: started.id.to_string(),
            shim_socket: started.shim_socket.display().to_string(),
        }))
    }

    async fn mount_image(
        &self,
        request: Request<wire::MountImageRequest>,
    ) -> Result<Response<wire::MountImageResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::MountImageRequest { image, target, snapshotter, writable, platform } = request.into_inner();
        let target = absolute(&target, "target")?;
        let request = MountRequest { image, target, snapshotter, writable, platform };
        let mounted = self.engine.mount_image(&namespace, request).await.map_err(status)?;
        Ok(Response::new(wire::MountImageResponse {
            target: mounted.target.display().to_string(),
            key: mounted.key,
            chain_id: mounted.chain.map(|chain| chain.to_string()).unwrap_or_default(),
        }))
    }

    async fn unmount_image(
        &self,
        request: Request<wire::UnmountImageRequest>,
    ) -> Result<Response<wire::UnmountImageResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let target = absolute(&request.into_inner().target, "target")?;
        let engine = self.engine.clone();
        blocking(move || engine.unmount_image(&namespace, &target)).await?;
        Ok(Response::new(wire::UnmountImageResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let engine = self.engine.clone();
        let found = blocking(move || engine.containers(&namespace)).await?;
        let containers = found.into_iter().map(container_out).collect();
        Ok(Response::new(wire::ListContainersResponse { containers }))
    }

    async fn kill(
        &self,
        request: Request<wire::KillRequest>,
    ) -> Result<Response<wire::KillResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::KillRequest { id, signal, all } = request.into_inner();
        let engine = self.engine.clone();
        blocking(move || engine.kill(&namespace, &id, signal, all)).await?;
        Ok(Response::new(wire::KillResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<wire::RemoveContainerRequest>,
    ) -> Result<Response<wire::RemoveContainerResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::RemoveContainerRequest { id, force } = request.into_inner();
        let engine = self.engine.clone();
        blocking(move || engine.remove_container(&namespace, &id, force)).await?;
        Ok(Response::new(wire::RemoveContainerResponse {}))
    }

    async fn collect(
        &self,
        _: Request<wire::CollectRequest>,
    ) -> Result<Response<wire::CollectResponse>, Status> {
        let engine = self.engine.clone();
        let collected = blocking(move || engine.collect()).await?;
        Ok(Response::new(wire::CollectResponse {
            blobs: collected.blobs,
            snapshots: collected.snapshots,
            ingests: collected.ingests,
            freed_bytes: collected.freed_bytes,
            ..Default::default()
        }))
    }

    async fn info(&self, _: Request<wire::InfoRequest>) -> Result<Response<wire::InfoResponse>, Status> {
        let engine = self.engine.clone();
        // Looking for runtimes starts programs.
        let info = blocking(move || Ok::<_, EngineError>(engine.info())).await?;
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Response::new(wire::InfoResponse {
            version: info.version.to_owned(),
            root: info.root.display().to_string(),
            state: info.state.display().to_string(),
            pid: std::process::id(),
            recovery_ms: info.recovery.as_secs_f64() * 1e3,
            snapshotters: info.snapshotters.into_iter().map(str::to_owned).collect(),
            runtimes: info
                .runtimes
                .into_iter()
                .map(|(name, path)| (name, path.display().to_string()))
                .collect(),
            features: Vec::new(),
            kernel: kernel.trim().to_owned(),
        }))
    }
    type UnpackStream = ReceiverStream<Result<wire::PullEvent, Status>>;

    async fn unpack(&self, _: Request<wire::UnpackRequest>) -> Result<Response<Self::UnpackStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    type PushStream = ReceiverStream<Result<wire::TransferEvent, Status>>;

    async fn push(&self, _: Request<wire::PushRequest>) -> Result<Response<Self::PushStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    type ImportStream = ReceiverStream<Result<wire::TransferEvent, Status>>;

    async fn import(
        &self,
        _: Request<tonic::Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    type ExportStream = ReceiverStream<Result<wire::ExportResponse, Status>>;

    async fn export(&self, _: Request<wire::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    type ConvertStream = ReceiverStream<Result<wire::TransferEvent, Status>>;

    async fn convert(
        &self,
        _: Request<wire::ConvertRequest>,
    ) -> Result<Response<Self::ConvertStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    type CheckStream = ReceiverStream<Result<wire::CheckEvent, Status>>;

    async fn check(&self, _: Request<wire::CheckRequest>) -> Result<Response<Self::CheckStream>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    async fn tag(&self, _: Request<wire::TagRequest>) -> Result<Response<wire::TagResponse>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    async fn resolve_image(
        &self,
        _: Request<wire::ResolveImageRequest>,
    ) -> Result<Response<wire::ResolveImageResponse>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    async fn why(&self, _: Request<wire::WhyRequest>) -> Result<Response<wire::WhyResponse>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }

    async fn disk_usage(
        &self,
        _: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        Err(Status::unimplemented("not in this build yet"))
    }
}
