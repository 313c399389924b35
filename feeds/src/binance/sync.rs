//! Proof that a Binance book is in sync: update ids against a REST snapshot (sheet section 3).
//!
//! Invariant: a diff is applied only if its ids join the book's: `U ≤ id + 1 ≤ u`. Until a snapshot was
//! joined, diffs wait in a bounded buffer without holes. What does not join is a gap, and the book
//! starts over. All ids of diffs, snapshots and `bookTicker` are one sequence.
//!
//! The `+1` form is used throughout: the documentation's newest text (`lastUpdateId` within `[U; u]`)
//! would have refused 5 of 8 recorded synchronisations.
//!
//! Not here: the books themselves (`publish`), who fetches snapshots (`mod`).

use super::decode::Span;
use crate::publish::Update;

/// Buffered diffs of one symbol: 100 s of a busy one.
const BUFFERED_EVENTS_MAX: usize = 1_024;

/// Buffered levels of one symbol; the largest recorded diff had 1,076.
const BUFFERED_LEVELS_MAX: usize = 65_536;

/// Old diffs in a row that are no repetition any more but a sequence that went backwards.
const REWIND_EVENTS: u32 = 16;

/// What a diff means for the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDiff {
    /// Waits for a snapshot. `began`: it is the first, so a snapshot may be asked for now.
    Buffered {
        /// First of a fresh buffer.
        began: bool,
    },
    /// Joins the book: apply it.
    Apply {
        /// Its first ids were applied already, and not just after a snapshot.
        overlap: bool,
    },
    /// All of it is in the book already.
    Old,
    /// Ids are missing before it. The book starts over with this diff in the buffer.
    Gap {
        /// Next id of the book.
        expected: u64,
        /// First id of the diff.
        received: u64,
    },
    /// The sequence went backwards and stayed there. The book starts over.
    Rewind,
    /// The buffer is full: it starts over with this diff.
    Overflow,
}

/// What a snapshot means for the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSnapshot {
    /// It joins the buffer: the book is the snapshot and then [`DepthSync::released`].
    Joined,
    /// It is older than the first buffered diff: fetch another.
    Older,
    /// Nobody waits for one: the book is in sync, and not older than it.
    Unwanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Collecting diffs, waiting for a snapshot.
    Buffering,
    /// In sync; `joined` once a live diff followed the snapshot.
    Synced { joined: bool },
}

/// A buffered diff.
#[derive(Clone, Copy, Debug)]
struct Held {
    span: Span,
    event_ns: i64,
    start: usize,
    end: usize,
}

/// The state of one symbol.
#[derive(Clone, Debug)]
pub struct DepthSync {
    phase: Phase,
    /// Last id of the book.
    id: u64,
    old_in_a_row: u32,
    held: Vec<Held>,
    held_levels: Vec<Update>,
    /// Buffered diffs before this one are older than the snapshot.
    first_released: usize,
    /// In sync, and keeping diffs for another snapshot that will join without a break.
    refreshing: bool,
}

impl Default for DepthSync {
    fn default() -> DepthSync {
        DepthSync {
            phase: Phase::Buffering,
            id: 0,
            old_in_a_row: 0,
            held: Vec::new(),
            held_levels: Vec::new(),
            first_released: 0,
            refreshing: false,
        }
    }
}

