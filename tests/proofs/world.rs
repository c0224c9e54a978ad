//! The small world of the proofs: a registry with a few images that share layers, and places to put an engine's root.
//!
//! The images are small, so that a trial is short, and hold one of each thing that can go wrong when a tree is half
//! there: files, empty files, links, a deletion, owners, modes, extended attributes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use storage_model::Compression;
use tests::{Entry, Image, ImageBuilder, Kind, Registry, finish};

/// Images there are; see [`Step`](crate::step::Step).
pub(crate) const IMAGES: usize = 2;

/// A registry and what is in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    images: Vec<Image>,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        tests::require_root()?;
        let registry = Registry::start()?;
        let images: Vec<Image> = (0..IMAGES).map(image).collect::<Result<_>>()?;
        for (number, image) in images.iter().enumerate() {
            registry.push(image, &repository(number), "1")?;
        }
        Ok(Self { registry, images })
    }

    /// Reference of an image in the registry.
    pub(crate) fn reference(&self, image: usize) -> String {
        self.registry.reference(&format!("{}:1", repository(image)))
    }

    pub(crate) fn image(&self, image: usize) -> &Image {
        &self.images[image]
    }
}

fn repository(image: usize) -> String {
    format!("proofs/image-{image}")
}

/// Three layers, the lowest the same in all images.
fn image(number: usize) -> Result<Image> {
    ImageBuilder::default()
        .layer(lowest(), Compression::Gzip)
        .layer(middle(number), Compression::Zstd)
        .layer(highest(number), Compression::Gzip)
        .build()
}

fn text(seed: usize, bytes: usize) -> Vec<u8> {
    let mut random = crate::figures::Random::new(seed as u64);
    (0..bytes.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(bytes).collect()
}

fn lowest() -> Vec<Entry> {
    vec![
        Entry::directory("etc/"),
        Entry::file("etc/hostname", "lowest\n"),
        Entry::file("etc/empty", ""),
        Entry::file("etc/shadow", "secret\n").mode(0o640).owner(0, 42),
        Entry::directory("bin/"),
        Entry::file("bin/tool", text(1, 20_000)).mode(0o4755),
        Entry::new("bin/other", Kind::Hardlink("bin/tool".into())),
        Entry::new("bin/sh", Kind::Symlink("tool".into())),
        Entry::directory("gone/"),
        Entry::file("gone/file", "hidden by a deletion\n"),
    ]
}

fn middle(number: usize) -> Vec<Entry> {
    vec![
        Entry::file(".wh.gone", ""),
        Entry::file("etc/hostname", format!("middle {number}\n")),
        Entry::directory("srv/").mode(0o2775).owner(33, 33),
        Entry::file("srv/data", text(100 + number, 70_000)).xattr("user.origin", b"proof"),
        Entry::file("srv/small", text(200 + number, 300)),
    ]
}

fn highest(number: usize) -> Vec<Entry> {
    let file = |at: usize| Entry::file(format!("app/{at}"), text(1000 * number + at, 500 * at));
    [Entry::directory("app/").owner(1000, 1000)].into_iter().chain((1..8).map(file)).collect()
}

/// A file system in memory, for what needs no disk: whatever a process wrote outlives its death.
#[derive(Debug)]
pub(crate) struct Memory(tempfile::TempDir);

impl Memory {
    pub(crate) fn mount() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-proof.").tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "mode=700,size=2g", "tmpfs"]).arg(directory.path());
        finish(&mut mount, Duration::from_secs(10))?.success().context("a tmpfs")?;
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Copies a tree with everything there is about it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--sparse=always"]).arg(from).arg(to);
    finish(&mut copy, Duration::from_secs(60))?.success()?;
    Ok(())
}

/// Where an engine keeps what is not durable.
pub(crate) fn state_beside(root: &Path) -> PathBuf {
    root.with_extension("state")
}
