//! Sessions on real mounts, in a mount namespace of the test's own thread. The bytes are made up; a second thread breaks the
//! connection if a test takes longer than a minute, so that nothing hangs for ever.
// Every function here is part of a test; clippy knows only those with the attribute.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex};

use storage_sys::mount::{self, Attributes};

use super::*;
use crate::testing::{self, LARGE_BYTES, MANY, MadeUp, can_mount, content};

/// Longest a test may take before its connection is broken.
const WATCHDOG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Notes {
    ended: Mutex<bool>,
    changed: Condvar,
    backings: Mutex<Vec<(u32, BackingId)>>,
}

struct Note(Arc<Notes>);

impl Observer for Note {
    fn backings(&self, backings: Vec<(u32, BackingId)>) {
        *self.0.backings.lock().unwrap() = backings;
    }

    fn ended(&self) {
        *self.0.ended.lock().unwrap() = true;
        self.0.changed.notify_all();
    }
}

/// A mount of this thread's own namespace, taken away in the end.
struct Mounted {
    directory: tempfile::TempDir,
    device: Device,
    session: Arc<Session>,
    notes: Arc<Notes>,
    minor: u32,
    _watchdog: mpsc::Sender<()>,
}

fn mounted(index: &Arc<ImageIndex>, bytes: MadeUp) -> Mounted {
    storage_sys::process::own_mount_namespace().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let device = Device::open().unwrap();
    let word = |key: &str, value: String| (key.to_owned(), Some(value));
    let settings = [
        word("fd", device.as_fd().as_raw_fd().to_string()),
        word("rootmode", "40000".into()),
        word("user_id", "0".into()),
        word("group_id", "0".into()),
        word("max_read", READ_BYTES_MAX.to_string()),
        ("default_permissions".to_owned(), None),
        ("allow_other".to_owned(), None),
    ];
    let detached = mount::file_system("fuse", "test", &settings, Attributes::READ_ONLY).unwrap();
    let (_, minor) = storage_sys::fuse::mount_device(&detached).unwrap();
    let negotiated = shake_hands(&device, index).unwrap();
    let notes = Arc::new(Notes::default());
    let shown = Shown { index: index.clone(), bytes: Arc::new(bytes) };
    let copy = device.try_clone().unwrap();
    let session = Session::start(copy, shown, negotiated, None, Box::new(Note(notes.clone()))).unwrap();
    mount::attach(detached, directory.path()).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || watch(&receiver, minor));
    Mounted { directory, device, session, notes, minor, _watchdog: sender }
}

fn watch(end: &mpsc::Receiver<()>, minor: u32) {
    if end.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout) {
        let scratch = tempfile::tempdir().unwrap();
        storage_sys::fuse::abort_connection(minor, scratch.path()).unwrap();
    }
}

impl Mounted {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = mount::detach(self.directory.path());
    }
}

