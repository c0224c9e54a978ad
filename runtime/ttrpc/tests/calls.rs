//! Client and server together, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use runtime_ttrpc::{Call, Client, Code, Reply, Server, Service, Status, TtrpcError, frame};

/// Longest a test waits for what must come.
const LONG: Option<Duration> = Some(Duration::from_secs(30));

/// Answers `Echo` with its request, keeps `Hold` for the test to answer, drops `Drop`, panics in `Panic`.
struct Desk {
    held: Mutex<mpsc::Sender<(Call, Reply)>>,
}

impl Service for Desk {
    fn call(&self, call: Call, reply: Reply) {
        match call.method.as_str() {
            "Echo" => reply.send(call.request::<String>()),
            "Namespace" => {
                reply.send(Ok(call.metadata(runtime_ttrpc::NAMESPACE_KEY).unwrap_or("none").to_owned()))
            }
            "Limit" => reply.send(Ok(format!("{:?}", call.timeout))),
            "Large" => reply.send(Ok("x".repeat(frame::BODY_BYTES_MAX as usize + 1))),
            "Hold" => self.held.lock().unwrap().send((call, reply)).unwrap(),
            "Drop" => drop(reply),
            "Panic" => panic!("a service that panics, on purpose"),
            _ => reply.send::<String>(Err(call.unimplemented())),
        }
    }
}

struct Stage {
    _directory: tempfile::TempDir,
    path: PathBuf,
    held: mpsc::Receiver<(Call, Reply)>,
}

fn stage() -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let (sender, held) = mpsc::channel();
    let server = Server::bind(&path, Arc::new(Desk { held: Mutex::new(sender) })).unwrap();
    std::thread::spawn(move || server.run());
    Stage { _directory: directory, path, held }
}

fn say(client: &Client, method: &str, words: &str) -> Result<String, TtrpcError> {
    client.call("test.Desk", method, &words.to_owned(), LONG)
}

#[test]
fn many_threads_call_over_one_connection_and_each_gets_its_own_answer() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let client = &client;
            scope.spawn(move || {
                for number in 0..100 {
                    let words = format!("{thread}/{number}");
                    assert_eq!(say(client, "Echo", &words).unwrap(), words);
                }
            });
        }
    });
}

#[test]
fn a_call_that_waits_does_not_hold_up_the_others_of_its_connection() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| say(&client, "Hold", "first"));
        let (call, reply) = stage.held.recv().unwrap();
        assert_eq!(say(&client, "Echo", "second").unwrap(), "second");
        reply.send(call.request::<String>());
        assert_eq!(waiting.join().unwrap().unwrap(), "first");
    });
}

#[test]
fn a_call_ends_when_its_time_is_up_and_the_connection_stays_usable() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    let limit = Some(Duration::from_millis(20));
    let error = client.call::<_, String>("test.Desk", "Hold", &String::new(), limit).unwrap_err();
    assert!(matches!(error, TtrpcError::Timeout { .. }));
    assert_eq!(error.code(), Code::DeadlineExceeded);
    let (call, reply) = stage.held.recv().unwrap();
    assert_eq!(call.timeout, limit);
    reply.send(Ok("too late".to_owned()));
    assert_eq!(say(&client, "Echo", "after").unwrap(), "after");
}

#[test]
fn a_connection_that_ends_ends_every_call_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = Client::connect(&path).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| say(&client, "Wait", ""))).collect();
        for _ in &calls {
            frame::read(&mut peer).unwrap().unwrap();
        }
        drop(peer);
        for call in calls {
            let error = call.join().unwrap().unwrap_err();
            assert!(error.is_gone(), "{error}");
            assert_eq!(error.code(), Code::Unavailable);
        }
    });
    assert!(say(&client, "Wait", "").unwrap_err().is_gone());
    assert!(client.is_closed());
}

#[test]
fn a_call_that_the_service_loses_or_panics_in_is_answered_all_the_same() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    for method in ["Drop", "Panic"] {
        assert_eq!(say(&client, method, "").unwrap_err().code(), Code::Internal, "{method}");
    }
    assert_eq!(say(&client, "Echo", "alive").unwrap(), "alive");
}

#[test]
fn a_refusal_arrives_with_its_code_and_words() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    let error = say(&client, "Nonsense", "").unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.to_string(), "there is no method test.Desk/Nonsense here");
    let status = Status::from(error);
    assert_eq!(status.code, Code::Unimplemented);
}

#[test]
fn messages_over_the_limit_are_refused_in_both_directions_and_the_connection_stays_usable() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    let long = "x".repeat(frame::BODY_BYTES_MAX as usize + 1);
    assert!(matches!(say(&client, "Echo", &long), Err(TtrpcError::Send { .. })));
    assert_eq!(say(&client, "Large", "").unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(say(&client, "Echo", "short").unwrap(), "short");
}

#[test]
fn metadata_travels_beside_every_call() {
    let stage = stage();
    let metadata = vec![(runtime_ttrpc::NAMESPACE_KEY.to_owned(), "blue".to_owned())];
    let client = Client::connect(&stage.path).unwrap().with_metadata(metadata);
    assert_eq!(say(&client, "Namespace", "").unwrap(), "blue");
}

#[test]
fn bytes_that_are_no_call_are_answered_or_end_their_own_connection_only() {
    let stage = stage();
    let mut rude = UnixStream::connect(&stage.path).unwrap();
    // An even number, and a body that is no message.
    frame::write(&mut rude, 2, frame::Kind::Request, b"").unwrap();
    frame::write(&mut rude, 3, frame::Kind::Request, &[0xff; 9]).unwrap();
    for stream in [2, 3] {
        let answer = frame::read(&mut rude).unwrap().unwrap();
        assert_eq!((answer.stream, answer.kind), (stream, frame::Kind::Response));
        // Field 1 (status), inside it field 1 (code) with 3, InvalidArgument.
        let body = answer.body.unwrap();
        assert_eq!((body[0], &body[2..4]), (0x0a, &[0x08, 3][..]));
    }
    rude.write_all(&[1, 2, 3]).unwrap();
    drop(rude);
    let client = Client::connect(&stage.path).unwrap();
    assert_eq!(say(&client, "Echo", "well").unwrap(), "well");
}

#[test]
fn calls_over_the_limit_are_refused_at_once_and_taken_again_when_some_have_ended() {
    let stage = stage();
    let client = Client::connect(&stage.path).unwrap();
    std::thread::scope(|scope| {
        let mut replies = Vec::new();
        for _ in 0..runtime_ttrpc::CALLS_MAX {
            scope.spawn(|| say(&client, "Hold", "held"));
            replies.push(stage.held.recv().unwrap());
        }
        assert_eq!(say(&client, "Echo", "one too many").unwrap_err().code(), Code::ResourceExhausted);
        for (call, reply) in replies {
            reply.send(call.request::<String>());
        }
    });
    assert_eq!(say(&client, "Echo", "again").unwrap(), "again");
}

#[test]
fn nobody_at_the_socket_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(&directory.path().join("nothing")).unwrap_err();
    assert!(matches!(&error, TtrpcError::Connect { .. }));
    assert_eq!(error.code(), Code::Unavailable);
}
