//! What the whole-system tests share: a run in a directory of its own, its processes, what its engine
//! knew, and what the simulator's books really were.
//!
//! Invariant: whatever happens, also a failed assertion, every process that was started here ends and
//! every directory made here goes. What a test says about the system comes from outside of it: the
//! journal, the stats, `/proc`, and the simulator's control port.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::report::{Opportunity, Phase};
use tandem_core::units::parse_decimal;
use tandem_feeds::tile::record_schema;
use tandem_shm::JournalReader;
use tandem_tools::supervisor;
use tandem_tools::table::{Collector, Table};
use tandem_tools::time::now_ns;

/// Between two looks at a condition in another process, which cannot wake us.
const LOOK: Duration = Duration::from_millis(2);

/// Waits for a condition; returns whether it came true in time.
pub fn wait_for(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + within;
    while !condition() {
        if until < Instant::now() {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// A directory in shared memory that goes when the test ends.
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes an empty one.
    pub fn new(test: &str) -> RunDir {
        let path = PathBuf::from(format!("/dev/shm/tandem-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        // The supervisor starts its tiles from its own file: a build meanwhile must not replace it.
        fs::copy(env!("CARGO_BIN_EXE_tandem"), path.join("tandem")).unwrap();
        RunDir(path)
    }

    /// The binary under test.
    pub fn program(&self) -> PathBuf {
        self.0.join("tandem")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // `TANDEM_KEEP` leaves a failed run for a look at it.
        if std::env::var_os("TANDEM_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The children of a process: what each was told to be (`engine`, `feed binance`), and its id.
pub fn children(parent: u32) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // The name in parentheses may hold anything; what follows the last one is fixed.
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let (state, ppid) = (fields.next(), fields.next());
        if ppid != Some(&parent.to_string()) || state == Some("Z") {
            continue;
        }
        let role = role(pid);
        if !role.is_empty() {
            found.insert(role, pid);
        }
    }
    found
}

/// What a process was told to be: its arguments up to the first option.
fn role(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .skip(1)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .take_while(|word| !word.starts_with("--") && !word.is_empty())
        .collect();
    words.join(" ")
}

/// Sends a signal to a process that was started by this test.
pub fn signal(pid: u32, signal: i32) {
    let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "signal {signal} to {pid} not sent");
}

/// `tandem up` with its tiles.
pub struct Up {
    child: Child,
    config: PathBuf,
}

impl Up {
    /// Writes the configuration into the run's directory and starts.
    pub fn start(dir: &RunDir, config_text: &str) -> Up {
        let config = dir.path().join("tandem.toml");
        fs::write(&config, config_text).unwrap();
        let child = Command::new(dir.program())
            .arg("up")
            .arg("--config")
            .arg(&config)
            // A test that is killed leaves nothing behind.
            .arg("--while-pid")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Up { child, config }
    }

    /// Its own id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its tiles by what they are.
    pub fn tiles(&self) -> BTreeMap<String, u32> {
        children(self.pid())
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops it as an operator does.
    pub fn stop(&mut self) {
        let tiles = self.tiles();
        supervisor::stop(&mut self.child);
        // Only where the supervisor had to be killed is anything left; the line says it is ours.
        let config = self.config.display().to_string();
        for pid in tiles.into_values() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&config) {
                signal(pid, 9);
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A plain HTTP client on one connection that is kept.
pub struct Control {
    at: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Control {
    /// A client of the control port there.
    pub fn new(at: SocketAddr) -> Control {
        Control { at, stream: None }
    }

    /// Asks; the answer is JSON, with its status.
    pub fn ask(&mut self, method: &str, target: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let answer = self.once(method, target, body);
        match answer {
            Ok(answer) => Ok(answer),
            // The kept connection may have been closed meanwhile.
            Err(_) => {
                self.stream = None;
                self.once(method, target, body)
            }
        }
    }

    fn once(&mut self, method: &str, target: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let wrong = |what: &str| std::io::Error::other(what.to_owned());
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.at)?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("just made");
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: control\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| wrong("no status"))?;
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(|_| wrong("length"))?;
            }
        }
        let mut text = vec![0; length];
        stream.read_exact(&mut text)?;
        Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }

    /// Asks for what must be answered with 200.
    pub fn get(&mut self, target: &str) -> Value {
        let (status, answer) = self.ask("GET", target, "").unwrap();
        assert_eq!(status, 200, "{target}: {answer}");
        answer
    }

    /// Tells what must be answered with 200.
    pub fn post(&mut self, target: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", target, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{target} {body}: {answer}");
        answer
    }
}

/// A symbol as a query parameter.
pub fn escaped(symbol: &str) -> String {
    symbol.replace('/', "%2F")
}

/// A book as the engine knows it.
#[derive(Clone, Copy, Debug)]
pub struct BookNow {
    /// Its venue.
    pub venue: Venue,
    /// Its state in the engine.
    pub state: BookState,
    /// When it came into this state, by the engine's clock.
    pub since_ns: i64,
}

/// A book that stopped or began to be live, in the engine's eyes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Engine time.
    pub at_ns: i64,
    /// Venue of the book.
    pub venue: Venue,
    /// Instrument.
    pub instrument: u16,
    /// What it is now.
    pub state: BookState,
    /// Why.
    pub reason: Reason,
}

/// One leg of an opportunity, as the venue's own texts.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Its venue.
    pub venue: Venue,
    /// The venue's symbol.
    pub symbol: String,
    /// Whether it buys from asks.
    pub buys: bool,
    /// Limit price.
    pub px: i64,
    /// Quantity.
    pub qty: i64,
    /// Best price of the side taken.
    pub best_px: i64,
    /// Levels touched.
    pub levels: u32,
    /// When the book's last change was received.
    pub recv_ns: i64,
    /// The venue's id of the book.
    pub update_id: u64,
}

/// An opportunity that was told with its legs.
#[derive(Clone, Debug)]
pub struct Told {
    /// Engine time.
    pub at_ns: i64,
    /// Counts from the engine's start.
    pub id: i64,
    /// Open or update.
    pub phase: Phase,
    /// What it would take.
    pub legs: Vec<Leg>,
}

/// What a journal told so far.
#[derive(Default)]
pub struct Seen {
    /// The run's instruments.
    pub table: Option<Arc<Table>>,
    /// Configurations read: starts of an engine.
    pub runs: u64,
    /// Books by instrument.
    pub books: Vec<BookNow>,
    /// Changes between live and not live.
    pub changes: Vec<Change>,
    /// Opportunities with legs.
    pub told: Vec<Told>,
    /// Records read.
    pub records: u64,
    /// Engine time of the last record.
    pub last_ns: i64,
    /// Why reading ended, if it did.
    pub failure: Option<String>,
    collector: Collector,
    group: Vec<Record>,
}

impl Seen {
    /// Returns whether all books of a venue (or of all) are live.
    pub fn all_live(&self, venue: Option<Venue>) -> bool {
        let mut books = self.books.iter().filter(|book| venue.is_none_or(|v| v == book.venue));
        !self.books.is_empty() && books.all(|book| book.state == BookState::Live)
    }

    /// Returns since when all books of a venue (or of all) are live, 0 where they are not.
    pub fn live_since(&self, venue: Option<Venue>) -> i64 {
        if !self.all_live(venue) {
            return 0;
        }
        let books = self.books.iter().filter(|book| venue.is_none_or(|v| v == book.venue));
        books.map(|book| book.since_ns).max().unwrap_or(0)
    }

    /// Returns when a book of a venue stopped being live after a time.
    pub fn lost_after(&self, venue: Venue, at_ns: i64) -> Option<i64> {
        let lost = |change: &&Change| {
            change.venue == venue && at_ns <= change.at_ns && change.state != BookState::Live
        };
        self.changes.iter().find(lost).map(|change| change.at_ns)
    }

    fn set(&mut self, instrument: usize, state: BookState, reason: Reason, at_ns: i64) {
        let Some(book) = self.books.get_mut(instrument) else { return };
        if (book.state == BookState::Live) != (state == BookState::Live) {
            let instrument = instrument as u16;
            self.changes.push(Change { at_ns, venue: book.venue, instrument, state, reason });
            book.since_ns = at_ns;
        }
        book.state = state;
    }

    fn take(&mut self, record: &Record) {
        self.records += 1;
        // Configuration records carry no time.
        self.last_ns = self.last_ns.max(record.engine_ts_ns);
        match record.kind() {
            Some(Kind::Config) => {
                if let Some(table) = self.collector.take(record) {
                    let table = table.unwrap();
                    let at_ns = self.last_ns;
                    // A new engine knows nothing yet.
                    for instrument in 0..self.books.len() {
                        self.set(instrument, BookState::Init, Reason::Producer, at_ns);
                    }
                    if self.books.is_empty() {
                        let new = |i: &tandem_feeds::spec::VenueInstrument| BookNow {
                            venue: i.venue,
                            state: BookState::Init,
                            since_ns: 0,
                        };
                        self.books = table.instruments.iter().map(new).collect();
                    }
                    self.table = Some(Arc::new(table));
                    self.runs += 1;
                }
            }
            Some(Kind::BookState) => {
                let state = BookState::from_tag(record.data[0]).unwrap();
                let reason = Reason::from_tag(record.data[1]).unwrap_or(Reason::None);
                self.set(usize::from(record.instrument), state, reason, record.engine_ts_ns);
            }
            Some(Kind::Gap) => {
                let reason = Reason::from_tag(record.data[0]).unwrap_or(Reason::None);
                for instrument in 0..self.books.len() {
                    if self.books[instrument].venue as u8 == record.venue {
                        self.set(instrument, BookState::Stale, reason, record.engine_ts_ns);
                    }
                }
            }
            Some(Kind::Opportunity) => self.take_told(record),
            _ => {}
        }
    }

    fn take_told(&mut self, record: &Record) {
        if record.part == 0 {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        let told = Opportunity::decode(&self.group).expect("a whole opportunity");
        self.group.clear();
        let Some(table) = &self.table else { return };
        if told.legs().is_empty() || !matches!(told.phase, Phase::Open | Phase::Update) {
            return;
        }
        let legs = told.legs().iter().map(|leg| Leg {
            venue: Venue::from_tag(leg.venue).unwrap(),
            symbol: table.instruments[usize::from(leg.instrument)].symbol.as_str().to_owned(),
            buys: leg.side == 1,
            px: decimal(&table.px(leg.instrument, leg.px.0)),
            qty: decimal(&table.qty(leg.instrument, leg.qty.0)),
            best_px: decimal(&table.px(leg.instrument, leg.best_px.0)),
            levels: leg.levels,
            recv_ns: leg.recv_ts_ns,
            update_id: leg.update_id,
        });
        let legs = legs.collect();
        self.told.push(Told { at_ns: told.at_ns, id: told.id, phase: told.phase, legs });
    }
}

/// Decimal text as 10^-8 units, which every simulated grid fits into.
pub fn decimal(text: &str) -> i64 {
    parse_decimal(text.as_bytes(), 8).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Follows a journal while it is written, over restarts of its writer.
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Follows the journal there, also one that is not there yet.
    pub fn start(journal: PathBuf) -> Follower {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            std::thread::spawn(move || {
                if let Err(why) = follow(&journal, &seen, &stop) {
                    seen.lock().unwrap().failure = Some(why);
                }
            })
        };
        Follower { seen, stop, thread: Some(thread) }
    }

    /// What it saw up to now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.failure, None, "the journal could not be followed");
        seen
    }

    /// Waits until all books of a venue (or of all) have been live for `steady`.
    pub fn wait_live(&self, venue: Option<Venue>, steady: Duration, within: Duration) -> bool {
        let steady = i64::try_from(steady.as_nanos()).unwrap();
        wait_for(within, || {
            let since = self.seen().live_since(venue);
            since != 0 && steady <= now_ns() - since
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(journal: &Path, seen: &Mutex<Seen>, stop: &AtomicBool) -> Result<(), String> {
    let mut reader = loop {
        match JournalReader::<Record>::open(journal, record_schema()) {
            Ok(reader) => break reader,
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
            // The engine makes it a moment after it started.
            Err(_) => std::thread::sleep(LOOK),
        }
    };
    let mut batch = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while batch.len() < 4_096
            && let Some(record) = reader.next().map_err(|error| error.to_string())?
        {
            batch.push(record);
        }
        if batch.is_empty() {
            std::thread::sleep(LOOK);
            continue;
        }
        let mut seen = seen.lock().unwrap();
        batch.drain(..).for_each(|record| seen.take(&record));
    }
    Ok(())
}

/// One state of a book's best prices in the simulator.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// From when on.
    pub at_ns: i64,
    /// Best bid and ask: price and quantity.
    pub sides: [Option<(i64, i64)>; 2],
}

/// Venue, symbol, whether it is an ask, price.
type LevelKey = (Venue, String, bool, i64);
/// From, to, and whether the level stood in between.
type LevelSpan = (i64, i64, bool);

/// The simulator's own books over the whole test, asked for again and again because it forgets.
pub struct Truth {
    control: Control,
    states: BTreeMap<(Venue, String), Vec<State>>,
    levels: HashMap<LevelKey, Vec<LevelSpan>>,
    /// Questions about single levels.
    pub level_questions: u64,
}

impl Truth {
    /// The truth about these instruments.
    pub fn new(at: SocketAddr, instruments: impl Iterator<Item = (Venue, String)>) -> Truth {
        let states = instruments.map(|key| (key, Vec::new())).collect();
        Truth { control: Control::new(at), states, levels: HashMap::new(), level_questions: 0 }
    }

    /// Coinbase's `X-USDC` is another name of the book `X-USD`, unless it has its own.
    fn product(venue: Venue, symbol: &str) -> String {
        match symbol.strip_suffix("-USDC") {
            Some(base) if venue == Venue::Coinbase && base != "USDT" => format!("{base}-USD"),
            _ => symbol.to_owned(),
        }
    }

    /// Asks for everything since the last time.
    pub fn update(&mut self) {
        for ((venue, symbol), states) in &mut self.states {
            let since = states.last().map_or(0, |state| state.at_ns);
            let product = Truth::product(*venue, symbol);
            let answer = self.control.get(&format!(
                "/truth/history?venue={}&symbol={}&since_ns={since}",
                venue.name(),
                escaped(&product)
            ));
            let side = |row: &Value| {
                let text = |at: usize| decimal(row[at].as_str().unwrap());
                row.is_array().then(|| (text(0), text(1)))
            };
            for row in answer["states"].as_array().unwrap() {
                let at_ns = row["at_ns"].as_i64().unwrap();
                if states.last().is_none_or(|last| last.at_ns < at_ns) {
                    states.push(State { at_ns, sides: [side(&row["bid"]), side(&row["ask"])] });
                }
            }
        }
    }

    /// The states of an instrument that held at some time of a window.
    pub fn window(&self, venue: Venue, symbol: &str, from_ns: i64, to_ns: i64) -> &[State] {
        let states = &self.states[&(venue, symbol.to_owned())];
        let from = states.partition_point(|state| state.at_ns <= from_ns).saturating_sub(1);
        let to = states.partition_point(|state| state.at_ns <= to_ns);
        &states[from.min(to)..to]
    }

    /// Whether a level stood in the simulator's book at some time of a window.
    pub fn level_stood(
        &mut self,
        (venue, symbol, buys, px): (Venue, &str, bool, i64),
        from_ns: i64,
        to_ns: i64,
    ) -> bool {
        let key = (venue, symbol.to_owned(), buys, px);
        let known = self.levels.entry(key).or_default();
        let holds = |spans: &[LevelSpan]| {
            spans.iter().any(|(from, to, stood)| *stood && *from <= to_ns && from_ns <= *to)
        };
        if holds(known) {
            return true;
        }
        self.level_questions += 1;
        let answer = self.control.get(&format!(
            "/truth/levels?venue={}&symbol={}&side={}&price={}.{:08}&from_ns={from_ns}&to_ns={to_ns}",
            venue.name(),
            escaped(&Truth::product(venue, symbol)),
            if buys { "ask" } else { "bid" },
            px / 100_000_000,
            px % 100_000_000,
        ));
        let rows = answer["states"].as_array().unwrap();
        for (at, row) in rows.iter().enumerate() {
            let from = row["from_ns"].as_i64().unwrap();
            let to = rows.get(at + 1).map_or(to_ns, |next| next["from_ns"].as_i64().unwrap());
            known.push((from, to, decimal(row["qty"].as_str().unwrap()) != 0));
        }
        holds(known)
    }
}

/// Runs a command of the binary and returns whether it ended with 0, and what it said.
pub fn tandem(args: &[&std::ffi::OsStr]) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_tandem");
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), text.concat())
}
