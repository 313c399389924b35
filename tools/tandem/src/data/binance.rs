//! Binance's public data: `bookTicker`, `aggTrades` and `trades` as CSV, plain or zip, with or without a first line
//! that names the columns.
//!
//! Stamps are milliseconds, of spot files since 2025 microseconds: which is found by their size. Nothing was
//! received: the moment of receipt is the event's plus a latency that the importer is told. Symbol and kind are in
//! the file's name (`BTCUSDT-aggTrades-2026-11-01.zip`). (github.com/binance/binance-public-data, read 2026-11.)
//!
//! Not here: which rows make a message (`merge`).

use std::path::Path;

use tandem_core::record::Venue;
use tandem_core::units::Side;

use super::bytes::{Lines, fields, whole};
use super::error::{DataError, Place, shown};
use super::number::Number;
use super::row::{Named, Resting, Row, Rows, What, is_stamp};

/// What a file has rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    BookTicker,
    AggTrades,
    Trades,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::BookTicker, Kind::AggTrades, Kind::Trades];

    const fn name(self) -> &'static str {
        match self {
            Kind::BookTicker => "bookTicker",
            Kind::AggTrades => "aggTrades",
            Kind::Trades => "trades",
        }
    }

    /// What the first column is called where there is a line of names.
    const fn first_column(self) -> &'static str {
        match self {
            Kind::BookTicker => "update_id",
            Kind::AggTrades => "agg_trade_id",
            Kind::Trades => "id",
        }
    }
}

/// Returns whether a file's name or first line is one of Binance's public data.
#[must_use]
pub fn is_named(path: &Path, first_line: &[u8]) -> bool {
    let header = |kind: &Kind| {
        let name = kind.first_column().as_bytes();
        first_line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b","))
    };
    name_of(path).is_some() || Kind::ALL.iter().any(header)
}

/// Symbol and kind of a file's name: `BTCUSDT-aggTrades-2026-11-01.zip`.
fn name_of(path: &Path) -> Option<(String, Kind)> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.split(['-', '.']);
    let (symbol, kind) = (parts.next()?, parts.next()?);
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    Some((symbol.to_owned(), kind))
}

/// Units that a file's stamps may count.
const UNITS: [(&str, i64); 2] = [("milliseconds", 1_000_000), ("microseconds", 1_000)];

/// One file.
pub struct Binance {
    lines: Lines,
    kind: Kind,
    symbol: String,
    latency_ns: i64,
    unit: Option<(&'static str, i64)>,
    /// The first line was read and is one of data.
    is_pending: bool,
}

impl Binance {
    /// Opens a file; `symbol` where the name does not say it, `latency_ns` from event to receipt.
    pub fn open(path: &Path, symbol: Option<&str>, latency_ns: i64) -> Result<Binance, DataError> {
        let mut lines = Lines::open(path, |name| name.ends_with(".csv"))?;
        if !lines.advance()? {
            return Err(DataError::file(path, "is empty", "leave it out"));
        }
        let named = name_of(path);
        let header = Kind::ALL.into_iter().find(|kind| {
            let name = kind.first_column().as_bytes();
            lines.text().strip_prefix(name).is_some_and(|rest| rest.starts_with(b","))
        });
        let Some(kind) = named.as_ref().map(|(_, kind)| *kind).or(header) else {
            let fix = "name it as Binance does (BTCUSDT-aggTrades-2026-11-01.csv), or keep the \
                       line that names the columns";
            return Err(DataError::file(path, "does not say what it has rows of", fix));
        };
        let symbol = symbol.map(str::to_owned).or(named.map(|(symbol, _)| symbol));
        let Some(symbol) = symbol.filter(|symbol| !symbol.is_empty()) else {
            let fix = format!("say so: --instrument binance:SYMBOL={}", path.display());
            return Err(DataError::file(path, "does not say of which symbol it is", fix));
        };
        let is_pending = lines.text().first().is_some_and(u8::is_ascii_digit);
        if !is_pending && header != Some(kind) {
            let found = format!("the columns are {}", shown(lines.text()));
            let fix = format!("{} begins with `{}`", kind.name(), kind.first_column());
            return Err(lines.error(found, fix));
        }
        Ok(Binance { lines, kind, symbol, latency_ns, unit: None, is_pending })
    }

    fn wrong(&self, what: &str, text: &[u8], fix: &str) -> DataError {
        self.lines.error(format!("{what} is {}", shown(text)), fix)
    }

