//! Two connections to one venue, each with its own proof, and one book that the engine sees.
//!
//! Invariant: what is published is always the best levels of a book that one of two whole machines has
//! proven by itself (its own connections, sequences, checksums, snapshots), and it moves from the one to
//! the other by the levels that differ, in one batch: there is no window in which a mixture is `Live`. Where
//! a venue's messages do not prove themselves, a new best price is published only when both connections
//! have said it. What one says and the other contradicts is never published: the book is doubted, and both
//! begin anew.
//!
//! Why two whole machines, and not one that merges two streams. Merging by first arrival is possible at
//! Binance alone (ids are the venue's; Coinbase counts per connection, Kraken not at all), and it takes
//! what either stream says: one altered level would be published as soon as it came, and the other
//! connection could only tell afterwards. Two machines are one way for all venues, leave the machines and
//! their proofs as they are, and cost nothing where there is one connection.
//!
//! How the two are reconciled, by content ("A/B arbitration by content", the Coinbase sheet, section 4.2).
//! A *view* is the best bid and ask of a machine's book after a message. Each machine's views that the other
//! has not shown yet wait in a short queue. A view that both have shown is agreed, and so are all before it:
//! what a machine skipped, because the venue put two changes into one message, is no contradiction.
//! - Coinbase, Binance: a machine whose present view is agreed is published: the later of the two, so a new
//!   best price waits for the other connection, which is the price of the row (MD-17). Levels behind
//!   the best are not waited for.
//! - Kraken: every message proves itself (CRC-32), so the leading machine is published at once.
//! - A machine that has not reached the other's oldest waiting view for `confirm_ns_max` (by id at
//!   Binance, by the venue's time elsewhere) is *behind*: the other leads and does not wait until it
//!   has caught up. So silence, lag, and one dead publisher cost `confirm_ns_max` and not the silence limit.
//! - One that has reached it and shows another view for that long *disagrees*: the book is `Stale` first. If
//!   they agree by themselves it is live again; after [`RESYNC_WAITS`] times that long both begin anew, and
//!   it is live only once they agree, or one of them has stayed away for [`ALONE_NS`].
//! - Behind the best, levels are compared every second: one that differs twice in the same way, both times
//!   unchanged on either side, is no message on its way, and the two disagree.
//! - A machine that loses its proof is no witness; if it led, the other leads at once.
//! - Where either says that the venue does not trade the instrument, it is not traded.
//!
//! What it cannot see: a lie while the other connection is away; an altered level behind the best for the
//! two seconds until it is compared, unless it becomes the best.
//!
//! Cost: a frame of two levels at 400 levels a side takes 0.88 us where one machine takes 0.66 us (two shared
//! virtual cores, half of the frames confirm the other half), going over with all levels about 3 us.
//!
//! Not here: what proves a book (each venue's `sync`), which venues have two (the configuration).

use std::collections::VecDeque;

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Reason, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::machine::{
    Action, CloseCause, Machine, MachineStats, Options, Position, Publish, Reply, Stamps,
};
use crate::publish::{NO_INSTRUMENT, Update};
use crate::spec::VenueInstrument;

/// Views of one machine that wait for the other; older ones are forgotten, which only delays a match.
const VIEWS_MAX: usize = 64;

/// A disagreement that lasts this many times `confirm_ns_max` ends in two fresh books.
pub const RESYNC_WAITS: i64 = 5;

/// After a disagreement, one connection is believed alone once the other has been away for this long.
pub const ALONE_NS: i64 = 10_000_000_000;

/// Records of one book that wait to be shown: some windows' worth. More, and all levels are compared instead.
const HELD_MAX: usize = 1_024;

/// Between two comparisons of all levels: much longer than any message is on its way.
const COMPARE_NS: i64 = 1_000_000_000;

/// Levels of one comparison that may differ; more are a market that moves.
const SUSPECTS_MAX: usize = 256;

/// The second machine replaces its connections this much earlier, so that not both do so at once.
const STAGGER_NS: i64 = 1_800_000_000_000;

/// Best bid and best ask.
type View = [Option<Level>; 2];

/// A view that the other machine has not shown.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    view: View,
    at_ns: i64,
    position: Position,
}

