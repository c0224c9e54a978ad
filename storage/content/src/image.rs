//! Images: names that point to a descriptor.
//!
//! Whether the content is here is not this table's business (containerd's rule): a pull publishes the name last.

use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Descriptor, Digest, Labels, validate_labels};

use crate::collect::{EXPIRE_LABEL, Node};
use crate::lease::Resource;
use crate::metadata::key::{self, check_name};
use crate::metadata::record::nanos;
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
}

impl Record for ImageRecord {
    const TABLE: Table = Table::Images;
}

impl ImageRecord {
    /// An image made now.
    pub fn new(name: impl Into<String>, target: Descriptor, labels: Labels) -> Self {
        let now = SystemTime::now();
        Self { name: name.into(), target, labels, created: now, updated: now }
    }

    fn check(&self) -> Result<(), StoreError> {
        check_name(Subject::Image, &self.name)?;
        Ok(validate_labels(&self.labels)?)
    }
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
    /// [`StoreError::Metadata`] or [`StoreError::Record`] if the records cannot be read.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let mut found = Vec::new();
        self.store.0.metadata.walk(&key::namespace_prefix(&self.namespace), |_, record| {
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
        self.change([Node::image(&self.namespace, name)], |transaction| {
            let before: ImageRecord =
                transaction.lock(&image_key)?.ok_or_else(|| StoreError::not_found(Subject::Image, name))?;
            let mut after = before.clone();
            change(&mut after)?;
            after.name = before.name;
            after.created = before.created;
            after.updated = SystemTime::now();
            after.check()?;
            self.put(transaction, &image_key, &after)?;
            Ok(after)
        })
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
            transaction.delete(Table::Images, &image_key)
        })
    }

    fn write_image(
        &self,
        image: ImageRecord,
        allowed: impl Fn(Option<&ImageRecord>, &ImageRecord) -> Result<(), StoreError>,
    ) -> Result<ImageRecord, StoreError> {
        image.check()?;
        let image_key = key::key(&self.namespace, &[&image.name]);
        self.change([Node::image(&self.namespace, &image.name)], |transaction| {
            let before: Option<ImageRecord> = transaction.lock(&image_key)?;
            allowed(before.as_ref(), &image)?;
            let now = SystemTime::now();
            let created = before.map_or(now, |before| before.created);
            let after = ImageRecord { created, updated: now, ..image.clone() };
            self.put(transaction, &image_key, &after)?;
            Ok(after)
        })
    }

    /// Writes the record. An image is its own keeper, so only one that expires joins the lease (containerd's rule).
    fn put(
        &self,
        transaction: &Transaction<'_>,
        image_key: &[u8],
        image: &ImageRecord,
    ) -> Result<(), StoreError> {
        transaction.put(image_key, image)?;
        if image.labels.contains_key(EXPIRE_LABEL) {
            self.join_lease(transaction, &Resource::image(&image.name))?;
        }
        Ok(())
    }
}
