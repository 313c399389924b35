//! Kraken as a client sees it: checksums on every message, one ack per symbol, names, REST.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Client, Got, Sim, dec, small};
use serde_json::{Value, json};
use tandem_sim::config::Venue;

const V: Venue = Venue::Kraken;

type Rows = Vec<(String, String)>;

/// Reads levels with their digits, which JSON numbers would lose.
fn rows(text: &str, side: &str) -> Rows {
    let start = text.find(&format!("\"{side}\":[")).unwrap();
    let part = &text[start..start + text[start..].find(']').unwrap()];
    part.split("{\"price\":")
        .skip(1)
        .map(|level| {
            let (px, rest) = level.split_once(",\"qty\":").unwrap();
            (px.to_owned(), rest.split_once('}').unwrap().0.to_owned())
        })
        .collect()
}

/// A client's book of one symbol at one depth; levels keep the venue's text.
struct Builder {
    depth: usize,
    bids: BTreeMap<i128, (String, String)>,
    asks: BTreeMap<i128, (String, String)>,
    messages: usize,
    twice: usize,
    unknown_deletes: usize,
}

impl Builder {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            messages: 0,
            twice: 0,
            unknown_deletes: 0,
        }
    }

    /// Applies one message and compares the checksum.
    fn apply(&mut self, text: &str) -> Result<(), String> {
        if text.contains("\"type\":\"snapshot\"") {
            self.bids.clear();
            self.asks.clear();
        }
        for (name, side) in [("bids", &mut self.bids), ("asks", &mut self.asks)] {
            let mut seen = Vec::new();
            for (px, qty) in rows(text, name) {
                self.twice += usize::from(seen.contains(&px));
                seen.push(px.clone());
                if dec(&qty) == 0 {
                    self.unknown_deletes += usize::from(side.remove(&dec(&px)).is_none());
                } else {
                    side.insert(dec(&px), (px, qty));
                }
            }
        }
        while self.bids.len() > self.depth {
            self.bids.pop_first();
        }
        while self.asks.len() > self.depth {
            self.asks.pop_last();
        }
        self.messages += 1;
        let mut digits = String::new();
        for (px, qty) in self.asks.values().take(10).chain(self.bids.values().rev().take(10)) {
            for number in [px, qty] {
                digits.push_str(number.replace('.', "").trim_start_matches('0'));
            }
        }
        let ours = crc32(digits.as_bytes());
        let theirs: u32 = text
            .split("\"checksum\":")
            .nth(1)
            .and_then(|t| t.split(',').next())
            .and_then(|t| t.parse().ok())
            .unwrap();
        if ours == theirs { Ok(()) } else { Err(format!("{ours} is not {theirs}: {text}")) }
    }

    fn top(&self) -> [Vec<(i128, i128)>; 2] {
        let both = |(px, qty): &(String, String)| (dec(px), dec(qty));
        [self.bids.values().rev().map(both).collect(), self.asks.values().map(both).collect()]
    }
}

/// CRC-32 bit by bit, so that the library the simulator uses is checked too.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)))
    })
}

