//! Manifests: by tag, by digest, under each form of a name.

use runtime_serve::Socket;
use serde_json::json;
use storage_model::{Descriptor, Digest, media};

use crate::client::Server;
use crate::memory::{Memory, manifest};

#[tokio::test]
async fn a_tag_and_its_digest_give_the_same_document_and_head_gives_its_headers() {
    let memory = Memory::new();
    let target = memory.simple("docker.io/library/a:1", &[b"layer"]);
    let server = Server::start(memory).await;
    let by_tag = server.get("/v2/library/a/manifests/1").await;
    assert_eq!(by_tag.status, 200);
    assert_eq!(Digest::of(&by_tag.body), target.digest);
    assert_eq!(by_tag.header("content-type"), Some(media::OCI_MANIFEST));
    assert_eq!(by_tag.header("docker-content-digest"), Some(target.digest.to_string().as_str()));
    assert_eq!(by_tag.header("docker-distribution-api-version"), Some("registry/2.0"));
    let path = format!("/v2/library/a/manifests/{}", target.digest);
    let by_digest = server.get(&path).await;
    assert_eq!((by_digest.status, &by_digest.body), (200, &by_tag.body));
    for path in ["/v2/library/a/manifests/1", &path] {
        let head = server.ask("HEAD", path, &[]).await;
        let length = by_tag.body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())));
        let etag = head.header("etag").unwrap().to_owned();
        let again = server.ask("GET", path, &[("If-None-Match", &etag)]).await;
        assert_eq!((again.status, again.header("etag")), (304, Some(etag.as_str())));
    }
    assert!(by_tag.header("cache-control").unwrap().contains("no-cache"));
    assert!(by_digest.header("cache-control").unwrap().contains("immutable"));
}

#[tokio::test]
async fn what_is_not_here_is_said_in_the_specifications_codes() {
    let memory = Memory::new();
    memory.simple("docker.io/library/a:1", &[]);
    memory.simple("ghcr.io/x/b:1", &[]);
    memory.simple("quay.io/x/b:1", &[]);
    let server = Server::start(memory).await;
    let none = Digest::of(b"none");
    for (path, status, code) in [
        ("/v2/a/manifests/2".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/.INVALID".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/a/manifests/{none}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/a/blobs/{none}"), 404, "BLOB_UNKNOWN"),
        ("/v2/a/blobs/sha256:x".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/b/manifests/1".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/x/b/manifests/1".to_owned(), 404, "NAME_UNKNOWN"),
        (format!("/v2/b/blobs/{none}"), 404, "NAME_UNKNOWN"),
        ("/v2/b/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/B/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("/elsewhere".to_owned(), 404, "UNSUPPORTED"),
    ] {
        let answer = server.get(&path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
    }
    let root = server.get("/v2/").await;
    assert_eq!((root.status, root.body.as_slice()), (200, &b"{}"[..]));
}

#[tokio::test]
async fn each_form_of_a_name_finds_the_image() {
    let memory = Memory::new();
    memory.simple("docker.io/library/a:1", &[]);
    memory.simple("ghcr.io/x/b:1", &[]);
    let server = Server::start(memory).await;
    for path in [
        "/v2/library/a/manifests/1?ns=docker.io",
        "/v2/library/a/manifests/1",
        "/v2/a/manifests/1",
        "/v2/docker.io/library/a/manifests/1",
        "/v2/x/b/manifests/1",
        "/v2/x/b/manifests/1?ns=ghcr.io",
        "/v2/ghcr.io/x/b/manifests/1",
    ] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/v2/x/b/manifests/1?ns=docker.io").await.status, 404);
}

#[tokio::test]
async fn the_platforms_of_an_index_that_are_here_are_served_and_the_others_are_not() {
    let memory = Memory::new();
    let here = manifest(&[b"one"]).to_string();
    let (here, gone) = (memory.put(here.as_bytes()), Digest::of(b"gone"));
    let layer = memory.put(b"one");
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [
        Descriptor::new(media::OCI_MANIFEST, gone, 4), Descriptor::new(media::OCI_MANIFEST, here, 4)]});
    memory.image("docker.io/library/a:1", media::OCI_INDEX, &index);
    let server = Server::start(memory).await;
    assert_eq!(server.get(&format!("/v2/a/manifests/{here}")).await.status, 200);
    assert_eq!(server.get(&format!("/v2/a/blobs/{layer}")).await.status, 200);
    let missing = server.get(&format!("/v2/a/manifests/{gone}")).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    // A blob is no manifest, whatever its name.
    assert_eq!(server.get(&format!("/v2/a/manifests/{layer}")).await.status, 404);
    let refused = server.ask("GET", "/v2/a/manifests/1", &[("Accept", media::OCI_MANIFEST)]).await;
    assert_eq!((refused.status, refused.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    let accept = format!("{}, {}", media::OCI_MANIFEST, media::OCI_INDEX);
    assert_eq!(server.ask("GET", "/v2/a/manifests/1", &[("Accept", &accept)]).await.status, 200);
}

#[tokio::test]
async fn vuln_c10_a_damaged_manifest_is_not_served() {
    let memory = Memory::new();
    let target = memory.simple("docker.io/library/a:1", &[]);
    memory.state().blobs.get_mut(&target.digest).unwrap()[0] = b' ';
    let server = Server::start(memory).await;
    let answer = server.get("/v2/a/manifests/1").await;
    assert_eq!(answer.status, 500);
    assert!(!String::from_utf8_lossy(&answer.body).contains("schemaVersion"));
}

/// What a document says was once kept under its digest alone: an index that called another image's manifest an index made
/// that image's layers unreachable.
#[tokio::test]
async fn vuln_c01_a_document_called_another_thing_changes_nothing_for_those_who_call_it_right() {
    let memory = Memory::new();
    let target = memory.simple("docker.io/library/a:1", &[b"layer"]);
    let lie = Descriptor::new(media::OCI_INDEX, target.digest, target.size);
    let index = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [lie]});
    memory.image("docker.io/library/evil:1", media::OCI_INDEX, &index);
    let server = Server::start(memory).await;
    let layer = Digest::of(b"layer");
    assert_eq!(server.get(&format!("/v2/evil/blobs/{layer}")).await.status, 404);
    assert_eq!(server.get(&format!("/v2/a/blobs/{layer}")).await.status, 200);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_a_matter_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let socket = Socket::new(&folder.path().join("none.sock"), &"default".parse().unwrap());
    let server = Server::start(socket).await;
    let answer = server.get("/v2/a/manifests/1").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("none.sock"), "a path of this machine was told");
}
