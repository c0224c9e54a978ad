//! Prints what the fetcher costs: `cargo run --release -p lazy-fetch --example figures [FILES]`.
//!
//! An image of FILES small files (100,000) and one of 1 GiB is filled from a blob on this machine's disk, so no network is in
//! the figures; then read warm, opened again, and looked through.
#![allow(clippy::unwrap_used, reason = "an example that fails has nothing better to do")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lazy_fetch::{Config, Fetcher, ImageSpec, NoCheckpoints, RegistrySources};
use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, NodeId, Time, Toc};
use storage_model::Digest;

const SMALL_BYTES: usize = 8_000;
const LARGE_BYTES: usize = 1 << 30;
const CHUNK_BYTES: usize = 4 << 20;

fn main() {
    let files: u32 = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir_in(".").unwrap();
    let (index, spec_bytes) = image(folder.path(), files);
    let spec = || ImageSpec {
        name: "figures".to_owned(),
        index: Arc::clone(&index),
        checkpoints: Arc::new(NoCheckpoints),
        origins: vec![Vec::new()],
    };
    let open = || {
        let sources = Arc::new(RegistrySources::new(vec![folder.path().join("blobs")]));
        let mut config = Config::default();
        config.reserve_bytes = 0;
        Fetcher::open(&folder.path().join("cache"), config, sources).unwrap()
    };
    let before = resident();
    let fetcher = open();
    let image = fetcher.image(spec()).unwrap();
    let took = timed(|| {
        image.fill();
        while image.is_filling() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    println!(
        "fill: {:.0} MB/s ({} MB in {took:.2?})",
        spec_bytes as f64 / 1e6 / took.as_secs_f64(),
        spec_bytes / 1_000_000
    );
    println!("resident: {:.1} MB more than before", (resident() - before) as f64 / 1e6);
    let took = timed(|| assert!(image.status().complete));
    println!("status: {took:.2?}");
    let first = image.index().find(b"small/000000").unwrap();
    let mut buffer = vec![0; 128 * 1024];
    let took = timed(|| {
        for number in 0..files {
            assert_eq!(image.read(NodeId(first.0 + number), 0, &mut buffer).unwrap(), SMALL_BYTES);
        }
    });
    println!("small file, warm: {:.2} us", took.as_secs_f64() * 1e6 / f64::from(files));
    let large = image.index().find(b"large").unwrap();
    let took = timed(|| {
        for at in (0..LARGE_BYTES).step_by(buffer.len()) {
            assert_eq!(image.read(large, at as u64, &mut buffer).unwrap(), buffer.len());
        }
    });
    println!(
        "large file in pieces of 128 KiB, warm: {:.2} GB/s",
        LARGE_BYTES as f64 / 1e9 / took.as_secs_f64()
    );
    let took = timed(|| {
        for at in 0..10_000_usize {
            let offset = (at * 7_919 * 4096) % (LARGE_BYTES - 4096);
            assert_eq!(image.read(large, offset as u64, &mut buffer[..4096]).unwrap(), 4096);
        }
    });
    println!("4 KiB at random, warm: {:.2} us", took.as_secs_f64() * 1e6 / 1e4);
    let took = timed(|| assert!(image.whole_file(large).is_some()));
    println!("whole file for passthrough: {took:.2?}");
    drop(image);
    drop(fetcher);
    let mut again = None;
    let took = timed(|| again = Some(open()));
    println!("open the cache again: {took:.2?}");
    let image = again.as_ref().unwrap().image(spec()).unwrap();
    assert!(image.status().complete, "it outlived the fetcher");
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Resident bytes of this process, without pages of files.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Writes the blob and returns the index, and how many bytes the files have.
fn image(folder: &Path, files: u32) -> (Arc<ImageIndex>, u64) {
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let mut blob = Vec::new();
    let mut toc =
        Toc { entries: vec![entry("", Kind::Directory), entry("small", Kind::Directory)], ..Toc::default() };
    let mut state = 1u64;
    let mut file = |toc: &mut Toc, path: &str, length: usize| {
        let first = toc.chunks.len() as u32;
        for start in (0..length).step_by(CHUNK_BYTES) {
            let piece: Vec<u8> = (0..(length - start).min(CHUNK_BYTES))
                .map(|n| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n as u64);
                    b'a' + (state >> 60) as u8
                })
                .collect();
            let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            coder.write_all(&piece).unwrap();
            let coded = coder.finish().unwrap();
            let (group, digest) = (toc.groups.len() as u32, Some(Digest::of(&piece)));
            let length = piece.len() as u64;
            toc.chunks.push(Chunk { file_offset: start as u64, length, digest, group, inner_offset: 0 });
            let (offset, coded_length) = (blob.len() as u64, coded.len() as u64);
            let coding = Coding::Gzip;
            toc.groups.push(Group {
                offset,
                length: coded_length,
                output_length: Some(length),
                coding,
                digest: None,
            });
            blob.extend_from_slice(&coded);
        }
        let chunks = first..toc.chunks.len() as u32;
        toc.entries.push(entry(path, Kind::File { size: length as u64, digest: None, chunks }));
    };
    (0..files).for_each(|number| file(&mut toc, &format!("small/{number:06}"), SMALL_BYTES));
    file(&mut toc, "large", LARGE_BYTES);
    let digest = Digest::of(&blob);
    std::fs::write(folder.join("blobs/sha256").join(digest.hex()), &blob).unwrap();
    let layer = LayerPart { blob: digest, blob_bytes: blob.len() as u64, toc: &toc };
    let index = ImageIndex::build(&[layer], &Limits::default()).unwrap();
    std::fs::write(folder.join("idx"), index).unwrap();
    let index = ImageIndex::open(&folder.join("idx")).unwrap();
    (Arc::new(index), files as u64 * SMALL_BYTES as u64 + LARGE_BYTES as u64)
}

fn entry(path: &str, kind: Kind) -> Entry {
    let path = path.as_bytes().into();
    Entry { path, kind, mode: 0o755, uid: 0, gid: 0, mtime: Time { secs: 1, nanos: 0 }, xattrs: Vec::new() }
}