/// A level that differs, and what each machine has there; 0 where it has none.
type Suspect = (Side, Px, [Qty; 2]);

/// What one machine says of one book.
#[derive(Debug)]
struct Seat {
    is_live: bool,
    view: View,
    /// Since when it shows this view.
    at_ns: i64,
    queue: VecDeque<Waiting>,
}

impl Seat {
    fn new() -> Seat {
        let queue = VecDeque::with_capacity(VIEWS_MAX);
        Seat { is_live: false, view: [None; 2], at_ns: 0, queue }
    }
}

/// One instrument: what both machines say of it, and what the engine has.
#[derive(Debug)]
struct Cell {
    id: u16,
    seats: [Seat; 2],
    /// Which machine is published where both could be.
    lead: usize,
    /// Since when it leads.
    lead_ns: i64,
    /// When each connection last brought something of any book, also where it is gone meanwhile.
    heard_ns: [i64; 2],
    /// The other machine is in time, so a new best price waits for it.
    waits: bool,
    /// Since when the two contradict each other.
    contrary_ns: Option<i64>,
    /// A contradiction has lasted for long enough to be said.
    is_doubted: bool,
    /// Both were told to begin anew, when: they must agree.
    resynced_ns: Option<i64>,
    /// Levels that differed when all were last compared.
    suspects: Vec<Suspect>,
    compare_ns: i64,
    /// The engine's book.
    book: Book,
    state: (BookState, Reason),
    position: Position,
    /// Whose levels it has.
    shown_by: usize,
    /// What that machine published since.
    held: Vec<Record>,
    /// That was more than could be held.
    is_behind: bool,
    is_dirty: bool,
}

/// Takes what a machine publishes: books are judged when it is done, everything else is passed on.
#[derive(Debug)]
struct Aside {
    books: Vec<Record>,
    others: Vec<Record>,
}

impl Publish for Aside {
    #[inline]
    fn publish(&mut self, record: &Record) {
        match record.kind() {
            Some(Kind::Level | Kind::Clear | Kind::Bbo) => self.books.push(*record),
            // What state a book is in is asked when the machine is done.
            Some(Kind::BookState) => {}
            _ => self.others.push(*record),
        }
    }
}

/// Two machines of one venue as one. See the module.
#[derive(Debug)]
pub struct Redundant<M> {
    machines: [M; 2],
    cells: Vec<Cell>,
    /// Slot by instrument id.
    slots: Vec<usize>,
    /// A best price waits for the other connection: messages do not prove themselves.
    confirms: bool,
    confirm_ns_max: i64,
    aside: Aside,
    doubts: Vec<Record>,
    batch: Vec<Record>,
    sets: Vec<Update>,
    /// Suspects of the comparison in the making.
    suspects: Vec<Suspect>,
    dirty: Vec<usize>,
    status: [TradingStatus; 2],
    own: MachineStats,
    stats: MachineStats,
    now_ns: i64,
}

impl<M: Machine> Redundant<M> {
    /// Returns two machines that share the venue's limits of this address; `make` makes one.
    #[must_use]
    pub fn new(
        make: impl Fn(Vec<VenueInstrument>, Options, i64) -> M,
        instruments: &[VenueInstrument],
        options: &Options,
        now_ns: i64,
    ) -> Redundant<M> {
        let machines = [0, 1].map(|side: i64| {
            let options = Options {
                sharers: options.sharers.max(1) * 2,
                seed: options.seed ^ (side as u64) << 40,
                rotate_after_ns: options.rotate_after_ns
                    - side * STAGGER_NS.min(options.rotate_after_ns / 2),
                ..options.clone()
            };
            make(instruments.to_vec(), options, now_ns)
        });
        // The order of slots is the machine's own.
        let cells: Vec<Cell> = machines[0]
            .instruments()
            .iter()
            .map(|instrument| Cell {
                id: instrument.id,
                seats: [Seat::new(), Seat::new()],
                lead: 0,
                lead_ns: now_ns,
                heard_ns: [now_ns; 2],
                waits: true,
                contrary_ns: None,
                is_doubted: false,
                resynced_ns: None,
                suspects: Vec::with_capacity(SUSPECTS_MAX),
                compare_ns: now_ns,
                book: Book::new(options.window),
                state: (BookState::Init, Reason::None),
                position: Position::default(),
                shown_by: 0,
                held: Vec::with_capacity(HELD_MAX),
                is_behind: false,
                is_dirty: false,
            })
            .collect();
        let ids = cells.iter().map(|cell| usize::from(cell.id) + 1).max().unwrap_or(0);
        let mut slots = vec![usize::MAX; ids];
        for (slot, cell) in cells.iter().enumerate() {
            slots[usize::from(cell.id)] = slot;
        }
        Redundant {
            confirms: machines[0].venue() != Venue::Kraken,
            confirm_ns_max: options.confirm_ns_max,
            aside: Aside {
                books: Vec::with_capacity(4 * options.window + 64),
                others: Vec::with_capacity(64),
            },
            doubts: Vec::with_capacity(cells.len() + 1),
            // Every level of a window may be another one.
            batch: Vec::with_capacity(4 * options.window + 64),
            sets: Vec::with_capacity(4 * options.window),
            suspects: Vec::with_capacity(SUSPECTS_MAX),
            dirty: Vec::with_capacity(cells.len()),
            status: [TradingStatus::Trading; 2],
            own: MachineStats::default(),
            stats: MachineStats::default(),
            now_ns,
            cells,
            slots,
            machines,
        }
    }

