//! Images made lazy are the images they were, for us and for the tools that their formats belong to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use storage_model::Compression::Gzip;
use tests::{
    Engine, Entry, Image, ImageBuilder, Node, Registry, Stargz, difference, finish, index_of, read_tree,
    require_root,
};

use crate::fixtures;

const DEADLINE: Duration = Duration::from_secs(120);

/// Arguments of `images convert`, and what the tree has besides the image's: landmarks and the table of contents.
const FORMS: [(&str, &[&str]); 4] = [
    ("--estargz", &[".no.prefetch.landmark", "stargz.index.json"]),
    ("--zstd-chunked", &[]),
    ("--zstd-chunked=stargz", &[".no.prefetch.landmark"]),
    ("--soci", &[]),
];

/// An engine with a registry, and an image that was pulled from it.
struct Bench {
    registry: Registry,
    engine: Engine,
    image: String,
}

impl Bench {
    fn new(image: &Image) -> Result<Self> {
        let (registry, engine) = (Registry::start()?, Engine::new()?);
        let image = registry.push(image, "source", "1")?;
        engine.ok(["pull", "--quiet", "--lazy", "never", &image])?;
        Ok(Self { registry, engine, image })
    }

    /// Converts the image, pushes the result, and returns its reference and its digest.
    fn convert(&self, arguments: &[&str], tag: &str) -> Result<(String, String)> {
        let target = self.registry.reference(&format!("converted:{tag}"));
        let command = [&["images", "convert", "--quiet"], arguments, &[&self.image, &target]].concat();
        let digest = self.engine.ok(command)?.trim().to_owned();
        self.engine.ok(["push", "--quiet", &target])?;
        Ok((target, digest))
    }

    fn tree(&self, image: &str) -> Result<BTreeMap<PathBuf, Node>> {
        let target = self.engine.scratch().join("mounted");
        fs::create_dir_all(&target)?;
        let text = target.to_str().context("a temporary path is text")?;
        self.engine.ok(["images", "mount", image, text])?;
        let tree = read_tree(&target);
        self.engine.ok(["images", "unmount", text])?;
        tree
    }

    /// A document of an image in this engine's store, by digest.
    fn document(&self, digest: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.engine.ok(["content", "get", digest])?)?)
    }
}

fn without(mut tree: BTreeMap<PathBuf, Node>, names: &[&str]) -> BTreeMap<PathBuf, Node> {
    tree.retain(|path, _| !names.iter().any(|name| path == Path::new(name)));
    tree
}

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied());
    finish(&mut command, DEADLINE)?.success().with_context(|| format!("{command:?}"))
}

/// A shell, and files to read: several layers, one file of several pieces.
fn shell() -> Result<Image> {
    let files = vec![
        Entry::directory("data/"),
        Entry::file("data/large", fixtures::noise(7, 9 << 20)),
        Entry::file("data/small", "a small file\n").mtime(1_600_000_000, 123_456_789),
        Entry::new("data/link", tests::Kind::Hardlink("data/small".into())),
    ];
    let more = vec![Entry::file("data/.wh.gone", ""), Entry::file("data/later", "of the last layer\n")];
    ImageBuilder::default().busybox()?.layer(files, Gzip).layer(more, Gzip).build()
}

#[test]
fn an_image_in_any_lazy_form_unpacks_to_the_same_tree() -> Result<()> {
    let bench = Bench::new(&fixtures::everything().build()?)?;
    let expected = bench.tree(&bench.image)?;
    for (number, (form, more)) in FORMS.iter().enumerate() {
        let (target, _) = bench.convert(&[form], &number.to_string())?;
        let found = without(bench.tree(&target)?, more);
        assert_eq!(difference(&expected, &found), "", "{form}");
    }
    Ok(())
}

#[test]
fn the_same_image_converted_by_two_engines_is_one_image() -> Result<()> {
    let image = fixtures::everything().build()?;
    let (one, other) = (Bench::new(&image)?, Bench::new(&image)?);
    for (form, _) in FORMS {
        assert_eq!(one.convert(&[form], "1")?.1, other.convert(&[form], "1")?.1, "{form}");
    }
    Ok(())
}

