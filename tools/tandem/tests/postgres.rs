//! The journal in a real PostgreSQL: every row once, in order, whatever happens to the drain or to the server;
//! hostile texts are texts; rights are the least; trouble is told. The journal is a real one, of a short demo.
//!
//! Counts are taken a second time from the records' raw words, by code that shares nothing with the drain's.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/postgres.rs"]
mod pg;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pg::Server;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use support::{RunDir, signal, wait_for};
use tandem_core::record::{Kind, Record};
use tandem_drain::rows::{Projector, Row, Table};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, JournalSpec, JournalWriter, tsc};
use tandem_tools::services::count::Counter;
use tandem_tools::table::run_info;

const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");

/// The records of a short live demo; `TANDEM_TEST_JOURNAL` names another journal.
fn records() -> &'static [Record] {
    static RECORDS: OnceLock<Vec<Record>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        if let Some(place) = std::env::var_os("TANDEM_TEST_JOURNAL") {
            return read(Path::new(&place));
        }
        let dir = RunDir::new("pg-demo");
        let run = dir.path().join("run");
        let said = Command::new(dir.program())
            .args(["demo", "--for", "8s", "--seed", "7", "--json", "--dir"])
            .arg(&run)
            .output()
            .unwrap();
        let records = read(&run.join("journal"));
        let fills = records.iter().filter(|record| record.kind() == Some(Kind::OrderFill)).count();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(10 < fills, "the demo traded: {fills} fills, {} records: {said}", records.len());
        records
    })
}

/// About the first `count` records. They end with one of the market: the cursor stays before an opportunity that
/// is told by half.
fn first(count: usize) -> &'static [Record] {
    let market = |record: &Record| record.kind() == Some(Kind::Level);
    let last = records()[..count].iter().rposition(market).expect("a record of the market");
    &records()[..=last]
}

