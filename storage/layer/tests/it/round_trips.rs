//! Properties of packing over generated trees: what is packed, unpacks to the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use storage_layer::tar::{Entry, EntryKind, Reader, Writer};
use storage_layer::{Limits, PackOptions, Whiteouts, pack_difference};
use storage_model::Compression;
use storage_sys::tree::Timestamp;

use crate::packing::{Mounted, copy, difference, overlay, unpack_to};
use crate::support::listing;

/// Something somebody does in a tree. What cannot be done is left undone.
#[derive(Debug, Clone)]
enum Deed {
    Write(String, u8, u16),
    Directory(String),
    Symlink(String, String),
    Link(String, String),
    Rename(String, String),
    Remove(String),
    Mode(String, u32),
    Owner(String, u32),
    Time(String, u64, u32),
    Xattr(String, u8),
}

fn name() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec!["a", "b", "c", "d-e", "f g", "\u{e9}"]);
    prop::collection::vec(component, 1..4).prop_map(|components| components.join("/"))
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (name(), any::<u8>(), 0u16..2000).prop_map(|(name, byte, size)| Deed::Write(name, byte, size)),
        4 => name().prop_map(Deed::Directory),
        2 => (name(), name()).prop_map(|(name, target)| Deed::Symlink(name, target)),
        2 => (name(), name()).prop_map(|(name, target)| Deed::Link(name, target)),
        1 => (name(), name()).prop_map(|(name, target)| Deed::Rename(name, target)),
        3 => name().prop_map(Deed::Remove),
        1 => (name(), 0u32..0o10000).prop_map(|(name, mode)| Deed::Mode(name, mode | 0o700)),
        1 => (name(), 0u32..3_000_000).prop_map(|(name, owner)| Deed::Owner(name, owner)),
        // Two whole seconds only, so that a change may keep both size and time.
        2 => (name(), 1u64..3, prop_oneof![Just(0u32), 1u32..1_000_000_000])
            .prop_map(|(name, seconds, nanoseconds)| Deed::Time(name, seconds, nanoseconds)),
        1 => (name(), any::<u8>()).prop_map(|(name, value)| Deed::Xattr(name, value)),
    ]
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(deed(), 0..25)
}

fn follow(root: &Path, deeds: &[Deed]) {
    for deed in deeds {
        let _ = one(root, deed);
    }
}

