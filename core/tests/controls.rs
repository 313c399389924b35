//! Every control at its limit, without its input, beyond what fits, and beside an unknown order.

mod desk;

use std::collections::BTreeSet;

use desk::*;
use tandem_core::account::{Peer, PeerRole, Session, SessionState};
use tandem_core::controls::{Act, Breach, Control, Controls, View, Wish};
use tandem_core::engine::CONTROL_REASON;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::limits::{Mode, Trading};
use tandem_core::order::{Action, DoneStatus, Purpose, Report, UnknownCause};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::report::Denial;
use tandem_core::units::{Px, Qty, Side};
use tandem_core::value::Bias;

const K: usize = Venue::Kraken as usize - 1;

/// A healthy world and controls of their own, so that each limit can be tried alone.
struct Bench {
    world: World,
    controls: Controls,
    limits: Trading,
}

impl Bench {
    fn new() -> Bench {
        let limits = trading(Mode::Live, &universe(false));
        let world = World::armed(limits.clone());
        let mut bench = Bench { world, controls: Controls::new(3), limits };
        bench.health();
        bench
    }

    fn health(&mut self) {
        let now = self.world.now_ns;
        for venue in Venue::ALL {
            self.session(venue, SessionState::Ready, now, 0);
            self.peer(PeerRole::Gateway, Some(venue), true, now, true);
        }
        self.peer(PeerRole::Warden, None, true, now, true);
        self.controls.on_clock(0, 0, true, now);
    }

    fn session(&mut self, venue: Venue, state: SessionState, heard_ns: i64, deadman_ns: i64) {
        self.controls.on_session(Session { venue, state, code: 0, heard_ns, deadman_ns });
    }

    fn peer(
        &mut self,
        role: PeerRole,
        venue: Option<Venue>,
        alive: bool,
        beat_ns: i64,
        same: bool,
    ) {
        self.controls.on_peer(Peer { role, venue, alive, beat_ns, same_build: same });
    }

    fn check_with(
        &mut self,
        wishes: &[Wish],
        change: impl FnOnce(&mut View<'_>),
    ) -> Result<(), Breach> {
        let mut view = self.world.engine.view().expect("trades");
        view.limits = &self.limits;
        change(&mut view);
        self.controls.check(&view, wishes)
    }

    fn check(&mut self, wishes: &[Wish]) -> Result<(), Breach> {
        self.check_with(wishes, |_| {})
    }

    fn sent(&mut self, wish: &Wish) {
        let view = self.world.engine.view().expect("trades");
        self.controls.on_sent(&view, wish);
    }
}

/// A quarter of a bitcoin, bought at Kraken.
fn buy() -> Wish {
    Wish {
        venue: Venue::Kraken,
        instrument: 2,
        action: Action::Buy,
        px: Px(60_010 * PX),
        qty: Qty(BTC / 4),
        purpose: Purpose::Entry,
        cause: 1,
        edge_ppm: 1_000,
    }
}

fn sell() -> Wish {
    let (venue, instrument, action) = (Venue::Coinbase, 1, Action::Sell);
    Wish { venue, instrument, action, px: Px(59_990 * PX), ..buy() }
}

fn denies(result: Result<(), Breach>, control: Control) {
    match result {
        Err(breach) => assert_eq!(breach.control, control, "{breach:?}"),
        Ok(()) => panic!("{control:?} let it pass"),
    }
}

fn is_denied_by(result: &Result<(), Breach>, control: Control) -> bool {
    result.is_err_and(|breach| breach.control == control)
}

/// Tries a limit at one below, at, and one above what is found: only below denies.
fn triple(control: Control, found: i64, set: impl Fn(&mut Trading, i64)) {
    let mut passed = Vec::new();
    for limit in [found - 1, found, found + 1] {
        let mut bench = Bench::new();
        set(&mut bench.limits, limit);
        let result = bench.check(&[buy(), sell()]);
        let denied = is_denied_by(&result, control);
        assert!(denied || result.is_ok(), "{control:?} {limit}: {result:?}");
        passed.push(!denied);
    }
    assert_eq!(passed, [false, true, true], "{control:?} at {found}");
}

#[test]
fn a_healthy_pair_passes() {
    let mut bench = Bench::new();
    assert_eq!(bench.check(&[buy(), sell()]), Ok(()));
}

/// C1. Row OP-01.
#[test]
fn c1_the_level() {
    for (level, entry, hedge) in [
        (Level::Armed, true, true),
        (Level::Pause, false, true),
        (Level::Reduce, false, true),
        (Level::Halt, false, false),
        (Level::Kill, false, false),
    ] {
        for (purpose, passes) in [(Purpose::Entry, entry), (Purpose::Hedge, hedge)] {
            let mut bench = Bench::new();
            let result = bench.check_with(&[Wish { purpose, ..buy() }], |view| {
                view.levels[K] = level;
            });
            assert_eq!(!is_denied_by(&result, Control::Level), passes, "{level:?} {purpose:?}");
        }
    }
}

/// C2. Row AC-04. Row PR-04.
#[test]
fn c2_the_venue() {
    type Change = fn(&mut Bench, i64);
    let silent: Change = |bench, by| {
        let heard = bench.world.now_ns - 2 * S - by;
        bench.session(Venue::Kraken, SessionState::Ready, heard, 0);
    };
    let warden: Change = |bench, by| {
        let beat = bench.world.now_ns - S - by;
        bench.peer(PeerRole::Warden, None, true, beat, true);
    };
    let deadman: Change = |bench, by| {
        let (now, until) = (bench.world.now_ns, bench.world.now_ns + 1 - by);
        bench.session(Venue::Kraken, SessionState::Ready, now, until);
    };
    for change in [silent, warden, deadman] {
        for (by, passes) in [(-1, true), (0, true), (1, false)] {
            let mut bench = Bench::new();
            change(&mut bench, by);
            let result = bench.check(&[buy()]);
            assert_eq!(!is_denied_by(&result, Control::Venue), passes, "{by}");
        }
    }
    for state in SessionState::ALL {
        let mut bench = Bench::new();
        let now = bench.world.now_ns;
        bench.session(Venue::Kraken, state, now, 0);
        let passes = state == SessionState::Ready;
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Venue), passes);
    }
    for (role, venue) in [(PeerRole::Warden, None), (PeerRole::Gateway, Some(Venue::Kraken))] {
        let mut bench = Bench::new();
        let now = bench.world.now_ns;
        bench.peer(role, venue, false, now, true);
        denies(bench.check(&[buy()]), Control::Venue);
    }
    let mut bench = Bench::new();
    let now = bench.world.now_ns;
    bench.session(Venue::Kraken, SessionState::Ready, now, -1);
    denies(bench.check(&[buy()]), Control::Venue);
    // Nothing heard of anybody.
    let mut bench = Bench::new();
    bench.controls = Controls::new(3);
    denies(bench.check(&[buy()]), Control::Venue);
}

