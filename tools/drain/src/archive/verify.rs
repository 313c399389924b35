//! Proves an archive: every byte of every file, the whole chain of every journal.
//!
//! Invariant: sound means that each block has its checksums, its place in the chain and its records, that each
//! file goes on where the one before ends, and that nothing is between. What was removed at the beginning
//! cannot be told from what retention removed: the report says from which record on the chain is proven.
//! Reading goes on behind damage, so that all of it is told.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::codec::Codec;
use super::format::{Chain, chain_start};
use super::scan::{Bytes, Damage, End, Scanned, scan};
use super::{ArchiveError, JournalDir, file_path, list_files, list_journals};

/// A verification lists at most so many faults.
const FAULTS_MAX: usize = 100;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub at: u64,
    /// What.
    pub what: Damage,
}

/// What was found of one journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalReport {
    /// Its number in the archive.
    pub ordinal: u64,
    /// Its identity.
    pub uuid: u128,
    /// Its folder.
    pub dir: PathBuf,
    /// Files.
    pub files: u64,
    /// Blocks that are proven.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// Sequence of the first record, 0 without any.
    pub first_seq: u64,
    /// Sequence of the last proven record, 0 without any.
    pub last_seq: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The chain begins with the first record that was ever archived of the journal; otherwise it is anchored
    /// in the header of the first file that is left.
    pub is_from_beginning: bool,
    /// Bytes at the end of a write that was cut short, or is under way.
    pub torn_bytes: u64,
    /// What is wrong, the first hundred.
    pub faults: Vec<Fault>,
    /// All that is wrong, counted.
    pub fault_count: u64,
}

impl JournalReport {
    /// Returns whether everything is there and whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0
    }

    fn fault(&mut self, path: &Path, at: u64, what: Damage) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { path: path.to_owned(), at, what });
        }
    }
}

/// Returns the journals of a directory: an archive's, or the one whose folder it is.
pub fn journals(dir: &Path) -> Result<Vec<JournalDir>, ArchiveError> {
    let files = list_files(dir).map_err(ArchiveError::io("list", dir))?;
    let Some(first) = files.first() else {
        return list_journals(dir).map_err(ArchiveError::io("list", dir));
    };
    let path = file_path(dir, *first);
    let file = File::open(&path).map_err(ArchiveError::io("open", &path))?;
    let header = super::scan::file_header(&file).map_err(ArchiveError::io("read", &path))?;
    let header = header.map_err(|what| ArchiveError::Damaged { path, at: 0, what })?;
    Ok(vec![JournalDir { ordinal: header.ordinal, uuid: header.uuid, dir: dir.to_owned() }])
}

/// Returns the bytes of all files, for progress.
pub fn total_bytes(journals: &[JournalDir]) -> io::Result<u64> {
    let mut total = 0;
    for journal in journals {
        for first in list_files(&journal.dir)? {
            total += std::fs::metadata(file_path(&journal.dir, first))?.len();
        }
    }
    Ok(total)
}

/// Proves one journal; `progress` is told how many bytes were read since it was told last.
pub fn verify(
    journal: &JournalDir,
    schema_hash: u64,
    mut progress: impl FnMut(u64),
) -> Result<JournalReport, ArchiveError> {
    let dir = &journal.dir;
    let files = list_files(dir).map_err(ArchiveError::io("list", dir))?;
    let mut report = JournalReport {
        ordinal: journal.ordinal,
        uuid: journal.uuid,
        dir: dir.clone(),
        files: files.len() as u64,
        first_seq: files.first().copied().unwrap_or(0),
        ..JournalReport::default()
    };
    let mut codec = Codec::new(1)?;
    // Sequence and chain after the file before; nothing where that ends in damage.
    let mut link: Option<(u64, Chain)> = None;
    for (at, &first_seq) in files.iter().enumerate() {
        let path = file_path(dir, first_seq);
        let io = |op| ArchiveError::io(op, path.clone());
        let file = File::open(&path).map_err(io("open"))?;
        let size = file.size().map_err(io("stat"))?;
        report.bytes += size;
        let (mut records, mut decoded) = (0, Vec::new());
        let scanned = scan(&file, at + 1 == files.len(), |block| {
            let (seq, count) = (block.header.first_seq, block.header.count as usize);
            decoded.clear();
            codec
                .decode(journal.uuid, seq, count, block.payload, &mut decoded)
                .map_err(|_| Damage::Records)?;
            records += count as u64;
            progress(block.header.block_bytes());
            Ok(())
        });
        report.records += records;
        let scanned = match scanned.map_err(io("read"))? {
            Ok(scanned) => scanned,
            Err(what) => {
                report.fault(&path, 0, what);
                link = None;
                continue;
            }
        };
        check_file(&mut report, journal, &path, first_seq, schema_hash, &scanned);
        if at == 0 {
            let start = chain_start(journal.uuid, scanned.header.first_seq);
            report.is_from_beginning = scanned.header.chain == start;
        } else if let Some(link) = link
            && link != (scanned.header.first_seq, scanned.header.chain)
        {
            report.fault(&path, 0, Damage::Link);
        }
        report.blocks += scanned.blocks;
        if scanned.blocks != 0 {
            report.last_seq = scanned.next_seq - 1;
        }
        link = Some((scanned.next_seq, scanned.chain));
        match scanned.end {
            End::Clean => {}
            End::Torn => report.torn_bytes = size - scanned.at,
            End::Damaged(what) => {
                report.fault(&path, scanned.at, what);
                link = None;
            }
        }
    }
    Ok(report)
}

fn check_file(
    report: &mut JournalReport,
    journal: &JournalDir,
    path: &Path,
    first_seq: u64,
    schema_hash: u64,
    scanned: &Scanned,
) {
    if scanned.header.first_seq != first_seq {
        report.fault(path, 0, Damage::Name);
    }
    if (scanned.header.uuid, scanned.header.schema_hash) != (journal.uuid, schema_hash) {
        report.fault(path, 0, Damage::Foreign);
    }
}
