//! Every fault through the control port: what a client sees, and that the truth stays the truth.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Client, Got, Sim, dec, http, raw_ws, small};
use serde_json::{Value, json};
use tandem_sim::SimConfig;
use tandem_sim::config::Venue;

const S: Duration = Duration::from_secs(1);

fn binance(path: &str) -> (Sim, Client) {
    let mut cfg = small(Venue::Binance, &["BTCUSDT", "ETHBTC"]);
    cfg.market.rate = 3.0;
    let sim = Sim::start(cfg);
    let client = sim.ws(Venue::Binance, path, false);
    (sim, client)
}

const DEPTH: &str = "/ws/btcusdt@depth@100ms";

fn coinbase() -> (Sim, Client) {
    let mut cfg = small(Venue::Coinbase, &["BTC-USD"]);
    cfg.market.rate = 3.0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(Venue::Coinbase, "/", false);
    client.send(&json!({"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}));
    client.until(|v| v["channel"] == "l2_data");
    (sim, client)
}

fn kraken() -> (Sim, Client) {
    let mut cfg = small(Venue::Kraken, &["BTC/USD"]);
    cfg.market.rate = 3.0;
    cfg.kraken.duplicate_price_ppm = 0;
    cfg.kraken.unknown_delete_ppm = 0;
    let sim = Sim::start(cfg);
    let mut client = sim.ws(Venue::Kraken, "/v2", false);
    subscribe_kraken(&mut client);
    client.until(|v| v["channel"] == "book");
    (sim, client)
}

fn subscribe_kraken(client: &mut Client) {
    client.send(&json!({"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"]}}));
}

fn ids(events: &[Value]) -> Vec<(u64, u64)> {
    events.iter().map(|e| (e["U"].as_u64().unwrap(), e["u"].as_u64().unwrap())).collect()
}

fn parsed(texts: &[String]) -> Vec<Value> {
    texts.iter().map(|t| serde_json::from_str(t).unwrap()).collect()
}

#[test]
fn drop_leaves_a_gap_of_the_asked_size() {
    let (sim, mut client) = binance(DEPTH);
    client.json();
    let fault = sim.fault(json!({"kind":"drop","venue":"binance","symbol":"BTCUSDT","count":2}));
    let got = ids(&parsed(&client.texts(S)));
    let gaps = got.windows(2).filter(|w| w[1].0 != w[0].1 + 1).count();
    // The first event may already miss its predecessor.
    assert!(gaps <= 1 && got.len() >= 6, "{got:?}");
    let faults = sim.control("GET", "/faults", "");
    let active = faults["active"].as_array().unwrap().iter().find(|f| f["id"] == fault).unwrap();
    assert_eq!(active["hits"], 2);

    let (sim, mut client) = coinbase();
    let mut last = client.until(|v| v["channel"] == "l2_data")["sequence_num"].as_u64().unwrap();
    sim.fault(json!({"kind":"drop","venue":"coinbase","count":3}));
    let mut missing = 0;
    for frame in parsed(&client.texts(S)) {
        let sequence = frame["sequence_num"].as_u64().unwrap();
        missing += sequence - last - 1;
        last = sequence;
    }
    assert_eq!(missing, 3);
}

#[test]
fn duplicates_and_changed_order() {
    let (sim, mut client) = binance(DEPTH);
    client.json();
    sim.fault(json!({"kind":"duplicate","venue":"binance","count":1}));
    let got = ids(&parsed(&client.texts(S)));
    assert_eq!(got.windows(2).filter(|w| w[0] == w[1]).count(), 1, "{got:?}");
    sim.fault(json!({"kind":"reorder","venue":"binance","count":1}));
    let got = ids(&parsed(&client.texts(S)));
    let back = got.windows(2).position(|w| w[1].0 < w[0].0).expect("one goes back");
    assert_eq!(got[back].0, got[back + 1].1 + 1, "neighbours changed places");
}

/// Checks a Kraken checksum against the message's own ten levels, where it carries all of them.
fn snapshot_is_consistent(text: &str) -> bool {
    let rows = |side: &str| -> String {
        let start = text.find(&format!("\"{side}\":[")).unwrap();
        let part = &text[start..start + text[start..].find(']').unwrap()];
        let number = |t: &str| t.replace('.', "").trim_start_matches('0').to_owned();
        part.split("{\"price\":")
            .skip(1)
            .map(|level| {
                let (px, rest) = level.split_once(",\"qty\":").unwrap();
                number(px) + &number(rest.split_once('}').unwrap().0)
            })
            .collect()
    };
    let sum: u32 =
        text.split("\"checksum\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    crc32fast::hash((rows("asks") + &rows("bids")).as_bytes()) == sum
}

fn resubscribed(client: &mut Client) -> String {
    client.send(&json!({"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}));
    subscribe_kraken(client);
    let texts = client.texts(S);
    texts.into_iter().find(|t| t.contains("\"type\":\"snapshot\"")).unwrap()
}

#[test]
fn kraken_checksums_and_snapshots_are_spoilt_on_demand() {
    let (sim, mut client) = kraken();
    assert!(snapshot_is_consistent(&resubscribed(&mut client)));
    for kind in ["bad_checksum", "corrupt", "wrong_snapshot"] {
        sim.halt("kraken", "BTC/USD");
        client.texts(Duration::from_millis(100));
        sim.fault(json!({"kind":kind,"venue":"kraken","symbol":"BTC/USD","count":1}));
        assert!(!snapshot_is_consistent(&resubscribed(&mut client)), "{kind}");
        assert!(snapshot_is_consistent(&resubscribed(&mut client)), "{kind} acts once");
        sim.control("POST", "/clear", "");
    }
}

#[test]
fn wrong_and_stale_snapshots_differ_from_the_truth() {
    let (sim, mut client) = binance(DEPTH);
    client.texts(S * 3);
    sim.halt("binance", "BTCUSDT");
    let truth = sim.truth("binance", "BTCUSDT", 50);
    let snapshot = || {
        let value = sim.get(Venue::Binance, "/api/v3/depth?symbol=BTCUSDT&limit=50").json();
        let sides = ["bids", "asks"].map(|side| {
            let row = |r: &Value| (dec(r[0].as_str().unwrap()), dec(r[1].as_str().unwrap()));
            value[side].as_array().unwrap().iter().map(row).collect::<Vec<_>>()
        });
        (value["lastUpdateId"].as_u64().unwrap(), sides)
    };
    let (id, right) = snapshot();
    assert_eq!(right, truth);
    sim.fault(json!({"kind":"wrong_snapshot","venue":"binance","symbol":"BTCUSDT"}));
    assert_ne!(snapshot().1, truth);
    assert_eq!(snapshot().1, truth, "only one is wrong");
    sim.fault(json!({"kind":"stale_snapshot","venue":"binance","count":2,"ms":2000}));
    let (old, old_book) = snapshot();
    assert!(old < id && old_book != truth);
    assert!(snapshot().0 < id);
    assert_eq!(snapshot().0, id);
}

#[test]
fn a_freeze_loses_or_holds_and_answers_no_ping() {
    let (sim, mut client) = binance(DEPTH);
    client.json();
    sim.fault(json!({"kind":"freeze","venue":"binance","seconds":1}));
    client.texts(Duration::from_millis(100));
    assert_eq!(client.next(Duration::from_millis(600)), Got::Nothing);
    let before = client.json();
    let after = client.json();
    assert!(before["u"].as_u64().unwrap() < after["U"].as_u64().unwrap());
    sim.fault(json!({"kind":"freeze","venue":"binance","seconds":0.6,"mode":"hold"}));
    let got = ids(&parsed(&client.texts(S * 2)));
    assert!(got.windows(2).all(|w| w[1].0 == w[0].1 + 1), "held, not lost: {got:?}");
    assert!(got.len() > 12);
}

#[test]
fn a_frozen_symbol_goes_on_with_one_merged_correct_update() {
    let (sim, mut client) = coinbase();
    let mut book: [BTreeMap<i128, i128>; 2] = Default::default();
    // A second subscription gives this test its snapshot.
    client.send(&json!({"type":"unsubscribe","product_ids":["BTC-USD"],"channel":"level2"}));
    client.send(&json!({"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}));
    let mut apply = |frame: &Value| {
        for event in frame["events"].as_array().unwrap() {
            for row in event["updates"].as_array().into_iter().flatten() {
                let side = &mut book[usize::from(row["side"] == "offer")];
                let px = dec(row["price_level"].as_str().unwrap());
                let qty = dec(row["new_quantity"].as_str().unwrap());
                if qty == 0 {
                    side.remove(&px)
                } else {
                    side.insert(px, qty)
                };
            }
        }
        book.clone()
    };
    apply(&client.until(|v| v["events"][0]["type"] == "snapshot"));
    sim.fault(json!({"kind":"freeze_symbol","venue":"coinbase","symbol":"BTC-USD","seconds":1}));
    let end = Instant::now() + Duration::from_millis(1_600);
    let mut largest = 0;
    while Instant::now() < end {
        if let Got::Text(text) = client.next(Duration::from_millis(50)) {
            let frame: Value = serde_json::from_str(&text).unwrap();
            largest = largest.max(frame["events"][0]["updates"].as_array().map_or(0, Vec::len));
            apply(&frame);
        }
    }
    assert!(largest > 50, "a second of changes in one update, not {largest}");
    sim.halt("coinbase", "BTC-USD");
    let mut last = apply(&json!({"events":[]}));
    for text in client.texts(Duration::from_millis(300)) {
        last = apply(&serde_json::from_str(&text).unwrap());
    }
    let top = [
        last[0].iter().rev().take(300).map(|(p, q)| (*p, *q)).collect::<Vec<_>>(),
        last[1].iter().take(300).map(|(p, q)| (*p, *q)).collect(),
    ];
    assert_eq!(top, sim.truth("coinbase", "BTC-USD", 300));
}

#[test]
fn disconnects_of_each_kind() {
    let (sim, mut client) = binance(DEPTH);
    client.json();
    sim.fault(json!({"kind":"disconnect","venue":"binance","code":1011,"reason":"bye"}));
    assert_eq!(client.end(S), Got::Close(1011, "bye".to_owned()));
    for (mode, expected) in [("reset", "reset"), ("abrupt", "without closing")] {
        let mut client = sim.ws(Venue::Binance, DEPTH, false);
        client.json();
        sim.fault(json!({"kind":"disconnect","venue":"binance","mode":mode}));
        let Got::Broken(how) = client.end(S * 2) else { panic!("{mode}") };
        assert!(how.contains(expected), "{mode}: {how}");
    }
    // Only the named connection goes.
    let mut first = sim.ws(Venue::Binance, DEPTH, false);
    let mut second = sim.ws(Venue::Binance, DEPTH, false);
    let status = sim.control("GET", "/status", "");
    let last = status["connections"].as_array().unwrap().last().unwrap()["id"].clone();
    sim.fault(json!({"kind":"disconnect","venue":"binance","connection":last}));
    assert!(matches!(second.end(S), Got::Close(1001, _)));
    first.json();
}

#[test]
fn new_connections_are_refused_in_three_ways_and_then_welcome() {
    let sim = Sim::start(small(Venue::Binance, &["BTCUSDT"]));
    let at = sim.plain(Venue::Binance);
    sim.fault(json!({"kind":"refuse","venue":"binance","mode":"closed","seconds":0.5}));
    std::thread::sleep(Duration::from_millis(150));
    let refused = TcpStream::connect(at).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    std::thread::sleep(Duration::from_millis(600));
    Client::connect(at, None, "/ws");
    sim.fault(json!({"kind":"refuse","venue":"binance","mode":"http","status":503,"seconds":0.3}));
    assert!(Client::try_connect(at, None, "/ws").err().unwrap().contains("503"));
    std::thread::sleep(Duration::from_millis(400));
    sim.fault(json!({"kind":"refuse","venue":"binance","mode":"reset","seconds":0.3}));
    assert!(Client::try_connect(at, None, "/ws").is_err());
    std::thread::sleep(Duration::from_millis(400));
    Client::connect(at, None, "/ws");
}

#[test]
fn rest_fails_with_the_venues_own_bodies() {
    let sim = Sim::start(SimConfig::demo(2));
    let ask = |venue| match venue {
        Venue::Binance => sim.get(venue, "/api/v3/ping"),
        Venue::Coinbase => sim.get(venue, "/api/v3/brokerage/time"),
        Venue::Kraken => sim.get(venue, "/0/public/Time"),
    };
    let during = |status: u16| {
        sim.fault(json!({"kind":"http_status","status":status}));
        let replies = Venue::ALL.map(ask);
        sim.control("POST", "/clear", "");
        replies
    };
    let [b, c, k] = during(429);
    assert_eq!((b.status, b.json()["code"].clone()), (429, json!(-1003)));
    assert!(b.header("Retry-After").is_some());
    assert_eq!(c.json()["errors"][0]["id"], "rate_limit_exceeded");
    assert_eq!(
        (k.status, k.json()["error"][0].clone()),
        (200, json!("EGeneral:Too many requests"))
    );
    let [b, ..] = during(418);
    assert_eq!(b.status, 418);
    assert!(during(403).iter().all(|r| r.status == 403 && r.body.starts_with("<html>")));
    let [b, ..] = during(503);
    assert_eq!((b.status, b.json()["code"].clone()), (503, json!(-1008)));
    assert!(Venue::ALL.map(ask).iter().all(|r| r.status == 200));
}

#[test]
fn slow_messages_keep_their_order() {
    let (sim, mut client) = binance("/ws/btcusdt@depth@100ms");
    client.json();
    sim.fault(json!({"kind":"slow","venue":"binance","ms":400,"seconds":1}));
    let behind = |event: &Value| {
        let now = sim.control("GET", "/status", "")["now_ns"].as_u64().unwrap() / 1_000_000;
        now.saturating_sub(event["E"].as_u64().unwrap())
    };
    client.texts(Duration::from_millis(150));
    let event = client.json();
    assert!(behind(&event) >= 390, "{}", behind(&event));
    let got = ids(&parsed(&client.texts(S)));
    assert!(got.windows(2).all(|w| w[1].0 == w[0].1 + 1));
}

#[test]
fn a_stepped_clock_shows_in_the_messages() {
    let (sim, mut client) = binance(DEPTH);
    let before = client.json()["E"].as_u64().unwrap();
    sim.fault(json!({"kind":"clock","venue":"binance","ms":-10000,"seconds":5}));
    client.texts(Duration::from_millis(150));
    assert!(client.json()["E"].as_u64().unwrap() < before - 5_000);
}

#[test]
fn malformed_messages_of_each_kind() {
    let (sim, mut client) = kraken();
    let data_lost = [
        "truncated",
        "wrong_type",
        "huge_number",
        "nan",
        "negative",
        "long_digits",
        "empty_string",
    ];
    for variant in data_lost {
        sim.fault(json!({"kind":"malformed","venue":"kraken","variant":variant,"count":1}));
        let texts = client.texts(Duration::from_millis(300));
        let sound = |t: &String| {
            serde_json::from_str::<Value>(t).is_ok_and(|v| {
                let digits = t.contains("\"qty\":-") || t.contains("1234567890123456789012345");
                let shape = |d: &Value| d[0]["bids"].is_array() && d[0]["asks"].is_array();
                !digits && v.get("data").is_none_or(shape)
            })
        };
        let bad = texts.iter().filter(|t| !sound(t)).count();
        assert_eq!(bad, 1, "{variant}: {texts:#?}");
    }
    for variant in ["unknown_field", "unknown_channel"] {
        sim.fault(json!({"kind":"malformed","venue":"kraken","variant":variant,"count":1}));
        let texts = client.texts(Duration::from_millis(300));
        assert_eq!(texts.iter().filter(|t| t.contains("zz_new")).count(), 1, "{variant}");
        assert_eq!(parsed(&texts).len(), texts.len());
    }
    sim.fault(json!({"kind":"malformed","venue":"kraken","variant":"invalid_utf8","count":1}));
    let Got::Broken(how) = client.end(S) else { panic!("invalid UTF-8 must break the client") };
    assert!(how.to_lowercase().contains("utf"), "{how}");
}

#[test]
fn oversized_and_hostile_frames() {
    let (sim, mut client) = binance("/ws");
    sim.fault(json!({"kind":"oversized","venue":"binance","mib":17}));
    let Got::Text(text) = client.next(S * 5) else { panic!() };
    assert!(text.len() > 17 << 20);
    let variants = [
        "opcode",
        "rsv",
        "continuation",
        "masked",
        "fragmented_ping",
        "long_ping",
        "huge_length",
        "close_code",
    ];
    for variant in variants {
        let mut client = sim.ws(Venue::Binance, "/ws", false);
        client.texts(Duration::from_millis(20));
        sim.fault(json!({"kind":"hostile_frame","venue":"binance","variant":variant}));
        let got = client.end(S);
        // A masked server frame is a breach too; each must end the connection, none as a text.
        assert!(matches!(got, Got::Broken(_) | Got::Close(..)), "{variant}: {got:?}");
    }
}

#[test]
fn a_cross_is_seen_and_corrected() {
    let (sim, mut client) = binance("/ws/btcusdt@bookTicker/btcusdt@depth@100ms");
    client.json();
    sim.fault(json!({"kind":"crossed","venue":"binance","symbol":"BTCUSDT","ms":150}));
    let crossed: Vec<bool> = parsed(&client.texts(S))
        .iter()
        .filter(|v| v.get("e").is_none())
        .map(|v| dec(v["b"].as_str().unwrap()) >= dec(v["a"].as_str().unwrap()))
        .collect();
    assert!(crossed.contains(&true) && crossed.last() == Some(&false), "{crossed:?}");
    assert_eq!(sim.control("GET", "/status", "")["crossed_now"], json!([]));
}

#[test]
fn halts_spikes_bursts_and_server_shutdown() {
    let (sim, mut client) = binance("/stream?streams=btcusdt@bookTicker/btcusdt@trade");
    sim.fault(
        json!({"kind":"halt","venue":"binance","symbol":"BTCUSDT","mode":"break","seconds":0.6}),
    );
    let info = sim.get(Venue::Binance, "/api/v3/exchangeInfo?symbol=BTCUSDT").json();
    assert_eq!(info["symbols"][0]["status"], "BREAK");
    client.texts(Duration::from_millis(50));
    assert_eq!(client.next(Duration::from_millis(300)), Got::Nothing);
    std::thread::sleep(Duration::from_millis(300));
    client.json();
    let calm = client.texts(S).len();
    sim.fault(json!({"kind":"burst","factor":10,"seconds":1.2}));
    client.texts(Duration::from_millis(100));
    let busy = client.texts(S).len();
    assert!(busy > calm * 4, "{calm} then {busy}");
    std::thread::sleep(Duration::from_millis(200));
    client.texts(Duration::from_millis(50));
    let ask = || sim.truth("binance", "BTCUSDT", 1)[1][0].0;
    let before = ask();
    sim.fault(json!({"kind":"spike","venue":"binance","symbol":"BTCUSDT","bps":-800,"ms":500}));
    std::thread::sleep(Duration::from_millis(150));
    assert!(ask() * 100 < before * 94, "{} then {}", before, ask());
    std::thread::sleep(Duration::from_millis(700));
    assert!(ask() * 100 > before * 97);
    sim.fault(json!({"kind":"server_shutdown","venue":"binance","ms":300}));
    let told = client.until(|v| v["stream"] == "!serverShutdown");
    assert_eq!(told["data"]["e"], "serverShutdown");
    assert!(matches!(client.end(S), Got::Close(1001, _)));
}

#[test]
fn scripts_run_on_time_and_nonsense_is_refused() {
    let (sim, mut client) = binance(DEPTH);
    client.json();
    let script = json!([{"at_s":0.4,"fault":{"kind":"disconnect","venue":"binance","code":1013}}]);
    sim.control("POST", "/script", &script.to_string());
    let began = Instant::now();
    assert!(matches!(client.end(S * 2), Got::Close(1013, _)));
    assert!(began.elapsed() > Duration::from_millis(300));
    let at = sim.handle.as_ref().unwrap().addresses().control;
    for bad in [
        r#"{"kind":"nope"}"#,
        r#"{"kind":"drop","symbol":"X"}"#,
        r#"{"kind":"drop","cuont":1}"#,
        "[",
    ] {
        let reply = http(at, "POST", "/fault", "", bad);
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.json()["error"].is_string());
    }
    assert_eq!(http(at, "GET", "/nothing", "", "").status, 404);
}

#[test]
fn truth_of_levels_covers_what_was_sent() {
    let (sim, mut client) = binance("/ws/btcusdt@bookTicker");
    let started = sim.control("GET", "/status", "")["now_ns"].as_u64().unwrap();
    let tickers = parsed(&client.texts(S));
    let now = sim.control("GET", "/status", "")["now_ns"].as_u64().unwrap();
    assert!(tickers.len() > 5);
    for ticker in &tickers {
        let (px, qty) = (ticker["a"].as_str().unwrap(), ticker["A"].as_str().unwrap());
        let target = format!(
            "/truth/levels?venue=binance&symbol=BTCUSDT&side=ask&price={px}&from_ns={started}&to_ns={now}"
        );
        let level = sim.control("GET", &target, "");
        assert_eq!(level["existed"], true);
        let states = level["states"].as_array().unwrap();
        assert!(
            states.iter().any(|s| dec(s["qty"].as_str().unwrap()) == dec(qty)),
            "{px} {qty} {states:?}"
        );
    }
    let far = "/truth/levels?venue=binance&symbol=BTCUSDT&side=ask&price=1.00";
    assert_eq!(sim.control("GET", far, "")["existed"], false);
}

#[test]
fn a_reader_that_does_not_read_is_cut_and_memory_stays() {
    let mut cfg = small(Venue::Coinbase, &["BTC-USD"]);
    cfg.queue_mib_max = 1;
    cfg.coinbase.deep_levels = 30_000;
    let sim = Sim::start(cfg);
    let mut tcp = raw_ws(sim.plain(Venue::Coinbase), "/");
    // One masked subscribe by hand (mask 0), then not one read: the snapshot alone is some 8 MB.
    let text = br#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text);
    std::io::Write::write_all(&mut tcp, &frame).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let status = sim.control("GET", "/status", "");
    assert_eq!(status["slow_readers_cut_total"], 1);
    assert_eq!(status["connections"], json!([]));
    let mut sink = Vec::new();
    let _ = tcp.read_to_end(&mut sink);
}
