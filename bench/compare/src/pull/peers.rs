//! The engines that are measured: how each is made cold, pulls, and runs.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::{Engine, finish};

use super::forms::Form;
use super::lazy;

/// Longest that one step may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// What a pull told of itself, beside the time the harness measured.
#[derive(Debug, Default, Clone)]
pub(crate) struct Parts(pub(crate) Vec<(String, f64)>);

/// One engine under measurement.
pub(crate) trait Peer {
    /// Its name in tables.
    fn name(&self) -> &'static str;
    /// Its version, in its own words.
    fn version(&self) -> String;
    /// The form of image it is given.
    fn form(&self) -> Form {
        Form::Gzip
    }
    /// Whether a pull may return before the image has arrived.
    fn is_lazy(&self) -> bool {
        false
    }
    /// Stops what it goes on doing after the run, which would disturb the next.
    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
    /// Removes every image and what belongs to it.
    fn clean(&mut self) -> Result<()>;
    /// Gives it what it would have from an earlier start of this image on another machine.
    fn prepare(&mut self, _image: &str) -> Result<()> {
        Ok(())
    }
    /// Brings an image in.
    fn pull(&mut self, image: &str) -> Result<Parts>;
    /// Runs the image's workload; returns the time from the start of the command to the first line it printed.
    fn run(&mut self, image: &str) -> Result<Duration>;
}

/// Every peer of these names whose programs are installed.
///
/// # Errors
/// A name is unknown, or a peer does not start.
pub(crate) fn start(names: &[String], data: &Path) -> Result<Vec<Box<dyn Peer>>> {
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for name in names {
        peers.push(match name.as_str() {
            "windlass" => Box::new(Windlass::start(data)?),
            "containerd" => Box::new(Containerd::start(data, false)?),
            "containerd-overlap" => Box::new(Containerd::start(data, true)?),
            "podman" => Box::new(Podman::start(data)?),
            "stargz" => Box::new(lazy::Stargz::start(data, Form::EstargzTraced)),
            "stargz-plain" => Box::new(lazy::Stargz::start(data, Form::Estargz)),
            other => {
                Box::new(lazy::Windlass::start(data, other)?.with_context(|| {
                    format!("{other:?} is no peer: `bench-compare pull --help` names them")
                })?)
            }
        });
    }
    Ok(peers)
}

pub(super) fn run(command: &mut Command) -> Result<String> {
    finish(command, DEADLINE)?.success().with_context(|| format!("{command:?}"))
}

/// Starts `command` and returns the time to the first line it prints, after it has ended well.
pub(super) fn first_line(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("just piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let elapsed = started.elapsed();
    std::io::copy(&mut output, &mut std::io::sink())?;
    let mut errors = String::new();
    child.stderr.take().context("just piped")?.read_to_string(&mut errors)?;
    ensure!(child.wait()?.success() && !line.trim().is_empty(), "{command:?} printed {line:?}\n{errors}");
    Ok(elapsed)
}

/// Ours, with a daemon that runs already, as containerd's does.
struct Windlass {
    engine: Engine,
}

impl Windlass {
    fn start(data: &Path) -> Result<Self> {
        let mut engine = Engine::with_root(&data.join("windlass"))?;
        engine.start_daemon()?;
        Ok(Self { engine })
    }
}

impl Peer for Windlass {
    fn name(&self) -> &'static str {
        "windlass"
    }

    fn version(&self) -> String {
        self.engine.ok(["version"]).unwrap_or_default()
    }

    fn clean(&mut self) -> Result<()> {
        let listed = self.engine.ok(["images", "ls", "--quiet"])?;
        for image in listed.split_whitespace() {
            self.engine.ok(["images", "rm", image])?;
        }
        self.engine.ok(["gc"])?;
        let left = self.engine.inside_root("snapshots").len() + self.engine.inside_root("blobs/sha256").len();
        ensure!(left == 0, "not cold: {left} blobs and snapshots are left");
        Ok(())
    }

    fn pull(&mut self, image: &str) -> Result<Parts> {
        let told = self.engine.ok(["--format", "json", "pull", image])?;
        let values = serde_json::Deserializer::from_str(&told).into_iter::<serde_json::Value>();
        let parts = values.map_while(Result::ok).filter_map(|value| find(&value, "parts_seconds")).last();
        let parts = parts.and_then(|parts| Some(parts.as_object()?.clone())).unwrap_or_default();
        Ok(Parts(parts.into_iter().filter_map(|(name, seconds)| Some((name, seconds.as_f64()?))).collect()))
    }

    fn run(&mut self, image: &str) -> Result<Duration> {
        first_line(&mut self.engine.command(["run", "--rm", image, "/bin/sh", "/bench/run"])?)
    }
}

