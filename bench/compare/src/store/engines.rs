//! The two engines: where they listen, and how a user moves archives in and out of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report;

/// An engine with a running daemon.
pub(crate) enum Engine {
    Windlass(tests::Engine),
    Containerd(tests::Containerd),
}

/// Longest that one command may take.
const DEADLINE: Duration = Duration::from_secs(600);

impl Engine {
    /// Ours.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn windlass(data: &Path) -> Result<Self> {
        let mut engine = tests::Engine::with_root(&data.join("windlass-store"))?;
        engine.start_daemon()?;
        Ok(Self::Windlass(engine))
    }

    /// Debian's containerd.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub(crate) fn containerd(data: &Path) -> Result<Self> {
        Ok(Self::Containerd(tests::Containerd::start(&data.join("containerd-store"))?))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Windlass(_) => "windlass",
            Self::Containerd(_) => "containerd",
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        match self {
            Self::Windlass(engine) => engine.socket(),
            Self::Containerd(daemon) => daemon.socket().to_owned(),
        }
    }

    /// Its version, in its own words.
    pub(crate) fn version(&self) -> String {
        let told = match self {
            Self::Windlass(engine) => engine.ok(["version", "--client"]).unwrap_or_default(),
            Self::Containerd(_) => tests::finish(Command::new("containerd").arg("--version"), DEADLINE)
                .and_then(tests::Finished::success)
                .unwrap_or_default(),
        };
        format!("{}: {}", self.name(), told.lines().next().unwrap_or_default().trim())
    }

    /// Imports `archive` (unpacked too), exports the image again, pushes it as `target`, and removes it.
    ///
    /// # Errors
    /// A command fails.
    pub(crate) fn archives(
        &self,
        archive: &Path,
        target: &str,
        data: &Path,
    ) -> Result<Vec<(&'static str, Duration)>> {
        let out = data.join("exported.tar");
        let (archive, out) = (text(archive)?, text(&out)?);
        let import = self.timed(&["images", "import", archive])?;
        let image = self.image()?;
        let export = self.timed(&["images", "export", out, &image])?;
        std::fs::remove_file(out)?;
        let push = match self {
            Self::Windlass(_) => self.timed(&["images", "push", target, &image])?,
            Self::Containerd(_) => self.timed(&["images", "push", "--plain-http", target, &image])?,
        };
        self.timed(&["images", "rm", "--sync", &image])?;
        Ok(vec![(report::IMPORT, import), (report::EXPORT, export), (report::PUSH, push)])
    }

    /// The one image there is.
    fn image(&self) -> Result<String> {
        let (listed, _) = self.command(&["images", "ls", "--quiet"])?;
        let named = listed.split_whitespace().find(|name| name.contains("bench.example"));
        named.map(str::to_owned).with_context(|| format!("the archive's image is not among {listed:?}"))
    }

    fn timed(&self, arguments: &[&str]) -> Result<Duration> {
        Ok(self.command(arguments)?.1)
    }

    fn command(&self, arguments: &[&str]) -> Result<(String, Duration)> {
        let begun = Instant::now();
        let told = match self {
            Self::Windlass(engine) => engine.ok(arguments)?,
            Self::Containerd(daemon) => daemon.ctr("ctr", arguments)?,
        };
        Ok((told, begun.elapsed()))
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
