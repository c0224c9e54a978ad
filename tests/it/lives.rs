//! What is done with containers of `windlass run` after their start: execs, stops, policies, shims and daemons that die.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Engine, ImageBuilder, Registry, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// An engine with a daemon of ours and a shell's image.
struct Lives {
    engine: Engine,
    image: String,
    _registry: Registry,
}

impl Lives {
    fn start() -> Result<Self> {
        let registry = Registry::start()?;
        let image = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        engine.ok(["pull", &image])?;
        Ok(Self { engine, image, _registry: registry })
    }

    fn run(&self, name: &str, options: &[&str], script: &str) -> Result<()> {
        let shared = self.engine.scratch().join("shared");
        std::fs::create_dir_all(&shared)?;
        let volume = format!("{}:/shared", shared.display());
        let mut words = vec!["run", "-d", "--name", name, "-v", &volume];
        words.extend(options);
        words.extend([self.image.as_str(), "sh", "-c", script]);
        self.engine.ok(words).map(drop)
    }

    fn container(&self, name: &str) -> Result<Value> {
        let list: Value = serde_json::from_str(&self.engine.ok(["--format", "json", "containers", "ls"])?)?;
        let all = list.as_array().or_else(|| list["containers"].as_array()).context("a list")?;
        all.iter().find(|container| container["id"] == name).cloned().context("no such container")
    }

