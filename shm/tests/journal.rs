//! The journal through its public face: roundtrip, fullness, resumption, damage.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Dice, Record, SCHEMA, TestDir};
use proptest::prelude::*;
use tandem_shm::journal::Frame;
use tandem_shm::{
    JournalError, JournalFull, JournalMonitor, JournalReader, JournalRelease, JournalSpec,
    JournalWriter, Producer, VerifyReport, tsc, verify,
};

/// Two pages: a header and 32 frames.
const FRAMES: u64 = 32;
const SEGMENT_BYTES: u64 = 4096 + FRAMES * 128;

fn spec() -> JournalSpec {
    JournalSpec {
        segment_bytes: SEGMENT_BYTES,
        segments_max: 1000,
        segments_ahead: 2,
        reserve_frames: 0,
        lock_memory: false,
        ..JournalSpec::new(SCHEMA)
    }
}

type Writer = JournalWriter<Record>;

/// Appends records `next_seq ..`, waiting for the helper where a hot thread would do without.
#[track_caller]
fn append(writer: &mut Writer, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..count {
        let seq = writer.next_seq();
        loop {
            match writer.append(&Record::of(seq)) {
                Ok(appended) => break assert_eq!(appended, seq),
                Err(full) => {
                    assert!(Instant::now() < deadline, "{full} {:?}", writer.helper_failure());
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
    }
}

#[track_caller]
fn read_all(dir: &Path, first: u64) -> u64 {
    let mut reader = JournalReader::<Record>::open(dir, SCHEMA).unwrap();
    let mut seq = first;
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.seq, seq);
        record.check(seq);
        seq += 1;
    }
    assert_eq!(reader.next_seq(), seq);
    seq - 1
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("seg-{number:08}.tj"))
}

fn patch(dir: &Path, number: u64, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path(dir, number)).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn frame_offset(frame: u64) -> u64 {
    4096 + frame * 128
}

/// A journal of three segments that was closed: 32 + 32 + 6 records.
fn three_segments(name: &str) -> TestDir {
    let dir = TestDir::new(name);
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, 70);
    writer.close().unwrap();
    dir
}

#[test]
fn records_come_back_across_segments() {
    let dir = three_segments("roundtrip");
    assert_eq!(read_all(&dir, 1), 70);
    let report = verify(&dir, SCHEMA).unwrap();
    assert!(report.is_sound());
    assert_eq!((report.segments, report.prepared, report.records), (3, 0, 70));
    assert_eq!((report.first_seq, report.last_seq, report.bytes), (1, 70, 70 * 128));
    assert_eq!((report.torn_tail, report.chain_ok), (None, true));
    let reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
    assert_eq!(reader.uuid(), report.uuid);
}

#[test]
fn the_high_half_of_the_last_word_is_ours() {
    let dir = TestDir::new("half");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    let record = Record { checksum: 0xffff_ffff, last: 0xabcd, ..Record::of(5) };
    writer.append(&record).unwrap();
    let read = JournalReader::<Record>::open(&dir, SCHEMA).unwrap().next().unwrap().unwrap();
    assert_eq!((read.seq, read.last, read.words), (1, 0xabcd, record.words));
}

#[test]
fn a_reader_follows_a_live_writer() {
    const COUNT: u64 = 3_000;
    let dir = TestDir::new("follow");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    std::thread::scope(|scope| {
        let dir = &*dir;
        let reading = scope.spawn(move || {
            let mut reader = JournalReader::<Record>::open(dir, SCHEMA).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut seq = 1;
            while seq <= COUNT {
                match reader.next().unwrap() {
                    Some(record) => {
                        record.check(seq);
                        seq += 1;
                    }
                    None => {
                        assert!(Instant::now() < deadline, "stuck at {seq}");
                        std::thread::yield_now();
                    }
                }
            }
        });
        append(&mut writer, COUNT);
        // Verified while it is open: prepared segments are no damage.
        let report = verify(dir, SCHEMA).unwrap();
        assert!(report.is_sound(), "{:?}", report.faults);
        assert_eq!(report.records, COUNT);
        reading.join().unwrap();
    });
}

