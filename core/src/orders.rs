//! Our orders: what each may still do, by everything that was ever said about it.
//!
//! Invariant: an order is a set of facts that only grows, and its state is a function of that set. So
//! reports may come in any sequence, twice, or years late, and end in the same state. A fill is applied
//! once and always, whatever the state. A reservation is released only when the order is final *and*
//! every fill that the venue claims has been booked. An order whose outcome is unknown stays so until the
//! venue says otherwise: silence is never a refusal, and nothing is ever sent twice.
//!
//! Facts that contradict each other do not cancel out: of two ends the larger quantity counts, an order
//! that was refused and filled is filled. What no honest venue says (more than ordered, worse than the
//! limit, one trade with two contents) is a [`Broken`] invariant, applied all the same where it moved
//! money.
//!
//! What a venue takes back ([`Orders::take_back`]) is no contradiction but a later word on one trade: the
//! order keeps its fills as they were told, the trade's last word is what counts, and it counts the same
//! whether it comes before the fill, after it, or twice.
//!
//! Not here: money (`ledger`), what a round does about it (`round`), time-outs' lengths (`limits`).

use alloc::vec;
use alloc::vec::Vec;

use crate::mutation::{Mute, muted};
use crate::order::{Action, DoneStatus, FillTerms, NewOrder, OrderKey, RejectClass, Report};
use crate::units::{Amount, Px, Qty};

/// Orders that the table holds. Settled ones stay until their place is needed.
pub const ORDERS: usize = 1_024;
/// Places that an order may stand at: an order is found by looking at these.
const PROBES: usize = 16;
/// Trades remembered per instrument, longer than any order lives: what a venue replays is known again.
pub const TRADES: usize = 1_024;
/// An order without a round.
pub const NO_ROUND: u64 = 0;

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Decided; nothing is known of its sending.
    Intent = 1,
    /// Its bytes left us.
    Sent = 2,
    /// The venue has it.
    Live = 3,
    /// The venue has it and filled some.
    PartiallyFilled = 4,
    /// We asked to cancel it.
    CancelPending = 5,
    /// Nobody knows.
    Unknown = 6,
    /// It is over, but fills that the venue claims are not booked yet.
    AwaitingFills = 7,
    /// It is over.
    Done = 8,
    /// It never was in a book.
    Rejected = 9,
}

impl State {
    /// Returns the state's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Intent => "intent",
            State::Sent => "sent",
            State::Live => "live",
            State::PartiallyFilled => "partially_filled",
            State::CancelPending => "cancel_pending",
            State::Unknown => "unknown",
            State::AwaitingFills => "awaiting_fills",
            State::Done => "done",
            State::Rejected => "rejected",
        }
    }
}

/// A fill that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Price.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Fee.
    pub fee: Amount,
    /// Asset index of the fee.
    pub asset: u16,
    /// The order was final, or told to be filled less, before this fill.
    pub late: bool,
}

/// What must never happen. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Broken {
    /// Filled more than ordered.
    Overfill = 1,
    /// Filled at a price worse than the limit.
    WorseThanLimit = 2,
    /// One trade id with two contents.
    TradeConflict = 3,
    /// A report names another venue or instrument than the order.
    Place = 4,
}

/// What a report did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Place of the order in the table.
    pub slot: usize,
    /// State before.
    pub before: State,
    /// State after.
    pub after: State,
    /// The fill, where one was applied.
    pub fill: Option<Fill>,
    /// The invariant that it broke, where it broke one.
    pub broken: Option<Broken>,
    /// It was a fill that came before.
    pub repeated: bool,
}

/// What a word about a fill that is taken back or corrected did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// It was said before.
    Repeated,
    /// The fill is not known, or not what it moved: nothing can be reversed.
    Unknown,
    /// The fill is another order's.
    Conflict,
    /// The fill is something else from now on.
    Changed(Change),
}

/// A fill that is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Place of its order in the table, where that still knows it.
    pub slot: Option<usize>,
    /// What its order did.
    pub action: Action,
    /// What it was, which is booked; nothing where it was taken back before.
    pub was: Option<FillTerms>,
    /// What it is.
    pub is: Option<FillTerms>,
}

