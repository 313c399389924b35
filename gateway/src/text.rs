//! Text made without allocating: numbers, times and templates into a buffer of fixed size.
//!
//! Invariant: what does not fit marks the buffer as broken instead of being cut, so that half a request is
//! never sent; [`Text::bytes`] gives nothing then. Decimal text is exact and plain: no exponent, no
//! grouping, no rounding.

use tandem_core::units::pow10;

/// Largest request written by us: Coinbase's, with its token.
pub const TEXT_BYTES_MAX: usize = 3 << 10;

/// 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < pairs.len() {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// A buffer for one request.
#[derive(Clone, Debug)]
pub struct Text {
    bytes: Box<[u8]>,
    len: usize,
    broken: bool,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: vec![0; TEXT_BYTES_MAX].into_boxed_slice(), len: 0, broken: false }
    }
}

impl Text {
    /// Empties it.
    pub fn clear(&mut self) {
        (self.len, self.broken) = (0, false);
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Text {
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.broken = true,
        }
        self
    }

    /// Appends a whole number.
    pub fn integer(&mut self, value: u64) -> &mut Text {
        self.padded(value, 1)
    }

    /// Appends a whole number with leading zeros up to `width` digits.
    pub fn padded(&mut self, mut value: u64, width: usize) -> &mut Text {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        // Two digits a division.
        while 10 <= value {
            at -= 2;
            digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
            value /= 100;
        }
        if value != 0 {
            at -= 1;
            digits[at] = b'0' + value as u8;
        }
        self.put(&digits[at.min(digits.len() - width.min(digits.len()))..])
    }

    /// Appends quanta of 10^-`exponent` as a plain decimal, without trailing zeros after the point.
    pub fn decimal(&mut self, quanta: i64, exponent: u8) -> &mut Text {
        debug_assert!(0 < quanta, "prices and quantities of orders are positive");
        let scale = pow10(exponent).unsigned_abs();
        let quanta = quanta.unsigned_abs();
        let (whole, mut fraction) = (quanta / scale, quanta % scale);
        self.integer(whole);
        if fraction != 0 {
            let mut width = usize::from(exponent);
            while fraction.is_multiple_of(10) {
                fraction /= 10;
                width -= 1;
            }
            self.put(b".").padded(fraction, width);
        }
        self
    }

    /// Appends a UNIX time as RFC 3339 with milliseconds.
    pub fn time(&mut self, unix_ns: i64) -> &mut Text {
        let ms = unix_ns.div_euclid(1_000_000);
        let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000).unsigned_abs());
        let (year, month, day) = civil(days);
        self.padded(year.unsigned_abs(), 4).put(b"-").padded(month, 2).put(b"-").padded(day, 2);
        self.put(b"T").padded(in_day / 3_600_000, 2).put(b":").padded(in_day / 60_000 % 60, 2);
        self.put(b":").padded(in_day / 1_000 % 60, 2).put(b".").padded(in_day % 1_000, 3).put(b"Z")
    }

    /// Returns the whole text, or nothing where it did not fit.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        (!self.broken).then(|| &self.bytes[..self.len])
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar (H. Hinnant's
/// `civil_from_days`, public domain).
fn civil(days: i64) -> (i64, u64, u64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month.unsigned_abs(), (doy - (153 * mp + 2) / 5 + 1).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::units::{Decimal, EXPONENT_MAX};

    use super::*;

    fn made(make: impl FnOnce(&mut Text) -> &mut Text) -> String {
        let mut text = Text::default();
        make(&mut text);
        String::from_utf8(text.bytes().expect("fits").to_vec()).expect("ASCII")
    }

    #[test]
    fn times_are_written_as_the_standard_says() {
        assert_eq!(made(|t| t.time(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(made(|t| t.time(1_764_000_000_123_999_999)), "2025-11-24T16:00:00.123Z");
        assert_eq!(made(|t| t.time(951_827_696_000_000_000)), "2000-02-29T12:34:56.000Z");
    }

    #[test]
    fn what_does_not_fit_is_nothing() {
        let mut text = Text::default();
        text.put(&[b'x'; TEXT_BYTES_MAX]);
        assert!(text.bytes().is_some());
        text.integer(1);
        assert_eq!(text.bytes(), None);
        text.clear();
        assert_eq!(text.bytes(), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn decimals_are_those_that_cores_own_formatter_writes(quanta in 1..i64::MAX, exponent in 0..=EXPONENT_MAX) {
            prop_assert_eq!(made(|t| t.decimal(quanta, exponent)), Decimal { quanta, exponent }.to_string());
        }
    }
}
