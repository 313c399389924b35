//! Binance's instruments: `GET /api/v3/exchangeInfo`.
//!
//! Invariant: fields, filters and statuses that we do not know never make a reply unreadable (the official
//! SDK's closed filter enumeration did); a status we do not know halts.

use serde::Deserialize;
use tandem_core::record::{TradingStatus, Venue};

use super::wire::percent;
use crate::spec::{InstrumentRules, MetadataError, read_metadata};

/// Symbols of one request: longer URIs fail at about 8,000 characters.
pub const SYMBOLS_MAX: usize = 200;

/// Returns the paths that describe these symbols.
#[must_use]
pub fn metadata_paths(symbols: &[&str]) -> Vec<String> {
    let path = |symbols: &[&str]| {
        let names = symbols.iter().map(|symbol| format!("%22{}%22", percent(symbol)));
        let names = names.collect::<Vec<_>>().join(",");
        format!("/api/v3/exchangeInfo?symbols=%5B{names}%5D")
    };
    symbols.chunks(SYMBOLS_MAX).map(path).collect()
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ExchangeInfo {
    symbols: Option<Vec<Symbol>>,
    msg: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Symbol {
    symbol: String,
    status: String,
    base_asset: String,
    quote_asset: String,
    base_asset_precision: Option<u8>,
    filters: Vec<Filter>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
    min_qty: Option<String>,
    max_qty: Option<String>,
    min_notional: Option<String>,
}

/// Reads a reply of [`metadata_paths`].
pub fn parse_metadata(body: &mut [u8]) -> Result<Vec<InstrumentRules>, MetadataError> {
    let info: ExchangeInfo = read_metadata(body)?;
    let Some(symbols) = info.symbols else {
        return Err(MetadataError::Venue(info.msg.unwrap_or_else(|| "no `symbols`".into())));
    };
    Ok(symbols.into_iter().map(rules).collect())
}

fn rules(symbol: Symbol) -> InstrumentRules {
    let mut rules = InstrumentRules {
        venue: Venue::Binance,
        feed_symbol: symbol.symbol.clone(),
        rest_symbol: symbol.symbol.clone(),
        symbol: symbol.symbol,
        base: symbol.base_asset,
        quote: symbol.quote_asset,
        tick: String::new(),
        lot: String::new(),
        qty_min: String::new(),
        qty_max: String::new(),
        notional_min: String::new(),
        price_precision: None,
        qty_precision: None,
        asset_precision: symbol.base_asset_precision,
        status: match symbol.status.as_str() {
            "TRADING" => TradingStatus::Trading,
            "CANCEL_ONLY" => TradingStatus::CancelOnly,
            _ => TradingStatus::Halted,
        },
    };
    for filter in symbol.filters {
        let text = |text: Option<String>| text.unwrap_or_default();
        match filter.filter_type.as_str() {
            "PRICE_FILTER" => rules.tick = text(filter.tick_size),
            "LOT_SIZE" => {
                rules.lot = text(filter.step_size);
                rules.qty_min = text(filter.min_qty);
                rules.qty_max = text(filter.max_qty);
            }
            "NOTIONAL" | "MIN_NOTIONAL" => rules.notional_min = text(filter.min_notional),
            _ => {}
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = r#"{"timezone":"UTC","serverTime":1,"rateLimits":[],"exchangeFilters":[],"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","baseAssetPrecision":8,"quoteAsset":"USDT","newField":[1],"filters":[{"filterType":"PRICE_FILTER","minPrice":"0.01000000","maxPrice":"1000000.00000000","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","minQty":"0.00001000","maxQty":"9000.00000000","stepSize":"0.00001000"},{"filterType":"T_PLUS_SELL","endTime":1},{"filterType":"NEW_FILTER","x":{"y":[]}},{"filterType":"NOTIONAL","minNotional":"5.00000000"}],"permissions":[]}],"sors":[]}"#;

    #[test]
    fn binance_trap_39_unknown_filters_fields_and_statuses_pass() {
        let rules = parse_metadata(&mut INFO.as_bytes().to_vec()).unwrap();
        let rules = &rules[0];
        assert_eq!((rules.tick.as_str(), rules.lot.as_str()), ("0.01000000", "0.00001000"));
        assert_eq!(
            (rules.qty_max.as_str(), rules.notional_min.as_str()),
            ("9000.00000000", "5.00000000")
        );
        assert_eq!(rules.status, TradingStatus::Trading);
        for (status, expected) in [
            ("BREAK", TradingStatus::Halted),
            ("CANCEL_ONLY", TradingStatus::CancelOnly),
            ("SOMETHING_NEW", TradingStatus::Halted),
        ] {
            let mut text = INFO.replace("TRADING", status).into_bytes();
            assert_eq!(parse_metadata(&mut text).unwrap()[0].status, expected);
        }
    }

    #[test]
    fn errors_and_pages_are_no_metadata() {
        let mut error = br#"{"code":-1121,"msg":"Invalid symbol."}"#.to_vec();
        assert_eq!(parse_metadata(&mut error), Err(MetadataError::Venue("Invalid symbol.".into())));
        assert!(parse_metadata(&mut b"<html>".to_vec()).is_err());
        let mut deep = format!("{{\"symbols\":[],\"x\":{}", "[".repeat(1 << 20)).into_bytes();
        assert!(parse_metadata(&mut deep).is_err());
    }

    #[test]
    fn paths() {
        assert_eq!(
            metadata_paths(&["BTCUSDT", "ETHUSDT"]),
            ["/api/v3/exchangeInfo?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D"]
        );
    }
}
