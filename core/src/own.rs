//! Our own taking: depth that is displayed and that our orders have taken or are about to take.
//!
//! Invariant: what an order of ours takes from a level is not seen there again until the venue shows
//! that level anew after the order ended, or a bounded time after that. In doubt less depth is seen,
//! never more. Paper has no such time: its fills never show at the venue, so only a change of the level
//! brings depth back.
//!
//! Not here: which depth is walked (`walk`, on [`crate::market::InstrumentState::depth`]).

use alloc::vec::Vec;

use crate::book::Book;
use crate::market::Market;
use crate::mutation::{Mute, muted};
use crate::order::{NewOrder, OrderKey};
use crate::units::{Px, Qty, Side};

/// Levels remembered; beyond it the oldest that ended are forgotten.
const ENTRIES: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Entry {
    instrument: u16,
    side: Side,
    px: Px,
    qty: Qty,
    run: u32,
    key: OrderKey,
    /// When the order ended; 0 while it has not.
    ended_ns: i64,
}

/// Everything that we take.
#[derive(Debug)]
pub struct Own {
    entries: Vec<Entry>,
    /// By instrument: how many of them. Nearly every record is about one that has none.
    counts: Vec<u16>,
}

impl Own {
    /// Returns no taking; nothing is allocated afterwards.
    #[must_use]
    pub fn new(instrument_count: usize) -> Own {
        Own { entries: Vec::with_capacity(ENTRIES), counts: alloc::vec![0; instrument_count] }
    }

    /// Returns whether nothing is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == ENTRIES {
            let oldest = self.entries.iter().position(|e| e.ended_ns != 0).unwrap_or(0);
            let gone = self.entries.remove(oldest);
            self.counts[usize::from(gone.instrument)] -= 1;
        }
        self.counts[usize::from(entry.instrument)] += 1;
        self.entries.push(entry);
    }

    /// Keeps what `keeps` says.
    fn retain(&mut self, mut keeps: impl FnMut(&mut Entry) -> bool) {
        let counts = &mut self.counts;
        self.entries.retain_mut(|entry| {
            let stays = keeps(entry);
            counts[usize::from(entry.instrument)] -= u16::from(!stays);
            stays
        });
    }

    /// Notes what an order will take if the book is what we see.
    pub fn take(&mut self, order: &NewOrder, book: &Book) {
        if muted(Mute::OwnInterest) {
            return;
        }
        let side = order.action.takes();
        let mut rest = order.qty.0;
        for level in book.levels(side) {
            if rest == 0 || order.action.is_worse(level.px, order.px) {
                break;
            }
            let qty = Qty(rest.min(level.qty.0));
            rest -= qty.0;
            let (instrument, px) = (order.instrument, level.px);
            let (run, key) = (order.run, order.key);
            self.push(Entry { instrument, side, px, qty, run, key, ended_ns: 0 });
        }
    }

    /// Notes that an order took this much of a level, whatever was expected of it.
    pub fn took(&mut self, order: &NewOrder, px: Px, qty: Qty, now_ns: i64) {
        let (instrument, side) = (order.instrument, order.action.takes());
        let (run, key) = (order.run, order.key);
        self.push(Entry { instrument, side, px, qty, run, key, ended_ns: now_ns });
    }

    /// Forgets what was expected of an order.
    pub fn forget(&mut self, run: u32, key: OrderKey) {
        self.retain(|entry| (entry.run, entry.key) != (run, key));
    }

    /// Notes that an order ended having filled `filled`: the best levels gave it.
    pub fn ended(&mut self, run: u32, key: OrderKey, filled: Qty, now_ns: i64) {
        let mut rest = filled.0;
        self.retain(|entry| {
            if (entry.run, entry.key) != (run, key) || entry.ended_ns != 0 {
                return true;
            }
            entry.qty = Qty(entry.qty.0.min(rest));
            rest -= entry.qty.0;
            entry.ended_ns = now_ns;
            entry.qty.0 != 0
        });
    }

    /// Notes that the venue showed a level anew, or everything where there is no price.
    pub fn shown(&mut self, instrument: u16, level: Option<(Side, Px)>, recv_ns: i64) {
        if self.counts[usize::from(instrument)] == 0 {
            return;
        }
        self.retain(|entry| {
            let is_meant = entry.instrument == instrument
                && level.is_none_or(|level| level == (entry.side, entry.px));
            !(is_meant && entry.ended_ns != 0 && entry.ended_ns <= recv_ns)
        });
    }

    /// Forgets what ended before `before_ns`, and calls `each` with the instruments concerned.
    pub fn expire(&mut self, before_ns: i64, mut each: impl FnMut(u16)) {
        self.retain(|entry| {
            let is_over = entry.ended_ns != 0 && entry.ended_ns < before_ns;
            if is_over {
                each(entry.instrument);
            }
            !is_over
        });
    }

    /// Returns what others of our orders than `key` take of a level.
    #[must_use]
    pub fn taken(&self, instrument: u16, side: Side, px: Px, but: Option<(u32, OrderKey)>) -> i64 {
        self.entries
            .iter()
            .filter(|e| (e.instrument, e.side, e.px) == (instrument, side, px))
            .filter(|e| but != Some((e.run, e.key)))
            .map(|e| e.qty.0)
            .fold(0, i64::saturating_add)
    }

    /// Returns everything that is taken of an instrument.
    pub fn of(&self, instrument: u16) -> impl Iterator<Item = (Side, Px, Qty)> + '_ {
        let of = self.entries.iter().filter(move |entry| entry.instrument == instrument);
        of.map(|entry| (entry.side, entry.px, entry.qty))
    }

    /// Makes an instrument's reduced depth right.
    pub fn rebuild(&self, market: &mut Market, instrument: u16) {
        let state = market.get_mut(instrument);
        state.own = self.counts[usize::from(instrument)] != 0;
        if !state.own {
            return;
        }
        let (book, reduced) = (&state.book, &mut state.reduced);
        for side in Side::BOTH {
            reduced.copy(side, book);
        }
        for entry in self.entries.iter().filter(|entry| entry.instrument == instrument) {
            reduced.lower(entry.side, entry.px, entry.qty);
        }
    }
}
