//! `transfer.v1` against a real registry, as `ctr` of containerd 2 speaks it: the client is asked for its password on a side
//! channel, and hears how far it is on another.

use std::path::Path;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use prost_types::Any;
use runtime_api::NAMESPACE_HEADER;
use runtime_api::any::{pack, unpack};
use runtime_api::containerd::services::streaming::v1::StreamInit;
use runtime_api::containerd::services::streaming::v1::streaming_client::StreamingClient;
use runtime_api::containerd::services::transfer::v1::transfer_client::TransferClient;
use runtime_api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use runtime_api::containerd::types::Platform as WirePlatform;
use runtime_api::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, ImageStore, OciRegistry, Progress, RegistryResolver,
    UnpackConfiguration,
};
use storage_model::Platform;
use tests::{Engine, Registry};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::fixtures;

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE_HEADER, tonic::metadata::MetadataValue::from_static("default"));
    request
}

async fn connect(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://windlass").connect_with_connector(connector).await?)
}

async fn open(channel: &Channel, name: &str) -> Result<(mpsc::Sender<Any>, Streaming<Any>)> {
    let (sender, messages) = mpsc::channel(4);
    sender.send(pack(&StreamInit { id: name.to_owned() })).await?;
    let stream = StreamingClient::new(channel.clone()).stream(request(ReceiverStream::new(messages))).await?;
    let mut stream = stream.into_inner();
    stream.message().await?.context("the stream is said to be open")?;
    Ok((sender, stream))
}

/// Answers every question for `reference` with this password until the daemon has no more, and returns how many there were.
async fn answer(
    (to_daemon, mut questions): (mpsc::Sender<Any>, Streaming<Any>),
    reference: String,
    password: &str,
) -> Result<u32> {
    let mut count = 0;
    while let Some(question) = questions.message().await? {
        let question: AuthRequest = unpack(&question)?;
        assert_eq!(question.reference, reference);
        assert!(reference.starts_with(&question.host), "{} is asked for {reference}", question.host);
        count += 1;
        let answer = AuthResponse {
            auth_type: AuthType::Credentials.into(),
            username: "ada".to_owned(),
            secret: password.to_owned(),
            expire_at: None,
        };
        to_daemon.send(pack(&answer)).await?;
    }
    Ok(count)
}

fn registry(reference: &str, auth_stream: &str) -> OciRegistry {
    let resolver = RegistryResolver {
        auth_stream: auth_stream.to_owned(),
        default_scheme: "http".to_owned(),
        ..Default::default()
    };
    OciRegistry { reference: reference.to_owned(), resolver: Some(resolver) }
}

fn store(name: &str) -> ImageStore {
    let host = Platform::host();
    let platform = WirePlatform { os: host.os, architecture: host.architecture, ..Default::default() };
    let unpack =
        UnpackConfiguration { platform: Some(platform.clone()), snapshotter: "overlayfs".to_owned() };
    ImageStore {
        name: name.to_owned(),
        platforms: vec![platform],
        unpacks: vec![unpack],
        ..Default::default()
    }
}

async fn transfer(channel: &Channel, from: Any, to: Any, progress: &str) -> Result<(), Status> {
    let transfer = TransferRequest {
        source: Some(from),
        destination: Some(to),
        options: Some(TransferOptions { progress_stream: progress.to_owned() }),
    };
    TransferClient::new(channel.clone()).transfer(request(transfer)).await.map(drop)
}

/// Transfers between the store and a registry that wants a password; the client has this one.
async fn with_password(
    channel: &Channel,
    reference: &str,
    password: &'static str,
    push: Option<&str>,
) -> Result<()> {
    let answering = answer(open(channel, "auth").await?, reference.to_owned(), password);
    let answering = tokio::spawn(answering);
    let registry = pack(&registry(reference, "auth"));
    let (from, to) = match push {
        Some(image) => (pack(&store(image)), registry),
        None => (registry, pack(&store(reference))),
    };
    let end = transfer(channel, from, to, "progress").await;
    assert_eq!(answering.await??, 1, "one question for one transfer");
    Ok(end?)
}

#[test]
fn an_image_is_pulled_and_pushed_with_the_clients_password_and_its_progress_is_heard() -> Result<()> {
    let registry = Registry::start_with_login("ada", "lovelace")?;
    let image = fixtures::crowd(2, 10, 2000).0.build()?;
    let reference = registry.push(&image, "secret/image", "1")?;
    let copy = registry.reference("secret/copy:2");
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let channel = connect(&engine.socket()).await?;
        let (_sender, mut progress) = open(&channel, "progress").await?;
        let refused = with_password(&channel, &reference, "byron", None).await.unwrap_err();
        let code = refused.downcast_ref::<Status>().map(Status::code);
        assert!(matches!(code, Some(Code::Unauthenticated | Code::PermissionDenied)), "{refused}");
        while progress.message().await?.is_some() {}

        let (_sender, mut progress) = open(&channel, "progress").await?;
        with_password(&channel, &reference, "lovelace", None).await?;
        let mut told = Vec::new();
        while let Some(message) = progress.message().await? {
            let Progress { event, name, .. } = unpack(&message)?;
            told.push((name, event));
        }
        assert!(told.contains(&(reference.clone(), "saved".to_owned())), "{told:?}");
        for layer in &image.layers {
            let line = (format!("layer-{layer}"), "complete".to_owned());
            assert!(told.contains(&line), "{line:?} is not in {told:?}");
        }

        let (_sender, _progress) = open(&channel, "progress").await?;
        with_password(&channel, &copy, "lovelace", Some(&reference)).await?;
        let (_sender, _progress) = open(&channel, "progress").await?;
        with_password(&channel, &copy, "lovelace", None).await
    })?;
    let images = engine.ok(["images", "ls"])?;
    assert!(images.contains("secret/image") && images.contains("secret/copy"), "{images}");
    Ok(())
}
