//! Rounds against a venue that does everything that venues do, from a seed, and against tables.

mod desk;

use std::collections::{BTreeMap, BTreeSet};

use desk::*;
use tandem_core::instrument::{AssetId, FeeIn};
use tandem_core::ledger::Tag;
use tandem_core::level::Level;
use tandem_core::limits::Mode;
use tandem_core::order::{
    Action, DoneStatus, NewOrder, OrderKey, Purpose, RejectClass, Report, UnknownCause,
};
use tandem_core::orders::State;
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::round::Stage;
use tandem_core::units::{Amount, Px, Qty};
use tandem_core::value::{quote_of, shift_of};

fn live() -> World {
    World::armed(trading(Mode::Live, &universe(false)))
}

fn done(status: DoneStatus, qty: i64) -> Report {
    Report::Done { status, qty: Qty(qty) }
}

/// What really happened at the venues.
#[derive(Default)]
struct Truth {
    balances: BTreeMap<(u8, u16), i128>,
    /// By order: terms and trades.
    orders: BTreeMap<OrderKey, (NewOrder, Vec<Report>)>,
    /// What may still happen to an order's quantity.
    open: BTreeMap<OrderKey, i64>,
    next_trade: u64,
}

/// A report under way, or a fill that has not happened yet.
#[derive(Clone, Copy)]
enum Event {
    Report(Report),
    /// The order ends without anybody saying so.
    Ends,
    Executes(Report),
}

struct Adversary {
    dice: Dice,
    truth: Truth,
    events: Vec<(i64, u64, OrderKey, Event)>,
    sequence: u64,
    ends: BTreeMap<OrderKey, (i64, Report)>,
    kinds: BTreeMap<&'static str, u64>,
    sent: BTreeSet<OrderKey>,
    duplicates: u64,
    late: BTreeSet<OrderKey>,
}

impl Adversary {
    fn new(world: &World, seed: u64) -> Adversary {
        let mut truth = Truth::default();
        for venue in Venue::ALL {
            for asset in 0..2 {
                truth.balances.insert((venue as u8, asset), world.held(venue, asset));
            }
        }
        Adversary {
            dice: Dice(seed),
            truth,
            events: Vec::new(),
            sequence: 0,
            ends: BTreeMap::new(),
            kinds: BTreeMap::new(),
            sent: BTreeSet::new(),
            duplicates: 0,
            late: BTreeSet::new(),
        }
    }

    fn at(&mut self, when: i64, key: OrderKey, event: Event) {
        self.sequence += 1;
        self.events.push((when, self.sequence, key, event));
    }

    /// Tells a report now or later, now and then twice, now and then out of order.
    fn tell(&mut self, when: i64, key: OrderKey, report: Report) {
        let jitter = if self.dice.chance(30) { self.dice.below(40) * MS } else { 0 };
        self.at(when + jitter, key, Event::Report(report));
        if self.dice.chance(15) {
            let again = self.dice.below(300) * MS;
            self.at(when + again, key, Event::Report(report));
        }
    }

    fn trade(&mut self, world: &World, order: &NewOrder, qty: i64) -> Report {
        self.truth.next_trade += 1;
        let better = self.dice.below(3) * PX;
        let px = match order.action {
            Action::Buy => Px(order.px.0 - better),
            Action::Sell => Px(order.px.0 + better),
        };
        fill_at(world.engine.universe(), order, px, qty, self.truth.next_trade)
    }

