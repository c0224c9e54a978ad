//! Import and export: round trips, names, parts.

use std::io::Cursor;

use anyhow::{Context, Result};
use runtime_engine::{EngineError, ExportRequest, ImageError, ImportRequest, PullRequest};
use storage_model::{Compression, Digest};
use tests::{Entry, ImageBuilder, Registry, difference, index_of};

use crate::bench::{Bench, layout_tar};
use crate::fixtures;

#[test]
fn an_exported_image_is_imported_elsewhere_as_the_same_image() -> Result<()> {
    let registry = Registry::start()?;
    let image = registry.push(&fixtures::everything().build()?, "everything", "1")?;
    let here = Bench::new()?;
    here.pull(&image)?;
    let tree = here.tree(&image)?;
    let archive = here.export_one(&image)?;
    assert!(here.export_one(&image)? == archive, "two exports of one image differ");
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &archive)?;
        encoder.finish()?
    };
    let zstd = zstd::encode_all(&archive[..], 1)?;
    for (form, bytes) in [("plain", archive), ("gzip", gzip), ("zstd", zstd)] {
        let there = Bench::new()?;
        let imported = there.import(Cursor::new(bytes), ImportRequest::default())?;
        assert_eq!(imported.images.len(), 1, "{form}");
        assert_eq!(imported.images[0].name, image, "{form}");
        assert_eq!(
            imported.images[0].digest,
            here.engine.resolve_image(&here.namespace(), &image)?.target.digest
        );
        assert!(imported.images[0].chain.is_some(), "{form} was not unpacked");
        assert_eq!(difference(&tree, &there.tree(&image)?), "", "{form}");
        assert_eq!(there.left()?, [""; 0], "{form}");
    }
    Ok(())
}

#[test]
fn several_images_share_one_archive_and_what_they_have_in_common() -> Result<()> {
    let common = || {
        ImageBuilder::default().layer([Entry::file("common", fixtures::noise(1, 100_000))], Compression::Gzip)
    };
    let registry = Registry::start()?;
    let one = registry.push(&common().build()?, "one", "1")?;
    let two =
        registry.push(&common().layer([Entry::file("two", "2")], Compression::Zstd).build()?, "two", "2")?;
    let here = Bench::new()?;
    here.pull(&one)?;
    here.pull(&two)?;
    here.engine.tag(&here.namespace(), &one, &["local/again:1".to_owned()], false)?;
    let names = vec![one.clone(), two.clone(), "local/again:1".to_owned()];
    let archive = here.export(ExportRequest { images: names, ..Default::default() })?;
    assert!(archive.len() < 150_000, "the common layer is in it {} times", archive.len() / 100_000);
    let there = Bench::new()?;
    let imported = there.import(Cursor::new(archive), ImportRequest::default())?;
    let names: Vec<_> = imported.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names.len(), 3);
    assert!(names.contains(&"docker.io/local/again:1") && names.contains(&two.as_str()));
    assert_eq!(there.tree(&two)?.len(), 3);
    assert_eq!(there.left()?, [""; 0]);
    Ok(())
}

#[test]
fn an_archive_may_lack_what_is_here_already() -> Result<()> {
    let image = fixtures::crowd(3, 10, 2000).0.build()?;
    let bench = Bench::new()?;
    bench.import(Cursor::new(layout_tar(&image)?), ImportRequest::default())?;
    let mut without = image.clone();
    without.blobs.remove(&image.layers[1]);
    let imported = bench.import(
        Cursor::new(layout_tar(&without)?),
        ImportRequest { base_name: "local/part".into(), ..Default::default() },
    )?;
    assert_eq!(imported.images[0].name, "docker.io/local/part:latest");
    let elsewhere = Bench::new()?;
    let error = elsewhere.import(Cursor::new(layout_tar(&without)?), ImportRequest::default()).unwrap_err();
    assert!(matches!(error, EngineError::Image(ImageError::Incomplete { .. })), "{error:?}");
    assert!(error.to_string().contains(&image.layers[1].to_string()), "{error}");
    assert_eq!(elsewhere.left_as_it_is()?, [""; 0]);
    Ok(())
}

