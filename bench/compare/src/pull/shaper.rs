//! Makes loopback look like a network: a TCP proxy with a round trip, a shared bandwidth and slow start.
//!
//! Of each direction: a piece that was read occupies the link for `bytes / rate` (all connections share it) and is
//! delivered half a round trip after it left the link. A connection pays one more round trip for its handshake. From
//! the server, a congestion window of ten segments grows by what is acknowledged, hence doubles every round trip, and
//! begins again after an idle pause. There is no loss, so this is a network at its best: it flatters nobody, since
//! every peer goes through the same one.
//!
//! Not here: TLS, packet loss, jitter.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Ten segments of 1448 bytes: the window that Linux opens with (RFC 6928).
const WINDOW_BYTES_FIRST: u64 = 14_480;
/// Window past which growth ends: Linux's default ceiling of a receive buffer (`tcp_rmem`, 6 MiB).
const WINDOW_BYTES_MAX: u64 = 6 << 20;
/// Pause after which the window begins again (RFC 5681 section 4.1: one retransmission time-out, here generous).
const IDLE: Duration = Duration::from_millis(300);
/// Most read at once, in bytes: small against the window, large against the cost of a system call.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait between the reading and the writing thread of one direction; 512 of them hold a window and more.
const QUEUE_PIECES: usize = 512;
/// How far ahead of the link's clock a reader may run before it sleeps: below it, sleeping costs more than it saves.
const AHEAD: Duration = Duration::from_millis(2);

/// A network: what the proxy imitates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Network {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Round trip in milliseconds.
    pub(crate) rtt_ms: u64,
    /// Bandwidth in megabits a second; 0 is as fast as the machine goes.
    pub(crate) mbit: u64,
}

/// The networks that can be asked for by name.
pub(crate) const NETWORKS: [Network; 4] = [
    Network { name: "loopback", rtt_ms: 0, mbit: 0 },
    Network { name: "lan", rtt_ms: 5, mbit: 10_000 },
    Network { name: "cloud", rtt_ms: 20, mbit: 1000 },
    Network { name: "wan", rtt_ms: 50, mbit: 100 },
];

/// A running proxy; its threads live as long as the program.
#[derive(Debug)]
pub(crate) struct Shaper {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Shaper {
    /// Listens on a free loopback port and forwards to `target`.
    pub(crate) fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (state, target) = (shared.clone(), target.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                state.connections.fetch_add(1, Ordering::Relaxed);
                let (state, target) = (state.clone(), target.clone());
                thread::spawn(move || forward(&client, &target, &state));
            }
        });
        Ok(Self { address, shared })
    }

    /// `host:port` that clients use.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Imitates another network from now on, and counts from zero.
    pub(crate) fn imitate(&self, network: Network) {
        self.shared.rtt_us.store(network.rtt_ms * 1000, Ordering::Relaxed);
        self.shared.bytes_per_second.store(network.mbit * 125_000, Ordering::Relaxed);
        self.shared.downloaded.store(0, Ordering::Relaxed);
        self.shared.requests.store(0, Ordering::Relaxed);
        self.shared.connections.store(0, Ordering::Relaxed);
    }

    /// What went through since the last [`Shaper::imitate`].
    pub(crate) fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { downloaded, requests, connections, .. } = &*self.shared;
        Counted { bytes: read(downloaded), requests: read(requests), connections: read(connections) }
    }
}

/// What went through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Bytes to clients.
    pub(crate) bytes: u64,
    /// Requests of HTTP/1.1: pieces that begin like one. Nobody here sends a second before the answer to the first.
    pub(crate) requests: u64,
    /// Connections that clients opened.
    pub(crate) connections: u64,
}

#[derive(Debug, Default)]
struct Shared {
    rtt_us: AtomicU64,
    bytes_per_second: AtomicU64,
    downloaded: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    up: Link,
    down: Link,
}

impl Shared {
    fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }
}

/// One direction of the shared line: the moment it will be free.
#[derive(Debug, Default)]
struct Link {
    free: Mutex<Option<Instant>>,
}

impl Link {
    /// Occupies the line for `bytes`, after those who came before; returns when the last of them has left.
    fn occupy(&self, bytes: usize, bytes_per_second: u64) -> Instant {
        let now = Instant::now();
        if bytes_per_second == 0 {
            return now;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free.map_or(now, |free| free.max(now));
        let left = start + Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        *free = Some(left);
        left
    }
}

/// The sender's congestion window.
struct Window {
    bytes: u64,
    flying: VecDeque<(Instant, u64)>,
    flying_bytes: u64,
    last: Instant,
}

impl Window {
    fn new() -> Self {
        Self { bytes: WINDOW_BYTES_FIRST, flying: VecDeque::new(), flying_bytes: 0, last: Instant::now() }
    }

