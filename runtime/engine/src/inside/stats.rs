//! What a container uses, from its cgroup: version 2, version 1, and machines that have both.
//!
//! The cgroup is that of its first process, as `/proc/PID/cgroup` tells it, whoever made it. A figure that the machine does not
//! keep is 0.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use storage_model::Namespace;

use crate::{Engine, EngineError};

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Above this a limit of version 1 is none: it writes its largest number, rounded to pages.
const NO_LIMIT: u64 = 1 << 60;

/// Counters and levels of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// When this was read, in nanoseconds since an arbitrary moment of this engine's life.
    pub at_ns: u64,
    /// Memory, without what the kernel can drop at once, in bytes.
    pub memory_bytes: u64,
    /// Limit of it; 0: none.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Limit of them; 0: none.
    pub pids_limit: u64,
    /// Bytes received over its network, loopback left out.
    pub network_received_bytes: u64,
    /// Bytes sent.
    pub network_sent_bytes: u64,
    /// Bytes read from block devices.
    pub block_read_bytes: u64,
    /// Bytes written to them.
    pub block_written_bytes: u64,
    /// Processors it may use, in thousandths; 0: all.
    pub cpu_limit_millis: u64,
}

/// Directories of a process's cgroup, by controller; the empty name is version 2's.
struct Cgroup(HashMap<String, PathBuf>);

impl Cgroup {
    /// Reads `/proc/PID/cgroup`: lines `number:controllers:path` (cgroups(7)).
    fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        Self(parse(&text, Path::new(CGROUPS)))
    }

    /// Number in file `name` of the controller; of version 2 where there is no such controller.
    fn number(&self, controller: &str, old: &str, new: &str) -> u64 {
        self.text(controller, old, new).trim().parse().unwrap_or(0)
    }

    fn text(&self, controller: &str, old: &str, new: &str) -> String {
        let path = match (self.0.get(controller), self.0.get("")) {
            (Some(directory), _) => directory.join(old),
            (None, Some(directory)) => directory.join(new),
            (None, None) => return String::new(),
        };
        fs::read_to_string(path).unwrap_or_default()
    }

    fn limit(&self, controller: &str, old: &str, new: &str) -> u64 {
        Some(self.number(controller, old, new)).filter(|limit| *limit < NO_LIMIT).unwrap_or(0)
    }

    fn has(&self, controller: &str) -> bool {
        self.0.contains_key(controller)
    }
}

fn parse(text: &str, mounted: &Path) -> HashMap<String, PathBuf> {
    let mut directories = HashMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            // Beside version 1, version 2 is mounted below.
            let unified = mounted.join("unified");
            let base = if unified.is_dir() { unified } else { mounted.to_owned() };
            directories.insert(String::new(), base.join(path));
        }
        for controller in controllers.split(',').filter(|name| !name.is_empty()) {
            let both = mounted.join(controllers);
            let base = if both.is_dir() { both } else { mounted.join(controller) };
            directories.insert(controller.to_owned(), base.join(path));
        }
    }
    directories
}

/// Value of `key` in lines `key value`.
fn field(text: &str, key: &str) -> u64 {
    let values = text.lines().filter_map(|line| line.split_once(' '));
    let found = values.filter(|(name, _)| *name == key).find_map(|(_, value)| value.trim().parse().ok());
    found.unwrap_or(0)
}

fn read(pid: u32, at_ns: u64) -> Usage {
    let cgroup = Cgroup::of(pid);
    let memory = cgroup.text("memory", "memory.stat", "memory.stat");
    let inactive = field(&memory, if cgroup.has("memory") { "total_inactive_file" } else { "inactive_file" });
    let used = cgroup.number("memory", "memory.usage_in_bytes", "memory.current");
    let (block_read_bytes, block_written_bytes) = block(&cgroup);
    let (network_received_bytes, network_sent_bytes) = network(pid);
    Usage {
        cpu_ns: match cgroup.has("cpuacct") {
            true => cgroup.number("cpuacct", "cpuacct.usage", ""),
            false => field(&cgroup.text("cpu", "cpu.stat", "cpu.stat"), "usage_usec") * 1000,
        },
        at_ns,
        memory_bytes: used.saturating_sub(inactive),
        memory_limit_bytes: cgroup.limit("memory", "memory.limit_in_bytes", "memory.max"),
        pids: cgroup.number("pids", "pids.current", "pids.current"),
        pids_limit: cgroup.limit("pids", "pids.max", "pids.max"),
        network_received_bytes,
        network_sent_bytes,
        block_read_bytes,
        block_written_bytes,
        cpu_limit_millis: cpu_limit(&cgroup),
    }
}

