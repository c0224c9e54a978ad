//! Why a mount failed, in words that name the mount, the step and the kernel's own reason.

use std::io;
use std::path::PathBuf;

/// Why the mount table could not be changed or read.
///
/// `mount` is the mount in words (`overlay of 3 layers on upper /x`); `kernel` is what the kernel wrote to the
/// descriptor's message log, or nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The process may not mount at all.
    #[error("mounting {mount} is not permitted: it needs CAP_SYS_ADMIN (run as root)")]
    NotPermitted {
        /// The mount in words.
        mount: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The kernel has no such file system.
    #[error("cannot mount {mount}: this kernel has no file system {kind:?} (is its module loaded?)")]
    NoFileSystem {
        /// The mount in words.
        mount: String,
        /// The file system asked for.
        kind: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A directory or file that the mount needs cannot be opened.
    #[error("cannot mount {mount}: its {role} {path:?} cannot be opened")]
    Path {
        /// The mount in words.
        mount: String,
        /// What the path is to the mount: `lower layer`, `upper directory`, `target`, ...
        role: &'static str,
        /// The path.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The kernel refused one option.
    #[error("cannot mount {mount}: the kernel refused the option {option:?}{kernel}")]
    Option {
        /// The mount in words.
        mount: String,
        /// The option, as `key` or `key=value`.
        option: String,
        /// The kernel's words.
        kernel: KernelLog,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// Every option was taken, the whole was refused.
    #[error("cannot mount {mount}: the kernel refused it{kernel}")]
    Create {
        /// The mount in words.
        mount: String,
        /// The kernel's words.
        kernel: KernelLog,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The mount was made and could not be put into place.
    #[error("cannot attach {mount} at {target:?}")]
    Attach {
        /// The mount in words.
        mount: String,
        /// Where it was to be.
        target: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// Attributes (read-only, nosuid, ...) were refused.
    #[error("cannot make {mount} {attributes}: the kernel refused (mount_setattr needs Linux 5.12)")]
    Attributes {
        /// The mount in words.
        mount: String,
        /// The attributes asked for.
        attributes: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// An option that cannot be translated, before any call.
    #[error("cannot mount {mount}: option {option:?} {expected}")]
    BadOption {
        /// The mount in words.
        mount: String,
        /// The option.
        option: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// More layers than overlayfs stacks, or too few to be an overlay.
    #[error("cannot mount an overlay of {count} lower layers: between {min} and {max} are possible")]
    LayerCount {
        /// Layers asked for.
        count: usize,
        /// Fewest that the kernel takes.
        min: usize,
        /// Most that the kernel takes.
        max: usize,
    },
    /// An old kernel takes all options in one page, and these do not fit.
    #[error(
        "cannot mount {mount}: its options need {size_bytes} bytes and this kernel takes {max_bytes} \
         (Linux 6.7 takes layers one by one; a shorter root path helps too)"
    )]
    OptionsTooLong {
        /// The mount in words.
        mount: String,
        /// Length of the options, in bytes.
        size_bytes: usize,
        /// Most the kernel takes, in bytes.
        max_bytes: usize,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted at {target:?}")]
    NotMounted {
        /// Where.
        target: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// Something still uses the mount.
    #[error(
        "the mount at {target:?} is in use: end the processes that have files open or run below it, or detach it"
    )]
    Busy {
        /// Where.
        target: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// Unmounting failed for another reason.
    #[error("cannot unmount {target:?}")]
    Unmount {
        /// Where.
        target: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// Propagation could not be changed.
    #[error("cannot make the mount at {target:?} {propagation}")]
    Propagation {
        /// Where.
        target: PathBuf,
        /// What it was to become.
        propagation: &'static str,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The kernel's table of mounts cannot be read.
    #[error("cannot read the table of mounts from {path:?}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A line of the table of mounts is not as documented in `proc_pid_mountinfo(5)`.
    #[error("line {line} of the table of mounts has no valid {field}")]
    TableLine {
        /// Line number, from 1.
        line: usize,
        /// The field that is missing or wrong.
        field: &'static str,
    },
}

impl MountError {
    /// Kind of the errno behind this error; [`io::ErrorKind::InvalidInput`] where no call was made.
    pub fn io_kind(&self) -> io::ErrorKind {
        std::error::Error::source(self)
            .and_then(|source| source.downcast_ref::<io::Error>())
            .map_or(io::ErrorKind::InvalidInput, io::Error::kind)
    }
}

/// What the kernel wrote to a file-system context's message log; prints as `: words` or as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelLog(pub(super) Vec<String>);

impl KernelLog {
    /// The messages, oldest first, without their severity.
    pub fn messages(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for KernelLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, message) in self.0.iter().enumerate() {
            write!(f, "{} {message}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}
