//! The engine through its public face: records in, records out.

use tandem_core::detector::Verdict;
use tandem_core::engine::{Command, Engine, LEVEL_HALT, OUTBOX_RECORDS, gap};
use tandem_core::episode::Outbox;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Kind, Reason, Record, TradingStatus, Venue, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::units::{Amount, FeePpm, Px, Qty, Side};

const MS: i64 = 1_000_000;

/// Best asks at the start. Kraken's is far away, so that its bid can rise without crossing its own book.
const ASKS: [i64; 2] = [6_000_100, 6_400_000];

/// One venue pair: BTC/USD at Coinbase (0) and Kraken (1), prices in cents, quantities in 1e-4.
struct World {
    engine: Engine,
    out: Outbox,
    now_ns: i64,
}

fn universe() -> Universe {
    let instrument = |venue, fee| Instrument {
        venue,
        base: AssetId(1),
        quote: AssetId(0),
        px_exponent: 2,
        tick: Px(1),
        lot: Qty(1),
        qty_min: Qty(1),
        qty_max: Qty(1_000_000),
        notional_min: Amount(1_000_000),
        notional_max: Amount(1 << 50),
        taker_fee: FeePpm(fee),
        fee_in: FeeIn::Quote,
        status: TradingStatus::Trading,
    };
    let asset = |name: &str, exponent| Asset { name: name.to_string(), exponent };
    Universe {
        assets: vec![asset("USD", 6), asset("BTC", 4)],
        instruments: vec![instrument(Venue::Coinbase, 0), instrument(Venue::Kraken, 0)],
    }
}

fn params() -> Params {
    let venue = VenueParams {
        slippage_ppm: 0,
        staleness_ppm_per_s: 0,
        age_ns_max: 1_000 * MS,
        order_latency_ns: 10 * MS,
    };
    Params {
        edge_min_ppm: 0,
        edge_max_ppm: 30_000,
        edge_max_halt_ns: 0,
        basis_ppm: 0,
        venues: [venue; 3],
        numeraires: vec![AssetId(0)],
        legs_max: 3,
        cycles_max: 100,
        window_levels: 8,
        flicker_ns: 5 * MS,
        denial_ns: 100 * MS,
        update_ns: MS,
    }
}

impl World {
    fn new() -> World {
        World::with(params())
    }

    fn with(params: Params) -> World {
        let engine = Engine::new(universe(), params).expect("sound");
        let mut world = World { engine, out: Outbox::new(OUTBOX_RECORDS), now_ns: 1_000_000 * MS };
        for id in 0..2 {
            world.level(id, Side::Bid, 6_000_000, 10_000, 0);
            world.level(id, Side::Ask, ASKS[usize::from(id)], 10_000, 0);
            world.state(id, BookState::Live);
        }
        world.out.clear();
        world
    }

    fn venue(id: u16) -> Venue {
        if id == 0 { Venue::Coinbase } else { Venue::Kraken }
    }

    fn step(&mut self, record: Record) {
        let stamped = Record {
            engine_ts_ns: self.now_ns,
            recv_ts_ns: self.now_ns,
            conn: u32::from(record.instrument) + 1,
            ..record
        };
        self.engine.step(&stamped, &mut self.out);
    }

    fn level(&mut self, id: u16, side: Side, px: i64, qty: i64, flags: u8) {
        self.step(Record { flags, ..Record::level(World::venue(id), id, side, Px(px), Qty(qty)) });
    }

    fn state(&mut self, id: u16, state: BookState) {
        let data = [state as i64, Reason::None as i64, 0, 0];
        let record = Record::new(Kind::BookState, World::venue(id) as u8, id, data);
        self.step(Record { flags: flag::LAST, ..record });
    }

