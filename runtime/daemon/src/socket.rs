//! The socket: bound where nobody else can reach it, then moved into place.
//!
//! `lock <address>.lock -> nobody answers? -> bind in a new 0700 directory -> mode 0600 -> rename over what is stale`.
//! There is no moment at which the socket can be reached with other rights, or at which a running daemon's socket is
//! taken away: the lock is held from before the first look until the process ends.
//!
//! Only path sockets: an abstract one (`@name`) can be reached from every container that shares the network of the host
//! (CVE-2020-15257).
//!
//! Not here: accepting connections (`accept`), the lock of the root directory (`storage-content`).

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket, in bytes: `sun_path` of `sockaddr_un` is 108 with its final zero (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// Why the socket could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// An abstract or relative address.
    #[error(
        "{0:?} is no place for the socket: give an absolute path; abstract sockets (@name) can be reached from containers"
    )]
    NotAPath(PathBuf),
    /// Longer than the kernel takes.
    #[error("the socket's path {path} is {length} bytes long: the kernel takes at most {max}", max = PATH_BYTES_MAX)]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Others could replace the socket.
    #[error(
        "{directory} has owner {owner} and mode {mode:04o}: others could replace the socket in it; use a directory that only you can write to"
    )]
    OpenDirectory {
        /// The socket's directory.
        directory: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Another daemon has it.
    #[error("another daemon (process {holder}) has the socket {path}: stop it, or choose another address")]
    Held {
        /// The path.
        path: PathBuf,
        /// Process id of the holder, as it wrote it.
        holder: String,
    },
    /// Something else answers there.
    #[error("another program answers on {0}: stop it, or choose another address")]
    Answered(PathBuf),
    /// Something that is no socket is there.
    #[error("{0} exists and is not a socket: it is left alone; choose another address")]
    NotASocket(PathBuf),
    /// A file operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound socket. Dropping it takes the path away, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Device and inode of the path, to know it again.
    identity: (u64, u64),
    /// Held open: the lock ends with the descriptor.
    _lock: File,
}

/// Binds `path` and listens; its directory is made (mode 0700) when it is missing.
///
/// # Errors
/// [`SocketError`]: nothing was replaced then.
pub(crate) fn bind(path: &Path) -> Result<(Socket, UnixListener), SocketError> {
    check_path(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    check_directory(directory)?;
    let lock = lock(path)?;
    check_stale(path)?;
    let (listener, identity) = bind_privately(directory, path)?;
    Ok((Socket { path: path.to_owned(), identity, _lock: lock }, listener))
}

fn check_path(path: &Path) -> Result<(), SocketError> {
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(SocketError::NotAPath(path.to_owned()));
    }
    let length = path.as_os_str().len();
    if length > PATH_BYTES_MAX {
        return Err(SocketError::TooLong { path: path.to_owned(), length });
    }
    Ok(())
}

/// Makes the directory, or checks that nobody else could put another socket into it.
fn check_directory(directory: &Path) -> Result<(), SocketError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| failed("create the directory", directory, source))?;
    let metadata = fs::metadata(directory).map_err(|source| failed("look at", directory, source))?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let others_write = mode & 0o022 != 0;
    let sticky = mode & 0o1000 != 0;
    let ours = own_uid().map_err(|source| failed("look at", Path::new("/proc/self"), source))?;
    if (owner != 0 && owner != ours) || (others_write && !sticky) {
        return Err(SocketError::OpenDirectory { directory: directory.to_owned(), owner, mode });
    }
    Ok(())
}

/// The user this process runs as.
pub(crate) fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Takes the lock beside the socket, and writes our process id into it.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|source| failed("open", &name, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The name is for people: a lock that cannot be read is held all the same.
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "unknown".to_owned();
            }
            return Err(SocketError::Held { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &name, source)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|source| failed("write", &name, source))?;
    Ok(file)
}

/// Whether what is at `path`, if anything, may be replaced. The lock is ours, so no daemon of this program answers.
fn check_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("look at", path, source)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Answered(path.to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Err(source) => Err(failed("try", path, source)),
    }
}

/// Binds inside a directory that only we can enter, then renames the socket to `path`.
fn bind_privately(directory: &Path, path: &Path) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let nursery = directory.join(format!(".windlass-{}", std::process::id()));
    DirBuilder::new()
        .mode(0o700)
        .create(&nursery)
        .or_else(|error| match error.kind() {
            // Left by a process that had our id and died between two lines: the directory is private all the same.
            io::ErrorKind::AlreadyExists => fs::set_permissions(&nursery, Permissions::from_mode(0o700))
                .and_then(|()| remove_if_there(&nursery.join("s"))),
            _ => Err(error),
        })
        .map_err(|source| failed("create the directory", &nursery, source))?;
    let bound = bind_and_move(&nursery, path);
    // A directory that stays is empty and private; it is taken over by the next daemon that has our id.
    let _ = fs::remove_dir(&nursery);
    bound
}

fn bind_and_move(nursery: &Path, path: &Path) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let newborn = nursery.join("s");
    // Through the descriptor, so that the longer name of the nursery costs nothing of `sun_path`.
    let handle = File::open(nursery).map_err(|source| failed("open", nursery, source))?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/s", handle.as_raw_fd()));
    let listener = UnixListener::bind(short).map_err(|source| failed("bind a socket in", nursery, source))?;
    let ready = || {
        fs::set_permissions(&newborn, Permissions::from_mode(0o600))?;
        fs::rename(&newborn, path)?;
        let metadata = fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    };
    ready().map(|identity| (listener, identity)).map_err(|source| {
        let _ = fs::remove_file(&newborn);
        failed("place the socket at", path, source)
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> SocketError {
    SocketError::Io { what, path: path.to_owned(), source }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if still_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn vuln_d1_an_abstract_or_relative_address_is_refused() {
        for address in ["@windlass", "\0windlass", "windlass.sock", "", "/"] {
            assert!(matches!(bind(Path::new(address)), Err(SocketError::NotAPath(_))), "{address:?}");
        }
    }

    #[test]
    fn vuln_d2_a_new_directory_is_private_and_one_open_to_others_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/s.sock");
        let (_socket, _listener) = bind(&path).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
        let open = temp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(bind(&open.join("s.sock")), Err(SocketError::OpenDirectory { mode: 0o777, .. })));
        fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
        assert!(bind(&open.join("s.sock")).is_ok());
    }

    #[test]
    fn vuln_d3_a_second_daemon_never_takes_the_socket_of_the_first() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.sock");
        let (_socket, _listener) = bind(&path).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let own = std::process::id().to_string();
        assert!(matches!(bind(&path), Err(SocketError::Held { holder, .. }) if holder == own));
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_socket_of_another_program_that_answers_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.sock");
        let _other = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::Answered(_))));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (socket, _listener) = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists(), "a daemon that ends takes its socket away");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn the_longest_path_works_and_one_byte_more_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let room = PATH_BYTES_MAX - temp.path().as_os_str().len() - 1;
        let longest = temp.path().join("s".repeat(room));
        let (_socket, _listener) = bind(&longest).unwrap();
        assert!(UnixStream::connect(&longest).is_ok());
        let longer = temp.path().join("s".repeat(room + 1));
        assert!(matches!(bind(&longer), Err(SocketError::TooLong { length: 108, .. })));
    }

    #[test]
    fn nothing_is_left_beside_the_socket_but_its_lock() {
        let temp = tempfile::tempdir().unwrap();
        let (_socket, _listener) = bind(&temp.path().join("s.sock")).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["s.sock", "s.sock.lock"]);
    }
}
