//! Amounts of any asset as exact decimals of eighteen places.
//!
//! Invariant: sums and differences are exact; what does not fit is an error of the caller's choosing, never
//! another number. Every exponent that a record may have is at most 18, so nothing is lost on the way in.
//!
//! Not here: quanta of records (`tandem_core::units`).

use std::fmt;

use serde::{Serialize, Serializer};

/// Decimal places.
pub const PLACES: u8 = 18;
const SCALE: u128 = 10u128.pow(PLACES as u32);

/// An amount: a count of 10^-18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exact(pub i128);

impl Exact {
    /// Nothing.
    pub const ZERO: Exact = Exact(0);

    /// Returns `quanta` times 10^-`exponent`; nothing where it does not fit.
    #[must_use]
    pub fn of(quanta: i128, exponent: u8) -> Option<Exact> {
        let missing = PLACES.checked_sub(exponent)?;
        quanta.checked_mul(10i128.pow(missing.into())).map(Exact)
    }

    /// Returns the amount of a record: 64 bits always fit.
    #[must_use]
    pub fn quanta(quanta: i64, exponent: u8) -> Exact {
        Exact::of(quanta.into(), exponent.min(PLACES)).unwrap_or_default()
    }

    /// Reads `1234.5`, `-0.00000001`: digits, at most one point, at most eighteen places.
    #[must_use]
    pub fn read(text: &str) -> Option<Exact> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let too_long = 18 < fraction.len() || 20 < whole.len();
        if whole.is_empty() || too_long || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let places = u8::try_from(fraction.len()).ok()?;
        let quanta: i128 = format!("{whole}{fraction}").parse().ok()?;
        Exact::of(quanta.checked_mul(sign)?, places)
    }

    /// Returns the sum; at the end of the range it stays there.
    #[must_use]
    pub fn plus(self, other: Exact) -> Exact {
        Exact(self.0.saturating_add(other.0))
    }

    /// Returns the difference.
    #[must_use]
    pub fn minus(self, other: Exact) -> Exact {
        Exact(self.0.saturating_sub(other.0))
    }

    /// Returns it with the other sign.
    #[must_use]
    pub fn negated(self) -> Exact {
        Exact(self.0.saturating_neg())
    }

    /// Returns the size without the sign.
    #[must_use]
    pub fn size(self) -> Exact {
        Exact(self.0.saturating_abs())
    }
}

impl std::iter::Sum for Exact {
    fn sum<I: Iterator<Item = Exact>>(all: I) -> Exact {
        all.fold(Exact::ZERO, Exact::plus)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.unsigned_abs();
        let (whole, fraction) = (size / SCALE, size % SCALE);
        let sign = if self.0 < 0 { "-" } else { "" };
        if fraction == 0 {
            return f.pad(&format!("{sign}{whole}"));
        }
        let digits = format!("{fraction:018}");
        f.pad(&format!("{sign}{whole}.{}", digits.trim_end_matches('0')))
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        for (text, wanted) in [
            ("1", Some(SCALE as i128)),
            ("-0.000000000000000001", Some(-1)),
            ("12.50", Some(12_500_000_000_000_000_000)),
            ("0.0000000000000000001", None),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("+1", None),
            ("1,000", None),
            ("99999999999999999999", Some(99_999_999_999_999_999_999 * SCALE as i128)),
            ("999999999999999999999", None),
        ] {
            assert_eq!(Exact::read(text), wanted.map(Exact), "{text}");
        }
        assert_eq!(Exact::quanta(-1_250, 2).to_string(), "-12.5");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(quanta in any::<i64>(), exponent in 0u8..=18) {
            let amount = Exact::quanta(quanta, exponent);
            prop_assert_eq!(Exact::read(&amount.to_string()), Some(amount));
        }
    }
}
