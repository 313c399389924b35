//! Looking things up in a venue's JSON without a tree.
//!
//! Invariant: total; a [`Value`] is a slice of a text that [`Value::parse`] has checked as a whole, numbers
//! keep the text they were sent as, and whatever is missing or of another type is nothing rather than a
//! panic or a default. Members come in any order, unknown ones are passed over, of equal ones the last
//! counts.
//!
//! Not here: the scanner (`tandem_feeds::json`), what the members mean (each venue's `decode`).

use std::borrow::Cow;

use tandem_core::units::parse_decimal;
use tandem_feeds::json::{self, Scanner, Type};

/// One value, as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// Returns the text's one value; nothing where it is not JSON.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Value<'a>> {
        json::check(text).ok().map(|()| Value(text))
    }

    /// Returns its text.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    fn scanner(self) -> Option<Scanner<'a>> {
        Scanner::new(self.0).ok()
    }

    /// Returns what it is.
    #[must_use]
    pub fn kind(self) -> Option<Type> {
        self.scanner()?.peek().ok()
    }

    /// Returns the members of these names in one pass; nothing for those that are missing or null.
    #[must_use]
    pub fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Value<'a>>; N] {
        let mut found = [None; N];
        self.each_member(|name, value| {
            if let Some(idx) = names.iter().position(|wanted| wanted.as_bytes() == name) {
                found[idx] = (value.kind() != Some(Type::Null)).then_some(value);
            }
        });
        found
    }

    /// Returns a member.
    #[must_use]
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        let [found] = self.pick([name]);
        found
    }

    /// Calls `take` for every member; for none where it is no object.
    pub fn each_member(self, mut take: impl FnMut(&[u8], Value<'a>)) {
        let Some(mut scanner) = self.scanner() else { return };
        if scanner.object().is_err() {
            return;
        }
        while let Ok(Some(name)) = scanner.key() {
            let Ok(value) = scanner.skip() else { return };
            take(&name, Value(value));
        }
    }

    /// Calls `take` for every element; for none where it is no array.
    pub fn each(self, mut take: impl FnMut(Value<'a>)) {
        let Some(mut scanner) = self.scanner() else { return };
        if scanner.array().is_err() {
            return;
        }
        while let Ok(true) = scanner.element() {
            let Ok(value) = scanner.skip() else { return };
            take(Value(value));
        }
    }

    /// Returns the first element.
    #[must_use]
    pub fn first(self) -> Option<Value<'a>> {
        let mut first = None;
        self.each(|value| first = first.or(Some(value)));
        first
    }

    /// Returns how many elements it has; nothing where it is no array.
    #[must_use]
    pub fn count(self) -> Option<usize> {
        (self.kind()? == Type::Array).then(|| {
            let mut count = 0;
            self.each(|_| count += 1);
            count
        })
    }

    /// Returns a string.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, [u8]>> {
        self.scanner()?.text().ok()
    }

    /// Returns whether it is this string.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        self.text().is_some_and(|found| *found == *text.as_bytes())
    }

    /// Returns a string without escapes, or a number's text.
    #[must_use]
    pub fn word(self) -> Option<&'a [u8]> {
        self.scanner()?.decimal().ok()
    }

    /// Returns a non-negative whole number, sent as a number or as text.
    #[must_use]
    pub fn u64(self) -> Option<u64> {
        json::integer(self.word()?)
    }

    /// Returns a whole number, sent as a number or as text.
    #[must_use]
    pub fn i64(self) -> Option<i64> {
        let word = self.word()?;
        match word.strip_prefix(b"-") {
            Some(digits) => i64::try_from(json::integer(digits)?).ok().map(|value| -value),
            None => i64::try_from(json::integer(word)?).ok(),
        }
    }

    /// Returns a truth value.
    #[must_use]
    pub fn bool(self) -> Option<bool> {
        self.scanner()?.bool().ok()
    }

    /// Returns a non-negative decimal in quanta, exactly or not at all.
    #[must_use]
    pub fn quanta(self, exponent: u8) -> Option<i64> {
        parse_decimal(self.word()?, exponent).ok()
    }

    /// Returns a decimal of either sign in quanta, rounded up where it is finer: a fee, against us.
    #[must_use]
    pub fn quanta_up(self, exponent: u8) -> Option<i64> {
        round(self.word()?, exponent, true)
    }

    /// Returns a decimal of either sign in quanta, rounded down where it is finer: what we hold.
    #[must_use]
    pub fn quanta_down(self, exponent: u8) -> Option<i64> {
        round(self.word()?, exponent, false)
    }
}

/// Reads a decimal of either sign, rounded to quanta: however many decimals it has more, what it is worth
/// in quanta is all that must fit.
fn round(word: &[u8], exponent: u8, up: bool) -> Option<i64> {
    let (negative, number) = match word.strip_prefix(b"-") {
        Some(number) => (true, number),
        None => (false, word),
    };
    let (mantissa, shift) = match number.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&number[..at], power(&number[at + 1..])?),
        None => (number, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &b"0"[..]),
    };
    let digits = || whole.iter().chain(fraction);
    if whole.is_empty() || fraction.is_empty() || !digits().all(u8::is_ascii_digit) {
        return None;
    }
    // Digits that are quanta or more; what stands behind them is less than one.
    let kept = whole.len() as i64 + shift + i64::from(exponent);
    let (mut size, mut rest) = (0i64, false);
    for (digit, place) in digits().zip(0i64..) {
        if place < kept {
            size = size.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
        } else {
            rest |= *digit != b'0';
        }
    }
    if size != 0 {
        for _ in digits().count() as i64..kept {
            size = size.checked_mul(10)?;
        }
    }
    // Away from zero where that is the wanted direction for its sign.
    size = size.checked_add(i64::from(rest && up != negative))?;
    Some(if negative { -size } else { size })
}