fn follow(tls: bool, depth: usize) {
    let mut cfg = small(V, &["BTC/USD", "ETH/USD"]);
    cfg.market.rate = 4.0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/v2", tls);
    let status = client.json();
    assert_eq!(status["channel"], "status");
    assert!(status["data"][0]["connection_id"].as_u64().unwrap() > 1 << 63);
    client.send(&json!({"method":"subscribe","req_id":7,"params":
        {"channel":"book","symbol":["BTC/USD","XBT/EUR","ETH/USD"],"depth":depth,"snapshot":true}}));
    let mut books: BTreeMap<String, Builder> = BTreeMap::new();
    let (mut acks, mut refusals, mut heartbeats) = (Vec::new(), 0, 0);
    let halt_at = Instant::now() + Duration::from_millis(2_000);
    let end = Instant::now() + Duration::from_millis(2_500);
    let mut halted = false;
    while Instant::now() < end {
        if !halted && Instant::now() > halt_at {
            halted = true;
            sim.halt("kraken", "BTC/USD");
            sim.halt("kraken", "ETH/USD");
        }
        let Got::Text(text) = client.next(Duration::from_millis(300)) else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["method"] == "subscribe" {
            assert_eq!(value["req_id"], 7);
            if value["success"] == true {
                assert_eq!(value["result"]["depth"], depth);
                acks.push(value["result"]["symbol"].as_str().unwrap().to_owned());
            } else {
                assert_eq!(value["error"], "Currency pair not supported XBT/EUR");
                refusals += 1;
            }
        } else if value["channel"] == "heartbeat" {
            heartbeats += 1;
        } else {
            assert_eq!(value["data"].as_array().unwrap().len(), 1);
            let symbol = value["data"][0]["symbol"].as_str().unwrap().to_owned();
            let book = books.entry(symbol).or_insert_with(|| Builder::new(depth));
            book.apply(&text).unwrap();
        }
    }
    assert_eq!((acks, refusals), (vec!["BTC/USD".to_owned(), "ETH/USD".to_owned()], 1));
    assert!(heartbeats >= 2);
    for symbol in ["BTC/USD", "ETH/USD"] {
        assert!(books[symbol].messages > 50, "{}", books[symbol].messages);
        assert_eq!(books[symbol].top(), sim.truth("kraken", symbol, depth), "{symbol}");
    }
}

#[test]
fn checksums_at_depth_10_over_plain() {
    follow(false, 10);
}

#[test]
fn checksums_at_depth_25_over_tls() {
    follow(true, 25);
}

#[test]
fn checksums_at_depth_1000_over_plain() {
    follow(false, 1_000);
}

#[test]
fn quirks_of_the_real_feed_occur_and_do_no_harm() {
    let mut cfg = small(V, &["BTC/USD"]);
    cfg.market.rate = 5.0;
    cfg.kraken.duplicate_price_ppm = 100_000;
    cfg.kraken.unknown_delete_ppm = 100_000;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/v2", false);
    client.send(&json!({"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]}}));
    let mut book = Builder::new(10);
    for text in client.texts(Duration::from_millis(2_000)) {
        if text.starts_with("{\"channel\":\"book\"") {
            book.apply(&text).unwrap();
        }
    }
    assert!(book.twice > 0 && book.unknown_deletes > 0, "{} {}", book.twice, book.unknown_deletes);
}

fn reply(client: &mut Client, request: &Value) -> Value {
    client.send(request);
    client.until(|v| v.get("method").is_some() || v.get("error").is_some())
}

#[test]
fn other_channels_and_methods() {
    let mut cfg = small(V, &["BTC/USD", "ETH/BTC"]);
    cfg.market.rate = 4.0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/v2", false);
    let pong = reply(&mut client, &json!({"method":"ping","req_id":9}));
    assert_eq!((&pong["method"], &pong["req_id"]), (&json!("pong"), &json!(9)));
    assert!(reply(&mut client, &json!({"method":"ping"})).get("req_id").is_none());
    let ack = reply(&mut client, &json!({"method":"subscribe","params":{"channel":"instrument"}}));
    assert!(ack["result"]["warnings"].is_array());
    let Got::Text(text) = client.next(Duration::from_secs(2)) else { panic!() };
    assert!(text.contains("\"qty_increment\":1e-08"), "exponents as on the wire");
    let instruments: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(instruments["data"]["pairs"].as_array().unwrap().len(), 2);
    let trade = json!({"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"],"snapshot":true}});
    assert_eq!(reply(&mut client, &trade)["success"], true);
    let first = client.until(|v| v["channel"] == "trade" && v["type"] == "update");
    assert!(first["data"][0]["trade_id"].is_u64());
    let ticker = json!({"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD"],"event_trigger":"bbo"}});
    assert_eq!(reply(&mut client, &ticker)["result"]["event_trigger"], "bbo");
    client.until(|v| v["channel"] == "ticker" && v["type"] == "update");
    for (request, error) in [
        (
            json!({"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":11}}),
            "Subscription depth not supported",
        ),
        (
            json!({"method":"subscribe","params":{"channel":"book","symbol":["XBT/USD"]}}),
            "Currency pair not supported XBT/USD",
        ),
        (
            json!({"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}),
            "Subscription Not Found",
        ),
        (json!({"method":"dance"}), "Method not supported"),
    ] {
        assert_eq!(reply(&mut client, &request)["error"], error);
    }
    // A halt is announced on the instrument channel.
    sim.fault(json!({"kind":"halt","venue":"kraken","symbol":"ETH/BTC","seconds":0.3}));
    for status in ["maintenance", "online"] {
        let update = client.until(|v| v["channel"] == "instrument");
        assert_eq!(update["data"]["pairs"][0]["status"], status);
    }
    sim.fault(json!({"kind":"maintenance","venue":"kraken","seconds":0.3}));
    for system in ["maintenance", "online"] {
        assert_eq!(client.until(|v| v["channel"] == "status")["data"][0]["system"], system);
    }
    for _ in 0..60 {
        client.send(&json!({"method":"ping"}));
    }
    client.until(|v| v["Error"] == "Exceeded msg rate");
    assert!(Client::try_connect(sim.plain(V), None, "/").is_err(), "v1 is not here");
}

