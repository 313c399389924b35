//! The report of a backtest: one HTML page that needs nothing else, and the same figures as JSON.
//!
//! Invariant: a function of `outcome.json` and, where it is there, `sensitivity.json`. Every number of the page is in
//! the JSON with the query that gives it; what only scales a plot is marked so. A run that is not conserved is
//! shown as void, and nothing else of it.
//!
//! Not here: how an outcome comes about (`tandem-backtest`).

pub mod doc;
pub mod draw;
pub mod figures;
mod money;
mod orders;
mod top;
pub mod words;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tandem_backtest::outcome::{FORMAT, Outcome};

use self::doc::Doc;
use self::figures::{Currency, Figure, HOW, Unit};
use super::page;

/// Name of the outcome in a backtest's folder.
pub const OUTCOME: &str = "outcome.json";
/// Name of the runs with other assumptions.
pub const SENSITIVITY: &str = "sensitivity.json";
/// Largest file that is read: an outcome grows with books and hours, not with records.
const BYTES_MAX: u64 = 256 << 20;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BacktestReportError {
    /// No such file, or it cannot be read.
    #[error("{path}: {error}: name the folder that `tandem backtest --out` wrote")]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no such file.
    #[error("{path}: not a backtest's {what} of this build: {detail}")]
    Form {
        /// File.
        path: PathBuf,
        /// Which of the two.
        what: &'static str,
        /// Where and why.
        detail: String,
    },
}

/// One run with one assumption changed.
pub use crate::backtest::sensitivity::Case as Sensitivity;

/// What a backtest left.
#[derive(Clone, Debug)]
pub struct Found {
    /// The run.
    pub outcome: Outcome,
    /// The same with other assumptions, where they were tried.
    pub sensitivity: Option<Vec<Sensitivity>>,
}

impl Found {
    /// Reads a backtest's folder.
    pub fn read(dir: &Path) -> Result<Found, BacktestReportError> {
        let path = dir.join(OUTCOME);
        let outcome: Outcome = parse(&path, "outcome", &load(&path)?)?;
        if outcome.format != FORMAT {
            let detail = format!("format {}, and this build reads {FORMAT}", outcome.format);
            return Err(BacktestReportError::Form { path, what: "outcome", detail });
        }
        let path = dir.join(SENSITIVITY);
        let sensitivity = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            _ => Some(parse(&path, "sensitivity", &load(&path)?)?),
        };
        Ok(Found { outcome, sensitivity })
    }
}

fn load(path: &Path) -> Result<Vec<u8>, BacktestReportError> {
    let wrong = |error| BacktestReportError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).map_err(wrong)?.take(BYTES_MAX).read_to_end(&mut bytes).map_err(wrong)?;
    if BYTES_MAX <= bytes.len() as u64 {
        let detail = format!("{BYTES_MAX} bytes or more");
        return Err(BacktestReportError::Form { path: path.to_owned(), what: "outcome", detail });
    }
    Ok(bytes)
}

fn parse<T: for<'de> Deserialize<'de>>(
    path: &Path,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, BacktestReportError> {
    serde_json::from_slice(bytes).map_err(|error| BacktestReportError::Form {
        path: path.to_owned(),
        what,
        detail: error.to_string(),
    })
}

/// The report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether every asset's sums agree.
    pub is_conserved: bool,
    /// How queries are read.
    pub how: &'static str,
    /// Every number of the page.
    pub figures: Vec<Figure>,
    /// The page.
    #[serde(skip)]
    pub html: String,
}

/// Makes the report.
#[must_use]
pub fn report(found: &Found) -> Report {
    let outcome = &found.outcome;
    let unit = &outcome.numeraire;
    let currency = Currency { name: unit.name.clone(), exponent: unit.exponent.min(18) };
    let mut doc = Doc::new(currency);
    let differs = outcome.conservation.iter().any(|one| one.difference != "0");
    let is_conserved = outcome.summary.is_conserved && !differs;
    let sensitivity = found.sensitivity.as_deref();
    if is_conserved {
        top::verdict(&mut doc, outcome, sensitivity);
        top::millisecond(&mut doc, outcome);
        top::headline(&mut doc, outcome);
        money::equity(&mut doc, outcome);
        money::sensitivity(&mut doc, sensitivity);
        money::parts(&mut doc, outcome);
        orders::funnel(&mut doc, outcome);
        orders::edges(&mut doc, outcome);
        orders::lateness(&mut doc, outcome);
        money::inventory(&mut doc, outcome);
        orders::one_leg(&mut doc, outcome);
        orders::venues(&mut doc, outcome);
        orders::levels(&mut doc, outcome);
        orders::calibration(&mut doc, outcome);
        doc.section("conservation", "Conservation");
        top::conservation(&mut doc, outcome);
        doc.end();
    } else {
        top::void(&mut doc, outcome);
    }
    orders::assumed(&mut doc, outcome);
    let period = period(&mut doc, outcome);
    let html = whole(&doc, &period, is_conserved);
    Report { is_conserved, how: HOW, figures: doc.figures, html }
}

const STYLE: &str = include_str!("report.css");

/// The links at the top, in the order of the sections.
const NAV: [(&str, &str); 9] = [
    ("millisecond", "1 ms"),
    ("equity", "Equity"),
    ("sensitivity", "Sensitivity"),
    ("parts", "Where it came from"),
    ("funnel", "Opportunities"),
    ("edges", "Edge"),
    ("lateness", "Lateness"),
    ("inventory", "Inventory"),
    ("assumed", "Assumptions"),
];

/// From when to when.
fn period(doc: &mut Doc, outcome: &Outcome) -> String {
    let data = &outcome.data;
    if data.records == 0 {
        return "no market record was read".to_owned();
    }
    let mut of = |id: &str, title: &str, at: i64| {
        doc.one(id, title, Unit::Moment, &format!("{{outcome.json#/data/{id}}}"), at)
    };
    let from = of("from_ns", "First record", data.from_ns);
    let to = of("to_ns", "Last record", data.to_ns);
    format!("{from} to {to} UTC")
}

fn whole(doc: &Doc, period: &str, is_conserved: bool) -> String {
    let theme = "<fieldset class=\"theme\"><legend>Colours</legend>\
         <label><input type=\"radio\" name=\"theme\" id=\"theme-auto\" checked>as the system</label>\
         <label><input type=\"radio\" name=\"theme\" id=\"theme-light\">light</label>\
         <label><input type=\"radio\" name=\"theme\" id=\"theme-dark\">dark</label></fieldset>";
    let mut links = String::new();
    for (id, name) in NAV.iter().filter(|_| is_conserved) {
        links.push_str(&format!("<a href=\"#{id}\"><span data-name>{name}</span></a>"));
    }
    let nav = if links.is_empty() {
        String::new()
    } else {
        format!("<nav aria-label=\"Sections\">{links}</nav>\n")
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Backtest</title>\n<style>\n{}\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>Backtest</h1>\n\
         <p class=\"period\">{period}</p>\n{theme}\n{nav}</header>\n<main>\n{}</main>\n</body>\n</html>\n",
        page::STYLE,
        doc.out,
    )
}
