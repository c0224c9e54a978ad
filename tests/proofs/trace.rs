//! Stops a process at each system call that changes its root, and there kills it or makes the call fail.
//!
//! The process asks for this itself, with a seccomp filter that reports the calls in [`PATHS`] and [`DESCRIPTORS`] to its
//! tracer; all others run at full speed. The tracer counts over all threads, so the Nth call is the Nth of the process. A
//! call on a descriptor counts only if that leads into the root: what goes to sockets and pipes changes no disk.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Longest that a worker may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Calls that change what a path names.
const PATHS: [i64; 34] = [
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_creat,
    libc::SYS_truncate,
    libc::SYS_chmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    SETXATTRAT,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
];

/// `fchmodat2(2)`, Linux 6.6; the number is the same on every architecture.
const FCHMODAT2: i64 = 452;
/// `setxattrat(2)`, Linux 6.13; likewise.
const SETXATTRAT: i64 = 463;

/// Calls that change the file of a descriptor, and which argument that is.
const DESCRIPTORS: [(i64, usize); 18] = [
    (libc::SYS_write, 0),
    (libc::SYS_pwrite64, 0),
    (libc::SYS_writev, 0),
    (libc::SYS_pwritev, 0),
    (libc::SYS_pwritev2, 0),
    (libc::SYS_ftruncate, 0),
    (libc::SYS_fallocate, 0),
    (libc::SYS_fsync, 0),
    (libc::SYS_fdatasync, 0),
    (libc::SYS_syncfs, 0),
    (libc::SYS_sync_file_range, 0),
    (libc::SYS_fchmod, 0),
    (libc::SYS_fchown, 0),
    (libc::SYS_fsetxattr, 0),
    (libc::SYS_fremovexattr, 0),
    (libc::SYS_sendfile, 0),
    (libc::SYS_copy_file_range, 2),
    (libc::SYS_splice, 2),
];

/// Installs, for this process and all threads it has and will have, the filter that reports changes to its tracer.
pub(crate) fn report_changes() {
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        PATHS.into_iter().chain(DESCRIPTORS.map(|(number, _)| number)).map(|call| (call, vec![])).collect();
    let create = libc::O_CREAT as u64;
    for (call, argument) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
        let condition =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(create), create);
        rules.insert(call, vec![SeccompRule::new(vec![condition.unwrap()]).unwrap()]);
    }
    // Its flags are in memory: the tracer looks.
    rules.insert(libc::SYS_openat2, vec![]);
    install(rules, SeccompAction::Trace(0));
}

/// Installs the filter under which these calls do nothing and say that they succeeded.
pub(crate) fn leave_out(calls: &[String]) {
    let number = |name: &String| match name.as_str() {
        "fsync" => libc::SYS_fsync,
        "fdatasync" => libc::SYS_fdatasync,
        "syncfs" => libc::SYS_syncfs,
        "sync_file_range" => libc::SYS_sync_file_range,
        other => panic!("{other} is no sync"),
    };
    install(calls.iter().map(|name| (number(name), vec![])).collect(), SeccompAction::Errno(0));
}

fn install(rules: std::collections::BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) {
    let architecture = std::env::consts::ARCH.try_into().expect("seccompiler knows this architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).expect("the kernel takes filters");
}

/// What is done at the Nth call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// SIGKILL when the call is about to be made.
    KillBefore(u64),
    /// SIGKILL when the call was made and has not returned.
    KillAfter(u64),
    /// The call is not made and returns this error.
    Fail(u64, Errno),
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Calls that changed the root.
    pub(crate) calls: u64,
    /// The call at which something was done.
    pub(crate) hit: Option<i64>,
    /// Lines the worker said, without `ready`.
    pub(crate) said: Vec<String>,
    /// Whether it ended by itself and well.
    pub(crate) succeeded: bool,
}

impl Outcome {
    /// Whether step `number` was acknowledged.
    pub(crate) fn acknowledged(&self, number: usize) -> bool {
        self.said.iter().any(|line| *line == format!("ack {number}"))
    }
}

/// Runs a worker under trace. Its changes are those below `root`.
pub(crate) fn run(mut command: Command, root: &Path, fault: Fault) -> Result<Outcome> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("a worker")?;
    let mut said = BufReader::new(child.stdout.take().context("just piped")?);
    wait_ready(&mut said)?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let options = ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_TRACESECCOMP
        | ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_EXITKILL;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task =
            task?.file_name().to_str().and_then(|name| name.parse().ok()).context("a task's number")?;
        ptrace::seize(Pid::from_raw(task), options).context("a worker cannot be traced")?;
    }
    child.stdin.take().context("just piped")?.write_all(b"go\n")?;
    let ended = watched(&child, || follow(pid, root, fault))?;
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    let said = rest.lines().filter(|line| line.starts_with("ack ") || line.starts_with("failed "));
    Ok(Outcome { said: said.map(str::to_owned).collect(), ..ended })
}

