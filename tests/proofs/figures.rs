//! How many trials, with which seed, and the line that says what came out.
//!
//! `WINDLASS_PROOF_TRIALS` replaces each proof's number of trials, `WINDLASS_PROOF_SEED` its seed,
//! `WINDLASS_PROOF_THREADS` the number of trials at a time. `scripts/proofs.sh` sets them.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Failures that are told in full; more of them say nothing new.
const TOLD_MAX: usize = 5;

/// Longest story of a failure, in characters.
const STORY_MAX: usize = 1200;

/// The seed of everything random here.
pub(crate) fn seed() -> u64 {
    number("WINDLASS_PROOF_SEED").unwrap_or(20_261_121)
}

/// How many trials are made: `short` unless the environment says otherwise.
pub(crate) fn trials(short: u64) -> u64 {
    number("WINDLASS_PROOF_TRIALS").unwrap_or(short)
}

/// How many trials run side by side.
pub(crate) fn threads() -> u64 {
    let processors = || std::thread::available_parallelism().map_or(2, |count| count.get() as u64);
    number("WINDLASS_PROOF_THREADS").unwrap_or_else(processors)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// What came out of the trials of one proof.
#[derive(Debug)]
pub(crate) struct Tally {
    name: &'static str,
    begun: Instant,
    trials: AtomicU64,
    /// Trials in which what was to be done was done: a kill that came after the end is none.
    hit: AtomicU64,
    failures: Mutex<Vec<String>>,
    notes: Mutex<String>,
}

impl Tally {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            begun: Instant::now(),
            trials: AtomicU64::new(0),
            hit: AtomicU64::new(0),
            failures: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// Counts one trial. `what` names it, so that it can be made again.
    pub(crate) fn count(&self, hit: bool, what: impl FnOnce() -> String, outcome: anyhow::Result<()>) {
        self.trials.fetch_add(1, Ordering::Relaxed);
        self.hit.fetch_add(u64::from(hit), Ordering::Relaxed);
        if let Err(error) = outcome {
            let story = format!("{}: {error:#}", what());
            let mut failures = self.failures.lock().unwrap();
            failures.push(story.chars().take(STORY_MAX).collect());
        }
    }

    /// Adds words to the line of figures.
    pub(crate) fn note(&self, words: &str) {
        let mut notes = self.notes.lock().unwrap();
        write!(notes, ", {words}").unwrap();
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.lock().unwrap().len()
    }

    /// Prints the line of figures.
    pub(crate) fn print(&self, file_system: &str) {
        let (trials, hit) = (self.trials.load(Ordering::Relaxed), self.hit.load(Ordering::Relaxed));
        let took = self.begun.elapsed();
        let failures = self.failures();
        // No failure in n independent trials bounds the rate at 3/n with 95 % confidence (the rule of three).
        let bound = if failures == 0 && hit > 0 {
            format!(" (< {:.3} % at 95 %)", 300.0 / hit as f64)
        } else {
            String::new()
        };
        println!(
            "{}: {trials} trials, {hit} hits, {failures} failures{bound}, {:.1}/s, {:.0} s{}; seed {}, {} threads, Linux {}, {file_system}, load {}",
            self.name,
            trials as f64 / took.as_secs_f64().max(0.001),
            took.as_secs_f64(),
            self.notes.lock().unwrap(),
            seed(),
            threads(),
            word("/proc/sys/kernel/osrelease"),
            word("/proc/loadavg"),
        );
    }

    /// Prints the line of figures and fails if a trial did.
    pub(crate) fn close(self, file_system: &str) {
        self.print(file_system);
        let failures = self.failures.into_inner().unwrap();
        let told = failures.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n");
        assert!(failures.is_empty(), "{}: {} failures, the first:\n{told}", self.name, failures.len());
    }
}

/// First word of a file of the kernel's.
fn word(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Gives each of `threads` threads the next of `count` trials until none is left.
pub(crate) fn side_by_side(threads: u64, count: u64, trial: impl Fn(u64, u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (next, trial) = (&next, &trial);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    trial(thread, number);
                }
            });
        }
    });
}
