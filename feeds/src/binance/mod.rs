//! Binance spot market data: `depth@100ms` joined to REST snapshots, `bookTicker` merged by update id.
//!
//! Invariant: a book is `Live` only while its diffs join without a hole, its connection is neither silent
//! nor late, it is not crossed, and (with audits on) a second source has agreed. Everything else is said
//! first and repaired second; a doubt about one symbol leaves the others alone.
//!
//! How the two streams are merged: both carry ids of one sequence. A ticker newer than the last diff makes
//! the best levels (a `Bbo` record: it leads the diff by 54 ms in the median); a diff older than the newest
//! ticker is applied and the ticker's best is asserted again in the same batch; a diff that covers the
//! ticker settles the matter, and the ticker then only cross-checks it.
//!
//! What the venue dictates is in `wire`; sections named here are of the protocol sheet.

pub mod decode;
pub mod meta;
pub mod sync;
pub mod wire;

use std::ops::Range;

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Reason, TradingStatus, Venue, flag};

use self::decode::{Event, Levels, Span, decode, decode_snapshot};
use self::sync::{DepthSync, OnDiff, OnSnapshot};
use crate::audit::{Auditor, RestBook};
use crate::error::Fault;
use crate::freshness::{LagChange, Silence};
use crate::machine::{
    Action, CloseCause, Machine, MachineStats, Options, Position, Publish, Reply, Stamps,
};
use crate::net::backoff::Backoff;
use crate::net::budget::Budget;
use crate::publish::{Books, Head};
use crate::scratch::Scale;
use crate::session::{Desk, Link, Purpose, Refusal};
use crate::spec::VenueInstrument;
use crate::symbols::Symbols;

const SECOND: i64 = 1_000_000_000;
/// The first reading of the rules; later ones follow `rules_every_ns`.
const RULES_FIRST_NS: i64 = 2 * SECOND;

/// Tickers in a row that the diff covering them contradicts: one miss was seen twice in 6,493 diffs of a
/// healthy session, so one proves nothing.
const DIFFERING_MAX: u32 = 5;

/// A new connection runs beside the old one for at least this long after its last acknowledgement.
const OVERLAP_NS: i64 = SECOND;

/// Holes on the new connection delay the switch for at most this long.
const SWITCH_NS_MAX: i64 = 10 * SECOND;

/// Connections opened together expire together: each group's rotation is this much later.
const STAGGER_NS: i64 = 60 * SECOND;

/// Least and most to wait after a snapshot older than the buffer: some cache is behind, not in trouble.
const OLDER_NS: (i64, i64) = (SECOND / 5, 2 * SECOND);

/// Between two refreshes of one worn book.
const REFRESH_NS: i64 = 5 * SECOND;

/// Where a symbol is asked for that the venue does not know.
const UNKNOWN_NS: i64 = 30 * SECOND;

/// Which of a group's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Main,
    Next,
}

/// The instruments of one connection.
#[derive(Debug)]
struct Group {
    slots: Range<usize>,
    main: Option<Link>,
    next: Option<NextLink>,
    backoff: Backoff,
    down_since_ns: Option<i64>,
    rotate_at_ns: i64,
}

/// A connection that will replace the main one.
#[derive(Debug)]
struct NextLink {
    link: Link,
    unacked: Vec<u64>,
    acked_ns: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Ticker {
    id: u64,
    best: [Option<Level>; 2],
    /// Compared with the first diff that covers it, once.
    checked: bool,
}

/// One symbol.
#[derive(Debug)]
struct Cell {
    group: usize,
    sync: DepthSync,
    ticker: Option<Ticker>,
    differing: u32,
    /// A frame of the connection could not be read: the next diff that joins clears it.
    suspect: bool,
    status: TradingStatus,
    /// Rules as they were last published.
    rules: Option<(TradingStatus, [i64; 3])>,
    snapshot_at_ns: Option<i64>,
    refresh_at_ns: i64,
    fallback_at_ns: i64,
    backoff: Backoff,
    live_since_ns: i64,
    auditor: Auditor,
    heard: bool,
    deadline_ns: i64,
    /// The next connection's diffs did not join yet.
    hole: bool,
}

/// The machine. See [`Machine`].
#[derive(Debug)]
pub struct Binance {
    options: Options,
    instruments: Vec<VenueInstrument>,
    symbols: Symbols,
    scales: Vec<Scale>,
    books: Books,
    desk: Desk,
    stats: MachineStats,
    groups: Vec<Group>,
    cells: Vec<Cell>,
    levels: Levels,
    next_id: u64,
    rules_at_ns: i64,
}

impl Binance {
    /// Returns a machine that will ask for its first connections at `now_ns`.
    #[must_use]
    pub fn new(instruments: Vec<VenueInstrument>, options: Options, now_ns: i64) -> Binance {
        assert!(instruments.iter().all(|i| i.venue == Venue::Binance), "instruments of this venue");
        let streams = if options.ticker { 2 } else { 1 };
        let per_conn = options.per_conn.clamp(1, wire::STREAMS_MAX / streams);
        let connects =
            Budget::bucket(options.part(wire::CONNECTS_PER_SECOND_MILLI), options.part(20));
        let minute = 60 * SECOND;
        let rest = Budget::window(wire::WEIGHT_PER_MINUTE, minute, options.rest_part_ppm());
        let mut machine = Binance {
            symbols: Symbols::new(instruments.iter().map(|i| i.feed_symbol.as_str())),
            scales: instruments
                .iter()
                .map(|i| Scale { px: i.px_exponent, qty: i.qty_exponent })
                .collect(),
            books: Books::new(Venue::Binance, &instruments, options.window, options.capacity),
            desk: Desk::new(connects, rest),
            stats: MachineStats::default(),
            groups: Vec::new(),
            cells: Vec::new(),
            levels: Levels::default(),
            next_id: 1,
            rules_at_ns: now_ns.saturating_add(RULES_FIRST_NS),
            instruments,
            options,
        };
        machine.populate(per_conn, now_ns);
        machine
    }

