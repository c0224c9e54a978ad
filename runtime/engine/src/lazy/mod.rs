//! Images that are shown before they have arrived.

mod error;
mod mode;

pub use error::LazyError;
pub use mode::LazyMode;
