//! Running other programs with a deadline, and asking the machine what it has.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output, lossily as text.
    pub stdout: String,
    /// Its standard error, lossily as text.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
}

impl Finished {
    /// The output of a program that succeeded.
    ///
    /// # Errors
    /// It failed; the message holds all it said.
    pub fn success(self) -> Result<String> {
        ensure!(
            self.code == Some(0),
            "exit {:?}, signal {:?}\n{}{}",
            self.code,
            self.signal,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }
}

/// Runs `command` to its end, without standard input unless one is set, for at most `deadline`.
///
/// # Errors
/// It cannot be started, or it is still running at the deadline (it is killed then).
pub fn finish(command: &mut Command, deadline: Duration) -> Result<Finished> {
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?} cannot be started"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} did not end within {deadline:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let elapsed = started.elapsed();
    // A daemon that was started on the way may hold the pipes for ever: what has arrived by then is what there is.
    let text = |reader: Reader| reader.text(Duration::from_secs(2));
    Ok(Finished {
        code: status.code(),
        signal: status.signal(),
        stdout: text(stdout),
        stderr: text(stderr),
        elapsed,
    })
}

/// Bytes read by a thread of their own, so that neither pipe blocks the program.
struct Reader {
    bytes: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Reader {
    fn text(self, patience: Duration) -> String {
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let bytes = self.bytes.lock().expect("the reading thread does not panic");
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Reader {
    let bytes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let shared = bytes.clone();
    let thread = thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            shared
                .lock()
                .expect("only this thread and the reader's owner lock")
                .extend_from_slice(&buffer[..count]);
        }
    });
    Reader { bytes, thread }
}

/// Sends `name` (as `kill` spells it: `INT`, `KILL`) to a child.
///
/// # Errors
/// The child is gone, or `kill` is not there.
pub fn signal(child: &Child, name: &str) -> Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
    ensure!(status.success(), "SIG{name} could not be sent to process {}", child.id());
    Ok(())
}

/// Asks `condition` again and again until it holds, for at most `deadline`.
///
/// # Errors
/// It never held; the message says `what` was waited for.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + deadline;
    while !condition() {
        ensure!(Instant::now() < until, "waited {deadline:?} in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a program of this name is on the `PATH`.
pub fn has_command(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Refuses to go on without root: mounting and changing owners need it.
///
/// # Errors
/// The process is not root's.
pub fn require_root() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let uid = Path::new("/proc/self").metadata()?.uid();
    ensure!(uid == 0, "this test mounts and changes owners: run it as root (`make test` does, by sudo)");
    Ok(())
}
