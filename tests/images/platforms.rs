//! Pulls of several platforms, of content alone, with labels.

use anyhow::Result;
use runtime_engine::{EngineError, MountRequest, PullRequest};
use tests::{Registry, index_of};

use crate::bench::Bench;
use crate::fixtures;

/// A registry with an index `index:1` of three platforms, the second this machine's, and files `<number of image>` each.
fn registry() -> Result<(Registry, String, Vec<tests::Image>)> {
    let registry = Registry::start()?;
    let host = storage_model::Platform::host();
    let image = |files: usize, os: &str, architecture: &str| {
        fixtures::crowd(1, files, 50).0.platform(os, architecture).build()
    };
    let images = vec![
        image(1, "linux", "s390x")?,
        image(2, &host.os, &host.architecture)?,
        image(3, "linux", "riscv64")?,
    ];
    let index = index_of(&[
        ("linux", "s390x", &images[0]),
        (&host.os, &host.architecture, &images[1]),
        ("linux", "riscv64", &images[2]),
    ]);
    let name = registry.push(&index, "index", "1")?;
    Ok((registry, name, images))
}

fn here(bench: &Bench, images: &[tests::Image]) -> Vec<bool> {
    images.iter().map(|image| bench.space().blob(&image.layers[0]).is_ok()).collect()
}

fn request(name: &str) -> PullRequest {
    PullRequest { reference: name.to_owned(), ..Default::default() }
}

#[test]
fn a_pull_brings_the_platforms_that_were_asked_for_and_unpacks_them() -> Result<()> {
    let (_registry, name, images) = registry()?;
    let bench = Bench::new()?;
    bench.pull(&name)?;
    assert_eq!(here(&bench, &images), [false, true, false]);
    let platforms = vec!["linux/s390x".to_owned(), "linux/riscv64".to_owned()];
    bench.pull_as(PullRequest { platforms, ..request(&name) })?;
    assert_eq!(here(&bench, &images), [true, true, true]);
    for (platform, files) in [("linux/s390x", 1), ("", 2), ("linux/riscv64", 3)] {
        let mount = MountRequest { image: name.clone(), platform: platform.to_owned(), ..Default::default() };
        let tree = bench.tree_with(mount)?;
        let count = tree.values().filter(|node| node.kind == "file").count();
        assert_eq!(count, files, "{platform}");
    }
    bench.engine.collect()?;
    assert_eq!(here(&bench, &images), [true, true, true], "an index keeps all its images");
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn all_platforms_are_fetched_and_only_this_machines_is_unpacked() -> Result<()> {
    let (_registry, name, images) = registry()?;
    let bench = Bench::new()?;
    let pulled = bench.pull_as(PullRequest { all_platforms: true, ..request(&name) })?;
    assert_eq!(here(&bench, &images), [true, true, true]);
    assert_eq!(pulled.chain, bench.engine.image(&bench.namespace(), &name)?.chain);
    let mut snapshots = 0;
    bench.engine.snapshotter("", bench.space())?.walk(&mut |_| {
        snapshots += 1;
        std::ops::ControlFlow::Continue(())
    })?;
    assert_eq!(snapshots, 1);
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn content_alone_is_unpacked_when_it_is_mounted() -> Result<()> {
    let (registry, name, images) = registry()?;
    let bench = Bench::new()?;
    let labels = [("team".to_owned(), "a".to_owned())].into();
    let pulled = bench.pull_as(PullRequest { no_unpack: true, labels, ..request(&name) })?;
    assert_eq!(pulled.chain, None);
    assert_eq!(bench.space().image(&name)?.labels["team"], "a");
    let source = format!("containerd.io/distribution.source.{}", registry.address());
    for digest in [images[1].layers[0], images[1].root.digest, pulled.digest] {
        assert_eq!(bench.space().blob(&digest)?.labels[&source], "index");
    }
    drop(registry);
    assert!(bench.tree(&name)?.values().any(|node| node.kind == "file"));
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn a_platform_that_is_not_here_is_named_with_what_to_do() -> Result<()> {
    let (_registry, name, _) = registry()?;
    let bench = Bench::new()?;
    bench.pull(&name)?;
    let mount = MountRequest { image: name.clone(), platform: "linux/s390x".into(), ..Default::default() };
    let error = bench.tree_with(mount).unwrap_err();
    assert!(error.to_string().contains("pull the image again"), "{error}");
    let error = bench.pull_as(PullRequest { platform: "linux/mips".into(), ..request(&name) }).unwrap_err();
    assert!(matches!(error, EngineError::NoPlatform { .. }), "{error:?}");
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
    Ok(())
}

#[test]
fn a_writable_mount_is_a_copy_that_goes_with_it() -> Result<()> {
    let (_registry, name, _) = registry()?;
    let bench = Bench::new()?;
    bench.pull(&name)?;
    let before = bench.tree(&name)?;
    let target = bench.path("writable");
    std::fs::create_dir(&target)?;
    let request =
        MountRequest { image: name.clone(), target: target.clone(), writable: true, ..Default::default() };
    let mounted = bench.runtime.block_on(bench.engine.mount_image(&bench.namespace(), request))?;
    std::fs::write(target.join("new"), "new")?;
    bench.engine.collect()?;
    assert_eq!(std::fs::read_to_string(target.join("new"))?, "new");
    assert_eq!(mounted.target, target.canonicalize()?);
    bench.engine.unmount_image(&bench.namespace(), &target)?;
    assert_eq!(tests::difference(&before, &bench.tree(&name)?), "");
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}
