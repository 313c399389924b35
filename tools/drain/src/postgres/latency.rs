//! Latency by stage and interval, out of shared memory.
//!
//! Invariant: looking costs a copy of the histograms, every few seconds, and waits for nobody. An interval is what
//! was counted between two looks of this process; it is no record of the journal, so it is named by process,
//! stage and beginning, and written with the next batch. While the database is away intervals wait in a bounded
//! queue; what does not fit drops the oldest, counted. A drain that is killed loses those that wait.
//!
//! Not here: histograms (`tandem-shm`), percentiles for people (`tandem latency`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tandem_shm::{HistogramSnapshot, MetricValue, Snapshot, StatsReader};

use crate::plan::Plan;
use crate::rows::{Row, Table, Value};

/// Intervals that wait: an hour of a run of eight processes with six stages, every ten seconds.
const WAITING_MAX: usize = 20_000;
/// Intervals of one batch.
const TAKEN_MAX: usize = 2_000;

/// Rows that wait for the next batch.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Mutex<(VecDeque<Row>, u64)>>);

impl Queue {
    fn with<T>(&self, work: impl FnOnce(&mut (VecDeque<Row>, u64)) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, row: Row) {
        self.with(|(rows, dropped)| {
            if WAITING_MAX <= rows.len() {
                rows.pop_front();
                *dropped += 1;
            }
            rows.push_back(row);
        });
    }

    /// Returns how many rows wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.with(|(rows, _)| rows.len())
    }

    /// Returns whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what the next batch may carry.
    #[must_use]
    pub fn take(&self) -> Vec<Row> {
        self.with(|(rows, _)| {
            let count = rows.len().min(TAKEN_MAX);
            rows.drain(..count).collect()
        })
    }

    /// Puts back what was not written.
    pub fn put_back(&self, taken: Vec<Row>) {
        self.with(|(rows, dropped)| {
            for row in taken.into_iter().rev() {
                if WAITING_MAX <= rows.len() {
                    *dropped += 1;
                } else {
                    rows.push_front(row);
                }
            }
        });
    }

    fn dropped(&self) -> u64 {
        self.with(|(_, dropped)| *dropped)
    }
}

#[derive(Debug)]
struct Process {
    name: String,
    reader: Option<StatsReader>,
    before: Option<Snapshot>,
}

/// Looks at the histograms of a run.
#[derive(Debug)]
pub struct Latency {
    dir: PathBuf,
    every_ns: i64,
    processes: Vec<Process>,
    queue: Queue,
    last_ns: i64,
}

impl Latency {
    /// Looks at every process of a plan, at this interval.
    #[must_use]
    pub fn new(plan: &Plan, every: Duration) -> Latency {
        let mut names = vec![plan.names.engine_stats.clone(), plan.names.warden_stats.clone()];
        for venue in &plan.venues {
            names.push(tandem_gateway::tile::stats_name(*venue));
            names.push(tandem_feeds::tile::stats_name(venue.name()));
        }
        let process = |name| Process { name, reader: None, before: None };
        Latency {
            dir: plan.dir.clone(),
            every_ns: i64::try_from(every.as_nanos()).unwrap_or(i64::MAX),
            processes: names.into_iter().map(process).collect(),
            queue: Queue::default(),
            last_ns: 0,
        }
    }

    /// Returns where the rows wait.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Returns how many intervals found no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Looks around, if it is time.
    pub fn look(&mut self, now_ns: i64) {
        if now_ns < self.last_ns.saturating_add(self.every_ns) {
            return;
        }
        let began_ns = std::mem::replace(&mut self.last_ns, now_ns);
        for process in &mut self.processes {
            match &mut process.reader {
                Some(reader) => drop(reader.reattach()),
                none => *none = StatsReader::open(&self.dir, &process.name, Duration::ZERO).ok(),
            }
            let Some(reader) = &process.reader else { continue };
            let now = reader.snapshot();
            let before = process.before.replace(now.clone());
            // Of another process of that name, or before the first look, there is no interval.
            let Some(before) = before.filter(|before| before.epoch() == now.epoch()) else {
                continue;
            };
            for (metric, value) in now.since(&before).iter() {
                let MetricValue::Histogram(found) = value else { continue };
                let of = (process.name.as_str(), metric.name.as_str(), metric.unit.as_str());
                if let Some(row) = row(of, now.epoch(), (began_ns, now_ns), found) {
                    self.queue.push(row);
                }
            }
        }
    }
}

/// Returns the row of an interval; nothing where nothing was counted.
fn row(
    (process, stage, unit): (&str, &str, &str),
    generation: u64,
    (began_ns, ended_ns): (i64, i64),
    found: &HistogramSnapshot,
) -> Option<Row> {
    let int8 = |number: u64| Value::Int8(i64::try_from(number).unwrap_or(i64::MAX));
    let at = |percent: f64| int8(found.percentile(percent).unwrap_or(0));
    (found.count() != 0).then(|| Row {
        table: Table::LatencyIntervals,
        seq: 0,
        values: vec![
            Value::text(process),
            int8(generation),
            Value::text(stage),
            Value::Time(began_ns),
            Value::Time(ended_ns),
            Value::text(unit),
            int8(found.count()),
            Value::whole(found.sum()),
            at(50.0),
            at(99.0),
            at(99.9),
            int8(found.max().unwrap_or(0)),
        ],
    })
}
