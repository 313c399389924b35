//! A second source for books that no checksum protects: the venue's REST book, compared with ours.
//!
//! Invariant: one comparison convicts nobody, because the two books are of different moments (a cache may
//! hold the REST one back by a second). A level that differs is a *suspect*; it is *wrong* only if in the
//! next audit the same price still differs with the very same quantity on both sides, both unchanged. A
//! missing price counts as quantity 0, and only prices within the range that both books cover count.
//!
//! After a (re)sync a book is trusted once an audit shows no difference in its best ten levels, or once a
//! second one has confirmed none.
//!
//! Not here: fetching (`session`), what a wrong book means (each venue's machine).

use tandem_core::book::{Book, Level};
use tandem_core::units::{Px, Qty, Side};

use crate::publish::Update;

/// Levels that must agree at once for a book to be trusted after one audit.
const BEST_LEVELS: usize = 10;

/// Between an audit that left suspects and the next: longer than any REST cache (Coinbase's holds 1 s).
pub const RETRY_NS: i64 = 2_000_000_000;

/// An audit whose answer never came is asked for again after this.
const PATIENCE_NS: i64 = 10_000_000_000;

/// A level that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Side.
    pub side: Side,
    /// Price.
    pub px: Px,
    /// Our quantity; 0 where we have no such level.
    pub ours: Qty,
    /// The REST quantity; 0 where it has no such level.
    pub theirs: Qty,
}

/// What one audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Levels that differ.
    pub suspects: usize,
    /// Levels that differ as they did in the audit before.
    pub wrong: usize,
    /// Whether none of the best ten levels of either side differs.
    pub best_agree: bool,
}

/// Compares a side of our book with the REST side (best first); calls `found` for every level that
/// differs, with its rank among all prices compared.
fn compare_side(
    side: Side,
    ours: &Book,
    our_limit: Option<Px>,
    theirs: &[Update],
    is_cut: bool,
    found: &mut dyn FnMut(usize, Suspect),
) {
    // Both books are known up to the nearer of the two ends.
    let end = |px: Option<Px>| px.map(|px| side.rank_key(px));
    let their_end = if is_cut { end(theirs.last().map(|update| update.px)) } else { None };
    let limit = their_end.max(end(our_limit)).unwrap_or(i64::MIN);
    let known = |key: &i64| limit <= *key;
    let mut left = ours.levels(side).peekable();
    let mut right = theirs.iter().filter(|update| 0 < update.qty.0).peekable();
    for rank in 0.. {
        let a = left.peek().map(|level| side.rank_key(level.px)).filter(known);
        let b = right.peek().map(|update| side.rank_key(update.px)).filter(known);
        let Some(best) = a.max(b) else { return };
        let mine = if a == Some(best) { left.next() } else { None };
        let other = if b == Some(best) { right.next() } else { None };
        let px = mine.map(|level: Level| level.px).or(other.map(|update| update.px));
        let suspect = Suspect {
            side,
            px: px.unwrap_or_default(),
            ours: mine.map_or(Qty(0), |level| level.qty),
            theirs: other.map_or(Qty(0), |update| update.qty),
        };
        if suspect.ours != suspect.theirs {
            found(rank, suspect);
        }
    }
}

/// A REST book to compare with.
#[derive(Clone, Copy, Debug)]
pub struct RestBook<'a> {
    /// Bids and asks in any order.
    pub sides: [&'a [Update]; 2],
    /// Levels that were asked for: a side of that many is cut there.
    pub limit: usize,
}

/// The audits of one book.
#[derive(Clone, Debug, Default)]
pub struct Auditor {
    suspects: Vec<Suspect>,
    next: Vec<Suspect>,
    sorted: [Vec<Update>; 2],
    due_ns: i64,
    asked_ns: Option<i64>,
    audits: u32,
    is_trusted: bool,
}

impl Auditor {
    /// The book began anew: nothing is known, and an audit is due.
    pub fn restart(&mut self, now_ns: i64) {
        self.suspects.clear();
        self.due_ns = now_ns;
        self.asked_ns = None;
        self.audits = 0;
        self.is_trusted = false;
    }

    /// Returns whether the book was found right since it began.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Returns whether to ask for a REST book now.
    #[must_use]
    pub fn is_due(&self, now_ns: i64) -> bool {
        match self.asked_ns {
            Some(asked) => PATIENCE_NS < now_ns.saturating_sub(asked),
            None => self.due_ns <= now_ns,
        }
    }

    /// Notes that a REST book was asked for.
    pub const fn asked(&mut self, now_ns: i64) {
        self.asked_ns = Some(now_ns);
    }

    /// Notes that no answer came; another try is due at a time.
    pub const fn failed(&mut self, again_ns: i64) {
        self.asked_ns = None;
        self.due_ns = again_ns;
    }

