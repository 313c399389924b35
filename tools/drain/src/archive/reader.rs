//! The reading end: the records of one journal out of its archive, from any place on.
//!
//! Invariant: a record is given only if its block's checksums fit and it is the next one; the chain is
//! checked from where reading began. What is damaged is told once, with what is missing, and reading goes on
//! at the next block that is whole. A reader holds one block. It may read while the archive is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tandem_core::record::Record;

use super::codec::Codec;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, CHAIN_BYTES, FILE_HEADER_BYTES, FileHeader, chain_next, folded,
};
use super::index::{Entry, Index};
use super::scan::{Bytes, Damage, block_header, file_header, next_block};
use super::{ArchiveError, file_path, list_files};

/// Bytes that are searched at a time for the next whole block.
const SEARCH_BYTES: usize = 1 << 20;

/// What a step gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next record.
    Record(Record),
    /// Records are damaged or missing: from the first to before the second.
    Missing {
        /// The first that is missing.
        from: u64,
        /// The next that is there.
        to: u64,
        /// Why.
        why: String,
    },
    /// There is no further record now.
    End,
}

struct Open {
    file: File,
    path: PathBuf,
    header: FileHeader,
    at: u64,
}

/// Reads one journal's archive.
pub struct ArchiveReader {
    dir: PathBuf,
    uuid: u128,
    codec: Codec,
    open: Option<Open>,
    /// The block being read.
    records: Vec<Record>,
    taken: usize,
    next_seq: u64,
    buffer: Vec<u8>,
    /// Why the file that has the next record cannot be read.
    bad: Option<String>,
}

impl ArchiveReader {
    /// Opens a journal's folder so that the next record has this sequence, or the oldest one if that is later.
    pub fn open(dir: &Path, uuid: u128, seq: u64) -> Result<ArchiveReader, ArchiveError> {
        let mut reader = ArchiveReader {
            dir: dir.to_owned(),
            uuid,
            codec: Codec::new(1)?,
            open: None,
            records: Vec::new(),
            taken: 0,
            next_seq: seq.max(1),
            buffer: Vec::new(),
            bad: None,
        };
        reader.seek()?;
        Ok(reader)
    }

