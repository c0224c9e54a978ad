//! Limits the user asks for: memory, processors, processes, and those of `setrlimit`.
//!
//! Whether the kernel grants them is seen when the OCI runtime writes them into the container's cgroup.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Spec,
};
use serde::{Deserialize, Serialize};

use super::{SpecError, built};

/// Period that a share of the processors is measured over, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Least memory a container can be limited to, in bytes: below, no OCI runtime can start in it (Docker's limit).
pub const MEMORY_BYTES_MIN: i64 = 6 * 1024 * 1024;

/// Limits; 0 and empty are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: i64,
    /// Memory and swap together, in bytes; -1 is no limit.
    pub memory_swap_bytes: i64,
    /// Memory that is left when the machine runs short, in bytes.
    pub memory_reservation_bytes: i64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Weight beside other containers, 2..=262144; 1024 is usual.
    pub cpu_shares: u64,
    /// Processors it may use, such as `0-2,7`.
    pub cpuset_cpus: String,
    /// Memory nodes it may use.
    pub cpuset_mems: String,
    /// Processes and threads; -1 is no limit.
    pub pids: i64,
    /// Weight of its block I/O, 10..=1000.
    pub blkio_weight: u32,
    /// Limits of `setrlimit`.
    pub ulimits: Vec<Ulimit>,
    /// What the kernel adds to its badness when memory is short, -1000..=1000.
    pub oom_score_adj: Option<i32>,
    /// Size of `/dev/shm` in bytes; 0 is 64 MiB.
    pub shm_bytes: u64,
}

/// One limit of `setrlimit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in `RLIMIT_NOFILE` without the beginning, small: `nofile`.
    pub name: String,
    /// What the process has; `u64::MAX` is no limit.
    pub soft: u64,
    /// What it may raise that to.
    pub hard: u64,
}

/// Writes `limits` into `spec`.
///
/// # Errors
/// [`SpecError::Limit`] for a value that no kernel takes.
pub(super) fn apply(spec: &mut Spec, limits: &Limits) -> Result<(), SpecError> {
    if let Some(process) = spec.process_mut() {
        let mut list = process.rlimits().clone().unwrap_or_default();
        for limit in &limits.ulimits {
            let limit = rlimit(limit)?;
            list.retain(|other| other.typ() != limit.typ());
            list.push(limit);
        }
        process.set_rlimits(Some(list));
        if let Some(score) = limits.oom_score_adj {
            if !(-1000..=1000).contains(&score) {
                return Err(refused("oom-score-adj", score, "it goes from -1000 to 1000"));
            }
            process.set_oom_score_adj(Some(score));
        }
    }
    if limits.shm_bytes > 0 {
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        for mount in mounts.iter_mut().filter(|mount| mount.destination().as_os_str() == "/dev/shm") {
            let mut options = mount.options().clone().unwrap_or_default();
            options.retain(|option| !option.starts_with("size="));
            options.push(format!("size={}", limits.shm_bytes));
            mount.set_options(Some(options));
        }
        spec.set_mounts(Some(mounts));
    }
    match spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        Some(resources) => write(resources, limits),
        None => Ok(()),
    }
}

/// Writes the cgroup's part of `limits` into `resources`; what `limits` leaves open stays. For updates, too.
///
/// # Errors
/// As of a new container.
pub fn write(resources: &mut LinuxResources, limits: &Limits) -> Result<(), SpecError> {
    memory(resources, limits)?;
    cpu(resources, limits)?;
    if limits.pids != 0 {
        resources.set_pids(Some(built(LinuxPidsBuilder::default().limit(limits.pids.max(-1)).build())));
    }
    if limits.blkio_weight != 0 {
        let weight = u16::try_from(limits.blkio_weight).ok().filter(|weight| (10..=1000).contains(weight));
        let weight =
            weight.ok_or_else(|| refused("blkio-weight", limits.blkio_weight, "it goes from 10 to 1000"))?;
        resources.set_block_io(Some(built(LinuxBlockIoBuilder::default().weight(weight).build())));
    }
    Ok(())
}

fn memory(resources: &mut LinuxResources, limits: &Limits) -> Result<(), SpecError> {
    let (limit, swap, reservation) =
        (limits.memory_bytes, limits.memory_swap_bytes, limits.memory_reservation_bytes);
    if limit == 0 && swap == 0 && reservation == 0 {
        return Ok(());
    }
    if limit != 0 && limit < MEMORY_BYTES_MIN {
        return Err(refused("memory", limit, "no container starts with less than 6 MiB"));
    }
    if swap > 0 && limit == 0 {
        return Err(refused("memory-swap", swap, "it needs a limit of memory"));
    }
    if swap > 0 && swap < limit {
        return Err(refused("memory-swap", swap, "it includes memory, so it cannot be less"));
    }
    if limit > 0 && reservation > limit {
        return Err(refused("memory-reservation", reservation, "it cannot be more than the limit of memory"));
    }
    let mut memory = resources.memory().unwrap_or_else(|| built(LinuxMemoryBuilder::default().build()));
    if limit != 0 {
        memory.set_limit(Some(limit));
    }
    if swap != 0 {
        memory.set_swap(Some(swap));
    }
    if reservation != 0 {
        memory.set_reservation(Some(reservation));
    }
    resources.set_memory(Some(memory));
    Ok(())
}

fn cpu(resources: &mut LinuxResources, limits: &Limits) -> Result<(), SpecError> {
    let has_sets = !limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty();
    if limits.cpu_millis == 0 && limits.cpu_shares == 0 && !has_sets {
        return Ok(());
    }
    let mut cpu = resources.cpu().clone().unwrap_or_else(|| built(LinuxCpuBuilder::default().build()));
    if limits.cpu_millis != 0 {
        let quota = limits.cpu_millis.checked_mul(CPU_PERIOD_US / 1000).and_then(|us| i64::try_from(us).ok());
        // The kernel takes no quota below a millisecond.
        let quota = quota.filter(|quota| *quota >= 1000);
        let quota = quota
            .ok_or_else(|| refused("cpus", limits.cpu_millis, "in thousandths, it must be 10 at least"))?;
        cpu.set_quota(Some(quota));
        cpu.set_period(Some(CPU_PERIOD_US));
    }
    if limits.cpu_shares != 0 {
        cpu.set_shares(Some(limits.cpu_shares));
    }
    for (name, set) in [("cpuset-cpus", &limits.cpuset_cpus), ("cpuset-mems", &limits.cpuset_mems)] {
        if !set.bytes().all(|c| c.is_ascii_digit() || matches!(c, b',' | b'-')) {
            return Err(refused(name, set, "write numbers and ranges, such as 0-2,7"));
        }
    }
    if !limits.cpuset_cpus.is_empty() {
        cpu.set_cpus(Some(limits.cpuset_cpus.clone()));
    }
    if !limits.cpuset_mems.is_empty() {
        cpu.set_mems(Some(limits.cpuset_mems.clone()));
    }
    resources.set_cpu(Some(cpu));
    Ok(())
}

fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, SpecError> {
    let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
    let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::String(name)).map_err(|_| {
        refused("ulimit", &limit.name, "it is no limit of setrlimit, such as nofile or nproc")
    })?;
    if limit.soft > limit.hard {
        return Err(refused("ulimit", &limit.name, "its soft limit is above its hard one"));
    }
    Ok(built(PosixRlimitBuilder::default().typ(kind).soft(limit.soft).hard(limit.hard).build()))
}

fn refused(what: &'static str, given: impl ToString, reason: &'static str) -> SpecError {
    SpecError::Limit { what, given: given.to_string(), reason }
}
