//! Containers: what was asked to run, and on which snapshot. Running is `runtime`'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use storage_model::{Identifier, Labels, validate_labels};

use crate::change::Change;
use crate::collect::Node;
use crate::metadata::record::nanos;
use crate::metadata::{Record, Table, key};
use crate::space::Space;
use crate::{StoreError, Subject};

/// A container.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its identifier.
    #[serde(with = "identifier")]
    pub id: Identifier,
    /// Name of the image it was made from, or empty.
    pub image: String,
    /// Snapshotter that holds its root, or empty.
    pub snapshotter: String,
    /// Key of the snapshot that is its root, or empty. A collection keeps it as long as the container exists.
    pub snapshot_key: String,
    /// Runtime it runs under.
    pub runtime: String,
    /// Its OCI runtime specification, JSON, as it was given.
    #[serde(with = "bytes")]
    pub spec: Vec<u8>,
    /// Its labels.
    pub labels: Labels,
    /// What clients keep with it, by name: type URL and bytes are theirs.
    pub extensions: BTreeMap<String, Extension>,
    /// When it was made.
    #[serde(with = "nanos")]
    pub created: SystemTime,
    /// When it last changed.
    #[serde(with = "nanos")]
    pub updated: SystemTime,
}

/// A value that a client keeps with a container (`google.protobuf.Any` on containerd's wire).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// What the bytes are.
    pub type_url: String,
    /// The bytes.
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
}

impl Record for ContainerRecord {
    const TABLE: Table = Table::Containers;
}

/// Without the specification: it holds the container's environment, which may hold secrets.
impl fmt::Debug for ContainerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerRecord")
            .field("id", &self.id)
            .field("image", &self.image)
            .field("snapshotter", &self.snapshotter)
            .field("snapshot_key", &self.snapshot_key)
            .field("runtime", &self.runtime)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

impl ContainerRecord {
    /// What is told when it was made (`fresh`) or replaced.
    fn written(&self, fresh: bool) -> Change {
        let (id, image) = (self.id.to_string(), self.image.clone());
        if fresh {
            return Change::ContainerCreated { id, image, runtime: self.runtime.clone() };
        }
        let (labels, snapshot_key) = (self.labels.clone(), self.snapshot_key.clone());
        Change::ContainerUpdated { id, image, labels, snapshot_key }
    }
}

impl Space {
    /// Makes a container or replaces the one of that identifier, which keeps its time of creation.
    ///
    /// # Errors
    /// [`StoreError::Labels`] if a label is too long.
    pub fn put_container(&self, container: ContainerRecord) -> Result<ContainerRecord, StoreError> {
        self.write_container(container, |_| Ok(()))
    }

    /// Makes a container; its times are set to now.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] if the identifier is taken; [`StoreError::Labels`] if a label is too long.
    pub fn create_container(&self, container: ContainerRecord) -> Result<ContainerRecord, StoreError> {
        let id = container.id.clone();
        self.write_container(container, |before| match before {
            Some(_) => Err(StoreError::already_exists(Subject::Container, &id)),
            None => Ok(()),
        })
    }

    /// A container of this namespace.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that identifier.
    pub fn container(&self, id: &Identifier) -> Result<ContainerRecord, StoreError> {
        let record = self.store.0.metadata.get(&key::key(&self.namespace, &[id.as_str()]))?;
        record.ok_or_else(|| StoreError::not_found(Subject::Container, id))
    }

    /// The containers of this namespace, by identifier.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] if the records cannot be read; a single one that cannot is left out.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>, StoreError> {
        let mut found = Vec::new();
        self.store.0.metadata.walk_readable(&key::namespace_prefix(&self.namespace), |_, record| {
            found.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Deletes a container's record. Its snapshot goes with the next collection, unless something else keeps it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none of that identifier.
    pub fn delete_container(&self, id: &Identifier) -> Result<(), StoreError> {
        let container_key = key::key(&self.namespace, &[id.as_str()]);
        self.delete(|transaction| {
            let record: Option<ContainerRecord> = transaction.lock(&container_key)?;
            record.ok_or_else(|| StoreError::not_found(Subject::Container, id))?;
            transaction.delete(Table::Containers, &container_key)
        })?;
        self.store.tell(&self.namespace, || Change::ContainerDeleted { id: id.to_string() });
        Ok(())
    }

    fn write_container(
        &self,
        container: ContainerRecord,
        allowed: impl Fn(Option<&ContainerRecord>) -> Result<(), StoreError>,
    ) -> Result<ContainerRecord, StoreError> {
        validate_labels(&container.labels)?;
        let container_key = key::key(&self.namespace, &[container.id.as_str()]);
        let node = Node::container(&self.namespace, container.id.as_str());
        let (fresh, after) = self.change([node], |transaction| {
            let before: Option<ContainerRecord> = transaction.lock(&container_key)?;
            allowed(before.as_ref())?;
            let now = SystemTime::now();
            let fresh = before.is_none();
            let created = before.map_or(now, |before| before.created);
            let after = ContainerRecord { created, updated: now, ..container.clone() };
            transaction.put(&container_key, &after)?;
            Ok((fresh, after))
        })?;
        self.store.tell(&self.namespace, || after.written(fresh));
        Ok(after)
    }
}

/// Identifiers are stored as their text and checked when read.
mod identifier {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use storage_model::Identifier;

    pub(super) fn serialize<S: Serializer>(id: &Identifier, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identifier, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Bytes are stored as text when they are UTF-8, as JSON mostly is, and as a list of numbers otherwise.
mod bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form<T, B> {
        Text(T),
        Bytes(B),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Form::<&str, &[u8]>::Text(text).serialize(serializer),
            Err(_) => Form::<&str, &[u8]>::Bytes(bytes).serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Form::<String, Vec<u8>>::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        })
    }
}
