//! How work is shown while it runs: bars on a terminal, lines elsewhere, JSON lines for programs, or nothing.
//!
//! Each view gets the same events in the same order and is done with [`Progress::finish`]. Bars and lines go to standard
//! error, so that standard output is the result's; JSON lines go to standard output, because there they are the result,
//! unless the result is bytes.
//!
//! Not here: talking to the engine (`pull`, `transfer`).

mod bars;
pub(crate) mod events;
mod line;
mod lines;
mod step;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use runtime_api::windlass::v1::{CheckEvent, Done, PullEvent, TransferDone, TransferEvent};
use serde_json::Value;

use crate::args::Format;
use crate::error::CliError;
use crate::output::{self, amount, printable};

pub(crate) use bars::Bars;
pub(crate) use lines::Lines;
pub(crate) use step::Step;

/// A view of work that goes on.
pub(crate) enum Progress {
    /// Nothing.
    Quiet,
    /// A line a thing, redrawn.
    Bars(Box<Bars>),
    /// A line for each change.
    Lines(Lines),
    /// A JSON object for each event, on standard output.
    Json,
    /// The same on standard error: standard output is taken.
    JsonAside,
}

/// Events that can be shown.
pub(crate) trait Event {
    /// For bars and lines; `None` for one that this version does not know.
    fn step(&self) -> Option<Step>;

    /// For programs.
    fn json(&self) -> Option<Value>;
}

impl Event for PullEvent {
    fn step(&self) -> Option<Step> {
        Step::of_pull(self)
    }

    fn json(&self) -> Option<Value> {
        events::of_pull(self)
    }
}

impl Event for TransferEvent {
    fn step(&self) -> Option<Step> {
        Step::of_transfer(self)
    }

    fn json(&self) -> Option<Value> {
        events::of_transfer(self)
    }
}

impl Event for CheckEvent {
    fn step(&self) -> Option<Step> {
        Step::of_check(self)
    }

    fn json(&self) -> Option<Value> {
        events::of_check(self)
    }
}

impl Progress {
    /// The view that fits: what was asked for, and what standard error is.
    pub(crate) fn choose(quiet: bool, format: &Format) -> Self {
        match (quiet, format) {
            (true, _) => Self::Quiet,
            (false, Format::Json) => Self::Json,
            (false, _) if io::stderr().is_terminal() && !is_dumb() => Self::Bars(Box::new(Bars::new())),
            (false, _) => Self::Lines(Lines::new()),
        }
    }

    /// The same view, off standard output.
    pub(crate) fn aside(self) -> Self {
        match self {
            Self::Json => Self::JsonAside,
            other => other,
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// [`CliError::Output`] when a JSON line cannot be written.
    pub(crate) fn event(&mut self, event: &impl Event) -> Result<(), CliError> {
        match self {
            Self::Quiet => {}
            Self::Bars(bars) => {
                if let Some(step) = event.step() {
                    bars.step(step);
                }
            }
            Self::Lines(lines) => {
                if let Some(step) = event.step() {
                    lines.step(step, Instant::now()).iter().for_each(|line| output::note(line));
                }
            }
            Self::Json => {
                if let Some(value) = event.json() {
                    output::print(&format!("{value}\n"))?;
                }
            }
            Self::JsonAside => {
                if let Some(value) = event.json() {
                    output::note(&value.to_string());
                }
            }
        }
        Ok(())
    }

    /// Does `write`, which writes to the terminal that bars may be drawn on, with them out of the way.
    pub(crate) fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Bars(bars) => bars.pause(write),
            _ => write(),
        }
    }

    /// Takes away what is only for the time of the work.
    pub(crate) fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }

    /// Whether the caller still has to say what came of it.
    pub(crate) fn wants_summary(&self) -> bool {
        matches!(self, Self::Bars(_) | Self::Lines(_))
    }
}

/// A terminal that cannot move its cursor.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Fewer bytes than this are documents rather than layers: a rate would say nothing.
const RATE_BYTES_MIN: u64 = 1024 * 1024;

/// One line that says what a pull came to; `moved` says whether the name stands for something else than before.
pub(crate) fn summary(done: &Done, moved: bool) -> String {
    let name = printable(&done.name);
    let digest = short(&done.digest);
    let seconds = sane(done.seconds);
    let took = amount::duration(Duration::from_secs_f64(seconds));
    let fetched = amount::size(done.fetched_bytes);
    if done.snapshotter == "lazy" && moved {
        return format!(
            "Pulled {name} ({digest}) lazily: {fetched} in {took}; the rest arrives when it is read"
        );
    }
    if done.fetched_bytes >= RATE_BYTES_MIN {
        let rate = amount::size((done.fetched_bytes as f64 / seconds.max(0.001)) as u64);
        format!("Pulled {name} ({digest}): {fetched} in {took}, {rate}/s")
    } else if moved {
        format!("Pulled {name} ({digest}): {fetched} in {took}")
    } else {
        format!("{name} is up to date ({digest})")
    }
}

/// One line that says what a push, import, export or convert came to: `Pushed`, how much, how fast.
pub(crate) fn transferred(verb: &str, what: &str, done: &TransferDone) -> String {
    let seconds = sane(done.seconds);
    let took = amount::duration(Duration::from_secs_f64(seconds));
    let bytes = amount::size(done.bytes);
    let line = format!("{verb} {}: {bytes} in {took}", printable(what));
    if done.bytes < RATE_BYTES_MIN {
        return line;
    }
    format!("{line}, {}/s", amount::size((done.bytes as f64 / seconds.max(0.001)) as u64))
}

/// Seconds that can be a duration.
fn sane(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.clamp(0.0, 1e9) } else { 0.0 }
}

/// A digest as people tell it from others: its first 12 digits.
pub(crate) fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    printable(&hex.chars().take(12).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(fetched_bytes: u64, seconds: f64) -> Done {
        let digest = format!("sha256:{}", "ab".repeat(32));
        Done { name: "docker.io/library/a:1".to_owned(), digest, fetched_bytes, seconds, ..Done::default() }
    }

    #[test]
    fn the_summary_tells_size_time_and_rate() {
        assert_eq!(
            summary(&done(10 * 1024 * 1024, 2.0), true),
            "Pulled docker.io/library/a:1 (abababababab): 10.0 MiB in 2.0 s, 5.0 MiB/s"
        );
    }

    #[test]
    fn a_pull_that_fetched_only_documents_says_whether_the_name_moved() {
        assert_eq!(summary(&done(700, 0.012), false), "docker.io/library/a:1 is up to date (abababababab)");
        assert_eq!(
            summary(&done(700, 0.012), true),
            "Pulled docker.io/library/a:1 (abababababab): 700 B in 12 ms"
        );
    }

    #[test]
    fn odd_numbers_are_no_panic() {
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(!summary(&done(1 << 30, seconds), true).is_empty());
        }
    }
}
