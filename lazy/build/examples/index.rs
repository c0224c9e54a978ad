//! Indexes a layer and says how long it took and how large the index is: `index gzip|zstd|none BLOB`.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use lazy_build::{IndexOptions, index_layer};
use storage_model::Compression;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let compression = match arguments.next().as_deref() {
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        _ => return Err("usage: index gzip|zstd|none BLOB".into()),
    };
    let blob = arguments.next().ok_or("usage: index gzip|zstd|none BLOB")?;
    let begun = Instant::now();
    let indexed = index_layer(File::open(blob)?, compression, &IndexOptions::default())?;
    let seconds = begun.elapsed().as_secs_f64();
    let megabytes = indexed.uncompressed_bytes as f64 / 1e6;
    let toc = &indexed.toc;
    println!("{megabytes:.1} MB of tar in {seconds:.2} s, {:.1} MB/s", megabytes / seconds);
    println!(
        "{} entries, {} chunks, {} groups, {} checkpoints, {} bytes as a table",
        toc.entries.len(),
        toc.chunks.len(),
        toc.groups.len(),
        toc.checkpoints.len(),
        toc.encode().len()
    );
    Ok(())
}