    /// A new order reaches the venue, or does not.
    fn accept(&mut self, world: &World, order: NewOrder) {
        if !self.sent.insert(order.key) {
            self.duplicates += 1;
            return;
        }
        let (now, key) = (world.now_ns, order.key);
        self.truth.orders.insert(key, (order, Vec::new()));
        self.truth.open.insert(key, order.qty.0);
        let mode = self.dice.below(100);
        let soon = now + (1 + self.dice.below(20)) * MS;
        let lots = order.qty.0 / LOT;
        let part = match self.dice.below(4) {
            0 => 0,
            1 => (1 + self.dice.below(lots)) * LOT,
            _ => order.qty.0,
        };
        let name = match mode {
            0..10 => "reject",
            10..14 => "not sent",
            14..22 => "reply lost, executed",
            22..28 => "reply lost, never there",
            28..34 => "disconnect, executed",
            34..38 => "venue does not know, executed",
            38..42 => "totals before fills",
            42..47 => "done before fills",
            47..50 => "late fill",
            50..54 => "executed late",
            _ => "ordinary",
        };
        *self.kinds.entry(name).or_default() += 1;
        if name == "reject" || name == "not sent" {
            let class = if name == "reject" { RejectClass::Filter } else { RejectClass::NotSent };
            self.at(now, key, Event::Ends);
            self.tell(soon, key, Report::Reject { class, code: -1 });
            return;
        }
        let never = name == "reply lost, never there";
        let filled = if never { 0 } else { part };
        let executes = if name == "executed late" { soon + 3 * S } else { soon };
        let mut rest = filled;
        let mut fills = Vec::new();
        while rest != 0 {
            let most = rest / LOT;
            let qty = if self.dice.chance(40) { (1 + self.dice.below(most)) * LOT } else { rest };
            rest -= qty;
            let fill = self.trade(world, &order, qty);
            fills.push(fill);
            self.at(executes, key, Event::Executes(fill));
        }
        self.at(executes, key, Event::Ends);
        let status = match (never, filled == order.qty.0) {
            (true, _) => DoneStatus::NeverAccepted,
            (false, true) => DoneStatus::Filled,
            (false, false) => DoneStatus::Expired,
        };
        self.ends.insert(key, (executes, done(status, filled)));
        let ack = Report::Ack { venue_id: key.0 as u128 };
        match name {
            "reply lost, executed" | "reply lost, never there" => {}
            "disconnect, executed" | "venue does not know, executed" => {
                let cause = match name {
                    "disconnect, executed" => UnknownCause::Disconnect,
                    _ => UnknownCause::Venue,
                };
                self.tell(soon, key, Report::Unknown { cause });
                if self.dice.chance(30) {
                    for fill in fills {
                        self.tell(executes + 500 * MS, key, fill);
                    }
                }
            }
            "totals before fills" => {
                let totals =
                    Report::Totals { qty: Qty(filled), cost: Amount(0), fee: Amount(0), asset: 0 };
                self.tell(soon, key, totals);
                self.tell(soon, key, done(status, filled));
                for fill in fills {
                    self.tell(executes + 50 * MS, key, fill);
                }
            }
            "late fill" => {
                // The end tells nothing filled; the fills come after it all the same.
                self.late.insert(key);
                self.at(soon, key, Event::Report(done(DoneStatus::Cancelled, 0)));
                for fill in fills {
                    self.tell(executes + 200 * MS, key, fill);
                }
            }
            _ => {
                self.tell(soon, key, Report::Sent { at_ns: now, tsc: 0 });
                self.tell(soon, key, ack);
                let before = name == "done before fills";
                let (first, second) = if before {
                    (executes, executes + 30 * MS)
                } else {
                    (executes + 5 * MS, executes)
                };
                self.tell(first, key, done(status, filled));
                for fill in fills {
                    self.tell(second, key, fill);
                }
            }
        }
    }

    /// A query is answered with everything there is, or not at all.
    fn answer(&mut self, world: &World, key: OrderKey) {
        if self.dice.chance(30) {
            *self.kinds.entry("query unanswered").or_default() += 1;
            return;
        }
        *self.kinds.entry("query").or_default() += 1;
        let Some((executes, end)) = self.ends.get(&key).copied() else { return };
        if world.now_ns < executes {
            // Not seen there yet: that is no proof, and so nothing is said.
            return;
        }
        let when = world.now_ns + (1 + self.dice.below(30)) * MS;
        for fill in self.truth.orders[&key].1.clone() {
            self.tell(when, key, fill);
        }
        self.tell(when, key, end);
    }

    fn execute(&mut self, world: &World, key: OrderKey, fill: Report) {
        let Report::Fill { px, qty, fee, asset, .. } = fill else { return };
        let (order, trades) = self.truth.orders.get_mut(&key).expect("known");
        trades.push(fill);
        let universe = world.engine.universe();
        let buys = order.action == Action::Buy;
        let quote = quote_of(px, qty.0, shift_of(universe, order.instrument), buys);
        let sign = if buys { 1 } else { -1 };
        let venue = order.venue as u8;
        let mut add = |asset: u16, delta: i128| {
            *self.truth.balances.get_mut(&(venue, asset)).expect("known") += delta;
        };
        add(1, i128::from(qty.0) * sign);
        add(0, -quote * sign);
        add(asset, -i128::from(fee.0));
        *self.truth.open.get_mut(&key).expect("open") -= qty.0;
    }

