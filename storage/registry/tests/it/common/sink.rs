//! A registry that takes uploads, and troubles them by script: cut bodies, lost answers, forgotten sessions.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use storage_model::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a request that changes something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The connection is reset after this many bytes of the body; those are kept.
    Cut(usize),
    /// The request is done and its answer never arrives.
    Lost,
    /// The request is not done; this status says so.
    Status(u16),
    /// All sessions are forgotten first.
    Forget,
    /// Half of the body is kept, and the answer says so.
    Half,
}

/// What the sink has, and what it was asked.
#[derive(Default)]
pub struct State {
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Blobs of another repository, which may be mounted.
    pub elsewhere: BTreeMap<String, Vec<u8>>,
    pub manifests: BTreeMap<String, Vec<u8>>,
    sessions: BTreeMap<u64, Vec<u8>>,
    opened: u64,
    pub troubles: VecDeque<Trouble>,
    /// `METHOD path` of each request.
    pub asked: Vec<String>,
    /// Bytes of bodies received.
    pub received: usize,
    /// Answers `POST` with a minimum for parts.
    pub least: Option<u64>,
    /// Refuses `PATCH` as a method.
    pub whole_only: bool,
    /// Refuses bodies of more bytes than this.
    pub body_max: Option<usize>,
}

/// The registry; it stops when dropped.
pub struct Sink {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    pub async fn start(troubles: impl IntoIterator<Item = Trouble>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let troubles = troubles.into_iter().collect();
        let state = Arc::new(Mutex::new(State { troubles, ..State::default() }));
        let kept = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&kept)));
            }
        });
        Self { address, state, task }
    }

    pub fn asked(&self, method: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|line| line.starts_with(method)).count()
    }
}

struct Head {
    method: String,
    path: String,
    length: usize,
    range: Option<String>,
}

async fn connection(mut stream: TcpStream, state: Arc<Mutex<State>>) -> Option<()> {
    let mut kept = Vec::new();
    loop {
        let head = head(&mut stream, &mut kept).await?;
        let (trouble, refused) = {
            let mut state = state.lock().unwrap();
            state.asked.push(format!("{} {}", head.method, head.path));
            let changes = matches!(head.method.as_str(), "POST" | "PATCH" | "PUT");
            let next = if changes { state.troubles.pop_front() } else { None };
            (next.unwrap_or(Trouble::None), state.body_max.is_some_and(|max| head.length > max))
        };
        let wanted = if let Trouble::Cut(bytes) = trouble { bytes.min(head.length) } else { head.length };
        while kept.len() < wanted {
            if stream.read_buf(&mut kept).await.ok()? == 0 {
                return None;
            }
        }
        let body: Vec<u8> = kept.drain(..wanted).collect();
        let answer = {
            let mut state = state.lock().unwrap();
            state.received += body.len();
            match trouble {
                Trouble::Status(status) => reply(status, ""),
                _ if refused => reply(413, ""),
                Trouble::Forget => {
                    state.sessions.clear();
                    state.answer(&head, &body)
                }
                Trouble::Half if head.method == "PATCH" => state.answer(&head, &body[..body.len() / 2]),
                // Of a body that did not come whole only a part of a session is kept.
                Trouble::Cut(_) if head.method == "PATCH" => state.answer(&head, &body),
                Trouble::Cut(_) if head.length > 0 => String::new(),
                _ => state.answer(&head, &body),
            }
        };
        if matches!(trouble, Trouble::Cut(_) | Trouble::Lost) {
            let _ = stream.set_zero_linger();
            return None;
        }
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn head(stream: &mut TcpStream, kept: &mut Vec<u8>) -> Option<Head> {
    let end = loop {
        if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(kept).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&kept[..end]).into_owned();
    kept.drain(..end + 4);
    let mut first = text.lines().next()?.split(' ');
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    Some(Head {
        method: first.next()?.to_owned(),
        path: first.next()?.to_owned(),
        length: header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
        range: header("content-range"),
    })
}

fn reply(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{headers}\r\n")
}

impl State {
    fn answer(&mut self, head: &Head, body: &[u8]) -> String {
        let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
        let query = query.replace("%3A", ":").replace("%2F", "/");
        let rest = path.strip_prefix("/v2/a/").unwrap_or_default();
        let id = rest.strip_prefix("blobs/uploads/").filter(|id| !id.is_empty());
        match (head.method.as_str(), id) {
            ("HEAD", _) => {
                let digest = rest.trim_start_matches("blobs/").trim_start_matches("manifests/");
                match self.blobs.get(digest).or(self.manifests.get(digest)) {
                    Some(bytes) => format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", bytes.len()),
                    None => reply(404, ""),
                }
            }
            ("POST", None) => self.open(&query),
            ("PATCH", Some(id)) => self.part(id, head, body),
            ("GET", Some(id)) => match self.session(id) {
                Some(session) => reply(204, &range(session.len(), path)),
                None => reply(404, ""),
            },
            ("PUT", Some(id)) => self.close(id, &query, body),
            ("PUT", None) => {
                let name = rest.trim_start_matches("manifests/").to_owned();
                self.manifests.insert(name, body.to_vec());
                reply(201, &format!("Docker-Content-Digest: {}\r\n", Digest::of(body)))
            }
            ("DELETE", Some(_)) => reply(204, ""),
            _ => reply(404, ""),
        }
    }

    fn session(&mut self, id: &str) -> Option<&mut Vec<u8>> {
        self.sessions.get_mut(&id.parse().ok()?)
    }

    fn open(&mut self, query: &str) -> String {
        if let Some(digest) =
            query.strip_prefix("mount=").and_then(|rest| rest.strip_suffix("&from=lib/other"))
            && let Some(bytes) = self.elsewhere.get(digest).cloned()
        {
            self.blobs.insert(digest.to_owned(), bytes);
            return reply(201, "");
        }
        self.opened += 1;
        self.sessions.insert(self.opened, Vec::new());
        let least = self.least.map(|least| format!("OCI-Chunk-Min-Length: {least}\r\n")).unwrap_or_default();
        reply(202, &format!("Location: /v2/a/blobs/uploads/{}\r\n{least}", self.opened))
    }

    fn part(&mut self, id: &str, head: &Head, body: &[u8]) -> String {
        if self.whole_only {
            return reply(405, "");
        }
        let least = self.least.unwrap_or(0) as usize;
        let Some(session) = self.session(id) else { return reply(404, "") };
        let first = head.range.as_ref().and_then(|range| range.split_once('-')?.0.parse().ok());
        if first != Some(session.len()) {
            return reply(416, "");
        }
        assert!(head.length >= least || body.is_empty() || session.len() > least, "a part below the minimum");
        session.extend_from_slice(body);
        let length = session.len();
        reply(202, &range(length, &format!("/v2/a/blobs/uploads/{id}")))
    }

    fn close(&mut self, id: &str, query: &str, body: &[u8]) -> String {
        let Some(session) = self.session(id) else { return reply(404, "") };
        session.extend_from_slice(body);
        let Some(digest) = query.strip_prefix("digest=") else { return reply(400, "") };
        if Digest::of(session).to_string() != digest {
            return "HTTP/1.1 400 X\r\nContent-Length: 38\r\n\r\n{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}".to_owned();
        }
        let whole = std::mem::take(session);
        self.sessions.remove(&id.parse().unwrap());
        self.blobs.insert(digest.to_owned(), whole);
        reply(201, "")
    }
}

fn range(length: usize, location: &str) -> String {
    format!("Location: {location}\r\nRange: 0-{}\r\n", length.saturating_sub(1))
}
