//! A Redis server in a folder of its own, with the shipped configuration and users.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Connection;
use sha2::{Digest, Sha256};

use super::{ServicesError, bound, closed_dir, end, password, signal, wait_ready};
use crate::replay::hex;

/// The user that the drain writes as.
pub const WRITER: &str = "tandem";
/// The user that people read as.
pub const READER: &str = "tandem_read";
const CONF: &str = include_str!("../../../../deploy/redis/redis.conf");
const USERS: &str = include_str!("../../../../deploy/redis/users.acl");
/// The user that may do everything: who started the server.
pub const ADMIN: &str = "admin";
/// To connect, and to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// A server.
pub struct RedisServer {
    /// Its folder: socket, passwords, log.
    pub dir: PathBuf,
    child: Mutex<Option<Child>>,
}

/// Says whether it is installed.
pub fn program() -> Result<&'static Path, ServicesError> {
    let version = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    match version {
        Ok(_) => Ok(Path::new("redis-server")),
        Err(_) => {
            Err(ServicesError::NotInstalled { program: "redis-server", package: "redis-server" })
        }
    }
}

impl RedisServer {
    /// Makes its folder with passwords, and starts it.
    pub fn start(dir: &Path) -> Result<RedisServer, ServicesError> {
        let program = program()?;
        let _ = fs::remove_dir_all(dir);
        closed_dir(dir)?;
        let what = || ServicesError::io(format!("write {}", dir.display()));
        let mut users = String::new();
        for line in USERS.lines() {
            let user = line.split_whitespace().nth(1).unwrap_or_default();
            let hash = match [WRITER, READER].contains(&user) {
                true => hex(&Sha256::digest(fs::read(password(dir, user)?).map_err(what())?)),
                false => "0".repeat(64),
            };
            users.push_str(&line.replace(&"0".repeat(64), &hash));
            users.push('\n');
        }
        let hash = hex(&Sha256::digest(fs::read(password(dir, ADMIN)?).map_err(what())?));
        users.push_str(&format!("user {ADMIN} on #{hash} ~* &* +@all\n"));
        fs::write(dir.join("users.acl"), users).map_err(what())?;
        let conf = CONF
            .replace("/run/redis/redis.sock", &dir.join("sock").display().to_string())
            .replace("/etc/redis/users.acl", &dir.join("users.acl").display().to_string());
        let conf = format!("{conf}dir {0}\nlogfile {0}/log\n", dir.display());
        fs::write(dir.join("redis.conf"), conf).map_err(what())?;
        let server = RedisServer { dir: dir.to_owned(), child: None.into() };
        server.up_with(program)?;
        Ok(server)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the server where it is down, and waits until it answers.
    pub fn up(&self) -> Result<(), ServicesError> {
        self.up_with(program()?)
    }

    fn up_with(&self, program: &Path) -> Result<(), ServicesError> {
        let mut place = self.child();
        if place.is_some() {
            return Ok(());
        }
        let _ = fs::remove_file(self.socket());
        let child = bound(program, "KILL", None)
            .arg(self.dir.join("redis.conf"))
            .spawn()
            .map_err(ServicesError::io("start redis-server"))?;
        let child = place.insert(child);
        wait_ready("start redis-server", child, &self.dir.join("log"), || {
            self.client().map(drop).map_err(|error| error.to_string())
        })
    }

    /// Ends the server at once; it comes back empty.
    pub fn down(&self) {
        if let Some(mut child) = self.child().take() {
            end(&mut child, "-KILL");
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        if let Some(child) = self.child().as_ref() {
            signal(child.id(), name);
        }
    }

    /// Returns its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Returns the file of a user's password.
    #[must_use]
    pub fn password_file(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}-password"))
    }

    /// Connects as a reader.
    pub fn client(&self) -> Result<Connection, ServicesError> {
        self.client_as(READER)
    }

    /// Connects as a user.
    pub fn client_as(&self, user: &str) -> Result<Connection, ServicesError> {
        let path = self.password_file(user);
        let password =
            fs::read_to_string(&path).map_err(ServicesError::io(path.display().to_string()))?;
        let url = format!("redis+unix://{}?user={user}&pass={password}", self.socket().display());
        let wrong = |error: redis::RedisError| ServicesError::failed("ask Redis", error);
        let client = redis::Client::open(url).map_err(wrong)?;
        let connection = client.get_connection_with_timeout(WITHIN).map_err(wrong)?;
        connection.set_read_timeout(Some(WITHIN)).map_err(wrong)?;
        connection.set_write_timeout(Some(WITHIN)).map_err(wrong)?;
        Ok(connection)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.down();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
