//! A venue's message to integers: our decoders beside serde over simd-json and sonic-rs.
//!
//! All read the same messages and give the same: every price and quantity as an integer of the same
//! exponent in a reused list, and the ids. simd-json parses in place, so each message is copied for it;
//! its own buffers are reused. Both peers borrow their strings and turn prices into integers by our own
//! parser; Kraken's numbers, which generic parsers have only as floats, are multiplied and rounded. Our
//! decoders also read the venue's time, which the peers leave as text. sonic-rs is built as this workspace
//! is, without `target-cpu=native`. The floor reads every byte once.
//!
//! `machine` is the whole way of a frame in production, into the book and out as records to nobody, over a
//! whole recorded session; each frame of the kind is timed singly, two reads of the counter included.
//!
//! Checked in every block: the sum over all integers is that of the peers.

use std::cell::RefCell;
use std::error::Error;
use std::hint::black_box;

use serde::Deserialize;
use tandem_core::record::Venue;
use tandem_core::units::{Px, Qty, Side, parse_decimal};
use tandem_feeds::machine::Discard;
use tandem_feeds::publish::Update;
use tandem_feeds::scratch::Scale;
use tandem_feeds::symbols::Symbols;
use tandem_feeds::{binance, coinbase, kraken};
use tandem_shm::tsc;

use crate::Effort;
use crate::captures::sample;
use crate::harness::{Contender, Lap, compare};
use crate::markets::Session;
use crate::report::{Budget, Report, Table};

/// The exponents that three venues' BTC has in common.
const SCALE: Scale = Scale { px: 2, qty: 8 };
const FLOOR: &str = "every byte once";
const DECODE: &str = "tandem decode";
const MACHINE: &str = "tandem machine";
const SIMD_JSON: &str = "simd-json 0.19, serde";
const SONIC: &str = "sonic-rs 0.5, serde";

/// Messages of a kind, at most; spread over the recording.
const MESSAGES: usize = 256;
/// Bytes of one block, about.
const BLOCK_BYTES: usize = 1 << 21;

#[derive(Deserialize)]
struct Wrapped<T> {
    data: T,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    u: u64,
    s: &'a str,
    b: &'a str,
    #[serde(rename = "B")]
    bid_qty: &'a str,
    a: &'a str,
    #[serde(rename = "A")]
    ask_qty: &'a str,
}

#[derive(Deserialize)]
struct Depth<'a> {
    e: &'a str,
    #[serde(rename = "E")]
    event_ms: u64,
    s: &'a str,
    #[serde(rename = "U")]
    first: u64,
    u: u64,
    #[serde(borrow)]
    b: Vec<[&'a str; 2]>,
    #[serde(borrow)]
    a: Vec<[&'a str; 2]>,
}

#[derive(Deserialize)]
struct Coinbase<'a> {
    channel: &'a str,
    timestamp: &'a str,
    sequence_num: u64,
    #[serde(borrow)]
    events: Vec<CoinbaseEvent<'a>>,
}

#[derive(Deserialize)]
struct CoinbaseEvent<'a> {
    r#type: &'a str,
    product_id: &'a str,
    #[serde(borrow)]
    updates: Vec<CoinbaseLevel<'a>>,
}

#[derive(Deserialize)]
struct CoinbaseLevel<'a> {
    side: &'a str,
    price_level: &'a str,
    new_quantity: &'a str,
}

#[derive(Deserialize)]
struct Kraken<'a> {
    channel: &'a str,
    r#type: &'a str,
    #[serde(borrow)]
    data: Vec<KrakenBook<'a>>,
}

#[derive(Deserialize)]
struct KrakenBook<'a> {
    symbol: &'a str,
    bids: Vec<KrakenLevel>,
    asks: Vec<KrakenLevel>,
    checksum: u64,
    timestamp: &'a str,
}

#[derive(Deserialize)]
struct KrakenLevel {
    price: f64,
    qty: f64,
}

/// What a peer makes of its structs: levels as integers, and a number that covers them and the ids.
trait Integers {
    fn integers(&self, out: &mut Vec<Update>) -> u64;
}

fn text(px: &str, qty: &str, side: Side) -> Update {
    let read = |text: &str, exponent| parse_decimal(text.as_bytes(), exponent);
    Update {
        side,
        px: Px(read(px, SCALE.px).expect("a venue's price")),
        qty: Qty(read(qty, SCALE.qty).expect("a venue's quantity")),
    }
}

/// Covers prices, quantities and sides.
#[inline]
fn sum(levels: &[Update]) -> u64 {
    levels.iter().fold(0, |sum, level| {
        let level = (level.px.0 as u64).wrapping_mul(3) ^ (level.qty.0 as u64) << 1;
        sum.wrapping_mul(31).wrapping_add(level)
    })
}

