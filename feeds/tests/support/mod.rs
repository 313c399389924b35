//! Three small venues in one process, a clock that is a number, and faults from a seed.
//!
//! The fault model: frames are dropped, repeated, cut short or damaged; connections end, are refused, fall
//! silent or late; REST answers late, with errors, with older books or with pages of HTML. What a venue
//! promises (order within a connection, TLS against flipped digits where no checksum is) holds.
//!
//! After every batch the engine's view, rebuilt from records alone, is compared with what the venue's
//! book really was. A book that is `Live` and wrong fails the test, whatever happened before.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod binance;
pub mod coinbase;
pub mod kraken;

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::record::{BookState, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Decimal, Side};
use tandem_feeds::machine::{Action, CloseCause, Machine, Reply, Stamps};
use tandem_feeds::net::backoff::Random;
use tandem_feeds::publish::{Mirror, NO_INSTRUMENT};
use tandem_feeds::spec::VenueInstrument;

pub const MS: i64 = 1_000_000;
pub const SECOND: i64 = 1_000 * MS;
/// 2026-11-22, on a minute.
pub const START: i64 = 1_795_305_600 * SECOND;

/// A venue's true book: price and quantity in quanta.
pub type Sides = [BTreeMap<i64, i64>; 2];

pub fn instrument(venue: Venue, id: u16, symbol: &str, scale: (u8, u8)) -> VenueInstrument {
    VenueInstrument {
        id,
        venue,
        symbol: symbol.into(),
        feed_symbol: symbol.into(),
        rest_symbol: symbol.into(),
        px_exponent: scale.0,
        qty_exponent: scale.1,
        notional_exponent: 8,
        price_precision: scale.0,
        qty_precision: scale.1,
        notional_min: 0,
        status: TradingStatus::Trading,
    }
}

/// A book that moves.
#[derive(Clone)]
pub struct Market {
    pub sides: Sides,
    mid: i64,
}

impl Market {
    pub fn new(random: &mut Random, levels: i64) -> Market {
        let mut market = Market { sides: Sides::default(), mid: 100_000 };
        for n in 1..=levels {
            market.sides[0].insert(100_000 - n, 1 + random.up_to(999) as i64);
            market.sides[1].insert(100_000 + n, 1 + random.up_to(999) as i64);
        }
        market
    }

    /// Changes one level; returns it.
    pub fn change(&mut self, random: &mut Random) -> (Side, i64) {
        if random.up_to(30) == 0 {
            self.mid += random.up_to(6) as i64 - 3;
        }
        let side = if random.up_to(1) == 0 { Side::Bid } else { Side::Ask };
        let other = &self.sides[1 - side.idx()];
        let away = match random.up_to(9) {
            0..5 => random.up_to(4) as i64,
            _ => random.up_to(40) as i64,
        };
        let px = match side {
            Side::Bid => {
                (self.mid - away).min(other.first_key_value().map_or(i64::MAX, |(ask, _)| ask - 1))
            }
            Side::Ask => {
                (self.mid + 1 + away).max(other.last_key_value().map_or(0, |(bid, _)| bid + 1))
            }
        };
        let levels = &mut self.sides[side.idx()];
        if random.up_to(2) == 0 && 12 < levels.len() {
            // Often the best one goes, as when somebody takes it.
            let best = match side {
                Side::Bid => levels.last_key_value(),
                Side::Ask => levels.first_key_value(),
            };
            let px = best.map_or(px, |(best, _)| *best);
            levels.remove(&px);
            return (side, px);
        }
        levels.insert(px, 1 + random.up_to(9_999) as i64);
        (side, px)
    }

    pub fn best(&self) -> [Option<(i64, i64)>; 2] {
        let pair = |(px, qty): (&i64, &i64)| (*px, *qty);
        [self.sides[0].last_key_value().map(pair), self.sides[1].first_key_value().map(pair)]
    }
}

/// Levels best first.
pub fn ladder(sides: &Sides, side: Side) -> Vec<(i64, i64)> {
    let levels = sides[side.idx()].iter().map(|(px, qty)| (*px, *qty));
    match side {
        Side::Bid => levels.rev().collect(),
        Side::Ask => levels.collect(),
    }
}

