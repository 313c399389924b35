//! The archive: the journal on disk, compressed, checksummed and chained, for as long as it is kept.
//!
//! Invariant: a record is called durable only after `fdatasync` of the file that holds it has said so, and a
//! segment in shared memory is released only then. After an error of a sync nothing is called durable by this
//! process any more: what the kernel says afterwards proves nothing. The archive is its own cursor: whoever
//! starts goes on after its last block. Damage is never cut away or passed over unseen; only the end of the
//! last file is cut, where it is certain that a write was cut short there, and what is cut is kept aside.
//!
//! ```text
//! DIR/lock                                  the one writer
//! DIR/000001-<uuid>/records-<first>.tda     file header · block · block · …       ◄─ the first journal
//! DIR/000001-<uuid>/records-<first>.tdx     where blocks are, by sequence and time: made anew when missing
//! DIR/000002-<uuid>/…                                                             ◄─ the next journal
//! ```
//!
//! `format` has the bytes, `codec` the compression, `scan` the rule for torn and damaged, `disk` the operations
//! that may fail, `writer` and `reader` the two ends, `archiver` the thread between the journal and the
//! writer, `checkpoint` what an engine needs of released segments, `retain` what is removed and when.

pub mod archiver;
pub mod checkpoint;
pub mod codec;
pub mod disk;
pub mod format;
pub mod index;
pub mod reader;
pub mod retain;
pub mod scan;
pub mod status;
pub mod verify;
pub mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use codec::CodecError;
use scan::Damage;

pub use archiver::{Archiver, Settings};
pub use status::{State, Status, StatusNow};

/// Name of the file that the one writer of an archive holds.
pub const LOCK: &str = "lock";

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The kernel.
    #[error("{path}: {op}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The disk is full; nothing is lost, and it is tried again.
    #[error("{path}: the disk is full; make room: records wait in shared memory until then")]
    NoSpace {
        /// Which file did not fit.
        path: PathBuf,
    },
    /// A write or a sync failed; nothing is claimed durable by this process any more.
    #[error(
        "{path}: {op} failed ({error}): what was written last may not be on the disk whatever it says from \
         now on; nothing is called durable until the drain is started again: check the disk first"
    )]
    Failed {
        /// What failed.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        error: String,
    },
    /// Bytes that are no block, and no write that was cut short.
    #[error(
        "{path}: damaged at byte {at}: {what}; keep the journal's folder as evidence: move it out of the \
         archive, and a new one begins with the oldest record in shared memory"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong.
        what: Damage,
    },
    /// Another process writes this archive.
    #[error(
        "{path}: another process writes this archive: stop it, or give this run an archive of its own"
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The journal does not go on where the archive ends.
    #[error(
        "{dir}: ends before record {next}, and the oldest record in shared memory is {oldest}: what is \
         between is lost. To go on, move this folder out of the archive: a new one begins with {oldest}"
    )]
    Gap {
        /// The journal's folder.
        dir: PathBuf,
        /// The first record that the archive does not have.
        next: u64,
        /// The oldest one that there is.
        oldest: u64,
    },
    /// The archive has records that the journal does not.
    #[error(
        "{dir}: has records up to before {next}, and the journal in shared memory ends before {ends}: it is \
         not the one that was archived. To go on, move this folder out of the archive"
    )]
    Ahead {
        /// The journal's folder.
        dir: PathBuf,
        /// The sequence after the archive's last record.
        next: u64,
        /// The sequence after the journal's last record.
        ends: u64,
    },
    /// Records that make no block.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl ArchiveError {
    /// Wraps a kernel error with the operation and the file.
    pub fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| ArchiveError::Io { op, path, source }
    }
}

/// A journal in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDir {
    /// Journals count up: a later one has a larger number.
    pub ordinal: u64,
    /// Its identity.
    pub uuid: u128,
    /// Its folder.
    pub dir: PathBuf,
}

/// Returns the folder of a journal.
#[must_use]
pub fn journal_dir(root: &Path, ordinal: u64, uuid: u128) -> PathBuf {
    root.join(format!("{ordinal:06}-{uuid:032x}"))
}

/// Returns the journals of an archive, the oldest first. No directory is no journal.
pub fn list_journals(root: &Path) -> io::Result<Vec<JournalDir>> {
    let mut found = Vec::new();
    for entry in entries(root)? {
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
        let Some((ordinal, uuid)) = name.split_once('-').filter(|(_, uuid)| uuid.len() == 32)
        else {
            continue;
        };
        if let (Ok(ordinal), Ok(uuid)) = (ordinal.parse(), u128::from_str_radix(uuid, 16)) {
            found.push(JournalDir { ordinal, uuid, dir: entry });
        }
    }
    found.sort_by_key(|journal| journal.ordinal);
    Ok(found)
}

/// Returns the file of a journal that begins with a record.
#[must_use]
pub fn file_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("records-{first_seq:020}.tda"))
}

/// Returns the first sequences of the files of a journal, in order.
pub fn list_files(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in entries(dir)? {
        let name = entry.file_name().and_then(|name| name.to_str());
        let seq = name.and_then(|name| name.strip_prefix("records-")?.strip_suffix(".tda"));
        found.extend(seq.and_then(|seq| seq.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns whether a directory is an archive, or a journal's folder in one.
#[must_use]
pub fn is_archive(dir: &Path) -> bool {
    let has_files = |dir: &Path| list_files(dir).is_ok_and(|files| !files.is_empty());
    has_files(dir)
        || list_journals(dir).is_ok_and(|found| found.iter().any(|found| has_files(&found.dir)))
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
