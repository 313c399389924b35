//! Orders and their fills.
//!
//! Invariant: as in `tandem orders`: nothing is inferred, a fill counts once by the venue's trade id, one that
//! was taken back stays and is marked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tandem_core::instrument::AssetId;
use tandem_core::order::{
    ClientId, DoneStatus, FillTerms, NewOrder, OrderKey, Purpose, RejectClass, Report, UnknownCause,
};
use tandem_core::record::{Kind, Record, flag};
use tandem_core::units::Qty;

use super::views::{FillView, OrderView, action_name};
use crate::run::RunInfo;

/// Orders that are kept.
const ORDERS_MAX: usize = 4_000;
/// Fills of one order that are kept.
const FILLS_MAX: usize = 200;

/// The newest orders.
#[derive(Default)]
pub struct Orders {
    rows: BTreeMap<(u32, i64), (Arc<OrderView>, i64)>,
    came: VecDeque<(u32, i64)>,
    /// Orders and fills since the oldest record that was read.
    pub(super) count: u64,
    pub(super) fills: u64,
}

const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Entry => "entry",
        Purpose::Hedge => "hedge",
        Purpose::Unwind => "unwind",
        Purpose::Operator => "operator",
    }
}

const fn unknown_name(cause: UnknownCause) -> &'static str {
    match cause {
        UnknownCause::Timeout => "no reply in time",
        UnknownCause::Disconnect => "the connection was lost with it",
        UnknownCause::Venue => "the venue does not know",
        UnknownCause::Unreadable => "the reply could not be read",
        UnknownCause::Restart => "the process that sent it died",
    }
}

const fn done_name(status: DoneStatus, filled: bool) -> &'static str {
    match (status, filled) {
        (DoneStatus::Filled, _) => "filled",
        (_, true) => "partial",
        (DoneStatus::Cancelled, _) => "cancelled",
        (DoneStatus::Expired, _) => "expired",
        (DoneStatus::SelfTradePrevented, _) => "self-trade prevented",
        (DoneStatus::NeverAccepted, _) => "never accepted",
    }
}

impl Orders {
    /// Takes a record about orders; returns whether it changed a row. `rev` is the row's revision then.
    pub(super) fn take(&mut self, run: &RunInfo, record: &Record, rev: u64) -> bool {
        if record.kind() == Some(Kind::OrderNew) {
            return self.on_new(run, record, rev);
        }
        let Some((of_run, key, report)) = Report::read(record) else { return false };
        let Some((row, filled)) = self.rows.get_mut(&(of_run, key.0)) else { return false };
        let at_us = record.engine_ts_ns / 1_000;
        let row = Arc::make_mut(row);
        let is_over = row.ended_us.is_some();
        if !matches!(report, Report::Sent { .. } | Report::Unknown { .. }) {
            row.acked_us = row.acked_us.or(Some(at_us));
        }
        match report {
            Report::Sent { at_ns, .. } => {
                row.sent_us = row.sent_us.or(Some(at_ns / 1_000));
                if row.state == "intent" {
                    row.state = "sent";
                }
            }
            Report::Ack { .. } if !is_over => row.state = "live",
            Report::Fill { px, qty, fee, asset, trade_id } => {
                let id = trade_id.to_string();
                if row.fills.iter().any(|fill| fill.trade_id == id) || FILLS_MAX <= row.fills.len()
                {
                    return false;
                }
                let terms = FillTerms { px, qty, fee, asset };
                row.fills.push(fill(run, record, id, &terms));
                *filled += qty.0;
                row.filled = run.qty(record.instrument, *filled);
                self.fills += 1;
            }
            Report::Bust { trade_id, instead } => {
                let id = trade_id.to_string();
                let Some(known) = row.fills.iter_mut().find(|fill| fill.trade_id == id) else {
                    return false;
                };
                match instead {
                    Some(terms) => *known = fill(run, record, id, &terms),
                    None => known.busted = true,
                }
            }
            Report::Done { status, .. } if !is_over => {
                row.state = done_name(status, Qty(*filled) != Qty(0));
                row.ended_us = Some(at_us);
            }
            Report::Reject { class, code } if !is_over => {
                row.state = "rejected";
                row.detail = Some(format!("{} (code {code})", RejectClass::name(class)));
                row.ended_us = Some(at_us);
            }
            Report::Unknown { cause } => {
                row.unknown += 1;
                if !is_over {
                    row.state = "unknown";
                    row.detail = Some(unknown_name(cause).to_owned());
                }
            }
            _ => {}
        }
        row.rev = rev;
        true
    }

    fn on_new(&mut self, run: &RunInfo, record: &Record, rev: u64) -> bool {
        let Some(new) = NewOrder::read(record) else { return false };
        let name = (new.run, new.key.0);
        // Without the mark it is an older run's order that a new engine was told of.
        if !record.has(flag::OUTPUT) || self.rows.contains_key(&name) {
            return false;
        }
        let row = OrderView {
            rev,
            run: new.run,
            client_id: ClientId::new(new.run, new.key).as_str().to_owned(),
            round: OrderKey::round(new.key),
            venue: new.venue.name(),
            symbol: run.symbol(new.instrument).to_owned(),
            action: action_name(new.action),
            purpose: purpose_name(new.purpose),
            px: run.px(new.instrument, new.px.0),
            qty: run.qty(new.instrument, new.qty.0),
            filled: run.qty(new.instrument, 0),
            state: "intent",
            detail: None,
            made_us: record.engine_ts_ns / 1_000,
            sent_us: None,
            acked_us: None,
            ended_us: None,
            unknown: 0,
            fills: Vec::new(),
        };
        self.count += 1;
        self.rows.insert(name, (Arc::new(row), 0));
        self.came.push_back(name);
        if ORDERS_MAX < self.came.len()
            && let Some(oldest) = self.came.pop_front()
        {
            self.rows.remove(&oldest);
        }
        true
    }

    /// Returns the orders that changed after a revision, the newest first.
    pub fn newest(&self, after: u64) -> impl Iterator<Item = &Arc<OrderView>> {
        let rows = self.came.iter().rev().filter_map(|name| self.rows.get(name));
        rows.map(|(row, _)| row).filter(move |row| after < row.rev)
    }

    /// Returns the orders of a round, the oldest first.
    pub fn of_round(&self, run: u32, round: u64) -> impl Iterator<Item = &Arc<OrderView>> {
        let rows = self.came.iter().filter_map(|name| self.rows.get(name));
        rows.map(|(row, _)| row).filter(move |row| (row.run, row.round) == (run, round))
    }

    /// Returns how many orders there were, and fills.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.count, self.fills)
    }
}

fn fill(run: &RunInfo, record: &Record, trade_id: String, terms: &FillTerms) -> FillView {
    let asset = AssetId(terms.asset);
    FillView {
        at_us: record.engine_ts_ns / 1_000,
        trade_id,
        px: run.px(record.instrument, terms.px.0),
        qty: run.qty(record.instrument, terms.qty.0),
        fee: run.amount(asset, terms.fee.0),
        fee_asset: run.asset(asset).to_owned(),
        busted: false,
    }
}
