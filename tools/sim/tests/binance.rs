//! Binance as a client sees it: book synchronisation, control messages, limits, REST.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use common::{Client, Got, Sim, dec, raw_ws, small};
use serde_json::{Value, json};
use tandem_sim::config::Venue;

const V: Venue = Venue::Binance;

/// The procedure of the protocol sheet, section 3, from scratch.
#[derive(Default)]
struct Builder {
    bids: BTreeMap<i128, i128>,
    asks: BTreeMap<i128, i128>,
    id: u64,
    events: usize,
}

impl Builder {
    fn load(&mut self, snapshot: &Value) {
        self.id = snapshot["lastUpdateId"].as_u64().unwrap();
        self.rows(snapshot, "bids", "asks");
    }

    fn rows(&mut self, value: &Value, bids: &str, asks: &str) {
        for (name, side) in [(bids, &mut self.bids), (asks, &mut self.asks)] {
            for row in value[name].as_array().unwrap() {
                let (px, qty) = (dec(row[0].as_str().unwrap()), dec(row[1].as_str().unwrap()));
                if qty == 0 {
                    side.remove(&px)
                } else {
                    side.insert(px, qty)
                };
            }
        }
    }

    /// Applies an event; `Err` is a gap.
    fn apply(&mut self, event: &Value) -> Result<(), (u64, u64)> {
        let (first, last) = (event["U"].as_u64().unwrap(), event["u"].as_u64().unwrap());
        assert!(first <= last);
        if last <= self.id {
            return Ok(());
        }
        let exact = first == self.id + 1;
        if first > self.id + 1 || (self.events > 0 && !exact) {
            return Err((self.id, first));
        }
        self.rows(event, "b", "a");
        self.id = last;
        self.events += 1;
        let (bid, ask) = (self.bids.keys().next_back().unwrap(), self.asks.keys().next().unwrap());
        assert!(bid < ask, "crossed after {first}..{last}");
        Ok(())
    }

    fn top(&self, depth: usize) -> [Vec<(i128, i128)>; 2] {
        [
            self.bids.iter().rev().take(depth).map(|(p, q)| (*p, *q)).collect(),
            self.asks.iter().take(depth).map(|(p, q)| (*p, *q)).collect(),
        ]
    }
}

fn synchronise(tls: bool, combined: bool) {
    let sim = Sim::start(small(V, &["BTCUSDT", "ETHBTC"]));
    let path = if combined {
        "/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"
    } else {
        // A prefix before /ws, as one library needs it, and several streams in one path.
        "/testnet.binance/ws/btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade"
    };
    let mut client = sim.ws(V, path, tls);
    let mut buffer = Vec::new();
    let mut tickers: Vec<(u64, i128, i128)> = Vec::new();
    let mut trades: Vec<u64> = Vec::new();
    let mut builder = Builder::default();
    let end = Instant::now() + Duration::from_millis(2_500);
    let mut halted = false;
    while Instant::now() < end {
        let Got::Text(text) = client.next(Duration::from_millis(600)) else { break };
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.get("stream").is_some(), combined);
        let data = if combined { value["data"].clone() } else { value };
        match data["e"].as_str() {
            Some("depthUpdate") => buffer.push(data),
            Some("trade") => trades.push(data["t"].as_u64().unwrap()),
            None => tickers.push((
                data["u"].as_u64().unwrap(),
                dec(data["b"].as_str().unwrap()),
                dec(data["a"].as_str().unwrap()),
            )),
            Some(other) => panic!("{other}"),
        }
        if buffer.len() == 1 && builder.id == 0 {
            let reply = sim.get(V, "/api/v3/depth?symbol=BTCUSDT&limit=5000");
            assert_eq!(reply.status, 200);
            builder.load(&reply.json());
            assert!(
                builder.id >= buffer[0]["U"].as_u64().unwrap(),
                "snapshot older than the buffer"
            );
        }
        if buffer.len() > 12 && !halted {
            halted = true;
            sim.halt("binance", "BTCUSDT");
        }
    }
    for event in &buffer {
        builder.apply(event).unwrap();
    }
    assert!(builder.events > 8, "{}", builder.events);
    assert!(builder.bids.len() > 900, "full depth");
    assert_eq!(builder.top(500), sim.truth("binance", "BTCUSDT", 500));
    assert!(tickers.len() > 5);
    assert!(tickers.windows(2).all(|w| w[0].0 < w[1].0), "bookTicker ids grow");
    // One id space: each ticker is a state that the truth knows under the same id.
    let history = sim.control("GET", "/truth/history?venue=binance&symbol=BTCUSDT", "");
    let known: BTreeMap<u64, (i128, i128)> = history["states"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            let px = |side: &str| dec(s[side][0].as_str().unwrap());
            (s["update_id"].as_u64().unwrap(), (px("bid"), px("ask")))
        })
        .collect();
    for (id, bid, ask) in &tickers {
        assert_eq!(known.get(id), Some(&(*bid, *ask)), "ticker {id}");
    }
    assert!(trades.windows(2).all(|w| w[1] == w[0] + 1), "trade ids step by one");
}

