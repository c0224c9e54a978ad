//! Overlay mounts: layer by layer through the new mount API, in one page of options on older kernels.
//!
//! Foreign layers are never trusted: unless told otherwise a mount has `redirect_dir=nofollow` (a layer cannot name a
//! directory of another layer as its own), `metacopy=off` (nor take another file's data), `index=off` (no state in the
//! work directory that outlives a mount), `xino=auto` (stable inode numbers even when layers lie on different disks).

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::mount::{self as kernel, FsOpenFlags};

use super::context::Context;
use super::error::{KernelLog, MountError};
use super::{Attributes, Detached, attach};

/// Most lower layers of one overlay mount (`OVL_MAX_STACK` in the kernel's `fs/overlayfs/params.h`).
pub const LAYERS_MAX: usize = 500;

/// Most option bytes of a classic `mount(2)`, without the NUL: one page.
const CLASSIC_BYTES_MAX: usize = 4095;

/// What every overlay mount of ours says unless its caller says otherwise.
const DEFAULTS: [(&str, &str); 4] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "auto")];

/// How an overlay is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// Further options of overlayfs, `key` or `key=value`; a key given here replaces our default for it. Not here:
    /// the directories.
    pub settings: Vec<(String, Option<String>)>,
}

impl OverlayOptions {
    /// The caller's settings after our defaults for what it left open.
    fn resolved(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let open = |key: &str| !self.settings.iter().any(|(given, _)| given == key);
        let defaults =
            DEFAULTS.iter().filter(move |(key, _)| open(key)).map(|(key, value)| (*key, Some(*value)));
        defaults.chain(self.settings.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
    }
}

/// Makes an overlay of `lower` (uppermost first) and, when writable, of an upper and a work directory, mounted nowhere
/// yet. Read-only it needs two layers: one alone is a [`bind`](super::bind). Needs Linux 6.7; [`mount_overlay`] works on older ones.
///
/// # Errors
/// [`MountError::LayerCount`], [`MountError::Path`], [`MountError::Option`] and [`MountError::Create`] say which
/// directory or option was refused and why. Nothing is left behind (overlayfs may have made `work` inside the work
/// directory).
pub fn overlay(
    lower: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
) -> Result<Detached, MountError> {
    let context = Context::open("overlay", describe(lower, upper_work)?)?;
    context.set("source", Some("overlay"))?;
    for layer in lower {
        context.set_directory("lowerdir+", "lower layer", layer)?;
    }
    if let Some((upper, work)) = upper_work {
        context.set_directory("upperdir", "upper directory", upper)?;
        context.set_directory("workdir", "work directory", work)?;
    }
    for (key, value) in options.resolved() {
        context.set(key, value)?;
    }
    context.mount(options.attributes)
}

/// Mounts an overlay at `target`, with the new mount API or, where the kernel lacks what it takes, with `mount(2)`.
///
/// # Errors
/// As [`overlay`]; [`MountError::Attach`] if `target` refuses; [`MountError::OptionsTooLong`] on kernels before 6.7.
pub fn mount_overlay(
    lower: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
    target: &Path,
) -> Result<(), MountError> {
    if takes_layers_one_by_one() {
        attach(overlay(lower, upper_work, options)?, target)
    } else {
        mount_classic(lower, upper_work, options, target)
    }
}

/// The mount in words; refuses a number of layers that cannot be mounted.
fn describe(lower: &[PathBuf], upper_work: Option<(&Path, &Path)>) -> Result<String, MountError> {
    let count = lower.len();
    // With no upper directory the kernel wants something to merge.
    let min = if upper_work.is_some() { 1 } else { 2 };
    if count < min || count > LAYERS_MAX {
        return Err(MountError::LayerCount { count, min, max: LAYERS_MAX });
    }
    let layers = if count == 1 { "layer" } else { "layers" };
    Ok(match upper_work {
        Some((upper, _)) => format!("an overlay of {count} {layers} under {upper:?}"),
        None => format!("a read-only overlay of {count} {layers} from {:?} down", lower[0]),
    })
}

/// Whether overlayfs knows `lowerdir+` (Linux 6.7). Asked once, with a context that is thrown away: kernels whose
/// overlayfs has the old parser swallow any key and only fail at the end, so a nonsense key tells them apart.
fn takes_layers_one_by_one() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match kernel::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(fd) => {
            kernel::fsconfig_set_string(&fd, "windlass_no_such_option", "x").is_err()
                && kernel::fsconfig_set_string(&fd, "lowerdir+", "/").is_ok()
        }
        // No permission or no overlayfs: the new API will say so in better words than the old one.
        Err(error) => error != Errno::NOSYS,
    })
}