    /// Has one machine do something, and publishes what follows from it.
    fn with<R>(
        &mut self,
        side: usize,
        at: Stamps,
        out: &mut dyn Publish,
        act: impl FnOnce(&mut M, &mut Aside) -> R,
    ) -> R {
        self.now_ns = at.recv_ns;
        let done = act(&mut self.machines[side], &mut self.aside);
        self.pass_on(side, out);
        self.hold(side);
        while let Some(slot) = self.machines[side].take_dirty() {
            self.listen(slot);
            self.look(slot, side);
            self.settle(slot, &at);
        }
        self.commit(out);
        done
    }

    /// Passes on what is not about books.
    fn pass_on(&mut self, side: usize, out: &mut dyn Publish) {
        for idx in 0..self.aside.others.len() {
            let mut record = self.aside.others[idx];
            record.conn = outer(record.conn, side);
            record.flags |= flag::LAST;
            let slot = match record.instrument {
                NO_INSTRUMENT => None,
                id => self.slots.get(usize::from(id)).copied(),
            };
            if slot.is_some_and(|slot| self.cells[slot].lead != side) {
                // The leading machine says the same, or will.
                continue;
            }
            if record.kind() == Some(Kind::Status) {
                self.status[side] =
                    TradingStatus::from_tag(record.data[0]).unwrap_or(TradingStatus::Halted);
                let other = self.status[1 - side];
                if other != TradingStatus::Trading {
                    record.data[0] = other as i64;
                }
            }
            self.own.records += 1;
            self.own.batches += 1;
            out.publish(&record);
        }
        self.aside.others.clear();
    }

    /// Keeps what a machine published of the books that the engine has from it: until it is shown.
    fn hold(&mut self, side: usize) {
        for record in self.aside.books.drain(..) {
            let cell = &mut self.cells[self.slots[usize::from(record.instrument)]];
            if cell.shown_by == side && !cell.is_behind {
                if cell.held.len() == HELD_MAX {
                    cell.held.clear();
                    cell.is_behind = true;
                    continue;
                }
                cell.held.push(record);
            }
        }
    }

    /// Notes when either connection last brought something.
    fn listen(&mut self, slot: usize) {
        let heard = [0, 1].map(|side: usize| self.machines[side].heard_ns(slot));
        for (known, heard_ns) in self.cells[slot].heard_ns.iter_mut().zip(heard) {
            // A connection that was just opened has brought nothing: what was before it counts.
            if heard_ns != 0 {
                *known = heard_ns;
            }
        }
    }

