//! Images: names that point to a descriptor.
//!
//! Whether the content is here is not this table's business (containerd's rule): a pull publishes the name last.

use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Descriptor, Digest, Labels, validate_labels};

use crate::change::Change;
use crate::collect::{EXPIRE_LABEL, Node};
use crate::lease::Resource;
use crate::metadata::key::{self, check_name};
use crate::metadata::record::{self, nanos, nanos_if_any};
use crate::metadata::{Record, Table, Transaction};
use crate::space::Space;
use crate::{StoreError, Subject};

/// An image: a name and what it points to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its name, such as `docker.io/library/alpine:latest`.
    pub name: String,
    /// The manifest or index it points to.
    pub target: Descriptor,
    /// Its labels.
    pub labels: Labels,
    /// When the name was first made here.
    #[serde(with = "nanos")]
    pub created: SystemTime,
    /// When it last changed.
    #[serde(with = "nanos")]
    pub updated: SystemTime,
    /// When it was last used, which [`Space::mark_image_used`] notes: set by the store, kept when the image is replaced.
    #[serde(default, with = "nanos_if_any", skip_serializing_if = "Option::is_none")]
    pub used: Option<SystemTime>,
}

impl Record for ImageRecord {
    const TABLE: Table = Table::Images;
}

impl ImageRecord {
    /// An image made now.
    pub fn new(name: impl Into<String>, target: Descriptor, labels: Labels) -> Self {
        let now = SystemTime::now();
        Self { name: name.into(), target, labels, created: now, updated: now, used: None }
    }

    /// When it was last used, or made if it never was.
    pub fn last_used(&self) -> SystemTime {
        self.used.map_or(self.created, |used| used.max(self.created))
    }

    /// What is told when it was made (`fresh`), replaced or changed.
    fn written(&self, fresh: bool) -> Change {
        let (name, labels) = (self.name.clone(), self.labels.clone());
        if fresh { Change::ImageCreated { name, labels } } else { Change::ImageUpdated { name, labels } }
    }

    fn check(&self) -> Result<(), StoreError> {
        check_name(Subject::Image, &self.name)?;
        Ok(validate_labels(&self.labels)?)
    }
}

/// Beginning of the keys of copies.
pub(crate) const COPY_PREFIX: &[u8] = b"image\0";

/// Key of an image's copy, in [`Table::Meta`].
///
/// All else that is lost to damage can be fetched again or told from the content; which names a user gave to what can not.
/// So names are kept in two tables, which are different files on the disk.
fn copy_key(image_key: &[u8]) -> Vec<u8> {
    [COPY_PREFIX, image_key].concat()
}

/// Deletes the record under `image_key`, and its copy.
pub(crate) fn remove(transaction: &Transaction<'_>, image_key: &[u8]) -> Result<(), StoreError> {
    transaction.delete(Table::Meta, &copy_key(image_key))?;
    transaction.delete(Table::Images, image_key)
}

impl Space {
    /// An image of this namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name.
    pub fn image(&self, name: &str) -> Result<ImageRecord, StoreError> {
        check_name(Subject::Image, name)?;
        let record = self.store.0.metadata.get(&key::key(&self.namespace, &[name]))?;
        record.ok_or_else(|| StoreError::not_found(Subject::Image, name))
    }

