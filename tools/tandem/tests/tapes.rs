//! The two recorded tapes (Coinbase and Kraken, BTC/USD, recorded together) through everything real.
//!
//! Proven here: served by the simulator over TLS and WebSockets, the feed tiles end with the very books
//! that an independent program rebuilt from the recordings; and with fees and buffers at zero the engine
//! sees the cross-venue episodes that this program saw. With real fees there is no opportunity.
//!
//! What an episode is: a maximal run of moments at which one venue's best bid is above the other's best
//! ask, judged after every message of either venue once both books are known. Differences that are
//! right: our messages are judged when the engine takes them, so two messages of different venues that
//! arrived within a millisecond may be taken in the other order; and `updates_crossed` counts messages
//! that touched any level, while a message that touches only levels outside the published window makes
//! no record here. Neither can make or end an episode that lasts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tandem_core::book::Book;
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::units::{Decimal, FeePpm, Side};
use tandem_feeds::tile::record_schema;
use tandem_shm::JournalReader;
use tandem_sim::{Pace, SimConfig, Source};
use tandem_tools::cli::roles::feed_tile;
use tandem_tools::config::Config;
use tandem_tools::data::{Fees, captures};
use tandem_tools::engine_tile::EngineTile;
use tandem_tools::table::{self, Collector, Table};

const TAPES: [&str; 2] = ["tape_20260809T0231Z.jsonl.gz", "tape_20260809T2014Z_trades.jsonl.gz"];

/// A directory in shared memory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = PathBuf::from(format!("/dev/shm/tandem-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn data() -> Option<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    match std::fs::read_to_string(root.join("expected_books.json")) {
        Ok(text) => Some((root.join("captures"), serde_json::from_str(&text).unwrap())),
        Err(_) => {
            println!("skipped: no recordings at {}", root.display());
            None
        }
    }
}

fn text(quanta: i64, exponent: u8) -> String {
    Decimal { quanta, exponent }.to_string()
}

/// The digest of the expected file: `b,price,qty` lines best first, then `a,price,qty`.
fn digest(book: &Book, (px, qty): (u8, u8), levels: usize) -> String {
    let mut lines = String::new();
    for (side, letter) in [(Side::Bid, 'b'), (Side::Ask, 'a')] {
        for level in book.levels(side).take(levels) {
            lines += &format!("{letter},{},{}\n", text(level.px.0, px), text(level.qty.0, qty));
        }
    }
    tandem_tools::replay::hex(&Sha256::digest(lines.as_bytes()))
}

/// What is compared of a final book.
#[derive(Debug, PartialEq)]
struct Final {
    best_bid: [String; 2],
    best_ask: [String; 2],
    levels: [usize; 2],
    top10: String,
    full: String,
}

impl Final {
    fn of(book: &Book, exponents: (u8, u8)) -> Final {
        let best = |side| {
            let level = book.best(side).expect("a book with both sides");
            [text(level.px.0, exponents.0), text(level.qty.0, exponents.1)]
        };
        Final {
            best_bid: best(Side::Bid),
            best_ask: best(Side::Ask),
            levels: [book.len(Side::Bid), book.len(Side::Ask)],
            top10: digest(book, exponents, 10),
            full: digest(book, exponents, usize::MAX),
        }
    }

    fn expected(expected: &Value, venue: &str, tape: &str) -> Final {
        let books = &expected["files"][format!("captures/{venue}/{tape}")]["books"];
        let book = books.as_object().unwrap().values().next().unwrap();
        let strings = |value: &Value| [0, 1].map(|i| value[i].as_str().unwrap().to_owned());
        Final {
            best_bid: strings(&book["best_bid"]),
            best_ask: strings(&book["best_ask"]),
            levels: [0, 1].map(|i| book["levels"][i].as_u64().unwrap() as usize),
            top10: book["top10"].as_str().unwrap().to_owned(),
            full: book["full"].as_str().unwrap().to_owned(),
        }
    }
}

