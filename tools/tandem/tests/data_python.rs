//! Data in and out beside the tools of others: hftbacktest's own reader, validation and converter, and DuckDB over
//! every shipped query. They come from PyPI, pinned, into an environment below the build's own folder; without them
//! these tests are skipped, and say so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod data_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use data_support::{Scratch, Told, assert_same, books, digests, must, records, table};
use serde_json::Value;
use tandem_core::ledger::Posting;
use tandem_core::record::{Kind, Record, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_tools::reports::Exact;

/// Returns the Python of an environment with the packages of `tests/python/NAME.txt`. Tests run at the same time: one
/// makes it, the others wait.
fn python(name: &str) -> Option<PathBuf> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = format!("{}/tests/python/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let packages = std::fs::read_to_string(&wanted).unwrap();
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{name}"));
    let (mark, python) = (at.join("packages.txt"), at.join("bin/python"));
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == packages) {
        return Some(python);
    }
    let _ = std::fs::remove_dir_all(&at);
    let run = |command: &mut Command| {
        let output = command.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&at)).expect("an environment");
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--timeout", "30", "--retries", "1"];
    let pip = pip.into_iter().chain(["--disable-pip-version-check", "-r", &wanted]);
    if let Err(why) = run(Command::new(&python).args(pip)) {
        println!("SKIPPED: {name} cannot be installed from PyPI (scripts/setup tests): {why}");
        let _ = std::fs::remove_dir_all(&at);
        return None;
    }
    std::fs::write(&mark, packages).unwrap();
    Some(python)
}

/// Runs one of our scripts; returns its JSON.
fn run(python: &Path, script: &str, words: &[&str]) -> Value {
    let path = format!("{}/tests/python/{script}.py", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python).arg(path).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {words:?}: {error}");
    text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap())
}

/// A generated journal with trades in it: the generator makes none.
fn journal_with_trades(scratch: &Scratch) -> String {
    let generated = scratch.path("generated");
    must(&["journal", "generate", "--to", &generated, "--records", "20000", "--seed", "11"]);
    let csv = scratch.path("plain-csv");
    must(&["journal", "export", &generated, "--out", &csv, "--format", "csv"]);
    let mut trades = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n".to_owned();
    for n in 0..500i64 {
        let at = 1_767_225_600_100_000 + n * 2_000;
        let side = ["buy", "sell"][(n % 2) as usize];
        trades += &format!(
            "coinbase,BTC/USD,{at},{},{},{side},65000.{:02},0.0{n}1\n",
            at + 700,
            n + 1,
            n % 100
        );
    }
    scratch.write("trades.csv", trades);
    let mut words = vec!["journal".to_owned(), "import".to_owned(), "--to".to_owned()];
    words.extend([scratch.path("journal"), scratch.path("trades.csv")]);
    words.extend(listed(&csv));
    must(&words.iter().map(String::as_str).collect::<Vec<_>>());
    scratch.path("journal")
}

fn listed(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut files: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    files.sort();
    files
}

/// A book as floats, each side by price.
fn floats(book: &Told) -> [Vec<(f64, f64)>; 2] {
    ['b', 'a'].map(|side| {
        let levels = book.iter().filter(|level| level.0 == side);
        let mut levels: Vec<(f64, f64)> =
            levels.map(|(_, px, qty)| (px.parse().unwrap(), qty.parse().unwrap())).collect();
        levels.sort_by(|a, b| a.0.total_cmp(&b.0));
        levels
    })
}

