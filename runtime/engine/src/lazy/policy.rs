//! Lazy or whole: both are estimated in seconds to the first useful output, and the smaller one is chosen.
//!
//! ```text
//! whole = missing bytes / bandwidth, or unpacking them if that is slower, and one round trip
//! lazy  = tables of contents and the working set / bandwidth, and round trips for the faults
//! ```
//! The working set is that of the recorded trace, or a share of the image that published measurements agree on. Pure
//! arithmetic on what was observed; the words say which numbers were used, because whoever asks why wants those.

use std::fmt::Write as _;

use super::pace::Pace;

/// Share of an image that a container reads until it is of use: 6.4 % (Harter et al., FAST '16, "Slacker", 57 images).
const WORKING_SET_SHARE: f64 = 0.064;

/// Files read until then when no trace says how many: the median of the images of `bench/compare`.
const FAULTS_UNTRACED: f64 = 150.0;

/// Reads that are under way at the same time: a start is a chain of programs that wait for their files, so few are.
const FAULTS_AT_ONCE: f64 = 2.0;

/// Uncompressed bytes of one compressed byte, about, for gzip layers of programs.
const EXPANSION: f64 = 2.6;

/// Uncompressed bytes unpacked in a second on two cores (`bench/results`, cold pulls on `lan`).
const UNPACKED_BYTES_PER_SECOND: f64 = 220e6;

/// Lazy has to be this much sooner: below, the whole image is worth more, since reading it later costs nothing.
const WORTH: f64 = 0.85;

/// What is known of an image before it is brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Facts {
    /// Compressed bytes of layers that are not here.
    pub(crate) missing_bytes: u64,
    /// Those of them that have to be brought whole in any case; at most `missing_bytes`.
    pub(crate) opaque_bytes: u64,
    /// Bytes and number of reads of the last recorded start.
    pub(crate) traced: Option<(u64, u64)>,
}

/// Both ways, in seconds, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) full_seconds: f64,
    pub(crate) lazy_seconds: f64,
    /// A sentence with the numbers.
    pub(crate) why: String,
}

impl Estimate {
    /// Estimates both ways for an image of which `facts` are known, over a link that has shown `pace`.
    pub(crate) fn new(facts: Facts, pace: Pace) -> Self {
        let bandwidth = pace.bytes_per_second.max(1.0);
        let trip = pace.round_trip_seconds;
        let missing = facts.missing_bytes as f64;
        let unpack = missing * EXPANSION / UNPACKED_BYTES_PER_SECOND;
        let full_seconds = trip + (missing / bandwidth).max(unpack);
        let (working, faults) = match facts.traced {
            Some((bytes, reads)) => (bytes as f64 / EXPANSION, reads as f64),
            None => (missing * WORKING_SET_SHARE, FAULTS_UNTRACED),
        };
        let opaque = facts.opaque_bytes as f64;
        let whole = (opaque / bandwidth).max(opaque * EXPANSION / UNPACKED_BYTES_PER_SECOND);
        // What a trace foretells is asked for at once, in a few long ranges.
        let waits = if facts.traced.is_some() { 2.0 } else { faults / FAULTS_AT_ONCE };
        let lazy_seconds = 2.0 * trip + whole + working.min(missing - opaque) / bandwidth + waits * trip;
        let mut why = String::new();
        let known = if pace.is_measured { "measured" } else { "assumed" };
        let _ = write!(
            why,
            "{:.1} MB are missing; at {:.1} MB/s and {:.0} ms ({known}) all of it takes {full_seconds:.1} s, \
             a start from {} takes {lazy_seconds:.1} s",
            missing / 1e6,
            bandwidth / 1e6,
            trip * 1e3,
            match facts.traced {
                Some((bytes, reads)) => format!("the recorded {reads} reads of {:.1} MB", bytes as f64 / 1e6),
                None => format!("about {:.1} MB of it", working / 1e6),
            }
        );
        Self { full_seconds, lazy_seconds, why }
    }

    /// Whether lazy is worth it.
    pub(crate) fn is_lazy(&self) -> bool {
        self.lazy_seconds < self.full_seconds * WORTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(megabits: f64, milliseconds: f64) -> Pace {
        Pace {
            bytes_per_second: megabits * 125_000.0,
            round_trip_seconds: milliseconds / 1e3,
            is_measured: true,
        }
    }

    fn is_lazy(megabytes: u64, pace: Pace) -> bool {
        Estimate::new(Facts { missing_bytes: megabytes * 1_000_000, ..Facts::default() }, pace).is_lazy()
    }

    #[test]
    fn a_large_image_over_a_slow_link_is_lazy_and_a_small_or_near_one_is_not() {
        for (megabytes, megabits, milliseconds, expected) in [
            (400, 200.0, 20.0, true),
            (400, 50.0, 80.0, true),
            (2000, 1000.0, 1.0, true),
            (3, 200.0, 20.0, false),
            (30, 1000.0, 50.0, false),
            (0, 1000.0, 1.0, false),
        ] {
            assert_eq!(
                is_lazy(megabytes, pace(megabits, milliseconds)),
                expected,
                "{megabytes} MB at {megabits} Mbit/s, {milliseconds} ms"
            );
        }
    }

    #[test]
    fn a_trace_of_most_of_the_image_is_a_reason_to_bring_it_whole() {
        let facts = |bytes| Facts { missing_bytes: 100_000_000, opaque_bytes: 0, traced: Some((bytes, 900)) };
        let link = pace(100.0, 20.0);
        assert!(Estimate::new(facts(20_000_000), link).is_lazy());
        assert!(!Estimate::new(facts(250_000_000), link).is_lazy());
    }

    #[test]
    fn an_image_that_has_to_be_brought_whole_anyway_is_not_lazy() {
        let facts = |opaque_bytes| Facts { missing_bytes: 400_000_000, opaque_bytes, traced: None };
        assert!(Estimate::new(facts(10_000_000), pace(200.0, 20.0)).is_lazy());
        assert!(!Estimate::new(facts(390_000_000), pace(200.0, 20.0)).is_lazy());
    }

    #[test]
    fn the_words_have_the_numbers_and_whether_they_were_measured() {
        let facts = Facts { missing_bytes: 400_000_000, ..Facts::default() };
        let why = Estimate::new(facts, Pace::default()).why;
        assert!(why.contains("400.0 MB") && why.contains("assumed"), "{why}");
        let traced = Facts { traced: Some((5_000_000, 42)), ..facts };
        assert!(Estimate::new(traced, pace(10.0, 1.0)).why.contains("42 reads of 5.0 MB"));
    }
}
