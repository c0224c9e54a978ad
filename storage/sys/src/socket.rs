//! Unix sockets that keep message borders (`SOCK_SEQPACKET`) and carry descriptors.
//!
//! A message arrives whole or not at all; descriptors in it arrive close-on-exec. Limits: [`MESSAGE_BYTES_MAX`],
//! [`DESCRIPTORS_MAX`]; a message over them is refused, never cut silently.
//!
//! A socket is named by its directory and a short name, and reached through a descriptor of the directory: the
//! kernel's limit of 107 bytes on a socket's path then does not limit where the directory may be.
//!
//! Not here: what the messages mean.
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Largest message, in bytes. A spec of some thousand environment variables fits; a socket's default send buffer
/// (208 KiB) holds one.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most descriptors in one message: standard input, output and error, and one to spare.
pub const DESCRIPTORS_MAX: usize = 4;

/// A listening socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds `name` inside `directory` (for its owner only, mode 0600) and listens. `name` must not exist.
    ///
    /// # Errors
    /// `AddrInUse` when the name exists; those of opening the directory and of `bind`.
    pub fn bind(directory: &Path, name: &str) -> io::Result<Self> {
        Self::bind_type(directory, name, SocketType::SEQPACKET)
    }

    /// The same for a stream socket, as OCI runtimes want for their console.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_stream(directory: &Path, name: &str) -> io::Result<Self> {
        Self::bind_type(directory, name, SocketType::STREAM)
    }

    fn bind_type(directory: &Path, name: &str, kind: SocketType) -> io::Result<Self> {
        let (held, address) = address(directory, name)?;
        let socket = new_socket(kind)?;
        // The mode of an unbound socket is the one its name is made with, so there is no moment with a wider one.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
        rustix::net::bind(&socket, &address)?;
        drop(held);
        rustix::net::listen(&socket, 64)?;
        Ok(Self(socket))
    }

    /// Takes one connection; waits for it unless there is one.
    ///
    /// # Errors
    /// Those of `accept4`; `EMFILE` leaves the connection in the queue.
    pub fn accept(&self) -> io::Result<Connection> {
        loop {
            match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(Connection(socket)),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A listening socket that came from another process.
impl From<OwnedFd> for Listener {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message as it arrived.
#[derive(Debug)]
pub struct Received {
    /// The bytes, 1..=[`MESSAGE_BYTES_MAX`] of them on a connection that keeps borders.
    pub bytes: Vec<u8>,
    /// The descriptors, at most [`DESCRIPTORS_MAX`], close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// `NotFound` when there is no such socket; `ConnectionRefused` when nobody listens any more.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(Errno::INVAL)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let (_held, address) = address(directory.unwrap_or(Path::new(".")), name)?;
        let socket = new_socket(SocketType::SEQPACKET)?;
        loop {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => return Ok(Self(socket)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// User id of the process at the other end, as it was when it connected.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(rustix::net::sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Sends one message with descriptors; the receiver gets duplicates.
    ///
    /// `wait` false answers `WouldBlock` instead of waiting for a slow reader.
    ///
    /// # Errors
    /// `InvalidInput` over the limits; `BrokenPipe` or `ConnectionReset` when the other end is gone.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>], wait: bool) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a message of {} bytes and {} descriptors is over the limits of {MESSAGE_BYTES_MAX} and {DESCRIPTORS_MAX}",
                    bytes.len(),
                    descriptors.len()
                ),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
        loop {
            match rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one message; `None` when the other end closed the connection.
    ///
    /// # Errors
    /// `InvalidData` for a message over the limits (its descriptors are closed); `ConnectionReset`.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut target = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, &mut target, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(list) = part {
                descriptors.extend(list);
            }
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a message over {MESSAGE_BYTES_MAX} bytes or {DESCRIPTORS_MAX} descriptors arrived"),
            ));
        }
        if message.bytes == 0 && descriptors.is_empty() {
            return Ok(None);
        }
        bytes.truncate(message.bytes);
        Ok(Some(Received { bytes, descriptors }))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The address of `name` in `directory`, valid while the returned descriptor of the directory is held.
fn address(directory: &Path, name: &str) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(directory, flags, Mode::empty())?;
    let path = format!("{}/{name}", crate::process::descriptor_path(&held));
    Ok((held, SocketAddrUnix::new(path)?))
}

fn new_socket(kind: SocketType) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::PermissionsExt;

    fn pair(directory: &Path) -> (Connection, Connection) {
        let listener = Listener::bind(directory, "s.sock").unwrap();
        let client = Connection::connect(&directory.join("s.sock")).unwrap();
        (client, listener.accept().unwrap())
    }

    #[test]
    fn messages_keep_their_borders_and_carry_open_files() {
        let directory = tempfile::tempdir().unwrap();
        let (client, server) = pair(directory.path());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        client.send(b"one", &[file.as_fd()], true).unwrap();
        client.send(b"two", &[], true).unwrap();
        let first = server.receive().unwrap().unwrap();
        assert_eq!(first.bytes, b"one");
        let mut text = String::new();
        File::from(first.descriptors.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(server.receive().unwrap().unwrap().bytes, b"two");
        drop(client);
        assert!(server.receive().unwrap().is_none());
    }

    #[test]
    fn messages_over_the_limits_are_refused_at_both_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (client, server) = pair(directory.path());
        assert!(client.send(&vec![0; MESSAGE_BYTES_MAX + 1], &[], true).is_err());
        assert!(client.send(b"", &[], true).is_err());
        let long = vec![7; MESSAGE_BYTES_MAX + 1];
        let mut control = SendAncillaryBuffer::default();
        rustix::net::sendmsg(&client.0, &[IoSlice::new(&long)], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(server.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        client.send(b"still usable", &[], true).unwrap();
        assert_eq!(server.receive().unwrap().unwrap().bytes, b"still usable");
    }

    #[test]
    fn a_socket_may_lie_deeper_than_the_kernels_path_limit() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let (client, server) = pair(&deep);
        assert_eq!(server.peer_uid().unwrap(), crate::process::effective_uid());
        client.send(b"x", &[], true).unwrap();
        assert_eq!(server.receive().unwrap().unwrap().bytes, b"x");
        assert_eq!(std::fs::metadata(deep.join("s.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
