//! Commands on images: lists in every format, names, labels, trees, compression, archives, registries.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Engine, Finished, Image, Registry, difference, finish, index_of, read_tree, signal, wait_until};

use crate::{fixtures, json};

/// The one JSON document that a command prints.
fn document(engine: &Engine, arguments: &[&str]) -> Result<Value> {
    let text = engine.ok([&["--format", "json"], arguments].concat())?;
    json::values(&text).into_iter().next().with_context(|| format!("no JSON: {text:?}"))
}

fn small() -> Result<Image> {
    fixtures::crowd(2, 10, 2000).0.build()
}

/// An image for this machine and two others, and the parts of it.
fn three_platforms() -> Result<(Image, Image)> {
    let host = storage_model::Platform::host();
    let here = small()?;
    let other = |architecture: &str| fixtures::crowd(1, 3, 100).0.platform("linux", architecture).build();
    let (riscv, power) = (other("riscv64")?, other("ppc64le")?);
    let all =
        [(&*host.os, &*host.architecture, &here), ("linux", "riscv64", &riscv), ("linux", "ppc64le", &power)];
    Ok((index_of(&all), here))
}

/// The command failed with this code, said this, and printed nothing else.
fn failed(end: &Finished, code: i32, word: &str) -> Result<()> {
    ensure!(end.code == Some(code) && end.stdout.is_empty(), "{end:?}");
    ensure!(end.stderr.contains(word), "the message does not say {word:?}: {}", end.stderr);
    Ok(())
}

#[test]
fn a_list_is_a_table_names_json_or_what_a_template_says() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let (index, here) = three_platforms()?;
    let name = registry.push(&index, "many", "1")?;
    engine.ok(["pull", "--quiet", "--label", "team=a", &name])?;
    let table = engine.ok(["images", "ls"])?;
    assert!(table.starts_with("REF ") && table.contains(" +2 "), "{table}");
    assert_eq!(engine.ok(["images", "ls", "-q"])?.trim(), name);
    let row = document(&engine, &["images", "ls"])?[0].clone();
    let host = storage_model::Platform::host().to_string();
    assert_eq!(
        (&row["platforms"][0], row["platforms"].as_array().map(Vec::len)),
        (&Value::from(host), Some(1))
    );
    assert_eq!(row["absent_platforms"].as_array().map(Vec::len), Some(2));
    let bytes: u64 = here.blobs.values().map(|blob| blob.len() as u64).sum();
    assert_eq!(row["size_bytes"], bytes + here.document.len() as u64 + index.document.len() as u64);
    let line = engine.ok([
        "images",
        "ls",
        "--format",
        "{{.Name}} {{.SizeBytes}} {{.Labels.team}} {{json .Name}}",
    ])?;
    assert_eq!(line, format!("{name} {} a \"{name}\"\n", row["size_bytes"]));
    assert_eq!(engine.ok(["images", "ls", "-q", "labels.team==b"])?, "");
    assert_eq!(engine.ok(["images", "ls", "-q", "name==x", "labels.team==a"])?.trim(), name);
    failed(&engine.run(["images", "ls", "--format", "{{.Nmae}}"])?, 2, ".SizeBytes")?;
    failed(&engine.run(["images", "ls", "--format", "{{range .}}"])?, 2, "json")?;
    Ok(())
}

#[test]
fn every_list_takes_every_format_and_tells_its_fields_in_its_help() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let name = registry.push(&small()?, "listed", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    engine.ok(["leases", "create", "--id", "l"])?;
    for list in [
        &["images", "ls"][..],
        &["images", "check"],
        &["images", "usage", &name],
        &["content", "ls"],
        &["content", "active"],
        &["snapshots", "ls"],
        &["snapshots", "usage"],
        &["leases", "ls"],
        &["leases", "resources", "l"],
        &["namespaces", "ls"],
        &["containers", "ls"],
        &["tasks", "ls"],
        &["plugins", "ls"],
        &["usage"],
    ] {
        let words: Vec<&str> = list.to_vec();
        let help = engine.ok([&words[..], &["--help"]].concat())?;
        let (_, fields) =
            help.split_once("--format '{{.Field}}':").with_context(|| format!("{list:?}: {help}"))?;
        let fields: Vec<&str> = fields.split_whitespace().filter(|word| word.starts_with('.')).collect();
        ensure!(fields.len() > 1, "{list:?}: {help}");
        let rows = document(&engine, list)?.as_array().cloned().with_context(|| format!("{list:?}"))?;
        let template: String = fields.iter().map(|field| format!("<{{{{{field}}}}}>")).collect();
        let lines = engine.ok([&words[..], &["--format", &template]].concat())?;
        assert_eq!(lines.lines().count(), rows.len(), "{list:?}");
        if !["usage", "resources"].contains(&list[1.min(list.len() - 1)]) || list[0] == "usage" {
            assert_eq!(engine.ok([&words[..], &["-q"]].concat())?.lines().count(), rows.len(), "{list:?}");
        }
    }
    Ok(())
}

