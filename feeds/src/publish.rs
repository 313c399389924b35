//! Books as the engine sees them: full here, their best levels there, in batches.
//!
//! Invariant: after every batch that leaves a book undoubted, the engine's book (rebuilt from the records)
//! is exactly the best `shown` levels of the full one, `shown` ≤ W a side. One message of a venue is one
//! contiguous batch, its last record carries [`flag::LAST`]. Nothing of a message is published before all
//! of it was applied and judged, so a wrong best price is never said and then taken back; a doubt is a
//! batch of its own, said before anything else.
//!
//! A level worse than a side's *edge* may have neighbours we do not know (a Binance snapshot ends
//! somewhere, a full book forgets its worst), so nothing beyond it is shown.
//!
//! Not here: when a book is in doubt (`sync` of each venue), how records travel (`tile`).

use tandem_core::book::{Book, Change, Level};
use tandem_core::record::{BookState, Kind, Reason, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::machine::{Position, Publish, Stamps};
use crate::spec::VenueInstrument;

/// A record's instrument where it has none.
pub const NO_INSTRUMENT: u16 = u16::MAX;

/// One level as a message says it: absolute, 0 removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// Side.
    pub side: Side,
    /// Price, positive.
    pub px: Px,
    /// Quantity, not negative.
    pub qty: Qty,
}

/// What all records of a batch have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Connection the message came over.
    pub conn: u32,
    /// Venue's time of the event, UNIX ns; 0 where unknown.
    pub venue_ts_ns: i64,
    /// When it came.
    pub at: Stamps,
}

impl Head {
    /// Returns the head of what is said without a message: at a time, over a connection.
    #[must_use]
    pub fn at(now_ns: i64, conn: u32) -> Head {
        Head { conn, venue_ts_ns: 0, at: Stamps { recv_ns: now_ns, ..Stamps::default() } }
    }
}

/// A record to be: what differs within a batch.
#[derive(Clone, Copy, Debug)]
struct Op {
    kind: Kind,
    flags: u8,
    instrument: u16,
    update_id: u64,
    data: [i64; 4],
}

/// One instrument's book.
#[derive(Debug)]
struct Cell {
    id: u16,
    book: Book,
    /// How many of the best levels of each side the engine has.
    shown: [usize; 2],
    /// Worst price of each side up to which every level is known.
    edge: [Option<Px>; 2],
    state: BookState,
    reason: Reason,
    position: Position,
    dirty: bool,
}

/// The books of one machine and the batch in the making.
#[derive(Debug)]
pub struct Books {
    venue: Venue,
    window: usize,
    cells: Vec<Cell>,
    batch: Vec<Op>,
    dirty: Vec<usize>,
    /// Records and batches published, levels that did not fit.
    pub counts: Counts,
}

/// What [`Books`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records published.
    pub records: u64,
    /// Batches published.
    pub batches: u64,
    /// Levels a full book had to forget.
    pub dropped_levels: u64,
}

impl Books {
    /// Returns empty books that show `window` levels a side and hold `capacity` (at least one more).
    #[must_use]
    pub fn new(
        venue: Venue,
        instruments: &[VenueInstrument],
        window: usize,
        capacity: usize,
    ) -> Books {
        assert!(0 < window, "a window shows at least one level a side");
        // A full book forgets its worst level; with one more than the window that is never a shown one.
        let capacity = capacity.max(window + 1);
        let cells = instruments
            .iter()
            .map(|instrument| Cell {
                id: instrument.id,
                book: Book::new(capacity),
                shown: [0; 2],
                edge: [None; 2],
                state: BookState::Init,
                reason: Reason::None,
                position: Position::default(),
                dirty: false,
            })
            .collect::<Vec<_>>();
        Books {
            venue,
            window,
            // A snapshot of both sides, and some: the largest diff recorded had 1,076 levels.
            batch: Vec::with_capacity(2 * window + 2_048),
            dirty: Vec::with_capacity(cells.len()),
            cells,
            counts: Counts::default(),
        }
    }

    /// Returns the full book.
    #[inline]
    #[must_use]
    pub fn book(&self, slot: usize) -> &Book {
        &self.cells[slot].book
    }

    /// Returns how many best levels of each side are published.
    #[must_use]
    pub fn shown(&self, slot: usize) -> [usize; 2] {
        self.cells[slot].shown
    }

