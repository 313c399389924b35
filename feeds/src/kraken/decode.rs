//! Kraken's JSON (v2) as values.
//!
//! Invariant: total, and whole or not at all. Prices and quantities are JSON numbers and are read from
//! their own text, exactly, never through a float. Members come in any order, unknown ones pass.
//!
//! Quirks that are handled here and nowhere else: `data` is an array in every channel but `instrument`;
//! increments come in exponent form; a flood is answered by `{"Error":…}` with a capital; snapshots may
//! lack a timestamp; `connection_id` needs all 64 bits (we do not read it).
//!
//! Not here: whether a book is right (`sync`).

use std::borrow::Cow;

use tandem_core::record::TradingStatus;
use tandem_core::units::Side;

use crate::error::{DecodeError, Fault};
use crate::json::{Scanner, Type, integer};
use crate::publish::Update;
use crate::scratch::Scale;
use crate::stamp;
use crate::symbols::Symbols;

/// What a text frame says. Details are in [`Messages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Whole books or changes: [`Messages::parts`].
    Book {
        /// Whole books.
        snapshot: bool,
    },
    /// Nothing to say, but alive.
    Heartbeat,
    /// The venue's state.
    Status(TradingStatus),
    /// Rules of instruments: [`Messages::pairs`].
    Instrument,
    /// Reply to a request of ours.
    Reply {
        /// Method, channel and outcome.
        what: ReplyTo,
        /// Whether it was done.
        success: bool,
        /// Its symbol, where it has one that is ours.
        slot: Option<usize>,
    },
    /// We send too fast.
    TooFast,
    /// Something we have no use for.
    Other,
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// A book's subscription, or one whose channel the reply does not name.
    Subscribe,
    /// Its end.
    Unsubscribe,
    /// A ping.
    Ping,
    /// Anything else.
    Other,
}

/// One book of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub slot: usize,
    /// The venue's CRC-32 of the result.
    pub checksum: u32,
    /// Venue's time, UNIX ns; 0 where none.
    pub time_ns: i64,
    start: usize,
    end: usize,
}

/// Changed rules of one instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Whose.
    pub slot: usize,
    /// Whether orders are taken.
    pub status: TradingStatus,
    /// Decimals of a price in the checksum.
    pub price_precision: Option<u8>,
    /// Decimals of a quantity in the checksum.
    pub qty_precision: Option<u8>,
    /// Smallest price move, as text.
    pub tick: Option<Box<[u8]>>,
    /// Smallest quantity move, as text.
    pub lot: Option<Box<[u8]>>,
    /// Smallest order worth, as text.
    pub notional_min: Option<Box<[u8]>>,
}

/// What a message said in detail.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    /// Books, in order.
    pub parts: Vec<Part>,
    levels: Vec<Update>,
    /// Rules.
    pub pairs: Vec<Pair>,
}

impl Messages {
    /// Returns the levels of a book.
    #[must_use]
    pub fn levels(&self, part: &Part) -> &[Update] {
        &self.levels[part.start..part.end]
    }

    /// Returns the levels of a book, to be put in order.
    pub fn levels_mut(&mut self, part: &Part) -> &mut [Update] {
        &mut self.levels[part.start..part.end]
    }

    fn clear(&mut self) {
        self.parts.clear();
        self.levels.clear();
        self.pairs.clear();
    }
}

/// The outer members of a frame.
#[derive(Default)]
struct Frame<'a> {
    channel: Option<Cow<'a, [u8]>>,
    kind: Option<Cow<'a, [u8]>>,
    method: Option<Cow<'a, [u8]>>,
    success: Option<bool>,
    slot: Option<usize>,
    error: bool,
    too_fast: bool,
    data: Option<Scanner<'a>>,
    result_channel: Option<Cow<'a, [u8]>>,
}

