//! eStargz and zstd:chunked.

use std::io::Read;

use lazy_index::{Limits, estargz, zstd_chunked};
use proptest::prelude::*;
use storage_layer::tar::{EntryKind, Reader};
use storage_model::{Compression, Digest};

use super::model::{Given, assert_shows, entry, in_file, layer, noise, tar};
use crate::{BuildError, Dialect, Format, LayerOptions, Written, write_layer};

const ALL: [Format; 3] =
    [Format::Estargz, Format::ZstdChunked(Dialect::Containers), Format::ZstdChunked(Dialect::Stargz)];

fn write(tar: &[u8], options: &LayerOptions) -> (Written, Vec<u8>) {
    let mut blob = Vec::new();
    let written = write_layer(&in_file(tar), &mut blob, options).unwrap();
    assert_eq!((written.digest, written.size), (Digest::of(&blob), blob.len() as u64));
    assert_eq!(written.source_diff_id.0, Digest::of(tar));
    (written, blob)
}

fn decompressed(blob: &[u8], compression: Compression) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut blob = blob;
    let mut source: Box<dyn Read> = match compression {
        Compression::None => Box::new(&mut blob),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(blob)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(blob).unwrap()),
    };
    source.read_to_end(&mut bytes).unwrap();
    drop(source);
    bytes
}

/// The table of contents as a reader finds it: by footer, checked by annotation.
fn read(format: Format, written: &Written, blob: &[u8]) -> lazy_index::Toc {
    let bytes = blob.len() as u64;
    let limits = Limits::default();
    let note = |name: &str| written.annotations[name].as_str();
    let Format::ZstdChunked(dialect) = format else {
        let footer = estargz::Footer::parse(&blob[blob.len() - 51..], bytes).unwrap();
        let estargz::Footer::Inside { toc_offset, footer_bytes } = footer else { panic!("{footer:?}") };
        let member = &blob[toc_offset as usize..(bytes - footer_bytes) as usize];
        let end = decompressed(member, Compression::Gzip);
        let mut reader = Reader::new(&end[..], &storage_layer::Limits::default());
        assert_eq!(reader.next_entry().unwrap().unwrap().name, b"stargz.index.json");
        let size: usize = reader.offset().try_into().unwrap();
        let json = &end[size..];
        let json = &json[..json.iter().rposition(|byte| *byte == b'}').unwrap() + 1];
        assert_eq!(note(estargz::TOC_DIGEST), Digest::of(json).to_string());
        assert_eq!(written.toc_digest, Digest::of(json));
        return estargz::toc(json, toc_offset, &limits).unwrap();
    };
    let (found, position) = zstd_chunked::Position::from_footer(&blob[blob.len() - 72..], bytes).unwrap();
    let coded = &blob[position.offset as usize..(position.offset + position.coded_bytes) as usize];
    let (dialect, checksum, at) = match dialect {
        Dialect::Containers => (
            zstd_chunked::Dialect::Containers,
            zstd_chunked::CONTAINERS_CHECKSUM,
            zstd_chunked::CONTAINERS_POSITION,
        ),
        Dialect::Stargz => {
            (zstd_chunked::Dialect::Stargz, zstd_chunked::STARGZ_CHECKSUM, zstd_chunked::STARGZ_POSITION)
        }
    };
    assert_eq!(found, dialect);
    assert_eq!(zstd_chunked::Position::from_annotation(note(at), bytes).unwrap(), position);
    assert_eq!(note(checksum), Digest::of(coded).to_string());
    let json = decompressed(coded, Compression::Zstd);
    assert_eq!(written.toc_digest, Digest::of(&json));
    zstd_chunked::toc(&json, dialect, position.payload_end(), &limits).unwrap().toc
}

#[test]
fn every_format_shows_every_entry_and_byte_of_the_layer() {
    let given = layer();
    let tar = tar(&given);
    for format in ALL {
        let (written, blob) = write(&tar, &LayerOptions::new(format));
        let inside = decompressed(&blob, format.compression());
        assert_eq!(written.diff_id.0, Digest::of(&inside), "{format:?}");
        assert_eq!(written.uncompressed_bytes, inside.len() as u64);
        assert_shows(&read(format, &written, &blob), &blob, &given, true);
        if format.keeps_diff_id() {
            assert!(inside == tar, "the tar stays what it was");
        }
    }
}

