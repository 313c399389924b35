//! Base-2 logarithms of integers in fixed point: the fast test adds instead of multiplying.
//!
//! Invariant: `log2(x)` differs from the true logarithm by at most [`LOG_ERROR`]. A sum of `n` of them
//! is off by at most `n` times that, so a test with that slack never refuses what the exact walk would
//! accept. No float anywhere: the table is made by the compiler from repeated squaring.

use fixed::types::I24F40;

/// A logarithm, a log rate, or a sum of them: 40 fraction bits, one part per million is 1.6 million
/// quanta of it.
pub type Log = I24F40;

const INDEX_BITS: u32 = 11;
const FRACTION_BITS: u32 = 40;

/// Bound of the error of [`log2`]: linear interpolation over steps of 2^-11 is off by at most
/// (2^-11)^2 / 8 / ln 2 < 2^-24.4, table and rounding by less than 2^-38.
pub const LOG_ERROR: Log = Log::from_bits(1 << (FRACTION_BITS - 24));

/// Log of what is not there: so low that no cycle through it passes, so high that four of them fit.
pub const NOTHING: Log = Log::from_bits(-(1 << (FRACTION_BITS + 20)));

/// `TABLE[i]` = log2(1 + i / 2^11), in 2^-40.
static TABLE: [u64; (1 << INDEX_BITS) + 1] = {
    let mut table = [0u64; (1 << INDEX_BITS) + 1];
    let mut i = 0;
    while i < 1 << INDEX_BITS {
        // Mantissa in [1, 2) as Q63; each squaring yields one bit of the logarithm.
        let mut m = (1u128 << 63) + ((i as u128) << (63 - INDEX_BITS));
        let mut bits = 0u64;
        let mut n = 0;
        while n < FRACTION_BITS + 2 {
            m = (m * m) >> 63;
            bits <<= 1;
            if m >> 64 != 0 {
                bits |= 1;
                m >>= 1;
            }
            n += 1;
        }
        table[i] = (bits + 2) >> 2;
        i += 1;
    }
    table[1 << INDEX_BITS] = 1 << FRACTION_BITS;
    table
};

/// Returns log2 of a positive integer; of 0 or less, [`NOTHING`].
#[inline]
#[must_use]
pub fn log2(x: i64) -> Log {
    if x <= 0 {
        return NOTHING;
    }
    let x = x as u64;
    let whole = 63 - x.leading_zeros();
    let mantissa = x << (63 - whole); // Bit 63 set: [1, 2) as Q63.
    let index = ((mantissa << 1) >> (64 - INDEX_BITS)) as usize;
    // The next 40 bits below the index, as a fraction of one table step.
    let rest = (mantissa << (1 + INDEX_BITS)) >> 24;
    let (low, high) = (TABLE[index], TABLE[index + 1]);
    let fraction = low + (((high - low) * (rest >> 8)) >> 32);
    Log::from_bits((i64::from(whole) << FRACTION_BITS) + fraction as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn powers_of_two_are_exact() {
        for n in 0..63 {
            assert_eq!(log2(1 << n), Log::from_num(n));
        }
        assert_eq!(log2(0), NOTHING);
        assert!(NOTHING * 4 < Log::from_num(-1_000_000));
    }

    proptest! {
        /// log2(a) + log2(b) = log2(ab), which needs no other logarithm to be checked.
        #[test]
        fn adds_like_a_logarithm(a in 1i64..1 << 31, b in 1i64..1 << 31) {
            let sum = log2(a) + log2(b);
            prop_assert!((sum - log2(a * b)).abs() <= LOG_ERROR * 3);
        }

        /// Against bisection by exact squaring: 24 bits of log2(x) by the schoolbook method.
        #[test]
        fn equals_the_schoolbook_method(x in 1i64..i64::MAX) {
            let whole = 63 - (x as u64).leading_zeros();
            let mut m = (x as u128) << (63 - whole);
            let mut bits = 0i64;
            for _ in 0..40 {
                m = (m * m) >> 63;
                bits <<= 1;
                if m >> 64 != 0 { bits |= 1; m >>= 1; }
            }
            let exact = Log::from_bits((i64::from(whole) << 40) + bits);
            prop_assert!((log2(x) - exact).abs() <= LOG_ERROR, "{} {}", log2(x), exact);
        }

        #[test]
        fn never_falls_where_the_number_grows(x in 1i64..i64::MAX - 1) {
            prop_assert!(log2(x) <= log2(x + 1));
        }
    }
}
