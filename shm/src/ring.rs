//! A ring in shared memory: one producer, any number of consumers, never any back-pressure.
//!
//! Invariant: the record of sequence `n` is in slot `n & mask` until `n + capacity` replaces it, and
//! the slot protocol ([`slot`]) hands it out whole or not at all. A consumer that is lapped
//! learns exactly how many records it lost: what it took plus what it lost is what was published.
//! Consumers read owned copies; no reference into the ring escapes. The producer stores nothing but the
//! slot per record: progress and counters go out with the heartbeat.
//!
//! Not here: creation, locks and death (`region`), orderings inside a slot (`slot`).

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::tsc;
use crate::error::ShmError;
use crate::payload::{Payload, RECORD_BYTES, RECORD_WORDS, assert_size, from_words, to_words};
use crate::region::{
    Counter, Expect, HEADER_BYTES, Note, Producer, RegionInfo, RegionKind, RegionOwner, RegionSpec,
    RegionView,
};
use crate::slot::{self, SlotRead, distance};

/// One record in place: two whole lines, never straddling a third.
#[repr(C, align(128))]
struct Slot([AtomicU64; RECORD_WORDS]);

const _: () = assert!(size_of::<Slot>() == RECORD_BYTES && HEADER_BYTES.is_multiple_of(128));

/// What a ring is to be.
#[derive(Clone, Debug)]
pub struct RingSpec {
    /// File name: `producer_consumer`.
    pub name: String,
    /// Capacity; a power of two, at least 2.
    pub slots: u64,
    /// Hash over names, types and offsets of the record's fields.
    pub schema_hash: u64,
    /// First sequence. Any number is right, also near the wrap; tests start there.
    pub initial_seq: u64,
    /// A number for the application: venue, role.
    pub tag: u32,
    /// Which build writes it.
    pub build_id: String,
    /// Whether to pin the pages in memory.
    pub lock_memory: bool,
}

impl RingSpec {
    /// Returns a specification with the usual rest: sequence 1 first, pages pinned.
    #[must_use]
    pub fn new(name: impl Into<String>, slots: u64, schema_hash: u64) -> Self {
        Self {
            name: name.into(),
            slots,
            schema_hash,
            initial_seq: 1,
            tag: 0,
            build_id: env!("CARGO_PKG_VERSION").to_owned(),
            lock_memory: true,
        }
    }

    fn region(&self) -> Result<RegionSpec, ShmError> {
        if !self.slots.is_power_of_two() || self.slots < 2 {
            return Err(ShmError::Spec {
                name: self.name.clone(),
                what: "slots",
                found: self.slots,
                rule: "must be a power of two, at least 2",
            });
        }
        Ok(RegionSpec {
            name: self.name.clone(),
            kind: RegionKind::Ring,
            slot_bytes: RECORD_BYTES as u32,
            slot_count: self.slots,
            schema_hash: self.schema_hash,
            initial_seq: self.initial_seq,
            tag: self.tag,
            build_id: self.build_id.clone(),
            lock_memory: self.lock_memory,
        })
    }
}

/// The producer's end.
pub struct RingWriter<T> {
    region: RegionOwner,
    slots: *const Slot,
    mask: u64,
    next_seq: u64,
    initial_seq: u64,
    payload: PhantomData<fn(&T)>,
}

// SAFETY: `slots` points into the mapping that `region` owns, which moves with us and is not bound to
// a thread. There is one writer, and it is behind `&mut self`.
unsafe impl<T> Send for RingWriter<T> {}

impl<T: Payload> RingWriter<T> {
    /// Creates the ring of the next epoch. Fails if another producer of that name lives.
    pub fn create(dir: &Path, spec: &RingSpec) -> Result<Self, ShmError> {
        const { assert_size::<T>() };
        let mask = spec.slots.wrapping_sub(1);
        let region = RegionOwner::create(dir, &spec.region()?, |map| {
            for index in 0..spec.slots {
                let at = HEADER_BYTES + index as usize * RECORD_BYTES;
                let word = slot::initial_word(index, spec.initial_seq, mask);
                // Relaxed: published by the magic.
                map.words(at, 1)[0].store(word, Ordering::Relaxed);
            }
        })?;
        let slots = region.mapping().at::<Slot>(HEADER_BYTES, spec.slots as usize);
        let (next_seq, initial_seq) = (spec.initial_seq, spec.initial_seq);
        Ok(Self { region, slots, mask, next_seq, initial_seq, payload: PhantomData })
    }

    /// Publishes a record and returns its sequence, which is also its word 0. Never waits.
    #[inline]
    pub fn publish(&mut self, item: &T) -> u64 {
        let seq = self.next_seq;
        // SAFETY: masked, so below the capacity that `create` mapped; the mapping lives in `region`.
        let slot = unsafe { &*self.slots.add((seq & self.mask) as usize) };
        slot::publish(&slot.0, seq, &to_words(item));
        self.next_seq = seq.wrapping_add(1);
        seq
    }