    fn populate(&mut self, per_conn: usize, now_ns: i64) {
        for (idx, instrument) in self.instruments.iter().enumerate() {
            let seed = self.options.seed ^ (idx as u64 + 1) << 20;
            self.cells.push(Cell {
                group: idx / per_conn,
                sync: DepthSync::default(),
                ticker: None,
                differing: 0,
                suspect: false,
                status: instrument.status,
                rules: None,
                snapshot_at_ns: None,
                refresh_at_ns: now_ns,
                fallback_at_ns: now_ns,
                backoff: Backoff::new(SECOND / 20, 30 * SECOND, 60 * SECOND, seed),
                live_since_ns: now_ns,
                auditor: Auditor::default(),
                heard: false,
                deadline_ns: i64::MAX,
                hole: false,
            });
        }
        for start in (0..self.cells.len()).step_by(per_conn) {
            let seed = self.options.seed.wrapping_add(start as u64);
            let link = self.desk.connect(wire::STREAM_PATH, now_ns, control_budget());
            self.stats.connects += 1;
            self.groups.push(Group {
                slots: start..(start + per_conn).min(self.cells.len()),
                main: Some(link),
                next: None,
                backoff: Backoff::new(SECOND / 10, 30 * SECOND, 60 * SECOND, seed),
                down_since_ns: Some(now_ns),
                rotate_at_ns: i64::MAX,
            });
        }
    }

    fn find(&self, conn: u32) -> Option<(usize, Role)> {
        self.groups.iter().enumerate().find_map(|(idx, group)| {
            if group.main.as_ref().is_some_and(|link| link.conn == conn) {
                return Some((idx, Role::Main));
            }
            let next = group.next.as_ref().is_some_and(|next| next.link.conn == conn);
            next.then_some((idx, Role::Next))
        })
    }

    fn link(&mut self, group: usize, role: Role) -> Option<&mut Link> {
        let group = &mut self.groups[group];
        match role {
            Role::Main => group.main.as_mut(),
            Role::Next => group.next.as_mut().map(|next| &mut next.link),
        }
    }

    /// What a slot's book is, by all we know.
    fn settled(&self, slot: usize) -> (BookState, Reason) {
        let cell = &self.cells[slot];
        if !cell.sync.is_synced() {
            return self.books.state(slot);
        }
        let main = self.groups[cell.group].main.as_ref();
        if cell.suspect {
            (BookState::Stale, Reason::Malformed)
        } else if main.is_none_or(|link| link.pulse.is_probed()) {
            (BookState::Stale, Reason::Silence)
        } else if main.is_some_and(|link| link.lag.is_late()) {
            (BookState::Stale, Reason::Lag)
        } else if cell.status != TradingStatus::Trading {
            (BookState::Stale, Reason::Halted)
        } else if self.options.audit && !cell.auditor.is_trusted() {
            (BookState::Syncing, Reason::Audit)
        } else {
            (BookState::Live, Reason::None)
        }
    }

    /// Says a slot's state if it is another one.
    fn settle(&mut self, slot: usize, head: &Head, out: &mut dyn Publish) {
        let (state, reason) = self.settled(slot);
        let id = self.cells[slot].sync.id();
        self.books.say_if_new(slot, state, reason, id);
        self.books.commit(head, out);
    }

    fn settle_group(&mut self, group: usize, head: &Head, out: &mut dyn Publish) {
        for slot in self.groups[group].slots.clone() {
            self.settle(slot, head, out);
        }
    }

    /// Doubts what is in sync of a group; what is not was said before.
    fn doubt_group(&mut self, group: usize, reason: Reason, head: &Head, out: &mut dyn Publish) {
        for slot in self.groups[group].slots.clone() {
            if self.cells[slot].sync.is_synced() {
                self.books.doubt(slot, (BookState::Stale, reason), head, out);
            }
        }
    }

