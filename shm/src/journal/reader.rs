//! The reading end: record by record, along a live writer or through a copied directory.
//!
//! Invariant: a record is returned only if its sequence is the next one, its checksum fits, and its
//! segment continues the one before. What cannot be returned is an error that says where, or `None` if
//! it may still come.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::JournalError;
use super::segment::{
    HeaderState, Segment, SegmentHeader, chain_next, chain_start, list_segments, segment_path,
    uuid_seed,
};
use super::tail::{Frame, Next};
use super::writer::check_schema;
use crate::error::ShmError;
use crate::payload::{Payload, RECORD_BYTES, assert_size, from_words};

/// A verification lists at most so many faults; a file of garbage has one per frame.
const FAULTS_MAX: usize = 100;

/// Reads a journal from its oldest segment on. Maps segments read-only, and needs no living writer.
#[derive(Debug)]
pub struct JournalReader<T> {
    dir: PathBuf,
    schema_hash: u64,
    uuid: u128,
    segment: Segment,
    /// Next frame in it.
    frame: usize,
    next_seq: u64,
    chain: u64,
    seed: u32,
    /// The file that comes next, while it is not in use yet.
    upcoming: Option<Segment>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> JournalReader<T> {
    /// Opens at the oldest record that is still there.
    pub fn open(dir: &Path, schema_hash: u64) -> Result<Self, JournalError> {
        Self::open_at(dir, schema_hash, |_| true)
    }

    /// Opens so that the next record has this sequence, or the oldest one if that is later.
    pub fn open_from(dir: &Path, schema_hash: u64, seq: u64) -> Result<Self, JournalError> {
        let mut reader = Self::open_at(dir, schema_hash, |header| header.first_seq > seq)?;
        // Within the segment record by record: the chain runs over all of them.
        while reader.next_seq < seq && reader.next()?.is_some() {}
        Ok(reader)
    }

    /// Opens the oldest segment, or the last one that is not `beyond`.
    fn open_at(
        dir: &Path,
        schema_hash: u64,
        beyond: impl Fn(&SegmentHeader) -> bool,
    ) -> Result<Self, JournalError> {
        const { assert_size::<T>() };
        let numbers = list_segments(dir)?;
        let mut chosen = None;
        for &number in &numbers {
            let segment = match Segment::open(dir, number, false) {
                Ok(segment) => segment,
                // Released between listing and opening.
                Err(error) if is_not_found(&error) => continue,
                Err(error) => return Err(error),
            };
            match segment.header() {
                HeaderState::Used(header) => {
                    check_schema(&segment, &header, schema_hash)?;
                    if chosen.is_some() && beyond(&header) {
                        break;
                    }
                    chosen = Some((segment, header));
                }
                HeaderState::Prepared | HeaderState::Unfinished => break,
                HeaderState::Damaged(what) => {
                    let path = segment.path().to_owned();
                    return Err(JournalError::SegmentHeader { path, what });
                }
            }
        }
        let (segment, header) =
            chosen.ok_or_else(|| JournalError::Missing { dir: dir.to_owned() })?;
        Ok(Self {
            dir: dir.to_owned(),
            schema_hash,
            uuid: header.uuid,
            segment,
            frame: 0,
            next_seq: header.first_seq,
            chain: header.prev_chain,
            seed: uuid_seed(header.uuid),
            upcoming: None,
            payload: PhantomData,
        })
    }

    /// Reads the next record. `None`: there is none yet.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: a writer may follow")]
    pub fn next(&mut self) -> Result<Option<T>, JournalError> {
        loop {
            if self.frame < self.segment.frames() {
                let (frame, words) = self.segment.read(self.frame, self.next_seq, self.seed);
                match frame {
                    Frame::Valid => {
                        self.pass(words[15]);
                        return Ok(Some(from_words(&words)));
                    }
                    Frame::Empty | Frame::Uncommitted => {}
                    found => return Err(self.corrupt(found)),
                }
            }
            let Some((next, header)) = self.next_segment()? else { return Ok(None) };
            // The writer may have committed here before it went on; the header's Acquire load makes
            // that visible now.
            if self.frame < self.segment.frames()
                && self.segment.read(self.frame, self.next_seq, self.seed).0 == Frame::Valid
            {
                self.upcoming = Some(next);
                continue;
            }
            // Otherwise the segment ended early, for a writer that was resumed; then the link fits.
            check_link(&next, &header, self.uuid, self.next_seq, self.chain)?;
            self.segment = next;
            self.frame = 0;
        }
    }

    /// Fills `to` from its front with the next records and returns how many: fewer where there are no more yet, none
    /// at the end.
    ///
    /// # Errors
    /// As [`JournalReader::next`]; what comes before the fault is returned first.
    pub fn fill(&mut self, to: &mut [T]) -> Result<usize, JournalError> {
        for (count, slot) in to.iter_mut().enumerate() {
            // The common case without a detour; all else is `next`'s.
            if self.frame < self.segment.frames() {
                let (frame, words) = self.segment.read(self.frame, self.next_seq, self.seed);
                if frame == Frame::Valid {
                    self.pass(words[15]);
                    *slot = from_words(&words);
                    continue;
                }
            }
            match self.next() {
                Ok(Some(record)) => *slot = record,
                Err(error) if count == 0 => return Err(error),
                Ok(None) | Err(_) => return Ok(count),
            }
        }
        Ok(to.len())
    }

    /// Goes on behind a valid frame with this last word.
    #[inline(always)]
    fn pass(&mut self, last: u64) {
        self.chain = chain_next(self.chain, self.next_seq, last & 0xffff_ffff);
        self.frame += 1;
        self.next_seq += 1;
    }

    /// Returns the sequence of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns the number of the segment being read: what is before it may be released.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment.number()
    }