/// A verification beside a writer that never stops must not see damage that is not there.
#[test]
fn a_live_journal_verifies_at_any_moment() {
    let dir = TestDir::new("live");
    let spec = JournalSpec { segment_bytes: 1 << 20, segments_max: 40, ..spec() };
    let mut writer = Writer::create(&dir, &spec).unwrap();
    std::thread::scope(|scope| {
        let dir = &*dir;
        let verifying = scope.spawn(move || {
            let mut last = 0;
            for _ in 0..20 {
                let report = verify(dir, SCHEMA).unwrap();
                assert!(report.is_sound(), "{:?}", report.faults);
                assert!(report.last_seq >= last);
                last = report.last_seq;
            }
        });
        while !verifying.is_finished() {
            let seq = writer.next_seq();
            let _ = writer.append(&Record::of(seq));
        }
        verifying.join().unwrap();
    });
}

#[test]
fn reading_starts_anywhere() {
    let dir = three_segments("from");
    for from in [1, 2, 31, 32, 33, 34, 64, 65, 70] {
        let mut reader = JournalReader::<Record>::open_from(&dir, SCHEMA, from).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().seq, from);
    }
    for beyond in [71, 1000] {
        let mut reader = JournalReader::<Record>::open_from(&dir, SCHEMA, beyond).unwrap();
        assert!(reader.next().unwrap().is_none());
    }
    let mut reader = JournalReader::<Record>::open_from(&dir, SCHEMA, 0).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().seq, 1);
}

#[test]
fn a_full_journal_refuses_keeps_its_reserve_and_loses_nothing() {
    let dir = TestDir::new("full");
    let spec = JournalSpec { segments_max: 3, reserve_frames: 10, ..spec() };
    let mut writer = Writer::create(&dir, &spec).unwrap();
    append(&mut writer, 3 * FRAMES - 10);
    let full = writer.append(&Record::of(0)).unwrap_err();
    assert_eq!(full, JournalFull { next_seq: 3 * FRAMES - 9, segments: 3, segments_max: 3 });
    assert!(full.to_string().contains("until the drain releases segments"), "{full}");
    for _ in 0..10 {
        let seq = writer.next_seq();
        assert_eq!(writer.append_reserved(&Record::of(seq)), Ok(seq));
    }
    assert!(writer.append_reserved(&Record::of(0)).is_err());
    assert_eq!((writer.room(), writer.next_seq()), (0, 3 * FRAMES + 1));
    assert_eq!(read_all(&dir, 1), 3 * FRAMES);

    // Released up to far more than there is: the segment in use stays.
    writer.release_up_to(99);
    append(&mut writer, FRAMES);
    assert!(!path(&dir, 1).exists() && !path(&dir, 2).exists());
    let report = verify(&dir, SCHEMA).unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
    assert_eq!(report.last_seq, 4 * FRAMES);
}

#[test]
fn the_drain_releases_from_its_own_page_and_never_takes_back() {
    let dir = TestDir::new("release");
    let spec = JournalSpec { segments_max: 4, ..spec() };
    let mut writer = Writer::create(&dir, &spec).unwrap();
    append(&mut writer, 2 * FRAMES + 1);
    let mut release = JournalRelease::create(&dir).unwrap();
    release.release_up_to(1, FRAMES);
    wait_until(|| !path(&dir, 1).exists());
    assert!(path(&dir, 2).exists() && path(&dir, 3).exists());
    // A restart of the drain carries on from its last word.
    drop(release);
    let mut release = JournalRelease::create(&dir).unwrap();
    assert_eq!((release.segment(), release.durable_seq()), (1, FRAMES));
    release.release_up_to(0, 5);
    assert_eq!((release.segment(), release.durable_seq()), (1, FRAMES));
    release.release_up_to(2, 2 * FRAMES);
    wait_until(|| !path(&dir, 2).exists());
    assert_eq!(tandem_shm::journal::read_released(&dir), Some((2, 2 * FRAMES)));
    assert_eq!(read_all(&dir, 2 * FRAMES + 1), 2 * FRAMES + 1);
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_monitor_sees_the_writer_live_die_and_return() {
    let dir = TestDir::new("monitor");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    let mut monitor = JournalMonitor::open(&dir, SCHEMA, Duration::ZERO).unwrap();
    append(&mut writer, 7);
    assert_eq!(monitor.next_seq(), 1, "lazy");
    writer.beat(tsc());
    assert_eq!((monitor.next_seq(), monitor.epoch()), (8, 1));
    assert!(monitor.producer(tsc(), 2_600_000).is_live());
    drop(writer);
    let late = tsc() + (1 << 40);
    assert_eq!(monitor.producer(late, 2_600_000), Producer::Dead { epoch: 1, last_seq: 7 });
    let writer = Writer::resume(&dir, &spec()).unwrap();
    assert_eq!(monitor.producer(late, 2_600_000), Producer::Superseded { epoch: 2 });
    assert!(monitor.reattach().unwrap());
    writer.close().unwrap();
    assert_eq!(monitor.producer(late, 2_600_000), Producer::Closed);
    assert_eq!(monitor.next_seq(), 8);
}

#[test]
fn a_reader_that_was_too_slow_is_told() {
    let dir = TestDir::new("slow");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, 4 * FRAMES);
    let mut reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
    reader.next().unwrap().unwrap();
    writer.release_up_to(3);
    wait_until(|| !path(&dir, 3).exists());
    // The mapping of the segment it is in stays good to the end.
    for _ in 1..FRAMES {
        reader.next().unwrap().unwrap();
    }
    let error = reader.next().unwrap_err();
    assert!(matches!(error, JournalError::SegmentMissing { expected: 2, found: 4, .. }), "{error}");
}

