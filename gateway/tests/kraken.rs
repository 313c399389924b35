//! Kraken's order entry on a scripted venue: the traps of `protocols/kraken.md` section 12 that concern
//! orders, and rows of the fault matrix.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashMap;

use support::*;
use tandem_core::account::SessionState;
use tandem_core::level::Level;
use tandem_core::order::{
    Action, ClientId, DoneStatus, FillTerms, NewOrder, RejectClass, Report, Tif, UnknownCause,
};
use tandem_core::record::{Kind, Venue};
use tandem_core::units::{Amount, Px, Qty};
use tandem_feeds::machine::CloseCause;
use tandem_gateway::config::Config;
use tandem_gateway::guard::GuardReason;
use tandem_gateway::keys::Credentials;
use tandem_gateway::kraken::Kraken;

const ID: &str = "OUF4EM-FRGI2-MQMWZD";

#[derive(Default)]
struct Venue1 {
    /// REST order records by client id or txid, open and ended ones.
    open: HashMap<String, String>,
    closed: HashMap<String, String>,
    trades: String,
    /// How many the venue says there are.
    trades_count: u32,
    conn: u32,
    tokens: usize,
    seen: HashMap<String, usize>,
    mute: Vec<&'static str>,
    deadmen: usize,
    silent: bool,
    /// What `BalanceEx` says; empty for the usual.
    balances: String,
}