    fn status(&self, name: &str) -> String {
        let container = self.container(name);
        container
            .ok()
            .and_then(|container| container["status"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    fn pid(&self, name: &str) -> Result<u64> {
        self.container(name)?["pid"].as_u64().context("a process id")
    }

    fn until(&self, name: &str, status: &str) -> Result<()> {
        wait_until(&format!("{name} is {status}"), DEADLINE, || self.status(name) == status)
    }

    /// Lines that containers wrote into a shared file.
    fn lines(&self, file: &str) -> usize {
        let text = std::fs::read_to_string(self.engine.scratch().join("shared").join(file));
        text.unwrap_or_default().lines().count()
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn an_exec_has_the_containers_environment_its_own_status_and_outlives_the_daemon() -> Result<()> {
    let mut lives = Lives::start()?;
    lives.run("one", &["--env", "A=1"], "sleep 1000")?;
    let end = lives.engine.run(["exec", "one", "sh", "-c", "echo $A; exit 7"])?;
    assert_eq!((end.code, end.stdout.as_str()), (Some(7), "1\n"), "{}", end.stderr);
    let end = lives.engine.run(["exec", "--user", "12:34", "one", "id"])?;
    assert!(end.stdout.starts_with("uid=12 gid=34"), "{} {}", end.stdout, end.stderr);
    let missing = lives.engine.run(["exec", "one", "no-such-program"])?;
    assert_eq!(missing.code, Some(127), "{}", missing.stderr);
    lives.engine.kill_daemon()?;
    lives.engine.start_daemon()?;
    let end = lives.engine.run(["exec", "one", "echo", "again"])?;
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), "again\n"), "{}", end.stderr);
    lives.engine.ok(["rm", "-f", "one"])?;
    let gone = lives.engine.run(["exec", "one", "true"])?;
    assert_ne!(gone.code, Some(0));
    Ok(())
}

#[test]
fn a_stop_gives_time_and_then_kills_and_a_paused_container_stops_too() -> Result<()> {
    let lives = Lives::start()?;
    lives.run("kind", &[], "trap 'exit 5' TERM; while :; do sleep 0.1; done")?;
    lives.run("deaf", &[], "trap '' TERM; while :; do sleep 0.1; done")?;
    lives.run("still", &[], "sleep 1000")?;
    wait_until("the traps are set", DEADLINE, || lives.status("deaf") == "running")?;
    lives.engine.ok(["stop", "-t", "30", "kind"])?;
    assert_eq!(lives.container("kind")?["exit_code"], 5);
    lives.engine.ok(["stop", "-t", "1", "deaf"])?;
    assert_eq!(lives.container("deaf")?["exit_code"], 137);
    lives.engine.ok(["pause", "still"])?;
    lives.engine.ok(["stop", "-t", "0", "still"])?;
    assert_eq!(lives.status("still"), "exited");
    for name in ["kind", "deaf", "still"] {
        lives.engine.ok(["rm", name])?;
    }
    wait_until("no shim is left", DEADLINE, || lives.engine.processes().len() <= 1)
}

#[test]
fn a_container_that_ended_starts_again_on_the_files_it_left() -> Result<()> {
    let lives = Lives::start()?;
    lives.run("one", &[], "echo x >> /kept; cat /kept >> /shared/out; exit 3")?;
    lives.until("one", "exited")?;
    lives.engine.ok(["start", "one"])?;
    wait_until("it ran twice", DEADLINE, || lives.lines("out") == 3)?;
    lives.until("one", "exited")?;
    assert_eq!(lives.container("one")?["exit_code"], 3);
    lives.engine.ok(["rm", "one"]).map(drop)
}

#[test]
fn a_policy_starts_containers_again_also_after_the_daemons_death() -> Result<()> {
    let mut lives = Lives::start()?;
    lives.run("always", &["--restart", "always"], "echo x >> /shared/always; sleep 0.2")?;
    lives.run("twice", &["--restart", "on-failure:2"], "echo x >> /shared/twice; exit 1")?;
    lives.run("never", &["--restart", "on-failure:2"], "echo x >> /shared/never; exit 0")?;
    lives.run("steady", &["--restart", "unless-stopped"], "echo x >> /shared/steady; sleep 1000")?;
    wait_until("it ran three times", DEADLINE, || lives.lines("always") >= 3 && lives.lines("twice") == 3)?;
    let steady = lives.pid("steady")?;
    lives.engine.kill_daemon()?;
    std::process::Command::new("kill").args(["-KILL", &steady.to_string()]).status()?;
    wait_until("the steady one is dead", DEADLINE, || !is_alive(steady))?;
    let before = lives.lines("always");
    lives.engine.start_daemon()?;
    wait_until("both run again", DEADLINE, || lives.lines("always") > before && lives.lines("steady") == 2)?;
    lives.engine.ok(["stop", "-t", "0", "steady"])?;
    lives.engine.ok(["stop", "-t", "0", "always"])?;
    let (always, steady) = (lives.lines("always"), lives.lines("steady"));
    lives.engine.kill_daemon()?;
    lives.engine.start_daemon()?;
    lives.run("last", &[], "sleep 0.5")?;
    lives.until("last", "exited")?;
    assert_eq!((lives.lines("always"), lives.lines("steady")), (always, steady), "stopped is stopped");
    assert_eq!((lives.lines("twice"), lives.lines("never")), (3, 1));
    for name in ["always", "twice", "never", "steady", "last"] {
        lives.engine.ok(["rm", "-f", name])?;
    }
    Ok(())
}

#[test]
fn a_killed_shim_is_told_and_its_process_does_not_run_on() -> Result<()> {
    let lives = Lives::start()?;
    lives.run("one", &[], "sleep 1000")?;
    let pid = lives.pid("one")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let shim = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).context("a parent")?;
    std::process::Command::new("kill").args(["-KILL", shim]).status()?;
    lives.until("one", "exited")?;
    assert_eq!(lives.container("one")?["exit_code"], 137);
    assert!(!is_alive(pid), "its process runs on");
    lives.engine.ok(["start", "one"])?;
    lives.until("one", "running")?;
    lives.engine.ok(["rm", "-f", "one"])?;
    assert!(Engine::mounts_below(&lives.engine.state()).is_empty());
    Ok(())
}

#[test]
fn ctr_sees_containers_of_windlass_run_and_can_exec_in_them() -> Result<()> {
    let lives = Lives::start()?;
    lives.run("one", &[], "sleep 1000")?;
    let ctr = |words: &[&str]| {
        let mut command = std::process::Command::new("ctr");
        command.arg("--address").arg(lives.engine.socket()).args(words);
        tests::finish(&mut command, DEADLINE)
    };
    let tasks = ctr(&["tasks", "ls"])?.success()?;
    assert!(tasks.lines().any(|line| line.starts_with("one ") && line.ends_with("RUNNING")), "{tasks}");
    let exec = ctr(&["tasks", "exec", "--exec-id", "e", "one", "sh", "-c", "echo in; exit 4"])?;
    assert_eq!((exec.code, exec.stdout.as_str()), (Some(4), "in\n"), "{}", exec.stderr);
    ctr(&["tasks", "pause", "one"])?.success()?;
    ctr(&["tasks", "resume", "one"])?.success()?;
    ctr(&["tasks", "kill", "-s", "KILL", "one"])?.success()?;
    lives.until("one", "exited")?;
    lives.engine.ok(["rm", "one"]).map(drop)
}
