//! Data in and out: recordings and other people's files into a journal, a journal into files for others.
//!
//! Invariant: what is imported is a journal like any other: it replays to the same outputs. A directory that is
//! made is whole or not there (`place`). Every file is read twice, as a stream: first everything is checked, then
//! it is taken; what is wrong is said with file, line and fix, and nothing is corrected unless asked for.
//!
//! Not here: what to do with a journal (`crate::replay`, `crate::cli`).

pub mod binance;
pub mod bytes;
pub mod captures;
pub mod clocks;
pub mod error;
pub mod export;
pub mod hftbacktest;
pub mod instruments;
pub mod lake;
pub mod merge;
pub mod number;
pub mod place;
pub mod recorder;
pub mod row;
pub mod tardis;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tandem_core::record::Venue;

pub use error::DataError;
pub use recorder::{Recorded, Recorder};

use self::bytes::{Lines, Packed};
use self::clocks::{Checker, FileReport};
use self::instruments::{Instruments, Key};
use self::merge::{Corrections, Merge};
use self::number::Number;
use self::place::Making;
use self::row::Rows;
use crate::table::Table;

/// Detection of an import: everything free unless said, so that what is found is what the books say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fees {
    /// Taker fee on every leg.
    pub taker_fee_ppm: i32,
    /// Smallest net edge.
    pub edge_min_ppm: i32,
    /// Slippage buffer per leg.
    pub slippage_ppm: i32,
}

/// The formats that are imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Messages as venues sent them, one JSON object a line.
    Captures,
    /// Tardis CSV.
    Tardis,
    /// hftbacktest npz.
    Hftbacktest,
    /// Binance's public data.
    BinanceCsv,
    /// Our own export in Parquet: one directory.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 5] = [
        Format::Captures,
        Format::Tardis,
        Format::Hftbacktest,
        Format::BinanceCsv,
        Format::Parquet,
    ];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Captures => "captures",
            Format::Tardis => "tardis",
            Format::Hftbacktest => "hftbacktest",
            Format::BinanceCsv => "binance-csv",
            Format::Parquet => "parquet",
        }
    }

    /// Returns the format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Guesses a file's format from its first bytes, its first line and its name.
    pub fn guess(path: &Path) -> Result<Format, DataError> {
        let fix = "say which it is with --from, or give a file of one of those";
        let formats = "Tardis CSV, an hftbacktest npz, Binance's public CSV nor a capture";
        let unknown =
            |found: &str| DataError::file(path, format!("{found}: it is neither {formats}"), fix);
        if lake::is_lake(path) {
            return Ok(Format::Parquet);
        }
        let (_, packed) = bytes::open(path)?;
        match packed {
            Packed::Npy => return Ok(Format::Hftbacktest),
            Packed::Zip => {
                let names = bytes::entries(path)?;
                let any = |end: &str| names.iter().any(|name| name.ends_with(end));
                return match (any(".npy"), any(".csv")) {
                    (true, _) => Ok(Format::Hftbacktest),
                    (false, true) => Ok(Format::BinanceCsv),
                    (false, false) => Err(unknown("an archive without an array or a CSV")),
                };
            }
            Packed::Plain | Packed::Gzip => {}
        }
        let mut lines = Lines::open_long(path)?;
        if !lines.advance()? {
            return Err(DataError::file(path, "is empty", "leave it out"));
        }
        match lines.text() {
            text if text.starts_with(b"{") => Ok(Format::Captures),
            text if tardis::is_header(text) => Ok(Format::Tardis),
            text if binance::is_named(path, text) => Ok(Format::BinanceCsv),
            text => Err(unknown(&format!("begins with {}", error::shown(text)))),
        }
    }
}

/// A file to import.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file.
    pub path: PathBuf,
    /// Which instrument it is of, where the file does not say it.
    pub instrument: Option<Key>,
}

/// How files are imported.
#[derive(Clone, Debug)]
pub struct Options {
    /// Their format; guessed where none is given.
    pub from: Option<Format>,
    /// Detection.
    pub fees: Fees,
    /// Smallest price moves, where the files do not show them.
    pub ticks: BTreeMap<Key, Number>,
    /// Smallest quantity moves.
    pub lots: BTreeMap<Key, Number>,
    /// Base and quote, where the symbol does not tell them.
    pub pairs: BTreeMap<Key, (String, String)>,
    /// Stamps that cannot be are put right.
    pub correct_clocks: bool,
    /// Least latency after that, ns.
    pub latency_min_ns: i64,
    /// How late a row may be to be put in order, ns.
    pub reorder_ns: i64,
    /// From event to receipt, of files that have no receipts, ns.
    pub assumed_latency_ns: i64,
    /// A book without a snapshot was empty before its first change.
    pub start_empty: bool,
    /// Best levels a side that the engine sees.
    pub window_levels: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            from: None,
            fees: Fees::default(),
            ticks: BTreeMap::new(),
            lots: BTreeMap::new(),
            pairs: BTreeMap::new(),
            correct_clocks: false,
            latency_min_ns: 0,
            reorder_ns: 1_000_000_000,
            assumed_latency_ns: 0,
            start_empty: false,
            window_levels: 400,
        }
    }
}