#[test]
fn all_platforms_are_converted_and_attestations_follow_their_images() -> Result<()> {
    let host = storage_model::Platform::host();
    let (here, there) = (fixtures::crowd(1, 3, 100).0.build()?, fixtures::crowd(2, 3, 100).0);
    let there = there.platform("linux", "s390x").build()?;
    let attestation = ImageBuilder::default().layer([Entry::file("statement", "{}")], Gzip);
    let attestation = attestation.platform("unknown", "unknown").build()?;
    let mut index = index_of(&[
        (&host.os, &host.architecture, &here),
        ("linux", "s390x", &there),
        ("unknown", "unknown", &attestation),
    ]);
    let mut document: Value = serde_json::from_slice(&index.document)?;
    document["manifests"][2]["annotations"] = serde_json::json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": here.root.digest.to_string(),
    });
    index.document = serde_json::to_vec(&document)?;
    index.root = storage_model::Descriptor::of(index.root.media_type.clone(), &index.document);
    let (registry, engine) = (Registry::start()?, Engine::new()?);
    let image = registry.push(&index, "index", "1")?;
    engine.ok(["pull", "--quiet", "--lazy", "never", "--all-platforms", &image])?;
    let bench = Bench { registry, engine, image };
    let (_, digest) = bench.convert(&["--estargz", "--all-platforms"], "all")?;
    let converted = bench.document(&digest)?;
    let entries = converted["manifests"].as_array().context("an index")?;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[1]["platform"]["architecture"], "s390x");
    assert_ne!(entries[0]["digest"], here.root.digest.to_string());
    assert_eq!(entries[2]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
    for entry in &entries[..2] {
        let manifest = bench.document(entry["digest"].as_str().context("a digest")?)?;
        let layers = manifest["layers"].as_array().context("layers")?;
        assert!(
            layers
                .iter()
                .all(|layer| layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].is_string())
        );
    }
    Ok(())
}

#[test]
fn an_image_with_a_soci_index_names_it_and_keeps_its_layers() -> Result<()> {
    let bench = Bench::new(&shell()?)?;
    let (_, digest) = bench.convert(&["--soci"], "2")?;
    let index = bench.document(&digest)?;
    let [image, soci] =
        [0, 1].map(|number| index["manifests"][number]["digest"].as_str().unwrap_or_default().to_owned());
    let manifest = bench.document(&image)?;
    assert_eq!(manifest["annotations"]["com.amazon.soci.index-digest"], soci);
    assert_eq!(index["manifests"][1]["annotations"]["com.amazon.soci.image-manifest-digest"], image);
    let tables = bench.document(&soci)?;
    let tables = tables["layers"].as_array().context("zTOCs")?;
    assert_eq!(tables.len(), 3);
    for (table, layer) in tables.iter().zip(manifest["layers"].as_array().context("layers")?) {
        assert_eq!(table["annotations"]["com.amazon.soci.image-layer-digest"], layer["digest"]);
    }
    // Version 1 leaves the manifest alone and says which one it is about.
    let (_, digest) = bench.convert(&["--soci=1"], "1")?;
    let index = bench.document(&digest)?;
    let soci = bench.document(index["manifests"][1]["digest"].as_str().context("a digest")?)?;
    assert_eq!(soci["subject"]["digest"], index["manifests"][0]["digest"]);
    Ok(())
}

/// Kinds and contents of a tree: podman 4.3 makes times, and owners of directories, itself when it pulls in parts.
fn comparable(tree: BTreeMap<PathBuf, Node>) -> BTreeMap<PathBuf, String> {
    tree.into_iter().map(|(path, node)| (path, format!("{:?}", (node.kind, node.content)))).collect()
}

