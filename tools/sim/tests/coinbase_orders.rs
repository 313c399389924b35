//! Coinbase's private side as a client sees it: tokens, orders, idempotency, fills, the `user` channel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "common/sign.rs"]
mod sign;

use common::{Client, Reply, Sim, dec, http, small};
use serde_json::{Value, json};
use sign::{CB_KEY, jwt, keys, now_ms};
use tandem_sim::config::Venue;
use tandem_sim::{Keys, SimConfig};

const V: Venue = Venue::Coinbase;
const PREFIX: &str = "/api/v3/brokerage/";

fn config() -> SimConfig {
    let mut cfg = small(V, &["BTC-USD", "ETH-USD", "ETH-BTC"]);
    cfg.keys = Keys::from_json(&keys().to_string()).unwrap();
    cfg.market.dislocation_every_ms = 0;
    cfg.coinbase.private_per_s = 1_000;
    cfg
}

fn send(sim: &Sim, method: &str, target: &str, body: &str, token: &str) -> Reply {
    let headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    http(sim.plain(V), method, target, &headers, body)
}

/// One call of the main client; the test's HTTP says `Host: localhost`.
fn call(sim: &Sim, method: &str, path: &str, body: &Value) -> Reply {
    let bare = path.split('?').next().unwrap();
    let token = jwt(CB_KEY, &format!("{method} localhost{PREFIX}{bare}"), now_ms() / 1_000, false);
    let body = if body.is_null() { "{}".to_owned() } else { body.to_string() };
    send(sim, method, &format!("{PREFIX}{path}"), &body, &token)
}

fn top(sim: &Sim, symbol: &str, side: &str, rank: usize) -> String {
    let book = sim.control("GET", &format!("/truth/book?venue=coinbase&symbol={symbol}"), "");
    book[side][rank][0].as_str().unwrap().to_owned()
}

fn order(id: &str, product: &str, side: &str, configuration: Value) -> Value {
    json!({"client_order_id": id, "product_id": product, "side": side, "order_configuration": configuration})
}

fn user(sim: &Sim) -> Client {
    let mut client = sim.ws(V, "/", false);
    let token = jwt(CB_KEY, "", now_ms() / 1_000, false);
    client.send(&json!({"type": "subscribe", "product_ids": [], "channel": "user", "jwt": token}));
    let snapshot = client.until(|v| v["channel"] == "user");
    assert_eq!(snapshot["events"][0]["type"], "snapshot");
    client
}

#[test]
fn tokens_are_checked_in_every_part() {
    let sim = Sim::start(config());
    assert_eq!(call(&sim, "GET", "accounts", &Value::Null).status, 200);
    let now = now_ms() / 1_000;
    let get = |token: &str| send(&sim, "GET", &format!("{PREFIX}accounts?limit=5"), "{}", token);
    let uri = format!("GET localhost{PREFIX}accounts");
    assert_eq!(get(&jwt(CB_KEY, &uri, now, false)).status, 200, "the query is no part of the uri");
    let real = format!("GET api.coinbase.com{PREFIX}accounts");
    assert_eq!(get(&jwt(CB_KEY, &real, now, false)).status, 200);
    let other = "organizations/o/apiKeys/other";
    assert_eq!(get(&jwt(other, &uri, now, true)).status, 200, "EdDSA");
    let bad = [
        jwt(CB_KEY, &uri, now - 200, false),
        jwt(CB_KEY, &uri, now + 100, false),
        jwt(CB_KEY, &format!("POST localhost{PREFIX}accounts"), now, false),
        jwt(CB_KEY, &format!("GET example.com{PREFIX}accounts"), now, false),
        jwt(CB_KEY, "", now, false),
        jwt("organizations/o/apiKeys/nobody", &uri, now, false),
        jwt(CB_KEY, &uri, now, true),
        jwt(CB_KEY, &uri, now, false) + "x",
        "a.b.c".to_owned(),
    ];
    for token in bad {
        let reply = get(&token);
        assert_eq!((reply.status, reply.body.trim()), (401, "Unauthorized"), "{token}");
    }
    let keys = call(&sim, "GET", "key_permissions", &Value::Null).json();
    assert_eq!((&keys["can_trade"], &keys["can_transfer"]), (&json!(true), &json!(false)));
    sim.control("POST", "/account", &json!({"action": "permissions", "client": "main", "venue": "coinbase", "permissions": {"trade": false, "withdraw": true}}).to_string());
    let keys = call(&sim, "GET", "key_permissions", &Value::Null).json();
    assert_eq!(keys["can_transfer"], true);
    let refused = call(&sim, "POST", "orders", &order("x", "BTC-USD", "BUY", json!({})));
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("\"error_details\":\"Missing required scopes\""));
    let fees = call(&sim, "GET", "transaction_summary", &Value::Null).json();
    assert_eq!(fees["fee_tier"]["taker_fee_rate"], "0.006");
    assert!(fees["total_volume"].is_number());
}