    /// Returns the state as it was last published.
    #[inline]
    #[must_use]
    pub fn state(&self, slot: usize) -> (BookState, Reason) {
        (self.cells[slot].state, self.cells[slot].reason)
    }

    /// Returns where the book stands.
    #[must_use]
    pub fn position(&self, slot: usize) -> Position {
        self.cells[slot].position
    }

    /// Notes where the book stands.
    pub fn set_position(&mut self, slot: usize, update_id: u64, head: &Head) {
        self.cells[slot].position = Position {
            update_id,
            venue_ts_ns: head.venue_ts_ns,
            recv_ns: head.at.recv_ns,
            conn: head.conn,
        };
    }

    /// Returns a slot whose book or state changed since it was last returned.
    pub fn take_dirty(&mut self) -> Option<usize> {
        let slot = self.dirty.pop()?;
        self.cells[slot].dirty = false;
        Some(slot)
    }

    /// Returns whether fewer levels than `least` can be shown though more are held: the known part of a
    /// side has worn off.
    #[must_use]
    pub fn is_worn(&self, slot: usize, least: usize) -> bool {
        let cell = &self.cells[slot];
        Side::BOTH.into_iter().any(|side| {
            let shown = cell.shown[side.idx()];
            cell.edge[side.idx()].is_some() && shown < least && shown < cell.book.len(side)
        })
    }

    /// Sets one level and adds it to the batch if the engine is to see it.
    #[inline]
    pub fn set(&mut self, slot: usize, update: Update, update_id: u64) {
        let window = self.window;
        let cell = &mut self.cells[slot];
        let Update { side, px, qty } = update;
        let shown = cell.shown[side.idx()];
        let show = match cell.book.set(side, px, qty) {
            Change::Nothing => false,
            Change::Updated { rank } => rank < shown,
            Change::Removed { rank } => {
                let show = rank < shown;
                cell.shown[side.idx()] -= usize::from(show);
                show
            }
            Change::Inserted { rank, dropped } => {
                if dropped {
                    self.counts.dropped_levels += 1;
                    cell.wear(side);
                }
                // The next one in rank may be shown as long as the window has room for it.
                let next = rank == shown && shown < window && cell.is_known(side, px);
                let show = rank < shown || next;
                if show {
                    cell.shown[side.idx()] = (shown + 1).min(window);
                }
                show
            }
        };
        if show {
            self.level(slot, side, px, qty, update_id, 0);
        }
    }

    /// Sets levels without publishing; a snapshot follows.
    pub fn set_quietly(&mut self, slot: usize, updates: &[Update]) {
        let cell = &mut self.cells[slot];
        for Update { side, px, qty } in updates {
            if let Change::Inserted { dropped: true, .. } = cell.book.set(*side, *px, *qty) {
                self.counts.dropped_levels += 1;
                cell.wear(*side);
            }
        }
    }

    /// Makes these the best levels of both sides without publishing; a snapshot follows.
    pub fn set_best_quietly(&mut self, slot: usize, best: [Option<Level>; 2]) {
        for side in Side::BOTH {
            self.cells[slot].book.set_best(side, best[side.idx()]);
        }
    }

    /// Returns the best level of both sides.
    #[inline]
    #[must_use]
    pub fn best(&self, slot: usize) -> [Option<Level>; 2] {
        Side::BOTH.map(|side| self.cells[slot].book.best(side))
    }

    /// Returns the prices up to which the book's sides are known; nothing where to the end.
    #[must_use]
    pub fn edges(&self, slot: usize) -> [Option<Px>; 2] {
        self.cells[slot].edge
    }

    /// Makes these the best levels of both sides: one `Bbo` record.
    pub fn set_best(&mut self, slot: usize, best: [Option<Level>; 2], update_id: u64) {
        let window = self.window;
        let cell = &mut self.cells[slot];
        for side in Side::BOTH {
            let shown = &mut cell.shown[side.idx()];
            match best[side.idx()] {
                None => *shown = 0,
                Some(level) => {
                    let key = side.rank_key(level.px);
                    let gone =
                        cell.book.levels(side).take_while(|l| key < side.rank_key(l.px)).count();
                    let held = cell.book.level(side, gone).is_some_and(|l| l.px == level.px);
                    *shown = shown.saturating_sub(gone);
                    if !held || *shown == 0 {
                        *shown = (*shown + 1).min(window);
                    }
                }
            }
            cell.book.set_best(side, best[side.idx()]);
        }
        let [bid, ask] = best.map(Option::unwrap_or_default);
        let data = [bid.px.0, bid.qty.0, ask.px.0, ask.qty.0];
        self.push(slot, Op { kind: Kind::Bbo, flags: 0, instrument: 0, update_id, data });
    }

