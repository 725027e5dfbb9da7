//! TLS of all three protocols.

use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::failure::{Failure, Result};

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Tls {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Loads the configured certificate and key; `None` where none is configured. One that cannot be used is refused.
pub(crate) fn load(config: &Config) -> Result<Option<Tls>> {
    let (certificate, key) = (&config.serve.tls_certificate, &config.serve.tls_key);
    if certificate.is_empty() {
        return Ok(None);
    }
    let wrong = |setting: &str, file: &str, e: &dyn std::fmt::Display| {
        Failure::usage(format!("{setting} = {file}: {e}")).hint("expected a PEM file")
    };
    let in_certificate = |e: &dyn std::fmt::Display| wrong("serve.tls_certificate", certificate, e);
    let certificates = CertificateDer::pem_file_iter(Path::new(certificate)).map_err(|e| in_certificate(&e))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|e| in_certificate(&e))?;
    if certificates.is_empty() {
        return Err(in_certificate(&"no certificate in it"));
    }
    let key_der = PrivateKeyDer::from_pem_file(Path::new(key)).map_err(|e| wrong("serve.tls_key", key, &e))?;
    let tls = Tls { certificates, key: key_der };
    // Now, and not at the first connection.
    tls.acceptor(&[])?;
    Ok(Some(tls))
}

impl Tls {
    /// Returns what encrypts connections of a protocol by its ALPN names.
    pub(crate) fn acceptor(&self, alpn: &[&str]) -> Result<TlsAcceptor> {
        let wrong = |e: tokio_rustls::rustls::Error| {
            Failure::usage(format!("serve.tls_certificate, serve.tls_key: {e}"))
                .hint("the key must be of this certificate")
        };
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?.with_no_client_auth();
        let mut config = builder.with_single_cert(self.certificates.clone(), self.key.clone_key()).map_err(wrong)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
