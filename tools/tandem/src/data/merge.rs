//! Files into one journal: every row of every file, in the order in which it was received.
//!
//! Invariant: rows are taken by our stamp over all files, at one moment trades before books before best prices.
//! The rows of a file that have one moment, one instrument and one class are one message; its records are one
//! batch. A book is live once its snapshot was seen; of an instrument without levels the best prices are the
//! whole book. Memory grows with the books and what may be out of order, never with the length of a file.
//!
//! Not here: what a row says (`tardis`, `hftbacktest`, `binance`), what is refused before (`clocks`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use tandem_core::book::Level;
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::units::{Px, Qty, Side};
use tandem_feeds::machine::{Publish, Stamps};
use tandem_feeds::publish::{Books, Head, Update};

use super::clocks::Repeats;
use super::error::{DataError, Place};
use super::instruments::Instruments;
use super::number::Number;
use super::recorder::Recorder;
use super::row::{Class, Resting, Row, Rows, What};
use crate::table::Table;

/// Recorded time between two timer records.
pub const TIMER_NS: i64 = 50_000_000;
/// Levels a side of a full book: more than a venue's deepest.
const LEVELS_MAX: usize = 1 << 16;
/// Rows of one message that are believed: more than the two full sides of a book.
const MESSAGE_ROWS_MAX: usize = 1 << 18;
/// Rows that may wait to be put in order.
const REORDER_ROWS_MAX: usize = 1 << 22;
/// The one connection that a venue's data came over.
const CONN: u32 = 1;

/// What is put right on the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Corrections {
    /// What is taken off a venue's stamps, by venue, ns.
    pub venue_shift_ns: [i64; 3],
    /// How long a row may be late to be put in order, ns.
    pub reorder_ns: i64,
    /// Rows that are told a second time are left out.
    pub drop_repeated: bool,
}

/// A row that waits, ordered by its moment and its place in the file.
#[derive(Debug)]
struct Held {
    recv_ns: i64,
    order: u64,
    instrument: u16,
    row: Row,
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Held) -> std::cmp::Ordering {
        (self.recv_ns, self.order).cmp(&(other.recv_ns, other.order))
    }
}

/// A file whose messages are taken.
struct Source {
    rows: Box<dyn Rows>,
    repeats: Repeats,
    waiting: BinaryHeap<Reverse<Held>>,
    /// Latest moment that was read.
    newest_ns: i64,
    order: u64,
    is_at_end: bool,
    /// The first row of the next message.
    next: Option<Held>,
}

impl Source {
    /// Reads one row of the file; nothing at its end.
    fn read(
        &mut self,
        instruments: &Instruments,
        corrections: &Corrections,
    ) -> Result<Option<Held>, DataError> {
        loop {
            let Some((named, mut row)) = self.rows.next()? else { return Ok(None) };
            let found = instruments.find(&named);
            let venue = named.venue;
            let Some(instrument) = found else {
                return Err(changed(self.rows.place(row.line)));
            };
            if self.repeats.take(instrument, &row) && corrections.drop_repeated {
                continue;
            }
            if row.venue_ns != 0 {
                row.venue_ns -= corrections.venue_shift_ns[venue.idx()];
            }
            self.order += 1;
            let held = Held { recv_ns: row.recv_ns, order: self.order, instrument, row };
            return Ok(Some(held));
        }
    }

    /// Returns the next row in order.
    fn pull(
        &mut self,
        instruments: &Instruments,
        corrections: &Corrections,
    ) -> Result<Option<Held>, DataError> {
        loop {
            if let Some(Reverse(first)) = self.waiting.peek()
                && (self.is_at_end
                    || first.recv_ns.saturating_add(corrections.reorder_ns) < self.newest_ns)
            {
                return Ok(self.waiting.pop().map(|held| held.0));
            }
            if self.is_at_end {
                return Ok(None);
            }
            match self.read(instruments, corrections)? {
                None => self.is_at_end = true,
                // In order, as almost all: nothing has to wait.
                Some(held) if corrections.reorder_ns == 0 && self.newest_ns <= held.recv_ns => {
                    self.newest_ns = held.recv_ns;
                    return Ok(Some(held));
                }
                Some(held)
                    if held.recv_ns.saturating_add(corrections.reorder_ns) < self.newest_ns =>
                {
                    return Err(changed(self.rows.place(held.row.line)));
                }
                Some(held) => {
                    self.newest_ns = self.newest_ns.max(held.recv_ns);
                    let line = held.row.line;
                    self.waiting.push(Reverse(held));
                    if REORDER_ROWS_MAX < self.waiting.len() {
                        let found = format!("{REORDER_ROWS_MAX} rows wait to be put in order");
                        let fix = "give a smaller --reorder-ms, or sort the file".to_owned();
                        return Err(DataError::Line { place: self.rows.place(line), found, fix });
                    }
                }
            }
        }
    }