/// Episodes of one direction.
#[derive(Clone, Debug, Default, PartialEq)]
struct Episodes {
    count: u64,
    max_edge: String,
    max_edge_bps: String,
}

impl Episodes {
    fn expected(value: &Value) -> Episodes {
        let string = |key: &str| value[key].as_str().unwrap().to_owned();
        Episodes {
            count: value["episodes"].as_u64().unwrap(),
            max_edge: string("max_edge"),
            max_edge_bps: string("max_edge_bps"),
        }
    }
}

/// Follows both directions over the engine's own books.
#[derive(Default)]
struct Watch {
    crossed: [bool; 2],
    count: [u64; 2],
    max: [i64; 2],
    ask_at_max: [i64; 2],
}

impl Watch {
    fn look(&mut self, engine: &Engine, ids: [u16; 2]) {
        let market = engine.market();
        if ids.iter().any(|id| market.get(*id).state != BookState::Live) {
            return;
        }
        for (direction, (buy, sell)) in [(ids[0], ids[1]), (ids[1], ids[0])].into_iter().enumerate()
        {
            let (Some(ask), Some(bid)) =
                (market.get(buy).book.best(Side::Ask), market.get(sell).book.best(Side::Bid))
            else {
                continue;
            };
            let edge = bid.px.0 - ask.px.0;
            if 0 < edge && !self.crossed[direction] {
                self.count[direction] += 1;
            }
            self.crossed[direction] = 0 < edge;
            if self.max[direction] < edge {
                (self.max[direction], self.ask_at_max[direction]) = (edge, ask.px.0);
            }
        }
    }

    fn episodes(&self, direction: usize, exponent: u8) -> Episodes {
        let (max, ask) = (self.max[direction], self.ask_at_max[direction].max(1));
        // Four decimals of a basis point, rounded as the expected file rounds (half to even never
        // matters here: no value lies on the half).
        let bps = (max as f64 / ask as f64 * 1e8).round() / 1e4;
        Episodes {
            count: self.count[direction],
            max_edge: text(max, exponent),
            max_edge_bps: if max == 0 { "0".to_owned() } else { format!("{bps}") },
        }
    }
}

/// Replays a journal's inputs, optionally with fees, and returns the episodes and the opportunities.
fn replay(
    journal: &Path,
    fees: Option<[i32; 3]>,
) -> (BTreeMap<String, Episodes>, u64, Vec<String>) {
    let mut reader = JournalReader::<Record>::open(journal, record_schema()).unwrap();
    let (mut collector, mut engine, mut out) =
        (Collector::default(), None::<Engine>, Outbox::new(OUTBOX_RECORDS));
    let (mut watch, mut ids, mut exponent) = (Watch::default(), [0, 0], 0);
    let (mut doubts, mut known) = (Vec::new(), [false; 2]);
    while let Some(record) = reader.next().unwrap() {
        if record.kind() == Some(Kind::Config) {
            if let Some(table) = collector.take(&record) {
                let mut table: Table = table.unwrap();
                if let Some(fees) = fees {
                    for instrument in &mut table.universe.instruments {
                        instrument.taker_fee = FeePpm(fees[instrument.venue.idx()]);
                    }
                }
                ids = [Venue::Coinbase, Venue::Kraken]
                    .map(|v| table.instruments.iter().find(|i| i.venue == v).unwrap().id);
                exponent = table.instruments[0].px_exponent;
                engine = Some(table.engine().unwrap());
            }
            continue;
        }
        let engine = engine.as_mut().expect("the configuration comes first");
        if record.has(flag::OUTPUT) {
            continue;
        }
        engine.step(&record, &mut out);
        out.clear();
        if record.kind() == Some(Kind::BookState) {
            // A book that was live and is doubted ends its episode for the engine.
            let live = record.data[0] == BookState::Live as i64;
            let idx = usize::from(record.instrument == ids[1]);
            if known[idx] && !live {
                doubts.push(format!("{:?}", Reason::from_tag(record.data[1])));
            }
            known[idx] = live;
        }
        if record.has(flag::LAST) {
            watch.look(engine, ids);
        }
    }
    let engine = engine.unwrap();
    let names = ["buy coinbase sell kraken", "buy kraken sell coinbase"];
    let episodes = names.into_iter().enumerate();
    let found = episodes.map(|(i, name)| (name.to_owned(), watch.episodes(i, exponent))).collect();
    (found, engine.counts().opportunities.iter().sum(), doubts)
}

