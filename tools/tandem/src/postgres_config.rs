//! `[postgres]`: where the journal's rows go, and what is made of that for the drain.
//!
//! Invariant: plain text to a database is for this host alone; passwords are in closed files, read once.
//!
//! Not here: what is written (`tandem-drain`), the commands (`cli::postgres`).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_drain::postgres::Settings;
use tandem_drain::postgres::session::{Protection, Server};
use tandem_gateway::keys::Secret;

use crate::config::Config;
use crate::secrets::{self, SecretsError};
use crate::{drain_role, table};

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No `[postgres]`.
    #[error("the configuration has no [postgres]: deploy/tandem.toml shows one")]
    None,
    /// A password's file.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

/// A database for the journal's rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml")]
pub struct Postgres {
    pub host: String,
    #[serde(default = "port")]
    pub port: u16,
    pub database: String,
    pub user: String,
    #[serde(default)]
    pub password_file: Option<String>,
    #[serde(default = "tls")]
    pub tls: String,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default = "schema")]
    pub schema: String,
    #[serde(default = "stream")]
    pub stream: String,
    #[serde(default)]
    pub migrate: bool,
    #[serde(default)]
    pub owner_user: Option<String>,
    #[serde(default)]
    pub owner_password_file: Option<String>,
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u32,
    #[serde(default = "statement_timeout_ms")]
    pub statement_timeout_ms: u32,
    #[serde(default = "batch_rows")]
    pub batch_rows: u32,
    #[serde(default = "batch_ms")]
    pub batch_ms: u32,
    #[serde(default = "backoff_max_ms")]
    pub backoff_max_ms: u32,
    #[serde(default = "latency_s")]
    pub latency_s: u32,
}

fn port() -> u16 {
    5432
}
fn tls() -> String {
    "verify".to_owned()
}
fn schema() -> String {
    "tandem".to_owned()
}
fn stream() -> String {
    "main".to_owned()
}
fn connect_timeout_ms() -> u32 {
    5_000
}
fn statement_timeout_ms() -> u32 {
    30_000
}
fn batch_rows() -> u32 {
    20_000
}
fn batch_ms() -> u32 {
    200
}
fn backoff_max_ms() -> u32 {
    10_000
}
fn latency_s() -> u32 {
    10
}

/// What is wrong: the key, what it says, and the rule.
type Wrong = (String, String, &'static str);

impl Postgres {
    /// Returns whether it is a Unix socket.
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    fn is_this_host(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.is_socket() || self.host == "localhost" || address.is_ok_and(|ip| ip.is_loopback())
    }

    /// Checks what a file may say.
    pub(crate) fn check(&self) -> Result<(), Wrong> {
        let wrong = |key: &str, value: &dyn ToString, rule: &'static str| {
            Err((format!("postgres.{key}"), value.to_string(), rule))
        };
        if self.host.is_empty() || self.host.contains(',') {
            return wrong("host", &self.host, "must be one host, or the directory of a socket");
        }
        for (key, value) in [("database", &self.database), ("user", &self.user)] {
            if value.is_empty() || value.contains('\0') {
                return wrong(key, value, "must be a name");
            }
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        for (key, value) in [("schema", &self.schema), ("stream", &self.stream)] {
            let first = value.chars().next().is_some_and(|c| !c.is_ascii_digit());
            if 40 < value.len() || !first || !value.chars().all(plain) {
                let rule = "must be up to 40 small letters, digits and _, no digit first";
                return wrong(key, value, rule);
            }
        }
        match self.tls.as_str() {
            "verify" => {}
            "off" if self.is_this_host() => {}
            "off" => return wrong("tls", &self.tls, "off is for a socket or loopback alone"),
            _ => return wrong("tls", &self.tls, "must be verify or off"),
        }
        if self.owner_password_file.is_some() && self.owner_user.is_none() {
            return wrong("owner_password_file", &"given", "needs owner_user");
        }
        for (key, value, range) in [
            ("port", u32::from(self.port), 1..=65_535),
            ("connect_timeout_ms", self.connect_timeout_ms, 100..=60_000),
            ("statement_timeout_ms", self.statement_timeout_ms, 100..=600_000),
            ("batch_rows", self.batch_rows, 100..=200_000),
            ("batch_ms", self.batch_ms, 10..=10_000),
            ("backoff_max_ms", self.backoff_max_ms, 100..=300_000),
            ("latency_s", self.latency_s, 1..=3_600),
        ] {
            if !range.contains(&value) {
                return wrong(key, &value, "is out of its range; deploy/tandem.toml tells it");
            }
        }
        Ok(())
    }

    /// Returns the server as the drain's role, or as the owner.
    pub fn server(&self, as_owner: bool) -> Result<Server, PostgresError> {
        let (user, password) = match (&self.owner_user, as_owner) {
            (Some(owner), true) => (owner, &self.owner_password_file),
            _ => (&self.user, &self.password_file),
        };
        let password = match password {
            None => None,
            Some(place) => Some(Secret::from(secrets::line(place)?.as_str())),
        };
        // A socket needs none: the kernel says who is there.
        let protection = match self.tls == "off" || self.is_socket() {
            true => Protection::None,
            false => Protection::Tls(self.ca_file.clone()),
        };
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Ok(Server {
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: user.clone(),
            password,
            protection,
            schema: self.schema.clone(),
            connect_timeout: ms(self.connect_timeout_ms),
            statement_timeout: ms(self.statement_timeout_ms),
        })
    }
}

/// Returns the sink as configured, passwords read.
pub fn settings(config: &Config) -> Result<Settings, PostgresError> {
    let postgres = config.postgres.as_ref().ok_or(PostgresError::None)?;
    Ok(Settings {
        server: postgres.server(false)?,
        owner: postgres.migrate.then(|| postgres.server(true)).transpose()?,
        stream: postgres.stream.clone(),
        batch_rows: postgres.batch_rows as usize,
        batch: Duration::from_millis(postgres.batch_ms.into()),
        backoff_max: Duration::from_millis(postgres.backoff_max_ms.into()),
        latency_every: Duration::from_secs(postgres.latency_s.into()),
        places: drain_role::places(config),
        read_run: table::run_info,
    })
}
