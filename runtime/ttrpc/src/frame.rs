//! Frames: ten bytes of header and a body of at most 4 MiB.
//!
//! Header: length of the body (4 bytes, big-endian), stream number (4, big-endian; odd ones are the client's), type (1),
//! flags (1). A body over the limit is read away and reported, so that the connection stays usable; only a stream that
//! ends inside a frame is an error of the connection.
use std::io::{self, Read, Write};

/// Largest body, in bytes: ttrpc's own limit (`messageLengthMax`).
pub const BODY_BYTES_MAX: u32 = 4 << 20;

const HEADER_BYTES: usize = 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// An answer.
    Response,
    /// Anything else, by its number: data of a stream, which we do not speak.
    Other(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Request,
            2 => Self::Response,
            other => Self::Other(other),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which call it belongs to.
    pub stream: u32,
    /// What it carries.
    pub kind: Kind,
    /// The message; `None` when it was over [`BODY_BYTES_MAX`] and has been skipped.
    pub body: Option<Vec<u8>>,
}

/// Reads the next frame; `None` when the stream ends between two.
///
/// # Errors
/// `UnexpectedEof` when it ends inside one; those of reading.
pub fn read(source: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    // The first byte alone tells an end between frames from one inside.
    loop {
        match source.read(&mut header[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    source.read_exact(&mut header[1..])?;
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let mut body = source.take(length.into());
    let body = if length > BODY_BYTES_MAX {
        let skipped = io::copy(&mut body, &mut io::sink())?;
        if skipped < length.into() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        None
    } else {
        // Grown by what arrives, not by what the header claims.
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Some(bytes)
    };
    Ok(Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind: Kind::from_number(kind), body }))
}

/// Writes a frame with one call of `write_all`.
///
/// # Errors
/// `InvalidInput` for a body over [`BODY_BYTES_MAX`]; nothing was written then. Those of writing.
pub fn write(target: &mut impl Write, stream: u32, kind: Kind, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|&length| length <= BODY_BYTES_MAX);
    let Some(length) = length else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {} bytes is over ttrpc's limit of {BODY_BYTES_MAX}", body.len()),
        ));
    };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(&[kind.number(), 0]);
    bytes.extend_from_slice(body);
    target.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in prop::collection::vec((any::<u32>(), 0u8..5, prop::collection::vec(any::<u8>(), 0..300)), 0..5)
        ) {
            let mut bytes = Vec::new();
            for (stream, kind, body) in &frames {
                write(&mut bytes, *stream, Kind::from_number(*kind), body).unwrap();
            }
            let mut source = bytes.as_slice();
            for (stream, kind, body) in frames {
                let expected = Frame { stream, kind: Kind::from_number(kind), body: Some(body) };
                prop_assert_eq!(read(&mut source).unwrap(), Some(expected));
            }
            prop_assert_eq!(read(&mut source).unwrap(), None);
        }

        #[test]
        fn whatever_arrives_is_a_frame_or_an_error_and_never_more_memory_than_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut source = bytes.as_slice();
            while let Ok(Some(frame)) = read(&mut source) {
                prop_assert!(frame.body.is_none_or(|body| body.len() <= bytes.len()));
            }
        }
    }

    #[test]
    fn a_body_over_the_limit_is_skipped_and_the_next_frame_is_read() {
        let mut bytes = (BODY_BYTES_MAX + 1).to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 7, 1, 0]);
        bytes.resize(bytes.len() + BODY_BYTES_MAX as usize + 1, 0);
        write(&mut bytes, 9, Kind::Response, b"next").unwrap();
        let mut source = bytes.as_slice();
        let skipped = read(&mut source).unwrap().unwrap();
        assert_eq!((skipped.stream, skipped.body), (7, None));
        assert_eq!(read(&mut source).unwrap().unwrap().body.unwrap(), b"next");
        assert!(write(&mut Vec::new(), 1, Kind::Request, &vec![0; BODY_BYTES_MAX as usize + 1]).is_err());
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error() {
        let mut bytes = Vec::new();
        write(&mut bytes, 1, Kind::Request, b"whole").unwrap();
        for end in 1..bytes.len() {
            let error = read(&mut &bytes[..end]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {end}");
        }
    }
}