fn read(journal: &Path) -> Vec<Record> {
    let mut reader = JournalReader::<Record>::open(journal, record_schema()).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

/// A run's directory with a journal, and the drain that follows it.
struct Run {
    dir: RunDir,
    config: PathBuf,
    writer: Option<JournalWriter<Record>>,
}

impl Run {
    fn new(test: &str, section: &str) -> Run {
        let dir = RunDir::new(test);
        let run = dir.path().join("run");
        fs::create_dir_all(&run).unwrap();
        let text = SAMPLE.replacen("/dev/shm/tandem", &run.display().to_string(), 1).replacen(
            "/var/lib/tandem",
            &dir.path().join("state").display().to_string(),
            1,
        );
        let config = dir.path().join("tandem.toml");
        fs::write(&config, format!("{text}\n{section}")).unwrap();
        let spec = JournalSpec {
            segment_bytes: 8 << 20,
            segments_max: 64,
            ..JournalSpec::new(record_schema())
        };
        let writer = JournalWriter::create(&run.join("journal"), &spec).unwrap();
        Run { dir, config, writer: Some(writer) }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("run/journal")
    }

    fn append(&mut self, records: &[Record]) {
        let writer = self.writer.as_mut().unwrap();
        append(writer, records);
    }

    fn next_seq(&self) -> u64 {
        self.writer.as_ref().unwrap().next_seq()
    }

    fn drain(&self) -> Drain {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("drain.log"))
            .unwrap();
        let child = Command::new(self.dir.program())
            .args(["drain", "--config"])
            .arg(&self.config)
            .env("TANDEM_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Drain(child)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("drain.log")).unwrap_or_default()
    }

    fn say(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new(self.dir.program())
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
        (output.status.code().unwrap_or(-1), text.concat())
    }
}

fn append(writer: &mut JournalWriter<Record>, records: &[Record]) {
    for record in records {
        let until = Instant::now() + Duration::from_secs(30);
        // The helper makes segments ahead; on a busy host it may be late.
        while writer.append(record).is_err() {
            assert!(Instant::now() < until, "no room");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    writer.beat(tsc());
}

struct Drain(Child);

impl Drain {
    fn kill(&mut self) {
        signal(self.0.id(), 9);
        self.0.wait().unwrap();
    }

    /// Memory of its own: segments of the journal that it has mapped are everybody's.
    fn rss_kib(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap().count()
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if self.0.try_wait().ok().flatten().is_some() {
            return;
        }
        signal(self.0.id(), 15);
        let _ = wait_for(Duration::from_secs(10), || self.0.try_wait().ok().flatten().is_some());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `[postgres]` over the server's socket, with short times.
fn socket(server: &Server, more: &str) -> String {
    format!(
        "[postgres]\nhost = \"{}\"\nport = {}\ndatabase = \"postgres\"\nuser = \"writer\"\n\
         owner_user = \"postgres\"\nconnect_timeout_ms = 1000\nstatement_timeout_ms = 2000\n\
         backoff_max_ms = 500\nbatch_ms = 50\n{more}\n",
        server.dir.display(),
        server.port
    )
}

/// Makes the schema and a role that may only do what the drain needs.
fn prepare(server: &Server, run: &Run) {
    let (code, said) = run.say(&["postgres", "migrate"]);
    assert_eq!(code, 0, "{said}");
    let sql = "DO $$ BEGIN CREATE ROLE writer LOGIN PASSWORD 'c4n4ry-pass'; EXCEPTION WHEN duplicate_object \
        THEN NULL; END $$; GRANT tandem_drain TO writer";
    server.client("postgres").batch_execute(sql).unwrap();
}

fn cursor(client: &mut postgres::Client, stream: &str) -> u64 {
    let row = client.query_opt("SELECT next_seq FROM drain_cursor WHERE stream = $1", &[&stream]);
    row.unwrap().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned())
}

fn wait_drained(server: &Server, run: &Run, within: Duration) {
    let wanted = run.next_seq();
    let mut client = server.client("postgres");
    let done = wait_for(within, || cursor(&mut client, "main") == wanted);
    let at = cursor(&mut client, "main");
    assert!(done, "drained to {at} of {wanted}: {}", run.log());
}

fn count(client: &mut postgres::Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
}

/// What the tables must hold, from raw words.
fn expected(records: &[Record]) -> BTreeMap<&'static str, i64> {
    let mut counter = Counter::default();
    records.iter().for_each(|record| counter.take(record));
    counter.rows()
}

/// Compares every table's count with the journal's; prints them.
fn compare(client: &mut postgres::Client, wanted: &BTreeMap<&'static str, i64>) {
    let mut text = String::new();
    let mut wrong = Vec::new();
    for table in Table::ALL.into_iter().filter(|table| *table != Table::LatencyIntervals) {
        let (found, wanted) =
            (count(client, table.name()), wanted.get(table.name()).copied().unwrap_or(0));
        text.push_str(&format!("{} {found} ", table.name()));
        if found != wanted {
            wrong.push(format!("{}: {found}, the journal says {wanted}", table.name()));
        }
    }
    println!("rows by table: {text}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Rows of the tables that only grow came in the order of the journal: each transaction's are all later than
/// those of the one before.
fn check_order(client: &mut postgres::Client) {
    for table in Table::ALL.into_iter().filter(|table| !table.changes()) {
        let sql = format!(
            "SELECT count(*) FROM (SELECT min(seq) AS lowest, lag(max(seq)) OVER (ORDER BY xmin::text::bigint) \
             AS before FROM {} GROUP BY xmin, journal) AS transactions WHERE lowest < before",
            table.name()
        );
        let backwards: i64 = client.query_one(&sql, &[]).unwrap().get(0);
        assert_eq!(backwards, 0, "{} is out of order", table.name());
    }
}

/// One line a table: a digest over every row, whatever order they stand in.
fn digests(client: &mut postgres::Client) -> BTreeMap<&'static str, String> {
    let tables = Table::ALL
        .into_iter()
        .filter(|table| !matches!(table, Table::Journals | Table::LatencyIntervals));
    tables
        .map(|table| {
            let name = table.name();
            let sql = format!(
                "SELECT count(*)::text || ' ' || md5(coalesce(string_agg(t, '' ORDER BY t), '')) \
                 FROM (SELECT {name}::text AS t FROM {name}) AS rows"
            );
            (name, client.query_one(&sql, &[]).unwrap().get(0))
        })
        .collect()
}

/// A second database of the same server, filled in one go by a drain that nobody disturbs.
fn undisturbed(server: &Server, run: &Run) -> BTreeMap<&'static str, String> {
    let mut client = server.client("postgres");
    client.batch_execute("DROP DATABASE IF EXISTS calm").unwrap();
    client.batch_execute("CREATE DATABASE calm").unwrap();
    let text = fs::read_to_string(&run.config).unwrap();
    let calm = text.replacen("database = \"postgres\"", "database = \"calm\"", 1);
    fs::write(&run.config, calm).unwrap();
    prepare(server, run);
    let mut config = postgres::Config::new();
    config.host_path(&server.dir).port(server.port).user("postgres").dbname("calm");
    let mut client = config.connect(postgres::NoTls).unwrap();
    client.batch_execute("SET search_path = tandem").unwrap();
    let drain = run.drain();
    let wanted = run.next_seq();
    assert!(
        wait_for(Duration::from_secs(120), || cursor(&mut client, "main") == wanted),
        "{}",
        run.log()
    );
    drop(drain);
    fs::write(&run.config, text).unwrap();
    digests(&mut client)
}

/// Row ST-12. Row SEC-12. Counts by table, the role's rights, every shipped query, and a schema that changes meanwhile.
#[test]
fn counts_are_the_journals_and_rights_the_least() {
    let Some(server) = Server::start("counts") else { return };
    let mut run = Run::new("pg-counts", &socket(&server, ""));
    // Before the schema is there the drain says so and waits.
    let (code, said) = run.say(&["postgres", "check"]);
    assert_eq!(code, 1, "no such role yet: {said}");
    prepare(&server, &run);
    let (code, said) = run.say(&["postgres", "migrate", "--json"]);
    assert_eq!(
        (code, said.contains("\"applied\": 0") || said.contains("\"applied\":0")),
        (0, true),
        "{said}"
    );
    run.append(records());
    let drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(60));
    let mut client = server.client("postgres");
    compare(&mut client, &expected(&read(&run.journal())));
    check_order(&mut client);
    assert_eq!(count(&mut client, "dead_letter"), 0);
    money_is_exact(&mut client);
    let size = client
        .query_one("SELECT octet_length(state), octet_length(run_text) FROM drain_cursor", &[])
        .unwrap();
    println!(
        "the cursor's state: {} bytes, the run's text {}",
        size.get::<_, i32>(0),
        size.get::<_, i32>(1)
    );
    let (code, said) = run.say(&["postgres", "check", "--json"]);
    assert_eq!(code, 0, "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&report["ok"], &report["lag_records"]), (&true.into(), &0.into()), "{said}");
    assert_eq!(report["too_much"].as_array().unwrap().len(), 0, "{said}");
    rights_are_the_least(&server);
    queries_run_and_use_indexes(&mut client);
    // A schema that changes while the drain writes: nothing more is written.
    let before = digests(&mut client);
    let bump = "INSERT INTO schema_history SELECT max(version) + 1, 'next', applied_on, checksum \
        FROM (SELECT * FROM schema_history ORDER BY version DESC LIMIT 1) AS newest GROUP BY applied_on, checksum";
    client.batch_execute(bump).unwrap();
    run.append(first(5_000));
    assert!(
        wait_for(Duration::from_secs(20), || run
            .log()
            .contains("has version 2, this build writes version 1")),
        "{}",
        run.log()
    );
    assert_eq!(digests(&mut client), before, "nothing was written into another schema");
    let (code, said) = run.say(&["postgres", "check"]);
    assert_eq!((code, said.contains("run the newer tandem")), (1, true), "{said}");
    println!("figure ST-12: a schema that became newer meanwhile: rows written into it 0");
    client.batch_execute("DELETE FROM schema_history WHERE version = 2").unwrap();
    wait_drained(&server, &run, Duration::from_secs(30));
    drop(drain);
}

/// What the ledger holds is its own sum, and fills' numbers are those of the records, as text.
fn money_is_exact(client: &mut postgres::Client) {
    let sql = "SELECT count(*) FROM (SELECT delta, after, lag(after) OVER (PARTITION BY venue, asset ORDER BY seq) \
        AS before FROM ledger WHERE venue IS NOT NULL) AS l WHERE before IS NOT NULL AND before + delta <> after";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0, "every balance is the sum");
    let sql = "SELECT count(*) FROM (SELECT venue, asset, account, sum(delta) AS sum, count(*) AS n FROM ledger \
        GROUP BY 1, 2, 3) AS l FULL JOIN (SELECT venue, asset, account, sum(amount) AS sum, sum(postings) AS n \
        FROM pnl_venue_day GROUP BY 1, 2, 3) AS d ON coalesce(l.venue, 'none') = d.venue AND l.asset = d.asset \
        AND l.account = d.account WHERE l.sum IS DISTINCT FROM d.sum OR l.n IS DISTINCT FROM d.n";
    assert_eq!(
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0),
        0,
        "days are the postings' sums"
    );
    let told: i64 = client
        .query_one(
            "SELECT count(*) FROM opportunities o JOIN rounds r USING (journal, run, round) \
            WHERE o.verdict = 'taken'",
            &[],
        )
        .unwrap()
        .get(0);
    let taken = count(client, "opportunities WHERE verdict = 'taken'");
    assert!(0 < taken && taken == told, "{taken} taken, {told} with their round");
}

fn rights_are_the_least(server: &Server) {
    let mut owner = server.client("postgres");
    owner.batch_execute("CREATE SCHEMA other; CREATE TABLE other.secret (x int)").unwrap();
    let mut writer = server.client("writer");
    for (sql, why) in [
        ("DROP TABLE fills", "42501"),
        ("TRUNCATE fills", "42501"),
        ("DELETE FROM fills", "42501"),
        ("UPDATE ledger SET delta = 0", "42501"),
        ("UPDATE dead_letter SET error = ''", "42501"),
        ("ALTER TABLE fills ADD x int", "42501"),
        ("CREATE TABLE mine (x int)", "42501"),
        ("CREATE SCHEMA mine", "42501"),
        ("CREATE ROLE mine", "42501"),
        ("COPY fills TO PROGRAM 'true'", "42501"),
        ("COPY fills FROM PROGRAM 'echo'", "42501"),
        ("COPY fills TO '/tmp/tandem-copy'", "42501"),
        ("SELECT * FROM other.secret", "42501"),
        ("SELECT pg_read_file('/etc/passwd')", "42501"),
        ("SELECT drop_partitions(current_date)", "42501"),
        ("INSERT INTO schema_history VALUES (9, 'x', 'x', '1')", "42501"),
        ("SELECT ensure_partitions(current_date, 1000)", "P0001"),
        ("SELECT ensure_partitions(date '1970-01-01', 1)", "P0001"),
    ] {
        let error = writer.batch_execute(sql).expect_err(sql);
        assert_eq!(
            error.code().map(|code| code.code().to_owned()).as_deref(),
            Some(why),
            "{sql}: {error}"
        );
    }
    // What it may do it can: and a name that is looked for elsewhere does not lead the function astray.
    writer.batch_execute("CREATE TEMP TABLE pg_partitioned_table (partrelid oid)").unwrap();
    writer
        .batch_execute("CREATE TEMP TABLE pg_class (oid oid, relname text, relnamespace oid)")
        .unwrap();
    let made =
        writer.query_one("SELECT tandem.ensure_partitions(current_date + 5, 2)", &[]).unwrap();
    let tables = Table::ALL.into_iter().filter(|table| table.partitioned_by().is_some()).count();
    assert_eq!(made.get::<_, i32>(0), 2 * tables as i32);
    owner.batch_execute("SELECT drop_partitions(current_date - 30)").unwrap();
}

/// Every shipped query runs; those that are marked use an index.
fn queries_run_and_use_indexes(client: &mut postgres::Client) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sql/queries");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(8 <= names.len(), "{names:?}");
    client.batch_execute("ANALYZE").unwrap();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // As in psql, `:'name'` is given by whoever asks; the first line of the file says what to try.
        let mut sql = text.clone();
        for line in text.lines().filter_map(|line| line.strip_prefix("-- try ")) {
            let (key, value) = line.split_once(" = ").unwrap();
            sql = sql.replace(&format!(":'{key}'"), &format!("'{value}'"));
        }
        assert!(!sql.contains(":'"), "{name}: a parameter without a value to try");
        let rows = client.query(&sql, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let plan = client.query(&format!("EXPLAIN {sql}"), &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        client.batch_execute("SET enable_seqscan = off").unwrap();
        let forced = client.query(&format!("EXPLAIN {sql}"), &[]).unwrap();
        client.batch_execute("SET enable_seqscan = on").unwrap();
        let forced: String = forced.iter().map(|row| row.get::<_, String>(0) + "\n").collect();
        println!("{name}: {} rows; {}", rows.len(), plan.first().unwrap());
        if text.contains("-- uses an index") {
            // Small tables are scanned; that the index serves is seen where scanning is dear.
            assert!(forced.contains("Index"), "{name}: {forced}");
        }
        assert!(!rows.is_empty() || text.contains("-- may be empty"), "{name} finds nothing");
    }
}

#[test]
fn numerics_are_what_the_server_reads() {
    let Some(server) = Server::start("numeric") else { return };
    let run = Run::new("pg-numeric", &socket(&server, ""));
    prepare(&server, &run);
    let client = std::cell::RefCell::new(server.client("postgres"));
    // Through the drain's own encoder: rows of a table, copied as it copies them.
    let mut runner =
        TestRunner::new(Cases { cases: 40, failure_persistence: None, ..Cases::default() });
    let numbers = proptest::collection::vec((any::<i128>(), any::<i64>(), 0u8..=30), 1..50);
    runner
        .run(&numbers, |numbers| {
            let mut client = client.borrow_mut();
            let mut bytes = tandem_drain::postgres::wire::HEADER.to_vec();
            let mut wanted = Vec::new();
            for (at, (wide, narrow, exponent)) in numbers.iter().enumerate() {
                let quanta = if at % 2 == 0 { *wide } else { i128::from(*narrow) };
                bytes.extend(1i16.to_be_bytes());
                tandem_drain::postgres::wire::put_numeric(&mut bytes, quanta, *exponent);
                let width = usize::from(*exponent) + 1;
                let digits = format!("{:0width$}", quanta.unsigned_abs());
                let (whole, fraction) = digits.split_at(digits.len() - usize::from(*exponent));
                let sign = if quanta < 0 { "-" } else { "" };
                wanted.push(match exponent {
                    0 => format!("{sign}{whole}"),
                    _ => format!("{sign}{whole}.{fraction}"),
                });
            }
            bytes.extend(tandem_drain::postgres::wire::TRAILER);
            client
                .batch_execute(
                    "CREATE TEMP TABLE IF NOT EXISTS n (id serial, v numeric); TRUNCATE n",
                )
                .unwrap();
            let mut copy = client.copy_in("COPY n (v) FROM STDIN (FORMAT binary)").unwrap();
            copy.write_all(&bytes).unwrap();
            copy.finish().unwrap();
            let found: Vec<String> = client
                .query("SELECT v::text FROM n ORDER BY id", &[])
                .unwrap()
                .iter()
                .map(|r| r.get(0))
                .collect();
            prop_assert_eq!(found, wanted);
            Ok(())
        })
        .unwrap();
}

/// Row ST-08. Row SEC-12. Symbols of an enemy: what the server takes is there as it is, what it refuses is set aside.
#[test]
fn hostile_texts_are_texts_and_poison_is_set_aside() {
    let Some(server) = Server::start("hostile") else { return };
    let mut run = Run::new("pg-hostile", &socket(&server, ""));
    prepare(&server, &run);
    // The demo's configuration with symbols of an enemy.
    let mut text = Vec::new();
    let records = records();
    let config = records.iter().take_while(|record| record.kind() == Some(Kind::Config)).count();
    for record in &records[..config] {
        text.extend(record.data.into_iter().flat_map(i64::to_le_bytes));
    }
    text.truncate(records[0].update_id as usize);
    let mut setup: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let names = ["x'; DROP TABLE fills;--", "\\.\n\t\u{1F4A3}'';--", "nul\0nul"];
    let listings = setup["listings"].as_array_mut().unwrap();
    for (listing, name) in listings.iter_mut().zip(names) {
        listing["symbol"] = (*name).into();
    }
    let text = serde_json::to_vec(&setup).unwrap();
    let mut hostile: Vec<Record> = tandem_drain::run::ConfigText::payloads(&text)
        .map(|(data, flags, update_id)| Record {
            flags,
            update_id,
            ..Record::new(Kind::Config, 0, u16::MAX, data)
        })
        .collect();
    hostile.extend(&records[config..]);
    run.append(&hostile);
    let _drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(120));
    let mut client = server.client("postgres");
    for name in &names[..2] {
        let rows = client.query("SELECT * FROM instruments WHERE symbol = $1", &[name]).unwrap();
        assert_eq!(rows.len(), 1, "{name:?}");
    }
    let dead = client
        .query("SELECT table_name, seq, sqlstate, tries, payload FROM dead_letter", &[])
        .unwrap();
    let mut by_table: BTreeMap<String, i64> = BTreeMap::new();
    for row in &dead {
        assert_eq!((row.get::<_, String>(2).as_str(), row.get::<_, i16>(3)), ("22021", 3));
        let payload: serde_json::Value = serde_json::from_str(&row.get::<_, String>(4)).unwrap();
        assert!(payload.to_string().contains("nul\\u0000nul"), "{payload}");
        *by_table.entry(row.get(0)).or_default() += 1;
    }
    println!("figure ST-08: 3 hostile symbols, injections 0, stalls 0, dead letters {by_table:?}");
    assert_eq!(by_table.get("instruments"), Some(&1));
    // What is not in a table is a dead letter, and nothing is both.
    let wanted = expected(&read(&run.journal()));
    for table in Table::ALL.into_iter().filter(|t| !t.changes() && *t != Table::LatencyIntervals) {
        let there = count(&mut client, table.name());
        let dead = by_table.get(table.name()).copied().unwrap_or(0);
        assert_eq!(
            there + dead,
            wanted.get(table.name()).copied().unwrap_or(0),
            "{}",
            table.name()
        );
    }
    check_order(&mut client);
    assert!(run.log().contains("dead_letter"), "it is said");
}

