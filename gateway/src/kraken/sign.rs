//! Kraken's signatures and the nonce they need.
//!
//! Invariant: nonces of a key only grow, also over restarts: what the file says was reserved before it was
//! used, a batch at a time, so that a crash skips numbers and never repeats one. The file is locked: a
//! second process with the same key is refused (`protocols/kraken.md` section 7.3).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::keys::{Credentials, KeyError, Secret};

/// Nonces reserved by one write of the file.
const BATCH: u64 = 1_000;

/// A key ready to sign.
pub struct Signer {
    api_key: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer [secret]")
    }
}

impl Signer {
    /// Reads the key.
    pub fn new(credentials: &Credentials) -> Result<Signer, KeyError> {
        let Credentials::Kraken { api_key, secret, .. } = credentials else {
            return Err(KeyError::Venue { venue: "kraken" });
        };
        let refused = KeyError::Private { expected: "base64 as Kraken shows it" };
        let raw = STANDARD.decode(secret.reveal().trim_ascii()).map_err(|_| refused)?;
        let raw = Secret::new(raw);
        let key = hmac::Key::new(hmac::HMAC_SHA512, raw.reveal());
        Ok(Signer { api_key: api_key.clone(), key })
    }

    /// Returns the public part.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Signs a request: `path` with its query, `body` as it is sent, which holds the nonce.
    #[must_use]
    pub fn sign(&self, path: &str, nonce: &str, body: &str) -> String {
        let mut inner = digest::Context::new(&digest::SHA256);
        inner.update(nonce.as_bytes());
        inner.update(body.as_bytes());
        let mut outer = hmac::Context::with_key(&self.key);
        outer.update(path.as_bytes());
        outer.update(inner.finish().as_ref());
        STANDARD.encode(outer.sign())
    }
}

/// The nonces of one key.
#[derive(Debug)]
pub struct Nonces {
    file: File,
    next: u64,
    reserved: u64,
}

impl Nonces {
    /// Opens the key's file, making it where there is none. Microseconds of UNIX time are the floor, so a
    /// lost file does no harm as long as no faster unit was ever used with the key.
    pub fn open(path: &Path, unix_ns: i64) -> io::Result<Nonces> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process uses this key's nonces; every process needs a key of its own",
                ));
            }
            Err(TryLockError::Error(err)) => return Err(err),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let kept = match text.trim() {
            "" => 0,
            digits => digits.parse().map_err(io::Error::other)?,
        };
        let floor = (unix_ns / 1_000).unsigned_abs();
        Ok(Nonces { file, next: floor.max(kept), reserved: kept.min(floor) })
    }

    /// Returns a nonce that was never returned before.
    pub fn take(&mut self) -> io::Result<u64> {
        if self.reserved <= self.next {
            let reserved = self.next + BATCH;
            self.file.rewind()?;
            // Twenty digits always: what is longer than the old text hides all of it.
            write!(self.file, "{reserved:020}")?;
            self.file.sync_data()?;
            self.reserved = reserved;
        }
        let nonce = self.next;
        self.next += 1;
        Ok(nonce)
    }

    /// Leaps ahead: the venue says that it has seen a larger one.
    pub fn leap(&mut self, unix_ns: i64) {
        self.next = (unix_ns / 1_000).unsigned_abs().max(self.next + 10 * BATCH);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn credentials(secret: &str) -> Credentials {
        Credentials::Kraken {
            api_key: "K".into(),
            secret: secret.into(),
            nonce_file: std::env::temp_dir().join("tandem-nonce-unused"),
        }
    }

    /// The vectors of `protocols/kraken.md` section 7.3.
    #[test]
    fn signature_vectors() {
        let sign = |path: &str, nonce: &str, body: &str, secret: &str| {
            Signer::new(&credentials(secret)).expect("a key").sign(path, nonce, body)
        };
        let published = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==";
        let own = STANDARD.encode((0..64).collect::<Vec<u8>>());
        let cases = [
            (
                "/0/private/AddOrder",
                "1616492376594",
                "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
                published,
                "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==",
            ),
            (
                "/0/private/AddOrder",
                "1700000000000",
                "nonce=1700000000000&pair=XBTUSD&type=sell&ordertype=limit&price=65000.1&volume=0.015",
                own.as_str(),
                "8fk3J6ixrZYFj15wi5Ab0EN2aEduFS2lGc7c+1/2e82fBXt2elp3fOXeERM6+R/s5MXI0bCUJG/aXcGtmEhmZQ==",
            ),
            (
                "/0/private/CancelOrder",
                "1700000000001",
                "{\"nonce\": \"1700000000001\", \"txid\": \"OABCDE-12345-FGHIJK\"}",
                own.as_str(),
                "Pcs2hpn1jZkqkyuJ0udETohiUYyxtfY/7HfzMhLX0a4orycBKDndSeWLC2I0kAe+SYbDAbxEWB6njOQlgb1zeg==",
            ),
            (
                "/0/private/GetWebSocketsToken",
                "1700000000002",
                "nonce=1700000000002",
                own.as_str(),
                "AO0NafMLzNsfxOvbxyQR8OHtuPa5TqIDmENhE8yM/CnVD6/ceRLO6LejwY6HzCS+0SkyP+Bksx30W2lZnLTFnw==",
            ),
        ];
        for (path, nonce, body, secret, expected) in cases {
            assert_eq!(sign(path, nonce, body, secret), expected, "{path} {nonce}");
        }
        assert!(Signer::new(&credentials("not base64!")).is_err());
    }

    /// Row OE-16.
    #[test]
    fn nonces_grow_over_restarts_and_have_one_writer() {
        let path = std::env::temp_dir().join(format!("tandem-nonce-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut last = 0;
        let mut taken = 0u32;
        for restart in 0..50 {
            // The clock goes backwards over restarts: the file holds.
            let mut nonces = Nonces::open(&path, 1_000_000_000_000_000 - restart).expect("a file");
            let second = Nonces::open(&path, 0).expect_err("one writer a key");
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
            for _ in 0..BATCH + 7 {
                let nonce = nonces.take().expect("room");
                assert!(last < nonce, "{nonce} after {last}");
                last = nonce;
                taken += 1;
            }
        }
        println!(
            "figure OE-16: {taken} nonces over 50 restarts with the clock going back, 0 repeated, second writer refused 50 of 50"
        );
        let _ = std::fs::remove_file(&path);
    }
}
