//! Recorded sessions through the production decoders and sync machines: books from a file.
//!
//! Invariant: what decodes a message and what judges its sequence here is what does so in production;
//! this driver adds only what a recording lacks (who asked for a snapshot, how fine a symbol's numbers
//! are) and the report. Books are driven by depth messages alone. A message is applied whole before the
//! report looks at it.
//!
//! The exponents of a symbol are found: 8 and 8 at first, one finer where a number is inexact, one
//! coarser where one overflows, and the file once more for that symbol.
//!
//! Files of protocols that Tandem does not trade on are refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tandem_core::book::{Book, Level};
use tandem_core::units::{Decimal, DecimalError, Side};

use crate::binance::decode as binance;
use crate::binance::sync::{DepthSync, OnDiff, OnSnapshot};
use crate::coinbase::decode as coinbase;
use crate::coinbase::sync::{OnFrame, Sequence};
use crate::error::{DecodeError, Fault};
use crate::json::{Scanner, Type};
use crate::kraken::decode as kraken;
use crate::kraken::sync::Digits;
use crate::publish::Update;
use crate::scratch::Scale;
use crate::symbols::Symbols;

/// What a recording says of one symbol. The field names are a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SymbolReport {
    /// Symbol as in the messages.
    pub symbol: String,
    /// Price and quantity of the best bid at the end, decimal text; nothing for an empty side.
    pub best_bid: Option<[String; 2]>,
    /// Likewise the best ask.
    pub best_ask: Option<[String; 2]>,
    /// Levels of bids and asks at the end.
    pub levels: [usize; 2],
    /// Messages that changed the book; a snapshot with the buffered diffs it releases is one.
    pub applied: u64,
    /// Snapshots that the book began from.
    pub snapshots: u64,
    /// Holes in the sequence.
    pub gaps: u64,
    /// Checksums that matched.
    pub checksum_ok: u64,
    /// Checksums that did not.
    pub checksum_bad: u64,
    /// Lines of the path below.
    pub bbo_changes: u64,
    /// SHA-256 of the best ten levels of each side: `b,price,qty` lines, then `a,price,qty`.
    pub top10: String,
    /// SHA-256 of all levels.
    pub full: String,
    /// SHA-256 of the best bid and ask over time: a line `bid px,bid qty,ask px,ask qty` a change.
    pub bbo_path: String,
    /// The same with the receive time in front; nothing where the recording has none.
    pub bbo_path_ts: Option<String>,
    /// Whether the book was in sync at the end.
    pub synced_at_end: bool,
}

/// Why a recording gives no report.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// Not readable, or not gzip though it says so.
    #[error("{path}: {error}")]
    Io {
        /// File.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is no JSON object.
    #[error("{path}:{line}: {error}")]
    Line {
        /// File.
        path: String,
        /// Line number, from 1.
        line: usize,
        /// Why.
        error: String,
    },
    /// A venue or protocol that is not ours.
    #[error("{path}: not supported: {what}")]
    NotSupported {
        /// File.
        path: String,
        /// Which.
        what: String,
    },
    /// Numbers that no exponent holds.
    #[error("{path}: {symbol}: {what} fits no exponent")]
    Scale {
        /// File.
        path: String,
        /// Symbol.
        symbol: String,
        /// Price or quantity.
        what: &'static str,
    },
}

/// One line of a recording.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    ts_recv_ns: Option<i64>,
    venue: Option<String>,
    kind: Option<String>,
    symbol: Option<String>,
    url: Option<String>,
    conn: Option<serde_json::Value>,
    raw: Option<String>,
}

impl Line {
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("")
    }

    fn raw(&self) -> &[u8] {
        self.raw.as_deref().unwrap_or("").as_bytes()
    }

    fn conn(&self) -> String {
        self.conn.as_ref().map_or_else(String::new, ToString::to_string)
    }

    /// The symbol a REST answer is for.
    fn rest_symbol(&self) -> Option<&str> {
        let from_url = || {
            let query = self.url.as_deref()?.split_once('?')?.1;
            query.split('&').find_map(|part| part.strip_prefix("symbol="))
        };
        self.symbol.as_deref().or_else(from_url)
    }
}

