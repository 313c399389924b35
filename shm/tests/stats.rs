//! The stats page through its public face, and read live from another process.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::time::{Duration, Instant};

use common::{TestDir, child_role, spawn_child};
use proptest::prelude::*;
use tandem_shm::{Metric, MetricKind, StatsReader, StatsWriter};

fn metrics() -> Vec<Metric> {
    vec![
        Metric::counter("feed_frame_rx_total", "frames"),
        Metric::gauge("inventory_units", "units"),
        Metric::histogram("tick_to_trade", "ticks"),
        Metric::histogram("hop", "ticks"),
        Metric::counter("feed_byte_rx_total", "bytes"),
    ]
}

fn reader(dir: &TestDir) -> StatsReader {
    StatsReader::open(dir, "stats", Duration::ZERO).unwrap()
}

#[test]
fn a_page_describes_itself() {
    let dir = TestDir::new("describe");
    let _writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let reader = reader(&dir);
    assert_eq!(reader.metrics().cloned().collect::<Vec<_>>(), metrics());
    assert_eq!(reader.metrics().filter(|metric| metric.kind == MetricKind::Histogram).count(), 2);
    let snapshot = reader.snapshot();
    assert_eq!(snapshot.counter("feed_frame_rx_total"), Some(0));
    assert_eq!(snapshot.counter("inventory_units"), None, "a gauge is no counter");
    assert_eq!(snapshot.histogram("hop").unwrap().max(), None);
    assert_eq!(snapshot.histogram("hop").unwrap().percentile(50.0), None);
}

#[test]
fn handles_are_handed_out_once_and_outlive_the_writer() {
    let dir = TestDir::new("handles");
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let mut frames = writer.counter("feed_frame_rx_total").unwrap();
    let mut units = writer.gauge("inventory_units").unwrap();
    assert!(writer.counter("feed_frame_rx_total").is_none(), "one writer a metric");
    assert!(writer.gauge("feed_byte_rx_total").is_none(), "it is a counter");
    assert!(writer.counter("no_such").is_none());
    let reader = reader(&dir);
    frames.inc();
    frames.add(41);
    units.set(-7);
    units.add(-3);
    let before = reader.snapshot();
    assert_eq!(
        (before.counter("feed_frame_rx_total"), before.gauge("inventory_units")),
        (Some(42), Some(-10))
    );
    drop(writer);
    frames.add(8);
    units.add(1);
    let interval = reader.snapshot().since(&before);
    assert_eq!(interval.counter("feed_frame_rx_total"), Some(8));
    assert_eq!(interval.gauge("inventory_units"), Some(-9), "a gauge is what it is now");
}

#[test]
fn an_interval_is_a_difference_and_disturbs_nobody() {
    let dir = TestDir::new("interval");
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let mut hop = writer.histogram("hop").unwrap();
    let reader = reader(&dir);
    for value in [10, 20, 1_000_000] {
        hop.record(value);
    }
    let first = reader.snapshot();
    for value in 100..200 {
        hop.record(value);
    }
    let second = reader.snapshot();
    let interval = second.since(&first);
    let interval = interval.histogram("hop").unwrap();
    assert_eq!((interval.count(), interval.sum()), (100, (100..200).sum()));
    assert_eq!((interval.min(), interval.max()), (Some(100), Some(199)));
    let whole = second.histogram("hop").unwrap();
    assert_eq!((whole.count(), whole.min(), whole.max()), (103, Some(10), Some(1_000_000)));
    let p50 = interval.percentile(50.0).unwrap();
    assert!((149..=155).contains(&p50), "{p50}");
    assert_eq!(whole.percentile(100.0), Some(1_000_000));
}

#[test]
fn values_beyond_the_range_count_as_the_greatest() {
    let dir = TestDir::new("saturate");
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let mut hop = writer.histogram("hop").unwrap();
    hop.record(u64::MAX);
    hop.record(0);
    let snapshot = reader(&dir).snapshot();
    let histogram = snapshot.histogram("hop").unwrap();
    assert_eq!((histogram.count(), histogram.min(), histogram.max()), (2, Some(0), Some(u64::MAX)));
    assert_eq!(histogram.to_hdr().len(), 2);
}

