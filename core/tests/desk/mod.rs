//! A world around an engine that trades: three venues with books, sessions, a clock and an operator.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Once;

use tandem_core::account::{Balance, BalanceSource, Peer, PeerRole, Session, SessionState};
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::level::{Level, LevelWord, Scope};
use tandem_core::limits::{AssetLimits, Band, InstrumentLimits, Mode, Trading, VenueLimits};
use tandem_core::order::{NewOrder, Report};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::report::Denial;
use tandem_core::round::RoundReport;
use tandem_core::units::{Amount, FeePpm, Px, Qty, Side};

pub const MS: i64 = 1_000_000;
pub const S: i64 = 1_000 * MS;
/// A price of one dollar, an amount of one dollar, one bitcoin.
pub const PX: i64 = 100;
pub const USD: i64 = 1_000_000;
pub const BTC: i64 = 1_000_000;
pub const LOT: i64 = 100;

/// Switches off what `TANDEM_MUTE` says, once.
pub fn mute() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(feature = "mutation")]
        if let Ok(id) = std::env::var("TANDEM_MUTE") {
            use tandem_core::mutation::{Mute, mute};
            let what = Mute::ALL.into_iter().find(|mute| format!("{mute:?}") == id);
            mute(what.unwrap_or_else(|| panic!("TANDEM_MUTE={id} is none of {:?}", Mute::ALL)));
        }
    });
}

/// A small generator; variety, not quality.
#[derive(Clone, Copy, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: i64) -> i64 {
        (self.roll() % n.max(1) as u64) as i64
    }

    pub fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }
}

/// BTC/USD at the three venues (0, 1, 2); with `triangle` also ETH/USD (3) and ETH/BTC (4) at Kraken.
pub fn universe(triangle: bool) -> Universe {
    let instrument = |venue, base, quote, fee, fee_in| Instrument {
        venue,
        base: AssetId(base),
        quote: AssetId(quote),
        px_exponent: 2,
        tick: Px(1),
        lot: Qty(LOT),
        qty_min: Qty(LOT),
        qty_max: Qty(1_000 * BTC),
        notional_min: Amount(if quote == 0 { 10 * USD } else { 100 }),
        notional_max: Amount(1 << 50),
        taker_fee: FeePpm(fee),
        fee_in,
        status: TradingStatus::Trading,
    };
    let asset = |name: &str| Asset { name: name.to_string(), exponent: 6 };
    let mut assets = vec![asset("USD"), asset("BTC")];
    let mut instruments = vec![
        instrument(Venue::Binance, 1, 0, 100, FeeIn::Received),
        instrument(Venue::Coinbase, 1, 0, 200, FeeIn::Quote),
        instrument(Venue::Kraken, 1, 0, 100, FeeIn::Quote),
    ];
    if triangle {
        assets.push(asset("ETH"));
        instruments.push(instrument(Venue::Kraken, 2, 0, 100, FeeIn::Quote));
        instruments.push(Instrument {
            px_exponent: 6,
            ..instrument(Venue::Kraken, 2, 1, 100, FeeIn::Quote)
        });
    }
    Universe { assets, instruments }
}

pub fn params() -> Params {
    let venue = VenueParams {
        slippage_ppm: 0,
        staleness_ppm_per_s: 0,
        age_ns_max: 10 * S,
        order_latency_ns: MS,
    };
    Params {
        edge_min_ppm: 0,
        edge_max_ppm: 50_000,
        edge_max_halt_ns: S,
        basis_ppm: 0,
        venues: [venue; 3],
        numeraires: vec![AssetId(0)],
        legs_max: 3,
        cycles_max: 1_000,
        window_levels: 16,
        flicker_ns: 5 * MS,
        denial_ns: 100 * MS,
        update_ns: MS,
    }
}