#[test]
fn an_ordinary_reader_finds_the_same_entries_in_the_blob() {
    let given = layer();
    for format in ALL {
        let (_, blob) = write(&tar(&given), &LayerOptions::new(format));
        let inside = decompressed(&blob, format.compression());
        let mut reader = Reader::new(&inside[..], &storage_layer::Limits::default());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            if !entry.name.ends_with(b".landmark") && entry.name != b"stargz.index.json" {
                found.push(entry);
            }
        }
        let names: Vec<_> = found.iter().map(|entry| entry.name.clone()).collect();
        let expected: Vec<_> = given.iter().map(|(entry, _)| entry.name.clone()).collect();
        let plain = |names: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            names.into_iter().map(|name| name.strip_suffix(b"/").unwrap_or(&name).to_vec()).collect()
        };
        assert_eq!(plain(names), plain(expected), "{format:?}");
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let tar = tar(&layer());
    for format in ALL {
        let made = [1, 2, 7].map(|threads| {
            let options = LayerOptions { threads, chunk_bytes: 100_000, ..LayerOptions::new(format) };
            write(&tar, &options)
        });
        assert!(made[0] == made[1] && made[1] == made[2], "{format:?}");
    }
}

#[test]
fn what_is_read_first_comes_first_with_its_directories_and_what_it_links_to() {
    let tar = tar(&layer());
    let prioritized: Vec<Vec<u8>> = ["zz/last", "usr/lib/other-name", "not/there", "usr/bin/ping"]
        .map(|path| path.as_bytes().to_vec())
        .into();
    for format in [Format::Estargz, Format::ZstdChunked(Dialect::Stargz)] {
        let options = LayerOptions { prioritized: prioritized.clone(), ..LayerOptions::new(format) };
        let (written, blob) = write(&tar, &options);
        let toc = read(format, &written, &blob);
        let names: Vec<String> =
            toc.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect();
        let expected = [
            "zz/last",
            "usr",
            "usr/lib/large",
            "usr/lib/other-name",
            "usr/bin",
            "usr/bin/ping",
            ".prefetch.landmark",
        ];
        assert_eq!(names[..7], expected, "{format:?}");
        assert_shows(&toc, &blob, &layer(), true);
        let first = toc.prefetch_bytes.unwrap();
        assert!(first > 1 << 20 && first < blob.len() as u64, "{first} of {}", blob.len());
        let (_, without) = write(&tar, &LayerOptions::new(format));
        assert!(
            decompressed(&without, format.compression())
                .windows(22)
                .any(|at| at == b".no.prefetch.landmark\0")
        );
    }
}

#[test]
fn a_lazy_layer_that_is_converted_again_has_one_landmark_and_one_table() {
    let given = layer();
    let (first, blob) = write(&tar(&given), &LayerOptions::new(Format::Estargz));
    let inside = decompressed(&blob, Compression::Gzip);
    let (second, again) = write(&inside, &LayerOptions::new(Format::Estargz));
    assert_eq!((first.digest, first.annotations), (second.digest, second.annotations));
    assert_shows(&read(Format::Estargz, &second_of(&again, &inside), &again), &again, &given, true);
}

fn second_of(blob: &[u8], tar: &[u8]) -> Written {
    let (written, same) = write(tar, &LayerOptions::new(Format::Estargz));
    assert!(same == blob);
    written
}

#[test]
fn a_path_that_occurs_twice_is_its_last_entry() {
    let file = |name: &str, content: &[u8]| entry(name, EntryKind::File, content);
    let given = [file("a", b"first"), file("b", b"b"), file("a", b"second, and longer")];
    let (written, blob) = write(&tar(&given), &LayerOptions::new(Format::Estargz));
    assert_shows(&read(Format::Estargz, &written, &blob), &blob, &given[1..], true);
    // Dialect C keeps the tar, and has no tar-split then.
    let format = Format::ZstdChunked(Dialect::Containers);
    let (written, blob) = write(&tar(&given), &LayerOptions::new(format));
    assert!(decompressed(&blob, Compression::Zstd) == tar(&given));
    assert!(!written.annotations.contains_key(zstd_chunked::CONTAINERS_TAR_SPLIT));
}

#[test]
fn what_a_table_of_contents_cannot_say_is_refused_before_anything_is_written() {
    let file = |name: &str, content: &[u8]| entry(name, EntryKind::File, content);
    let mut not_text = file("x", b"1");
    not_text.0.name = b"\xff\xfe".to_vec();
    let replaced: Vec<Given> =
        vec![file("a", b"first"), entry("b", EntryKind::HardLink(b"a".to_vec()), b""), file("a", b"second")];
    let mut late = file("x", b"1");
    late.0.mtime.seconds = 400_000_000_000;
    for (format, given) in
        [(ALL[0], vec![not_text.clone()]), (ALL[1], vec![not_text]), (ALL[0], replaced), (ALL[2], vec![late])]
    {
        let mut blob = Vec::new();
        let refused = write_layer(&in_file(&tar(&given)), &mut blob, &LayerOptions::new(format)).unwrap_err();
        assert!(refused.is_inexpressible(), "{refused}");
        assert!(blob.is_empty());
    }
}

