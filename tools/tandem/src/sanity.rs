//! Limits that no account of this size, and no market of this size, could need: a slip of the pen, or worse.
//!
//! Invariant: exact fractions, no float; what cannot be compared is a finding, not a pass. A finding is waived
//! one by one, by the key and the very value, so that no older consent covers a larger number.
//!
//! Not here: limits that contradict themselves (`limits`), what a limit does (`tandem-core::controls`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use num_bigint::BigInt;
use num_rational::BigRational;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tandem_core::record::Venue;

use crate::config::Config;
use crate::fetch::{self, FetchError};
use crate::latch;
use crate::limits::Limits;
use crate::table::Table;
use crate::time::now_ns;

/// Days of the market that an order is compared with.
pub const DAYS: usize = 30;
/// One order may be this part of an instrument's day: 1 in 100.
const DAY_PART: i64 = 100;
/// Losses that pause may be this part of all that is held: 1 in 4.
const LOSS_PART: i64 = 4;
/// A check is good for so long.
const GOOD_NS: i64 = 24 * 3_600 * 1_000_000_000;
const FILE: &str = "limits-checked.json";

/// What an instrument is and trades.
#[derive(Clone, Debug, PartialEq)]
pub struct Traded {
    /// Where.
    pub venue: Venue,
    /// The venue's symbol.
    pub symbol: String,
    /// Base asset.
    pub base: String,
    /// Quote asset.
    pub quote: String,
    /// Its last price.
    pub px: BigRational,
    /// Base traded in a day, the mean of the last [`DAYS`].
    pub day_qty: BigRational,
}

/// A limit that looks absurd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key, dotted, below `[limits]`.
    pub key: String,
    /// What it says.
    pub value: String,
    /// Compared with what.
    pub why: String,
}

/// Reads plain decimal text.
#[must_use]
pub fn number(text: &str) -> Option<BigRational> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.len() < 40 && text.bytes().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return None;
    }
    let all: BigInt = format!("0{whole}{part}").parse().ok()?;
    Some(BigRational::new(all, BigInt::from(10).pow(u32::try_from(part.len()).ok()?)))
}

fn whole(value: i64) -> BigRational {
    BigRational::from_integer(value.into())
}

/// Two decimals, for people.
fn text(value: &BigRational) -> String {
    let cents = (value * whole(100)).round().to_integer();
    let digits = format!("{cents:0>3}");
    let (whole, part) = digits.split_at(digits.len() - 2);
    format!("{whole}.{part}")
}

/// Returns what each asset is worth in the numeraire: by the instruments' last prices, over at most three of
/// them, the first way found in the order of their distance.
#[must_use]
pub fn prices(numeraire: &str, traded: &[Traded]) -> BTreeMap<String, BigRational> {
    let mut known = BTreeMap::from([(numeraire.to_owned(), whole(1))]);
    for _ in 0..3 {
        let mut found = Vec::new();
        // What costs nothing has no price: any amount of it would be within every bound.
        for it in traded.iter().filter(|it| it.px != whole(0)) {
            match (known.get(&it.base), known.get(&it.quote)) {
                (None, Some(quote)) => found.push((it.base.clone(), quote * &it.px)),
                (Some(base), None) => found.push((it.quote.clone(), base / &it.px)),
                _ => {}
            }
        }
        for (asset, price) in found {
            known.entry(asset).or_insert(price);
        }
    }
    known
}

