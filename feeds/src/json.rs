//! A pull scanner over JSON text for the messages that are hot.
//!
//! Invariant: total and bounded. Any byte string gives a value or a [`JsonError`], never a panic; nesting
//! is bounded by [`DEPTH_MAX`] and skipped without recursion; nothing is copied or allocated but a text
//! that really contains escapes. What passes is JSON by RFC 8259: UTF-8, no control characters in
//! strings, strict numbers (so no `NaN`, no leading zeros, no `+`), nothing after the value. The text of
//! a number is kept as sent, because a price never passes through a float.
//!
//! Members come in any order and unknown ones are skipped; a caller that overwrites what an earlier
//! member of the same name said makes the last one count, and all of ours do.
//!
//! Not here: what a message means (`decode` of each venue), decimal text (`tandem_core::units`).

use std::borrow::Cow;

/// Deepest nesting of arrays and objects; the deepest honest message (`exchangeInfo`) has 6.
pub const DEPTH_MAX: u32 = 32;

/// Why a text is not JSON, or not the JSON that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ended inside a value.
    #[error("text ends at byte {at}")]
    End {
        /// Where.
        at: usize,
    },
    /// A byte that may not stand here.
    #[error("unexpected byte at {at}")]
    Byte {
        /// Where.
        at: usize,
    },
    /// Bytes that are not UTF-8.
    #[error("not UTF-8 from byte {at}")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// A control character inside a string.
    #[error("control character in a string at byte {at}")]
    Control {
        /// Where.
        at: usize,
    },
    /// An escape that is none, or half a surrogate pair.
    #[error("bad escape at byte {at}")]
    Escape {
        /// Where.
        at: usize,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("nested too deep at byte {at}")]
    Deep {
        /// Where.
        at: usize,
    },
    /// A value of another type than the message's grammar has here.
    #[error("another type than expected at byte {at}")]
    Type {
        /// Where.
        at: usize,
    },
    /// A number beyond the integer that was asked for.
    #[error("number out of range at byte {at}")]
    Range {
        /// Where.
        at: usize,
    },
    /// Something after the value.
    #[error("trailing bytes from {at}")]
    Trailing {
        /// Where.
        at: usize,
    },
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or a minus sign.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// The scanner: a position in a text. A clone is a bookmark to come back to.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    /// Just behind an opening bracket: the next member needs no comma.
    fresh: bool,
}

type Result<T> = std::result::Result<T, JsonError>;

impl<'a> Scanner<'a> {
    /// Returns a scanner before the first byte. The whole text must be UTF-8.
    pub fn new(text: &'a [u8]) -> Result<Scanner<'a>> {
        match std::str::from_utf8(text) {
            Ok(_) => Ok(Scanner { text, at: 0, depth: 0, fresh: false }),
            Err(error) => Err(JsonError::Utf8 { at: error.valid_up_to() }),
        }
    }

    /// Returns where the scanner stands.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Returns the type of the value that comes next, by its first byte.
    #[inline]
    pub fn peek(&mut self) -> Result<Type> {
        self.space();
        match self.text.get(self.at) {
            Some(b'"') => Ok(Type::String),
            Some(b'{') => Ok(Type::Object),
            Some(b'[') => Ok(Type::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Type::Number),
            Some(b't' | b'f') => Ok(Type::Bool),
            Some(b'n') => Ok(Type::Null),
            Some(_) => Err(JsonError::Byte { at: self.at }),
            None => Err(JsonError::End { at: self.at }),
        }
    }

    /// Enters an object; [`Scanner::key`] gives its members.
    #[inline]
    pub fn object(&mut self) -> Result<()> {
        self.open(Type::Object)
    }

    /// Enters an array; [`Scanner::element`] says whether another element comes.
    #[inline]
    pub fn array(&mut self) -> Result<()> {
        self.open(Type::Array)
    }

    fn open(&mut self, what: Type) -> Result<()> {
        if self.peek()? != what {
            return Err(JsonError::Type { at: self.at });
        }
        if self.depth == DEPTH_MAX {
            return Err(JsonError::Deep { at: self.at });
        }
        self.depth += 1;
        self.at += 1;
        self.fresh = true;
        Ok(())
    }

    /// Returns the next member's name and stands before its value; leaves the object after the last.
    #[inline]
    pub fn key(&mut self) -> Result<Option<Cow<'a, [u8]>>> {
        if !self.next(b'}')? {
            return Ok(None);
        }
        let name = self.text()?;
        self.space();
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// Returns whether another element comes and stands before it; leaves the array after the last.
    #[inline]
    pub fn element(&mut self) -> Result<bool> {
        self.next(b']')
    }

    /// The comma or the closing bracket between members.
    #[inline]
    fn next(&mut self, close: u8) -> Result<bool> {
        self.space();
        let byte = self.byte()?;
        if byte == close {
            self.at += 1;
            // A caller that never opened anything cannot take the depth below zero.
            self.depth = self.depth.saturating_sub(1);
            self.fresh = false;
            return Ok(false);
        }
        if self.fresh {
            self.fresh = false;
            return Ok(true);
        }
        self.expect(b',')?;
        Ok(true)
    }

    /// Reads a string; only one with escapes is copied.
    #[inline]
    pub fn text(&mut self) -> Result<Cow<'a, [u8]>> {
        let (raw, escaped) = self.string()?;
        if escaped { unescape(raw, self.at).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// Reads a string that has no business containing escapes: an id, a price.
    #[inline]
    pub fn plain(&mut self) -> Result<&'a [u8]> {
        match self.string()? {
            (raw, false) => Ok(raw),
            (_, true) => Err(JsonError::Escape { at: self.at }),
        }
    }

    /// Reads the text of a decimal: a string without escapes, or a number as it was sent.
    #[inline]
    pub fn decimal(&mut self) -> Result<&'a [u8]> {
        match self.peek()? {
            Type::String => self.plain(),
            Type::Number => self.number(),
            _ => Err(JsonError::Type { at: self.at }),
        }
    }