/// The protocols we can replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Binance,
    Coinbase,
    Kraken,
}

/// Rebuilds the books of a recording, plain or gzip; one report a symbol that has a book, by name.
pub fn rebuild(path: &str, mut reader: impl Read) -> Result<Vec<SymbolReport>, CaptureError> {
    let io = |error| CaptureError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(io)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut plain).map_err(io)?;
        bytes = plain;
    }
    let lines = parse_lines(path, &bytes)?;
    drop(bytes);
    let Some(protocol) = protocol(path, &lines)? else { return Ok(Vec::new()) };

    let mut scales: BTreeMap<String, Search> = BTreeMap::new();
    for line in &lines {
        for name in names(protocol, line) {
            scales.entry(name).or_default();
        }
    }
    let mut reports = BTreeMap::new();
    let mut wanted: Vec<String> = scales.keys().cloned().collect();
    while !wanted.is_empty() {
        let mut run = Run::new(protocol, &wanted, &scales);
        lines.iter().for_each(|line| run.line(line));
        let mut again = Vec::new();
        for track in run.tracks {
            match track.refused {
                None => {
                    reports.insert(track.report.symbol.clone(), track.finish());
                }
                Some(error) => {
                    let search = scales.entry(track.report.symbol.clone()).or_default();
                    search.next(error).map_err(|what| CaptureError::Scale {
                        path: path.to_owned(),
                        symbol: track.report.symbol.clone(),
                        what,
                    })?;
                    again.push(track.report.symbol);
                }
            }
        }
        wanted = again;
    }
    Ok(reports.into_values().collect())
}

fn parse_lines(path: &str, bytes: &[u8]) -> Result<Vec<Line>, CaptureError> {
    let mut lines = Vec::new();
    for (idx, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        lines.push(serde_json::from_slice(text).map_err(|error| CaptureError::Line {
            path: path.to_owned(),
            line: idx + 1,
            error: error.to_string(),
        })?);
    }
    Ok(lines)
}

/// Decides what the file's messages are; nothing where it holds no live messages at all.
fn protocol(path: &str, lines: &[Line]) -> Result<Option<Protocol>, CaptureError> {
    let refuse = |what: &str| {
        Err(CaptureError::NotSupported { path: path.to_owned(), what: what.to_owned() })
    };
    let live = |line: &&Line| matches!(line.kind(), "" | "rest" | "sent" | "connect" | "message");
    let Some(first) = lines.iter().find(live) else { return Ok(None) };
    let folder = path.rsplit(['/', '\\']).nth(1).unwrap_or("");
    let venue = first.venue.as_deref().unwrap_or(folder);
    let messages = || lines.iter().filter(|line| matches!(line.kind(), "" | "message")).take(200);
    let any = |needle: &str| {
        messages().any(|line| line.raw.as_deref().is_some_and(|raw| raw.contains(needle)))
    };
    match venue {
        "binance" | "binance_us" if any("\"pu\":") => refuse("Binance futures"),
        "binance" | "binance_us" => Ok(Some(Protocol::Binance)),
        "coinbase" if any("\"l2update\"") || any("\"type\":\"subscriptions\"") => {
            refuse("Coinbase Exchange feed (only Advanced Trade is)")
        }
        "coinbase" => Ok(Some(Protocol::Coinbase)),
        "kraken" if any("\"event\":\"") || messages().any(|line| line.raw().starts_with(b"[")) => {
            refuse("Kraken WebSocket v1 (only v2 is)")
        }
        "kraken" => Ok(Some(Protocol::Kraken)),
        other => refuse(&format!("venue `{other}`")),
    }
}

