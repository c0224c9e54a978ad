//! `events.v1`: what happens is heard by whoever listens.

use std::time::Duration;

use prost_types::Any;
use runtime_api::any::{pack, unpack};
use runtime_api::containerd::events::{NamespaceCreate, SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use runtime_api::containerd::services::events::v1 as wire;
use runtime_api::containerd::services::events::v1::events_client::EventsClient;
use runtime_api::containerd::services::images::v1::images_client::ImagesClient;
use runtime_api::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, Image, ImageCreate,
};
use runtime_api::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use runtime_api::containerd::services::namespaces::v1::{CreateNamespaceRequest, Namespace};
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use runtime_api::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use runtime_api::containerd::types::{Descriptor, Envelope};
use storage_model::Digest;
use tonic::{Code, Status, Streaming};

use crate::fixture::{Daemon, NAMESPACE, client, request};

/// Longest wait for something that should happen at once.
const SOON: Duration = Duration::from_secs(10);

async fn subscribe(daemon: &Daemon, filters: &[&str]) -> Result<Streaming<Envelope>, Status> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let subscribe = wire::SubscribeRequest { filters };
    Ok(client!(daemon, EventsClient<_>).subscribe(request(subscribe)).await?.into_inner())
}

async fn next(events: &mut Streaming<Envelope>) -> Envelope {
    tokio::time::timeout(SOON, events.message()).await.unwrap().unwrap().unwrap()
}

/// The topics of the next events.
async fn topics(events: &mut Streaming<Envelope>, count: usize) -> Vec<String> {
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(next(events).await.topic);
    }
    topics
}

async fn create_image(daemon: &Daemon, name: &str) {
    let target = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: Digest::of(name.as_bytes()).to_string(),
        size: 1,
        ..Default::default()
    };
    let image = Image { name: name.into(), target: Some(target), ..Default::default() };
    let create = CreateImageRequest { image: Some(image), source_date_epoch: None };
    client!(daemon, ImagesClient<_>).create(request(create)).await.unwrap();
}

