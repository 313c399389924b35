//! What a journal says of books and trades, message by message, for files that know levels alone.
//!
//! Invariant: after each message the levels that were told make exactly the engine's book: best prices are told as
//! the levels that they remove and set, and a level that falls out of the window is told to be gone. The first
//! message of a book, and one that begins with a `Clear`, tells the whole book.
//!
//! Not here: files (`csv`, `events`).

use tandem_core::book::{Book, Change, Level};
use tandem_core::record::{BookState, Kind, Record, flag};
use tandem_core::units::{Px, Qty, Side};
use tandem_drain::run::RunInfo;

/// Levels a side that are kept at most, whatever a configuration says.
const LEVELS_MAX: usize = 4_096;

/// A level as it is from now on; quantity 0: it is gone.
pub type Told = (Side, Px, Qty);

/// A trade: price, quantity, side of the book that was taken where it is known, the venue's number.
pub type TradeTold = (Px, Qty, Option<Side>, u64);

/// One message about one instrument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// When it was received, UNIX ns.
    pub recv_ns: i64,
    /// The venue's time, UNIX ns; 0 where it told none.
    pub venue_ns: i64,
    /// The levels are the whole book; what was known before is gone.
    pub snapshot: bool,
    /// Levels in the order in which they were told.
    pub levels: Vec<Told>,
    /// Trades.
    pub trades: Vec<TradeTold>,
}

/// One instrument.
#[derive(Debug)]
struct Kept {
    book: Book,
    state: u8,
    message: Message,
    /// Levels of before a `Clear` of this message.
    before: Vec<Told>,
    is_cleared: bool,
    was_told: bool,
    /// Its records wait for the end of the batch.
    is_open: bool,
    last_recv_ns: i64,
}

impl Kept {
    fn set(&mut self, side: Side, px: Px, qty: Qty) {
        let levels = self.book.len(side);
        let worst = levels.checked_sub(1).and_then(|rank| self.book.level(side, rank));
        match self.book.set(side, px, qty) {
            Change::Nothing => {}
            Change::Inserted { dropped: true, .. } => {
                self.message.levels.push((side, px, qty));
                self.message.levels.extend(worst.map(|level| (side, level.px, Qty(0))));
            }
            _ => self.message.levels.push((side, px, qty)),
        }
    }

    fn set_best(&mut self, side: Side, best: Option<Level>) {
        let is_better = |level: &Level| {
            best.is_none_or(|best| side.rank_key(best.px) < side.rank_key(level.px))
        };
        while let Some(level) = self.book.best(side).filter(is_better) {
            self.set(side, level.px, Qty(0));
        }
        if let Some(level) = best {
            self.set(side, level.px, level.qty);
        }
    }

    fn clear(&mut self) {
        if !self.is_cleared {
            self.before = whole(&self.book);
            self.is_cleared = true;
        }
        self.book.clear();
        self.message.levels.clear();
    }

    /// Ends the message; nothing where it told nothing.
    fn end(&mut self) -> Option<Message> {
        self.is_open = false;
        let mut message = std::mem::take(&mut self.message);
        // A receiver's time does not go back.
        message.recv_ns = message.recv_ns.max(self.last_recv_ns);
        self.last_recv_ns = message.recv_ns;
        let (was_cleared, before) =
            (std::mem::take(&mut self.is_cleared), std::mem::take(&mut self.before));
        if was_cleared || !self.was_told && !message.levels.is_empty() {
            message.levels = whole(&self.book);
            message.snapshot = !message.levels.is_empty();
            if !message.snapshot && self.was_told {
                message.levels =
                    before.into_iter().map(|(side, px, _)| (side, px, Qty(0))).collect();
            }
            self.was_told |= message.snapshot;
        }
        (!message.levels.is_empty() || !message.trades.is_empty()).then_some(message)
    }
}

/// A book's levels, best first, bids before asks.
fn whole(book: &Book) -> Vec<Told> {
    Side::BOTH
        .into_iter()
        .flat_map(|side| book.levels(side).map(move |level| (side, level.px, level.qty)))
        .collect()
}