/// Symbols whose book a line carries.
fn names(protocol: Protocol, line: &Line) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match (protocol, line.kind()) {
        // Only answers that are books: exchangeInfo may carry a symbol too.
        (Protocol::Binance, "rest")
            if line.raw.as_deref().is_some_and(|raw| raw.contains("\"lastUpdateId\"")) =>
        {
            found.extend(line.rest_symbol().map(str::to_owned));
        }
        (_, "" | "message") => {
            let keys: [&[u8]; 2] = match protocol {
                Protocol::Binance => [b"e", b"s"],
                Protocol::Coinbase => [b"channel", b"product_id"],
                Protocol::Kraken => [b"channel", b"symbol"],
            };
            let kind: &[u8] = match protocol {
                Protocol::Binance => b"depthUpdate",
                Protocol::Coinbase => b"l2_data",
                Protocol::Kraken => b"book",
            };
            let mut seen = (false, BTreeSet::new());
            // A text that cannot be read names nobody; the decoder will say so.
            let read =
                Scanner::new(line.raw()).and_then(|mut s| look(&mut s, keys, kind, &mut seen, 0));
            if read.is_ok() && seen.0 {
                found = seen.1;
            }
        }
        _ => {}
    }
    found
}

/// Looks for `kind` under one key and for symbols under another, a few levels deep.
fn look(
    scanner: &mut Scanner<'_>,
    keys: [&[u8]; 2],
    kind: &[u8],
    seen: &mut (bool, BTreeSet<String>),
    depth: u32,
) -> Result<(), crate::json::JsonError> {
    match scanner.peek()? {
        Type::Object if depth < 4 => {
            scanner.object()?;
            while let Some(key) = scanner.key()? {
                let text = scanner.peek()? == Type::String;
                if text && *key == *keys[0] {
                    seen.0 |= *scanner.text()? == *kind;
                } else if text && *key == *keys[1] {
                    seen.1.insert(String::from_utf8_lossy(&scanner.text()?).into_owned());
                } else if matches!(&*key, b"updates" | b"bids" | b"asks" | b"b" | b"a") {
                    scanner.skip()?;
                } else {
                    look(scanner, keys, kind, seen, depth + 1)?;
                }
            }
            Ok(())
        }
        Type::Array if depth < 4 => {
            scanner.array()?;
            while scanner.element()? {
                look(scanner, keys, kind, seen, depth + 1)?;
            }
            Ok(())
        }
        _ => scanner.skip().map(|_| ()),
    }
}

/// The search for a symbol's exponents.
#[derive(Clone, Debug)]
struct Search {
    scale: Scale,
    /// Exponents that were too coarse and too fine: price, quantity.
    coarse: [Option<u8>; 2],
    fine: [Option<u8>; 2],
}

impl Default for Search {
    fn default() -> Search {
        Search { scale: Scale { px: 8, qty: 8 }, coarse: [None; 2], fine: [None; 2] }
    }
}

impl Search {
    fn next(&mut self, error: DecodeError) -> Result<(), &'static str> {
        let (idx, error) = match error {
            DecodeError::Px(error) => (0, error),
            DecodeError::Qty(error) => (1, error),
            _ => return Err("a message"),
        };
        let what = ["price", "quantity"][idx];
        let exponent = if idx == 0 { &mut self.scale.px } else { &mut self.scale.qty };
        match error {
            DecimalError::Inexact { .. } if *exponent < 18 => {
                self.coarse[idx] = Some(*exponent);
                *exponent += 1;
            }
            DecimalError::Overflow { .. } if 0 < *exponent => {
                self.fine[idx] = Some(*exponent);
                *exponent -= 1;
            }
            _ => return Err(what),
        }
        let between = |idx: usize, at: u8| {
            self.coarse[idx].is_none_or(|coarse| coarse < at)
                && self.fine[idx].is_none_or(|fine| at < fine)
        };
        if between(idx, if idx == 0 { self.scale.px } else { self.scale.qty }) {
            Ok(())
        } else {
            Err(what)
        }
    }
}

