//! Limits of a container, as `run` and `update` take them.

use clap::Args;
use runtime_api::windlass::v1::{Resources, Ulimit};

use super::amounts::{cpus, pids, signed_size, ulimit};
use super::value::size;

/// What a cgroup limits.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct CgroupArgs {
    /// Memory, such as 512m or 2GiB
    #[arg(short, long, visible_alias = "memory-limit", value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", value_parser = signed_size, allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Memory that is left to it when the machine runs short
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_reservation: Option<u64>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u64>,
    /// Weight beside other containers; 1024 is usual
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Processors it may use, such as 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", value_parser = pids, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Weight of its block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u32>,
}

impl CgroupArgs {
    /// The limits on the wire; `None` when none is given.
    pub(crate) fn resources(&self) -> Option<Resources> {
        let signed = |bytes: Option<u64>| bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        let resources = Resources {
            memory_bytes: signed(self.memory),
            memory_swap_bytes: self.memory_swap.unwrap_or(0),
            memory_reservation_bytes: signed(self.memory_reservation),
            cpu_millis: self.cpus.unwrap_or(0),
            cpu_shares: self.cpu_shares.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            pids: self.pids_limit.unwrap_or(0),
            blkio_weight: self.blkio_weight.unwrap_or(0),
        };
        Some(resources).filter(|resources| *resources != Resources::default())
    }
}

/// All limits of `run`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Those of a cgroup.
    #[command(flatten)]
    pub(crate) cgroup: CgroupArgs,
    /// Limit of setrlimit, such as nofile=1024:4096
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// How gladly the kernel ends it when memory is short, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) shm_size: Option<u64>,
    /// Parent of its cgroup
    #[arg(long, visible_alias = "cgroup", value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}
