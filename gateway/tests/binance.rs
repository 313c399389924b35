//! Binance's order entry on a scripted venue: every trap of `protocols/binance.md` section 18 that
//! concerns orders, and the rows of the fault matrix that need no sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;

use support::*;
use tandem_core::account::SessionState;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::order::{
    ClientId, DoneStatus, FillTerms, NewOrder, Purpose, RejectClass, Report, Tif, UnknownCause,
};
use tandem_core::record::{Kind, Venue};
use tandem_core::units::{Amount, Px, Qty};
use tandem_feeds::machine::CloseCause;
use tandem_gateway::binance::Binance;
use tandem_gateway::config::Config;
use tandem_gateway::gate::Gate;
use tandem_gateway::guard::GuardReason;
use tandem_gateway::keys::Credentials;
use tandem_gateway::predecessor::Predecessor;

/// A venue that answers everything but orders, from these tables.
#[derive(Default)]
struct Venue1 {
    /// Open orders, as JSON.
    open: Vec<String>,
    /// What `order.status` says, by client id or order id; what is not here is not found.
    orders: HashMap<String, String>,
    /// What `myTrades` says.
    trades: Vec<String>,
    /// Methods that are not answered.
    mute: Vec<&'static str>,
    /// Requests seen, by method.
    seen: HashMap<String, usize>,
    main: u32,
    spare: u32,
}

