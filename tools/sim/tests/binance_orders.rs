//! Binance's private side as a client sees it: signatures, orders, user data, errors, limits.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/sign.rs"]
mod sign;

use std::time::Duration;

use common::{Client, Got, Reply, Sim, dec, http, small};
use serde_json::{Value, json};
use sign::{ED_KEY, HMAC_KEY, HMAC_SECRET, ed25519, hex_hmac_sha256, keys, now_ms};
use tandem_sim::config::Venue;
use tandem_sim::{Keys, SimConfig};

const V: Venue = Venue::Binance;

fn config() -> SimConfig {
    let mut cfg = small(V, &["BTCUSDT", "ETHUSDT", "ETHBTC"]);
    cfg.keys = Keys::from_json(&keys().to_string()).unwrap();
    cfg.market.dislocation_every_ms = 0;
    cfg
}

fn signed(params: &str) -> String {
    let payload = format!("{params}&timestamp={}", now_ms());
    format!("{payload}&signature={}", hex_hmac_sha256(HMAC_SECRET, &payload))
}

/// One signed REST request of the main client.
fn call(sim: &Sim, method: &str, path: &str, params: &str) -> Reply {
    let target = format!("{path}?{}", signed(params));
    http(sim.plain(V), method, &target, &format!("X-MBX-APIKEY: {HMAC_KEY}\r\n"), "")
}

fn code(reply: &Reply) -> (u16, i64) {
    (reply.status, reply.json()["code"].as_i64().unwrap())
}

fn ask(sim: &Sim, symbol: &str) -> (String, String) {
    let book = sim.control("GET", &format!("/truth/book?venue=binance&symbol={symbol}"), "");
    let row = |side: &str, n: usize| book[side][n][0].as_str().unwrap().to_owned();
    (row("bids", 0), row("asks", 5))
}

/// A WebSocket API request, signed the documented way.
fn ws_params(mut params: Value, key: &str, sign: impl Fn(&str) -> String) -> Value {
    params["apiKey"] = json!(key);
    params["timestamp"] = json!(now_ms());
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut pairs: Vec<String> =
        params.as_object().unwrap().iter().map(|(k, v)| format!("{k}={}", text(v))).collect();
    pairs.sort();
    params["signature"] = json!(sign(&pairs.join("&")));
    params
}

fn ask_api(client: &mut Client, id: &str, method: &str, params: Value) -> Value {
    client.send(&json!({"id": id, "method": method, "params": params}));
    client.until(|v| v["id"] == id)
}

/// A logged-on connection with user data.
fn session(sim: &Sim) -> Client {
    let mut client = sim.ws(V, "/ws-api/v3", false);
    let reply = ask_api(&mut client, "l", "session.logon", ws_params(json!({}), ED_KEY, ed25519));
    assert_eq!(reply["status"], 200, "{reply}");
    let reply = ask_api(&mut client, "s", "userDataStream.subscribe", json!({}));
    assert_eq!(reply["result"]["subscriptionId"], 0, "{reply}");
    client
}

