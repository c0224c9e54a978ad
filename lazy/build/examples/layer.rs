//! Writes a tar as a lazy layer and says how long it took: `layer FORM TAR BLOB [THREADS]`, where FORM is `estargz`,
//! `containers` or `stargz`. What the descriptor has to say is printed as JSON.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use lazy_build::{Dialect, Format, LayerOptions, write_layer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(form), Some(tar), Some(blob)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: layer estargz|containers|stargz TAR BLOB [THREADS]".into());
    };
    let format = match form.as_str() {
        "estargz" => Format::Estargz,
        "containers" => Format::ZstdChunked(Dialect::Containers),
        "stargz" => Format::ZstdChunked(Dialect::Stargz),
        other => return Err(format!("{other} is no form").into()),
    };
    let mut options = LayerOptions::new(format);
    if let Some(threads) = arguments.next() {
        options.threads = threads.parse()?;
    }
    let begun = Instant::now();
    let written = write_layer(&File::open(tar)?, File::create(blob)?, &options)?;
    let seconds = begun.elapsed().as_secs_f64();
    let megabytes = written.uncompressed_bytes as f64 / 1e6;
    eprintln!(
        "{megabytes:.1} MB to {:.1} MB in {seconds:.2} s, {:.1} MB/s",
        written.size as f64 / 1e6,
        megabytes / seconds
    );
    let said = serde_json::json!({
        "digest": written.digest, "size": written.size, "diff_id": written.diff_id.0, "annotations": written.annotations,
    });
    println!("{said:#}");
    Ok(())
}
