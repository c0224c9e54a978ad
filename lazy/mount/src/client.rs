//! The client's end of the control socket, and the mounts themselves: the client makes and attaches them, because it is the
//! one who knows where they are to be seen; the server only ever holds `/dev/fuse`.
//!
//! ```text
//! open /dev/fuse -> mount, attached nowhere -> server: INIT, threads, descriptor kept -> read-ahead -> attach
//! ```
//! Whatever dies before the last arrow leaves nothing: the detached mount goes with the client, the connection with the
//! mount. A call whose server dies under it is made again to the next server, up to [`ATTEMPTS`] times.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use lazy_fetch::Trace;
use storage_sys::mount::{self, Attributes, Detached, MountError};
use storage_sys::process::{Watch, poll};
use storage_sys::socket::Connection;

use crate::error::{ClientError, Failure, FailureKind};
use crate::places::Places;
use crate::protocol::{Found, Request, Response};
use crate::request::MountRequest;
use crate::status::MountStatus;
use crate::{spawn, wire};

/// How often a call is made when the server dies under it. Each death costs some tens of milliseconds.
const ATTEMPTS: u32 = 20;

/// Longest time until an answer. The server answers at once, or has to open an index and a cache.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before a call is made again: half of what a new server needs to come up.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How far the kernel reads ahead on a mount, in KiB. With its default of 128 a sequential reader asks eight times as
/// often; more than 1024 gives no more, as one request has at most 256 pages (`crates.md` 1.1, measured).
const READ_AHEAD_KIB: u32 = 1024;

/// A handle on the lazy server of one root. Each call connects anew, so it survives the death of any process, its own
/// server's included. Calls may be made from any thread; those about one name must not overlap.
#[derive(Debug, Clone)]
pub struct Client {
    places: Places,
}

impl Client {
    /// Connects to the server of `places`, and starts its keeper if none listens.
    ///
    /// # Errors
    /// [`ClientError::Start`], [`ClientError::Io`].
    pub fn connect_or_start(places: &Places) -> Result<Self, ClientError> {
        let client = Self { places: places.clone() };
        client.ensure()?;
        Ok(client)
    }

    /// A handle on the server of `places` if one listens; starts nothing, now or later.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Io`].
    pub fn connect(places: &Places) -> Result<Self, ClientError> {
        let client = Self { places: places.clone() };
        match Connection::connect(&places.control()) {
            Ok(_) => Ok(client),
            Err(error) if is_gone(&error) => Err(client.not_running()),
            Err(source) => Err(client.io(source)),
        }
    }

    /// The places it was made with.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Mounts an image, or does nothing if it is mounted already. When it returns, the tree is there.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`FailureKind::Conflict`] when the name shows another index;
    /// [`ClientError::Mount`], [`ClientError::Prepare`], and those of any call. Nothing is mounted then.
    pub fn mount(&self, request: &MountRequest) -> Result<(), ClientError> {
        if !MountRequest::is_name(&request.name) {
            return Err(refused(
                FailureKind::BadRequest,
                format!("{:?} is no name of a mount", request.name),
            ));
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.mount_once(request) {
                Err(ClientError::Io { source, .. }) if is_gone(&source) && attempt < ATTEMPTS => self.pause(),
                // It ended between two calls, because nothing was left to serve.
                Err(ClientError::NotRunning { .. }) if attempt < ATTEMPTS => self.pause(),
                outcome => return outcome,
            }
        }
    }

    fn mount_once(&self, request: &MountRequest) -> Result<(), ClientError> {
        self.ensure()?;
        let mounted = is_mounted(&request.mountpoint);
        if let Some(found) = self.find(&request.name)? {
            if found.index != request.index {
                let words = format!("the mount {} shows {}", request.name, found.index.display());
                return Err(refused(FailureKind::Conflict, words));
            }
            if mounted {
                return Ok(());
            }
        } else if mounted {
            // Of a server that is no more: every access to it fails, and what is below is needed.
            mount::detach(&request.mountpoint).map_err(|source| self.mount_error(request, source))?;
        }
        let (device, detached) = self.kernel_mount(request)?;
        let (major, minor) = storage_sys::fuse::mount_device(&detached).map_err(|source| {
            ClientError::Prepare { name: request.name.clone(), path: request.mountpoint.clone(), source }
        })?;
        let message = Request::Mount { instance: instance(), minor, request: Box::new(request.clone()) };
        match self.call_once(&message, Some(&device))? {
            Response::Done => {}
            _ => return Err(self.unfitting()),
        }
        set_read_ahead(major, minor);
        mount::attach(detached, &request.mountpoint).map_err(|source| self.mount_error(request, source))
    }

