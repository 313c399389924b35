//! PostgreSQL, Redis and Prometheus out of Debian's packages, for a demo and for tests: each in a folder of its
//! own, reached over a socket in it or on loopback.
//!
//! Invariant: only what was started here is ended, by its id, and it ends with the thread that started it
//! whatever happens to that. What a server is told is what we ship: migrations, roles, users, rules.
//!
//! Not here: what a run writes into them (`tandem_drain`), whether that is right (`audit`).

pub mod audit;
pub mod count;
pub mod postgres;
pub mod prometheus;
pub mod redis;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::{demo_keys, postgres_config};
use postgres::PostgresServer;
use prometheus::PrometheusServer;
use redis::RedisServer;

/// A server answers within this time of its start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// A server that was asked to end has this long.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at a server that starts or ends.
const LOOK: Duration = Duration::from_millis(20);

/// Why a service cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Its package is missing.
    #[error("{program} is not installed: `scripts/setup` installs Debian's package {package}")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// Files or processes.
    #[error("{what}: {error}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// It does not do what it should.
    #[error("{what}: {detail}")]
    Failed {
        /// What was tried.
        what: String,
        /// What it said.
        detail: String,
    },
}

impl ServicesError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> ServicesError {
        let what = what.into();
        move |error| ServicesError::Io { what, error }
    }

    fn failed(what: &str, detail: impl ToString) -> ServicesError {
        ServicesError::Failed { what: what.to_owned(), detail: detail.to_string() }
    }
}

/// Returns a program that gets `signal` when the thread that starts it ends, as another user if one is named.
fn bound(program: &Path, signal: &str, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args([
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--init-groups".into(),
        ]);
    }
    command.arg(format!("--pdeathsig={signal}")).arg("--").arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Sends a signal to a process that was started here.
