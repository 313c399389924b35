//! Orders, their time line and their fills.
//!
//! Invariant: nothing is inferred. An order's row is its intent and the first word on each of its ends; a
//! fill's is what was told first, and beside it what the venue made of it since. A report without an intent
//! in this journal is an order without terms.
//!
//! Not here: what they add up to (views of the database, `tandem orders`).

use tandem_core::instrument::AssetId;
use tandem_core::order::{
    Action, ClientId, DoneStatus, NewOrder, OrderKey, Purpose, Report, Tif, UnknownCause,
};
use tandem_core::record::{Kind, Record, flag};

use super::projector::{Projector, int8, px, qty, venue_name};
use super::{Row, Table, Value};
use crate::run::RunInfo;

/// What an event of an order says beside its name.
#[derive(Default)]
struct Event {
    name: &'static str,
    detail: Option<&'static str>,
    code: Option<i64>,
    qty: Option<i64>,
    px: Option<i64>,
}

impl Projector {
    /// Takes a record about an order.
    pub(super) fn on_order(
        &mut self,
        run: &RunInfo,
        kind: Kind,
        record: &Record,
        rows: &mut Vec<Row>,
    ) {
        match kind {
            Kind::OrderNew => {
                // Without the mark it is an older run's order that a new engine was told of.
                if let Some(new) = NewOrder::read(record).filter(|_| record.has(flag::OUTPUT)) {
                    self.on_new(run, record, &new, rows);
                }
            }
            Kind::OrderCancel => {
                let at = self.at(record);
                let row = self.order_row(run, record, record.run, OrderKey(record.data[0]));
                rows.push(row.with("cancel_at", Value::Time(at)));
                self.event(run, record, Event { name: "cancel", ..Event::default() }, rows);
            }
            Kind::OrderQuery => {
                self.event(run, record, Event { name: "query", ..Event::default() }, rows);
            }
            _ => {
                if let Some((of, key, report)) = Report::read(record) {
                    self.on_report(run, record, (of, key), report, rows);
                }
            }
        }
    }

    fn order_row(&self, run: &RunInfo, record: &Record, of: u32, key: OrderKey) -> Row {
        Row::empty(Table::Orders, record.seq)
            .with("journal", Value::Uuid(self.journal))
            .with("run", Value::Int8(of.into()))
            .with("order_key", Value::Int8(key.0))
            .with("seq", int8(record.seq))
            .with("seq_last", int8(record.seq))
            .with("round", int8(key.round()))
            .with("n", Value::Int4(key.n().into()))
            .with("client_order_id", Value::text(ClientId::new(of, key).as_str()))
            .with("venue", Value::text(venue_name(record.venue)))
            .with("symbol", Value::text(run.symbol(record.instrument)))
    }

    fn event(&self, run: &RunInfo, record: &Record, event: Event, rows: &mut Vec<Row>) {
        let mut values = self.head(record);
        let instrument = record.instrument;
        values.extend([
            Value::Int8(record.run.into()),
            Value::Int8(record.data[0]),
            Value::text(venue_name(record.venue)),
            Value::text(run.symbol(instrument)),
            Value::text(event.name),
            event.detail.map_or(Value::Null, Value::text),
            event.code.map_or(Value::Null, Value::Int8),
            event.qty.map_or(Value::Null, |quanta| qty(run, instrument, quanta)),
            event.px.map_or(Value::Null, |quanta| px(run, instrument, quanta)),
        ]);
        rows.push(Row { table: Table::OrderEvents, seq: record.seq, values });
    }

    fn on_new(&mut self, run: &RunInfo, record: &Record, new: &NewOrder, rows: &mut Vec<Row>) {
        let at = self.at(record);
        let row = self
            .order_row(run, record, new.run, new.key)
            .with("action", Value::text(action_name(new.action)))
            .with("px", px(run, new.instrument, new.px.0))
            .with("qty", qty(run, new.instrument, new.qty.0))
            .with("tif", Value::text(tif_name(new.tif)))
            .with("purpose", Value::text(purpose_name(new.purpose)))
            .with("made_at", Value::Time(at))
            .with("made_ns", Value::Int8(at))
            .with("expires_at", Value::Time(new.expires_ns));
        rows.push(match new.cause {
            0 => row,
            cause => row.with("opportunity", int8(cause)),
        });
        let event =
            Event { name: "new", qty: Some(new.qty.0), px: Some(new.px.0), ..Event::default() };
        self.event(run, record, event, rows);
    }