/// Limits that deny nothing ordinary.
pub fn trading(mode: Mode, universe: &Universe) -> Trading {
    let venue = VenueLimits {
        stream_age_ns_max: 2 * S,
        exposure_max: 1_000_000 * USD,
        orders_max: 100,
        unknown_max: 1,
        orders_per_s: 1_000,
        orders_burst: 1_000,
        queries_per_s: 1_000,
        age_ns_max: 10 * S,
        lag_ns_max: S,
        ack_ns_max: 2 * S,
        single_legs_max: 1_000,
        paper_latency_ns: 3 * MS,
        paper_response_ns: 2 * MS,
        fee_error_ppm_max: 1_000,
    };
    let band = Band { floor: Amount(0), target: Amount(1 << 40), ceiling: Amount(1 << 55) };
    Trading {
        mode,
        run: 7,
        numeraire: AssetId(0),
        venues: [venue; 3],
        assets: vec![
            AssetLimits {
                exposure_max: Amount(20 * BTC),
                dust_max: Amount(BTC),
                drift_max: Amount(1_000),
                bands: [band; 3],
            };
            universe.assets.len()
        ],
        instruments: vec![
            InstrumentLimits {
                collar_ppm: 100_000,
                hedge_collar_ppm: 200_000,
                qty_max: Qty(10 * BTC),
                orders_max: 50,
                fills_10s_max: 100_000,
                fills_1h_max: 1_000_000,
                loss_max: 10_000_000 * USD,
            };
            universe.instruments.len()
        ],
        rounds_max: 4,
        order_ttl_ns: 100 * MS,
        ack_timeout_ns: S,
        query_wait_ns: 100 * MS,
        query_wait_ns_max: S,
        unknown_ns_max: 30 * S,
        hedge_ns: 2 * S,
        unwind_ns: 2 * S,
        hedge_slippage_ppm: 5_000,
        unwind_slippage_ppm: 20_000,
        hedge_wait_ns: 20 * MS,
        hedges_max: 20,
        round_loss_max: 100_000 * USD,
        notional_min_buffer_ppm: 10_000,
        rules_age_ns_max: 0,
        move_1s_ppm_max: 1_000_000,
        move_60s_ppm_max: 1_000_000,
        notional_max: 1_000_000 * USD,
        exposure_max: 2_000_000 * USD,
        orders_max: 100,
        unknown_max: 2,
        losing_rounds_max: 1_000_000,
        edge_min_ppm: 0,
        edge_max_ppm: 40_000,
        depth_ppm_max: 1_000_000,
        loss_5min_max: 10_000_000 * USD,
        loss_day_max: 10_000_000 * USD,
        drawdown_max: 10_000_000 * USD,
        shortfall_ppm_max: 900_000,
        clock_offset_ns_max: 250 * MS,
        clock_bound_ns_max: 50 * MS,
        session_orders_max: 1 << 40,
        session_notional_max: 1 << 60,
        session_fees_max: 1 << 60,
        denials_1s_max: 20,
        retry_ns: 10 * MS,
        drift_ns_max: 5 * S,
        own_interest_ns: S,
        skew_ppm: 0,
        ramp_rounds: 0,
    }
}

pub struct World {
    pub engine: Engine,
    pub out: Outbox,
    pub now_ns: i64,
    pub page: LevelWord,
    /// Everything that went in and came out, as a journal holds it.
    pub journal: Vec<Record>,
    pub keeps_journal: bool,
    update_id: u64,
}

pub const START_NS: i64 = 1_000_000 * S;

impl World {
    pub fn new(universe: Universe, trading: Trading) -> World {
        mute();
        let engine = Engine::with_trading(universe, params(), trading).expect("sound");
        World {
            engine,
            out: Outbox::new(OUTBOX_RECORDS),
            now_ns: START_NS,
            page: LevelWord::PAUSED,
            journal: Vec::new(),
            keeps_journal: true,
            update_id: 1,
        }
    }

    /// A world that is armed, in health, with funds and books without an arbitrage.
    pub fn armed(trading: Trading) -> World {
        World::armed_with(universe(false), trading)
    }

    pub fn armed_with(universe: Universe, trading: Trading) -> World {
        let mut world = World::new(universe, trading);
        world.open(100 * BTC, 10_000_000 * USD);
        world.health();
        world.books();
        world.arm();
        world.out.clear();
        world
    }

    pub fn open(&mut self, base: i64, usd: i64) {
        for venue in Venue::ALL {
            for asset in 0..self.engine.universe().assets.len() as u16 {
                let total = if asset == 0 { usd } else { base };
                self.balance(venue, asset, total, BalanceSource::Opening);
                if self.live() {
                    self.balance(venue, asset, total, BalanceSource::Snapshot);
                }
            }
        }
    }