/// C3. Row MD-10. Row MD-11.
#[test]
fn c3_the_instrument() {
    for (by, passes) in [(-1, true), (0, true), (1, false)] {
        let mut bench = Bench::new();
        bench.limits.rules_age_ns_max = S;
        let told = bench.world.now_ns - S - by;
        bench.controls.on_rules(2, told);
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Instrument), passes, "{by}");
    }
    let mut bench = Bench::new();
    bench.limits.rules_age_ns_max = S;
    denies(bench.check(&[buy()]), Control::Instrument);
    for status in [TradingStatus::CancelOnly, TradingStatus::PostOnly, TradingStatus::Halted] {
        let mut bench = Bench::new();
        let data = [status as i64, 1, LOT, 10 * USD];
        let record = Record::new(Kind::InstrumentChange, Venue::Kraken as u8, 2, data);
        bench.world.step(Record { flags: flag::LAST, ..record });
        denies(bench.check(&[buy()]), Control::Instrument);
    }
}

/// C4. Peers 11.
#[test]
fn c4_the_grid() {
    for wish in [
        Wish { qty: Qty(BTC / 4 + 1), ..buy() },
        Wish { qty: Qty(0), ..buy() },
        Wish { qty: Qty(-LOT), ..buy() },
        Wish { px: Px(0), ..buy() },
        Wish { px: Px(-1), ..buy() },
        // Below ten dollars, and one lot above.
        Wish { qty: Qty(LOT), ..buy() },
        Wish { qty: Qty(1_000 * BTC + LOT), ..buy() },
    ] {
        let mut bench = Bench::new();
        denies(bench.check(&[wish]), Control::Grid);
    }
    let mut bench = Bench::new();
    assert_eq!(bench.check(&[Wish { qty: Qty(2 * LOT), ..buy() }]), Ok(()));
}

/// C5. Row MD-12.
#[test]
fn c5_the_collar() {
    // Both references are 60,000: 60,010 is 166.67 ppm away, found as 167.
    let set = |limits: &mut Trading, limit: i64| {
        for instrument in &mut limits.instruments {
            instrument.collar_ppm = limit;
        }
    };
    triple(Control::Collar, 167, set);
    // A hedge has a wider one.
    let mut bench = Bench::new();
    set(&mut bench.limits, 1);
    assert_eq!(
        bench
            .check(&[Wish { purpose: Purpose::Hedge, ..buy() }])
            .map_err(|b| b.control == Control::Collar),
        Ok(())
    );
    // No second reference: denied.
    let mut bench = Bench::new();
    for id in [0, 1] {
        let stale = [BookState::Stale as i64, 0, 0, 0];
        let record = Record::new(Kind::BookState, bench.world.venue(id) as u8, id, stale);
        bench.world.step(Record { flags: flag::LAST, ..record });
    }
    let result = bench.check(&[buy()]);
    assert!(result.is_ok(), "what its own book says in the numeraire: {result:?}");
    let stale = [BookState::Stale as i64, 0, 0, 0];
    let record = Record::new(Kind::BookState, Venue::Kraken as u8, 2, stale);
    bench.world.step(Record { flags: flag::LAST, ..record });
    denies(bench.check(&[buy()]), Control::Collar);
}

/// C5b. Row MD-12.
#[test]
fn c5b_prices_over_time() {
    let mut bench = Bench::new();
    bench.limits.instruments[2].collar_ppm = 1;
    denies(bench.check(&[buy()]), Control::Collar);
    denies(bench.check(&[buy()]), Control::Collar);
    let third = bench.check(&[buy()]);
    denies(third, Control::Moves);
    assert_eq!(third.expect_err("denied").act, Act::HaltInstrument);
    // A reference that moves too far in a second halts the instrument, in the engine itself.
    for (limit, halts) in [(9_999, true), (10_000, false), (10_001, false)] {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.move_1s_ppm_max = limit;
        let mut world = World::armed(limits);
        world.timer(S);
        world.step(Record::new(Kind::Clear, Venue::Kraken as u8, 2, [0; 4]));
        // From 60,000 to 60,600: one per cent.
        world.level(2, Side::Bid, 60_590 * PX, BTC, 0);
        world.level(2, Side::Ask, 60_610 * PX, BTC, flag::LAST);
        world.out.clear();
        world.timer(S);
        let halted = world.kinds(Kind::ControlLevel).iter().any(|r| {
            r.instrument == 2 && r.data[1] == i64::from(CONTROL_REASON) + Control::Moves as i64
        });
        assert_eq!(halted, halts, "{limit}");
    }
    println!("figure MD-12: a move beyond the limit halts the instrument at the next second");
}