impl Integers for Wrapped<Ticker<'_>> {
    fn integers(&self, out: &mut Vec<Update>) -> u64 {
        assert!(self.data.s == "BTCUSDT");
        out.push(text(self.data.b, self.data.bid_qty, Side::Bid));
        out.push(text(self.data.a, self.data.ask_qty, Side::Ask));
        sum(out).wrapping_add(self.data.u)
    }
}

impl Integers for Wrapped<Depth<'_>> {
    fn integers(&self, out: &mut Vec<Update>) -> u64 {
        let depth = &self.data;
        assert!(depth.e == "depthUpdate" && depth.s == "BTCUSDT");
        out.extend(depth.b.iter().map(|[px, qty]| text(px, qty, Side::Bid)));
        out.extend(depth.a.iter().map(|[px, qty]| text(px, qty, Side::Ask)));
        sum(out).wrapping_add(depth.first ^ depth.u).wrapping_add(depth.event_ms)
    }
}

impl Integers for Coinbase<'_> {
    fn integers(&self, out: &mut Vec<Update>) -> u64 {
        assert!(self.channel == "l2_data" && !self.timestamp.is_empty());
        for event in &self.events {
            assert!(event.r#type == "update" && event.product_id == "BTC-USD");
            out.extend(event.updates.iter().map(|level| {
                let side = if level.side == "bid" { Side::Bid } else { Side::Ask };
                text(level.price_level, level.new_quantity, side)
            }));
        }
        sum(out).wrapping_add(self.sequence_num)
    }
}

impl Integers for Kraken<'_> {
    fn integers(&self, out: &mut Vec<Update>) -> u64 {
        assert!(self.channel == "book" && self.r#type == "update");
        let mut checksums = 0;
        for book in &self.data {
            assert!(book.symbol == "BTC/USD" && !book.timestamp.is_empty());
            checksums += book.checksum;
            let sides = book.bids.iter().map(|l| (Side::Bid, l));
            out.extend(sides.chain(book.asks.iter().map(|l| (Side::Ask, l))).map(
                |(side, level)| {
                    let px = Px((level.price * 1e2).round() as i64);
                    Update { side, px, qty: Qty((level.qty * 1e8).round() as i64) }
                },
            ));
        }
        sum(out).wrapping_add(checksums)
    }
}

/// What is alive while our decoders read.
struct Ours {
    symbols: Symbols,
    scales: [Scale; 1],
    binance: binance::decode::Levels,
    coinbase: coinbase::decode::Events,
    kraken: kraken::decode::Messages,
}

impl Ours {
    fn new(symbol: &str) -> Ours {
        Ours {
            symbols: Symbols::new([symbol].into_iter()),
            scales: [SCALE],
            binance: Default::default(),
            coinbase: Default::default(),
            kraken: Default::default(),
        }
    }

    fn binance(&mut self, payload: &[u8]) -> u64 {
        use binance::decode::Event;
        let Ours { symbols, scales, binance: levels, .. } = self;
        match binance::decode::decode(payload, symbols, scales, levels) {
            Ok(Event::Ticker { id, best: [Some(bid), Some(ask)], .. }) => {
                let level = |side, level: tandem_core::book::Level| Update {
                    side,
                    px: level.px,
                    qty: level.qty,
                };
                sum(&[level(Side::Bid, bid), level(Side::Ask, ask)]).wrapping_add(id)
            }
            Ok(Event::Depth { span, event_ns, .. }) => {
                let [bids, asks] = levels;
                let both = bids.iter().chain(asks.iter()).fold(0u64, |sum, level| {
                    let level = (level.px.0 as u64).wrapping_mul(3) ^ (level.qty.0 as u64) << 1;
                    sum.wrapping_mul(31).wrapping_add(level)
                });
                let event_ms = event_ns as u64 / 1_000_000;
                both.wrapping_add(span.first ^ span.last).wrapping_add(event_ms)
            }
            other => panic!("{other:?} of {}", String::from_utf8_lossy(payload)),
        }
    }

    fn coinbase(&mut self, payload: &[u8]) -> u64 {
        let envelope = coinbase::decode::envelope(payload).expect("a frame");
        let number = envelope.sequence.expect("frames have one");
        envelope.events(&self.symbols, &self.scales, &mut self.coinbase).expect("its events");
        let [part] = self.coinbase.parts.as_slice() else { panic!("one event a frame") };
        sum(self.coinbase.levels(part)).wrapping_add(number)
    }