    /// Everything until now happens; reports are told to the engine.
    fn run(&mut self, world: &mut World) {
        loop {
            let now = world.now_ns;
            let next = self.events.iter().enumerate().filter(|(_, e)| e.0 <= now);
            let Some((at, _)) = next.min_by_key(|(_, e)| (e.0, e.1)) else { return };
            let (_, _, key, event) = self.events.swap_remove(at);
            match event {
                Event::Executes(fill) => self.execute(world, key, fill),
                Event::Ends => {
                    self.truth.open.remove(&key);
                }
                Event::Report(report) => {
                    let order = self.truth.orders[&key].0;
                    world.report(&order, report);
                    self.listen(world);
                }
            }
        }
    }

    /// Takes what the engine put out to the venues.
    fn listen(&mut self, world: &mut World) {
        world.echo();
        for record in world.out.records().to_vec() {
            if let Some(order) = NewOrder::read(&record) {
                self.accept(world, order);
            } else if record.kind() == Some(Kind::OrderQuery) {
                self.answer(world, OrderKey(record.data[0]));
            }
        }
        world.out.clear();
    }

    /// I1 from the venues' side: what we hold beyond what we began with, in all worlds still possible.
    fn worst(&self, opening: i128) -> i128 {
        let held: i128 =
            self.truth.balances.iter().filter(|((_, asset), _)| *asset == 1).map(|(_, b)| *b).sum();
        let (mut low, mut high) = (held - opening, held - opening);
        for (key, qty) in &self.truth.open {
            match self.truth.orders[key].0.action {
                Action::Buy => high += i128::from(*qty),
                Action::Sell => low -= i128::from(*qty),
            }
        }
        low.abs().max(high.abs())
    }
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Row OE-01. Row OE-03. Row OE-04. Row OE-05. Row OE-06. Row OE-08. Row OE-09. Row OE-10. Row OE-11.
/// Row AC-01. Row AC-03. Row AC-05. Peers 5, 6, 8, 9, 10.
#[test]
fn an_adversarial_venue_never_makes_the_ledger_wrong() {
    let seed = environment("TANDEM_SEED", 20_261_122);
    let cases = environment("TANDEM_ROUNDS_CASES", 30_000);
    println!("TANDEM_SEED={seed} TANDEM_ROUNDS_CASES={cases}");
    let mut limits = trading(Mode::Live, &universe(false));
    limits.assets[1].exposure_max = Amount(BTC / 2);
    let mut world = World::armed(limits);
    world.keeps_journal = false;
    let mut venue = Adversary::new(&world, seed);
    let opening = world.total(1);
    let limit = i128::from(BTC / 2);
    let (mut raises, mut slowest_ns, mut unresolved) = (0u64, 0i64, 0u64);
    let mut worst_seen = 0;
    for case in 0..cases {
        world.health();
        world.books();
        world.tell_balances();
        world.out.clear();
        let (sell, lots) = (1 + venue.dice.below(2) as u16, 20 + venue.dice.below(4_000));
        world.dislocate(sell, lots * LOT);
        venue.listen(&mut world);
        world.books();
        venue.listen(&mut world);
        let began = world.now_ns;
        // Until nothing is open and nothing more is under way; a minute is far beyond every bound.
        for tick in 0.. {
            let step = if tick < 60 { 10 * MS } else { 100 * MS };
            world.timer(step);
            venue.listen(&mut world);
            venue.run(&mut world);
            if tick % 8 == 0 {
                world.health();
                world.beat();
                venue.listen(&mut world);
            }
            let worst = venue.worst(opening);
            if venue.late.is_empty() {
                worst_seen = worst_seen.max(worst);
            }
            // A fill after an end that told none was not reserved, and what hedges it may lie as well: no
            // books can count that before. It must still come to rest, see below.
            let is_bounded = !venue.late.is_empty() || worst <= limit + i128::from(LOT);
            assert!(is_bounded, "case {case}, seed {seed}: I1 {worst}");
            let desk = world.engine.desk().expect("trades");
            assert!(desk.ledger().check(), "case {case}: conservation");
            let is_over = desk.orders().open_count() == 0 && venue.events.is_empty();
            let held = desk.rounds().iter().any(|round| round.stage == Stage::Held);
            if is_over && (desk.rounds().iter().count() == 0 || held) {
                break;
            }
            if 60 * S < world.now_ns - began {
                unresolved += 1;
                break;
            }
        }
        slowest_ns = slowest_ns.max(world.now_ns - began);
        // The ledger is the truth, exactly.
        for ((tag, asset), truth) in &venue.truth.balances {
            let held = world.held(Venue::from_tag(*tag).expect("a venue"), *asset);
            assert_eq!(held, *truth, "case {case}, seed {seed}: venue {tag} asset {asset}");
        }
        let desk = world.engine.desk().expect("trades");
        let dust = desk.ledger().dust(AssetId(1));
        let residue = venue.worst(opening) - dust.abs();
        let raised = Venue::ALL.iter().any(|venue| desk.level(*venue) != Level::Armed);
        assert!(
            residue <= 0 || raised,
            "case {case}, seed {seed}: {residue} left over, {dust} dust"
        );
        let halted = Venue::ALL.iter().any(|venue| Level::Halt <= desk.level(*venue));
        assert!(!halted, "case {case}, seed {seed}: an honest venue broke an invariant");
        if raised {
            raises += 1;
            world.arm();
            venue.listen(&mut world);
        }
        // Yesterday's orders are of no use to the checks.
        if case % 50 == 0 && venue.events.is_empty() {
            let open: BTreeSet<_> = venue.truth.open.keys().copied().collect();
            venue.truth.orders.retain(|key, _| open.contains(key));
            venue.ends.clear();
        }
        // What such a fill left over may be held into the next case.
        if world.engine.desk().expect("trades").rounds().iter().count() == 0 {
            venue.late.clear();
        }
        world.timer(S);
        venue.listen(&mut world);
    }
    assert_eq!(venue.duplicates, 0, "an order was sent twice");
    assert_eq!(unresolved, 0, "an order or a round was left unresolved");
    let counts = *world.engine.desk().expect("trades").counts();
    println!(
        "figure OE-03: {} orders, 0 wrong resolutions, 0 duplicates, {} unknown, all resolved",
        counts.orders, counts.orders_unknown
    );
    println!(
        "figure OE-08: {} fills, {} late, {} repeated and ignored, 0 missed",
        counts.fills, counts.fills_late, counts.fills_repeated
    );
    println!(
        "figure OE-09: {} hedged, {} unwound, {} held, slowest round {} ms, {raises} rounds ended with a raised level",
        counts.hedged,
        counts.unwound,
        counts.held,
        slowest_ns / MS
    );
    println!(
        "figure OE-10: worst case of all worlds {worst_seen} of {limit} (and a lot), while no venue ends an order short"
    );
    println!("figure AC-01: kinds {:?}", venue.kinds);
    assert!(cases < 30_000 || 100_000 <= counts.orders, "{counts:?}");
}

/// Row OE-07. Peers 4: each leg whole, in part, or not, in time or after its end: nothing is left over.
#[test]
fn the_matrix_of_partial_fills_leaves_less_than_a_lot() {
    let qty = BTC / 4;
    let parts = [("none", 0), ("part", 70_000), ("whole", qty)];
    let mut rows = 0;
    for (first, a) in parts {
        for (second, b) in parts {
            for late in [false, true] {
                let mut world = live();
                let opening = world.total(1);
                world.dislocate(2, qty);
                let legs = world.orders();
                assert_eq!(legs.len(), 2);
                world.books();
                let mut trade = 0;
                for (leg, filled) in legs.iter().zip([a, b]) {
                    let filled = filled.min(leg.qty.0);
                    trade += 1;
                    let end = done(DoneStatus::Expired, if late { 0 } else { filled });
                    world.report(leg, end);
                    if filled != 0 {
                        let fill = fill(&world, leg, filled, trade);
                        world.report(leg, fill);
                    }
                }
                let mut served: BTreeSet<OrderKey> = legs.iter().map(|leg| leg.key).collect();
                for _ in 0..50 {
                    for order in world.orders() {
                        if served.insert(order.key) {
                            assert!(order.purpose.reduces(), "{first} {second}");
                            trade += 1;
                            let whole = fill(&world, &order, order.qty.0, trade);
                            world.report(&order, whole);
                            world.report(&order, done(DoneStatus::Filled, order.qty.0));
                        }
                    }
                    world.timer(20 * MS);
                }
                let desk = world.engine.desk().expect("trades");
                assert_eq!(desk.rounds().iter().count(), 0, "{first} {second} late {late}");
                let left = world.total(1) - opening;
                let fees_in_base = 2 * i128::from(LOT);
                assert!(left.abs() < fees_in_base, "{first} {second} late {late}: {left}");
                rows += 1;
            }
        }
    }
    println!(
        "figure OE-07: {rows} combinations of partial fills, each leaves less than a lot and dust"
    );
}

fn hedge_of(world: &World, legs: &[NewOrder]) -> Option<NewOrder> {
    world.orders().into_iter().find(|order| legs.iter().all(|leg| leg.key != order.key))
}

/// Row OE-07. The hedge leaves in the step of the last leg's end.
#[test]
fn a_hedge_starts_in_the_step_of_the_last_end() {
    let mut world = live();
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let whole = fill(&world, &legs[0], legs[0].qty.0, 1);
    world.report(&legs[0], whole);
    world.report(&legs[0], done(DoneStatus::Filled, legs[0].qty.0));
    assert!(hedge_of(&world, &legs).is_none(), "the other leg may still fill");
    world.report(&legs[1], Report::Reject { class: RejectClass::Market, code: 0 });
    let hedge = hedge_of(&world, &legs).expect("in the same step");
    assert_eq!(hedge.action, Action::Sell);
    assert!(hedge.qty <= legs[0].qty && legs[0].qty.0 - LOT * 2 <= hedge.qty.0);
    println!("figure OE-07: hedge sent in the step of the last leg's end (0 turns later)");
}

/// Row OE-09. What cannot be hedged is held within its time, and said.
#[test]
fn a_leg_that_cannot_be_hedged_is_held_and_said_in_time() {
    let mut world = live();
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let whole = fill(&world, &legs[0], legs[0].qty.0, 1);
    world.report(&legs[0], whole);
    world.report(&legs[0], done(DoneStatus::Filled, legs[0].qty.0));
    world.report(&legs[1], Report::Reject { class: RejectClass::Market, code: 0 });
    let mut answered: BTreeSet<OrderKey> = legs.iter().map(|leg| leg.key).collect();
    let began = world.now_ns;
    let mut hedges = 0;
    while world.now_ns - began < 10 * S {
        for order in world.orders() {
            if answered.insert(order.key) {
                hedges += 1;
                world.report(&order, done(DoneStatus::Expired, 0));
            }
        }
        world.timer(20 * MS);
        if world.now_ns % (S / 2) < 20 * MS {
            world.health();
            world.beat();
        }
    }
    let desk = world.engine.desk().expect("trades");
    let held: Vec<_> = desk.rounds().iter().filter(|r| r.stage == Stage::Held).collect();
    assert_eq!(held.len(), 1);
    assert!(1 < hedges && hedges <= 20, "{hedges}");
    assert!(Venue::ALL.iter().all(|venue| desk.level(*venue) == Level::Pause));
    let told = world.kinds(Kind::ControlLevel);
    let at = told.iter().find(|r| r.data[2] == 30).expect("told").engine_ts_ns - began;
    assert!(at <= 4_100 * MS, "{at}");
    println!("figure OE-09: held after {} ms and {hedges} hedges", at / MS);
    // An operator arms: it is tried again.
    world.echo();
    world.out.clear();
    world.health();
    world.beat();
    world.arm();
    world.timer(50 * MS);
    assert_eq!(world.orders().len(), 1);
}

/// Row OE-09. Nothing that would lose more than the round's budget is sent.
#[test]
fn a_hedge_stays_within_the_budget_of_its_round() {
    let mut limits = trading(Mode::Live, &universe(false));
    limits.round_loss_max = USD;
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let whole = fill(&world, &legs[0], legs[0].qty.0, 1);
    // The market falls by a percent before the other leg is refused.
    for id in 0..3 {
        world.step(Record::new(Kind::Clear, world.venue(id) as u8, id, [0; 4]));
        world.level(id, tandem_core::units::Side::Bid, 59_400 * PX, BTC, 0);
        world.level(id, tandem_core::units::Side::Ask, 59_500 * PX, BTC, flag::LAST);
    }
    world.out.clear();
    world.report(&legs[0], whole);
    world.report(&legs[0], done(DoneStatus::Filled, legs[0].qty.0));
    world.report(&legs[1], Report::Reject { class: RejectClass::Market, code: 0 });
    for _ in 0..300 {
        world.timer(20 * MS);
        world.health();
        world.beat();
    }
    let hedges = world.orders().into_iter().filter(|order| order.purpose.reduces()).count();
    assert_eq!(hedges, 0, "150 dollars of loss are not sent");
    let desk = world.engine.desk().expect("trades");
    let first = desk.rounds().iter().find(|round| round.id == 1).map(|round| round.stage);
    assert_eq!(first, Some(Stage::Held));
    println!("figure OE-09: loss beyond the budget of a round: 0 hedges sent");
}

/// Row OE-14. More than ordered, or worse than the limit: HALT in the same step.
#[test]
fn what_no_venue_may_say_halts_it_in_the_same_step() {
    for case in 0..3 {
        let mut world = live();
        world.dislocate(2, BTC / 4);
        let legs = world.orders();
        let leg = legs[0];
        let (px, qty) = match case {
            0 => (leg.px, leg.qty.0 + LOT),
            1 => (Px(leg.px.0 + if leg.action == Action::Buy { 1 } else { -1 }), LOT),
            _ => (leg.px, LOT),
        };
        let lie = fill_at(world.engine.universe(), &leg, px, qty, 5);
        world.report(&leg, lie);
        if case == 2 {
            let other = fill(&world, &leg, 2 * LOT, 5);
            world.report(&leg, other);
        }
        let desk = world.engine.desk().expect("trades");
        assert_eq!(desk.level(leg.venue), Level::Halt, "case {case}");
        let cancels = world.kinds(Kind::OrderCancel);
        let expected = legs.iter().filter(|l| l.venue == leg.venue).count();
        assert_eq!(cancels.len(), expected, "its open orders are cancelled");
        assert_ne!(world.held(leg.venue, 1), i128::from(100 * BTC), "money moved");
    }
    println!("figure OE-14: 3 of 3 impossible fills halt the venue in the same step");
}

/// Row OE-03. Silence is asked about, never taken for a refusal, and never answered by another order.
#[test]
fn silence_is_unknown_and_asked_about_with_a_growing_wait() {
    let mut world = live();
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    world.report(&legs[1], Report::Reject { class: RejectClass::Market, code: 0 });
    world.books();
    world.out.clear();
    let mut asked = Vec::new();
    for tick in 0..500 {
        world.timer(10 * MS);
        if tick % 50 == 0 {
            world.health();
            world.beat();
        }
        assert_eq!(world.orders().len(), 0, "nothing is sent while it is unknown");
        asked.extend(world.kinds(Kind::OrderQuery).iter().map(|query| query.engine_ts_ns));
        world.out.clear();
    }
    let desk = world.engine.desk().expect("trades");
    let open: Vec<_> = desk.orders().open().collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].state(), State::Unknown);
    assert_eq!(open[0].remaining(), legs[0].qty, "all of it is reserved");
    assert!((4..20).contains(&asked.len()), "{}", asked.len());
    let waits: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1] + 20 * MS), "{waits:?}");
    // The answer: it was filled. Only then is it hedged.
    let whole = fill(&world, &legs[0], legs[0].qty.0, 1);
    world.report(&legs[0], whole);
    world.report(&legs[0], done(DoneStatus::Filled, legs[0].qty.0));
    assert_eq!(world.orders().len(), 1, "hedged at once");
    println!(
        "figure OE-03: {} queries in 5 s for one silent order, 0 orders sent meanwhile",
        asked.len()
    );
}

