//! A server, and a client that sees every byte.

use std::net::SocketAddr;
use std::time::Duration;

use runtime_serve::{Backend, Options, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A running server; it stops when dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(backend: impl Backend) -> Self {
        Self::start_with(backend, Options::default()).await
    }

    pub async fn start_with(backend: impl Backend, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            serve(listener, backend, options, async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { address, stop: Some(stop), task }
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_ask(method, path, headers).await.expect("the connection broke")
    }

    /// `None` if the answer is not as long as it says.
    pub async fn try_ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = self.connect().await;
        stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // A reset after the answer is the server's way to leave a body unread.
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap();
        Answer::parse(method, &bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(method: &str, bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let answer = Self { status, head, body: bytes[end + 4..].to_vec() };
        let length: usize = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        let wanted = if method == "HEAD" || status == 304 { 0 } else { length };
        (answer.body.len() == wanted).then_some(answer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the error it is.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}
