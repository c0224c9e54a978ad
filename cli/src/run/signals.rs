//! Signals on their way from the user to the process.
//!
//! A container's process is the first of its process namespace, and the kernel drops signals that such a process has not
//! asked for (pid_namespaces(7)): `sleep` cannot be interrupted there. Who presses Ctrl-C means it, so a second one within
//! [`AGAIN`] kills a process that does not listen; one that does listen is killed by the third.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The size of the user's terminal has changed (`SIGWINCH`).
pub(super) const WINDOW_CHANGED: i32 = 28;

const HANGUP: i32 = 1;
const INTERRUPT: i32 = 2;
const QUIT: i32 = 3;
const KILL: i32 = 9;
const TERMINATE: i32 = 15;

/// Within this, a second signal means that the first had no effect.
const AGAIN: Duration = Duration::from_secs(2);

/// The signals that are passed on, and the one that is acted on.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    first: Signal,
    second: Signal,
    window: Signal,
}

impl Signals {
    /// Takes the signals over; from here on none of them ends this process.
    ///
    /// # Errors
    /// Those of `sigaction`.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            first: signal(SignalKind::user_defined1())?,
            second: signal(SignalKind::user_defined2())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    /// Number of the next signal.
    ///
    /// Cancel safety: a dropped future has taken no signal.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.hangup.recv() => HANGUP,
            _ = self.interrupt.recv() => INTERRUPT,
            _ = self.quit.recv() => QUIT,
            _ = self.terminate.recv() => TERMINATE,
            _ = self.first.recv() => SignalKind::user_defined1().as_raw_value(),
            _ = self.second.recv() => SignalKind::user_defined2().as_raw_value(),
            _ = self.window.recv() => WINDOW_CHANGED,
        }
    }
}

/// What becomes of a signal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Action {
    /// What the process gets.
    pub(super) signal: i32,
    /// What the user should know.
    pub(super) hint: Option<&'static str>,
}

/// Remembers how often the user has asked.
pub(super) struct Forward {
    pid: u32,
    last: Option<Instant>,
    asked: u32,
}

impl Forward {
    /// For the process `pid`.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, last: None, asked: 0 }
    }

    /// What to do with `signal`, which came at `now`.
    pub(super) fn decide(&mut self, signal: i32, now: Instant) -> Action {
        let ends = matches!(signal, HANGUP | INTERRUPT | QUIT | TERMINATE);
        let listens = !ends
            || fs::read_to_string(format!("/proc/{}/status", self.pid))
                .is_ok_and(|text| catches(&text, signal));
        self.judge(signal, ends, listens, now)
    }

    fn judge(&mut self, signal: i32, ends: bool, listens: bool, now: Instant) -> Action {
        if !ends {
            return Action { signal, hint: None };
        }
        let is_again = self.last.is_some_and(|last| now.duration_since(last) <= AGAIN);
        self.asked = if is_again { self.asked + 1 } else { 1 };
        self.last = Some(now);
        match (self.asked, listens) {
            (1, true) => Action { signal, hint: None },
            (1, false) => {
                Action { signal, hint: Some("the process does not react to this signal; once more kills it") }
            }
            (2, true) => {
                Action { signal, hint: Some("the process has been asked to end; once more kills it") }
            }
            _ => Action { signal: KILL, hint: Some("killed") },
        }
    }
}

/// Whether the process that `/proc/PID/status` describes has a handler for `signal`.
fn catches(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(signal - 1).is_ok_and(|bit| bit < 64 && mask & (1 << bit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_read_from_the_mask() {
        let status = "Name:\tsh\nSigIgn:\t0000000000000004\nSigCgt:\t0000000000004002\n";
        assert!(catches(status, INTERRUPT) && catches(status, TERMINATE));
        assert!(!catches(status, QUIT) && !catches(status, HANGUP) && !catches("", INTERRUPT));
    }

    #[test]
    fn a_process_that_does_not_listen_is_killed_by_the_second_signal_and_one_that_does_by_the_third() {
        let now = Instant::now();
        for (listens, expected) in
            [(false, &[INTERRUPT, KILL, KILL][..]), (true, &[INTERRUPT, INTERRUPT, KILL][..])]
        {
            let mut forward = Forward::new(1);
            let got: Vec<i32> =
                expected.iter().map(|_| forward.judge(INTERRUPT, true, listens, now).signal).collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn signals_far_apart_are_each_the_first() {
        let mut forward = Forward::new(1);
        let start = Instant::now();
        for seconds in [0, 3, 6, 9] {
            let action = forward.judge(INTERRUPT, true, true, start + Duration::from_secs(seconds));
            assert_eq!(action, Action { signal: INTERRUPT, hint: None });
        }
    }

    #[test]
    fn signals_that_end_nothing_are_passed_on_without_a_word() {
        let mut forward = Forward::new(1);
        for _ in 0..5 {
            assert_eq!(forward.judge(10, false, true, Instant::now()), Action { signal: 10, hint: None });
        }
    }
}