    /// Tells readers that we live; call it from the poll loop, busy or idle, every millisecond or so.
    pub fn beat(&mut self, tsc: u64) {
        *self.region.counter(Counter::Published) = self.next_seq.wrapping_sub(self.initial_seq);
        self.region.beat(tsc, self.next_seq);
    }

    /// Returns a counter to add to; readers see it with the next beat.
    pub fn counter(&mut self, counter: Counter) -> &mut u64 {
        self.region.counter(counter)
    }

    /// Returns the sequence the next record will have.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns how many records the ring holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
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
    pub fn close(mut self) {
        self.beat(tsc());
        self.region.close(self.next_seq);
    }
}

impl<T> fmt::Debug for RingWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingWriter({:?}, next {})", self.region, self.next_seq)
    }
}

impl<T> fmt::Debug for RingReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingReader({:?}, at {})", self.view, self.cursor)
    }
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<T> {
    /// The next record.
    Item(T),
    /// There is none yet.
    Empty,
    /// The producer lapped us. The next poll reads the oldest record that is safe for a while.
    Overrun {
        /// How many records we will never see.
        lost: u64,
    },
}

/// What a consumer counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderCounts {
    /// Records taken.
    pub taken: u64,
    /// Overruns found before reading: we came too late.
    pub overruns_polling: u64,
    /// Overruns found after reading: it was overwritten under our eyes.
    pub overruns_reading: u64,
    /// Records lost to overruns.
    pub lost: u64,
    /// Records passed over by `skip_to_newest`.
    pub skipped: u64,
}

/// A consumer's end. It maps the ring read-only; its position is its own.
pub struct RingReader<T> {
    view: RegionView,
    slots: *const Slot,
    mask: u64,
    cursor: u64,
    counts: ReaderCounts,
    payload: PhantomData<fn() -> T>,
}

// SAFETY: `slots` points into the mapping that `view` owns, which moves with us and is not bound to a
// thread; only loads go through it.
unsafe impl<T> Send for RingReader<T> {}

impl<T: Payload> RingReader<T> {
    /// Attaches at the oldest record that is safe for a while, waiting for a producer that starts.
    pub fn open(
        dir: &Path,
        name: &str,
        schema_hash: u64,
        timeout: Duration,
    ) -> Result<Self, ShmError> {
        const { assert_size::<T>() };
        let expect = Expect {
            kind: RegionKind::Ring,
            schema_hash: Some(schema_hash),
            slot_bytes: Some(RECORD_BYTES as u32),
            power_of_two: true,
        };
        Ok(Self::attach(RegionView::open(dir, name, expect, timeout)?))
    }

    fn attach(view: RegionView) -> Self {
        let slot_count = view.slot_count();
        let slots = view.mapping().at::<Slot>(HEADER_BYTES, slot_count as usize);
        let mut reader = Self {
            view,
            slots,
            mask: slot_count - 1,
            cursor: 0,
            counts: ReaderCounts::default(),
            payload: PhantomData,
        };
        reader.cursor = reader.oldest_safe(reader.newest());
        reader
    }

    /// Reads the next record, if there is one. No system call, no store to shared memory.
    #[inline]
    pub fn poll(&mut self) -> Read<T> {
        match slot::read(&self.slot(self.cursor).0, self.cursor) {
            SlotRead::Item(words) => {
                self.cursor = self.cursor.wrapping_add(1);
                self.counts.taken += 1;
                Read::Item(from_words(&words))
            }
            SlotRead::NotYet => Read::Empty,
            SlotRead::Behind(found) => {
                self.counts.overruns_polling += 1;
                self.recover(found)
            }
            SlotRead::Changed(found) => {
                self.counts.overruns_reading += 1;
                self.recover(found)
            }
        }
    }

