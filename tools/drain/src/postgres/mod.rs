//! The journal in PostgreSQL: every row once, in order, whoever dies when.
//!
//! Invariant: the database itself holds how far it is, in the transaction of the rows. After any trouble
//! everything in memory is dropped and read again from there, so a batch is bounded and an outage of any length
//! holds no record. The thread waits for the database alone: nothing waits for the thread. A server that does not
//! answer is left after its limit, and tried again after a pause with full jitter.
//!
//! The asynchronous half of the crate `postgres` (`tokio-postgres`) is used, on one thread of its own: only so
//! can a call that a hung server never answers be left.
//!
//! Not here: what rows are (`crate::rows`), the transaction (`write`), the connection (`session`).

pub mod check;
mod gather;
pub mod latency;
pub mod migrate;
pub mod session;
pub mod wire;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tandem_core::record::Record;
use tandem_feeds::net::backoff::Backoff;
use tandem_feeds::tile::record_schema;
use tandem_shm::JournalMonitor;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::Sink;
use crate::rows::{Row, Table, Value};
use crate::run::ReadRun;
use crate::source::{Look, now_ns};
use crate::status::SinkStatus;
use crate::tail::{Places, Position};

use gather::{Gatherer, Start};
use latency::Latency;
use session::Server;
use write::{Batch, Writer};

/// The schema's version that this build writes into.
pub const SCHEMA_VERSION: i32 = 1;

/// A cursor without rows moves no more often.
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at a journal that is read to its end.
const IDLE: Duration = Duration::from_millis(20);
/// The thread looks this often whether it is to end.
const STOP_EVERY: Duration = Duration::from_millis(50);
/// A batch that takes the server too long becomes smaller, down to this.
const ROWS_MIN: usize = 100;
/// Days whose partitions are made for one batch.
const DAYS_MAX: usize = 8;
/// How far from today a day gets a partition of its own.
const DAYS_BACK: i32 = 40;
const DAYS_AHEAD: i32 = 3;
const DAY_NS: i64 = 86_400_000_000_000;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The server cannot be reached, or cannot write now.
    #[error("{0}")]
    Down(String),
    /// It accepts and does not answer.
    #[error("the database did not answer for {0:?}: left")]
    Hung(Duration),
    /// It does not want us.
    #[error("{0}")]
    Refused(String),
    /// Its schema is another build's.
    #[error(
        "the schema in the database has version {}, this build writes version {SCHEMA_VERSION}: {}",
        .found.map_or("none".to_owned(), |found| found.to_string()),
        match .found {
            Some(found) if SCHEMA_VERSION < *found => "run the newer tandem",
            _ => "run `tandem postgres migrate`",
        }
    )]
    Schema {
        /// What is there.
        found: Option<i32>,
    },
    /// The journal.
    #[error("{0}")]
    Journal(String),
}

/// How the sink stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Not connected yet.
    #[default]
    Connecting,
    /// It writes.
    Up,
    /// The server is away or cannot write.
    Down,
    /// The server accepts and does not answer.
    Hung,
    /// The server, or its schema, refuses us: a person is needed.
    Refused,
    /// The thread ended.
    Ended,
}

impl State {
    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::Up => "up",
            State::Down => "down",
            State::Hung => "hung",
            State::Refused => "refused",
            State::Ended => "ended",
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows by table; a row that was told in parts counts once a batch.
    pub rows: BTreeMap<&'static str, u64>,
    /// Rows that the database refused for good.
    pub dead_letters: u64,
}

impl Counts {
    fn add(&mut self, table: Table, rows: usize) {
        *self.rows.entry(table.name()).or_default() += rows as u64;
    }

    fn take(&mut self, other: Counts) {
        for (table, rows) in other.rows {
            *self.rows.entry(table).or_default() += rows;
        }
        self.dead_letters += other.dead_letters;
    }
}

/// How the sink stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// In a word.
    pub state: State,
    /// Why it is not up; empty where it is.
    pub why: String,
    /// Since when it is in this state, UNIX ns.
    pub since_ns: i64,
    /// What is in the database: the next record's place.
    pub durable: Option<Position>,
    /// The engine's clock there, UNIX ns; 0 before that is known.
    pub durable_ns: i64,
    /// Records of the journal that are not in the database yet.
    pub lag: u64,
    /// How old the oldest of them is, about; 0 where there is none.
    pub backlog_ns: i64,
    /// What was written since the start.
    pub counts: Counts,
    /// Batches written.
    pub batches: u64,
    /// Time that they took, all together and the last one.
    pub write_ns_total: u64,
    /// The last one.
    pub write_ns_last: u64,
    /// Sessions that ended in trouble.
    pub failures: u64,
    /// Of those, the ones that a hung server ended.
    pub hung: u64,
    /// Records of the journal that could not be read any more.
    pub lost: u64,
    /// Records that no readable configuration came before.
    pub skipped: u64,
    /// Latency intervals that found no room while the database was away.
    pub intervals_dropped: u64,
}

