//! What a container is to an OCI runtime: the spec made from an image config, and the runtime that reads it.
//!
//! [`spec::build`] decides everything about the process; [`runtime::OciRuntime`] finds a runtime, calls it, and turns its log into
//! typed errors; [`program::check`] says in advance, and in better words, why a command cannot start.
//!
//! An image is foreign: its config chooses command, environment, directory and user, and nothing else. Its labels and
//! annotations are never read here, its `/etc/passwd` and `/etc/group` only within the limits of [`files`].
//!
//! Not here: mounting the root, keeping the process (`runtime-shim`), choosing the image (`runtime-engine`).
pub mod files;
pub mod program;
pub mod runtime;
pub mod spec;
