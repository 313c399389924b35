//! The drift report: two engines over the same market with one thing changed, and the reason that is found for it.
//!
//! Each journal is what an engine of `core` took in and put out. The money of all reasons is the whole difference
//! of the two results, in every case; two equal journals differ in nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../../core/tests/desk/mod.rs"]
#[allow(unexpected_cfgs, missing_docs, reason = "the engine's own tests have that feature")]
mod desk;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use desk::*;
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::limits::{Mode, Trading};
use tandem_core::order::{
    Action, DoneStatus, NewOrder, Purpose, RejectClass, Report, UnknownCause,
};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{FeePpm, Px, Qty, Side as BookSide};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalSpec, JournalWriter, tsc};
use tandem_tools::config::Config;
use tandem_tools::reports::drift::depth::Depth;
use tandem_tools::reports::drift::side::Reader;
use tandem_tools::reports::drift::{self, Drift, Only, Side, What};
use tandem_tools::reports::page;
use tandem_tools::reports::period::Period;
use tandem_tools::table::{self, ListingText, Setup, Table};

const SAMPLE: &str = include_str!("../../../deploy/tandem.toml");

fn setup() -> Setup {
    let config = Config::parse(SAMPLE, Path::new("tandem.toml")).unwrap();
    let listing = |venue: &str, symbol: &str| ListingText {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        feed_symbol: symbol.to_owned(),
        rest_symbol: symbol.to_owned(),
        base: "BTC".to_owned(),
        quote: "USD".to_owned(),
        tick: "0.01".to_owned(),
        lot: "0.0001".to_owned(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: String::new(),
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: TradingStatus::Trading as u8,
        taker_fee_ppm: 100,
        fee_in: "quote".to_owned(),
        notional_max: "10000000".to_owned(),
    };
    Setup {
        mode: "observe".to_owned(),
        listings: vec![
            listing("binance", "BTCUSD"),
            listing("coinbase", "BTC-USD"),
            listing("kraken", "BTC/USD"),
        ],
        detection: table::detection(&config),
        limits: None,
        run: 7,
    }
}

/// The journal's instruments by name, with the rules of the world's.
fn side(world: &World) -> Side {
    side_of(world, setup())
}

fn side_of(world: &World, setup: Setup) -> Side {
    let table = Table::build(setup, "a test").unwrap();
    let mut reader = Reader::of(Table { universe: world.engine.universe().clone(), ..table });
    world.journal.iter().for_each(|record| reader.take(record).unwrap());
    reader.end()
}

fn compare(live: &World, replayed: &World) -> Drift {
    let report = drift::drift(&side(live), &side(replayed), drift::WINDOW_MS).unwrap();
    for line in &report.reasons {
        println!(
            "  {} {}: {} ({}) {} times, {}",
            line.what.name(),
            line.only.name(),
            line.reason,
            line.code,
            line.count,
            line.money
        );
    }
    for one in report.examples.iter().take(3) {
        println!("  unexplained: {} {} {}", one.what.name(), one.place, one.detail);
    }
    let sum: i128 = report.reasons.iter().map(|line| line.money_quanta).sum();
    assert_eq!(sum, report.difference_quanta, "the reasons' money is the whole difference");
    let text = page::text(&drift::page(&report));
    assert!(text.contains("Calibration error") && text.contains(&report.difference));
    report
}

fn codes(report: &Drift, what: What) -> BTreeSet<(Only, &str)> {
    let of = |line: &&drift::ReasonLine| line.what == what;
    report.reasons.iter().filter(of).map(|line| (line.only, line.code.as_str())).collect()
}

fn paper() -> Trading {
    trading(Mode::Paper, &universe(false))
}

/// A world that is armed; the account holds so much at every venue.
fn begun(universe: Universe, trading: Trading, base: i64) -> World {
    let mut world = World::new(universe, trading);
    world.open(base, 10_000_000 * USD);
    world.health();
    world.books();
    world.arm();
    world.out.clear();
    world
}

/// The market: three dislocations, each of which halves after five milliseconds and is gone after fifty.
fn market(world: &mut World, mut before: impl FnMut(&mut World, usize)) {
    for nth in 0..3 {
        before(world, nth);
        let px = world.dislocate(2, BTC / 4);
        for _ in 0..5 {
            world.timer(MS);
        }
        world.level(2, BookSide::Bid, px, BTC / 8, flag::LAST);
        for _ in 0..45 {
            world.timer(MS);
        }
        // Back to where it was, as the venue would show it.
        world.books();
        for _ in 0..60 {
            world.timer(50 * MS);
            world.beat();
        }
        world.out.clear();
    }
}

fn on_paper(trading: Trading) -> World {
    let mut world = begun(universe(false), trading, 100 * BTC);
    market(&mut world, |_, _| {});
    world
}

#[test]
fn equal_journals_differ_in_nothing() {
    let (live, replayed) = (on_paper(paper()), on_paper(paper()));
    let report = compare(&live, &replayed);
    assert!(report.reasons.is_empty() && report.unexplained == 0, "{:#?}", report.reasons);
    assert!(3 <= report.rounds_matched, "{} rounds", report.rounds_matched);
    assert!(3 <= report.opportunities_matched && 6 <= report.live.fills);
    let c = &report.calibration;
    assert_eq!((c.matched, c.recorded_rounds), (report.rounds_matched, c.simulated_rounds));
    assert_eq!(
        (c.fill_rate_error_ppm, c.price_error_ppm, c.time_error_us, c.pnl_error),
        (0, 0, 0, 0)
    );
}

#[test]
fn latency_is_found_and_its_time_told() {
    let mut slow = paper();
    slow.venues[2].paper_latency_ns = 9 * MS;
    let report = compare(&on_paper(slow), &on_paper(paper()));
    assert!(codes(&report, What::Fill).contains(&(Only::Both, "latency")), "{:?}", report.reasons);
    assert_eq!(report.unexplained, 0, "{:#?}", report.examples);
    assert!(report.calibration.time_error_us < 0, "{:?}", report.calibration);
    // What was not filled was hedged, and that follows from it.
    assert!(
        codes(&report, What::Order).contains(&(Only::Both, "first_leg")),
        "{:?}",
        report.reasons
    );
}

#[test]
fn a_fee_is_found() {
    let mut dear = universe(false);
    dear.instruments[2].taker_fee = FeePpm(1_100);
    let mut live = begun(dear, paper(), 100 * BTC);
    market(&mut live, |_, _| {});
    let report = compare(&live, &on_paper(paper()));
    let all: BTreeSet<&str> = report.reasons.iter().map(|line| line.code.as_str()).collect();
    assert!(all.contains("fees") && all.contains("fee_charged"), "{all:?}");
    assert_eq!(report.unexplained, 0, "{:#?}", report.examples);
    assert!(report.difference_quanta < 0, "fees were paid live");
}

#[test]
fn a_missing_book_is_found() {
    let mut replayed = begun(universe(false), paper(), 100 * BTC);
    market(&mut replayed, |world, nth| {
        if nth == 1 {
            let stale = Record::new(
                Kind::BookState,
                Venue::Kraken as u8,
                2,
                [BookState::Stale as i64, 0, 0, 0],
            );
            world.step(Record { flags: flag::LAST, ..stale });
        }
    });
    let report = compare(&on_paper(paper()), &replayed);
    let found = codes(&report, What::Round);
    assert!(found.contains(&(Only::Live, "book_not_live")), "{:?}", report.reasons);
    assert_eq!(report.unexplained, 0, "{:#?}", report.examples);
}

#[test]
fn a_pause_is_found() {
    let mut replayed = begun(universe(false), paper(), 100 * BTC);
    market(&mut replayed, |world, nth| match nth {
        1 => {
            world.page = world.page.raised(Scope::Global, Level::Pause, Cause::Operator).unwrap();
            let page = world.page.record();
            world.step(page);
        }
        2 => world.arm(),
        _ => {}
    });
    let report = compare(&on_paper(paper()), &replayed);
    assert!(
        codes(&report, What::Round).contains(&(Only::Live, "not_armed")),
        "{:?}",
        report.reasons
    );
    assert_eq!(report.unexplained, 0, "{:#?}", report.examples);
}

#[test]
fn a_control_is_found_by_its_code() {
    let mut capped = paper();
    capped.session_orders_max = 2;
    let report = compare(&on_paper(paper()), &on_paper(capped));
    assert!(
        codes(&report, What::Round).contains(&(Only::Live, "denied:C25_session")),
        "{:?}",
        report.reasons
    );
    assert_eq!(report.unexplained, 0, "{:#?}", report.examples);
}

#[test]
fn balances_that_do_not_cover_the_size_are_found() {
    let mut replayed = begun(universe(false), paper(), BTC / 10);
    market(&mut replayed, |_, _| {});
    let report = compare(&on_paper(paper()), &replayed);
    assert!(
        codes(&report, What::Round).contains(&(Only::Both, "balances")),
        "{:?}",
        report.reasons
    );
    let money: i128 = report
        .reasons
        .iter()
        .filter(|line| line.code == "balances")
        .map(|line| line.money_quanta)
        .sum();
    assert!(0 < money, "the smaller size earned less");
}

/// A journal that ends early, and one of another market.
#[test]
fn what_a_journal_does_not_reach_is_told() {
    let live = on_paper(paper());
    let mut replayed = on_paper(paper());
    let second = second_round_begins(&replayed);
    replayed.journal.truncate(second);
    let report = compare(&live, &replayed);
    assert!(codes(&report, What::Round).contains(&(Only::Live, "outside")), "{:?}", report.reasons);
    let mut other = setup();
    other.listings.pop();
    let other = Reader::of(Table::build(other, "a test").unwrap()).end();
    let error = drift::drift(&side(&live), &other, 1).unwrap_err().to_string();
    assert!(error.contains("different instruments") && error.contains("backtest"), "{error}");
    let none = drift::drift(&Side::default(), &side(&live), 1).unwrap_err().to_string();
    assert!(none.contains("--live: no configuration"), "{none}");
}

/// Where the second round's first record stands.
fn second_round_begins(world: &World) -> usize {
    let is_second = |record: &Record| NewOrder::read(record).is_some_and(|o| o.key.round() == 2);
    world.journal.iter().position(is_second).unwrap()
}

/// A round that is taken out of a journal leaves nothing that says why it is not there.
fn without_second_round(mut world: World) -> World {
    let named = |record: &Record| record.data[0] >> 16 == 2;
    let of_order = |kind: Kind| (32..=41).contains(&(kind as u8));
    let mut is_told = false;
    world.journal.retain(|record| {
        let kind = record.kind().unwrap();
        if kind == Kind::Round && record.part == 0 {
            is_told = record.data[1] == 2;
        }
        let is_denial = kind == Kind::Denial;
        !((of_order(kind) && named(record)) || (kind == Kind::Round && is_told) || is_denial)
    });
    world
}

#[test]
fn what_has_no_reason_is_unexplained() {
    let replayed = without_second_round(on_paper(paper()));
    let mut live = on_paper(paper());
    live.journal.retain(|record| record.kind() != Some(Kind::Denial));
    let report = compare(&live, &replayed);
    assert!(
        codes(&report, What::Round).contains(&(Only::Live, "unexplained")),
        "{:?}",
        report.reasons
    );
    assert!(1 <= report.unexplained && !report.examples.is_empty());
    assert_eq!(report.unexplained_money, report.difference);
}

/// Both sides of the same market, with the second round of the replay smaller by half, or its second opportunity, or
/// without its second round: of each nothing says why.
fn with_a_difference(what: What, only: Only) -> (Side, Side) {
    // With limits: a cycle that a control denied rests for ten milliseconds.
    let limits = tandem_tools::backtest::limits::wide(&setup()).unwrap();
    assert_eq!(limits.retry_ms, 10);
    let setup = Setup { mode: "paper".to_owned(), limits: Some(limits), ..setup() };
    let live = side_of(&on_paper(paper()), setup.clone());
    let mut world = on_paper(paper());
    if only == Only::Live {
        world = without_second_round(world);
    }
    let mut is_second = false;
    for record in &mut world.journal {
        let kind = record.kind().unwrap();
        if kind == Kind::Round && record.part == 0 {
            is_second = record.data[1] == 2;
        }
        if kind == Kind::Opportunity && record.part == 0 {
            is_second = record.data[1] == 2;
        }
        let legs_from = match (what, kind) {
            (What::Round, Kind::Round) => 2,
            (What::Opportunity, Kind::Opportunity) => 3,
            _ => continue,
        };
        if only == Only::Both && is_second && legs_from <= record.part {
            record.data[1] /= 2;
        }
    }
    (live, side_of(&world, setup))
}

/// The reason that is given for the one thing that differs.
fn reason(live: &Side, replayed: &Side, what: What, only: Only) -> (String, String) {
    let report = drift::drift(live, replayed, drift::WINDOW_MS).unwrap();
    let of = |one: &&drift::Difference| (one.what, one.only) == (what, only);
    let all: Vec<&drift::Difference> = report.differences.iter().filter(of).collect();
    assert_eq!(all.len(), 1, "{:#?}", report.differences);
    (all[0].code.clone(), all[0].detail.clone())
}

/// A reason for another size is given where its fact is there, and not where it is not.
#[test]
fn another_size_of_a_round_has_the_reason_whose_fact_differs() {
    type Change = fn(&mut Side, &mut Side, usize);
    let changes: [(&str, Change); 13] = [
        ("unexplained", |_, _, _| {}),
        ("ramp", |live, replayed, _| {
            (live.ramp_rounds, replayed.ramp_rounds) = (1, 1);
            replayed.rounds.iter_mut().for_each(|round| round.since_armed = 0);
        }),
        // Both were, or neither: another number of rounds before is no reason.
        ("unexplained", |live, replayed, at| {
            (live.ramp_rounds, replayed.ramp_rounds) = (1, 1);
            live.rounds[at].since_armed += 1;
        }),
        ("other_moment", |_, replayed, at| replayed.rounds[at].report.opened_ns += MS),
        ("balances", |live, replayed, at| {
            live.rounds[at].stands[0].funds = Some(1 << 60);
            replayed.rounds[at].stands[0].funds = Some(1);
        }),
        // As little on both sides is no difference.
        ("unexplained", |live, replayed, at| {
            live.rounds[at].stands[0].funds = Some(1);
            replayed.rounds[at].stands[0].funds = Some(1);
        }),
        ("balances", |live, replayed, at| {
            live.rounds[at].stands[1].room = Some(1 << 60);
            replayed.rounds[at].stands[1].room = Some(1);
        }),
        ("own_orders", |_, replayed, at| {
            let leg = replayed.rounds[at].report.legs()[0];
            let side = leg.action.takes().idx();
            replayed.rounds[at].stands[0].hidden.insert((side, leg.px.0), LOT);
        }),
        // The other side of the book is not what the order takes.
        ("unexplained", |_, replayed, at| {
            let leg = replayed.rounds[at].report.legs()[0];
            let side = 1 - leg.action.takes().idx();
            replayed.rounds[at].stands[0].hidden.insert((side, leg.px.0), LOT);
        }),
        ("exposure", |live, replayed, at| {
            live.rounds[at].stands[0].exposure = [Some(1 << 60); 2];
            replayed.rounds[at].stands[0].exposure = [Some(1), None];
        }),
        ("unexplained", |live, replayed, at| {
            live.rounds[at].stands[0].exposure = [Some(1 << 60); 2];
            replayed.rounds[at].stands[0].exposure = [Some(1 << 59); 2];
        }),
        ("book_at_decision", |_, replayed, at| replayed.rounds[at].stands[1].book.0 += 1),
        ("skew", |_, replayed, at| replayed.rounds[at].skew_ppm += 1),
    ];
    for (code, change) in changes {
        let (mut live, mut replayed) = with_a_difference(What::Round, Only::Both);
        let at = live.rounds.iter().position(|round| round.report.id == 2).unwrap();
        change(&mut live, &mut replayed, at);
        let (found, detail) = reason(&live, &replayed, What::Round, Only::Both);
        assert_eq!(found, code, "{detail}");
    }
}

#[test]
fn another_size_of_an_opportunity_has_the_reason_whose_fact_differs() {
    type Change = fn(&mut drift::side::Seen);
    let changes: [(&str, Change); 6] = [
        ("unexplained", |_| {}),
        ("own_orders", |seen| {
            let leg = seen.legs[0];
            seen.hidden[0].insert((usize::from(leg.side), leg.px.0), LOT);
        }),
        // Beyond its limit, and on the other side, nothing that was hidden was missed.
        ("unexplained", |seen| {
            let leg = seen.legs[0];
            let worse = if leg.side == 1 { leg.px.0 + 1 } else { leg.px.0 - 1 };
            seen.hidden[0].insert((usize::from(leg.side), worse), LOT);
            seen.hidden[0].insert((usize::from(1 - leg.side), leg.px.0), LOT);
        }),
        // Of whichever leg, though the size of another is told.
        ("book_at_decision", |seen| seen.legs[1].update_id += 1),
        ("book_at_decision", |seen| seen.legs[1].recv_ts_ns += 1),
        ("staleness", |seen| seen.buffers_ppm += 1),
    ];
    for (code, change) in changes {
        let (live, mut replayed) = with_a_difference(What::Opportunity, Only::Both);
        let at = (0..live.seen.len()).find(|at| {
            let qty = |side: &Side| side.seen[*at].legs[0].qty;
            qty(&live) != qty(&replayed)
        });
        change(&mut replayed.seen[at.unwrap()]);
        let (found, detail) = reason(&live, &replayed, What::Opportunity, Only::Both);
        assert_eq!(found, code, "{detail}");
    }
}

/// A denial says why a round is not there where it is of that cycle and of that time: told then, or so shortly before
/// that the cycle rested or its repeats are told to have gone on.
#[test]
fn a_denial_is_a_reason_only_for_its_cycle_and_its_time() {
    let denial = |at_ns: i64, code: &str, times: i64, is_control: bool| drift::side::Denied {
        at_ns,
        code: code.to_owned(),
        times,
        is_control,
        rests: is_control && code != "outranked",
    };
    let (live, other) = with_a_difference(What::Round, Only::Live);
    let missing = live.rounds.iter().find(|round| round.report.id == 2).unwrap();
    let (cycle, ns) = (missing.report.cycle, missing.report.opened_ns);
    let denial_ns = other.table.as_ref().unwrap().params.denial_ns;
    assert!(other.seen.iter().any(|seen| seen.cycle == cycle), "it was seen there as well");
    let throttle = "C13_throttle";
    let outranked = "outranked";
    let cases = [
        (vec![], "unexplained"),
        (vec![(cycle, denial(ns, throttle, 1, true))], "denied:C13_throttle"),
        (vec![(cycle, denial(ns, outranked, 1, true))], "denied:outranked"),
        (vec![(cycle, denial(ns + 50 * MS, throttle, 1, true))], "denied:C13_throttle"),
        // Of another cycle; too long ago; too late.
        (vec![(cycle + 1, denial(ns, throttle, 1, true))], "unexplained"),
        (vec![(cycle, denial(ns - denial_ns - 1, throttle, 1, true))], "unexplained"),
        (vec![(cycle, denial(ns + 251 * MS, throttle, 1, true))], "unexplained"),
        // Its repeats are not told yet, are told, and are told to have been none.
        (vec![(cycle, denial(ns - denial_ns, throttle, 1, true))], "denied:C13_throttle"),
        (
            vec![
                (cycle, denial(ns - 500 * MS, throttle, 1, true)),
                (cycle, denial(ns + 600 * MS, throttle, 4, true)),
            ],
            "denied:C13_throttle",
        ),
        (
            vec![
                (cycle, denial(ns - 500 * MS, throttle, 1, true)),
                (cycle, denial(ns + 600 * MS, throttle, 1, true)),
            ],
            "unexplained",
        ),
        // It rested; what was outranked does not rest.
        (
            vec![
                (cycle, denial(ns - 10 * MS, throttle, 1, true)),
                (cycle, denial(ns + 600 * MS, throttle, 1, true)),
            ],
            "denied:C13_throttle",
        ),
        (
            vec![
                (cycle, denial(ns - 10 * MS, outranked, 1, true)),
                (cycle, denial(ns + 600 * MS, outranked, 1, true)),
            ],
            "unexplained",
        ),
        // Another code's repeats are not its own.
        (
            vec![
                (cycle, denial(ns - 500 * MS, throttle, 1, true)),
                (cycle, denial(ns + 600 * MS, throttle, 1, true)),
                (cycle, denial(ns + 601 * MS, "C14_duplicate", 4, true)),
            ],
            "unexplained",
        ),
        // The nearest counts.
        (
            vec![
                (cycle, denial(ns - 20 * MS, throttle, 1, true)),
                (cycle, denial(ns, outranked, 1, true)),
            ],
            "denied:outranked",
        ),
        (vec![(cycle, denial(ns, "edge", 1, false))], "denied:edge"),
    ];
    for (nth, (denials, code)) in cases.into_iter().enumerate() {
        let (live, mut replayed) = with_a_difference(What::Round, Only::Live);
        replayed.denials.clear();
        for (cycle, denied) in denials {
            replayed.denials.entry(cycle).or_default().push(denied);
        }
        let (found, detail) = reason(&live, &replayed, What::Round, Only::Live);
        assert_eq!(found, code, "case {nth}: {detail}");
    }
}

/// The same bids come again. In the one world its orders are not answered, and what they are about to take is not
/// counted on; in the other they ended without a fill.
fn twice(are_answered: bool) -> World {
    let mut world = begun(universe(false), trading(Mode::Live, &universe(false)), 100 * BTC);
    let px = world.dislocate(2, BTC / 4);
    for order in world.orders() {
        if are_answered {
            world.report(&order, Report::Done { status: DoneStatus::Expired, qty: Qty(0) });
        }
    }
    // Nothing more is tried: it is what is seen that differs.
    world.page = world.page.raised(Scope::Global, Level::Pause, Cause::Operator).unwrap();
    world.step(world.page.record());
    world.level(2, BookSide::Bid, px, 0, flag::LAST);
    for _ in 0..20 {
        world.timer(MS);
    }
    world.level(2, BookSide::Bid, px, BTC, flag::LAST);
    for _ in 0..20 {
        world.timer(MS);
    }
    world
}

#[test]
fn depth_that_open_orders_hide_is_found() {
    let (live, replayed) = (twice(true), twice(false));
    let report = compare(&live, &replayed);
    let found = codes(&report, What::Opportunity);
    assert!(found.contains(&(Only::Both, "own_orders")), "{:?}", report.reasons);
    let told = report.differences.iter().find(|one| one.code == "own_orders").unwrap();
    assert!(told.detail.contains("own orders hid 0 at"), "{}", told.detail);
    let of_opportunities = |report: &Drift| {
        let unexplained = report.differences.iter().filter(|one| one.code == "unexplained");
        unexplained.filter(|one| one.what == What::Opportunity).count()
    };
    assert_eq!(of_opportunities(&report), 0, "{:#?}", report.examples);
    // Without the orders in its journal nothing is known of what they hid.
    let mut replayed = twice(false);
    replayed.journal.retain(|record| record.kind() != Some(Kind::OrderNew));
    let report = compare(&live, &replayed);
    assert!(0 < of_opportunities(&report), "{:#?}", report.differences);
    let found = codes(&report, What::Opportunity);
    assert!(!found.contains(&(Only::Both, "own_orders")), "{:?}", report.reasons);
}

/// After every record of a market that moves at random, with orders that fill whole, in part, late and not at all, the
/// depth that is left, and the exposure, are the engine's own.
#[test]
fn what_is_hidden_is_what_the_engine_does_not_count_on() {
    let table = Table::build(setup(), "a test").unwrap();
    let (mut hidden, mut exposed, mut orders) = (0, 0, 0);
    for seed in 0..20 {
        let mut dice = Dice(seed + 1);
        let limits = Trading {
            own_interest_ns: i64::MAX / 4,
            session_orders_max: 40,
            ..trading(Mode::Live, &universe(false))
        };
        let mut world = begun(universe(false), limits, 100 * BTC);
        let params = tandem_core::params::Params { window_levels: 16, ..table.params.clone() };
        let (universe, setup) = (world.engine.universe().clone(), setup());
        let instruments = table.instruments.clone();
        let table = Table { setup, universe, instruments, params };
        let mut depth = Depth::new(&table);
        let (mut read, mut open, mut trade) = (0, Vec::new(), 0u64);
        for _ in 0..300 {
            match dice.below(8) {
                0 => _ = world.dislocate(2, BTC / 8 * (1 + dice.below(6))),
                1 => world.books(),
                2 => {
                    let px = 60_600 * PX - dice.below(3) * PX;
                    world.level(2, BookSide::Bid, px, BTC / 8 * dice.below(4), flag::LAST);
                }
                3 | 4 if !open.is_empty() => {
                    let order: NewOrder = open.swap_remove(dice.below(open.len() as i64) as usize);
                    let qty = order.qty.0 / LOT * dice.below(4) / 3 * LOT;
                    trade += 1;
                    let filled = fill(&world, &order, qty.max(1), trade);
                    let status = DoneStatus::Expired;
                    let reports = [filled, Report::Done { status, qty: Qty(qty) }];
                    let reports = if qty == 0 { &reports[1..] } else { &reports[..] };
                    // The end may be told before the fill.
                    let order_of = if dice.chance(30) { [1, 0] } else { [0, 1] };
                    for idx in order_of {
                        if let Some(report) = reports.get(idx) {
                            world.report(&order, *report);
                        }
                    }
                }
                5 => world.health(),
                _ => world.timer(dice.below(15) * MS),
            }
            open.extend(world.orders());
            world.out.clear();
            for record in &world.journal[read..] {
                depth.take(record, &table);
            }
            read = world.journal.len();
            for instrument in 0..3 {
                let levels = |market: &tandem_core::market::Market| -> Vec<_> {
                    let depth = market.get(instrument).depth();
                    BookSide::BOTH.into_iter().map(|s| depth.levels(s).collect()).collect()
                };
                let (theirs, ours): (Vec<Vec<_>>, _) =
                    (levels(world.engine.market()), levels(depth.market()));
                assert_eq!(ours, theirs, "seed {seed}, instrument {instrument}");
                hidden += u64::from(!depth.now(instrument).is_empty());
            }
            let btc = AssetId(1);
            let (low, high) = world.engine.view().unwrap().exposure(btc, None, &[]);
            let worst = low.abs().max(high.abs());
            assert_eq!(depth.exposure(btc, world.engine.universe()), worst, "seed {seed}");
            exposed += u64::from(worst != 0);
        }
        orders += world.engine.desk().unwrap().counts().orders;
    }
    println!("{orders} orders, something hidden {hidden} times, exposed {exposed} times");
    assert!(100 < orders && 1_000 < hidden && 1_000 < exposed, "{orders} {hidden} {exposed}");
}

/// A median is that of the orders that both filled; a few late ones do not move it.
#[test]
fn the_median_time_to_fill_is_told_of_both() {
    let mut slow = paper();
    slow.venues[2].paper_latency_ns = 4 * MS;
    let report = compare(&on_paper(slow), &on_paper(paper()));
    let c = &report.calibration;
    let (live, replayed) = (c.time_live_median_us.unwrap(), c.time_simulated_median_us.unwrap());
    println!("median {live} us live, {replayed} us replayed");
    assert!(0 < replayed && replayed <= live, "{live} {replayed}");
    let text = page::text(&drift::page(&report));
    assert!(text.contains(&format!("{live} us")) && text.contains(&format!("{replayed} us")));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["calibration"]["time_live_median_us"], live);
    assert_eq!(json["calibration"]["time_simulated_median_us"], replayed);
    let (mut nothing, mut same) = (side(&on_paper(paper())), side(&on_paper(paper())));
    for side in [&mut nothing, &mut same] {
        side.rounds.iter_mut().for_each(|round| round.entries.clear());
    }
    let report = drift::drift(&nothing, &same, drift::WINDOW_MS).unwrap();
    assert_eq!(report.calibration.time_live_median_us, None);
    assert!(page::text(&drift::page(&report)).contains("none"));
}

