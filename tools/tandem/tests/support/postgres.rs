//! A PostgreSQL of its own for a test: the library's, with a free port besides its socket, and TLS.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_tools::services::ServicesError;
use tandem_tools::services::postgres::{PostgresServer, give};

/// A server.
pub struct Server(PostgresServer);

impl Deref for Server {
    type Target = PostgresServer;

    fn deref(&self) -> &PostgresServer {
        &self.0
    }
}

impl Server {
    /// Starts one; nothing, said loudly, where the package is not installed.
    pub fn start(name: &str) -> Option<Server> {
        let dir = std::env::temp_dir().join(format!("tandem-pg-{}-{name}", std::process::id()));
        let mut server = match PostgresServer::init(&dir) {
            Ok(server) => Server(server),
            Err(error @ ServicesError::NotInstalled { .. }) => {
                eprintln!("SKIPPED: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        server.0.port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        server.certify();
        let place = server.dir.display();
        let more = format!(
            "listen_addresses = '127.0.0.1'\nssl = on\nssl_cert_file = '{place}/server.pem'\n\
             ssl_key_file = '{place}/server.key'\n"
        );
        let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        server.configure(hba, &more).expect("a configuration");
        server.up();
        Some(server)
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
        fs::write(self.file("ca.pem"), ca.pem()).expect("ca");
        fs::write(self.file("server.pem"), own.pem()).expect("certificate");
        let place = self.file("server.key");
        fs::write(&place, own_key.serialize_pem()).expect("key");
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("mode");
        give(&place).expect("the user postgres is there");
    }

    /// Starts the server where it is down.
    pub fn up(&self) {
        self.0.up().expect("it starts");
    }

    /// Connects over the socket, as soon as it answers.
    pub fn client(&self, user: &str) -> postgres::Client {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.0.client(user, "postgres") {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < until, "no connection: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the place of a file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