/// One order.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// What was asked for.
    pub terms: NewOrder,
    /// Number of its round in this run, or [`NO_ROUND`].
    pub round: u64,
    /// Sum of the fills.
    pub filled: Qty,
    /// Of that, taken back by the venue; negative where it was corrected to more.
    pub busted: Qty,
    /// Σ px × qty of the fills.
    pub raw: i128,
    /// The most that running totals claimed to be filled.
    pub claimed: Qty,
    /// Worth in quote of what was claimed.
    pub claimed_cost: Amount,
    /// How it ended, with the filled quantity told.
    pub done: Option<(DoneStatus, Qty)>,
    /// Why it was refused.
    pub refused: Option<(RejectClass, i64)>,
    /// When it was decided.
    pub created_ns: i64,
    /// When it was asked for next, and how long to wait after that.
    pub query_ns: i64,
    /// Wait until the query after the next one.
    pub query_wait_ns: i64,
    /// When it was first not known.
    pub unknown_ns: i64,
    /// When the venue acknowledged it; 0 not yet.
    pub acked_ns: i64,
    /// When it became final; 0 not yet.
    pub final_ns: i64,
    sent: bool,
    acked: bool,
    unknown: bool,
    /// Nothing final was heard in time: it is unknown whatever else was said.
    overdue: bool,
    cancelling: bool,
    cancel_refused: bool,
}

impl Order {
    /// Returns an order that was just decided.
    #[must_use]
    pub fn new(terms: NewOrder, round: u64, now_ns: i64) -> Order {
        Order {
            terms,
            round,
            filled: Qty(0),
            busted: Qty(0),
            raw: 0,
            claimed: Qty(0),
            claimed_cost: Amount(0),
            done: None,
            refused: None,
            created_ns: now_ns,
            query_ns: 0,
            query_wait_ns: 0,
            unknown_ns: 0,
            acked_ns: 0,
            final_ns: 0,
            sent: false,
            acked: false,
            unknown: false,
            overdue: false,
            cancelling: false,
            cancel_refused: false,
        }
    }

    /// Returns whether the venue said that it is over.
    #[must_use]
    #[inline]
    pub const fn is_final(&self) -> bool {
        self.done.is_some() || self.refused.is_some()
    }

    /// Returns the most that the venue told to be filled.
    #[must_use]
    #[inline]
    pub fn told(&self) -> Qty {
        self.claimed.max(self.done.map_or(Qty(0), |done| done.1))
    }

