//! A PostgreSQL server in a folder of its own, as the user `postgres` where we are root: it refuses to be root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ServicesError, bound, closed_dir, end, signal, wait_ready};

/// The role that the drain writes as.
pub const WRITER: &str = "tandem_writer";
/// The role that people read as.
pub const READER: &str = "tandem_reader";
/// The server's own user.
const USER: &str = "postgres";

/// A server.
pub struct PostgresServer {
    /// Its folder: data, socket, log.
    pub dir: PathBuf,
    /// Its port; without TCP the name of its socket.
    pub port: u16,
    bin: PathBuf,
    child: Mutex<Option<Child>>,
}

/// Returns where Debian puts the server's programs; of several versions the newest.
pub fn programs() -> Result<PathBuf, ServicesError> {
    let missing = ServicesError::NotInstalled { program: "PostgreSQL", package: "postgresql" };
    let Ok(versions) = fs::read_dir("/usr/lib/postgresql") else { return Err(missing) };
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.join("bin/initdb").exists() && path.join("bin/postgres").exists());
    found.sort_by_key(version);
    found.pop().map(|path| path.join("bin")).ok_or(missing)
}

fn user() -> Option<&'static str> {
    (tandem_shm::euid() == 0).then_some(USER)
}

/// Gives a file to the server's user.
pub fn give(path: &Path) -> Result<(), ServicesError> {
    let Some(user) = user() else { return Ok(()) };
    let what = format!("give {} to the user {user}", path.display());
    let status = Command::new("chown").arg(user).arg(path).status();
    match status.map_err(ServicesError::io(what.clone()))?.success() {
        true => Ok(()),
        false => Err(ServicesError::failed(&what, "chown says no")),
    }
}

impl PostgresServer {
    /// Makes a cluster in a folder; nothing runs yet.
    pub fn init(dir: &Path) -> Result<PostgresServer, ServicesError> {
        let bin = programs()?;
        let _ = fs::remove_dir_all(dir);
        closed_dir(dir)?;
        give(dir)?;
        let server = PostgresServer { dir: dir.to_owned(), port: 5432, bin, child: None.into() };
        let data = server.data().display().to_string();
        // Durability of the host is not what is looked at here.
        let args = ["-D", &data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-A", "trust"];
        let log = server.log()?;
        let status = bound(&server.bin.join("initdb"), "KILL", user())
            .args(args)
            .current_dir("/")
            .stderr(log)
            .status()
            .map_err(ServicesError::io("run initdb"))?;
        match status.success() {
            true => Ok(server),
            false => Err(ServicesError::failed(
                "initdb",
                fs::read_to_string(dir.join("log")).unwrap_or_default(),
            )),
        }
    }

    /// Says who may come in, and adds to its configuration.
    pub fn configure(&self, hba: &str, more: &str) -> Result<(), ServicesError> {
        let data = self.data();
        let what = || ServicesError::io(format!("write {}", data.display()));
        fs::write(data.join("pg_hba.conf"), hba).map_err(what())?;
        let conf = data.join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(conf).map_err(what())?;
        let text = format!(
            "port = {}\nunix_socket_directories = '{}'\nfsync = off\nshared_buffers = 64MB\n\
             max_wal_size = 256MB\nautovacuum = off\n{more}",
            self.port,
            self.dir.display(),
        );
        file.write_all(text.as_bytes()).map_err(what())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> Result<fs::File, ServicesError> {
        let path = self.dir.join("log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(ServicesError::io(path.display().to_string()))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server where it is down, and waits until it answers.
    pub fn up(&self) -> Result<(), ServicesError> {
        let mut place = self.child();
        if place.is_some() {
            return Ok(());
        }
        // Without the thread that started it it ends: nobody waits for its rows then.
        let child = bound(&self.bin.join("postgres"), "INT", user())
            .arg("-D")
            .arg(self.data())
            .current_dir("/")
            .stderr(self.log()?)
            .spawn()
            .map_err(ServicesError::io("start PostgreSQL"))?;
        let child = place.insert(child);
        wait_ready("start PostgreSQL", child, &self.dir.join("log"), || {
            self.try_client("postgres", "postgres").map(drop).map_err(|error| error.to_string())
        })
    }

    /// Ends the server at once: connections are cut, as when its host dies.
    pub fn down(&self) {
        self.end("-QUIT");
    }

    /// Ends the server in order: connections are cut, nothing is left behind in shared memory.
    pub fn stop(&self) {
        self.end("-INT");
    }

    fn end(&self, how: &str) {
        if let Some(mut child) = self.child().take() {
            self.signal_all(child.id(), "-CONT");
            end(&mut child, how);
        }
    }

    /// Sends a signal to every process of the server: its first one's and its children's ids.
    pub fn signal(&self, name: &str) {
        let pid = self.child().as_ref().map(Child::id);
        if let Some(pid) = pid {
            self.signal_all(pid, name);
        }
    }

    #[expect(clippy::unused_self, reason = "only a server's own processes are signalled")]
    fn signal_all(&self, main: u32, name: &str) {
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
        let children = children.unwrap_or_default();
        signal(main, name);
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .for_each(|pid| signal(pid, name));
    }

    /// Returns the id of the server's first process; nothing while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    fn try_client(&self, user: &str, database: &str) -> Result<postgres::Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.dir).port(self.port).user(user).dbname(database);
        config.connect_timeout(Duration::from_secs(5));
        config.connect(postgres::NoTls)
    }

    /// Connects over the socket; names are those of the schema `tandem`.
    pub fn client(&self, user: &str, database: &str) -> Result<postgres::Client, ServicesError> {
        let wrong = |error: postgres::Error| ServicesError::failed("ask PostgreSQL", error);
        let mut client = self.try_client(user, database).map_err(wrong)?;
        client.batch_execute("SET search_path = tandem").map_err(wrong)?;
        Ok(client)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
