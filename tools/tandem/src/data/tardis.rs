//! Tardis CSV: `incremental_book_L2`, `trades`, `quotes` and `book_ticker`, plain or gzip.
//!
//! Stamps are microseconds UTC: the exchange's, which repeats ours where it told none, and ours. Rows with one
//! `local_timestamp` are one message. A snapshot row after an update that was none begins a new book; amounts are
//! absolute and 0 removes. The side of a trade is the taker's. (docs.tardis.dev, data types, read 2026-11.)
//!
//! Not here: which rows make a message (`merge`), stamps that cannot be (`clocks`).

use std::path::Path;

use tandem_core::record::Venue;
use tandem_core::units::Side;

use super::bytes::{Lines, fields, whole};
use super::error::{DataError, Place, shown};
use super::number::Number;
use super::row::{Named, Resting, Row, Rows, What, is_stamp};

/// First line of each kind of file.
const BOOK: &str = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount";
const TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount";
const QUOTES: &str =
    "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount";
/// Longest symbol that is believed.
const SYMBOL_BYTES_MAX: usize = 40;

/// Returns whether a first line is one of Tardis'.
#[must_use]
pub fn is_header(line: &[u8]) -> bool {
    line.starts_with(b"exchange,symbol,timestamp,local_timestamp,")
}

/// What a file has rows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Book,
    Trades,
    Quotes,
}

/// One file.
pub struct Tardis {
    lines: Lines,
    kind: Kind,
    exchange: String,
    venue: Venue,
    symbol: String,
}

fn venue(exchange: &str) -> Option<Venue> {
    match exchange {
        "binance" | "binance-us" => Some(Venue::Binance),
        "coinbase" => Some(Venue::Coinbase),
        "kraken" => Some(Venue::Kraken),
        _ => None,
    }
}

impl Tardis {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Tardis, DataError> {
        let mut lines = Lines::open(path, |name| name.ends_with(".csv"))?;
        if !lines.advance()? {
            return Err(DataError::file(
                path,
                "is empty",
                "leave it out: there was no data that day",
            ));
        }
        let kind = match lines.text() {
            text if text == BOOK.as_bytes() => Kind::Book,
            text if text == TRADES.as_bytes() => Kind::Trades,
            text if text == QUOTES.as_bytes() => Kind::Quotes,
            text => {
                let found = format!("the columns are {}", shown(text));
                let fix = "give incremental_book_L2, trades, quotes or book_ticker as Tardis \
                           serves them, with the first line";
                return Err(lines.error(found, fix));
            }
        };
        let (exchange, symbol) = (String::new(), String::new());
        Ok(Tardis { lines, kind, exchange, venue: Venue::Binance, symbol })
    }

    fn wrong(&self, what: &str, text: &[u8], fix: &str) -> DataError {
        self.lines.error(format!("{what} is {}", shown(text)), fix)
    }

    fn name(&mut self, exchange: &[u8], symbol: &[u8]) -> Result<(), DataError> {
        if exchange != self.exchange.as_bytes() {
            let text = std::str::from_utf8(exchange).unwrap_or("");
            let fix = "binance, binance-us, coinbase and kraken are read";
            let venue = venue(text).ok_or_else(|| self.wrong("exchange", exchange, fix))?;
            (self.exchange, self.venue) = (text.to_owned(), venue);
        }
        if symbol != self.symbol.as_bytes() {
            let is_symbol = |byte: &u8| byte.is_ascii_graphic();
            let length = symbol.len();
            if length == 0 || SYMBOL_BYTES_MAX < length || !symbol.iter().all(is_symbol) {
                return Err(self.wrong("symbol", symbol, "give the venue's own symbol"));
            }
            self.symbol = String::from_utf8_lossy(symbol).into_owned();
        }
        Ok(())
    }

