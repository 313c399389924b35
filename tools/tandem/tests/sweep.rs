//! Sweeps: killed at any moment, spread over shards, with runs that fail and lines that are damaged.
//!
//! Proven here: a run that ended is never made again and none is lost, whenever the process is killed; shards
//! merge to the bytes of the sweep in one place; what does not belong together is refused by name.
//!
//! Most tests use a stand-in for the backtest, cheap and a function of its job alone, so that thousands of runs
//! are made; what a backtest finds is no matter of these. The last ones run the binary over a journal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Row;
use serde_json::{Value, json};
use tandem_backtest::config::Config;
use tandem_backtest::outcome::{self, Unit};
use tandem_backtest::{Outcome, Summary};
use tandem_core::record::Record;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, JournalSpec, JournalWriter};
use tandem_tools::reports::period::DAY_NS;
use tandem_tools::sweep::data::Data;
use tandem_tools::sweep::grid::{Grid, Job};
use tandem_tools::sweep::runs::{self, Plan, Shard};
use tandem_tools::sweep::{self, Options, Report, merge};

/// A directory in shared memory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/dev/shm/tandem-sweep-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two shares, five edges, two entries, two days, 25 seeds: 1,000 runs.
const GRID: &str = r#"
    seeds = { from = 1, count = 25 }
    by_day = true
    [grid]
    "competition.share_ppm" = [0, 500000]
    "engine.edge_min_ppm" = [20, 50, 100, 200, 500]
    "venue.binance.entry" = [{ model = "constant", us = 1000 }, { model = "constant", us = 5000 }]
"#;

fn plan(grid: &str) -> Plan {
    let days = ["2026-01-01", "2026-01-02"].map(str::to_owned).to_vec();
    let of_path = vec![days.clone()];
    let data = Data { digest: "d".repeat(64), records: 7, from_ns: 1, to_ns: 9, days, of_path };
    let mut grid = Grid::parse(grid).unwrap();
    if grid.by_day {
        grid.days.clone_from(&data.days);
    }
    Plan { base: Config::default(), grid, data }
}

/// A backtest's stand-in: an outcome made of what the job says and of nothing else.
fn stand_in(job: &Job) -> Result<Outcome, String> {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&job.config).unwrap().hash(&mut hasher);
    (&job.day, job.index).hash(&mut hasher);
    let found = hasher.finish();
    let outcome = Outcome {
        format: outcome::FORMAT,
        config: job.config.clone(),
        data: outcome::Data { records: 7, from_ns: 1, to_ns: 9, ..outcome::Data::default() },
        numeraire: Unit { name: "USD".to_owned(), exponent: 8 },
        assets: Default::default(),
        summary: Summary {
            seed: job.config.seed,
            is_conserved: true,
            digest: format!("{found:016x}"),
            pnl: found as i64,
            fills: found % 1_000,
            ..Summary::default()
        },
        ..Outcome::default()
    };
    Ok(outcome)
}

fn options(out: &Path, shard: Shard, jobs: usize) -> Options {
    Options { out: out.to_owned(), shard, jobs, retry_failed: false }
}

fn sweep_all(plan: &Plan, out: &Path) -> Report {
    let all = options(out, Shard::ALL, 2);
    sweep::run(plan, &all, &AtomicBool::new(false), stand_in).unwrap()
}

fn rows(path: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

fn cell(row: &Row, name: &str) -> String {
    let found = row.get_column_iter().find(|(column, _)| *column == name);
    found.unwrap_or_else(|| panic!("no column {name}")).1.to_string()
}

/// What a file of runs tells, line by line: `begun` or `ended`, with the run.
fn story(path: &Path) -> Vec<(String, u64)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip(1).map(|line| {
        let json: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
        let (what, value) = json.as_object().unwrap().iter().next().unwrap();
        let job = value.get("job").unwrap_or(value).as_u64().unwrap();
        (what.clone(), job)
    });
    lines.collect()
}