/// Compares limits with what is held, by asset over all venues, and with what is traded.
#[must_use]
pub fn judge(
    limits: &Limits,
    held: &BTreeMap<String, BigRational>,
    traded: &[Traded],
) -> Vec<Finding> {
    let prices = prices(&limits.numeraire, traded);
    let money = &limits.numeraire;
    let worth = |asset: &str, amount: &BigRational| prices.get(asset).map(|price| price * amount);
    let equity: BigRational = held.iter().filter_map(|(asset, amount)| worth(asset, amount)).sum();
    let mut found = Vec::new();
    let mut tell = |key: String, value: &str, why: String| {
        found.push(Finding { key, value: value.to_owned(), why });
    };
    let all = format!("all that is held is worth {} {money}", text(&equity));
    let part = &equity / whole(LOSS_PART);
    // Key, value, bound.
    let mut amounts = vec![
        ("notional_max".to_owned(), &limits.notional_max, &equity),
        ("exposure_max".to_owned(), &limits.exposure_max, &equity),
        ("round_loss_max".to_owned(), &limits.round_loss_max, &part),
        ("loss_5min_max".to_owned(), &limits.loss_5min_max, &part),
        ("loss_day_max".to_owned(), &limits.loss_day_max, &part),
        ("drawdown_max".to_owned(), &limits.drawdown_max, &part),
        ("instrument.loss_max".to_owned(), &limits.instrument.loss_max, &part),
    ];
    for (venue, of_venue) in &limits.venue {
        amounts.push((format!("venue.{venue}.exposure_max"), &of_venue.exposure_max, &equity));
    }
    for (key, value, bound) in amounts {
        match number(value) {
            Some(amount) if amount <= *bound => {}
            Some(_) if *bound == equity => tell(key, value, all.clone()),
            Some(_) => tell(key, value, format!("{all}; a quarter of it is {}", text(bound))),
            None => tell(key, value, "is no plain amount".to_owned()),
        }
    }
    for (asset, of_asset) in &limits.asset {
        // What may drift or be left over without a word is a loss without a word.
        for (name, value, bound) in [
            ("order_max", &of_asset.order_max, &equity),
            ("exposure_max", &of_asset.exposure_max, &equity),
            ("dust_max", &of_asset.dust_max, &part),
            ("drift_max", &of_asset.drift_max, &part),
        ] {
            let key = format!("asset.{asset}.{name}");
            let Some(amount) = number(value) else {
                tell(key, value, "is no plain amount".to_owned());
                continue;
            };
            let Some(worth) = worth(asset, &amount) else {
                tell(key, value, format!("no instrument gives {asset} a price in {money}"));
                continue;
            };
            if *bound < worth {
                let bound = if *bound == equity {
                    all.clone()
                } else {
                    format!("{all}; a quarter of it is {}", text(bound))
                };
                tell(key, value, format!("is worth {} {money}, {bound}", text(&worth)));
            }
        }
        let Some(order_max) = number(&of_asset.order_max) else { continue };
        // The thinnest market that such an order could go to.
        let thinnest =
            traded.iter().filter(|it| it.base == *asset).min_by_key(|it| it.day_qty.clone());
        if let Some(it) = thinnest
            && &it.day_qty / whole(DAY_PART) < order_max
        {
            let why = format!(
                "{} {} trades {} {asset} a day, the mean of {DAYS} days; a hundredth of it is the most of one order",
                it.venue.name(),
                it.symbol,
                text(&it.day_qty)
            );
            tell(format!("asset.{asset}.order_max"), &of_asset.order_max, why);
        }
    }
    found
}

/// Splits findings into those that `KEY=VALUE` texts waive and the rest; a text that waives nothing is told.
pub fn waive(
    found: Vec<Finding>,
    understood: &[String],
) -> Result<(Vec<Finding>, Vec<Finding>), String> {
    for text in understood {
        let is_one = found.iter().any(|it| *text == format!("{}={}", it.key, it.value));
        if !is_one {
            return Err(format!(
                "--i-understand {text}: there is no finding of this key and value"
            ));
        }
    }
    let is_waived =
        |it: &Finding| understood.iter().any(|text| *text == format!("{}={}", it.key, it.value));
    Ok(found.into_iter().partition(is_waived))
}