/// Reads one text frame.
pub fn decode(
    payload: &[u8],
    symbols: &Symbols,
    scales: &[Scale],
    out: &mut Messages,
) -> Result<Event, Fault> {
    out.clear();
    let mut scanner = Scanner::new(payload)?;
    let mut frame = Frame::default();
    let mut done = None;
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"channel" => frame.channel = Some(scanner.text()?),
            b"type" => frame.kind = Some(scanner.text()?),
            b"method" => frame.method = Some(scanner.text()?),
            b"success" if scanner.peek()? == Type::Bool => frame.success = Some(scanner.bool()?),
            b"symbol" if scanner.peek()? == Type::String => {
                frame.slot = symbols.find(&scanner.text()?);
            }
            b"error" => {
                scanner.skip()?;
                frame.error = true;
            }
            b"Error" => {
                scanner.skip()?;
                frame.too_fast = true;
            }
            b"result" if scanner.peek()? == Type::Object => frame.result(&mut scanner, symbols)?,
            // In the venue's own order the channel and the type are known here.
            b"data" if frame.channel.is_some() && frame.kind.is_some() && done.is_none() => {
                done = Some(frame.data(&mut scanner, symbols, scales, out)?);
            }
            b"data" => {
                frame.data = Some(scanner.clone());
                scanner.skip()?;
            }
            _ => drop(scanner.skip()?),
        }
    }
    scanner.finish()?;
    match done {
        // A second `data` cannot be told from the first.
        Some(_) if frame.data.is_some() => Err(DecodeError::Value("data").into()),
        Some(event) => Ok(event),
        None => frame.event(symbols, scales, out),
    }
}

impl<'a> Frame<'a> {
    fn result(&mut self, scanner: &mut Scanner<'a>, symbols: &Symbols) -> Result<(), DecodeError> {
        scanner.object()?;
        while let Some(key) = scanner.key()? {
            match &*key {
                b"channel" if scanner.peek()? == Type::String => {
                    self.result_channel = Some(scanner.text()?);
                }
                b"symbol" if scanner.peek()? == Type::String => {
                    self.slot = symbols.find(&scanner.text()?);
                }
                _ => drop(scanner.skip()?),
            }
        }
        Ok(())
    }

    fn event(
        &mut self,
        symbols: &Symbols,
        scales: &[Scale],
        out: &mut Messages,
    ) -> Result<Event, Fault> {
        if self.too_fast {
            return Ok(Event::TooFast);
        }
        if let Some(method) = &self.method {
            let book = self.result_channel.as_deref().is_none_or(|channel| channel == b"book");
            let what = match &**method {
                b"subscribe" if book => ReplyTo::Subscribe,
                b"unsubscribe" if book => ReplyTo::Unsubscribe,
                b"pong" | b"ping" => ReplyTo::Ping,
                _ => ReplyTo::Other,
            };
            let success = self.success.unwrap_or(!self.error) && !self.error;
            return Ok(Event::Reply { what, success, slot: self.slot });
        }
        match self.data.take() {
            Some(mut scanner) => self.data(&mut scanner, symbols, scales, out),
            None if self.channel.as_deref() == Some(b"heartbeat") => Ok(Event::Heartbeat),
            None => Ok(Event::Other),
        }
    }

    fn data(
        &self,
        scanner: &mut Scanner<'a>,
        symbols: &Symbols,
        scales: &[Scale],
        out: &mut Messages,
    ) -> Result<Event, Fault> {
        match self.channel.as_deref() {
            Some(b"book") => {
                let snapshot = match self.kind.as_deref() {
                    Some(b"snapshot") => true,
                    Some(b"update") => false,
                    _ => return Err(DecodeError::Value("type").into()),
                };
                scanner.array()?;
                while scanner.element()? {
                    book(scanner, symbols, scales, out)?;
                }
                Ok(Event::Book { snapshot })
            }
            Some(b"status") => {
                scanner.array()?;
                let mut status = None;
                while scanner.element()? {
                    status = Some(system(scanner)?);
                }
                Ok(status.map_or(Event::Other, Event::Status))
            }
            Some(b"instrument") => {
                scanner.object()?;
                while let Some(key) = scanner.key()? {
                    if &*key != b"pairs" || scanner.peek()? != Type::Array {
                        scanner.skip()?;
                        continue;
                    }
                    scanner.array()?;
                    while scanner.element()? {
                        pair(scanner, symbols, out)?;
                    }
                }
                Ok(Event::Instrument)
            }
            Some(b"heartbeat") => {
                scanner.skip()?;
                Ok(Event::Heartbeat)
            }
            _ => {
                scanner.skip()?;
                Ok(Event::Other)
            }
        }
    }
}

