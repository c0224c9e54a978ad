//! How fast a layer unpacks, against decompression alone and against `tar`, and what its tree record costs.
//!
//! ```text
//! tar -C / -cf - usr/lib usr/share | head -c ... | gzip -6 > layer.tar.gz     (or any layer)
//! cargo run --release -p storage-layer --example unpack_speed -- layer.tar.gz [ROUNDS] [DIRECTORY]
//! ```
//! Each round runs, in this order: inflate alone, `tar xzf`, [`storage_layer::unpack`] without and with a record (the
//! latter two in turns of order). Wall and CPU time (user and system, all threads and children) of every round are
//! printed, with the medians before. Run it as root, on an idle
//! machine, with the directory on a file system that has room for all rounds and from which little was deleted lately.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use storage_layer::{Decompressor, Limits, UnpackOptions, Unpacked, unpack};
use storage_model::Compression;

type Anyhow<T> = Result<T, Box<dyn Error>>;

/// Seconds of wall and of CPU time.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn main() -> Anyhow<()> {
    let mut arguments = std::env::args().skip(1);
    let layer = PathBuf::from(
        arguments.next().ok_or("usage: unpack_speed LAYER.tar[.gz|.zst] [ROUNDS] [DIRECTORY]")?,
    );
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let compression = match layer.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Compression::Gzip,
        Some("zst") => Compression::Zstd,
        _ => Compression::None,
    };
    let scratch = directory.join(format!("unpack-speed-{}", std::process::id()));
    let mut costs: [Vec<Cost>; 4] = Default::default();
    let mut last = None;
    for round in 0..rounds {
        costs[0].push(measure(|| inflate(&layer, compression))?.1);
        costs[1].push(fresh(&scratch.join(format!("tar-{round}")), |target| tar(&layer, target))?.1);
        for turn in 0..2 {
            let recorded = (round + turn) % 2;
            let target = scratch.join(format!("unpack-{round}-{recorded}"));
            let record = (recorded == 1).then(|| scratch.join(format!("record-{round}")));
            let (unpacked, cost) = fresh(&target, |target| ours(&layer, compression, target, record))?;
            costs[2 + recorded].push(cost);
            last = Some(unpacked);
        }
    }
    storage_sys::tree::remove_all(&scratch)?;
    let unpacked = last.ok_or("no rounds")?;
    println!("layer: {} bytes compressed, {unpacked:?}", std::fs::metadata(&layer)?.len());
    let megabytes = unpacked.uncompressed_bytes as f64 / 1e6;
    println!("{:<10} {:>8} {:>8} {:>8}  every round: wall/CPU", "", "wall s", "CPU s", "MB/s");
    for (name, costs) in ["inflate", "tar x", "unpack", "+ record"].into_iter().zip(&costs) {
        let (wall, cpu) = (median(costs, |cost| cost.wall), median(costs, |cost| cost.cpu));
        let rounds: Vec<String> =
            costs.iter().map(|cost| format!("{:.2}/{:.2}", cost.wall, cost.cpu)).collect();
        println!("{name:<10} {wall:>8.3} {cpu:>8.2} {:>8.0}  {}", megabytes / wall, rounds.join(" "));
    }
    Ok(())
}

fn inflate(layer: &Path, compression: Compression) -> Anyhow<()> {
    let mut source = Decompressor::new(File::open(layer)?, compression, &Limits::default())?;
    let mut buffer = vec![0; 256 * 1024];
    while source.fill(&mut buffer)? == buffer.len() {}
    Ok(())
}

fn tar(layer: &Path, target: &Path) -> Anyhow<()> {
    let done =
        Command::new("tar").args(["--numeric-owner", "-xf"]).arg(layer).arg("-C").arg(target).status()?;
    if done.success() { Ok(()) } else { Err("tar failed".into()) }
}

fn ours(layer: &Path, compression: Compression, target: &Path, record: Option<PathBuf>) -> Anyhow<Unpacked> {
    let options = UnpackOptions { record, ..UnpackOptions::default() };
    Ok(unpack(File::open(layer)?, compression, target, &options, &|_| {})?)
}

/// Runs `work` with an empty directory, and writes back afterwards, outside the measurement.
///
/// The directory stays until the end: ext4 does not give out the inodes of files deleted in the last minutes and steps
/// over them one by one, so that a round after a deletion took 20 times as long, for every program.
fn fresh<T>(scratch: &Path, work: impl FnOnce(&Path) -> Anyhow<T>) -> Anyhow<(T, Cost)> {
    std::fs::create_dir_all(scratch)?;
    let measured = measure(|| work(scratch));
    Command::new("sync").arg("-f").arg(scratch).status()?;
    measured
}

fn measure<T>(work: impl FnOnce() -> Anyhow<T>) -> Anyhow<(T, Cost)> {
    let (start, before) = (Instant::now(), cpu_seconds()?);
    let done = work()?;
    Ok((done, Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds()? - before }))
}

/// CPU time of this process and of the children it waited for, from `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> Anyhow<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace();
    // utime, stime, cutime and cstime are fields 14 to 17; the first after the name is field 3.
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(ticks as f64 / 100.0)
}

fn median(costs: &[Cost], part: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
