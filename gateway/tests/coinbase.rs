//! Coinbase's order entry on a scripted venue: the traps of `protocols/coinbase.md` section 13 that concern
//! orders, and rows of the fault matrix.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;

use support::*;
use tandem_core::account::SessionState;
use tandem_core::level::{Cause, Level};
use tandem_core::order::request as request_of;
use tandem_core::order::{
    ClientId, DoneStatus, FillTerms, NewOrder, OrderKey, RejectClass, Report, Tif, UnknownCause,
};
use tandem_core::record::{Kind, Venue};
use tandem_core::units::{Amount, Qty};
use tandem_gateway::coinbase::Coinbase;
use tandem_gateway::config::Config;
use tandem_gateway::gate::Gate;
use tandem_gateway::guard::{GuardReason, Route};
use tandem_gateway::keys::Credentials;

const ID: &str = "11111111-2222-4333-8444-555555555555";

#[derive(Default)]
struct Venue1 {
    conn: u32,
    sequence: u64,
    silent: bool,
    orders: Vec<String>,
    open: Vec<String>,
    /// Pages of open orders; nothing for one page of `open`.
    open_pages: Vec<String>,
    fills: Vec<String>,
    /// Rows of the first page of a list of trades, where there are two; `fills` are on the second.
    fills_first: Vec<String>,
    cancel: String,
    /// Pages of accounts; nothing for the usual one.
    accounts: Vec<String>,
    seen: HashMap<String, usize>,
    tokens: std::collections::HashSet<String>,
}

impl Venue1 {
    fn frame(&mut self, channel: &str, events: &str) -> String {
        self.sequence += 1;
        format!(
            r#"{{"channel":"{channel}","client_id":"","timestamp":"2026-04-07T14:30:06.0Z","sequence_num":{},"events":[{events}]}}"#,
            self.sequence
        )
    }
}

