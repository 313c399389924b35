//! What must not start does not start: each refusal has a reason, a way to mend it, and exit code 4.
//!
//! The venues are simulated; what a key may do is asked of them over TLS as of the real ones.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "support/trading.rs"]
mod trading_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tandem_core::level::Level;
use tandem_core::record::Venue;
use tandem_tools::demo_keys::ACCOUNT;
use trading_support::{Live, Said};

const REFUSED: i32 = 4;
const WARDEN: &str = "tandem-warden";
const WITHIN: Duration = Duration::from_secs(20);

/// Refused with exit code 4, the reason and the way to mend it.
fn assert_refused(said: &Said, reason: &str, fix: &str) {
    assert_eq!(said.code, REFUSED, "{said:?}");
    assert!(said.err.contains(reason), "`{reason}` is missing: {said:?}");
    assert!(said.err.contains(fix), "`{fix}` is missing: {said:?}");
}

fn rights(live: &Live, client: &str, venue: Venue, permissions: &serde_json::Value) {
    let body = json!({"action": "permissions", "client": client, "venue": venue.name(),
        "permissions": permissions});
    live.sim().post("/account", &body);
}

fn gateway(live: &Live, config: &Path, venue: Venue) -> Said {
    live.say_within(config, &["gateway", venue.name()], WITHIN)
}

/// Row CF-05. A key that may withdraw or transfer is refused, at every venue that tells, to gateway and
/// warden; one that works from every address too, unless the configuration says why.
#[test]
fn a_key_that_may_more_than_trade_is_refused() {
    let live = Live::new("rights");
    let path = live.config_path();
    let good = json!({"withdraw": false, "transfer": false, "trade": true, "ip_restricted": true});
    let with = |name: &str, value: bool| {
        let mut rights = good.clone();
        rights[name] = json!(value);
        rights
    };
    let mut refused = 0;
    for venue in Venue::ALL {
        rights(&live, ACCOUNT, venue, &with("withdraw", true));
        if venue == Venue::Coinbase {
            // Its answer has one word for both: what may leave the account is a transfer.
            let said = gateway(&live, &path, venue);
            assert_eq!(
                (said.code, said.err.contains("make one that may only read")),
                (REFUSED, true),
                "{said:?}"
            );
        } else {
            assert_refused(
                &gateway(&live, &path, venue),
                "may withdraw",
                "make one that may only read and trade",
            );
        }
        refused += 1;
        rights(&live, ACCOUNT, venue, &with("trade", false));
        assert_refused(&gateway(&live, &path, venue), "may not trade", "give it the right");
        refused += 1;
        rights(&live, ACCOUNT, venue, &good);
    }
    rights(&live, WARDEN, Venue::Binance, &with("withdraw", true));
    let said = live.say_within(&path, &["warden"], WITHIN);
    assert_refused(&said, "may withdraw", "make one that may only read and trade");
    let said = live.say(&["keys", "check"]);
    assert_eq!(said.code, REFUSED, "{said:?}");
    assert!(said.out.contains("REFUSED"), "{said:?}");
    rights(&live, WARDEN, Venue::Binance, &good);
    refused += 2;
    assert_eq!(live.say(&["keys", "check"]).code, 0, "good keys pass");

    rights(&live, ACCOUNT, Venue::Binance, &with("ip_restricted", false));
    let said = gateway(&live, &path, Venue::Binance);
    assert_refused(&said, "works from every address", "secrets.no_ip_restriction.binance");
    refused += 1;
    let waived = live.other_config("waived.toml", |text| {
        text.replace("[secrets]\n", "[secrets]\nno_ip_restriction = { binance = \"a test\" }\n")
    });
    let said = live.say_with(&waived, &["keys", "check"]);
    assert_eq!(said.code, 0, "waived in writing: {said:?}");
    assert_eq!(live.new_orders(), 0);
    println!(
        "figure CF-05: {refused} keys with wrong rights, accepted 0; started with the right to withdraw 0"
    );
}

/// Row CF-04. Row CF-06. Files that others may read, links, and keys of another world.
#[test]
fn a_key_file_that_is_open_or_of_another_world_is_refused() {
    let live = Live::new("keyfile");
    let (path, keys) = (live.config_path(), live.keys.gateway.clone());
    let mut tried = 0;
    for mode in [0o644, 0o640, 0o604, 0o666, 0o700, 0o777, 0o620] {
        fs::set_permissions(&keys, fs::Permissions::from_mode(mode)).unwrap();
        let said = gateway(&live, &path, Venue::Kraken);
        assert_refused(&said, &format!("mode {mode:04o}"), "chmod 0400");
        tried += 1;
    }
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(&keys).unwrap();
    let aside = live.dir.path().join("aside.toml");
    fs::rename(&keys, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &keys).unwrap();
    assert_refused(&gateway(&live, &path, Venue::Kraken), "link", "name the file itself");
    fs::remove_file(&keys).unwrap();
    println!("figure CF-04: {tried} modes and a link, accepted 0");

    fs::rename(&aside, &keys).unwrap();
    fs::write(&keys, text.replace("environment = \"sim\"", "environment = \"live\"")).unwrap();
    for venue in Venue::ALL {
        assert_refused(
            &gateway(&live, &path, venue),
            "holds live keys",
            "a key stays in its world",
        );
    }
    let real =
        live.other_config("real.toml", |config| config.replace("//127.0.0.1", "//venue.invalid"));
    fs::write(&keys, &text).unwrap();
    for venue in Venue::ALL {
        assert_refused(&gateway(&live, &real, venue), "holds sim keys", "a key stays in its world");
    }
    let mixed = live
        .other_config("mixed.toml", |config| config.replacen("//127.0.0.1", "//venue.invalid", 1));
    assert_refused(
        &gateway(&live, &mixed, Venue::Kraken),
        "venue.invalid",
        "one run has one world",
    );
    let arrived: u64 = live.requests(0).values().map(|requests| requests.new).sum();
    assert_eq!(arrived, 0);
    println!("figure CF-06: 7 crossings of keys and addresses, connections made with them 0");
}

