//! `images ls`: what is here, for which platforms, and how much of it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use runtime_api::windlass::v1::LazyStatusRequest;
use serde::Serialize;

use crate::args::{FilteredArgs, Format, fields};
use crate::client::{Client, failed};
use crate::error::CliError;
use crate::image::{self, Contents, Image, Stored};
use crate::output::amount;
use crate::verbs::lazy::percent;
use crate::verbs::{Row, as_rfc3339, check_format, show};

/// An image in a list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ImageRow {
    name: String,
    digest: String,
    media_type: String,
    /// Those of which everything is here.
    platforms: Vec<String>,
    /// Those that the image is for as well, of which something or all is not here.
    absent_platforms: Vec<String>,
    /// Bytes of its content that are here; absent when its documents cannot be read.
    size_bytes: Option<u64>,
    /// lazy: shown before it has arrived; full: unpacked; content: neither. Empty when nobody knows.
    mode: String,
    /// How much of its layers is here, in per cent.
    percent: Option<f64>,
    #[serde(serialize_with = "as_rfc3339")]
    created: SystemTime,
    #[serde(serialize_with = "as_rfc3339")]
    updated: SystemTime,
    labels: BTreeMap<String, String>,
}

impl Row for ImageRow {
    const HEADINGS: &'static [&'static str] = &["REF", "DIGEST", "PLATFORMS", "MODE", "SIZE", "AGE"];
    const FIELDS: &'static [&'static str] = fields::IMAGES;

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self, now: SystemTime) -> Vec<String> {
        vec![
            self.name.clone(),
            crate::progress::short(&self.digest),
            self.platforms_cell(),
            self.mode_cell(),
            self.size_bytes.map(amount::size).unwrap_or_default(),
            amount::age(now, self.updated),
        ]
    }
}

impl ImageRow {
    fn new(image: Image, contents: Option<&Contents>) -> Self {
        let variants = contents.map(Contents::variants).unwrap_or_default();
        let (here, absent): (Vec<_>, Vec<_>) = variants.iter().partition(|variant| variant.is_complete());
        let names = |variants: Vec<&image::Variant<'_>>| {
            let mut names: Vec<String> =
                variants.iter().filter_map(|v| Some(v.platform.as_ref()?.to_string())).collect();
            names.dedup();
            names
        };
        Self {
            digest: image.target.digest.to_string(),
            media_type: image.target.media_type,
            platforms: names(here),
            absent_platforms: names(absent),
            size_bytes: contents.map(Contents::size_here),
            mode: String::new(),
            percent: None,
            created: image.created,
            updated: image.updated,
            labels: image.labels,
            name: image.name,
        }
    }

    /// `lazy 12.5%`, `full`.
    fn mode_cell(&self) -> String {
        match self.percent {
            Some(percent) if self.mode == "lazy" => format!("lazy {percent}%"),
            _ => self.mode.clone(),
        }
    }

    /// `linux/amd64 +7`: complete for one platform, made for seven more.
    fn platforms_cell(&self) -> String {
        let here = self.platforms.join(",");
        match (here.as_str(), self.absent_platforms.len()) {
            (_, 0) => here,
            ("", absent) => format!("+{absent}"),
            (_, absent) => format!("{here} +{absent}"),
        }
    }
}

/// `images ls`.
///
/// # Errors
/// [`CliError`]; one image that cannot be read does not hide the others.
pub(super) async fn run(client: &Client, args: &FilteredArgs, format: &Format) -> Result<(), CliError> {
    check_format::<ImageRow>(format)?;
    let images = image::matching(client, &args.filters).await?;
    let mut rows = Vec::with_capacity(images.len());
    if args.list.quiet {
        // Names only: nothing of the content is needed.
        rows.extend(images.into_iter().map(|image| ImageRow::new(image, None)));
    } else {
        let mut stored = Stored::ask(client).await?;
        let request = LazyStatusRequest::default();
        let ways = client.lazy().status(request).await.map_err(failed("ask how images are here"))?;
        let ways: BTreeMap<String, _> =
            ways.into_inner().images.into_iter().map(|image| (image.name.clone(), image)).collect();
        for image in images {
            let contents = Contents::read(&mut stored, &image).await.ok();
            let way = ways.get(&image.name);
            rows.push(ImageRow {
                mode: way.map(|way| way.mode.clone()).unwrap_or_default(),
                percent: way.map(|way| percent(way.bytes_present, way.bytes_total)),
                ..ImageRow::new(image, contents.as_ref())
            });
        }
    }
    show(&rows, &args.list, format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ListArgs;
    use crate::verbs::{list, tests::fields_are_as_documented};
    use std::time::Duration;

    fn rows() -> Vec<ImageRow> {
        let then = SystemTime::UNIX_EPOCH;
        let row = |name: &str, size_bytes: Option<u64>| ImageRow {
            name: name.to_owned(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            platforms: size_bytes.map(|_| "linux/amd64".to_owned()).into_iter().collect(),
            absent_platforms: size_bytes.map_or_else(Vec::new, |_| vec!["linux/arm64".to_owned()]),
            size_bytes,
            mode: if size_bytes.is_some() { "lazy" } else { "" }.to_owned(),
            percent: size_bytes.map(|_| 12.5),
            created: then,
            updated: then,
            labels: BTreeMap::new(),
        };
        vec![row("docker.io/library/a:1", Some(1_572_864)), row("r.example/b:2", None)]
    }

    fn text(quiet: bool, format: &str) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(180);
        list(&rows(), &ListArgs { quiet }, &format.parse().unwrap(), now).unwrap()
    }

    #[test]
    fn the_table_has_short_digests_sizes_platforms_and_ages() {
        assert_eq!(
            text(false, "table"),
            "\
REF                    DIGEST        PLATFORMS       MODE        SIZE     AGE
docker.io/library/a:1  abababababab  linux/amd64 +1  lazy 12.5%  1.5 MiB  3m
r.example/b:2          abababababab  -               -           -        3m
"
        );
    }

    #[test]
    fn quiet_prints_names_one_a_line() {
        assert_eq!(text(true, "table"), "docker.io/library/a:1\nr.example/b:2\n");
    }

    #[test]
    fn json_is_one_document_with_whole_digests_and_bytes() {
        let value: serde_json::Value = serde_json::from_str(&text(false, "json")).unwrap();
        assert_eq!(value[0]["size_bytes"], 1_572_864);
        assert_eq!(value[0]["digest"], format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(value[0]["created"], "1970-01-01T00:00:00Z");
        assert!(value[1]["size_bytes"].is_null());
        assert_eq!(serde_json::from_str::<Vec<String>>(&text(true, "json")).unwrap().len(), 2);
    }

    #[test]
    fn its_fields_are_those_the_help_lists() {
        fields_are_as_documented(&rows()[0]);
        assert_eq!(
            text(false, "{{.Name}} {{.Platforms}}").lines().next().unwrap(),
            "docker.io/library/a:1 linux/amd64"
        );
    }
}
