//! Recorded messages, played through the real protocol.
//!
//! Invariant: a client that was subscribed before the tape began receives the venue's recorded messages
//! byte for byte, in tape order across venues (faults apart). Everything else it may ask (REST books,
//! metadata, snapshots after a resubscribe) is answered from the book rebuilt out of what was sent.
//!
//! The tape starts when each of its venues has a subscriber of book data. A later subscriber gets an ack
//! and a snapshot of ours, then the recorded updates (Coinbase: renumbered). After the last message the
//! connections live on with heartbeats. A `session_end` ends its venue's part.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Bytes;

use crate::SimError;
use crate::book::Side;
use crate::coinbase::Recorded;
use crate::config::{AssetConfig, InstrumentConfig, Pace, SimConfig, Venue};
use crate::faults::Class;
use crate::hub::ConnId;
use crate::market::Market;
use crate::truth::Truth;
use crate::world::World;

/// All capture text of a run must fit in memory: the largest file at hand has 60 MB.
const BYTES_MAX: usize = 1 << 30;
/// Unsent bytes of a client above which [`Pace::Asap`] waits for it.
const AHEAD_MAX: usize = 1 << 20;
/// Longest stretch of playing under one hold of the world's lock.
const SLICE: Duration = Duration::from_millis(15);

#[derive(Deserialize)]
struct Line {
    ts_recv_ns: Option<u64>,
    venue: String,
    #[serde(default)]
    stream: String,
    kind: Option<String>,
    tape_seq: Option<u64>,
    #[serde(default)]
    raw: String,
}

#[derive(Debug)]
struct Entry {
    ts_ns: u64,
    venue: Venue,
    stream: String,
    raw: Bytes,
}

/// A recorded book message, numbers still text.
#[derive(Debug, Default)]
struct BookText<'a> {
    symbol: &'a str,
    snapshot: bool,
    rows: Vec<(Side, &'a str, &'a str)>,
    /// Binance's `U` and `u`.
    ids: Option<(u64, u64)>,
}

/// Plays capture files.
#[derive(Debug)]
pub(crate) struct Player {
    entries: Vec<Entry>,
    /// Messages sent on connect (Kraken's status).
    greeting: Vec<Bytes>,
    /// Binance REST books by symbol.
    rest: BTreeMap<String, String>,
    venues: Vec<Venue>,
    depth: usize,
    pace: Pace,
    next: usize,
    started_ns: Option<u64>,
    pub unparsed_total: u64,
}

impl Player {
    /// Reads all files and puts their messages into one order.
    pub fn load(files: &[PathBuf], pace: Pace) -> Result<Self, SimError> {
        let mut rows: Vec<(Option<u64>, Entry)> = Vec::new();
        let mut rest = BTreeMap::new();
        let mut bytes = 0usize;
        for file in files {
            let fail = |why: String| SimError::Capture { file: file.display().to_string(), why };
            let opened = std::fs::File::open(file).map_err(|source| SimError::Io {
                what: format!("open {}", file.display()),
                source,
            })?;
            for line in BufReader::new(MultiGzDecoder::new(opened)).lines() {
                let line = line.map_err(|e| fail(e.to_string()))?;
                let line: Line = serde_json::from_str(&line).map_err(|e| fail(e.to_string()))?;
                let venue = Venue::from_name(&line.venue)
                    .ok_or_else(|| fail(format!("venue {} is not simulated", line.venue)))?;
                bytes += line.raw.len();
                if bytes > BYTES_MAX {
                    return Err(fail("more than 1 GiB of messages".to_owned()));
                }
                match line.kind.as_deref() {
                    Some("session_end") => break,
                    Some("rest") if line.stream.contains("depth") => {
                        if line.raw.contains("\"lastUpdateId\":") {
                            let symbol = line_symbol(&rows, venue).unwrap_or_default();
                            rest.entry(symbol).or_insert(line.raw);
                        }
                        continue;
                    }
                    Some(_) => continue,
                    None => {}
                }
                let before = rows.last().map_or(0, |(_, e)| e.ts_ns);
                let entry = Entry {
                    ts_ns: line.ts_recv_ns.unwrap_or(before),
                    venue,
                    stream: line.stream,
                    raw: Bytes::from(line.raw),
                };
                rows.push((line.tape_seq, entry));
            }
        }
        if rows.is_empty() {
            let file = files.first().map_or_else(String::new, |f| f.display().to_string());
            return Err(SimError::Capture { file, why: "no messages".to_owned() });
        }
        if rows.iter().all(|(seq, _)| seq.is_some()) {
            rows.sort_by_key(|(seq, _)| *seq);
        } else {
            rows.sort_by_key(|(_, entry)| entry.ts_ns);
        }
        let mut greeting = Vec::new();
        let mut entries = Vec::with_capacity(rows.len());
        let mut depth = 10;
        for (_, entry) in rows {
            let is_first_of_kraken =
                entry.venue == Venue::Kraken && entry.stream == "status" && greeting.is_empty();
            if let Some(found) = (entry.stream == "subscribe")
                .then(|| std::str::from_utf8(&entry.raw).ok())
                .flatten()
                .and_then(|t| number_after(t, "\"depth\":"))
            {
                depth = usize::try_from(found).unwrap_or(10);
            }
            if is_first_of_kraken {
                greeting.push(entry.raw);
            } else {
                entries.push(entry);
            }
        }
        let mut venues: Vec<Venue> = entries.iter().map(|e| e.venue).collect();
        venues.sort_unstable();
        venues.dedup();
        Ok(Self {
            entries,
            greeting,
            rest,
            venues,
            depth,
            pace,
            next: 0,
            started_ns: None,
            unparsed_total: 0,
        })
    }

