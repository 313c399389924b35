//! Recorded messages of the venues, or samples of the same form where there are none.
//!
//! Invariant: what is measured is what venues sent, byte for byte, wherever the recordings are there; a
//! table made of samples says so.

use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;

/// Recordings, relative to this crate.
const CAPTURES: &str = "../../shared/data/captures";

/// One recorded message.
#[derive(Clone, Debug)]
pub struct Message {
    /// When it was received, UNIX ns.
    pub recv_ns: i64,
    /// Place in a recording of several venues.
    pub order: u64,
    /// Whether it is an answer over HTTP.
    pub rest: bool,
    /// The text.
    pub raw: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Line {
    ts_recv_ns: i64,
    tape_seq: u64,
    kind: Option<String>,
    raw: Option<String>,
}

/// Reads a recording; nothing where it is not there. A damaged one is a panic: it is no measurement.
pub fn load(name: &str) -> Option<Vec<Message>> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(CAPTURES).join(format!("{name}.jsonl.gz"));
    let file = std::fs::File::open(path).ok()?;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("a sound gzip file");
    let mut messages = Vec::new();
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).expect("one JSON object a line");
        let rest = match line.kind.as_deref() {
            None | Some("message") => false,
            Some("rest") => true,
            Some(_) => continue,
        };
        let raw = line.raw.unwrap_or_default().into_bytes();
        messages.push(Message { recv_ns: line.ts_recv_ns, order: line.tape_seq, rest, raw });
    }
    Some(messages)
}

/// 650 s of Binance BTCUSDT.
pub const BINANCE: &str = "binance/hftbacktest_BTCUSDT_20240808T2354Z";
/// Two minutes of Coinbase BTC-USD, on one clock with the next.
pub const COINBASE: &str = "coinbase/tape_20260809T2014Z_trades";
/// Two minutes of Kraken BTC/USD.
pub const KRAKEN: &str = "kraken/tape_20260809T2014Z_trades";

/// Samples of the hot kinds, in the venues' own form.
pub mod sample {
    /// Binance's best bid and ask.
    pub const BINANCE_TICKER: &str = r#"{"stream":"btcusdt@bookTicker","data":{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}}"#;

    /// Binance's book changes, so many a side.
    pub fn binance_depth(levels: usize) -> String {
        let side = |first: usize, step: isize| {
            let one = |at: usize| {
                let px = first as isize + step * at as isize * 7;
                format!(
                    "[\"{}.{:02}000000\",\"0.{:05}000\"]",
                    px / 100,
                    px % 100,
                    at * 131 % 100_000
                )
            };
            (0..levels).map(one).collect::<Vec<_>>().join(",")
        };
        format!(
            "{{\"stream\":\"btcusdt@depth@100ms\",\"data\":{{\"e\":\"depthUpdate\",\"E\":1723161255208,\
             \"s\":\"BTCUSDT\",\"U\":50093239189,\"u\":50093239202,\"b\":[{}],\"a\":[{}]}}}}",
            side(6_183_763, -1),
            side(6_183_764, 1)
        )
    }

    /// Coinbase's book changes.
    pub fn coinbase(levels: usize) -> String {
        let one = |at: usize| {
            format!(
                "{{\"side\":\"{}\",\"event_time\":\"2026-08-09T20:14:22.098816Z\",\
                 \"price_level\":\"65{:03}.88\",\"new_quantity\":\"0.07689{:03}\"}}",
                ["bid", "offer"][at % 2],
                at % 1_000,
                at % 1_000
            )
        };
        format!(
            "{{\"channel\":\"l2_data\",\"timestamp\":\"2026-08-09T20:14:22.39460846Z\",\
             \"sequence_num\":1,\"events\":[{{\"type\":\"update\",\"product_id\":\"BTC-USD\",\
             \"updates\":[{}]}}]}}",
            (0..levels).map(one).collect::<Vec<_>>().join(",")
        )
    }

    /// Kraken's book changes.
    pub const KRAKEN: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":65021.5,"qty":0.00000000},{"price":65012.4,"qty":0.51676601}],"asks":[],"checksum":2368657053,"timestamp":"2026-08-09T20:14:25.387904Z"}]}"#;
}