    /// Doubts a book and has it begin anew. A diff that revealed the fault is already in the buffer.
    fn resync(&mut self, slot: usize, reason: Reason, head: &Head, out: &mut dyn Publish) {
        self.books.doubt(slot, (BookState::Stale, reason), head, out);
        self.stats.resyncs += 1;
        let now_ns = head.at.recv_ns;
        let cell = &mut self.cells[slot];
        if cell.sync.is_synced() {
            cell.sync.restart();
        }
        cell.suspect = false;
        cell.differing = 0;
        let wait = cell.backoff.next_ns(now_ns - cell.live_since_ns);
        cell.snapshot_at_ns = Some(now_ns + wait);
        self.fetch_snapshot(slot, now_ns);
    }

    /// Asks for a slot's snapshot if one is wanted, due and within the budget.
    fn fetch_snapshot(&mut self, slot: usize, now_ns: i64) {
        let cell = &self.cells[slot];
        let due = cell.snapshot_at_ns.is_some_and(|at| at <= now_ns);
        let purpose = Purpose::Snapshot(slot);
        if !due || !cell.sync.wants_snapshot() || self.desk.is_pending(purpose) {
            return;
        }
        let limit = self.options.depth;
        let path = wire::depth_path(&self.instruments[slot].rest_symbol, limit);
        let cost = wire::depth_weight(limit);
        self.cells[slot].snapshot_at_ns =
            self.desk.get(path, cost, purpose, now_ns, &mut self.stats).err();
    }

    fn on_depth(
        &mut self,
        (slot, role): (usize, Role),
        span: Span,
        head: &Head,
        out: &mut dyn Publish,
    ) {
        let cell = &mut self.cells[slot];
        cell.heard = true;
        if role == Role::Next {
            // The main connection is the proof until the switch; this one may only be ahead.
            cell.hole = !cell.sync.would_join(span);
            if cell.hole {
                return;
            }
        }
        let [bids, asks] = &self.levels;
        match cell.sync.on_diff(span, head.venue_ts_ns, [bids, asks]) {
            OnDiff::Apply { overlap } => {
                let rotating = self.groups[cell.group].next.is_some();
                self.stats.overlaps += u64::from(overlap && !rotating);
                self.apply(slot, span.last, head, out);
            }
            OnDiff::Old => self.stats.duplicates += 1,
            OnDiff::Buffered { began } => {
                if began {
                    cell.snapshot_at_ns.get_or_insert(head.at.recv_ns);
                }
                if self.books.state(slot).0 == BookState::Init {
                    self.books.say_if_new(slot, BookState::Syncing, Reason::None, 0);
                    self.books.commit(head, out);
                }
                self.fetch_snapshot(slot, head.at.recv_ns);
            }
            OnDiff::Gap { .. } => {
                self.stats.gaps += 1;
                self.resync(slot, Reason::SequenceGap, head, out);
            }
            OnDiff::Rewind => {
                self.stats.rewinds += 1;
                self.resync(slot, Reason::SequenceRewind, head, out);
            }
            OnDiff::Overflow => {
                self.stats.buffer_overflows += 1;
                self.fetch_snapshot(slot, head.at.recv_ns);
            }
        }
    }

    /// Applies a diff that joined.
    fn apply(&mut self, slot: usize, last: u64, head: &Head, out: &mut dyn Publish) {
        self.stats.applied += 1;
        for update in self.levels.iter().flatten() {
            self.books.set(slot, *update, last);
        }
        let cell = &mut self.cells[slot];
        cell.suspect = false;
        let mut id = last;
        if let Some(ticker) = &mut cell.ticker {
            if last < ticker.id {
                id = ticker.id;
                if self.books.best(slot) != ticker.best {
                    self.books.set_best(slot, ticker.best, ticker.id);
                }
            } else if !ticker.checked {
                ticker.checked = true;
                let equal = self.books.best(slot) == ticker.best;
                cell.differing = if equal { 0 } else { cell.differing + 1 };
                self.stats.ticker_equal += u64::from(equal);
                self.stats.ticker_differs += u64::from(!equal);
            }
        }
        if DIFFERING_MAX <= cell.differing {
            return self.resync(slot, Reason::Audit, head, out);
        }
        self.finish(slot, id, head, out);
    }

    /// The end of a message for a slot: judge, show, say, publish.
    fn finish(&mut self, slot: usize, id: u64, head: &Head, out: &mut dyn Publish) {
        if self.books.book(slot).is_crossed_or_locked() {
            self.stats.crossed += 1;
            return self.resync(slot, Reason::Crossed, head, out);
        }
        self.books.refill(slot, id);
        // Few snapshot levels are left on a side: what is beyond them was never known (section 3). Early
        // enough, another snapshot joins without a break; too late, the book begins anew.
        let (window, depth) = (self.options.window, self.options.depth as usize);
        if self.books.is_worn(slot, (window * 3 / 4).min(depth / 2).max(1)) {
            if self.books.is_worn(slot, (window / 8).min(depth / 8).max(1)) {
                return self.resync(slot, Reason::Bounds, head, out);
            }
            self.refresh(slot, head.at.recv_ns);
        }
        self.books.set_position(slot, id, head);
        let (state, reason) = self.settled(slot);
        self.books.say_if_new(slot, state, reason, id);
        self.books.commit(head, out);
    }

