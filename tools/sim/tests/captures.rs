//! Captures come back byte for byte, and the books rebuilt from them are served.
//!
//! The tape here is small and made by hand; with `TANDEM_CAPTURES` set to the folder of real captures the
//! real tapes are played too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Client, Got, Sim, dec, http};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tandem_sim::config::Venue;
use tandem_sim::{Pace, SimConfig, Source};

fn sim(files: &[PathBuf], pace: Pace) -> Sim {
    let source = Source::Captures { files: files.to_vec(), pace };
    Sim::start(SimConfig { source, ..SimConfig::demo(1) })
}

/// Recorded WebSocket messages of a file.
fn raws(file: &Path) -> Vec<String> {
    BufReader::new(MultiGzDecoder::new(std::fs::File::open(file).unwrap()))
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .filter(|line| line.get("kind").is_none())
        .map(|line| line["raw"].as_str().unwrap().to_owned())
        .collect()
}

fn subscribe_coinbase(client: &mut Client) {
    client.send(&json!({"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}));
}

fn subscribe_kraken(client: &mut Client) {
    client.send(
        &json!({"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":10}}),
    );
}

fn take(client: &mut Client, count: usize) -> Vec<String> {
    (0..count)
        .map(|i| match client.next(Duration::from_secs(10)) {
            Got::Text(text) => text,
            other => panic!("message {i}: {other:?}"),
        })
        .collect()
}

/// Writes a tape of one venue; each row is (milliseconds, place in the tape, stream, raw).
fn tape(name: &str, venue: &str, rows: &[(u64, u64, &str, &str)]) -> PathBuf {
    let path =
        std::env::temp_dir().join(format!("tandem-sim-{}-{name}.jsonl.gz", std::process::id()));
    let mut gz = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    for (ms, seq, stream, raw) in rows {
        let line = json!({"ts_recv_ns": 1_786_000_000_000_000_000u64 + ms * 1_000_000, "venue": venue,
            "stream": stream, "tape_seq": seq, "raw": raw});
        writeln!(gz, "{line}").unwrap();
    }
    gz.finish().unwrap();
    path
}

const COINBASE: [(u64, u64, &str, &str); 4] = [
    (
        0,
        2,
        "l2_data",
        r#"{"channel":"l2_data","timestamp":"t","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"t","price_level":"64780.51","new_quantity":"0.5"},{"side":"offer","event_time":"t","price_level":"64780.52","new_quantity":"0.25"},{"side":"offer","event_time":"t","price_level":"64781","new_quantity":"1"}]}]}"#,
    ),
    (
        20,
        5,
        "subscriptions",
        r#"{"channel":"subscriptions","timestamp":"t","sequence_num":1,"events":[{"subscriptions":{"level2":["BTC-USD"]}}]}"#,
    ),
    (
        60,
        6,
        "l2_data",
        r#"{"channel":"l2_data","timestamp":"t","sequence_num":2,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"offer","event_time":"t","price_level":"64780.52","new_quantity":"0"}]}]}"#,
    ),
    (
        90,
        7,
        "heartbeats",
        r#"{"channel":"heartbeats","timestamp":"t","sequence_num":3,"events":[{"current_time":"x","heartbeat_counter":41}]}"#,
    ),
];

const KRAKEN: [(u64, u64, &str, &str); 4] = [
    (
        0,
        0,
        "status",
        r#"{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":7966537425328460692}]}"#,
    ),
    (
        10,
        3,
        "subscribe",
        r#"{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"t","time_out":"t"}"#,
    ),
    (
        15,
        4,
        "book",
        r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":65000.0,"qty":2.00000000},{"price":64999.9,"qty":0.03125000},{"price":64998.7,"qty":10.00000000}],"asks":[{"price":65000.1,"qty":0.50000000},{"price":65000.2,"qty":1.25000000},{"price":65001.0,"qty":0.00010000}],"checksum":364537153,"timestamp":"t"}]}"#,
    ),
    (
        100,
        8,
        "book",
        r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":64999.5,"qty":0.70000000}],"asks":[{"price":65000.1,"qty":0.00000000}],"checksum":3997527697,"timestamp":"t"}]}"#,
    ),
];

#[test]
fn two_venues_start_together_and_come_back_byte_for_byte() {
    let files = [tape("cb", "coinbase", &COINBASE), tape("kr", "kraken", &KRAKEN)];
    let sim = sim(&files, Pace::Recorded);
    let mut kraken = sim.ws(Venue::Kraken, "/v2", false);
    subscribe_kraken(&mut kraken);
    assert_eq!(take(&mut kraken, 1), [KRAKEN[0].3], "the recorded status greets");
    assert_eq!(kraken.next(Duration::from_millis(200)), Got::Nothing, "the other venue is awaited");
    assert_eq!(sim.control("GET", "/status", "")["captures"]["state"], "waiting");
    let mut coinbase = sim.ws(Venue::Coinbase, "/", true);
    subscribe_coinbase(&mut coinbase);
    assert_eq!(take(&mut coinbase, 4), COINBASE.map(|r| r.3));
    assert_eq!(take(&mut kraken, 3), [KRAKEN[1].3, KRAKEN[2].3, KRAKEN[3].3]);
    let status = sim.control("GET", "/status", "");
    assert_eq!(status["captures"]["finished"], true);
    assert_eq!(status["captures"]["unparsed"], 0);
    // The connection lives on, and its numbers with it.
    let beat = coinbase.json();
    assert_eq!((&beat["sequence_num"], &beat["channel"]), (&json!(4), &json!("heartbeats")));
    assert_eq!(beat["events"][0]["heartbeat_counter"], 42);
    assert_eq!(kraken.json(), json!({"channel":"heartbeat"}));
    // What was sent is what is served.
    assert_eq!(sim.truth("coinbase", "BTC-USD", 5)[1], [(dec("64781"), dec("1"))]);
    assert_eq!(sim.truth("kraken", "BTC/USD", 5)[0].len(), 4);
    let at = sim.plain(Venue::Coinbase);
    let target = "/api/v3/brokerage/market/product_book?product_id=BTC-USD";
    assert_eq!(http(at, "GET", target, "", "").json()["pricebook"]["asks"][0]["price"], "64781");
    let pairs = sim.get(Venue::Kraken, "/0/public/AssetPairs").json();
    assert_eq!(pairs["result"]["XXBTZUSD"]["pair_decimals"], 1);
    // Resubscribing after the tape gives the rebuilt book with a checksum of ours, equal to the tape's.
    kraken.send(&json!({"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":10}}));
    subscribe_kraken(&mut kraken);
    let snapshot = kraken.until(|v| v["type"] == "snapshot");
    assert_eq!(snapshot["data"][0]["checksum"], 3_997_527_697u32);
    let mut late = sim.ws(Venue::Coinbase, "/", false);
    subscribe_coinbase(&mut late);
    let first = late.until(|v| v["channel"] == "l2_data");
    assert_eq!(first["events"][0]["updates"].as_array().unwrap().len(), 2);
    for file in files {
        let _ = std::fs::remove_file(file);
    }
}

#[test]
fn pace_is_kept() {
    let file = tape("pace", "coinbase", &COINBASE);
    let time = |pace| {
        let sim = sim(std::slice::from_ref(&file), pace);
        let mut client = sim.ws(Venue::Coinbase, "/", false);
        subscribe_coinbase(&mut client);
        take(&mut client, 1);
        let began = std::time::Instant::now();
        take(&mut client, 3);
        began.elapsed()
    };
    assert!(time(Pace::Recorded) > Duration::from_millis(75));
    assert!(time(Pace::Times(0.25)) > Duration::from_millis(320));
    assert!(time(Pace::Asap) < Duration::from_millis(60));
    let _ = std::fs::remove_file(file);
}

#[test]
fn real_tapes_come_back_byte_for_byte() {
    let Some(folder) = std::env::var_os("TANDEM_CAPTURES").map(PathBuf::from) else { return };
    for name in ["tape_20260809T0231Z", "tape_20260809T2014Z_trades"] {
        let files = ["coinbase", "kraken"].map(|v| folder.join(v).join(format!("{name}.jsonl.gz")));
        let sim = sim(&files, Pace::Asap);
        let mut kraken = sim.ws(Venue::Kraken, "/v2", true);
        let mut coinbase = sim.ws(Venue::Coinbase, "/", false);
        subscribe_kraken(&mut kraken);
        subscribe_coinbase(&mut coinbase);
        let (c, k) = (raws(&files[0]), raws(&files[1]));
        let (last_c, last_k) = (c.last().unwrap().clone(), c.len());
        assert!(take(&mut coinbase, c.len()) == c, "{name}: coinbase");
        assert!(take(&mut kraken, k.len()) == k, "{name}: kraken");
        let status = sim.control("GET", "/status", "");
        assert_eq!(
            (&status["captures"]["finished"], &status["captures"]["unparsed"]),
            (&json!(true), &json!(0))
        );
        assert_eq!(status["crossed_now"], json!([]));
        let last: Value = serde_json::from_str(&last_c).unwrap();
        assert_eq!(last["sequence_num"], last_k - 1);
        assert_eq!(coinbase.json()["sequence_num"], last_k);
        // The rebuilt Kraken book has the checksum of the last recorded message.
        kraken.send(
            &json!({"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}),
        );
        subscribe_kraken(&mut kraken);
        let snapshot = kraken.until(|v| v["type"] == "snapshot");
        let recorded = k.iter().rev().find(|r| r.starts_with("{\"channel\":\"book\"")).unwrap();
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        assert_eq!(snapshot["data"][0]["checksum"], recorded["data"][0]["checksum"], "{name}");
    }
}

#[test]
fn a_real_binance_recording_synchronises() {
    let Some(folder) = std::env::var_os("TANDEM_CAPTURES").map(PathBuf::from) else { return };
    let file = folder.join("binance/hftbacktest_BTCUSDT_20240808T2354Z.jsonl.gz");
    let sim = sim(std::slice::from_ref(&file), Pace::Times(200.0));
    let path = "/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade";
    let mut client = sim.ws(Venue::Binance, path, false);
    let recorded = raws(&file);
    assert!(take(&mut client, 2_000) == recorded[..2_000]);
    let snapshot = sim.get(Venue::Binance, "/api/v3/depth?symbol=BTCUSDT&limit=1000").json();
    let id = snapshot["lastUpdateId"].as_u64().unwrap();
    let mut expected = None;
    for text in take(&mut client, recorded.len() - 2_000) {
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["data"]["e"] != "depthUpdate" {
            continue;
        }
        let (first, last) =
            (value["data"]["U"].as_u64().unwrap(), value["data"]["u"].as_u64().unwrap());
        if last > id {
            assert!(expected.is_none_or(|e| e == first) && (expected.is_some() || first <= id + 1));
            expected = Some(last + 1);
        }
    }
    let book = sim.control("GET", "/truth/book?venue=binance&symbol=BTCUSDT&depth=1", "");
    assert_eq!(book["update_id"].as_u64().unwrap() + 1, expected.unwrap());
}
