//! Counters, gauges and histograms that another process reads while they change.
//!
//! Invariant: each metric has one writer, which is the one handle to it, and every word is written by
//! relaxed stores of that writer alone: no locked instruction, nothing to wait for. Nothing is ever
//! reset; whoever wants an interval subtracts two copies, so any number of observers do not disturb
//! each other. The page describes itself: a reader needs no list compiled in.
//!
//! A copy taken while the writer runs may miss the very last record in one word and have it in another;
//! a histogram's count is therefore the sum of its buckets, and not a word of its own.
//!
//! Page after the header: a word with the number of metrics, one 128-byte descriptor each, then values.
//! Not here: meaning of metrics, export formats.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram as HdrHistogram;

use crate::error::ShmError;
use crate::region::{
    Expect, HEADER_BYTES, Note, Producer, RegionInfo, RegionKind, RegionOwner, RegionSpec,
    RegionView, load_text, store_text,
};
use crate::sys::fnv1a;

/// Buckets of an octave: a value is known to 1/32, about 3 %.
const SUB_BUCKETS: u64 = 32;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();
/// Values from 2^40 on share the last bucket: 18 minutes in ns, 7 minutes in ticks of 2.6 GHz.
const VALUE_BITS: u32 = 40;
/// 32 exact ones below 32, then 32 for each octave from 2^5 to 2^39.
const BUCKETS: usize = (SUB_BUCKETS as usize) * (VALUE_BITS - SUB_BITS + 1) as usize;

/// Sum, greatest and least value lead the buckets of a histogram, on their own line pair.
const SUM: usize = 0;
const MAX: usize = 1;
const MIN: usize = 2;
const HISTOGRAM_HEAD_WORDS: usize = 16;
const HISTOGRAM_WORDS: usize = HISTOGRAM_HEAD_WORDS + BUCKETS;

/// Adjacent-line prefetch works on 128 bytes.
const LINE_PAIR_WORDS: usize = 16;
/// Words of the table's head, and of one descriptor.
const HEAD_WORDS: usize = 16;
const DESCRIPTOR_WORDS: usize = 16;
/// In a descriptor: ready mark, kind, offset of the value in words, then name and unit.
const READY: usize = 0;
const KIND: usize = 1;
const OFFSET: usize = 2;
const NAME: std::ops::Range<usize> = 3..11;
const UNIT: std::ops::Range<usize> = 11..14;
const READY_MARK: u64 = u64::from_le_bytes(*b"METRIC01");
const NAME_BYTES_MAX: usize = 63;
const UNIT_BYTES_MAX: usize = 23;

const SCHEMA: u64 = fnv1a(b"stats 1: descriptors of 16 words, log-linear 32 x 36");

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down; signed.
    Gauge,
    /// A distribution of values.
    Histogram,
}

impl MetricKind {
    const fn words(self) -> usize {
        match self {
            Self::Counter | Self::Gauge => 1,
            Self::Histogram => HISTOGRAM_WORDS,
        }
    }

    const fn tag(self) -> u64 {
        match self {
            Self::Counter => 1,
            Self::Gauge => 2,
            Self::Histogram => 3,
        }
    }

    fn from_tag(tag: u64) -> Option<Self> {
        [Self::Counter, Self::Gauge, Self::Histogram].into_iter().find(|kind| kind.tag() == tag)
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// A metric by name: `subject_action_unit`, and in which unit its values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// At most 63 bytes, unique in the page.
    pub name: String,
    /// `ticks`, `bytes`, `records`; at most 23 bytes.
    pub unit: String,
    /// How it behaves.
    pub kind: MetricKind,
}

impl Metric {
    /// Describes a counter.
    #[must_use]
    pub fn counter(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { name: name.into(), unit: unit.into(), kind: MetricKind::Counter }
    }

    /// Describes a gauge.
    #[must_use]
    pub fn gauge(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { name: name.into(), unit: unit.into(), kind: MetricKind::Gauge }
    }

