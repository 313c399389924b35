//! Keys for simulated venues: made afresh for a run, known to nobody else.
//!
//! Invariant: the same keys go to the simulator and, in closed files, to the gateways and the warden, who
//! have keys of their own for one account, as on a real venue.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Account of the run at every simulated venue.
pub const ACCOUNT: &str = "tandem";
/// Name of the warden's keys.
const WARDEN: &str = "tandem-warden";

/// Keys of a run.
pub struct DemoKeys {
    /// What `tandem sim --keys` reads.
    pub for_simulator: Value,
    /// The gateways' file.
    pub gateway: PathBuf,
    /// The warden's file.
    pub warden: PathBuf,
}

struct Set {
    binance: (String, String),
    coinbase: (String, String),
    kraken: (String, String),
}

fn failed<E>(_: E) -> io::Error {
    io::Error::other("a key could not be made")
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn random(bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    SystemRandom::new().fill(&mut out).map_err(failed)?;
    Ok(out)
}

fn hex(bytes: usize) -> io::Result<String> {
    Ok(crate::replay::hex(&random(bytes)?))
}

impl Set {
    fn make() -> io::Result<Set> {
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let ec = ec.to_pkcs8v1().map_err(failed)?;
        let org = hex(8)?;
        Ok(Set {
            binance: (hex(32)?, pem(ed25519.as_ref())),
            coinbase: (format!("organizations/{org}/apiKeys/{}", hex(8)?), pem(ec.as_ref())),
            kraken: (STANDARD.encode(random(42)?), STANDARD.encode(random(64)?)),
        })
    }

    fn for_simulator(&self) -> Value {
        json!({
            "binance_ed25519": { "api_key": self.binance.0, "private_key_pem": self.binance.1 },
            "coinbase": { "api_key": self.coinbase.0, "private_key_pem": self.coinbase.1 },
            "kraken": { "api_key": self.kraken.0, "secret": self.kraken.1, "nonce_window": 0 },
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let text = format!(
            "environment = \"sim\"\n\n\
             [binance]\napi_key = \"{}\"\nprivate_key_pem = \"\"\"\n{}\"\"\"\n\n\
             [coinbase]\napi_key = \"{}\"\nprivate_key_pem = \"\"\"\n{}\"\"\"\n\n\
             [kraken]\napi_key = \"{}\"\nsecret = \"{}\"\n",
            self.binance.0,
            self.binance.1,
            self.coinbase.0,
            self.coinbase.1,
            self.kraken.0,
            self.kraken.1
        );
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }
}

/// Makes a token for the dashboard's buttons and returns its file.
pub fn token(dir: &Path) -> io::Result<PathBuf> {
    secret(dir, "dashboard-token")
}

/// Makes a secret of a run and returns its closed file.
pub fn secret(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let path = dir.join(name);
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    file.write_all(hex(16)?.as_bytes())?;
    Ok(path)
}

/// Makes the keys of a run and writes the two files.
pub fn make(dir: &Path) -> io::Result<DemoKeys> {
    let (gateway_keys, warden_keys) = (Set::make()?, Set::make()?);
    let (gateway, warden) = (dir.join("gateway-keys.toml"), dir.join("warden-keys.toml"));
    gateway_keys.write(&gateway)?;
    warden_keys.write(&warden)?;
    let mut shared = warden_keys.for_simulator();
    shared["account"] = json!(ACCOUNT);
    let for_simulator =
        json!({ "clients": { ACCOUNT: gateway_keys.for_simulator(), WARDEN: shared } });
    Ok(DemoKeys { for_simulator, gateway, warden })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_loaded_and_is_never_the_same() {
        let dir = std::env::temp_dir().join(format!("tandem-demo-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make");
        let keys = make(&dir).expect("keys");
        for path in [&keys.gateway, &keys.warden] {
            let file = crate::secrets::load(path.to_str().expect("plain")).expect("loads");
            assert_eq!(file.venues.len(), 3);
            assert_eq!(file.environment, crate::secrets::Environment::Sim);
        }
        let clients = &keys.for_simulator["clients"];
        assert_ne!(clients[ACCOUNT]["kraken"], clients[WARDEN]["kraken"]);
        assert_eq!(clients[WARDEN]["account"], ACCOUNT);
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}
