//! hftbacktest's arrays: one instrument's events in a npz (compressed or not) or a bare npy.
//!
//! An event has flags, the exchange's stamp and ours (ns), price and quantity as floats. Events with `LOCAL` are
//! what a receiver saw, in the order of our stamp; those with `EXCH` alone are the same ones in the exchange's
//! order, and are passed over. `BUY` is the bid of a book and the taker of a trade. (hftbacktest 2, `types.py`.)
//!
//! Not here: which rows make a message (`merge`); how arrays are written (`export::events`).

use std::io::Read;
use std::path::{Path, PathBuf};

use tandem_core::record::Venue;
use tandem_core::units::Side;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::bytes::{self, Stream};
use super::error::{DataError, Place, shown};
use super::number::Number;
use super::row::{Named, Resting, Row, Rows, What, is_stamp};

/// Kinds of event: the low eight bits of the flags.
pub mod kind {
    /// A level changed.
    pub const DEPTH: u64 = 1;
    /// A trade.
    pub const TRADE: u64 = 2;
    /// Levels are gone.
    pub const CLEAR: u64 = 3;
    /// A level of a snapshot.
    pub const SNAPSHOT: u64 = 4;
    /// The best of one side.
    pub const BBO: u64 = 5;
}

/// For whom an event is, and of which side.
pub mod flag {
    /// Happens at the exchange at its stamp.
    pub const EXCH: u64 = 1 << 31;
    /// Seen here at our stamp.
    pub const LOCAL: u64 = 1 << 30;
    /// Bid, or bought.
    pub const BUY: u64 = 1 << 29;
    /// Ask, or sold.
    pub const SELL: u64 = 1 << 28;
}

/// An event as it stands in an array.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Kind and flags.
    pub ev: u64,
    /// The exchange's stamp, ns.
    pub exch_ts: i64,
    /// Ours, ns.
    pub local_ts: i64,
    /// Price.
    pub px: f64,
    /// Quantity.
    pub qty: f64,
    /// Order, of events about single orders.
    pub order_id: u64,
    /// Unused.
    pub ival: i64,
    /// Unused.
    pub fval: f64,
}

/// Bytes of an event.
pub const EVENT_BYTES: usize = size_of::<Event>();

/// Names and types of an event's fields, as numpy spells them.
pub const FIELDS: [(&str, &str); 8] = [
    ("ev", "<u8"),
    ("exch_ts", "<i8"),
    ("local_ts", "<i8"),
    ("px", "<f8"),
    ("qty", "<f8"),
    ("order_id", "<u8"),
    ("ival", "<i8"),
    ("fval", "<f8"),
];

/// Longest header of an array that is read.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Events that are read at once.
const BLOCK: usize = 4_096;
const CONVERT: &str = "convert it to an array of hftbacktest 2 (hftbacktest.data.utils.migration2, or its converters)";

/// One file.
pub struct Events {
    path: PathBuf,
    stream: Stream,
    venue: Venue,
    symbol: String,
    /// Events that are left in the file, and those that were read and are not yet told.
    left: u64,
    block: Vec<u8>,
    at: usize,
    row: u64,
    rounded: u64,
    /// Events for the exchange alone.
    passed_over: u64,
}

/// Returns the entry of a npz that has events.
fn is_events(name: &str) -> bool {
    name == "data.npy" || name == "arr_0.npy"
}

impl Events {
    /// Opens a file of one instrument.
    pub fn open(path: &Path, venue: Venue, symbol: &str) -> Result<Events, DataError> {
        let mut stream = bytes::stream(path, is_events)?;
        let rows = header(path, &mut stream)?;
        Ok(Events {
            path: path.to_owned(),
            stream,
            venue,
            symbol: symbol.to_owned(),
            left: rows,
            block: Vec::new(),
            at: 0,
            row: 0,
            rounded: 0,
            passed_over: 0,
        })
    }

    fn error(&self, found: String, fix: &str) -> DataError {
        DataError::Line { place: self.place(self.row), found, fix: fix.to_owned() }
    }

    fn event(&mut self) -> Result<Option<Event>, DataError> {
        if self.at == self.block.len() {
            let count = self.left.min(BLOCK as u64) as usize;
            if count == 0 {
                return self.end();
            }
            self.block.resize(count * EVENT_BYTES, 0);
            self.at = 0;
            if let Err(error) = self.stream.read_exact(&mut self.block) {
                let found = format!("the array ends before its {} more rows: {error}", self.left);
                self.row += 1;
                return Err(self.error(found, "is the file whole? fetch or make it again"));
            }
            self.left -= count as u64;
        }
        let bytes = &self.block[self.at..self.at + EVENT_BYTES];
        self.at += EVENT_BYTES;
        self.row += 1;
        Ok(Event::read_from_bytes(bytes).ok())
    }