    /// Cuts each side to its best `keep` levels; the engine is told which it loses.
    pub fn truncate(&mut self, slot: usize, keep: usize, update_id: u64) {
        for side in Side::BOTH {
            while let Some(level) = self.cells[slot].beyond(side, keep) {
                // From the worst inwards, so that every removal is at the end of a side.
                self.set(slot, Update { side, px: level.px, qty: Qty(0) }, update_id);
            }
        }
    }

    /// Cuts each side to its best `keep` levels without publishing; a snapshot follows.
    pub fn truncate_quietly(&mut self, slot: usize, keep: usize) {
        for side in Side::BOTH {
            self.cells[slot].book.truncate(side, keep);
        }
    }

    /// Shows hidden levels where the window has room: the last thing of a message for this book.
    #[inline]
    pub fn refill(&mut self, slot: usize, update_id: u64) {
        for side in Side::BOTH {
            while let Some(level) = self.cells[slot].next_hidden(side, self.window) {
                self.cells[slot].shown[side.idx()] += 1;
                self.level(slot, side, level.px, level.qty, update_id, 0);
            }
        }
    }

    /// Replaces the book by a snapshot's levels in any order; of equal prices the later one counts. With
    /// `limit`, a side of that many levels ends at an edge. Publishes nothing yet.
    pub fn replace(&mut self, slot: usize, levels: &mut [Update], limit: Option<usize>) {
        let order = |a: &Update, b: &Update| {
            let by_side = a.side.idx().cmp(&b.side.idx());
            by_side.then_with(|| b.side.rank_key(b.px).cmp(&a.side.rank_key(a.px)))
        };
        // Venues send snapshots in order; a stable sort is for those that do not.
        if !levels.is_sorted_by(|a, b| order(a, b).is_lt()) {
            levels.sort_by(order);
        }
        let cell = &mut self.cells[slot];
        for side in Side::BOTH {
            let run = levels.iter().filter(|update| update.side == side).count();
            let start = if side == Side::Bid { 0 } else { levels.len() - run };
            let of_side = &levels[start..start + run];
            let last_of_price = of_side.iter().enumerate().filter(|(idx, update)| {
                of_side.get(idx + 1).is_none_or(|next| next.px != update.px) && 0 < update.qty.0
            });
            let best_first =
                last_of_price.map(|(_, update)| Level { px: update.px, qty: update.qty });
            let dropped = cell.book.replace(side, best_first);
            self.counts.dropped_levels += dropped as u64;
            // The engine still has the book of before; nothing of this one is shown yet.
            cell.shown[side.idx()] = 0;
            cell.edge[side.idx()] = None;
            if 0 < dropped || limit.is_some_and(|limit| limit <= run) {
                cell.wear(side);
            }
        }
    }

    /// Adds the whole window to the batch as a snapshot: `Clear`, levels, and the state at the end.
    pub fn show_snapshot(
        &mut self,
        slot: usize,
        update_id: u64,
        (state, reason): (BookState, Reason),
        flags: u8,
    ) {
        let flags = flags | flag::SNAPSHOT;
        let clear = Op { kind: Kind::Clear, flags, instrument: 0, update_id, data: [0; 4] };
        self.push(slot, clear);
        self.cells[slot].shown = [0; 2];
        for side in Side::BOTH {
            while let Some(level) = self.cells[slot].next_hidden(side, self.window) {
                self.cells[slot].shown[side.idx()] += 1;
                self.level(slot, side, level.px, level.qty, update_id, flags);
            }
        }
        self.say(slot, state, reason, update_id, flags);
    }

    /// Adds the book's state to the batch, if it is another one.
    pub fn say_if_new(&mut self, slot: usize, state: BookState, reason: Reason, update_id: u64) {
        if (self.cells[slot].state, self.cells[slot].reason) != (state, reason) {
            self.say(slot, state, reason, update_id, 0);
        }
    }