fn signal(pid: u32, name: &str) {
    // One that is gone meanwhile needs none.
    let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Asks a child to end, and ends it where it does not.
fn end(child: &mut Child, how: &str) {
    signal(child.id(), how);
    let until = Instant::now() + ENDS_WITHIN;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            _ => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until a server answers.
fn wait_ready(
    what: &str,
    child: &mut Child,
    log: &Path,
    mut ask: impl FnMut() -> Result<(), String>,
) -> Result<(), ServicesError> {
    let until = Instant::now() + STARTS_WITHIN;
    loop {
        let Err(why) = ask() else { return Ok(()) };
        let ended = child.try_wait().map_err(ServicesError::io(what))?;
        if let Some(status) = ended {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default();
            return Err(ServicesError::failed(what, format!("{status}: {last}")));
        }
        if until < Instant::now() {
            return Err(ServicesError::failed(what, why));
        }
        std::thread::sleep(LOOK);
    }
}

/// The services of a run.
pub struct Services {
    /// Their folder, on a disk.
    pub dir: PathBuf,
    /// The database.
    pub postgres: PostgresServer,
    /// The cache.
    pub redis: RedisServer,
    prometheus: Option<PrometheusServer>,
}

impl Services {
    /// Starts PostgreSQL and Redis in folders of `dir`, which is made.
    pub fn start(dir: &Path) -> Result<Services, ServicesError> {
        prometheus::program()?;
        let what = || ServicesError::io(format!("make {}", dir.display()));
        std::fs::create_dir_all(dir).map_err(what())?;
        // A configuration's places are absolute.
        let dir = &dir.canonicalize().map_err(what())?;
        let redis = RedisServer::start(&dir.join("redis"))?;
        let postgres = PostgresServer::init(&dir.join("postgres"))?;
        postgres.configure("local all all trust\n", "listen_addresses = ''\n")?;
        postgres.up()?;
        Ok(Services { dir: dir.to_owned(), postgres, redis, prometheus: None })
    }

    /// Returns where the archive of the run is.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.dir.join("archive")
    }

    /// Returns the tables of a configuration that name these services.
    #[must_use]
    pub fn text(&self, keep_segments: u64) -> String {
        format!(
            "\n[postgres]\nhost = \"{}\"\nport = {}\ndatabase = \"postgres\"\nuser = \"{}\"\n\
             owner_user = \"postgres\"\nconnect_timeout_ms = 1000\nstatement_timeout_ms = 5000\n\
             backoff_max_ms = 1000\n\n[redis]\nurl = \"unix://{}\"\nuser = \"tandem\"\n\
             password_file = \"{}\"\n\n[archive]\ndir = \"{}\"\nkeep_segments = {keep_segments}\n\
             free_min_mib = 64\n",
            self.postgres.dir.display(),
            self.postgres.port,
            postgres::WRITER,
            self.redis.socket().display(),
            self.redis.password_file(redis::WRITER).display(),
            self.archive().display(),
        )
    }

    /// Applies the migrations and makes the drain's role and a reader's.
    pub fn prepare(&self, config: &Config) -> Result<(), ServicesError> {
        let wrong = |detail: String| ServicesError::failed("prepare the database", detail);
        let section = config.postgres.as_ref();
        let section =
            section.ok_or_else(|| wrong(postgres_config::PostgresError::None.to_string()))?;
        let owner = section.server(true).map_err(|error| wrong(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ServicesError::io("start a runtime"))?;
        runtime
            .block_on(tandem_drain::postgres::migrate::migrate(&owner))
            .map_err(|trouble| wrong(trouble.to_string()))?;
        let sql = format!(
            "CREATE ROLE {} LOGIN; GRANT tandem_drain TO {0}; CREATE ROLE {} LOGIN; GRANT tandem_read TO {1}",
            postgres::WRITER,
            postgres::READER,
        );
        let mut client = self.postgres.client("postgres", "postgres")?;
        client.batch_execute(&sql).map_err(|error| wrong(error.to_string()))
    }

    /// Starts Prometheus on a free port; it scrapes the run's `/metrics`, with the shipped rules.
    pub fn watch(&mut self, metrics: &str) -> Result<(), ServicesError> {
        let server = PrometheusServer::start(&self.dir.join("prometheus"), metrics)?;
        self.prometheus = Some(server);
        Ok(())
    }

    /// Returns Prometheus, once it was started.
    #[must_use]
    pub fn prometheus(&self) -> Option<&PrometheusServer> {
        self.prometheus.as_ref()
    }

    /// Returns how a person looks into them while they run.
    #[must_use]
    pub fn how_to_look(&self) -> Vec<String> {
        let mut lines = vec![
            format!(
                "PGOPTIONS=\"-c search_path=tandem\" psql -h {} -p {} -U {} postgres",
                self.postgres.dir.display(),
                self.postgres.port,
                postgres::READER,
            ),
            format!(
                "REDISCLI_AUTH=$(cat {}) redis-cli -s {} --user {}",
                self.redis.password_file(redis::READER).display(),
                self.redis.socket().display(),
                redis::READER,
            ),
            format!("tandem journal ls {}", self.archive().display()),
        ];
        lines.extend(self.prometheus().map(|at| format!("Prometheus: http://{}/", at.address())));
        lines
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Children first; the archive stays.
        self.prometheus = None;
        self.postgres.stop();
        self.redis.down();
        for name in ["postgres", "redis", "prometheus"] {
            let _ = std::fs::remove_dir_all(self.dir.join(name));
        }
    }
}

/// Makes a closed folder.
fn closed_dir(dir: &Path) -> Result<(), ServicesError> {
    use std::os::unix::fs::DirBuilderExt;
    let what = || ServicesError::io(format!("make {}", dir.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(what())
}

/// Makes a password and returns its file.
fn password(dir: &Path, user: &str) -> Result<PathBuf, ServicesError> {
    demo_keys::secret(dir, &format!("{user}-password"))
        .map_err(ServicesError::io(format!("a password in {}", dir.display())))
}
