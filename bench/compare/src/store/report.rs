//! The table of rates.

use std::fmt::Write as _;

use crate::spread::Spread;

pub(crate) const SNAPSHOTS: &str = "200 snapshots prepared, committed, removed, one after another";
pub(crate) const SNAPSHOTS_AT_ONCE: &str = "200 snapshots prepared, committed, removed, 16 at once";
pub(crate) const BLOBS: &str = "400 blobs of 4 KiB, one after another";
pub(crate) const BLOBS_AT_ONCE: &str = "400 blobs of 4 KiB, 16 at once";
pub(crate) const LARGE_BLOB: &str = "a blob of 256 MiB";
pub(crate) const COLLECTION: &str = "collection";
pub(crate) const IMPORT: &str = "import with unpacking";
pub(crate) const EXPORT: &str = "export";
pub(crate) const PUSH: &str = "push to a registry on loopback";

/// The rows, in order.
const ROWS: [&str; 9] =
    [SNAPSHOTS, SNAPSHOTS_AT_ONCE, BLOBS, BLOBS_AT_ONCE, LARGE_BLOB, COLLECTION, IMPORT, EXPORT, PUSH];

/// One measurement.
pub(crate) struct Sample {
    pub(crate) what: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) seconds: f64,
}

/// The whole page.
pub(crate) fn table(heading: &str, versions: &[String], samples: &[Sample], objects: usize) -> String {
    let mut text = heading.to_owned();
    for version in versions {
        let _ = writeln!(text, "- {version}");
    }
    text.push_str(
        "\nSeconds, median (least). `times` is containerd's time over windlass's, of medians (of minima): above 1 windlass\n\
         is faster.\n\n| what | runs | windlass | containerd | times |\n|---|---|---|---|---|\n",
    );
    for what in ROWS {
        let of = |engine: &str| {
            let numbers: Vec<f64> = samples
                .iter()
                .filter(|sample| sample.what == what && sample.engine == engine)
                .map(|sample| sample.seconds)
                .collect();
            (numbers.len(), Spread::of(numbers.into_iter()))
        };
        let ((runs, ours), (_, theirs)) = (of("windlass"), of("containerd"));
        let name = if what == COLLECTION { format!("{what} of {objects} objects") } else { what.to_owned() };
        let _ = writeln!(
            text,
            "| {name} | {runs} | {ours:.3} | {theirs:.3} | {:.1} ({:.1}) |",
            theirs.median / ours.median,
            theirs.least / ours.least
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_is_their_time_over_ours() {
        let sample = |engine, seconds| Sample { what: EXPORT, engine, seconds };
        let samples = [sample("windlass", 1.0), sample("windlass", 3.0), sample("containerd", 8.0)];
        let text = table("# T\n", &[], &samples, 5);
        assert!(text.contains("| export | 2 | 2.000 (1.000) | 8.000 (8.000) | 4.0 (8.0) |"), "{text}");
        assert!(text.contains("collection of 5 objects"), "{text}");
    }
}
