//! Bad input: each says what, which one, why and what to do; nothing half-made is left.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use storage_model::{Compression, Descriptor, Digest, media};
use tests::{Engine, Entry, Finished, Image, ImageBuilder, Kind, Registry, finish, windlass};

use crate::fixtures;

/// The command failed with this code and said each of these words, on its standard error alone.
fn refused(end: &Finished, code: i32, words: &[&str]) -> Result<()> {
    ensure!(end.code == Some(code), "exit {:?} instead of {code}: {}{}", end.code, end.stdout, end.stderr);
    ensure!(end.stdout.is_empty(), "an error went to standard output: {:?}", end.stdout);
    let said = end.stderr.to_lowercase();
    for word in words {
        ensure!(said.contains(&word.to_lowercase()), "the message does not say {word:?}:\n{}", end.stderr);
    }
    ensure!(!said.contains("panicked"), "{}", end.stderr);
    Ok(())
}

/// No image, and after a collection no byte, partial download, snapshot directory or mount.
fn nothing_left(engine: &Engine) -> Result<()> {
    let images = engine.ok(["--format", "json", "images", "ls"])?;
    ensure!(!images.contains("127.0.0.1"), "an image is left: {images}");
    engine.ok(["gc"])?;
    for place in ["blobs/sha256", "ingests", "snapshots", "trash"] {
        let left = engine.inside_root(place);
        ensure!(left.is_empty(), "{place} holds {left:?}");
    }
    ensure!(Engine::mounts_below(engine.root()).is_empty(), "mounts are left");
    Ok(())
}

fn small() -> Result<Image> {
    fixtures::crowd(2, 20, 2000).0.build()
}

#[test]
fn a_missing_tag_and_a_missing_repository_name_the_reference() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    registry.push(&small()?, "here", "1")?;
    for name in ["here:2", "elsewhere:1"] {
        let reference = registry.reference(name);
        refused(&engine.run(["pull", &reference])?, 1, &[&reference, "not found"])?;
        refused(&engine.run(["run", "--rm", &reference, "true"])?, 125, &[&reference, "not found"])?;
    }
    nothing_left(&engine)
}

#[test]
fn a_refused_login_says_whose_and_how_to_log_in() -> Result<()> {
    let registry = Registry::start_with_login("ada", "lovelace")?;
    let engine = Engine::new()?;
    let reference = registry.push(&small()?, "private", "1")?;
    refused(&engine.run(["pull", &reference])?, 1, &[registry.address(), "login"])?;
    let docker = engine.scratch().join("docker");
    fs::create_dir_all(&docker)?;
    let store = |pair: &str| {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(pair);
        fs::write(
            docker.join("config.json"),
            json!({"auths": {registry.address(): {"auth": auth}}}).to_string(),
        )
    };
    store("ada:wrong")?;
    let wrong = engine.run(["pull", &reference])?;
    refused(&wrong, 1, &[registry.address()])?;
    assert!(
        !wrong.stderr.contains("wrong") || !wrong.stderr.contains("ada:wrong"),
        "a password was shown: {}",
        wrong.stderr
    );
    nothing_left(&engine)?;
    store("ada:lovelace")?;
    engine.ok(["pull", "--quiet", &reference])?;
    Ok(())
}

#[test]
fn bytes_that_are_not_what_was_named_are_never_visible() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = small()?;
    let reference = registry.push(&image, "damaged", "1")?;
    let layer = registry.blob_file(&image.layers[1]);
    let good = fs::read(&layer)?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x40;
    fs::write(&layer, &bad)?;
    refused(&engine.run(["pull", &reference])?, 1, &[&image.layers[1].hex()[..12], "wrong content", "try:"])?;
    nothing_left(&engine)?;
    // The right bytes heal it.
    fs::write(&layer, &good)?;
    engine.ok(["pull", "--quiet", &reference])?;
    Ok(())
}

