//! The ring through its public face, in one process.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use common::{Record, SCHEMA, TestDir};
use proptest::prelude::*;
use tandem_shm::{Counter, Producer, Read, RingReader, RingSpec, RingWriter, ShmError, tsc};

const TICKS_PER_MS: u64 = 2_600_000;

fn writer(dir: &TestDir, slots: u64, initial_seq: u64) -> RingWriter<Record> {
    let spec = RingSpec { initial_seq, ..RingSpec::new("ring", slots, SCHEMA) };
    RingWriter::create(dir, &spec).unwrap()
}

fn reader(dir: &TestDir) -> RingReader<Record> {
    RingReader::open(dir, "ring", SCHEMA, Duration::ZERO).unwrap()
}

#[track_caller]
fn item(read: Read<Record>) -> Record {
    match read {
        Read::Item(record) => record,
        other => panic!("expected a record, found {other:?}"),
    }
}

#[test]
fn records_arrive_in_order_with_their_sequence() {
    let dir = TestDir::new("order");
    let mut writer = writer(&dir, 8, 1);
    let mut reader = reader(&dir);
    assert_eq!(reader.poll(), Read::Empty);
    for number in 1..=5 {
        assert_eq!(writer.publish(&Record::of(number)), number);
    }
    for number in 1..=5 {
        let record = item(reader.poll());
        assert_eq!(record.seq, number);
        record.check(number);
    }
    assert_eq!(reader.poll(), Read::Empty);
    assert_eq!((reader.position(), writer.next_seq()), (6, 6));
}

#[test]
fn progress_counters_and_heartbeat_are_lazy() {
    let dir = TestDir::new("lazy");
    let mut writer = writer(&dir, 8, 1);
    let reader = reader(&dir);
    writer.publish(&Record::of(1));
    *writer.counter(Counter::Resyncs) += 3;
    assert_eq!((reader.progress(), reader.info().counters[Counter::Resyncs as usize]), (1, 0));
    writer.beat(77);
    let info = reader.info();
    assert_eq!((reader.progress(), info.heartbeat_tsc, info.heartbeat_count), (2, 77, 1));
    assert_eq!(info.counters[Counter::Resyncs as usize], 3);
    assert_eq!(info.counters[Counter::Published as usize], 1);
    assert_eq!(info.producer_pid, u64::from(std::process::id()));
}

#[test]
fn a_late_reader_starts_at_the_oldest_safe_record_and_can_skip() {
    for initial in [1, u64::MAX - 20] {
        let dir = TestDir::new("late");
        let mut writer = writer(&dir, 16, initial);
        for number in 0..100 {
            writer.publish(&Record::of(number));
        }
        // No beat since creation: the hint is 100 records old, and is not needed.
        let mut reader = reader(&dir);
        assert_eq!(reader.newest(), initial.wrapping_add(99));
        assert_eq!(reader.lag(), 14, "7/8 of 16");
        item(reader.poll()).check(86);
        assert_eq!(reader.skip_to_newest(), 12);
        item(reader.poll()).check(99);
        assert_eq!(reader.skip_to_newest(), 0, "never goes back");
        assert_eq!(reader.poll(), Read::Empty);
    }
}

#[test]
fn a_seek_into_the_past_is_an_overrun_and_into_the_future_empty() {
    let dir = TestDir::new("seek");
    let mut writer = writer(&dir, 8, 100);
    for number in 100..130 {
        writer.publish(&Record::of(number));
    }
    let mut reader = reader(&dir);
    reader.seek(101);
    assert_eq!(reader.poll(), Read::Overrun { lost: 22 });
    item(reader.poll()).check(123);
    reader.seek(50);
    assert_eq!(reader.poll(), Read::Overrun { lost: 73 }, "before the first sequence");
    reader.seek(130);
    assert_eq!(reader.poll(), Read::Empty);
    reader.seek(131);
    assert_eq!(reader.poll(), Read::Empty);
    assert_eq!(reader.counts().overruns_polling, 2);
}