impl Script for Venue1 {
    fn on_text(&mut self, conn: u32, text: &str) -> Vec<String> {
        let (id, method) = (member(text, "id"), member(text, "method"));
        *self.seen.entry(method.clone()).or_default() += 1;
        if self.mute.contains(&method.as_str()) {
            return vec![];
        }
        let ok =
            |result: String| vec![format!("{{\"id\":{id},\"status\":200,\"result\":{result}}}")];
        match method.as_str() {
            "session.logon" => {
                assert!(text.contains("\"signature\":\""));
                ok("{\"apiKey\":\"k\",\"authorizedSince\":1}".into())
            }
            "userDataStream.subscribe" => {
                self.main = conn;
                ok("{\"subscriptionId\":0}".into())
            }
            "openOrders.status" => {
                let symbol = member(text, "symbol");
                let of = |order: &&String| member(order, "symbol") == symbol || symbol.is_empty();
                let list: Vec<_> = self.open.iter().filter(of).cloned().collect();
                ok(format!("[{}]", list.join(",")))
            }
            "account.status" => ok(r#"{"balances":[{"asset":"BTC","free":"1.5","locked":"0.25"},{"asset":"XYZ","free":"9","locked":"0"}]}"#.into()),
            "account.commission" => ok(r#"{"symbol":"X","standardCommission":{"maker":"0.00080000","taker":"0.00100000","buyer":"0","seller":"0"},"specialCommission":{"maker":"0","taker":"0.0001","buyer":"0","seller":"0"},"taxCommission":{"maker":"0","taker":"0","buyer":"0","seller":"0"},"discount":{"discountAsset":"BNB","discount":"0.75"}}"#.into()),
            "myTrades" => {
                let symbol = member(text, "symbol");
                let order = member(text, "orderId");
                let of = |t: &&String| {
                    member(t, "symbol") == symbol && (order.is_empty() || member(t, "orderId") == order)
                };
                let list: Vec<_> = self.trades.iter().filter(of).cloned().collect();
                ok(format!("[{}]", list.join(",")))
            }
            "order.status" => {
                let by = [member(text, "orderId"), member(text, "origClientOrderId")];
                match by.iter().find_map(|by| self.orders.get(by)) {
                    Some(order) => ok(order.clone()),
                    None => vec![format!("{{\"id\":{id},\"status\":400,\"error\":{{\"code\":-2013,\"msg\":\"Order does not exist.\"}}}}")],
                }
            }
            "order.cancel" => vec![format!("{{\"id\":{id},\"status\":400,\"error\":{{\"code\":-2011,\"msg\":\"Unknown order sent.\"}}}}")],
            other => panic!("asked {other}"),
        }
    }
}

fn credentials() -> Credentials {
    Credentials::BinanceEd25519 {
        api_key: "SIMKEY".into(),
        private_key_pem: "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f".into(),
    }
}

fn bench_with(config: Config, script: Venue1) -> Bench<Venue1> {
    Bench::new(
        Venue::Binance,
        config,
        &credentials(),
        |credentials, desk| Box::new(Binance::new(credentials, desk).unwrap()),
        script,
    )
}

fn ready() -> Bench<Venue1> {
    ready_with(config(Venue::Binance))
}

fn ready_with(config: Config) -> Bench<Venue1> {
    let mut bench = bench_with(config, Venue1::default());
    bench.ready();
    bench.script.spare = *bench.open.iter().find(|conn| **conn != bench.script.main).unwrap();
    bench
}

fn client(order: &NewOrder) -> String {
    ClientId::new(order.run, order.key).as_str().to_owned()
}

/// The reply to an order of 0.015: `executed` of it at 60000.10, ended as `status`.
fn full(text: &str, status: &str, executed: &str) -> String {
    let fills = if executed == "0.00000000" {
        String::new()
    } else {
        format!(
            r#"{{"price":"60000.10000000","qty":"{executed}","commission":"0.000010001","commissionAsset":"BTC","tradeId":900001}}"#
        )
    };
    format!(
        r#"{{"id":{},"status":200,"result":{{"symbol":"BTCUSDT","orderId":4242,"orderListId":-1,"clientOrderId":"{}","transactTime":1764000000123,"price":"60000.10000000","origQty":"0.01500000","executedQty":"{executed}","cummulativeQuoteQty":"0","status":"{status}","timeInForce":"IOC","type":"LIMIT","side":"BUY","workingTime":1,"selfTradePreventionMode":"EXPIRE_TAKER","newThing":{{"x":[1]}},"fills":[{fills}]}},"rateLimits":[]}}"#,
        member(text, "id"),
        member(text, "newClientOrderId")
    )
}

fn error(text: &str, status: u16, code: i64, message: &str) -> String {
    format!(
        r#"{{"id":{},"status":{status},"error":{{"code":{code},"msg":"{message}"}}}}"#,
        member(text, "id")
    )
}

/// An `executionReport`; `l` is the last fill, `z` the total.
fn event(order: &NewOrder, kind: &str, status: &str, l: &str, z: &str) -> String {
    let trade = if kind == "TRADE" {
        r#""n":"0.00001","N":"BTC","t":900001"#
    } else {
        r#""n":"0","N":null,"t":-1"#
    };
    let (c, cc) = if kind == "CANCELED" {
        ("cancel-1".to_owned(), client(order))
    } else {
        (client(order), String::new())
    };
    format!(
        r#"{{"subscriptionId":0,"event":{{"e":"executionReport","E":1764000000200,"s":"BTCUSDT","c":"{c}","S":"BUY","o":"LIMIT","f":"IOC","q":"0.015","p":"60000.10","P":"0","F":"0","g":-1,"C":"{cc}","x":"{kind}","X":"{status}","r":"NONE","i":4242,"l":"{l}","z":"{z}","L":"60000.10",{trade},"T":1764000000200,"I":1,"w":false,"m":false,"M":false,"O":1,"Z":"0","Y":"0","Q":"0","V":"EXPIRE_TAKER","zz":1}}}}"#
    )
}

fn fill_of(reports: &[Report]) -> i64 {
    reports.iter().map(|r| if let Report::Fill { qty, .. } = r { qty.0 } else { 0 }).sum()
}

#[test]
fn the_start_reads_the_whole_account_and_then_is_ready() {
    let bench = ready();
    assert_eq!(bench.sessions().last(), Some(&SessionState::Ready));
    let balances = bench.kinds(Kind::Balance);
    assert_eq!(balances.len(), 3, "every asset of the universe, zero where missing");
    assert_eq!((balances[0].data[0], balances[0].data[1]), (175_000_000, 25_000_000));
    assert_eq!(balances[1].data[0], 0);
    assert!(balances[2].has(tandem_core::record::flag::LAST));
    let fees = bench.kinds(Kind::Fee);
    assert_eq!((fees[0].data[0], fees[0].data[1]), (1_100, 800), "standard and special together");
    let order = [Kind::Fee, Kind::Reconciled];
    let at = order.map(|kind| bench.records.iter().position(|r| r.kind() == Some(kind)).unwrap());
    assert!(at[0] < at[1]);
    let (logon, open) = (
        bench.said.iter().position(|t| t.contains("userDataStream.subscribe")),
        bench.said.iter().position(|t| t.contains("openOrders.status")),
    );
    assert!(logon < open, "S10: the stream is open before the account is read");
}

#[test]
fn golden_orders() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let expected = format!(
        r#"{{"id":{},"method":"order.place","params":{{"symbol":"BTCUSDT","newOrderRespType":"FULL","selfTradePreventionMode":"EXPIRE_TAKER","side":"BUY","type":"LIMIT","timeInForce":"IOC","price":"60000.1","quantity":"0.015","newClientOrderId":"{}","recvWindow":500,"timestamp":{}}}}}"#,
        member(&text, "id"),
        client(&order),
        bench.now() / MS
    );
    assert_eq!(text, expected);
    // Trap 26: a LIMIT_MAKER answers FULL only when asked to, and takes no timeInForce (-1106).
    let maker =
        NewOrder { tif: Tif::PostOnly, action: tandem_core::order::Action::Sell, ..bench.order() };
    let text = bench.send(&maker).unwrap();
    assert!(
        text.contains(r#""side":"SELL","type":"LIMIT_MAKER","price""#) && text.contains("FULL")
    );
    // Trap 24: no exponent, whatever the size.
    let small = NewOrder { qty: Qty(1), px: Px(1), ..bench.order() };
    assert!(bench.send(&small).unwrap().contains(r#""price":"0.01","quantity":"0.00000001""#));
    let late = NewOrder { expires_ns: bench.now() + MS / 2, ..bench.order() };
    assert_eq!(bench.send(&late), None, "less than a millisecond is no window");
}

/// Trap 18: a partly filled IOC ends as EXPIRED; trap 23: the fee is taken from the base.
#[test]
fn trap_18_23_an_expired_ioc_may_have_filled() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    bench.say(conn, &full(&text, "EXPIRED", "0.01000000"));
    let reports = bench.reports(&order);
    assert!(matches!(reports[0], Report::Sent { .. }));
    assert_eq!(reports[1], Report::Ack { venue_id: 4242 });
    // 0.000010001 BTC is 1000.1 quanta: rounded against us.
    let fill = Report::Fill {
        px: Px(6_000_010),
        qty: Qty(1_000_000),
        fee: Amount(1_001),
        asset: 0,
        trade_id: 900_001,
    };
    assert_eq!(reports[2], fill);
    assert_eq!(reports[3], Report::Done { status: DoneStatus::Expired, qty: Qty(1_000_000) });
    bench.pass(100);
    assert_eq!(bench.reports(&order).len(), 4);
    assert_eq!(bench.gateway.desk().orders.live(), 0);
}

/// Trap 34 and row OE-06: events before the reply; whatever comes first settles it, the rest adds nothing.
#[test]
fn trap_34_events_may_come_before_the_reply() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    for message in [
        event(&order, "NEW", "NEW", "0", "0"),
        event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01"),
        event(&order, "EXPIRED", "EXPIRED", "0", "0.01"),
    ] {
        bench.say(conn, &message);
    }
    let before = bench.reports(&order);
    let asked = bench.said.len();
    bench.say(conn, &full(&text, "EXPIRED", "0.01000000").replace("0.000010001", "0.00001"));
    bench.pass(4_000);
    assert_eq!(bench.reports(&order), before);
    let extra = bench.said[asked..]
        .iter()
        .filter(|t| t.contains("order.") || t.contains("orderId"))
        .count();
    assert_eq!(extra, 0);
    println!("figure OE-06: {extra} requests about an order after the stream had settled it");
}

/// Row AC-03. Any order of the same events leads to the same end.
#[test]
fn every_order_of_events_ends_the_same() {
    let mut ends = std::collections::HashSet::new();
    let mut runs = 0;
    let mut permute = vec![vec![]];
    for n in 0..4usize {
        permute = permute
            .into_iter()
            .flat_map(|p: Vec<usize>| {
                (0..=p.len()).map(move |at| {
                    let mut q = p.clone();
                    q.insert(at, n);
                    q
                })
            })
            .collect();
    }
    for permutation in permute {
        let mut bench = ready();
        let order = bench.order();
        let text = bench.send(&order).unwrap();
        let messages = [
            event(&order, "NEW", "NEW", "0", "0"),
            event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01"),
            event(&order, "EXPIRED", "EXPIRED", "0", "0.01"),
            full(&text, "EXPIRED", "0.01000000").replace("0.000010001", "0.00001"),
        ];
        let conn = bench.script.main;
        for idx in permutation {
            bench.say(conn, &messages[idx]);
        }
        let reports = bench.reports(&order);
        let done = reports.iter().rfind(|r| matches!(r, Report::Done { .. })).copied().unwrap();
        let acks = reports.iter().filter(|r| matches!(r, Report::Ack { .. })).count();
        ends.insert((
            fill_of(&reports),
            format!("{done:?}"),
            acks,
            bench.gateway.desk().orders.live(),
        ));
        runs += 1;
    }
    assert_eq!(ends.len(), 1, "{ends:?}");
    println!("figure AC-03: {} distinct end over {runs} orders of 4 events", ends.len());
}

/// Row AC-01. A fill that comes again is told once; the same id with another content halts.
#[test]
fn a_fill_is_told_once() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let conn = bench.script.main;
    let trade = event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01");
    for _ in 0..10 {
        bench.say(conn, &trade);
    }
    assert_eq!(fill_of(&bench.reports(&order)), 1_000_000);
    assert_eq!(bench.level(), Level::Armed);
    bench.say(conn, &trade.replace(r#""l":"0.01""#, r#""l":"0.009""#));
    assert_eq!(bench.level(), Level::Halt);
    println!("figure AC-01: 1 of 10 equal fills told, another content under the same id halts");
}

/// Trap 16 and row OE-03: a timeout, 5xx, -1006, -1007 are unknown, and nothing is sent again.
#[test]
fn trap_16_no_order_is_ever_sent_again() {
    for (status, code) in
        [(0, 0), (504, -1007), (500, -1006), (503, -1008), (500, -1000), (400, -9999)]
    {
        let mut bench = ready();
        let order = bench.order();
        let text = bench.send(&order).unwrap();
        let conn = bench.script.main;
        if status != 0 {
            bench.say(conn, &error(&text, status, code, "Timeout waiting for response."));
        }
        bench.pass(3_000);
        let reports = bench.reports(&order);
        let cause = if status == 0 { UnknownCause::Timeout } else { UnknownCause::Venue };
        assert_eq!(reports[1..], [Report::Unknown { cause }], "{status} {code}");
        bench.pass(30_000);
        assert_eq!(bench.wires.sent.len(), 1, "one write of it, ever");
    }
}

/// Row OE-03. It was executed and the reply was lost: found by its client id, its fills by its trades.
#[test]
fn a_lost_reply_is_found_out() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let found = format!(
        r#"{{"symbol":"BTCUSDT","orderId":4242,"clientOrderId":"{}","price":"60000.10","origQty":"0.015","executedQty":"0.01","cummulativeQuoteQty":"600","status":"EXPIRED"}}"#,
        client(&order)
    );
    bench.script.orders.insert(client(&order), found);
    bench.script.trades.push(r#"{"symbol":"BTCUSDT","id":55,"orderId":4242,"price":"60000.10","qty":"0.01","quoteQty":"600","commission":"0.00001","commissionAsset":"BTC","time":1764000000100,"isBuyer":true}"#.into());
    bench.pass(4_000);
    let reports = bench.reports(&order);
    assert_eq!(reports[1], Report::Unknown { cause: UnknownCause::Timeout });
    assert_eq!(reports[2], Report::Ack { venue_id: 4242 });
    assert!(reports.contains(&Report::Done { status: DoneStatus::Expired, qty: Qty(1_000_000) }));
    assert_eq!(fill_of(&reports), 1_000_000);
    assert!(
        bench.said.iter().any(|t| t.contains("order.status") && t.contains("origClientOrderId"))
    );
    println!(
        "figure OE-03: lost reply told as unknown after 2 s, resolved by query and trades within 2 s more, 0 resent"
    );
}

/// Row OE-04, trap 21: "not found" proves nothing early, nor without trades, nor seldom.
#[test]
fn trap_21_not_found_needs_proof() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let from = bench.now() + 12 * SECOND;
    let mut done_at = None;
    while bench.now() < from + 20 * SECOND && done_at.is_none() {
        bench.pass(10);
        if bench.reports(&order).iter().any(|r| matches!(r, Report::Done { .. })) {
            done_at = Some(bench.now());
        }
    }
    let done_at = done_at.expect("proof in the end");
    assert!(from <= done_at, "not before the time that proves it");
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) })
    );
    let polls = bench.script.seen["order.status"];
    assert!(3 <= polls, "{polls}");
    println!(
        "figure OE-04: proof after {} ms and {polls} polls with a clean trades query",
        (done_at - from + 12 * SECOND) / MS
    );
}

