//! Image archives: OCI layouts and docker-archives, read and written as streams.
//!
//! [`Engine::import`](crate::Engine::import) takes images out of one, [`Engine::export`](crate::Engine::export) puts images
//! into one. Neither seeks: an archive may come from a pipe and go to one. What is read is a stranger's word: every limit
//! is stated where it holds, every digest is computed, and no name is overwritten that was not asked for.

mod docker;
mod error;
mod export;
mod import;
mod inventory;
mod layout;
mod names;
mod stream;

pub use error::ArchiveError;
pub use export::ExportRequest;
pub use import::ImportRequest;