    pub fn is_started(&self) -> bool {
        self.started_ns.is_some()
    }

    pub fn on_connect(&self) -> &[Bytes] {
        &self.greeting
    }

    /// State, messages played, messages in all.
    pub fn progress(&self) -> (&'static str, usize, usize) {
        let state = match (self.is_started(), self.next == self.entries.len()) {
            (false, _) => "waiting",
            (true, false) => "playing",
            (true, true) => "finished",
        };
        (state, self.next, self.entries.len())
    }

    /// Enables the tape's venues with the tape's symbols only.
    pub fn adapt(&self, cfg: &mut SimConfig) {
        let stock = SimConfig::default();
        for venue in Venue::ALL {
            let on = self.venues.contains(&venue);
            let mut found: BTreeMap<String, (u8, u8)> = BTreeMap::new();
            for entry in self.entries.iter().filter(|e| e.venue == venue) {
                let Some(book) =
                    std::str::from_utf8(&entry.raw).ok().and_then(|t| book_text(venue, t))
                else {
                    continue;
                };
                let decimals = found.entry(book.symbol.to_owned()).or_default();
                for (_, px, qty) in book.rows {
                    decimals.0 = decimals.0.max(decimals_in(px));
                    decimals.1 = decimals.1.max(decimals_in(qty));
                }
            }
            let instruments: Vec<InstrumentConfig> = found
                .into_iter()
                .map(|(symbol, (px, qty))| {
                    let known = stock.instruments(venue).iter().find(|i| i.symbol == symbol);
                    known.cloned().unwrap_or_else(|| infer(venue, &symbol, px, qty))
                })
                .collect();
            for asset in instruments.iter().flat_map(|i| [&i.base, &i.quote]) {
                if asset != "USD" {
                    let any = AssetConfig { usd: 1.0, vol_bps: 0.0, jump_bps: 0.0 };
                    cfg.market.assets.entry(asset.clone()).or_insert(any);
                }
            }
            match venue {
                Venue::Binance => {
                    cfg.binance.enabled &= on;
                    cfg.binance.instruments = instruments;
                }
                Venue::Coinbase => {
                    cfg.coinbase.enabled &= on;
                    cfg.coinbase.instruments = instruments;
                }
                Venue::Kraken => {
                    cfg.kraken.enabled &= on;
                    cfg.kraken.instruments = instruments;
                }
            }
        }
    }

