//! What happens to a run that trades when its processes, its venues or its operator do what they must not.
//!
//! Everything is real but the venues: the processes of `tandem up`, TLS, keys, limits. What is asserted is
//! read at the simulator (what reached it, when, what it holds) and on the control page, never believed from
//! the process that is judged.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "support/trading.rs"]
mod trading_support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{signal, wait_for};
use tandem_core::level::{Cause, Level, LevelWord};
use tandem_core::order::{ClientId, OrderKey};
use tandem_core::record::Venue;
use tandem_tools::demo_keys::ACCOUNT;
use tandem_tools::time::now_ns;
use trading_support::{Live, MS, spread};

const KILLS: usize = 10;
const SOON: Duration = Duration::from_secs(40);

/// Row PR-02. Row OP-04. `kill -9` of the engine while it trades, ten times: the warden raises KILL and
/// cancels at every venue, nothing new is sent after the gateways' echo, the engine that comes back stays
/// killed, and at the end our books are the venues'.
#[test]
fn an_engine_that_dies_while_trading_leaves_nothing_behind() {
    let mut live = Live::new("die");
    live.trade();
    let (mut level_ns, mut cancel_ns, mut proof_ns, mut ready_ms) =
        (vec![], vec![], vec![], vec![]);
    let mut gauge_ns = vec![];
    let mut late = 0;
    for kill in 0..KILLS {
        live.wait_orders(4, SOON);
        // Any moment of an order's life.
        std::thread::sleep(Duration::from_millis((kill as u64 * 37) % 100));
        let engine = live.engine_pid();
        let at_ns = live.kill_9(engine);
        assert!(wait_for(Duration::from_secs(2), || live.level() == Level::Kill), "no KILL");
        level_ns.push(now_ns() - at_ns);
        let word = LevelWord(live.page().level());
        assert!(word.cause() != Some(Cause::Operator), "the warden did it: {word:?}");
        let echo_ns = live.wait_echoes(Duration::from_secs(1));
        proof_ns.push(live.wait_proof(at_ns, SOON) - at_ns);
        let requests = live.requests(at_ns);
        for venue in Venue::ALL {
            let seen = &requests[venue.name()];
            let first = seen.cancels.iter().min().copied();
            let first = first.unwrap_or_else(|| panic!("no cancel reached {}", venue.name()));
            cancel_ns.push(first - at_ns);
            gauge_ns.push(live.warden(venue, "first_cancel_ns").unwrap() - at_ns);
            // What was in the socket at the echo may still be read a moment later.
            late += seen.news.iter().filter(|at| echo_ns + 20 * MS < **at).count();
        }
        assert_eq!(live.open_orders(), (0, 0), "something is open after the proof");
        ready_ms.push(live.wait_ready().as_nanos() as i64);
        assert_ne!(live.engine_pid(), engine, "the supervisor starts it again");
        assert_eq!(live.level(), Level::Kill, "a restart stays killed");
        live.arm();
        assert_eq!(live.level(), Level::Armed);
    }
    live.wait_orders(4, SOON);
    live.stop();
    let truth = live.truth();
    println!(
        "figure PR-02: {KILLS} kills of the engine while trading; KILL seen after {}",
        spread(&level_ns)
    );
    println!("figure PR-02: from kill -9 to the first cancel at the venue {}", spread(&cancel_ns));
    println!("figure PR-02: by the warden's own clock {}", spread(&gauge_ns));
    println!("figure PR-02: from kill -9 to the proof at all venues {}", spread(&proof_ns));
    println!("figure PR-02: from the proof to READY again {}", spread(&ready_ms));
    println!(
        "figure PR-02: new orders after the echo {late}, open orders left {}, fills missing {}, invented {}, \
         balances that differ {}",
        truth.open_orders_left, truth.missing_fills, truth.extra_fills, truth.balance_differences
    );
    println!("figure OP-04: {KILLS} restarts after KILL, armed by itself 0 times");
    assert_eq!(late, 0, "sent after the echo");
    assert!(truth.is_clean(), "{truth:#?}");
}

