//! `images inspect`: an image as a tree for people, as one object for programs.
//!
//! What would run here comes first, in words; then everything the image is made of, and what of it is not here.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::args::{Format, InspectArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::image::{self, Contents, Details, Image, Kind, Node, Stored};
use crate::output::{self, amount, command_line, printable};

/// `images inspect`.
///
/// # Errors
/// [`CliError`].
pub(super) async fn run(client: &Client, args: &InspectArgs, format: &Format) -> Result<(), CliError> {
    let image = image::get(client, &args.name).await?;
    let contents = Contents::read(&mut Stored::ask(client).await?, &image).await?;
    // An image of which no manifest is here, or an artifact, is shown as what it is: only its tree.
    let details = Details::read(client, &image).await.ok();
    let document = document(&image, details.as_ref(), &contents);
    output::document(format, &document, || {
        let mut text = tree(&image, details.as_ref(), SystemTime::now());
        text.push_str("  content\n");
        draw(&contents.root, "  ", true, args.content, &mut text);
        text
    })
}

/// A node and what is below it, with arms to their left.
fn draw(node: &Node, indent: &str, is_last: bool, with_content: bool, text: &mut String) {
    let arm = if is_last { "└─" } else { "├─" };
    let mut facts = vec![kind_of(node).to_owned()];
    facts
        .extend(node.platform().filter(|_| node.kind == Kind::Manifest).map(|platform| platform.to_string()));
    facts.push(node.descriptor.digest.to_string());
    facts.push(amount::size(node.descriptor.size));
    if !node.is_here {
        facts.push("(not here)".to_owned());
    }
    text.push_str(&printable(&format!("{indent}{arm} {}", facts.join("  "))));
    text.push('\n');
    let below = format!("{indent}{}", if is_last { "   " } else { "│  " });
    if with_content {
        let lines = node.document.as_ref().map(|bytes| pretty(bytes)).unwrap_or_default();
        let bar = if node.children.is_empty() { "   " } else { "│  " };
        lines.lines().for_each(|line| text.push_str(&format!("{below}{bar}{}\n", printable(line))));
    }
    for (at, child) in node.children.iter().enumerate() {
        draw(child, &below, at + 1 == node.children.len(), with_content, text);
    }
}

/// A document with one thing a line; as it is when it is no JSON.
fn pretty(bytes: &[u8]) -> String {
    let parsed = serde_json::from_slice::<Value>(bytes).ok();
    let text = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok());
    text.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
}

/// What a node is, in a word or two.
fn kind_of(node: &Node) -> &str {
    match node.kind {
        Kind::Index => "index",
        Kind::Manifest => "manifest",
        Kind::Config => "config",
        Kind::Layer => kind(&node.descriptor.media_type),
        Kind::Other => &node.descriptor.media_type,
    }
}

/// The image as an indented tree.
fn tree(image: &Image, details: Option<&Details>, now: SystemTime) -> String {
    let mut lines = vec![printable(&image.name)];
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<11} {}", printable(&value)));
        }
    };
    field("digest", image.target.digest.to_string());
    field("pulled", format!("{} ({})", amount::rfc3339(image.updated), amount::age(now, image.updated)));
    if let Some(details) = details {
        field("platform", details.platform().to_string());
        field("made", details.config.created.clone().unwrap_or_default());
        field("size", amount::size(details.size()));
        let process = &details.config.config;
        field("entrypoint", command_line(&process.entrypoint));
        field("command", command_line(&process.cmd));
        field("user", process.user.clone());
        field("directory", process.working_dir.clone());
        field("stop signal", process.stop_signal.clone());
        branch(&mut lines, "environment", process.env.iter().cloned());
        let pairs = process.labels.iter().map(|(name, value)| format!("{name}={value}"));
        branch(&mut lines, "config labels", pairs);
    }
    branch(&mut lines, "labels", image.labels.iter().map(|(name, value)| format!("{name}={value}")));
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
fn document(image: &Image, details: Option<&Details>, contents: &Contents) -> Value {
    let mut document = json!({
        "name": image.name,
        "target": image.target,
        "created": amount::rfc3339(image.created),
        "updated": amount::rfc3339(image.updated),
        "labels": image.labels,
        "size_bytes": contents.size_here(),
        "content": node_document(&contents.root),
    });
    if let (Some(details), Some(fields)) = (details, document.as_object_mut()) {
        fields.extend([
            ("platform".to_owned(), json!(details.platform().to_string())),
            ("index".to_owned(), json!(details.index)),
            ("manifest".to_owned(), json!(details.manifest)),
            ("config_descriptor".to_owned(), json!(details.content.config)),
            ("layers".to_owned(), json!(details.content.layers)),
            ("config".to_owned(), json!(details.config)),
        ]);
    }
    document
}

/// A node as JSON: its descriptor, whether it is here, what is below it.
fn node_document(node: &Node) -> Value {
    let mut value = json!(node.descriptor);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("here".to_owned(), json!(node.is_here));
        if let Some(platform) = node.platform() {
            fields.insert("platform".to_owned(), json!(platform.to_string()));
        }
        if !node.children.is_empty() {
            fields.insert("content".to_owned(), node.children.iter().map(node_document).collect());
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::contents::tests::{index, manifest};
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
        let text = tree(&image, Some(&details), SystemTime::UNIX_EPOCH + Duration::from_secs(7200));
        for line in [
            "docker.io/library/a:1".to_owned(),
            format!("  digest      {}", details.manifest.digest),
            "  platform    linux/amd64".to_owned(),
            "  made        2026-01-02T03:04:05Z".to_owned(),
            "  pulled      1970-01-01T00:00:00Z (2h)".to_owned(),
            "  entrypoint  /bin/tini --".to_owned(),
            "  command     sh -c 'echo hi'".to_owned(),
            "  user        app".to_owned(),
            "  ├─ PATH=/bin".to_owned(),
            "  └─ EVIL=\\u{1b}[2J".to_owned(),
        ] {
            assert!(text.lines().any(|have| have == line), "{line:?} is missing in\n{text}");
        }
        assert!(!text.contains("labels"));
    }

    #[test]
    fn the_document_has_the_config_as_it_stands() {
        let (image, details) = sample();
        let value = document(&image, Some(&details), &index(vec![manifest(Some("linux/amd64"), true)]));
        assert_eq!(value["content"]["content"][0]["content"][1]["here"], false);
        assert_eq!(value["config"]["config"]["Entrypoint"][0], "/bin/tini");
        assert_eq!(value["layers"][0]["mediaType"], media::OCI_LAYER_GZIP);
        assert_eq!(value["platform"], "linux/amd64");
    }

    #[test]
    fn the_tree_shows_each_part_and_what_is_not_here() {
        let contents = index(vec![manifest(Some("linux/amd64"), true), manifest(Some("linux/arm64"), false)]);
        let mut text = String::new();
        draw(&contents.root, "", true, false, &mut text);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("└─ index  sha256:"), "{text}");
        assert!(lines[1].starts_with("   ├─ manifest  linux/amd64  sha256:"), "{text}");
        assert!(lines[3].starts_with("   │  └─ ") && lines[3].ends_with("(not here)"), "{text}");
        assert!(
            lines[4].starts_with("   └─ manifest  linux/arm64") && lines[4].ends_with("(not here)"),
            "{text}"
        );
    }
}
