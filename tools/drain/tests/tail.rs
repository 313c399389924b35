//! A tail over shared memory and archive: every record once, in order, whatever happens between its steps.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/archive.rs"]
mod support;

use std::fs;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::*;
use tandem_core::record::Record;
use tandem_drain::archive::retain::{Retention, retain};
use tandem_drain::archive::writer::{ArchiveLock, ArchiveWriter, Resume};
use tandem_drain::archive::{Archiver, list_journals};
use tandem_drain::tail::{Places, Position, Step, Tail};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, JournalRelease, JournalWriter, oldest_seq, read_released};

/// What the tail of a test was given.
#[derive(Default)]
struct Seen {
    journals: Vec<u128>,
    at: u64,
    records: u64,
    lost: u64,
}

impl Seen {
    /// Takes what is there; says whether it came to the end.
    fn take(&mut self, tail: &mut Tail, most: u64, begins: &dyn Fn(u128) -> u64) -> bool {
        for _ in 0..most {
            match tail.step().unwrap() {
                Step::UpToDate => return true,
                Step::Journal(Position { journal, seq }) => {
                    if self.journals.last() != Some(&journal) {
                        self.journals.push(journal);
                        self.at = begins(journal).min(seq);
                        self.lost += seq - self.at;
                    } else {
                        assert_eq!(seq, self.at, "the same journal goes on where it was");
                    }
                    self.at = seq;
                }
                Step::Record(record) => {
                    let journal = *self.journals.last().expect("a journal was told");
                    assert_eq!(record, journaled(journal, self.at));
                    assert_eq!(tail.position().unwrap(), Position { journal, seq: self.at + 1 });
                    self.at += 1;
                    self.records += 1;
                }
                Step::Lost { from, to, why } => {
                    assert_eq!(from, self.at, "{why}");
                    // Of a journal that is nowhere any more it is not known how many.
                    assert!(from < to || from == to && why.contains("is gone"), "{why}");
                    self.lost += to - from;
                    self.at = to;
                }
            }
        }
        false
    }
}

struct World {
    dir: Dir,
    journal: Option<JournalWriter<Record>>,
    reader: Option<JournalReader<Record>>,
    release: Option<JournalRelease>,
    archive: Option<ArchiveWriter>,
    lock: ArchiveLock,
    /// By segment: the last sequence in it.
    ends: Vec<(u64, u64)>,
    written: u64,
    total: u64,
}

impl World {
    fn new(name: &str) -> World {
        let dir = Dir::new(name);
        let lock = ArchiveLock::take(&dir.archive()).unwrap();
        let mut world = World {
            dir,
            journal: None,
            reader: None,
            release: None,
            archive: None,
            lock,
            ends: Vec::new(),
            written: 0,
            total: 0,
        };
        world.begin();
        world
    }

    /// The journal begins anew, as after a reboot.
    fn begin(&mut self) {
        if self.journal.is_some() {
            while self.archive_some(usize::MAX) {}
            (self.journal, self.reader, self.release, self.archive) = (None, None, None, None);
            fs::remove_dir_all(self.dir.journal()).unwrap();
        }
        (self.written, self.ends) = (0, Vec::new());
        let mut journal = journal(&self.dir.journal(), &spec());
        append(&mut journal, 1);
        (self.written, self.total) = (1, self.total + 1);
        self.journal = Some(journal);
        let (path, schema) = (self.dir.journal(), record_schema());
        self.reader = Some(JournalReader::open(&path, schema).unwrap());
        self.release = Some(JournalRelease::create(&path).unwrap());
        self.reopen();
    }

    fn reopen(&mut self) {
        let uuid = self.journal.as_ref().unwrap().uuid();
        self.archive = None;
        let confirmed = read_released(&self.dir.journal()).map(|(_, durable)| durable);
        let resume = Resume { uuid, confirmed };
        let opened = ArchiveWriter::open(&self.lock, host(), resume, format()).unwrap();
        self.archive = Some(opened.0);
    }

