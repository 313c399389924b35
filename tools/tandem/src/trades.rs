//! The orders of a journal: every intent, what was reported of it, and how it ended.
//!
//! Invariant: nothing is inferred. An order is what its intent said; its fills are those with a venue's
//! own trade id, each once; an order without an end is open, whatever the clock says. A fill that was
//! taken back stays in its order's history and is marked; one that was corrected is what it is now.
//!
//! Not here: what the engine made of it (`tandem-core::ledger`), what the venue says (`tandem-gateway`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tandem_core::order::{
    Action, ClientId, DoneStatus, FillTerms, NewOrder, OrderKey, Purpose, RejectClass, Report,
};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::units::{Amount, Px, Qty};
use tandem_shm::JournalError;

use crate::records::{Origin, Records};
use crate::table::{Collector, Table, TableError};

/// Why the orders cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TradesError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The configuration in it.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// One fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The venue's trade id, or its hash.
    pub trade_id: u64,
    /// Price.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Fee.
    pub fee: Amount,
    /// Asset index of the fee.
    pub fee_asset: u16,
    /// When the engine took it, UNIX ns.
    pub at_ns: i64,
    /// It came after the order's end was told.
    pub late: bool,
    /// The venue took it back: it moved nothing.
    pub busted: bool,
}

impl Fill {
    /// The venue said what it is from now on; nothing where it was taken back.
    fn becomes(&mut self, instead: Option<FillTerms>) {
        self.busted = instead.is_none();
        if let Some(is) = instead {
            (self.px, self.qty, self.fee, self.fee_asset) = (is.px, is.qty, is.fee, is.asset);
        }
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In the venue's words.
    Done(DoneStatus),
    /// Refused for certain.
    Rejected(RejectClass, i64),
}

/// One order.
#[derive(Clone, Debug)]
pub struct Order {
    /// The intent.
    pub new: NewOrder,
    /// The instruments it was made with.
    pub table: Rc<Table>,
    /// When the engine made it, UNIX ns.
    pub made_ns: i64,
    /// Ring and sequence of the record that made the engine decide.
    pub trigger: (u16, u64),
    /// When its bytes were handed to the socket, UNIX ns.
    pub sent_ns: Option<i64>,
    /// When the first word of the venue came, UNIX ns.
    pub acked_ns: Option<i64>,
    /// Its fills.
    pub fills: Vec<Fill>,
    /// How often its outcome was unknown.
    pub unknown: u32,
    /// A cancel was asked for.
    pub cancel: bool,
    /// How it ended.
    pub end: Option<End>,
}

impl Order {
    /// Returns the filled quantity.
    #[must_use]
    pub fn filled(&self) -> Qty {
        Qty(self.fills.iter().map(|fill| fill.qty.0).sum())
    }

    /// Returns the fills that the venue did not take back.
    pub fn kept(&self) -> impl Iterator<Item = &Fill> {
        self.fills.iter().filter(|fill| !fill.busted)
    }

    /// Returns the state in a word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.end, self.filled().0) {
            (Some(End::Done(DoneStatus::Filled)), _) => "filled",
            (Some(End::Done(DoneStatus::Cancelled)), 0) => "cancelled",
            (Some(End::Done(DoneStatus::Expired)), 0) => "expired",
            (Some(End::Done(DoneStatus::SelfTradePrevented)), 0) => "self_trade_prevented",
            (Some(End::Done(DoneStatus::NeverAccepted)), 0) => "never_accepted",
            (Some(End::Done(_)), _) => "partial",
            (Some(End::Rejected(..)), _) => "rejected",
            (None, _) if 0 < self.unknown => "unknown",
            (None, _) if self.acked_ns.is_some() => "live",
            (None, _) if self.sent_ns.is_some() => "sent",
            (None, _) => "intent",
        }
    }

    /// Returns the client order id.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        ClientId::new(self.new.run, self.new.key)
    }

    /// Returns what it is for, in a word.
    #[must_use]
    pub const fn purpose(&self) -> &'static str {
        match self.new.purpose {
            Purpose::Entry => "entry",
            Purpose::Hedge => "hedge",
            Purpose::Unwind => "unwind",
            Purpose::Operator => "operator",
        }
    }

    /// Returns `buy` or `sell`.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self.new.action {
            Action::Buy => "buy",
            Action::Sell => "sell",
        }
    }
}

