//! Removes what nothing keeps.

use storage_content::Collected;

use crate::{Engine, EngineError};

impl Engine {
    /// Makes one collection: metadata first, then directories and files; what it removed is unlinked when it returns.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the metadata cannot be read or written; what is reachable is never touched.
    pub fn collect(&self) -> Result<Collected, EngineError> {
        let collected = self.store().collect(&mut |removed| {
            tracing::debug!(?removed, "collected a snapshot");
        })?;
        self.overlay().cleanup()?;
        self.store().empty_trash();
        Ok(collected)
    }
}
