//! What containers use, and their processes: read from cgroups and `/proc`, without their shims.
//!
//! Both layouts of cgroups are read: one hierarchy (v2), or one for each controller (v1, also beside a v2 one without
//! controllers). A figure that the kernel does not have is 0.
//!
//! Format: `cgroup-v2.rst` and `cgroup-v1/` of the kernel's documentation, `proc_pid_stat(5)`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use storage_model::Namespace;

use super::Status;
use crate::{Engine, EngineError};

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A memory limit above this is none: v1 says so with a number near 2^63.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Clock ticks a second in `/proc/PID/stat`: 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Bytes of a page in `/proc/PID/stat`.
const PAGE_BYTES: u64 = 4096;

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time of processors since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Monotonic time of the sample, in nanoseconds since the boot.
    pub at_ns: u64,
    /// Memory in bytes, without file pages that are not in use.
    pub memory_bytes: u64,
    /// Its limit; 0: none.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Their limit; 0: none.
    pub pids_limit: u64,
    /// Bytes its network interfaces received, loopback left out.
    pub network_received_bytes: u64,
    /// Bytes they sent.
    pub network_sent_bytes: u64,
    /// Bytes read from block devices.
    pub block_read_bytes: u64,
    /// Bytes written to them.
    pub block_written_bytes: u64,
    /// Processors it may use, in thousandths.
    pub cpu_limit_millis: u64,
}

/// A process of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessLine {
    /// Its id on this machine.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its owner.
    pub uid: u32,
    /// R, S, D, Z, T, ...
    pub state: String,
    /// Time of processors, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// When it was started, in seconds since 1970.
    pub started_at: i64,
    /// Its command; of a kernel thread or a zombie its name.
    pub command: Vec<String>,
    /// Its terminal; empty: none.
    pub terminal: String,
}

/// Directories of a container's cgroups.
struct Cgroups {
    /// `PID MOUNT PATH` of each hierarchy, by controller; v2 has the empty name.
    paths: Vec<(String, PathBuf)>,
}