fn expected_episodes(expected: &Value, tape: &str) -> BTreeMap<String, Episodes> {
    ["buy coinbase sell kraken", "buy kraken sell coinbase"]
        .into_iter()
        .map(|name| (name.to_owned(), Episodes::expected(&expected["cross_venue"][tape][name])))
        .collect()
}

/// Retail tiers: 60 bp at Coinbase, 40 bp at Kraken.
const REAL_FEES: [i32; 3] = [1_000, 6_000, 4_000];

#[test]
fn imported_tapes_give_the_expected_episodes() {
    let Some((captures, expected)) = data() else { return };
    for tape in TAPES {
        let scratch = Scratch::new("import");
        let journal = scratch.0.join("journal");
        let files = [captures.join("coinbase").join(tape), captures.join("kraken").join(tape)];
        let fees = Fees { taker_fee_ppm: 0, edge_min_ppm: 0, slippage_ppm: 0 };
        let report = captures::import(&files, &journal, fees).unwrap();
        let (episodes, opportunities, _) = replay(&journal, None);
        let wanted = expected_episodes(&expected, tape);
        assert_eq!(episodes, wanted, "{tape}");
        // An opportunity is an episode that pays for at least one lot; here each does.
        let count: u64 = wanted.values().map(|episodes| episodes.count).sum();
        assert_eq!((opportunities, report.opportunities[0]), (count, count), "{tape}");
        assert_eq!(replay(&journal, Some(REAL_FEES)).1, 0, "{tape}: real fees");
        let verified = tandem_tools::replay::verify(&journal).unwrap();
        assert!(verified.identical, "{verified:?}");
        println!("{tape}: {episodes:?}, {opportunities} opportunities, 0 with real fees");
    }
}

