//! Checkpoints: a task's processes as files, and back.
//!
//! CRIU, called by the OCI runtime, writes a directory of images. It goes into the content store as one tar, whose
//! descriptor has [`MEDIA_TYPE`], beside the container's spec. To restore, that tar is unpacked into a private directory.
//! A checkpoint may come from anybody: only plain files and directories are taken from it (CVE-2026-53489).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use prost_types::Any;
use runtime_api::any;
use runtime_api::containerd::runc::v1::{CheckpointOptions, Options};
use runtime_api::containerd::task::v2 as wire;
use snapshotters_contract::Mount;
use storage_content::{ErrorKind, Expected};
use storage_layer::UnpackOptions;
use storage_model::{Compression, Descriptor, Digest, Labels, Namespace, media};

use super::{CreateTask, TaskError};
use crate::{DiffRequest, Engine, EngineError};

/// Media type of a checkpoint's images (containerd's `images.MediaTypeContainerd1Checkpoint`).
const MEDIA_TYPE: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";

/// Media type of the spec beside it.
const SPEC_MEDIA_TYPE: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";

/// Type URL of an OCI spec as containerd's clients spell it.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// A directory that goes when it is dropped, unless it is somebody else's.
#[derive(Debug)]
pub(super) struct Images {
    path: PathBuf,
    ours: bool,
}

impl Images {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn new(state: &Path) -> Result<Self, TaskError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = state.join("checkpoints").join(name);
        fs::create_dir_all(&path).map_err(TaskError::io("create", &path))?;
        Ok(Self { path, ours: true })
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Engine {
    /// Writes a task's processes into files: into the directory that `options` names, or into blobs, whose descriptors are
    /// returned.
    ///
    /// # Errors
    /// The shim's, with the OCI runtime's words; [`EngineError::Store`]. The task goes on.
    pub fn checkpoint_task(
        &self,
        namespace: &Namespace,
        id: &str,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>, EngineError> {
        let record = self.record(namespace, id)?;
        let shim = self.shim(namespace, id)?;
        let theirs = given::<CheckpointOptions>(options.as_ref()).map(|options| options.image_path);
        let images = match theirs.filter(|path| !path.is_empty()) {
            Some(path) => Images { path: path.into(), ours: false },
            None => Images::new(&self.config().state)?,
        };
        let path = images.path().display().to_string();
        shim.link().order("Checkpoint", &wire::CheckpointTaskRequest { id: id.to_owned(), path, options })?;
        if !images.ours {
            return Ok(Vec::new());
        }
        let right = Mount {
            kind: "bind".to_owned(),
            source: images.path().display().to_string(),
            options: vec!["rbind".to_owned(), "ro".to_owned()],
            target: String::new(),
        };
        let space = self.space(namespace);
        let request = DiffRequest {
            right: vec![right],
            media_type: media::OCI_LAYER.to_owned(),
            ..DiffRequest::default()
        };
        let mut tar = self.diff(&space, &request)?;
        tar.media_type = MEDIA_TYPE.to_owned();
        let spec = Any { type_url: SPEC_TYPE.to_owned(), value: record.spec }.encode_to_vec();
        let digest = Digest::of(&spec);
        let expected = Expected::exactly(digest, spec.len() as u64);
        let mut ingest = space.ingest(&format!("checkpoint-{digest}"), expected)?;
        ingest.truncate(0)?;
        ingest.write(&spec)?;
        match ingest.commit(expected, Labels::new()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        Ok(vec![tar, Descriptor::new(SPEC_MEDIA_TYPE, digest, spec.len() as u64)])
    }

    /// The directory that a new task is to be restored from, if it is.
    pub(super) fn restore_from(
        &self,
        namespace: &Namespace,
        wanted: &CreateTask,
    ) -> Result<Option<Images>, EngineError> {
        let theirs = given::<Options>(wanted.options.as_ref()).map(|options| options.criu_image_path);
        if let Some(path) = theirs.filter(|path| !path.is_empty()) {
            return Ok(Some(Images { path: path.into(), ours: false }));
        }
        let Some(checkpoint) = &wanted.checkpoint else { return Ok(None) };
        if checkpoint.media_type != MEDIA_TYPE {
            let media_type = checkpoint.media_type.chars().take(128).collect();
            return Err(TaskError::CheckpointType { media_type, expected: MEDIA_TYPE }.into());
        }
        let blob = self.space(namespace).open_blob(&checkpoint.digest)?;
        let images = Images::new(&self.config().state)?;
        let failed = |source| EngineError::Layer {
            reference: MEDIA_TYPE.to_owned(),
            digest: checkpoint.digest,
            source,
        };
        let options = UnpackOptions::default();
        storage_layer::unpack(blob, Compression::None, images.path(), &options, &|_| {}).map_err(failed)?;
        let refused = |source| TaskError::Checkpoint { digest: checkpoint.digest.to_string(), source };
        only_plain(images.path()).map_err(refused)?;
        Ok(Some(images))
    }
}

/// The options, if they are of this kind.
fn given<M: Message + prost::Name + Default>(options: Option<&Any>) -> Option<M> {
    options.and_then(|options| any::unpack(options).ok())
}

/// Refuses a tree that holds anything but files and directories.
fn only_plain(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            only_plain(&entry.path())?;
        } else if !kind.is_file() {
            let words = format!("{:?} is neither a file nor a directory", entry.file_name());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, words));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_a_checkpoint_with_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/pages-1.img"), "x").unwrap();
        only_plain(directory.path()).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", directory.path().join("a/dump.log")).unwrap();
        assert!(only_plain(directory.path()).unwrap_err().to_string().contains("dump.log"));
    }

    #[test]
    fn images_of_ours_go_and_those_of_a_client_stay() {
        let state = tempfile::tempdir().unwrap();
        let ours = Images::new(state.path()).unwrap();
        let path = ours.path().to_owned();
        assert!(path.is_dir());
        drop(ours);
        assert!(!path.exists());
        drop(Images { path: state.path().to_owned(), ours: false });
        assert!(state.path().exists());
    }
}