#[test]
fn a_journal_is_resumed_after_its_last_record_in_a_linked_segment() {
    let dir = TestDir::new("resume");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, 40);
    let uuid = writer.uuid();
    let mut reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
    for _ in 0..40 {
        reader.next().unwrap().unwrap();
    }
    // It holds the prepared segment that the resumed writer will replace.
    assert!(reader.next().unwrap().is_none());
    drop(writer);
    for round in 0..4_u64 {
        let mut writer = Writer::resume(&dir, &spec()).unwrap();
        assert_eq!((writer.uuid(), writer.epoch()), (uuid, 2 + 2 * round));
        assert_eq!(writer.next_seq(), 41 + 3 * round);
        append(&mut writer, 3);
        for _ in 0..3 {
            reader.next().unwrap().unwrap();
        }
        assert!(reader.next().unwrap().is_none());
        // Resumed and dropped without a record: no segment is used up for that.
        drop(writer);
        let writer = Writer::resume(&dir, &spec()).unwrap();
        assert_eq!(writer.position().segment, 0);
        if round % 2 == 0 {
            writer.close().unwrap();
            reader.next().unwrap();
        }
    }
    let report = verify(&dir, SCHEMA).unwrap();
    assert!(report.is_sound(), "{:?}", report.faults);
    assert_eq!((report.segments, report.records, report.last_seq), (6, 52, 52));
    assert_eq!(read_all(&dir, 1), 52);
}

#[test]
fn an_append_cut_short_is_cut_off_and_nothing_else() {
    let dir = TestDir::new("torn");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, 5);
    drop(writer);
    // What a kill in the middle of append leaves: words, and no sequence.
    patch(&dir, 1, frame_offset(5) + 8, &[0xaa; 60]);
    let report = verify(&dir, SCHEMA).unwrap();
    let torn = report.torn_tail.unwrap();
    assert!(report.is_sound());
    assert_eq!((torn.segment, torn.offset, torn.seq), (1, frame_offset(5), 6));
    assert_eq!(read_all(&dir, 1), 5);

    let mut writer = Writer::resume(&dir, &spec()).unwrap();
    assert_eq!(writer.next_seq(), 6);
    append(&mut writer, 1);
    let report = verify(&dir, SCHEMA).unwrap();
    assert_eq!((report.is_sound(), report.torn_tail, report.records), (true, None, 6));
}

#[test]
fn a_torn_frame_with_anything_behind_it_is_damage() {
    for (frame, bytes, found) in [
        (5, &[0_u8, 0, 0, 0, 0, 0, 0, 0, 1][..], Frame::Uncommitted),
        (6, &[6, 0, 0, 0, 0, 0, 0, 0, 1][..], Frame::Empty),
        (5, &[6, 0, 0, 0, 0, 0, 0, 0, 1][..], Frame::BadChecksum),
        (5, &[9, 0, 0, 0, 0, 0, 0, 0, 1][..], Frame::WrongSequence),
    ] {
        let dir = TestDir::new("junk");
        let mut writer = Writer::create(&dir, &spec()).unwrap();
        append(&mut writer, 5);
        drop(writer);
        patch(&dir, 1, frame_offset(frame), bytes);
        if found == Frame::Uncommitted {
            patch(&dir, 1, frame_offset(20), &[1]);
        }
        let report = verify(&dir, SCHEMA).unwrap();
        assert!(!report.is_sound());
        assert!(
            matches!(report.faults[0], JournalError::Corrupt { frame: 5, seq: 6, found: what, .. } if what == found),
            "{:?}",
            report.faults
        );
        let before = fs::read(path(&dir, 1)).unwrap();
        let error = Writer::resume(&dir, &spec()).unwrap_err();
        assert!(matches!(error, JournalError::Corrupt { frame: 5, .. }), "{error}");
        assert!(error.to_string().contains("keep the file as evidence"), "{error}");
        assert_eq!(fs::read(path(&dir, 1)).unwrap(), before, "the evidence is untouched");
    }
}

