//! The page of a backtest: every number on it is in the JSON, and follows from the files beside it by its query.
//!
//! The page is walked as a reader's program would, and the queries are worked out by another program than the
//! one that made the figures: exact fractions over JSON pointers.
//!
//! `TANDEM_REPORT_OUT` names a folder for the pages, to be looked at; `tools/dashboard/tests/report.spec.ts` opens
//! them in Chromium.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fixtures;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use num_bigint::BigInt;
use num_rational::BigRational;
use serde_json::Value;
use tandem_backtest::Outcome;
use tandem_tools::reports::backtest::{self, Found, OUTCOME, SENSITIVITY};

/// The files that a query reads.
struct Files {
    outcome: Value,
    sensitivity: Value,
}

impl Files {
    fn of(found: &Found) -> Files {
        Files {
            outcome: serde_json::to_value(&found.outcome).unwrap(),
            sensitivity: serde_json::to_value(&found.sensitivity).unwrap(),
        }
    }
}

/// A row of a table's query.
#[derive(Clone)]
struct Row {
    key: String,
    value: Value,
}

/// A query while it is read.
struct Reader<'a> {
    text: &'a str,
    files: &'a Files,
    row: Option<&'a Row>,
}

#[derive(Clone, Debug, PartialEq)]
enum Term {
    Number(BigRational),
    /// By nothing.
    None,
    Other(Value),
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn eat(&mut self, word: &str) -> bool {
        self.skip();
        match self.text.strip_prefix(word) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn pointer(&mut self) -> Value {
        assert!(self.eat("{"), "a pointer begins with a brace: {}", self.text);
        let (place, rest) = self.text.split_once('}').unwrap();
        self.text = rest;
        let row = || self.row.expect("a row");
        if place == "@key" {
            return Value::from(row().key.as_str());
        }
        let (root, path) = match place.strip_prefix('@') {
            Some(path) => (&row().value, path),
            None => {
                let (file, path) = place.split_once('#').unwrap();
                let root = match file {
                    OUTCOME => &self.files.outcome,
                    SENSITIVITY => &self.files.sensitivity,
                    other => panic!("no such file: {other}"),
                };
                (root, path)
            }
        };
        root.pointer(path).unwrap_or_else(|| panic!("nothing at {place}")).clone()
    }

    fn sum(&mut self) -> Term {
        let mut left = self.product();
        loop {
            let minus = match (self.eat("+"), self.text.starts_with("- ")) {
                (true, _) => false,
                (false, true) => self.eat("-"),
                (false, false) => return left,
            };
            let right = self.product();
            left = match (left, right) {
                (Term::Number(a), Term::Number(b)) => {
                    Term::Number(if minus { a - b } else { a + b })
                }
                _ => Term::None,
            };
        }
    }

    fn product(&mut self) -> Term {
        let mut left = self.factor();
        loop {
            let divides = match (self.eat("*"), self.eat("/")) {
                (true, _) => false,
                (false, true) => true,
                (false, false) => return left,
            };
            let zero = BigRational::from_integer(0.into());
            left = match (left, self.factor()) {
                (Term::Number(_), Term::Number(b)) if divides && b == zero => Term::None,
                (Term::Number(a), Term::Number(b)) => {
                    Term::Number(if divides { a / b } else { a * b })
                }
                _ => Term::None,
            };
            self.skip();
        }
    }

    fn factor(&mut self) -> Term {
        let whole = |value: i128| Term::Number(BigRational::from_integer(BigInt::from(value)));
        if self.eat("count ") {
            return whole(self.pointer().as_array().unwrap().len() as i128);
        }
        if self.eat("sum ") {
            let of = self.pointer();
            return whole(
                of.as_object().unwrap().values().map(|v| i128::from(v.as_i64().unwrap())).sum(),
            );
        }
        if self.eat("words ") {
            return Term::Other(self.pointer());
        }
        self.skip();
        if self.text.starts_with('{') {
            let value = self.pointer();
            return match value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)) {
                Some(number) => whole(number),
                None => Term::Other(value),
            };
        }
        let end = self.text.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.text.len());
        let number = self.text[..end].parse().unwrap();
        self.text = &self.text[end..];
        whole(number)
    }
}

/// Works a query out.
fn value_of(query: &str, files: &Files, row: Option<&Row>) -> Value {
    let mut reader = Reader { text: query, files, row };
    let term = reader.sum();
    assert_eq!(reader.text.trim(), "", "left over of {query}");
    match term {
        Term::Number(number) => {
            let floor = number.floor().to_integer();
            i64::try_from(floor.clone())
                .map(Value::from)
                .unwrap_or_else(|_| u64::try_from(floor).map_or(Value::Null, Value::from))
        }
        Term::None => Value::Null,
        Term::Other(value) => value,
    }
}