    /// Has a worn book take another snapshot while it stays live.
    #[cold]
    fn refresh(&mut self, slot: usize, now_ns: i64) {
        let cell = &mut self.cells[slot];
        if cell.refresh_at_ns <= now_ns {
            cell.refresh_at_ns = now_ns + REFRESH_NS;
            cell.snapshot_at_ns = Some(now_ns);
            cell.sync.refresh();
        }
    }

    fn on_ticker(
        &mut self,
        slot: usize,
        id: u64,
        best: [Option<Level>; 2],
        head: &Head,
        out: &mut dyn Publish,
    ) {
        let cell = &mut self.cells[slot];
        cell.heard = true;
        if cell.ticker.is_some_and(|known| id <= known.id) {
            self.stats.duplicates += 1;
            return;
        }
        let synced = cell.sync.is_synced();
        let newer = cell.sync.id() < id;
        // Of a book that is ahead, only a ticker of the very same id says something.
        let same = synced && cell.sync.id() == id;
        cell.ticker = Some(Ticker { id, best, checked: synced && !newer });
        if same {
            let equal = self.books.best(slot) == best;
            cell.differing = if equal { 0 } else { cell.differing + 1 };
            self.stats.ticker_equal += u64::from(equal);
            self.stats.ticker_differs += u64::from(!equal);
            if DIFFERING_MAX <= cell.differing {
                self.resync(slot, Reason::Audit, head, out);
            }
            return;
        }
        if !synced || !newer {
            return;
        }
        if self.books.best(slot) != best {
            self.books.set_best(slot, best, id);
        }
        self.finish(slot, id, head, out);
    }

    /// A message that could not be read.
    fn on_fault(&mut self, group: usize, fault: Fault, head: &Head, out: &mut dyn Publish) {
        self.stats.malformed += 1;
        match fault.slot {
            Some(slot) => {
                let reason = fault.reason();
                self.cells[slot].sync.restart();
                self.resync(slot, reason, head, out);
            }
            // It may have been anybody's diff: the next one that joins proves that it was not ours.
            None => {
                for slot in self.groups[group].slots.clone() {
                    self.cells[slot].suspect = self.cells[slot].sync.is_synced();
                }
                self.doubt_group(group, Reason::Malformed, head, out);
            }
        }
    }

    fn on_snapshot(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let now_ns = head.at.recv_ns;
        // A reply to a question of before: the stream began anew meanwhile.
        if !self.cells[slot].sync.wants_snapshot() {
            return;
        }
        let refreshing = self.cells[slot].sync.is_synced();
        let id = match decode_snapshot(body, self.scales[slot], &mut self.levels) {
            Ok(id) => id,
            Err(error) => {
                self.stats.malformed += 1;
                if !refreshing {
                    let state = (BookState::Stale, error.reason());
                    self.books.doubt(slot, state, head, out);
                }
                return self.snapshot_again(slot, (0, i64::MAX), now_ns);
            }
        };
        let cell = &mut self.cells[slot];
        match cell.sync.on_snapshot(id) {
            OnSnapshot::Unwanted => return,
            OnSnapshot::Older => {
                self.stats.snapshots_old += 1;
                return self.snapshot_again(slot, OLDER_NS, now_ns);
            }
            OnSnapshot::Joined => {}
        }
        self.stats.snapshots += 1;
        let [bids, asks] = &mut self.levels;
        bids.append(asks);
        self.books.replace(slot, bids, Some(self.options.depth as usize));
        let mut venue_ts_ns = head.venue_ts_ns;
        for (_, event_ns, levels) in cell.sync.released() {
            self.books.set_quietly(slot, levels);
            venue_ts_ns = event_ns;
        }
        cell.sync.release();
        let mut id = cell.sync.id();
        if let Some(ticker) = &mut cell.ticker {
            if id < ticker.id {
                self.books.set_best_quietly(slot, ticker.best);
                id = ticker.id;
            } else {
                ticker.checked = true;
            }
        }
        if refreshing {
            self.stats.refreshes += 1;
        } else {
            cell.live_since_ns = now_ns;
            cell.auditor.restart(now_ns);
        }
        let head = Head { venue_ts_ns, ..*head };
        if self.books.book(slot).is_crossed_or_locked() {
            self.stats.crossed += 1;
            return self.resync(slot, Reason::Crossed, &head, out);
        }
        self.books.set_position(slot, id, &head);
        let state = self.settled(slot);
        self.books.show_snapshot(slot, id, state, 0);
        self.books.commit(&head, out);
    }

    fn snapshot_again(&mut self, slot: usize, (least_ns, most_ns): (i64, i64), now_ns: i64) {
        let cell = &mut self.cells[slot];
        let wait = cell.backoff.next_ns(0).clamp(least_ns, most_ns);
        cell.snapshot_at_ns = Some(now_ns + wait);
    }

