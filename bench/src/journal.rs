//! Append of a 128-byte record to the journal, beside a copy of 128 bytes.
//!
//! Paced: one append every 500 ns, each timed singly; between them the thread spins on the counter, so
//! what the write before left in the store buffers is gone, as in production. In a row: as fast as it
//! goes. Both for the same copy into a prefaulted buffer of the size of a segment, slot after slot, and the
//! paced ones also for nothing at all: that is what two reads of the counter cost, and it is in each
//! single figure. The journal is on tmpfs, its helper prepares segments meanwhile, as it does in
//! production. What was appended is read back and checked.

use std::error::Error;
use std::hint::black_box;

use tandem_shm::{JournalReader, JournalSpec, JournalWriter, tsc};

use crate::Effort;
use crate::harness::{Contender, Lap, clock, compare};
use crate::report::{Budget, Report, Table};
use crate::ring::ShmDir;

type Words = [u64; 16];

const APPENDS: u64 = 10_000;
const PACE_NS: u64 = 500;
/// Of the copy's buffer: as many as a segment holds.
const SLOTS: usize = (64 << 20) / 128;

const COPY: &str = "copy of 128 bytes";
const OURS: &str = "tandem journal append";

fn record(n: u64) -> Words {
    std::array::from_fn(|at| n.wrapping_mul(31).wrapping_add(at as u64))
}

/// Calls `work` once every [`PACE_NS`] and times each call.
fn paced(lap: &mut Lap, mut work: impl FnMut(u64)) {
    let pace = PACE_NS * clock().ticks_per_ms() / 1_000_000;
    lap.begin();
    lap.judge_by_median();
    let mut due = tsc() + pace;
    for n in 0..APPENDS {
        while tsc() < due {}
        let start = tsc();
        work(n);
        let took = tsc() - start;
        lap.hist.add(took);
        lap.ticks += took;
        due += pace;
        // After a pause of the machine's there is no hurry to catch up: the pace is the point.
        due = due.max(tsc());
    }
    lap.ops = APPENDS;
}

struct Journal {
    writer: JournalWriter<Words>,
    next: u64,
}

impl Journal {
    #[inline]
    fn append(&mut self) {
        let item = record(self.next);
        match self.writer.append(black_box(&item)) {
            Ok(_) => self.next += 1,
            Err(full) => panic!("the drain below keeps room: {full}"),
        }
    }

    /// Between blocks: what is full may go, and the helper gets its time.
    fn settle(&mut self) {
        self.writer.release_up_to(self.writer.position().segment.saturating_sub(1));
        while (self.writer.room() as u64) < 2 * APPENDS + 8_192 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let dir = ShmDir::new("journal")?;
    let path = dir.0.join("journal");
    let writer = JournalWriter::create(&path, &JournalSpec::new(1))?;
    let notes: Vec<String> = writer.notes().iter().map(ToString::to_string).collect();
    let journal = std::cell::RefCell::new(Journal { writer, next: 0 });
    let mut buffer = vec![[1u64; 16]; SLOTS];
    let buffer = std::cell::RefCell::new((&mut buffer, 0usize));
    let copy = || {
        let (slots, at) = &mut *buffer.borrow_mut();
        let item = record(*at as u64);
        slots[*at % SLOTS] = *black_box(&item);
        *at += 1;
    };

    let mut floor = Contender::new(COPY, |lap| paced(lap, |_| copy()));
    let mut contenders = [
        Contender::new(OURS, |lap| {
            let mut journal = journal.borrow_mut();
            journal.settle();
            paced(lap, |_| journal.append());
        }),
        Contender::new("two reads of the counter", |lap| paced(lap, |_| ())),
    ];
    for found in compare(effort.rounds(150), &mut floor, &mut contenders, None) {
        let title = "append of a 128-byte record, one every 500 ns, each timed singly";
        let mut table = Table::new("journal", title, &found);
        table.beside(&found, OURS, &[COPY], Some(Budget::P999(20.0)));
        table.beside(&found, OURS, &["two reads of the counter"], None);
        table.singles(&found);
        notes.iter().for_each(|note| table.note(format!("note: {note}")));
        report.add(table);
    }
    drop(contenders);
    drop(floor);

    let mut floor =
        Contender::new(COPY, |lap| lap.time(APPENDS, || (0..APPENDS).for_each(|_| copy())));
    let mut contenders = [Contender::new(OURS, |lap| {
        let mut journal = journal.borrow_mut();
        journal.settle();
        lap.time(APPENDS, || (0..APPENDS).for_each(|_| journal.append()));
    })];
    for found in compare(effort.rounds(150), &mut floor, &mut contenders, None) {
        let mut table = Table::new("journal", "append of a 128-byte record, in a row", &found);
        table.beside(&found, OURS, &[COPY], Some(Budget::Ns(20.0)));
        report.add(table);
    }
    drop(contenders);
    drop(floor);
    check(&path, journal.into_inner())
}

/// Reads back what is still there: every record of it, in order, whole.
fn check(path: &std::path::Path, journal: Journal) -> Result<(), Box<dyn Error>> {
    let appended = journal.next;
    journal.writer.close()?;
    let mut reader = JournalReader::<Words>::open(path, 1)?;
    let mut expected = None;
    while let Some(item) = reader.next()? {
        // Word 0 is the journal's sequence, the low half of word 15 its checksum.
        let n = expected.unwrap_or_else(|| (item[1].wrapping_sub(1)).wrapping_div(31));
        assert_eq!(item[1..15], record(n)[1..15], "record {n} of the journal");
        expected = Some(n + 1);
    }
    assert_eq!(expected, Some(appended), "the journal holds the last record");
    Ok(())
}
