//! Kraken's private side as a client sees it: API-Sign, nonces, tokens, trading, executions, counters.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/sign.rs"]
mod sign;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Sim, dec, http, small};
use serde_json::{Value, json};
use sign::{KRAKEN_KEY, api_sign, keys, kraken_secret, now_ms};
use tandem_sim::config::Venue;
use tandem_sim::{Keys, SimConfig};

const V: Venue = Venue::Kraken;
static NONCE: AtomicU64 = AtomicU64::new(1);

fn config() -> SimConfig {
    let mut cfg = small(V, &["BTC/USD", "ETH/USD", "ETH/BTC"]);
    cfg.keys = Keys::from_json(&keys().to_string()).unwrap();
    cfg.market.dislocation_every_ms = 0;
    cfg.kraken.calls_max = 1_000.0;
    cfg
}

fn raw(sim: &Sim, key: &str, method: &str, nonce: &str, body: &str) -> Value {
    let path = format!("/0/private/{method}");
    let sign = api_sign(&path, nonce, body, &kraken_secret());
    let headers = format!(
        "API-Key: {key}\r\nAPI-Sign: {sign}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    );
    http(sim.plain(V), "POST", &path, &headers, body).json()
}

/// One signed call of the main client.
fn call(sim: &Sim, method: &str, params: &str) -> Value {
    let nonce = (now_ms() * 1_000 + NONCE.fetch_add(1, Ordering::Relaxed)).to_string();
    let body = format!("nonce={nonce}&{params}");
    raw(sim, KRAKEN_KEY, method, &nonce, body.trim_end_matches('&'))
}

fn error(value: &Value) -> &str {
    value["error"][0].as_str().unwrap_or("")
}

fn token(sim: &Sim) -> String {
    call(sim, "GetWebSocketsToken", "")["result"]["token"].as_str().unwrap().to_owned()
}

fn top(sim: &Sim, symbol: &str, side: &str, rank: usize) -> String {
    let book = sim.control("GET", &format!("/truth/book?venue=kraken&symbol={symbol}"), "");
    book[side][rank][0].as_str().unwrap().to_owned()
}

fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn session(sim: &Sim) -> (Client, String) {
    let mut client = sim.ws(V, "/v2", false);
    let token = token(sim);
    client.send(&json!({"method": "subscribe", "req_id": 1, "params":
        {"channel": "executions", "token": token, "ratecounter": true}}));
    let ack = client.until(|v| v["method"] == "subscribe");
    assert_eq!(ack["success"], true, "{ack}");
    assert!(ack["result"]["maxratecount"].is_number());
    let snapshot = client.until(|v| v["channel"] == "executions");
    assert_eq!((&snapshot["type"], &snapshot["sequence"]), (&json!("snapshot"), &json!(1)));
    (client, token)
}

fn reply(client: &mut Client, id: u64, method: &str, params: Value) -> Value {
    client.send(&json!({"method": method, "params": params, "req_id": id}));
    client.until(|v| v["req_id"] == id)
}

#[test]
fn signatures_and_nonces_are_checked() {
    let sim = Sim::start(config());
    let balance = call(&sim, "Balance", "");
    assert_eq!(balance["result"]["ZUSD"], "100000.0000", "{balance}");
    assert_eq!(balance["result"]["XXBT"], "2.0000000000");
    let body = "nonce=5";
    assert_eq!(error(&raw(&sim, KRAKEN_KEY, "Balance", "5", body)), "EAPI:Invalid nonce");
    assert_eq!(error(&raw(&sim, "Nobody", "Balance", "5", body)), "EAPI:Invalid key");
    let far = (now_ms() * 10_000).to_string();
    assert_eq!(error(&raw(&sim, KRAKEN_KEY, "Balance", &far, "nonce=6")), "EAPI:Invalid signature");
    // A window of ten lets calls overtake each other, each nonce once.
    let other = |n: u64| {
        let text = n.to_string();
        error(&raw(&sim, "OtherKraken", "Balance", &text, &format!("nonce={n}"))).to_owned()
    };
    assert_eq!(other(1_000), "");
    assert_eq!(other(995), "");
    assert_eq!(other(995), "EAPI:Invalid nonce");
    assert_eq!(other(980), "EAPI:Invalid nonce");
    let nonce = (now_ms() * 1_000 + 999_000).to_string();
    let body = format!("{{\"nonce\": \"{nonce}\", \"txid\": \"OABCDE-12345-FGHIJK\"}}");
    let sign = api_sign("/0/private/CancelOrder", &nonce, &body, &kraken_secret());
    let headers =
        format!("API-Key: {KRAKEN_KEY}\r\nAPI-Sign: {sign}\r\nContent-Type: application/json\r\n");
    let cancel = http(sim.plain(V), "POST", "/0/private/CancelOrder", &headers, &body).json();
    assert_eq!(error(&cancel), "EOrder:Unknown order", "JSON bodies are signed alike: {cancel}");
    let info = call(&sim, "GetApiKeyInfo", "");
    assert_eq!(error(&info), "EAPI:Invalid nonce", "the key is ahead of the clock now");
}

#[test]
fn permissions_and_fees_are_told() {
    let sim = Sim::start(config());
    let info = call(&sim, "GetApiKeyInfo", "");
    let list = info["result"]["permissions"].as_array().unwrap();
    assert!(list.contains(&json!("modify-trades")) && !list.contains(&json!("withdraw-funds")));
    assert_eq!(info["result"]["ip_allowlist"], json!(["127.0.0.1"]));
    let warden = raw(&sim, "WardenKraken", "GetApiKeyInfo", "7", "nonce=7");
    let list = warden["result"]["permissions"].as_array().unwrap();
    assert!(list.contains(&json!("withdraw-funds")), "{warden}");
    let volume = call(&sim, "TradeVolume", "pair=XBTUSD");
    assert_eq!(volume["result"]["fees"]["XXBTZUSD"]["fee"], "0.4000");
    assert_eq!(volume["result"]["fees_maker"]["XXBTZUSD"]["fee"], "0.2500");
    let pairs = sim.get(V, "/0/public/AssetPairs?pair=XBTUSD").json();
    assert_eq!(pairs["result"]["XXBTZUSD"]["fees"][0], json!([0, 0.4]));
    let none = sim.get(V, "/0/public/AssetPairs?aclass_base=tokenized_asset").json();
    assert_eq!(none["result"], json!({}));
    sim.control(
        "POST",
        "/account",
        &json!({"action": "permissions", "client": "main", "permissions": {"trade": false}})
            .to_string(),
    );
    let refused =
        call(&sim, "AddOrder", "pair=XBTUSD&type=buy&ordertype=limit&price=1000&volume=1");
    assert_eq!(error(&refused), "EGeneral:Permission denied");
}

#[test]
fn rest_orders_live_and_die() {
    let sim = Sim::start(config());
    let price = top(&sim, "BTC/USD", "asks", 3);
    let added = call(
        &sim,
        "AddOrder",
        &format!(
            "pair=XBTUSD&type=buy&ordertype=limit&price={price}&volume=0.01&timeinforce=IOC&userref=7&starttm=0&validate=False&reduce_only=False&stptype=cancel-newest"
        ),
    );
    assert_eq!(added["error"], json!([]), "{added}");
    let txid = added["result"]["txid"][0].as_str().unwrap().to_owned();
    assert!(
        added["result"]["descr"]["order"]
            .as_str()
            .unwrap()
            .starts_with("buy 0.01000000 XBTUSD @ limit")
    );
    let got = call(&sim, "QueryOrders", &format!("txid={txid}&trades=true"));
    let order = &got["result"][&txid];
    assert_eq!((&order["status"], &order["vol_exec"]), (&json!("closed"), &json!("0.01000000")));
    assert_eq!(order["userref"], 7);
    let trades = order["trades"].as_array().unwrap();
    let history = call(&sim, "TradesHistory", "");
    assert_eq!(history["result"]["count"], trades.len());
    let trade = &history["result"]["trades"][trades[0].as_str().unwrap()];
    assert_eq!((&trade["ordertxid"], &trade["pair"]), (&json!(txid), &json!("XXBTZUSD")));
    let fee = dec(trade["fee"].as_str().unwrap()) * 1_000;
    let expected = dec(trade["cost"].as_str().unwrap()) * 4;
    assert!((fee - expected).abs() < dec("0.2"), "40 basis points: {trade}");
    let empty = call(&sim, "TradesHistory", "ofs=50");
    assert_eq!(empty["result"]["trades"], json!({}), "a page behind the end is empty");

    let low = price.split('.').next().unwrap().parse::<u64>().unwrap() - 500;
    let rest = call(
        &sim,
        "AddOrder",
        &format!("pair=BTC/USD&type=buy&ordertype=limit&price={low}&volume=0.5&cl_ord_id=abc-1"),
    );
    let txid = rest["result"]["txid"][0].as_str().unwrap().to_owned();
    let open = call(&sim, "OpenOrders", "");
    assert_eq!(open["result"]["open"][&txid]["cl_ord_id"], "abc-1");
    let balances = call(&sim, "BalanceEx", "");
    assert!(dec(balances["result"]["ZUSD"]["hold_trade"].as_str().unwrap()) > dec("30000"));
    let amended = call(&sim, "AmendOrder", "cl_ord_id=abc-1&order_qty=0.4");
    assert!(amended["result"]["amend_id"].is_string(), "{amended}");
    let cancel = call(&sim, "CancelOrder", &format!("txid={txid}"));
    assert_eq!(cancel["result"]["count"], 1);
    assert_eq!(error(&call(&sim, "CancelOrder", &format!("txid={txid}"))), "EOrder:Unknown order");
    let closed = call(&sim, "ClosedOrders", "");
    let row = &closed["result"]["closed"][&txid];
    assert_eq!((&row["status"], &row["reason"]), (&json!("canceled"), &json!("User requested")));
    assert_eq!(sim.control("GET", "/truth/accounts", "")["balanced"], true);
}

#[test]
fn refusals_have_their_texts() {
    let mut cfg = config();
    cfg.kraken.engine_max = 12.0;
    cfg.kraken.engine_decay = 0.01;
    let sim = Sim::start(cfg);
    let order = |pair: &str, more: &str| {
        let value = call(&sim, "AddOrder", &format!("pair={pair}&type=buy&ordertype=limit&{more}"));
        error(&value).to_owned()
    };
    assert_eq!(order("XBTUSD", "price=60000&volume=50"), "EOrder:Insufficient funds");
    assert_eq!(order("XBTUSD", "price=60000.05&volume=1"), "EOrder:Tick size check failed");
    assert_eq!(order("XBTUSD", "price=60000&volume=0.00001"), "EOrder:Order minimum not met");
    assert_eq!(order("NOPE", "price=60000&volume=1"), "EQuery:Unknown asset pair");
    assert_eq!(
        order("XBTUSD", "price=60000&volume=1&timeinforce=FOK"),
        "EGeneral:Invalid arguments:timeinforce"
    );
    assert_eq!(order("XBTUSD", "price=1&volume=0.001"), "EOrder:Cost minimum not met");
    assert_eq!(
        order("XBTUSD", "price=60000&volume=1&deadline=2020-01-01T00:00:00Z"),
        "EService:Deadline elapsed"
    );
    assert_eq!(error(&call(&sim, "Dance", "")), "EGeneral:Unknown method");
    // The counter charges refused orders too.
    let mut last = String::new();
    for _ in 0..12 {
        last = order("XBTUSD", "price=60000&volume=50");
    }
    assert_eq!(last, "EOrder:Rate limit exceeded");
    assert_eq!(order("ETHUSD", "price=1000&volume=0.01"), "", "another pair has its own");
    for mode in ["cancel_only", "post_only", "maintenance"] {
        sim.fault(json!({"kind": "maintenance", "venue": "kraken", "mode": mode, "seconds": 60}));
        let text = order("ETHUSD", "price=1000&volume=0.01");
        let expected = if mode == "maintenance" {
            "EService:Unavailable".to_owned()
        } else {
            format!("EService:Market in {mode} mode")
        };
        assert_eq!(text, expected);
        let status = sim.get(V, "/0/public/SystemStatus").json();
        assert_eq!(status["result"]["status"], mode);
        assert_eq!(call(&sim, "CancelAll", "")["error"], json!([]), "cancels go on");
        sim.control("POST", "/clear", "");
    }
    let mut cfg = config();
    cfg.kraken.calls_max = 3.0;
    let sim = Sim::start(cfg);
    let texts: Vec<String> =
        (0..5).map(|_| error(&call(&sim, "OpenOrders", "")).to_owned()).collect();
    assert_eq!(texts.last().unwrap(), "EAPI:Rate limit exceeded");
}

#[test]
fn websocket_trading_and_executions() {
    let sim = Sim::start(config());
    let (mut client, token) = session(&sim);
    client.send(&json!({"method": "subscribe", "params": {"channel": "balances", "token": token}}));
    let snapshot = client.until(|v| v["channel"] == "balances");
    assert_eq!(snapshot["sequence"], 1);
    let price = top(&sim, "BTC/USD", "asks", 4);
    let add = json!({"order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 0.02,
        "limit_price": number(&price), "time_in_force": "IOC", "cl_ord_id": "c-1", "token": token});
    client.send(&json!({"method": "add_order", "params": add, "req_id": 7}));
    let (mut sequence, mut execs, mut ledger, mut ack) = (1, Vec::new(), Vec::new(), Value::Null);
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end
        && (ack.is_null() || execs.last() != Some(&"filled".to_owned()) || ledger.len() < 2)
    {
        let value = client.json();
        if value["req_id"] == 7 {
            ack = value;
        } else if value["channel"] == "executions" {
            sequence += 1;
            assert_eq!(value["sequence"], sequence, "no holes");
            assert_eq!(value["data"].as_array().unwrap().len(), 1);
            let row = &value["data"][0];
            assert!(row["ratecount"].is_number());
            execs.push(row["exec_type"].as_str().unwrap().to_owned());
            if execs.last().unwrap() == "trade" {
                assert_eq!(row["order_status"], "partially_filled");
                assert_eq!(row["fees"][0]["asset"], "USD");
                assert_eq!(row["liquidity_ind"], "t");
            }
        } else if value["channel"] == "balances" {
            ledger.push(value["data"][0].clone());
        }
    }
    assert_eq!(
        (&ack["success"], &ack["result"]["cl_ord_id"]),
        (&json!(true), &json!("c-1")),
        "{ack}"
    );
    assert_eq!(execs[..2], ["pending_new", "new"]);
    assert_eq!(ledger[0]["ref_id"], ledger[1]["ref_id"], "two legs, one reference");

    let low =
        number(&format!("{}.0", price.split('.').next().unwrap().parse::<u64>().unwrap() - 700));
    let rest = |id: &str| {
        json!({"order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 0.1,
        "limit_price": low, "cl_ord_id": id, "token": token})
    };
    assert_eq!(reply(&mut client, 8, "add_order", rest("r-1"))["success"], true);
    assert_eq!(
        reply(&mut client, 9, "add_order", rest("r-1"))["success"],
        false,
        "unique among open orders"
    );
    assert_eq!(reply(&mut client, 10, "add_order", rest("r-2"))["success"], true);
    let amended = reply(
        &mut client,
        11,
        "amend_order",
        json!({"cl_ord_id": "r-1", "order_qty": 0.05, "token": token}),
    );
    assert!(amended["result"]["amend_id"].is_string(), "{amended}");
    client.send(&json!({"method": "cancel_order", "params": {"cl_ord_id": ["r-1", "r-2", "r-3"], "token": token}, "req_id": 12}));
    let replies: Vec<bool> =
        (0..3).map(|_| client.until(|v| v["req_id"] == 12)["success"].as_bool().unwrap()).collect();
    assert_eq!(replies, [true, true, false], "one reply an order");
    let batch = json!({"symbol": "BTC/USD", "orders": [rest("b-1"), rest("b-2")], "token": token});
    let placed = reply(&mut client, 13, "batch_add", batch);
    assert_eq!(placed["result"].as_array().unwrap().len(), 2, "{placed}");
    assert_eq!(reply(&mut client, 14, "cancel_all", json!({"token": token}))["result"]["count"], 2);
    let post = json!({"order_type": "limit", "side": "buy", "symbol": "BTC/USD", "order_qty": 0.001, "post_only": true,
        "limit_price": number(&price), "cl_ord_id": "p-1", "token": token});
    client.send(&json!({"method": "add_order", "params": post, "req_id": 15}));
    let ended = client
        .until(|v| v["data"][0]["exec_type"] == "canceled" && v["data"][0]["cl_ord_id"] == "p-1");
    assert_eq!(ended["data"][0]["reason"], "Post only order");
    let wrong = reply(&mut client, 16, "add_order", json!({"token": "nonsense"}));
    assert_eq!(wrong["error"], "ESession:Invalid session");
    sim.fault(json!({"kind": "session_expiry", "venue": "kraken"}));
    let expired = reply(&mut client, 17, "cancel_all", json!({"token": token}));
    assert_eq!(expired["error"], "ESession:Invalid session");
}

#[test]
fn the_dead_man_switch_cancels_once() {
    let sim = Sim::start(config());
    let (mut client, token) = session(&sim);
    let low = number(&format!(
        "{}.0",
        top(&sim, "ETH/USD", "bids", 0).split('.').next().unwrap().parse::<u64>().unwrap() - 50
    ));
    let rest = json!({"order_type": "limit", "side": "buy", "symbol": "ETH/USD", "order_qty": 1, "limit_price": low, "cl_ord_id": "d", "token": token});
    assert_eq!(reply(&mut client, 2, "add_order", rest.clone())["success"], true);
    let armed =
        reply(&mut client, 3, "cancel_all_orders_after", json!({"timeout": 1, "token": token}));
    assert!(armed["result"]["triggerTime"].as_str().unwrap().len() > 5);
    let ended = client.until(|v| v["data"][0]["exec_type"] == "canceled");
    assert_eq!(ended["data"][0]["reason"], "Dead man switch");
    assert_eq!(reply(&mut client, 4, "add_order", rest)["success"], true);
    std::thread::sleep(Duration::from_millis(1_500));
    let open = call(&sim, "OpenOrders", "");
    assert_eq!(open["result"]["open"].as_object().unwrap().len(), 1, "it fires once");
    let disarmed = call(&sim, "CancelAllOrdersAfter", "timeout=0");
    assert_eq!(disarmed["result"]["triggerTime"], "0");
}

#[test]
fn a_rule_that_changes_is_pushed() {
    let sim = Sim::start(config());
    let mut client = sim.ws(V, "/v2", false);
    client.send(&json!({"method": "subscribe", "params": {"channel": "instrument"}}));
    client.until(|v| v["channel"] == "instrument");
    sim.control("POST", "/account", &json!({"action": "rules", "venue": "kraken", "symbol": "BTC/USD", "tick": "0.5", "lot": "0.0001"}).to_string());
    let update = client.until(|v| v["channel"] == "instrument" && v["type"] == "update");
    let pair = &update["data"]["pairs"][0];
    assert_eq!((&pair["price_increment"], &pair["qty_increment"]), (&json!(0.5), &json!(0.0001)));
    let pairs = sim.get(V, "/0/public/AssetPairs?pair=XBTUSD").json();
    assert_eq!(pairs["result"]["XXBTZUSD"]["tick_size"], "0.5");
    let refused =
        call(&sim, "AddOrder", "pair=XBTUSD&type=buy&ordertype=limit&price=60000.1&volume=0.01");
    assert_eq!(error(&refused), "EOrder:Tick size check failed");
}
