//! A pulled tree is the tree that another program unpacks, and bytes travel once.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Engine, Image, Registry, difference, finish, index_of, read_tree};

use crate::fixtures;

/// The tree of `image` as umoci unpacks it.
pub(crate) fn umoci(image: &Image) -> Result<(tempfile::TempDir, std::path::PathBuf)> {
    let directory = tempfile::tempdir()?;
    image.write_layout(&directory.path().join("layout"))?;
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image", "layout:latest", "bundle"]).current_dir(directory.path());
    finish(&mut unpack, Duration::from_secs(60))?.success().context("umoci (apt-get install umoci)")?;
    let root = directory.path().join("bundle/rootfs");
    Ok((directory, root))
}

#[test]
fn the_pulled_tree_equals_the_tree_that_umoci_unpacks() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = registry.push(&fixtures::everything().build()?, "everything", "1")?;
    engine.ok(["pull", "--quiet", &image])?;
    let target = engine.scratch().join("mounted");
    fs::create_dir(&target)?;
    engine.ok(["images", "mount", &image, target.to_str().context("a temporary path is text")?])?;
    // umoci knows no zstd: it gets the same archives, compressed otherwise.
    let (_directory, reference) = umoci(&fixtures::everything().all_gzip().build()?)?;
    let difference = difference(&read_tree(&reference)?, &read_tree(&target)?);
    assert!(difference.is_empty(), "{difference}");
    engine.ok(["images", "unmount", target.to_str().context("text")?])?;
    assert!(Engine::mounts_below(&target).is_empty());
    Ok(())
}

#[test]
fn an_image_with_dockers_media_types_and_one_from_an_index_are_the_same_tree() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let plain = fixtures::everything().all_gzip().build()?;
    let foreign = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let host = storage_model::Platform::host();
    let index = index_of(&[("linux", "s390x", &foreign), (&host.os, &host.architecture, &plain)]);
    let names = [
        registry.push(&fixtures::everything().all_gzip().docker().build()?, "docker", "1")?,
        registry.push(&index, "index", "1")?,
    ];
    let (_directory, reference) = umoci(&plain)?;
    let reference = read_tree(&reference)?;
    for (number, name) in names.iter().enumerate() {
        engine.ok(["pull", "--quiet", name])?;
        let target = engine.scratch().join(format!("mounted{number}"));
        fs::create_dir(&target)?;
        engine.ok(["images", "mount", name, target.to_str().context("text")?])?;
        let difference = difference(&reference, &read_tree(&target)?);
        assert!(difference.is_empty(), "{name}: {difference}");
    }
    Ok(())
}

#[test]
fn an_image_of_200_layers_can_be_mounted_and_the_highest_wins() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let mut builder = tests::ImageBuilder::default();
    for layer in 0..200 {
        let files = [
            tests::Entry::file("which", format!("{layer}")),
            tests::Entry::file(format!("layer/{layer}"), ""),
        ];
        builder = builder.layer(files, storage_model::Compression::Gzip);
    }
    let image = registry.push(&builder.build()?, "tall", "1")?;
    engine.ok(["pull", "--quiet", &image])?;
    let target = engine.scratch().join("mounted");
    fs::create_dir(&target)?;
    engine.ok(["images", "mount", &image, target.to_str().context("text")?])?;
    assert_eq!(fs::read_to_string(target.join("which"))?, "199");
    assert_eq!(fs::read_dir(target.join("layer"))?.count(), 200);
    Ok(())
}

#[test]
fn a_second_pull_fetches_nothing_and_needs_no_layer_of_the_registry() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::crowd(2, 10, 1000).0.build()?;
    let name = registry.push(&image, "twice", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    for layer in &image.layers {
        fs::remove_file(registry.blob_file(layer))?;
    }
    engine.ok(["pull", "--quiet", &name])?;
    Ok(())
}

#[test]
fn two_clients_that_pull_one_image_download_each_layer_once() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let image = fixtures::crowd(2, 300, 20_000).0.build()?;
    let name = registry.push(&image, "shared", "1")?;
    let fetched: Vec<Result<u64>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2).map(|_| scope.spawn(|| fetched_bytes(&engine, &name))).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    let total: u64 = fetched.into_iter().sum::<Result<u64>>()?;
    let size: u64 = image.layers.iter().map(|layer| image.blobs[layer].len() as u64).sum();
    assert!(total < size + size / 2, "{total} bytes were fetched for layers of {size} bytes");
    Ok(())
}

/// Bytes that a pull says it fetched.
fn fetched_bytes(engine: &Engine, name: &str) -> Result<u64> {
    let output = engine.ok(["--format", "json", "pull", name])?;
    crate::json::numbers(&output, "fetched_bytes").last().copied().context("the pull tells no fetched_bytes")
}
