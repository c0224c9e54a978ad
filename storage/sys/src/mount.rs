//! Mounts: overlays, binds and plain file systems, made with the new mount API and put where they belong.
//!
//! A mount is first made ([`overlay`], [`bind`], ...), a [`Detached`] that exists only as a descriptor and vanishes
//! with it, then attached: no half-configured mount is ever visible. Directories are handed to the kernel as
//! descriptors, so what was checked is what is mounted. [`mount_all`] does the same for mounts written as containerd
//! writes them.
//!
//! Nothing is unmounted by dropping a value once it is attached. Not here: which directories make up a snapshot
//! (`snapshotters`), mount namespaces (`process`).

mod context;
mod error;
mod options;
mod overlay;
mod shape;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    self as kernel, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

pub use error::{KernelLog, MountError};
pub use options::join_layers;
pub use overlay::{LAYERS_MAX, OverlayOptions, mount_overlay, overlay};
pub use shape::{Shape, shape};
pub use table::{MountPoint, mounts_under, parse_mountinfo};

/// A mount as containerd writes it: what its clients receive and what [`mount_all`] understands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// `bind`, `overlay` or the name of a file system.
    pub kind: String,
    /// What is mounted: a path for `bind`, a device or a word for file systems.
    pub source: String,
    /// Options as `mount(8)` takes them, one each: `ro`, `rbind`, `lowerdir=/a:/b`, `size=64m`.
    pub options: Vec<String>,
}

/// Attributes of one mount. All off is the kernel's default: writable, set-user-ID, devices and programs honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Nothing may be written through this mount.
    pub read_only: bool,
    /// Set-user-ID bits and file capabilities are ignored.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Programs cannot be executed.
    pub no_exec: bool,
    /// Access times are not kept.
    pub no_atime: bool,
}

impl Attributes {
    /// Read-only and nothing else.
    pub const READ_ONLY: Self =
        Self { read_only: true, no_suid: false, no_dev: false, no_exec: false, no_atime: false };

    /// For directories that hold foreign files as data: nothing in them is ever run, opened as a device or honoured
    /// as set-user-ID through this mount. An overlay on top of it is not restricted by this.
    pub const DATA_ONLY: Self =
        Self { read_only: false, no_suid: true, no_dev: true, no_exec: true, no_atime: false };

    fn as_flags(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.no_suid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_dev);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOATIME, self.no_atime);
        flags
    }

    fn as_classic_flags(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, self.no_suid);
        flags.set(MountFlags::NODEV, self.no_dev);
        flags.set(MountFlags::NOEXEC, self.no_exec);
        flags.set(MountFlags::NOATIME, self.no_atime);
        flags
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.read_only, "read-only"),
            (self.no_suid, "nosuid"),
            (self.no_dev, "nodev"),
            (self.no_exec, "noexec"),
            (self.no_atime, "noatime"),
        ];
        let words: Vec<_> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
        f.write_str(&words.join(", "))
    }
}

/// A mount that is in no directory yet; closing it undoes it.
#[derive(Debug)]
pub struct Detached {
    fd: OwnedFd,
    what: String,
}

impl Detached {
    /// The mount in words, as errors name it.
    pub fn description(&self) -> &str {
        &self.what
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a bind or a change also concerns the mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// This mount only.
    One,
    /// This mount and all below it.
    Tree,
}

/// Makes a second view of `source` (directory or file), mounted nowhere yet.
///
/// With [`Depth::Tree`] the mounts below come along, and get the attributes too. Attributes are set before anyone can
/// see the mount: there is no moment in which a read-only bind is writable. `source` is not followed if it is a
/// symbolic link.
///
/// # Errors
/// [`MountError::Path`] if `source` cannot be opened, [`MountError::NotPermitted`], [`MountError::Create`];
/// [`MountError::Attributes`] where the kernel refuses them or is older than 5.12. Nothing is left behind.
pub fn bind(source: &Path, depth: Depth, attributes: Attributes) -> Result<Detached, MountError> {
    let what = format!("a bind of {source:?}");
    let place = open_place(source, &what, "source")?;
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, depth == Depth::Tree);
    let fd = kernel::open_tree(&place, "", flags).map_err(|error| match error {
        Errno::PERM => MountError::NotPermitted { mount: what.clone(), source: error.into() },
        error => {
            MountError::Create { mount: what.clone(), kernel: KernelLog::default(), source: error.into() }
        }
    })?;
    let detached = Detached { fd, what };
    if attributes != Attributes::default() {
        set_attributes(&detached, depth, attributes)?;
    }
    Ok(detached)
}

/// Makes a mount of the file system `kind` with options of its own, mounted nowhere yet.
///
/// # Errors
/// [`MountError::NoFileSystem`], [`MountError::NotPermitted`], [`MountError::Option`], [`MountError::Create`]. Nothing
/// is left behind.
pub fn file_system(
    kind: &str,
    source: &str,
    settings: &[(String, Option<String>)],
    attributes: Attributes,
) -> Result<Detached, MountError> {
    let context = context::Context::open(kind, format!("{kind} of {source:?}"))?;
    if !source.is_empty() {
        context.set("source", Some(source))?;
    }
    if attributes.read_only {
        context.set("ro", None)?;
    }
    for (key, value) in settings {
        context.set(key, value.as_deref())?;
    }
    context.mount(attributes)
}

/// Puts a mount at `target`, on top of whatever is mounted there. `target` is not followed if it is a symbolic link.
///
/// # Errors
/// [`MountError::Path`] if `target` cannot be opened, [`MountError::Attach`] if the kernel refuses it (a file on a
/// directory, for example). The mount then vanishes with its last descriptor.
pub fn attach(mount: Detached, target: &Path) -> Result<(), MountError> {
    let place = open_place(target, &mount.what, "target")?;
    attach_at(mount, place.as_fd(), target)
}

