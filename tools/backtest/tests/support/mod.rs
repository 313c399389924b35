//! A made-up market on three venues, and plans over it.
#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../../../../core/tests/desk/mod.rs"]
pub mod desk;

use std::collections::{BTreeMap, VecDeque};

use desk::{BTC, Dice, LOT, MS, S, USD};
use tandem_backtest::config::{Competition, Latency, VenueModel};
use tandem_backtest::{Config, Outcome, Plan, Plant, Source, Told};
use tandem_core::instrument::AssetId;
use tandem_core::limits::Mode;
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Amount, Px, Qty, Side};

pub const START_NS: i64 = 1_767_225_600 * S;

/// Records in order.
pub struct Tape(VecDeque<Record>);

impl Tape {
    pub fn of(records: &[Record]) -> Tape {
        Tape(records.iter().copied().collect())
    }
}

impl Source for Tape {
    fn read(&mut self, to: &mut [Record]) -> Result<usize, String> {
        let count = self.0.len().min(to.len());
        to.iter_mut().zip(self.0.drain(..count)).for_each(|(slot, record)| *slot = record);
        Ok(count)
    }
}

/// One instrument's book as its venue shows it.
struct Shown {
    venue: Venue,
    id: u16,
    mid: i64,
    step: i64,
    levels: [BTreeMap<i64, i64>; 2],
    /// Away from the others, and until when.
    apart: i64,
    until_ns: i64,
    update_id: u64,
    /// Out of sync: the next quote is a snapshot.
    is_lost: bool,
}

impl Shown {
    fn state(&self, state: BookState, at_ns: i64) -> Record {
        Record {
            flags: flag::LAST,
            recv_ts_ns: at_ns,
            engine_ts_ns: at_ns,
            conn: 1 + self.venue as u32,
            ..Record::new(Kind::BookState, self.venue as u8, self.id, [state as i64, 0, 0, 0])
        }
    }

    /// What is to be displayed now, as changes.
    fn quote(&mut self, dice: &mut Dice, at_ns: i64, out: &mut Vec<Record>) {
        let mid = self.mid + self.apart;
        let mut wanted = [BTreeMap::new(), BTreeMap::new()];
        for rank in 1..=8 {
            let qty = (1 + dice.below(40)) * BTC / 100;
            wanted[0].insert(mid - self.step * rank, qty);
            wanted[1].insert(mid + self.step * rank, qty);
        }
        self.update_id += 1;
        let mut changes = Vec::new();
        for (side, wanted) in wanted.iter().enumerate() {
            let gone = self.levels[side].keys().filter(|px| !wanted.contains_key(px));
            changes.extend(gone.map(|px| (side, *px, 0)));
        }
        for (side, wanted) in wanted.iter().enumerate() {
            let new = wanted.iter().filter(|(px, qty)| self.levels[side].get(px) != Some(qty));
            changes.extend(new.map(|(px, qty)| (side, *px, *qty)));
        }
        let latency_ns = MS / 2 + dice.below(2 * MS);
        for (at, (side, px, qty)) in changes.iter().enumerate() {
            let side = [Side::Bid, Side::Ask][*side];
            let last = if at + 1 == changes.len() { flag::LAST } else { 0 };
            let record = Record::level(self.venue, self.id, side, Px(*px), Qty(*qty));
            out.push(Record {
                flags: last,
                update_id: self.update_id,
                venue_ts_ns: at_ns - latency_ns,
                recv_ts_ns: at_ns - 20_000,
                engine_ts_ns: at_ns,
                conn: 1 + self.venue as u32,
                ..record
            });
        }
        self.levels = wanted;
        if std::mem::take(&mut self.is_lost) {
            out.push(self.state(BookState::Live, at_ns));
        }
    }

    /// The feed lost its place: the book is in quarantine until the next quote.
    fn lose(&mut self, at_ns: i64, out: &mut Vec<Record>) {
        out.push(self.state(BookState::Stale, at_ns));
        let clear = self.state(BookState::Init, at_ns);
        out.push(Record { kind: Kind::Clear as u8, data: [0; 4], ..clear });
        self.levels = [BTreeMap::new(), BTreeMap::new()];
        self.is_lost = true;
    }
}

