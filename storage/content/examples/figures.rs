//! Figures of the store: `cargo run --release -p storage-content --example figures [DIRECTORY]`.
//!
//! How fast small blobs come in, durably, one by one and by several writers; how long opening takes
//! with many blobs and snapshots; how long a collection takes, and how long it holds others up. The directory (default: the
//! system's temporary one) decides the disk that is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use storage_content::{Expected, ImageRecord, NewSnapshot, Space, Store, StoreError, Usage};
use storage_model::{Descriptor, Digest, Labels};

/// Size of a small blob, in bytes: a manifest or a config.
const SMALL_BYTES: usize = 4096;
/// Blobs, and as many snapshots, of the large store.
const MANY: usize = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let directory = tempfile::tempdir_in(parent)?;
    let store = Store::open(directory.path())?;
    let space = store.space(&"default".parse()?);
    ingest_rates(&space)?;
    fill(&space)?;
    drop((space, store));
    let store = open_times(directory.path())?;
    collections(&store)?;
    Ok(())
}

fn small(at: usize) -> Vec<u8> {
    let mut bytes = vec![0; SMALL_BYTES];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    bytes
}

fn commit_one(space: &Space, at: usize, labels: &Labels) -> Result<Digest, StoreError> {
    let mut ingest = space.ingest(&format!("ref-{at}"), Expected::default())?;
    ingest.write(&small(at))?;
    ingest.commit(Expected::default(), labels.clone())
}

fn report(what: &str, count: usize, took: Duration) {
    println!("{what:<58} {:>10.0} /s   {took:.3?}", count as f64 / took.as_secs_f64());
}

fn ingest_rates(space: &Space) -> Result<(), StoreError> {
    let begun = Instant::now();
    for at in 0..2000 {
        commit_one(space, at, &Labels::new())?;
    }
    report("4 KiB blobs, each durable, one writer", 2000, begun.elapsed());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                scope.spawn(move || {
                    (0..1000).try_for_each(|at| {
                        commit_one(space, 1_000_000 + writer * 1000 + at, &Labels::new()).map(|_| ())
                    })
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    report("4 KiB blobs, each durable, eight writers", 8000, begun.elapsed());
    Ok(())
}

fn fill(space: &Space) -> Result<(), StoreError> {
    let begun = Instant::now();
    let root = Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())]);
    std::thread::scope(|scope| {
        let root = &root;
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let mine = (0..MANY / 8).map(move |at| 3_000_000 + writer * MANY + at);
                scope.spawn(move || {
                    mine.into_iter().try_for_each(|at| commit_one(space, at, root).map(|_| ()))
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    report("filling with blobs", MANY, begun.elapsed());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..8).map(|writer| scope.spawn(move || chain(space, writer, MANY / 8))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    report("filling with snapshots (insert, commit), eight writers", MANY, begun.elapsed());
    Ok(())
}

/// Stacks of ten snapshots, each kept by its top.
fn chain(space: &Space, writer: usize, count: usize) -> Result<(), StoreError> {
    let table = space.snapshots("overlayfs");
    let draft = format!("draft-{writer}");
    for at in 0..count {
        let name = |at: usize| format!("sha256:{}", Digest::of(format!("{writer}-{at}").as_bytes()).hex());
        let parent = (at % 10 != 0).then(|| name(at - 1));
        let mut labels = Labels::new();
        if at % 10 == 9 {
            labels.insert("containerd.io/gc.root".into(), "1".into());
        }
        table.insert(NewSnapshot::Active, &draft, parent.as_deref(), Labels::new())?;
        table.commit(&draft, &name(at), None, Usage::default(), labels)?;
    }
    Ok(())
}

fn open_times(root: &std::path::Path) -> Result<Store, StoreError> {
    for _ in 0..3 {
        let begun = Instant::now();
        let store = Store::open(root)?;
        let took = begun.elapsed();
        let repair = store.recovery().took;
        println!(
            "opening with 111,000 blobs and 100,000 snapshots: {took:.3?}, of which comparing files {repair:.3?}"
        );
    }
    Store::open(root)
}

fn collections(store: &Store) -> Result<(), StoreError> {
    let begun = Instant::now();
    let collected = store.collect(&mut |_| ())?;
    println!("collecting {} of 111,000 blobs: {:.3?}", collected.blobs, begun.elapsed());
    // A change of another namespace, over and over, while collections run: the longest one is how long they hold it up.
    let done = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        let space = store.space(&"other".parse().expect("a namespace"));
        let done = &done;
        let writer = scope.spawn(move || {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let target = Descriptor::new("x", Digest::of(b"x"), 1);
                space.put_image(ImageRecord::new("i", target, Labels::new()))?;
                slowest = slowest.max(begun.elapsed());
            }
            Ok::<_, StoreError>(slowest)
        });
        let begun = Instant::now();
        let outcome = store.collect(&mut |_| ());
        println!("collecting nothing, beside a writer: {:.3?}", begun.elapsed());
        done.store(true, Ordering::Relaxed);
        outcome.and_then(|_| writer.join().expect("the writer does not panic"))
    })?;
    println!("slowest change beside it: {slowest:.3?}");
    Ok(())
}
