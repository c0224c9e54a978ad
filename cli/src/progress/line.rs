//! One layer's line: who, what it does, how far it is, how fast. A pure function of its state and the terminal's width.

use std::time::Duration;

use runtime_api::windlass::v1::{LayerProgress, LayerState};

use super::{events, short};
use crate::output::amount;

/// Characters of a line besides the bar: digest 12, state 13, brackets 2, amounts 19, rate 11, and the blanks between.
const OTHER_CHARS: usize = 65;

/// Narrowest and widest bar, in characters: below it says nothing, above it says no more.
const BAR_CHARS: (usize, usize) = (8, 30);

/// Before this much time has passed a rate is noise.
const RATE_AFTER: Duration = Duration::from_millis(300);

/// How much has been received since when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Bytes received since the first event; what an earlier try had received does not count.
    pub(super) bytes: u64,
    /// Since then.
    pub(super) elapsed: Duration,
}

impl Pace {
    fn rate(self) -> String {
        if self.elapsed < RATE_AFTER {
            return String::new();
        }
        format!("{}/s", amount::size((self.bytes as f64 / self.elapsed.as_secs_f64()) as u64))
    }
}

/// The line for a layer on a terminal of `width` columns.
pub(super) fn layer(progress: &LayerProgress, pace: Pace, width: usize, colours: bool) -> String {
    let state = progress.state();
    let head = format!("{}  {:<12} ", short(&progress.digest), label(state));
    let total = amount::size(progress.total_bytes);
    match state {
        LayerState::Downloading => {
            let received = amount::size(progress.received_bytes);
            let bar = bar(progress.received_bytes, progress.total_bytes, width, colours);
            format!("{head}{bar}{received:>8} / {total:<8}  {}", pace.rate())
        }
        LayerState::Unpacking => {
            let bar = bar(progress.received_bytes, progress.total_bytes, width, colours);
            format!("{head}{bar}{total:>8} -> {}", amount::size(progress.unpacked_bytes))
        }
        _ => format!("{head}{total:>8}"),
    }
    .trim_end()
    .to_owned()
}

fn label(state: LayerState) -> &'static str {
    match state {
        LayerState::Exists => "here already",
        other => events::state(other),
    }
}

/// `[=====>    ]  `, or nothing when there is no room for one.
fn bar(part: u64, whole: u64, width: usize, colours: bool) -> String {
    let (least, most) = BAR_CHARS;
    let chars = width.saturating_sub(OTHER_CHARS).min(most);
    if chars < least {
        return String::new();
    }
    let share = if whole == 0 { 1.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) };
    let full = (share * chars as f64) as usize;
    let tip = if full < chars { ">" } else { "" };
    let done = format!("{}{tip}", "=".repeat(full));
    let rest = " ".repeat(chars.saturating_sub(done.len()));
    let (on, off) = if colours { ("\u{1b}[36m", "\u{1b}[0m") } else { ("", "") };
    format!("[{on}{done}{off}{rest}]  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(state: LayerState, received_bytes: u64) -> LayerProgress {
        LayerProgress {
            digest: format!("sha256:{}", "ab".repeat(32)),
            state: state.into(),
            received_bytes,
            total_bytes: 4 << 20,
            unpacked_bytes: 9 << 20,
        }
    }

    fn text(state: LayerState, received_bytes: u64, width: usize) -> String {
        let pace = Pace { bytes: received_bytes, elapsed: Duration::from_secs(1) };
        layer(&progress(state, received_bytes), pace, width, false)
    }

    #[test]
    fn each_state_has_its_line() {
        for (state, received, expected) in [
            (LayerState::Waiting, 0, "abababababab  waiting       4.0 MiB"),
            (
                LayerState::Downloading,
                1 << 20,
                "abababababab  downloading  [===>           ]   1.0 MiB / 4.0 MiB   1.0 MiB/s",
            ),
            (
                LayerState::Unpacking,
                4 << 20,
                "abababababab  unpacking    [===============]   4.0 MiB -> 9.0 MiB",
            ),
            (LayerState::Done, 4 << 20, "abababababab  done          4.0 MiB"),
            (LayerState::Exists, 0, "abababababab  here already  4.0 MiB"),
        ] {
            assert_eq!(text(state, received, 80), expected);
        }
    }

    #[test]
    fn a_line_fits_its_terminal_if_it_has_eighty_columns() {
        let mut widest = progress(LayerState::Downloading, 999 << 30);
        widest.total_bytes = 999 << 30;
        let pace = Pace { bytes: 999 << 20, elapsed: Duration::from_secs(1) };
        for width in [80, 100, 200] {
            assert!(layer(&widest, pace, width, false).chars().count() < width);
        }
        assert!(!text(LayerState::Downloading, 0, 60).contains('['));
    }

    #[test]
    fn an_early_rate_is_not_shown() {
        let pace = Pace { bytes: 1 << 30, elapsed: Duration::from_millis(10) };
        assert!(!layer(&progress(LayerState::Downloading, 1), pace, 80, false).contains("/s"));
    }

    #[test]
    fn odd_numbers_are_no_panic() {
        for (received, total) in [(5, 0), (0, 0), (u64::MAX, 1)] {
            let odd = LayerProgress { total_bytes: total, ..progress(LayerState::Downloading, received) };
            assert!(!layer(&odd, Pace::default(), 80, true).is_empty());
        }
    }
}