#[test]
fn a_level_that_the_format_does_not_have_is_refused() {
    let tar = in_file(&tar(&layer()));
    for (format, level) in [(ALL[0], 10), (ALL[1], 0), (ALL[2], 23), (ALL[0], -1)] {
        let options = LayerOptions { level: Some(level), ..LayerOptions::new(format) };
        let refused = write_layer(&tar, Vec::new(), &options).unwrap_err();
        assert!(matches!(refused, BuildError::Level { .. }), "{refused}");
    }
}

#[test]
fn a_sparse_file_is_shown_whole_by_every_format() {
    // PAX 1.0: the map lies in front of the data.
    let (data, size) = (noise(1500, 8), 3_000_000u64);
    let map = format!("1\n1048576\n{}\n", data.len());
    let mut stored = map.into_bytes();
    stored.resize(512, 0);
    stored.extend_from_slice(&data);
    let mut content = vec![0; size as usize];
    content[1_048_576..1_048_576 + data.len()].copy_from_slice(&data);
    let tar = super::model::tar(&[entry("before", EntryKind::File, b"x")]);
    let mut sparse = pax_sparse("sparse", size, &stored);
    sparse.extend_from_slice(&tar);
    let mut expected = entry("sparse", EntryKind::File, &content);
    expected.0.mtime = storage_sys::tree::Timestamp::default();
    (expected.0.mode, expected.0.uid, expected.0.gid) = (0o644, 0, 0);
    let given = [expected, entry("before", EntryKind::File, b"x")];
    for format in ALL {
        let (written, blob) = write(&sparse, &LayerOptions::new(format));
        assert_shows(&read(format, &written, &blob), &blob, &given, true);
    }
}

#[test]
fn l4_a_hole_that_would_fill_the_disk_is_refused_and_one_in_an_index_costs_nothing() {
    let huge = pax_sparse("huge", 1 << 40, &[&b"0\n"[..], &[0; 510]].concat());
    for format in ALL {
        let refused = write_layer(&in_file(&huge), Vec::new(), &LayerOptions::new(format)).unwrap_err();
        assert!(refused.is_inexpressible(), "{refused}");
    }
    let options = crate::IndexOptions::default();
    let toc = crate::index_layer(&huge[..], Compression::None, &options).unwrap().toc;
    toc.validate(huge.len() as u64, &Limits::default()).unwrap();
    let endless = pax_sparse("endless", 1 << 60, &[&b"0\n"[..], &[0; 510]].concat());
    let refused = crate::index_layer(&endless[..], Compression::None, &options).unwrap_err();
    assert!(matches!(refused, BuildError::Limit { .. }), "{refused}");
}

fn pax_sparse(name: &str, size: u64, stored: &[u8]) -> Vec<u8> {
    let record = |text: &str| {
        let length =
            (1..).find(|length: &usize| length.to_string().len() + text.len() + 2 == *length).unwrap();
        format!("{length} {text}\n")
    };
    let records = [
        record("GNU.sparse.major=1"),
        record("GNU.sparse.minor=0"),
        record(&format!("GNU.sparse.name={name}")),
        record(&format!("GNU.sparse.realsize={size}")),
    ]
    .concat();
    let header = |name: &str, kind: u8, size: usize| {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000000");
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    };
    let mut tar = header("PaxHeaders/x", b'x', records.len());
    tar.extend_from_slice(records.as_bytes());
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar.extend(header("GNUSparseFile.0/x", b'0', stored.len()));
    tar.extend_from_slice(stored);
    tar.resize(tar.len().next_multiple_of(512), 0);
    tar
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_layer_comes_back_from_any_format(
        sizes in proptest::collection::vec((0usize..100_000, any::<u64>(), any::<bool>()), 1..12),
        chunk_bytes in 4096u64..70_000,
        first in 0usize..12,
    ) {
        let given: Vec<Given> = sizes.iter().enumerate().map(|(number, (size, seed, zeros))| {
            let content = if *zeros { vec![0; *size] } else { noise(*size, *seed) };
            entry(&format!("d{}/f{number}", number % 3), EntryKind::File, &content)
        }).collect();
        let tar = tar(&given);
        for format in ALL {
            let prioritized = vec![given[first % given.len()].0.name.clone()];
            let options = LayerOptions { chunk_bytes, prioritized, level: Some(1), ..LayerOptions::new(format) };
            let (written, blob) = write(&tar, &options);
            assert_shows(&read(format, &written, &blob), &blob, &given, true);
        }
    }
}