/// Row OE-08. A fill after the end, even after the round is over, is booked and hedged.
#[test]
fn a_fill_after_the_round_is_over_opens_it_again() {
    let mut world = live();
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    for leg in &legs {
        world.report(leg, done(DoneStatus::Cancelled, 0));
    }
    assert_eq!(world.engine.desk().expect("trades").rounds().iter().count(), 0);
    world.timer(5 * S);
    world.health();
    world.beat();
    world.books();
    world.out.clear();
    let late = fill(&world, &legs[0], BTC / 10, 77);
    world.report(&legs[0], late);
    let hedge = world.orders();
    assert_eq!(hedge.len(), 1, "in the same step");
    assert_ne!(hedge[0].action, legs[0].action);
    let counts = world.engine.desk().expect("trades").counts();
    assert_eq!((counts.fills, counts.fills_late, counts.orphans), (1, 1, 1));
    // Row AC-05. The venue replays its history: nothing changes.
    world.report(&legs[0], late);
    assert_eq!(world.engine.desk().expect("trades").counts().fills, 1);
    println!("figure OE-08: late fill hedged in the same step; replayed fill ignored");
}

/// Row OE-02. Row OE-13. Row OE-17. What a refusal says about the venue is heeded.
#[test]
fn refusals_pause_or_halt_their_venue() {
    for (class, times, level) in [
        (RejectClass::Auth, 1, Level::Halt),
        (RejectClass::RateLimit, 1, Level::Pause),
        (RejectClass::Funds, 1, Level::Armed),
        (RejectClass::Funds, 2, Level::Pause),
        (RejectClass::Filter, 2, Level::Armed),
    ] {
        let mut world = live();
        let mut venue = Venue::Kraken;
        for time in 0..times {
            world.books();
            world.out.clear();
            world.dislocate(2, BTC / 4 + time * LOT);
            let legs = world.orders();
            venue = legs[1].venue;
            world.books();
            world.report(&legs[0], done(DoneStatus::Expired, 0));
            world.report(&legs[1], Report::Reject { class, code: 1 });
            world.timer(100 * MS);
        }
        let desk = world.engine.desk().expect("trades");
        assert_eq!(desk.level(venue), level, "{class:?} {times}");
    }
    println!("figure OE-13: the second refusal for funds within 10 s pauses the venue");
}