/// One symbol on its way through a file.
struct Track {
    report: SymbolReport,
    scale: Scale,
    refused: Option<DecodeError>,
    book: Book,
    synced: bool,
    conn: String,
    path: Sha256,
    path_ts: Option<Sha256>,
    last_line: Option<String>,
    depth_sync: DepthSync,
    /// Kraken: subscribed depth and precisions, as far as known.
    depth: Option<usize>,
    digits: Option<Digits>,
    precisions: Option<(u8, u8)>,
}

/// Levels a side that a replayed book may have.
const CAPACITY: usize = 1 << 18;

impl Track {
    fn new(symbol: String, scale: Scale) -> Track {
        Track {
            report: SymbolReport { symbol, ..SymbolReport::default() },
            scale,
            refused: None,
            book: Book::new(CAPACITY),
            synced: false,
            conn: String::new(),
            path: Sha256::new(),
            path_ts: Some(Sha256::new()),
            last_line: None,
            depth_sync: DepthSync::default(),
            depth: None,
            digits: None,
            precisions: None,
        }
    }

    /// The book is in doubt until its next snapshot.
    fn doubt(&mut self) {
        self.book.clear();
        self.synced = false;
    }

    /// The connection ended.
    fn restart(&mut self) {
        self.doubt();
        self.depth_sync.restart();
    }

    fn replace(&mut self, levels: &[Update]) {
        for side in Side::BOTH {
            let of_side = levels.iter().filter(|update| update.side == side);
            self.book.replace(side, of_side.map(|u| Level { px: u.px, qty: u.qty }));
        }
    }

    fn apply(&mut self, levels: &[Update]) {
        for update in levels {
            self.book.set(update.side, update.px, update.qty);
        }
    }

    /// A message was applied whole: the path may have a new line.
    fn applied(&mut self, ts: Option<i64>) {
        self.report.applied += 1;
        let side = |side| {
            self.book.best(side).map_or_else(|| ",".to_owned(), |level| self.texts(level).join(","))
        };
        let line = format!("{},{}", side(Side::Bid), side(Side::Ask));
        if self.last_line.as_ref() == Some(&line) {
            return;
        }
        self.report.bbo_changes += 1;
        self.path.update(format!("{line}\n"));
        self.path_ts = match (self.path_ts.take(), ts) {
            (Some(hash), Some(ts)) => Some(hash.chain_update(format!("{ts},{line}\n"))),
            _ => None,
        };
        self.last_line = Some(line);
    }

    fn texts(&self, level: Level) -> [String; 2] {
        let text = |quanta, exponent| Decimal { quanta, exponent }.to_string();
        [text(level.px.0, self.scale.px), text(level.qty.0, self.scale.qty)]
    }

    fn digest(&self, depth: usize) -> String {
        let mut hash = Sha256::new();
        for (side, letter) in [(Side::Bid, 'b'), (Side::Ask, 'a')] {
            for level in self.book.levels(side).take(depth) {
                let [px, qty] = self.texts(level);
                hash.update(format!("{letter},{px},{qty}\n"));
            }
        }
        hex(hash)
    }

