//! stargz-snapshotter under Debian's containerd: the peer that pulls eStargz lazily.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::containerd::Containerd;
use crate::process::{finish, signal, wait_until};

/// Longest that building the daemon may take: Go compiles its standard library the first time.
const BUILD: Duration = Duration::from_secs(600);

/// The daemon and a containerd that uses it as its snapshotter `stargz`; both end when this is dropped.
#[derive(Debug)]
pub struct Stargz {
    daemon: Child,
    containerd: Containerd,
    directory: PathBuf,
}

impl Stargz {
    /// Builds the daemon if it was not yet (`scripts/stargz.sh`), and starts both below `directory`; `config` is the
    /// daemon's own TOML.
    ///
    /// # Errors
    /// Debian's packages are missing, or one of the two does not answer.
    pub fn start(directory: &Path, config: &str) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/stargz.sh");
        let program = finish(&mut Command::new(script), BUILD)?.success()?;
        let daemon = Self::start_daemon(Path::new(program.trim()), directory, config)?;
        let plugin = format!(
            "[proxy_plugins.stargz]\n  type = \"snapshot\"\n  address = \"{}\"\n",
            directory.join("stargz.sock").display()
        );
        let containerd = Containerd::start_with(&directory.join("containerd"), &plugin)?;
        Ok(Self { daemon, containerd, directory: directory.to_owned() })
    }

    fn start_daemon(program: &Path, directory: &Path, config: &str) -> Result<Child> {
        let (socket, settings) = (directory.join("stargz.sock"), directory.join("stargz.toml"));
        fs::write(&settings, config)?;
        let _ = fs::remove_file(&socket);
        let log = fs::File::options().create(true).append(true).open(directory.join("stargz.log"))?;
        let root = directory.join("stargz");
        let mut command = Command::new(program);
        command.arg(&socket).arg(&root).arg(&settings).stdout(Stdio::null()).stderr(log);
        let mut daemon = command.spawn().with_context(|| program.display().to_string())?;
        wait_until("stargz-snapshotter answers", Duration::from_secs(20), || {
            socket.exists() || !matches!(daemon.try_wait(), Ok(None))
        })?;
        ensure!(socket.exists(), "stargz-snapshotter ended: {}", directory.join("stargz.log").display());
        Ok(daemon)
    }

    /// The containerd, for `ctr` and `ctr-remote`.
    pub fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Pulls an image over plain HTTP as `ctr-remote` does: lazily, if it can be.
    ///
    /// # Errors
    /// What `ctr-remote` said.
    pub fn pull(&self, image: &str) -> Result<()> {
        self.containerd.ctr("ctr-remote", &["images", "rpull", "--plain-http", image]).map(|_| ())
    }

    /// A command that runs `arguments` in a container of a pulled image, removed afterwards.
    pub fn run(&self, image: &str, id: &str, arguments: &[&str]) -> Command {
        let mut command = self.containerd.command("ctr-remote", &["run", "--rm", "--snapshotter", "stargz"]);
        command.args([image, id]).args(arguments);
        command
    }

    /// Layers that are mounted lazily now.
    pub fn lazy_layers(&self) -> usize {
        crate::Engine::mounts_below(&self.directory.join("stargz")).len()
    }
}

impl Drop for Stargz {
    fn drop(&mut self) {
        let _ = signal(&self.daemon, "TERM");
        let _ = self.daemon.wait();
        // What a daemon that was killed leaves mounted refuses every access; it must not stay in anybody's way.
        for mount in crate::Engine::mounts_below(&self.directory) {
            let _ = Command::new("umount").arg("--lazy").arg(mount).stderr(Stdio::null()).status();
        }
    }
}
