//! Containerd and us, side by side: `ctr` on both, and what of its answers must be the same.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Containerd, Engine, Finished, ImageBuilder, Registry, finish, require_root, wait_until};

/// Longest that one command may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What of a command's end both sides must have in common.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    code: Option<i32>,
    lines: BTreeSet<String>,
    /// Class of the error, as containerd's clients tell them apart.
    class: &'static str,
}

const CLASSES: [&str; 5] =
    ["not found", "already exists", "invalid argument", "failed precondition", "not implemented"];

/// Containerd or us.
pub(crate) struct Side {
    socket: PathBuf,
    namespace: String,
    image: String,
    /// Said before every command that makes a container.
    runtime: Option<&'static str>,
    /// Of what the side writes.
    directory: PathBuf,
}

impl Side {
    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", &self.namespace]);
        for (index, word) in words.iter().enumerate() {
            command.arg(if word == "REF" { &self.image } else { word });
            let makes =
                (index == 0 && word == "run") || (index == 1 && word == "create" && words[0] == "containers");
            if let Some(runtime) = self.runtime.filter(|_| makes) {
                command.args(["--runtime", runtime]);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs one step: words as a shell would take them, `'` quoting. `REF` is the image. `until ID STATUS` waits.
    pub(crate) fn run(&self, step: &str) -> Result<Finished> {
        let words = words(step);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["until", id, status] => self.until(id, status)?,
            ["settled", exec, id] => self.settled(exec, id)?,
            _ => return finish(&mut self.command(&words), DEADLINE).with_context(|| step.to_owned()),
        }
        finish(&mut Command::new("true"), DEADLINE)
    }

    fn tasks(&self) -> String {
        self.run("tasks ls").map(|end| end.stdout).unwrap_or_default()
    }

    fn until(&self, id: &str, status: &str) -> Result<()> {
        wait_until(&format!("task {id} is {status}"), DEADLINE, || {
            let tasks = self.tasks();
            let mut rows = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            rows.any(|row| row.first() == Some(&id) && row.last() == Some(&status))
        })
    }

    /// Waits until an exec that was killed is no process of its container any more.
    fn settled(&self, exec: &str, id: &str) -> Result<()> {
        wait_until(&format!("exec {exec} has ended"), DEADLINE, || {
            self.run(&format!("tasks ps {id}")).is_ok_and(|end| !end.stdout.contains(exec))
        })
    }

    fn outcome(&self, end: &Finished) -> Outcome {
        let last = end.stderr.lines().last().unwrap_or_default().trim();
        let class = CLASSES.iter().find(|class| last.ends_with(*class)).copied().unwrap_or_default();
        let lines = end.stdout.lines().map(|line| self.plain(line)).filter(|line| !line.is_empty());
        Outcome { code: end.code, lines: lines.collect(), class }
    }

    /// A line without what cannot be the same: numbers of processes, the namespace, the runtime.
    fn plain(&self, line: &str) -> String {
        let word = |word: &str| match word.parse::<u64>() {
            // Small ones are exit codes and numbers of users.
            Ok(number) if number > 40 => "NUMBER".to_owned(),
            _ if self.runtime == Some(word) || word == "io.containerd.runc.v2" => "RUNTIME".to_owned(),
            // Labels, which ctr prints in any order.
            _ if word.contains('=') && word.contains(',') => {
                let labels: BTreeSet<&str> = word.split(',').collect();
                labels.into_iter().collect::<Vec<_>>().join(",")
            }
            _ => word.replace(&self.namespace, "NAMESPACE"),
        };
        line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Runs `ctr` on a pseudo-terminal that types `input`; its exit code and what the terminal showed.
    pub(crate) fn on_terminal(&self, words: &[&str], input: &str) -> Result<(Option<i32>, String)> {
        let owned: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let command = self.command(&owned);
        let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
        let line = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(quoted)
            .collect::<Vec<_>>()
            .join(" ");
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &format!("stty rows 33 cols 77; {line}"), "/dev/null"]);
        let typed = self.directory.join("typed");
        std::fs::File::create(&typed)?.write_all(input.as_bytes())?;
        // Held open behind the input: the end of it is not the end of the terminal.
        let mut feed = Command::new("sh");
        feed.arg("-c").arg("cat \"$1\"; exec sleep 60").arg("sh").arg(&typed).stdout(Stdio::piped());
        let mut feed = feed.spawn()?;
        script.stdin(feed.stdout.take().context("just piped")?);
        let end = finish(&mut script, DEADLINE);
        let _ = feed.kill();
        let _ = feed.wait();
        let end = end?;
        Ok((end.code, end.stdout))
    }