#[test]
fn only_right_signatures_and_times_pass() {
    let sim = Sim::start(config());
    let account = call(&sim, "GET", "/api/v3/account", "recvWindow=5000");
    assert_eq!(account.status, 200, "{}", account.body);
    let balances = account.json()["balances"].clone();
    let btc = balances.as_array().unwrap().iter().find(|b| b["asset"] == "BTC").unwrap();
    assert_eq!(btc["free"], "2.00000000");
    assert!(account.header("x-mbx-used-weight-1m").is_some());

    let get = |target: &str, key: &str| {
        let header =
            if key.is_empty() { String::new() } else { format!("X-MBX-APIKEY: {key}\r\n") };
        http(sim.plain(V), "GET", &format!("/api/v3/account?{target}"), &header, "")
    };
    assert_eq!(code(&get(&signed("a=1"), "")), (401, -2014));
    assert_eq!(code(&get(&signed("a=1"), "NOBODY")), (401, -2015));
    assert_eq!(code(&get("timestamp=1", HMAC_KEY)), (400, -1102));
    assert_eq!(code(&get("timestamp=1&signature=00", HMAC_KEY)), (400, -1022));
    let old = |at: u64, extra: &str| {
        let payload = format!("timestamp={at}{extra}");
        let signature = hex_hmac_sha256(HMAC_SECRET, &payload);
        get(&format!("{payload}&signature={signature}"), HMAC_KEY)
    };
    let late = old(now_ms() - 6_000, "");
    assert_eq!(code(&late), (400, -1021));
    assert!(late.body.contains("outside of the recvWindow"));
    assert_eq!(code(&old(now_ms() - 400, "&recvWindow=250.5")), (400, -1021));
    assert_eq!(old(now_ms() - 6_000, "&recvWindow=60000").status, 200);
    let ahead = old(now_ms() + 3_000, "");
    assert!(ahead.body.contains("1000ms ahead"), "{}", ahead.body);
    assert_eq!(old(now_ms() * 1_000, "").status, 200, "microseconds");
    assert_eq!(code(&old(now_ms(), "&recvWindow=60001")), (400, -1131));
    // Ed25519, percent-encoded, and a body beside the query.
    let payload = format!("timestamp={}", now_ms());
    let signature = ed25519(&payload).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let reply = get(&format!("{payload}&signature={signature}"), ED_KEY);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let (query, body) =
        ("symbol=BTCUSDT&side=BUY&type=LIMIT", "timeInForce=IOC&quantity=0.001&price=1000");
    let body = format!("{body}&timestamp={}", now_ms());
    let signature = hex_hmac_sha256(HMAC_SECRET, &format!("{query}{body}"));
    let headers = format!("X-MBX-APIKEY: {HMAC_KEY}\r\n");
    let target = format!("/api/v3/order/test?{query}");
    let reply =
        http(sim.plain(V), "POST", &target, &headers, &format!("{body}&signature={signature}"));
    assert_eq!(
        code(&reply),
        (400, -1013),
        "signed right, but a fifth of the price: {}",
        reply.body
    );
}

