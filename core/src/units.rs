//! Prices, quantities, fees and exact decimal text.
//!
//! Invariant: money is integers. A [`Px`] or [`Qty`] counts decimal quanta; the exponent is fixed at
//! start, one per base asset for quantities and one per base/quote pair for prices, the same on every
//! venue, so that two venues compare as plain integers. Text becomes an integer exactly or is refused;
//! nothing here rounds.
//!
//! Not here: products and the one rounding of each (`walk`), what a venue calls an instrument
//! (`tandem-feeds`).

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Parts per million in one whole: fees, edges and buffers are parts per million (1 bp = 100 ppm).
pub const PPM_PER_UNIT: i64 = 1_000_000;

/// Largest decimal exponent of a price or quantity: 10^18 still fits `i64`.
pub const EXPONENT_MAX: u8 = 18;

/// Longest decimal text a venue may send us; the longest honest one seen has 27 characters.
pub const DECIMAL_BYTES_MAX: usize = 40;

/// A price in decimal quanta of its base/quote pair.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Px(pub i64);

/// A quantity in decimal quanta of its base asset.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Qty(pub i64);

/// An amount of one asset in that asset's quanta: what a leg spends or brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i64);

/// A fee rate in parts per million; negative is a rebate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeePpm(pub i32);

/// UNIX time in nanoseconds, as written into a record by whoever read the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNs(pub i64);

/// The two sides of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What others offer to pay; a seller takes it.
    Bid,
    /// What others offer to sell at; a buyer takes it.
    Ask,
}

impl Side {
    /// Both sides, bid first.
    pub const BOTH: [Side; 2] = [Side::Bid, Side::Ask];

    /// Returns the side's index: bid 0, ask 1.
    #[must_use]
    pub const fn idx(self) -> usize {
        match self {
            Side::Bid => 0,
            Side::Ask => 1,
        }
    }

    /// Returns the side with this index, or nothing where a record holds another number.
    #[must_use]
    pub const fn from_idx(idx: i64) -> Option<Side> {
        match idx {
            0 => Some(Side::Bid),
            1 => Some(Side::Ask),
            _ => None,
        }
    }

    /// Returns a number that grows the better a price is on this side.
    #[must_use]
    pub const fn rank_key(self, px: Px) -> i64 {
        match self {
            Side::Bid => px.0,
            // Prices are positive (decoders refuse others), so negation cannot overflow.
            Side::Ask => -px.0,
        }
    }
}

/// Why a decimal text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Empty text, a sign, NaN, a second point, or any byte that is no digit.
    #[error("not a plain decimal number")]
    Malformed,
    /// More digits after the point than the exponent holds: the quantum is too coarse for the venue.
    #[error("finer than the fixed exponent {exponent}")]
    Inexact {
        /// The exponent that was fixed at start.
        exponent: u8,
    },
    /// Larger than `i64` at this exponent.
    #[error("too large for the fixed exponent {exponent}")]
    Overflow {
        /// The exponent that was fixed at start.
        exponent: u8,
    },
}

/// Returns `a / b` rounded towards zero, exactly as `i128` does. Amounts are seldom beyond 64 bits, and a
/// division of those is one instruction instead of the hundred that 128 bits take; so in the two below.
#[inline]
#[must_use]
pub fn div(a: i128, b: i128) -> i128 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => i128::from(a / b),
        _ => a / b,
    }
}

/// Returns `a / b` rounded down, for positive `b`.
#[inline]
#[must_use]
pub fn div_floor(a: i128, b: i128) -> i128 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => i128::from(a / b),
        _ => a.div_euclid(b),
    }
}

/// Returns `a / b` rounded up, for positive `b`.
#[inline]
#[must_use]
pub fn div_ceil(a: i128, b: i128) -> i128 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => i128::from(a.div_ceil(b)),
        _ => -(-a).div_euclid(b),
    }
}

