//! A certificate authority: made at start, its certificate written out; its key only where the configuration says.
//!
//! Invariant: server certificates are for `localhost`, `127.0.0.1` and `::1` only, so that trusting
//! this CA by mistake exposes no other name. A kept CA is used again only as a pair: a certificate without its key,
//! or the reverse, is replaced by a new pair.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rcgen::{KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::SimError;

fn authority() -> Result<CertificateParams, rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Tandem simulator CA");
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(ca)
}

/// Reads a kept CA: its certificate and its key.
fn kept(ca_path: &Path, key_path: &Path) -> Option<(CertificateDer<'static>, KeyPair)> {
    let certificate = CertificateDer::from_pem_file(ca_path).ok()?;
    let key = KeyPair::from_pem(&std::fs::read_to_string(key_path).ok()?).ok()?;
    // The certificate holds the public key as it is: another pair's does not contain it.
    let public = key.public_key_raw();
    certificate.windows(public.len()).any(|w| w == public).then_some((certificate, key))
}

/// Writes the CA's key for its owner alone.
fn keep(key_path: &Path, key: &KeyPair) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(key_path)?;
    file.write_all(key.serialize_pem().as_bytes())
}

/// Makes the CA or takes the kept one, writes its certificate to `ca_path`, and returns an acceptor for all TLS
/// listeners.
pub(crate) fn acceptor(
    ca_path: &Path,
    key_path: Option<&Path>,
    days: Option<u32>,
) -> Result<TlsAcceptor, SimError> {
    let made = |e: rcgen::Error| SimError::Tls { what: e.to_string() };
    let failed =
        |path: &Path, source| SimError::Io { what: format!("write {}", path.display()), source };
    let ca = authority().map_err(made)?;
    let (ca_cert, ca_key) = match key_path.and_then(|key| kept(ca_path, key)) {
        Some(pair) => pair,
        None => {
            let key = KeyPair::generate().map_err(made)?;
            let certificate = ca.self_signed(&key).map_err(made)?;
            std::fs::write(ca_path, certificate.pem()).map_err(|e| failed(ca_path, e))?;
            if let Some(path) = key_path {
                keep(path, &key).map_err(|e| failed(path, e))?;
            }
            (certificate.der().clone(), key)
        }
    };
    let issuer = Issuer::new(ca, ca_key);

    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names.to_vec()).map_err(made)?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(days) = days {
        let last = crate::units::day_after(SystemTime::now(), days);
        leaf.not_after = rcgen::date_time_ymd(last.0, last.1, last.2);
    }
    let leaf_key = KeyPair::generate().map_err(made)?;
    let leaf_cert = leaf.signed_by(&leaf_key, &issuer).map_err(made)?;

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let chain = vec![leaf_cert.der().clone(), ca_cert];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let wrong = |e: rustls::Error| SimError::Tls { what: e.to_string() };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