    fn on_audit(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let now_ns = head.at.recv_ns;
        let cell = &mut self.cells[slot];
        if !cell.sync.is_synced() {
            return cell.auditor.failed(now_ns);
        }
        if decode_snapshot(body, self.scales[slot], &mut self.levels).is_err() {
            self.stats.malformed += 1;
            return cell.auditor.failed(now_ns + SECOND);
        }
        let [bids, asks] = &self.levels;
        let rest = RestBook { sides: [bids, asks], limit: wire::AUDIT_LEVELS as usize };
        let edges = self.books.edges(slot);
        let every_ns = self.options.audit_every_ns;
        let finding = cell.auditor.on_book(self.books.book(slot), edges, rest, now_ns, every_ns);
        self.stats.audits += 1;
        if 0 < finding.wrong {
            self.stats.audits_wrong += 1;
            return self.resync(slot, Reason::Audit, head, out);
        }
        self.settle(slot, head, out);
    }

    fn on_fallback(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let group = self.cells[slot].group;
        if self.groups[group].down_since_ns.is_none() || self.cells[slot].sync.is_synced() {
            return;
        }
        let Ok(id) = decode_snapshot(body, self.scales[slot], &mut self.levels) else {
            self.stats.malformed += 1;
            return;
        };
        self.stats.fallbacks += 1;
        let [bids, asks] = &mut self.levels;
        bids.append(asks);
        self.books.replace(slot, bids, Some(wire::AUDIT_LEVELS as usize));
        self.books.set_position(slot, id, head);
        let state = (BookState::Fallback, Reason::Disconnect);
        self.books.show_snapshot(slot, id, state, flag::FALLBACK);
        self.books.commit(head, out);
    }

    /// The REST book has nothing that we lack: there was nothing to send.
    fn on_probe(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let cell = &self.cells[slot];
        let group = cell.group;
        let ours = cell.sync.id().max(cell.ticker.map_or(0, |ticker| ticker.id));
        let theirs = decode_snapshot(body, self.scales[slot], &mut self.levels);
        let quiet = cell.sync.is_synced() && theirs.is_ok_and(|id| id <= ours);
        if quiet && let Some(link) = &mut self.groups[group].main {
            link.pulse.quiet_is_right(head.at.recv_ns);
            self.settle_group(group, head, out);
        }
    }

    fn subscribe(&mut self, group: usize, role: Role, only_unheard: bool, now_ns: i64) {
        let slots = self.groups[group].slots.clone();
        let wanted: Vec<usize> =
            slots.filter(|slot| !only_unheard || !self.cells[*slot].heard).collect();
        let names = wanted
            .iter()
            .flat_map(|slot| wire::streams(&self.instruments[*slot], self.options.ticker));
        let frames = wire::control("SUBSCRIBE", names, self.next_id);
        let ids: Vec<u64> = (self.next_id..).take(frames.len()).collect();
        self.next_id += frames.len() as u64;
        let group = &mut self.groups[group];
        let link = match role {
            Role::Main => group.main.as_mut(),
            Role::Next => group.next.as_mut().map(|next| {
                next.unacked.extend(&ids);
                &mut next.link
            }),
        };
        let Some(link) = link else { return };
        let mut sent_ns = now_ns;
        for frame in frames {
            sent_ns = self.desk.send(link, frame, now_ns);
        }
        if role == Role::Main {
            for slot in wanted {
                self.cells[slot].deadline_ns = sent_ns + self.options.first_message_ns_max;
            }
        }
    }

    /// The main connection is gone.
    fn down(
        &mut self,
        group: usize,
        cause: CloseCause,
        reason: Reason,
        now_ns: i64,
        out: &mut dyn Publish,
    ) {
        self.stats.disconnects += 1;
        let Some(old) = self.groups[group].main.take() else { return };
        // The next connection carries the same streams: what it sends joins the books or shows the gap.
        let next = self.groups[group].next.take_if(|next| next.link.open_ns.is_some());
        if let Some(next) = next {
            self.groups[group].main = Some(next.link);
            return self.rotated(group, now_ns);
        }
        let head = Head::at(now_ns, old.conn);
        for slot in self.groups[group].slots.clone() {
            if self.books.state(slot).0 != BookState::Init {
                self.books.doubt(slot, (BookState::Stale, reason), &head, out);
            }
            let cell = &mut self.cells[slot];
            cell.sync.restart();
            cell.ticker = None;
            cell.snapshot_at_ns = None;
            (cell.heard, cell.suspect, cell.deadline_ns) = (false, false, i64::MAX);
        }
        let lasted = old.open_ns.map_or(0, |open| now_ns - open);
        let group = &mut self.groups[group];
        let at = self.desk.redial_ns(&mut group.backoff, cause, lasted, now_ns);
        let link = self.desk.connect(wire::STREAM_PATH, at, control_budget());
        group.main = Some(Link { lag: old.lag, ..link });
        group.down_since_ns.get_or_insert(now_ns);
        group.rotate_at_ns = i64::MAX;
        self.stats.connects += 1;
    }