#[test]
fn c6_the_quantity() {
    triple(Control::Quantity, BTC / 4, |limits, limit| limits.instruments[2].qty_max = Qty(limit));
}

#[test]
fn c7_the_notional() {
    // 15,002.50 dollars.
    triple(Control::Notional, 15_002_500_000, |limits, limit| limits.notional_max = limit);
    let mut bench = Bench::new();
    let huge = Wish { px: Px(i64::MAX), qty: Qty(i64::MAX / LOT * LOT), ..buy() };
    assert!(bench.check(&[huge]).is_err(), "beyond what fits");
}

/// C8, I1.
#[test]
fn c8_the_exposure() {
    triple(Control::Exposure, BTC / 4, |limits, limit| {
        limits.assets[1].exposure_max = tandem_core::units::Amount(limit);
    });
    // Worth at the dearest ask, 60,010.
    let worth = 15_002_500_000;
    triple(Control::Exposure, worth, |limits, limit| limits.exposure_max = limit);
    triple(Control::Exposure, worth, |limits, limit| limits.venues[K].exposure_max = limit);
}

/// Row PR-14. An asset whose every direct book is gone is worth what it makes over another asset, on the side that
/// was asked for; without any way there is no worth, and C8 denies.
#[test]
fn worth_goes_over_another_asset_where_no_direct_book_lives() {
    let universe = universe(true);
    let mut world = World::armed_with(universe.clone(), trading(Mode::Live, &universe));
    let worth = |world: &World, bias| {
        let eth = tandem_core::instrument::AssetId(2);
        world.engine.view().expect("trades").worth(eth, i128::from(BTC), bias)
    };
    let doubt = |world: &mut World, id: u16| {
        let stale = [BookState::Stale as i64, 0, 0, 0];
        let record = Record::new(Kind::BookState, world.venue(id) as u8, id, stale);
        world.step(Record { flags: flag::LAST, ..record });
    };
    let direct = [Bias::High, Bias::Low].map(|bias| worth(&world, bias).expect("ETH/USD"));
    doubt(&mut world, 3);
    let over = [Bias::High, Bias::Low].map(|bias| worth(&world, bias).expect("over BTC"));
    assert!(over[1] < over[0], "{over:?}");
    // The same market over two books: near, and never better than it.
    for (over, direct) in over.into_iter().zip(direct) {
        assert!((over - direct).abs() * 100 < direct, "{over} beside {direct}");
    }
    doubt(&mut world, 4);
    assert_eq!([Bias::High, Bias::Low].map(|bias| worth(&world, bias)), [None, None]);
}

/// C8, C9, C11. Row OE-10: an unknown order counts as filled and as not filled.
#[test]
fn an_unknown_order_counts_until_its_end() {
    let run = |limit: i64, ends: bool| {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.assets[1].exposure_max = tandem_core::units::Amount(limit);
        let mut world = World::armed(limits.clone());
        world.dislocate(1, BTC / 4);
        let legs = world.orders();
        assert_eq!(legs.len(), 2);
        for leg in &legs {
            world.report(leg, Report::Unknown { cause: UnknownCause::Timeout });
        }
        if ends {
            for leg in &legs {
                let status = DoneStatus::NeverAccepted;
                world.report(leg, Report::Done { status, qty: Qty(0) });
            }
        }
        let mut controls = Controls::new(3);
        let now = world.now_ns;
        let ready = SessionState::Ready;
        for venue in Venue::ALL {
            let (heard_ns, deadman_ns) = (now, 0);
            let state = ready;
            controls.on_session(Session { venue, state, code: 0, heard_ns, deadman_ns });
            let role = PeerRole::Gateway;
            let (alive, same_build, beat_ns) = (true, true, now);
            controls.on_peer(Peer { role, venue: Some(venue), alive, beat_ns, same_build });
        }
        let role = PeerRole::Warden;
        controls.on_peer(Peer { role, venue: None, alive: true, beat_ns: now, same_build: true });
        controls.on_clock(0, 0, true, now);
        limits.unknown_max = 9;
        let mut view = world.engine.view().expect("trades");
        view.limits = &limits;
        view.levels = [Level::Armed; 3];
        // Bought where nothing is unknown.
        let wish = Wish { qty: Qty(BTC / 10), venue: Venue::Coinbase, instrument: 1, ..buy() };
        let wish = if legs.iter().any(|leg| leg.instrument == 1) {
            Wish { venue: Venue::Kraken, instrument: 2, ..wish }
        } else {
            wish
        };
        controls.check(&view, &[wish])
    };
    let both = 4 * BTC / 10;
    assert!(is_denied_by(&run(BTC / 4 + BTC / 10 - 1, false), Control::Exposure));
    assert!(!is_denied_by(&run(both, false), Control::Exposure));
    assert!(!is_denied_by(&run(BTC / 4 + BTC / 10 - 1, true), Control::Exposure));
}

