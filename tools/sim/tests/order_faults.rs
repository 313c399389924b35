//! Every fault of orders and accounts: what the client sees, and what is true.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/sign.rs"]
mod sign;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Client, Got, Sim, dec, http, small};
use serde_json::{Value, json};
use sign::{
    CB_KEY, ED_KEY, HMAC_KEY, HMAC_SECRET, KRAKEN_KEY, api_sign, ed25519, hex_hmac_sha256, jwt,
    keys, kraken_secret, now_ms,
};
use tandem_sim::config::Venue;
use tandem_sim::{Keys, SimConfig};

const V: Venue = Venue::Binance;

fn config() -> SimConfig {
    let mut cfg = small(V, &["BTCUSDT", "ETHUSDT"]);
    cfg.keys = Keys::from_json(&keys().to_string()).unwrap();
    cfg.market.dislocation_every_ms = 0;
    cfg.binance.orders_per_10s = 100_000;
    cfg.binance.weight_per_min = 1_000_000;
    cfg
}

fn session(sim: &Sim) -> Client {
    let mut client = sim.ws(V, "/ws-api/v3", false);
    let text = format!("apiKey={ED_KEY}&timestamp={}", now_ms());
    let stamp = text.rsplit('=').next().unwrap().parse::<u64>().unwrap();
    client.send(&json!({"id": "l", "method": "session.logon",
        "params": {"apiKey": ED_KEY, "timestamp": stamp, "signature": ed25519(&text)}}));
    assert_eq!(client.until(|v| v["id"] == "l")["status"], 200);
    client.send(&json!({"id": "s", "method": "userDataStream.subscribe"}));
    assert_eq!(client.until(|v| v["id"] == "s")["status"], 200);
    client
}

fn price(sim: &Sim, away: i64) -> String {
    let book = sim.control("GET", "/truth/book?venue=binance&symbol=BTCUSDT", "");
    let (side, rank) = if away >= 0 { ("asks", 4) } else { ("bids", 0) };
    let text = book[side][rank][0].as_str().unwrap();
    let whole: i64 = text.split('.').next().unwrap().parse().unwrap();
    format!("{}.00", whole + away)
}

fn place(client: &mut Client, id: &str, price: &str, qty: &str, tif: &str) {
    client.send(&json!({"id": id, "method": "order.place", "params": {
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": tif, "price": price,
        "quantity": qty, "newClientOrderId": id, "timestamp": now_ms()}}));
}

fn ask(client: &mut Client, id: &str, method: &str, params: Value) -> Value {
    client.send(&json!({"id": id, "method": method, "params": params}));
    client.until(|v| v["id"] == id)
}

fn status(client: &mut Client, order: &str) -> Value {
    let params = json!({"symbol": "BTCUSDT", "origClientOrderId": order, "timestamp": now_ms()});
    ask(client, &format!("q-{order}"), "order.status", params)
}

/// The truth about one client id.
fn truth(sim: &Sim, id: &str) -> Option<Value> {
    let all = sim.control("GET", "/truth/orders?venue=binance", "");
    all["orders"].as_array().unwrap().iter().find(|o| o["client_id"] == id).cloned()
}

