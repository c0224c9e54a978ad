//! Debian's containerd with us as its proxy plug-in: the snapshotter `windlass` of its configuration is our socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use storage_model::Compression::Gzip;
use tests::{
    Containerd, Engine, Entry, ImageBuilder, Node, Registry, difference, finish, read_tree, require_root,
    wait_until,
};

use crate::fixtures;

/// An engine and a containerd that has it in its configuration.
struct Pair {
    // In this order they end: containerd asks its plug-in to the last.
    containerd: Containerd,
    engine: Engine,
    /// Name of the container that lasts: runc's state is common to all containerds of a machine.
    id: String,
}

impl Pair {
    fn start() -> Result<Self> {
        require_root()?;
        let mut engine = Engine::new()?;
        engine.start_daemon()?;
        let directory = engine.scratch().join("containerd");
        std::fs::create_dir(&directory)?;
        // The lines of docs/containerd.md, with both names.
        let mut lines = String::new();
        for name in ["windlass", "windlass-native"] {
            let socket = engine.socket();
            lines.push_str(&format!(
                "[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = \"{}\"\n",
                socket.display()
            ));
        }
        let containerd = Containerd::start_with(&directory, &lines)?;
        let id = engine.scratch().file_name().map(|name| name.to_string_lossy().replace('.', "-"));
        Ok(Self { containerd, engine, id: id.unwrap_or_default() })
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.containerd.ctr("ctr", arguments)
    }

    fn pull(&self, image: &str, snapshotter: &str) -> Result<()> {
        self.ctr(&["images", "pull", "--plain-http", "--snapshotter", snapshotter, image]).map(drop)
    }

    /// The image's tree, as this snapshotter shows it.
    fn tree(&self, image: &str, snapshotter: &str) -> Result<BTreeMap<PathBuf, Node>> {
        let target = self.engine.scratch().join(format!("mounted-{snapshotter}"));
        std::fs::create_dir_all(&target)?;
        let text = target.to_string_lossy().into_owned();
        self.ctr(&["images", "mount", "--snapshotter", snapshotter, image, &text])?;
        let tree = read_tree(&target);
        self.ctr(&["images", "unmount", "--rm", "--snapshotter", snapshotter, &text])?;
        tree
    }

    fn run(&self, image: &str, snapshotter: &str, script: &str) -> Result<String> {
        let id = format!("{}-short", self.id);
        self.ctr(&["run", "--rm", "--snapshotter", snapshotter, image, &id, "/bin/sh", "-c", script])
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Only a test that failed half-way leaves one.
        let mut runc = Command::new("runc");
        runc.args(["--root", "/run/containerd/runc/default", "delete", "--force", &self.id]);
        let _ = finish(&mut runc, Duration::from_secs(20));
    }
}

/// A shell, and a layer that takes something away.
fn shell() -> Result<ImageBuilder> {
    let lower =
        [Entry::directory("data/"), Entry::file("data/kept", "kept\n"), Entry::file("data/gone", "gone\n")];
    let upper = [Entry::file("data/.wh.gone", ""), Entry::file("data/new", "new\n")];
    Ok(ImageBuilder::default().busybox()?.layer(lower, Gzip).layer(upper, Gzip))
}

#[test]
fn what_containerd_pulls_over_us_is_the_tree_it_makes_itself() -> Result<()> {
    let pair = Pair::start()?;
    let registry = Registry::start()?;
    let image = registry.push(&fixtures::everything().build()?, "a/b", "1")?;
    pair.pull(&image, "overlayfs")?;
    let expected = pair.tree(&image, "overlayfs")?;
    assert!(expected.len() > 30, "{expected:?}");
    pair.pull(&image, "windlass")?;
    assert_eq!(difference(&expected, &pair.tree(&image, "windlass")?), "");
    pair.pull(&image, "windlass-native")?;
    assert_eq!(difference(&expected, &pair.tree(&image, "windlass-native")?), "");
    Ok(())
}

#[test]
fn containerd_imports_runs_and_collects_over_us_and_nothing_stays() -> Result<()> {
    let pair = Pair::start()?;
    let image = shell()?.build()?;
    let layout = pair.engine.scratch().join("layout");
    image.write_layout(&layout)?;
    let archive = pair.engine.scratch().join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(&layout).arg(".");
    finish(&mut tar, Duration::from_secs(60))?.success()?;
    let text = archive.to_string_lossy().into_owned();
    pair.ctr(&["images", "import", "--base-name", "x/y", "--snapshotter", "windlass", &text])?;
    let name = pair.ctr(&["images", "ls", "-q"])?.trim().to_owned();

    assert_eq!(pair.run(&name, "windlass", "ls /data")?, "kept\nnew\n");
    // Our collection knows nothing of containerd's images, and leaves what is theirs.
    pair.engine.ok(["gc"])?;
    assert_eq!(pair.run(&name, "windlass", "cat /data/new; echo more > /data/new")?, "new\n");
    assert_eq!(pair.run(&name, "windlass", "cat /data/new")?, "new\n", "a container changed its image");

    assert!(!pair.engine.inside_root("snapshots").is_empty());
    pair.ctr(&["images", "rm", "--sync", &name])?;
    assert_eq!(pair.engine.inside_root("snapshots"), Vec::<String>::new());
    assert_eq!(pair.engine.inside_root("trash"), Vec::<String>::new());
    Ok(())
}

#[test]
fn neither_containerd_nor_its_containers_notice_that_we_were_killed() -> Result<()> {
    let mut pair = Pair::start()?;
    let registry = Registry::start()?;
    let image = registry.push(&shell()?.build()?, "shell", "1")?;
    pair.pull(&image, "windlass")?;
    let lasting = pair.id.clone();
    let run = ["run", "-d", "--null-io", "--snapshotter", "windlass", &image, &lasting, "/bin/sleep", "600"];
    pair.ctr(&run)?;
    pair.engine.kill_daemon()?;
    let said = pair.ctr(&["tasks", "exec", "--exec-id", "e1", &lasting, "/bin/cat", "/data/kept"])?;
    assert_eq!(said, "kept\n", "its root needs us no more");
    pair.engine.start_daemon()?;
    // containerd waits a little before it tries a plug-in again that did not answer.
    let mut listed = String::new();
    wait_until("containerd has found us again", Duration::from_secs(30), || {
        pair.run(&image, "windlass", "ls /data").map(|said| listed = said).is_ok()
    })?;
    assert_eq!(listed, "kept\nnew\n");
    pair.ctr(&["tasks", "kill", "--signal", "9", &lasting])?;
    wait_until("the task has ended", Duration::from_secs(20), || {
        pair.ctr(&["tasks", "rm", &lasting]).is_ok()
    })?;
    pair.ctr(&["containers", "rm", &lasting])?;
    pair.ctr(&["images", "rm", "--sync", &image])?;
    assert_eq!(pair.engine.inside_root("snapshots"), Vec::<String>::new());
    assert_eq!(Engine::mounts_below(pair.engine.root()), Vec::<PathBuf>::new());
    Ok(())
}