/// OE-04: without an answer about trades there is no proof.
#[test]
fn not_found_without_a_trades_query_is_no_proof() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    bench.script.mute.push("myTrades");
    bench.pass(30_000);
    assert!(!bench.reports(&order).iter().any(|r| matches!(r, Report::Done { .. })));
}

/// OE-04: enough time, but too few polls.
#[test]
fn one_poll_is_no_proof() {
    let config = Config { proof_polls: 200, ..config(Venue::Binance) };
    let mut bench = bench_with(config, Venue1::default());
    bench.ready();
    let order = bench.order();
    bench.send(&order);
    bench.pass(20_000);
    assert!(!bench.reports(&order).iter().any(|r| matches!(r, Report::Done { .. })));
}

/// OE-04: an order that only hides while it lives is found by its trades, though no query finds it.
#[test]
fn a_hidden_order_that_filled_is_not_taken_for_nothing() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    bench.pass(11_000);
    bench.script.trades.push(r#"{"symbol":"BTCUSDT","id":55,"orderId":4242,"price":"60000.10","qty":"0.015","quoteQty":"900","commission":"0.00001","commissionAsset":"BTC","time":1764000001100}"#.into());
    let found = format!(
        r#"{{"symbol":"BTCUSDT","orderId":4242,"clientOrderId":"{}","executedQty":"0.015","status":"FILLED"}}"#,
        client(&order)
    );
    bench.script.orders.insert("4242".into(), found);
    bench.pass(20_000);
    let reports = bench.reports(&order);
    assert_eq!(fill_of(&reports), 1_500_000);
    assert!(!reports.contains(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) }));
    println!(
        "figure OE-04: order hidden from queries for 30 s and filled: found by its trades, 0 filled-as-rejected"
    );
}

