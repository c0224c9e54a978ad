//! Whole images of the real world, where some are given.
//!
//! `WINDLASS_LAYOUTS` is a directory of OCI layouts with a tag `latest` and a script `/bench/run` (`bench/images.sh` makes
//! them); without it there is nothing to compare, and CI's small images stand for them in `pull` and `run`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Containerd, Engine, Registry, difference, finish, read_tree};

/// Longest that unpacking a large image may take.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn real_images_unpack_as_by_umoci_and_run_as_under_containerd() -> Result<()> {
    let Some(layouts) = std::env::var_os("WINDLASS_LAYOUTS") else {
        println!("WINDLASS_LAYOUTS names no directory of OCI layouts: nothing was compared");
        return Ok(());
    };
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let directory = tempfile::Builder::new().prefix("windlass-containerd.").tempdir()?;
    let containerd = Containerd::start(directory.path())?;
    let mut compared = 0;
    for entry in fs::read_dir(layouts)? {
        let layout = entry?.path();
        if layout.join("index.json").exists() {
            let name = layout.file_name().context("an entry has a name")?.to_string_lossy().into_owned();
            compare(&layout, &name, &registry, &engine, &containerd).with_context(|| name.clone())?;
            println!("{name}: equal");
            compared += 1;
        }
    }
    ensure!(compared > 0, "the directory holds no layout");
    Ok(())
}

fn compare(
    layout: &Path,
    name: &str,
    registry: &Registry,
    engine: &Engine,
    containerd: &Containerd,
) -> Result<()> {
    let image = registry.reference(&format!("{name}:latest"));
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    copy.arg(format!("oci:{}:latest", layout.display())).arg(format!("docker://{image}"));
    finish(&mut copy, LONG)?.success()?;
    engine.ok(["pull", "--quiet", &image])?;

    let target = engine.scratch().join(name);
    fs::create_dir(&target)?;
    let place = target.to_str().context("a temporary path is text")?;
    engine.ok(["images", "mount", &image, place])?;
    let ours = read_tree(&target)?;
    engine.ok(["images", "unmount", place])?;
    // umoci reads gzip only: of a zstd image the tree was compared under its gzip name.
    if !name.ends_with("-zstd") {
        let bundle = engine.scratch().join(format!("{name}.bundle"));
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--image"]).arg(format!("{}:latest", layout.display())).arg(&bundle);
        finish(&mut unpack, LONG)?.success()?;
        let difference = difference(&read_tree(&bundle.join("rootfs"))?, &ours);
        fs::remove_dir_all(&bundle)?;
        ensure!(difference.is_empty(), "{difference}");
    }
    if ours.contains_key(Path::new("bench/run")) {
        let ran = engine.run(["run", "--rm", &image, "/bin/sh", "/bench/run"])?;
        containerd.ctr("ctr", &["images", "pull", "--plain-http", &image])?;
        let reference =
            containerd.finish("ctr", &["run", "--rm", &image, "compared", "/bin/sh", "/bench/run"])?;
        ensure!(
            (ran.code, &ran.stdout) == (reference.code, &reference.stdout),
            "ours {ran:?}\ntheirs {reference:?}"
        );
    }
    Ok(())
}
