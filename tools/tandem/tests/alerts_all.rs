//! Every alert there is, fired by its fault in a live run on simulated venues, and how long it took until Slack,
//! Telegram and a webhook on loopback had it.
//!
//! The fault model: `reference/reliability.md` section 11.5. Each row is the first time that an alert of a rule is
//! told under its own fault. What happens is told once in a long while, so where an earlier fault had fired such a
//! rule, the row is that fault's. What a rule waits by its own definition, as configured here,
//! is told beside the seconds: the shipped thresholds are longer. A rule without a row fails the test.
//!
//! Minutes long, and its bounds need a machine of their own: `scripts/test trading` runs it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "../../drain/tests/support/receiver.rs"]
mod receiver;
mod support;
#[path = "support/trading.rs"]
mod trading;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use postgres_server::Server;
use receiver::{Mode, Receiver, Seen};
use serde_json::json;
use support::{RunDir, signal, wait_for};
use tandem_core::level::{Level, LevelWord};
use tandem_core::record::Venue;
use tandem_drain::alerts::Rule;
use tandem_drain::spool;
use tandem_tools::demo_keys::ACCOUNT;
use tandem_tools::time::now_ns;
use trading::Live;

/// Beyond what a rule waits: five seconds is the target, and more than that is the loaded machine.
const BOUND: Duration = Duration::from_secs(15);

/// What a rule waits by itself, as configured below, in seconds.
const WAITS: [(Rule, u64); 15] = [
    (Rule::HEADROOM, 10),
    (Rule::SESSION, 1),
    (Rule::UNKNOWN, 3),
    (Rule::UNCONFIRMED, 3),
    (Rule::DOWN, 3),
    (Rule::DEAD_MAN, 45),
    (Rule::DATABASE, 1),
    (Rule::BACKLOG, 2),
    (Rule::REDIS, 1),
    (Rule::SENTRY, 1),
    // A full disk stops the archive; the journal behind it fills up at the market's rate.
    (Rule::JOURNAL_FULL, 60),
    // Each row is tried three times, alone at last.
    (Rule::DEAD_LETTER, 15),
    (Rule::REPORT, 0),
    // `drift_max_ms` of the demo's limits.
    (Rule::RECONCILE, 5),
    // The fault is an engine that is stopped for eight seconds: it tells the lap when it comes back.
    (Rule::LAP, 8),
];

const NAMES: [&str; 3] = ["Slack", "Telegram", "webhook"];

/// One line of the table.
struct Row {
    fault: String,
    seconds: [f64; 3],
}

/// Services, secrets, and what was told so far.
struct Desk {
    dir: RunDir,
    channels: [Receiver; 3],
    heartbeat: Receiver,
    sentry: Receiver,
    fault: String,
    begun: Instant,
    rows: BTreeMap<&'static str, Row>,
    /// What the fault under way is to fire.
    wanted: Vec<&'static str>,
    /// Rules that another fault fired before their own did.
    early: BTreeMap<&'static str, Row>,
    /// When the minute of the day's report comes.
    report: Instant,
}

