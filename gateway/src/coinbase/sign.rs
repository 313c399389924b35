//! Coinbase's tokens: JWTs made ahead, one a request.
//!
//! Invariant: nothing is signed on the order path. A token names its method and path, lives 120 s and is
//! used once (whether the venue takes one twice is unverified, `protocols/coinbase.md` section 2.1); the
//! pool gives out none that would die within [`SPARE_S`].

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::keys::{Credentials, KeyError, unpem};

/// What a token lives.
pub const LIFE_S: i64 = 120;
/// What it must have left when it is used.
pub const SPARE_S: i64 = 20;

/// A key ready to sign.
pub struct Signer {
    api_key: String,
    kind: Kind,
    random: SystemRandom,
}

enum Kind {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer [secret]")
    }
}

impl Signer {
    /// Reads the key.
    pub fn new(credentials: &Credentials) -> Result<Signer, KeyError> {
        let Credentials::Coinbase { api_key, private_key_pem } = credentials else {
            return Err(KeyError::Venue { venue: "coinbase" });
        };
        let expected =
            "an EC P-256 or Ed25519 private key (SEC1 or PKCS#8 PEM), nor an Ed25519 seed";
        let refused = KeyError::Private { expected };
        let (label, der) = unpem(private_key_pem.reveal()).ok_or(refused)?;
        let der = der.reveal();
        let kind = match (label.as_str(), der.len()) {
            // A bare seed, or a seed with its public key behind it.
            ("", 32 | 64) => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&der[..32]).map_err(|_| refused)?;
                if der.len() == 64 && pair.public_key().as_ref() != &der[32..] {
                    return Err(refused);
                }
                Kind::Ed25519(pair)
            }
            _ => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                Ok(pair) => Kind::Ed25519(pair),
                Err(_) => Kind::P256(
                    EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                        .map_err(|_| refused)?,
                ),
            },
        };
        Ok(Signer { api_key: api_key.clone(), kind, random: SystemRandom::new() })
    }

    /// Returns the public part.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Makes a token: for `uri` (`METHOD host/path`, no query), or for a WebSocket message without one.
    #[must_use]
    pub fn token(&self, uri: Option<&str>, now_s: i64) -> String {
        let mut nonce = [0u8; 32];
        // A nonce need not be secret; without randomness the time is as different each time.
        if self.random.fill(&mut nonce).is_err() {
            nonce[..8].copy_from_slice(&now_s.to_le_bytes());
        }
        let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        self.token_with(uri, now_s, &nonce)
    }

    fn token_with(&self, uri: Option<&str>, now_s: i64, nonce: &str) -> String {
        let key = &self.api_key;
        let alg = match self.kind {
            Kind::P256(_) => "ES256",
            Kind::Ed25519(_) => "EdDSA",
        };
        let header = format!(
            "{{\"alg\":\"{alg}\",\"kid\":\"{key}\",\"nonce\":\"{nonce}\",\"typ\":\"JWT\"}}"
        );
        let uri = uri.map(|uri| format!(",\"uri\":\"{uri}\"")).unwrap_or_default();
        let claims = format!(
            "{{\"sub\":\"{key}\",\"iss\":\"cdp\",\"nbf\":{now_s},\"exp\":{}{uri}}}",
            now_s + LIFE_S
        );
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = match &self.kind {
            Kind::Ed25519(pair) => URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())),
            Kind::P256(pair) => match pair.sign(&self.random, signed.as_bytes()) {
                Ok(signature) => URL_SAFE_NO_PAD.encode(signature),
                // The library fails here only without randomness; the venue then refuses the token.
                Err(_) => String::new(),
            },
        };
        format!("{signed}.{signature}")
    }
}

/// Tokens of one method and path, made ahead.
#[derive(Debug)]
pub struct Pool {
    uri: String,
    tokens: Vec<(i64, String)>,
    size: usize,
}

