//! `transfer.v1` and `streaming.v1`, and the engine's own import and export: images as archives, over real streams. Pull
//! and push need a registry and are tried in `tests`.

use prost_types::Any;
use runtime_api::any::{pack, unpack};
use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::images::v1::images_client::ImagesClient;
use runtime_api::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
};
use runtime_api::containerd::services::streaming::v1::StreamInit;
use runtime_api::containerd::services::streaming::v1::streaming_client::StreamingClient;
use runtime_api::containerd::services::transfer::v1::transfer_client::TransferClient;
use runtime_api::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use runtime_api::containerd::types::Descriptor;
use runtime_api::containerd::types::transfer::{
    Data, ImageExportStream, ImageImportStream, ImageReference, ImageStore, OciRegistry, Progress,
    WindowUpdate,
};
use runtime_api::windlass::v1 as engine;
use runtime_api::windlass::v1::engine_client::EngineClient;
use storage_model::{Digest, Platform};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::content::{Client, put};
use crate::fixture::{Daemon, client, request};

const NAME: &str = "example.org/a/b:1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The client's end of a stream.
struct Stream {
    to_daemon: mpsc::Sender<Any>,
    from_daemon: Streaming<Any>,
}

impl Stream {
    async fn open(daemon: &Daemon, name: &str) -> Result<Self, Status> {
        let (to_daemon, messages) = mpsc::channel(4);
        to_daemon.send(pack(&StreamInit { id: name.to_owned() })).await.unwrap();
        let call = request(ReceiverStream::new(messages));
        let mut from_daemon = client!(daemon, StreamingClient<_>).stream(call).await?.into_inner();
        assert_eq!(from_daemon.message().await?.unwrap().type_url, "google.protobuf.Empty");
        Ok(Self { to_daemon, from_daemon })
    }

    /// Everything that the daemon sends, giving it `window` bytes at a time.
    async fn read(mut self, window: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut room = 0;
        loop {
            if room == 0 {
                room = window;
                // The daemon may have sent everything and be gone.
                let _ = self.to_daemon.send(pack(&WindowUpdate { update: window })).await;
            }
            let Some(message) = self.from_daemon.message().await.unwrap() else { return bytes };
            let Data { data } = unpack(&message).unwrap();
            room -= data.len() as i32;
            assert!(room >= 0, "the daemon sent more than there was room for");
            bytes.extend(data);
        }
    }

    /// Sends `bytes` as the daemon has room, and ends its half of the stream when they are the `whole`. What comes back keeps
    /// the other half open: a client that drops that cancels both.
    async fn write(mut self, bytes: &[u8], whole: bool) -> (Option<mpsc::Sender<Any>>, Streaming<Any>) {
        let mut room = 0;
        for piece in bytes.chunks(10_000) {
            while room < piece.len() {
                let update = self.from_daemon.message().await.unwrap().unwrap();
                room += unpack::<WindowUpdate>(&update).unwrap().update as usize;
            }
            room -= piece.len();
            let _ = self.to_daemon.send(pack(&Data { data: piece.to_vec() })).await;
        }
        (Some(self.to_daemon).filter(|_| !whole), self.from_daemon)
    }
}

async fn transfer(daemon: &Daemon, source: Any, destination: Any, progress: &str) -> Result<(), Status> {
    let transfer = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions { progress_stream: progress.to_owned() }),
    };
    client!(daemon, TransferClient<_>).transfer(request(transfer)).await.map(drop)
}

fn store(name: &str) -> ImageStore {
    ImageStore { name: name.to_owned(), ..Default::default() }
}

