//! Binance's JSON as values.
//!
//! Invariant: total, and whole or not at all: a message gives an [`Event`] with all its levels read
//! exactly, or a fault that names the one book it concerns where that is known. Members come in any
//! order, unknown members and event types pass.
//!
//! Quirks that are handled here and nowhere else: `bookTicker` has no `e`; a partial-depth message has no
//! symbol and is no delta (nautilus #4181); error replies come flat and nested; `serverShutdown` comes raw
//! and wrapped; the same letters are strings, numbers or arrays by event type.
//!
//! Not here: whether an event fits the book (`sync`).

use std::borrow::Cow;

use tandem_core::book::Level;
use tandem_core::units::{Px, Qty, Side};

use crate::error::{DecodeError, Fault};
use crate::json::{Scanner, Type, integer};
use crate::publish::Update;
use crate::scratch::Scale;
use crate::symbols::Symbols;

/// What a text frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Changes of a book; the levels are in the scratch, bids and asks.
    Depth {
        /// Whose.
        slot: usize,
        /// Its ids.
        span: Span,
        /// Venue's time, UNIX ns; 0 where none.
        event_ns: i64,
    },
    /// Best bid and ask.
    Ticker {
        /// Whose.
        slot: usize,
        /// Update id.
        id: u64,
        /// Bid and ask; nothing where the side is empty.
        best: [Option<Level>; 2],
    },
    /// A trade.
    Trade {
        /// Whose.
        slot: usize,
        /// Price.
        px: Px,
        /// Quantity.
        qty: Qty,
        /// Side of the book that was taken.
        taken: Side,
        /// Trade id.
        id: u64,
        /// Venue's time, UNIX ns.
        event_ns: i64,
    },
    /// Reply to a control frame of ours.
    Ack {
        /// Its id, where it was a number.
        id: Option<u64>,
    },
    /// A control frame of ours was refused.
    Refused {
        /// Its id, where it was a number.
        id: Option<u64>,
        /// The venue's code.
        code: i64,
    },
    /// The server will go away.
    Shutdown,
    /// An event for a symbol that is not ours.
    Foreign,
    /// Something we have no use for.
    Other,
}

/// First and last update id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// `U`
    pub first: u64,
    /// `u`
    pub last: u64,
}

/// The levels of one message: bids and asks.
pub type Levels = [Vec<Update>; 2];