fn wait_ready(said: &mut BufReader<ChildStdout>) -> Result<()> {
    loop {
        let mut line = String::new();
        ensure!(said.read_line(&mut line)? > 0, "the worker ended before it was ready");
        if line.trim() == "ready" {
            return Ok(());
        }
    }
}

/// Does `work`, and kills the child if that takes too long.
fn watched<T>(child: &Child, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let late = waiting.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill(pid, Signal::SIGKILL);
            }
            late
        });
        let value = work();
        drop(done);
        let late = watch.join().expect("the watch does not panic");
        ensure!(!late, "the worker hung for {DEADLINE:?}");
        value
    })
}

/// Follows all threads of `pid` to its end.
fn follow(pid: Pid, root: &Path, fault: Fault) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let status = match waitpid(None, Some(flags)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => bail!("the worker is gone without a word"),
            Err(error) => return Err(error.into()),
        };
        match status {
            WaitStatus::Exited(ended, code) if ended == pid => {
                outcome.succeeded = code == 0;
                return Ok(outcome);
            }
            WaitStatus::Signaled(ended, ..) if ended == pid => return Ok(outcome),
            WaitStatus::PtraceEvent(task, _, event) => {
                let resume = if event == libc::PTRACE_EVENT_SECCOMP {
                    stopped(pid, task, root, fault, &mut outcome)?
                } else {
                    Resume::Freely
                };
                match resume {
                    Resume::Freely => gone_is_fine(ptrace::cont(task, None))?,
                    Resume::ToItsEnd => gone_is_fine(ptrace::syscall(task, None))?,
                }
            }
            // The end of the call that was to be the last.
            WaitStatus::PtraceSyscall(task) => {
                gone_is_fine(kill(pid, Signal::SIGKILL))?;
                gone_is_fine(ptrace::cont(task, None))?;
            }
            WaitStatus::Stopped(task, signal) => gone_is_fine(ptrace::cont(task, signal))?,
            _ => {}
        }
    }
}

/// A thread that was just killed cannot be resumed, and need not be.
fn gone_is_fine(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

enum Resume {
    Freely,
    ToItsEnd,
}

/// A thread is about to make a call that may change the root.
fn stopped(pid: Pid, task: Pid, root: &Path, fault: Fault, outcome: &mut Outcome) -> Result<Resume> {
    let mut registers = match ptrace::getregs(task) {
        Ok(registers) => registers,
        Err(Errno::ESRCH) => return Ok(Resume::Freely),
        Err(error) => return Err(error.into()),
    };
    let call = registers.orig_rax as i64;
    let arguments = [registers.rdi, registers.rsi, registers.rdx];
    if !changes(task, call, arguments, root) {
        return Ok(Resume::Freely);
    }
    outcome.calls += 1;
    match fault {
        Fault::KillBefore(at) if at == outcome.calls => {
            outcome.hit = Some(call);
            gone_is_fine(kill(pid, Signal::SIGKILL))?;
        }
        Fault::KillAfter(at) if at == outcome.calls => {
            outcome.hit = Some(call);
            return Ok(Resume::ToItsEnd);
        }
        Fault::Fail(at, errno) if at == outcome.calls => {
            outcome.hit = Some(call);
            // A negative number is no call: the kernel makes none and leaves the result as we set it.
            registers.orig_rax = u64::MAX;
            registers.rax = (errno as i64).wrapping_neg() as u64;
            gone_is_fine(ptrace::setregs(task, registers))?;
        }
        _ => {}
    }
    Ok(Resume::Freely)
}

fn changes(task: Pid, call: i64, arguments: [u64; 3], root: &Path) -> bool {
    if call == libc::SYS_openat2 {
        // The first eight bytes of `struct open_how` are the flags.
        let flags = ptrace::read(task, arguments[2] as ptrace::AddressType).unwrap_or(0);
        return flags & i64::from(libc::O_CREAT) != 0;
    }
    let Some((_, which)) = DESCRIPTORS.iter().find(|(number, _)| *number == call) else { return true };
    let link = fs::read_link(format!("/proc/{task}/fd/{}", arguments[*which]));
    link.is_ok_and(|path| path.starts_with(root))
}