#[test]
fn images_are_found_by_short_names_digests_and_their_beginnings() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = small()?;
    let name = registry.push(&image, "found", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    engine.ok(["images", "tag", &name, "alpine", "ghcr.io/a/b:2"])?;
    let digest = image.root.digest.to_string();
    for typed in [
        "alpine",
        "alpine:latest",
        "docker.io/library/alpine:latest",
        "ghcr.io/a/b:2",
        &digest,
        &digest[7..14],
    ] {
        let found = document(&engine, &["images", "inspect", typed])?;
        assert_eq!(found["target"]["digest"], digest, "{typed}");
    }
    failed(&engine.run(["images", "inspect", "nothing"])?, 1, "windlass images ls")?;
    // A name that stands for something else is not taken over unless that is said.
    let other = registry.push(&fixtures::crowd(1, 3, 100).0.build()?, "other", "1")?;
    engine.ok(["pull", "--quiet", &other])?;
    failed(&engine.run(["images", "tag", &other, "alpine"])?, 1, "alpine")?;
    assert_eq!(document(&engine, &["images", "inspect", "alpine"])?["target"]["digest"], digest);
    engine.ok(["images", "tag", "--force", &other, "alpine"])?;
    assert_ne!(document(&engine, &["images", "inspect", "alpine"])?["target"]["digest"], digest);
    Ok(())
}

#[test]
fn labels_are_set_shown_and_taken_away() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let name = registry.push(&small()?, "labelled", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    assert_eq!(engine.ok(["images", "label", &name, "b=2", "a", "c=3"])?, "a=true,b=2,c=3\n");
    assert_eq!(engine.ok(["images", "label", &name, "b="])?, "a=true,c=3\n");
    assert_eq!(engine.ok(["images", "label", &name])?, "a=true,c=3\n");
    assert_eq!(engine.ok(["images", "label", "--replace-all", &name, "d=4"])?, "d=4\n");
    Ok(())
}

#[test]
fn inspect_shows_the_whole_tree_and_what_of_it_is_not_here() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let (index, here) = three_platforms()?;
    let name = registry.push(&index, "tree", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let text = engine.ok(["images", "inspect", &name])?;
    for layer in &here.layers {
        assert!(text.contains(&layer.to_string()), "{text}");
    }
    let absent: Vec<&str> = text.lines().filter(|line| line.ends_with("(not here)")).collect();
    assert_eq!(absent.len(), 2, "{text}");
    assert!(absent[0].contains("manifest  linux/riscv64"), "{text}");
    assert!(engine.ok(["images", "inspect", "--content", &name])?.contains("schemaVersion"));
    assert_eq!(
        engine.ok(["images", "inspect", "--format", "{{.Target.Digest}}", &name])?.trim(),
        index.root.digest.to_string()
    );
    let checked = document(&engine, &["images", "check"])?[0].clone();
    assert_eq!((&checked["status"], &checked["unpacked"]), (&Value::from("complete"), &Value::from(true)));
    Ok(())
}

#[test]
fn images_that_no_container_uses_are_pruned_and_pinned_ones_stay() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let name = registry.push(&small()?, "pruned", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    engine.ok(["images", "tag", &name, "pinned:1", "loose:1"])?;
    engine.ok(["images", "label", "pinned:1", "windlass.io/pinned=true"])?;
    assert_eq!(engine.run(["images", "prune"])?.code, Some(2));
    assert_eq!(engine.ok(["images", "prune", "--older-than", "1h"])?, "");
    assert!(
        engine
            .ok(["images", "prune", "--all", "--dry-run"])?
            .contains("would remove docker.io/library/loose:1")
    );
    assert_eq!(engine.ok(["images", "prune", "--all"])?.lines().count(), 2);
    assert_eq!(engine.ok(["images", "ls", "-q"])?, "docker.io/library/pinned:1\n");
    engine.ok(["images", "rm", "--sync", "pinned:1"])?;
    assert_eq!(engine.inside_root("blobs/sha256"), Vec::<String>::new());
    failed(&engine.run(["images", "rm", "pinned:1"])?, 1, "pinned:1")?;
    assert_eq!(engine.ok(["images", "rm", "--force", "pinned:1"])?, "");
    Ok(())
}

