//! Commands on what the store is made of: content, snapshots, leases, namespaces, events, collections, checks.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use storage_model::Digest;
use tests::{Engine, Finished, Registry, finish, signal, wait_until};

use crate::{fixtures, json};

fn document(engine: &Engine, arguments: &[&str]) -> Result<Value> {
    let text = engine.ok([&["--format", "json"], arguments].concat())?;
    json::values(&text).into_iter().next().with_context(|| format!("no JSON: {text:?}"))
}

/// Runs a command with these bytes on its standard input.
fn with_input(engine: &Engine, arguments: &[&str], input: &[u8]) -> Result<Finished> {
    let file = engine.scratch().join("input");
    fs::write(&file, input)?;
    finish(engine.command(arguments)?.stdin(fs::File::open(&file)?), Duration::from_secs(60))
}

fn ingest(engine: &Engine, arguments: &[&str], input: &[u8]) -> Result<String> {
    let words = [&["content", "ingest"], arguments].concat();
    Ok(with_input(engine, &words, input)?.success()?.trim().to_owned())
}

/// A command that this process ends, also when a test fails.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn content_is_stored_labelled_read_by_a_beginning_and_removed() -> Result<()> {
    let engine = Engine::new()?;
    let bytes = fixtures::noise(3, 3 << 20);
    let digest = Digest::of(&bytes).to_string();
    assert_eq!(ingest(&engine, &["--keep", "--label", "a=b", "one"], &bytes)?, digest);
    // The same bytes by another name are the same content.
    assert_eq!(ingest(&engine, &["two"], &bytes)?, digest);
    let refused =
        with_input(&engine, &["content", "ingest", "--expected-digest", &digest, "three"], b"other")?;
    ensure!(refused.code == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    let row = document(&engine, &["content", "ls"])?[0].clone();
    assert_eq!((&row["size_bytes"], &row["labels"]["a"]), (&Value::from(bytes.len()), &Value::from("b")));
    let copy = engine.scratch().join("copy");
    let mut get = engine.command(["content", "get", &digest[7..17]])?;
    ensure!(get.stdout(fs::File::create(&copy)?).status()?.success(), "content get failed");
    assert_eq!(fs::read(&copy)?, bytes);
    let labels = engine.ok(["content", "label", &digest, "a=", "c=d"])?;
    assert!(labels.contains("c=d") && !labels.contains("a=b"), "{labels}");
    engine.ok(["gc"])?;
    assert_eq!(engine.ok(["content", "ls", "-q"])?.trim(), digest);
    assert_eq!(engine.ok(["content", "rm", &digest[7..17]])?.trim(), digest);
    let gone = engine.run(["content", "get", &digest])?;
    ensure!(gone.code == Some(1) && gone.stdout.is_empty(), "{gone:?}");
    Ok(())
}