    /// Makes the first row of the next message ready; returns by what it is ordered.
    fn peek(
        &mut self,
        instruments: &Instruments,
        corrections: &Corrections,
    ) -> Result<Option<(i64, Class)>, DataError> {
        if self.next.is_none() {
            self.next = self.pull(instruments, corrections)?;
        }
        Ok(self.next.as_ref().map(|held| (held.recv_ns, held.row.what.class())))
    }

    /// Takes the rows of the next message into `rows`; returns its instrument.
    fn message(
        &mut self,
        instruments: &Instruments,
        corrections: &Corrections,
        rows: &mut Vec<Row>,
    ) -> Result<Option<u16>, DataError> {
        rows.clear();
        let Some(first) = self.next.take() else { return Ok(None) };
        let (instrument, recv_ns, class) =
            (first.instrument, first.recv_ns, first.row.what.class());
        rows.push(first.row);
        while let Some(held) = self.pull(instruments, corrections)? {
            let same = (held.instrument, held.recv_ns, held.row.what.class());
            if same != (instrument, recv_ns, class) {
                self.next = Some(held);
                break;
            }
            rows.push(held.row);
            if MESSAGE_ROWS_MAX < rows.len() {
                let found = format!("more than {MESSAGE_ROWS_MAX} rows of one moment");
                let fix = "is the column of receipts right?".to_owned();
                return Err(DataError::Line { place: self.rows.place(held.row.line), found, fix });
            }
        }
        Ok(Some(instrument))
    }
}

fn changed(place: Place) -> DataError {
    let found = "is another line than it was a moment ago".to_owned();
    DataError::Line { place, found, fix: "leave files alone while they are imported".to_owned() }
}

/// What was counted on the way.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// Messages taken.
    pub messages: u64,
    /// Messages after which a book was crossed or locked: nothing is found on such a book.
    pub crossed: u64,
    /// Rows of books before their first snapshot, by file: left out.
    pub before_snapshot: Vec<u64>,
}

/// One instrument on the way.
struct Slot {
    venue: Venue,
    slot: usize,
    id: u16,
    exponents: (u8, u8),
    has_depth: bool,
    /// The book is known from here on.
    is_known: bool,
    /// The last message was a snapshot: the next one goes on with it.
    in_snapshot: bool,
}

/// Of which file a message is.
#[derive(Clone, Copy, Debug)]
struct Sender {
    file: usize,
    /// Its snapshots are whole books; else levels of one.
    replaces: bool,
}

/// Takes the rows of all files into a journal.
pub struct Merge<'a> {
    instruments: &'a Instruments,
    corrections: Corrections,
    books: [Books; 3],
    slots: Vec<Slot>,
    updates: Vec<Update>,
    next_timer_ns: i64,
    merged: Merged,
}

