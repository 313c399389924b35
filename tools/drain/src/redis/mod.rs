//! Redis: the newest best prices and depth of every book, and opportunities as they come.
//!
//! Invariant: Redis is a cache and a fan-out, never a source of truth; nothing is read back but whether a
//! write was older than what is there. What is held for it is one value of each book and the newest
//! opportunities, whatever Redis does: a book that changes again before it was sent is sent once, with its
//! newest value. An older writer never replaces what a newer one wrote (by the run's begin and the journal's
//! sequence, in one script), and an opportunity is in the stream once: its id is its place in the journal.
//!
//! ```text
//! records ─► mirror (books) ─► cell (one value a book, newest opportunities) ─► writer (own thread) ─► Redis
//! ```
//! Keys, all below one prefix: `bbo:VENUE:SYMBOL` (hash), `depth:VENUE:SYMBOL` (JSON), `status` (hash),
//! `opportunities` (stream). Channels: `bbo`, `opportunities`. Books and status go away by themselves
//! ([`RedisSettings::expire`]) when nobody writes them any more.
//!
//! Not here: the database of record (`postgres`), alerts about Redis (`deploy/prometheus`).

mod mirror;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tandem_core::record::{Kind, Record, flag};
use tandem_core::report::{GROUP_MAX, Opportunity};
use tandem_gateway::keys::Secret;

use crate::plan::Plan;
use crate::run::{ConfigText, ReadRun, RunInfo};
use crate::source::Look;
use crate::status::SinkStatus;
use crate::{DrainError, Sink};
use mirror::{Mirror, Quote};

/// Books that are followed; of more the first ones are.
pub const BOOKS_MAX: usize = 4_096;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// This host, without TLS.
    Loopback(String, u16),
    /// Anywhere, with TLS; the certificate authority is the public ones' or a file's.
    Tls(String, u16, Option<PathBuf>),
}

impl Place {
    /// Reads `unix:///path`, `redis://127.0.0.1:6379` or `rediss://host:6379`. The error says what is wrong.
    pub fn parse(url: &str, ca_file: Option<PathBuf>) -> Result<Place, &'static str> {
        let shape = "must be unix:///path, redis://127.0.0.1:port or rediss://host:port";
        if let Some(path) = url.strip_prefix("unix://") {
            return match path.starts_with('/') {
                true => Ok(Place::Unix(path.into())),
                false => Err(shape),
            };
        }
        let (rest, is_tls) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err(shape),
        };
        if rest.contains(['@', '/', '?', '#']) {
            return Err("holds no user, password or database: they have keys of their own");
        }
        let (host, port) = rest.rsplit_once(':').ok_or(shape)?;
        let port = port.parse().map_err(|_| shape)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = bare == "localhost"
            || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        match (is_tls, is_local) {
            _ if bare.is_empty() => Err(shape),
            (true, _) => Ok(Place::Tls(bare.to_owned(), port, ca_file)),
            (false, true) => Ok(Place::Loopback(bare.to_owned(), port)),
            (false, false) => Err("another host needs TLS: write rediss://"),
        }
    }
}

/// What the sink is told.
#[derive(Debug)]
pub struct RedisSettings {
    /// Where.
    pub place: Place,
    /// As whom.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
    /// Before every key and channel, with a colon after it.
    pub prefix: String,
    /// Least time between two writes.
    pub flush: Duration,
    /// Levels a side.
    pub depth: usize,
    /// About so many opportunities stay in the stream.
    pub stream_max: usize,
    /// Books and status go away after this time without a word.
    pub expire: Duration,
    /// To connect, with the handshakes.
    pub connect_timeout: Duration,
    /// To answer.
    pub response_timeout: Duration,
}

/// A moment of an opportunity, to be told.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its place: the run's begin, ms, and the journal's sequence.
    pub id: (i64, u64),
    /// The run that its numbers are of.
    pub run: Arc<RunInfo>,
    pub told: Opportunity,
}

/// How the drain stands, to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub run: u32,
    pub mode: String,
    pub level: &'static str,
    pub seq: u64,
    pub lag: u64,
}

/// What is to be sent: bounded by the number of books and the length of the stream.
#[derive(Default)]
pub(crate) struct Cell {
    /// The run that the numbers are of.
    pub run: Option<Arc<RunInfo>>,
    pub books: BTreeMap<u16, Quote>,
    pub found: VecDeque<Found>,
    pub standing: Option<Standing>,
    /// Ends when everything is sent, or at this time.
    pub stop_by: Option<Instant>,
}

