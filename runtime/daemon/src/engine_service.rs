//! `windlass.v1.Engine`: whole use cases over the wire, thin translations of the engine's own.
//!
//! The calls are here; what they say and hear is translated beside: `pull`, `transfer`, `container`, `store`,
//! `check`; `stream` runs what tells of its progress.

mod check;
pub(crate) mod container;
mod pull;
mod run;
mod store;
mod stream;
mod transfer;

use runtime_api::windlass::v1 as wire;
use runtime_engine::{Engine, EngineError, MountRequest};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::pull::registry_in;
use self::stream::{Messages, told};
use crate::call::{blocking, namespace};
use crate::status::status;
use crate::stop::Stop;

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

#[tonic::async_trait]
impl wire::engine_server::Engine for EngineService {
    type PullStream = Messages<wire::PullEvent>;

    async fn pull(&self, request: Request<wire::PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = pull::pull_in(request.into_inner())?;
        let engine = self.engine.clone();
        let work = move |events| async move { engine.pull(&namespace, request, events).await };
        Ok(told("pull", self.stop.clone(), work, pull::event_out, pull::done_out))
    }

    type UnpackStream = Messages<wire::PullEvent>;

    async fn unpack(
        &self,
        request: Request<wire::UnpackRequest>,
    ) -> Result<Response<Self::UnpackStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = pull::unpack_in(request.into_inner());
        let engine = self.engine.clone();
        let work = move |events| async move { engine.unpack(&namespace, request, events).await };
        Ok(told("unpack", self.stop.clone(), work, pull::event_out, pull::unpacked_out))
    }

    async fn tag(&self, request: Request<wire::TagRequest>) -> Result<Response<wire::TagResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let wire::TagRequest { image, names, force } = request.into_inner();
        let engine = self.engine.clone();
        let names = blocking(move || engine.tag(&namespace, &image, &names, force)).await?;
        Ok(Response::new(wire::TagResponse { names }))
    }

    async fn resolve_image(
        &self,
        request: Request<wire::ResolveImageRequest>,
    ) -> Result<Response<wire::ResolveImageResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let text = request.into_inner().image;
        let engine = self.engine.clone();
        let found = blocking(move || engine.resolve_image(&namespace, &text)).await?;
        Ok(Response::new(wire::ResolveImageResponse {
            name: found.name,
            digest: found.target.digest.to_string(),
            media_type: found.target.media_type,
        }))
    }

    async fn run(&self, request: Request<wire::RunRequest>) -> Result<Response<wire::RunResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let mut request = run::run_in(request.into_inner())?;
        let engine = self.engine.clone();
        if request.rootfs.is_none() {
            let unpacked = engine.ensure_unpacked(&namespace, &request.image, "", &request.snapshotter).await;
            request.snapshotter = unpacked.map_err(status)?.snapshotter.to_owned();
        }
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
        let target = pull::absolute(&target, "target")?;
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
        let target = pull::absolute(&request.into_inner().target, "target")?;
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
        let containers = blocking(move || {
            let found = engine.containers(&namespace)?;
            let shown = |state| container::container_out(&engine, &namespace, state);
            Ok::<_, EngineError>(found.into_iter().map(shown).collect())
        })
        .await?;
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
        request: Request<wire::CollectRequest>,
    ) -> Result<Response<wire::CollectResponse>, Status> {
        let request = store::collect_in(request.get_ref());
        let engine = self.engine.clone();
        let plan = blocking(move || engine.collect_with(&request)).await?;
        Ok(Response::new(store::plan_out(plan)))
    }

    async fn why(&self, request: Request<wire::WhyRequest>) -> Result<Response<wire::WhyResponse>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = store::why_in(request.into_inner());
        let engine = self.engine.clone();
        let kept = blocking(move || engine.why(&namespace, &request)).await?;
        Ok(Response::new(wire::WhyResponse { kept: kept.into_iter().map(store::kept_out).collect() }))
    }

    async fn disk_usage(
        &self,
        _: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        let engine = self.engine.clone();
        blocking(move || store::usage(&engine)).await.map(Response::new)
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
    type PushStream = Messages<wire::TransferEvent>;

    async fn push(&self, request: Request<wire::PushRequest>) -> Result<Response<Self::PushStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = transfer::push_in(request.into_inner())?;
        let engine = self.engine.clone();
        let work = move |events| async move { engine.push(&namespace, request, events).await };
        Ok(told("push", self.stop.clone(), work, transfer::event_out, transfer::done_out))
    }

    type ImportStream = Messages<wire::TransferEvent>;

    async fn import(
        &self,
        request: Request<Streaming<wire::ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let (request, archive) = transfer::begin_import(request.into_inner()).await?;
        let engine = self.engine.clone();
        let work = move |events| async move { engine.import(&namespace, request, archive, events).await };
        Ok(told("import", self.stop.clone(), work, transfer::event_out, transfer::done_out))
    }

    type ExportStream = Messages<wire::ExportResponse>;

    async fn export(
        &self,
        request: Request<wire::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = transfer::export_in(request.into_inner());
        let engine = self.engine.clone();
        let work = move |messages| transfer::export(engine, namespace, request, messages);
        Ok(told("export", self.stop.clone(), work, transfer::exported_out, transfer::export_done_out))
    }

    type ConvertStream = Messages<wire::TransferEvent>;

    async fn convert(
        &self,
        request: Request<wire::ConvertRequest>,
    ) -> Result<Response<Self::ConvertStream>, Status> {
        let namespace = namespace(request.metadata())?;
        let request = transfer::convert_in(request.into_inner())?;
        let engine = self.engine.clone();
        let work = move |events| async move { engine.convert(&namespace, request, events).await };
        Ok(told("conversion", self.stop.clone(), work, transfer::event_out, transfer::done_out))
    }

    type CheckStream = Messages<wire::CheckEvent>;

    async fn check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let request = check::check_in(request.into_inner())?;
        let engine = self.engine.clone();
        let work = move |events| async move { engine.check(request, events).await };
        Ok(told("check", self.stop.clone(), work, check::event_out, check::done_out))
    }
}