impl Script for Venue1 {
    fn on_open(&mut self, conn: u32) -> Vec<String> {
        (self.conn, self.sequence) = (conn, 0);
        vec![]
    }
    fn heartbeat(&mut self) -> Option<(u32, String)> {
        let frame = self.frame(
            "heartbeats",
            r#"{"current_time":"2026-04-07 14:30:10 +0000 UTC m=+1.5","heartbeat_counter":42}"#,
        );
        (!self.silent && self.conn != 0).then_some((self.conn, frame))
    }
    fn on_text(&mut self, _: u32, text: &str) -> Vec<String> {
        assert!(!member(text, "jwt").is_empty());
        match member(text, "channel").as_str() {
            "heartbeats" => vec![],
            "user" => vec![
                self.frame(
                    "subscriptions",
                    r#"{"subscriptions":{"heartbeats":["heartbeats"],"user":["x"]}}"#,
                ),
                self.frame("user", r#"{"type":"snapshot","orders":[]}"#),
            ],
            other => panic!("{other}"),
        }
    }
    fn on_http(&mut self, head: &str, body: &str) -> Option<(u16, String)> {
        let path = head.split(' ').nth(1).unwrap();
        let plain = path.split('?').next().unwrap().trim_start_matches("/api/v3/brokerage");
        *self.seen.entry(plain.split("/1111").next().unwrap().to_owned()).or_default() += 1;
        if plain != "/time" {
            let token = head.split("Bearer ").nth(1).unwrap().split("\r\n").next().unwrap();
            assert!(self.tokens.insert(token.to_owned()), "a token is used once");
        }
        let body = match plain {
            "/time" => r#"{"iso":"x","epochSeconds":"1"}"#.into(),
            "/accounts" if !self.accounts.is_empty() => {
                let page = usize::from(path.contains("cursor="));
                self.accounts[page.min(self.accounts.len() - 1)].clone()
            }
            "/accounts" => r#"{"accounts":[{"currency":"BTC","available_balance":{"value":"1.2","currency":"BTC"},"hold":{"value":"0.005","currency":"BTC"}}],"has_next":false,"cursor":""}"#.into(),
            "/transaction_summary" => r#"{"total_volume":1000.0,"fee_tier":{"taker_fee_rate":"0.012","maker_fee_rate":"0.006"}}"#.into(),
            "/orders/historical/batch"
                if !self.open_pages.is_empty() && path.contains("order_status=OPEN") =>
            {
                let page = path.split("cursor=").nth(1).map_or(0, |page| page.parse().unwrap());
                self.open_pages[page].clone()
            }
            "/orders/historical/batch" => {
                let list = if path.contains("order_status") { &self.open } else { &self.orders };
                let list = if path.contains("PENDING") { String::new() } else { list.join(",") };
                format!(r#"{{"orders":[{list}],"sequence":"0","has_next":false,"cursor":""}}"#)
            }
            "/orders/historical/fills"
                if !self.fills_first.is_empty()
                    && !path.contains("order_ids=")
                    && !path.contains("cursor=") =>
            {
                format!(r#"{{"fills":[{}],"cursor":"second"}}"#, self.fills_first.join(","))
            }
            "/orders/historical/fills" => format!(r#"{{"fills":[{}],"cursor":""}}"#, self.fills.join(",")),
            "/orders/batch_cancel" => {
                assert!(body.contains(&ID[1..]));
                self.cancel.clone()
            }
            one if one.starts_with("/orders/historical/") => match self.orders.first() {
                Some(order) => format!(r#"{{"order":{order}}}"#),
                None => return Some((404, r#"{"error":"NOT_FOUND"}"#.into())),
            },
            other => panic!("asked {other}"),
        };
        Some((200, body))
    }
}

fn bench() -> Bench<Venue1> {
    bench_with(config(Venue::Coinbase))
}

fn bench_with(config: Config) -> Bench<Venue1> {
    let credentials = Credentials::Coinbase {
        api_key: "organizations/o/apiKeys/k".into(),
        private_key_pem: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into(),
    };
    Bench::new(
        Venue::Coinbase,
        config,
        &credentials,
        |credentials, desk| Box::new(Coinbase::new(credentials, desk).unwrap()),
        Venue1::default(),
    )
}

fn ready() -> Bench<Venue1> {
    ready_with(config(Venue::Coinbase))
}

fn ready_with(config: Config) -> Bench<Venue1> {
    let mut bench = bench_with(config);
    bench.ready();
    bench.pass(500);
    bench
}

fn client(order: &NewOrder) -> String {
    ClientId::new(order.run, order.key).as_str().to_owned()
}

fn request(bench: &Bench<Venue1>) -> u32 {
    match bench.wires.sent.last().unwrap().0 {
        Route::Http { request, .. } => request,
        Route::Ws { .. } => panic!("orders go by REST"),
    }
}

fn accepted() -> String {
    format!(
        r#"{{"success":true,"success_response":{{"order_id":"{ID}","product_id":"BTC-USD","side":"BUY","client_order_id":"x"}},"order_configuration":{{}}}}"#
    )
}

fn user(order: &NewOrder, status: &str, cum: &str, value: &str, fee: &str) -> String {
    format!(
        r#"{{"type":"update","orders":[{{"order_id":"{ID}","client_order_id":"{}","cumulative_quantity":"{cum}","leaves_quantity":"0","avg_price":"60000.10","total_fees":"{fee}","filled_value":"{value}","number_of_fills":"1","status":"{status}","product_id":"BTC-USD","order_side":"BUY","order_type":"Limit","cancel_reason":"","reject_Reason":"HOLD_FAILURE"}}]}}"#,
        client(order)
    )
}

fn fill(entry: &str, size: &str) -> String {
    format!(
        r#"{{"entry_id":"{entry}","trade_id":"t-{entry}","order_id":"{ID}","trade_time":"2026-04-07T14:30:06Z","trade_type":"FILL","price":"60000.10","size":"{size}","commission":"7.2000120000001","product_id":"BTC-USD","size_in_quote":false,"side":"BUY"}}"#
    )
}

fn rest(order: &NewOrder, status: &str, filled: &str) -> String {
    format!(
        r#"{{"order_id":"{ID}","product_id":"BTC-USD","client_order_id":"{}","status":"{status}","filled_size":"{filled}","filled_value":"","total_fees":"","created_time":null}}"#,
        client(order)
    )
}

fn answer(bench: &mut Bench<Venue1>, request: u32, status: u16, body: &str) {
    bench.answer(request, status, body);
    bench.pump();
}

fn hear_user(bench: &mut Bench<Venue1>, event: &str) {
    let frame = bench.script.frame("user", event);
    let conn = bench.script.conn;
    bench.say(conn, &frame);
}

fn fill_of(reports: &[Report]) -> i64 {
    reports.iter().map(|r| if let Report::Fill { qty, .. } = r { qty.0 } else { 0 }).sum()
}

#[test]
fn the_start_reads_the_account() {
    let bench = ready();
    let balances = bench.kinds(Kind::Balance);
    assert_eq!((balances[0].data[0], balances[0].data[1]), (120_500_000, 500_000));
    assert_eq!(bench.kinds(Kind::Fee)[0].data[..2], [12_000, 6_000]);
    assert_eq!(bench.sessions().last(), Some(&SessionState::Ready));
}

fn account(asset: &str, free: &str, held: &str) -> String {
    format!(
        r#"{{"currency":"{asset}","available_balance":{{"value":"{free}","currency":"{asset}"}},"hold":{{"value":"{held}","currency":"{asset}"}}}}"#
    )
}

fn accounts(list: &[String], next: &str) -> String {
    let more = !next.is_empty();
    format!(r#"{{"accounts":[{}],"has_next":{more},"cursor":"{next}"}}"#, list.join(","))
}

/// 92,233.72 with 14 decimals and more is a balance like any other.
#[test]
fn a_large_balance_with_many_decimals_is_read() {
    let mut bench = bench();
    let dollars = account("USD", "1234567.12345678901234", "0.00000000000001");
    bench.script.accounts = vec![accounts(&[account("BTC", "1.2", "0"), dollars], "")];
    bench.ready();
    let balances = bench.kinds(Kind::Balance);
    assert_eq!(balances[0].data[0], 120_000_000);
    assert_eq!(balances[1].data[0], 123_456_712_345_678, "rounded down: {balances:?}");
}

/// What cannot be read is not zero: no balance is told, and the account is not reconciled.
#[test]
fn a_balance_that_cannot_be_read_is_told_as_nothing() {
    let good = || account("BTC", "1.2", "0");
    let lacking = r#"{"currency":"USD","hold":{"value":"0"}}"#.to_owned();
    for pages in [
        vec![accounts(&[good(), account("USD", "many", "0")], "")],
        vec![accounts(&[good(), account("USD", "5", "?")], "")],
        vec![accounts(&[good(), account("USD", "92233720368547758080", "0")], "")],
        vec![accounts(&[good(), lacking], "")],
        vec![accounts(&[account("USD", "many", "0")], "next"), accounts(&[good()], "")],
        vec![accounts(&[good()], "next"), accounts(&[account("USD", "", "0")], "")],
        vec![r#"{"accounts":[],"has_next":true,"cursor":""}"#.to_owned()],
        vec![r#"{"accounts":{},"has_next":false,"cursor":""}"#.to_owned()],
    ] {
        let mut bench = bench();
        bench.script.accounts = pages.clone();
        bench.pass(10_000);
        assert_eq!(bench.kinds(Kind::Balance), [], "{pages:?}");
        assert_ne!(bench.state(), SessionState::Ready, "{pages:?}");
        bench.script.accounts = vec![];
        bench.pass(5_000);
        assert_eq!(bench.state(), SessionState::Ready, "asked again: {pages:?}");
        assert_eq!(bench.kinds(Kind::Balance)[0].data[0], 120_500_000);
    }
    let mut bench = bench();
    bench.script.accounts = vec![accounts(&[good(), account("SHIB", "many", "0")], "")];
    bench.ready();
    assert_eq!(
        bench.kinds(Kind::Balance)[0].data[0],
        120_000_000,
        "assets of others do not matter"
    );
}

/// Audits come on time while orders, and the engine's questions about them, use up the budget.
#[test]
fn audits_come_on_time_while_orders_are_asked_about() {
    let mut bench = ready();
    let count = |bench: &Bench<Venue1>, part: &str| {
        bench.said.iter().filter(|text| text.contains(part)).count()
    };
    let audits = ["order_status=OPEN", "brokerage/accounts"];
    let before = audits.map(|audit| count(&bench, audit));
    for step in 0..12_000u64 {
        let key = OrderKey::new(1_000 + step / 25, 0);
        bench.give(&request_of(Kind::OrderQuery, Venue::Coinbase, 0, RUN, key));
        bench.pass(10);
    }
    let [open, balances] = [0, 1].map(|at| count(&bench, audits[at]) - before[at]);
    let orders = count(&bench, "start_date") + count(&bench, "product_ids");
    assert!(11 <= open, "every 10 s for 120 s: {open}");
    assert!(3 <= balances, "every 30 s for 120 s: {balances}");
    assert!(500 < orders, "and orders are asked about: {orders}");
    println!(
        "figure audits: {open} of open orders, {balances} of balances, {orders} order queries"
    );
}

#[test]
fn golden_orders() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(
        "POST /api/v3/brokerage/orders HTTP/1.1\r\nHost: venue.test\r\nAuthorization: Bearer ey"
    ));
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    assert_eq!(
        body,
        format!(
            r#"{{"client_order_id":"{}","product_id":"BTC-USD","side":"BUY","order_configuration":{{"sor_limit_ioc":{{"base_size":"0.015","limit_price":"60000.1"}}}},"self_trade_prevention_id":"74616e64-656d-4000-8000-000000000001"}}"#,
            client(&order)
        )
    );
    let maker = NewOrder { tif: Tif::PostOnly, ..bench.order() };
    let text = bench.send(&maker).unwrap();
    assert!(text.contains(
        r#"{"limit_limit_gtc":{"base_size":"0.015","limit_price":"60000.1","post_only":true}}"#
    ));
    // Both connections carry an order: a third has nowhere to go.
    let third = bench.order();
    assert_eq!(bench.send(&third), None);
    let code = GuardReason::Backlog as i64;
    assert_eq!(bench.reports(&third), [Report::Reject { class: RejectClass::NotSent, code }]);
}

/// "IOC success but unfilled", "reply fields", `reject_Reason`, REST fills behind totals.
#[test]
fn trap_success_is_no_fill_and_totals_come_before_fills() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    assert!(matches!(bench.reports(&order)[1], Report::Ack { .. }));
    hear_user(&mut bench, &user(&order, "OPEN", "0.01", "600.001", "7.2"));
    assert_eq!(
        bench.reports(&order)[2],
        Report::Totals {
            qty: Qty(1_000_000),
            cost: Amount(60_000_100_000),
            fee: Amount(720_000_000),
            asset: 1
        }
    );
    bench.script.fills = vec![fill("e1", "0.004"), fill("e2", "0.006"), fill("e1", "0.004")];
    bench.script.orders = vec![rest(&order, "CANCELLED", "0.01")];
    hear_user(&mut bench, &user(&order, "CANCELLED", "0.01", "600.001", "7.2"));
    assert!(
        bench
            .reports(&order)
            .contains(&Report::Done { status: DoneStatus::Expired, qty: Qty(1_000_000) })
    );
    bench.pass(1_000);
    let reports = bench.reports(&order);
    assert_eq!(fill_of(&reports), 1_000_000, "each once");
    let fees: Vec<_> = reports
        .iter()
        .filter_map(|r| if let Report::Fill { fee, .. } = r { Some(fee.0) } else { None })
        .collect();
    assert_eq!(fees, [720_001_201, 720_001_201], "7.2000120000001 is rounded up");
}

#[test]
fn an_ioc_without_a_fill() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    hear_user(&mut bench, &user(&order, "CANCELLED", "0", "0", "0"));
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::Expired, qty: Qty(0) })
    );
}

/// HTTP 200 with `success:false`, in both spellings; an informative reason before `error`.
#[test]
fn trap_a_refusal_comes_with_http_200() {
    for (body, expected) in [
        (
            r#"{"success":false,"error_response":{"error":"INSUFFICIENT_FUND","message":"x","preview_failure_reason":"PREVIEW_INSUFFICIENT_FUND"}}"#,
            Some(RejectClass::Funds),
        ),
        (
            r#"{"success":false,"error_response":{"error":"UNKNOWN_FAILURE_REASON","new_order_failure_reason":"UNKNOWN_FAILURE_REASON","preview_failure_reason":"PREVIEW_INVALID_PRICE_PRECISION"}}"#,
            Some(RejectClass::Filter),
        ),
        (
            r#"{"success":false,"error_response":{"error":"INVALID_LIMIT_PRICE_POST_ONLY"}}"#,
            Some(RejectClass::PostOnly),
        ),
        (r#"{"success":false,"error_response":{"error":"UNKNOWN_FAILURE_REASON"}}"#, None),
        (r#"{"success":false,"error_response":{"error":"DUPLICATE_CLIENT_ORDER_ID"}}"#, None),
        (r#"{"success":false}"#, None),
        (r#"{"order_id":"x"}"#, None),
    ] {
        let mut bench = ready();
        let order = bench.order();
        bench.send(&order);
        let request = request(&bench);
        answer(&mut bench, request, 200, body);
        match (expected, bench.reports(&order)[1]) {
            (Some(class), Report::Reject { class: found, .. }) => assert_eq!(class, found),
            (None, Report::Unknown { .. }) => {}
            other => panic!("{body}: {other:?}"),
        }
    }
}

/// Row OE-03, and "502/503": an order behind a 5xx is found in the list, one that is not needs proof.
#[test]
fn trap_5xx_is_unknown() {
    for body in ["<html>502</html>", "upstream"] {
        let mut bench = ready();
        let order = bench.order();
        bench.send(&order);
        let request = request(&bench);
        bench.script.orders = vec![rest(&order, "FILLED", "0.015")];
        bench.script.fills = vec![fill("e1", "0.015")];
        answer(&mut bench, request, 502, body);
        assert_eq!(bench.reports(&order)[1], Report::Unknown { cause: UnknownCause::Venue });
        bench.pass(2_000);
        let reports = bench.reports(&order);
        assert!(
            reports.contains(&Report::Done { status: DoneStatus::Filled, qty: Qty(1_500_000) }),
            "{reports:?}"
        );
        assert_eq!(fill_of(&reports), 1_500_000);
        assert_eq!(bench.wires.sent.len(), 1);
    }
    println!("figure OE-03: coinbase 2 of 2 orders behind a 502 found in the list, 0 resent");
}

/// Row OE-04.
#[test]
fn not_found_needs_proof() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let sent = bench.now();
    while !bench.reports(&order).iter().any(|r| matches!(r, Report::Done { .. })) {
        bench.pass(10);
        assert!(bench.now() < sent + 30 * SECOND);
    }
    let took = (bench.now() - sent) / MS;
    assert!(12_000 <= took);
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) })
    );
    println!("figure OE-04: coinbase proof after {took} ms");
}

/// PENDING then FAILED, before the reply and after it.
#[test]
fn a_late_failure_ends_the_order() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    hear_user(&mut bench, &user(&order, "FAILED", "0", "0", "0"));
    assert!(
        matches!(bench.reports(&order)[1], Report::Reject { class: RejectClass::Funds, .. }),
        "`reject_Reason` is read"
    );
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    hear_user(&mut bench, &user(&order, "PENDING", "0", "0", "0"));
    hear_user(&mut bench, &user(&order, "FAILED", "0", "0", "0"));
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::Cancelled, qty: Qty(0) })
    );
}

