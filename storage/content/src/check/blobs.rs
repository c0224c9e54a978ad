//! Is every blob's file there, of its size, and of its digest.
//!
//! Sizes are compared always, and the manifests and indexes of images hashed always: they decide what an image is, and
//! were read to follow references anyway. With `read_data` every blob of the subset is hashed, on a thread for each
//! processor.

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use storage_model::{Digest, Hasher};

use super::{CheckPhase, Finding, Pass, Problem, Suspect};
use crate::StoreError;
use crate::blob::{ContentRecord, digest_of};
use crate::store::Store;
use crate::thing::Thing;

/// Size of one read, in bytes: large enough that the call costs nothing beside the hash.
const READ_BYTES: usize = 1 << 20;

/// Time between two words on progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A blob to look at.
#[derive(Clone, Copy)]
struct Job {
    digest: Digest,
    size: u64,
    read: bool,
}

/// What a worker says.
enum News {
    Read(u64),
    Looked,
    Damaged(Digest, Problem),
}

impl Pass<'_> {
    pub(super) fn check_blobs(&mut self) {
        let mut jobs = Vec::new();
        let (options, needs) = (self.options, &self.needs);
        let _ = self.store.0.metadata.walk_readable(&[], |row, content: ContentRecord| {
            jobs.extend(digest_of(row).map(|digest| {
                let read =
                    needs.is_document(&digest) || options.read_data && in_subset(&digest, options.subset);
                Job { digest, size: content.size, read }
            }));
            ControlFlow::Continue(())
        });
        let total = jobs.iter().filter(|job| job.read).map(|job| job.size).sum();
        self.work(&jobs, total);
    }

    fn work(&mut self, jobs: &[Job], total: u64) {
        let (next, store, stop) = (AtomicUsize::new(0), self.store, &*self.options.stop);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            let (out, news) = mpsc::sync_channel(64);
            for _ in 0..threads {
                let (out, next) = (out.clone(), &next);
                scope.spawn(move || {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.load(Ordering::Relaxed) || look(store, job, stop, &out).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(out);
            self.listen(&news, total);
        });
    }

    fn listen(&mut self, news: &mpsc::Receiver<News>, total: u64) {
        let (mut done, mut told) = (0, Instant::now());
        for one in news {
            match one {
                News::Read(bytes) => {
                    done += bytes;
                    self.summary.bytes_read += bytes;
                }
                News::Looked => self.summary.objects += 1,
                News::Damaged(digest, problem) => {
                    let namespaces = self.store.holders_of(&digest);
                    let images = self.needs.of(&digest);
                    let suspect = Suspect::Thing(Thing::Blob(digest));
                    self.found(Finding { suspect, namespaces, problem, images });
                }
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                self.progress(CheckPhase::Blobs, done, total);
            }
        }
        self.progress(CheckPhase::Blobs, done, total);
    }
}

/// Whether a blob is in the part that is read.
fn in_subset(digest: &Digest, subset: Option<(u32, u32)>) -> bool {
    let Some((index, count)) = subset else { return true };
    let [a, b, c, d, ..] = *digest.as_bytes();
    u32::from_be_bytes([a, b, c, d]) % count == index - 1
}

/// Looks at one blob. The error is that nobody listens any more.
fn look(
    store: &Store,
    job: &Job,
    stop: &AtomicBool,
    out: &mpsc::SyncSender<News>,
) -> Result<(), mpsc::SendError<News>> {
    let first = problem_of(store, job, stop, &mut |bytes| out.send(News::Read(bytes)))?;
    // Once more: it may have been deleted, or brought back, since its record was read.
    let second = match first {
        Some(_) if is_recorded(store, &job.digest) => problem_of(store, job, stop, &mut |_| Ok(()))?,
        _ => None,
    };
    match second {
        Some(problem) if is_recorded(store, &job.digest) => out.send(News::Damaged(job.digest, problem))?,
        _ => {}
    }
    out.send(News::Looked)
}

fn is_recorded(store: &Store, digest: &Digest) -> bool {
    store.0.metadata.get::<ContentRecord>(digest.as_bytes()).is_ok_and(|record| record.is_some())
}

/// What is wrong with a blob's file now.
fn problem_of<E>(
    store: &Store,
    job: &Job,
    stop: &AtomicBool,
    read: &mut dyn FnMut(u64) -> Result<(), E>,
) -> Result<Option<Problem>, E> {
    let path = store.blob_path(&job.digest);
    let unreadable = |action, error| Ok(Some(Problem::Unreadable(StoreError::io(action, &path, error))));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Problem::FileGone)),
        Err(error) => return unreadable("open", error),
    };
    match file.metadata() {
        Ok(facts) if facts.len() != job.size => {
            return Ok(Some(Problem::Size { expected: job.size, found: facts.len() }));
        }
        Ok(_) if !job.read => return Ok(None),
        Ok(_) => {}
        Err(error) => return unreadable("inspect", error),
    }
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES.min(usize::try_from(job.size).unwrap_or(READ_BYTES)).max(1)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                read(count as u64)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return unreadable("read", error),
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let found = hasher.finish();
    Ok((found != job.digest).then_some(Problem::Digest { found }))
}
