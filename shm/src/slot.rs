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

/// Returns whether [`read`] would answer [`SlotRead::NotYet`].
#[inline(always)]
pub fn is_ahead<C: Cell, const N: usize>(slot: &[C; N], seq: u64) -> bool {
    // Acquire, as in `read`.
    distance(slot[0].load(Ordering::Acquire), seq) < 0
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

/// All interleavings of the writer's stores and the reader's loads, one by one, on the real code.
///
/// The writer never loads, so its stores are one fixed list. Before each load of the reader any number
/// of them may have happened: every choice is tried. This is what loom cannot do for rings and counts
/// of this size; what it does not cover is weak memory, which is loom's.
#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const WORDS: usize = 3;

    #[derive(Default)]
    struct World {
        memory: Vec<u64>,
        /// The writer's stores, in order; the first `done` have happened.
        stores: Vec<(usize, u64)>,
        done: usize,
        /// How many stores happen before each load of this run, and how many could.
        choices: Vec<(usize, usize)>,
        loads: usize,
    }

    thread_local!(static WORLD: RefCell<World> = RefCell::default());

    /// A word by its place in the world's memory.
    #[derive(Clone, Copy)]
    struct Place(usize);

    impl Cell for Place {
        fn load(&self, _: Ordering) -> u64 {
            WORLD.with_borrow_mut(|world| {
                let left = world.stores.len() - world.done;
                if world.loads == world.choices.len() {
                    world.choices.push((0, left));
                }
                let (now, _) = world.choices[world.loads];
                world.loads += 1;
                for _ in 0..now {
                    let (place, value) = world.stores[world.done];
                    world.memory[place] = value;
                    world.done += 1;
                }
                world.memory[self.0]
            })
        }
        fn store(&self, value: u64, _: Ordering) {
            WORLD.with_borrow_mut(|world| world.stores.push((self.0, value)));
        }
        fn fence(_: Ordering) {}
    }

    fn record(seq: u64) -> [u64; WORDS] {
        [seq, seq.wrapping_mul(7) ^ 1, seq.wrapping_mul(11) ^ 2]
    }

    fn slot_of(seq: u64, mask: u64) -> [Place; WORDS] {
        std::array::from_fn(|word| Place((seq & mask) as usize * WORDS + word))
    }

    fn happened(place: usize, value: u64) -> bool {
        WORLD.with_borrow(|world| world.stores[..world.done].contains(&(place, value)))
    }

    /// Returns how many interleavings there were, or the first that broke a promise.
    fn explore(
        publish: impl Fn(&[Place; WORDS], u64, &[u64; WORDS]),
        slots: u64,
        initial: u64,
        published: u64,
        wanted: u64,
        polls: usize,
    ) -> Result<u64, String> {
        let mask = slots - 1;
        WORLD.set(World::default());
        for at in 0..published {
            let seq = initial.wrapping_add(at);
            publish(&slot_of(seq, mask), seq, &record(seq));
        }
        let mut runs = 0;
        loop {
            WORLD.with_borrow_mut(|world| {
                world.memory = (0..slots)
                    .flat_map(|index| [initial_word(index, initial, mask), 0, 0])
                    .collect();
                (world.done, world.loads) = (0, 0);
            });
            let mut cursor = wanted;
            for _ in 0..polls {
                let place = slot_of(cursor, mask)[0].0;
                // Known before the first load: what had happened by then had happened.
                let was_published = happened(place, cursor);
                let answer = read(&slot_of(cursor, mask), cursor);
                let next = cursor.wrapping_add(slots);
                let overwritten = happened(place, next.wrapping_sub(1)) || happened(place, next);
                match answer {
                    SlotRead::Item(words) if words == record(cursor) => {
                        cursor = cursor.wrapping_add(1);
                    }
                    SlotRead::Item(words) => return Err(format!("torn: {words:?}")),
                    SlotRead::NotYet if !was_published => {}
                    SlotRead::Behind(_) | SlotRead::Changed(_) if overwritten => break,
                    lie => return Err(format!("{lie:?} for {cursor}, published {was_published}")),
                }
            }
            runs += 1;
            // The next run: the last choice that has another alternative takes it.
            let more = WORLD.with_borrow_mut(|world| {
                while let Some((chosen, most)) = world.choices.pop() {
                    if chosen < most {
                        world.choices.push((chosen + 1, most));
                        return true;
                    }
                }
                false
            });
            if !more {
                return Ok(runs);
            }
        }
    }

    #[test]
    fn no_interleaving_tears_or_lies() {
        let mut runs = 0;
        for initial in [0, 1, u64::MAX - 1, u64::MAX - 2, 1 << 63] {
            for (slots, published, polls) in [(2, 5, 1), (2, 4, 2), (4, 7, 1)] {
                for ahead in 0..published + 2 {
                    let wanted = initial.wrapping_add(ahead);
                    runs += explore(publish, slots, initial, published, wanted, polls).unwrap();
                }
            }
        }
        assert!(runs > 400_000, "only {runs} interleavings");
    }

    #[test]
    fn the_model_bites() {
        let no_mark = |slot: &[Place; WORDS], seq: u64, words: &[u64; WORDS]| {
            for at in 1..WORDS {
                slot[at].store(words[at], Ordering::Relaxed);
            }
            slot[0].store(seq, Ordering::Release);
        };
        let error = explore(no_mark, 2, 0, 4, 0, 1).unwrap_err();
        assert!(error.contains("torn"), "{error}");
        let mark_last = |slot: &[Place; WORDS], seq: u64, words: &[u64; WORDS]| {
            slot[0].store(seq, Ordering::Release);
            for at in 1..WORDS {
                slot[at].store(words[at], Ordering::Relaxed);
            }
        };
        assert!(explore(mark_last, 2, 0, 4, 0, 1).is_err());
    }

    #[test]
    fn a_fresh_slot_says_not_yet_from_the_first_sequence_on_and_behind_before() {
        for initial in [0_u64, 5, u64::MAX, u64::MAX - 6] {
            let mask = 3;
            for ahead in 0..12_u64 {
                let seq = initial.wrapping_add(ahead);
                let word = initial_word(seq & mask, initial, mask);
                assert!(distance(word, seq) < 0, "{initial} + {ahead}");
                let early = initial.wrapping_sub(ahead + 1);
                let word = initial_word(early & mask, initial, mask);
                assert!(distance(word, early) >= 0, "{initial} - {ahead}");
            }
        }
    }
}