fn book(
    scanner: &mut Scanner<'_>,
    symbols: &Symbols,
    scales: &[Scale],
    out: &mut Messages,
) -> Result<(), Fault> {
    let start = out.levels.len();
    let mut slot: Option<Option<usize>> = None;
    let (mut checksum, mut time_ns) = (None, 0);
    // A side that came before the symbol waits; one that came after is read at once.
    let mut later: [Option<Scanner<'_>>; 2] = [None, None];
    let mut read = [false; 2];
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        let side = match &*key {
            b"symbol" => {
                let found = symbols.find(&scanner.text()?);
                if slot.is_some_and(|known| known != found) {
                    return Err(DecodeError::Value("symbol").into());
                }
                slot = Some(found);
                continue;
            }
            b"checksum" => {
                checksum = Some(scanner.number()?);
                continue;
            }
            b"timestamp" if scanner.peek()? == Type::String => {
                time_ns = stamp::unix_ns(&scanner.text()?).unwrap_or(0);
                continue;
            }
            b"bids" => Side::Bid,
            b"asks" => Side::Ask,
            _ => {
                scanner.skip()?;
                continue;
            }
        };
        let idx = side.idx();
        match slot {
            // Twice the same member: the earlier levels would have to be taken back.
            _ if read[idx] => {
                return Err(Fault {
                    error: DecodeError::Value("a side twice"),
                    slot: slot.flatten(),
                });
            }
            Some(Some(slot)) => {
                read_levels(scanner, side, scales[slot], &mut out.levels)
                    .map_err(|error| Fault { error, slot: Some(slot) })?;
            }
            _ => {
                later[idx] = Some(scanner.clone());
                scanner.skip()?;
            }
        }
        read[idx] = true;
    }
    let Some(slot) = slot.ok_or(DecodeError::Missing("symbol"))? else { return Ok(()) };
    let fault = |error| Fault { error, slot: Some(slot) };
    for (side, later) in Side::BOTH.into_iter().zip(&mut later) {
        if let Some(scanner) = later {
            read_levels(scanner, side, scales[slot], &mut out.levels).map_err(fault)?;
        }
    }
    let checksum = checksum.ok_or(fault(DecodeError::Missing("checksum")))?;
    let checksum = integer(checksum)
        .and_then(|sum| u32::try_from(sum).ok())
        .ok_or(fault(DecodeError::Value("checksum")))?;
    out.parts.push(Part { slot, checksum, time_ns, start, end: out.levels.len() });
    Ok(())
}

fn read_levels(
    scanner: &mut Scanner<'_>,
    side: Side,
    scale: Scale,
    out: &mut Vec<Update>,
) -> Result<(), DecodeError> {
    scanner.array()?;
    while scanner.element()? {
        let (mut px, mut qty) = (None, None);
        scanner.object()?;
        while let Some(key) = scanner.key()? {
            match &*key {
                b"price" => px = Some(scanner.decimal()?),
                b"qty" => qty = Some(scanner.decimal()?),
                _ => drop(scanner.skip()?),
            }
        }
        let px = px.ok_or(DecodeError::Missing("price"))?;
        out.push(scale.update(side, px, qty.ok_or(DecodeError::Missing("qty"))?)?);
    }
    Ok(())
}

fn system(scanner: &mut Scanner<'_>) -> Result<TradingStatus, DecodeError> {
    let mut status = TradingStatus::Halted;
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"system" => status = trading_status(&scanner.text()?),
            _ => drop(scanner.skip()?),
        }
    }
    Ok(status)
}

/// Returns what a state of the venue or of a pair means for orders; a word we do not know halts.
#[must_use]
pub fn trading_status(word: &[u8]) -> TradingStatus {
    match word {
        b"online" => TradingStatus::Trading,
        b"cancel_only" => TradingStatus::CancelOnly,
        b"post_only" => TradingStatus::PostOnly,
        // `limit_only` and `reduce_only` take some orders; which of ours is not worth guessing.
        _ => TradingStatus::Halted,
    }
}

fn pair(scanner: &mut Scanner<'_>, symbols: &Symbols, out: &mut Messages) -> Result<(), Fault> {
    let mut slot = None;
    let mut found = Pair {
        slot: 0,
        status: TradingStatus::Halted,
        price_precision: None,
        qty_precision: None,
        tick: None,
        lot: None,
        notional_min: None,
    };
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        match &*key {
            b"symbol" => slot = symbols.find(&scanner.text()?),
            b"status" => found.status = trading_status(&scanner.text()?),
            b"price_precision" => found.price_precision = u8::try_from(scanner.u64()?).ok(),
            b"qty_precision" => found.qty_precision = u8::try_from(scanner.u64()?).ok(),
            b"price_increment" => found.tick = Some(scanner.decimal()?.into()),
            b"qty_increment" => found.lot = Some(scanner.decimal()?.into()),
            // Deprecated, and only where the other is missing.
            b"tick_size" if found.tick.is_none() => found.tick = Some(scanner.decimal()?.into()),
            b"cost_min" => found.notional_min = Some(scanner.decimal()?.into()),
            _ => drop(scanner.skip()?),
        }
    }
    if let Some(slot) = slot {
        out.pairs.push(Pair { slot, ..found });
    }
    Ok(())
}