    fn timer(&mut self, later_ms: i64) {
        self.now_ns += later_ms * MS;
        self.step(Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
    }

    /// Kraken's bid rises above Coinbase's ask.
    fn dislocate(&mut self) {
        self.level(1, Side::Bid, 6_000_700, 500, flag::LAST);
    }

    fn mend(&mut self) {
        self.level(1, Side::Bid, 6_000_700, 0, flag::LAST);
    }

    fn told(&mut self) -> Vec<Opportunity> {
        let mut told = Vec::new();
        let mut group = Vec::new();
        for record in self.out.records() {
            group.push(*record);
            if !record.has(flag::MORE) {
                told.extend(Opportunity::decode(&group));
                group.clear();
            }
        }
        self.out.clear();
        told
    }

    fn phases(&mut self) -> Vec<Phase> {
        self.told().iter().map(|told| told.phase).collect()
    }

    fn denials(&mut self) -> Vec<Denial> {
        let records = self.out.records().to_vec();
        self.out.clear();
        records.windows(2).filter_map(Denial::decode).collect()
    }
}

#[test]
fn a_dislocation_is_told_with_its_orders() {
    let mut world = World::new();
    world.dislocate();
    let told = world.told();
    let [open] = told.as_slice() else { panic!("one opportunity, got {told:?}") };
    assert_eq!((open.phase, open.best), (Phase::Open, true));
    // Buy 0.05 at 60,001.00, sell it at 60,007.00: 0.30 gained of 3,000.05.
    assert_eq!(
        (open.spent, open.brought, open.net),
        (Amount(3_000_050_000), Amount(3_000_350_000), Amount(300_000))
    );
    assert_eq!(open.gross_ppb, 99_998);
    let legs: Vec<_> =
        open.legs().iter().map(|leg| (leg.instrument, leg.side, leg.px.0, leg.qty.0)).collect();
    assert_eq!(legs, [(0, 1, 6_000_100, 500), (1, 0, 6_000_700, 500)]);
    assert_eq!(world.engine.counts().opportunities, [1, 0, 0]);
}

#[test]
fn fees_are_charged_on_both_legs() {
    let mut world = World::new();
    // 6.00 of 60,001 are 100 ppm: 50 ppm a leg leaves nothing.
    for rules in [0, 1] {
        let mut universe = universe();
        universe.instruments[rules].taker_fee = FeePpm(100);
        let mut other =
            World { engine: Engine::new(universe, params()).expect("sound"), ..World::new() };
        for id in 0..2 {
            other.level(id, Side::Bid, 6_000_000, 10_000, 0);
            other.level(id, Side::Ask, ASKS[usize::from(id)], 10_000, 0);
            other.state(id, BookState::Live);
        }
        other.dislocate();
        assert!(other.told().is_empty());
    }
    world.dislocate();
    assert_eq!(world.told().len(), 1);
}

#[test]
fn a_life_is_first_seen_best_and_last_seen() {
    let mut world = World::new();
    world.dislocate();
    world.now_ns += 2 * MS;
    world.level(1, Side::Bid, 6_000_900, 500, flag::LAST);
    world.now_ns += 2 * MS;
    world.level(1, Side::Bid, 6_000_900, 0, flag::LAST);
    let first_ns = world.now_ns - 4 * MS;
    world.now_ns += MS;
    world.mend();
    world.timer(4);
    assert_eq!(world.phases(), [Phase::Open, Phase::Update]);
    world.timer(1);
    let told = world.told();
    let close = told.iter().find(|told| told.phase == Phase::Close).expect("it ended");
    assert_eq!(
        (close.first_ns, close.best_ns, close.last_ns),
        (first_ns, first_ns + 2 * MS, first_ns + 4 * MS)
    );
    assert_eq!(close.times, 3);
    // The best moment took both levels: 500 at 60,009 and 500 at 60,007.
    assert_eq!(close.net, Amount(300_000 + 400_000));
    // One order latency after it was seen nothing was left.
    let after = told.iter().find(|told| told.phase == Phase::After).expect("the second look");
    assert_eq!((after.id, after.net), (close.id, Amount(0)));
    assert_eq!(world.engine.open_count(), 0);
}

#[test]
fn flicker_is_one_opportunity() {
    let mut world = World::new();
    for _ in 0..200 {
        world.dislocate();
        world.now_ns += MS;
        world.mend();
        world.now_ns += MS;
    }
    world.timer(5);
    world.timer(10);
    let phases = world.phases();
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Open).count(), 1);
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Close).count(), 1);
    assert!(phases.len() <= 4, "{phases:?}");
}

