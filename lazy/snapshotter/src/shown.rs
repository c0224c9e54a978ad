//! Which stacks are mounted: made when a snapshot on them is to be mounted, taken away when none stands on them.
//!
//! A stack is shown at `STATE/lazy/<stack>` by the lazy server of this root, which outlives us; so what is mounted is asked,
//! never remembered. Logins that were given by hand are remembered here and nowhere else: after a restart of the engine
//! and of the server they have to be given again, and until then what is not here yet cannot be fetched.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazy_fetch::Trace;
use lazy_index::ImageIndex;
use lazy_mount::{Client, ClientError, Login, MountRequest};
use snapshotters_contract::SnapshotError;

use crate::layer::{Layer, read_small, write_whole};
use crate::shelf::{Shelf, StackId};

pub use lazy_mount::Places;

/// What shows stacks, and their files.
#[derive(Debug)]
pub struct Shown {
    shelf: Shelf,
    places: Places,
    /// Held while a mount is made or taken away, so that none goes that somebody was just given.
    changing: Mutex<()>,
    /// By registry and repository.
    logins: Mutex<BTreeMap<String, Login>>,
}

impl Shown {
    /// Opens the shelf below `root`. Nothing is started.
    ///
    /// # Errors
    /// Those of [`Shelf::open`].
    pub(crate) fn new(root: &Path, places: Places) -> Result<Self, SnapshotError> {
        Ok(Self { shelf: Shelf::open(root)?, places, changing: Mutex::default(), logins: Mutex::default() })
    }

    /// Tables of contents and indexes.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Where everything of the lazy server is.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Remembers a login for the repository of `reference`, in memory.
    pub fn remember_login(&self, reference: &str, login: Login) {
        lock(&self.logins).insert(reference.to_owned(), login);
    }

    /// Mounts the stack of `layers` (lowest first) unless it is, and returns where. `key` names it in errors.
    ///
    /// # Errors
    /// [`SnapshotError::NotShown`] if the server cannot be started or refuses; those of [`Shelf::index`].
    pub fn show(&self, key: &str, layers: &[Layer]) -> Result<PathBuf, SnapshotError> {
        let stack = StackId::of(layers);
        let failed =
            |source: ClientError| SnapshotError::NotShown { key: key.to_owned(), source: Box::new(source) };
        let held = self.shelf.hold();
        let index = self.shelf.index(&stack, layers)?;
        let request = self.request(&stack, index, layers)?;
        let mountpoint = request.mountpoint.clone();
        let changing = lock(&self.changing);
        let client = Client::connect_or_start(&self.places).map_err(failed)?;
        client.mount(&request).map_err(failed)?;
        drop((changing, held));
        Ok(mountpoint)
    }

    fn request(
        &self,
        stack: &StackId,
        index: PathBuf,
        layers: &[Layer],
    ) -> Result<MountRequest, SnapshotError> {
        let failed = |source: lazy_index::IndexError| SnapshotError::NotShown {
            key: stack.as_str().to_owned(),
            source: Box::new(source),
        };
        // A blob may be in several layers, and is in the index once.
        let opened = ImageIndex::open(&index).map_err(failed)?;
        let blobs = opened.blobs();
        let of_blob: Vec<&Layer> =
            blobs.iter().filter_map(|(blob, _)| layers.iter().find(|layer| layer.blob == *blob)).collect();
        let login = layers
            .iter()
            .rev()
            .flat_map(|layer| &layer.origins)
            .find_map(|origin| lock(&self.logins).get(&origin.reference).cloned());
        let trace = self.places.trace(stack.as_str());
        Ok(MountRequest {
            name: stack.as_str().to_owned(),
            index,
            tocs: of_blob.iter().map(|layer| self.shelf.toc_path(&layer.toc)).collect(),
            mountpoint: self.places.mountpoint(stack.as_str()),
            origins: of_blob.iter().map(|layer| layer.origins.clone()).collect(),
            login,
            trace: trace.exists().then_some(trace),
            fill: layers.iter().any(|layer| layer.fill),
        })
    }

    /// The client of the server that runs; none if none does.
    pub fn client(&self) -> Option<Client> {
        Client::connect(&self.places).ok()
    }

    /// Takes away every mount whose stack is not in what `used` says.
    ///
    /// # Errors
    /// Those of `used`; [`SnapshotError::NotShown`] if one could not be taken away: it stays for the next time.
    pub fn hide_unless(
        &self,
        used: impl FnOnce() -> Result<HashSet<StackId>, SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let _changing = lock(&self.changing);
        let Some(client) = self.client() else { return Ok(()) };
        let used: HashSet<String> = used()?.into_iter().map(|stack| stack.as_str().to_owned()).collect();
        let failed = |name: &str, source: ClientError| SnapshotError::NotShown {
            key: name.to_owned(),
            source: Box::new(source),
        };
        let mounts = match client.status(None) {
            Ok(mounts) => mounts,
            // Nothing is mounted, so nobody serves.
            Err(ClientError::NotRunning { .. }) => return Ok(()),
            Err(error) => return Err(failed("", error)),
        };
        for mount in mounts {
            if used.contains(&mount.name) {
                continue;
            }
            self.keep_trace(&client, &mount.name);
            client.unmount(&mount.name).map_err(|error| failed(&mount.name, error))?;
        }
        Ok(())
    }
}

impl Shown {
    /// Writes down what was read of a stack, to fetch along it at its next start. A better trace is not replaced by one of
    /// a start that read less than half as much: that start found its files in the page cache.
    fn keep_trace(&self, client: &Client, name: &str) {
        let path = self.places.trace(name);
        let kept = client.trace(name).map_err(|error| error.to_string()).and_then(|new| {
            let before = read_trace(&path).map_or(0, |before| before.events.len());
            if new.events.len() * 2 < before || new.events.is_empty() {
                return Ok(());
            }
            write_trace(&path, &new).map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            tracing::debug!(name, error, "what was read of an image is not remembered");
        }
    }

    /// The recorded trace of a stack: of the start that goes on, or of the last one.
    pub fn trace(&self, stack: &StackId) -> Option<Trace> {
        let now = self.client().and_then(|client| client.trace(stack.as_str()).ok());
        let before = read_trace(&self.places.trace(stack.as_str()));
        now.filter(|now| before.as_ref().is_none_or(|before| before.events.len() <= now.events.len()))
            .or(before)
    }

    /// Replaces the recorded trace of a stack.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn set_trace(&self, stack: &StackId, trace: &Trace) -> Result<(), SnapshotError> {
        write_trace(&self.places.trace(stack.as_str()), trace)
    }
}

/// Longest trace that is read, in bytes: 50,000 reads of files with long paths.
pub const TRACE_BYTES_MAX: u64 = 32 * 1024 * 1024;

fn read_trace(path: &Path) -> Option<Trace> {
    let text = read_small(path, TRACE_BYTES_MAX).ok().flatten()?;
    serde_json::from_slice(&text).ok()
}

fn write_trace(path: &Path, trace: &Trace) -> Result<(), SnapshotError> {
    let (folder, name) = (path.parent(), path.file_name().and_then(|name| name.to_str()));
    let (Some(folder), Some(name)) = (folder, name) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|source| SnapshotError::io("create", folder, source))?;
    write_whole(folder, name, &serde_json::to_vec(trace).expect("strings and numbers"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