    fn live(&self) -> bool {
        self.engine.desk().expect("trades").limits().mode == Mode::Live
    }

    pub fn balance(&mut self, venue: Venue, asset: u16, total: i64, source: BalanceSource) {
        let (total, held) = (Amount(total), Amount(0));
        self.step(Balance { venue, asset, total, held, source }.record(true));
    }

    /// Tells live mode what the ledger holds, as an honest venue would.
    pub fn tell_balances(&mut self) {
        for venue in Venue::ALL {
            for asset in 0..self.engine.universe().assets.len() as u16 {
                let ledger = self.engine.desk().expect("trades").ledger();
                let total = ledger.account(venue, AssetId(asset)).balance as i64;
                self.balance(venue, asset, total, BalanceSource::Stream);
            }
        }
    }

    pub fn health(&mut self) {
        for venue in Venue::ALL {
            self.session(venue, SessionState::Ready, self.now_ns, 0);
            self.peer(PeerRole::Gateway, Some(venue), true, true);
        }
        self.peer(PeerRole::Warden, None, true, true);
        self.clock(0, 0, true);
    }

    pub fn session(&mut self, venue: Venue, state: SessionState, heard_ns: i64, deadman_ns: i64) {
        self.step(Session { venue, state, code: 0, heard_ns, deadman_ns }.record());
    }

    pub fn peer(&mut self, role: PeerRole, venue: Option<Venue>, alive: bool, same_build: bool) {
        let beat_ns = self.now_ns;
        self.step(Peer { role, venue, alive, beat_ns, same_build }.record());
    }

    pub fn clock(&mut self, offset_ns: i64, bound_ns: i64, synced: bool) {
        let data = [offset_ns, bound_ns, i64::from(synced), 0];
        self.step(Record::new(Kind::ClockState, 0, u16::MAX, data));
    }

    pub fn arm(&mut self) {
        for scope in [Scope::Global].into_iter().chain(Venue::ALL.map(Scope::Venue)) {
            if let Some(word) = self.page.lowered(scope, Level::Armed) {
                self.page = word;
            }
        }
        self.step(self.page.record());
    }

    /// The host: what the engine raised is stored on the page and told back.
    pub fn echo(&mut self) -> usize {
        let mut raised = 0;
        for record in self.out.records().to_vec() {
            if record.kind() == Some(Kind::ControlLevel) && record.instrument == u16::MAX {
                raised += 1;
                let scope = Venue::from_tag(record.venue).map_or(Scope::Global, Scope::Venue);
                let level = Level::from_tag(record.data[0] as u8);
                let cause = tandem_core::level::Cause::from_tag(record.data[1] as u8);
                let cause = cause.expect("a cause");
                if let Some(word) = self.page.raised(scope, level, cause) {
                    self.page = word;
                }
            }
        }
        if raised != 0 {
            self.step(self.page.record());
        }
        raised
    }

    /// Books around 60,000 at every venue, ten levels a side, half a bitcoin each, no arbitrage.
    pub fn books(&mut self) {
        for id in 0..self.engine.universe().instruments.len() as u16 {
            let venue = self.venue(id);
            self.step(Record::new(Kind::Clear, venue as u8, id, [0; 4]));
            let (mid, step) = self.mid(id);
            for rank in 0..10 {
                self.level(id, Side::Bid, mid - step * (rank + 1), BTC / 2, 0);
                self.level(id, Side::Ask, mid + step * (rank + 1), BTC / 2, 0);
            }
            let live = [BookState::Live as i64, 0, 0, 0];
            let state = Record::new(Kind::BookState, venue as u8, id, live);
            self.step(Record { flags: flag::LAST, ..state });
        }
    }

    /// Middle and distance of levels.
    pub fn mid(&self, id: u16) -> (i64, i64) {
        match id {
            3 => (3_000 * PX, 30),
            4 => (50_000, 5),
            _ => (60_000 * PX, 10 * PX),
        }
    }

    pub fn venue(&self, id: u16) -> Venue {
        self.engine.universe().instruments[usize::from(id)].venue
    }

