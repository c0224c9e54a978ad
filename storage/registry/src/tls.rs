//! Who is trusted: system roots, roots of our own, client certificates, or (when asked) anybody.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use storage_model::{Digest, Hasher};

use crate::RegistryError;

/// Longest wait for a connection where nothing else is configured (containerd's default).
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How to connect to a place. Two equal ones share connections; files are read once, when it is made.
#[derive(Clone)]
pub(crate) struct Profile {
    roots: Vec<(PathBuf, Vec<u8>)>,
    identity: Option<Identity>,
    pub(crate) skip_verify: bool,
    pub(crate) dial_timeout: Duration,
}

/// A client certificate, from files.
#[derive(Clone)]
struct Identity {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
}

/// Says which files, never what is in them: one is a private key.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: Vec<&PathBuf> = self.roots.iter().map(|(path, _)| path).collect();
        f.debug_struct("Profile")
            .field("roots", &roots)
            .field("client", &self.identity.as_ref().map(|identity| &identity.certificate.0))
            .field("skip_verify", &self.skip_verify)
            .finish()
    }
}

fn read(path: &Path) -> Result<(PathBuf, Vec<u8>), RegistryError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok((path.to_owned(), bytes)),
        Err(error) => Err(unusable(path, "it cannot be read", Some(Box::new(error)))),
    }
}

fn unusable(path: &Path, problem: &'static str, source: Option<crate::error::Cause>) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), problem, source }
}

impl Profile {
    /// Reads the files of a profile. Of several client pairs the first is used.
    pub(crate) fn load(
        roots: &[PathBuf],
        clients: &[(PathBuf, Option<PathBuf>)],
        skip_verify: bool,
        dial_timeout: Duration,
    ) -> Result<Self, RegistryError> {
        let roots = roots.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
        let identity = match clients.first() {
            None => None,
            Some((certificate, key)) => Some(Identity {
                certificate: read(certificate)?,
                key: read(key.as_ref().unwrap_or(certificate))?,
            }),
        };
        Ok(Self { roots, identity, skip_verify, dial_timeout })
    }

    /// The same trust without our own certificate: for hosts that the place sends us to.
    pub(crate) fn without_identity(&self) -> Self {
        Self { identity: None, ..self.clone() }
    }

    /// Tells two profiles apart.
    pub(crate) fn id(&self) -> Digest {
        let mut hasher = Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&[u8::from(self.skip_verify)]);
        part(&self.dial_timeout.as_nanos().to_le_bytes());
        for (_, pem) in &self.roots {
            part(pem);
        }
        if let Some(identity) = &self.identity {
            part(b"client");
            part(&identity.certificate.1);
            part(&identity.key.1);
        }
        hasher.finish()
    }

    /// Builds the handshake's settings; `secure` is false for plain http, which needs no roots (reading the
    /// system's takes about 10 ms).
    pub(crate) fn client_config(&self, secure: bool) -> Result<ClientConfig, RegistryError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring implements TLS 1.2 and 1.3");
        let mut roots = RootCertStore::empty();
        if secure && !self.skip_verify {
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::debug!(%error, "a system root was not read");
            }
            roots.add_parsable_certificates(system.certs);
        }
        for (path, pem) in &self.roots {
            let mut found = 0;
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let broken = |error| unusable(path, "it is not a PEM certificate", Some(Box::new(error)));
                let certificate = certificate.map_err(broken)?;
                roots.add(certificate).map_err(|error| {
                    unusable(path, "it holds a certificate that cannot be a root", Some(Box::new(error)))
                })?;
                found += 1;
            }
            if found == 0 {
                return Err(unusable(path, "it holds no PEM certificate", None));
            }
        }
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        } else {
            builder.with_root_certificates(roots)
        };
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let (path, pem) = &identity.certificate;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable(path, "it is not a PEM certificate", Some(Box::new(error))))?;
        let (key_path, key) = &identity.key;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| unusable(key_path, "it is not a PEM private key", Some(Box::new(error))))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(path, "it does not fit its key", Some(Box::new(error))))
    }
}

/// Accepts every certificate, but still checks that the other side holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a person can do about a failed handshake.
pub(crate) fn advice(error: &rustls::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "its certificate is signed by an authority this machine does not trust; if it should be trusted, add \
             that authority to the system's store or name its file as `ca` in the registry's hosts.toml"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name; ask for the registry under the name in the certificate"
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired; it must be renewed (or this machine's clock is wrong)"
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet; look at this machine's clock"
        }
        Error::InvalidCertificate(Bad::Other(other)) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is an authority's own; make one for the server and sign it with the authority"
        }
        Error::InvalidCertificate(_) => "its certificate is not valid",
        Error::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA) => {
            "it wants a client certificate; name one as `client` in the registry's hosts.toml"
        }
        Error::AlertReceived(_) => "it refused the handshake",
        _ => "the handshake failed",
    }
}
