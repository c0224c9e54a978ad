use super::*;
use crate::Kind;
use proptest::prelude::*;

fn footer(dialect: Dialect, numbers: &[u64]) -> Vec<u8> {
    let (magic, count) = match dialect {
        Dialect::Containers => (MAGIC_CONTAINERS, 7),
        Dialect::Stargz => (MAGIC_STARGZ, 4),
    };
    let mut all = numbers.to_vec();
    all.resize(count, 0);
    let body: Vec<u8> = all.iter().flat_map(|number| number.to_le_bytes()).chain(*magic).collect();
    [&SKIPPABLE[..], &(body.len() as u32).to_le_bytes(), &body].concat()
}

#[test]
fn both_footers_are_read_and_told_apart() {
    let place = Position { offset: 208, coded_bytes: 50, bytes: 400 };
    assert_eq!(place.payload_end(), 200);
    for dialect in [Dialect::Containers, Dialect::Stargz] {
        let tail = [&[9; 30][..], &footer(dialect, &[208, 50, 400, 1, 266, 10, 20])].concat();
        assert_eq!(Position::from_footer(&tail, 1000).unwrap(), (dialect, place));
    }
    assert_eq!(Position::from_annotation("208:50:400:1", 1000).unwrap(), place);
}

#[test]
fn l2_a_position_that_wraps_around_or_leaves_the_blob_is_refused() {
    for (offset, coded) in
        [(0, 10), (7, 10), (8, 0), (1 << 63, 10), (u64::MAX, 2), (8, u64::MAX), (990, 20), (8, 1 << 63)]
    {
        for dialect in [Dialect::Containers, Dialect::Stargz] {
            let parsed = Position::from_footer(&footer(dialect, &[offset, coded, 10, 1]), 1000);
            assert!(matches!(parsed, Err(IndexError::Format { .. })), "{offset} {coded} {parsed:?}");
        }
        assert!(Position::from_annotation(&format!("{offset}:{coded}:10:1"), 1000).is_err());
    }
    // The table may not reach into the footer.
    assert!(Position::from_footer(&footer(Dialect::Stargz, &[8, 944, 10, 1]), 1000).is_ok());
    assert!(Position::from_footer(&footer(Dialect::Stargz, &[8, 945, 10, 1]), 1000).is_err());
    assert!(Position::from_footer(&footer(Dialect::Stargz, &[8, 10, 10, 2]), 1000).is_err());
}

#[test]
fn l2_an_annotation_that_is_not_four_numbers_is_refused() {
    for text in [
        "",
        "8",
        "8:9:10",
        "8:9:10:2",
        "8:9:10:1:1",
        "+8:9:10:1",
        "-8:9:10:1",
        "8: 9:10:1",
        "8:9::1",
        "99999999999999999999:9:10:1",
    ] {
        assert!(Position::from_annotation(text, 1000).is_err(), "{text:?} was accepted");
    }
}

#[test]
fn tables_of_podman_are_read_with_holes_and_ends() {
    let d = Digest::of(b"x");
    let json = format!(
        r#"{{"version":1,"entries":[
        {{"type":"dir","name":"./","mode":493,"modtime":"2020-01-02T03:04:05.000000006Z"}},
        {{"type":"reg","name":"a","size":5,"digest":"{d}","offset":20,"endOffset":40}},
        {{"type":"reg","name":"b","size":3000,"digest":"{d}","offset":50,"endOffset":90,"chunkSize":1000,"chunkDigest":"{d}"}},
        {{"type":"chunk","name":"b","offset":70,"chunkOffset":1000,"chunkSize":1500,"chunkType":"zeros"}},
        {{"type":"chunk","name":"b","offset":75,"chunkOffset":2500,"chunkSize":500,"chunkDigest":"{d}"}}
        ],"tarSplitDigest":"{d}"}}"#
    );
    let limits = Limits { chunk_bytes_max: 1000, ..Limits::default() };
    let Contents { toc, tar_split_digest } = toc(json.as_bytes(), Dialect::Containers, 100, &limits).unwrap();
    toc.validate(200, &limits).unwrap();
    assert_eq!(tar_split_digest, Some(d));
    assert_eq!(toc.entries[0].mtime.nanos, 6);
    let groups: Vec<_> = toc.groups.iter().map(|group| (group.offset, group.length, group.coding)).collect();
    assert_eq!(
        groups,
        [(0, 0, Coding::Zeros), (20, 20, Coding::Zstd), (50, 20, Coding::Zstd), (75, 15, Coding::Zstd)]
    );
    let Kind::File { chunks, .. } = &toc.entries[2].kind else { panic!("no file") };
    let pieces: Vec<_> = toc.chunks[chunks.start as usize..chunks.end as usize]
        .iter()
        .map(|chunk| (chunk.file_offset, chunk.length, chunk.group))
        .collect();
    // The hole is longer than a chunk may be and comes in two.
    assert_eq!(pieces, [(0, 1000, 2), (1000, 1000, 0), (2000, 500, 0), (2500, 500, 3)]);
}

#[test]
fn l4_a_frame_that_ends_before_it_begins_is_refused() {
    let d = Digest::of(b"x");
    for (offset, end) in [(20, 20), (20, 19), (20, 300), (0, -1)] {
        let entry = format!(
            r#"{{"type":"reg","name":"a","size":5,"digest":"{d}","offset":{offset},"endOffset":{end}}}"#
        );
        let json = format!(r#"{{"version":1,"entries":[{entry}]}}"#);
        let read = toc(json.as_bytes(), Dialect::Containers, 100, &Limits::default());
        assert!(
            read.and_then(|read| read.toc.validate(200, &Limits::default())).is_err(),
            "{entry} was accepted"
        );
    }
}

proptest! {
    #[test]
    fn l2_no_numbers_make_a_position_that_leaves_the_blob(numbers in prop::collection::vec(any::<u64>(), 4), size in 0u64..5000, small: bool) {
        let numbers: Vec<u64> = numbers.iter().map(|number| if small { number % 6000 } else { *number }).collect();
        for dialect in [Dialect::Containers, Dialect::Stargz] {
            let footer = footer(dialect, &[numbers[0], numbers[1], numbers[2], 1]);
            if let Ok((_, place)) = Position::from_footer(&footer, size) {
                prop_assert!(place.offset >= 8 && place.offset + place.coded_bytes <= size);
            }
        }
    }
}
