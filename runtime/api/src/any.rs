//! Messages inside `Any`, named as containerd's Go libraries name them.
//!
//! They write the bare name of the message (`containerd.events.ContentCreate`) and read also what follows the last slash of
//! a URL (`type.googleapis.com/...`), which is how other libraries write it. So do we.

use prost::{DecodeError, Message, Name};
use prost_types::Any;

/// Why an `Any` is not the message it was taken for.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnyError {
    /// It holds another kind of message.
    #[error("a message {expected} was expected, and {found:?} came")]
    OtherType {
        /// Name of the message that was expected.
        expected: String,
        /// Name of the message that it says it is.
        found: String,
    },
    /// Its bytes are no such message.
    #[error("the bytes of a message {name} cannot be read")]
    Bytes {
        /// Name of the message.
        name: String,
        /// Why.
        source: DecodeError,
    },
}

/// Puts a message into an `Any`.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// The name of the message inside; empty when it says none.
pub fn name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Whether the message inside says that it is an `M`.
pub fn is<M: Name>(any: &Any) -> bool {
    name(any) == M::full_name()
}

/// Takes a message out of an `Any`.
///
/// # Errors
/// [`AnyError`] if it is another message, or damaged.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, AnyError> {
    if !is::<M>(any) {
        return Err(AnyError::OtherType { expected: M::full_name(), found: name(any).to_owned() });
    }
    M::decode(any.value.as_slice()).map_err(|source| AnyError::Bytes { name: M::full_name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::events::{ContentDelete, SnapshotRemove};

    #[test]
    fn a_message_comes_out_as_it_went_in_whatever_stands_before_its_name() {
        let message = ContentDelete { digest: "sha256:00".into() };
        let mut any = pack(&message);
        assert_eq!(any.type_url, "containerd.events.ContentDelete");
        assert_eq!(unpack::<ContentDelete>(&any).unwrap(), message);
        any.type_url.insert_str(0, "type.googleapis.com/");
        assert_eq!(unpack::<ContentDelete>(&any).unwrap(), message);
    }

    #[test]
    fn another_message_and_a_damaged_one_are_told_apart() {
        let mut any = pack(&ContentDelete { digest: "sha256:00".into() });
        assert!(matches!(unpack::<SnapshotRemove>(&any), Err(AnyError::OtherType { .. })));
        any.value.truncate(3);
        assert!(matches!(unpack::<ContentDelete>(&any), Err(AnyError::Bytes { .. })));
    }
}