    fn stamp(&mut self, what: &str, text: &[u8]) -> Result<i64, DataError> {
        let count = whole(text);
        let unit = UNITS.into_iter().find_map(|unit| {
            let ns = count?.checked_mul(unit.1)?;
            is_stamp(ns).then_some((ns, unit))
        });
        let Some((ns, unit)) = unit else {
            let fix = "milliseconds or microseconds since 1970 are expected";
            return Err(self.wrong(what, text, fix));
        };
        match self.unit.replace(unit) {
            Some(before) if before != unit => {
                let found = format!("counts {}, the lines before {}", unit.0, before.0);
                let what = format!("{what} {} {found}", shown(text));
                Err(self.lines.error(what, "import what has one unit by itself"))
            }
            _ => Ok(ns),
        }
    }

    fn id(&self, what: &str, text: &[u8]) -> Result<u64, DataError> {
        let id = whole(text).and_then(|id| u64::try_from(id).ok());
        id.ok_or_else(|| self.wrong(what, text, "a whole number is expected"))
    }

    fn number(&self, what: &str, text: &[u8]) -> Result<Number, DataError> {
        let fix = "a decimal number without a sign is expected, of at most 18 digits";
        Number::read(text).ok_or_else(|| self.wrong(what, text, fix))
    }

    fn resting(&self, px: &[u8], qty: &[u8]) -> Result<Resting, DataError> {
        let at = Resting { px: self.number("price", px)?, qty: self.number("quantity", qty)? };
        match at.px.is_zero() {
            true => Err(self.wrong("price", px, "a price is above 0: leave the line out")),
            false => Ok(at),
        }
    }

    /// A side of the book: none where nothing rests there.
    fn best(&self, px: &[u8], qty: &[u8]) -> Result<Option<Resting>, DataError> {
        match self.number("quantity", qty)?.is_zero() {
            true => Ok(None),
            false => self.resting(px, qty).map(Some),
        }
    }

    /// The side of the book that was taken: a buyer who was the maker rested on the bid.
    fn taken(&self, text: &[u8]) -> Result<Side, DataError> {
        match text {
            b"True" | b"true" | b"TRUE" => Ok(Side::Bid),
            b"False" | b"false" | b"FALSE" => Ok(Side::Ask),
            _ => Err(self.wrong("is_buyer_maker", text, "true or false is expected")),
        }
    }

    fn columns(&self, text: &[u8], expected: &str) -> DataError {
        let count = text.split(|byte| *byte == b',').count();
        let found = format!("{count} columns in {}", shown(text));
        let fix = format!("{} has {expected}; is the file whole?", self.kind.name());
        self.lines.error(found, fix)
    }

    fn row(&mut self, text: &[u8]) -> Result<Row, DataError> {
        let line = self.lines.line();
        let columns = text.split(|byte| *byte == b',').count();
        match self.kind {
            Kind::BookTicker => {
                let Some([id, bid, bid_qty, ask, ask_qty, traded, event]) = fields::<7>(text)
                else {
                    return Err(self.columns(text, "7"));
                };
                let venue_ns = self.stamp("transaction_time", traded)?;
                let event_ns = self.stamp("event_time", event)?;
                let what = What::Quote([self.best(bid, bid_qty)?, self.best(ask, ask_qty)?]);
                let update_id = self.id("update_id", id)?;
                let recv_ns = event_ns.saturating_add(self.latency_ns);
                Ok(Row { line, recv_ns, venue_ns, update_id, what })
            }
            Kind::AggTrades | Kind::Trades => {
                let (place, expected) = match self.kind {
                    // Futures' files do not have the last column.
                    Kind::AggTrades => (5, [7, 8]),
                    _ => (4, [6, 7]),
                };
                if !expected.contains(&columns) {
                    let expected = format!("{} or {}", expected[0], expected[1]);
                    return Err(self.columns(text, &expected));
                }
                let field = |idx| text.split(|byte| *byte == b',').nth(idx).unwrap_or_default();
                let venue_ns = self.stamp("time", field(place))?;
                let at = self.resting(field(1), field(2))?;
                let taken = Some(self.taken(field(place + 1))?);
                let id = self.id("id", field(0))?;
                let what = What::Trade { at, taken, id };
                let recv_ns = venue_ns.saturating_add(self.latency_ns);
                Ok(Row { line, recv_ns, venue_ns, update_id: id, what })
            }
        }
    }
}

impl Rows for Binance {
    fn next(&mut self) -> Result<Option<(Named<'_>, Row)>, DataError> {
        if !std::mem::take(&mut self.is_pending) && !self.lines.advance()? {
            return Ok(None);
        }
        let text = self.lines.take_text();
        let row = self.row(&text)?;
        self.lines.put_text(text);
        let named = Named { venue: Venue::Binance, exchange: "binance", symbol: &self.symbol };
        Ok(Some((named, row)))
    }

    fn place(&self, line: u64) -> Place {
        self.lines.place(line)
    }
}
