//! How every sink of the drain is doing: one small page of words for each, read by metrics, dashboard, `top`.
//!
//! Invariant: telling costs a few relaxed stores and never waits. A sink writes its own page alone; every
//! word stands for itself, so a reader may see one sink's figures of two adjacent moments, never half a word.
//!
//! Not here: what the figures are judged by (`alerts`, `deploy/prometheus`).

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most sinks in one registry: a name becomes a label of several series.
pub const SINKS_MAX: usize = 16;
/// Upper bounds of the buckets of a write's duration, ns: 100 us to 100 s.
pub const WRITE_BUCKETS_NS: [u64; 13] = [
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    100_000_000,
    300_000_000,
    1_000_000_000,
    3_000_000_000,
    10_000_000_000,
    30_000_000_000,
    100_000_000_000,
];

/// One sink's page. The sink keeps an [`Arc`] of it and stores as it goes.
#[derive(Debug)]
pub struct SinkStatus {
    name: &'static str,
    up: AtomicBool,
    lag_records: AtomicU64,
    lag_bytes: AtomicU64,
    lag_ns: AtomicI64,
    backlog_rows: AtomicU64,
    written_rows: AtomicU64,
    conflated: AtomicU64,
    last_ok_ns: AtomicI64,
    errors: AtomicU64,
    dead_letters: AtomicU64,
    writes: [AtomicU64; WRITE_BUCKETS_NS.len() + 1],
    writes_sum_ns: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// What a sink's page says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkLook {
    /// Its name, e.g. `postgres`.
    pub name: &'static str,
    /// The last thing it did with its other side succeeded.
    pub up: bool,
    /// Records of the journal that are written and that it has not made durable yet.
    pub lag_records: u64,
    /// The same in bytes.
    pub lag_bytes: u64,
    /// Age of the oldest of them, ns; 0 where that is not known.
    pub lag_ns: i64,
    /// Rows (or messages) that it holds and has not handed over yet.
    pub backlog_rows: u64,
    /// Rows (or messages) that it has handed over since it started.
    pub written_rows: u64,
    /// Values that a newer one replaced before they were sent, where that is its way (Redis).
    pub conflated: u64,
    /// When it last succeeded, UNIX ns; 0 never.
    pub last_ok_ns: i64,
    /// Failures since it started.
    pub errors: u64,
    /// Rows that its other side refuses for good and that were put aside.
    pub dead_letters: u64,
    /// Writes by duration: the count of each bucket of [`WRITE_BUCKETS_NS`], then those above.
    pub writes: [u64; WRITE_BUCKETS_NS.len() + 1],
    /// Duration of all writes, ns.
    pub writes_sum_ns: u64,
    /// What is wrong now, in words without secrets.
    pub trouble: Option<String>,
}

impl SinkStatus {
    fn new(name: &'static str) -> SinkStatus {
        SinkStatus {
            name,
            up: AtomicBool::new(false),
            lag_records: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            lag_ns: AtomicI64::new(0),
            backlog_rows: AtomicU64::new(0),
            written_rows: AtomicU64::new(0),
            conflated: AtomicU64::new(0),
            last_ok_ns: AtomicI64::new(0),
            errors: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            writes: [const { AtomicU64::new(0) }; WRITE_BUCKETS_NS.len() + 1],
            writes_sum_ns: AtomicU64::new(0),
            trouble: Mutex::new(None),
        }
    }

    /// Tells how far it is behind the journal: records, and their bytes.
    pub fn lag(&self, records: u64, bytes: u64) {
        self.lag_records.store(records, Relaxed);
        self.lag_bytes.store(bytes, Relaxed);
    }

    /// Tells how old the oldest record is that it has not made durable, ns.
    pub fn behind(&self, ns: i64) {
        self.lag_ns.store(ns, Relaxed);
    }

    /// Tells how many rows it holds that are not handed over.
    pub fn backlog(&self, rows: u64) {
        self.backlog_rows.store(rows, Relaxed);
    }

    /// Counts values that a newer one replaced before they were sent.
    pub fn conflated(&self, values: u64) {
        self.conflated.fetch_add(values, Relaxed);
    }