#[test]
fn a_seek_before_the_first_record_of_an_unused_ring_goes_to_the_first() {
    for initial in [1_u64, 0, u64::MAX] {
        let dir = TestDir::new("unused");
        let mut writer = writer(&dir, 4, initial);
        let mut reader = reader(&dir);
        reader.seek(initial.wrapping_sub(2));
        assert_eq!(reader.poll(), Read::Overrun { lost: 2 });
        assert_eq!(reader.poll(), Read::Empty);
        writer.publish(&Record::of(9));
        item(reader.poll()).check(9);
    }
}

#[test]
fn states_of_a_producer() {
    let dir = TestDir::new("states");
    let mut first = writer(&dir, 8, 1);
    let mut reader = reader(&dir);
    let born = tsc();
    first.beat(born);
    let later = |ms: u64| born + ms * TICKS_PER_MS;

    assert_eq!(reader.producer(later(7), TICKS_PER_MS), Producer::Live { age_us: 7_000 });
    assert_eq!(reader.producer(born - 50, TICKS_PER_MS), Producer::Live { age_us: 0 });
    // It holds its lock, so it is suspect and never dead, however long it is silent.
    assert_eq!(reader.producer(later(60), TICKS_PER_MS), Producer::Suspect { age_us: 60_000 });
    assert_eq!(
        reader.producer(later(60_000), TICKS_PER_MS),
        Producer::Suspect { age_us: 60_000_000 }
    );
    reader.set_suspect_after_ms(100);
    assert!(reader.producer(later(99), TICKS_PER_MS).is_live());

    // Two records after its last beat it is gone without a word.
    first.publish(&Record::of(1));
    first.publish(&Record::of(2));
    drop(first);
    let dead = Producer::Dead { epoch: 1, last_seq: 2 };
    assert_eq!(reader.producer(later(70_000), TICKS_PER_MS), dead);
    assert_eq!(reader.producer(later(70_001), TICKS_PER_MS), dead, "and stays dead");
    assert!(!reader.reattach().unwrap(), "there are records left");
    item(reader.poll()).check(1);
    item(reader.poll()).check(2);
    assert!(!reader.reattach().unwrap(), "there is no successor");

    let mut second = writer(&dir, 8, 1);
    assert_eq!(second.epoch(), 2);
    assert_eq!(reader.producer(later(70_002), TICKS_PER_MS), Producer::Superseded { epoch: 2 });
    assert_eq!(reader.poll(), Read::Empty, "the old epoch stays as it was");
    assert!(reader.reattach().unwrap());
    assert_eq!((reader.epoch(), reader.position()), (2, 1));
    second.publish(&Record::of(42));
    item(reader.poll()).check(42);
    assert_eq!(reader.counts().taken, 3);

    second.close();
    assert_eq!(reader.producer(later(0), TICKS_PER_MS), Producer::Closed);
}

/// A producer that dies inside a slot: its mark stays for ever, and must not be waited for for ever.
#[test]
fn a_record_that_was_never_finished_is_not_taken() {
    let dir = TestDir::new("unfinished");
    let mut writer = writer(&dir, 4, 1);
    let mut reader = reader(&dir);
    for number in 1..=6 {
        writer.publish(&Record::of(number));
    }
    drop(writer);
    // Half of record 7, over record 3: the busy mark and some words.
    let file = std::fs::File::options().write(true).open(dir.join("ring")).unwrap();
    let slot = 4096 + (7 % 4) * 128;
    file.write_all_at(&6_u64.to_le_bytes(), slot).unwrap();
    file.write_all_at(&[0xee; 40], slot + 8).unwrap();
    let late = tsc() + 100_000 * TICKS_PER_MS;
    let dead = Producer::Dead { epoch: 1, last_seq: 6 };
    assert_eq!(reader.producer(late, TICKS_PER_MS), dead);
    // A reader that wants record 3 is told, and one that wants 7 gets nothing.
    reader.seek(3);
    assert_eq!(reader.poll(), Read::Overrun { lost: 1 });
    for number in 4..=6 {
        item(reader.poll()).check(number);
    }
    assert_eq!((reader.poll(), reader.lag()), (Read::Empty, 0));
    let _heir = self::writer(&dir, 4, 1);
    assert!(reader.reattach().unwrap());
}

