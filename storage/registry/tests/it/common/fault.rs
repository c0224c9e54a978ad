//! A server that answers as its script says, down to the byte, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// First byte of the range asked for.
    pub fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What happens next on the connection.
#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// The connection ends as if the machine had crashed.
    Reset,
    /// The connection ends in order.
    Close,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply(pub Vec<Step>);

impl Reply {
    /// A well-formed answer; `Content-Length` is added.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut all = vec![("Content-Length", length.as_str())];
        all.extend_from_slice(headers);
        Self::head(status, &all).then(Step::Send(body.to_vec()))
    }

    /// Status line and headers alone.
    pub fn head(status: u16, headers: &[(&str, &str)]) -> Self {
        let mut text = format!("HTTP/1.1 {status} X\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        Self(vec![Step::Send(text.into_bytes())])
    }

    /// `body` from the byte that was asked for, as a good server answers it.
    pub fn ranged(seen: &Seen, body: &[u8]) -> Self {
        match seen.range() {
            None => Self::new(200, &[], body),
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
                Self::new(206, &[("Content-Range", &range)], &body[first..])
            }
        }
    }

    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Keeps the first `bytes` bytes of what would be sent, then ends with `step`.
    pub fn cut(self, bytes: usize, step: Step) -> Self {
        let mut left = bytes;
        let mut steps = Vec::new();
        for part in self.0 {
            if let Step::Send(mut data) = part {
                // Heads are not counted: the cut is in the body.
                if data.starts_with(b"HTTP/1.1") {
                    steps.push(Step::Send(data));
                    continue;
                }
                data.truncate(left);
                left -= data.len();
                steps.push(Step::Send(data));
            }
        }
        // A reset throws away what the other side has not read yet: give it a moment.
        steps.push(Step::Wait(Duration::from_millis(10)));
        steps.push(step);
        Self(steps)
    }
}

type Script = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// The server; it stops when dropped.
pub struct Fault {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fault {
    /// Starts a server. The script is given each request and how many came before it.
    pub async fn start(script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// The same with TLS, if there is an acceptor.
    pub async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, tls.clone(), Arc::clone(&script), Arc::clone(&log)));
            }
        });
        Self { address, seen, task }
    }

    /// `host:port` of the server.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests carried an `Authorization` header.
    pub fn authorized(&self) -> usize {
        self.requests().iter().filter(|seen| seen.header("authorization").is_some()).count()
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    match tls {
        None => {
            let (reader, writer) = stream.into_split();
            serve(reader, writer, &script, &log).await;
        }
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                let (reader, writer) = tokio::io::split(stream);
                serve(reader, writer, &script, &log).await;
            }
        }
    }
}

/// Ends a connection abruptly, where the stream can.
trait Abort {
    fn abort(&self) {}
}

impl Abort for tokio::net::tcp::OwnedWriteHalf {
    fn abort(&self) {
        let _ = self.as_ref().set_zero_linger();
    }
}

impl<T> Abort for tokio::io::WriteHalf<T> {}

async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Abort + Unpin>(
    mut reader: R,
    mut out: W,
    script: &Arc<Script>,
    log: &Arc<Mutex<Vec<Seen>>>,
) -> Option<()> {
    let mut kept = Vec::new();
    while let Some(seen) = request(&mut reader, &mut kept).await {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(seen.clone());
            log.len() - 1
        };
        for step in script(&seen, before).0 {
            match step {
                Step::Send(bytes) => out.write_all(&bytes).await.ok()?,
                Step::Wait(time) => {
                    out.flush().await.ok()?;
                    tokio::time::sleep(time).await;
                }
                Step::Reset => {
                    out.abort();
                    return None;
                }
                Step::Close => return None,
            }
        }
        out.flush().await.ok()?;
    }
    None
}

async fn request<R: AsyncRead + Unpin>(reader: &mut R, kept: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if reader.read_buf(kept).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&kept[..end]).into_owned();
    kept.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    while kept.len() < length {
        if reader.read_buf(kept).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&kept.drain(..length).collect::<Vec<u8>>()).into_owned();
    Some(Seen { method, path, headers, body })
}