    pub fn step(&mut self, record: Record) {
        let stamped = Record {
            engine_ts_ns: self.now_ns,
            recv_ts_ns: self.now_ns,
            venue_ts_ns: if record.venue_ts_ns == 0 { self.now_ns } else { record.venue_ts_ns },
            conn: u32::from(record.venue) + 1,
            ..record
        };
        let before = self.out.records().len();
        self.engine.step(&stamped, &mut self.out);
        if self.keeps_journal {
            self.journal.push(stamped);
            self.journal.extend_from_slice(&self.out.records()[before..]);
        }
    }

    pub fn level(&mut self, id: u16, side: Side, px: i64, qty: i64, flags: u8) {
        self.update_id += 1;
        let record = Record::level(self.venue(id), id, side, Px(px), Qty(qty));
        self.step(Record { flags, update_id: self.update_id, ..record });
    }

    pub fn timer(&mut self, later_ns: i64) {
        self.now_ns += later_ns;
        self.step(Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
    }

    /// Every connection says that it lives.
    pub fn beat(&mut self) {
        for venue in Venue::ALL {
            let beat = Record::new(Kind::Beat, venue as u8, u16::MAX, [self.now_ns, 1, 0, 0]);
            self.step(beat);
        }
    }

    /// The bid of `sell` rises above the ask of `buy` by about a hundredth.
    pub fn dislocate(&mut self, sell: u16, qty: i64) -> i64 {
        let px = 60_000 * PX + 600 * PX;
        for rank in 0..10 {
            // Its own asks make way, so that its book is not crossed.
            self.level(sell, Side::Ask, 60_000 * PX + 10 * PX * (rank + 1), 0, 0);
        }
        self.level(sell, Side::Ask, px + 10 * PX, BTC, 0);
        self.level(sell, Side::Bid, px, qty, flag::LAST);
        px
    }

    pub fn report(&mut self, order: &NewOrder, report: Report) {
        self.step(report.record(order.venue, order.instrument, order.run, order.key));
    }

    pub fn orders(&self) -> Vec<NewOrder> {
        self.out.records().iter().filter_map(NewOrder::read).collect()
    }

    pub fn kinds(&self, kind: Kind) -> Vec<Record> {
        self.out.records().iter().copied().filter(|r| r.kind() == Some(kind)).collect()
    }

    pub fn denials(&self) -> Vec<Denial> {
        groups(self.out.records(), Kind::Denial).iter().filter_map(|g| Denial::decode(g)).collect()
    }

    pub fn rounds(&self) -> Vec<RoundReport> {
        let groups = groups(self.out.records(), Kind::Round);
        groups.iter().filter_map(|g| RoundReport::decode(g)).collect()
    }

    pub fn held(&self, venue: Venue, asset: u16) -> i128 {
        self.engine.desk().expect("trades").ledger().account(venue, AssetId(asset)).balance
    }

    pub fn total(&self, asset: u16) -> i128 {
        Venue::ALL.map(|venue| self.held(venue, asset)).iter().sum()
    }
}

pub fn groups(records: &[Record], kind: Kind) -> Vec<Vec<Record>> {
    let (mut all, mut group) = (Vec::new(), Vec::new());
    for record in records.iter().filter(|r| r.kind() == Some(kind)) {
        group.push(*record);
        if !record.has(flag::MORE) {
            all.push(std::mem::take(&mut group));
        }
    }
    all
}

/// A fill at the order's limit, with the fee that the model expects.
pub fn fill(world: &World, order: &NewOrder, qty: i64, trade_id: u64) -> Report {
    fill_at(world.engine.universe(), order, order.px, qty, trade_id)
}

pub fn fill_at(universe: &Universe, order: &NewOrder, px: Px, qty: i64, trade_id: u64) -> Report {
    let rules = &universe.instruments[usize::from(order.instrument)];
    let shift = tandem_core::value::shift_of(universe, order.instrument);
    let buys = order.action == tandem_core::order::Action::Buy;
    let quote = tandem_core::value::quote_of(px, qty, shift, buys) as i64;
    let in_base = buys && rules.fee_in == FeeIn::Received;
    let amount = if in_base { qty } else { quote };
    let fee = -(-i128::from(amount) * i128::from(rules.taker_fee.0)).div_euclid(1_000_000);
    let asset = if in_base { rules.base.0 } else { rules.quote.0 };
    Report::Fill { px, qty: Qty(qty), fee: Amount(fee as i64), asset, trade_id }
}