fn one(root: &Path, deed: &Deed) -> std::io::Result<()> {
    let at = |name: &str| root.join(name);
    let is_link = |name: &str| fs::symlink_metadata(at(name)).is_ok_and(|stat| stat.is_symlink());
    match deed {
        Deed::Write(name, ..) | Deed::Mode(name, _) | Deed::Time(name, ..) | Deed::Xattr(name, _)
            if is_link(name) => {}
        Deed::Write(name, byte, size) => fs::write(at(name), vec![*byte; usize::from(*size)])?,
        Deed::Directory(name) => fs::create_dir(at(name))?,
        Deed::Symlink(name, target) => symlink(target, at(name))?,
        Deed::Link(name, target) => fs::hard_link(at(target), at(name))?,
        Deed::Rename(name, target) => fs::rename(at(name), at(target))?,
        Deed::Remove(name) => drop(storage_sys::tree::remove_all(&at(name))?),
        Deed::Mode(name, mode) => fs::set_permissions(at(name), fs::Permissions::from_mode(*mode))?,
        Deed::Owner(name, owner) if !is_link(name) => chown(at(name), Some(*owner), None)?,
        Deed::Owner(..) => {}
        Deed::Time(name, seconds, nanoseconds) => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(*seconds, *nanoseconds);
            fs::File::open(at(name))?.set_modified(time)?;
        }
        Deed::Xattr(name, value) => {
            let set = std::process::Command::new("setfattr")
                .args(["-n", "user.value", "-v", &value.to_string()])
                .arg(at(name))
                .stderr(std::process::Stdio::null())
                .status()?;
            assert!(set.success() || fs::metadata(at(name)).is_err());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn unpacking_what_was_packed_gives_the_tree_again(deeds in deeds()) {
        let (tree, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        follow(tree.path(), &deeds);
        let (_, tar) = difference(None, tree.path());
        unpack_to(&tar, back.path(), Whiteouts::Overlay);
        prop_assert_eq!(listing(back.path()), listing(tree.path()));
    }

    #[test]
    fn the_difference_of_any_two_trees_makes_one_of_the_other(before in deeds(), after in deeds()) {
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        follow(lower.path(), &before);
        copy(lower.path(), upper.path());
        follow(upper.path(), &after);
        let (_, tar) = difference(Some(lower.path()), upper.path());
        unpack_to(&tar, lower.path(), Whiteouts::Apply);
        prop_assert_eq!(listing(lower.path()), listing(upper.path()));
    }

    #[test]
    fn whatever_is_done_in_an_overlay_its_layer_does_again(low in deeds(), middle in deeds(), done in deeds()) {
        // The middle layer is made as a container would: in an overlay of its own.
        let first = Mounted::of(Vec::new(), |lower| follow(lower, &low));
        follow(&first.merged(), &middle);
        let mounted = Mounted::of(vec![first.upper(), first.lowers[0].clone()], |_| {});
        let before = tempfile::tempdir().unwrap();
        copy(&mounted.merged(), before.path());
        follow(&mounted.merged(), &done);
        let tar = overlay(&mounted.upper(), &mounted.lowers);
        unpack_to(&tar, before.path(), Whiteouts::Apply);
        prop_assert_eq!(listing(before.path()), listing(&mounted.merged()));
    }

    #[test]
    fn entries_come_back_from_the_archive_as_they_went_in(entries in prop::collection::vec(entry(), 0..8)) {
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            let body = vec![7; usize::try_from(entry.size).unwrap()];
            writer.file(entry, &body[..]).unwrap();
        }
        let archive = writer.finish().unwrap();
        let mut reader = Reader::new(&archive[..], &Limits::default());
        for entry in entries {
            let mut back = reader.next_entry().unwrap().unwrap();
            if back.kind == EntryKind::Directory {
                back.name.pop();
            }
            prop_assert_eq!(back, entry);
        }
        prop_assert_eq!(reader.next_entry().unwrap(), None);
    }
}

prop_compose! {
    fn entry()(
        name in prop::collection::vec(1u8.., 1..300),
        link in prop::collection::vec(1u8.., 1..300),
        kind in 0..7,
        device in (0u32..1 << 12, 0u32..1 << 20),
        mode in 0u32..0o10000,
        owner in (0..u32::MAX, 0..u32::MAX),
        seconds in -(1i64 << 40)..1 << 40,
        nanoseconds in 0u32..1_000_000_000,
        atime: bool,
        xattrs in prop::collection::btree_map("[a-z.]{1,8}", prop::collection::vec(any::<u8>(), 0..9), 0..3),
        size in 0u64..2000,
    ) -> Entry {
        let (major, minor) = device;
        let kind = match kind {
            0 => EntryKind::HardLink(link),
            1 => EntryKind::Symlink(link),
            2 => EntryKind::Char { major, minor },
            3 => EntryKind::Block { major, minor },
            4 => EntryKind::Directory,
            5 => EntryKind::Fifo,
            _ => EntryKind::File,
        };
        let mut name = name;
        while name.last() == Some(&b'/') {
            *name.last_mut().unwrap() = b'x';
        }
        let mtime = Timestamp { seconds, nanoseconds };
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let size = if kind == EntryKind::File { size } else { 0 };
        Entry { name, kind, mode, uid: owner.0, gid: owner.1, mtime, atime: atime.then_some(mtime), xattrs, size }
    }
}

/// The directory of an image that somebody swaps for a link to the host's while it is packed (row U11).
#[test]
fn vuln_u11_a_directory_swapped_for_a_link_while_we_pack_brings_nothing_in() {
    let yard = tempfile::tempdir().unwrap();
    let (tree, outside) = (yard.path().join("tree"), yard.path().join("outside"));
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::create_dir(&outside).unwrap();
    for at in 0..50 {
        fs::write(tree.join(format!("d/f{at}")), "inside").unwrap();
        fs::write(outside.join(format!("f{at}")), "secret").unwrap();
    }
    symlink(&outside, tree.join("s")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut whole, end) = (0, Instant::now() + race_time());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Renames through a third name, as a container would without RENAME_EXCHANGE.
                for (from, to) in [("d", "x"), ("s", "d"), ("x", "s")] {
                    let _ = fs::rename(tree.join(from), tree.join(to));
                }
            }
        });
        while Instant::now() < end {
            let mut tar = Vec::new();
            let options = PackOptions { compression: Compression::None, ..PackOptions::default() };
            // A name that changes its meaning may be an error; it may not be a way out.
            whole += u64::from(pack_difference(None, &tree, &mut tar, &options).is_ok());
            assert!(!tar.windows(6).any(|window| window == b"secret"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(whole > 10, "{whole}");
}

/// How long races are run: 2 s, or `WINDLASS_RACE_SECONDS`.
fn race_time() -> Duration {
    let asked = std::env::var("WINDLASS_RACE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(2))
}