/// The value under a key, at any depth.
fn find(value: &serde_json::Value, key: &str) -> Option<serde_json::Value> {
    match value {
        serde_json::Value::Object(object) => {
            object.get(key).cloned().or_else(|| object.values().find_map(|value| find(value, key)))
        }
        serde_json::Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

/// Debian's containerd with a root of its own. `overlap` unpacks layers as they arrive, which is what `client.Pull`
/// does for nerdctl and Kubernetes; plain `ctr images pull` fetches all and unpacks then.
struct Containerd {
    daemon: tests::Containerd,
    overlap: bool,
}

impl Containerd {
    fn start(data: &Path, overlap: bool) -> Result<Self> {
        if overlap {
            ensure!(
                tests::has_command("ctr-remote"),
                "ctr-remote is not installed (Debian's stargz-snapshotter)"
            );
        }
        let directory = data.join(if overlap { "containerd-overlap" } else { "containerd" });
        let mut peer = Self { daemon: tests::Containerd::start(&directory)?, overlap };
        peer.clean()?;
        Ok(peer)
    }
}

impl Peer for Containerd {
    fn name(&self) -> &'static str {
        if self.overlap { "containerd-overlap" } else { "containerd" }
    }

    fn version(&self) -> String {
        run(Command::new("containerd").arg("--version")).unwrap_or_default()
    }

    fn clean(&mut self) -> Result<()> {
        for image in self.daemon.ctr("ctr", &["images", "ls", "--quiet"])?.split_whitespace() {
            self.daemon.ctr("ctr", &["images", "rm", "--sync", image])?;
        }
        let left = self.daemon.ctr("ctr", &["content", "ls", "--quiet"])?;
        ensure!(left.trim().is_empty(), "not cold: blobs are left:\n{left}");
        Ok(())
    }

    fn pull(&mut self, image: &str) -> Result<Parts> {
        if self.overlap {
            self.daemon.ctr(
                "ctr-remote",
                &["images", "rpull", "--plain-http", "--snapshotter", "overlayfs", image],
            )?;
        } else {
            self.daemon.ctr("ctr", &["images", "pull", "--plain-http", image])?;
        }
        Ok(Parts::default())
    }

    fn run(&mut self, image: &str) -> Result<Duration> {
        first_line(&mut self.daemon.command("ctr", &["run", "--rm", image, "bench", "/bin/sh", "/bench/run"]))
    }
}

/// Debian's podman with crun, on a root of its own.
struct Podman {
    options: Vec<String>,
}

impl Podman {
    fn start(data: &Path) -> Result<Self> {
        ensure!(tests::has_command("podman"), "podman is not installed");
        let place = |name: &str| data.join("podman").join(name).display().to_string();
        let options = ["--root", &place("root"), "--runroot", &place("run")];
        let fixed = ["--cgroup-manager", "cgroupfs", "--events-backend", "none"];
        let mut peer =
            Self { options: options.iter().chain(&fixed).map(|option| (*option).to_owned()).collect() };
        peer.clean()?;
        Ok(peer)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.args(&self.options);
        command
    }
}

impl Peer for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn version(&self) -> String {
        run(self.command().arg("--version")).unwrap_or_default()
    }

    fn clean(&mut self) -> Result<()> {
        run(self.command().args(["rm", "--all", "--force"]))?;
        run(self.command().args(["rmi", "--all", "--force"]))?;
        // It remembers where it has seen a blob, and would skip the download.
        for cache in ["blob-info-cache-v1.boltdb", "blob-info-cache-v1.sqlite"] {
            let _ = fs::remove_file(Path::new("/var/lib/containers/cache").join(cache));
        }
        Ok(())
    }

    fn pull(&mut self, image: &str) -> Result<Parts> {
        run(self.command().args(["pull", "--quiet", "--tls-verify=false", image]))?;
        Ok(Parts::default())
    }

    fn run(&mut self, image: &str) -> Result<Duration> {
        // crun 1.8 refuses hybrid cgroups ("drop all controllers from cgroupv2"): it gets a mount namespace without
        // the unified tree.
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"",
            "sh",
            "podman",
        ]);
        command.args(&self.options).args([
            "--runtime",
            "crun",
            "run",
            "--rm",
            "--network",
            "none",
            "--pull",
            "never",
        ]);
        // Without CAP_SYS_RESOURCE podman's default limits are above what may be set.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        first_line(command.args([image, "/bin/sh", "/bench/run"]))
    }
}
