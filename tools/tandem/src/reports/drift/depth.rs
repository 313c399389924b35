//! What own orders hid of the books on one side: depth that its engine did not count on.
//!
//! Invariant: the engine's own rules ([`tandem_core::own`]) over the engine's own records. An order hides from the
//! record after its intent what it was going to take; what it took stays hidden until the venue shows the level
//! anew, or for as long as the limits say. What is kept grows with own orders, not with market records.
//!
//! Not here: what follows from it (`compare`).

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::book::Level;
use tandem_core::instrument::{AssetId, FeeIn, Universe};
use tandem_core::ledger::Posting;
use tandem_core::limits::Mode;
use tandem_core::market::Market;
use tandem_core::order::{Action, NewOrder, OrderKey, Report};
use tandem_core::orders::{NO_ROUND, Order};
use tandem_core::own::Own;
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::round::Stage;
use tandem_core::units::{PPM_PER_UNIT, Px, Qty, Side, div_ceil};
use tandem_core::value::{quote_of, shift_of};

use crate::table::Table;

/// Hidden quantity of one instrument, by side and price.
pub type Hidden = BTreeMap<(usize, i64), i64>;

/// An order that has not ended, or of which fills are missing.
#[derive(Debug)]
struct Open {
    order: Order,
    trades: BTreeSet<u64>,
    has_ended: bool,
}

/// One side's books and what its orders hid of them.
#[derive(Debug)]
pub struct Depth {
    market: Market,
    own: Own,
    open: BTreeMap<(u32, OrderKey), Open>,
    /// What the fills of rounds that are not over moved, by asset.
    flows: BTreeMap<(u32, u64), BTreeMap<u16, i128>>,
    /// What a fill moved whose round is over: the round that is opened for it has it.
    late: BTreeMap<u16, i128>,
    /// What is too little to trade, by asset.
    dust: BTreeMap<u16, i64>,
    /// How long a taking is hidden where nothing is shown anew.
    interest_ns: i64,
    /// By instrument: what was hidden from a time on.
    history: BTreeMap<u16, Vec<(i64, Hidden)>>,
}

impl Depth {
    /// Returns books that nothing is known of.
    #[must_use]
    pub fn new(table: &Table) -> Depth {
        let trading = table.trading().ok().flatten();
        let interest_ns =
            trading.filter(|trading| trading.mode == Mode::Live).map(|t| t.own_interest_ns);
        Depth {
            market: Market::new(&table.universe, table.params.window_levels),
            own: Own::new(table.universe.instruments.len()),
            open: BTreeMap::new(),
            flows: BTreeMap::new(),
            late: BTreeMap::new(),
            dust: BTreeMap::new(),
            interest_ns: interest_ns.unwrap_or(i64::MAX),
            history: BTreeMap::new(),
        }
    }

    /// Begins a further run: nothing is known again, and what was hidden before stays told.
    pub fn again(&mut self, table: &Table, ns: i64) {
        let mut history = std::mem::take(&mut self.history);
        for all in history.values_mut() {
            all.push((ns, Hidden::new()));
        }
        *self = Depth { history, ..Depth::new(table) };
    }

    /// Ends the reading: only what was hidden when is left.
    #[must_use]
    pub fn into_history(self) -> BTreeMap<u16, Vec<(i64, Hidden)>> {
        self.history
    }

    /// Returns the books as its engine has them.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Returns what is hidden of an instrument now.
    #[must_use]
    pub fn now(&self, instrument: u16) -> Hidden {
        let mut hidden = Hidden::new();
        for (side, px, qty) in self.own.of(instrument) {
            let sum: &mut i64 = hidden.entry((side.idx(), px.0)).or_default();
            *sum = sum.saturating_add(qty.0);
        }
        hidden
    }

    /// Returns which book of an instrument the engine has: its last change by the venue's number and our receipt.
    #[must_use]
    pub fn book_of(&self, instrument: u16) -> (u64, i64) {
        match usize::from(instrument) < self.market.instruments().len() {
            true => {
                let state = self.market.get(instrument);
                (state.update_id, state.recv_ts_ns)
            }
            false => (0, 0),
        }
    }

