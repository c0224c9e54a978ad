//! What clients may not do: write, send without end, take without reading, come in crowds.

use std::sync::Arc;
use std::time::Duration;

use runtime_serve::Options;
use storage_model::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::Server;
use crate::memory::Memory;

fn options() -> Options {
    Options { idle: Duration::from_millis(300), ..Options::default() }
}

#[tokio::test]
async fn writing_is_refused_and_the_body_is_not_waited_for() {
    let memory = Memory::new();
    let target = memory.simple("docker.io/library/a:1", &[]);
    let server = Server::start(memory).await;
    let manifest = format!("/v2/a/manifests/{}", target.digest);
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/manifests/1"),
        ("PATCH", "/v2/a/blobs/uploads/1"),
        ("DELETE", manifest.as_str()),
        ("GET", "/v2/a/blobs/uploads/1"),
    ] {
        let answer = server.ask(method, path, &[("Content-Length", "10000000000")]).await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    assert_eq!(server.get(&manifest).await.status, 200);
}

#[tokio::test]
async fn vuln_c16_a_head_without_end_is_cut_off() {
    let server = Server::start(Memory::new()).await;
    let mut stream = server.connect().await;
    let _ = stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n").await;
    let line = format!("X: {}\r\n", "x".repeat(1000));
    let mut sent = 0;
    while sent < 10_000_000 && stream.write_all(line.as_bytes()).await.is_ok() {
        sent += line.len();
    }
    assert!(sent < 10_000_000, "the server read {sent} bytes of a head");
}

#[tokio::test]
async fn vuln_c16_a_client_that_sends_nothing_or_reads_nothing_is_dropped() {
    let memory = Memory::new();
    let bytes = vec![7; 64 << 20];
    memory.simple("docker.io/library/a:1", &[&bytes]);
    let server = Server::start_with(memory, options()).await;
    let mut silent = server.connect().await;
    silent.write_all(b"GET /v2/ HTTP").await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(10), silent.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "a client that sends half a head keeps its connection");
    let mut greedy = server.connect().await;
    let request = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", Digest::of(&bytes));
    greedy.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // What the kernel had buffered is still here; the rest never comes.
    let mut got = Vec::new();
    let _ = timeout(Duration::from_secs(10), greedy.read_to_end(&mut got)).await.expect("it is still open");
    assert!(got.len() < bytes.len(), "a client that did not read for 1.5 s got all of the blob");
}

#[tokio::test]
async fn vuln_c16_a_crowd_waits_at_the_door_and_is_served() {
    let memory = Memory::new();
    memory.simple("docker.io/library/a:1", &[]);
    let server = Arc::new(Server::start_with(memory, Options { connections_max: 2, ..options() }).await);
    // Two idle clients hold both places until they are dropped for their silence.
    let _idle = [server.connect().await, server.connect().await];
    let answers: Vec<_> = (0..20)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { server.get("/v2/a/manifests/1").await.status })
        })
        .collect();
    for answer in answers {
        assert_eq!(timeout(Duration::from_secs(10), answer).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn a_server_that_is_stopped_finishes_what_it_began_and_takes_nothing_new() {
    let memory = Memory::new();
    let bytes = vec![7; 32 << 20];
    memory.simple("docker.io/library/a:1", &[&bytes]);
    let server = Server::start(memory).await;
    let mut stream = server.connect().await;
    let request = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", Digest::of(&bytes));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > bytes.len(), "a transfer under way was broken off");
    timeout(Duration::from_secs(5), stopping).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
