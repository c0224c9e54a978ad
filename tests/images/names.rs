//! What people type, and which image it is.

use std::io::Cursor;

use anyhow::Result;
use runtime_engine::{EngineError, ErrorKind, ImageError, ImportRequest};

use crate::bench::{Bench, layout_tar};
use crate::fixtures;

fn with_images(names: &[(&str, usize)]) -> Result<Bench> {
    let bench = Bench::new()?;
    for (name, files) in names {
        let image = fixtures::crowd(1, *files, 10).0.build()?;
        let request = ImportRequest { base_name: (*name).to_owned(), no_unpack: true, ..Default::default() };
        bench.import(Cursor::new(layout_tar(&image)?), request)?;
    }
    Ok(bench)
}

#[test]
fn an_image_is_found_by_name_short_name_and_digests_of_all_it_consists_of() -> Result<()> {
    let bench = with_images(&[("alpine", 1), ("ghcr.io/a/b", 2)])?;
    let whole = "docker.io/library/alpine:latest";
    let image = bench.engine.image(&bench.namespace(), whole)?;
    let (target, config) = (image.record.target.digest, image.manifest.config.digest);
    for text in [
        whole.to_owned(),
        "alpine".to_owned(),
        "alpine:latest".to_owned(),
        "library/alpine".to_owned(),
        target.to_string(),
        target.hex(),
        target.hex()[..7].to_owned(),
        format!("sha256:{}", &target.hex()[..12]),
        config.to_string(),
        config.short(),
    ] {
        assert_eq!(bench.engine.resolve_image(&bench.namespace(), &text)?.name, whole, "{text}");
    }
    for text in ["alpin", "alpine:3", &target.hex()[..6], "b", "", "%", "sha256:", "../../etc"] {
        let error = bench.engine.resolve_image(&bench.namespace(), text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{text}: {error:?}");
    }
    let error = bench.engine.resolve_image(&bench.namespace(), "quay.io/x/b").unwrap_err();
    assert!(error.to_string().contains("do you mean ghcr.io/a/b:latest?"), "{error}");
    Ok(())
}

#[test]
fn digits_that_begin_several_images_are_refused_with_a_list_of_them() -> Result<()> {
    // Two digests with seven equal digits would take 16,384 images; two names of one image take none.
    let bench = with_images(&[("one", 1), ("two", 1), ("three", 2)])?;
    let digest = bench.engine.resolve_image(&bench.namespace(), "one")?.target.digest;
    assert_eq!(
        bench.engine.resolve_image(&bench.namespace(), &digest.short())?.name,
        "docker.io/library/one:latest"
    );
    // An index that lists the manifest of another image shares its digits with it.
    let manifest = bench.engine.resolve_image(&bench.namespace(), "three")?.target;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        format_args!(
            r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
            manifest.media_type, manifest.digest, manifest.size
        )
    );
    let archive = tests::Tar::of([tests::Entry::file("index.json", index)]).finish();
    let request = ImportRequest { index_name: "local/index:1".into(), no_unpack: true, ..Default::default() };
    bench.import(Cursor::new(archive), request)?;
    let error = bench.engine.resolve_image(&bench.namespace(), &manifest.digest.short()).unwrap_err();
    assert!(matches!(error, EngineError::Image(ImageError::Ambiguous { .. })), "{error:?}");
    assert!(error.to_string().contains("local/index:1") && error.to_string().contains("three"), "{error}");
    Ok(())
}

#[test]
fn a_tag_is_given_whole_or_not_at_all_and_moves_only_by_force() -> Result<()> {
    let bench = with_images(&[("one", 1), ("two", 2)])?;
    let namespace = bench.namespace();
    let tag = |names: &[&str], force| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        bench.engine.tag(&namespace, "one", &names, force)
    };
    assert_eq!(tag(&["new", "ghcr.io/a/b:1"], false)?, ["docker.io/library/new:latest", "ghcr.io/a/b:1"]);
    assert!(tag(&["new"], false).is_ok(), "the same again is no conflict");
    let error = tag(&["newer", "two"], false).unwrap_err();
    assert!(matches!(error, EngineError::Image(ImageError::NameTaken { .. })), "{error:?}");
    assert!(bench.space().image("docker.io/library/newer:latest").is_err(), "half of the names were given");
    tag(&["two"], true)?;
    let digest = |name: &str| bench.engine.resolve_image(&namespace, name).map(|image| image.target.digest);
    assert_eq!(digest("one")?, digest("two")?);
    let wrong = format!("local/pinned@{}", storage_model::Digest::of(b"other"));
    assert!(matches!(tag(&[&wrong], true), Err(EngineError::Image(ImageError::PinnedName { .. }))));
    assert!(matches!(tag(&["No Name"], true), Err(EngineError::Reference { .. })));
    Ok(())
}
