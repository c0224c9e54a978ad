//! containerd's defaults for an unprivileged container, as tables.

use std::collections::HashSet;
use std::path::Path;

use oci_spec::runtime::{
    Capability, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, Mount, MountBuilder,
};

use super::built;

/// Most files the process may open (RLIMIT_NOFILE, hard and soft), as in containerd's default spec.
pub const OPEN_FILES_MAX: u64 = 1024;

/// Paths that read as empty: they tell about, or act on, the machine outside (the last since CVE-2020-8694: power
/// readings reveal keys).
pub const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths of the kernel's own file systems that can be read but not written.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The capabilities of root in an unprivileged container.
pub fn capabilities() -> HashSet<Capability> {
    HashSet::from([
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fsetid,
        Capability::Fowner,
        Capability::Mknod,
        Capability::NetRaw,
        Capability::Setgid,
        Capability::Setuid,
        Capability::Setfcap,
        Capability::Setpcap,
        Capability::NetBindService,
        Capability::SysChroot,
        Capability::Kill,
        Capability::AuditWrite,
    ])
}

/// Character devices that may be used: null, random, full, tty, zero, urandom, console, pts, ptmx. No minor is "all".
const DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(8)),
    (1, Some(7)),
    (5, Some(0)),
    (1, Some(5)),
    (1, Some(9)),
    (5, Some(1)),
    (136, None),
    (5, Some(2)),
];

/// Rules of the device cgroup: everything denied, then the harmless devices allowed (an empty list would allow all).
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let deny = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm");
    let mut rules = vec![built(deny.build())];
    for (major, minor) in DEVICES {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .access("rwm");
        let rule = match minor {
            Some(minor) => rule.minor(minor),
            None => rule,
        };
        rules.push(built(rule.build()));
    }
    rules
}

/// Mounts every container gets, in order.
pub fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
}

pub(super) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    built(MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build())
}

/// Whether the machine has cgroup v2 alone: then the container gets a cgroup namespace, as containerd gives it.
pub fn unified_cgroups() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
