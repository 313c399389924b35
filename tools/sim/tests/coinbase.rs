//! Coinbase as a client sees it: sequence, snapshot and updates, aliases, limits, REST.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{Client, Got, Sim, dec, http, small};
use serde_json::{Value, json};
use tandem_sim::config::Venue;

const V: Venue = Venue::Coinbase;

#[derive(Default)]
struct Builder {
    books: BTreeMap<String, [BTreeMap<i128, i128>; 2]>,
    sequence: Option<u64>,
    channels: BTreeSet<String>,
    frames: usize,
    events_per_frame_max: usize,
}

impl Builder {
    fn apply(&mut self, frame: &Value) -> Result<(), (u64, u64)> {
        let sequence = frame["sequence_num"].as_u64().unwrap();
        let expected = self.sequence.map_or(0, |s| s + 1);
        if sequence != expected {
            return Err((expected, sequence));
        }
        self.sequence = Some(sequence);
        self.frames += 1;
        assert_eq!(frame["client_id"], "");
        let channel = frame["channel"].as_str().unwrap();
        self.channels.insert(channel.to_owned());
        if channel != "l2_data" {
            return Ok(());
        }
        let events = frame["events"].as_array().unwrap();
        self.events_per_frame_max = self.events_per_frame_max.max(events.len());
        for event in events {
            let product = event["product_id"].as_str().unwrap().to_owned();
            let book = self.books.entry(product).or_default();
            if event["type"] == "snapshot" {
                *book = Default::default();
            }
            for row in event["updates"].as_array().unwrap() {
                let side = match row["side"].as_str().unwrap() {
                    "bid" => &mut book[0],
                    "offer" => &mut book[1],
                    other => panic!("{other}"),
                };
                let px = dec(row["price_level"].as_str().unwrap());
                let qty = dec(row["new_quantity"].as_str().unwrap());
                if qty == 0 {
                    side.remove(&px)
                } else {
                    side.insert(px, qty)
                };
            }
        }
        for (product, [bids, asks]) in &self.books {
            let (bid, ask) = (bids.keys().next_back(), asks.keys().next());
            assert!(bid < ask, "{product} crossed");
        }
        Ok(())
    }

    fn top(&self, product: &str, depth: usize) -> [Vec<(i128, i128)>; 2] {
        let [bids, asks] = &self.books[product];
        [
            bids.iter().rev().take(depth).map(|(p, q)| (*p, *q)).collect(),
            asks.iter().take(depth).map(|(p, q)| (*p, *q)).collect(),
        ]
    }
}

fn subscribe(client: &mut Client, channel: &str, products: &[&str]) {
    client.send(&json!({"type":"subscribe","product_ids":products,"channel":channel}));
}

fn follow(tls: bool) {
    let mut cfg = small(V, &["BTC-USD", "ETH-USD", "USDT-USDC"]);
    cfg.market.rate = 3.0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/", tls);
    subscribe(&mut client, "heartbeats", &[]);
    // The alias comes back under the name of the book.
    subscribe(&mut client, "level2", &["BTC-USDC", "ETH-USD", "USDT-USDC"]);
    subscribe(&mut client, "market_trades", &["BTC-USD"]);
    subscribe(&mut client, "ticker", &["BTC-USD"]);
    subscribe(&mut client, "status", &["BTC-USD"]);
    let mut builder = Builder::default();
    let halt_at = Instant::now() + Duration::from_millis(2_000);
    let end = Instant::now() + Duration::from_millis(2_800);
    let mut halted = false;
    while Instant::now() < end {
        if !halted && Instant::now() > halt_at {
            halted = true;
            for symbol in ["BTC-USD", "ETH-USD", "USDT-USDC"] {
                sim.halt("coinbase", symbol);
            }
        }
        let Got::Text(text) = client.next(Duration::from_millis(400)) else { continue };
        builder.apply(&serde_json::from_str(&text).unwrap()).unwrap();
    }
    let books: Vec<&String> = builder.books.keys().collect();
    assert_eq!(books, ["BTC-USD", "ETH-USD", "USDT-USDC"]);
    for product in ["BTC-USD", "ETH-USD", "USDT-USDC"] {
        assert_eq!(builder.top(product, 400), sim.truth("coinbase", product, 400), "{product}");
    }
    assert!(builder.frames > 100, "{}", builder.frames);
    assert!(builder.events_per_frame_max > 1, "several events in one frame do occur");
    let expected = ["heartbeats", "l2_data", "market_trades", "status", "subscriptions", "ticker"];
    assert!(builder.channels.iter().eq(expected.iter()), "{:?}", builder.channels);
}

#[test]
fn books_and_sequence_over_plain() {
    follow(false);
}

#[test]
fn books_and_sequence_over_tls() {
    follow(true);
}