fn leaves(value: &Value, place: &str, rows: &mut Vec<Row>) {
    let name = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(all) if !all.is_empty() => {
            all.iter().for_each(|(key, v)| leaves(v, &format!("{place}/{}", name(key)), rows));
        }
        Value::Array(all) if !all.is_empty() && all.len() <= 20 => {
            all.iter().enumerate().for_each(|(at, v)| leaves(v, &format!("{place}/{at}"), rows));
        }
        other => rows.push(Row { key: place.to_owned(), value: other.clone() }),
    }
}

fn rows_of(query: &str, files: &Files) -> Vec<Row> {
    let (verb, rest) = query.split_once(' ').unwrap();
    let mut reader = Reader { text: rest, files, row: None };
    let all = reader.pointer();
    if verb == "leaves" {
        let mut rows = Vec::new();
        leaves(&all, "", &mut rows);
        return rows;
    }
    assert_eq!(verb, "rows", "{query}");
    if reader.eat("single") {
        return vec![Row { key: String::new(), value: all }];
    }
    let mut rows: Vec<Row> = match all {
        Value::Array(all) => all
            .into_iter()
            .enumerate()
            .map(|(at, value)| Row { key: at.to_string(), value })
            .collect(),
        Value::Object(all) => all.into_iter().map(|(key, value)| Row { key, value }).collect(),
        other => panic!("no rows in {other}"),
    };
    if reader.eat("where ") {
        let (member, wanted) = reader.text.split_once(" = ").unwrap();
        rows.retain(|row| row.value.pointer(member) == Some(&Value::from(wanted)));
        reader.text = "";
    }
    if reader.eat("every ") {
        let every: usize = reader.text.trim().parse().unwrap();
        let last = rows.len() - 1;
        rows = rows
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % every == 0 || *at == last)
            .map(|(_, row)| row)
            .collect();
        reader.text = "";
    }
    assert_eq!(reader.text.trim(), "", "left over of {query}");
    rows
}

/// What a page shows of a value must be that value, to half of its last digit.
fn shows(shown: &str, value: &Value, unit: &str) {
    let Some(exact) = value.as_i64() else {
        return match value {
            Value::String(text) => assert_eq!(shown, text),
            Value::Bool(flag) => assert_eq!(shown, if *flag { "yes" } else { "no" }),
            Value::Null => assert_eq!(shown, "none"),
            Value::Number(number) => assert_eq!(shown, number.to_string()),
            other => panic!("no cell: {other}"),
        };
    };
    if ["no end", "no beginning"].contains(&shown) {
        return assert!(i64::MAX / 2 <= exact.saturating_abs(), "{shown} {exact}");
    }
    if unit.starts_with("UNIX ns") {
        if exact == 0 {
            return assert_eq!(shown, "never");
        }
        // Ours reads no other centuries; they are shown all the same.
        if !(0..7_000_000_000_000_000_000).contains(&exact) {
            return assert!(shown.contains(['1', '2']) && shown.len() == 19, "{shown}");
        }
        let read = tandem_feeds::stamp::unix_ns(format!("{}Z", shown.replace(' ', "T")).as_bytes());
        return assert_eq!(read.unwrap() / 1_000_000_000, exact / 1_000_000_000, "{shown}");
    }
    let plain: String = shown.replace('\u{2212}', "-").replace([',', '+'], "");
    let (digits, word) = plain.split_once(' ').unwrap_or((&plain, ""));
    let places = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let read: BigInt = digits.replace('.', "").parse().unwrap();
    let ten = |power: usize| BigRational::from_integer(BigInt::from(10u8).pow(power as u32));
    let mut read = BigRational::from_integer(read) / ten(places);
    let mut grain = BigRational::from_integer(1.into()) / ten(places);
    let word = word.split(' ').next().unwrap();
    let scale = match (unit, word) {
        ("ppm", "%") => ten(4),
        ("ppm", "bp") => ten(2),
        ("us", "µs") => ten(0),
        ("us", "ms") => ten(3),
        ("us", "s") => ten(6),
        ("s", "s") => ten(0),
        ("s", "min") => BigRational::from_integer(60.into()),
        ("s", "h") => BigRational::from_integer(3_600.into()),
        ("s", "days") => BigRational::from_integer(86_400.into()),
        ("count", "") => ten(0),
        ("ppm" | "us" | "s" | "count", other) => panic!("{shown}: no {other} of {unit}"),
        (money, word) => {
            let exponent = money.strip_prefix("10^-").unwrap().split(' ').next().unwrap();
            let more = match word {
                "M" => 6,
                "bn" => 9,
                _ => 0,
            };
            ten(exponent.parse::<usize>().unwrap() + more)
        }
    };
    read *= &scale;
    grain *= &scale;
    let two = BigRational::from_integer(2.into());
    let exact = BigRational::from_integer(exact.into());
    let off = if exact < read { &read - &exact } else { &exact - &read };
    assert!(off * two <= grain, "{shown} is not {value} {unit}");
}