    /// Topics of what `ctr events` prints of tasks while `steps` are done.
    pub(crate) fn topics(&self, steps: &[&str]) -> Result<Vec<String>> {
        let log = self.directory.join("events");
        let mut command = self.command(&["events".to_owned()]);
        let mut child = command.stdout(std::fs::File::create(&log)?).stderr(Stdio::null()).spawn()?;
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        let mut tries = 0;
        let mut probe = |what: &str| {
            tries += 1;
            let name = format!("{}-{what}{tries}", self.namespace);
            let _ = self.run(&format!("namespaces create {name}"));
            told().contains(&name)
        };
        let heard = wait_until("events are heard", DEADLINE, || probe("begin"));
        let done: Result<Vec<_>> = heard.and_then(|()| {
            steps.iter().map(|step| self.run(step)?.success().with_context(|| (*step).to_owned())).collect()
        });
        let last = wait_until("the last event is heard", DEADLINE, || {
            probe("end") && told().contains("/tasks/delete")
        });
        let _ = child.kill();
        let _ = child.wait();
        done?;
        last?;
        let topic =
            |line: &str| line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned);
        Ok(told().lines().filter_map(topic).collect())
    }
}

/// Words of a line, separated by spaces; what stands between `'` is one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match (character, words.last_mut()) {
            ('\'', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (_, Some(word)) => word.push(character),
            (_, None) => {}
        }
    }
    words
}

/// Both sides, with a shell's image on each.
pub(crate) struct Both {
    theirs: Side,
    ours: Side,
    // They end after the last command.
    _containerd: Containerd,
    _engine: Engine,
    _registry: Registry,
}

impl Both {
    /// Containerd and us, both with containerd's shim.
    pub(crate) fn start() -> Result<Self> {
        Self::with(None)
    }

    /// The same with our own shim on our side.
    pub(crate) fn with_our_shim() -> Result<Self> {
        Self::with(Some("io.containerd.windlass.v1"))
    }

    fn with(runtime: Option<&'static str>) -> Result<Self> {
        require_root()?;
        let registry = Registry::start()?;
        let image = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        let side = |name: &str, socket: PathBuf, runtime| -> Result<Side> {
            let directory = engine.scratch().join(name);
            std::fs::create_dir(&directory)?;
            let namespace = format!("{name}-{}", unique());
            Ok(Side { socket, namespace, image: image.clone(), runtime, directory })
        };
        let ours = side("ours", engine.socket(), runtime)?;
        let directory = engine.scratch().join("containerd");
        std::fs::create_dir(&directory)?;
        let containerd = Containerd::start(&directory)?;
        let theirs = side("theirs", containerd.socket().to_owned(), None)?;
        for side in [&theirs, &ours] {
            side.run("images pull --plain-http REF")?.success()?;
        }
        Ok(Self { theirs, ours, _containerd: containerd, _engine: engine, _registry: registry })
    }

    /// The same on containerd and on us.
    pub(crate) fn each<T>(&self, work: impl Fn(&Side) -> Result<T>) -> Result<[T; 2]> {
        Ok([work(&self.theirs).context("on containerd")?, work(&self.ours).context("on us")?])
    }

    /// Runs the steps, one a line, on both.
    pub(crate) fn assert_same(&self, steps: &str) -> Result<()> {
        let mut different = Vec::new();
        for step in steps.lines().map(str::trim).filter(|step| !step.is_empty()) {
            let [theirs, ours] = self.each(|side| side.run(step))?;
            let (expected, found) = (self.theirs.outcome(&theirs), self.ours.outcome(&ours));
            if expected != found {
                different.push(format!(
                    "ctr {step}\n  theirs: {expected:?}\n          {}\n  ours:   {found:?}\n          {}",
                    theirs.stderr.trim(),
                    ours.stderr.trim()
                ));
            }
        }
        ensure!(different.is_empty(), "{} steps differ:\n{}", different.len(), different.join("\n"));
        Ok(())
    }
}

/// A number that no other test of this machine has now.
pub(crate) fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Drop for Both {
    fn drop(&mut self) {
        for side in [&self.theirs, &self.ours] {
            for id in side.run("containers ls -q").map(|end| end.stdout).unwrap_or_default().lines() {
                let _ = side.run(&format!("tasks delete --force {id}"));
                let _ = side.run(&format!("containers rm {id}"));
            }
            // Runtimes make the namespace's cgroup and leave it.
            let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            for hierarchy in hierarchies {
                let _ = std::fs::remove_dir(hierarchy.path().join(&side.namespace));
            }
            let _ = std::fs::remove_dir(format!("/sys/fs/cgroup/{}", side.namespace));
            let _ = std::fs::remove_dir(format!("/run/containerd/runc/{}", side.namespace));
        }
    }
}