    /// Returns the identity of the journal.
    #[must_use]
    pub fn uuid(&self) -> u128 {
        self.uuid
    }

    fn corrupt(&self, found: Frame) -> JournalError {
        JournalError::Corrupt {
            path: self.segment.path().to_owned(),
            frame: self.frame as u64,
            seq: self.next_seq,
            found,
        }
    }

    /// Returns the next segment once it is in use. One `stat` per call, while there is none.
    fn next_segment(&mut self) -> Result<Option<(Segment, SegmentHeader)>, JournalError> {
        let number = self.segment.number() + 1;
        let path = segment_path(&self.dir, number);
        let inode = match fs::metadata(&path) {
            Ok(meta) => meta.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.upcoming = None;
                return self.missing(number);
            }
            Err(error) => return Err(ShmError::io("stat", path)(error).into()),
        };
        // A resumed writer replaces prepared files, so the one we hold may be nobody's.
        let segment = match self.upcoming.take() {
            Some(segment) if segment.inode() == inode => segment,
            _ => Segment::open(&self.dir, number, false)?,
        };
        match segment.header() {
            HeaderState::Used(header) => {
                check_schema(&segment, &header, self.schema_hash)?;
                Ok(Some((segment, header)))
            }
            HeaderState::Prepared | HeaderState::Unfinished => {
                self.upcoming = Some(segment);
                Ok(None)
            }
            HeaderState::Damaged(what) => {
                Err(JournalError::SegmentHeader { path: segment.path().to_owned(), what })
            }
        }
    }

    /// A segment that is not there: not yet, or not any more.
    fn missing(&self, expected: u64) -> Result<Option<(Segment, SegmentHeader)>, JournalError> {
        match list_segments(&self.dir)?.into_iter().find(|&number| number > expected) {
            // The helper may have made both since we looked.
            Some(found) if !segment_path(&self.dir, expected).exists() => {
                Err(JournalError::SegmentMissing { dir: self.dir.clone(), expected, found })
            }
            _ => Ok(None),
        }
    }
}