/// Mounts with `mount(2)`: all options in one page, so layers are named relative to the directory they share, from a
/// thread that has a working directory of its own.
pub(super) fn mount_classic(
    lower: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
    target: &Path,
) -> Result<(), MountError> {
    let mount = describe(lower, upper_work)?;
    let opened = |role, path: &Path| {
        path.canonicalize().map_err(|source| MountError::Path {
            mount: mount.clone(),
            role,
            path: path.to_owned(),
            source,
        })
    };
    let target = opened("target", target)?;
    let lower = lower.iter().map(|layer| opened("lower layer", layer)).collect::<Result<Vec<_>, _>>()?;
    let upper_work = match upper_work {
        Some((upper, work)) => Some((opened("upper directory", upper)?, opened("work directory", work)?)),
        None => None,
    };
    let base = common_directory(&lower);
    let data = classic_data(&lower, upper_work.as_ref(), options, &base);
    if data.len() > CLASSIC_BYTES_MAX {
        return Err(MountError::OptionsTooLong {
            mount,
            size_bytes: data.len(),
            max_bytes: CLASSIC_BYTES_MAX,
        });
    }
    let data = CString::new(data).map_err(|_| MountError::BadOption {
        mount: mount.clone(),
        option: "(any)".to_owned(),
        expected: "holds a NUL byte",
    })?;
    let flags = options.attributes.as_classic_flags();
    let result = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            leave_shared_directory()?;
            rustix::process::chdir(&base)?;
            kernel::mount("overlay", &target, "overlay", flags, data.as_c_str())
        });
        worker.join().unwrap_or(Err(Errno::CANCELED))
    });
    result.map_err(|error| match error {
        Errno::PERM => MountError::NotPermitted { mount, source: error.into() },
        error => MountError::Create { mount, kernel: KernelLog::default(), source: error.into() },
    })
}

/// Gives the calling thread a working directory of its own.
fn leave_shared_directory() -> Result<(), Errno> {
    // SAFETY: unshare with CLONE_FS alone gives this thread its own copy of root, working directory and umask; the
    // descriptor table, whose sharing rustix's contract is about (CLONE_FILES), stays shared.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)
    }
}

/// The deepest directory that is above all of `paths` (absolute, resolved).
fn common_directory(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("/")).to_owned();
    while !paths.iter().all(|path| path != &common && path.starts_with(&common)) {
        if !common.pop() {
            return PathBuf::from("/");
        }
    }
    common
}

/// The option string of a classic mount, escaped as overlayfs unescapes it.
fn classic_data(
    lower: &[PathBuf],
    upper_work: Option<&(PathBuf, PathBuf)>,
    options: &OverlayOptions,
    base: &Path,
) -> Vec<u8> {
    let mut data = b"lowerdir=".to_vec();
    for (i, layer) in lower.iter().enumerate() {
        if i > 0 {
            data.push(b':');
        }
        match layer.strip_prefix(base) {
            Ok(relative) if !relative.as_os_str().is_empty() => escape(relative, &mut data),
            _ => escape(layer, &mut data),
        }
    }
    if let Some((upper, work)) = upper_work {
        for (key, path) in [(&b",upperdir="[..], upper), (&b",workdir="[..], work)] {
            data.extend_from_slice(key);
            escape(path, &mut data);
        }
    }
    for (key, value) in options.resolved() {
        data.push(b',');
        data.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            data.push(b'=');
            data.extend_from_slice(value.as_bytes());
        }
    }
    data
}

/// Appends `path` with a backslash before what the option string gives a meaning.
fn escape(path: &Path, into: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b':' | b',') {
            into.push(b'\\');
        }
        into.push(byte);
    }
}