    /// Returns what open orders may still take from a balance, fees in quote included.
    #[must_use]
    pub fn reserved(&self, venue: Venue, asset: AssetId, universe: &Universe) -> i128 {
        let mut sum = 0i128;
        for open in self.open.values() {
            let (terms, left) = (open.order.terms, open.order.remaining());
            let Some(rules) = universe.get(terms.instrument).filter(|rules| rules.venue == venue)
            else {
                continue;
            };
            if terms.action == Action::Sell && rules.base == asset {
                sum = sum.saturating_add(left.0.into());
            } else if terms.action == Action::Buy && rules.quote == asset {
                let shift = shift_of(universe, terms.instrument);
                let cost = quote_of(terms.px, left.0, shift, true);
                let fee = match rules.fee_in {
                    FeeIn::Quote => i128::from(rules.taker_fee.0.max(0)),
                    FeeIn::Received => 0,
                };
                let fee = div_ceil(cost.saturating_mul(fee), PPM_PER_UNIT.into());
                sum = sum.saturating_add(cost).saturating_add(fee);
            }
        }
        sum
    }

    fn note(&mut self, instrument: u16, ns: i64) {
        let now = self.now(instrument);
        let all = self.history.entry(instrument).or_default();
        if all.last().map_or(!now.is_empty(), |(_, was)| *was != now) {
            all.push((ns, now));
        }
    }

    /// Takes a record.
    pub fn take(&mut self, record: &Record, table: &Table) {
        match record.kind() {
            Some(Kind::Timer) => self.expire(record.engine_ts_ns),
            Some(Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState) => {
                self.book(record, table);
            }
            Some(Kind::OrderNew) if record.has(flag::OUTPUT) => self.sent(record, table),
            Some(Kind::Round) if record.part == 0 => self.round(record),
            Some(Kind::Ledger) => self.posted(record),
            _ => self.report(record, table),
        }
    }

    /// A round begins, with what was late for another where it is opened for that, or it is over: what is left of it
    /// is dust from here on.
    fn round(&mut self, record: &Record) {
        let [tags, id, ..] = record.data;
        let name = (record.run, id as u64);
        if tags & 0xff == Stage::Settled as i64 {
            self.flows.remove(&name);
        } else if !self.flows.contains_key(&name) {
            let is_orphan = tags >> 16 & 0xff != 0;
            let flows = if is_orphan { std::mem::take(&mut self.late) } else { BTreeMap::new() };
            self.flows.insert(name, flows);
        }
    }

    /// Dust of a round that is not over went into it.
    fn posted(&mut self, record: &Record) {
        let Some(posting) = Posting::read(record).filter(|posting| posting.venue.is_none()) else {
            return;
        };
        self.dust.insert(posting.asset.0, posting.after.0);
        if let Some(flows) = self.flows.get_mut(&(posting.run, posting.key.round())) {
            let sum = flows.entry(posting.asset.0).or_default();
            *sum = sum.saturating_sub(posting.delta.0.into());
        } else if posting.key == OrderKey(0) {
            self.late.clear();
        }
    }

    /// Returns the most that an asset may be exposed: what rounds hold, what is dust, and what open orders may do.
    #[must_use]
    pub fn exposure(&self, asset: AssetId, universe: &Universe) -> i128 {
        let dust = self.dust.get(&asset.0).copied().unwrap_or(0);
        let held = self.flows.values().filter_map(|flows| flows.get(&asset.0));
        let held = held.fold(i128::from(dust), |sum, amount| sum.saturating_add(*amount));
        let (mut low, mut high) = (held, held);
        for open in self.open.values() {
            let (terms, left) = (open.order.terms, open.order.remaining());
            let Some(rules) = universe.get(terms.instrument) else { continue };
            let sign = if terms.action == Action::Buy { 1 } else { -1 };
            let change = if rules.base == asset {
                i128::from(left.0) * sign
            } else if rules.quote == asset {
                let shift = shift_of(universe, terms.instrument);
                -quote_of(terms.px, left.0, shift, true).saturating_mul(sign)
            } else {
                0
            };
            low = low.saturating_add(change.min(0));
            high = high.saturating_add(change.max(0));
        }
        low.saturating_abs().max(high.saturating_abs())
    }

    fn expire(&mut self, now_ns: i64) {
        if self.own.is_empty() || self.interest_ns == i64::MAX {
            return;
        }
        let mut concerned = BTreeSet::new();
        self.own.expire(now_ns.saturating_sub(self.interest_ns), |instrument| {
            concerned.insert(instrument);
        });
        for instrument in concerned {
            self.changed(instrument, now_ns);
        }
    }

