//! A connection: address, TLS, time limits, and that the schema is ours.
//!
//! Invariant: whatever the server does, no step takes longer than its limit: connecting, and every answer. TLS is
//! rustls with the host's name checked, against one certificate authority or the public ones; without TLS only
//! where the operator said so, which the configuration allows on this host alone. A password is in memory alone
//! and in no message.
//!
//! Not here: what is written (`write`), migrations (`migrate`).

use std::path::PathBuf;
use std::time::Duration;

use tandem_feeds::net::tls;
use tandem_gateway::keys::Secret;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::write::trouble;
use super::{SCHEMA_VERSION, Trouble};

/// How the way to the server is protected.
#[derive(Clone, Debug)]
pub enum Protection {
    /// By nothing: a socket of this host, or its loopback.
    None,
    /// TLS, the server's name checked against this authority, or the public ones.
    Tls(Option<PathBuf>),
}

/// Where the database is and who we are there.
#[derive(Clone, Debug)]
pub struct Server {
    /// Host name or address, or the directory of a Unix socket where it begins with `/`.
    pub host: String,
    /// Port; part of a Unix socket's name too.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role.
    pub user: String,
    /// Its password; without one the server must know us otherwise (peer).
    pub password: Option<Secret>,
    /// TLS.
    pub protection: Protection,
    /// Schema of the tables.
    pub schema: String,
    /// Longest way to a connection.
    pub connect_timeout: Duration,
    /// Longest statement; the server ends it then, and a little later we leave the server.
    pub statement_timeout: Duration,
}

/// The server is given this long beyond its own limit.
const GRACE: Duration = Duration::from_secs(2);

impl Server {
    /// Returns how long an answer is waited for.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.statement_timeout + GRACE
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        if self.host.starts_with('/') {
            config.host_path(&self.host);
        } else {
            config.host(&self.host);
        }
        config
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .application_name("tandem-drain")
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(self.patience())
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3);
        if let Some(password) = &self.password {
            config.password(password.reveal());
        }
        config
    }

    /// Connects and sets up the session: schema, time limits, UTC.
    pub async fn connect(&self) -> Result<Client, Trouble> {
        let mut config = self.config();
        let client = match &self.protection {
            Protection::None => {
                config.ssl_mode(SslMode::Disable);
                self.join(&config, NoTls).await?
            }
            Protection::Tls(ca_file) => {
                config.ssl_mode(SslMode::Require);
                let tls = tls::client_config(ca_file.as_deref())
                    .map_err(|error| Trouble::Refused(error.to_string()))?;
                self.join(&config, MakeRustlsConnect::new((*tls).clone())).await?
            }
        };
        let ms = |time: Duration| time.as_millis().to_string();
        let statement = ms(self.statement_timeout);
        // Before the statement's own limit, so that a lock is told as a lock.
        let lock = ms(self.statement_timeout * 3 / 4);
        let sql = "SELECT set_config('search_path', $1, false), \
            set_config('statement_timeout', $2, false), set_config('lock_timeout', $4, false), \
            set_config('idle_in_transaction_session_timeout', $3, false), \
            set_config('timezone', 'UTC', false), set_config('client_min_messages', 'warning', false)";
        let idle = ms(self.patience() * 2);
        let params: &[&(dyn ToSql + Sync)] = &[&self.schema, &statement, &idle, &lock];
        let work = client.query_one(sql, params);
        match tokio::time::timeout(self.patience(), work).await {
            Err(_) => Err(Trouble::Hung(self.patience())),
            Ok(done) => done.map(|_| client).map_err(|error| trouble(&error)),
        }
    }

    async fn join<T>(&self, config: &Config, tls: T) -> Result<Client, Trouble>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let limit = self.connect_timeout;
        let (client, connection) = match tokio::time::timeout(limit, config.connect(tls)).await {
            Err(_) => return Err(Trouble::Hung(limit)),
            Ok(made) => made.map_err(|error| trouble(&error))?,
        };
        // It ends with the client, or with the server's end of it; both close the socket.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the database ended");
            }
        });
        Ok(client)
    }
}

/// Returns the version of the schema that is there; nothing where there is none.
pub async fn version(client: &Client, patience: Duration) -> Result<Option<i32>, Trouble> {
    let work = client.query_one("SELECT max(version) FROM schema_history", &[]);
    match tokio::time::timeout(patience, work).await {
        Err(_) => Err(Trouble::Hung(patience)),
        Ok(Ok(row)) => row.try_get(0).map_err(|error| trouble(&error)),
        Ok(Err(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Ok(Err(error)) => Err(trouble(&error)),
    }
}

/// Refuses a schema that is not this build's.
pub async fn check_version(client: &Client, patience: Duration) -> Result<(), Trouble> {
    match version(client, patience).await? {
        Some(SCHEMA_VERSION) => Ok(()),
        found => Err(Trouble::Schema { found }),
    }
}