fn fault(sim: &Sim, kind: &str, more: Value) {
    let mut body = json!({"kind": kind, "venue": "binance"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    sim.fault(body);
}

fn replies(client: &mut Client, id: &str, wait: Duration) -> Vec<Value> {
    let texts = client.texts(wait);
    texts
        .iter()
        .map(|t| serde_json::from_str::<Value>(t).unwrap())
        .filter(|v| v["id"] == id)
        .collect()
}

#[test]
fn lost_and_ambiguous_answers_over_websocket() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    let wait = Duration::from_millis(150);
    fault(&sim, "order_lost", json!({}));
    place(&mut client, "a", &price(&sim, 0), "0.01", "IOC");
    assert!(replies(&mut client, "a", wait).is_empty());
    assert_eq!(truth(&sim, "a"), None, "not executed");
    fault(&sim, "reply_lost", json!({}));
    place(&mut client, "b", &price(&sim, 0), "0.01", "IOC");
    assert!(replies(&mut client, "b", wait).is_empty());
    assert_eq!(truth(&sim, "b").unwrap()["status"], "filled", "executed");
    assert_eq!(status(&mut client, "b")["result"]["status"], "FILLED");
    assert_eq!(status(&mut client, "a")["error"]["code"], -2013);
    for (kind, http_status, code, executed) in
        [("error_before", 503, -1008, false), ("error_after", 504, -1007, true)]
    {
        fault(&sim, kind, json!({}));
        place(&mut client, kind, &price(&sim, 0), "0.01", "IOC");
        let reply = client.until(|v| v["id"] == kind);
        assert_eq!(
            (&reply["status"], &reply["error"]["code"]),
            (&json!(http_status), &json!(code))
        );
        assert_eq!(truth(&sim, kind).is_some(), executed);
    }
    for (kind, executed) in [("drop_before", false), ("drop_after", true)] {
        let mut client = session(&sim);
        fault(&sim, kind, json!({}));
        place(&mut client, kind, &price(&sim, 0), "0.01", "IOC");
        assert!(matches!(client.end(Duration::from_secs(2)), Got::Broken(_)), "{kind}");
        assert_eq!(truth(&sim, kind).is_some(), executed, "{kind}");
    }
}

/// A REST order over a socket of its own; `None` if nothing came.
fn rest_order(sim: &Sim, id: &str, price: &str) -> Option<(u16, String)> {
    let payload = format!(
        "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOC&quantity=0.01&price={price}&newClientOrderId={id}&timestamp={}",
        now_ms()
    );
    let signature = hex_hmac_sha256(HMAC_SECRET, &payload);
    let mut tcp = TcpStream::connect(sim.plain(V)).unwrap();
    tcp.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let request = format!(
        "POST /api/v3/order?{payload}&signature={signature} HTTP/1.1\r\nHost: x\r\nX-MBX-APIKEY: {HMAC_KEY}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    tcp.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = tcp.read_to_string(&mut text);
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text))
}

#[test]
fn lost_and_ambiguous_answers_over_rest() {
    let sim = Sim::start(config());
    for (kind, seen, executed) in [
        ("order_lost", None, false),
        ("reply_lost", None, true),
        ("drop_before", None, false),
        ("drop_after", None, true),
        ("error_before", Some(503), false),
        ("error_after", Some(504), true),
        ("insufficient_funds", Some(400), false),
        ("auth", Some(401), false),
        ("rate_limit", Some(429), false),
    ] {
        fault(&sim, kind, json!({"count": 1, "request": "new"}));
        let reply = rest_order(&sim, kind, &price(&sim, 0));
        assert_eq!(reply.map(|r| r.0), seen, "{kind}");
        assert_eq!(truth(&sim, kind).is_some(), executed, "{kind}");
    }
    for (code, http_status) in [
        ("-1013 Filter failure: LOT_SIZE", 400),
        ("-1003", 429),
        ("-1021", 400),
        ("-2015", 401),
        ("-1007", 504),
    ] {
        fault(&sim, "reject", json!({"error": code}));
        let (seen, body) = rest_order(&sim, "r", &price(&sim, 0)).unwrap();
        assert_eq!(seen, http_status);
        assert!(body.contains(&format!("\"code\":{}", code.split(' ').next().unwrap())), "{body}");
    }
    assert_eq!(truth(&sim, "r"), None);
    let limits = sim.control("GET", "/truth/limits?account=main", "");
    assert!(limits["venues"]["binance"]["rate_limited_total"].as_u64().unwrap() >= 1);
}

