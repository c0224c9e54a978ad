//! What ends by itself: leases and images with a time on them, and ingests that nobody takes up.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use storage_model::Labels;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::graph::EXPIRE_LABEL;
use crate::StoreError;
use crate::image::ImageRecord;
use crate::store::Store;
use crate::{ingest_files, lease};

/// How long an ingest that no lease keeps waits for someone to take it up (containerd's figure).
pub(crate) const INGEST_KEPT: Duration = Duration::from_hours(24);

impl Store {
    /// The earliest moment at which something ends by itself that the last collection found not ended: when to collect
    /// although nothing changes. It may have passed already. None if nothing ends by itself.
    ///
    /// Costs reading every lease and image.
    ///
    /// # Errors
    /// [`StoreError::Metadata`] or [`StoreError::Record`] if the records cannot be read.
    pub fn next_expiry(&self) -> Result<Option<SystemTime>, StoreError> {
        let seen = *self.0.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ends = Vec::new();
        lease::walk(&self.0.metadata, &[], |_, _, record| ends.extend(expires(&record.labels)))?;
        self.0.metadata.walk(&[], |_, record: ImageRecord| {
            ends.extend(expires(&record.labels));
            std::ops::ControlFlow::Continue(())
        })?;
        ends.extend(ingest_files::list(&self.0.layout)?.iter().map(|found| found.info.started + INGEST_KEPT));
        // What had ended when a collection looked, and is here still, is kept by something else.
        Ok(ends.into_iter().filter(|end| seen.is_none_or(|seen| *end > seen)).min())
    }
}

/// When the bearer of `labels` ends. A value that is no time is none: better kept than lost.
pub(crate) fn expires(labels: &Labels) -> Option<SystemTime> {
    let text = labels.get(EXPIRE_LABEL)?;
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

/// Whether the bearer of `labels` has ended.
pub(crate) fn expired(labels: &Labels, now: SystemTime) -> bool {
    expires(labels).is_some_and(|end| end <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_passed_expires_and_what_is_no_time_never_does() {
        let labels = |text: &str| Labels::from([(EXPIRE_LABEL.to_owned(), text.to_owned())]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert!(expired(&labels("2020-01-01T00:00:00Z"), now));
        assert!(expired(&labels("2020-01-01T00:00:00.123456789+02:00"), now));
        assert!(!expired(&labels("2090-01-01T00:00:00Z"), now));
        assert!(!expired(&labels("soon"), now));
        assert!(!expired(&Labels::new(), now));
    }
}
