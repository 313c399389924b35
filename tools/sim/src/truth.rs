//! What each book really was: every BBO state and every level change of the last minutes.
//!
//! Invariant: the log holds every change since [`Truth::complete_from_ns`], in order; each event has a later
//! time than the one before, which its changes share. Memory is bounded by time and by count. It speaks of
//! the simulator's own book, never of
//! what a fault made of the messages.

use std::collections::VecDeque;

use crate::book::{Book, Level, Side};
use crate::market::Event;

/// Most log entries an instrument keeps, whatever the time: 250,000 × 40 bytes is 10 MB.
const ENTRIES_MAX: usize = 250_000;

/// One state of the best prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bbo {
    pub at_ns: u64,
    pub update_id: u64,
    pub bid: Option<Level>,
    pub ask: Option<Level>,
}

/// One change of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub at_ns: u64,
    pub update_id: u64,
    pub side: Side,
    pub px: i64,
    pub old: i64,
    pub new: i64,
}

/// Recent past of one instrument.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    bbo: VecDeque<Bbo>,
    log: VecDeque<Entry>,
    complete_from_ns: u64,
    keep_ns: u64,
}

/// A quantity a level had from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelState {
    pub from_ns: u64,
    pub qty: i64,
}

impl Truth {
    pub fn new(now_ns: u64, keep_s: u64, book: &Book, update_id: u64) -> Self {
        let mut truth =
            Self { complete_from_ns: now_ns, keep_ns: keep_s * 1_000_000_000, ..Self::default() };
        truth.bbo.push_back(Bbo {
            at_ns: now_ns,
            update_id,
            bid: book.best(Side::Bid),
            ask: book.best(Side::Ask),
        });
        truth
    }

    /// Records an event that is already in `book`.
    pub fn record(&mut self, at_ns: u64, event: &Event, book: &Book) {
        for (change, update_id) in event.changes.iter().zip(event.first_id..) {
            self.log.push_back(Entry {
                at_ns,
                update_id,
                side: change.side,
                px: change.px,
                old: change.old,
                new: change.new,
            });
        }
        if event.bbo_changed {
            let (bid, ask) = (book.best(Side::Bid), book.best(Side::Ask));
            self.bbo.push_back(Bbo { at_ns, update_id: event.last_id, bid, ask });
        }
        self.trim(at_ns);
    }

    fn trim(&mut self, now_ns: u64) {
        let oldest = now_ns.saturating_sub(self.keep_ns);
        while let Some(first) = self.log.front()
            && (first.at_ns < oldest || self.log.len() > ENTRIES_MAX)
        {
            self.complete_from_ns = self.complete_from_ns.max(first.at_ns + 1);
            self.log.pop_front();
        }
        // The newest state older than the window stays: it is what held at its beginning.
        while self.bbo.len() > ENTRIES_MAX
            || self.bbo.get(1).is_some_and(|second| second.at_ns < oldest)
        {
            self.bbo.pop_front();
        }
    }

    /// Time since which the level log is complete.
    pub fn complete_from_ns(&self) -> u64 {
        self.complete_from_ns
    }

    /// BBO states that held at or after `since_ns`, the one in force at `since_ns` included.
    pub fn history(&self, since_ns: u64) -> impl Iterator<Item = &Bbo> {
        let from = self.bbo.partition_point(|b| b.at_ns <= since_ns).saturating_sub(1);
        self.bbo.range(from..)
    }

    /// Quantities of one level from `from_ns` to `to_ns`; the first holds at `from_ns`.
    pub fn level(
        &self,
        book: &Book,
        side: Side,
        px: i64,
        from_ns: u64,
        to_ns: u64,
    ) -> Vec<LevelState> {
        let mut states: Vec<LevelState> = Vec::new();
        let mut before = None;
        let mut after = None;
        for entry in self.log.iter().filter(|e| e.side == side && e.px == px) {
            if entry.at_ns <= from_ns {
                before = Some(entry.new);
            } else if entry.at_ns <= to_ns {
                before = before.or(Some(entry.old));
                states.push(LevelState { from_ns: entry.at_ns, qty: entry.new });
            } else {
                after = Some(entry.old);
                break;
            }
        }
        let first = before.or(after).unwrap_or_else(|| book.get(side, px));
        states.insert(0, LevelState { from_ns, qty: first });
        states
    }

    /// The book and its update id as they were `age_ns` before `now_ns`, by undoing the log.
    pub fn past_book(&self, book: &Book, update_id: u64, now_ns: u64, age_ns: u64) -> (Book, u64) {
        let mut past = book.clone();
        let mut id = update_id;
        let when = now_ns.saturating_sub(age_ns);
        for entry in self.log.iter().rev().take_while(|e| e.at_ns > when) {
            past.set(entry.side, entry.px, entry.old);
            id = entry.update_id - 1;
        }
        (past, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Change;

    fn event(id: u64, side: Side, px: i64, old: i64, new: i64) -> Event {
        Event {
            at_ns: 0,
            inst: 0,
            changes: vec![Change { side, px, old, new }],
            trades: vec![],
            first_id: id,
            last_id: id,
            bbo_changed: true,
        }
    }

    #[test]
    fn levels_and_past_books_follow_the_log() {
        let mut book = Book::default();
        book.set(Side::Bid, 10, 5);
        book.set(Side::Ask, 12, 5);
        let mut truth = Truth::new(100, 150, &book, 7);
        for (at, id, px, old, new) in [(200, 8, 10, 5, 3), (300, 9, 11, 0, 4), (400, 10, 10, 3, 0)]
        {
            book.set(Side::Bid, px, new);
            truth.record(at, &event(id, Side::Bid, px, old, new), &book);
        }
        let qty = |from, to| -> Vec<i64> {
            truth.level(&book, Side::Bid, 10, from, to).iter().map(|s| s.qty).collect()
        };
        assert_eq!(qty(150, 250), vec![5, 3]);
        assert_eq!(qty(250, 350), vec![3]);
        assert_eq!(qty(250, 450), vec![3, 0]);
        assert_eq!(qty(450, 500), vec![0]);
        let never = truth.level(&book, Side::Bid, 9, 100, 500);
        assert_eq!(never, vec![LevelState { from_ns: 100, qty: 0 }]);

        let (past, id) = truth.past_book(&book, 10, 410, 150);
        assert_eq!((past.get(Side::Bid, 10), past.get(Side::Bid, 11), id), (3, 0, 8));
        let states: Vec<u64> = truth.history(300).map(|b| b.at_ns).collect();
        assert_eq!(states, vec![300, 400]);
        let all: Vec<u64> = truth.history(0).map(|b| b.at_ns).collect();
        assert_eq!(all, vec![100, 200, 300, 400]);
    }

    #[test]
    fn memory_is_bounded_by_time() {
        let mut book = Book::default();
        let mut truth = Truth::new(0, 1, &book, 0);
        for i in 1..=50u64 {
            let qty = i64::try_from(i).unwrap();
            let old = book.set(Side::Bid, 10, qty);
            truth.record(i * 100_000_000, &event(i, Side::Bid, 10, old, qty), &book);
        }
        assert!(truth.log.len() <= 11, "{}", truth.log.len());
        assert!(truth.complete_from_ns() > 3_900_000_000);
        assert!(truth.history(0).next().unwrap().at_ns < 4_000_000_000, "state in force is kept");
    }
}
