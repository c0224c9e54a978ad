//! Where a process's cgroups are in the file system: of v1 one a controller, of v2 one for all.
//!
//! Read once, right after the process was made and before its program runs: a program with rights over its own cgroup
//! may move itself deeper.
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest level of cgroups below a container's that is looked into for processes.
const DEPTH_MAX: usize = 16;

/// The directories of a container's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// By controller, as `memory`; empty where only v2 is mounted.
    pub(crate) v1: HashMap<String, PathBuf>,
    /// Of the unified hierarchy, if it is mounted.
    pub(crate) v2: Option<PathBuf>,
}

impl Cgroup {
    /// The cgroups of process `pid`.
    ///
    /// # Errors
    /// Those of reading `/proc`; `NotFound` when the process is gone.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::parse(&memberships, &mounts))
    }

    fn parse(memberships: &str, mounts: &str) -> Self {
        let mounts: Vec<Mounted<'_>> = mounts.lines().filter_map(Mounted::parse).collect();
        let mut found = Self::default();
        for line in memberships.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                found.v2 = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.place(path));
                continue;
            }
            for controller in controllers.split(',').filter(|name| !name.starts_with("name=")) {
                let holds = |mount: &&Mounted<'_>| {
                    mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
                };
                if let Some(mount) = mounts.iter().find(holds) {
                    found.v1.insert(controller.to_owned(), mount.place(path));
                }
            }
        }
        found
    }

    /// Whether accounting is v1's: on hybrid machines it is.
    pub(crate) fn is_v1(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Processes in the cgroup and below it, sorted.
    ///
    /// # Errors
    /// Those of reading; a cgroup that is gone has none.
    pub(crate) fn pids(&self) -> io::Result<Vec<u32>> {
        let directory = ["pids", "freezer", "devices", "memory"]
            .iter()
            .find_map(|controller| self.v1.get(*controller))
            .or(self.v2.as_ref());
        let mut pids = Vec::new();
        if let Some(directory) = directory {
            collect(directory, DEPTH_MAX, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

fn collect(directory: &Path, depth: usize, pids: &mut Vec<u32>) -> io::Result<()> {
    let text = match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // ENODEV: removed while it was read.
        Err(error) if error.raw_os_error() == Some(19) => return Ok(()),
        Err(error) => return Err(error),
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|&pid| pid != 0));
    if depth == 0 {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, pids)?;
        }
    }
    Ok(())
}

/// One line of mountinfo that matters here.
struct Mounted<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mounted<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        kind.starts_with("cgroup").then_some(Self { root, point, kind, options })
    }

    /// Where the cgroup `path` of this hierarchy is seen.
    fn place(&self, path: &str) -> PathBuf {
        let below = if self.root == "/" { Some(path) } else { path.strip_prefix(self.root) };
        // One outside of what is mounted cannot be seen: the mount point is the nearest there is.
        Path::new(self.point).join(below.unwrap_or("").trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 30 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn hybrid_machines_have_both() {
        let text = "12:memory:/a/b\n5:cpu,cpuacct:/a/c\n1:name=systemd:/s\n0::/u\n";
        let cgroup = Cgroup::parse(text, HYBRID);
        assert!(cgroup.is_v1());
        assert_eq!(cgroup.v1["memory"], Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(cgroup.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/a/c"));
        assert_eq!(cgroup.v1.len(), 3);
        assert_eq!(cgroup.v2.unwrap(), Path::new("/sys/fs/cgroup/unified/u"));
    }

    #[test]
    fn unified_machines_have_one() {
        let cgroup =
            Cgroup::parse("0::/x/y\n", "30 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw");
        assert!(!cgroup.is_v1());
        assert_eq!(cgroup.v2.unwrap(), Path::new("/sys/fs/cgroup/x/y"));
    }

    #[test]
    fn inside_a_container_the_mounts_root_is_left_out() {
        let mounts = "30 1 0:26 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let cgroup = Cgroup::parse("1:memory:/docker/1/inner\n", mounts);
        assert_eq!(cgroup.v1["memory"], Path::new("/sys/fs/cgroup/memory/inner"));
    }

    #[test]
    fn this_process_has_cgroups() {
        let cgroup = Cgroup::of(std::process::id()).unwrap();
        assert!(cgroup.pids().unwrap().contains(&std::process::id()));
    }
}
