//! The processes of a container: those of its cgroup, as `/proc` shows them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use storage_model::Namespace;

use crate::{Engine, EngineError};

/// Ticks a second in `/proc/PID/stat` (`USER_HZ`): 100 on every architecture Linux still has.
const TICKS: u64 = 100;

/// Bytes of a page, as `/proc/PID/statm` counts; machines with larger pages show less than they use.
const PAGE_BYTES: u64 = 4096;

/// A process of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopProcess {
    /// Its id on this machine.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Effective user.
    pub uid: u32,
    /// As in `/proc/PID/stat`: R, S, D, Z, T.
    pub state: String,
    /// Processor time, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// Start, in seconds since 1970.
    pub started_unix: i64,
    /// Name of its terminal, such as `pts/0`; empty: none.
    pub terminal: String,
    /// Its words; the name in brackets of one without.
    pub command: Vec<String>,
}

impl Engine {
    /// The processes of a container that runs, by their ids.
    ///
    /// # Errors
    /// [`EngineError::NotRunning`], [`EngineError::NoContainer`].
    pub fn top(&self, namespace: &Namespace, id: &str) -> Result<Vec<TopProcess>, EngineError> {
        let first = self.first_process(namespace, id)?;
        let booted = booted_unix();
        let mut pids = members(first);
        pids.sort_unstable();
        // One that has ended since is left out.
        Ok(pids.into_iter().filter_map(|pid| read(pid, booted)).collect())
    }
}

/// All processes in the process namespace of `first`: its cgroup may be shared with others (`--cgroup-parent`), its process
/// namespace is its own unless it asked for the machine's; then its descendants.
fn members(first: u32) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(first);
    let is_shared = own.is_none() || own == namespace(std::process::id());
    let all: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    if is_shared {
        descendants(first, &all)
    } else {
        all.into_iter().filter(|pid| namespace(*pid) == own).collect()
    }
}

fn descendants(first: u32, all: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all.iter().filter_map(|pid| Some((*pid, read(*pid, 0)?.parent))).collect();
    let mut found = vec![first];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

fn booted_unix() -> i64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

fn read(pid: u32, booted: i64) -> Option<TopProcess> {
    let directory = format!("/proc/{pid}");
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let mut process = parse_stat(&stat, booted)?;
    process.pid = pid;
    process.uid = fs::metadata(&directory).ok()?.uid();
    let memory = fs::read_to_string(format!("{directory}/statm")).unwrap_or_default();
    let pages: u64 = memory.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    process.memory_bytes = pages * PAGE_BYTES;
    let words = fs::read(format!("{directory}/cmdline")).unwrap_or_default();
    if !words.is_empty() {
        let words = words.strip_suffix(b"\0").unwrap_or(&words);
        process.command =
            words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    }
    Some(process)
}

/// One line of `/proc/PID/stat` (proc(5)): the name, in parentheses, may hold anything, so the last one ends it.
fn parse_stat(text: &str, booted: i64) -> Option<TopProcess> {
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    // Fields count from the state, which is the third.
    let ticks = number(11)? + number(12)?;
    let started = number(19)? / TICKS;
    let device = number(4).unwrap_or(0);
    let terminal = match (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00) {
        (136..=143, minor) => format!("pts/{}", ((device >> 8 & 0xfff) - 136) * 256 + minor),
        (4, minor) => format!("tty{minor}"),
        _ => String::new(),
    };
    Some(TopProcess {
        parent: number(1).and_then(|parent| u32::try_from(parent).ok())?,
        state: (*fields.first()?).to_owned(),
        cpu_ms: ticks * 1000 / TICKS,
        started_unix: booted.saturating_add(i64::try_from(started).unwrap_or(0)),
        terminal,
        command: vec![format!("[{name}]")],
        ..TopProcess::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let line = "42 (a) b (c) S 7 42 42 34817 42 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1000 0 0 0";
        let process = parse_stat(line, 500).unwrap();
        assert_eq!((process.parent, process.state.as_str(), process.cpu_ms), (7, "S", 2000));
        assert_eq!((process.started_unix, process.terminal.as_str()), (510, "pts/1"));
        assert_eq!(process.command, ["[a) b (c]"]);
        assert_eq!(parse_stat("nonsense", 0), None);
    }

    #[test]
    fn this_process_is_found_with_its_words() {
        let own = read(std::process::id(), booted_unix()).unwrap();
        assert!(own.command[0].contains("runtime_engine") && own.memory_bytes > 0, "{own:?}");
        assert!(descendants(std::process::id(), &[std::process::id()]).contains(&own.pid));
    }
}
