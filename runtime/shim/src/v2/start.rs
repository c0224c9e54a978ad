//! `start`: finds the shim of a container's group, or leaves one behind, and says where it listens.
//!
//! The socket's name is a function of daemon, namespace and group, so the second container of a pod finds the shim of
//! the first. It is bound here and handed to the shim as its standard input: when the address is printed, it listens.
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use storage_sys::terminal::set_nonblocking;

use super::args::Args;
use super::container::SpecFacts;
use super::{PROGRAM_NAME, SOCKETS_VARIABLE};

/// Where sockets of shims lie, unless [`SOCKETS_VARIABLE`] says otherwise: where stock shims have theirs.
const SOCKETS: &str = "/run/containerd/s";

/// Versions of the shim protocol: 3 for a daemon that says it knows it, 2 for all others.
const VERSION_VARIABLE: &str = "MAX_SHIM_VERSION";

/// Finds or leaves the shim, and returns what is to be printed.
///
/// # Errors
/// Whatever kept it from listening; no process is left then.
pub(crate) fn start(args: &Args) -> Result<String, Box<dyn std::error::Error>> {
    let bundle = args.bundle()?;
    let spec = SpecFacts::read(&bundle)?;
    let group = spec.group().unwrap_or(&args.id).to_owned();
    let path = socket_path(&args.address, &args.namespace, &group)?;
    let address = format!("unix://{}", path.display());
    if let Some(listener) = listen(&path)?
        && let Err(error) = leave(args, &bundle, &path, listener)
    {
        let _ = fs::remove_file(&path);
        return Err(error.into());
    }
    fs::write(bundle.join("address"), &address)?;
    let newest = std::env::var(VERSION_VARIABLE).ok().and_then(|text| text.parse::<u32>().ok());
    Ok(match newest {
        Some(newest) => {
            let version = newest.clamp(2, 3);
            serde_json::json!({ "version": version, "address": address, "protocol": "ttrpc" }).to_string()
        }
        None => address,
    })
}

fn socket_path(address: &str, namespace: &str, group: &str) -> io::Result<PathBuf> {
    let directory = std::env::var_os(SOCKETS_VARIABLE).filter(|value| !value.is_empty());
    let directory = directory.map_or_else(|| PathBuf::from(SOCKETS), PathBuf::from);
    fs::DirBuilder::new().recursive(true).mode(0o711).create(&directory)?;
    let name = Sha256::digest(format!("{address}/{namespace}/{group}").as_bytes());
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(directory.join(name))
}

/// Binds `path`; `None` when a shim listens there already. A socket that nobody listens on is replaced.
fn listen(path: &Path) -> io::Result<Option<UnixListener>> {
    loop {
        match UnixListener::bind(path) {
            Ok(listener) => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Ok(None);
                }
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Starts this program again as the shim that serves on `listener`.
fn leave(args: &Args, bundle: &Path, path: &Path, listener: UnixListener) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(PROGRAM_NAME);
    command.args(["-namespace", &args.namespace, "-id", &args.id, "-address", &args.address]);
    if let Some(program) = &args.publish_binary {
        command.arg("-publish-binary").arg(program);
    }
    command.arg("-bundle").arg(bundle).arg("-socket").arg(path);
    // One heap for all of its threads: they are many, small, and seldom busy.
    command.env("MALLOC_ARENA_MAX", "1");
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log(bundle)?).current_dir(bundle);
    let child = command.spawn()?;
    fs::write(bundle.join("shim.pid"), child.id().to_string())
}

/// Where the shim's own words go: the fifo that containerd reads, or a file.
fn log(bundle: &Path) -> io::Result<Stdio> {
    let path = bundle.join("log");
    let is_fifo = fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if is_fifo {
        // For both directions and without waiting: a daemon that went away must not hold the shim up.
        let file = File::options().read(true).write(true).open(&path)?;
        set_nonblocking(&file)?;
        return Ok(file.into());
    }
    Ok(File::options().create(true).append(true).open(bundle.join("shim.log"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_one_in_use_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let listener = listen(&path).unwrap();
        assert!(listener.is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen(&path).unwrap().is_none());
    }
}
