//! What an event says: its fields by name, for filters (`event.key==x`) and for those who print events.
//!
//! Names, order and omission of what is empty are those of containerd's JSON, so that `ctr events` and we print the same.
//! A message that is not known here has no fields.

use std::borrow::Cow;
use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::{Any, Timestamp};

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

    fn number(mut self, name: &'static str, number: impl Into<i64>) -> Self {
        let number = number.into();
        if number != 0 {
            self.0.push((name, Value::Number(number)));
        }
        self
    }

    fn time(self, name: &'static str, time: Option<Timestamp>) -> Self {
        self.text(name, time.map(|time| time.to_string()).unwrap_or_default())
    }

    fn io(self, name: &'static str, io: Option<wire::TaskIo>) -> Self {
        let Some(wire::TaskIo { stdin, stdout, stderr, terminal }) = io else { return self };
        let terminal = if terminal { "true" } else { "" };
        let fields =
            [("stdin", stdin), ("stdout", stdout), ("stderr", stderr), ("terminal", terminal.to_owned())];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        self.map(name, given.map(|(name, value)| (name.to_owned(), value)).collect())
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
    wire::TaskCreate { text container_id, text bundle, io io, text checkpoint, number pid }
    wire::TaskStart { text container_id, number pid }
    wire::TaskDelete { text container_id, number pid, number exit_status, time exited_at, text id }
    wire::TaskExit { text container_id, text id, number pid, number exit_status, time exited_at }
    wire::TaskOom { text container_id }
    wire::TaskExecAdded { text container_id, text exec_id }
    wire::TaskExecStarted { text container_id, text exec_id, number pid }
    wire::TaskPaused { text container_id }
    wire::TaskResumed { text container_id }
    wire::TaskCheckpointed { text container_id, text checkpoint }
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
    fn the_end_of_a_task_is_told_with_its_time() {
        let exited_at = Some(Timestamp { seconds: 1_700_000_000, nanos: 0 });
        let exit =
            wire::TaskExit { container_id: "c".into(), id: "e".into(), pid: 7, exit_status: 3, exited_at };
        let fields = Fields::of(&any::pack(&exit)).unwrap();
        assert_eq!(fields.get(&path("exit_status")).unwrap(), "3");
        assert_eq!(fields.get(&path("exited_at")).unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(any::pack(&wire::TaskOom::default()).type_url, "containerd.events.TaskOOM");
    }

    #[test]
    fn what_is_not_known_or_damaged_has_no_fields() {
        assert_eq!(
            Fields::of(&Any { type_url: "containerd.events.SandboxExit".into(), value: vec![] }),
            None
        );
        let damaged = Any { type_url: "containerd.events.ContentDelete".into(), value: vec![0x0a, 9, 1] };
        assert_eq!(Fields::of(&damaged), None);
    }
}
