//! Archives that lie, break off, or want too much. Whatever happens, no name changes and one collection leaves nothing.

use std::io::{self, Cursor, Read};
use std::time::Duration;

use anyhow::Result;
use runtime_engine::{ArchiveError, EngineError, ErrorKind, ImageError, ImportRequest};
use storage_model::Digest;
use tests::{Entry, Kind, Tar};
use tokio::sync::mpsc;

use crate::bench::{Bench, layout_tar};
use crate::fixtures;

fn refused(bench: &Bench, archive: Vec<u8>) -> Result<EngineError> {
    let imported = bench.import(Cursor::new(archive), ImportRequest::default());
    let error = imported.map(drop).expect_err("a hostile archive was taken");
    assert_eq!(bench.left_as_it_is()?, [""; 0], "{error}");
    Ok(error)
}

fn archive(entries: Vec<Entry>) -> Vec<u8> {
    Tar::of(entries).finish()
}

#[test]
fn vuln_c14_an_archive_never_moves_a_name_that_it_was_not_given() -> Result<()> {
    let bench = Bench::new()?;
    let request = |replace| ImportRequest { base_name: "local/app".into(), replace, ..Default::default() };
    let first = fixtures::crowd(1, 2, 100).0.build()?;
    let second = fixtures::crowd(1, 3, 100).0.build()?;
    bench.import(Cursor::new(layout_tar(&first)?), request(false))?;
    let error = bench.import(Cursor::new(layout_tar(&second)?), request(false)).unwrap_err();
    assert!(matches!(&error, EngineError::Image(ImageError::NameTaken { .. })), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(bench.space().image("docker.io/local/app:latest")?.target.digest, first.root.digest);
    assert!(bench.space().blob(&second.root.digest).is_err(), "what was refused is still here");
    // The same image again is no replacement, and a replacement that was asked for is one.
    bench.import(Cursor::new(layout_tar(&first)?), request(false))?;
    bench.import(Cursor::new(layout_tar(&second)?), request(true))?;
    assert_eq!(bench.space().image("docker.io/local/app:latest")?.target.digest, second.root.digest);
    Ok(())
}

#[test]
fn vuln_c11_a_document_beyond_its_limit_is_refused_before_it_is_read() -> Result<()> {
    let bench = Bench::new()?;
    let large = vec![b' '; (4 << 20) + 1];
    for name in ["index.json", "manifest.json", "oci-layout"] {
        let error = refused(&bench, archive(vec![Entry::file(name, large.clone())]))?;
        assert!(matches!(error, EngineError::Archive(ArchiveError::TooLarge { .. })), "{name}: {error:?}");
    }
    let nested = "[".repeat(1 << 20);
    for name in ["index.json", "manifest.json"] {
        let error = refused(&bench, archive(vec![Entry::file(name, nested.clone())]))?;
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name}: {error:?}");
    }
    // A config of 9 MiB is stored as any file, and refused when it is read.
    let config = vec![b' '; 9 << 20];
    let listing = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]"#;
    let entries = vec![Entry::file("c.json", config), Entry::file("manifest.json", listing)];
    let error = refused(&bench, archive(entries))?;
    assert!(matches!(error, EngineError::Image(ImageError::DocumentSize { .. })), "{error:?}");
    Ok(())
}

#[test]
fn vuln_c11_a_manifest_beyond_its_limit_inside_a_layout_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let manifest = vec![b' '; (4 << 20) + 1];
    let digest = Digest::of(&manifest);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}}]}}"#,
        manifest.len()
    );
    let entries = vec![
        Entry::file(format!("blobs/sha256/{}", digest.hex()), manifest),
        Entry::file("index.json", index),
    ];
    let error = refused(&bench, archive(entries))?;
    assert!(matches!(error, EngineError::Image(ImageError::DocumentSize { .. })), "{error:?}");
    Ok(())
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let image = fixtures::crowd(2, 5, 1000).0.build()?;
    for victim in image.blobs.keys().chain([&image.root.digest]) {
        let mut damaged = image.clone();
        match damaged.blobs.get_mut(victim) {
            Some(bytes) => *bytes.last_mut().expect("no blob is empty") ^= 1,
            None => damaged.document.push(b' '),
        }
        let error = refused(&bench, layout_tar(&damaged)?)?;
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error:?}");
        assert!(error.to_string().contains(&victim.to_string()), "{error}");
    }
    Ok(())
}