#[test]
fn hftbacktest_reads_ours_and_we_read_what_it_makes() {
    let Some(python) = python("hftbacktest") else { return };
    let scratch = Scratch::new("hftbacktest");
    let journal = journal_with_trades(&scratch);
    let (npz, csv) = (scratch.path("npz"), scratch.path("csv"));
    must(&["journal", "export", &journal, "--out", &npz, "--format", "hftbacktest"]);
    must(&["journal", "export", &journal, "--out", &csv, "--format", "csv"]);
    let ours = books(&journal);

    // Ours, in its engine: the last book is the same, level by level.
    let file = format!("{npz}/coinbase_BTC-USD.npz");
    let read = run(&python, "hftbacktest_reads", &[&file, "0.01", "0.00001"]);
    let theirs: [Vec<(f64, f64)>; 2] = [0, 1].map(|side| {
        let levels = read["book"][side].as_array().unwrap().iter();
        let mut levels: Vec<(f64, f64)> =
            levels.map(|l| (l[0].as_f64().unwrap(), l[1].as_f64().unwrap())).collect();
        levels.sort_by(|a, b| a.0.total_cmp(&b.0));
        levels
    });
    let last = floats(&ours.0["coinbase:BTC/USD"].last().unwrap().1);
    for (side, (a, b)) in last.iter().zip(&theirs).enumerate() {
        assert_eq!(a.len(), b.len(), "side {side}");
        for (ours, theirs) in a.iter().zip(b) {
            // Its engine counts prices in ticks and gives them back as a product.
            let close = |a: f64, b: f64| (a - b).abs() <= a.abs() * 1e-12;
            assert!(close(ours.0, theirs.0) && close(ours.1, theirs.1), "{ours:?} {theirs:?}");
        }
    }
    let counts = &read["counts"];
    assert_eq!(counts["trades"], 500, "{counts}");
    assert_eq!(counts["exch"], counts["local"], "each event once for each: {counts}");

    // Its own array of our CSV: the books of the CSV.
    let made = scratch.path("made.npz");
    let files =
        ["trades", "incremental_book_L2"].map(|k| format!("{csv}/coinbase_{k}_BTC-USD.csv.gz"));
    run(&python, "hftbacktest_converts", &[&made, &files[0], &files[1]]);
    let (of_csv, of_npz) = (scratch.path("of-csv"), scratch.path("of-npz"));
    must(&["journal", "import", "--to", &of_csv, &files[0], &files[1]]);
    let instrument = format!("coinbase:BTC/USD={made}");
    let words = ["journal", "import", "--json", "--to", &of_npz, "--instrument", &instrument];
    let report = must(&[&words[..], &["--tick", "coinbase:BTC/USD=0.01"]].concat());
    assert_same("hftbacktest's own", &digests(&of_csv).by_moment(), &digests(&of_npz).by_moment());
    println!(
        "figure data: hftbacktest reads {counts} of ours; we read {} of its own",
        report["files"][0]["rows"]
    );
}

/// A query's rows as maps from column to value.
fn rows(found: &Value, query: &str) -> Vec<BTreeMap<String, Value>> {
    let columns: Vec<String> = found[query]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_str().unwrap().to_owned())
        .collect();
    let rows = found[query]["rows"].as_array().unwrap().iter();
    rows.map(|row| columns.iter().cloned().zip(row.as_array().unwrap().iter().cloned()).collect())
        .collect()
}

fn exact(value: &Value) -> Exact {
    Exact::read(value.as_str().unwrap()).unwrap()
}

fn count(rows: &[BTreeMap<String, Value>], column: &str) -> u64 {
    rows.iter().map(|row| row[column].as_u64().unwrap()).sum()
}

/// Groups of records joined by a flag.
fn groups(records: &[Record], kind: Kind) -> Vec<Vec<Record>> {
    let (mut all, mut group) = (Vec::new(), Vec::new());
    for record in records.iter().filter(|record| record.kind() == Some(kind)) {
        group.push(*record);
        if !record.has(flag::MORE) {
            all.push(std::mem::take(&mut group));
        }
    }
    all
}

