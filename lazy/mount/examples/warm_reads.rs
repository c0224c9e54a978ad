//! Warm and cold reads through a lazy mount beside the same files on the file system below: what the presentation costs when
//! every byte is here. Prints one line a figure: native, mount, ratio; both interleaved, the median of five. And the memory
//! of the server.
//!
//! usage: warm_reads DIRECTORY    needs root; uses 3 GiB of an empty directory on the disk to be measured
//! `lazy_processes` has to be built beside it: cargo build --release -p lazy-mount --examples

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lazy_index::{Chunk, Coding, Entry, Group, ImageIndex, Kind, LayerPart, Limits, Time, Toc};
use lazy_mount::{Client, MountRequest, Places};
use storage_model::{Digest, Hasher};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SMALL_FILES: u64 = 4000;
const DIRECTORIES: u64 = 80;
const LARGE_BYTES: u64 = 1 << 30;
const CHUNK_BYTES: u64 = 1 << 20;
const RANDOM_READS: u64 = 20_000;
const ROUNDS: usize = 5;

fn small_size(file: u64) -> u64 {
    (file * 7919) % 16_000 + 1
}

fn noise(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

fn bytes(seed: u64, length: u64) -> Vec<u8> {
    (0..length.div_ceil(8))
        .flat_map(|at| noise(seed << 32 | at).to_le_bytes())
        .take(length as usize)
        .collect()
}

/// Writes the tree below `native` and the blob, and says what is in it.
fn make(native: &Path, blob: &Path) -> Outcome<(Toc, Digest, u64)> {
    let mut toc = Toc::default();
    let mut out = BufWriter::new(File::create(blob)?);
    let mut hasher = Hasher::new();
    for directory in 0..DIRECTORIES {
        fs::create_dir_all(native.join(format!("d{directory}")))?;
        toc.entries.push(entry(&format!("d{directory}"), Kind::Directory, 0o755));
    }
    for file in 0..SMALL_FILES {
        let name = format!("d{}/f{file}", file % DIRECTORIES);
        let content = bytes(file, small_size(file));
        fs::write(native.join(&name), &content)?;
        add(&mut toc, &mut out, &mut hasher, &name, std::iter::once(content))?;
    }
    let mut large = BufWriter::new(File::create(native.join("large"))?);
    let chunks = (0..LARGE_BYTES / CHUNK_BYTES).map(|chunk| bytes(1 << 20 | chunk, CHUNK_BYTES));
    let chunks = chunks.inspect(|chunk| large.write_all(chunk).expect("the disk has room"));
    add(&mut toc, &mut out, &mut hasher, "large", chunks)?;
    large.flush()?;
    out.flush()?;
    let bytes = hasher.bytes();
    Ok((toc, hasher.finish(), bytes))
}

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let path = path.as_bytes().into();
    Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

fn add(
    toc: &mut Toc,
    out: &mut impl Write,
    hasher: &mut Hasher,
    name: &str,
    chunks: impl Iterator<Item = Vec<u8>>,
) -> Outcome<()> {
    let first = toc.chunks.len() as u32;
    let (mut size, mut whole) = (0, Hasher::new());
    for chunk in chunks {
        let (offset, length) = (hasher.bytes(), chunk.len() as u64);
        let (group, digest) = (toc.groups.len() as u32, Some(Digest::of(&chunk)));
        toc.chunks.push(Chunk { file_offset: size, length, digest, group, inner_offset: 0 });
        let coding = Coding::Plain;
        toc.groups.push(Group { offset, length, output_length: Some(length), coding, digest: None });
        out.write_all(&chunk)?;
        hasher.update(&chunk);
        whole.update(&chunk);
        size += length;
    }
    let kind = Kind::File { size, digest: Some(whole.finish()), chunks: first..toc.chunks.len() as u32 };
    toc.entries.push(entry(name, kind, 0o644));
    Ok(())
}

/// What does something with a tree and says how long it took, in seconds.
type Figure = fn(&Path) -> Outcome<f64>;

/// What is measured.
const FIGURES: [(&str, Figure); 5] = [
    ("open+read 4000 small", small),
    ("find", find),
    ("stat 4000", stat),
    ("1 GiB sequential", sequential),
    ("20000 random 4 KiB", random),
];

fn small(root: &Path) -> Outcome<f64> {
    let paths: Vec<PathBuf> =
        (0..SMALL_FILES).map(|file| root.join(format!("d{}/f{file}", file % DIRECTORIES))).collect();
    let mut buffer = Vec::with_capacity(32 * 1024);
    let begun = Instant::now();
    for path in &paths {
        buffer.clear();
        File::open(path)?.read_to_end(&mut buffer)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn find(root: &Path) -> Outcome<f64> {
    let begun = Instant::now();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn stat(root: &Path) -> Outcome<f64> {
    let paths: Vec<PathBuf> =
        (0..SMALL_FILES).map(|file| root.join(format!("d{}/f{file}", file % DIRECTORIES))).collect();
    let begun = Instant::now();
    for path in &paths {
        fs::symlink_metadata(path)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn sequential(root: &Path) -> Outcome<f64> {
    let mut file = File::open(root.join("large"))?;
    let mut buffer = vec![0; 256 * 1024];
    let begun = Instant::now();
    while file.read(&mut buffer)? > 0 {}
    Ok(begun.elapsed().as_secs_f64())
}

fn random(root: &Path) -> Outcome<f64> {
    let file = File::open(root.join("large"))?;
    let mut buffer = vec![0; 4096];
    let begun = Instant::now();
    for read in 0..RANDOM_READS {
        file.read_exact_at(&mut buffer, noise(read) % (LARGE_BYTES / 4096) * 4096)?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| ["VmRSS", "RssAnon", "RssFile"].iter().any(|word| line.starts_with(word)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

fn main() -> Outcome<()> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: warm_reads DIRECTORY")?);
    storage_sys::process::own_mount_namespace()?;
    let program = std::env::current_exe()?.with_file_name("lazy_processes");
    let places = Places { root: directory.join("root"), state: directory.join("state"), program };
    let native = directory.join("native");
    for path in [&native, &places.blobs().join("sha256"), &places.state, &places.durable().join("images")] {
        fs::create_dir_all(path)?;
    }
    let (toc, digest, blob_bytes) = make(&native, &directory.join("blob"))?;
    fs::rename(directory.join("blob"), places.blobs().join("sha256").join(digest.hex()))?;
    let index = ImageIndex::build(&[LayerPart { blob: digest, blob_bytes, toc: &toc }], &Limits::default())?;
    fs::write(places.index("warm"), index)?;
    let client = Client::connect_or_start(&places)?;
    let mountpoint = places.mountpoint("warm");
    client.mount(&MountRequest {
        name: "warm".into(),
        index: places.index("warm"),
        tocs: Vec::new(),
        mountpoint: mountpoint.clone(),
        origins: Vec::new(),
        login: None,
        trace: None,
        fill: false,
    })?;
    let server = client.status(None)?.first().ok_or("no mount")?.server;
    println!("server, idle: {}", memory(server));
    for (name, figure) in FIGURES {
        println!(
            "first {name}: native {:.1} ms, mount {:.1} ms",
            figure(&native)? * 1e3,
            figure(&mountpoint)? * 1e3
        );
    }
    for (name, figure) in FIGURES {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            theirs.push(figure(&native)?);
            ours.push(figure(&mountpoint)?);
        }
        let (ours, theirs) = (median(ours) * 1e3, median(theirs) * 1e3);
        println!("warm {name}: native {theirs:.1} ms, mount {ours:.1} ms, ratio {:.2}", ours / theirs);
    }
    println!("server, after: {}", memory(server));
    client.unmount("warm")?;
    Ok(())
}
