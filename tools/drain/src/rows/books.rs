//! The books that samples of the best bid and ask are taken from.
//!
//! Invariant: a book here is what the engine's is: levels, clears and best prices applied in the journal's
//! order. It is kept whole in the projector's state, so a sample does not depend on where a restart was.
//!
//! Not here: when a sample is taken (`projector`).

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Record};
use tandem_core::units::{Px, Qty, Side};

/// Levels a side that are kept at most, whatever a configuration says.
const LEVELS_MAX: usize = 4_096;

/// One instrument's book.
#[derive(Debug)]
pub struct Kept {
    book: Book,
    /// What is known of it, as a tag.
    pub state: u8,
    /// Second of the last sample.
    pub sampled_s: i64,
}

impl Kept {
    fn new(levels: usize) -> Kept {
        Kept { book: Book::new(levels), state: BookState::Init as u8, sampled_s: i64::MIN }
    }

    /// Returns the best level of a side.
    pub fn best(&self, side: Side) -> Option<Level> {
        self.book.best(side)
    }
}

/// The books of a run, by instrument.
#[derive(Debug, Default)]
pub struct Books {
    kept: Vec<Kept>,
    /// Levels a side.
    levels: usize,
}

impl Books {
    /// Returns empty books of so many levels a side.
    pub fn new(count: usize, levels: usize) -> Books {
        let levels = levels.clamp(1, LEVELS_MAX);
        Books { kept: (0..count).map(|_| Kept::new(levels)).collect(), levels }
    }

    /// Returns a book.
    pub fn get_mut(&mut self, instrument: u16) -> Option<&mut Kept> {
        self.kept.get_mut(usize::from(instrument))
    }

    /// Takes a record about a book; what makes no sense changes nothing.
    pub fn take(&mut self, record: &Record) -> Option<&mut Kept> {
        let kept = self.kept.get_mut(usize::from(record.instrument))?;
        let [a, b, c, d] = record.data;
        match record.kind()? {
            Kind::Level => {
                let side = Side::from_idx(c)?;
                if a <= 0 || b < 0 {
                    return None;
                }
                kept.book.set(side, Px(a), Qty(b));
            }
            Kind::Bbo => {
                let level = |px: i64, qty: i64| match (px, qty) {
                    (_, 0) => Some(None),
                    (1.., 1..) => Some(Some(Level { px: Px(px), qty: Qty(qty) })),
                    _ => None,
                };
                let (bid, ask) = (level(a, b)?, level(c, d)?);
                kept.book.set_best(Side::Bid, bid);
                kept.book.set_best(Side::Ask, ask);
            }
            Kind::Clear => kept.book.clear(),
            _ => return None,
        }
        Some(kept)
    }

    /// Writes everything, to be read by [`Books::read`].
    pub fn write(&self, out: &mut Vec<u8>) {
        put(out, self.kept.len() as i64);
        put(out, self.levels as i64);
        for kept in &self.kept {
            put(out, i64::from(kept.state));
            put(out, kept.sampled_s);
            for side in [Side::Bid, Side::Ask] {
                put(out, kept.book.len(side) as i64);
                let mut last = 0i64;
                // Worst first, so that reading them back moves nothing; prices as differences are short.
                for rank in (0..kept.book.len(side)).rev() {
                    let level = kept.book.level(side, rank).unwrap_or_default();
                    put(out, level.px.0.wrapping_sub(last));
                    put(out, level.qty.0);
                    last = level.px.0;
                }
            }
        }
    }

    /// Reads what was written; nothing where it is not that.
    pub fn read(bytes: &mut &[u8]) -> Option<Books> {
        // Each takes four bytes at least: what claims more is not believed, nor is room made for it.
        let count = usize::try_from(take(bytes)?).ok().filter(|n| *n <= bytes.len() / 4)?;
        let levels = usize::try_from(take(bytes)?).ok().filter(|n| *n <= LEVELS_MAX)?;
        let mut books = Books::new(count, levels);
        for kept in &mut books.kept {
            kept.state = u8::try_from(take(bytes)?).ok()?;
            kept.sampled_s = take(bytes)?;
            for side in [Side::Bid, Side::Ask] {
                let levels = usize::try_from(take(bytes)?).ok().filter(|n| *n <= levels)?;
                let mut last = 0i64;
                for _ in 0..levels {
                    last = last.wrapping_add(take(bytes)?);
                    let qty = take(bytes)?;
                    if last <= 0 || qty <= 0 {
                        return None;
                    }
                    kept.book.set(side, Px(last), Qty(qty));
                }
            }
        }
        Some(books)
    }
}

/// Writes a number in seven bits a byte, small ones short whatever their sign.
pub fn put(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while 0x80 <= rest {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads a number back; nothing where there is none.
pub fn take(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::record::Venue;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in proptest::collection::vec(any::<i64>(), 0..50)) {
            let mut out = Vec::new();
            numbers.iter().for_each(|number| put(&mut out, *number));
            let mut bytes = &out[..];
            for number in &numbers {
                prop_assert_eq!(take(&mut bytes), Some(*number));
            }
            prop_assert_eq!(take(&mut bytes), None);
        }

        #[test]
        fn books_come_back_and_no_bytes_are_trouble(
            changes in proptest::collection::vec((0u16..3, 0usize..2, 1i64..500, 0i64..3), 0..2_000),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut books = Books::new(3, 256);
            for (instrument, side, px, qty) in changes {
                let side = [Side::Bid, Side::Ask][side];
                books.take(&Record::level(Venue::Kraken, instrument, side, Px(px), Qty(qty)));
            }
            let mut out = Vec::new();
            books.write(&mut out);
            let mut bytes = &out[..];
            let mut read = Books::read(&mut bytes).expect("what was written");
            prop_assert!(bytes.is_empty());
            let mut again = Vec::new();
            read.write(&mut again);
            prop_assert_eq!(&out, &again);
            for (instrument, kept) in books.kept.iter().enumerate() {
                let same = read.get_mut(instrument as u16).expect("the same count");
                for side in [Side::Bid, Side::Ask] {
                    prop_assert_eq!(kept.best(side), same.best(side));
                }
            }
            let _ = Books::read(&mut &noise[..]);
        }
    }
}
