//! Where the blocks of a file are, by sequence and by time.
//!
//! Invariant: never trusted over the blocks. It is made of their headers, kept beside the file when that is
//! full, and made anew where it is missing, damaged or does not fit; whoever finds a block through it checks
//! the block's own header. A search is a binary one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::format::{FILE_HEADER_BYTES, folded};
use super::scan::{Bytes, block_header, file_header};

const MAGIC: u64 = u64::from_le_bytes(*b"TANDIDX1");
/// Magic, journal, first sequence, end, count.
const HEAD_WORDS: usize = 5;
/// Offset, first sequence, latest time so far.
const ENTRY_WORDS: usize = 3;
/// A file of the largest size has fewer blocks.
const ENTRIES_MAX: usize = 1 << 24;

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it begins.
    pub at: u64,
    /// Sequence of its first record.
    pub first_seq: u64,
    /// The latest engine time in it and before it in its file, UNIX ns; clocks may step back, this does not.
    pub latest_ns: i64,
}

/// The blocks of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    journal: u64,
    first_seq: u64,
    /// Where the last block ends.
    end: u64,
    entries: Vec<Entry>,
}

/// Returns where the index of a file is kept.
#[must_use]
pub fn index_path(file: &Path) -> PathBuf {
    file.with_extension("tdx")
}

impl Index {
    /// Begins an index of a file without blocks.
    #[must_use]
    pub fn new(uuid: u128, first_seq: u64) -> Index {
        let end = FILE_HEADER_BYTES as u64;
        Index { journal: folded(uuid), first_seq, end, entries: Vec::new() }
    }

    /// Returns the index of a file: what is kept beside it, and what its headers say behind that.
    pub fn open(path: &Path, file: &File) -> io::Result<Index> {
        let Ok(header) = file_header(file)? else { return Ok(Index::default()) };
        let fresh = Index::new(header.uuid, header.first_seq);
        let kept = fs::read(index_path(path)).ok().and_then(|bytes| Index::read(&bytes));
        let size = file.size()?;
        let fits = |kept: &Index| {
            (kept.journal, kept.first_seq) == (fresh.journal, fresh.first_seq) && kept.end <= size
        };
        let mut index = kept.filter(fits).unwrap_or(fresh);
        index.extend(file)?;
        Ok(index)
    }

    /// Makes the index of a file from its headers alone.
    pub fn build(file: &File) -> io::Result<Index> {
        let Ok(header) = file_header(file)? else { return Ok(Index::default()) };
        let mut index = Index::new(header.uuid, header.first_seq);
        index.extend(file)?;
        Ok(index)
    }

    /// Goes from header to header, up to the first that is none.
    fn extend(&mut self, file: &File) -> io::Result<()> {
        while let Some(Ok(header)) = block_header(file, self.end)? {
            if header.journal != self.journal {
                break;
            }
            self.add(self.end, header.first_seq, header.last_ns);
            self.end += header.block_bytes();
        }
        Ok(())
    }

    /// Adds the block that follows.
    pub fn push(&mut self, first_seq: u64, last_ns: i64, block_bytes: u64) {
        self.add(self.end, first_seq, last_ns);
        self.end += block_bytes;
    }

    fn add(&mut self, at: u64, first_seq: u64, last_ns: i64) {
        let before = self.entries.last().map_or(0, |entry| entry.latest_ns);
        self.entries.push(Entry { at, first_seq, latest_ns: before.max(last_ns) });
    }

    /// Returns the block that has a sequence, if the file has it.
    #[must_use]
    pub fn of_seq(&self, seq: u64) -> Option<Entry> {
        let behind = self.entries.partition_point(|entry| entry.first_seq <= seq);
        self.entries.get(behind.checked_sub(1)?).copied()
    }

    /// Returns the first block in which a time was reached.
    #[must_use]
    pub fn of_time(&self, ns: i64) -> Option<Entry> {
        self.entries.get(self.entries.partition_point(|entry| entry.latest_ns < ns)).copied()
    }

    /// Returns the blocks, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keeps the index beside its file. Not synced: it can be made again.
    pub fn save(&self, disk: &dyn Disk, file: &Path) -> io::Result<()> {
        let head = [MAGIC, self.journal, self.first_seq, self.end, self.entries.len() as u64];
        let entries = self.entries.iter().flat_map(|e| [e.at, e.first_seq, e.latest_ns as u64]);
        let mut bytes: Vec<u8> =
            head.into_iter().chain(entries).flat_map(u64::to_le_bytes).collect();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let path = index_path(file);
        let temp = path.with_extension("tdx.new");
        let _ = disk.remove(&temp);
        let mut made = disk.create(&temp)?;
        let mut at = 0;
        while at < bytes.len() {
            match made.write_at(&bytes[at..], at as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => at += written,
            }
        }
        disk.rename(&temp, &path)
    }

    fn read(bytes: &[u8]) -> Option<Index> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body).to_le_bytes() != *crc || body.len() % 8 != 0 {
            return None;
        }
        let words = |bytes: &[u8]| -> Vec<u64> {
            bytes
                .chunks_exact(8)
                .map(|w| u64::from_le_bytes(w.try_into().expect("eight")))
                .collect()
        };
        let (head, rest) = body.split_at_checked(HEAD_WORDS * 8)?;
        let head = words(head);
        let count = usize::try_from(head[4]).ok().filter(|count| *count <= ENTRIES_MAX)?;
        if head[0] != MAGIC || rest.len() != count * ENTRY_WORDS * 8 {
            return None;
        }
        let entry = |bytes: &[u8]| {
            let words = words(bytes);
            Entry { at: words[0], first_seq: words[1], latest_ns: words[2] as i64 }
        };
        let entries = rest.chunks_exact(ENTRY_WORDS * 8).map(entry).collect();
        Some(Index { journal: head[1], first_seq: head[2], end: head[3], entries })
    }
}
