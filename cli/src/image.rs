//! Images that are here: found by what people type, read through the content service.
//!
//! Not here: how they are shown (`verbs::images`).

pub(crate) mod contents;
mod details;
mod document;
mod record;

pub(crate) use contents::{Contents, Kind, Node, Stored, Variant};
pub(crate) use details::Details;
pub(crate) use record::{Image, LOOK_FOR, find, get, matching, reference};
