//! What an instruction counter runs: ticks without and with an opportunity, and an order to its bytes.
//!
//! Invariant: the same input at every run, no clock, no thread, no socket. What is counted is inside
//! [`measured_tick`] and [`measured_order`] and nothing else: `scripts/instructions` counts between their
//! entry and their return. Everything around them only prepares.
//!
//! Not here: how long it takes (`tandem-bench`), what the counts may be (`bench/instructions.txt`).

use std::hint::black_box;

use tandem_core::account::SessionState;
use tandem_core::engine::Engine;
use tandem_core::episode::Outbox;
use tandem_core::instrument::FeeIn;
use tandem_core::limits::Mode;
use tandem_core::order::{Action as Way, DoneStatus, NewOrder, OrderKey, Purpose, Report, Tif};
use tandem_core::record::{Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{FeePpm, Px, Qty, Side};
use tandem_feeds::machine::Stamps;
use tandem_feeds::spec::{InstrumentRules, Listing, build_universe};
use tandem_gateway::binance::Binance;
use tandem_gateway::config::Config;
use tandem_gateway::desk::Desk;
use tandem_gateway::gate::LocalGate;
use tandem_gateway::gateway::{Gateway, Stamp};
use tandem_gateway::guard::{GuardReason, Permit, Route, Wires};
use tandem_gateway::keys::Credentials;
use tandem_gateway::machine::Action;

use desk::{BTC, MS, PX, S, World, fill, trading, universe};

#[allow(
    unexpected_cfgs,
    missing_docs,
    reason = "the world that the core's own tests trade in; what is not used here is used there"
)]
#[path = "../../../core/tests/desk/mod.rs"]
mod desk;

/// One record through the engine.
#[inline(never)]
fn measured_tick(engine: &mut Engine, record: &Record, out: &mut Outbox) {
    engine.step(black_box(record), out);
}

/// One order record through the gateway, to the bytes that a socket would get.
#[inline(never)]
fn measured_order(gateway: &mut Gateway, record: &Record, around: (&LocalGate, &mut Sink, &At)) {
    let (gate, wires, at) = around;
    black_box(gateway.take(black_box(record), gate, wires, at));
}

fn stamped(world: &World, record: Record) -> Record {
    Record {
        engine_ts_ns: world.now_ns,
        recv_ts_ns: world.now_ns,
        venue_ts_ns: world.now_ns,
        conn: u32::from(record.venue) + 1,
        flags: flag::LAST,
        ..record
    }
}

fn world() -> World {
    let universe = universe(true);
    let limits = trading(Mode::Live, &universe);
    let mut world = World::armed_with(universe, limits);
    world.keeps_journal = false;
    world
}

/// Best prices that move a little; nothing pays.
fn quiet(count: u64) {
    let mut world = world();
    for n in 0..count {
        let id = (n % 3) as u16;
        let venue = world.venue(id);
        let side = if n % 2 == 0 { Side::Bid } else { Side::Ask };
        let (mid, step) = world.mid(id);
        let px = if side == Side::Bid { mid - step } else { mid + step };
        let qty = BTC / 2 + (n % 7) as i64 * 1_000;
        let record = stamped(&world, Record::level(venue, id, side, Px(px), Qty(qty)));
        measured_tick(&mut world.engine, &record, &mut world.out);
        world.now_ns += 100_000;
        if n % 1_000 == 999 {
            world.health();
        }
    }
    assert!(world.out.records().is_empty(), "a quiet market put something out");
}

/// A dislocation at Kraken; the record that completes it makes the orders.
fn paying(count: u64) {
    let mut world = world();
    for n in 0..count {
        world.out.clear();
        let px = 60_600 * PX;
        for rank in 0..10 {
            world.level(2, Side::Ask, 60_000 * PX + 10 * PX * (rank + 1), 0, 0);
        }
        world.level(2, Side::Ask, px + 10 * PX, BTC, flag::LAST);
        let trigger = Record::level(world.venue(2), 2, Side::Bid, Px(px), Qty(BTC / 8));
        let trigger = stamped(&world, Record { update_id: (1 << 40) + n, ..trigger });
        measured_tick(&mut world.engine, &trigger, &mut world.out);
        let orders = world.orders();
        assert_eq!(orders.len(), 2, "round {n}: {:?}", world.denials());
        for (at, order) in orders.iter().enumerate() {
            let (status, qty) = (DoneStatus::Filled, order.qty);
            let whole = fill(&world, order, qty.0, n * 64 + at as u64 + 1);
            world.report(order, whole);
            world.report(order, Report::Done { status, qty });
        }
        world.timer(5 * MS);
        world.now_ns += S;
        world.tell_balances();
        world.health();
        world.books();
        world.timer(5 * MS);
        assert_eq!(world.echo(), 0, "round {n}: a level was raised");
    }
}

struct Sink(Vec<u8>);

