//! Stamps that cannot be: what was received before it happened, what goes backwards, what is told twice.
//!
//! Invariant: each file is looked at row by row in its own order, in bounded memory; nothing is corrected here.
//! Received before it happened and going backwards by our own stamp, and what is told twice, are reasons to
//! refuse a file; a venue's stamps that go backwards are told alone: a receiver does see them so.
//!
//! Not here: how rows are put right (`merge`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use serde::Serialize;

use super::row::{Row, What};

/// Trade numbers of an instrument that are remembered, to find one that is told again.
const IDS_MAX: usize = 4_096;

/// Rows of one kind of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How many.
    pub count: u64,
    /// Line of the first.
    pub first_line: u64,
    /// The worst of them, ns.
    pub worst_ns: i64,
}

impl Finding {
    fn note(&mut self, line: u64, ns: i64) {
        if self.count == 0 {
            self.first_line = line;
        }
        self.count += 1;
        self.worst_ns = self.worst_ns.max(ns);
    }
}

/// What was found in a file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: &'static str,
    /// Rows.
    pub rows: u64,
    /// First and last moment of receipt, UNIX ns.
    pub first_ns: i64,
    /// As above.
    pub last_ns: i64,
    /// Least time from the venue's stamp to ours, ns; nothing where the venue told none.
    pub latency_min_ns: Option<i64>,
    /// Received before the venue's time.
    pub negative_latency: Finding,
    /// Received before a row that stands above it.
    pub unordered: Finding,
    /// The same row again, or the same trade.
    pub repeated: Finding,
    /// Of an earlier time by the venue's clock than the instrument's row above it.
    pub venue_unordered: Finding,
    /// Floats that stood a little off a decimal.
    pub rounded: u64,
    /// Rows that say again what others say, in the exchange's order: passed over.
    pub passed_over: u64,
    /// Rows of books of which no snapshot was seen yet: left out.
    pub before_snapshot: u64,
}

impl FileReport {
    /// Returns why the file is refused unless it is corrected: a line each, naming file and line.
    #[must_use]
    pub fn refusals(&self, is_row: bool) -> Vec<String> {
        let line = if is_row { "row" } else { "line" };
        let mut told = Vec::new();
        let mut tell = |finding: Finding, what: &str, fix: &str| {
            if finding.count != 0 {
                let Finding { count, first_line, worst_ns } = finding;
                let worst = match worst_ns {
                    0 => String::new(),
                    ns => format!(", the worst by {}", duration(ns)),
                };
                told.push(format!(
                    "{}: {line} {first_line}: {what} ({count} such{worst}); {fix}",
                    self.path.display()
                ));
            }
        };
        tell(
            self.negative_latency,
            "received before the venue's time",
            "two clocks differ: --correct-clocks moves the venue's",
        );
        tell(
            self.unordered,
            "received before the one above it",
            "sort the file, or --correct-clocks with --reorder-ms as large as the worst",
        );
        tell(
            self.repeated,
            "told a second time",
            "remove what is there twice, or --correct-clocks leaves it out",
        );
        told
    }
}

/// A duration for people.
#[must_use]
pub fn duration(ns: i64) -> String {
    let ns = ns as f64;
    match ns.abs() {
        size if 1e9 <= size => format!("{:.3} s", ns / 1e9),
        size if 1e6 <= size => format!("{:.3} ms", ns / 1e6),
        _ => format!("{:.3} µs", ns / 1e3),
    }
}

/// What was seen of an instrument in a file.
#[derive(Debug, Default)]
struct Seen {
    last: Option<Row>,
    venue_ns: i64,
    ids: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Whether a row was told before: the same one just above it, or the same trade lately.
    fn is_repeated(&mut self, row: &Row) -> bool {
        match row.what {
            What::Trade { id: 0, .. } => false,
            What::Trade { id, .. } => {
                if !self.ids.insert(id) {
                    return true;
                }
                self.order.push_back(id);
                if IDS_MAX < self.order.len()
                    && let Some(old) = self.order.pop_front()
                {
                    self.ids.remove(&old);
                }
                false
            }
            _ => {
                let same = |last: &Row| Row { line: row.line, ..*last } == *row;
                let repeated = self.last.as_ref().is_some_and(same);
                self.last = Some(*row);
                repeated
            }
        }
    }
}

/// Finds rows that are told a second time.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: BTreeMap<u16, Seen>,
}

impl Repeats {
    /// Takes a row of a file in the file's order; returns whether it was told before.
    pub fn take(&mut self, instrument: u16, row: &Row) -> bool {
        self.seen.entry(instrument).or_default().is_repeated(row)
    }
}

/// Looks at a file's stamps.
#[derive(Debug, Default)]
pub struct Checker {
    repeats: Repeats,
    last_ns: i64,
    /// What was found so far.
    pub report: FileReport,
}

impl Checker {
    /// Takes a row in the file's order.
    pub fn take(&mut self, instrument: u16, row: &Row) {
        let report = &mut self.report;
        report.rows += 1;
        if report.rows == 1 {
            report.first_ns = row.recv_ns;
        }
        report.first_ns = report.first_ns.min(row.recv_ns);
        if row.recv_ns < self.last_ns {
            report.unordered.note(row.line, self.last_ns - row.recv_ns);
        }
        self.last_ns = self.last_ns.max(row.recv_ns);
        report.last_ns = self.last_ns;
        if self.repeats.take(instrument, row) {
            report.repeated.note(row.line, 0);
        }
        if row.venue_ns == 0 {
            return;
        }
        let latency = row.recv_ns - row.venue_ns;
        report.latency_min_ns = Some(report.latency_min_ns.map_or(latency, |m| m.min(latency)));
        if latency < 0 {
            report.negative_latency.note(row.line, -latency);
        }
        let seen = self.repeats.seen.entry(instrument).or_default();
        if row.venue_ns < seen.venue_ns {
            report.venue_unordered.note(row.line, seen.venue_ns - row.venue_ns);
        }
        seen.venue_ns = seen.venue_ns.max(row.venue_ns);
    }
}
