//! Coinbase Advanced Trade market data: `level2` with `heartbeats`, few products a connection.
//!
//! Invariant: a book is `Live` only from its snapshot on, while no frame of its connection was missed, the
//! connection is neither silent nor late, the book is not crossed, and (with audits on) a second source
//! has agreed. The sequence number is judged on every frame before its events are looked at; after a gap
//! all books of the connection are doubted and the connection is replaced, because nobody can tell whose
//! frame was lost.
//!
//! `X-USDC` is an alias of `X-USD`: one book in the stream, two instruments here, each with its own quote.
//!
//! What the venue dictates is in `wire`; sections named here are of the protocol sheet.

pub mod decode;
pub mod meta;
pub mod sync;
pub mod wire;

use std::ops::Range;

use tandem_core::book::Book;
use tandem_core::record::{BookState, Reason, TradingStatus, Venue, flag};
use tandem_core::units::{Px, Qty, pow10};

use self::decode::{Channel, Events, decode_book, envelope};
use self::sync::{OnFrame, Sequence};
use crate::audit::{Auditor, RestBook};
use crate::error::Fault;
use crate::freshness::{LagChange, Silence};
use crate::machine::{
    Action, CloseCause, Machine, MachineStats, Options, Position, Publish, Reply, Stamps,
};
use crate::net::backoff::Backoff;
use crate::net::budget::Budget;
use crate::publish::{Books, Head, Update};
use crate::scratch::Scale;
use crate::session::{Desk, Link, Purpose, Refusal};
use crate::spec::VenueInstrument;
use crate::symbols::Symbols;

const SECOND: i64 = 1_000_000_000;
/// The first reading of the rules; later ones follow `rules_every_ns`.
const RULES_FIRST_NS: i64 = 2 * SECOND;

/// Where a product is asked for that the venue does not know.
const UNKNOWN_NS: i64 = 30 * SECOND;

/// The products of one connection.
#[derive(Debug)]
struct Group {
    slots: Range<usize>,
    link: Link,
    sequence: Sequence,
    heartbeat: Option<u64>,
    backoff: Backoff,
    down_since_ns: Option<i64>,
}

/// One product.
#[derive(Debug)]
struct Cell {
    group: usize,
    /// A snapshot came, and nothing was missed since.
    synced: bool,
    /// Another instrument with the same book (an alias), and how to bring ours to its quanta.
    alias: Option<usize>,
    status: TradingStatus,
    /// Rules as they were last published.
    rules: Option<(TradingStatus, [i64; 3])>,
    rules_at_ns: i64,
    auditor: Auditor,
    backoff: Backoff,
    live_since_ns: i64,
    /// When to subscribe again if no snapshot came.
    deadline_ns: i64,
    fallback_at_ns: i64,
}

/// The machine. See [`Machine`].
#[derive(Debug)]
pub struct Coinbase {
    options: Options,
    instruments: Vec<VenueInstrument>,
    symbols: Symbols,
    scales: Vec<Scale>,
    books: Books,
    desk: Desk,
    stats: MachineStats,
    groups: Vec<Group>,
    cells: Vec<Cell>,
    events: Events,
    levels: [Vec<Update>; 2],
    rescaled: Vec<Update>,
    touched: Vec<usize>,
    /// The venue's limit on messages is per address, not per connection.
    sent: Budget,
}

