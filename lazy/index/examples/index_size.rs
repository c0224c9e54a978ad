//! What an image index costs: bytes a file on the disk, and resident memory when all of it was read.
//!
//! `cargo run --release -p lazy-index --example index_size [FILES]` (100,000 by default). The tree looks like a
//! distribution's: 12 files a directory, names of 8 to 20 bytes, one in twenty a symbolic link, each file in one chunk of
//! its own. The index is built and mapped by two processes, so that building is not in the second one's figure.

use std::process::Command;
use std::time::Instant;

use lazy_index::{
    Chunk, Coding, Digest, Entry, Group, ImageIndex, Kind, LayerPart, Limits, NodeId, Time, Toc, Xattrs,
};

fn layer(files: u64) -> Toc {
    let mut toc = Toc::default();
    let entry = |path: String, kind, mode| {
        let mtime = Time { secs: 1_600_000_000 + path.len() as i64, nanos: 0 };
        Entry { path: path.into_bytes().into(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
    };
    for number in 0..files {
        let directory = format!("usr/lib/section{}/package-{:06}", number / 1200, number / 12);
        if number % 12 == 0 {
            toc.entries.push(entry(directory.clone(), Kind::Directory, 0o755));
        }
        let name =
            format!("{directory}/file{number:x}.{}", ["so.1", "py", "conf", "html"][number as usize % 4]);
        if number % 20 == 19 {
            toc.entries.push(entry(
                name,
                Kind::Symlink(format!("file{:x}.py", number - 1).into_bytes().into()),
                0o777,
            ));
            continue;
        }
        let (group, size) = (toc.groups.len() as u32, 1 + number % 9000);
        let digest = Some(Digest::of(&number.to_le_bytes()));
        let offset = u64::from(group) * 5000;
        toc.groups.push(Group {
            offset,
            length: 5000,
            output_length: None,
            coding: Coding::Gzip,
            digest: None,
        });
        toc.chunks.push(Chunk { file_offset: 0, length: size, digest, group, inner_offset: 0 });
        toc.entries.push(entry(name, Kind::File { size, digest, chunks: group..group + 1 }, 0o644));
    }
    toc
}

/// Resident bytes of this process, in kB: all of it, and the part that is a mapped file.
fn resident_kb() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let of = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (of("VmRSS:"), of("RssFile:"))
}

fn read(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let before = resident_kb();
    let start = Instant::now();
    let index = ImageIndex::open(path.as_ref())?;
    let opened = start.elapsed();
    let start = Instant::now();
    let mut found = 0u64;
    for node in (1..=index.nodes()).map(NodeId) {
        found +=
            index.children(node, 0).filter(|child| index.lookup(node, child.name).is_some()).count() as u64;
        found += index.chunks(node, 0, u64::MAX).count() as u64;
    }
    let walked = start.elapsed();
    let after = resident_kb();
    println!("open {opened:.2?}; every name looked up and every chunk read: {found} in {walked:.2?}");
    println!(
        "resident before {} kB, after {} kB (of files {} kB more)",
        before.0,
        after.0,
        after.1 - before.1
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    if let Some(path) = argument.as_deref().filter(|argument| argument.contains('/')) {
        return read(path);
    }
    let files = argument.map_or(Ok(100_000), |number| number.parse())?;
    let toc = layer(files);
    let start = Instant::now();
    let encoded = toc.encode();
    println!(
        "table of contents: {:.1} bytes a file, encoded in {:.2?}",
        encoded.len() as f64 / files as f64,
        start.elapsed()
    );
    let start = Instant::now();
    Toc::decode(&encoded)?.validate(u64::MAX, &Limits::default())?;
    println!("decoded and validated in {:.2?}", start.elapsed());
    let part = LayerPart { blob: Digest::of(b"blob"), blob_bytes: u64::MAX, toc: &toc };
    let start = Instant::now();
    let index = ImageIndex::build(&[part], &Limits::default())?;
    println!(
        "image index: {:.1} bytes a file, built in {:.2?}",
        index.len() as f64 / files as f64,
        start.elapsed()
    );
    let file = std::env::temp_dir().join(format!("index-size-{}.idx", std::process::id()));
    std::fs::write(&file, &index)?;
    let status = Command::new(std::env::current_exe()?).arg(&file).status();
    std::fs::remove_file(&file)?;
    if status?.success() { Ok(()) } else { Err("the reading process failed".into()) }
}
