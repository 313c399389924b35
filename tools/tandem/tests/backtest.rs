//! Backtests from the command line: recordings, a demo's journal, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::RunDir;
use tandem_backtest::Config;

fn say(dir: &RunDir, words: &[&str]) -> Output {
    Command::new(dir.program()).args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t).into_owned());
    both.concat()
}

fn backtest(dir: &RunDir, config: &str, more: &[&str]) -> Value {
    let path = dir.path().join("backtest.toml");
    fs::write(&path, config).unwrap();
    let path = path.display().to_string();
    let mut words = vec!["backtest", "--config", &path, "--json"];
    words.extend(more);
    let said = say(dir, &words);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    serde_json::from_slice::<Value>(&said.stdout).unwrap()["outcome"].take()
}

/// The shipped file has every key and every default.
#[test]
fn the_shipped_configuration_is_the_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/backtest.toml");
    let mut shipped = tandem_tools::backtest::load(&path).unwrap();
    assert_eq!(
        shipped.venue.remove("binance"),
        Some(tandem_backtest::config::VenueModel::default())
    );
    assert_eq!(shipped, Config::default());
    let text = fs::read_to_string(&path).unwrap();
    let keys = serde_json::to_value(Config::default()).unwrap();
    let venue = serde_json::to_value(tandem_backtest::config::VenueModel::default()).unwrap();
    let names = keys.as_object().unwrap().keys().chain(venue.as_object().unwrap().keys());
    for name in names.filter(|name| *name != "venue") {
        assert!(text.contains(name.as_str()), "{name} is not explained");
    }
}

fn captures() -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/captures");
    let place = std::env::var_os("TANDEM_CAPTURES").map_or(shared, PathBuf::from);
    place.is_dir().then_some(place)
}

/// Nothing takes time, nobody else is there, and the book is so when the engine hears of it.
const IDEAL: &str = "latency_ppm = 0\ndecision_us = 0\nrecovery_ms = 0\nlimits = \"wide\"\n\
    [competition]\nshare_ppm = 0\n";
const FUNDS: &str = "[opening.coinbase]\nUSD = \"10000000\"\nBTC = \"100\"\n\
    [opening.kraken]\nUSD = \"10000000\"\nBTC = \"100\"\n";