    fn append(&mut self, count: u64) {
        // What is not released must fit; the rest waits for its segment to be made ready.
        let oldest = oldest_seq(&self.dir.journal(), record_schema()).unwrap().1;
        let count = count.min(24_000u64.saturating_sub(self.written + 1 - oldest));
        append(self.journal.as_mut().unwrap(), count);
        self.written += count;
        self.total += count;
    }

    fn archive_some(&mut self, most: usize) -> bool {
        let reader = self.reader.as_mut().unwrap();
        let mut batch = Vec::new();
        while batch.len() < most.min(1_000) {
            let segment = reader.segment();
            let Some(record) = reader.next().unwrap() else { break };
            if reader.segment() != segment {
                self.ends.push((segment, record.seq - 1));
            }
            batch.push(record);
        }
        if batch.is_empty() {
            return false;
        }
        let next = self.archive.as_mut().unwrap().append(&batch).unwrap();
        self.release.as_mut().unwrap().release_up_to(0, next - 1);
        true
    }

    fn release(&mut self, most: usize) {
        let durable = self.archive.as_ref().unwrap().next_seq().unwrap_or(1) - 1;
        let ends: Vec<_> = self.ends.iter().filter(|(_, last)| *last <= durable).collect();
        let Some((segment, last)) = ends.get(most.min(ends.len()).wrapping_sub(1)) else { return };
        self.release.as_mut().unwrap().release_up_to(*segment, durable);
        let by = Instant::now() + Duration::from_secs(10);
        while oldest_seq(&self.dir.journal(), record_schema()).unwrap().1 <= *last {
            assert!(Instant::now() < by, "released segments go");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn places(&self) -> Places {
        Places { journal: self.dir.journal(), archive: Some(self.dir.archive()) }
    }
}

/// The property: whatever the order of appending, archiving, releasing, restarts, new journals and steps, a tail
/// gives every record once, in order; where files were removed before it came to them, it tells exactly which.
#[test]
fn every_record_comes_once_in_order_whatever_happens_between() {
    let (mut cases, mut total, mut lost) = (0, 0, 0);
    for seed in 0..40 {
        let removes = seed % 3 == 2;
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(&format!("tail-{seed}"));
        let mut tail = Tail::new(world.places(), None);
        let mut seen = Seen::default();
        // Taken from the first record on: what retention removes from now on is told as lost.
        seen.take(&mut tail, 2, &|_| 1);
        for _ in 0..random.random_range(20..90) {
            match random.random_range(0..100) {
                0..30 => world.append(random.random_range(1..6_000)),
                30..50 => {
                    for _ in 0..random.random_range(1..4) {
                        world.archive_some(random.random_range(1..1_000));
                    }
                }
                50..65 => world.release(random.random_range(1..5)),
                65..68 => world.reopen(),
                68..71 => tail = Tail::new(world.places(), tail.position()),
                71..72 => {
                    world.begin();
                    // In a process that lives on it is seen within half a second.
                    std::thread::sleep(Duration::from_millis(510));
                }
                72..78 if removes => {
                    let bytes = Some(random.random_range(100..6_000));
                    let keep = Retention { age: None, bytes };
                    let now = std::time::SystemTime::now();
                    retain(&*host(), &world.dir.archive(), keep, now).unwrap();
                }
                _ => drop(seen.take(&mut tail, random.random_range(1..2_000), &|_| 1)),
            }
        }
        let by = Instant::now() + Duration::from_secs(20);
        let last = world.journal.as_ref().unwrap().uuid();
        while !(seen.journals.last() == Some(&last) && seen.at == world.written + 1) {
            assert!(Instant::now() < by, "seed {seed}: at {} of {}", seen.at, world.written);
            if seen.take(&mut tail, 5_000, &|_| 1) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if removes {
            // A journal of which retention left nothing is not heard of at all.
            assert!(seen.records + seen.lost <= world.total);
        } else {
            assert_eq!((seen.records, seen.lost), (world.total, 0), "seed {seed}");
        }
        cases += 1;
        total += seen.records;
        lost += seen.lost;
    }
    println!(
        "figure ST-07: {cases} runs, {total} records once and in order, {lost} told as removed"
    );
}

/// With the real thread: a tail that is always behind, one that is always at the end.
#[test]
fn a_slow_tail_and_a_quick_one_get_the_same_from_a_running_archive() {
    let dir = Dir::new("tails");
    let mut writer = journal(&dir.journal(), &spec());
    let places = Places { journal: dir.journal(), archive: Some(dir.archive()) };
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let (mut quick, mut slow) = (Tail::new(places.clone(), None), Tail::new(places, None));
    let (mut quick_seen, mut slow_seen) = (Seen::default(), Seen::default());
    for _ in 0..400 {
        append(&mut writer, 200);
        while !quick_seen.take(&mut quick, 1_000, &|_| 1) {}
        slow_seen.take(&mut slow, 50, &|_| 1);
    }
    let end = 80_001;
    let by = Instant::now() + Duration::from_secs(20);
    while quick_seen.at < end || slow_seen.at < end {
        assert!(Instant::now() < by);
        quick_seen.take(&mut quick, 10_000, &|_| 1);
        slow_seen.take(&mut slow, 10_000, &|_| 1);
    }
    assert_eq!((quick_seen.records, quick_seen.lost), (80_000, 0));
    assert_eq!((slow_seen.records, slow_seen.lost), (80_000, 0));
    drop(archiver);
    // Both gone, the journal too: what the archive has is read from the beginning.
    drop(writer);
    fs::remove_dir_all(dir.journal()).unwrap();
    let places = Places { journal: dir.journal(), archive: Some(dir.archive()) };
    let mut again = Seen::default();
    let mut tail = Tail::new(places, None);
    while !again.take(&mut tail, 10_000, &|_| 1) {}
    assert_eq!(again.records, 80_000);
    assert_eq!(list_journals(&dir.archive()).unwrap().len(), 1);
}

/// A journal that is gone and was never archived: that is told, with nothing made up.
#[test]
fn a_journal_that_is_nowhere_is_told_as_lost() {
    let dir = Dir::new("nowhere");
    let mut writer = journal(&dir.journal(), &spec());
    append(&mut writer, 10);
    let places = Places { journal: dir.journal(), archive: None };
    let gone = Position { journal: 99, seq: 41 };
    let mut tail = Tail::new(places, Some(gone));
    let Step::Lost { from, to, why } = tail.step().unwrap() else { panic!("told") };
    assert_eq!((from, to), (41, 41));
    assert!(why.contains("not known"), "{why}");
    let journal = Position { journal: writer.uuid(), seq: 1 };
    assert_eq!(tail.step().unwrap(), Step::Journal(journal));
    assert!(matches!(tail.step().unwrap(), Step::Record(record) if record.seq == 1));
}

/// What retention removed before a tail came to it is told, exactly; a folder with nothing in it is passed.
#[test]
fn what_was_removed_is_told_exactly() {
    let mut world = World::new("removed");
    let mut tail = Tail::new(world.places(), None);
    let mut seen = Seen::default();
    seen.take(&mut tail, 2, &|_| 1);
    assert_eq!(seen.records, 1);
    for _ in 0..5 {
        // As many as there is room for, waiting for the segments.
        append(world.journal.as_mut().unwrap(), 9_000);
        (world.written, world.total) = (world.written + 9_000, world.total + 9_000);
        while world.archive_some(1_000) {}
        world.release(usize::MAX);
    }
    let keep = Retention { age: None, bytes: Some(1) };
    let removed = retain(&*host(), &world.dir.archive(), keep, std::time::SystemTime::now());
    assert!(!removed.unwrap().is_empty());
    while !seen.take(&mut tail, 5_000, &|_| 1) {}
    assert!(0 < seen.lost && 1 < seen.records);
    assert_eq!((seen.records + seen.lost, seen.at), (world.total, world.written + 1));
    // An old journal of which only what was put aside is left.
    let empty = tandem_drain::archive::journal_dir(&world.dir.archive(), 0, 7);
    fs::create_dir_all(&empty).unwrap();
    let mut fresh = Tail::new(world.places(), None);
    assert!(matches!(fresh.step().unwrap(), Step::Journal(_)), "it begins with the next one");
}