#[test]
fn an_order_fills_is_told_and_can_be_asked_for() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    sim.halt("binance", "ETHBTC");
    let (_, price) = ask(&sim, "BTCUSDT");
    let params = format!(
        "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOC&quantity=0.01000&price={price}&newClientOrderId=arb-1"
    );
    let reply = call(&sim, "POST", "/api/v3/order", &params);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.header("x-mbx-order-count-10s"), Some("1"));
    let counts = call(&sim, "GET", "/api/v3/rateLimit/order", "a=1").json();
    assert_eq!(counts[0]["count"], 0, "the fill earned it back");
    let order = reply.json();
    assert_eq!((&order["status"], &order["clientOrderId"]), (&json!("FILLED"), &json!("arb-1")));
    let fills = order["fills"].as_array().unwrap();
    let filled: i128 = fills.iter().map(|f| dec(f["qty"].as_str().unwrap())).sum();
    assert_eq!(filled, dec("0.01"));
    assert!(fills.iter().all(|f| f["commissionAsset"] == "BTC"));

    let event =
        |client: &mut Client| client.until(|v| v["event"]["e"] != Value::Null)["event"].clone();
    let new = event(&mut client);
    assert_eq!(
        (&new["e"], &new["x"], &new["X"]),
        (&json!("executionReport"), &json!("NEW"), &json!("NEW"))
    );
    let mut z = 0;
    for _ in fills {
        let trade = event(&mut client);
        assert_eq!(trade["x"], "TRADE");
        z += dec(trade["l"].as_str().unwrap());
        assert_eq!(dec(trade["z"].as_str().unwrap()), z, "cumulative");
        assert_eq!(trade["c"], "arb-1");
    }
    let position = event(&mut client);
    assert_eq!(position["e"], "outboundAccountPosition");
    let names: Vec<&str> =
        position["B"].as_array().unwrap().iter().map(|b| b["a"].as_str().unwrap()).collect();
    assert_eq!(names, ["BTC", "USDT"]);

    let id = order["orderId"].as_u64().unwrap();
    let got = call(&sim, "GET", "/api/v3/order", &format!("symbol=BTCUSDT&orderId={id}")).json();
    assert_eq!((&got["status"], &got["executedQty"]), (&json!("FILLED"), &json!("0.01000000")));
    let by_name = call(&sim, "GET", "/api/v3/order", "symbol=BTCUSDT&origClientOrderId=arb-1");
    assert_eq!(by_name.json()["orderId"], id);
    let trades = call(&sim, "GET", "/api/v3/myTrades", &format!("symbol=BTCUSDT&orderId={id}"));
    assert_eq!(trades.json().as_array().unwrap().len(), fills.len());
    // Truth agrees to the last digit.
    let truth = sim.control("GET", "/truth/orders?venue=binance&account=main", "");
    assert_eq!(truth["orders"][0]["client_id"], "arb-1");
    assert_eq!(truth["orders"][0]["filled"], "0.01");
    assert!(truth["orders"][0]["arrived_ns"].as_u64().unwrap() > 0);
    let accounts = sim.control("GET", "/truth/accounts", "");
    assert_eq!(accounts["balanced"], true);
    let requests = sim.control("GET", "/truth/requests?venue=binance&account=main", "");
    assert_eq!(requests["requests"][0]["new"], 1);
    let limits = sim.control("GET", "/truth/limits?account=main", "");
    assert_eq!((&limits["orders_total"], &limits["orders_per_s_max"]), (&json!(1), &json!(1)));
    assert!(dec(limits["notional_max"].as_str().unwrap()) > dec("400"));
    assert!(dec(limits["net_exposure_max"]["BTC"].as_str().unwrap()) > dec("0.0099"));
}

#[test]
fn resting_orders_show_in_the_public_book_and_cancel() {
    let sim = Sim::start(config());
    let mut client = session(&sim);
    let (bid, _) = ask(&sim, "BTCUSDT");
    let low = format!("{}.00", bid.split('.').next().unwrap().parse::<u64>().unwrap() - 900);
    let place = json!({"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
                       "price": low, "quantity": "1.23400", "newClientOrderId": "rest-1",
                       "timestamp": now_ms()});
    let reply = ask_api(&mut client, "p", "order.place", place);
    assert_eq!(
        (&reply["status"], &reply["result"]["status"]),
        (&json!(200), &json!("NEW")),
        "{reply}"
    );
    let kinds: Vec<&str> = reply["rateLimits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["rateLimitType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["ORDERS", "ORDERS", "REQUEST_WEIGHT"]);
    let depth = sim.get(V, "/api/v3/depth?symbol=BTCUSDT&limit=1000").json();
    let rows = depth["bids"].as_array().unwrap();
    let row = rows.iter().find(|r| dec(r[0].as_str().unwrap()) == dec(&low)).unwrap();
    assert!(dec(row[1].as_str().unwrap()) >= dec("1.234"), "{row}");
    let open = ask_api(
        &mut client,
        "o",
        "openOrders.status",
        json!({"symbol": "BTCUSDT", "timestamp": now_ms()}),
    );
    assert_eq!(open["result"].as_array().unwrap().len(), 1);
    let account = ask_api(&mut client, "a", "account.status", json!({"timestamp": now_ms()}));
    let usdt = account["result"]["balances"]
        .as_array()
        .unwrap()
        .iter()
        .find(|b| b["asset"] == "USDT")
        .unwrap()
        .clone();
    assert!(dec(usdt["locked"].as_str().unwrap()) > dec("50000"));
    // Twice the same open id.
    let again = json!({"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC",
                       "price": low, "quantity": "0.01", "newClientOrderId": "rest-1", "timestamp": now_ms()});
    assert_eq!(ask_api(&mut client, "d", "order.place", again)["error"]["code"], -2010);
    let cancel = json!({"symbol": "BTCUSDT", "origClientOrderId": "rest-1", "newClientOrderId": "c-1", "timestamp": now_ms()});
    client.send(&json!({"id": "c", "method": "order.cancel", "params": cancel}));
    let (mut reply, mut event) = (Value::Null, Value::Null);
    while reply.is_null() || event.is_null() {
        let message = client.json();
        if message["id"] == "c" {
            reply = message;
        } else if message["event"]["x"] == "CANCELED" {
            event = message["event"].clone();
        }
    }
    assert_eq!(
        (&reply["result"]["clientOrderId"], &reply["result"]["origClientOrderId"]),
        (&json!("c-1"), &json!("rest-1"))
    );
    assert_eq!((&event["c"], &event["C"]), (&json!("c-1"), &json!("rest-1")));
    let gone = json!({"symbol": "BTCUSDT", "origClientOrderId": "rest-1", "timestamp": now_ms()});
    assert_eq!(ask_api(&mut client, "g", "order.cancel", gone)["error"]["code"], -2011);
    let accounts = sim.control("GET", "/truth/accounts", "");
    assert_eq!(accounts["accounts"][0]["balances"]["USDT"]["held"], "0");
}

