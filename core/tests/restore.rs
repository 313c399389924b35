//! A journal cut anywhere in an order's life: the next run knows what the dead one knew.

mod desk;

use std::collections::BTreeMap;

use desk::*;
use tandem_core::engine::Engine;
use tandem_core::instrument::AssetId;
use tandem_core::ledger::Tag;
use tandem_core::limits::Mode;
use tandem_core::order::{DoneStatus, NewOrder, OrderKey, Report};
use tandem_core::orders::State;
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::restore::collect;
use tandem_core::round::Stage;
use tandem_core::units::Qty;

/// A life with everything in it: one leg whole in two fills, the other in part, a hedge in two parts.
fn life() -> World {
    let mut world = World::armed(trading(Mode::Live, &universe(false)));
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    world.books();
    let at = |world: &mut World, order: &NewOrder, qty: i64, id: u64| {
        let fill = fill(world, order, qty, id);
        world.report(order, fill);
    };
    for leg in &legs {
        world.report(leg, Report::Sent { at_ns: world.now_ns, tsc: 0 });
        world.report(leg, Report::Ack { venue_id: 1 });
    }
    at(&mut world, &legs[0], BTC / 10, 1);
    at(&mut world, &legs[0], legs[0].qty.0 - BTC / 10, 2);
    world.report(&legs[0], Report::Done { status: DoneStatus::Filled, qty: legs[0].qty });
    at(&mut world, &legs[1], BTC / 20, 3);
    let end = Report::Done { status: DoneStatus::Expired, qty: Qty(BTC / 20) };
    world.report(&legs[1], end);
    let hedge = *world.orders().last().expect("a hedge");
    assert!(hedge.purpose.reduces());
    at(&mut world, &hedge, BTC / 10, 4);
    at(&mut world, &hedge, hedge.qty.0 - BTC / 10, 5);
    world.report(&hedge, Report::Done { status: DoneStatus::Filled, qty: hedge.qty });
    assert_eq!(world.engine.desk().expect("trades").rounds().iter().count(), 0);
    world
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

/// Orders that are not settled, with what was filled of each.
fn open(engine: &Engine) -> BTreeMap<(u32, OrderKey), (i64, i64)> {
    let orders = engine.desk().expect("trades").orders();
    let each = orders.open().map(|o| ((o.terms.run, o.terms.key), (o.filled.0, o.terms.qty.0)));
    each.collect()
}

fn balances(world: &World) -> Vec<i128> {
    let each = Venue::ALL.iter().flat_map(|venue| [0, 1].map(|asset| (*venue, asset)));
    each.map(|(venue, asset)| world.held(venue, asset)).collect()
}

fn exposure(world: &World) -> i128 {
    let rounds = world.engine.desk().expect("trades").rounds();
    rounds.iter().map(|round| round.flows.of(AssetId(1), None)).sum()
}

/// Row PR-02. Row OE-15. Every record of an order's life is a place to die at.
#[test]
fn a_journal_cut_anywhere_restores_what_the_dead_run_knew() {
    let whole = life();
    let ends: Vec<usize> = (1..=whole.journal.len())
        .filter(|cut| whole.journal.get(*cut).is_none_or(|next| !next.has(flag::OUTPUT)))
        .collect();
    for cut in &ends {
        let journal = &whole.journal[..*cut];
        // What the dead run was at that moment.
        let mut dead = World::new(universe(false), trading(Mode::Live, &universe(false)));
        for input in journal.iter().filter(|record| !record.has(flag::OUTPUT)) {
            dead.engine.step(input, &mut dead.out);
            dead.out.clear();
        }
        let mut next = restored(journal, 8);
        assert_eq!(balances(&next), balances(&dead), "cut {cut}");
        assert_eq!(exposure(&next), exposure(&dead), "cut {cut}");
        assert_eq!(open(&next.engine), open(&dead.engine), "cut {cut}");
        let desk = next.engine.desk().expect("trades");
        assert!(desk.ledger().check());
        let all_open = desk.orders().open();
        assert!(
            all_open
                .into_iter()
                .all(|o| matches!(o.state(), State::Unknown | State::AwaitingFills))
        );
        assert_eq!(next.orders().len(), 0, "nothing is sent by restoring");
        // The venue tells its whole history again: nothing is booked twice, what is missing is booked.
        next.balance_all(&whole);
        for record in whole.journal.iter().filter(|r| Report::read(r).is_some()) {
            next.step(*record);
        }
        for asset in 0..2 {
            for venue in Venue::ALL {
                let known = open(&dead.engine);
                let complete = *cut == whole.journal.len() || !known.is_empty();
                if complete && open(&next.engine).is_empty() && 3 <= dead_orders(journal) {
                    assert_eq!(next.held(venue, asset), whole.held(venue, asset), "cut {cut}");
                }
            }
        }
    }
    println!(
        "figure PR-02: {} cuts of a journal, each restores orders, balances and leftovers",
        ends.len()
    );
}

fn dead_orders(journal: &[Record]) -> usize {
    journal.iter().filter(|record| NewOrder::read(record).is_some()).count()
}

impl World {
    fn balance_all(&mut self, other: &World) {
        for venue in Venue::ALL {
            for asset in 0..2 {
                let total = other.held(venue, asset) as i64;
                let source = tandem_core::account::BalanceSource::Snapshot;
                self.balance(venue, asset, total, source);
            }
        }
    }
}

/// Row PR-02. What a dead run left naked is hedged by the next one, once it is armed and knows.
#[test]
fn a_naked_leg_of_a_dead_run_is_hedged_by_the_next() {
    let mut world = World::armed(trading(Mode::Live, &universe(false)));
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let bought = fill(&world, &legs[0], legs[0].qty.0, 1);
    world.report(&legs[0], bought);
    world.report(&legs[0], Report::Done { status: DoneStatus::Filled, qty: legs[0].qty });
    // It dies here; the other leg is out.
    let mut next = restored(&world.journal, 8);
    next.now_ns = world.now_ns + 5 * S;
    next.health();
    next.books();
    next.balance_all(&world);
    next.arm();
    next.out.clear();
    next.timer(MS);
    next.timer(S);
    let queries = next.kinds(Kind::OrderQuery);
    assert!(queries.iter().any(|query| query.run == 7 && query.data[0] == legs[1].key.0));
    assert_eq!(next.orders().len(), 0, "nothing is hedged while the other leg is unknown");
    next.health();
    next.beat();
    let never = Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) };
    next.report(&legs[1], never);
    let hedges = next.orders();
    assert_eq!(hedges.len(), 1, "in the step of the proof");
    assert_eq!((hedges[0].run, hedges[0].action), (8, legs[0].action.other()));
    let flat = fill(&next, &hedges[0], hedges[0].qty.0, 9);
    next.report(&hedges[0], flat);
    next.report(&hedges[0], Report::Done { status: DoneStatus::Filled, qty: hedges[0].qty });
    let desk = next.engine.desk().expect("trades");
    assert_eq!(desk.rounds().iter().count(), 0);
    let last = *next.rounds().last().expect("told");
    assert!(last.is_orphan && last.stage == Stage::Settled);
    // And a third run has nothing to take over but balances and trades.
    let mut both = world.journal.clone();
    both.extend_from_slice(&next.journal);
    let third = restored(&both, 9);
    assert_eq!(balances(&third), balances(&next));
    assert_eq!((open(&third.engine).len(), exposure(&third)), (0, 0));
    let carried = third.engine.desk().expect("trades").ledger();
    let account = carried.account(Venue::Kraken, AssetId(0));
    assert_eq!(account.flows[Tag::Carried as usize - 1], account.balance);
    println!("figure PR-02: a dead run's naked leg is hedged in the step of the proof");
}

