//! `windlass.v1.Engine`: what can be asked without a registry and without an image. The rest is end to end, elsewhere.

use std::time::Duration;

use runtime_api::windlass::v1::engine_client::EngineClient;
use runtime_api::windlass::v1::{self as wire};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Status};

use crate::fixture::{Daemon, client, request};

/// Longest wait for something that should happen at once.
const SOON: Duration = Duration::from_secs(5);

async fn pull(daemon: &Daemon, reference: &str) -> Result<Vec<wire::PullEvent>, Status> {
    let pull = wire::PullRequest { reference: reference.to_owned(), ..Default::default() };
    let mut stream = client!(daemon, EngineClient<_>).pull(request(pull)).await?.into_inner();
    let mut events = Vec::new();
    while let Some(event) = stream.message().await? {
        events.push(event);
    }
    Ok(events)
}

/// A registry that takes connections and never answers; and a reference in it.
async fn silent_registry() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reference = format!("{}/image:latest", listener.local_addr().unwrap());
    (listener, reference)
}

async fn closes(mut connection: TcpStream) -> bool {
    let mut buffer = [0; 1024];
    let ended = async {
        // A request first, then the end.
        while connection.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::time::timeout(SOON, ended).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_itself() {
    let daemon = Daemon::start().await;
    let info = client!(daemon, EngineClient<_>).info(request(wire::InfoRequest {})).await.unwrap();
    let info = info.into_inner();
    assert_eq!((info.pid, info.root), (std::process::id(), daemon.config().root.display().to_string()));
    assert_eq!(info.snapshotters, ["overlayfs", "native", "lazy"]);
    assert!(info.recovery_ms < 1000.0, "recovery took {} ms", info.recovery_ms);
    assert!(!info.kernel.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_what_is_nonsense_is_invalid() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, EngineClient<_>);
    let run = wire::RunRequest { image: "no/such:image".to_owned(), ..Default::default() };
    assert_eq!(client.run(request(run)).await.unwrap_err().code(), Code::NotFound);
    let kill = wire::KillRequest { id: "nobody".to_owned(), signal: 9, all: false };
    assert_eq!(client.kill(request(kill)).await.unwrap_err().code(), Code::NotFound);
    let remove = wire::RemoveContainerRequest { id: "nobody".to_owned(), force: true };
    assert_eq!(client.remove_container(request(remove)).await.unwrap_err().code(), Code::NotFound);
    let relative = wire::MountImageRequest { target: "here".to_owned(), ..Default::default() };
    assert_eq!(client.mount_image(request(relative)).await.unwrap_err().code(), Code::InvalidArgument);
    let none = client.list_containers(request(wire::ListContainersRequest {})).await.unwrap();
    assert!(none.into_inner().containers.is_empty());
    assert_eq!(pull(&daemon, "not a reference").await.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = tonic::Request::new(wire::PullRequest::default());
    assert_eq!(client.pull(nowhere).await.unwrap_err().message(), "namespace is required");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_its_pull() {
    let daemon = Daemon::start().await;
    let (registry, reference) = silent_registry().await;
    let begun = wire::PullRequest { reference, ..Default::default() };
    let stream = client!(daemon, EngineClient<_>).pull(request(begun)).await.unwrap();
    let (connection, _) = tokio::time::timeout(SOON, registry.accept()).await.unwrap().unwrap();
    drop(stream);
    assert!(closes(connection).await, "the daemon still waits for the registry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_daemon_ends_its_pulls() {
    let daemon = Daemon::start().await;
    let (registry, reference) = silent_registry().await;
    let begun = wire::PullRequest { reference, ..Default::default() };
    let mut stream = client!(daemon, EngineClient<_>).pull(request(begun)).await.unwrap().into_inner();
    let (connection, _) = tokio::time::timeout(SOON, registry.accept()).await.unwrap().unwrap();
    let end = tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    daemon.stop().await;
    assert_eq!(end.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(closes(connection).await);
}
