//! Regions that must not be believed: each with the error that says what is wrong and what to do.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use common::{Record, SCHEMA, TestDir};
use tandem_shm::region::{LAYOUT_MAJOR, LAYOUT_MINOR, MAGIC, header_layout};
use tandem_shm::{
    ClockReader, LatestReader, LatestSpec, LatestWriter, RegionInfo, RegionKind, RingReader,
    RingSpec, RingWriter, ShmError, StatsReader, free_bytes,
};

const SLOTS: u64 = 8;
const REGION_BYTES: u64 = 4096 + 4096;

fn offset_of(field: &str) -> u64 {
    let (_, offset, _) = header_layout().into_iter().find(|(name, ..)| *name == field).unwrap();
    offset as u64
}

fn create(dir: &Path) -> RingWriter<Record> {
    RingWriter::create(dir, &RingSpec::new("ring", SLOTS, SCHEMA)).unwrap()
}

fn open(dir: &Path) -> Result<RingReader<Record>, ShmError> {
    RingReader::open(dir, "ring", SCHEMA, Duration::ZERO)
}

/// Makes a ring, damages its file, and returns what a reader says.
#[track_caller]
fn damaged(damage: impl FnOnce(&File)) -> String {
    let dir = TestDir::new("damaged");
    let _writer = create(&dir);
    open(&dir).expect("a whole ring opens");
    let path = dir.join("ring");
    damage(&File::options().write(true).open(&path).unwrap());
    let text = open(&dir).expect_err("a damaged ring does not").to_string();
    assert!(text.contains(path.to_str().unwrap()), "names the file: {text}");
    text
}

#[track_caller]
fn with_word(field: &str, value: u64) -> String {
    damaged(|file| file.write_all_at(&value.to_le_bytes(), offset_of(field)).unwrap())
}

