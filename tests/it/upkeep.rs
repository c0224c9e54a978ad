//! The engine keeps itself in order: collections by time and by budget, and repairs of what is gone.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Engine, Registry, wait_until};

use crate::fixtures;

/// Longest that something may take that happens by itself: a look every quarter of a minute, on a busy machine.
const BY_ITSELF: Duration = Duration::from_secs(90);

#[test]
fn what_a_lease_kept_goes_when_its_time_has_passed_though_nobody_asks() -> Result<()> {
    let engine = Engine::new()?;
    let lease = engine.ok(["leases", "create", "--expires", "2s"])?;
    let file = engine.scratch().join("content");
    fs::write(&file, "kept for two seconds\n")?;
    let mut ingest = engine.command(["--lease", lease.trim(), "content", "ingest", "short-lived"])?;
    ingest.stdin(fs::File::open(&file)?);
    tests::finish(&mut ingest, Duration::from_secs(30))?.success()?;
    ensure!(engine.inside_root("blobs/sha256").len() == 1, "the lease keeps it");
    wait_until("the content is gone by itself", BY_ITSELF, || engine.inside_root("blobs/sha256").is_empty())?;
    assert_eq!(engine.ok(["leases", "ls", "-q"])?, "");
    Ok(())
}

#[test]
fn a_daemon_with_a_budget_lets_the_image_go_that_was_used_longest_ago() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let names = ["old", "used", "new"];
    let mut images = Vec::new();
    for (seed, name) in names.iter().enumerate() {
        let content = fixtures::noise(seed as u64 + 90, 3 << 20);
        let builder = tests::ImageBuilder::default()
            .layer([tests::Entry::file("content", content)], storage_model::Compression::Gzip);
        images.push(registry.push(&builder.build()?, name, "1")?);
    }
    // Each takes 3 MiB as a blob and 3 MiB unpacked; the metadata has room of its own, some 16 MiB.
    let mut daemon = engine.command(["daemon", "--background", "--keep-storage", "34MiB"])?;
    let mut daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    wait_until("the daemon answers", Duration::from_secs(20), || {
        engine.run(["version"]).is_ok_and(|end| end.code == Some(0) && engine.socket().exists())
    })?;
    engine.ok(["pull", "--quiet", &images[0]])?;
    engine.ok(["pull", "--quiet", &images[1]])?;
    // Used again: the other one is the oldest now.
    engine.ok(["pull", "--quiet", &images[1]])?;
    engine.ok(["pull", "--quiet", &images[2]])?;
    let gone = wait_until("the oldest image is gone by itself", BY_ITSELF, || {
        engine.ok(["images", "ls", "-q"]).is_ok_and(|listed| !listed.contains(&images[0]))
    });
    let listed = engine.ok(["images", "ls", "-q"])?;
    daemon.kill()?;
    daemon.wait()?;
    gone.with_context(|| listed.clone())?;
    ensure!(listed.contains(&images[2]), "the newest stays: {listed}");
    Ok(())
}

#[test]
fn b4_a_tree_whose_directory_is_gone_is_unpacked_again() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let (builder, expected) = fixtures::crowd(2, 20, 3000);
    let name = registry.push(&builder.build()?, "halved", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let snapshots = engine.root().join("snapshots");
    let first = engine.inside_root("snapshots").into_iter().min().context("there are snapshots")?;
    fs::remove_dir_all(snapshots.join(first))?;
    // Every other command works meanwhile.
    engine.ok(["images", "ls"])?;
    engine.ok(["snapshots", "ls"])?;
    engine.ok(["gc"])?;
    ensure!(engine.run(["check"])?.code == Some(2), "a directory that is gone is damage");
    let repaired = engine.run(["check", "--repair"])?;
    ensure!(repaired.code == Some(1), "{repaired:?}");
    assert_eq!(engine.run(["check", "--read-data"])?.code, Some(0));
    let target = engine.scratch().join("mounted");
    fs::create_dir(&target)?;
    engine.ok(["images", "mount", &name, target.to_str().context("text")?])?;
    assert_eq!(fixtures::damaged(&target, &expected), Vec::<String>::new());
    Ok(())
}

#[test]
fn b2_an_image_that_lacks_a_blob_is_completed_by_its_digest_and_keeps_its_name() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(2, 20, 3000).0.build()?;
    let name = registry.push(&image, "lacking", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    engine.ok(["content", "rm", &image.layers[1].to_string()])?;
    let lacking = engine.run(["check"])?;
    ensure!(lacking.code == Some(2) && lacking.stdout.contains(&image.layers[1].to_string()), "{lacking:?}");
    let repaired = engine.run(["check", "--repair"])?;
    ensure!(repaired.code == Some(1), "{repaired:?}");
    assert_eq!(engine.run(["check", "--read-data"])?.code, Some(0));
    assert_eq!(engine.ok(["images", "ls", "-q"])?.trim(), name);
    Ok(())
}

#[test]
fn damaged_content_that_a_use_meets_is_fetched_again_on_the_spot() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let (builder, expected) = fixtures::crowd(2, 20, 3000);
    let image = builder.build()?;
    let name = registry.push(&image, "rotten", "1")?;
    engine.ok(["pull", "--quiet", "--no-unpack", &name])?;
    let blob = engine.root().join("blobs/sha256").join(image.layers[0].hex());
    let mut bytes = fs::read(&blob)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&blob)?;
    fs::write(&blob, &bytes)?;
    let target = engine.scratch().join("mounted");
    fs::create_dir(&target)?;
    engine.ok(["images", "mount", &name, target.to_str().context("text")?])?;
    assert_eq!(fixtures::damaged(&target, &expected), Vec::<String>::new());
    assert_eq!(engine.run(["check", "--read-data"])?.code, Some(0));
    Ok(())
}
