//! Ranges of a blob for a table of contents: whole, in memory, from a host that has not lied yet.

use std::ops::Range;
use std::time::Duration;

use storage_model::{Descriptor, Reference};
use storage_registry::{Client, RangeRules, RangeStream, RegistryError};

use super::{DescribeError, Want};

/// How often a range is asked for before giving up: once, and twice again after a broken transfer.
const TRIES_MAX: u32 = 3;
/// Longest a host may take to begin its answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Pause before the second try, doubled each time; tries follow failures the hosts do not say more about.
const PAUSE: Duration = Duration::from_millis(200);
/// Most bytes before a range that are read and dropped when a host sends the whole blob.
///
/// 8 MiB: what comes in a second or so. Larger blobs on such hosts are better pulled whole at once.
const DROPPED_BYTES_MAX: u64 = 8 << 20;

/// One layer being asked about.
pub(super) struct Ask<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    pub(super) layer: &'a Descriptor,
    pub(super) want: Want,
    /// Sources that sent wrong bytes.
    pub(super) avoid: Vec<String>,
    pub(super) bytes_fetched: u64,
    pub(super) requests: u32,
}

/// Bytes of a blob, and who sent them.
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// The host that sent them, for people.
    pub(super) host: String,
    /// The place of the configuration it stands for.
    pub(super) source: String,
}

impl<'a> Ask<'a> {
    pub(super) fn new(
        client: &'a Client,
        reference: &'a Reference,
        layer: &'a Descriptor,
        want: Want,
    ) -> Self {
        Self { client, reference, layer, want, avoid: Vec::new(), bytes_fetched: 0, requests: 0 }
    }

    /// Fetches a range of the layer's blob, which must not be empty nor reach past its end.
    pub(super) async fn range(&mut self, range: Range<u64>) -> Result<Part, DescribeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once(range.clone()).await {
                Err(error) if tries < TRIES_MAX && is_passing(&error) => {
                    tracing::debug!(layer = %self.layer.digest, %error, "asking again");
                    tokio::time::sleep(PAUSE * 2u32.pow(tries - 1)).await;
                }
                done => return done,
            }
        }
    }

    async fn once(&mut self, range: Range<u64>) -> Result<Part, DescribeError> {
        let layer = self.layer.digest;
        let failed = |source| DescribeError::Registry { layer, source };
        self.requests += 1;
        let rules = RangeRules { avoid: &self.avoid, answer_max: ANSWER_MAX };
        let stream = self.client.blob_range(self.reference, self.layer, range.clone(), rules);
        let mut stream = stream.await.map_err(failed)?;
        let mut dropped = range.start.saturating_sub(stream.start());
        if dropped > DROPPED_BYTES_MAX {
            return Err(DescribeError::NoRanges { layer, host: stream.host().to_owned() });
        }
        let expected = range.end - range.start;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < expected {
            let Some(next) = stream.next().await else { break };
            let mut next = next.map_err(failed)?;
            self.bytes_fetched += next.len() as u64;
            let head = dropped.min(next.len() as u64);
            dropped -= head;
            next = next.split_off(head as usize);
            next.truncate(usize::try_from(expected - bytes.len() as u64).unwrap_or(usize::MAX));
            bytes.extend_from_slice(&next);
        }
        self.whole(stream, bytes, expected)
    }

    fn whole(&self, stream: RangeStream, bytes: Vec<u8>, expected: u64) -> Result<Part, DescribeError> {
        let (host, source) = (stream.host().to_owned(), stream.source().to_owned());
        if bytes.len() as u64 == expected {
            return Ok(Part { bytes, host, source });
        }
        Err(DescribeError::Short { layer: self.layer.digest, host, expected, actual: bytes.len() as u64 })
    }
}

/// Whether the same question may have another answer in a moment.
fn is_passing(error: &DescribeError) -> bool {
    match error {
        DescribeError::Short { .. } => true,
        DescribeError::Registry { source, .. } => {
            source.retry_after().is_some()
                || matches!(source, RegistryError::Interrupted { .. } | RegistryError::Timeout { .. })
        }
        _ => false,
    }
}