/// "cancel reply shape": a reason even in success; refused ones are asked about.
#[test]
fn trap_cancels_are_read_by_id() {
    let mut bench = ready();
    let order = NewOrder { tif: Tif::Gtc, ..bench.order() };
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    hear_user(&mut bench, &user(&order, "OPEN", "0", "0", "0"));
    let cancel = tandem_core::order::request(Kind::OrderCancel, Venue::Coinbase, 0, RUN, order.key);
    bench.script.cancel = format!(
        r#"{{"results":[{{"success":true,"failure_reason":"UNKNOWN_CANCEL_FAILURE_REASON","order_id":"{ID}"}}]}}"#
    );
    bench.give(&cancel);
    assert!(!bench.reports(&order).iter().any(|r| matches!(r, Report::CancelReject { .. })));
    bench.script.cancel = format!(
        r#"{{"results":[{{"success":false,"failure_reason":"ORDER_IS_FULLY_FILLED","order_id":"{ID}"}}]}}"#
    );
    bench.script.orders = vec![rest(&order, "FILLED", "0.015")];
    bench.give(&cancel);
    assert!(
        bench
            .reports(&order)
            .iter()
            .any(|r| matches!(r, Report::CancelReject { class: RejectClass::NoOrder, .. }))
    );
    bench.pass(100);
    assert!(
        bench
            .reports(&order)
            .contains(&Report::Done { status: DoneStatus::Filled, qty: Qty(1_500_000) })
    );
}

