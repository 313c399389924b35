//! A book as it stands on the latest page: what a consumer resynchronises from without the network.
//!
//! Invariant: an entry is exactly what was published up to ring sequence `as_of_seq`; a consumer that
//! takes it over and goes on at the next sequence has the book that it would have had without its gap.

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::machine::Position;

/// Words before the levels.
const HEAD: usize = 12;

/// The meaning of the words, for the schema hash of the page.
pub const LAYOUT: &str = "book-page-3: as_of_seq, epoch<<32|instrument<<16|reason<<8|state, update_id, \
    venue_ts_ns, recv_ts_ns, rules<<32|conn, bids, asks, status, tick, lot, notional_min, then px, qty of bids and of asks, best first";

/// Returns how many words an entry of `window` levels a side takes.
#[must_use]
pub const fn words(window: usize) -> usize {
    HEAD + 4 * window
}

/// One entry, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// All records up to this ring sequence are in it.
    pub as_of_seq: u64,
    /// Epoch of the ring that the sequence is of.
    pub epoch: u16,
    /// Instrument: a machine may order its books as it likes, so an entry names its own.
    pub instrument: u16,
    /// State of the book.
    pub state: BookState,
    /// Why it is in that state.
    pub reason: Reason,
    /// Where it stands in the venue's stream.
    pub position: Position,
    /// The instrument's rules as they were published last: the data of an `InstrumentChange`.
    pub rules: Option<[i64; 4]>,
    /// Bids and asks, best first.
    pub sides: [Vec<Level>; 2],
}

/// Writes an entry's words; `shown` levels of each side are published.
#[allow(clippy::too_many_arguments, reason = "one call, and every one is another thing")]
pub fn encode(
    words: &mut Vec<u64>,
    as_of_seq: u64,
    (epoch, instrument): (u16, u16),
    (state, reason): (BookState, Reason),
    position: &Position,
    rules: Option<[i64; 4]>,
    book: &Book,
    shown: [usize; 2],
) {
    words.clear();
    let counts = Side::BOTH.map(|side| shown[side.idx()].min(book.len(side)));
    words.extend([
        as_of_seq,
        u64::from(epoch) << 32
            | u64::from(instrument) << 16
            | u64::from(reason as u8) << 8
            | u64::from(state as u8),
        position.update_id,
        position.venue_ts_ns as u64,
        position.recv_ns as u64,
        u64::from(rules.is_some()) << 32 | u64::from(position.conn),
        counts[0] as u64,
        counts[1] as u64,
    ]);
    words.extend(rules.unwrap_or_default().map(|word| word as u64));
    for side in Side::BOTH {
        for level in book.levels(side).take(counts[side.idx()]) {
            words.extend([level.px.0 as u64, level.qty.0 as u64]);
        }
    }
}

/// Reads an entry; nothing where the words are no such entry.
#[must_use]
pub fn decode(words: &[u64]) -> Option<Page> {
    let (head, levels) = words.split_at_checked(HEAD)?;
    let state = BookState::from_tag((head[1] & 0xff) as i64)?;
    let reason = Reason::from_tag((head[1] >> 8 & 0xff) as i64)?;
    let (bids, asks) = (usize::try_from(head[6]).ok()?, usize::try_from(head[7]).ok()?);
    if bids.checked_add(asks)?.checked_mul(2)? != levels.len() {
        return None;
    }
    let side = |words: &[u64]| -> Option<Vec<Level>> {
        let level = |pair: &[u64]| {
            let level = Level { px: Px(pair[0] as i64), qty: Qty(pair[1] as i64) };
            (0 < level.px.0 && 0 < level.qty.0).then_some(level)
        };
        words.chunks_exact(2).map(level).collect()
    };
    let position = Position {
        update_id: head[2],
        venue_ts_ns: head[3] as i64,
        recv_ns: head[4] as i64,
        conn: head[5] as u32,
    };
    let rules = match head[5] >> 32 {
        0 => None,
        1 => Some([8, 9, 10, 11].map(|at| head[at] as i64)),
        _ => return None,
    };
    let sides = [side(&levels[..bids * 2])?, side(&levels[bids * 2..])?];
    let (epoch, instrument) = ((head[1] >> 32) as u16, (head[1] >> 16) as u16);
    Some(Page { as_of_seq: head[0], epoch, instrument, state, reason, position, rules, sides })
}

impl Page {
    /// Returns the records that bring a consumer's book and rules to this entry, as one batch.
    pub fn records(&self, venue: Venue) -> impl Iterator<Item = Record> + '_ {
        let instrument = self.instrument;
        let stamp = move |record: Record| Record {
            epoch: self.epoch,
            update_id: self.position.update_id,
            venue_ts_ns: self.position.venue_ts_ns,
            recv_ts_ns: self.position.recv_ns,
            conn: self.position.conn,
            flags: record.flags | flag::SNAPSHOT,
            ..record
        };
        let levels = Side::BOTH.into_iter().flat_map(move |side| {
            let of = self.sides[side.idx()].iter();
            of.map(move |level| Record::level(venue, instrument, side, level.px, level.qty))
        });
        let clear = Record::new(Kind::Clear, venue as u8, instrument, [0; 4]);
        let rules = self
            .rules
            .map(|data| Record::new(Kind::InstrumentChange, venue as u8, instrument, data));
        let data = [self.state as i64, self.reason as i64, 0, 0];
        let state = Record::new(Kind::BookState, venue as u8, instrument, data);
        let state = Record { flags: flag::LAST, ..state };
        rules.into_iter().chain([clear]).chain(levels).chain(std::iter::once(state)).map(stamp)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> Position {
        Position { update_id: 7, venue_ts_ns: -1, recv_ns: 9, conn: 3 }
    }

    proptest! {
        #[test]
        fn an_entry_comes_back(
            bids in 0..40i64,
            asks in 0..40i64,
            shown in 0..50usize,
            rules in proptest::option::of(any::<[i64; 4]>()),
        ) {
            let mut book = Book::new(64);
            for n in 0..bids { book.set(Side::Bid, Px(100 - n), Qty(n + 1)); }
            for n in 0..asks { book.set(Side::Ask, Px(101 + n), Qty(n + 1)); }
            let mut words = Vec::new();
            let state = (BookState::Stale, Reason::Checksum);
            encode(&mut words, 5, (2, 4), state, &position(), rules, &book, [shown, shown]);
            prop_assert!(words.len() <= super::words(50));
            let page = decode(&words).expect("an entry");
            prop_assert_eq!((page.as_of_seq, page.epoch, page.instrument), (5, 2, 4));
            prop_assert_eq!((page.state, page.reason), state);
            prop_assert_eq!(page.position, position());
            prop_assert_eq!(page.rules, rules);
            let told = page.records(Venue::Kraken).find(|r| r.kind() == Some(Kind::InstrumentChange));
            prop_assert_eq!(told.map(|record| record.data), rules);
            let mut mirror = Book::new(64);
            for record in page.records(Venue::Kraken) {
                if record.kind() == Some(Kind::Level) {
                    let side = Side::from_idx(record.data[2]).expect("a side");
                    mirror.set(side, Px(record.data[0]), Qty(record.data[1]));
                }
            }
            for side in Side::BOTH {
                prop_assert!(mirror.levels(side).eq(book.levels(side).take(shown)));
            }
        }

        #[test]
        fn any_words_give_an_answer(words in proptest::collection::vec(any::<u64>(), 0..64)) {
            let _ = decode(&words);
        }
    }
}