/// Row CF-01. Row CF-03. Row PR-13. A missing limit does not start; a changed configuration reaches no
/// process that runs: it is not READY and `arm` refuses; a second engine, gateway, warden and supervisor
/// are refused while the first trades on.
#[test]
fn what_trades_is_what_was_started() {
    let mut live = Live::new("started");
    let missing = live.other_config("missing.toml", |text| {
        text.lines().filter(|line| !line.starts_with("hedges_max")).fold(
            String::new(),
            |mut text, line| {
                let line = line.split("hedges_max").next().unwrap_or_default();
                text.push_str(line);
                text.push('\n');
                text
            },
        )
    });
    for words in [&["engine"][..], &["up"], &["warden"], &["gateway", "kraken"]] {
        let said = live.say_within(&missing, words, WITHIN);
        assert_refused(&said, "hedges_max", "missing");
    }
    let none = live.other_config("none.toml", |text| {
        let (before, after) = text.split_once("\n[limits]\n").unwrap();
        let venues = after.find("\n[venue.").unwrap();
        format!("{before}\n{}", &after[venues..])
    });
    assert_refused(&live.say_within(&none, &["up"], WITHIN), "[limits]", "nothing trades without");
    println!("figure CF-01: 5 starts with a limit missing, started 0");

    live.trade();
    live.wait_orders(2, WITHIN);
    let path = live.config_path();
    for words in [&["engine"][..], &["warden"], &["gateway", "binance"], &["gateway", "kraken"]] {
        let said = live.say_within(&path, words, WITHIN);
        assert_refused(&said, "another", "stop it first");
    }
    let said = live.say_within(&path, &["up"], WITHIN);
    assert_eq!(said.code, REFUSED, "{said:?}");
    live.wait_orders(2, WITHIN);
    assert_eq!(live.level(), Level::Armed, "the first trades on");
    println!("figure PR-13: 5 second processes of one run refused, double-armed 0");

    // The file changes under the running processes: they keep what they were started with.
    let looser = live.text.replace("exposure_max = \"40000\"", "exposure_max = \"80000\"");
    assert_ne!(looser, live.text);
    fs::write(&path, looser).unwrap();
    let said = live.say(&["arm", "--reason", "looser", "--confirm", "00000000"]);
    assert_refused(&said, "another configuration", "stop all, start again");
    fs::write(&path, &live.text).unwrap();
    println!(
        "figure CF-03: limits loosened while armed 0; the looser file is not READY until a restart"
    );
    live.stop();
    let truth = live.truth();
    assert!(truth.is_clean(), "{truth:#?}");
}

/// Row CF-02. The limits beside the accounts and the markets of three venues: the demo's pass; an order of a
/// thousand bitcoin is refused with the figures, and is taken only with its key and its very value.
#[test]
fn absurd_limits_are_refused_beside_the_account() {
    let live = Live::new("absurd");
    let check = ["config", "check", "--against-venues"];
    let said = live.say(&check);
    assert_eq!(said.code, 0, "{said:?}");
    let absurd = live.other_config("absurd.toml", |text| {
        let (before, after) = text.split_once("[limits.asset.BTC]\n").unwrap();
        let (first, rest) = after.split_once("order_max = \"").unwrap();
        let (_, rest) = rest.split_once('"').unwrap();
        format!("{before}[limits.asset.BTC]\n{first}order_max = \"1000\"{rest}")
    });
    let said = live.say_with(&absurd, &check);
    assert_refused(&said, "absurd", "--i-understand asset.BTC.order_max=1000");
    let with = |value: &str| {
        let waiver = format!("asset.BTC.order_max={value}");
        live.say_with(&absurd, &[&check[..], &["--i-understand", &waiver]].concat())
    };
    let other = with("999");
    assert_eq!(other.code, 2, "{other:?}");
    assert_eq!(with("1000").code, 0);
    // A venue that does not answer is no pass.
    live.fault("refuse", "kraken", &json!({"mode": "closed", "seconds": 60.0}));
    assert_eq!(live.say(&check).code, 3);
    println!("figure CF-02: over three venues: the demo's limits pass, 1,000 BTC an order refused");
}
