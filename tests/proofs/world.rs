//! The small world of the proofs: a registry with a few images that share layers, and places to put an engine's root.
//!
//! The images are small, so that a trial is short, and hold one of each thing that can go wrong when a tree is half
//! there: files, empty files, links, a deletion, owners, modes, extended attributes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use storage_model::Compression;
use tests::{Entry, Image, ImageBuilder, Kind, Registry, finish};

/// Name of the directory where a [`Disk`](crate::disk::Disk) is mounted.
pub(crate) const MOUNTED: &str = "mounted";

/// Images there are; see [`Step`](crate::step::Step).
pub(crate) const IMAGES: usize = 2;

/// A registry and what is in it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    /// An OCI layout of the first image, as `tar` packs it.
    pub(crate) archive: PathBuf,
    _directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        tests::require_root()?;
        let registry = Registry::start()?;
        for number in 0..IMAGES {
            registry.push(&image(number)?, &repository(number), "1")?;
        }
        let directory = tempfile::tempdir()?;
        let (layout, archive) = (directory.path().join("layout"), directory.path().join("archive.tar"));
        image(0)?.write_layout(&layout)?;
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&layout).arg(".");
        finish(&mut tar, Duration::from_secs(10))?.success()?;
        Ok(Self { registry, archive, _directory: directory })
    }

    /// Reference of an image in the registry.
    pub(crate) fn reference(&self, image: usize) -> String {
        self.registry.reference(&format!("{}:1", repository(image)))
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

/// Whether a registry has all of an image under this tag: what a push that was acknowledged means.
pub(crate) fn ensure_served(target: &str, image: &runtime_engine::Image) -> Result<()> {
    let (host, rest) = target.split_once('/').context("a host and a name")?;
    let (name, tag) = rest.rsplit_once(':').context("a name and a tag")?;
    let digest = image.record.target.digest;
    let answer = head(host, &format!("/v2/{name}/manifests/{tag}"), &image.record.target.media_type)?;
    ensure!(answer.contains(&digest.to_string()), "{target} is not {digest} but: {answer}");
    for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
        head(host, &format!("/v2/{name}/blobs/{}", blob.digest), "*/*")?;
    }
    Ok(())
}

/// Asks a registry for the head of something, which must be there.
fn head(host: &str, path: &str, accept: &str) -> Result<String> {
    let mut stream = TcpStream::connect(host)?;
    write!(stream, "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    Ok(answer)
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

/// Where an engine keeps what is not durable: never on a disk that is cut or full, as it would be in memory.
pub(crate) fn state_beside(root: &Path) -> PathBuf {
    match root.parent() {
        Some(disk) if disk.ends_with(MOUNTED) => disk.with_file_name("state"),
        _ => root.with_extension("state"),
    }
}