#[test]
fn late_execution_meets_the_window() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    fault(&sim, "late", json!({"ms": 300}));
    let began = Instant::now();
    place(&mut client, "late", &price(&sim, 0), "0.01", "IOC");
    let reply = client.until(|v| v["id"] == "late");
    assert!(began.elapsed() >= Duration::from_millis(290));
    assert_eq!(reply["result"]["status"], "FILLED");
    let order = truth(&sim, "late").unwrap();
    let waited = order["accepted_ns"].as_u64().unwrap() - order["arrived_ns"].as_u64().unwrap();
    assert!(waited >= 290_000_000, "arrival and execution are told apart: {waited}");
    fault(&sim, "late", json!({"ms": 400}));
    client.send(&json!({"id": "w", "method": "order.place", "params": {
        "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "IOC", "recvWindow": 200,
        "price": price(&sim, 0), "quantity": "0.01", "newClientOrderId": "w", "timestamp": now_ms()}}));
    assert_eq!(client.until(|v| v["id"] == "w")["error"]["code"], -1021);
    assert_eq!(truth(&sim, "w"), None, "the window bounds how late an order can live");
    fault(&sim, "slow_reply", json!({"ms": 250, "count": 1}));
    let began = Instant::now();
    place(&mut client, "slow", &price(&sim, 0), "0.01", "IOC");
    let reply = client.until(|v| v["id"] == "slow" || v["event"]["c"] == "slow");
    assert!(reply["event"].is_object(), "the event comes before the slow reply");
    client.until(|v| v["id"] == "slow");
    assert!(began.elapsed() >= Duration::from_millis(240));
}

#[test]
fn matching_faults_are_in_the_truth() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    let mut order = |kind: &str, more: Value| {
        fault(&sim, kind, more);
        place(&mut client, kind, &price(&sim, 0), "0.01", "IOC");
        (client.until(|v| v["id"] == kind), truth(&sim, kind).unwrap())
    };
    let (reply, true_order) = order("partial", json!({"fraction": 0.3}));
    assert_eq!(
        (&reply["result"]["status"], &reply["result"]["executedQty"]),
        (&json!("EXPIRED"), &json!("0.00300000"))
    );
    assert_eq!(true_order["filled"], "0.003");
    let (reply, _) = order("no_liquidity", json!({}));
    assert_eq!(
        (&reply["result"]["status"], &reply["result"]["executedQty"]),
        (&json!("EXPIRED"), &json!("0.00000000"))
    );
    let (reply, true_order) = order("reduce", json!({"fraction": 0.5}));
    assert_eq!(reply["result"]["executedQty"], "0.00500000");
    assert_eq!(true_order["prevented"], "0.005");
    let (reply, _) = order("overfill", json!({"fraction": 0.5}));
    assert_eq!(reply["result"]["executedQty"], "0.01500000", "more than asked");
    let limit = dec(&price(&sim, 0));
    let (reply, _) = order("worse_price", json!({"bps": 100}));
    assert!(
        dec(reply["result"]["fills"][0]["price"].as_str().unwrap()) > limit,
        "worse than the limit"
    );
    assert_eq!(sim.control("GET", "/truth/accounts", "")["balanced"], true);
}

#[test]
fn hidden_orders_and_fills_after_a_cancel() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    fault(&sim, "hidden", json!({"ms": 400}));
    place(&mut client, "h", &price(&sim, -700), "0.01", "GTC");
    assert_eq!(client.until(|v| v["id"] == "h")["status"], 200);
    assert_eq!(status(&mut client, "h")["error"]["code"], -2013);
    let open = ask(&mut client, "o", "openOrders.status", json!({"timestamp": now_ms()}));
    assert_eq!(open["result"].as_array().unwrap().len(), 0);
    std::thread::sleep(Duration::from_millis(450));
    assert_eq!(status(&mut client, "h")["result"]["status"], "NEW");
    fault(&sim, "fill_after_cancel", json!({"ms": 150}));
    let cancel = json!({"symbol": "BTCUSDT", "origClientOrderId": "h", "timestamp": now_ms()});
    assert_eq!(ask(&mut client, "c", "order.cancel", cancel)["result"]["status"], "CANCELED");
    assert_eq!(status(&mut client, "h")["result"]["status"], "CANCELED");
    let fill = client.until(|v| v["event"]["x"] == "TRADE");
    assert_eq!((&fill["event"]["c"], &fill["event"]["X"]), (&json!("h"), &json!("FILLED")));
    assert_eq!(truth(&sim, "h").unwrap()["status"], "filled");
}

