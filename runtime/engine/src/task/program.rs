//! Which program is the shim of a runtime, and calling it: `start` and `delete` of containerd's shim protocol.
//!
//! `io.containerd.windlass.v1`, or no name, is our own shim: this binary under another name. `io.containerd.runc.v2` is
//! the stock one if it is installed, else ours with `runc`. Any other name is that of a program by containerd's rule
//! (`a.b.NAME.VERSION` is `containerd-shim-NAME-VERSION`), and a path is a path.
//!
//! Format: `runtime/v2/README.md` of containerd ("Commands", "Flags").

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::runc::v1::Options;
use serde::{Deserialize, Serialize};
use storage_sys::process::{Pidfd, Watch, poll};

use super::TaskError;

/// Name of our own runtime.
pub const OWN_RUNTIME: &str = "io.containerd.windlass.v1";

/// Name of the runtime that most clients ask for.
pub const STOCK_RUNTIME: &str = "io.containerd.runc.v2";

/// The name under which our binary is a shim.
const OWN_PROGRAM: &str = "containerd-shim-windlass-v1";

/// Where programs are looked for beside `PATH`: a daemon's often lacks `sbin`.
const FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

/// Longest that `start` or `delete` may take: on a machine that swaps, and with an OCI runtime that waits for a disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Most of a program's words that are kept, in bytes.
const WORDS_BYTES_MAX: usize = 64 * 1024;

/// A shim's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Whether it is our own binary.
    pub(super) own: bool,
    /// The OCI runtime it is to use when the options name none.
    pub(super) oci_runtime: Option<String>,
}

/// What a call of a shim's program needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) namespace: &'a str,
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    pub(super) host: &'a Host,
}

/// Where shims find the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The `windlass` binary.
    pub(crate) exe: PathBuf,
    /// The daemon's gRPC socket.
    pub(crate) address: PathBuf,
}

impl Host {
    /// The ttrpc socket, where shims tell their events.
    pub(crate) fn ttrpc_address(&self) -> PathBuf {
        ttrpc_address(&self.address)
    }
}

/// The ttrpc socket that belongs to the gRPC socket `address`.
pub fn ttrpc_address(address: &Path) -> PathBuf {
    let mut path = OsString::from(address);
    path.push(".ttrpc");
    path.into()
}

impl Program {
    /// The shim of the runtime called `name`.
    ///
    /// # Errors
    /// [`TaskError::RuntimeName`], [`TaskError::NoShim`].
    pub(super) fn find(name: &str, host: &Host) -> Result<Self, TaskError> {
        let own = |oci_runtime| Self { path: host.exe.clone(), own: true, oci_runtime };
        if name.is_empty() || name == OWN_RUNTIME {
            return Ok(own(None));
        }
        if name.starts_with('/') {
            let path = PathBuf::from(name);
            if !path.is_file() {
                return Err(TaskError::NoShim { name: name.to_owned(), program: name.to_owned() });
            }
            return Ok(Self { path, own: false, oci_runtime: None });
        }
        let program = program_name(name).ok_or_else(|| TaskError::RuntimeName { name: name.to_owned() })?;
        match look_up(&program, host.exe.parent()) {
            Some(path) => Ok(Self { path, own: false, oci_runtime: None }),
            None if name == STOCK_RUNTIME => Ok(own(Some("runc".to_owned()))),
            None => Err(TaskError::NoShim { name: name.to_owned(), program }),
        }
    }

    /// The options as the shim is to have them: with the OCI runtime that this runtime stands for, if they name none.
    pub(super) fn options(&self, options: Option<Any>) -> Option<Any> {
        let Some(oci_runtime) = &self.oci_runtime else { return options };
        let mut given = match options {
            None => Options::default(),
            Some(other) => match any::unpack::<Options>(&other) {
                Ok(given) => given,
                Err(_) => return Some(other),
            },
        };
        if given.binary_name.is_empty() {
            given.binary_name.clone_from(oci_runtime);
        }
        Some(any::pack(&given))
    }