#[test]
fn a_restart_counts_from_zero_and_an_interval_over_it_is_not_negative() {
    let dir = TestDir::new("restart");
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let mut frames = writer.counter("feed_frame_rx_total").unwrap();
    frames.add(100);
    let mut reader = reader(&dir);
    let before = reader.snapshot();
    assert!(!reader.reattach().unwrap());
    // The handle keeps the page mapped, and the lock with it.
    drop((writer, frames));
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    writer.counter("feed_frame_rx_total").unwrap().add(3);
    assert!(reader.reattach().unwrap());
    assert_eq!(reader.snapshot().since(&before).counter("feed_frame_rx_total"), Some(3));
    assert_eq!(reader.snapshot().epoch(), 2);
}

#[test]
fn impossible_metrics_are_refused() {
    let dir = TestDir::new("refused");
    for (bad, part) in [
        (vec![Metric::counter("a", "x"), Metric::gauge("a", "y")], "unique"),
        (vec![Metric::counter("", "x")], "1 to 63"),
        (vec![Metric::counter("n".repeat(64), "x")], "1 to 63"),
        (vec![Metric::counter("n", "u".repeat(24))], "at most 23"),
    ] {
        let text = StatsWriter::create(&dir, "stats", &bad).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

/// Counts to the argument, as fast as it can, and stays until it is killed.
#[test]
#[ignore = "a child process"]
fn child_stats() {
    let Some((dir, arguments)) = child_role() else { return };
    let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
    let mut frames = writer.counter("feed_frame_rx_total").unwrap();
    let mut hop = writer.histogram("hop").unwrap();
    for value in 1..=arguments[0] {
        hop.record(value % 5_000);
        frames.inc();
    }
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn another_process_is_read_while_it_counts() {
    const COUNT: u64 = 3_000_000;
    let dir = TestDir::new("live");
    let mut child = spawn_child("child_stats", &dir, &COUNT.to_string());
    let reader = StatsReader::open(&dir, "stats", Duration::from_secs(20)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut last, mut summed, mut copies) = (reader.snapshot(), 0, 0);
    summed += last.histogram("hop").unwrap().count();
    loop {
        assert!(Instant::now() < deadline);
        let now = reader.snapshot();
        copies += 1;
        // Intervals add up to the whole, and nothing shrinks.
        let interval = now.since(&last);
        summed += interval.histogram("hop").unwrap().count();
        let histogram = now.histogram("hop").unwrap();
        assert_eq!(summed, histogram.count());
        assert!(now.counter("feed_frame_rx_total") >= last.counter("feed_frame_rx_total"));
        assert!(histogram.max().unwrap_or(0) < 5_000);
        last = now;
        if last.counter("feed_frame_rx_total") == Some(COUNT) {
            break;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // A dead process's page still reads.
    let last = reader.snapshot();
    let histogram = last.histogram("hop").unwrap();
    assert_eq!(histogram.count(), COUNT);
    assert_eq!((histogram.min(), histogram.max()), (Some(0), Some(4_999)));
    assert!(copies > 1, "read while it counted");
    println!("{copies} copies");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Percentiles are those of the sorted values, to 1/32; and so they stay in `hdrhistogram`.
    #[test]
    fn percentiles_are_right_to_three_percent(
        values in proptest::collection::vec(
            prop_oneof![0_u64..100, 0_u64..100_000, 0_u64..1 << 39], 1..300),
        percent in 0.0_f64..100.0,
    ) {
        let dir = TestDir::new("percentile");
        let mut writer = StatsWriter::create(&dir, "stats", &metrics()).unwrap();
        let mut hop = writer.histogram("hop").unwrap();
        for value in &values {
            hop.record(*value);
        }
        let snapshot = reader(&dir).snapshot();
        let histogram = snapshot.histogram("hop").unwrap();
        let mut sorted = values;
        sorted.sort_unstable();
        let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
        let truth = sorted[rank - 1];
        let found = histogram.percentile(percent).unwrap();
        prop_assert!(found >= truth && found - truth <= truth / 32, "{} for {}", found, truth);
        prop_assert_eq!(histogram.count(), sorted.len() as u64);
        prop_assert_eq!(histogram.sum(), sorted.iter().sum::<u64>());
        prop_assert_eq!(histogram.min(), sorted.first().copied());
        prop_assert_eq!(histogram.max(), sorted.last().copied());
        let hdr = histogram.to_hdr();
        prop_assert_eq!(hdr.len(), sorted.len() as u64);
        let found = hdr.value_at_percentile(percent);
        prop_assert!(found.abs_diff(truth) <= truth / 16 + 1, "hdr {} for {}", found, truth);
    }
}