    /// Takes a machine's present view of a book.
    fn look(&mut self, slot: usize, side: usize) {
        let machine = &self.machines[side];
        let is_live = machine.state(slot).0 == BookState::Live;
        let book = machine.book(slot);
        let view = Side::BOTH.map(|side| book.best(side));
        let cell = &mut self.cells[slot];
        let was_live = std::mem::replace(&mut cell.seats[side].is_live, is_live);
        if !is_live {
            // No witness: what waits for it waits no longer. A doubt stays.
            cell.reconciled();
            cell.suspects.clear();
            return;
        }
        if was_live && cell.seats[side].view == view {
            return;
        }
        if !was_live {
            cell.waits = true;
        }
        let position = machine.position(slot);
        cell.show(side, Waiting { view, at_ns: self.now_ns, position }, self.confirm_ns_max);
    }

    /// Decides what the engine is to see of a book, and adds what differs to the batch.
    fn settle(&mut self, slot: usize, at: &Stamps) {
        let states = [0, 1].map(|side| self.machines[side].state(slot));
        let halted = (BookState::Stale, Reason::Halted);
        let cell = &self.cells[slot];
        let other = 1 - cell.lead;
        let live = [0, 1].map(|side: usize| cell.seats[side].is_live);
        if let Some(side) = (0..2).find(|side| states[*side] == halted) {
            return self.say(slot, side, halted, at);
        }
        // One that had long fallen silent itself has nothing to take over with.
        if !live[cell.lead] && live[other] && !self.is_mute(other, slot) {
            let cell = &mut self.cells[slot];
            self.own.takeovers += u64::from(cell.state.0 == BookState::Live);
            cell.lead(other, self.now_ns);
        }
        let cell = &mut self.cells[slot];
        let (lead, other) = (cell.lead, 1 - cell.lead);
        if !live[lead] {
            return match states[lead] {
                (BookState::Stale | BookState::Init, _) => self.say(slot, lead, states[lead], at),
                state => self.show(slot, lead, state, at),
            };
        }
        if !cell.may_be_live(self.now_ns) {
            return self.say(slot, lead, (BookState::Stale, Reason::Disagree), at);
        }
        let cell = &self.cells[slot];
        let agreed = |side: usize| cell.seats[side].queue.is_empty();
        let side = if !live[other] || !self.confirms || agreed(lead) {
            lead
        } else if agreed(other)
            && self.is_before(&cell.position, &self.machines[other].position(slot))
        {
            // Only where it brings something: going over costs a comparison of all levels.
            other
        } else if !cell.waits {
            self.own.unconfirmed += 1;
            lead
        } else {
            return;
        };
        // What the engine has may be newer by what is still on its way to this machine; what is not on its
        // way is missing. Nobody waits for ever for a position that may have been nonsense.
        let (cell, position) = (&self.cells[slot], self.machines[side].position(slot));
        let is_old = cell.shown_by != side && self.is_before(&position, &cell.position);
        let since_ns = self.now_ns - cell.lead_ns;
        if is_old && (side != lead || since_ns <= self.mute_ns_max()) {
            return;
        }
        if is_old && since_ns <= ALONE_NS {
            return self.say(slot, side, (BookState::Stale, Reason::Lag), at);
        }
        self.show(slot, side, (BookState::Live, Reason::None), at);
    }

    /// A connection that brings nothing of any book for this long while the other one does is behind.
    fn mute_ns_max(&self) -> i64 {
        2 * self.confirm_ns_max
    }

    /// Whether a machine's connection is behind the other's.
    fn is_mute(&self, side: usize, slot: usize) -> bool {
        let cell = &self.cells[slot];
        let [own, other] = [side, 1 - side].map(|side| cell.heard_ns[side]);
        self.mute_ns_max() < other - own
    }

    /// Whether a position is before another one of the other connection.
    fn is_before(&self, a: &Position, b: &Position) -> bool {
        match self.machines[0].venue() {
            Venue::Binance => a.update_id < b.update_id,
            // What has no time of its own is before nothing.
            Venue::Coinbase | Venue::Kraken => 0 < a.venue_ts_ns && a.venue_ts_ns < b.venue_ts_ns,
        }
    }

    /// Whether a machine has had a message about the book that came after a view of the other one.
    fn has_passed(&self, side: usize, slot: usize, waiting: &Waiting) -> bool {
        let machine = &self.machines[side];
        match (machine.venue(), waiting.position.venue_ts_ns) {
            (Venue::Binance, _) => waiting.position.update_id <= machine.position(slot).update_id,
            (_, 0) => waiting.at_ns <= machine.position(slot).recv_ns,
            (_, venue_ts_ns) => venue_ts_ns <= machine.position(slot).venue_ts_ns,
        }
    }