/// Row PR-01. Row PR-03. Row PR-04. Row PR-16. What one process does must not reach the others: an engine that
/// hangs is killed and sends nothing when it wakes; without a living warden nothing new begins; a feed and a
/// gateway with orders under way may go and come back; a gateway with another configuration trades nothing.
#[test]
fn the_others_trade_on() {
    let mut live = Live::new("others");
    live.trade();
    live.wait_orders(2, SOON);

    // The engine hangs for a second.
    let engine = live.engine_pid();
    let at_ns = now_ns();
    signal(engine, 19);
    assert!(wait_for(Duration::from_secs(2), || live.level() == Level::Kill), "no KILL");
    let kill_ns = now_ns() - at_ns;
    std::thread::sleep(Duration::from_secs(1));
    let resumed_ns = now_ns();
    signal(engine, 18);
    live.wait_proof(at_ns, SOON);
    let sent = news_after(&live, resumed_ns);
    assert_eq!(sent, 0, "sent after it woke");
    println!(
        "figure PR-03: SIGSTOP of the engine: KILL after {} ms, orders after SIGCONT {sent}",
        kill_ns / MS
    );
    live.arm();
    live.wait_orders(2, SOON);

    // The warden is silent, then it dies.
    let warden = live.warden_pid();
    let at_ns = now_ns();
    signal(warden, 19);
    std::thread::sleep(Duration::from_secs(4));
    let sent = news_after(&live, at_ns + 1_100 * MS);
    signal(warden, 18);
    assert_eq!(sent, 0, "new orders while the warden was silent for more than a second");
    println!("figure PR-04: orders while the warden was silent for more than 1 s: {sent}");
    live.arm();
    live.wait_orders(2, SOON);
    let warden = live.warden_pid();
    let at_ns = live.kill_9(warden);
    let back = wait_for(SOON, || ![0, warden].contains(&live.warden_pid()) && live.warden_beats());
    assert!(back, "the warden was not started again");
    println!(
        "figure PR-04: a warden killed with -9 beats again after {} ms",
        (now_ns() - at_ns) / MS
    );
    live.arm();
    live.wait_orders(2, SOON);

    // A feed dies: its books are gone until it is back, trading goes on.
    let feed = live.up.as_ref().unwrap().tiles()["feed binance"];
    let at_ns = live.kill_9(feed);
    let gone = wait_for(Duration::from_secs(5), || {
        live.failed_stages().iter().any(|stage| stage.starts_with("S6") || stage.starts_with("S9"))
    });
    assert!(gone, "a dead feed's books stayed");
    live.wait_ready();
    println!(
        "figure PR-01: kill -9 of a feed while trading, live again after {} ms",
        (now_ns() - at_ns) / MS
    );
    assert_eq!(live.level(), Level::Armed, "no reason to stop the others");
    live.wait_orders(4, SOON);

    // A gateway dies with orders whose replies are under way.
    live.fault("slow_reply", "binance", &json!({"ms": 400, "seconds": 3.0}));
    wait_orders_at(&live, Venue::Binance, 1);
    let gateway = live.gateway_pid(Venue::Binance);
    let at_ns = live.kill_9(gateway);
    assert!(wait_for(SOON, || ![0, gateway].contains(&live.gateway_pid(Venue::Binance))));
    live.clear();
    live.wait_ready();
    println!(
        "figure PR-02: kill -9 of a gateway with orders under way, READY again after {} ms",
        (now_ns() - at_ns) / MS
    );
    live.arm();
    wait_orders_at(&live, Venue::Binance, 1);

    // A gateway comes back with another configuration.
    let other = live.text.replace("notional_max = \"2000\"", "notional_max = \"4000\"");
    assert_ne!(other, live.text);
    std::fs::write(live.config_path(), &other).unwrap();
    let gateway = live.gateway_pid(Venue::Kraken);
    live.kill_9(gateway);
    assert!(wait_for(SOON, || ![0, gateway].contains(&live.gateway_pid(Venue::Kraken))));
    let mixed_ns = now_ns();
    std::thread::sleep(Duration::from_secs(1));
    let said = live.say(&["arm", "--reason", "mixed", "--confirm", &live.confirm()]);
    assert_eq!((said.code, said.err.contains("S2")), (4, true), "{said:?}");
    std::thread::sleep(Duration::from_secs(1));
    let at_kraken = live.requests(mixed_ns)["kraken"].news.len();
    assert_eq!(at_kraken, 0, "orders through a gateway of another configuration");
    println!("figure PR-16: armed with a mismatch 0, orders through the other gateway {at_kraken}");
    std::fs::write(live.config_path(), &live.text).unwrap();
    live.wait_ready();
    live.arm();

    live.stop();
    let truth = live.truth();
    assert!(truth.is_clean(), "{truth:#?}");
}