fn cpu_limit(cgroup: &Cgroup) -> u64 {
    let (quota, period) = if cgroup.has("cpu") {
        let quota = cgroup.text("cpu", "cpu.cfs_quota_us", "").trim().parse::<i64>().unwrap_or(-1);
        (u64::try_from(quota).unwrap_or(0), cgroup.number("cpu", "cpu.cfs_period_us", ""))
    } else {
        let text = cgroup.text("cpu", "", "cpu.max");
        let mut words = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        (words.next().unwrap_or(0), words.next().unwrap_or(0))
    };
    (quota * 1000).checked_div(period).unwrap_or(0)
}

/// Bytes read from and written to block devices.
fn block(cgroup: &Cgroup) -> (u64, u64) {
    if cgroup.has("blkio") {
        // Lines `8:0 Read 4096`, and a total.
        let text = cgroup.text("blkio", "blkio.throttle.io_service_bytes_recursive", "");
        let sum = |kind: &str| {
            let rows = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            rows.filter(|row| row.get(1) == Some(&kind))
                .filter_map(|row| row.get(2)?.parse::<u64>().ok())
                .sum()
        };
        return (sum("Read"), sum("Write"));
    }
    // Lines `8:0 rbytes=4096 wbytes=0 ...`.
    let text = cgroup.text("io", "", "io.stat");
    let sum = |key: &str| {
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.filter(|(name, _)| *name == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

/// Bytes received and sent in the network of `pid`, loopback left out (proc(5), `/proc/net/dev`).
fn network(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    sum_interfaces(&text)
}

fn sum_interfaces(text: &str) -> (u64, u64) {
    let rows = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    rows.fold((0, 0), |(received, sent), (_, row)| {
        let numbers: Vec<u64> = row.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        (received + numbers.first().unwrap_or(&0), sent + numbers.get(8).unwrap_or(&0))
    })
}

impl Engine {
    /// What a container that runs uses.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`], [`EngineError::NoContainer`].
    pub fn usage(&self, namespace: &Namespace, id: &str) -> Result<Usage, EngineError> {
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let pid = self.first_process(namespace, id)?;
        let at = BEGUN.get_or_init(Instant::now).elapsed().as_nanos();
        Ok(read(pid, u64::try_from(at).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_of_cgroups_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let one = parse("0::/windlass/a\n", directory.path());
        assert_eq!(one[""], directory.path().join("windlass/a"));
        fs::create_dir(directory.path().join("unified")).unwrap();
        fs::create_dir(directory.path().join("cpu,cpuacct")).unwrap();
        let text = "12:cpu,cpuacct:/a\n5:memory:/b\n1:name=systemd:/c\n0::/d\nnonsense\n";
        let many = parse(text, directory.path());
        assert_eq!(many["cpuacct"], directory.path().join("cpu,cpuacct/a"));
        assert_eq!(many["memory"], directory.path().join("memory/b"));
        assert_eq!(many[""], directory.path().join("unified/d"));
    }

    #[test]
    fn figures_are_those_of_their_lines() {
        assert_eq!(field("cache 1\ninactive_file 42\n", "inactive_file"), 42);
        let text = "Inter-|\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0\n";
        assert_eq!(sum_interfaces(text), (100, 200));
    }

    #[test]
    fn this_process_has_figures() {
        let usage = read(std::process::id(), 7);
        assert_eq!(usage.at_ns, 7);
    }
}