    /// Describes a histogram.
    #[must_use]
    pub fn histogram(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { name: name.into(), unit: unit.into(), kind: MetricKind::Histogram }
    }
}

/// The page's owner: hands out each metric once.
#[derive(Debug)]
pub struct StatsWriter {
    region: Arc<RegionOwner>,
    metrics: Vec<(Metric, usize)>,
    taken: Vec<bool>,
}

/// Keeps the page mapped for as long as a handle can store to it.
#[derive(Debug)]
struct Words {
    first: *const AtomicU64,
    count: usize,
    _region: Arc<RegionOwner>,
}

// SAFETY: the pointer leads into a mapping kept by the `Arc`, which is not bound to a thread. Only the
// one handle stores there. `RegionOwner` behind the `Arc` is never touched through it but to drop.
unsafe impl Send for Words {}

impl Words {
    #[inline(always)]
    fn get(&self) -> &[AtomicU64] {
        // SAFETY: `StatsWriter::take` checked the area against the mapping, which `_region` keeps.
        unsafe { std::slice::from_raw_parts(self.first, self.count) }
    }
}

/// Adds without a locked instruction: the handle is the only writer.
#[inline(always)]
fn bump(word: &AtomicU64, by: u64) {
    // Relaxed, both: our own last store, and readers want a number, not an order.
    word.store(word.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// The one handle of a counter.
#[derive(Debug)]
pub struct CounterHandle(Words);

impl CounterHandle {
    /// Adds one.
    #[inline]
    pub fn inc(&mut self) {
        self.add(1);
    }

    /// Adds.
    #[inline]
    pub fn add(&mut self, by: u64) {
        bump(&self.0.get()[0], by);
    }
}

/// The one handle of a gauge.
#[derive(Debug)]
pub struct GaugeHandle(Words);

impl GaugeHandle {
    /// Replaces the value.
    #[inline]
    pub fn set(&mut self, value: i64) {
        // Relaxed: as in `bump`.
        self.0.get()[0].store(value.cast_unsigned(), Ordering::Relaxed);
    }

    /// Adds, or takes away.
    #[inline]
    pub fn add(&mut self, by: i64) {
        bump(&self.0.get()[0], by.cast_unsigned());
    }
}

/// The one handle of a histogram.
#[derive(Debug)]
pub struct HistogramHandle(Words);

impl HistogramHandle {
    /// Records a value; from 2^40 on they count as the greatest.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let words = self.0.get();
        bump(&words[HISTOGRAM_HEAD_WORDS + bucket_of(value)], 1);
        bump(&words[SUM], value);
        // Relaxed: as in `bump`. Stored only when it changes, which soon is rare.
        if value > words[MAX].load(Ordering::Relaxed) {
            words[MAX].store(value, Ordering::Relaxed);
        }
        if value < words[MIN].load(Ordering::Relaxed) {
            words[MIN].store(value, Ordering::Relaxed);
        }
    }
}

impl StatsWriter {
    /// Creates the page of the next epoch, all at zero.
    pub fn create(dir: &Path, name: &str, metrics: &[Metric]) -> Result<Self, ShmError> {
        let mut offset = HEAD_WORDS + metrics.len() * DESCRIPTOR_WORDS;
        let mut placed: Vec<(Metric, usize)> = Vec::with_capacity(metrics.len());
        for metric in metrics {
            check_metric(name, metric, &placed)?;
            if metric.kind == MetricKind::Histogram {
                // Starts on a line pair; counters and gauges, which one tile writes, share theirs.
                offset = offset.next_multiple_of(LINE_PAIR_WORDS);
            }
            placed.push((metric.clone(), offset));
            offset += metric.kind.words();
        }
        let words = offset;
        let spec = RegionSpec {
            name: name.to_owned(),
            kind: RegionKind::Stats,
            slot_bytes: 8,
            slot_count: words as u64,
            schema_hash: SCHEMA,
            initial_seq: 0,
            tag: 0,
            build_id: env!("CARGO_PKG_VERSION").to_owned(),
            lock_memory: true,
        };
        let region = RegionOwner::create(dir, &spec, |map| {
            describe(map.words(HEADER_BYTES, words), &placed);
        })?;
        let taken = vec![false; placed.len()];
        Ok(Self { region: Arc::new(region), metrics: placed, taken })
    }

    /// Hands out a counter. `None`: there is none of that name, or it was handed out before.
    pub fn counter(&mut self, name: &str) -> Option<CounterHandle> {
        self.take(name, MetricKind::Counter).map(CounterHandle)
    }

    /// Hands out a gauge. `None`: there is none of that name, or it was handed out before.
    pub fn gauge(&mut self, name: &str) -> Option<GaugeHandle> {
        self.take(name, MetricKind::Gauge).map(GaugeHandle)
    }

    /// Hands out a histogram. `None`: there is none of that name, or it was handed out before.
    pub fn histogram(&mut self, name: &str) -> Option<HistogramHandle> {
        self.take(name, MetricKind::Histogram).map(HistogramHandle)
    }

    fn take(&mut self, name: &str, kind: MetricKind) -> Option<Words> {
        let at = self
            .metrics
            .iter()
            .position(|(metric, _)| metric.name == name && metric.kind == kind)?;
        if std::mem::replace(&mut self.taken[at], true) {
            return None;
        }
        let (offset, count) = (self.metrics[at].1, kind.words());
        let words = self.region.mapping().words(HEADER_BYTES + offset * 8, count);
        Some(Words { first: words.as_ptr(), count, _region: Arc::clone(&self.region) })
    }

    /// Tells readers that we live.
    pub fn beat(&mut self, tsc: u64) {
        self.region.stamp(tsc, 0);
    }

    /// Says goodbye. Handles that are still out keep the page mapped, and store to nobody.
    pub fn close(self) {
        self.region.close(0);
    }

    /// Returns the epoch of this page.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.region.epoch()
    }

    /// Returns what could not be done at creation, for the log.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        self.region.notes()
    }
}