    /// Returns whether the next poll would find nothing; for a last look before sleeping (see `bell`).
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        slot::is_ahead(&self.slot(self.cursor).0, self.cursor)
    }

    /// Returns the sequence the next poll wants.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.cursor
    }

    /// Goes to a sequence, wherever that is: too old shows as an overrun, too new as empty.
    pub fn seek(&mut self, seq: u64) {
        self.cursor = seq;
    }

    /// Goes to the newest record, which the next poll returns, and returns how many were passed over.
    pub fn skip_to_newest(&mut self) -> u64 {
        let newest = self.newest();
        let skipped = u64::try_from(distance(newest, self.cursor)).unwrap_or(0);
        if skipped > 0 {
            self.cursor = newest;
            self.counts.skipped += skipped;
        }
        skipped
    }

    /// Returns the newest published sequence; one before the first when there is none.
    ///
    /// Found by bisection over the slots, not from a shared word: the producer stores none per record.
    #[must_use]
    pub fn newest(&self) -> u64 {
        let hint = self.view.progress();
        if self.is_published(hint) { self.newest_from(hint) } else { hint.wrapping_sub(1) }
    }

    /// Returns how many records wait, as far as the ring still has them.
    #[must_use]
    pub fn lag(&self) -> u64 {
        u64::try_from(distance(self.newest(), self.cursor) + 1).unwrap_or(0)
    }

    /// Returns the producer's hint as of its last beat: everything before it is published.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.view.progress()
    }

    /// Judges the producer. For the slow path: every few hundred empty polls.
    #[must_use]
    pub fn producer(&self, now_tsc: u64, ticks_per_ms: u64) -> Producer {
        match self.view.producer(now_tsc, ticks_per_ms) {
            // The hint is as old as the last beat; the slots know better.
            Producer::Dead { epoch, .. } => Producer::Dead { epoch, last_seq: self.newest() },
            other => other,
        }
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

    /// Returns how many records the ring holds.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// Returns what this consumer counted since it was opened, over all epochs.
    #[must_use]
    pub fn counts(&self) -> ReaderCounts {
        self.counts
    }

    /// Returns what the header says, for tools.
    #[must_use]
    pub fn info(&self) -> RegionInfo {
        self.view.info()
    }

    /// Moves to the ring of the next epoch, once this one is drained and the next is there.
    ///
    /// `false`: there are records left to poll here, or no successor yet. After `true` the sequence
    /// starts anew, and what depended on the old stream must be rebuilt.
    pub fn reattach(&mut self) -> Result<bool, ShmError> {
        if self.has_next() {
            return Ok(false);
        }
        let Some(view) = self.view.reopen()? else { return Ok(false) };
        // Its producer may have published between our look and its death.
        if self.has_next() {
            return Ok(false);
        }
        let counts = self.counts;
        *self = Self::attach(view);
        self.counts = counts;
        Ok(true)
    }

    /// Returns whether a poll would find something, be it an overrun.
    fn has_next(&self) -> bool {
        self.is_published(self.cursor)
    }

    #[inline(always)]
    fn slot(&self, seq: u64) -> &Slot {
        // SAFETY: masked, so below the capacity that `attach` checked against the mapping, which lives
        // in `view`. Slots are atomics.
        unsafe { &*self.slots.add((seq & self.mask) as usize) }
    }

    /// Returns whether the slot of `seq` has reached it.
    fn is_published(&self, seq: u64) -> bool {
        // Acquire, partner: the last store in `slot::publish`; for whoever reads the record after.
        distance(self.slot(seq).0[0].load(Ordering::Acquire), seq) >= 0
    }

    /// Returns the newest sequence, given one that is published.
    fn newest_from(&self, published: u64) -> u64 {
        let mut anchor = published;
        // The producer may run a lap while we look; after a few laps any answer is as good.
        for _ in 0..4 {
            // The slot may be laps ahead of us. Its word is published, or a busy mark `n - 1`, and then
            // `n - 1` is. Acquire, partner: the last store in `slot::publish`.
            anchor = self.slot(anchor).0[0].load(Ordering::Acquire);
            // In ring order from `anchor`, published slots come first: at any moment, and for ever.
            let (mut low, mut high) = (0, self.mask + 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if self.is_published(anchor.wrapping_add(middle)) {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            anchor = anchor.wrapping_add(low);
            if low < self.mask {
                break;
            }
        }
        anchor
    }

    /// Returns where to read on so that the producer needs a while to lap us again: 7/8 of a lap back.
    fn oldest_safe(&self, newest: u64) -> u64 {
        let capacity = self.mask + 1;
        let keep = capacity - (capacity / 8).max(1);
        let initial = self.view.initial_seq();
        // Records so far, right across the wrap.
        let published = newest.wrapping_sub(initial).wrapping_add(1);
        if published <= keep { initial } else { newest.wrapping_sub(keep).wrapping_add(1) }
    }

    /// Finds a place after an overrun; the slot we wanted holds `found`, which is ahead.
    #[cold]
    fn recover(&mut self, found: u64) -> Read<T> {
        // A busy mark `n - 1` says that `n - 1` is published, like any other word 0. Only a slot that
        // was never used says less; then nothing beyond the hint is known.
        let newest = if self.is_published(found) { self.newest_from(found) } else { self.newest() };
        let target = self.oldest_safe(newest);
        let lost = target.wrapping_sub(self.cursor);
        self.cursor = target;
        self.counts.lost += lost;
        Read::Overrun { lost }
    }
}
