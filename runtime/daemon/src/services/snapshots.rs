//! `containerd.services.snapshots.v1`: the snapshotters, by name.
//!
//! The names of `plugin` are answered as well: those are calls of a containerd that has us as its proxy plug-in.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use runtime_api::containerd::services::snapshots::v1 as wire;
use runtime_api::containerd::types;
use runtime_api::filter::Filters;
use runtime_engine::{Engine, SNAPSHOT_REF};
use snapshotters_contract::{ActiveKey, CommittedName, Info, Kind, Mount, Snapshotter};
use storage_content::{LabelChange, Space};
use storage_model::Labels;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::call::{CallError, blocking, space};
use crate::convert::{
    BATCH, checked_labels, filters, label, label_change, labels_out, required, size_out, time_out,
};
use crate::plugin::Plugin;
use crate::status::{invalid, status};

/// The snapshotter that may have a layer without its bytes.
const LAZY: &str = "lazy";

/// The service.
#[derive(Clone)]
pub(crate) struct SnapshotsService {
    engine: Engine,
}

impl SnapshotsService {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// The snapshotter called `name`, for the namespace and the lease of `request`.
    ///
    /// # Errors
    /// `InvalidArgument` with containerd's words for a missing or unknown name.
    fn chosen<T>(&self, request: &Request<T>, name: &str) -> Result<Chosen, Status> {
        let plugin = Plugin::called(name);
        let space = match plugin {
            Some(_) => self.engine.store().space(&Plugin::namespace()),
            None => space(self.engine.store(), request)?,
        };
        if name.is_empty() {
            return Err(invalid("snapshotter argument missing"));
        }
        let ours = plugin.map_or(name, |plugin| plugin.snapshotter);
        if !self.engine.snapshotters().contains(&ours) {
            return Err(invalid(format!("snapshotter not loaded: {name}")));
        }
        let snapshotter = self.engine.snapshotter(ours, space.clone()).map_err(status)?;
        Ok(Chosen { snapshotter, space, is_plugin: plugin.is_some() })
    }

    /// Whether the snapshot that `new` is prepared for is there already, or has been made without the layer's bytes: the
    /// remote-snapshotter protocol (`runtime_engine`, `lazy/remote.rs`).
    async fn is_remote(&self, space: &Space, new: &New) -> Result<bool, Status> {
        let keep = if new.is_plugin { Plugin::keep(Labels::new()) } else { Labels::new() };
        let (parent, labels) = (new.parent.as_ref(), &new.labels);
        self.engine.prepare_remote(space, parent, labels, keep).await.map_err(status)
    }
}

/// The snapshotter of one call, and how labels pass to it and back.
struct Chosen {
    snapshotter: Arc<dyn Snapshotter>,
    space: Space,
    is_plugin: bool,
}

impl Chosen {
    /// Labels for something new.
    fn labels(&self, labels: HashMap<String, String>) -> Result<Labels, Status> {
        let labels = checked_labels(labels)?;
        Ok(if self.is_plugin { Plugin::keep(labels) } else { labels })
    }

    fn change(&self, change: LabelChange) -> LabelChange {
        if self.is_plugin { Plugin::keep_through(change) } else { change }
    }

    /// What is told of a snapshot.
    fn told(&self, mut info: Info) -> Info {
        if self.is_plugin {
            info.labels = Plugin::hide(info.labels);
        }
        info
    }
}

fn key_in(key: &str) -> Result<ActiveKey, Status> {
    key.parse().map_err(status)
}

/// A parent's name; empty is none.
fn parent_in(name: &str) -> Result<Option<CommittedName>, Status> {
    if name.is_empty() { Ok(None) } else { name.parse().map(Some).map_err(status) }
}

fn mounts_out(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let out = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    };
    mounts.into_iter().map(out).collect()
}

fn kind_out(kind: Kind) -> wire::Kind {
    match kind {
        Kind::Active => wire::Kind::Active,
        Kind::View => wire::Kind::View,
        Kind::Committed => wire::Kind::Committed,
    }
}

fn info_out(info: Info) -> wire::Info {
    wire::Info {
        kind: kind_out(info.kind).into(),
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        created_at: time_out(info.created),
        updated_at: time_out(info.updated),
        labels: labels_out(info.labels),
    }
}

fn snapshot_field<'a>(info: &'a Info, path: &[String]) -> Option<Cow<'a, str>> {
    match path[0].as_str() {
        "kind" => Some(Cow::from(match info.kind {
            Kind::Active => "active",
            Kind::View => "view",
            Kind::Committed => "committed",
        })),
        "name" => Some(Cow::from(info.name.as_str())),
        // Present even when there is none: `parent!=""` and `parent==""` are both asked.
        "parent" => Some(Cow::from(info.parent.as_deref().unwrap_or_default())),
        "labels" => label(&info.labels, &path[1..]),
        _ => None,
    }
}

/// A snapshot that `Prepare` or `View` is to make.
struct New {
    is_plugin: bool,
    key: ActiveKey,
    parent: Option<CommittedName>,
    labels: Labels,
}

