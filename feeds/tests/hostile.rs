//! MD-09: what no venue should ever send, through whole machines. A value or an error, never a panic, and
//! never a live book that is crossed or differs from the full one.

use proptest::prelude::*;
use tandem_feeds::fuzz;

const BINANCE: &str = concat!(
    r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1795305600000,"s":"BTCUSDT","U":101,"u":103,"b":[["100.10","1"]],"a":[["100.20","1.5"]]}}"#,
    "\n",
    r#"R{"lastUpdateId":103,"bids":[["100.10","1"],["100.00","2"]],"asks":[["100.20","1"],["100.30","2"]]}"#,
    "\n",
    r#"{"u":105,"s":"BTCUSDT","b":"100.11","B":"2","a":"100.20","A":"1"}"#,
    "\n",
    r#"{"e":"depthUpdate","E":1795305600100,"s":"BTCUSDT","U":104,"u":106,"b":[["100.11","2"],["100.00","0"]],"a":[["100.25","3"]]}"#,
    "\n",
    r#"{"result":null,"id":1}"#
);

const COINBASE: &str = concat!(
    r#"{"channel":"l2_data","client_id":"","timestamp":"2026-11-22T00:00:00Z","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","price_level":"100.10","new_quantity":"1"},{"side":"offer","price_level":"100.20","new_quantity":"1"}]}]}"#,
    "\n",
    r#"{"channel":"l2_data","timestamp":"2026-11-22T00:00:00.1Z","sequence_num":1,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","price_level":"100.11","new_quantity":"1"}]},{"type":"update","product_id":"ETH-USD","updates":[]}]}"#,
    "\n",
    r#"{"channel":"heartbeats","timestamp":"2026-11-22T00:00:01Z","sequence_num":2,"events":[{"current_time":"x","heartbeat_counter":"1"}]}"#
);

const KRAKEN: &str = concat!(
    r#"{"channel":"status","type":"update","data":[{"system":"online","connection_id":12393906104898154338}]}"#,
    "\n",
    r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":65000.0,"qty":2.00000000},{"price":64999.9,"qty":0.03125000},{"price":64998.7,"qty":10.00000000}],"asks":[{"price":65000.1,"qty":0.50000000},{"price":65000.2,"qty":1.25000000},{"price":65001.0,"qty":0.00010000}],"checksum":364537153,"timestamp":"2026-11-22T00:00:00.123456Z"}]}"#,
    "\n",
    r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":64999.5,"qty":0.70000000}],"asks":[{"price":65000.1,"qty":0.00000000}],"checksum":3997527697,"timestamp":"2026-11-22T00:00:00.223456Z"}]}"#
);

/// A session to start from, and who reads it.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] =
    [(BINANCE, fuzz::binance), (COINBASE, fuzz::coinbase), (KRAKEN, fuzz::kraken)];

/// What stands where a value should: every number that is none, and every other type.
const VALUES: &[&str] = &[
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1",
    "\"\"",
    "",
    "null",
    "true",
    "[]",
    "{}",
    "[[[[]]]]",
    "0",
    "-0",
    "01",
    "00",
    "1.",
    ".1",
    "+1",
    "1e",
    "1e-08",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999999999999",
    "0.000000001",
    "\"1e400\"",
    "\"NaN\"",
    "\"-1\"",
    "\"0\"",
    "\"9223372036854775807\"",
    "\"\\u0031\"",
    "\"\\ud800\"",
    "\"\\",
    "\"\u{0}\"",
    "\"\u{7f}\"",
    "1 2",
    "0x10",
    "1_000",
    "１",
];

/// Row MD-09.
#[test]
fn every_value_replaced_by_every_hostile_one() {
    for (text, target) in TARGETS {
        target(text.as_bytes());
        for (line_idx, line) in text.split('\n').enumerate() {
            let mut from = 0;
            while let Some(at) = line[from..].find([':', '[', ',']) {
                let start = from + at + 1;
                let end = line[start..].find([',', ']', '}']).map_or(line.len(), |e| start + e);
                for value in VALUES {
                    let hostile = format!("{}{value}{}", &line[..start], &line[end..]);
                    let mut lines: Vec<&str> = text.split('\n').collect();
                    lines[line_idx] = &hostile;
                    target(lines.join("\n").as_bytes());
                }
                from = start;
            }
        }
    }
}