    fn say(&mut self, slot: usize, state: BookState, reason: Reason, update_id: u64, flags: u8) {
        let cell = &mut self.cells[slot];
        (cell.state, cell.reason) = (state, reason);
        let hidden = Side::BOTH.map(|s| (cell.book.len(s) - cell.shown[s.idx()]) as i64);
        let data = [state as i64, reason as i64, hidden[0], hidden[1]];
        self.push(slot, Op { kind: Kind::BookState, flags, instrument: 0, update_id, data });
    }

    /// Adds a trade to the batch: the side of the book that was taken.
    pub fn trade(&mut self, slot: usize, px: Px, qty: Qty, taken: Side, trade_id: u64) {
        let data = [px.0, qty.0, taken.idx() as i64, trade_id.cast_signed()];
        let op = Op {
            kind: Kind::Trade,
            flags: 0,
            instrument: self.cells[slot].id,
            update_id: trade_id,
            data,
        };
        self.batch.push(op);
    }

    /// Adds an instrument's changed rules to the batch.
    pub fn rules(
        &mut self,
        slot: usize,
        status: TradingStatus,
        tick: i64,
        lot: i64,
        notional_min: i64,
    ) {
        let data = [status as i64, tick, lot, notional_min];
        self.push(
            slot,
            Op { kind: Kind::InstrumentChange, flags: 0, instrument: 0, update_id: 0, data },
        );
    }

    /// Adds the venue's state to the batch.
    pub fn venue_status(&mut self, status: TradingStatus) {
        self.bare(Kind::Status, [status as i64, 0, 0, 0]);
    }

    /// Adds a sign of life of a connection to the batch.
    pub fn beat(&mut self, last_frame_ns: i64, frames: u64) {
        self.bare(Kind::Beat, [last_frame_ns, frames.cast_signed(), 0, 0]);
    }

    fn bare(&mut self, kind: Kind, data: [i64; 4]) {
        self.batch.push(Op { kind, flags: 0, instrument: NO_INSTRUMENT, update_id: 0, data });
    }

    /// Publishes the batch; its last record is marked.
    pub fn commit(&mut self, head: &Head, out: &mut dyn Publish) {
        let Some(last) = self.batch.len().checked_sub(1) else { return };
        self.counts.records += self.batch.len() as u64;
        self.counts.batches += 1;
        for (idx, op) in self.batch.drain(..).enumerate() {
            let end = if idx == last { flag::LAST } else { 0 };
            out.publish(&Record {
                flags: op.flags | end,
                update_id: op.update_id,
                venue_ts_ns: head.venue_ts_ns,
                recv_ts_ns: head.at.recv_ns,
                recv_tsc: head.at.recv_tsc,
                bytes: head.at.bytes,
                conn: head.conn,
                ..Record::new(op.kind, self.venue as u8, op.instrument, op.data)
            });
        }
    }

    /// Forgets the batch: what it would have said is in doubt.
    pub fn abandon(&mut self) {
        self.batch.clear();
    }

    /// Says at once that a book may not be used, unless the very same was said already. The batch in the
    /// making is forgotten.
    pub fn doubt(
        &mut self,
        slot: usize,
        (state, reason): (BookState, Reason),
        head: &Head,
        out: &mut dyn Publish,
    ) {
        self.abandon();
        let update_id = self.cells[slot].position.update_id;
        self.say_if_new(slot, state, reason, update_id);
        self.commit(head, out);
    }

    /// Takes back what the batch in the making says of a book and says first that it may not be used;
    /// the rest of the batch stands.
    pub fn doubt_in_batch(&mut self, slot: usize, (state, reason): (BookState, Reason)) {
        let id = self.cells[slot].id;
        self.batch.retain(|op| op.instrument != id);
        let before = self.batch.len();
        let update_id = self.cells[slot].position.update_id;
        self.say_if_new(slot, state, reason, update_id);
        if before < self.batch.len() {
            self.batch.rotate_right(1);
        }
    }

    fn level(&mut self, slot: usize, side: Side, px: Px, qty: Qty, update_id: u64, flags: u8) {
        let data = [px.0, qty.0, side.idx() as i64, 0];
        self.push(slot, Op { kind: Kind::Level, flags, instrument: 0, update_id, data });
    }

    #[inline]
    fn push(&mut self, slot: usize, op: Op) {
        let cell = &mut self.cells[slot];
        self.batch.push(Op { instrument: cell.id, ..op });
        if !cell.dirty {
            cell.dirty = true;
            self.dirty.push(slot);
        }
    }
}

