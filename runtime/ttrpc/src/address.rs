//! From an address to a connected or bound unix socket, however deep its directory lies.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use storage_sys::process::descriptor_path;

/// The path in an address as shims print it: `unix:///run/...`, or the path alone.
pub fn socket_of(address: &str) -> &Path {
    Path::new(address.trim().strip_prefix("unix://").unwrap_or(address.trim()))
}

/// Calls `then` with a short name of `path`, through a descriptor of its directory: the kernel takes no more than 107
/// bytes of a socket's path.
fn through_directory<T>(path: &Path, then: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let held = File::open(parent)?;
    let short: PathBuf = Path::new(&descriptor_path(held.as_fd())).join(name);
    then(&short)
}

/// Connects to the socket at `path`.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    through_directory(path, |short| UnixStream::connect(short))
}

/// Binds a socket at `path`, which must not exist.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    through_directory(path, |short| UnixListener::bind(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_url_or_a_path() {
        assert_eq!(socket_of("unix:///run/s/1\n"), Path::new("/run/s/1"));
        assert_eq!(socket_of("/run/s/1"), Path::new("/run/s/1"));
    }

    #[test]
    fn a_socket_may_lie_deeper_than_the_kernels_limit() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s");
        let _listener = bind(&path).unwrap();
        connect(&path).unwrap();
    }
}
