//! The table of a sweep's results: Parquet, a row for each run, in the order of their numbers.
//!
//! Invariant: the same runs give the same bytes. A row says all that its run was made of (every value of the grid,
//! seed, day, the whole configuration and its hash) and every figure of its summary, typed; a run that failed has
//! its error and no figures. Amounts are exact decimals of the numeraire.
//!
//! Not here: how a Parquet file is written (`crate::reports::sheet`).

use std::path::Path;

use serde_json::Value;
use tandem_backtest::Summary;

use super::SweepError;
use super::grid::{Axis, Job};
use super::runs::{Ended, Fate, Found, Plan, config_hash};
use crate::reports::Exact;
use crate::reports::sheet::{Cell, Column, Format, Holds, Sheet};

/// Columns before those of the grid.
const FIRST: [(&str, Holds); 3] = [("job", Holds::Int), ("seed", Holds::Int), ("day", Holds::Text)];

/// Columns after them.
const LAST: [(&str, Holds); 28] = [
    ("config_hash", Holds::Text),
    ("config", Holds::Text),
    ("error", Holds::Text),
    ("numeraire", Holds::Text),
    ("records", Holds::Int),
    ("from_time", Holds::Time),
    ("to_time", Holds::Time),
    ("is_conserved", Holds::Bool),
    ("digest", Holds::Text),
    ("pnl", Holds::Amount),
    ("pnl_marked", Holds::Amount),
    ("fees", Holds::Amount),
    ("transfer_fees", Holds::Amount),
    ("drawdown", Holds::Amount),
    ("turnover", Holds::Amount),
    ("opportunities", Holds::Int),
    ("rounds", Holds::Int),
    ("rounds_filled", Holds::Int),
    ("rounds_missed", Holds::Int),
    ("rounds_hedged", Holds::Int),
    ("rounds_held", Holds::Int),
    ("rounds_lost", Holds::Int),
    ("orders", Holds::Int),
    ("orders_filled", Holds::Int),
    ("orders_rejected", Holds::Int),
    ("fills", Holds::Int),
    ("seconds", Holds::Int),
    ("numeraire_exponent", Holds::Int),
];

/// Writes the table; `ended` is in the order of the runs' numbers.
pub fn write<'a>(
    path: &Path,
    force: bool,
    plan: &Plan,
    ended: impl Iterator<Item = &'a Ended>,
) -> Result<u64, SweepError> {
    let axes: Vec<Holds> = plan.grid.axes.iter().map(holds).collect();
    let named = |(name, holds): &(&str, Holds)| Column::new(name, *holds);
    let mut columns: Vec<Column> = FIRST.iter().map(named).collect();
    let of_grid = plan.grid.axes.iter().zip(&axes);
    columns.extend(of_grid.map(|(axis, holds)| Column::new(&format!("grid.{}", axis.key), *holds)));
    columns.extend(LAST.iter().map(named));
    let mut sheet = Sheet::begin(path, (Format::Parquet, force), columns)?;
    for ended in ended {
        let job = plan.grid.job(&plan.base, ended.job).map_err(SweepError::Job)?;
        let missing = || SweepError::Job(format!("the grid has no run {}", ended.job));
        sheet.add(row(&job.ok_or_else(missing)?, &axes, ended)?)?;
    }
    Ok(sheet.finish()?)
}

/// What an axis's column holds: all its values are of that type, or else they are written as JSON.
fn holds(axis: &Axis) -> Holds {
    let all = |is: fn(&Value) -> bool| axis.values.iter().all(is);
    match () {
        () if all(Value::is_i64) => Holds::Int,
        () if all(Value::is_boolean) => Holds::Bool,
        () => Holds::Text,
    }
}

fn grid_cell(value: &Value, holds: Holds) -> Cell {
    match (holds, value) {
        (Holds::Int, Value::Number(number)) => number.as_i64().map_or(Cell::Empty, Cell::Int),
        (Holds::Bool, Value::Bool(yes)) => Cell::Bool(*yes),
        (_, Value::String(text)) => Cell::text(text),
        (_, other) => Cell::Text(other.to_string()),
    }
}

fn row(job: &Job, axes: &[Holds], ended: &Ended) -> Result<Vec<Cell>, SweepError> {
    let json = |error: serde_json::Error| SweepError::Job(error.to_string());
    if config_hash(job).map_err(json)? != ended.config {
        return Err(SweepError::Job(format!(
            "run {} was made with another configuration than the grid gives: another version made it; \
             sweep anew, into another folder",
            job.index
        )));
    }
    let config = serde_json::to_string(&job.config).map_err(json)?;
    let mut row = vec![
        whole(job.index),
        whole(job.config.seed),
        job.day.as_ref().map_or(Cell::Empty, |day| Cell::text(day)),
    ];
    row.extend(job.values.iter().zip(axes).map(|(value, holds)| grid_cell(value, *holds)));
    row.extend([Cell::text(&ended.config), Cell::Text(config)]);
    match &ended.fate {
        Fate::Error(error) => {
            row.push(Cell::text(error));
            row.resize(FIRST.len() + axes.len() + LAST.len(), Cell::Empty);
        }
        Fate::Result(found) => {
            row.push(Cell::Empty);
            row.extend(figures(job.index, found)?);
        }
    }
    Ok(row)
}

/// A count of one run; none comes near the end of its type.
fn whole(count: u64) -> Cell {
    Cell::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn figures(job: u64, found: &Found) -> Result<Vec<Cell>, SweepError> {
    let Found { summary, numeraire, records, from_ns, to_ns } = found;
    // Every field by name: a new one does not compile before it has its column.
    let Summary {
        // The job's, which is a column already.
        seed: _,
        is_conserved,
        digest,
        pnl,
        pnl_marked,
        fees,
        transfer_fees,
        drawdown,
        turnover,
        opportunities,
        rounds,
        rounds_filled,
        rounds_missed,
        rounds_hedged,
        rounds_held,
        rounds_lost,
        orders,
        orders_filled,
        orders_rejected,
        fills,
        seconds,
    } = summary;
    let amount = |quanta: &i64| {
        Exact::of(i128::from(*quanta), numeraire.exponent).map(Cell::Amount).ok_or_else(|| {
            let places = numeraire.exponent;
            SweepError::Job(format!("run {job}: a numeraire of {places} places has no column"))
        })
    };
    let mut cells = vec![
        Cell::text(&numeraire.name),
        whole(*records),
        Cell::Time(*from_ns),
        Cell::Time(*to_ns),
        Cell::Bool(*is_conserved),
        Cell::text(digest),
    ];
    for quanta in [pnl, pnl_marked, fees, transfer_fees, drawdown, turnover] {
        cells.push(amount(quanta)?);
    }
    let rounds = [rounds, rounds_filled, rounds_missed, rounds_hedged, rounds_held, rounds_lost];
    cells.push(whole(*opportunities));
    cells.extend(rounds.map(|count| whole(*count)));
    cells.extend([orders, orders_filled, orders_rejected, fills].map(|count| whole(*count)));
    cells.extend([Cell::Int(*seconds), Cell::Int(numeraire.exponent.into())]);
    Ok(cells)
}