    /// Time passed for a book that both machines say is live: who is behind, who contradicts?
    fn judge(&mut self, slot: usize, out: &mut dyn Publish) {
        let now_ns = self.now_ns;
        let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
        let cell = &self.cells[slot];
        let lead = cell.lead;
        let oldest = [0, 1].map(|side: usize| cell.seats[side].queue.front().copied());
        let passed = [0, 1].map(|side: usize| {
            oldest[side].is_some_and(|waiting| self.has_passed(1 - side, slot, &waiting))
        });
        // A connection that brings no message of any book while the other one does.
        let is_mute = self.is_mute(lead, slot);
        let cell = &mut self.cells[slot];
        let overdue = |side: usize| {
            let waits = oldest[side].is_some_and(|w| self.confirm_ns_max < now_ns - w.at_ns);
            waits && !passed[side]
        };
        if overdue(1 - lead) || is_mute {
            self.own.takeovers += u64::from(cell.state.0 == BookState::Live);
            cell.lead(1 - lead, now_ns);
            cell.waits = false;
        } else if overdue(lead) {
            cell.waits = false;
        }
        if !passed.contains(&true) {
            cell.contrary_ns = None;
            return self.settle(slot, &at);
        }
        let lasts = now_ns - *cell.contrary_ns.get_or_insert(now_ns);
        if self.confirm_ns_max < lasts && !cell.is_doubted {
            cell.is_doubted = true;
            self.own.disagreements += 1;
        }
        self.settle(slot, &at);
        if self.confirm_ns_max * RESYNC_WAITS < lasts {
            self.begin_anew(slot, out);
        }
    }

    /// Compares all levels that both show, if it is time and neither is behind.
    fn compare(&mut self, slot: usize, out: &mut dyn Publish) {
        let cell = &mut self.cells[slot];
        if self.now_ns < cell.compare_ns || !cell.waits {
            return;
        }
        cell.compare_ns = self.now_ns + COMPARE_NS;
        self.suspects.clear();
        let books = [0, 1]
            .map(|side: usize| (self.machines[side].book(slot), self.machines[side].shown(slot)));
        for side in Side::BOTH {
            suspects(side, books, &mut self.suspects);
        }
        let is_wrong = self.suspects.iter().any(|suspect| cell.suspects.contains(suspect));
        std::mem::swap(&mut cell.suspects, &mut self.suspects);
        if is_wrong {
            self.own.disagreements += u64::from(!cell.is_doubted);
            let at = Stamps { recv_ns: self.now_ns, ..Stamps::default() };
            let lead = cell.lead;
            // What the engine's book was given is said before the doubt.
            self.commit(out);
            self.say(slot, lead, (BookState::Stale, Reason::Disagree), &at);
            self.begin_anew(slot, out);
        }
    }

    /// Both machines' books begin anew; the engine was told before.
    #[cold]
    fn begin_anew(&mut self, slot: usize, out: &mut dyn Publish) {
        let now_ns = self.now_ns;
        self.commit(out);
        let cell = &mut self.cells[slot];
        (cell.resynced_ns, cell.is_doubted) = (Some(now_ns), false);
        cell.suspects.clear();
        let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
        for side in [0, 1] {
            self.with(side, at, out, |machine, aside| {
                machine.doubt(slot, Reason::Disagree, now_ns, aside);
            });
        }
    }