/// What a venue answers to an entry order of the second leg.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Fills,
    Better,
    Part,
    Refuses,
    Loses,
    Charges,
}

/// One round in live mode, by hand: the first leg fills, the second as `answer` says, hedges fill.
fn by_hand(answer: Answer) -> World {
    let mut world = begun(universe(false), trading(Mode::Live, &universe(false)), 100 * BTC);
    world.dislocate(2, BTC / 4);
    let (mut done, mut trade) = (BTreeSet::new(), 0);
    for _ in 0..200 {
        world.timer(MS);
        for order in world.orders() {
            if !done.insert(order.key) {
                continue;
            }
            trade += 1;
            let is_second = order.purpose == Purpose::Entry && order.key.n() == 1;
            reply(&mut world, &order, if is_second { answer } else { Answer::Fills }, trade);
        }
    }
    assert!(!done.is_empty());
    world.tell_balances();
    world
}

fn reply(world: &mut World, order: &NewOrder, answer: Answer, trade: u64) {
    let whole = order.qty.0;
    let done = |qty: i64| {
        let status = if qty == whole { DoneStatus::Filled } else { DoneStatus::Expired };
        Report::Done { status, qty: Qty(qty) }
    };
    match answer {
        Answer::Fills => {
            let fill = fill(world, order, whole, trade);
            world.report(order, fill);
            world.report(order, done(whole));
        }
        Answer::Better => {
            let by = if order.action == Action::Buy { -50 } else { 50 };
            let fill = fill_at(world.engine.universe(), order, Px(order.px.0 + by), whole, trade);
            world.report(order, fill);
            world.report(order, done(whole));
        }
        Answer::Part => {
            let fill = fill(world, order, whole / LOT / 2 * LOT, trade);
            world.report(order, fill);
            world.report(order, done(whole / LOT / 2 * LOT));
        }
        Answer::Refuses => {
            world.report(order, Report::Reject { class: RejectClass::Filter, code: -1013 });
        }
        Answer::Loses => {
            world.report(order, Report::Unknown { cause: UnknownCause::Timeout });
            world.report(order, done(0));
        }
        Answer::Charges => {
            let Report::Fill { px, qty, fee, asset, trade_id } = fill(world, order, whole, trade)
            else {
                panic!("a fill")
            };
            let fee = tandem_core::units::Amount(fee.0 + 5_000);
            world.report(order, Report::Fill { px, qty, fee, asset, trade_id });
            world.report(order, done(whole));
        }
    }
}