impl DepthSync {
    /// Returns whether the book is in sync.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        matches!(self.phase, Phase::Synced { .. })
    }

    /// Returns whether a diff waits for a snapshot.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        (self.refreshing || matches!(self.phase, Phase::Buffering)) && !self.held.is_empty()
    }

    /// Has a book that is in sync take another snapshot, because the old one's known part has worn off:
    /// diffs are applied and kept from here on, and the snapshot joins them without a break.
    pub fn refresh(&mut self) {
        if self.is_synced() && !self.refreshing {
            self.clear_buffer();
            self.refreshing = true;
        }
    }

    /// Returns the last id that was applied; 0 before the first snapshot.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Forgets everything: a new connection, or a doubt.
    pub fn restart(&mut self) {
        self.phase = Phase::Buffering;
        self.id = 0;
        self.old_in_a_row = 0;
        self.clear_buffer();
    }

    /// Takes a diff.
    #[inline]
    pub fn on_diff(&mut self, span: Span, event_ns: i64, levels: [&[Update]; 2]) -> OnDiff {
        let Phase::Synced { joined } = self.phase else {
            return self.buffer(span, event_ns, levels);
        };
        if span.last <= self.id {
            self.old_in_a_row += 1;
            if self.old_in_a_row < REWIND_EVENTS {
                return OnDiff::Old;
            }
            self.restart();
            self.hold(span, event_ns, levels);
            return OnDiff::Rewind;
        }
        let expected = self.id.saturating_add(1);
        if expected < span.first {
            self.restart();
            self.hold(span, event_ns, levels);
            return OnDiff::Gap { expected, received: span.first };
        }
        self.old_in_a_row = 0;
        self.phase = Phase::Synced { joined: true };
        self.id = span.last;
        if self.refreshing {
            self.keep(span, event_ns, levels);
        }
        OnDiff::Apply { overlap: joined && span.first < expected }
    }

    /// Returns whether a diff would join the book without a hole; for a second connection.
    #[must_use]
    pub const fn would_join(&self, span: Span) -> bool {
        self.is_synced() && span.first <= self.id.saturating_add(1)
    }

    #[cold]
    fn buffer(&mut self, span: Span, event_ns: i64, levels: [&[Update]; 2]) -> OnDiff {
        let Some(last) = self.held.last().map(|held| held.span.last) else {
            self.hold(span, event_ns, levels);
            return OnDiff::Buffered { began: true };
        };
        if span.last <= last {
            return OnDiff::Old;
        }
        if last.saturating_add(1) < span.first {
            // A hole in the buffer: what is before it can no longer be joined to what follows.
            self.clear_buffer();
            self.hold(span, event_ns, levels);
            return OnDiff::Gap { expected: last.saturating_add(1), received: span.first };
        }
        if self.is_full(levels) {
            self.clear_buffer();
            self.hold(span, event_ns, levels);
            return OnDiff::Overflow;
        }
        self.hold(span, event_ns, levels);
        OnDiff::Buffered { began: false }
    }

    /// Keeps an applied diff for the snapshot that was asked for; too many, and it was not to be.
    #[cold]
    fn keep(&mut self, span: Span, event_ns: i64, levels: [&[Update]; 2]) {
        if self.is_full(levels) {
            return self.clear_buffer();
        }
        self.hold(span, event_ns, levels);
    }

    fn is_full(&self, levels: [&[Update]; 2]) -> bool {
        let count = self.held_levels.len() + levels[0].len() + levels[1].len();
        self.held.len() == BUFFERED_EVENTS_MAX || BUFFERED_LEVELS_MAX < count
    }

    fn hold(&mut self, span: Span, event_ns: i64, levels: [&[Update]; 2]) {
        let start = self.held_levels.len();
        // One message larger than the whole buffer cannot come over a frame of ours; it would be held
        // alone and be dropped with the next one.
        levels.into_iter().for_each(|side| self.held_levels.extend_from_slice(side));
        self.held.push(Held { span, event_ns, start, end: self.held_levels.len() });
    }

    fn clear_buffer(&mut self) {
        self.held.clear();
        self.held_levels.clear();
        self.first_released = 0;
        self.refreshing = false;
    }

    /// Takes the id of a snapshot. Where it joins, apply the snapshot, then [`DepthSync::released`], then
    /// call [`DepthSync::release`].
    pub fn on_snapshot(&mut self, snapshot_id: u64) -> OnSnapshot {
        if self.is_synced() && !self.refreshing && snapshot_id <= self.id {
            return OnSnapshot::Unwanted;
        }
        if self.held.first().is_some_and(|first| snapshot_id < first.span.first) {
            return OnSnapshot::Older;
        }
        // The buffer has no holes, so what is left begins at most one id behind the snapshot.
        self.first_released = self.held.partition_point(|held| held.span.last <= snapshot_id);
        self.phase = Phase::Synced { joined: self.first_released < self.held.len() };
        self.id = self.held.last().map_or(snapshot_id, |held| held.span.last.max(snapshot_id));
        self.refreshing = false;
        self.old_in_a_row = 0;
        OnSnapshot::Joined
    }

    /// Returns the buffered diffs that are newer than the snapshot, in order: last id, time, levels.
    pub fn released(&self) -> impl Iterator<Item = (u64, i64, &[Update])> {
        self.held[self.first_released..]
            .iter()
            .map(|held| (held.span.last, held.event_ns, &self.held_levels[held.start..held.end]))
    }

    /// Empties the buffer after [`DepthSync::released`] was applied.
    pub fn release(&mut self) {
        self.clear_buffer();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::units::{Px, Qty, Side};

    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn diff(sync: &mut DepthSync, first: u64, last: u64) -> OnDiff {
        sync.on_diff(span(first, last), 0, [&[], &[]])
    }

    fn golden() -> DepthSync {
        let mut sync = DepthSync::default();
        assert_eq!(diff(&mut sync, 101, 103), OnDiff::Buffered { began: true });
        assert_eq!(diff(&mut sync, 104, 104), OnDiff::Buffered { began: false });
        assert_eq!(diff(&mut sync, 105, 109), OnDiff::Buffered { began: false });
        sync
    }

    fn joined(snapshot: u64) -> (Vec<u64>, u64) {
        let mut sync = golden();
        assert_eq!(sync.on_snapshot(snapshot), OnSnapshot::Joined);
        let released = sync.released().map(|(last, ..)| last).collect();
        sync.release();
        (released, sync.id())
    }

    /// The sheet's minimal golden case.
    #[test]
    fn binance_golden_case() {
        assert_eq!(joined(104), (vec![109], 109));
        assert_eq!(golden().on_snapshot(100), OnSnapshot::Older);
        assert_eq!(joined(106), (vec![109], 109));
        assert_eq!(joined(109), (vec![], 109));
        let mut sync = golden();
        sync.on_snapshot(109);
        sync.release();
        assert_eq!(diff(&mut sync, 111, 112), OnDiff::Gap { expected: 110, received: 111 });
        assert!(!sync.is_synced() && sync.wants_snapshot());
    }

    #[test]
    fn binance_trap_1_snapshot_older_than_the_buffer() {
        let mut sync = golden();
        assert_eq!(sync.on_snapshot(50), OnSnapshot::Older);
        assert!(!sync.is_synced());
        // Buffering goes on meanwhile.
        assert_eq!(diff(&mut sync, 110, 111), OnDiff::Buffered { began: false });
        assert_eq!(sync.on_snapshot(110), OnSnapshot::Joined);
        assert_eq!(sync.released().count(), 1);
    }

    #[test]
    fn binance_trap_1b_first_event_straddling_the_snapshot_is_legal_once() {
        let mut sync = DepthSync::default();
        diff(&mut sync, 90, 95);
        assert_eq!(sync.on_snapshot(100), OnSnapshot::Joined);
        sync.release();
        assert_eq!(diff(&mut sync, 98, 104), OnDiff::Apply { overlap: false });
        assert_eq!(
            diff(&mut sync, 104, 106),
            OnDiff::Apply { overlap: true },
            "later overlap is suspicious"
        );
    }

    #[test]
    fn binance_trap_42_the_next_id_joins() {
        let mut sync = DepthSync::default();
        diff(&mut sync, 90, 95);
        sync.on_snapshot(100);
        sync.release();
        assert_eq!(diff(&mut sync, 101, 104), OnDiff::Apply { overlap: false });
    }

    #[test]
    fn a_hole_in_the_buffer_starts_the_buffer_over() {
        let mut sync = golden();
        assert_eq!(diff(&mut sync, 111, 113), OnDiff::Gap { expected: 110, received: 111 });
        assert_eq!(sync.on_snapshot(109), OnSnapshot::Older);
        assert_eq!(sync.on_snapshot(112), OnSnapshot::Joined);
        assert_eq!(sync.released().count(), 1);
    }

    #[test]
    fn repetitions_are_dropped_and_a_rewind_starts_over() {
        let mut sync = golden();
        sync.on_snapshot(109);
        sync.release();
        assert_eq!(diff(&mut sync, 105, 109), OnDiff::Old);
        assert_eq!(diff(&mut sync, 110, 110), OnDiff::Apply { overlap: false });
        for id in 1..REWIND_EVENTS {
            assert_eq!(diff(&mut sync, u64::from(id), u64::from(id)), OnDiff::Old);
        }
        assert_eq!(diff(&mut sync, 16, 16), OnDiff::Rewind);
        assert!(sync.wants_snapshot());
    }

    #[test]
    fn the_buffer_is_bounded() {
        let mut sync = DepthSync::default();
        diff(&mut sync, 1, 1);
        let overflows =
            (2..5_000).filter(|id| diff(&mut sync, *id, *id) == OnDiff::Overflow).count();
        assert_eq!(overflows, 4);
        let level = Update { side: Side::Bid, px: Px(1), qty: Qty(1) };
        let many = vec![level; BUFFERED_LEVELS_MAX + 1];
        assert_eq!(sync.on_diff(span(5_000, 5_000), 0, [&many, &[]]), OnDiff::Overflow);
        assert_eq!(sync.held.len(), 1);
    }

    #[test]
    fn a_snapshot_nobody_waits_for_changes_nothing() {
        let mut sync = golden();
        sync.on_snapshot(104);
        sync.release();
        assert_eq!(sync.on_snapshot(108), OnSnapshot::Unwanted);
        assert_eq!(sync.id(), 109);
    }

    #[test]
    fn a_refresh_joins_without_a_break() {
        let mut sync = golden();
        sync.on_snapshot(104);
        sync.release();
        sync.refresh();
        assert!(!sync.wants_snapshot(), "nothing is kept yet");
        assert_eq!(diff(&mut sync, 110, 112), OnDiff::Apply { overlap: false });
        assert!(sync.wants_snapshot() && sync.is_synced());
        assert_eq!(sync.on_snapshot(109), OnSnapshot::Older);
        assert_eq!(diff(&mut sync, 113, 115), OnDiff::Apply { overlap: false });
        assert_eq!(sync.on_snapshot(112), OnSnapshot::Joined);
        assert_eq!(sync.released().map(|(last, ..)| last).collect::<Vec<_>>(), [115]);
        sync.release();
        assert_eq!(sync.id(), 115);
        assert_eq!(diff(&mut sync, 116, 116), OnDiff::Apply { overlap: false });
        sync.refresh();
        diff(&mut sync, 117, 117);
        assert_eq!(diff(&mut sync, 119, 119), OnDiff::Gap { expected: 118, received: 119 });
        assert_eq!(sync.on_snapshot(118), OnSnapshot::Older, "a gap ends the refresh");
    }

    proptest! {
        /// Diffs of one id each, some lost or repeated, snapshots of any age: the ids that were applied
        /// are always the snapshot's and all after it, with none missing.
        #[test]
        fn in_sync_means_no_id_is_missing(steps in proptest::collection::vec((0..10u8, 0..6u64), 1..300)) {
            let mut sync = DepthSync::default();
            let mut stream = 100u64;
            // The book as the largest id below which nothing is missing.
            let mut complete = 0u64;
            for (what, n) in steps {
                match what {
                    0 => stream += n, // Lost.
                    1 => {
                        let snapshot = (stream + 2).saturating_sub(n * 3);
                        if sync.on_snapshot(snapshot) == OnSnapshot::Joined {
                            complete = snapshot;
                            for (last, ..) in sync.released() {
                                prop_assert!(last <= complete + 1 || last == complete + 1);
                                complete = last.max(complete);
                            }
                            sync.release();
                        }
                    }
                    9 => sync.refresh(),
                    2 => {
                        let id = stream.saturating_sub(n);
                        if let OnDiff::Apply { .. } = diff(&mut sync, id, id) {
                            prop_assert!(id <= complete + 1);
                            complete = id.max(complete);
                        }
                    }
                    _ => {
                        stream += 1;
                        if let OnDiff::Apply { .. } = diff(&mut sync, stream, stream) {
                            prop_assert_eq!(stream, complete + 1);
                            complete = stream;
                        }
                    }
                }
                if sync.is_synced() { prop_assert_eq!(sync.id(), complete); }
            }
        }
    }
}
