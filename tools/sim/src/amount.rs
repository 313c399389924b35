//! Money: exact decimals of sixteen digits after the point.
//!
//! Invariant: an [`Amount`] is an integer of 10^-16 units. The product of a price and a quantity on grids of at
//! most eight decimals each fits without rounding; where a venue rounds, the rounding is a call that says so.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::Grid;

/// Digits after the point.
pub const DECIMALS: u8 = 16;
const UNIT: i128 = 10_i128.pow(DECIMALS as u32);

/// A quantity of one asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads plain decimal text with an optional sign; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        let part = part.trim_end_matches('0');
        let too_long = whole.len() > 20 || part.len() > usize::from(DECIMALS);
        if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || too_long {
            return None;
        }
        let whole = if whole.is_empty() { "0" } else { whole };
        let value: i128 = format!("{whole}{part:0<16}").parse().ok()?;
        Some(Self(if negative { -value } else { value }))
    }

    /// Returns `steps` of a grid.
    #[must_use]
    pub fn of(grid: Grid, steps: i64) -> Self {
        let scale = 10_i128.pow(u32::from(DECIMALS - grid.decimals.min(DECIMALS)));
        Self(i128::from(steps) * i128::from(grid.mantissa) * scale)
    }

    /// Returns price × quantity, exactly.
    #[must_use]
    pub fn worth(tick: Grid, px: i64, lot: Grid, qty: i64) -> Self {
        let decimals = (tick.decimals + lot.decimals).min(DECIMALS);
        let scale = 10_i128.pow(u32::from(DECIMALS - decimals));
        let px = i128::from(px) * i128::from(tick.mantissa);
        Self(px * (i128::from(qty) * i128::from(lot.mantissa)) * scale)
    }

    /// Returns how many whole steps of a grid fit, rounded down.
    #[must_use]
    pub fn steps(self, grid: Grid) -> i64 {
        let one = Self::of(grid, 1).0;
        i64::try_from(self.0.div_euclid(one)).unwrap_or(i64::MAX)
    }

    /// Returns `self × ppm / 1,000,000`, rounded half up at `decimals`.
    #[must_use]
    pub fn rate(self, ppm: i64, decimals: u8) -> Self {
        let unit = Self::unit(decimals);
        let scaled = self.0 * i128::from(ppm);
        let divisor = unit * 1_000_000;
        Self((scaled + divisor / 2).div_euclid(divisor) * unit)
    }

    /// Rounds half up at `decimals`.
    #[must_use]
    pub fn round(self, decimals: u8) -> Self {
        let unit = Self::unit(decimals);
        Self((self.0 + unit / 2).div_euclid(unit) * unit)
    }

    /// Rounds up at `decimals`.
    #[must_use]
    pub fn ceil(self, decimals: u8) -> Self {
        let unit = Self::unit(decimals);
        Self(-(-self.0).div_euclid(unit) * unit)
    }

    fn unit(decimals: u8) -> i128 {
        10_i128.pow(u32::from(DECIMALS - decimals.min(DECIMALS)))
    }

    /// Returns text with exactly `decimals` digits, rounded half up.
    #[must_use]
    pub fn fixed(self, decimals: u8) -> String {
        let rounded = self.round(decimals);
        let sign = if rounded.0 < 0 { "-" } else { "" };
        let magnitude = rounded.0.unsigned_abs() / Self::unit(decimals).unsigned_abs();
        if decimals == 0 {
            return format!("{sign}{magnitude}");
        }
        let unit = 10_u128.pow(u32::from(decimals.min(DECIMALS)));
        let width = usize::from(decimals.min(DECIMALS));
        format!("{sign}{}.{:0width$}", magnitude / unit, magnitude % unit)
    }

    /// Returns whether it is above zero.
    #[must_use]
    pub fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// Returns the distance from zero.
    #[must_use]
    pub fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// Returns the quotient as a decimal of `decimals` digits, rounded half up; zero for a zero divisor.
    #[must_use]
    pub fn over(self, divisor: Self, decimals: u8) -> Self {
        if divisor.0 == 0 {
            return Self::ZERO;
        }
        let (whole, rest) = (self.0 / divisor.0, self.0 % divisor.0);
        Self(whole * UNIT + rest.saturating_mul(UNIT) / divisor.0).round(decimals)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.fixed(DECIMALS);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(|a| a.0).sum())
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text} is no plain decimal")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(amount("0.0000000000000001"), Amount(1));
        assert_eq!(amount("-12.5").to_string(), "-12.5");
        assert_eq!(amount("100000").to_string(), "100000");
        assert_eq!(Amount::ZERO.to_string(), "0");
        for bad in ["", ".", "1e5", "+1", "1.00000000000000001", "NaN", "--1"] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
        let (tick, lot) = (Grid::parse_step("0.01").unwrap(), Grid::parse_step("0.00001").unwrap());
        assert_eq!(Amount::worth(tick, 6_500_001, lot, 3), amount("1.9500003"));
        assert_eq!(amount("1.9").steps(Grid::parse_step("0.5").unwrap()), 3);
    }

    #[test]
    fn rounding_says_which_way() {
        assert_eq!(amount("1.9500003").rate(1_000, 8), amount("0.0019500"));
        assert_eq!(amount("0.000000005").rate(1_000_000, 8), amount("0.00000001"));
        assert_eq!(amount("0.000000001").ceil(8), amount("0.00000001"));
        assert_eq!(amount("1.25").fixed(1), "1.3");
        assert_eq!(amount("-0.5").fixed(8), "-0.50000000");
        assert_eq!(amount("7").over(amount("3"), 4), amount("2.3333"));
    }
}