#[test]
fn death_while_a_segment_is_taken_into_use_costs_nothing() {
    let dir = TestDir::new("unfinished");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, 5);
    wait_until(|| path(&dir, 2).exists() && path(&dir, 3).exists());
    drop(writer);
    // The header of segment 2, but for its magic.
    let header = fs::read(path(&dir, 1)).unwrap();
    patch(&dir, 2, 8, &header[8..60]);
    // And what a helper leaves that was killed over its work.
    fs::write(dir.join("seg-00000004.tj.tmp"), [0; 100]).unwrap();
    let report = verify(&dir, SCHEMA).unwrap();
    assert_eq!((report.is_sound(), report.unfinished, report.prepared), (true, 1, 1));
    assert_eq!(read_all(&dir, 1), 5);
    let mut writer = Writer::resume(&dir, &spec()).unwrap();
    append(&mut writer, 1);
    writer.close().unwrap();
    let report = verify(&dir, SCHEMA).unwrap();
    assert_eq!((report.is_sound(), report.segments, report.records), (true, 2, 6));
}

/// Returns whether a verification notices.
fn is_noticed(answer: Result<VerifyReport, JournalError>) -> bool {
    answer.map_or(true, |report| !report.is_sound() || report.torn_tail.is_some())
}

#[test]
fn every_flipped_bit_of_every_byte_is_noticed() {
    let dir = TestDir::new("flip");
    let mut writer = Writer::create(&dir, &spec()).unwrap();
    append(&mut writer, FRAMES + 3);
    writer.close().unwrap();
    assert!(!is_noticed(verify(&dir, SCHEMA)));
    let mut undetected = Vec::new();
    let mut flips = 0;
    for number in [1, 2] {
        let file = File::options().read(true).write(true).open(path(&dir, number)).unwrap();
        for offset in 0..SEGMENT_BYTES {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            // Every bit of header and frames in use; one in turn of the zeros behind.
            let in_use = offset < 128
                || (4096..frame_offset(if number == 1 { FRAMES } else { 4 })).contains(&offset);
            for bit in (0..8).filter(|bit| in_use || *bit == offset % 8) {
                file.write_all_at(&[byte[0] ^ 1 << bit], offset).unwrap();
                flips += 1;
                if !is_noticed(verify(&dir, SCHEMA)) {
                    undetected.push((number, offset, bit));
                }
            }
            file.write_all_at(&byte, offset).unwrap();
        }
    }
    assert!(!is_noticed(verify(&dir, SCHEMA)));
    println!("{flips} flips");
    assert_eq!(undetected, [], "of {flips} flips");
}

#[test]
fn a_reader_never_returns_a_damaged_record() {
    let dir = three_segments("damage");
    let mut dice = Dice(0x5eed);
    for _ in 0..300 {
        let (number, frame) = (1 + dice.below(3), dice.below(FRAMES));
        let offset = frame_offset(frame) + dice.below(128);
        let file = File::options().read(true).write(true).open(path(&dir, number)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << dice.below(8)], offset).unwrap();
        let mut reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
        let mut seq = 1;
        while let Ok(Some(record)) = reader.next() {
            record.check(seq);
            seq += 1;
        }
        let first_damaged = (number - 1) * FRAMES + frame + 1;
        assert!(seq <= first_damaged.min(71), "{seq} with damage at {first_damaged}");
        file.write_all_at(&byte, offset).unwrap();
    }
    assert_eq!(read_all(&dir, 1), 70);
}

