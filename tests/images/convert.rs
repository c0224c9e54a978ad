//! Conversion keeps trees, and is the same wherever it is done.

use std::fs;
use std::io::Cursor;

use anyhow::Result;
use runtime_engine::{ConvertRequest, EngineError, ImportRequest, Transferred};
use storage_model::{Compression, Digest, Document, media};
use tests::{Registry, difference, index_of};

use crate::bench::{Bench, layout_tar, run};
use crate::fixtures;

fn convert(bench: &Bench, request: ConvertRequest) -> Result<Transferred, EngineError> {
    let namespace = bench.namespace();
    bench.transfer(async |events| bench.engine.convert(&namespace, request, events).await).map(|done| done.0)
}

fn to(image: &str, target: &str, compression: Compression) -> ConvertRequest {
    let (image, target) = (image.to_owned(), target.to_owned());
    ConvertRequest { image, target, compression: Some(compression), ..Default::default() }
}

fn layers(bench: &Bench, image: &str) -> Result<Vec<String>> {
    let image = bench.engine.image(&bench.namespace(), image)?;
    Ok(image.manifest.layers.iter().map(|layer| layer.media_type.clone()).collect())
}

#[test]
fn an_image_in_another_compression_has_the_same_tree_and_is_the_same_everywhere() -> Result<()> {
    let registry = Registry::start()?;
    let name = registry.push(&fixtures::everything().build()?, "everything", "1")?;
    let mut digests: Vec<Vec<Digest>> = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new()?;
        bench.pull(&name)?;
        let tree = bench.tree(&name)?;
        let chain = bench.engine.image(&bench.namespace(), &name)?.chain;
        let mut found = Vec::new();
        for (target, compression, media_type) in [
            ("local/zstd:1", Compression::Zstd, media::OCI_LAYER_ZSTD),
            ("local/plain:1", Compression::None, media::OCI_LAYER),
            ("local/gzip:1", Compression::Gzip, media::OCI_LAYER_GZIP),
        ] {
            let converted = convert(&bench, to(&name, target, compression))?;
            assert_eq!(converted.images[0].name, format!("docker.io/{target}"));
            assert!(layers(&bench, target)?.iter().all(|found| found == media_type), "{target}");
            let image = bench.engine.image(&bench.namespace(), target)?;
            assert_eq!(image.chain, chain, "{target}");
            assert_eq!(difference(&tree, &bench.tree(target)?), "", "{target}");
            found.push(converted.images[0].digest);
        }
        // From zstd back to gzip is the gzip of the same tars.
        let again = convert(&bench, to("local/zstd:1", "local/again:1", Compression::Gzip))?;
        assert_eq!(
            bench.engine.image(&bench.namespace(), "local/again:1")?.manifest.layers,
            bench.engine.image(&bench.namespace(), "local/gzip:1")?.manifest.layers,
            "{again:?}"
        );
        digests.push(found);
        bench.engine.collect()?;
        assert_eq!(difference(&tree, &bench.tree("local/zstd:1")?), "");
        assert_eq!(bench.left()?, [""; 0]);
    }
    assert_eq!(digests[0], digests[1], "two engines made different images of one");
    Ok(())
}