    /// Adds what differs between a machine's book and the engine's to the batch.
    fn show(&mut self, slot: usize, side: usize, state: (BookState, Reason), at: &Stamps) {
        let machine = &self.machines[side];
        let (book, shown) = (machine.book(slot), machine.shown(slot));
        let position = machine.position(slot);
        let flags = if state.0 == BookState::Fallback { flag::FALLBACK } else { 0 };
        let cell = &mut self.cells[slot];
        let moved = cell.position.conn != outer(position.conn, side);
        cell.position = Position { conn: outer(position.conn, side), ..position };
        let (before, venue) = (self.batch.len(), machine.venue());
        if cell.shown_by == side && !cell.is_behind {
            // The common way: what the machine published, as it is.
            let mut held = std::mem::take(&mut cell.held);
            for record in held.drain(..) {
                cell.apply(&record);
                let flags = flags | record.flags & !flag::LAST;
                let kind = record.kind().unwrap_or(Kind::Level);
                self.batch.push(cell.record(venue, kind, flags, record.data, at));
            }
            cell.held = held;
        } else {
            self.sets.clear();
            for side in Side::BOTH {
                differences(side, book, shown[side.idx()], &cell.book, &mut self.sets);
            }
            // Removals first: the engine's book never holds more than a window.
            self.sets.sort_unstable_by_key(|update| update.qty.0 != 0);
            for Update { side, px, qty } in self.sets.drain(..) {
                let data = [px.0, qty.0, side.idx() as i64, 0];
                cell.book.set(side, px, qty);
                self.batch.push(cell.record(venue, Kind::Level, flags, data, at));
            }
            cell.held.clear();
            (cell.shown_by, cell.is_behind) = (side, false);
        }
        debug_assert!(
            Side::BOTH.into_iter().all(|side| {
                cell.book.levels(side).eq(book.levels(side).take(shown[side.idx()]))
            }),
            "the engine has what the machine shows"
        );
        // The engine learns from any record over which connection a book comes.
        if cell.state != state || moved && self.batch.len() == before {
            cell.state = state;
            let hidden = Side::BOTH.map(|s| book.len(s).saturating_sub(shown[s.idx()]) as i64);
            let data = [state.0 as i64, state.1 as i64, hidden[0], hidden[1]];
            self.batch.push(cell.record(venue, Kind::BookState, flags, data, at));
        }
        if before < self.batch.len() {
            self.touch(slot);
        }
    }

    /// Says that a book may not be used: first of all, and a batch of its own.
    fn say(&mut self, slot: usize, side: usize, state: (BookState, Reason), at: &Stamps) {
        let cell = &mut self.cells[slot];
        if cell.state == state {
            return;
        }
        cell.state = state;
        cell.position.conn = outer(self.machines[side].position(slot).conn, side);
        let data = [state.0 as i64, state.1 as i64, 0, 0];
        let mut record = cell.record(self.machines[side].venue(), Kind::BookState, 0, data, at);
        // It is said now, by us, whenever the book was last heard of: as an event of the venue it would make
        // the silence before it a delay, and our clock wrong by that.
        (record.recv_ts_ns, record.venue_ts_ns) = (at.recv_ns, 0);
        self.doubts.push(record);
        debug_assert!(
            self.batch.iter().all(|record| record.instrument != cell.id),
            "a book is shown or doubted once a batch: its doubt is published first"
        );
        self.touch(slot);
    }