impl Coinbase {
    /// Returns a machine that will ask for its first connections at `now_ns`. Instruments that are one
    /// book (aliases) are moved next to each other; [`Machine::instruments`] has the order.
    #[must_use]
    pub fn new(mut instruments: Vec<VenueInstrument>, options: Options, now_ns: i64) -> Coinbase {
        assert!(
            instruments.iter().all(|i| i.venue == Venue::Coinbase),
            "instruments of this venue"
        );
        instruments.sort_by(|a, b| a.feed_symbol.cmp(&b.feed_symbol).then(a.id.cmp(&b.id)));
        let mut machine = Coinbase {
            symbols: Symbols::new(instruments.iter().map(|i| i.feed_symbol.as_str())),
            scales: instruments
                .iter()
                .map(|i| Scale { px: i.px_exponent, qty: i.qty_exponent })
                .collect(),
            books: Books::new(Venue::Coinbase, &instruments, options.window, options.capacity),
            desk: Desk::new(
                Budget::bucket(options.part(wire::CONNECTS_PER_SECOND_MILLI), 2),
                Budget::bucket(
                    share(wire::REST_PER_SECOND_MILLI, options.rest_part_ppm()),
                    options.part(5),
                ),
            ),
            stats: MachineStats::default(),
            groups: Vec::new(),
            cells: Vec::new(),
            events: Events::default(),
            levels: Default::default(),
            rescaled: Vec::new(),
            touched: Vec::with_capacity(instruments.len()),
            sent: Budget::bucket(options.part(wire::SENT_PER_SECOND_MILLI), options.part(2)),
            instruments,
            options,
        };
        machine.populate(now_ns);
        machine
    }

    fn populate(&mut self, now_ns: i64) {
        let count = self.instruments.len();
        let per_conn = self.options.per_conn.max(1);
        let mut start = 0;
        while start < count {
            let mut end = (start + per_conn).min(count);
            // Aliases stay on one connection.
            while end < count
                && self.instruments[end].feed_symbol == self.instruments[end - 1].feed_symbol
            {
                end += 1;
            }
            let group = self.groups.len();
            for slot in start..end {
                let next = slot + 1;
                let same = |a: usize, b: usize| {
                    self.instruments[a].feed_symbol == self.instruments[b].feed_symbol
                };
                let seed = self.options.seed ^ (slot as u64 + 1) << 20;
                self.cells.push(Cell {
                    group,
                    synced: false,
                    alias: (next < end && same(slot, next)).then_some(next),
                    status: self.instruments[slot].status,
                    rules: None,
                    rules_at_ns: now_ns.saturating_add(RULES_FIRST_NS),
                    auditor: Auditor::default(),
                    backoff: Backoff::new(SECOND / 4, 30 * SECOND, 60 * SECOND, seed),
                    live_since_ns: now_ns,
                    deadline_ns: i64::MAX,
                    fallback_at_ns: now_ns,
                });
            }
            let link = self.desk.connect(wire::STREAM_PATH, now_ns, self.sent.clone());
            self.stats.connects += 1;
            self.groups.push(Group {
                slots: start..end,
                link,
                sequence: Sequence::default(),
                heartbeat: None,
                backoff: Backoff::new(
                    SECOND / 10,
                    30 * SECOND,
                    60 * SECOND,
                    self.options.seed.wrapping_add(start as u64),
                ),
                down_since_ns: Some(now_ns),
            });
            start = end;
        }
    }

    fn find(&self, conn: u32) -> Option<usize> {
        self.groups.iter().position(|group| group.link.conn == conn)
    }

    /// What a slot's book is, by all we know.
    fn settled(&self, slot: usize) -> (BookState, Reason) {
        let cell = &self.cells[slot];
        let link = &self.groups[cell.group].link;
        if !cell.synced {
            self.books.state(slot)
        } else if link.pulse.is_probed() {
            (BookState::Stale, Reason::Silence)
        } else if link.lag.is_late() {
            (BookState::Stale, Reason::Lag)
        } else if cell.status != TradingStatus::Trading {
            (BookState::Stale, Reason::Halted)
        } else if self.options.audit && !cell.auditor.is_trusted() {
            (BookState::Syncing, Reason::Audit)
        } else {
            (BookState::Live, Reason::None)
        }
    }

    fn settle_group(&mut self, group: usize, head: &Head, out: &mut dyn Publish) {
        for slot in self.groups[group].slots.clone() {
            let (state, reason) = self.settled(slot);
            self.books.say_if_new(slot, state, reason, 0);
            self.books.commit(head, out);
        }
    }

