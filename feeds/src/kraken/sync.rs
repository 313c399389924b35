//! Proof that a Kraken book is right: its CRC-32, on every message.
//!
//! Invariant: a checksum is over the venue's own digits: the integers of the best ten levels, printed at
//! the venue's precisions without leading zeros (section 4.2). A level that the venue could not have
//! printed (finer than its precision) makes no checksum, and that is a mismatch too.
//!
//! Not here: truncation and publishing (`publish`), resubscribing (`mod`).

use tandem_core::book::Book;
use tandem_core::units::{Side, pow10};

/// Levels of a side that the checksum covers, whatever the depth.
const LEVELS: usize = 10;

/// Twenty levels of two numbers with at most 19 digits each.
const BYTES_MAX: usize = 2 * LEVELS * 2 * 20;

/// How a book's integers become the venue's digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    /// A price is divided by this.
    px_divisor: i64,
    /// A quantity is divided by this.
    qty_divisor: i64,
}

impl Digits {
    /// Returns the digits for our exponents and the venue's precisions; nothing where the venue is finer
    /// than we can hold, which means that the rules changed under us.
    #[must_use]
    pub fn new(exponents: (u8, u8), precisions: (u8, u8)) -> Option<Digits> {
        let px = exponents.0.checked_sub(precisions.0)?;
        let qty = exponents.1.checked_sub(precisions.1)?;
        (px <= 18 && qty <= 18).then(|| Digits { px_divisor: pow10(px), qty_divisor: pow10(qty) })
    }

    /// Returns the checksum of a book: asks from the lowest, then bids from the highest.
    #[must_use]
    pub fn checksum(self, book: &Book) -> Option<u32> {
        let mut text = Text { bytes: [0; BYTES_MAX], len: 0 };
        for side in [Side::Ask, Side::Bid] {
            for level in book.levels(side).take(LEVELS) {
                text.put(level.px.0, self.px_divisor)?;
                text.put(level.qty.0, self.qty_divisor)?;
            }
        }
        Some(crc32fast::hash(&text.bytes[..text.len]))
    }
}

struct Text {
    bytes: [u8; BYTES_MAX],
    len: usize,
}