    /// Opens the connection that will replace the main one, unless it is on its way.
    fn rotate(&mut self, group: usize, now_ns: i64) {
        let group = &mut self.groups[group];
        if group.next.is_some() || group.main.as_ref().is_none_or(|link| link.open_ns.is_none()) {
            return;
        }
        let link = self.desk.connect(wire::STREAM_PATH, now_ns, control_budget());
        self.stats.connects += 1;
        group.next = Some(NextLink { link, unacked: Vec::new(), acked_ns: None });
        for slot in group.slots.clone() {
            self.cells[slot].hole = false;
        }
    }

    /// A next connection became the main one.
    fn rotated(&mut self, group: usize, now_ns: i64) {
        self.stats.rotations += 1;
        self.schedule_rotation(group, now_ns);
    }

    fn schedule_rotation(&mut self, group: usize, now_ns: i64) {
        let stagger = STAGGER_NS.saturating_mul(group as i64);
        let age = self.options.rotate_after_ns.saturating_add(stagger);
        self.groups[group].rotate_at_ns = now_ns.saturating_add(age);
    }

    /// Makes the next connection the main one once it carries everything.
    fn switch_if_ready(&mut self, group: usize, now_ns: i64) {
        let of_group = &self.groups[group];
        let Some(acked_ns) = of_group.next.as_ref().and_then(|next| next.acked_ns) else { return };
        let since = now_ns - acked_ns;
        let holes = of_group.slots.clone().any(|slot| self.cells[slot].hole);
        if since < OVERLAP_NS || holes && since < SWITCH_NS_MAX {
            return;
        }
        let of_group = &mut self.groups[group];
        let Some(next) = of_group.next.take() else { return };
        if let Some(old) = of_group.main.replace(next.link) {
            self.desk.close(old.conn, false);
        }
        self.rotated(group, now_ns);
    }

    fn group_timer(&mut self, group: usize, now_ns: i64, out: &mut dyn Publish) {
        let options = &self.options;
        let (silence_max, probe_max) = (options.silence_ns_max, options.probe_ns_max);
        let (beat_every, patience) = (options.beat_every_ns, options.lag_patience_ns);
        let Some(link) = self.groups[group].main.as_mut().filter(|link| link.open_ns.is_some())
        else {
            return self.fallback(group, now_ns);
        };
        let head = Head::at(now_ns, link.conn);
        let conn = link.conn;
        let beat = link.pulse.beat(now_ns, beat_every);
        let silence = link.pulse.silence(now_ns, silence_max, probe_max);
        let hopeless = link.lag.is_hopeless(now_ns, patience);
        if let Some((last_ns, frames)) = beat {
            self.books.beat(last_ns, frames);
            self.books.commit(&head, out);
        }
        match silence {
            Silence::Began => {
                self.stats.silences += 1;
                self.doubt_group(group, Reason::Silence, &head, out);
                self.desk.ping(conn);
                self.probe(group, now_ns);
            }
            Silence::Dead => {
                self.desk.close(conn, true);
                return self.down(group, CloseCause::Local, Reason::Silence, now_ns, out);
            }
            Silence::None | Silence::Lasts => {}
        }
        if hopeless {
            self.desk.close(conn, true);
            return self.down(group, CloseCause::Local, Reason::Lag, now_ns, out);
        }
        if self.groups[group].rotate_at_ns <= now_ns {
            self.rotate(group, now_ns);
        }
        self.switch_if_ready(group, now_ns);
        self.repeat_mute(group, now_ns);
    }

    fn probe(&mut self, group: usize, now_ns: i64) {
        let slot = self.groups[group].slots.clone().find(|slot| self.cells[*slot].sync.is_synced());
        if let Some(slot) = slot {
            let path = wire::depth_path(&self.instruments[slot].rest_symbol, 5);
            let cost = wire::depth_weight(5);
            // Without budget the frames alone decide.
            let _ = self.desk.get(path, cost, Purpose::Probe(slot), now_ns, &mut self.stats);
        }
    }

    /// Subscriptions that were acknowledged and then stayed silent are repeated (section 2.3).
    fn repeat_mute(&mut self, group: usize, now_ns: i64) {
        let slots = self.groups[group].slots.clone();
        let cells = &self.cells[slots];
        let mute = cells.iter().filter(|c| !c.heard && c.deadline_ns <= now_ns).count();
        if 0 < mute {
            self.stats.mute += mute as u64;
            self.subscribe(group, Role::Main, true, now_ns);
        }
    }

    fn fallback(&mut self, group: usize, now_ns: i64) {
        let Some(since) = self.groups[group].down_since_ns else { return };
        if now_ns - since <= self.options.fallback_after_ns {
            return;
        }
        for slot in self.groups[group].slots.clone() {
            let purpose = Purpose::Fallback(slot);
            if now_ns < self.cells[slot].fallback_at_ns || self.desk.is_pending(purpose) {
                continue;
            }
            let limit = wire::AUDIT_LEVELS;
            let path = wire::depth_path(&self.instruments[slot].rest_symbol, limit);
            let cost = wire::depth_weight(limit);
            let asked = self.desk.get(path, cost, purpose, now_ns, &mut self.stats);
            self.cells[slot].fallback_at_ns =
                asked.err().unwrap_or(now_ns + self.options.fallback_every_ns);
        }
    }