/// What the queries say, beside what the records themselves say.
fn compare(found: &Value, records: &[Record], journal: &str) {
    let table = table(records);
    // Opportunities: each that was opened is one, in the query and in the records.
    let mut opened = BTreeSet::new();
    let mut closed = 0;
    for group in groups(records, Kind::Opportunity) {
        let told = Opportunity::decode(&group).unwrap();
        match told.phase {
            Phase::Open => drop(opened.insert(told.id)),
            Phase::Close => closed += 1,
            _ => {}
        }
    }
    let by_route = rows(found, "opportunities_by_route_and_verdict");
    assert!(!opened.is_empty());
    assert_eq!(count(&by_route, "opportunities"), opened.len() as u64);
    assert_eq!(count(&rows(found, "life_of_opportunities"), "opportunities"), closed);
    // Denials: repeats are counted.
    let denied: i64 = groups(records, Kind::Denial)
        .iter()
        .map(|group| Denial::decode(group).unwrap().times)
        .sum();
    assert_eq!(count(&rows(found, "denial_funnel"), "times"), denied as u64);
    // The ledger, to the last unit.
    let mut ledger: BTreeMap<(String, String), Exact> = BTreeMap::new();
    let mut postings = 0;
    for posting in
        records.iter().filter(|r| r.kind() == Some(Kind::Ledger)).filter_map(Posting::read)
    {
        let venue = posting.venue.map_or("all", |venue| venue.name()).to_owned();
        let asset = &table.universe.assets[usize::from(posting.asset.0)];
        let sum = ledger.entry((venue, asset.name.clone())).or_default();
        *sum = sum.plus(Exact::quanta(posting.delta.0, asset.exponent));
        postings += 1;
    }
    let mut told: BTreeMap<(String, String), Exact> = BTreeMap::new();
    let by_account = rows(found, "ledger_by_account");
    for row in &by_account {
        let key = |column: &str| row[column].as_str().unwrap().to_owned();
        let sum = told.entry((key("venue"), key("asset"))).or_default();
        *sum = sum.plus(exact(&row["delta"]));
    }
    assert_eq!(told, ledger, "sums of postings");
    assert_eq!(count(&by_account, "postings"), postings);
    // Fills: each once by the venue's number.
    let fills = records.iter().filter(|r| r.kind() == Some(Kind::OrderFill));
    let fills: BTreeSet<_> = fills.map(|r| (r.venue, r.instrument, r.update_id)).collect();
    let by_day = rows(found, "fills_and_fees_by_day");
    assert_eq!(count(&by_day, "fills"), fills.len() as u64);
    // Spreads and depth: samples of books that were live.
    let samples = count(&rows(found, "spread_by_venue_and_hour"), "samples");
    let live = count(&rows(found, "depth_at_10_bps"), "samples");
    assert!(0 < samples && samples <= live, "{samples} {live}");
    // Every record is there.
    assert_eq!(found["views"]["record"].as_u64(), Some(records.len() as u64));
    let levels = records.iter().filter(|r| r.kind() == Some(Kind::Level)).count() as u64;
    assert_eq!(found["views"]["level"].as_u64(), Some(levels));
    // Results and fees as the command line counts them.
    let pnl = must(&["pnl", "--journal", journal, "--json"]);
    let days = pnl["days"].as_array().unwrap();
    let told = rows(found, "pnl_by_day");
    assert_eq!(days.len(), told.len());
    for (day, row) in days.iter().zip(&told) {
        assert_eq!(day["day"], row["day"]);
        assert_eq!(exact(&day["realised"]), exact(&row["realised"]), "{day} {row:?}");
        assert_eq!(exact(&day["marked"]), exact(&row["marked"]), "{day} {row:?}");
    }
    let mut fees: BTreeMap<(String, String), Exact> = BTreeMap::new();
    for row in &by_day {
        let key = |column: &str| row[column].as_str().unwrap().to_owned();
        let sum = fees.entry((key("venue"), key("fee_asset"))).or_default();
        *sum = sum.plus(exact(&row["fees"]));
    }
    for (venue, assets) in pnl["fees"].as_object().into_iter().flatten() {
        for (asset, fee) in assets.as_object().unwrap() {
            let key = (venue.clone(), asset.clone());
            assert_eq!(fees.get(&key).copied(), Some(exact(fee)), "{key:?}");
        }
    }
    println!(
        "figure data: DuckDB: {} opportunities, {denied} denials, {} fills, {postings} postings as in the journal",
        opened.len(),
        fills.len(),
    );
}

fn queried(python: &Path, scratch: &Scratch, journal: &str) -> Value {
    let lake = scratch.path("lake");
    must(&["journal", "export", journal, "--out", &lake, "--format", "parquet"]);
    let folder = format!("{}/../../deploy/analytics", env!("CARGO_MANIFEST_DIR"));
    let found = run(python, "run_queries", &[&lake, &folder]);
    let queries = std::fs::read_dir(&folder).unwrap().flatten();
    let shipped = queries
        .filter(|file| file.path().extension().is_some_and(|ending| ending == "sql"))
        .count();
    // One file is the views.
    assert_eq!(found.as_object().unwrap().len(), shipped);
    assert!(7 <= shipped, "{shipped}");
    found
}

#[test]
fn duckdb_runs_every_query_over_a_generated_journal() {
    let Some(python) = python("duckdb") else { return };
    let scratch = Scratch::new("duckdb-generated");
    let journal = journal_with_trades(&scratch);
    let found = queried(&python, &scratch, &journal);
    let records = records(&journal);
    compare(&found, &records, &journal);
    let trades = rows(&found, "trades_by_hour");
    assert_eq!(count(&trades, "trades"), 500);
    let sum = (0..500).map(|n| Exact::read(&format!("0.0{n}1")).unwrap()).sum::<Exact>();
    assert_eq!(exact(&trades[0]["qty"]), sum);
}

#[test]
fn duckdb_runs_every_query_over_a_demo() {
    let Some(python) = python("duckdb") else { return };
    let scratch = Scratch::new("duckdb-demo");
    let dir = scratch.path("run");
    let report = must(&["demo", "--for", "6s", "--json", "--dir", &dir]);
    let journal = report["journal"]["path"].as_str().unwrap().to_owned();
    let found = queried(&python, &scratch, &journal);
    let records = records(&journal);
    compare(&found, &records, &journal);
    let rounds = rows(&found, "edge_expected_and_realised");
    assert!(0 < count(&rounds, "rounds"), "{report}");
    assert_eq!(count(&rounds, "rounds"), report["rounds"]["sent"].as_u64().unwrap());
}
