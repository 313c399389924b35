//! Every number of the page: what it is, what it counts in, and the query that gives it.
//!
//! Invariant: a number is recorded here before it can be shown, so that page and JSON cannot differ. Values are
//! exact: an integer of the unit that is named, a decimal text, or nothing. What is shown of one is rounded at
//! its last digit, half away from zero, and says its unit.
//!
//! A query reads the files beside the page. `{outcome.json#/summary/pnl}` is a JSON pointer; between braces there
//! may be `+ - * /` and `count {…}`. Exact fractions are kept until the end and rounded towards minus infinity
//! then; a division by nothing has no value. A table's query is `rows {…}`, of a list or a map, perhaps `where
//! /member = text`, perhaps `every N` (and the last one); `rows {…} single` has that object for its only row,
//! `leaves {…}` every value below. In its columns `@` is the row and `@key` its key, `sum {…}` adds up, `words {…}`
//! is the name of a code.
//!
//! Not here: what is asked (`top`, `money`, `orders`), how it looks (`doc`, `draw`).

use serde::Serialize;
use serde_json::Value;

use crate::time::utc;

/// What is asked of anyone who reads the JSON.
pub const HOW: &str = "A query reads the files beside the page: {outcome.json#/summary/pnl} is a JSON pointer; + - * / and \
     `count {…}`, `sum {…}` work on them exactly, and the end is rounded towards minus infinity; a division by 0 is \
     null. `rows {…}` walks a list or a map (`where /member = text`; `every N` takes every Nth and the last; \
     `single`: the object itself is the only row), `leaves {…}` every value below one; in a column @ is the row, \
     @key its key, `words {…}` the name of a code.";

/// What a value counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Quanta of the numeraire; gains and losses.
    Gain,
    /// The same a day.
    GainPerDay,
    /// Quanta of the numeraire, of which neither sign is better.
    Difference,
    /// Quanta of the numeraire, without a sign of their own.
    Money,
    /// Quanta of the asset that the table is about; it counts 10^-this.
    Asset(u8),
    /// Parts per million, shown in percent.
    Share,
    /// Parts per million of an edge or a fee, shown in basis points.
    Edge,
    /// Microseconds.
    Micros,
    /// Seconds.
    Seconds,
    /// UNIX nanoseconds.
    Moment,
    /// Whether something is so.
    Flag,
    /// Words, or a decimal of the asset that stands beside it.
    Text,
}

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its head.
    pub title: &'static str,
    /// What its cells count in.
    pub unit: Unit,
    /// How a cell follows from its row.
    pub query: String,
}

/// A table to be recorded.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Its name on the page and in the JSON.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// Which rows.
    pub query: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its cells.
    pub rows: Vec<Vec<Value>>,
}

/// A column of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnOut {
    /// Its head.
    pub title: String,
    /// What it counts in.
    pub unit: String,
    /// How it follows from the row.
    pub query: String,
}

/// One number or one table of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name: `data-figure` on the page.
    pub id: String,
    /// What it is.
    pub title: String,
    /// What a number counts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How it follows from the files.
    pub query: String,
    /// A number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// As the page shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// A table's columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnOut>>,
    /// A table's cells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<Vec<Value>>>,
    /// As the page shows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_shown: Option<Vec<Vec<String>>>,
}

/// What amounts count in.
#[derive(Clone, Debug, Default)]
pub struct Currency {
    /// Its name.
    pub name: String,
    /// An amount counts 10^-this.
    pub exponent: u8,
}

/// A whole number times 10^-`exponent` with so many places, rounded half away from zero, thousands apart.
fn decimal(quanta: i128, exponent: u32, places: u32) -> String {
    let (size, cut) = (quanta.unsigned_abs(), exponent.saturating_sub(places).min(38));
    let unit = 10u128.pow(cut);
    let rounded = size / unit + u128::from(unit <= size % unit * 2 && 1 < unit);
    let scale = 10u128.pow(exponent.min(places));
    let whole: Vec<u8> = (rounded / scale).to_string().into_bytes();
    let mut out = String::new();
    for (at, digit) in whole.iter().enumerate() {
        if at != 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(char::from(*digit));
    }
    if exponent.min(places) != 0 {
        let width = exponent.min(places) as usize;
        out.push_str(&format!(".{:0width$}", rounded % scale));
    }
    if quanta < 0 && rounded != 0 { format!("\u{2212}{out}") } else { out }
}

