//! Recordings into a journal: the production decoders, machines and engine over recorded messages.
//!
//! Invariant: the messages of all files are taken in the order in which they arrived at their recorder,
//! time is the recorder's, and the same files give the same journal. What is written replays like any
//! other journal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::record::{Kind, Record, TradingStatus, Venue};
use tandem_feeds::machine::{Action, Machine, Options, Publish, Reply, Stamps};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalSpec, JournalWriter};

use crate::config::venue_named;
use crate::table::{self, Detection, ListingText, Setup, Table, TableError, VenueDetection};
use crate::venues;

/// Recorded time between two timer calls.
const TIMER_NS: i64 = 50_000_000;
/// Quote assets by which Binance's symbols are split, the longest first.
const QUOTES: [&str; 12] =
    ["FDUSD", "TUSD", "USDT", "USDC", "BUSD", "RUNE", "BTC", "ETH", "BNB", "EUR", "USD", "GBP"];

/// Why recordings could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not readable.
    #[error("{path}: {error}")]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is not of the form.
    #[error(
        "{path}:{line}: {error}; one JSON object a line with ts_recv_ns, venue and raw is expected"
    )]
    Line {
        /// File.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// Why.
        error: String,
    },
    /// Nothing to import.
    #[error("{path}: no messages of binance, coinbase or kraken in a protocol that is read here")]
    Nothing {
        /// File.
        path: PathBuf,
    },
    /// Instruments.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal's helper gave up.
    #[error("the journal has no room: {0}")]
    Full(String),
}

/// Detection of an import: everything free, so that what is found is what the books say.
#[derive(Clone, Copy, Debug)]
pub struct Fees {
    /// Taker fee on every leg.
    pub taker_fee_ppm: i32,
    /// Smallest net edge.
    pub edge_min_ppm: i32,
    /// Slippage buffer per leg.
    pub slippage_ppm: i32,
}

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

/// What an import made.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ImportReport {
    /// Messages taken.
    pub messages: u64,
    /// Records in the journal.
    pub records: u64,
    /// Opportunities found, by kind.
    pub opportunities: [u64; 3],
}

