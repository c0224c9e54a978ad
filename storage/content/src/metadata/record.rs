//! How records become values: one version byte, then JSON.
//!
//! JSON because a record is small, read far more often by people chasing a fault than by the machine, and gains fields
//! without a migration (a new field has a default). The version byte changes when that is not enough.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Table;
use crate::StoreError;
use crate::error::RecordProblem;

/// Version of every record today.
const VERSION: u8 = 1;

/// A value of one table.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Where it is kept.
    const TABLE: Table;
}

/// The stored form of `record`.
pub(crate) fn encode<R: Record>(record: &R) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, record)
        .expect("records hold only strings, numbers and maps with string keys");
    bytes
}

/// The record in `bytes`; `key` is for the message.
pub(crate) fn decode<R: Record>(key: &[u8], bytes: &[u8]) -> Result<R, StoreError> {
    let problem = match bytes.split_first() {
        None => RecordProblem::Empty,
        Some((&VERSION, json)) => match serde_json::from_slice(json) {
            Ok(record) => return Ok(record),
            Err(source) => RecordProblem::Content(source),
        },
        Some((&other, _)) => RecordProblem::Version(other),
    };
    Err(StoreError::Record { table: R::TABLE.name(), key: key.escape_ascii().to_string(), source: problem })
}

/// Serialises a [`std::time::SystemTime`] as nanoseconds since 1970, negative before.
pub(crate) mod nanos {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let nanos = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
        };
        serializer.serialize_i64(nanos)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let nanos = i64::deserialize(deserializer)?;
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        Ok(if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance })
    }
}

/// Like [`nanos`], of a time that may be absent.
pub(crate) mod nanos_if_any {
    use std::time::SystemTime;

    use serde::{Deserialize as _, Deserializer, Serialize, Serializer};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nanos(#[serde(with = "super::nanos")] SystemTime);

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Nanos).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Nanos>::deserialize(deserializer)?.map(|nanos| nanos.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Sample {
        #[serde(with = "nanos")]
        at: std::time::SystemTime,
    }

    impl Record for Sample {
        const TABLE: Table = Table::Images;
    }

    #[test]
    fn times_come_back_to_the_nanosecond_before_and_after_1970() {
        for at in
            [UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789), UNIX_EPOCH - Duration::from_nanos(1)]
        {
            let bytes = encode(&Sample { at });
            assert_eq!(decode::<Sample>(b"k", &bytes).unwrap(), Sample { at });
        }
    }

    #[test]
    fn a_damaged_or_later_record_is_named_not_guessed() {
        for bytes in [&b""[..], b"\x01{", b"\x09{}"] {
            let error = decode::<Sample>(b"ns\0name", bytes).unwrap_err();
            assert!(error.to_string().contains("images"), "{error}");
        }
    }
}