#[test]
fn what_a_venue_answered_otherwise_is_found() {
    for (answer, what, code) in [
        (Answer::Better, What::Fill, "price_on_arrival"),
        (Answer::Part, What::Fill, "depth_on_arrival"),
        (Answer::Refuses, What::Order, "rejected"),
        (Answer::Loses, What::Order, "unknown"),
        (Answer::Charges, What::Fill, "fee_charged"),
    ] {
        println!("{code}");
        let (live, replayed) = (by_hand(answer), by_hand(Answer::Fills));
        let report = compare(&live, &replayed);
        let found = codes(&report, what);
        assert!(found.contains(&(Only::Both, code)), "{code}: {:#?}", report.differences);
        assert_eq!(report.unexplained, 0, "{code}: {:#?}", report.examples);
        let line = report.reasons.iter().find(|line| line.code == code).unwrap();
        assert_eq!(line.money_quanta, report.difference_quanta, "{code}: its money");
        // What is hedged at the same price costs nothing more.
        let costs = matches!(answer, Answer::Better | Answer::Charges);
        assert!(!costs || report.difference_quanta != 0, "{code}");
    }
    let (one, other) = (by_hand(Answer::Fills), by_hand(Answer::Fills));
    assert!(compare(&one, &other).reasons.is_empty());
}

struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let name = format!("tandem-test-drift-{test}-{}", std::process::id());
        let path = Path::new("/dev/shm").join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(dir: &Path, world: &World) {
    let spec = JournalSpec {
        segment_bytes: 1 << 20,
        segments_max: 16,
        ..JournalSpec::new(record_schema())
    };
    let mut writer = JournalWriter::create(dir, &spec).unwrap();
    for record in table::to_records(&setup()).unwrap().iter().chain(&world.journal) {
        while writer.append(record).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    writer.beat(tsc());
}

/// The command: exit codes, text, JSON, page.
#[test]
fn the_command_says_by_its_exit_code_what_it_found() {
    let dir = Folder::new("command");
    let place = |name: &str| dir.0.join(name);
    let mut live = on_paper(paper());
    live.journal.retain(|record| record.kind() != Some(Kind::Denial));
    let mut same = on_paper(paper());
    same.journal = live.journal.clone();
    write(&place("live"), &live);
    write(&place("same"), &same);
    write(&place("less"), &without_second_round(on_paper(paper())));
    let run = |replayed: &str, more: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["report", "drift", "--live"])
            .arg(place("live"))
            .arg("--replayed")
            .arg(place(replayed))
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        (out.status.code(), text, String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, text, error) = run("same", &[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("Every difference has a reason."), "{text}");
    let (code, text, _) = run("less", &["--json"]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let unexplained = json["unexplained"].as_u64().unwrap();
    assert!(1 <= unexplained);
    let most = unexplained.to_string();
    let page = place("drift.html");
    let (code, text, error) =
        run("less", &["--unexplained-max", &most, "--html", page.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("drift.html"));
    assert!(fs::read_to_string(&page).unwrap().contains("UNEXPLAINED"));
    let (code, _, error) = run("less", &["--html", page.to_str().unwrap()]);
    assert_eq!(code, Some(2), "a page that is there is not replaced: {error}");
    let (code, _, error) = run("nowhere", &[]);
    assert_eq!(code, Some(3), "{error}");
    assert!(error.contains("--replayed"), "{error}");
}

/// A day of a journal begins with how things stood, not with nothing.
#[test]
fn a_period_knows_what_was_before_it() {
    let dir = Folder::new("period");
    let world = on_paper(paper());
    write(&dir.0.join("journal"), &world);
    let whole = Side::read(&dir.0.join("journal")).unwrap();
    let opened = |nth: usize| whole.rounds[nth].report.opened_ns;
    let nth = (0..whole.rounds.len()).find(|nth| opened(0) + S < opened(*nth)).unwrap();
    let from_ns = opened(nth) - MS;
    let period = Period { from_ns, to_ns: i64::MAX };
    let part = Side::read_within(&dir.0.join("journal"), period).unwrap();
    assert_eq!(part.rounds.len(), whole.rounds.len() - nth);
    assert!(from_ns <= part.from_ns && part.to_ns == whole.to_ns);
    assert_eq!(part.level(Venue::Kraken, from_ns), Some(Level::Armed));
    assert_eq!(part.is_live(2, from_ns), Some(true));
    assert_eq!(part.rounds[0].stands, whole.rounds[nth].stands);
    assert_eq!(part.rounds[0].since_armed, whole.rounds[nth].since_armed);
    assert_eq!(whole.rounds[nth].since_armed, nth as i64, "armed once, before the first");
    assert!(part.rounds[0].stands.iter().all(|stand| stand.funds.is_some()));
}

/// Any bytes give a report or an error, never a panic.
#[test]
fn hostile_records_are_survived() {
    let mut dice = Dice(11);
    let honest = on_paper(paper());
    let (mut compared, mut refused) = (0, 0);
    for _ in 0..20 {
        let mut world = begun(universe(false), paper(), BTC);
        world.journal = honest.journal.clone();
        for _ in 0..400 {
            let at = dice.below(world.journal.len() as i64) as usize;
            let record = &mut world.journal[at];
            match dice.below(6) {
                0 => record.data[dice.below(4) as usize] = dice.roll() as i64,
                1 => record.kind = dice.roll() as u8,
                2 => record.instrument = dice.roll() as u16,
                3 => record.engine_ts_ns = dice.roll() as i64,
                4 => record.venue = dice.roll() as u8,
                _ => record.part = dice.roll() as u8,
            }
        }
        let table = Table::build(setup(), "a test").unwrap();
        let mut reader = Reader::of(table);
        // A configuration that is none is an error, and the only one.
        if let Some(error) = world.journal.iter().find_map(|record| reader.take(record).err()) {
            assert!(error.to_string().contains("configuration"), "{error}");
            refused += 1;
            continue;
        }
        let report = drift::drift(&side(&honest), &reader.end(), drift::WINDOW_MS).unwrap();
        let sum: i128 = report.reasons.iter().map(|line| line.money_quanta).sum();
        assert_eq!(sum, report.difference_quanta);
        compared += 1;
    }
    println!("{compared} damaged journals compared, {refused} refused");
    assert!(5 <= compared, "{compared} compared, {refused} refused");
}
