//! The process that is cut: this program again, running [`work`] alone.
//!
//! It talks with who started it over its standard streams, a line at a time: `ready`, and waits for a line; then it takes
//! its steps, and after each says `ack N`, and if it was asked to, waits for a line. An `ack` is said after the engine
//! acknowledged, so every one that arrives is a promise. A step that fails is said as `failed N KIND TEXT`.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::step::{Step, kind_of, open};
use crate::trace;

/// Variable that holds the [`Job`] as JSON.
const JOB: &str = "WINDLASS_PROOF_JOB";

/// What a worker is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    pub(crate) steps: Vec<Step>,
    /// When system calls are reported to who traces it.
    pub(crate) traced: Traced,
    /// System calls that do nothing and say that they succeeded.
    pub(crate) left_out: Vec<String>,
    /// Whether each acknowledgement waits until it was noted.
    pub(crate) confirmed: bool,
}

/// From when on a worker's system calls are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Traced {
    Never,
    /// From before the engine is opened: recovery is cut too.
    FromTheStart,
    /// From when the engine is open.
    SinceOpen,
}

impl Job {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
        command
            .args(["worker::work", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(JOB, serde_json::to_string(self).expect("a job is plain data"));
        command
    }
}

/// Says one line. It begins with a newline because the test harness has begun a line of its own.
fn say(words: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let line = format!("\n{words}\n");
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("who started this listens");
}

fn hear() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("who started this speaks");
}

/// Not a test: the process that is cut.
#[test]
#[ignore = "started by the proofs"]
fn work() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    say(format_args!("ready"));
    hear();
    if !job.left_out.is_empty() {
        trace::leave_out(&job.left_out);
    }
    if job.traced == Traced::FromTheStart {
        trace::report_changes();
    }
    let engine = match open(&job.root) {
        Ok(engine) => engine,
        Err(error) => {
            let kind = kind_of(&error).map_or("Untyped".to_owned(), |kind| format!("{kind:?}"));
            return say(format_args!("failed open {kind} {error:#}"));
        }
    };
    if job.traced == Traced::SinceOpen {
        trace::report_changes();
    }
    for (number, step) in job.steps.iter().enumerate() {
        match step.take(&engine) {
            Ok(()) => say(format_args!("ack {number}")),
            Err(error) => {
                let kind = kind_of(&error).map_or("Untyped".to_owned(), |kind| format!("{kind:?}"));
                say(format_args!("failed {number} {kind} {error:#}"));
            }
        }
        if job.confirmed {
            hear();
        }
    }
}