    /// Asks for the rules of all instruments when it is time.
    fn fetch_rules(&mut self, now_ns: i64) {
        if self.options.rules_every_ns == 0 || now_ns < self.rules_at_ns {
            return;
        }
        self.rules_at_ns = now_ns.saturating_add(self.options.rules_every_ns);
        let symbols: Vec<&str> = self.instruments.iter().map(|i| i.symbol.as_str()).collect();
        for (idx, path) in meta::metadata_paths(&symbols).into_iter().enumerate() {
            let purpose = Purpose::Rules(idx * meta::SYMBOLS_MAX);
            if !self.desk.is_pending(purpose) {
                // Without budget the next reading will do.
                let cost = wire::RULES_WEIGHT;
                let _ = self.desk.get(path, cost, purpose, now_ns, &mut self.stats);
            }
        }
    }

    fn on_rules(&mut self, body: &mut [u8], head: &Head, out: &mut dyn Publish) {
        let Ok(read) = meta::parse_metadata(body) else {
            self.stats.malformed += 1;
            return;
        };
        for rules in read {
            let Some(slot) = self.symbols.find(rules.symbol.as_bytes()) else { continue };
            let now = self.instruments[slot].quanta(&rules);
            let cell = &mut self.cells[slot];
            let is_known = cell.rules.replace(now) == Some(now);
            let (status, [tick, lot, notional]) = now;
            cell.status = status;
            self.stats.rule_changes += u64::from(!is_known);
            // Told at every reading: nobody trades on rules that nobody has read for long.
            self.books.rules(slot, status, tick, lot, notional);
            self.books.commit(head, out);
            self.settle(slot, head, out);
        }
    }

    fn audit(&mut self, slot: usize, now_ns: i64) {
        let cell = &self.cells[slot];
        if !self.options.audit || !cell.sync.is_synced() || !cell.auditor.is_due(now_ns) {
            return;
        }
        let limit = wire::AUDIT_LEVELS;
        let path = wire::depth_path(&self.instruments[slot].rest_symbol, limit);
        let cost = wire::depth_weight(limit);
        match self.desk.get(path, cost, Purpose::Audit(slot), now_ns, &mut self.stats) {
            Ok(_) => self.cells[slot].auditor.asked(now_ns),
            Err(later) => self.cells[slot].auditor.failed(later),
        }
    }
}

impl Machine for Binance {
    fn venue(&self) -> Venue {
        Venue::Binance
    }

    fn next_action(&mut self) -> Option<Action> {
        self.desk.next_action()
    }

    fn on_open(&mut self, conn: u32, now_ns: i64) {
        let Some((group, role)) = self.find(conn) else { return };
        if let Some(link) = self.link(group, role) {
            link.open(now_ns);
        }
        if role == Role::Main {
            self.groups[group].down_since_ns = None;
            self.schedule_rotation(group, now_ns);
        }
        self.subscribe(group, role, false, now_ns);
    }

    fn on_frame(&mut self, conn: u32, payload: &mut [u8], at: Stamps, out: &mut dyn Publish) {
        let Some((group, role)) = self.find(conn) else { return };
        self.stats.frames += 1;
        self.stats.bytes += payload.len() as u64;
        let lag_ns_max = self.options.lag_ns_max;
        let Some(link) = self.link(group, role) else { return };
        let paused = lag_ns_max < at.recv_ns.saturating_sub(link.pulse.last_ns());
        if link.pulse.frame(at.recv_ns) || paused {
            link.lag.doubt(at.recv_ns);
        }
        let mut head = Head { conn, venue_ts_ns: 0, at };
        if paused && role == Role::Main {
            self.doubt_group(group, Reason::Lag, &head, out);
        }
        let event = match decode(payload, &self.symbols, &self.scales, &mut self.levels) {
            Ok(event) => event,
            Err(fault) => return self.on_fault(group, fault, &head, out),
        };
        match event {
            Event::Depth { slot, span, event_ns } if self.cells[slot].group == group => {
                head.venue_ts_ns = event_ns;
                let mut link = self.link(group, role);
                if let Some(link) = &mut link {
                    link.book_ns = at.recv_ns;
                }
                let link = link.filter(|_| 0 < event_ns);
                let change = link.map(|link| link.lag.on_message(event_ns, at.recv_ns, lag_ns_max));
                match change {
                    Some(LagChange::Late) if role == Role::Main => {
                        self.stats.lags += 1;
                        let step =
                            self.link(group, role).is_some_and(|l| l.lag.is_step(at.recv_ns));
                        self.stats.clock_steps += u64::from(step);
                        self.doubt_group(group, Reason::Lag, &head, out);
                    }
                    Some(LagChange::Caught) if role == Role::Main => {
                        self.settle_group(group, &head, out);
                    }
                    _ => {}
                }
                self.on_depth((slot, role), span, &head, out);
            }
            Event::Ticker { slot, id, best } if self.cells[slot].group == group => {
                if let Some(link) = self.link(group, role) {
                    link.book_ns = at.recv_ns;
                }
                if self.options.ticker {
                    self.on_ticker(slot, id, best, &head, out);
                }
            }
            Event::Trade { slot, px, qty, taken, id, event_ns } => {
                head.venue_ts_ns = event_ns;
                self.books.trade(slot, px, qty, taken, id);
                self.books.commit(&head, out);
            }
            Event::Ack { id } => {
                if let Some(next) = self.groups[group].next.as_mut().filter(|_| role == Role::Next)
                {
                    next.unacked.retain(|waiting| Some(*waiting) != id);
                    if next.unacked.is_empty() {
                        next.acked_ns.get_or_insert(at.recv_ns);
                    }
                }
            }
            Event::Refused { .. } => self.stats.refused += 1,
            Event::Shutdown => self.rotate(group, at.recv_ns),
            // A stream on a connection that it was not subscribed on.
            Event::Depth { .. } | Event::Ticker { .. } | Event::Foreign | Event::Other => {
                self.stats.unknown += 1;
            }
        }
    }

