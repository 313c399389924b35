//! The books as the journal's records make them: what the engine saw, to the depth that is published.
//!
//! Invariant: after the last record of a message a book is what the engine had at that place of the journal;
//! the same rules (an empty side is a quantity of 0, nonsense makes the book stale). A record of an
//! instrument that is none of the run's, or of another venue, changes nothing.

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Record, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use super::BOOKS_MAX;
use crate::run::RunInfo;

/// Levels a side of a book, whatever a feed publishes.
const LEVELS_MAX: usize = 4_096;

struct Entry {
    venue: Venue,
    book: Book,
    state: BookState,
    venue_ns: i64,
    recv_ns: i64,
}

/// A book's newest value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// Its place: the run's begin, ms, and the journal's sequence.
    pub at: (i64, u64),
    pub state: BookState,
    pub venue_ns: i64,
    pub recv_ns: i64,
    /// Best first.
    pub bids: Vec<Level>,
    pub asks: Vec<Level>,
}

/// The books of a run.
pub(crate) struct Mirror {
    depth: usize,
    entries: Vec<Entry>,
}

impl Mirror {
    pub fn new(depth: usize) -> Mirror {
        Mirror { depth, entries: Vec::new() }
    }

    /// A run begins: its books are empty.
    pub fn begin(&mut self, run: &RunInfo) {
        let entry = |venue| Entry {
            venue,
            book: Book::new(run.window_levels.clamp(1, LEVELS_MAX)),
            state: BookState::Init,
            venue_ns: 0,
            recv_ns: 0,
        };
        let listed = run.instruments.iter().take(BOOKS_MAX);
        self.entries = listed.map(|listed| entry(listed.venue)).collect();
    }

    /// Takes a record of a book; says whether it is of one of ours.
    pub fn take(&mut self, kind: Kind, record: &Record) -> bool {
        let Some(entry) = self.entries.get_mut(usize::from(record.instrument)) else {
            return false;
        };
        if entry.venue as u8 != record.venue {
            return false;
        }
        entry.recv_ns = record.recv_ts_ns;
        if record.venue_ts_ns != 0 {
            entry.venue_ns = record.venue_ts_ns;
        }
        let [a, b, c, d] = record.data;
        let understood = match kind {
            Kind::Level => match Side::from_idx(c) {
                Some(side) if 0 < a && 0 <= b => {
                    entry.book.set(side, Px(a), Qty(b));
                    true
                }
                _ => false,
            },
            Kind::Bbo => match (level(a, b), level(c, d)) {
                (Some(bid), Some(ask)) => {
                    entry.book.set_best(Side::Bid, bid);
                    entry.book.set_best(Side::Ask, ask);
                    true
                }
                _ => false,
            },
            Kind::Clear => {
                entry.book.clear();
                true
            }
            _ => match BookState::from_tag(a) {
                Some(BookState::Live) if record.has(flag::FALLBACK) => {
                    entry.state = BookState::Fallback;
                    true
                }
                Some(state) => {
                    entry.state = state;
                    true
                }
                None => false,
            },
        };
        if !understood {
            entry.state = BookState::Stale;
        }
        true
    }

    /// A venue's records were lost: its books are doubted. Returns which.
    pub fn doubt(&mut self, venue: u8) -> Vec<u16> {
        self.doubt_where(|entry| entry.venue as u8 == venue)
    }

    /// Records of the journal were lost.
    pub fn doubt_all(&mut self) -> Vec<u16> {
        self.doubt_where(|_| true)
    }

    fn doubt_where(&mut self, is_it: impl Fn(&Entry) -> bool) -> Vec<u16> {
        let doubted = self.entries.iter_mut().enumerate().filter(|(_, entry)| is_it(entry));
        doubted
            .map(|(instrument, entry)| {
                entry.state = BookState::Stale;
                instrument as u16
            })
            .collect()
    }

    /// Returns a book's value.
    pub fn quote(&self, instrument: u16, at: (i64, u64)) -> Option<Quote> {
        let entry = self.entries.get(usize::from(instrument))?;
        let side = |side| entry.book.levels(side).take(self.depth.max(1)).collect();
        Some(Quote {
            at,
            state: entry.state,
            venue_ns: entry.venue_ns,
            recv_ns: entry.recv_ns,
            bids: side(Side::Bid),
            asks: side(Side::Ask),
        })
    }
}

/// Nothing where it makes no sense; an empty side is a quantity of 0.
fn level(px: i64, qty: i64) -> Option<Option<Level>> {
    match (px, qty) {
        (_, 0) => Some(None),
        (px, qty) if 0 < px && 0 < qty => Some(Some(Level { px: Px(px), qty: Qty(qty) })),
        _ => None,
    }
}
