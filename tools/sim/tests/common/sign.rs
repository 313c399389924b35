//! Clients' side of the signatures, with keys for tests only.
#![allow(dead_code, reason = "each test file uses its part")]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Keys of `protocols/binance.md` 15, and others of our own.
pub const HMAC_KEY: &str = "SIMKEY0000000000000000000000000000000000000000000000000000000001";
pub const HMAC_SECRET: &str = "sim-hmac-secret-0123456789abcdef";
pub const ED_KEY: &str = "SIMKEYED25519000000000000000000000000000000000000000000000000001";
pub const ED_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n";
pub const CB_KEY: &str = "organizations/00000000-0000-4000-8000-000000000001/apiKeys/00000000-0000-4000-8000-000000000002";
pub const KRAKEN_KEY: &str = "SimKrakenKey1";

/// The test secret of `protocols/kraken.md` 7.3: bytes 0 to 63.
pub fn kraken_secret() -> Vec<u8> {
    (0..64).collect()
}

/// A P-256 key in SEC1 form for scalar 01..20 (`protocols/coinbase.md` 2.2).
pub fn ec_pem() -> String {
    let scalar: Vec<u8> = (1..=32).collect();
    let point = "04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354";
    let point: Vec<u8> = (0..point.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&point[i..i + 2], 16).unwrap())
        .collect();
    // ECPrivateKey: version 1, the scalar, the curve prime256v1, the point as a bit string.
    let mut der = vec![0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];
    der.extend(&scalar);
    der.extend([0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    der.extend([0xa1, 0x44, 0x03, 0x42, 0x00]);
    der.extend(point);
    let text = STANDARD.encode(der);
    format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n")
}

/// A keys file with one client of every kind, a second one, and a warden of the first.
pub fn keys() -> Value {
    let kraken = STANDARD.encode(kraken_secret());
    json!({"clients": {
        "main": {
            "binance": {"api_key": HMAC_KEY, "secret": HMAC_SECRET},
            "binance_ed25519": {"api_key": ED_KEY, "private_key_pem": ED_PEM},
            "coinbase": {"api_key": CB_KEY, "private_key_pem": ec_pem()},
            "kraken": {"api_key": KRAKEN_KEY, "secret": kraken, "nonce_window": 0}
        },
        "other": {
            "binance": {"api_key": "OTHERBINANCE", "secret": "other-secret"},
            "coinbase": {"api_key": "organizations/o/apiKeys/other",
                         "private_key_pem": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
            "kraken": {"api_key": "OtherKraken", "secret": kraken, "nonce_window": 10}
        },
        "warden": {
            "account": "main",
            "binance": {"api_key": "WARDENBINANCE", "secret": "warden-secret"},
            "kraken": {"api_key": "WardenKraken", "secret": kraken, "nonce_window": 0},
            "permissions": {"withdraw": true, "ip_restricted": false}
        }
    }})
}

pub fn hex_hmac_sha256(secret: &str, message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, message.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

pub fn ed25519(message: &str) -> String {
    let seed: Vec<u8> = (0..32).collect();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    STANDARD.encode(pair.sign(message.as_bytes()))
}

pub fn api_sign(path: &str, nonce: &str, body: &str, secret: &[u8]) -> String {
    let mut message = path.as_bytes().to_vec();
    let inner = format!("{nonce}{body}");
    message.extend(digest::digest(&digest::SHA256, inner.as_bytes()).as_ref());
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret);
    STANDARD.encode(hmac::sign(&key, &message))
}

/// A Coinbase token; `uri` empty for WebSockets. `ed` signs with the other client's Ed25519 key.
pub fn jwt(key: &str, uri: &str, now_s: u64, ed: bool) -> String {
    let alg = if ed { "EdDSA" } else { "ES256" };
    let header = json!({"alg": alg, "kid": key, "nonce": "00ff", "typ": "JWT"});
    let mut claims = json!({"sub": key, "iss": "cdp", "nbf": now_s, "exp": now_s + 120});
    if !uri.is_empty() {
        claims["uri"] = json!(uri);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = if ed {
        let seed: Vec<u8> = (0..32).collect();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        pair.sign(message.as_bytes()).as_ref().to_vec()
    } else {
        let pem = ec_pem();
        let der = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
        let pair =
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
        pair.sign(&rand::SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec()
    };
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}
