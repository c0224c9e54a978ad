//! The cold state that every pull starts from.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Programs that all peers use or are: an installed tool is warm on a machine in use.
const TOOLS: [&str; 11] = [
    "/usr/bin/ctr",
    "/usr/bin/ctr-remote",
    "/usr/bin/containerd",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/runc",
    "/usr/bin/crun",
    "/usr/bin/podman",
    "/usr/bin/conmon",
    "/usr/bin/unpigz",
    "/usr/bin/curl",
    "/usr/bin/docker-registry",
];

/// What stays warm: the tools with their libraries, and the registry's blobs (a registry is another machine).
#[derive(Debug)]
pub(crate) struct Warm {
    tools: BTreeSet<PathBuf>,
}

impl Warm {
    /// Finds the tools' files; `engine` is the binary under test.
    pub(crate) fn new(engine: &Path) -> Self {
        let mut tools = BTreeSet::new();
        for tool in TOOLS.iter().map(PathBuf::from).chain([engine.to_owned()]).filter(|path| path.exists()) {
            let listed =
                Command::new("ldd").arg(&tool).output().map(|output| output.stdout).unwrap_or_default();
            let listed = String::from_utf8_lossy(&listed).into_owned();
            let libraries =
                listed.split_whitespace().filter(|word| word.starts_with('/') && word.contains(".so"));
            tools.extend(libraries.map(PathBuf::from));
            tools.insert(tool);
        }
        Self { tools }
    }

    /// Empties the page cache, then reads back what would be warm.
    ///
    /// # Errors
    /// The process may not drop caches: it is not root's.
    pub(crate) fn drop_everything_else(&self, blobs: &[PathBuf]) -> Result<()> {
        Command::new("sync").status()?;
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache needs root")?;
        let mut buffer = vec![0; 1 << 20];
        for path in self.tools.iter().chain(blobs) {
            let Ok(mut file) = fs::File::open(path) else { continue };
            while matches!(file.read(&mut buffer), Ok(1..)) {}
        }
        Ok(())
    }
}

/// Seconds that the machine's cores have been busy since it started (`/proc/stat`, in ticks of 10 ms).
pub(crate) fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq: all but the two that wait.
    let busy: u64 =
        ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    busy as f64 / 100.0
}