#[test]
fn refusals_have_their_documented_codes() {
    let sim = Sim::start(config());
    let (bid, _) = ask(&sim, "BTCUSDT");
    let order = |extra: &str| {
        code(&call(&sim, "POST", "/api/v3/order", &format!("symbol=BTCUSDT&{extra}")))
    };
    let at = |q: &str, p: &str| {
        order(&format!("side=BUY&type=LIMIT&timeInForce=GTC&quantity={q}&price={p}"))
    };
    assert_eq!(at("50", &bid), (400, -2010), "funds");
    assert_eq!(at("0.001", "65000.001"), (400, -1013), "tick");
    assert_eq!(at("0.000001", &bid), (400, -1013), "lot");
    assert_eq!(at("0.00001", &bid), (400, -1013), "notional");
    assert_eq!(at("0.123456789", &bid), (400, -1111), "precision");
    assert_eq!(at("1e-05", &bid), (400, -1100), "exponent");
    assert_eq!(order("side=HOLD&type=LIMIT"), (400, -1117));
    assert_eq!(order("side=BUY&type=MAYBE"), (400, -1116));
    assert_eq!(order("side=BUY&type=LIMIT&quantity=1&price=1"), (400, -1102));
    assert_eq!(order("side=BUY&type=MARKET&timeInForce=GTC&quantity=1"), (400, -1106));
    assert_eq!(order("side=BUY&type=LIMIT&timeInForce=DAY&quantity=1&price=1"), (400, -1115));
    assert_eq!(order("side=BUY&type=LIMIT_MAKER&quantity=0.001&price=70000"), (400, -2010));
    let unknown = code(&call(&sim, "POST", "/api/v3/order", "symbol=NOPE&side=BUY&type=LIMIT"));
    assert_eq!(unknown, (400, -1121));
    assert_eq!(code(&call(&sim, "GET", "/api/v3/order", "symbol=BTCUSDT&orderId=1")), (400, -2013));
    assert_eq!(
        code(&call(&sim, "DELETE", "/api/v3/order", "symbol=BTCUSDT&orderId=1")),
        (400, -2011)
    );
    assert_eq!(code(&call(&sim, "DELETE", "/api/v3/openOrders", "symbol=BTCUSDT")), (400, -2011));
    let listen = http(sim.plain(V), "POST", "/api/v3/userDataStream", "", "");
    assert_eq!(listen.status, 410);
    sim.halt("binance", "BTCUSDT");
    let halted = call(
        &sim,
        "POST",
        "/api/v3/order",
        &format!("symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.001&price={bid}"),
    );
    assert_eq!(code(&halted), (400, -1013), "{}", halted.body);
    let accounts = sim.control("GET", "/truth/orders?venue=binance", "");
    assert_eq!(accounts["orders"].as_array().unwrap().len(), 0, "nothing was accepted");
}

