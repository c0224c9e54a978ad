//! What a container uses, in the messages of containerd's cgroups library: v1's or v2's, as the machine accounts.
//!
//! A file that is not there (a controller that is off) leaves its numbers at 0; "no limit" is v1's largest number, or
//! in v2 the largest there is.
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use prost_types::Any;
use runtime_api::any;
use runtime_api::io::containerd::cgroups::{v1, v2};

use super::cgroup::Cgroup;

/// Nanoseconds in one tick of `cpuacct.stat`: the kernel's USER_HZ is 100 wherever Linux runs.
const TICK_NANOS: u64 = 10_000_000;

/// What the container of `cgroup` uses now.
pub(crate) fn read(cgroup: &Cgroup) -> Any {
    match &cgroup.v2 {
        Some(unified) if !cgroup.is_v1() => any::pack(&unified_metrics(unified)),
        _ => any::pack(&legacy_metrics(cgroup)),
    }
}

/// A cgroup's directory, asked for numbers.
struct Files<'a>(Option<&'a Path>);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        self.0.and_then(|directory| fs::read_to_string(directory.join(name)).ok()).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        number(self.text(name).trim())
    }

    /// Lines of a key and a number.
    fn table(&self, name: &str) -> Table {
        let text = self.text(name);
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), number(value.trim())))
        });
        Table(pairs.collect())
    }

    /// Sizes of huge pages that the cgroup counts, as `2MB`.
    fn page_sizes(&self, suffix: &str) -> Vec<String> {
        let names = self.0.and_then(|directory| fs::read_dir(directory).ok()).into_iter().flatten().flatten();
        let mut sizes: Vec<String> = names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
                (!size.contains('.')).then(|| size.to_owned())
            })
            .collect();
        sizes.sort();
        sizes
    }
}

struct Table(HashMap<String, u64>);

impl Table {
    fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// A number, or `max` for none.
fn number(text: &str) -> u64 {
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

/// A limit where 0 says "none".
fn limit(text: &str) -> u64 {
    if text == "max" { 0 } else { number(text) }
}

fn legacy_metrics(cgroup: &Cgroup) -> v1::Metrics {
    let of = |controller: &str| Files(cgroup.v1.get(controller).map(std::path::PathBuf::as_path));
    let (pids, memory, hugetlb, rdma) = (of("pids"), of("memory"), of("hugetlb"), of("rdma"));
    let control = memory.table("memory.oom_control");
    v1::Metrics {
        hugetlb: hugetlb
            .page_sizes(".usage_in_bytes")
            .into_iter()
            .map(|pagesize| v1::HugetlbStat {
                usage: hugetlb.number(&format!("hugetlb.{pagesize}.usage_in_bytes")),
                max: hugetlb.number(&format!("hugetlb.{pagesize}.max_usage_in_bytes")),
                failcnt: hugetlb.number(&format!("hugetlb.{pagesize}.failcnt")),
                pagesize,
            })
            .collect(),
        pids: Some(v1::PidsStat {
            current: pids.number("pids.current"),
            limit: limit(pids.text("pids.max").trim()),
        }),
        cpu: Some(legacy_cpu(&of("cpu"), &of("cpuacct"))),
        memory: Some(legacy_memory(&memory)),
        blkio: Some(legacy_blkio(&of("blkio"))),
        rdma: Some(v1::RdmaStat {
            current: rdma_entries(&rdma.text("rdma.current"), v1_rdma),
            limit: rdma_entries(&rdma.text("rdma.max"), v1_rdma),
        }),
        network: Vec::new(),
        cgroup_stats: None,
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill_disable: control.get("oom_kill_disable"),
            under_oom: control.get("under_oom"),
            oom_kill: control.get("oom_kill"),
        }),
    }
}

fn legacy_cpu(cpu: &Files<'_>, account: &Files<'_>) -> v1::CpuStat {
    let ticks = account.table("cpuacct.stat");
    let throttling = cpu.table("cpu.stat");
    v1::CpuStat {
        usage: Some(v1::CpuUsage {
            total: account.number("cpuacct.usage"),
            kernel: ticks.get("system").saturating_mul(TICK_NANOS),
            user: ticks.get("user").saturating_mul(TICK_NANOS),
            per_cpu: account.text("cpuacct.usage_percpu").split_whitespace().map(number).collect(),
        }),
        throttling: Some(v1::Throttle {
            periods: throttling.get("nr_periods"),
            throttled_periods: throttling.get("nr_throttled"),
            throttled_time: throttling.get("throttled_time"),
        }),
    }
}

fn legacy_memory(memory: &Files<'_>) -> v1::MemoryStat {
    let stat = memory.table("memory.stat");
    let entry = |module: &str| {
        Some(v1::MemoryEntry {
            limit: memory.number(&format!("{module}.limit_in_bytes")),
            usage: memory.number(&format!("{module}.usage_in_bytes")),
            max: memory.number(&format!("{module}.max_usage_in_bytes")),
            failcnt: memory.number(&format!("{module}.failcnt")),
        })
    };
    v1::MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
    }
}