#[test]
fn a_book_synchronises_over_plain_combined() {
    synchronise(false, true);
}

#[test]
fn a_book_synchronises_over_tls_raw() {
    synchronise(true, false);
}

fn reply(client: &mut Client, request: &Value) -> Value {
    client.send(request);
    client.until(|v| v.get("id").is_some() || v.get("error").is_some())
}

#[test]
fn control_messages() {
    let mut cfg = small(V, &["BTCUSDT", "ETHBTC"]);
    cfg.binance.messages_per_s = 100;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/ws/0", false);
    let cases = [
        (
            json!({"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}),
            json!({"result":null,"id":1}),
        ),
        (
            json!({"method":"SUBSCRIBE","params":["nosuch@depth"],"id":"a1"}),
            json!({"result":null,"id":"a1"}),
        ),
        (
            json!({"method":"LIST_SUBSCRIPTIONS","id":null}),
            json!({"result":["btcusdt@bookTicker","nosuch@depth"],"id":null}),
        ),
        (
            json!({"method":"UNSUBSCRIBE","params":["btcusdt@bookTicker"],"id":2}),
            json!({"result":null,"id":2}),
        ),
        (
            json!({"method":"GET_PROPERTY","params":["combined"],"id":3}),
            json!({"result":false,"id":3}),
        ),
        (
            json!({"method":"SET_PROPERTY","params":["combined",true],"id":4}),
            json!({"result":null,"id":4}),
        ),
        (
            json!({"method":"GET_PROPERTY","params":["combined"],"id":5}),
            json!({"result":true,"id":5}),
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(reply(&mut client, &request), expected);
    }
    let errors = [
        (json!({"method":"SET_PROPERTY","params":["speed",1],"id":6}), 0),
        (json!({"method":"SET_PROPERTY","params":["combined",1],"id":7}), 1),
        (json!({"method":"SUBSCRIBE","params":["btcusdt"],"id":8}), 2),
        (json!({"method":"SUBSCRIBE","params":[],"id":9}), 2),
        (json!({"method":"FLY","id":10}), 2),
        (json!({"id":11}), 2),
        (json!({"method":"LIST_SUBSCRIPTIONS","id":[1]}), 2),
    ];
    for (request, code) in errors {
        assert_eq!(reply(&mut client, &request)["error"]["code"], code, "{request}");
    }
    client.send_text("{nonsense");
    assert_eq!(client.until(|v| v.get("error").is_some())["error"]["code"], 3);
    // Acknowledged, but nothing ever comes for a symbol that does not exist.
    assert_eq!(client.texts(Duration::from_millis(300)), Vec::<String>::new());
}

#[test]
fn microseconds_and_partial_depth() {
    let sim = Sim::start(small(V, &["BTCUSDT"]));
    let path = "/stream?streams=btcusdt@depth5@100ms/btcusdt@depth@100ms&timeUnit=microsecond";
    let mut client = sim.ws(V, path, false);
    let diff = client.until(|v| v["stream"] == "btcusdt@depth@100ms");
    assert!(diff["data"]["E"].as_u64().unwrap() > 1_000_000_000_000_000);
    let partial = client.until(|v| v["stream"] == "btcusdt@depth5@100ms");
    assert_eq!(partial["data"]["bids"].as_array().unwrap().len(), 5);
    assert!(partial["data"].get("s").is_none());
}

#[test]
fn more_than_five_messages_a_second_disconnect() {
    let sim = Sim::start(small(V, &["BTCUSDT"]));
    let mut client = sim.ws(V, "/ws", false);
    for id in 0..12 {
        client.send(&json!({"method":"LIST_SUBSCRIPTIONS","id":id}));
    }
    assert_eq!(
        client.end(Duration::from_secs(3)),
        Got::Close(1008, "Too many requests".to_owned())
    );
}

#[test]
fn silence_after_pings_closes_with_pong_timeout() {
    let mut cfg = small(V, &["BTCUSDT"]);
    cfg.binance.ping_ms = 100;
    cfg.binance.pong_timeout_ms = 400;
    cfg.binance.messages_per_s = 50;
    let sim = Sim::start(cfg);
    let mut lively = sim.ws(V, "/ws", false);
    let mut dead = raw_ws(sim.plain(V), "/ws");
    // The library answers pings while it reads; the dead client never does.
    assert_eq!(lively.next(Duration::from_millis(1_500)), Got::Nothing);
    assert!(lively.pings >= 5, "{}", lively.pings);
    let mut bytes = Vec::new();
    dead.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes[0], 0x89, "a ping came first");
    let close = [&[0x88, 14, 0x03, 0xf0][..], b"Pong timeout"].concat();
    assert!(bytes.ends_with(&close), "{bytes:?}");
}

#[test]
fn lifetime_is_compressible_and_bad_streams_are_closed() {
    let mut cfg = small(V, &["BTCUSDT"]);
    cfg.binance.lifetime_ms = 300;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(V, "/ws", false);
    assert!(matches!(client.end(Duration::from_secs(2)), Got::Close(1001, _) | Got::Broken(_)));
    let mut client = sim.ws(V, "/ws/@depth", false);
    let Got::Close(1008, reason) = client.end(Duration::from_secs(2)) else { panic!() };
    assert_eq!(reason, "{\"code\":-1,\"msg\":\"Illegal format ws or stream\"}");
}

#[test]
fn rest_shapes_and_errors() {
    let sim = Sim::start(small(V, &["BTCUSDT", "ETHBTC"]));
    let info = sim.get(V, "/api/v3/exchangeInfo").json();
    assert_eq!(info["symbols"].as_array().unwrap().len(), 2);
    let filters = info["symbols"][0]["filters"].as_array().unwrap();
    let price = filters.iter().find(|f| f["filterType"] == "PRICE_FILTER").unwrap();
    assert_eq!(price["tickSize"], "0.01000000");
    assert_eq!(sim.get(V, "/api/v3/ping").json(), json!({}));
    assert!(sim.get(V, "/api/v3/time").json()["serverTime"].as_u64().unwrap() > 1_700_000_000_000);
    let two =
        sim.get(V, "/api/v3/ticker/bookTicker?symbols=%5B%22BTCUSDT%22,%22ETHBTC%22%5D").json();
    assert_eq!(two.as_array().unwrap().len(), 2);
    assert!(sim.get(V, "/api/v3/trades?symbol=BTCUSDT&limit=5").json().is_array());
    let errors = [
        ("/api/v3/depth", -1102),
        ("/api/v3/depth?symbol=NOPE", -1121),
        ("/api/v3/depth?symbol=btc", -1100),
        ("/api/v3/depth?symbol=BTCUSDT&limit=x", -1100),
        ("/api/v3/depth?symbol=BTCUSDT&limit=0", -1130),
        ("/api/v3/depth?symbol=BTCUSDT&foo=1", -1104),
        ("/api/v3/ticker/bookTicker?symbol=BTCUSDT&symbols=%5B%5D", -1128),
        ("/api/v3/exchangeInfo?symbols=%5B%22BTCUSDT%22,%22BTCUSDT%22%5D", -1151),
    ];
    for (target, code) in errors {
        let reply = sim.get(V, target);
        assert_eq!((reply.status, reply.json()["code"].as_i64()), (400, Some(code)), "{target}");
    }
    assert_eq!(sim.get(V, "/api/v1/depth?symbol=BTCUSDT").status, 404);
}

#[test]
fn weight_then_429_then_418() {
    let mut cfg = small(V, &["BTCUSDT"]);
    cfg.binance.weight_per_min = 60;
    cfg.binance.ban_after_refusals = 3;
    let sim = Sim::start(cfg);
    // A window may end in between: then the count starts again, so look for the first refusal.
    let mut statuses = Vec::new();
    for _ in 0..16 {
        let reply = sim.get(V, "/api/v3/depth?symbol=BTCUSDT&limit=500");
        if reply.status == 200 {
            let used: u64 = reply.header("x-mbx-used-weight-1m").unwrap().parse().unwrap();
            assert!(used.is_multiple_of(25) && used <= 60);
        } else {
            assert!(reply.header("Retry-After").unwrap().parse::<u64>().unwrap() <= 121);
            assert_eq!(reply.json()["code"], -1003);
        }
        statuses.push(reply.status);
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429));
    assert_eq!(statuses.last(), Some(&418), "{statuses:?}");
    let at = sim.plain(V);
    let refused = Client::try_connect(at, None, "/ws").err().unwrap();
    assert!(refused.contains("418"), "{refused}");
}
