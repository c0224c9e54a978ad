//! Engines that start a container before its image has arrived: ours in several ways, and stargz-snapshotter.
//!
//! All begin with an empty root: what lazy engines keep of an image lies in many places.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::Engine;

use super::forms::Form;
use super::peers::{Parts, Peer, first_line, run};

/// Ours: what it is given, and how it is asked.
struct Way {
    name: &'static str,
    form: Form,
    mode: &'static str,
    /// Whether it has seen an earlier start of the same image.
    traced: bool,
}

const WAYS: [Way; 6] = [
    Way { name: "windlass-auto", form: Form::Gzip, mode: "auto", traced: false },
    Way { name: "windlass-gzip", form: Form::Gzip, mode: "always", traced: false },
    Way { name: "windlass-soci", form: Form::Soci, mode: "always", traced: false },
    Way { name: "windlass-estargz", form: Form::Estargz, mode: "always", traced: false },
    Way { name: "windlass-zstd-chunked", form: Form::ZstdChunked, mode: "always", traced: false },
    Way { name: "windlass-traced", form: Form::Estargz, mode: "always", traced: true },
];

/// Ours, pulling lazily.
pub(super) struct Windlass {
    way: &'static Way,
    root: PathBuf,
    engine: Option<Engine>,
    /// What an earlier start recorded, by image.
    traces: Vec<(String, PathBuf)>,
}

impl Windlass {
    /// The one of this name, if there is one.
    pub(super) fn start(data: &Path, name: &str) -> Result<Option<Self>> {
        let Some(way) = WAYS.iter().find(|way| way.name == name) else { return Ok(None) };
        let root = data.join(way.name);
        fs::create_dir_all(data)?;
        let mut peer = Self { way, root, engine: None, traces: Vec::new() };
        peer.clean()?;
        Ok(Some(peer))
    }

    fn engine(&self) -> Result<&Engine> {
        self.engine.as_ref().context("it was made clean, and so started")
    }

    /// Pulls and runs once to record what is read, and keeps the trace outside the root.
    fn record(&mut self, image: &str) -> Result<PathBuf> {
        if let Some((_, trace)) = self.traces.iter().find(|(known, _)| known == image) {
            return Ok(trace.clone());
        }
        let engine = self.engine()?;
        engine.ok(["pull", "--quiet", "--lazy", self.way.mode, image])?;
        engine.ok(["run", "--rm", image, "/bin/sh", "/bench/run"])?;
        let trace = self.root.with_extension(format!("trace-{}", self.traces.len()));
        engine.ok(["lazy", "trace", "export", image, trace.to_str().context("text")?])?;
        self.traces.push((image.to_owned(), trace.clone()));
        self.clean()?;
        Ok(trace)
    }
}

impl Peer for Windlass {
    fn name(&self) -> &'static str {
        self.way.name
    }

    fn version(&self) -> String {
        let version = self.engine().and_then(|engine| engine.ok(["version"])).unwrap_or_default();
        let first = version.lines().next().unwrap_or_default().to_owned();
        format!("{first}, {:?}, --lazy {}", self.way.form, self.way.mode)
    }

    fn form(&self) -> Form {
        self.way.form
    }

    fn is_lazy(&self) -> bool {
        true
    }

    fn clean(&mut self) -> Result<()> {
        // Its mounts and processes go with the engine.
        self.engine = None;
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        let mut engine = Engine::with_root(&self.root)?;
        engine.start_daemon()?;
        self.engine = Some(engine);
        Ok(())
    }

    fn prepare(&mut self, image: &str) -> Result<()> {
        if self.way.traced {
            let trace = self.record(image)?;
            self.engine()?.ok(["lazy", "trace", "import", image, trace.to_str().context("text")?])?;
        }
        Ok(())
    }

    fn pull(&mut self, image: &str) -> Result<Parts> {
        self.engine()?.ok(["pull", "--quiet", "--lazy", self.way.mode, image])?;
        Ok(Parts::default())
    }

    fn run(&mut self, image: &str) -> Result<Duration> {
        first_line(&mut self.engine()?.command(["run", "--rm", image, "/bin/sh", "/bench/run"])?)
    }

    fn settle(&mut self) -> Result<()> {
        self.engine = None;
        Ok(())
    }
}

/// stargz-snapshotter under Debian's containerd.
pub(super) struct Stargz {
    form: Form,
    directory: PathBuf,
    running: Option<tests::Stargz>,
}

impl Stargz {
    pub(super) fn start(data: &Path, form: Form) -> Self {
        let directory = data.join(format!("stargz-{}", form.tag()));
        Self { form, directory, running: None }
    }

    fn running(&self) -> Result<&tests::Stargz> {
        self.running.as_ref().context("it was made clean, and so started")
    }
}

impl Peer for Stargz {
    fn name(&self) -> &'static str {
        if self.form == Form::Estargz { "stargz-plain" } else { "stargz" }
    }

    fn version(&self) -> String {
        let query = ["--show", "--showformat=${Version}", "golang-github-containerd-stargz-snapshotter-dev"];
        let version = run(Command::new("dpkg-query").args(query)).unwrap_or_default();
        format!("stargz-snapshotter {version}, {:?}", self.form)
    }

    fn form(&self) -> Form {
        self.form
    }

    fn is_lazy(&self) -> bool {
        true
    }

    fn clean(&mut self) -> Result<()> {
        self.running = None;
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        self.running = Some(tests::Stargz::start(&self.directory, "")?);
        Ok(())
    }

    fn pull(&mut self, image: &str) -> Result<Parts> {
        self.running()?.pull(image)?;
        Ok(Parts::default())
    }

    fn run(&mut self, image: &str) -> Result<Duration> {
        first_line(&mut self.running()?.run(image, "bench", &["/bin/sh", "/bench/run"]))
    }

    fn settle(&mut self) -> Result<()> {
        self.running = None;
        Ok(())
    }
}