impl<'a> Merge<'a> {
    /// Returns a merge of instruments that are listed in the table in the same order.
    #[must_use]
    pub fn new(
        table: &Table,
        instruments: &'a Instruments,
        corrections: Corrections,
        start_empty: bool,
    ) -> Merge<'a> {
        let books = Venue::ALL.map(|venue| {
            let levels = LEVELS_MAX.max(table.params.window_levels + 1);
            Books::new(venue, &table.of_venue(venue), table.params.window_levels, levels)
        });
        let mut counts = [0; 3];
        let slots = table.instruments.iter().zip(instruments.all()).map(|(instrument, listed)| {
            let count = &mut counts[instrument.venue.idx()];
            *count += 1;
            Slot {
                venue: instrument.venue,
                slot: *count - 1,
                id: instrument.id,
                exponents: (instrument.px_exponent, instrument.qty_exponent),
                has_depth: listed.has_depth,
                is_known: !listed.has_depth || start_empty,
                in_snapshot: false,
            }
        });
        Merge {
            instruments,
            corrections,
            books,
            slots: slots.collect(),
            updates: Vec::new(),
            next_timer_ns: 0,
            merged: Merged::default(),
        }
    }

    /// Takes all files, each once more from its beginning.
    pub fn run(
        mut self,
        files: Vec<Box<dyn Rows>>,
        out: &mut Recorder,
    ) -> Result<Merged, DataError> {
        let mut sources: Vec<Source> = files
            .into_iter()
            .map(|rows| Source {
                rows,
                repeats: Repeats::default(),
                waiting: BinaryHeap::new(),
                newest_ns: 0,
                order: 0,
                is_at_end: false,
                next: None,
            })
            .collect();
        self.merged.before_snapshot = vec![0; sources.len()];
        let (instruments, corrections) = (self.instruments, self.corrections);
        let mut queue = BinaryHeap::new();
        for (idx, source) in sources.iter_mut().enumerate() {
            if let Some((recv_ns, class)) = source.peek(instruments, &corrections)? {
                queue.push(Reverse((recv_ns, class, idx)));
            }
        }
        let mut rows = Vec::new();
        while let Some(mut first) = queue.peek_mut() {
            let Reverse((recv_ns, class, idx)) = *first;
            let source = &mut sources[idx];
            let instrument = source.message(instruments, &corrections, &mut rows)?;
            match source.peek(instruments, &corrections)? {
                Some((recv_ns, class)) => *first = Reverse((recv_ns, class, idx)),
                None => drop(PeekMut::pop(first)),
            }
            let Some(instrument) = instrument else { continue };
            out.at(recv_ns);
            if self.next_timer_ns <= recv_ns {
                self.next_timer_ns = recv_ns + TIMER_NS;
                out.publish(&Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
            }
            let place = |line| source.rows.place(line);
            let from = Sender { file: idx, replaces: source.rows.snapshots_replace() };
            self.take(usize::from(instrument), class, &rows, from, place, out)?;
            if out.has_failed() {
                break;
            }
        }
        // What is still open ends with the recording.
        let end_ns = out.now_ns() + 1_000_000_000;
        out.take(end_ns, &Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
        Ok(self.merged)
    }

    /// Takes a message.
    fn take(
        &mut self,
        instrument: usize,
        class: Class,
        rows: &[Row],
        from: Sender,
        place: impl Fn(u64) -> Place,
        out: &mut Recorder,
    ) -> Result<(), DataError> {
        let (Some(slot), Some(last)) = (self.slots.get_mut(instrument), rows.last()) else {
            return Ok(());
        };
        if !slot.is_known && matches!(class, Class::Update | Class::Quote) {
            self.merged.before_snapshot[from.file] += rows.len() as u64;
            return Ok(());
        }
        self.merged.messages += 1;
        let books = &mut self.books[slot.venue.idx()];
        let venue_ns = rows.iter().map(|row| row.venue_ns).max().unwrap_or(0);
        let at = Stamps { recv_ns: last.recv_ns, ..Stamps::default() };
        let head = Head { conn: CONN, venue_ts_ns: venue_ns, at };
        let update_id = last.update_id;
        let live = (BookState::Live, Reason::None);
        let in_snapshot = slot.in_snapshot;
        if class != Class::Trade {
            slot.in_snapshot = class == Class::Snapshot;
        }
        match class {
            Class::Trade => {
                for row in rows {
                    let What::Trade { at, taken, id } = row.what else { continue };
                    let (px, qty) = slot.quanta(at, row.line, &place)?;
                    match taken {
                        Some(side) => books.trade(slot.slot, px, qty, side, id),
                        None => out.publish(&nobodys_trade(slot, row, (px, qty), id)),
                    }
                }
            }
            Class::Snapshot => {
                slot.is_known = true;
                self.updates.clear();
                for row in rows {
                    match row.what {
                        What::Level { side, at, .. } => {
                            let (px, qty) = slot.quanta(at, row.line, &place)?;
                            self.updates.push(Update { side, px, qty });
                        }
                        What::Clear { side, to } => {
                            books.set_quietly(slot.slot, &self.updates);
                            self.updates.clear();
                            let to = match to {
                                None => None,
                                Some(px) => Some(slot.px(px, row.line, &place)?),
                            };
                            let gone = cleared(books, slot.slot, side, to);
                            books.set_quietly(slot.slot, &gone);
                        }
                        _ => {}
                    }
                }
                if from.replaces && !in_snapshot {
                    books.replace(slot.slot, &mut self.updates, None);
                } else {
                    books.set_quietly(slot.slot, &self.updates);
                }
                books.show_snapshot(slot.slot, update_id, live, 0);
            }
            Class::Update => {
                for row in rows {
                    if let What::Level { side, at, .. } = row.what {
                        let (px, qty) = slot.quanta(at, row.line, &place)?;
                        books.set(slot.slot, Update { side, px, qty }, update_id);
                    }
                }
                books.refill(slot.slot, update_id);
                books.say_if_new(slot.slot, live.0, live.1, update_id);
            }
            Class::Quote => {
                for row in rows {
                    let mut best = books.best(slot.slot);
                    let mut set = |side: Side, level: Option<Resting>| -> Result<(), DataError> {
                        best[side.idx()] = match level {
                            None => None,
                            Some(at) => {
                                let (px, qty) = slot.quanta(at, row.line, &place)?;
                                Some(Level { px, qty })
                            }
                        };
                        Ok(())
                    };
                    match row.what {
                        What::Best { side, level } => set(side, level)?,
                        What::Quote([bid, ask]) => {
                            set(Side::Bid, bid)?;
                            set(Side::Ask, ask)?;
                        }
                        _ => continue,
                    }
                    books.set_best(slot.slot, best, update_id);
                    if !slot.has_depth {
                        // Nothing is known behind the best.
                        books.truncate(slot.slot, 1, update_id);
                    }
                }
                books.refill(slot.slot, update_id);
                books.say_if_new(slot.slot, live.0, live.1, update_id);
            }
        }
        if class != Class::Trade && books.book(slot.slot).is_crossed_or_locked() {
            self.merged.crossed += 1;
        }
        books.commit(&head, out);
        Ok(())
    }
}

impl Slot {
    fn px(&self, px: Number, line: u64, place: &impl Fn(u64) -> Place) -> Result<Px, DataError> {
        px.quanta(self.exponents.0).map(Px).ok_or_else(|| too_large(px, place(line)))
    }

    fn quanta(
        &self,
        at: Resting,
        line: u64,
        place: &impl Fn(u64) -> Place,
    ) -> Result<(Px, Qty), DataError> {
        let qty = at.qty.quanta(self.exponents.1).map(Qty);
        Ok((self.px(at.px, line, place)?, qty.ok_or_else(|| too_large(at.qty, place(line)))?))
    }
}

fn too_large(number: Number, place: Place) -> DataError {
    let found = format!("{number} does not fit beside the instrument's finest numbers");
    let fix = "is it a price or an amount at all? leave the line out".to_owned();
    DataError::Line { place, found, fix }
}

/// The levels that a clear takes away: of one side or both, from the best to a price.
fn cleared(books: &Books, slot: usize, side: Option<Side>, to: Option<Px>) -> Vec<Update> {
    let book = books.book(slot);
    let sides = Side::BOTH.into_iter().filter(|known| side.is_none_or(|side| side == *known));
    let within = |side: Side, px: Px| to.is_none_or(|to| side.rank_key(to) <= side.rank_key(px));
    sides
        .flat_map(|side| {
            let levels = book.levels(side).take_while(move |level| within(side, level.px));
            levels.map(move |level| Update { side, px: level.px, qty: Qty(0) })
        })
        .collect()
}

/// A trade of which nobody said which side was taken: -1 stands for it.
fn nobodys_trade(slot: &Slot, row: &Row, (px, qty): (Px, Qty), id: u64) -> Record {
    Record {
        flags: flag::LAST,
        update_id: id,
        venue_ts_ns: row.venue_ns,
        recv_ts_ns: row.recv_ns,
        conn: CONN,
        ..Record::new(Kind::Trade, slot.venue as u8, slot.id, [px.0, qty.0, -1, id.cast_signed()])
    }
}
