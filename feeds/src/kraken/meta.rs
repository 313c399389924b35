//! Kraken's pairs: `GET /0/public/AssetPairs`.
//!
//! Invariant: the three namings of Kraken meet here and nowhere else. Base and quote come from `wsname` with
//! `XBT` read as `BTC` and `XDG` as `DOGE`; the pair's symbol on v2 is those two; REST takes the `altname`.

use std::collections::BTreeMap;

use serde::Deserialize;
use tandem_core::record::{TradingStatus, Venue};

use super::decode::trading_status;
use crate::spec::{InstrumentRules, MetadataError, read_metadata};

/// Returns the paths that describe these pairs (`BTC/USD`).
#[must_use]
pub fn metadata_paths(symbols: &[&str]) -> Vec<String> {
    let rest = |symbol: &&str| {
        let parts: Vec<_> = symbol.split('/').map(rest_asset).collect();
        parts.concat()
    };
    let pairs: Vec<_> = symbols.iter().map(rest).collect();
    // The official limit of a comma list is not known; 50 pairs are a short URI.
    pairs.chunks(50).map(|pairs| format!("/0/public/AssetPairs?pair={}", pairs.join(","))).collect()
}

/// REST's name of an asset in an `altname`.
fn rest_asset(asset: &str) -> &str {
    match asset {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    }
}

/// The common name of an asset of `wsname`.
fn common_asset(asset: &str) -> &str {
    match asset {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        other => other,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    error: Vec<String>,
    result: Option<BTreeMap<String, Pair>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pair {
    altname: String,
    wsname: String,
    pair_decimals: Option<u8>,
    lot_decimals: Option<u8>,
    ordermin: String,
    costmin: String,
    tick_size: String,
    status: String,
}

/// Reads a reply of [`metadata_paths`]. Dark pools (`.d`) and pairs without `wsname` are left out.
pub fn parse_metadata(body: &mut [u8]) -> Result<Vec<InstrumentRules>, MetadataError> {
    let body: Body = read_metadata(body)?;
    // Entries that begin with W are warnings.
    if let Some(error) = body.error.iter().find(|error| error.starts_with('E')) {
        return Err(MetadataError::Venue(error.clone()));
    }
    let pairs = body.result.ok_or_else(|| MetadataError::Venue("no `result`".into()))?;
    Ok(pairs.into_values().filter_map(rules).collect())
}

fn rules(pair: Pair) -> Option<InstrumentRules> {
    let (base, quote) = pair.wsname.split_once('/')?;
    if pair.altname.ends_with(".d") {
        return None;
    }
    let (base, quote) = (common_asset(base), common_asset(quote));
    let step = |decimals: Option<u8>| match decimals {
        None => String::new(),
        Some(0) => "1".to_owned(),
        Some(decimals) => format!("0.{}1", "0".repeat(usize::from(decimals) - 1)),
    };
    Some(InstrumentRules {
        venue: Venue::Kraken,
        symbol: format!("{base}/{quote}"),
        feed_symbol: format!("{base}/{quote}"),
        rest_symbol: pair.altname,
        base: base.to_owned(),
        quote: quote.to_owned(),
        tick: if pair.tick_size.is_empty() { step(pair.pair_decimals) } else { pair.tick_size },
        lot: step(pair.lot_decimals),
        qty_min: pair.ordermin,
        qty_max: String::new(),
        notional_min: pair.costmin,
        price_precision: pair.pair_decimals,
        qty_precision: pair.lot_decimals,
        asset_precision: None,
        // Older replies have no status; the pair is listed, and the stream will say more.
        status: match pair.status.as_str() {
            "" => TradingStatus::Trading,
            status => trading_status(status.as_bytes()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<InstrumentRules>, MetadataError> {
        parse_metadata(&mut text.as_bytes().to_vec())
    }

    #[test]
    fn kraken_trap_xbt_and_xdg_never_reach_v2() {
        assert_eq!(
            metadata_paths(&["BTC/USD", "DOGE/USDT", "ETH/BTC"]),
            ["/0/public/AssetPairs?pair=XBTUSD,XDGUSDT,ETHXBT"]
        );
        let text = r#"{"error":[],"result":{"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","base":"XXBT","quote":"ZUSD","pair_decimals":1,"lot_decimals":8,"lot_multiplier":1,"fees":[[0,0.4]],"ordermin":"0.00005","costmin":"0.5","tick_size":"0.1","status":"online","new":{}},"XDGUSDT":{"altname":"XDGUSDT","wsname":"XDG/USDT","pair_decimals":7,"lot_decimals":8,"ordermin":"20","costmin":"0.5","status":"reduce_only"},"XBTUSD.d":{"altname":"XBTUSD.d","wsname":"XBT/USD"}}}"#;
        let rules = read(text).unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(
            (rules[0].symbol.as_str(), rules[0].rest_symbol.as_str()),
            ("DOGE/USDT", "XDGUSDT")
        );
        assert_eq!((rules[0].tick.as_str(), rules[0].status), ("0.0000001", TradingStatus::Halted));
        assert_eq!((rules[1].symbol.as_str(), rules[1].lot.as_str()), ("BTC/USD", "0.00000001"));
        assert_eq!((rules[1].price_precision, rules[1].qty_precision), (Some(1), Some(8)));
    }

    #[test]
    fn errors_are_no_pairs_and_warnings_are() {
        assert_eq!(
            read(r#"{"error":["EQuery:Unknown asset pair"]}"#),
            Err(MetadataError::Venue("EQuery:Unknown asset pair".into()))
        );
        assert_eq!(read(r#"{"error":["WSomething"],"result":{}}"#), Ok(vec![]));
        assert!(read("<html>520").is_err());
    }
}
