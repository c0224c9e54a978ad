//! Archives of other programs, and other programs on ours.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::{Containerd, Registry, difference};

use crate::bench::{Bench, run};
use crate::fixtures;

/// The fixture as a layout directory `layout`, and its tree as pulled by us.
fn layout(bench: &Bench) -> Result<(std::collections::BTreeMap<std::path::PathBuf, tests::Node>, String)> {
    let image = fixtures::everything().all_gzip().build()?;
    image.write_layout(&bench.path("layout"))?;
    let registry = Registry::start()?;
    let name = registry.push(&image, "reference", "1")?;
    bench.pull(&name)?;
    Ok((bench.tree(&name)?, name))
}

#[test]
fn archives_of_skopeo_umoci_and_tar_are_the_image_they_were_made_of() -> Result<()> {
    let bench = Bench::new()?;
    let directory = bench.directory.path();
    let (tree, _) = layout(&bench)?;
    let copy = ["copy", "--quiet", "--insecure-policy", "oci:layout:latest"];
    run(directory, "skopeo", &[&copy[..], &["docker-archive:docker.tar:local/docker:1"]].concat())?;
    run(directory, "skopeo", &[&copy[..], &["oci-archive:oci.tar:local/oci:1"]].concat())?;
    run(directory, "skopeo", &[&copy[..], &["docker-archive:nameless.tar"]].concat())?;
    run(directory, "umoci", &["tag", "--image", "layout:latest", "umoci"])?;
    run(&directory.join("layout"), "tar", &["-cf", "../umoci.tar", "."])?;
    let archives = [
        ("docker.tar", "local/docker:1"),
        ("oci.tar", "local/oci:1"),
        ("nameless.tar", ""),
        ("umoci.tar", "umoci"),
    ];
    for (archive, name) in archives {
        let there = Bench::new()?;
        let imported = there.import_file(&directory.join(archive)).context(archive)?;
        let found = imported.images.iter().find(|image| image.name.contains(name)).context(archive)?;
        assert_eq!(difference(&tree, &there.tree(&found.name)?), "", "{archive}");
        assert_eq!(there.left()?, [""; 0], "{archive}");
    }
    Ok(())
}

#[test]
fn what_was_exported_is_read_by_skopeo_umoci_and_containerd() -> Result<()> {
    let bench = Bench::new()?;
    let directory = bench.directory.path();
    let (_, name) = layout(&bench)?;
    bench.engine.tag(&bench.namespace(), &name, &["docker.io/local/app:1".to_owned()], false)?;
    let digest = bench.engine.resolve_image(&bench.namespace(), &name)?.target.digest;
    fs::write(bench.path("ours.tar"), bench.export_one("local/app:1")?)?;
    let copy =
        |from: &str, to: &str| run(directory, "skopeo", &["copy", "--quiet", "--insecure-policy", from, to]);
    copy("oci-archive:ours.tar:1", "oci:skopeo:again")?;
    let inspected = run(directory, "skopeo", &["inspect", "oci:skopeo:again"])?;
    assert!(inspected.contains(&digest.to_string()), "{inspected}");
    copy("docker-archive:ours.tar:local/app:1", "oci:docker:again")?;
    fs::create_dir(bench.path("extracted"))?;
    run(&bench.path("extracted"), "tar", &["-xf", "../ours.tar"])?;
    run(directory, "umoci", &["unpack", "--image", "extracted:1", "bundle"])?;
    let containerd = Containerd::start(&bench.path("containerd"))?;
    let archive = bench.path("ours.tar");
    containerd.ctr("ctr", &["images", "import", archive.to_str().context("text")?])?;
    let listed = containerd.ctr("ctr", &["images", "ls"])?;
    ensure!(listed.contains("docker.io/local/app:1") && listed.contains(&digest.to_string()), "{listed}");
    Ok(())
}

#[test]
fn containerds_own_export_is_imported_as_what_it_has() -> Result<()> {
    let bench = Bench::new()?;
    let (tree, name) = layout(&bench)?;
    let containerd = Containerd::start(&bench.path("containerd"))?;
    fs::write(bench.path("ours.tar"), bench.export_one(&name)?)?;
    let path = |name: &str| bench.path(name).to_string_lossy().into_owned();
    containerd.ctr("ctr", &["images", "import", &path("ours.tar")])?;
    containerd.ctr("ctr", &["images", "export", &path("theirs.tar"), &name])?;
    let there = Bench::new()?;
    let imported = there.import_file(Path::new(&path("theirs.tar")))?;
    assert_eq!(imported.images[0].name, name);
    assert_eq!(difference(&tree, &there.tree(&name)?), "");
    Ok(())
}

#[test]
fn a_docker_archive_is_the_same_image_here_and_in_containerd() -> Result<()> {
    let bench = Bench::new()?;
    let directory = bench.directory.path();
    layout(&bench)?;
    run(
        directory,
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--insecure-policy",
            "oci:layout:latest",
            "docker-archive:docker.tar:local/docker:1",
        ],
    )?;
    let imported = bench.import_file(&directory.join("docker.tar"))?;
    let containerd = Containerd::start(&bench.path("containerd"))?;
    containerd.ctr("ctr", &["images", "import", &bench.path("docker.tar").to_string_lossy()])?;
    let listed = containerd.ctr("ctr", &["images", "ls"])?;
    assert!(listed.contains(&imported.images[0].digest.to_string()), "{:?}\n{listed}", imported.images);
    Ok(())
}