    /// Reads a non-negative integer sent as a number.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        let digits = self.number()?;
        integer(digits).ok_or(JsonError::Range { at: self.at })
    }

    /// Reads a non-negative integer sent as a number or as a string.
    pub fn u64_or_text(&mut self) -> Result<u64> {
        let digits = self.decimal()?;
        integer(digits).ok_or(JsonError::Range { at: self.at })
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Result<bool> {
        match self.peek()? {
            Type::Bool if self.text[self.at] == b't' => self.word(b"true").map(|()| true),
            Type::Bool => self.word(b"false").map(|()| false),
            _ => Err(JsonError::Type { at: self.at }),
        }
    }

    /// Passes over the next value and returns its text.
    pub fn skip(&mut self) -> Result<&'a [u8]> {
        self.space();
        let start = self.at;
        let mut kinds = 0u64; // One bit a level: set for an object.
        let floor = self.depth;
        loop {
            match self.peek()? {
                Type::String => {
                    let (raw, escaped) = self.string()?;
                    if escaped {
                        check_escapes(raw, self.at)?;
                    }
                }
                Type::Number => {
                    self.number()?;
                }
                Type::Bool => {
                    self.bool()?;
                }
                Type::Null => self.word(b"null")?,
                Type::Object => {
                    self.open(Type::Object)?;
                    kinds |= 1 << (self.depth - floor);
                }
                Type::Array => {
                    self.open(Type::Array)?;
                    kinds &= !(1 << (self.depth - floor));
                }
            }
            // Behind a value or an opening bracket: close what ends, stop where the next value stands.
            loop {
                if self.depth == floor {
                    return Ok(&self.text[start..self.at]);
                }
                let more = if kinds & 1 << (self.depth - floor) != 0 {
                    self.skip_key()?
                } else {
                    self.element()?
                };
                if more {
                    break;
                }
            }
        }
    }

    fn skip_key(&mut self) -> Result<bool> {
        if !self.next(b'}')? {
            return Ok(false);
        }
        let (raw, escaped) = self.string()?;
        if escaped {
            check_escapes(raw, self.at)?;
        }
        self.space();
        self.expect(b':')?;
        Ok(true)
    }

    /// Checks that only white space is left.
    pub fn finish(&mut self) -> Result<()> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonError::Trailing { at: self.at }) }
    }

    /// Reads a number's text by the strict grammar.
    pub fn number(&mut self) -> Result<&'a [u8]> {
        if self.peek()? != Type::Number {
            return Err(JsonError::Type { at: self.at });
        }
        let start = self.at;
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        let first = self.byte()?;
        let whole = self.digits()?;
        if first == b'0' && 1 < whole {
            return Err(JsonError::Byte { at: self.at });
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    /// Passes over at least one digit; returns how many.
    fn digits(&mut self) -> Result<usize> {
        let rest = &self.text[self.at..];
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        if count == 0 {
            return Err(match rest {
                [] => JsonError::End { at: self.at },
                _ => JsonError::Byte { at: self.at },
            });
        }
        self.at += count;
        Ok(count)
    }

    /// Reads a string's raw bytes and whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<(&'a [u8], bool)> {
        if self.peek()? != Type::String {
            return Err(JsonError::Type { at: self.at });
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(&self.text[self.at..]);
            match self.byte()? {
                b'"' => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok((raw, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    self.byte()?;
                    // What follows is checked when the escapes are resolved; a quote is passed here.
                    self.at += 1;
                }
                _ => return Err(JsonError::Control { at: self.at }),
            }
        }
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn byte(&self) -> Result<u8> {
        self.text.get(self.at).copied().ok_or(JsonError::End { at: self.at })
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.byte()? == byte {
            self.at += 1;
            return Ok(());
        }
        Err(JsonError::Byte { at: self.at })
    }

    fn word(&mut self, word: &[u8]) -> Result<()> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(JsonError::Byte { at: self.at })
    }
}

