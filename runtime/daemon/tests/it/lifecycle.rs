//! The daemon's life: start, refuse a second one, stop, start again.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use runtime_api::any::pack;
use runtime_api::containerd::services::events::v1::SubscribeRequest;
use runtime_api::containerd::services::events::v1::events_client::EventsClient;
use runtime_api::containerd::services::introspection::v1::introspection_client::IntrospectionClient;
use runtime_api::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use runtime_api::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, ListNamespacesRequest, Namespace,
};
use runtime_api::containerd::services::streaming::v1::StreamInit;
use runtime_api::containerd::services::streaming::v1::streaming_client::StreamingClient;
use runtime_api::grpc::health::v1::HealthCheckRequest;
use runtime_api::grpc::health::v1::health_check_response::ServingStatus;
use runtime_api::grpc::health::v1::health_client::HealthClient;
use runtime_daemon::{DaemonConfig, serve_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Code;

use crate::fixture::{Daemon, client, config, request};

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d4_a_second_daemon_on_one_root_is_refused_at_once_with_the_holders_id() {
    let daemon = Daemon::start().await;
    let other = tempfile::tempdir().unwrap();
    let second = DaemonConfig { root: daemon.config().root, ..config(&other) };
    let begun = Instant::now();
    let error =
        serve_until(second, || panic!("it must not start"), std::future::pending()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    let words = error.to_string();
    assert!(words.contains(&std::process::id().to_string()), "{words}");
    let second = DaemonConfig { root: other.path().join("root"), ..daemon.config() };
    let error =
        serve_until(second, || panic!("it must not start"), std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("another daemon"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d2_directories_that_were_open_to_others_are_closed() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["root", "state"] {
        let path = temp.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let daemon = Daemon::start_in(temp).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&daemon.config().root), 0o700);
    assert_eq!(mode(&daemon.config().state), 0o700);
    assert_eq!(mode(&daemon.address()), 0o600);
}

/// One HTTP/2 frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d6_a_flood_of_reset_streams_ends_its_own_connection_and_no_other() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_HEADERS: u8 = 4;
    /// `:method POST`, `:scheme http`, `:path /` by their numbers in HPACK's static table (RFC 7541, appendix A).
    const POST: [u8; 3] = [0x83, 0x86, 0x84];
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let daemon = Daemon::start().await;
    let mut attacker = UnixStream::connect(daemon.address()).await.unwrap();
    attacker.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    attacker.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let mut flood = Vec::new();
    for stream in (1..40_001).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS, stream, &POST));
        flood.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    let (mut answers, mut questions) = attacker.into_split();
    let flooding = tokio::spawn(async move { questions.write_all(&flood).await });
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), answers.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "the daemon still listens to the flood");
    // Whether all of it could be written depends on when the daemon had enough.
    let _ = flooding.await.unwrap();
    let mut introspection = client!(daemon, IntrospectionClient<_>);
    introspection.server(()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d7_streams_that_clients_open_and_leave_take_nothing_with_them() {
    /// More than may wait at once: if each left a trace, the last would be refused.
    const STREAMS: usize = 3000;
    let daemon = Daemon::start().await;
    let mut streaming = client!(daemon, StreamingClient<_>);
    for number in 0..STREAMS {
        let init = pack(&StreamInit { id: format!("stream {number}") });
        let opened = loop {
            // The end of the one before may still be on its way.
            match streaming.stream(request(tokio_stream::iter([init.clone()]))).await {
                Err(busy) if busy.code() == Code::ResourceExhausted => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        drop(opened);
    }
    let mut events = client!(daemon, EventsClient<_>);
    for _ in 0..STREAMS {
        drop(events.subscribe(request(SubscribeRequest::default())).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d8_a_call_without_a_message_is_refused_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let mut namespaces = client!(daemon, NamespacesClient<_>);
    let namespace = Namespace { name: "kept".to_owned(), ..Default::default() };
    namespaces.create(request(CreateNamespaceRequest { namespace: Some(namespace) })).await.unwrap();
    for method in ["Delete", "Create", "Update"] {
        let mut raw = tonic::client::Grpc::new(daemon.channel.clone());
        raw.ready().await.unwrap();
        let path = format!("/containerd.services.namespaces.v1.Namespaces/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<DeleteNamespaceRequest, ()>::default();
        let nothing = tokio_stream::empty::<DeleteNamespaceRequest>();
        assert!(raw.client_streaming(request(nothing), path, codec).await.is_err(), "{method}");
    }
    let list = namespaces.list(request(ListNamespacesRequest::default())).await.unwrap().into_inner();
    assert!(list.namespaces.iter().any(|namespace| namespace.name == "kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_tells_those_who_watch_and_frees_root_and_socket_for_the_next() {
    let daemon = Daemon::start().await;
    let address = daemon.address();
    let mut health = client!(daemon, HealthClient<_>);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let mut introspection = client!(daemon, IntrospectionClient<_>);
    let before = introspection.server(()).await.unwrap().into_inner().uuid;
    drop(introspection);

    let begun = Instant::now();
    let watching = tokio::spawn(async move { watch.message().await.unwrap().unwrap().status() });
    let temp = daemon.stop().await;
    assert!(begun.elapsed() < runtime_daemon::GRACE, "nothing was under way: {:?}", begun.elapsed());
    assert_eq!(watching.await.unwrap(), ServingStatus::NotServing);
    assert!(!address.exists());

    let again = Daemon::start_in(temp).await;
    let mut introspection = client!(again, IntrospectionClient<_>);
    assert_eq!(introspection.server(()).await.unwrap().into_inner().uuid, before);
}