    /// Doubts what is in sync of a group; what is not was said before.
    fn doubt_group(&mut self, group: usize, reason: Reason, head: &Head, out: &mut dyn Publish) {
        for slot in self.groups[group].slots.clone() {
            if self.cells[slot].synced {
                self.books.doubt(slot, (BookState::Stale, reason), head, out);
            }
        }
    }

    /// Has a doubted book begin anew: its product alone is subscribed again.
    fn resubscribe(&mut self, slot: usize, now_ns: i64) {
        // The stream knows the first of several aliases.
        let feed = self.instruments[slot].feed_symbol.clone();
        for other in self.groups[self.cells[slot].group].slots.clone() {
            if self.instruments[other].feed_symbol == feed {
                self.cells[other].synced = false;
            }
        }
        self.stats.resyncs += 1;
        let cell = &mut self.cells[slot];
        let wait = cell.backoff.next_ns(now_ns - cell.live_since_ns);
        let conn = self.groups[cell.group].link.conn;
        let at = self.sent.reserve(1, now_ns + wait);
        self.desk.send_at(conn, wire::control("unsubscribe", "level2", &[&feed]), at);
        let at = self.sent.reserve(1, at);
        self.desk.send_at(conn, wire::control("subscribe", "level2", &[&feed]), at);
        self.cells[slot].deadline_ns = at + self.options.first_message_ns_max;
    }

    /// The connection cannot be believed any more: close it and dial again.
    fn replace_link(
        &mut self,
        group: usize,
        cause: CloseCause,
        reason: Reason,
        now_ns: i64,
        out: &mut dyn Publish,
    ) {
        self.stats.disconnects += 1;
        let head = Head::at(now_ns, self.groups[group].link.conn);
        for slot in self.groups[group].slots.clone() {
            if self.books.state(slot).0 != BookState::Init {
                self.books.doubt(slot, (BookState::Stale, reason), &head, out);
            }
            self.cells[slot].synced = false;
            self.cells[slot].deadline_ns = i64::MAX;
        }
        let of_group = &mut self.groups[group];
        let lasted = of_group.link.open_ns.map_or(0, |open| now_ns - open);
        let at = self.desk.redial_ns(&mut of_group.backoff, cause, lasted, now_ns);
        let lag = of_group.link.lag;
        of_group.link = self.desk.connect(wire::STREAM_PATH, at, self.sent.clone());
        of_group.link.lag = lag;
        of_group.sequence = Sequence::default();
        of_group.heartbeat = None;
        of_group.down_since_ns.get_or_insert(now_ns);
        self.stats.connects += 1;
    }

    fn break_link(&mut self, group: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish) {
        self.desk.close(self.groups[group].link.conn, true);
        self.replace_link(group, CloseCause::Local, reason, now_ns, out);
    }

    fn on_fault(&mut self, group: usize, fault: Fault, head: &Head, out: &mut dyn Publish) {
        self.stats.malformed += 1;
        // Whose events the frame held cannot be told.
        self.break_link(group, fault.reason(), head.at.recv_ns, out);
    }

    fn doubt_aliases(&mut self, slot: usize, reason: Reason, head: &Head, out: &mut dyn Publish) {
        let mut next = Some(slot);
        while let Some(slot) = next {
            self.books.doubt(slot, (BookState::Stale, reason), head, out);
            next = self.cells[slot].alias;
        }
    }