#[test]
fn c9_open_orders() {
    triple(Control::OpenOrders, 2, |limits, limit| limits.orders_max = limit);
    triple(Control::OpenOrders, 1, |limits, limit| limits.venues[K].orders_max = limit);
    triple(Control::OpenOrders, 1, |limits, limit| limits.instruments[2].orders_max = limit);
    // Row AC-07: somebody else's orders count.
    let mut bench = Bench::new();
    bench.limits.instruments[2].orders_max = 1;
    assert_eq!(bench.check(&[buy()]), Ok(()));
    let at = (Venue::Kraken, 2);
    bench.controls.on_foreign(at, Action::Buy, Px(50_000 * PX), Qty(LOT), 77);
    denies(bench.check(&[buy()]), Control::OpenOrders);
    bench.controls.on_foreign(at, Action::Buy, Px(50_000 * PX), Qty(0), 77);
    assert_eq!(bench.check(&[buy()]), Ok(()));
}

/// C10. Row OE-03.
#[test]
fn c10_unknown_orders() {
    for (most, level) in [(1, Level::Armed), (0, Level::Pause)] {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.venues[K].unknown_max = most.max(1);
        limits.unknown_max = 1 + most;
        let mut world = World::armed(limits);
        world.dislocate(2, BTC / 4);
        let legs = world.orders();
        for leg in &legs {
            world.report(leg, Report::Unknown { cause: UnknownCause::Timeout });
        }
        assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), level);
        // The next entry on that instrument waits for the answer.
        world.timer(S / 10);
        world.out.clear();
        world.dislocate(2, BTC / 3);
        assert_eq!(world.orders().len(), 0);
    }
}

/// C11. Row OE-13. Peers 35.
#[test]
fn c11_funds() {
    // 15,002.50 dollars and a fee of 100 ppm, rounded up.
    let need = 15_004_000_250;
    for (by, passes) in [(-1, false), (0, true), (1, true)] {
        let mut bench = Bench::new();
        let stream = tandem_core::account::BalanceSource::Stream;
        bench.world.balance(Venue::Kraken, 0, need + by, stream);
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Funds), passes, "{by}: {result:?}");
    }
    // No word of the venue: denied.
    let limits = trading(Mode::Live, &universe(false));
    let mut world = World::new(universe(false), limits);
    world.health();
    world.books();
    world.arm();
    let mut bench = Bench::new();
    bench.world = world;
    denies(bench.check(&[buy()]), Control::Funds);
}

/// C12: the legs are looked at together, before the first one leaves. Peers 11.
#[test]
fn c12_the_pair() {
    let mut bench = Bench::new();
    let stream = tandem_core::account::BalanceSource::Stream;
    // Enough for one such order, not for two.
    bench.world.balance(Venue::Kraken, 0, 20_000 * USD, stream);
    let other = Wish { px: Px(60_009 * PX), ..buy() };
    assert_eq!(bench.check(&[buy()]), Ok(()));
    denies(bench.check(&[buy(), other]), Control::Funds);
    for (rounds_max, sent) in [(1, 2), (2, 4), (3, 6)] {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.rounds_max = rounds_max;
        let mut world = World::armed(limits);
        world.dislocate(2, BTC / 4);
        world.timer(S / 10);
        world.dislocate(2, BTC / 3);
        world.timer(S / 10);
        assert_eq!(world.orders().len(), sent, "{rounds_max}");
    }
}

#[test]
fn c13_messages() {
    for (burst, passes) in [(1, false), (2, true), (3, true)] {
        let mut bench = Bench::new();
        bench.limits.venues[K].orders_burst = burst;
        bench.limits.venues[K].orders_per_s = 1;
        let other = Wish { px: Px(60_011 * PX), ..buy() };
        let result = bench.check(&[buy(), other]);
        assert_eq!(!is_denied_by(&result, Control::Throttle), passes, "{burst}: {result:?}");
    }
    let mut bench = Bench::new();
    bench.limits.venues[K].orders_burst = 1;
    bench.limits.venues[K].orders_per_s = 1;
    let now = bench.world.now_ns;
    let view = bench.world.engine.view().expect("trades");
    bench.controls.on_sent(&View { limits: &bench.limits, ..view }, &buy());
    let other = Wish { cause: 2, ..buy() };
    for (at, passes) in [(now + S - 1, false), (now + S, true), (now + S + 1, true)] {
        let result = bench.check_with(&[other], |view| view.now_ns = at);
        assert_eq!(!is_denied_by(&result, Control::Throttle), passes, "{at}");
    }
}

#[test]
fn c14_duplicates() {
    let mut bench = Bench::new();
    bench.sent(&buy());
    let now = bench.world.now_ns;
    for (at, passes) in [(50 * MS - 1, false), (50 * MS, false), (50 * MS + 1, true)] {
        let result = bench.check_with(&[buy()], |view| view.now_ns = now + at);
        assert_eq!(!is_denied_by(&result, Control::Duplicate), passes, "{at}");
    }
    // Two equal ones in a second whatever they follow from, a third is one too many.
    assert_eq!(bench.check(&[Wish { cause: 2, ..buy() }]), Ok(()));
    bench.sent(&Wish { cause: 2, ..buy() });
    denies(bench.check(&[Wish { cause: 3, ..buy() }]), Control::Duplicate);
    assert_eq!(bench.check(&[Wish { cause: 3, qty: Qty(BTC / 4 + LOT), ..buy() }]), Ok(()));
}

#[test]
fn c15_repeated_execution() {
    let fill = |bench: &mut Bench, times: i64| {
        let now = bench.world.now_ns;
        for _ in 0..times {
            bench.controls.on_fill((Venue::Kraken, 2), (100, 100), 0, now);
        }
    };
    for (limit, passes) in [(4, false), (5, true), (6, true)] {
        let mut bench = Bench::new();
        bench.limits.instruments[2].fills_10s_max = limit;
        fill(&mut bench, 5);
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Repeated), passes, "{limit}");
        let mut bench = Bench::new();
        bench.limits.instruments[2].fills_1h_max = limit;
        fill(&mut bench, 5);
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Repeated), passes, "{limit}");
        let mut bench = Bench::new();
        bench.limits.losing_rounds_max = limit;
        for _ in 0..5 {
            bench.controls.on_round(10, 10, -1);
        }
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Repeated), passes, "{limit}");
        if let Err(breach) = result {
            let pause = Act::Raise(Scope::Global, Level::Pause, Cause::Control);
            assert_eq!(breach.act, pause);
        }
    }
}

