//! What a stack of layers shows.

use std::fs::{self, Permissions};
use std::io::ErrorKind as Io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use storage_model::Labels;
use storage_sys::tree::{Attributes, EntryPath, Start, Timestamp, Tree, read_xattr};

use super::{Bench, active, committed, describe, refused};
use crate::ErrorKind;

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn owner(path: &Path) -> (u32, u32) {
    let facts = path.symlink_metadata().unwrap();
    (facts.uid(), facts.gid())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

pub(super) fn an_empty_snapshot_is_a_directory_of_mode_755(bench: &mut Bench<'_>) {
    let mounts = bench.snapshotter().prepare(&active("a"), None, &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| {
        assert_eq!((mode(root), owner(root)), (0o755, (0, 0)));
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    });
}

pub(super) fn a_changed_file_shows_its_last_content_and_mode(bench: &mut Bench<'_>) {
    // Same length, changed within one tick of a coarse clock, some across a second: what compares times is caught.
    bench.layer("0", None, |root| {
        for n in 1..=5 {
            fs::write(root.join(n.to_string()), "0").unwrap();
        }
    });
    for n in 1..=5_u32 {
        let parent = (n - 1).to_string();
        bench.layer(&n.to_string(), Some(&parent), |root| {
            let file = root.join(n.to_string());
            fs::write(&file, n.to_string()).unwrap();
            set_mode(&file, 0o600 + n);
            if n == 3 {
                std::thread::sleep(Duration::from_millis(1_050));
            }
        });
        bench.look(&n.to_string(), |root| {
            for m in 1..=5 {
                let file = root.join(m.to_string());
                let expected =
                    if m <= n { (m.to_string(), 0o600 + m) } else { ("0".to_owned(), mode(&file)) };
                assert_eq!((read(&file), mode(&file)), expected, "file {m} in layer {n}");
            }
        });
    }
}

pub(super) fn a_directory_that_was_made_anew_hides_what_it_held(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        fs::create_dir_all(root.join("dir/below")).unwrap();
        fs::write(root.join("dir/old"), "").unwrap();
        fs::write(root.join("dir/below/older"), "").unwrap();
    });
    bench.layer("two", Some("one"), |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/new"), "").unwrap();
    });
    bench.layer("three", Some("two"), |root| fs::create_dir(root.join("dir/below")).unwrap());
    bench.look("three", |root| {
        let mut names: Vec<_> = describe(root).into_keys().map(|path| path.display().to_string()).collect();
        names.sort();
        assert_eq!(names, ["", "dir", "dir/below", "dir/new"]);
    });
}

pub(super) fn owners_and_modes_survive_commits(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        fs::create_dir_all(root.join("dir/below")).unwrap();
        set_mode(&root.join("dir"), 0o1777);
        set_mode(&root.join("dir/below"), 0o2750);
        fs::write(root.join("dir/file"), "").unwrap();
        chown(root.join("dir/file"), Some(1), Some(2)).unwrap();
        set_mode(&root.join("dir/file"), 0o4711);
    });
    bench.layer("two", Some("one"), |root| {
        chown(root.join("dir/file"), Some(3), Some(4)).unwrap();
        set_mode(&root.join("dir/file"), 0o6755);
        fs::write(root.join("dir/other"), "").unwrap();
        chown(root.join("dir"), Some(70_000), Some(80_000)).unwrap();
    });
    bench.layer("three", Some("two"), |root| fs::write(root.join("dir/below/new"), "").unwrap());
    bench.look("three", |root| {
        let seen = |name: &str| (owner(&root.join(name)), mode(&root.join(name)));
        assert_eq!(seen("dir"), ((70_000, 80_000), 0o1777));
        assert_eq!(seen("dir/below"), ((0, 0), 0o2750));
        assert_eq!(seen("dir/file"), ((3, 4), 0o6755));
    });
    bench.look("one", |root| assert_eq!(owner(&root.join("dir/file")), (1, 2)));
}

