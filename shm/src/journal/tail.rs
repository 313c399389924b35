//! Torn or corrupt: what a frame that is not a record means.
//!
//! Invariant: damage is called torn, and may be cut off, only if it is certain to be an append that
//! was cut short: the writer stores one frame at a time and its sequence last, so that is one frame
//! without a sequence, nothing behind it, and nothing that expected more. Everything else is corrupt,
//! and never silently cut.
//!
//! A frame whose sequence is there but whose checksum is wrong is corrupt also at the very end: its
//! sequence was stored after all its words. In memory that order holds through a `kill -9`, and an
//! archive holds only what was committed.

/// One frame, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The expected sequence and the right checksum.
    Valid,
    /// All words zero: never written.
    Empty,
    /// No sequence, but some words.
    Uncommitted,
    /// The expected sequence, but not its checksum.
    BadChecksum,
    /// Another sequence.
    WrongSequence,
}

/// What is behind a frame in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Only zeros.
    Nothing,
    /// Something, but no record.
    Junk,
    /// At least one valid record at its place.
    Records,
}

/// What the next segment says about the frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is none: the journal may end here.
    None,
    /// It starts with the sequence expected here, and with our chain value: the journal was resumed.
    Linked,
    /// It starts elsewhere: records are missing here.
    Broken,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A record; go on.
    Continue,
    /// The segment ends before this frame, cleanly.
    End,
    /// The segment ends before this frame, in an append that was cut short.
    Torn,
    /// Something or somebody damaged the file. Keep it as evidence.
    Corrupt,
}

/// Decides. Pure, so that a test can hold it against the whole table.
#[must_use]
pub fn judge(frame: Frame, after: After, next: Next) -> Verdict {
    match (frame, after, next) {
        (Frame::Valid, _, _) => Verdict::Continue,
        (Frame::BadChecksum | Frame::WrongSequence, _, _) => Verdict::Corrupt,
        (Frame::Empty | Frame::Uncommitted, After::Junk | After::Records, _) => Verdict::Corrupt,
        (Frame::Empty | Frame::Uncommitted, After::Nothing, Next::Broken) => Verdict::Corrupt,
        (Frame::Empty, After::Nothing, Next::None | Next::Linked) => Verdict::End,
        (Frame::Uncommitted, After::Nothing, Next::None | Next::Linked) => Verdict::Torn,
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Continue as C, Corrupt as X, End as E, Torn as T};
    use super::*;

    /// One row a frame, one column a situation: all 45 of them, written out.
    #[test]
    fn every_situation_has_its_verdict() {
        use After::{Junk, Nothing, Records};
        let columns = [
            (Nothing, Next::None),
            (Nothing, Next::Linked),
            (Nothing, Next::Broken),
            (Junk, Next::None),
            (Junk, Next::Linked),
            (Junk, Next::Broken),
            (Records, Next::None),
            (Records, Next::Linked),
            (Records, Next::Broken),
        ];
        let rows = [
            (Frame::Valid, [C, C, C, C, C, C, C, C, C]),
            (Frame::Empty, [E, E, X, X, X, X, X, X, X]),
            (Frame::Uncommitted, [T, T, X, X, X, X, X, X, X]),
            (Frame::BadChecksum, [X, X, X, X, X, X, X, X, X]),
            (Frame::WrongSequence, [X, X, X, X, X, X, X, X, X]),
        ];
        for (frame, verdicts) in rows {
            for ((after, next), verdict) in columns.into_iter().zip(verdicts) {
                assert_eq!(judge(frame, after, next), verdict, "{frame:?} {after:?} {next:?}");
            }
        }
    }
}