#[test]
fn an_order_fills_and_its_id_is_remembered() {
    let sim = Sim::start(config());
    let mut client = user(&sim);
    let price = top(&sim, "BTC-USD", "asks", 4);
    let ioc = json!({"sor_limit_ioc": {"base_size": "0.02", "limit_price": price}});
    let body = order("11111111-2222-4333-8444-555555555555", "BTC-USD", "BUY", ioc);
    let reply = call(&sim, "POST", "orders", &body).json();
    assert_eq!(reply["success"], true, "{reply}");
    let id = reply["success_response"]["order_id"].as_str().unwrap().to_owned();
    let again = call(&sim, "POST", "orders", &body).json();
    assert_eq!(again["success_response"]["order_id"], id.as_str(), "nothing new was placed");
    assert_eq!(sim.control("GET", "/truth/orders", "")["orders"].as_array().unwrap().len(), 1);
    let requests = sim.control("GET", "/truth/requests?account=main&venue=coinbase", "");
    assert_eq!(requests["requests"][0]["duplicates"], 1);
    let done = client.until(|v| v["events"][0]["orders"][0]["status"] == "FILLED");
    let row = &done["events"][0]["orders"][0];
    assert_eq!(
        (&row["cumulative_quantity"], &row["leaves_quantity"]),
        (&json!("0.02"), &json!("0"))
    );
    assert_eq!(
        (&row["order_type"], &row["time_in_force"]),
        (&json!("Limit"), &json!("IMMEDIATE_OR_CANCEL"))
    );
    let fees = dec(row["total_fees"].as_str().unwrap()) * 1_000;
    let value = dec(row["filled_value"].as_str().unwrap()) * 6;
    assert!((fees - value).abs() < dec("0.01"), "60 basis points of the quote: {row}");
    let got = call(&sim, "GET", &format!("orders/historical/{id}"), &Value::Null).json();
    assert_eq!(
        (&got["order"]["status"], &got["order"]["filled_size"]),
        (&json!("FILLED"), &json!("0.02"))
    );
    let fills =
        call(&sim, "GET", &format!("orders/historical/fills?order_ids={id}"), &Value::Null).json();
    let sizes: i128 =
        fills["fills"].as_array().unwrap().iter().map(|f| dec(f["size"].as_str().unwrap())).sum();
    assert_eq!(sizes, dec("0.02"));
    assert_eq!(sim.control("GET", "/truth/accounts", "")["balanced"], true);
    let mut cfg = config();
    cfg.coinbase.refuse_duplicates = true;
    let sim = Sim::start(cfg);
    assert_eq!(call(&sim, "POST", "orders", &body).json()["success"], true);
    let refused = call(&sim, "POST", "orders", &body).json();
    assert_eq!(refused["error_response"]["error"], "DUPLICATE_CLIENT_ORDER_ID");
}

