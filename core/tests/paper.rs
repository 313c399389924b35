//! Paper: the engine fills its own orders against live books, and the books of money balance.

mod desk;

use desk::*;
use tandem_core::instrument::AssetId;
use tandem_core::limits::Mode;
use tandem_core::order::{Action, RejectClass, Report};
use tandem_core::record::{Kind, Venue, flag};
use tandem_core::round::Stage;
use tandem_core::units::Side;

fn paper() -> World {
    let universe = universe(false);
    World::armed(trading(Mode::Paper, &universe))
}

fn balanced(world: &World) -> bool {
    let desk = world.engine.desk().expect("trades");
    Venue::ALL.iter().all(|venue| {
        (0..2).map(AssetId).all(|asset| {
            desk.paper().balance(*venue, asset) == desk.ledger().account(*venue, asset).balance
        })
    }) && desk.ledger().check()
}

/// Peers 24 and 25: latency both ways, live depth, both legs, money conserved.
#[test]
fn a_round_is_filled_after_its_latency_and_settles() {
    let mut world = paper();
    world.dislocate(2, BTC / 4);
    let orders = world.orders();
    assert_eq!(orders.len(), 2, "both legs in the same step: {:?}", world.denials());
    assert_eq!(world.kinds(Kind::OrderFill).len(), 0);
    world.timer(2 * MS);
    assert_eq!(world.kinds(Kind::OrderFill).len(), 0, "not there yet");
    world.timer(MS);
    world.timer(MS);
    assert_eq!(world.kinds(Kind::OrderFill).len(), 0, "filled, not told yet");
    world.timer(MS);
    assert!(2 <= world.kinds(Kind::OrderFill).len());
    assert!(world.out.records().iter().all(|record| record.has(flag::OUTPUT)));
    let rounds = world.rounds();
    let last = rounds.last().expect("told");
    assert_eq!(last.stage, Stage::Settled);
    assert!(0 < last.realised.0, "{last:?}");
    assert_eq!(last.realised, last.expected, "the books did not move");
    assert!(balanced(&world));
    let desk = world.engine.desk().expect("trades");
    assert_eq!((desk.counts().rounds, desk.counts().rounds_filled), (1, 1));
    println!("figure OE-00: paper round realised {} of {}", last.realised.0, last.expected.0);
}

/// Peers 30: what paper took of a level is gone until the level changes.
#[test]
fn a_level_is_taken_once_until_it_is_shown_anew() {
    let mut world = paper();
    let px = world.dislocate(2, BTC / 4);
    for _ in 0..200 {
        world.timer(MS);
    }
    let fills = |world: &World| {
        let sold = world.kinds(Kind::OrderFill);
        sold.iter().filter(|r| r.instrument == 2 && r.data[1] == px).map(|r| r.data[2]).sum::<i64>()
    };
    assert_eq!(fills(&world), BTC / 4, "once");
    // The venue shows the level again: it is there again.
    world.level(2, Side::Bid, px, BTC / 4 + LOT, flag::LAST);
    for _ in 0..20 {
        world.timer(MS);
    }
    assert_eq!(fills(&world), BTC / 2 + LOT);
    assert!(balanced(&world));
}

/// Peers 12 and 30: two orders that were both right when they were sent share what is there when they arrive.
#[test]
fn what_an_earlier_order_took_is_not_there_for_a_later_one() {
    let mut world = paper();
    let px = world.dislocate(2, BTC / 4);
    assert_eq!(world.orders().len(), 2);
    world.timer(MS);
    // More is shown, and taken; then the venue shows less again, before either has arrived.
    world.level(2, Side::Bid, px, BTC / 2 + LOT, flag::LAST);
    assert_eq!(world.orders().len(), 4, "{:?}", world.denials());
    world.level(2, Side::Bid, px, BTC / 4, flag::LAST);
    for _ in 0..20 {
        world.timer(MS);
    }
    let sold = world.kinds(Kind::OrderFill);
    let at_px = sold.iter().filter(|r| r.instrument == 2 && r.data[1] == px);
    assert_eq!(at_px.map(|r| r.data[2]).sum::<i64>(), BTC / 4);
    for _ in 0..300 {
        world.timer(10 * MS);
    }
    assert!(balanced(&world));
}

