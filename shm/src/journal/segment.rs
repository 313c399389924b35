//! A segment: one file of the journal, a header page and then 128-byte frames.
//!
//! Invariant: a frame is written once. Its sequence, word 0, is stored last (Release) and commits it;
//! its checksum covers every other bit and is seeded with the journal's uuid, so a frame of another
//! journal, or at another place, is not valid here. A segment whose header page is all zero is prepared
//! and not in use; the header's magic is stored last and takes it into use. Behind the last frame
//! everything is zero.
//!
//! The chain value runs over all frames of the journal; the header of each segment repeats the value
//! at the end of the one before. So a lost or foreign segment shows.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::IntoBytes;

use super::JournalError;
use super::crc;
use super::tail::{After, Frame, Next, Verdict, judge};
use crate::error::ShmError;
use crate::payload::{RECORD_BYTES, RECORD_WORDS};
use crate::region::{HEADER_BYTES, Mapping};

/// First word of a segment in use.
pub(super) const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"TANDEMTJ");
/// Readers refuse another version.
pub(super) const FORMAT_VERSION: u32 = 1;
const HEADER_WORDS: usize = 16;
const HEADER_PAGE_WORDS: usize = HEADER_BYTES / 8;
/// Low half of a frame's word 15: the journal's; the high half is the application's.
const CHECKSUM_MASK: u64 = 0xffff_ffff;

pub(super) type FrameWords = [u64; RECORD_WORDS];

/// What a header says. Word by word, in this order, between magic and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) schema_hash: u64,
    pub(super) uuid: u128,
    pub(super) number: u64,
    pub(super) first_seq: u64,
    pub(super) prev_chain: u64,
    pub(super) boot_id_hash: u64,
    pub(super) created_wall_ns: i64,
    pub(super) created_mono_ns: i64,
    pub(super) created_tsc: u64,
    pub(super) segment_bytes: u64,
    pub(super) writer_epoch: u64,
    pub(super) started_tsc: u64,
}

impl SegmentHeader {
    fn to_words(self) -> [u64; HEADER_WORDS] {
        let mut words = [
            SEGMENT_MAGIC,
            u64::from(FORMAT_VERSION) | (RECORD_BYTES as u64) << 32,
            self.schema_hash,
            self.uuid as u64,
            (self.uuid >> 64) as u64,
            self.number,
            self.first_seq,
            self.prev_chain,
            self.boot_id_hash,
            self.created_wall_ns.cast_unsigned(),
            self.created_mono_ns.cast_unsigned(),
            self.created_tsc,
            self.segment_bytes,
            self.writer_epoch,
            self.started_tsc,
            0,
        ];
        words[HEADER_WORDS - 1] = header_checksum(&words);
        words
    }

    fn from_words(words: &[u64; HEADER_WORDS]) -> Self {
        Self {
            schema_hash: words[2],
            uuid: u128::from(words[3]) | u128::from(words[4]) << 64,
            number: words[5],
            first_seq: words[6],
            prev_chain: words[7],
            boot_id_hash: words[8],
            created_wall_ns: words[9].cast_signed(),
            created_mono_ns: words[10].cast_signed(),
            created_tsc: words[11],
            segment_bytes: words[12],
            writer_epoch: words[13],
            started_tsc: words[14],
        }
    }
}

fn header_checksum(words: &[u64; HEADER_WORDS]) -> u64 {
    u64::from(crc32c::crc32c(words[..HEADER_WORDS - 1].as_bytes()))
}

/// A header page, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderState {
    /// All zero: made ahead, not in use.
    Prepared,
    /// Some words but no magic: taken into use at this moment, or its writer died doing so.
    Unfinished,
    /// In use.
    Used(SegmentHeader),
    /// Neither.
    Damaged(&'static str),
}

/// A mapped segment.
#[derive(Debug)]
pub(super) struct Segment {
    map: Mapping,
    path: PathBuf,
    number: u64,
    inode: u64,
    frames: usize,
}

impl Segment {
    /// Opens an existing segment; `write` only to clear a torn frame.
    pub(super) fn open(dir: &Path, number: u64, write: bool) -> Result<Self, JournalError> {
        let path = segment_path(dir, number);
        let file = File::options()
            .read(true)
            .write(write)
            .open(&path)
            .map_err(ShmError::io("open", &path))?;
        let meta = file.metadata().map_err(ShmError::io("stat", &path))?;
        if meta.len() < (HEADER_BYTES + RECORD_BYTES) as u64 {
            return Err(JournalError::SegmentHeader { path, what: "the file is truncated" });
        }
        let map = if write {
            Mapping::read_write(&file, &path)?
        } else {
            Mapping::read_only(&file, &path, false)?
        };
        Ok(Self::new(map, path, number, meta.ino()))
    }

    pub(super) fn new(map: Mapping, path: PathBuf, number: u64, inode: u64) -> Self {
        let frames = (map.bytes() - HEADER_BYTES) / RECORD_BYTES;
        Self { map, path, number, inode, frames }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    /// Returns how many frames it has room for.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.bytes() as u64
    }

