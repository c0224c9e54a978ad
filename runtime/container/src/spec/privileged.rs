//! Privileged containers: everything this process may do itself, except leaving the container's namespaces.
//!
//! As under `ctr run --privileged`: the capabilities of this process, all devices of the host, no hidden or read-only
//! paths, a writable `/sys`, no system call filter.
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capability, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroupBuilder,
    LinuxDeviceType, Spec,
};

use super::{SpecError, built};

/// Directories of `/dev` that the container has of its own, or that hold no devices.
const DEVICE_DIRECTORIES_SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];

/// Deepest directory below `/dev` that is searched.
const DEVICE_DEPTH_MAX: usize = 8;

/// Rewrites `spec`.
///
/// # Errors
/// [`SpecError::Host`] when this machine's capabilities or devices cannot be read.
pub(super) fn grant(spec: &mut Spec) -> Result<(), SpecError> {
    let capabilities = own_capabilities()?;
    let devices = host_devices()?;
    if let Some(process) = spec.process_mut() {
        let sets = LinuxCapabilitiesBuilder::default()
            .bounding(capabilities.clone())
            .effective(capabilities.clone())
            .permitted(capabilities);
        let mut sets = built(sets.build());
        sets.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(sets));
    }
    if let Some(linux) = spec.linux_mut() {
        let all = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build();
        if let Some(resources) = linux.resources_mut() {
            resources.set_devices(Some(vec![built(all)]));
        }
        linux.set_devices(Some(devices)).set_masked_paths(None).set_readonly_paths(None).set_seccomp(None);
    }
    for mount in
        spec.mounts_mut().iter_mut().flatten().filter(|mount| mount.typ().as_deref() == Some("sysfs"))
    {
        for option in mount.options_mut().iter_mut().flatten().filter(|option| *option == "ro") {
            *option = "rw".to_owned();
        }
    }
    Ok(())
}

/// The bounding set of this process: more than that nobody can give.
pub(super) fn own_capabilities() -> Result<HashSet<Capability>, SpecError> {
    let path = "/proc/self/status";
    let failed = |source| SpecError::Host { path: path.into(), source };
    let status = fs::read_to_string(path).map_err(failed)?;
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .ok_or_else(|| failed(std::io::Error::other("no line CapBnd")))?;
    Ok((0..)
        .zip(BY_NUMBER)
        .filter(|(bit, _)| bits & (1 << bit) != 0)
        .map(|(_, capability)| capability)
        .collect())
}

/// Capabilities by their number (`linux/capability.h`).
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

fn host_devices() -> Result<Vec<LinuxDevice>, SpecError> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found)?;
    Ok(found)
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<LinuxDevice>) -> Result<(), SpecError> {
    let failed = |source| SpecError::Host { path: directory.to_path_buf(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A device may go while we look: then it is not listed.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let name = entry.file_name();
        if metadata.is_dir() {
            let skipped = depth == 0 && DEVICE_DIRECTORIES_SKIPPED.iter().any(|&skip| name == skip);
            if !skipped && depth < DEVICE_DEPTH_MAX {
                collect(&entry.path(), depth + 1, found)?;
            }
        } else if !(depth == 0 && name == "console") {
            found.extend(device(entry.path(), &metadata));
        }
    }
    Ok(())
}

pub(super) fn device(path: PathBuf, metadata: &fs::Metadata) -> Option<LinuxDevice> {
    let kind = if metadata.file_type().is_char_device() {
        LinuxDeviceType::C
    } else if metadata.file_type().is_block_device() {
        LinuxDeviceType::B
    } else {
        return None;
    };
    let (major, minor) = numbers(metadata.rdev());
    let device = LinuxDeviceBuilder::default()
        .path(path)
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid());
    Some(built(device.build()))
}

/// Major and minor number in a `dev_t` as user space sees it (glibc `gnu_dev_major`).
pub(super) fn numbers(device: u64) -> (i64, i64) {
    let major = ((device >> 32) & 0xffff_f000) | ((device >> 8) & 0xfff);
    let minor = ((device >> 12) & 0xffff_ff00) | (device & 0xff);
    (major.cast_signed(), minor.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_split_as_the_kernel_does() {
        assert_eq!(numbers(std::fs::metadata("/dev/null").unwrap().rdev()), (1, 3));
        assert_eq!(numbers(0x1234_5678_9abc_def0), (0x1234_5cde, 0x5678_9abf0 & 0xffff_ff00 | 0xf0));
    }

    #[test]
    fn the_hosts_null_device_is_among_its_devices_and_its_pts_are_not() {
        let devices = host_devices().unwrap();
        assert!(devices.iter().any(|device| device.path() == Path::new("/dev/null")));
        assert!(!devices.iter().any(|device| device.path().starts_with("/dev/pts")));
    }
}
