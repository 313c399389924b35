//! After start, the hot calls allocate nothing. In a file of its own, for its allocator counts all.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use common::{Record, SCHEMA, TestDir};
use tandem_shm::{
    Clock, ClockReader, ClockWriter, JournalReader, JournalSpec, JournalWriter, LatestReader,
    LatestSpec, LatestWriter, Metric, Read, RingReader, RingSpec, RingWriter, StatsWriter,
    WaitMode, Waiter, tsc,
};

struct Counting;

thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Not `with`: a thread that ends has no counter any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts allocations and frees of this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Returns how many page faults this thread has taken without I/O.
fn faults() -> i64 {
    // SAFETY: all-zero is a valid `rusage`: it holds integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is ours to be written.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn rings_allocate_nothing() {
    let dir = TestDir::new("alloc");
    let mut writer = RingWriter::create(&dir, &RingSpec::new("ring", 64, SCHEMA)).unwrap();
    let mut reader = RingReader::<Record>::open(&dir, "ring", SCHEMA, Duration::ZERO).unwrap();
    let mut waiter = Waiter::new(WaitMode::Yield);
    let (mut items, mut overruns) = (0, 0);
    let count = allocations(|| {
        for number in 0..10_000_u64 {
            writer.publish(&Record::of(number));
            if number % 100 < 90 {
                match reader.poll() {
                    Read::Item(_) => items += 1,
                    Read::Overrun { .. } => overruns += 1,
                    Read::Empty => waiter.idle(),
                }
            }
            if number % 100 == 0 {
                writer.beat(tsc());
                std::hint::black_box(reader.producer(tsc(), 2_600_000));
                std::hint::black_box(reader.lag());
            }
        }
    });
    assert_eq!(count, 0);
    assert!(items > 1000 && overruns > 10, "both paths ran: {items}, {overruns}");
}

#[test]
fn appends_allocate_and_fault_nothing_also_across_segments() {
    let dir = TestDir::new("alloc");
    let spec = JournalSpec {
        segment_bytes: 16 << 10,
        segments_max: 200,
        segments_ahead: 100,
        reserve_frames: 4,
        ..JournalSpec::new(SCHEMA)
    };
    let mut writer = JournalWriter::<Record>::create(&dir, &spec).unwrap();
    while writer.room() < 8_000 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // What the loop itself needs is there before it is counted.
    writer.append(&Record::of(0)).unwrap();
    let before = faults();
    let count = allocations(|| {
        for number in 1..8_000 {
            writer.append(&Record::of(number)).unwrap();
        }
        writer.beat(tsc());
    });
    assert_eq!(count, 0);
    let faults = faults() - before;
    // A page of ours for each 32 records would be 250; the stack and code may take a few.
    assert!(faults < 10, "{faults} page faults in appends to prepared segments");
    assert!(writer.position().segment > 80, "{:?}", writer.position());
    // Full is no reason to allocate either.
    while writer.append_reserved(&Record::of(0)).is_ok() {}
    assert_eq!(allocations(|| assert!(writer.append(&Record::of(0)).is_err())), 0);
    let mut reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
    assert_eq!(
        allocations(|| for _ in 0..90 {
            reader.next().unwrap().unwrap();
        }),
        0
    );
}

#[test]
fn pages_and_stats_allocate_nothing() {
    let dir = TestDir::new("alloc");
    let mut page = LatestWriter::create(&dir, &LatestSpec::new("page", 4, 20, SCHEMA)).unwrap();
    let view = LatestReader::open(&dir, "page", SCHEMA, Duration::ZERO).unwrap();
    let metrics = [Metric::counter("c", "x"), Metric::gauge("g", "x"), Metric::histogram("h", "x")];
    let mut stats = StatsWriter::create(&dir, "stats", &metrics).unwrap();
    let (mut counter, mut gauge, mut histogram) =
        (stats.counter("c").unwrap(), stats.gauge("g").unwrap(), stats.histogram("h").unwrap());
    let count = allocations(|| {
        let mut out = [0; 32];
        for number in 0..1000 {
            page.write(number % 4, &[number as u64; 20]);
            assert_eq!(view.read(number % 4, &mut out), Some(20));
            counter.inc();
            gauge.set(number as i64);
            histogram.record(number as u64 * 1000);
        }
        page.beat(tsc());
        stats.beat(tsc());
    });
    assert_eq!(count, 0);
}

#[test]
fn clocks_allocate_nothing() {
    let dir = TestDir::new("alloc");
    let mut writer = ClockWriter::create(&dir, "clock").unwrap();
    let mut reader = ClockReader::open(&dir, "clock", Duration::ZERO).unwrap();
    let private = Clock::calibrate();
    let count = allocations(|| {
        for _ in 0..100 {
            writer.update();
            assert!(reader.refresh());
            std::hint::black_box((reader.now_ns(tsc()), private.mono_ns(tsc())));
        }
    });
    assert_eq!(count, 0);
}