    #[inline(always)]
    pub(super) fn frame(&self, at: usize) -> &[AtomicU64; RECORD_WORDS] {
        assert!(at < self.frames, "the segment has this frame");
        let frame = self.map.at::<[AtomicU64; RECORD_WORDS]>(HEADER_BYTES + at * RECORD_BYTES, 1);
        // SAFETY: `at` checked bounds and alignment; the mapping lives as long as `self`; atomics.
        unsafe { &*frame }
    }

    /// Takes the segment into use.
    pub(super) fn start(&self, header: &SegmentHeader) {
        let words = header.to_words();
        let cells = self.map.words(0, HEADER_WORDS);
        for (cell, &word) in cells.iter().zip(&words).skip(1) {
            // Relaxed: published by the magic.
            cell.store(word, Ordering::Relaxed);
        }
        // Release, partner: the Acquire load in `header`.
        cells[0].store(words[0], Ordering::Release);
        // Release fence, partner: the Acquire fence in `frames_used`. Who sees any word of a frame sees
        // the header that came before it.
        fence(Ordering::Release);
    }

    pub(super) fn header(&self) -> HeaderState {
        let cells = self.map.words(0, HEADER_PAGE_WORDS);
        let mut words = [0; HEADER_WORDS];
        // Acquire, partner: the Release store in `start`.
        words[0] = cells[0].load(Ordering::Acquire);
        for (word, cell) in words.iter_mut().zip(cells).skip(1) {
            // Relaxed: ordered by the magic.
            *word = cell.load(Ordering::Relaxed);
        }
        let rest_is_zero =
            cells[HEADER_WORDS..].iter().all(|cell| cell.load(Ordering::Relaxed) == 0);
        match words[0] {
            _ if !rest_is_zero => HeaderState::Damaged("the rest of the header page is not zero"),
            0 if words == [0; HEADER_WORDS] => HeaderState::Prepared,
            0 => HeaderState::Unfinished,
            SEGMENT_MAGIC if words[HEADER_WORDS - 1] != header_checksum(&words) => {
                HeaderState::Damaged("the header checksum is wrong")
            }
            SEGMENT_MAGIC if words[1] as u32 != FORMAT_VERSION => {
                HeaderState::Damaged("the format version is another build's")
            }
            SEGMENT_MAGIC if words[1] >> 32 != RECORD_BYTES as u64 => {
                HeaderState::Damaged("the frame size is another build's")
            }
            SEGMENT_MAGIC => self.check(SegmentHeader::from_words(&words)),
            _ => HeaderState::Damaged("the magic is wrong"),
        }
    }

    fn check(&self, header: SegmentHeader) -> HeaderState {
        if header.number != self.number {
            return HeaderState::Damaged("the segment number is not that of the file name");
        }
        if header.segment_bytes != self.map.bytes() as u64 {
            return HeaderState::Damaged("the file was truncated or extended");
        }
        HeaderState::Used(header)
    }

    /// Returns whether all frames are zero.
    pub(super) fn is_blank(&self) -> bool {
        self.frames_used() == 0
    }

    /// Returns one more than the last frame with any word in it.
    pub(super) fn frames_used(&self) -> usize {
        let words = self.map.words(HEADER_BYTES, self.frames * RECORD_WORDS);
        // Relaxed: a survey; frames that matter are read again with Acquire.
        let last = words.iter().rposition(|word| word.load(Ordering::Relaxed) != 0);
        // Acquire fence, partner: the Release fence in `start`.
        fence(Ordering::Acquire);
        last.map_or(0, |last| last / RECORD_WORDS + 1)
    }

    /// Reads a frame that should have this sequence.
    #[inline(always)]
    pub(super) fn read(&self, at: usize, seq: u64, seed: u32) -> (Frame, FrameWords) {
        let cells = self.frame(at);
        let mut words = [0; RECORD_WORDS];
        // Acquire, partner: the Release store in `write_frame`.
        words[0] = cells[0].load(Ordering::Acquire);
        for (word, cell) in words.iter_mut().zip(cells).skip(1) {
            // Relaxed: ordered by the sequence; a committed frame does not change any more.
            *word = cell.load(Ordering::Relaxed);
        }
        let frame = match words[0] {
            0 if words == [0; RECORD_WORDS] => Frame::Empty,
            0 => Frame::Uncommitted,
            found if found != seq => Frame::WrongSequence,
            _ if words[15] & CHECKSUM_MASK != frame_checksum(seed, &words) => Frame::BadChecksum,
            _ => Frame::Valid,
        };
        (frame, words)
    }