/// Returns a journal's identity and the sequence of the oldest record that is still there.
pub fn oldest_seq(dir: &Path, schema_hash: u64) -> Result<(u128, u64), JournalError> {
    for number in list_segments(dir)? {
        let segment = match Segment::open(dir, number, false) {
            Ok(segment) => segment,
            // Released between listing and opening.
            Err(error) if is_not_found(&error) => continue,
            Err(error) => return Err(error),
        };
        match segment.header() {
            HeaderState::Used(header) => {
                check_schema(&segment, &header, schema_hash)?;
                return Ok((header.uuid, header.first_seq));
            }
            HeaderState::Prepared | HeaderState::Unfinished => break,
            HeaderState::Damaged(what) => {
                let path = segment.path().to_owned();
                return Err(JournalError::SegmentHeader { path, what });
            }
        }
    }
    Err(JournalError::Missing { dir: dir.to_owned() })
}

fn is_not_found(error: &JournalError) -> bool {
    matches!(error, JournalError::Shm(ShmError::Io { source, .. })
        if source.kind() == io::ErrorKind::NotFound)
}

/// Checks that a segment continues the one before.
fn check_link(
    segment: &Segment,
    header: &SegmentHeader,
    uuid: u128,
    expected_seq: u64,
    expected_chain: u64,
) -> Result<(), JournalError> {
    if header.uuid != uuid {
        let what = "the uuid is that of another journal";
        return Err(JournalError::SegmentHeader { path: segment.path().to_owned(), what });
    }
    if (header.first_seq, header.prev_chain) == (expected_seq, expected_chain) {
        return Ok(());
    }
    Err(JournalError::BrokenChain {
        path: segment.path().to_owned(),
        found_seq: header.first_seq,
        expected_seq,
        found_chain: header.prev_chain,
        expected_chain,
    })
}

/// An append that was cut short, at the end of a journal or where a writer resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// In which segment.
    pub segment: u64,
    /// Where in the file.
    pub offset: u64,
    /// The sequence it would have had.
    pub seq: u64,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Identity of the journal.
    pub uuid: u128,
    /// Segments in use.
    pub segments: u64,
    /// Segments prepared and not in use.
    pub prepared: u64,
    /// Segments a writer was taking into use when it died, or is now.
    pub unfinished: u64,
    /// Valid records.
    pub records: u64,
    /// Sequence of the first frame, 0 without any.
    pub first_seq: u64,
    /// Sequence of the last frame, 0 without any.
    pub last_seq: u64,
    /// Bytes of all frames in use.
    pub bytes: u64,
    /// The append that was cut short, if there is one. With a live writer: the one it is at.
    pub torn_tail: Option<TornTail>,
    /// Whether every segment continues the one before.
    pub chain_ok: bool,
    /// Damage, the first hundred.
    pub faults: Vec<JournalError>,
    /// All damage, counted.
    pub fault_count: u64,
}

impl VerifyReport {
    /// Returns whether every record that was committed is there and whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0 && self.chain_ok
    }

    fn fault(&mut self, fault: JournalError) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// Reads all of a journal and reports what is there and what is wrong.
///
/// An error means that nothing could be verified: no journal, another schema, or the kernel.
pub fn verify(dir: &Path, schema_hash: u64) -> Result<VerifyReport, JournalError> {
    let (mut report, used) = survey(dir, schema_hash)?;
    let Some((_, first)) = used.first() else {
        return if report.faults.is_empty() {
            Err(JournalError::Missing { dir: dir.to_owned() })
        } else {
            Ok(report)
        };
    };
    report.uuid = first.uuid;
    report.segments = used.len() as u64;
    if first.first_seq == 1 && first.prev_chain != chain_start(first.uuid) {
        report.chain_ok = false;
    }
    for (at, (segment, header)) in used.iter().enumerate() {
        verify_segment(&mut report, segment, header, used.get(at + 1));
    }
    Ok(report)
}

