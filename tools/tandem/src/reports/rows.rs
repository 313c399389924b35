//! Records and the rows they make, in one reading.
//!
//! Invariant: every record is shown once, in order, with its run and the rows that it completes; what is missing
//! is told on standard error by the reader. Nothing is kept but the projector's own small state.
//!
//! Not here: the rows themselves (`tandem_drain::rows`).

use tandem_core::record::Record;
use tandem_drain::rows::{Projector, Row, Value};
use tandem_drain::run::RunInfo;
use tandem_shm::JournalError;

use super::Exact;
use crate::progress::Progress;
use crate::records::{Origin, Records};
use crate::table;

/// Records between two looks at the clock of a progress bar.
const STEP: u64 = 4_096;

/// Reads everything: each record with the run it belongs to and its rows.
pub fn read<E: From<JournalError>>(
    origin: impl Into<Origin>,
    mut each: impl FnMut(&Record, Option<&RunInfo>, Vec<Row>) -> Result<(), E>,
) -> Result<(), E> {
    let mut records = Records::open(origin)?;
    // Which journal a row is of is not asked here: runs are never numbered twice.
    let mut projector = Projector::new(0, table::run_info);
    let (progress, mut count, mut rows) = (Progress::count("records"), 0u64, Vec::new());
    while let Some(record) = records.next()? {
        projector.take(&record, &mut rows);
        each(&record, projector.run(), std::mem::take(&mut rows))?;
        count += 1;
        if count.is_multiple_of(STEP) {
            progress.add(STEP);
        }
    }
    progress.end();
    Ok(())
}

/// Returns a column's text; empty where it has none.
#[must_use]
pub fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    match row.get(column) {
        Some(Value::Text(text) | Value::Json(text)) => text,
        _ => "",
    }
}

/// Returns a column's whole number or moment.
#[must_use]
pub fn number(row: &Row, column: &str) -> Option<i64> {
    match row.get(column)? {
        Value::Int2(number) => Some((*number).into()),
        Value::Int4(number) | Value::Date(number) => Some((*number).into()),
        Value::Int8(number) | Value::Time(number) => Some(*number),
        _ => None,
    }
}

/// Returns a column's amount.
#[must_use]
pub fn amount(row: &Row, column: &str) -> Option<Exact> {
    match row.get(column)? {
        Value::Numeric { quanta, exponent } => Exact::of(*quanta, *exponent),
        _ => None,
    }
}

/// Returns a column's yes or no; no where it was not told.
#[must_use]
pub fn yes(row: &Row, column: &str) -> bool {
    matches!(row.get(column), Some(Value::Bool(true)))
}