async fn publish(daemon: &Daemon, topic: &str) -> Result<(), Status> {
    let event = Some(Any { type_url: "somebody.Event".into(), value: vec![1] });
    let publish = wire::PublishRequest { topic: topic.into(), event };
    client!(daemon, EventsClient<_>).publish(request(publish)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_the_store_is_told_once_with_containerds_words() {
    let daemon = Daemon::start().await;
    let mut events = subscribe(&daemon, &[]).await.unwrap();
    create_image(&daemon, "an/image:1").await;
    let created = next(&mut events).await;
    assert_eq!((created.namespace.as_str(), created.topic.as_str()), (NAMESPACE, "/images/create"));
    assert!(created.timestamp.unwrap().seconds > 1_700_000_000);
    let created: ImageCreate = unpack(&created.event.unwrap()).unwrap();
    assert_eq!(created.name, "an/image:1");

    let mut snapshots = client!(daemon, SnapshotsClient<_>);
    let snapshotter = "overlayfs".to_owned();
    let prepare =
        PrepareSnapshotRequest { snapshotter: snapshotter.clone(), key: "one".into(), ..Default::default() };
    snapshots.prepare(request(prepare)).await.unwrap();
    let commit = CommitSnapshotRequest {
        snapshotter: snapshotter.clone(),
        key: "one".into(),
        name: "two".into(),
        ..Default::default()
    };
    snapshots.commit(request(commit)).await.unwrap();
    let remove = RemoveSnapshotRequest { snapshotter: snapshotter.clone(), key: "two".into() };
    snapshots.remove(request(remove)).await.unwrap();
    let prepared: SnapshotPrepare = unpack(&next(&mut events).await.event.unwrap()).unwrap();
    assert_eq!((prepared.key.as_str(), prepared.snapshotter.as_str()), ("one", "overlayfs"));
    let committed: SnapshotCommit = unpack(&next(&mut events).await.event.unwrap()).unwrap();
    assert_eq!((committed.key.as_str(), committed.name.as_str()), ("one", "two"));
    let removed: SnapshotRemove = unpack(&next(&mut events).await.event.unwrap()).unwrap();
    assert_eq!(removed.key, "two");

    let namespace = Namespace { name: "blue".into(), labels: [("a".to_owned(), "1".to_owned())].into() };
    let create = CreateNamespaceRequest { namespace: Some(namespace) };
    client!(daemon, NamespacesClient<_>).create(request(create)).await.unwrap();
    let told = next(&mut events).await;
    assert_eq!((told.namespace.as_str(), told.topic.as_str()), ("blue", "/namespaces/create"));
    let created: NamespaceCreate = unpack(&told.event.unwrap()).unwrap();
    assert_eq!(created.labels["a"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collection_removes_is_told_too() {
    let daemon = Daemon::start().await;
    let mut snapshots = client!(daemon, SnapshotsClient<_>);
    let prepare = PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: "nobody keeps it".into(),
        ..Default::default()
    };
    snapshots.prepare(request(prepare)).await.unwrap();
    create_image(&daemon, "gone").await;
    let mut events = subscribe(&daemon, &[]).await.unwrap();
    let delete = DeleteImageRequest { name: "gone".into(), sync: true, ..Default::default() };
    client!(daemon, ImagesClient<_>).delete(request(delete)).await.unwrap();
    assert_eq!(topics(&mut events, 2).await, ["/images/delete", "/snapshot/remove"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_topic_namespace_and_what_the_event_says() {
    let daemon = Daemon::start().await;
    let mut named = subscribe(&daemon, &["topic==\"/images/create\",event.name==wanted"]).await.unwrap();
    let mut other = subscribe(&daemon, &["namespace==other", "topic~=^/mine"]).await.unwrap();
    create_image(&daemon, "unwanted").await;
    create_image(&daemon, "wanted").await;
    publish(&daemon, "/mine/first").await.unwrap();
    let created: ImageCreate = unpack(&next(&mut named).await.event.unwrap()).unwrap();
    assert_eq!(created.name, "wanted");
    assert_eq!(next(&mut other).await.topic, "/mine/first");
    assert_eq!(subscribe(&daemon, &["topic=="]).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_heard_unchanged_and_nonsense_is_refused() {
    let daemon = Daemon::start().await;
    let mut events = subscribe(&daemon, &[]).await.unwrap();
    for bad in ["", "no/slash", "/", "/a//b"] {
        assert_eq!(publish(&daemon, bad).await.unwrap_err().code(), Code::InvalidArgument, "{bad:?}");
    }
    publish(&daemon, "/somebody/did").await.unwrap();
    let heard = next(&mut events).await;
    assert_eq!((heard.namespace.as_str(), heard.topic.as_str()), (NAMESPACE, "/somebody/did"));
    assert_eq!(heard.event.unwrap(), Any { type_url: "somebody.Event".into(), value: vec![1] });

    let elsewhere = Envelope {
        timestamp: Some(prost_types::Timestamp { seconds: 7, nanos: 8 }),
        namespace: "far".into(),
        topic: "/tasks/exit".into(),
        event: Some(pack(&SnapshotRemove { key: "x".into(), snapshotter: String::new() })),
    };
    let mut client = client!(daemon, EventsClient<_>);
    let forward = |envelope| tonic::Request::new(wire::ForwardRequest { envelope: Some(envelope) });
    client.forward(forward(elsewhere.clone())).await.unwrap();
    assert_eq!(next(&mut events).await, elsewhere);
    for bad in [
        Envelope { timestamp: None, ..elsewhere.clone() },
        Envelope { namespace: "a/b".into(), ..elsewhere.clone() },
        Envelope { topic: "exit".into(), ..elsewhere },
    ] {
        assert_eq!(client.forward(forward(bad)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_is_told_that_it_missed_something_and_holds_nobody_up() {
    let daemon = Daemon::start().await;
    let mut slow = subscribe(&daemon, &[]).await.unwrap();
    let mut told = 0;
    // More than the exchange, the connection's windows and every buffer between can hold.
    let event = Some(Any { type_url: "somebody.Event".into(), value: vec![0; 4096] });
    let mut client = client!(daemon, EventsClient<_>);
    for _ in 0..25_000 {
        let publish = wire::PublishRequest { topic: "/a".into(), event: event.clone() };
        client.publish(request(publish)).await.unwrap();
        told += 1;
    }
    let mut heard = 0;
    let end = loop {
        match tokio::time::timeout(SOON, slow.message()).await.unwrap() {
            Ok(Some(_)) => heard += 1,
            Ok(None) => panic!("the stream ended as if all were well"),
            Err(error) => break error,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(heard < told, "it heard {heard} of {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_daemon_ends_subscriptions() {
    let daemon = Daemon::start().await;
    let mut events = subscribe(&daemon, &[]).await.unwrap();
    let end = tokio::spawn(async move { events.message().await });
    daemon.stop().await;
    let end = tokio::time::timeout(SOON, end).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
}