/// Returns 10^`exponent`, for exponents up to [`EXPONENT_MAX`].
#[must_use]
#[inline]
pub const fn pow10(exponent: u8) -> i64 {
    const TABLE: [i64; EXPONENT_MAX as usize + 1] = {
        let mut table = [1i64; EXPONENT_MAX as usize + 1];
        let mut i = 1;
        while i < table.len() {
            table[i] = table[i - 1] * 10;
            i += 1;
        }
        table
    };
    TABLE[exponent as usize]
}

/// Reads non-negative decimal text (`60000.10`, `5`, `1e-08`) as quanta of 10^-`exponent`, exactly.
///
/// Total and bounded: any byte string gives a value or an error. Trailing zeros beyond the exponent
/// are no digits of the number and are accepted. The exponent form is read because Kraken's instrument
/// channel and re-serialised JSON use it.
pub fn parse_decimal(text: &[u8], exponent: u8) -> Result<i64, DecimalError> {
    debug_assert!(exponent <= EXPONENT_MAX, "exponents are checked at start");
    // The common case in one pass: at most 18 bytes, no exponent part.
    if text.len() <= 18
        && let Some(value) = parse_plain(text, exponent)
    {
        return Ok(value);
    }
    parse_any(text, exponent)
}

/// One pass over at most 18 bytes of digits and one point; nothing where anything else is met.
#[inline]
fn parse_plain(text: &[u8], exponent: u8) -> Option<i64> {
    let mut value: i64 = 0;
    let mut point: Option<usize> = None;
    for (idx, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            // At most 18 digits by the caller's bound: 10^18 fits.
            value = value * 10 + i64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(idx);
        } else {
            return None;
        }
    }
    let decimals = match point {
        // A point needs a digit on both sides.
        Some(idx) if 0 < idx && idx + 1 < text.len() => text.len() - idx - 1,
        None if !text.is_empty() => 0,
        _ => return None,
    };
    let exponent = usize::from(exponent);
    if decimals <= exponent {
        return value.checked_mul(pow10((exponent - decimals) as u8));
    }
    let divisor = pow10((decimals - exponent) as u8);
    (value % divisor == 0).then_some(value / divisor)
}

/// The whole grammar, in `i128`, with the reason of a refusal.
#[cold]
fn parse_any(text: &[u8], exponent: u8) -> Result<i64, DecimalError> {
    if text.is_empty() || DECIMAL_BYTES_MAX < text.len() {
        return Err(DecimalError::Malformed);
    }
    let (mantissa, shift) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], parse_shift(&text[at + 1..])?),
        None => (text, 0),
    };
    let mut value: i128 = 0;
    let mut decimals: i32 = 0;
    let mut seen_point = false;
    let mut last_digit = false;
    for byte in mantissa {
        match byte {
            b'0'..=b'9' => {
                // 40 digits at most do not fit 127 bits; trailing zeros after the point are dropped below.
                value = value
                    .checked_mul(10)
                    .and_then(|v| v.checked_add(i128::from(byte - b'0')))
                    .ok_or(DecimalError::Overflow { exponent })?;
                decimals += i32::from(seen_point);
                last_digit = true;
            }
            b'.' if !seen_point && last_digit => {
                seen_point = true;
                last_digit = false;
            }
            _ => return Err(DecimalError::Malformed),
        }
    }
    if !last_digit {
        return Err(DecimalError::Malformed);
    }
    let mut power = i32::from(exponent) + shift - decimals;
    while power < 0 {
        if value % 10 != 0 {
            return Err(DecimalError::Inexact { exponent });
        }
        value /= 10;
        power += 1;
        if value == 0 {
            return Ok(0);
        }
    }
    while 0 < power && value != 0 {
        value = value.checked_mul(10).ok_or(DecimalError::Overflow { exponent })?;
        power -= 1;
    }
    i64::try_from(value).map_err(|_| DecimalError::Overflow { exponent })
}