/// Cuts the zeros that say nothing.
fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An amount in as many digits as a reader needs.
fn money(quanta: i64, exponent: u8) -> String {
    let (quanta, exponent) = (i128::from(quanta), u32::from(exponent.min(18)));
    let size = quanta.unsigned_abs();
    let one = 10u128.pow(exponent);
    match size {
        0 => "0".to_owned(),
        _ if one * 1_000_000_000 <= size => format!("{} bn", decimal(quanta, exponent + 9, 2)),
        _ if one * 10_000_000 <= size => format!("{} M", decimal(quanta, exponent + 6, 2)),
        _ if one <= size => decimal(quanta, exponent, 2),
        // Three digits that count.
        _ => decimal(quanta, exponent, exponent + 3 - size.ilog10() - 1),
    }
}

/// A time in the unit that needs the fewest digits.
fn micros(us: i64) -> String {
    if i64::MAX / 2 <= us {
        return "no end".to_owned();
    }
    let wide = i128::from(us);
    match us.unsigned_abs() {
        0..1_000 => format!("{} µs", decimal(wide, 0, 0)),
        1_000..1_000_000 => format!("{} ms", trimmed(decimal(wide, 3, 2))),
        _ => format!("{} s", trimmed(decimal(wide, 6, 2))),
    }
}

fn seconds(s: i64) -> String {
    let wide = i128::from(s);
    let of = |unit: i128| {
        let tenths = (wide * 10 + unit / 2).div_euclid(unit);
        trimmed(decimal(tenths, 1, 1))
    };
    match s.unsigned_abs() {
        0..120 => format!("{} s", decimal(wide, 0, 0)),
        120..7_200 => format!("{} min", of(60)),
        7_200..172_800 => format!("{} h", of(3_600)),
        _ => format!("{} days", of(86_400)),
    }
}

fn share(ppm: i64) -> String {
    let places = match ppm.unsigned_abs() {
        0 => return "0 %".to_owned(),
        1..1_000 => 4,
        1_000..10_000 => 2,
        _ => 1,
    };
    format!("{} %", trimmed(decimal(ppm.into(), 4, places)))
}

fn edge(ppm: i64) -> String {
    match ppm {
        _ if i64::MAX / 2 <= ppm => "no end".to_owned(),
        _ if ppm <= i64::MIN / 2 => "no beginning".to_owned(),
        _ => format!("{} bp", trimmed(decimal(ppm.into(), 2, 2))),
    }
}

impl Unit {
    /// Returns its name in the JSON: what the integer counts.
    #[must_use]
    pub fn name(self, currency: &Currency) -> String {
        let quanta = format!("10^-{} {}", currency.exponent, currency.name);
        match self {
            Unit::Count => "count".to_owned(),
            Unit::Gain | Unit::Money | Unit::Difference => quanta,
            Unit::GainPerDay => format!("{quanta} per day"),
            Unit::Asset(exponent) => format!("10^-{exponent} of the asset"),
            Unit::Share | Unit::Edge => "ppm".to_owned(),
            Unit::Micros => "us".to_owned(),
            Unit::Seconds => "s".to_owned(),
            Unit::Moment => "UNIX ns, UTC".to_owned(),
            Unit::Flag => "yes or no".to_owned(),
            Unit::Text => "text".to_owned(),
        }
    }

    /// Returns what is added to a column's head.
    #[must_use]
    pub fn head(self, currency: &Currency) -> String {
        match self {
            Unit::Gain | Unit::Money | Unit::Difference => format!(", {}", currency.name),
            Unit::GainPerDay => format!(", {} per day", currency.name),
            Unit::Moment => ", UTC".to_owned(),
            _ => String::new(),
        }
    }