/// Writes table and initial values, before anybody can see them.
fn describe(words: &[AtomicU64], placed: &[(Metric, usize)]) {
    // Relaxed throughout: published by the magic.
    let order = Ordering::Relaxed;
    words[0].store(placed.len() as u64, order);
    for (at, (metric, offset)) in placed.iter().enumerate() {
        let descriptor = &words[HEAD_WORDS + at * DESCRIPTOR_WORDS..][..DESCRIPTOR_WORDS];
        descriptor[KIND].store(metric.kind.tag(), order);
        descriptor[OFFSET].store(*offset as u64, order);
        store_text(&descriptor[NAME], &metric.name);
        store_text(&descriptor[UNIT], &metric.unit);
        if metric.kind == MetricKind::Histogram {
            words[offset + MIN].store(u64::MAX, order);
        }
        descriptor[READY].store(READY_MARK, order);
    }
}

fn check_metric(page: &str, metric: &Metric, before: &[(Metric, usize)]) -> Result<(), ShmError> {
    let name_error = |why| ShmError::Name { name: format!("{page}: {}", metric.name), why };
    if metric.name.is_empty() || metric.name.len() > NAME_BYTES_MAX || metric.name.contains('\0') {
        return Err(name_error("a metric's name must have 1 to 63 bytes"));
    }
    if metric.unit.len() > UNIT_BYTES_MAX || metric.unit.contains('\0') {
        return Err(name_error("a metric's unit must have at most 23 bytes"));
    }
    if before.iter().any(|(other, _)| other.name == metric.name) {
        return Err(name_error("a metric's name must be unique in its page"));
    }
    Ok(())
}

/// A reader of any stats page.
#[derive(Debug)]
pub struct StatsReader {
    view: RegionView,
    metrics: Vec<(Metric, usize)>,
}

impl StatsReader {
    /// Attaches, waiting for a producer that starts, and reads the table.
    pub fn open(dir: &Path, name: &str, timeout: Duration) -> Result<Self, ShmError> {
        let expect = Expect {
            kind: RegionKind::Stats,
            schema_hash: Some(SCHEMA),
            slot_bytes: Some(8),
            power_of_two: false,
        };
        Self::attach(RegionView::open(dir, name, expect, timeout)?)
    }

    fn attach(view: RegionView) -> Result<Self, ShmError> {
        let metrics = read_table(&view)?;
        Ok(Self { view, metrics })
    }

    /// Returns all metrics of the page, in its order.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &Metric> {
        self.metrics.iter().map(|(metric, _)| metric)
    }

    /// Copies all values.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let values = self
            .metrics
            .iter()
            .map(|(metric, offset)| {
                let words =
                    self.view.mapping().words(HEADER_BYTES + offset * 8, metric.kind.words());
                (metric.clone(), copy_value(metric.kind, words))
            })
            .collect();
        Snapshot { epoch: self.view.epoch(), values }
    }

    /// Moves to the page of the next epoch if there is one. Its counters start at zero.
    pub fn reattach(&mut self) -> Result<bool, ShmError> {
        let Some(view) = self.view.reopen()? else { return Ok(false) };
        *self = Self::attach(view)?;
        Ok(true)
    }

    /// Returns what the header says: name, process, build.
    #[must_use]
    pub fn info(&self) -> RegionInfo {
        self.view.info()
    }

    /// Judges the producer.
    #[must_use]
    pub fn producer(&self, now_tsc: u64, ticks_per_ms: u64) -> Producer {
        self.view.producer(now_tsc, ticks_per_ms)
    }
}

