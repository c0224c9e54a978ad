//! Debian's unmodified `ctr` (package `containerd`) as the client.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use storage_model::Digest;

use crate::fixture::Daemon;

/// Whether `ctr` is installed; says so when it is not.
fn ctr_is_here() -> bool {
    let here = Command::new("ctr").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !here {
        eprintln!("SKIPPED: ctr is not installed (Debian package containerd)");
    }
    here
}

fn run(address: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("ctr")
        .arg("-a")
        .arg(address)
        .args(["-n", "test"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may be gone before it is written to.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A `ctr` on one daemon. Calls block, so the daemon needs threads of its own.
struct Ctr<'a>(&'a Daemon);

impl Ctr<'_> {
    fn ok_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let address = self.0.address();
        let output = tokio::task::block_in_place(|| run(&address, arguments, input));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, b"")
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let address = self.0.address();
        let output = tokio::task::block_in_place(|| run(&address, arguments, b""));
        assert!(!output.status.success(), "ctr {arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_who_we_are() {
    if !ctr_is_here() {
        return;
    }
    let daemon = Daemon::start().await;
    let ctr = Ctr(&daemon);
    let version = ctr.ok(&["version"]);
    assert!(version.contains("1.7.0+windlass"), "{version}");
    let plugins = ctr.ok(&["plugins", "ls"]);
    let overlay = plugins.lines().find(|line| line.contains("io.containerd.snapshotter.v1")).unwrap();
    assert!(
        overlay.contains("overlayfs") && overlay.contains("linux/") && overlay.contains("ok"),
        "{overlay}"
    );
    let filtered = ctr.ok(&["plugins", "ls", "-q", "id==overlayfs"]);
    assert_eq!(filtered.lines().count(), 1, "{filtered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_with_content() {
    if !ctr_is_here() {
        return;
    }
    let daemon = Daemon::start().await;
    let ctr = Ctr(&daemon);
    let data = vec![7; 9 * 1024 * 1024];
    let digest = Digest::of(&data).to_string();
    let size = data.len().to_string();
    ctr.ok_with(
        &["content", "ingest", "--expected-size", &size, "--expected-digest", &digest, "a-ref"],
        &data,
    );
    assert!(ctr.ok(&["content", "ls", "-q"]).contains(&digest));
    assert!(ctr.ok_with(&["content", "get", &digest], b"").len() == data.len());
    ctr.ok(&["content", "label", &digest, "color=blue"]);
    assert!(ctr.ok(&["content", "ls"]).contains("color=blue"));
    assert!(ctr.ok(&["content", "ls", "-q", "labels.color==red"]).trim().is_empty());
    let wrong = run_wrong(&daemon, &digest);
    assert!(wrong.contains("digest"), "{wrong}");
    assert!(ctr.ok(&["content", "active"]).contains("wrong-ref"));
    ctr.ok(&["content", "rm", &digest]);
    assert!(ctr.fails(&["content", "get", &digest]).contains("not found"));
}

/// Ingests other bytes than announced, and gives what `ctr` says.
fn run_wrong(daemon: &Daemon, digest: &str) -> String {
    let arguments = ["content", "ingest", "--expected-size", "3", "--expected-digest", digest, "wrong-ref"];
    // The announced digest is here; another one is not.
    let other = Digest::of(b"another").to_string();
    let arguments = arguments.map(|word| if word == digest { other.as_str() } else { word });
    let output = tokio::task::block_in_place(|| run(&daemon.address(), &arguments, b"abc"));
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_with_namespaces_leases_and_images() {
    if !ctr_is_here() {
        return;
    }
    let daemon = Daemon::start().await;
    let ctr = Ctr(&daemon);
    ctr.ok(&["namespaces", "create", "blue", "a=1"]);
    ctr.ok(&["namespaces", "label", "blue", "b=2"]);
    let list = ctr.ok(&["namespaces", "ls"]);
    assert!(list.contains("blue") && list.contains("a=1,b=2"), "{list}");
    ctr.ok(&["namespaces", "label", "blue", "a="]);
    assert!(!ctr.ok(&["namespaces", "ls"]).contains("a=1"));
    assert!(ctr.fails(&["namespaces", "create", "blue"]).contains("exists"));
    ctr.ok(&["namespaces", "rm", "blue"]);
    assert!(!ctr.ok(&["namespaces", "ls", "-q"]).contains("blue"));

    let lease = ctr.ok(&["leases", "create", "--id", "mine", "for=test"]);
    assert_eq!(lease.trim(), "mine");
    assert!(ctr.ok(&["leases", "ls"]).contains("for=test"));
    ctr.ok(&["leases", "rm", "--sync", "mine"]);
    assert!(ctr.ok(&["leases", "ls", "-q"]).trim().is_empty());

    assert!(ctr.ok(&["images", "ls"]).starts_with("REF"));
    assert!(ctr.ok(&["images", "ls", "-q"]).trim().is_empty());
    assert!(ctr.ok(&["containers", "ls"]).starts_with("CONTAINER"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_with_snapshots() {
    if !ctr_is_here() {
        return;
    }
    let daemon = Daemon::start().await;
    let ctr = Ctr(&daemon);
    ctr.ok(&["snapshots", "prepare", "one"]);
    let mounts = ctr.ok(&["snapshots", "mounts", "/target", "one"]);
    assert!(mounts.starts_with("mount -t "), "{mounts}");
    ctr.ok(&["snapshots", "commit", "base", "one"]);
    ctr.ok(&["snapshots", "prepare", "two", "base"]);
    ctr.ok(&["snapshots", "view", "look", "base"]);
    let list = ctr.ok(&["snapshots", "ls"]);
    for (name, kind) in [("base", "Committed"), ("two", "Active"), ("look", "View")] {
        assert!(list.lines().any(|line| line.starts_with(name) && line.contains(kind)), "{list}");
    }
    assert!(ctr.ok(&["snapshots", "info", "two"]).contains("\"Parent\": \"base\""));
    assert!(ctr.ok(&["snapshots", "usage", "base"]).contains("base"));
    ctr.ok(&["snapshots", "label", "two", "x=y"]);
    assert!(ctr.ok(&["snapshots", "info", "two"]).contains("\"x\": \"y\""));
    assert!(ctr.fails(&["snapshots", "rm", "base"]).contains("remove"));
    ctr.ok(&["snapshots", "rm", "look"]);
    ctr.ok(&["snapshots", "rm", "two"]);
    ctr.ok(&["snapshots", "rm", "base"]);
    assert_eq!(ctr.ok(&["snapshots", "ls"]).lines().count(), 1);
}
