//! `containerd.services.content.v1`.

use runtime_api::containerd::services::content::v1::content_client::ContentClient;
use runtime_api::containerd::services::content::v1::{self as wire, WriteAction};
use runtime_api::containerd::services::leases::v1::CreateRequest;
use runtime_api::containerd::services::leases::v1::leases_client::LeasesClient;
use runtime_api::windlass::v1::CollectRequest;
use runtime_api::windlass::v1::engine_client::EngineClient;
use storage_model::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::fixture::{Daemon, client, leased, request};

pub(crate) type Client = ContentClient<Channel>;

/// One write stream, spoken turn by turn.
struct Session {
    messages: mpsc::Sender<wire::WriteContentRequest>,
    answers: Streaming<wire::WriteContentResponse>,
}

impl Session {
    async fn open(client: &mut Client) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let answers = client.write(request(ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { messages, answers }
    }

    async fn say(
        &mut self,
        message: wire::WriteContentRequest,
    ) -> Result<wire::WriteContentResponse, Status> {
        self.messages.send(message).await.unwrap();
        Ok(self.answers.message().await?.expect("each message has an answer"))
    }
}

fn message(action: WriteAction, reference: &str, offset: usize, data: &[u8]) -> wire::WriteContentRequest {
    wire::WriteContentRequest {
        action: action.into(),
        r#ref: reference.to_owned(),
        offset: offset as i64,
        data: data.to_vec().into(),
        ..Default::default()
    }
}

pub(crate) async fn put(client: &mut Client, data: &[u8]) -> Result<wire::WriteContentResponse, Status> {
    let digest = Digest::of(data);
    let mut session = Session::open(client).await;
    let commit = wire::WriteContentRequest {
        total: data.len() as i64,
        expected: digest.to_string(),
        ..message(WriteAction::Commit, &format!("put {digest}"), 0, data)
    };
    session.say(commit).await
}

async fn get(client: &mut Client, digest: &Digest, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
    let read = wire::ReadContentRequest { digest: digest.to_string(), offset, size };
    let mut pieces = client.read(request(read)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        assert_eq!(piece.offset as usize, bytes.len());
        bytes.extend_from_slice(&piece.data);
    }
    Ok(bytes)
}

/// Bytes that do not repeat in any piece.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_in_many_messages_is_read_back_whole_and_in_parts() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let data = noise(9 * 1024 * 1024 + 17);
    let mut session = Session::open(&mut client).await;
    let begun = session.say(message(WriteAction::Stat, "big", 0, b"")).await.unwrap();
    assert_eq!((begun.offset, begun.digest), (0, Digest::of(b"").to_string()));
    let mut offset = 0;
    for piece in data.chunks(1024 * 1024) {
        let answer = session.say(message(WriteAction::Write, "", offset, piece)).await.unwrap();
        offset += piece.len();
        assert_eq!(
            (answer.offset as usize, answer.digest),
            (offset, Digest::of(&data[..offset]).to_string())
        );
    }
    let digest = Digest::of(&data);
    let commit = wire::WriteContentRequest {
        expected: digest.to_string(),
        total: offset as i64,
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..message(WriteAction::Commit, "", offset, b"")
    };
    let done = session.say(commit).await.unwrap();
    assert_eq!(done.digest, digest.to_string());
    assert!(session.answers.message().await.unwrap().is_none(), "COMMIT ends the stream");

    assert!(get(&mut client, &digest, 0, 0).await.unwrap() == data);
    assert!(get(&mut client, &digest, 5, 3 << 20).await.unwrap() == data[5..5 + (3 << 20)]);
    assert!(get(&mut client, &digest, 7, i64::MAX).await.unwrap() == data[7..]);
    assert!(get(&mut client, &digest, offset as i64, 0).await.unwrap().is_empty());
    let past = get(&mut client, &digest, offset as i64 + 1, 0).await.unwrap_err();
    assert_eq!(past.code(), Code::OutOfRange);

