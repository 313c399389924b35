//! The command line as scripts use it: field names, exit codes, examples, contracts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/dev/shm/tandem-cli-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tandem(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn last_json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("no output: {output:?}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
}

/// Every field of the contract is there and of its type.
fn has(value: &Value, path: &str) {
    let found = path.split('.').try_fold(value, |value, key| value.get(key));
    assert!(found.is_some_and(|found| !found.is_null()), "`{path}` is missing in {value}");
}

#[test]
fn the_demo_keeps_its_contract() {
    let scratch = Scratch::new("demo");
    let dir = scratch.path("run");
    let output = tandem(&["demo", "--for", "5s", "--json", "--dir", &dir]);
    let report = last_json(&output);
    assert_eq!(code(&output), 0, "{report} {}", String::from_utf8_lossy(&output.stderr));
    for field in [
        "mode",
        "seconds",
        "records",
        "denials",
        "opportunities.total",
        "opportunities.cross_venue",
        "opportunities.triangular",
        "opportunities.cross_quote",
        "journal.path",
        "journal.records",
        "journal.segments",
        "journal.bytes",
        "replay.identical",
        "replay.records",
        "replay.records_per_second",
        "losses.overruns",
        "losses.gaps",
    ] {
        has(&report, field);
    }
    for venue in ["binance", "coinbase", "kraken"] {
        for field in ["messages", "books", "books_in_sync", "resyncs", "gaps"] {
            has(&report, &format!("venues.{venue}.{field}"));
        }
        let venue = &report["venues"][venue];
        assert_eq!(venue["books"], venue["books_in_sync"]);
    }
    for stage in ["decode", "ring", "detect", "wire_to_decision"] {
        for figure in ["p50", "p99", "p999", "max", "count"] {
            has(&report, &format!("latency_ns.{stage}.{figure}"));
        }
        assert_ne!(report["latency_ns"][stage]["count"], 0, "{stage}");
    }
    assert_eq!(report["replay"]["identical"], true);
    for kind in ["cross_venue", "triangular", "cross_quote"] {
        assert_ne!(report["opportunities"][kind], 0, "{kind}");
    }

    // The journal is left where the report says, and every reading command reads it.
    let journal = report["journal"]["path"].as_str().unwrap();
    let replay = tandem(&["replay", "--verify", journal, "--json"]);
    assert_eq!(code(&replay), 0);
    let replay = last_json(&replay);
    for field in ["records", "outputs", "digest", "records_per_second"] {
        has(&replay, field);
    }
    let verify = tandem(&["journal", "verify", journal, "--json"]);
    assert_eq!((code(&verify), last_json(&verify)["ok"].clone()), (0, Value::Bool(true)));
    let stat = last_json(&tandem(&["journal", "stat", journal, "--json"]));
    assert_eq!(stat["records"], report["journal"]["records"]);
    let opportunity = last_json(&tandem(&["opportunities", "--journal", journal, "--json"]));
    for field in ["id", "kind", "net", "spent", "legs", "at", "gross_ppb", "first_ns"] {
        has(&opportunity, field);
    }
    let denial = tandem(&["opportunities", "--journal", journal, "--denials", "--json"]);
    assert_eq!(code(&denial), 0);
    // A copy on disk is the same journal.
    let copy = scratch.path("copy");
    assert_eq!(code(&tandem(&["journal", "export", journal, "--to", &copy])), 0);
    let copied = last_json(&tandem(&["replay", "--verify", &copy, "--json"]));
    assert_eq!(copied["digest"], replay["digest"]);
    let listed = last_json(&tandem(&["journal", "ls", &dir, "--json"]));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let config = format!("{dir}/tandem.toml");
    let books = last_json(&tandem(&["books", "--config", &config, "--depth", "3", "--json"]));
    assert_eq!(books.as_array().unwrap().len(), 27);
    let latency = last_json(&tandem(&["latency", "--config", &config, "--json"]));
    assert!(6 < latency.as_array().unwrap().len());
    // Nothing runs any more: status says so with its exit code.
    assert_eq!(code(&tandem(&["status", "--config", &config, "--json"])), 1);
}