#[test]
fn permissions_fees_and_sessions_are_what_the_keys_say() {
    let sim = Sim::start(config());
    let restrictions = call(&sim, "GET", "/sapi/v1/account/apiRestrictions", "a=1").json();
    assert_eq!(
        (&restrictions["enableWithdrawals"], &restrictions["ipRestrict"]),
        (&json!(false), &json!(true))
    );
    let payload = format!("timestamp={}", now_ms());
    let signature = hex_hmac_sha256("warden-secret", &payload);
    let target = format!("/sapi/v1/account/apiRestrictions?{payload}&signature={signature}");
    let warden = http(sim.plain(V), "GET", &target, "X-MBX-APIKEY: WARDENBINANCE\r\n", "").json();
    assert_eq!(
        (&warden["enableWithdrawals"], &warden["ipRestrict"]),
        (&json!(true), &json!(false))
    );
    sim.control("POST", "/account", &json!({"action": "fees", "account": "main", "venue": "binance", "maker_ppm": 900, "taker_ppm": 950}).to_string());
    let fees = call(&sim, "GET", "/sapi/v1/asset/tradeFee", "symbol=BTCUSDT").json();
    assert_eq!(
        (&fees[0]["makerCommission"], &fees[0]["takerCommission"]),
        (&json!("0.00090000"), &json!("0.00095000"))
    );
    let commission = call(&sim, "GET", "/api/v3/account/commission", "symbol=BTCUSDT").json();
    assert_eq!(commission["standardCommission"]["taker"], "0.00095000");

    let mut client = session(&sim);
    let hmac = |text: &str| hex_hmac_sha256(HMAC_SECRET, text);
    let refused = ask_api(&mut client, "h", "session.logon", ws_params(json!({}), HMAC_KEY, hmac));
    assert_ne!(refused["status"], 200, "HMAC keys cannot log on");
    let twice = ask_api(
        &mut client,
        "t",
        "userDataStream.subscribe.signature",
        ws_params(json!({}), HMAC_KEY, hmac),
    );
    assert_eq!(twice["error"]["code"], -2035, "one subscription an account: {twice}");
    let wrong = ask_api(
        &mut client,
        "w",
        "account.status",
        ws_params(json!({}), HMAC_KEY, |_| "00".to_owned()),
    );
    assert_eq!(wrong["error"]["code"], -1022);
    let none = ask_api(&mut client, "n", "order.dance", json!({}));
    assert_eq!(none["status"], 400);
    let time = ask_api(&mut client, "v", "v3/time", json!({}));
    assert!(time["result"]["serverTime"].is_u64());
    sim.control("POST", "/account", &json!({"action": "deposit", "account": "main", "venue": "binance", "asset": "USDT", "amount": "12.5"}).to_string());
    let update = client.until(|v| v["event"]["e"] == "balanceUpdate");
    assert_eq!(update["event"]["d"], "12.50000000");
    let out =
        ask_api(&mut client, "u", "userDataStream.unsubscribe", json!({"subscriptionId": "0"}));
    assert_eq!(out["result"], json!({}));
    sim.control(
        "POST",
        "/account",
        &json!({"action": "revoke", "client": "main", "venue": "binance"}).to_string(),
    );
    client.send(&json!({"id": "r", "method": "account.status", "params": {"timestamp": now_ms()}}));
    let revoked = client.until(|v| v["status"] == 401);
    assert_eq!((&revoked["id"], &revoked["error"]["code"]), (&Value::Null, &json!(-2015)));
    assert_eq!(code(&call(&sim, "GET", "/api/v3/account", "a=1")), (401, -2015));
}