/// Decimal text with all digits of the exponent.
pub fn padded(quanta: i64, exponent: u8) -> String {
    let scale = 10i64.pow(u32::from(exponent));
    if exponent == 0 {
        return quanta.to_string();
    }
    format!("{}.{:0width$}", quanta / scale, quanta % scale, width = usize::from(exponent))
}

pub fn plain(quanta: i64, exponent: u8) -> String {
    Decimal { quanta, exponent }.to_string()
}

/// Whether a message changes a book; a snapshot is none.
fn is_book(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let marks = ["l2_data", "\"channel\":\"book\"", "depthUpdate", "bookTicker"];
    marks.iter().any(|mark| text.contains(mark)) && !text.contains("snapshot")
}

/// Changes one digit of one quantity of a book message; whether there was one.
pub fn alter(bytes: &mut [u8], pick: u64) -> bool {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let marks = ["\"qty\":", "\"new_quantity\":\"", "\"B\":\"", "\"A\":\"", "\",\""];
    if !is_book(bytes) {
        return false;
    }
    let mut digits = Vec::new();
    for mark in marks {
        for (at, _) in text.match_indices(mark) {
            let rest = &text[at + mark.len()..];
            let len = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(0);
            let ends = rest[len..].starts_with(['"', '}', ',']);
            let of = (at + mark.len()..at + mark.len() + len).filter(|_| ends);
            digits.extend(of.filter(|at| text.as_bytes()[*at].is_ascii_digit()));
        }
    }
    let Some(at) = digits.get(pick as usize % digits.len().max(1)) else { return false };
    bytes[*at] = if bytes[*at] == b'9' { b'1' } else { bytes[*at] + 1 };
    true
}

/// A venue's side of the wire.
pub trait Fake {
    fn opened(&mut self, conn: u32, now: i64) -> Vec<String>;
    fn text(&mut self, conn: u32, text: &str, now: i64) -> Vec<String>;
    fn get(&mut self, path: &str, now: i64) -> (u16, String);
    fn step(&mut self, now: i64) -> Vec<(u32, String)>;
    fn closed(&mut self, conn: u32);
    /// Whether the market stands still.
    fn set_quiet(&mut self, quiet: bool);
    /// Says what is wrong with a live book.
    fn check(&mut self, machine: &dyn Machine, slot: usize, mirror: &Mirror) -> Result<(), String>;
    /// Whether digits may be damaged without the frame becoming unreadable.
    fn has_checksum(&self) -> bool;
}

/// How often what goes wrong, in parts per million.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub drop: u64,
    pub repeat: u64,
    pub cut: u64,
    pub flip: u64,
    pub close: u64,
    pub refuse: u64,
    pub rest_error: u64,
    /// A connection falls silent for some seconds though it is open.
    pub mute: u64,
    /// A connection's frames come some seconds late.
    pub late: u64,
    /// Two redundant connections alone: a digit of a quantity is another one.
    pub alter: u64,
    /// Two frames change places.
    pub swap: u64,
}

impl Faults {
    pub const ALL: Faults = Faults {
        drop: 4_000,
        repeat: 4_000,
        cut: 1_500,
        flip: 1_500,
        close: 300,
        refuse: 300_000,
        rest_error: 300_000,
        mute: 300,
        late: 300,
        alter: 0,
        swap: 0,
    };
}

enum Due {
    Open(u32),
    Refused(u32),
    Close(u32, CloseCause),
    Text(u32, String),
    Reply(u32, String),
    Frame(u32, Vec<u8>),
}

