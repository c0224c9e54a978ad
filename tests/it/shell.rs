//! A registry, an engine and an image with a shell in it, for tests of containers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Engine, Finished, ImageBuilder, Registry, finish, wait_until};

/// Longest that something may take on a busy machine before it counts as not happening.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The three, and the image's name.
pub(crate) struct Shell {
    pub(crate) engine: Engine,
    pub(crate) image: String,
    _registry: Registry,
}

impl Shell {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::start()?;
        let image = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
        let engine = Engine::new()?;
        engine.ok(["pull", "--quiet", &image])?;
        Ok(Self { engine, image, _registry: registry })
    }

    /// `run --rm OPTIONS IMAGE COMMAND`.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> Result<Finished> {
        let words = [&["run", "--rm"], options, &[self.image.as_str()], command].concat();
        self.engine.run(words)
    }

    /// The same with a script of the shell.
    pub(crate) fn script(&self, options: &[&str], script: &str) -> Result<Finished> {
        self.run(options, &["sh", "-c", script])
    }

    /// `run -d --name NAME OPTIONS IMAGE sh -c SCRIPT`.
    pub(crate) fn detached(&self, name: &str, options: &[&str], script: &str) -> Result<()> {
        let words =
            [&["run", "-d", "--name", name], options, &[self.image.as_str(), "sh", "-c", script]].concat();
        self.engine.ok(words).map(drop)
    }

    /// The container as `containers ls` has it; nothing when there is none.
    pub(crate) fn container(&self, name: &str) -> Result<Option<Value>> {
        let all: Value = serde_json::from_str(&self.engine.ok(["--format", "json", "containers", "ls"])?)?;
        let all = all.as_array().context("a list")?;
        Ok(all.iter().find(|container| container["id"] == name).cloned())
    }

    /// Waits until a container has ended, and gives its exit code.
    pub(crate) fn ended(&self, name: &str) -> Result<i64> {
        let code = || self.container(name).ok().flatten()?["exit_code"].as_i64();
        wait_until("the container has ended", PATIENCE, || code().is_some())?;
        code().context("it has ended")
    }

    /// Nothing of any container is left: no record, no process, no mount, no network.
    pub(crate) fn assert_nothing_left(&self) -> Result<()> {
        let containers = self.engine.ok(["containers", "ls", "-q"])?;
        assert_eq!(containers, "", "containers are left");
        wait_until("every shim has ended", PATIENCE, || self.engine.processes().len() <= 1)?;
        let mounts = Engine::mounts_below(self.engine.scratch());
        assert!(mounts.is_empty(), "mounts are left: {mounts:?}");
        let networks = self.engine.state().join("network/containers");
        for namespace in std::fs::read_dir(networks).into_iter().flatten().flatten() {
            let left: Vec<_> =
                std::fs::read_dir(namespace.path())?.flatten().map(|entry| entry.path()).collect();
            assert!(left.is_empty(), "networks are left: {left:?}");
        }
        let snapshots = self.engine.ok(["--format", "{{.Kind}}", "snapshots", "ls"])?;
        assert!(!snapshots.contains("active"), "snapshots are left: {snapshots}");
        Ok(())
    }
}

/// What a program of this machine prints.
pub(crate) fn here(program: &str, arguments: &[&str]) -> Result<String> {
    finish(Command::new(program).args(arguments), PATIENCE)?.success()
}