    /// Waits until at least a segment may be sent and returns how much.
    fn room(&mut self) -> u64 {
        loop {
            let now = Instant::now();
            while let Some((acknowledged, bytes)) = self.flying.front().copied().filter(|(at, _)| *at <= now)
            {
                debug_assert!(acknowledged <= now);
                self.flying.pop_front();
                self.flying_bytes -= bytes;
                self.bytes = (self.bytes + bytes).min(WINDOW_BYTES_MAX);
            }
            match self.flying.front() {
                Some((at, _)) if self.flying_bytes + 1448 > self.bytes => sleep_until(*at),
                _ => return self.bytes - self.flying_bytes,
            }
        }
    }

    fn sent(&mut self, bytes: u64, acknowledged: Instant) {
        self.flying.push_back((acknowledged, bytes));
        self.flying_bytes += bytes;
    }

    fn note_pause(&mut self) {
        if self.last.elapsed() > IDLE {
            self.bytes = WINDOW_BYTES_FIRST;
        }
        self.last = Instant::now();
    }
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Joins a client with the target until either ends; an error ends this connection, which is all it can do.
fn forward(client: &TcpStream, target: &str, shared: &Arc<Shared>) {
    let born = Instant::now();
    let Ok(server) = TcpStream::connect(target) else { return };
    let copies = (client.try_clone(), server.try_clone());
    let (Ok(client_side), Ok(server_side)) = copies else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    thread::scope(|scope| {
        scope.spawn(|| pump(client, server_side, shared, &shared.up, Some(born)));
        pump(&server, client_side, shared, &shared.down, None);
    });
}

/// Moves one direction; `born` is given for the client's, which pays the handshake.
fn pump(mut from: &TcpStream, to: TcpStream, shared: &Shared, link: &Link, born: Option<Instant>) {
    let (queue, delivered) = sync_channel(QUEUE_PIECES);
    thread::scope(|scope| {
        scope.spawn(|| deliver(to, delivered));
        let _ = read_all(&mut from, shared, link, born, &queue);
        let _ = from.shutdown(Shutdown::Read);
        drop(queue);
    });
}

fn read_all(
    from: &mut &TcpStream,
    shared: &Shared,
    link: &Link,
    born: Option<Instant>,
    queue: &SyncSender<(Instant, Vec<u8>)>,
) -> Option<()> {
    let mut window = Window::new();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let rtt = shared.rtt();
        let windowed = born.is_none() && !rtt.is_zero();
        let room = if windowed { window.room().min(PIECE_BYTES as u64) as usize } else { PIECE_BYTES };
        let count = from.read(&mut buffer[..room]).ok().filter(|count| *count > 0)?;
        window.note_pause();
        let left = link.occupy(count, shared.bytes_per_second.load(Ordering::Relaxed));
        let mut arrives = left + rtt / 2;
        match born {
            Some(born) => {
                arrives = arrives.max(born + rtt + rtt / 2);
                let is_request =
                    [&b"GET "[..], b"HEAD ", b"POST "].iter().any(|word| buffer[..count].starts_with(word));
                shared.requests.fetch_add(u64::from(is_request), Ordering::Relaxed);
            }
            None => {
                shared.downloaded.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        if windowed {
            window.sent(count as u64, arrives + rtt / 2);
        }
        queue.send((arrives, buffer[..count].to_vec())).ok()?;
        sleep_until(left.checked_sub(AHEAD).unwrap_or(left));
    }
}

fn deliver(mut to: TcpStream, pieces: Receiver<(Instant, Vec<u8>)>) {
    for (moment, bytes) in pieces {
        sleep_until(moment);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every connection with this many bytes.
    fn server(bytes: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let mut request = [0; 1];
                let _ = client.read_exact(&mut request);
                let _ = client.write_all(&vec![7; bytes]);
            }
        });
        address
    }

    fn fetch(address: &str) -> (usize, Duration) {
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"x").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        (answer.len(), started.elapsed())
    }

    #[test]
    fn a_small_answer_takes_two_round_trips_and_all_bytes_arrive() {
        let shaper = Shaper::start(&server(5000)).unwrap();
        shaper.imitate(Network { name: "test", rtt_ms: 40, mbit: 1000 });
        let (bytes, elapsed) = fetch(&shaper.address());
        assert_eq!(bytes, 5000);
        assert!(elapsed >= Duration::from_millis(80), "{elapsed:?}");
        assert_eq!(shaper.counted(), Counted { bytes: 5000, requests: 0, connections: 1 });
    }

    #[test]
    fn the_bandwidth_is_shared_and_never_exceeded() {
        let shaper = Shaper::start(&server(1_000_000)).unwrap();
        shaper.imitate(Network { name: "test", rtt_ms: 0, mbit: 80 });
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(fetch(&shaper.address()).0, 1_000_000));
            }
        });
        // Two megabytes at ten megabytes a second.
        assert!(started.elapsed() >= Duration::from_millis(195), "{:?}", started.elapsed());
    }
}