/// Trap 17: `Duplicate order sent.` means that an order of ours lives.
#[test]
fn trap_17_a_duplicate_is_not_a_reject() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    bench.say(conn, &error(&text, 400, -2010, "Duplicate order sent."));
    assert_eq!(bench.reports(&order)[1], Report::Unknown { cause: UnknownCause::Venue });
}

#[test]
fn a_certain_reject_is_one() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    bench.say(
        conn,
        &error(&text, 400, -2010, "Account has insufficient balance for requested action."),
    );
    assert_eq!(bench.reports(&order)[1], Report::Reject { class: RejectClass::Funds, code: -2010 });
    assert_eq!(bench.gateway.desk().orders.live(), 0);
}

/// Traps 19 and 22, row OE-08: the cancel's event carries another id in `c`; -2011 may mean filled; a fill
/// after the cancel is told.
#[test]
fn trap_19_22_cancels() {
    let mut bench = ready();
    let order = NewOrder { tif: Tif::Gtc, ..bench.order() };
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    bench.say(conn, &full(&text, "NEW", "0.00000000"));
    bench.say(conn, &event(&order, "NEW", "NEW", "0", "0"));
    let cancel = tandem_core::order::request(Kind::OrderCancel, Venue::Binance, 0, RUN, order.key);
    bench.give(&cancel);
    let said = bench.said.iter().rfind(|t| t.contains("order.cancel")).unwrap();
    assert!(said.contains("\"orderId\":4242"), "the fast path: {said}");
    // The script refuses it with -2011: reported, and asked about at once.
    assert!(
        bench
            .reports(&order)
            .contains(&Report::CancelReject { class: RejectClass::NoOrder, code: -2011 })
    );
    bench.pass(20);
    assert!(bench.said.iter().any(|t| t.contains("order.status")));
    bench.say(conn, &event(&order, "CANCELED", "CANCELED", "0", "0"));
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::Cancelled, qty: Qty(0) })
    );
    bench.say(conn, &event(&order, "TRADE", "PARTIALLY_FILLED", "0.005", "0.005"));
    let reports = bench.reports(&order);
    assert_eq!(fill_of(&reports), 500_000, "a fill after the end is always applied");
    println!("figure OE-08: 1 of 1 fills after the cancel's confirmation told");
}