#[test]
fn a_closed_ring_is_superseded_like_a_dead_one() {
    let dir = TestDir::new("closed");
    writer(&dir, 8, 1).close();
    let mut reader = reader(&dir);
    assert_eq!(reader.producer(tsc(), TICKS_PER_MS), Producer::Closed);
    let _second = writer(&dir, 16, 1);
    assert_eq!(reader.producer(tsc(), TICKS_PER_MS), Producer::Superseded { epoch: 2 });
    assert!(reader.reattach().unwrap());
    assert_eq!(reader.capacity(), 16, "a successor may have another size");
}

#[test]
fn a_second_producer_is_refused_and_the_first_not_disturbed() {
    let dir = TestDir::new("second");
    let mut first = writer(&dir, 8, 1);
    let mut reader = reader(&dir);
    let error = RingWriter::<Record>::create(&dir, &RingSpec::new("ring", 8, SCHEMA)).unwrap_err();
    assert!(matches!(error, ShmError::Locked { pid, .. } if pid == std::process::id()), "{error}");
    first.publish(&Record::of(1));
    first.beat(tsc());
    item(reader.poll()).check(1);
    assert!(reader.producer(tsc(), TICKS_PER_MS).is_live());
    assert_eq!(std::fs::read_dir(&*dir).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_reader_waits_for_a_producer_that_starts() {
    let dir = TestDir::new("wait");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            RingReader::<Record>::open(&dir, "ring", SCHEMA, Duration::from_secs(10)).map(|_| ())
        });
        std::thread::sleep(Duration::from_millis(20));
        let _writer = writer(&dir, 8, 1);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn two_first_starts_end_with_one_owner() {
    for _ in 0..50 {
        let dir = TestDir::new("race");
        let start = || RingWriter::<Record>::create(&dir, &RingSpec::new("ring", 8, SCHEMA));
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(start);
            (start(), other.join().unwrap())
        });
        let (winner, loser) = match (one, two) {
            (Ok(winner), Err(loser)) | (Err(loser), Ok(winner)) => (winner, loser),
            (Ok(_), Ok(_)) => panic!("two owners"),
            (Err(one), Err(two)) => panic!("no owner: {one}; {two}"),
        };
        assert!(matches!(loser, ShmError::Locked { .. }), "{loser}");
        assert_eq!(winner.epoch(), 1);
        assert_eq!(reader(&dir).epoch(), 1);
    }
}

/// Between two threads that do nothing else, with a ring so small that laps are the rule.
/// Row MD-14.
#[test]
fn taken_and_lost_is_published_and_nothing_is_torn() {
    const COUNT: u64 = 400_000;
    for slots in [2, 4, 64] {
        let dir = TestDir::new("stress");
        let initial = u64::MAX - COUNT / 2;
        let mut writer = writer(&dir, slots, initial);
        let mut reader = reader(&dir);
        let end = initial.wrapping_add(COUNT);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..COUNT {
                    let seq = initial.wrapping_add(number);
                    writer.publish(&Record::of(seq));
                    if number % 1024 == 0 {
                        writer.beat(tsc());
                        // Two busy threads on two shared cores: let the reader have one.
                        std::thread::yield_now();
                    }
                }
                writer.close();
            });
            while reader.position() != end {
                match reader.poll() {
                    Read::Item(record) => record.check(record.seq),
                    Read::Empty => std::thread::yield_now(),
                    Read::Overrun { lost } => assert!(lost > 0 && lost <= COUNT),
                }
            }
        });
        let counts = reader.counts();
        assert_eq!(counts.taken + counts.lost, COUNT, "{counts:?}");
        assert!(counts.taken > 0);
        assert_eq!(reader.poll(), Read::Empty);
    }
}