#[test]
fn user_streams_duplicate_vanish_freeze_lag_and_replay() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    let events = |client: &mut Client, id: &str, wait: u64| -> Vec<String> {
        place(client, id, &price(&sim, 0), "0.01", "IOC");
        let texts = client.texts(Duration::from_millis(wait));
        assert!(
            texts.iter().any(|t| t.contains(&format!("\"id\":\"{id}\""))),
            "the reply comes: {id}"
        );
        texts.into_iter().filter(|t| t.contains("executionReport")).collect()
    };
    let usual = events(&mut client, "u", 200);
    assert!(usual.len() >= 2);
    fault(&sim, "duplicate", json!({"class": "user", "seconds": 1}));
    let twice = events(&mut client, "d", 200);
    assert_eq!(twice.len() % 2, 0);
    assert_eq!(twice[0], twice[1]);
    sim.control("POST", "/clear", "");
    fault(&sim, "drop", json!({"class": "user", "seconds": 5}));
    assert!(events(&mut client, "x", 200).is_empty());
    sim.control("POST", "/clear", "");
    fault(&sim, "freeze", json!({"class": "user", "mode": "hold", "seconds": 0.4}));
    assert!(events(&mut client, "f", 150).is_empty(), "frozen, while replies go on");
    let later = client.texts(Duration::from_millis(500));
    assert!(later.iter().any(|t| t.contains("\"c\":\"f\"")), "held, not lost");
    sim.control("POST", "/clear", "");
    fault(&sim, "user_delay", json!({"ms": 300, "seconds": 1}));
    assert!(events(&mut client, "l", 150).is_empty());
    assert!(client.texts(Duration::from_millis(400)).iter().any(|t| t.contains("\"c\":\"l\"")));
    sim.control("POST", "/clear", "");
    fault(&sim, "user_replay", json!({"count": 3}));
    assert_eq!(client.texts(Duration::from_millis(150)).len(), 3);
    fault(&sim, "session_expiry", json!({}));
    client.until(|v| v["event"]["e"] == "eventStreamTerminated");
    let refused = ask(&mut client, "e", "account.status", json!({"timestamp": now_ms()}));
    assert_ne!(refused["status"], 200);
    let mut feed = sim.ws(V, "/ws/btcusdt@bookTicker", false);
    let mut client = session(&sim);
    fault(&sim, "stream_drop", json!({"account": "main"}));
    assert!(matches!(client.end(Duration::from_secs(2)), Got::Broken(_)));
    assert!(matches!(feed.next(Duration::from_secs(1)), Got::Text(_)), "only user streams end");
}

#[test]
fn balances_lie_and_accounts_are_touched_from_outside() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    let usdt = |client: &mut Client, id: &str| -> i128 {
        let reply = ask(client, id, "account.status", json!({"timestamp": now_ms()}));
        let list = reply["result"]["balances"].as_array().unwrap().clone();
        dec(list.iter().find(|b| b["asset"] == "USDT").unwrap()["free"].as_str().unwrap())
    };
    fault(&sim, "wrong_balances", json!({"mode": "zero", "seconds": 20}));
    assert_eq!(usdt(&mut client, "1"), 0);
    sim.control("POST", "/clear", "");
    fault(&sim, "wrong_balances", json!({"mode": "stale", "seconds": 20}));
    place(&mut client, "b", &price(&sim, 0), "0.01", "IOC");
    client.until(|v| v["id"] == "b");
    assert_eq!(usdt(&mut client, "2"), dec("100000"), "as they were");
    sim.control("POST", "/clear", "");
    assert!(usdt(&mut client, "3") < dec("99500"));
    let act = |body: Value| sim.control("POST", "/account", &body.to_string());
    act(
        json!({"action": "withdraw", "account": "main", "venue": "binance", "asset": "USDT", "amount": "1000"}),
    );
    let manual = act(
        json!({"action": "order", "account": "main", "venue": "binance", "symbol": "BTCUSDT", "side": "buy", "qty": "0.02", "price": price(&sim, 0), "tif": "ioc"}),
    );
    assert_eq!(manual["status"], "filled");
    let all = sim.control("GET", "/truth/orders?venue=binance&account=main", "");
    assert!(all["orders"].as_array().unwrap().iter().any(|o| o["foreign"] == true));
    act(
        json!({"action": "fees", "account": "main", "venue": "binance", "taker_ppm": 750, "asset": "BNB"}),
    );
    act(
        json!({"action": "deposit", "account": "main", "venue": "binance", "asset": "BNB", "amount": "5"}),
    );
    place(&mut client, "bnb", &price(&sim, 0), "0.01", "IOC");
    let reply = client.until(|v| v["id"] == "bnb");
    assert_eq!(reply["result"]["fills"][0]["commissionAsset"], "BNB");
    let fills = sim.control("GET", "/truth/fills?venue=binance", "");
    let count = fills["fills"].as_array().unwrap().len();
    let page = sim.control("GET", "/truth/fills?venue=binance&limit=1&after=0", "");
    assert_eq!((&page["fills"][0]["seq"], &page["more"]), (&json!(1), &json!(count > 2)));
    act(json!({"action": "bust", "fill": 0}));
    client.until(|v| v["event"]["e"] == "balanceUpdate");
    let accounts = sim.control("GET", "/truth/accounts", "");
    assert_eq!(accounts["balanced"], true);
    assert!(accounts["accounts"][0]["external"]["USDT"].as_str().is_some());
}

