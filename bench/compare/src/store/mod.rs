//! What a store does in a second, beside containerd's: the same calls on both sockets, engines in turns.
//!
//! Snapshots, content and collection go through containerd's own services, so both engines are asked the very same
//! things by the same client. Import, export and push go through each engine's command line, as a user would.
//!
//! Durability is not equal: what Windlass has acknowledged is on the disk; containerd leaves unpacked files to the kernel.

mod api;
mod engines;
mod report;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use self::api::Api;
use self::engines::Engine;
use self::report::Sample;

/// `bench-compare store`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Directory of OCI image layouts, one a directory, each with a tag `latest`
    #[arg(long)]
    layouts: PathBuf,
    /// Directory for the engines' data, on a plain local file system
    #[arg(long)]
    data: PathBuf,
    /// Image to import, export and push
    #[arg(long, default_value = "python")]
    image: String,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Objects of one collection: four fifths blobs, one fifth snapshots
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Markdown file for the table
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Snapshots of one measurement.
const SNAPSHOTS: usize = 200;

/// Small blobs of one measurement.
const SMALL_BLOBS: usize = 400;

/// A small blob, in bytes: a manifest or a config.
const SMALL_BYTES: usize = 4 * 1024;

/// A large blob, in bytes: a layer.
const LARGE_BYTES: usize = 256 * 1024 * 1024;

/// Calls under way where several are: what a node that starts a few pods at once asks for.
const AT_ONCE: usize = 16;

/// Measures, prints, and writes the table.
///
/// # Errors
/// An engine or the registry does not start, or fails in the middle.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    fs::create_dir_all(&arguments.data)?;
    let archive = archive(&arguments)?;
    let registry = tests::Registry::start()?;
    let engines = [Engine::windlass(&arguments.data)?, Engine::containerd(&arguments.data)?];
    let mut samples = Vec::new();
    for round in 0..arguments.runs {
        for turn in 0..engines.len() {
            let engine = &engines[(round + turn) % engines.len()];
            let api = runtime.block_on(Api::connect(&engine.socket()))?;
            let mut take = |what: &'static str, elapsed: Duration| {
                println!("{} {what}: {:.3} s", engine.name(), elapsed.as_secs_f64());
                samples.push(Sample { what, engine: engine.name(), seconds: elapsed.as_secs_f64() });
            };
            runtime.block_on(rates(&api, round, arguments.objects, &mut take))?;
            let target = registry.reference(&format!("{}-{}:{round}", arguments.image, engine.name()));
            for (what, elapsed) in engine.archives(&archive, &target, &arguments.data)? {
                take(what, elapsed);
            }
        }
    }
    let versions: Vec<String> = engines.iter().map(Engine::version).collect();
    let text = report::table(&crate::heading("Rates of the store"), &versions, &samples, arguments.objects);
    println!("\n{text}");
    match arguments.out {
        Some(path) => fs::write(&path, text).with_context(|| format!("{}", path.display())),
        None => Ok(()),
    }
}

/// The image as one archive file.
fn archive(arguments: &Arguments) -> Result<PathBuf> {
    let layout = arguments.layouts.join(&arguments.image);
    let file = arguments.data.join(format!("{}.tar", arguments.image));
    let _ = fs::remove_file(&file);
    let mut copy = Command::new("skopeo");
    copy.args(["copy", "--quiet", "--insecure-policy"]);
    copy.arg(format!("oci:{}:latest", layout.display()));
    copy.arg(format!("oci-archive:{}:bench.example/{}:latest", file.display(), arguments.image));
    tests::finish(&mut copy, Duration::from_secs(300))?
        .success()
        .with_context(|| format!("{}", layout.display()))?;
    Ok(file)
}

/// Everything that containerd's services answer.
async fn rates(
    api: &Api,
    round: usize,
    objects: usize,
    take: &mut impl FnMut(&'static str, Duration),
) -> Result<()> {
    let kept = api.leased(&format!("bench-{round}")).await?;
    let begun = Instant::now();
    for number in 0..SNAPSHOTS {
        life(&kept, format!("serial-{round}-{number}")).await?;
    }
    take(report::SNAPSHOTS, begun.elapsed());
    let begun = Instant::now();
    let names = (0..SNAPSHOTS).map(|number| format!("parallel-{round}-{number}"));
    at_once(names, |name| life(&kept, name)).await?;
    take(report::SNAPSHOTS_AT_ONCE, begun.elapsed());
    let begun = Instant::now();
    for number in 0..SMALL_BLOBS {
        kept.write(&blob(round, 1, number, SMALL_BYTES)).await?;
    }
    take(report::BLOBS, begun.elapsed());
    let begun = Instant::now();
    at_once(0..SMALL_BLOBS, |number| small(&kept, round, 2, number)).await?;
    take(report::BLOBS_AT_ONCE, begun.elapsed());
    let large = blob(round, 3, 0, LARGE_BYTES);
    let begun = Instant::now();
    kept.write(&large).await?;
    take(report::LARGE_BLOB, begun.elapsed());
    kept.end().await?;
    take(report::COLLECTION, collection(api, round, objects).await?);
    Ok(())
}

async fn life(api: &Api, name: String) -> Result<()> {
    api.snapshot(&name, "").await?;
    api.remove(&name).await
}

async fn small(api: &Api, round: usize, kind: usize, number: usize) -> Result<()> {
    api.write(&blob(round, kind, number, SMALL_BYTES)).await
}

/// Makes `objects` that one lease keeps, ends it, and returns how long the engine took to remove them.
async fn collection(api: &Api, round: usize, objects: usize) -> Result<Duration> {
    let kept = api.leased(&format!("garbage-{round}")).await?;
    let snapshots = objects / 5;
    at_once(0..snapshots, |number| {
        let kept = &kept;
        async move { kept.snapshot(&format!("garbage-{round}-{number}"), "").await }
    })
    .await?;
    at_once(0..objects - snapshots, |number| small(&kept, round, 4, number)).await?;
    kept.end().await
}

/// Runs `work` for each item, [`AT_ONCE`] at a time.
async fn at_once<I, W>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> W) -> Result<()>
where
    W: Future<Output = Result<()>>,
{
    use futures_util::{StreamExt, TryStreamExt, stream};
    stream::iter(items).map(|item| Ok(work(item))).try_buffer_unordered(AT_ONCE).try_collect().await
}

/// Bytes that no other blob has, without structure to compress or share.
fn blob(round: usize, kind: usize, number: usize, bytes: usize) -> Vec<u8> {
    let mut state = ((round as u64) << 48) ^ ((kind as u64) << 40) ^ number as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    data
}