#[test]
fn a_pushed_image_is_the_one_that_was_pulled() -> Result<()> {
    let (from, to) = (Registry::start()?, Registry::start_with_login("ada", "lovelace")?);
    let engine = Engine::new()?;
    let image = small()?;
    let name = from.push(&image, "source", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let target = to.reference("sink/here:2");
    failed(&engine.run(["push", &target, &name])?, 1, to.address())?;
    let pushed = engine.ok(["push", "--quiet", "--creds", "ada:lovelace", &target, &name])?;
    assert_eq!(pushed.trim(), format!("{target}@{}", image.root.digest));
    let end = engine.run(["push", "--creds", "ada:lovelace", &target, &name])?;
    assert!(end.code == Some(0) && end.stderr.contains("there already"), "{end:?}");
    let copied = engine.scratch().join("copied");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--src-tls-verify=false", "--src-creds", "ada:lovelace", "--all"]);
    skopeo.arg(format!("docker://{target}")).arg(format!("dir:{}", copied.display()));
    finish(&mut skopeo, Duration::from_secs(60))?.success()?;
    assert_eq!(fs::read(copied.join("manifest.json"))?, image.document);
    for (digest, bytes) in &image.blobs {
        assert_eq!(&fs::read(copied.join(digest.hex()))?, bytes);
    }
    failed(&engine.run(["push", &to.reference("sink/none:1")])?, 1, "sink/none:1")
}

#[test]
fn an_archive_is_written_to_a_pipe_and_read_from_one() -> Result<()> {
    let registry = Registry::start()?;
    let (engine, other) = (Engine::new()?, Engine::new()?);
    let image = fixtures::everything().build()?;
    let name = registry.push(&image, "archived", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let mut export = engine.command(["images", "export", "-", &name])?;
    let mut exporting = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pipe = exporting.stdout.take().context("just piped")?;
    let mut import = other.command(["images", "import", "--quiet", "-"])?;
    let imported = finish(import.stdin(pipe), Duration::from_secs(60))?.success()?;
    ensure!(exporting.wait()?.success(), "the export failed");
    assert_eq!(imported.trim(), format!("{name}@{}", image.root.digest));
    let mut trees = Vec::new();
    for engine in [&engine, &other] {
        let target = engine.scratch().join("mounted");
        fs::create_dir(&target)?;
        engine.ok(["images", "mount", &name, target.to_str().context("text")?])?;
        trees.push(read_tree(&target)?);
        engine.ok(["images", "unmount", target.to_str().context("text")?])?;
    }
    let difference = difference(&trees[0], &trees[1]);
    assert!(difference.is_empty(), "{difference}");
    Ok(())
}

#[test]
fn an_archive_of_dockers_is_read_and_ours_is_read_by_skopeo() -> Result<()> {
    let engine = Engine::new()?;
    let image = fixtures::everything().all_gzip().build()?;
    let scratch = engine.scratch().to_owned();
    image.write_layout(&scratch.join("layout"))?;
    let skopeo = |from: &str, to: &str| {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", from, to]).current_dir(&scratch);
        finish(&mut skopeo, Duration::from_secs(60))?.success()
    };
    skopeo("oci:layout:latest", "docker-archive:docker.tar:example.org/saved:3")?;
    let archive = scratch.join("docker.tar");
    let imported = engine.ok(["images", "import", archive.to_str().context("text")?])?;
    assert!(imported.starts_with("example.org/saved:3@sha256:"), "{imported}");
    let ours = scratch.join("ours.tar");
    engine.ok(["images", "export", ours.to_str().context("text")?, "example.org/saved:3"])?;
    skopeo("oci-archive:ours.tar", "dir:back")?;
    skopeo("docker-archive:ours.tar", "dir:back-docker")?;
    // A cut archive brings nothing in, and says so.
    let bytes = fs::read(&archive)?;
    fs::write(&archive, &bytes[..bytes.len() / 2])?;
    let fresh = Engine::new()?;
    let end = fresh.run(["images", "import", archive.to_str().context("text")?])?;
    failed(&end, 1, "import")?;
    assert_eq!(fresh.ok(["images", "ls", "-q"])?, "");
    Ok(())
}

#[test]
fn an_archive_is_no_thing_for_a_terminal() -> Result<()> {
    let engine = Engine::new()?;
    // `script` gives its command a terminal.
    let on_terminal = |arguments: &[&str]| {
        let command = engine.command(arguments)?;
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        finish(script.stdin(Stdio::null()), Duration::from_secs(60))
    };
    for (arguments, code) in [(&["images", "export", "-", "x"][..], 2), (&["images", "import", "-"], 2)] {
        let end = on_terminal(arguments)?;
        ensure!(end.code == Some(code) && end.stdout.contains("terminal"), "{arguments:?}: {end:?}");
    }
    Ok(())
}

#[test]
fn a_converted_image_has_the_same_tree_and_another_digest() -> Result<()> {
    let registry = Registry::start()?;
    let engine = Engine::new()?;
    let image = fixtures::everything().all_gzip().build()?;
    let name = registry.push(&image, "converted", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let zstd = engine.ok(["images", "convert", "--compression", "zstd", "--oci", &name, "conv:zstd"])?;
    assert!(zstd.starts_with("sha256:") && zstd.trim() != image.root.digest.to_string(), "{zstd}");
    let plain = engine.ok(["images", "convert", "--uncompress", "-q", "conv:zstd", "conv:plain"])?;
    let types = |name: &str| {
        let found = document(&engine, &["images", "inspect", name])?;
        let layers = found["layers"].as_array().cloned().context("layers")?;
        Ok::<_, anyhow::Error>(layers.iter().map(|layer| layer["mediaType"].to_string()).collect::<Vec<_>>())
    };
    assert!(types("conv:zstd")?.iter().all(|kind| kind.contains("zstd")));
    assert!(types("conv:plain")?.iter().all(|kind| kind.ends_with(".tar\"")), "{plain}");
    // The same again is the same image: conversion is deterministic.
    assert_eq!(
        engine.ok(["images", "convert", "--compression", "zstd", "--oci", "-q", &name, "conv:again"])?,
        zstd
    );
    let tree = |name: &str, place: &str| {
        let target = engine.scratch().join(place);
        fs::create_dir(&target)?;
        engine.ok(["images", "mount", name, target.to_str().context("text")?])?;
        read_tree(&target)
    };
    let difference = difference(&tree(&name, "before")?, &tree("conv:plain", "after")?);
    assert!(difference.is_empty(), "{difference}");
    Ok(())
}

#[test]
fn ctrl_c_leaves_nothing_of_a_transfer() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let name = registry.push(&fixtures::crowd(3, 400, 60_000).0.build()?, "large", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let before = engine.inside_root("blobs/sha256");
    let output = engine.scratch().join("out.tar");
    let output = output.to_str().context("text")?;
    for arguments in [
        &["images", "convert", "--compression", "zstd", "--level", "19", &name, "conv:1"][..],
        &["images", "export", output, &name],
    ] {
        let mut child = engine.command(arguments)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // At work when something half-made lies in the store or beside us; done already, and then nothing is interrupted.
        let files = || fs::read_dir(engine.scratch()).into_iter().flatten().count();
        let idle = files();
        wait_until("it is at work", Duration::from_secs(30), || {
            !engine.inside_root("ingests").is_empty()
                || files() != idle
                || !matches!(child.try_wait(), Ok(None))
        })?;
        if child.try_wait()?.is_none() {
            signal(&child, "INT")?;
        }
        let status = child.wait()?;
        if status.success() {
            continue;
        }
        assert_eq!(status.code(), Some(130), "{arguments:?}");
        wait_until("the engine has cleaned up", Duration::from_secs(30), || {
            let is_clean =
                engine.inside_root("blobs/sha256") == before && engine.inside_root("ingests").is_empty();
            engine.ok(["gc"]).is_ok() && is_clean
        })?;
        assert_eq!(engine.ok(["images", "ls", "-q"])?.trim(), name);
        let left: Vec<_> = fs::read_dir(engine.scratch())?.flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|file| file.to_string_lossy().contains("out.tar")), "{left:?}");
    }
    Ok(())
}

#[test]
fn what_is_served_is_read_by_skopeo() -> Result<()> {
    let registry = Registry::start()?;
    let mut engine = Engine::new()?;
    engine.start_daemon()?;
    let image = small()?;
    let name = registry.push(&image, "served", "1")?;
    engine.ok(["pull", "--quiet", &name])?;
    let log = engine.scratch().join("serve.log");
    let mut command = engine.command(["serve", "--listen", "127.0.0.1:0"])?;
    let mut server = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn()?;
    let mut address = None;
    wait_until("the server listens", Duration::from_secs(20), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        address = text.split_once("http://").map(|(_, rest)| rest.trim().to_owned());
        address.is_some()
    })?;
    let address = address.context("just found")?;
    let copied = engine.scratch().join("copied");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--src-tls-verify=false", &format!("docker://{address}/served:1")]);
    skopeo.arg(format!("dir:{}", copied.display()));
    let end = finish(&mut skopeo, Duration::from_secs(60));
    signal(&server, "TERM")?;
    let status = server.wait()?;
    end?.success()?;
    assert!(status.success(), "{}", fs::read_to_string(&log)?);
    assert_eq!(fs::read(copied.join("manifest.json"))?, image.document);
    Ok(())
}