/// Trap 35 and row OE-17: an error of id null refuses the session; no order leaves after it.
#[test]
fn trap_35_a_revoked_key_stops_the_venue() {
    let mut bench = ready();
    let conn = bench.script.main;
    bench.say(conn, r#"{"id":null,"status":401,"error":{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}}"#);
    assert_eq!(bench.state(), SessionState::Refused);
    assert_eq!(bench.level(), Level::Halt);
    let order = bench.order();
    assert_eq!(bench.send(&order), None);
    assert_eq!(
        bench.reports(&order),
        [Report::Reject { class: RejectClass::NotSent, code: GuardReason::Session as i64 }]
    );
    println!("figure OE-17: 0 new orders after the first refusal of the key");
}

/// Trap 36 and row OE-02: `retryAfter` is a time in milliseconds; nothing new goes out before it, cancels
/// do; 418 halts.
#[test]
fn trap_36_a_limit_stops_new_orders_until_its_time() {
    for (status, halts) in [(429, false), (418, true)] {
        let mut bench = ready();
        let resting = NewOrder { tif: Tif::Gtc, ..bench.order() };
        let text = bench.send(&resting).unwrap();
        let conn = bench.script.main;
        bench.say(conn, &full(&text, "NEW", "0.00000000"));
        bench.say(conn, &event(&resting, "NEW", "NEW", "0", "0"));
        let order = bench.order();
        let text = bench.send(&order).unwrap();
        let until = bench.now() / MS + 5_000;
        bench.say(conn, &format!(r#"{{"id":{},"status":{status},"error":{{"code":-1003,"msg":"Too much","data":{{"serverTime":1,"retryAfter":{until}}}}}}}"#, member(&text, "id")));
        assert_eq!(
            bench.reports(&order)[1],
            Report::Reject { class: RejectClass::RateLimit, code: -1003 }
        );
        assert_eq!(bench.state(), SessionState::Suspended);
        assert_eq!(bench.level() == Level::Halt, halts);
        let (sent, said) = (bench.wires.sent.len(), bench.said.len());
        bench.pass(4_900);
        let next = bench.order();
        assert_eq!(bench.send(&next), None);
        assert_eq!(bench.wires.sent.len(), sent);
        let queries = bench.said[said..].iter().filter(|t| !t.contains("order.cancel")).count();
        assert_eq!(queries, 0, "nor is anything asked");
        bench.give(&tandem_core::order::request(
            Kind::OrderCancel,
            Venue::Binance,
            0,
            RUN,
            resting.key,
        ));
        assert!(
            bench.said.iter().any(|t| t.contains("order.cancel")),
            "cancels keep their reserve"
        );
        bench.pass(200);
        assert_eq!(bench.state(), SessionState::Ready);
        println!(
            "figure OE-02: binance {status}: 0 requests inside the window, cancels went out, ready after it"
        );
    }
}

/// Traps 32, 33 and row OE-05: the connection is lost with an order on it; the new one is subscribed again
/// and the account read again before anything is sent.
#[test]
fn trap_32_33_after_a_reconnect_everything_is_read_again() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let before = bench.script.seen.clone();
    let conn = bench.script.main;
    bench.close(conn, CloseCause::Reset);
    bench.pump();
    assert_eq!(bench.reports(&order)[1], Report::Unknown { cause: UnknownCause::Disconnect });
    assert_ne!(bench.state(), SessionState::Ready);
    bench.pass(3_000);
    assert_ne!(bench.state(), SessionState::Ready, "an order is in doubt: not ready");
    for method in ["userDataStream.subscribe", "openOrders.status", "account.status", "myTrades"] {
        assert!(before[method] < bench.script.seen[method], "{method}");
    }
    bench.pass(15_000);
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) })
    );
    assert_eq!(bench.state(), SessionState::Ready);
}

/// S10: what the stream says while the account is read is applied after it.
#[test]
fn the_stream_is_held_while_the_account_is_read() {
    let mut bench = bench_with(
        config(Venue::Binance),
        Venue1 { mute: vec!["account.status"], ..Venue1::default() },
    );
    bench.pass(100);
    let conn = bench.script.main;
    bench.say(conn, r#"{"subscriptionId":0,"event":{"e":"outboundAccountPosition","E":1,"u":1,"B":[{"a":"BTC","f":"7","l":"0"}]}}"#);
    assert!(bench.kinds(Kind::Balance).is_empty());
    bench.script.mute.clear();
    bench.pass(20_000);
    assert_eq!(bench.state(), SessionState::Ready);
    let balances = bench.kinds(Kind::Balance);
    let streamed = balances.iter().position(|b| b.data[2] == 2).expect("applied");
    assert!(3 <= streamed, "after the snapshot");
    assert_eq!(balances[streamed].data[0], 700_000_000);
}

/// Section 8.2 of the reliability reference: ours of an older run is adopted and cancelled, a foreign one
/// told and left alone.
#[test]
fn open_orders_at_the_start() {
    let old = ClientId::new(3, tandem_core::order::OrderKey::new(9, 1));
    let open = |client: &str, id: u32| {
        format!(
            r#"{{"symbol":"BTCUSDT","orderId":{id},"clientOrderId":"{client}","price":"50000","origQty":"0.5","executedQty":"0.1","status":"PARTIALLY_FILLED","side":"SELL"}}"#
        )
    };
    let mut script =
        Venue1 { open: vec![open(old.as_str(), 1), open("web_123", 2)], ..Venue1::default() };
    script.orders.insert("1".into(), open(old.as_str(), 1));
    let mut bench = bench_with(config(Venue::Binance), script);
    bench.ready();
    let foreign = bench.kinds(Kind::ForeignOrder);
    assert_eq!(
        (foreign[0].data[0], foreign[0].data[1], foreign[0].data[2]),
        (5_000_000, 40_000_000, 1)
    );
    let cancels: Vec<_> = bench.said.iter().filter(|t| t.contains("order.cancel")).collect();
    assert!(!cancels.is_empty() && cancels.iter().all(|t| t.contains("\"orderId\":1")));
    let acks: Vec<_> = bench.kinds(Kind::OrderAck).iter().map(|r| r.run).collect();
    assert_eq!(acks, [3], "reported with the run it was made by");
    let reconciled = bench.kinds(Kind::Reconciled);
    assert_eq!((reconciled[0].data[0], reconciled[0].data[1]), (1, 1));
}

/// A gateway that died: what is in the ring is asked about, and never sent.
#[test]
fn inherited_orders_are_never_sent() {
    let mut bench = bench_with(config(Venue::Binance), Venue1::default());
    let order = bench.order();
    let record = order.record(&tandem_core::record::Record::default());
    bench.gateway.inherit(&record, &Predecessor::default(), START);
    bench.pump();
    assert_eq!(bench.reports(&order), [Report::Unknown { cause: UnknownCause::Restart }]);
    bench.pass(5_000);
    assert_ne!(bench.state(), SessionState::Ready, "until it is settled");
    bench.pass(15_000);
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) })
    );
    assert_eq!(bench.state(), SessionState::Ready);
    let again = NewOrder { expires_ns: bench.now() + SECOND, ..order };
    assert_eq!(bench.send(&again), None, "its key is used up");
    assert_eq!(bench.gate.level().of(Scope::Global), Level::Kill);
}