    /// Puts recorded REST books in place, so that the venue can answer from the start.
    pub fn prepare(&mut self, market: &mut Market, truth: &mut [Truth], now: u64) {
        for (symbol, raw) in &self.rest {
            let Some(inst) = market.find(Venue::Binance, symbol) else { continue };
            let id = number_after(raw, "\"lastUpdateId\":").unwrap_or(0);
            let mut rows = Vec::new();
            for (name, side) in [("\"bids\":", Side::Bid), ("\"asks\":", Side::Ask)] {
                pairs_after(raw, name, side, &mut rows);
            }
            let levels = on_grid(market, inst, &rows, &mut self.unparsed_total);
            if let Some(event) = market.apply(inst, 0, &levels) {
                truth[inst].record(now, &event, &market.instruments()[inst].book);
            }
            market.set_update_id(inst, id);
        }
    }

    /// Plays what is due.
    pub fn play(&mut self, world: &mut World) {
        let now = world.now();
        if self.started_ns.is_none() {
            if !self.venues.iter().all(|v| world.has_subscriber(*v)) {
                return;
            }
            self.started_ns = Some(now);
        }
        let Some(started) = self.started_ns else { return };
        if self.next == self.entries.len() {
            return;
        }
        let base = self.entries.first().map_or(0, |e| e.ts_ns);
        let began = Instant::now();
        while let Some(entry) = self.entries.get(self.next) {
            let offset = entry.ts_ns.saturating_sub(base);
            let ready = match self.pace {
                Pace::Recorded => started + offset <= now,
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a pace, not a price"
                )]
                Pace::Times(times) => started + (offset as f64 / times) as u64 <= now,
                Pace::Asap => !self.next.is_multiple_of(64) || !is_ahead(world),
            };
            if !ready || began.elapsed() > SLICE {
                break;
            }
            self.next += 1;
            let (venue, stream, raw) = (entry.venue, entry.stream.clone(), entry.raw.clone());
            self.send(world, venue, &stream, &raw);
        }
        if self.next == self.entries.len() {
            world.coinbase.tape_ended();
            world.kraken.tape_ended();
        }
    }

    fn send(&mut self, world: &mut World, venue: Venue, stream: &str, raw: &Bytes) {
        let text = std::str::from_utf8(raw).unwrap_or("");
        let book = book_text(venue, text);
        let symbol = book.as_ref().map(|b| b.symbol.to_owned()).or_else(|| symbol_of(venue, text));
        let inst = symbol.and_then(|s| world.market.find(venue, &s));
        if let (Some(inst), Some(book)) = (inst, &book) {
            self.rebuild(world, venue, inst, book);
        }
        let class = match stream {
            "market_trades" | "trade" => Class::Trade,
            "heartbeats" | "heartbeat" => Class::Heartbeat,
            "subscriptions" | "subscribe" => Class::Reply,
            _ => Class::Book,
        };
        let (mut ctx, binance, coinbase, kraken) = world.split();
        match venue {
            Venue::Binance => {
                if let Some(inst) = inst {
                    binance.relay(&mut ctx, inst, stream, raw);
                }
            }
            Venue::Coinbase => {
                let recorded = Recorded {
                    inst,
                    class,
                    raw,
                    sequence: number_after(text, "\"sequence_num\":"),
                    counter: number_after(text, "\"heartbeat_counter\":")
                        .or_else(|| number_after(text, "\"heartbeat_counter\":\"")),
                };
                coinbase.relay(&mut ctx, &recorded);
            }
            Venue::Kraken => kraken.relay(&mut ctx, inst, class, class == Class::Reply, raw),
        }
        if let (Venue::Kraken, Some(inst)) = (venue, inst) {
            world.kraken.sync_views(&world.market, inst);
        }
    }

    /// Applies a recorded book message to the simulator's own book.
    fn rebuild(&mut self, world: &mut World, venue: Venue, inst: usize, book: &BookText<'_>) {
        let levels = on_grid(&world.market, inst, &book.rows, &mut self.unparsed_total);
        let at = world.now();
        if let Some((first, last)) = book.ids {
            if last <= world.market.instruments()[inst].update_id {
                return;
            }
            let event = world.market.apply(inst, 0, &levels);
            world.market.set_update_id(inst, last);
            if let Some(mut event) = event {
                (event.first_id, event.last_id) = (first, last);
                world.note(at, &event);
            }
            return;
        }
        let event = if book.snapshot {
            world.market.replace(inst, 0, &levels)
        } else {
            world.market.apply(inst, 0, &levels)
        };
        if let Some(event) = event {
            world.note(at, &event);
        }
        if venue == Venue::Kraken {
            // The recorder saw this depth only; what is beyond it is unknown.
            let it = &world.market.instruments()[inst].book;
            let beyond: Vec<(Side, i64, i64)> = [Side::Bid, Side::Ask]
                .into_iter()
                .flat_map(|s| it.levels(s).skip(self.depth).map(move |l| (s, l.px, 0)))
                .collect();
            if let Some(event) = world.market.apply(inst, 0, &beyond) {
                let at = world.now();
                world.note(at, &event);
            }
        }
    }
}

