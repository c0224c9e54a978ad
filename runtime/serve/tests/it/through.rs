//! Pull-through: once for all who ask, served as it arrives, and only from where it may be pulled.

use std::sync::Arc;
use std::time::Duration;

use runtime_serve::{Options, PullThrough};
use storage_model::{Descriptor, Digest, media};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::client::Server;
use crate::memory::{Memory, manifest};

const LAYER: &[u8] = b"a layer";

fn through(fresh: Duration) -> Options {
    let pull_through = Some(PullThrough { fresh, ..PullThrough::default() });
    Options { pull_through, ..Options::default() }
}

/// A registry has `reference`: an image whose layer arrives last.
fn offer(memory: &Memory, reference: &str) -> Descriptor {
    let document = manifest(&[LAYER]).to_string().into_bytes();
    let target = Descriptor::of(media::OCI_MANIFEST, &document);
    let blobs = vec![document, b"{}".to_vec(), LAYER.to_vec()];
    memory.state().remote.insert(reference.to_owned(), (target.clone(), blobs));
    target
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_pull() {
    let memory = Memory::new();
    let target = offer(&memory, "docker.io/library/a:1");
    let server = Arc::new(Server::start_with(memory.clone(), through(Duration::from_secs(60))).await);
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.get("/v2/library/a/manifests/1?ns=docker.io").await })
        })
        .collect();
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, Digest::of(&answer.body)), (200, target.digest));
    }
    let blob = server.get(&format!("/v2/library/a/blobs/{}?ns=docker.io", Digest::of(LAYER))).await;
    assert_eq!(blob.body, LAYER);
    assert_eq!(memory.state().pulls, ["docker.io/library/a:1"]);
}

#[tokio::test]
async fn a_manifest_is_served_before_its_layers_are_here_and_a_layer_as_soon_as_it_is() {
    let mut memory = Memory::new();
    memory.gate = Semaphore::new(1).into();
    let target = offer(&memory, "docker.io/library/a:1");
    let server = Server::start_with(memory.clone(), through(Duration::from_secs(60))).await;
    let answer = server.get("/v2/a/manifests/1").await;
    assert_eq!((answer.status, Digest::of(&answer.body)), (200, target.digest));
    assert!(memory.state().images.is_empty(), "the pull has not ended");
    let by_digest = server.get(&format!("/v2/a/manifests/{}", target.digest)).await;
    assert_eq!(by_digest.body, answer.body);
    let path = format!("/v2/a/blobs/{}", Digest::of(LAYER));
    let waiting = server.get(&path);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    memory.gate.add_permits(100);
    assert_eq!(waiting.await.body, LAYER);
    assert_eq!(memory.state().pulls.len(), 1);
}

#[tokio::test]
async fn a_tag_is_asked_again_when_it_is_old_and_served_as_it_is_when_nobody_answers() {
    let memory = Memory::new();
    let old = memory.simple("docker.io/library/a:1", &[b"old"]);
    let new = offer(&memory, "docker.io/library/a:1");
    let server = Server::start_with(memory.clone(), through(Duration::ZERO)).await;
    let answer = server.get("/v2/a/manifests/1").await;
    assert_eq!(Digest::of(&answer.body), new.digest);
    memory.state().remote.clear();
    memory.state().failure = Some(Status::unavailable("the registry is down"));
    memory.state().images.retain(|image| image.target == old);
    let answer = server.get("/v2/a/manifests/1").await;
    assert_eq!((answer.status, Digest::of(&answer.body)), (200, old.digest));
    assert_eq!(memory.state().pulls.len(), 2);
}

#[tokio::test]
async fn a_fresh_tag_and_a_digest_that_is_here_ask_nobody() {
    let memory = Memory::new();
    let target = offer(&memory, "docker.io/library/a:1");
    let server = Server::start_with(memory.clone(), through(Duration::from_secs(60))).await;
    for _ in 0..3 {
        assert_eq!(server.get("/v2/a/manifests/1").await.status, 200);
        assert_eq!(server.get(&format!("/v2/a/manifests/{}", target.digest)).await.status, 200);
    }
    assert_eq!(memory.state().pulls.len(), 1);
}

#[tokio::test]
async fn a_digest_that_is_not_here_is_pulled_by_its_digest() {
    let memory = Memory::new();
    let document = manifest(&[LAYER]).to_string();
    let name = format!("ghcr.io/x/a@{}", Digest::of(document.as_bytes()));
    let target = offer(&memory, &name);
    let server = Server::start_with(memory.clone(), through(Duration::from_secs(60))).await;
    let answer = server.get(&format!("/v2/x/a/manifests/{}?ns=ghcr.io", target.digest)).await;
    assert_eq!((answer.status, Digest::of(&answer.body)), (200, target.digest));
    assert_eq!(memory.state().pulls, [name]);
}

#[tokio::test]
async fn what_a_pull_fails_with_is_told_in_the_specifications_codes() {
    for (failure, status, code) in [
        (Status::not_found("x"), 404, "MANIFEST_UNKNOWN"),
        (Status::unauthenticated("x"), 403, "DENIED"),
        (Status::unavailable("x"), 502, "UNAVAILABLE"),
        (Status::internal("x"), 502, "UNAVAILABLE"),
    ] {
        let memory = Memory::new();
        memory.state().failure = Some(failure);
        let server = Server::start_with(memory, through(Duration::ZERO)).await;
        let answer = server.get("/v2/a/manifests/1").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
}

#[tokio::test]
async fn vuln_c17_nothing_is_pulled_from_inside_this_network_on_a_clients_word() {
    let memory = Memory::new();
    let server = Server::start_with(memory.clone(), through(Duration::ZERO)).await;
    for ns in ["169.254.169.254", "localhost:5000", "127.0.0.1:80", "metadata.google.internal", "[::1]:80"] {
        let answer = server.get(&format!("/v2/latest/meta-data/manifests/x?ns={ns}")).await;
        assert!(answer.status == 404 || answer.status == 400, "{ns}: {}", answer.status);
        let digest = Digest::of(b"x");
        server.get(&format!("/v2/latest/meta-data/manifests/{digest}?ns={ns}")).await;
    }
    assert!(memory.state().pulls.is_empty(), "{:?}", memory.state().pulls);
}

#[tokio::test]
async fn without_pull_through_nothing_is_pulled() {
    let memory = Memory::new();
    offer(&memory, "docker.io/library/a:1");
    let server = Server::start(memory.clone()).await;
    assert_eq!(server.get("/v2/a/manifests/1").await.status, 404);
    assert!(memory.state().pulls.is_empty());
}
