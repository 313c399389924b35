//! What goes over Coinbase Advanced Trade's wire: names, paths, limits.
//!
//! Invariant: one channel a message, as the venue demands; the first subscription goes out at once, because
//! the venue closes a connection that is silent for 5 s.
//!
//! Not here: what the messages mean (`decode`), when they are sent (`mod`).

/// Path of the stream.
pub const STREAM_PATH: &str = "/";

/// Messages a second and address that we send, in thousandths. 8 are allowed to unauthenticated clients;
/// older sources say 750, the lower number binds.
pub const SENT_PER_SECOND_MILLI: u32 = 6_000;

/// Connections a second and address, in thousandths; 8 are allowed.
pub const CONNECTS_PER_SECOND_MILLI: u32 = 4_000;

/// REST requests a second in thousandths: 10,000 an hour bind where the general policy applies.
pub const REST_PER_SECOND_MILLI: u32 = 2_800;

/// Levels of the book that is compared with ours.
pub const AUDIT_LEVELS: u32 = 50;

/// Returns a subscription (or its end) to one channel; without products it is the whole channel.
#[must_use]
pub fn control(kind: &str, channel: &str, products: &[&str]) -> String {
    if products.is_empty() {
        return format!("{{\"type\":\"{kind}\",\"channel\":\"{channel}\"}}");
    }
    let ids = products.join("\",\"");
    format!("{{\"type\":\"{kind}\",\"product_ids\":[\"{ids}\"],\"channel\":\"{channel}\"}}")
}

/// Path of the best levels of a book. Answers may be cached for one second.
#[must_use]
pub fn book_path(product: &str, limit: u32) -> String {
    format!("/api/v3/brokerage/market/product_book?product_id={product}&limit={limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames() {
        assert_eq!(
            control("subscribe", "level2", &["BTC-USD", "ETH-USD"]),
            r#"{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channel":"level2"}"#
        );
        assert_eq!(
            control("subscribe", "heartbeats", &[]),
            r#"{"type":"subscribe","channel":"heartbeats"}"#
        );
    }
}