/// Asks a venue what its configured instruments trade: one public request each.
pub fn traded(config: &Config, table: &Table, venue: Venue) -> Result<Vec<Traded>, FetchError> {
    let of_venue = &config.venue[venue.name()];
    let mut all = Vec::new();
    for (idx, listing) in
        table.setup.listings.iter().filter(|listing| listing.venue == venue.name()).enumerate()
    {
        if idx != 0 {
            // Kraken's public counter takes one a second.
            std::thread::sleep(std::time::Duration::from_millis(if venue == Venue::Kraken {
                1_100
            } else {
                150
            }));
        }
        let end_s = now_ns() / 1_000_000_000;
        let start_s = end_s - 86_400 * DAYS as i64;
        let path = match venue {
            Venue::Binance => {
                format!("/api/v3/klines?symbol={}&interval=1d&limit={DAYS}", listing.rest_symbol)
            }
            Venue::Coinbase => format!(
                "/api/v3/brokerage/market/products/{}/candles?start={start_s}&end={end_s}&granularity=ONE_DAY",
                listing.rest_symbol
            ),
            Venue::Kraken => {
                format!("/0/public/OHLC?pair={}&interval=1440&since={start_s}", listing.rest_symbol)
            }
        };
        let body = fetch::get(of_venue, &path)?;
        let days = candles(venue, &body).filter(|days| !days.is_empty());
        let days = days.ok_or_else(|| FetchError::Answer {
            path: path.clone(),
            detail: format!(
                "no daily candles: {}",
                String::from_utf8_lossy(&body[..body.len().min(120)])
            ),
        })?;
        let px = days.last().map(|(px, _)| px.clone()).unwrap_or_else(|| whole(0));
        let day_qty = a_day(&days);
        let (symbol, base, quote) =
            (listing.symbol.clone(), listing.base.clone(), listing.quote.clone());
        all.push(Traded { venue, symbol, base, quote, px, day_qty });
    }
    Ok(all)
}

/// Returns what is traded in a day, the mean of the last [`DAYS`]. A day without a trade has no candle at some
/// venues; it counts, or one good day in thirty would be the mean.
fn a_day(days: &[(BigRational, BigRational)]) -> BigRational {
    let count = i64::try_from(days.len().max(DAYS)).unwrap_or(i64::MAX);
    days.iter().map(|(_, qty)| qty).sum::<BigRational>() / whole(count)
}

/// Returns close and volume of each day, the oldest first.
fn candles(venue: Venue, body: &[u8]) -> Option<Vec<(BigRational, BigRational)>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let plain = |value: &Value| value.as_str().and_then(number);
    let row = |row: &Value| match venue {
        Venue::Binance => Some((plain(&row[4])?, plain(&row[5])?)),
        Venue::Coinbase => Some((plain(&row["close"])?, plain(&row["volume"])?)),
        Venue::Kraken => Some((plain(&row[4])?, plain(&row[6])?)),
    };
    let list = match venue {
        Venue::Binance => value.as_array()?,
        Venue::Coinbase => value["candles"].as_array()?,
        // One member beside `last`, whatever the pair is called there.
        Venue::Kraken => value["result"].as_object()?.values().find_map(Value::as_array)?,
    };
    let mut days = list.iter().map(row).collect::<Option<Vec<_>>>()?;
    if venue == Venue::Coinbase {
        days.reverse();
    }
    Some(days)
}

/// What was checked last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    config: String,
    at_ns: i64,
    understood: Vec<String>,
}

/// Keeps that a configuration was checked and what was waived.
pub fn keep(state_dir: &Path, config_hash: u64, understood: &[String]) -> io::Result<()> {
    latch::make_dir(state_dir)?;
    let checked = Checked {
        config: format!("{config_hash:016x}"),
        at_ns: now_ns(),
        understood: understood.to_vec(),
    };
    let temp = state_dir.join(format!(".{FILE}.{}", std::process::id()));
    fs::write(&temp, serde_json::to_vec(&checked).map_err(io::Error::other)?)?;
    fs::rename(temp, state_dir.join(FILE))
}

