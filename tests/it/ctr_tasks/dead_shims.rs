//! Shims and daemons that are killed: what `ctr` sees afterwards, under containerd's shim and under ours.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Engine, Finished, ImageBuilder, Registry, finish, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

const RUNTIMES: [&str; 2] = ["io.containerd.runc.v2", "io.containerd.windlass.v1"];

/// Our daemon, and a shell's image in a namespace of its own.
struct Ours {
    engine: Engine,
    namespace: String,
    image: String,
    _registry: Registry,
}

impl Ours {
    fn start() -> Result<Self> {
        let registry = Registry::start()?;
        let image = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        let namespace = format!("dead-{}", super::sides::unique());
        let ours = Self { engine, namespace, image, _registry: registry };
        ours.ok(&["images", "pull", "--plain-http", &ours.image])?;
        Ok(ours)
    }

    fn ctr(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.engine.socket()).args(["--namespace", &self.namespace]);
        finish(command.args(words), DEADLINE)
    }

    fn ok(&self, words: &[&str]) -> Result<String> {
        self.ctr(words)?.success().with_context(|| words.join(" "))
    }

    fn run(&self, runtime: &str, id: &str, script: &str) -> Result<()> {
        let shared = self.engine.scratch().join("shared");
        std::fs::create_dir_all(&shared)?;
        let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
        let words =
            ["run", "-d", "--runtime", runtime, "--mount", &mount, &self.image, id, "sh", "-c", script];
        self.ok(&words).map(drop)
    }

    /// Status of a task by `ctr tasks ls`; nothing if it has none.
    fn status(&self, id: &str) -> Option<String> {
        let tasks = self.ctr(&["tasks", "ls"]).ok()?.stdout;
        let rows = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.into_iter()
            .find(|row| row.first() == Some(&id))
            .and_then(|row| row.last().map(|word| (*word).to_owned()))
    }

    fn pid(&self, id: &str) -> Result<u32> {
        let tasks = self.ok(&["tasks", "ls"])?;
        let line = tasks.lines().find(|line| line.starts_with(id)).context("no such task")?;
        Ok(line.split_whitespace().nth(1).context("no process id")?.parse()?)
    }

    /// Deletes a task; the exit code that `ctr` tells of it, in a warning when it is not 0.
    fn told_code(&self, id: &str) -> Result<u32> {
        let end = self.ctr(&["tasks", "delete", id])?;
        let code = end.stderr.rsplit("exit code ").next().unwrap_or_default();
        let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
        if end.stderr.contains("exit code") { Ok(digits.parse()?) } else { end.success().map(|_| 0) }
    }

    /// The parent of a container's first process.
    fn shim(&self, id: &str) -> Result<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid(id)?))?;
        let after_name = stat.rsplit(") ").next().context("stat")?;
        Ok(after_name.split(' ').nth(1).context("stat")?.parse()?)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for id in self.ctr(&["containers", "ls", "-q"]).map(|end| end.stdout).unwrap_or_default().lines() {
            let _ = self.ctr(&["tasks", "delete", "--force", id]);
            let _ = self.ctr(&["containers", "rm", id]);
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(&self.namespace));
        }
    }
}

fn kill(pid: u32) -> Result<()> {
    finish(Command::new("kill").args(["-KILL", &pid.to_string()]), DEADLINE)?.success().map(drop)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn a_killed_shim_takes_its_task_along_and_leaves_nothing() -> Result<()> {
    let ours = Ours::start()?;
    for runtime in RUNTIMES {
        ours.run(runtime, "c1", "sleep 1000")?;
        let (init, shim) = (ours.pid("c1")?, ours.shim("c1")?);
        kill(shim)?;
        wait_until("the task is gone", DEADLINE, || ours.status("c1").is_none() && !is_alive(init))?;
        wait_until("nothing is left of it", DEADLINE, || {
            is_empty(&ours.engine.state().join("tasks").join(&ours.namespace))
        })?;
        assert_eq!(Engine::mounts_below(&ours.engine.state()), Vec::<std::path::PathBuf>::new(), "{runtime}");
        ours.ok(&["tasks", "start", "-d", "c1"])?;
        assert_eq!(ours.status("c1").as_deref(), Some("RUNNING"), "{runtime}");
        ours.ok(&["tasks", "delete", "--force", "c1"]).ok();
        ours.ok(&["containers", "rm", "c1"])?;
    }
    Ok(())
}

#[test]
fn tasks_go_on_and_keep_their_statuses_when_the_daemon_is_killed() -> Result<()> {
    let mut ours = Ours::start()?;
    for runtime in RUNTIMES {
        let go = ours.engine.scratch().join("shared/go");
        let _ = std::fs::remove_file(&go);
        ours.run(runtime, "ends", "while ! test -e /shared/go; do sleep 0.1; done; exit 42")?;
        ours.run(runtime, "stays", "sleep 1000")?;
        let (ends, stays) = (ours.pid("ends")?, ours.pid("stays")?);
        ours.engine.kill_daemon()?;
        std::fs::write(&go, "")?;
        wait_until("the one has ended", DEADLINE, || !is_alive(ends))?;
        assert!(is_alive(stays));
        ours.engine.start_daemon()?;
        assert_eq!(ours.status("ends").as_deref(), Some("STOPPED"), "{runtime}");
        assert_eq!(ours.status("stays").as_deref(), Some("RUNNING"), "{runtime}");
        assert_eq!(ours.pid("stays")?, stays);
        let exec = ours.ctr(&["tasks", "exec", "--exec-id", "e", "stays", "sh", "-c", "echo in; exit 7"])?;
        assert_eq!((exec.code, exec.stdout.as_str()), (Some(7), "in\n"), "{runtime}: {}", exec.stderr);
        assert_eq!(ours.told_code("ends")?, 42, "{runtime}");
        ours.ok(&["tasks", "kill", "-s", "KILL", "stays"])?;
        wait_until("the other has ended", DEADLINE, || ours.status("stays").as_deref() == Some("STOPPED"))?;
        assert_eq!(ours.told_code("stays")?, 137, "{runtime}");
        ours.ok(&["containers", "rm", "ends", "stays"])?;
    }
    Ok(())
}

#[test]
fn a_shim_that_died_while_no_daemon_lived_is_taken_away_by_the_next_one() -> Result<()> {
    let mut ours = Ours::start()?;
    for runtime in RUNTIMES {
        ours.run(runtime, "c1", "sleep 1000")?;
        let (init, shim) = (ours.pid("c1")?, ours.shim("c1")?);
        ours.engine.kill_daemon()?;
        kill(shim)?;
        wait_until("the shim is dead", DEADLINE, || !is_alive(shim))?;
        ours.engine.start_daemon()?;
        assert_eq!(ours.status("c1"), None, "{runtime}");
        wait_until("its process is dead", DEADLINE, || !is_alive(init))?;
        assert_eq!(Engine::mounts_below(&ours.engine.state()), Vec::<std::path::PathBuf>::new(), "{runtime}");
        ours.ok(&["containers", "rm", "c1"])?;
    }
    Ok(())
}