/// C16. Row OE-12.
#[test]
fn c16_self_trade() {
    for (px, passes) in [(60_010 * PX - 1, false), (60_010 * PX, false), (60_010 * PX + 1, true)] {
        let mut bench = Bench::new();
        bench.controls.on_foreign((Venue::Kraken, 2), Action::Sell, Px(px), Qty(LOT), 5);
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::SelfTrade), passes, "{px}");
    }
    // More of them than are remembered, all far away: one that is not remembered may be near. A hedge goes
    // through, and what a new session tells is remembered again.
    let mut bench = Bench::new();
    (bench.limits.orders_max, bench.limits.venues[K].orders_max) = (1_000, 1_000);
    for id in 0..64 {
        bench.controls.on_foreign((Venue::Kraken, 9), Action::Sell, Px(90_000 * PX), Qty(LOT), id);
    }
    assert!(!is_denied_by(&bench.check(&[buy()]), Control::SelfTrade));
    bench.controls.on_foreign((Venue::Kraken, 9), Action::Sell, Px(90_000 * PX), Qty(LOT), 64);
    denies(bench.check(&[buy()]), Control::SelfTrade);
    let hedge = bench.check(&[Wish { purpose: Purpose::Hedge, ..buy() }]);
    assert!(!is_denied_by(&hedge, Control::SelfTrade), "{hedge:?}");
    for state in [SessionState::Down, SessionState::Ready] {
        let heard_ns = bench.world.now_ns;
        let session = Session { venue: Venue::Kraken, state, code: 0, heard_ns, deadman_ns: 0 };
        bench.controls.on_session(session);
    }
    assert!(!is_denied_by(&bench.check(&[buy()]), Control::SelfTrade));
}

/// C17. Row MD-06. Row MD-07.
#[test]
fn c17_freshness() {
    let limit_age = |bench: &mut Bench, by: i64| bench.limits.venues[K].age_ns_max = 500 * MS + by;
    for (by, passes) in [(-1, false), (0, true), (1, true)] {
        let mut bench = Bench::new();
        bench.world.now_ns += 500 * MS;
        bench.world.step(Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
        limit_age(&mut bench, by);
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Freshness), passes, "{by}: {result:?}");
        let hedge = bench.check(&[Wish { purpose: Purpose::Hedge, ..buy() }]);
        assert!(!is_denied_by(&hedge, Control::Freshness), "a hedge has a wider bound");
        // Lag: the venue's time against ours.
        let mut bench = Bench::new();
        bench.limits.venues[K].lag_ns_max = 40 * MS + by;
        let level = Record::level(Venue::Kraken, 2, Side::Bid, Px(59_000 * PX), Qty(BTC));
        let venue_ts_ns = bench.world.now_ns - 40 * MS;
        bench.world.step(Record { flags: flag::LAST, venue_ts_ns, ..level });
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Freshness), passes, "{by}: {result:?}");
    }
}

/// C18. Row MD-12.
#[test]
fn c18_edge_and_depth() {
    triple(Control::Edge, 1_000, |limits, limit| limits.edge_max_ppm = limit);
    for (least, passes) in [(999, true), (1_000, true), (1_001, false)] {
        let mut bench = Bench::new();
        bench.limits.edge_min_ppm = least;
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Edge), passes);
    }
    let mut bench = Bench::new();
    bench.limits.edge_max_ppm = 999;
    assert_eq!(bench.check(&[buy()]).expect_err("denied").act, Act::HaltInstrument);
    // A quarter of a bitcoin of five visible ones is 50,000 ppm.
    triple(Control::Edge, 50_000, |limits, limit| limits.depth_ppm_max = limit);
}

/// C19. Peers 16 and 17.
#[test]
fn c19_losses() {
    for (tier, level) in [(0, Level::Kill), (1, Level::Halt), (2, Level::Pause)] {
        for (by, passes) in [(-1, false), (0, true), (1, true)] {
            let mut limits = trading(Mode::Live, &universe(false));
            let loss = 600 * USD;
            match tier {
                0 => limits.drawdown_max = loss + by,
                1 => limits.loss_day_max = loss + by,
                _ => limits.loss_5min_max = loss + by,
            }
            let mut world = World::armed(limits);
            world.timer(S);
            // Somebody's fee: a fill of a lot at 6 dollars, and 600 of fees less what it moved.
            world.dislocate(2, BTC / 4);
            let leg = world.orders()[0];
            let sign = if leg.action == Action::Buy { 1 } else { -1 };
            let quote = tandem_core::value::quote_of(leg.px, LOT, 2, sign == 1) as i64;
            world.books();
            let view = world.engine.view().expect("trades");
            let base =
                view.worth(tandem_core::instrument::AssetId(1), i128::from(LOT * sign), Bias::Low);
            let gained = base.expect("live") as i64 - quote * sign;
            let fee = tandem_core::units::Amount(loss + gained);
            let fill = Report::Fill { px: leg.px, qty: Qty(LOT), fee, asset: 0, trade_id: 1 };
            world.report(&leg, fill);
            world.health();
            world.beat();
            world.timer(S);
            let now = world.engine.desk().expect("trades").level(Venue::Binance);
            let expected = if passes { Level::Armed } else { level };
            assert_eq!(
                now,
                expected,
                "tier {tier} by {by}: {:?}",
                world.engine.desk().expect("trades").ledger().pnl()
            );
        }
    }
}

