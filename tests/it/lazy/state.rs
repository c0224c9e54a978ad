//! What a lazily shown image does besides showing its tree: runs, survives, lies, is told of.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use storage_model::Compression::Gzip;
use tests::{Engine, Entry, ImageBuilder, Registry};

use super::{Way, lazily, status};
use crate::fixtures;

/// A shell, and far more that nobody reads.
fn shell_and_ballast() -> Result<ImageBuilder> {
    let lower = [
        Entry::directory("data/"),
        Entry::file("data/kept", "kept\n"),
        Entry::file("data/ballast", fixtures::noise(7, 24 << 20)),
    ];
    let upper = [Entry::file("data/new", "new\n"), Entry::file("data/changed", "changed\n")];
    Ok(ImageBuilder::default().busybox()?.layer(lower, Gzip).layer(upper, Gzip))
}

#[test]
fn a_container_runs_before_its_image_has_arrived_and_writes_over_it() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = registry.push(&lazily(&shell_and_ballast()?, Way::Estargz)?, "shell", "1")?;
    let script = "cat /data/kept /data/new; echo mine > /data/kept; rm /data/new; cat /data/kept; ls /data";
    let said = engine.ok(["run", "--rm", "--lazy", "always", "--no-fill", &image, "sh", "-c", script])?;
    assert_eq!(said, "kept\nnew\nmine\nballast\nchanged\nkept\n");
    let again = engine.ok(["run", "--rm", &image, "cat", "/data/kept"])?;
    assert_eq!(again, "kept\n", "a container changed its image");
    let status = status(&engine, &image)?;
    let present = status["present_bytes"].as_u64().context("a number")?;
    let total = status["total_bytes"].as_u64().context("a number")?;
    assert!(present < total / 2, "{present} of {total} bytes came for some small files");
    assert_eq!(Engine::mounts_below(&engine.state()), Vec::<PathBuf>::new(), "nobody uses the image");
    Ok(())
}

#[test]
fn a_complete_image_starts_without_its_registry_and_an_incomplete_one_serves_what_it_has() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let complete = registry.push(&lazily(&shell_and_ballast()?, Way::Estargz)?, "complete", "1")?;
    let other = shell_and_ballast()?.layer([Entry::file("other", "other\n")], Gzip);
    let partial = registry.push(&lazily(&other, Way::Containers)?, "partial", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "required", &complete])?;
    engine.ok(["lazy", "fill", "--quiet", &complete])?;
    engine.ok(["run", "--rm", "--lazy", "required", "--no-fill", &partial, "cat", "/data/kept"])?;
    drop(registry);
    engine.kill_daemon()?;
    engine.start_daemon()?;
    assert_eq!(
        engine.ok(["run", "--rm", &complete, "sh", "-c", "wc -c < /data/ballast"])?.trim(),
        "25165824"
    );
    assert_eq!(engine.ok(["run", "--rm", &partial, "cat", "/data/kept"])?, "kept\n");
    Ok(())
}

#[test]
fn an_image_without_tables_of_contents_is_refused_where_lazy_is_required() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = registry.push(&shell_and_ballast()?.build()?, "plain", "1")?;
    let refused = engine.run(["pull", "--quiet", "--lazy", "required", &image])?;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot be pulled lazily"), "{}", refused.stderr);
    assert!(engine.ok(["images", "ls", "-q"])?.is_empty());
    // Unasked, it is simply pulled, and told why.
    engine.ok(["pull", "--quiet", &image])?;
    let status = status(&engine, &image)?;
    assert_eq!(status["mode"], "full", "{status}");
    assert!(status["reasons"].to_string().contains("no missing layer says"), "{status}");
    Ok(())
}

#[test]
fn l5_an_image_whose_table_shows_another_tree_than_its_tar_is_found_out_and_not_run_again() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let honest = ImageBuilder::default().busybox()?.layer([Entry::file("etc/policy", "no\n")], Gzip);
    let lying = ImageBuilder::default().busybox()?.layer([Entry::file("etc/policy", "ok\n")], Gzip);
    let (honest, lying) = (lazily(&honest, Way::Containers)?, lazily(&lying, Way::Containers)?);
    // The manifest of one with the diff IDs of the other.
    let text = |image: &tests::Image| String::from_utf8_lossy(&image.document).into_owned();
    let config = |image: &tests::Image| -> Result<(String, String)> {
        let document: serde_json::Value = serde_json::from_str(&text(image))?;
        let digest = document["config"]["digest"].as_str().context("a digest")?.to_owned();
        Ok((digest, document["config"]["size"].to_string()))
    };
    let ((own, own_size), (other, other_size)) = (config(&lying)?, config(&honest)?);
    let document = text(&lying)
        .replace(&own, &other)
        .replace(&format!("\"size\":{own_size}"), &format!("\"size\":{other_size}"));
    let mut blobs = lying.blobs.clone();
    blobs.extend(honest.blobs.clone());
    for (digest, bytes) in &blobs {
        registry.push_blob("lies", digest, bytes)?;
    }
    registry.push_manifest("lies", "1", storage_model::media::OCI_MANIFEST, document.as_bytes())?;
    let image = registry.reference("lies:1");
    engine.ok(["pull", "--quiet", "--lazy", "required", "--no-fill", &image])?;
    let failed = engine.run(["lazy", "fill", "--quiet", &image])?;
    assert_ne!(failed.code, Some(0));
    let refused = engine.run(["run", "--rm", &image, "cat", "/etc/policy"])?;
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
    assert!(refused.stderr.contains("lies about its contents"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_recorded_trace_is_exported_imported_and_pushed() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = registry.push(&lazily(&shell_and_ballast()?, Way::Estargz)?, "traced", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "required", "--no-fill", &image])?;
    assert!(engine.run(["lazy", "trace", "export", &image])?.stderr.contains("no start"));
    engine.ok(["run", "--rm", &image, "cat", "/data/kept"])?;
    let trace = engine.ok(["lazy", "trace", "export", &image])?;
    assert!(trace.contains("bin/busybox") && trace.contains("data/kept"), "{trace}");
    assert!(!trace.contains("ballast"), "{trace}");
    let file = engine.scratch().join("trace.json");
    fs::write(&file, &trace)?;
    let text = file.to_str().context("text")?;
    engine.ok(["lazy", "trace", "import", &image, text])?;
    let digest = engine.ok(["lazy", "trace", "push", &image])?;
    assert!(digest.starts_with("sha256:"), "{digest}");
    assert!(engine.ok(["lazy", "metrics"])?.contains("windlass_lazy_mounts"));
    Ok(())
}