/// The members of an event, as they come.
#[derive(Default)]
struct Members<'a> {
    event: Option<Cow<'a, [u8]>>,
    symbol: Option<Option<usize>>,
    event_time: Option<&'a [u8]>,
    first: Option<&'a [u8]>,
    last: Option<&'a [u8]>,
    sides: [Member<'a>; 2],
    best_qty: [Option<&'a [u8]>; 2],
    trade_id: Option<&'a [u8]>,
    px: Option<&'a [u8]>,
    qty: Option<&'a [u8]>,
    buyer_is_maker: Option<bool>,
    id: Option<&'a [u8]>,
    code: Option<&'a [u8]>,
    is_reply: bool,
    is_error: bool,
}

/// `b` or `a`: levels, or a price.
#[derive(Default, Clone)]
enum Member<'a> {
    #[default]
    None,
    /// Levels whose symbol was not yet known: where they stand.
    Later(Scanner<'a>),
    /// Levels, read into the scratch.
    Levels,
    /// A price or an id.
    Scalar(&'a [u8]),
}

/// Reads one text frame.
pub fn decode(
    payload: &[u8],
    symbols: &Symbols,
    scales: &[Scale],
    levels: &mut Levels,
) -> Result<Event, Fault> {
    if let Some(event) = usual_ticker(payload, symbols, scales) {
        return Ok(event);
    }
    let mut scanner = Scanner::new(payload)?;
    let mut members = Members::default();
    let mut slot = None;
    let result = members
        .read(&mut scanner, symbols, scales, levels, true)
        .and_then(|()| scanner.finish().map_err(DecodeError::from))
        .and_then(|()| {
            slot = members.symbol.flatten();
            members.event(scales, levels)
        });
    result.map_err(|error| Fault { error, slot: slot.or(members.symbol.flatten()) })
}

impl<'a> Members<'a> {
    /// Reads the members of an object; those of `data` stand for the whole where the frame is wrapped.
    fn read(
        &mut self,
        scanner: &mut Scanner<'a>,
        symbols: &Symbols,
        scales: &[Scale],
        levels: &mut Levels,
        outer: bool,
    ) -> Result<(), DecodeError> {
        scanner.object()?;
        while let Some(key) = scanner.key()? {
            match &*key {
                b"data" if outer && scanner.peek()? == Type::Object => {
                    self.read(scanner, symbols, scales, levels, false)?;
                }
                b"e" => self.event = Some(scanner.text()?),
                b"s" => {
                    let slot = symbols.find(&scanner.text()?);
                    // Levels were read by the first symbol's exponents.
                    if self.symbol.is_some_and(|known| known != slot) {
                        return Err(DecodeError::Value("s"));
                    }
                    self.symbol = Some(slot);
                }
                b"E" => self.event_time = scalar(scanner)?,
                b"U" => self.first = Some(scanner.number()?),
                b"u" => self.last = Some(scanner.number()?),
                b"b" => self.side(Side::Bid, scanner, scales, levels)?,
                b"a" => self.side(Side::Ask, scanner, scales, levels)?,
                b"B" => self.best_qty[0] = scalar(scanner)?,
                b"A" => self.best_qty[1] = scalar(scanner)?,
                b"t" => self.trade_id = scalar(scanner)?,
                b"p" => self.px = scalar(scanner)?,
                b"q" => self.qty = scalar(scanner)?,
                b"m" if scanner.peek()? == Type::Bool => {
                    self.buyer_is_maker = Some(scanner.bool()?);
                }
                b"result" => {
                    scanner.skip()?;
                    self.is_reply = true;
                }
                b"id" => self.id = scalar(scanner)?,
                b"error" if scanner.peek()? == Type::Object => {
                    self.is_error = true;
                    scanner.object()?;
                    while let Some(key) = scanner.key()? {
                        match &*key {
                            b"code" => self.code = scalar(scanner)?,
                            _ => drop(scanner.skip()?),
                        }
                    }
                }
                b"code" => self.code = scalar(scanner)?,
                _ => drop(scanner.skip()?),
            }
        }
        Ok(())
    }

    fn side(
        &mut self,
        side: Side,
        scanner: &mut Scanner<'a>,
        scales: &[Scale],
        levels: &mut Levels,
    ) -> Result<(), DecodeError> {
        let member = match (scanner.peek()?, self.symbol) {
            (Type::Array, Some(Some(slot))) => {
                read_levels(scanner, side, scales[slot], &mut levels[side.idx()])?;
                Member::Levels
            }
            (Type::Array, None) => {
                let here = scanner.clone();
                scanner.skip()?;
                Member::Later(here)
            }
            _ => scalar(scanner)?.map_or(Member::None, Member::Scalar),
        };
        self.sides[side.idx()] = member;
        Ok(())
    }

    /// Decides what the members make.
    fn event(&mut self, scales: &[Scale], levels: &mut Levels) -> Result<Event, DecodeError> {
        match self.event.as_deref() {
            Some(b"depthUpdate") => self.depth(scales, levels),
            Some(b"trade") => self.trade(scales),
            Some(b"serverShutdown") => Ok(Event::Shutdown),
            // Spot bookTicker has neither `e` nor `E`; futures have both.
            Some(b"bookTicker") => self.ticker(scales),
            Some(_) => Ok(Event::Other),
            None if self.is_error || !self.is_reply && self.code.is_some() => {
                let code = self.code.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
                Ok(Event::Refused { id: self.id.and_then(integer), code: code.unwrap_or(0) })
            }
            None if self.is_reply => Ok(Event::Ack { id: self.id.and_then(integer) }),
            None if self.last.is_some() && self.best_qty[0].is_some() => self.ticker(scales),
            None => Ok(Event::Other),
        }
    }

    fn depth(&mut self, scales: &[Scale], levels: &mut Levels) -> Result<Event, DecodeError> {
        let Some(slot) = self.symbol.ok_or(DecodeError::Missing("s"))? else {
            return Ok(Event::Foreign);
        };
        let span = Span {
            first: self.first.and_then(integer).ok_or(DecodeError::Missing("U"))?,
            last: self.last.and_then(integer).ok_or(DecodeError::Missing("u"))?,
        };
        if span.last < span.first {
            return Err(DecodeError::Value("u"));
        }
        for side in Side::BOTH {
            match &mut self.sides[side.idx()] {
                Member::Levels => {}
                Member::Later(scanner) => {
                    read_levels(scanner, side, scales[slot], &mut levels[side.idx()])?;
                }
                _ => return Err(DecodeError::Missing(["b", "a"][side.idx()])),
            }
        }
        Ok(Event::Depth { slot, span, event_ns: unix_ns(self.event_time) })
    }

    fn ticker(&self, scales: &[Scale]) -> Result<Event, DecodeError> {
        let Some(slot) = self.symbol.ok_or(DecodeError::Missing("s"))? else {
            return Ok(Event::Foreign);
        };
        let id = self.last.and_then(integer).ok_or(DecodeError::Missing("u"))?;
        let mut best = [None; 2];
        for side in Side::BOTH {
            let name = [["b", "B"], ["a", "A"]][side.idx()];
            let Member::Scalar(px) = self.sides[side.idx()] else {
                return Err(DecodeError::Missing(name[0]));
            };
            let qty = self.best_qty[side.idx()].ok_or(DecodeError::Missing(name[1]))?;
            let qty = scales[slot].qty(qty)?;
            // An empty side is price and quantity 0; the sentinel ends here.
            if 0 < qty.0 {
                best[side.idx()] = Some(Level { px: scales[slot].px(px)?, qty });
            }
        }
        Ok(Event::Ticker { slot, id, best })
    }

    fn trade(&self, scales: &[Scale]) -> Result<Event, DecodeError> {
        let Some(slot) = self.symbol.ok_or(DecodeError::Missing("s"))? else {
            return Ok(Event::Foreign);
        };
        // The buyer was the maker, so the seller took the bid.
        let buyer_is_maker = self.buyer_is_maker.ok_or(DecodeError::Missing("m"))?;
        Ok(Event::Trade {
            slot,
            px: scales[slot].px(self.px.ok_or(DecodeError::Missing("p"))?)?,
            qty: scales[slot].qty(self.qty.ok_or(DecodeError::Missing("q"))?)?,
            taken: if buyer_is_maker { Side::Bid } else { Side::Ask },
            id: self.trade_id.and_then(integer).ok_or(DecodeError::Missing("t"))?,
            event_ns: unix_ns(self.event_time),
        })
    }
}

/// Bytes that are matched as they are expected, one after the other.
struct Expected<'a>(&'a [u8]);

impl<'a> Expected<'a> {
    #[inline]
    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// The rest of a string of plain characters, with its closing quote.
    #[inline]
    fn string(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' ' | 0x7f..))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    #[inline]
    fn digits(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;
        // JSON has no leading zeros; the scanner refuses them with its own words.
        (!digits.is_empty() && digits[0] != b'0').then_some(digits)
    }
}

