//! The first process of a container that asked for one (`run --init`): it starts the container's program, passes every
//! signal on to it, reaps whatever is left behind, and ends as the program ends.
//!
//! `windlass-init -- PROGRAM [ARG]...`. Exit code: the program's; 128 + n after signal n; 127 when there is no such program,
//! 126 when it cannot be executed.
//!
//! It is linked statically, since it runs on whatever the image holds, and so is built by itself: the standard library and
//! the four functions of libc below are all it has. Compiled by `runtime/init/build.rs`.
#![deny(missing_docs)]

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, exit};

/// `sigset_t`: 1024 bits in every libc of Linux, of which the kernel knows the first 64.
type SignalSet = [u64; 16];

/// `siginfo_t`, 128 bytes: number, `errno`, and code come first on all architectures but MIPS.
#[repr(C, align(8))]
struct SignalInfo {
    number: i32,
    _error: i32,
    code: i32,
    _rest: [u32; 29],
}

unsafe extern "C" {
    fn sigprocmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwaitinfo(set: *const SignalSet, info: *mut SignalInfo) -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
}

const SIG_SETMASK: i32 = 2;
const WNOHANG: i32 = 1;
const SIGCHLD: i32 = 17;

/// Code of a signal that the kernel sent by itself. From a terminal such a one goes to the whole foreground group: the
/// program has had it already.
const SI_KERNEL: i32 = 0x80;

/// All signals but those of faults (ILL, TRAP, ABRT, BUS, FPE, SEGV), which are this program's own.
const SIGNALS: u64 = !(1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10);

fn all_signals() -> SignalSet {
    let mut set = [0; 16];
    set[0] = SIGNALS;
    set
}

/// Keeps signals waiting until they are asked for. Programs started later begin with none blocked: std sees to that.
fn block(set: &SignalSet) {
    // SAFETY: reads the set, which is borrowed and as large as libc's; no old set is asked for.
    unsafe { sigprocmask(SIG_SETMASK, set, std::ptr::null_mut()) };
}

/// The next signal of `set`: its number, and whether the kernel sent it by itself. `None` when the wait was interrupted.
fn next(set: &SignalSet) -> Option<(i32, bool)> {
    let mut info = SignalInfo { number: 0, _error: 0, code: 0, _rest: [0; 29] };
    // SAFETY: reads the set and writes at most the 128 bytes of `info`, both of which live across the call.
    let number = unsafe { sigwaitinfo(set, &mut info) };
    (number > 0).then_some((info.number, info.code == SI_KERNEL))
}

/// Takes the status of one child that has ended, if there is one.
fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: writes one integer, which lives across the call.
    let pid = unsafe { waitpid(-1, &mut status, WNOHANG) };
    (pid > 0).then(|| (pid, ExitStatus::from_raw(status)))
}

fn pass_on(pid: i32, signal: i32) {
    // SAFETY: takes two integers. `pid` is a child that has not been reaped, so the number is still its own.
    unsafe { kill(pid, signal) };
}

fn main() {
    let mut words = std::env::args_os().skip(1).skip_while(|word| word == "--");
    let Some(program) = words.next() else {
        eprintln!("windlass-init: no program: windlass-init -- PROGRAM [ARG]...");
        exit(127);
    };
    let set = all_signals();
    block(&set);
    let child = match Command::new(&program).args(words).spawn() {
        Ok(child) => child.id().cast_signed(),
        Err(error) => {
            eprintln!("windlass-init: cannot run {program:?}: {error}");
            exit(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    loop {
        match next(&set) {
            Some((SIGCHLD, _)) => {
                while let Some((pid, status)) = reap() {
                    if pid == child {
                        exit(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255));
                    }
                }
            }
            Some((_, true)) | None => {}
            Some((signal, false)) => pass_on(child, signal),
        }
    }
}