#[test]
fn an_image_for_other_platforms_only_says_which_ones_it_has() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let other = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let index = tests::index_of(&[("linux", "s390x", &other)]);
    let reference = registry.push(&index, "other", "1")?;
    let host = storage_model::Platform::host().architecture;
    refused(&engine.run(["pull", &reference])?, 1, &["s390x", &host])?;
    nothing_left(&engine)?;
    engine.ok(["pull", "--quiet", "--platform", "linux/s390x", &reference])?;
    Ok(())
}

/// An image whose one layer is these bytes, said to be gzip.
fn with_layer_bytes(blob: Vec<u8>) -> Image {
    let config =
        json!({"architecture": storage_model::Platform::host().architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"").to_string()]}})
        .to_string()
        .into_bytes();
    let layer = Descriptor::of(media::OCI_LAYER_GZIP, &blob);
    let config_descriptor = Descriptor::of(media::OCI_CONFIG, &config);
    let document = json!({"schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config_descriptor, "layers": [layer]})
        .to_string()
        .into_bytes();
    Image {
        root: Descriptor::of(media::OCI_MANIFEST, &document),
        manifests: Vec::new(),
        document,
        layers: vec![layer.digest],
        blobs: [(layer.digest, blob), (config_descriptor.digest, config)].into(),
    }
}

#[test]
fn a_corrupt_gzip_a_cut_one_and_something_else_are_refused() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let good = small()?;
    let gzip = good.blobs[&good.layers[0]].clone();
    let mut flipped = gzip.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0xff);
    let cases = [
        ("flipped", flipped),
        ("cut", gzip[..gzip.len() * 2 / 3].to_vec()),
        ("text", b"<html>not found</html>".to_vec()),
    ];
    for (name, blob) in cases {
        let image = with_layer_bytes(blob);
        let reference = registry.push(&image, name, "1")?;
        refused(&engine.run(["pull", &reference])?, 1, &["layer", &image.layers[0].hex()[..12]])
            .context(name)?;
        nothing_left(&engine).context(name)?;
    }
    Ok(())
}

#[test]
fn a_layer_with_another_diff_id_than_the_config_says_is_refused() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let good = small()?;
    let image = with_layer_bytes(good.blobs[&good.layers[0]].clone());
    let reference = registry.push(&image, "lying", "1")?;
    refused(&engine.run(["pull", &reference])?, 1, &["diff"])?;
    nothing_left(&engine)
}

#[test]
fn an_archive_that_climbs_out_touches_nothing_outside() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let outside = engine.scratch().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "untouched")?;
    let up = format!("{}{}", "../".repeat(20), outside.display());
    let absolute = outside.display().to_string();
    let climbs = [
        ("dots", vec![Entry::file(format!("{up}/made"), "x")]),
        ("absolute", vec![Entry::file(format!("{absolute}/made"), "x")]),
        (
            "link",
            vec![
                Entry::new("l", Kind::Symlink(absolute.clone())),
                Entry::file("l/made", "x"),
                Entry::file("l/file", "changed"),
            ],
        ),
        (
            "hardlink",
            vec![Entry::new("h", Kind::Hardlink(format!("{up}/file"))), Entry::file("h", "changed")],
        ),
        ("whiteout", vec![Entry::file(format!("{up}/.wh.file"), "")]),
    ];
    for (name, entries) in climbs {
        let image = ImageBuilder::default().layer(entries, Compression::Gzip).build()?;
        let reference = registry.push(&image, name, "1")?;
        // Refused, or kept inside as a chroot would: both are safe; which one is `storage-layer`'s word.
        let end = engine.run(["pull", "--quiet", &reference])?;
        assert!(matches!(end.code, Some(0 | 1)), "{name}: {}", end.stderr);
        assert_eq!(fs::read_to_string(outside.join("file"))?, "untouched", "{name}");
        assert_eq!(fs::read_dir(&outside)?.count(), 1, "{name} made something outside");
        if end.code == Some(1) {
            assert!(end.stderr.contains("layer"), "{name}: {}", end.stderr);
        }
    }
    Ok(())
}