pub struct World<F> {
    pub machine: Box<dyn Machine>,
    pub fake: F,
    pub now: i64,
    pub faults: Faults,
    pub mirrors: Vec<Mirror>,
    pub records: Vec<Record>,
    pub keep_records: bool,
    pub live_ns: Vec<i64>,
    pub sent: Vec<(i64, u32, String)>,
    pub asked: Vec<(i64, String)>,
    pub connects: Vec<i64>,
    /// When each connection was opened.
    pub opened: BTreeMap<u32, i64>,
    random: Random,
    due: BTreeMap<(i64, u64), Due>,
    order: u64,
    open: BTreeSet<u32>,
    muted_until: BTreeMap<u32, i64>,
    late_by: BTreeMap<u32, i64>,
    last_arrival: BTreeMap<u32, i64>,
    unwhole: bool,
    last_timer: i64,
    /// Frames come up to this much late, each connection by itself.
    pub jitter_ns: i64,
    /// Until when a frame that was altered may be unseen: one fault at a time, because a lie while the
    /// other connection is away cannot be told from the truth.
    altered_until: i64,
    /// When something else last went wrong.
    faulty_ns: i64,
    /// Frames altered.
    pub altered: u64,
    /// What becomes of the next book message of a connection that has this in it.
    pub tamper: Option<(u32, &'static str, Tamper)>,
}

/// What one message suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    Alter,
    Drop,
    Repeat,
    Swap,
}

impl<F: Fake> World<F> {
    pub fn new(machine: Box<dyn Machine>, fake: F, window: usize, seed: u64) -> World<F> {
        let count = machine.instruments().len();
        World {
            mirrors: (0..count).map(|_| Mirror::new(window)).collect(),
            live_ns: vec![0; count],
            machine,
            fake,
            now: START,
            faults: Faults::default(),
            records: Vec::new(),
            keep_records: false,
            sent: Vec::new(),
            asked: Vec::new(),
            connects: Vec::new(),
            opened: BTreeMap::new(),
            random: Random::new(seed),
            due: BTreeMap::new(),
            order: 0,
            open: BTreeSet::new(),
            muted_until: BTreeMap::new(),
            late_by: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            unwhole: false,
            last_timer: 0,
            jitter_ns: 0,
            altered_until: 0,
            faulty_ns: 0,
            altered: 0,
            tamper: None,
        }
    }

    pub fn run(&mut self, ns: i64) {
        let end = self.now + ns;
        while self.now < end {
            self.now += 5 * MS;
            self.actions();
            let frames = self.fake.step(self.now);
            for (conn, text) in frames {
                self.deliver(conn, text);
            }
            while let Some(entry) = self.due.first_entry() {
                if self.now < entry.key().0 {
                    break;
                }
                let due = entry.remove();
                self.happen(due);
                self.actions();
            }
            if 20 * MS <= self.now - self.last_timer {
                self.last_timer = self.now;
                let mut out = Vec::new();
                self.machine.on_timer(self.now, &mut out);
                self.take(out);
                self.actions();
            }
            for slot in 0..self.mirrors.len() {
                self.live_ns[slot] += if self.is_live(slot) { 5 * MS } else { 0 };
            }
        }
    }

    pub fn is_live(&self, slot: usize) -> bool {
        self.mirrors[slot].state.0 == BookState::Live
    }

    pub fn all_live(&self) -> bool {
        (0..self.mirrors.len()).all(|slot| self.is_live(slot))
    }

    pub fn open_conns(&self) -> Vec<u32> {
        self.open.iter().copied().collect()
    }

    pub fn mute(&mut self, conn: u32, ns: i64) {
        self.muted_until.insert(conn, self.now + ns);
    }

    pub fn delay(&mut self, conn: u32, ns: i64) {
        self.late_by.insert(conn, ns);
    }

    pub fn close(&mut self, conn: u32, cause: CloseCause) {
        self.at(self.now, Due::Close(conn, cause));
    }

    /// Gives the machine a frame that the venue did not send.
    pub fn inject(&mut self, conn: u32, text: &str) {
        self.happen(Due::Frame(conn, text.as_bytes().to_vec()));
        self.actions();
    }

    fn hit(&mut self, ppm: u64) -> bool {
        0 < ppm && self.random.up_to(999_999) < ppm
    }

    fn at(&mut self, time: i64, due: Due) {
        self.order += 1;
        self.due.insert((time, self.order), due);
    }