/// The p50 of a gateway's time from tick to order over the next seconds, in us; nothing where it sent nothing.
fn tick_to_order_us(live: &Live, gateway: &str) -> Option<i64> {
    let said = live.say(&["latency", "--for", "6s", "--json"]).json();
    let wanted =
        |row: &&Value| row["tile"] == gateway && row["stage"] == "gateway_tick_to_order_ns";
    let row = said.as_array().unwrap().iter().find(wanted).cloned()?;
    (row["count"].as_i64()? != 0).then(|| row["p50"].as_i64().unwrap() / 1_000)
}

/// Row PR-14. One venue cannot be reached any more, in the middle of trading: nothing goes there, nothing is
/// killed, and the operator lets the others go on without it; when it is back it takes part again.
#[test]
fn a_venue_that_is_gone_stops_only_itself() {
    let mut live = Live::new("gone");
    live.trade();
    live.wait_orders(4, SOON);
    let before_us = tick_to_order_us(&live, "gateway.coinbase");
    live.fault("refuse", "kraken", &json!({"mode": "closed", "seconds": 600.0}));
    live.fault("disconnect", "kraken", &json!({"mode": "reset"}));
    std::thread::sleep(Duration::from_secs(2));
    let from_ns = now_ns();
    // What was under way there is unknown, and a control may have paused for it.
    let mut said = None;
    let armed = wait_for(SOON, || {
        let words =
            ["arm", "--reason", "gone", "--confirm", &live.confirm(), "--without", "kraken"];
        let now = live.say(&words);
        let done = now.code == 0;
        said = Some(now);
        done
    });
    assert!(armed, "{said:?}");
    let armed_ns = now_ns();
    let word = LevelWord(live.page().level());
    assert!(word.effective(Venue::Kraken) != Level::Armed, "{word:?}");
    let traded = wait_for(SOON, || {
        std::thread::sleep(Duration::from_millis(20));
        let seen = live.requests(armed_ns);
        8 <= seen["binance"].news.len() + seen["coinbase"].news.len()
    });
    assert!(traded, "the others stand still: {}", live.say(&["why", "--over", "20s"]).out);
    let traded_ms = (now_ns() - armed_ns) / MS;
    let during_us = tick_to_order_us(&live, "gateway.coinbase");
    let at_kraken = live.requests(from_ns)["kraken"].news.len();
    assert_eq!(at_kraken, 0, "sent to a venue that is left out");
    assert_ne!(live.level(), Level::Kill);
    live.clear();
    live.wait_ready();
    live.arm();
    assert_eq!(LevelWord(live.page().level()).effective(Venue::Kraken), Level::Armed);
    wait_orders_at(&live, Venue::Kraken, 1);
    println!(
        "figure PR-14: one venue unreachable: the others armed without it after {} ms, 8 orders within {traded_ms} \
         ms more, at it {at_kraken}; tick to order at another, p50 before {before_us:?} us, during {during_us:?} us",
        (armed_ns - from_ns) / MS
    );
    live.stop();
    let truth = live.truth();
    assert!(truth.is_clean(), "{truth:#?}");
}

fn news_after(live: &Live, at_ns: i64) -> usize {
    live.requests(at_ns)
        .values()
        .map(|seen| seen.news.iter().filter(|at| at_ns < **at).count())
        .sum()
}

fn wait_orders_at(live: &Live, venue: Venue, more: usize) {
    let from_ns = now_ns();
    let came = wait_for(SOON, || {
        std::thread::sleep(Duration::from_millis(2));
        more <= live.requests(from_ns)[venue.name()].news.len()
    });
    assert!(came, "no order at {}: {:?}", venue.name(), LevelWord(live.page().level()));
}