    fn kraken(&mut self, payload: &[u8]) -> u64 {
        let Ours { symbols, scales, kraken, .. } = self;
        let event = kraken::decode::decode(payload, symbols, scales, kraken).expect("a frame");
        assert_eq!(event, kraken::decode::Event::Book { snapshot: false });
        let [part] = kraken.parts.as_slice() else { panic!("one book a frame") };
        sum(kraken.levels(part)).wrapping_add(u64::from(part.checksum))
    }
}

/// A kind of message.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    venue: Venue,
    symbol: &'static str,
    /// Whether a message is of it.
    is: fn(&[u8]) -> bool,
    ours: fn(&mut Ours, &[u8]) -> u64,
    simd_json: fn(&mut Peer, &[u8]) -> u64,
    sonic: fn(&mut Peer, &[u8]) -> u64,
}

/// What is alive while a peer reads.
#[derive(Default)]
struct Peer {
    bytes: Vec<u8>,
    buffers: simd_json::Buffers,
    levels: Vec<Update>,
}

/// A peer's function for a type.
macro_rules! peer {
    (simd $type:ty) => {
        |peer: &mut Peer, payload: &[u8]| {
            peer.bytes.clear();
            peer.bytes.extend_from_slice(payload);
            peer.levels.clear();
            let value: $type =
                simd_json::serde::from_slice_with_buffers(&mut peer.bytes, &mut peer.buffers)
                    .expect("a venue's message");
            value.integers(&mut peer.levels)
        }
    };
    (sonic $type:ty) => {
        |peer: &mut Peer, payload: &[u8]| {
            peer.levels.clear();
            let value: $type = sonic_rs::from_slice(payload).expect("a venue's message");
            value.integers(&mut peer.levels)
        }
    };
}

/// Whether a text holds another one.
fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// Levels of a depth message: its pairs of quoted numbers.
fn binance_levels(raw: &[u8]) -> usize {
    if holds(raw, "depthUpdate") { raw.windows(2).filter(|pair| pair == b"[\"").count() } else { 0 }
}