#[test]
fn c20_the_inventory() {
    let funds = 10_000_000 * USD;
    let need = 15_004_000_250;
    triple(Control::Inventory, 100 * BTC + BTC / 4, |limits, limit| {
        limits.assets[1].bands[K].target = tandem_core::units::Amount(1);
        limits.assets[1].bands[K].ceiling = tandem_core::units::Amount(limit);
    });
    for (by, passes) in [(-1, true), (0, true), (1, false)] {
        let mut bench = Bench::new();
        bench.limits.assets[0].bands[K].floor = tandem_core::units::Amount(funds - need + by);
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Inventory), passes, "{by}: {result:?}");
    }
}

#[test]
fn c21_slippage() {
    for (limit, passes) in [(99, false), (100, true), (101, true)] {
        let mut bench = Bench::new();
        bench.limits.shortfall_ppm_max = limit;
        for round in 0..50 {
            assert_eq!(bench.check(&[buy()]), Ok(()), "{round}: not enough rounds yet");
            bench.controls.on_round(150, 50, 1);
        }
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Slippage), passes, "{limit}");
    }
}

/// C22. Row OE-18.
#[test]
fn c22_acknowledgements() {
    for (slowest, passes) in [(300 * MS - 1, true), (300 * MS, true), (300 * MS + 1, false)] {
        let mut bench = Bench::new();
        bench.limits.venues[K].ack_ns_max = 300 * MS;
        bench.controls.on_ack(Venue::Kraken, slowest);
        assert_eq!(bench.check(&[buy()]), Ok(()), "one is no percentile");
        for _ in 0..19 {
            bench.controls.on_ack(Venue::Kraken, MS);
        }
        let result = bench.check(&[buy()]);
        assert_eq!(!is_denied_by(&result, Control::Ack), passes, "{slowest}");
        if let Err(breach) = result {
            let pause = Act::Raise(Scope::Venue(Venue::Kraken), Level::Pause, Cause::Control);
            assert_eq!(breach.act, pause);
        }
        let hedge = bench.check(&[Wish { purpose: Purpose::Hedge, ..buy() }]);
        assert!(!is_denied_by(&hedge, Control::Ack));
    }
    let mut bench = Bench::new();
    bench.controls.on_ack(Venue::Kraken, 2 * S + 1);
    denies(bench.check(&[buy()]), Control::Ack);
    println!("figure OE-18: denied from the next order on after the twentieth acknowledgement");
}

/// C23. Row PR-09.
#[test]
fn c23_the_clock() {
    for (offset, bound, synced, passes) in [
        (250 * MS, 50 * MS, true, true),
        (250 * MS + 1, 0, true, false),
        (-250 * MS - 1, 0, true, false),
        (0, 50 * MS + 1, true, false),
        (0, 0, false, false),
        (i64::MIN, 0, true, false),
    ] {
        let mut bench = Bench::new();
        let now = bench.world.now_ns;
        bench.controls.on_clock(offset, bound, synced, now);
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Clock), passes, "{offset}");
    }
    let mut bench = Bench::new();
    let now = bench.world.now_ns;
    bench.controls.on_clock(0, 0, true, now - 61 * S);
    denies(bench.check(&[buy()]), Control::Clock);
    let mut bench = Bench::new();
    bench.controls = Controls::new(3);
    let now = bench.world.now_ns;
    for venue in Venue::ALL {
        bench.session(venue, SessionState::Ready, now, 0);
        bench.peer(PeerRole::Gateway, Some(venue), true, now, true);
    }
    bench.peer(PeerRole::Warden, None, true, now, true);
    denies(bench.check(&[buy()]), Control::Clock);
}

/// C24. Row PR-16.
#[test]
fn c24_build_and_configuration() {
    for (role, venue) in [(PeerRole::Warden, None), (PeerRole::Gateway, Some(Venue::Kraken))] {
        let mut bench = Bench::new();
        let now = bench.world.now_ns;
        bench.peer(role, venue, true, now, false);
        let result = bench.check(&[buy()]);
        denies(result, Control::Build);
        let halt = Act::Raise(Scope::Global, Level::Halt, Cause::Build);
        assert_eq!(result.expect_err("denied").act, halt);
    }
}

#[test]
fn c25_the_session() {
    triple(Control::Session, 2, |limits, limit| limits.session_orders_max = limit);
    // 15,002.50 and 14,997.50 dollars.
    triple(Control::Session, 30_000 * USD, |limits, limit| limits.session_notional_max = limit);
    for (limit, passes) in [(9, false), (10, true), (11, true)] {
        let mut bench = Bench::new();
        bench.limits.session_fees_max = limit;
        let now = bench.world.now_ns;
        bench.controls.on_fill((Venue::Kraken, 2), (100, 100), 10, now);
        assert_eq!(!is_denied_by(&bench.check(&[buy()]), Control::Session), passes);
    }
}