/// Every order of a journal, by run and name.
#[derive(Debug, Default)]
pub struct Trades {
    /// The orders.
    pub orders: BTreeMap<(u32, OrderKey), Order>,
    /// Reports about orders that the journal has no intent of: another machine's, or a lost journal's.
    pub strangers: BTreeSet<(u32, OrderKey)>,
    /// The instruments of the last run.
    pub table: Option<Rc<Table>>,
    seen: BTreeSet<(u8, u16, u64)>,
    /// The last word on fills that were taken back or corrected; it may come before the fill.
    busts: BTreeMap<(u8, u16, u64), Option<FillTerms>>,
}

impl Trades {
    /// Reads a journal.
    pub fn read(journal: impl Into<Origin>) -> Result<Trades, TradesError> {
        Trades::read_with(journal, |_, _| {})
    }

    /// Reads a journal and shows every record with the instruments it belongs to.
    pub fn read_with(
        journal: impl Into<Origin>,
        mut each: impl FnMut(&Record, &Rc<Table>),
    ) -> Result<Trades, TradesError> {
        let mut reader = Records::open(journal)?;
        let (mut collector, mut trades) = (Collector::default(), Trades::default());
        while let Some(record) = reader.next()? {
            if record.kind() == Some(Kind::Config) {
                if let Some(table) = collector.take(&record) {
                    trades.table = Some(Rc::new(table?));
                }
            } else if let Some(table) = trades.table.clone() {
                trades.take(&record, &table);
                each(&record, &table);
            }
        }
        Ok(trades)
    }

    pub(crate) fn take(&mut self, record: &Record, table: &Rc<Table>) {
        match record.kind() {
            Some(Kind::OrderNew) => {
                let Some(new) = NewOrder::read(record) else { return };
                // Without the mark it is an older run's order that a new engine was told of.
                if record.has(flag::OUTPUT) {
                    self.strangers.remove(&(new.run, new.key));
                    self.orders.entry((new.run, new.key)).or_insert_with(|| Order {
                        new,
                        table: Rc::clone(table),
                        made_ns: record.engine_ts_ns,
                        trigger: (record.ring, record.ring_seq),
                        sent_ns: None,
                        acked_ns: None,
                        fills: Vec::new(),
                        unknown: 0,
                        cancel: false,
                        end: None,
                    });
                }
            }
            Some(Kind::OrderCancel) => {
                let name = (record.run, OrderKey(record.data[0]));
                if let Some(order) = self.orders.get_mut(&name) {
                    order.cancel = true;
                }
            }
            _ => self.report(record),
        }
    }

    fn report(&mut self, record: &Record) {
        let Some((run, key, report)) = Report::read(record) else { return };
        let Some(order) = self.orders.get_mut(&(run, key)) else {
            self.strangers.insert((run, key));
            return;
        };
        if !matches!(report, Report::Sent { .. } | Report::Unknown { .. }) {
            order.acked_ns = order.acked_ns.or(Some(record.engine_ts_ns));
        }
        match report {
            Report::Sent { at_ns, .. } => order.sent_ns = order.sent_ns.or(Some(at_ns)),
            Report::Fill { px, qty, fee, asset, trade_id } => {
                let name = (record.venue, record.instrument, trade_id);
                if self.seen.insert(name) {
                    let mut fill = Fill {
                        trade_id,
                        px,
                        qty,
                        fee,
                        fee_asset: asset,
                        at_ns: record.engine_ts_ns,
                        late: order.end.is_some(),
                        busted: false,
                    };
                    if let Some(instead) = self.busts.get(&name) {
                        fill.becomes(*instead);
                    }
                    order.fills.push(fill);
                }
            }
            Report::Bust { trade_id, instead } => {
                self.busts.insert((record.venue, record.instrument, trade_id), instead);
                let fills = order.fills.iter_mut().filter(|fill| fill.trade_id == trade_id);
                fills.for_each(|fill| fill.becomes(instead));
            }
            Report::Done { status, .. } => order.end = order.end.or(Some(End::Done(status))),
            Report::Reject { class, code } => {
                order.end = order.end.or(Some(End::Rejected(class, code)));
            }
            Report::Unknown { .. } => order.unknown += 1,
            Report::Ack { .. } | Report::Totals { .. } | Report::CancelReject { .. } => {}
        }
    }

    /// Returns the orders at a venue.
    pub fn at(&self, venue: Venue) -> impl Iterator<Item = &Order> {
        self.orders.values().filter(move |order| order.new.venue == venue)
    }
}
