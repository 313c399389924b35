//! Kraken spot market data (WebSocket v2): `book` with its checksum, `instrument`, `status`.
//!
//! Invariant: a book is `Live` only while every message's CRC-32 matched, its connection is neither silent
//! nor late, the venue and the pair are online, and the book is not crossed after a whole message. A
//! mismatch costs that symbol alone: it is doubted, unsubscribed and subscribed again.
//!
//! Levels beyond the subscribed depth are cut after each message, as the venue does without a word.
//!
//! What the venue dictates is in `wire`; sections named here are of the protocol sheet.

pub mod decode;
pub mod meta;
pub mod sync;
pub mod wire;

use std::ops::Range;

use tandem_core::book::Book;
use tandem_core::record::{BookState, Reason, TradingStatus, Venue, flag};
use tandem_core::units::parse_decimal;

use self::decode::{Event, Messages, Pair, Part, ReplyTo, decode, decode_book};
use self::sync::Digits;
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

/// Depths that the venue offers.
const DEPTHS: [u32; 5] = [10, 25, 100, 500, 1_000];

/// After a refused subscription: asking faster does not help.
const REFUSED_NS: i64 = 30 * SECOND;

/// After `Exceeded msg rate`.
const FLOOD_NS: i64 = 5 * SECOND;

/// The symbols of one connection.
#[derive(Debug)]
struct Group {
    slots: Range<usize>,
    link: Link,
    backoff: Backoff,
    down_since_ns: Option<i64>,
}

/// One pair.
#[derive(Debug)]
struct Cell {
    group: usize,
    /// A snapshot came, and every checksum since was right.
    synced: bool,
    digits: Option<Digits>,
    status: TradingStatus,
    /// Tick, lot and smallest notional as they were last published.
    rules: Option<(TradingStatus, [i64; 3])>,
    backoff: Backoff,
    live_since_ns: i64,
    /// When to subscribe again if no snapshot came.
    deadline_ns: i64,
    fallback_at_ns: i64,
}

/// The machine. See [`Machine`].
#[derive(Debug)]
pub struct Kraken {
    options: Options,
    /// When rules are said again.
    rules_at_ns: i64,
    depth: u32,
    instruments: Vec<VenueInstrument>,
    symbols: Symbols,
    scales: Vec<Scale>,
    books: Books,
    desk: Desk,
    stats: MachineStats,
    groups: Vec<Group>,
    cells: Vec<Cell>,
    messages: Messages,
    levels: [Vec<Update>; 2],
    status: TradingStatus,
    next_req: u64,
}

impl Kraken {
    /// Returns a machine that will ask for its first connections at `now_ns`.
    #[must_use]
    pub fn new(instruments: Vec<VenueInstrument>, options: Options, now_ns: i64) -> Kraken {
        assert!(instruments.iter().all(|i| i.venue == Venue::Kraken), "instruments of this venue");
        // The next depth that the venue has.
        let depth = DEPTHS.into_iter().find(|depth| options.depth <= *depth).unwrap_or(1_000);
        // Room for a whole message before the cut: a side cannot grow by more than the levels of one.
        let capacity = options.capacity.max(depth as usize * 2);
        let rest = Budget::bucket(
            share(wire::REST_PER_SECOND_MILLI, options.rest_part_ppm()),
            options.part(2),
        );
        let mut machine = Kraken {
            symbols: Symbols::new(instruments.iter().map(|i| i.feed_symbol.as_str())),
            scales: instruments
                .iter()
                .map(|i| Scale { px: i.px_exponent, qty: i.qty_exponent })
                .collect(),
            books: Books::new(Venue::Kraken, &instruments, options.window, capacity),
            desk: Desk::new(
                Budget::bucket(options.part(wire::CONNECTS_PER_SECOND_MILLI), options.part(10)),
                rest,
            ),
            stats: MachineStats::default(),
            groups: Vec::new(),
            cells: Vec::new(),
            messages: Messages::default(),
            levels: Default::default(),
            // Until the venue says otherwise, which it does on every connection at once.
            status: TradingStatus::Trading,
            next_req: 1,
            depth,
            instruments,
            rules_at_ns: now_ns.saturating_add(options.rules_every_ns),
            options,
        };
        machine.populate(now_ns);
        machine
    }