/// More than twenty denials in a second pause.
#[test]
fn many_denials_pause() {
    let mut limits = trading(Mode::Live, &universe(false));
    limits.retry_ns = 1;
    limits.edge_min_ppm = 39_000;
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let mut count = world.engine.desk().expect("trades").counts().denials[18];
    assert_eq!(count, 2, "two cycles: {:?}", world.denials());
    while count < 21 {
        assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), Level::Armed);
        world.timer(MS);
        count = world.engine.desk().expect("trades").counts().denials[18];
    }
    assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), Level::Pause);
    let mut denials = world.denials();
    denials.retain(|denial| denial.breach.is_some_and(|breach| breach.control == 18));
    assert_eq!(denials.len(), 2, "one record for each cycle in its time");
    let breach = denials[0].breach.expect("a control's");
    assert_eq!((breach.control, breach.limit), (18, 39_000));
    println!("figure I12: 21 denials in 1 s pause; {} record of them", denials.len());
}

/// Each cycle that a control denies has its own record, also where the order that it denies is of the same instrument;
/// what is denied again meanwhile is counted in the next.
#[test]
fn a_denial_names_its_cycle() {
    let mut world = World::armed(trading(Mode::Live, &universe(false)));
    let kraken = Scope::Venue(Venue::Kraken);
    world.page = world.page.raised(kraken, Level::Pause, Cause::Operator).expect("raise");
    world.step(world.page.record());
    world.out.clear();
    world.dislocate(2, BTC / 4);
    let of_level = |world: &World| -> Vec<(u32, u16, i64)> {
        let denials = world.denials().into_iter();
        denials
            .filter_map(|d| d.breach.filter(|b| b.control == 1).map(|b| (d, b)))
            .map(|(denial, breach)| (denial.cycle, breach.instrument, denial.times))
            .collect()
    };
    let first = of_level(&world);
    let cycles: BTreeSet<u32> = first.iter().map(|told| told.0).collect();
    assert_eq!((first.len(), cycles.len()), (2, 2), "{first:?}");
    assert!(first.iter().all(|told| (told.1, told.2) == (2, 1)), "{first:?}");
    world.out.clear();
    for _ in 0..8 {
        world.timer(10 * MS);
    }
    assert_eq!(of_level(&world), [], "told less than 100 ms ago");
    for _ in 0..4 {
        world.timer(10 * MS);
    }
    let next = of_level(&world);
    assert_eq!(next.len(), 2, "{next:?}");
    assert!(next.iter().all(|told| 1 < told.2), "with what was not told: {next:?}");
}

/// ETH is dear in BTC, and BTC at Kraken in dollars: three cycles pay through the one, two through the other.
fn five_pay(world: &mut World) {
    let (mid, step) = world.mid(4);
    for rank in 0..10 {
        world.level(4, Side::Ask, mid + step * (rank + 1), 0, 0);
    }
    world.level(4, Side::Ask, mid + mid / 50, BTC, 0);
    world.level(4, Side::Bid, mid + mid / 100, BTC, 0);
    world.out.clear();
    world.dislocate(2, BTC / 4);
}

/// A step tries four. What is left over is told, and is tried in the next step: it does not rest.
#[test]
fn what_a_step_does_not_try_is_told() {
    let mut limits = trading(Mode::Live, &universe(true));
    limits.rounds_max = 8;
    let mut world = World::armed_with(universe(true), limits.clone());
    five_pay(&mut world);
    let tried: BTreeSet<u32> = world.rounds().iter().map(|round| round.cycle).collect();
    let (outranked, denied): (Vec<Denial>, Vec<Denial>) =
        world.denials().into_iter().filter(|denial| denial.breach.is_some()).partition(|denial| {
            denial.breach.is_some_and(|b| b.control == Control::Outranked as u8)
        });
    assert_eq!(tried.len() + denied.len(), 4, "{tried:?} {denied:?}");
    assert!(!outranked.is_empty(), "{denied:?}");
    let breach = outranked[0].breach.expect("a control's");
    assert_eq!((breach.observed, breach.limit), (4 + outranked.len() as i64, 4));
    assert!(!tried.contains(&outranked[0].cycle));
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.counts().denials[Control::Outranked as usize], outranked.len() as u64);
    world.out.clear();
    world.timer(MS);
    let rounds = world.rounds();
    let denials = world.denials();
    let next = rounds.iter().map(|round| round.cycle).chain(denials.iter().map(|d| d.cycle));
    assert!(next.into_iter().any(|cycle| cycle == outranked[0].cycle), "{rounds:?} {denials:?}");
    // Where the level is shut, that is why: all five are denied by it within a few steps, and only by it.
    let mut shut = World::armed_with(universe(true), limits);
    shut.page = shut.page.raised(Scope::Global, Level::Pause, Cause::Operator).expect("raise");
    shut.step(shut.page.record());
    five_pay(&mut shut);
    shut.timer(MS);
    let told: BTreeSet<(u8, u32)> = shut
        .denials()
        .iter()
        .filter_map(|denial| Some((denial.breach?.control, denial.cycle)))
        .collect();
    assert!(told.len() == 5 && told.iter().all(|(by, _)| *by == Control::Level as u8), "{told:?}");
    println!("figure outranked: {} of a step were told and tried in the next", outranked.len());
}