    /// Applies the book events of a frame; all of them are one batch.
    fn on_books(&mut self, sequence: u64, head: &Head, out: &mut dyn Publish) {
        self.touched.clear();
        let now_ns = head.at.recv_ns;
        for idx in 0..self.events.parts.len() {
            let part = self.events.parts[idx];
            let mut next = Some(part.slot);
            while let Some(slot) = next {
                next = self.cells[slot].alias;
                let (from, to) = (self.scales[part.slot], self.scales[slot]);
                let levels = if from == to {
                    self.events.levels_mut(&part)
                } else if rescale(self.events.levels(&part), from, to, &mut self.rescaled) {
                    &mut self.rescaled
                } else {
                    // The alias's quanta cannot hold it; the product's own can.
                    self.cells[slot].synced = false;
                    self.books.doubt_in_batch(slot, (BookState::Stale, Reason::Bounds));
                    continue;
                };
                if part.snapshot {
                    self.stats.snapshots += 1;
                    self.books.replace(slot, levels, None);
                    let cell = &mut self.cells[slot];
                    cell.synced = true;
                    cell.deadline_ns = i64::MAX;
                    cell.live_since_ns = now_ns;
                    cell.auditor.restart(now_ns);
                    let state = self.settled(slot);
                    self.books.show_snapshot(slot, sequence, state, 0);
                } else if self.cells[slot].synced {
                    for update in levels {
                        self.books.set(slot, *update, sequence);
                    }
                } else {
                    continue;
                }
                self.stats.applied += 1;
                if !self.touched.contains(&slot) {
                    self.touched.push(slot);
                }
            }
        }
        for idx in 0..self.events.faulty.len() {
            let (slot, error) = self.events.faulty[idx];
            let reason = error.reason();
            self.stats.malformed += 1;
            let mut next = Some(slot);
            while let Some(slot) = next {
                next = self.cells[slot].alias;
                self.cells[slot].synced = false;
                self.touched.retain(|touched| *touched != slot);
                self.books.doubt_in_batch(slot, (BookState::Stale, reason));
            }
            self.resubscribe(slot, now_ns);
        }
        for idx in 0..self.touched.len() {
            let slot = self.touched[idx];
            self.books.set_position(slot, sequence, head);
            if self.books.book(slot).is_crossed_or_locked() {
                self.stats.crossed += 1;
                self.cells[slot].synced = false;
                self.books.doubt_in_batch(slot, (BookState::Stale, Reason::Crossed));
                self.resubscribe(slot, now_ns);
                continue;
            }
            self.books.refill(slot, sequence);
            let (state, reason) = self.settled(slot);
            self.books.say_if_new(slot, state, reason, sequence);
        }
        self.books.commit(head, out);
    }

    fn on_heartbeat(&mut self, group: usize) {
        let Some(counter) = self.events.heartbeat else { return };
        let last = self.groups[group].heartbeat.replace(counter);
        // The sequence has the last word; a jump here is only counted.
        if let Some(last) = last {
            self.stats.missed_heartbeats += counter.saturating_sub(last.saturating_add(1));
        }
    }

    fn on_audit(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let now_ns = head.at.recv_ns;
        let cell = &mut self.cells[slot];
        if !cell.synced {
            return cell.auditor.failed(now_ns);
        }
        if decode_book(body, self.scales[slot], &mut self.levels).is_err() {
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
            self.doubt_aliases(slot, Reason::Audit, head, out);
            return self.resubscribe(slot, now_ns);
        }
        let (state, reason) = self.settled(slot);
        self.books.say_if_new(slot, state, reason, 0);
        self.books.commit(head, out);
    }

    fn on_fallback(&mut self, slot: usize, body: &[u8], head: &Head, out: &mut dyn Publish) {
        let group = self.cells[slot].group;
        if self.groups[group].down_since_ns.is_none() || self.cells[slot].synced {
            return;
        }
        if decode_book(body, self.scales[slot], &mut self.levels).is_err() {
            self.stats.malformed += 1;
            return;
        }
        self.stats.fallbacks += 1;
        let [bids, asks] = &mut self.levels;
        bids.append(asks);
        self.books.replace(slot, bids, Some(wire::AUDIT_LEVELS as usize));
        self.books.set_position(slot, 0, head);
        let state = (BookState::Fallback, Reason::Disconnect);
        self.books.show_snapshot(slot, 0, state, flag::FALLBACK);
        self.books.commit(head, out);
    }