/// Peers 6. Single legs in a row pause the venue that fails them.
#[test]
fn single_legs_in_a_row_pause_the_venue() {
    let mut limits = trading(Mode::Live, &universe(false));
    for venue in &mut limits.venues {
        venue.single_legs_max = 3;
    }
    let mut world = World::armed(limits);
    let mut trade = 0;
    for round in 0..3 {
        world.books();
        world.out.clear();
        world.dislocate(2, BTC / 4 + round * LOT);
        let legs = world.orders();
        assert_eq!(legs.len(), 2, "round {round}");
        let (bought, sold) = (legs[0], legs[1]);
        trade += 1;
        let whole = fill(&world, &bought, bought.qty.0, trade);
        world.report(&bought, whole);
        world.report(&bought, done(DoneStatus::Filled, bought.qty.0));
        world.out.clear();
        world.books();
        world.report(&sold, done(DoneStatus::Expired, 0));
        for hedge in world.orders() {
            trade += 1;
            let whole = fill(&world, &hedge, hedge.qty.0, trade);
            world.report(&hedge, whole);
            world.report(&hedge, done(DoneStatus::Filled, hedge.qty.0));
        }
        let expected = if round < 2 { Level::Armed } else { Level::Pause };
        assert_eq!(world.engine.desk().expect("trades").level(sold.venue), expected);
        world.timer(S);
        world.health();
        world.beat();
    }
}

