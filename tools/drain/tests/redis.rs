//! The Redis sink against real servers: what is there is the last of every book, opportunities are there once,
//! and no state of a server stops anything but the writer's own thread.
//!
//! The fault model: a server is not there, hangs (SIGSTOP), is killed and comes back empty, is full, is a
//! replica, changes its password or its rights; the drain is killed at any moment and reads its journal
//! again. Skipped, and said so, where Debian's package `redis-server` is not installed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Connection;
use sha2::{Digest, Sha256};
use tandem_core::instrument::{Asset, Universe};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::report::{LegReport, Opportunity};
use tandem_core::units::{Amount, Px, Qty};
use tandem_drain::plan::Names;
use tandem_drain::redis::{Place, Redis, RedisSettings};
use tandem_drain::run::{ConfigText, RunInfo};
use tandem_drain::source::now_ns;
use tandem_drain::status::{Registry, SinkLook, SinkStatus};
use tandem_drain::{Plan, Sink};
use tandem_feeds::spec::VenueInstrument;
use tandem_gateway::keys::Secret;

const PASSWORD: &str = "c4n4ry-redis-password";
const ADMIN: &str = "test-admin";
const BOOKS: u16 = 40;
const STREAM_MAX: usize = 500;
/// A symbol that would break a text protocol, a terminal, or a glob.
const HOSTILE: &str = "A\r\nFLUSHALL\r\n*\u{1b}[31m\"'{x}/USD";

fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").output().is_ok();
    if !found {
        println!("SKIPPED: redis-server is not installed; run scripts/setup");
    }
    found
}

