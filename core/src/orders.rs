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
//! Not here: money (`ledger`), what a round does about it (`round`), time-outs' lengths (`limits`).

use alloc::vec;
use alloc::vec::Vec;

use crate::mutation::{Mute, muted};
use crate::order::{Action, DoneStatus, NewOrder, OrderKey, RejectClass, Report};
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
    pub const fn is_final(&self) -> bool {
        self.done.is_some() || self.refused.is_some()
    }

    /// Returns the most that the venue told to be filled.
    #[must_use]
    pub fn told(&self) -> Qty {
        self.claimed.max(self.done.map_or(Qty(0), |done| done.1))
    }

    /// Returns whether it is over and all of its fills are booked.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_final() && self.remaining().0 == 0
    }

    /// Returns what may still be filled, or is filled and not booked.
    #[must_use]
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
            Report::Fill { .. } => {}
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

/// A trade that was seen: its id and what it said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trade {
    id: u64,
    content: u64,
}

/// Recent trades of every instrument.
#[derive(Debug)]
struct Trades {
    ring: Vec<Trade>,
    /// By instrument: how many were ever put in.
    count: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    New,
    Known,
    Conflict,
}

impl Trades {
    fn new(instrument_count: usize) -> Trades {
        Trades {
            ring: vec![Trade::default(); instrument_count * TRADES],
            count: vec![0; instrument_count],
        }
    }

    fn of(&self, instrument: u16) -> &[Trade] {
        let from = usize::from(instrument) * TRADES;
        &self.ring[from..from + TRADES]
    }

    fn met(&self, instrument: u16, trade: Trade) -> Met {
        match self.of(instrument).iter().find(|known| known.id == trade.id) {
            Some(known) if known.content == trade.content => Met::Known,
            Some(_) => Met::Conflict,
            None => Met::New,
        }
    }

    fn put(&mut self, instrument: u16, trade: Trade) {
        let count = &mut self.count[usize::from(instrument)];
        let at = usize::from(instrument) * TRADES + (*count % TRADES as u64) as usize;
        *count += 1;
        self.ring[at] = trade;
    }
}

/// FNV-1a over what a fill says: the same trade must say the same again.
fn content(run: u32, key: OrderKey, px: Px, qty: Qty, fee: Amount, asset: u16) -> u64 {
    let words = [u64::from(run), key.0 as u64, px.0 as u64, qty.0 as u64, fee.0 as u64];
    words.iter().chain([&u64::from(asset)]).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
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
    pub fn get(&self, slot: usize) -> &Order {
        &self.slots[slot]
    }

    /// Returns the order at a place to change it.
    pub fn get_mut(&mut self, slot: usize) -> &mut Order {
        &mut self.slots[slot]
    }

    /// Returns how many orders are not settled.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns the place of the `position`-th order that is not settled.
    #[must_use]
    pub fn open_slot(&self, position: usize) -> usize {
        usize::from(self.open[position])
    }

    /// Returns the orders that are not settled.
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
        let settled =
            |slot: &usize| self.names[*slot] == NOBODY || !self.open.contains(&(*slot as u16));
        let age = |slot: &usize| match self.names[*slot] {
            NOBODY => i64::MIN,
            _ => self.slots[*slot].created_ns,
        };
        let slot = Orders::probes(name.0, name.1).filter(settled).min_by_key(age)?;
        self.names[slot] = name;
        self.slots[slot] = order;
        self.open.push(slot as u16);
        Some(slot)
    }

    /// Remembers a trade of a dead run.
    pub fn remember(&mut self, run: u32, key: OrderKey, instrument: u16, fill: &Report) {
        if let Report::Fill { px, qty, fee, asset, trade_id } = *fill {
            let trade = Trade { id: trade_id, content: content(run, key, px, qty, fee, asset) };
            if self.trades.met(instrument, trade) == Met::New {
                self.trades.put(instrument, trade);
            }
        }
    }

    /// Returns whether a trade was seen on an instrument.
    #[must_use]
    pub fn has_trade(&self, instrument: u16, trade_id: u64) -> bool {
        self.trades.of(instrument).iter().any(|trade| trade.id == trade_id)
    }

    /// Takes a report about the order at `slot`.
    pub fn report(&mut self, slot: usize, report: &Report, now_ns: i64) -> Effect {
        let before = self.slots[slot].state();
        let (mut fill, mut broken) = (None, None);
        match *report {
            Report::Fill { px, qty, fee, asset, trade_id } => {
                let terms = self.slots[slot].terms;
                let content = content(terms.run, terms.key, px, qty, fee, asset);
                let trade = Trade { id: trade_id, content };
                let met = match self.trades.met(terms.instrument, trade) {
                    Met::Known if muted(Mute::Dedupe) => Met::New,
                    Met::Conflict if muted(Mute::TradeConflict) => Met::Known,
                    met => met,
                };
                let order = &mut self.slots[slot];
                match met {
                    Met::Known => {}
                    Met::Conflict => broken = Some(Broken::TradeConflict),
                    Met::New if order.is_final() && muted(Mute::LateFill) => {}
                    Met::New => {
                        self.trades.put(terms.instrument, trade);
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
        Effect { slot, before, after: self.slots[slot].state(), fill, broken }
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
