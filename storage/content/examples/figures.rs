//! Figures of the store: `cargo run --release -p storage-content --example figures [DIRECTORY [THINGS]]`.
//!
//! How fast small blobs and snapshots come in, durably, one by one and by several writers; how long it takes to collect
//! 10,000 things, and how long that holds others up; how long opening, listing, planning, explaining and checking take with
//! THINGS blobs and as many snapshots (default: 100,000). The directory (default: the system's temporary one) decides the
//! disk that is measured.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use storage_content::{
    CheckOptions, Expected, ImageRecord, NewSnapshot, Space, Store, StoreError, Thing, Usage,
};
use storage_model::{Descriptor, Digest, Labels};

/// Size of a small blob, in bytes: a manifest or a config.
const SMALL_BYTES: usize = 4096;
/// Writers side by side.
const WRITERS: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let things: usize = arguments.next().map_or(Ok(100_000), |text| text.to_string_lossy().parse())?;
    let directory = tempfile::tempdir_in(&parent)?;
    {
        let store = Store::open(directory.path())?;
        let space = store.space(&"default".parse()?);
        ingest_rates(&space)?;
        snapshot_rates(&space)?;
        collect_10_000(&store)?;
    }
    let directory = tempfile::tempdir_in(&parent)?;
    fill(&Store::open(directory.path())?, things)?;
    let store = open_times(directory.path())?;
    with_many(&store)
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

fn root_label() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())])
}

/// Runs `work` and says how many a second it did.
fn rate(what: &str, count: usize, work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    let begun = Instant::now();
    work()?;
    let took = begun.elapsed();
    println!("{what:<66} {:>9.0} /s   {took:.3?}", count as f64 / took.as_secs_f64());
    Ok(())
}

/// Runs `work` and says how long it took.
fn time<T>(what: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let begun = Instant::now();
    let value = work()?;
    println!("{what:<66} {:>12.3?}", begun.elapsed());
    Ok(value)
}

/// Runs `work` for each of 0..count, dealt out to the writers.
fn side_by_side(
    count: usize,
    work: impl Fn(usize) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    std::thread::scope(|scope| {
        let work = &work;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || (writer..count).step_by(WRITERS).try_for_each(work)))
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })
}

fn ingest_rates(space: &Space) -> Result<(), StoreError> {
    let ingest = |at: usize| commit_one(space, at, &root_label()).map(|_| ());
    rate("4 KiB blobs, each durable, one writer", 2000, || (0..2000).try_for_each(ingest))?;
    rate("4 KiB blobs, each durable, eight writers", 4000, || side_by_side(4000, |at| ingest(1_000_000 + at)))
}

fn snapshot_rates(space: &Space) -> Result<(), StoreError> {
    let table = space.snapshots("overlayfs");
    let round = |at: usize| {
        let (draft, name) = (format!("draft-{at}"), format!("name-{at}"));
        table.insert(NewSnapshot::Active, &draft, None, Labels::new())?;
        table.commit(&draft, &name, None, Usage::default(), Labels::new())?;
        table.remove(&name).map(|_| ())
    };
    let what = "records of snapshots: prepare, commit, remove (3 steps), one caller";
    rate(what, 1000, || (0..1000).try_for_each(round))?;
    rate("the same, eight callers", 4000, || side_by_side(4000, round))
}

/// What the peers' figure is about: 10,000 things that nothing keeps, half of them blobs, half snapshots.
fn collect_10_000(store: &Store) -> Result<(), StoreError> {
    let space = store.space(&"garbage".parse().expect("a namespace"));
    side_by_side(5000, |at| commit_one(&space, 2_000_000 + at, &Labels::new()).map(|_| ()))?;
    side_by_side(5000, |at| {
        let table = space.snapshots("overlayfs");
        table.insert(NewSnapshot::Active, &format!("garbage-{at}"), None, Labels::new()).map(|_| ())
    })?;
    let begun = Instant::now();
    let (collected, slowest) = beside_a_writer(store, || store.collect(&mut |_| ()))?;
    let things = collected.blobs + collected.snapshots;
    println!("{:<66} {:>12.3?}", format!("collecting {things} things, files and all"), begun.elapsed());
    println!("{:<66} {slowest:>12.3?}", "slowest change beside it");
    Ok(())
}

/// Runs `work` while an image of another namespace is written over and over; answers with the longest time that took.
fn beside_a_writer<T>(
    store: &Store,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<(T, Duration), StoreError> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (space, done) = (store.space(&"other".parse().expect("a namespace")), &done);
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
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let slowest = writer.join().expect("the writer does not panic")?;
        Ok((outcome?, slowest))
    })
}

fn fill(store: &Store, things: usize) -> Result<(), StoreError> {
    let space = store.space(&"default".parse().expect("a namespace"));
    let keep = root_label();
    rate("filling with blobs", things, || {
        side_by_side(things, |at| commit_one(&space, at, &keep).map(|_| ()))
    })?;
    let stacks = things / 10;
    rate("filling with snapshots (insert, commit)", things, || {
        side_by_side(stacks, |stack| fill_stack(&space, stack))
    })
}

/// A stack of ten snapshots, kept by its top.
fn fill_stack(space: &Space, stack: usize) -> Result<(), StoreError> {
    let table = space.snapshots("overlayfs");
    let draft = format!("draft-{stack}");
    let name = |at: usize| Digest::of(format!("{stack}-{at}").as_bytes()).to_string();
    for at in 0..10 {
        let parent = (at > 0).then(|| name(at - 1));
        let labels = if at == 9 { root_label() } else { Labels::new() };
        table.insert(NewSnapshot::Active, &draft, parent.as_deref(), Labels::new())?;
        table.commit(&draft, &name(at), None, Usage::default(), labels)?;
    }
    Ok(())
}

fn open_times(root: &Path) -> Result<Store, StoreError> {
    for _ in 0..2 {
        let repair = time("opening", || Store::open(root))?.recovery().took;
        println!("{:<66} {repair:>12.3?}", "    of which comparing records and files");
    }
    Store::open(root)
}

fn with_many(store: &Store) -> Result<(), Box<dyn std::error::Error>> {
    let space = store.space(&"default".parse()?);
    let table = space.snapshots("overlayfs");
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    time("listing the snapshots", || {
        last = Instant::now();
        table.walk(&mut |_| {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            ControlFlow::Continue(())
        })
    })?;
    println!("{:<66} {longest:>12.3?}", "    longest wait for the next one");
    time("numbers of the snapshots", || store.snapshot_numbers())?;
    let bottom = Digest::of(b"0-0").to_string();
    time("why one of them is kept", || space.why(&Thing::snapshot("overlayfs", bottom)))?;
    time("planning a collection", || store.plan())?;
    let (_, slowest) = time("collecting nothing, beside a writer", || {
        beside_a_writer(store, || store.collect(&mut |_| ()))
    })?;
    println!("{:<66} {slowest:>12.3?}", "    slowest change beside it");
    time("usage of the disk", || store.disk_usage())?;
    time("checking records, references and sizes", || store.check(&CheckOptions::default(), &mut |_| ()))?;
    let thorough = CheckOptions { read_data: true, ..CheckOptions::default() };
    time("checking all data", || store.check(&thorough, &mut |_| ()))?;
    Ok(())
}