/// What a ring promises, in its simplest form: the last `capacity` records.
struct Model {
    kept: VecDeque<u64>,
    capacity: u64,
    next: u64,
    cursor: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u64),
    Poll(u64),
    Skip,
    Beat,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_u64..12).prop_map(Step::Publish),
        4 => (1_u64..12).prop_map(Step::Poll),
        1 => Just(Step::Skip),
        1 => Just(Step::Beat),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_ring_is_the_tail_of_a_queue(
        steps in steps(),
        shift in 1_u32..5,
        initial in prop_oneof![Just(1), Just(0), (u64::MAX - 40)..=u64::MAX, any::<u64>()],
    ) {
        let dir = TestDir::new("model");
        let capacity = 1 << shift;
        let mut writer = writer(&dir, capacity, initial);
        let mut ring = reader(&dir);
        let mut model =
            Model { kept: VecDeque::new(), capacity, next: initial, cursor: initial };
        let keep = capacity - (capacity / 8).max(1);
        for step in steps {
            match step {
                Step::Publish(count) => for _ in 0..count {
                    prop_assert_eq!(writer.publish(&Record::of(model.next)), model.next);
                    model.kept.push_back(model.next);
                    model.kept.truncate_front_to(model.capacity);
                    model.next = model.next.wrapping_add(1);
                },
                Step::Poll(count) => for _ in 0..count {
                    let oldest = model.kept.front().copied();
                    match ring.poll() {
                        Read::Item(record) => {
                            prop_assert_eq!(record.seq, model.cursor);
                            prop_assert!(model.kept.contains(&model.cursor));
                            record.check(model.cursor);
                            model.cursor = model.cursor.wrapping_add(1);
                        }
                        Read::Empty => prop_assert_eq!(model.cursor, model.next),
                        Read::Overrun { lost } => {
                            let oldest = oldest.expect("an overrun follows a publish");
                            prop_assert!((model.cursor.wrapping_sub(oldest) as i64) < 0);
                            model.cursor = model.cursor.wrapping_add(lost);
                            prop_assert_eq!(model.cursor, model.next.wrapping_sub(keep));
                        }
                    }
                    prop_assert_eq!(ring.position(), model.cursor);
                },
                Step::Skip => {
                    let waiting = model.next.wrapping_sub(model.cursor);
                    prop_assert_eq!(ring.skip_to_newest(), waiting.saturating_sub(1));
                    model.cursor = model.cursor.wrapping_add(waiting.saturating_sub(1));
                }
                Step::Beat => writer.beat(tsc()),
                Step::Reopen => {
                    ring = reader(&dir);
                    let published = model.next.wrapping_sub(initial);
                    model.cursor = model.next.wrapping_sub(published.min(keep));
                    prop_assert_eq!(ring.position(), model.cursor);
                }
            }
        }
    }
}

trait TruncateFront {
    fn truncate_front_to(&mut self, len: u64);
}

impl TruncateFront for VecDeque<u64> {
    fn truncate_front_to(&mut self, len: u64) {
        while self.len() as u64 > len {
            self.pop_front();
        }
    }
}

#[test]
fn impossible_specifications_are_refused_with_their_rule() {
    let dir = TestDir::new("spec");
    for slots in [0, 1, 3, 1000, u64::MAX] {
        let error = RingWriter::<Record>::create(&dir, &RingSpec::new("ring", slots, SCHEMA));
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("power of two"), "{error}");
    }
    let error = RingWriter::<Record>::create(&dir, &RingSpec::new("ring", 1 << 60, SCHEMA));
    let error = error.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("address space"), "{error}");
    for name in ["", "a/b", ".hidden", "x.tmp", &"n".repeat(64)] {
        let error = RingWriter::<Record>::create(&dir, &RingSpec::new(name, 8, SCHEMA));
        let error = error.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("choose another name"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&*dir).unwrap().count(), 0);
}
