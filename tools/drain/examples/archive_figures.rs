//! Figures of the archive: records a second, compression, time to prove and to recover a gibibyte.
//! `cargo run --profile ship-test -p tandem-drain --example archive_figures`
//! `TANDEM_FIGURES_DIR`: a directory on the disk to measure; `TANDEM_FIGURES_JOURNAL`: a journal of a real run.

#![allow(clippy::unwrap_used, reason = "a program of figures: what fails ends it")]

#[path = "../tests/support/archive.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use support::*;
use tandem_core::record::Record;
use tandem_drain::archive::Archiver;
use tandem_drain::archive::archiver::Settings;
use tandem_drain::archive::verify;
use tandem_drain::archive::writer::{ArchiveLock, ArchiveWriter, Format, Resume};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, JournalSpec, JournalWriter, record_check};
use zerocopy::IntoBytes;

fn disk() -> PathBuf {
    let root =
        std::env::var_os("TANDEM_FIGURES_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    root.join(format!("tandem-figures-{}", std::process::id()))
}

fn size(root: &Path) -> u64 {
    verify::total_bytes(&verify::journals(root).unwrap()).unwrap()
}

fn records_a_second_into_the_archive() {
    let dir = Dir::new("figures");
    let root = disk();
    let spec = JournalSpec { segments_max: 24, ..JournalSpec::new(record_schema()) };
    let count = 8u64 << 20;
    let mut writer = JournalWriter::<Record>::create(&dir.journal(), &spec).unwrap();
    let real = std::env::var_os("TANDEM_FIGURES_JOURNAL").map(PathBuf::from);
    let sample: Vec<Record> = real.map_or_else(Vec::new, |real| {
        let mut reader = JournalReader::open(&real, record_schema()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    });
    for n in 0..count {
        let record = match sample.len() {
            0 => content(n + 1),
            length => sample[n as usize % length],
        };
        while writer.append(&record).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let format = Format { file_bytes: 256 << 20, zstd_level: 3, schema_hash: record_schema() };
    let settings = Settings {
        root: root.clone(),
        format,
        sync: Duration::from_millis(20),
        keep_segments: 2,
        ..settings(&dir)
    };
    let begun = Instant::now();
    let archiver = Archiver::start(settings, host).unwrap();
    let status = archiver.status();
    while status.now().durable_seq < count {
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(archiver);
    let bytes = size(&root);
    println!(
        "figure: {count} records ({} MiB) into {} MiB in {seconds:.2} s: {:.2} M records/s, ratio {:.1}",
        (count * 128) >> 20,
        bytes >> 20,
        count as f64 / seconds / 1e6,
        count as f64 * 128.0 / bytes as f64
    );
    let begun = Instant::now();
    let report =
        verify::verify(&verify::journals(&root).unwrap()[0], record_schema(), |_| {}).unwrap();
    assert!(report.is_sound() && report.records == count);
    println!("figure: verified whole, records too, in {:.2} s", begun.elapsed().as_secs_f64());
    fs::remove_dir_all(&root).unwrap();
}

/// Row ST-04: a gibibyte of archive, in one file, which is the most that a start reads.
fn time_to_recover_a_gibibyte() {
    let root = disk();
    let uuid = 5;
    let mut random = StdRng::seed_from_u64(1);
    for file_bytes in [1u64 << 30, 256 << 20] {
        let format = Format { file_bytes, zstd_level: 1, schema_hash: record_schema() };
        let lock = ArchiveLock::take(&root).unwrap();
        let resume = Resume { uuid, confirmed: None };
        let (mut writer, _) = ArchiveWriter::open(&lock, host(), resume, format).unwrap();
        let mut at = 1u64;
        // Records of noise do not compress: as many bytes on the disk as in memory.
        while writer.bytes_written() < 1 << 30 {
            let block: Vec<Record> = (at..at + 2_048)
                .map(|seq| {
                    let mut record = Record::default();
                    random.fill_bytes(record.as_mut_bytes());
                    record.seq = seq;
                    record.check = record_check(uuid, record.as_bytes().try_into().unwrap());
                    record
                })
                .collect();
            at = writer.append(&block).unwrap();
        }
        drop((writer, lock));
        // A write that was cut short.
        let journal = verify::journals(&root).unwrap().remove(0);
        let last = *tandem_drain::archive::list_files(&journal.dir).unwrap().last().unwrap();
        let last = tandem_drain::archive::file_path(&journal.dir, last);
        let length = fs::metadata(&last).unwrap().len();
        fs::File::options().write(true).open(&last).unwrap().set_len(length - 7).unwrap();
        let lock = ArchiveLock::take(&root).unwrap();
        let begun = Instant::now();
        let (_, recovered) = ArchiveWriter::open(&lock, host(), resume, format).unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        assert!(recovered.torn.is_some());
        println!(
            "figure ST-04: {} MiB of archive in files of {} MiB ({at} records): recovered in {seconds:.2} s, \
             {} blocks proven",
            size(&root) >> 20,
            file_bytes >> 20,
            recovered.blocks
        );
        fs::remove_dir_all(&root).unwrap();
    }
}

fn main() {
    records_a_second_into_the_archive();
    time_to_recover_a_gibibyte();
}