impl New {
    fn of(chosen: &Chosen, key: &str, parent: &str, labels: HashMap<String, String>) -> Result<Self, Status> {
        let (key, parent, labels) = (key_in(key)?, parent_in(parent)?, chosen.labels(labels)?);
        Ok(Self { is_plugin: chosen.is_plugin, key, parent, labels })
    }
}

#[tonic::async_trait]
impl wire::snapshots_server::Snapshots for SnapshotsService {
    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let wire::PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let new = New::of(&chosen, &key, &parent, labels)?;
        let remote = chosen.snapshotter.name() == LAZY && new.labels.contains_key(SNAPSHOT_REF);
        if remote && self.is_remote(&chosen.space, &new).await? {
            return Err(Status::already_exists(format!(
                "snapshot {:?} is here already",
                new.labels[SNAPSHOT_REF]
            )));
        }
        let prepare = move || chosen.snapshotter.prepare(&new.key, new.parent.as_ref(), &new.labels);
        let mounts = blocking(prepare).await?;
        Ok(Response::new(wire::PrepareSnapshotResponse { mounts: mounts_out(mounts) }))
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let wire::ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let new = New::of(&chosen, &key, &parent, labels)?;
        let view = move || chosen.snapshotter.view(&new.key, new.parent.as_ref(), &new.labels);
        let mounts = blocking(view).await?;
        Ok(Response::new(wire::ViewSnapshotResponse { mounts: mounts_out(mounts) }))
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let key = key_in(&request.into_inner().key)?;
        let mounts = blocking(move || chosen.snapshotter.mounts(&key)).await?;
        Ok(Response::new(wire::MountsResponse { mounts: mounts_out(mounts) }))
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let wire::CommitSnapshotRequest { name, key, labels, parent, .. } = request.into_inner();
        let (key, name) = (key_in(&key)?, name.parse::<CommittedName>().map_err(status)?);
        let (rebase, labels) = (parent_in(&parent)?, chosen.labels(labels)?);
        blocking(move || chosen.snapshotter.commit(&key, &name, rebase.as_ref(), &labels)).await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let key = request.into_inner().key;
        let engine = self.engine.clone();
        blocking(move || {
            chosen.snapshotter.remove(&key)?;
            // A containerd collects by itself, and asks for the cleanup when it has done so.
            if !chosen.is_plugin {
                engine.collect_soon();
            }
            Ok::<_, CallError>(())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let key = request.into_inner().key;
        let info = blocking(move || chosen.snapshotter.stat(&key).map(|info| chosen.told(info))).await?;
        Ok(Response::new(wire::StatSnapshotResponse { info: Some(info_out(info)) }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let wire::UpdateSnapshotRequest { info, update_mask, .. } = request.into_inner();
        let info = required(info, "info")?;
        let change = label_change(update_mask, checked_labels(info.labels)?, "a snapshot")?;
        let change = chosen.change(change);
        let update = move || chosen.snapshotter.update(&info.name, change).map(|info| chosen.told(info));
        let updated = blocking(update).await?;
        Ok(Response::new(wire::UpdateSnapshotResponse { info: Some(info_out(updated)) }))
    }

    type ListStream = ReceiverStream<Result<wire::ListSnapshotsResponse, Status>>;

    async fn list(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let filters = filters(&request.into_inner().filters)?;
        let (sender, receiver) = mpsc::channel(2);
        tokio::task::spawn_blocking(move || list(&chosen, &filters, &sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let key = request.into_inner().key;
        let usage = blocking(move || chosen.snapshotter.usage(&key)).await?;
        Ok(Response::new(wire::UsageResponse { size: size_out(usage.bytes), inodes: size_out(usage.inodes) }))
    }

    async fn cleanup(&self, request: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        let chosen = self.chosen(&request, &request.get_ref().snapshotter)?;
        let store = self.engine.store().clone();
        blocking(move || {
            chosen.snapshotter.cleanup()?;
            store.empty_trash();
            Ok::<_, CallError>(())
        })
        .await?;
        Ok(Response::new(()))
    }
}

/// Sends what matches in batches, until the end or until nobody listens.
fn list(
    chosen: &Chosen,
    filters: &Filters,
    sender: &mpsc::Sender<Result<wire::ListSnapshotsResponse, Status>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let walked = chosen.snapshotter.walk(&mut |info| {
        let info = chosen.told(info);
        if filters.matches(|path| snapshot_field(&info, path)) {
            batch.push(info_out(info));
        }
        if batch.len() < BATCH {
            return ControlFlow::Continue(());
        }
        let info = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
        match sender.blocking_send(Ok(wire::ListSnapshotsResponse { info })) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    // Whoever stopped listening needs no last message.
    let _ = match walked {
        Err(error) => sender.blocking_send(Err(status(error))),
        Ok(()) if batch.is_empty() => Ok(()),
        Ok(()) => sender.blocking_send(Ok(wire::ListSnapshotsResponse { info: batch })),
    };
}