#[test]
fn resting_orders_are_listed_edited_and_cancelled() {
    let sim = Sim::start(config());
    let mut client = user(&sim);
    let low: u64 = top(&sim, "ETH-USD", "bids", 0).split('.').next().unwrap().parse().unwrap();
    let gtc = |px: u64| json!({"limit_limit_gtc": {"base_size": "1.5", "limit_price": px.to_string(), "post_only": true}});
    let reply =
        call(&sim, "POST", "orders", &order("r-1", "ETH-USDC", "BUY", gtc(low - 50))).json();
    let id = reply["success_response"]["order_id"].as_str().unwrap().to_owned();
    assert_eq!(reply["success_response"]["product_id"], "ETH-USDC");
    let accounts = call(&sim, "GET", "accounts?limit=250", &Value::Null).json();
    let hold = |asset: &str| {
        let list = accounts["accounts"].as_array().unwrap();
        dec(list.iter().find(|a| a["currency"] == asset).unwrap()["hold"]["value"]
            .as_str()
            .unwrap())
    };
    assert!(
        hold("USDC") > dec("4000") && hold("USD") == 0,
        "the submitted product names the wallet"
    );
    let open = call(
        &sim,
        "GET",
        "orders/historical/batch?order_status=OPEN&product_ids=ETH-USDC",
        &Value::Null,
    )
    .json();
    assert_eq!(open["orders"][0]["order_id"], id.as_str());
    let edit = call(
        &sim,
        "POST",
        "orders/edit",
        &json!({"order_id": id, "price": (low - 60).to_string(), "size": "1"}),
    )
    .json();
    assert_eq!(edit["success"], true, "{edit}");
    let wanted = (low - 60).to_string();
    let update = client.until(|v| v["events"][0]["orders"][0]["limit_price"] == wanted.as_str());
    assert_eq!(update["events"][0]["orders"][0]["leaves_quantity"], "1");
    let cancel =
        call(&sim, "POST", "orders/batch_cancel", &json!({"order_ids": [id, "nobody"]})).json();
    assert_eq!(
        (&cancel["results"][0]["success"], &cancel["results"][1]["failure_reason"]),
        (&json!(true), &json!("UNKNOWN_CANCEL_ORDER"))
    );
    let done = client.until(|v| v["events"][0]["orders"][0]["status"] == "CANCELLED");
    assert_eq!(done["events"][0]["orders"][0]["leaves_quantity"], "0");
    let taking = call(&sim, "POST", "orders", &order("p", "ETH-USD", "BUY", gtc(low + 100))).json();
    assert_eq!(taking["error_response"]["error"], "INVALID_LIMIT_PRICE_POST_ONLY");
    let refused = |id: &str, product: &str, configuration: Value| {
        let reply = call(&sim, "POST", "orders", &order(id, product, "BUY", configuration));
        assert_eq!(reply.status, 200);
        reply.json()["error_response"]["preview_failure_reason"].as_str().unwrap().to_owned()
    };
    let ioc =
        |size: &str, px: &str| json!({"sor_limit_ioc": {"base_size": size, "limit_price": px}});
    assert_eq!(refused("a", "BTC-USD", ioc("100", "60000")), "PREVIEW_INSUFFICIENT_FUND");
    assert_eq!(
        refused("b", "BTC-USD", ioc("0.123456789", "60000")),
        "PREVIEW_INVALID_SIZE_PRECISION"
    );
    assert_eq!(refused("c", "BTC-USD", ioc("1", "60000.001")), "PREVIEW_INVALID_PRICE_PRECISION");
    assert_eq!(refused("d", "NO-USD", ioc("1", "1")), "PREVIEW_INVALID_PRODUCT_ID");
    assert_eq!(
        refused("e", "BTC-USD", json!({"market_market_fok": {"quote_size": "5"}})),
        "PREVIEW_UNSUPPORTED_ORDER_CONFIGURATION"
    );
    assert_eq!(
        refused("f", "BTC-USD", ioc("0.00001", "60000")),
        "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL"
    );
    let preview = call(&sim, "POST", "orders/preview", &json!({"product_id": "BTC-USD", "side": "BUY", "order_configuration": ioc("100", "60000")})).json();
    assert_eq!(preview["errs"][0], "PREVIEW_INSUFFICIENT_FUND");
    let market = call(
        &sim,
        "POST",
        "orders",
        &order("m", "BTC-USD", "BUY", json!({"market_market_ioc": {"quote_size": "500"}})),
    )
    .json();
    assert_eq!(market["success"], true, "{market}");
    let bad = send(
        &sim,
        "POST",
        &format!("{PREFIX}orders"),
        "{",
        &jwt(CB_KEY, &format!("POST localhost{PREFIX}orders"), now_ms() / 1_000, false),
    );
    assert_eq!(bad.status, 400);
    sim.fault(
        json!({"kind": "maintenance", "venue": "coinbase", "mode": "cancel_only", "seconds": 30}),
    );
    assert_eq!(refused("g", "BTC-USD", ioc("0.01", "60000")), "PREVIEW_TRADING_DISABLED");
    let product = call(&sim, "GET", "products/BTC-USD", &Value::Null).json();
    assert_eq!(product["cancel_only"], true);
}

#[test]
fn the_user_channel_needs_a_token_and_snapshots_in_fifties() {
    let sim = Sim::start(config());
    for n in 0..60 {
        let gtc = json!({"limit_limit_gtc": {"base_size": "0.001", "limit_price": "20000"}});
        assert_eq!(
            call(&sim, "POST", "orders", &order(&format!("s-{n}"), "BTC-USD", "BUY", gtc)).json()["success"],
            true
        );
    }
    let mut client = sim.ws(V, "/", false);
    client.send(&json!({"type": "subscribe", "channel": "user", "product_ids": []}));
    assert_eq!(client.json()["message"], "authentication failure");
    let token = jwt("organizations/o/apiKeys/other", "", now_ms() / 1_000, false);
    client.send(&json!({"type": "subscribe", "channel": "user", "jwt": token}));
    assert_eq!(client.json()["message"], "authentication failure");
    client.send(&json!({"type": "subscribe", "channel": "user", "jwt": jwt(CB_KEY, "", now_ms() / 1_000, false)}));
    let (mut sizes, mut acks, mut sequence) = (Vec::new(), 0, 0);
    while sizes.last() != Some(&10) || acks == 0 {
        let value = client.json();
        assert_eq!(value["sequence_num"], sequence);
        sequence += 1;
        match value["channel"].as_str().unwrap() {
            "user" => sizes.push(value["events"][0]["orders"].as_array().unwrap().len()),
            _ => acks += 1,
        }
    }
    assert_eq!(sizes, [50, 10]);
    let fault = json!({"kind": "rate_limit", "venue": "coinbase", "account": "main", "seconds": 5});
    sim.fault(fault);
    let limited = call(&sim, "GET", "accounts", &Value::Null);
    assert_eq!(
        (limited.status, limited.json()["errors"][0]["id"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );
}