#[test]
fn an_archive_with_two_meanings_or_strange_entries_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("two files", vec![Entry::file("index.json", "{}"), Entry::file("index.json", "{}")]),
        ("one file twice", vec![Entry::file("./a", "1"), Entry::file("a", "2")]),
        ("outside", vec![Entry::file("../index.json", "{}")]),
        ("a device", vec![Entry::new("index.json", Kind::Character(1, 5))]),
        ("a pipe", vec![Entry::new("manifest.json", Kind::Fifo)]),
        ("a link outside", vec![Entry::new("l", Kind::Symlink("../../etc/passwd".into()))]),
        ("nothing", vec![]),
        ("no image", vec![Entry::file("readme", "hello")]),
        ("old docker", vec![Entry::file("repositories", "{}")]),
        (
            "a version to come",
            vec![
                Entry::file("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#),
                Entry::file("index.json", r#"{"manifests":[]}"#),
            ],
        ),
        ("an empty index", vec![Entry::file("index.json", r#"{"manifests":[]}"#)]),
        ("a missing config", vec![Entry::file("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#)]),
        (
            "a circle of links",
            vec![
                Entry::new("c.json", Kind::Symlink("d.json".into())),
                Entry::new("d.json", Kind::Symlink("c.json".into())),
                Entry::file("manifest.json", r#"[{"Config":"c.json","Layers":[]}]"#),
            ],
        ),
    ];
    for (case, entries) in cases {
        let error = refused(&bench, archive(entries))?;
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::NotFound),
            "{case}: {error:?} {:?}",
            error.kind()
        );
    }
    let error = refused(&bench, b"BZh91AY&SY".to_vec())?;
    assert!(error.to_string().contains("bzip2"), "{error}");
    Ok(())
}

#[test]
fn an_archive_that_gives_one_name_to_two_images_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let (one, two) = (fixtures::crowd(1, 1, 10).0.build()?, fixtures::crowd(1, 2, 10).0.build()?);
    let mut entries = Vec::new();
    let mut listed = Vec::new();
    for image in [&one, &two] {
        for (digest, bytes) in image.blobs.iter().chain([(&image.root.digest, &image.document)]) {
            entries.push(Entry::file(format!("blobs/sha256/{}", digest.hex()), bytes.clone()));
        }
        listed.push(format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{},"annotations":{{"io.containerd.image.name":"local/app:1"}}}}"#,
            image.root.media_type, image.root.digest, image.root.size
        ));
    }
    entries.push(Entry::file(
        "index.json",
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(",")),
    ));
    let error = refused(&bench, archive(entries))?;
    assert!(matches!(error, EngineError::Archive(ArchiveError::SameName { .. })), "{error:?}");
    Ok(())
}

#[test]
fn an_archive_that_is_cut_off_anywhere_leaves_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let whole = layout_tar(&fixtures::crowd(2, 5, 3000).0.build()?)?;
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, &whole)?;
        encoder.finish()?
    };
    // Behind the last entry only padding is lost, which no reader misses.
    let entries_end = whole.iter().rposition(|byte| *byte != 0).expect("it is not all zeros");
    for part in 0..24 {
        refused(&bench, whole[..entries_end * part / 24].to_vec())?;
        refused(&bench, gzip[..gzip.len() * part / 24].to_vec())?;
    }
    Ok(())
}