/// Puts an image of one empty layer into the store, by hand.
async fn make_image(daemon: &Daemon) -> Digest {
    let mut content: Client = client!(daemon, ContentClient<_>);
    let host = Platform::host();
    let layer = vec![0; 1024];
    let layer_digest = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"{}","os":"{}","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#,
        host.architecture, host.os
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":1024}}]}}"#,
        Digest::of(config.as_bytes()),
        config.len()
    );
    // Until the image keeps them nothing does, so they come in one breath and no collection is asked for.
    for bytes in [&layer[..], config.as_bytes(), manifest.as_bytes()] {
        put(&mut content, bytes).await.unwrap();
    }
    let digest = Digest::of(manifest.as_bytes());
    let target = Descriptor {
        media_type: MANIFEST.to_owned(),
        digest: digest.to_string(),
        size: manifest.len() as i64,
        ..Default::default()
    };
    let image = Image { name: NAME.to_owned(), target: Some(target), ..Default::default() };
    let create = CreateImageRequest { image: Some(image), source_date_epoch: None };
    client!(daemon, ImagesClient<_>).create(request(create)).await.unwrap();
    digest
}

async fn target(daemon: &Daemon, name: &str) -> Result<String, Status> {
    let get = GetImageRequest { name: name.to_owned() };
    let found = client!(daemon, ImagesClient<_>).get(request(get)).await?.into_inner();
    Ok(found.image.unwrap().target.unwrap().digest)
}

async fn remove(daemon: &Daemon, name: &str) {
    let delete = DeleteImageRequest { name: name.to_owned(), sync: true, ..Default::default() };
    client!(daemon, ImagesClient<_>).delete(request(delete)).await.unwrap();
}

async fn export(daemon: &Daemon, window: i32) -> Vec<u8> {
    let stream = Stream::open(daemon, "out").await.unwrap();
    let reading = tokio::spawn(stream.read(window));
    let archive = ImageExportStream { stream: "out".to_owned(), ..Default::default() };
    transfer(daemon, pack(&store(NAME)), pack(&archive), "").await.unwrap();
    reading.await.unwrap()
}

