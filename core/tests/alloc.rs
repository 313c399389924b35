//! The engine allocates nothing after its construction: counted, not believed.

mod desk;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Amount, FeePpm, Px, Qty, Side};

struct Counting;

thread_local! {
    /// By thread: the test harness prints, and allocates, from another one.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator unchanged; counting has no effect on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A small generator; the test needs variety, not quality.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn universe() -> Universe {
    let asset = |name: &str| Asset { name: name.to_string(), exponent: 6 };
    let mut instruments = Vec::new();
    for venue in Venue::ALL {
        for (base, quote) in [(2, 0), (3, 0), (2, 1), (3, 1), (3, 2), (1, 0)] {
            instruments.push(Instrument {
                venue,
                base: AssetId(base),
                quote: AssetId(quote),
                px_exponent: 4,
                tick: Px(1),
                lot: Qty(10),
                qty_min: Qty(10),
                qty_max: Qty(1 << 40),
                notional_min: Amount(1),
                notional_max: Amount(1 << 50),
                taker_fee: FeePpm(100),
                fee_in: FeeIn::Received,
                status: TradingStatus::Trading,
            });
        }
    }
    Universe { assets: vec![asset("USD"), asset("USDT"), asset("BTC"), asset("ETH")], instruments }
}

#[test]
fn step_allocates_nothing() {
    let venue = VenueParams {
        slippage_ppm: 10,
        staleness_ppm_per_s: 10,
        age_ns_max: 1_000_000_000,
        order_latency_ns: 3_000_000,
    };
    let params = Params {
        edge_min_ppm: 0,
        edge_max_ppm: 100_000,
        edge_max_halt_ns: 1_000_000,
        basis_ppm: 0,
        venues: [venue; 3],
        numeraires: vec![AssetId(0)],
        legs_max: 3,
        cycles_max: 100_000,
        window_levels: 20,
        flicker_ns: 1_000_000,
        denial_ns: 1_000_000,
        update_ns: 1_000_000,
    };
    let mut engine = Engine::new(universe(), params).expect("sound");
    let mut out = Outbox::new(OUTBOX_RECORDS);
    let values = [1.0f64, 1.0, 50.0, 3.0];
    let mut seed = 7;
    let before = ALLOCATIONS.get();
    let mut outputs = 0;
    for n in 0..12_000i64 {
        let id = (next(&mut seed) % 18) as u16;
        let rules = &engine.universe().instruments[usize::from(id)];
        let (base, quote) = (usize::from(rules.base.0), usize::from(rules.quote.0));
        let venue = rules.venue;
        let side = if next(&mut seed).is_multiple_of(2) { Side::Bid } else { Side::Ask };
        let away = 1 + (next(&mut seed) % 60) as i64;
        // Venues differ by a little, and now and then one is off beyond belief.
        let spike = if n / 600 % 5 == 4 && venue == Venue::Kraken { 300 } else { 0 };
        let per_mille = 1_000 + 2 * venue as i64 + spike;
        let middle = (values[base] / values[quote] * 10_000.0) as i64 * per_mille / 1_000;
        let step = (middle / 2_000).max(1);
        let px = if side == Side::Bid { middle - away * step } else { middle + away * step };
        let qty = (next(&mut seed) % 3) as i64 * 1_000_000;
        let record = match n % 50 {
            // Before the prices move, every book is emptied: none is ever crossed.
            _ if n % 600 < 18 => {
                let id = (n % 600) as u16;
                let venue = engine.universe().instruments[usize::from(id)].venue;
                Record::new(Kind::Clear, venue as u8, id, [0; 4])
            }
            0 => Record::new(Kind::Timer, 0, u16::MAX, [0; 4]),
            1 => {
                let state = if n % 100 == 1 { BookState::Live } else { BookState::Stale };
                Record::new(Kind::BookState, venue as u8, id, [state as i64, 0, 0, 0])
            }
            2..20 => {
                Record::new(Kind::BookState, venue as u8, id, [BookState::Live as i64, 0, 0, 0])
            }
            _ => Record::level(venue, id, side, Px(px.max(1)), Qty(qty)),
        };
        let at = 1_000_000_000 + n * 20_000;
        let stamped = Record { engine_ts_ns: at, recv_ts_ns: at, flags: flag::LAST, ..record };
        engine.step(&stamped, &mut out);
        outputs += out.records().len();
        out.clear();
    }
    let allocations = ALLOCATIONS.get() - before;
    let counts = *engine.counts();
    println!(
        "{} records, {outputs} outputs, {counts:?}: {allocations} allocations",
        counts.records
    );
    assert_eq!(allocations, 0);
    assert!(counts.opportunities.iter().all(|kind| 0 < *kind), "every kind was met: {counts:?}");
    assert!(0 < counts.denials && 0 < counts.halts && out.lost() == 0);
}

/// Row I9. Trading allocates nothing either: entries, fills, hedges, queries, levels, paper.
#[test]
fn trading_allocates_nothing() {
    use desk::{BTC, Dice, MS, S, USD, World, fill, trading, universe};
    use tandem_core::limits::Mode;
    use tandem_core::order::{DoneStatus, Report, UnknownCause};

    for mode in [Mode::Live, Mode::Paper] {
        let universe = universe(true);
        let mut world = World::new(universe.clone(), trading(mode, &universe));
        world.keeps_journal = false;
        world.open(100 * BTC, 10_000_000 * USD);
        let mut dice = Dice(3);
        let mut spent = 0;
        for n in 0..400u64 {
            let before = ALLOCATIONS.get();
            world.health();
            world.books();
            world.arm();
            world.dislocate(1 + n as u16 % 2, BTC / 8 + dice.below(900) * 100);
            world.timer(5 * MS);
            world.timer(5 * MS);
            spent += ALLOCATIONS.get() - before;
            // The test's own lists are not the engine's.
            let mut at = 0;
            while let (Mode::Live, Some(order)) = (mode, world.orders().get(at)) {
                let whole = fill(&world, order, order.qty.0, n * 64 + at as u64 + 1);
                at += 1;
                let before = ALLOCATIONS.get();
                if dice.chance(25) {
                    world.report(order, Report::Unknown { cause: UnknownCause::Timeout });
                }
                let filled = if dice.chance(70) { order.qty } else { Qty(0) };
                let status = DoneStatus::Expired;
                world.report(order, Report::Done { status, qty: filled });
                if filled.0 != 0 {
                    world.report(order, whole);
                }
                world.timer(25 * MS);
                spent += ALLOCATIONS.get() - before;
            }
            let before = ALLOCATIONS.get();
            world.timer(S);
            spent += ALLOCATIONS.get() - before;
            world.echo();
            world.out.clear();
        }
        let counts = world.engine.desk().expect("trades").counts();
        println!(
            "figure I9: {mode:?}: {} rounds, {} fills, {spent} allocations",
            counts.rounds, counts.fills
        );
        assert!(50 < counts.rounds && 50 < counts.fills, "{counts:?}");
        assert_eq!(spent, 0);
    }
}
