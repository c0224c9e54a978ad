//! As a containerd's proxy plug-in: calls as its metadata layer makes them. The real thing is tried in `tests`.

use std::collections::HashMap;

use runtime_api::containerd::services::events::v1::SubscribeRequest;
use runtime_api::containerd::services::events::v1::events_client::EventsClient;
use runtime_api::containerd::services::leases::v1::leases_client::LeasesClient;
use runtime_api::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use runtime_api::containerd::services::snapshots::v1 as wire;
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::fixture::{Daemon, client, request};

const WINDLASS: &str = "windlass";

async fn prepare(client: &mut SnapshotsClient<Channel>, key: &str, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let prepare = wire::PrepareSnapshotRequest {
        snapshotter: WINDLASS.into(),
        key: key.into(),
        labels,
        ..Default::default()
    };
    // With a header, as calls that a client of containerd causes have it.
    client.prepare(request(prepare)).await.unwrap();
}

async fn list(client: &mut SnapshotsClient<Channel>, snapshotter: &str) -> Vec<wire::Info> {
    let list = wire::ListSnapshotsRequest { snapshotter: snapshotter.into(), filters: Vec::new() };
    // Plug-in calls of a collector have no header; ours do.
    let call = if snapshotter == WINDLASS { Request::new(list) } else { request(list) };
    let mut stream = client.list(call).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        found.extend(message.info);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_has_is_kept_from_our_collections_and_from_our_listings() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, SnapshotsClient<_>);
    let reference = [("containerd.io/snapshot.ref", "sha256:00")];
    prepare(&mut client, "default/3/extract-1 sha256:00", &reference).await;
    let mut leases = client!(daemon, LeasesClient<_>);
    leases.create(request(CreateRequest { id: "l".into(), ..Default::default() })).await.unwrap();
    leases.delete(request(DeleteRequest { id: "l".into(), sync: true })).await.unwrap();
    let found = list(&mut client, WINDLASS).await;
    assert_eq!(found.len(), 1, "our collection took what containerd has");
    let labels = HashMap::from(reference.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(found[0].labels, labels, "the label that keeps it is nobody's business");
    assert!(list(&mut client, "overlayfs").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_a_namespace_removes_and_cleans_up() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, SnapshotsClient<_>);
    prepare(&mut client, "default/1/a", &[]).await;
    let commit = wire::CommitSnapshotRequest {
        snapshotter: WINDLASS.into(),
        name: "default/2/b".into(),
        key: "default/1/a".into(),
        ..Default::default()
    };
    client.commit(request(commit)).await.unwrap();
    let info = wire::Info {
        name: "default/2/b".into(),
        labels: HashMap::from([("containerd.io/snapshot/x".to_owned(), "1".to_owned())]),
        ..Default::default()
    };
    let update =
        wire::UpdateSnapshotRequest { snapshotter: WINDLASS.into(), info: Some(info), update_mask: None };
    let updated = client.update(request(update)).await.unwrap().into_inner().info.unwrap();
    assert_eq!(updated.labels.keys().collect::<Vec<_>>(), ["containerd.io/snapshot/x"]);
    let remove = wire::RemoveSnapshotRequest { snapshotter: WINDLASS.into(), key: "default/2/b".into() };
    client.remove(Request::new(remove)).await.unwrap();
    client.cleanup(Request::new(wire::CleanupRequest { snapshotter: WINDLASS.into() })).await.unwrap();
    assert!(list(&mut client, WINDLASS).await.is_empty());
    let root = daemon.config().root;
    assert_eq!(std::fs::read_dir(root.join("trash")).unwrap().count(), 0, "cleaning up frees the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_tells_its_own_events() {
    let daemon = Daemon::start().await;
    let subscribe = SubscribeRequest::default();
    let mut events =
        client!(daemon, EventsClient<_>).subscribe(request(subscribe)).await.unwrap().into_inner();
    let mut client = client!(daemon, SnapshotsClient<_>);
    prepare(&mut client, "theirs", &[]).await;
    let ours = wire::PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: "ours".into(),
        ..Default::default()
    };
    client.prepare(request(ours)).await.unwrap();
    let heard = events.message().await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&heard.event.unwrap().value).into_owned();
    assert!(said.contains("ours"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_neither_ours_nor_theirs_is_not_loaded() {
    let daemon = Daemon::start().await;
    let stat = wire::StatSnapshotRequest { snapshotter: "windlass2".into(), key: "x".into() };
    let error = client!(daemon, SnapshotsClient<_>).stat(request(stat)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "snapshotter not loaded: windlass2"));
}
