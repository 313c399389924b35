//! What one call costs on this machine, alone on its core: `cargo run --release -p tandem-shm --example cost`.
//!
//! `in a row` is the mean over a loop. The percentiles are per call, between two reads of the counter,
//! whose own cost is in each and printed first. For hops between cores and peers beside ours, see the bench crate.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_shm::{
    Clock, JournalFull, JournalReader, JournalSpec, JournalWriter, LatestReader, LatestSpec,
    LatestWriter, Metric, Read, RingReader, RingSpec, RingWriter, StatsWriter, tsc,
};
use zerocopy::IntoBytes;

type Record = [u64; 16];
const ROUNDS: usize = 1_000_000;

fn measure(name: &str, clock: &Clock, ticks: &mut Vec<u64>, mut call: impl FnMut(u64)) {
    ticks.clear();
    for round in 0..ROUNDS as u64 {
        let before = tsc();
        call(round);
        ticks.push(tsc() - before);
    }
    ticks.sort_unstable();
    // Again without a counter read around each: what a call adds to a loop.
    let row = tsc();
    for round in 0..ROUNDS as u64 {
        call(round);
    }
    let row = clock.ticks_to_ns(tsc() - row) as f64 / ROUNDS as f64;
    let at = |share: f64| clock.ticks_to_ns(ticks[(share * (ROUNDS - 1) as f64) as usize]);
    println!(
        "{name:<26} in a row {row:>5.1}  p50 {:>4}  p99 {:>4}  p99.9 {:>5}  p99.99 {:>6}  max {:>8} ns",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0)
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(format!("/dev/shm/tandem-cost-{}", std::process::id()));
    let result = run(&dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let clock = Clock::calibrate();
    println!("{} ticks per ms, {ROUNDS} calls each", clock.ticks_per_ms());
    let mut ticks = Vec::with_capacity(ROUNDS);
    let mut record: Record = [7; 16];

    measure("two reads of the counter", &clock, &mut ticks, |_| {});
    let mut buffer = vec![[0_u64; 16]; 65_536];
    measure("memcpy of 128 bytes", &clock, &mut ticks, |round| {
        record[1] = round;
        buffer[round as usize % 65_536] = *black_box(&record);
    });

    let mut ring = RingWriter::<Record>::create(dir, &RingSpec::new("ring", 1 << 16, 1))?;
    for note in ring.notes() {
        println!("note: {note}");
    }
    let mut reader = RingReader::<Record>::open(dir, "ring", 1, Duration::ZERO)?;
    measure("ring publish", &clock, &mut ticks, |round| {
        record[1] = round;
        ring.publish(black_box(&record));
    });
    while reader.poll() != Read::Empty {}
    measure("ring poll, empty", &clock, &mut ticks, |_| {
        black_box(reader.poll());
    });
    measure("ring publish and poll", &clock, &mut ticks, |round| {
        record[1] = round;
        ring.publish(black_box(&record));
        if let Read::Item(item) = reader.poll() {
            black_box(item);
        }
    });

    let spec = JournalSpec { segments_ahead: 5, segments_max: 12, ..JournalSpec::new(1) };
    let mut journal = JournalWriter::<Record>::create(&dir.join("journal"), &spec)?;
    while journal.room() < 2 * ROUNDS {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut full = None::<JournalFull>;
    measure("journal append", &clock, &mut ticks, |round| {
        record[1] = round;
        if let Err(refused) = journal.append(black_box(&record)) {
            full = Some(refused);
        }
    });
    measure("crc32c of 128 bytes", &clock, &mut ticks, |round| {
        record[1] = round;
        black_box(crc32c::crc32c_append(7, black_box(&record).as_bytes()));
    });
    if let Some(full) = full {
        return Err(full.into());
    }
    println!("journal is in segment {}", journal.position().segment);
    let mut reader = JournalReader::<Record>::open(&dir.join("journal"), 1)?;
    measure("journal read", &clock, &mut ticks, |_| {
        let _ = black_box(reader.next());
    });

    let mut page = LatestWriter::create(dir, &LatestSpec::new("page", 16, 14, 1))?;
    let view = LatestReader::open(dir, "page", 1, Duration::ZERO)?;
    measure("latest write, 14 words", &clock, &mut ticks, |round| {
        page.write(round as usize % 16, &record[..14]);
    });
    let mut out = [0; 16];
    measure("latest read, 14 words", &clock, &mut ticks, |round| {
        black_box(view.read(round as usize % 16, &mut out));
    });

    let metrics = [Metric::counter("count", "calls"), Metric::histogram("cost", "ticks")];
    let mut stats = StatsWriter::create(dir, "stats", &metrics)?;
    let (Some(mut count), Some(mut cost)) = (stats.counter("count"), stats.histogram("cost"))
    else {
        return Err("the metrics were just declared".into());
    };
    measure("counter inc", &clock, &mut ticks, |_| count.inc());
    measure("histogram record", &clock, &mut ticks, |round| cost.record(round % 100_000));
    measure("ticks to wall time", &clock, &mut ticks, |round| {
        black_box(clock.now_ns(black_box(round)));
    });
    Ok(())
}