    /// Returns whether it is over and all of its fills are booked.
    #[must_use]
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.is_final() && self.remaining().0 == 0
    }

    /// Returns what may still be filled, or is filled and not booked.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> Qty {
        let most = if self.is_final() { self.told() } else { self.terms.qty.max(self.told()) };
        if self.is_final() && muted(Mute::KeepReservation) {
            return Qty(0);
        }
        if self.state() == State::Unknown && muted(Mute::UnknownIsExposure) {
            return Qty(0);
        }
        Qty((most.0 - self.filled.0).max(0))
    }

    /// Returns whether more was filled than its end told, or it was filled though it was refused.
    #[must_use]
    pub fn is_contradicted(&self) -> bool {
        match (self.done, self.refused) {
            (Some((_, told)), _) => told < self.filled.max(self.claimed),
            (None, Some(_)) => 0 < self.filled.0,
            (None, None) => false,
        }
    }

    /// Returns the state.
    #[must_use]
    #[inline]
    pub fn state(&self) -> State {
        let most = self.told();
        if self.is_final() {
            return match (self.filled < most, self.done) {
                (true, _) => State::AwaitingFills,
                (false, Some(_)) => State::Done,
                (false, None) if 0 < self.filled.0 => State::Done,
                (false, None) => State::Rejected,
            };
        }
        let heard = self.acked || 0 < most.0 || 0 < self.filled.0;
        if self.overdue || (self.unknown && !heard) {
            State::Unknown
        } else if self.cancelling && !self.cancel_refused {
            State::CancelPending
        } else if 0 < most.0 || 0 < self.filled.0 {
            State::PartiallyFilled
        } else if self.acked {
            State::Live
        } else if self.sent {
            State::Sent
        } else {
            State::Intent
        }
    }

    /// Returns whether a cancel was asked for.
    #[must_use]
    pub const fn is_cancelling(&self) -> bool {
        self.cancelling
    }

    /// Notes that a cancel was asked for.
    pub fn cancel(&mut self) {
        self.cancelling = true;
    }

    /// Notes that nothing final was heard in time.
    pub fn overdue(&mut self, now_ns: i64) {
        if muted(Mute::TimeoutIsUnknown) {
            self.refused = Some((RejectClass::Other, 0));
            return;
        }
        self.overdue = true;
        if self.unknown_ns == 0 {
            self.unknown_ns = now_ns;
        }
    }

    /// Takes a report other than a fill.
    fn note(&mut self, report: &Report, now_ns: i64) {
        match *report {
            Report::Sent { .. } => self.sent = true,
            Report::Ack { .. } => {
                (self.sent, self.acked) = (true, true);
                if self.acked_ns == 0 {
                    self.acked_ns = now_ns;
                }
                if muted(Mute::ForwardOnly) {
                    self.done = None;
                }
            }
            Report::Totals { qty, cost, .. } => {
                if self.claimed < qty {
                    (self.claimed, self.claimed_cost) = (qty, cost);
                }
            }
            Report::Done { status, qty } => {
                let rank = |done: (DoneStatus, Qty)| (done.1, done.0 as u8);
                let next = (status, qty);
                if self.done.is_none_or(|done| rank(done) < rank(next)) {
                    self.done = Some(next);
                }
            }
            // The id is in use, or it is not known there: neither says what became of this order.
            Report::Reject { class: RejectClass::Duplicate | RejectClass::NoOrder, .. } => {
                self.lose(now_ns);
            }
            Report::Reject { class, code } => {
                let rank = |refused: (RejectClass, i64)| (refused.0 as u8, refused.1);
                let next = (class, code);
                if self.refused.is_none_or(|refused| rank(next) < rank(refused)) {
                    self.refused = Some(next);
                }
            }
            Report::Unknown { .. } => self.lose(now_ns),
            Report::CancelReject { .. } => self.cancel_refused = true,
            Report::Fill { .. } | Report::Bust { .. } => {}
        }
        if self.is_final() && self.final_ns == 0 {
            self.final_ns = now_ns;
        }
    }

    /// Takes a report of an earlier run, a fill of which is known to be new.
    pub fn absorb(&mut self, report: &Report) {
        match *report {
            Report::Fill { px, qty, .. } => {
                let _ = self.fill(px, qty);
            }
            _ => self.note(report, 0),
        }
    }

    fn lose(&mut self, now_ns: i64) {
        self.unknown = true;
        if self.unknown_ns == 0 {
            self.unknown_ns = now_ns;
        }
    }

    fn fill(&mut self, px: Px, qty: Qty) -> Option<Broken> {
        self.filled = Qty(self.filled.0.saturating_add(qty.0));
        self.raw = self.raw.saturating_add(i128::from(px.0) * i128::from(qty.0));
        if muted(Mute::Overfill) {
            None
        } else if self.terms.qty < self.filled {
            Some(Broken::Overfill)
        } else if self.terms.action.is_worse(px, self.terms.px) {
            Some(Broken::WorseThanLimit)
        } else {
            None
        }
    }
}

/// A trade: whose it is, what was told of it first, and what it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trade {
    run: u32,
    key: OrderKey,
    /// What its order did; nothing where that is not known any more.
    action: Option<Action>,
    /// The fill; nothing where only its end was told yet.
    told: Option<FillTerms>,
    /// What is left of it.
    now: Option<FillTerms>,
}

const NO_TRADE: Trade = Trade { run: 0, key: OrderKey(-1), action: None, told: None, now: None };

/// Recent trades of every instrument: their ids apart, because these are what is searched.
#[derive(Debug)]
struct Trades {
    ids: Vec<u64>,
    ring: Vec<Trade>,
    /// By instrument: how many were ever put in.
    count: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    New,
    Known,
    Conflict,
    /// What became of it was told before the fill itself: where it stands.
    Awaited(usize),
}

impl Trades {
    fn new(instrument_count: usize) -> Trades {
        Trades {
            ids: vec![0; instrument_count * TRADES],
            ring: vec![NO_TRADE; instrument_count * TRADES],
            count: vec![0; instrument_count],
        }
    }

    /// Returns where a trade stands; ids are never 0.
    fn find(&self, instrument: u16, id: u64) -> Option<usize> {
        let from = usize::from(instrument) * TRADES;
        let at = self.ids[from..from + TRADES].iter().position(|known| *known == id)?;
        Some(from + at)
    }

