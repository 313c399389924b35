//! One file of an archive, block by block: what is there, and what its end means.
//!
//! Invariant: what is called torn, and may be cut, is certain to be a write that was cut short. The writer
//! has one block under way at a time, at the end of the last file, and the 32 bytes of chain are its end. So
//! it is torn where the file ends inside a block whose header is whole, or inside a header that began rightly,
//! or where the file ends in zeros (space that was given and never written) and no block follows. A block
//! that is there in full with one bit wrong ends in its chain value and not in zeros: that is damage, also at
//! the very end. The blocks before are exactly those that were written, each proven by checksum and chain.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BadHeader, BlockHeader, CHAIN_BYTES, Chain,
    FILE_HEADER_BYTES, FileHeader, chain_next, folded,
};

/// So many zeros at the end of a file are no chain value: one in 2^128 ends in them.
const ZEROS_CERTAIN: usize = 16;

/// Bytes that can be read at any place.
pub trait Bytes {
    /// Returns how many there are.
    fn size(&self) -> io::Result<u64>;
    /// Fills a buffer from a place on; an error where there are not so many.
    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

impl Bytes for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl Bytes for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let found = self.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header of the file.
    FileHeader(BadHeader),
    /// The header names another first record than the file's name.
    Name,
    /// Another journal's file, or one of other records.
    Foreign,
    /// It does not go on where the file before ends.
    Link,
    /// The header of a block.
    BlockHeader(BadHeader),
    /// A block of another journal.
    Journal,
    /// Not the sequence that is next.
    Sequence {
        /// What is next.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The payload's checksum.
    Payload,
    /// The chain: the block is whole, and is not the one that was written here.
    Chain,
    /// The payload is whole and holds no records.
    Records,
    /// Files end in the middle of a block, and others follow.
    Short,
    /// The file is empty or shorter than its header.
    NoHeader,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::FileHeader(BadHeader::Version(found)) => {
                return write!(f, "format version {found}: read it with the build that wrote it");
            }
            Damage::Sequence { expected, found } => {
                return write!(f, "record {found} where {expected} is next");
            }
            Damage::FileHeader(_) => "the file's header is damaged",
            Damage::Name => "the file's name is not that of its first record",
            Damage::Foreign => "it belongs to another journal or another build's records",
            Damage::Link => "it does not go on where the file before it ends",
            Damage::BlockHeader(_) => "the header of a block is damaged",
            Damage::Journal => "a block of another journal",
            Damage::Payload => "the payload of a block is damaged",
            Damage::Chain => {
                "the chain is broken: a block was changed, removed, swapped or repeated"
            }
            Damage::Records => "a block holds no records",
            Damage::Short => "the file ends inside a block, and others follow",
            Damage::NoHeader => "the file is shorter than its header",
        }
        .fmt(f)
    }
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole block, or with its header.
    Clean,
    /// In a write that was cut short, from this byte on.
    Torn,
    /// In damage, from this byte on.
    Damaged(Damage),
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Its header.
    pub header: FileHeader,
    /// Blocks up to its end or the first thing that is wrong.
    pub blocks: u64,
    /// The sequence after them.
    pub next_seq: u64,
    /// Chain value after them.
    pub chain: Chain,
    /// Where they end.
    pub at: u64,
    /// How it ends.
    pub end: End,
}

/// A block as it lies in a file.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Where it begins.
    pub at: u64,
    /// Its header.
    pub header: BlockHeader,
    /// Its payload.
    pub payload: &'a [u8],
    /// Chain value before it.
    pub chain: Chain,
}

/// Reads the header of a file.
pub fn file_header<B: Bytes + ?Sized>(source: &B) -> io::Result<Result<FileHeader, Damage>> {
    if source.size()? < FILE_HEADER_BYTES as u64 {
        return Ok(Err(Damage::NoHeader));
    }
    let mut bytes = [0; FILE_HEADER_BYTES];
    source.fill(&mut bytes, 0)?;
    Ok(FileHeader::read(&bytes).map_err(Damage::FileHeader))
}

/// Reads the header of a block; nothing where the file ends before it does.
pub fn block_header<B: Bytes + ?Sized>(
    source: &B,
    at: u64,
) -> io::Result<Option<Result<BlockHeader, BadHeader>>> {
    if source.size()?.saturating_sub(at) < BLOCK_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    source.fill(&mut bytes, at)?;
    Ok(Some(BlockHeader::read(&bytes)))
}

