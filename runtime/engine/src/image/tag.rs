//! Further names for an image.

use storage_content::{ErrorKind, ImageRecord, Space};
use storage_model::{Digest, Labels, Namespace, Reference};

use super::{ImageError, resolve};
use crate::{Engine, EngineError};

/// Label with which an image ends by itself; a new name is a new image and does not inherit its end.
const EXPIRES: &str = "containerd.io/gc.expire";

impl Engine {
    /// Gives the image that `image` means the further `names`, and returns them whole.
    ///
    /// A name that stands for the same target already is fine. With `force` names of other images move over.
    ///
    /// # Errors
    /// [`ImageError::NameTaken`] if a name stands for another target and `force` is not set;
    /// [`ImageError::PinnedName`] if a name has a digest that is not the image's. Then no name was given.
    pub fn tag(
        &self,
        namespace: &Namespace,
        image: &str,
        names: &[String],
        force: bool,
    ) -> Result<Vec<String>, EngineError> {
        let space = self.space(namespace);
        let source = resolve::find(&space, image)?;
        let labels = inherited(&source.labels);
        let mut records = Vec::with_capacity(names.len());
        for name in names {
            let name = whole_name(name, &source.target.digest)?;
            records.push(ImageRecord::new(name, source.target.clone(), labels.clone()));
        }
        publish(&space, records, force)
    }
}

/// The labels that another name of an image begins with.
pub(crate) fn inherited(labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    labels.remove(EXPIRES);
    labels
}

/// The whole name that `text` means for an image with this target.
///
/// # Errors
/// [`EngineError::Reference`] if it is no name; [`ImageError::PinnedName`] if it names another digest.
pub(crate) fn whole_name(text: &str, target: &Digest) -> Result<String, EngineError> {
    let reference: Reference =
        text.parse().map_err(|source| EngineError::Reference { text: text.to_owned(), source })?;
    match reference.digest() {
        Some(pinned) if pinned != target => {
            Err(ImageError::PinnedName { name: reference.to_string(), target: *target }.into())
        }
        _ => Ok(reference.to_string()),
    }
}

/// Writes the names of images, all or none, and returns them.
///
/// Without `replace` a name that stands for another target is an error; who takes one meanwhile keeps it.
///
/// # Errors
/// [`ImageError::NameTaken`] or [`EngineError::Store`]; names that were written before are taken back.
pub(crate) fn publish(
    space: &Space,
    records: Vec<ImageRecord>,
    replace: bool,
) -> Result<Vec<String>, EngineError> {
    let names = records.iter().map(|record| record.name.clone()).collect();
    if replace {
        for record in records {
            space.put_image(record)?;
        }
        return Ok(names);
    }
    for record in &records {
        if let Some(before) = present(space, &record.name)? {
            unless_taken(&before, record)?;
        }
    }
    let mut written: Vec<ImageRecord> = Vec::new();
    for record in records {
        if let Err(error) = create(space, &record, &mut written) {
            for record in &written {
                if let Err(error) = space.delete_image_if(&record.name, Some(&record.target.digest)) {
                    tracing::warn!(%error, name = record.name, "a name that should not be there stays");
                }
            }
            return Err(error);
        }
    }
    Ok(names)
}

fn create(space: &Space, record: &ImageRecord, written: &mut Vec<ImageRecord>) -> Result<(), EngineError> {
    match space.create_image(record.clone()) {
        Ok(_) => {
            written.push(record.clone());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match present(space, &record.name)? {
            Some(before) => unless_taken(&before, record),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn present(space: &Space, name: &str) -> Result<Option<ImageRecord>, EngineError> {
    match space.image(name) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn unless_taken(before: &ImageRecord, record: &ImageRecord) -> Result<(), EngineError> {
    if before.target.digest == record.target.digest {
        return Ok(());
    }
    Err(ImageError::NameTaken {
        name: record.name.clone(),
        present: before.target.digest,
        wanted: record.target.digest,
    }
    .into())
}