/// Reads the table, believing no number of it before checking it against the page.
fn read_table(view: &RegionView) -> Result<Vec<(Metric, usize)>, ShmError> {
    let count = usize::try_from(view.slot_count()).unwrap_or(0);
    let words = view.mapping().words(HEADER_BYTES, count);
    let damaged = |what, found, expected| ShmError::Geometry {
        path: view.path().to_owned(),
        what,
        found,
        expected,
    };
    // Relaxed throughout: the table was complete before the magic.
    let order = Ordering::Relaxed;
    let listed = words.first().map_or(0, |word| word.load(order));
    let room = (count.saturating_sub(HEAD_WORDS) / DESCRIPTOR_WORDS) as u64;
    if listed > room {
        return Err(damaged("number of metrics", listed, room));
    }
    (0..listed as usize)
        .map(|at| {
            let descriptor = &words[HEAD_WORDS + at * DESCRIPTOR_WORDS..][..DESCRIPTOR_WORDS];
            let ready = descriptor[READY].load(order);
            if ready != READY_MARK {
                return Err(damaged("metric's ready mark", ready, READY_MARK));
            }
            let tag = descriptor[KIND].load(order);
            let Some(kind) = MetricKind::from_tag(tag) else {
                return Err(damaged("metric's kind", tag, MetricKind::Histogram.tag()));
            };
            let offset = descriptor[OFFSET].load(order);
            let last = (count as u64).saturating_sub(kind.words() as u64);
            if offset > last {
                return Err(damaged("metric's offset", offset, last));
            }
            let name = load_text(&descriptor[NAME]);
            let unit = load_text(&descriptor[UNIT]);
            Ok((Metric { name, unit, kind }, offset as usize))
        })
        .collect()
}

fn copy_value(kind: MetricKind, words: &[AtomicU64]) -> MetricValue {
    // Relaxed: single words that only grow; see the module's invariant.
    let load = |at: usize| words[at].load(Ordering::Relaxed);
    match kind {
        MetricKind::Counter => MetricValue::Counter(load(0)),
        MetricKind::Gauge => MetricValue::Gauge(load(0).cast_signed()),
        MetricKind::Histogram => MetricValue::Histogram(HistogramSnapshot {
            buckets: (0..BUCKETS).map(|at| load(HISTOGRAM_HEAD_WORDS + at)).collect(),
            sum: load(SUM),
            max: load(MAX),
            min: load(MIN),
        }),
    }
}

/// A copy of all values of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    epoch: u64,
    values: Vec<(Metric, MetricValue)>,
}

impl Snapshot {
    /// Returns what happened since an earlier copy. After a restart of the producer that is everything
    /// it has counted since.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if self.epoch != earlier.epoch {
            return self.clone();
        }
        let values = self
            .values
            .iter()
            .map(|(metric, value)| {
                let value = match earlier.get(&metric.name) {
                    Some(before) => value.since(before),
                    None => value.clone(),
                };
                (metric.clone(), value)
            })
            .collect();
        Self { epoch: self.epoch, values }
    }

    /// Returns a value by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MetricValue> {
        self.values.iter().find(|(metric, _)| metric.name == name).map(|(_, value)| value)
    }

    /// Returns a counter by name.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            MetricValue::Counter(count) => Some(*count),
            _ => None,
        }
    }

    /// Returns a gauge by name.
    #[must_use]
    pub fn gauge(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            MetricValue::Gauge(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns a histogram by name.
    #[must_use]
    pub fn histogram(&self, name: &str) -> Option<&HistogramSnapshot> {
        match self.get(name)? {
            MetricValue::Histogram(histogram) => Some(histogram),
            _ => None,
        }
    }

    /// Returns all metrics with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&Metric, &MetricValue)> {
        self.values.iter().map(|(metric, value)| (metric, value))
    }

    /// Returns the epoch of the page it was taken from.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricValue {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(HistogramSnapshot),
}

