//! The exports: fills and disposals, audit, ledger, opportunities.
//!
//! Invariant: a table has the same columns whatever is in the journal, and its rows are in the journal's order
//! (opportunities: in the order in which they were over). Nothing is left out but what lies outside of the period.
//!
//! Not here: how fills are counted (`fills`), how files are written (`sheet`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use tandem_drain::rows::{Row, Table, Type, Value};

use super::fills::{self, Fills, FillsError, Method};
use super::period::Period;
use super::rows;
use super::sheet::{Cell, Column, Format, Holds, Sheet, SheetError};
use super::{Exact, period};
use crate::latch::Latch;
use crate::records::Origin;

/// Records between two looks for opportunities that are over.
const SWEEP: u64 = 65_536;
/// An opportunity that closed so long ago is told nothing more about.
const OVER_NS: i64 = 60_000_000_000;

/// Where a table goes, and which rows.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its form.
    pub format: Format,
    /// An old file is replaced.
    pub force: bool,
    /// Rows of when.
    pub period: Period,
}

impl Target<'_> {
    fn begin(&self, columns: Vec<Column>) -> Result<Sheet, SheetError> {
        Sheet::begin(self.path, (self.format, self.force), columns)
    }
}

/// What was exported, for people and scripts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Exported {
    /// Rows in the file.
    pub rows: u64,
    /// What is not as it should be; empty where all is.
    pub problems: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
}

/// Which table of fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillTable {
    /// A row a fill.
    Fills,
    /// A row for each lot that was used.
    Disposals,
}

/// Exports fills, or what they disposed of lot by lot.
pub fn fills(
    origin: impl Into<Origin>,
    target: Target<'_>,
    which: FillTable,
    method: Method,
) -> Result<Exported, FillsError> {
    let columns = match which {
        FillTable::Fills => fills::columns(),
        FillTable::Disposals => fills::disposal_columns(),
    };
    let mut sheet = target.begin(columns)?;
    let (mut all, mut unvalued, mut uncovered) = (Fills::new(method), 0u64, 0u64);
    let mut totals: BTreeMap<&'static str, (u64, Exact)> = BTreeMap::new();
    let mut tell = |entry: fills::Entry, numeraire: &str| {
        if !target.period.holds(entry.at_ns) {
            return Ok(());
        }
        unvalued += u64::from(entry.is_unvalued());
        uncovered += u64::from(entry.is_uncovered());
        let total = totals.entry(entry.entry).or_default();
        *total = (total.0 + 1, total.1.plus(entry.gain().unwrap_or_default()));
        match which {
            FillTable::Fills => sheet.add(entry.cells(numeraire)),
            FillTable::Disposals => {
                entry.disposals(numeraire).into_iter().try_for_each(|row| sheet.add(row))
            }
        }
    };
    read_fills(origin, &mut all, &mut tell)?;
    let mut exported = Exported { rows: sheet.finish()?, ..Exported::default() };
    let numeraire = all.numeraire();
    for (entry, (count, gain)) in totals {
        exported.notes.push(format!("{count} {entry}: gains {gain} {numeraire}"));
    }
    let accounts = all.check.flows.len();
    let differing: Vec<String> = all
        .check
        .differing()
        .map(|((venue, asset, account), by)| {
            format!("{venue} {asset} {account}: the fills differ from the ledger by {by}")
        })
        .collect();
    if differing.is_empty() {
        let text = format!("ledger: {accounts} flows of the fills equal to its postings");
        exported.notes.push(text);
    }
    exported.problems.extend(differing);
    let mut count = |number: u64, what: &str| {
        if number != 0 {
            exported.problems.push(format!("{number} {what}"));
        }
    };
    count(
        unvalued,
        "rows without a worth: no book in the journal trades the asset against the numeraire",
    );
    count(
        uncovered,
        "rows with a quantity that no lot covers, counted as without cost: give --opening-cost",
    );
    count(
        all.unknown_orders,
        "fills of orders that this journal does not have: their side is not known",
    );
    for (venue, asset) in all.unused_costs() {
        let text = format!("opening cost of {asset} at {venue}: no opening balance in the journal");
        exported.problems.push(text);
    }
    Ok(exported)
}

/// Reads a journal's fills; `tell` is given the numeraire too.
pub fn read_fills(
    origin: impl Into<Origin>,
    all: &mut Fills,
    mut tell: impl FnMut(fills::Entry, &str) -> Result<(), SheetError>,
) -> Result<(), FillsError> {
    let mut ready = Vec::new();
    rows::read::<FillsError>(origin, |record, run, _| {
        all.take(record, run, |entry| {
            ready.push(entry);
            Ok(())
        })?;
        ready.drain(..).try_for_each(|entry| tell(entry, all.numeraire())).map_err(Into::into)
    })?;
    let rest = all.end();
    rest.into_iter().try_for_each(|entry| tell(entry, all.numeraire())).map_err(Into::into)
}