    fn touch(&mut self, slot: usize) {
        if !self.cells[slot].is_dirty {
            self.cells[slot].is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Publishes doubts, then the batch.
    fn commit(&mut self, out: &mut dyn Publish) {
        let doubts = self.doubts.len() as u64;
        self.own.records += doubts + self.batch.len() as u64;
        self.own.batches += doubts + u64::from(!self.batch.is_empty());
        for mut record in self.doubts.drain(..) {
            record.flags |= flag::LAST;
            out.publish(&record);
        }
        if let Some(last) = self.batch.last_mut() {
            last.flags |= flag::LAST;
        }
        for record in self.batch.drain(..) {
            out.publish(&record);
        }
    }
}

impl Cell {
    /// Nothing waits any more.
    fn reconciled(&mut self) {
        self.seats.iter_mut().for_each(|seat| seat.queue.clear());
        self.contrary_ns = None;
    }

    /// A machine shows a view: did the other one show it?
    fn show(&mut self, side: usize, shown: Waiting, confirm_ns_max: i64) {
        let other = 1 - side;
        (self.seats[side].view, self.seats[side].at_ns) = (shown.view, shown.at_ns);
        if !self.seats[other].is_live {
            return;
        }
        let of_other = &self.seats[other];
        let found = of_other.queue.iter().position(|waiting| waiting.view == shown.view);
        let first_ns = if of_other.view == shown.view {
            let at_ns = of_other.at_ns;
            self.reconciled();
            self.is_doubted = false;
            at_ns
        } else if let Some(found) = found {
            let at_ns = of_other.queue[found].at_ns;
            self.seats[other].queue.drain(..=found);
            self.seats[side].queue.clear();
            self.contrary_ns = None;
            self.is_doubted = false;
            at_ns
        } else {
            let queue = &mut self.seats[side].queue;
            if queue.len() == VIEWS_MAX {
                queue.pop_front();
            }
            queue.push_back(shown);
            return;
        };
        self.resynced_ns = None;
        // Two that agreed on a quiet market say nothing of how late either is.
        if self.seats[side].at_ns - first_ns <= confirm_ns_max {
            self.waits = true;
        }
    }

    fn lead(&mut self, side: usize, now_ns: i64) {
        self.lead = side;
        self.lead_ns = now_ns;
    }

    /// Whether a book that at least one machine has proven may be used.
    fn may_be_live(&mut self, now_ns: i64) -> bool {
        let both = self.seats.iter().all(|seat| seat.is_live);
        if let Some(since_ns) = self.resynced_ns {
            if both || now_ns - since_ns < ALONE_NS {
                return false;
            }
            self.resynced_ns = None;
        }
        !self.is_doubted
    }

    /// Does to the engine's book what the engine does.
    fn apply(&mut self, record: &Record) {
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
            _ => {}
        }
    }

    fn record(&self, venue: Venue, kind: Kind, flags: u8, data: [i64; 4], at: &Stamps) -> Record {
        Record {
            flags,
            update_id: self.position.update_id,
            venue_ts_ns: self.position.venue_ts_ns,
            recv_ts_ns: self.position.recv_ns,
            recv_tsc: at.recv_tsc,
            bytes: at.bytes,
            conn: self.position.conn,
            ..Record::new(kind, venue as u8, self.id, data)
        }
    }
}

/// Adds what turns a side of the engine's book into the best `shown` levels of another.
fn differences(side: Side, book: &Book, shown: usize, engine: &Book, sets: &mut Vec<Update>) {
    let mut wanted = book.levels(side).take(shown);
    let mut held = engine.levels(side);
    let (mut one, mut two) = (wanted.next(), held.next());
    loop {
        match (one, two) {
            (None, None) => return,
            (Some(a), Some(b)) if a.px == b.px => {
                if a.qty != b.qty {
                    sets.push(Update { side, px: a.px, qty: a.qty });
                }
                (one, two) = (wanted.next(), held.next());
            }
            (Some(a), Some(b)) if side.rank_key(a.px) < side.rank_key(b.px) => {
                sets.push(Update { side, px: b.px, qty: Qty(0) });
                two = held.next();
            }
            (Some(a), _) => {
                sets.push(Update { side, px: a.px, qty: a.qty });
                one = wanted.next();
            }
            (None, Some(b)) => {
                sets.push(Update { side, px: b.px, qty: Qty(0) });
                two = held.next();
            }
        }
    }
}

/// Adds the levels of a side that differ, up to the nearer of the two ends.
fn suspects(side: Side, books: [(&Book, [usize; 2]); 2], found: &mut Vec<Suspect>) {
    let [mut a, mut b] =
        books.map(|(book, shown)| book.levels(side).take(shown[side.idx()]).peekable());
    while let (Some(one), Some(two)) = (a.peek().copied(), b.peek().copied()) {
        let (key, other) = (side.rank_key(one.px), side.rank_key(two.px));
        let suspect = match key.cmp(&other) {
            std::cmp::Ordering::Greater => (side, one.px, [one.qty, Qty(0)]),
            std::cmp::Ordering::Less => (side, two.px, [Qty(0), two.qty]),
            std::cmp::Ordering::Equal => (side, one.px, [one.qty, two.qty]),
        };
        if other <= key {
            a.next();
        }
        if key <= other {
            b.next();
        }
        if suspect.2[0] != suspect.2[1] {
            if found.len() == SUSPECTS_MAX {
                return;
            }
            found.push(suspect);
        }
    }
}

/// The number of a machine's connection or request, unique among both.
const fn outer(number: u32, side: usize) -> u32 {
    number * 2 + side as u32
}

/// Whose connection or request it is, and its number there.
const fn inner(number: u32) -> (usize, u32) {
    ((number % 2) as usize, number / 2)
}

impl<M: Machine> Machine for Redundant<M> {
    fn venue(&self) -> Venue {
        self.machines[0].venue()
    }

