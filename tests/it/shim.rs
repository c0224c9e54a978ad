//! Our shim under Debian's containerd: the same `ctr` commands as with containerd's own shim, the same answers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use tests::{Containerd, require_root, wait_until, windlass};

/// Longest that something which must happen may take.
const LONG: Duration = Duration::from_secs(30);

/// containerd with a root directory to run, and two shims to run it by.
struct Stage {
    containerd: Containerd,
    rootfs: PathBuf,
    ours: PathBuf,
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Result<Self> {
        require_root()?;
        let directory = tempfile::tempdir()?;
        let rootfs = directory.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.context("there is no busybox here: apt-get install busybox-static")?;
        fs::copy(busybox, rootfs.join("bin/busybox"))?;
        for name in ["sh", "sleep", "echo", "cat", "true", "false", "tty", "stty", "id", "pwd", "kill"] {
            symlink("busybox", rootfs.join("bin").join(name))?;
        }
        let ours = directory.path().join("containerd-shim-windlass-v1");
        symlink(windlass()?, &ours)?;
        let containerd = Containerd::start(directory.path())?;
        Ok(Self { containerd, rootfs, ours, directory })
    }

    /// What a `ctr` command answers: its code, and what it printed. `RUN` stands for a run on
    /// the root with the shim in question.
    fn answer(&self, shim: &str, namespace: &str, line: &str) -> Result<String> {
        let run = format!("run --env PATH=/bin --runtime {shim}");
        let root = self.rootfs.display().to_string();
        let mut words = vec!["--namespace".to_owned(), namespace.to_owned()];
        let line = line.replace("RUN", &run).replace("ROOT", &format!("--rootfs {root}"));
        words.extend(shell_words(&line));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let end = self.containerd.finish("ctr", &words)?;
        // Why it was refused each shim says in its own words, and classes: ours are narrower than `unknown`.
        let out: Vec<String> =
            end.stdout.lines().map(|text| numbers_hidden(text, line.starts_with("tasks"))).collect();
        Ok(format!("{:?} {out:?}", end.code))
    }

    /// Runs each line with both shims, and compares.
    fn assert_same(&self, lines: &str) -> Result<()> {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("until ") {
                for namespace in ["stock", "ours"] {
                    self.until(namespace, rest)?;
                }
                continue;
            }
            let stock = self.answer("io.containerd.runc.v2", "stock", line)?;
            let ours = self.answer(&self.ours.display().to_string(), "ours", line)?;
            ensure!(stock == ours, "ctr {line}\n  containerd's shim: {stock}\n  ours:              {ours}");
        }
        Ok(())
    }

    /// Waits until the list of tasks has a line with all of these words.
    fn until(&self, namespace: &str, words: &str) -> Result<()> {
        wait_until(words, LONG, || {
            let list =
                self.containerd.ctr("ctr", &["--namespace", namespace, "tasks", "ls"]).unwrap_or_default();
            list.lines()
                .any(|line| words.split(' ').all(|word| line.split_whitespace().any(|have| have == word)))
        })
    }

    /// Command lines of the shims that serve this containerd.
    fn shims(&self) -> Vec<String> {
        let socket = self.containerd.socket().display().to_string();
        let lines = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let text = fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&text).replace('\0', " ");
            (text.contains("containerd-shim") && text.contains(&socket)).then_some(text)
        });
        lines.collect()
    }

    fn assert_clean(&self) -> Result<()> {
        wait_until("the shims are gone", LONG, || self.shims().is_empty())?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let top = self.directory.path().display().to_string();
        ensure!(!mounts.contains(&top), "a mount is left: {mounts}");
        Ok(())
    }
}

/// Digits become one `#`, where they are process ids.
fn numbers_hidden(text: &str, hide: bool) -> String {
    if !hide {
        return text.to_owned();
    }
    let words = text.split_whitespace().map(|word| if word.parse::<u32>().is_ok() { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Words of a line, with `'...'` around those that hold blanks.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn under_containerd_our_shim_answers_as_containerds_own() -> Result<()> {
    let stage = Stage::new()?;
    stage.assert_same(
        "RUN --rm ROOT c1 echo hello
        RUN --rm ROOT c1 sh -c 'echo out; echo err >&2; exit 42'
        RUN --rm ROOT c1 sh -c 'kill -9 $$; sleep 1; exit 3'
        RUN --rm --user 12:34 ROOT c1 id
        RUN --rm --cwd /tmp ROOT c1 pwd
        RUN --rm --null-io ROOT c1 echo hidden
        RUN -d ROOT c1 sleep 1000
        tasks ls
        tasks exec --exec-id e1 c1 sh -c 'echo inside; exit 7'
        tasks exec --exec-id e1 c1 true
        tasks ps c1
        tasks pause c1
        tasks ls
        tasks exec --exec-id e2 c1 true
        tasks resume c1
        tasks delete c1
        tasks kill -s TERM c1
        tasks kill -s KILL c1
        until c1 STOPPED
        tasks kill -s KILL c1
        tasks delete c1
        tasks ls
        containers delete c1
        containers ls -q",
    )?;
    stage.assert_clean()
}

#[test]
fn a_shim_that_is_killed_under_containerd_is_cleaned_up_behind() -> Result<()> {
    let stage = Stage::new()?;
    let ours = stage.ours.display().to_string();
    let root = stage.rootfs.display().to_string();
    stage
        .containerd
        .ctr("ctr", &["run", "-d", "--runtime", &ours, "--rootfs", &root, "k1", "/bin/sleep", "1000"])?;
    let pid = stage.containerd.ctr("ctr", &["tasks", "ls"])?;
    let pid: u32 =
        pid.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).context("a task")?.parse()?;
    let shims: Vec<u32> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| {
            let text = fs::read(entry.path().join("cmdline")).ok()?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let is_ours = text.contains("containerd-shim-windlass-v1") && text.contains("\0k1\0");
            is_ours.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
        })
        .collect();
    ensure!(shims.len() == 1, "{shims:?}");
    storage_sys::process::Pidfd::open(shims[0])?.signal(9)?;
    wait_until("the task is gone", LONG, || {
        stage.containerd.ctr("ctr", &["tasks", "ls", "-q"]).is_ok_and(|list| list.trim().is_empty())
    })?;
    wait_until("its process is gone", LONG, || !Path::new(&format!("/proc/{pid}")).exists())?;
    stage.containerd.ctr("ctr", &["containers", "delete", "k1"])?;
    stage.assert_clean()
}
