//! `containerd.services.snapshots.v1`, on the overlay snapshotter.

use prost_types::FieldMask;
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use runtime_api::containerd::services::snapshots::v1::{self as wire, Kind};
use tonic::{Code, Status};

use crate::fixture::{Daemon, client, request};

const NAME: &str = "overlayfs";

fn prepare(key: &str, parent: &str) -> tonic::Request<wire::PrepareSnapshotRequest> {
    request(wire::PrepareSnapshotRequest {
        snapshotter: NAME.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels: [("test/key".to_owned(), key.to_owned())].into(),
    })
}

fn commit(name: &str, key: &str, parent: &str) -> tonic::Request<wire::CommitSnapshotRequest> {
    request(wire::CommitSnapshotRequest {
        snapshotter: NAME.to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..Default::default()
    })
}

fn remove(key: &str) -> tonic::Request<wire::RemoveSnapshotRequest> {
    request(wire::RemoveSnapshotRequest { snapshotter: NAME.to_owned(), key: key.to_owned() })
}

fn stat(key: &str) -> tonic::Request<wire::StatSnapshotRequest> {
    request(wire::StatSnapshotRequest { snapshotter: NAME.to_owned(), key: key.to_owned() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_built_listed_and_taken_down() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, SnapshotsClient<_>);
    // Keys as a containerd above us makes them: spaces and slashes.
    let key = "default/3/extract-570 sha256:4d02";
    let mounts = client.prepare(prepare(key, "")).await.unwrap().into_inner().mounts;
    assert!(!mounts.is_empty());
    let again = wire::MountsRequest { snapshotter: NAME.to_owned(), key: key.to_owned() };
    assert_eq!(client.mounts(request(again)).await.unwrap().into_inner().mounts, mounts);
    client.commit(commit("one", key, "")).await.unwrap();
    client.prepare(prepare("loose", "")).await.unwrap();
    client.commit(commit("two", "loose", "one")).await.unwrap();
    let view = wire::ViewSnapshotRequest {
        snapshotter: NAME.to_owned(),
        key: "view".to_owned(),
        parent: "two".to_owned(),
        ..Default::default()
    };
    client.view(request(view)).await.unwrap();

    let info = client.stat(stat("two")).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.kind(), info.parent.as_str()), (Kind::Committed, "one"));
    let mut found = async |filter: &str| {
        let list =
            wire::ListSnapshotsRequest { snapshotter: NAME.to_owned(), filters: vec![filter.to_owned()] };
        let mut stream = client.list(request(list)).await.unwrap().into_inner();
        let mut names = Vec::new();
        while let Some(batch) = stream.message().await.unwrap() {
            names.extend(batch.info.into_iter().map(|info| info.name));
        }
        names.sort();
        names
    };
    assert_eq!(found("").await, ["one", "two", "view"]);
    assert_eq!(found("kind==committed,parent!=\"\"").await, ["two"]);
    assert_eq!(found("parent==two").await, ["view"]);

    let parent = client.remove(remove("one")).await.unwrap_err();
    assert_eq!(parent.code(), Code::FailedPrecondition);
    assert!(parent.message().contains("remove"), "{parent}");
    for name in ["view", "two", "one"] {
        client.remove(remove(name)).await.unwrap();
    }
    client.cleanup(request(wire::CleanupRequest { snapshotter: NAME.to_owned() })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misuse_has_containerds_code() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, SnapshotsClient<_>);
    let code = |result: Result<(), Status>| result.map_err(|error| error.code()).unwrap_err();
    client.prepare(prepare("a", "")).await.unwrap();
    assert_eq!(code(client.prepare(prepare("a", "")).await.map(drop)), Code::AlreadyExists);
    assert_eq!(code(client.prepare(prepare("b", "none")).await.map(drop)), Code::NotFound);
    assert_eq!(code(client.prepare(prepare("b", "a")).await.map(drop)), Code::InvalidArgument);
    assert_eq!(code(client.commit(commit("x", "none", "")).await.map(drop)), Code::NotFound);
    client.commit(commit("x", "a", "")).await.unwrap();
    assert_eq!(code(client.commit(commit("y", "x", "")).await.map(drop)), Code::FailedPrecondition);
    client.prepare(prepare("a", "x")).await.unwrap();
    assert_eq!(code(client.commit(commit("x", "a", "")).await.map(drop)), Code::AlreadyExists);
    assert_eq!(code(client.stat(stat("none")).await.map(drop)), Code::NotFound);
    assert_eq!(code(client.remove(remove("none")).await.map(drop)), Code::NotFound);
    let committed = wire::MountsRequest { snapshotter: NAME.to_owned(), key: "x".to_owned() };
    assert_eq!(code(client.mounts(request(committed)).await.map(drop)), Code::FailedPrecondition);
    let update = wire::UpdateSnapshotRequest {
        snapshotter: NAME.to_owned(),
        info: Some(wire::Info { name: "x".to_owned(), ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["parent".to_owned()] }),
    };
    assert_eq!(code(client.update(request(update)).await.map(drop)), Code::InvalidArgument);
    for (name, words) in [("", "snapshotter argument missing"), ("zfs", "snapshotter not loaded: zfs")] {
        let stat = wire::StatSnapshotRequest { snapshotter: name.to_owned(), key: "x".to_owned() };
        let error = client.stat(request(stat)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, words));
    }
}