    fn populate(&mut self, now_ns: i64) {
        let per_conn = self.options.per_conn.max(1);
        for (idx, instrument) in self.instruments.iter().enumerate() {
            let seed = self.options.seed ^ (idx as u64 + 1) << 20;
            self.cells.push(Cell {
                group: idx / per_conn,
                synced: false,
                digits: digits(instrument, None),
                status: instrument.status,
                rules: None,
                backoff: Backoff::new(SECOND / 4, 30 * SECOND, 60 * SECOND, seed),
                live_since_ns: now_ns,
                deadline_ns: i64::MAX,
                fallback_at_ns: now_ns,
            });
        }
        for start in (0..self.cells.len()).step_by(per_conn) {
            let seed = self.options.seed.wrapping_add(start as u64);
            let link = self.desk.connect(wire::STREAM_PATH, now_ns, control_budget());
            self.stats.connects += 1;
            self.groups.push(Group {
                slots: start..(start + per_conn).min(self.cells.len()),
                link,
                backoff: Backoff::new(SECOND / 10, 30 * SECOND, 60 * SECOND, seed),
                down_since_ns: Some(now_ns),
            });
        }
    }

    fn find(&self, conn: u32) -> Option<usize> {
        self.groups.iter().position(|group| group.link.conn == conn)
    }

    /// What a slot's book is, by all we know.
    fn settled(&self, slot: usize) -> (BookState, Reason) {
        let cell = &self.cells[slot];
        let link = &self.groups[cell.group].link;
        let trading = TradingStatus::Trading;
        if !cell.synced {
            self.books.state(slot)
        } else if link.pulse.is_probed() {
            (BookState::Stale, Reason::Silence)
        } else if link.lag.is_late() {
            (BookState::Stale, Reason::Lag)
        } else if self.status != trading || cell.status != trading {
            (BookState::Stale, Reason::Halted)
        } else {
            (BookState::Live, Reason::None)
        }
    }

