//! Coinbase's products: `GET /api/v3/brokerage/market/products`.
//!
//! Invariant: a product that any flag keeps from ordinary trading is not `Trading` (sheet section 6.1);
//! a product that is an alias has its own quote asset and another product's book.

use serde::Deserialize;
use tandem_core::record::{TradingStatus, Venue};

use crate::spec::{InstrumentRules, MetadataError, read_metadata};

/// Returns the paths that describe these products.
#[must_use]
pub fn metadata_paths(products: &[&str]) -> Vec<String> {
    products.iter().map(|id| format!("/api/v3/brokerage/market/products/{id}")).collect()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    List { products: Vec<Product> },
    One(Box<Product>),
    Error { error: Option<String>, message: Option<String> },
}

#[derive(Deserialize)]
struct Product {
    product_id: String,
    #[serde(default)]
    base_increment: String,
    #[serde(default)]
    quote_increment: String,
    #[serde(default)]
    price_increment: String,
    #[serde(default)]
    quote_min_size: String,
    #[serde(default)]
    base_min_size: String,
    #[serde(default)]
    base_max_size: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    base_currency_id: String,
    #[serde(default)]
    quote_currency_id: String,
    #[serde(flatten)]
    flags: Flags,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Flags {
    is_disabled: bool,
    cancel_only: bool,
    limit_only: bool,
    post_only: bool,
    trading_disabled: bool,
    auction_mode: bool,
    view_only: bool,
}

/// Reads a reply of [`metadata_paths`], or a list of products.
pub fn parse_metadata(body: &mut [u8]) -> Result<Vec<InstrumentRules>, MetadataError> {
    match read_metadata(body)? {
        Body::List { products } => Ok(products.into_iter().map(rules).collect()),
        Body::One(product) => Ok(vec![rules(*product)]),
        Body::Error { error, message } => {
            Err(MetadataError::Venue(message.or(error).unwrap_or_else(|| "no product".into())))
        }
    }
}

fn rules(product: Product) -> InstrumentRules {
    let tick = match product.price_increment.as_str() {
        "" => product.quote_increment,
        _ => product.price_increment,
    };
    let alias = product.alias.filter(|alias| !alias.is_empty());
    // An id is `BASE-QUOTE` where the currencies are not named.
    let (base, quote) = product.product_id.split_once('-').unwrap_or(("", ""));
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    InstrumentRules {
        venue: Venue::Coinbase,
        base: or(product.base_currency_id, base),
        quote: or(product.quote_currency_id, quote),
        feed_symbol: alias.unwrap_or_else(|| product.product_id.clone()),
        rest_symbol: product.product_id.clone(),
        tick,
        lot: product.base_increment,
        qty_min: product.base_min_size,
        qty_max: product.base_max_size,
        notional_min: product.quote_min_size,
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: status(&product.status, &product.flags),
        symbol: product.product_id,
    }
}

fn status(status: &str, flags: &Flags) -> TradingStatus {
    let halted = flags.is_disabled
        || flags.trading_disabled
        || flags.view_only
        || flags.auction_mode
        || status != "online";
    if halted {
        TradingStatus::Halted
    } else if flags.cancel_only {
        TradingStatus::CancelOnly
    } else if flags.post_only {
        TradingStatus::PostOnly
    } else {
        // `limit_only` refuses market orders, which we never send.
        let _ = flags.limit_only;
        TradingStatus::Trading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: &str = r#"{"product_id":"BTC-USD","price":"68923.67","base_increment":"0.00000001","quote_increment":"0.01","price_increment":"0.01","quote_min_size":"1","quote_max_size":"150000000","base_min_size":"0.00000001","base_max_size":"3400","is_disabled":false,"new":false,"status":"online","cancel_only":false,"limit_only":false,"post_only":false,"trading_disabled":false,"auction_mode":false,"product_type":"SPOT","quote_currency_id":"USD","base_currency_id":"BTC","fcm_trading_session_details":null,"alias":"","alias_to":["BTC-USDC"],"view_only":false}"#;

    fn read(text: &str) -> Result<Vec<InstrumentRules>, MetadataError> {
        parse_metadata(&mut text.as_bytes().to_vec())
    }

    #[test]
    fn one_product_and_lists() {
        let rules = read(PRODUCT).unwrap().remove(0);
        assert_eq!((rules.base.as_str(), rules.quote.as_str()), ("BTC", "USD"));
        assert_eq!((rules.tick.as_str(), rules.lot.as_str()), ("0.01", "0.00000001"));
        assert_eq!(rules.status, TradingStatus::Trading);
        let list = format!(r#"{{"products":[{PRODUCT}],"num_products":1,"pagination":{{"x":1}}}}"#);
        assert_eq!(read(&list).unwrap(), [rules]);
        assert_eq!(
            read(&PRODUCT.replace("\"price_increment\":\"0.01\",", "")).unwrap()[0].tick,
            "0.01"
        );
    }

    #[test]
    fn coinbase_trap_usdc_is_an_alias_with_its_own_quote() {
        let text = PRODUCT
            .replace("\"product_id\":\"BTC-USD\"", "\"product_id\":\"BTC-USDC\"")
            .replace("\"alias\":\"\"", "\"alias\":\"BTC-USD\"")
            .replace("\"quote_currency_id\":\"USD\"", "\"quote_currency_id\":\"USDC\"");
        let rules = read(&text).unwrap().remove(0);
        assert_eq!((rules.symbol.as_str(), rules.feed_symbol.as_str()), ("BTC-USDC", "BTC-USD"));
        assert_eq!(rules.quote, "USDC");
    }

    #[test]
    fn every_flag_keeps_from_trading() {
        for name in ["is_disabled", "trading_disabled", "view_only", "auction_mode"] {
            let text = PRODUCT.replace(&format!("\"{name}\":false"), &format!("\"{name}\":true"));
            assert_eq!(read(&text).unwrap()[0].status, TradingStatus::Halted, "{name}");
        }
        for (from, to, status) in [
            ("\"online\"", "\"delisted\"", TradingStatus::Halted),
            ("\"cancel_only\":false", "\"cancel_only\":true", TradingStatus::CancelOnly),
            ("\"post_only\":false", "\"post_only\":true", TradingStatus::PostOnly),
            ("\"limit_only\":false", "\"limit_only\":true", TradingStatus::Trading),
        ] {
            assert_eq!(read(&PRODUCT.replace(from, to)).unwrap()[0].status, status);
        }
    }

    #[test]
    fn errors_are_no_product() {
        assert!(matches!(
            read(r#"{"error":"NOT_FOUND","message":"unknown product"}"#),
            Err(MetadataError::Venue(_))
        ));
        assert!(read("<html>").is_err());
        assert!(read("[]").is_err());
    }
}