/// Both tapes. With the venues' real fees nobody trades. With none, and with no time passing, each round takes what
/// both books show: the independent program saw one direction crossed for one long episode and the other never, so
/// every round goes that way, fills whole, earns just what was seen, and at no moment more than the largest edge.
#[test]
fn tapes_trade_only_without_fees() {
    let Some(captures) = captures() else {
        eprintln!("SKIPPED: no recordings; TANDEM_CAPTURES may say where they are");
        return;
    };
    let expected = captures.join("../expected_books.json");
    let expected: Value = serde_json::from_slice(&fs::read(expected).unwrap()).unwrap();
    let dir = RunDir::new("backtest-tapes");
    for tape in ["tape_20260809T0231Z.jsonl.gz", "tape_20260809T2014Z_trades.jsonl.gz"] {
        let journal = dir.path().join(tape).display().to_string();
        let file = |venue: &str| captures.join(venue).join(tape).display().to_string();
        let (coinbase, kraken) = (file("coinbase"), file("kraken"));
        let said = say(&dir, &["journal", "import", "--to", &journal, &coinbase, &kraken]);
        assert_eq!(said.status.code(), Some(0), "{}", text(&said));
        let venues = |fees: [i32; 2]| {
            let one = |(name, fee): (&str, i32)| {
                format!("[venue.{name}]\nvenue_time = \"engine\"\ntaker_fee_ppm = {fee}\n")
            };
            ["coinbase", "kraken"].into_iter().zip(fees).map(one).collect::<String>()
        };
        // What either asks of somebody without volume.
        let real = format!("{IDEAL}{}{FUNDS}", venues([6_000, 4_000]));
        let found = backtest(&dir, &real, &["--data", &journal]);
        let zero = ["opportunities", "rounds", "orders", "fills", "pnl"];
        assert!(zero.iter().all(|key| found["summary"][key] == 0), "{}", found["summary"]);
        let free = format!("{IDEAL}{}{FUNDS}", venues([0, 0]));
        let found = backtest(&dir, &free, &["--data", &journal]);
        let summary = &found["summary"];
        let number = |value: &Value| value.as_i64().unwrap();
        let pnl = number(&summary["pnl"]);
        let seen = &expected["cross_venue"][tape];
        let mut ways = 0;
        for (buy, sell) in [("coinbase", "kraken"), ("kraken", "coinbase")] {
            let way = &seen[format!("buy {buy} sell {sell}")];
            let symbol = |venue| if venue == "kraken" { "BTC/USD" } else { "BTC-USD" };
            let route = format!("buy {} {buy}, sell {} {sell}", symbol(buy), symbol(sell));
            let rounds = &found["by_route"][&route]["rounds"];
            if number(&way["episodes"]) == 0 {
                assert!(rounds.is_null(), "{tape}: {route}: {rounds}, and it never crossed");
                continue;
            }
            ways += 1;
            assert!(0 < number(rounds), "{tape}: {route}: crossed, and no round");
            let bought = number(&found["by_venue"][buy]["turnover"]);
            let most: f64 = way["max_edge_bps"].as_str().unwrap().parse().unwrap();
            let bps = pnl as f64 / bought as f64 * 10_000.0;
            println!(
                "{tape}: {route}: {rounds} rounds, {bps:.4} bps of what was bought; most seen {most} bps; {} USD",
                pnl / 100_000_000
            );
            assert!(0.0 < bps && bps <= most + 1e-4, "{bps} beyond {most}");
        }
        assert_eq!(ways, 1);
        assert_eq!(summary["rounds_filled"], summary["rounds"], "{summary}");
        assert_eq!(summary["orders_filled"], summary["orders"]);
        // As seen, so earned; each fill is rounded once, against us.
        let rounded = number(&found["funnel"]["tried_net"]) - number(&found["funnel"]["realised"]);
        assert!((0..=number(&summary["fills"])).contains(&rounded), "{rounded}: {summary}");
        // Later, contested, or with real latencies it is less, and never more.
        let later = free.replace("latency_ppm = 0", "latency_ppm = 1000000");
        let later = number(&backtest(&dir, &later, &["--data", &journal])["summary"]["pnl"]);
        let shared = free.replace("share_ppm = 0", "share_ppm = 500000");
        let shared = number(&backtest(&dir, &shared, &["--data", &journal])["summary"]["pnl"]);
        println!("{tape}: quanta {pnl}; 5 ms late {later}; half of it gone {shared}");
        assert!(later <= pnl && shared < pnl);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let dir = RunDir::new("backtest-wrong");
    let journal = dir.path().join("journal").display().to_string();
    let said = say(&dir, &["journal", "generate", "--to", &journal, "--records", "20000"]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let path = dir.path().join("backtest.toml");
    let shown = path.display().to_string();
    let opening = "[opening.coinbase]\nUSD = \"1000\"\n";
    for (config, told) in [
        ("sead = 1\n", "unknown field `sead`"),
        ("", "limits: the recorded run had none"),
        ("limits = \"narrow\"\n", "is none of \"recorded\", \"wide\""),
        ("limits = \"wide\"\n", "opening: the recording has no balances"),
        ("limits = \"wide\"\nengine = { edge_min = 3 }\n", "the nearest is `edge_min_ppm`"),
        ("limits = \"wide\"\n[opening.kraken]\nDOGE = \"1\"\n", "opening.kraken.DOGE: no asset"),
        ("limits = \"wide\"\n[opening.ftx]\nUSD = \"1\"\n", "opening.ftx.*: no venue"),
        ("limits = \"wide\"\n[venue.ftx]\n", "venue.ftx: no venue of ours"),
        (
            "limits = \"wide\"\n[venue.kraken]\nentry = { model = \"empirical\", samples_us = [] }\n",
            "samples_us is empty",
        ),
        ("limits = \"wide\"\n[venue.kraken]\nfee_asset = \"BNB\"\n", "no asset of the recording"),
        (
            "limits = \"wide\"\n[venue.kraken]\nentry = { model = \"recorded\" }\n",
            "no acknowledged order there: say what it is then as without_us",
        ),
        ("limits = \"wide\"\n[venue.kraken]\ntaker_fee_ppm = 200000\n", "beyond 10 %"),
        (
            "limits = \"wide\"\n[[transfer]]\nasset = \"BTC\"\nfrom = \"kraken\"\nto = \"kraken\"\nbelow = \"1\"\n\
             amount = \"1\"\nfee = \"0\"\ndelay_s = 1\nday_max = \"1\"\n",
            "between two venues",
        ),
    ] {
        let needs = !config.contains("[opening") && config != "limits = \"wide\"\n";
        let config = if needs { format!("{config}{opening}") } else { config.to_owned() };
        fs::write(&path, &config).unwrap();
        let said = say(&dir, &["backtest", "--config", &shown, "--data", &journal]);
        assert_eq!(said.status.code(), Some(2), "{config}: {}", text(&said));
        assert!(text(&said).contains(told), "{config}: {}", text(&said));
    }
    let missing = dir.path().join("nowhere").display().to_string();
    let said = say(&dir, &["backtest", "--data", &missing]);
    assert_eq!(said.status.code(), Some(3), "{}", text(&said));
    // The right one, twice: the journal of the run is a journal, and the seed decides everything.
    let config =
        format!("limits = \"wide\"\n{opening}[opening.kraken]\nBTC = \"5\"\nUSD = \"100000\"\n");
    let simulated = dir.path().join("simulated").display().to_string();
    let first = backtest(&dir, &config, &["--data", &journal, "--journal", &simulated]);
    let again = backtest(&dir, &config, &["--data", &journal]);
    assert_eq!(first, again);
    let said = say(&dir, &["replay", "--verify", &simulated]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    // No order was acknowledged in it: what is said for that case.
    let said = "[venue.kraken]\nentry = { model = \"recorded\", without_us = 700 }\n";
    let assumed = backtest(&dir, &format!("{config}{said}"), &["--data", &journal]);
    let entry = &assumed["config"]["venue"]["kraken"]["entry"];
    assert_eq!((&entry["model"], &entry["us"]), (&"constant".into(), &700.into()), "{entry}");
    let twice = backtest(&dir, &config, &["--data", &journal, "--repeat", "2"]);
    let records = |found: &Value| found["data"]["records"].as_u64().unwrap();
    assert_eq!(records(&twice), 2 * records(&first));
}

/// A demo's journal without latency and competition, beside what it really traded: differences have their reasons, and
/// the error of the simulation is told. Then as the shipped file has it, with the latencies of its own orders.
#[test]
fn a_demo_beside_its_own_replay() {
    let dir = RunDir::new("backtest-demo");
    let run = dir.path().join("run").display().to_string();
    let said = say(&dir, &["demo", "--for", "12s", "--seed", "9", "--json", "--dir", &run]);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let journal = format!("{run}/journal");
    let config = dir.path().join("ideal.toml").display().to_string();
    let venue = |name| format!("[venue.{name}]\nvenue_time = \"engine\"\n");
    let venues: String = ["binance", "coinbase", "kraken"].map(venue).concat();
    let ideal = format!(
        "arm = \"recorded\"\nlatency_ppm = 0\ndecision_us = 0\nrecovery_ms = 0\n[competition]\nshare_ppm = 0\n{venues}"
    );
    fs::write(&config, ideal).unwrap();
    let found = dir.path().join("found").display().to_string();
    let words =
        ["backtest", "--config", &config, "--data", &journal, "--calibrate", "--out", &found];
    let said = say(&dir, &words);
    assert_eq!(said.status.code(), Some(0), "{}", text(&said));
    let outcome = fs::read(dir.path().join("found/outcome.json")).unwrap();
    let outcome: Value = serde_json::from_slice(&outcome).unwrap();
    assert!(0 < outcome["calibration"]["matched"].as_u64().unwrap(), "{}", outcome["calibration"]);
    for how in [vec!["--backtest", &config], Vec::new()] {
        let mut words = vec!["report", "drift", "--live", &journal, "--json"];
        words.extend(&how);
        let said = say(&dir, &words);
        let drift: Value = serde_json::from_slice(&said.stdout).unwrap();
        let (live, replayed) = (&drift["live"], &drift["replayed"]);
        println!(
            "figure BT-03 {how:?}: live {} rounds, {}; replayed {} rounds, {}; both {}; unexplained {} ({}); {}",
            live["rounds"],
            live["result"],
            replayed["rounds"],
            replayed["result"],
            drift["rounds_matched"],
            drift["unexplained"],
            drift["unexplained_money"],
            drift["calibration"]
        );
        for reason in drift["reasons"].as_array().unwrap() {
            println!("  {reason}");
        }
        assert!(10 < live["rounds"].as_u64().unwrap() && 10 < replayed["rounds"].as_u64().unwrap());
        assert!(0 < drift["rounds_matched"].as_u64().unwrap());
        // Each difference, of opportunities too, has its reason, and the reasons' money is all of it.
        assert_eq!(said.status.code(), Some(0), "{}", drift["examples"]);
        assert_eq!(drift["unexplained"], 0, "{}", drift["examples"]);
        let quanta = |value: &Value| value.as_i64().unwrap();
        let all = drift["reasons"].as_array().unwrap();
        let sum: i64 = all.iter().map(|reason| quanta(&reason["money_quanta"])).sum();
        assert_eq!(sum, quanta(&drift["difference_quanta"]));
        let calibration = &drift["calibration"];
        let error = quanta(&calibration["pnl_error"]);
        assert_eq!(error, -quanta(&drift["difference_quanta"]), "simulated less live");
        assert!(0 < quanta(&calibration["time_live_median_us"]), "{calibration}");
        assert!(calibration["time_simulated_median_us"].is_i64(), "{calibration}");
    }
}