    fn actions(&mut self) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Connect { conn, not_before_ns, .. } => {
                    let time = not_before_ns.max(self.now) + 10 * MS;
                    self.connects.push(time);
                    let refuse = self.hit(self.faults.refuse);
                    self.at(time, if refuse { Due::Refused(conn) } else { Due::Open(conn) });
                }
                Action::Send { conn, text, not_before_ns } => {
                    self.at(not_before_ns.max(self.now) + 2 * MS, Due::Text(conn, text));
                }
                Action::Ping { .. } => {}
                Action::Close { conn, .. } => {
                    self.at(self.now, Due::Close(conn, CloseCause::Local));
                }
                Action::Get { request, path, not_before_ns } => {
                    let wait = 5 * MS + self.random.up_to(40) as i64 * MS;
                    self.at(not_before_ns.max(self.now) + wait, Due::Reply(request, path));
                }
            }
        }
    }

    /// Whether something else than an alteration goes wrong.
    fn strike(&mut self, ppm: u64) -> bool {
        let strikes = self.altered_until <= self.now && self.hit(ppm);
        if strikes {
            self.faulty_ns = self.now;
        }
        strikes
    }

    /// Whether both connections of every book are in order, and have been for long.
    fn is_whole(&self) -> bool {
        let in_order = |at: &i64| *at <= self.now - 6 * SECOND;
        self.machine.stats().standby_live == self.mirrors.len() as u64
            && self.all_live()
            && in_order(&self.faulty_ns)
            && self.late_by.values().all(|late| *late == 0)
            && self.muted_until.values().all(in_order)
    }

    fn deliver(&mut self, conn: u32, text: String) {
        if !self.open.contains(&conn) {
            return;
        }
        if self.strike(self.faults.close) {
            return self.at(self.now, Due::Close(conn, CloseCause::Reset));
        }
        if self.strike(self.faults.mute) {
            let ns = SECOND + self.random.up_to(9) as i64 * SECOND;
            self.mute(conn, ns);
        }
        if self.strike(self.faults.late) {
            let ns = self.random.up_to(4_000) as i64 * MS;
            self.delay(conn, ns);
        }
        if self.muted_until.get(&conn).is_some_and(|until| self.now < *until)
            || self.strike(self.faults.drop)
        {
            return;
        }
        let mut bytes = text.into_bytes();
        if self.strike(self.faults.cut) {
            bytes.truncate(self.random.up_to(bytes.len() as u64) as usize);
        }
        if self.fake.has_checksum() && self.strike(self.faults.flip) {
            let at = self.random.up_to(bytes.len() as u64 - 1) as usize;
            if bytes[at].is_ascii_digit() {
                bytes[at] = b'0' + self.random.up_to(9) as u8;
            }
        }
        if self.altered_until <= self.now && self.hit(self.faults.alter) && self.is_whole() {
            let pick = self.random.up_to(u64::from(u32::MAX));
            if alter(&mut bytes, pick) {
                self.altered += 1;
                self.altered_until = self.now + 6 * SECOND;
            }
        }
        let tampered = self.tamper.take_if(|(of, mark, _)| {
            *of == conn && is_book(&bytes) && String::from_utf8_lossy(&bytes).contains(*mark)
        });
        let tamper = tampered.map(|(.., tamper)| tamper);
        match tamper {
            Some(Tamper::Drop) => return,
            Some(Tamper::Alter) => {
                let pick = self.random.up_to(u64::from(u32::MAX));
                alter(&mut bytes, pick);
                self.altered += 1;
            }
            Some(Tamper::Repeat | Tamper::Swap) | None => {}
        }
        let jitter = match self.jitter_ns {
            0 => 0,
            most => self.random.up_to(most as u64) as i64,
        };
        let late = self.late_by.get(&conn).copied().unwrap_or(0) + jitter;
        // One connection delivers in order.
        let floor = self.last_arrival.get(&conn).copied().unwrap_or(0);
        let mut time = (self.now + 2 * MS + late).max(floor);
        self.last_arrival.insert(conn, time);
        if tamper == Some(Tamper::Swap) || self.strike(self.faults.swap) {
            // After whatever comes next.
            time += 60 * MS;
        }
        if tamper == Some(Tamper::Repeat) || self.strike(self.faults.repeat) {
            self.at(time, Due::Frame(conn, bytes.clone()));
        }
        self.at(time, Due::Frame(conn, bytes));
    }

    fn happen(&mut self, due: Due) {
        let mut out = Vec::new();
        let now = self.now;
        match due {
            Due::Open(conn) => {
                self.open.insert(conn);
                self.opened.insert(conn, now);
                self.machine.on_open(conn, now);
                for text in self.fake.opened(conn, now) {
                    self.deliver(conn, text);
                }
            }
            Due::Refused(conn) => {
                let cause = CloseCause::Refused { status: 503, retry_after_s: None };
                self.machine.on_close(conn, cause, now, &mut out);
            }
            Due::Close(conn, cause) => {
                if self.open.remove(&conn) {
                    self.fake.closed(conn);
                    self.machine.on_close(conn, cause, now, &mut out);
                }
            }
            Due::Text(conn, text) => {
                if self.open.contains(&conn) {
                    self.sent.push((now, conn, text.clone()));
                    for reply in self.fake.text(conn, &text, now) {
                        self.deliver(conn, reply);
                    }
                }
            }
            Due::Reply(request, path) => {
                self.asked.push((now, path.clone()));
                let stamps = Stamps { recv_ns: now, recv_tsc: 0, bytes: 0 };
                let answer = if self.hit(self.faults.rest_error) {
                    match self.random.up_to(4) {
                        0 => None,
                        1 => Some((429, String::new())),
                        2 => Some((403, "<html>denied</html>".to_owned())),
                        3 => Some((200, "<html>".to_owned())),
                        _ => Some((503, "{\"code\":-1000}".to_owned())),
                    }
                } else {
                    Some(self.fake.get(&path, now))
                };
                match answer {
                    None => self.machine.on_reply(request, Reply::Failed, stamps, &mut out),
                    Some((status, text)) => {
                        let mut body = text.into_bytes();
                        let reply = Reply::Answer {
                            status,
                            retry_after_s: (status == 429 || status == 403).then_some(1),
                            used_weight: None,
                            body: &mut body,
                        };
                        self.machine.on_reply(request, reply, stamps, &mut out);
                    }
                }
            }
            Due::Frame(conn, mut bytes) => {
                if self.open.contains(&conn) {
                    let stamps = Stamps { recv_ns: now, recv_tsc: 1, bytes: bytes.len() as u32 };
                    self.machine.on_frame(conn, &mut bytes, stamps, &mut out);
                }
            }
        }
        self.take(out);
    }

    /// Feeds the mirrors and checks every live book at the end of its batch.
    fn take(&mut self, out: Vec<Record>) {
        let mut touched = BTreeSet::new();
        for record in out {
            self.unwhole = !record.has(flag::LAST);
            if record.instrument != NO_INSTRUMENT {
                let slot = self
                    .machine
                    .instruments()
                    .iter()
                    .position(|instrument| instrument.id == record.instrument)
                    .expect("a record of our instrument");
                self.mirrors[slot].apply(&record);
                touched.insert(slot);
            }
            if self.keep_records {
                self.records.push(record);
            }
            if record.has(flag::LAST) && record.kind != 19 {
                // The machine may be several batches ahead of this record; judge states as they were.
                for slot in &touched {
                    let mirror = &self.mirrors[*slot];
                    assert!(
                        !(mirror.state.0 == BookState::Live && mirror.book.is_crossed_or_locked()),
                        "live and crossed"
                    );
                }
            }
        }
        assert!(!self.unwhole, "a batch without an end");
        for slot in touched {
            let mirror = &self.mirrors[slot];
            assert_eq!(mirror.state, self.machine.state(slot), "slot {slot}");
            if mirror.state.0 == BookState::Live {
                let shown = self.machine.shown(slot);
                for side in Side::BOTH {
                    let ours = self.machine.book(slot).levels(side).take(shown[side.idx()]);
                    assert!(mirror.book.levels(side).eq(ours), "the mirror differs from the book");
                }
                if let Err(error) = self.fake.check(&*self.machine, slot, mirror) {
                    panic!("slot {slot} at {} ms: {error}", (self.now - START) / MS);
                }
            }
        }
    }
}
