//! Proof that Coinbase's books are in sync: one sequence for a whole connection.
//!
//! Invariant: a book is in sync from its snapshot on, as long as no frame of its connection was missed.
//! The number covers every frame of every channel, so after a gap nobody can tell whose frame was lost
//! and every book of the connection is in doubt (sheet section 4.2).
//!
//! Not here: the books themselves (`publish`), reconnecting (`mod`).

/// What a frame's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFrame {
    /// The next one, or the first that we see.
    Next,
    /// Seen already, or out of order: discard.
    Old,
    /// Frames are missing before it.
    Gap {
        /// Number that should have come.
        expected: u64,
        /// Number that came.
        received: u64,
    },
    /// The sequence went backwards and stayed there.
    Rewind,
}

/// Old frames in a row that are no repetition any more but a sequence that went backwards.
const REWIND_FRAMES: u32 = 16;

/// The sequence of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    last: Option<u64>,
    old_in_a_row: u32,
}

impl Sequence {
    /// Returns whether the sequence is at `number` or later.
    #[must_use]
    pub fn is_beyond(&self, number: u64) -> bool {
        self.last.is_some_and(|last| number <= last)
    }

    /// Takes a frame's number. After a gap the sequence goes on from there; the books do not.
    #[inline]
    pub fn on_frame(&mut self, number: u64) -> OnFrame {
        let Some(last) = self.last else {
            // 0 on a fresh connection. A later one has lost frames before any book began.
            self.last = Some(number);
            return OnFrame::Next;
        };
        if number <= last {
            self.old_in_a_row += 1;
            if self.old_in_a_row < REWIND_FRAMES {
                return OnFrame::Old;
            }
            *self = Sequence { last: Some(number), old_in_a_row: 0 };
            return OnFrame::Rewind;
        }
        *self = Sequence { last: Some(number), old_in_a_row: 0 };
        let expected = last + 1;
        if number == expected { OnFrame::Next } else { OnFrame::Gap { expected, received: number } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coinbase_trap_sequence_is_checked_on_every_frame() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.on_frame(0), OnFrame::Next);
        assert_eq!(sequence.on_frame(1), OnFrame::Next);
        assert_eq!(sequence.on_frame(1), OnFrame::Old);
        assert_eq!(sequence.on_frame(0), OnFrame::Old);
        assert_eq!(sequence.on_frame(2), OnFrame::Next);
        assert_eq!(sequence.on_frame(5), OnFrame::Gap { expected: 3, received: 5 });
        assert_eq!(sequence.on_frame(6), OnFrame::Next);
        assert_eq!(sequence.on_frame(u64::MAX), OnFrame::Gap { expected: 7, received: u64::MAX });
        assert_eq!(sequence.on_frame(u64::MAX), OnFrame::Old);
    }

    #[test]
    fn a_rewind_that_stays_is_said() {
        let mut sequence = Sequence::default();
        sequence.on_frame(1_000);
        let outcomes: Vec<_> = (1..=16).map(|number| sequence.on_frame(number)).collect();
        assert!(outcomes[..15].iter().all(|outcome| *outcome == OnFrame::Old));
        assert_eq!(outcomes[15], OnFrame::Rewind);
        assert_eq!(sequence.on_frame(17), OnFrame::Next);
    }
}