    /// Starts the shim of a bundle and returns where it listens, as it says it.
    ///
    /// # Errors
    /// [`TaskError::Run`], [`TaskError::Program`]; what it may have left is for [`Program::delete`].
    pub(super) fn start(&self, call: Call<'_>, options: Option<&Any>) -> Result<Vec<u8>, TaskError> {
        let input = options.map(Message::encode_to_vec).unwrap_or_default();
        self.call(call, "start", &[], &input)
    }

    /// Has the shim's program take away what a dead shim left; returns its encoded `DeleteResponse`.
    ///
    /// # Errors
    /// [`TaskError::Run`], [`TaskError::Program`].
    pub(super) fn delete(&self, call: Call<'_>) -> Result<Vec<u8>, TaskError> {
        self.call(call, "delete", &[OsString::from("-bundle"), call.bundle.into()], &[])
    }

    fn call(
        &self,
        call: Call<'_>,
        what: &'static str,
        more: &[OsString],
        input: &[u8],
    ) -> Result<Vec<u8>, TaskError> {
        let id = call.id.to_owned();
        let unrunnable = |source| TaskError::Run { id: id.clone(), program: self.path.clone(), source };
        let mut command = Command::new(&self.path);
        if self.own {
            command.arg0(OWN_PROGRAM);
        }
        command.arg("-namespace").arg(call.namespace).arg("-address").arg(&call.host.address);
        command.arg("-publish-binary").arg(&call.host.exe);
        command.arg("-id").arg(call.id).args(more).arg(what);
        command.env("GOMAXPROCS", "2").env("MAX_SHIM_VERSION", "3").env("NAMESPACE", call.namespace);
        command.env("TTRPC_ADDRESS", call.host.ttrpc_address()).env("GRPC_ADDRESS", &call.host.address);
        command.current_dir(call.bundle).process_group(0);
        let (end, output) = finish(&mut command, input).map_err(unrunnable)?;
        if end {
            return Ok(output.stdout);
        }
        // Which of the two it speaks on is each shim's own affair.
        let words = [output.stderr, output.stdout].concat();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        let words = if words.is_empty() { "it said nothing".to_owned() } else { words };
        Err(TaskError::Program { id: call.id.to_owned(), program: self.path.clone(), what, words })
    }
}

/// The program of a runtime's name.
fn program_name(runtime: &str) -> Option<String> {
    let parts: Vec<&str> = runtime.split('.').collect();
    let [.., name, version] = parts.as_slice() else { return None };
    let sound = |part: &str| !part.is_empty() && !part.contains('/');
    (sound(name) && sound(version)).then(|| format!("containerd-shim-{name}-{version}"))
}

fn look_up(program: &str, beside: Option<&Path>) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&search).chain(FOLDERS.map(PathBuf::from));
    folders.chain(beside.map(Path::to_owned)).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What a program said.
#[derive(Default)]
struct Said {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs `command` to its end, for at most [`CALL_TIMEOUT`]; whether it succeeded, and what it said until then.
///
/// Its pipes are not read to their end: a shim that it leaves running may hold them.
fn finish(command: &mut Command, input: &[u8]) -> io::Result<(bool, Said)> {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let listened = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    let outcome = match listened {
        // It may have ended without reading; then its words say why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => listen(&mut child),
    };
    if !matches!(outcome, Ok((true, _))) {
        let _ = child.kill();
    }
    let status = child.wait()?;
    match outcome? {
        (true, said) => Ok((status.success(), said)),
        (false, _) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {CALL_TIMEOUT:?}"))),
    }
}

/// Collects what a child says until it ends; `false` if it does not in time.
fn listen(child: &mut Child) -> io::Result<(bool, Said)> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let handle = Pidfd::open(child.id())?;
    let pipe = |fd: Option<std::os::fd::OwnedFd>| fd.map(File::from).ok_or(io::ErrorKind::BrokenPipe);
    let mut stdout = Some(pipe(child.stdout.take().map(Into::into))?);
    let mut stderr = Some(pipe(child.stderr.take().map(Into::into))?);
    let mut said = Said::default();
    loop {
        let mut watches = vec![Watch::readable(handle.as_fd())];
        watches.extend(stdout.iter().chain(&stderr).map(|pipe| Watch::readable(pipe.as_fd())));
        poll(&mut watches, Some(deadline.saturating_duration_since(Instant::now())))?;
        let ended = watches[0].is_ready();
        drop(watches);
        take(&mut stdout, &mut said.stdout)?;
        take(&mut stderr, &mut said.stderr)?;
        if ended {
            return Ok((true, said));
        }
        if Instant::now() >= deadline {
            return Ok((false, said));
        }
    }
}