    fn finish(mut self) -> SymbolReport {
        let mut report = std::mem::take(&mut self.report);
        report.best_bid = self.book.best(Side::Bid).map(|level| self.texts(level));
        report.best_ask = self.book.best(Side::Ask).map(|level| self.texts(level));
        report.levels = Side::BOTH.map(|side| self.book.len(side));
        report.top10 = self.digest(10);
        report.full = self.digest(usize::MAX);
        report.bbo_path = hex(self.path);
        report.bbo_path_ts = self.path_ts.map(hex);
        report.synced_at_end = self.synced;
        report
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One pass over a file.
struct Run {
    protocol: Protocol,
    symbols: Symbols,
    scales: Vec<Scale>,
    tracks: Vec<Track>,
    sequences: BTreeMap<String, Sequence>,
    levels: binance::Levels,
    events: coinbase::Events,
    messages: kraken::Messages,
}

impl Run {
    fn new(protocol: Protocol, wanted: &[String], scales: &BTreeMap<String, Search>) -> Run {
        let scale = |name: &String| scales.get(name).map_or(Search::default().scale, |s| s.scale);
        Run {
            protocol,
            symbols: Symbols::new(wanted.iter().map(String::as_str)),
            scales: wanted.iter().map(scale).collect(),
            tracks: wanted.iter().map(|name| Track::new(name.clone(), scale(name))).collect(),
            sequences: BTreeMap::new(),
            levels: Default::default(),
            events: Default::default(),
            messages: Default::default(),
        }
    }

    fn line(&mut self, line: &Line) {
        let conn = line.conn();
        match line.kind() {
            "" | "message" => match self.protocol {
                Protocol::Binance => self.binance(line, conn),
                Protocol::Coinbase => self.coinbase(line, conn),
                Protocol::Kraken => self.kraken(line, conn),
            },
            "rest" if self.protocol == Protocol::Binance => self.binance_rest(line),
            "connect" => self.session_ends(&conn),
            // Without a connection's name it is about all of them.
            "session_end" if line.conn.is_none() => {
                self.sequences.clear();
                self.tracks.iter_mut().for_each(Track::restart);
            }
            "session_end" => self.session_ends(&conn),
            _ => {}
        }
    }

    fn session_ends(&mut self, conn: &str) {
        self.sequences.remove(conn);
        self.tracks.iter_mut().filter(|track| track.conn == conn).for_each(Track::restart);
    }

    /// A message that could not be read: a number that needs another exponent, or a doubt.
    fn fault(&mut self, fault: Fault, conn: &str) {
        match (fault.slot, fault.error) {
            (Some(slot), error @ (DecodeError::Px(_) | DecodeError::Qty(_))) if is_scale(error) => {
                self.tracks[slot].refused.get_or_insert(error);
            }
            (Some(slot), _) => self.tracks[slot].restart(),
            (None, _) => {
                self.tracks.iter_mut().filter(|track| track.conn == conn).for_each(Track::restart);
            }
        }
    }

    fn binance(&mut self, line: &Line, conn: String) {
        let event = match binance::decode(line.raw(), &self.symbols, &self.scales, &mut self.levels)
        {
            Ok(event) => event,
            Err(fault) => return self.fault(fault, &conn),
        };
        let binance::Event::Depth { slot, span, event_ns } = event else { return };
        let track = &mut self.tracks[slot];
        track.conn = conn;
        if track.refused.is_some() {
            return;
        }
        let [bids, asks] = &self.levels;
        match track.depth_sync.on_diff(span, event_ns, [bids, asks]) {
            OnDiff::Apply { .. } => {
                track.apply(bids);
                track.apply(asks);
                track.applied(line.ts_recv_ns);
            }
            OnDiff::Gap { .. } => {
                track.report.gaps += 1;
                track.doubt();
            }
            OnDiff::Rewind | OnDiff::Overflow => track.doubt(),
            OnDiff::Buffered { .. } | OnDiff::Old => {}
        }
    }

    fn binance_rest(&mut self, line: &Line) {
        let Some(slot) = line.rest_symbol().and_then(|name| self.symbols.find(name.as_bytes()))
        else {
            return;
        };
        let track = &mut self.tracks[slot];
        if track.refused.is_some() {
            return;
        }
        let id = match binance::decode_snapshot(line.raw(), track.scale, &mut self.levels) {
            Ok(id) => id,
            Err(error) if is_scale(error) => {
                track.refused = Some(error);
                return;
            }
            // An answer that is no book (an error, a page of HTML).
            Err(_) => return,
        };
        if track.depth_sync.on_snapshot(id) != OnSnapshot::Joined {
            return;
        }
        let [bids, asks] = &self.levels;
        let all = [bids.as_slice(), asks.as_slice()].concat();
        track.replace(&all);
        let released: Vec<Update> =
            track.depth_sync.released().flat_map(|(_, _, levels)| levels.to_vec()).collect();
        track.apply(&released);
        track.depth_sync.release();
        track.synced = true;
        track.report.snapshots += 1;
        track.applied(line.ts_recv_ns);
    }

    fn coinbase(&mut self, line: &Line, conn: String) {
        let envelope = match coinbase::envelope(line.raw()) {
            Ok(envelope) => envelope,
            Err(error) => return self.fault(Fault { error, slot: None }, &conn),
        };
        if let Some(number) = envelope.sequence {
            let sequence = self.sequences.entry(conn.clone()).or_default();
            // A recording may begin another connection without a word; a live one cannot.
            if number == 0 && sequence.is_beyond(64) {
                self.session_ends(&conn);
            }
            let sequence = self.sequences.entry(conn.clone()).or_default();
            match sequence.on_frame(number) {
                OnFrame::Next => {}
                OnFrame::Old => return,
                OnFrame::Gap { .. } | OnFrame::Rewind => {
                    for track in self.tracks.iter_mut().filter(|track| track.conn == conn) {
                        track.report.gaps += 1;
                        track.doubt();
                    }
                }
            }
        }
        if envelope.channel != coinbase::Channel::Level2 {
            return;
        }
        if let Err(fault) = envelope.events(&self.symbols, &self.scales, &mut self.events) {
            return self.fault(fault, &conn);
        }
        let faulty = std::mem::take(&mut self.events.faulty);
        for (slot, error) in faulty {
            self.fault(Fault { error, slot: Some(slot) }, &conn);
        }
        let mut touched = BTreeSet::new();
        for part in &self.events.parts {
            let track = &mut self.tracks[part.slot];
            if track.refused.is_some() {
                continue;
            }
            track.conn.clone_from(&conn);
            let levels = self.events.levels(part);
            if part.snapshot {
                track.replace(levels);
                track.synced = true;
                track.report.snapshots += 1;
            } else if track.synced {
                track.apply(levels);
            } else {
                continue;
            }
            touched.insert(part.slot);
        }
        touched.into_iter().for_each(|slot| self.tracks[slot].applied(line.ts_recv_ns));
    }

    fn kraken(&mut self, line: &Line, conn: String) {
        let event =
            match kraken::decode(line.raw(), &self.symbols, &self.scales, &mut self.messages) {
                Ok(event) => event,
                Err(fault) => return self.fault(fault, &conn),
            };
        match event {
            kraken::Event::Instrument => {
                for pair in &self.messages.pairs {
                    let known = pair.price_precision.zip(pair.qty_precision);
                    self.tracks[pair.slot].precisions = known;
                }
            }
            kraken::Event::Reply {
                what: kraken::ReplyTo::Subscribe,
                success: true,
                slot: Some(slot),
            } => {
                self.tracks[slot].depth = subscribed_depth(line.raw());
            }
            kraken::Event::Book { snapshot } => {
                for part in &self.messages.parts {
                    let track = &mut self.tracks[part.slot];
                    track.conn.clone_from(&conn);
                    if track.refused.is_none() {
                        let levels = self.messages.levels(part);
                        track.kraken(snapshot, levels, part.checksum, line.ts_recv_ns);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Track {
    fn kraken(&mut self, snapshot: bool, levels: &[Update], checksum: u32, ts: Option<i64>) {
        if snapshot {
            self.replace(levels);
            self.report.snapshots += 1;
            self.depth = self.depth.or_else(|| Some(depth_of(&self.book)));
            self.digits = self.find_digits(checksum);
        } else if self.synced {
            self.apply(levels);
        } else {
            return;
        }
        let depth = self.depth.unwrap_or(10);
        Side::BOTH.into_iter().for_each(|side| self.book.truncate(side, depth));
        if self.digits.and_then(|digits| digits.checksum(&self.book)) == Some(checksum) {
            self.report.checksum_ok += 1;
            self.synced = true;
            self.applied(ts);
        } else {
            self.report.checksum_bad += 1;
            self.doubt();
        }
    }

    /// The precisions that make a snapshot's checksum: told by the recording, or the ones that fit.
    fn find_digits(&self, checksum: u32) -> Option<Digits> {
        let scale = (self.scale.px, self.scale.qty);
        if let Some(precisions) = self.precisions {
            return Digits::new(scale, precisions);
        }
        let all = (0..=scale.0).flat_map(|px| (0..=scale.1).map(move |qty| (px, qty)));
        let fits = |digits: &Digits| digits.checksum(&self.book) == Some(checksum);
        all.filter_map(|precisions| Digits::new(scale, precisions)).find(fits)
    }
}

/// The depth that a snapshot of this size was subscribed with.
fn depth_of(book: &Book) -> usize {
    let levels = book.len(Side::Bid).max(book.len(Side::Ask));
    [10, 25, 100, 500].into_iter().find(|depth| levels <= *depth).unwrap_or(1_000)
}

fn subscribed_depth(raw: &[u8]) -> Option<usize> {
    let reply: serde_json::Value = serde_json::from_slice(raw).ok()?;
    usize::try_from(reply.get("result")?.get("depth")?.as_u64()?).ok()
}

/// Whether another exponent would help.
fn is_scale(error: DecodeError) -> bool {
    matches!(
        error,
        DecodeError::Px(DecimalError::Inexact { .. } | DecimalError::Overflow { .. })
            | DecodeError::Qty(DecimalError::Inexact { .. } | DecimalError::Overflow { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rows: &[(&str, &str, &str)]) -> String {
        let line = |(n, (kind, extra, raw)): (usize, &(&str, &str, &str))| {
            let raw = serde_json::to_string(raw).expect("text");
            let kind =
                if kind.is_empty() { String::new() } else { format!("\"kind\":\"{kind}\",") };
            format!("{{\"ts_recv_ns\":{n},\"venue\":\"VENUE\",{kind}{extra}\"raw\":{raw}}}\n")
        };
        rows.iter().enumerate().map(line).collect()
    }

    fn run(venue: &str, rows: &[(&str, &str, &str)]) -> Vec<SymbolReport> {
        let text = lines(rows).replace("VENUE", venue);
        rebuild("captures/x/y.jsonl", text.as_bytes()).expect("a recording")
    }

    fn diff(first: u64, last: u64, bids: &str) -> String {
        format!(
            r#"{{"e":"depthUpdate","E":1,"s":"PEPEUSDT","U":{first},"u":{last},"b":[{bids}],"a":[]}}"#
        )
    }

    /// Quantities that no global 1e-8 holds, prices that 1e-8 does not reach.
    #[test]
    fn exponents_are_found() {
        let snapshot = r#"{"lastUpdateId":5,"bids":[["0.0000012345","123456789012345.00"]],"asks":[["0.0000012346","1.5"]]}"#;
        let rows = [
            ("", "", &*diff(1, 5, "")),
            ("rest", "\"symbol\":\"PEPEUSDT\",", snapshot),
            ("", "", &*diff(6, 6, r#"["0.00000123451","7.25"]"#)),
        ];
        let report = run("binance", &rows).remove(0);
        assert_eq!(report.best_bid, Some(["0.00000123451".into(), "7.25".into()]));
        assert_eq!((report.levels, report.applied, report.bbo_changes), ([2, 1], 2, 2));
        assert!(report.synced_at_end);
    }

    #[test]
    fn numbers_that_no_exponent_holds_are_refused_by_name() {
        let bids = r#"["1","123456789012345678"],["2","0.000000000000000001"]"#;
        let text = lines(&[("", "", &*diff(1, 5, bids))]).replace("VENUE", "binance");
        let error = rebuild("x/y.jsonl", text.as_bytes()).expect_err("too wide").to_string();
        assert!(error.contains("PEPEUSDT") && error.contains("quantity"), "{error}");
    }

    #[test]
    fn gaps_and_session_ends_start_afresh() {
        let snapshot =
            |id: u64| format!(r#"{{"lastUpdateId":{id},"bids":[["1","1"]],"asks":[["2","1"]]}}"#);
        let rest = "\"symbol\":\"PEPEUSDT\",";
        let (one, two) = (snapshot(5), snapshot(9));
        let rows = [
            ("", "", &*diff(1, 5, "")),
            ("rest", rest, &*one),
            ("", "", &*diff(7, 9, r#"["1","2"]"#)),
        ];
        let report = run("binance", &rows).remove(0);
        assert_eq!((report.gaps, report.synced_at_end, report.best_bid), (1, false, None));
        let mut again = rows.to_vec();
        again.push(("rest", rest, &*two));
        let report = run("binance", &again).remove(0);
        assert_eq!((report.snapshots, report.synced_at_end, report.bbo_changes), (2, true, 1));
        let mut ended = rows[..2].to_vec();
        ended.push(("session_end", "", ""));
        let report = run("binance", &ended).remove(0);
        assert_eq!((report.synced_at_end, report.levels, report.bbo_changes), (false, [0, 0], 1));
    }

    #[test]
    fn a_wrong_kraken_checksum_is_counted_and_ends_the_sync() {
        let message = |kind: &str, qty: &str, sum: u64| {
            format!(
                r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{{"price":65000.0,"qty":{qty}}},{{"price":64999.9,"qty":0.03125000}},{{"price":64998.7,"qty":10.00000000}}],"asks":[{{"price":65000.1,"qty":0.50000000}},{{"price":65000.2,"qty":1.25000000}},{{"price":65001.0,"qty":0.00010000}}],"checksum":{sum}}}]}}"#
            )
        };
        let good = message("snapshot", "2.00000000", 364_537_153);
        let bad = message("update", "3.00000000", 364_537_153);
        let report = run("kraken", &[("", "", &good)]).remove(0);
        assert_eq!((report.checksum_ok, report.checksum_bad, report.synced_at_end), (1, 0, true));
        let report = run("kraken", &[("", "", &good), ("", "", &bad)]).remove(0);
        assert_eq!((report.checksum_ok, report.checksum_bad, report.synced_at_end), (1, 1, false));
    }

    #[test]
    fn several_events_of_a_coinbase_message_are_one_line() {
        let event = |kind: &str, qty: &str| {
            format!(
                r#"{{"type":"{kind}","product_id":"BTC-USD","updates":[{{"side":"bid","price_level":"1.00","new_quantity":"{qty}"}}]}}"#
            )
        };
        let frame = |n: u64, events: &str| {
            format!(r#"{{"channel":"l2_data","sequence_num":{n},"events":[{events}]}}"#)
        };
        let first = frame(0, &event("snapshot", "1"));
        let second = frame(1, &format!("{},{}", event("update", "2"), event("update", "3")));
        let report = run("coinbase", &[("", "", &first), ("", "", &second)]).remove(0);
        assert_eq!((report.applied, report.bbo_changes), (2, 2));
        assert_eq!(report.best_bid, Some(["1".into(), "3".into()]));
        let late = frame(3, &event("update", "4"));
        let report = run("coinbase", &[("", "", &first), ("", "", &late)]).remove(0);
        assert_eq!((report.gaps, report.synced_at_end), (1, false));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name_and_what_is_no_session_is_empty() {
        let check = |venue: &str, raw: &str, part: &str| {
            let text = lines(&[("", "", raw)]).replace("VENUE", venue);
            let error = rebuild("x/y.jsonl", text.as_bytes()).expect_err(part).to_string();
            assert!(error.contains("not supported") && error.contains(part), "{error}");
        };
        check("bitstamp", "{}", "bitstamp");
        check("kraken", "[0,{},\"book-10\",\"XBT/USD\"]", "v1");
        check("coinbase", "{\"type\":\"l2update\",\"changes\":[]}", "Exchange");
        assert_eq!(
            run("binance", &[("single", "", "{}"), ("normalised", "", "x"), ("odd", "", "")]),
            []
        );
        assert_eq!(rebuild("x", &b""[..]).expect("nothing"), []);
        assert!(rebuild("x", &b"{"[..]).is_err());
        assert!(rebuild("x", &b"\x1f\x8bjunk"[..]).is_err());
        assert_eq!(
            rebuild("x", &b"{}"[..]).err().map(|e| e.to_string().contains("venue")),
            Some(true)
        );
    }
}
