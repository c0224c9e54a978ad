//! From mounts as containerd writes them to calls: which options are attributes, which are the file system's own.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::error::MountError;
use super::{
    Attributes, Depth, Mount, OverlayOptions, Propagation, attach, bind, file_system, mount_overlay,
    set_propagation,
};

/// Options sorted by whom they are for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// For the mount.
    pub(super) attributes: Attributes,
    /// `bind` or `rbind`.
    pub(super) bind: Option<Depth>,
    /// Applied after attaching, in order.
    pub(super) propagation: Vec<(Propagation, Depth)>,
    /// For the file system, in order.
    pub(super) settings: Vec<(String, Option<String>)>,
}

/// Sorts options; the later of two that contradict each other wins, as with `mount(8)`.
pub(super) fn sort(options: &[String]) -> Sorted {
    let mut sorted = Sorted::default();
    for option in options {
        let attributes = &mut sorted.attributes;
        match option.as_str() {
            "" | "defaults" | "relatime" | "async" | "loud" | "norelatime" | "diratime" => {}
            "ro" => attributes.read_only = true,
            "rw" => attributes.read_only = false,
            "nosuid" => attributes.no_suid = true,
            "suid" => attributes.no_suid = false,
            "nodev" => attributes.no_dev = true,
            "dev" => attributes.no_dev = false,
            "noexec" => attributes.no_exec = true,
            "exec" => attributes.no_exec = false,
            "noatime" => attributes.no_atime = true,
            "atime" => attributes.no_atime = false,
            "bind" => sorted.bind = Some(Depth::One),
            "rbind" => sorted.bind = Some(Depth::Tree),
            "private" => sorted.propagation.push((Propagation::Private, Depth::One)),
            "rprivate" => sorted.propagation.push((Propagation::Private, Depth::Tree)),
            "slave" => sorted.propagation.push((Propagation::Slave, Depth::One)),
            "rslave" => sorted.propagation.push((Propagation::Slave, Depth::Tree)),
            "shared" => sorted.propagation.push((Propagation::Shared, Depth::One)),
            "rshared" => sorted.propagation.push((Propagation::Shared, Depth::Tree)),
            "unbindable" => sorted.propagation.push((Propagation::Unbindable, Depth::One)),
            "runbindable" => sorted.propagation.push((Propagation::Unbindable, Depth::Tree)),
            other => sorted.settings.push(match other.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (other.to_owned(), None),
            }),
        }
    }
    sorted
}

/// Makes one mount and attaches it.
pub(super) fn mount_one(mount: &Mount, target: &Path) -> Result<(), MountError> {
    let sorted = sort(&mount.options);
    if mount.kind == "bind" || mount.kind == "rbind" || sorted.bind.is_some() {
        let depth = sorted.bind.unwrap_or(if mount.kind == "rbind" { Depth::Tree } else { Depth::One });
        if let Some((key, _)) = sorted.settings.first() {
            return Err(bad(mount, key, "is not an option of a bind mount"));
        }
        attach(bind(Path::new(&mount.source), depth, sorted.attributes)?, target)?;
    } else if mount.kind == "overlay" {
        mount_overlay_options(mount, &sorted, target)?;
    } else {
        attach(file_system(&mount.kind, &mount.source, &sorted.settings, sorted.attributes)?, target)?;
    }
    for (propagation, depth) in sorted.propagation {
        set_propagation(target, propagation, depth)?;
    }
    Ok(())
}

/// The directories of an overlay, and its other settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directories {
    /// The highest first.
    pub(super) lower: Vec<PathBuf>,
    pub(super) upper: Option<PathBuf>,
    pub(super) work: Option<PathBuf>,
    pub(super) settings: Vec<(String, Option<String>)>,
}

/// Takes the directories out of an overlay's settings. The error is the option that should name one and does not.
pub(super) fn directories(settings: &[(String, Option<String>)]) -> Result<Directories, &str> {
    let mut found = Directories::default();
    for (key, value) in settings {
        match (key.as_str(), value) {
            ("lowerdir", Some(value)) => found.lower = split_layers(value),
            ("lowerdir+", Some(value)) => found.lower.push(PathBuf::from(value)),
            ("upperdir", Some(value)) => found.upper = Some(unescape(value)),
            ("workdir", Some(value)) => found.work = Some(unescape(value)),
            ("lowerdir" | "lowerdir+" | "upperdir" | "workdir", None) => return Err(key),
            _ => found.settings.push((key.clone(), value.clone())),
        }
    }
    Ok(found)
}

/// Takes the directories out of an overlay's options and mounts it.
fn mount_overlay_options(mount: &Mount, sorted: &Sorted, target: &Path) -> Result<(), MountError> {
    let Directories { lower, upper, work, settings } =
        directories(&sorted.settings).map_err(|key| bad(mount, key, "needs a directory"))?;
    let upper_work = match (&upper, &work) {
        (Some(upper), Some(work)) => Some((upper.as_path(), work.as_path())),
        (None, None) => None,
        (Some(_), None) => return Err(bad(mount, "upperdir", "needs a workdir beside it")),
        (None, Some(_)) => return Err(bad(mount, "workdir", "needs an upperdir beside it")),
    };
    let options = OverlayOptions { attributes: sorted.attributes, settings };
    mount_overlay(&lower, upper_work, &options, target)
}

/// Splits `a:b:c` where the colon is not escaped, and unescapes the parts.
pub(super) fn split_layers(value: &str) -> Vec<PathBuf> {
    let mut layers = Vec::new();
    let mut current = Vec::new();
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => current.extend(bytes.next()),
            b':' => layers.push(PathBuf::from(OsString::from_vec(std::mem::take(&mut current)))),
            other => current.push(other),
        }
    }
    layers.push(PathBuf::from(OsString::from_vec(current)));
    layers
}

/// Removes the backslashes that protect characters.
fn unescape(value: &str) -> PathBuf {
    let mut path = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        path.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    PathBuf::from(OsString::from_vec(path))
}

/// Writes layers as the value of `lowerdir=`, uppermost first: the inverse of what [`super::mount_all`] reads, for
/// clients that mount themselves.
///
/// A comma needs no escape here: options are a list, not one string.
pub fn join_layers<'a>(layers: impl IntoIterator<Item = &'a Path>) -> OsString {
    let mut value = Vec::new();
    for (i, layer) in layers.into_iter().enumerate() {
        if i > 0 {
            value.push(b':');
        }
        for &byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b'\\' | b':') {
                value.push(b'\\');
            }
            value.push(byte);
        }
    }
    OsString::from_vec(value)
}

fn bad(mount: &Mount, option: &str, expected: &'static str) -> MountError {
    MountError::BadOption {
        mount: format!("{} of {:?}", mount.kind, mount.source),
        option: option.to_owned(),
        expected,
    }
}