#[track_caller]
fn with_half(field: &str, value: u32) -> String {
    damaged(|file| file.write_all_at(&value.to_le_bytes(), offset_of(field)).unwrap())
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn wrong_words_are_named_with_both_sides_and_the_fix() {
    says(&with_word("magic", 0x1234), &["0x0000000000001234", "not a Tandem region", "delete"]);
    says(
        &with_word("magic", 0),
        &["half-initialised", "init-complete", "start the producer again"],
    );
    says(&with_half("layout", 7 << 16 | 3), &["version 7.3", "reads 1.x", "same build"]);
    says(
        &with_word("schema_hash", 0xabc),
        &["0x0000000000000abc", "0x000000007a3d0001", "same build"],
    );
    says(&with_half("kind", 2), &["holds a latest page", "expected a ring", "rename"]);
    says(&with_half("kind", 99), &["unknown kind", "rename"]);
    says(
        &with_word("boot_id_hash", 5),
        &["boot id", "0x0000000000000005", "start its producer again"],
    );
    says(&with_half("header_bytes", 64), &["header size is 64, expected 4096", "delete"]);
    says(&with_half("slot_bytes", 64), &["slot size is 64, expected 128", "same build"]);
    says(&with_word("slots_offset", 8192), &["slots offset is 8192, expected 4096"]);
    says(&with_word("slot_count", 7), &["slot count is 7, expected 8"]);
    says(&with_word("slot_count", 1), &["slot count is 1, expected 2"]);
    says(&with_word("slot_count", 1 << 20), &["end of slots", "delete"]);
    says(&with_word("slot_count", 1 << 63), &["end of slots"]);
    says(&with_word("region_bytes", REGION_BYTES + 1), &["truncated", "start its producer again"]);
    says(&with_word("region_bytes", 4096), &["region size is 4096, expected 8192"]);
}

#[test]
fn a_newer_minor_version_is_read() {
    let dir = TestDir::new("minor");
    let _writer = create(&dir);
    let file = File::options().write(true).open(dir.join("ring")).unwrap();
    let layout = u32::from(LAYOUT_MAJOR) << 16 | u32::from(LAYOUT_MINOR + 1);
    file.write_all_at(&layout.to_le_bytes(), offset_of("layout")).unwrap();
    open(&dir).unwrap();
}

#[test]
fn wrong_files_are_named_with_the_fix() {
    let text = damaged(|file| file.set_permissions(Permissions::from_mode(0o660)).unwrap());
    says(&text, &["mode 0660", "chmod g-w,o-w"]);
    let text = damaged(|file| file.set_permissions(Permissions::from_mode(0o642)).unwrap());
    says(&text, &["mode 0642", "chmod g-w,o-w"]);
    let text = damaged(|file| file.set_len(REGION_BYTES + 4096).unwrap());
    says(&text, &["region size is 8192, expected 12288"]);
}

/// Truncation is done to a copy: a live mapping would raise SIGBUS, which is why we never truncate.
#[test]
fn truncated_files_are_refused_at_any_length() {
    let dir = TestDir::new("truncated");
    let writer = create(&dir);
    let whole = fs::read(dir.join("ring")).unwrap();
    drop(writer);
    for bytes in [0, 1, 8, 4095, 4096, 4097, 8191] {
        fs::remove_file(dir.join("ring")).unwrap();
        fs::write(dir.join("ring"), &whole[..bytes]).unwrap();
        let text = open(&dir).unwrap_err().to_string();
        says(&text, &[&format!("truncated, {bytes} bytes"), "delete it and start its producer"]);
    }
}

#[test]
fn a_foreign_owner_is_refused() {
    let dir = TestDir::new("owner");
    let _writer = create(&dir);
    // Only root can give a file away; elsewhere this is what the message would be.
    match std::os::unix::fs::chown(dir.join("ring"), Some(12_345), None) {
        Ok(()) => {
            let text = open(&dir).unwrap_err().to_string();
            says(&text, &["uid 12345", "configured users", "delete"]);
            // The owner of the directory may replace its files anyway, so it is trusted.
            std::os::unix::fs::chown(&*dir, Some(12_345), None).unwrap();
            open(&dir).unwrap();
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

#[test]
fn a_missing_file_says_how_long_we_waited() {
    let dir = TestDir::new("missing");
    let wait = Duration::from_millis(15);
    let error = RingReader::<Record>::open(&dir, "ring", SCHEMA, wait).unwrap_err();
    assert!(error.is_retryable());
    assert!(matches!(error, ShmError::Missing { waited_ms: 15.., .. }), "{error:?}");
    says(&error.to_string(), &["ring", "start its producer", "directory"]);
}

#[test]
fn a_locked_name_says_who() {
    let dir = TestDir::new("locked");
    let _writer = create(&dir);
    let error = RingWriter::<Record>::create(&dir, &RingSpec::new("ring", SLOTS, SCHEMA));
    let text = error.unwrap_err().to_string();
    says(&text, &["ring", &format!("pid {}", std::process::id()), "stop that process first"]);
}

#[test]
fn a_full_file_system_is_an_error_at_creation_and_leaves_nothing() {
    let dir = TestDir::new("full");
    let free = free_bytes(&dir).unwrap();
    let slots = (free / 128 + 1).next_power_of_two();
    let error = RingWriter::<Record>::create(&dir, &RingSpec::new("ring", slots, SCHEMA));
    let text = error.unwrap_err().to_string();
    let wanted = slots * 128 + 4096;
    says(&text, &[&format!("{wanted} bytes wanted"), "free", "remount,size=", "--shm-size"]);
    says(&text, &[dir.to_str().unwrap(), "smaller rings"]);
    assert_eq!(fs::read_dir(&*dir).unwrap().count(), 0);
}

#[test]
fn a_failed_restart_leaves_the_old_ring_readable() {
    let dir = TestDir::new("restart");
    let mut first = create(&dir);
    first.publish(&Record::of(1));
    drop(first);
    let slots = (free_bytes(&dir).unwrap() / 128 + 1).next_power_of_two();
    RingWriter::<Record>::create(&dir, &RingSpec::new("ring", slots, SCHEMA)).unwrap_err();
    let mut reader = open(&dir).unwrap();
    assert!(matches!(reader.poll(), tandem_shm::Read::Item(record) if record.seq == 1));
    assert_eq!(reader.info().state, "dead");
    assert_eq!(create(&dir).epoch(), 2);
}

#[test]
fn a_producer_does_not_replace_what_is_not_its_own() {
    let dir = TestDir::new("foreign");
    fs::write(dir.join("ring"), vec![7; 8192]).unwrap();
    let spec = RingSpec::new("ring", SLOTS, SCHEMA);
    let text = RingWriter::<Record>::create(&dir, &spec).unwrap_err().to_string();
    says(&text, &["wrong magic 0x0707070707070707", "delete the file"]);
    assert_eq!(fs::read(dir.join("ring")).unwrap(), vec![7; 8192]);

    let _page = LatestWriter::create(&dir, &LatestSpec::new("page", 1, 1, SCHEMA)).unwrap();
    let spec = RingSpec::new("page", SLOTS, SCHEMA);
    let text = RingWriter::<Record>::create(&dir, &spec).unwrap_err().to_string();
    says(&text, &["holds a latest page, expected a ring", "rename"]);
}

#[test]
fn a_producer_replaces_what_another_build_or_boot_left() {
    let dir = TestDir::new("upgrade");
    drop(create(&dir));
    let file = File::options().write(true).open(dir.join("ring")).unwrap();
    file.write_all_at(&(9_u32 << 16).to_le_bytes(), offset_of("layout")).unwrap();
    file.write_all_at(&5_u64.to_le_bytes(), offset_of("boot_id_hash")).unwrap();
    assert_eq!(create(&dir).epoch(), 2, "and counts its epoch on");
}

#[test]
fn what_a_dead_creator_left_is_cleared() {
    let dir = TestDir::new("leftover");
    fs::write(dir.join("ring.epoch1.tmp"), b"half").unwrap();
    let _writer = create(&dir);
    let names: Vec<_> =
        fs::read_dir(&*dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ring"]);
}

#[test]
fn every_kind_of_page_refuses_another_kind() {
    let dir = TestDir::new("kinds");
    let _writer = create(&dir);
    let errors = [
        LatestReader::open(&dir, "ring", SCHEMA, Duration::ZERO).unwrap_err(),
        StatsReader::open(&dir, "ring", Duration::ZERO).unwrap_err(),
        ClockReader::open(&dir, "ring", Duration::ZERO).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ShmError::Kind { found: RegionKind::Ring, .. }), "{error}");
    }
}

#[test]
fn a_region_says_what_it_is() {
    let dir = TestDir::new("info");
    let spec = RingSpec {
        tag: 7,
        build_id: "0123456789abcdef0123456789".to_owned(),
        initial_seq: 100,
        ..RingSpec::new("kraken_engine", 16, SCHEMA)
    };
    let mut writer = RingWriter::<Record>::create(&dir, &spec).unwrap();
    writer.beat(1);
    let info = RegionInfo::read(&dir.join("kraken_engine")).unwrap();
    assert_eq!(info.name, "kraken_engine");
    assert_eq!((info.kind, info.layout), (RegionKind::Ring, (1, 0)));
    assert_eq!(info.build_id, "0123456789abcdef0123456", "23 bytes are kept");
    assert_eq!((info.slot_bytes, info.slot_count, info.schema_hash), (128, 16, SCHEMA));
    assert_eq!((info.tag, info.epoch, info.state), (7, 1, "live"));
    assert_eq!((info.initial_seq, info.progress), (100, 100));
    assert!(info.created_wall_ns > 1_700_000_000_000_000_000);
    assert!(info.producer_start > 0);
    let mode = fs::metadata(dir.join("kraken_engine")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

/// The header as bytes. If this test must change, `LAYOUT_MAJOR` must too.
#[test]
fn the_layout_is_what_it_was() {
    assert_eq!((LAYOUT_MAJOR, LAYOUT_MINOR), (1, 0));
    assert_eq!(MAGIC.to_le_bytes(), *b"TANDEMSH");
    let golden = "\
        magic 0 8\nlayout 8 4\nheader_bytes 12 4\nslot_bytes 16 4\nkind 20 4\nslot_count 24 8\n\
        slots_offset 32 8\nschema_hash 40 8\nregion_bytes 48 8\npage_bytes 56 4\ntag 60 4\n\
        boot_id_hash 64 8\ncreated_wall_ns 72 8\ncreated_mono_ns 80 8\ncreated_tsc 88 8\n\
        name 128 64\nbuild_id 192 24\nepoch 256 8\nstate 264 8\nsuccessor 272 8\n\
        producer_pid 280 8\nproducer_start 288 8\ninitial_seq 296 8\nprogress 384 8\n\
        heartbeat_tsc 392 8\nheartbeat_count 400 8\ncounters 512 128\n";
    let found: String = header_layout()
        .into_iter()
        .map(|(name, offset, bytes)| format!("{name} {offset} {bytes}\n"))
        .collect();
    assert_eq!(found, golden);

    let dir = TestDir::new("golden");
    let mut writer = create(&dir);
    writer.publish(&Record { words: [0x11; 14], ..Record::of(0) });
    let bytes = fs::read(dir.join("ring")).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes.len() as u64, REGION_BYTES);
    assert_eq!(
        &bytes[..24],
        b"TANDEMSH\x00\x00\x01\x00\x00\x10\x00\x00\x80\x00\x00\x00\x01\x00\x00\x00"
    );
    assert_eq!((word(24), word(32), word(40), word(48)), (8, 4096, SCHEMA, 8192));
    assert_eq!(&bytes[128..133], b"ring\0");
    assert_eq!((word(256), word(264), word(272)), (1, 2, 0), "epoch 1, live, no successor");
    // Slot 1 has sequence 1; slots 0 and 2 wait for 8 and 2.
    assert_eq!((word(4096), word(4096 + 128), word(4096 + 256)), (7, 1, 1));
    assert_eq!(word(4096 + 128 + 8), 0x11);
}