fn index(with_many: bool) -> Arc<ImageIndex> {
    Arc::new(testing::index(with_many))
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

#[test]
fn a_mounted_image_shows_every_attribute_and_byte() {
    if !can_mount() {
        return;
    }
    let index = index(true);
    let mount = mounted(&index, MadeUp::new(&index));
    assert_eq!(mount.session.negotiated.opening, Opening::Silent);
    let small = fs::metadata(mount.path("dir/small")).unwrap();
    assert_eq!((small.size(), small.mode(), small.uid(), small.gid()), (5000, 0o100_644, 7, 8));
    assert_eq!((small.mtime(), small.mtime_nsec()), (1_700_000_000, 123_456_789));
    assert_eq!((small.nlink(), small.ino()), (2, fs::metadata(mount.path("hard")).unwrap().ino()));
    assert_eq!(fs::metadata(mount.path("dir")).unwrap().mode(), 0o040_750);
    let null = fs::symlink_metadata(mount.path("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), storage_sys::fuse::device_number(1, 3));
    assert!(fs::symlink_metadata(mount.path("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(mount.path("dir/link")).unwrap(), Path::new("../large"));
    assert_eq!(fs::read(mount.path("dir/small")).unwrap(), content(5000));
    assert_eq!(fs::read(mount.path("hard")).unwrap(), content(5000));
    assert_eq!(fs::read(mount.path("dir/empty")).unwrap(), b"");
    assert_eq!(fs::read(mount.path("dir/link")).unwrap(), content(LARGE_BYTES));
    let large = File::open(mount.path("large")).unwrap();
    let mut part = [0; 100];
    assert_eq!(large.read_at(&mut part, LARGE_BYTES - 10).unwrap(), 10);
    assert_eq!(large.read_at(&mut part, LARGE_BYTES + 4096).unwrap(), 0);
    assert_eq!(errno_of(&fs::read(mount.path("absent")).unwrap_err()), 2);
    let long = "n".repeat(256);
    assert_eq!(errno_of(&fs::metadata(mount.path(&long)).unwrap_err()), 36);
    assert_eq!(errno_of(&File::create(mount.path("new")).unwrap_err()), 30);
}

#[test]
fn a_directory_is_listed_whole_and_from_any_place() {
    if !can_mount() {
        return;
    }
    let index = index(true);
    let mount = mounted(&index, MadeUp::new(&index));
    let names = |path: &str| -> Vec<OsString> {
        fs::read_dir(mount.path(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    let many: BTreeSet<_> = names("many").into_iter().collect();
    assert_eq!(many.len(), MANY as usize);
    assert!(many.iter().enumerate().all(|(at, name)| *name == *format!("file-{at:05}")));
    let kinds: Vec<_> = fs::read_dir(mount.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_type().unwrap())
        .filter(|kind| kind.is_dir())
        .collect();
    assert_eq!(kinds.len(), 2);
    // From where a listing was left to its end, and again from the same place.
    let mut directory = rustix::fs::Dir::new(File::open(mount.path("many")).unwrap()).unwrap();
    let mut list = |from: Option<i64>| -> Vec<(Vec<u8>, i64)> {
        match from {
            Some(place) => directory.seek(place).unwrap(),
            None => directory.rewind(),
        }
        let entries = std::iter::from_fn(|| directory.read()).map(Result::unwrap);
        entries.map(|entry| (entry.file_name().to_bytes().to_vec(), entry.offset())).collect()
    };
    let seen = list(None);
    assert_eq!(seen.len(), MANY as usize + 2);
    let rest = list(Some(seen[1500].1));
    assert_eq!(rest, seen[1501..]);
}

#[test]
fn extended_attributes_are_read_and_listed() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    let mount = mounted(&index, MadeUp::new(&index));
    let get = |name: &str, path: &str| storage_sys::tree::read_xattr(&mount.path(path), name);
    assert_eq!(get("user.note", "dir/small").unwrap().unwrap(), b"value");
    assert_eq!(get("security.capability", "hard").unwrap().unwrap().len(), 20);
    assert_eq!(get("user.absent", "dir/small").unwrap(), None);
}

#[test]
fn l8_a_read_that_a_dead_server_had_taken_is_answered_by_its_successor() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    // The first server takes the read and never answers it: its thread sleeps for ever, as a killed one would.
    let (taken, was_taken) = mpsc::channel();
    let mut stuck = MadeUp::new(&index);
    let taken = Mutex::new(Some(taken));
    stuck.before = Box::new(move |_, _| {
        let first = taken.lock().unwrap().take();
        if let Some(taken) = first {
            taken.send(()).unwrap();
            loop {
                std::thread::park();
            }
        }
    });
    let mount = mounted(&index, stuck);
    let path = mount.path("dir/small");
    let reader = std::thread::spawn(move || fs::read(path).unwrap());
    was_taken.recv().unwrap();
    assert!(mount.session.negotiated().has_resend());
    let shown = Shown { index: index.clone(), bytes: Arc::new(MadeUp::new(&index)) };
    let negotiated = mount.session.negotiated().clone();
    let copy = mount.device.try_clone().unwrap();
    let _second =
        Session::start(copy, shown, negotiated, Some(&[]), Box::new(Note(mount.notes.clone()))).unwrap();
    assert_eq!(reader.join().unwrap(), content(5000));
}

#[test]
fn l9_looking_at_a_tree_does_not_wait_for_reads_that_wait() {
    if !can_mount() {
        return;
    }
    let index = index(true);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let large = index.find(b"large").unwrap();
    let mut bytes = MadeUp::new(&index);
    bytes.remote = vec![large];
    let at_gate = gate.clone();
    bytes.before = Box::new(move |node, _| {
        if node == large {
            let open = at_gate.0.lock().unwrap();
            drop(at_gate.1.wait_while(open, |open| !*open).unwrap());
        }
    });
    let mount = mounted(&index, bytes);
    let readers: Vec<_> = (0..60u64)
        .map(|number| {
            let file = File::open(mount.path("large")).unwrap();
            std::thread::spawn(move || {
                let mut part = vec![0; 100];
                file.read_exact_at(&mut part, number * 300_000).unwrap();
                part
            })
        })
        .collect();
    // All that may wait do wait, and the others stand in line.
    while mount.session.counts().in_flight < 40 {
        std::thread::yield_now();
    }
    assert_eq!(fs::read_dir(mount.path("many")).unwrap().count(), MANY as usize);
    assert_eq!(fs::read(mount.path("dir/small")).unwrap(), content(5000));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for (number, reader) in readers.into_iter().enumerate() {
        let start = number as u64 * 300_000;
        let expected: Vec<u8> = (start..start + 100).map(|at| testing::byte(LARGE_BYTES, at)).collect();
        assert_eq!(reader.join().unwrap(), expected);
    }
}

#[test]
fn a_read_that_panics_is_an_error_and_the_others_go_on() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    let large = index.find(b"large").unwrap();
    let mut bytes = MadeUp::new(&index);
    bytes.before = Box::new(move |node, _| assert!(node != large, "made up"));
    let mount = mounted(&index, bytes);
    for _ in 0..50 {
        assert_eq!(errno_of(&fs::read(mount.path("large")).unwrap_err()), 5);
    }
    assert_eq!(fs::read(mount.path("dir/small")).unwrap(), content(5000));
}

#[test]
fn a_session_ends_when_its_last_user_has_gone() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    let mount = mounted(&index, MadeUp::new(&index));
    let file = File::open(mount.path("large")).unwrap();
    mount::detach(mount.directory.path()).unwrap();
    let mut part = vec![0; 4096];
    file.read_exact_at(&mut part, 1 << 20).unwrap();
    assert!(!*mount.notes.ended.lock().unwrap());
    drop(file);
    let ended = mount.notes.ended.lock().unwrap();
    drop(mount.notes.changed.wait_while(ended, |ended| !*ended).unwrap());
}

#[test]
fn large_complete_files_are_read_by_the_kernel_itself_also_after_a_takeover() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    let mut whole = tempfile::tempfile().unwrap();
    whole.write_all(&content(LARGE_BYTES)).unwrap();
    let mut bytes = MadeUp::new(&index);
    bytes.whole = Some(Arc::new(whole));
    let mount = mounted(&index, bytes);
    if mount.session.negotiated.opening != Opening::Passthrough {
        return eprintln!("skipped: this kernel has no passthrough");
    }
    assert_eq!(fs::read(mount.path("large")).unwrap(), content(LARGE_BYTES));
    assert_eq!(mount.session.counts().reads, 0, "the kernel read it by itself");
    assert_eq!(fs::read(mount.path("dir/small")).unwrap(), content(5000));
    assert!(mount.session.counts().reads > 0, "small ones come from the server");
    let backings = mount.notes.backings.lock().unwrap().clone();
    assert_eq!(backings.len(), 1);
    // A successor knows what is read that way, and reads all else in the cached way.
    let held = File::open(mount.path("large")).unwrap();
    let shown = Shown { index: index.clone(), bytes: Arc::new(MadeUp::new(&index)) };
    let copy = mount.device.try_clone().unwrap();
    let negotiated = mount.session.negotiated().clone();
    let second = OpenFiles::inherited(&backings);
    let large = index.find(b"large").unwrap();
    assert_eq!(second.open(large, &copy, &*shown.bytes), (Some(backings[0].1), false));
    let _second =
        Session::start(copy, shown, negotiated, Some(&backings), Box::new(Note(mount.notes.clone())))
            .unwrap();
    let mut again = Vec::new();
    File::open(mount.path("large")).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == content(LARGE_BYTES));
    drop(held);
}

#[test]
fn an_aborted_connection_fails_and_does_not_hang() {
    if !can_mount() {
        return;
    }
    let index = index(false);
    let mut bytes = MadeUp::new(&index);
    let (taken, was_taken) = mpsc::channel();
    let taken = Mutex::new(taken);
    bytes.before = Box::new(move |_, _| {
        taken.lock().unwrap().send(()).unwrap();
        loop {
            std::thread::park();
        }
    });
    let mount = mounted(&index, bytes);
    let path = mount.path("dir/small");
    let reader = std::thread::spawn(move || fs::read(path).unwrap_err());
    was_taken.recv().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let outcome = storage_sys::fuse::abort_connection(mount.minor, scratch.path()).unwrap();
    assert_eq!(outcome, storage_sys::fuse::Abort::Done);
    reader.join().unwrap();
}