    fn group_timer(&mut self, group: usize, now_ns: i64, out: &mut dyn Publish) {
        let options = &self.options;
        let link = &mut self.groups[group].link;
        if link.open_ns.is_none() {
            return self.fallback(group, now_ns);
        }
        let (conn, head) = (link.conn, Head::at(now_ns, link.conn));
        let beat = link.pulse.beat(now_ns, options.beat_every_ns);
        let silence = link.pulse.silence(now_ns, options.silence_ns_max, options.probe_ns_max);
        let hopeless = link.lag.is_hopeless(now_ns, options.lag_patience_ns);
        if let Some((last_ns, frames)) = beat {
            self.books.beat(last_ns, frames);
            self.books.commit(&head, out);
        }
        match silence {
            Silence::Began => {
                // A heartbeat comes every second: silence is never a quiet market.
                self.stats.silences += 1;
                self.doubt_group(group, Reason::Silence, &head, out);
                self.desk.ping(conn);
            }
            Silence::Dead => return self.break_link(group, Reason::Silence, now_ns, out),
            Silence::None | Silence::Lasts => {}
        }
        if hopeless {
            return self.break_link(group, Reason::Lag, now_ns, out);
        }
        // A snapshot that does not come: most likely a frame larger than somebody took (section 13).
        for slot in self.groups[group].slots.clone() {
            if !self.cells[slot].synced && self.cells[slot].deadline_ns <= now_ns {
                self.stats.mute += 1;
                self.resubscribe(slot, now_ns);
            }
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
            let path = wire::book_path(&self.instruments[slot].rest_symbol, wire::AUDIT_LEVELS);
            let asked = self.desk.get(path, 1, purpose, now_ns, &mut self.stats);
            self.cells[slot].fallback_at_ns =
                asked.err().unwrap_or(now_ns + self.options.fallback_every_ns);
        }
    }

    /// Asks for a product's rules when it is time.
    fn fetch_rules(&mut self, slot: usize, now_ns: i64) {
        let every_ns = self.options.rules_every_ns;
        let purpose = Purpose::Rules(slot);
        let due = every_ns != 0 && self.cells[slot].rules_at_ns <= now_ns;
        if !due || self.desk.is_pending(purpose) {
            return;
        }
        let paths = meta::metadata_paths(&[&self.instruments[slot].rest_symbol]);
        for path in paths {
            let asked = self.desk.get(path, 1, purpose, now_ns, &mut self.stats);
            self.cells[slot].rules_at_ns = asked.err().unwrap_or(now_ns.saturating_add(every_ns));
        }
    }

    fn on_rules(&mut self, slot: usize, body: &mut [u8], head: &Head, out: &mut dyn Publish) {
        let Ok(read) = meta::parse_metadata(body) else {
            self.stats.malformed += 1;
            return;
        };
        let instrument = &self.instruments[slot];
        for rules in read.iter().filter(|rules| rules.symbol == instrument.symbol) {
            let now = instrument.quanta(rules);
            let cell = &mut self.cells[slot];
            let is_known = cell.rules.replace(now) == Some(now);
            let (status, [tick, lot, notional]) = now;
            cell.status = status;
            self.stats.rule_changes += u64::from(!is_known);
            // Told at every reading: nobody trades on rules that nobody has read for long.
            self.books.rules(slot, status, tick, lot, notional);
            self.books.commit(head, out);
        }
        let (state, reason) = self.settled(slot);
        self.books.say_if_new(slot, state, reason, 0);
        self.books.commit(head, out);
    }

    fn audit(&mut self, slot: usize, now_ns: i64) {
        let cell = &self.cells[slot];
        if !self.options.audit || !cell.synced || !cell.auditor.is_due(now_ns) {
            return;
        }
        let path = wire::book_path(&self.instruments[slot].rest_symbol, wire::AUDIT_LEVELS);
        match self.desk.get(path, 1, Purpose::Audit(slot), now_ns, &mut self.stats) {
            Ok(_) => self.cells[slot].auditor.asked(now_ns),
            Err(later) => self.cells[slot].auditor.failed(later),
        }
    }
}

impl Machine for Coinbase {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn next_action(&mut self) -> Option<Action> {
        self.desk.next_action()
    }