/// [`attach`] for a place that is already open (`O_PATH` is enough): nothing is looked up again. `name` is for errors.
///
/// # Errors
/// [`MountError::Attach`].
pub fn attach_at(mount: Detached, place: BorrowedFd<'_>, name: &Path) -> Result<(), MountError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    kernel::move_mount(&mount.fd, "", place, "", flags).map_err(|error| MountError::Attach {
        mount: mount.what,
        target: name.to_owned(),
        source: error.into(),
    })
}

/// Mounts each of `mounts` at `target`, in order, one on top of the other.
///
/// # Errors
/// As [`overlay`], [`bind`], [`file_system`] and [`attach`]; [`MountError::BadOption`] for what cannot be translated.
/// If one fails, those already made here are detached again.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result<(), MountError> {
    for (done, mount) in mounts.iter().enumerate() {
        if let Err(error) = options::mount_one(mount, target) {
            for _ in 0..done {
                // The first error is the one to tell; what stays mounted shows in the table.
                let _ = detach(target);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Removes the topmost mount at `target`, or leaves it if it is in use. `target` is not followed if it is a symbolic
/// link.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::Busy`], [`MountError::NotPermitted`], [`MountError::Unmount`]. The mount is
/// then as before.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    unmount_with(target, UnmountFlags::NOFOLLOW)
}

/// Takes the topmost mount at `target` out of sight at once, with all that is mounted below it; it is gone for good when
/// its last user is. `target` is not followed if it is a symbolic link.
///
/// # Errors
/// As [`unmount`], without [`MountError::Busy`].
pub fn detach(target: &Path) -> Result<(), MountError> {
    unmount_with(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

fn unmount_with(target: &Path, flags: UnmountFlags) -> Result<(), MountError> {
    kernel::unmount(target, flags).map_err(|error| {
        let (target, source) = (target.to_owned(), error.into());
        match error {
            Errno::INVAL => MountError::NotMounted { target, source },
            Errno::BUSY => MountError::Busy { target, source },
            Errno::PERM => MountError::NotPermitted { mount: format!("(unmounting {target:?})"), source },
            _ => MountError::Unmount { target, source },
        }
    })
}

/// Whether something is mounted exactly at `target` (absolute, without symbolic links).
///
/// # Errors
/// As [`mounts_under`].
pub fn is_mounted(target: &Path) -> Result<bool, MountError> {
    Ok(mounts_under(target)?.iter().any(|mount| mount.target == target))
}

/// Detaches every mount at or below `prefix`, topmost first, and returns how many there were.
///
/// # Errors
/// As [`mounts_under`] and [`detach`]; the mounts not reached yet stay.
pub fn unmount_under(prefix: &Path) -> Result<usize, MountError> {
    let mounts = mounts_under(prefix)?;
    for mount in mounts.iter().rev() {
        match detach(&mount.target) {
            // Detaching a parent took it along.
            Ok(()) | Err(MountError::NotMounted { .. }) => {}
            Err(MountError::Unmount { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(mounts.len())
}

/// Whether mounts made under a mount are seen by its peers, in other namespaces too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither out nor in.
    Private,
    /// In, not out (the kernel's `slave`).
    Slave,
    /// Both ways.
    Shared,
    /// Neither, and it cannot be bound.
    Unbindable,
}

impl Propagation {
    fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Slave => "slave",
            Self::Shared => "shared",
            Self::Unbindable => "unbindable",
        }
    }
}

/// Changes the propagation of the mount at `target`, and with [`Depth::Tree`] of all below it.
///
/// # Errors
/// [`MountError::Propagation`]: `target` is no mount point, or no permission.
pub fn set_propagation(target: &Path, propagation: Propagation, depth: Depth) -> Result<(), MountError> {
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
    };
    flags.set(MountPropagationFlags::REC, depth == Depth::Tree);
    kernel::mount_change(target, flags).map_err(|error| MountError::Propagation {
        target: target.to_owned(),
        propagation: propagation.name(),
        source: error.into(),
    })
}

/// Opens a path as a place (`O_PATH`), without following it if it is a symbolic link.
fn open_place(path: &Path, mount: &str, role: &'static str) -> Result<OwnedFd, MountError> {
    let error =
        |source| MountError::Path { mount: mount.to_owned(), role, path: PathBuf::from(path), source };
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| error(errno.into()))?;
    let kind = rustix::fs::fstat(&place).map_err(|errno| error(errno.into()))?.st_mode;
    if rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Symlink {
        return Err(error(Errno::LOOP.into()));
    }
    Ok(place)
}

/// `mount_setattr(2)` (Linux 5.12), which rustix does not have: adds attributes to a mount before it is attached.
fn set_attributes(mount: &Detached, depth: Depth, attributes: Attributes) -> Result<(), MountError> {
    use std::os::fd::AsRawFd;
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Tree {
        flags |= libc::AT_RECURSIVE;
    }
    let set = u64::from(attributes.as_flags().bits());
    // The kernel wants the whole atime field cleared before a value is set in it.
    let clear = if attributes.no_atime { libc::MOUNT_ATTR__ATIME } else { 0 };
    let change = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    // SAFETY: the descriptor is open for the whole call because `mount` is borrowed across it. The path is a constant
    // C string. The kernel reads exactly `size_of::<mount_attr>()` bytes of `change`, which lives until the end of
    // this function and is a plain struct without padding (four u64), and writes to no memory of ours.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(MountError::Attributes {
        mount: mount.what.clone(),
        attributes: attributes.to_string(),
        source: std::io::Error::last_os_error(),
    })
}