/// A market of so many messages; instruments as `desk::universe(true)` has them.
pub fn market(seed: u64, messages: usize) -> Vec<Record> {
    let mut dice = Dice(seed);
    let mut out = Vec::new();
    let mids = [
        (60_000 * 100, 1_000),
        (60_000 * 100, 1_000),
        (60_000 * 100, 1_000),
        (3_000 * 100, 50),
        (50_000, 8),
    ];
    let venues = [Venue::Binance, Venue::Coinbase, Venue::Kraken, Venue::Kraken, Venue::Kraken];
    let mut shown: Vec<Shown> = (0..5u16)
        .map(|id| Shown {
            venue: venues[usize::from(id)],
            id,
            mid: mids[usize::from(id)].0,
            step: mids[usize::from(id)].1,
            levels: [BTreeMap::new(), BTreeMap::new()],
            apart: 0,
            until_ns: 0,
            update_id: 0,
            is_lost: false,
        })
        .collect();
    let mut at_ns = START_NS;
    for book in &mut shown {
        at_ns += MS;
        book.quote(&mut dice, at_ns, &mut out);
        out.push(book.state(BookState::Live, at_ns));
    }
    for _ in 0..messages {
        at_ns += MS / 4 + dice.below(10 * MS);
        let at = dice.below(5) as usize;
        let walk = dice.below(3) - 1;
        let book = &mut shown[at];
        book.mid += walk * book.step / 20;
        if book.until_ns <= at_ns {
            book.apart = 0;
        }
        if at < 3 && dice.chance(6) {
            let size = (300 + dice.below(600)) * 100;
            book.apart = if dice.chance(50) { size } else { -size };
            book.until_ns = at_ns + MS + dice.below(120 * MS);
        }
        if !book.is_lost && dice.chance(1) {
            book.lose(at_ns, &mut out);
            continue;
        }
        book.quote(&mut dice, at_ns, &mut out);
        if dice.chance(1) {
            let venue = book.venue;
            out.push(Record {
                recv_ts_ns: at_ns,
                engine_ts_ns: at_ns,
                conn: 1 + venue as u32,
                ..Record::new(Kind::Beat, venue as u8, u16::MAX, [at_ns, 1, 0, 0])
            });
        }
    }
    out
}

/// The same with coarse stamps, so that much happens at one moment, and with what is rare in a recording: halts, fees,
/// trades, gaps, records that make no sense, messages that do not end.
pub fn troubled(seed: u64, records: &[Record]) -> Vec<Record> {
    let mut dice = Dice(seed);
    let mut out = Vec::new();
    for record in records {
        let coarse_ns = |ns: i64| ns - ns % (5 * MS);
        let mut record = Record { venue_ts_ns: coarse_ns(record.venue_ts_ns), ..*record };
        if seed.is_multiple_of(2) {
            record.engine_ts_ns = coarse_ns(record.engine_ts_ns);
            record.recv_ts_ns = record.recv_ts_ns.min(record.engine_ts_ns);
            record.venue_ts_ns = record.venue_ts_ns.min(record.engine_ts_ns);
        }
        let is_last = record.has(flag::LAST);
        if dice.chance(3) {
            record.flags &= !flag::LAST;
        }
        out.push(record);
        if !is_last {
            continue;
        }
        let venue = record.instrument == u16::MAX;
        let of = |kind: Kind, data: [i64; 4]| Record {
            kind: kind as u8,
            flags: flag::LAST,
            data,
            update_id: 0,
            ..record
        };
        let status = if dice.chance(30) { TradingStatus::Halted } else { TradingStatus::Trading };
        let whole = |record: Record| Record { instrument: u16::MAX, ..record };
        match dice.below(400) {
            0 | 1 => out.push(whole(of(Kind::Status, [status as i64, 0, 0, 0]))),
            2 => out.push(whole(of(Kind::Gap, [1, 0, 0, 0]))),
            3..6 if !venue => out.push(of(Kind::Fee, [dice.below(1_500), 0, 0, 0])),
            6..12 if !venue => out.push(of(Kind::InstrumentChange, [status as i64, 1, LOT, 1])),
            12 if !venue => out.push(of(Kind::Level, [1, -1, dice.below(4), 0])),
            13..20 if !venue => {
                let px = 60_000 * 100 + dice.below(2_000) - 1_000;
                out.push(of(Kind::Trade, [px, BTC, dice.below(2), 0]));
            }
            _ => {}
        }
    }
    out
}

pub fn constant(us: u32) -> VenueModel {
    let way = Latency::Constant { us };
    VenueModel { entry: way.clone(), response: way, ..VenueModel::default() }
}

/// A configuration in which every order is so late, and nobody else wants anything.
pub fn late(us: u32) -> Config {
    Config {
        venue: Venue::ALL.map(|venue| (venue.name().to_owned(), constant(us))).into(),
        competition: Competition { share_ppm: 0, ramp_us: 0 },
        rearm_s: 1,
        ..Config::default()
    }
}

pub fn plan(config: Config) -> Plan {
    let universe = desk::universe(true);
    let mut trading = desk::trading(Mode::Live, &universe);
    // As the binary sets it: no venue of a recording shows what we took.
    trading.own_interest_ns = i64::MAX / 4;
    trading.denials_1s_max = i64::MAX / 4;
    let mut opening = Vec::new();
    for venue in Venue::ALL {
        for (asset, amount) in [(0, 10_000_000 * USD), (1, 100 * BTC), (2, 1_000 * BTC)] {
            opening.push((venue, AssetId(asset), Amount(amount)));
        }
    }
    let symbols =
        ["BTCUSD", "BTC-USD", "BTC/USD", "ETH/USD", "ETH/BTC"].map(str::to_owned).to_vec();
    let params = desk::params();
    Plan { universe, params, trading, symbols, config, opening, plant: Plant::Nothing }
}

pub fn run(plan: &Plan, records: &[Record]) -> Outcome {
    tandem_backtest::run(plan, &mut Tape::of(records), Told::default()).expect("a sound plan")
}