    fn on_pong(&mut self, _conn: u32, _now_ns: i64) {
        // A pong proves the socket, not the stream: market data alone ends a silence.
    }

    fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, out: &mut dyn Publish) {
        match self.find(conn) {
            Some((group, Role::Main)) => self.down(group, cause, Reason::Disconnect, now_ns, out),
            Some((group, Role::Next)) => {
                let group = &mut self.groups[group];
                let lasted = group.next.take().and_then(|next| next.link.open_ns);
                let lasted = lasted.map_or(0, |open| now_ns - open);
                group.rotate_at_ns = self.desk.redial_ns(&mut group.backoff, cause, lasted, now_ns);
            }
            None => {}
        }
    }

    fn on_reply(&mut self, request: u32, reply: Reply<'_>, at: Stamps, out: &mut dyn Publish) {
        let Some(purpose) = self.desk.take(request) else { return };
        let slot = purpose.slot();
        let main = self.groups[self.cells[slot].group].main.as_ref();
        let head = Head { conn: main.map_or(0, |link| link.conn), venue_ts_ns: 0, at };
        match self.desk.judge(reply, at.recv_ns, &mut self.stats) {
            Ok(body) => match purpose {
                Purpose::Snapshot(_) => self.on_snapshot(slot, body, &head, out),
                Purpose::Audit(_) => self.on_audit(slot, body, &head, out),
                Purpose::Fallback(_) => self.on_fallback(slot, body, &head, out),
                Purpose::Probe(_) => self.on_probe(slot, body, &head, out),
                Purpose::Rules(_) => self.on_rules(body, &head, out),
            },
            Err(refusal) => {
                let cell = &mut self.cells[slot];
                let again = match refusal {
                    Refusal::Later(until) => until,
                    Refusal::Trouble => at.recv_ns + cell.backoff.next_ns(0),
                    Refusal::Unknown => at.recv_ns + UNKNOWN_NS,
                };
                match purpose {
                    Purpose::Snapshot(_) => cell.snapshot_at_ns = Some(again),
                    Purpose::Audit(_) => cell.auditor.failed(again.max(at.recv_ns + SECOND)),
                    Purpose::Fallback(_) => cell.fallback_at_ns = again,
                    Purpose::Probe(_) | Purpose::Rules(_) => {}
                }
            }
        }
    }

    fn on_timer(&mut self, now_ns: i64, out: &mut dyn Publish) {
        for group in 0..self.groups.len() {
            self.group_timer(group, now_ns, out);
        }
        for slot in 0..self.cells.len() {
            self.fetch_snapshot(slot, now_ns);
            self.audit(slot, now_ns);
        }
        self.fetch_rules(now_ns);
        self.stats.records = self.books.counts.records;
        self.stats.batches = self.books.counts.batches;
        self.stats.dropped_levels = self.books.counts.dropped_levels;
    }

    fn instruments(&self) -> &[VenueInstrument] {
        &self.instruments
    }

    fn book(&self, slot: usize) -> &Book {
        self.books.book(slot)
    }

    fn shown(&self, slot: usize) -> [usize; 2] {
        self.books.shown(slot)
    }

    fn state(&self, slot: usize) -> (BookState, Reason) {
        self.books.state(slot)
    }

    fn position(&self, slot: usize) -> Position {
        self.books.position(slot)
    }

    fn heard_ns(&self, slot: usize) -> i64 {
        let main = self.groups[self.cells[slot].group].main.as_ref();
        main.map_or(0, |link| link.book_ns)
    }

    fn doubt(&mut self, slot: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish) {
        let main = self.groups[self.cells[slot].group].main.as_ref();
        let head = Head::at(now_ns, main.map_or(0, |link| link.conn));
        self.resync(slot, reason, &head, out);
    }

    fn take_dirty(&mut self) -> Option<usize> {
        self.books.take_dirty()
    }

    fn stats(&self) -> &MachineStats {
        &self.stats
    }
}

fn control_budget() -> Budget {
    Budget::bucket(wire::CONTROL_PER_SECOND_MILLI, 2)
}