/// Row OE-02 and OE-17.
/// Somebody else's order on a later page of the list is not gone, and ours there is found. A list that cannot
/// be read to its end says of no order that it is gone.
#[test]
fn open_orders_are_read_to_the_end_of_their_list() {
    let open = |client: &str, n: u32| {
        format!(
            r#"{{"order_id":"{n}1111111-2222-4333-8444-555555555555","client_order_id":"{client}","product_id":"BTC-USD","side":"SELL","filled_size":"0","order_configuration":{{"limit_limit_gtc":{{"base_size":"0.5","limit_price":"70000"}}}}}}"#
        )
    };
    let page = |orders: &[String], has_next: bool, cursor: &str| {
        format!(r#"{{"orders":[{}],"has_next":{has_next},"cursor":"{cursor}"}}"#, orders.join(","))
    };
    let old = ClientId::new(3, OrderKey::new(9, 1));
    let mut bench = bench();
    bench.script.cancel = String::from(r#"{"results":[]}"#);
    bench.script.open_pages = vec![
        page(&[open("web_1", 1), open("web_2", 2)], true, "1"),
        page(&[open("web_3", 3), open(old.as_str(), 4)], false, ""),
    ];
    bench.pass(5_000);
    let told = |bench: &Bench<Venue1>, is_gone: bool| {
        let foreign = bench.kinds(Kind::ForeignOrder);
        foreign.iter().filter(|record| (record.data[1] == 0) == is_gone).count()
    };
    assert_eq!((told(&bench, false), told(&bench, true)), (3, 0));
    assert!(
        bench.kinds(Kind::OrderAck).iter().any(|record| record.run == 3),
        "ours of a run before"
    );
    // The second one is gone; then the list has no end, or is none.
    bench.script.open_pages[0] = page(&[open("web_1", 1)], true, "1");
    let every = config(Venue::Coinbase).open_orders_every_ns / MS + 1_000;
    bench.pass(every);
    assert_eq!(told(&bench, true), 1);
    for list in [page(&[], true, ""), r#"{"orders":null,"has_next":false,"cursor":""}"#.into()] {
        bench.script.open_pages = vec![list];
        bench.pass(every);
        assert_eq!(told(&bench, true), 1, "what was not read is not gone");
    }
}

#[test]
fn limits_and_refused_keys() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let number = request(&bench);
    answer(&mut bench, number, 429, r#"{"errors":[{"id":"rate_limit_exceeded"}]}"#);
    assert_eq!(bench.state(), SessionState::Suspended);
    let next = bench.order();
    assert_eq!(bench.send(&next), None);
    bench.pass(10_100);
    assert_eq!(bench.state(), SessionState::Ready);
    let order = bench.order();
    bench.send(&order).unwrap();
    let number = request(&bench);
    answer(&mut bench, number, 401, "Unauthorized");
    assert_eq!((bench.state(), bench.level()), (SessionState::Refused, Level::Halt));
    let next = bench.order();
    assert_eq!(bench.send(&next), None, "sent with a refused key");
    // The venue answers again: all is read anew, the level stays.
    bench.pass(60_000);
    assert_eq!((bench.state(), bench.level()), (SessionState::Ready, Level::Halt));
    println!("figure OE-17: coinbase 401 refuses the session and halts, 0 new orders after it");
}

/// "sequence_num not checked": a gap makes the connection anew, what was seen already changes nothing.
#[test]
fn trap_the_sequence_is_checked() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    hear_user(&mut bench, &user(&order, "OPEN", "0", "0", "0"));
    let conn = bench.script.conn;
    let before = bench.reports(&order);
    let old = format!(
        r#"{{"channel":"user","sequence_num":1,"events":[{}]}}"#,
        user(&order, "CANCELLED", "0", "0", "0")
    );
    bench.say(conn, &old);
    assert_eq!(bench.reports(&order), before);
    bench.script.sequence += 1;
    hear_user(&mut bench, &user(&order, "CANCELLED", "0", "0", "0"));
    assert!(!bench.open.contains(&conn));
    assert_ne!(bench.state(), SessionState::Ready);
}

/// An order that filled in two parts, both told.
fn filled(bench: &mut Bench<Venue1>) -> NewOrder {
    let order = bench.order();
    bench.send(&order);
    let request = request(bench);
    answer(bench, request, 200, &accepted());
    bench.script.fills = vec![fill("e1", "0.004"), fill("e2", "0.006")];
    bench.script.orders = vec![rest(&order, "CANCELLED", "0.01")];
    hear_user(bench, &user(&order, "CANCELLED", "0.01", "600.001", "7.2"));
    bench.pass(1_000);
    assert_eq!(fill_of(&bench.reports(&order)), 1_000_000);
    order
}

fn busts(bench: &Bench<Venue1>, order: &NewOrder) -> Vec<(u64, Option<FillTerms>)> {
    let bust = |report: Report| match report {
        Report::Bust { trade_id, instead } => Some((trade_id, instead)),
        _ => None,
    };
    bench.reports(order).into_iter().filter_map(bust).collect()
}

/// The trade id that a fill of this quantity was told with, and what it was told as.
fn told(bench: &Bench<Venue1>, order: &NewOrder, quanta: i64) -> (u64, FillTerms) {
    let of = |report: &Report| match *report {
        Report::Fill { px, qty, fee, asset, trade_id } if qty.0 == quanta => {
            Some((trade_id, FillTerms { px, qty, fee, asset }))
        }
        _ => None,
    };
    bench.reports(order).iter().find_map(of).unwrap()
}

/// Row OE-20. What was taken back before anybody could tell the fill, and stands in no list as one any more: the
/// order's total has it, so it is told and taken back, and the order waits for nothing.
#[test]
fn a_fill_that_was_never_told_is_told_before_it_is_taken_back() {
    let mut bench = ready_with(quick(Venue::Coinbase));
    let order = bench.order();
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    let reversed = fill("e2", "0.006").replace("\"FILL\"", "\"REVERSAL\"");
    bench.script.fills = vec![fill("e1", "0.004"), reversed];
    bench.script.orders = vec![rest(&order, "CANCELLED", "0.01")];
    hear_user(&mut bench, &user(&order, "CANCELLED", "0.01", "600.001", "7.2"));
    bench.pass(65_000);
    let (trade_id, _) = told(&bench, &order, 600_000);
    assert_eq!(busts(&bench, &order), [(trade_id, None)]);
    assert_eq!((fill_of(&bench.reports(&order)), bench.level()), (1_000_000, Level::Halt));
    assert_eq!(bench.gate.level().cause(), Some(Cause::Bust));
}

/// Row OE-20. What was taken back before this process has told the fill, and stands on the page before the
/// fill's: the fill is told first, and then taken back by the id that it was told with.
#[test]
fn a_word_waits_for_its_fill_on_a_later_page() {
    let mut bench = ready_with(quick(Venue::Coinbase));
    let order = bench.order();
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    let reversed = fill("e2", "0.006").replace("\"FILL\"", "\"REVERSAL\"");
    bench.script.fills_first = vec![fill("x", "1").replace("BTC-USD", "ADA-USD"); 99];
    bench.script.fills_first.push(reversed.replace("\"entry_id\":\"e2\"", "\"entry_id\":\"e9\""));
    bench.script.fills = vec![fill("e2", "0.006")];
    bench.pass(65_000);
    let (trade_id, _) = told(&bench, &order, 600_000);
    assert_eq!(busts(&bench, &order), [(trade_id, None)]);
    assert_eq!(bench.level(), Level::Halt);
}

/// Row OE-20. The list of fills says that one is taken back, under its own id or as a row of its own: told
/// once by the id that the fill had, however often it is listed, and the venue is halted.
#[test]
fn a_reversed_fill_is_told_once_and_halts() {
    let reversed = |entry: &str| {
        let row = fill("e2", "0.006").replace("\"FILL\"", "\"REVERSAL\"");
        row.replace("\"entry_id\":\"e2\"", &format!("\"entry_id\":\"{entry}\""))
    };
    let lists = [
        vec![fill("e1", "0.004"), reversed("e2")],
        // The newest first, and what is taken back with its sign.
        vec![
            reversed("e9").replace("\"size\":\"0.006\"", "\"size\":\"-0.006\""),
            fill("e2", "0.006"),
            fill("e1", "0.004"),
        ],
    ];
    for list in lists {
        let mut bench = ready_with(quick(Venue::Coinbase));
        let order = filled(&mut bench);
        let (trade_id, _) = told(&bench, &order, 600_000);
        assert_eq!(bench.level(), Level::Armed);
        bench.script.fills = list;
        bench.pass(31_000);
        assert_eq!(busts(&bench, &order), [(trade_id, None)]);
        assert_eq!((bench.level(), bench.gate.level().cause()), (Level::Halt, Some(Cause::Bust)));
        bench.pass(65_000);
        assert_eq!(busts(&bench, &order).len(), 1, "told once");
        assert_eq!(fill_of(&bench.reports(&order)), 1_000_000, "its fills stay told");
    }
    println!("figure OE-20: coinbase 2 of 2 reversals told once, by the id of their fill");
}

/// Row OE-20. A correction is told with what the fill is instead; another one after it too.
#[test]
fn a_corrected_fill_is_told_with_what_it_is() {
    let mut bench = ready_with(quick(Venue::Coinbase));
    let order = filled(&mut bench);
    let (trade_id, was) = told(&bench, &order, 600_000);
    let corrected = |entry: &str, size: &str, at: &str| {
        let row = fill("e2", size).replace("\"FILL\"", "\"CORRECTION\"").replace("14:30:06", at);
        row.replace("\"entry_id\":\"e2\"", &format!("\"entry_id\":\"{entry}\""))
    };
    let first = corrected("e7", "0.005", "14:31:00");
    let second = corrected("e8", "0.003", "14:32:00");
    let mut list = vec![fill("e1", "0.004"), fill("e2", "0.006"), first];
    bench.script.fills = list.clone();
    bench.pass(31_000);
    let is = |quanta: i64| Some(FillTerms { qty: Qty(quanta), ..was });
    assert_eq!(busts(&bench, &order), [(trade_id, is(500_000))]);
    list.insert(0, second);
    bench.script.fills = list;
    bench.pass(65_000);
    assert_eq!(busts(&bench, &order), [(trade_id, is(500_000)), (trade_id, is(300_000))]);
    assert_eq!(bench.level(), Level::Halt);
}

/// Row OE-20. A word on a fill that this process never told goes to the engine, which knows its books; one
/// that cannot be understood, or is of nobody's order, halts and tells nothing.
#[test]
fn a_word_on_an_unknown_fill_halts_or_is_the_engines_to_judge() {
    // Of an order of nobody.
    let mut bench = bench();
    bench.script.fills = vec![fill("e1", "0.004").replace("\"FILL\"", "\"CORRECTION\"")];
    bench.pass(1_000);
    assert_eq!((bench.level(), bench.kinds(Kind::OrderBust).len()), (Level::Halt, 0));
    // Part of a fill; a kind that nobody documented; a row that cannot be read.
    for row in [
        fill("e2", "0.001").replace("\"FILL\"", "\"REVERSAL\""),
        fill("e2", "0.006").replace("\"FILL\"", "\"SYNTHETIC\""),
        fill("e2", "?").replace("\"FILL\"", "\"REVERSAL\""),
    ] {
        let mut bench = ready_with(quick(Venue::Coinbase));
        let order = filled(&mut bench);
        bench.script.fills = vec![fill("e1", "0.004"), row];
        bench.pass(31_000);
        assert_eq!((bench.level(), bench.kinds(Kind::OrderBust).len()), (Level::Halt, 0));
        assert_eq!(bench.gate.level().cause(), Some(Cause::Bust));
        assert_eq!(fill_of(&bench.reports(&order)), 1_000_000);
    }
    // Of an order of ours, from before this process.
    let mut bench = ready_with(quick(Venue::Coinbase));
    let order = bench.order();
    bench.send(&order);
    let request = request(&bench);
    answer(&mut bench, request, 200, &accepted());
    bench.script.fills = vec![fill("e5", "0.004").replace("\"FILL\"", "\"REVERSAL\"")];
    bench.pass(65_000);
    assert_eq!(busts(&bench, &order).len(), 1);
}

#[test]
fn mutated_messages_are_survived() {
    let mut seed = 0x7777_1234u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut bench = ready();
    let order = bench.order();
    for round in 0..20_000usize {
        let sequence = round as u64 + 1_000;
        let event = match round % 3 {
            0 => user(&order, "OPEN", "0.01", "600", "1"),
            1 => user(&order, "CANCELLED", "0.01", "600", "1"),
            _ => user(&order, "FAILED", "0", "", ""),
        };
        let mut bytes =
            format!(r#"{{"channel":"user","sequence_num":{sequence},"events":[{event}]}}"#)
                .into_bytes();
        for _ in 0..1 + next() % 4 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = b"0123456789-.eE\"{}[],:nullOPENxx"[(next() % 31) as usize];
        }
        let (at, conn) = (bench.at(), bench.script.conn);
        bench.gateway.on_text(conn, &bytes, at, &bench.gate);
        if round % 50 == 0 {
            bench.pass(2_000);
        }
    }
    for body in [fill("e", "0.1"), rest(&order, "OPEN", ""), accepted()] {
        for cut in 0..body.len() {
            let now = bench.now();
            bench.gateway.on_timer(now, true, &bench.gate);
            bench.answer(cut as u32, 200, &body[..cut]);
        }
    }
}