    fn settle(&mut self, slot: usize, head: &Head, out: &mut dyn Publish) {
        let (state, reason) = self.settled(slot);
        self.books.say_if_new(slot, state, reason, 0);
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
            if self.cells[slot].synced {
                self.books.doubt(slot, (BookState::Stale, reason), head, out);
            }
        }
    }

    /// Has a doubted book begin anew: its symbol alone is unsubscribed and subscribed again.
    fn resubscribe(&mut self, slot: usize, now_ns: i64) {
        self.stats.resyncs += 1;
        let cell = &mut self.cells[slot];
        cell.synced = false;
        let wait = cell.backoff.next_ns(now_ns - cell.live_since_ns);
        let link = &mut self.groups[cell.group].link;
        let symbol = self.instruments[slot].symbol.as_str();
        let (depth, req) = (self.depth, self.next_req);
        self.next_req += 2;
        let text = wire::book("unsubscribe", &[symbol], depth, req);
        let at = self.desk.send(link, text, now_ns + wait);
        let text = wire::book("subscribe", &[symbol], depth, req + 1);
        let at = self.desk.send(link, text, at);
        cell.deadline_ns = at + self.options.first_message_ns_max;
    }

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
        of_group.link = self.desk.connect(wire::STREAM_PATH, at, control_budget());
        of_group.link.lag = lag;
        of_group.down_since_ns.get_or_insert(now_ns);
        self.stats.connects += 1;
    }

    fn break_link(&mut self, group: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish) {
        self.desk.close(self.groups[group].link.conn, true);
        self.replace_link(group, CloseCause::Local, reason, now_ns, out);
    }

    fn on_fault(&mut self, group: usize, fault: Fault, head: &Head, out: &mut dyn Publish) {
        self.stats.malformed += 1;
        match fault.slot {
            Some(slot) => {
                self.books.doubt(slot, (BookState::Stale, fault.reason()), head, out);
                self.resubscribe(slot, head.at.recv_ns);
            }
            // It may have been anybody's.
            None => self.break_link(group, Reason::Malformed, head.at.recv_ns, out),
        }
    }

    /// Applies one book of a message and judges it; what it may say is in the batch then.
    fn on_part(&mut self, snapshot: bool, part: &Part, head: &Head) {
        let slot = part.slot;
        if snapshot {
            self.stats.snapshots += 1;
            self.books.replace(slot, self.messages.levels_mut(part), None);
        } else if self.cells[slot].synced {
            for update in self.messages.levels(part) {
                self.books.set(slot, *update, 0);
            }
        } else {
            return;
        }
        self.stats.applied += 1;
        if snapshot {
            // Nothing of it is shown yet.
            self.books.truncate_quietly(slot, self.depth as usize);
        } else {
            self.books.truncate(slot, self.depth as usize, 0);
        }
        let cell = &mut self.cells[slot];
        let book = self.books.book(slot);
        let right = cell.digits.and_then(|digits| digits.checksum(book)) == Some(part.checksum);
        let crossed = book.is_crossed_or_locked();
        self.stats.checksum_ok += u64::from(right);
        self.stats.checksum_bad += u64::from(!right);
        self.stats.crossed += u64::from(right && crossed);
        if !right || crossed {
            let reason = if right { Reason::Crossed } else { Reason::Checksum };
            self.books.doubt_in_batch(slot, (BookState::Stale, reason));
            return self.resubscribe(slot, head.at.recv_ns);
        }
        if snapshot {
            cell.synced = true;
            cell.deadline_ns = i64::MAX;
            cell.live_since_ns = head.at.recv_ns;
        }
        // Each book of a message has its own time; a snapshot's is that of the book's last change.
        let own = Head { venue_ts_ns: part.time_ns, ..*head };
        self.books.set_position(slot, 0, &own);
        let (state, reason) = self.settled(slot);
        if snapshot {
            self.books.show_snapshot(slot, 0, (state, reason), 0);
        } else {
            self.books.refill(slot, 0);
            self.books.say_if_new(slot, state, reason, 0);
        }
    }

    fn on_books(&mut self, group: usize, snapshot: bool, mut head: Head, out: &mut dyn Publish) {
        let max_ns = self.options.lag_ns_max;
        self.groups[group].link.book_ns = head.at.recv_ns;
        for idx in 0..self.messages.parts.len() {
            let part = self.messages.parts[idx];
            // A snapshot's time is when the book last changed, which may be long ago.
            if snapshot || part.time_ns == 0 {
                continue;
            }
            head.venue_ts_ns = part.time_ns;
            let lag = &mut self.groups[group].link.lag;
            match lag.on_message(part.time_ns, head.at.recv_ns, max_ns) {
                LagChange::Late => {
                    self.stats.lags += 1;
                    self.stats.clock_steps += u64::from(lag.is_step(head.at.recv_ns));
                    self.doubt_group(group, Reason::Lag, &head, out);
                }
                LagChange::Caught => self.settle_group(group, &head, out),
                LagChange::None => {}
            }
        }
        for idx in 0..self.messages.parts.len() {
            let part = self.messages.parts[idx];
            if self.cells[part.slot].group == group {
                self.on_part(snapshot, &part, &head);
            }
        }
        self.books.commit(&head, out);
    }

    fn on_status(&mut self, status: TradingStatus, head: &Head, out: &mut dyn Publish) {
        if status != TradingStatus::Trading {
            // Doubt first, then the reason.
            self.status = status;
            for group in 0..self.groups.len() {
                self.doubt_group(group, Reason::Halted, head, out);
            }
        }
        self.status = status;
        self.books.venue_status(status);
        self.books.commit(head, out);
        for group in 0..self.groups.len() {
            self.settle_group(group, head, out);
        }
    }

    fn on_pairs(&mut self, head: &Head, out: &mut dyn Publish) {
        let pairs = std::mem::take(&mut self.messages.pairs);
        for pair in &pairs {
            self.on_pair(pair, head, out);
        }
        self.messages.pairs = pairs;
    }

    fn on_pair(&mut self, pair: &Pair, head: &Head, out: &mut dyn Publish) {
        let slot = pair.slot;
        let instrument = &self.instruments[slot];
        let quanta = |text: &Option<Box<[u8]>>, exponent: u8| match text {
            None => Some(0),
            Some(text) => parse_decimal(text, exponent).ok(),
        };
        let tick = quanta(&pair.tick, instrument.px_exponent);
        let lot = quanta(&pair.lot, instrument.qty_exponent);
        // Coarser quanta than the limit's: the limit we started with stands.
        let notional = quanta(&pair.notional_min, instrument.notional_exponent)
            .filter(|quanta| 0 < *quanta)
            .unwrap_or(instrument.notional_min);
        let precisions = pair.price_precision.zip(pair.qty_precision);
        let fitting = digits(instrument, precisions);
        // Finer than our quanta: this run cannot trade the pair any more.
        let fits = fitting.is_some() && tick.is_some() && lot.is_some();
        let status = if fits { pair.status } else { TradingStatus::Halted };
        let rules = (status, [tick.unwrap_or(0), lot.unwrap_or(0), notional]);
        let cell = &mut self.cells[slot];
        let other_digits = cell.digits != fitting;
        cell.digits = fitting;
        cell.status = status;
        if cell.rules.replace(rules) != Some(rules) {
            self.stats.rule_changes += 1;
            let [tick, lot, notional] = rules.1;
            self.books.rules(slot, status, tick, lot, notional);
            self.books.commit(head, out);
        }
        if other_digits && self.cells[slot].synced {
            self.books.doubt(slot, (BookState::Stale, Reason::Bounds), head, out);
            self.resubscribe(slot, head.at.recv_ns);
        }
        self.settle(slot, head, out);
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
        self.books.replace(slot, bids, Some(self.depth as usize));
        self.books.set_position(slot, 0, head);
        let state = (BookState::Fallback, Reason::Disconnect);
        self.books.show_snapshot(slot, 0, state, flag::FALLBACK);
        self.books.commit(head, out);
    }

    /// Says again what the instrument channel said: it tells changes only, and while its connection lives
    /// the last word stands. Nobody trades on rules that nobody vouches for.
    fn repeat_rules(&mut self, now_ns: i64, out: &mut dyn Publish) {
        if self.options.rules_every_ns == 0 || now_ns < self.rules_at_ns {
            return;
        }
        self.rules_at_ns = now_ns.saturating_add(self.options.rules_every_ns);
        for slot in 0..self.cells.len() {
            let link = &self.groups[self.cells[slot].group].link;
            if let (Some((status, [tick, lot, notional])), Some(_)) =
                (self.cells[slot].rules, link.open_ns)
            {
                let head = Head::at(now_ns, link.conn);
                self.books.rules(slot, status, tick, lot, notional);
                self.books.commit(&head, out);
            }
        }
    }

    fn group_timer(&mut self, group: usize, now_ns: i64, out: &mut dyn Publish) {
        let options = &self.options;
        let link = &mut self.groups[group].link;
        if link.open_ns.is_none() {
            return self.fallback(group, now_ns);
        }
        let head = Head::at(now_ns, link.conn);
        let beat = link.pulse.beat(now_ns, options.beat_every_ns);
        let silence = link.pulse.silence(now_ns, options.silence_ns_max, options.probe_ns_max);
        let hopeless = link.lag.is_hopeless(now_ns, options.lag_patience_ns);
        if let Some((last_ns, frames)) = beat {
            self.books.beat(last_ns, frames);
            self.books.commit(&head, out);
        }
        match silence {
            Silence::Began => {
                // A heartbeat comes every second when nothing else does: silence is no quiet market.
                self.stats.silences += 1;
                self.doubt_group(group, Reason::Silence, &head, out);
                let link = &mut self.groups[group].link;
                self.desk.send(link, wire::ping(self.next_req), now_ns);
                self.next_req += 1;
            }
            Silence::Dead => return self.break_link(group, Reason::Silence, now_ns, out),
            Silence::None | Silence::Lasts => {}
        }
        if hopeless {
            return self.break_link(group, Reason::Lag, now_ns, out);
        }
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
            let path = wire::depth_path(&self.instruments[slot].rest_symbol, self.depth);
            let asked = self.desk.get(path, 1, purpose, now_ns, &mut self.stats);
            self.cells[slot].fallback_at_ns =
                asked.err().unwrap_or(now_ns + self.options.fallback_every_ns);
        }
    }
}

