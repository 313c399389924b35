//! Credentials of the venues, and what a venue says a key may do.
//!
//! Invariant: private material is in a [`Secret`], which is wiped when it is dropped and prints as
//! `[secret]` whatever is asked of it; nothing here or elsewhere in this crate copies it into a log, a
//! record or an error. A [`KeyReport`] says only what the venue said: a missing answer is no answer, and a
//! key of which we do not know that it cannot withdraw is one that can.
//!
//! Not here: where secrets are read from (`secret`), how requests are signed (each venue's `sign`), the
//! question itself ([`crate::client`]).

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroize;

pub use crate::client::check;

/// Bytes that nobody may see.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes; the caller's copy is the caller's to wipe.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes)
    }

    /// Returns the bytes, to sign with.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.as_bytes().to_vec())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What opens an account at a venue.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Binance with a shared secret: REST only, a session logon needs Ed25519.
    BinanceHmac {
        /// Sent with every request.
        api_key: String,
        /// As the venue showed it.
        secret: Secret,
    },
    /// Binance with an Ed25519 key.
    BinanceEd25519 {
        /// Sent with every request.
        api_key: String,
        /// PKCS#8, PEM or its base64 body alone.
        private_key_pem: Secret,
    },
    /// Coinbase.
    Coinbase {
        /// `organizations/{org}/apiKeys/{key}`.
        api_key: String,
        /// EC P-256 in SEC1 or PKCS#8 PEM, Ed25519 in PKCS#8 PEM, or base64 of its seed.
        private_key_pem: Secret,
    },
    /// Kraken.
    Kraken {
        /// Sent with every request.
        api_key: String,
        /// Base64, as the venue showed it.
        secret: Secret,
        /// Where the last nonce used with this key is kept: one file a key, one process at a time.
        nonce_file: PathBuf,
    },
}

/// Why credentials are of no use. Never says what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another venue's.
    #[error("these credentials are not for {venue}")]
    Venue {
        /// The venue asked for.
        venue: &'static str,
    },
    /// Orders at Binance go over a session, which only Ed25519 keys can open.
    #[error("binance orders need an Ed25519 key: session.logon takes no other")]
    NoSession,
    /// The private key cannot be read.
    #[error("the private key is neither {expected}")]
    Private {
        /// What it may be.
        expected: &'static str,
    },
}

/// What a venue says that a key may do. A permission that the venue did not tell counts as granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// Orders.
    pub trade: bool,
    /// Withdrawals: a key that may is refused in `live`.
    pub withdraw: bool,
    /// Transfers between accounts of the same owner: likewise.
    pub transfer: bool,
    /// Only from listed addresses; nothing where the venue does not tell.
    pub ip_restricted: Option<bool>,
}

impl KeyReport {
    /// Returns whether the key may be used to trade real money: it trades and moves nothing.
    #[must_use]
    pub const fn is_acceptable(&self) -> bool {
        self.trade && !self.withdraw && !self.transfer
    }
}

/// Takes a PEM text apart: its label and its bytes. A bare base64 body has an empty label. What secrets
/// files do to line ends (`\n` as two characters) is undone.
pub(crate) fn unpem(text: &[u8]) -> Option<(String, Secret)> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let mut text = String::from_utf8(text.to_vec()).ok()?;
    let mut plain = text.replace("\\n", "\n");
    text.zeroize();
    let mut label = String::new();
    let mut body = String::with_capacity(plain.len());
    for line in plain.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("-----BEGIN ") {
            label = rest.trim_end_matches('-').to_owned();
        } else if line.starts_with("-----END ") {
            break;
        } else {
            body.push_str(line);
        }
    }
    let bytes = STANDARD.decode(&body).ok();
    plain.zeroize();
    body.zeroize();
    bytes.map(|bytes| (label, Secret::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let key = Credentials::BinanceHmac { api_key: "k".into(), secret: "hush-hush".into() };
        let secret = Secret::from("hush-hush");
        let shown = format!("{key:?} {secret} {secret:?} {:#?}", key);
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("[secret]"));
    }

    #[test]
    fn pem_is_read_however_its_lines_were_kept() {
        let whole = "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n";
        for text in [whole, &whole.replace('\n', "\\n"), &whole.replace('\n', "\r\n")] {
            let (label, bytes) = unpem(text.as_bytes()).expect("PEM");
            assert_eq!((label.as_str(), bytes.reveal()), ("PRIVATE KEY", &[1, 2, 3][..]));
        }
        assert_eq!(unpem(b"AQID").expect("base64").0, "");
        assert!(unpem(b"-----BEGIN X-----\n!\n-----END X-----").is_none());
    }
}
