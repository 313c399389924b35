//! Fills that a venue takes back or corrects: the books follow, and nothing else is moved.

mod desk;

use std::collections::BTreeMap;

use desk::*;
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::instrument::AssetId;
use tandem_core::ledger::{Posting, Tag};
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::limits::Mode;
use tandem_core::order::{Action, DoneStatus, FillTerms, NewOrder, Report};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::restore::collect;
use tandem_core::round::Stage;
use tandem_core::units::{Amount, Px, Qty};
use tandem_core::value::{quote_of, shift_of};

fn world() -> World {
    World::armed(trading(Mode::Live, &universe(false)))
}

fn terms_of(fill: &Report) -> (u64, FillTerms) {
    let Report::Fill { px, qty, fee, asset, trade_id } = *fill else { unreachable!("a fill") };
    (trade_id, FillTerms { px, qty, fee, asset })
}

fn bust(trade_id: u64) -> Report {
    Report::Bust { trade_id, instead: None }
}

/// Enters a round and fills it whole: its legs and fills.
fn filled(world: &mut World, first_id: u64) -> Vec<(NewOrder, Report)> {
    world.out.clear();
    world.dislocate(2, BTC / 8);
    let legs = world.orders();
    assert_eq!(legs.len(), 2, "{:?}", world.denials());
    world.books();
    let mut all = Vec::new();
    for (at, leg) in legs.iter().enumerate() {
        let whole = fill(world, leg, leg.qty.0, first_id + at as u64);
        world.report(leg, whole);
        world.report(leg, Report::Done { status: DoneStatus::Filled, qty: leg.qty });
        all.push((*leg, whole));
    }
    world.out.clear();
    all
}

fn balances(world: &World) -> Vec<i128> {
    let each = Venue::ALL.iter().flat_map(|venue| [0, 1].map(|asset| (*venue, asset)));
    each.map(|(venue, asset)| world.held(venue, asset)).collect()
}

/// What is in rounds and dust.
fn exposure(engine: &Engine, asset: u16) -> i128 {
    let desk = engine.desk().expect("trades");
    let asset = AssetId(asset);
    let rounds: i128 = desk.rounds().iter().map(|round| round.flows.of(asset, None)).sum();
    rounds + desk.ledger().dust(asset)
}

/// What an order's fill moves, worked out here and not by the engine.
fn moves(world: &World, order: &NewOrder, fill: &FillTerms) -> Vec<((Venue, u16), i128)> {
    let rules = &world.engine.universe().instruments[usize::from(order.instrument)];
    let buys = order.action == Action::Buy;
    let sign = if buys { 1 } else { -1 };
    let shift = shift_of(world.engine.universe(), order.instrument);
    let quote = quote_of(fill.px, fill.qty.0, shift, buys);
    vec![
        ((order.venue, rules.base.0), i128::from(fill.qty.0) * sign),
        ((order.venue, rules.quote.0), -quote * sign),
        ((order.venue, fill.asset), -i128::from(fill.fee.0)),
    ]
}