    fn next_action(&mut self) -> Option<Action> {
        let (side, mut action) = [0, 1].into_iter().find_map(|side: usize| {
            self.machines[side].next_action().map(|action| (side, action))
        })?;
        match &mut action {
            Action::Connect { conn: number, .. }
            | Action::Send { conn: number, .. }
            | Action::Ping { conn: number }
            | Action::Close { conn: number, .. }
            | Action::Get { request: number, .. } => *number = outer(*number, side),
        }
        Some(action)
    }

    fn on_open(&mut self, conn: u32, now_ns: i64) {
        let (side, conn) = inner(conn);
        self.now_ns = now_ns;
        self.machines[side].on_open(conn, now_ns);
    }

    fn on_frame(&mut self, conn: u32, payload: &mut [u8], at: Stamps, out: &mut dyn Publish) {
        let (side, conn) = inner(conn);
        self.with(side, at, out, |machine, aside| machine.on_frame(conn, payload, at, aside));
    }

    fn on_pong(&mut self, conn: u32, now_ns: i64) {
        let (side, conn) = inner(conn);
        self.machines[side].on_pong(conn, now_ns);
    }

    fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, out: &mut dyn Publish) {
        let (side, conn) = inner(conn);
        // What a connection said of the venue ends with it; the next one says it anew.
        self.status[side] = TradingStatus::Trading;
        let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
        self.with(side, at, out, |machine, aside| machine.on_close(conn, cause, now_ns, aside));
    }

    fn on_reply(&mut self, request: u32, reply: Reply<'_>, at: Stamps, out: &mut dyn Publish) {
        let (side, request) = inner(request);
        self.with(side, at, out, |machine, aside| machine.on_reply(request, reply, at, aside));
    }

    fn on_timer(&mut self, now_ns: i64, out: &mut dyn Publish) {
        let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
        for side in [0, 1] {
            self.with(side, at, out, |machine, aside| machine.on_timer(now_ns, aside));
        }
        let mut standby = 0;
        for slot in 0..self.cells.len() {
            self.listen(slot);
            let cell = &self.cells[slot];
            standby += u64::from(cell.seats[1 - cell.lead].is_live);
            if cell.seats.iter().all(|seat| seat.is_live) {
                self.judge(slot, out);
                self.compare(slot, out);
            } else if cell.is_doubted {
                // One of the two is away, and nobody knows which of them was right.
                self.begin_anew(slot, out);
            } else if cell.seats.iter().any(|seat| seat.is_live) {
                self.settle(slot, &at);
            }
        }
        self.commit(out);
        let [a, b] = [0, 1].map(|side: usize| *self.machines[side].stats());
        self.own.standby_live = standby;
        // What the machines publish goes no further than here.
        let quiet = |stats: MachineStats| MachineStats { records: 0, batches: 0, ..stats };
        self.stats = quiet(a).plus(&quiet(b)).plus(&self.own);
    }

    fn instruments(&self) -> &[VenueInstrument] {
        self.machines[0].instruments()
    }

    fn book(&self, slot: usize) -> &Book {
        &self.cells[slot].book
    }

    fn shown(&self, slot: usize) -> [usize; 2] {
        Side::BOTH.map(|side| self.cells[slot].book.len(side))
    }

    fn state(&self, slot: usize) -> (BookState, Reason) {
        self.cells[slot].state
    }

    fn position(&self, slot: usize) -> Position {
        self.cells[slot].position
    }

    fn heard_ns(&self, slot: usize) -> i64 {
        self.machines[self.cells[slot].lead].heard_ns(slot)
    }

    fn doubt(&mut self, slot: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish) {
        let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
        for side in [0, 1] {
            self.with(side, at, out, |machine, aside| machine.doubt(slot, reason, now_ns, aside));
        }
    }

    fn take_dirty(&mut self) -> Option<usize> {
        let slot = self.dirty.pop()?;
        self.cells[slot].is_dirty = false;
        Some(slot)
    }

    fn stats(&self) -> &MachineStats {
        &self.stats
    }
}