impl Wires for Sink {
    fn stage(&mut self, _: Route, bytes: &[u8]) -> bool {
        self.0.clear();
        self.0.extend_from_slice(bytes);
        true
    }
    fn commit(&mut self, _: Route, _: Permit) -> bool {
        true
    }
    fn discard(&mut self, _: Route) {}
}

struct At(i64);

impl Stamp for At {
    fn now(&self) -> (i64, u64) {
        (self.0, 1)
    }
}

fn no_abort(_: GuardReason) {}

/// Answers what the gateway asks until its session is ready.
fn pump(gateway: &mut Gateway, now_ns: i64, gate: &LocalGate) {
    let at = Stamps { recv_ns: now_ns, recv_tsc: 1, bytes: 1 };
    while let Some(action) = gateway.next_action() {
        match action {
            Action::Connect { conn, .. } => gateway.on_open(conn, now_ns),
            Action::Send { conn, text } => {
                let part = |name: &str| {
                    let rest = text.split_once(&format!("\"{name}\":")).map_or("", |(_, r)| r);
                    rest.trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or("")
                };
                let result = match part("method") {
                    "account.status" => r#"{"balances":[]}"#,
                    "account.commission" => r#"{"standardCommission":{"maker":"0","taker":"0"}}"#,
                    "openOrders.status" | "myTrades" => "[]",
                    _ => "{}",
                };
                let id = part("id");
                let reply = format!("{{\"id\":{id},\"status\":200,\"result\":{result}}}");
                gateway.on_text(conn, reply.as_bytes(), at, gate);
            }
            Action::Ping { conn } => gateway.on_pong(conn, now_ns),
            Action::Http { .. } | Action::Close { .. } | Action::Drop { .. } => {}
        }
    }
    while gateway.next_record().is_some() {}
}

/// Orders to Binance, the shortest way to a socket.
fn order(count: u64) {
    const START: i64 = 1_764_000_000_000_000_000;
    let rules = InstrumentRules {
        venue: Venue::Binance,
        symbol: "BTCUSDT".into(),
        feed_symbol: "BTCUSDT".into(),
        rest_symbol: "BTCUSDT".into(),
        base: "BTC".into(),
        quote: "USDT".into(),
        tick: "0.01".into(),
        lot: "0.00001".into(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: "1".into(),
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: TradingStatus::Trading,
    };
    let (taker_fee, fee_in) = (FeePpm(0), FeeIn::Quote);
    let listing = Listing { rules, taker_fee, fee_in, notional_max: "100000".into() };
    let (universe, instruments) = build_universe(&[listing]).expect("a plain listing");
    // All orders are of one second of the venue's budget, and none of them is answered.
    let config = Config {
        new_share_ppm: 1_000_000,
        silence_ns_max: i64::MAX,
        ..Config::for_venue(Venue::Binance)
    };
    let desk = Desk::new(Venue::Binance, &universe, &instruments, config);
    // Known to everybody: it opens nothing.
    let private_key_pem = "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    let key = Credentials::BinanceEd25519 {
        api_key: "K".into(),
        private_key_pem: private_key_pem.into(),
    };
    let dialect = Binance::new(&key, &desk).expect("a key");
    let gate = LocalGate::armed();
    let mut gateway = Gateway::new(Box::new(dialect), desk, no_abort);
    let mut at = At(START);
    gateway.start(at.0);
    for _ in 0..200 {
        at.0 += 10 * MS;
        pump(&mut gateway, at.0, &gate);
        gateway.on_timer(at.0, true, &gate);
    }
    pump(&mut gateway, at.0, &gate);
    assert_eq!(gateway.desk().state(at.0), SessionState::Ready);
    let mut sink = Sink(Vec::with_capacity(4 << 10));
    for n in 1..=count {
        let order = NewOrder {
            run: 1,
            key: OrderKey::new(n, 0),
            venue: Venue::Binance,
            instrument: 0,
            action: Way::Buy,
            px: Px(6_000_010),
            qty: Qty(100),
            tif: Tif::Ioc,
            purpose: Purpose::Hedge,
            expires_ns: at.0 + 500 * MS,
            cause: 1,
            level_epoch: 0,
        };
        let record = order.record(&Record::default());
        sink.0.clear();
        measured_order(&mut gateway, &record, (&gate, &mut sink, &at));
        let told: Vec<Record> = std::iter::from_fn(|| gateway.next_record()).collect();
        assert!(!sink.0.is_empty(), "order {n} did not leave: {told:?}");
        assert!(told.iter().any(|record| record.kind() == Some(Kind::OrderSent)), "{told:?}");
    }
}

fn main() {
    let mut words = std::env::args().skip(1);
    let (what, count) = (words.next(), words.next().and_then(|count| count.parse().ok()));
    match (what.as_deref(), count) {
        (Some("quiet"), Some(count)) => quiet(count),
        (Some("paying"), Some(count)) => paying(count),
        (Some("order"), Some(count)) => order(count),
        _ => {
            eprintln!("usage: instructions quiet|paying|order COUNT");
            std::process::exit(2);
        }
    }
}