fn legacy_blkio(blkio: &Files<'_>) -> v1::BlkIoStat {
    // What the schedulers count, or, where none does, what the throttle counts.
    let entries = |name: &str, other: &str| {
        let found = blkio_entries(&blkio.text(name));
        if found.is_empty() { blkio_entries(&blkio.text(other)) } else { found }
    };
    v1::BlkIoStat {
        io_service_bytes_recursive: entries(
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ),
        io_serviced_recursive: entries(
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ),
        io_queued_recursive: entries("blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"),
        io_service_time_recursive: entries(
            "blkio.bfq.io_service_time_recursive",
            "blkio.io_service_time_recursive",
        ),
        io_wait_time_recursive: entries("blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"),
        io_merged_recursive: entries("blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"),
        io_time_recursive: entries("blkio.bfq.time_recursive", "blkio.time_recursive"),
        sectors_recursive: entries("blkio.bfq.sectors_recursive", "blkio.sectors_recursive"),
    }
}

/// Lines `8:0 Read 4096` or `8:0 4096`; the line of the total is left out.
fn blkio_entries(text: &str) -> Vec<v1::BlkIoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let (second, third) = (words.next()?, words.next());
            let (op, value) = match third {
                Some(value) => (second, value),
                None => ("", second),
            };
            Some(v1::BlkIoEntry {
                op: op.to_owned(),
                device: String::new(),
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                value: value.parse().ok()?,
            })
        })
        .collect()
}

/// Lines `mlx4_0 hca_handle=2 hca_object=2000`.
fn rdma_entries<T>(text: &str, entry: impl Fn(String, u32, u32) -> T) -> Vec<T> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let device = words.next()?.to_owned();
            let value = |word: Option<&str>| {
                let (_, value) = word?.split_once('=')?;
                Some(if value == "max" { u32::MAX } else { value.parse().ok()? })
            };
            let (handles, objects) = (value(words.next())?, value(words.next())?);
            Some(entry(device, handles, objects))
        })
        .collect()
}

fn v1_rdma(device: String, hca_handles: u32, hca_objects: u32) -> v1::RdmaEntry {
    v1::RdmaEntry { device, hca_handles, hca_objects }
}

fn v2_rdma(device: String, hca_handles: u32, hca_objects: u32) -> v2::RdmaEntry {
    v2::RdmaEntry { device, hca_handles, hca_objects }
}

fn unified_metrics(directory: &Path) -> v2::Metrics {
    let files = Files(Some(directory));
    let (cpu, events) = (files.table("cpu.stat"), files.table("memory.events"));
    v2::Metrics {
        pids: Some(v2::PidsStat {
            current: files.number("pids.current"),
            limit: limit(files.text("pids.max").trim()),
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: cpu.get("usage_usec"),
            user_usec: cpu.get("user_usec"),
            system_usec: cpu.get("system_usec"),
            nr_periods: cpu.get("nr_periods"),
            nr_throttled: cpu.get("nr_throttled"),
            throttled_usec: cpu.get("throttled_usec"),
        }),
        memory: Some(unified_memory(&files)),
        rdma: Some(v2::RdmaStat {
            current: rdma_entries(&files.text("rdma.current"), v2_rdma),
            limit: rdma_entries(&files.text("rdma.max"), v2_rdma),
        }),
        io: Some(v2::IoStat { usage: io_entries(&files.text("io.stat")) }),
        hugetlb: files
            .page_sizes(".current")
            .into_iter()
            .map(|pagesize| v2::HugeTlbStat {
                current: files.number(&format!("hugetlb.{pagesize}.current")),
                max: files.number(&format!("hugetlb.{pagesize}.max")),
                pagesize,
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
        }),
    }
}

fn unified_memory(files: &Files<'_>) -> v2::MemoryStat {
    let stat = files.table("memory.stat");
    v2::MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: files.number("memory.current"),
        usage_limit: files.number("memory.max"),
        swap_usage: files.number("memory.swap.current"),
        swap_limit: files.number("memory.swap.max"),
    }
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn io_entries(text: &str) -> Vec<v2::IoEntry> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let mut entry =
                v2::IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Default::default() };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let value = number(value);
                match key {
                    "rbytes" => entry.rbytes = value,
                    "wbytes" => entry.wbytes = value,
                    "rios" => entry.rios = value,
                    "wios" => entry.wios = value,
                    _ => {}
                }
            }
            Some(entry)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_v1_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("memory.stat", "cache 7\nrss 8\ntotal_rss 9\n");
        write("memory.usage_in_bytes", "4096\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        let memory = legacy_memory(&Files(Some(directory.path())));
        assert_eq!((memory.cache, memory.rss, memory.total_rss, memory.dirty), (7, 8, 9, 0));
        assert_eq!(memory.usage.unwrap().usage, 4096);
        let entries = blkio_entries("8:0 Read 10\n8:0 Write 20\nTotal 30\n8:16 5\n");
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[1].op.as_str(), entries[1].value), ("Write", 20));
        assert_eq!((entries[2].minor, entries[2].value), (16, 5));
    }

    #[test]
    fn tables_of_v2_are_read_and_no_limit_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "12\n");
        write("pids.max", "max\n");
        write("pids.current", "3\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        write("hugetlb.2MB.current", "5\n");
        write("hugetlb.2MB.rsvd.current", "6\n");
        let metrics = unified_metrics(directory.path());
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.usage, memory.usage_limit), (12, u64::MAX));
        assert_eq!((metrics.pids.unwrap().current, metrics.pids.unwrap().limit), (3, 0));
        assert_eq!(metrics.io.unwrap().usage[0].wios, 4);
        assert_eq!(metrics.hugetlb.len(), 1);
    }

    #[test]
    fn lines_of_rdma_are_read() {
        let entries = rdma_entries("mlx4_0 hca_handle=2 hca_object=max\nnonsense\n", v2_rdma);
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].hca_handles, entries[0].hca_objects), (2, u32::MAX));
    }
}
