//! Latency of a run becomes rows: one an interval and stage, of what was counted between two looks; what waits
//! for a database is bounded.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tandem_drain::Plan;
use tandem_drain::plan::Names;
use tandem_drain::postgres::latency::Latency;
use tandem_drain::rows::Value;
use tandem_shm::{Metric, StatsWriter};

const SECOND_NS: i64 = 1_000_000_000;

fn plan(dir: PathBuf) -> Plan {
    let name = String::new;
    Plan {
        journal: dir.join("journal"),
        dir,
        segments_max: 4,
        segment_frames: 100,
        trades: false,
        is_live: false,
        venues: Vec::new(),
        parts: Vec::new(),
        names: Names {
            engine_stats: "engine_stats".to_owned(),
            journal_full: name(),
            outputs_lost: name(),
            overruns: name(),
            exposure_ppm: name(),
            warden_stats: "warden_stats".to_owned(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: |_| Err("no run here".to_owned()),
        instruments: BTreeMap::new(),
    }
}

#[test]
fn an_interval_is_what_was_counted_in_it() {
    let dir = PathBuf::from(format!("/dev/shm/tandem-latency-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let metrics = [Metric::histogram("decide", "ns"), Metric::histogram("idle", "ns")];
    let mut stats = StatsWriter::create(&dir, "engine_stats", &metrics).unwrap();
    let mut decide = stats.histogram("decide").unwrap();
    let mut latency = Latency::new(&plan(dir.clone()), Duration::from_secs(10));
    let queue = latency.queue();
    (0..50).for_each(|_| decide.record(1_000_000));
    let begin = 1_700_000_000 * SECOND_NS;
    latency.look(begin);
    assert_eq!(queue.len(), 0, "what came before the first look is of no interval");
    (0..10).for_each(|_| decide.record(5_000));
    latency.look(begin + 5 * SECOND_NS);
    assert_eq!(queue.len(), 0, "too early");
    latency.look(begin + 10 * SECOND_NS);
    assert_eq!(queue.len(), 1, "a stage that counted nothing makes no row");
    let rows = queue.take();
    let value = |column: &str| rows[0].get(column).cloned().unwrap();
    assert_eq!(value("process"), Value::text("engine_stats"));
    assert_eq!((value("stage"), value("unit")), (Value::text("decide"), Value::text("ns")));
    assert_eq!(value("count"), Value::Int8(10));
    assert_eq!(value("started_at"), Value::Time(begin));
    assert_eq!(value("ended_at"), Value::Time(begin + 10 * SECOND_NS));
    let Value::Int8(p99) = value("p99") else { panic!("a number") };
    assert!((4_500..5_500).contains(&p99), "the million of before is not in it: {p99}");
    // What was not written comes back, in front.
    queue.put_back(rows.clone());
    assert_eq!(queue.take(), rows);
    // While nobody takes them they are bounded, and what is dropped is counted.
    for at in 2..=30_000i64 {
        decide.record(1);
        latency.look(begin + at * 10 * SECOND_NS);
    }
    assert_eq!(queue.len(), 20_000);
    assert_eq!(latency.dropped(), 29_999 - 20_000);
    drop(stats);
    std::fs::remove_dir_all(&dir).unwrap();
}