/// The hottest message in the very form that Binance sends it: members in its order, no white space.
/// Anything else, and any doubt, is the scanner's; where both read a message they read the same
/// (property test). Measured against the scanner alone by the benchmark's `decode` group.
#[inline]
fn usual_ticker(payload: &[u8], symbols: &Symbols, scales: &[Scale]) -> Option<Event> {
    let mut bytes = Expected(payload);
    let wrapped = bytes.literal(b"{\"stream\":\"").is_some();
    if wrapped {
        bytes.string()?;
        bytes.literal(b",\"data\":")?;
    }
    bytes.literal(b"{\"u\":")?;
    let id = integer(bytes.digits()?)?;
    bytes.literal(b",\"s\":\"")?;
    let symbol = bytes.string()?;
    bytes.literal(b",\"b\":\"")?;
    let bid_px = bytes.string()?;
    bytes.literal(b",\"B\":\"")?;
    let bid_qty = bytes.string()?;
    bytes.literal(b",\"a\":\"")?;
    let ask_px = bytes.string()?;
    bytes.literal(b",\"A\":\"")?;
    let ask_qty = bytes.string()?;
    bytes.literal(if wrapped { b"}}" } else { b"}" })?;
    if !bytes.0.is_empty() {
        return None;
    }
    let slot = symbols.find(symbol)?;
    let level = |px: &[u8], qty: &[u8]| {
        let qty = scales[slot].qty(qty).ok()?;
        match qty.0 {
            0 => Some(None),
            _ => Some(Some(Level { px: scales[slot].px(px).ok()?, qty })),
        }
    };
    Some(Event::Ticker { slot, id, best: [level(bid_px, bid_qty)?, level(ask_px, ask_qty)?] })
}

