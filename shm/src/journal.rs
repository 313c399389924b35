//! The journal: every record the engine took or made, in order, in segments in shared memory.
//!
//! Invariant: an append touches only memory that is there already. A helper thread creates, populates
//! and deletes segments; the writer never makes a system call, takes a page fault or allocates. Sequences
//! start at 1 and have no gap: what could not be appended is refused to the caller ([`JournalFull`]) and
//! never dropped. What was committed survives a `kill -9`; whoever resumes goes on after it, in a new
//! segment. A segment is deleted only up to the number somebody released, and never the one in use.
//!
//! ```text
//! seg-00000001.tj   header page · frame · frame · … · frame
//! seg-00000002.tj   header page · frame · frame · 0 0 0 …        ◄─ the writer
//! seg-00000003.tj   all zero: prepared ahead                      ◄─ its helper
//! control           region: lock, epoch, heartbeat, next sequence of the writer
//! released          latest page: how far the drain has made it durable
//! ```
//!
//! Segments need no other file: a copied directory reads and verifies anywhere.
//!
//! `segment` has the format, `tail` the rule for torn and corrupt, `writer` and `reader` the two ends.
//! Not here: durability beyond memory, which is the drain's.

mod crc;
mod reader;
mod segment;
mod tail;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use reader::{JournalReader, TornTail, VerifyReport, oldest_seq, verify};
pub use segment::record_check;
pub use tail::{After, Frame, Next, Verdict, judge};
pub use writer::{JournalPosition, JournalSpec, JournalWriter};

use crate::error::ShmError;
use crate::latest::{LatestReader, LatestSpec, LatestWriter};
use crate::payload::RECORD_BYTES;
use crate::region::{Expect, Producer, RegionKind, RegionView};
use crate::sys::fnv1a;

/// Name of the control region in a journal's directory.
pub const CONTROL: &str = "control";
/// Name of the drain's page in a journal's directory.
pub const RELEASED: &str = "released";
const RELEASED_SCHEMA: u64 = fnv1a(b"released 1: segment, durable sequence");

/// Why a journal could not be opened, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A region of the journal, or the kernel.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// `create` where there is a journal.
    #[error("{dir}: holds a journal already; resume it, or choose an empty directory")]
    Exists {
        /// The directory.
        dir: PathBuf,
    },
    /// No segment in use.
    #[error("{dir}: no journal here; create it first, or check the directory")]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A size that cannot be.
    #[error("journal specification: {what} is {found}: {rule}")]
    Spec {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The rule it breaks, which is also the fix.
        rule: &'static str,
    },
    /// All segments are in use at `resume`.
    #[error(
        "{dir}: {segments} segments, and segments_max is {segments_max}; let the drain release some, \
         or raise segments_max"
    )]
    Full {
        /// The directory.
        dir: PathBuf,
        /// How many there are.
        segments: u64,
        /// How many there may be.
        segments_max: u64,
    },
    /// Written for other records.
    #[error(
        "{path}: record schema {found:#018x}, this build expects {expected:#018x}; read it with the \
         build that wrote it, or start a new journal"
    )]
    Schema {
        /// The segment.
        path: PathBuf,
        /// Hash in the segment.
        found: u64,
        /// Hash of this build.
        expected: u64,
    },
    /// The header page of a segment cannot be believed.
    #[error("{path}: {what}; keep the file as evidence and restore it from the archive")]
    SegmentHeader {
        /// The segment.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A frame that is neither a record nor a torn tail.
    #[error(
        "{path}: frame {frame} (sequence {seq}) is damaged: {found:?}; keep the file as evidence and \
         restore it from the archive"
    )]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Index of the frame.
        frame: u64,
        /// Sequence it should have.
        seq: u64,
        /// What was found there.
        found: Frame,
    },
    /// A number is missing between two segments.
    #[error(
        "{dir}: segment {expected} is missing, the next is {found}; it was released before it was \
         read, or lost: restore it from the archive, or open the journal anew to read on from there"
    )]
    SegmentMissing {
        /// The directory.
        dir: PathBuf,
        /// The number that is missing.
        expected: u64,
        /// The next one that is there.
        found: u64,
    },
    /// A segment does not continue the one before.
    #[error(
        "{path}: starts with sequence {found_seq} and chain {found_chain:#018x}, after {expected_seq} \
         and {expected_chain:#018x}; it belongs to another journal or records are lost: restore it \
         from the archive"
    )]
    BrokenChain {
        /// The segment that does not fit.
        path: PathBuf,
        /// Sequence in its header.
        found_seq: u64,
        /// Sequence after the segment before.
        expected_seq: u64,
        /// Chain value in its header.
        found_chain: u64,
        /// Chain value after the segment before.
        expected_chain: u64,
    },
}