impl MetricValue {
    fn since(&self, before: &Self) -> Self {
        match (self, before) {
            (Self::Counter(now), Self::Counter(before)) => Self::Counter(now.wrapping_sub(*before)),
            (Self::Histogram(now), Self::Histogram(before)) => Self::Histogram(now.since(before)),
            // A gauge is what it is now.
            _ => self.clone(),
        }
    }
}

/// A copy of a histogram, or of an interval of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Vec<u64>,
    sum: u64,
    max: u64,
    min: u64,
}

impl HistogramSnapshot {
    /// Returns how many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |count, &bucket| count.wrapping_add(bucket))
    }

    /// Returns the buckets that hold something: least value, greatest value, how many. The last one of
    /// all also holds what is greater.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let held = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        held.map(|(at, &count)| (lowest_of(at), highest_of(at), count))
    }

    /// Returns the sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the greatest value; of an interval, to the precision of a bucket.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        let last = self.buckets.iter().rposition(|&count| count > 0)?;
        // A record may be in its bucket and not yet in `max`.
        Some(if last + 1 == BUCKETS {
            self.max
        } else {
            self.max.clamp(lowest_of(last), highest_of(last))
        })
    }

    /// Returns the least value; of an interval, to the precision of a bucket.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        let first = self.buckets.iter().position(|&count| count > 0)?;
        Some(self.min.clamp(lowest_of(first), highest_of(first)))
    }

    /// Returns the value that `percent` of all values do not exceed, rounded up to its bucket's end.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<u64> {
        let (count, max) = (self.count(), self.max()?);
        let rank = (percent.clamp(0.0, 100.0) / 100.0 * count as f64).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        for (at, &in_bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(in_bucket);
            if seen >= rank {
                return Some(highest_of(at).min(max));
            }
        }
        Some(max)
    }

    /// Returns what was recorded since an earlier copy of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let buckets = self
            .buckets
            .iter()
            .zip(&before.buckets)
            .map(|(now, before)| now.wrapping_sub(*before))
            .collect();
        // `max` and `min` of the interval are not known better than by bucket; the accessors clamp.
        Self { buckets, sum: self.sum.wrapping_sub(before.sum), max: self.max, min: self.min }
    }

    /// Returns the same distribution for percentiles at any precision, merging and export.
    #[must_use]
    pub fn to_hdr(&self) -> HdrHistogram<u64> {
        let mut hdr = HdrHistogram::new_with_bounds(1, 1 << (VALUE_BITS + 1), 3)
            .expect("the bounds and precision are valid");
        for (at, &count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let middle = lowest_of(at) + (highest_of(at) - lowest_of(at)) / 2;
            hdr.saturating_record_n(middle, count);
        }
        hdr
    }
}

/// Returns the bucket of a value: itself below 32, then its octave and the five bits after the first.
#[inline(always)]
fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    // Below 64 the first shift is zero: two octaves of exact buckets, one formula.
    let octave =
        (u64::BITS - (value | (SUB_BUCKETS - 1)).leading_zeros()).saturating_sub(SUB_BITS + 1);
    if value < SUB_BUCKETS {
        value as usize
    } else {
        (u64::from(octave) * SUB_BUCKETS + (value >> octave)) as usize
    }
}

/// Returns the least value of a bucket.
fn lowest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB_BUCKETS {
        return bucket;
    }
    let octave = bucket / SUB_BUCKETS - 1;
    (SUB_BUCKETS + bucket % SUB_BUCKETS) << octave
}

/// Returns the greatest value of a bucket.
fn highest_of(bucket: usize) -> u64 {
    lowest_of(bucket + 1) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_join_without_gap_or_overlap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(lowest_of(bucket)), bucket, "lowest of {bucket}");
            assert_eq!(bucket_of(highest_of(bucket)), bucket, "highest of {bucket}");
        }
        assert_eq!(highest_of(BUCKETS - 1), (1 << VALUE_BITS) - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1, "saturates");
        assert_eq!(bucket_of(0), 0);
    }

    proptest! {
        #[test]
        fn a_bucket_knows_its_values_to_three_percent(value in 0_u64..1 << VALUE_BITS) {
            let bucket = bucket_of(value);
            prop_assert!((lowest_of(bucket)..=highest_of(bucket)).contains(&value));
            prop_assert!((highest_of(bucket) - lowest_of(bucket)) * SUB_BUCKETS <= lowest_of(bucket));
        }

        #[test]
        fn buckets_grow_with_values(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(bucket_of(a.min(b)) <= bucket_of(a.max(b)));
        }
    }
}
