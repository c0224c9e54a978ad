//! How many snapshots a second each snapshotter prepares, commits and removes, by one thread and by several: empty ones on
//! a small parent, counted by the caller (as a pull does) and not (as a client of the socket does).
//!
//! `cargo run --release -p snapshotters-native --example rate -- <directory> [snapshots] [threads]`: the directory lies
//! on the disk that is measured; a store is made in it and removed.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use snapshotters_contract::{Snapshotter, Usage};
use snapshotters_native::Native;
use snapshotters_overlay::Overlay;
use storage_content::Store;
use storage_model::Labels;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("give a directory on the disk to be measured")?);
    let mut number = |default: usize| -> Result<usize, Box<dyn Error>> {
        let Some(text) = arguments.next() else { return Ok(default) };
        Ok(text.to_str().ok_or("a number is not text")?.parse()?)
    };
    let (snapshots, threads) = (number(500)?, number(8)?);
    let root = directory.join(format!("rate-{}", std::process::id()));
    let measured = measure(&root, snapshots, threads);
    std::fs::remove_dir_all(&root)?;
    measured
}

fn measure(root: &std::path::Path, snapshots: usize, threads: usize) -> Result<(), Box<dyn Error>> {
    let store = Store::open(root)?;
    let space = store.space(&"default".parse()?);
    for snapshotter in [Overlay::new(&store)?.bind(space.clone()), Native::new(&store)?.bind(space)] {
        for counted in [Some(Usage { bytes: 4096, inodes: 1 }), None] {
            let how = if counted.is_some() { "counted" } else { "not counted" };
            println!("{}, {how}:", snapshotter.name());
            rates(&*snapshotter, counted, snapshots, threads)?;
        }
    }
    Ok(())
}

fn rates(
    snapshotter: &dyn Snapshotter,
    counted: Option<Usage>,
    snapshots: usize,
    threads: usize,
) -> Result<(), Box<dyn Error>> {
    let base = "base".parse()?;
    if snapshotter.stat("base").is_err() {
        snapshotter.prepare(&"base being made".parse()?, None, &Labels::new())?;
        snapshotter.commit(&"base being made".parse()?, &base, None, &Labels::new())?;
    }
    for threads in [1, threads] {
        let each = snapshots.div_ceil(threads);
        let begun = Instant::now();
        let parts = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    scope.spawn({
                        let base = &base;
                        move || {
                            run(snapshotter, base, counted, thread, each).map_err(|error| error.to_string())
                        }
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
                .collect::<Result<Vec<_>, String>>()
        })?;
        let wall = begun.elapsed();
        let total = each * threads;
        let mean = |part: usize| {
            let sum: Duration = parts.iter().map(|times| times[part]).sum();
            sum.as_secs_f64() * 1e3 / total as f64
        };
        println!(
            "  {threads} threads: {total} snapshots in {:.2} s, {:.0}/s (each: prepare {:.2} ms, commit {:.2} ms, remove {:.2} ms)",
            wall.as_secs_f64(),
            total as f64 / wall.as_secs_f64(),
            mean(0),
            mean(1),
            mean(2),
        );
    }
    Ok(())
}

/// Prepares, commits and removes `count` snapshots, and returns what each step took together.
fn run(
    snapshotter: &dyn Snapshotter,
    base: &snapshotters_contract::CommittedName,
    counted: Option<Usage>,
    thread: usize,
    count: usize,
) -> Result<[Duration; 3], Box<dyn Error>> {
    let mut times = [Duration::ZERO; 3];
    for n in 0..count {
        let (key, name) = (format!("key {thread} {n}").parse()?, format!("name {thread} {n}").parse()?);
        let begun = Instant::now();
        snapshotter.prepare(&key, Some(base), &Labels::new())?;
        let prepared = Instant::now();
        snapshotter.commit_with_usage(&key, &name, None, &Labels::new(), counted)?;
        let committed = Instant::now();
        snapshotter.remove(name.as_str())?;
        times[0] += prepared - begun;
        times[1] += committed - prepared;
        times[2] += committed.elapsed();
    }
    Ok(times)
}