/// How a column of a row stands in a file: what names something is text, whatever it is made of.
fn holds(column: &tandem_drain::rows::Column) -> Holds {
    match (column.name, column.kind) {
        ("trade_id" | "update_id", _) => Holds::Text,
        (_, Type::Bool) => Holds::Bool,
        (_, Type::Int2 | Type::Int4 | Type::Int8) => Holds::Int,
        (_, Type::Numeric) => Holds::Amount,
        (_, Type::Time) => Holds::Time,
        (_, Type::Text | Type::Uuid | Type::Date | Type::Json) => Holds::Text,
    }
}

/// Columns that say nothing in a file: which journal, and what another column says in another form.
fn is_left_out(name: &str) -> bool {
    name == "journal" || name.ends_with("_ns") && name != "duration_ns" && name != "age_ns"
}

/// Returns a table's columns as they stand in a file.
pub(crate) fn columns(table: Table) -> Vec<Column> {
    let kept = table.columns().iter().filter(|column| !is_left_out(column.name));
    kept.map(|column| Column::new(column.name, holds(column))).collect()
}

/// Returns a row's cells, one a column of [`columns`].
pub(crate) fn cells(row: &Row) -> Vec<Cell> {
    let columns = row.table.columns().iter().zip(&row.values);
    let kept = columns.filter(|(column, _)| !is_left_out(column.name));
    kept.map(|(column, value)| match (value, holds(column)) {
        (Value::Null, _) => Cell::Empty,
        (Value::Bool(yes), _) => Cell::Bool(*yes),
        (Value::Int2(number), _) => Cell::Int((*number).into()),
        (Value::Int4(number), _) => Cell::Int((*number).into()),
        (Value::Int8(number), _) => Cell::Int(*number),
        (Value::Text(text) | Value::Json(text), _) => Cell::text(text),
        (Value::Uuid(name), _) => Cell::Text(format!("{name:032x}")),
        (Value::Numeric { quanta, .. }, Holds::Text) => Cell::Text(quanta.to_string()),
        (Value::Numeric { quanta, exponent }, _) => Cell::amount(Exact::of(*quanta, *exponent)),
        (Value::Time(ns), _) => Cell::Time(*ns),
        (Value::Date(day), _) => Cell::Text(period::day_name((*day).into())),
    })
    .collect()
}

/// Exports the ledger's postings.
pub fn ledger(origin: impl Into<Origin>, target: Target<'_>) -> Result<Exported, FillsError> {
    let mut sheet = target.begin(columns(Table::Ledger))?;
    rows::read::<FillsError>(origin, |_, _, rows| {
        for row in rows.iter().filter(|row| row.table == Table::Ledger) {
            if rows::number(row, "at").is_some_and(|at| target.period.holds(at)) {
                sheet.add(cells(row))?;
            }
        }
        Ok(())
    })?;
    Ok(Exported { rows: sheet.finish()?, ..Exported::default() })
}

/// Exports the opportunities, each with its verdict: one row each, when it was first seen in the period.
pub fn opportunities(
    origin: impl Into<Origin>,
    target: Target<'_>,
) -> Result<Exported, FillsError> {
    let mut sheet = target.begin(columns(Table::Opportunities))?;
    let mut open: BTreeMap<(i64, i64), Row> = BTreeMap::new();
    let (mut count, mut now_ns) = (0u64, 0i64);
    let mut tell = |row: &Row| match rows::number(row, "first_at") {
        Some(at) if target.period.holds(at) => sheet.add(cells(row)),
        _ => Ok(()),
    };
    rows::read::<FillsError>(origin, |record, _, rows| {
        now_ns = now_ns.max(record.engine_ts_ns);
        for row in rows.into_iter().filter(|row| row.table == Table::Opportunities) {
            let number = |column| rows::number(&row, column).unwrap_or_default();
            match open.entry((number("run"), number("opportunity"))) {
                std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(row)),
                std::collections::btree_map::Entry::Occupied(mut known) => {
                    known.get_mut().merge(row)
                }
            }
        }
        count += 1;
        if count.is_multiple_of(SWEEP) {
            let is_over = |row: &Row| {
                let last = rows::number(row, "last_at").unwrap_or_default();
                rows::yes(row, "closed") && last.saturating_add(OVER_NS) < now_ns
            };
            for (_, row) in open.extract_if(.., |_, row| is_over(row)) {
                tell(&row)?;
            }
        }
        Ok(())
    })?;
    open.values().try_for_each(&mut tell)?;
    Ok(Exported { rows: sheet.finish()?, ..Exported::default() })
}

fn audit_columns() -> Vec<Column> {
    use Holds::{Int, Text, Time};
    [
        ("at", Time),
        ("seq", Int),
        ("kind", Text),
        ("who", Text),
        ("what", Text),
        ("why", Text),
        ("venue", Text),
        ("symbol", Text),
        ("run", Int),
        ("round", Int),
        ("details", Text),
    ]
    .map(|(name, holds)| Column::new(name, holds))
    .into()
}

/// One line of the audit.
#[derive(Clone, Debug, Default)]
struct Act<'a> {
    at_ns: i64,
    seq: Option<u64>,
    kind: &'a str,
    who: &'a str,
    what: &'a str,
    why: &'a str,
    venue: &'a str,
    symbol: &'a str,
    run: Option<i64>,
    round: Option<i64>,
    details: String,
}

