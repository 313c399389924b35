//! No secret leaves: a live run in which every secret is a canary, with faults that make errors talk, and then
//! everything that the run shows of itself or writes anywhere is searched for them.
//!
//! The fault model: services that throw our key back at us, refuse it, answer with what is no HTTP or with another
//! authority's certificate; databases that know another password; venues that refuse, break off and answer with
//! error pages. Every log is on. The search is proven by planting a canary in each kind of place.
//!
//! Not here: what may be told of an error (`tandem_drain::spool`'s own tests), rights of databases (`postgres`).

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "../../drain/tests/support/receiver.rs"]
mod receiver;
mod support;
#[path = "support/trading.rs"]
mod trading;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postgres_server::Server;
use receiver::{Mode, Receiver};
use serde_json::json;
use support::{children, signal, wait_for};
use tandem_drain::archive::reader::{ArchiveReader, Step};
use tandem_drain::web::TOPICS;
use trading::Live;
use zerocopy::IntoBytes;

/// Part of every secret that this test makes; the keys of the venues are random and are searched for as they are.
const CANARY: &str = "c4n4ry-Secret";

/// What is searched for.
struct Needles(Vec<Vec<u8>>);

impl Needles {
    /// The canary, and every line or value of the key files that is no word of their form.
    fn new(key_files: &[&Path]) -> Needles {
        let mut found = vec![CANARY.as_bytes().to_vec()];
        for path in key_files {
            let text = fs::read_to_string(path).unwrap();
            for line in text.lines().filter(|line| !line.starts_with(['-', '[', 'e'])) {
                let value = line.rsplit(" = ").next().unwrap_or(line).trim_matches('"');
                if 16 <= value.len() {
                    found.push(value.as_bytes().to_vec());
                }
            }
        }
        assert!(10 < found.len(), "the keys of six accounts");
        Needles(found)
    }

    fn count(&self, bytes: &[u8]) -> usize {
        // One pass: most places are no needle's first two bytes.
        let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
        let mut begins = vec![false; 1 << 16];
        self.0.iter().for_each(|needle| begins[pair(needle)] = true);
        let places = (0..bytes.len().saturating_sub(1)).filter(|at| begins[pair(&bytes[*at..])]);
        places
            .map(|at| self.0.iter().filter(|needle| bytes[at..].starts_with(needle)).count())
            .sum()
    }
}

/// Places that were searched: bytes and hits by kind.
#[derive(Default)]
struct Search(BTreeMap<&'static str, (usize, usize)>);

impl Search {
    fn take(&mut self, needles: &Needles, kind: &'static str, bytes: &[u8]) {
        let entry = self.0.entry(kind).or_default();
        entry.0 += bytes.len();
        entry.1 += needles.count(bytes);
    }

    fn folder(&mut self, needles: &Needles, kind: &'static str, folder: &Path, except: &[PathBuf]) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.folder(needles, kind, &path, except);
            } else if !except.contains(&path) && path.is_file() {
                self.take(needles, kind, &fs::read(&path).unwrap_or_default());
            }
        }
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn secret(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("secret-{name}"));
    let _ = fs::remove_file(&path);
    fs::write(&path, format!("{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    path
}

/// Asks the dashboard's server and returns whatever comes within two seconds.
fn get(at: SocketAddr, path: &str, accept: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (mut all, mut chunk) = (Vec::new(), [0u8; 65_536]);
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        all.extend_from_slice(&chunk[..count]);
        if 4 << 20 < all.len() {
            break;
        }
    }
    all
}

fn archived(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for journal in tandem_drain::archive::list_journals(root).unwrap() {
        let mut reader = ArchiveReader::open(&journal.dir, journal.uuid, 1).unwrap();
        while let Step::Record(record) = reader.step().unwrap() {
            bytes.extend_from_slice(record.as_bytes());
        }
    }
    bytes
}

fn output(program: &str, args: &[&str]) -> Vec<u8> {
    let said = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    assert!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&said.stderr));
    [said.stdout, said.stderr].concat()
}

