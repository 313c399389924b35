//! TLS as every connection uses it.
//!
//! Invariant: certificates are always checked, by name, against the public roots or against the one
//! authority that the configuration names. There is no way to switch that off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority's file cannot be read.
    #[error("{path}: no certificates could be read ({detail}); tls_ca_file must be a PEM file")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What was wrong with it.
        detail: String,
    },
    /// The library refused its own defaults.
    #[error("TLS library: {0}")]
    Library(#[from] rustls::Error),
}

/// Returns the client configuration: the public roots, or only the authority in `ca_file`.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let error = |detail: String| TlsError::Authority { path: path.to_owned(), detail };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|err| error(err.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|err| error(err.to_string()))?;
                roots.add(certificate).map_err(|err| error(err.to_string()))?;
            }
            if roots.is_empty() {
                return Err(error("the file holds none".to_owned()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
