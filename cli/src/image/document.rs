//! Manifests, indexes and configs as bytes, through the content service.

use storage_model::Digest;

use crate::client::{Client, failed};
use crate::error::{CliError, DocumentError};

/// Why a document could not be read.
pub(super) enum ReadError {
    Status(tonic::Status),
    TooLarge(Digest),
}

impl ReadError {
    pub(super) fn into_cli(self, what: &str, name: &str) -> CliError {
        match self {
            Self::Status(status) => failed(what)(status),
            Self::TooLarge(digest) => CliError::Document {
                name: name.to_owned(),
                source: DocumentError::TooLarge(digest.to_string()),
            },
        }
    }
}

/// A small piece of content, whole.
pub(super) async fn document(client: &Client, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let mut stream = client.read(&digest.to_string()).await.map_err(ReadError::Status)?;
    let mut bytes = Vec::new();
    while let Some(part) = stream.message().await.map_err(ReadError::Status)? {
        if (bytes.len() + part.data.len()) as u64 > bytes_max {
            return Err(ReadError::TooLarge(*digest));
        }
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes)
}