/// Row AC-06. Row AC-07. A balance that differs is no balance to trade on, and the ledger stays.
#[test]
fn a_balance_that_differs_pauses_after_its_time_and_corrects_nothing() {
    use tandem_core::account::BalanceSource;
    let mut world = live();
    world.balance(Venue::Kraken, 1, 0, BalanceSource::Snapshot);
    assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), Level::Armed);
    // Nothing is sold there meanwhile: the lower of both counts.
    world.dislocate(2, BTC / 4);
    assert_eq!(world.orders().len(), 0);
    world.timer(3 * S);
    assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), Level::Armed);
    world.timer(3 * S);
    world.timer(S);
    let level = |world: &World| world.engine.desk().expect("trades").level(Venue::Kraken);
    assert_eq!(level(&world), Level::Armed, "one word may be older than the ledger");
    world.balance(Venue::Kraken, 1, 0, BalanceSource::Snapshot);
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.level(Venue::Kraken), Level::Pause);
    assert_eq!(desk.level(Venue::Coinbase), Level::Armed);
    assert_eq!(world.held(Venue::Kraken, 1), i128::from(100 * BTC), "never corrected down");
    println!("figure AC-06: 0 orders on a balance of zero; paused at the second word, after 5 s");
    println!("figure AC-07: a difference is found at the second audit in a row that shows it");
}

