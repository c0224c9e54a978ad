//! The process that is cut: this program again, running [`work`] alone.
//!
//! It talks with who started it over its standard streams, a line at a time: `ready`, and waits for a line; `open` when the
//! engine is, and after each step `ack N`, and if it was asked to, it waits for a line after these too. An `ack` is said
//! after the engine acknowledged, so every one that arrives is a promise. A step that fails is said as
//! `failed N KIND TEXT`. [`Job::run`] is the other end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
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
    /// Whether it waits for an answer after `open` and each `ack`.
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

impl Job {
    /// Runs the worker to its end, which must be a good one, and answers with the lines it said after `ready`. Before it
    /// goes on after one of them, `hear` is called.
    pub(crate) fn run(&self, mut hear: impl FnMut(&str) -> Result<()>) -> Result<Vec<String>> {
        let mut command = self.command();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut answers = child.stdin.take().context("just piped")?;
        let mut said = Vec::new();
        for line in BufReader::new(child.stdout.take().context("just piped")?).lines() {
            let line = line?;
            let news = ["open", "ack ", "failed "].iter().any(|word| line.starts_with(word));
            if news {
                hear(&line)?;
                said.push(line.clone());
            }
            if line == "ready" || news && self.confirmed {
                // One that could not open the engine is gone by now.
                let _ = answers.write_all(b"go\n");
            }
        }
        ensure!(child.wait()?.success(), "the worker ended badly: {said:?}");
        Ok(said)
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
    if job.confirmed {
        say(format_args!("open"));
        hear();
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
