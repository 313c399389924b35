//! From an order record to the bytes handed to the socket nothing is allocated, counted by the allocator
//! itself. What is left below that is rustls: it makes one buffer for each TLS record it seals.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tandem_core::account::SessionState;
use tandem_core::instrument::FeeIn;
use tandem_core::order::{Action as Way, NewOrder, OrderKey, Purpose, Tif};
use tandem_core::record::{Record, TradingStatus, Venue};
use tandem_core::units::{FeePpm, Px, Qty};
use tandem_feeds::machine::{Reply, Stamps};
use tandem_feeds::spec::{InstrumentRules, Listing, build_universe};
use tandem_gateway::config::Config;
use tandem_gateway::desk::Desk;
use tandem_gateway::gate::LocalGate;
use tandem_gateway::gateway::{Gateway, Stamp};
use tandem_gateway::guard::{GuardReason, Permit, Route, Wires};
use tandem_gateway::keys::Credentials;
use tandem_gateway::machine::{Action, Dialect};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system allocator unchanged; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, which is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above, and `size` is the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const START: i64 = 1_764_000_000_000_000_000;

struct Socket(Vec<u8>);

impl Wires for Socket {
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

/// Answers whatever a gateway needs to become ready.
fn answer(venue: Venue, text: &str) -> Vec<String> {
    let part = |name: &str| {
        let rest = text.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest);
        rest.trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or("").to_owned()
    };
    match venue {
        Venue::Binance => {
            let result = match part("method").as_str() {
                "account.status" => r#"{"balances":[]}"#,
                "account.commission" => r#"{"standardCommission":{"maker":"0","taker":"0"}}"#,
                "openOrders.status" | "myTrades" => "[]",
                _ => "{}",
            };
            vec![format!("{{\"id\":{},\"status\":200,\"result\":{result}}}", part("id"))]
        }
        Venue::Kraken => vec![format!(
            "{{\"method\":\"x\",\"req_id\":{},\"success\":true,\"result\":{{\"channel\":\"{}\"}}}}",
            part("req_id"),
            part("channel")
        )],
        Venue::Coinbase => {
            vec![r#"{"channel":"user","events":[{"type":"snapshot","orders":[]}]}"#.to_owned()]
        }
    }
}

fn rest(text: &str) -> &'static str {
    let is = |part: &str| text.contains(part);
    match () {
        () if is("GetWebSocketsToken") => r#"{"error":[],"result":{"token":"abc"}}"#,
        () if is("/0/private/OpenOrders") => r#"{"error":[],"result":{"open":{}}}"#,
        () if is("TradesHistory") => r#"{"error":[],"result":{"trades":{}}}"#,
        () if is("TradeVolume") => r#"{"error":[],"result":{"fees":{"XXBTZUSD":{"fee":"0.1"}}}}"#,
        () if is("/0/private/") => r#"{"error":[],"result":{}}"#,
        () if is("/accounts") => r#"{"accounts":[]}"#,
        () if is("/fills") => r#"{"fills":[]}"#,
        () if is("transaction_summary") => {
            r#"{"fee_tier":{"taker_fee_rate":"0.01","maker_fee_rate":"0.01"}}"#
        }
        () if is("/batch") => r#"{"orders":[],"has_next":false}"#,
        () => "{}",
    }
}

fn pump(gateway: &mut Gateway, venue: Venue, now_ns: i64, gate: &LocalGate) {
    let at = Stamps { recv_ns: now_ns, recv_tsc: 1, bytes: 1 };
    while let Some(action) = gateway.next_action() {
        match action {
            Action::Connect { conn, .. } => gateway.on_open(conn, now_ns),
            Action::Send { conn, text } => {
                for reply in answer(venue, &text) {
                    gateway.on_text(conn, reply.as_bytes(), at, gate);
                }
            }
            Action::Http { request, bytes, .. } => {
                let mut body = rest(&String::from_utf8(bytes).unwrap()).as_bytes().to_vec();
                let reply = Reply::Answer {
                    status: 200,
                    retry_after_s: None,
                    used_weight: None,
                    body: &mut body,
                };
                gateway.on_reply(request, reply, at, gate);
            }
            Action::Ping { conn } => gateway.on_pong(conn, now_ns),
            Action::Close { .. } | Action::Drop { .. } => panic!("closed"),
        }
    }
    while gateway.next_record().is_some() {}
}

