//! Recordings into a journal: the production decoders, machines and engine over recorded messages.
//!
//! Invariant: the messages of all files are taken in the order in which they arrived at their recorder,
//! time is the recorder's, and the same files give the same journal. What is written replays like any
//! other journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tandem_core::record::{Kind, Record, Venue};
use tandem_feeds::machine::{Action, Machine, Options, Publish, Reply, Stamps};

use super::Fees;
use super::bytes::Lines;
use super::error::DataError;
use super::instruments::{listing, observing, split, unit};
use super::merge::TIMER_NS;
use super::recorder::{Recorded, Recorder};
use crate::config::venue_named;
use crate::table::{Setup, Table};
use crate::venues;

/// Levels a side that the engine sees.
const WINDOW_LEVELS: usize = 400;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    ts_recv_ns: Option<i64>,
    tape_seq: Option<u64>,
    venue: Option<String>,
    kind: Option<String>,
    symbol: Option<String>,
    url: Option<String>,
    raw: Option<String>,
}

struct Message {
    at_ns: i64,
    order: u64,
    venue: Venue,
    kind: String,
    symbol: Option<String>,
    raw: String,
}

fn nothing(path: &Path) -> DataError {
    let found = "no messages of binance, coinbase or kraken in a protocol that is read here";
    DataError::file(path, found, "leave it out, or is it another --from?")
}

fn read_messages(path: &Path) -> Result<Vec<Message>, DataError> {
    let mut lines = Lines::open_long(path)?;
    let mut messages = Vec::new();
    while lines.advance()? {
        let line: Line = serde_json::from_slice(lines.text()).map_err(|error| {
            let fix = "one JSON object a line with ts_recv_ns, venue and raw is expected";
            lines.error(error.to_string(), fix)
        })?;
        let venue = match line.venue.as_deref() {
            Some("binance_us") => Some(Venue::Binance),
            Some(name) => venue_named(name),
            None => None,
        };
        let kind = line.kind.unwrap_or_default();
        let (Some(venue), Some(raw)) = (venue, line.raw) else { continue };
        if !matches!(kind.as_str(), "" | "rest") {
            continue;
        }
        let symbol = line.symbol.or_else(|| {
            let query = line.url.as_deref()?.split_once('?')?.1.to_owned();
            query.split('&').find_map(|part| part.strip_prefix("symbol=")).map(str::to_owned)
        });
        messages.push(Message {
            at_ns: line.ts_recv_ns.unwrap_or(messages.len() as i64 * 1_000_000 + 1),
            order: line.tape_seq.unwrap_or(0),
            venue,
            kind,
            symbol,
            raw,
        });
    }
    if messages.is_empty() {
        return Err(nothing(path));
    }
    Ok(messages)
}

/// Digits after the point of the finest price and quantity seen of a symbol.
#[derive(Clone, Copy, Debug, Default)]
struct Digits {
    px: usize,
    qty: usize,
}