/// Everything a reader gives until its end or its fault, one by one, or so many at once.
fn given(dir: &Path, at_once: Option<usize>) -> (Vec<u64>, Option<String>) {
    let mut reader = match JournalReader::<Record>::open(dir, SCHEMA) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut room = vec![Record::of(0); at_once.unwrap_or(1)];
    let mut seqs = Vec::new();
    loop {
        let count = match at_once {
            Some(_) => reader.fill(&mut room),
            None => reader.next().map(|record| {
                record.map_or(0, |record| {
                    room[0] = record;
                    1
                })
            }),
        };
        match count {
            Ok(0) => return (seqs, None),
            Ok(count) => {
                room[..count].iter().for_each(|record| record.check(record.seq));
                seqs.extend(room[..count].iter().map(|record| record.seq));
            }
            Err(error) => return (seqs, Some(error.to_string())),
        }
    }
}

#[test]
fn many_at_once_are_those_one_by_one_with_the_same_fault() {
    let sound = three_segments("fill");
    assert_eq!(given(&sound, Some(7)), ((1..=70).collect(), None));
    let mut dice = Dice(9);
    let mut faults = 0;
    for case in 0..120 {
        let dir = three_segments(&format!("fill-{case}"));
        match dice.below(4) {
            0 => fs::remove_file(path(&dir, 2)).unwrap(),
            // Behind the last record of a segment everything is zero: as if the writer had died there.
            1 => patch(&dir, 3, frame_offset(dice.below(6)), &[0; 128]),
            _ => {
                let (number, frame) = (1 + dice.below(3), dice.below(32));
                let at = frame_offset(frame) + dice.below(128);
                patch(&dir, number, at, &[dice.below(256) as u8]);
            }
        }
        let one_by_one = given(&dir, None);
        faults += u32::from(one_by_one.1.is_some());
        for at_once in [1, 3, 32, 64, 200] {
            assert_eq!(given(&dir, Some(at_once)), one_by_one, "case {case}, {at_once} at once");
        }
    }
    assert!(30 < faults, "{faults} faults");
}

#[test]
fn lost_foreign_and_swapped_segments_show() {
    let dir = three_segments("lost");
    fs::remove_file(path(&dir, 2)).unwrap();
    let report = verify(&dir, SCHEMA).unwrap();
    assert!(!report.is_sound() && !report.chain_ok);
    assert!(matches!(report.faults[0], JournalError::SegmentMissing { expected: 2, found: 3, .. }));

    let (dir, other) = (three_segments("ours"), three_segments("theirs"));
    fs::copy(path(&other, 2), path(&dir, 2)).unwrap();
    let report = verify(&dir, SCHEMA).unwrap();
    assert!(!report.is_sound() && !report.chain_ok);
    let mut reader = JournalReader::<Record>::open(&dir, SCHEMA).unwrap();
    for _ in 0..FRAMES {
        reader.next().unwrap().unwrap();
    }
    let error = reader.next().unwrap_err();
    assert!(error.to_string().contains("another journal"), "{error}");

    let dir = three_segments("swapped");
    fs::rename(path(&dir, 1), dir.join("x")).unwrap();
    fs::rename(path(&dir, 2), path(&dir, 1)).unwrap();
    fs::rename(dir.join("x"), path(&dir, 2)).unwrap();
    assert!(!verify(&dir, SCHEMA).unwrap().is_sound());

    // A frame of another journal, at its very place and with its sequence.
    let (dir, other) = (three_segments("frame"), three_segments("donor"));
    let foreign = fs::read(path(&other, 1)).unwrap();
    patch(&dir, 1, frame_offset(3), &foreign[frame_offset(3) as usize..][..128]);
    assert!(matches!(
        verify(&dir, SCHEMA).unwrap().faults[0],
        JournalError::Corrupt { frame: 3, found: Frame::BadChecksum, .. }
    ));
}

#[test]
fn a_truncated_segment_shows_and_the_rest_is_reported() {
    for bytes in [0, 100, 4096, 4200, SEGMENT_BYTES - 1] {
        let dir = three_segments("truncated");
        File::options().write(true).open(path(&dir, 2)).unwrap().set_len(bytes).unwrap();
        let report = verify(&dir, SCHEMA).unwrap();
        assert!(!report.is_sound());
        assert_eq!(report.records, 38, "segments 1 and 3");
    }
}

