//! The slot protocol: one writer, any number of readers, no lock, and a reader never takes a mixture.
//!
//! Invariant: a slot's word 0 is the sequence of the record in it, and while the record of sequence
//! `n` is being written it is `n - 1`. `n - 1` never lives in that slot when the ring has two slots or
//! more, so it says "busy with `n`" to a reader one lap behind and "not yet" to one that waits for `n`.
//! A reader uses the words only if word 0 was `n` before and after it copied them.
//!
//! Every word is an atomic, so that reading while the writer writes is a race of the protocol and not
//! of the language. On x86-64 all orders below are plain `mov`s and the fences are no instructions.
//!
//! Generic over the cell, because `tests/loom.rs` runs these same functions on loom's atomics, and the
//! exhaustive model below on its own. Not here: which slot, and where memory comes from (`ring`).

use std::sync::atomic::{self, AtomicU64, Ordering};

/// A 64-bit word two processes share.
pub trait Cell {
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
    /// Orders the accesses around it.
    fn fence(order: Ordering);
}

impl Cell for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }
    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
    #[inline(always)]
    fn fence(order: Ordering) {
        atomic::fence(order);
    }
}

#[cfg(loom)]
impl Cell for loom::sync::atomic::AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    fn fence(order: Ordering) {
        loom::sync::atomic::fence(order);
    }
}

/// What a slot holds for a reader that wants one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotRead<const N: usize> {
    /// The record, whole. Word 0 is its sequence.
    Item([u64; N]),
    /// It is not published yet, or is being written now.
    NotYet,
    /// It was overwritten before we came; the slot's word 0 said this.
    Behind(u64),
    /// It was overwritten while we copied; the slot's word 0 says this now.
    Changed(u64),
}

/// Returns what word 0 of slot `index` holds before its first record.
///
/// That is one less than the first sequence that will use the slot, so that a reader who waits for a
/// sequence from `initial_seq` on finds "not yet", and one who asks for an earlier one "behind".
#[must_use]
pub const fn initial_word(index: u64, initial_seq: u64, mask: u64) -> u64 {
    let first_use = initial_seq.wrapping_add(index.wrapping_sub(initial_seq) & mask);
    first_use.wrapping_sub(1)
}

/// Publishes `words[1..]` as the record of sequence `seq`. Only the one writer may call this.
#[inline(always)]
pub fn publish<C: Cell, const N: usize>(slot: &[C; N], seq: u64, words: &[u64; N]) {
    // Relaxed: the fence below orders it. Busy: from here on a reader of the old record must fail.
    slot[0].store(seq.wrapping_sub(1), Ordering::Relaxed);
    // Release fence, partner: the Acquire fence in `read`. A reader that copied any word stored below
    // then re-reads word 0 and finds at least the busy mark. A Release store of the mark would not do:
    // it orders what is before it, and the words are after.
    C::fence(Ordering::Release);
    for at in 1..N {
        // Relaxed: between the fence above and the Release store below.
        slot[at].store(words[at], Ordering::Relaxed);
    }
    // Release, partner: the first Acquire load in `read`. Who sees `seq` sees all words.
    slot[0].store(seq, Ordering::Release);
}

/// Reads the record of sequence `seq`, or says why there is none.
#[inline(always)]
pub fn read<C: Cell, const N: usize>(slot: &[C; N], seq: u64) -> SlotRead<N> {
    // Acquire, partner: the last store in `publish`.
    let found = slot[0].load(Ordering::Acquire);
    if found != seq {
        // The signed distance survives the wrap of the sequence.
        return if distance(found, seq) < 0 { SlotRead::NotYet } else { SlotRead::Behind(found) };
    }
    let mut words = [0; N];
    words[0] = seq;
    for at in 1..N {
        // Relaxed: the writer may be here now; the re-check below decides whether it was.
        words[at] = slot[at].load(Ordering::Relaxed);
    }
    // Acquire fence, partner: the Release fence in `publish`. An Acquire load of word 0 would not do:
    // it orders what is after it, and the words are before.
    C::fence(Ordering::Acquire);
    // Relaxed: the fence above orders it.
    let now = slot[0].load(Ordering::Relaxed);
    if now == seq { SlotRead::Item(words) } else { SlotRead::Changed(now) }
}

/// Returns how far `a` is ahead of `b`, right across the wrap.
#[must_use]
#[inline(always)]
pub const fn distance(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}
