//! Signatures as the venues check them, and the encodings around them.
//!
//! Invariant: nothing is compared but whole values of the right length; what does not decode is a wrong
//! signature, never a panic. Keys stay inside [`Signer`] values and are never printed.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// HMAC-SHA-256 as lower-case hex: Binance.
pub(crate) fn hmac_sha256_hex(secret: &[u8], message: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hex(hmac::sign(&key, message).as_ref())
}

/// HMAC-SHA-512: Kraken.
pub(crate) fn hmac_sha512(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

pub(crate) fn sha256(message: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, message).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim()).ok()
}

/// Base64 as in a JWT: URL alphabet, no padding.
pub(crate) fn unbase64_url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// A public key, by its algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verifier {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// An uncompressed point of P-256.
    P256(Vec<u8>),
}

impl Verifier {
    /// Returns whether `signature` (raw: 64 bytes, `r || s` for P-256) is of this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            Self::P256(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signature)
                .is_ok(),
        }
    }

    /// Returns the name a JWT header must give.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
        }
    }

    /// Derives the public key of a private one: PKCS#8 or SEC1 PEM, or base64 of an Ed25519 seed (32 bytes) or
    /// seed and public key (64 bytes).
    pub fn from_private(text: &str) -> Option<Self> {
        // A key copied out of JSON may still have its line ends written as two characters.
        let text = text.replace("\\n", "\n");
        if !text.contains("-----BEGIN") {
            let bytes = unbase64(&text)?;
            let seed = bytes.get(..32).filter(|_| matches!(bytes.len(), 32 | 64))?;
            let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
            return Some(Self::Ed25519(pair.public_key().as_ref().to_vec()));
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).ok()?;
        let der = der.secret_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::Ed25519(pair.public_key().as_ref().to_vec()));
        }
        let pair =
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
        Some(Self::P256(pair.public_key().as_ref().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of `protocols/binance.md` 15 (1 and 4) and `protocols/coinbase.md` 2.2.
    #[test]
    fn ed25519_vectors() {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
        let key = Verifier::from_private(pem).unwrap();
        let seed = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(Verifier::from_private(seed), Some(key.clone()));
        assert_eq!(key.algorithm(), "EdDSA");
        let message = b"apiKey=SIMKEY0000000000000000000000000000000000000000000000000000000001&timestamp=1764000000000";
        let good = unbase64("Rjp6gbIiVMi3QEaBvyRukq1lUJQP7j7qEFuSR2u9ol1iqvdDAWce4fzvZqBLT6USaxxxaeXuSwaxcBfTVWedBA==").unwrap();
        assert!(key.verify(message, &good));
        assert!(!key.verify(b"other", &good));
        assert!(!key.verify(message, &good[..63]));
        assert_eq!(Verifier::from_private("nonsense"), None);
    }

    #[test]
    fn hmac_vectors() {
        let payload = b"symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOC&quantity=0.00100000&price=60000.10&newClientOrderId=arb-1&newOrderRespType=FULL&recvWindow=250&timestamp=1764000000000";
        assert_eq!(
            hmac_sha256_hex(b"sim-hmac-secret-0123456789abcdef", payload),
            "f6f137bd52f159a8d1650b838874dc3e31715b0167c44777f4e6a211119f68bb"
        );
        let secret = unbase64("kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg==").unwrap();
        let body =
            "nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25";
        let mut message = b"/0/private/AddOrder".to_vec();
        message.extend(sha256(format!("1616492376594{body}").as_bytes()));
        assert_eq!(
            base64(&hmac_sha512(&secret, &message)),
            "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ=="
        );
    }

    /// The public point and the signature of `protocols/coinbase.md` 2.2; header and claims as written there.
    #[test]
    fn es256_vector() {
        let point = "04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354";
        let bytes: Vec<u8> = (0..point.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&point[i..i + 2], 16).unwrap())
            .collect();
        let name = "organizations/00000000-0000-4000-8000-000000000001/apiKeys/00000000-0000-4000-8000-000000000002";
        let header = format!(
            "{{\"alg\":\"ES256\",\"kid\":\"{name}\",\"nonce\":\"{}\",\"typ\":\"JWT\"}}",
            "0".repeat(64)
        );
        let claims = format!(
            "{{\"sub\":\"{name}\",\"iss\":\"cdp\",\"nbf\":1700000000,\"exp\":1700000120,\"uri\":\"GET api.coinbase.com/api/v3/brokerage/accounts\"}}"
        );
        let url = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", url(&header), url(&claims));
        let signature = unbase64_url("LlVwQXTzbu3YoAATghSBBKAMOhr1kQKnu8jmm94k5r3NCtiUUSdUcnX8cPNUj88VUfrJJSBmBvIiWrpEE3xxOg").unwrap();
        assert!(Verifier::P256(bytes).verify(message.as_bytes(), &signature));
    }
}
