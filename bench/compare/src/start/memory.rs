//! Memory of processes, each shared page divided among those that share it.

use std::fs;

/// Bytes that the processes of these `programs` take: the sum of their proportional set sizes
/// (`/proc/PID/smaps_rollup`, proc(5)).
pub(super) fn of(programs: &[&str]) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        program.file_name().is_some_and(|name| programs.iter().any(|known| name == *known))
    });
    processes.map(|process| proportional(&process.path().join("smaps_rollup"))).sum()
}

fn proportional(rollup: &std::path::Path) -> u64 {
    let text = fs::read_to_string(rollup).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