/// Row AC-08. Fees that differ from the model pause the venue after fifty fills.
#[test]
fn fees_are_compared_with_the_model() {
    let mut limits = trading(Mode::Live, &universe(false));
    for venue in &mut limits.venues {
        venue.fee_error_ppm_max = 20;
    }
    let mut world = World::armed(limits);
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    let leg = *legs.iter().find(|leg| leg.venue == Venue::Kraken).expect("Kraken's");
    for n in 0..50 {
        let Report::Fill { px, qty, fee, asset, trade_id } = fill(&world, &leg, LOT, n + 1) else {
            unreachable!("a fill")
        };
        let fee = Amount(fee.0 * 2);
        let expected = if n < 49 { Level::Armed } else { Level::Pause };
        world.report(&leg, Report::Fill { px, qty, fee, asset, trade_id });
        assert_eq!(world.engine.desk().expect("trades").level(Venue::Kraken), expected, "{n}");
    }
    println!("figure AC-08: an error of 1 bp in the fee is found after 50 fills");
}

/// Row MD-11. Peers 36: a fee taken in base makes the sale smaller, not the leftover larger.
#[test]
fn a_fee_in_base_is_not_sold() {
    let mut world = live();
    world.dislocate(1, BTC / 4);
    let legs = world.orders();
    let (bought, sold) = (legs[0], legs[1]);
    assert_eq!(bought.venue, Venue::Kraken.min(bought.venue));
    let mut trade = 0;
    for leg in [bought, sold] {
        trade += 1;
        let whole = fill(&world, &leg, leg.qty.0, trade);
        world.report(&leg, whole);
        world.report(&leg, done(DoneStatus::Filled, leg.qty.0));
    }
    let rules = &world.engine.universe().instruments[usize::from(bought.instrument)];
    if rules.fee_in == FeeIn::Received {
        assert!(sold.qty < bought.qty);
    }
    let desk = world.engine.desk().expect("trades");
    assert_eq!(desk.rounds().iter().count(), 0, "settled without a hedge");
    assert!(desk.ledger().dust(AssetId(1)).abs() < i128::from(LOT));
    let fee: i128 = Venue::ALL
        .iter()
        .flat_map(|venue| [0u16, 1].map(|asset| desk.ledger().account(*venue, AssetId(asset))))
        .map(|account| account.flows[Tag::Fee as usize - 1])
        .sum();
    assert!(fee < 0);
}