/// What others see of the sink.
#[derive(Clone, Debug, Default)]
pub struct Handle(Arc<Mutex<Status>>);

impl Handle {
    /// Returns how it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn turn(&self, state: State, why: &str) {
        self.update(|status| {
            if status.state != state {
                (status.state, status.since_ns) = (state, now_ns());
            }
            if status.why != why {
                status.why = why.to_owned();
            }
        });
    }
}

/// What the sink is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub server: Server,
    /// Who brings its schema up to date at the start; nobody where it must be there.
    pub owner: Option<Server>,
    /// Name of this drain's cursor: several machines may write into one database.
    pub stream: String,
    /// Rows of a batch.
    pub batch_rows: usize,
    /// A batch is written when its first row is so old.
    pub batch: Duration,
    /// Longest pause between two tries.
    pub backoff_max: Duration,
    /// How often latency becomes rows.
    pub latency_every: Duration,
    /// Where the records are.
    pub places: Places,
    /// Reads a run's configuration.
    pub read_run: ReadRun,
}

/// The sink.
#[derive(Debug)]
pub struct Postgres {
    handle: Handle,
    stop: Arc<AtomicBool>,
    latency: Latency,
    thread: Option<JoinHandle<()>>,
}

impl Postgres {
    /// Starts the thread, which tells `page` how it is doing. Nothing needs to be there yet, neither journal nor
    /// database.
    pub fn start(
        plan: &crate::Plan,
        settings: Settings,
        page: Arc<SinkStatus>,
    ) -> std::io::Result<Postgres> {
        let handle = Handle::default();
        let stop = Arc::new(AtomicBool::new(false));
        let latency = Latency::new(plan, settings.latency_every);
        let follower = Follower {
            handle: handle.clone(),
            stop: Arc::clone(&stop),
            intervals: latency.queue(),
            page,
            settings,
        };
        let thread = std::thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || follower.run())?;
        Ok(Postgres { handle, stop, latency, thread: Some(thread) })
    }

    /// Returns what metrics, the dashboard and alerts read.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Sink for Postgres {
    // It reads the journal itself, from where the database is.
    fn record(&mut self, _: &Record, _: bool) {}

    fn lost(&mut self, _: &str) {}

    fn look(&mut self, look: &Look) {
        self.latency.look(look.now_ns);
        let dropped = self.latency.dropped();
        self.handle.update(|status| status.intervals_dropped = dropped);
    }

    fn close(&mut self, within: Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + within;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(IDLE);
        }
        if thread.is_finished() {
            drop(thread.join());
        } else {
            let lag = self.handle.status().lag;
            tracing::warn!(
                lag,
                "the database still holds the last batch; the next start goes on there"
            );
        }
    }
}

/// The thread.
struct Follower {
    handle: Handle,
    stop: Arc<AtomicBool>,
    intervals: latency::Queue,
    page: Arc<SinkStatus>,
    settings: Settings,
}

impl Follower {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn run(self) {
        // One thread for names that are looked up: one that hangs keeps others from piling up behind it.
        let runtime =
            match Builder::new_current_thread().enable_all().max_blocking_threads(1).build() {
                Ok(runtime) => runtime,
                Err(error) => return self.handle.turn(State::Refused, &error.to_string()),
            };
        runtime.block_on(self.follow());
        runtime.shutdown_background();
        self.handle.turn(State::Ended, "");
    }

    async fn follow(&self) {
        let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let seed = now_ns().cast_unsigned();
        let base = ns(Duration::from_millis(200).min(self.settings.backoff_max));
        let mut backoff =
            Backoff::new(base, ns(self.settings.backoff_max), ns(Duration::from_secs(5)), seed);
        let mut owner = self.settings.owner.clone();
        let mut rows_max = self.settings.batch_rows;
        while !self.is_stopped() {
            let began = Instant::now();
            let ended = self.session(&mut owner, &mut rows_max).await;
            let Err(trouble) = ended else { return };
            let (state, hung) = match &trouble {
                Trouble::Hung(_) => (State::Hung, 1),
                Trouble::Refused(_) | Trouble::Schema { .. } => (State::Refused, 0),
                Trouble::Down(_) | Trouble::Journal(_) => (State::Down, 0),
            };
            if self.handle.status().why != trouble.to_string() {
                tracing::warn!(state = state.name(), why = %trouble, "postgres");
            }
            self.handle.update(|status| {
                status.failures += 1;
                status.hung += hung;
            });
            self.handle.turn(state, &trouble.to_string());
            self.page.failed(&trouble.to_string(), true);
            let pause = Duration::from_nanos(backoff.next_ns(ns(began.elapsed())).unsigned_abs());
            self.pause(pause).await;
        }
    }

