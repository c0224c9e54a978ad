//! Files into and out of a container, as tar streams.
//!
//! The container's root is that of its process while it runs, volumes included, and its snapshot's mount otherwise. A thread
//! whose own root it is does all the work (`storage_sys::confine`), so nothing in it leads anywhere else, whatever changes
//! meanwhile.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use storage_content::ErrorKind;
use storage_model::Namespace;
use storage_sys::{confine, mount};

use super::Status;
use crate::{Engine, EngineError};

/// Why files were not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The path is not there, or cannot be read or written.
    #[error("cannot {what} {path} in container {id}")]
    Path {
        /// `read`, `write`.
        what: &'static str,
        /// The container.
        id: String,
        /// Path inside.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root cannot be had.
    #[error("cannot open the root of container {id}")]
    Root {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        let (Self::Path { source, .. } | Self::Root { source, .. }) = self;
        match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => {
                ErrorKind::InvalidArgument
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::FailedPrecondition
            }
            io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Internal,
        }
    }
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its last component; `/` for the root.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes of a file.
    pub size_bytes: u64,
    /// Type and permissions, as in `stat`.
    pub mode: u32,
}

/// A tar that is being made. Dropped early, its making ends.
#[derive(Debug)]
pub struct CopiedOut {
    /// What it is of.
    pub found: Found,
    tar: PipeReader,
    work: Option<JoinHandle<io::Result<()>>>,
    failed: (String, String),
}

impl CopiedOut {
    /// The next piece of the tar, at most as long as `buffer`; 0 at its end.
    ///
    /// # Errors
    /// [`CopyError::Path`] when the tree could not be read to its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CopyError> {
        let failed = |source| CopyError::Path {
            what: "read",
            id: self.failed.0.clone(),
            path: self.failed.1.clone(),
            source,
        };
        let count = self.tar.read(buffer).map_err(failed)?;
        if count == 0
            && let Some(work) = self.work.take()
        {
            work.join().unwrap_or_else(|_| Err(io::Error::other("the thread died"))).map_err(failed)?;
        }
        Ok(count)
    }
}

/// A container's root for as long as it is needed.
struct Root {
    fd: OwnedFd,
    /// Where it was mounted for us; a root of a process needs no mount.
    mounted: Option<PathBuf>,
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(path) = &self.mounted {
            // The directory goes with the state directory at the latest.
            let _ = mount::detach(path);
            let _ = fs::remove_dir(path);
        }
    }
}

impl Engine {
    /// A path of a container as a tar whose outermost entry is its name. With `follow`, a link that is the path itself is
    /// followed, inside.
    ///
    /// # Errors
    /// [`EngineError::Copy`], [`EngineError::NoContainer`].
    pub fn copy_out(
        &self,
        namespace: &Namespace,
        id: &str,
        path: &str,
        follow: bool,
    ) -> Result<CopiedOut, EngineError> {
        let root = self.root_of(namespace, id)?;
        let failed =
            |source| CopyError::Path { what: "read", id: id.to_owned(), path: path.to_owned(), source };
        let (tar, to) = io::pipe().map_err(failed)?;
        let (tell, told) = mpsc::channel();
        let wanted = inside(path);
        let work = thread::Builder::new().name("copy-out".to_owned()).spawn(move || {
            let found = confine::confine_thread(root.fd.as_fd()).and_then(|()| find(&wanted, follow));
            let whole = found.as_ref().ok().map(|(_, path)| path.clone());
            // Who asked is there until it has been told.
            let _ = tell.send(found.map(|(found, _)| found));
            whole.map_or(Ok(()), |path| pack(&path, to))
        });
        let work = work.map_err(failed)?;
        let found =
            told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread died"))).map_err(failed)?;
        Ok(CopiedOut { found, tar, work: Some(work), failed: (id.to_owned(), path.to_owned()) })
    }

    /// Unpacks `tar` into the directory `path` of a container; if it is no directory but its parent is one, the tar's
    /// outermost entry gets that name. Returns the bytes of files written.
    ///
    /// # Errors
    /// [`EngineError::Copy`]; what was written by then stays.
    pub fn copy_in(
        &self,
        namespace: &Namespace,
        id: &str,
        path: &str,
        keep_owner: bool,
        tar: impl Read + Send,
    ) -> Result<u64, EngineError> {
        let root = self.root_of(namespace, id)?;
        let failed =
            |source| CopyError::Path { what: "write", id: id.to_owned(), path: path.to_owned(), source };
        let wanted = inside(path);
        let must_be_directory = path.ends_with('/');
        let written = thread::scope(|scope| {
            let work = move || {
                confine::confine_thread(root.fd.as_fd())?;
                let place = Place::of(&wanted, must_be_directory)?;
                place.unpack(tar, keep_owner)
            };
            let work = thread::Builder::new().name("copy-in".to_owned()).spawn_scoped(scope, work)?;
            work.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
        });
        Ok(written.map_err(failed)?)
    }

