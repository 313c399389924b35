//! What goes over Binance's wire: paths, requests, how an order is written.
//!
//! Invariant: every text that is not an order is made of numbers, symbols and client ids of ours, so none
//! of it needs escaping. Prices and quantities are plain decimals (`1e-05` is refused, trap 24).
//!
//! Not here: what replies mean (`mod`), signatures (`sign`).

use tandem_core::order::{Action, ClientId, NewOrder, Tif};

use crate::desk::Listing;
use crate::text::Text;

/// Path of the WebSocket API.
pub const WS_PATH: &str = "/ws-api/v3";

/// Weights (section 4.5).
pub mod weight {
    /// `order.status`.
    pub const ORDER: u64 = 4;
    /// `openOrders.status` of one symbol.
    pub const OPEN_ORDERS: u64 = 6;
    /// `openOrders.status` of all.
    pub const OPEN_ORDERS_ALL: u64 = 80;
    /// `account.status`.
    pub const ACCOUNT: u64 = 20;
    /// `myTrades`.
    pub const TRADES: u64 = 20;
    /// `account.commission`.
    pub const COMMISSION: u64 = 20;
    /// `session.logon` and other cheap ones.
    pub const SESSION: u64 = 2;
}

/// Trades of one page.
pub const TRADES_MAX: usize = 1_000;

/// The parts of an order's text that do not change, made ahead for each instrument.
#[derive(Clone, Debug)]
pub struct Template(Vec<u8>);

impl Template {
    /// Makes the template of an instrument.
    #[must_use]
    pub fn new(listing: &Listing) -> Template {
        let text = format!(
            ",\"method\":\"order.place\",\"params\":{{\"symbol\":\"{}\",\"newOrderRespType\":\"FULL\",\
             \"selfTradePreventionMode\":\"EXPIRE_TAKER\",\"side\":\"",
            listing.symbol
        );
        Template(text.into_bytes())
    }
}

/// Writes an order.
pub fn place(
    text: &mut Text,
    (template, listing): (&Template, &Listing),
    order: &NewOrder,
    (id, window_ms, now_ms): (u64, u64, u64),
) {
    text.clear();
    text.put(b"{\"id\":").integer(id).put(&template.0);
    text.put(match order.action {
        Action::Buy => b"BUY",
        Action::Sell => b"SELL",
    });
    // LIMIT_MAKER takes no timeInForce (-1106).
    text.put(match order.tif {
        Tif::Ioc => b"\",\"type\":\"LIMIT\",\"timeInForce\":\"IOC".as_slice(),
        Tif::Fok => b"\",\"type\":\"LIMIT\",\"timeInForce\":\"FOK",
        Tif::Gtc => b"\",\"type\":\"LIMIT\",\"timeInForce\":\"GTC",
        Tif::PostOnly => b"\",\"type\":\"LIMIT_MAKER",
    });
    text.put(b"\",\"price\":\"").decimal(order.px.0, listing.px_exponent);
    text.put(b"\",\"quantity\":\"").decimal(order.qty.0, listing.qty_exponent);
    text.put(b"\",\"newClientOrderId\":\"").put(ClientId::new(order.run, order.key).as_bytes());
    text.put(b"\",\"recvWindow\":").integer(window_ms);
    text.put(b",\"timestamp\":").integer(now_ms).put(b"}}");
}

/// Returns a request of the WebSocket API; `params` are members with a comma behind each.
#[must_use]
pub fn request(id: u64, method: &str, params: &str, now_ms: i64) -> String {
    format!("{{\"id\":{id},\"method\":\"{method}\",\"params\":{{{params}\"timestamp\":{now_ms}}}}}")
}

/// Returns an HTTP request whose parameters are all in the path.
#[must_use]
pub fn http(method: &str, host: &str, path_and_query: &str, api_key: &str) -> Vec<u8> {
    format!(
        "{method} {path_and_query} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tandem/{}\r\nX-MBX-APIKEY: {api_key}\r\n\
         Accept: application/json\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}