    async fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.is_stopped() && Instant::now() < until {
            self.measure_away();
            tokio::time::sleep(STOP_EVERY.min(until.saturating_duration_since(Instant::now())))
                .await;
        }
    }

    /// The journal grows while nobody writes: said all the same.
    fn measure_away(&self) {
        let Ok(monitor) =
            JournalMonitor::open(&self.settings.places.journal, record_schema(), Duration::ZERO)
        else {
            return;
        };
        self.measure(&monitor);
    }

    fn measure(&self, monitor: &JournalMonitor) {
        let written = monitor.next_seq();
        self.handle.update(|status| {
            let durable = status.durable.map_or(1, |durable| durable.seq);
            status.lag = written.saturating_sub(durable);
            self.page.lag(status.lag, status.lag.saturating_mul(size_of::<Record>() as u64));
            status.backlog_ns = match (status.lag, status.durable_ns) {
                (0, _) | (_, 0) => 0,
                (_, durable_ns) => now_ns().saturating_sub(durable_ns).max(0),
            };
            self.page.behind(status.backlog_ns);
        });
    }

    /// One connection, until trouble or the end.
    async fn session(
        &self,
        owner: &mut Option<Server>,
        rows_max: &mut usize,
    ) -> Result<(), Trouble> {
        if let Some(owning) = owner {
            let applied = migrate::migrate(owning).await?;
            tracing::info!(applied, "schema is up to date");
            *owner = None;
        }
        let (writer, from) = self.open().await?;
        let mut days = BTreeSet::new();
        let today = today();
        writer.ensure_partitions(&[(today, DAYS_AHEAD)]).await?;
        days.extend(today..today + DAYS_AHEAD);
        self.handle.turn(State::Up, "");
        self.page.alive(now_ns());
        // The next batch is gathered while the server takes this one.
        let (sender, mut batches) = mpsc::channel(1);
        let limit = Arc::new(AtomicUsize::new(*rows_max));
        let gatherer =
            Gatherer::new(&self.settings, from, Arc::clone(&self.stop), Arc::clone(&limit));
        let thread = std::thread::Builder::new()
            .name("postgres-read".to_owned())
            .spawn(move || gatherer.run(&sender))
            .map_err(|error| Trouble::Down(error.to_string()))?;
        let ended = self.write_all(&writer, &mut batches, &mut days, &limit).await;
        if ended.is_err() {
            // What took too long is tried in smaller pieces.
            *rows_max = (limit.load(Ordering::Relaxed) / 2).max(ROWS_MIN);
        }
        // Without a receiver it ends with what it is gathering.
        drop(batches);
        if thread.join().is_err() {
            return Err(Trouble::Journal(
                "the thread that reads the journal ended in a fault".to_owned(),
            ));
        }
        ended
    }

    /// Writes every batch that comes; ends when no more does.
    async fn write_all(
        &self,
        writer: &Writer,
        batches: &mut mpsc::Receiver<Result<Batch, Trouble>>,
        days: &mut BTreeSet<i32>,
        limit: &AtomicUsize,
    ) -> Result<(), Trouble> {
        let mut monitor = None;
        loop {
            self.look_at_journal(&mut monitor);
            let mut batch = match tokio::time::timeout(CURSOR_EVERY / 5, batches.recv()).await {
                Ok(None) => return Ok(()),
                Ok(Some(batch)) => batch?,
                Err(_) if writer.is_closed() => {
                    return Err(Trouble::Down("the server closed the connection".to_owned()));
                }
                Err(_) => continue,
            };
            self.write(writer, &mut batch, days).await?;
            let (rows, whole) = (limit.load(Ordering::Relaxed), self.settings.batch_rows);
            limit.store((rows + rows / 4).min(whole), Ordering::Relaxed);
        }
    }

    async fn open(&self) -> Result<(Writer, Start), Trouble> {
        let Settings { server, stream, .. } = &self.settings;
        let patience = server.patience();
        let client = server.connect().await?;
        session::check_version(&client, patience).await?;
        let sql = "SELECT journal::text, next_seq, last_ns, state, run_text FROM drain_cursor WHERE stream = $1";
        let found = match tokio::time::timeout(patience, client.query_opt(sql, &[stream])).await {
            Err(_) => return Err(Trouble::Hung(patience)),
            Ok(found) => found.map_err(|error| write::trouble(&error))?,
        };
        let mut from = Start::default();
        if let Some(row) = found {
            let get =
                |error: tokio_postgres::Error| Trouble::Refused(format!("drain_cursor: {error}"));
            let journal: String = row.try_get(0).map_err(get)?;
            let seq: i64 = row.try_get(1).map_err(get)?;
            let last_ns: i64 = row.try_get(2).map_err(get)?;
            from.state = row.try_get(3).map_err(get)?;
            from.run_text = row.try_get(4).map_err(get)?;
            let journal = u128::from_str_radix(&journal.replace('-', ""), 16)
                .map_err(|error| Trouble::Refused(format!("drain_cursor.journal: {error}")))?;
            from.place = Some(Position { journal, seq: seq.cast_unsigned() });
            self.handle
                .update(|status| (status.durable, status.durable_ns) = (from.place, last_ns));
        }
        Ok((Writer::new(client, stream, patience).await?, from))
    }

    /// Writes one batch.
    async fn write(
        &self,
        writer: &Writer,
        batch: &mut Batch,
        days: &mut BTreeSet<i32>,
    ) -> Result<(), Trouble> {
        let intervals = self.intervals.take();
        batch.rows.extend(intervals.iter().cloned());
        let mut counts = Counts::default();
        let began = Instant::now();
        let done = match self.partitions(writer, days, &batch.rows).await {
            Ok(()) => writer.write(batch, &mut counts).await,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = done {
            self.intervals.put_back(intervals);
            return Err(trouble);
        }
        let rows: u64 = counts.rows.values().sum();
        self.page.wrote(rows, began.elapsed(), now_ns());
        self.page.dead_letters(counts.dead_letters);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.handle.update(|status| {
            (status.durable, status.durable_ns) = (batch.to, batch.last_ns);
            status.counts.take(counts);
            status.batches += 1;
            status.write_ns_total = status.write_ns_total.saturating_add(took);
            status.write_ns_last = took;
            status.lost += batch.lost;
            status.skipped = batch.skipped;
        });
        Ok(())
    }

    /// Has partitions made for the days of these rows that have none.
    async fn partitions(
        &self,
        writer: &Writer,
        known: &mut BTreeSet<i32>,
        rows: &[Row],
    ) -> Result<(), Trouble> {
        let today = today();
        let wanted = today - DAYS_BACK..=today + DAYS_AHEAD;
        let mut new: BTreeSet<i32> = BTreeSet::from([today + 1]);
        for row in rows {
            let at = row.table.partitioned_by().and_then(|column| row.get(column));
            if let Some(Value::Time(ns)) = at {
                new.extend(i32::try_from(ns.div_euclid(DAY_NS)));
            }
        }
        new.retain(|day| wanted.contains(day) && !known.contains(day));
        let days: Vec<(i32, i32)> =
            new.into_iter().rev().take(DAYS_MAX).map(|day| (day, 1)).collect();
        if !days.is_empty() {
            writer.ensure_partitions(&days).await?;
            known.extend(days.iter().map(|(day, _)| *day));
        }
        Ok(())
    }

    fn look_at_journal(&self, monitor: &mut Option<JournalMonitor>) {
        if let Some(monitor) = monitor {
            drop(monitor.reattach());
        } else {
            let journal = &self.settings.places.journal;
            *monitor = JournalMonitor::open(journal, record_schema(), Duration::ZERO).ok();
        }
        if let Some(monitor) = monitor {
            self.measure(monitor);
        }
    }
}

fn today() -> i32 {
    i32::try_from(now_ns().div_euclid(DAY_NS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_newest_migration() {
        assert_eq!(migrate::newest(), SCHEMA_VERSION);
    }

    #[test]
    fn a_wrong_schema_says_both_versions_and_what_to_do() {
        let newer = Trouble::Schema { found: Some(SCHEMA_VERSION + 1) }.to_string();
        assert!(newer.contains(&format!("version {}", SCHEMA_VERSION + 1)), "{newer}");
        assert!(newer.contains(&format!("version {SCHEMA_VERSION}:")), "{newer}");
        assert!(newer.contains("newer tandem"), "{newer}");
        let none = Trouble::Schema { found: None }.to_string();
        assert!(none.contains("tandem postgres migrate"), "{none}");
    }
}
