//! Entry points that take any bytes: what the fuzz targets and the table of hostile inputs call.
//!
//! Invariant: none of these panics, loops without end or allocates beyond the input's size times a
//! constant, whatever the bytes; and no machine calls a crossed book live.

use tandem_core::record::{BookState, Record, TradingStatus, Venue, flag};
use tandem_core::units::Side;

use crate::binance::Binance;
use crate::coinbase::Coinbase;
use crate::json::{self, Scanner};
use crate::kraken::Kraken;
use crate::machine::{Action, CloseCause, Machine, Options, Reply, Stamps};
use crate::publish::Mirror;
use crate::spec::VenueInstrument;
use crate::{binance, capture, coinbase, kraken, stamp};

/// The scanner: agrees with itself, and with simd-json on what it accepts.
pub fn json(data: &[u8]) {
    let checked = json::check(data).is_ok();
    if let Ok(mut scanner) = Scanner::new(data) {
        let _ = scanner.clone().text();
        let _ = scanner.clone().decimal();
        let _ = scanner.clone().u64_or_text();
        let skipped = scanner.skip().is_ok() && scanner.finish().is_ok();
        assert_eq!(checked, skipped, "two ways to the same answer");
    } else {
        assert!(!checked, "what is no UTF-8 is no JSON");
    }
    let _ = stamp::unix_ns(data);
}

/// Frames through Binance's machine: one a line; a line `R` and text is the answer to the last request.
pub fn binance(data: &[u8]) {
    drive(&mut Binance::new(instruments(Venue::Binance), options(Venue::Binance), START), data);
}

/// Frames through Coinbase's machine.
pub fn coinbase(data: &[u8]) {
    drive(&mut Coinbase::new(instruments(Venue::Coinbase), options(Venue::Coinbase), START), data);
}

/// Frames through Kraken's machine.
pub fn kraken(data: &[u8]) {
    drive(&mut Kraken::new(instruments(Venue::Kraken), options(Venue::Kraken), START), data);
}

/// REST bodies and recordings: metadata, books, captures.
pub fn rest(data: &[u8]) {
    let _ = binance::meta::parse_metadata(&mut data.to_vec());
    let _ = coinbase::meta::parse_metadata(&mut data.to_vec());
    let _ = kraken::meta::parse_metadata(&mut data.to_vec());
    let scale = crate::scratch::Scale { px: 2, qty: 8 };
    let mut levels = Default::default();
    let _ = binance::decode::decode_snapshot(data, scale, &mut levels);
    let _ = coinbase::decode::decode_book(data, scale, &mut levels);
    let _ = kraken::decode::decode_book(data, scale, &mut levels);
    let _ = capture::rebuild("fuzz/input.jsonl", data);
}

const START: i64 = 1_795_305_600_000_000_000;

const WINDOW: usize = 8;

fn options(venue: Venue) -> Options {
    Options { window: WINDOW, capacity: 64, audit: false, ..Options::for_venue(venue) }
}

fn instruments(venue: Venue) -> Vec<VenueInstrument> {
    let names = match venue {
        Venue::Binance => ["BTCUSDT", "ETHUSDT"],
        Venue::Coinbase => ["BTC-USD", "ETH-USD"],
        Venue::Kraken => ["BTC/USD", "ETH/USD"],
    };
    let list = |(id, name): (u16, &str)| VenueInstrument {
        id,
        venue,
        symbol: name.into(),
        feed_symbol: name.into(),
        rest_symbol: name.into(),
        px_exponent: 2,
        qty_exponent: 8,
        notional_exponent: 8,
        price_precision: 1,
        qty_precision: 8,
        notional_min: 0,
        status: TradingStatus::Trading,
    };
    (0..).zip(names).map(list).collect()
}

/// Gives a machine any frames and answers, with time passing, and checks what the engine would see.
fn drive(machine: &mut dyn Machine, data: &[u8]) {
    let mut mirrors = [Mirror::new(WINDOW), Mirror::new(WINDOW)];
    let (mut conn, mut request) = (1, None);
    let mut out: Vec<Record> = Vec::new();
    machine.on_open(conn, START);
    for (now, line) in (START..).step_by(7_000_000).zip(data.split(|byte| *byte == b'\n')) {
        let at = Stamps { recv_ns: now, recv_tsc: 0, bytes: line.len() as u32 };
        match line {
            [b'R', body @ ..] => {
                let mut body = body.to_vec();
                let answer = Reply::Answer {
                    status: 200,
                    retry_after_s: None,
                    used_weight: None,
                    body: &mut body,
                };
                if let Some(request) = request.take() {
                    machine.on_reply(request, answer, at, &mut out);
                }
            }
            b"C" => machine.on_close(conn, CloseCause::Reset, now, &mut out),
            frame => machine.on_frame(conn, &mut frame.to_vec(), at, &mut out),
        }
        machine.on_timer(now, &mut out);
        while let Some(action) = machine.next_action() {
            match action {
                Action::Get { request: asked, .. } => request = Some(asked),
                Action::Connect { conn: asked, .. } => {
                    conn = asked;
                    machine.on_open(conn, now);
                }
                _ => {}
            }
        }
        let ended = out.last().is_none_or(|record| record.has(flag::LAST));
        assert!(ended, "a batch without an end");
        for record in out.drain(..) {
            if let Some(mirror) = mirrors.get_mut(usize::from(record.instrument)) {
                mirror.apply(&record);
            }
        }
        for (slot, mirror) in mirrors.iter().enumerate() {
            if mirror.state.0 == BookState::Live {
                assert!(!mirror.book.is_crossed_or_locked(), "live and crossed");
                let shown = machine.shown(slot);
                for side in Side::BOTH {
                    let top = machine.book(slot).levels(side).take(shown[side.idx()]);
                    assert!(mirror.book.levels(side).eq(top), "the engine sees another book");
                }
            }
        }
    }
}
