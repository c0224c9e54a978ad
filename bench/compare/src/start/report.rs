//! Medians, minima and ratios as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::spread::Spread;

/// One container that ran `true`.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) peer: &'static str,
    /// Seconds of the whole command.
    pub(super) seconds: f64,
}

/// Containers started at once.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) peer: &'static str,
    pub(super) count: usize,
    /// Seconds until the last had ended.
    pub(super) seconds: f64,
    /// Memory of the engine's processes for each container that runs, in bytes, if it has any.
    pub(super) memory_bytes: Option<u64>,
}

/// The tables of a session.
pub(super) fn tables(starts: &[Start], crowds: &[Crowd]) -> String {
    let mut peers: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for start in starts {
        peers.entry(start.peer).or_default().push(start.seconds * 1000.0);
    }
    let spread = |peer: &str| peers.get(peer).map(|all| Spread::of(all.iter().copied()));
    let ours = spread("windlass");
    let mut text = String::from(
        "`run --rm IMAGE true`, milliseconds, median (least). `ratio` is windlass over the peer, of medians (of minima).\n\n\
         | peer | runs | ms | ratio |\n|---|---|---|---|\n",
    );
    for (peer, all) in &peers {
        let theirs = Spread::of(all.iter().copied());
        let ratio = match &ours {
            Some(ours) if *peer != "windlass" => {
                format!("{:.2} ({:.2})", ours.median / theirs.median, ours.least / theirs.least)
            }
            _ => "-".to_owned(),
        };
        let _ = writeln!(text, "| {peer} | {} | {theirs:.1} | {ratio} |", all.len());
    }
    text.push_str(
        "\nMany at once: seconds until the last has ended, and memory of the engine's own processes a container.\n\n\
         | containers | peer | seconds | MB a container |\n|---|---|---|---|\n",
    );
    for crowd in crowds {
        let memory = crowd.memory_bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1e6));
        let _ = writeln!(text, "| {} | {} | {:.2} | {memory} |", crowd.count, crowd.peer, crowd.seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_ours_over_theirs() {
        let start = |peer, seconds| Start { peer, seconds };
        let starts = [start("windlass", 0.03), start("windlass", 0.05), start("runc", 0.02)];
        let crowd = Crowd { peer: "windlass", count: 10, seconds: 0.5, memory_bytes: Some(2_000_000) };
        let text = tables(&starts, &[crowd]);
        assert!(text.contains("| runc | 1 | 20.0 (20.0) | 2.00 (1.50) |"), "{text}");
        assert!(text.contains("| 10 | windlass | 0.50 | 2.0 |"), "{text}");
    }
}
