//! `diff.v1`: what is packed from one snapshot and unpacked into another is the same tree.

use std::path::{Path, PathBuf};

use runtime_api::containerd::services::content::v1::InfoRequest;
use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::diff::v1::diff_client::DiffClient;
use runtime_api::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use runtime_api::containerd::services::snapshots::v1::PrepareSnapshotRequest;
use runtime_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use runtime_api::containerd::types::{Descriptor, Mount};
use tonic::Code;

use crate::fixture::{Daemon, client, request};

async fn prepare(daemon: &Daemon, key: &str) -> Vec<Mount> {
    let prepare = PrepareSnapshotRequest {
        snapshotter: "overlayfs".into(),
        key: key.into(),
        labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
        ..Default::default()
    };
    client!(daemon, SnapshotsClient<_>).prepare(request(prepare)).await.unwrap().into_inner().mounts
}

/// Where the files of a snapshot without a parent are: its one mount is a bind.
fn files(mounts: &[Mount]) -> PathBuf {
    assert_eq!((mounts.len(), mounts[0].r#type.as_str()), (1, "bind"));
    Path::new(&mounts[0].source).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_packed_is_what_is_unpacked() {
    let daemon = Daemon::start().await;
    let from = prepare(&daemon, "from").await;
    std::fs::create_dir(files(&from).join("dir")).unwrap();
    std::fs::write(files(&from).join("dir/file"), "content").unwrap();
    let mut client = client!(daemon, DiffClient<_>);
    for media_type in
        ["", "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+zstd"]
    {
        let diff = DiffRequest {
            right: from.clone(),
            media_type: media_type.into(),
            labels: [("mine".to_owned(), "1".to_owned())].into(),
            ..Default::default()
        };
        let packed = client.diff(request(diff)).await.unwrap().into_inner().diff.unwrap();
        assert!(media_type.is_empty() || packed.media_type == media_type, "{packed:?}");
        let info = InfoRequest { digest: packed.digest.clone() };
        let info =
            client!(daemon, ContentClient<_>).info(request(info)).await.unwrap().into_inner().info.unwrap();
        assert_eq!((info.size, info.labels["mine"].as_str()), (packed.size, "1"));

        let to = prepare(&daemon, &format!("to {media_type}")).await;
        let apply = ApplyRequest { diff: Some(packed), mounts: to.clone(), ..Default::default() };
        let applied = client.apply(request(apply)).await.unwrap().into_inner().applied.unwrap();
        assert_eq!(applied.digest, info.labels["containerd.io/uncompressed"], "the diff ID");
        assert_eq!(std::fs::read_to_string(files(&to).join("dir/file")).unwrap(), "content");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_packed_or_unpacked_is_refused_for_its_reason() {
    let daemon = Daemon::start().await;
    let mounts = prepare(&daemon, "one").await;
    let mut client = client!(daemon, DiffClient<_>);
    let absent = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest: storage_model::Digest::of(b"absent").to_string(),
        size: 1,
        ..Default::default()
    };
    let apply = |diff: Option<Descriptor>, mounts: &[Mount]| {
        request(ApplyRequest { diff, mounts: mounts.to_vec(), ..Default::default() })
    };
    let code = |result: Result<_, tonic::Status>| result.map(drop).unwrap_err().code();
    assert_eq!(code(client.apply(apply(Some(absent.clone()), &mounts)).await), Code::NotFound);
    assert_eq!(code(client.apply(apply(Some(absent.clone()), &[])).await), Code::InvalidArgument);
    assert_eq!(code(client.apply(apply(None, &mounts)).await), Code::InvalidArgument);
    let payloads = [("encrypted".to_owned(), prost_types::Any::default())].into();
    let with_payload =
        ApplyRequest { diff: Some(absent), mounts: mounts.clone(), payloads, ..Default::default() };
    assert_eq!(code(client.apply(request(with_payload)).await), Code::Unimplemented);
    let strange = DiffRequest { right: mounts, media_type: "text/plain".into(), ..Default::default() };
    let error = client.diff(request(strange)).await.unwrap_err();
    assert_ne!(error.code(), Code::Internal, "{error}");
}
