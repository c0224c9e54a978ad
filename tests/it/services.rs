//! Debian's unmodified `ctr` speaks to our socket.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Engine, Registry, finish, wait_until};

use crate::fixtures;

fn ctr(engine: &Engine, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(engine.socket()).args(arguments);
    finish(&mut command, Duration::from_secs(30))?
        .success()
        .with_context(|| format!("ctr {}", arguments.join(" ")))
}

#[test]
fn ctr_lists_what_was_pulled() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let built = fixtures::crowd(2, 10, 1000).0.build()?;
    let image = registry.push(&built, "listed", "1")?;
    engine.ok(["pull", "--quiet", &image])?;

    assert!(ctr(&engine, &["version"])?.contains("Server:"));
    assert!(ctr(&engine, &["namespaces", "ls"])?.contains("default"));
    let images = ctr(&engine, &["images", "ls"])?;
    assert!(images.contains(&image) && images.contains(&built.root.digest.to_string()), "{images}");
    let content = ctr(&engine, &["content", "ls"])?;
    for digest in built.layers.iter().chain([&built.root.digest]) {
        assert!(content.contains(&digest.to_string()), "{digest} is not in:\n{content}");
    }
    let manifest = ctr(&engine, &["content", "get", &built.root.digest.to_string()])?;
    assert_eq!(manifest.as_bytes(), built.document);
    let snapshots = ctr(&engine, &["snapshots", "ls"])?;
    assert_eq!(snapshots.matches("Committed").count(), 2, "{snapshots}");
    let checked = ctr(&engine, &["images", "check"])?;
    assert!(checked.contains("complete (3/3)") && checked.contains("true"), "{checked}");
    Ok(())
}

#[test]
fn ctr_changes_labels_and_removes_images_and_the_engine_agrees() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let image = registry.push(&fixtures::crowd(1, 5, 500).0.build()?, "changed", "1")?;
    engine.ok(["pull", "--quiet", &image])?;
    ctr(&engine, &["images", "label", &image, "colour=green"])?;
    assert!(ctr(&engine, &["images", "ls"])?.contains("colour=green"));
    ctr(&engine, &["images", "tag", &image, "localhost/other:2"])?;
    assert!(engine.ok(["images", "ls"])?.contains("localhost/other"));
    ctr(&engine, &["images", "rm", "--sync", &image, "localhost/other:2"])?;
    engine.ok(["gc"])?;
    assert_eq!(ctr(&engine, &["content", "ls", "--quiet"])?.trim(), "");
    assert_eq!(engine.inside_root("blobs/sha256"), Vec::<String>::new());
    Ok(())
}

#[test]
fn ctr_ingests_content_and_prepares_a_snapshot() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let bytes = fixtures::noise(9, 100_000);
    let file = engine.scratch().join("blob");
    std::fs::write(&file, &bytes)?;
    let digest = storage_model::Digest::of(&bytes).to_string();
    let mut ingest = Command::new("ctr");
    ingest.arg("--address").arg(engine.socket()).args([
        "content",
        "ingest",
        "--expected-digest",
        &digest,
        "a-reference",
    ]);
    finish(ingest.stdin(std::fs::File::open(&file)?), Duration::from_secs(30))?.success()?;
    assert!(ctr(&engine, &["content", "ls", "--quiet"])?.contains(&digest));

    let mounts =
        ctr(&engine, &["snapshots", "prepare", "--target", "/tmp/x", "a key with spaces/and slashes"])?;
    assert!(mounts.contains("mount -t"), "{mounts}");
    assert!(ctr(&engine, &["snapshots", "ls"])?.contains("Active"));
    ctr(&engine, &["snapshots", "commit", "committed", "a key with spaces/and slashes"])?;
    assert!(ctr(&engine, &["snapshots", "info", "committed"])?.contains("Committed"));
    ctr(&engine, &["snapshots", "rm", "committed"])?;
    Ok(())
}

#[test]
fn namespaces_do_not_see_each_others_images() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let image = registry.push(&fixtures::crowd(1, 3, 300).0.build()?, "mine", "1")?;
    engine.ok(["--namespace", "one", "pull", "--quiet", &image])?;
    assert!(!engine.ok(["--namespace", "two", "images", "ls"])?.contains("mine"));
    assert!(!ctr(&engine, &["--namespace", "two", "images", "ls"])?.contains("mine"));
    assert!(ctr(&engine, &["--namespace", "one", "images", "ls"])?.contains(&image));
    Ok(())
}

#[test]
fn vuln_d10_b12_a_client_whose_daemon_is_killed_in_the_middle_of_a_call_ends_with_an_error() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    // A registry that takes a connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let reference = format!("{}/image:1", silent.local_addr()?);
    let socket = engine.socket();
    let address = socket.to_str().context("a temporary directory's name is text")?;
    let mut pull = engine.command(["--address", address, "pull", &reference])?;
    let mut pull = pull.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let _connection = silent.accept()?;
    engine.kill_daemon()?;
    wait_until("the client ends", Duration::from_secs(20), || {
        pull.try_wait().is_ok_and(|end| end.is_some())
    })?;
    let end = pull.wait_with_output()?;
    let said = String::from_utf8_lossy(&end.stderr).into_owned();
    assert!(!end.status.success() && !said.trim().is_empty(), "{said}");
    Ok(())
}