    fn changed(&mut self, instrument: u16, ns: i64) {
        self.own.rebuild(&mut self.market, instrument);
        self.note(instrument, ns);
    }

    fn book(&mut self, record: &Record, table: &Table) {
        let instrument = record.instrument;
        let rules = table.universe.get(instrument);
        if record.has(flag::OUTPUT) || rules.is_none_or(|rules| rules.venue as u8 != record.venue) {
            return;
        }
        let [a, b, c, d] = record.data;
        let state = self.market.get_mut(instrument);
        (state.update_id, state.recv_ts_ns) = (record.update_id, record.recv_ts_ns);
        let book = &mut state.book;
        let shown = match record.kind() {
            Some(Kind::Level) => match Side::from_idx(c) {
                Some(side) if 0 < a && 0 <= b => {
                    book.set(side, Px(a), Qty(b));
                    Some(Some((side, Px(a))))
                }
                _ => return,
            },
            Some(Kind::Clear) => {
                book.clear();
                Some(None)
            }
            Some(Kind::Bbo) => {
                for (side, px, qty) in [(Side::Bid, a, b), (Side::Ask, c, d)] {
                    let level = (0 < px && 0 < qty).then_some(Level { px: Px(px), qty: Qty(qty) });
                    book.set_best(side, level);
                }
                None
            }
            _ => None,
        };
        // Nearly every record: nothing of the instrument is hidden.
        if !state.own {
            return;
        }
        let before = self.own.of(instrument).count();
        if let Some(level) = shown {
            let recv_ns = record.recv_ts_ns.min(record.engine_ts_ns);
            self.own.shown(instrument, level, recv_ns);
        }
        self.own.rebuild(&mut self.market, instrument);
        if self.own.of(instrument).count() != before {
            self.note(instrument, record.engine_ts_ns);
        }
    }

    fn sent(&mut self, record: &Record, table: &Table) {
        let Some(terms) = NewOrder::read(record) else { return };
        let rules = table.universe.get(terms.instrument);
        if rules.is_none_or(|rules| rules.venue != terms.venue) {
            return;
        }
        self.own.take(&terms, self.market.get(terms.instrument).depth());
        let order = Order::new(terms, NO_ROUND, record.engine_ts_ns);
        self.open.insert(
            (terms.run, terms.key),
            Open { order, trades: BTreeSet::new(), has_ended: false },
        );
        // What else is decided in that step was seen before.
        self.changed(terms.instrument, record.engine_ts_ns.saturating_add(1));
    }

    fn report(&mut self, record: &Record, table: &Table) {
        if self.open.is_empty() {
            return;
        }
        let Some((run, key, report)) = Report::read(record) else { return };
        let Some(open) = self.open.get_mut(&(run, key)) else { return };
        let terms = open.order.terms;
        match report {
            Report::Fill { trade_id, .. } if !open.trades.insert(trade_id) => return,
            Report::Fill { px, qty, fee, asset, .. } => {
                // On paper the order has met its book: what it took is known price by price.
                if record.has(flag::OUTPUT) {
                    if open.trades.len() == 1 {
                        self.own.forget(run, key);
                    }
                    self.own.took(&terms, px, qty, record.engine_ts_ns);
                }
                let Some(rules) = table.universe.get(terms.instrument) else { return };
                let buys = terms.action == Action::Buy;
                let sign = if buys { 1 } else { -1 };
                let shift = shift_of(&table.universe, terms.instrument);
                let quote = quote_of(px, qty.0, shift, buys).saturating_mul(sign);
                let flows = self.flows.get_mut(&(run, key.round())).unwrap_or(&mut self.late);
                let base = i128::from(qty.0) * sign;
                for (asset, amount) in
                    [(rules.base.0, base), (rules.quote.0, -quote), (asset, -i128::from(fee.0))]
                {
                    let sum = flows.entry(asset).or_default();
                    *sum = sum.saturating_add(amount);
                }
            }
            _ => {}
        }
        open.order.absorb(&report);
        if open.order.is_final() && !open.has_ended {
            open.has_ended = true;
            let filled = open.order.filled.max(open.order.told());
            self.own.ended(run, key, filled, record.engine_ts_ns);
        }
        if open.order.is_settled() {
            self.open.remove(&(run, key));
        }
        self.changed(terms.instrument, record.engine_ts_ns);
    }
}