/// The journal takes no record now. Nothing was written; the caller counts, and records a gap later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "journal full at sequence {next_seq}: {segments} of {segments_max} segments exist and none is ready; \
     stop new entries until the drain releases segments"
)]
pub struct JournalFull {
    /// The sequence the record would have had.
    pub next_seq: u64,
    /// How many segments exist.
    pub segments: u64,
    /// How many may exist. If fewer do, the helper is behind or out of memory.
    pub segments_max: u64,
}

/// The drain's end: says up to where records are durable elsewhere, so that segments may go.
///
/// The journal's writer deletes released segments, not the drain: one process changes the directory.
#[derive(Debug)]
pub struct JournalRelease {
    page: LatestWriter,
    segment: u64,
    durable_seq: u64,
}

impl JournalRelease {
    /// Takes over the page, with what the drain before us released.
    pub fn create(dir: &Path) -> Result<Self, ShmError> {
        let before = ReleasedPage::default().read(dir);
        let page = LatestWriter::create(dir, &LatestSpec::new(RELEASED, 1, 2, RELEASED_SCHEMA))?;
        let mut release = Self { page, segment: 0, durable_seq: 0 };
        if let Some((segment, durable_seq)) = before {
            release.release_up_to(segment, durable_seq);
        }
        Ok(release)
    }

    /// Releases all segments up to this number: their records, up to this sequence, are durable.
    ///
    /// A smaller number than before changes nothing: what was released may be gone.
    pub fn release_up_to(&mut self, segment: u64, durable_seq: u64) {
        self.segment = self.segment.max(segment);
        self.durable_seq = self.durable_seq.max(durable_seq);
        self.page.write(0, &[self.segment, self.durable_seq]);
    }

    /// Returns the last segment that was released, 0 for none.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Returns the last sequence that is durable, 0 for none.
    #[must_use]
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// Tells readers that the drain lives.
    pub fn beat(&mut self, tsc: u64) {
        self.page.beat(tsc);
    }

    /// Says goodbye.
    pub fn close(self) {
        self.page.close();
    }
}

/// Returns the last segment the drain released and the last durable sequence; `None` before the first.
#[must_use]
pub fn read_released(dir: &Path) -> Option<(u64, u64)> {
    ReleasedPage::default().read(dir)
}

/// Watches a journal's writer from another process: whether it lives, and how far it is.
#[derive(Debug)]
pub struct JournalMonitor {
    view: RegionView,
}

impl JournalMonitor {
    /// Attaches to the control region, waiting for a writer that starts.
    pub fn open(dir: &Path, schema_hash: u64, timeout: Duration) -> Result<Self, ShmError> {
        let expect = Expect {
            kind: RegionKind::Journal,
            schema_hash: Some(schema_hash),
            slot_bytes: Some(RECORD_BYTES as u32),
            power_of_two: false,
        };
        Ok(Self { view: RegionView::open(dir, CONTROL, expect, timeout)? })
    }

    /// Judges the writer. For the slow path.
    #[must_use]
    pub fn producer(&self, now_tsc: u64, ticks_per_ms: u64) -> Producer {
        self.view.producer(now_tsc, ticks_per_ms)
    }

    /// Returns the writer's next sequence as of its last beat: less what is durable, it is the lag.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.view.progress()
    }

    /// Returns which writer this is, counted from the first.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.view.epoch()
    }

    /// Moves to the control region of a resumed writer if there is one.
    pub fn reattach(&mut self) -> Result<bool, ShmError> {
        let Some(view) = self.view.reopen()? else { return Ok(false) };
        self.view = view;
        Ok(true)
    }
}

/// The drain's page as the journal's writer sees it, across restarts of the drain.
#[derive(Debug, Default)]
struct ReleasedPage {
    reader: Option<LatestReader>,
}

impl ReleasedPage {
    /// Returns segment and durable sequence. No drain, or none yet, is `None` and no error.
    fn read(&mut self, dir: &Path) -> Option<(u64, u64)> {
        match &mut self.reader {
            // A page that cannot be attached releases nothing; the drain's own start reports why.
            Some(reader) => drop(reader.reattach()),
            none => {
                *none = LatestReader::open(dir, RELEASED, RELEASED_SCHEMA, Duration::ZERO).ok();
            }
        }
        let mut words = [0; 16];
        let reader = self.reader.as_ref().filter(|reader| reader.words_max() <= words.len())?;
        (reader.read(0, &mut words)? == 2).then_some((words[0], words[1]))
    }
}