/// Whether some client has much unread.
fn is_ahead(world: &World) -> bool {
    let ids: Vec<ConnId> = world.hub.links.keys().copied().collect();
    ids.into_iter().any(|id| world.hub.queued(id) > AHEAD_MAX)
}

/// Binance REST books name no symbol: it is that of the stream recorded so far.
fn line_symbol(rows: &[(Option<u64>, Entry)], venue: Venue) -> Option<String> {
    let mine = rows.iter().rev().find(|(_, e)| e.venue == venue)?;
    let text = std::str::from_utf8(&mine.1.raw).ok()?;
    symbol_of(venue, text)
}

fn on_grid(
    market: &Market,
    inst: usize,
    rows: &[(Side, &str, &str)],
    unparsed: &mut u64,
) -> Vec<(Side, i64, i64)> {
    let spec = &market.instruments()[inst].spec;
    let mut levels = Vec::with_capacity(rows.len());
    for (side, px, qty) in rows {
        match (spec.tick.parse(px), spec.lot.parse(qty)) {
            (Some(px), Some(qty)) => levels.push((*side, px, qty)),
            _ => *unparsed += 1,
        }
    }
    levels
}

fn symbol_of(venue: Venue, text: &str) -> Option<String> {
    let mark = match venue {
        Venue::Binance => "\"s\":\"",
        Venue::Coinbase => "\"product_id\":\"",
        Venue::Kraken => "\"symbol\":\"",
    };
    text_after(text, mark).map(str::to_owned)
}

fn text_after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let rest = &text[text.find(mark)? + mark.len()..];
    rest.split('"').next()
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Appends `[["p","q"],…]` found after `name`.
fn pairs_after<'a>(text: &'a str, name: &str, side: Side, out: &mut Vec<(Side, &'a str, &'a str)>) {
    let Some(at) = text.find(name) else { return };
    let rest = &text[at + name.len()..];
    let end = rest.find("]]").or_else(|| rest.find("[]")).unwrap_or(0);
    let mut strings = rest[..end].split('"').skip(1).step_by(2);
    while let (Some(px), Some(qty)) = (strings.next(), strings.next()) {
        out.push((side, px, qty));
    }
}

