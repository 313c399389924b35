//! Decimal numbers of files, exact.
//!
//! Invariant: text becomes a number exactly or is refused. A float becomes the shortest decimal of at most
//! twelve places that is the float, or so near it (four units in the last place) that arithmetic on a
//! tick explains the rest; what is farther off is refused. Numbers are not negative.

use tandem_core::units::{DECIMAL_BYTES_MAX, EXPONENT_MAX};

/// Places that a float is tried with.
const FLOAT_PLACES: u8 = 12;
/// Whole numbers up to here are exact in a float.
const FLOAT_EXACT: f64 = 9_007_199_254_740_992.0;
/// Units in the last place that arithmetic may have cost.
const FLOAT_ULPS: f64 = 4.0;

/// `mantissa` times 10^-`places`, without trailing zeros behind the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Number {
    mantissa: i64,
    places: u8,
}

impl Number {
    /// Nothing.
    pub const ZERO: Number = Number { mantissa: 0, places: 0 };

    /// Reads `60000.10`, `5`, `1e-08`: no sign, at most eighteen significant digits and places.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Number> {
        if text.is_empty() || DECIMAL_BYTES_MAX < text.len() {
            return None;
        }
        let (digits, shift) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            None => (text, 0),
            Some(at) => (&text[..at], power(&text[at + 1..])?),
        };
        let (mut mantissa, mut places, mut seen_point, mut is_digit) = (0i64, -shift, false, false);
        // Zeros wait until a digit follows: those at the end are none of the number's.
        let mut zeros = 0u32;
        for byte in digits {
            match byte {
                b'0'..=b'9' => {
                    places += i32::from(seen_point);
                    is_digit = true;
                    if *byte == b'0' {
                        zeros += 1;
                        continue;
                    }
                    if mantissa != 0 {
                        mantissa = mantissa.checked_mul(10i64.checked_pow(zeros)?)?;
                    }
                    zeros = 0;
                    mantissa = mantissa.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
                }
                b'.' if !seen_point && is_digit => (seen_point, is_digit) = (true, false),
                _ => return None,
            }
        }
        if !is_digit {
            return None;
        }
        if mantissa == 0 {
            return Some(Number::ZERO);
        }
        places -= i32::try_from(zeros).ok()?;
        while places < 0 {
            mantissa = mantissa.checked_mul(10)?;
            places += 1;
        }
        let places = u8::try_from(places).ok().filter(|places| *places <= EXPONENT_MAX)?;
        Some(Number { mantissa, places })
    }

    /// Returns the decimal that a float stands for, and whether it had to be rounded to it.
    #[must_use]
    pub fn of_float(value: f64) -> Option<(Number, bool)> {
        if !value.is_finite() || value.is_sign_negative() && value != 0.0 {
            return None;
        }
        let near = value * f64::EPSILON * FLOAT_ULPS;
        let mut scale = 1.0;
        for places in 0..=FLOAT_PLACES {
            let whole = (value * scale).round();
            if FLOAT_EXACT < whole {
                return None;
            }
            // Both are exact, so their quotient is the float nearest to the decimal.
            let back = whole / scale;
            if (back - value).abs() <= near {
                return Some((Number { mantissa: whole as i64, places }, back != value));
            }
            scale *= 10.0;
        }
        None
    }

    /// Returns whether it is 0.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Returns how many digits stand behind the point.
    #[must_use]
    pub const fn places(self) -> u8 {
        self.places
    }

    /// Returns it in quanta of 10^-`exponent`; nothing where it is finer or does not fit.
    #[must_use]
    pub fn quanta(self, exponent: u8) -> Option<i64> {
        let missing = exponent.checked_sub(self.places)?;
        self.mantissa.checked_mul(10i64.checked_pow(missing.into())?)
    }

    /// Returns whether it is a whole number of steps.
    #[must_use]
    pub fn is_multiple_of(self, step: Number) -> bool {
        let places = self.places.max(step.places);
        let scaled = |number: Number| {
            i128::from(number.mantissa) * 10i128.pow(u32::from(places - number.places))
        };
        step.mantissa != 0 && scaled(self) % scaled(step) == 0
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimal = tandem_core::units::Decimal { quanta: self.mantissa, exponent: self.places };
        decimal.fmt(f)
    }
}

/// The digits after an `e`: a sign and at most three digits.
fn power(text: &[u8]) -> Option<i32> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    if digits.is_empty() || 3 < digits.len() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(sign * digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::units::parse_decimal;

    use super::*;

    #[test]
    fn texts() {
        for (text, wanted) in [
            ("60000.10", Some("60000.1")),
            ("0.00000000", Some("0")),
            ("1e-08", Some("0.00000001")),
            ("1.50E+3", Some("1500")),
            ("100", Some("100")),
            ("0.000000000000000001", Some("0.000000000000000001")),
            ("0.0000000000000000001", None),
            ("1e19", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("+1", None),
            ("nan", None),
            ("1e", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
        ] {
            let found = Number::read(text.as_bytes()).map(|number| number.to_string());
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn floats() {
        let read =
            |value: f64| Number::of_float(value).map(|(n, rounded)| (n.to_string(), rounded));
        assert_eq!(read(61_837.63), Some(("61837.63".to_owned(), false)));
        assert_eq!(read(0.1 + 0.2), Some(("0.3".to_owned(), true)));
        assert_eq!(read(6_183_763.0 * 0.01), Some(("61837.63".to_owned(), true)));
        assert_eq!(read(0.0), Some(("0".to_owned(), false)));
        assert_eq!(read(1e-8), Some(("0.00000001".to_owned(), false)));
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e17, 0.123_456_789_012_345, 1e-13] {
            assert_eq!(read(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_the_decoders_read(text in "[0-9]{1,10}(\\.[0-9]{1,8})?") {
            let number = Number::read(text.as_bytes()).expect("a plain number");
            prop_assert_eq!(number.quanta(8), parse_decimal(text.as_bytes(), 8).ok());
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..50), bits in any::<u64>()) {
            let _ = Number::read(&text);
            let _ = Number::of_float(f64::from_bits(bits));
        }

        #[test]
        fn floats_of_decimals_are_those_decimals(mantissa in 0i64..1 << 50, places in 0u8..=8) {
            let value: f64 = format!("{mantissa}e-{places}").parse().expect("a number");
            let (number, rounded) = Number::of_float(value).expect("a decimal");
            prop_assert!(!rounded);
            prop_assert_eq!(number.quanta(8), Number { mantissa, places }.quanta(8));
        }
    }
}
