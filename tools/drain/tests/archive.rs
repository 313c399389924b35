//! The archive holds what the journal held: through kills, full and failing disks, damage, retention and new
//! journals. What is called durable is.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/archive.rs"]
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use support::*;
use tandem_core::record::Record;
use tandem_drain::archive::retain::{Retention, retain};
use tandem_drain::archive::writer::{ArchiveLock, ArchiveWriter, Format, Recovered, Resume};
use tandem_drain::archive::{
    ArchiveError, Archiver, State, checkpoint, file_path, list_files, list_journals,
};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, oldest_seq, read_released};

const UUID: u128 = 0x1234_5678_9abc_def0_0fed_cba9_8765_4321;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

fn open(root: &Path) -> Result<(ArchiveWriter, Recovered), ArchiveError> {
    open_on(root, host(), None)
}

fn open_on(
    root: &Path,
    disk: Box<dyn tandem_drain::archive::disk::Disk>,
    confirmed: Option<u64>,
) -> Result<(ArchiveWriter, Recovered), ArchiveError> {
    open_as(root, disk, confirmed, format())
}

fn open_as(
    root: &Path,
    disk: Box<dyn tandem_drain::archive::disk::Disk>,
    confirmed: Option<u64>,
    format: Format,
) -> Result<(ArchiveWriter, Recovered), ArchiveError> {
    let lock = ArchiveLock::take(root)?;
    ArchiveWriter::open(&lock, disk, Resume { uuid: UUID, confirmed }, format)
}

fn records(from: u64, to: u64) -> Vec<Record> {
    (from..to).map(|seq| journaled(UUID, seq)).collect()
}

