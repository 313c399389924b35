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
use serde_json::Value;
use tandem_backtest::config::Config;
use tandem_backtest::outcome::{self, Unit};
use tandem_backtest::{Outcome, Summary};
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
    "engine.edge_min_ppm" = [100, 200, 300, 400, 500]
    "venue.binance.entry" = [{ model = "constant", us = 1000 }, { model = "constant", us = 5000 }]
"#;

fn plan(grid: &str) -> Plan {
    let days = ["2026-11-29", "2026-11-30"].map(str::to_owned).to_vec();
    let data = Data { digest: "d".repeat(64), records: 7, from_ns: 1, to_ns: 9, days };
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
        summary: Summary {
            seed: job.config.seed,
            is_conserved: true,
            digest: format!("{found:016x}"),
            pnl: found as i64,
            fills: found % 1_000,
            ..Summary::default()
        },
        conservation: Vec::new(),
        equity: Vec::new(),
        by_venue: BTreeMap::new(),
        by_instrument: BTreeMap::new(),
        by_kind: BTreeMap::new(),
        by_route: BTreeMap::new(),
        by_hour: BTreeMap::new(),
        funnel: outcome::Funnel::default(),
        edges: Vec::new(),
        lives: Vec::new(),
        decay: Vec::new(),
        value_of_ms: BTreeMap::new(),
        capture: Vec::new(),
        inventory: BTreeMap::new(),
        one_leg: outcome::OneLeg::default(),
        venues: BTreeMap::new(),
        resting: Vec::new(),
        calibration: None,
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