fn tells(seen: &Seen, rule: Rule) -> bool {
    let body = seen.body.to_string();
    // People's texts have the fingerprint before the time; the webhook has it as a member.
    let texts = [format!("{} · since", rule.id), format!("{}/", rule.id)];
    let members =
        [format!("\"fingerprint\":\"{}\"", rule.id), format!("\"fingerprint\":\"{}/", rule.id)];
    let text = |text: &String| body.contains(&format!("\\n{text}"));
    members.iter().any(|member| body.contains(member)) || texts.iter().any(text)
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            dir: RunDir::new("alerts-all-desk"),
            channels: [Receiver::new(), Receiver::new(), Receiver::new()],
            heartbeat: Receiver::new(),
            sentry: Receiver::new(),
            fault: String::new(),
            begun: Instant::now(),
            rows: BTreeMap::new(),
            wanted: Vec::new(),
            early: BTreeMap::new(),
            report: Instant::now(),
        };
        desk.secret("slack", &desk.channels[0].url("/services/x"));
        desk.secret("telegram", "42:token");
        desk.secret("webhook", &desk.channels[2].url("/hook"));
        desk.secret("heartbeat", &desk.heartbeat.url("/beat"));
        desk.secret("dsn", &format!("http://key@127.0.0.1:{}/7", desk.sentry.address.port()));
        desk
    }

    fn secret(&self, name: &str, text: &str) {
        let path = self.place(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `[alerts]` with short times, every channel told of everything.
    fn alerts(&self, thresholds: &str) -> String {
        let place = |name: &str| self.place(name).display().to_string();
        format!(
            "\n[alerts]\nsystem = \"test\"\nheartbeat_url_file = \"{}\"\nheartbeat_s = 1\ngroup_ms = 100\n\
             http_timeout_ms = 500\nretry_s = 2\nprobe_ms = 300\nlost_ms = 1000\nresolve_s = 1\n\
             messages_per_min = 60\n[alerts.thresholds]\n{thresholds}\n\
             [[alerts.channel]]\nname = \"ops\"\nservice = \"slack\"\nseverity_min = \"info\"\n\
             url_file = \"{}\"\n\
             [[alerts.channel]]\nname = \"phone\"\nservice = \"telegram\"\nseverity_min = \"info\"\n\
             token_file = \"{}\"\nchat_id = \"-7\"\napi_url = \"{}\"\n\
             [[alerts.channel]]\nname = \"desk\"\nservice = \"webhook\"\nseverity_min = \"info\"\n\
             url_file = \"{}\"\n",
            place("heartbeat"),
            place("slack"),
            place("telegram"),
            self.channels[1].url(""),
            place("webhook"),
        )
    }

    /// From now on what is told belongs to this fault.
    fn begin(&mut self, fault: &str) {
        self.take();
        fault.clone_into(&mut self.fault);
        self.wanted.clear();
        self.begun = Instant::now();
    }

    /// Notes each rule that every channel was told of for the first time. A channel that is blocked for the test of
    /// its own alert is told of by the others.
    fn take(&mut self) {
        let messages = self.channels.each_ref().map(Receiver::messages);
        for rule in Rule::ALL {
            if self.rows.contains_key(rule.id) {
                continue;
            }
            let is_wanted = self.wanted.contains(&rule.id);
            if !is_wanted && self.early.contains_key(rule.id) {
                continue;
            }
            let from = if rule.id == Rule::REPORT.id { self.report } else { self.begun };
            let first = messages
                .each_ref()
                .map(|seen| seen.iter().find(|seen| from <= seen.at && tells(seen, *rule)));
            let is_blocked = rule.id == Rule::CHANNEL.id;
            let arrived = first.iter().filter(|seen| seen.is_some()).count();
            if arrived + usize::from(is_blocked) < 3 {
                continue;
            }
            let (fault, since) = match rule.id == Rule::REPORT.id {
                true => ("its minute of the day comes", self.report),
                false => (self.fault.as_str(), self.begun),
            };
            let seconds = first.map(|seen| {
                seen.map_or(f64::NAN, |seen| (seen.at.max(since) - since).as_secs_f64())
            });
            let row = Row { fault: fault.to_owned(), seconds };
            let of = if is_wanted { &mut self.rows } else { &mut self.early };
            of.insert(rule.id, row);
        }
    }

    /// Waits until these were told everywhere.
    fn wait(&mut self, rules: &[Rule]) {
        self.wanted = rules.iter().map(|rule| rule.id).collect();
        let waits = rules.iter().map(waits).max().unwrap_or_default();
        let is_told =
            |desk: &Desk, id: &str| desk.rows.contains_key(id) || desk.early.contains_key(id);
        wait_for(waits + BOUND, || {
            std::thread::sleep(Duration::from_millis(50));
            self.take();
            self.wanted.iter().all(|id| is_told(self, id))
        });
        let missing: Vec<_> = self.wanted.iter().filter(|id| !is_told(self, id)).collect();
        println!(
            "{}: {:.1} s, missing {missing:?}",
            self.fault,
            self.begun.elapsed().as_secs_f64()
        );
    }

    /// Tells all rows and judges them.
    fn finish(&mut self) {
        self.take();
        println!(
            "\n{:<18} {:>6} {:>8} {:>8} {:>8}  fault",
            "alert", "waits", NAMES[0], NAMES[1], NAMES[2]
        );
        let (mut late, mut missing, mut over_five) = (Vec::new(), Vec::new(), 0);
        for rule in Rule::ALL {
            let Some(row) = self.rows.get(rule.id).or_else(|| self.early.get(rule.id)) else {
                missing.push(rule.id);
                continue;
            };
            let waits = waits(rule);
            let [slack, telegram, webhook] = row.seconds;
            println!(
                "{:<18} {:>4} s {slack:>8.2} {telegram:>8.2} {webhook:>8.2}  {}",
                rule.id,
                waits.as_secs(),
                row.fault
            );
            let most = row.seconds.into_iter().fold(0.0, f64::max);
            over_five += usize::from(waits.as_secs_f64() + 5.0 < most);
            if (waits + BOUND).as_secs_f64() < most {
                late.push(rule.id);
            }
        }
        println!(
            "{} of {} alerts arrived at all receivers; {over_five} later than 5 s after what the rule waits",
            Rule::ALL.len() - missing.len(),
            Rule::ALL.len()
        );
        assert!(missing.is_empty(), "no fault fired: {missing:?}");
        assert!(late.is_empty(), "later than {BOUND:?}: {late:?}");
    }
}

fn waits(rule: &Rule) -> Duration {
    let found = WAITS.iter().find(|(known, _)| known.id == rule.id);
    Duration::from_secs(found.map_or(0, |(_, seconds)| *seconds))
}

/// A file system of its own, so that it can be filled.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf) -> Mount {
        fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m", "tandem-test"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success(), "this test needs the right to mount a file system");
        Mount(path)
    }

    /// Fills it to the last byte.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("somebody-else");
        let mut file = File::create(&path).unwrap();
        let mut size = 1 << 20;
        while 0 < size {
            if file.write_all(&vec![7u8; size]).is_err() {
                size /= 4;
            }
        }
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Process(Child);

