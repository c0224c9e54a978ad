//! The two messages inside frames, as `ttrpc/types.go` numbers their fields.

use std::time::Duration;

use prost::Message;

/// Pairs of a key and a value beside a call; keys may repeat.
pub type Metadata = Vec<(String, String)>;

/// A call.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) payload: Vec<u8>,
    /// Nanoseconds; 0 is no limit.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nanos: i64,
    #[prost(message, repeated, tag = "5")]
    pub(crate) metadata: Vec<KeyValue>,
}

/// One pair of metadata.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Response {
    /// Absent when it went well.
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<RpcStatus>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) payload: Vec<u8>,
}

/// `google.rpc.Status`, without its details.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

impl Request {
    /// The caller's limit, if it gave one.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout_nanos).ok().filter(|&nanos| nanos > 0).map(Duration::from_nanos)
    }
}
