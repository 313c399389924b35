//! Orders that rest, asked for to learn from: how often and how soon they would have filled.
//!
//! Invariant: none of them exists: nothing is booked. A resting order joins the queue behind all that is displayed
//! at its price. Trades at its price first use up what is ahead; a trade beyond its price fills it; a level that
//! shrinks without a trade moves it on only by the configured weight, in the proportion of what is ahead.
//! At most a thousand are followed at once.
//!
//! Not here: orders of the engine, which take (`venue`).

use std::collections::BTreeMap;

use tandem_core::instrument::Universe;
use tandem_core::record::{Kind, Record};
use tandem_core::report::Opportunity;
use tandem_core::units::{Px, Side};

use crate::books::Books;
use crate::config::{self, PPM};
use crate::outcome::RestingFigures;
use crate::tally::Names;

const OPEN_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug)]
struct Order {
    instrument: u16,
    /// The side of the book it rests on.
    side: Side,
    px: Px,
    rest: i64,
    ahead: i64,
    /// What was displayed at its price last.
    shown: i64,
    /// Traded there since then: not cancelled.
    traded: i64,
    since_ns: i64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    orders: u64,
    filled: u64,
    us: i64,
}

/// All orders that rest.
#[derive(Debug)]
pub struct Resting {
    is_on: bool,
    for_ns: i64,
    cancels_ahead_ppm: u32,
    orders: Vec<Order>,
    figures: BTreeMap<u16, Figures>,
}

impl Resting {
    /// Returns no orders.
    #[must_use]
    pub fn new(config: &config::Resting, universe: &Universe) -> Resting {
        let ids = if config.is_on { universe.instruments.len() as u16 } else { 0 };
        Resting {
            is_on: config.is_on,
            for_ns: i64::from(config.for_ms) * 1_000_000,
            cancels_ahead_ppm: config.cancels_ahead_ppm.min(PPM),
            orders: Vec::new(),
            figures: (0..ids).map(|id| (id, Figures::default())).collect(),
        }
    }

    /// An opportunity's legs rest at the best price of their own side.
    pub fn open(&mut self, told: &Opportunity, books: &Books, now_ns: i64) {
        if !self.is_on {
            return;
        }
        for leg in told.legs() {
            if OPEN_MAX <= self.orders.len() || !books.is_usable(leg.instrument, now_ns) {
                continue;
            }
            // Side 1 of a leg buys from asks: the order rests among the bids.
            let side = if leg.side == 1 { Side::Bid } else { Side::Ask };
            let Some(best) = books.market().get(leg.instrument).book.best(side) else { continue };
            self.figures.entry(leg.instrument).or_default().orders += 1;
            self.orders.push(Order {
                instrument: leg.instrument,
                side,
                px: best.px,
                rest: leg.qty.0,
                ahead: best.qty.0,
                shown: best.qty.0,
                traded: 0,
                since_ns: now_ns,
            });
        }
    }

    /// Returns whether an order rests.
    #[must_use]
    #[inline]
    pub fn is_any(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Takes a market record, after the books did.
    pub fn take(&mut self, record: &Record, books: &Books, now_ns: i64) {
        if self.orders.is_empty() {
            return;
        }
        let (for_ns, weight) = (self.for_ns, i128::from(self.cancels_ahead_ppm));
        let figures = &mut self.figures;
        self.orders.retain_mut(|order| {
            if for_ns <= now_ns - order.since_ns {
                return false;
            }
            if order.instrument != record.instrument {
                return true;
            }
            match record.kind() {
                Some(Kind::Trade) => order.trade(record),
                Some(Kind::Level) => order.level(record, weight),
                _ => {}
            }
            // The other side came to or beyond its price: it cannot still be there.
            let book = &books.market().get(order.instrument).book;
            let other = match order.side {
                Side::Bid => book.best(Side::Ask).is_some_and(|ask| ask.px <= order.px),
                Side::Ask => book.best(Side::Bid).is_some_and(|bid| order.px <= bid.px),
            };
            let is_filled = order.rest <= 0 || other;
            if is_filled {
                let figures = figures.entry(order.instrument).or_default();
                figures.filled += 1;
                figures.us = figures.us.saturating_add((now_ns - order.since_ns) / 1_000);
            }
            !is_filled
        });
    }

    /// Returns what was learned.
    #[must_use]
    pub fn figures(&self, names: &Names<'_>) -> Vec<RestingFigures> {
        let seen = self.figures.iter().filter(|(_, figures)| figures.orders != 0);
        seen.map(|(id, figures)| RestingFigures {
            instrument: names.instrument(*id),
            orders: figures.orders,
            filled: figures.filled,
            mean_us: figures.us / figures.filled.max(1) as i64,
        })
        .collect()
    }
}

impl Order {
    fn trade(&mut self, record: &Record) {
        let [px, qty, side, _] = record.data;
        if Side::from_idx(side) != Some(self.side) || qty <= 0 {
            return;
        }
        let is_beyond = match self.side {
            Side::Bid => px < self.px.0,
            Side::Ask => self.px.0 < px,
        };
        if is_beyond {
            self.rest = 0;
        } else if px == self.px.0 {
            self.traded = self.traded.saturating_add(qty);
            let behind = qty - self.ahead.min(qty);
            self.ahead -= qty.min(self.ahead);
            self.rest -= behind;
        }
    }

    fn level(&mut self, record: &Record, weight: i128) {
        let [px, qty, side, _] = record.data;
        if px != self.px.0 || Side::from_idx(side) != Some(self.side) {
            return;
        }
        let less = (self.shown - qty).max(0);
        let cancelled = (less - self.traded).max(0);
        if 0 < self.shown && weight != 0 {
            let part = i128::from(cancelled) * i128::from(self.ahead) / i128::from(self.shown);
            self.ahead -= (part * weight / i128::from(PPM)) as i64;
        }
        // Nobody can be ahead who is not there.
        self.ahead = self.ahead.min(qty).max(0);
        (self.shown, self.traded) = (qty, 0);
    }
}