impl Cell {
    /// Whether all levels up to this price are known.
    #[inline]
    fn is_known(&self, side: Side, px: Px) -> bool {
        self.edge[side.idx()].is_none_or(|edge| side.rank_key(edge) <= side.rank_key(px))
    }

    /// The side's worst level is where knowledge ends.
    #[cold]
    fn wear(&mut self, side: Side) {
        let worst = self.book.levels(side).next_back().map(|level| level.px);
        let edge = &mut self.edge[side.idx()];
        // An edge only ever moves towards the best until the next snapshot.
        *edge = match (*edge, worst) {
            (Some(old), Some(new)) if side.rank_key(new) < side.rank_key(old) => Some(old),
            (_, Some(new)) => Some(new),
            (old, None) => old,
        };
    }

    fn next_hidden(&self, side: Side, window: usize) -> Option<Level> {
        let shown = self.shown[side.idx()];
        if shown == window {
            return None;
        }
        self.book.level(side, shown).filter(|level| self.is_known(side, level.px))
    }

    fn beyond(&self, side: Side, keep: usize) -> Option<Level> {
        let count = self.book.len(side);
        if keep < count { self.book.level(side, count - 1) } else { None }
    }
}

/// The engine's side of the contract, for tests and tools: books rebuilt from records alone.
#[derive(Debug)]
pub struct Mirror {
    /// The book.
    pub book: Book,
    /// Its state and the reason.
    pub state: (BookState, Reason),
}

impl Mirror {
    /// Returns an empty mirror of `window` levels a side.
    #[must_use]
    pub fn new(window: usize) -> Mirror {
        Mirror { book: Book::new(window), state: (BookState::Init, Reason::None) }
    }