fn redis(sock: &Path, acl: &Path) -> Process {
    let server = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--rdbcompression", "no", "--unixsocket"])
        .arg(sock)
        .arg("--aclfile")
        .arg(acl)
        .arg("--dir")
        .arg(sock.parent().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Process(server.unwrap())
}

/// Row SEC-01. Row SEC-05.
#[test]
fn no_secret_leaves_a_live_run() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        eprintln!("SKIPPED: redis-server is not installed; run scripts/setup");
        return;
    }
    let Some(database) = Server::start("canaries") else { return };
    let mut owner = {
        let mut config = postgres::Config::new();
        config.host_path(&database.dir).port(database.port).user("postgres").dbname("postgres");
        config.connect(postgres::NoTls).unwrap()
    };
    let [slack, telegram, webhook, heartbeat, sentry] = [(); 5].map(|()| Receiver::new());
    let work = support::RunDir::new("canaries-secrets");
    let of = |name: &str, text: &str| secret(work.path(), name, text);
    let paths = [
        of("slack", &slack.url(&format!("/services/{CANARY}-slack"))),
        of("telegram", &format!("42:{CANARY}-telegram")),
        of("webhook", &webhook.url(&format!("/hook?key={CANARY}-webhook"))),
        of("hmac", &format!("{CANARY}-hmac")),
        of("heartbeat", &heartbeat.url(&format!("/beat/{CANARY}-heartbeat"))),
        of("dsn", &format!("http://{CANARY}-k3y@127.0.0.1:{}/7", sentry.address.port())),
        of("postgres", &format!("{CANARY}-postgres")),
        of("redis", &format!("{CANARY}-redis")),
        of("token", &format!("{CANARY}-token-of-the-dashboard")),
    ];
    let shown = paths.each_ref().map(|path| path.display().to_string());
    let [slack_file, telegram_file, webhook_file, hmac, heartbeat_file, dsn, pg, rd, token] =
        &shown;
    let (sock, archive) = (work.path().join("redis.sock"), work.path().join("archive"));
    let more = format!(
        "\n[alerts]\nsystem = \"test\"\nheartbeat_url_file = \"{heartbeat_file}\"\nheartbeat_s = 1\n\
         group_ms = 100\nhttp_timeout_ms = 500\nretry_s = 2\nprobe_ms = 300\nlost_ms = 1000\n\
         messages_per_min = 60\n\
         [[alerts.channel]]\nname = \"ops\"\nservice = \"slack\"\nurl_file = \"{slack_file}\"\n\
         [[alerts.channel]]\nname = \"phone\"\nservice = \"telegram\"\ntoken_file = \"{telegram_file}\"\n\
         chat_id = \"-7\"\napi_url = \"{}\"\n\
         [[alerts.channel]]\nname = \"desk\"\nservice = \"webhook\"\nurl_file = \"{webhook_file}\"\n\
         hmac_key_file = \"{hmac}\"\n\
         [archive]\ndir = \"{}\"\nkeep_segments = 1\n\
         [redis]\nurl = \"unix://{}\"\nuser = \"tandem\"\npassword_file = \"{rd}\"\n\
         [sentry]\ndsn_file = \"{dsn}\"\nenvironment = \"test\"\n\
         [postgres]\nhost = \"localhost\"\nport = {}\ndatabase = \"postgres\"\nuser = \"writer\"\n\
         password_file = \"{pg}\"\nca_file = \"{}\"\nmigrate = true\nowner_user = \"writer\"\n\
         owner_password_file = \"{pg}\"\nconnect_timeout_ms = 1000\nbackoff_max_ms = 500\nbatch_ms = 50\n",
        telegram.url(""),
        archive.display(),
        sock.display(),
        database.port,
        database.file("ca.pem").display(),
    );
    // Both databases know another password at first, which makes them and us talk.
    owner.batch_execute("CREATE ROLE writer LOGIN SUPERUSER PASSWORD 'another'").unwrap();
    let acl = work.path().join("users.acl");
    let users = |password: &str| {
        let all = "user default on nopass ~* &* +@all";
        format!("{all}\nuser tandem on >{password} ~tandem:* &tandem:* +@all\n")
    };
    fs::write(&acl, users("another")).unwrap();
    let mut server = redis(&sock, &acl);
    sentry.set(Mode::Say(403, Vec::new(), format!("{{\"detail\": \"bad key {CANARY}-k3y\"}}"), 2));
    slack.set(Mode::Say(500, Vec::new(), format!("no such hook: /services/{CANARY}-slack"), 3));
    telegram.set(Mode::Say(401, Vec::new(), format!("bot42:{CANARY}-telegram"), 3));
    webhook.set(Mode::Garbage);
    heartbeat.set(Mode::Close);

    let live = Live::with(
        "canaries",
        |_| {},
        |text| {
            let line = text.lines().find(|line| line.starts_with("token_file = ")).unwrap();
            let ours = format!("token_file = \"{token}\"");
            let own = text.replace(line, &ours);
            own + &more
        },
    );
    let (run, state) = (live.config.run.dir.clone(), live.config.run.state_dir.clone());
    let needles = Needles::new(&[&live.keys.gateway, &live.keys.warden]);
    let log = work.path().join("log");
    let up = Command::new(live.dir.program())
        .args(["up", "--while-pid", &std::process::id().to_string(), "--config"])
        .arg(live.config_path())
        .env("TANDEM_LOG", "trace")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut up = Process(up);
    let log_says = |word: &str| fs::read_to_string(&log).unwrap_or_default().contains(word);
    live.wait_ready();
    live.arm();
    assert!(wait_for(Duration::from_secs(20), || log_says("authentication failed")), "redis");
    // Then the right ones: what the drain writes there is searched too.
    owner.batch_execute(&format!("ALTER ROLE writer PASSWORD '{CANARY}-postgres'")).unwrap();
    drop(server);
    fs::write(&acl, users(&format!("{CANARY}-redis"))).unwrap();
    server = redis(&sock, &acl);
    webhook.set(Mode::Well);
    heartbeat.set(Mode::Well);

    // Errors that talk.
    for venue in ["binance", "coinbase", "kraken"] {
        live.fault("auth", venue, &json!({"seconds": 1.5, "request": "any"}));
        live.fault("error_before", venue, &json!({"seconds": 3.0, "request": "any"}));
        live.fault("http_status", venue, &json!({"status": 503, "mode": "html", "seconds": 3.0}));
        live.fault("malformed", venue, &json!({"count": 5}));
        live.fault("disconnect", venue, &json!({"mode": "reset"}));
    }
    std::thread::sleep(Duration::from_secs(6));
    live.clear();
    let authority = work.path().join("other-ca.pem");
    live.another_authority(&authority);
    let right = format!("tls_ca_file = \"{}\"", live.dir.path().join("sim-ca.pem").display());
    let wrong = live.other_config("wrong-ca.toml", |text| {
        text.replace(&right, &format!("tls_ca_file = \"{}\"", authority.display()))
    });
    let said = Command::new(live.dir.program())
        .args(["keys", "check", "--config"])
        .arg(&wrong)
        .env("TANDEM_LOG", "trace")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!said.status.success(), "another authority's certificate: {said:?}");
    let tiles = children(up.0.id());
    signal(tiles["engine"], 9);
    let rows = wait_for(Duration::from_secs(30), || {
        let asked = owner.query_one("SELECT count(*) FROM tandem.opportunities", &[]);
        asked.is_ok_and(|row| 0 < row.get::<_, i64>(0))
    });
    assert!(rows, "the right password opens PostgreSQL");
    let shown = output("redis-cli", &["-s", &sock.display().to_string(), "dbsize"]);
    assert_ne!(String::from_utf8_lossy(&shown).trim(), "0", "the right password opens Redis");

    // Everything that can be seen of it.
    let mut found = Search::default();
    let pids: Vec<u32> = children(up.0.id()).into_values().chain([up.0.id()]).collect();
    for pid in &pids {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            found.take(&needles, "cmdline and environ", &bytes);
        }
    }
    let address = fs::read_to_string(run.join(tandem_tools::drain_role::WEB_FILE)).unwrap();
    let at: SocketAddr =
        address.trim().trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                    encoding=delimited";
    for accept in ["text/plain", "application/openmetrics-text", protobuf] {
        found.take(&needles, "/metrics", &get(at, "/metrics", accept));
    }
    for path in TOPICS.iter().map(|topic| format!("/api/v1/{topic}")) {
        let answer = get(at, &path, "application/json");
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{path}: {}",
            String::from_utf8_lossy(&answer)
        );
        found.take(&needles, "dashboard", &answer);
    }
    found.take(&needles, "dashboard", &get(at, "/api/v1/stream", "text/event-stream"));
    for service in [&slack, &telegram, &webhook, &heartbeat] {
        for seen in service.seen() {
            found.take(&needles, "messages to people", seen.body.to_string().as_bytes());
        }
    }
    let pg_args = ["-h", &database.dir.display().to_string(), "-p", &database.port.to_string()];
    let dump = [&pg_args[..], &["-U", "postgres", "-d", "postgres"]].concat();
    found.take(&needles, "pg_dump", &output("pg_dump", &dump));
    let cli = sock.display().to_string();
    output("redis-cli", &["-s", &cli, "save"]);
    let rdb = work.path().join("dump.rdb");
    found.take(&needles, "Redis dump", &fs::read(&rdb).unwrap());
    signal(up.0.id(), 15);
    assert!(wait_for(Duration::from_secs(60), || up.0.try_wait().unwrap().is_some()), "an end");
    for seen in sentry.seen() {
        found.take(&needles, "Sentry envelopes", &seen.raw);
    }
    found.take(&needles, "logs", &fs::read(&log).unwrap());
    found.take(&needles, "logs", &[said.stdout, said.stderr].concat());
    let kept = [
        live.keys.gateway.clone(),
        live.keys.warden.clone(),
        live.dir.path().join("dashboard-token"),
        live.dir.program(),
    ];
    found.folder(&needles, "run: journal, rings, spool", &run, &kept);
    found.folder(&needles, "state", &state, &kept);
    found.folder(&needles, "archive, as it is", &archive, &[]);
    found.take(&needles, "archive, decompressed", &archived(&archive));
    println!("\n{} needles; {} processes", needles.0.len(), pids.len());
    println!("{:<28} {:>12} {:>6}", "searched", "bytes", "hits");
    for (kind, (bytes, hits)) in &found.0 {
        println!("{kind:<28} {bytes:>12} {hits:>6}");
    }
    for (kind, (bytes, hits)) in &found.0 {
        assert_ne!(*bytes, 0, "{kind}: nothing was searched");
        assert_eq!(*hits, 0, "{kind}: a secret");
    }

    // The search finds what is there.
    let mut planted = Search::default();
    fs::write(run.join("planted"), format!("x{CANARY}y")).unwrap();
    planted.folder(&needles, "run", &run, &kept);
    owner.batch_execute(&format!("CREATE TABLE planted AS SELECT '{CANARY}'::text")).unwrap();
    planted.take(&needles, "pg_dump", &output("pg_dump", &dump));
    output("redis-cli", &["-s", &cli, "set", "planted", CANARY]);
    output("redis-cli", &["-s", &cli, "save"]);
    planted.take(&needles, "Redis dump", &fs::read(&rdb).unwrap());
    let last = needles.0.last().unwrap().clone();
    planted.take(&needles, "a venue's key", &[b"error: ".to_vec(), last].concat());
    for (kind, (_, hits)) in &planted.0 {
        assert_eq!(*hits, 1, "{kind}: the planted canary is found");
    }
    println!("planted in {} places, found in each", planted.0.len());
    let (bytes, kinds) = (found.0.values().map(|(bytes, _)| bytes).sum::<usize>(), found.0.len());
    println!(
        "figure SEC-01: {} secrets, {kinds} kinds of places, {bytes} bytes: 0 hits",
        needles.0.len()
    );
    drop(server);
}
