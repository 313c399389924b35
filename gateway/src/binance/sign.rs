//! Binance's signatures.
//!
//! Invariant: exactly the bytes that are sent are signed. REST signs the query as percent-encoded, the
//! WebSocket API the parameters raw and sorted by name (`protocols/binance.md` section 4.3).

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::keys::{Credentials, KeyError, unpem};

/// A key ready to sign.
pub struct Signer {
    api_key: String,
    kind: Kind,
}

enum Kind {
    Hmac(Box<hmac::Key>),
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
        match credentials {
            Credentials::BinanceHmac { api_key, secret } => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal());
                Ok(Signer { api_key: api_key.clone(), kind: Kind::Hmac(Box::new(key)) })
            }
            Credentials::BinanceEd25519 { api_key, private_key_pem } => {
                let refused = KeyError::Private { expected: "PKCS#8 of an Ed25519 key" };
                let (_, der) = unpem(private_key_pem.reveal()).ok_or(refused)?;
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.reveal())
                    .map_err(|_| refused)?;
                Ok(Signer { api_key: api_key.clone(), kind: Kind::Ed25519(pair) })
            }
            _ => Err(KeyError::Venue { venue: "binance" }),
        }
    }

    /// Returns the public part.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Returns whether `session.logon` takes this key.
    #[must_use]
    pub const fn opens_sessions(&self) -> bool {
        matches!(self.kind, Kind::Ed25519(_))
    }

    /// Signs a payload: hex for HMAC, base64 for Ed25519.
    #[must_use]
    pub fn sign(&self, payload: &[u8]) -> String {
        match &self.kind {
            Kind::Hmac(key) => {
                hmac::sign(key, payload).as_ref().iter().map(|b| format!("{b:02x}")).collect()
            }
            Kind::Ed25519(pair) => STANDARD.encode(pair.sign(payload)),
        }
    }

    /// Returns a REST query with its signature, which is percent-encoded. The caller's values hold only
    /// characters that need no encoding.
    #[must_use]
    pub fn query(&self, query: &str) -> String {
        let signature = self.sign(query.as_bytes());
        let encoded = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        format!("{query}&signature={encoded}")
    }

    /// Returns the message that opens a session on a connection.
    #[must_use]
    pub fn logon(&self, id: u64, now_ms: i64) -> String {
        let key = &self.api_key;
        let signature = self.sign(format!("apiKey={key}&timestamp={now_ms}").as_bytes());
        format!(
            "{{\"id\":{id},\"method\":\"session.logon\",\"params\":{{\"apiKey\":\"{key}\",\
             \"timestamp\":{now_ms},\"signature\":\"{signature}\"}}}}"
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keys::Secret;

    pub(crate) const API_KEY: &str =
        "SIMKEY0000000000000000000000000000000000000000000000000000000001";
    const PKCS8: &str = "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    pub(crate) fn ed25519() -> Credentials {
        Credentials::BinanceEd25519 { api_key: API_KEY.into(), private_key_pem: PKCS8.into() }
    }

    fn hmac() -> Signer {
        Signer::new(&Credentials::BinanceHmac {
            api_key: API_KEY.into(),
            secret: Secret::from("sim-hmac-secret-0123456789abcdef"),
        })
        .expect("a key")
    }

    /// The vectors of `protocols/binance.md` section 15, 1 to 4.
    #[test]
    fn signature_vectors() {
        let ed = Signer::new(&ed25519()).expect("a key");
        let rest = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOC&quantity=0.00100000&price=60000.10&newClientOrderId=arb-1&newOrderRespType=FULL&recvWindow=250&timestamp=1764000000000";
        let mixed = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOCquantity=0.00100000&price=60000.10&recvWindow=250&timestamp=1764000000000";
        let ws = format!(
            "apiKey={API_KEY}&newClientOrderId=arb-1&price=60000.10&quantity=0.00100000&recvWindow=250&side=BUY&symbol=BTCUSDT&timeInForce=IOC&timestamp=1764000000000&type=LIMIT"
        );
        let hmacs = [
            (rest, "f6f137bd52f159a8d1650b838874dc3e31715b0167c44777f4e6a211119f68bb"),
            (mixed, "48d0056ede6fb786b33cb81c5d829bdf6dc63d53269fdee3f67ab6574e1a8ef9"),
            (&ws, "ebe57f5e2e8df6de0e70212e99d21325bb165999bc731b54495c4842940e2a0d"),
        ];
        for (payload, expected) in hmacs {
            assert_eq!(hmac().sign(payload.as_bytes()), expected);
        }
        let logon = format!("apiKey={API_KEY}&timestamp=1764000000000");
        let eds = [
            (
                rest,
                "7Vb9o+9cwZY3DlvZbRO6ZREA/e+v6T/h8T3a2MQmOZ8k17TLUM8uOdAvrq0FtIjhjNgqh0NdNH5c6J6GuYBzBw==",
            ),
            (
                &ws,
                "VB7/Zny60ZeVxmpuISQRkEbq/8LJSIbFtMoeLMGbs2kliJopdhdQHsbKpZS48+IyylrlQfMIyEz091CY+Q01Bw==",
            ),
            (
                &logon,
                "Rjp6gbIiVMi3QEaBvyRukq1lUJQP7j7qEFuSR2u9ol1iqvdDAWce4fzvZqBLT6USaxxxaeXuSwaxcBfTVWedBA==",
            ),
        ];
        for (payload, expected) in eds {
            assert_eq!(ed.sign(payload.as_bytes()), expected);
        }
        assert!(ed.opens_sessions() && !hmac().opens_sessions());
        assert!(ed.query("a=1").ends_with("%3D%3D"), "base64 is percent-encoded");
        assert!(ed.logon(1, 1_764_000_000_000).contains("\"signature\":\"Rjp6gbIi"));
    }

    #[test]
    fn another_venues_key_is_refused() {
        let other = Credentials::Coinbase { api_key: "k".into(), private_key_pem: "x".into() };
        assert_eq!(Signer::new(&other).err(), Some(KeyError::Venue { venue: "binance" }));
        let bad =
            Credentials::BinanceEd25519 { api_key: "k".into(), private_key_pem: "AQID".into() };
        assert!(matches!(Signer::new(&bad), Err(KeyError::Private { .. })));
    }
}
