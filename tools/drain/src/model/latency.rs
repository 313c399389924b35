//! Percentiles of every stage over time, from the histograms that the processes keep in shared memory.
//!
//! Invariant: the histograms are never reset; an interval is the difference of two readings. A process that
//! was started again begins at zero, and its first interval is what it has.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tandem_shm::{Snapshot, StatsReader};

use crate::plan::Plan;

/// Length of an interval.
const EVERY_NS: i64 = 2_000_000_000;
/// Intervals that are kept: an hour.
const INTERVALS_MAX: usize = 1_800;

/// Percentiles of one interval, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Interval {
    pub at_us: i64,
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Whose: `engine`, `feed kraken`.
    pub process: String,
    /// Name of the figure.
    pub stage: String,
    /// Since the process started, at the last look.
    pub whole: Option<Interval>,
    /// Over time, the oldest first.
    pub intervals: VecDeque<Interval>,
}

struct Page {
    name: String,
    process: String,
    reader: Option<StatsReader>,
    before: Option<Snapshot>,
}

/// Every stage of a run.
pub struct Latency {
    dir: PathBuf,
    pages: Vec<Page>,
    stages: Vec<Stage>,
    last_ns: i64,
}

impl Latency {
    /// Returns no stages yet; they come as the processes do.
    #[must_use]
    pub fn new(plan: &Plan) -> Latency {
        let page =
            |name: String, process: String| Page { name, process, reader: None, before: None };
        let mut pages = vec![page(plan.names.engine_stats.clone(), "engine".to_owned())];
        for venue in &plan.venues {
            let name = venue.name();
            pages.push(page(tandem_feeds::tile::stats_name(name), format!("feed {name}")));
            if plan.is_live {
                let stats = tandem_gateway::tile::stats_name(*venue);
                pages.push(page(stats, format!("gateway {name}")));
            }
        }
        Latency { dir: plan.dir.clone(), pages, stages: Vec::new(), last_ns: 0 }
    }

    /// Takes an interval when it is over.
    pub fn look(&mut self, now_ns: i64) {
        if now_ns - self.last_ns < EVERY_NS {
            return;
        }
        self.last_ns = now_ns;
        for page in &mut self.pages {
            match &mut page.reader {
                Some(reader) => {
                    if matches!(reader.reattach(), Ok(true)) {
                        page.before = None;
                    }
                }
                none => *none = StatsReader::open(&self.dir, &page.name, Duration::ZERO).ok(),
            }
            let Some(reader) = &page.reader else { continue };
            let now = reader.snapshot();
            let interval = page.before.as_ref().map(|before| now.since(before));
            for (metric, _) in now.iter() {
                let Some(whole) = now.histogram(&metric.name) else { continue };
                let known = self
                    .stages
                    .iter_mut()
                    .find(|stage| stage.process == page.process && stage.stage == metric.name);
                let stage = match known {
                    Some(stage) => stage,
                    None => {
                        self.stages.push(Stage {
                            process: page.process.clone(),
                            stage: metric.name.clone(),
                            whole: None,
                            intervals: VecDeque::new(),
                        });
                        self.stages.last_mut().expect("pushed just now")
                    }
                };
                stage.whole = percentiles(whole, now_ns);
                let of_interval = match &interval {
                    Some(interval) => interval.histogram(&metric.name),
                    None => Some(whole),
                };
                if let Some(found) = of_interval.and_then(|found| percentiles(found, now_ns)) {
                    stage.intervals.push_back(found);
                    if INTERVALS_MAX < stage.intervals.len() {
                        stage.intervals.pop_front();
                    }
                }
            }
            page.before = Some(now);
        }
    }

    /// Returns a gauge of a process as it was at the last interval, e.g. of `engine`.
    #[must_use]
    pub fn gauge(&self, process: &str, name: &str) -> Option<i64> {
        let page = self.pages.iter().find(|page| page.process == process)?;
        page.before.as_ref()?.gauge(name)
    }

    /// Returns every stage.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

fn percentiles(of: &tandem_shm::HistogramSnapshot, now_ns: i64) -> Option<Interval> {
    let at = |percent| of.percentile(percent);
    Some(Interval {
        at_us: now_ns / 1_000,
        count: of.count(),
        p50: at(50.0)?,
        p99: at(99.0)?,
        p999: at(99.9)?,
        max: of.max()?,
    })
}