/// Segments in use, with their headers, in order.
type Used = Vec<(Segment, SegmentHeader)>;

/// Reads all headers before any frame, so that each segment knows its successor.
fn survey(dir: &Path, schema_hash: u64) -> Result<(VerifyReport, Used), JournalError> {
    for last_try in [false, false, true] {
        let mut report = VerifyReport { chain_ok: true, ..VerifyReport::default() };
        let mut used = Used::new();
        let mut overtaken = false;
        let mut last_number = None;
        for number in list_segments(dir)? {
            if let Some(expected) = last_number.map(|last: u64| last + 1)
                && number != expected
            {
                let dir = dir.to_owned();
                report.fault(JournalError::SegmentMissing { dir, expected, found: number });
            }
            last_number = Some(number);
            let segment = match Segment::open(dir, number, false) {
                Ok(segment) => segment,
                Err(fault @ JournalError::SegmentHeader { .. }) => {
                    report.fault(fault);
                    continue;
                }
                // Released between listing and opening, as only the oldest are.
                Err(error) if is_not_found(&error) && used.is_empty() => {
                    last_number = None;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let blank = segment.is_blank();
            // After the frames: if a writer came there meanwhile, its header is complete by now.
            let damage = match segment.header() {
                HeaderState::Used(header) => {
                    check_schema(&segment, &header, schema_hash)?;
                    overtaken |= report.prepared + report.unfinished > 0;
                    used.push((segment, header));
                    continue;
                }
                HeaderState::Prepared if blank => {
                    report.prepared += 1;
                    continue;
                }
                HeaderState::Unfinished if blank => {
                    report.unfinished += 1;
                    continue;
                }
                HeaderState::Prepared | HeaderState::Unfinished => {
                    "records follow a header that was never finished"
                }
                HeaderState::Damaged(what) => what,
            };
            let path = segment.path().to_owned();
            report.fault(JournalError::SegmentHeader { path, what: damage });
        }
        if !overtaken {
            return Ok((report, used));
        }
        // In use after one that is not: a live writer went on while we looked, or damage.
        if last_try {
            let what = "a segment that is not in use lies before others that are";
            report.fault(JournalError::SegmentHeader { path: dir.to_owned(), what });
            return Ok((report, used));
        }
    }
    unreachable!("the last try returns")
}

/// Verifies the frames of one segment, and that the next continues it.
fn verify_segment(
    report: &mut VerifyReport,
    segment: &Segment,
    header: &SegmentHeader,
    next: Option<&(Segment, SegmentHeader)>,
) {
    let scan = segment.scan(header, |seq, chain| match next {
        None => Next::None,
        Some((_, next)) if (next.first_seq, next.prev_chain) == (seq, chain) => Next::Linked,
        Some(_) => Next::Broken,
    });
    let seq_at = |at: usize| header.first_seq.wrapping_add(at as u64);
    for (at, found) in scan.faults {
        let path = segment.path().to_owned();
        report.fault(JournalError::Corrupt { path, frame: at as u64, seq: seq_at(at), found });
    }
    if let Some(at) = scan.torn {
        report.torn_tail = Some(TornTail {
            segment: segment.number(),
            offset: (crate::region::HEADER_BYTES + at * RECORD_BYTES) as u64,
            seq: seq_at(at),
        });
    }
    report.records += scan.records;
    report.bytes += (scan.frames * RECORD_BYTES) as u64;
    if scan.frames > 0 {
        if report.first_seq == 0 {
            report.first_seq = header.first_seq;
        }
        report.last_seq = seq_at(scan.frames - 1);
    }
    if let Some((next, next_header)) = next
        && let Err(fault) =
            check_link(next, next_header, header.uuid, seq_at(scan.frames), scan.chain)
    {
        report.chain_ok = false;
        report.fault(fault);
    }
}
