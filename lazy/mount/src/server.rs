//! The server: serves every lazy mount of a root, and answers clients.
//!
//! ```text
//! start --Hello--> everything the keeper has --adopt each--> Ready --> serve <--> clients
//!                                                              nothing left: Leave, both end
//! ```
//! It may be killed at any instruction: what it knows is in the index files, the cache, and the keeper. A connection is in
//! the table before the keeper is told, and kept before its client is; the tree appears only after that. Starting asks no
//! registry. What cannot be opened any more answers `EIO`, so that nobody hangs, and does not disturb the others.
//!
//! Not here: requests of the kernel (`session`), bytes (`lazy-fetch`).

mod checkpoints;
mod link;
mod metrics;
mod mounts;
mod table;

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lazy_fetch::{Config, FetchError, Fetcher, RegistrySources};
use storage_sys::fuse::Device;
use storage_sys::process::{self, Watch, poll};
use storage_sys::socket::Connection;

use crate::error::{Failure, FailureKind};
use crate::places::Places;
use crate::protocol::{Request, Response};
use crate::wire;
use link::Link;
use table::{Serving, Table};

/// How long a server without mounts waits for another one to be made, before it and its keeper end.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of the stack of a thread that answers a client.
const STACK_BYTES: usize = 512 * 1024;