#[test]
fn an_edited_document_is_new_content_with_the_old_labels() -> Result<()> {
    let engine = Engine::new()?;
    let old = ingest(&engine, &["--keep", "--label", "a=b", "doc"], br#"{"version": 1}"#)?;
    let new = engine.ok(["content", "edit", "--editor", "sed -i s/1/2/", &old])?;
    assert_eq!(new.trim(), Digest::of(br#"{"version": 2}"#).to_string());
    assert_eq!(engine.ok(["content", "get", new.trim()])?, r#"{"version": 2}"#);
    assert_eq!(engine.ok(["content", "get", &old])?, r#"{"version": 1}"#);
    let rows = document(&engine, &["content", "ls"])?;
    assert!(rows.as_array().context("a list")?.iter().all(|row| row["labels"]["a"] == "b"), "{rows}");
    let bad = engine.run(["content", "edit", "--validate", "--editor", "sed -i s/{//", &old])?;
    ensure!(bad.code == Some(1) && bad.stderr.contains("no JSON"), "{bad:?}");
    let failed = engine.run(["content", "edit", "--editor", "false", &old])?;
    ensure!(failed.code == Some(1) && failed.stderr.contains("false"), "{failed:?}");
    Ok(())
}

#[test]
fn objects_of_a_registry_are_read_and_written_without_an_image() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(1, 3, 500).0.build()?;
    let name = registry.push(&image, "objects", "1")?;
    let manifest = engine.ok(["content", "fetch-object", &name])?;
    assert_eq!(manifest.as_bytes(), image.document);
    assert_eq!(
        engine.ok(["content", "fetch-object", &name, &image.root.digest.to_string()])?.as_bytes(),
        image.document
    );
    assert!(!engine.socket().exists(), "an engine was started for nothing");
    let blob = engine.scratch().join("blob");
    let mut fetch = engine.command(["content", "fetch-blob", &name, &image.layers[0].to_string()])?;
    ensure!(fetch.stdout(fs::File::create(&blob)?).status()?.success(), "fetch-blob failed");
    assert_eq!(fs::read(&blob)?, image.blobs[&image.layers[0]]);
    let absent = Digest::of(b"absent").to_string();
    let missing = engine.run(["content", "fetch-blob", &name, &absent])?;
    ensure!(missing.code == Some(1) && missing.stderr.contains(&absent[7..19]), "{missing:?}");
    // Into another repository, config and layer first.
    engine.ok(["content", "fetch", "--quiet", &name])?;
    let target = registry.reference("copied:2");
    for digest in image.blobs.keys().map(ToString::to_string) {
        let pushed = engine.ok(["content", "push-object", &target, &digest, "application/octet-stream"])?;
        assert!(pushed.starts_with("Pushed sha256:"), "{pushed}");
    }
    engine.ok(["content", "push-object", &target, &image.root.digest.to_string(), &image.root.media_type])?;
    assert_eq!(engine.ok(["content", "fetch-object", &target])?.as_bytes(), image.document);
    Ok(())
}

#[test]
fn fetched_content_is_unpacked_when_it_is_asked_for() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(2, 5, 500).0.build()?;
    let name = registry.push(&image, "fetched", "1")?;
    engine.ok(["content", "fetch", "--quiet", &name])?;
    assert_eq!(engine.ok(["snapshots", "ls", "-q"])?, "");
    assert_eq!(document(&engine, &["images", "check"])?[0]["unpacked"], false);
    let missing = engine.run(["images", "usage", &name])?;
    ensure!(missing.code == Some(1) && missing.stderr.contains("snapshots unpack"), "{missing:?}");
    let chain = engine.ok(["snapshots", "unpack", "--quiet", &image.root.digest.to_string()])?;
    assert_eq!(
        engine.ok(["images", "usage", "--format", "{{.Key}}", &name])?.lines().next(),
        Some(chain.trim())
    );
    let tree = engine.ok(["snapshots", "tree"])?;
    assert_eq!(tree.lines().count(), 2, "{tree}");
    assert!(tree.lines().nth(1).is_some_and(|line| line.ends_with(chain.trim())), "{tree}");
    Ok(())
}

#[test]
fn a_snapshot_is_prepared_changed_committed_and_told_as_a_layer() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let name = registry.push(&fixtures::crowd(1, 5, 500).0.build()?, "base", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let parent = engine.ok(["snapshots", "ls", "-q"])?;
    let target = engine.scratch().join("mnt");
    fs::create_dir(&target)?;
    let mount = engine.ok([
        "snapshots",
        "prepare",
        "--target",
        target.to_str().context("text")?,
        "mine",
        parent.trim(),
    ])?;
    finish(Command::new("sh").args(["-ec", &mount]), Duration::from_secs(30))?.success()?;
    let changed =
        fs::write(target.join("new"), "made here").and_then(|()| fs::remove_file(target.join("data/0/0/0")));
    finish(Command::new("umount").arg(&target), Duration::from_secs(30))?.success()?;
    changed?;
    // What is being worked on is no garbage.
    engine.ok(["gc"])?;
    let archive = engine.scratch().join("layer.tar.gz");
    let mut diff = engine.command(["snapshots", "diff", "mine"])?;
    ensure!(diff.stdout(fs::File::create(&archive)?).status()?.success(), "snapshots diff failed");
    let listed = finish(Command::new("tar").arg("tzf").arg(&archive), Duration::from_secs(30))?.success()?;
    assert!(listed.contains("new") && listed.contains("data/0/0/.wh.0"), "{listed}");
    engine.ok(["snapshots", "commit", "done", "mine"])?;
    let info = document(&engine, &["snapshots", "info", "done"])?;
    assert_eq!((&info["Kind"], &info["Parent"]), (&Value::from("Committed"), &Value::from(parent.trim())));
    let kept = engine.ok(["snapshots", "diff", "--keep", "done"])?;
    assert_eq!(engine.ok(["content", "ls", "-q", &format!("digest=={}", kept.trim())])?, kept);
    // Views and the lease of a diff are gone with it.
    assert_eq!(engine.ok(["snapshots", "ls", "-q"])?.lines().count(), 2);
    assert_eq!(engine.ok(["leases", "ls", "-q"])?, "");
    let view = document(&engine, &["snapshots", "view", "--mounts", "look", "done"])?;
    assert!(view[0]["Options"].as_array().is_some_and(|options| !options.is_empty()), "{view}");
    engine.ok(["gc"])?;
    assert!(engine.ok(["snapshots", "mounts", "/x", "look"])?.starts_with("mount -t "));
    let busy = engine.run(["snapshots", "rm", parent.trim()])?;
    ensure!(busy.code == Some(1), "{busy:?}");
    engine.ok(["snapshots", "rm", "look", "done"])?;
    Ok(())
}

#[test]
fn a_lease_keeps_what_is_made_under_it_until_it_goes() -> Result<()> {
    let engine = Engine::new()?;
    assert_eq!(engine.ok(["leases", "create", "--id", "mine", "-x", "2h", "team=a"])?, "mine\n");
    let row = document(&engine, &["leases", "ls", "id==mine"])?[0].clone();
    assert_eq!(row["labels"]["team"], "a");
    assert!(row["expires"].as_str().is_some_and(|end| end.ends_with('Z')), "{row}");
    let digest = ingest(&engine, &["--lease", "mine", "r"], b"kept for a while")?;
    engine.ok(["gc"])?;
    assert_eq!(
        engine.ok(["leases", "resources", "mine"])?.lines().nth(1),
        Some(&*format!("content  {digest}"))
    );
    let why = document(&engine, &["why", &digest[7..20]])?;
    assert!(why[0]["chains"][0][0].as_str().is_some_and(|root| root.contains("mine")), "{why}");
    engine.ok(["leases", "rm", "--sync", "mine"])?;
    assert_eq!(engine.ok(["content", "ls", "-q"])?, "");
    let endless = engine.ok(["leases", "create", "-x", "0"])?;
    assert!(document(&engine, &["leases", "ls"])?[0]["expires"].is_null(), "{endless}");
    Ok(())
}

#[test]
fn namespaces_are_made_labelled_and_removed_when_they_are_empty() -> Result<()> {
    let engine = Engine::new()?;
    engine.ok(["namespaces", "create", "team", "a=b"])?;
    engine.ok(["ns", "label", "team", "a=", "c=d"])?;
    let rows = document(&engine, &["namespaces", "ls"])?;
    let team =
        rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "team")).context("team")?;
    assert_eq!(team["labels"], serde_json::json!({"c": "d"}));
    let file = engine.scratch().join("input");
    fs::write(&file, "x")?;
    let mut store = engine.command(["-n", "team", "content", "ingest", "--keep", "r"])?;
    let digest = finish(store.stdin(fs::File::open(&file)?), Duration::from_secs(30))?.success()?;
    let full = engine.run(["namespaces", "rm", "team"])?;
    ensure!(full.code == Some(1) && full.stderr.contains("team"), "{full:?}");
    engine.ok(["-n", "team", "content", "rm", digest.trim()])?;
    engine.ok(["namespaces", "rm", "team"])?;
    Ok(())
}

#[test]
fn events_are_told_as_they_happen_and_as_they_are_asked_for() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let listen = |arguments: &[&str], file: &str| {
        let log = engine.scratch().join(file);
        let mut command = engine.command(arguments)?;
        let child = command.stdout(fs::File::create(&log)?).stderr(Stdio::null()).spawn()?;
        Ok::<_, anyhow::Error>((Running(child), log))
    };
    let (all, lines) = listen(&["events"], "lines")?;
    let (some, chosen) = listen(
        &["events", "--format", "{{.Topic}} {{.Event.Name}}", r#"topic=="/namespaces/delete""#],
        "chosen",
    )?;
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap_or_default();
    // A listener hears what comes after it: it is there once it hears one.
    let mut number = 0;
    wait_until("both listen", Duration::from_secs(30), || {
        number += 1;
        let name = format!("n{number}");
        let done = engine.ok(["ns", "create", &name]).and_then(|_| engine.ok(["ns", "rm", &name]));
        done.is_ok() && !read(&lines).is_empty() && !read(&chosen).is_empty()
    })?;
    engine.ok(["ns", "create", "last", "a=b"])?;
    wait_until("the last is told", Duration::from_secs(30), || read(&lines).contains("last"))?;
    let line =
        read(&lines).lines().find(|line| line.contains("last")).map(str::to_owned).context("the line")?;
    assert!(line.contains(r#" /namespaces/create {"#) && line.contains(r#""labels":{"a":"b"}"#), "{line}");
    let chosen = read(&chosen);
    assert!(chosen.lines().all(|line| line.starts_with("/namespaces/delete n")), "{chosen}");
    for mut listener in [all, some] {
        signal(&listener.0, "INT")?;
        assert_eq!(listener.0.wait()?.code(), Some(130));
    }
    Ok(())
}

#[test]
fn a_dry_run_tells_what_the_collection_then_removes() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let name = registry.push(&fixtures::crowd(2, 5, 5000).0.build()?, "kept", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let loose = ingest(&engine, &["r"], b"nobody needs this")?;
    let planned = document(&engine, &["gc", "--dry-run"])?;
    assert_eq!(
        (&planned["blobs"], &planned["doomed"][0]["name"]),
        (&Value::from(1), &Value::from(loose.as_str()))
    );
    let shown = engine.ok(["gc", "--dry-run"])?;
    assert!(shown.contains(&loose) && shown.contains("Would remove 1 blob"), "{shown}");
    assert!(engine.ok(["content", "ls", "-q"])?.contains(&loose));
    let why = engine.ok(["why", &loose])?;
    assert!(why.contains("the next collection removes it"), "{why}");
    assert_eq!(document(&engine, &["gc"])?["blobs"], 1);
    assert!(!engine.ok(["content", "ls", "-q"])?.contains(&loose));
    let nobody = engine.run(["why", "ffffffffffff"])?;
    ensure!(nobody.code == Some(1) && nobody.stdout.is_empty(), "{nobody:?}");
    // A budget that nothing fits in lets go of images; one that is not exceeded does not.
    engine.ok(["gc", "--keep-storage", "1B", "--high-water", "1TB"])?;
    assert_eq!(engine.ok(["images", "ls", "-q"])?.trim(), name);
    engine.ok(["gc", "--keep-storage", "1B"])?;
    assert_eq!(engine.ok(["images", "ls", "-q"])?, "");
    let usage = document(&engine, &["usage"])?;
    let blobs = usage
        .as_array()
        .and_then(|kinds| kinds.iter().find(|kind| kind["kind"] == "blobs"))
        .context("blobs")?;
    assert_eq!(blobs["bytes"], 0);
    Ok(())
}

#[test]
fn content_that_only_unpacked_images_need_no_more_can_be_pruned() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(2, 5, 500).0.build()?;
    let name = registry.push(&image, "slim", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let told = engine.ok(["content", "prune", "references", "--dry-run"])?;
    assert_eq!(told.lines().filter(|line| line.contains("gc.ref.content.l.")).count(), 2, "{told}");
    engine.ok(["content", "prune", "references"])?;
    let left = engine.ok(["content", "ls", "-q"])?;
    for layer in &image.layers {
        assert!(!left.contains(&layer.to_string()), "{left}");
    }
    assert!(left.contains(&image.root.digest.to_string()), "{left}");
    assert_eq!(document(&engine, &["images", "check"])?[0]["status"], "incomplete");
    // The tree is unpacked: it does not need them.
    let target = engine.scratch().join("mounted");
    fs::create_dir(&target)?;
    engine.ok(["images", "mount", &name, target.to_str().context("text")?])?;
    assert!(target.join("data/0").is_dir());
    Ok(())
}

#[test]
fn a_check_tells_damage_from_repaired_and_clean_by_its_exit_code() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(2, 20, 3000).0.build()?;
    let name = registry.push(&image, "checked", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let clean = engine.run(["check", "--read-data"])?;
    ensure!(clean.code == Some(0) && clean.stdout.contains("nothing is damaged"), "{clean:?}");
    let blob = engine.root().join("blobs/sha256").join(image.layers[0].hex());
    let mut bytes = fs::read(&blob)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut rights = fs::metadata(&blob)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o600);
    fs::set_permissions(&blob, rights)?;
    fs::write(&blob, &bytes)?;
    let damaged = engine.run(["check", "--read-data"])?;
    ensure!(damaged.code == Some(2) && damaged.stdout.contains(&image.layers[0].to_string()), "{damaged:?}");
    let found = engine.run(["check", "--read-data", "--quiet", "--format", "{{.Name}} {{.Outcome}}"])?;
    assert_eq!((found.code, found.stdout), (Some(2), format!("{} damaged\n", image.layers[0])));
    let repaired = engine.run(["check", "--read-data", "--repair"])?;
    ensure!(repaired.code == Some(1), "{repaired:?}");
    assert_eq!(engine.run(["check", "--read-data"])?.code, Some(0));
    // Seven sevenths are everything; a check that cannot be done is told from damage.
    for part in 1..=7 {
        assert_eq!(engine.run(["check", "--read-data", "--subset", &format!("{part}/7")])?.code, Some(0));
    }
    let nobody = engine.scratch().join("nobody.sock");
    let mut away = engine.command(["check", "--address"])?;
    assert_eq!(finish(away.arg(&nobody), Duration::from_secs(30))?.code, Some(3));
    Ok(())
}