#[test]
fn a_copied_directory_verifies_and_reads() {
    let dir = three_segments("source");
    let copy = std::env::temp_dir().join(format!("tandem-copy-{}", std::process::id()));
    fs::create_dir_all(&copy).unwrap();
    for number in 1..=3 {
        fs::copy(path(&dir, number), path(&copy, number)).unwrap();
    }
    let report = verify(&copy, SCHEMA);
    let last = read_all(&copy, 1);
    fs::remove_dir_all(&copy).unwrap();
    assert!(report.unwrap().is_sound());
    assert_eq!(last, 70);
}

#[test]
fn the_wrong_start_is_refused_with_the_fix() {
    let dir = TestDir::new("refused");
    let text = Writer::resume(&dir, &spec()).unwrap_err().to_string();
    assert!(text.contains("create it first"), "{text}");
    let text = verify(&dir, SCHEMA).unwrap_err().to_string();
    assert!(text.contains("create it first"), "{text}");
    let error = JournalReader::<Record>::open(&dir, SCHEMA).unwrap_err();
    assert!(matches!(error, JournalError::Missing { .. }));

    let writer = Writer::create(&dir, &spec()).unwrap();
    let text = Writer::create(&dir, &spec()).unwrap_err().to_string();
    assert!(text.contains("resume it"), "{text}");
    let text = Writer::resume(&dir, &spec()).unwrap_err().to_string();
    assert!(text.contains("locked by a living producer"), "{text}");
    writer.close().unwrap();

    let other = JournalSpec { schema_hash: 1, ..spec() };
    for error in [
        Writer::resume(&dir, &other).unwrap_err(),
        verify(&dir, 1).unwrap_err(),
        JournalReader::<Record>::open(&dir, 1).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains("0x0000000000000001") && text.contains("0x000000007a3d0001"),
            "{text}"
        );
    }
    for (field, bad) in [
        ("segment_bytes", JournalSpec { segment_bytes: 4096, ..spec() }),
        ("segments_max", JournalSpec { segments_max: 1, ..spec() }),
        ("segments_ahead", JournalSpec { segments_ahead: 0, ..spec() }),
        ("segments_ahead", JournalSpec { segments_ahead: 1000, ..spec() }),
        ("reserve_frames", JournalSpec { reserve_frames: FRAMES, ..spec() }),
    ] {
        let dir = TestDir::new("bad");
        let text = Writer::create(&dir, &bad).unwrap_err().to_string();
        assert!(text.contains(field) && text.contains("must be"), "{text}");
    }
}

#[test]
fn a_journal_at_its_limit_resumes_only_after_a_release() {
    let dir = TestDir::new("limit");
    let spec = JournalSpec { segments_max: 3, ..spec() };
    let mut writer = Writer::create(&dir, &spec).unwrap();
    append(&mut writer, 3 * FRAMES);
    drop(writer);
    let text = Writer::resume(&dir, &spec).unwrap_err().to_string();
    assert!(text.contains("3 segments") && text.contains("let the drain release"), "{text}");
    // The drain needs no living writer to say so.
    let mut release = JournalRelease::create(&dir).unwrap();
    release.release_up_to(2, 2 * FRAMES);
    let mut writer = Writer::resume(&dir, &spec).unwrap();
    append(&mut writer, 1);
    assert_eq!(read_all(&dir, 2 * FRAMES + 1), 3 * FRAMES + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is appended, dropped, resumed and closed: the same records, in order, and sound.
    #[test]
    fn a_journal_is_the_list_of_its_appends(
        rounds in proptest::collection::vec((0_u64..80, any::<bool>()), 1..5),
        pages in 2_u64..5,
    ) {
        let dir = TestDir::new("rounds");
        let spec = JournalSpec { segment_bytes: pages * 4096, ..spec() };
        let mut writer = Some(Writer::create(&dir, &spec).unwrap());
        let mut total = 0;
        for (count, clean) in rounds {
            let mut open = writer.take().unwrap_or_else(|| Writer::resume(&dir, &spec).unwrap());
            append(&mut open, count);
            total += count;
            if clean { open.close().unwrap() } else { drop(open) }
            let report = verify(&dir, SCHEMA).unwrap();
            prop_assert!(report.is_sound(), "{:?}", report.faults);
            prop_assert_eq!((report.records, report.last_seq), (total, total));
            prop_assert_eq!(read_all(&dir, 1), total);
        }
    }
}