/// Proves every block of a file and shows each. `is_last`: no file of the journal comes after it.
pub fn scan<B: Bytes + ?Sized>(
    source: &B,
    is_last: bool,
    mut each: impl FnMut(&Block<'_>) -> Result<(), Damage>,
) -> io::Result<Result<Scanned, Damage>> {
    let header = match file_header(source)? {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    let size = source.size()?;
    let mut found = Scanned {
        header,
        blocks: 0,
        next_seq: header.first_seq,
        chain: header.chain,
        at: FILE_HEADER_BYTES as u64,
        end: End::Clean,
    };
    let mut buffer = Vec::new();
    while found.at < size {
        match block_at(source, &found, size, &mut buffer)? {
            Ok(block) => {
                let payload = &buffer[BLOCK_HEADER_BYTES..buffer.len() - CHAIN_BYTES];
                let shown = Block { at: found.at, header: block, payload, chain: found.chain };
                if let Err(damage) = each(&shown) {
                    found.end = End::Damaged(damage);
                    break;
                }
                found.chain.copy_from_slice(&buffer[buffer.len() - CHAIN_BYTES..]);
                found.at += buffer.len() as u64;
                found.next_seq = block.next_seq();
                found.blocks += 1;
            }
            Err(damage) => {
                let is_torn = is_last && is_torn(source, &found, size)?;
                found.end = if is_torn { End::Torn } else { End::Damaged(damage) };
                break;
            }
        }
    }
    Ok(Ok(found))
}

/// Reads the block after what was found, all of it, and proves it.
fn block_at<B: Bytes + ?Sized>(
    source: &B,
    found: &Scanned,
    size: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Result<BlockHeader, Damage>> {
    let header = match block_header(source, found.at)? {
        None => return Ok(Err(Damage::Short)),
        Some(Err(bad)) => return Ok(Err(Damage::BlockHeader(bad))),
        Some(Ok(header)) => header,
    };
    if let Err(damage) = belongs(&header, &found.header, found.next_seq) {
        return Ok(Err(damage));
    }
    if size - found.at < header.block_bytes() {
        return Ok(Err(Damage::Short));
    }
    buffer.resize(header.block_bytes() as usize, 0);
    source.fill(buffer, found.at)?;
    let (rest, chain) = buffer.split_at(buffer.len() - CHAIN_BYTES);
    let (head, payload) = rest.split_at(BLOCK_HEADER_BYTES);
    if crc32c::crc32c(payload) != header.payload_crc {
        return Ok(Err(Damage::Payload));
    }
    if chain_next(&found.chain, head, payload) != *chain {
        return Ok(Err(Damage::Chain));
    }
    Ok(Ok(header))
}

/// Checks that a block is the next one of its file's journal.
fn belongs(header: &BlockHeader, file: &FileHeader, next_seq: u64) -> Result<(), Damage> {
    if header.journal != folded(file.uuid) {
        return Err(Damage::Journal);
    }
    match header.first_seq {
        found if found == next_seq => Ok(()),
        found => Err(Damage::Sequence { expected: next_seq, found }),
    }
}

/// Whether what follows the last good block is certain to be one write that was cut short.
fn is_torn<B: Bytes + ?Sized>(source: &B, found: &Scanned, size: u64) -> io::Result<bool> {
    let rest = size - found.at;
    if BLOCK_BYTES_MAX as u64 + (BLOCK_HEADER_BYTES as u64) < rest {
        // More than was ever under way.
        return Ok(false);
    }
    let mut bytes = vec![0; rest as usize];
    source.fill(&mut bytes, found.at)?;
    let Some(head) = bytes.first_chunk::<BLOCK_HEADER_BYTES>() else {
        // The file ends inside a header. What is there must be how one begins here, or never written.
        let magic = bytes.len().min(BLOCK_MAGIC.len());
        let seq = bytes.get(16..).unwrap_or_default();
        let seq = &seq[..seq.len().min(8)];
        let begins = bytes[..magic] == BLOCK_MAGIC[..magic]
            && *seq == found.next_seq.to_le_bytes()[..seq.len()];
        return Ok(begins || bytes.iter().all(|byte| *byte == 0));
    };
    if let Ok(header) = BlockHeader::read(head)
        && belongs(&header, &found.header, found.next_seq).is_ok()
        && rest < header.block_bytes()
    {
        return Ok(true);
    }
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    Ok(ZEROS_CERTAIN <= zeros && next_block(&bytes[1..], &found.header).is_none())
}

/// Finds the next bytes that are a block's header of this journal.
#[must_use]
pub fn next_block(bytes: &[u8], file: &FileHeader) -> Option<(usize, BlockHeader)> {
    let journal = folded(file.uuid);
    bytes.windows(BLOCK_HEADER_BYTES).enumerate().find_map(|(at, window)| {
        if window[..4] != BLOCK_MAGIC {
            return None;
        }
        let header = BlockHeader::read(window.try_into().expect("a window of that size")).ok()?;
        (header.journal == journal).then_some((at, header))
    })
}
