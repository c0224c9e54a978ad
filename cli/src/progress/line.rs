//! One thing's line: who, what it does, how far it is, how fast. A pure function of its state and the terminal's width.

use std::time::Duration;

use super::step::{Item, Phase};
use crate::output::amount;

/// Characters of a line besides the bar: name 12, state 13, brackets 2, amounts 19, rate 11, and the blanks between.
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

/// Columns that a name gets when it is longer than a short digest.
const NAME_CHARS_MAX: usize = 40;

/// The line for `item` on a terminal of `width` columns.
pub(super) fn item(item: &Item, pace: Pace, width: usize, colours: bool) -> String {
    let name: String = item.name.chars().take(NAME_CHARS_MAX).collect();
    let head = format!("{name:<12}  {:<13}", item.word);
    // A long name is paid for by the bar.
    let width = width.saturating_sub(head.chars().count().saturating_sub(HEAD_CHARS));
    let total = if item.total_bytes == 0 { String::new() } else { amount::size(item.total_bytes) };
    let done = amount::size(item.done_bytes);
    let bar = |known: bool| {
        if known { bar(item.done_bytes, item.total_bytes, width, colours) } else { String::new() }
    };
    match (item.phase, item.made_bytes) {
        (Phase::Moving, _) if total.is_empty() => format!("{head}{done:>8}  {}", pace.rate()),
        (Phase::Moving, _) => format!("{head}{}{done:>8} / {total:<8}  {}", bar(true), pace.rate()),
        (Phase::Working, Some(made)) => format!("{head}{}{total:>8} -> {}", bar(true), amount::size(made)),
        (Phase::Working, None) => format!("{head}{}{done:>8} / {total:<8}", bar(item.total_bytes > 0)),
        _ => format!("{head}{total:>8}"),
    }
    .trim_end()
    .to_owned()
}

/// Characters of a name as long as a short digest, and a state.
const HEAD_CHARS: usize = 27;

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

    fn layer(word: &str, phase: Phase, done_bytes: u64) -> Item {
        Item {
            key: String::new(),
            name: "ab".repeat(6),
            word: word.to_owned(),
            phase,
            done_bytes,
            total_bytes: 4 << 20,
            made_bytes: (word == "unpacking").then_some(9 << 20),
        }
    }

    fn text(word: &str, phase: Phase, done_bytes: u64, width: usize) -> String {
        let pace = Pace { bytes: done_bytes, elapsed: Duration::from_secs(1) };
        item(&layer(word, phase, done_bytes), pace, width, false)
    }

    #[test]
    fn each_phase_has_its_line() {
        for (word, phase, done, expected) in [
            ("waiting", Phase::Waiting, 0, "abababababab  waiting       4.0 MiB"),
            (
                "downloading",
                Phase::Moving,
                1 << 20,
                "abababababab  downloading  [===>           ]   1.0 MiB / 4.0 MiB   1.0 MiB/s",
            ),
            (
                "unpacking",
                Phase::Working,
                4 << 20,
                "abababababab  unpacking    [===============]   4.0 MiB -> 9.0 MiB",
            ),
            (
                "converting",
                Phase::Working,
                2 << 20,
                "abababababab  converting   [=======>       ]   2.0 MiB / 4.0 MiB",
            ),
            ("done", Phase::Done, 4 << 20, "abababababab  done          4.0 MiB"),
            ("here already", Phase::Spared, 0, "abababababab  here already  4.0 MiB"),
        ] {
            assert_eq!(text(word, phase, done, 80), expected);
        }
    }

    #[test]
    fn a_line_fits_its_terminal_if_it_has_eighty_columns() {
        let mut widest = layer("downloading", Phase::Moving, 999 << 30);
        widest.total_bytes = 999 << 30;
        let pace = Pace { bytes: 999 << 20, elapsed: Duration::from_secs(1) };
        for width in [80, 100, 200] {
            assert!(item(&widest, pace, width, false).chars().count() < width);
        }
        widest.name = "docker.io/library/alpine:latest".to_owned();
        assert!(item(&widest, pace, 100, false).chars().count() < 100);
        assert!(!text("downloading", Phase::Moving, 0, 60).contains('['));
    }

    #[test]
    fn an_early_rate_is_not_shown() {
        let pace = Pace { bytes: 1 << 30, elapsed: Duration::from_millis(10) };
        assert!(!item(&layer("downloading", Phase::Moving, 1), pace, 80, false).contains("/s"));
    }

    #[test]
    fn odd_numbers_are_no_panic() {
        for (received, total) in [(5, 0), (0, 0), (u64::MAX, 1)] {
            let odd = Item { total_bytes: total, ..layer("downloading", Phase::Moving, received) };
            assert!(!item(&odd, Pace::default(), 80, true).is_empty());
        }
    }
}
