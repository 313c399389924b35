//! A PostgreSQL of its own for a test: a cluster in a temporary folder, a free port, a Unix socket, and TLS.
//!
//! The server refuses to run as root: there it runs as the user `postgres`. It is ended when the value is dropped.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A server.
pub struct Server {
    /// Its folder: data, socket, certificates.
    pub dir: PathBuf,
    /// Its port.
    pub port: u16,
    bin: PathBuf,
}

/// Where Debian puts the server's programs; the newest version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> =
        versions.flatten().map(|entry| entry.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists());
    found.sort();
    found.pop()
}

fn is_root() -> bool {
    tandem_shm::euid() == 0
}

impl Server {
    /// Starts one; nothing, said loudly, where the package is not installed.
    pub fn start(name: &str) -> Option<Server> {
        let Some(bin) = programs() else {
            eprintln!("SKIPPED: no PostgreSQL server; scripts/setup installs Debian's postgresql");
            return None;
        };
        let dir = std::env::temp_dir().join(format!("tandem-pg-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a folder");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let server = Server { dir, port, bin };
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(&server.dir).status();
            assert!(owned.expect("chown").success(), "the user postgres is there");
        }
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-A", "trust"],
        );
        server.certify();
        let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(server.dir.join("data/pg_hba.conf"), hba).expect("hba");
        let mut conf = fs::read_to_string(server.dir.join("data/postgresql.conf")).expect("conf");
        conf.push_str(&format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             ssl = on\nssl_cert_file = '{0}/server.pem'\nssl_key_file = '{0}/server.key'\n\
             shared_buffers = 64MB\nmax_wal_size = 256MB\nautovacuum = off\n",
            server.dir.display()
        ));
        fs::write(server.dir.join("data/postgresql.conf"), conf).expect("conf");
        server.up();
        Some(server)
    }

    fn data(&self) -> String {
        self.dir.join("data").display().to_string()
    }

    /// Certificates: an authority (`ca.pem`) and the server's, for `localhost` alone.
    fn certify(&self) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut authority =
            rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = authority.self_signed(&key).expect("an authority");
        let issuer = rcgen::Issuer::new(authority, key);
        let own_key = rcgen::KeyPair::generate().expect("a key");
        let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let own = own.signed_by(&own_key, &issuer).expect("a certificate");
        fs::write(self.dir.join("ca.pem"), ca.pem()).expect("ca");
        fs::write(self.dir.join("server.pem"), own.pem()).expect("certificate");
        let place = self.dir.join("server.key");
        fs::write(&place, own_key.serialize_pem()).expect("key");
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("mode");
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(&place).status().expect("chown");
            assert!(owned.success());
        }
    }

    /// Runs a program of the server's as its user.
    fn run(&self, program: &str, args: &[&str]) {
        let program = self.bin.join(program);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                    .arg(program);
                command
            }
            false => Command::new(program),
        };
        // What it starts keeps these: a pipe would be waited for until the server ends.
        let status =
            command.args(args).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(status.expect("a program").success(), "{args:?}");
    }

    /// Starts the server where it is down.
    pub fn up(&self) {
        let log = self.dir.join("log").display().to_string();
        self.run("pg_ctl", &["-D", &self.data(), "-l", &log, "-w", "-t", "60", "start"]);
    }

    /// Ends the server at once: connections are cut.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-m", "immediate", "-w", "stop"]);
    }

    /// Sends a signal to every process of the server, by its own id and its children's.
    pub fn signal(&self, signal: &str) {
        for pid in self.pids() {
            let _ = Command::new("kill")
                .args([signal, &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
        let Some(main) = text.lines().next().and_then(|line| line.parse::<u32>().ok()) else {
            return Vec::new();
        };
        let children = fs::read_to_string(format!("/proc/{main}/task/{main}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(main).chain(children).collect()
    }

    /// Connects over the socket.
    pub fn client(&self, user: &str) -> postgres::Client {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut config = postgres::Config::new();
            config.host_path(&self.dir).port(self.port).user(user).dbname("postgres");
            match config.connect(postgres::NoTls) {
                Ok(mut client) => {
                    client.batch_execute("SET search_path = tandem").expect("a search path");
                    return client;
                }
                Err(error) => assert!(Instant::now() < until, "no connection: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the place of a file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("-CONT");
        if !self.pids().is_empty() {
            self.down();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
