//! What the gateway before this one has told: its reports outlive it in shared memory.
//!
//! Invariant: an order counts as settled only where its end was told with every fill of it; what was published
//! is taken by the engine whoever died. Anything less is asked about by whoever comes after.
//!
//! Not here: what is done with the others (`gateway`), how the ring is read (`tile`).

use std::collections::HashMap;

use tandem_core::order::{OrderKey, Report};
use tandem_core::record::Record;
use tandem_core::units::Qty;

/// What was told of each order.
#[derive(Debug, Default)]
pub struct Predecessor {
    told: HashMap<(u32, i64), Told>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    filled: i64,
    /// Filled in all by its end; nothing before it.
    end: Option<i64>,
    /// Something was told after which an end is no end.
    in_doubt: bool,
}

impl Predecessor {
    /// Takes one of its records.
    pub fn take(&mut self, record: &Record) {
        let Some((run, key, report)) = Report::read(record) else { return };
        let told = self.told.entry((run, key.0)).or_default();
        match report {
            Report::Fill { qty, .. } => told.filled = told.filled.saturating_add(qty.0),
            Report::Done { qty, .. } => told.end = Some(qty.0.max(told.end.unwrap_or(0))),
            Report::Reject { .. } => told.end = Some(told.end.unwrap_or(0)),
            Report::Totals { qty: Qty(qty), .. } => {
                told.end = told.end.map(|end| end.max(qty));
            }
            Report::Bust { .. } => told.in_doubt = true,
            _ => {}
        }
    }

    /// Returns whether nothing is left to be asked about an order.
    #[must_use]
    pub fn has_settled(&self, run: u32, key: OrderKey) -> bool {
        self.told
            .get(&(run, key.0))
            .is_some_and(|told| !told.in_doubt && told.end.is_some_and(|end| end == told.filled))
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::order::{DoneStatus, RejectClass};
    use tandem_core::record::Venue;
    use tandem_core::units::{Amount, Px};

    use super::*;

    /// Row PR-02. An end counts with all its fills, in whatever order they were told.
    #[test]
    fn an_order_is_settled_with_its_end_and_its_fills() {
        let fill = |qty| Report::Fill {
            px: Px(1),
            qty: Qty(qty),
            fee: Amount(0),
            asset: 0,
            trade_id: 1 + qty as u64,
        };
        let done = |qty| Report::Done { status: DoneStatus::Expired, qty: Qty(qty) };
        let reject = Report::Reject { class: RejectClass::Filter, code: 0 };
        let sent = Report::Sent { at_ns: 1, tsc: 1 };
        let cases: [(&[Report], bool); 9] = [
            (&[], false),
            (&[sent], false),
            (&[sent, reject], true),
            (&[sent, done(0)], true),
            (&[sent, fill(3), done(3)], true),
            (&[sent, done(3), fill(1), fill(2)], true),
            (&[sent, fill(1), done(3)], false),
            (&[sent, fill(3)], false),
            // A fill after an end that knew of none.
            (&[sent, done(0), fill(3)], false),
        ];
        let key = OrderKey::new(7, 1);
        for (reports, settled) in cases {
            let mut before = Predecessor::default();
            for report in reports {
                before.take(&report.record(Venue::Kraken, 2, 5, key));
            }
            assert_eq!(before.has_settled(5, key), settled, "{reports:?}");
            assert!(!before.has_settled(6, key) && !before.has_settled(5, OrderKey::new(7, 2)));
        }
    }
}