#[test]
fn chaos_never_unbalances_the_books_and_every_order_has_one_truth() {
    let mut cfg = config();
    cfg.binance.connects_per_5min = 100_000;
    let sim = Sim::start(cfg);
    fault(&sim, "order_chaos", json!({"seed": 5, "p": 0.3}));
    let mut client = session(&sim);
    let price = price(&sim, 0);
    let (mut sent, mut answered) = (0, 0);
    for n in 0..2_000 {
        place(&mut client, &format!("k{n}"), &price, "0.0001", "IOC");
        sent += 1;
        // Chaos resets connections too.
        if n % 50 == 49 {
            match client.next(Duration::from_millis(1)) {
                Got::Broken(_) | Got::Close(..) => client = session(&sim),
                Got::Text(_) => answered += 1,
                Got::Nothing => {}
            }
        }
        while let Got::Text(_) = client.next(Duration::from_micros(200)) {
            answered += 1;
        }
    }
    assert!(answered > 500, "{answered} of {sent}");
    std::thread::sleep(Duration::from_secs(3));
    let accounts = sim.control("GET", "/truth/accounts", "");
    assert_eq!(accounts["balanced"], true);
    let (mut after, mut ids) = (None, std::collections::BTreeSet::new());
    loop {
        let from = after.map_or(String::new(), |a: u64| format!("&after={a}"));
        let page = sim.control("GET", &format!("/truth/orders?venue=binance&limit=500{from}"), "");
        for order in page["orders"].as_array().unwrap() {
            assert!(ids.insert(order["client_id"].as_str().unwrap().to_owned()), "one order an id");
            after = order["seq"].as_u64();
        }
        if page["more"] == false {
            break;
        }
    }
    assert!(ids.len() > 200 && ids.len() < 2_000, "{} executed", ids.len());
}

