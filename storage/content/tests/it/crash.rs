//! kill -9 at random moments: what was acknowledged is there, what was not is absent or resumable, nothing leaks.
//!
//! The victim is this test program again, running [`victim`] alone: it works without pause and writes a line to its
//! standard output when the store has acknowledged something. The line is written after the call returned, so every line
//! that arrives is a promise.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use storage_content::{
    EPHEMERAL_LABEL, Expected, ImageRecord, NewSnapshot, SnapshotKind, Space, Store, Usage,
};
use storage_model::{Digest, Labels};

use crate::support::{descriptor, digests, labels, names};

/// Directory of the victim's store.
const ROOT: &str = "WINDLASS_TEST_VICTIM_ROOT";
/// Where the victim goes on.
const FROM: &str = "WINDLASS_TEST_VICTIM_FROM";

/// Killings; each costs about 60 ms.
const ROUNDS: u64 = 60;

/// Not a test: the process that is killed.
#[test]
#[ignore = "started by the tests of this module"]
fn victim() {
    let root = std::env::var_os(ROOT).expect("the root is given by who starts this");
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let store = Store::open(Path::new(&root)).unwrap();
    let space = store.space(&"default".parse().unwrap());
    for at in from.. {
        work(&store, &space, at);
    }
}

fn acknowledge(what: &str, name: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what} {name}").unwrap();
    out.flush().unwrap();
}

fn bytes(at: u64, part: u64) -> Vec<u8> {
    format!("content {at} {part} ").into_bytes().repeat(usize::try_from(at % 7 + 1).unwrap() * 40)
}

/// One round of work: a blob in pieces, two at once, a snapshot, an image, some deletions, a collection.
fn work(store: &Store, space: &Space, at: u64) {
    let lease = space.create_lease(None, labels(&[(EPHEMERAL_LABEL, "1")])).unwrap();
    let leased = space.leased(&lease.id);
    let alone = bytes(at, 0);
    let root = labels(&[("containerd.io/gc.root", "1")]);
    let mut ingest = leased
        .ingest(&format!("alone-{at}"), Expected::exactly(Digest::of(&alone), alone.len() as u64))
        .unwrap();
    for piece in alone.chunks(64) {
        ingest.write(piece).unwrap();
    }
    acknowledge("blob", &ingest.commit(Expected::default(), root.clone()).unwrap().to_string());
    let mut found = Vec::new();
    for part in 1..3 {
        let mut ingest = leased.ingest(&format!("other-{at}-{part}"), Expected::default()).unwrap();
        ingest.write(&bytes(at, part)).unwrap();
        found.push(ingest.commit(Expected::default(), root.clone()).unwrap());
    }
    found.iter().for_each(|digest| acknowledge("blob", &digest.to_string()));
    let table = leased.snapshots("overlayfs");
    let (draft, name) = (format!("draft-{at}"), format!("done-{at}"));
    let record = table.insert(NewSnapshot::Active, &draft, None, Labels::new()).unwrap();
    acknowledge("number", &record.number.to_string());
    table.commit(&draft, &name, None, Usage::default(), root).unwrap();
    acknowledge("snapshot", &name);
    let image = ImageRecord::new(format!("image-{at}"), descriptor(found[0]), Labels::new());
    space.create_image(image).unwrap();
    acknowledge("image", &format!("image-{at}"));
    if at % 5 == 4 {
        space.delete_blob(&Digest::of(&bytes(at - 1, 0))).unwrap();
        acknowledge("deleted", &Digest::of(&bytes(at - 1, 0)).to_string());
        store.collect(&mut |_| ()).unwrap();
    }
    space.delete_lease(&lease.id).unwrap();
}

/// Everything that was acknowledged over all lives of the victim.
#[derive(Default)]
struct Journal {
    blobs: std::collections::BTreeSet<Digest>,
    maybe_deleted: std::collections::BTreeSet<Digest>,
    snapshots: Vec<String>,
    images: Vec<String>,
    numbers: std::collections::BTreeSet<u64>,
}