    /// Nothing may follow, and what was read must have been right.
    fn end(&mut self) -> Result<Option<Event>, DataError> {
        let fix = "is the file whole? fetch or make it again";
        match self.stream.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err(self.error("more bytes follow than the array has rows".to_owned(), fix)),
            Err(error) => Err(self.error(format!("cannot be read: {error}"), fix)),
        }
    }

    fn number(&mut self, what: &str, value: f64) -> Result<Number, DataError> {
        let Some((number, rounded)) = Number::of_float(value) else {
            let fix = "a number of at most 12 decimal places is expected, not negative: is it off \
                       the tick?";
            return Err(self.error(format!("{what} is {value}"), fix));
        };
        self.rounded += u64::from(rounded);
        Ok(number)
    }

    fn px(&mut self, value: f64) -> Result<Number, DataError> {
        let px = self.number("px", value)?;
        match px.is_zero() {
            true => Err(self.error("px is 0".to_owned(), "a price is above 0")),
            false => Ok(px),
        }
    }

    fn what(&mut self, event: &Event) -> Result<What, DataError> {
        let sides = (event.ev & flag::BUY != 0, event.ev & flag::SELL != 0);
        let side = match sides {
            (true, false) => Some(Side::Bid),
            (false, true) => Some(Side::Ask),
            _ => None,
        };
        let what = event.ev & 0xff;
        let needed = || {
            let found = format!("ev is {:#x}: neither BUY nor SELL", event.ev);
            self.error(found, "an event of a book is of one side")
        };
        match what {
            kind::DEPTH | kind::SNAPSHOT => {
                let side = side.ok_or_else(needed)?;
                let at = Resting { px: self.px(event.px)?, qty: self.number("qty", event.qty)? };
                Ok(What::Level { side, at, snapshot: what == kind::SNAPSHOT })
            }
            kind::BBO => {
                let side = side.ok_or_else(needed)?;
                let qty = self.number("qty", event.qty)?;
                let level = match qty.is_zero() {
                    true => None,
                    false => Some(Resting { px: self.px(event.px)?, qty }),
                };
                Ok(What::Best { side, level })
            }
            kind::CLEAR => {
                // Without a side, all of both; a price of none is to the end.
                let to = match side {
                    Some(_) if event.px.is_finite() && event.px != 0.0 => Some(self.px(event.px)?),
                    _ => None,
                };
                Ok(What::Clear { side, to })
            }
            kind::TRADE => {
                let at = Resting { px: self.px(event.px)?, qty: self.number("qty", event.qty)? };
                // The taker's side: who buys takes the ask.
                let taken = side.map(|side| match side {
                    Side::Bid => Side::Ask,
                    Side::Ask => Side::Bid,
                });
                Ok(What::Trade { at, taken, id: 0 })
            }
            _ => {
                let found = format!("ev is {:#x}: kind {what}", event.ev);
                Err(self.error(found, "books by price (kinds 1 to 5) are read, not single orders"))
            }
        }
    }
}

impl Rows for Events {
    fn next(&mut self) -> Result<Option<(Named<'_>, Row)>, DataError> {
        let event = loop {
            match self.event()? {
                None => return Ok(None),
                Some(event) if event.ev & flag::LOCAL != 0 => break event,
                Some(event) if event.ev & flag::EXCH != 0 => self.passed_over += 1,
                Some(event) => {
                    let found = format!("ev is {:#x}: neither EXCH nor LOCAL", event.ev);
                    return Err(self.error(found, CONVERT));
                }
            }
        };
        let wrong = |name: &str, ns: i64| {
            let fix = "nanoseconds since 1970 are expected";
            self.error(format!("{name} is {ns}"), fix)
        };
        if !is_stamp(event.local_ts) {
            return Err(wrong("local_ts", event.local_ts));
        }
        if !is_stamp(event.exch_ts) {
            return Err(wrong("exch_ts", event.exch_ts));
        }
        let what = self.what(&event)?;
        let row = Row {
            line: self.row,
            recv_ns: event.local_ts,
            venue_ns: event.exch_ts,
            update_id: 0,
            what,
        };
        let named = Named { venue: self.venue, exchange: self.venue.name(), symbol: &self.symbol };
        Ok(Some((named, row)))
    }

    fn place(&self, line: u64) -> Place {
        Place { path: self.path.clone(), line, is_row: true }
    }

    fn snapshots_replace(&self) -> bool {
        false
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }

    fn rounded(&self) -> u64 {
        self.rounded
    }
}

/// Reads an array's header; returns how many rows follow.
fn header(path: &Path, stream: &mut Stream) -> Result<u64, DataError> {
    let whole = "is the file whole? fetch or make it again";
    let mut read = |bytes: &mut [u8]| {
        stream.read_exact(bytes).map_err(|error| {
            DataError::file(path, format!("the array's header cannot be read: {error}"), whole)
        })
    };
    let mut head = [0; 8];
    read(&mut head)?;
    if !head.starts_with(b"\x93NUMPY") {
        return Err(DataError::file(path, "is no array of numpy", CONVERT));
    }
    let length = if head[6] == 1 {
        let mut bytes = [0; 2];
        read(&mut bytes)?;
        usize::from(u16::from_le_bytes(bytes))
    } else {
        let mut bytes = [0; 4];
        read(&mut bytes)?;
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    if HEADER_BYTES_MAX < length {
        let found = format!("the array's header has {length} bytes");
        return Err(DataError::file(path, found, whole));
    }
    let mut text = vec![0; length];
    read(&mut text)?;
    let text: String =
        String::from_utf8_lossy(&text).chars().filter(|c| !c.is_whitespace()).collect();
    let names = FIELDS.map(|(name, kind)| format!("('{name}','{kind}')"));
    let wanted = format!("'descr':[{}]", names.join(","));
    if !text.contains(&wanted) || !text.contains("'fortran_order':False") {
        let found = format!("the array is {}", shown(text.as_bytes()));
        return Err(DataError::file(path, found, CONVERT));
    }
    let shape = text.split("'shape':(").nth(1).and_then(|rest| rest.split(')').next());
    let rows = shape.and_then(|shape| shape.strip_suffix(',').unwrap_or(shape).parse().ok());
    rows.ok_or_else(|| {
        let found = format!("the array's shape is ({})", shape.unwrap_or_default());
        DataError::file(path, found, CONVERT)
    })
}