/// Row ST-01. Row ST-07. The drain killed with -9 at any moment, and at last row for row what an undisturbed one
/// writes.
#[test]
fn kills_lose_nothing_and_double_nothing() {
    let Some(server) = Server::start("kills") else { return };
    let mut run = Run::new("pg-kills", &socket(&server, ""));
    prepare(&server, &run);
    // The demo is over before the first kill.
    records();
    let kills: u64 =
        std::env::var("TANDEM_DRAIN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    // The journal grows all the time, in pieces of any size.
    let stop = Arc::new(AtomicBool::new(false));
    let mut writer = run.writer.take().unwrap();
    let stopping = Arc::clone(&stop);
    let player = std::thread::spawn(move || {
        let records = records();
        let (mut at, mut seed, mut total) = (0, 1u64, 0usize);
        // No more than the journal holds.
        while !stopping.load(Ordering::Relaxed) && total < 3_000_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let end = (at + 1 + (seed >> 33) as usize % 400).min(records.len());
            append(&mut writer, &records[at..end]);
            total += end - at;
            at = end % records.len();
            std::thread::sleep(Duration::from_millis(8));
        }
        writer
    });
    let mut client = server.client("postgres");
    let (mut last, mut moved) = (0, 0);
    for kill in 0..kills {
        let mut drain = run.drain();
        // From before it connects to well within its batches.
        let wait_ms = (kill.wrapping_mul(2_654_435_761) >> 7) % 1_200;
        std::thread::sleep(Duration::from_millis(wait_ms));
        drain.kill();
        let now = cursor(&mut client, "main");
        assert!(last <= now, "the cursor never goes back");
        moved += u64::from(last < now);
        last = now;
    }
    stop.store(true, Ordering::Relaxed);
    run.writer = Some(player.join().unwrap());
    let _drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(120));
    assert!(kills / 4 <= moved, "most kills hit a drain at work: {moved} of {kills}");
    drop(_drain);
    check_order(&mut client);
    compare(&mut client, &expected(&read(&run.journal())));
    let disturbed = digests(&mut client);
    assert_eq!(
        disturbed,
        undisturbed(&server, &run),
        "row for row what an undisturbed drain writes"
    );
    println!(
        "figure ST-07: {kills} kills -9 of the drain, {moved} while its cursor moved, {} records: rows lost 0, \
         doubled 0, order kept",
        run.next_seq() - 1
    );
}

