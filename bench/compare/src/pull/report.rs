//! Medians, minima and ratios as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::spread::Spread;

/// One cold pull and first run.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) network: &'static str,
    pub(crate) image: String,
    pub(crate) peer: &'static str,
    /// Seconds until the pull returned.
    pub(crate) pull: f64,
    /// Seconds from the run command to its first output.
    pub(crate) first: f64,
    /// Bytes that came over the network during the pull.
    pub(crate) bytes: u64,
    /// Bytes that had come when the run had ended.
    pub(crate) bytes_first: u64,
    /// Requests until then.
    pub(crate) requests: u64,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Busy seconds of all cores while pulling, everything on the machine included.
    pub(crate) busy: f64,
    /// Seconds of work by name, as the engine tells them.
    pub(crate) parts: Vec<(String, f64)>,
}

/// The tables of a whole session: one of times, one of where ours went.
pub(crate) fn tables(samples: &[Sample]) -> String {
    let mut groups: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&Sample>>> = BTreeMap::new();
    for sample in samples {
        let group = groups.entry((sample.network, sample.image.as_str())).or_default();
        group.entry(sample.peer).or_default().push(sample);
    }
    let mut text = String::from(
        "Seconds, median (least). `first` is from the run command to its first output; `total` is pull + first. `ratio` is\n\
         windlass's total over the peer's, of medians (of minima): below 1 windlass is faster.\n\n\
         | network | image | peer | runs | pull | first | total | ratio | MB pulled | MB with the run | requests | connections | busy core-s |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for ((network, image), peers) in &groups {
        let total = |samples: &[&Sample]| Spread::of(samples.iter().map(|sample| sample.pull + sample.first));
        let ours = peers.get("windlass").map(|samples| total(samples));
        for (peer, samples) in peers {
            let spread = |field: fn(&Sample) -> f64| Spread::of(samples.iter().map(|sample| field(sample)));
            let all = total(samples);
            let ratio = match &ours {
                Some(ours) if *peer != "windlass" => {
                    format!("{:.2} ({:.2})", ours.median / all.median, ours.least / all.least)
                }
                _ => "-".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {network} | {image} | {peer} | {} | {} | {} | {all} | {ratio} | {:.1} | {:.1} | {:.0} | {:.0} | {} |",
                samples.len(),
                spread(|sample| sample.pull),
                spread(|sample| sample.first),
                spread(|sample| sample.bytes as f64 / 1e6).median,
                spread(|sample| sample.bytes_first as f64 / 1e6).median,
                spread(|sample| sample.requests as f64).median,
                spread(|sample| sample.connections as f64).median,
                spread(|sample| sample.busy),
            );
        }
    }
    text.push_str("\nWhere a windlass pull spends its seconds of work (several run at once, so they add up to more than the pull):\n\n");
    text.push_str(&parts_table(&groups));
    text
}

fn parts_table(groups: &BTreeMap<(&str, &str), BTreeMap<&str, Vec<&Sample>>>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for sample in groups.values().filter_map(|peers| peers.get("windlass")).flatten() {
        for (name, _) in &sample.parts {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let mut text =
        format!("| network | image | {} |\n|---|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for ((network, image), peers) in groups {
        let Some(samples) = peers.get("windlass") else { continue };
        let _ = write!(text, "| {network} | {image} |");
        for name in &names {
            let values =
                samples.iter().filter_map(|sample| sample.parts.iter().find(|(part, _)| part == name));
            let _ = write!(text, " {} |", Spread::of(values.map(|(_, seconds)| *seconds)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(peer: &'static str, pull: f64) -> Sample {
        let parts = vec![("inflate".to_owned(), pull / 2.0)];
        Sample {
            network: "cloud",
            image: "i".into(),
            peer,
            pull,
            first: 1.0,
            bytes: 2_000_000,
            bytes_first: 3_000_000,
            requests: 9,
            connections: 3,
            busy: 4.0,
            parts,
        }
    }

    #[test]
    fn the_ratio_is_ours_over_theirs_and_medians_are_in_the_middle() {
        let text = tables(&[sample("windlass", 1.0), sample("windlass", 3.0), sample("podman", 7.0)]);
        assert!(
            text.contains(
                "| cloud | i | podman | 1 | 7.00 (7.00) | 1.00 (1.00) | 8.00 (8.00) | 0.38 (0.25) | 2.0 | 3.0 | 9 | 3 |"
            ),
            "{text}"
        );
        assert!(text.contains("| cloud | i | windlass | 2 | 2.00 (1.00) |"), "{text}");
        assert!(text.contains("| cloud | i | 1.00 (0.50) |"), "{text}");
    }
}
