//! Rows as PostgreSQL's binary COPY spells them.
//!
//! Invariant: what is sent is the value, exactly: a numeric has the digits of its quanta and as many decimals as
//! its exponent; a moment is cut to the microsecond below, never rounded up. A value that its column cannot hold
//! is an error, not another value.
//!
//! Not here: when and in which transaction (`write`).

use crate::rows::{Row, Value};

/// What a COPY in binary form begins with: signature, flags, length of a header extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: [u8; 2] = (-1i16).to_be_bytes();
/// 2000-01-01, where the server's times begin, in microseconds and days since 1970-01-01.
const EPOCH_US: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;
/// Base of a digit of a numeric.
const BASE: u128 = 10_000;

/// A value stands where its column cannot hold it: a fault of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table}.{column} cannot hold what was put there")]
pub struct Misfit {
    table: &'static str,
    column: &'static str,
}

/// Adds a row; on an error nothing is added.
pub fn put_row(out: &mut Vec<u8>, row: &Row) -> Result<(), Misfit> {
    let columns = row.table.columns();
    let misfit = |column: &'static str| Misfit { table: row.table.name(), column };
    if columns.len() != row.values.len() {
        return Err(misfit("(columns)"));
    }
    for (value, column) in row.values.iter().zip(columns) {
        if !value.is(column.kind) {
            return Err(misfit(column.name));
        }
    }
    out.extend((columns.len() as i16).to_be_bytes());
    row.values.iter().for_each(|value| put_value(out, value));
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend((-1i32).to_be_bytes()),
        Value::Bool(yes) => field(out, &[u8::from(*yes)]),
        Value::Int2(number) => field(out, &number.to_be_bytes()),
        Value::Int4(number) => field(out, &number.to_be_bytes()),
        Value::Int8(number) => field(out, &number.to_be_bytes()),
        Value::Text(text) => field(out, text.as_bytes()),
        Value::Uuid(name) => field(out, &name.to_be_bytes()),
        Value::Time(ns) => field(out, &(ns.div_euclid(1_000) - EPOCH_US).to_be_bytes()),
        Value::Date(days) => field(out, &days.saturating_sub(EPOCH_DAYS).to_be_bytes()),
        Value::Json(text) => {
            out.extend((text.len() as i32 + 1).to_be_bytes());
            out.push(1);
            out.extend(text.as_bytes());
        }
        Value::Numeric { quanta, exponent } => put_numeric(out, *quanta, *exponent),
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as i32).to_be_bytes());
    out.extend(bytes);
}

/// Adds a numeric: how many digits of base 10,000, the power of the first, sign, decimals shown, digits.
pub fn put_numeric(out: &mut Vec<u8>, quanta: i128, exponent: u8) {
    let scale = u32::from(exponent);
    let mut rest = quanta.unsigned_abs();
    // 39 decimal digits at most, and the digits are aligned at the point: eleven places at most.
    let mut digits = [0u16; 12];
    let mut count = 0;
    // The last digit holds what is left of the decimals when they are taken by fours.
    let odd = scale % 4;
    let fraction_digits = scale.div_ceil(4) as i32;
    if odd != 0 {
        let unit = 10u128.pow(odd);
        digits[count] = ((rest % unit) * 10u128.pow(4 - odd)) as u16;
        rest /= unit;
        count += 1;
    }
    while rest != 0 {
        digits[count] = (rest % BASE) as u16;
        rest /= BASE;
        count += 1;
    }
    // Zeros at both ends are not sent: a digit's power says where it is.
    let lowest = digits[..count].iter().position(|digit| *digit != 0).unwrap_or(count);
    let kept = &digits[lowest..count];
    let high_zeros = kept.iter().rev().take_while(|digit| **digit == 0).count();
    let kept = &kept[..kept.len() - high_zeros];
    let weight = (lowest + kept.len()) as i32 - 1 - fraction_digits;
    let sign: u16 = if quanta < 0 { 0x4000 } else { 0 };
    out.extend((8 + 2 * kept.len() as i32).to_be_bytes());
    out.extend((kept.len() as i16).to_be_bytes());
    out.extend((if kept.is_empty() { 0 } else { weight as i16 }).to_be_bytes());
    out.extend(sign.to_be_bytes());
    out.extend((scale as i16).to_be_bytes());
    kept.iter().rev().for_each(|digit| out.extend(digit.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::Table;

    /// What the server would say of the bytes, by its own rules, in text.
    fn read_numeric(bytes: &[u8]) -> String {
        let word = |at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (count, weight, sign, scale) = (word(4) as usize, word(6), word(8) as u16, word(10));
        assert_eq!(bytes.len(), 12 + 2 * count);
        let digit = |power: i32| {
            let idx = i32::from(weight) - power;
            if (0..count as i32).contains(&idx) { word(12 + 2 * idx as usize) } else { 0 }
        };
        let mut text = String::new();
        for power in (0..=i32::from(weight).max(0)).rev() {
            text.push_str(&format!("{:04}", digit(power)));
        }
        let whole = text.trim_start_matches('0');
        let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
        let mut fraction = String::new();
        for power in 1..=(i32::from(scale) + 3) / 4 {
            fraction.push_str(&format!("{:04}", digit(-power)));
        }
        fraction.truncate(scale as usize);
        if 0 < scale {
            text.push('.');
            text.push_str(&fraction);
        }
        if sign == 0x4000 { format!("-{text}") } else { text }
    }

    /// Long division by hand: the decimals of quanta.
    fn expected(quanta: i128, exponent: u8) -> String {
        let width = usize::from(exponent) + 1;
        let digits = format!("{:0width$}", quanta.unsigned_abs());
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(exponent));
        let sign = if quanta < 0 { "-" } else { "" };
        match exponent {
            0 => format!("{sign}{whole}"),
            _ => format!("{sign}{whole}.{fraction}"),
        }
    }

    fn check(quanta: i128, exponent: u8) {
        let mut out = Vec::new();
        put_numeric(&mut out, quanta, exponent);
        assert_eq!(read_numeric(&out), expected(quanta, exponent), "{quanta} e-{exponent}");
    }

    #[test]
    fn numerics_at_the_edges() {
        for exponent in 0..=40 {
            for quanta in [0, 1, -1, 9_999, 10_000, 10_001, 123_456_789, i128::MAX, i128::MIN] {
                check(quanta, exponent);
            }
        }
    }

    proptest! {
        #[test]
        fn numerics_are_exact(quanta in any::<i128>(), small in any::<i64>(), exponent in 0u8..=40) {
            check(quanta, exponent);
            check(small.into(), exponent);
        }
    }

    #[test]
    fn a_misfit_is_an_error_and_adds_nothing() {
        let mut out = Vec::new();
        let row = Row::empty(Table::Assets, 1).with("journal", Value::Int8(3));
        let error = put_row(&mut out, &row).expect_err("a number where a uuid is");
        assert_eq!(error.to_string(), "assets.journal cannot hold what was put there");
        assert!(out.is_empty());
        let short = Row { table: Table::Assets, seq: 1, values: Vec::new() };
        assert!(put_row(&mut out, &short).is_err() && out.is_empty());
    }
}