/// Reads a recorded book message; `None` for everything else.
///
/// The text is scanned, not parsed: numbers must keep their digits.
fn book_text(venue: Venue, text: &str) -> Option<BookText<'_>> {
    let mut book = BookText::default();
    match venue {
        Venue::Binance => {
            let is_depth = text.contains("\"e\":\"depthUpdate\"");
            book.symbol = is_depth.then(|| text_after(text, "\"s\":\"")).flatten()?;
            book.ids = Some((number_after(text, "\"U\":")?, number_after(text, "\"u\":")?));
            let bids = text.find("\"b\":[")?;
            let asks = text.find("\"a\":[")?;
            let (bid_text, ask_text) = if bids < asks {
                (&text[bids..asks], &text[asks..])
            } else {
                (&text[bids..], &text[asks..bids])
            };
            for (side, part, name) in
                [(Side::Bid, bid_text, "\"b\":"), (Side::Ask, ask_text, "\"a\":")]
            {
                if !part.starts_with(&format!("{name}[]")) {
                    pairs_after(part, name, side, &mut book.rows);
                }
            }
        }
        Venue::Coinbase => {
            let is_book = text.contains("\"channel\":\"l2_data\"");
            book.symbol = is_book.then(|| text_after(text, "\"product_id\":\"")).flatten()?;
            book.snapshot = text.contains("\"type\":\"snapshot\"");
            for part in text.split("{\"side\":\"").skip(1) {
                let side = if part.starts_with("bid") { Side::Bid } else { Side::Ask };
                let px = text_after(part, "\"price_level\":\"")?;
                let qty = text_after(part, "\"new_quantity\":\"")?;
                book.rows.push((side, px, qty));
            }
        }
        Venue::Kraken => {
            let is_book = text.starts_with("{\"channel\":\"book\"");
            book.symbol = is_book.then(|| text_after(text, "\"symbol\":\"")).flatten()?;
            book.snapshot = text.contains("\"type\":\"snapshot\"");
            let asks = text.find("\"asks\":[")?;
            for (at, part) in text.match_indices("{\"price\":") {
                let side = if at < asks { Side::Bid } else { Side::Ask };
                let rest = &text[at + part.len()..];
                let px = &rest[..rest.find(',')?];
                let rest = &rest[rest.find("\"qty\":")? + "\"qty\":".len()..];
                book.rows.push((side, px, &rest[..rest.find('}')?]));
            }
        }
    }
    Some(book)
}

fn decimals_in(text: &str) -> u8 {
    let part = text.split_once('.').map_or("", |(_, d)| d).trim_end_matches('0');
    u8::try_from(part.len()).unwrap_or(8).min(8)
}

/// An instrument nobody configured: its grids are the finest its messages used.
fn infer(venue: Venue, symbol: &str, px_decimals: u8, qty_decimals: u8) -> InstrumentConfig {
    let step = |decimals: u8| match decimals {
        0 => "1".to_owned(),
        d => format!("0.{}1", "0".repeat(usize::from(d) - 1)),
    };
    let split = match venue {
        Venue::Coinbase => symbol.split_once('-'),
        Venue::Kraken => symbol.split_once('/'),
        Venue::Binance => ["USDT", "USDC", "BUSD", "BTC", "ETH", "BNB", "EUR", "USD"]
            .iter()
            .find_map(|q| symbol.strip_suffix(q).map(|b| (b, *q))),
    };
    let (base, quote) = split.unwrap_or((symbol, "USD"));
    InstrumentConfig {
        symbol: symbol.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        tick: step(px_decimals),
        lot: step(qty_decimals),
        min_qty: step(qty_decimals),
        min_notional: "1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_books_are_read_with_their_digits() {
        let binance = r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":157,"u":160,"b":[],"a":[["61837.64000000","1.54698000"],["61839.85000000","0.00000000"]]}}"#;
        let book = book_text(Venue::Binance, binance).unwrap();
        assert_eq!((book.symbol, book.ids), ("BTCUSDT", Some((157, 160))));
        assert_eq!(book.rows[0], (Side::Ask, "61837.64000000", "1.54698000"));
        assert_eq!(book.rows.len(), 2);
        let kraken = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":64782.1,"qty":0.00055559}],"asks":[{"price":64788.5,"qty":0.00005100}],"checksum":1,"timestamp":"x"}]}"#;
        let book = book_text(Venue::Kraken, kraken).unwrap();
        assert_eq!(
            book.rows,
            vec![(Side::Bid, "64782.1", "0.00055559"), (Side::Ask, "64788.5", "0.00005100")]
        );
        let coinbase = r#"{"channel":"l2_data","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"offer","event_time":"t","price_level":"64780.51","new_quantity":"0.03515789"}]}]}"#;
        let book = book_text(Venue::Coinbase, coinbase).unwrap();
        assert!(book.snapshot);
        assert_eq!(book.rows, vec![(Side::Ask, "64780.51", "0.03515789")]);
    }

    #[test]
    fn unknown_symbols_get_the_grid_they_used() {
        let one = infer(Venue::Binance, "RUNEEUR", 3, 1);
        assert_eq!((one.base.as_str(), one.quote.as_str()), ("RUNE", "EUR"));
        assert_eq!((one.tick.as_str(), one.lot.as_str()), ("0.001", "0.1"));
    }
}