/// Asks the simulator's control port.
fn control(address: SocketAddr, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn config_text(dir: &Path, sim: &tandem_sim::Addresses) -> String {
    let venue = |venue: tandem_sim::Venue, symbol: &str| {
        let port = sim.venue(venue).unwrap().tls.port();
        format!(
            "[venue.{venue}]\nws_url = \"wss://127.0.0.1:{port}\"\nrest_url = \"https://127.0.0.1:{port}\"\n\
             tls_ca_file = \"{}\"\nsymbols = [\"{symbol}\"]\ntaker_fee_ppm = 0\nfee_in = \"quote\"\n\
             notional_max = {{ USD = \"1000000000\" }}\nslippage_ppm = 0\nstaleness_ppm_per_s = 0\n\
             age_max_ms = 600000\norder_latency_ms = 0\naudit = false\nsilence_max_ms = 60000\n\
             lag_max_ms = 600000\n",
            sim.ca_path.display()
        )
    };
    format!(
        "[run]\ndir = \"{}\"\nmode = \"observe\"\n[engine]\nedge_min_ppm = 0\nedge_max_ppm = 500000\n\
         edge_max_halt_s = 0\nbasis_ppm = 0\nnumeraires = [\"USD\"]\nlegs_max = 2\ncycles_max = 100\n\
         window_levels = 400\nflicker_ms = 0\ndenial_ms = 1000\nupdate_ms = 1\ntimer_ms = 10\n\
         [journal]\nsegment_mib = 16\nsegments_max = 8\n{}{}",
        dir.display(),
        venue(tandem_sim::Venue::Coinbase, "BTC-USD"),
        venue(tandem_sim::Venue::Kraken, "BTC/USD"),
    )
}

/// Runs a feed tile until told to stop; returns its final book.
fn run_feed(config: &Config, table: &Table, venue: Venue, stop: &AtomicBool) -> Final {
    let mut tile = feed_tile(config, table, venue).unwrap();
    while !stop.load(Ordering::Relaxed) {
        tile.turn().unwrap();
    }
    let instrument = &tile.machine().instruments()[0];
    let exponents = (instrument.px_exponent, instrument.qty_exponent);
    let found = Final::of(tile.machine().book(0), exponents);
    tile.close();
    found
}

/// Plays a tape at its own pace: played faster, its clocks run away from ours, and a feed rightly
/// doubts a venue whose clock does that.
fn over_the_wire(tape: &str) {
    let Some((captures, expected)) = data() else { return };
    let scratch = Scratch::new(tape);
    let files = vec![captures.join("coinbase").join(tape), captures.join("kraken").join(tape)];
    let sim_config = SimConfig {
        ca_path: Some(scratch.0.join("ca.pem")),
        source: Source::Captures { files, pace: Pace::Recorded },
        ..SimConfig::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sim = runtime.block_on(tandem_sim::start(sim_config)).unwrap();
    let text = config_text(&scratch.0, sim.addresses());
    let config = Config::parse(&text, Path::new("tape.toml")).unwrap();
    let table = table::load_or_ask(&config).unwrap();
    let (stop_feeds, stop_engine) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let (coinbase, kraken) = std::thread::scope(|scope| {
        // The engine first: it waits for the rings, so it misses nothing of the tape.
        let engine = scope.spawn(|| {
            let mut tile = EngineTile::new(&config, &table).unwrap();
            while !stop_engine.load(Ordering::Relaxed) {
                tile.turn().unwrap();
            }
            tile.close().unwrap();
        });
        let feeds = [Venue::Coinbase, Venue::Kraken].map(|venue| {
            let (config, table, stop) = (&config, &table, Arc::clone(&stop_feeds));
            scope.spawn(move || run_feed(config, table, venue, &stop))
        });
        let until = Instant::now() + Duration::from_secs(180);
        while control(sim.addresses().control, "/status")["captures"]["finished"] != true {
            assert!(Instant::now() < until, "the tape ends");
            std::thread::sleep(Duration::from_millis(50));
        }
        // What was sent last is still on its way.
        std::thread::sleep(Duration::from_millis(500));
        stop_engine.store(true, Ordering::Relaxed);
        engine.join().unwrap();
        stop_feeds.store(true, Ordering::Relaxed);
        let [coinbase, kraken] = feeds.map(|feed| feed.join().unwrap());
        (coinbase, kraken)
    });
    runtime.block_on(sim.shutdown());
    assert_eq!(coinbase, Final::expected(&expected, "coinbase", tape), "{tape}: Coinbase");
    assert_eq!(kraken, Final::expected(&expected, "kraken", tape), "{tape}: Kraken");

    let (episodes, opportunities, doubts) = replay(&config.journal_dir(), None);
    let wanted = expected_episodes(&expected, tape);
    for (name, wanted) in &wanted {
        let found = &episodes[name];
        assert_eq!(found, wanted, "{tape}: {name}");
        println!("{tape}: {name}: expected {wanted:?}, over the wire {found:?}");
    }
    // An episode that a doubt of a feed interrupts is two opportunities, and rightly so.
    let count = wanted.values().map(|episodes| episodes.count).sum::<u64>();
    println!("{tape}: {opportunities} opportunities, doubts on the way: {doubts:?}");
    assert!((count..=count + doubts.len() as u64).contains(&opportunities), "{opportunities}");
    assert_eq!(replay(&config.journal_dir(), Some(REAL_FEES)).1, 0, "{tape}: real fees");
    let verified = tandem_tools::replay::verify(&config.journal_dir()).unwrap();
    assert!(verified.identical, "{verified:?}");
}

#[test]
fn the_first_tape_over_the_wire_gives_the_expected_books_and_episodes() {
    over_the_wire(TAPES[0]);
}

#[test]
fn the_second_tape_over_the_wire_gives_the_expected_books_and_episodes() {
    over_the_wire(TAPES[1]);
}