/// Returns why a configuration's limits do not count as checked, if they do not.
#[must_use]
pub fn unchecked(state_dir: &Path, config_hash: u64, now_ns: i64) -> Option<String> {
    const MEND: &str =
        "`tandem config check --against-venues` compares them with balances and volumes";
    let read = fs::read(state_dir.join(FILE)).ok();
    let checked = read.and_then(|bytes| serde_json::from_slice::<Checked>(&bytes).ok());
    match checked {
        None => Some(format!("the limits were never held against the account: {MEND}")),
        Some(checked) if checked.config != format!("{config_hash:016x}") => {
            Some(format!("the limits checked last were another configuration's: {MEND}"))
        }
        // A check of the future was made with another clock: when it ends nobody knows.
        Some(checked) if !(0..=GOOD_NS).contains(&(now_ns - checked.at_ns)) => {
            Some(format!("the limits were not checked within a day before now: {MEND}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn n(text: &str) -> BigRational {
        number(text).expect("a number")
    }

    fn it(venue: Venue, symbol: &str, (base, quote): (&str, &str), px: &str, day: &str) -> Traded {
        let (symbol, base, quote) = (symbol.to_owned(), base.to_owned(), quote.to_owned());
        Traded { venue, symbol, base, quote, px: n(px), day_qty: n(day) }
    }

    fn market() -> Vec<Traded> {
        vec![
            it(Venue::Coinbase, "BTC-USD", ("BTC", "USD"), "60000", "20000"),
            it(Venue::Kraken, "BTC/USD", ("BTC", "USD"), "60000", "3000"),
            it(Venue::Binance, "ETHBTC", ("ETH", "BTC"), "0.05", "50000"),
            it(Venue::Binance, "BTCUSDT", ("BTC", "USDT"), "60000", "40000"),
            it(Venue::Binance, "SOLUSDT", ("SOL", "USDT"), "150", "2000000"),
            it(Venue::Kraken, "USDC/USD", ("USDC", "USD"), "1", "90000000"),
        ]
    }

    fn limits() -> Limits {
        let path = Path::new("deploy/tandem.toml");
        let sample = include_str!("../../../deploy/tandem.toml");
        Config::parse(sample, path).expect("the sample").limits.expect("has limits")
    }

    #[test]
    fn numbers_are_exact_or_nothing() {
        assert_eq!(n("0.1") + n("0.2"), n("0.3"));
        assert_eq!(text(&n("1234.567")), "1234.57");
        assert_eq!(text(&n("0.004")), "0.00");
        for wrong in ["", ".", "-1", "1e9", "1,0", "0x1", "NaN"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn prices_go_over_three_instruments() {
        let prices = prices("USD", &market());
        assert_eq!(prices["ETH"], n("3000"));
        assert_eq!(prices["USDT"], n("1"));
        assert_eq!(prices["SOL"], n("150"));
        assert!(!prices.contains_key("EUR"));
    }

    #[test]
    fn what_costs_nothing_has_no_price() {
        let mut market = market();
        market[4].px = n("0");
        assert!(!prices("USD", &market).contains_key("SOL"));
        let found = judge(&limits(), &BTreeMap::from([("USD".to_owned(), n("2000000"))]), &market);
        assert!(found.iter().any(|it| it.key == "asset.SOL.order_max"), "{found:#?}");
    }

    /// A market that traded on one day of thirty has a thirtieth of that as its day.
    #[test]
    fn days_without_a_trade_count() {
        let day = (n("1"), n("30"));
        assert_eq!(a_day(std::slice::from_ref(&day)), n("1"));
        assert_eq!(a_day(&vec![day.clone(); DAYS]), n("30"));
        assert_eq!(a_day(&vec![day; DAYS + 1]), n("30"), "today's part is one more");
    }

    /// Row CF-02. Each limit on its own, far too large for the account or for the market, is found by its key;
    /// what a large account may have is not; a waiver covers one key and one value.
    #[test]
    fn absurd_limits_are_found_one_by_one() {
        let held = BTreeMap::from([("USD".to_owned(), n("2000000")), ("BTC".to_owned(), n("30"))]);
        let clean = judge(&limits(), &held, &market());
        assert!(clean.is_empty(), "{clean:#?}");
        type Change = fn(&mut Limits, String);
        let cases: [(&str, &str, Change); 13] = [
            ("notional_max", "4000000", |l, v| l.notional_max = v),
            ("exposure_max", "999999999", |l, v| l.exposure_max = v),
            ("round_loss_max", "1000000", |l, v| l.round_loss_max = v),
            ("loss_5min_max", "1000000", |l, v| l.loss_5min_max = v),
            ("loss_day_max", "1000000", |l, v| l.loss_day_max = v),
            ("drawdown_max", "1000000", |l, v| l.drawdown_max = v),
            ("instrument.loss_max", "1000000", |l, v| l.instrument.loss_max = v),
            ("venue.kraken.exposure_max", "4000000", |l, v| {
                l.venue.get_mut("kraken").expect("there").exposure_max = v;
            }),
            ("asset.BTC.order_max", "1000", |l, v| {
                l.asset.get_mut("BTC").expect("there").order_max = v;
            }),
            ("asset.BTC.exposure_max", "1000", |l, v| {
                l.asset.get_mut("BTC").expect("there").exposure_max = v;
            }),
            ("asset.BTC.dust_max", "31", |l, v| {
                l.asset.get_mut("BTC").expect("there").dust_max = v;
            }),
            ("asset.BTC.drift_max", "31", |l, v| {
                l.asset.get_mut("BTC").expect("there").drift_max = v;
            }),
            // Affordable, but more than a hundredth of Kraken's day.
            ("asset.BTC.order_max", "31", |l, v| {
                l.asset.get_mut("BTC").expect("there").order_max = v;
            }),
        ];
        let mut silent = 0;
        for (key, value, change) in cases {
            let mut limits = limits();
            change(&mut limits, value.to_owned());
            let found = judge(&limits, &held, &market());
            let is_it = |it: &Finding| it.key == key && it.value == value;
            silent += usize::from(!found.iter().any(is_it));
            assert!(found.iter().all(is_it), "{key}: {found:#?}");
            let exact = format!("{key}={value}");
            let other = format!("{key}={value}0");
            assert!(waive(found.clone(), std::slice::from_ref(&other)).is_err());
            let (_, open) = waive(found, &[exact]).expect("of this key and value");
            assert!(open.is_empty(), "{open:?}");
        }
        println!("figure CF-02: {} absurd limits, accepted silently {silent}", cases.len());
        assert_eq!(silent, 0);
        // Without a price nothing is compared, so it is a finding.
        let blind = judge(&limits(), &held, &market()[..2]);
        assert!(blind.iter().any(|it| it.key == "asset.ETH.order_max"), "{blind:?}");
    }

    /// Row CF-02.
    #[test]
    fn a_check_is_of_one_configuration_and_of_today() {
        let dir = std::env::temp_dir().join(format!("tandem-sanity-{}", std::process::id()));
        assert!(unchecked(&dir, 7, now_ns()).is_some());
        keep(&dir, 7, &["a=1".to_owned()]).expect("kept");
        assert_eq!(unchecked(&dir, 7, now_ns()), None);
        assert!(unchecked(&dir, 8, now_ns()).expect("another").contains("another"));
        assert!(unchecked(&dir, 7, now_ns() + GOOD_NS + 1).expect("old").contains("a day"));
        assert!(unchecked(&dir, 7, now_ns() - GOOD_NS).is_some(), "made with another clock");
        fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn candles_are_read_oldest_first() {
        let binance = br#"[[1,"1","1","1","60000.5","10.25",2,"0",3,"0","0","0"]]"#;
        assert_eq!(candles(Venue::Binance, binance), Some(vec![(n("60000.5"), n("10.25"))]));
        let coinbase = br#"{"candles":[{"start":"2","close":"2","volume":"20"},{"start":"1","close":"1","volume":"10"}]}"#;
        let days = candles(Venue::Coinbase, coinbase).expect("read");
        assert_eq!(days, [(n("1"), n("10")), (n("2"), n("20"))]);
        let kraken =
            br#"{"error":[],"result":{"XXBTZUSD":[[1,"1","1","1","3","1","30",9]],"last":1}}"#;
        assert_eq!(candles(Venue::Kraken, kraken), Some(vec![(n("3"), n("30"))]));
        for bad in [&b"{}"[..], b"[]x", b"[[1]]", br#"{"error":["EGeneral:Too many requests"]}"#] {
            for venue in Venue::ALL {
                assert_eq!(candles(venue, bad), None);
            }
        }
    }
}