impl Act<'_> {
    fn cells(&self) -> Vec<Cell> {
        let text = |text: &str| if text.is_empty() { Cell::Empty } else { Cell::text(text) };
        let whole = |number: Option<i64>| number.map_or(Cell::Empty, Cell::Int);
        vec![
            Cell::Time(self.at_ns),
            whole(self.seq.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX))),
            text(self.kind),
            text(self.who),
            text(self.what),
            text(self.why),
            text(self.venue),
            text(self.symbol),
            whole(self.run),
            whole(self.round),
            text(&self.details),
        ]
    }
}

/// Reads the operators' log of a state directory, whole lines; those that cannot be read are counted.
fn operators(log: &Path) -> (Vec<Latch>, u64) {
    let Ok(text) = std::fs::read_to_string(log) else { return (Vec::new(), 0) };
    let (mut acts, mut unread) = (Vec::new(), 0);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str(line) {
            Ok(act) => acts.push(act),
            Err(_) => unread += 1,
        }
    }
    (acts, unread)
}

/// Exports decisions and acts: levels, commands, controls that raised, reconciliations, configurations, rounds,
/// and from the operators' log who did it and in whose words.
pub fn audit(
    origin: impl Into<Origin>,
    target: Target<'_>,
    log: Option<&Path>,
) -> Result<Exported, FillsError> {
    let mut sheet = target.begin(audit_columns())?;
    let mut exported = Exported::default();
    let (acts, unread) = log.map(operators).unwrap_or_default();
    match log {
        None => exported.notes.push(
            "without a configuration nobody knows where the operators' log is: who and why are the journal's"
                .to_owned(),
        ),
        Some(log) if acts.is_empty() => {
            exported.notes.push(format!("{}: no operator's act in it", log.display()));
        }
        Some(_) => {}
    }
    if unread != 0 {
        exported.problems.push(format!("{unread} lines of the operators' log cannot be read"));
    }
    let (mut acts, mut hashes) = (acts.into_iter().peekable(), BTreeSet::new());
    let period = target.period;
    rows::read::<FillsError>(origin, |record, _, found| {
        for row in &found {
            let (at_ns, text) = (rows::number(row, "at"), |column| rows::text(row, column));
            let number = |column| rows::number(row, column);
            let (seq, mut details) = (Some(row.seq), String::new());
            let act = match row.table {
                Table::Audit => Act {
                    kind: text("kind"),
                    who: "engine",
                    what: text("what"),
                    why: text("cause"),
                    venue: text("venue"),
                    symbol: text("symbol"),
                    details: text("details").to_owned(),
                    ..Act::default()
                },
                Table::Runs => {
                    let is_new = hashes.insert(text("config_hash").to_owned());
                    details.push_str(&format!("configuration {}", text("config_hash")));
                    let why =
                        if is_new { "another configuration" } else { "the same configuration" };
                    let run = number("run");
                    Act {
                        kind: "run",
                        who: "engine",
                        what: text("mode"),
                        why,
                        run,
                        ..Act::default()
                    }
                }
                Table::RoundStages => {
                    let amount = |column| rows::amount(row, column).unwrap_or_default();
                    details = format!(
                        "realised {}, worth {}, hedges {}",
                        amount("realised"),
                        amount("worth"),
                        number("hedges").unwrap_or_default()
                    );
                    let (run, round) = (number("run"), number("round"));
                    let what = text("stage");
                    Act { kind: "round", who: "engine", what, run, round, ..Act::default() }
                }
                Table::VenueEvents if matches!(text("kind"), "process" | "gap" | "session") => {
                    Act {
                        kind: text("kind"),
                        who: "engine",
                        what: text("what"),
                        why: text("reason"),
                        venue: text("venue"),
                        symbol: text("symbol"),
                        ..Act::default()
                    }
                }
                _ => continue,
            };
            let at_ns = at_ns.or(number("started_at")).unwrap_or(record.engine_ts_ns);
            let details = if act.details.is_empty() { details } else { act.details.clone() };
            while let Some(latch) = acts.next_if(|latch| latch.at_ns <= at_ns) {
                tell_latch(&mut sheet, period, &latch)?;
            }
            if period.holds(at_ns) {
                sheet.add(Act { at_ns, seq, details, ..act }.cells())?;
            }
        }
        Ok(())
    })?;
    for latch in acts {
        tell_latch(&mut sheet, period, &latch)?;
    }
    exported.rows = sheet.finish()?;
    Ok(exported)
}

fn tell_latch(sheet: &mut Sheet, period: Period, latch: &Latch) -> Result<(), SheetError> {
    if !period.holds(latch.at_ns) {
        return Ok(());
    }
    let act = Act {
        at_ns: latch.at_ns,
        kind: "operator",
        who: &latch.who,
        what: &latch.global,
        why: &latch.reason,
        details: serde_json::json!({ "venues": latch.venues, "cause": latch.cause }).to_string(),
        ..Act::default()
    };
    sheet.add(act.cells())
}