#[test]
fn a_converted_image_needs_no_unpacking_where_its_source_is_unpacked() -> Result<()> {
    let registry = Registry::start()?;
    let bench = Bench::new()?;
    let name = registry.push(&fixtures::crowd(3, 5, 1000).0.build()?, "a", "1")?;
    bench.pull(&name)?;
    convert(&bench, to(&name, "local/zstd:1", Compression::Zstd))?;
    bench.space().delete_image(&name)?;
    bench.engine.collect()?;
    let image = bench.engine.image(&bench.namespace(), "local/zstd:1")?;
    let chain = image.chain.expect("it has layers").to_string();
    let snapshotter = bench.engine.snapshotter("", bench.space())?;
    assert!(snapshotter.stat(&chain).is_ok(), "the snapshot went with the other name");
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn docker_types_become_ocis_when_asked_and_other_programs_read_the_result() -> Result<()> {
    let registry = Registry::start()?;
    let bench = Bench::new()?;
    let name = registry.push(&fixtures::everything().all_gzip().docker().build()?, "docker", "1")?;
    bench.pull(&name)?;
    let request =
        ConvertRequest { image: name.clone(), target: "local/oci:1".into(), oci: true, ..Default::default() };
    convert(&bench, request)?;
    let target = bench.space().image("docker.io/local/oci:1")?.target;
    assert_eq!(target.media_type, media::OCI_MANIFEST);
    assert!(layers(&bench, "local/oci:1")?.iter().all(|found| found == media::OCI_LAYER_GZIP));
    assert_eq!(difference(&bench.tree(&name)?, &bench.tree("local/oci:1")?), "");
    convert(&bench, to(&name, "local/zstd:1", Compression::Zstd))?;
    fs::write(bench.path("zstd.tar"), bench.export_one("local/zstd:1")?)?;
    let copy = ["copy", "--quiet", "--insecure-policy", "oci-archive:zstd.tar:1", "oci:copied:1"];
    run(bench.directory.path(), "skopeo", &copy)?;
    Ok(())
}

#[test]
fn an_index_is_converted_for_the_platforms_that_are_here() -> Result<()> {
    let registry = Registry::start()?;
    let host = storage_model::Platform::host();
    let foreign = fixtures::crowd(1, 3, 100).0.platform("linux", "s390x").build()?;
    let ours = fixtures::crowd(2, 3, 100).0.build()?;
    let index = index_of(&[("linux", "s390x", &foreign), (&host.os, &host.architecture, &ours)]);
    let name = registry.push(&index, "index", "1")?;
    let bench = Bench::new()?;
    bench.pull(&name)?;
    convert(&bench, to(&name, "local/zstd:1", Compression::Zstd))?;
    let target = bench.space().image("docker.io/local/zstd:1")?.target;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut bench.space().open_blob(&target.digest)?, &mut bytes)?;
    let Document::Index(written) = Document::parse(&target.media_type, &bytes)? else {
        panic!("it is no index any more")
    };
    assert_eq!(written.manifests.len(), 1);
    assert_eq!(written.manifests[0].platform.as_ref().map(ToString::to_string), Some(host.to_string()));
    let request = ConvertRequest { all_platforms: true, ..to(&name, "local/all:1", Compression::Zstd) };
    let error = convert(&bench, request).unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    Ok(())
}

#[test]
fn a_layer_that_is_not_what_the_config_says_is_not_converted() -> Result<()> {
    let bench = Bench::new()?;
    let mut image = fixtures::crowd(1, 3, 100).0.build()?;
    // Another layer under the same config: whole, but not the one.
    let other = fixtures::crowd(1, 4, 100).0.build()?;
    let (layer, wrong) = (image.layers[0], other.layers[0]);
    let text = String::from_utf8(image.document.clone())?;
    let text = text.replace(&layer.to_string(), &wrong.to_string()).replace(
        &format!("\"size\":{}", image.blobs[&layer].len()),
        &format!("\"size\":{}", other.blobs[&wrong].len()),
    );
    image.document = text.into_bytes();
    image.root = storage_model::Descriptor::of(image.root.media_type.clone(), &image.document);
    image.blobs.insert(wrong, other.blobs[&wrong].clone());
    let request = ImportRequest { no_unpack: true, base_name: "local/wrong".into(), ..Default::default() };
    bench.import(Cursor::new(layout_tar(&image)?), request)?;
    let error = convert(&bench, to("local/wrong:latest", "local/zstd:1", Compression::Zstd)).unwrap_err();
    assert!(matches!(error, EngineError::DiffIdMismatch { .. }), "{error:?}");
    assert!(matches!(bench.unpack("local/wrong:latest"), Err(EngineError::DiffIdMismatch { .. })));
    assert!(bench.space().image("docker.io/local/zstd:1").is_err());
    assert_eq!(bench.left()?, [""; 0]);
    Ok(())
}

#[test]
fn an_unknown_compression_or_level_is_refused_by_name() -> Result<()> {
    assert!(ConvertRequest::compression("lzma").unwrap_err().to_string().contains("lzma"));
    let bench = Bench::new()?;
    let image = fixtures::crowd(1, 3, 100).0.build()?;
    let request = ImportRequest { base_name: "local/app".into(), ..Default::default() };
    bench.import(Cursor::new(layout_tar(&image)?), request)?;
    let request =
        ConvertRequest { level: Some(99), ..to("local/app:latest", "local/x:1", Compression::Zstd) };
    let error = convert(&bench, request).unwrap_err();
    assert_eq!(error.kind(), runtime_engine::ErrorKind::InvalidArgument, "{error:?}");
    Ok(())
}