#[test]
fn every_prefix_and_every_byte_gone() {
    for (text, target) in TARGETS {
        let bytes = text.as_bytes();
        for at in 0..bytes.len() {
            target(&bytes[..at]);
            target(&[&bytes[..at], &bytes[at + 1..]].concat());
            target(&[&bytes[..at], b"\xff", &bytes[at + 1..]].concat());
        }
    }
}

/// Row MD-09.
#[test]
fn huge_and_deep_frames() {
    let deep = format!("{{\"data\":{}", "[".repeat(1 << 20));
    let objects = "{\"a\":".repeat(1 << 18);
    let long = format!("{{\"e\":\"{}\"}}", "x".repeat(16 << 20));
    let digits =
        format!("{{\"e\":\"depthUpdate\",\"s\":\"BTCUSDT\",\"U\":{}}}", "9".repeat(1 << 20));
    let levels = format!(
        "{{\"e\":\"depthUpdate\",\"E\":1,\"s\":\"BTCUSDT\",\"U\":1,\"u\":2,\"b\":[{}[\"1\",\"1\"]],\"a\":[]}}",
        "[\"1\",\"1\"],".repeat(1 << 19)
    );
    for text in [&deep, &objects, &long, &digits, &levels] {
        for (_, target) in TARGETS {
            target(text.as_bytes());
        }
        fuzz::rest(text.as_bytes());
        fuzz::json(text.as_bytes());
    }
}

#[test]
fn hostile_rest_bodies() {
    let bodies = [
        r#"{"lastUpdateId":1,"bids":[["1","1"]],"asks":[]}"#,
        r#"{"symbols":[{"symbol":"A","filters":[{"filterType":"X"}]}]}"#,
        r#"{"product_id":"A-B","base_increment":"0.1"}"#,
        r#"{"error":[],"result":{"X":{"wsname":"A/B","pair_decimals":300}}}"#,
        r#"{"error":[],"result":{"X":{"wsname":"A/B","pair_decimals":255,"lot_decimals":255}}}"#,
        r#"{"pricebook":{"bids":[{"price":"1","size":"1"}],"asks":[]}}"#,
        "<html><body>403 Forbidden</body></html>",
        r#"{"ts_recv_ns":1,"venue":"binance","raw":"{"}"#,
        r#"{"ts_recv_ns":1,"venue":"kraken","raw":"[1]"}"#,
        r#"{"ts_recv_ns":1,"venue":"bitstamp","raw":"{}"}"#,
    ];
    for body in bodies {
        fuzz::rest(body.as_bytes());
        for value in VALUES {
            fuzz::rest(body.replace("\"1\"", value).as_bytes());
            fuzz::rest(body.replace('1', value).as_bytes());
        }
        for at in 0..body.len() {
            fuzz::rest(&body.as_bytes()[..at]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Lines of honest sessions in any order, repeated and damaged.
    #[test]
    fn shuffled_and_damaged_sessions(
        which in 0..3usize,
        picks in proptest::collection::vec((any::<prop::sample::Index>(), proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()))), 1..60),
    ) {
        let (text, target) = TARGETS[which];
        let lines: Vec<&str> = text.split('\n').collect();
        let mut session = Vec::new();
        for (pick, damage) in picks {
            let mut line = lines[pick.index(lines.len())].as_bytes().to_vec();
            if let Some((at, byte)) = damage {
                let at = at.index(line.len());
                line[at] = byte;
            }
            session.extend_from_slice(&line);
            session.push(b'\n');
        }
        target(&session);
    }

    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        TARGETS.iter().for_each(|(_, target)| target(&data));
        fuzz::rest(&data);
        fuzz::json(&data);
    }
}
