//! Two processes: the ring as it is used, and writers killed at any moment.
//!
//! The children are this binary's own ignored tests; see `common::spawn_child`.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Dice, Record, SCHEMA, TestDir, child_role, spawn_child};
use tandem_shm::{
    Clock, JournalError, JournalReader, JournalSpec, JournalWriter, LatestReader, LatestSpec,
    LatestWriter, Producer, Read, RingReader, RingSpec, RingWriter, ShmError, tsc, verify,
};

const START: Duration = Duration::from_secs(20);

fn journal_spec() -> JournalSpec {
    JournalSpec {
        segment_bytes: 128 << 10,
        segments_max: 400,
        reserve_frames: 16,
        lock_memory: false,
        ..JournalSpec::new(SCHEMA)
    }
}

/// Publishes so many records as fast as it can, then closes. Arguments: slots, count.
#[test]
#[ignore = "a child process"]
fn child_ring() {
    let Some((dir, arguments)) = child_role() else { return };
    let [slots, count] = arguments[..] else { panic!("two arguments") };
    let mut ring = RingWriter::create(&dir, &RingSpec::new("ring", slots, SCHEMA)).unwrap();
    // Both at once, or there is nothing to see.
    while !dir.join("go").exists() {
        std::thread::sleep(Duration::from_micros(100));
    }
    for number in 1..=count {
        ring.publish(&Record::of(number));
        if number % 256 == 0 {
            ring.beat(tsc());
        }
        if number % 8192 == 0 {
            // Two cores for everything on this machine: the reader needs one of them.
            std::thread::yield_now();
        }
    }
    ring.close();
}

#[test]
fn across_processes_nothing_is_torn_and_nothing_unaccounted() {
    // An optimised build runs ten times as many in the same seconds.
    let scale = if cfg!(debug_assertions) { 1 } else { 10 };
    for (slots, count) in [(2, 300_000), (64, 2_000_000), (4096, 4_000_000)] {
        let count = count * scale;
        let dir = TestDir::new("stress");
        let mut child = spawn_child("child_ring", &dir, &format!("{slots} {count}"));
        let mut reader = RingReader::<Record>::open(&dir, "ring", SCHEMA, START).unwrap();
        std::fs::write(dir.join("go"), "").unwrap();
        let ticks_per_ms = Clock::calibrate().ticks_per_ms();
        let mut empties = 0_u32;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match reader.poll() {
                Read::Item(record) => record.check(record.seq),
                Read::Overrun { lost } => assert!(lost > 0),
                Read::Empty => {
                    empties += 1;
                    if empties.is_multiple_of(64) {
                        assert!(Instant::now() < deadline, "the writer is stuck");
                        let closed = reader.producer(tsc(), ticks_per_ms) == Producer::Closed;
                        if closed && reader.position() == count + 1 {
                            break;
                        }
                    }
                    std::thread::yield_now();
                }
            }
        }
        assert!(child.wait().unwrap().success());
        let counts = reader.counts();
        assert_eq!(counts.taken + counts.lost, count, "{counts:?}");
        // How much they overlap is the scheduler's; on one core they hardly meet.
        assert!(counts.taken > 0, "{counts:?}");
        println!("{slots} slots: {counts:?}");
    }
}

/// Publishes, journals and writes a page for ever; the parent kills it.
#[test]
#[ignore = "a child process"]
fn child_victim() {
    let Some((dir, _)) = child_role() else { return };
    let journal_dir = dir.join("journal");
    let mut journal = match JournalWriter::<Record>::resume(&journal_dir, &journal_spec()) {
        Ok(journal) => journal,
        Err(JournalError::Missing { .. }) => {
            JournalWriter::create(&journal_dir, &journal_spec()).unwrap()
        }
        Err(error) => panic!("{error}"),
    };
    let page = LatestSpec::new("page", 1, 30, SCHEMA);
    let mut page = LatestWriter::create(&dir, &page).unwrap();
    let mut ring = RingWriter::create(&dir, &RingSpec::new("ring", 8, SCHEMA)).unwrap();
    for number in 1.. {
        ring.publish(&Record::of(number));
        page.write(0, &[number; 30][..1 + (number % 30) as usize]);
        if number % 64 == 0 {
            // Far more than one a second, so that every kill finds some; and not gigabytes.
            match journal.append(&Record::of(journal.next_seq())) {
                Ok(_) | Err(_) => {}
            }
            ring.beat(tsc());
            page.beat(tsc());
            journal.beat(tsc());
            if journal.next_seq() % 200 == 0 {
                std::thread::yield_now();
            }
        }
    }
}

/// Asserts that the journal is whole, and returns its last sequence.
fn check_journal(dir: &Path) -> u64 {
    let report = match verify(dir, SCHEMA) {
        Ok(report) => report,
        // Killed before the first segment was in use.
        Err(JournalError::Missing { .. }) => return 0,
        Err(error) => panic!("{error}"),
    };
    assert!(report.is_sound(), "{:?}", report.faults);
    assert_eq!(report.records, report.last_seq, "every sequence from 1 on is there");
    if report.records == 0 {
        return 0;
    }
    let mut reader = JournalReader::<Record>::open(dir, SCHEMA).unwrap();
    let mut last = 0;
    while let Some(record) = reader.next().unwrap() {
        last += 1;
        assert_eq!(record.seq, last);
        record.check(last);
    }
    assert_eq!(last, report.last_seq);
    last
}

