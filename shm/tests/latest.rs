//! The page of latest values through its public face.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{SCHEMA, TestDir};
use proptest::prelude::*;
use tandem_shm::{LatestReader, LatestSpec, LatestWriter, Producer, tsc};

fn writer(dir: &TestDir, entries: usize, words: usize) -> LatestWriter {
    LatestWriter::create(dir, &LatestSpec::new("page", entries, words, SCHEMA)).unwrap()
}

fn reader(dir: &TestDir) -> LatestReader {
    LatestReader::open(dir, "page", SCHEMA, Duration::ZERO).unwrap()
}

#[test]
fn an_entry_holds_its_last_value_and_length() {
    let dir = TestDir::new("latest");
    let mut writer = writer(&dir, 3, 5);
    let reader = reader(&dir);
    let mut out = vec![0; reader.words_max()];
    assert_eq!((reader.entries(), reader.read(1, &mut out), reader.version(1)), (3, None, 0));
    writer.write(1, &[1, 2, 3, 4, 5]);
    writer.write(1, &[9, 8]);
    assert_eq!(reader.read(1, &mut out), Some(2));
    assert_eq!(&out[..2], [9, 8]);
    let version = reader.version(1);
    writer.write(1, &[]);
    assert_eq!(reader.read(1, &mut out), Some(0), "empty is a value too");
    assert_ne!(reader.version(1), version);
    assert_eq!((reader.read(0, &mut out), reader.read(2, &mut out)), (None, None));
}

#[test]
fn an_entry_whose_writer_died_in_it_is_none_and_others_are_not() {
    let dir = TestDir::new("stuck");
    let mut writer = writer(&dir, 2, 5);
    writer.write(0, &[1]);
    writer.write(1, &[2]);
    drop(writer);
    let mut reader = reader(&dir);
    let file = File::options().write(true).open(dir.join("page")).unwrap();
    file.write_all_at(&3_u64.to_le_bytes(), 4096).unwrap();
    let mut out = [0; 16];
    assert_eq!(reader.read(0, &mut out), None);
    assert_eq!(reader.read(1, &mut out), Some(1));
    let late = tsc() + (1 << 40);
    assert!(matches!(reader.producer(late, 2_600_000), Producer::Dead { epoch: 1, .. }));
    let mut heir = self::writer(&dir, 2, 5);
    assert_eq!(reader.producer(late, 2_600_000), Producer::Superseded { epoch: 2 });
    assert!(reader.reattach().unwrap());
    assert_eq!(reader.read(1, &mut out), None, "a new epoch starts unwritten");
    heir.write(1, &[7]);
    assert_eq!((reader.read(1, &mut out), out[0]), (Some(1), 7));
}

/// The damaged length must lead neither out of the entry nor out of the page.
#[test]
fn a_damaged_length_stays_inside_the_entry() {
    let dir = TestDir::new("length");
    let mut writer = writer(&dir, 2, 14);
    writer.write(1, &[5; 14]);
    let reader = reader(&dir);
    let file = File::options().write(true).open(dir.join("page")).unwrap();
    for len in [15, 1000, u64::MAX] {
        file.write_all_at(&len.to_le_bytes(), 4096 + 128 + 8).unwrap();
        let mut out = [0; 14];
        assert_eq!((reader.read(1, &mut out), out), (Some(14), [5; 14]));
    }
}

#[test]
fn two_threads_never_see_a_mixture() {
    let dir = TestDir::new("threads");
    let mut writer = writer(&dir, 1, 60);
    let reader = reader(&dir);
    // The writer goes on once the reader has seen a value: on one core it would be done before.
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let begun = &begun;
        let reading = scope.spawn(move || {
            let (mut out, mut last, mut values) = ([0; 62], 0, 0_u32);
            while last < 200_000 {
                match reader.read(0, &mut out) {
                    Some(len) => {
                        assert_eq!(len as u64, 1 + out[0] % 60);
                        assert!(out[..len].iter().all(|word| *word == out[0]), "torn");
                        assert!(out[0] >= last, "time goes back");
                        values += u32::from(out[0] != last);
                        last = out[0];
                        begun.store(true, Ordering::Relaxed);
                    }
                    None => std::thread::yield_now(),
                }
            }
            values
        });
        for number in 1..=200_000_u64 {
            writer.write(0, &[number; 60][..1 + (number % 60) as usize]);
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            if number % 4096 == 0 {
                std::thread::yield_now();
            }
        }
        assert!(reading.join().unwrap() > 1);
    });
}

#[test]
#[should_panic(expected = "the entry has room")]
fn too_long_a_value_is_our_mistake() {
    let dir = TestDir::new("long");
    writer(&dir, 1, 3).write(0, &[0; 4]);
}

#[test]
fn impossible_specifications_are_refused() {
    let dir = TestDir::new("spec");
    for (entries, words, part) in [(0, 1, "entries"), (1, 0, "words"), (1, usize::MAX, "words")] {
        let spec = LatestSpec::new("page", entries, words, SCHEMA);
        let text = LatestWriter::create(&dir, &spec).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains("must be"), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_page_is_an_array_of_last_writes(
        writes in proptest::collection::vec(
            (0_usize..4, proptest::collection::vec(any::<u64>(), 0..20)), 0..50),
    ) {
        let dir = TestDir::new("array");
        let mut writer = writer(&dir, 4, 20);
        let reader = reader(&dir);
        let mut model: [Option<Vec<u64>>; 4] = Default::default();
        for (idx, words) in writes {
            writer.write(idx, &words);
            model[idx] = Some(words);
            for (idx, expected) in model.iter().enumerate() {
                let mut out = vec![0; reader.words_max()];
                let found = reader.read(idx, &mut out).map(|len| out[..len].to_vec());
                prop_assert_eq!(&found, expected);
            }
        }
    }
}