impl Script for Venue1 {
    fn on_open(&mut self, conn: u32) -> Vec<String> {
        self.conn = conn;
        vec![
            r#"{"channel":"status","type":"update","data":[{"version":"2.0.0","system":"online","api_version":"v2","connection_id":12393906104898154338}]}"#.into(),
        ]
    }
    fn heartbeat(&mut self) -> Option<(u32, String)> {
        (!self.silent).then(|| (self.conn, "{\"channel\":\"heartbeat\"}".into()))
    }
    fn on_text(&mut self, _: u32, text: &str) -> Vec<String> {
        let (id, method) = (member(text, "req_id"), member(text, "method"));
        assert!(
            text.contains(&format!("\"token\":\"token-{}\"", self.tokens)),
            "this connection's token: {text}"
        );
        let ok = |result: &str| {
            format!(
                "{{\"method\":\"{method}\",\"req_id\":{id},\"success\":true,\"result\":{result},\"time_in\":\"x\",\"time_out\":\"y\"}}"
            )
        };
        match method.as_str() {
            "subscribe" => {
                let channel = member(text, "channel");
                // A snapshot may come before the acknowledgement.
                let data = if channel == "balances" {
                    r#"{"asset":"BTC","asset_class":"currency","balance":1.2}"#
                } else {
                    ""
                };
                vec![
                    format!(
                        r#"{{"channel":"{channel}","type":"snapshot","data":[{data}],"sequence":1}}"#
                    ),
                    ok(&format!(
                        "{{\"channel\":\"{channel}\",\"snapshot\":true,\"maxratecount\":60}}"
                    )),
                ]
            }
            "cancel_all_orders_after" => {
                self.deadmen += 1;
                assert_eq!(member(text, "timeout"), "60");
                vec![ok(r#"{"currentTime":"a","triggerTime":"b"}"#)]
            }
            "cancel_order" => vec![ok(&format!("{{\"order_id\":\"{ID}\"}}"))],
            other => panic!("asked {other}"),
        }
    }
    fn on_http(&mut self, head: &str, body: &str) -> Option<(u16, String)> {
        let method = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        *self.seen.entry(method.clone()).or_default() += 1;
        assert!(body.starts_with("nonce=") && head.contains("API-Sign: "));
        if self.mute.contains(&method.as_str()) {
            return None;
        }
        let param = |name: &str| {
            body.split('&')
                .find_map(|p| p.strip_prefix(&format!("{name}=")))
                .unwrap_or("")
                .to_owned()
        };
        let pick = |from: &HashMap<String, String>| {
            let wanted = [param("cl_ord_id"), param("txid")];
            let all = wanted.iter().all(String::is_empty);
            let list: Vec<_> = from
                .iter()
                .filter(|(k, _)| all || wanted.contains(k))
                .map(|(_, v)| format!("\"{ID}\":{v}"))
                .collect();
            format!("{{{}}}", list.join(","))
        };
        let result = match method.as_str() {
            "GetWebSocketsToken" => {
                self.tokens += 1;
                format!("{{\"token\":\"token-{}\",\"expires\":900}}", self.tokens)
            }
            "OpenOrders" => format!("{{\"open\":{}}}", pick(&self.open)),
            "ClosedOrders" => format!("{{\"closed\":{},\"count\":1}}", pick(&self.closed)),
            "QueryOrders" => { let mut all = self.open.clone(); all.extend(self.closed.clone()); pick(&all) }
            "BalanceEx" if !self.balances.is_empty() => self.balances.clone(),
            "BalanceEx" => r#"{"ZUSD":{"balance":"200.5","hold_trade":"20.25"},"XXBT":{"balance":"1.2","hold_trade":"0.2"},"XBT.F":{"balance":"9","hold_trade":"0"}}"#.into(),
            "TradesHistory" => format!("{{\"trades\":{{{}}},\"count\":{}}}", self.trades, self.trades_count),
            "TradeVolume" => r#"{"currency":"USD","fees":{"XXBTZUSD":{"fee":"0.2600"},"XETHXXBT":{"fee":"0.2601"}},"fees_maker":{"XXBTZUSD":{"fee":"0.1600"}}}"#.into(),
            other => panic!("asked {other}"),
        };
        Some((200, format!("{{\"error\":[],\"result\":{result}}}")))
    }
}

fn bench() -> Bench<Venue1> {
    bench_with(config(Venue::Kraken))
}

fn bench_with(config: Config) -> Bench<Venue1> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static FILES: AtomicU32 = AtomicU32::new(0);
    let file = std::env::temp_dir().join(format!(
        "tandem-kraken-nonce-{}-{}",
        std::process::id(),
        FILES.fetch_add(1, Ordering::Relaxed)
    ));
    let credentials = Credentials::Kraken {
        api_key: "K".into(),
        secret: "AAECAwQFBgc=".into(),
        nonce_file: file.clone(),
    };
    let bench = Bench::new(
        Venue::Kraken,
        config,
        &credentials,
        |credentials, desk| Box::new(Kraken::new(credentials, desk, START).unwrap()),
        Venue1::default(),
    );
    let _ = std::fs::remove_file(file);
    bench
}

fn ready() -> Bench<Venue1> {
    ready_with(config(Venue::Kraken))
}

fn ready_with(config: Config) -> Bench<Venue1> {
    let mut bench = bench_with(config);
    bench.ready();
    bench
}

fn client(order: &NewOrder) -> String {
    ClientId::new(order.run, order.key).as_str().to_owned()
}

fn success(text: &str) -> String {
    format!(
        "{{\"method\":\"add_order\",\"req_id\":{},\"success\":true,\"result\":{{\"order_id\":\"{ID}\",\"cl_ord_id\":\"x\",\"warnings\":[]}},\"time_in\":\"a\",\"time_out\":\"b\"}}",
        member(text, "req_id")
    )
}

fn failure(text: &str, error: &str) -> String {
    format!(
        "{{\"method\":\"add_order\",\"req_id\":{},\"success\":false,\"error\":\"{error}\",\"time_in\":\"a\",\"time_out\":\"b\"}}",
        member(text, "req_id")
    )
}

fn executions(sequence: u64, items: &str) -> String {
    format!(
        "{{\"channel\":\"executions\",\"type\":\"update\",\"data\":[{items}],\"sequence\":{sequence},\"new_member\":true}}"
    )
}

fn full_new(order: &NewOrder) -> String {
    format!(
        r#"{{"order_id":"{ID}","cl_ord_id":"{}","exec_type":"pending_new","order_status":"pending_new","symbol":"BTC/USD","side":"buy","order_qty":0.015,"limit_price":60000.1}}"#,
        client(order)
    )
}
const SPARSE_NEW: &str = r#"{"order_id":"OUF4EM-FRGI2-MQMWZD","order_userref":0,"exec_type":"new","order_status":"new","timestamp":"2025-11-24T16:00:00.123456Z"}"#;
const TRADE: &str = r#"{"order_id":"OUF4EM-FRGI2-MQMWZD","exec_id":"TA","trade_id":77,"exec_type":"trade","order_status":"partially_filled","symbol":"BTC/USD","last_qty":1e-02,"last_price":60000.10,"cum_qty":0.01,"fees":[{"asset":"USD","qty":1.560002601}],"timestamp":"2025-11-24T16:00:00.2Z"}"#;
const CANCELED: &str = r#"{"order_id":"OUF4EM-FRGI2-MQMWZD","exec_type":"canceled","order_status":"canceled","reason":"Remaining","cum_qty":0.01}"#;

fn fill_of(reports: &[Report]) -> i64 {
    reports.iter().map(|r| if let Report::Fill { qty, .. } = r { qty.0 } else { 0 }).sum()
}

/// What cannot be read is not zero: no balance is told, and the account is not reconciled.
#[test]
fn a_balance_that_cannot_be_read_is_told_as_nothing() {
    for balances in [
        r#"{"ZUSD":{"balance":"many"},"XXBT":{"balance":"1.2"}}"#,
        r#"{"ZUSD":{"balance":"5","hold_trade":"?"},"XXBT":{"balance":"1.2"}}"#,
        r#"{"ZUSD":{},"XXBT":{"balance":"1.2"}}"#,
        "[]",
    ] {
        let mut bench = bench();
        bench.script.balances = balances.into();
        bench.pass(5_000);
        let told = bench.kinds(Kind::Balance);
        // Of the snapshot; the stream's own word came too.
        assert!(told.len() <= 1, "{balances}: {told:?}");
        assert_ne!(bench.state(), SessionState::Ready, "{balances}");
        bench.script.balances.clear();
        bench.pass(20_000);
        assert_eq!(bench.state(), SessionState::Ready, "asked again: {balances}");
    }
}

#[test]
fn the_start_arms_the_switch_and_reads_the_account() {
    let bench = ready();
    let balances = bench.kinds(Kind::Balance);
    // Assets in the order of the universe: BTC, USD, ETH; REST's holds, then nothing of `.F`.
    assert_eq!((balances[0].data[0], balances[0].data[1]), (120_000_000, 20_000_000));
    assert_eq!((balances[1].data[0], balances[1].data[1]), (20_050_000_000, 2_025_000_000));
    let fees = bench.kinds(Kind::Fee);
    assert_eq!((fees[0].data[0], fees[0].data[1]), (2_600, 1_600));
    assert_eq!(fees[1].data[0], 2_601);
    assert_eq!(bench.script.tokens, 1);
    let session = bench.records.iter().rev().find_map(tandem_core::account::Session::read).unwrap();
    assert!(bench.now() < session.deadman_ns, "armed before the first order");
}

#[test]
fn golden_orders() {
    let mut bench = ready();
    let order = NewOrder { expires_ns: START + 10 * SECOND, ..bench.order() };
    let text = bench.send(&order).unwrap();
    let mut deadline = tandem_gateway::text::Text::default();
    deadline.time(bench.now() + SECOND);
    let expected = format!(
        r#"{{"method":"add_order","req_id":{},"params":{{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.015,"limit_price":60000.1,"time_in_force":"ioc","stp_type":"cancel_newest","cl_ord_id":"{}","deadline":"{}","token":"token-1"}}}}"#,
        member(&text, "req_id"),
        client(&order),
        std::str::from_utf8(deadline.bytes().unwrap()).unwrap()
    );
    assert_eq!(text, expected);
    let maker = NewOrder { tif: Tif::PostOnly, action: Action::Sell, ..bench.order() };
    assert!(bench.send(&maker).unwrap().contains(r#""side":"sell""#));
    let fok = NewOrder { tif: Tif::Fok, ..bench.order() };
    assert_eq!(bench.send(&fok), None);
    let code = GuardReason::Unsupported as i64;
    assert_eq!(bench.reports(&fok), [Report::Reject { class: RejectClass::NotSent, code }]);
}

/// "token fetched for each order", "new top-level member broke a strict parser", "`filled` is a separate
/// message", sparse updates: an IOC that fills in part, with the stream before the reply.
#[test]
fn trap_sparse_updates_and_executions_before_the_reply() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    bench.say(conn, &executions(2, &full_new(&order)));
    bench.say(conn, &executions(3, SPARSE_NEW));
    bench.say(conn, &executions(4, TRADE));
    bench.say(conn, &executions(5, CANCELED));
    bench.say(conn, &success(&text));
    let reports = bench.reports(&order);
    assert!(matches!(reports[1], Report::Ack { .. }));
    // 1.560002601 dollars are 156000260.1 quanta: up. `1e-02` is a number as well.
    assert_eq!(
        reports[2],
        Report::Fill {
            px: Px(6_000_010),
            qty: Qty(1_000_000),
            fee: Amount(156_000_261),
            asset: 1,
            trade_id: 77
        }
    );
    assert_eq!(reports[3..], [Report::Done { status: DoneStatus::Expired, qty: Qty(1_000_000) }]);
    bench.pass(5_000);
    assert_eq!(bench.reports(&order).len(), 4);
    assert_eq!(bench.script.tokens, 1, "no token for an order");
}

/// "add_order reported as error but the order existed" (ccxt #22200) and EService: unknown, resolved by name.
#[test]
fn trap_an_ambiguous_error_is_no_reject() {
    for error in [
        "EService:Unavailable",
        "EService:Busy",
        "EService:Timeout",
        "EService:Deadline elapsed",
        "EOrder:Brand new",
        "EGeneral:Internal error",
    ] {
        let mut bench = ready();
        let order = bench.order();
        let text = bench.send(&order).unwrap();
        let conn = bench.script.conn;
        bench.script.closed.insert(client(&order), format!(r#"{{"cl_ord_id":"{}","status":"canceled","vol":"0.015","vol_exec":"0.01","cost":"600.001","fee":"1.56","price":"60000.1"}}"#, client(&order)));
        bench.script.trades = format!(
            r#""TA":{{"ordertxid":"{ID}","pair":"XXBTZUSD","time":1764000000.1234,"price":"60000.10","cost":"600","fee":"1.56","vol":"0.01","trade_id":77}}"#
        );
        bench.say(conn, &failure(&text, error));
        assert_eq!(
            bench.reports(&order)[1],
            Report::Unknown { cause: UnknownCause::Venue },
            "{error}"
        );
        bench.pass(3_000);
        let reports = bench.reports(&order);
        assert!(
            reports.contains(&Report::Done { status: DoneStatus::Expired, qty: Qty(1_000_000) }),
            "{reports:?}"
        );
        assert_eq!(fill_of(&reports), 1_000_000);
        assert_eq!(bench.wires.sent.len(), 1);
    }
    println!(
        "figure OE-03: kraken 6 of 6 ambiguous errors unknown and then found by name, 0 resent"
    );
}

/// "add_order on a restricted market never resolves" (ccxt #26987): matched by req_id.
#[test]
fn trap_certain_refusals_are_matched_by_their_request() {
    for (error, class) in [
        ("EOrder:Insufficient funds", RejectClass::Funds),
        ("EAccount:Invalid permissions:BTC trading restricted for XX", RejectClass::Market),
        ("EOrder:Cost minimum not met", RejectClass::Filter),
    ] {
        let mut bench = ready();
        let (first, second) = (bench.order(), bench.order());
        let one = bench.send(&first).unwrap();
        bench.send(&second);
        let conn = bench.script.conn;
        bench.say(conn, &failure(&one, error));
        assert!(matches!(bench.reports(&first)[1], Report::Reject { class: c, .. } if c == class));
        assert_eq!(bench.reports(&second).len(), 1);
    }
}

/// Row OE-04. Neither open nor ended, no trades, late and often enough: never accepted.
#[test]
fn not_found_needs_proof() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let sent = bench.now();
    let mut took = None;
    for _ in 0..6_000 {
        bench.pass(10);
        if bench
            .reports(&order)
            .contains(&Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) })
        {
            took = Some((bench.now() - sent) / MS);
            break;
        }
    }
    let took = took.expect("in the end");
    assert!(12_000 <= took, "{took}");
    println!(
        "figure OE-04: kraken proof after {took} ms, {} open and {} ended lists read",
        bench.script.seen["OpenOrders"], bench.script.seen["ClosedOrders"]
    );
}

/// A sequence gap, and "token invalid after venue upgrade": new connection, new token, account read again.
#[test]
fn trap_a_gap_in_the_sequence_renews_the_session() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let conn = bench.script.conn;
    bench.say(conn, &executions(2, &full_new(&order)));
    bench.say(conn, &executions(4, CANCELED));
    assert!(!bench.open.contains(&conn));
    assert_ne!(bench.state(), SessionState::Ready);
    assert!(
        !bench.reports(&order).iter().any(|r| matches!(r, Report::Done { .. })),
        "nothing of it is believed"
    );
    bench.script.closed.insert(ID.into(), format!(r#"{{"cl_ord_id":"{}","status":"canceled","vol":"0.015","vol_exec":"0","cost":"0","fee":"0","price":"0"}}"#, client(&order)));
    bench.pass(5_000);
    assert_eq!(bench.script.tokens, 2);
    assert_eq!(
        bench.reports(&order).last(),
        Some(&Report::Done { status: DoneStatus::Expired, qty: Qty(0) })
    );
    bench.pass(20_000);
    assert_eq!(bench.state(), SessionState::Ready);
}

#[test]
fn an_invalid_session_fetches_a_new_token() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    bench.say(conn, &failure(&text, "ESession:Invalid session"));
    assert!(matches!(bench.reports(&order)[1], Report::Reject { class: RejectClass::Auth, .. }));
    assert_eq!(bench.level(), Level::Armed, "the key is good");
    bench.pass(30_000);
    assert_eq!((bench.script.tokens, bench.state()), (2, SessionState::Ready));
}

/// Row OE-02. Kraken's limit suspends, cancels still go.
#[test]
fn the_engines_limit_suspends() {
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    bench.say(conn, &failure(&text, "EOrder:Rate limit exceeded"));
    assert_eq!(bench.state(), SessionState::Suspended);
    let next = bench.order();
    assert_eq!(bench.send(&next), None);
    bench.give(&tandem_core::order::request(Kind::OrderCancel, Venue::Kraken, 0, RUN, order.key));
    for _ in 0..11 {
        bench.pass(1_000);
        bench.say(conn, "{\"channel\":\"heartbeat\"}");
    }
    assert_eq!(bench.state(), SessionState::Ready);
    println!("figure OE-02: kraken limit: 0 orders inside the window, ready after it");
}

/// Row OE-21. Maintenance suspends at the first status event, and ends with the next.
#[test]
fn maintenance_suspends() {
    let mut bench = ready();
    let conn = bench.script.conn;
    for system in ["maintenance", "cancel_only", "post_only", "something_new"] {
        bench.say(
            conn,
            &format!(r#"{{"channel":"status","type":"update","data":[{{"system":"{system}"}}]}}"#),
        );
        assert_eq!(bench.state(), SessionState::Suspended, "{system}");
        let order = bench.order();
        assert_eq!(bench.send(&order), None);
        bench.say(conn, r#"{"channel":"status","type":"update","data":[{"system":"online"}]}"#);
        assert_eq!(bench.state(), SessionState::Ready);
    }
    println!(
        "figure OE-21: kraken 4 of 4 states that are not online suspend, 0 orders sent into them"
    );
}

/// The dead-man switch is put off only while the host is well, and its lapse is told.
#[test]
fn the_dead_man_switch_follows_health() {
    let mut bench = ready();
    let beat = |bench: &mut Bench<Venue1>, healthy: bool| {
        let now = bench.now() + 500 * MS;
        bench.clock.0.set(now);
        let conn = bench.script.conn;
        bench.hear(conn, "{\"channel\":\"heartbeat\"}");
        bench.gateway.on_timer(now, healthy, &bench.gate);
        bench.pump();
    };
    for _ in 0..120 {
        beat(&mut bench, true);
    }
    assert!((4..=6).contains(&bench.script.deadmen), "every 15 s: {}", bench.script.deadmen);
    let armed = bench.script.deadmen;
    for _ in 0..118 {
        beat(&mut bench, false);
    }
    assert_eq!(bench.script.deadmen, armed, "not put off while something is wrong");
}

/// Row AC-04. Heartbeats that stop.
#[test]
fn silence_renews_the_session() {
    let mut bench = ready();
    let conn = bench.script.conn;
    bench.script.silent = true;
    bench.pass(4_100);
    assert!(!bench.open.contains(&conn), "4 s of silence");
    println!("figure AC-04: kraken silent stream replaced after 4.0 s");
}

#[test]
fn foreign_and_older_orders_at_the_start() {
    let mut bench = bench();
    let old = ClientId::new(3, tandem_core::order::OrderKey::new(9, 1));
    bench.script.open.insert("x".into(), format!(r#"{{"cl_ord_id":"{}","status":"open","vol":"0.5","vol_exec":"0.1","cost":"1","fee":"0","descr":{{"pair":"XBTUSD","type":"sell","price":"50000.0"}}}}"#, old.as_str()));
    bench.pass(3_000);
    assert!(bench.said.iter().any(|t| t.contains("cancel_order") && t.contains(old.as_str())));
    assert_eq!(bench.kinds(Kind::OrderAck)[0].run, 3);
}

/// What a stage is refused for does not go away while the list is being read again.
#[test]
fn foreign_orders_are_counted_while_their_list_is_read() {
    let mut bench = bench();
    bench.script.open.insert("x".into(), r#"{"cl_ord_id":"","status":"open","vol":"0.5","vol_exec":"0","descr":{"pair":"XBTUSD","type":"sell","price":"70000.0"}}"#.into());
    bench.pass(3_000);
    assert_eq!(bench.gateway.desk().foreign_open(), 1);
    bench.script.mute = vec!["OpenOrders"];
    let every = config(Venue::Kraken).open_orders_every_ns;
    let end = bench.now() + 2 * every;
    while bench.now() < end {
        bench.pass(20);
        assert_eq!(bench.gateway.desk().foreign_open(), 1, "nobody said that it is gone");
    }
    bench.script.mute.clear();
    bench.script.open.clear();
    bench.pass(2 * every / MS);
    assert_eq!(bench.gateway.desk().foreign_open(), 0);
}

#[test]
fn a_lost_connection_leaves_orders_unknown() {
    let mut bench = ready();
    let order = bench.order();
    bench.send(&order);
    let conn = bench.script.conn;
    bench.close(conn, CloseCause::Reset);
    bench.pump();
    assert_eq!(bench.reports(&order)[1], Report::Unknown { cause: UnknownCause::Disconnect });
}

#[test]
fn mutated_messages_are_survived() {
    let mut seed = 0x1234_5678u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut bench = ready();
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let golden = [executions(2, &full_new(&order)), executions(3, TRADE), executions(4, CANCELED), success(&text), failure(&text, "EOrder:Insufficient funds"),
        r#"{"channel":"balances","type":"update","data":[{"asset":"BTC","balance":989.5,"wallet_type":"spot"}],"sequence":2}"#.into()];
    for round in 0..20_000 {
        let mut bytes = golden[round % golden.len()].clone().into_bytes();
        for _ in 0..1 + next() % 4 {
            let at = (next() % bytes.len() as u64) as usize;
            bytes[at] = b"0123456789-.eE\"{}[],:nulltradex"[(next() % 31) as usize];
        }
        if round % 7 == 0 {
            bytes.truncate((next() % 300) as usize);
        }
        let (at, conn) = (bench.at(), bench.script.conn);
        bench.gateway.on_text(conn, &bytes, at, &bench.gate);
        if round % 50 == 0 {
            bench.pass(5_000);
        }
    }
}

fn busts(bench: &Bench<Venue1>, order: &NewOrder) -> Vec<(u64, Option<FillTerms>)> {
    let bust = |report: Report| match report {
        Report::Bust { trade_id, instead } => Some((trade_id, instead)),
        _ => None,
    };
    bench.reports(order).into_iter().filter_map(bust).collect()
}

/// Row OE-20. The executions do not say that a trade was taken back: a balance that moves for another reason
/// than a trade has the trades listed, and two lists in a row without it do. Told once.
#[test]
fn a_fill_that_is_gone_from_two_lists_is_told_once() {
    let mut bench = ready_with(Config { trades_every_ns: 60 * SECOND, ..quick(Venue::Kraken) });
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    for (sequence, item) in [(2, full_new(&order)), (3, TRADE.into()), (4, CANCELED.into())] {
        bench.say(conn, &executions(sequence, &item));
    }
    bench.say(conn, &success(&text));
    let listed = format!(
        r#""TAAAAA-BBBBB-CCCCCC":{{"ordertxid":"{ID}","pair":"XXBTZUSD","time":1764000000.2,"type":"buy","ordertype":"limit","price":"60000.10","cost":"600.00","fee":"1.56","vol":"0.01","margin":"0","misc":"","trade_id":77}}"#
    );
    bench.script.trades = listed.clone();
    bench.pass(10_000);
    let balance = |sequence: u64, kind: &str| {
        format!(
            r#"{{"channel":"balances","type":"update","data":[{{"asset":"BTC","amount":-0.01,"balance":1.19,"fee":0,"ledger_id":"L","ref_id":"R","timestamp":"2025-11-24T16:05:00.2Z","type":"{kind}","wallet_type":"spot"}}],"sequence":{sequence}}}"#
        )
    };
    let count =
        |bench: &Bench<Venue1>| bench.script.seen.get("TradesHistory").copied().unwrap_or(0);
    let before = count(&bench);
    bench.say(conn, &balance(2, "trade"));
    bench.pass(5_000);
    assert_eq!(count(&bench), before, "a trade's own balance says nothing new");
    bench.say(conn, &balance(3, "withdrawal"));
    bench.pass(5_000);
    assert_eq!((count(&bench), busts(&bench, &order).len()), (before + 1, 0), "it is there");
    bench.script.trades = String::new();
    bench.say(conn, &balance(4, "withdrawal"));
    bench.pass(2_000);
    assert_eq!(
        (busts(&bench, &order).len(), bench.level()),
        (0, Level::Armed),
        "one is not enough"
    );
    bench.pass(5_000);
    assert_eq!(busts(&bench, &order), [(77, None)]);
    assert_eq!(bench.level(), Level::Halt);
    bench.pass(20_000);
    assert_eq!(busts(&bench, &order).len(), 1, "told once");
    println!("figure OE-20: kraken 1 of 1 busted fills told after two lists, once");
}

/// Row OE-20. A page that says there are more trades than it gave is no whole list.
#[test]
fn a_list_that_ends_too_early_tells_nothing() {
    let mut bench = ready_with(Config { trades_every_ns: 60 * SECOND, ..quick(Venue::Kraken) });
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    for (sequence, item) in [(2, full_new(&order)), (3, TRADE.into()), (4, CANCELED.into())] {
        bench.say(conn, &executions(sequence, &item));
    }
    bench.say(conn, &success(&text));
    bench.script.trades_count = 1;
    bench.pass(250_000);
    assert!(2 < bench.script.seen["TradesHistory"]);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Armed));
}

/// Row OE-20. A trade of ours under a name of its pair that nobody knows is there: the list that has it proves
/// nothing, and no fill is taken back for it.
#[test]
fn a_pair_under_another_name_takes_nothing_back() {
    let mut bench = ready_with(Config { trades_every_ns: 60 * SECOND, ..quick(Venue::Kraken) });
    let order = bench.order();
    let text = bench.send(&order).unwrap();
    let conn = bench.script.conn;
    for (sequence, item) in [(2, full_new(&order)), (3, TRADE.into()), (4, CANCELED.into())] {
        bench.say(conn, &executions(sequence, &item));
    }
    bench.say(conn, &success(&text));
    bench.script.trades = format!(
        r#""TAAAAA-BBBBB-CCCCCC":{{"ordertxid":"{ID}","pair":"BTCUSD","time":1764000000.2,"price":"60000.10","fee":"1.56","vol":"0.01","trade_id":77}},"TB":{{"ordertxid":"OOTHER-AAAAA-AAAAAA","pair":"ADAUSD","time":1764000000.2,"price":"1","fee":"0","vol":"1","trade_id":78}}"#
    );
    bench.script.trades_count = 2;
    bench.pass(250_000);
    assert!(2 < bench.script.seen["TradesHistory"]);
    assert_eq!((busts(&bench, &order).len(), bench.level()), (0, Level::Armed));
}