#[test]
fn podman_pulls_our_zstd_chunked_in_parts_and_finds_the_same_tree() -> Result<()> {
    require_root()?;
    let bench = Bench::new(&shell()?)?;
    let (target, _) = bench.convert(&["--zstd-chunked"], "chunked")?;
    let expected = bench.tree(&bench.image)?;
    for partial in ["true", "false"] {
        let storage = bench.engine.scratch().join(format!("podman-{partial}"));
        fs::create_dir_all(&storage)?;
        let settings = storage.join("storage.conf");
        fs::write(
            &settings,
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n\
                 [storage.options]\npull_options = {{enable_partial_images = \"{partial}\"}}\n",
                storage.display()
            ),
        )?;
        let environment = [("CONTAINERS_STORAGE_CONF", settings.to_str().context("text")?)];
        let podman = |arguments: &[&str]| run("podman", arguments, &environment);
        podman(&["pull", "--quiet", "--tls-verify=false", &target])?;
        let mounted = podman(&["image", "mount", &target])?;
        let found = comparable(read_tree(Path::new(mounted.trim()))?);
        podman(&["image", "unmount", "--all"])?;
        assert_eq!(comparable(expected.clone()), found, "enable_partial_images = {partial}");
        let _ = run("umount", &[&format!("{}/root/overlay", storage.display())], &[]);
    }
    Ok(())
}

#[test]
fn stargz_snapshotter_runs_our_images_lazily() -> Result<()> {
    require_root()?;
    let bench = Bench::new(&shell()?)?;
    let list = bench.engine.scratch().join("list");
    fs::write(&list, "bin/busybox\ndata/small\n")?;
    let list = list.to_str().context("text")?;
    let directory = bench.engine.scratch().join("stargz");
    let stargz = Stargz::start(&directory, "")?;
    for (number, form) in ["--estargz", "--zstd-chunked=stargz"].into_iter().enumerate() {
        let (target, _) = bench.convert(&[form, "--prioritize", list], &format!("lazy-{number}"))?;
        stargz.pull(&target)?;
        assert!(stargz.lazy_layers() > 0, "{form}: nothing is mounted lazily");
        let script = "cat /data/small /data/link /data/later && wc -c </data/large && test ! -e /data/gone";
        let id = format!("convert-{}-{number}", std::process::id());
        let mut command = stargz.run(&target, &id, &["/bin/sh", "-c", script]);
        let said = finish(&mut command, DEADLINE)?.success()?;
        assert_eq!(said, "a small file\na small file\nof the last layer\n9437184\n", "{form}");
    }
    Ok(())
}

#[test]
fn what_is_no_list_no_level_or_no_form_is_refused_and_leaves_nothing() -> Result<()> {
    let bench = Bench::new(&fixtures::crowd(1, 3, 100).0.build()?)?;
    let list = bench.engine.scratch().join("list");
    fs::write(&list, "../outside\n")?;
    let list = list.to_str().context("text")?;
    for (arguments, code, word) in [
        (&["--estargz", "--prioritize", list][..], 1, "leads outside"),
        (&["--estargz", "--prioritize", "/does/not/exist"], 1, "No such file"),
        (&["--estargz", "--level", "10"], 1, "0 to 9"),
        (&["--zstd-chunked", "--level", "23"], 1, "1 to 22"),
        (&["--estargz", "--zstd-chunked"], 2, "cannot be used"),
        (&["--estargz", "--compression", "zstd"], 2, "cannot be used"),
        (&["--zstd-chunked=mine"], 2, "mine"),
        (&["--soci=3"], 2, "3"),
        (&["--prioritize", list], 2, "required"),
    ] {
        let command = [&["images", "convert", "--quiet"], arguments, &[&bench.image, "local/new:1"]].concat();
        let refused = bench.engine.run(command)?;
        assert_eq!(refused.code, Some(code), "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(word), "{arguments:?}: {}", refused.stderr);
        assert!(!bench.engine.ok(["images", "ls", "--quiet"])?.contains("local/new"), "{arguments:?}");
    }
    Ok(())
}
