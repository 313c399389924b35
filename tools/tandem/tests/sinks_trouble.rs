//! The hot path beside databases in trouble, an outage's memory, and a drain that comes back: live runs with real
//! servers, which are stopped, hung, filled, locked, slowed and killed while it trades.
//!
//! What is asserted is correctness: rows lost 0, doubled 0, nothing lost in the engine. How fast the engine was
//! meanwhile is printed beside how fast it was before, for one host's two cores are no machine of their own.
//! Times: `TANDEM_TROUBLE_S` for each trouble, `TANDEM_OUTAGE_S` for the outage (600 is the row of the matrix).

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "support/trading.rs"]
mod trading;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{RunDir, signal, wait_for};
use tandem_core::level::Level;
use tandem_feeds::tile::record_schema;
use tandem_gateway::stats::metric as gateway_metric;
use tandem_shm::{HistogramSnapshot, Snapshot, oldest_seq};
use tandem_tools::demo::RunStats;
use tandem_tools::drain_role;
use tandem_tools::engine_tile::metric;
use tandem_tools::records::Origin;
use tandem_tools::services::audit::{self, Journal, PrometheusAudit};
use tandem_tools::services::redis::ADMIN;
use tandem_tools::services::{Services, ServicesError, postgres};
use trading::Live;

const SOON: Duration = Duration::from_secs(60);
/// The database has all of the past after this time.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(300);

/// Services in a folder that goes with the test.
struct Temporary(Option<Services>, PathBuf);