    let info = client.info(request(wire::InfoRequest { digest: digest.to_string() })).await.unwrap();
    let info = info.into_inner().info.unwrap();
    assert_eq!((info.size, info.labels["a"].as_str()), (offset as i64, "b"));
    assert_eq!(info.created_at, info.updated_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_without_commit_can_be_taken_up_at_its_offset() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let mut first = Session::open(&mut client).await;
    first.say(message(WriteAction::Write, "r", 0, b"hello ")).await.unwrap();
    drop(first);
    // The daemon may hear of this one before it hears of the end of the first.
    let mut second = Session::open(&mut client).await;
    let begun = second.say(message(WriteAction::Stat, "r", 0, b"")).await.unwrap();
    assert_eq!(begun.offset, 6);
    let status = second.say(message(WriteAction::Commit, "", 6, b"world")).await.unwrap();
    assert_eq!(status.digest, Digest::of(b"hello world").to_string());
    assert_eq!(get(&mut client, &Digest::of(b"hello world"), 0, 0).await.unwrap(), b"hello world");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_checked_and_zero_begins_anew() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let mut session = Session::open(&mut client).await;
    session.say(message(WriteAction::Write, "r", 0, b"wrong")).await.unwrap();
    let anew = session.say(message(WriteAction::Write, "r", 0, b"right")).await.unwrap();
    assert_eq!((anew.offset, anew.digest), (5, Digest::of(b"right").to_string()));
    let gap = session.say(message(WriteAction::Write, "r", 9, b"x")).await.unwrap_err();
    assert_eq!(gap.code(), Code::OutOfRange);
    let mut nameless = Session::open(&mut client).await;
    let error = nameless.say(message(WriteAction::Stat, "", 0, b"")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_or_size_is_refused_and_keeps_the_ingest() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let wrongs = [
        wire::WriteContentRequest { expected: Digest::of(b"other").to_string(), ..Default::default() },
        wire::WriteContentRequest { total: 3, ..Default::default() },
    ];
    for (index, wrong) in wrongs.into_iter().enumerate() {
        let reference = format!("r{index}");
        let mut session = Session::open(&mut client).await;
        session.say(message(WriteAction::Write, &reference, 0, b"data")).await.unwrap();
        let commit = wire::WriteContentRequest {
            total: wrong.total,
            expected: wrong.expected,
            ..message(WriteAction::Commit, &reference, 4, b"")
        };
        assert_eq!(session.say(commit).await.unwrap_err().code(), Code::FailedPrecondition);
        let status = client.status(request(wire::StatusRequest { r#ref: reference })).await.unwrap();
        assert_eq!(status.into_inner().status.unwrap().offset, 4);
    }
    assert_eq!(get(&mut client, &Digest::of(b"data"), 0, 0).await.unwrap_err().code(), Code::NotFound);
    let all = client.list_statuses(request(wire::ListStatusesRequest::default())).await.unwrap();
    assert_eq!(all.into_inner().statuses.len(), 2);
    let one = wire::ListStatusesRequest { filters: vec!["ref~=/^r0$/".to_owned()] };
    let one = client.list_statuses(request(one)).await.unwrap().into_inner().statuses;
    assert_eq!(one[0].r#ref, "r0");
    client.abort(request(wire::AbortRequest { r#ref: "r0".to_owned() })).await.unwrap();
    let gone = client.abort(request(wire::AbortRequest { r#ref: "r0".to_owned() })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_has_one_writer_and_a_blob_is_written_once() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let mut first = Session::open(&mut client).await;
    first.say(message(WriteAction::Write, "r", 0, b"da")).await.unwrap();
    let mut second = Session::open(&mut client).await;
    let busy = second.say(message(WriteAction::Stat, "r", 0, b"")).await.unwrap_err();
    assert_eq!(busy.code(), Code::Unavailable);

    put(&mut client, b"data").await.unwrap();
    assert_eq!(put(&mut client, b"data").await.unwrap_err().code(), Code::AlreadyExists);
    let known = wire::WriteContentRequest {
        expected: Digest::of(b"data").to_string(),
        ..message(WriteAction::Write, "r", 2, b"ta")
    };
    assert_eq!(first.say(known).await.unwrap_err().code(), Code::AlreadyExists);
    let gone = client.status(request(wire::StatusRequest { r#ref: "r".to_owned() })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "an ingest whose blob is here goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_batches_and_obey_filters() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    for number in 0..201 {
        put(&mut client, format!("blob {number}").as_bytes()).await.unwrap();
    }
    let mut batches = Vec::new();
    let mut list = client.list(request(wire::ListContentRequest::default())).await.unwrap().into_inner();
    while let Some(batch) = list.message().await.unwrap() {
        batches.push(batch.info.len());
    }
    assert_eq!(batches, [100, 100, 1]);
    let digest = Digest::of(b"blob 7").to_string();
    let info = wire::Info {
        digest: digest.clone(),
        labels: [("x/y".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    let mask = prost_types::FieldMask { paths: vec!["labels.x/y".to_owned()] };
    let update = wire::UpdateRequest { info: Some(info), update_mask: Some(mask) };
    client.update(request(update)).await.unwrap();
    for filter in [format!("digest=={digest}"), "labels.\"x/y\"==1".to_owned()] {
        let filters = wire::ListContentRequest { filters: vec![filter.clone()] };
        let mut list = client.list(request(filters)).await.unwrap().into_inner();
        let found = list.message().await.unwrap().unwrap().info;
        assert_eq!(found.len(), 1, "{filter}");
        assert_eq!(found[0].digest, digest);
    }
    let bad = wire::ListContentRequest { filters: vec!["digest=".to_owned()] };
    assert_eq!(client.list(request(bad)).await.unwrap_err().code(), Code::InvalidArgument);
    client.delete(request(wire::DeleteContentRequest { digest: digest.clone() })).await.unwrap();
    let gone = client.info(request(wire::InfoRequest { digest })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_under_a_lease_outlives_a_collection_and_the_rest_does_not() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let mut leases = client!(daemon, LeasesClient<_>);
    let lease = CreateRequest { id: "keeper".to_owned(), ..Default::default() };
    leases.create(request(lease)).await.unwrap();
    for (content, lease) in [(b"kept", Some("keeper")), (b"lost", None)] {
        let commit = tokio_stream::once(message(WriteAction::Commit, "r", 0, content));
        let commit = match lease {
            Some(lease) => leased(lease, commit),
            None => request(commit),
        };
        let mut answers = client.write(commit).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap();
    }
    let mut engine = client!(daemon, EngineClient<_>);
    let collected = engine.collect(request(CollectRequest::default())).await.unwrap().into_inner();
    assert_eq!(collected.blobs, 1);
    assert_eq!(get(&mut client, &Digest::of(b"kept"), 0, 0).await.unwrap(), b"kept");
    assert_eq!(get(&mut client, &Digest::of(b"lost"), 0, 0).await.unwrap_err().code(), Code::NotFound);
    let nobody = tokio_stream::once(message(WriteAction::Commit, "r", 0, b"x"));
    let mut answers = client.write(leased("nobody", nobody)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::NotFound, "there is no such lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn vuln_d6_a_message_over_the_limit_is_refused_and_the_daemon_serves_on() {
    let daemon = Daemon::start().await;
    let mut client = client!(daemon, ContentClient<_>);
    let mut session = Session::open(&mut client).await;
    let huge = vec![0; runtime_api::MESSAGE_BYTES_MAX + 1];
    let error = session.say(message(WriteAction::Write, "r", 0, &huge)).await.unwrap_err();
    assert!(matches!(error.code(), Code::OutOfRange | Code::ResourceExhausted), "{error:?}");
    put(&mut client, b"still here").await.unwrap();
}