/// The books of a run.
#[derive(Debug, Default)]
pub struct Tape {
    kept: Vec<Kept>,
    /// Instruments whose message is under way, with their venue.
    open: Vec<(u16, u8)>,
}

impl Tape {
    /// Returns empty books of a run's instruments.
    #[must_use]
    pub fn new(run: &RunInfo) -> Tape {
        let levels = run.window_levels.clamp(1, LEVELS_MAX);
        let kept = |_| Kept {
            book: Book::new(levels),
            state: BookState::Init as u8,
            message: Message::default(),
            before: Vec::new(),
            is_cleared: false,
            was_told: false,
            is_open: false,
            last_recv_ns: 0,
        };
        Tape { kept: (0..run.instruments.len()).map(kept).collect(), open: Vec::new() }
    }

    /// Goes on after another configuration: what was told stays told, and each book is told whole again.
    pub fn renew(&mut self, run: &RunInfo) {
        let fresh = Tape::new(run);
        let last: Vec<i64> = self.kept.iter().map(|kept| kept.last_recv_ns).collect();
        *self = fresh;
        for (kept, last) in self.kept.iter_mut().zip(last) {
            kept.last_recv_ns = last;
        }
    }

    /// Returns an instrument's book and the state that was told of it.
    #[must_use]
    pub fn book(&self, instrument: u16) -> Option<(&Book, u8)> {
        self.kept.get(usize::from(instrument)).map(|kept| (&kept.book, kept.state))
    }

    /// Takes a record; with the last one of a batch `each` is given the messages that it ends.
    pub fn take<E>(
        &mut self,
        record: &Record,
        mut each: impl FnMut(u16, &Message) -> Result<(), E>,
    ) -> Result<(), E> {
        let of_book = matches!(
            record.kind(),
            Some(Kind::Level | Kind::Bbo | Kind::Clear | Kind::BookState | Kind::Trade)
        );
        if of_book && !record.has(flag::OUTPUT) {
            self.note(record);
        }
        if !record.has(flag::LAST) || record.has(flag::OUTPUT) {
            return Ok(());
        }
        let (ended, open) = self.open.drain(..).partition(|(_, venue)| *venue == record.venue);
        self.open = open;
        let ended: Vec<(u16, u8)> = ended;
        for (instrument, _) in ended {
            let message = self.kept.get_mut(usize::from(instrument)).and_then(Kept::end);
            if let Some(message) = message {
                each(instrument, &message)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, record: &Record) {
        let Some(kept) = self.kept.get_mut(usize::from(record.instrument)) else { return };
        if !std::mem::replace(&mut kept.is_open, true) {
            self.open.push((record.instrument, record.venue));
        }
        let recv_ns = if record.recv_ts_ns == 0 { record.engine_ts_ns } else { record.recv_ts_ns };
        kept.message.recv_ns = kept.message.recv_ns.max(recv_ns);
        kept.message.venue_ns = kept.message.venue_ns.max(record.venue_ts_ns);
        let [a, b, c, d] = record.data;
        match record.kind() {
            Some(Kind::Level) if 0 < a && 0 <= b => {
                if let Some(side) = Side::from_idx(c) {
                    kept.set(side, Px(a), Qty(b));
                }
            }
            Some(Kind::Bbo) => {
                for (side, px, qty) in [(Side::Bid, a, b), (Side::Ask, c, d)] {
                    match (px, qty) {
                        (_, 0) => kept.set_best(side, None),
                        (1.., 1..) => {
                            kept.set_best(side, Some(Level { px: Px(px), qty: Qty(qty) }));
                        }
                        _ => {}
                    }
                }
            }
            Some(Kind::Clear) => kept.clear(),
            Some(Kind::BookState) => kept.state = u8::try_from(a).unwrap_or(u8::MAX),
            Some(Kind::Trade) if 0 < a && 0 < b => {
                let trade = (Px(a), Qty(b), Side::from_idx(c), d.cast_unsigned());
                kept.message.trades.push(trade);
            }
            _ => {}
        }
    }
}