/// Row AC-04. A stream that says nothing of orders that replies told of is dead, though its socket lives.
#[test]
fn a_frozen_user_stream_is_noticed() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    bench.say(conn, &full(&text, "FILLED", "0.01500000"));
    let sent_at = bench.now();
    while bench.open.contains(&conn) {
        bench.pass(10);
        assert!(bench.now() < sent_at + 10 * SECOND, "noticed");
    }
    let took = (bench.now() - sent_at) / MS;
    bench.ready();
    println!(
        "figure AC-04: binance stream that tells nothing of orders replaced after {took} ms, account read again"
    );
}

/// Row OE-14. More than was ordered, or a worse price, halts the venue.
#[test]
fn a_venue_that_lies_is_halted() {
    for (l, px) in [("0.016", "60000.10"), ("0.01", "60000.11")] {
        let mut bench = ready();
        let order = bench.order();
        bench.send(&order);
        let conn = bench.script.main;
        bench.say(
            conn,
            &event(&order, "TRADE", "PARTIALLY_FILLED", l, l)
                .replace("\"L\":\"60000.10\"", &format!("\"L\":\"{px}\"")),
        );
        assert_eq!(bench.level(), Level::Halt);
        assert!(0 < fill_of(&bench.reports(&order)), "told nevertheless");
    }
    println!("figure OE-14: 2 of 2 impossible fills halt within the message");
}

#[test]
fn the_guard_refuses_with_its_reason() {
    let mut bench = ready();
    let refused = |bench: &mut Bench<Venue1>, order: NewOrder, reason: GuardReason| {
        assert_eq!(bench.send(&order), None, "{reason:?}");
        let code = reason as i64;
        assert_eq!(bench.reports(&order), [Report::Reject { class: RejectClass::NotSent, code }]);
    };
    let order = NewOrder { venue: Venue::Kraken, ..bench.order() };
    refused(&mut bench, order, GuardReason::Address);
    let order = NewOrder { instrument: 9, ..bench.order() };
    refused(&mut bench, order, GuardReason::Address);
    let order = NewOrder { expires_ns: bench.now(), ..bench.order() };
    refused(&mut bench, order, GuardReason::Expired);
    bench.wires.refuse = true;
    let order = bench.order();
    refused(&mut bench, order, GuardReason::Backlog);
    bench.wires.refuse = false;
    bench.gate.raise(Scope::Venue(Venue::Binance), Level::Pause, Cause::Operator);
    let order = bench.order();
    refused(&mut bench, order, GuardReason::Level);
    let hedge = NewOrder { purpose: Purpose::Hedge, ..bench.order() };
    assert!(bench.send(&hedge).is_some(), "what reduces may at PAUSE");
    let mut broken = bench.order().record(&tandem_core::record::Record::default());
    broken.data[3] = 0xff;
    bench.give(&broken);
    assert!(bench.records.iter().any(|r| Report::read(r).is_some_and(|(_, _, report)| report
        == Report::Reject { class: RejectClass::NotSent, code: GuardReason::Malformed as i64 })));
}

/// C13: entries stop at their share, hedges go on.
#[test]
fn the_budget_keeps_room_for_hedges() {
    let mut bench = ready();
    let sent = (0..30)
        .filter(|_| {
            let order = bench.order();
            bench.send(&order).is_some()
        })
        .count();
    assert_eq!(sent, 20);
    let hedge = NewOrder { purpose: Purpose::Hedge, ..bench.order() };
    assert!(bench.send(&hedge).is_some());
}

/// Row OE-05. A write that failed under an order leaves it unknown, never rejected.
#[test]
fn a_failed_write_is_unknown() {
    let mut bench = ready();
    bench.wires.fail = true;
    let order = bench.order();
    bench.send(&order);
    let reports = bench.reports(&order);
    assert!(matches!(reports[0], Report::Sent { .. }));
    assert_eq!(reports[1], Report::Unknown { cause: UnknownCause::Disconnect });
}