#[test]
fn an_archive_with_any_byte_changed_is_refused_or_whole_and_never_more_than_itself() -> Result<()> {
    let bench = Bench::new()?;
    let image = fixtures::crowd(2, 3, 200).0.build()?;
    let whole = layout_tar(&image)?;
    let entries_end = whole.iter().rposition(|byte| *byte != 0).expect("it is not all zeros");
    let random = fixtures::noise(7, 200 * 16);
    let (mut taken, mut refused) = (0, 0);
    for bytes in random.chunks_exact(16) {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (place, kind) = (usize::try_from(number(0))? % entries_end, number(8));
        let mut mutant = whole.clone();
        match kind % 4 {
            0 => mutant[place] ^= 1 << (kind >> 8 & 7),
            1 => mutant[place] = (kind >> 16 & 255) as u8,
            // A block too many, or one too few: everything behind is read at another place.
            2 => drop(mutant.splice(place..place, whole[..512].to_vec())),
            _ => drop(mutant.drain(place..(place + 512).min(whole.len()))),
        }
        match bench.import(Cursor::new(mutant), ImportRequest::default()) {
            Ok(imported) => {
                taken += 1;
                assert!(imported.images.iter().all(|found| found.digest == image.root.digest));
            }
            Err(error) => {
                refused += 1;
                assert_ne!(error.kind(), ErrorKind::Internal, "{error:?}");
            }
        }
        assert_eq!(bench.left()?, [""; 0], "byte {place}, kind {kind}");
    }
    // Owners and times of entries mean nothing here, so some are taken.
    assert!(refused > 100 && taken > 0, "{taken} taken, {refused} refused");
    Ok(())
}

#[test]
fn what_an_import_began_when_its_engine_died_is_gone_when_the_next_one_opens() -> Result<()> {
    let bench = Bench::new()?;
    let root = bench.engine.store().root().to_owned();
    // A dead engine leaves its files behind: a copy of them, taken while the archive stalls, is such a root.
    let whole = layout_tar(&fixtures::crowd(1, 20, 20_000).0.build()?)?;
    let (hold, release) = std::sync::mpsc::channel();
    let source = Stalling { bytes: Cursor::new(whole[..whole.len() / 2].to_vec()), release };
    let (events, _nobody) = mpsc::channel(1);
    let namespace = bench.namespace();
    let import = bench.engine.import(&namespace, ImportRequest::default(), source, events);
    let copied = bench.path("copied");
    bench.runtime.block_on(async {
        let _ = tokio::time::timeout(Duration::from_millis(300), import).await;
    });
    crate::bench::run(bench.directory.path(), "cp", &["-a", &root.to_string_lossy(), "copied"])?;
    assert_eq!(std::fs::read_dir(copied.join("ingests"))?.count(), 1, "nothing was under way");
    drop(hold);
    bench.settle()?;
    let config = runtime_engine::EngineConfig { root: copied.clone(), ..bench.engine.config().clone() };
    let next = runtime_engine::Engine::open(config)?;
    next.collect()?;
    assert_eq!(std::fs::read_dir(copied.join("ingests"))?.count(), 0);
    assert_eq!(std::fs::read_dir(copied.join("blobs/sha256"))?.count(), 0);
    Ok(())
}

/// A source that gives some bytes and then waits until it is dropped, as a client that says nothing more.
struct Stalling {
    bytes: Cursor<Vec<u8>>,
    release: std::sync::mpsc::Receiver<()>,
}

impl Read for Stalling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if read == 0 {
            let _ = self.release.recv();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(read)
    }
}

#[test]
fn an_import_that_is_dropped_leaves_nothing() -> Result<()> {
    let bench = Bench::new()?;
    let whole = layout_tar(&fixtures::crowd(2, 20, 20_000).0.build()?)?;
    for part in 1..6 {
        let (hold, release) = std::sync::mpsc::channel();
        let source = Stalling { bytes: Cursor::new(whole[..whole.len() * part / 6].to_vec()), release };
        let (events, _nobody) = mpsc::channel(1);
        let namespace = bench.namespace();
        let import = bench.engine.import(&namespace, ImportRequest::default(), source, events);
        let dropped =
            bench.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(200), import).await });
        assert!(dropped.is_err(), "the source never ends");
        drop(hold);
        bench.settle()?;
        assert_eq!(bench.left_as_it_is()?, [""; 0]);
    }
    Ok(())
}