/// Between client and server: hands bytes on, and only so many a second where that is asked for.
struct Proxy {
    port: u16,
    /// Bytes a second; 0 is all there are.
    rate: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    fn new(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (rate, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (slow, over) = (Arc::clone(&rate), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let slow = Arc::clone(&slow);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            let rate = slow.load(Ordering::Relaxed);
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
        Proxy { port, rate, stop }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `[postgres]` over TLS, through a proxy, with a password from a closed file.
fn over_tls(server: &Server, port: u16, host: &str, ca: &str) -> String {
    let password = server.file("password");
    fs::write(&password, "c4n4ry-pass\n").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    format!(
        "[postgres]\nhost = \"{host}\"\nport = {port}\ndatabase = \"postgres\"\nuser = \"writer\"\n\
         password_file = \"{}\"\nca_file = \"{}\"\nconnect_timeout_ms = 1000\n\
         statement_timeout_ms = 2000\nbackoff_max_ms = 500\nbatch_ms = 50\n",
        password.display(),
        server.file(ca).display()
    )
}

/// Imposes trouble, lets the journal grow, sees that nothing is written, lifts it, and sees all of it there.
fn through(
    server: &Server,
    run: &mut Run,
    drain: &Drain,
    (name, told): (&str, &str),
    impose: impl FnOnce(),
    lift: impl FnOnce(),
) {
    let said = run.log().len();
    impose();
    run.append(records());
    let is_told = wait_for(Duration::from_secs(15), || run.log()[said..].contains(told));
    assert!(is_told, "{name}: `{told}` is not told: {}", &run.log()[said..]);
    std::thread::sleep(Duration::from_millis(500));
    let (rss, threads) = (drain.rss_kib(), drain.threads());
    let before = run.next_seq();
    lift();
    let began = Instant::now();
    wait_drained(server, run, Duration::from_secs(60));
    let took = began.elapsed();
    println!(
        "{name}: told, and all {} records there {took:?} after it ended; {rss} KiB, {threads} threads meanwhile",
        before - 1
    );
    assert!(threads <= 6, "{name}: {threads} threads");
}

/// Row ST-01. Stopped, hung, read-only, locked, full, slow: nothing is lost, doubled, or piles up.
#[test]
fn a_server_in_trouble_costs_time_alone() {
    let Some(server) = Server::start("trouble") else { return };
    let proxy = Proxy::new(server.port);
    let plain = socket(&server, "");
    let mut run = Run::new("pg-trouble", &plain);
    prepare(&server, &run);
    // From here on over TLS, through the proxy.
    let text = fs::read_to_string(&run.config).unwrap();
    let with = |section: &str| fs::write(&run.config, text.replace(&plain, section)).unwrap();
    for (host, ca, told) in [
        ("127.0.0.1", "ca.pem", "not valid for name"),
        ("localhost", "server.pem", "invalid peer certificate"),
    ] {
        with(&over_tls(&server, proxy.port, host, ca));
        let (code, said) = run.say(&["postgres", "check"]);
        assert!(code == 3 && said.contains(told), "{host} {ca}: {code} {said}");
    }
    with(&over_tls(&server, proxy.port, "localhost", "ca.pem"));
    let (code, said) = run.say(&["postgres", "check", "--json"]);
    assert!(code == 0 && said.contains("\"encrypted\":true"), "{code} {said}");
    run.append(records());
    let drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(60));

    through(
        &server,
        &mut run,
        &drain,
        ("stopped", "state=\"down\""),
        || server.down(),
        || server.up(),
    );
    let stop = || server.signal("-STOP");
    through(&server, &mut run, &drain, ("hung", "did not answer"), stop, || server.signal("-CONT"));
    let set = |sql: &str| {
        let mut owner = server.client("postgres");
        owner.batch_execute("SET default_transaction_read_only = off").unwrap();
        sql.split(';').for_each(|sql| owner.batch_execute(sql).unwrap());
    };
    let on = || set("ALTER SYSTEM SET default_transaction_read_only = on;SELECT pg_reload_conf()");
    let off = || set("ALTER SYSTEM RESET default_transaction_read_only;SELECT pg_reload_conf()");
    through(&server, &mut run, &drain, ("read-only", "25006"), on, off);
    let mut locker = server.client("postgres");
    let mut holder = server.client("postgres");
    let lock =
        || locker.batch_execute("BEGIN; LOCK TABLE order_events IN ACCESS EXCLUSIVE MODE").unwrap();
    let unlock = || {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'order_events'::regclass \
            AND mode = 'AccessExclusiveLock' AND granted";
        holder.batch_execute(sql).unwrap();
    };
    through(&server, &mut run, &drain, ("locked", "lock timeout"), lock, unlock);
    full(&server, &mut run, &drain);
    // Slow: a trickle, which is enough for small batches and never for the whole.
    proxy.rate.store(100_000, Ordering::Relaxed);
    run.append(first(20_000));
    let began = Instant::now();
    let mut client = server.client("postgres");
    let at = cursor(&mut client, "main");
    assert!(
        wait_for(Duration::from_secs(60), || at < cursor(&mut client, "main")),
        "{}",
        run.log()
    );
    let moved = began.elapsed();
    proxy.rate.store(0, Ordering::Relaxed);
    wait_drained(&server, &run, Duration::from_secs(60));
    println!("slow, 100 kB/s: the cursor moved after {moved:?}");

    drop(drain);
    compare(&mut client, &expected(&read(&run.journal())));
    check_order(&mut client);
    let disturbed = digests(&mut client);
    assert!(!run.log().contains("c4n4ry-pass"), "no password is told");
    fs::write(&run.config, &text).unwrap();
    assert_eq!(
        disturbed,
        undisturbed(&server, &run),
        "row for row what an undisturbed drain writes"
    );
    println!(
        "figure ST-01: stopped, hung, read-only, locked, full, slow: rows lost 0, doubled 0, order kept"
    );
}

/// A table on a disk of its own that is full.
fn full(server: &Server, run: &mut Run, drain: &Drain) {
    let place = server.file("tiny");
    fs::create_dir_all(&place).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs"])
        .arg(&place)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("SKIPPED: a full disk; mounting one takes root");
        return;
    }
    let _unmount = Unmount(place.clone());
    let location = place.join("space");
    fs::create_dir_all(&location).unwrap();
    assert!(Command::new("chown").arg("postgres").arg(&location).status().unwrap().success());
    let mut owner = server.client("postgres");
    for sql in [
        &format!("CREATE TABLESPACE tiny LOCATION '{}'", location.display()),
        "ALTER TABLE round_stages SET TABLESPACE tiny",
        "CREATE TABLE public.filler (t text) TABLESPACE tiny",
    ] {
        owner.batch_execute(sql).unwrap();
    }
    let fill = || {
        let mut owner = server.client("postgres");
        // Ever smaller pieces, until not a page is left.
        for rows in [1_000, 100, 10, 1] {
            let sql = format!(
                "INSERT INTO public.filler SELECT repeat('x', 1900) FROM generate_series(1, {rows})"
            );
            while owner.batch_execute(&sql).is_ok() {}
        }
    };
    let empty = || {
        let mut owner = server.client("postgres");
        owner.batch_execute("DROP TABLE public.filler").unwrap();
        owner.batch_execute("CHECKPOINT").unwrap();
    };
    through(server, run, drain, ("full", "53100"), fill, empty);
    let mut owner = server.client("postgres");
    owner.batch_execute("ALTER TABLE round_stages SET TABLESPACE pg_default").unwrap();
    owner.batch_execute("DROP TABLESPACE tiny").unwrap();
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn rows_a_second_beside_plain_copy_and_memory_in_an_outage() {
    let Some(server) = Server::start("rate") else { return };
    let mut run = Run::new("pg-rate", &socket(&server, ""));
    prepare(&server, &run);
    let times = std::env::var("TANDEM_DRAIN_TIMES").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    run.append(first(20_000));
    let drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(60));
    server.down();
    run.append(&of_another_run(0));
    std::thread::sleep(Duration::from_secs(3));
    let before = drain.rss_kib();
    for again in 1..=times {
        run.append(&of_another_run(again));
    }
    std::thread::sleep(Duration::from_secs(3));
    let after = drain.rss_kib();
    println!(
        "an outage of {} records: {before} KiB at its start, {after} KiB later",
        run.next_seq()
    );
    // A batch or two were under way; how long it lasts changes nothing.
    assert!(
        after < before + 8_192 && after < 131_072,
        "memory in an outage: {before} to {after} KiB"
    );
    server.up();
    let mut client = server.client("postgres");
    // From the first batch on: how long the pause between two tries was is chance.
    let was = cursor(&mut client, "main");
    assert!(
        wait_for(Duration::from_secs(30), || was < cursor(&mut client, "main")),
        "{}",
        run.log()
    );
    let (records_before, rows_before) = (cursor(&mut client, "main"), rows_in(&mut client));
    let began = Instant::now();
    wait_drained(&server, &run, Duration::from_secs(300));
    let took = began.elapsed().as_secs_f64();
    let rows = rows_in(&mut client) - rows_before;
    let records_s = (run.next_seq() - records_before) as f64 / took;
    let ends: Vec<i64> = records().iter().map(|r| r.engine_ts_ns).filter(|ns| *ns != 0).collect();
    let span_s = (ends[ends.len() - 1] - ends[0]) as f64 / 1e9;
    let live_s = records().len() as f64 / span_s;
    println!(
        "catch-up: {records_s:.0} records/s, {:.0} rows/s; a demo makes {live_s:.0} records/s: {:.0} times live",
        rows as f64 / took,
        records_s / live_s,
    );
    println!("peak while catching up: {} KiB", drain.rss_kib());
    drop(drain);
    // The same rows by psql, into the same tables of another database.
    let files = server.file("rows");
    fs::create_dir_all(&files).unwrap();
    assert!(Command::new("chown").arg("postgres").arg(&files).status().unwrap().success());
    let mut script = String::new();
    let total = rows_in(&mut client);
    for table in Table::ALL {
        let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
        let (name, names) = (table.name(), names.join(", "));
        let file = files.join(name).display().to_string();
        client.batch_execute(&format!("COPY (SELECT {names} FROM {name}) TO '{file}'")).unwrap();
        script.push_str(&format!("\\copy tandem.{name} ({names}) from '{file}'\n"));
    }
    let file = files.join("script");
    fs::write(&file, script).unwrap();
    let text = fs::read_to_string(&run.config).unwrap();
    client.batch_execute("CREATE DATABASE plain").unwrap();
    fs::write(&run.config, text.replacen("database = \"postgres\"", "database = \"plain\"", 1))
        .unwrap();
    prepare(&server, &run);
    let mut config = postgres::Config::new();
    config.host_path(&server.dir).port(server.port).user("postgres").dbname("plain");
    let mut plain = config.connect(postgres::NoTls).unwrap();
    plain
        .batch_execute("SET search_path = tandem; SELECT ensure_partitions(current_date, 3)")
        .unwrap();
    let began = Instant::now();
    let status = Command::new("psql")
        .args(["-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "plain", "-h"])
        .arg(&server.dir)
        .args(["-p", &server.port.to_string(), "-f"])
        .arg(&file)
        .status()
        .unwrap();
    let copy = began.elapsed().as_secs_f64();
    assert!(status.success() && rows_in(&mut plain) == total);
    let (ours, theirs) = (rows as f64 / took, total as f64 / copy);
    println!(
        "psql \\copy of the same rows: {theirs:.0} rows/s; ours has {:.2} of it",
        ours / theirs
    );
}

/// The same records as those of a run of their own: rows of their own, and only records that make rows.
fn of_another_run(again: u64) -> Vec<Record> {
    let records = records();
    let config = records.iter().take_while(|record| record.kind() == Some(Kind::Config)).count();
    let mut text: Vec<u8> = records[..config]
        .iter()
        .flat_map(|r| r.data.into_iter().flat_map(i64::to_le_bytes))
        .collect();
    text.truncate(records[0].update_id as usize);
    let mut setup: serde_json::Value = serde_json::from_slice(&text).unwrap();
    setup["run"] = (setup["run"].as_u64().unwrap() + again).into();
    let text = serde_json::to_vec(&setup).unwrap();
    let mut told: Vec<Record> = tandem_drain::run::ConfigText::payloads(&text)
        .map(|(data, flags, update_id)| Record {
            flags,
            update_id,
            ..Record::new(Kind::Config, 0, u16::MAX, data)
        })
        .collect();
    let silent =
        [Kind::Level, Kind::Bbo, Kind::Clear, Kind::Beat, Kind::Timer, Kind::Peer, Kind::Session];
    let makes_rows = |record: &&Record| record.kind().is_some_and(|kind| !silent.contains(&kind));
    told.extend(records[config..].iter().filter(makes_rows).map(|record| {
        let is_fill = matches!(record.kind(), Some(Kind::OrderFill | Kind::OrderBust));
        Record {
            run: if record.run == 0 { 0 } else { record.run + again as u32 },
            update_id: if is_fill { record.update_id ^ again << 48 } else { record.update_id },
            ..*record
        }
    }));
    told
}

fn rows_in(client: &mut postgres::Client) -> i64 {
    Table::ALL.into_iter().map(|table| count(client, table.name())).sum()
}

/// Projects records that are cut into pieces, each by a projector that was loaded from what the last one saved.
fn in_pieces(records: &[Record], mut cut: impl FnMut() -> usize) -> Vec<Row> {
    let mut projector = Projector::new(7, run_info);
    let (mut rows, mut at) = (Vec::new(), 0);
    while at < records.len() {
        let end = (at + cut()).min(records.len());
        records[at..end].iter().for_each(|record| projector.take(record, &mut rows));
        at = end;
        if at < records.len() {
            let text = projector.run().map_or(String::new(), |run| run.text.clone());
            let resume = projector.resume_from();
            projector = Projector::load(7, run_info, &text, &projector.save()).unwrap();
            // A group that was half taken is given again.
            at = resume
                .map_or(at, |seq| records.iter().position(|record| record.seq == seq).unwrap());
            if resume.is_some() {
                let half: Vec<Record> = records[at..end].to_vec();
                half.iter().for_each(|record| projector.take(record, &mut rows));
                at = end;
            }
        }
    }
    rows
}

#[test]
fn rows_do_not_depend_on_where_it_stopped() {
    let dir = RunDir::new("pg-rows");
    let spec = JournalSpec { segment_bytes: 32 << 20, ..JournalSpec::new(record_schema()) };
    let mut writer = JournalWriter::create(&dir.path().join("journal"), &spec).unwrap();
    append(&mut writer, records());
    // Numbered, as a journal numbers them.
    let records = read(&dir.path().join("journal"));
    let whole = in_pieces(&records, || usize::MAX / 2);
    assert!(5_000 < whole.len(), "{} rows", whole.len());
    for seed in 1..=3u64 {
        let mut random = seed;
        let pieces = in_pieces(&records, || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            1 + (random >> 40) as usize % 900
        });
        assert!(whole == pieces, "seed {seed}: other rows");
    }
    for row in &whole {
        let mut out = Vec::new();
        tandem_drain::postgres::wire::put_row(&mut out, row).unwrap();
    }
}

#[test]
fn no_record_is_trouble() {
    let config = records().iter().take_while(|record| record.kind() == Some(Kind::Config)).count();
    let mut runner =
        TestRunner::new(Cases { cases: 300, failure_persistence: None, ..Cases::default() });
    let small = prop_oneof![any::<i64>(), -3i64..70];
    let word =
        (small, any::<[i64; 3]>(), any::<[u8; 4]>(), 0u16..40, any::<u64>(), any::<[i64; 2]>());
    let real = 0usize..records().len();
    runner
        .run(&proptest::collection::vec((word, real, any::<bool>()), 1..60), |words| {
            let mut projector = Projector::new(7, run_info);
            let mut rows = Vec::new();
            records()[..config].iter().for_each(|record| projector.take(record, &mut rows));
            for ((a, rest, [kind, flags, venue, part], instrument, update_id, times), at, bent) in
                words
            {
                // Half of them are real records with some words bent.
                let base = records()[at];
                let record = match bent {
                    true => Record { data: [base.data[0], a, rest[1], base.data[3]], ..base },
                    false => Record {
                        kind,
                        flags,
                        venue: venue % 5,
                        part: part % 8,
                        instrument,
                        update_id,
                        asset: instrument,
                        data: [a, rest[0], rest[1], rest[2]],
                        engine_ts_ns: times[0],
                        venue_ts_ns: times[1],
                        ..Record::default()
                    },
                };
                projector.take(&record, &mut rows);
            }
            for row in &rows {
                let mut out = Vec::new();
                prop_assert!(
                    tandem_drain::postgres::wire::put_row(&mut out, row).is_ok(),
                    "{row:?}"
                );
            }
            let text = projector.run().map_or(String::new(), |run| run.text.clone());
            prop_assert!(Projector::load(7, run_info, &text, &projector.save()).is_ok());
            Ok(())
        })
        .unwrap();
}

/// Columns of every table as the database has them: type and whether they may be empty.
fn of_the_database(client: &mut postgres::Client) -> BTreeMap<(String, String), (String, bool)> {
    let sql = "SELECT c.table_name, c.column_name, c.udt_name, c.is_nullable = 'YES' \
        FROM information_schema.columns c JOIN pg_class t ON t.relname = c.table_name \
          AND t.relnamespace = 'tandem'::regnamespace \
        WHERE c.table_schema = 'tandem' AND t.relkind IN ('r', 'p') AND NOT t.relispartition \
          AND c.table_name <> 'schema_history'";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|r| ((r.get(0), r.get(1)), (r.get(2), r.get(3)))).collect()
}

/// The same as `schema.prisma` says it.
fn of_prisma(text: &str) -> BTreeMap<(String, String), (String, bool)> {
    let mut found = BTreeMap::new();
    let mut fields: Vec<(String, String, bool)> = Vec::new();
    // What comes before the first model says how the client is made.
    for line in text.lines().map(str::trim).skip_while(|line| !line.starts_with("model ")) {
        if line.starts_with("model ") {
            fields.clear();
        } else if let Some(name) = line.strip_prefix("@@map(\"") {
            let table = name.trim_end_matches("\")");
            for (field, kind, nullable) in fields.drain(..) {
                found.insert((table.to_owned(), field), (kind, nullable));
            }
        } else if !line.is_empty() && !line.starts_with(['@', '/', '}']) {
            let mut words = line.split_whitespace();
            let (Some(field), Some(kind)) = (words.next(), words.next()) else { continue };
            let native = line.split("@db.").nth(1).and_then(|rest| rest.split_whitespace().next());
            let base = kind.trim_end_matches('?');
            let udt = match (base, native) {
                ("String", Some("Uuid")) => "uuid",
                ("String", None) => "text",
                ("Bytes", None) => "bytea",
                ("BigInt", None) => "int8",
                ("Int", None) => "int4",
                ("Int", Some("SmallInt")) => "int2",
                ("Boolean", None) => "bool",
                ("Decimal", Some("Decimal")) => "numeric",
                ("DateTime", Some("Timestamptz(6)")) => "timestamptz",
                ("DateTime", Some("Date")) => "date",
                ("Json", None) => "jsonb",
                other => panic!("{line}: {other:?}"),
            };
            fields.push((field.to_owned(), udt.to_owned(), kind.ends_with('?')));
        }
    }
    found
}

#[test]
fn code_migrations_and_prisma_say_the_same() {
    let Some(server) = Server::start("drift") else { return };
    // This time the drain itself makes the schema, with roles that an operator made before.
    let mut run = Run::new("pg-drift", &socket(&server, "migrate = true"));
    let mut client = server.client("postgres");
    let roles = "CREATE ROLE tandem_drain; CREATE ROLE tandem_read; CREATE ROLE writer LOGIN; \
        GRANT tandem_drain TO writer";
    client.batch_execute(roles).unwrap();
    run.append(first(2_000));
    let _drain = run.drain();
    let sql = "SELECT to_regclass('tandem.drain_cursor') IS NOT NULL";
    let mut is_made = || client.query_one(sql, &[]).unwrap().get::<_, bool>(0);
    assert!(wait_for(Duration::from_secs(30), &mut is_made), "{}", run.log());
    wait_drained(&server, &run, Duration::from_secs(30));
    let database = of_the_database(&mut server.client("postgres"));
    let prisma = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prisma/schema.prisma");
    assert_eq!(of_prisma(&fs::read_to_string(prisma).unwrap()), database);
    let mut told = 0;
    for table in Table::ALL {
        for column in table.columns() {
            let udt = format!("{:?}", column.kind).to_lowercase();
            let udt = match udt.as_str() {
                "time" => "timestamptz",
                "json" => "jsonb",
                other => other,
            };
            let key = (table.name().to_owned(), column.name.to_owned());
            assert_eq!(database.get(&key), Some(&(udt.to_owned(), column.nullable)), "{key:?}");
            told += 1;
        }
    }
    // The database's own: the verdict that it computes, dead letters, the cursor.
    assert_eq!(database.len(), told + 1 + 9 + 7);
}

/// The client that `deploy/prisma` generates, in TypeScript, against a database of a real run.
#[test]
fn a_prisma_client_reads_what_was_written() {
    let quiet = |command: &mut Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if !quiet(Command::new("npm").arg("--version")) {
        eprintln!("SKIPPED: no npm; Debian's package npm has it");
        return;
    }
    let Some(server) = Server::start("prisma") else { return };
    let mut run = Run::new("pg-prisma", &socket(&server, ""));
    prepare(&server, &run);
    run.append(records());
    let _drain = run.drain();
    wait_drained(&server, &run, Duration::from_secs(60));
    let sql = "CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT tandem_read TO reader";
    server.client("postgres").batch_execute(sql).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prisma");
    let folder = server.file("prisma");
    fs::create_dir_all(&folder).unwrap();
    for name in ["package.json", "prisma.config.ts", "schema.prisma", "read.ts"] {
        fs::copy(source.join(name), folder.join(name)).unwrap();
    }
    let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"];
    if !quiet(Command::new("npm").args(install).current_dir(&folder)) {
        eprintln!("SKIPPED: npm cannot install Prisma: no registry");
        return;
    }
    let engine = folder.join("no-engine");
    fs::write(&engine, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&engine, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let prisma = |words: &[&str]| {
        let output = Command::new(folder.join("node_modules/.bin/prisma"))
            .args(words)
            .current_dir(&folder)
            .env("PRISMA_SCHEMA_ENGINE_BINARY", &engine)
            .env("CHECKPOINT_DISABLE", "1")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned());
        assert!(output.status.success(), "prisma {words:?}: {}", text.concat());
    };
    prisma(&["validate"]);
    prisma(&["generate"]);
    let url = format!(
        "postgresql://reader@localhost:{}/postgres?host={}",
        server.port,
        server.dir.display()
    );
    let output = Command::new(folder.join("node_modules/.bin/tsx"))
        .arg("read.ts")
        .current_dir(&folder)
        .env("DATABASE_URL", url)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let mut client = server.client("postgres");
    let counted: i64 = report["opportunities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["count"].as_i64().unwrap())
        .sum();
    assert_eq!(counted, count(&mut client, "opportunities"));
    assert_eq!(report["fills"]["count"].as_i64(), Some(count(&mut client, "fills")));
    let sql = "SELECT realised::text FROM pnl_day ORDER BY day DESC LIMIT 1";
    let realised: String = client.query_one(sql, &[]).unwrap().get(0);
    let told = report["pnl"][0]["realised"].as_str().unwrap();
    assert_eq!(told, realised.trim_end_matches('0').trim_end_matches('.'), "{report}");
    println!("prisma: {report}");
}
