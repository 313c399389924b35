//! Every book as the engine had it at this place of the journal.

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Reason, Record};
use tandem_core::units::{Px, Qty, Side};

use super::views::{BookView, LevelView};
use crate::run::RunInfo;

/// Levels a side that are kept at most, whatever a configuration says.
const LEVELS_MAX: usize = 4_096;

struct Instrument {
    book: Book,
    state: BookState,
    reason: Reason,
    update_id: u64,
    venue_ns: i64,
    recv_ns: i64,
}

/// The books of a run.
#[derive(Default)]
pub struct Books {
    of: Vec<Instrument>,
}

impl Books {
    /// Returns the empty books of a run.
    pub fn new(run: &RunInfo) -> Books {
        let levels = run.window_levels.clamp(1, LEVELS_MAX);
        let one = |_| Instrument {
            book: Book::new(levels),
            state: BookState::Init,
            reason: Reason::None,
            update_id: 0,
            venue_ns: 0,
            recv_ns: 0,
        };
        Books { of: run.instruments.iter().map(one).collect() }
    }

    /// Takes a record of a book; what makes no sense changes nothing.
    pub fn take(&mut self, record: &Record) {
        let Some(found) = self.of.get_mut(usize::from(record.instrument)) else { return };
        found.update_id = record.update_id;
        found.venue_ns = record.venue_ts_ns;
        found.recv_ns = record.recv_ts_ns;
        let [a, b, c, d] = record.data;
        match record.kind() {
            Some(Kind::Level) => {
                if let Some(side) = Side::from_idx(c)
                    && 0 < a
                    && 0 <= b
                {
                    found.book.set(side, Px(a), Qty(b));
                }
            }
            Some(Kind::Bbo) => {
                let level =
                    |px, qty| (0 < px && 0 < qty).then_some(Level { px: Px(px), qty: Qty(qty) });
                found.book.set_best(Side::Bid, level(a, b));
                found.book.set_best(Side::Ask, level(c, d));
            }
            Some(Kind::Clear) => found.book.clear(),
            Some(Kind::BookState) => {
                found.state = BookState::from_tag(a).unwrap_or(BookState::Stale);
                found.reason = Reason::from_tag(b).unwrap_or(Reason::None);
            }
            _ => {}
        }
    }

    /// Returns a book's state.
    pub fn state(&self, instrument: u16) -> Option<BookState> {
        self.of.get(usize::from(instrument)).map(|found| found.state)
    }

    /// Returns a book for people.
    pub fn view(
        &self,
        run: &RunInfo,
        instrument: u16,
        levels: usize,
        now_ns: i64,
    ) -> Option<BookView> {
        let found = self.of.get(usize::from(instrument))?;
        let listed = run.instruments.get(usize::from(instrument))?;
        let rules = run.universe.instruments.get(usize::from(instrument))?;
        let side = |side: Side| -> Vec<LevelView> {
            let levels = found.book.levels(side).take(levels);
            levels
                .map(|level| {
                    LevelView(run.px(instrument, level.px.0), run.qty(instrument, level.qty.0))
                })
                .collect()
        };
        Some(BookView {
            instrument,
            venue: listed.venue.name(),
            symbol: listed.symbol.clone(),
            base: run.asset(rules.base).to_owned(),
            quote: run.asset(rules.quote).to_owned(),
            state: found.state.name(),
            reason: super::reason_name(found.reason),
            bids: side(Side::Bid),
            asks: side(Side::Ask),
            update_id: found.update_id,
            venue_us: found.venue_ns / 1_000,
            recv_us: found.recv_ns / 1_000,
            age_us: match found.recv_ns {
                0 => None,
                at => Some((now_ns - at).max(0) / 1_000),
            },
        })
    }
}