    fn root_of(&self, namespace: &Namespace, id: &str) -> Result<Root, EngineError> {
        let state = self.container(namespace, id)?;
        let failed = |source| CopyError::Root { id: id.to_owned(), source };
        if let Status::Running { pid } = state.status {
            let fd = confine::open_root(Path::new(&format!("/proc/{pid}/root"))).map_err(failed)?;
            return Ok(Root { fd, mounted: None });
        }
        let record = state.record;
        if record.snapshot_key.is_empty() {
            return Err(failed(io::ErrorKind::Unsupported.into()).into());
        }
        let snapshotter = self.snapshotter(&record.snapshotter, self.space(namespace))?;
        let mounts: Vec<mount::Mount> = snapshotter
            .mounts(&record.snapshot_key.parse()?)?
            .into_iter()
            .map(|mount| mount::Mount { kind: mount.kind, source: mount.source, options: mount.options })
            .collect();
        let path =
            self.config().state.join("copy").join(format!("{namespace}-{id}-{:?}", thread::current().id()));
        fs::create_dir_all(&path).map_err(failed)?;
        mount::mount_all(&mounts, &path).map_err(|error| failed(io::Error::other(error)))?;
        let fd = confine::open_root(&path);
        // From here on its end takes the mount away.
        match fd {
            Ok(fd) => Ok(Root { fd, mounted: Some(path) }),
            Err(error) => {
                let _ = mount::detach(&path);
                Err(failed(error).into())
            }
        }
    }
}

/// A path as an absolute one of the root.
fn inside(path: &str) -> PathBuf {
    Path::new("/").join(path.trim_start_matches('/'))
}

/// What is at `path`, and where it really is when links are followed.
fn find(path: &Path, follow: bool) -> io::Result<(Found, PathBuf)> {
    let whole = if follow { fs::canonicalize(path)? } else { path.to_owned() };
    let metadata = fs::symlink_metadata(&whole)?;
    let name = path.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
    let found =
        Found { name, is_directory: metadata.is_dir(), size_bytes: metadata.len(), mode: metadata.mode() };
    Ok((found, whole))
}

fn pack(path: &Path, to: PipeWriter) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(256 * 1024, to));
    builder.follow_symlinks(false);
    let name = path.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
    if fs::symlink_metadata(path)?.is_dir() {
        builder.append_dir_all(name, path)?;
    } else {
        builder.append_path_with_name(path, name)?;
    }
    // Who no longer reads has seen enough.
    match builder.into_inner().and_then(|mut to| io::Write::flush(&mut to)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Where a tar is unpacked: a directory, and another name for its outermost entry.
struct Place {
    directory: PathBuf,
    name: Option<PathBuf>,
}

impl Place {
    fn of(path: &Path, must_be_directory: bool) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self { directory: path.to_owned(), name: None }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            found => {
                let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
                let parent_is_directory = fs::metadata(parent)?.is_dir();
                if !parent_is_directory || must_be_directory {
                    let kind =
                        if found.is_ok() { io::ErrorKind::NotADirectory } else { io::ErrorKind::NotFound };
                    return Err(kind.into());
                }
                Ok(Self { directory: parent.to_owned(), name: path.file_name().map(PathBuf::from) })
            }
        }
    }

    fn unpack(&self, tar: impl Read, keep_owner: bool) -> io::Result<u64> {
        let mut archive = tar::Archive::new(tar);
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_preserve_ownerships(keep_owner);
        archive.set_unpack_xattrs(false);
        let mut bytes = 0;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let target = self.target(&entry.path()?)?;
            let size = entry.size();
            if entry.header().entry_type().is_hard_link()
                && let Some(link) = entry.link_name()?
            {
                fs::hard_link(self.target(&link)?, target)?;
            } else {
                entry.unpack(target)?;
                bytes += size;
            }
        }
        Ok(bytes)
    }

    /// Path of an entry. `..` could lead no further than the root, but is nobody's intent.
    fn target(&self, path: &Path) -> io::Result<PathBuf> {
        use std::path::Component;
        let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
        let mut target = self.directory.clone();
        if let (Some(name), Some(_)) = (&self.name, parts.peek()) {
            target.push(name);
            parts.next();
        }
        for part in parts {
            match part {
                Component::Normal(name) => target.push(name),
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "a path in the tar leads elsewhere",
                    ));
                }
            }
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_goes_into_a_directory_or_under_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let target = |path: &Path, entry: &str| {
            Place::of(path, false).and_then(|place| place.target(Path::new(entry)))
        };
        let root = directory.path();
        assert_eq!(target(root, "a/b").unwrap(), root.join("a/b"));
        assert_eq!(target(&root.join("new"), "a/b").unwrap(), root.join("new/b"));
        assert_eq!(target(&root.join("new"), "./a").unwrap(), root.join("new"));
        assert!(target(root, "../a").is_err());
        assert!(target(&root.join("no/such"), "a").is_err());
        assert!(Place::of(&root.join("new"), true).is_err());
    }

    #[test]
    fn what_is_packed_comes_back_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::create_dir_all(source.join("deep")).unwrap();
        fs::write(source.join("deep/file"), "text").unwrap();
        std::os::unix::fs::symlink("/nowhere", source.join("link")).unwrap();
        let (mut tar, to) = io::pipe().unwrap();
        let work = thread::spawn(move || pack(&source, to));
        let mut bytes = Vec::new();
        tar.read_to_end(&mut bytes).unwrap();
        work.join().unwrap().unwrap();
        let place = Place::of(&directory.path().join("other"), false).unwrap();
        assert_eq!(place.unpack(&bytes[..], false).unwrap(), 4);
        assert_eq!(fs::read_to_string(directory.path().join("other/deep/file")).unwrap(), "text");
        assert_eq!(fs::read_link(directory.path().join("other/link")).unwrap(), Path::new("/nowhere"));
    }
}