    /// Opens a connection to the kernel and a mount on it that is in no directory yet.
    fn kernel_mount(&self, request: &MountRequest) -> Result<(File, Detached), ClientError> {
        let prepare = |path: &Path| {
            let (name, path) = (request.name.clone(), path.to_owned());
            move |source| ClientError::Prepare { name, path, source }
        };
        std::fs::create_dir_all(&request.mountpoint).map_err(prepare(&request.mountpoint))?;
        let path = Path::new("/dev/fuse");
        let device = File::options().read(true).write(true).open(path).map_err(prepare(path))?;
        let words = |key: &str, value: String| (key.to_owned(), Some(value));
        let settings = [
            words("fd", device.as_raw_fd().to_string()),
            words("rootmode", "40000".into()),
            words("user_id", "0".into()),
            words("group_id", "0".into()),
            words("max_read", storage_sys::fuse::READ_BYTES_MAX.to_string()),
            words("subtype", "windlass".into()),
            ("default_permissions".to_owned(), None),
            ("allow_other".to_owned(), None),
        ];
        let source = format!("windlass:{}", request.name);
        let mount = mount::file_system("fuse", &source, &settings, Attributes::READ_ONLY)
            .map_err(|source| self.mount_error(request, source))?;
        Ok((device, mount))
    }

    /// Takes a mount away. Whoever still uses it, a container's overlay for example, goes on being served.
    ///
    /// # Errors
    /// [`ClientError::Mount`] when it cannot be detached, and those of any call. A name that is not mounted is no error.
    pub fn unmount(&self, name: &str) -> Result<(), ClientError> {
        if !MountRequest::is_name(name) {
            return Err(refused(FailureKind::BadRequest, format!("{name:?} is no name of a mount")));
        }
        let mountpoint = match self.status(Some(name)) {
            Ok(list) => list.into_iter().next().map(|mount| mount.mountpoint),
            Err(ClientError::NotRunning { .. }) => None,
            Err(error) => return Err(error),
        };
        let mountpoint = mountpoint.unwrap_or_else(|| self.places.mountpoint(name));
        match mount::detach(&mountpoint) {
            Ok(()) | Err(MountError::NotMounted { .. }) => {}
            Err(MountError::Unmount { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ClientError::Mount { name: name.to_owned(), mountpoint, source }),
        }
        // Only an empty directory goes, and none that somebody else made use of meanwhile.
        let _ = std::fs::remove_dir(&mountpoint);
        match self.call(&Request::Unmount { name: name.to_owned() }) {
            Ok(Response::Done) | Err(ClientError::NotRunning { .. }) => Ok(()),
            Ok(_) => Err(self.unfitting()),
            Err(error) => Err(error),
        }
    }

    /// State of the mount called `name`, or of all; an unknown name gives an empty list.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when nothing is mounted lazily, and those of any call.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<MountStatus>, ClientError> {
        match self.call(&Request::Status { name: name.map(str::to_owned) })? {
            Response::Status(list) => Ok(list),
            _ => Err(self.unfitting()),
        }
    }

    /// Fetches everything of a mounted image in the background (`on`), or stops doing so.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`], and those of any call.
    pub fn fill(&self, name: &str, on: bool) -> Result<(), ClientError> {
        self.done(&Request::Fill { name: name.to_owned(), on })
    }

    /// Fetches along a trace, ahead of everything but readers who wait. Returns at once. Paths the image does not have are
    /// passed over.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`], and those of any call.
    pub fn prefetch(&self, name: &str, trace: &Trace) -> Result<(), ClientError> {
        self.done(&Request::Prefetch { name: name.to_owned(), trace: trace.clone() })
    }

    /// What was read of a mounted image by this server, in the order of the first time.
    ///
    /// # Errors
    /// [`FailureKind::NotFound`], and those of any call.
    pub fn trace(&self, name: &str) -> Result<Trace, ClientError> {
        match self.call(&Request::Trace { name: name.to_owned() })? {
            Response::Trace(trace) => Ok(trace),
            _ => Err(self.unfitting()),
        }
    }

