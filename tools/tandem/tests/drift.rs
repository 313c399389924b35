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
use tandem_core::instrument::Universe;
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
    let table = Table::build(setup(), "a test").unwrap();
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
    assert_eq!(part.rounds[0].funds, whole.rounds[nth].funds);
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