/// Reads a REST book (`Depth`) into `levels`, bids and asks: the one member of `result`, whatever its name.
pub fn decode_book(
    body: &[u8],
    scale: Scale,
    levels: &mut [Vec<Update>; 2],
) -> Result<(), DecodeError> {
    let mut scanner = Scanner::new(body)?;
    let mut seen = [false; 2];
    scanner.object()?;
    while let Some(key) = scanner.key()? {
        if &*key != b"result" || scanner.peek()? != Type::Object {
            scanner.skip()?;
            continue;
        }
        scanner.object()?;
        while scanner.key()?.is_some() {
            if scanner.peek()? != Type::Object {
                scanner.skip()?;
                continue;
            }
            scanner.object()?;
            while let Some(key) = scanner.key()? {
                let side = match &*key {
                    b"bids" => Side::Bid,
                    b"asks" => Side::Ask,
                    _ => {
                        scanner.skip()?;
                        continue;
                    }
                };
                seen[side.idx()] = true;
                rows(&mut scanner, side, scale, &mut levels[side.idx()])?;
            }
        }
    }
    scanner.finish()?;
    if seen == [true, true] { Ok(()) } else { Err(DecodeError::Missing("bids or asks")) }
}

/// `[["price","volume",time], …]`
fn rows(
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
            return Err(DecodeError::Missing("volume"));
        }
        let qty = scanner.decimal()?;
        while scanner.element()? {
            scanner.skip()?;
        }
        out.push(scale.update(side, px, qty)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tandem_core::units::{Px, Qty};

    use super::*;

    fn read(text: &str) -> Result<(Event, Messages), Fault> {
        let symbols = Symbols::new(["BTC/USD", "ETH/USD"].into_iter());
        let mut out = Messages::default();
        let event = decode(text.as_bytes(), &symbols, &[Scale { px: 1, qty: 8 }; 2], &mut out)?;
        Ok((event, out))
    }

    const BOOK: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":64999.5,"qty":0.70000000}],"asks":[{"price":65000.1,"qty":0.00000000}],"checksum":3997527697,"timestamp":"2026-05-05T10:00:00.223456Z"}]}"#;

    #[test]
    fn a_book_in_any_order_of_members() {
        let turned = r#"{"data":[{"checksum":3997527697,"asks":[{"qty":0.0,"price":65000.1}],"bids":[{"qty":7e-1,"price":64999.50,"z":{}}],"symbol":"BTC\/USD","n":1}],"type":"update","channel":"book","sequence":9}"#;
        for text in [BOOK, turned] {
            let (event, out) = read(text).unwrap();
            assert_eq!(event, Event::Book { snapshot: false });
            let part = out.parts[0];
            assert_eq!((part.slot, part.checksum), (0, 3_997_527_697));
            let levels = out.levels(&part);
            assert!(levels.contains(&Update {
                side: Side::Bid,
                px: Px(649_995),
                qty: Qty(70_000_000)
            }));
            assert!(levels.contains(&Update { side: Side::Ask, px: Px(650_001), qty: Qty(0) }));
        }
    }

    #[test]
    fn replies_heartbeats_and_status() {
        let cases = [
            (r#"{"channel":"heartbeat"}"#, Event::Heartbeat),
            (
                r#"{"channel":"status","type":"update","data":[{"version":"2.0.0","system":"online","api_version":"v2","connection_id":12393906104898154338}]}"#,
                Event::Status(TradingStatus::Trading),
            ),
            (
                r#"{"channel":"status","type":"update","data":[{"system":"post_only"}]}"#,
                Event::Status(TradingStatus::PostOnly),
            ),
            (
                r#"{"channel":"status","type":"update","data":[{"system":"on_fire"}]}"#,
                Event::Status(TradingStatus::Halted),
            ),
            (
                r#"{"method":"subscribe","req_id":3,"success":true,"result":{"channel":"book","symbol":"BTC/USD","depth":10,"snapshot":true,"warnings":["x"]},"time_in":"a","time_out":"b"}"#,
                Event::Reply { what: ReplyTo::Subscribe, success: true, slot: Some(0) },
            ),
            (
                r#"{"method":"subscribe","req_id":3,"success":false,"symbol":"ETH/USD","error":"Currency pair not supported ETH/USD"}"#,
                Event::Reply { what: ReplyTo::Subscribe, success: false, slot: Some(1) },
            ),
            (
                r#"{"method":"subscribe","success":true,"result":{"channel":"instrument","warnings":["tick_size is deprecated, use price_increment"]}}"#,
                Event::Reply { what: ReplyTo::Other, success: true, slot: None },
            ),
            (
                r#"{"method":"pong","req_id":1,"time_in":"x","time_out":"y"}"#,
                Event::Reply { what: ReplyTo::Ping, success: true, slot: None },
            ),
            (
                r#"{"method":"pong","success":true,"result":{}}"#,
                Event::Reply { what: ReplyTo::Ping, success: true, slot: None },
            ),
            (r#"{"Error":"Exceeded msg rate"}"#, Event::TooFast),
            (r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD"}]}"#, Event::Other),
            ("{}", Event::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).unwrap().0, expected, "{text}");
        }
    }

    #[test]
    fn instruments_in_exponent_form() {
        let text = r#"{"channel":"instrument","type":"snapshot","data":{"assets":[{"id":"BTC","precision":10}],"pairs":[{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"limit_only","qty_precision":8,"qty_increment":1e-08,"price_precision":1,"cost_precision":5,"cost_min":0.5,"qty_min":0.0001,"tick_size":0.5,"price_increment":0.1},{"symbol":"XBT/CHF","status":"online"}]}}"#;
        let (event, out) = read(text).unwrap();
        assert_eq!(event, Event::Instrument);
        assert_eq!(out.pairs.len(), 1);
        let pair = &out.pairs[0];
        assert_eq!(pair.status, TradingStatus::Halted);
        assert_eq!((pair.price_precision, pair.qty_precision), (Some(1), Some(8)));
        assert_eq!(pair.tick.as_deref(), Some(&b"0.1"[..]));
        assert_eq!(pair.lot.as_deref(), Some(&b"1e-08"[..]));
    }

    /// MD-09.
    #[test]
    fn hostile_books_are_faults_of_their_book() {
        for px in [
            "NaN",
            "1e400",
            "-1",
            "0",
            "0.0",
            "64999.55",
            "99999999999999999999",
            "01",
            "1.",
            "\"\"",
            "null",
            "true",
            "[]",
        ] {
            let fault = read(&BOOK.replace("64999.5", px)).expect_err(px);
            assert!(fault.slot == Some(0), "{px}");
        }
        let shapes = [
            ("\"checksum\":3997527697,", ""),
            ("3997527697", "-1"),
            ("3997527697", "4294967296"),
            ("3997527697", "1.5"),
            ("\"symbol\":\"BTC/USD\",", ""),
            ("\"price\":64999.5,", ""),
            ("\"update\"", "\"other\""),
            ("\"update\"", "1"),
            ("}]}", "}]}x"),
            ("}]}", "}]"),
            ("}]}", "}],\"data\":[]}"),
        ];
        for (from, to) in shapes {
            assert!(BOOK.contains(from), "{from}");
            let text = BOOK.replacen(from, to, if from == "}]}" { 0 } else { 9 });
            let text =
                if from == "}]}" { format!("{}{to}", &BOOK[..BOOK.len() - 3]) } else { text };
            assert!(read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn kraken_trap_depth_rest_decimals_and_key_are_not_ours() {
        let mut levels = Default::default();
        let scale = Scale { px: 1, qty: 8 };
        let body = br#"{"error":[],"result":{"XXBTZUSD":{"asks":[["105944.30000","0.136",1762820248]],"bids":[["105944.20000","1",1]]}}}"#;
        assert_eq!(decode_book(body, scale, &mut levels), Ok(()));
        assert_eq!(
            levels[1],
            [Update { side: Side::Ask, px: Px(1_059_443), qty: Qty(13_600_000) }]
        );
        for body in ["<html>520", r#"{"error":["EGeneral:Too many requests"]}"#, "{}"] {
            assert!(decode_book(body.as_bytes(), scale, &mut levels).is_err());
        }
    }
}