#[test]
fn rest_names_and_limits() {
    let mut cfg = small(V, &["BTC/USD", "USDT/USD", "SOL/BTC"]);
    cfg.kraken.public_burst = 12.0;
    let sim = Sim::start(cfg);
    sim.halt("kraken", "BTC/USD");
    let [bids, _] = sim.truth("kraken", "BTC/USD", 5);
    for (pair, key) in [
        ("XBTUSD", "XXBTZUSD"),
        ("XXBTZUSD", "XXBTZUSD"),
        ("XBT/USD", "XBT/USD"),
        ("BTC%2FUSD", "BTC/USD"),
    ] {
        let body = sim.get(V, &format!("/0/public/Depth?pair={pair}&count=5")).json();
        let rows = body["result"][key]["bids"].as_array().unwrap();
        let price = rows[0][0].as_str().unwrap();
        assert_eq!(price.split_once('.').unwrap().1.len(), 5, "padded");
        let got: Vec<i128> = rows.iter().map(|r| dec(r[0].as_str().unwrap())).collect();
        assert_eq!(got, bids.iter().map(|b| b.0).collect::<Vec<_>>());
    }
    let pairs = sim.get(V, "/0/public/AssetPairs").json();
    let keys: Vec<&String> = pairs["result"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["SOLXBT", "USDTZUSD", "XXBTZUSD"]);
    assert_eq!(pairs["result"]["XXBTZUSD"]["wsname"], "XBT/USD");
    assert_eq!(pairs["result"]["XXBTZUSD"]["pair_decimals"], 1);
    assert!(sim.get(V, "/0/public/Assets?asset=XBT").json()["result"]["XXBT"].is_object());
    assert_eq!(sim.get(V, "/0/public/SystemStatus").json()["result"]["status"], "online");
    let unknown = sim.get(V, "/0/public/Depth?pair=NOPE");
    assert_eq!(
        (unknown.status, unknown.json()["error"][0].clone()),
        (200, json!("EQuery:Unknown asset pair"))
    );
    assert!(
        sim.get(V, "/0/public/Ticker?pair=XBTUSD").json()["result"]["XXBTZUSD"]["a"].is_array()
    );
    assert!(sim.get(V, "/0/public/Trades?pair=XBTUSD").json()["result"]["last"].is_string());
    let errors: Vec<Value> =
        (0..6).map(|_| sim.get(V, "/0/public/Time").json()["error"].clone()).collect();
    assert!(errors.contains(&json!(["EGeneral:Too many requests"])), "{errors:?}");
}
