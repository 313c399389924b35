//! Clients' keys: who may speak for which account, and whether a signature is theirs.
//!
//! Invariant: a key is known by the text a client sends, belongs to one account of one venue, and a signature is
//! compared with what its secret gives for the very bytes received. Secrets are never printed.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::SimError;
use crate::amount::Amount;
use crate::config::Venue;
use crate::crypto::{Verifier, unbase64};

/// Keys of all clients, as `--keys` reads them. Who writes the file may add members of his own: they are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Clients by name.
    #[serde(default)]
    pub clients: BTreeMap<String, Client>,
}

/// One client's keys and account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Binance, HMAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binance: Option<Secret>,
    /// Binance, Ed25519.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binance_ed25519: Option<Private>,
    /// Coinbase, ES256 or EdDSA; `api_key` is the key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coinbase: Option<Private>,
    /// Kraken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kraken: Option<Secret>,
    /// Another client whose accounts these keys act for; absent: accounts of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What the keys may do.
    #[serde(default)]
    pub permissions: Permissions,
    /// Opening balances by venue and asset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub balances: BTreeMap<Venue, BTreeMap<String, Amount>>,
}

/// A key with a shared secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Secret {
    /// What the client sends.
    pub api_key: String,
    /// What it signs with.
    pub secret: String,
    /// Kraken: how far a nonce may fall behind the largest one.
    #[serde(default)]
    pub nonce_window: u64,
}

/// A key with a private part; only the public part is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Private {
    /// What the client sends.
    pub api_key: String,
    /// PKCS#8 or SEC1 PEM, or base64 of an Ed25519 secret.
    pub private_key_pem: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Private").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Withdraw.
    pub withdraw: bool,
    /// Transfer between accounts.
    pub transfer: bool,
    /// Place and cancel orders.
    pub trade: bool,
    /// Only from listed addresses.
    pub ip_restricted: bool,
}

impl Default for Permissions {
    fn default() -> Self {
        Self { withdraw: false, transfer: false, trade: true, ip_restricted: true }
    }
}

impl Keys {
    /// Returns whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Reads the JSON of `--keys`.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, SimError> {
        let wrong = |why: String| SimError::Config { key: "keys".to_owned(), why };
        let keys: Self = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        Ok(keys)
    }
}

/// How a key proves itself.
#[derive(Clone)]
pub(crate) enum Proof {
    Hmac(Vec<u8>),
    Public(Verifier),
}

/// A key the venue knows.
#[derive(Clone)]
pub(crate) struct Key {
    pub text: String,
    pub venue: Venue,
    /// The client of the keys file.
    pub client: String,
    /// The account it acts for.
    pub account: usize,
    pub proof: Proof,
    pub permissions: Permissions,
    pub revoked: bool,
    pub nonce_window: u64,
    /// Largest nonce so far, and those used within the window.
    pub nonce: u64,
    pub used: std::collections::BTreeSet<u64>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("text", &self.text).field("client", &self.client).finish()
    }
}

/// All keys of all venues.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    keys: Vec<Key>,
    index: BTreeMap<(Venue, String), usize>,
}

impl Registry {
    /// Returns a key's index.
    pub fn find(&self, venue: Venue, text: &str) -> Option<usize> {
        self.index.get(&(venue, text.to_owned())).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn get(&self, key: usize) -> &Key {
        &self.keys[key]
    }

    pub fn get_mut(&mut self, key: usize) -> &mut Key {
        &mut self.keys[key]
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Key> {
        self.keys.iter_mut()
    }

    fn add(&mut self, key: Key) {
        self.index.insert((key.venue, key.text.clone()), self.keys.len());
        self.keys.push(key);
    }

    /// Builds the registry; `open` gives the account of a client at a venue.
    pub fn build(
        keys: &Keys,
        mut open: impl FnMut(&str, &Client, Venue) -> usize,
    ) -> Result<Self, SimError> {
        let mut registry = Self::default();
        for (name, client) in &keys.clients {
            let owner = client.account.as_deref().unwrap_or(name);
            let Some(owner_client) = keys.clients.get(owner) else {
                return Err(SimError::Config {
                    key: format!("keys.clients.{name}.account"),
                    why: format!("names no client: {owner}"),
                });
            };
            let wrong = |what: &str| SimError::Config {
                key: format!("keys.clients.{name}.{what}"),
                why: "cannot be read".to_owned(),
            };
            let mut add = |text: &str, venue, proof, nonce_window| {
                registry.add(Key {
                    text: text.to_owned(),
                    venue,
                    client: name.clone(),
                    account: open(owner, owner_client, venue),
                    proof,
                    permissions: client.permissions,
                    revoked: false,
                    nonce_window,
                    nonce: 0,
                    used: Default::default(),
                });
            };
            if let Some(key) = &client.binance {
                let secret = key.secret.as_bytes().to_vec();
                add(&key.api_key, Venue::Binance, Proof::Hmac(secret), 0);
            }
            if let Some(key) = &client.binance_ed25519 {
                let public = Verifier::from_private(&key.private_key_pem);
                let public = public.ok_or_else(|| wrong("binance_ed25519.private_key_pem"))?;
                add(&key.api_key, Venue::Binance, Proof::Public(public), 0);
            }
            if let Some(key) = &client.coinbase {
                let public = Verifier::from_private(&key.private_key_pem);
                let public = public.ok_or_else(|| wrong("coinbase.private_key_pem"))?;
                add(&key.api_key, Venue::Coinbase, Proof::Public(public), 0);
            }
            if let Some(key) = &client.kraken {
                let secret = unbase64(&key.secret).ok_or_else(|| wrong("kraken.secret"))?;
                add(&key.api_key, Venue::Kraken, Proof::Hmac(secret), key.nonce_window);
            }
        }
        Ok(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_secrets_stay_out_of_debug_text() {
        let text = r#"{"clients":{"a":{"binance":{"api_key":"k","secret":"hush"},
            "kraken":{"api_key":"q","secret":"AAEC","nonce_window":10}},
            "w":{"account":"a","binance":{"api_key":"k2","secret":"hush2"},
            "permissions":{"withdraw":true}}}}"#;
        let keys = Keys::from_json(text).unwrap();
        assert!(!format!("{keys:?}").contains("hush"));
        let mut asked = Vec::new();
        let registry = Registry::build(&keys, |name, _, venue| {
            asked.push((name.to_owned(), venue));
            0
        })
        .unwrap();
        assert_eq!(asked.iter().filter(|(n, _)| n == "a").count(), 3, "the warden acts for a");
        let key = registry.get(registry.find(Venue::Binance, "k2").unwrap());
        assert!(key.permissions.withdraw && key.permissions.trade);
        assert!(registry.find(Venue::Kraken, "k").is_none());
        assert!(Keys::from_json(r#"{"clients":{"a":{"binance":{"api_key":"k"}}}}"#).is_err());
        assert!(Keys::from_json(r#"{"clients":{"a":{"note":"kept"}}}"#).is_ok());
        let lost = r#"{"clients":{"a":{"account":"b"}}}"#;
        assert!(Registry::build(&Keys::from_json(lost).unwrap(), |_, _, _| 0).is_err());
    }
}