/// Row OE-05. The connection ends after every possible number of the request's bytes, once with the write
/// failing under us and once after a write that the kernel took: what the venue got whole it executes, what
/// it got in part it never saw. We say unknown first, then what was.
#[test]
fn a_connection_cut_at_every_byte_of_the_request() {
    // A masked text frame of a few hundred bytes has 8 before the text.
    const FRAME: usize = 8;
    let length = {
        let mut bench = ready();
        let order = bench.order();
        bench.send(&order).unwrap().len() + FRAME
    };
    let (mut never, mut filled) = (0, 0);
    for cut in 0..=length {
        for fails in [true, false] {
            let mut bench = ready();
            bench.wires.fail = fails;
            let order = bench.order();
            let conn = bench.script.main;
            let text = bench.send(&order).unwrap();
            assert_eq!(text.len() + FRAME, length);
            if bench.open.contains(&conn) {
                bench.close(conn, CloseCause::Reset);
            }
            let arrived = cut == length;
            if arrived {
                let id = client(&order);
                let found = format!(
                    r#"{{"symbol":"BTCUSDT","orderId":4242,"clientOrderId":"{id}","price":"60000.10","origQty":"0.015","executedQty":"0.015","cummulativeQuoteQty":"900","status":"FILLED"}}"#
                );
                bench.script.orders.insert(id, found);
                bench.script.trades.push(r#"{"symbol":"BTCUSDT","id":55,"orderId":4242,"price":"60000.10","qty":"0.015","quoteQty":"900","commission":"0.00001","commissionAsset":"BTC","time":1764000000100,"isBuyer":true}"#.into());
            }
            bench.wires.fail = false;
            bench.pass(100);
            let early = bench.reports(&order);
            assert!(
                early.iter().any(|r| matches!(r, Report::Unknown { .. })),
                "cut at {cut}: {early:?}"
            );
            bench.pass(20_000);
            let reports = bench.reports(&order);
            let ends: Vec<&Report> = reports
                .iter()
                .filter(|r| matches!(r, Report::Done { .. } | Report::Reject { .. }))
                .collect();
            let (status, qty) = if arrived {
                (DoneStatus::Filled, order.qty)
            } else {
                (DoneStatus::NeverAccepted, Qty(0))
            };
            assert_eq!(ends, [&Report::Done { status, qty }], "cut at {cut}: {reports:?}");
            assert_eq!(fill_of(&reports), qty.0, "cut at {cut}");
            assert_eq!(bench.wires.sent.len(), 1, "cut at {cut}: sent again");
            assert_eq!(bench.state(), SessionState::Ready, "cut at {cut}");
            (never, filled) = (never + u64::from(!arrived), filled + u64::from(arrived));
        }
    }
    println!(
        "figure OE-05: cut at each of {length} bytes, {} cases: {never} never accepted, {filled} filled, 0 wrong, 0 sent again",
        never + filled
    );
}

/// Trap 37: HTML with 403 over REST is no JSON, and no answer to what was asked.
#[test]
fn trap_37_a_firewalls_page_over_rest() {
    struct Rest(Venue1);
    impl Script for Rest {
        fn on_text(&mut self, conn: u32, text: &str) -> Vec<String> {
            self.0.on_text(conn, text)
        }
        fn on_http(&mut self, head: &str, _: &str) -> Option<(u16, String)> {
            assert!(
                head.starts_with("GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=t")
                    || head.starts_with("GET /api/v3/myTrades"),
                "{head}"
            );
            assert!(head.contains("&signature=") && head.contains("X-MBX-APIKEY: SIMKEY"));
            Some((403, "<html>Forbidden</html>".into()))
        }
    }
    let mut bench = Bench::new(
        Venue::Binance,
        config(Venue::Binance),
        &credentials(),
        |credentials, desk| Box::new(Binance::new(credentials, desk).unwrap()),
        Rest(Venue1::default()),
    );
    bench.ready();
    let order = bench.order();
    bench.send(&order);
    // Both sessions are gone: what became of the order is asked by REST.
    for conn in bench.open.clone() {
        bench.close(conn, CloseCause::Reset);
    }
    bench.gateway.on_timer(bench.now(), true, &bench.gate);
    bench.pump();
    assert!(bench.said.iter().any(|t| t.starts_with("GET /api/v3/order?")));
    assert_ne!(bench.state(), SessionState::Ready);
    assert!(
        !bench
            .reports(&order)
            .iter()
            .any(|r| matches!(r, Report::Reject { .. } | Report::Done { .. }))
    );
}

/// Trap 39 and decoders in general: nothing that a venue sends makes a panic.
#[test]
fn mutated_messages_are_survived() {
    let mut seed = 0x9e37_79b9u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    let golden = [
        event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01"),
        event(&order, "CANCELED", "CANCELED", "0", "0.01"),
        full(&text, "EXPIRED", "0.01000000"),
        error(&text, 429, -1003, "x"),
        r#"{"subscriptionId":0,"event":{"e":"outboundAccountPosition","B":[{"a":"BTC","f":"1","l":"2"}]}}"#.into(),
    ];
    for message in &golden {
        for cut in 0..message.len() {
            bench.hear(conn, &message[..cut]);
        }
    }
    for round in 0..20_000 {
        let mut bytes = golden[round % golden.len()].clone().into_bytes();
        for _ in 0..1 + next() % 4 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = b"0123456789-.eE\"{}[],:nullTRADEx"[(next() % 31) as usize];
        }
        let at = bench.at();
        bench.gateway.on_text(conn, &bytes, at, &bench.gate);
        while bench.gateway.next_action().is_some() {}
        while bench.gateway.next_record().is_some() {}
    }
}

