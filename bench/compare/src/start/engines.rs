//! What starts containers: engines, and the OCI runtimes below them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tests::{Containerd, Engine, Registry, finish};

use super::{Arguments, DEADLINE};

/// One engine or runtime under measurement, with the image in place.
pub(super) trait Starter {
    /// Its name in tables.
    fn name(&self) -> &'static str;
    /// Its version, in its own words.
    fn version(&self) -> String;
    /// Runs `true` in a container that is gone afterwards.
    fn once(&self, id: &str) -> Result<Command>;
    /// Programs whose processes a running container needs; none if it is not asked for [`Starter::begin`].
    fn programs(&self) -> &'static [&'static str] {
        &[]
    }
    /// Starts a container that sleeps, and returns.
    fn begin(&self, id: &str) -> Result<Command> {
        anyhow::bail!("{} lets {id} not run alone", self.name())
    }
    /// Ends and removes it.
    fn end(&self, _id: &str) -> Result<()> {
        Ok(())
    }
}

/// Every peer of the arguments.
///
/// # Errors
/// A name is unknown, a program is not installed, or the image cannot be brought in.
pub(super) fn start(arguments: &Arguments) -> Result<Vec<Box<dyn Starter>>> {
    let registry = Registry::start()?;
    let image = registry.reference(&format!("{}:latest", arguments.image));
    let layout = arguments.layouts.join(&arguments.image);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:latest", layout.display())).arg(format!("docker://{image}"));
    run(&mut copy)?;
    let mut peers: Vec<Box<dyn Starter>> = Vec::new();
    for name in &arguments.peers {
        peers.push(match name.as_str() {
            "windlass" => Box::new(Windlass::start(&arguments.data, &image)?),
            "containerd" => Box::new(Ctr::start(&arguments.data, &image)?),
            "podman" => Box::new(Podman::start(&arguments.data, &image)?),
            "runc" => Box::new(Bare::start("runc", &arguments.data, &layout)?),
            "crun" => Box::new(Bare::start("crun", &arguments.data, &layout)?),
            other => anyhow::bail!("{other:?} is no peer: windlass, containerd, podman, runc, crun"),
        });
    }
    Ok(peers)
}

fn run(command: &mut Command) -> Result<String> {
    finish(command, DEADLINE)?.success().with_context(|| format!("{command:?}"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Ours, with a daemon that runs already.
struct Windlass {
    engine: Engine,
    image: String,
}

impl Windlass {
    fn start(data: &Path, image: &str) -> Result<Self> {
        let mut engine = Engine::with_root(&data.join("windlass-start"))?;
        engine.start_daemon()?;
        engine.ok(["pull", image])?;
        Ok(Self { engine, image: image.to_owned() })
    }
}

impl Starter for Windlass {
    fn name(&self) -> &'static str {
        "windlass"
    }

    fn version(&self) -> String {
        first_line(&self.engine.ok(["version"]).unwrap_or_default())
    }

    fn once(&self, id: &str) -> Result<Command> {
        self.engine.command(["run", "--rm", "--name", id, &self.image, "/bin/true"])
    }

    fn programs(&self) -> &'static [&'static str] {
        &["windlass"]
    }

    fn begin(&self, id: &str) -> Result<Command> {
        self.engine.command(["run", "--detach", "--name", id, &self.image, "/bin/sleep", "1000"])
    }

    fn end(&self, id: &str) -> Result<()> {
        self.engine.ok(["containers", "rm", "--force", id]).map(|_| ())
    }
}

/// Debian's containerd by its own command line.
struct Ctr {
    daemon: Containerd,
    image: String,
}

impl Ctr {
    fn start(data: &Path, image: &str) -> Result<Self> {
        let daemon = Containerd::start(&data.join("containerd-start"))?;
        daemon.ctr("ctr", &["images", "pull", "--plain-http", image])?;
        Ok(Self { daemon, image: image.to_owned() })
    }
}

impl Starter for Ctr {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn version(&self) -> String {
        first_line(&run(Command::new("containerd").arg("--version")).unwrap_or_default())
    }

    fn once(&self, id: &str) -> Result<Command> {
        Ok(self.daemon.command("ctr", &["run", "--rm", &self.image, id, "/bin/true"]))
    }

    fn programs(&self) -> &'static [&'static str] {
        &["containerd", "containerd-shim-runc-v2"]
    }

    fn begin(&self, id: &str) -> Result<Command> {
        Ok(self.daemon.command("ctr", &["run", "--detach", &self.image, id, "/bin/sleep", "1000"]))
    }

    fn end(&self, id: &str) -> Result<()> {
        self.daemon.ctr("ctr", &["tasks", "rm", "--force", id])?;
        self.daemon.ctr("ctr", &["containers", "rm", id]).map(|_| ())
    }
}

/// A mount namespace without cgroup v2's tree beside v1's, which crun 1.8 refuses to work with.
fn without_unified() -> Command {
    let mut command = Command::new("unshare");
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command
}

/// Debian's podman with crun.
struct Podman {
    options: Vec<String>,
    image: String,
}

impl Podman {
    fn start(data: &Path, image: &str) -> Result<Self> {
        let place = |name: &str| data.join("podman-start").join(name).display().to_string();
        let options = ["--root", &place("root"), "--runroot", &place("run")];
        let fixed = ["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun"];
        let options: Vec<_> = options.iter().chain(&fixed).map(|option| (*option).to_owned()).collect();
        run(Command::new("podman").args(&options).args(["pull", "--quiet", "--tls-verify=false", image]))?;
        Ok(Self { options, image: image.to_owned() })
    }
}

impl Starter for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn version(&self) -> String {
        first_line(&run(Command::new("podman").arg("--version")).unwrap_or_default())
    }

    fn once(&self, id: &str) -> Result<Command> {
        let mut command = without_unified();
        command.arg("podman").args(&self.options);
        command.args(["run", "--rm", "--network", "none", "--pull", "never", "--name", id]);
        // Without CAP_SYS_RESOURCE podman's default limits are above what may be set.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        command.args([&self.image, "/bin/true"]);
        Ok(command)
    }
}

/// An OCI runtime alone, on a tree that is unpacked already.
struct Bare {
    program: &'static str,
    bundle: PathBuf,
}

impl Bare {
    fn start(program: &'static str, data: &Path, layout: &Path) -> Result<Self> {
        let bundle = data.join(format!("{program}-bundle"));
        if !bundle.join("rootfs").exists() {
            let image = format!("{}:latest", layout.display());
            run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle))?;
        }
        fs::remove_file(bundle.join("config.json"))?;
        run(Command::new(program).arg("spec").current_dir(&bundle))?;
        let path = bundle.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["terminal"] = false.into();
        spec["process"]["rlimits"] = serde_json::json!([]);
        fs::write(&path, serde_json::to_vec(&spec)?)?;
        Ok(Self { program, bundle })
    }
}

impl Starter for Bare {
    fn name(&self) -> &'static str {
        self.program
    }

    fn version(&self) -> String {
        first_line(&run(Command::new(self.program).arg("--version")).unwrap_or_default())
    }

    fn once(&self, id: &str) -> Result<Command> {
        let mut command = match self.program {
            "crun" => {
                let mut command = without_unified();
                command.arg("crun");
                command
            }
            program => Command::new(program),
        };
        command.args(["run", "--bundle"]).arg(&self.bundle).arg(id);
        Ok(command)
    }
}
