//! One JSON value per message, whatever its length: short ones in the message, long ones in a file in memory beside it.
//!
//! The first byte says which: `i` the value follows, `f` the last descriptor is a file that holds it. A peer is one of
//! our own processes under the same user; the limits are against mistakes, not against enemies.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;
use storage_sys::memory::memory_file;
use storage_sys::socket::{Connection, MESSAGE_BYTES_MAX};

/// Longest value, in bytes: the status of a thousand mounts, or the trace of an image of a million files.
const VALUE_BYTES_MAX: u64 = 256 * 1024 * 1024;

const INLINE: u8 = b'i';
const IN_FILE: u8 = b'f';

/// Sends `value` and up to two descriptors.
///
/// # Errors
/// Those of the socket; `InvalidInput` for more descriptors.
pub(crate) fn send<T: Serialize>(
    connection: &Connection,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut message = vec![INLINE];
    serde_json::to_writer(&mut message, value)?;
    if message.len() <= MESSAGE_BYTES_MAX {
        return connection.send(&message, descriptors, true);
    }
    let mut file = memory_file("lazy-message")?;
    file.write_all(&message[1..])?;
    let mut all = descriptors.to_vec();
    all.push(file.as_fd());
    connection.send(&[IN_FILE], &all, true)
}

/// Receives a value and its descriptors; `None` when the other end is closed.
///
/// # Errors
/// Those of the socket; `InvalidData` for what is no such value.
pub(crate) fn receive<T: DeserializeOwned>(connection: &Connection) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some(received) = connection.receive()? else { return Ok(None) };
    let mut descriptors = received.descriptors;
    let value = match received.bytes.split_first() {
        Some((&INLINE, value)) => serde_json::from_slice(value)?,
        Some((&IN_FILE, [])) => {
            let file = descriptors.pop().ok_or_else(|| bad("a long value without its file"))?;
            serde_json::from_slice(&read_whole(File::from(file))?)?
        }
        _ => return Err(bad("a message of another protocol")),
    };
    Ok(Some((value, descriptors)))
}

fn read_whole(mut file: File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut text = Vec::new();
    file.take(VALUE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(bad("a value over 256 MiB"));
    }
    Ok(text)
}

fn bad(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_sys::socket::Listener;

    #[test]
    fn a_value_of_any_length_arrives_with_its_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::bind(directory.path(), "s").unwrap();
        let client = Connection::connect(&directory.path().join("s")).unwrap();
        let server = listener.accept().unwrap();
        let null = File::open("/dev/null").unwrap();
        for length in [0, 1, MESSAGE_BYTES_MAX - 3, MESSAGE_BYTES_MAX - 2, MESSAGE_BYTES_MAX, 3 << 20] {
            let text = "x".repeat(length);
            send(&client, &text, &[null.as_fd()]).unwrap();
            let (back, descriptors) = receive::<String>(&server).unwrap().unwrap();
            assert_eq!((back.len(), descriptors.len()), (length, 1), "{length}");
            assert!(back == text);
        }
        client.send(b"{}", &[], true).unwrap();
        assert_eq!(receive::<String>(&server).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(client);
        assert!(receive::<String>(&server).unwrap().is_none());
    }
}
