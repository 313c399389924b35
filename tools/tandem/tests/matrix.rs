//! The fault matrix: every row has a test, and the table in `deploy/` says which and what it measured.
//!
//! A test names its rows in its comment (`Row OE-07.`) and prints `figure OE-07: …`. `scripts/fault-matrix`
//! writes the table; this test fails where a row has no test or the table is not what the sources say.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Rows that must have a test: those of order entry, accounts, operators, configuration and market data, and
/// the processes' that trading depends on (`reference/reliability.md` section 5).
fn required() -> Vec<String> {
    let mut rows = Vec::new();
    let mut range = |prefix: &str, numbers: &[u32]| {
        rows.extend(numbers.iter().map(|number| format!("{prefix}-{number:02}")));
    };
    range("MD", &(1..=17).collect::<Vec<_>>());
    range("OE", &(1..=21).collect::<Vec<_>>());
    range("AC", &(1..=8).collect::<Vec<_>>());
    range("PR", &[1, 2, 3, 4, 5, 9, 13, 14, 15, 16]);
    range("CF", &(1..=6).collect::<Vec<_>>());
    range("OP", &(1..=6).collect::<Vec<_>>());
    // Of the security list, what is behind the journal.
    range("SEC", &[1, 5, 11, 12, 13]);
    rows
}

/// Rows that this build does not meet yet, and why. They stand in the table as open.
const OPEN: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git", "node_modules"].contains(&name.as_str()) {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the rows of a line: every `XX-00` after the word Row.
fn rows_of(line: &str) -> Vec<String> {
    let Some(at) = line.find("Row ") else { return Vec::new() };
    line[at..]
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| {
            let bytes = word.as_bytes();
            let Some((row, [b'-', tens, ones])) = bytes.split_last_chunk() else { return false };
            matches!(row.len(), 2 | 3)
                && row.iter().all(u8::is_ascii_uppercase)
                && tens.is_ascii_digit()
                && ones.is_ascii_digit()
        })
        .map(str::to_owned)
        .collect()
}

/// Returns the tests by row: the first function after a comment that names the row.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let (root, mut files) = (root(), Vec::new());
    sources(&root, &mut files);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let mut pending: Vec<String> = Vec::new();
        for line in text.lines() {
            let line = line.trim_start();
            if line.starts_with("//") {
                pending.extend(rows_of(line));
            } else if let Some(rest) =
                line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))
            {
                let function = rest.split(['(', '<']).next().unwrap_or_default();
                for row in pending.drain(..) {
                    found.entry(row).or_default().insert(format!("{name}: {function}"));
                }
            }
        }
    }
    found.retain(|row, _| !row.ends_with("-00"));
    found
}

fn figures() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("deploy/fault-matrix.figures")).unwrap_or_default();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((row, figure)) =
            line.strip_prefix("figure ").and_then(|rest| rest.split_once(": "))
        {
            found.entry(row.to_owned()).or_default().push(figure.to_owned());
        }
    }
    found
}

fn table() -> String {
    let (tests, figures) = (tests(), figures());
    let mut text = String::from(
        "# Fault matrix\n\nWritten by `scripts/fault-matrix`; a test fails where a row has no test. The rows are \
         those of the\nreliability reference; figures are of the last run that wrote this file, on two shared \
         cores.\n\n| Row | Tests | Figures |\n| --- | --- | --- |\n",
    );
    let open: BTreeMap<&str, &str> = OPEN.iter().copied().collect();
    let rows: BTreeSet<String> = required().into_iter().chain(tests.keys().cloned()).collect();
    for row in rows {
        let named: Vec<String> =
            tests.get(&row).into_iter().flatten().map(|test| format!("`{test}`")).collect();
        let mut measured = figures.get(&row).cloned().unwrap_or_default().join("<br>");
        if let Some(why) = open.get(row.as_str()) {
            let _ =
                write!(measured, "{}open: {why}", if measured.is_empty() { "" } else { "<br>" });
        }
        let measured = measured.replace('|', "\\|");
        let _ = writeln!(text, "| {row} | {} | {measured} |", named.join("<br>"));
    }
    text
}

#[test]
fn every_row_has_a_test() {
    let tests = tests();
    let open: BTreeMap<&str, &str> = OPEN.iter().copied().collect();
    let missing: Vec<String> = required()
        .into_iter()
        .filter(|row| !tests.contains_key(row) && !open.contains_key(row.as_str()))
        .collect();
    println!("{} rows, {} open", required().len(), open.len());
    assert!(missing.is_empty(), "rows without a test: {missing:?}");
}

#[test]
fn the_table_is_what_the_sources_say() {
    let path = root().join("deploy/fault-matrix.md");
    let now = table();
    if std::env::var_os("TANDEM_WRITE_MATRIX").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == now, "deploy/fault-matrix.md is old: run scripts/fault-matrix");
}

#[test]
fn rows_are_read_from_comments() {
    assert_eq!(rows_of("/// Row OE-01. Row AC-02: text"), ["OE-01", "AC-02"]);
    assert_eq!(rows_of("/// Rows of a book"), Vec::<String>::new());
    assert_eq!(rows_of("// Row OE-1, or row PR-02"), ["PR-02"]);
    assert_eq!(rows_of("/// Row SEC-12, Row SECT-12"), ["SEC-12"]);
}
