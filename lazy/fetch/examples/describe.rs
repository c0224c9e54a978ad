//! What can be known of an image without pulling it: the format of each layer, what its table cost, and the merged tree.
//!
//! `cargo run --release -p lazy-fetch --example describe REFERENCE [--plain-http]`

use std::time::Instant;

use lazy_fetch::describe::{self, Described, Format, Want};
use lazy_index::{ImageIndex, LayerPart, Limits, NodeId};
use storage_model::{Descriptor, Document, Manifest, Reference};
use storage_registry::{Client, Config};

type Failed = Box<dyn std::error::Error>;

/// The first image manifest a reference leads to.
async fn manifest(client: &Client, reference: &Reference) -> Result<(Descriptor, Manifest), Failed> {
    let mut descriptor = client.resolve(reference).await?.descriptor;
    loop {
        let bytes = client.manifest(reference, &descriptor).await?;
        match Document::parse(&descriptor.media_type, &bytes)? {
            Document::Manifest(manifest) => return Ok((descriptor, *manifest)),
            Document::Index(index) => {
                descriptor = index.manifests.into_iter().next().ok_or("an empty index")?
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let reference: Reference = arguments.next().ok_or("which image?")?.parse()?;
    let plain_http = arguments.any(|argument| argument == "--plain-http");
    let client = Client::new(Config { plain_http, ..Config::default() })?;
    let (descriptor, manifest) = manifest(&client, &reference).await?;
    let soci = describe::soci(&client, &reference, &descriptor, &manifest.annotations).await?;
    let mut described: Vec<Described> = Vec::new();
    for layer in &manifest.layers {
        let start = Instant::now();
        let mut found = describe::layer(&client, &reference, layer, Want::default()).await?;
        if let (Format::Opaque, Some(ztoc)) = (found.format, soci.get(&layer.digest)) {
            found = describe::soci_layer(&client, &reference, layer, ztoc).await?;
        }
        println!(
            "{} {:>11} bytes: {}, {} entries, {} chunks, {} groups; {} bytes in {} requests, {:.0?}",
            layer.digest.short(),
            layer.size,
            found.format,
            found.toc.entries.len(),
            found.toc.chunks.len(),
            found.toc.groups.len(),
            found.bytes_fetched,
            found.requests,
            start.elapsed()
        );
        described.push(found);
    }
    if described.iter().any(|found| found.format == Format::Opaque) {
        return Err("not every layer can be read in pieces".into());
    }
    let pairs = manifest.layers.iter().zip(&described);
    let parts: Vec<_> = pairs
        .map(|(layer, found)| LayerPart { blob: layer.digest, blob_bytes: layer.size, toc: &found.toc })
        .collect();
    let bytes = ImageIndex::build(&parts, &Limits::default())?;
    let index = ImageIndex::from_bytes(bytes.clone())?;
    println!(
        "merged: {} nodes, {} bytes of files, index of {} bytes",
        index.nodes(),
        index.bytes_total(),
        bytes.len()
    );
    if std::env::var_os("DESCRIBE_LIST").is_some() {
        for node in (1..=index.nodes()).map(NodeId) {
            let path = index.path(node).unwrap_or_default();
            println!("{} {:?} {:?}", path.escape_ascii(), index.attr(node), index.file_digest(node));
        }
    }
    Ok(())
}