#[test]
fn the_other_venues_fail_in_their_own_words() {
    let mut cfg = SimConfig::demo(3);
    cfg.keys = Keys::from_json(&keys().to_string()).unwrap();
    cfg.binance.enabled = false;
    let sim = Sim::start(cfg);
    let nonce = std::cell::Cell::new(now_ms());
    let kraken = |params: &str| -> Value {
        nonce.set(nonce.get() + 1);
        let body = format!("nonce={}&{params}", nonce.get());
        let sign =
            api_sign("/0/private/AddOrder", &nonce.get().to_string(), &body, &kraken_secret());
        let headers = format!("API-Key: {KRAKEN_KEY}\r\nAPI-Sign: {sign}\r\n");
        let reply = http(sim.plain(Venue::Kraken), "POST", "/0/private/AddOrder", &headers, &body);
        assert_eq!(reply.status, 200);
        reply.json()["error"][0].clone()
    };
    let order = "pair=XBTUSD&type=buy&ordertype=limit&price=1000&volume=0.01";
    for (kind, more, text) in [
        ("error_before", json!({}), "EService:Unavailable"),
        ("error_after", json!({}), "EService:Timeout"),
        (
            "reject",
            json!({"error": "EOrder:Scheduled orders limit exceeded"}),
            "EOrder:Scheduled orders limit exceeded",
        ),
        ("auth", json!({"count": 1}), "EAPI:Invalid key"),
        ("rate_limit", json!({"count": 1}), "EAPI:Rate limit exceeded"),
        ("insufficient_funds", json!({}), "EOrder:Insufficient funds"),
    ] {
        let mut body = json!({"kind": kind, "venue": "kraken", "account": "main"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sim.fault(body);
        assert_eq!(kraken(order), text, "{kind}");
    }
    assert_eq!(kraken(order), Value::Null, "all used up");
    let coinbase = |id: &str| {
        let token = jwt(CB_KEY, "POST localhost/api/v3/brokerage/orders", now_ms() / 1_000, false);
        let headers = format!("Authorization: Bearer {token}\r\n");
        let body = json!({"client_order_id": id, "product_id": "BTC-USD", "side": "BUY", "order_configuration": {"sor_limit_ioc": {"base_size": "0.01", "limit_price": "10000"}}});
        http(
            sim.plain(Venue::Coinbase),
            "POST",
            "/api/v3/brokerage/orders",
            &headers,
            &body.to_string(),
        )
    };
    for (kind, more, status, text) in [
        ("error_after", json!({"status": 503}), 503, "INTERNAL"),
        (
            "reject",
            json!({"error": "INVALID_PRICE_PRECISION"}),
            200,
            "PREVIEW_INVALID_PRICE_PRECISION",
        ),
        ("insufficient_funds", json!({}), 200, "INSUFFICIENT_FUND"),
        ("auth", json!({"count": 1}), 401, "Unauthorized"),
        ("rate_limit", json!({"count": 1}), 429, "rate_limit_exceeded"),
    ] {
        let mut body = json!({"kind": kind, "venue": "coinbase"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sim.fault(body);
        let reply = coinbase(kind);
        assert_eq!(reply.status, status, "{kind}");
        assert!(reply.body.contains(text), "{kind}: {}", reply.body);
    }
    let all = sim.control("GET", "/truth/orders?venue=coinbase", "");
    assert_eq!(all["orders"].as_array().unwrap().len(), 1, "error_after executed");
}

#[test]
fn certificates_last_and_urls_are_origins() {
    let dir = std::env::temp_dir().join(format!("tandem-sim-ca-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ca, key, urls) = (dir.join("ca.pem"), dir.join("ca.key"), dir.join("urls.json"));
    let start = || {
        let cfg =
            SimConfig { ca_path: Some(ca.clone()), ca_key_path: Some(key.clone()), ..config() };
        runtime.block_on(tandem_sim::start(cfg)).unwrap()
    };
    let first = start();
    let pem = std::fs::read_to_string(&ca).unwrap();
    first.write_urls(&urls, true).unwrap();
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&urls).unwrap()).unwrap();
    assert!(written["binance"]["ws_api"].as_str().unwrap().starts_with("wss://localhost:"));
    assert!(written["control"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    runtime.block_on(first.shutdown());
    let second = start();
    assert_eq!(std::fs::read_to_string(&ca).unwrap(), pem, "the same CA");
    let at = second.addresses().venue(V).unwrap().tls;
    let mut client = Client::connect(at, Some(&ca), "/ws/btcusdt@bookTicker");
    assert!(matches!(client.next(Duration::from_secs(5)), Got::Text(_)), "and it signs again");
    runtime.block_on(second.shutdown());
    std::fs::write(&key, "nonsense").unwrap();
    let third = start();
    assert_ne!(std::fs::read_to_string(&ca).unwrap(), pem, "half a pair is replaced");
    runtime.block_on(third.shutdown());
    std::fs::remove_dir_all(&dir).unwrap();
}