impl Cgroups {
    /// Those of process `pid`; none of it if that is gone.
    fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut paths = Vec::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let below = path.trim_start_matches('/');
            for controller in controllers.split(',') {
                let roots = match controller {
                    "" => vec![Path::new(CGROUPS).to_owned(), Path::new(CGROUPS).join("unified")],
                    name => vec![Path::new(CGROUPS).join(name), Path::new(CGROUPS).join(controllers)],
                };
                let found = roots.into_iter().map(|root| root.join(below));
                paths.extend(
                    found
                        .filter(|path| path.join("cgroup.procs").exists())
                        .take(1)
                        .map(|path| (controller.to_owned(), path)),
                );
            }
        }
        Self { paths }
    }

    /// The text of a file: `v1` of the controller's own hierarchy, or `v2` of the one.
    fn read(&self, controller: &str, v1: &str, v2: &str) -> String {
        let path = |name: &str| self.paths.iter().find(|(known, _)| known == name).map(|(_, path)| path);
        let file = match path(controller) {
            Some(own) => own.join(v1),
            None => path("").map(|one| one.join(v2)).unwrap_or_default(),
        };
        fs::read_to_string(file).unwrap_or_default()
    }

    fn is_v1(&self, controller: &str) -> bool {
        self.paths.iter().any(|(known, _)| known == controller)
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> u64 {
        self.read(controller, v1, v2).trim().parse().unwrap_or(0)
    }

    /// Process ids in it and below.
    fn pids(&self) -> Vec<u32> {
        let wanted = ["pids", "memory", "systemd", "name=systemd", ""];
        let path = wanted.iter().find_map(|name| self.paths.iter().find(|(known, _)| known == name));
        let mut pids = Vec::new();
        if let Some((_, path)) = path {
            collect(path, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

fn collect(directory: &Path, pids: &mut Vec<u32>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

/// The number behind a name in `name number` lines.
fn field(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(known, _)| *known == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn usage(pid: u32) -> Usage {
    let cgroups = Cgroups::of(pid);
    let cpu_ns = if cgroups.is_v1("cpuacct") {
        cgroups.number("cpuacct", "cpuacct.usage", "")
    } else {
        field(&cgroups.read("", "", "cpu.stat"), "usage_usec").saturating_mul(1000)
    };
    let memory_stat = cgroups.read("memory", "memory.stat", "memory.stat");
    let inactive =
        field(&memory_stat, if cgroups.is_v1("memory") { "total_inactive_file" } else { "inactive_file" });
    let limit = cgroups.number("memory", "memory.limit_in_bytes", "memory.max");
    let (block_read_bytes, block_written_bytes) = block(&cgroups);
    let (network_received_bytes, network_sent_bytes) =
        network(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
    Usage {
        cpu_ns,
        at_ns: uptime_ns(),
        memory_bytes: cgroups
            .number("memory", "memory.usage_in_bytes", "memory.current")
            .saturating_sub(inactive),
        memory_limit_bytes: if limit < NO_LIMIT_BYTES { limit } else { 0 },
        pids: cgroups.number("pids", "pids.current", "pids.current"),
        pids_limit: cgroups.number("pids", "pids.max", "pids.max"),
        network_received_bytes,
        network_sent_bytes,
        block_read_bytes,
        block_written_bytes,
        cpu_limit_millis: cpu_limit(&cgroups),
    }
}

/// Thousandths of processors it may use: its quota, or all there are.
fn cpu_limit(cgroups: &Cgroups) -> u64 {
    let all = std::thread::available_parallelism().map_or(1, |count| count.get() as u64) * 1000;
    let (quota, period) = if cgroups.is_v1("cpu") {
        (cgroups.number("cpu", "cpu.cfs_quota_us", ""), cgroups.number("cpu", "cpu.cfs_period_us", ""))
    } else {
        let text = cgroups.read("", "", "cpu.max");
        let mut parts = text.split_whitespace().map(|part| part.parse::<u64>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    if quota == 0 || period == 0 { all } else { quota.saturating_mul(1000) / period }
}

/// Bytes read and written.
fn block(cgroups: &Cgroups) -> (u64, u64) {
    if cgroups.is_v1("blkio") {
        let text = cgroups.read("blkio", "blkio.throttle.io_service_bytes_recursive", "");
        let sum = |word: &str| -> u64 {
            let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines
                .filter(|parts| parts.len() == 3 && parts[1].eq_ignore_ascii_case(word))
                .filter_map(|parts| parts[2].parse::<u64>().ok())
                .sum()
        };
        return (sum("read"), sum("write"));
    }
    let text = cgroups.read("", "", "io.stat");
    let sum = |name: &str| -> u64 {
        let values = text.split_whitespace().filter_map(|word| word.strip_prefix(name));
        values.filter_map(|value| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Bytes received and sent by all interfaces of `/proc/PID/net/dev` but loopback.
fn network(text: &str) -> (u64, u64) {
    let mut sums = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let Some((name, values)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let values: Vec<u64> = values.split_whitespace().filter_map(|value| value.parse().ok()).collect();
        sums.0 += values.first().copied().unwrap_or(0);
        sums.1 += values.get(8).copied().unwrap_or(0);
    }
    sums
}

fn uptime_ns() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    u64::try_from(Duration::try_from_secs_f64(seconds).unwrap_or_default().as_nanos()).unwrap_or(0)
}

/// When the machine was started, in seconds since 1970.
fn boot_time() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    i64::try_from(field(&text, "btime")).unwrap_or(0)
}

/// When a process was started, in seconds since 1970; 0 if it is gone.
pub(super) fn started_at(pid: u32) -> i64 {
    line(pid, boot_time()).map_or(0, |line| line.started_at)
}

/// One process; `None` if it is gone.
fn line(pid: u32, boot: i64) -> Option<ProcessLine> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    let parts: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| parts.get(at).and_then(|part| part.trim().parse::<u64>().ok()).unwrap_or(0);
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words: Vec<String> =
        command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    words.pop();
    if words.is_empty() {
        words = vec![format!("[{}]", head.split_once('(').map_or("", |(_, name)| name))];
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).map(str::split_whitespace);
    Some(ProcessLine {
        pid,
        parent: u32::try_from(number(1)).unwrap_or(0),
        uid: uid.and_then(|mut all| all.next()?.parse().ok()).unwrap_or(0),
        state: parts.first().map(|state| (*state).to_owned()).unwrap_or_default(),
        cpu_ms: (number(11) + number(12)) * 1000 / TICKS_PER_SECOND,
        memory_bytes: number(21) * PAGE_BYTES,
        started_at: boot + i64::try_from(number(19) / TICKS_PER_SECOND).unwrap_or(0),
        command: words,
        terminal: terminal(number(4)),
    })
}

/// The name of a terminal by its device number, where containers have theirs: `pts/N`.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    // UNIX98_PTY_SLAVE_MAJOR and the seven after it.
    if (136..144).contains(&major) { format!("pts/{}", (major - 136) * 256 + minor) } else { String::new() }
}

impl Engine {
    /// What a container uses now.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn usage(&self, namespace: &Namespace, id: &str) -> Result<Usage, EngineError> {
        Ok(usage(self.pid_of(namespace, id)?))
    }

    /// Processes of a container, by their number.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`].
    pub fn top(&self, namespace: &Namespace, id: &str) -> Result<Vec<ProcessLine>, EngineError> {
        let pid = self.pid_of(namespace, id)?;
        let boot = boot_time();
        Ok(Cgroups::of(pid).pids().into_iter().filter_map(|pid| line(pid, boot)).collect())
    }

    /// Process id of a running container.
    pub(super) fn pid_of(&self, namespace: &Namespace, id: &str) -> Result<u32, EngineError> {
        match self.container(namespace, id)?.status {
            Status::Running { pid } => Ok(pid),
            _ => Err(EngineError::NotRunning { id: id.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_summed_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1\n  eth0: 100 1 0 0 0 0 0 0 7 1\n  eth1:5 1 0 0 0 0 0 0 2 1\n";
        assert_eq!(network(text), (105, 9));
        assert_eq!(network(""), (0, 0));
    }

    #[test]
    fn this_process_is_read_as_it_is() {
        let own = line(std::process::id(), boot_time()).unwrap();
        assert!(own.memory_bytes > 0 && !own.command.is_empty(), "{own:?}");
        assert_eq!(line(u32::MAX, 0), None);
    }

    #[test]
    fn terminals_have_their_names() {
        assert_eq!(terminal(0), "");
        assert_eq!(terminal(136 << 8), "pts/0");
        assert_eq!(terminal((136 << 8) | 17), "pts/17");
    }
}