#[test]
fn nothing_is_decided_inside_a_batch() {
    let mut world = World::new();
    // Inside one message the bid passes through a price that would pay.
    world.level(1, Side::Bid, 6_000_700, 500, 0);
    assert!(world.out.records().is_empty());
    // Another venue's batch ends meanwhile: the half-changed book must not be used.
    world.level(0, Side::Ask, 6_000_090, 1, flag::LAST);
    assert!(world.told().is_empty());
    world.level(1, Side::Bid, 6_000_700, 0, flag::LAST);
    assert!(world.told().is_empty());
}

#[test]
fn doubt_does_not_trade() {
    type Doubt = (&'static str, fn(&mut World));
    let cases: [Doubt; 7] = [
        ("stale", |w| w.state(0, BookState::Stale)),
        ("syncing", |w| w.state(1, BookState::Syncing)),
        ("fallback", |w| w.state(0, BookState::Fallback)),
        ("gap", |w| w.step(gap(Venue::Kraken, Reason::Overrun, 10, 5))),
        ("venue status", |w| {
            let data = [TradingStatus::CancelOnly as i64, 0, 0, 0];
            let record = Record::new(Kind::Status, Venue::Kraken as u8, u16::MAX, data);
            w.step(Record { flags: flag::LAST, ..record });
        }),
        ("instrument status", |w| {
            let data = [TradingStatus::Halted as i64, 1, 1, 0];
            let record = Record::new(Kind::InstrumentChange, Venue::Coinbase as u8, 0, data);
            w.step(Record { flags: flag::LAST, ..record });
        }),
        ("operator", |w| {
            let data = [Command::Halt as i64, 0, 0, 0];
            let record = Record::new(Kind::Command, Venue::Coinbase as u8, 0, data);
            w.step(Record { flags: flag::LAST, ..record });
        }),
    ];
    for (name, doubt) in cases {
        let mut world = World::new();
        doubt(&mut world);
        world.dislocate();
        assert!(world.told().is_empty(), "{name}: before the dislocation");
        let mut world = World::new();
        world.dislocate();
        assert_eq!(world.told().len(), 1);
        doubt(&mut world);
        world.timer(6);
        assert!(world.phases().contains(&Phase::Close), "{name}: an open one must end");
    }
}

#[test]
fn a_fallback_snapshot_is_never_live() {
    let mut world = World::new();
    let data = [BookState::Live as i64, 0, 0, 0];
    let record = Record::new(Kind::BookState, Venue::Kraken as u8, 1, data);
    world.step(Record { flags: flag::LAST | flag::FALLBACK, ..record });
    world.dislocate();
    assert!(world.told().is_empty());
    assert_eq!(world.engine.market().get(1).state, BookState::Fallback);
}

/// Row MD-06.
#[test]
fn old_data_is_denied_when_it_is_used() {
    let mut world = World::new();
    world.now_ns += 1_001 * MS;
    world.dislocate();
    let denials = world.denials();
    let [denial] = denials.as_slice() else { panic!("one denial, got {denials:?}") };
    assert_eq!(denial.verdict, Verdict::Stale);
    assert_eq!(denial.age_ns, 1_001 * MS);
    // A beat on Coinbase's connection says that its quiet book still stands.
    let beat = Record::new(Kind::Beat, Venue::Coinbase as u8, u16::MAX, [world.now_ns, 1, 0, 0]);
    world.step(Record { flags: flag::LAST, ..beat });
    world.level(1, Side::Bid, 6_000_600, 1, flag::LAST);
    assert!(world.told().is_empty(), "the beat was for another connection");
    let stamped = Record { engine_ts_ns: world.now_ns, conn: 1, ..beat };
    world.engine.step(&stamped, &mut world.out);
    world.level(1, Side::Bid, 6_000_701, 1, flag::LAST);
    assert_eq!(world.told().len(), 1);
}

#[test]
fn denials_are_counted_and_do_not_flood() {
    let mut world = World::new();
    world.now_ns += 1_001 * MS;
    for n in 0..100 {
        world.level(1, Side::Bid, 6_000_700 + n, 1, flag::LAST);
        world.now_ns += 2 * MS;
    }
    let denials = world.denials();
    assert!(denials.len() <= 3, "{}", denials.len());
    assert_eq!(world.engine.counts().denials, 100);
    let told: i64 = denials.iter().map(|denial| denial.times).sum();
    assert!((51..=100).contains(&told), "{told}");
}

/// Row MD-12.
#[test]
fn too_good_to_be_true_halts_both_instruments() {
    let mut world = World::new();
    world.level(1, Side::Bid, 6_300_000, 500, flag::LAST);
    let records = world.out.records().to_vec();
    let halts: Vec<_> = records.iter().filter(|r| r.kind() == Some(Kind::ControlLevel)).collect();
    assert_eq!(
        halts.iter().map(|r| (r.instrument, r.data[0])).collect::<Vec<_>>(),
        [(0, LEVEL_HALT), (1, LEVEL_HALT)]
    );
    assert_eq!(world.denials()[0].verdict, Verdict::EdgeMax);
    assert!(world.told().is_empty());
    // Latched: neither time nor a believable price releases it, an operator does.
    world.level(1, Side::Bid, 6_300_000, 0, flag::LAST);
    world.timer(500);
    world.dislocate();
    assert!(world.told().is_empty());
    for id in 0..2u16 {
        let data = [Command::Release as i64, 0, 0, 0];
        let record = Record::new(Kind::Command, World::venue(id) as u8, id, data);
        world.step(Record { flags: flag::LAST, ..record });
    }
    world.level(0, Side::Ask, 6_000_099, 100, flag::LAST);
    assert!(world.phases().contains(&Phase::Open));
}

#[test]
fn a_halt_with_a_term_ends_by_itself() {
    let mut world = World::with(Params { edge_max_halt_ns: 100 * MS, ..params() });
    world.level(1, Side::Bid, 6_300_000, 500, flag::LAST);
    world.level(1, Side::Bid, 6_300_000, 0, flag::LAST);
    world.timer(99);
    world.dislocate();
    assert!(world.told().is_empty());
    world.timer(1);
    world.level(1, Side::Bid, 6_000_701, 1, flag::LAST);
    world.level(0, Side::Ask, 6_000_099, 1, flag::LAST);
    assert!(world.phases().contains(&Phase::Open));
}

#[test]
fn records_that_make_no_sense_change_nothing_or_make_doubt() {
    let mut world = World::new();
    let before = world.engine.counts().rejected;
    let nonsense = [
        Record { kind: 200, flags: flag::LAST, ..Record::default() },
        Record::level(Venue::Kraken, 0, Side::Bid, Px(1), Qty(1)),
        Record::level(Venue::Kraken, 999, Side::Bid, Px(1), Qty(1)),
        Record::new(Kind::Opportunity, 1, 0, [0; 4]),
        Record::new(Kind::Status, 9, 0, [1, 0, 0, 0]),
        Record::new(Kind::Command, 1, 0, [77, 0, 0, 0]),
    ];
    for record in nonsense {
        world.step(record);
    }
    assert_eq!(world.engine.counts().rejected - before, nonsense.len() as u64);
    world.dislocate();
    assert_eq!(world.told().len(), 1);
    // A price that cannot be: the book is not believed until its handler says Live again.
    world.level(1, Side::Bid, -5, 1, flag::LAST);
    assert_eq!(world.engine.market().get(1).state, BookState::Stale);
    world.timer(10);
    assert!(world.phases().contains(&Phase::Close));
}

/// Row MD-11.
#[test]
fn new_rules_are_used_at_once() {
    let mut world = World::new();
    let data = [TradingStatus::Trading as i64, 1, 400, 1_000_000];
    let record = Record::new(Kind::InstrumentChange, Venue::Kraken as u8, 1, data);
    world.step(Record { flags: flag::LAST, ..record });
    world.dislocate();
    let told = world.told();
    // 500 are displayed, the lot is 400 now.
    assert!(told[0].legs().iter().all(|leg| leg.qty == Qty(400)), "{told:?}");
}

/// Of one step nothing is told on an instrument that the same step halted.
#[test]
fn what_a_step_halts_it_does_not_tell() {
    let mut universe = universe();
    universe
        .instruments
        .push(Instrument { venue: Venue::Binance, ..universe.instruments[0].clone() });
    let engine = Engine::new(universe, params()).expect("sound");
    let mut world = World { engine, ..World::new() };
    let binance = |record: Record| Record { venue: Venue::Binance as u8, ..record };
    for (id, ask) in [(0, 6_000_100), (1, 6_100_000)] {
        world.level(id, Side::Ask, ask, 10_000, 0);
        world.state(id, BookState::Live);
    }
    world.out.clear();
    // 4.2 % above the first ask, beyond belief; 2.5 % above the second, believable by itself.
    let bid = Record::level(Venue::Binance, 2, Side::Bid, Px(6_250_000), Qty(500));
    world.step(binance(bid));
    let live = Record::new(Kind::BookState, 1, 2, [BookState::Live as i64, 0, 0, 0]);
    world.step(binance(Record { flags: flag::LAST, ..live }));
    let halts = world.out.records().iter().filter(|r| r.kind() == Some(Kind::ControlLevel)).count();
    assert_eq!(halts, 2);
    assert!(world.told().is_empty());
    assert_eq!(world.engine.counts().opportunities, [0; 3]);
}

/// A clock that stepped must not make a book young for ever.
/// Row MD-16.
#[test]
fn a_stamp_from_the_future_ages_like_any_other() {
    let mut world = World::new();
    let ahead = world.now_ns + 3_600_000 * MS;
    let level = Record::level(Venue::Coinbase, 0, Side::Ask, Px(6_000_100), Qty(9_999));
    let (now_ns, flags) = (world.now_ns, flag::LAST);
    let stamped = Record { engine_ts_ns: now_ns, recv_ts_ns: ahead, conn: 1, flags, ..level };
    world.engine.step(&stamped, &mut world.out);
    world.now_ns += 600_000 * MS;
    world.out.clear();
    world.dislocate();
    assert_eq!(world.denials().first().map(|denial| denial.verdict), Some(Verdict::Stale));
}

/// Row MD-05.
#[test]
fn a_crossed_book_is_not_used_whoever_calls_it_live() {
    let mut world = World::new();
    world.level(0, Side::Bid, 6_000_100, 10, flag::LAST);
    world.dislocate();
    assert!(world.told().is_empty());
}

/// Extreme stamps neither panic nor differ between builds.
#[test]
fn extreme_times_are_survived() {
    for at in [i64::MAX, i64::MIN, 0, -1] {
        let mut world = World::new();
        world.now_ns = at;
        world.dislocate();
        world.mend();
        world.timer(0);
    }
}

#[test]
fn verdicts_that_alternate_do_not_flood() {
    let mut world = World::new();
    let beyond = |world: &mut World, lot: i64| {
        let data = [TradingStatus::Trading as i64, 1, lot, 1_000_000];
        let record = Record::new(Kind::InstrumentChange, Venue::Kraken as u8, 1, data);
        world.step(Record { flags: flag::LAST, ..record });
    };
    world.now_ns += 1_001 * MS;
    for n in 0..100 {
        // Stale, then halted, then stale again: each has its own pace.
        let command = if n % 2 == 0 { Command::Halt } else { Command::Release };
        let record = Record::new(Kind::Command, 2, 0, [command as i64, 0, 0, 0]);
        world.step(Record { flags: flag::LAST, ..record });
        beyond(&mut world, 1 + n % 3);
        world.level(1, Side::Bid, 6_000_700 + n, 1, flag::LAST);
    }
    assert!(world.denials().len() <= 4, "one a verdict");
}
