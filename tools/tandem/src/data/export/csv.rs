//! A journal as Tardis' CSV: `incremental_book_L2` and `trades`, gzip, one of each an instrument.
//!
//! Invariant: what is written is imported again to the same books after every message. Stamps are microseconds, so
//! two messages about a book in one microsecond are told one microsecond apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tandem_core::units::{Decimal, Side};
use tandem_drain::run::RunInfo;

use super::tape::{Message, Told};
use super::{Exported, file_name};
use crate::data::error::DataError;

const BOOK: &str = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n";
const TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";

/// A file in the making.
struct Out {
    path: PathBuf,
    to: GzEncoder<BufWriter<File>>,
}

impl Out {
    fn begin(path: PathBuf, header: &str) -> Result<Out, DataError> {
        let file = File::create(&path).map_err(DataError::make(&path, "make the file"))?;
        let mut out =
            Out { to: GzEncoder::new(BufWriter::new(file), Compression::default()), path };
        out.write(header)?;
        Ok(out)
    }

    fn write(&mut self, text: &str) -> Result<(), DataError> {
        self.to.write_all(text.as_bytes()).map_err(DataError::make(&self.path, "write"))
    }

    fn finish(self) -> Result<(), DataError> {
        let done = self.to.finish().and_then(|mut to| {
            to.flush()?;
            to.get_ref().sync_all()
        });
        done.map_err(DataError::make(&self.path, "write"))
    }
}

/// An instrument's files and where they stand.
#[derive(Default)]
struct Instrument {
    book: Option<Out>,
    trades: Option<Out>,
    last_us: i64,
    was_snapshot: bool,
    /// A level of the last snapshot.
    known: Option<Told>,
}

/// The files of a journal.
pub struct Csv {
    dir: PathBuf,
    instruments: BTreeMap<(u8, String), Instrument>,
}

impl Csv {
    /// Begins in an empty directory.
    #[must_use]
    pub fn new(dir: &Path) -> Csv {
        Csv { dir: dir.to_owned(), instruments: BTreeMap::new() }
    }

    /// Adds a message.
    pub fn add(
        &mut self,
        run: &RunInfo,
        instrument: u16,
        message: &Message,
        exported: &mut Exported,
    ) -> Result<(), DataError> {
        let Some(listed) = run.instruments.get(usize::from(instrument)) else { return Ok(()) };
        let (venue, symbol) = (listed.venue.name(), listed.symbol.as_str());
        let dir = &self.dir;
        let key = (listed.venue as u8, symbol.to_owned());
        let of = self.instruments.entry(key).or_default();
        let path = |kind: &str| dir.join(format!("{venue}_{kind}_{}.csv.gz", file_name(symbol)));
        let us = |ns: i64| ns.div_euclid(1_000);
        let px = |quanta| Decimal { quanta, exponent: listed.px_exponent };
        let qty = |quanta| Decimal { quanta, exponent: listed.qty_exponent };
        let recv_us = us(message.recv_ns);
        let venue_us = if message.venue_ns == 0 { recv_us } else { us(message.venue_ns) };
        if !message.trades.is_empty() {
            let out = match &mut of.trades {
                Some(out) => out,
                none => none.insert(Out::begin(path("trades"), TRADES)?),
            };
            for (at, size, taken, id) in &message.trades {
                let side = match taken {
                    Some(Side::Ask) => "buy",
                    Some(Side::Bid) => "sell",
                    None => "unknown",
                };
                let id = if *id == 0 { String::new() } else { id.to_string() };
                let (at, size) = (px(at.0), qty(size.0));
                out.write(&format!(
                    "{venue},{symbol},{venue_us},{recv_us},{id},{side},{at},{size}\n"
                ))?;
                exported.rows += 1;
            }
        }
        if message.levels.is_empty() {
            return Ok(());
        }
        let out = match &mut of.book {
            Some(out) => out,
            none => none.insert(Out::begin(path("incremental_book_L2"), BOOK)?),
        };
        let side_name = |side: Side| match side {
            Side::Bid => "bid",
            Side::Ask => "ask",
        };
        let mut book_us = recv_us.max(of.last_us + 1);
        if message.snapshot
            && of.was_snapshot
            && let Some((side, at, size)) = of.known
        {
            // A snapshot begins a book only after a change: one that changes nothing.
            let (side, at, size) = (side_name(side), px(at.0), qty(size.0));
            out.write(&format!(
                "{venue},{symbol},{venue_us},{book_us},false,{side},{at},{size}\n"
            ))?;
            exported.rows += 1;
            book_us += 1;
        }
        exported.moved += u64::from(book_us != recv_us);
        let venue_us = if message.venue_ns == 0 { book_us } else { venue_us };
        let snapshot = message.snapshot;
        for (side, at, size) in &message.levels {
            let (side, at, size) = (side_name(*side), px(at.0), qty(size.0));
            out.write(&format!(
                "{venue},{symbol},{venue_us},{book_us},{snapshot},{side},{at},{size}\n"
            ))?;
        }
        exported.rows += message.levels.len() as u64;
        of.last_us = book_us;
        of.was_snapshot = snapshot;
        of.known = message.levels.first().copied().filter(|_| snapshot);
        Ok(())
    }

    /// Ends all files.
    pub fn finish(self, exported: &mut Exported) -> Result<(), DataError> {
        for instrument in self.instruments.into_values() {
            for out in [instrument.book, instrument.trades].into_iter().flatten() {
                out.finish()?;
                exported.files += 1;
            }
        }
        Ok(())
    }
}