    /// Returns the sequence of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Takes one step.
    pub fn step(&mut self) -> Result<Step, ArchiveError> {
        loop {
            while let Some(record) = self.records.get(self.taken) {
                self.taken += 1;
                if record.seq < self.next_seq {
                    continue;
                }
                self.next_seq = record.seq + 1;
                return Ok(Step::Record(*record));
            }
            self.records.clear();
            self.taken = 0;
            if self.open.is_none() && self.bad.is_none() {
                self.seek()?;
            }
            if self.bad.is_some() {
                return self.behind();
            }
            let Some(open) = &self.open else { return Ok(Step::End) };
            let path = open.path.clone();
            match self.block().map_err(ArchiveError::io("read", &path))? {
                Found::Block => {}
                Found::Nothing => {
                    // The next file is there only after this one is full.
                    let next = file_path(&self.dir, self.next_seq);
                    if path == next || !self.open_file(&next)? {
                        return self.behind();
                    }
                }
                Found::Damaged(what) => {
                    if let Some(step) = self.pass_over(what)? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// Nothing follows where it should: it may come, unless later files are there already.
    fn behind(&mut self) -> Result<Step, ArchiveError> {
        let dir = self.dir.clone();
        let files = list_files(&dir).map_err(ArchiveError::io("list", &dir))?;
        let why = self.bad.take();
        let next_seq = self.next_seq;
        for later in files.into_iter().filter(|first| next_seq < *first) {
            if self.open_file(&file_path(&dir, later))? {
                let (from, to) = (self.next_seq, later);
                self.next_seq = later;
                let missing = || format!("the archive has no records {from} to {}", to - 1);
                return Ok(Step::Missing { from, to, why: why.unwrap_or_else(missing) });
            }
        }
        // Looked at again with the next step: it may be put right.
        self.bad = None;
        Ok(Step::End)
    }

    /// Opens the file and block of the next sequence, or the oldest file where that is later.
    fn seek(&mut self) -> Result<(), ArchiveError> {
        let dir = self.dir.clone();
        let files = list_files(&dir).map_err(ArchiveError::io("list", &dir))?;
        let behind = files.partition_point(|first| *first <= self.next_seq);
        let Some(&first) = files.get(behind.saturating_sub(1)) else { return Ok(()) };
        if !self.open_file(&file_path(&dir, first))? {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if self.next_seq < first {
            self.next_seq = first;
            return Ok(());
        }
        let io = |op| ArchiveError::io(op, open.path.clone());
        let index = Index::open(&open.path, &open.file).map_err(io("read"))?;
        let mut found = index.of_seq(self.next_seq);
        if !found.is_none_or(|entry| is_block(open, entry)) {
            found = Index::build(&open.file).map_err(io("read"))?.of_seq(self.next_seq);
        }
        open.at = found.map_or(FILE_HEADER_BYTES as u64, |entry| entry.at);
        Ok(())
    }

    /// Opens a file at its first block; says no where it is gone, or is none, which is noted.
    fn open_file(&mut self, path: &Path) -> Result<bool, ArchiveError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(ArchiveError::io("open", path)(error)),
        };
        let header = file_header(&file).map_err(ArchiveError::io("read", path))?;
        let bad = match header {
            Ok(header) if header.uuid != self.uuid => Damage::Foreign,
            Ok(header) => {
                let at = FILE_HEADER_BYTES as u64;
                self.open = Some(Open { file, path: path.to_owned(), header, at });
                return Ok(true);
            }
            Err(what) => what,
        };
        self.bad = Some(format!("{}: damaged: {bad}", path.display()));
        self.open = None;
        Ok(false)
    }

    /// Reads the block at the place, if all of it is there.
    fn block(&mut self) -> io::Result<Found> {
        let Some(open) = &mut self.open else { return Ok(Found::Nothing) };
        let header = match block_header(&open.file, open.at)? {
            None => return Ok(Found::Nothing),
            Some(Ok(header)) => header,
            Some(Err(bad)) => return Ok(Found::Damaged(Damage::BlockHeader(bad))),
        };
        if header.journal != folded(self.uuid) {
            return Ok(Found::Damaged(Damage::Journal));
        }
        if open.file.size()? - open.at < header.block_bytes() {
            return Ok(Found::Nothing);
        }
        // A block at which reading begins may begin before what was asked for; no other may.
        if self.next_seq < header.first_seq || header.next_seq() <= self.next_seq {
            let (expected, found) = (self.next_seq, header.first_seq);
            return Ok(Found::Damaged(Damage::Sequence { expected, found }));
        }
        self.buffer.resize(CHAIN_BYTES + header.block_bytes() as usize, 0);
        if open.at == FILE_HEADER_BYTES as u64 {
            self.buffer[..CHAIN_BYTES].copy_from_slice(&open.header.chain);
            open.file.read_exact_at(&mut self.buffer[CHAIN_BYTES..], open.at)?;
        } else {
            // The chain value before a block is right before it.
            open.file.read_exact_at(&mut self.buffer, open.at - CHAIN_BYTES as u64)?;
        }
        let (before, block) = self.buffer.split_at(CHAIN_BYTES);
        let (head, rest) = block.split_at(BLOCK_HEADER_BYTES);
        let (payload, chain) = rest.split_at(rest.len() - CHAIN_BYTES);
        if crc32c::crc32c(payload) != header.payload_crc {
            return Ok(Found::Damaged(Damage::Payload));
        }
        let before = before.try_into().expect("a chain value's size");
        if chain_next(&before, head, payload) != *chain {
            return Ok(Found::Damaged(Damage::Chain));
        }
        let count = header.count as usize;
        self.records.clear();
        self.taken = 0;
        let decoded =
            self.codec.decode(self.uuid, header.first_seq, count, payload, &mut self.records);
        if decoded.is_err() {
            self.records.clear();
            return Ok(Found::Damaged(Damage::Records));
        }
        open.at += header.block_bytes();
        Ok(Found::Block)
    }

    /// Goes on at the next block that is there, if one is; the last block may still be on its way. Nothing:
    /// try again.
    fn pass_over(&mut self, what: Damage) -> Result<Option<Step>, ArchiveError> {
        let Some(open) = &mut self.open else { return Ok(Some(Step::End)) };
        let (path, was) = (open.path.clone(), open.at);
        if self.moved(&path, was)? {
            return Ok(None);
        }
        let Some(open) = &mut self.open else { return Ok(Some(Step::End)) };
        let next = next_in_file(open, self.next_seq).map_err(ArchiveError::io("read", &path))?;
        let Some((at, header)) = next else { return self.behind().map(Some) };
        open.at = at;
        let (from, to) = (self.next_seq, header.first_seq.max(self.next_seq));
        self.next_seq = to;
        if from == to {
            // A block that was repeated or is not in its place; the right one follows.
            return Ok(None);
        }
        let why = format!("{}: damaged: {what}", path.display());
        Ok(Some(Step::Missing { from, to, why }))
    }

    /// Whether the next record is in a block elsewhere: a writer that starts writes the last blocks again.
    fn moved(&mut self, path: &Path, was: u64) -> Result<bool, ArchiveError> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let index = Index::build(&open.file).map_err(ArchiveError::io("read", path))?;
        let Some(entry) = index.of_seq(self.next_seq).filter(|entry| entry.at != was) else {
            return Ok(false);
        };
        let has_it = matches!(block_header(&open.file, entry.at), Ok(Some(Ok(header)))
            if self.next_seq < header.next_seq());
        if has_it {
            open.at = entry.at;
        }
        Ok(has_it)
    }
}

enum Found {
    Block,
    Nothing,
    Damaged(Damage),
}

/// Whether an index says the truth about a block.
fn is_block(open: &Open, entry: Entry) -> bool {
    let found = block_header(&open.file, entry.at);
    matches!(found, Ok(Some(Ok(header))) if header.first_seq == entry.first_seq
        && header.journal == folded(open.header.uuid))
}

/// Finds the next whole block behind a damaged one that has records from a sequence on.
fn next_in_file(open: &Open, seq: u64) -> io::Result<Option<(u64, BlockHeader)>> {
    let size = open.file.size()?;
    let mut at = open.at + 1;
    let mut bytes = Vec::new();
    while at + (BLOCK_HEADER_BYTES as u64) <= size {
        let length = (size - at).min(SEARCH_BYTES as u64) as usize;
        bytes.resize(length, 0);
        open.file.fill(&mut bytes, at)?;
        let Some((found, header)) = next_block(&bytes, &open.header) else {
            // What begins at the end of this piece is seen in the next.
            let step = length.saturating_sub(BLOCK_HEADER_BYTES - 1).max(1);
            at += step as u64;
            continue;
        };
        let found = at + found as u64;
        if seq < header.next_seq() && found + header.block_bytes() <= size {
            return Ok(Some((found, header)));
        }
        at = found + 1;
    }
    Ok(None)
}