#[test]
fn order_limits_and_bans() {
    let mut cfg = config();
    cfg.binance.orders_per_10s = 3;
    cfg.binance.weight_per_min = 500;
    cfg.binance.ban_after_refusals = 2;
    let sim = Sim::start(cfg);
    let (bid, _) = ask(&sim, "BTCUSDT");
    let low = bid.split('.').next().unwrap().parse::<u64>().unwrap() - 500;
    let place = || {
        let params = format!(
            "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=IOC&quantity=0.001&price={low}"
        );
        call(&sim, "POST", "/api/v3/order", &params)
    };
    let mut limited = None;
    for _ in 0..9 {
        let reply = place();
        if reply.status != 200 {
            limited = Some(reply);
            break;
        }
        assert_eq!(reply.json()["status"], "EXPIRED");
    }
    let limited = limited.unwrap();
    assert_eq!(code(&limited), (429, -1015), "every missed IOC costs one");
    assert!(limited.header("Retry-After").is_some());
    let last =
        (0..40).map(|_| call(&sim, "GET", "/api/v3/account", "a=1").status).find(|s| *s != 200);
    assert_eq!(last, Some(429));
    let banned =
        (0..5).map(|_| call(&sim, "GET", "/api/v3/account", "a=1")).find(|r| r.status == 418);
    assert!(banned.unwrap().header("Retry-After").is_some());
}

#[test]
fn cancel_replace_and_amend() {
    let sim = Sim::start(config());
    let (bid, _) = ask(&sim, "ETHUSDT");
    let low = bid.split('.').next().unwrap().parse::<u64>().unwrap() - 100;
    let limit =
        format!("symbol=ETHUSDT&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.5000&price={low}");
    let first = call(&sim, "POST", "/api/v3/order", &limit).json()["orderId"].as_u64().unwrap();
    let amend = call(
        &sim,
        "PUT",
        "/api/v3/order/amend/keepPriority",
        &format!("symbol=ETHUSDT&orderId={first}&newQty=0.4"),
    );
    assert_eq!(amend.json()["amendedOrder"]["origQty"], "0.40000000", "{}", amend.body);
    let swap = format!("{limit}&cancelReplaceMode=STOP_ON_FAILURE&cancelOrderId={first}");
    let reply = call(&sim, "POST", "/api/v3/order/cancelReplace", &swap);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let both = reply.json();
    assert_eq!(
        (&both["cancelResult"], &both["newOrderResult"]),
        (&json!("SUCCESS"), &json!("SUCCESS"))
    );
    let stopped = call(&sim, "POST", "/api/v3/order/cancelReplace", &swap);
    assert_eq!(code(&stopped), (400, -2022));
    assert_eq!(stopped.json()["data"]["newOrderResult"], "NOT_ATTEMPTED");
    let allowed = swap.replace("STOP_ON_FAILURE", "ALLOW_FAILURE");
    assert_eq!(code(&call(&sim, "POST", "/api/v3/order/cancelReplace", &allowed)), (409, -2021));
    let all = call(&sim, "DELETE", "/api/v3/openOrders", "symbol=ETHUSDT");
    assert_eq!(all.json().as_array().unwrap().len(), 2);
}

#[test]
fn departures_and_arrivals_are_stamped() {
    let sim = Sim::start(config());
    let mut feed = sim.ws(V, "/ws/btcusdt@bookTicker", false);
    let ticker = feed.json();
    std::thread::sleep(Duration::from_millis(20));
    let id = ticker["u"].as_u64().unwrap();
    let sent = sim.control(
        "GET",
        &format!("/truth/sent?venue=binance&symbol=BTCUSDT&from={id}&to={id}"),
        "",
    );
    let at = sent["sent"][0]["sent_ns"].as_u64().unwrap();
    assert!(at.abs_diff(now_ms() * 1_000_000) < 5_000_000_000);
    assert!(!matches!(feed.next(Duration::from_millis(1)), Got::Broken(_)));
}
