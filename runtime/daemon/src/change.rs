//! The store's changes as containerd's events: topics, messages, names.
//!
//! Some of containerd's clients wait for these, so the names are its own. What happened is in `storage-content`; who hears
//! of it in `exchange`.

use std::sync::Arc;

use prost_types::Any;
use runtime_api::any::pack;
use runtime_api::containerd::events as wire;
use runtime_api::containerd::services::images::v1 as images;
use storage_content::{Change, Store};
use storage_model::Namespace;

use crate::convert::{labels_out, size_out};
use crate::exchange::Exchange;
use crate::plugin;

/// Tells `exchange` of every change of `store` from now on.
///
/// What happens in the namespace of a containerd whose plug-in we are is no event of ours: that containerd tells its own.
pub(crate) fn observe(store: &Store, exchange: Exchange) {
    store.observe(Arc::new(move |namespace: &Namespace, change: &Change| {
        if !exchange.is_heard() || plugin::is_namespace(namespace) {
            return;
        }
        if let Some((topic, event)) = event(namespace, change.clone()) {
            exchange.tell(namespace, topic, event);
        }
    }));
}

/// Topic and message of a change; `None` for one that has none in containerd.
fn event(namespace: &Namespace, change: Change) -> Option<(&'static str, Any)> {
    let name = namespace.to_string();
    Some(match change {
        Change::NamespaceCreated { labels } => {
            let labels = labels_out(labels);
            ("/namespaces/create", pack(&wire::NamespaceCreate { name, labels }))
        }
        Change::NamespaceUpdated { labels } => {
            let labels = labels_out(labels);
            ("/namespaces/update", pack(&wire::NamespaceUpdate { name, labels }))
        }
        Change::NamespaceDeleted => ("/namespaces/delete", pack(&wire::NamespaceDelete { name })),
        Change::ImageCreated { name, labels } => {
            let labels = labels_out(labels);
            ("/images/create", pack(&images::ImageCreate { name, labels }))
        }
        Change::ImageUpdated { name, labels } => {
            let labels = labels_out(labels);
            ("/images/update", pack(&images::ImageUpdate { name, labels }))
        }
        Change::ImageDeleted { name } => ("/images/delete", pack(&images::ImageDelete { name })),
        Change::ContentCreated { digest, size } => {
            let created = wire::ContentCreate { digest: digest.to_string(), size: size_out(size) };
            ("/content/create", pack(&created))
        }
        Change::ContentDeleted { digest } => {
            ("/content/delete", pack(&wire::ContentDelete { digest: digest.to_string() }))
        }
        other => return snapshot_event(other).or_else(|other| container_event(*other)).ok(),
    })
}

fn snapshot_event(change: Change) -> Result<(&'static str, Any), Box<Change>> {
    Ok(match change {
        Change::SnapshotPrepared { snapshotter, key, parent } => {
            let parent = parent.unwrap_or_default();
            ("/snapshot/prepare", pack(&wire::SnapshotPrepare { key, parent, snapshotter }))
        }
        Change::SnapshotCommitted { snapshotter, key, name } => {
            ("/snapshot/commit", pack(&wire::SnapshotCommit { key, name, snapshotter }))
        }
        Change::SnapshotRemoved { snapshotter, key } => {
            ("/snapshot/remove", pack(&wire::SnapshotRemove { key, snapshotter }))
        }
        other => return Err(Box::new(other)),
    })
}

fn container_event(change: Change) -> Result<(&'static str, Any), Box<Change>> {
    Ok(match change {
        Change::ContainerCreated { id, image, runtime } => {
            let runtime = wire::container_create::Runtime { name: runtime, options: None };
            ("/containers/create", pack(&wire::ContainerCreate { id, image, runtime: Some(runtime) }))
        }
        Change::ContainerUpdated { id, image, labels, snapshot_key } => {
            let labels = labels_out(labels);
            ("/containers/update", pack(&wire::ContainerUpdate { id, image, labels, snapshot_key }))
        }
        Change::ContainerDeleted { id } => ("/containers/delete", pack(&wire::ContainerDelete { id })),
        other => return Err(Box::new(other)),
    })
}