/// The cell between sink and writer.
#[derive(Default)]
pub(crate) struct Shared {
    cell: Mutex<Cell>,
    wake: Condvar,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the end is asked for, at most this long; says whether it is.
    pub fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut cell = self.lock();
        while cell.stop_by.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            cell = self.wake.wait_timeout(cell, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// The sink.
pub struct Redis {
    read_run: ReadRun,
    stream_max: usize,
    status: Arc<SinkStatus>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
    config: ConfigText,
    run: Option<Arc<RunInfo>>,
    /// When the run began by its first record with a time, ms; 0 before that.
    begun_ms: i64,
    mirror: Mirror,
    group: Vec<Record>,
    seq: u64,
    touched: Vec<u16>,
}

impl Redis {
    /// Starts the writer. Nothing needs to be there yet.
    pub fn start(
        plan: &Plan,
        settings: RedisSettings,
        status: Arc<SinkStatus>,
    ) -> Result<Redis, DrainError> {
        let shared = Arc::new(Shared::default());
        let (depth, stream_max) = (settings.depth, settings.stream_max);
        let writer = writer::spawn(settings, Arc::clone(&shared), Arc::clone(&status))?;
        Ok(Redis {
            read_run: plan.read_run,
            stream_max,
            status,
            shared,
            writer: Some(writer),
            config: ConfigText::default(),
            run: None,
            begun_ms: 0,
            mirror: Mirror::new(depth),
            group: Vec::new(),
            seq: 0,
            touched: Vec::new(),
        })
    }

    fn on_config(&mut self, record: &Record) {
        let Some(text) = self.config.take(record) else { return };
        match text.and_then(|text| (self.read_run)(&text)) {
            Ok(run) => {
                self.mirror.begin(&run);
                self.run = Some(Arc::new(run));
                self.begun_ms = 0;
                self.touched.clear();
                let mut cell = self.shared.lock();
                // Numbers of instruments are those of the run.
                cell.books.clear();
                cell.run = self.run.clone();
            }
            Err(error) => tracing::warn!(%error, "a run's configuration cannot be read"),
        }
    }

    /// Hands over what changed at the end of a message: never half a book.
    fn hand_over(&mut self) {
        if self.begun_ms == 0 || self.touched.is_empty() {
            return;
        }
        let mut cell = self.shared.lock();
        let mut replaced = 0;
        for instrument in self.touched.drain(..) {
            if let Some(quote) = self.mirror.quote(instrument, (self.begun_ms, self.seq)) {
                replaced += u64::from(cell.books.insert(instrument, quote).is_some());
            }
        }
        drop(cell);
        if replaced != 0 {
            self.status.conflated(replaced);
        }
    }

    fn touch(&mut self, instrument: u16) {
        if !self.touched.contains(&instrument) {
            self.touched.push(instrument);
        }
    }

    fn on_opportunity(&mut self, record: &Record) {
        if record.part == 0 {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) && self.group.len() < GROUP_MAX {
            return;
        }
        let seq = self.group.first().map_or(0, |first| first.seq);
        let told = Opportunity::decode(&self.group);
        self.group.clear();
        let Some((told, run)) = told.zip(self.run.clone()) else { return };
        if self.begun_ms == 0 {
            return;
        }
        let mut cell = self.shared.lock();
        cell.found.push_back(Found { id: (self.begun_ms, seq), run, told });
        // Older ones would be trimmed from the stream at once.
        if self.stream_max < cell.found.len() {
            cell.found.pop_front();
            self.status.conflated(1);
        }
        self.status.backlog(cell.found.len() as u64);
    }
}

impl Sink for Redis {
    fn record(&mut self, record: &Record, _is_past: bool) {
        self.seq = record.seq;
        let Some(kind) = record.kind() else { return };
        if kind == Kind::Config {
            return self.on_config(record);
        }
        if self.begun_ms == 0 && self.run.is_some() && record.engine_ts_ns != 0 {
            self.begun_ms = record.engine_ts_ns / 1_000_000;
        }
        match kind {
            Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState
                if self.mirror.take(kind, record) =>
            {
                self.touch(record.instrument);
            }
            Kind::Gap => {
                for instrument in self.mirror.doubt(record.venue) {
                    self.touch(instrument);
                }
            }
            Kind::Opportunity => self.on_opportunity(record),
            _ => {}
        }
        if record.has(flag::LAST) && !self.touched.is_empty() {
            self.hand_over();
        }
    }

    fn lost(&mut self, _what: &str) {
        // What the books are now is not known before their next snapshots.
        self.group.clear();
        self.config = ConfigText::default();
        for instrument in self.mirror.doubt_all() {
            self.touch(instrument);
        }
        self.hand_over();
    }

    fn look(&mut self, look: &Look) {
        let standing = Standing {
            run: self.run.as_ref().map_or(0, |run| run.run),
            mode: self.run.as_ref().map(|run| run.mode.clone()).unwrap_or_default(),
            level: look
                .level
                .map_or("none", |word| word.of(tandem_core::level::Scope::Global).name()),
            seq: self.seq,
            lag: look.journal.lag,
        };
        self.status.lag(look.journal.lag, look.journal.lag.saturating_mul(128));
        let mut cell = self.shared.lock();
        cell.standing = Some(standing);
    }

    fn close(&mut self, within: Duration) {
        let until = Instant::now() + within;
        self.shared.lock().stop_by = Some(until);
        self.shared.wake.notify_all();
        let Some(writer) = self.writer.take() else { return };
        // A writer that waits for a server that hangs is left behind: its time is bounded, ours is too.
        while !writer.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if writer.is_finished() {
            drop(writer.join());
        } else {
            tracing::warn!(
                "Redis did not take everything in time; its newest values are not there"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_this_host_or_has_tls() {
        let check = |url: &str| Place::parse(url, None);
        assert_eq!(check("unix:///run/r.sock"), Ok(Place::Unix("/run/r.sock".into())));
        assert_eq!(check("redis://127.0.0.1:6379"), Ok(Place::Loopback("127.0.0.1".into(), 6379)));
        assert_eq!(check("redis://[::1]:1"), Ok(Place::Loopback("::1".into(), 1)));
        assert_eq!(
            check("rediss://cache.example:6380"),
            Ok(Place::Tls("cache.example".into(), 6380, None))
        );
        for url in [
            "redis://cache.example:6379",
            "redis://10.0.0.1:6379",
            "redis://user:secret@127.0.0.1:6379",
            "redis://127.0.0.1:6379/3",
            "rediss://:6379",
            "redis://127.0.0.1",
            "unix://r.sock",
            "http://127.0.0.1:6379",
            "",
        ] {
            assert!(check(url).is_err(), "{url}");
        }
    }
}