/// Row OE-20. The three legs of a fill are reversed to the last unit, in an account of their own; the venue
/// is halted for a cause of its own, what is naked is counted and waits; said again, nothing changes.
#[test]
fn a_fill_that_is_taken_back_is_reversed_exactly() {
    let mut world = world();
    let opening = balances(&world);
    let legs = filled(&mut world, 1);
    let (order, whole) = legs[1];
    let (trade_id, terms) = terms_of(&whole);
    let before = balances(&world);
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.rounds().iter().count(), 0, "the round is over");
    let realised = desk.ledger().pnl().realised;

    world.report(&order, bust(trade_id));
    let postings: Vec<Posting> = world.out.records().iter().filter_map(Posting::read).collect();
    let told: BTreeMap<(Venue, u16), i128> = postings
        .iter()
        .filter(|posting| posting.tag == Tag::Bust)
        .map(|p| ((p.venue.expect("a venue"), p.asset.0), i128::from(p.delta.0)))
        .fold(BTreeMap::new(), |mut sums, (at, delta)| {
            *sums.entry(at).or_default() += delta;
            sums
        });
    let mut expected: BTreeMap<(Venue, u16), i128> = BTreeMap::new();
    for (at, delta) in moves(&world, &order, &terms) {
        *expected.entry(at).or_default() -= delta;
    }
    assert_eq!(told, expected);
    // That venue's books are as if the fill had never been.
    let at = 2 * order.venue.idx();
    assert_eq!(balances(&world)[at..at + 2], opening[at..at + 2]);
    assert_ne!(balances(&world), before);
    let desk = world.engine.desk().expect("trades");
    assert!(desk.ledger().check());
    // The other leg is naked and counts as such, and nothing is traded on that word.
    let other = &legs[0].0;
    let naked = if other.action == Action::Buy { other.qty.0 } else { -other.qty.0 };
    let fee_in_base =
        i128::from(terms_of(&legs[0].1).1.fee.0) * i128::from(terms_of(&legs[0].1).1.asset == 1);
    assert_eq!(exposure(&world.engine, 1), i128::from(naked) - fee_in_base);
    assert_eq!(desk.rounds().iter().map(|round| round.stage).collect::<Vec<_>>(), [Stage::Held]);
    assert_eq!(world.orders().len(), 0);
    // The order keeps what it was told.
    let slot = desk.orders().find(order.run, order.key).expect("known");
    assert_eq!(
        (desk.orders().get(slot).filled, desk.orders().get(slot).busted),
        (order.qty, order.qty)
    );
    assert!(desk.orders().get(slot).is_settled());
    // Halted there, for this, and nowhere else.
    world.echo();
    assert_eq!(world.page.of(Scope::Venue(order.venue)), Level::Halt);
    assert_eq!(world.page.of(Scope::Global), Level::Armed);
    assert_eq!(world.page.cause(), Some(Cause::Bust));

    // Said again, also after an operator armed: nothing at all.
    for armed in [false, true] {
        if armed {
            world.page =
                world.page.lowered(Scope::Venue(order.venue), Level::Armed).expect("lower");
            world.step(world.page.record());
        }
        let held = balances(&world);
        world.out.clear();
        world.report(&order, bust(trade_id));
        assert_eq!(world.out.records(), [], "said again");
        assert_eq!(balances(&world), held);
    }
    assert_eq!(world.engine.desk().expect("trades").counts().busts_repeated, 2);
    // The other leg too: nothing is left over, and what was realised is taken back with it.
    let (trade_id, _) = terms_of(&legs[0].1);
    world.report(&legs[0].0, bust(trade_id));
    assert_eq!(balances(&world), opening);
    assert_eq!(exposure(&world.engine, 1), 0);
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.rounds().iter().count(), 0);
    assert_ne!(realised, 0);
    assert_eq!(desk.ledger().pnl().realised, 0, "the day has no result");
    println!("figure OE-20: 2 of 2 fills reversed to the last unit, said 4 times, booked 2 times");
}

/// Row OE-20. What was armed again by an operator is hedged, where the venue took the fill back for good.
#[test]
fn what_is_naked_waits_for_the_operator_and_is_hedged_then() {
    let mut world = world();
    let legs = filled(&mut world, 1);
    let (order, whole) = legs[1];
    world.report(&order, bust(terms_of(&whole).0));
    world.echo();
    for _ in 0..50 {
        world.timer(100 * MS);
        world.health();
        world.books();
    }
    assert_eq!(world.orders().len(), 0, "nobody looked yet");
    world.page = world.page.lowered(Scope::Venue(order.venue), Level::Armed).expect("lower");
    world.step(world.page.record());
    world.timer(5 * MS);
    let hedge = *world.orders().last().expect("a hedge");
    assert!(hedge.purpose.reduces());
    assert_eq!(hedge.action, order.action, "what was taken back is missing");
}

