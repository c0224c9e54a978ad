//! `windlass serve`: other people's clients read this store as their registry.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Containerd, Engine, Image, Registry, finish, signal};

use crate::fixtures;

/// Longest that one client's command may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// A running `windlass serve`.
struct Mirror {
    child: Child,
    address: String,
}

impl Mirror {
    fn start(engine: &Engine, arguments: &[&str]) -> Result<Self> {
        let mut command = engine.command(["serve", "--listen", "127.0.0.1:0"])?;
        let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(child.stderr.take().context("just piped")?).read_line(&mut said)?;
        let address = said.split("://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.with_context(|| format!("serve said {said:?}"))?.to_owned();
        Ok(Self { child, address })
    }

    /// Ends it as a service manager does, and sees that it ends well.
    fn stop(mut self) -> Result<()> {
        signal(&self.child, "TERM")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "serve ended with {status}");
        Ok(())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let said = finish(Command::new(program).args(arguments), DEADLINE)?.success();
    said.with_context(|| format!("{program} {}", arguments.join(" ")))
}

/// Every blob of `image` in the OCI layout at `directory`, or an error that names the one that is not.
fn complete(image: &Image, directory: &Path) -> Result<()> {
    let documents = image.manifests.iter().map(|(descriptor, bytes)| (descriptor.digest, bytes));
    let root = std::iter::once((image.root.digest, &image.document));
    let blobs = image.blobs.iter().map(|(digest, bytes)| (*digest, bytes));
    for (digest, bytes) in documents.chain(root).chain(blobs) {
        let file = directory.join("blobs/sha256").join(digest.hex());
        let found = fs::read(&file).with_context(|| format!("{digest}"))?;
        ensure!(found == *bytes, "{digest} differs");
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary path is text")
}

#[test]
fn skopeo_copies_an_image_from_the_store_byte_for_byte() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::everything().build()?;
    let name = registry.push(&image, "team/everything", "1")?;
    engine.ok(["pull", "--quiet", "--no-unpack", &name])?;
    // From here on only the store has it.
    drop(registry);
    let mirror = Mirror::start(&engine, &[])?;
    let source = format!("docker://{}/team/everything:1", mirror.address);
    let layout = engine.scratch().join("copied");
    let target = format!("oci:{}:1", text(&layout)?);
    run("skopeo", &["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &source, &target])?;
    complete(&image, &layout)?;
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", source.trim_end_matches(":1")])?;
    assert!(tags.contains("\"1\""), "{tags}");
    let pinned = format!("docker://{}/team/everything@{}", mirror.address, image.root.digest);
    run("skopeo", &["inspect", "--tls-verify=false", &pinned])?;
    let push = run("skopeo", &["copy", "--dest-tls-verify=false", &target, &source]);
    assert!(push.is_err(), "a mirror was written to");
    mirror.stop()
}

#[test]
fn podman_pulls_from_the_store() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let (image, files) = fixtures::crowd(3, 40, 2000);
    let name = registry.push(&image.build()?, "crowd", "1")?;
    engine.ok(["pull", "--quiet", "--no-unpack", &name])?;
    drop(registry);
    let mirror = Mirror::start(&engine, &[])?;
    let storage = engine.scratch().join("podman");
    let (root, runroot) = (storage.join("root"), storage.join("run"));
    let place = ["--root", text(&root)?, "--runroot", text(&runroot)?, "--storage-driver", "vfs"];
    let wanted = format!("{}/crowd:1", mirror.address);
    run("podman", &[&place[..], &["pull", "--quiet", "--tls-verify=false", &wanted]].concat())?;
    let target = run("podman", &[&place[..], &["image", "mount", &wanted]].concat())?;
    let damaged = fixtures::damaged(Path::new(target.trim()), &files);
    let _ = run("podman", &[&place[..], &["image", "unmount", "--all"]].concat());
    assert!(damaged.is_empty(), "{damaged:?}");
    mirror.stop()
}

/// A `hosts.toml` that names `mirror` for `registry`; gives the directory for `--hosts-dir`.
fn hosts(engine: &Engine, registry: &str, mirror: &str) -> Result<std::path::PathBuf> {
    let folder = engine.scratch().join("hosts");
    let of = folder.join(registry.replace(':', "_") + "_");
    fs::create_dir_all(&of)?;
    let entry = format!("[host.\"http://{mirror}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
    fs::write(of.join("hosts.toml"), format!("server = \"http://{registry}\"\n{entry}"))?;
    Ok(folder)
}

#[test]
fn containerd_and_another_engine_use_the_store_as_their_mirror_while_the_registry_is_gone() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    let image = fixtures::everything().all_gzip().build()?;
    let name = registry.push(&image, "everything", "1")?;
    let address = registry.address().to_owned();
    engine.start_daemon()?;
    engine.ok(["pull", "--quiet", "--no-unpack", &name])?;
    drop(registry);
    let mirror = Mirror::start(&engine, &[])?;
    let folder = hosts(&engine, &address, &mirror.address)?;
    let place = engine.scratch().join("containerd");
    fs::create_dir(&place)?;
    let containerd = Containerd::start(&place)?;
    containerd.ctr("ctr", &["images", "pull", "--hosts-dir", text(&folder)?, &name])?;
    // The mirror finds the engine again after it was killed.
    engine.kill_daemon()?;
    engine.start_daemon()?;
    let other = Engine::new()?;
    other.ok(["pull", "--quiet", "--hosts-dir", text(&folder)?, &name])?;
    mirror.stop()
}

#[test]
fn pull_through_brings_what_a_client_asks_for_once_and_from_a_listed_registry_only() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::everything().all_gzip().build()?;
    let name = registry.push(&image, "everything", "1")?;
    let address = registry.address().to_owned();
    // Not listed: an address of this machine is nothing that a client may send us to.
    let closed = Mirror::start(&engine, &["--pull-through"])?;
    let folder = hosts(&engine, &address, &closed.address)?;
    let inspect = |mirror: &Mirror, digest: &str| {
        let url = format!("http://{}/v2/everything/manifests/{digest}?ns={address}", mirror.address);
        run("curl", &["--silent", "--fail", &url])
    };
    assert!(inspect(&closed, "1").is_err());
    closed.stop()?;
    let mirror = Mirror::start(&engine, &["--pull-through", "--registry", &address])?;
    let folder_of_mirror = hosts(&engine, &address, &mirror.address)?;
    assert_eq!(folder, folder_of_mirror);
    let place = engine.scratch().join("containerd");
    fs::create_dir(&place)?;
    let containerd = Containerd::start(&place)?;
    containerd.ctr("ctr", &["images", "pull", "--hosts-dir", text(&folder)?, &name])?;
    // What came through is here now, without the registry.
    drop(registry);
    assert!(engine.ok(["images", "ls", "--quiet"])?.contains(&name));
    let layout = engine.scratch().join("copied");
    let (source, target) =
        (format!("docker://{}/everything:1", mirror.address), format!("oci:{}:1", text(&layout)?));
    run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &source, &target])?;
    complete(&image, &layout)?;
    mirror.stop()
}

#[test]
fn a_mirror_with_a_certificate_is_read_over_tls() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(1, 3, 100).0.build()?;
    let name = registry.push(&image, "a", "1")?;
    engine.ok(["pull", "--quiet", "--no-unpack", &name])?;
    let folder = engine.scratch().join("certificates");
    fs::create_dir(&folder)?;
    let (certificate, key) = (folder.join("ca.crt"), engine.scratch().join("key.pem"));
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mirror \
                -addext subjectAltName=IP:127.0.0.1";
    let make: Vec<_> =
        make.split_whitespace().chain(["-out", text(&certificate)?, "-keyout", text(&key)?]).collect();
    run("openssl", &make)?;
    let mirror = Mirror::start(&engine, &["--tls-cert", text(&certificate)?, "--tls-key", text(&key)?])?;
    let source = format!("docker://{}/a:1", mirror.address);
    run("skopeo", &["inspect", "--cert-dir", text(&folder)?, &source])?;
    assert!(run("skopeo", &["inspect", &source]).is_err(), "an unknown certificate was accepted");
    mirror.stop()
}