impl Machine for Kraken {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    fn next_action(&mut self) -> Option<Action> {
        self.desk.next_action()
    }

    fn on_open(&mut self, conn: u32, now_ns: i64) {
        let Some(group) = self.find(conn) else { return };
        let of_group = &mut self.groups[group];
        of_group.link.open(now_ns);
        of_group.down_since_ns = None;
        let slots = of_group.slots.clone();
        self.desk.send(&mut of_group.link, wire::instrument(self.next_req), now_ns);
        self.next_req += 1;
        let mut at = now_ns;
        for start in slots.clone().step_by(wire::SYMBOLS_MAX) {
            let end = (start + wire::SYMBOLS_MAX).min(slots.end);
            let names: Vec<&str> =
                self.instruments[start..end].iter().map(|i| i.symbol.as_str()).collect();
            let text = wire::book("subscribe", &names, self.depth, self.next_req);
            self.next_req += 1;
            at = self.desk.send(&mut of_group.link, text, now_ns);
        }
        for slot in slots {
            self.cells[slot].deadline_ns = at + self.options.first_message_ns_max;
        }
    }

    fn on_frame(&mut self, conn: u32, payload: &mut [u8], at: Stamps, out: &mut dyn Publish) {
        let Some(group) = self.find(conn) else { return };
        self.stats.frames += 1;
        self.stats.bytes += payload.len() as u64;
        let head = Head { conn, venue_ts_ns: 0, at };
        let event = match decode(payload, &self.symbols, &self.scales, &mut self.messages) {
            Ok(event) => event,
            Err(fault) => return self.on_fault(group, fault, &head, out),
        };
        // A pong answers our probe; it does not show that the stream flows.
        if !matches!(event, Event::Reply { what: ReplyTo::Ping, .. }) {
            let link = &mut self.groups[group].link;
            // A quiet connection has a heartbeat a second, without a time in it: that is no pause.
            let pause_ns = self.options.lag_ns_max.saturating_add(wire::HEARTBEAT_NS);
            let paused = pause_ns < at.recv_ns.saturating_sub(link.pulse.last_ns());
            if link.pulse.frame(at.recv_ns) || paused {
                link.lag.doubt(at.recv_ns);
            }
            if paused {
                self.doubt_group(group, Reason::Lag, &head, out);
            }
        }
        match event {
            Event::Book { snapshot } => self.on_books(group, snapshot, head, out),
            Event::Heartbeat => {}
            Event::Status(status) => self.on_status(status, &head, out),
            Event::Instrument => self.on_pairs(&head, out),
            Event::Reply { what: ReplyTo::Subscribe, success, slot: Some(slot) } => {
                if success {
                    if self.books.state(slot).0 == BookState::Init {
                        self.books.say_if_new(slot, BookState::Syncing, Reason::None, 0);
                        self.books.commit(&head, out);
                    }
                } else {
                    self.stats.refused += 1;
                    self.cells[slot].deadline_ns = at.recv_ns + REFUSED_NS;
                }
            }
            Event::Reply { success, .. } => self.stats.refused += u64::from(!success),
            Event::TooFast => {
                self.stats.refused += 1;
                self.groups[group].link.sent.block_until(at.recv_ns + FLOOD_NS);
            }
            Event::Other => self.stats.unknown += 1,
        }
    }