/// Reads what stands behind an `e`: a sign and at most three digits.
fn power(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let fits = (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| sign * digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_found_in_any_order_and_the_last_counts() {
        let value = Value::parse(br#"{"a":1,"x":{"a":2},"b":null,"c":"7.50","a":-3,"d":[1,[2]]}"#);
        let [a, b, c, d, e] = value.expect("JSON").pick(["a", "b", "c", "d", "e"]);
        assert_eq!(a.and_then(Value::i64), Some(-3));
        assert_eq!((b, e), (None, None));
        assert_eq!(c.and_then(|c| c.quanta(2)), Some(750));
        assert_eq!(d.and_then(Value::count), Some(2));
        assert_eq!(Value::parse(b"{\"a\":1"), None);
        assert_eq!(Value::parse(b"3").and_then(|v| v.get("a")), None);
    }

    #[test]
    fn fees_are_rounded_up_and_holdings_down() {
        let cases: &[(&str, u8, i64, i64)] = &[
            ("0.000010001", 8, 1_001, 1_000),
            ("0.00001", 8, 1_000, 1_000),
            ("-0.000010001", 8, -1_000, -1_001),
            ("1e-05", 8, 1_000, 1_000),
            ("2.5", 0, 3, 2),
        ];
        for (text, exponent, up, down) in cases {
            let value = Value::parse(text.as_bytes()).expect("a number");
            assert_eq!(value.quanta_up(*exponent), Some(*up), "{text}");
            assert_eq!(value.quanta_down(*exponent), Some(*down), "{text}");
        }
    }

    /// A balance of 92,233.72 with 14 decimals does not fit at the venue's own exponent, and need not.
    #[test]
    fn surplus_decimals_do_not_make_a_number_unreadable() {
        type Case = (&'static str, u8, Option<(i64, i64)>);
        let cases: &[Case] = &[
            ("92233.72036854775808", 8, Some((9_223_372_036_855, 9_223_372_036_854))),
            ("1234567.12345678901234", 8, Some((123_456_712_345_679, 123_456_712_345_678))),
            ("-1234567.12345678901234", 8, Some((-123_456_712_345_678, -123_456_712_345_679))),
            ("5.0000000000000000000000000000000000000000001", 2, Some((501, 500))),
            ("0.00000000000000000000000000000000000000000", 8, Some((0, 0))),
            ("92233720368.54775807", 8, Some((i64::MAX, i64::MAX))),
            ("92233720368.547758079", 8, None),
            ("92233720368.54775808", 8, None),
            ("1.5e3", 2, Some((150_000, 150_000))),
            ("15e-4", 2, Some((1, 0))),
            ("1e999", 2, None),
            ("0e999", 2, Some((0, 0))),
            ("1e-999", 2, Some((1, 0))),
        ];
        for (text, exponent, expected) in cases {
            let value = Value::parse(text.as_bytes()).expect("a number");
            let found = (value.quanta_up(*exponent), value.quanta_down(*exponent));
            match expected {
                Some((up, down)) => assert_eq!(found, (Some(*up), Some(*down)), "{text}"),
                None => assert!(found.0.is_none(), "{text} {found:?}"),
            }
        }
        for text in ["\"\"", "\"-\"", "\".5\"", "\"5.\"", "\"1.2.3\"", "\"x\"", "\"1e\"", "\"+1\""]
        {
            let value = Value::parse(text.as_bytes()).expect("text");
            assert_eq!((value.quanta_up(2), value.quanta_down(2)), (None, None), "{text}");
        }
    }

    proptest! {
        /// Where the number is exact at eight decimals, it is what the exact reader says.
        #[test]
        fn rounding_agrees_with_the_exact_reader(
            quanta in 0i64..i64::MAX, tail in 1u8..=9, zeros in 0usize..30,
        ) {
            let whole = format!("{}.{:08}", quanta / 100_000_000, quanta % 100_000_000);
            let exact = Value::parse(whole.as_bytes()).expect("a number");
            prop_assert_eq!(exact.quanta(8), Some(quanta));
            prop_assert_eq!(exact.quanta_up(8), Some(quanta));
            let more = format!("{whole}{}{tail}", "0".repeat(zeros));
            let finer = Value::parse(more.as_bytes()).expect("a number");
            prop_assert_eq!(finer.quanta_down(8), Some(quanta));
            prop_assert_eq!(finer.quanta_up(8), Some(quanta + 1));
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(value) = Value::parse(&bytes) {
                let _ = (value.i64(), value.count(), value.get("a"), value.quanta_up(3), value.first());
            }
        }
    }
}