    /// The same trade must say the same again: as first, or as it is by now.
    fn met(&self, instrument: u16, id: u64, (run, key): (u32, OrderKey), fill: FillTerms) -> Met {
        let Some(at) = self.find(instrument, id) else { return Met::New };
        let known = &self.ring[at];
        match known.told {
            _ if (known.run, known.key) != (run, key) => Met::Conflict,
            None => Met::Awaited(at),
            Some(told) if told == fill || known.now == Some(fill) => Met::Known,
            Some(_) => Met::Conflict,
        }
    }

    fn put(&mut self, instrument: u16, id: u64, trade: Trade) {
        let count = &mut self.count[usize::from(instrument)];
        let at = usize::from(instrument) * TRADES + (*count % TRADES as u64) as usize;
        *count += 1;
        (self.ids[at], self.ring[at]) = (id, trade);
    }
}

/// The order table.
#[derive(Debug)]
pub struct Orders {
    names: Vec<(u32, OrderKey)>,
    slots: Vec<Order>,
    /// Slots of orders that are not settled.
    open: Vec<u16>,
    trades: Trades,
}

const NOBODY: (u32, OrderKey) = (u32::MAX, OrderKey(-1));

impl Orders {
    /// Returns an empty table; nothing is allocated afterwards.
    #[must_use]
    pub fn new(instrument_count: usize) -> Orders {
        let blank = NewOrder {
            run: 0,
            key: OrderKey(0),
            venue: crate::record::Venue::Binance,
            instrument: 0,
            action: Action::Buy,
            px: Px(1),
            qty: Qty(1),
            tif: crate::order::Tif::Ioc,
            purpose: crate::order::Purpose::Entry,
            expires_ns: 0,
            cause: 0,
            level_epoch: 0,
        };
        Orders {
            names: vec![NOBODY; ORDERS],
            slots: vec![Order::new(blank, NO_ROUND, 0); ORDERS],
            open: Vec::with_capacity(ORDERS),
            trades: Trades::new(instrument_count),
        }
    }

    fn probes(run: u32, key: OrderKey) -> impl Iterator<Item = usize> {
        // Numbers within a round are small; eight places a round keep neighbours apart.
        let hint = (key.round() as usize).wrapping_mul(8) + usize::from(key.n()) + run as usize;
        (0..PROBES).map(move |step| (hint + step) % ORDERS)
    }

    /// Returns the place of an order.
    #[must_use]
    pub fn find(&self, run: u32, key: OrderKey) -> Option<usize> {
        Orders::probes(run, key).find(|slot| self.names[*slot] == (run, key))
    }