    /// Takes a REST book. `edges` are the prices up to which ours is known.
    pub fn on_book(
        &mut self,
        ours: &Book,
        edges: [Option<Px>; 2],
        rest: RestBook<'_>,
        now_ns: i64,
        every_ns: i64,
    ) -> Finding {
        self.asked_ns = None;
        let mut finding = Finding { best_agree: true, ..Finding::default() };
        self.next.clear();
        for side in Side::BOTH {
            let theirs = &mut self.sorted[side.idx()];
            theirs.clear();
            theirs.extend_from_slice(rest.sides[side.idx()]);
            theirs.sort_by_key(|update| std::cmp::Reverse(side.rank_key(update.px)));
            let is_cut = rest.limit <= theirs.len();
            let (suspects, next) = (&self.suspects, &mut self.next);
            compare_side(side, ours, edges[side.idx()], theirs, is_cut, &mut |rank, suspect| {
                finding.suspects += 1;
                finding.best_agree &= BEST_LEVELS <= rank;
                finding.wrong += usize::from(suspects.contains(&suspect));
                next.push(suspect);
            });
        }
        std::mem::swap(&mut self.suspects, &mut self.next);
        self.audits = self.audits.saturating_add(1);
        self.is_trusted |= finding.wrong == 0 && (finding.best_agree || 2 <= self.audits);
        self.due_ns =
            now_ns + if finding.suspects == 0 { every_ns } else { RETRY_NS.min(every_ns) };
        // A market that moves always leaves suspects; two audits in a row decide, then it is the
        // ordinary pace again.
        if 2 <= self.audits && finding.wrong == 0 && self.audits.is_multiple_of(2) {
            self.due_ns = now_ns + every_ns;
        }
        finding
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(side: Side, levels: &[(i64, i64)]) -> Vec<Update> {
        levels.iter().map(|(px, qty)| Update { side, px: Px(*px), qty: Qty(*qty) }).collect()
    }

    fn book(bids: &[(i64, i64)], asks: &[(i64, i64)]) -> Book {
        let mut book = Book::new(1_000);
        for update in levels(Side::Bid, bids).into_iter().chain(levels(Side::Ask, asks)) {
            book.set(update.side, update.px, update.qty);
        }
        book
    }

    fn audit(auditor: &mut Auditor, ours: &Book, bids: &[(i64, i64)], limit: usize) -> Finding {
        let bids = levels(Side::Bid, bids);
        auditor.on_book(ours, [None; 2], RestBook { sides: [&bids, &[]], limit }, 0, 100)
    }

    #[test]
    fn the_same_difference_twice_is_wrong_and_any_other_is_not() {
        let mut auditor = Auditor::default();
        let ours = book(&[(10, 1), (9, 1)], &[]);
        assert_eq!(audit(&mut auditor, &ours, &[(10, 2), (9, 1)], 9).wrong, 0);
        assert!(!auditor.is_trusted());
        assert_eq!(audit(&mut auditor, &ours, &[(10, 3), (9, 1)], 9).wrong, 0, "REST moved");
        assert!(auditor.is_trusted());
        assert_eq!(audit(&mut auditor, &ours, &[(10, 3), (9, 1)], 9).wrong, 1);
        let moved = book(&[(10, 4), (9, 1)], &[]);
        assert_eq!(audit(&mut auditor, &moved, &[(10, 3), (9, 1)], 9).wrong, 0, "we moved");
    }

    #[test]
    fn a_missing_price_counts_as_zero_within_the_common_range() {
        let mut auditor = Auditor::default();
        let ours = book(&[(10, 1), (9, 1), (8, 1), (7, 1)], &[]);
        // REST was cut after 8; 7 is beyond it. 9 is missing there.
        let finding = audit(&mut auditor, &ours, &[(10, 1), (8, 1)], 2);
        assert_eq!((finding.suspects, finding.best_agree), (1, false));
        // Not cut: it says there is nothing at 7.
        assert_eq!(audit(&mut auditor, &ours, &[(10, 1), (8, 1)], 3).suspects, 2);
        let rest = levels(Side::Bid, &[(10, 1), (9, 1), (8, 2), (7, 3)]);
        let finding = Auditor::default().on_book(
            &ours,
            [Some(Px(9)), None],
            RestBook { sides: [&rest, &[]], limit: 9 },
            0,
            100,
        );
        assert_eq!(finding.suspects, 0, "beyond our edge nothing is known");
    }

    #[test]
    fn an_agreeing_book_is_trusted_at_once() {
        let mut auditor = Auditor::default();
        auditor.restart(5);
        assert!(auditor.is_due(5) && !auditor.is_trusted());
        auditor.asked(5);
        assert!(!auditor.is_due(6));
        assert!(auditor.is_due(5 + PATIENCE_NS + 1));
        let ours = book(&[(10, 1)], &[]);
        assert!(audit(&mut auditor, &ours, &[(10, 1)], 50).best_agree);
        assert!(auditor.is_trusted());
    }

    proptest! {
        /// A book that follows the same source is never convicted, however late the REST book is; and
        /// a level that is really wrong and rests is convicted by the second audit.
        #[test]
        fn convicts_what_is_wrong_and_nothing_else(
            history in proptest::collection::vec((1..30i64, 0..1_000_000i64), 4..60),
            delays in (0..3usize, 0..3usize),
            corrupt in proptest::option::of(31..40i64),
        ) {
            // The source's book after each step; quantities never repeat at one price.
            let mut states = vec![Book::new(100)];
            for (step, (px, qty)) in history.iter().enumerate() {
                let mut next = states[step].clone();
                next.set(Side::Bid, Px(*px), Qty(qty * 100 + step as i64));
                states.push(next);
            }
            let rest = |book: &Book| -> Vec<(i64, i64)> {
                book.levels(Side::Bid).map(|l| (l.px.0, l.qty.0)).collect()
            };
            let mut auditor = Auditor::default();
            let mut wrong = 0;
            // The second audit's REST book is never older than our book at the first: the cache is
            // shorter than the pause between audits.
            let first = states.len() / 2;
            for (now, delay) in [(first, delays.0), (states.len() - 1, delays.1)] {
                let mut ours = states[now].clone();
                if let Some(px) = corrupt { ours.set(Side::Bid, Px(px), Qty(7)); }
                let floor = if now == first { 0 } else { first };
                let theirs = rest(&states[now.saturating_sub(delay).max(floor)]);
                wrong = audit(&mut auditor, &ours, &theirs, 1_000).wrong;
            }
            prop_assert_eq!(wrong, usize::from(corrupt.is_some()));
        }
    }
}
