//! One request to a service, and its answer; nothing of the address is ever told.
//!
//! Invariant: a request ends within its time, whatever the other side does; no redirect is followed, no
//! proxy or other setting of the environment is used, certificates are checked against the public roots or
//! the one authority that was configured. An address is a secret (it lets anybody post as us): errors name
//! what went wrong and neither the address nor what the service said.
//!
//! The library makes copies of an address that it does not wipe: the process forbids dumps of its memory.
//!
//! Every request has a connection of its own, so that each one proves name, route and certificate.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tandem_gateway::keys::Secret;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// So much of an answer is read: Telegram repeats a message, each letter in up to six.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// A service may tell us to wait for so long; more is no wait but a refusal.
const WAIT_S_MAX: u64 = 86_400;

/// Returns the wait that a service tells, whatever number it sends.
#[must_use]
pub fn wait(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(WAIT_S_MAX))
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The time was up.
    #[error("no answer in time")]
    Timeout,
    /// Nobody there.
    #[error("the host cannot be reached: {0}")]
    Unreachable(std::io::ErrorKind),
    /// No such name.
    #[error("the host's name cannot be resolved")]
    Name,
    /// The certificate, or TLS itself.
    #[error("TLS failed: the certificate is not that of the host, or not of an authority we know")]
    Tls,
    /// What came is no HTTP.
    #[error("the answer is no HTTP")]
    Protocol,
    /// The address cannot be used.
    #[error("the address is not one: write https://host/…, or http:// on this host only")]
    Address,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The authority's file.
    #[error("{path}: no certificates could be read ({detail}); tls_ca_file must be a PEM file")]
    Authority {
        /// File.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// What a service said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// `X-Sentry-Rate-Limits`, where it is one line of text.
    pub limits: Option<String>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// A client of one service.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// Returns a client that waits at most `timeout` for a whole exchange.
    pub fn new(timeout: Duration, ca_file: Option<&Path>) -> Result<Client, ClientError> {
        let roots = match ca_file {
            None => RootCerts::WebPki,
            Some(path) => authority(path)?,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections(0)
            .user_agent("tandem")
            .build()
            .new_agent();
        Ok(Client { agent })
    }

    /// Posts a body; whatever the status is, it is an answer.
    pub fn post(
        &self,
        address: &Secret,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Answer, HttpError> {
        self.post_as(address, "application/json", headers, body)
    }

    /// The same with a content type of its own.
    pub fn post_as(
        &self,
        address: &Secret,
        content_type: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Answer, HttpError> {
        let address = usable(address).ok_or(HttpError::Address)?;
        let mut request = self.agent.post(address).header("Content-Type", content_type);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut answer = request.send(body).map_err(told)?;
        let retry_after = answer
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(wait);
        let limits = answer.headers().get("x-sentry-rate-limits");
        let limits = limits.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let status = answer.status().as_u16();
        // A body that does not come whole takes nothing from the status.
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok(Answer { status, retry_after, limits, body: body.unwrap_or_default() })
    }
}

/// Returns an address that may be used: TLS, or this host.
pub fn usable(address: &Secret) -> Option<&str> {
    let text = std::str::from_utf8(address.reveal()).ok()?;
    let uri: ureq::http::Uri = text.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_local =
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_plain = !uri.authority()?.as_str().contains('@');
    match uri.scheme_str()? {
        "https" if is_plain => Some(text),
        "http" if is_plain && is_local => Some(text),
        _ => None,
    }
}

fn authority(path: &Path) -> Result<RootCerts, ClientError> {
    let error = |detail: String| ClientError::Authority { path: path.to_owned(), detail };
    let text = std::fs::read(path).map_err(|io| error(io.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(_) => return Err(error("it is no PEM".to_owned())),
        }
    }
    if certificates.is_empty() {
        return Err(error("the file holds none".to_owned()));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// Says what went wrong in words of ours: the library's would show the address.
fn told(error: ureq::Error) -> HttpError {
    match error {
        ureq::Error::Timeout(_) => HttpError::Timeout,
        ureq::Error::HostNotFound => HttpError::Name,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => HttpError::Tls,
        ureq::Error::Io(io) => match io.kind() {
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => HttpError::Timeout,
            // rustls tells a refused certificate through the socket it wraps.
            std::io::ErrorKind::InvalidData => HttpError::Tls,
            kind => HttpError::Unreachable(kind),
        },
        ureq::Error::ConnectionFailed => {
            HttpError::Unreachable(std::io::ErrorKind::ConnectionRefused)
        }
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => HttpError::Address,
        _ => HttpError::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_this_host() {
        let good = |text: &str| usable(&Secret::from(text)).is_some();
        for text in
            ["https://hooks.slack.com/services/T/B/x", "http://127.0.0.1:8/x", "http://[::1]:8/x"]
        {
            assert!(good(text), "{text}");
        }
        for text in [
            "http://hooks.slack.com/x",
            "https://user:pass@host/x",
            "ftp://127.0.0.1/x",
            "",
            "x",
            "https:///x",
        ] {
            assert!(!good(text), "{text}");
        }
    }
}