/// Checks that a text is one JSON value within the depth limit: what must hold before a parser that
/// recurses may see it.
pub fn check(text: &[u8]) -> Result<()> {
    let mut scanner = Scanner::new(text)?;
    scanner.skip()?;
    scanner.finish()
}

/// How many bytes come before a quote, a backslash or a control character.
#[inline]
fn plain_bytes(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest set high bit of each test marks the first hit; false marks stand only above a true one.
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let (chunks, rest) = text.as_chunks::<8>();
    for (idx, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let quote = zero_bytes(word ^ (ONES * b'"' as u64));
        let slash = zero_bytes(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let hit = quote | slash | control;
        if hit != 0 {
            return idx * 8 + hit.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    text.len() - rest.len() + tail.unwrap_or(rest.len())
}

/// Returns a non-negative integer of plain digits, or nothing.
#[must_use]
#[inline]
pub fn integer(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || 20 < digits.len() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cold]
fn check_escapes(raw: &[u8], at: usize) -> Result<()> {
    resolve(raw, at, &mut |_| {})
}

#[cold]
fn unescape(raw: &[u8], at: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    resolve(raw, at, &mut |bytes| out.extend_from_slice(bytes))?;
    Ok(out)
}

/// Resolves the escapes of a string's raw bytes, piece by piece.
fn resolve(raw: &[u8], at: usize, put: &mut dyn FnMut(&[u8])) -> Result<()> {
    let bad = JsonError::Escape { at };
    let mut rest = raw;
    while let Some(pos) = rest.iter().position(|byte| *byte == b'\\') {
        put(&rest[..pos]);
        let escape = *rest.get(pos + 1).ok_or(bad)?;
        rest = &rest[pos + 2..];
        let plain = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(rest).ok_or(bad)?;
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&unit) {
                    let low = rest.strip_prefix(b"\\u").and_then(hex4).ok_or(bad)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(bad);
                    }
                    rest = &rest[6..];
                    unit = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                }
                let letter = char::from_u32(unit).ok_or(bad)?;
                put(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err(bad),
        };
        put(&[plain]);
    }
    put(rest);
    Ok(())
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?
        .iter()
        .try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simd_json::prelude::*;

    use super::*;

    /// Reads any value into serde_json's model, with our scanner alone.
    fn read(scanner: &mut Scanner<'_>) -> Result<serde_json::Value> {
        use serde_json::Value;
        Ok(match scanner.peek()? {
            Type::Object => {
                let mut map = serde_json::Map::new();
                scanner.object()?;
                while let Some(key) = scanner.key()? {
                    let key = String::from_utf8(key.into_owned()).expect("checked at start");
                    map.insert(key, read(scanner)?);
                }
                Value::Object(map)
            }
            Type::Array => {
                let mut items = Vec::new();
                scanner.array()?;
                while scanner.element()? {
                    items.push(read(scanner)?);
                }
                Value::Array(items)
            }
            Type::String => Value::String(
                String::from_utf8(scanner.text()?.into_owned()).expect("checked at start"),
            ),
            Type::Number => {
                let text = std::str::from_utf8(scanner.number()?).expect("ascii");
                // 1e309 is a number of JSON that no f64 holds.
                serde_json::from_str(text).unwrap_or(Value::Null)
            }
            Type::Bool => Value::Bool(scanner.bool()?),
            Type::Null => {
                scanner.skip()?;
                Value::Null
            }
        })
    }

    fn whole(text: &[u8]) -> Result<serde_json::Value> {
        let mut scanner = Scanner::new(text)?;
        let value = read(&mut scanner)?;
        scanner.finish()?;
        Ok(value)
    }

    #[test]
    fn hostile_texts_are_errors() {
        let deep = "[".repeat(1 << 20);
        let cases: &[&[u8]] = &[
            b"",
            b" ",
            b"{",
            b"}",
            b"[",
            b"]",
            b"{]",
            b"[}",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{,}",
            b"[1,]",
            b"[,1]",
            b"[1 2]",
            b"{\"a\":1 \"b\":2}",
            b"{a:1}",
            b"{'a':1}",
            b"nul",
            b"nulll",
            b"tru",
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"+1",
            b"01",
            b"-",
            b"-01",
            b"1.",
            b".5",
            b"1e",
            b"1e+",
            b"0x1",
            b"1 1",
            b"{} {}",
            b"\"",
            b"\"a",
            b"\"\\",
            b"\"\\\"",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\ud800\\u0041\"",
            b"\"\\udc00\"",
            b"\"a\nb\"",
            b"\"\x00\"",
            b"\"\xff\"",
            b"\xc0\x80",
            b"\"\xed\xa0\x80\"",
            b"\xef\xbb\xbf{}",
            b"[1]\x00",
            deep.as_bytes(),
        ];
        for text in cases {
            let shown = String::from_utf8_lossy(&text[..text.len().min(20)]).into_owned();
            assert!(whole(text).is_err(), "read {shown}");
            assert!(check(text).is_err(), "skip {shown}");
        }
    }

    #[test]
    fn escapes_are_resolved_or_refused_where_a_price_is_expected() {
        let text = br#"{"\u0070":"\u0031.5","s":"BTC\/USD","e":"\ud83d\ude00\n"}"#;
        let mut scanner = Scanner::new(text).unwrap();
        scanner.object().unwrap();
        assert_eq!(&*scanner.key().unwrap().unwrap(), b"p");
        assert!(matches!(scanner.clone().decimal(), Err(JsonError::Escape { .. })));
        assert_eq!(&*scanner.text().unwrap(), b"1.5");
        scanner.key().unwrap();
        assert_eq!(&*scanner.text().unwrap(), b"BTC/USD");
        scanner.key().unwrap();
        assert_eq!(&*scanner.text().unwrap(), "😀\n".as_bytes());
        assert_eq!(scanner.key().unwrap(), None);
        scanner.finish().unwrap();
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        let value = whole(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(value["a"], 3);
    }

    #[test]
    fn numbers_keep_their_text() {
        for text in [
            "0",
            "-0",
            "1e-08",
            "18446744073709551615",
            "0.50000000",
            "1E400",
            "123456789012345678901234567890",
        ] {
            let mut scanner = Scanner::new(text.as_bytes()).unwrap();
            assert_eq!(scanner.number().unwrap(), text.as_bytes());
            scanner.finish().unwrap();
        }
        assert_eq!(
            Scanner::new(b"12393906104898154338").unwrap().u64(),
            Ok(12_393_906_104_898_154_338)
        );
        assert!(Scanner::new(b"18446744073709551616").unwrap().u64().is_err());
        assert!(Scanner::new(b"-1").unwrap().u64().is_err());
        assert!(Scanner::new(b"1.0").unwrap().u64().is_err());
        assert_eq!(Scanner::new(b"\"42\"").unwrap().u64_or_text(), Ok(42));
    }

    #[test]
    fn depth_is_counted_from_the_outside() {
        let ok = format!("{}{}", "[".repeat(32), "]".repeat(32));
        let bad = format!("{}{}", "[".repeat(33), "]".repeat(33));
        assert_eq!(check(ok.as_bytes()), Ok(()));
        assert!(matches!(check(bad.as_bytes()), Err(JsonError::Deep { .. })));
    }

    /// JSON values as text, with spaces in odd places and keys that are distinct.
    fn arb_json() -> impl Strategy<Value = String> {
        let space = prop_oneof![Just(""), Just(" "), Just("\n\t"), Just("")];
        let string = prop_oneof![
            "[ -~é世]{0,12}".prop_map(|s| serde_json::to_string(&s).expect("text")),
            Just(r#""\u0041\n\/\\""#.to_owned()),
        ];
        let leaf = prop_oneof![
            string.clone(),
            any::<i64>().prop_map(|n| n.to_string()),
            "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,8})?(e-?[0-9]{1,2})?",
            Just("true".to_owned()),
            Just("false".to_owned()),
            Just("null".to_owned()),
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let space = space.clone();
            prop_oneof![
                (proptest::collection::vec(inner.clone(), 0..6), space.clone()).prop_map(
                    |(items, s)| { format!("[{s}{}{s}]", items.join(&format!("{s},{s}"))) }
                ),
                (proptest::collection::vec(inner, 0..6), space).prop_map(|(items, s)| {
                    let members: Vec<_> = items
                        .iter()
                        .enumerate()
                        .map(|(i, item)| format!("{s}\"k{i}\"{s}:{s}{item}"))
                        .collect();
                    format!("{{{s}{}{s}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_simd_json(text in arb_json()) {
            let ours = whole(text.as_bytes());
            let mut copy = text.clone().into_bytes();
            let theirs = simd_json::to_owned_value(&mut copy);
            prop_assert!(check(text.as_bytes()).is_ok());
            let (ours, theirs) = (ours.expect("made as JSON"), theirs.expect("made as JSON"));
            prop_assert!(same(&ours, &theirs), "{ours:?} {theirs:?}");
        }

        /// One byte of an honest text is another one: both refuse, or both read the same.
        #[test]
        fn agrees_with_simd_json_on_damage(text in arb_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let ours = whole(&bytes);
            prop_assert_eq!(ours.is_ok(), check(&bytes).is_ok() );
            prop_assert_eq!(ours.is_ok(), is_json(&bytes), "{:?}", ours);
            let mut copy = bytes.clone();
            // Strictness is judged by serde_json above; values, where both accept, by simd-json.
            if let (Ok(ours), Ok(theirs)) = (ours, simd_json::to_owned_value(&mut copy)) {
                prop_assert!(same(&ours, &theirs) , "{ours:?} {theirs:?}");
            }
        }

        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(whole(&bytes).is_ok(), is_json(&bytes));
        }

        #[test]
        fn plain_bytes_equals_a_search(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let slow = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_bytes(&bytes), slow);
        }
    }

    /// What serde_json says, but that numbers may be larger than an f64.
    fn is_json(bytes: &[u8]) -> bool {
        match serde_json::from_slice::<serde_json::Value>(bytes) {
            Ok(_) => true,
            Err(error) => error.to_string().contains("number out of range"),
        }
    }

    fn same(ours: &serde_json::Value, theirs: &simd_json::OwnedValue) -> bool {
        use serde_json::Value;
        match ours {
            Value::Null => theirs.is_null() || theirs.cast_f64().is_some(),
            Value::Bool(b) => theirs.as_bool() == Some(*b),
            Value::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) if theirs.is_i64() => theirs.as_i64() == Some(n),
                (_, Some(n)) if theirs.is_u64() => theirs.as_u64() == Some(n),
                _ if theirs.cast_f64().is_none_or(|n| !n.is_finite()) => true,
                _ => {
                    let (a, b) = (n.as_f64().unwrap_or(0.0), theirs.cast_f64().unwrap_or(1.0));
                    (a - b).abs() <= a.abs() * 1e-12
                }
            },
            Value::String(s) => theirs.as_str() == Some(s),
            Value::Array(items) => theirs.as_array().is_some_and(|t| {
                t.len() == items.len() && items.iter().zip(t.iter()).all(|(a, b)| same(a, b))
            }),
            // simd-json keeps both of two equal names; damage can make those.
            Value::Object(map) => theirs.as_object().is_some_and(|t| {
                t.len() != map.len()
                    || map.iter().all(|(k, v)| t.get(k).is_some_and(|t| same(v, t)))
            }),
        }
    }
}