#[test]
fn acknowledgements_list_the_full_state() {
    let mut cfg = small(V, &["BTC-USD", "ETH-USD"]);
    cfg.market.rate = 0.0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/", false);
    subscribe(&mut client, "ticker", &["BTC-USD"]);
    subscribe(&mut client, "candles", &["ETH-USD"]);
    let full = json!({"candles":["ETH-USD"],"ticker":["BTC-USD"]});
    let has = |v: &Value, wanted: &Value| v["events"][0]["subscriptions"] == *wanted;
    client.until(|v| v["channel"] == "subscriptions" && has(v, &full));
    client.send(&json!({"type":"unsubscribe","channel":"ticker"}));
    client.until(|v| v["channel"] == "subscriptions" && has(v, &json!({"candles":["ETH-USD"]})));
    let errors = [
        json!({"type":"subscribe","channel":"user","product_ids":["BTC-USD"]}),
        json!({"type":"subscribe","channel":"level9","product_ids":["BTC-USD"]}),
        json!({"type":"subscribe","channel":"level2","product_ids":["NO-PE"]}),
    ];
    for request in errors {
        client.send(&request);
        let error = client.until(|v| v["type"] == "error");
        assert!(error.get("sequence_num").is_none() && error["message"].is_string());
    }
    // The eighth message within a second was the last that is answered.
    for _ in 0..6 {
        client.send(&json!({"type":"unsubscribe","channel":"ticker"}));
    }
    client.until(|v| v["message"] == "rate limit exceeded");
}

#[test]
fn heartbeats_count_and_the_deadline_holds() {
    let mut cfg = small(V, &["BTC-USD"]);
    cfg.coinbase.heartbeat_ms = 100;
    cfg.coinbase.subscribe_deadline_ms = 300;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/", false);
    let mut idle = sim.ws(V, "/", false);
    subscribe(&mut client, "heartbeats", &[]);
    let mut counters = Vec::new();
    while counters.len() < 5 {
        let beat = client.until(|v| v["channel"] == "heartbeats");
        counters.push(beat["events"][0]["heartbeat_counter"].as_u64().unwrap());
        assert!(beat["events"][0]["current_time"].as_str().unwrap().contains("+0000 UTC m=+"));
    }
    assert_eq!(counters, [1, 2, 3, 4, 5]);
    assert!(matches!(idle.end(Duration::from_secs(2)), Got::Close(..)));
}

#[test]
fn rest_books_products_cache_and_limit() {
    let sim = Sim::start(small(V, &["BTC-USD", "USDT-USDC"]));
    let at = sim.plain(V);
    let fresh = |target: &str| {
        http(at, "GET", &format!("/api/v3/brokerage/{target}"), "cache-control: no-cache\r\n", "{}")
    };
    let products = fresh("market/products").json();
    let named = |id: &str| {
        products["products"].as_array().unwrap().iter().find(|p| p["product_id"] == id).cloned()
    };
    assert_eq!(named("BTC-USDC").unwrap()["alias"], "BTC-USD");
    assert_eq!(named("BTC-USD").unwrap()["alias_to"], json!(["BTC-USDC"]));
    assert_eq!(named("USDT-USDC").unwrap()["alias"], "");
    assert_eq!(fresh("market/products/BTC-USD").json()["price_increment"], "0.01");
    sim.halt("coinbase", "BTC-USD");
    let book = fresh("market/product_book?product_id=BTC-USDC&limit=50").json();
    let [bids, _] = sim.truth("coinbase", "BTC-USD", 50);
    let got: Vec<(i128, i128)> = book["pricebook"]["bids"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (dec(r["price"].as_str().unwrap()), dec(r["size"].as_str().unwrap())))
        .collect();
    assert_eq!(got, bids);
    assert_eq!(fresh("market/products/BTC-USD").json()["trading_disabled"], true);
    assert!(fresh("time").json()["epochMillis"].as_str().unwrap().parse::<u64>().is_ok());
    assert_eq!(fresh("products").status, 401);
    let with_token = http(
        at,
        "GET",
        "/api/v3/brokerage/products?product_ids=BTC-USD&product_ids=USDT-USDC",
        "authorization: Bearer x.y.z\r\n",
        "{}",
    );
    assert_eq!(with_token.json()["num_products"], 2);
    std::thread::sleep(Duration::from_millis(1_100));
    // The cache answers the same bytes within a second, even for a moving price.
    let once = sim.get(V, "/api/v3/brokerage/market/product_book?product_id=USDT-USDC").body;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(sim.get(V, "/api/v3/brokerage/market/product_book?product_id=USDT-USDC").body, once);
    let statuses: Vec<u16> = (0..14).map(|_| fresh("time").status).collect();
    let limited = fresh("time");
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(limited.header("x-ratelimit-limit"), Some("10"));
}