#[test]
fn an_image_that_is_here_for_one_platform_is_exported_and_imported_as_such() -> Result<()> {
    let registry = Registry::start()?;
    let host = storage_model::Platform::host();
    let foreign = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let ours = fixtures::crowd(2, 3, 100).0.build()?;
    let index = index_of(&[("linux", "s390x", &foreign), (&host.os, &host.architecture, &ours)]);
    let name = registry.push(&index, "index", "1")?;
    let here = Bench::new()?;
    here.pull(&name)?;
    let error = here
        .export(ExportRequest { images: vec![name.clone()], all_platforms: true, ..Default::default() })
        .unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    let there = Bench::new()?;
    let imported = there.import(Cursor::new(here.export_one(&name)?), ImportRequest::default())?;
    assert_eq!(imported.images[0].digest, index.root.digest, "the index is not the same");
    assert_eq!(difference(&here.tree(&name)?, &there.tree(&name)?), "");
    // With both platforms here, both are written, and one can be asked for.
    here.pull_as(PullRequest { reference: name.clone(), all_platforms: true, ..Default::default() })?;
    let archive = here.export(ExportRequest {
        images: vec![name.clone()],
        platforms: vec!["linux/s390x".into()],
        ..Default::default()
    })?;
    let elsewhere = Bench::new()?;
    let imported = elsewhere.import(Cursor::new(archive), ImportRequest::default())?;
    assert_eq!(imported.images[0].chain, None, "an image for another machine was unpacked");
    let files = elsewhere.tree(&name)?.into_values().filter(|node| node.kind == "file").count();
    assert_eq!(files, 3, "asked for, it is unpacked after all");
    Ok(())
}

#[test]
fn an_image_for_another_machine_is_kept_and_not_unpacked() -> Result<()> {
    let bench = Bench::new()?;
    let image = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let imported = bench.import(
        Cursor::new(layout_tar(&image)?),
        ImportRequest { base_name: "local/foreign".into(), ..Default::default() },
    )?;
    assert_eq!((imported.images.len(), imported.images[0].chain), (1, None));
    bench.engine.collect()?;
    assert!(bench.space().blob(&image.layers[0]).is_ok());
    Ok(())
}

#[test]
fn content_alone_is_unpacked_when_somebody_wants_it() -> Result<()> {
    let bench = Bench::new()?;
    let (builder, expected) = fixtures::crowd(2, 10, 2000);
    let request = ImportRequest { no_unpack: true, base_name: "local/later".into(), ..Default::default() };
    let imported = bench.import(Cursor::new(layout_tar(&builder.build()?)?), request)?;
    assert_eq!(imported.images[0].chain, None);
    let name = "local/later:latest";
    bench.unpack(name)?;
    bench.engine.collect()?;
    let tree = bench.tree(name)?;
    for (path, bytes) in &expected {
        let node = tree.get(std::path::Path::new(path)).with_context(|| path.clone())?;
        assert!(node.content.contains(&Digest::of(bytes).hex()), "{path}: {node:?}");
    }
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn an_import_is_named_as_it_was_asked_for() -> Result<()> {
    let bench = Bench::new()?;
    let image = fixtures::crowd(1, 2, 100).0.build()?;
    let archive = layout_tar(&image)?;
    let names = |request: ImportRequest| -> Result<Vec<String>> {
        let imported = bench.import(Cursor::new(archive.clone()), request)?;
        Ok(imported.images.into_iter().map(|image| image.name).collect())
    };
    let digest = image.root.digest;
    let base = || ImportRequest { base_name: "local/app".into(), ..Default::default() };
    assert_eq!(names(base())?, ["docker.io/local/app:latest"]);
    assert_eq!(
        names(ImportRequest { digests: true, ..base() })?,
        ["docker.io/local/app:latest".to_owned(), format!("docker.io/local/app@{digest}")]
    );
    assert_eq!(
        names(ImportRequest { digests: true, skip_digest_for_named: true, ..base() })?,
        ["docker.io/local/app:latest"]
    );
    let with_index = names(ImportRequest { index_name: "local/all:1".into(), ..base() })?;
    assert_eq!(with_index, ["docker.io/local/all:1", "docker.io/local/app:latest"]);
    let dated = names(ImportRequest::default())?;
    assert!(
        dated[0].starts_with("docker.io/library/import-20") && dated[0].ends_with(":latest"),
        "{dated:?}"
    );
    let labelled =
        ImportRequest { labels: [("a".to_owned(), "b".to_owned())].into(), replace: true, ..base() };
    names(labelled)?;
    assert_eq!(bench.space().image("docker.io/local/app:latest")?.labels["a"], "b");
    bench.tree("local/all:1").context("an index of one image is that image")?;
    Ok(())
}