#[test]
fn a_falsified_output_is_found_by_replay() {
    let scratch = Scratch::new("falsified");
    let journal = scratch.path("journal");
    let made = tandem(&["journal", "generate", "--to", &journal, "--records", "30000", "--json"]);
    assert_eq!(code(&made), 0);
    assert_eq!(code(&tandem(&["replay", "--verify", &journal])), 0);
    // One bit of one record: the journal's own check sees it first.
    let segment = Path::new(&journal).join("seg-00000001.tj");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 128 * 20_000 + 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(code(&tandem(&["journal", "verify", &journal])), 1);
    assert_ne!(code(&tandem(&["replay", "--verify", &journal])), 0);
}

#[test]
fn wrong_use_is_told_with_its_exit_code() {
    let cases: [(&[&str], i32, &str); 9] = [
        (&["no-such-command"], 2, "no-such-command"),
        (&["status", "--config", "no/such/file.toml"], 2, "no/such/file.toml"),
        (&["replay", "--verify", "/no/such/journal"], 3, "/no/such/journal"),
        (&["journal", "verify", "/no/such/journal"], 3, "/no/such/journal"),
        (&["books", "/no/such/recording"], 3, "/no/such/recording"),
        (&["demo", "--for", "soon"], 2, "30s"),
        (&["opportunities", "--journal", "/no/such", "--kind", "good"], 2, "cross_quote"),
        (&["config", "explain", "no_such_key"], 2, "no_such_key"),
        (&["journal", "cat", "/no/such", "--kind", "good"], 2, "opportunity"),
    ];
    for (args, expected, named) in cases {
        let output = tandem(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), expected, "{args:?}: {told}");
        assert!(told.contains(named), "{args:?}: {told}");
    }
    assert_eq!(code(&tandem(&["config", "check"])), 0);
    let explained = tandem(&["config", "explain", "edge_min_ppm"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("Smallest net edge"));
}

#[test]
fn every_command_has_examples() {
    for command in [
        "demo",
        "sim",
        "feed",
        "engine",
        "up",
        "status",
        "books",
        "opportunities",
        "pnl",
        "report daily",
        "export",
        "latency",
        "replay",
        "journal cat",
        "journal ls",
        "journal stat",
        "journal verify",
        "journal import",
        "journal export",
        "journal generate",
        "config check",
        "config show",
        "config explain",
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.push("--help");
        let help = tandem(&args);
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(text.contains("Example") && text.contains("tandem "), "{command}: {text}");
    }
}

/// Recordings rebuilt by the command agree with the independent program, in the contract's fields.
#[test]
fn recorded_books_keep_their_contract() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let Ok(text) = std::fs::read_to_string(data.join("expected_books.json")) else {
        println!("skipped: no recordings at {}", data.display());
        return;
    };
    let expected: Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for file in [
        "coinbase/tape_20260809T0231Z",
        "kraken/tape_20260809T0231Z",
        "kraken/pykrakensdk_v2_reserialised",
        "binance/cryptofeed_20211012T0028Z",
    ] {
        let name = format!("captures/{file}.jsonl.gz");
        let path = data.join(&name).display().to_string();
        let output = tandem(&["books", &path, "--json"]);
        assert_eq!(code(&output), 0);
        let report = last_json(&output);
        for (symbol, wanted) in expected["files"][&name]["books"].as_object().unwrap() {
            let found = &report[&path][symbol];
            for (field, wanted) in wanted.as_object().unwrap() {
                if let Some(found) = found.get(field) {
                    assert_eq!(found, wanted, "{name} {symbol} {field}");
                    compared += 1;
                }
            }
        }
    }
    assert!(50 < compared, "{compared}");
}
