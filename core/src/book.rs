//! One instrument's book at one venue: flat arrays, touched where change happens.
//!
//! Invariant: each side holds distinct positive prices with positive quantities, sorted so that the
//! best is the last element. A change moves what is on its shorter side, up or down: there is room at
//! both ends. Nothing is allocated after construction. Beyond its capacity a side forgets its worst
//! level and says so.
//!
//! Not here: whether the book is right (`tandem-feeds` proves it), who may use it (`engine`).

use alloc::boxed::Box;

use zerocopy::{FromBytes, FromZeros, KnownLayout};

use crate::units::{Px, Qty, Side};

/// One price and what rests there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, KnownLayout)]
pub struct Level {
    /// Price.
    pub px: Px,
    /// Quantity, always positive in a book.
    pub qty: Qty,
}

/// What [`Book::set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A level that was not there; its rank counts from the best, which is 0.
    Inserted {
        /// Rank of the new level.
        rank: usize,
        /// Whether the side was full and its worst level was forgotten.
        dropped: bool,
    },
    /// A level's quantity is another one.
    Updated {
        /// Rank of the level.
        rank: usize,
    },
    /// A level is gone.
    Removed {
        /// Rank it had.
        rank: usize,
    },
    /// Nothing: the same quantity, a removal of what was not there, or beyond a full side's worst.
    Nothing,
}

/// Levels at the best that are looked through at once, all of them: a count has no branch to guess wrong.
const NEAR: usize = 8;

/// Levels in a row, worst first, with room at both ends.
#[derive(Debug)]
struct Row {
    room: Box<[Level]>,
    from: usize,
    to: usize,
}

impl Clone for Row {
    fn clone(&self) -> Row {
        let mut row = Row::with_room(self.room.len());
        row.copy(self.levels());
        row
    }
}

impl Row {
    fn new(capacity: usize) -> Row {
        // One more than the capacity, so that an insertion into a full side needs no special case; and
        // as much again, so that levels wander a while before they are brought back to the middle.
        Row::with_room(2 * (capacity + 1))
    }

    fn with_room(count: usize) -> Row {
        // Zeroed by the kernel: pages that no level came to are none.
        let room = <[Level]>::new_box_zeroed_with_elems(count);
        let room = room.expect("memory for a book");
        Row { from: count / 2, to: count / 2, room }
    }

    /// Becomes these levels, for which there must be room.
    fn copy(&mut self, levels: &[Level]) {
        self.from = (self.room.len() - levels.len()) / 2;
        self.to = self.from + levels.len();
        self.levels_mut().copy_from_slice(levels);
    }

    #[inline(always)]
    fn levels(&self) -> &[Level] {
        &self.room[self.from..self.to]
    }

    #[inline(always)]
    fn best(&self) -> Option<Level> {
        // Without levels there is none before `to`.
        if self.from == self.to { None } else { self.room.get(self.to - 1).copied() }
    }

    #[inline(always)]
    fn levels_mut(&mut self) -> &mut [Level] {
        &mut self.room[self.from..self.to]
    }

    #[inline]
    fn len(&self) -> usize {
        self.to - self.from
    }

    fn clear(&mut self) {
        self.from = self.room.len() / 2;
        self.to = self.from;
    }

    /// Makes room at both ends.
    #[cold]
    fn centre(&mut self) {
        let from = (self.room.len() - self.len()) / 2;
        let to = from + self.len();
        self.room.copy_within(self.from..self.to, from);
        (self.from, self.to) = (from, to);
    }

    #[inline]
    fn insert(&mut self, at: usize, level: Level) {
        if self.from == 0 || self.to == self.room.len() {
            self.centre();
        }
        let at = self.from + at;
        if at - self.from < self.to - at {
            self.room.copy_within(self.from..at, self.from - 1);
            self.from -= 1;
            self.room[at - 1] = level;
        } else {
            self.room.copy_within(at..self.to, at + 1);
            self.to += 1;
            self.room[at] = level;
        }
    }

    #[inline]
    fn remove(&mut self, at: usize) {
        let at = self.from + at;
        if at - self.from < self.to - at {
            self.room.copy_within(self.from..at, self.from + 1);
            self.from += 1;
        } else {
            self.room.copy_within(at + 1..self.to, at);
            self.to -= 1;
        }
    }

    /// Forgets the `count` worst.
    #[inline]
    fn drop_worst(&mut self, count: usize) {
        self.from += count.min(self.len());
    }

    /// Forgets the best.
    #[inline]
    fn drop_best(&mut self) {
        self.to = self.to.max(self.from + 1) - 1;
    }
}