/// An element of the page with what is around it.
#[derive(Clone, Debug, Default)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

fn element(inside: &str) -> Element {
    let (name, mut rest) = inside.split_once([' ', '/']).unwrap_or((inside, ""));
    let mut attributes = BTreeMap::new();
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.strip_prefix('"').expect("attributes are quoted");
        let (value, left) = after.split_once('"').unwrap();
        let key = key.split_whitespace().last().unwrap();
        attributes.insert(key.to_owned(), unescaped(value));
        rest = left;
    }
    if inside.contains(" data-name") {
        attributes.insert("data-name".to_owned(), String::new());
    }
    Element { name: name.to_owned(), attributes }
}

/// Walks the page; shows every text with the elements around it.
fn walk(html: &str, mut each: impl FnMut(&[Element], &str)) {
    let void = ["meta", "input"];
    let body = html.split("<body>").nth(1).expect("a body");
    let (mut around, mut rest): (Vec<Element>, _) = (Vec::new(), body);
    while let Some((text, after)) = rest.split_once('<') {
        if !text.trim().is_empty() {
            each(&around, &unescaped(text));
        }
        let (inside, left) = after.split_once('>').expect("an element ends");
        rest = left;
        if let Some(name) = inside.strip_prefix('/') {
            if ["body", "html"].contains(&name) {
                continue;
            }
            let last = around.pop().expect("something is open");
            assert_eq!(last.name, name, "elements nest");
        } else {
            let one = element(inside);
            if !void.contains(&one.name.as_str()) && !inside.ends_with('/') {
                around.push(one);
            }
        }
    }
    assert!(around.is_empty(), "left open: {around:?}");
}

/// What is written on the page with digits in it and is no figure: names.
fn is_name(text: &str, found: &Found) -> bool {
    let mut names: BTreeSet<&str> = ["1 ms", found.outcome.numeraire.name.as_str()].into();
    let mut joined = Vec::new();
    for key in found.outcome.inventory.keys() {
        names.insert(key);
        names.extend(key.split(' '));
        joined.push(key.as_str());
    }
    names.extend(found.outcome.value_of_ms.keys().map(String::as_str));
    names.extend(found.outcome.conservation.iter().map(|one| one.asset.as_str()));
    text.split(", ").all(|part| names.contains(part))
}