    /// Counters of the server, in Prometheus' text format.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], and those of any call.
    pub fn metrics(&self) -> Result<String, ClientError> {
        match self.call(&Request::Metrics)? {
            Response::Text(text) => Ok(text),
            _ => Err(self.unfitting()),
        }
    }

    fn find(&self, name: &str) -> Result<Option<Found>, ClientError> {
        match self.call_once(&Request::Find { name: name.to_owned() }, None)? {
            Response::Found(found) => Ok(found),
            _ => Err(self.unfitting()),
        }
    }

    fn done(&self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Response::Done => Ok(()),
            _ => Err(self.unfitting()),
        }
    }

    /// Starts a keeper unless somebody listens.
    fn ensure(&self) -> Result<(), ClientError> {
        match Connection::connect(&self.places.control()) {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => spawn::keeper(&self.places, false),
            Err(source) => Err(self.io(source)),
        }
    }

    /// A call that may be made twice.
    fn call(&self, request: &Request) -> Result<Response, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.call_once(request, None) {
                Err(ClientError::Io { source, .. }) if is_gone(&source) && attempt < ATTEMPTS => self.pause(),
                outcome => return outcome,
            }
        }
    }

    fn call_once(&self, request: &Request, device: Option<&File>) -> Result<Response, ClientError> {
        let connection = match Connection::connect(&self.places.control()) {
            Ok(connection) => connection,
            Err(error) if is_gone(&error) => return Err(self.not_running()),
            Err(source) => return Err(self.io(source)),
        };
        let descriptors: Vec<_> = device.iter().map(|file| file.as_fd()).collect();
        wire::send(&connection, request, &descriptors).map_err(|source| self.io(source))?;
        self.wait(&connection)?;
        match wire::receive(&connection).map_err(|source| self.io(source))? {
            Some((Response::Failed(failure), _)) => Err(failure.into()),
            Some((response, _)) => Ok(response),
            None => Err(self.io(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn wait(&self, connection: &Connection) -> Result<(), ClientError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (socket, seconds) = (self.places.control(), ANSWER_TIMEOUT.as_secs());
                return Err(ClientError::Timeout { socket, seconds });
            }
            let mut watches = [Watch::readable(connection.as_fd())];
            if poll(&mut watches, Some(left)).map_err(|source| self.io(source))? > 0 {
                return Ok(());
            }
        }
    }

    fn pause(&self) {
        tracing::debug!(socket = %self.places.control().display(), "the lazy server died under a call");
        std::thread::sleep(RETRY_PAUSE);
    }

    fn mount_error(&self, request: &MountRequest, source: MountError) -> ClientError {
        ClientError::Mount { name: request.name.clone(), mountpoint: request.mountpoint.clone(), source }
    }

    fn not_running(&self) -> ClientError {
        ClientError::NotRunning { socket: self.places.control() }
    }

    fn unfitting(&self) -> ClientError {
        ClientError::Answer { socket: self.places.control() }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { socket: self.places.control(), source }
    }
}

fn refused(kind: FailureKind, message: String) -> ClientError {
    ClientError::Refused(Failure { kind, message })
}

/// Whether something is mounted at `target`. What cannot be told counts as mounted: detaching then says why.
fn is_mounted(target: &Path) -> bool {
    target.exists_without_asking() && mount::is_mounted(target).unwrap_or(true)
}

/// Existence of a directory whose own file system may be dead: its parent is asked, not it.
trait Exists {
    fn exists_without_asking(&self) -> bool;
}

impl Exists for Path {
    fn exists_without_asking(&self) -> bool {
        let (Some(parent), Some(name)) = (self.parent(), self.file_name()) else { return true };
        std::fs::read_dir(parent)
            .is_ok_and(|mut list| list.any(|entry| entry.is_ok_and(|entry| entry.file_name() == name)))
    }
}

/// Number of a connection, unlike that of any other. Collisions would need the same nanosecond in two processes of the
/// same number.
fn instance() -> u64 {
    let mut bytes = [0; 8];
    let random = File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    if random.is_err() {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        return (since.as_nanos() as u64) ^ u64::from(std::process::id()).rotate_left(40);
    }
    u64::from_ne_bytes(bytes)
}

/// Tells the kernel to read ahead as much as one request carries. It goes on with less where it may not be told.
fn set_read_ahead(major: u32, minor: u32) {
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, path, "no read-ahead is set");
    }
}

/// Whether an error means that the server is gone, or died with the call.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}