pub(super) fn the_top_directory_keeps_its_owner_and_mode(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        chown(root, Some(5), Some(6)).unwrap();
        set_mode(root, 0o555);
    });
    bench.layer("two", Some("one"), |root| {
        assert_eq!((mode(root), owner(root)), (0o555, (5, 6)));
        fs::write(root.join("file"), "").unwrap();
    });
    bench.look("two", |root| assert_eq!((mode(root), owner(root)), (0o555, (5, 6))));
    bench.layer("three", Some("two"), |root| set_mode(root, 0o1700));
    bench.look("three", |root| assert_eq!((mode(root), owner(root)), (0o1700, (5, 6))));
    // A layer that was unpacked beside its parent and does not mention the top directory.
    let s = bench.snapshotter();
    let mounts = s.prepare(&active("beside"), None, &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| fs::write(root.join("more"), "").unwrap());
    s.commit(&active("beside"), &committed("four"), Some(&committed("two")), &Labels::new()).unwrap();
    bench.look("four", |root| assert_eq!((mode(root), owner(root)), (0o555, (5, 6))));
}

pub(super) fn deleted_files_stay_deleted(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        for file in ["x", "a/y", "a/b/z", "kept"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("kept", root.join("link")).unwrap();
    });
    bench.layer("two", Some("one"), |root| {
        fs::remove_file(root.join("x")).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::remove_dir_all(root.join("a/b")).unwrap();
    });
    bench.layer("three", Some("two"), |root| fs::remove_file(root.join("a/y")).unwrap());
    bench.layer("four", Some("three"), |root| fs::write(root.join("x"), "again").unwrap());
    bench.look("three", |root| {
        let names: Vec<_> = describe(root).into_keys().collect();
        assert_eq!(names, ["", "a", "kept"].map(std::path::PathBuf::from));
    });
    bench.look("four", |root| assert_eq!(read(root.join("x")), "again"));
    bench.look("one", |root| assert_eq!(describe(root).len(), 8));
}

pub(super) fn a_link_to_a_lower_file_outlives_its_first_name(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), "content").unwrap();
    });
    bench.layer("two", Some("one"), |root| {
        fs::hard_link(root.join("dir/file"), root.join("linked")).unwrap();
        fs::remove_file(root.join("dir/file")).unwrap();
    });
    bench.layer("three", Some("two"), |root| {
        fs::hard_link(root.join("linked"), root.join("first")).unwrap();
        fs::hard_link(root.join("linked"), root.join("second")).unwrap();
    });
    bench.look("three", |root| {
        assert_eq!(read(root.join("linked")), "content");
        assert!(!root.join("dir/file").exists());
        let inode = |name: &str| root.join(name).metadata().unwrap().ino();
        assert_eq!(inode("first"), inode("second"), "two names of one layer are one file");
    });
}

pub(super) fn times_links_and_sockets_survive(bench: &mut Bench<'_>) {
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    bench.layer("one", None, |root| {
        let file = fs::File::create(root.join("file")).unwrap();
        file.set_modified(then).unwrap();
        symlink("/absolute/nowhere", root.join("link")).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    });
    let one = bench.look("one", describe);
    bench.layer("two", Some("one"), |root| fs::write(root.join("other"), "").unwrap());
    bench.look("two", |root| {
        let mut two = describe(root);
        assert!(two.remove(Path::new("other")).is_some());
        assert_eq!(two, one);
        assert_eq!(root.join("file").metadata().unwrap().modified().unwrap(), then);
    });
    bench.layer("three", Some("two"), |root| set_mode(&root.join("file"), 0o604));
    bench.look("three", |root| {
        let facts = root.join("file").metadata().unwrap();
        assert_eq!((facts.modified().unwrap(), facts.mode() & 0o7777), (then, 0o604));
    });
}

pub(super) fn extended_attributes_survive(bench: &mut Bench<'_>) {
    let xattrs: Vec<(Vec<u8>, Vec<u8>)> =
        [("user.colour", &b"red"[..]), ("trusted.note", b"\0\xff"), ("user.empty", b"")]
            .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
            .to_vec();
    let s = bench.snapshotter();
    let key = active("a");
    s.prepare(&key, None, &Labels::new()).unwrap();
    let mut tree = Tree::open(&s.layer_target(&key).unwrap().path, Start::Upper).unwrap();
    let then = Timestamp { seconds: 1, nanoseconds: 0 };
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: then, atime: then, xattrs: &xattrs };
    let (file, directory) = (EntryPath::parse(b"file").unwrap(), EntryPath::parse(b"dir").unwrap());
    let open = tree.file(&file, 0o644).unwrap();
    tree.close(open, &attributes).unwrap();
    tree.directory(&directory, &attributes).unwrap();
    tree.finish().unwrap();
    s.commit(&key, &committed("one"), None, &Labels::new()).unwrap();
    bench.layer("two", Some("one"), |root| {
        set_mode(&root.join("file"), 0o600);
        fs::write(root.join("dir/new"), "").unwrap();
    });
    for name in ["one", "two"] {
        bench.look(name, |root| {
            for (entry, (key, value)) in
                ["file", "dir"].iter().flat_map(|e| xattrs.iter().map(move |x| (e, x)))
            {
                let key = std::str::from_utf8(key).unwrap();
                assert_eq!(
                    read_xattr(&root.join(entry), key).unwrap().as_ref(),
                    Some(value),
                    "{key} of {entry}"
                );
            }
        });
    }
}

