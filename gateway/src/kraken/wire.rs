//! What goes over Kraken's wire: requests, how an order is written, how ids and assets are spelled.
//!
//! Invariant: every text is made of numbers, symbols, ids of ours and the token, so none of it needs
//! escaping. WebSocket names are `BTC`, REST's `XBT`, `XXBT` and `ZUSD` are turned at this edge.
//!
//! Not here: what replies mean (`mod`), signatures (`sign`).

use tandem_core::order::{Action, ClientId, NewOrder, Tif};

use crate::desk::Listing;
use crate::text::Text;

/// Path of the authenticated stream.
pub const WS_PATH: &str = "/v2";

/// The shortest and the longest deadline the venue takes (section 6.1).
pub const DEADLINE_NS: (i64, i64) = (500_000_000, 60_000_000_000);

/// Writes an order.
pub fn add_order(
    text: &mut Text,
    listing: &Listing,
    order: &NewOrder,
    (id, deadline_ns, token): (u64, i64, &str),
) {
    text.clear();
    text.put(b"{\"method\":\"add_order\",\"req_id\":").integer(id);
    text.put(b",\"params\":{\"order_type\":\"limit\",\"side\":\"");
    text.put(match order.action {
        Action::Buy => b"buy".as_slice(),
        Action::Sell => b"sell",
    });
    text.put(b"\",\"symbol\":\"").put(listing.symbol.as_bytes());
    text.put(b"\",\"order_qty\":").decimal(order.qty.0, listing.qty_exponent);
    text.put(b",\"limit_price\":").decimal(order.px.0, listing.px_exponent);
    text.put(match order.tif {
        Tif::Ioc | Tif::Fok => b",\"time_in_force\":\"ioc\"".as_slice(),
        Tif::Gtc => b",\"time_in_force\":\"gtc\"",
        Tif::PostOnly => b",\"time_in_force\":\"gtc\",\"post_only\":true",
    });
    // `stp_type` here, `stptype` over REST.
    text.put(b",\"stp_type\":\"cancel_newest\",\"cl_ord_id\":\"");
    text.put(ClientId::new(order.run, order.key).as_bytes());
    text.put(b"\",\"deadline\":\"").time(deadline_ns);
    text.put(b"\",\"token\":\"").put(token.as_bytes()).put(b"\"}}");
}

/// Returns a request of the WebSocket; `params` are members with a comma behind each.
#[must_use]
pub fn request(id: u64, method: &str, params: &str, token: &str) -> String {
    format!(
        "{{\"method\":\"{method}\",\"req_id\":{id},\"params\":{{{params}\"token\":\"{token}\"}}}}"
    )
}

/// Returns a signed POST.
#[must_use]
pub fn post(host: &str, path: &str, body: &str, key: &str, signature: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem/{}\r\nAPI-Key: {key}\r\nAPI-Sign: {signature}\r\n\
         Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nContent-Length: {}\r\nConnection: keep-alive\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        body.len()
    )
    .into_bytes()
}

const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Lengths of an id's three parts.
const PARTS: [usize; 3] = [6, 5, 6];

/// Returns an order's id (`OUF4EM-FRGI2-MQMWZD`) as a number, or nothing where it has another form.
#[must_use]
pub fn parse_id(text: &[u8]) -> Option<u128> {
    let mut parts = text.split(|byte| *byte == b'-');
    let mut value = 0u128;
    for len in PARTS {
        let part = parts.next().filter(|part| part.len() == len)?;
        for byte in part {
            let digit = DIGITS.iter().position(|digit| digit == byte)?;
            value = value * 36 + digit as u128;
        }
    }
    parts.next().is_none().then_some(value)
}

/// Returns the id that a number came from.
#[must_use]
pub fn id_text(mut value: u128) -> String {
    let mut letters = [0u8; 17];
    for at in letters.iter_mut().rev() {
        *at = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    let text = String::from_utf8_lossy(&letters);
    format!("{}-{}-{}", &text[..6], &text[6..11], &text[11..])
}

/// Returns the common name of an asset as REST spells it; nothing for balances that are not on spot
/// (staking and earning suffixes).
#[must_use]
pub fn common_asset(name: &str) -> Option<&str> {
    if name.contains('.') {
        return None;
    }
    let plain = match name.as_bytes() {
        [b'X' | b'Z', _, _, _] => &name[1..],
        _ => name,
    };
    Some(match plain {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        plain => plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        for id in ["OUF4EM-FRGI2-MQMWZD", "000000-00000-000001", "ZZZZZZ-ZZZZZ-ZZZZZZ"] {
            assert_eq!(id_text(parse_id(id.as_bytes()).expect("an id")), id);
        }
        for id in [
            "",
            "OUF4EM-FRGI2",
            "OUF4EM-FRGI2-MQMWZ",
            "ouf4em-FRGI2-MQMWZD",
            "OUF4EM-FRGI2-MQMWZD-1",
        ] {
            assert_eq!(parse_id(id.as_bytes()), None, "{id}");
        }
    }

    #[test]
    fn assets_have_three_names() {
        let cases = [
            ("XXBT", Some("BTC")),
            ("ZUSD", Some("USD")),
            ("XXDG", Some("DOGE")),
            ("XETH", Some("ETH")),
            ("USDT", Some("USDT")),
            ("SOL", Some("SOL")),
            ("XBT.F", None),
        ];
        for (name, expected) in cases {
            assert_eq!(common_asset(name), expected, "{name}");
        }
    }
}