impl Text {
    /// Prints `quanta / divisor`, which is exact or nothing. An integer has no leading zeros.
    #[inline]
    fn put(&mut self, quanta: i64, divisor: i64) -> Option<()> {
        let number = if divisor == 1 {
            quanta.unsigned_abs()
        } else {
            if quanta % divisor != 0 {
                return None;
            }
            (quanta / divisor).unsigned_abs()
        };
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = number;
        while rest != 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let digits = &digits[at..];
        self.bytes[self.len..self.len + digits.len()].copy_from_slice(digits);
        self.len += digits.len();
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::units::{Px, Qty, parse_decimal};

    use super::*;

    fn book(asks: &[(&str, &str)], bids: &[(&str, &str)], px: u8, qty: u8) -> Book {
        let mut book = Book::new(100);
        for (side, levels) in [(Side::Ask, asks), (Side::Bid, bids)] {
            for (p, q) in levels {
                let p = parse_decimal(p.as_bytes(), px).unwrap();
                book.set(side, Px(p), Qty(parse_decimal(q.as_bytes(), qty).unwrap()));
            }
        }
        book
    }

    const ASKS: &[(&str, &str)] = &[
        ("0.5668", "4410.79769741"),
        ("0.5669", "4655.40412487"),
        ("0.5670", "49844.89424998"),
        ("0.5671", "24306.41678"),
        ("0.5672", "29783.25223475"),
        ("0.5673", "57234.71239278"),
        ("0.5674", "45065.04744"),
        ("0.5675", "5912.76380354"),
        ("0.5676", "42514.92434778"),
        ("0.5677", "36304.0847022"),
    ];
    const BIDS: &[(&str, &str)] = &[
        ("0.5666", "4831.75496356"),
        ("0.5665", "6658.22734739"),
        ("0.5664", "18724.91513344"),
        ("0.5663", "11563.92544914"),
        ("0.5662", "14006.65365711"),
        ("0.5661", "17454.85679807"),
        ("0.5660", "18097.1547"),
        ("0.5659", "33644.89175666"),
        ("0.5658", "148.3464"),
        ("0.5657", "606.70854372"),
    ];

    /// The vendor's documented book and its update, at our exponents and at finer ones.
    #[test]
    fn kraken_golden_vectors_of_the_vendor() {
        for (px, qty) in [(4, 8), (8, 8), (6, 12)] {
            let digits = Digits::new((px, qty), (4, 8)).unwrap();
            let mut book = book(ASKS, BIDS, px, qty);
            assert_eq!(digits.checksum(&book), Some(2_439_117_997));
            let px_quanta = parse_decimal(b"0.5657", px).unwrap();
            let qty_quanta = parse_decimal(b"1098.3947558", qty).unwrap();
            book.set(Side::Bid, Px(px_quanta), Qty(qty_quanta));
            assert_eq!(digits.checksum(&book), Some(2_114_181_697));
        }
    }

    /// A short book: leading zeros vanish, trailing zeros stay.
    #[test]
    fn kraken_golden_vectors_of_a_short_book() {
        let digits = Digits::new((1, 8), (1, 8)).unwrap();
        let bids = [("65000.0", "2"), ("64999.9", "0.03125"), ("64998.7", "10")];
        let mut book =
            book(&[("65000.1", "0.5"), ("65000.2", "1.25"), ("65001.0", "0.0001")], &bids, 1, 8);
        assert_eq!(digits.checksum(&book), Some(364_537_153));
        book.set(Side::Ask, Px(650_001), Qty(0));
        book.set(Side::Bid, Px(649_995), Qty(70_000_000));
        assert_eq!(digits.checksum(&book), Some(3_997_527_697));
    }

    #[test]
    fn kraken_trap_checksum_is_never_built_from_floats() {
        // Unpadded numbers would give another sum (3830085102 for the vendor's book).
        let digits = Digits::new((4, 8), (4, 8)).unwrap();
        assert_ne!(digits.checksum(&book(ASKS, BIDS, 4, 8)), Some(3_830_085_102));
    }

    #[test]
    fn kraken_trap_thin_books_have_a_checksum() {
        let digits = Digits::new((1, 8), (1, 8)).unwrap();
        assert_eq!(digits.checksum(&Book::new(10)), Some(0));
        assert!(digits.checksum(&book(&[("1.0", "1")], &[], 1, 8)).is_some());
    }

    #[test]
    fn what_the_venue_could_not_print_is_a_mismatch() {
        assert_eq!(Digits::new((1, 8), (2, 8)), None);
        let digits = Digits::new((2, 8), (1, 8)).unwrap();
        assert_eq!(digits.checksum(&book(&[("1.05", "1")], &[], 2, 8)), None);
    }

    proptest! {
        /// Against the sheet's definition on text, and: any one changed digit within the depth is seen.
        #[test]
        fn equals_the_definition_on_text(
            levels in proptest::collection::vec((any::<bool>(), 1..1_000_000i64, 1..i64::MAX), 0..40),
            change in any::<prop::sample::Index>(),
        ) {
            let mut book = Book::new(100);
            for (ask, px, qty) in &levels {
                book.set(if *ask { Side::Ask } else { Side::Bid }, Px(*px), Qty(*qty));
            }
            let mut text = String::new();
            for side in [Side::Ask, Side::Bid] {
                for level in book.levels(side).take(10) {
                    for (quanta, decimals) in [(level.px.0, 3usize), (level.qty.0, 8)] {
                        let padded = format!("{quanta:0width$}", width = decimals + 1);
                        text.push_str(padded.trim_start_matches('0'));
                    }
                }
            }
            let digits = Digits::new((3, 8), (3, 8)).unwrap();
            let sum = digits.checksum(&book);
            prop_assert_eq!(sum, Some(crc32fast::hash(text.as_bytes())));
            let side = if change.index(2) == 0 { Side::Ask } else { Side::Bid };
            let count = book.len(side).min(10);
            if 0 < count {
                let level = book.level(side, change.index(count)).unwrap();
                let other = if level.qty.0 == i64::MAX { 1 } else { level.qty.0 + 1 };
                book.set(side, level.px, Qty(other));
                prop_assert_ne!(digits.checksum(&book), sum);
            }
        }
    }
}