/// Takes what is in a pipe now; at its end the pipe goes.
fn take(pipe: &mut Option<File>, into: &mut Vec<u8>) -> io::Result<()> {
    while let Some(open) = pipe {
        let mut watches = [Watch::readable(open.as_fd())];
        if poll(&mut watches, Some(Duration::ZERO))? == 0 {
            return Ok(());
        }
        let mut part = [0; 4096];
        let count = open.read(&mut part)?;
        let room = WORDS_BYTES_MAX.saturating_sub(into.len());
        into.extend_from_slice(&part[..count.min(room)]);
        if count == 0 {
            *pipe = None;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host { exe: "/opt/windlass".into(), address: "/run/w.sock".into() }
    }

    #[test]
    fn a_runtimes_name_is_the_name_of_its_shim() {
        assert_eq!(program_name("io.containerd.runc.v2").as_deref(), Some("containerd-shim-runc-v2"));
        assert_eq!(program_name("kata.v2").as_deref(), Some("containerd-shim-kata-v2"));
        for bad in ["runc", "", ".", "a..", "a.b/c.v2"] {
            assert_eq!(program_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn our_own_runtime_is_this_binary_and_an_unknown_one_is_named() {
        let own = Program::find("", &host()).unwrap();
        assert_eq!(own, Program::find(OWN_RUNTIME, &host()).unwrap());
        assert_eq!(own.path, Path::new("/opt/windlass"));
        let missing = Program::find("io.example.nothing.v9", &host()).unwrap_err();
        assert!(missing.to_string().contains("containerd-shim-nothing-v9"), "{missing}");
        assert!(matches!(Program::find("/no/such/shim", &host()), Err(TaskError::NoShim { .. })));
        assert!(matches!(Program::find("nonsense", &host()), Err(TaskError::RuntimeName { .. })));
    }

    #[test]
    fn runc_is_asked_for_where_our_shim_stands_for_the_stock_one() {
        let program = Program { path: "/x".into(), own: true, oci_runtime: Some("runc".into()) };
        let binary =
            |options| any::unpack::<Options>(&program.options(options).unwrap()).unwrap().binary_name;
        assert_eq!(binary(None), "runc");
        let crun = Options { binary_name: "crun".into(), ..Options::default() };
        assert_eq!(binary(Some(any::pack(&crun))), "crun");
    }

    #[test]
    fn a_program_that_leaves_its_pipes_to_another_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 3 & echo said; echo why >&2; cat; exit 3"]).process_group(0);
        let begun = Instant::now();
        let (success, said) = finish(&mut command, b"input").unwrap();
        assert!(!success && begun.elapsed() < CALL_TIMEOUT);
        assert_eq!((said.stdout.as_slice(), said.stderr.as_slice()), (&b"said\ninput"[..], &b"why\n"[..]));
    }

    #[test]
    fn the_ttrpc_socket_lies_beside_the_other() {
        assert_eq!(ttrpc_address(Path::new("/run/a.sock")), Path::new("/run/a.sock.ttrpc"));
    }
}
