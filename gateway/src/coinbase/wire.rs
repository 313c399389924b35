//! What goes over Coinbase's wire: paths, requests, how an order is written.
//!
//! Invariant: every text is made of numbers, product ids and ids of ours, so none of it needs escaping.
//!
//! Not here: what replies mean (`mod`), tokens (`sign`).

use tandem_core::order::{Action, ClientId, NewOrder, Tif};

use crate::desk::Listing;
use crate::text::Text;

/// Path of the user stream.
pub const WS_PATH: &str = "/";
/// Path of new orders, constant so that its tokens can be made ahead.
pub const ORDERS: &str = "/api/v3/brokerage/orders";
/// Path of cancels.
pub const CANCEL: &str = "/api/v3/brokerage/orders/batch_cancel";
/// Path of one order, its id behind, and of lists.
pub const HISTORICAL: &str = "/api/v3/brokerage/orders/historical";
/// Path of balances.
pub const ACCOUNTS: &str = "/api/v3/brokerage/accounts";
/// Path of the fee tier.
pub const SUMMARY: &str = "/api/v3/brokerage/transaction_summary";
/// Path of the time: needs no token, keeps connections warm.
pub const TIME: &str = "/api/v3/brokerage/time";

/// Names all of our orders as one trader's, so that they are kept from meeting each other.
const SELF_TRADE_ID: &str = "74616e64-656d-4000-8000-000000000001";

/// Writes an order: first its body, for the length, then the whole.
pub fn create(
    (text, body): (&mut Text, &mut Text),
    listing: &Listing,
    order: &NewOrder,
    (host, token): (&str, &str),
) {
    body.clear();
    body.put(b"{\"client_order_id\":\"").put(ClientId::new(order.run, order.key).as_bytes());
    body.put(b"\",\"product_id\":\"").put(listing.symbol.as_bytes()).put(b"\",\"side\":\"");
    body.put(match order.action {
        Action::Buy => b"BUY".as_slice(),
        Action::Sell => b"SELL",
    });
    body.put(b"\",\"order_configuration\":{\"");
    body.put(match order.tif {
        Tif::Ioc => b"sor_limit_ioc".as_slice(),
        Tif::Fok => b"limit_limit_fok",
        Tif::Gtc | Tif::PostOnly => b"limit_limit_gtc",
    });
    body.put(b"\":{\"base_size\":\"").decimal(order.qty.0, listing.qty_exponent);
    body.put(b"\",\"limit_price\":\"").decimal(order.px.0, listing.px_exponent);
    body.put(match order.tif {
        Tif::Ioc | Tif::Fok => b"\"}}".as_slice(),
        Tif::Gtc => b"\",\"post_only\":false}}",
        Tif::PostOnly => b"\",\"post_only\":true}}",
    });
    body.put(b",\"self_trade_prevention_id\":\"").put(SELF_TRADE_ID.as_bytes()).put(b"\"}");
    text.clear();
    let body = body.bytes().unwrap_or_default();
    text.put(b"POST ").put(ORDERS.as_bytes()).put(b" HTTP/1.1\r\nHost: ").put(host.as_bytes());
    text.put(b"\r\nAuthorization: Bearer ").put(token.as_bytes());
    text.put(b"\r\nContent-Type: application/json\r\nContent-Length: ").integer(body.len() as u64);
    text.put(b"\r\nConnection: keep-alive\r\n\r\n").put(body);
}

/// Returns a request.
#[must_use]
pub fn http(method: &str, host: &str, path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let authorization =
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem/{}\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        body.len()
    )
    .into_bytes()
}

/// Returns a subscription.
#[must_use]
pub fn subscribe(channel: &str, token: &str) -> String {
    format!(
        "{{\"type\":\"subscribe\",\"product_ids\":[],\"channel\":\"{channel}\",\"jwt\":\"{token}\"}}"
    )
}

/// Returns an order's id as a number; nothing where it is no UUID.
#[must_use]
pub fn parse_id(text: &[u8]) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    let mut value = 0u128;
    for (at, byte) in text.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            _ => value = value << 4 | u128::from(char::from(*byte).to_digit(16)?),
        }
    }
    Some(value)
}

/// Returns the id that a number came from.
#[must_use]
pub fn id_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        for id in ["00000000-0000-4000-8000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
            assert_eq!(id_text(parse_id(id.as_bytes()).expect("a UUID")), id);
        }
        for id in [
            "",
            "x",
            "00000000-0000-4000-8000-00000000000g",
            "000000000000-4000-8000-000000000001xx",
        ] {
            assert_eq!(parse_id(id.as_bytes()), None, "{id}");
        }
    }
}