/// Why a server ends other than in peace.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    /// The keeper is not there, or not ours.
    #[error("cannot take over from the keeper")]
    Keeper(#[source] io::Error),
    /// Something about its own sockets.
    #[error("cannot wait for clients")]
    Wait(#[source] io::Error),
}

/// Runs the server of `places` until nothing is left to serve. The caller sends the log to standard error.
pub fn server_main(places: &Places) -> ExitCode {
    match run(places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            tracing::error!("the server of lazy mounts ends: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run(places: &Places) -> Result<(), ServerError> {
    let _ = process::set_name("lazy-server");
    crate::life::protect();
    let table = Arc::new(Table::default());
    let link::Inheritance { link, mounts } =
        link::inherit(places, table.clone()).map_err(ServerError::Keeper)?;
    let (alarm, bell) = io::pipe().map_err(ServerError::Wait)?;
    let sources = Arc::new(RegistrySources::new(vec![places.blobs()]));
    let server = Arc::new(Server {
        table,
        link,
        fetcher: open_cache(places, sources.clone()),
        sources,
        scratch: places.durable().join("scratch"),
        bell,
        clients: AtomicUsize::new(0),
    });
    for (held, device) in mounts {
        server.adopt(held, device);
    }
    server.link.ready();
    serve(&server, alarm)
}

fn open_cache(places: &Places, sources: Arc<RegistrySources>) -> Result<Fetcher, FetchError> {
    let cache = places.cache();
    let opened = refuse_own_mounts(&cache).and_then(|()| Fetcher::open(&cache, Config::default(), sources));
    opened.inspect_err(|error| {
        tracing::error!(%error, cache = %cache.display(), "lazy images cannot be read without their cache");
    })
}

/// A cache on a FUSE file system might wait for this very process.
fn refuse_own_mounts(cache: &std::path::Path) -> Result<(), FetchError> {
    let failed = |source: io::Error| FetchError::Cache {
        path: cache.to_owned(),
        doing: "used as a cache",
        source: Arc::new(source),
    };
    std::fs::create_dir_all(cache).map_err(failed)?;
    if storage_sys::fuse::is_on_fuse(cache).map_err(failed)? {
        let words = "it lies on a FUSE file system, which may wait for its own server";
        return Err(failed(io::Error::new(io::ErrorKind::Unsupported, words)));
    }
    Ok(())
}

/// What all threads share.
struct Server {
    table: Arc<Table>,
    link: Link,
    fetcher: Result<Fetcher, FetchError>,
    sources: Arc<RegistrySources>,
    scratch: std::path::PathBuf,
    /// Rung when a connection has ended.
    bell: PipeWriter,
    clients: AtomicUsize,
}

fn serve(server: &Arc<Server>, mut alarm: PipeReader) -> Result<(), ServerError> {
    loop {
        let idle = server.table.is_empty() && server.clients.load(Ordering::Acquire) == 0;
        let (client, keeper, rung, count) =
            wait(server, &alarm, idle.then_some(LINGER)).map_err(ServerError::Wait)?;
        if rung {
            // How often it was rung does not matter.
            let _ = alarm.read(&mut [0; 64]);
        }
        if keeper {
            server.link.check();
        }
        if client {
            server.welcome();
        }
        if idle && count == 0 && server.link.leave() {
            tracing::info!("no lazy mount is left");
            return Ok(());
        }
    }
}

/// Who has something to say: a client, the keeper, a connection that ended; and how many.
fn wait(
    server: &Server,
    alarm: &PipeReader,
    timeout: Option<Duration>,
) -> io::Result<(bool, bool, bool, usize)> {
    server.link.watch(|keeper| {
        let mut watches =
            vec![Watch::readable(server.link.control().as_fd()), Watch::readable(alarm.as_fd())];
        watches.extend(keeper.map(Watch::readable));
        let count = poll(&mut watches, timeout)?;
        let keeper = watches.get(2).is_some_and(Watch::is_ready);
        Ok((watches[0].is_ready(), keeper, watches[1].is_ready(), count))
    })
}

impl Server {
    /// Lets a client in; a thread of its own answers it.
    fn welcome(self: &Arc<Self>) {
        let connection = match self.link.control().accept() {
            Ok(connection) => connection,
            Err(error) => return tracing::warn!(%error, "a client could not be let in"),
        };
        self.clients.fetch_add(1, Ordering::AcqRel);
        let server = Arc::clone(self);
        let thread = std::thread::Builder::new().name("client".into()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            server.attend(&connection);
            server.clients.fetch_sub(1, Ordering::AcqRel);
            server.ring();
        });
        if let Err(error) = started {
            self.clients.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "a client could not be answered");
        }
    }

    fn ring(&self) {
        // A full pipe rings as well.
        let _ = (&self.bell).write(&[1]);
    }

    fn attend(self: &Arc<Self>, connection: &Connection) {
        loop {
            let (request, descriptors) = match wire::receive::<Request>(connection) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "a client said something unintelligible"),
            };
            let device = descriptors.into_iter().next().map(Device::from);
            let response = self.answer(request, device).unwrap_or_else(Response::Failed);
            if let Err(error) = wire::send(connection, &response, &[]) {
                return tracing::debug!(%error, "a client left before its answer");
            }
        }
    }

    fn answer(self: &Arc<Self>, request: Request, device: Option<Device>) -> Result<Response, Failure> {
        match request {
            Request::Find { name } => Ok(Response::Found(self.table.find(&name))),
            Request::Mount { instance, minor, request } => {
                let device = device.ok_or_else(|| bad_request("a mount comes with its descriptor"))?;
                self.mount(instance, minor, *request, device)?;
                Ok(Response::Done)
            }
            Request::Unmount { name } => {
                if let Some(held) = self.table.forget_name(&name) {
                    self.link.hold(&held, None);
                }
                Ok(Response::Done)
            }
            Request::Status { name } => Ok(Response::Status(self.status(name.as_deref()))),
            Request::Fill { name, on } => {
                let (instance, serving) = self.find(&name)?;
                if let Some(held) = self.table.change(instance, |held| held.request.fill = on) {
                    self.link.hold(&held, None);
                }
                if let Some(image) = &serving.image {
                    if on { image.fill() } else { image.fill_stop() }
                }
                Ok(Response::Done)
            }
            Request::Prefetch { name, trace } => {
                if let Some(image) = &self.find(&name)?.1.image {
                    image.prefetch(&mounts::wanted(image.index(), &trace));
                }
                Ok(Response::Done)
            }
            Request::Trace { name } => {
                let image = self.find(&name)?.1.image;
                Ok(Response::Trace(image.map(|image| image.trace()).unwrap_or_default()))
            }
            Request::Metrics => Ok(Response::Text(self.metrics())),
        }
    }

    fn find(&self, name: &str) -> Result<(u64, Serving), Failure> {
        self.table.serving(name).ok_or_else(|| Failure {
            kind: FailureKind::NotFound,
            message: format!("no lazy mount is called {name}"),
        })
    }
}

fn bad_request(words: &str) -> Failure {
    Failure { kind: FailureKind::BadRequest, message: words.to_owned() }
}