#[test]
fn killed_writers_leave_whole_values_and_are_succeeded() {
    const KILLS: u64 = 40;
    let dir = TestDir::new("kill");
    let seed = u64::from(std::process::id()) | 1 << 40;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let ticks_per_ms = Clock::calibrate().ticks_per_ms();
    let mut ring: Option<RingReader<Record>> = None;
    let mut page: Option<LatestReader> = None;
    let (mut taken, mut torn_tails, mut journaled) = (0, 0, 0);
    for kill in 1..=KILLS {
        let mut child = spawn_child("child_victim", &dir, "");
        // The readers of the first epoch live on through all of them.
        match &mut ring {
            None => ring = Some(RingReader::open(&dir, "ring", SCHEMA, START).unwrap()),
            Some(ring) => {
                let deadline = Instant::now() + START;
                while !ring.reattach().unwrap() {
                    assert!(Instant::now() < deadline, "no successor of epoch {}", ring.epoch());
                    // What the dead writer left is drained, and whole.
                    while let Read::Item(record) = ring.poll() {
                        record.check(record.seq);
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
        let ring = ring.as_mut().unwrap();
        match &mut page {
            None => page = Some(LatestReader::open(&dir, "page", SCHEMA, START).unwrap()),
            Some(page) => {
                page.reattach().unwrap();
            }
        }
        let page = page.as_ref().unwrap();
        assert_eq!(ring.epoch(), kill, "every start is the next epoch");
        assert_eq!(page.epoch(), kill);

        let deadline = Instant::now() + Duration::from_micros(dice.below(30_000));
        let mut words = [0; 30];
        while Instant::now() < deadline {
            match ring.poll() {
                Read::Item(record) => record.check(record.seq),
                Read::Overrun { .. } => {}
                Read::Empty => std::thread::yield_now(),
            }
            check_page(page, &mut words);
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));

        // Dead, not closed and not merely slow: found as soon as its heartbeat is old.
        let died = Instant::now();
        let last_seq = loop {
            match ring.producer(tsc(), ticks_per_ms) {
                Producer::Dead { epoch, last_seq } => {
                    assert_eq!(epoch, kill);
                    break last_seq;
                }
                Producer::Live { .. } | Producer::Suspect { .. } => {
                    assert!(died.elapsed() < Duration::from_secs(5), "death was not noticed");
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => panic!("{other:?} after a kill"),
            }
        };
        loop {
            match ring.poll() {
                Read::Item(record) => record.check(record.seq),
                Read::Overrun { .. } => {}
                Read::Empty => break,
            }
        }
        assert_eq!(ring.position(), last_seq + 1, "drained to the last record");
        check_page(page, &mut words);
        taken = ring.counts().taken;

        let last = check_journal(&dir.join("journal"));
        assert!(last >= journaled, "a committed record is gone: {last} after {journaled}");
        journaled = last;
        if last > 0 {
            torn_tails +=
                u32::from(verify(&dir.join("journal"), SCHEMA).unwrap().torn_tail.is_some());
        }
    }
    assert!(taken > 1000 && journaled > 100, "{taken} taken, {journaled} journaled");
    println!(
        "{KILLS} kills: {taken} records taken, {journaled} journaled, {torn_tails} torn tails"
    );
}

/// A page's words are all the same number, and as many as it says; or it is stuck in a write.
fn check_page(page: &LatestReader, words: &mut [u64; 30]) {
    if let Some(len) = page.read(0, words) {
        assert_eq!(len as u64, 1 + words[0] % 30);
        assert!(words[..len].iter().all(|word| *word == words[0]), "torn: {words:?}");
    }
}

/// Stops in the middle of life; arguments: none.
#[test]
#[ignore = "a child process"]
fn child_sleeper() {
    let Some((dir, _)) = child_role() else { return };
    let mut ring = RingWriter::create(&dir, &RingSpec::new("ring", 8, SCHEMA)).unwrap();
    ring.publish(&Record::of(1));
    ring.beat(tsc());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_hung_producer_is_suspect_and_keeps_its_name_until_it_is_dead() {
    let dir = TestDir::new("hung");
    let mut child = spawn_child("child_sleeper", &dir, "");
    let reader = RingReader::<Record>::open(&dir, "ring", SCHEMA, START).unwrap();
    let ticks_per_ms = Clock::calibrate().ticks_per_ms();
    let patience = Instant::now() + START;
    while reader.producer(tsc(), ticks_per_ms).is_live() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(matches!(reader.producer(tsc(), ticks_per_ms), Producer::Suspect { .. }));
    let spec = RingSpec::new("ring", 8, SCHEMA);
    let error = RingWriter::<Record>::create(&dir, &spec).unwrap_err();
    assert!(matches!(error, ShmError::Locked { pid, .. } if pid == child.id()), "{error}");

    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_millis(10));
    let dead = Producer::Dead { epoch: 1, last_seq: 1 };
    assert_eq!(reader.producer(tsc(), ticks_per_ms), dead);
    assert_eq!(RingWriter::<Record>::create(&dir, &spec).unwrap().epoch(), 2);
}