fn read_messages(path: &Path) -> Result<Vec<Message>, ImportError> {
    let io = |error| ImportError::Io { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io)?;
    let reader: Box<dyn BufRead> = if bytes.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(&*bytes)))
    } else {
        Box::new(&*bytes)
    };
    let mut messages = Vec::new();
    for (idx, text) in reader.lines().enumerate() {
        let text = text.map_err(io)?;
        let line: Line = serde_json::from_str(&text).map_err(|error| ImportError::Line {
            path: path.to_owned(),
            line: idx + 1,
            error: error.to_string(),
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
        return Err(ImportError::Nothing { path: path.to_owned() });
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

fn split(venue: Venue, symbol: &str) -> Option<(String, String)> {
    let (base, quote) = match venue {
        Venue::Coinbase => symbol.split_once('-')?,
        Venue::Kraken => symbol.split_once('/')?,
        Venue::Binance => {
            let quote = QUOTES.iter().find(|q| symbol.ends_with(**q) && q.len() < symbol.len())?;
            (symbol.strip_suffix(quote)?, *quote)
        }
    };
    Some((base.to_owned(), quote.to_owned()))
}

fn step(digits: usize) -> String {
    match digits {
        0 => "1".to_owned(),
        digits => format!("0.{}1", "0".repeat(digits - 1)),
    }
}

fn setup(symbols: &BTreeMap<(Venue, String), Digits>, fees: Fees) -> Setup {
    let listings = symbols.iter().filter_map(|((venue, symbol), digits)| {
        let (base, quote) = split(*venue, symbol)?;
        Some(ListingText {
            venue: venue.name().to_owned(),
            symbol: symbol.clone(),
            feed_symbol: symbol.clone(),
            rest_symbol: symbol.clone(),
            base,
            quote,
            tick: step(digits.px),
            lot: step(digits.qty),
            qty_min: String::new(),
            qty_max: String::new(),
            notional_min: String::new(),
            price_precision: Some(digits.px as u8),
            qty_precision: Some(digits.qty as u8),
            asset_precision: None,
            status: TradingStatus::Trading as u8,
            taker_fee_ppm: fees.taker_fee_ppm,
            fee_in: "quote".to_owned(),
            notional_max: "1000000000".to_owned(),
        })
    });
    let venue = VenueDetection {
        slippage_ppm: fees.slippage_ppm,
        staleness_ppm_per_s: 0,
        // A recording has no connections to be judged by; what it holds was received.
        age_max_ms: 600_000,
        order_latency_ms: 0,
    };
    Setup {
        mode: "observe".to_owned(),
        listings: listings.collect(),
        limits: None,
        run: 0,
        detection: Detection {
            edge_min_ppm: fees.edge_min_ppm,
            edge_max_ppm: 500_000,
            edge_max_halt_s: 0,
            basis_ppm: 0,
            numeraires: ["USD", "USDT", "USDC"].map(str::to_owned).to_vec(),
            legs_max: 3,
            cycles_max: 100_000,
            window_levels: 400,
            flicker_ms: 0,
            denial_ms: 1_000,
            update_ms: 1,
            venues: Venue::ALL.map(|v| (v.name().to_owned(), venue.clone())).into(),
        },
    }
}

/// Where recorded inputs go: the journal, with the engine's answers.
pub struct Recorder {
    engine: Engine,
    out: Outbox,
    journal: JournalWriter<Record>,
    now_ns: i64,
    failure: Option<String>,
}

impl Recorder {
    /// Returns a recorder of an engine that has seen nothing.
    #[must_use]
    pub fn new(engine: Engine, journal: JournalWriter<Record>) -> Recorder {
        let out = Outbox::new(OUTBOX_RECORDS);
        Recorder { engine, out, journal, now_ns: 0, failure: None }
    }

    /// Appends a record as it is.
    pub fn append(&mut self, record: &Record) {
        // The journal's helper makes segments ready as fast as memory comes; we may wait for it here.
        for _ in 0..20_000 {
            if self.journal.append(record).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let failure = self.journal.helper_failure();
        self.failure = Some(failure.unwrap_or_else(|| "segments_max is reached".to_owned()));
    }

    /// Takes one input at a time of the recording: into the journal, into the engine, its outputs too.
    pub fn take(&mut self, now_ns: i64, record: &Record) {
        self.now_ns = now_ns;
        if self.failure.is_some() {
            return;
        }
        let stamped = Record { engine_ts_ns: now_ns, ..*record };
        self.append(&stamped);
        self.engine.step(&stamped, &mut self.out);
        let outputs = std::mem::replace(&mut self.out, Outbox::new(0));
        outputs.records().iter().for_each(|output| self.append(output));
        self.out = outputs;
        self.out.clear();
    }

    /// Returns the journal's next sequence.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.journal.next_seq()
    }

    /// Returns whether the journal had no room.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Closes the journal and reports.
    pub fn finish(self, messages: u64) -> Result<ImportReport, ImportError> {
        if let Some(failure) = self.failure {
            return Err(ImportError::Full(failure));
        }
        let records = self.journal.next_seq() - 1;
        let opportunities = self.engine.counts().opportunities;
        self.journal.close()?;
        Ok(ImportReport { messages, records, opportunities })
    }
}

impl Publish for Recorder {
    fn publish(&mut self, record: &Record) {
        self.take(self.now_ns, record);
    }
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
pub fn import(files: &[PathBuf], to: &Path, fees: Fees) -> Result<ImportReport, ImportError> {
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
        return Err(ImportError::Nothing { path: files.first().cloned().unwrap_or_default() });
    }
    let table = Table::build(setup(&symbols, fees), "the recordings")?;
    let spec = JournalSpec {
        segment_bytes: 32 << 20,
        segments_max: 4_096,
        ..JournalSpec::new(record_schema())
    };
    let journal = JournalWriter::create(to, &spec)?;
    let mut sink = Recorder::new(table.engine()?, journal);
    for record in table::to_records(&table.setup)? {
        sink.append(&record);
    }
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
        let now_ns = message.at_ns.max(sink.now_ns);
        sink.now_ns = now_ns;
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
    sink.take(sink.now_ns + 1_000_000_000, &Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
    sink.finish(taken)
}