/// Row AC-05. Fills of dead runs that the venue tells again are known.
#[test]
fn fills_of_dead_runs_are_known_again() {
    let whole = life();
    let mut next = restored(&whole.journal, 8);
    let before = balances(&next);
    for record in whole.journal.iter().filter(|record| record.kind() == Some(Kind::OrderFill)) {
        next.step(*record);
    }
    assert_eq!(balances(&next), before);
    assert!(Venue::ALL.iter().all(|venue| {
        next.engine.desk().expect("trades").level(*venue) == tandem_core::level::Level::Pause
    }));
    assert_eq!(next.kinds(Kind::ControlLevel).len(), 0, "no reason to doubt");
}

/// A paper run that dies with orders under way: its ledger goes on, its orders do not.
#[test]
fn a_dead_paper_run_leaves_balances_and_no_orders() {
    let universe = universe(false);
    let mut world = World::armed(trading(Mode::Paper, &universe));
    world.dislocate(2, BTC / 4);
    for _ in 0..10 {
        world.timer(MS);
    }
    world.timer(S);
    world.beat();
    world.dislocate(1, BTC / 8);
    assert_eq!(open(&world.engine).len(), 2, "under way");
    let mut limits = trading(Mode::Paper, &universe);
    limits.run = 8;
    let mut next = World::new(universe.clone(), limits);
    for record in collect(&universe, world.journal.iter().copied()) {
        next.step(record);
    }
    assert_eq!(balances(&next), balances(&world));
    assert_eq!((open(&next.engine).len(), exposure(&next)), (0, 0));
    let desk = next.engine.desk().expect("trades");
    assert_eq!(desk.paper().balance(Venue::Kraken, AssetId(0)), next.held(Venue::Kraken, 0));
    // An opening balance of the configuration does not count twice.
    next.open(BTC, USD);
    assert_eq!(balances(&next), balances(&world));
}