    fn on_open(&mut self, conn: u32, now_ns: i64) {
        let Some(group) = self.find(conn) else { return };
        let of_group = &mut self.groups[group];
        of_group.link.open(now_ns);
        of_group.down_since_ns = None;
        let mut products: Vec<&str> = of_group
            .slots
            .clone()
            .map(|slot| self.instruments[slot].feed_symbol.as_str())
            .collect();
        products.dedup();
        // At once: a connection that stays silent for 5 s is closed.
        let at = self.sent.reserve(1, now_ns);
        self.desk.send_at(conn, wire::control("subscribe", "level2", &products), at);
        let at = self.sent.reserve(1, at);
        self.desk.send_at(conn, wire::control("subscribe", "heartbeats", &[]), at);
        for slot in of_group.slots.clone() {
            self.cells[slot].deadline_ns = at + self.options.first_message_ns_max;
        }
    }

    fn on_frame(&mut self, conn: u32, payload: &mut [u8], at: Stamps, out: &mut dyn Publish) {
        let Some(group) = self.find(conn) else { return };
        self.stats.frames += 1;
        self.stats.bytes += payload.len() as u64;
        let mut head = Head { conn, venue_ts_ns: 0, at };
        let link = &mut self.groups[group].link;
        let paused = self.options.lag_ns_max < at.recv_ns.saturating_sub(link.pulse.last_ns());
        if link.pulse.frame(at.recv_ns) || paused {
            link.lag.doubt(at.recv_ns);
        }
        let frame = match envelope(payload) {
            Ok(frame) => frame,
            Err(error) => return self.on_fault(group, Fault { error, slot: None }, &head, out),
        };
        head.venue_ts_ns = frame.time_ns;
        let sequence = frame.sequence.unwrap_or(0);
        match frame.sequence.map(|number| self.groups[group].sequence.on_frame(number)) {
            Some(OnFrame::Old) => {
                self.stats.duplicates += 1;
                return;
            }
            Some(OnFrame::Gap { .. }) => {
                self.stats.gaps += 1;
                return self.break_link(group, Reason::SequenceGap, at.recv_ns, out);
            }
            Some(OnFrame::Rewind) => {
                self.stats.rewinds += 1;
                return self.break_link(group, Reason::SequenceRewind, at.recv_ns, out);
            }
            // A frame without a number could hide one that is missing.
            None if frame.channel == Channel::Level2 => {
                let error = crate::error::DecodeError::Missing("sequence_num");
                return self.on_fault(group, Fault { error, slot: None }, &head, out);
            }
            Some(OnFrame::Next) | None => {}
        }
        if paused {
            self.doubt_group(group, Reason::Lag, &head, out);
        }
        let (channel, time_ns) = (frame.channel, frame.time_ns);
        if 0 < time_ns && matches!(channel, Channel::Level2 | Channel::Heartbeats) {
            let max_ns = self.options.lag_ns_max;
            let lag = &mut self.groups[group].link.lag;
            match lag.on_message(time_ns, at.recv_ns, max_ns) {
                LagChange::Late => {
                    self.stats.lags += 1;
                    self.stats.clock_steps += u64::from(lag.is_step(at.recv_ns));
                    self.doubt_group(group, Reason::Lag, &head, out);
                }
                LagChange::Caught => self.settle_group(group, &head, out),
                LagChange::None => {}
            }
        }
        if let Err(fault) = frame.events(&self.symbols, &self.scales, &mut self.events) {
            return self.on_fault(group, fault, &head, out);
        }
        match channel {
            Channel::Level2 => {
                self.groups[group].link.book_ns = at.recv_ns;
                self.on_books(sequence, &head, out);
            }
            Channel::Heartbeats => self.on_heartbeat(group),
            // The list is the connection's whole state; a snapshot is what counts, and it may come first.
            Channel::Subscriptions => {
                for slot in self.events.subscribed.drain(..) {
                    if self.books.state(slot).0 == BookState::Init {
                        self.books.say_if_new(slot, BookState::Syncing, Reason::None, 0);
                    }
                }
                self.books.commit(&head, out);
            }
            Channel::Error => self.stats.refused += 1,
            Channel::Other => self.stats.unknown += 1,
        }
    }

