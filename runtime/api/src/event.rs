//! What an event says: its fields by name, for filters (`event.key==x`) and for those who print events.
//!
//! Names, order and omission of what is empty are those of containerd's JSON, so that `ctr events` and we print the same.
//! A message that is not known here (a task's event that a shim forwards) has no fields.

use std::borrow::Cow;
use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::Any;

use crate::any;
use crate::containerd::events as wire;
use crate::containerd::services::images::v1 as images;

/// One value of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number, such as a size in bytes.
    Number(i64),
    /// Labels, or the parts of something; sorted by name.
    Map(Vec<(String, String)>),
}

/// The fields of an event that are not empty, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Reads the payload of an event. `None` if the message is not known here, or damaged.
    pub fn of(event: &Any) -> Option<Self> {
        READERS.iter().find_map(|(names, read)| names(event).then(|| read(event))).flatten()
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The text at a filter's path: `["key"]`, `["labels", "a", "b"]` for the label `a.b`, `["runtime", "name"]`.
    pub fn get(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let (name, rest) = path.split_first()?;
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        match value {
            Value::Text(text) => Some(Cow::from(text)),
            Value::Number(number) => Some(Cow::from(number.to_string())),
            Value::Map(entries) => {
                let wanted = rest.join(".");
                entries.iter().find(|(key, _)| *key == wanted).map(|(_, value)| Cow::from(value))
            }
        }
    }

    fn text(mut self, name: &'static str, text: String) -> Self {
        if !text.is_empty() {
            self.0.push((name, Value::Text(text)));
        }
        self
    }

    fn map(mut self, name: &'static str, map: HashMap<String, String>) -> Self {
        let mut entries: Vec<_> = map.into_iter().collect();
        entries.sort();
        if !entries.is_empty() {
            self.0.push((name, Value::Map(entries)));
        }
        self
    }

    fn number(mut self, name: &'static str, number: i64) -> Self {
        if number != 0 {
            self.0.push((name, Value::Number(number)));
        }
        self
    }
}

/// A message that events carry.
trait Payload: Message + Name + Default {
    fn fields(self) -> Fields;
}

/// Whether a payload is of a kind, and how it is read.
type Reader = (fn(&Any) -> bool, fn(&Any) -> Option<Fields>);

/// Says once which messages there are and which fields each has.
macro_rules! payloads {
    ($($message:ty { $($kind:ident $field:ident),* })*) => {
        $(impl Payload for $message {
            fn fields(self) -> Fields {
                Fields::default()$(.$kind(stringify!($field), self.$field))*
            }
        })*

        const READERS: &[Reader] = &[
            reader::<wire::ContainerCreate>(),
            $(reader::<$message>(),)*
        ];
    };
}

const fn reader<P: Payload>() -> Reader {
    (any::is::<P>, |event| any::unpack::<P>(event).ok().map(Payload::fields))
}

payloads! {
    wire::ContainerUpdate { text id, text image, map labels, text snapshot_key }
    wire::ContainerDelete { text id }
    wire::ContentCreate { text digest, number size }
    wire::ContentDelete { text digest }
    images::ImageCreate { text name, map labels }
    images::ImageUpdate { text name, map labels }
    images::ImageDelete { text name }
    wire::NamespaceCreate { text name, map labels }
    wire::NamespaceUpdate { text name, map labels }
    wire::NamespaceDelete { text name }
    wire::SnapshotPrepare { text key, text parent, text snapshotter }
    wire::SnapshotCommit { text key, text name, text snapshotter }
    wire::SnapshotRemove { text key, text snapshotter }
}

/// The one whose fields are not all plain.
impl Payload for wire::ContainerCreate {
    fn fields(self) -> Fields {
        let runtime = self.runtime.map(|runtime| HashMap::from([("name".to_owned(), runtime.name)]));
        Fields::default()
            .text("id", self.id)
            .text("image", self.image)
            .map("runtime", runtime.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn every_message_is_read_by_its_own_reader() {
        let prepared = wire::SnapshotPrepare {
            key: "one".into(),
            parent: String::new(),
            snapshotter: "overlayfs".into(),
        };
        let fields = Fields::of(&any::pack(&prepared)).unwrap();
        let names: Vec<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["key", "snapshotter"], "what is empty is left out");
        let created = wire::ContentCreate { digest: "sha256:00".into(), size: 3 };
        assert_eq!(Fields::of(&any::pack(&created)).unwrap().get(&path("size")).unwrap(), "3");
        let runtime = wire::container_create::Runtime { name: "runc".into(), options: None };
        let container = wire::ContainerCreate { runtime: Some(runtime), ..Default::default() };
        assert_eq!(Fields::of(&any::pack(&container)).unwrap().get(&path("runtime.name")).unwrap(), "runc");
    }

    #[test]
    fn a_label_with_dots_is_found_by_its_whole_name() {
        let labels = HashMap::from([("containerd.io/gc.root".to_owned(), "1".to_owned())]);
        let created = images::ImageCreate { name: "n".into(), labels };
        let fields = Fields::of(&any::pack(&created)).unwrap();
        assert_eq!(fields.get(&path("labels.containerd.io/gc.root")).unwrap(), "1");
        assert_eq!(fields.get(&path("labels.containerd")), None);
        assert_eq!(fields.get(&path("digest")), None);
    }

    #[test]
    fn what_is_not_known_or_damaged_has_no_fields() {
        assert_eq!(Fields::of(&Any { type_url: "containerd.events.TaskExit".into(), value: vec![] }), None);
        let damaged = Any { type_url: "containerd.events.ContentDelete".into(), value: vec![0x0a, 9, 1] };
        assert_eq!(Fields::of(&damaged), None);
    }
}
