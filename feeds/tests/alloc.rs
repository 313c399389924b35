//! Hot messages allocate nothing once the machine has warmed up, counted by the allocator itself.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use support::START;
use tandem_core::record::{BookState, Record, Venue};
use tandem_feeds::binance::Binance;
use tandem_feeds::coinbase::Coinbase;
use tandem_feeds::kraken::Kraken;
use tandem_feeds::machine::{Machine, Options, Publish, Reply, Stamps};
use tandem_feeds::redundant::Redundant;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, which is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above, and `size` is the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Default)]
struct Count(u64);

impl Publish for Count {
    fn publish(&mut self, record: &Record) {
        self.0 += u64::from(record.kind);
    }
}

/// Gives a machine the same frames with other numbers many times; the second half must not allocate.
fn check(machine: &mut dyn Machine, out: &mut Count, frame: &mut dyn FnMut(u64, &mut Vec<u8>)) {
    check_on(&[1], machine, out, frame);
}

/// The same over several connections, one after the other.
fn check_on(
    conns: &[u32],
    machine: &mut dyn Machine,
    out: &mut Count,
    frame: &mut dyn FnMut(u64, &mut Vec<u8>),
) {
    let mut said = Vec::with_capacity(1 << 16);
    let mut bytes = Vec::with_capacity(1 << 16);
    let mut allocated = 0;
    for n in 1..4_000 {
        said.clear();
        frame(n, &mut said);
        let recv_ns = START + n as i64 * 1_000_000;
        let at = Stamps { recv_ns, recv_tsc: n, bytes: said.len() as u32 };
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for conn in conns {
            bytes.clear();
            bytes.extend_from_slice(&said);
            machine.on_frame(*conn, &mut bytes, at, out);
        }
        if n % 20 == 0 {
            machine.on_timer(recv_ns, out);
        }
        if 2_000 < n {
            allocated += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
    }
    assert_eq!(machine.state(0).0, BookState::Live, "{:?}", machine.stats());
    assert!(2_000 < machine.stats().batches);
    assert_eq!(allocated, 0, "{} allocated", machine.venue().name());
}

fn put(bytes: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    bytes.write_fmt(text).expect("a vector takes all");
}

fn options(venue: Venue) -> Options {
    Options { audit: false, window: 50, capacity: 500, ..Options::for_venue(venue) }
}

/// One test: the counter is the process's.
#[test]
fn hot_messages_allocate_nothing() {
    let mut out = Count::default();
    let list = |venue, name| vec![support::instrument(venue, 0, name, (1, 8))];

    let mut binance = Binance::new(list(Venue::Binance, "BTCUSDT"), options(Venue::Binance), START);
    binance.on_open(1, START);
    let first = r#"{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":1,"b":[],"a":[]}"#;
    let at = Stamps { recv_ns: START, ..Stamps::default() };
    binance.on_frame(1, &mut first.as_bytes().to_vec(), at, &mut out);
    let mut bids: Vec<String> = (1..200).map(|n| format!("[\"{}.0\",\"1\"]", 60_000 - n)).collect();
    let asks: Vec<String> = (1..200).map(|n| format!("[\"{}.0\",\"1\"]", 60_000 + n)).collect();
    let mut body = format!(
        "{{\"lastUpdateId\":1,\"bids\":[{}],\"asks\":[{}]}}",
        bids.join(","),
        asks.join(",")
    )
    .into_bytes();
    bids.clear();
    let request = std::iter::from_fn(|| binance.next_action()).find_map(|action| match action {
        tandem_feeds::machine::Action::Get { request, .. } => Some(request),
        _ => None,
    });
    let reply =
        Reply::Answer { status: 200, retry_after_s: None, used_weight: None, body: &mut body };
    binance.on_reply(request.expect("a snapshot is asked for"), reply, at, &mut out);
    check(&mut binance, &mut out, &mut |n, bytes| {
        let id = n * 2;
        let ms = START / 1_000_000 + n as i64;
        if n % 2 == 0 {
            let (bid, ask) = (59_990 + n % 9, 60_001 + n % 7);
            put(
                bytes,
                format_args!(
                    "{{\"stream\":\"btcusdt@bookTicker\",\"data\":{{\"u\":{},\"s\":\"BTCUSDT\",\"b\":\"{bid}.0\",\"B\":\"1.5\",\"a\":\"{ask}.0\",\"A\":\"2\"}}}}",
                    id + 1
                ),
            );
        } else {
            put(
                bytes,
                format_args!(
                    "{{\"stream\":\"btcusdt@depth@100ms\",\"data\":{{\"e\":\"depthUpdate\",\"E\":{ms},\"s\":\"BTCUSDT\",\"U\":{},\"u\":{},\"b\":[[\"{}.0\",\"{}\"],[\"{}.5\",\"0\"]],\"a\":[[\"{}.0\",\"{}\"]]}}}}",
                    id.saturating_sub(2).max(2),
                    id + 1,
                    59_900 + n % 90,
                    n % 3,
                    59_900 + n % 90,
                    60_010 + n % 90,
                    n % 3
                ),
            );
        }
    });

    let mut coinbase =
        Coinbase::new(list(Venue::Coinbase, "BTC-USD"), options(Venue::Coinbase), START);
    coinbase.on_open(1, START);
    let snapshot = r#"{"channel":"l2_data","timestamp":"2026-11-22T00:00:00Z","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","price_level":"59000","new_quantity":"1"},{"side":"offer","price_level":"61000","new_quantity":"1"}]}]}"#;
    coinbase.on_frame(1, &mut snapshot.as_bytes().to_vec(), at, &mut out);
    let mut of_coinbase = |n: u64, bytes: &mut Vec<u8>| {
        let time = support::coinbase::time(START + n as i64 * 1_000_000);
        if n.is_multiple_of(10) {
            put(
                bytes,
                format_args!(
                    "{{\"channel\":\"heartbeats\",\"client_id\":\"\",\"timestamp\":\"{time}\",\"sequence_num\":{n},\"events\":[{{\"current_time\":\"x\",\"heartbeat_counter\":{}}}]}}",
                    n / 10
                ),
            );
        } else {
            put(
                bytes,
                format_args!(
                    "{{\"channel\":\"l2_data\",\"client_id\":\"\",\"timestamp\":\"{time}\",\"sequence_num\":{n},\"events\":[{{\"type\":\"update\",\"product_id\":\"BTC-USD\",\"updates\":[{{\"side\":\"bid\",\"event_time\":\"{time}\",\"price_level\":\"{}\",\"new_quantity\":\"{}\"}},{{\"side\":\"offer\",\"event_time\":\"{time}\",\"price_level\":\"{}\",\"new_quantity\":\"{}\"}}]}}]}}",
                    59_000 + n % 99,
                    n % 4,
                    60_000 + n % 99,
                    n % 4
                ),
            );
        }
    };
    check(&mut coinbase, &mut out, &mut of_coinbase);

    let mut kraken = Kraken::new(list(Venue::Kraken, "BTC/USD"), options(Venue::Kraken), START);
    kraken.on_open(1, START);
    let fake = support::kraken::FakeKraken::new(&["BTC/USD"], (1, 8), 1);
    let pair = &fake.pairs[0];
    let mut sides = [vec![(600_000i64, 1i64)], vec![(600_100i64, 1i64)]];
    let sum = support::kraken::checksum(&sides, (1, 8));
    let text = pair.message("snapshot", [&sides[0], &sides[1]], sum, START);
    kraken.on_frame(1, &mut text.into_bytes(), at, &mut out);
    check(&mut kraken, &mut out, &mut |n, bytes| {
        if n % 10 == 0 {
            return put(bytes, format_args!("{{\"channel\":\"heartbeat\"}}"));
        }
        sides[0][0].1 = 1 + n as i64;
        let sum = support::kraken::checksum(&sides, (1, 8));
        let now = START + n as i64 * 1_000_000;
        bytes.extend_from_slice(pair.message("update", [&[sides[0][0]], &[]], sum, now).as_bytes());
    });

    // Two connections of each: the same frames over one and then over the other.
    let mut coinbase = Redundant::new(
        Coinbase::new,
        &list(Venue::Coinbase, "BTC-USD"),
        &options(Venue::Coinbase),
        START,
    );
    let mut kraken = Redundant::new(
        Kraken::new,
        &list(Venue::Kraken, "BTC/USD"),
        &options(Venue::Kraken),
        START,
    );
    let sides = [vec![(600_000i64, 1i64)], vec![(600_100i64, 1i64)]];
    let sum = support::kraken::checksum(&sides, (1, 8));
    let of_kraken = pair.message("snapshot", [&sides[0], &sides[1]], sum, START);
    for conn in [2, 3] {
        coinbase.on_open(conn, START);
        coinbase.on_frame(conn, &mut snapshot.as_bytes().to_vec(), at, &mut out);
        kraken.on_open(conn, START);
        kraken.on_frame(conn, &mut of_kraken.as_bytes().to_vec(), at, &mut out);
    }
    check_on(&[2, 3], &mut coinbase, &mut out, &mut of_coinbase);
    let mut sides = sides;
    check_on(&[2, 3], &mut kraken, &mut out, &mut |n, bytes| {
        sides[0][0].1 = 1 + n as i64;
        let sum = support::kraken::checksum(&sides, (1, 8));
        let now = START + n as i64 * 1_000_000;
        bytes.extend_from_slice(pair.message("update", [&[sides[0][0]], &[]], sum, now).as_bytes());
    });
    assert!(0 < out.0);
}
