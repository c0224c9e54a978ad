//! T-9: kill -9 of the daemon, again and again, while containers count.
//!
//! Each container writes the next number behind the last one, line by line; half of them are the engine's own, half are
//! made by `ctr`, under our shim. A daemon's death must not be noticed: no count is missing or doubled, every container
//! ends with the exit code that was told to it, and at the end there is no process, no mount and no task.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Engine, ImageBuilder, Registry, finish, require_root, wait_until};

use crate::figures::{self, Tally};

/// Containers that count.
const CONTAINERS: usize = 20;

/// Kills in the short form.
const SHORT: u64 = 12;

const DEADLINE: Duration = Duration::from_secs(120);

/// What a container runs: `$0` is its exit code.
const COUNT: &str = "i=0; while ! test -e /shared/stop; do i=$((i+1)); echo $i >> /shared/count.$0; \
                     sleep 0.02; done; exit $0";

struct Counters {
    engine: Engine,
    shared: PathBuf,
    _registry: Registry,
}

/// Names are this process's: OCI runtimes keep those of a namespace of containerd's in one place for all daemons.
fn name(number: usize) -> String {
    format!("counter-{}-{number}", std::process::id())
}

/// Every other container is one of containerd's clients.
fn is_of_ctr(number: usize) -> bool {
    number % 2 == 1
}

impl Counters {
    fn start() -> Result<Self> {
        require_root()?;
        let registry = Registry::start()?;
        let image = registry.push(&ImageBuilder::default().busybox()?.build()?, "counter", "1")?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        engine.ok(["images", "pull", &image])?;
        let shared = engine.scratch().join("shared");
        std::fs::create_dir(&shared)?;
        let counters = Self { engine, shared, _registry: registry };
        for number in 0..CONTAINERS {
            counters.add(&image, number)?;
        }
        Ok(counters)
    }

    fn add(&self, image: &str, number: usize) -> Result<()> {
        let (name, code) = (name(number), number.to_string());
        let shared = self.shared.display();
        let command = ["sh", "-c", COUNT, &code];
        if is_of_ctr(number) {
            let mount = format!("type=bind,src={shared},dst=/shared,options=rbind:rw");
            let runtime = ["run", "-d", "--runtime", "io.containerd.windlass.v1", "--mount", &mount, image];
            self.ctr(&[&runtime[..], &[name.as_str()], &command].concat())?;
        } else {
            let volume = format!("{shared}:/shared");
            let run = ["run", "-d", "--name", &name, "-v", &volume, image];
            self.engine.ok([&run[..], &command].concat())?;
        }
        Ok(())
    }

    fn ctr(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.engine.socket()).args(words);
        finish(&mut command, DEADLINE)?.success().with_context(|| words.join(" "))
    }

    fn counts(&self, number: usize) -> Vec<u64> {
        let text = std::fs::read_to_string(self.shared.join(format!("count.{number}"))).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Every container counts on from where it was.
    fn go_on(&self) -> Result<()> {
        let before: Vec<usize> = (0..CONTAINERS).map(|number| self.counts(number).len()).collect();
        wait_until("every container counts", DEADLINE, || {
            (0..CONTAINERS).all(|number| self.counts(number).len() > before[number])
        })
    }

    /// Kills the daemon and starts another, at different moments of its life: when all is quiet, or just after its start.
    fn kill(&mut self, number: u64) -> Result<()> {
        if number % 3 != 1 {
            self.go_on()?;
        }
        self.engine.kill_daemon()?;
        self.engine.start_daemon().map(drop)
    }

    /// Exit code of a container that has ended, as its client learns it.
    fn exit_code(&self, number: usize) -> Result<i32> {
        let name = name(number);
        if is_of_ctr(number) {
            let mut command = Command::new("ctr");
            command.arg("--address").arg(self.engine.socket()).args(["tasks", "delete", &name]);
            let end = finish(&mut command, DEADLINE)?;
            // It tells a code other than 0 in a warning.
            let Some((_, code)) = end.stderr.rsplit_once("exit code ") else {
                return end.success().map(|_| 0);
            };
            let digits: String = code.chars().take_while(char::is_ascii_digit).collect();
            return Ok(digits.parse()?);
        }
        let list: serde_json::Value =
            serde_json::from_str(&self.engine.ok(["--format", "json", "containers", "ls"])?)?;
        let all = list.as_array().or_else(|| list["containers"].as_array()).context("a list")?;
        let mine = all.iter().find(|container| container["id"] == name.as_str()).context("in the list")?;
        i32::try_from(mine["exit_code"].as_i64().context("an exit code")?).context("small")
    }

    /// All containers have ended, from the outside: no process has a shared file open as its argument.
    fn processes(&self) -> usize {
        let own = std::process::id();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != own && String::from_utf8_lossy(&words).contains("/shared/count.$0")
        })
        .count()
    }
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn t9_twenty_containers_count_on_while_the_daemon_is_killed() -> Result<()> {
    let mut counters = Counters::start()?;
    let tally = Tally::new("T-9 kill -9 of the daemon");
    for kill in 0..figures::trials(SHORT) {
        let outcome = counters.kill(kill);
        tally.count(true, || format!("kill {kill}"), outcome);
    }
    counters.go_on()?;
    let tasks = counters.ctr(&["tasks", "ls", "-q"])?;
    ensure!(tasks.lines().count() == CONTAINERS, "tasks after the kills:\n{tasks}");
    // They end while no daemon lives, and it is told afterwards.
    counters.engine.kill_daemon()?;
    std::fs::write(counters.shared.join("stop"), "")?;
    wait_until("every container has ended", DEADLINE, || counters.processes() == 0)?;
    counters.engine.start_daemon()?;
    let mut counted = 0;
    for number in 0..CONTAINERS {
        ensure!(counters.exit_code(number)? == i32::try_from(number)?, "exit code of counter-{number}");
        let counts = counters.counts(number);
        ensure!(
            counts.iter().zip(1..).all(|(count, expected)| *count == expected),
            "counter-{number} missed a count: {counts:?}"
        );
        counted += counts.len();
    }
    for number in 0..CONTAINERS {
        let name = name(number);
        if is_of_ctr(number) {
            counters.ctr(&["containers", "rm", &name])?;
        } else {
            counters.engine.ok(["containers", "rm", &name])?;
        }
    }
    let state = counters.engine.state();
    wait_until("no shim is left", DEADLINE, || counters.engine.processes().len() <= 1)?;
    ensure!(is_empty(&state.join("tasks/default")), "a task's directory is left");
    ensure!(is_empty(&state.join("containers/default")), "a container's directory is left");
    ensure!(Engine::mounts_below(&state).is_empty(), "a mount is left");
    tally.note(&format!("{CONTAINERS} containers, {counted} counts, none missed"));
    tally.close("the host's");
    Ok(())
}
