//! What tests of the archive share: journals to archive, disks that fail.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tandem_core::record::{Kind, Record};
use tandem_drain::archive::Settings;
use tandem_drain::archive::disk::{Disk, DiskFile, HostDisk};
use tandem_drain::archive::retain::Retention;
use tandem_drain::archive::writer::Format;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalSpec, JournalWriter, record_check};
use zerocopy::IntoBytes;

/// A directory in shared memory that goes with its owner.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new(name: &str) -> Dir {
        let path = PathBuf::from(format!("/dev/shm/tandem-archive-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Small segments: some five hundred records each.
pub fn spec() -> JournalSpec {
    JournalSpec {
        segment_bytes: 64 << 10,
        segments_max: 64,
        reserve_frames: 16,
        ..JournalSpec::new(record_schema())
    }
}

/// The record that the tests write at a place: neighbours resemble each other as a market's do.
pub fn content(n: u64) -> Record {
    let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let data = [1_000_000 + (noise % 400) as i64, (noise % 9_000) as i64, (n % 2) as i64, 0];
    let mut record = Record::new(Kind::Level, 1 + (n % 3) as u8, (n % 11) as u16, data);
    record.update_id = n / 3;
    record.engine_ts_ns = 1_700_000_000_000_000_000 + n as i64 * 1_000;
    record.pub_tsc = n * 2_600 + noise;
    record
}

/// The same as a journal holds it.
pub fn journaled(uuid: u128, seq: u64) -> Record {
    let mut record = Record { seq, ..content(seq) };
    record.check = record_check(uuid, record.as_bytes().try_into().unwrap());
    record
}

pub fn journal(dir: &Path, spec: &JournalSpec) -> JournalWriter<Record> {
    match JournalWriter::resume(dir, spec) {
        Ok(writer) => writer,
        Err(_) => JournalWriter::create(dir, spec).unwrap(),
    }
}

/// Appends so many records, waiting for room.
pub fn append(writer: &mut JournalWriter<Record>, count: u64) {
    for _ in 0..count {
        let record = content(writer.next_seq());
        while writer.append(&record).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    writer.beat(tandem_shm::tsc());
}

pub fn format() -> Format {
    Format { file_bytes: 4 << 10, zstd_level: 1, schema_hash: record_schema() }
}

pub fn settings(dir: &Dir) -> Settings {
    Settings {
        root: dir.archive(),
        journal: dir.journal(),
        stats: None,
        format: format(),
        sync: Duration::from_millis(2),
        keep_segments: 1,
        free_min_bytes: 0,
        retention: Retention::default(),
        read_run: |_| Err("no run here".to_owned()),
        hands: None,
        page: tandem_drain::status::Registry::default().register("archive"),
    }
}

pub fn host() -> Box<dyn Disk> {
    Box::new(HostDisk)
}

/// What a disk that fails does next. One for the process: tests that use it run one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A sync fails with this, once; the pages are taken for clean afterwards, as kernels do.
    pub sync_errno: Option<i32>,
    /// Writes fail with this until it is taken away.
    pub write_errno: Option<i32>,
    /// A write takes at most so many bytes.
    pub write_max: Option<usize>,
    /// So many writes more, then every write fails with `write_errno`.
    pub writes_left: Option<u32>,
    /// Making files fails with this.
    pub create_errno: Option<i32>,
    /// Syncs that were asked for.
    pub syncs: u32,
}

pub static FAULTS: Mutex<Faults> = Mutex::new(Faults {
    sync_errno: None,
    write_errno: None,
    write_max: None,
    writes_left: None,
    create_errno: None,
    syncs: 0,
});

pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn faults(change: impl FnOnce(&mut Faults)) {
    change(&mut FAULTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
}

fn now() -> Faults {
    *FAULTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The host's disk, failing as [`FAULTS`] says.
pub struct FaultyDisk;

pub fn faulty() -> Box<dyn Disk> {
    Box::new(FaultyDisk)
}

struct FaultyFile(Box<dyn DiskFile>);

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if let Some(errno) = now().create_errno {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(Box::new(FaultyFile(HostDisk.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(HostDisk.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        HostDisk.remove(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        HostDisk.make_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        HostDisk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        HostDisk.space(path)
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&mut self, buffer: &[u8], at: u64) -> io::Result<usize> {
        let told = now();
        if let Some(left) = told.writes_left {
            if let Some(less) = left.checked_sub(1) {
                faults(|faults| faults.writes_left = Some(less));
            } else {
                return Err(io::Error::from_raw_os_error(told.write_errno.unwrap()));
            }
        } else if let Some(errno) = told.write_errno {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let most = told.write_max.unwrap_or(usize::MAX).min(buffer.len());
        self.0.write_at(&buffer[..most], at)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut errno = None;
        faults(|faults| {
            faults.syncs += 1;
            errno = faults.sync_errno.take();
        });
        match errno {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.0.sync(),
        }
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
}

/// Every record that an archive has of a journal, and whether anything was missing.
pub fn archived(root: &Path, uuid: u128) -> (Vec<Record>, Vec<(u64, u64)>) {
    use tandem_drain::archive::reader::{ArchiveReader, Step};
    let journals = tandem_drain::archive::list_journals(root).unwrap();
    let journal = journals.iter().find(|journal| journal.uuid == uuid).expect("it was archived");
    let mut reader = ArchiveReader::open(&journal.dir, uuid, 1).unwrap();
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    loop {
        match reader.step().unwrap() {
            Step::Record(record) => records.push(record),
            Step::Missing { from, to, .. } => missing.push((from, to)),
            Step::End => return (records, missing),
        }
    }
}