    /// The images of this namespace, by name.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let mut found = Vec::new();
        self.store.0.metadata.walk_readable(&key::namespace_prefix(&self.namespace), |_, record| {
            found.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Makes an image; its times are set to now.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the name is taken; [`StoreError::Name`] or [`StoreError::Labels`] if a name or
    /// label is not valid.
    pub fn create_image(&self, image: ImageRecord) -> Result<ImageRecord, StoreError> {
        self.write_image(image, |before, image| match before {
            Some(_) => Err(StoreError::already_exists(Subject::Image, &image.name)),
            None => Ok(()),
        })
    }

    /// Makes an image or replaces the one of that name, which keeps its time of creation.
    ///
    /// # Errors
    /// [`StoreError::Name`] or [`StoreError::Labels`] if a name or label is not valid.
    pub fn put_image(&self, image: ImageRecord) -> Result<ImageRecord, StoreError> {
        self.write_image(image, |_, _| Ok(()))
    }

    /// Changes an image. `change` may run more than once; the name and the time of creation stay whatever it does.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name; [`StoreError::Labels`] if a label is too long; or what
    /// `change` returned.
    pub fn update_image(
        &self,
        name: &str,
        mut change: impl FnMut(&mut ImageRecord) -> Result<(), StoreError>,
    ) -> Result<ImageRecord, StoreError> {
        check_name(Subject::Image, name)?;
        let image_key = key::key(&self.namespace, &[name]);
        let after = self.change([Node::image(&self.namespace, name)], |transaction| {
            let before: ImageRecord =
                transaction.lock(&image_key)?.ok_or_else(|| StoreError::not_found(Subject::Image, name))?;
            let mut after = before.clone();
            change(&mut after)?;
            after.name = before.name;
            after.created = before.created;
            after.used = before.used;
            after.updated = SystemTime::now();
            after.check()?;
            self.put(transaction, &image_key, &after)?;
            Ok(after)
        })?;
        self.store.tell(&self.namespace, || after.written(false));
        Ok(after)
    }

    /// Deletes an image. Its content goes with the next collection, unless something else keeps it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name.
    pub fn delete_image(&self, name: &str) -> Result<(), StoreError> {
        self.delete_image_if(name, None)
    }

    /// Deletes an image if it still points to `target`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that name, or it points elsewhere (containerd's answer).
    pub fn delete_image_if(&self, name: &str, target: Option<&Digest>) -> Result<(), StoreError> {
        check_name(Subject::Image, name)?;
        let image_key = key::key(&self.namespace, &[name]);
        self.delete(|transaction| {
            let image: Option<ImageRecord> = transaction.lock(&image_key)?;
            let image = image.filter(|image| target.is_none_or(|target| image.target.digest == *target));
            image.ok_or_else(|| StoreError::not_found(Subject::Image, name))?;
            remove(transaction, &image_key)
        })?;
        self.store.tell(&self.namespace, || Change::ImageDeleted { name: name.to_owned() });
        Ok(())
    }

    fn write_image(
        &self,
        image: ImageRecord,
        allowed: impl Fn(Option<&ImageRecord>, &ImageRecord) -> Result<(), StoreError>,
    ) -> Result<ImageRecord, StoreError> {
        image.check()?;
        let image_key = key::key(&self.namespace, &[&image.name]);
        let (fresh, after) = self.change([Node::image(&self.namespace, &image.name)], |transaction| {
            let before: Option<ImageRecord> = transaction.lock(&image_key)?;
            allowed(before.as_ref(), &image)?;
            let now = SystemTime::now();
            let fresh = before.is_none();
            let (created, used) = before.map_or((now, None), |before| (before.created, before.used));
            let after = ImageRecord { created, updated: now, used, ..image.clone() };
            self.put(transaction, &image_key, &after)?;
            Ok((fresh, after))
        })?;
        self.store.tell(&self.namespace, || after.written(fresh));
        Ok(after)
    }

    /// Writes the record and its copy. An image is its own keeper, so only one that expires joins the lease (containerd's rule).
    fn put(
        &self,
        transaction: &Transaction<'_>,
        image_key: &[u8],
        image: &ImageRecord,
    ) -> Result<(), StoreError> {
        transaction.put(image_key, image)?;
        transaction.put_raw(Table::Meta, &copy_key(image_key), &record::encode(image))?;
        if image.labels.contains_key(EXPIRE_LABEL) {
            self.join_lease(transaction, &Resource::image(&image.name))?;
        }
        Ok(())
    }
}