struct Server {
    dir: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn new(test: &str) -> Server {
        let dir = std::env::temp_dir().join(format!("tandem-redis-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        // The shipped users, with passwords, and one more that may look at everything.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/redis");
        let hash = |text: &str| {
            Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let users = fs::read_to_string(root.join("users.acl")).unwrap();
        let users = users.replace(&"0".repeat(64), &hash(PASSWORD));
        let admin = format!("user admin on #{} ~* &* +@all\n", hash(ADMIN));
        fs::write(dir.join("users.acl"), users + &admin).unwrap();
        let conf = fs::read_to_string(root.join("redis.conf")).unwrap();
        let conf = conf
            .replace("/run/redis/redis.sock", &dir.join("sock").display().to_string())
            .replace("/etc/redis/users.acl", &dir.join("users.acl").display().to_string());
        fs::write(dir.join("redis.conf"), conf + &format!("dir {}\n", dir.display())).unwrap();
        let mut server = Server { dir, child: None };
        server.start();
        server
    }

    fn start(&mut self) {
        let _ = fs::remove_file(self.dir.join("sock"));
        let child = Command::new("redis-server")
            .arg(self.dir.join("redis.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while !self.dir.join("sock").exists() || self.try_admin().is_none() {
            assert!(Instant::now() < until, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn open(&self, user: &str, password: &str) -> redis::RedisResult<Connection> {
        let sock = self.dir.join("sock");
        let url = format!("redis+unix://{}?user={user}&pass={password}", sock.display());
        redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))
    }

    fn try_admin(&self) -> Option<Connection> {
        self.open("admin", ADMIN).ok()
    }

    fn admin(&self) -> Connection {
        self.try_admin().unwrap()
    }

    fn settings(&self) -> RedisSettings {
        RedisSettings {
            place: Place::Unix(self.dir.join("sock")),
            user: Some("tandem".to_owned()),
            password: Some(Secret::from(PASSWORD)),
            prefix: "tandem".to_owned(),
            flush: Duration::from_millis(10),
            depth: 5,
            stream_max: STREAM_MAX,
            expire: Duration::from_secs(300),
            connect_timeout: Duration::from_millis(500),
            response_timeout: Duration::from_millis(500),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn symbol(instrument: u16) -> String {
    match instrument {
        7 => HOSTILE.to_owned(),
        other => format!("S{other}/USD"),
    }
}

fn read_run(text: &str) -> Result<RunInfo, String> {
    let run = text.trim().parse().map_err(|_| "no run".to_owned())?;
    let listed = |id: u16| VenueInstrument {
        id,
        venue: Venue::ALL[usize::from(id) % 3],
        symbol: symbol(id),
        feed_symbol: symbol(id),
        rest_symbol: symbol(id),
        px_exponent: 2,
        qty_exponent: 4,
        notional_exponent: 6,
        price_precision: 2,
        qty_precision: 4,
        notional_min: 0,
        status: TradingStatus::Trading,
    };
    Ok(RunInfo {
        run,
        mode: "paper".to_owned(),
        text: text.to_owned(),
        universe: Universe {
            assets: vec![Asset { name: "USD".to_owned(), exponent: 2 }],
            instruments: Vec::new(),
        },
        instruments: (0..BOOKS).map(listed).collect(),
        cycles: Vec::new(),
        window_levels: 100,
        numeraire: None,
    })
}

fn plan() -> Plan {
    let name = String::new;
    Plan {
        dir: PathBuf::from("/nowhere"),
        journal: PathBuf::from("/nowhere"),
        segments_max: 1,
        segment_frames: 1,
        trades: false,
        is_live: false,
        venues: Vec::new(),
        parts: Vec::new(),
        names: Names {
            engine_stats: name(),
            journal_full: name(),
            outputs_lost: name(),
            overruns: name(),
            exposure_ppm: name(),
            warden_stats: name(),
            warden_verdict: BTreeMap::new(),
        },
        read_run,
        instruments: BTreeMap::new(),
    }
}

/// The same journal for the same seed: market records, and an opportunity now and then.
struct Journal {
    seed: u64,
    seq: u64,
    at_ns: i64,
    records: Vec<Record>,
    /// What each book's last record of a message left: bid, ask, state, sequence.
    last: BTreeMap<u16, ([i64; 4], BookState, u64)>,
    found: Vec<u64>,
}

impl Journal {
    fn new(run: u32, at_ns: i64) -> Journal {
        let mut journal = Journal {
            seed: 0x9e37_79b9_7f4a_7c15,
            seq: 0,
            at_ns,
            records: Vec::new(),
            last: BTreeMap::new(),
            found: Vec::new(),
        };
        for (data, flags, update_id) in ConfigText::payloads(run.to_string().as_bytes()) {
            let record = Record::new(Kind::Config, 0, u16::MAX, data);
            journal.push(Record { flags, update_id, engine_ts_ns: 0, ..record });
        }
        journal
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    fn push(&mut self, record: Record) {
        self.seq += 1;
        self.records.push(Record { seq: self.seq, ..record });
    }

    fn market(&mut self, count: usize) {
        for _ in 0..count {
            self.at_ns += 1_000_000;
            let instrument = self.random(u64::from(BOOKS)) as u16;
            let venue = Venue::ALL[usize::from(instrument) % 3] as u8;
            let px = 10_000 + self.random(500) as i64;
            let (bid_qty, ask_qty) = (self.random(50) as i64, 1 + self.random(50) as i64);
            let data = [px, bid_qty, px + 1 + self.random(5) as i64, ask_qty];
            let state = if self.random(20) == 0 { BookState::Stale } else { BookState::Live };
            let base = Record {
                engine_ts_ns: self.at_ns,
                recv_ts_ns: self.at_ns - 500,
                venue_ts_ns: self.at_ns - 900_000,
                ..Record::new(Kind::BookState, venue, instrument, [state as i64, 0, 0, 0])
            };
            self.push(base);
            let bbo = Record { kind: Kind::Bbo as u8, flags: flag::LAST, data, ..base };
            self.push(bbo);
            self.last.insert(instrument, (data, state, self.seq));
            if self.random(10) == 0 {
                self.opportunity();
            }
        }
    }

    fn opportunity(&mut self) {
        let mut told = Opportunity::decode(&blank()).unwrap();
        told.id = self.found.len() as i64 + 1;
        (told.net, told.spent, told.brought) = (Amount(1_234), Amount(100_000), Amount(101_234));
        (told.first_ns, told.at_ns) = (self.at_ns, self.at_ns);
        let leg = LegReport {
            instrument: 7,
            venue: 2,
            side: 1,
            px: Px(10_050),
            qty: Qty(5),
            ..LegReport::default()
        };
        told.push_leg(leg);
        let mut group = Vec::new();
        told.encode(&Record::default(), |record| group.push(record));
        self.found.push(self.seq + 1);
        group.into_iter().for_each(|record| self.push(record));
    }
}

/// A group without legs: what else an opportunity has is private.
fn blank() -> [Record; 3] {
    let part = |part: u8, data| Record { part, ..Record::new(Kind::Opportunity, 0, 0, data) };
    [part(0, [1 | 1 << 8, 0, 0, 0]), part(1, [0; 4]), part(2, [0; 4])]
}

fn start(settings: RedisSettings) -> (Redis, Arc<SinkStatus>) {
    let status = Registry::default().register("redis");
    (Redis::start(&plan(), settings, Arc::clone(&status)).unwrap(), status)
}

/// Gives records and returns how long the slowest call took.
fn give(sink: &mut Redis, records: &[Record]) -> Duration {
    let mut slowest = Duration::ZERO;
    for record in records {
        let begun = Instant::now();
        sink.record(record, false);
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

fn until(what: &str, within_s: u64, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(within_s);
    while !is_so() {
        assert!(Instant::now() < until, "not in {within_s} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn hash(admin: &mut Connection, key: &str) -> BTreeMap<String, String> {
    redis::cmd("HGETALL").arg(key).query(admin).unwrap_or_default()
}

fn key(instrument: u16) -> String {
    let venue = Venue::ALL[usize::from(instrument) % 3].name();
    let symbol: String =
        symbol(instrument).chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("tandem:bbo:{venue}:{symbol}")
}

fn decimal(quanta: i64, places: usize) -> String {
    let text = format!("{quanta:0>width$}", width = places + 1);
    let (whole, part) = text.split_at(text.len() - places);
    format!("{whole}.{part}")
}

/// Whether every book there is the journal's last; the first that differs is told.
fn differs(admin: &mut Connection, journal: &Journal) -> Option<String> {
    for (instrument, (data, state, seq)) in &journal.last {
        let found = hash(admin, &key(*instrument));
        // An empty side has no text; trailing zeros are not told.
        let px =
            |quanta, qty| if qty == 0 { 0.0 } else { decimal(quanta, 2).parse::<f64>().unwrap() };
        let number =
            |name: &str| found.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let same = number("bid") == px(data[0], data[1])
            && number("ask") == px(data[2], data[3])
            && number("bid_qty") == decimal(data[1], 4).parse::<f64>().unwrap()
            && number("ask_qty") == decimal(data[3], 4).parse::<f64>().unwrap()
            && found.get("state").map(String::as_str) == Some(state.name())
            && found.get("seq") == Some(&seq.to_string());
        if !same {
            return Some(format!("{instrument}: {data:?} {state:?} {seq} is {found:?}"));
        }
    }
    None
}

fn becomes_equal(server: &Server, journal: &Journal, within_s: u64) {
    let mut why = None;
    until("every book is the last one", within_s, || {
        let Some(mut admin) = server.try_admin() else { return false };
        why = differs(&mut admin, journal);
        why.is_none()
    });
    assert_eq!(why, None);
}

fn stream(admin: &mut Connection) -> Vec<(u64, String)> {
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg("tandem:opportunities").arg("-").arg("+").query(admin).unwrap();
    let read = |(id, fields): (String, Vec<String>)| {
        let seq = id.split_once('-').unwrap().1.parse().unwrap();
        let at = fields.iter().position(|field| field == "net").unwrap();
        (seq, fields[at + 1].clone())
    };
    entries.into_iter().map(read).collect()
}

/// Row SEC-13.
#[test]
fn what_is_there_is_the_last_of_every_book_and_the_user_may_do_nothing_else() {
    if !is_installed() {
        return;
    }
    let server = Server::new("books");
    let mut listener = server.admin();
    let mut listener = listener.as_pubsub();
    listener.subscribe("tandem:bbo").unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sink, status) = start(server.settings());
    let mut journal = Journal::new(3, now_ns());
    journal.market(20_000);
    let slowest = give(&mut sink, &journal.records);
    becomes_equal(&server, &journal, 20);
    let look = status.look();
    assert!(look.up && 0 < look.conflated, "{look:?}");
    println!("{} records, slowest call {slowest:?}, {look:?}", journal.records.len());
    let mut admin = server.admin();
    // Depth, times, and the word about how the drain stands.
    let depth: String =
        redis::cmd("GET").arg(key(7).replacen("bbo", "depth", 1)).query(&mut admin).unwrap();
    let depth: serde_json::Value = serde_json::from_str(&depth).unwrap();
    assert!(
        !depth["asks"].as_array().unwrap().is_empty()
            && depth["asks"].as_array().unwrap().len() <= 5
    );
    let book = hash(&mut admin, &key(7));
    assert!(book["recv_time"].ends_with('Z') && book["recv_time"].len() == 30, "{book:?}");
    assert!(book["age_ms"].parse::<i64>().is_ok());
    sink.look(&tandem_drain::Look::default());
    until("it says how it stands", 5, || {
        hash(&mut admin, "tandem:status").get("run") == Some(&"3".to_owned())
    });
    let ttl: i64 = redis::cmd("PTTL").arg(key(7)).query(&mut admin).unwrap();
    assert!(0 < ttl && ttl <= 300_000, "it goes away by itself: {ttl}");
    // No key but those; no hostile symbol became one.
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut admin).unwrap();
    assert!(keys.iter().all(|key| key.starts_with("tandem:")), "{keys:?}");
    assert_eq!(keys.len(), 2 * journal.last.len() + 2);
    let message: String = listener.get_message().unwrap().get_payload().unwrap();
    let message: serde_json::Value = serde_json::from_str(&message).unwrap();
    assert!(message["venue"].is_string() && message["bid"].is_string(), "{message}");
    // The user's rights end at its prefix and its commands.
    let mut tandem = server.open("tandem", PASSWORD).unwrap();
    for refused in [
        &["FLUSHALL"][..],
        &["FLUSHDB"],
        &["CONFIG", "GET", "*"],
        &["GET", "tandem:status"],
        &["HSET", "other", "a", "b"],
        &["SET", "tandemx", "1"],
        &["PUBLISH", "other", "x"],
        &["KEYS", "*"],
        &["EVAL", "return 1", "0"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["DEL", "tandem:status"],
        &["SUBSCRIBE", "tandem:bbo"],
        &["REPLICAOF", "NO", "ONE"],
    ] {
        let mut command = redis::cmd(refused[0]);
        command.arg(&refused[1..]);
        let error = command.query::<redis::Value>(&mut tandem).expect_err(refused[0]);
        assert_eq!(error.code(), Some("NOPERM"), "{refused:?}: {error}");
    }
    let mut reader = server.open("tandem_read", PASSWORD).unwrap();
    let error = redis::cmd("SET").arg("tandem:status").arg(1).query::<redis::Value>(&mut reader);
    assert_eq!(error.expect_err("it may only look").code(), Some("NOPERM"));
    assert_eq!(hash(&mut reader, &key(7)), hash(&mut admin, &key(7)));
    assert!(server.open("default", "x").is_err() && server.open("tandem", "x").is_err());
    sink.close(Duration::from_secs(5));
}

#[test]
fn an_older_writer_changes_nothing() {
    if !is_installed() {
        return;
    }
    let server = Server::new("older");
    let begun_ns = now_ns();
    let mut journal = Journal::new(3, begun_ns);
    journal.market(500);
    let middle = journal.records.len();
    journal.market(500);
    let (mut now, _) = start(server.settings());
    give(&mut now, &journal.records);
    becomes_equal(&server, &journal, 10);
    // One of the same run that stopped half way, and one of a run before it.
    let mut before = Journal::new(2, begun_ns - 3_600_000_000_000);
    before.market(3_000);
    for records in [&journal.records[..middle], &before.records] {
        let (mut old, status) = start(server.settings());
        give(&mut old, records);
        until("it has written", 10, || {
            status.look().written_rows != 0 && status.look().backlog_rows == 0
        });
        old.close(Duration::from_secs(5));
        assert_eq!(differs(&mut server.admin(), &journal), None);
    }
    now.close(Duration::from_secs(5));
}

#[test]
fn an_opportunity_is_there_once_whatever_is_killed() {
    if !is_installed() {
        return;
    }
    let server = Server::new("once");
    let begun_ns = now_ns();
    let whole = child_journal(begun_ns);
    assert!(100 < whole.found.len() && whole.found.len() < STREAM_MAX, "{}", whole.found.len());
    // Processes that are killed at different moments, each reading the journal from its beginning.
    let mut killed = 0;
    for turn in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_of_its_own_writes", "--nocapture"])
            .env("TANDEM_REDIS_CHILD", server.dir.join("sock"))
            .env("TANDEM_REDIS_BEGUN", begun_ns.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(15 + turn * 11));
        let _ = child.kill();
        killed += u32::from(!child.wait().unwrap().success());
        let ids: Vec<u64> = stream(&mut server.admin()).into_iter().map(|(seq, _)| seq).collect();
        assert!(
            whole.found.starts_with(&ids),
            "turn {turn}: not the journal's beginning, each once"
        );
    }
    let (mut sink, status) = start(server.settings());
    give(&mut sink, &whole.records);
    until("all are there", 20, || stream(&mut server.admin()).len() == whole.found.len());
    sink.close(Duration::from_secs(5));
    let entries = stream(&mut server.admin());
    let ids: Vec<u64> = entries.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(ids, whole.found);
    assert!(entries.iter().all(|(_, net)| net == "12.34"), "{:?}", entries[0]);
    println!("{killed} killed, {} opportunities each once; {:?}", ids.len(), status.look().errors);
    assert!(3 <= killed);
}

fn child_journal(begun_ns: i64) -> Journal {
    let mut journal = Journal::new(3, begun_ns);
    journal.market(3_000);
    journal
}

/// The child of the test above; by itself it is nothing.
#[test]
fn a_process_of_its_own_writes() {
    let Some(sock) = std::env::var_os("TANDEM_REDIS_CHILD") else { return };
    let begun_ns = std::env::var("TANDEM_REDIS_BEGUN").unwrap().parse().unwrap();
    let server = Server { dir: PathBuf::from(&sock).parent().unwrap().to_owned(), child: None };
    let settings = RedisSettings { flush: Duration::from_millis(1), ..server.settings() };
    // The directory is the parent's.
    std::mem::forget(server);
    let (mut sink, _) = start(settings);
    for records in child_journal(begun_ns).records.chunks(40) {
        give(&mut sink, records);
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_secs(30));
}

/// One fault: what brings it about, what ends it, and what is told of it.
type Fault = (&'static str, fn(&mut Server), fn(&mut Server), &'static str);

fn ask(server: &Server, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query::<redis::Value>(&mut server.admin()).unwrap();
}

#[test]
fn no_state_of_a_server_stops_anything_and_the_newest_is_there_afterwards() {
    if !is_installed() {
        return;
    }
    let mut server = Server::new("faults");
    let faults: [Fault; 7] = [
        ("hangs", |s| s.signal("-STOP"), |s| s.signal("-CONT"), "does not answer in time"),
        ("is killed and comes back empty", Server::kill, Server::start, "Redis"),
        (
            "is full",
            |s| ask(s, &["CONFIG", "SET", "maxmemory", "1"]),
            |s| ask(s, &["CONFIG", "SET", "maxmemory", "0"]),
            "OOM",
        ),
        (
            "is a replica",
            |s| ask(s, &["REPLICAOF", "127.0.0.1", "1"]),
            |s| ask(s, &["REPLICAOF", "NO", "ONE"]),
            "READONLY",
        ),
        (
            "changes the password",
            |s| {
                ask(s, &["ACL", "SETUSER", "tandem", "resetpass", ">another"]);
                ask(s, &["CLIENT", "KILL", "USER", "tandem"]);
            },
            |s| ask(s, &["ACL", "SETUSER", "tandem", &format!(">{PASSWORD}")]),
            "authentication failed; check redis.user",
        ),
        (
            "takes a right away",
            |s| ask(s, &["ACL", "SETUSER", "tandem", "-xadd", "-hset"]),
            |s| ask(s, &["ACL", "SETUSER", "tandem", "+xadd", "+hset"]),
            "NOPERM",
        ),
        ("forgets its scripts", |s| ask(s, &["SCRIPT", "FLUSH"]), |_| {}, ""),
    ];
    let (mut sink, status) = start(server.settings());
    let mut journal = Journal::new(3, now_ns());
    journal.market(2_000);
    give(&mut sink, &journal.records);
    becomes_equal(&server, &journal, 20);
    for (name, begin, end, told) in faults {
        begin(&mut server);
        let begun = Instant::now();
        let from = journal.records.len();
        // Ten thousand more messages, over the whole outage.
        let mut slowest = Duration::ZERO;
        let mut most = SinkLook::default();
        let mut seen = told.is_empty();
        while !seen || begun.elapsed() < Duration::from_millis(700) {
            let next = journal.records.len();
            journal.market(100);
            slowest = slowest.max(give(&mut sink, &journal.records[next..]));
            let look = status.look();
            seen = seen
                || look.trouble.as_ref().is_some_and(|trouble| trouble.contains(told) && !look.up);
            if most.backlog_rows < look.backlog_rows {
                most = look;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", status.look());
            std::thread::sleep(Duration::from_millis(2));
        }
        let trouble = status.look().trouble;
        end(&mut server);
        let ended = Instant::now();
        becomes_equal(&server, &journal, 30);
        println!(
            "{name}: {} records meanwhile, slowest call {slowest:?}, at most {} held, right again after {:?}: {}",
            journal.records.len() - from,
            most.backlog_rows,
            ended.elapsed(),
            trouble.unwrap_or_default(),
        );
        assert!(most.backlog_rows <= STREAM_MAX as u64, "{name}: a backlog");
        assert!(slowest < Duration::from_millis(200), "{name}: a call waited {slowest:?}");
    }
    until("it is up", 20, || status.look().up && status.look().trouble.is_none());
    // The newest opportunities are there, each once, in order.
    until("opportunities are there", 20, || {
        stream(&mut server.admin()).last().map(|(seq, _)| *seq) == journal.found.last().copied()
    });
    let ids: Vec<u64> = stream(&mut server.admin()).into_iter().map(|(seq, _)| seq).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    // What is said of an error never holds the password.
    assert!(!format!("{:?}", status.look()).contains("c4n4ry"));
    // A server that hangs does not hold up the end.
    server.signal("-STOP");
    journal.market(10);
    give(&mut sink, &journal.records[journal.records.len() - 20..]);
    let begun = Instant::now();
    sink.close(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.signal("-CONT");
}

#[test]
fn the_shipped_files_have_no_password_and_are_not_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/redis");
    let users = fs::read_to_string(root.join("users.acl")).unwrap();
    assert!(users.lines().all(|line| line.starts_with("user ")), "no comment is allowed there");
    assert!(
        users.starts_with("user default off\n")
            && !users.contains("nopass")
            && !users.contains('>')
    );
    assert!(
        users
            .lines()
            .skip(1)
            .all(|line| line.contains("-@all") && line.contains("resetchannels &tandem:*"))
    );
    let conf = fs::read_to_string(root.join("redis.conf")).unwrap();
    assert!(conf.contains("\nport 0\n") && conf.contains("\nmaxmemory "));
    let mode = fs::metadata(root.join("users.acl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o002, 0);
}