/// Checks that each of `runs` runs ended once, and none was begun again after its end; returns begins.
fn each_once(path: &Path, runs: u64) -> u64 {
    let (mut ended, mut begun) = (BTreeSet::new(), 0);
    for (what, job) in story(path) {
        assert!(!ended.contains(&job), "run {job} was {what} after its end");
        match what.as_str() {
            "begun" => begun += 1,
            "ended" => assert!(ended.insert(job)),
            other => panic!("{other}"),
        }
    }
    assert_eq!(ended, (0..runs).collect(), "none is missing");
    begun
}

#[test]
fn a_row_says_all_of_its_run() {
    let dir = Scratch::new("rows");
    let plan = plan(GRID);
    let report = sweep_all(&plan, &dir.at("out"));
    assert_eq!((report.runs, report.made, report.failed, report.left), (1_000, 1_000, 0, 0));
    let rows = rows(&report.results.unwrap());
    assert_eq!(rows.len(), 1_000);
    for (index, row) in rows.iter().enumerate() {
        let job = plan.grid.job(&plan.base, index as u64).unwrap().unwrap();
        let wanted = stand_in(&job).unwrap().summary;
        let text = |text: &str| format!("\"{text}\"");
        assert_eq!(cell(row, "job"), index.to_string());
        assert_eq!(cell(row, "seed"), job.config.seed.to_string());
        assert_eq!(cell(row, "day"), text(&job.day.unwrap()));
        assert_eq!(cell(row, "grid.competition.share_ppm"), job.values[0].to_string());
        assert_eq!(cell(row, "digest"), text(&wanted.digest));
        assert_eq!(cell(row, "fills"), wanted.fills.to_string());
        assert_eq!(cell(row, "error"), "null");
        let json = cell(row, "config");
        let json = json.trim_matches('"');
        let config: Config = serde_json::from_str(json).unwrap();
        assert_eq!(config, job.config, "the configuration as it was");
        assert_eq!(cell(row, "config_hash"), text(&sweep::sha256(json.as_bytes())));
    }
    // Every field of the summary has a column of its own, but for the seed, which has one already.
    let columns: Vec<String> = rows[0].get_column_iter().map(|(name, _)| name.clone()).collect();
    let summary = serde_json::to_value(Summary::default()).unwrap();
    for field in summary.as_object().unwrap().keys() {
        assert!(columns.contains(field), "{field} has no column");
    }
    let pnl = stand_in(&plan.grid.job(&plan.base, 3).unwrap().unwrap()).unwrap().summary.pnl;
    let decimal = cell(&rows[3], "pnl");
    let decimal = decimal.trim_end_matches('0');
    assert_eq!(decimal, tandem_tools::reports::Exact::quanta(pnl, 8).to_string());
}