fn last_file(root: &Path) -> PathBuf {
    let dir = &list_journals(root).unwrap()[0].dir;
    file_path(dir, *list_files(dir).unwrap().last().unwrap())
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < by, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_is_written_is_read_from_any_place_and_goes_on_after_a_restart() {
    let dir = Dir::new("places");
    let root = dir.archive();
    let mut at = 1;
    let (mut writer, _) = open(&root).unwrap();
    for count in [1, 700, 3, 16_384, 20, 900] {
        assert_eq!(writer.append(&records(at, at + count)).unwrap(), at + count);
        at += count;
        // A restart after every block.
        drop(writer);
        let opened = open(&root).unwrap();
        assert_eq!(opened.1.torn, None);
        writer = opened.0;
        assert_eq!(writer.next_seq(), Some(at));
    }
    let refused = writer.append(&records(at + 1, at + 2));
    assert!(matches!(refused, Err(ArchiveError::Codec(_))), "a hole is refused: {refused:?}");
    let journal = list_journals(&root).unwrap().remove(0);
    assert!(1 < list_files(&journal.dir).unwrap().len(), "several files");
    assert_eq!(archived(&root, UUID), (records(1, at), Vec::new()));
    for seq in [1, 2, 701, 702, 704, 705, 9_000, 17_088, at - 1, at] {
        use tandem_drain::archive::reader::{ArchiveReader, Step};
        let mut reader = ArchiveReader::open(&journal.dir, UUID, seq).unwrap();
        let expected = if seq < at { Step::Record(journaled(UUID, seq)) } else { Step::End };
        assert_eq!(reader.step().unwrap(), expected);
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = Dir::new("second");
    let first = Archiver::start(settings(&dir), host).unwrap();
    let second = Archiver::start(settings(&dir), host).err().unwrap();
    assert!(matches!(second, ArchiveError::Locked { .. }), "{second}");
    assert!(second.to_string().contains("another process"), "{second}");
    drop(first);
    Archiver::start(settings(&dir), host).unwrap();
}

/// Row ST-06: after a sync that failed nothing is called durable, whatever the next sync would say; whoever
/// starts writes it again.
#[test]
fn a_failed_sync_ends_the_claims_of_this_process() {
    let _one = ONE_AT_A_TIME.lock();
    faults(|faults| *faults = Faults::default());
    let dir = Dir::new("eio");
    let (mut writer, _) = open_on(&dir.archive(), faulty(), None).unwrap();
    assert_eq!(writer.append(&records(1, 100)).unwrap(), 100);
    faults(|faults| faults.sync_errno = Some(EIO));
    let failed = writer.append(&records(100, 200));
    assert!(matches!(failed, Err(ArchiveError::Failed { op: "fdatasync", .. })), "{failed:?}");
    let syncs = FAULTS.lock().unwrap().syncs;
    for _ in 0..3 {
        assert!(matches!(writer.retry(), Err(ArchiveError::Failed { .. })));
    }
    assert_eq!(FAULTS.lock().unwrap().syncs, syncs, "never tried again");
    assert_eq!(writer.next_seq(), Some(100), "0 false claims");
    drop(writer);
    // The block is in the page cache and looks whole; only up to 99 was confirmed.
    let (writer, recovered) = open_on(&dir.archive(), host(), Some(99)).unwrap();
    assert!(0 < recovered.unconfirmed);
    assert_eq!(writer.next_seq(), Some(100));
    assert_eq!(archived(&dir.archive(), UUID).0, records(1, 100));
}

/// Row ST-03: a full disk loses nothing, at whatever byte it was full; row ST-04: nor does a kill meanwhile.
#[test]
fn a_full_disk_is_waited_for_at_every_write() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = Dir::new("enospc");
    let root = dir.archive();
    let (mut at, mut fulls) = (1, 0);
    let one_file = Format { file_bytes: 1 << 30, ..format() };
    for writes in 0..40 {
        faults(|faults| *faults = Faults { write_max: Some(16), ..Faults::default() });
        let (mut writer, recovered) = open_as(&root, faulty(), None, one_file).unwrap();
        assert_eq!(recovered.torn.is_some(), 0 < writes, "what the kill before left: {writes}");
        faults(|faults| {
            (faults.writes_left, faults.write_errno) = (Some(writes), Some(ENOSPC));
        });
        let full = writer.append(&records(at, at + 300));
        assert!(matches!(full, Err(ArchiveError::NoSpace { .. })), "{full:?}");
        assert!(matches!(writer.retry(), Err(ArchiveError::NoSpace { .. })));
        assert!(writer.is_pending());
        fulls += 2;
        if writes % 2 == 0 {
            faults(|faults| *faults = Faults::default());
            at += 300;
            assert_eq!(writer.retry().unwrap(), at);
            assert_eq!(writer.append(&records(at, at + 1)).unwrap(), at + 1);
            at += 1;
            // A block in the way of being written when the process is killed.
            faults(|faults| {
                let (left, errno) = (Some(3), Some(ENOSPC));
                *faults = Faults { writes_left: left, write_errno: errno, ..Faults::default() };
                faults.write_max = Some(16);
            });
            assert!(writer.append(&records(at, at + 9)).is_err());
        }
    }
    faults(|faults| *faults = Faults::default());
    assert_eq!(archived(&root, UUID), (records(1, at), Vec::new()));
    println!("figure ST-03: {fulls} times full, {} records, 0 lost", at - 1);
}

/// A write error that is no full disk ends the claims as well, also where a file is made.
#[test]
fn other_errors_are_not_tried_again() {
    let _one = ONE_AT_A_TIME.lock();
    for at_create in [false, true] {
        faults(|faults| *faults = Faults::default());
        let dir = Dir::new("eio-write");
        let (mut writer, _) = open_on(&dir.archive(), faulty(), None).unwrap();
        faults(|faults| match at_create {
            true => faults.create_errno = Some(EIO),
            false => faults.write_errno = Some(EIO),
        });
        assert!(matches!(writer.append(&records(1, 9)), Err(ArchiveError::Failed { .. })));
        faults(|faults| *faults = Faults::default());
        assert!(matches!(writer.retry(), Err(ArchiveError::Failed { .. })));
        assert_eq!(writer.next_seq(), None);
    }
}

/// A file in which a byte is wrong is refused with what, where and what to do; nothing of it is cut.
#[test]
fn damage_is_refused_and_kept() {
    let dir = Dir::new("damage");
    let root = dir.archive();
    let (mut writer, _) = open(&root).unwrap();
    for at in 0..5 {
        writer.append(&records(1 + at * 100, 101 + at * 100)).unwrap();
    }
    drop(writer);
    let path = last_file(&root);
    let whole = fs::read(&path).unwrap();
    for at in [3, 40, 130, 200, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 16;
        fs::write(&path, &bytes).unwrap();
        let refused = open(&root).err().unwrap();
        assert!(matches!(refused, ArchiveError::Damaged { .. }), "{at}: {refused}");
        assert!(refused.to_string().contains("evidence"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "untouched");
    }
    // A write that was cut short is put aside and cut.
    fs::write(&path, &whole[..whole.len() - 40]).unwrap();
    let (writer, recovered) = open(&root).unwrap();
    let (bytes, aside) = recovered.torn.unwrap();
    assert_eq!(fs::read(aside).unwrap().len() as u64, bytes);
    assert_eq!(writer.next_seq(), Some(401));
}

/// The thread archives, publishes, and lets segments go once a checkpoint covers them.
#[test]
fn segments_go_when_they_are_durable_and_covered() {
    let dir = Dir::new("release");
    let mut writer = journal(&dir.journal(), &spec());
    let uuid = writer.uuid();
    append(&mut writer, 200);
    let mut archiver = Archiver::start(settings(&dir), host).unwrap();
    append(&mut writer, 8_000);
    let status = archiver.status();
    until("durable", || status.now().durable_seq == 8_200);
    until("released", || oldest_seq(&dir.journal(), record_schema()).unwrap().1 > 7_000);
    let (segment, durable) = read_released(&dir.journal()).unwrap();
    assert_eq!(durable, 8_200);
    let (_, oldest) = oldest_seq(&dir.journal(), record_schema()).unwrap();
    let kept = checkpoint::read(&dir.journal()).unwrap().unwrap();
    assert_eq!((kept.uuid, kept.seq + 1), (uuid, oldest), "it covers what is gone, exactly");
    let reader = JournalReader::<Record>::open(&dir.journal(), record_schema()).unwrap();
    assert_eq!(reader.segment(), segment + 1);
    let now = status.now();
    assert_eq!((now.state, now.trouble, now.records), (State::Archiving, None, 8_200));
    assert!(archiver.stop(Duration::from_secs(5)));
    assert_eq!(status.now().state, State::Stopped);
    let (found, missing) = archived(&dir.archive(), uuid);
    assert!(missing.is_empty());
    assert!(found.iter().zip(1..).all(|(record, seq)| *record == journaled(uuid, seq)));
    assert_eq!(found.len(), 8_200);

    // Another one goes on, and makes the checkpoint anew out of the archive if it is not there.
    fs::remove_file(dir.journal().join(checkpoint::CHECKPOINT)).unwrap();
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    append(&mut writer, 3_000);
    let status = archiver.status();
    until("durable", || status.now().durable_seq == 11_200);
    until("released", || oldest_seq(&dir.journal(), record_schema()).unwrap().1 > 10_000);
    let kept = checkpoint::read(&dir.journal()).unwrap().unwrap();
    assert!(9_000 < kept.seq);
    drop(archiver);

    // The archive that has what is missing here is not: refused, nothing is released.
    fs::rename(dir.archive(), dir.0.join("elsewhere")).unwrap();
    fs::create_dir_all(dir.archive()).unwrap();
    let moved = list_journals(&dir.0.join("elsewhere")).unwrap().remove(0);
    let first = file_path(&moved.dir, 1);
    let old = dir.archive().join(moved.dir.file_name().unwrap());
    fs::create_dir_all(&old).unwrap();
    fs::copy(&first, file_path(&old, 1)).unwrap();
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let status = archiver.status();
    until("refused", || status.now().state == State::Refused);
    let trouble = status.now().trouble.unwrap();
    assert!(trouble.contains("oldest record in shared memory"), "{trouble}");
    until("pause wanted", || status.now().pause_wanted.is_some());
}

/// A full disk stops releases and reading, is told, and is over when there is room.
#[test]
fn the_thread_waits_for_room_and_tells() {
    let _one = ONE_AT_A_TIME.lock();
    faults(|faults| {
        *faults = Faults { write_errno: Some(ENOSPC), ..Faults::default() };
    });
    let dir = Dir::new("wait");
    let mut writer = journal(&dir.journal(), &spec());
    append(&mut writer, 3_000);
    let archiver = Archiver::start(settings(&dir), faulty).unwrap();
    let status = archiver.status();
    until("told", || status.now().state == State::NoSpace);
    until("pause wanted", || status.now().pause_wanted.is_some());
    assert_eq!(status.now().durable_seq, 0);
    faults(|faults| *faults = Faults::default());
    until("over", || status.now().durable_seq == 3_000);
    assert_eq!((status.now().state, status.now().trouble), (State::Archiving, None));
    // A failed sync is for good.
    faults(|faults| faults.sync_errno = Some(EIO));
    append(&mut writer, 50);
    until("failed", || status.now().state == State::Failed);
    append(&mut writer, 5_000);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(status.now().durable_seq, 3_000, "0 false claims");
    assert_eq!(read_released(&dir.journal()).unwrap().1, 3_000);
    drop(archiver);
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let status = archiver.status();
    until("a new process goes on", || status.now().durable_seq == 8_050);
    drop(archiver);
    let (found, missing) = archived(&dir.archive(), writer.uuid());
    assert_eq!((found.len(), missing), (8_050, Vec::new()));
}

/// A journal that is begun anew, as after a reboot, is another folder; the old one stays.
#[test]
fn a_new_journal_follows_the_old_one() {
    let dir = Dir::new("anew");
    let mut uuids = Vec::new();
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let status = archiver.status();
    for round in 1..=3 {
        let mut writer = journal(&dir.journal(), &spec());
        uuids.push(writer.uuid());
        append(&mut writer, 700 * round);
        let uuid = writer.uuid();
        until("archived", || {
            status.now().durable_seq == 700 * round
                && list_journals(&dir.archive()).unwrap().iter().any(|found| found.uuid == uuid)
        });
        drop(writer);
        fs::remove_dir_all(dir.journal()).unwrap();
    }
    drop(archiver);
    let journals = list_journals(&dir.archive()).unwrap();
    let found: Vec<u128> = journals.iter().map(|journal| journal.uuid).collect();
    assert_eq!(found, uuids, "in order");
    for (uuid, round) in uuids.iter().zip(1..) {
        assert_eq!(archived(&dir.archive(), *uuid).0.len() as u64, 700 * round);
    }
}

#[test]
fn retention_removes_whole_files_from_the_beginning_and_never_the_last() {
    let dir = Dir::new("retain");
    let root = dir.archive();
    let (mut writer, _) = open(&root).unwrap();
    for at in 0..60 {
        writer.append(&records(1 + at * 500, 501 + at * 500)).unwrap();
    }
    let journal = list_journals(&root).unwrap().remove(0);
    let before = list_files(&journal.dir).unwrap();
    assert!(4 < before.len());
    let disk = host();
    assert_eq!(retain(&*disk, &root, Retention::default(), SystemTime::now()).unwrap().len(), 0);
    let sizes = |firsts: &[u64]| -> u64 {
        firsts
            .iter()
            .map(|first| fs::metadata(file_path(&journal.dir, *first)).unwrap().len())
            .sum()
    };
    let keep = Retention { age: None, bytes: Some(sizes(&before[2..])) };
    assert_eq!(retain(&*disk, &root, keep, SystemTime::now()).unwrap().len(), 2);
    assert_eq!(list_files(&journal.dir).unwrap(), before[2..]);
    let (found, missing) = archived(&root, UUID);
    assert_eq!((found[0].seq, found.len() as u64), (before[2], 30_001 - before[2]));
    assert!(missing.is_empty());
    let later = SystemTime::now() + Duration::from_secs(3_601);
    let keep = Retention { age: Some(Duration::from_secs(3_600)), bytes: None };
    retain(&*disk, &root, keep, later).unwrap();
    assert_eq!(list_files(&journal.dir).unwrap(), before[before.len() - 1..], "the last stays");
    // The writer goes on, and so does whoever comes after it.
    writer.append(&records(30_001, 30_010)).unwrap();
    drop(writer);
    assert_eq!(open(&root).unwrap().0.next_seq(), Some(30_010));
}

/// A hole of zeros, as a power cut leaves it, is a torn end; the same in the middle is damage.
#[test]
fn zeros_at_the_end_are_torn_and_elsewhere_damage() {
    let dir = Dir::new("zeros");
    let root = dir.archive();
    let (mut writer, _) = open(&root).unwrap();
    for at in 0..4 {
        writer.append(&records(1 + at * 100, 101 + at * 100)).unwrap();
    }
    drop(writer);
    let path = last_file(&root);
    let whole = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4_096], whole.len() as u64).unwrap();
    let (writer, recovered) = open(&root).unwrap();
    assert_eq!((writer.next_seq(), recovered.torn.unwrap().0), (Some(401), 4_096));
    drop(writer);
    file.write_all_at(&[0; 64], (whole.len() / 3) as u64).unwrap();
    assert!(matches!(open(&root), Err(ArchiveError::Damaged { .. })));
}

/// A directory that cannot be used yet, a disk that is not mounted: told, and over when it can.
#[test]
fn a_directory_that_cannot_be_made_is_tried_again() {
    let dir = Dir::new("unusable");
    fs::write(dir.archive(), "a file where the directory should be").unwrap();
    let mut writer = journal(&dir.journal(), &spec());
    append(&mut writer, 100);
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let status = archiver.status();
    until("told", || status.now().state == State::Refused);
    assert!(status.now().trouble.unwrap().contains("archive"));
    fs::remove_file(dir.archive()).unwrap();
    until("over", || status.now().durable_seq == 100);
    assert_eq!(status.now().trouble, None);
}