/// Every number of the page against its figure, every figure against its query.
fn check(name: &str, found: &Found) -> backtest::Report {
    let report = backtest::report(found);
    let (html, files) = (&report.html, Files::of(found));
    let dir = std::env::var_os("TANDEM_REPORT_OUT").filter(|_| name != "damaged");
    if let Some(dir) = dir {
        fs::create_dir_all(&dir).unwrap();
        fs::write(PathBuf::from(dir).join(format!("{name}.html")), html).unwrap();
    }
    let json: Value = serde_json::to_value(&report).unwrap();
    let figures: BTreeMap<&str, &Value> = json["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|figure| (figure["id"].as_str().unwrap(), figure))
        .collect();
    assert_eq!(figures.len(), report.figures.len(), "{name}: two figures of one name");
    let mut worked = 0;
    for (id, figure) in &figures {
        let query = figure["query"].as_str().unwrap();
        if let Some(value) = figure.get("value") {
            let found = value_of(query, &files, None);
            // A seed is shown as a name: no thousands.
            let is_name = value.as_str() == Some(&found.to_string());
            let same = found == *value || is_name;
            assert!(same, "{name} {id}: {query} gives {found}, not {value}");
            shows(figure["shown"].as_str().unwrap(), value, figure["unit"].as_str().unwrap());
            worked += 1;
            continue;
        }
        let columns = figure["columns"].as_array().unwrap();
        let rows = rows_of(query, &files);
        let cells = figure["rows"].as_array().unwrap();
        assert_eq!(rows.len(), cells.len(), "{name} {id}: rows of {query}");
        for ((row, cells), shown) in
            rows.iter().zip(cells).zip(figure["rows_shown"].as_array().unwrap())
        {
            for (at, column) in columns.iter().enumerate() {
                let query = column["query"].as_str().unwrap();
                let (value, unit) = (&cells[at], column["unit"].as_str().unwrap());
                let found = value_of(query, &files, Some(row));
                let text = || match &found {
                    Value::String(text) => text.clone(),
                    Value::Null => "not set".to_owned(),
                    Value::Array(all) if !all.is_empty() => format!("{} values", all.len()),
                    Value::Array(_) | Value::Object(_) => "none".to_owned(),
                    other => other.to_string(),
                };
                // Codes have names in `words`, which has tests of its own; the code must be in the name's parentheses.
                let is_words = query.starts_with("words ");
                let same = found == *value || (unit == "text" && value.as_str() == Some(&text()));
                assert!(same || is_words, "{name} {id}: {query} gives {found}, not {value}");
                shows(shown[at].as_str().unwrap(), value, unit);
                worked += 1;
            }
        }
    }
    let (mut seen, mut walked): (BTreeSet<String>, usize) = (BTreeSet::new(), 0);
    let (mut row, mut column) = (0usize, 0usize);
    let mut last_cell = String::new();
    walk(html, |around, text| {
        let of = |name: &str| around.iter().rev().find(|one| one.attributes.contains_key(name));
        let in_table = around.iter().any(|one| one.name == "table");
        if let Some(marked) = of("data-figure") {
            let id = &marked.attributes["data-figure"];
            let figure =
                figures.get(id.as_str()).unwrap_or_else(|| panic!("{name}: no figure {id}"));
            seen.insert(id.clone());
            walked += 1;
            if marked.name == "table" {
                let place = around.last().unwrap();
                if place.name == "caption" {
                    (row, column) = (0, 0);
                    assert!(!has_number(text) || figure["title"] == text, "{text}");
                    return;
                }
                if around.iter().any(|one| one.name == "thead") {
                    return;
                }
                assert!(["th", "td"].contains(&place.name.as_str()), "{text}");
                let width = figure["columns"].as_array().unwrap().len();
                assert_eq!(figure["rows_shown"][row][column], text, "{name} {id} {row} {column}");
                column += 1;
                if column == width {
                    (row, column) = (row + 1, 0);
                }
                last_cell = text.to_owned();
                return;
            }
            match marked.attributes.get("data-row") {
                None => assert_eq!(figure["shown"], text, "{name} {id}"),
                Some(row) => {
                    let row: usize = row.parse().unwrap();
                    let column: usize = marked.attributes["data-column"].parse().unwrap();
                    let whole = figure["rows_shown"][row][column].as_str().unwrap();
                    if marked.attributes.contains_key("data-cut") {
                        assert!(figure["columns"][column]["unit"] == "text", "{name} {id}");
                        assert!(whole.starts_with(text.trim_end_matches('\u{2026}')), "{text}");
                    } else {
                        assert_eq!(whole, text, "{name} {id}");
                    }
                }
            }
        } else if of("data-scale").is_some() {
            assert!(!in_table, "scales belong to plots");
        } else if of("data-name").is_some() {
            assert!(!has_number(text) || is_name(text, found), "{name}: `{text}` is no name");
        } else {
            assert!(!has_number(text), "{name}: `{text}` is no figure");
        }
    });
    assert!(!last_cell.is_empty(), "{name}: a table was walked");
    println!(
        "{name}: {} figures, {worked} values worked out again, {walked} texts on the page, {} bytes",
        figures.len(),
        html.len()
    );
    for (what, banned) in [
        ("a script", "<script"),
        ("an address", "http://"),
        ("an address", "https://"),
        ("a file", "src="),
    ] {
        assert!(!html.contains(banned), "{name}: {what} in the page");
    }
    report
}

fn has_number(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_digit())
}

#[test]
fn every_number_of_a_good_day_is_traced() {
    let found = fixtures::day();
    let report = check("day", &found);
    assert!(report.is_conserved);
    // What one looks for first stands before everything but the verdict.
    let at = |text: &str| report.html.find(text).unwrap_or_else(|| panic!("no {text}"));
    assert!(at("id=\"verdict\"") < at("id=\"millisecond\""));
    assert!(at("id=\"millisecond\"") < at("id=\"headline\""));
    for venue in found.outcome.value_of_ms.keys() {
        assert!(report.figures.iter().any(|figure| figure.id == format!("ms_{venue}")), "{venue}");
    }
}

