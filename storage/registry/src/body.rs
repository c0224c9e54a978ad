//! A response body that must keep a pace.
//!
//! Only the time spent waiting for the network counts: a caller that is slow to take bytes is not held against the
//! registry. A body that gives less than the policy's minimum in a window of waiting is [`BodyFault::Stalled`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use crate::RetryPolicy;

/// Why a body gave nothing more.
#[derive(Debug)]
pub(crate) enum BodyFault {
    /// The connection broke, or the framing lied.
    Broken(hyper::Error),
    /// Too few bytes in a window of waiting.
    Stalled(Duration),
    /// More bytes than the caller takes.
    TooLarge,
}

/// A body and the pace it must keep.
pub(crate) struct Body {
    inner: Incoming,
    window: Duration,
    window_bytes_min: u64,
    /// waited < window
    waited: Duration,
    /// Bytes received in the present window.
    received: u64,
}

impl Body {
    pub(crate) fn new(inner: Incoming, policy: &RetryPolicy) -> Self {
        Self {
            inner,
            window: policy.stall_window.max(Duration::from_millis(1)),
            window_bytes_min: policy.stall_bytes_min,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// Whether the framing says that nothing more comes.
    pub(crate) fn is_end(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// The next bytes, as the connection read them; `None` at the end.
    ///
    /// Cancel safety: a dropped future loses no bytes.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BodyFault>> {
        loop {
            let left = self.window.saturating_sub(self.waited);
            let started = Instant::now();
            let frame = tokio::time::timeout(left, self.inner.frame()).await;
            self.waited += started.elapsed();
            let data = match frame {
                Ok(None) => return None,
                Ok(Some(Err(error))) => return Some(Err(BodyFault::Broken(error))),
                Ok(Some(Ok(frame))) => frame.into_data().ok(),
                Err(_) => None,
            };
            self.received += data.as_ref().map_or(0, |data| data.len() as u64);
            if self.waited >= self.window {
                if self.received < self.window_bytes_min {
                    return Some(Err(BodyFault::Stalled(self.window)));
                }
                self.waited = Duration::ZERO;
                self.received = 0;
            }
            if let Some(data) = data
                && !data.is_empty()
            {
                return Some(Ok(data));
            }
        }
    }

    /// The whole body, if it has at most `max` bytes.
    pub(crate) async fn collect(mut self, max: u64) -> Result<Bytes, BodyFault> {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(data) = self.next().await {
            let data = data?;
            if (first.len() + whole.len() + data.len()) as u64 > max {
                return Err(BodyFault::TooLarge);
            }
            if first.is_empty() && whole.is_empty() {
                first = data;
            } else {
                if whole.is_empty() {
                    whole.extend_from_slice(&std::mem::take(&mut first));
                }
                whole.extend_from_slice(&data);
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    }
}
