//! The forms in which an image lies in the registry, each made by the tools of those who thought it up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use storage_model::Digest;
use tests::{Containerd, Engine, Registry};

use super::peers::run;

/// How an image's layers are compressed and indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// As the layout has them: gzip.
    Gzip,
    /// The same layers, with SOCI's index beside them (ours: Debian has no `soci`).
    Soci,
    /// eStargz without a recorded workload (`ctr-remote images convert`).
    Estargz,
    /// eStargz whose first files are those the workload reads (`ctr-remote images optimize`).
    EstargzTraced,
    /// zstd:chunked (skopeo, with containers/storage's writer).
    ZstdChunked,
}

impl Form {
    /// The tag of an image in this form.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Gzip => "latest",
            Self::Soci => "soci",
            Self::Estargz => "estargz",
            Self::EstargzTraced => "estargz-traced",
            Self::ZstdChunked => "zstd-chunked",
        }
    }
}

/// Seconds that a workload is watched for the files it reads.
const WATCH_SECONDS: &str = "20";

/// Makes forms and pushes them. What it needs for it is started when it is needed.
pub(crate) struct Maker<'a> {
    data: PathBuf,
    registry: &'a Registry,
    containerd: Option<Containerd>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(data: &Path, registry: &'a Registry) -> Self {
        Self { data: data.join("forms"), registry, containerd: None }
    }

    /// Pushes an image in each of `forms` and in gzip; answers with what was asked for.
    ///
    /// # Errors
    /// A tool is not installed or fails.
    pub(crate) fn make(&mut self, name: &str, layout: &Path, forms: &BTreeSet<Form>) -> Result<Vec<Form>> {
        let target = |form: Form| self.registry.reference(&format!("{name}:{}", form.tag()));
        let (plain, places): (_, Vec<_>) =
            (target(Form::Gzip), forms.iter().map(|&form| (form, target(form))).collect());
        skopeo(layout, &plain, &[])?;
        for (form, target) in places {
            match form {
                Form::Gzip => {}
                Form::Soci => self.soci(&plain, &target)?,
                Form::ZstdChunked => {
                    skopeo(layout, &target, &["--format", "oci", "--dest-compress-format", "zstd:chunked"])?;
                }
                Form::Estargz | Form::EstargzTraced => self.estargz(form, &plain, &target)?,
            }
        }
        Ok(forms.iter().copied().collect())
    }

    fn soci(&self, plain: &str, target: &str) -> Result<()> {
        let mut engine = Engine::with_root(&self.data.join("windlass"))?;
        engine.start_daemon()?;
        engine.ok(["pull", "--quiet", plain])?;
        engine.ok(["images", "convert", "--soci", plain, target])?;
        engine.ok(["push", target])?;
        Ok(())
    }

    fn estargz(&mut self, form: Form, plain: &str, target: &str) -> Result<()> {
        if self.containerd.is_none() {
            std::fs::create_dir_all(&self.data)?;
            self.containerd = Some(Containerd::start(&self.data.join("containerd"))?);
        }
        let containerd = self.containerd.as_ref().context("just started")?;
        containerd.ctr("ctr", &["images", "pull", "--plain-http", plain])?;
        let level = ["--estargz-compression-level", "6", "--oci"];
        let mut arguments = vec!["images"];
        match form {
            Form::EstargzTraced => {
                arguments.extend(["optimize", "--period", WATCH_SECONDS]);
                arguments.extend(["--entrypoint", "[\"/bin/sh\"]", "--args", "[\"/bench/run\"]"]);
            }
            _ => arguments.extend(["convert", "--estargz"]),
        }
        arguments.extend(level);
        arguments.extend([plain, target]);
        containerd.ctr("ctr-remote", &arguments)?;
        containerd.ctr("ctr-remote", &["images", "push", "--plain-http", target])?;
        Ok(())
    }
}

fn skopeo(layout: &Path, target: &str, more: &[&str]) -> Result<()> {
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]).args(more);
    copy.arg(format!("oci:{}:latest", layout.display())).arg(format!("docker://{target}"));
    run(&mut copy).map(|_| ())
}

/// Digests of everything an image in a registry consists of, but its manifests.
///
/// # Errors
/// It is not there, or is no image.
pub(crate) fn blobs(reference: &str) -> Result<BTreeSet<Digest>> {
    let mut inspect = Command::new("skopeo");
    inspect.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
    let document: serde_json::Value = serde_json::from_str(&run(&mut inspect)?)?;
    let digest = |value: &serde_json::Value| -> Result<String> {
        Ok(value["digest"].as_str().context("a descriptor has a digest")?.to_owned())
    };
    let mut found = BTreeSet::new();
    let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
    for child in list("manifests") {
        let (repository, _) = reference.rsplit_once(':').context("a reference has a tag")?;
        let child = digest(&child)?;
        let repository = repository.split('@').next().unwrap_or(repository);
        found.extend(blobs(&format!("{repository}@{child}"))?);
    }
    for blob in list("layers").iter().chain(document.get("config")) {
        found.insert(digest(blob)?.parse()?);
    }
    Ok(found)
}
