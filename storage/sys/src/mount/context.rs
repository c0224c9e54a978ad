//! A file system being configured: `fsopen`, `fsconfig` one by one, `fsmount`.
//!
//! Every refusal is told with the option it concerns and with the words the kernel left in the descriptor's log.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self as kernel, FsMountFlags, FsOpenFlags};

use super::error::{KernelLog, MountError};
use super::{Attributes, Detached};

/// Longest string `fsconfig` takes, without its NUL (`fs/fsopen.c` copies at most 256 bytes).
const STRING_BYTES_MAX: usize = 255;

/// Largest message of the log that is read, in bytes; the kernel's own are one line each.
const MESSAGE_BYTES_MAX: usize = 1024;

/// A file system context.
pub(super) struct Context {
    fd: OwnedFd,
    mount: String,
}

impl Context {
    /// Opens a context for the file system `kind`; `mount` is the mount in words, for errors.
    pub(super) fn open(kind: &str, mount: String) -> Result<Self, MountError> {
        match kernel::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { fd, mount }),
            Err(Errno::PERM) => Err(MountError::NotPermitted { mount, source: Errno::PERM.into() }),
            Err(Errno::NODEV) => {
                Err(MountError::NoFileSystem { mount, kind: kind.to_owned(), source: Errno::NODEV.into() })
            }
            Err(error) => {
                Err(MountError::Create { mount, kernel: KernelLog::default(), source: error.into() })
            }
        }
    }

    /// Sets `key` alone, or `key=value`.
    pub(super) fn set(&self, key: &str, value: Option<&str>) -> Result<(), MountError> {
        let result = match value {
            None => kernel::fsconfig_set_flag(&self.fd, key),
            Some(value) => kernel::fsconfig_set_string(&self.fd, key, value),
        };
        result.map_err(|error| {
            self.refused(value.map_or_else(|| key.to_owned(), |value| format!("{key}={value}")), error)
        })
    }

    /// Gives the directory `path` to `key`, by descriptor: no limit on its length, no character that needs escaping,
    /// and what is mounted is what was opened here.
    pub(super) fn set_directory(&self, key: &str, role: &'static str, path: &Path) -> Result<(), MountError> {
        let directory = self.open_directory(role, path)?;
        match kernel::fsconfig_set_fd(&self.fd, key, &directory) {
            Ok(()) => Ok(()),
            // Descriptors are taken since Linux 6.13: what was said about them is not the reason.
            Err(Errno::INVAL | Errno::BADF) => {
                self.log();
                self.set_directory_by_name(key, path, &directory)
            }
            Err(error) => Err(self.refused(format!("{key}={}", path.display()), error)),
        }
    }

    /// The same for Linux 6.7 to 6.12, by path; through `/proc/self/fd` where the path is too long or would be
    /// unescaped (overlayfs unescapes the upper and the work directory, not the lower ones).
    pub(super) fn set_directory_by_name(
        &self,
        key: &str,
        path: &Path,
        directory: &OwnedFd,
    ) -> Result<(), MountError> {
        let plain =
            path.as_os_str().len() <= STRING_BYTES_MAX && !path.as_os_str().as_bytes().contains(&b'\\');
        let result = if plain && path.is_absolute() {
            kernel::fsconfig_set_string(&self.fd, key, path)
        } else {
            kernel::fsconfig_set_string(&self.fd, key, format!("/proc/self/fd/{}", directory.as_raw_fd()))
        };
        result.map_err(|error| self.refused(format!("{key}={}", path.display()), error))
    }

    /// Opens a directory as a place only (`O_PATH`).
    pub(super) fn open_directory(&self, role: &'static str, path: &Path) -> Result<OwnedFd, MountError> {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(
            |error| MountError::Path {
                mount: self.mount.clone(),
                role,
                path: path.to_owned(),
                source: error.into(),
            },
        )
    }

    /// Makes the superblock and a mount of it that is nowhere yet.
    pub(super) fn mount(self, attributes: Attributes) -> Result<Detached, MountError> {
        let made = kernel::fsconfig_create(&self.fd)
            .and_then(|()| kernel::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes.as_flags()));
        match made {
            Ok(fd) => Ok(Detached { fd, what: self.mount }),
            Err(Errno::PERM) => {
                Err(MountError::NotPermitted { mount: self.mount, source: Errno::PERM.into() })
            }
            Err(error) => {
                let kernel = self.log();
                Err(MountError::Create { mount: self.mount, kernel, source: error.into() })
            }
        }
    }

    /// Takes what the kernel has logged so far out of the descriptor.
    fn log(&self) -> KernelLog {
        let mut messages = Vec::new();
        let mut buffer = [0_u8; MESSAGE_BYTES_MAX];
        // ENODATA ends the log; the kernel keeps at most 8 messages.
        while let Ok(length) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            // Each starts with its severity: "e ", "w " or "i ".
            let text = text.get(2..).unwrap_or_default().trim_end();
            if length == 0 || messages.len() >= 8 {
                break;
            }
            messages.push(text.to_owned());
        }
        KernelLog(messages)
    }

    fn refused(&self, option: String, error: Errno) -> MountError {
        MountError::Option {
            mount: self.mount.clone(),
            option,
            kernel: self.log(),
            source: io::Error::from(error),
        }
    }
}
