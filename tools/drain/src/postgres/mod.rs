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
pub mod latency;
pub mod migrate;
pub mod session;
pub mod wire;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tandem_core::record::Record;
use tandem_feeds::net::backoff::Backoff;
use tandem_feeds::tile::record_schema;
use tandem_shm::JournalMonitor;
use tokio::runtime::Builder;

use crate::Sink;
use crate::rows::{Projector, Row, Table, Value};
use crate::run::ReadRun;
use crate::source::{Look, now_ns};
use crate::tail::{Places, Position, Step, Tail};

use latency::Latency;
use session::Server;
use write::{Batch, Writer};

/// The schema's version that this build writes into.
pub const SCHEMA_VERSION: i32 = 1;

/// Records of one batch at most: those that make no row are read fast.
const RECORDS_MAX: usize = 1 << 17;
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
    /// Starts the thread. Nothing needs to be there yet, neither journal nor database.
    pub fn start(plan: &crate::Plan, settings: Settings) -> std::io::Result<Postgres> {
        let handle = Handle::default();
        let stop = Arc::new(AtomicBool::new(false));
        let latency = Latency::new(plan, settings.latency_every);
        let follower = Follower {
            handle: handle.clone(),
            stop: Arc::clone(&stop),
            intervals: latency.queue(),
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
    settings: Settings,
}

/// What one session holds: dropped whole when it ends.
struct Flow {
    writer: Writer,
    tail: Tail,
    projector: Option<Projector>,
    /// Where the cursor is.
    durable: Option<Position>,
    /// The run's configuration as the database has it.
    run_seq_text: String,
    /// The next record, once it is known.
    next: Option<Position>,
    /// Days that have partitions.
    days: BTreeSet<i32>,
    rows_max: usize,
    monitor: Option<JournalMonitor>,
    measured: Instant,
}

/// What is gathered for the next batch.
struct Gathered {
    rows: Vec<Row>,
    records: usize,
    since: Instant,
    lost: u64,
    up_to_date: bool,
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
            status.backlog_ns = match (status.lag, status.durable_ns) {
                (0, _) | (_, 0) => 0,
                (_, durable_ns) => now_ns().saturating_sub(durable_ns).max(0),
            };
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
        let mut flow = self.open(*rows_max).await?;
        self.handle.turn(State::Up, "");
        let mut gathered = Gathered::new();
        loop {
            let stopping = self.is_stopped();
            gathered.up_to_date = self.gather(&mut flow, &mut gathered).await?;
            let is_old = self.settings.batch <= gathered.since.elapsed();
            let is_due = match gathered.rows.is_empty() {
                true => {
                    RECORDS_MAX <= gathered.records
                        || (gathered.records != 0 && CURSOR_EVERY <= gathered.since.elapsed())
                }
                false => !gathered.up_to_date || is_old,
            };
            if is_due || (stopping && gathered.records != 0) {
                match self.write(&mut flow, &mut gathered).await {
                    Ok(()) if flow.rows_max < self.settings.batch_rows => {
                        flow.rows_max =
                            (flow.rows_max + flow.rows_max / 4).min(self.settings.batch_rows);
                        *rows_max = flow.rows_max;
                    }
                    Ok(()) => {}
                    Err(trouble) => {
                        // What took too long is tried in smaller pieces.
                        *rows_max = (flow.rows_max / 2).max(ROWS_MIN);
                        return Err(trouble);
                    }
                }
            } else if gathered.up_to_date {
                if flow.writer.is_closed() {
                    return Err(Trouble::Down("the server closed the connection".to_owned()));
                }
                tokio::time::sleep(IDLE).await;
            }
            if stopping && gathered.records == 0 {
                return Ok(());
            }
            self.look_at_journal(&mut flow);
        }
    }

    async fn open(&self, rows_max: usize) -> Result<Flow, Trouble> {
        let Settings { server, stream, places, read_run, .. } = &self.settings;
        let patience = server.patience();
        let client = server.connect().await?;
        session::check_version(&client, patience).await?;
        let sql = "SELECT journal::text, next_seq, last_ns, state, run_text FROM drain_cursor WHERE stream = $1";
        let found = match tokio::time::timeout(patience, client.query_opt(sql, &[stream])).await {
            Err(_) => return Err(Trouble::Hung(patience)),
            Ok(found) => found.map_err(|error| write::trouble(&error))?,
        };
        let mut run_text = String::new();
        let mut durable = None;
        let mut projector = None;
        if let Some(row) = found {
            let get =
                |error: tokio_postgres::Error| Trouble::Refused(format!("drain_cursor: {error}"));
            let journal: String = row.try_get(0).map_err(get)?;
            let seq: i64 = row.try_get(1).map_err(get)?;
            let last_ns: i64 = row.try_get(2).map_err(get)?;
            let state: Vec<u8> = row.try_get(3).map_err(get)?;
            run_text = row.try_get(4).map_err(get)?;
            let journal = u128::from_str_radix(&journal.replace('-', ""), 16)
                .map_err(|error| Trouble::Refused(format!("drain_cursor.journal: {error}")))?;
            let place = Position { journal, seq: seq.cast_unsigned() };
            durable = Some(place);
            let loaded = Projector::load(journal, *read_run, &run_text, &state);
            projector = Some(loaded.map_err(|error| Trouble::Refused(error.to_string()))?);
            self.handle.update(|status| (status.durable, status.durable_ns) = (durable, last_ns));
        }
        let writer = Writer::new(client, stream, patience).await?;
        let mut flow = Flow {
            writer,
            tail: Tail::new(places.clone(), durable),
            projector,
            durable,
            run_seq_text: run_text,
            next: durable,
            days: BTreeSet::new(),
            rows_max,
            monitor: None,
            measured: Instant::now(),
        };
        let today = today();
        flow.writer.ensure_partitions(&[(today, DAYS_AHEAD)]).await?;
        flow.days.extend(today..today + DAYS_AHEAD);
        Ok(flow)
    }

    /// Takes what the journal has, up to a batch. Returns whether that was all of it.
    async fn gather(&self, flow: &mut Flow, gathered: &mut Gathered) -> Result<bool, Trouble> {
        if gathered.records == 0 && gathered.rows.is_empty() {
            gathered.since = Instant::now();
        }
        loop {
            if flow.rows_max <= gathered.rows.len() || RECORDS_MAX <= gathered.records {
                return Ok(false);
            }
            let step = flow.tail.step().map_err(|error| Trouble::Journal(error.to_string()))?;
            match step {
                Step::UpToDate => return Ok(true),
                Step::Journal(place) => {
                    let is_other = flow.next.is_none_or(|next| next.journal != place.journal);
                    if is_other || flow.projector.is_none() {
                        // What is gathered of the one before is written before anything of this one.
                        if gathered.records != 0 {
                            self.write(flow, gathered).await?;
                        }
                        flow.projector =
                            Some(Projector::new(place.journal, self.settings.read_run));
                        gathered.rows.push(journal_row(place));
                        gathered.records += 1;
                    }
                    flow.next = Some(place);
                }
                Step::Record(record) => {
                    let Some(projector) = &mut flow.projector else { continue };
                    projector.take(&record, &mut gathered.rows);
                    gathered.records += 1;
                    if let Some(next) = &mut flow.next {
                        next.seq = record.seq + 1;
                    }
                }
                Step::Lost { from, to, why } => {
                    let Some(projector) = &mut flow.projector else { continue };
                    projector.lost();
                    gathered.rows.push(gap_row(flow.next, projector.last_ns(), (from, to), &why));
                    gathered.records += 1;
                    gathered.lost += to.saturating_sub(from);
                    if let Some(next) = &mut flow.next {
                        next.seq = to;
                    }
                }
            }
        }
    }

    /// Writes what is gathered.
    async fn write(&self, flow: &mut Flow, gathered: &mut Gathered) -> Result<(), Trouble> {
        let (Some(next), Some(projector)) = (flow.next, &flow.projector) else { return Ok(()) };
        let resume = projector.resume_from().unwrap_or(next.seq);
        let run_text = projector.run().map_or("", |run| run.text.as_str());
        let new_text = (run_text != flow.run_seq_text).then(|| run_text.to_owned());
        let intervals = self.intervals.take();
        let mut rows = std::mem::take(&mut gathered.rows);
        rows.extend(intervals.iter().cloned());
        let mut batch = Batch {
            rows,
            from: flow.durable,
            to: Some(Position { seq: resume, ..next }),
            last_ns: projector.last_ns(),
            state: projector.save(),
            run_text: new_text,
        };
        let mut counts = Counts::default();
        let began = Instant::now();
        let done = match self.partitions(flow, &batch.rows).await {
            Ok(()) => flow.writer.write(&mut batch, &mut counts).await,
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = done {
            self.intervals.put_back(intervals);
            return Err(trouble);
        }
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        flow.durable = batch.to;
        if let Some(text) = batch.run_text {
            flow.run_seq_text = text;
        }
        let skipped = flow.projector.as_ref().map_or(0, Projector::skipped);
        self.handle.update(|status| {
            (status.durable, status.durable_ns) = (batch.to, batch.last_ns);
            status.counts.take(counts);
            status.batches += 1;
            status.write_ns_total = status.write_ns_total.saturating_add(took);
            status.write_ns_last = took;
            status.lost += gathered.lost;
            status.skipped = skipped;
        });
        *gathered = Gathered::new();
        Ok(())
    }

    /// Has partitions made for the days of these rows that have none.
    async fn partitions(&self, flow: &mut Flow, rows: &[Row]) -> Result<(), Trouble> {
        let today = today();
        let wanted = today - DAYS_BACK..=today + DAYS_AHEAD;
        let mut new: BTreeSet<i32> = BTreeSet::from([today + 1]);
        for row in rows {
            let at = row.table.partitioned_by().and_then(|column| row.get(column));
            if let Some(Value::Time(ns)) = at {
                new.extend(i32::try_from(ns.div_euclid(DAY_NS)));
            }
        }
        new.retain(|day| wanted.contains(day) && !flow.days.contains(day));
        let days: Vec<(i32, i32)> =
            new.into_iter().rev().take(DAYS_MAX).map(|day| (day, 1)).collect();
        if !days.is_empty() {
            flow.writer.ensure_partitions(&days).await?;
            flow.days.extend(days.iter().map(|(day, _)| *day));
        }
        Ok(())
    }

    fn look_at_journal(&self, flow: &mut Flow) {
        if flow.measured.elapsed() < CURSOR_EVERY / 5 {
            return;
        }
        flow.measured = Instant::now();
        match &mut flow.monitor {
            Some(monitor) => drop(monitor.reattach()),
            none => {
                let journal = &self.settings.places.journal;
                *none = JournalMonitor::open(journal, record_schema(), Duration::ZERO).ok();
            }
        }
        if let Some(monitor) = &flow.monitor {
            self.measure(monitor);
        }
    }
}

impl Gathered {
    fn new() -> Gathered {
        Gathered { rows: Vec::new(), records: 0, since: Instant::now(), lost: 0, up_to_date: false }
    }
}

fn today() -> i32 {
    i32::try_from(now_ns().div_euclid(DAY_NS)).unwrap_or(0)
}

fn journal_row(place: Position) -> Row {
    Row::empty(Table::Journals, place.seq)
        .with("journal", Value::Uuid(place.journal))
        .with("seq", Value::Int8(place.seq.cast_signed()))
        .with("first_seen", Value::Time(now_ns()))
}

fn gap_row(next: Option<Position>, at: i64, (from, to): (u64, u64), why: &str) -> Row {
    let journal = next.map_or(0, |next| next.journal);
    Row::empty(Table::JournalGaps, from)
        .with("journal", Value::Uuid(journal))
        .with("seq", Value::Int8(from.cast_signed()))
        .with("to_seq", Value::Int8(to.cast_signed()))
        .with("lost", Value::Int8(to.saturating_sub(from).cast_signed()))
        .with("at", Value::Time(at))
        .with("why", Value::text(why))
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