/// Row OP-01. Row OP-04. What the engine raises counts before the page tells it back; KILL and HALT cancel.
#[test]
fn levels_are_heeded_at_once() {
    let limits = trading(Mode::Live, &universe(false));
    let mut world = World::new(universe(false), limits.clone());
    world.open(100 * BTC, 10_000_000 * USD);
    world.health();
    world.books();
    world.dislocate(2, BTC / 4);
    assert_eq!(world.orders().len(), 0, "not armed yet");
    world.arm();
    world.timer(200 * MS);
    assert_eq!(world.orders().len(), 2, "{:?}", world.denials());
    let legs = world.orders();
    // The page says KILL: every live order is cancelled in that step.
    world.out.clear();
    world.page = world.page.raised(Scope::Global, Level::Kill, Cause::Operator).expect("raise");
    world.step(world.page.record());
    assert_eq!(world.kinds(Kind::OrderCancel).len(), 2);
    let whole = fill(&world, &legs[0], legs[0].qty.0, 1);
    world.report(&legs[0], whole);
    for leg in &legs {
        let status = DoneStatus::Cancelled;
        let qty = if leg.key == legs[0].key { leg.qty } else { Qty(0) };
        world.report(leg, Report::Done { status, qty });
    }
    world.timer(S);
    assert_eq!(world.orders().len(), 0, "no hedge at KILL");
    println!("figure OP-01: 0 orders after KILL; 2 of 2 cancels in the same step");
    // Its own raise: an order worse than its limit halts the venue, no echo has come yet.
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let worse = fill_at(world.engine.universe(), &legs[1], Px(1), LOT, 3);
    world.report(&legs[1], worse);
    world.books();
    world.timer(200 * MS);
    world.out.clear();
    world.dislocate(2, BTC / 3);
    assert!(world.orders().iter().all(|order| order.venue != legs[1].venue));
}

/// Peers 12. What an order in flight takes is not seen again.
#[test]
fn depth_that_is_taken_is_not_taken_again() {
    let mut limits = trading(Mode::Live, &universe(false));
    limits.own_interest_ns = S;
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let sold = legs.iter().find(|leg| leg.action == Action::Sell).expect("a sale");
    assert_eq!(sold.qty.0, BTC / 4);
    for _ in 0..10 {
        world.timer(20 * MS);
    }
    assert_eq!(world.orders().len(), 2, "nothing more while it is in flight");
    for (n, leg) in legs.iter().enumerate() {
        let whole = fill(&world, leg, leg.qty.0, n as u64 + 1);
        world.report(leg, whole);
        let status = DoneStatus::Filled;
        world.report(leg, Report::Done { status, qty: leg.qty });
    }
    world.timer(500 * MS);
    assert_eq!(world.orders().len(), 2, "nor before the book says so");
    world.health();
    world.beat();
    world.timer(600 * MS);
    world.timer(MS);
    assert_eq!(world.orders().len(), 4, "a bounded time after");
}

/// Peers 7. A cycle that takes balances further from their targets needs more edge.
#[test]
fn a_worsening_cycle_needs_more_edge() {
    for (skew_ppm, sent) in [(0, 2), (100_000, 0)] {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.skew_ppm = skew_ppm;
        for band in &mut limits.assets[1].bands {
            band.target = tandem_core::units::Amount(200 * BTC);
            band.ceiling = tandem_core::units::Amount(400 * BTC);
        }
        // Kraken has less than it should and would sell; the others are at their target.
        for venue in [0, 1] {
            limits.assets[1].bands[venue].target = tandem_core::units::Amount(100 * BTC);
        }
        for venue in 0..3 {
            let funds = tandem_core::units::Amount(10_000_000 * USD);
            limits.assets[0].bands[venue].target = funds;
        }
        let mut world = World::armed(limits);
        world.dislocate(2, BTC / 4);
        assert_eq!(world.orders().len(), sent, "{skew_ppm}");
    }
}

/// What is too little to trade is summed over rounds, and its cap calls an operator.
#[test]
fn dust_is_netted_and_capped() {
    for (dust_max, level) in [(150, Level::Armed), (149, Level::Pause)] {
        let mut limits = trading(Mode::Live, &universe(false));
        limits.assets[1].dust_max = tandem_core::units::Amount(dust_max);
        let mut world = World::armed(limits);
        world.dislocate(2, BTC / 4);
        let legs = world.orders();
        world.books();
        let bought = legs.iter().find(|leg| leg.action == Action::Buy).expect("a purchase");
        let little = fill(&world, bought, 150, 1);
        let Report::Fill { px, qty, asset, trade_id, .. } = little else { unreachable!("a fill") };
        let fee = tandem_core::units::Amount(0);
        world.report(bought, Report::Fill { px, qty, fee, asset, trade_id });
        for leg in &legs {
            let qty = if leg.key == bought.key { 150 } else { 0 };
            let status = DoneStatus::Expired;
            world.report(leg, Report::Done { status, qty: Qty(qty) });
        }
        let desk = world.engine.desk().expect("trades");
        assert_eq!(desk.ledger().dust(tandem_core::instrument::AssetId(1)), 150);
        assert_eq!(desk.level(Venue::Kraken), level, "{dust_max}");
    }
}

/// Row OE-21. After arming, the first rounds are of the smallest size.
#[test]
fn the_first_rounds_after_arming_are_small() {
    let mut limits = trading(Mode::Live, &universe(false));
    limits.ramp_rounds = 1;
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    assert!(legs.len() == 2 || legs.len() == 4, "{:?}", world.denials());
    assert!(legs[..2].iter().all(|leg| leg.qty.0 <= 3 * LOT), "{legs:?}");
    assert!(legs[2..].iter().all(|leg| 10 * LOT < leg.qty.0), "{legs:?}");
    println!("figure OE-21: the first round after arming is of {} quanta", legs[0].qty.0);
}

/// C22. A venue that is armed again begins a new sample; the other venues' samples stay.
#[test]
fn arming_a_venue_forgets_its_acknowledgements_alone() {
    let mut bench = Bench::new();
    bench.controls.on_ack(Venue::Kraken, 2 * S + 1);
    bench.controls.rearm();
    bench.controls.rearm_venue(Venue::Binance);
    denies(bench.check(&[buy()]), Control::Ack);
    bench.controls.rearm_venue(Venue::Kraken);
    assert_eq!(bench.check(&[buy()]), Ok(()));
}
