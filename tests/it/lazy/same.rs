//! A shown tree is the unpacked tree: before, during and after the rest arrives.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use storage_model::Compression::Gzip;
use tests::{Engine, Entry, Image, ImageBuilder, Node, Registry, difference, read_tree};

use super::{Way, lazily, status};
use crate::fixtures;

/// The tree that `engine` shows of `image`.
fn tree(engine: &Engine, image: &str) -> Result<BTreeMap<PathBuf, Node>> {
    let target = engine.scratch().join("mounted");
    fs::create_dir_all(&target)?;
    let text = target.to_str().context("a temporary path is text")?;
    engine.ok(["images", "mount", image, text])?;
    let tree = read_tree(&target);
    engine.ok(["images", "unmount", text])?;
    tree
}

/// The tree of `image` unpacked, in an engine of its own.
fn unpacked(registry: &Registry, image: &Image) -> Result<BTreeMap<PathBuf, Node>> {
    let engine = Engine::new()?;
    let name = registry.push(image, "whole", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "never", &name])?;
    tree(&engine, &name)
}

fn the_tree_is_the_same(way: Way) -> Result<()> {
    let registry = Registry::start()?;
    let image = lazily(&fixtures::everything(), way)?;
    let expected = unpacked(&registry, &image)?;
    ensure!(expected.len() > 30, "{expected:?}");
    let engine = Engine::new()?;
    let name = registry.push(&image, "shown", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "required", "--no-fill", &name])?;
    let shown = status(&engine, &name)?;
    assert_eq!(shown["mode"], "lazy", "{shown}");
    assert_eq!(shown["verified"], false, "{shown}");
    assert_eq!(difference(&expected, &tree(&engine, &name)?), "", "before");
    engine.ok(["lazy", "fill", "--quiet", &name])?;
    assert_eq!(difference(&expected, &tree(&engine, &name)?), "", "after");
    let shown = status(&engine, &name)?;
    assert_eq!(shown["verified"], true, "{shown}");
    assert_eq!(shown["percent"], 100.0, "{shown}");
    // All blobs are here: it is pushed like any other.
    engine.ok(["push", "--quiet", &registry.reference("copy:1"), &name])?;
    engine.ok(["images", "rm", &name])?;
    assert_eq!(Engine::mounts_below(engine.scratch()), Vec::<PathBuf>::new());
    assert_eq!(engine.inside_root("snapshots"), Vec::<String>::new());
    Ok(())
}

#[test]
fn an_estargz_image_shows_the_tree_that_is_unpacked_from_it() -> Result<()> {
    the_tree_is_the_same(Way::Estargz)
}

#[test]
fn a_zstd_chunked_image_of_podmans_shows_the_tree_that_is_unpacked_from_it() -> Result<()> {
    the_tree_is_the_same(Way::Containers)
}

#[test]
fn a_zstd_chunked_image_of_stargz_shows_the_tree_that_is_unpacked_from_it() -> Result<()> {
    the_tree_is_the_same(Way::Stargz)
}

#[test]
fn an_ordinary_image_that_is_asked_for_lazily_is_indexed_and_shows_the_same_tree() -> Result<()> {
    let registry = Registry::start()?;
    let image = fixtures::everything().build()?;
    let expected = unpacked(&registry, &image)?;
    let engine = Engine::new()?;
    let name = registry.push(&image, "ordinary", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "always", "--no-fill", &name])?;
    let status = status(&engine, &name)?;
    assert_eq!(status["mode"], "lazy", "{status}");
    assert_eq!(difference(&expected, &tree(&engine, &name)?), "");
    Ok(())
}

#[test]
fn what_was_indexed_once_is_lazy_the_second_time() -> Result<()> {
    let registry = Registry::start_counting()?;
    let builder =
        ImageBuilder::default().busybox()?.layer([Entry::file("big", fixtures::noise(3, 8 << 20))], Gzip);
    let image = builder.build()?;
    let engine = Engine::new()?;
    let name = registry.push(&image, "again", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "always", "--no-fill", &name])?;
    engine.ok(["images", "rm", &name])?;
    assert_eq!(engine.inside_root("blobs/sha256"), Vec::<String>::new());
    let before = registry.fetches()?;
    engine.ok(["pull", "--quiet", "--lazy", "required", "--no-fill", &name])?;
    for layer in &image.layers {
        let layer = layer.to_string();
        assert_eq!(
            before.get(&layer),
            registry.fetches()?.get(&layer),
            "a layer was fetched to be indexed again"
        );
    }
    let said = engine.ok(["run", "--rm", &name, "sh", "-c", "wc -c < /big"])?;
    assert_eq!(said.trim(), (8 << 20).to_string());
    Ok(())
}