/// Row OP-01. Row OP-02. Row OP-03. Row OP-04. Row OP-05. The operator's commands on a run that trades: kill
/// with its proof, also where one venue does not answer; what was killed stays so over a restart; lowering
/// wants the hash, raising wants nothing; a drill.
#[test]
fn the_operator_stops_it_and_only_the_operator_lets_it_go_on() {
    let mut live = Live::new("operator");
    live.trade();
    let mut firsts = Vec::new();
    for _ in 0..3 {
        live.wait_orders(4, SOON);
        let at_ns = now_ns();
        let said = live.say(&["kill", "--reason", "test", "--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let report = said.json();
        assert_eq!(report["level"], "KILL");
        let echoes: Vec<i64> =
            report["echo_ns"].as_object().unwrap().values().filter_map(Value::as_i64).collect();
        let late = news_after(&live, at_ns + 1_000 * MS);
        for venue in Venue::ALL {
            let row = &report["venues"][venue.name()];
            assert_eq!(row["proof"], "CANCELLED", "{report}");
            firsts.push(row["first_cancel_ns"].as_i64().unwrap());
        }
        assert_eq!((late, live.open_orders()), (0, (0, 0)));
        println!(
            "figure OP-01: kill while trading: {} of 4 echoes within 5 ms, the last after {} us; orders later {late}",
            echoes.len(),
            echoes.iter().max().unwrap_or(&0) / 1_000
        );
        println!("figure OP-02: proof by venue {}", report["venues"]);
        live.arm();
    }
    println!("figure OP-01: from the latch to the first cancel on every venue {}", spread(&firsts));

    // One venue answers nothing that is private.
    live.wait_orders(4, SOON);
    let lost = json!({"account": ACCOUNT, "request": "any", "seconds": 120.0});
    live.fault("order_lost", "kraken", &lost);
    let said = live.say(&["kill", "--reason", "test", "--json", "--wait-s", "16"]);
    let report = said.json();
    assert_eq!(said.code, 5, "{said:?}");
    assert_eq!(report["venues"]["kraken"]["proof"], "UNCONFIRMED", "{report}");
    for venue in ["binance", "coinbase"] {
        assert_eq!(report["venues"][venue]["proof"], "CANCELLED", "{report}");
    }
    live.clear();
    let cleared_ns = now_ns();
    // The others were proven before.
    let proven = wait_for(SOON, || {
        live.warden(Venue::Kraken, "proven_ns").is_some_and(|at| cleared_ns <= at)
    });
    assert!(proven, "not proven after the venue answers again");
    println!(
        "figure OP-03: a venue that does not answer: UNCONFIRMED, exit code 5, false cleans 0; proven {} ms after \
         it answers again",
        (now_ns() - cleared_ns) / MS
    );

    // What was killed stays killed.
    live.up.take().unwrap().stop();
    live.up_ready();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(live.level(), Level::Kill, "armed by itself");
    for words in [
        &["arm", "--reason", "x"][..],
        &["arm", "--reason", "x", "--confirm", "00000000"],
        &["arm", "--reason", "x", "--confirm", ""],
    ] {
        assert_eq!(live.say(words).code, 4, "{words:?}");
    }
    assert_eq!(live.say(&["arm", "--confirm", &live.confirm()]).code, 2, "a reason is needed");
    assert_eq!(live.level(), Level::Kill);
    live.arm();
    assert_eq!(live.say(&["drill", "--reason", "x"]).code, 4, "a drill wants a pause first");
    assert_eq!(live.say(&["pause", "--reason", "x"]).code, 0, "raising needs no confirmation");
    assert_eq!(live.level(), Level::Pause);
    let said = live.say(&["drill", "--reason", "x", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(live.level(), Level::Pause, "what was paused is paused again");
    println!(
        "figure OP-05: loosening without confirmation 0 of 4; drill: {}",
        said.json()["venues"]
    );

    live.stop();
    let truth = live.truth();
    assert!(truth.is_clean(), "{truth:#?}");
}

/// Row PR-09. Two venues say that our clock is wrong, then the other way round: nothing is sent while they do.
#[test]
fn nothing_is_sent_while_the_clock_is_in_doubt() {
    let mut live = Live::new("clock");
    live.trade();
    let (mut sent, mut paused_ms) = (0, Vec::new());
    for ms in [10_000, -10_000] {
        live.wait_orders(2, SOON);
        let begun_ns = now_ns();
        for venue in ["binance", "coinbase"] {
            live.fault("clock", venue, &json!({"ms": ms, "seconds": 60.0}));
        }
        assert!(wait_for(SOON, || live.level() == Level::Pause), "no PAUSE for {ms} ms");
        paused_ms.push((now_ns() - begun_ns) / MS);
        let from_ns = now_ns();
        std::thread::sleep(Duration::from_secs(5));
        sent += news_after(&live, from_ns + 50 * MS);
        let said = live.say(&["arm", "--reason", "x", "--confirm", &live.confirm()]);
        assert_eq!(said.code, 4, "armed with a wrong clock: {said:?}");
        live.clear();
        live.wait_ready();
        live.arm();
    }
    println!(
        "figure PR-09: two venues' clocks off by +10 and -10 s: PAUSE after {paused_ms:?} ms, orders while they \
         were {sent}, armed meanwhile 0"
    );
    assert_eq!(sent, 0);
    live.stop();
    let truth = live.truth();
    assert!(truth.is_clean(), "{truth:#?}");
}

/// An order as if the account's owner, or an older run of ours, had placed it.
fn place(live: &Live, venue: &str, symbol: &str, client_id: &str, price: &str, qty: &str) {
    let body = json!({"action": "order", "account": ACCOUNT, "venue": venue, "symbol": symbol,
        "side": "buy", "qty": qty, "price": price, "client_id": client_id});
    live.sim().post("/account", &body);
}

/// The open orders of the account: client ids.
fn open_ids(live: &Live) -> Vec<String> {
    let answer = live.sim().get(&format!("/truth/orders?account={ACCOUNT}&limit=10000"));
    let rows = answer["orders"].as_array().unwrap().iter();
    rows.filter(|row| row["status"] == "open" || row["status"] == "partially_filled")
        .map(|row| row["client_id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Row PR-02. Row PR-05. Everything dies at once, at several moments of orders' lives; 50 orders wait at the
/// venues at the next start, ours of an older run and foreign ones. Ours are cancelled and booked, foreign
/// ones are left alone. Then all local state but the keys is lost, and the venues alone tell what is ours.
#[test]
fn a_start_after_everything_was_lost_finds_what_is_at_the_venues() {
    // Somebody else's orders are to be left alone: the account is not ours alone.
    let shared = "wait = \"park\"\nexclusive_account = false\n";
    let mut live = Live::with(
        "lost",
        |_| {},
        |text| {
            let (head, venues) = text.split_once("[venue.").unwrap();
            format!("{head}[venue.{}", venues.replace("wait = \"park\"\n", shared))
        },
    );
    live.trade();
    let mut ready = Vec::new();
    for moment in 0..3u64 {
        live.wait_orders(3, SOON);
        if moment != 0 {
            live.fault(
                "slow_reply",
                ["binance", "kraken"][moment as usize % 2],
                &json!({"ms": 300, "seconds": 3.0}),
            );
            live.wait_orders(2, SOON);
        }
        live.kill_all();
        live.clear();
        live.up();
        ready.push(live.wait_ready().as_nanos() as i64);
        assert_ne!(live.level(), Level::Armed, "a start never arms");
        live.arm();
    }
    live.wait_orders(2, SOON);
    live.kill_all();
    let symbols = [("binance", "BTCUSDT"), ("coinbase", "BTC-USD"), ("kraken", "BTC/USD")];
    let mut ours = 0;
    for n in 0..50u16 {
        let (venue, symbol) = symbols[usize::from(n) % 3];
        let id = match n % 5 {
            0 | 1 => format!("by-hand-{n}"),
            _ => ClientId::new(1_000, OrderKey::new(7 + u64::from(n), 0)).as_str().to_owned(),
        };
        ours += usize::from(n % 5 > 1);
        place(&live, venue, symbol, &id, &format!("{}", 20_000 + 10 * u64::from(n)), "0.001");
    }
    let is_ours = |id: &str| ClientId::parse(id.as_bytes()).is_some();
    assert!(open_ids(&live).len() >= 50);
    live.up();
    ready.push(live.wait_ready().as_nanos() as i64);
    let open = open_ids(&live);
    let (left, foreign): (Vec<&String>, Vec<&String>) = open.iter().partition(|id| is_ours(id));
    assert_eq!((left.len(), foreign.len()), (0, 50 - ours), "{left:?}");
    live.arm();
    live.wait_orders(4, SOON);
    live.stop();
    let truth = live.truth();
    assert_eq!(
        (truth.balance_differences, truth.missing_fills, truth.extra_fills, truth.open_orders_left),
        (0, 0, 0, (50 - ours) as u64),
        "{truth:#?}"
    );
    println!(
        "figure PR-02: everything killed 4 times; 50 orders at the venues at start: {ours} ours cancelled, {} \
         foreign left alone; time to READY {}",
        50 - ours,
        spread(&ready)
    );

    live.up_ready();
    live.arm();
    live.wait_orders(3, SOON);
    live.kill_all();
    let known = live.sim().get(&format!("/truth/fills?account={ACCOUNT}&limit=10000"));
    let before = known["fills"].as_array().unwrap().len() as u64;
    let keep = ["tandem", "sim-ca.pem", "gateway-keys.toml", "warden-keys.toml", "tandem.toml"];
    for entry in std::fs::read_dir(live.dir.path()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep.contains(&name.as_str()) {
            let path = entry.path();
            let gone = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            gone.unwrap();
        }
    }
    live.up();
    let took = live.wait_ready();
    assert_eq!(live.level(), Level::Pause, "a start never arms");
    live.arm();
    live.wait_orders(4, SOON);
    live.stop();
    let truth = live.truth();
    println!(
        "figure PR-05: all local state lost while trading: READY after {} ms from the venues alone, balances that \
         differ {}, fills invented {}, of our orders open {}",
        took.as_millis(),
        truth.balance_differences,
        truth.extra_fills,
        truth.open_orders_left - (50 - ours) as u64
    );
    assert_eq!((truth.balance_differences, truth.extra_fills), (0, 0), "{truth:#?}");
    assert!(truth.missing_fills <= before, "{truth:#?}");
    assert_eq!(truth.open_orders_left, (50 - ours) as u64, "{truth:#?}");
}

/// Row PR-15. A venue with a certificate of an authority that we do not trust, or of another host, gets no
/// connection, and no key.
#[test]
fn a_certificate_that_is_not_the_venues_ends_it() {
    let live = Live::new("tls");
    // A real authority, but not this simulator's: the one of the next simulator.
    let other_ca = live.dir.path().join("other-ca.pem");
    live.another_authority(&other_ca);
    let trusted = live.dir.path().join("sim-ca.pem");
    let wrong_ca = live.other_config("wrong-ca.toml", |text| {
        text.replace(&trusted.display().to_string(), &other_ca.display().to_string())
    });
    let public = live.other_config("public-ca.toml", |text| {
        let lines = text.lines().filter(|line| !line.starts_with("tls_ca_file"));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    });
    let mut tried = 0;
    for config in [&wrong_ca, &public] {
        for venue in Venue::ALL {
            for words in [["gateway", venue.name()], ["feed", venue.name()]] {
                let said = live.say_within(config, &words, Duration::from_secs(15));
                assert_ne!(said.code, 0, "{words:?}: {said:?}");
                tried += 1;
            }
        }
        let said = live.say_with(config, &["keys", "check"]);
        assert_eq!(said.code, 3, "{said:?}");
    }
    let asked: usize =
        live.requests(0).values().map(|seen| seen.news.len() + seen.cancels.len()).sum();
    assert_eq!(asked, 0, "something got through");
    println!(
        "figure PR-15: {tried} starts against certificates of another authority, connections made 0"
    );
}
