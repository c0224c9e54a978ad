//! `images inspect`: an image as a tree for people, as one object for programs.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::args::{Format, InspectArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::image::{self, Details, Image};
use crate::output::{self, amount, command_line, printable};

/// `images inspect`.
///
/// # Errors
/// [`CliError`].
pub(crate) async fn run(client: &Client, args: &InspectArgs, format: Format) -> Result<(), CliError> {
    let image = image::get(client, &args.name).await?;
    let details = Details::read(client, &image).await?;
    match format {
        Format::Table => output::print(&tree(&image, &details, SystemTime::now())),
        Format::Json => output::print(&output::json(&document(&image, &details))?),
    }
}

/// The image as an indented tree.
fn tree(image: &Image, details: &Details, now: SystemTime) -> String {
    let mut lines = vec![printable(&image.name)];
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<11} {}", printable(&value)));
        }
    };
    if let Some(index) = &details.index {
        field("index", format!("{} ({})", index.digest, amount::size(index.size)));
    }
    field("manifest", format!("{} ({})", details.manifest.digest, amount::size(details.manifest.size)));
    field(
        "config",
        format!("{} ({})", details.content.config.digest, amount::size(details.content.config.size)),
    );
    field("platform", details.platform().to_string());
    field("made", details.config.created.clone().unwrap_or_default());
    field("pulled", format!("{} ({})", amount::rfc3339(image.updated), amount::age(now, image.updated)));
    field("size", amount::size(details.size()));
    let process = &details.config.config;
    field("entrypoint", command_line(&process.entrypoint));
    field("command", command_line(&process.cmd));
    field("user", process.user.clone());
    field("directory", process.working_dir.clone());
    field("stop signal", process.stop_signal.clone());
    branch(&mut lines, "environment", process.env.iter().cloned());
    branch(&mut lines, "labels", process.labels.iter().map(|(name, value)| format!("{name}={value}")));
    let layers = details.content.layers.iter().zip(&details.config.rootfs.diff_ids);
    let layers: Vec<String> = layers
        .map(|(layer, diff)| {
            format!(
                "{}  {:>9}  diff {}  {}",
                layer.digest,
                amount::size(layer.size),
                diff.0.short(),
                kind(&layer.media_type)
            )
        })
        .collect();
    branch(&mut lines, "layers", layers.into_iter());
    lines.push(String::new());
    lines.join("\n")
}

/// A heading and what is below it; nothing when nothing is.
fn branch(lines: &mut Vec<String>, heading: &str, below: impl Iterator<Item = String>) {
    let below: Vec<String> = below.map(|line| printable(&line)).collect();
    if below.is_empty() {
        return;
    }
    lines.push(format!("  {heading}"));
    for (at, line) in below.iter().enumerate() {
        let arm = if at + 1 == below.len() { "└─" } else { "├─" };
        lines.push(format!("  {arm} {line}"));
    }
}

/// A layer's media type without what all of them share.
fn kind(media_type: &str) -> &str {
    media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.")
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff."))
        .unwrap_or(media_type)
}

/// The image as JSON.
fn document(image: &Image, details: &Details) -> Value {
    json!({
        "name": image.name,
        "target": image.target,
        "created": amount::rfc3339(image.created),
        "updated": amount::rfc3339(image.updated),
        "labels": image.labels,
        "platform": details.platform().to_string(),
        "size_bytes": details.size(),
        "index": details.index,
        "manifest": details.manifest,
        "config_descriptor": details.content.config,
        "layers": details.content.layers,
        "config": details.config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use storage_model::{Descriptor, Digest, ImageConfig, Manifest, media};

    fn sample() -> (Image, Details) {
        let descriptor = |media_type: &str, bytes: &[u8]| Descriptor::of(media_type, bytes);
        let manifest = descriptor(media::OCI_MANIFEST, b"manifest");
        let diff = Digest::of(b"diff");
        let config = format!(
            r#"{{"created":"2026-01-02T03:04:05Z","architecture":"amd64","os":"linux",
            "config":{{"Entrypoint":["/bin/tini","--"],"Cmd":["sh","-c","echo hi"],"User":"app","WorkingDir":"/srv",
            "Env":["PATH=/bin","EVIL=\u001b[2J"]}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#
        );
        let content = Manifest {
            config: descriptor(media::OCI_CONFIG, config.as_bytes()),
            layers: vec![descriptor(media::OCI_LAYER_GZIP, b"layer")],
            artifact_type: None,
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        let image = Image {
            name: "docker.io/library/a:1".to_owned(),
            target: manifest.clone(),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
            labels: std::collections::BTreeMap::new(),
        };
        let config = ImageConfig::parse(config.as_bytes(), 1).unwrap();
        (image, Details { index: None, manifest, content, config })
    }

    #[test]
    fn the_tree_shows_digests_platform_command_and_layers() {
        let (image, details) = sample();
        let text = tree(&image, &details, SystemTime::UNIX_EPOCH + Duration::from_secs(7200));
        for line in [
            "docker.io/library/a:1".to_owned(),
            format!("  manifest    {} (8 B)", details.manifest.digest),
            "  platform    linux/amd64".to_owned(),
            "  made        2026-01-02T03:04:05Z".to_owned(),
            "  pulled      1970-01-01T00:00:00Z (2h)".to_owned(),
            "  entrypoint  /bin/tini --".to_owned(),
            "  command     sh -c 'echo hi'".to_owned(),
            "  user        app".to_owned(),
            "  ├─ PATH=/bin".to_owned(),
            "  └─ EVIL=\\u{1b}[2J".to_owned(),
            format!(
                "  └─ {}        5 B  diff {}  tar+gzip",
                details.content.layers[0].digest,
                Digest::of(b"diff").short()
            ),
        ] {
            assert!(text.lines().any(|have| have == line), "{line:?} is missing in\n{text}");
        }
        assert!(!text.contains("labels"));
    }

    #[test]
    fn the_document_has_the_config_as_it_stands() {
        let (image, details) = sample();
        let value = document(&image, &details);
        assert_eq!(value["config"]["config"]["Entrypoint"][0], "/bin/tini");
        assert_eq!(value["layers"][0]["mediaType"], media::OCI_LAYER_GZIP);
        assert_eq!(value["platform"], "linux/amd64");
    }
}