/// A trade as `myTrades` lists it, of the order that [`event`] tells of.
fn listed(id: u64, px: &str, qty: &str) -> String {
    format!(
        r#"{{"symbol":"BTCUSDT","id":{id},"orderId":4242,"price":"{px}","qty":"{qty}","quoteQty":"600","commission":"0.00001","commissionAsset":"BTC","time":1764000000200,"isBuyer":true}}"#
    )
}

/// An order of which 0.01 were filled and told, and are listed.
fn filled() -> (Bench<Venue1>, NewOrder) {
    let mut bench = ready_with(quick(Venue::Binance));
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.main;
    for message in [
        event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01"),
        event(&order, "EXPIRED", "EXPIRED", "0", "0.01"),
    ] {
        bench.say(conn, &message);
    }
    bench.say(conn, &full(&text, "EXPIRED", "0.01000000").replace("0.000010001", "0.00001"));
    bench.script.trades = vec![listed(900_001, "60000.10", "0.01")];
    (bench, order)
}

fn busts(bench: &Bench<Venue1>, order: &NewOrder) -> Vec<(u64, Option<FillTerms>)> {
    let bust = |report: Report| match report {
        Report::Bust { trade_id, instead } => Some((trade_id, instead)),
        _ => None,
    };
    bench.reports(order).into_iter().filter_map(bust).collect()
}

fn lists(bench: &Bench<Venue1>) -> usize {
    bench.script.seen.get("myTrades").copied().unwrap_or(0)
}

/// Row OE-20. Nothing in the stream says that a trade was taken back: two whole lists in a row without it do,
/// the second soon after the first. Then it is told once.
#[test]
fn a_fill_that_is_gone_from_two_lists_is_told_once() {
    let (mut bench, order) = filled();
    bench.pass(32_000);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Armed));
    bench.script.trades.clear();
    let before = lists(&bench);
    bench.pass(29_500);
    assert_eq!(
        (busts(&bench, &order).len(), bench.level()),
        (0, Level::Armed),
        "one is not enough"
    );
    bench.pass(4_000);
    assert_eq!(busts(&bench, &order), [(900_001, None)]);
    assert_eq!(lists(&bench) - before, 4, "two lists of two instruments");
    assert_eq!((bench.level(), bench.gate.level().cause()), (Level::Halt, Some(Cause::Bust)));
    bench.pass(70_000);
    assert_eq!(busts(&bench, &order).len(), 1, "told once");
    assert_eq!(fill_of(&bench.reports(&order)), 1_000_000, "the fill stays told");
    println!("figure OE-20: binance 1 of 1 busted fills told after two lists, once");
}

/// Row OE-20. What a list cannot prove is not told: too early, one list, not whole, not readable.
#[test]
fn a_list_that_proves_nothing_tells_nothing() {
    let (mut bench, order) = filled();
    // Too young to be listed: the stream's word on a balance asks at once, and again once it may be.
    bench.script.trades.clear();
    let conn = bench.script.main;
    bench.say(
        conn,
        r#"{"subscriptionId":0,"event":{"e":"balanceUpdate","E":1,"a":"BTC","d":"-0.01","T":1}}"#,
    );
    bench.pass(4_000);
    assert_eq!(busts(&bench, &order).len(), 0);
    // There again at the second look.
    bench.pass(2_500);
    bench.script.trades = vec![listed(900_001, "60000.10", "0.01")];
    bench.pass(10_000);
    assert_eq!(busts(&bench, &order).len(), 0);
    // A row that cannot be read might be it.
    bench.script.trades = vec![listed(900_001, "60000.10", "?")];
    bench.pass(65_000);
    assert_eq!(busts(&bench, &order).len(), 0);
    // No list.
    bench.script.mute = vec!["myTrades"];
    bench.pass(65_000);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Armed));
    bench.script.mute.clear();
    bench.script.trades = vec![listed(900_001, "60000.10", "0.01")];
    bench.pass(65_000);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Armed));
}

/// Row OE-20. A trade that is listed with other numbers halts at once, and is corrected by the second list.
#[test]
fn a_fill_that_is_listed_otherwise_twice_is_corrected() {
    let (mut bench, order) = filled();
    bench.script.trades = vec![listed(900_001, "60000.09", "0.01")];
    bench.pass(31_000);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Halt));
    bench.pass(4_000);
    let is = FillTerms { px: Px(6_000_009), qty: Qty(1_000_000), fee: Amount(1_000), asset: 0 };
    assert_eq!(busts(&bench, &order), [(900_001, Some(is))]);
    bench.pass(65_000);
    assert_eq!(busts(&bench, &order).len(), 1);
}

/// Row OE-20. A list without most of what was traded is no list: halted, and nothing told.
#[test]
fn a_list_that_lacks_too_much_halts_and_tells_nothing() {
    let mut bench = ready_with(quick(Venue::Binance));
    let conn = bench.script.main;
    let mut orders = Vec::new();
    for n in 0..6u64 {
        let order = bench.order();
        bench.send(&order).unwrap();
        let other = |text: String| {
            let text = text.replace("\"i\":4242", &format!("\"i\":{}", 4_242 + n));
            text.replace("\"t\":900001", &format!("\"t\":{}", 900_001 + n))
        };
        bench.say(conn, &other(event(&order, "TRADE", "PARTIALLY_FILLED", "0.01", "0.01")));
        bench.say(conn, &other(event(&order, "EXPIRED", "EXPIRED", "0", "0.01")));
        orders.push(order);
    }
    bench.pass(65_000);
    let told: usize = orders.iter().map(|order| busts(&bench, order).len()).sum();
    assert_eq!((told, bench.level()), (0, Level::Halt));
}
