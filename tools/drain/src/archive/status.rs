//! How the archive stands, for people, metrics and alerts: in this process and in shared memory.
//!
//! Invariant: one writer, which is the archiver's thread; everybody else reads. A figure that is not known is
//! zero, and [`State`] says why nothing moves.

use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tandem_shm::{CounterHandle, GaugeHandle, Metric, ShmError, StatsWriter, tsc};

/// Name of the archive's stats in the run's directory.
pub const STATS: &str = "archive_stats";

/// Names of the archive's metrics.
pub mod metric {
    /// The last durable sequence.
    pub const DURABLE_SEQ: &str = "archive_durable_seq";
    /// Records read from the journal and not durable yet.
    pub const LAG_RECORDS: &str = "archive_lag_records";
    /// The same, bytes.
    pub const LAG_BYTES: &str = "archive_lag_bytes";
    /// Age of the oldest record that is not durable yet, ns.
    pub const LAG_NS: &str = "archive_lag_ns";
    /// Bytes written since the start.
    pub const WRITTEN: &str = "archive_written_bytes_total";
    /// Records made durable since the start.
    pub const RECORDS: &str = "archive_record_total";
    /// Files of the journal.
    pub const FILES: &str = "archive_file_count";
    /// Files removed by retention since the start.
    pub const REMOVED: &str = "archive_file_removed_total";
    /// Bytes free on the disk.
    pub const FREE: &str = "archive_free_bytes";
    /// The same as a share of the disk, ppm.
    pub const FREE_PPM: &str = "archive_free_ppm";
    /// Errors since the start.
    pub const ERRORS: &str = "archive_error_total";
    /// The state; see [`State`](super::State).
    pub const STATE: &str = "archive_state";
    /// Whether trading should pause for it: 1 or 0.
    pub const PAUSE: &str = "archive_pause_wanted";
    /// The last segment released.
    pub const RELEASED: &str = "archive_released_segment";
    /// From taking the oldest record of a block to knowing it durable, ns.
    pub const COMMIT_NS: &str = "archive_commit_ns";
}

/// What the archiver does. The numbers are part of the metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// There is no journal yet.
    #[default]
    Waiting = 0,
    /// It archives.
    Archiving = 1,
    /// The disk is full: tried again, nothing lost.
    NoSpace = 2,
    /// A write or sync failed: nothing is claimed durable any more.
    Failed = 3,
    /// The archive or the journal is damaged, or they do not fit each other: an operator decides.
    Refused = 4,
    /// It ended.
    Stopped = 5,
}

impl State {
    /// Returns the state of a metric's value.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<State> {
        use State::{Archiving, Failed, NoSpace, Refused, Stopped, Waiting};
        let all = [Waiting, Archiving, NoSpace, Failed, Refused, Stopped];
        all.into_iter().find(|state| i64::from(*state as u8) == tag)
    }

    /// Returns the state's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Archiving => "archiving",
            State::NoSpace => "no_space",
            State::Failed => "failed",
            State::Refused => "refused",
            State::Stopped => "stopped",
        }
    }
}

/// How the archive stands.
#[derive(Debug, Default)]
pub struct Status {
    state: AtomicU8,
    durable_seq: AtomicU64,
    lag_records: AtomicU64,
    lag_ns: AtomicU64,
    written_bytes: AtomicU64,
    records: AtomicU64,
    files: AtomicU64,
    removed: AtomicU64,
    free_bytes: AtomicU64,
    free_ppm: AtomicI64,
    errors: AtomicU64,
    released: AtomicU64,
    trouble: Mutex<Option<String>>,
    pause: Mutex<Option<String>>,
    low: Mutex<Option<String>>,
}

/// A copy of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusNow {
    /// What it does.
    pub state: State,
    /// The last durable sequence; 0 for none.
    pub durable_seq: u64,
    /// Records taken from the journal and not durable yet.
    pub lag_records: u64,
    /// Age of the oldest of them, ns.
    pub lag_ns: u64,
    /// Bytes written since the start.
    pub written_bytes: u64,
    /// Records made durable since the start.
    pub records: u64,
    /// Files of the journal.
    pub files: u64,
    /// Files removed since the start.
    pub removed: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// The same as a share of the disk, ppm.
    pub free_ppm: i64,
    /// Errors since the start.
    pub errors: u64,
    /// The last segment released; 0 for none.
    pub released_segment: u64,
    /// What is wrong, in words.
    pub trouble: Option<String>,
    /// Why the disk is to be looked after, in words.
    pub low: Option<String>,
    /// Why trading should pause, in words.
    pub pause_wanted: Option<String>,
}