/// Both sides of one book.
#[derive(Clone, Debug)]
pub struct Book {
    sides: [Row; 2],
    capacity: usize,
}

impl Book {
    /// Returns an empty book that holds `capacity` levels a side. It takes 64 bytes of address space for each of them;
    /// memory only where levels come to lie.
    #[must_use]
    pub fn new(capacity: usize) -> Book {
        assert!(0 < capacity, "a book holds at least one level a side");
        Book { sides: [Row::new(capacity), Row::new(capacity)], capacity }
    }

    /// Forgets every level.
    pub fn clear(&mut self) {
        self.sides.iter_mut().for_each(Row::clear);
    }

    /// Returns how many levels a side has.
    #[must_use]
    pub fn len(&self, side: Side) -> usize {
        self.sides[side.idx()].len()
    }

    /// Returns whether both sides are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sides.iter().all(|row| row.len() == 0)
    }

    /// Returns how many levels a side can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the best level of a side.
    #[inline]
    #[must_use]
    pub fn best(&self, side: Side) -> Option<Level> {
        self.sides[side.idx()].best()
    }

    /// Returns the level of a rank; the best has rank 0.
    #[inline]
    #[must_use]
    pub fn level(&self, side: Side, rank: usize) -> Option<Level> {
        let levels = self.sides[side.idx()].levels();
        levels.len().checked_sub(rank + 1).map(|idx| levels[idx])
    }

    /// Returns the levels of a side, best first.
    #[inline]
    pub fn levels(
        &self,
        side: Side,
    ) -> impl DoubleEndedIterator<Item = Level> + ExactSizeIterator + '_ {
        self.sides[side.idx()].levels().iter().rev().copied()
    }

    /// Returns whether the best bid is at or above the best ask.
    #[inline]
    #[must_use]
    pub fn is_crossed_or_locked(&self) -> bool {
        match (self.best(Side::Bid), self.best(Side::Ask)) {
            (Some(bid), Some(ask)) => ask.px <= bid.px,
            _ => false,
        }
    }

    /// Sets the absolute quantity at a price; 0 removes the level.
    #[inline]
    pub fn set(&mut self, side: Side, px: Px, qty: Qty) -> Change {
        debug_assert!(0 < px.0 && 0 <= qty.0, "decoders refuse other prices and quantities");
        let row = &mut self.sides[side.idx()];
        let levels = row.levels_mut();
        let at = find(levels, side, px);
        // The element at `at - 1` has this rank, and so has one inserted at `at`.
        let rank = levels.len() - at;
        match at.checked_sub(1).map(|below| &mut levels[below]) {
            Some(level) if level.px == px => {
                if qty.0 == 0 {
                    row.remove(at - 1);
                    Change::Removed { rank }
                } else if level.qty == qty {
                    Change::Nothing
                } else {
                    level.qty = qty;
                    Change::Updated { rank }
                }
            }
            _ if qty.0 == 0 || rank == self.capacity => Change::Nothing,
            _ => {
                row.insert(at, Level { px, qty });
                let dropped = self.capacity < row.len();
                if dropped {
                    row.drop_worst(1);
                }
                Change::Inserted { rank, dropped }
            }
        }
    }

    /// Takes a quantity off a level; one that has no more than that goes. A price without a level is none.
    #[inline]
    pub fn lower(&mut self, side: Side, px: Px, by: Qty) {
        let row = &mut self.sides[side.idx()];
        let levels = row.levels_mut();
        let at = find(levels, side, px);
        let Some(level) = at.checked_sub(1).map(|below| &mut levels[below]) else { return };
        if level.px != px {
            return;
        }
        if by < level.qty {
            level.qty = Qty(level.qty.0 - by.0);
        } else {
            row.remove(at - 1);
        }
    }

    /// Makes `level` the best of its side: better levels are gone, it is inserted or updated. An empty
    /// side is `None`. This is what a venue's best-bid-ask message says. Returns whether the best of
    /// the side is another one than before.
    pub fn set_best(&mut self, side: Side, level: Option<Level>) -> bool {
        let before = self.best(side);
        let row = &mut self.sides[side.idx()];
        match level {
            None => row.clear(),
            Some(level) => {
                let key = side.rank_key(level.px);
                while row.levels().last().is_some_and(|last| key < side.rank_key(last.px)) {
                    row.drop_best();
                }
                self.set(side, level.px, level.qty);
            }
        }
        before != self.best(side)
    }

    /// Adds a level that is worse than all the side has, as a snapshot's levels come; refuses (false)
    /// one that is not, or one beyond the capacity.
    pub fn push_worst(&mut self, side: Side, px: Px, qty: Qty) -> bool {
        let row = &mut self.sides[side.idx()];
        let worst = row.levels().first();
        let worse = worst.is_none_or(|worst| side.rank_key(px) < side.rank_key(worst.px));
        if !worse || row.len() == self.capacity || qty.0 <= 0 {
            return false;
        }
        row.insert(0, Level { px, qty });
        true
    }

    /// Makes a side equal to another book's; beyond the capacity the worst are left out.
    pub fn copy(&mut self, side: Side, from: &Book) {
        let theirs = from.sides[side.idx()].levels();
        let theirs = &theirs[theirs.len().saturating_sub(self.capacity)..];
        self.sides[side.idx()].copy(theirs);
    }

    /// Replaces a side by a snapshot's levels, given best first. Levels out of order are put in order,
    /// of equal prices the later one counts, zero quantities remove. Beyond the capacity the worst are
    /// left out. Returns how many were left out.
    pub fn replace(&mut self, side: Side, best_first: impl Iterator<Item = Level>) -> usize {
        self.sides[side.idx()].clear();
        let mut dropped = 0;
        let mut sorted = true;
        for level in best_first {
            let row = &self.sides[side.idx()];
            let worst = row.levels().first();
            let is_next =
                worst.is_none_or(|worst| side.rank_key(level.px) < side.rank_key(worst.px));
            sorted &= is_next;
            // In order a level goes to the end of the row, or is left out; else it is looked for.
            dropped += match sorted && 0 < level.qty.0 {
                true => usize::from(!self.push_worst(side, level.px, level.qty)),
                false => {
                    let change = self.set(side, level.px, level.qty);
                    usize::from(matches!(change, Change::Inserted { dropped: true, .. }))
                }
            };
        }
        dropped
    }

    /// Keeps the best `keep` levels of a side.
    pub fn truncate(&mut self, side: Side, keep: usize) {
        let row = &mut self.sides[side.idx()];
        row.drop_worst(row.len().saturating_sub(keep));
    }
}