impl Journal {
    fn read(&mut self, output: impl std::io::Read) -> usize {
        let mut lines = 0;
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut words = line.split(' ');
            if words.next() != Some("ack") {
                continue; // the test harness's own lines
            }
            let (Some(what), Some(name)) = (words.next(), words.next()) else { continue };
            lines += 1;
            match what {
                "blob" => {
                    self.blobs.insert(name.parse().unwrap());
                }
                "deleted" => {
                    self.blobs.remove(&name.parse().unwrap());
                    self.maybe_deleted.insert(name.parse().unwrap());
                }
                "snapshot" => self.snapshots.push(name.to_owned()),
                "image" => self.images.push(name.to_owned()),
                "number" => {
                    assert!(self.numbers.insert(name.parse().unwrap()), "number {name} was given twice")
                }
                other => panic!("unknown acknowledgement {other}"),
            }
        }
        lines
    }
}

/// Starts the victim, lets it live for `life` after its first acknowledgement, kills it.
fn one_life(root: &Path, from: u64, life: Duration, journal: &mut Journal) -> usize {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["crash::victim", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = victim.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|window| window == b"ack ") {
        let mut byte = [0];
        if output.read(&mut byte).unwrap() == 0 {
            panic!("the victim died by itself: {}", String::from_utf8_lossy(&seen));
        }
        seen.push(byte[0]);
    }
    std::thread::sleep(life);
    victim.kill().unwrap();
    victim.wait().unwrap();
    journal.read(std::io::Cursor::new(seen).chain(output))
}

#[test]
fn fault_f1_after_kill_nine_at_random_moments_nothing_acknowledged_is_lost_and_nothing_leaks() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::default();
    // A fixed sequence, so that a failure repeats as far as the machine allows.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut acknowledged = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let life = Duration::from_micros((state >> 33) % 30_000);
        acknowledged += one_life(directory.path(), round * 1000, life, &mut journal);
        let begun = Instant::now();
        let store = Store::open(directory.path()).unwrap();
        slowest = slowest.max(begun.elapsed());
        check(&store, &journal, directory.path());
    }
    assert!(slowest < Duration::from_secs(1), "opening took {slowest:?}");
    assert!(acknowledged as u64 > ROUNDS, "the victim got something done: {acknowledged}");
    eprintln!("{ROUNDS} killings, {acknowledged} acknowledgements, slowest open {slowest:?}");
}

fn check(store: &Store, journal: &Journal, root: &Path) {
    let recovery = store.recovery();
    assert!(recovery.quarantined.is_empty(), "{recovery:?}");
    let space = store.space(&"default".parse().unwrap());
    let here = digests(&space);
    for digest in &journal.blobs {
        // The victim may have died between a deletion and its acknowledgement; only one in five is ever deleted.
        assert!(here.contains(digest) || deletable(digest), "{digest} was acknowledged and is gone");
    }
    for digest in &here {
        let mut content = Vec::new();
        space.open_blob(digest).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(Digest::of(&content), *digest, "what is there is whole");
    }
    assert!(journal.maybe_deleted.iter().all(|digest| !here.contains(digest)), "a deletion was undone");
    let table = space.snapshots("overlayfs");
    for name in &journal.snapshots {
        assert_eq!(table.get(name).unwrap().kind, SnapshotKind::Committed);
    }
    for name in &journal.images {
        space.image(name).unwrap();
    }
    store.collect(&mut |_| ()).unwrap();
    assert!(space.leases().unwrap().is_empty(), "leases end with their process");
    let mut files = names(&root.join("blobs/sha256"));
    files.sort();
    let mut expected: Vec<String> = digests(&space).iter().map(Digest::hex).collect();
    expected.sort();
    assert_eq!(files, expected, "files are records");
    assert!(names(&root.join("trash")).is_empty());
    let ingests = space.ingests().unwrap();
    assert_eq!(names(&root.join("ingests")).len(), ingests.len(), "every ingest can be taken up");
    for ingest in ingests {
        space.ingest(&ingest.reference, Expected::default()).unwrap().abort().unwrap();
    }
    let mut drafts = 0;
    table
        .walk(&mut |record| {
            drafts += usize::from(record.kind == SnapshotKind::Active);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(drafts, 0, "an active snapshot that nobody keeps goes with one collection");
}

/// Whether the victim deletes this blob in some round: the first of a round whose number ends in 3 or 8.
fn deletable(digest: &Digest) -> bool {
    (0..ROUNDS)
        .any(|round| (0..200).any(|at| Digest::of(&bytes(round * 1000 + at, 0)) == *digest && at % 5 == 3))
}