/// A string or a number as text; anything else is passed over.
#[inline]
fn scalar<'a>(scanner: &mut Scanner<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match scanner.peek()? {
        Type::String => match scanner.text()? {
            Cow::Borrowed(text) => Ok(Some(text)),
            // No number of the venue's is written with escapes.
            Cow::Owned(_) => Ok(None),
        },
        Type::Number => Ok(Some(scanner.number()?)),
        _ => {
            scanner.skip()?;
            Ok(None)
        }
    }
}

/// `[["price","quantity"], …]`; further elements of a level pass (old replies had an empty array).
fn read_levels(
    scanner: &mut Scanner<'_>,
    side: Side,
    scale: Scale,
    out: &mut Vec<Update>,
) -> Result<(), DecodeError> {
    out.clear();
    scanner.array()?;
    while scanner.element()? {
        scanner.array()?;
        if !scanner.element()? {
            return Err(DecodeError::Missing("price"));
        }
        let px = scanner.decimal()?;
        if !scanner.element()? {
            return Err(DecodeError::Missing("quantity"));
        }
        let qty = scanner.decimal()?;
        while scanner.element()? {
            scanner.skip()?;
        }
        out.push(scale.update(side, px, qty)?);
    }
    Ok(())
}

/// The venue's time in ns: milliseconds, or microseconds where the connection was asked for them.
fn unix_ns(time: Option<&[u8]>) -> i64 {
    // 10^14 ms is the year 5138; 10^14 us is 1973.
    let unit = |time: u64| if time < 100_000_000_000_000 { 1_000_000 } else { 1_000 };
    time.and_then(integer)
        .and_then(|time| i64::try_from(time.checked_mul(unit(time))?).ok())
        .unwrap_or(0)
}

