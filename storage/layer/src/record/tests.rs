//! What is written comes back; what was changed does not pass.

use std::io::Cursor;

use proptest::prelude::*;

use super::write::RecordWriter;
use super::*;

fn what() -> impl Strategy<Value = What> {
    let number = 0u32..1 << 20;
    prop_oneof![
        Just(What::Directory),
        (any::<u64>(), any::<Option<Hash>>()).prop_map(|(size, content)| What::File { size, content }),
        Just(What::Link { first: 0 }),
        prop::collection::vec(1u8.., 0..40).prop_map(|target| What::Symlink { target }),
        (number.clone(), number.clone()).prop_map(|(major, minor)| What::Char { major, minor }),
        (number.clone(), number).prop_map(|(major, minor)| What::Block { major, minor }),
        Just(What::Fifo),
    ]
}

prop_compose! {
    fn entry()(
        path in "[a-c]{1,2}(/[a-c.-]{3,5}){0,3}",
        what in what(),
        marks in any::<(bool, bool)>(),
        mode in 0u32..0o10000,
        owner in (0..u32::MAX, 0..u32::MAX),
        seconds: i64,
        nanoseconds in 0u32..1_000_000_000,
        xattrs: Option<Hash>,
    ) -> Recorded {
        let directory = what == What::Directory;
        let path = EntryPath::parse(path.as_bytes()).unwrap();
        let (implied, opaque) = (marks.0 && directory, marks.1 && directory);
        let mtime = Timestamp { seconds, nanoseconds };
        if matches!(what, What::Link { .. }) {
            let mtime = Timestamp::default();
            return Recorded { path, what, implied, opaque, mode: 0, uid: 0, gid: 0, mtime, xattrs: None };
        }
        Recorded { path, what, implied, opaque, mode, uid: owner.0, gid: owner.1, mtime, xattrs }
    }
}

fn root() -> Recorded {
    Recorded {
        path: EntryPath::root(),
        what: What::Directory,
        implied: true,
        opaque: false,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: None,
    }
}

fn written(entries: &[Recorded]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new()).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Recorded>, RecordError> {
    let mut reader = RecordReader::new(Cursor::new(bytes))?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was_written(mut entries in prop::collection::vec(entry(), 0..40)) {
        entries.sort_by(|one, other| in_order(&one.path, &other.path));
        entries.dedup_by(|one, other| one.path == other.path);
        entries.insert(0, root());
        prop_assert_eq!(read(&written(&entries)).unwrap(), entries);
    }

    #[test]
    fn a_record_with_one_bit_flipped_or_cut_off_is_refused(entries in prop::collection::vec(entry(), 0..5), at: usize, bit in 0u8..8) {
        let mut entries = entries;
        entries.sort_by(|one, other| in_order(&one.path, &other.path));
        entries.dedup_by(|one, other| one.path == other.path);
        entries.insert(0, root());
        let mut bytes = written(&entries);
        let at = at % bytes.len();
        prop_assert!(read(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(matches!(read(&bytes), Err(RecordError::Checksum | RecordError::Format)));
    }

    #[test]
    fn a_sealed_record_of_any_bytes_is_read_or_refused_and_never_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [MAGIC.as_slice(), &[flags::DIRECTORY, 0, 0, 0, 0, 0, 0, 0], &body].concat();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        let _ = read(&bytes);
    }

    #[test]
    fn the_order_is_that_of_a_walk(one in "[a-c.-]{1,2}(/[a-c.-]{3}){0,2}", other in "[a-c.-]{1,2}(/[a-c.-]{3}){0,2}") {
        let parts = |path: &EntryPath| path.as_bytes().split(|&b| b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (Ok(one), Ok(other)) = (EntryPath::parse(one.as_bytes()), EntryPath::parse(other.as_bytes())) else {
            return Ok(());
        };
        if !one.is_root() && !other.is_root() {
            prop_assert_eq!(in_order(&one, &other), parts(&one).cmp(&parts(&other)));
        }
    }
}