/// A file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: u32) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("windlass-disk.").tempdir()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(directory.path());
        finish(&mut mount, Duration::from_secs(10))?.success()?;
        Ok(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_and_the_engine_goes_on() -> Result<()> {
    let registry = Registry::start()?;
    let disk = SmallDisk::new(32)?;
    let mut engine = Engine::with_root(&disk.path().join("root"))?;
    engine.start_daemon()?;
    let (large, _) = fixtures::crowd(2, 400, 60_000);
    let reference = registry.push(&large.build()?, "large", "1")?;
    refused(&engine.run(["pull", &reference])?, 1, &["no space left", "root"])?;
    nothing_left(&engine)?;
    let fits = registry.push(&small()?, "small", "1")?;
    engine.ok(["pull", "--quiet", &fits])?;
    drop(engine);
    Ok(())
}

#[test]
fn a_runtime_that_is_not_there_is_named() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let reference = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
    let named = engine.run(["run", "--rm", "--runtime", "/nonexistent/runc", &reference, "true"])?;
    refused(&named, 125, &["/nonexistent/runc"])?;
    let containers = engine.ok(["--format", "json", "containers", "ls"])?;
    assert!(!containers.contains("shell"), "a container is left: {containers}");
    Ok(())
}

/// `command` where no OCI runtime is installed: in a mount namespace of its own, with nothing in their places.
fn without_runtimes(command: &Command) -> Command {
    const HIDE: &str = "for place in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do \
        for name in runc crun; do [ ! -e $place/$name ] || mount --bind /dev/null $place/$name; done; \
        done; exec \"$@\"";
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", HIDE, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => hidden.env(name, value),
            None => hidden.env_remove(name),
        };
    }
    hidden
}

#[test]
fn a_machine_without_a_runtime_uses_the_one_that_is_built_in() -> Result<()> {
    tests::require_root()?;
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let reference = registry.push(&ImageBuilder::default().busybox()?.build()?, "shell", "1")?;
    let command = engine.command(["run", "--rm", &reference, "sh", "-c", "echo here; exit 5"])?;
    let ended = finish(&mut without_runtimes(&command), Duration::from_secs(60))?;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(5), "here\n"), "{}", ended.stderr);
    let containers = engine.ok(["--format", "json", "containers", "ls"])?;
    assert!(!containers.contains("shell"), "a container is left: {containers}");
    Ok(())
}

#[test]
fn somebody_without_rights_is_told_so() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let binary = tempfile::Builder::new().prefix("windlass-bin.").tempdir()?;
    let open = |path: &Path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    open(binary.path())?;
    open(engine.scratch())?;
    let copy = binary.path().join("windlass");
    fs::copy(windlass()?, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
    command.arg("--root").arg(engine.root()).arg("--state").arg(engine.state()).args(["images", "ls"]);
    refused(&finish(&mut command, Duration::from_secs(30))?, 1, &["permission", "root"])
}

#[test]
fn usage_errors_are_told_from_failures_and_an_impossible_reference_from_both() -> Result<()> {
    let engine = Engine::new()?;
    for arguments in
        [&["no-such-verb"][..], &["pull"], &["run", "--no-such-option", "x"], &["pull", "x", "y", "z"]]
    {
        assert_eq!(engine.run(arguments)?.code, Some(2), "{arguments:?}");
    }
    let capital = engine.run(["pull", "Alpine"])?;
    assert!(matches!(capital.code, Some(1 | 2)));
    refused(&capital, capital.code.unwrap_or(0), &["Alpine", "capital"])?;
    Ok(())
}

#[test]
fn a_registry_that_does_not_answer_is_named() -> Result<()> {
    let engine = Engine::new()?;
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let end = engine.run(["pull", &format!("{address}/nobody:1")])?;
    refused(&end, 1, &[&address, "refused"])?;
    nothing_left(&engine)
}

#[test]
fn a_second_daemon_on_one_root_is_refused_and_told_who_holds_it() -> Result<()> {
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let pid = engine.processes().first().copied().context("the daemon runs")?;
    let other = engine.scratch().join("other-state");
    let mut command = Command::new(windlass()?);
    command.arg("--root").arg(engine.root()).arg("--state").arg(&other).arg("daemon");
    let end = finish(&mut command, Duration::from_secs(20))?;
    refused(&end, 1, &[&pid.to_string()])
}