/// What an import made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ImportReport {
    /// Messages taken.
    pub messages: u64,
    /// Records in the journal.
    pub records: u64,
    /// Opportunities found, by kind: cross-venue, triangular, cross-quote.
    pub opportunities: [u64; 3],
    /// Instruments: `venue:symbol`.
    pub instruments: Vec<String>,
    /// Messages after which a book was crossed or locked.
    pub crossed: u64,
    /// What was found in each file.
    pub files: Vec<FileReport>,
    /// What was taken off each venue's stamps, ns.
    pub venue_shift_ns: BTreeMap<&'static str, i64>,
    /// What is good to know: what was guessed, assumed, left out or corrected.
    pub notes: Vec<String>,
}

/// Imports files into a new journal at `to`.
pub fn import(inputs: &[Input], to: &Path, options: &Options) -> Result<ImportReport, DataError> {
    let mut formats = Vec::new();
    for input in inputs {
        formats.push(match options.from {
            Some(format) => format,
            None => Format::guess(&input.path)?,
        });
    }
    let making = Making::begin(to)?;
    let all = |format| formats.iter().all(|known| *known == format);
    let any = |format| formats.contains(&format);
    let apart = |what: &str| {
        Err(DataError::Options(format!(
            "{what} cannot be imported with other files; import it apart"
        )))
    };
    let mut report = match inputs {
        [lake] if all(Format::Parquet) => {
            ImportReport::of(lake::import(&lake.path, &making.inside())?)
        }
        _ if any(Format::Parquet) => return apart("an export in Parquet"),
        _ if all(Format::Captures) => {
            let paths: Vec<PathBuf> = inputs.iter().map(|input| input.path.clone()).collect();
            ImportReport::of(captures::import(&paths, &making.inside(), options.fees)?)
        }
        _ if any(Format::Captures) => return apart("a capture"),
        _ => rows(inputs, &formats, &making.inside(), options)?,
    };
    making.finish()?;
    if options.from.is_none() {
        let mut count: BTreeMap<&str, u64> = BTreeMap::new();
        formats.iter().for_each(|format| *count.entry(format.name()).or_default() += 1);
        let told = count.iter().map(|(name, count)| format!("{name} ({count})"));
        let told = told.collect::<Vec<_>>().join(", ");
        report.notes.insert(0, format!("formats guessed from the files: {told}"));
    }
    Ok(report)
}

impl ImportReport {
    fn of(recorded: Recorded) -> ImportReport {
        let Recorded { messages, records, opportunities } = recorded;
        ImportReport { messages, records, opportunities, ..ImportReport::default() }
    }
}

/// Opens a file of rows.
fn open(input: &Input, format: Format, options: &Options) -> Result<Box<dyn Rows>, DataError> {
    let path = input.path.as_path();
    let wrong = |text: &str| {
        DataError::file(path, text, "leave the instrument out, or the venue is another")
    };
    Ok(match (format, &input.instrument) {
        (Format::Tardis, None) => Box::new(tardis::Tardis::open(path)?),
        (Format::Tardis, Some(_)) => return Err(wrong("says itself of which instruments it is")),
        (Format::Hftbacktest, Some((venue, symbol))) => {
            Box::new(hftbacktest::Events::open(path, *venue, symbol)?)
        }
        (Format::Hftbacktest, None) => {
            let fix = format!("say so: --instrument VENUE:SYMBOL={}", path.display());
            return Err(DataError::file(path, "does not say of which instrument it is", fix));
        }
        (Format::BinanceCsv, Some((venue, _))) if *venue != Venue::Binance => {
            return Err(wrong("is Binance's"));
        }
        (Format::BinanceCsv, instrument) => {
            let symbol = instrument.as_ref().map(|(_, symbol)| symbol.as_str());
            Box::new(binance::Binance::open(path, symbol, options.assumed_latency_ns)?)
        }
        (Format::Captures | Format::Parquet, _) => return Err(wrong("is not of rows")),
    })
}

