//! A page of entries that each hold their latest value, for those who need state and not history.
//!
//! Invariant: word 0 of an entry is its version: 0 never written, odd while being written, even when
//! whole. A reader uses the words only if the version was the same even number before and after it
//! copied them. The writer never waits; a reader that meets a writer who died in the middle gives up.
//!
//! The orderings are those of [`slot`](crate::slot), where they are argued and modelled.
//! Not here: what the words mean; creation and death (`region`).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::error::ShmError;
use crate::region::{
    Expect, HEADER_BYTES, Note, Producer, RegionInfo, RegionKind, RegionOwner, RegionSpec,
    RegionView,
};

/// Version and length come before the words of an entry.
const ENTRY_HEAD_WORDS: usize = 2;
/// Entries start 128 bytes apart or a multiple: their writers and readers do not share line pairs.
const ENTRY_ALIGN_BYTES: usize = 128;
/// A writer holds an entry for tens of nanoseconds; a reader that failed this often met a dead one,
/// or one that lost its CPU, and has better things to do.
const READ_TRIES: u32 = 1_000;

/// What a page is to be.
#[derive(Clone, Debug)]
pub struct LatestSpec {
    /// File name.
    pub name: String,
    /// How many entries.
    pub entries: usize,
    /// Most words an entry can hold.
    pub words_per_entry: usize,
    /// Hash over the meaning of the words.
    pub schema_hash: u64,
    /// A number for the application.
    pub tag: u32,
    /// Which build writes it.
    pub build_id: String,
    /// Whether to pin the pages in memory.
    pub lock_memory: bool,
}

impl LatestSpec {
    /// Returns a specification with the usual rest.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        entries: usize,
        words_per_entry: usize,
        schema_hash: u64,
    ) -> Self {
        Self {
            name: name.into(),
            entries,
            words_per_entry,
            schema_hash,
            tag: 0,
            build_id: env!("CARGO_PKG_VERSION").to_owned(),
            lock_memory: true,
        }
    }

    fn region(&self) -> Result<RegionSpec, ShmError> {
        let spec_error = |what, found: usize, rule| ShmError::Spec {
            name: self.name.clone(),
            what,
            found: found as u64,
            rule,
        };
        if self.entries == 0 {
            return Err(spec_error("entries", 0, "must be at least 1"));
        }
        let slot_bytes = self
            .words_per_entry
            .checked_add(ENTRY_HEAD_WORDS)
            .and_then(|words| words.checked_mul(8))
            .and_then(|bytes| bytes.checked_next_multiple_of(ENTRY_ALIGN_BYTES))
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|_| self.words_per_entry > 0)
            .ok_or_else(|| {
                spec_error("words per entry", self.words_per_entry, "must be 1 to 500 million")
            })?;
        Ok(RegionSpec {
            name: self.name.clone(),
            kind: RegionKind::Latest,
            slot_bytes,
            slot_count: self.entries as u64,
            schema_hash: self.schema_hash,
            initial_seq: 0,
            tag: self.tag,
            build_id: self.build_id.clone(),
            lock_memory: self.lock_memory,
        })
    }
}

/// The producer's end.
#[derive(Debug)]
pub struct LatestWriter {
    region: RegionOwner,
    entries: usize,
    entry_words: usize,
    words_max: usize,
    writes: u64,
}

impl LatestWriter {
    /// Creates the page of the next epoch, all entries unwritten. Fails if another producer lives.
    pub fn create(dir: &Path, spec: &LatestSpec) -> Result<Self, ShmError> {
        let region_spec = spec.region()?;
        let entry_words = region_spec.slot_bytes as usize / 8;
        let region = RegionOwner::create(dir, &region_spec, |_| {})?;
        Ok(Self {
            region,
            entries: spec.entries,
            entry_words,
            words_max: spec.words_per_entry,
            writes: 0,
        })
    }

    /// Replaces the value of entry `idx`. Never waits.
    ///
    /// # Panics
    /// If there is no such entry, or it has no room for so many words: both are ours to know.
    #[inline]
    pub fn write(&mut self, idx: usize, words: &[u64]) {
        assert!(idx < self.entries, "the page has this entry");
        assert!(words.len() <= self.words_max, "the entry has room for these words");
        let offset = HEADER_BYTES + idx * self.entry_words * 8;
        let entry = self.region.mapping().words(offset, ENTRY_HEAD_WORDS + words.len());
        write_entry(entry, words);
        self.writes += 1;
    }

    /// Tells readers that we live.
    pub fn beat(&mut self, tsc: u64) {
        self.region.beat(tsc, self.writes);
    }

    /// Returns the epoch of this producer.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.region.epoch()
    }

    /// Returns what could not be done at creation, for the log.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        self.region.notes()
    }

    /// Says goodbye. Dropping without this is what a crash looks like to readers.
    pub fn close(self) {
        self.region.close(self.writes);
    }
}

/// A consumer's end; maps the page read-only.
#[derive(Debug)]
pub struct LatestReader {
    view: RegionView,
    entries: usize,
    entry_words: usize,
}

