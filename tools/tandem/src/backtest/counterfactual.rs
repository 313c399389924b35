//! Every opportunity, taken or not, as its orders would have found it: one row each.
//!
//! Invariant: rows come in the order in which the last look ended. Amounts are of the numeraire, exact.
//!
//! Not here: how it is found (`tandem-backtest`).

use std::path::Path;

use tandem_backtest::{Counterfactual, LATE_US, Plan};
use tandem_core::record::Venue;

use super::BacktestError;
use crate::reports::Exact;
use crate::reports::sheet::{Cell, Column, Format, Holds, Sheet, SheetError};

/// Writes the rows.
pub struct Sheets {
    sheet: Sheet,
    exponent: u8,
    failure: Option<SheetError>,
}

impl Sheets {
    /// Begins a file: Parquet where its name ends so, else CSV.
    pub fn begin(path: &Path, plan: &Plan) -> Result<Sheets, BacktestError> {
        let is_parquet = path.extension().is_some_and(|end| end == "parquet");
        let format = if is_parquet { Format::Parquet } else { Format::Csv };
        let mut columns = vec![
            Column::new("opportunity", Holds::Int),
            Column::new("cycle", Holds::Int),
            Column::new("first_seen", Holds::Time),
            Column::new("expected", Holds::Amount),
        ];
        for us in LATE_US {
            let name = match us {
                0 => "punctual".to_owned(),
                us if us < 0 => format!("earlier_{}us", -us),
                us => format!("later_{us}us"),
            };
            columns.push(Column::new(&format!("net_{name}"), Holds::Amount));
            columns.push(Column::new(&format!("filled_{name}"), Holds::Bool));
        }
        for venue in Venue::ALL {
            columns.push(Column::new(&format!("net_{}_1ms_later", venue.name()), Holds::Amount));
        }
        let numeraire = plan.trading.numeraire;
        let exponent = plan.universe.exponent(numeraire);
        Ok(Sheets { sheet: Sheet::begin(path, (format, false), columns)?, exponent, failure: None })
    }

    /// Adds an opportunity.
    pub fn add(&mut self, seen: &Counterfactual) {
        if self.failure.is_some() {
            return;
        }
        let amount = |quanta: i64| Cell::Amount(Exact::quanta(quanta, self.exponent));
        let mut row = vec![
            Cell::Int(seen.opportunity),
            Cell::Int(i64::from(seen.cycle)),
            Cell::Time(seen.first_ns),
            amount(seen.expected),
        ];
        for (is_whole, net) in seen.late {
            row.extend([amount(net), Cell::Bool(is_whole)]);
        }
        row.extend(seen.venue_late.map(amount));
        self.failure = self.sheet.add(row).err();
    }

    /// Ends the file: it is there, or the first error is told.
    pub fn finish(self) -> Result<u64, BacktestError> {
        match self.failure {
            Some(error) => Err(error.into()),
            None => Ok(self.sheet.finish()?),
        }
    }
}
