//! What goes over Binance's wire: names, paths, limits.
//!
//! Invariant: every text built here is within the venue's limits (sheet sections 2.2 and 2.3): control
//! frames below 4 kB, stream names in lower case.
//!
//! Not here: what the messages mean (`decode`), when they are sent (`mod`).

use crate::spec::VenueInstrument;

/// Path of a combined stream that is filled by `SUBSCRIBE`.
pub const STREAM_PATH: &str = "/stream";

/// Bytes of a control frame: 4 kB fail silently (ccxws #161).
const FRAME_BYTES_MAX: usize = 3_500;

/// Names of a control frame: batches of 100 to 200 are known to work.
const FRAME_NAMES_MAX: usize = 100;

/// Streams of one connection.
pub const STREAMS_MAX: usize = 1_024;

/// Control frames a second on one connection, in thousandths: 5 are allowed and pongs count, about 4
/// were safe in practice (XChange #4468). A quarter is left for pongs.
pub const CONTROL_PER_SECOND_MILLI: u32 = 3_000;

/// Connections a second and address, in thousandths: 300 in 5 minutes are allowed.
pub const CONNECTS_PER_SECOND_MILLI: u32 = 900;

/// Request weight a minute and address (read live from `rateLimits`; this is the documented value).
pub const WEIGHT_PER_MINUTE: u64 = 6_000;

/// Weight of `GET /api/v3/exchangeInfo`.
pub const RULES_WEIGHT: u64 = 20;

/// Levels of the book that is compared with ours.
pub const AUDIT_LEVELS: u32 = 100;

/// Weight of `GET /api/v3/depth` by limit (section 4.5).
#[must_use]
pub const fn depth_weight(limit: u32) -> u64 {
    match limit {
        0..=100 => 5,
        101..=500 => 25,
        501..=1_000 => 50,
        _ => 250,
    }
}

/// Path of a book snapshot.
#[must_use]
pub fn depth_path(symbol: &str, limit: u32) -> String {
    format!("/api/v3/depth?symbol={}&limit={limit}", percent(symbol))
}

/// Percent-encodes what is no plain letter or digit: symbols may be non-ASCII.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Returns the streams of an instrument.
pub fn streams(instrument: &VenueInstrument, ticker: bool) -> impl Iterator<Item = String> {
    let name = instrument.symbol.to_lowercase();
    let ticker = ticker.then(|| format!("{name}@bookTicker"));
    [Some(format!("{name}@depth@100ms")), ticker].into_iter().flatten()
}

/// Returns control frames that name every stream once, ids counting up from `first_id`.
#[must_use]
pub fn control(method: &str, streams: impl Iterator<Item = String>, first_id: u64) -> Vec<String> {
    let mut frames = Vec::new();
    let mut names = String::new();
    let mut count = 0;
    let mut finish = |names: &mut String, count: &mut usize| {
        if 0 < *count {
            let id = first_id + frames.len() as u64;
            frames.push(format!("{{\"method\":\"{method}\",\"params\":[{names}],\"id\":{id}}}"));
            (*names, *count) = (String::new(), 0);
        }
    };
    for stream in streams {
        if count == FRAME_NAMES_MAX || FRAME_BYTES_MAX < names.len() + stream.len() {
            finish(&mut names, &mut count);
        }
        if 0 < count {
            names.push(',');
        }
        // Stream names are the venue's own symbols; a quote in one would not be a symbol.
        names.push_str(&format!("\"{}\"", stream.replace(['"', '\\'], "")));
        count += 1;
    }
    finish(&mut names, &mut count);
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binance_trap_12_huge_subscribe_is_split() {
        let names = (0..1_000).map(|i| format!("symbol{i}usdt@depth@100ms"));
        let frames = control("SUBSCRIBE", names, 5);
        assert!(10 <= frames.len());
        assert!(frames.iter().all(|frame| frame.len() < 4_096));
        let count: usize = frames.iter().map(|frame| frame.matches("@depth").count()).sum();
        assert_eq!(count, 1_000);
        assert!(frames[1].ends_with("\"id\":6}"), "{}", frames[1]);
        for frame in &frames {
            assert_eq!(crate::json::check(frame.as_bytes()), Ok(()));
        }
    }

    #[test]
    fn paths_are_ascii() {
        assert_eq!(
            depth_path("币安人生USDT", 100),
            "/api/v3/depth?symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT&limit=100"
        );
    }
}