    fn on_pong(&mut self, _conn: u32, _now_ns: i64) {
        // A pong proves the socket, not the stream: frames alone end a silence.
    }

    fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, out: &mut dyn Publish) {
        // Any close, clean ones too: the official SDK never comes back from a 1000.
        if let Some(group) = self.find(conn) {
            self.replace_link(group, cause, Reason::Disconnect, now_ns, out);
        }
    }

    fn on_reply(&mut self, request: u32, reply: Reply<'_>, at: Stamps, out: &mut dyn Publish) {
        let Some(purpose) = self.desk.take(request) else { return };
        let slot = purpose.slot();
        let conn = self.groups[self.cells[slot].group].link.conn;
        let head = Head { conn, venue_ts_ns: 0, at };
        match self.desk.judge(reply, at.recv_ns, &mut self.stats) {
            Ok(body) => match purpose {
                Purpose::Audit(_) => self.on_audit(slot, body, &head, out),
                Purpose::Fallback(_) => self.on_fallback(slot, body, &head, out),
                Purpose::Rules(_) => self.on_rules(slot, body, &head, out),
                Purpose::Snapshot(_) | Purpose::Probe(_) => {}
            },
            Err(refusal) => {
                let cell = &mut self.cells[slot];
                let again = match refusal {
                    Refusal::Later(until) => until,
                    Refusal::Trouble => at.recv_ns + SECOND.max(cell.backoff.next_ns(0)),
                    Refusal::Unknown => at.recv_ns + UNKNOWN_NS,
                };
                match purpose {
                    Purpose::Audit(_) => cell.auditor.failed(again),
                    Purpose::Fallback(_) => cell.fallback_at_ns = again,
                    Purpose::Rules(_) => cell.rules_at_ns = again,
                    Purpose::Snapshot(_) | Purpose::Probe(_) => {}
                }
            }
        }
    }

    fn on_timer(&mut self, now_ns: i64, out: &mut dyn Publish) {
        for group in 0..self.groups.len() {
            self.group_timer(group, now_ns, out);
        }
        for slot in 0..self.cells.len() {
            self.audit(slot, now_ns);
            self.fetch_rules(slot, now_ns);
        }
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
        self.groups[self.cells[slot].group].link.book_ns
    }

    fn doubt(&mut self, slot: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish) {
        let group = &self.groups[self.cells[slot].group];
        let head = Head::at(now_ns, group.link.conn);
        // Aliases are one book in the stream: all of them begin anew with the first.
        let feed = &self.instruments[slot].feed_symbol;
        let mut same = group.slots.clone().filter(|s| self.instruments[*s].feed_symbol == *feed);
        let first = same.next().unwrap_or(slot);
        let is_down = group.link.open_ns.is_none();
        self.doubt_aliases(first, reason, &head, out);
        // What is not connected begins anew anyway.
        if !is_down && self.cells[first].synced {
            self.resubscribe(first, now_ns);
        }
    }

    fn take_dirty(&mut self) -> Option<usize> {
        self.books.take_dirty()
    }

    fn stats(&self) -> &MachineStats {
        &self.stats
    }
}

/// A share of a rate, at least one thousandth.
fn share(milli: u32, ppm: u32) -> u32 {
    ((u64::from(milli) * u64::from(ppm) / 1_000_000) as u32).max(1)
}

/// Brings levels to other exponents, exactly or not at all.
fn rescale(levels: &[Update], from: Scale, to: Scale, out: &mut Vec<Update>) -> bool {
    out.clear();
    levels.iter().all(|update| {
        let px = requantize(update.px.0, from.px, to.px);
        let qty = requantize(update.qty.0, from.qty, to.qty);
        px.zip(qty)
            .map(|(px, qty)| out.push(Update { side: update.side, px: Px(px), qty: Qty(qty) }))
            .is_some()
    })
}

fn requantize(quanta: i64, from: u8, to: u8) -> Option<i64> {
    if from <= to {
        return quanta.checked_mul(pow10(to - from));
    }
    let divisor = pow10(from - to);
    (quanta % divisor == 0).then_some(quanta / divisor)
}