/// A world of a second run with this many more assets, all of them left over at Kraken by the first.
fn with_leftovers(count: u16) -> (World, NewOrder) {
    let mut universe = universe(false);
    for n in 0..count {
        let name = format!("X{n}");
        universe.assets.push(tandem_core::instrument::Asset { name, exponent: 6 });
    }
    let mut limits = trading(Mode::Live, &universe);
    limits.run = 2;
    let mut world = World::new(universe, limits);
    for n in 0..count {
        let round = Record::new(Kind::Round, Venue::Kraken as u8, u16::MAX, [7, 0, 0, 0]);
        let part = Kind::Round as u8;
        world.step(Record { asset: 2 + n, kind: Kind::Restore as u8, part, ..round });
    }
    let order = NewOrder {
        run: 1,
        key: OrderKey::new(1, 0),
        venue: Venue::Kraken,
        instrument: 2,
        action: tandem_core::order::Action::Buy,
        px: tandem_core::units::Px(6_000_000),
        qty: Qty(BTC),
        tif: tandem_core::order::Tif::Ioc,
        purpose: tandem_core::order::Purpose::Entry,
        expires_ns: i64::MAX,
        cause: 0,
        level_epoch: 0,
    };
    let terms = order.record(&Record::default());
    let part = terms.kind;
    world.step(Record { kind: Kind::Restore as u8, part, flags: 0, ..terms });
    (world, order)
}

/// What finds no place in the orphan round is dust, and not forgotten.
#[test]
fn leftovers_that_do_not_fit_become_dust() {
    let flows = tandem_core::round::FLOWS as u16;
    let (world, _) = with_leftovers(flows + 3);
    let desk = world.engine.desk().expect("trades");
    let round = desk.rounds().iter().next().expect("the orphan");
    assert_eq!(round.flows.items().len(), usize::from(flows));
    for asset in (2..2 + flows + 3).map(AssetId) {
        let (held, dust) = (round.flows.of(asset, None), desk.ledger().dust(asset));
        assert_eq!(held + dust, 7, "once, in one of the two: {asset:?} {held} {dust}");
    }
}

/// Of a fill's flows only those become dust that the round has no place for: nothing is hedged twice.
#[test]
fn a_fill_that_fits_in_part_counts_once() {
    let flows = tandem_core::round::FLOWS as u16;
    for free in 0..=2 {
        let (mut world, order) = with_leftovers(flows - free);
        let part = fill(&world, &order, BTC / 2, 1);
        world.report(&order, part);
        let desk = world.engine.desk().expect("trades");
        let round = desk.rounds().iter().next().expect("the orphan");
        let (held, dust) = (round.flows.of(AssetId(1), None), desk.ledger().dust(AssetId(1)));
        assert_eq!(held + dust, i128::from(BTC / 2), "{free} places: {held} {dust}");
        assert_eq!(dust == 0, 0 < free, "{free} places: {held} {dust}");
    }
}

/// Row PR-02. Whatever a journal holds: saved after any record and loaded again, the machine yields the same in the end.
#[test]
fn a_gatherer_that_is_saved_and_loaded_yields_what_one_that_lived_does() {
    use tandem_core::restore::Gatherer;

    let universe = universe(false);
    // Two lives: the second begins with what the first one left.
    let mut journal = life().journal;
    let mut second = restored(&journal, 8);
    second.dislocate(2, BTC / 8);
    journal.extend(second.journal.iter().copied());
    let whole = collect(&universe, journal.iter().copied());
    assert!(!whole.is_empty());
    for cut in 0..=journal.len() {
        let mut before = Gatherer::default();
        journal[..cut].iter().for_each(|record| before.take(&universe, record));
        let mut after = Gatherer::load(&before.save()).expect("what was saved loads");
        assert_eq!(after.save(), before.save(), "cut {cut}");
        journal[cut..].iter().for_each(|record| after.take(&universe, record));
        assert_eq!(after.finish(), whole, "cut {cut}");
    }
    println!(
        "figure PR-02: {} places to save the state at, each yields the same",
        journal.len() + 1
    );
}

/// The same of records that no engine writes: few names and ids, so that everything meets.
#[test]
fn a_gatherer_carries_over_whatever_it_was_given() {
    use tandem_core::restore::Gatherer;

    let universe = universe(false);
    let lives = life().journal;
    let names: Vec<Record> = lives
        .iter()
        .filter(|r| Report::read(r).is_some() || NewOrder::read(r).is_some())
        .chain(lives.iter().filter(|r| {
            matches!(r.kind(), Some(Kind::Ledger | Kind::Round | Kind::Pnl | Kind::Balance))
        }))
        .copied()
        .collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for case in 0..300 {
        let journal: Vec<Record> = (0..60)
            .map(|_| {
                let mut record = names[random(names.len() as u64) as usize];
                match random(6) {
                    0 => record.update_id = random(6),
                    1 => record.data[2] = random(1 << 40) as i64 - (1 << 39),
                    2 => (record.part, record.kind) = (record.kind, Kind::Restore as u8),
                    3 => record.run = random(3) as u32,
                    4 => record.kind = Kind::OrderBust as u8,
                    _ => {}
                }
                record
            })
            .collect();
        let whole = collect(&universe, journal.iter().copied());
        let mut carried = Gatherer::default();
        for record in &journal {
            carried.take(&universe, record);
            if random(3) == 0 {
                carried = Gatherer::load(&carried.save()).expect("what was saved loads");
            }
        }
        assert_eq!(carried.finish(), whole, "case {case}");
        let saved = carried.save();
        for cut in 0..saved.len().min(200) {
            assert!(Gatherer::load(&saved[..cut]).is_none(), "{cut} bytes of it are none");
        }
    }
}