    fn stamp(&self, what: &str, text: &[u8]) -> Result<i64, DataError> {
        let ns = whole(text).and_then(|us| us.checked_mul(1_000)).filter(|ns| is_stamp(*ns));
        ns.ok_or_else(|| self.wrong(what, text, "microseconds since 1970 are expected"))
    }

    fn number(&self, what: &str, text: &[u8]) -> Result<Number, DataError> {
        let fix = "a decimal number without a sign is expected, of at most 18 digits";
        Number::read(text).ok_or_else(|| self.wrong(what, text, fix))
    }

    fn px(&self, text: &[u8]) -> Result<Number, DataError> {
        let px = self.number("price", text)?;
        match px.is_zero() {
            true => Err(self.wrong("price", text, "a price is above 0: leave the line out")),
            false => Ok(px),
        }
    }

    /// One side of a quote: empty cells, or an amount of 0, are an empty side.
    fn resting(&self, px: &[u8], qty: &[u8]) -> Result<Option<Resting>, DataError> {
        if px.is_empty() && qty.is_empty() {
            return Ok(None);
        }
        let qty = self.number("amount", qty)?;
        if qty.is_zero() {
            return Ok(None);
        }
        Ok(Some(Resting { px: self.px(px)?, qty }))
    }

    fn what(&self, [a, b, c, d]: [&[u8]; 4]) -> Result<What, DataError> {
        match self.kind {
            Kind::Book => {
                let snapshot = match a {
                    b"true" => true,
                    b"false" => false,
                    _ => return Err(self.wrong("is_snapshot", a, "true or false is expected")),
                };
                let side = match b {
                    b"bid" => Side::Bid,
                    b"ask" => Side::Ask,
                    _ => return Err(self.wrong("side", b, "bid or ask is expected")),
                };
                let at = Resting { px: self.px(c)?, qty: self.number("amount", d)? };
                Ok(What::Level { side, at, snapshot })
            }
            Kind::Trades => {
                let taken = match b {
                    b"buy" => Some(Side::Ask),
                    b"sell" => Some(Side::Bid),
                    b"unknown" | b"" => None,
                    _ => return Err(self.wrong("side", b, "buy, sell or unknown is expected")),
                };
                let at = Resting { px: self.px(c)?, qty: self.number("amount", d)? };
                Ok(What::Trade { at, taken, id: trade_id(a) })
            }
            Kind::Quotes => Ok(What::Quote([self.resting(c, d)?, self.resting(b, a)?])),
        }
    }
}

/// The venue's number, or one made of its text, which no number of a venue is.
fn trade_id(text: &[u8]) -> u64 {
    match whole(text) {
        Some(number) => number.unsigned_abs(),
        None if text.is_empty() => 0,
        None => tandem_shm::fnv1a(text) | 1 << 63,
    }
}

impl Rows for Tardis {
    fn next(&mut self) -> Result<Option<(Named<'_>, Row)>, DataError> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        // Taken out for the while, so that names may be kept meanwhile.
        let text = self.lines.take_text();
        let Some([exchange, symbol, venue_us, recv_us, a, b, c, d]) = fields::<8>(&text) else {
            let count = text.split(|byte| *byte == b',').count();
            let found = format!("{count} columns in {}", shown(&text));
            return Err(self.lines.error(found, "eight are expected; is the file whole?"));
        };
        self.name(exchange, symbol)?;
        let recv_ns = self.stamp("local_timestamp", recv_us)?;
        // Where the exchange told no time, Tardis repeats ours.
        let told = self.stamp("timestamp", venue_us)?;
        let venue_ns = if told == recv_ns { 0 } else { told };
        let what = self.what([a, b, c, d])?;
        let line = self.lines.line();
        self.lines.put_text(text);
        let named = Named { venue: self.venue, exchange: &self.exchange, symbol: &self.symbol };
        Ok(Some((named, Row { line, recv_ns, venue_ns, update_id: 0, what })))
    }

    fn place(&self, line: u64) -> Place {
        self.lines.place(line)
    }
}