/// The digits after an `e`: a sign and at most three digits.
fn parse_shift(text: &[u8]) -> Result<i32, DecimalError> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    if digits.is_empty() || 3 < digits.len() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(DecimalError::Malformed);
    }
    Ok(sign * digits.iter().fold(0i32, |acc, digit| acc * 10 + i32::from(digit - b'0')))
}

/// Shows quanta as a plain decimal without exponent and without trailing zeros.
///
/// ```
/// use tandem_core::units::Decimal;
/// assert_eq!(Decimal { quanta: 6_000_010, exponent: 2 }.to_string(), "60000.1");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// The integer value.
    pub quanta: i64,
    /// How many of its decimal digits stand after the point.
    pub exponent: u8,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = pow10(self.exponent).unsigned_abs();
        let quanta = self.quanta.unsigned_abs();
        let (whole, mut fraction) = (quanta / scale, quanta % scale);
        let sign = if self.quanta < 0 { "-" } else { "" };
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let mut width = usize::from(self.exponent);
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(f, "{sign}{whole}.{fraction:0width$}")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_venues_send() {
        let cases: &[(&str, u8, Result<i64, DecimalError>)] = &[
            ("60000.10000000", 8, Ok(6_000_010_000_000)),
            ("60000.10000000", 2, Ok(6_000_010)),
            ("0.00000638", 8, Ok(638)),
            ("0", 8, Ok(0)),
            ("0.00000000", 8, Ok(0)),
            ("1e-08", 8, Ok(1)),
            ("5e-05", 8, Ok(5_000)),
            ("1.5E3", 2, Ok(150_000)),
            ("92233720368.54775807", 8, Ok(i64::MAX)),
            ("92233720368.54775808", 8, Err(DecimalError::Overflow { exponent: 8 })),
            ("0.001", 2, Err(DecimalError::Inexact { exponent: 2 })),
            ("0.0010000000000000000000000", 3, Ok(1)),
            ("", 8, Err(DecimalError::Malformed)),
            (".", 8, Err(DecimalError::Malformed)),
            (".5", 8, Err(DecimalError::Malformed)),
            ("5.", 8, Err(DecimalError::Malformed)),
            ("-1", 8, Err(DecimalError::Malformed)),
            ("+1", 8, Err(DecimalError::Malformed)),
            ("NaN", 8, Err(DecimalError::Malformed)),
            ("Infinity", 8, Err(DecimalError::Malformed)),
            ("1e400", 8, Err(DecimalError::Overflow { exponent: 8 })),
            ("0e400", 8, Ok(0)),
            ("1e9999", 8, Err(DecimalError::Malformed)),
            ("1.2.3", 8, Err(DecimalError::Malformed)),
            ("1,5", 8, Err(DecimalError::Malformed)),
            ("12345678901234567890123456789012345678901", 0, Err(DecimalError::Malformed)),
            ("9223372036854775808", 0, Err(DecimalError::Overflow { exponent: 0 })),
        ];
        for (text, exponent, expected) in cases {
            assert_eq!(
                parse_decimal(text.as_bytes(), *exponent),
                *expected,
                "{text} at {exponent}"
            );
        }
    }

    proptest! {
        #[test]
        fn text_and_back(quanta in 0..i64::MAX, exponent in 0..=EXPONENT_MAX) {
            let text = Decimal { quanta, exponent }.to_string();
            prop_assert_eq!(parse_decimal(text.as_bytes(), exponent), Ok(quanta));
        }

        #[test]
        fn both_paths_agree(whole in 0u64..1 << 60, fraction in "[0-9]{0,12}", exponent in 0..=12u8) {
            let text = if fraction.is_empty() { format!("{whole}") } else { format!("{whole}.{fraction}") };
            if let Some(fast) = (text.len() <= 18).then(|| parse_plain(text.as_bytes(), exponent)).flatten() {
                prop_assert_eq!(Ok(fast), parse_any(text.as_bytes(), exponent));
            }
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..64), exponent in 0..=18u8) {
            if let Ok(value) = parse_decimal(&bytes, exponent) {
                prop_assert!(0 <= value);
            }
        }
    }
}