    /// Applies one record of the mirror's instrument as the engine does.
    pub fn apply(&mut self, record: &Record) {
        let [a, b, c, d] = record.data;
        match record.kind() {
            Some(Kind::Level) => {
                if let Some(side) = Side::from_idx(c) {
                    self.book.set(side, Px(a), Qty(b));
                }
            }
            Some(Kind::Clear) => self.book.clear(),
            Some(Kind::Bbo) => {
                let level = |px, qty| (qty != 0).then_some(Level { px: Px(px), qty: Qty(qty) });
                self.book.set_best(Side::Bid, level(a, b));
                self.book.set_best(Side::Ask, level(c, d));
            }
            Some(Kind::BookState) => {
                let state = BookState::from_tag(a).unwrap_or(BookState::Stale);
                self.state = (state, Reason::from_tag(b).unwrap_or(Reason::Malformed));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instrument() -> VenueInstrument {
        VenueInstrument {
            id: 7,
            venue: Venue::Binance,
            symbol: "A".into(),
            feed_symbol: "A".into(),
            rest_symbol: "A".into(),
            px_exponent: 0,
            qty_exponent: 0,
            notional_exponent: 0,
            price_precision: 0,
            qty_precision: 0,
            notional_min: 0,
            status: TradingStatus::Trading,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(Vec<(bool, i64, i64)>),
        Best(i64, i64),
        Snapshot(Vec<(bool, i64, i64)>, bool),
        Truncate(usize),
        Empty(bool),
    }

    fn arb_step() -> impl Strategy<Value = Step> {
        let levels = || proptest::collection::vec((any::<bool>(), 1..40i64, 0..3i64), 0..30);
        prop_oneof![
            8 => levels().prop_map(Step::Set),
            3 => (1..40i64, 1..3i64).prop_map(|(px, qty)| Step::Best(px, qty)),
            1 => (levels(), any::<bool>()).prop_map(|(levels, cut)| Step::Snapshot(levels, cut)),
            1 => (1..20usize).prop_map(Step::Truncate),
            1 => any::<bool>().prop_map(Step::Empty),
        ]
    }

    fn update((ask, px, qty): (bool, i64, i64)) -> Update {
        Update { side: if ask { Side::Ask } else { Side::Bid }, px: Px(px), qty: Qty(qty) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// The engine holds exactly the best shown levels after every batch, whatever happens.
        #[test]
        fn the_mirror_is_the_top_of_the_book(
            steps in proptest::collection::vec(arb_step(), 1..40),
            window in 1..12usize,
            spare in 1..8usize,
        ) {
            let mut books = Books::new(Venue::Binance, &[instrument()], window, window + spare);
            let mut mirror = Mirror::new(window);
            for step in steps {
                let mut limit = false;
                match step {
                    Step::Set(levels) => {
                        for level in levels { books.set(0, update(level), 1); }
                        books.refill(0, 1);
                    }
                    Step::Best(px, qty) => {
                        let level = |px| Some(Level { px: Px(px), qty: Qty(qty) });
                        books.set_best(0, [level(px), level(px + 1)], 1);
                        books.refill(0, 1);
                    }
                    Step::Empty(ask) => {
                        let keep = Level { px: Px(20), qty: Qty(1) };
                        books.set_best(0, if ask { [Some(keep), None] } else { [None, Some(keep)] }, 1);
                        books.refill(0, 1);
                    }
                    Step::Snapshot(levels, cut) => {
                        let mut levels: Vec<_> = levels.into_iter().map(update).collect();
                        books.replace(0, &mut levels, cut.then_some(3));
                        books.show_snapshot(0, 1, (BookState::Live, Reason::None), 0);
                        limit = cut;
                    }
                    Step::Truncate(keep) => {
                        books.truncate(0, keep, 1);
                        books.refill(0, 1);
                    }
                }
                let _ = limit;
                let mut out = Vec::new();
                books.commit(&Head::default(), &mut out);
                for (idx, record) in out.iter().enumerate() {
                    prop_assert_eq!(record.has(flag::LAST), idx + 1 == out.len());
                    prop_assert_eq!(record.instrument, 7);
                    mirror.apply(record);
                }
                for side in Side::BOTH {
                    let shown = books.shown(0)[side.idx()];
                    prop_assert!(shown <= window);
                    let top: Vec<_> = books.book(0).levels(side).take(shown).collect();
                    let theirs: Vec<_> = mirror.book.levels(side).collect();
                    prop_assert_eq!(theirs, top);
                    // Nothing that is known is held back.
                    prop_assert!(books.cells[0].next_hidden(side, window).is_none());
                }
            }
        }

        #[test]
        fn a_snapshot_in_any_order_is_the_same_book(levels in proptest::collection::vec((any::<bool>(), 1..40i64, 0..3i64), 0..60)) {
            let mut books = Books::new(Venue::Binance, &[instrument()], 4, 100);
            let mut by_set = Book::new(100);
            for level in &levels {
                let Update { side, px, qty } = update(*level);
                by_set.set(side, px, qty);
            }
            let mut updates: Vec<_> = levels.into_iter().map(update).collect();
            books.replace(0, &mut updates, None);
            for side in Side::BOTH {
                prop_assert!(books.book(0).levels(side).eq(by_set.levels(side)));
            }
        }
    }

    #[test]
    fn nothing_beyond_the_edge_is_shown() {
        let mut books = Books::new(Venue::Binance, &[instrument()], 10, 100);
        let mut levels: Vec<_> = (1..=4).map(|px| update((true, px, 1))).collect();
        books.replace(0, &mut levels, Some(4));
        books.show_snapshot(0, 1, (BookState::Live, Reason::None), 0);
        books.set(0, update((true, 9, 1)), 2);
        books.refill(0, 2);
        assert_eq!(
            books.shown(0),
            [0, 4],
            "a level beyond a snapshot of four has unknown neighbours"
        );
        assert!(!books.is_worn(0, 4));
        for px in 1..=3 {
            books.set(0, update((true, px, 0)), 3);
        }
        books.refill(0, 3);
        assert_eq!(books.shown(0), [0, 1]);
        assert!(books.is_worn(0, 4));
    }

    #[test]
    fn a_doubt_is_said_once_and_first() {
        let mut books = Books::new(Venue::Binance, &[instrument()], 10, 100);
        let mut out = Vec::new();
        books.set(0, update((true, 9, 1)), 2);
        books.doubt(0, (BookState::Stale, Reason::SequenceGap), &Head::default(), &mut out);
        books.doubt(0, (BookState::Stale, Reason::SequenceGap), &Head::default(), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].data[..2], [BookState::Stale as i64, Reason::SequenceGap as i64]);
        assert!(out[0].has(flag::LAST));
        assert_eq!(books.take_dirty(), Some(0));
        assert_eq!(books.take_dirty(), None);
    }
}
