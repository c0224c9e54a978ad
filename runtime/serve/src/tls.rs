//! The server's certificate and key, read once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::options::Tls;
use crate::server::ServeError;

/// What turns a connection into a TLS connection.
///
/// # Errors
/// [`ServeError::Certificate`] names the file that cannot be used.
pub(crate) fn acceptor(files: &Tls) -> Result<TlsAcceptor, ServeError> {
    let unusable = |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| ServeError::Certificate {
        path: PathBuf::from(path),
        source,
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(&files.certificate, Box::new(error)))?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, Box::new(error)))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring implements TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&files.certificate, Box::new(error)))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