/// Row OE-20. Of a fill that nobody knows nothing is booked, and the venue is halted.
#[test]
fn an_unknown_fill_halts_and_books_nothing() {
    let mut world = world();
    let legs = filled(&mut world, 1);
    let before = balances(&world);
    // No such trade; another order's trade.
    for (order, trade_id) in [(legs[0].0, 99), (NewOrder { key: legs[1].0.key, ..legs[0].0 }, 1)] {
        world.out.clear();
        world.report(&order, bust(trade_id));
        let booked = world.out.records().iter().filter_map(Posting::read).count();
        assert_eq!((booked, balances(&world)), (0, before.clone()));
        assert_eq!(world.engine.desk().expect("trades").level(order.venue), Level::Halt);
    }
    // No instrument of that venue: it makes no sense, and a word that makes none changes nothing.
    let rejected = world.engine.counts().rejected;
    let record = bust(1).record(Venue::Kraken, 0, legs[0].0.run, legs[0].0.key);
    world.step(record);
    assert_eq!(world.engine.counts().rejected, rejected + 1);
    assert_eq!(balances(&world), before);
}

/// Row OE-20. A correction is the old fill reversed and the new one booked.
#[test]
fn a_correction_books_what_it_is_instead() {
    let mut world = world();
    let legs = filled(&mut world, 1);
    let (order, whole) = legs[0];
    let (trade_id, was) = terms_of(&whole);
    let is = FillTerms { px: Px(was.px.0 - 7), qty: Qty(was.qty.0 - LOT), ..was };
    let before = balances(&world);
    world.report(&order, Report::Bust { trade_id, instead: Some(is) });
    let mut expected = before;
    for (fill, sign) in [(was, -1), (is, 1)] {
        for ((venue, asset), delta) in moves(&world, &order, &fill) {
            expected[2 * venue.idx() + usize::from(asset)] += delta * sign;
        }
    }
    assert_eq!(balances(&world), expected);
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.level(order.venue), Level::Halt);
    let slot = desk.orders().find(order.run, order.key).expect("known");
    assert_eq!(desk.orders().get(slot).busted, Qty(LOT));
    // The old fill and the new one may be told again: both are known.
    world.out.clear();
    world.report(&order, whole);
    world.report(&order, Report::Bust { trade_id, instead: Some(is) });
    assert_eq!(world.out.records(), []);
}

/// Everything that is told in one case, and what it comes to.
#[derive(Default)]
struct Truth {
    told: BTreeMap<u64, (NewOrder, FillTerms)>,
    /// The last word on a trade.
    fate: BTreeMap<u64, Option<FillTerms>>,
}

impl Truth {
    fn kept(&self) -> impl Iterator<Item = (&NewOrder, FillTerms)> {
        self.told.iter().filter_map(|(id, (order, told))| {
            Some((order, self.fate.get(id).copied().unwrap_or(Some(*told))?))
        })
    }
}

fn shuffle<T>(dice: &mut Dice, items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, dice.below(at as i64 + 1) as usize);
    }
}

