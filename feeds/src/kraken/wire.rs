//! What goes over Kraken's wire (v2): names, paths, limits.
//!
//! Invariant: symbols on v2 are `BTC/USD` and `DOGE/USD`; REST's `XBT` and `XDG` never get here
//! (nautilus #3509: silence or an error).
//!
//! Not here: what the messages mean (`decode`), when they are sent (`mod`).

/// Between two heartbeats while nothing else is sent (`protocols/kraken.md` section 3).
pub const HEARTBEAT_NS: i64 = 1_000_000_000;

/// Path of the stream.
pub const STREAM_PATH: &str = "/v2";

/// Control messages a second that we send, in thousandths: the venue's limit is dynamic and unpublished,
/// so we stay slow.
pub const SENT_PER_SECOND_MILLI: u32 = 5_000;

/// Connections in thousandths a second: about 150 in 10 minutes are allowed by the edge.
pub const CONNECTS_PER_SECOND_MILLI: u32 = 200;

/// Public REST requests a second in thousandths: about 1 (community).
pub const REST_PER_SECOND_MILLI: u32 = 1_000;

/// Symbols of one subscribe message.
pub const SYMBOLS_MAX: usize = 50;

/// Returns a message that subscribes (or unsubscribes) books.
#[must_use]
pub fn book(method: &str, symbols: &[&str], depth: u32, req_id: u64) -> String {
    let names = symbols.join("\",\"");
    let snapshot = if method == "subscribe" { ",\"snapshot\":true" } else { "" };
    format!(
        "{{\"method\":\"{method}\",\"params\":{{\"channel\":\"book\",\"symbol\":[\"{names}\"],\"depth\":{depth}{snapshot}}},\"req_id\":{req_id}}}"
    )
}

/// Returns a message that subscribes the instruments' rules.
#[must_use]
pub fn instrument(req_id: u64) -> String {
    format!(
        "{{\"method\":\"subscribe\",\"params\":{{\"channel\":\"instrument\",\"snapshot\":true}},\"req_id\":{req_id}}}"
    )
}

/// Returns a ping of the venue's own.
#[must_use]
pub fn ping(req_id: u64) -> String {
    format!("{{\"method\":\"ping\",\"req_id\":{req_id}}}")
}

/// Path of a REST book.
#[must_use]
pub fn depth_path(rest_symbol: &str, count: u32) -> String {
    format!("/0/public/Depth?pair={rest_symbol}&count={}", count.clamp(1, 500))
}