    /// Clears an uncommitted frame, so that the segment ends in zeros.
    pub(super) fn clear(&self, at: usize) {
        for cell in self.frame(at) {
            // Relaxed: its writer is dead, and readers stop at the sequence, which is zero already.
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// Walks all frames.
    pub(super) fn scan(
        &self,
        header: &SegmentHeader,
        next: impl Fn(u64, u64) -> Next,
    ) -> SegmentScan {
        let seed = uuid_seed(header.uuid);
        let seq_at = |at: usize| header.first_seq.wrapping_add(at as u64);
        // Look from the end first: with a live writer, what is before the last record then is complete
        // when we come to it.
        let used = self.frames_used();
        let last_valid =
            (0..used).rev().find(|&at| self.read(at, seq_at(at), seed).0 == Frame::Valid);
        let mut scan = SegmentScan { chain: header.prev_chain, ..SegmentScan::default() };
        for at in 0..used {
            let seq = seq_at(at);
            let (frame, words) = self.read(at, seq, seed);
            let after = match last_valid {
                Some(last) if at < last => After::Records,
                _ if at + 1 < used => After::Junk,
                _ => After::Nothing,
            };
            match judge(frame, after, next(seq, scan.chain)) {
                Verdict::Continue => scan.records += 1,
                Verdict::Torn => {
                    scan.torn = Some(at);
                    break;
                }
                Verdict::End | Verdict::Corrupt => scan.faults.push((at, frame)),
            }
            scan.frames = at + 1;
            scan.chain = chain_next(scan.chain, seq, words[15] & CHECKSUM_MASK);
        }
        // The zeros behind the last frame must be where the next segment thinks they are.
        if scan.torn.is_none() && scan.frames < self.frames {
            let next = next(seq_at(scan.frames), scan.chain);
            if judge(Frame::Empty, After::Nothing, next) == Verdict::Corrupt
                && scan.faults.is_empty()
            {
                scan.faults.push((scan.frames, Frame::Empty));
            }
        }
        scan
    }
}

/// What a walk through a segment found.
#[derive(Debug, Default)]
pub(super) struct SegmentScan {
    /// Valid records.
    pub(super) records: u64,
    /// Frames in use, damaged ones included.
    pub(super) frames: usize,
    /// Chain value at the end.
    pub(super) chain: u64,
    /// The frame of an append that was cut short.
    pub(super) torn: Option<usize>,
    /// Frames that are neither.
    pub(super) faults: Vec<(usize, Frame)>,
}

/// Writes a frame and commits it. Returns its checksum, for the chain. Only the one writer may call
/// this, once per frame.
#[inline(always)]
pub(super) fn write_frame(
    cells: &[AtomicU64; RECORD_WORDS],
    seq: u64,
    seed: u32,
    words: &FrameWords,
) -> u64 {
    // Relaxed: only we ever stored here. In a fresh segment it is zero, so a reader stops here.
    debug_assert_eq!(cells[0].load(Ordering::Relaxed), 0, "a frame is written once");
    let mut words = *words;
    words[0] = seq;
    words[15] &= !CHECKSUM_MASK;
    let checksum = frame_checksum(seed, &words);
    words[15] |= checksum;
    for at in 1..RECORD_WORDS {
        // Relaxed: published by the sequence.
        cells[at].store(words[at], Ordering::Relaxed);
    }
    // Release, partner: the Acquire load in `Segment::read`. This commits the frame: after a `kill -9`
    // it is there with all its words, or it is not there.
    cells[0].store(seq, Ordering::Release);
    checksum
}

/// Returns the checksum of a frame: all bits but its own, sequence included, seeded.
#[inline(always)]
fn frame_checksum(seed: u32, words: &FrameWords) -> u64 {
    let mut words = *words;
    words[15] &= !CHECKSUM_MASK;
    u64::from(crc::append(seed, &words))
}

/// Returns the checksum that a journal of this identity gives to a record of these bytes, its sequence
/// included: what an archive need not keep, since it follows from the rest.
#[must_use]
pub fn record_check(uuid: u128, record: &[u8; RECORD_BYTES]) -> u32 {
    let mut record = *record;
    // The low half of the last word is the checksum itself.
    record[RECORD_BYTES - 8..RECORD_BYTES - 4].fill(0);
    crc32c::crc32c_append(uuid_seed(uuid), &record)
}

/// Returns the seed of a journal's checksums.
pub(super) fn uuid_seed(uuid: u128) -> u32 {
    crc32c::crc32c(&uuid.to_le_bytes())
}

/// Returns the chain value before the first record.
pub(super) fn chain_start(uuid: u128) -> u64 {
    uuid as u64 ^ (uuid >> 64) as u64
}

/// Returns the chain value after a frame: one multiplication, over what identifies the frame.
#[inline(always)]
pub(super) fn chain_next(chain: u64, seq: u64, checksum: u64) -> u64 {
    // An odd multiplier makes each step a bijection of the chain: a difference never disappears.
    (chain.rotate_left(23) ^ seq.rotate_left(32) ^ checksum).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Returns the file of a segment.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("seg-{number:08}.tj"))
}

/// Returns the numbers of all segments, sorted.
pub(super) fn list_segments(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ShmError::io("list", dir)(error).into()),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(ShmError::io("list", dir))?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix("seg-")?.strip_suffix(".tj"))
            .and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}