/// Row OE-10. Both legs unknown: both worlds within the limit, paused, nothing hedged.
#[test]
fn both_legs_unknown_are_waited_for() {
    let mut world = live();
    world.dislocate(2, BTC / 4);
    let legs = world.orders();
    for leg in &legs {
        world.report(leg, Report::Unknown { cause: UnknownCause::Disconnect });
    }
    world.out.clear();
    let view = world.engine.view().expect("trades");
    let (low, high) = view.exposure(AssetId(1), None, &[]);
    assert_eq!((low, high), (-i128::from(legs[1].qty.0), i128::from(legs[0].qty.0)));
    for _ in 0..200 {
        world.timer(10 * MS);
    }
    assert_eq!(world.orders().len(), 0);
    for (n, leg) in legs.iter().enumerate() {
        let whole = fill(&world, leg, leg.qty.0, n as u64 + 1);
        world.report(leg, whole);
        world.report(leg, done(DoneStatus::Filled, leg.qty.0));
    }
    let desk = world.engine.desk().expect("trades");
    assert_eq!((desk.orders().open_count(), desk.rounds().iter().count()), (0, 0));
    assert!(legs.iter().all(|leg| leg.purpose == Purpose::Entry));
}

/// C22. Single legs. An operator arms one venue again: what paused it is forgotten, what the others have
/// done is not.
#[test]
fn arming_one_venue_forgets_what_paused_it() {
    use tandem_core::level::Scope;
    let mut limits = trading(Mode::Live, &universe(false));
    for venue in &mut limits.venues {
        venue.single_legs_max = 2;
        venue.ack_ns_max = 300 * MS;
    }
    let mut world = World::armed(limits);
    let mut trade = 0;
    // One round whose second leg fails.
    let mut single = |world: &mut World, size: i64| {
        world.books();
        world.out.clear();
        world.dislocate(2, size);
        let legs = world.orders();
        assert_eq!(legs.len(), 2, "{size}");
        let (bought, sold) = (legs[0], legs[1]);
        trade += 1;
        let whole = fill(world, &bought, bought.qty.0, trade);
        world.report(&bought, whole);
        world.report(&bought, done(DoneStatus::Filled, bought.qty.0));
        world.out.clear();
        world.books();
        world.report(&sold, done(DoneStatus::Expired, 0));
        for hedge in world.orders() {
            trade += 1;
            let whole = fill(world, &hedge, hedge.qty.0, trade);
            world.report(&hedge, whole);
            world.report(&hedge, done(DoneStatus::Filled, hedge.qty.0));
        }
        world.echo();
        world.timer(S);
        world.health();
        world.beat();
        sold.venue
    };
    let venue = single(&mut world, BTC / 4);
    assert_eq!(single(&mut world, BTC / 4 + LOT), venue);
    let level = |world: &World, venue| world.engine.desk().expect("trades").level(venue);
    assert_eq!(level(&world, venue), Level::Pause);
    let others: Vec<_> = Venue::ALL.into_iter().filter(|other| *other != venue).collect();
    for other in &others {
        assert_eq!(level(&world, *other), Level::Armed, "only the one is paused");
    }
    world.page = world.page.lowered(Scope::Venue(venue), Level::Armed).expect("lowered");
    world.step(world.page.record());
    assert_eq!(level(&world, venue), Level::Armed);
    // The first single leg after it is the first, not the third.
    assert_eq!(single(&mut world, BTC / 4 + 2 * LOT), venue);
    assert_eq!(level(&world, venue), Level::Armed, "a fresh count");
    assert_eq!(single(&mut world, BTC / 4 + 3 * LOT), venue);
    assert_eq!(level(&world, venue), Level::Pause, "which counts again");
}