impl Process {
    fn redis(sock: &Path) -> Process {
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(sock)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Process(server.unwrap())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The UTC minute of the day that begins next but one, and how long that is.
fn coming_minute() -> (i64, Duration) {
    const MINUTE_NS: i64 = 60_000_000_000;
    let now_ns = now_ns();
    let minute = now_ns.div_euclid(MINUTE_NS) + 1;
    let left_ns = u64::try_from(minute * MINUTE_NS - now_ns).unwrap();
    (minute.rem_euclid(1_440), Duration::from_nanos(left_ns))
}

fn newest(folder: &Path, ends: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(newest(&path, ends));
        } else if path.to_string_lossy().ends_with(ends) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Turns over bytes in the middle of a file.
fn damage(path: &Path) {
    let mut file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 4;
    file.seek(SeekFrom::Start(middle)).unwrap();
    let mut bytes = [0u8; 4_096];
    let count = file.read(&mut bytes).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
    file.seek(SeekFrom::Start(middle)).unwrap();
    file.write_all(&bytes[..count]).unwrap();
}

/// Arms again where a control has paused. What stands against it is told: then the next faults show who needed it.
fn arm(live: &Live) {
    let confirm = live.confirm();
    let mut said = None;
    let armed = wait_for(Duration::from_secs(30), || {
        let now = live.say(&["arm", "--reason", "test", "--confirm", &confirm]);
        let done = now.code == 0;
        said = Some(now);
        done
    });
    if !armed {
        println!("not armed: {:?}; {said:?}", live.failed_stages());
    }
}

/// Arms, and waits until nothing takes it back: an order whose outcome is unknown pauses until it is proven.
fn arm_for_good(live: &Live) {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        arm(live);
        let word = || LevelWord(live.page().level());
        let paused = || Venue::ALL.iter().any(|venue| word().effective(*venue) != Level::Armed);
        if !wait_for(Duration::from_secs(3), paused) {
            return;
        }
    }
    println!("not armed for good: {:?}", live.failed_stages());
}

#[test]
fn every_alert_is_fired_by_its_fault() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        eprintln!("SKIPPED: redis-server is not installed; run scripts/setup");
        return;
    }
    let Some(database) = Server::start("alerts") else { return };
    let begun = Instant::now();
    let mut desk = Desk::new();
    let mount = Mount::new(desk.place("disk"));
    let sock = desk.place("redis.sock");
    let mut redis = Process::redis(&sock);
    let writer = "CREATE ROLE writer LOGIN PASSWORD 'x'";
    let mut owner = {
        let mut config = postgres::Config::new();
        config.host_path(&database.dir).port(database.port).user("postgres").dbname("postgres");
        config.connect(postgres::NoTls).unwrap()
    };
    owner.batch_execute(writer).unwrap();
    let (report_min, left) = coming_minute();
    // After the first steps of the run, which take a minute.
    let report_min = (report_min + 1) % 1_440;
    desk.report = Instant::now() + left + Duration::from_secs(60);
    let thresholds = format!(
        "unknown_s = 1\none_leg_s = 1\nexposure_ppm = 10000\nexposure_s = 0\ndead_man_s = 30\n\
         resyncs_per_h = 0\nrate_s = 1\nsession_s = 1\nsink_down_s = 1\nbacklog_s = 2\ndurable_s = 1\n\
         edge_shortfall_ppm = 1\nedge_rounds = 3\nreport_min = {report_min}"
    );
    let more = format!(
        "{}\n[archive]\ndir = \"{}\"\nkeep_segments = 1\nfile_mib = 1\nfree_min_mib = 1\n\
         [redis]\nurl = \"unix://{}\"\n[sentry]\ndsn_file = \"{}\"\nenvironment = \"test\"\n\
         [postgres]\nhost = \"{}\"\nport = {}\ndatabase = \"postgres\"\nuser = \"postgres\"\nmigrate = true\n\
         connect_timeout_ms = 500\nstatement_timeout_ms = 2000\nbackoff_max_ms = 500\nbatch_ms = 50\n",
        desk.alerts(&thresholds),
        mount.0.join("archive").display(),
        sock.display(),
        desk.place("dsn").display(),
        database.dir.display(),
        database.port,
    );
    desk.begin("start: keys of 100 days, certificates of 5 days, a journal smaller than a day");
    let mut live = Live::with(
        "alerts-all",
        |sim| sim.certificate_days = Some(5),
        |text| {
            let small = "segment_mib = 1\nsegments_max = 24";
            text.replace("segment_mib = 32\nsegments_max = 40", small)
                .replace("loss_5min_max = \"500\"", "loss_5min_max = \"40\"")
                .replace("wait = \"park\"\nrate", "wait = \"park\"\nring_slots = 4096\nrate")
                + &more
        },
    );
    let old = SystemTime::now() - Duration::from_secs(100 * 86_400);
    for key in [&live.keys.gateway, &live.keys.warden] {
        File::options().read(true).open(key).unwrap().set_modified(old).unwrap();
    }
    live.up_ready();
    desk.wait(&[Rule::CERTIFICATE, Rule::KEY_AGE, Rule::STALLS]);
    desk.begin("armed by an operator; orders in flight");
    live.arm();
    desk.wait(&[Rule::ARMED, Rule::EXPOSURE, Rule::HEADROOM]);

    desk.begin("`tandem alerts test`");
    live.say(&["alerts", "test"]);
    desk.wait(&[Rule::TEST]);
    desk.begin("Slack takes connections and says nothing");
    desk.channels[0].set(Mode::Hang);
    desk.wait(&[Rule::CHANNEL]);
    desk.channels[0].set(Mode::Well);
    desk.begin("the heartbeat's service closes connections");
    desk.heartbeat.set(Mode::Close);
    desk.wait(&[Rule::HEARTBEAT]);
    desk.heartbeat.set(Mode::Well);

    // What is behind the journal.
    desk.begin("redis-server killed");
    redis.end();
    desk.wait(&[Rule::REDIS]);
    redis = Process::redis(&sock);
    desk.begin("a table refuses every row");
    let refuse = "ALTER TABLE tandem.fills ADD CONSTRAINT refuses CHECK (false) NOT VALID";
    owner.batch_execute(refuse).unwrap();
    desk.wait(&[Rule::DEAD_LETTER]);
    owner.batch_execute("ALTER TABLE tandem.fills DROP CONSTRAINT refuses").unwrap();
    arm(&live);
    desk.begin("PostgreSQL stopped");
    database.down();
    desk.wait(&[Rule::DATABASE, Rule::BACKLOG]);
    database.up();
    desk.begin("a line as a process that panics writes it; Sentry refuses the key");
    let body = "{\"detail\": \"no\"}".to_owned();
    desk.sentry.set(Mode::Say(403, Vec::new(), body, usize::MAX));
    let line = json!({"at_ns": now_ns(), "role": "gateway kraken", "pid": 1, "what": "panic",
        "message": "it died", "place": "x.rs:1:1", "fields": []});
    let folder = live.config.run.dir.join(spool::FOLDER);
    fs::write(folder.join("gateway-kraken.4999999.1.jsonl"), format!("{line}\n")).unwrap();
    desk.wait(&[Rule::PANIC, Rule::SENTRY]);
    desk.sentry.set(Mode::Well);

    // Venues.
    desk.begin("an instrument jumps by 5 % for a second");
    for symbol in ["BTC-USD", "ETH-USD"] {
        live.fault("spike", "coinbase", &json!({"symbol": symbol, "bps": 500, "ms": 1000}));
    }
    desk.wait(&[Rule::INSTRUMENT]);
    arm(&live);
    desk.begin("orders to Kraken are lost, and questions are not answered");
    live.fault("order_lost", "kraken", &json!({"seconds": 12.0}));
    live.fault("order_lost", "kraken", &json!({"request": "query", "seconds": 12.0}));
    desk.wait(&[Rule::UNKNOWN]);
    live.clear();
    arm_for_good(&live);
    desk.begin("Kraken and Coinbase fill nothing: legs stay open and hedges lose");
    for venue in ["kraken", "coinbase"] {
        live.fault("no_liquidity", venue, &json!({"seconds": 12.0}));
    }
    desk.wait(&[Rule::ONE_LEG, Rule::EDGE]);
    live.clear();
    arm_for_good(&live);
    desk.begin("fees of a hundred times what is configured");
    let fees = |of: [u32; 3]| {
        for (venue, ppm) in Venue::ALL.into_iter().zip(of) {
            let body = json!({"action": "fees", "account": ACCOUNT, "venue": venue.name(),
                "taker_ppm": ppm});
            live.sim().post("/account", &body);
        }
    };
    fees([20_000; 3]);
    desk.wait(&[Rule::LOSS]);
    fees([200, 400, 400]);
    desk.begin("the venue says: too many requests");
    live.fault("rate_limit", "binance", &json!({"request": "any", "seconds": 12.0}));
    live.fault("rate_limit", "kraken", &json!({"request": "any", "seconds": 12.0}));
    desk.wait(&[Rule::RATE]);
    live.clear();
    desk.begin("Coinbase closes every connection and takes none");
    live.fault("refuse", "coinbase", &json!({"mode": "closed", "seconds": 6.0}));
    live.fault("disconnect", "coinbase", &json!({"mode": "reset"}));
    desk.wait(&[Rule::SESSION, Rule::RESYNC, Rule::RECONNECT]);
    live.clear();
    desk.begin("Kraken refuses the key");
    live.fault("auth", "kraken", &json!({"request": "any", "seconds": 10.0}));
    live.fault("disconnect", "kraken", &json!({"mode": "reset"}));
    desk.wait(&[Rule::AUTH]);
    live.clear();
    desk.begin("the clocks of two venues are ten seconds off");
    for venue in ["binance", "kraken"] {
        live.fault("clock", venue, &json!({"ms": 10_000, "seconds": 4.0}));
    }
    desk.wait(&[Rule::CLOCK]);
    live.clear();
    arm(&live);
    desk.begin("a fill is taken back");
    let fills = live.sim().get(&format!("/truth/fills?account={ACCOUNT}&limit=10000"));
    let last = fills["fills"].as_array().unwrap().last().unwrap()["seq"].clone();
    live.sim().post("/account", &json!({"action": "bust", "fill": last}));
    desk.wait(&[Rule::LEVEL]);
    arm(&live);
    desk.begin("an order by hand fills, another one stays open, and the account is read anew");
    // One word of the venue is a suspicion, the second a difference: each order by hand brings one.
    for price in [None, Some("20010.00"), None, None] {
        std::thread::sleep(Duration::from_millis(300));
        let mut body = json!({"action": "order", "account": ACCOUNT, "venue": "binance",
            "symbol": "BTCUSDT", "side": "buy", "qty": "0.001"});
        if let Some(price) = price {
            body["price"] = json!(price);
        }
        live.sim().post("/account", &body);
    }
    live.fault("disconnect", "binance", &json!({"mode": "reset"}));
    desk.wait(&[Rule::FOREIGN, Rule::RECONCILE]);
    live.sim()
        .post("/account", &json!({"action": "cancel", "account": ACCOUNT, "venue": "binance"}));
    desk.begin("nothing: the report's minute may still come");
    std::thread::sleep(desk.report.saturating_duration_since(Instant::now()));
    desk.wait(&[Rule::REPORT]);

    // Processes.
    desk.begin("the gateway of Kraken is stopped");
    let gateway = live.gateway_pid(Venue::Kraken);
    signal(gateway, 19);
    desk.wait(&[Rule::DOWN, Rule::DEAD_MAN]);
    signal(gateway, 18);
    desk.begin("the engine is stopped for eight seconds");
    let engine = live.engine_pid();
    for venue in Venue::ALL {
        live.fault("burst", venue.name(), &json!({"factor": 20.0, "seconds": 10.0}));
    }
    signal(engine, 19);
    desk.wait(&[Rule::KILL]);
    std::thread::sleep(Duration::from_secs(8));
    signal(engine, 18);
    desk.wait(&[Rule::LAP]);
    desk.begin("the warden is stopped while KILL is set");
    let warden = live.warden_pid();
    signal(warden, 19);
    desk.wait(&[Rule::UNCONFIRMED]);
    signal(warden, 18);
    desk.begin("kill -9 of the engine");
    live.kill_9(live.engine_pid());
    desk.wait(&[Rule::RESTART, Rule::CONFIG]);

    // The disk, and what cannot be read any more.
    desk.begin("somebody fills the archive's disk");
    let other = mount.fill();
    live.fault("burst", "binance", &json!({"factor": 20.0, "seconds": 60.0}));
    desk.wait(&[Rule::ARCHIVE_DISK, Rule::ARCHIVE_LAG, Rule::JOURNAL_FULL]);
    fs::remove_file(other).unwrap();
    live.clear();
    desk.begin("the drain is killed, and what it reads at its start is damaged");
    let drain = live.up.as_ref().unwrap().tiles()["drain"];
    signal(drain, 19);
    let archived = newest(&mount.0.join("archive"), ".tda");
    println!("{} files of the archive", archived.len());
    archived.last().into_iter().for_each(|path| damage(path));
    let segments = newest(&live.config.journal_dir(), ".tj");
    segments.iter().take(2).for_each(|path| damage(path));
    signal(drain, 9);
    desk.wait(&[Rule::ARCHIVE, Rule::JOURNAL]);
    live.kill_all();
    drop(redis);
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
    desk.finish();
}