fn text(of: &Mutex<Option<String>>) -> Option<String> {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace(of: &Mutex<Option<String>>, with: Option<String>) {
    *of.lock().unwrap_or_else(PoisonError::into_inner) = with;
}

impl Status {
    /// Returns how it stands.
    #[must_use]
    pub fn now(&self) -> StatusNow {
        // Relaxed: each figure for itself.
        let of = |word: &AtomicU64| word.load(Ordering::Relaxed);
        StatusNow {
            state: State::from_tag(self.state.load(Ordering::Relaxed).into()).unwrap_or_default(),
            durable_seq: of(&self.durable_seq),
            lag_records: of(&self.lag_records),
            lag_ns: of(&self.lag_ns),
            written_bytes: of(&self.written_bytes),
            records: of(&self.records),
            files: of(&self.files),
            removed: of(&self.removed),
            free_bytes: of(&self.free_bytes),
            free_ppm: self.free_ppm.load(Ordering::Relaxed),
            errors: of(&self.errors),
            released_segment: of(&self.released),
            trouble: text(&self.trouble),
            low: text(&self.low),
            pause_wanted: text(&self.pause),
        }
    }

    /// Takes what the thread knows.
    pub(super) fn set(&self, now: &StatusNow) {
        // Relaxed: as above.
        let to = |word: &AtomicU64, value: u64| word.store(value, Ordering::Relaxed);
        self.state.store(now.state as u8, Ordering::Relaxed);
        to(&self.durable_seq, now.durable_seq);
        to(&self.lag_records, now.lag_records);
        to(&self.lag_ns, now.lag_ns);
        to(&self.written_bytes, now.written_bytes);
        to(&self.records, now.records);
        to(&self.files, now.files);
        to(&self.removed, now.removed);
        to(&self.free_bytes, now.free_bytes);
        self.free_ppm.store(now.free_ppm, Ordering::Relaxed);
        to(&self.errors, now.errors);
        to(&self.released, now.released_segment);
        replace(&self.trouble, now.trouble.clone());
        replace(&self.low, now.low.clone());
        replace(&self.pause, now.pause_wanted.clone());
    }
}

/// The page in shared memory.
pub(super) struct Page {
    writer: StatsWriter,
    gauges: [GaugeHandle; 10],
    counters: [CounterHandle; 4],
    told: [u64; 4],
    commit_ns: tandem_shm::HistogramHandle,
}

const GAUGES: [(&str, &str); 10] = [
    (metric::DURABLE_SEQ, "record"),
    (metric::LAG_RECORDS, "record"),
    (metric::LAG_BYTES, "bytes"),
    (metric::LAG_NS, "ns"),
    (metric::FILES, "file"),
    (metric::FREE, "bytes"),
    (metric::FREE_PPM, "ppm"),
    (metric::STATE, "state"),
    (metric::PAUSE, "flag"),
    (metric::RELEASED, "segment"),
];
const COUNTERS: [(&str, &str); 4] = [
    (metric::WRITTEN, "bytes"),
    (metric::RECORDS, "record"),
    (metric::REMOVED, "file"),
    (metric::ERRORS, "count"),
];

impl Page {
    pub(super) fn create(dir: &Path) -> Result<Page, ShmError> {
        let mut metrics: Vec<Metric> =
            GAUGES.iter().map(|(name, unit)| Metric::gauge(*name, *unit)).collect();
        metrics.extend(COUNTERS.iter().map(|(name, unit)| Metric::counter(*name, *unit)));
        metrics.push(Metric::histogram(metric::COMMIT_NS, "ns"));
        let mut writer = StatsWriter::create(dir, STATS, &metrics)?;
        let declared = "a metric that was declared above";
        Ok(Page {
            gauges: GAUGES.map(|(name, _)| writer.gauge(name).expect(declared)),
            counters: COUNTERS.map(|(name, _)| writer.counter(name).expect(declared)),
            told: [0; 4],
            commit_ns: writer.histogram(metric::COMMIT_NS).expect(declared),
            writer,
        })
    }

    pub(super) fn committed(&mut self, ns: u64) {
        self.commit_ns.record(ns);
    }

    pub(super) fn set(&mut self, now: &StatusNow) {
        let values = [
            now.durable_seq as i64,
            now.lag_records as i64,
            (now.lag_records as i64).saturating_mul(tandem_shm::RECORD_BYTES as i64),
            now.lag_ns as i64,
            now.files as i64,
            now.free_bytes as i64,
            now.free_ppm,
            i64::from(now.state as u8),
            i64::from(now.pause_wanted.is_some()),
            now.released_segment as i64,
        ];
        self.gauges.iter_mut().zip(values).for_each(|(gauge, value)| gauge.set(value));
        let counts = [now.written_bytes, now.records, now.removed, now.errors];
        for ((counter, told), now) in self.counters.iter_mut().zip(&mut self.told).zip(counts) {
            counter.add(now.saturating_sub(*told));
            *told = now;
        }
        self.writer.beat(tsc());
    }

    pub(super) fn close(self) {
        self.writer.close();
    }
}