    /// Counts rows that were put aside for good.
    pub fn dead_letters(&self, rows: u64) {
        self.dead_letters.fetch_add(rows, Relaxed);
    }

    /// Tells that a write of `rows` rows succeeded now (UNIX ns) and how long it took.
    pub fn wrote(&self, rows: u64, took: Duration, now_ns: i64) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.writes[WRITE_BUCKETS_NS.partition_point(|bound| *bound < took_ns)]
            .fetch_add(1, Relaxed);
        self.writes_sum_ns.fetch_add(took_ns, Relaxed);
        self.written_rows.fetch_add(rows, Relaxed);
        self.alive(now_ns);
    }

    /// Tells that its other side answers, where nothing was to write.
    pub fn alive(&self, now_ns: i64) {
        self.last_ok_ns.store(now_ns, Relaxed);
        // The lock is for who looks; only the first success after a failure takes it.
        if !self.up.swap(true, Relaxed) {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Tells that something failed, in words without secrets, and whether its other side is gone.
    pub fn failed(&self, why: &str, is_gone: bool) {
        self.errors.fetch_add(1, Relaxed);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        if is_gone {
            self.up.store(false, Relaxed);
        }
    }

    /// Reads it.
    #[must_use]
    pub fn look(&self) -> SinkLook {
        SinkLook {
            name: self.name,
            up: self.up.load(Relaxed),
            lag_records: self.lag_records.load(Relaxed),
            lag_bytes: self.lag_bytes.load(Relaxed),
            lag_ns: self.lag_ns.load(Relaxed),
            backlog_rows: self.backlog_rows.load(Relaxed),
            written_rows: self.written_rows.load(Relaxed),
            conflated: self.conflated.load(Relaxed),
            last_ok_ns: self.last_ok_ns.load(Relaxed),
            errors: self.errors.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            writes: std::array::from_fn(|idx| self.writes[idx].load(Relaxed)),
            writes_sum_ns: self.writes_sum_ns.load(Relaxed),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The pages of all sinks. Cloning gives another hand on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    sinks: Arc<Mutex<Vec<Arc<SinkStatus>>>>,
}

impl Registry {
    /// Gives a sink its page: a new one, or the one of that name.
    ///
    /// # Panics
    ///
    /// With more than [`SINKS_MAX`] names: sinks are made at start, so that is our own mistake.
    #[must_use]
    pub fn register(&self, name: &'static str) -> Arc<SinkStatus> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = sinks.iter().find(|sink| sink.name == name) {
            return found.clone();
        }
        assert!(sinks.len() < SINKS_MAX, "more than {SINKS_MAX} sinks");
        sinks.push(Arc::new(SinkStatus::new(name)));
        sinks[sinks.len() - 1].clone()
    }

    /// Reads every page, in the order of registration.
    #[must_use]
    pub fn look(&self) -> Vec<SinkLook> {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sinks.iter().map(|sink| sink.look()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_was_told() {
        let registry = Registry::default();
        let sink = registry.register("postgres");
        sink.failed("connection refused", true);
        sink.lag(10, 1_280);
        let down = registry.look().remove(0);
        assert_eq!((down.up, down.errors, down.lag_bytes), (false, 1, 1_280));
        assert_eq!(down.trouble.as_deref(), Some("connection refused"));

        sink.wrote(7, Duration::from_micros(100), 5);
        sink.wrote(7, Duration::from_secs(1_000), 6);
        let up = registry.look().remove(0);
        assert_eq!((up.up, up.written_rows, up.last_ok_ns), (true, 14, 6));
        assert_eq!(up.trouble, None);
        assert_eq!((up.writes[0], up.writes[WRITE_BUCKETS_NS.len()]), (1, 1));
    }

    #[test]
    fn one_name_is_one_page() {
        let registry = Registry::default();
        registry.register("redis").conflated(3);
        registry.register("redis").conflated(4);
        assert_eq!(registry.look().len(), 1);
        assert_eq!(registry.look()[0].conflated, 7);
    }
}