    /// Returns the order at a place.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: usize) -> &Order {
        &self.slots[slot]
    }

    /// Returns the order at a place to change it.
    pub fn get_mut(&mut self, slot: usize) -> &mut Order {
        &mut self.slots[slot]
    }

    /// Returns how many orders are not settled.
    #[must_use]
    #[inline]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns the place of the `position`-th order that is not settled.
    #[must_use]
    #[inline]
    pub fn open_slot(&self, position: usize) -> usize {
        usize::from(self.open[position])
    }

    /// Returns the orders that are not settled.
    #[inline]
    pub fn open(&self) -> impl Iterator<Item = &Order> + '_ {
        self.open.iter().map(|slot| &self.slots[usize::from(*slot)])
    }

    /// Returns every order that the table still knows, settled or not.
    pub fn all(&self) -> impl Iterator<Item = &Order> + '_ {
        let known = self.names.iter().zip(&self.slots);
        known.filter(|(name, _)| **name != NOBODY).map(|(_, order)| order)
    }

    /// Adds an order; nothing where its name is known or its places are taken by open orders.
    pub fn insert(&mut self, order: Order) -> Option<usize> {
        let name = (order.terms.run, order.terms.key);
        if self.find(name.0, name.1).is_some() {
            return None;
        }
        // The first place that nobody has, else that of the oldest settled order.
        let free = Orders::probes(name.0, name.1).find(|slot| self.names[*slot] == NOBODY);
        let settled = |slot: &usize| !self.open.contains(&(*slot as u16));
        let age = |slot: &usize| self.slots[*slot].created_ns;
        let oldest = || Orders::probes(name.0, name.1).filter(settled).min_by_key(age);
        let slot = free.or_else(oldest)?;
        self.names[slot] = name;
        self.slots[slot] = order;
        self.open.push(slot as u16);
        Some(slot)
    }

    /// Remembers a trade of a dead run, with what its order did where that is known.
    pub fn remember(
        &mut self,
        (run, key): (u32, OrderKey),
        instrument: u16,
        action: Option<Action>,
        fill: &Report,
    ) {
        if let Report::Fill { px, qty, fee, asset, trade_id } = *fill {
            let told = Some(FillTerms { px, qty, fee, asset });
            if self.trades.find(instrument, trade_id).is_none() {
                self.trades.put(instrument, trade_id, Trade { run, key, action, told, now: told });
            }
        }
    }

    /// Takes a venue's word that a fill is taken back, or is something else from now on. What was told of
    /// the order stays; what was booked of the fill is to be reversed by whoever has the books.
    pub fn take_back(
        &mut self,
        (run, key): (u32, OrderKey),
        instrument: u16,
        trade_id: u64,
        instead: Option<FillTerms>,
    ) -> TakenBack {
        let Some(at) = self.trades.find(instrument, trade_id) else {
            let trade = Trade { run, key, action: None, told: None, now: instead };
            self.trades.put(instrument, trade_id, trade);
            return TakenBack::Unknown;
        };
        let trade = &mut self.trades.ring[at];
        if (trade.run, trade.key) != (run, key) {
            return TakenBack::Conflict;
        }
        let again = muted(Mute::BustRepeat) && trade.told.is_some();
        if trade.now == instead && !again {
            return TakenBack::Repeated;
        }
        let was = if again { trade.told } else { trade.now };
        trade.now = instead;
        let (Some(_), Some(action)) = (trade.told, trade.action) else { return TakenBack::Unknown };
        let slot = self.find(run, key);
        if let Some(slot) = slot {
            let qty = |fill: Option<FillTerms>| fill.map_or(0, |fill| fill.qty.0);
            let busted = &mut self.slots[slot].busted;
            *busted = Qty(busted.0.saturating_add(qty(was) - qty(instead)));
        }
        TakenBack::Changed(Change { slot, action, was, is: instead })
    }

    /// Returns whether a trade was seen on an instrument.
    #[must_use]
    pub fn has_trade(&self, instrument: u16, trade_id: u64) -> bool {
        self.trades.find(instrument, trade_id).is_some()
    }

    /// Takes a report about the order at `slot`.
    pub fn report(&mut self, slot: usize, report: &Report, now_ns: i64) -> Effect {
        let before = self.slots[slot].state();
        let (mut fill, mut broken, mut repeated) = (None, None, false);
        match *report {
            Report::Fill { px, qty, fee, asset, trade_id } => {
                let terms = self.slots[slot].terms;
                let (name, told) = ((terms.run, terms.key), FillTerms { px, qty, fee, asset });
                let met = match self.trades.met(terms.instrument, trade_id, name, told) {
                    Met::Known if muted(Mute::Dedupe) => Met::New,
                    Met::Conflict if muted(Mute::TradeConflict) => Met::Known,
                    met => met,
                };
                let order = &mut self.slots[slot];
                match met {
                    Met::Known => repeated = true,
                    Met::Conflict => broken = Some(Broken::TradeConflict),
                    Met::New if order.is_final() && muted(Mute::LateFill) => {}
                    Met::Awaited(at) => {
                        // It fills the order, and what became of it counts: that alone is booked.
                        let trade = &mut self.trades.ring[at];
                        (trade.told, trade.action) = (Some(told), Some(terms.action));
                        let is = trade.now;
                        broken = order.fill(px, qty);
                        let left = is.map_or(0, |is| is.qty.0);
                        order.busted = Qty(order.busted.0.saturating_add(qty.0 - left));
                        fill = is.map(|FillTerms { px, qty, fee, asset }| Fill {
                            px,
                            qty,
                            fee,
                            asset,
                            late: false,
                        });
                    }
                    Met::New => {
                        let (run, key) = name;
                        let (action, told) = (Some(terms.action), Some(told));
                        let trade = Trade { run, key, action, told, now: told };
                        self.trades.put(terms.instrument, trade_id, trade);
                        let was_final = order.is_final();
                        broken = order.fill(px, qty);
                        let late = was_final && order.told() < order.filled;
                        fill = Some(Fill { px, qty, fee, asset, late });
                    }
                }
            }
            _ => {
                let order = &mut self.slots[slot];
                order.note(report, now_ns);
                if order.terms.qty < order.told() && !muted(Mute::Overfill) {
                    broken = Some(Broken::Overfill);
                }
            }
        }
        self.file(slot);
        Effect { slot, before, after: self.slots[slot].state(), fill, broken, repeated }
    }

    /// Puts the order at `slot` where it belongs: among the open ones until it is settled.
    pub fn file(&mut self, slot: usize) {
        let settled = self.slots[slot].is_settled();
        match (self.open.iter().position(|open| usize::from(*open) == slot), settled) {
            (Some(position), true) => {
                // In order, not swapped: who is looked at first must not depend on who ended first.
                self.open.remove(position);
            }
            (None, false) => self.open.push(slot as u16),
            _ => {}
        }
    }

    /// Returns how many orders are unknown: at a venue, or in all.
    #[must_use]
    pub fn unknown_count(&self, venue: Option<crate::record::Venue>) -> usize {
        self.open()
            .filter(|order| venue.is_none_or(|venue| order.terms.venue == venue))
            .filter(|order| order.state() == State::Unknown)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Purpose, Tif};
    use crate::record::Venue;

    fn terms(n: u16) -> NewOrder {
        NewOrder {
            run: 1,
            key: OrderKey::new(1, n),
            venue: Venue::Kraken,
            instrument: 0,
            action: Action::Buy,
            px: Px(100),
            qty: Qty(10),
            tif: Tif::Ioc,
            purpose: Purpose::Entry,
            expires_ns: 0,
            cause: 0,
            level_epoch: 0,
        }
    }

    fn table() -> (Orders, usize) {
        let mut orders = Orders::new(1);
        let slot = orders.insert(Order::new(terms(0), NO_ROUND, 1)).expect("room");
        (orders, slot)
    }

    fn fill(id: u64, qty: i64) -> Report {
        Report::Fill { px: Px(99), qty: Qty(qty), fee: Amount(1), asset: 0, trade_id: id }
    }

    #[test]
    fn a_reservation_outlives_the_end_until_the_fills_are_booked() {
        let (mut orders, slot) = table();
        orders.report(slot, &fill(1, 3), 2);
        assert_eq!(orders.get(slot).remaining(), Qty(7));
        let done = Report::Done { status: DoneStatus::Cancelled, qty: Qty(5) };
        assert_eq!(orders.report(slot, &done, 3).after, State::AwaitingFills);
        assert_eq!(orders.get(slot).remaining(), Qty(2));
        assert_eq!(orders.open_count(), 1);
        let last = orders.report(slot, &fill(2, 2), 4);
        assert_eq!((last.after, last.fill.map(|f| f.late)), (State::Done, Some(false)));
        assert_eq!(orders.open_count(), 0);
        // One more than it told: applied, and flagged.
        let late = orders.report(slot, &fill(3, 1), 5);
        assert_eq!((late.fill.map(|f| f.late), late.broken), (Some(true), None));
        assert_eq!(orders.get(slot).filled, Qty(6));
    }

    #[test]
    fn what_no_venue_may_say_is_a_broken_invariant() {
        let (mut orders, slot) = table();
        let worse =
            Report::Fill { px: Px(101), qty: Qty(1), fee: Amount(0), asset: 0, trade_id: 9 };
        assert_eq!(orders.report(slot, &worse, 2).broken, Some(Broken::WorseThanLimit));
        assert_eq!(orders.report(slot, &fill(9, 1), 2).broken, Some(Broken::TradeConflict));
        assert_eq!(orders.report(slot, &fill(10, 10), 2).broken, Some(Broken::Overfill));
        assert_eq!(orders.get(slot).filled, Qty(11), "money moved all the same");
    }

    #[test]
    fn places_are_used_again_and_open_orders_are_never_displaced() {
        let mut orders = Orders::new(1);
        let first = orders.insert(Order::new(terms(0), NO_ROUND, 0)).expect("room");
        for round in 1..5_000u64 {
            let key = OrderKey::new(round, 0);
            let order = Order::new(NewOrder { key, ..terms(0) }, NO_ROUND, round as i64);
            let Some(slot) = orders.insert(order) else { continue };
            orders.report(slot, &Report::Reject { class: RejectClass::Funds, code: 0 }, 1);
        }
        assert_eq!(orders.find(1, OrderKey::new(1, 0)), Some(first));
        assert_eq!(orders.open_count(), 1);
        assert!(orders.insert(Order::new(terms(0), NO_ROUND, 0)).is_none(), "known name");
    }
}