    /// Returns a value as a cell shows it; the head of the column says what money counts in.
    #[must_use]
    pub fn cell(self, value: &Value, currency: &Currency) -> String {
        let Some(number) = value.as_i64() else {
            return match value {
                Value::Bool(true) => "yes".to_owned(),
                Value::Bool(false) => "no".to_owned(),
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => "none".to_owned(),
            };
        };
        match self {
            Unit::Gain | Unit::GainPerDay | Unit::Difference => {
                let text = money(number, currency.exponent);
                if 0 < number { format!("+{text}") } else { text }
            }
            Unit::Money => money(number, currency.exponent),
            Unit::Asset(exponent) => money(number, exponent),
            Unit::Share => share(number),
            Unit::Edge => edge(number),
            Unit::Micros => micros(number),
            Unit::Seconds => seconds(number),
            Unit::Moment => match number {
                0 => "never".to_owned(),
                _ => utc(number).chars().take(19).collect::<String>().replace('T', " "),
            },
            Unit::Count | Unit::Flag | Unit::Text => decimal(number.into(), 0, 0),
        }
    }

    /// Returns a value as it stands alone.
    #[must_use]
    pub fn alone(self, value: &Value, currency: &Currency) -> String {
        let text = self.cell(value, currency);
        match self {
            _ if value.is_null() => text,
            Unit::Gain | Unit::Money | Unit::Difference => format!("{text} {}", currency.name),
            Unit::GainPerDay => format!("{text} {} per day", currency.name),
            _ => text,
        }
    }

    /// Returns whether it is a number that is set to the right.
    #[must_use]
    pub const fn is_number(self) -> bool {
        !matches!(self, Unit::Text | Unit::Flag | Unit::Moment)
    }

    /// Returns whether its sign is good or bad news.
    #[must_use]
    pub const fn is_gain(self) -> bool {
        matches!(self, Unit::Gain | Unit::GainPerDay)
    }
}

/// `part` of `whole` in ppm, rounded down; nothing of nothing.
#[must_use]
pub fn ppm(part: i128, whole: i128) -> Value {
    per(part.saturating_mul(1_000_000), whole)
}

/// A quotient rounded towards minus infinity; nothing by nothing.
#[must_use]
pub fn per(part: i128, by: i128) -> Value {
    if by == 0 {
        return Value::Null;
    }
    let down = tandem_core::units::div_floor(part, by);
    i64::try_from(down).map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        let currency = Currency { name: "USD".to_owned(), exponent: 8 };
        let gain = |quanta: i64| Unit::Gain.cell(&Value::from(quanta), &currency);
        assert_eq!(gain(0), "0");
        assert_eq!(gain(123_456_789_012), "+1,234.57");
        assert_eq!(gain(-123_456_789), "\u{2212}1.23");
        assert_eq!(gain(1), "+0.00000001");
        assert_eq!(gain(-1_234_567), "\u{2212}0.0123");
        assert_eq!(gain(99_999_999), "+1.000");
        assert_eq!(gain(1_234_567_890_000_000), "+12.35 M");
        assert_eq!(gain(i64::MIN), "\u{2212}92.23 bn");
        assert_eq!(gain(i64::MAX), "+92.23 bn");
        let of = |unit: Unit, number: i64| unit.cell(&Value::from(number), &currency);
        assert_eq!(of(Unit::Micros, 999), "999 µs");
        assert_eq!(of(Unit::Micros, 1_500), "1.5 ms");
        assert_eq!(of(Unit::Micros, -2_000_000), "\u{2212}2 s");
        assert_eq!(of(Unit::Micros, i64::MAX), "no end");
        assert_eq!(of(Unit::Share, 623_456), "62.3 %");
        assert_eq!(of(Unit::Share, 12), "0.0012 %");
        assert_eq!(of(Unit::Edge, 250), "2.5 bp");
        assert_eq!(of(Unit::Seconds, 86_340), "24 h");
        assert_eq!(of(Unit::Count, 1_234_567), "1,234,567");
        assert_eq!(of(Unit::Moment, 1_786_242_665_776_685_000), "2026-08-09 02:31:05");
        assert_eq!(Unit::Gain.alone(&Value::from(100_000_000), &currency), "+1.00 USD");
        assert_eq!(Unit::Gain.alone(&Value::Null, &currency), "none");
    }

    #[test]
    fn quotients_go_down_and_none_by_nothing() {
        assert_eq!(per(-1, 2), Value::from(-1));
        assert_eq!(per(1, 0), Value::Null);
        assert_eq!(ppm(1, 3), Value::from(333_333));
        assert_eq!(ppm(i128::from(i64::MAX), 1), Value::Null);
    }
}