    fn on_pong(&mut self, _conn: u32, _now_ns: i64) {
        // As with the venue's own pong: it proves the socket, not the stream.
    }

    fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, out: &mut dyn Publish) {
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
            Ok(body) => self.on_fallback(slot, body, &head, out),
            Err(refusal) => {
                let cell = &mut self.cells[slot];
                cell.fallback_at_ns = match refusal {
                    Refusal::Later(until) => until,
                    Refusal::Trouble => at.recv_ns + SECOND.max(cell.backoff.next_ns(0)),
                    Refusal::Unknown => at.recv_ns + REFUSED_NS,
                };
            }
        }
    }

    fn on_timer(&mut self, now_ns: i64, out: &mut dyn Publish) {
        for group in 0..self.groups.len() {
            self.group_timer(group, now_ns, out);
        }
        self.repeat_rules(now_ns, out);
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
        let link = &self.groups[self.cells[slot].group].link;
        let (head, is_down) = (Head::at(now_ns, link.conn), link.open_ns.is_none());
        self.books.doubt(slot, (BookState::Stale, reason), &head, out);
        // What is not connected begins anew anyway.
        if !is_down && self.cells[slot].synced {
            self.resubscribe(slot, now_ns);
        }
    }

    fn take_dirty(&mut self) -> Option<usize> {
        self.books.take_dirty()
    }

    fn stats(&self) -> &MachineStats {
        &self.stats
    }
}

fn control_budget() -> Budget {
    Budget::bucket(wire::SENT_PER_SECOND_MILLI, 3)
}

/// A share of a rate, at least one thousandth.
fn share(milli: u32, ppm: u32) -> u32 {
    ((u64::from(milli) * u64::from(ppm) / 1_000_000) as u32).max(1)
}

fn digits(instrument: &VenueInstrument, precisions: Option<(u8, u8)>) -> Option<Digits> {
    let known = (instrument.price_precision, instrument.qty_precision);
    let exponents = (instrument.px_exponent, instrument.qty_exponent);
    Digits::new(exponents, precisions.unwrap_or(known))
}