pub(super) fn files_can_be_renamed_over_others(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| {
        fs::create_dir_all(root.join("dir")).unwrap();
        for file in ["a", "dir/b", "dir/c"] {
            fs::write(root.join(file), file).unwrap();
        }
    });
    bench.layer("two", Some("one"), |root| {
        fs::rename(root.join("a"), root.join("dir/b")).unwrap();
        fs::rename(root.join("dir/c"), root.join("d")).unwrap();
        fs::create_dir(root.join("own")).unwrap();
        fs::rename(root.join("own"), root.join("moved")).unwrap();
    });
    bench.look("two", |root| {
        assert_eq!((read(root.join("dir/b")), read(root.join("d"))), ("a".into(), "dir/c".into()));
        assert!(!root.join("a").exists() && !root.join("dir/c").exists());
        assert!(root.join("moved").is_dir() && !root.join("own").exists());
    });
}

pub(super) fn lower_directories_are_renamed_or_refused(bench: &mut Bench<'_>) {
    let renames = bench.implementation.renames_lower_directories();
    bench.layer("one", None, |root| {
        fs::create_dir_all(root.join("from/below")).unwrap();
        fs::write(root.join("from/below/file"), "x").unwrap();
    });
    bench.layer("two", Some("one"), |root| match fs::rename(root.join("from"), root.join("to")) {
        Ok(()) => assert!(renames),
        Err(error) => assert!(!renames && error.kind() == Io::CrossesDevices, "{error}"),
    });
    let shown = if renames { "to" } else { "from" };
    bench.look("two", |root| {
        assert_eq!(read(root.join(shown).join("below/file")), "x");
        assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    });
}

pub(super) fn a_view_refuses_every_write(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| fs::write(root.join("file"), "x").unwrap());
    bench.layer("two", Some("one"), |root| fs::write(root.join("more"), "x").unwrap());
    for parent in ["one", "two"] {
        bench.look(parent, |root| {
            let refusals = [
                fs::write(root.join("file"), "y").unwrap_err(),
                fs::write(root.join("new"), "y").unwrap_err(),
                fs::remove_file(root.join("file")).unwrap_err(),
                fs::create_dir(root.join("dir")).unwrap_err(),
                fs::set_permissions(root.join("file"), Permissions::from_mode(0o777)).unwrap_err(),
                chown(root, Some(1), None).unwrap_err(),
            ];
            for refusal in refusals {
                assert_eq!(refusal.kind(), Io::ReadOnlyFilesystem);
            }
            assert_eq!(read(root.join("file")), "x");
        });
    }
}

pub(super) fn a_view_of_nothing_is_empty_and_read_only(bench: &mut Bench<'_>) {
    let mounts = bench.snapshotter().view(&active("view"), None, &Labels::new()).unwrap();
    bench.mounted(&mounts, |root| {
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
        assert_eq!(fs::write(root.join("x"), "").unwrap_err().kind(), Io::ReadOnlyFilesystem);
    });
}

pub(super) fn the_layers_of_a_committed_snapshot_are_listed_highest_first(bench: &mut Bench<'_>) {
    bench.layer("one", None, |root| fs::write(root.join("1"), "").unwrap());
    bench.layer("two", Some("one"), |root| fs::write(root.join("2"), "").unwrap());
    let s = bench.snapshotter();
    let layers = s.layers(&committed("two")).unwrap();
    assert!(!layers.is_empty() && layers.iter().all(|layer| layer.is_absolute() && layer.is_dir()));
    assert!(layers[0].join("2").exists(), "{layers:?}");
    assert!(layers[layers.len() - 1].join("1").exists(), "{layers:?}");
    s.prepare(&active("a"), None, &Labels::new()).unwrap();
    refused(s.layers(&committed("a")), ErrorKind::NotFound);
    refused(s.layers(&committed("nobody")), ErrorKind::NotFound);
}