fn cases() -> u64 {
    std::env::var("TANDEM_ROUNDS_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

/// Replays the inputs of a journal and compares every output.
fn replays(journal: &[Record]) {
    let universe = universe(false);
    let limits = trading(Mode::Live, &universe);
    let mut engine = Engine::with_trading(universe, params(), limits).expect("sound");
    let mut out = Outbox::new(OUTBOX_RECORDS);
    let mut at = 0;
    while at < journal.len() {
        out.clear();
        engine.step(&journal[at], &mut out);
        at += 1;
        for made in out.records() {
            assert_eq!(made, &journal[at], "output {at}");
            at += 1;
        }
    }
}

/// Row OE-20. Whatever is filled, taken back, corrected, in whatever sequence and however often: the ledger
/// is what the trades that are left have moved, what is naked is in a round or dust, and a replay agrees.
#[test]
fn any_sequence_of_fills_and_busts_leaves_the_books_equal_to_the_truth() {
    let (mut words, mut kept) = (0u64, 0u64);
    for case in 0..cases() {
        let mut dice = Dice(case * 0x1_0001 + 5);
        let mut world = world();
        let opening = balances(&world);
        let (mut truth, mut orders) = (Truth::default(), Vec::new());
        for _ in 0..1 + dice.below(3) {
            let known = world.orders().len();
            world.dislocate(2, BTC / 8);
            orders.extend_from_slice(&world.orders()[known..]);
            world.books();
            world.timer(20 * MS);
        }
        assert!(2 <= orders.len(), "case {case}: {:?}", world.denials());
        // What will be said: fills in parts, ends, and of many fills that they never were.
        let mut script: Vec<(NewOrder, Report)> = Vec::new();
        let mut id = 0;
        for order in &orders {
            let parts = 1 + dice.below(3);
            let mut left = order.qty.0;
            for part in 0..parts {
                id += 1;
                let qty = match part + 1 == parts {
                    true => left,
                    false => (1 + dice.below(left / LOT / 2)) * LOT,
                };
                left -= qty;
                let told = fill(&world, order, qty, id);
                script.push((*order, told));
                let (_, terms) = terms_of(&told);
                for _ in 0..dice.below(4) {
                    let instead = match dice.below(3) {
                        0 => Some(FillTerms { px: Px(terms.px.0 - 1 - dice.below(50)), ..terms }),
                        _ => None,
                    };
                    script.push((*order, Report::Bust { trade_id: id, instead }));
                }
                if left == 0 {
                    break;
                }
            }
            let (status, qty) = (DoneStatus::Filled, order.qty);
            script.push((*order, Report::Done { status, qty }));
        }
        let again: Vec<_> = script.iter().copied().filter(|_| dice.chance(30)).collect();
        script.extend(again);
        shuffle(&mut dice, &mut script);
        for (order, report) in &script {
            words += 1;
            match report {
                Report::Fill { .. } => {
                    let (id, terms) = terms_of(report);
                    truth.told.entry(id).or_insert((*order, terms));
                }
                Report::Bust { trade_id, instead } => {
                    truth.fate.insert(*trade_id, *instead);
                }
                _ => {}
            }
            world.report(order, *report);
            if dice.chance(20) {
                world.timer(10 * MS);
            }
            let mut expected = opening.clone();
            for (order, fill) in truth.kept() {
                for ((venue, asset), delta) in moves(&world, order, &fill) {
                    expected[2 * venue.idx() + usize::from(asset)] += delta;
                }
            }
            assert_eq!(balances(&world), expected, "case {case} after {report:?}");
            let desk = world.engine.desk().expect("trades");
            assert!(desk.ledger().check(), "case {case}");
            let moved: i128 = [1, 3, 5].iter().map(|at| expected[*at] - opening[*at]).sum();
            assert_eq!(exposure(&world.engine, 1), moved, "case {case}: nothing is forgotten");
            assert_eq!(desk.ledger().day_flow(AssetId(1)), moved, "case {case}");
        }
        kept += truth.kept().count() as u64;
        let said = |venue| {
            truth
                .fate
                .keys()
                .any(|id| truth.told.get(id).is_some_and(|(order, _)| order.venue == venue))
        };
        for venue in Venue::ALL.into_iter().filter(|venue| said(*venue)) {
            assert_eq!(
                world.engine.desk().expect("trades").level(venue),
                Level::Halt,
                "case {case}"
            );
        }
        if case % 16 == 0 {
            replays(&world.journal);
        }
    }
    assert_ne!(kept, 0);
    println!(
        "figure OE-20: {} cases, {words} reports in any sequence, ledger equal to the truth after each",
        cases()
    );
}

fn restored(journal: &[Record], run: u32) -> World {
    let universe = universe(false);
    let mut limits = trading(Mode::Live, &universe);
    limits.run = run;
    let mut world = World::new(universe.clone(), limits);
    for record in collect(&universe, journal.iter().copied()) {
        world.step(record);
    }
    world
}

/// Row OE-20. Row PR-02. Whenever the engine dies: the next one knows what was taken back and books a word
/// on a fill of the dead run as the dead run would have.
#[test]
fn a_bust_before_and_after_a_restart_is_booked_once() {
    let mut whole = world();
    let mut legs = filled(&mut whole, 1);
    whole.books();
    whole.timer(S);
    legs.extend(filled(&mut whole, 11));
    // Two rounds are over, one is under way.
    whole.books();
    whole.timer(S);
    whole.health();
    whole.dislocate(2, BTC / 8);
    let open = *whole.orders().last().expect("an order");
    whole.books();
    let part = fill(&whole, &open, LOT * 100, 21);
    whole.report(&open, part);
    legs.push((open, part));
    let (_, was) = terms_of(&legs[0].1);
    let is = FillTerms { px: Px(was.px.0 - 3), ..was };
    let busts = [
        (legs[0].0, Report::Bust { trade_id: 1, instead: Some(is) }),
        (legs[3].0, bust(12)),
        (legs[4].0, bust(21)),
        (legs[0].0, bust(1)),
    ];
    let opening = balances(&world());
    for (count, _) in busts.iter().enumerate() {
        let mut dead = world();
        dead.engine =
            Engine::with_trading(universe(false), params(), trading(Mode::Live, &universe(false)))
                .expect("sound");
        dead.journal.clear();
        for input in whole.journal.iter().filter(|record| !record.has(flag::OUTPUT)) {
            dead.now_ns = input.engine_ts_ns;
            dead.step(*input);
        }
        assert_eq!(dead.journal, whole.journal);
        for (order, report) in &busts[..count] {
            dead.report(order, *report);
        }
        let mut next = restored(&dead.journal, 8);
        assert_eq!(balances(&next), balances(&dead), "{count}");
        assert_eq!(exposure(&next.engine, 1), exposure(&dead.engine, 1), "{count}");
        let mut third = restored(&next.journal, 9);
        for world in [&mut dead, &mut next, &mut third] {
            for venue in Venue::ALL {
                for asset in 0..2 {
                    let held = world.held(venue, asset) as i64;
                    let source = tandem_core::account::BalanceSource::Snapshot;
                    world.balance(venue, asset, held, source);
                }
            }
            // All of it is told again, and then the rest.
            for (order, report) in &busts {
                world.report(order, *report);
            }
            let mut expected = opening.clone();
            for (order, fill) in [&legs[1], &legs[2]] {
                for ((venue, asset), delta) in moves(world, order, &terms_of(fill).1) {
                    expected[2 * venue.idx() + usize::from(asset)] += delta;
                }
            }
            assert_eq!(balances(world), expected, "{count}");
            assert!(world.engine.desk().expect("trades").ledger().check());
            let moved: i128 = [1, 3, 5].iter().map(|at| expected[*at] - opening[*at]).sum();
            assert_eq!(exposure(&world.engine, 1), moved, "{count}");
        }
        let restores = next.journal.iter().filter(|r| r.kind() == Some(Kind::Restore)).count();
        assert!(5 <= restores, "{count}");
    }
    println!("figure OE-20: {} restarts between busts, each booked once", busts.len() * 2);
}

/// An amount of fee in an asset that is not ours was never booked, and is not reversed.
#[test]
fn what_was_not_booked_is_not_reversed() {
    let mut world = world();
    world.dislocate(2, BTC / 8);
    let leg = world.orders()[0];
    let before = balances(&world);
    let strange =
        Report::Fill { px: leg.px, qty: Qty(LOT), fee: Amount(500), asset: u16::MAX, trade_id: 1 };
    world.report(&leg, strange);
    assert_ne!(balances(&world), before);
    world.report(&leg, bust(1));
    assert_eq!(balances(&world), before);
}