/// Imports files of rows: all are checked, then all are taken.
fn rows(
    inputs: &[Input],
    formats: &[Format],
    inside: &Path,
    options: &Options,
) -> Result<ImportReport, DataError> {
    let mut instruments = Instruments::default();
    let (mut files, mut latency_min): (Vec<FileReport>, [Option<i64>; 3]) = (Vec::new(), [None; 3]);
    for (input, format) in inputs.iter().zip(formats) {
        let (found, venue) = check(input, *format, options, &mut instruments)?;
        let known = &mut latency_min[venue.idx()];
        *known = match (*known, found.latency_min_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        files.push(found);
    }
    instruments.check(options)?;
    let is_row = |idx: usize| formats[idx] == Format::Hftbacktest;
    let refusals: Vec<String> =
        files.iter().enumerate().flat_map(|(idx, file)| file.refusals(is_row(idx))).collect();
    let mut corrections = Corrections::default();
    if options.correct_clocks {
        corrections = Corrections {
            venue_shift_ns: latency_min
                .map(|least| least.map_or(0, |ns| (options.latency_min_ns - ns).max(0))),
            reorder_ns: options.reorder_ns.max(0),
            drop_repeated: true,
        };
        late(&files, is_row, options)?;
    } else if !refusals.is_empty() {
        return Err(DataError::Clocks(refusals));
    }
    let table = Table::build(instruments.setup(options), "the files")?;
    let mut recorder = Recorder::begin(inside, &table)?;
    let sources: Result<Vec<_>, DataError> =
        inputs.iter().zip(formats).map(|(input, format)| open(input, *format, options)).collect();
    let merge = Merge::new(&table, &instruments, corrections, options.start_empty);
    let merged = merge.run(sources?, &mut recorder)?;
    let mut report = ImportReport::of(recorder.finish(merged.messages)?);
    for (file, count) in files.iter_mut().zip(merged.before_snapshot) {
        file.before_snapshot = count;
    }
    report.crossed = merged.crossed;
    let name = |listed: &instruments::Listed| format!("{}:{}", listed.venue.name(), listed.symbol);
    report.instruments = instruments.all().iter().map(name).collect();
    for venue in Venue::ALL {
        let shift = corrections.venue_shift_ns[venue.idx()];
        if shift != 0 {
            report.venue_shift_ns.insert(venue.name(), shift);
            let by = clocks::duration(shift);
            report.notes.push(format!("{}: its stamps were moved back by {by}", venue.name()));
        }
    }
    notes(&mut report.notes, &files, formats, options);
    report.files = files;
    Ok(report)
}

/// Reads a file once and looks at everything in it; returns its venue too.
fn check(
    input: &Input,
    format: Format,
    options: &Options,
    instruments: &mut Instruments,
) -> Result<(FileReport, Venue), DataError> {
    let mut rows = open(input, format, options)?;
    let (mut checker, mut venue) = (Checker::default(), None);
    checker.report.path.clone_from(&input.path);
    checker.report.format = format.name();
    loop {
        // Of which instrument it is must be known before a row is looked at: names live as long as the row.
        let Some((named, row)) = rows.next()? else { break };
        let known = venue.get_or_insert(named.venue);
        let (is_of_two, own) = (*known != named.venue, named.venue);
        let taken = instruments.take(&named, &row, options);
        let instrument = taken.map_err(|wrong| wrong.at(rows.place(row.line)))?;
        if is_of_two {
            let found = format!("is of {}, the rows above of another venue", own.name());
            let fix = "split the file by exchange".to_owned();
            return Err(DataError::Line { place: rows.place(row.line), found, fix });
        }
        instruments.met(instrument, || rows.place(row.line));
        checker.take(instrument, &row);
    }
    checker.report.rounded = rows.rounded();
    match venue {
        Some(venue) => Ok((checker.report, venue)),
        None => Err(DataError::file(&input.path, "has no rows", "leave it out")),
    }
}

/// Refuses what comes later than rows are kept waiting.
fn late(
    files: &[FileReport],
    is_row: impl Fn(usize) -> bool,
    options: &Options,
) -> Result<(), DataError> {
    for (idx, file) in files.iter().enumerate() {
        if options.reorder_ns < file.unordered.worst_ns {
            let late = clocks::duration(file.unordered.worst_ns);
            let ms = file.unordered.worst_ns.div_euclid(1_000_000) + 1;
            return Err(DataError::Line {
                place: error::Place {
                    path: file.path.clone(),
                    line: file.unordered.first_line,
                    is_row: is_row(idx),
                },
                found: format!(
                    "the first of {} rows out of order, the worst by {late}",
                    file.unordered.count
                ),
                fix: format!("sort the file, or give --reorder-ms {ms}"),
            });
        }
    }
    Ok(())
}

fn notes(notes: &mut Vec<String>, files: &[FileReport], formats: &[Format], options: &Options) {
    for (file, format) in files.iter().zip(formats) {
        let mut tell = |count: u64, what: &str| {
            if count != 0 {
                notes.push(format!("{}: {count} {what}", file.path.display()));
            }
        };
        if options.correct_clocks {
            tell(file.unordered.count, "rows were put in order");
            tell(file.repeated.count, "rows that were told a second time were left out");
        }
        tell(file.before_snapshot, "rows of a book before its first snapshot were left out");
        tell(file.rounded, "floats stood a rounding off their decimals");
        tell(file.venue_unordered.count, "rows go back in time by the venue's own clock");
        if *format == Format::BinanceCsv {
            let latency = clocks::duration(options.assumed_latency_ns);
            notes.push(format!(
                "{}: has no receipts: each is taken {latency} after its event (--assume-latency-us)",
                file.path.display()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::hftbacktest::Event;
    use super::*;

    /// Files of every format as they should be.
    fn good() -> Vec<(&'static str, Vec<u8>)> {
        let (t, r) = (1_767_225_600_000_000i64, 1_767_225_600_000_500i64);
        let tardis = format!(
            "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n\
             kraken,BTC/USD,{t},{r},true,bid,100.5,1\nkraken,BTC/USD,{t},{r},true,ask,101,1\n"
        );
        let binance =
            format!("1,65000.1,0.5,1,1,{t},True,True\n2,65000.2,0.5,2,2,{t},False,True\n");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(tardis.as_bytes()).expect("memory");
        let event = Event {
            ev: hftbacktest::kind::SNAPSHOT | hftbacktest::flag::LOCAL | hftbacktest::flag::BUY,
            exch_ts: t * 1_000,
            local_ts: r * 1_000,
            px: 100.5,
            qty: 1.0,
            ..Event::default()
        };
        let fields = hftbacktest::FIELDS.map(|(name, kind)| format!("('{name}', '{kind}')"));
        let fields = fields.join(", ");
        let text = format!("{{'descr': [{fields}], 'fortran_order': False, 'shape': (2,), }}\n");
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((text.len() as u16).to_le_bytes());
        npy.extend(text.bytes());
        npy.extend([event, event].as_bytes());
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("data.npy", options).expect("memory");
        zip.write_all(&npy).expect("memory");
        let zip = zip.finish().expect("memory").into_inner();
        vec![
            ("book.csv", tardis.into_bytes()),
            ("book.csv.gz", packed.finish().expect("memory")),
            ("BTCUSDT-aggTrades-1.csv", binance.into_bytes()),
            ("x.npy", npy),
            ("x.npz", zip),
        ]
    }

    /// Reads a file to its end or its first fault, in every format; returns how many rows it had in its own.
    fn read(path: &Path) -> Option<u64> {
        let key = (Venue::Binance, "BTCUSDT".to_owned());
        let guessed = Format::guess(path).ok();
        let mut found = None;
        for format in [Format::Tardis, Format::Hftbacktest, Format::BinanceCsv] {
            let instrument = (format != Format::Tardis).then(|| key.clone());
            let input = Input { path: path.to_owned(), instrument };
            let mut instruments = Instruments::default();
            let checked = check(&input, format, &Options::default(), &mut instruments);
            match checked {
                Ok((report, _)) if guessed == Some(format) => found = Some(report.rows),
                Ok(_) => {}
                Err(error) => assert!(error.to_string().contains("; "), "{error}"),
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Whatever a file holds, it is read in bounded time or refused with a fix, and nothing panics.
        #[test]
        fn damage_never_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let dir = std::env::temp_dir().join(format!("tandem-damage-{}", std::process::id()));
            fs::create_dir_all(&dir).expect("room");
            for (name, whole) in good() {
                let path = dir.join(name);
                fs::write(&path, &whole).expect("room");
                prop_assert_eq!(read(&path), Some(2), "{}", name);
                let mut bytes = whole;
                for (place, byte) in &changes {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                fs::write(&path, &bytes).expect("room");
                read(&path);
            }
            fs::remove_dir_all(&dir).expect("clean up");
        }
    }
}