/// Reads a REST book: `{"lastUpdateId":n,"bids":[…],"asks":[…]}`; returns its id.
pub fn decode_snapshot(body: &[u8], scale: Scale, levels: &mut Levels) -> Result<u64, DecodeError> {
    let mut scanner = Scanner::new(body)?;
    let mut id = None;
    let mut seen = [false; 2];
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"lastUpdateId" => id = Some(scanner.u64()?),
            b"bids" => {
                read_levels(&mut scanner, Side::Bid, scale, &mut levels[0])?;
                seen[0] = true;
            }
            b"asks" => {
                read_levels(&mut scanner, Side::Ask, scale, &mut levels[1])?;
                seen[1] = true;
            }
            _ => drop(scanner.skip()?),
        }
    }
    scanner.finish()?;
    match (id, seen) {
        (Some(id), [true, true]) => Ok(id),
        (None, _) => Err(DecodeError::Missing("lastUpdateId")),
        _ => Err(DecodeError::Missing("bids or asks")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Result<Event, Fault>, Levels) {
        let symbols = Symbols::new(["BTCUSDT", "ETHUSDT"].into_iter());
        let mut levels = Levels::default();
        let event = decode(text.as_bytes(), &symbols, &[Scale { px: 2, qty: 5 }; 2], &mut levels);
        (event, levels)
    }

    const DIFF: &str = r#"{"e":"depthUpdate","E":1672515782136,"s":"BTCUSDT","U":157,"u":160,"b":[["60000.09","1.2"]],"a":[["60000.12","0"]]}"#;

    /// One byte of the usual form changed, removed or added: where the short way reads it, the scanner
    /// reads the same.
    #[test]
    fn the_usual_ticker_is_read_as_the_scanner_reads_it() {
        let plain = r#"{"u":400900217,"s":"BTCUSDT","b":"60000.10000000","B":"1.50000000","a":"60000.11000000","A":"0.00000000"}"#;
        let wrapped = format!(r#"{{"stream":"btcusdt@bookTicker","data":{plain}}}"#);
        let symbols = Symbols::new(["BTCUSDT", "ETHUSDT"].into_iter());
        let scales = [Scale { px: 2, qty: 5 }; 2];
        let mut taken = 0;
        for text in [plain, wrapped.as_str()] {
            assert!(usual_ticker(text.as_bytes(), &symbols, &scales).is_some(), "{text}");
            for at in 0..text.len() {
                for byte in 0..=255u8 {
                    let (head, tail) = text.as_bytes().split_at(at);
                    let variants = [
                        [head, &[byte], &tail[1..]].concat(),
                        [head, &[byte], tail].concat(),
                        [head, &tail[1..]].concat(),
                    ];
                    for variant in variants {
                        let Some(short) = usual_ticker(&variant, &symbols, &scales) else {
                            continue;
                        };
                        taken += 1;
                        let mut levels = Levels::default();
                        let mut scanner = Scanner::new(&variant).expect("UTF-8");
                        let mut members = Members::default();
                        let long = members
                            .read(&mut scanner, &symbols, &scales, &mut levels, true)
                            .and_then(|()| scanner.finish().map_err(DecodeError::from))
                            .and_then(|()| members.event(&scales, &mut levels));
                        assert_eq!(Ok(short), long, "{}", String::from_utf8_lossy(&variant));
                    }
                }
            }
        }
        assert!(1_000 < taken, "the test compares something: {taken}");
    }

    #[test]
    fn a_diff_in_every_shape() {
        let expected = Event::Depth {
            slot: 0,
            span: Span { first: 157, last: 160 },
            event_ns: 1_672_515_782_136_000_000,
        };
        let shapes = [
            DIFF.to_owned(),
            format!(r#"{{"stream":"btcusdt@depth@100ms","data":{DIFF}}}"#),
            format!(r#"{{"data":{DIFF},"stream":"btcusdt@depth@100ms","more":[1,{{}}]}}"#),
            r#"{"a":[["60000.12000000","0.00000000"]],"b":[["60000.09","1.2",[]]],"u":160,"U":157,"s":"BTCUSDT","E":1672515782136000,"e":"depthUpdate","pu":1,"T":3}"#.to_owned(),
        ];
        for shape in shapes {
            let (event, levels) = read(&shape);
            assert_eq!(event, Ok(expected), "{shape}");
            assert_eq!(
                levels[0],
                [Update { side: Side::Bid, px: Px(6_000_009), qty: Qty(120_000) }]
            );
            assert_eq!(levels[1], [Update { side: Side::Ask, px: Px(6_000_012), qty: Qty(0) }]);
        }
    }

    #[test]
    fn binance_trap_6_book_ticker_has_no_time_and_no_type() {
        let (event, _) = read(
            r#"{"u":400900217,"s":"BTCUSDT","b":"60000.10000000","B":"1.50000000","a":"60000.11","A":"0.025"}"#,
        );
        let level = |px, qty| Some(Level { px: Px(px), qty: Qty(qty) });
        let best = [level(6_000_010, 150_000), level(6_000_011, 2_500)];
        assert_eq!(event, Ok(Event::Ticker { slot: 0, id: 400_900_217, best }));
        let (event, _) = read(
            r#"{"u":1,"s":"BTCUSDT","b":"0.00000000","B":"0.00000000","a":"60000.11","A":"0.025"}"#,
        );
        assert_eq!(
            event,
            Ok(Event::Ticker { slot: 0, id: 1, best: [None, level(6_000_011, 2_500)] })
        );
    }

    #[test]
    fn binance_trap_4_and_7_partial_depth_is_no_delta() {
        let (event, _) = read(r#"{"lastUpdateId":160,"bids":[["1","1"]],"asks":[]}"#);
        assert_eq!(event, Ok(Event::Other));
        let (event, _) =
            read(r#"{"stream":"btcusdt@depth20","data":{"lastUpdateId":160,"bids":[],"asks":[]}}"#);
        assert_eq!(event, Ok(Event::Other));
    }

    #[test]
    fn binance_trap_5_replies_and_errors_in_both_shapes() {
        let cases = [
            (r#"{"result":null,"id":3}"#, Event::Ack { id: Some(3) }),
            (r#"{"result":null,"id":"a1"}"#, Event::Ack { id: None }),
            (r#"{"result":null,"id":null}"#, Event::Ack { id: None }),
            (r#"{"result":["btcusdt@depth@100ms"],"id":3}"#, Event::Ack { id: Some(3) }),
            (
                r#"{"code":2,"msg":"Invalid request: x","id":7}"#,
                Event::Refused { id: Some(7), code: 2 },
            ),
            (
                r#"{"error":{"code":2,"msg":"Invalid request: invalid stream"},"id":2}"#,
                Event::Refused { id: Some(2), code: 2 },
            ),
            (
                r#"{"id":null,"error":{"code":-3,"msg":"Invalid json"}}"#,
                Event::Refused { id: None, code: -3 },
            ),
            (r#"{"e":"serverShutdown","E":1764000000000}"#, Event::Shutdown),
            (
                r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}"#,
                Event::Shutdown,
            ),
            (
                r#"{"stream":"x","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"o":"1"}}}"#,
                Event::Other,
            ),
            (
                r#"{"e":"24hrTicker","s":"BTCUSDT","p":"-1","b":"1","B":"1","a":"1","A":"1"}"#,
                Event::Other,
            ),
            (
                r#"{"e":"aggTrade","E":1,"s":"BTCUSDT","a":26129,"p":"0.001","q":"100","f":1,"l":2,"T":1,"m":true,"M":true}"#,
                Event::Other,
            ),
            (
                r#"{"e":"depthUpdate","E":1,"s":"XRPUSDT","U":1,"u":2,"b":[],"a":[]}"#,
                Event::Foreign,
            ),
            (r#"{}"#, Event::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).0, Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_trade_says_which_side_was_taken() {
        let (event, _) = read(
            r#"{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02","T":1,"m":true,"M":true}"#,
        );
        assert!(matches!(
            event,
            Ok(Event::Trade { taken: Side::Bid, px: Px(6_183_763), id: 3_735_683_259, .. })
        ));
    }

    /// MD-09: every one is an error that names the book, none is a guess.
    #[test]
    fn hostile_levels_are_faults_of_their_book() {
        let bad = [
            "NaN",
            "Infinity",
            "1e400",
            "-1",
            "",
            "+1",
            "01x",
            "1.2.3",
            "0",
            "0.000",
            "99999999999999999999",
            "1.001",
            "\\u0031",
            "1,5",
            " 1",
            "0x10",
            "123456789012345678901234567890123456789012",
        ];
        for px in bad {
            let text = DIFF.replace("60000.09", px);
            let fault = read(&text).0.expect_err(px);
            assert_eq!(fault.slot, Some(0), "{px}");
        }
        let shapes = [
            ("\"U\":157,", ""),
            ("\"u\":160", "\"u\":\"160\""),
            ("\"u\":160", "\"u\":-1"),
            ("\"u\":160", "\"u\":156"),
            ("\"u\":160", "\"u\":160.0"),
            ("\"u\":160", "\"u\":18446744073709551616"),
            ("\"b\":[[\"60000.09\",\"1.2\"]],", ""),
            ("[[\"60000.09\",\"1.2\"]]", "{}"),
            ("[\"60000.09\",\"1.2\"]", "[]"),
            ("[\"60000.09\",\"1.2\"]", "[\"1\"]"),
            ("[\"60000.09\",\"1.2\"]", "\"60000.09\""),
            ("\"60000.09\"", "true"),
            ("\"60000.09\"", "null"),
            ("\"60000.09\"", "[]"),
            ("]}", "]}x"),
            ("]}", "]"),
            ("]}", ",]}"),
        ];
        for (from, to) in shapes {
            assert!(DIFF.contains(from), "{from}");
            let text = DIFF.replace(from, to);
            let fault = read(&text).0.expect_err(&text);
            assert_eq!(fault.slot, Some(0), "{text}");
        }
        // Whose it is cannot be told.
        for text in ["", "x", "[]", "null", "{\"e\":\"depthUpdate\"}", "{\"e\":5}"] {
            assert_eq!(read(text).0.expect_err(text).slot, None);
        }
    }

    #[test]
    fn the_last_of_two_equal_members_counts() {
        let text = DIFF.replace("\"a\":", "\"b\":[[\"5\",\"1\"]],\"a\":");
        let (event, levels) = read(&text);
        assert!(event.is_ok());
        assert_eq!(levels[0], [Update { side: Side::Bid, px: Px(500), qty: Qty(100_000) }]);
        assert!(
            read(&DIFF.replace("\"U\":157", "\"U\":157,\"s\":\"ETHUSDT\"")).0.is_err(),
            "two symbols"
        );
    }

    #[test]
    fn snapshots() {
        let mut levels = Levels::default();
        let scale = Scale { px: 2, qty: 5 };
        let id = decode_snapshot(
            br#"{"lastUpdateId":104,"bids":[["5","1"]],"asks":[["6","1",[]]],"E":1}"#,
            scale,
            &mut levels,
        );
        assert_eq!(id, Ok(104));
        assert_eq!((levels[0].len(), levels[1].len()), (1, 1));
        for body in [
            "<html>403</html>",
            "{}",
            r#"{"code":-1121,"msg":"Invalid symbol."}"#,
            r#"{"lastUpdateId":1,"bids":[]}"#,
            "",
        ] {
            assert!(decode_snapshot(body.as_bytes(), scale, &mut levels).is_err(), "{body}");
        }
    }
}