impl LatestReader {
    /// Attaches, waiting for a producer that starts.
    pub fn open(
        dir: &Path,
        name: &str,
        schema_hash: u64,
        timeout: Duration,
    ) -> Result<Self, ShmError> {
        let expect = Expect {
            kind: RegionKind::Latest,
            schema_hash: Some(schema_hash),
            slot_bytes: None,
            power_of_two: false,
        };
        Self::attach(RegionView::open(dir, name, expect, timeout)?)
    }

    fn attach(view: RegionView) -> Result<Self, ShmError> {
        let slot_bytes = view.slot_bytes() as usize;
        if slot_bytes == 0 || !slot_bytes.is_multiple_of(ENTRY_ALIGN_BYTES) {
            return Err(ShmError::Geometry {
                path: view.path().to_owned(),
                what: "entry size",
                found: slot_bytes as u64,
                expected: slot_bytes.max(1).next_multiple_of(ENTRY_ALIGN_BYTES) as u64,
            });
        }
        // `open` checked that all entries lie inside the file, so the count fits.
        let entries = view.slot_count() as usize;
        Ok(Self { view, entries, entry_words: slot_bytes / 8 })
    }

    /// Copies entry `idx` and returns how many words it has. `None`: never written, or its writer is
    /// stuck in it.
    ///
    /// # Panics
    /// If there is no such entry, or `out` is shorter than the value.
    #[inline]
    pub fn read(&self, idx: usize, out: &mut [u64]) -> Option<usize> {
        read_entry(self.entry(idx), out)
    }

    /// Returns a number that changes with every write of entry `idx`; 0 until the first.
    #[must_use]
    pub fn version(&self, idx: usize) -> u64 {
        // Relaxed: a hint whether to read; `read` has its own order.
        self.entry(idx)[0].load(Ordering::Relaxed)
    }

    /// Returns how many entries there are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Returns how long a buffer must be to read any entry.
    #[must_use]
    pub fn words_max(&self) -> usize {
        self.entry_words - ENTRY_HEAD_WORDS
    }

    /// Judges the producer. For the slow path.
    #[must_use]
    pub fn producer(&self, now_tsc: u64, ticks_per_ms: u64) -> Producer {
        self.view.producer(now_tsc, ticks_per_ms)
    }

    /// Chooses after how long without a beat the producer is suspect.
    pub fn set_suspect_after_ms(&mut self, after_ms: u64) {
        self.view.set_suspect_after_ms(after_ms);
    }

    /// Returns the epoch being read.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.view.epoch()
    }

    /// Returns what the header says, for tools.
    #[must_use]
    pub fn info(&self) -> RegionInfo {
        self.view.info()
    }

    /// Moves to the page of the next epoch if there is one.
    pub fn reattach(&mut self) -> Result<bool, ShmError> {
        let Some(view) = self.view.reopen()? else { return Ok(false) };
        *self = Self::attach(view)?;
        Ok(true)
    }

    #[inline]
    fn entry(&self, idx: usize) -> &[AtomicU64] {
        assert!(idx < self.entries, "the page has this entry");
        self.view.mapping().words(HEADER_BYTES + idx * self.entry_words * 8, self.entry_words)
    }
}

/// Writes a seqlocked entry: version, length, words. Only its one writer may call this.
#[inline]
pub(crate) fn write_entry(entry: &[AtomicU64], words: &[u64]) {
    let (head, body) = entry.split_at(ENTRY_HEAD_WORDS);
    // Relaxed: we are the only writer, so this is our own last store.
    let version = head[0].load(Ordering::Relaxed);
    // Relaxed: the fence orders it. Odd: busy.
    head[0].store(version.wrapping_add(1) | 1, Ordering::Relaxed);
    // Release fence, partner: the Acquire fence in `read_entry`.
    fence(Ordering::Release);
    // Relaxed: between the fence above and the Release store below.
    head[1].store(words.len() as u64, Ordering::Relaxed);
    for (cell, &word) in body.iter().zip(words) {
        cell.store(word, Ordering::Relaxed);
    }
    // 0 means never written, so the wrap skips it.
    let next = (version | 1).wrapping_add(1);
    // Release, partner: the Acquire load in `read_entry`.
    head[0].store(if next == 0 { 2 } else { next }, Ordering::Release);
}

/// Reads a seqlocked entry, with bounded patience.
#[inline]
pub(crate) fn read_entry(entry: &[AtomicU64], out: &mut [u64]) -> Option<usize> {
    let (head, body) = entry.split_at(ENTRY_HEAD_WORDS);
    for _ in 0..READ_TRIES {
        // Acquire, partner: the last store in `write_entry`.
        let before = head[0].load(Ordering::Acquire);
        if before == 0 {
            return None;
        }
        if before % 2 == 1 {
            std::hint::spin_loop();
            continue;
        }
        // Relaxed, here and below: the writer may be here now; the re-check decides.
        let len = head[1].load(Ordering::Relaxed);
        // A torn or damaged length must not lead out of the entry, nor out of the buffer.
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(body.len());
        for (to, from) in out.iter_mut().zip(&body[..len]) {
            *to = from.load(Ordering::Relaxed);
        }
        // Acquire fence, partner: the Release fence in `write_entry`.
        fence(Ordering::Acquire);
        // Relaxed: the fence orders it.
        if head[0].load(Ordering::Relaxed) == before {
            assert!(len <= out.len(), "the buffer has room for the value");
            return Some(len);
        }
    }
    None
}