#[test]
fn shards_merge_to_the_bytes_of_one_sweep() {
    let dir = Scratch::new("shards");
    let plan = plan(GRID);
    let whole = fs::read(sweep_all(&plan, &dir.at("whole")).results.unwrap()).unwrap();
    // In one folder, as on a shared volume, and in folders of their own; in any order.
    for (shards, own) in [(7, false), (3, true), (1, false)] {
        let mut dirs = Vec::new();
        for shard in (0..shards).rev() {
            let out = dir.at(&if own { format!("own-{shard}") } else { format!("of-{shards}") });
            let options = options(&out, Shard { shard, shards }, 1 + shard as usize % 2);
            let report = sweep::run(&plan, &options, &AtomicBool::new(false), stand_in).unwrap();
            assert_eq!((report.left, report.made), (0, report.of_shard));
            if !dirs.contains(&out) {
                dirs.push(out);
            }
        }
        let out = dir.at(&format!("merged-{shards}.parquet"));
        let report = merge::merge(&dirs, &out, false).unwrap();
        assert_eq!((report.of_shard, report.failed), (1_000, 0));
        assert!(fs::read(&out).unwrap() == whole, "{shards} shards give other bytes");
        let again = merge::merge(&dirs, &out, false).unwrap_err().to_string();
        assert!(again.contains("--force"), "{again}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let dir = Scratch::new("refused");
    let one = plan("seeds = { from = 1, count = 10 }\n[grid]\nlatency_ppm = [1, 2]");
    let of = |plan: &Plan, out: &str, shard: u64, shards: u64| {
        let options = options(&dir.at(out), Shard { shard, shards }, 1);
        sweep::run(plan, &options, &AtomicBool::new(false), stand_in).map_err(|e| e.to_string())
    };
    let merged = |dirs: &[&str]| {
        let dirs: Vec<PathBuf> = dirs.iter().map(|name| dir.at(name)).collect();
        let told = merge::merge(&dirs, &dir.at("merged.parquet"), false);
        assert!(!dir.at("merged.parquet").exists(), "nothing is written");
        told.map(drop).unwrap_err().to_string()
    };
    of(&one, "a", 0, 3).unwrap();
    of(&one, "b", 1, 3).unwrap();
    let missing = merged(&["a", "b"]);
    assert!(missing.contains("shard 2 of 3 is missing"), "{missing}");
    of(&one, "twice", 1, 3).unwrap();
    let twice = merged(&["a", "b", "twice"]);
    assert!(twice.contains("shard 1 is there twice"), "{twice}");
    of(&one, "of-4", 2, 4).unwrap();
    let other = merged(&["a", "b", "of-4"]);
    assert!(other.contains("of 3 shards") && other.contains("of 4"), "{other}");
    let mut grid = one.clone();
    grid.grid.seeds.push(99);
    let mut base = one.clone();
    base.base.decision_us += 1;
    let mut data = one.clone();
    data.data.digest = "e".repeat(64);
    for (plan, what) in [(grid, "grid"), (base, "configuration"), (data, "data")] {
        // Neither gone on with …
        let told = of(&plan, "a", 0, 3).unwrap_err();
        assert!(told.contains(&format!("another {what}")), "{told}");
        // … nor merged.
        of(&plan, what, 2, 3).unwrap();
        let told = merged(&["a", "b", what]);
        assert!(told.contains(&format!("the {what} differs")), "{told}");
    }
    let nothing = merged(&["a", "none"]);
    assert!(nothing.contains("none"), "{nothing}");
    fs::create_dir(dir.at("empty")).unwrap();
    let empty = merged(&["a", "empty"]);
    assert!(empty.contains("no shard-*.runs"), "{empty}");
    // A shard that was told to stop before its end.
    let stop = AtomicBool::new(true);
    let options = options(&dir.at("stopped"), Shard { shard: 2, shards: 3 }, 1);
    let report = sweep::run(&one, &options, &stop, stand_in).unwrap();
    assert_eq!((report.left, report.made, report.results), (6, 0, None));
    let unfinished = merged(&["a", "b", "stopped"]);
    assert!(unfinished.contains("run 2 is missing"), "{unfinished}");
}

#[test]
fn a_run_that_fails_is_a_row_and_stops_nothing() {
    let dir = Scratch::new("failing");
    let plan = plan(GRID);
    let never = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    let failing = |job: &Job| {
        calls.fetch_add(1, Ordering::Relaxed);
        match job.index % 100 {
            17 => Err(format!("the books of run {} are broken", job.index)),
            _ => stand_in(job),
        }
    };
    let mut options = options(&dir.at("out"), Shard::ALL, 2);
    let report = sweep::run(&plan, &options, &never, failing).unwrap();
    assert_eq!((report.made, report.failed, report.left), (1_000, 10, 0));
    assert_eq!(report.first_error.unwrap(), "run 17: the books of run 17 are broken");
    let path = report.results.unwrap();
    let rows = rows(&path);
    assert_eq!(rows.len(), 1_000);
    assert_eq!(cell(&rows[117], "error"), "\"the books of run 117 are broken\"");
    assert_eq!(cell(&rows[117], "pnl"), "null");
    assert_eq!(cell(&rows[118], "error"), "null");
    // Again: nothing is to do. With retry_failed, those ten.
    let again = sweep::run(&plan, &options, &never, failing).unwrap();
    assert_eq!((again.before, again.made, again.failed), (1_000, 0, 10));
    assert_eq!(calls.swap(0, Ordering::Relaxed), 1_000);
    options.retry_failed = true;
    let counted = |job: &Job| {
        calls.fetch_add(1, Ordering::Relaxed);
        stand_in(job)
    };
    let retried = sweep::run(&plan, &options, &never, counted).unwrap();
    assert_eq!((retried.before, retried.made, retried.failed), (990, 10, 0));
    assert_eq!(calls.load(Ordering::Relaxed), 10);
    // The table is now what it would have been without any failure.
    let whole = sweep_all(&plan, &dir.at("whole")).results.unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn a_damaged_line_is_found_and_its_run_made_again() {
    let dir = Scratch::new("damaged");
    let plan = plan("seeds = { from = 1, count = 40 }");
    let whole = sweep_all(&plan, &dir.at("out")).results.unwrap();
    let wanted = fs::read(&whole).unwrap();
    let path = dir.at("out").join(Shard::ALL.file());
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let end_of = |job: u64| {
        let name = format!("{{\"ended\":{{\"job\":{job},");
        lines.iter().position(|line| line.contains(&name)).unwrap()
    };
    let (a, b) = (end_of(5), end_of(31));
    let never = AtomicBool::new(false);
    let all = options(&dir.at("out"), Shard::ALL, 1);
    // One digit of a figure in one line, and the middle of another cut out.
    let mut damaged: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    damaged[a] = damaged[a].replacen("\"fills\":", "\"fills\":1", 1);
    let half = damaged[b].len() / 2;
    damaged[b].truncate(half);
    fs::write(&path, damaged.join("\n") + "\n").unwrap();
    let again = sweep::run(&plan, &all, &never, stand_in).unwrap();
    let mut numbers = [a as u64 + 1, b as u64 + 1];
    numbers.sort_unstable();
    assert_eq!(again.damaged_lines, numbers);
    assert_eq!((again.before, again.made), (38, 2));
    assert!(fs::read(&whole).unwrap() == wanted, "the same table");
    // Cut anywhere: the last line is taken off, what is before it counts.
    let bytes = fs::read_to_string(&path).unwrap();
    let begin = bytes.find('\n').unwrap() + 1;
    for cut in (begin..bytes.len()).step_by(197) {
        fs::write(&path, &bytes[..cut]).unwrap();
        let report = sweep::run(&plan, &all, &never, stand_in).unwrap();
        assert_eq!(report.before + report.made, 40, "cut at {cut}");
        assert!(fs::read(&whole).unwrap() == wanted, "cut at {cut}");
    }
    // In the first line: nothing was done yet, or it cannot be known what was.
    fs::write(&path, &bytes[..begin / 2]).unwrap();
    assert_eq!(sweep::run(&plan, &all, &never, stand_in).unwrap().made, 40);
    let unknown = format!("00000000{}", &bytes[8..]);
    fs::write(&path, unknown).unwrap();
    let told = sweep::run(&plan, &all, &never, stand_in).unwrap_err().to_string();
    assert!(told.contains("first line") && told.contains("move the file away"), "{told}");
    // A run that is none of this sweep's, with a right checksum.
    let foreign = "{\"begun\":40}";
    let line = format!("{:08x} {foreign}\n", crc32c::crc32c(foreign.as_bytes()));
    fs::write(&path, bytes + &line).unwrap();
    let told = sweep::run(&plan, &all, &never, stand_in).unwrap_err().to_string();
    assert!(told.contains("run 40 does not belong to shard 0 of 1"), "{told}");
}

#[test]
fn one_process_at_a_time() {
    let dir = Scratch::new("busy");
    let plan = plan("seeds = [1, 2]");
    let out = dir.at("out");
    let (held, _) = runs::Runs::open(&out, &plan, Shard::ALL).unwrap();
    let all = options(&out, Shard::ALL, 1);
    let told = sweep::run(&plan, &all, &AtomicBool::new(false), stand_in).unwrap_err();
    assert!(told.to_string().contains("another process sweeps"), "{told}");
    drop(held);
    assert_eq!(sweep_all(&plan, &out).made, 2);
}

/// Where the child process of the next test sweeps.
const CHILD: &str = "TANDEM_SWEEP_CHILD";

#[test]
#[ignore = "a child process"]
fn child_that_sweeps() {
    let Some(out) = std::env::var_os(CHILD) else { return };
    let slow = |job: &Job| {
        std::thread::sleep(Duration::from_micros(500));
        stand_in(job)
    };
    let all = options(Path::new(&out), Shard::ALL, 2);
    sweep::run(&plan(GRID), &all, &AtomicBool::new(false), slow).unwrap();
}

/// Ends the command with `kill -9` after `after_ms`; returns whether it had ended by itself.
fn killed(command: &mut Command, after_ms: u64) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_millis(after_ms);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

#[test]
fn kill_9_repeats_no_run_and_loses_none() {
    let dir = Scratch::new("kill");
    let out = dir.at("out");
    let mut kills = 0;
    for after_ms in (20..).step_by(7).take(200) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_that_sweeps", "--ignored"]).env(CHILD, &out);
        if killed(&mut command, after_ms) {
            break;
        }
        kills += 1;
    }
    let begun = each_once(&out.join(Shard::ALL.file()), 1_000);
    println!("{kills} kills, 1000 runs, {begun} begun");
    assert!(3 <= kills, "killed in the middle: {kills}");
    assert!(begun <= 1_000 + 2 * kills, "only what was under way is begun again: {begun}");
    let whole = sweep_all(&plan(GRID), &dir.at("whole")).results.unwrap();
    let results = out.join("results.parquet");
    assert!(fs::read(&results).unwrap() == fs::read(&whole).unwrap(), "the same table");
}

// The binary, over journals.

/// The generator's market has no balances and no limits of its own; what is drawn makes seeds differ.
const BACKTEST: &str = r#"
    limits = "wide"
    venue.binance.reject_ppm = 50000
    venue.coinbase.entry = { model = "bursty", us = 1000, jitter_us = 3000, burst_us = 9000, burst_every_ms = 100, burst_lasts_ms = 20 }
    venue.kraken.lost_ppm = 20000
    opening.binance = { BTC = "10", ETH = "100", USDT = "1000000" }
    opening.coinbase = { BTC = "10", ETH = "100", USDT = "1000000", USD = "1000000" }
    opening.kraken = { BTC = "10", ETH = "100", USDT = "1000000", USD = "1000000" }
"#;

/// A folder with a configuration, the grid, and two journals that are two days of one market.
struct Ground {
    dir: Scratch,
}

impl Ground {
    fn new(name: &str, records: u64, grid: &str) -> Ground {
        let dir = Scratch::new(name);
        fs::write(dir.at("backtest.toml"), BACKTEST).unwrap();
        fs::write(dir.at("grid.toml"), grid).unwrap();
        let once = dir.at("once");
        tandem_tools::generate::generate(&once, 3, records).unwrap();
        split(&once, records / 2, &[&dir.at("whole")]);
        split(&once, records / 2, &[&dir.at("first"), &dir.at("second")]);
        Ground { dir }
    }

    /// `tandem sweep` over the two days, in a folder of its own.
    fn sweep(&self, out: &str, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.arg("sweep").args(["--json", "--grid"]).arg(self.dir.at("grid.toml"));
        command.arg("--config").arg(self.dir.at("backtest.toml"));
        command.arg("--data").arg(self.dir.at("whole")).arg("--out").arg(self.dir.at(out));
        command.args(options).env_remove("JOB_COMPLETION_INDEX");
        command
    }
}

/// Writes a journal's records with times such that midnight comes at one of them: into one journal, or the two
/// days into two.
fn split(from: &Path, at: u64, to: &[&Path]) {
    let mut all: Vec<Record> = Vec::new();
    let mut reader = JournalReader::<Record>::open(from, record_schema()).unwrap();
    while let Some(record) = reader.next().unwrap() {
        all.push(record);
    }
    let middle = all.iter().find(|record| at <= record.seq && record.engine_ts_ns != 0).unwrap();
    let midnight = (middle.engine_ts_ns.div_euclid(DAY_NS) + 1) * DAY_NS;
    let shift = midnight - middle.engine_ts_ns;
    let spec = JournalSpec { segments_ahead: 1, ..JournalSpec::new(record_schema()) };
    for (day, path) in to.iter().enumerate() {
        let mut writer = JournalWriter::<Record>::create(path, &spec).unwrap();
        for record in &all {
            let mut record = *record;
            for ns in [&mut record.engine_ts_ns, &mut record.venue_ts_ns, &mut record.recv_ts_ns] {
                *ns += if *ns == 0 { 0 } else { shift };
            }
            // The configuration has no time and is in both.
            let is_timeless = record.engine_ts_ns == 0;
            let is_first = record.engine_ts_ns < midnight;
            if to.len() == 1 || is_timeless || is_first == (day == 0) {
                while writer.append(&record).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        writer.close().unwrap();
    }
}

fn said(command: &mut Command) -> (i32, Value, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report =
        text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
    (output.status.code().unwrap(), report, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_thousand_backtests_on_one_core_on_two_killed_and_in_shards() {
    let ground = Ground::new("thousand", 6_000, GRID);
    let results = |out: &str| fs::read(ground.dir.at(out).join("results.parquet")).unwrap();
    let mut seconds = BTreeMap::new();
    for (out, jobs) in [("one", "1"), ("two", "2")] {
        let (code, report, told) = said(&mut ground.sweep(out, &["--jobs", jobs]));
        assert_eq!(
            (code, &report["made"], &report["failed"]),
            (0, &json!(1_000), &json!(0)),
            "{told}"
        );
        seconds.insert(jobs, report["seconds"].as_f64().unwrap());
    }
    println!(
        "1000 runs: {:.1} s on one core, {:.1} s on two: {:.2} times as fast",
        seconds["1"],
        seconds["2"],
        seconds["1"] / seconds["2"]
    );
    let wanted = results("one");
    assert!(results("two") == wanted, "two cores give the same bytes");
    let rows = rows(&ground.dir.at("one").join("results.parquet"));
    let digests: BTreeSet<String> = rows.iter().map(|row| cell(row, "digest")).collect();
    let rounds = rows.iter().filter(|row| cell(row, "rounds") != "0").count();
    assert!(500 < digests.len() && 100 < rounds, "{} digests, {rounds} traded", digests.len());

    let mut kills = 0;
    let step = (seconds["2"] * 1e3 / 12.0) as u64;
    for after_ms in (100..).step_by(step.max(20) as usize).take(100) {
        if killed(&mut ground.sweep("killed", &["--jobs", "2"]), after_ms) {
            break;
        }
        kills += 1;
    }
    let begun = each_once(&ground.dir.at("killed").join(Shard::ALL.file()), 1_000);
    println!("{kills} kills, 1000 runs, {begun} begun");
    assert!(3 <= kills && begun <= 1_000 + 2 * kills, "{kills} kills, {begun} begun");
    assert!(results("killed") == wanted, "kills change nothing");

    for index in ["2", "0", "1"] {
        let mut shard = ground.sweep("shards", &["--shards", "3", "--shard", "env"]);
        let (code, report, told) = said(shard.env("JOB_COMPLETION_INDEX", index));
        assert_eq!((code, report["shard"].to_string()), (0, index.to_owned()), "{told}");
    }
    let mut merge = Command::new(env!("CARGO_BIN_EXE_tandem"));
    merge.args(["sweep", "merge", "--out"]).arg(ground.dir.at("merged.parquet"));
    assert_eq!(said(merge.arg("--json").arg(ground.dir.at("shards"))).0, 0);
    assert!(fs::read(ground.dir.at("merged.parquet")).unwrap() == wanted, "shards give the same");
}

#[test]
fn a_day_of_a_journal_is_the_journal_of_a_day() {
    let ground = Ground::new("days", 20_000, "by_day = true");
    assert_eq!(said(&mut ground.sweep("out", &[])).0, 0);
    let rows = rows(&ground.dir.at("out").join("results.parquet"));
    let days: Vec<String> = rows.iter().map(|row| cell(row, "day")).collect();
    assert_eq!(days, ["\"2026-01-01\"", "\"2026-01-02\""]);
    let backtest = |data: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
        command.args(["backtest", "--json", "--config"]).arg(ground.dir.at("backtest.toml"));
        let (code, report, told) = said(command.arg("--data").arg(ground.dir.at(data)));
        assert_eq!(code, 0, "{told}");
        report["outcome"]["summary"].clone()
    };
    // The first day is what a recording that ends at midnight gives.
    let first = backtest("first");
    assert_eq!(cell(&rows[0], "digest"), first["digest"].to_string());
    assert_eq!(cell(&rows[0], "rounds"), first["rounds"].to_string());
    // The second begins with the books as they stood; a recording that begins at midnight has none.
    let second = backtest("second");
    let opportunities: Vec<u64> =
        rows.iter().map(|row| cell(row, "opportunities").parse().unwrap()).collect();
    println!("opportunities by day: {opportunities:?}, without books: {}", second["opportunities"]);
    assert!(0 < opportunities[1] && second["opportunities"].as_u64().unwrap() < opportunities[1]);
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    let grid = "seeds = [1, 2]\n[grid]\n\"opening.kraken.XYZ\" = [\"1\"]";
    let ground = Ground::new("codes", 1_000, grid);
    let (code, report, told) = said(&mut ground.sweep("failing", &[]));
    assert_eq!((code, &report["failed"]), (5, &json!(2)), "{told}");
    let first = report["first_error"].as_str().unwrap();
    assert!(first.contains("opening.kraken.XYZ: no asset of the recording"), "{first}");
    let rows = rows(&ground.dir.at("failing").join("results.parquet"));
    assert!(cell(&rows[1], "error").contains("no asset of the recording"));
    let mut missing = ground.sweep("missing", &[]);
    let (code, _, told) = said(missing.arg("--data").arg(ground.dir.at("none")));
    assert!(code == 3 && told.contains("none"), "{code} {told}");
    for (grid, options, wanted) in [
        ("[grid]\nlatensy_ppm = [1]", &[][..], "did you mean `latency_ppm`?"),
        ("days = [\"2026-01-05\"]", &[], "2026-01-05 is not in the data"),
        ("", &["--shards", "3"], "needs --shard"),
        ("", &["--jobs", "0"], "at least one"),
        ("", &["--shards", "3", "--shard", "3"], "numbered from 0"),
    ] {
        fs::write(ground.dir.at("grid.toml"), grid).unwrap();
        let (code, _, told) = said(&mut ground.sweep("wrong", options));
        assert!(code == 2 && told.contains(wanted), "{grid}: {code} {told}");
    }
    fs::write(ground.dir.at("grid.toml"), "seeds = [1, 2, 3]").unwrap();
    let (code, report, told) = said(&mut ground.sweep("dry", &["--dry-run"]));
    assert_eq!((code, &report["report"]["runs"]), (0, &json!(3)), "{told}");
    assert!(!ground.dir.at("dry").exists());
    // Another grid into a folder that has runs.
    let (code, _, told) = said(&mut ground.sweep("failing", &[]));
    assert!(code == 2 && told.contains("another grid"), "{code} {told}");
}

// What deploy/ shows.

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/sweep").join(name)
}

#[test]
fn the_example_grid_is_one() {
    let grid = Grid::load(&deploy("grid.example.toml")).unwrap();
    grid.check(&Config::default()).unwrap();
    assert_eq!((grid.axes.len(), grid.seeds.len(), grid.by_day), (4, 20, true));
}

#[test]
fn the_kubernetes_job_says_what_it_must() {
    use yaml_rust2::{Yaml, YamlLoader};
    let text = fs::read_to_string(deploy("kubernetes.yaml")).unwrap();
    let all = YamlLoader::load_from_str(&text).unwrap();
    let [job] = &all[..] else { panic!("one document") };
    assert_eq!((job["apiVersion"].as_str(), job["kind"].as_str()), (Some("batch/v1"), Some("Job")));
    let spec = &job["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    let completions = spec["completions"].as_i64().unwrap();
    // A failed index is tried again alone, which Kubernetes allows with `Never` only.
    assert!(0 < spec["backoffLimitPerIndex"].as_i64().unwrap());
    assert_eq!(spec["maxFailedIndexes"].as_i64(), Some(completions));
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"].as_str(), Some("Never"));
    assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));
    let [container] = &pod["containers"].as_vec().unwrap()[..] else { panic!("one container") };
    let resources = &container["resources"];
    for kind in ["requests", "limits"] {
        for what in ["cpu", "memory"] {
            assert!(resources[kind][what].as_str().is_some(), "{kind}.{what}");
        }
    }
    let args: Vec<&str> =
        container["args"].as_vec().unwrap().iter().filter_map(Yaml::as_str).collect();
    // What the pod runs is a command of ours, and the number of shards is that of the pods.
    assert!(tandem_tools::cli::is_command(&args), "{args:?}");
    assert!(args.contains(&&*format!("--shards={completions}")) && args.contains(&"--shard=env"));
    let cpus = format!("--jobs={}", resources["limits"]["cpu"].as_str().unwrap());
    assert!(args.contains(&&*cpus), "as many runs at a time as cores");
    // Every path of the command lies in a volume that is mounted and exists.
    let mounts = container["volumeMounts"].as_vec().unwrap();
    for option in ["--grid=", "--config=", "--data=", "--out="] {
        let path = args.iter().find_map(|arg| arg.strip_prefix(option)).unwrap();
        let holds = |m: &&Yaml| path.starts_with(m["mountPath"].as_str().unwrap());
        let mount = mounts.iter().find(holds).unwrap_or_else(|| panic!("{path} is not mounted"));
        assert_eq!(mount["readOnly"].as_bool().unwrap_or(false), option != "--out=", "{path}");
        let volumes = pod["volumes"].as_vec().unwrap();
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{path}");
    }
    // What a sweep's exit codes mean to the job.
    let rules = spec["podFailurePolicy"]["rules"].as_vec().unwrap();
    let of = |code: i64| {
        let has = |rule: &&Yaml| {
            let values = rule["onExitCodes"]["values"].as_vec();
            values.is_some_and(|values| values.iter().any(|v| v.as_i64() == Some(code)))
        };
        rules.iter().find(has).and_then(|rule| rule["action"].as_str())
    };
    assert_eq!(
        [of(2), of(5), of(1), of(3)],
        [Some("FailJob"), Some("FailIndex"), Some("FailIndex"), None]
    );
}