/// Returns the position behind which (towards the best) all levels are better than `px`; the level at
/// `px`, if any, is the one before that position.
#[inline]
fn find(levels: &[Level], side: Side, px: Px) -> usize {
    match side {
        Side::Bid => prefix(levels, |level| level.px <= px),
        Side::Ask => prefix(levels, |level| px <= level.px),
    }
}

/// Returns how many levels from the worst on satisfy what only a prefix of them does.
#[inline(always)]
fn prefix(levels: &[Level], is_in: impl Fn(&Level) -> bool) -> usize {
    // Most changes of the recorded venues' trading are near the best.
    let (rest, near) = levels.split_at(levels.len().saturating_sub(NEAR));
    if near.first().is_none_or(&is_in) || rest.is_empty() {
        return rest.len() + near.iter().map(|level| usize::from(is_in(level))).sum::<usize>();
    }
    rest.partition_point(is_in)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn book(capacity: usize, levels: &[(Side, i64, i64)]) -> Book {
        let mut book = Book::new(capacity);
        for (side, px, qty) in levels {
            book.set(*side, Px(*px), Qty(*qty));
        }
        book
    }

    #[test]
    fn best_first_on_both_sides() {
        use Side::{Ask, Bid};
        let book = book(4, &[(Bid, 10, 1), (Bid, 12, 2), (Bid, 11, 3), (Ask, 15, 4), (Ask, 14, 5)]);
        let px = |side| book.levels(side).map(|level| level.px.0).collect::<Vec<_>>();
        assert_eq!(px(Bid), [12, 11, 10]);
        assert_eq!(px(Ask), [14, 15]);
        assert_eq!(book.level(Bid, 1), Some(Level { px: Px(11), qty: Qty(3) }));
        assert_eq!(book.level(Ask, 2), None);
        assert!(!book.is_crossed_or_locked());
    }

    #[test]
    fn changes_say_their_rank() {
        let mut book = book(3, &[(Side::Ask, 10, 1), (Side::Ask, 11, 1), (Side::Ask, 12, 1)]);
        assert_eq!(book.set(Side::Ask, Px(11), Qty(7)), Change::Updated { rank: 1 });
        assert_eq!(book.set(Side::Ask, Px(11), Qty(7)), Change::Nothing);
        assert_eq!(book.set(Side::Ask, Px(13), Qty(7)), Change::Nothing);
        assert_eq!(book.set(Side::Ask, Px(9), Qty(2)), Change::Inserted { rank: 0, dropped: true });
        assert_eq!(book.set(Side::Ask, Px(10), Qty(0)), Change::Removed { rank: 1 });
        assert_eq!(book.set(Side::Ask, Px(10), Qty(0)), Change::Nothing);
        assert_eq!(book.len(Side::Ask), 2);
    }

    #[test]
    fn a_new_best_removes_what_was_better() {
        let mut book = book(8, &[(Side::Bid, 10, 1), (Side::Bid, 11, 1), (Side::Bid, 12, 1)]);
        assert!(book.set_best(Side::Bid, Some(Level { px: Px(11), qty: Qty(5) })));
        assert_eq!(book.best(Side::Bid), Some(Level { px: Px(11), qty: Qty(5) }));
        assert_eq!(book.len(Side::Bid), 2);
        assert!(!book.set_best(Side::Bid, Some(Level { px: Px(11), qty: Qty(5) })));
        assert!(book.set_best(Side::Bid, None));
        assert_eq!(book.best(Side::Bid), None);
    }

    /// Holds a book against an ordered map that forgets its worst beyond the capacity.
    fn equals_a_map(ops: Vec<(bool, i64, i64)>, capacity: usize) -> Result<(), TestCaseError> {
        let mut book = Book::new(capacity);
        let mut maps: [BTreeMap<i64, i64>; 2] = Default::default();
        for (ask, px, qty) in ops {
            let side = if ask { Side::Ask } else { Side::Bid };
            let map = &mut maps[side.idx()];
            let key = side.rank_key(Px(px));
            let better = map.range(key..).filter(|(k, _)| **k != key).count();
            let before = map.get(&key).copied();
            if qty == 0 {
                map.remove(&key)
            } else {
                map.insert(key, qty)
            };
            let dropped = capacity < map.len();
            let forgotten = if dropped { map.pop_first() } else { None };
            let expected = match (before, qty) {
                (None, 0) => Change::Nothing,
                (Some(_), 0) => Change::Removed { rank: better },
                (Some(before), qty) if before == qty => Change::Nothing,
                (Some(_), _) => Change::Updated { rank: better },
                (None, _) if forgotten.is_some_and(|(k, _)| k == key) => Change::Nothing,
                (None, _) => Change::Inserted { rank: better, dropped },
            };
            prop_assert_eq!(book.set(side, Px(px), Qty(qty)), expected);
            prop_assert_eq!(book.len(side), map.len());
            let best = map.last_key_value().map(|(key, qty)| (key.abs(), *qty));
            prop_assert_eq!(book.best(side).map(|l| (l.px.0, l.qty.0)), best);
        }
        for side in Side::BOTH {
            let model: Vec<_> =
                maps[side.idx()].iter().rev().map(|(key, qty)| (key.abs(), *qty)).collect();
            let ours: Vec<_> = book.levels(side).map(|l| (l.px.0, l.qty.0)).collect();
            prop_assert_eq!(ours, model);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn equals_an_ordered_map(
            ops in proptest::collection::vec((any::<bool>(), 1..60i64, 0..4i64), 0..400),
            capacity in 1..40usize,
        ) {
            equals_a_map(ops, capacity)?;
        }

        /// Deep enough for every way to look for a level, and to wander from end to end of its room.
        #[test]
        fn a_deep_one_too(
            ops in proptest::collection::vec((any::<bool>(), 1..2_000i64, 0..3i64), 0..6_000),
            capacity in 1..900usize,
            drift in 0..4i64,
        ) {
            let drifting = ops.into_iter().enumerate();
            let ops = drifting.map(|(at, (ask, px, qty))| (ask, px + at as i64 * drift, qty));
            equals_a_map(ops.collect(), capacity)?;
        }

        #[test]
        fn a_snapshot_equals_setting_its_levels(
            levels in proptest::collection::vec((1..60i64, 0..4i64), 0..80),
            in_order in any::<bool>(),
            capacity in 1..40usize,
        ) {
            let mut levels = levels;
            if in_order {
                levels.sort_by_key(|(px, _)| -px);
            }
            let mut by_set = Book::new(1_000);
            for (px, qty) in &levels { by_set.set(Side::Bid, Px(*px), Qty(*qty)); }
            let mut by_snapshot = Book::new(1_000);
            by_snapshot.replace(Side::Bid, levels.iter().map(|(px, qty)| Level { px: Px(*px), qty: Qty(*qty) }));
            prop_assert!(by_set.levels(Side::Bid).eq(by_snapshot.levels(Side::Bid)));
            let mut small = Book::new(capacity);
            small.replace(Side::Bid, by_set.levels(Side::Bid));
            by_set.truncate(Side::Bid, capacity);
            prop_assert!(by_set.levels(Side::Bid).eq(small.levels(Side::Bid)));
        }
    }
}
