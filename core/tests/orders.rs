//! The order table over every sequence of what may be said about an order.

mod desk;

use std::collections::BTreeSet;

use tandem_core::order::{
    Action, DoneStatus, NewOrder, OrderKey, Purpose, RejectClass, Report, Tif, UnknownCause,
};
use tandem_core::orders::{NO_ROUND, Order, Orders, State};
use tandem_core::record::Venue;
use tandem_core::units::{Amount, Px, Qty};

fn terms() -> NewOrder {
    NewOrder {
        run: 1,
        key: OrderKey::new(1, 0),
        venue: Venue::Kraken,
        instrument: 0,
        action: Action::Buy,
        px: Px(100),
        qty: Qty(10),
        tif: Tif::Ioc,
        purpose: Purpose::Entry,
        expires_ns: 0,
        cause: 0,
        level_epoch: 0,
    }
}

fn fill(id: u64, qty: i64) -> Report {
    Report::Fill { px: Px(99), qty: Qty(qty), fee: Amount(1), asset: 0, trade_id: id }
}

fn totals(qty: i64) -> Report {
    Report::Totals { qty: Qty(qty), cost: Amount(qty * 99), fee: Amount(1), asset: 0 }
}

fn done(status: DoneStatus, qty: i64) -> Report {
    Report::Done { status, qty: Qty(qty) }
}

/// Calls `each` with every sequence of the reports.
fn permutations(reports: &mut [Report], from: usize, each: &mut impl FnMut(&[Report])) {
    if from == reports.len() {
        each(reports);
        return;
    }
    for at in from..reports.len() {
        reports.swap(from, at);
        permutations(reports, from + 1, each);
        reports.swap(from, at);
    }
}

/// What an order has come to.
type End = (State, i64, i64, bool, bool);

fn end(reports: &[Report]) -> End {
    let mut orders = Orders::new(1);
    let slot = orders.insert(Order::new(terms(), NO_ROUND, 1)).expect("room");
    let mut final_seen = false;
    let mut booked = 0;
    for report in reports {
        let effect = orders.report(slot, report, 2);
        booked += effect.fill.map_or(0, |fill| fill.qty.0);
        let order = orders.get(slot);
        // I7: what is over stays over.
        assert!(!final_seen || order.is_final(), "{reports:?}");
        final_seen |= order.is_final();
        assert_eq!(booked, order.filled.0, "booked what was applied: {reports:?}");
        // What may still move is never less than what is told and not booked.
        assert!(order.told().0 - order.filled.0 <= order.remaining().0, "{reports:?}");
        assert_eq!(orders.open_count() == 0, order.is_settled());
    }
    let order = orders.get(slot);
    (
        order.state(),
        order.filled.0,
        order.remaining().0,
        order.is_contradicted(),
        order.is_settled(),
    )
}

/// Row AC-03. Row AC-01. Row OE-06. Every sequence of at most six events ends in one state, and so does
/// every sequence in which one of them comes twice.
#[test]
fn every_sequence_of_the_same_events_ends_the_same() {
    desk::mute();
    let words = [
        Report::Sent { at_ns: 1, tsc: 1 },
        Report::Ack { venue_id: 5 },
        fill(1, 4),
        fill(2, 6),
        totals(10),
        done(DoneStatus::Filled, 10),
        done(DoneStatus::Cancelled, 4),
        done(DoneStatus::NeverAccepted, 0),
        Report::Reject { class: RejectClass::Funds, code: 3 },
        Report::Reject { class: RejectClass::Duplicate, code: 4 },
        Report::Unknown { cause: UnknownCause::Timeout },
        Report::CancelReject { class: RejectClass::NoOrder, code: 1 },
    ];
    let (mut sets, mut sequences) = (0u64, 0u64);
    for bits in 1u32..1 << words.len() {
        if 6 < bits.count_ones() {
            continue;
        }
        let mut chosen: Vec<Report> = words
            .iter()
            .enumerate()
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, w)| *w)
            .collect();
        let expected = end(&chosen);
        sets += 1;
        permutations(&mut chosen, 0, &mut |sequence| {
            sequences += 1;
            assert_eq!(end(sequence), expected, "{sequence:?}");
        });
        // Said twice: nothing changes.
        if chosen.len() < 6 {
            let first = chosen[0];
            chosen.push(first);
            assert_eq!(end(&chosen), expected, "{chosen:?}");
        }
    }
    println!("figure AC-03: {sequences} sequences of {sets} sets of events, 1 end state each");
}

/// Row AC-02. Row OE-19. Totals are claims: they reserve and are asked about, real fills alone are booked.
#[test]
fn totals_are_never_booked() {
    desk::mute();
    let booked: BTreeSet<i64> = [
        vec![totals(10), fill(1, 4), fill(2, 6)],
        vec![fill(1, 4), totals(10), fill(2, 6), totals(4)],
        vec![totals(4), totals(10), done(DoneStatus::Filled, 10), fill(1, 4), fill(2, 6)],
    ]
    .iter()
    .map(|reports| end(reports).1)
    .collect();
    assert_eq!(booked, BTreeSet::from([10]));
    let claimed = [totals(10), done(DoneStatus::Filled, 10)];
    assert_eq!(end(&claimed), (State::AwaitingFills, 0, 10, false, false));
    println!("figure AC-02: 0 fills invented from totals");
}

/// Row AC-05. A venue replays its last thousand trades: none is applied again.
#[test]
fn a_thousand_replayed_trades_change_nothing() {
    desk::mute();
    let mut orders = Orders::new(1);
    let order = Order::new(NewOrder { qty: Qty(5_000), ..terms() }, NO_ROUND, 1);
    let slot = orders.insert(order).expect("room");
    for id in 1..=1_000 {
        orders.report(slot, &fill(id, 2), 2);
    }
    for id in 1..=1_000 {
        assert_eq!(orders.report(slot, &fill(id, 2), 3).fill, None);
    }
    assert_eq!(orders.get(slot).filled, Qty(2_000));
    println!("figure AC-05: 1000 trades replayed, 0 applied again");
}

/// Row OE-15. No two orders of two runs share a name.
#[test]
fn names_do_not_collide_over_runs() {
    use tandem_core::order::ClientId;
    let mut seen = BTreeSet::new();
    for run in 1..=10_000 {
        for n in 0..4 {
            assert!(seen.insert(ClientId::new(run, OrderKey::new(1, n)).as_bytes().to_vec()));
        }
    }
    println!("figure OE-15: 10000 restarts, {} ids, 0 collisions", seen.len());
}