fn coinbase_levels(raw: &[u8]) -> usize {
    let is_update = holds(raw, "l2_data") && holds(&raw[..raw.len().min(160)], "\"update\"");
    if is_update { raw.windows(11).filter(|part| part == b"price_level").count() } else { 0 }
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "Binance bookTicker",
        venue: Venue::Binance,
        symbol: "BTCUSDT",
        is: |raw| holds(raw, "@bookTicker"),
        ours: Ours::binance,
        simd_json: peer!(simd Wrapped<Ticker<'_>>),
        sonic: peer!(sonic Wrapped<Ticker<'_>>),
    },
    Kind {
        name: "Binance depthUpdate, 1 to 12 levels",
        venue: Venue::Binance,
        symbol: "BTCUSDT",
        is: |raw| (1..=12).contains(&binance_levels(raw)),
        ours: Ours::binance,
        simd_json: peer!(simd Wrapped<Depth<'_>>),
        sonic: peer!(sonic Wrapped<Depth<'_>>),
    },
    Kind {
        name: "Binance depthUpdate, 300 to 500 levels",
        venue: Venue::Binance,
        symbol: "BTCUSDT",
        is: |raw| (300..=500).contains(&binance_levels(raw)),
        ours: Ours::binance,
        simd_json: peer!(simd Wrapped<Depth<'_>>),
        sonic: peer!(sonic Wrapped<Depth<'_>>),
    },
    Kind {
        name: "Coinbase l2_data, 1 level",
        venue: Venue::Coinbase,
        symbol: "BTC-USD",
        is: |raw| coinbase_levels(raw) == 1,
        ours: Ours::coinbase,
        simd_json: peer!(simd Coinbase<'_>),
        sonic: peer!(sonic Coinbase<'_>),
    },
    Kind {
        name: "Coinbase l2_data, 16 to 60 levels",
        venue: Venue::Coinbase,
        symbol: "BTC-USD",
        is: |raw| (16..=60).contains(&coinbase_levels(raw)),
        ours: Ours::coinbase,
        simd_json: peer!(simd Coinbase<'_>),
        sonic: peer!(sonic Coinbase<'_>),
    },
    Kind {
        name: "Kraken book update",
        venue: Venue::Kraken,
        symbol: "BTC/USD",
        is: |raw| holds(raw, "\"channel\":\"book\",\"type\":\"update\""),
        ours: Ours::kraken,
        simd_json: peer!(simd Kraken<'_>),
        sonic: peer!(sonic Kraken<'_>),
    },
];

fn samples(kind: usize) -> Vec<Vec<u8>> {
    let text = match kind {
        0 => sample::BINANCE_TICKER.to_owned(),
        1 => sample::binance_depth(4),
        2 => sample::binance_depth(200),
        3 => sample::coinbase(1),
        4 => sample::coinbase(24),
        _ => sample::KRAKEN.to_owned(),
    };
    vec![text.into_bytes()]
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    for venue in Venue::ALL {
        let session = Session::load(venue);
        for (idx, kind) in KINDS.iter().enumerate().filter(|(_, kind)| kind.venue == venue) {
            let recorded: Vec<Vec<u8>> = session
                .iter()
                .flat_map(|session| session.messages.iter())
                .filter(|message| !message.rest && (kind.is)(&message.raw))
                .map(|message| message.raw.clone())
                .collect();
            let real = !recorded.is_empty();
            let step = recorded.len().div_ceil(MESSAGES).max(1);
            let messages: Vec<_> = match real {
                true => recorded.into_iter().step_by(step).collect(),
                false => samples(idx),
            };
            one(effort, report, kind, &messages, session.as_ref().filter(|_| real));
        }
    }
    Ok(())
}

/// Decodes all messages until a block is full; the sum over each pass must be `expected`.
fn pass(lap: &mut Lap, messages: &[Vec<u8>], expected: u64, mut decode: impl FnMut(&[u8]) -> u64) {
    let bytes: usize = messages.iter().map(Vec::len).sum();
    let passes = (BLOCK_BYTES / bytes).max(1);
    lap.begin();
    lap.time((passes * messages.len()) as u64, || {
        for _ in 0..passes {
            let found = messages
                .iter()
                .fold(0u64, |all, message| all.wrapping_add(decode(black_box(message))));
            assert_eq!(found, expected, "every decoder reads the same");
        }
    });
}

fn one(
    effort: Effort,
    report: &mut Report,
    kind: &Kind,
    messages: &[Vec<u8>],
    session: Option<&Session>,
) {
    let ours = RefCell::new(Ours::new(kind.symbol));
    let (mut simd, mut sonic) = (Peer::default(), Peer::default());
    let expected = messages
        .iter()
        .fold(0u64, |all, message| all.wrapping_add((kind.ours)(&mut ours.borrow_mut(), message)));
    let of_bytes =
        |message: &[u8]| message.iter().fold(0u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    let bytes = messages.iter().fold(0u64, |all, m| all.wrapping_add(of_bytes(m)));
    let mut floor = Contender::new(FLOOR, |lap| pass(lap, messages, bytes, of_bytes));
    let mut contenders = vec![
        Contender::new(DECODE, |lap| {
            let ours = &mut *ours.borrow_mut();
            pass(lap, messages, expected, |message| (kind.ours)(ours, message));
        }),
        Contender::new(SIMD_JSON, |lap| {
            pass(lap, messages, expected, |message| (kind.simd_json)(&mut simd, message));
        }),
        Contender::new(SONIC, |lap| {
            pass(lap, messages, expected, |message| (kind.sonic)(&mut sonic, message));
        }),
    ];
    if let Some(session) = session {
        contenders.push(Contender::new(MACHINE, |lap| machine(lap, session, kind.is)));
    }
    let whole = contenders.len() == 4;
    for found in
        compare(effort.rounds(if whole { 12 } else { 60 }), &mut floor, &mut contenders, None)
    {
        let mean = messages.iter().map(Vec::len).sum::<usize>() / messages.len();
        let from = if whole { "recorded" } else { "SAMPLES, no recordings here" };
        let title = format!("{}, {} messages of {mean} bytes, {from}", kind.name, messages.len());
        let mut table = Table::new("decode", title, &found);
        table.beside(&found, DECODE, &[SIMD_JSON], Some(Budget::Ratio(0.5)));
        table.beside(&found, DECODE, &[SONIC, FLOOR], None);
        if whole {
            table.beside(&found, MACHINE, &[SIMD_JSON, DECODE], None);
            table.singles(&found);
        }
        report.add(table);
    }
}

/// A whole session through the machine; the frames of the kind are timed.
fn machine(lap: &mut Lap, session: &Session, is: fn(&[u8]) -> bool) {
    let mut driver = session.start();
    lap.begin();
    for message in &session.messages {
        // Before the clock: looking for the kind must not warm the message differently for some.
        let counts = is(&message.raw);
        driver.feed(message, &mut Discard, |frame| {
            let start = tsc();
            frame();
            let took = tsc() - start;
            if counts {
                lap.hist.add(took);
                lap.ticks += took;
                lap.ops += 1;
            }
        });
    }
    driver.check();
}
