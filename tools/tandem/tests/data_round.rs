//! What is exported and imported again is the same: books after every message, or every record.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod data_support;

use data_support::{Scratch, assert_same, captures, code, digests, must, records, tandem};
use tandem_core::record::Kind;

/// Exports in every form, imports each again, and compares with the journal.
fn round(scratch: &Scratch, journal: &str, name: &str, correct: &[&str]) {
    let ours = digests(journal);
    assert!(!ours.0.is_empty(), "{name}: a journal with books");
    let path = |what: &str| scratch.path(&format!("{name}-{what}"));

    // Tardis' CSV: every book, in its order.
    let csv = path("csv");
    must(&["journal", "export", journal, "--out", &csv, "--format", "csv", "--json"]);
    let files: Vec<String> = listed(&csv);
    let back = path("csv-back");
    let mut words = vec!["journal", "import", "--json", "--to", &back];
    words.extend(files.iter().map(String::as_str).chain(correct.iter().copied()));
    let report = must(&words);
    assert!(report["notes"][0].as_str().unwrap().contains("tardis"), "{report}");
    assert_same(&format!("{name} csv"), &ours.sequence(), &digests(&back).sequence());
    must(&["replay", "--verify", &back]);

    // hftbacktest's arrays: what is received at one moment is one message.
    let npz = path("npz");
    must(&["journal", "export", journal, "--out", &npz, "--format", "hftbacktest", "--json"]);
    let instruments: Vec<String> = listed(&npz)
        .into_iter()
        .map(|file| {
            let stem = file.rsplit('/').next().unwrap().trim_end_matches(".npz");
            let (venue, symbol) = stem.split_once('_').unwrap();
            // A slash is none in a file's name; Coinbase's own symbols have the same dash.
            let ours = ours.0.keys().find(|name| {
                let (known, of) = name.split_once(':').unwrap();
                known == venue && of.replace('/', "-") == symbol
            });
            format!("--instrument={}={file}", ours.unwrap())
        })
        .collect();
    let back = path("npz-back");
    let mut words = vec!["journal", "import", "--json", "--to", &back];
    words.extend(instruments.iter().map(String::as_str).chain(correct.iter().copied()));
    must(&words);
    assert_same(&format!("{name} npz"), &ours.by_moment(), &digests(&back).by_moment());
    must(&["replay", "--verify", &back]);

    // Parquet: every record.
    let (lake, back) = (path("lake"), path("lake-back"));
    must(&["journal", "export", journal, "--out", &lake, "--format", "parquet", "--json"]);
    let report = must(&["journal", "import", "--json", "--to", &back, &lake]);
    let (ours, theirs) = (records(journal), records(&back));
    assert_eq!(report["records"].as_u64(), Some(ours.len() as u64));
    assert_eq!(ours.len(), theirs.len(), "{name}: how many records");
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!((a.seq, a.essence()), (b.seq, b.essence()), "{name}: record {}", a.seq);
    }
    must(&["replay", "--verify", &back]);
    println!("figure data: {name}: {} records, three forms there and back", ours.len());
}

fn listed(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut files: Vec<String> = entries.map(|entry| entry.path().display().to_string()).collect();
    files.sort();
    files
}

#[test]
fn generated_journals_come_back() {
    for seed in ["3", "4", "5"] {
        let scratch = Scratch::new(&format!("round-{seed}"));
        let journal = scratch.path("journal");
        must(&["journal", "generate", "--to", &journal, "--records", "20000", "--seed", seed]);
        round(&scratch, &journal, seed, &[]);
    }
}

#[test]
fn recorded_tapes_come_back() {
    let Some(captures) = captures() else { return };
    let scratch = Scratch::new("round-tape");
    let journal = scratch.path("journal");
    let tape = |venue: &str| {
        captures.join(venue).join("tape_20260809T2014Z_trades.jsonl.gz").display().to_string()
    };
    let (coinbase, kraken) = (tape("coinbase"), tape("kraken"));
    let report = must(&["journal", "import", "--json", "--to", &journal, &coinbase, &kraken]);
    assert!(report["notes"][0].as_str().unwrap().contains("captures (2)"), "{report}");
    let trades = records(&journal).iter().filter(|r| r.kind() == Some(Kind::Trade)).count();
    println!("figure data: the tape has {trades} trades");
    // Coinbase's clock is ahead of the recorder's now and then, by less than a millisecond.
    round(&scratch, &journal, "tape", &["--correct-clocks"]);
}

/// Days are folders; a journal over some of them comes back in its order.
#[test]
fn days_are_folders() {
    let scratch = Scratch::new("round-days");
    let mut text =
        "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n".to_owned();
    for n in 0..200i64 {
        // Half an hour apart, over five days and a year's end.
        let at = 1_767_000_000_000_000 + n * 1_800_000_000;
        let (recv, snapshot, px) = (at + 900, n == 0, 100 + n % 7);
        text += &format!("coinbase,BTC-USD,{at},{recv},{snapshot},bid,{px},{}\n", n % 3 + 1);
        text += &format!("coinbase,BTC-USD,{at},{recv},{snapshot},ask,{},1\n", px + 200);
    }
    let (file, journal) = (scratch.write("book.csv", text), scratch.path("journal"));
    must(&["journal", "import", "--to", &journal, &file]);
    round(&scratch, &journal, "days", &[]);
    let days: Vec<String> = listed(&scratch.path("days-lake"))
        .iter()
        .map(|path| path.rsplit('/').next().unwrap().to_owned())
        .collect();
    let wanted = ["29", "30", "31"].map(|day| format!("day=2025-12-{day}"));
    assert_eq!(days[..3], wanted);
    assert_eq!(days[3..], ["day=2026-01-01", "day=2026-01-02"]);
}

/// A recorder whose clock is behind the venue's: refused with file and line, put right when asked for.
#[test]
fn a_slow_clock_is_refused_or_put_right() {
    let Some(captures) = captures() else { return };
    let scratch = Scratch::new("round-clock");
    let (journal, csv, back) = (scratch.path("j"), scratch.path("csv"), scratch.path("back"));
    let capture = captures.join("binance/hftbacktest_BTCUSDT_20240808T2354Z.jsonl.gz");
    let capture = capture.display().to_string();
    must(&["journal", "import", "--to", &journal, &capture]);
    must(&["journal", "export", &journal, "--out", &csv, "--format", "csv"]);
    let files = listed(&csv);
    let mut words = vec!["journal", "import", "--json", "--to", &back];
    words.extend(files.iter().map(String::as_str));
    let refused = tandem(&words);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(code(&refused), 1, "{text}");
    assert!(
        text.contains("received before the venue's time") && text.contains(": line "),
        "{text}"
    );
    assert!(!std::path::Path::new(&back).exists());
    words.extend(["--correct-clocks", "--latency-min-us", "250"]);
    let report = must(&words);
    let shift = report["venue_shift_ns"]["binance"].as_i64().unwrap();
    println!("figure data: Binance's stamps were moved back by {shift} ns");
    assert!(1_000_000_000 < shift, "{report}");
    let mut least = i64::MAX;
    for record in records(&back) {
        if record.venue_ts_ns != 0 {
            least = least.min(record.recv_ts_ns - record.venue_ts_ns);
        }
    }
    assert!((250_000..252_000).contains(&least), "{least}");
    assert_same("clock", &digests(&journal).sequence(), &digests(&back).sequence());
}