#[test]
fn days_at_the_edge_are_traced_too() {
    for (name, found) in [
        ("none", fixtures::none()),
        ("nothing_found", fixtures::nothing_found()),
        ("one", fixtures::one()),
        ("loss", fixtures::loss()),
        ("huge", fixtures::huge()),
        ("month", fixtures::month()),
        ("hostile", fixtures::hostile()),
    ] {
        assert!(check(name, &found).is_conserved, "{name}");
    }
}

/// Any numbers give a page whose every number is traced.
#[test]
fn damaged_outcomes_are_shown_as_they_are() {
    let honest = serde_json::to_value(&fixtures::one().outcome).unwrap();
    let mut places = Vec::new();
    leaves(&honest, "", &mut places);
    let numbers: Vec<&str> = places
        .iter()
        .filter(|leaf| leaf.value.is_i64() && !leaf.key.starts_with("/format"))
        .map(|leaf| leaf.key.as_str())
        .collect();
    let (mut seed, mut shown) = (7u64, 0);
    let mut roll = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..60 {
        let mut damaged = honest.clone();
        for _ in 0..12 {
            let place = numbers[roll(numbers.len())];
            let values = [0, 1, -1, i64::MAX, i64::MIN, i64::MAX / 3, -777];
            let was = damaged.pointer(place).unwrap().clone();
            *damaged.pointer_mut(place).unwrap() = Value::from(values[roll(values.len())]);
            // A count below nothing is no outcome.
            if serde_json::from_value::<Outcome>(damaged.clone()).is_err() {
                *damaged.pointer_mut(place).unwrap() = was;
            }
        }
        let outcome = serde_json::from_value(damaged).unwrap();
        check("damaged", &Found { outcome, sensitivity: None });
        shown += 1;
    }
    assert_eq!(shown, 60);
}

/// The command: files, text, exit codes.
#[test]
fn the_command_writes_what_it_is_asked_for() {
    let dir = std::env::temp_dir().join(format!("tandem-report-{}", std::process::id()));
    let place = |name: &str| dir.join(name);
    let put = |name: &str, found: &Found| {
        fs::create_dir_all(place(name)).unwrap();
        let text = serde_json::to_string(&found.outcome).unwrap();
        fs::write(place(name).join(OUTCOME), text).unwrap();
        if let Some(cases) = &found.sensitivity {
            let text = serde_json::to_string(cases).unwrap();
            fs::write(place(name).join(SENSITIVITY), text).unwrap();
        }
    };
    put("good", &fixtures::day());
    put("void", &fixtures::void());
    put("bad", &fixtures::none());
    fs::write(place("bad").join(OUTCOME), "{\"format\": 1, \"config\": {\"sed\": 1}}").unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["report", "backtest"])
            .arg(place(name))
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (out.status.code(), text, String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (html, json) = (place("page.html"), place("page.json"));
    let files = ["--html", html.to_str().unwrap(), "--out-json", json.to_str().unwrap()];
    let (code, _, error) = run("good", &files);
    assert_eq!(code, Some(0), "{error}");
    let page = fs::read_to_string(&html).unwrap();
    let figures: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert!(
        page.starts_with("<!doctype html>") && 40 < figures["figures"].as_array().unwrap().len()
    );
    let (code, _, error) = run("good", &files);
    assert_eq!(code, Some(2), "files that are there are not replaced: {error}");
    let (code, text, _) = run("good", &[]);
    assert!(code == Some(0) && text.contains("worth of 1 ms less"), "{text}");
    let (code, text, _) = run("void", &[]);
    assert!(code == Some(1) && text.contains("VOID"), "{text}");
    let (code, _, error) = run("bad", &[]);
    assert!(code == Some(1) && error.contains("sed"), "{error}");
    let (code, _, error) = run("nowhere", &[]);
    assert!(code == Some(3) && error.contains("tandem backtest --out"), "{error}");
    fs::remove_dir_all(&dir).unwrap();
}

/// A run that does not add up is void, and nothing else is claimed of it.
#[test]
fn a_void_run_claims_nothing() {
    let found = fixtures::void();
    let report = check("void", &found);
    assert!(!report.is_conserved);
    let ids: BTreeSet<&str> = report.figures.iter().map(|figure| figure.id.as_str()).collect();
    let allowed: BTreeSet<&str> =
        ["conservation", "data", "config", "digest", "seed", "from_ns", "to_ns", "paths"].into();
    assert!(ids.is_subset(&allowed), "{ids:?}");
    assert!(report.html.contains("VOID"));
    // One that says it is conserved, and beside it that it is not, is void.
    let mut lies = fixtures::void();
    lies.outcome.summary.is_conserved = true;
    assert!(!backtest::report(&lies).is_conserved);
}