impl Pool {
    /// Returns an empty pool that wants `size` tokens.
    #[must_use]
    pub fn new(uri: String, size: usize) -> Pool {
        Pool { uri, tokens: Vec::with_capacity(size + 1), size }
    }

    /// Makes at most one token, and drops what is too old; returns whether there was something to do.
    pub fn refill(&mut self, signer: &Signer, now_s: i64) -> bool {
        // Half-way through its life a token is replaced, so that the pool never runs dry at once.
        self.tokens.retain(|(made_s, _)| now_s < made_s + LIFE_S / 2 + SPARE_S);
        if self.size <= self.tokens.len() {
            return false;
        }
        self.tokens.push((now_s, signer.token(Some(&self.uri), now_s)));
        true
    }

    /// Gives a token away, the oldest that is good; nothing where none is left.
    pub fn take(&mut self, now_s: i64) -> Option<String> {
        let good = |made_s: i64| now_s < made_s + LIFE_S - SPARE_S && made_s <= now_s + 1;
        let at = self.tokens.iter().position(|(made_s, _)| good(*made_s))?;
        Some(self.tokens.remove(at).1)
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    const NAME: &str = "organizations/00000000-0000-4000-8000-000000000001/apiKeys/00000000-0000-4000-8000-000000000002";
    const URI: &str = "GET api.coinbase.com/api/v3/brokerage/accounts";

    pub(crate) fn ed25519() -> Credentials {
        Credentials::Coinbase {
            api_key: NAME.into(),
            private_key_pem: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
        }
    }

    /// SEC1 of the private scalar 01..20.
    pub(crate) fn p256() -> Credentials {
        let mut der = vec![0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
        der.extend(1..=32u8);
        der.extend([0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n");
        Credentials::Coinbase { api_key: NAME.into(), private_key_pem: pem.as_str().into() }
    }

    /// The vectors of `protocols/coinbase.md` section 2.2.
    #[test]
    fn signature_vectors() {
        let zeros = "0".repeat(64);
        let ed = Signer::new(&ed25519()).expect("a key");
        let token = ed.token_with(Some(URI), 1_700_000_000, &zeros);
        assert_eq!(
            token.rsplit('.').next(),
            Some(
                "EnNV9y2kBhSZI4Xy-uUoQwhzo9meSwhtyM5vHflqEBRbQ-u9ykR5HzljvKnyTqmfxQkFDBXXDQj8X6C15-RuCA"
            )
        );
        let es = Signer::new(&p256()).expect("a key");
        let token = es.token_with(Some(URI), 1_700_000_000, &zeros);
        let (signed, ours) = token.rsplit_once('.').expect("three parts");
        let mut point = vec![4];
        for hex in [
            "515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f",
            "4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354",
        ] {
            point.extend(
                (0..32).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")),
            );
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let given = "LlVwQXTzbu3YoAATghSBBKAMOhr1kQKnu8jmm94k5r3NCtiUUSdUcnX8cPNUj88VUfrJJSBmBvIiWrpEE3xxOg";
        for signature in [ours, given] {
            let raw = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            assert_eq!(raw.len(), 64, "r and s, not DER");
            public.verify(signed.as_bytes(), &raw).expect("the vector's public key verifies it");
        }
    }

    #[test]
    fn a_token_is_given_once_and_never_old() {
        let signer = Signer::new(&ed25519()).expect("a key");
        let mut pool = Pool::new(URI.into(), 3);
        assert_eq!(pool.take(0), None);
        while pool.refill(&signer, 1_000) {}
        assert_eq!(pool.len(), 3);
        let (a, b) = (pool.take(1_000), pool.take(1_099));
        assert!(a.is_some() && b.is_some() && a != b);
        assert_eq!(pool.take(1_100), None, "less than the spare is left of it");
        while pool.refill(&signer, 1_100) {}
        assert_eq!(pool.len(), 3, "the old one was dropped");
    }
}