fn import_into(name: &str) -> ImageStore {
    let prefix = ImageReference { name: name.to_owned(), is_prefix: true, ..Default::default() };
    ImageStore { extra_references: vec![prefix], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_out_as_an_archive_and_comes_back_with_progress() {
    let daemon = Daemon::start().await;
    let digest = make_image(&daemon).await;
    let archive = export(&daemon, 4096).await;
    assert!(archive.len() > 4096 && archive.len().is_multiple_of(512), "{} bytes", archive.len());
    assert!(archive == export(&daemon, 1 << 20).await, "an archive does not depend on the windows");
    remove(&daemon, NAME).await;

    let mut progress = Stream::open(&daemon, "how far").await.unwrap();
    let writing = Stream::open(&daemon, "in").await.unwrap();
    let bytes = archive.clone();
    let writing = tokio::spawn(async move { writing.write(&bytes, true).await });
    let from = ImageImportStream { stream: "in".to_owned(), ..Default::default() };
    transfer(&daemon, pack(&from), pack(&import_into("example.org/a/b")), "how far").await.unwrap();
    writing.await.unwrap();
    assert_eq!(target(&daemon, NAME).await.unwrap(), digest.to_string());
    let mut told = Vec::new();
    while let Some(message) = progress.from_daemon.message().await.unwrap() {
        let Progress { event, name, .. } = unpack(&message).unwrap();
        told.push((event, name));
    }
    assert!(told.contains(&("saved".to_owned(), NAME.to_owned())), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_in_the_middle_of_an_import_leaves_no_image() {
    let daemon = Daemon::start().await;
    make_image(&daemon).await;
    let archive = export(&daemon, 1 << 20).await;
    remove(&daemon, NAME).await;
    let writing = Stream::open(&daemon, "in").await.unwrap();
    let half = archive[..archive.len() / 2].to_vec();
    let writing = tokio::spawn(async move {
        let both = writing.write(&half, false).await;
        // Long enough that all of it is on its way.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        drop(both);
    });
    let from = ImageImportStream { stream: "in".to_owned(), ..Default::default() };
    let error = transfer(&daemon, pack(&from), pack(&import_into("example.org/a/b")), "").await.unwrap_err();
    writing.await.unwrap();
    assert_ne!(error.code(), Code::Internal, "{error}");
    let list = client!(daemon, ImagesClient<_>).list(request(ListImagesRequest::default())).await.unwrap();
    assert!(list.into_inner().images.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_gets_a_further_name_exactly_as_it_is_written() {
    let daemon = Daemon::start().await;
    let digest = make_image(&daemon).await;
    for _ in 0..2 {
        transfer(&daemon, pack(&store(NAME)), pack(&store("short")), "").await.unwrap();
        assert_eq!(target(&daemon, "short").await.unwrap(), digest.to_string());
    }
    let error = transfer(&daemon, pack(&store("nothing")), pack(&store("x")), "").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_do_not_fit_and_streams_that_are_not_open_are_refused() {
    let daemon = Daemon::start().await;
    make_image(&daemon).await;
    let registry = pack(&OciRegistry::default());
    let export = pack(&ImageExportStream { stream: "nobody".to_owned(), ..Default::default() });
    let unknown = Any { type_url: "somebody.Else".to_owned(), value: Vec::new() };
    let damaged = Any { value: vec![0xff], ..pack(&store(NAME)) };
    for (source, destination, code) in [
        (registry.clone(), export.clone(), Code::Unimplemented),
        (unknown, registry, Code::Unimplemented),
        (damaged, pack(&store("x")), Code::InvalidArgument),
        (pack(&store(NAME)), export, Code::NotFound),
    ] {
        let error = transfer(&daemon, source, destination, "").await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let error = transfer(&daemon, pack(&store(NAME)), pack(&store("x")), "not open").await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_its_name_alone_until_its_client_leaves() {
    let daemon = Daemon::start().await;
    let first = Stream::open(&daemon, "mine").await.unwrap();
    assert_eq!(Stream::open(&daemon, "mine").await.err().unwrap().code(), Code::AlreadyExists);
    assert_eq!(Stream::open(&daemon, "").await.err().unwrap().code(), Code::InvalidArgument);
    drop(first);
    let again = async {
        while Stream::open(&daemon, "mine").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_daemon_ends_streams_that_wait_for_a_call() {
    let daemon = Daemon::start().await;
    let mut stream = Stream::open(&daemon, "mine").await.unwrap();
    let end = tokio::spawn(async move { stream.from_daemon.message().await });
    daemon.stop().await;
    let end = tokio::time::timeout(std::time::Duration::from_secs(10), end).await.unwrap().unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engines_own_export_and_import_carry_the_same_archive() {
    use engine::import_request::Part;
    let daemon = Daemon::start().await;
    let digest = make_image(&daemon).await;
    let mut client = client!(daemon, EngineClient<_>);
    let export = engine::ExportRequest { images: vec![NAME.to_owned()], ..Default::default() };
    let mut parts = client.export(request(export)).await.unwrap().into_inner();
    let (mut archive, mut done) = (Vec::new(), None);
    while let Some(message) = parts.message().await.unwrap() {
        match message.part.unwrap() {
            engine::export_response::Part::Data(data) => archive.extend(data),
            engine::export_response::Part::Event(event) => {
                if let Some(engine::transfer_event::Event::Done(last)) = event.event {
                    done = Some(last);
                }
            }
        }
    }
    assert!((1..=archive.len() as u64).contains(&done.unwrap().bytes));
    remove(&daemon, NAME).await;

    let options = engine::ImportOptions { no_unpack: true, ..Default::default() };
    let mut messages = vec![engine::ImportRequest { part: Some(Part::Options(options)) }];
    let pieces =
        archive.chunks(1000).map(|piece| engine::ImportRequest { part: Some(Part::Data(piece.to_vec())) });
    messages.extend(pieces);
    let mut events = client.import(request(tokio_stream::iter(messages))).await.unwrap().into_inner();
    let mut images = Vec::new();
    while let Some(message) = events.message().await.unwrap() {
        if let Some(engine::transfer_event::Event::Done(done)) = message.event {
            images = done.images;
        }
    }
    assert_eq!(images.len(), 1, "{images:?}");
    assert_eq!((images[0].name.as_str(), images[0].digest.as_str()), (NAME, digest.to_string().as_str()));
    let nothing = tokio_stream::iter(Vec::<engine::ImportRequest>::new());
    assert_eq!(client.import(request(nothing)).await.unwrap_err().code(), Code::InvalidArgument);
}
