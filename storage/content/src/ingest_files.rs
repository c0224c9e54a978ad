//! Ingests as they lie on disk: `ingests/<id>/{info,data}`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Digest, Namespace};

use crate::StoreError;
use crate::error::IoContext as _;
use crate::ingest::{Expected, IngestStatus};
use crate::layout::Layout;
use crate::metadata::record::nanos;
use crate::trash::Trash;

/// The `info` file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) namespace: String,
    pub(crate) reference: String,
    pub(crate) expected: Expected,
    #[serde(with = "nanos")]
    pub(crate) started: SystemTime,
}

/// An ingest found on disk.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) namespace: Namespace,
    pub(crate) info: Info,
}

/// Name of an ingest's directory.
pub(crate) fn id_of(namespace: &Namespace, reference: &str) -> String {
    Digest::of(format!("{namespace}\0{reference}").as_bytes()).hex()
}

impl Found {
    pub(crate) fn status(&self) -> IngestStatus {
        let facts = self.directory.join("data").metadata().ok();
        IngestStatus {
            reference: self.info.reference.clone(),
            offset: facts.as_ref().map_or(0, std::fs::Metadata::len),
            expected: self.info.expected,
            started: self.info.started,
            updated: facts.and_then(|facts| facts.modified().ok()).unwrap_or(self.info.started),
        }
    }
}

/// Writes `info`. It needs no sync: an ingest is no promise, and one whose `info` is torn is dropped at the next start.
pub(crate) fn write_info(directory: &Path, info: &Info) -> Result<(), StoreError> {
    let (draft, path) = (directory.join("info.new"), directory.join("info"));
    let text = serde_json::to_vec(info).expect("an ingest's facts are strings and numbers");
    std::fs::write(&draft, text).doing("write", &draft)?;
    std::fs::rename(&draft, &path).doing("write", &path)
}

/// The ingest in `directory`, if it is whole.
pub(crate) fn load(id: String, directory: PathBuf) -> Option<Found> {
    let text = std::fs::read(directory.join("info")).ok()?;
    let info: Info = serde_json::from_slice(&text).ok()?;
    let namespace = info.namespace.parse().ok()?;
    (id_of(&namespace, &info.reference) == id).then_some(Found { id, directory, namespace, info })
}

/// Every whole ingest of the store.
pub(crate) fn list(layout: &Layout) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    for entry in layout.ingests.read_dir().doing("list", &layout.ingests)? {
        let entry = entry.doing("list", &layout.ingests)?;
        if let Ok(id) = entry.file_name().into_string() {
            found.extend(load(id, entry.path()));
        }
    }
    Ok(found)
}

/// Removes what is in the directory of ingests and is none: what a crash left while one was made, published or removed.
pub(crate) fn discard_broken(layout: &Layout, trash: &Trash) -> Result<u64, StoreError> {
    let mut discarded = 0;
    for entry in layout.ingests.read_dir().doing("list", &layout.ingests)? {
        let path = entry.doing("list", &layout.ingests)?.path();
        let id = path.file_name().and_then(|id| id.to_str()).map(str::to_owned);
        let whole = id.and_then(|id| load(id, path.clone())).is_some() && path.join("data").is_file();
        if !whole {
            trash.discard(&path)?;
            discarded += 1;
        }
    }
    Ok(discarded)
}