    fn on_report(
        &mut self,
        run: &RunInfo,
        record: &Record,
        (of, key): (u32, OrderKey),
        report: Report,
        rows: &mut Vec<Row>,
    ) {
        let at = self.at(record);
        let instrument = record.instrument;
        let mut row = self.order_row(run, record, of, key);
        if !matches!(report, Report::Sent { .. } | Report::Unknown { .. }) {
            row = row.with("acked_at", Value::Time(at)).with("acked_ns", Value::Int8(at));
        }
        let ended = |row: Row, state: &str| {
            row.with("end_state", Value::text(state))
                .with("ended_at", Value::Time(at))
                .with("ended_ns", Value::Int8(at))
        };
        let mut event = Event::default();
        match report {
            Report::Sent { at_ns, .. } => {
                row = row.with("sent_at", Value::Time(at_ns)).with("sent_ns", Value::Int8(at_ns));
                event.name = "sent";
            }
            Report::Ack { venue_id } => {
                row = row.with("venue_order_id", Value::Text(format!("{venue_id:032x}")));
                event.name = "ack";
            }
            Report::Fill { px, qty, .. } => {
                rows.push(self.fill_row(run, record, (of, key), &report));
                event = Event { name: "fill", qty: Some(qty.0), px: Some(px.0), ..event };
            }
            Report::Bust { instead, .. } => {
                rows.push(self.fill_row(run, record, (of, key), &report));
                event.name = if instead.is_some() { "correction" } else { "bust" };
                (event.qty, event.px) = (instead.map(|is| is.qty.0), instead.map(|is| is.px.0));
            }
            Report::Totals { qty: filled, cost, fee, asset } => {
                let quote = run.universe.instruments.get(usize::from(instrument));
                let quote = quote.map_or(0, |rules| run.asset_exponent(rules.quote));
                row = row
                    .with("totals_qty", qty(run, instrument, filled.0))
                    .with("totals_cost", Value::amount(cost.0, quote))
                    .with("totals_fee", Value::amount(fee.0, run.asset_exponent(AssetId(asset))))
                    .with("totals_fee_asset", Value::text(run.asset(AssetId(asset))));
                event = Event { name: "totals", qty: Some(filled.0), ..event };
            }
            Report::Done { status, qty: filled } => {
                row =
                    ended(row, done_name(status)).with("done_qty", qty(run, instrument, filled.0));
                let detail = Some(done_name(status));
                event = Event { name: "done", detail, qty: Some(filled.0), ..event };
            }
            Report::Reject { class, code } => {
                row = ended(row, "rejected")
                    .with("end_class", Value::text(class.name()))
                    .with("end_code", Value::Int8(code));
                let detail = Some(class.name());
                event = Event { name: "reject", detail, code: Some(code), ..event };
            }
            Report::Unknown { cause } => {
                row = row.with("unknown_count", Value::Int8(1));
                event = Event { name: "unknown", detail: Some(unknown_name(cause)), ..event };
            }
            Report::CancelReject { class, code } => {
                let detail = Some(class.name());
                event = Event { name: "cancel_reject", detail, code: Some(code), ..event };
            }
        }
        rows.push(row);
        self.event(run, record, event, rows);
    }

    fn fill_row(
        &self,
        run: &RunInfo,
        record: &Record,
        (of, key): (u32, OrderKey),
        report: &Report,
    ) -> Row {
        let at = self.at(record);
        let instrument = record.instrument;
        let mut row = Row::empty(Table::Fills, record.seq)
            .with("journal", Value::Uuid(self.journal))
            .with("venue", Value::text(venue_name(record.venue)))
            .with("symbol", Value::text(run.symbol(instrument)))
            .with("trade_id", Value::whole(record.update_id))
            .with("seq", int8(record.seq))
            .with("seq_last", int8(record.seq))
            .with("run", Value::Int8(of.into()))
            .with("order_key", Value::Int8(key.0))
            .with("round", int8(key.round()))
            .with("client_order_id", Value::text(ClientId::new(of, key).as_str()));
        if let Some(rules) = run.universe.instruments.get(usize::from(instrument)) {
            row = row
                .with("base", Value::text(run.asset(rules.base)))
                .with("quote", Value::text(run.asset(rules.quote)));
        }
        let fee_of = |fee: i64, asset: u16| Value::amount(fee, run.asset_exponent(AssetId(asset)));
        match *report {
            Report::Fill { px: told, qty: filled, fee, asset, .. } => row
                .with("fill_seq", int8(record.seq))
                .with("told_at", Value::Time(at))
                .with("told_ns", Value::Int8(at))
                .with("px", px(run, instrument, told.0))
                .with("qty", qty(run, instrument, filled.0))
                .with("fee", fee_of(fee.0, asset))
                .with("fee_asset", Value::text(run.asset(AssetId(asset))))
                .with("times_told", Value::Int8(1)),
            Report::Bust { instead, .. } => {
                row = row
                    .with("bust_seq", int8(record.seq))
                    .with("bust_at", Value::Time(at))
                    .with("busted", Value::Bool(instead.is_none()));
                match instead {
                    None => row,
                    Some(is) => row
                        .with("px_now", px(run, instrument, is.px.0))
                        .with("qty_now", qty(run, instrument, is.qty.0))
                        .with("fee_now", fee_of(is.fee.0, is.asset))
                        .with("fee_asset_now", Value::text(run.asset(AssetId(is.asset)))),
                }
            }
            _ => row,
        }
    }
}

pub(super) const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Buy => "buy",
        Action::Sell => "sell",
    }
}

const fn tif_name(tif: Tif) -> &'static str {
    match tif {
        Tif::Ioc => "ioc",
        Tif::Fok => "fok",
        Tif::Gtc => "gtc",
        Tif::PostOnly => "post_only",
    }
}

const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Entry => "entry",
        Purpose::Hedge => "hedge",
        Purpose::Unwind => "unwind",
        Purpose::Operator => "operator",
    }
}

const fn done_name(status: DoneStatus) -> &'static str {
    match status {
        DoneStatus::Filled => "filled",
        DoneStatus::Cancelled => "cancelled",
        DoneStatus::Expired => "expired",
        DoneStatus::SelfTradePrevented => "self_trade_prevented",
        DoneStatus::NeverAccepted => "never_accepted",
    }
}

const fn unknown_name(cause: UnknownCause) -> &'static str {
    match cause {
        UnknownCause::Timeout => "timeout",
        UnknownCause::Disconnect => "disconnect",
        UnknownCause::Venue => "venue",
        UnknownCause::Unreadable => "unreadable",
        UnknownCause::Restart => "restart",
    }
}