/// Orders are made smaller by what there is to spend, and beyond it refused (C11), never sent.
#[test]
fn balances_that_run_out_make_orders_smaller_and_then_none() {
    let universe = universe(false);
    let mut world = World::new(universe.clone(), trading(Mode::Paper, &universe));
    world.open(BTC / 10, 10_000_000 * USD);
    world.books();
    world.arm();
    world.out.clear();
    world.dislocate(2, BTC / 4);
    let orders = world.orders();
    let sold = orders.iter().find(|order| order.action == Action::Sell).expect("a sale");
    assert_eq!(sold.qty.0, BTC / 10, "what Kraken holds");
    for _ in 0..10 {
        world.timer(MS);
    }
    assert_eq!(world.held(Venue::Kraken, 1), 0);
    world.out.clear();
    world.timer(500 * MS);
    world.dislocate(2, BTC / 3);
    assert_eq!(world.orders().len(), 0);
    assert!(balanced(&world));
}

/// A paper venue refuses what its own balance does not cover.
#[test]
fn a_paper_venue_refuses_for_lack_of_funds() {
    let mut world = paper();
    world.dislocate(2, BTC / 4);
    assert_eq!(world.orders().len(), 2);
    // Somebody takes the base away while the order is under way.
    let adjust = tandem_core::engine::Command::Adjust as i64;
    let data = [adjust, -100 * BTC, 0, 0];
    let command =
        tandem_core::record::Record::new(Kind::Command, Venue::Kraken as u8, u16::MAX, data);
    world.step(tandem_core::record::Record { asset: 1, ..command });
    for _ in 0..10 {
        world.timer(MS);
    }
    let refused = world.kinds(Kind::OrderReject);
    assert_eq!(refused.len(), 1);
    let (_, _, report) = Report::read(&refused[0]).expect("a report");
    assert_eq!(report, Report::Reject { class: RejectClass::Funds, code: 0 });
    // Its other leg was filled: hedged, where there are funds.
    for _ in 0..100 {
        world.timer(10 * MS);
    }
    let last = *world.rounds().last().expect("told");
    assert_eq!(last.stage, Stage::Settled, "{last:?}");
    assert!(balanced(&world));
}

/// Row I9. The same records give the same outputs, byte for byte.
#[test]
fn a_paper_journal_replays_identically() {
    let universe = universe(true);
    let run = || {
        let mut world = World::armed_with(universe.clone(), trading(Mode::Paper, &universe));
        let mut dice = Dice(11);
        for _ in 0..300 {
            let id = 1 + dice.below(2) as u16;
            world.dislocate(id, BTC / 8 + dice.below(500) * LOT);
            for _ in 0..dice.below(12) {
                world.timer(dice.below(4) * MS);
            }
            world.books();
            world.beat();
            world.out.clear();
        }
        world
    };
    let first = run();
    let inputs: Vec<_> =
        first.journal.iter().copied().filter(|record| !record.has(flag::OUTPUT)).collect();
    let mut world = World::new(universe.clone(), trading(Mode::Paper, &universe));
    let mut outputs = Vec::new();
    for input in &inputs {
        world.engine.step(input, &mut world.out);
        outputs.extend_from_slice(world.out.records());
        world.out.clear();
    }
    let told: Vec<_> =
        first.journal.iter().copied().filter(|record| record.has(flag::OUTPUT)).collect();
    assert!(outputs == told, "replayed outputs differ");
    let counts = first.engine.desk().expect("trades").counts();
    assert!(100 < counts.rounds, "{counts:?}");
    assert!(balanced(&first));
    println!(
        "figure I9: {} inputs, {} outputs identical, {} rounds",
        inputs.len(),
        told.len(),
        counts.rounds
    );
}