fn check(venue: Venue, make: impl FnOnce(&Desk) -> Box<dyn Dialect>) {
    let (symbol, rest_symbol) = match venue {
        Venue::Binance => ("BTCUSDT", "BTCUSDT"),
        Venue::Coinbase => ("BTC-USD", "BTC-USD"),
        Venue::Kraken => ("BTC/USD", "XXBTZUSD"),
    };
    let rules = InstrumentRules {
        venue,
        symbol: symbol.into(),
        feed_symbol: symbol.into(),
        rest_symbol: rest_symbol.into(),
        base: "BTC".into(),
        quote: "USD".into(),
        tick: "0.01".into(),
        lot: "0.00000001".into(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: "1".into(),
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: TradingStatus::Trading,
    };
    let listing = Listing {
        rules,
        taker_fee: FeePpm(0),
        fee_in: FeeIn::Quote,
        notional_max: "100000".into(),
    };
    let (universe, instruments) = build_universe(&[listing]).unwrap();
    let config = Config {
        new_share_ppm: 1_000_000,
        order_lanes: 32,
        tokens: 64,
        silence_ns_max: i64::MAX,
        ..Config::for_venue(venue)
    };
    let desk = Desk::new(venue, &universe, &instruments, config);
    let dialect = make(&desk);
    let gate = LocalGate::armed();
    let mut gateway = Gateway::new(dialect, desk, no_abort);
    let mut now_ns = START;
    gateway.start(now_ns);
    // Long enough that every connection is warm and every token made.
    for _ in 0..1_000 {
        now_ns += 10_000_000;
        pump(&mut gateway, venue, now_ns, &gate);
        gateway.on_timer(now_ns, true, &gate);
    }
    pump(&mut gateway, venue, now_ns, &gate);
    assert_eq!(gateway.desk().state(now_ns), SessionState::Ready, "{venue:?}");
    let mut wires = Socket(Vec::with_capacity(4 << 10));
    let (mut sent, mut allocated) = (0, 0);
    for n in 1..=20u64 {
        let order = NewOrder {
            run: 1,
            key: OrderKey::new(n, 0),
            venue,
            instrument: 0,
            action: Way::Buy,
            px: Px(6_000_010),
            qty: Qty(100_000),
            tif: Tif::Ioc,
            purpose: Purpose::Hedge,
            expires_ns: now_ns + 500_000_000,
            cause: 1,
            level_epoch: 0,
        };
        let record = order.record(&Record::default());
        let before = ALLOCATIONS.with(Cell::get);
        let left = gateway.take(&record, &gate, &mut wires, &At(now_ns));
        allocated += ALLOCATIONS.with(Cell::get) - before;
        sent += u64::from(left.is_some());
        assert!(!wires.0.is_empty());
    }
    assert_eq!((sent, allocated), (20, 0), "{venue:?}");
    println!("figure 9.4: {} 0 allocations in {sent} orders, record to socket", venue.name());
}

#[test]
fn orders_allocate_nothing() {
    check(Venue::Binance, |desk| {
        let key = Credentials::BinanceEd25519 {
            api_key: "K".into(),
            private_key_pem: "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
                .into(),
        };
        Box::new(tandem_gateway::binance::Binance::new(&key, desk).unwrap())
    });
    check(Venue::Coinbase, |desk| {
        let key = Credentials::Coinbase {
            api_key: "K".into(),
            private_key_pem: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
        };
        Box::new(tandem_gateway::coinbase::Coinbase::new(&key, desk).unwrap())
    });
    let file = std::env::temp_dir().join(format!("tandem-alloc-nonce-{}", std::process::id()));
    check(Venue::Kraken, |desk| {
        let key = Credentials::Kraken {
            api_key: "K".into(),
            secret: "AAECAwQ=".into(),
            nonce_file: file.clone(),
        };
        Box::new(tandem_gateway::kraken::Kraken::new(&key, desk, START).unwrap())
    });
    let _ = std::fs::remove_file(file);
}
