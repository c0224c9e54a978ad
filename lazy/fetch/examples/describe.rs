//! What can be known of an image without pulling it: the format of each layer, what its table cost, and the merged tree.
//!
//! `cargo run --release -p lazy-fetch --example describe REFERENCE [--plain-http] [--list] [--check]`
//!
//! `--list` prints every node; `--check` fetches the layers after all and compares each chunk with its digest.

use std::time::Instant;

use lazy_fetch::decode::{Resume, decode};
use lazy_fetch::describe::{self, Described, Format, Want};
use lazy_index::{Coding, ImageIndex, LayerPart, Limits, NodeId, Toc};
use storage_model::{Descriptor, Digest, Document, Manifest, Reference};
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

/// Decodes every group of a layer and compares every chunk; how many there were.
async fn check(
    client: &Client,
    reference: &Reference,
    layer: &Descriptor,
    toc: &Toc,
) -> Result<usize, Failed> {
    let blob = client.small_blob(reference, layer, layer.size).await?;
    let mut ends = vec![0u64; toc.groups.len()];
    for chunk in &toc.chunks {
        let end = &mut ends[chunk.group as usize];
        *end = (*end).max(chunk.inner_offset + chunk.length);
    }
    let mut decoded: Vec<Vec<u8>> = Vec::with_capacity(toc.groups.len());
    for (group, end) in toc.groups.iter().zip(ends) {
        let coded = &blob[group.offset as usize..(group.offset + group.length) as usize];
        if group.digest.is_some_and(|digest| digest != Digest::of(coded)) {
            return Err(format!("the group at {} has another digest", group.offset).into());
        }
        let resume = match group.coding {
            Coding::Deflate { checkpoint } => toc.checkpoints.get(checkpoint as usize),
            _ => None,
        };
        let resume = resume.map(|point| Resume { bits: point.bits, window: &point.window });
        decoded.push(decode(group.coding, coded, resume, end)?);
    }
    for (number, chunk) in toc.chunks.iter().enumerate() {
        let bytes = &decoded[chunk.group as usize][chunk.inner_offset as usize..][..chunk.length as usize];
        if chunk.digest.is_some_and(|digest| digest != Digest::of(bytes)) {
            return Err(format!("chunk {number} has another digest").into());
        }
    }
    Ok(toc.chunks.len())
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let reference: Reference = arguments.first().ok_or("which image?")?.parse()?;
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let plain_http = asked("--plain-http");
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
        if asked("--check") {
            println!(
                "    {} chunks have their digests",
                check(&client, &reference, layer, &found.toc).await?
            );
        }
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
    if asked("--list") {
        for node in (1..=index.nodes()).map(NodeId) {
            let path = index.path(node).unwrap_or_default();
            println!("{} {:?} {:?}", path.escape_ascii(), index.attr(node), index.file_digest(node));
        }
    }
    Ok(())
}
