//! What the line to the registries is like: how long an answer takes to begin, and how fast bytes come then.

use std::sync::Mutex;
use std::time::Duration;

use crate::cache::lock;

/// Fewest bytes of a transfer that tells something about the rate.
const RATE_BYTES_MIN: u64 = 128 * 1024;
/// Weight of what was known before, against one new measure: a few transfers change the picture.
const MEMORY: f64 = 0.7;

/// Moving averages over the latest transfers.
#[derive(Default)]
pub(super) struct Line(Mutex<Measured>);

#[derive(Default)]
struct Measured {
    trip_s: Option<f64>,
    bytes_per_s: Option<f64>,
}

impl Line {
    /// An answer began after `trip`.
    pub(super) fn began(&self, trip: Duration) {
        let mut measured = lock(&self.0);
        measured.trip_s = Some(mixed(measured.trip_s, trip.as_secs_f64()));
    }

    /// `bytes` came in `took`, after the first.
    pub(super) fn came(&self, bytes: u64, took: Duration) {
        if bytes >= RATE_BYTES_MIN && !took.is_zero() {
            let mut measured = lock(&self.0);
            measured.bytes_per_s = Some(mixed(measured.bytes_per_s, bytes as f64 / took.as_secs_f64()));
        }
    }

    /// Bytes that come while one answer is waited for; 0 as long as nothing is known.
    pub(super) fn bytes_per_trip(&self) -> u64 {
        let measured = lock(&self.0);
        let bytes = measured.trip_s.unwrap_or(0.0) * measured.bytes_per_s.unwrap_or(0.0);
        bytes as u64
    }
}

fn mixed(before: Option<f64>, new: f64) -> f64 {
    before.map_or(new, |before| before * MEMORY + new * (1.0 - MEMORY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_20_ms_and_50_mbit_carries_125_kb_in_a_round_trip() {
        let line = Line::default();
        assert_eq!(line.bytes_per_trip(), 0);
        for _ in 0..3 {
            line.began(Duration::from_millis(20));
            line.came(6_250_000, Duration::from_secs(1));
            // Too few bytes to say anything: they came out of a buffer.
            line.came(1_000, Duration::from_nanos(1));
        }
        assert!(line.bytes_per_trip().abs_diff(125_000) < 10);
    }
}