impl Temporary {
    fn start(test: &str) -> Option<Temporary> {
        let dir = PathBuf::from(format!("/var/tmp/tandem-{test}-{}", std::process::id()));
        match Services::start(&dir) {
            Ok(services) => Some(Temporary(Some(services), dir)),
            Err(error @ ServicesError::NotInstalled { .. }) => {
                println!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn get(&self) -> &Services {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(self.0.take());
        let _ = fs::remove_dir_all(&self.1);
    }
}

fn seconds(name: &str, default: u64) -> Duration {
    let said = std::env::var(name).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(said.unwrap_or(default))
}

/// Between the drain and a server's socket: hands bytes on, and only so many a second where that is asked for.
fn proxy(listen: &Path, to: PathBuf, rate: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) {
    let listener = UnixListener::bind(listen).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (rate, stop) = (Arc::clone(rate), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((client, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            client.set_nonblocking(false).unwrap();
            let Ok(server) = UnixStream::connect(&to) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let rate = Arc::clone(&rate);
                std::thread::spawn(move || {
                    let mut bytes = [0; 8192];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        let rate = rate.load(Ordering::Relaxed);
                        if let Some(ms) = (count as u64 * 1_000).checked_div(rate) {
                            std::thread::sleep(Duration::from_millis(ms));
                        }
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                    let _ = from.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
}

/// A live run with services.
struct Run {
    live: Live,
    services: Temporary,
    /// Bytes a second to the servers; 0 is all there are.
    rate: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Hung servers would hold up the drain's end.
        self.services.get().postgres.signal("-CONT");
        self.services.get().redis.signal("-CONT");
    }
}

impl Run {
    fn start(test: &str) -> Option<Run> {
        let services = Temporary::start(test)?;
        let (rate, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let between = services.1.join("between");
        fs::create_dir_all(&between).unwrap();
        let name = format!(".s.PGSQL.{}", services.get().postgres.port);
        let postgres = services.get().postgres.dir.clone();
        proxy(&between.join(&name), postgres.join(&name), &rate, &stop);
        proxy(&between.join("sock"), services.get().redis.socket(), &rate, &stop);
        let text = services
            .get()
            .text(2)
            .replace(
                &format!("host = \"{}\"", postgres.display()),
                &format!("host = \"{}\"", between.display()),
            )
            .replace(
                &services.get().redis.socket().display().to_string(),
                &between.join("sock").display().to_string(),
            );
        // Small segments: they go while it trades.
        let small = |plain: String| {
            let plain = plain.replace(
                "segment_mib = 32\nsegments_max = 40",
                "segment_mib = 2\nsegments_max = 200",
            );
            // Any port: another run on this host may take the usual one at the same moment.
            plain.replace("listen = \"127.0.0.1:7411\"", "listen = \"127.0.0.1:0\"") + &text
        };
        let mut live = Live::with(test, |_| {}, small);
        services.get().prepare(&live.config).unwrap();
        live.trade();
        Some(Run { live, services, rate, stop })
    }

    /// Where the database is; 0 where it cannot be asked now, as when everybody who waited comes at once.
    fn cursor(&self) -> u64 {
        let client = self.services.get().postgres.client(postgres::READER, "postgres");
        client.and_then(|mut client| audit::drained(&mut client)).unwrap_or(0)
    }

    /// Waits until the database is where the journal is now.
    fn wait_caught_up(&self) -> Duration {
        let (begun, wanted) = (Instant::now(), self.live.engine(metric::JOURNAL_SEQ) as u64);
        let done = wait_for(CAUGHT_UP_WITHIN, || {
            std::thread::sleep(Duration::from_millis(50));
            wanted <= self.cursor()
        });
        assert!(done, "at {} of {wanted}", self.cursor());
        begun.elapsed()
    }

    fn drain_pid(&self) -> u32 {
        let mut pid = 0;
        let found = wait_for(SOON, || {
            pid = self.live.up.as_ref().unwrap().tiles().get("drain").copied().unwrap_or(0);
            pid != 0
        });
        assert!(found, "no drain");
        pid
    }

    /// Where a control paused it, an operator arms.
    fn keep_armed(&self) {
        if self.live.level() == Level::Pause {
            self.live.arm();
        }
    }

    /// Ends the run and compares everything.
    fn finish(&mut self) {
        self.wait_caught_up();
        for name in [metric::OVERRUNS, metric::OUTPUTS_LOST, metric::GAPS] {
            assert_eq!(self.live.engine(name), 0, "{name}");
        }
        self.live.stop();
        assert!(self.live.truth().is_clean(), "{:?}", self.live.truth());
        let journal = Journal::read(Origin::of(&self.live.config)).unwrap();
        let services = self.services.get();
        let found = audit::all(services, &journal, PrometheusAudit::default()).unwrap();
        let postgres = &found.postgres;
        assert!(postgres.equal && postgres.last_seq == found.journal_seq, "{postgres:?}");
        assert_eq!((postgres.dead_letters, postgres.gaps), (0, 0));
        assert_eq!(found.redis.equal, found.redis.books, "{:?}", found.redis);
        assert!(found.archive.chain_verified, "{:?}", found.archive);
        assert_eq!(found.archive.durable_seq, found.journal_seq);
        let rows: i64 = postgres.tables.values().map(|rows| rows.postgres).sum();
        println!(
            "{} records, {rows} rows: lost 0, doubled 0, dead letters 0; Redis {} of {} books; archive whole",
            found.journal_seq, found.redis.equal, found.redis.books
        );
    }
}

/// The engine's and the gateways' figures at a moment.
struct Moment {
    engine: Snapshot,
    gateways: Vec<Snapshot>,
}

impl Moment {
    fn now(stats: &RunStats) -> Moment {
        let gateways = stats.gateways().into_iter().map(|(_, snapshot)| snapshot).collect();
        Moment { engine: stats.engine(), gateways }
    }

    /// p50, p99 and p99.9 of each stage since an earlier moment, ns.
    fn since(&self, before: &Moment) -> Vec<(&'static str, [u64; 3], u64)> {
        let of = |name, histograms: Vec<&HistogramSnapshot>| {
            let sum = histograms.iter().map(|h| h.to_hdr()).reduce(|mut sum, one| {
                sum.add(one).unwrap();
                sum
            });
            let at = |q| sum.as_ref().map_or(0, |sum| sum.value_at_quantile(q));
            (name, [at(0.5), at(0.99), at(0.999)], sum.as_ref().map_or(0, |sum| sum.len()))
        };
        let engine = self.engine.since(&before.engine);
        let gateways = self.gateways.iter().zip(&before.gateways);
        let gateways: Vec<Snapshot> = gateways.map(|(now, before)| now.since(before)).collect();
        let stages = [
            ("detect", metric::DETECT_NS),
            ("wire to decision", metric::WIRE_NS),
            ("ring", metric::RING_NS),
        ];
        let mut found: Vec<_> = stages
            .into_iter()
            .map(|(name, metric)| of(name, engine.histogram(metric).into_iter().collect()))
            .collect();
        let orders = |gateway| Snapshot::histogram(gateway, gateway_metric::TICK_TO_ORDER);
        found.push(of("tick to order", gateways.iter().filter_map(orders).collect()));
        found
    }
}

/// Imposes a trouble for a while and prints the hot path before and during it.
fn beside(
    run: &Run,
    stats: &RunStats,
    name: &str,
    impose: &mut dyn FnMut(),
    lift: &mut dyn FnMut(),
) {
    let time = seconds("TANDEM_TROUBLE_S", 6);
    run.keep_armed();
    let start = Moment::now(stats);
    std::thread::sleep(time);
    run.keep_armed();
    let begun = Moment::now(stats);
    impose();
    std::thread::sleep(time);
    let ended = Moment::now(stats);
    lift();
    let caught_up = run.wait_caught_up();
    println!("{name}: caught up {:.1} s after it", caught_up.as_secs_f64());
    for ((stage, before, n), (_, during, m)) in
        begun.since(&start).into_iter().zip(ended.since(&begun))
    {
        let us = |ns: u64| ns as f64 / 1e3;
        let columns: Vec<String> = ["p50", "p99", "p99.9"]
            .iter()
            .zip(before.into_iter().zip(during))
            .map(|(name, (before, during))| {
                let ratio = during as f64 / before.max(1) as f64;
                format!("{name} {:>9.1} {:>9.1} us x{ratio:<5.2}", us(before), us(during))
            })
            .collect();
        println!("  {stage:<17} {}  n {n} {m}", columns.join(" | "));
    }
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A disk of 16 MiB for one of the database's tables; nothing, said loudly, where mounting is not ours to do.
fn tiny(services: &Services) -> Option<Unmount> {
    let place = services.dir.join("tiny");
    fs::create_dir_all(&place).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs"])
        .arg(&place)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("SKIPPED: a full disk; mounting one takes root");
        return None;
    }
    let location = place.join("space");
    fs::create_dir_all(&location).unwrap();
    postgres::give(&location).unwrap();
    sql(services, &format!("CREATE TABLESPACE tiny LOCATION '{}'", location.display()));
    sql(services, "ALTER TABLE round_stages SET TABLESPACE tiny");
    sql(services, "CREATE TABLE public.filler (t text) TABLESPACE tiny");
    Some(Unmount(place))
}

fn sql(services: &Services, text: &str) {
    let mut owner = services.postgres.client("postgres", "postgres").unwrap();
    owner.batch_execute("SET default_transaction_read_only = off").unwrap();
    text.split(';').for_each(|sql| owner.batch_execute(sql).unwrap());
}

/// Until not a page is left.
fn fill(services: &Services) {
    let mut owner = services.postgres.client("postgres", "postgres").unwrap();
    for rows in [1_000, 100, 10, 1] {
        let sql = format!(
            "INSERT INTO public.filler SELECT repeat('x', 1900) FROM generate_series(1, {rows})"
        );
        while owner.batch_execute(&sql).is_ok() {}
    }
}

fn ask(services: &Services, words: &[&str]) {
    let mut admin = services.redis.client_as(ADMIN).unwrap();
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query::<redis::Value>(&mut admin).unwrap();
}

/// Row ST-01. Everything that may befall a database, while it trades.
#[test]
fn the_hot_path_does_not_notice_databases_in_trouble() {
    let Some(mut run) = Run::start("trouble") else { return };
    let stats = RunStats::open(&run.live.config, SOON).unwrap();
    run.live.wait_orders(4, SOON);
    {
        let services = run.services.get();
        let pg = &services.postgres;
        let cache = &services.redis;
        let troubled = |name, impose: &mut dyn FnMut(), lift: &mut dyn FnMut()| {
            beside(&run, &stats, name, impose, lift);
        };
        troubled("no trouble", &mut || {}, &mut || {});
        troubled("PostgreSQL stopped", &mut || pg.down(), &mut || pg.up().unwrap());
        troubled("PostgreSQL hung", &mut || pg.signal("-STOP"), &mut || pg.signal("-CONT"));
        let restart = &mut || {
            pg.down();
            pg.up().unwrap();
        };
        troubled("PostgreSQL restarted", restart, &mut || {});
        troubled(
            "PostgreSQL read-only",
            &mut || {
                sql(
                    services,
                    "ALTER SYSTEM SET default_transaction_read_only = on;SELECT pg_reload_conf()",
                );
            },
            &mut || {
                sql(
                    services,
                    "ALTER SYSTEM RESET default_transaction_read_only;SELECT pg_reload_conf()",
                )
            },
        );
        if let Some(_disk) = tiny(services) {
            troubled("PostgreSQL full", &mut || fill(services), &mut || {
                sql(services, "DROP TABLE public.filler;CHECKPOINT");
            });
            sql(
                services,
                "ALTER TABLE round_stages SET TABLESPACE pg_default;DROP TABLESPACE tiny",
            );
        }
        troubled("Redis stopped", &mut || cache.down(), &mut || cache.up().unwrap());
        troubled("Redis hung", &mut || cache.signal("-STOP"), &mut || cache.signal("-CONT"));
        troubled(
            "Redis full",
            &mut || ask(services, &["CONFIG", "SET", "maxmemory", "1"]),
            &mut || ask(services, &["CONFIG", "SET", "maxmemory", "0"]),
        );
        troubled(
            "Redis read-only",
            &mut || ask(services, &["REPLICAOF", "127.0.0.1", "1"]),
            &mut || ask(services, &["REPLICAOF", "NO", "ONE"]),
        );
        troubled(
            "both slow, 100 kB/s",
            &mut || run.rate.store(100_000, Ordering::Relaxed),
            &mut || run.rate.store(0, Ordering::Relaxed),
        );
        troubled("drain killed", &mut || signal(run.drain_pid(), 9), &mut || {});
        troubled(
            "both hung and drain killed",
            &mut || {
                pg.signal("-STOP");
                cache.signal("-STOP");
                signal(run.drain_pid(), 9);
            },
            &mut || {
                pg.signal("-CONT");
                cache.signal("-CONT");
            },
        );
    }
    run.finish();
}

/// A page of the run's dashboard.
fn page(run: &Run, target: &str) -> String {
    let at = fs::read_to_string(run.live.config.run.dir.join(drain_role::WEB_FILE)).unwrap();
    let url = format!("{}{target}", at.trim().trim_end_matches('/'));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    let answer = agent.get(&url).call().and_then(|answer| answer.into_body().read_to_string());
    answer.unwrap_or_default()
}

/// State, epoch and sequence of every book in Redis.
fn books(run: &Run) -> Vec<(String, String, u64)> {
    let Ok(mut client) = run.services.get().redis.client() else { return Vec::new() };
    let keys: Vec<String> = redis::cmd("KEYS").arg("tandem:bbo:*").query(&mut client).unwrap();
    let of = |key: &String| {
        redis::cmd("HMGET")
            .arg(key)
            .arg(&["state", "epoch", "seq"])
            .query(&mut client)
            .unwrap_or_default()
    };
    keys.iter().map(of).collect()
}

/// Row ST-07. A drain that starts in the middle of a run has its configuration and its begin from the checkpoint, and its
/// books from the feeds' pages.
#[test]
fn a_drain_that_comes_back_after_a_release_knows_every_book() {
    let Some(mut run) = Run::start("again") else { return };
    run.live.wait_orders(4, SOON);
    let journal = run.live.config.journal_dir();
    let oldest = || oldest_seq(&journal, record_schema()).map_or(0, |(_, oldest)| oldest);
    assert!(wait_for(CAUGHT_UP_WITHIN, || 1 < oldest()), "no segment goes");
    let all = run.live.config.venues().iter().map(|(_, venue)| venue.symbols.len()).sum::<usize>();
    let before = books(&run);
    let epoch = before[0].1.clone();
    let mut client = run.services.get().redis.client().unwrap();
    let told = |client: &mut redis::Connection| -> Vec<(String, Vec<String>)> {
        let stream = "tandem:opportunities";
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query(client).unwrap()
    };
    for is_empty in [false, true] {
        let seq = run.live.engine(metric::JOURNAL_SEQ) as u64;
        let pid = run.drain_pid();
        signal(pid, 9);
        if is_empty {
            ask(run.services.get(), &["FLUSHALL"]);
        }
        assert!(wait_for(SOON, || ![0, pid].contains(&run.drain_pid())), "no drain comes back");
        let known = |(state, of, _): &(String, String, u64)| state == "live" && *of == epoch;
        let mut found = Vec::new();
        let done = wait_for(SOON, || {
            found = books(&run);
            let newest = found.iter().map(|(_, _, at)| *at).max().unwrap_or(0);
            found.len() == all && found.iter().all(known) && seq < newest
        });
        assert!(done, "epoch {epoch}, of {all}: {found:?}");
        // What was told before it died is told once: ids are of the run's begin, which is known still.
        let mut stream = Vec::new();
        let done = wait_for(SOON, || {
            stream = told(&mut client);
            let newest = stream.last().and_then(|(id, _)| id.split_once('-')?.1.parse().ok());
            newest.is_some_and(|newest: u64| seq < newest)
        });
        assert!(done, "after {seq}: {:?}", stream.last());
        let of_others: Vec<&String> =
            stream.iter().map(|(id, _)| id).filter(|id| !id.starts_with(&epoch)).collect();
        assert!(of_others.is_empty(), "{} of {}: {of_others:?}", of_others.len(), stream.len());
    }
    let mut live_at_dashboard = 0;
    let done = wait_for(SOON, || {
        std::thread::sleep(Duration::from_millis(100));
        let shown: serde_json::Value =
            serde_json::from_str(&page(&run, "/api/v1/bbo")).unwrap_or_default();
        let of = |book: &&serde_json::Value| book["state"] == "live";
        live_at_dashboard =
            shown["data"].as_array().map_or(0, |books| books.iter().filter(of).count());
        live_at_dashboard == all
    });
    assert!(done, "{live_at_dashboard} of {all}: {}", page(&run, "/api/v1/bbo"));
    let valid = |line: &&str| line.contains("book_valid{") && line.ends_with(" 1");
    let mut metrics = 0;
    let done = wait_for(SOON, || {
        std::thread::sleep(Duration::from_millis(100));
        metrics = page(&run, "/metrics").lines().filter(valid).count();
        metrics == all
    });
    assert!(done, "{metrics} of {all} books are valid in /metrics");
    println!(
        "two restarts after a release: {all} of {all} books live in Redis, dashboard and metrics; epoch {epoch}"
    );
    drop(client);
    run.finish();
}

/// The demo's own summary, and what it leaves behind: the archive alone.
#[test]
fn a_demo_with_services_holds_them_against_its_journal() {
    let dir = RunDir::new("services");
    let place = PathBuf::from(format!("/var/tmp/tandem-services-{}", std::process::id()));
    let said = Command::new(dir.program())
        .args(["demo", "--for", "8s", "--json", "--with-services", "--services-dir"])
        .arg(&place)
        .arg("--dir")
        .arg(dir.path().join("run"))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    if err.contains("is not installed") {
        println!("SKIPPED: {err}");
        return;
    }
    let left: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    let _ = fs::remove_dir_all(&place);
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    let report: serde_json::Value =
        serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap();
    let found = &report["services"];
    assert!(said.status.success(), "{err}{found}");
    assert!(err.contains("psql ") && err.contains("redis-cli "), "{err}");
    assert!(err.contains("the dashboard is at http://"), "{err}");
    let seq = found["journal_seq"].as_u64().unwrap();
    assert!(10_000 < seq, "{found}");
    assert_eq!(found["postgres"]["equal"], true);
    assert_eq!(found["postgres"]["last_seq"], seq);
    assert_eq!(found["redis"]["equal"], found["redis"]["books"]);
    assert_eq!(found["archive"]["durable_seq"], seq);
    assert_eq!(found["archive"]["chain_verified"], true);
    assert_eq!(found["prometheus"]["up"], true);
    assert_eq!(left, [place.join("archive")], "every server's folder goes");
    println!("{found}");
}

/// A figure of a process's memory, KiB.
fn memory(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Row ST-01. An outage: memory does not grow with its length, and everything arrives afterwards.
#[test]
fn an_outage_costs_no_memory_and_no_row() {
    let Some(mut run) = Run::start("outage") else { return };
    let time = seconds("TANDEM_OUTAGE_S", 20);
    run.live.wait_orders(4, SOON);
    run.wait_caught_up();
    let pid = run.drain_pid();
    let first = run.live.engine(metric::JOURNAL_SEQ);
    println!(
        "before: {} KiB of its own, {} KiB in all",
        memory(pid, "RssAnon:"),
        memory(pid, "VmRSS:")
    );
    run.services.get().postgres.signal("-STOP");
    run.services.get().redis.signal("-STOP");
    let mut own = Vec::new();
    for step in 1..=10 {
        std::thread::sleep(time / 10);
        run.keep_armed();
        own.push(memory(pid, "RssAnon:"));
        println!(
            "after {:>5.0} s: {} KiB of its own, {} KiB in all, {} records behind",
            (time / 10 * step).as_secs_f64(),
            own[own.len() - 1],
            memory(pid, "VmRSS:"),
            run.live.engine(metric::JOURNAL_SEQ) - first
        );
    }
    assert_eq!(run.drain_pid(), pid, "it is still the same process");
    run.services.get().postgres.signal("-CONT");
    run.services.get().redis.signal("-CONT");
    let took = run.wait_caught_up();
    println!(
        "figure ST-01: outage of {} s: {} to {} KiB, caught up in {:.1} s; at the end {} KiB",
        time.as_secs(),
        own[0],
        own[9],
        took.as_secs_f64(),
        memory(pid, "RssAnon:")
    );
    run.finish();
    // What is held: a batch or two, and the newest opportunities for Redis. How long it lasts changes nothing.
    let most = own.iter().max().unwrap();
    assert!(*most < own[0] + 49_152 && *most < 262_144, "memory in an outage: {own:?} KiB");
}
