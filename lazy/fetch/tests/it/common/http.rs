//! A registry of one blob on loopback that answers as its script says, down to the byte.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::sockopt::set_socket_linger;

/// A request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    /// The range asked for, if there was one.
    pub range: Option<Range<usize>>,
    pub authorization: Option<String>,
    /// How many requests with this beginning of a path (`/v2/`, `/store/`, `/token`) came before it.
    pub number: usize,
}

/// An answer: bytes as they go out, and whether the connection is then cut.
pub struct Answer {
    pub bytes: Vec<u8>,
    pub end: End,
}

/// What comes after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request.
    Next,
    /// A reset.
    Reset,
    /// Nothing, until the test is over.
    Silence,
}

/// Status line, headers and a body, with its length.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Answer { bytes, end: End::Next }
}

/// As a good registry answers.
pub fn served(seen: &Seen, blob: &[u8]) -> Answer {
    match &seen.range {
        None => answer(200, &[], blob),
        Some(range) => {
            let place = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len());
            answer(206, &[("Content-Range", &place)], &blob[range.clone()])
        }
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// The server; it stops when dropped.
pub struct Http {
    pub host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    stopped: Arc<AtomicBool>,
}

impl Http {
    pub fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (seen, stopped) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, stop, script): (_, _, Arc<Script>) =
            (Arc::clone(&seen), Arc::clone(&stopped), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (log, stop, script) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&script));
                std::thread::spawn(move || serve(stream.unwrap(), &log, &stop, &*script));
            }
        });
        Self { host, seen, stopped }
    }

    /// Requests whose path begins so.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The listener looks up when somebody knocks.
        let _ = TcpStream::connect(&self.host);
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Seen>>, stop: &AtomicBool, script: &Script) -> Option<()> {
    let mut kept = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let mut more = [0; 4096];
            let count = stream.read(&mut more).ok().filter(|count| *count > 0)?;
            kept.extend_from_slice(&more[..count]);
        };
        let head = String::from_utf8(kept.drain(..end + 4).collect()).unwrap();
        let seen = {
            let mut log = log.lock().unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let kind = |path: &str| path.split(['/', '?']).nth(1).unwrap_or_default().to_owned();
            let number = log.iter().filter(|other: &&Seen| kind(&other.path) == kind(&path)).count();
            let seen =
                Seen { range: range(&head), authorization: header(&head, "authorization"), path, number };
            log.push(seen.clone());
            seen
        };
        let answer = script(&seen);
        stream.write_all(&answer.bytes).ok()?;
        match answer.end {
            End::Next => {}
            End::Reset => {
                set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
                return None;
            }
            End::Silence => {
                // The other side hangs up, or the test is over.
                while !stop.load(Ordering::SeqCst) && stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {
                }
                return None;
            }
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

fn range(head: &str) -> Option<Range<usize>> {
    let text = header(head, "range")?;
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<usize>().ok()? + 1)
}