fn digits(text: &str) -> usize {
    match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => {
            let shift: i64 = power.parse().unwrap_or(0);
            usize::try_from(digits(mantissa) as i64 - shift).unwrap_or(0).min(12)
        }
        None => text.split_once('.').map_or(0, |(_, d)| d.trim_end_matches('0').len()),
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Notes every symbol that a message has book levels of.
fn scan(message: &Message, symbols: &mut BTreeMap<(Venue, String), Digits>) {
    let Ok(value) = serde_json::from_str::<Value>(&message.raw) else { return };
    let data = value.get("data").unwrap_or(&value);
    let mut note = |symbol: &str, px: Option<String>, qty: Option<String>| {
        let (Some(px), Some(qty)) = (px, qty) else { return };
        let known = symbols.entry((message.venue, symbol.to_owned())).or_default();
        known.px = known.px.max(digits(&px));
        known.qty = known.qty.max(digits(&qty));
    };
    match message.venue {
        Venue::Binance => {
            let symbol = data.get("s").and_then(Value::as_str).or(message.symbol.as_deref());
            let Some(symbol) = symbol else { return };
            for key in ["b", "a", "bids", "asks"] {
                for level in data.get(key).and_then(Value::as_array).into_iter().flatten() {
                    note(symbol, level.get(0).and_then(text_of), level.get(1).and_then(text_of));
                }
            }
        }
        Venue::Coinbase => {
            for event in value.get("events").and_then(Value::as_array).into_iter().flatten() {
                let Some(symbol) = event.get("product_id").and_then(Value::as_str) else {
                    continue;
                };
                for level in event.get("updates").and_then(Value::as_array).into_iter().flatten() {
                    let get = |key: &str| level.get(key).and_then(text_of);
                    note(symbol, get("price_level"), get("new_quantity"));
                }
            }
        }
        Venue::Kraken => {
            if value.get("channel").and_then(Value::as_str) != Some("book") {
                return;
            }
            for book in data.as_array().into_iter().flatten() {
                let Some(symbol) = book.get("symbol").and_then(Value::as_str) else { continue };
                for key in ["bids", "asks"] {
                    for level in book.get(key).and_then(Value::as_array).into_iter().flatten() {
                        note(
                            symbol,
                            level.get("price").and_then(text_of),
                            level.get("qty").and_then(text_of),
                        );
                    }
                }
            }
        }
    }
}

fn setup(symbols: &BTreeMap<(Venue, String), Digits>, fees: Fees) -> Setup {
    let listings = symbols.iter().filter_map(|((venue, symbol), digits)| {
        let pair = split(*venue, symbol)?;
        let places = (digits.px as u8, digits.qty as u8);
        Some(listing(*venue, symbol, pair, (unit(digits.px), unit(digits.qty)), places, fees))
    });
    observing(listings.collect(), fees, WINDOW_LEVELS)
}

/// One venue's machine with the answers that the recording has for its questions.
struct Player {
    machine: Box<dyn Machine>,
    conn: u32,
    asked: Vec<(u32, String)>,
    snapshots: BTreeMap<String, VecDeque<String>>,
}

impl Player {
    /// Does what the machine wants, as far as a recording can.
    fn act(&mut self, at: Stamps, out: &mut Recorder) {
        loop {
            while let Some(action) = self.machine.next_action() {
                match action {
                    Action::Connect { conn, .. } => {
                        self.conn = conn;
                        self.machine.on_open(conn, at.recv_ns);
                    }
                    Action::Get { request, path, .. } => self.asked.push((request, path)),
                    Action::Send { .. } | Action::Ping { .. } | Action::Close { .. } => {}
                }
            }
            let answer = self.asked.iter().enumerate().find_map(|(idx, (_, path))| {
                let symbol = self.snapshots.keys().find(|s| path.contains(s.as_str()))?.clone();
                Some((idx, symbol))
            });
            let Some((idx, symbol)) = answer else { return };
            let (request, _) = self.asked.swap_remove(idx);
            let queue = self.snapshots.entry(symbol.clone()).or_default();
            let body = queue.pop_front();
            if queue.is_empty() {
                self.snapshots.remove(&symbol);
            }
            if let Some(body) = body {
                let mut body = body.into_bytes();
                let reply = Reply::Answer {
                    status: 200,
                    retry_after_s: None,
                    used_weight: None,
                    body: &mut body,
                };
                self.machine.on_reply(request, reply, at, out);
            }
        }
    }
}

/// Imports recordings into a new journal at `to`.
pub fn import(files: &[PathBuf], to: &Path, fees: Fees) -> Result<Recorded, DataError> {
    let mut messages = Vec::new();
    for file in files {
        messages.extend(read_messages(file)?);
    }
    // Tapes number the lines of all venues in arrival order; other recordings have only their clocks.
    let by_tape = messages.iter().all(|message| message.order != 0);
    if by_tape {
        messages.sort_by_key(|message| message.order);
    } else {
        messages.sort_by_key(|message| message.at_ns);
    }
    let mut symbols = BTreeMap::new();
    messages.iter().for_each(|message| scan(message, &mut symbols));
    if symbols.is_empty() {
        return Err(nothing(files.first().map_or(Path::new(""), PathBuf::as_path)));
    }
    let table = Table::build(setup(&symbols, fees), "the recordings")?;
    let mut sink = Recorder::begin(to, &table)?;
    let begins_ns = messages.iter().map(|message| message.at_ns).min().unwrap_or(0);
    let venues: BTreeSet<Venue> = symbols.keys().map(|(venue, _)| *venue).collect();
    let mut players: BTreeMap<Venue, Player> = BTreeMap::new();
    for venue in venues {
        let options = Options {
            window: table.params.window_levels,
            per_conn: usize::MAX,
            ticker: venue == Venue::Binance,
            audit: false,
            silence_ns_max: i64::MAX / 4,
            lag_ns_max: i64::MAX / 4,
            fallback_after_ns: i64::MAX / 4,
            rotate_after_ns: i64::MAX / 4,
            first_message_ns_max: i64::MAX / 4,
            ..Options::for_venue(venue)
        };
        let machine = venues::machine(venue, table.of_venue(venue), options, false, begins_ns);
        let player = Player { machine, conn: 0, asked: Vec::new(), snapshots: BTreeMap::new() };
        players.insert(venue, player);
    }
    let mut taken = 0;
    let mut next_timer_ns = 0;
    for message in messages {
        let now_ns = message.at_ns.max(sink.now_ns());
        sink.at(now_ns);
        let bytes = u32::try_from(message.raw.len()).unwrap_or(u32::MAX);
        let at = Stamps { recv_ns: message.at_ns, recv_tsc: 0, bytes };
        if next_timer_ns <= now_ns {
            next_timer_ns = now_ns + TIMER_NS;
            for player in players.values_mut() {
                player.machine.on_timer(now_ns, &mut sink);
                player.act(at, &mut sink);
            }
            sink.publish(&Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
        }
        let Some(player) = players.get_mut(&message.venue) else { continue };
        taken += 1;
        player.act(at, &mut sink);
        if message.kind == "rest" {
            if let Some(symbol) = message.symbol {
                player.snapshots.entry(symbol).or_default().push_back(message.raw);
            }
        } else {
            let mut raw = message.raw.into_bytes();
            player.machine.on_frame(player.conn, &mut raw, at, &mut sink);
        }
        player.act(at, &mut sink);
    }
    // What is still open ends with the recording.
    let end_ns = sink.now_ns() + 1_000_000_000;
    sink.take(end_ns, &Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
    sink.finish(taken)
}
