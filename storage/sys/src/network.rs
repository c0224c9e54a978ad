//! Network namespaces that are kept by a mount, and the interfaces that need no tool: loopback and bridges.
//!
//! A namespace lives as long as a process is in it, or a mount of its `/proc/PID/ns/net` exists. [`keep_new`] and
//! [`keep_of`] make such a mount on an empty file; `mount::detach` and unlinking the file end it.
//!
//! Not here: addresses, routes and firewall rules (CNI plug-ins make them).
use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

/// Makes a network namespace with its loopback interface up, and keeps it at `path`, a file that must not exist.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EEXIST`; nothing is left behind.
pub fn keep_new(path: &Path) -> io::Result<()> {
    std::thread::scope(|scope| {
        // A thread of its own: it alone leaves for the new namespace, and ends there.
        let made = std::thread::Builder::new().name("new-netns".to_owned()).spawn_scoped(scope, || {
            // SAFETY: the only danger of unshare is a descriptor table no longer shared between threads (CLONE_FILES);
            // CLONE_NEWNET changes the network namespace of this thread alone and leaves descriptors shared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
            set_up("lo")?;
            keep(Path::new("/proc/thread-self/ns/net"), path)
        })?;
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that made a network namespace died")))
    })
}

/// Keeps the network namespace of process `pid` at `path`, a file that must not exist.
///
/// # Errors
/// `ENOENT` when there is no such process, `EPERM` without CAP_SYS_ADMIN, `EEXIST`; nothing is left behind.
pub fn keep_of(pid: u32, path: &Path) -> io::Result<()> {
    keep(Path::new(&format!("/proc/{pid}/ns/net")), path)
}

/// Keeps the network namespace that is kept at `source` at `path` as well.
///
/// # Errors
/// As [`keep_of`].
pub fn keep_again(source: &Path, path: &Path) -> io::Result<()> {
    keep(source, path)
}

fn keep(namespace: &Path, path: &Path) -> io::Result<()> {
    drop(OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?);
    rustix::mount::mount_bind(namespace, path).map_err(|error| {
        // The file is ours, and of no use.
        let _ = fs::remove_file(path);
        io::Error::from(error)
    })
}

/// Whether `one` and `other` (paths of namespaces or of mounts of them) are the same network namespace.
///
/// # Errors
/// Those of opening the files.
pub fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let identity = |path: &Path| -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(File::open(path)?)?;
        Ok((stat.st_dev, stat.st_ino))
    };
    Ok(identity(one)? == identity(other)?)
}

/// Removes the bridge `name` of the calling thread's network namespace, with its addresses and routes.
///
/// # Errors
/// `ENXIO` or `ENODEV` when there is none, `EINVAL` for a name longer than 15 bytes, `EPERM` without CAP_NET_ADMIN.
pub fn remove_bridge(name: &str) -> io::Result<()> {
    let socket = control()?;
    let mut request = named(name)?;
    // A bridge that is up is busy.
    set_flags(&socket, &mut request, |flags| flags & !up_flag())?;
    // SAFETY: SIOCBRDELBR reads a NUL-terminated name of at most IFNAMSIZ bytes; `ifr_name` is that, checked by `named`,
    // and lives until the call returns. The kernel writes nothing. The socket is open, being borrowed.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), BRIDGE_DELETE as _, request.ifr_name.as_ptr()) };
    done(rc)
}

/// `SIOCBRDELBR` of linux/sockios.h.
const BRIDGE_DELETE: u32 = 0x89a1;

/// Sets the interface `name` of the calling thread's network namespace up.
fn set_up(name: &str) -> io::Result<()> {
    let socket = control()?;
    set_flags(&socket, &mut named(name)?, |flags| flags | up_flag())
}

fn up_flag() -> i16 {
    // IFF_UP is 1.
    1
}

fn control() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?)
}

/// A request about the interface `name`.
fn named(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(rustix::io::Errno::INVAL.into());
    }
    // SAFETY: `ifreq` is a C structure of integers, arrays and a union of such and of pointers, for all of which zero
    // bytes are a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn set_flags(socket: &OwnedFd, request: &mut libc::ifreq, change: fn(i16) -> i16) -> io::Result<()> {
    // SAFETY: SIOCGIFFLAGS reads `ifr_name`, NUL-terminated as `named` made it, and writes `ifru_flags`, both inside the
    // structure borrowed across the call.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut *request) })?;
    // SAFETY: the member of the union that the call above has written.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = change(flags);
    // SAFETY: SIOCSIFFLAGS reads the two fields just described and writes nothing of ours.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut *request) })
}

fn done(rc: libc::c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount;

    #[test]
    fn a_namespace_is_kept_until_it_is_let_go_and_is_not_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net");
        keep_new(&path).unwrap();
        assert!(!is_same(&path, Path::new("/proc/self/ns/net")).unwrap());
        let second = directory.path().join("again");
        keep_again(&path, &second).unwrap();
        assert!(is_same(&path, &second).unwrap());
        assert_eq!(keep_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        for path in [path, second] {
            mount::detach(&path).unwrap();
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn the_namespace_of_a_process_that_is_not_there_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net");
        assert!(keep_of(u32::MAX, &path).is_err() && !path.exists());
        keep_of(std::process::id(), &path).unwrap();
        assert!(is_same(&path, Path::new("/proc/self/ns/net")).unwrap());
        mount::detach(&path).unwrap();
    }

    #[test]
    fn a_bridge_that_is_not_there_and_a_name_that_is_none_are_errors() {
        assert!(remove_bridge("wl-no-such-br").is_err());
        for name in ["", "a-name-of-sixteen"] {
            assert_eq!(remove_bridge(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
