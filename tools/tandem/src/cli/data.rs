//! `journal import` and `journal export`: other people's files into a journal, a journal into files for others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Done, Failure, Outcome, print, print_json};
use crate::data::clocks::duration;
use crate::data::instruments::{Key, key};
use crate::data::number::Number;
use crate::data::{self, DataError, Fees, Format, ImportReport, Input, Options};

/// What tells apart wrong options, wrong data and what cannot be made.
fn failure(error: DataError) -> Failure {
    match &error {
        DataError::Options(_) => Failure::usage(error),
        DataError::Journal(tandem_shm::JournalError::Missing { .. }) => Failure::unreachable(error),
        _ => Failure::failed(error),
    }
}

/// The format of files to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FromName {
    Captures,
    Tardis,
    Hftbacktest,
    BinanceCsv,
    Parquet,
}

impl FromName {
    const fn format(self) -> Format {
        match self {
            FromName::Captures => Format::Captures,
            FromName::Tardis => Format::Tardis,
            FromName::Hftbacktest => Format::Hftbacktest,
            FromName::BinanceCsv => Format::BinanceCsv,
            FromName::Parquet => Format::Parquet,
        }
    }
}

/// What to import, and how.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// Files that say themselves of which instrument they are; or one directory that `export --format parquet` made.
    #[arg(required_unless_present = "instrument")]
    files: Vec<PathBuf>,
    /// Directory of the new journal; whole, or not there.
    #[arg(long)]
    to: PathBuf,
    /// Their format; guessed from each file, and said, where it is not given.
    #[arg(long)]
    from: Option<FromName>,
    /// A file of one instrument that does not say which; repeat it for more files, also of the same instrument.
    #[arg(long, value_name = "VENUE:SYMBOL=FILE")]
    instrument: Vec<String>,
    /// Smallest price move; default: the finest place in the files.
    #[arg(long, value_name = "VENUE:SYMBOL=STEP")]
    tick: Vec<String>,
    /// Smallest quantity move; default: the finest place in the files.
    #[arg(long, value_name = "VENUE:SYMBOL=STEP")]
    lot: Vec<String>,
    /// Base and quote of a symbol that does not tell them.
    #[arg(long, value_name = "VENUE:SYMBOL=BASE/QUOTE")]
    pair: Vec<String>,
    /// Puts stamps right that cannot be, and says what it did: a venue's stamps are moved back until the least
    /// latency is --latency-min-us, rows are put in order, what is told twice is left out.
    #[arg(long)]
    correct_clocks: bool,
    /// Least time from a venue's stamp to receipt after that, µs.
    #[arg(long, value_name = "US", default_value_t = 0, requires = "correct_clocks",
          value_parser = clap::value_parser!(i64).range(0..=60_000_000))]
    latency_min_us: i64,
    /// How late a row may be to be put in order, ms.
    #[arg(long, value_name = "MS", default_value_t = 1_000, requires = "correct_clocks",
          value_parser = clap::value_parser!(i64).range(0..=3_600_000))]
    reorder_ms: i64,
    /// Time from event to receipt where a file has no receipts (Binance's), µs.
    #[arg(long, value_name = "US", default_value_t = 0,
          value_parser = clap::value_parser!(i64).range(0..=60_000_000))]
    assume_latency_us: i64,
    /// A book of which there is no snapshot was empty before its first change.
    #[arg(long)]
    start_empty: bool,
    /// Best levels a side that the engine sees.
    #[arg(long, value_name = "LEVELS", default_value_t = 400,
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    window_levels: u32,
    /// Taker fee on every leg.
    #[arg(long, default_value_t = 0)]
    taker_fee_ppm: i32,
    /// Smallest net edge.
    #[arg(long, default_value_t = 0)]
    edge_min_ppm: i32,
    /// Slippage buffer per leg.
    #[arg(long, default_value_t = 0)]
    slippage_ppm: i32,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Splits `VENUE:SYMBOL=REST`.
fn named(text: &str, option: &str, rest: &str) -> Result<(Key, String), Failure> {
    let wrong = || {
        let example = "binance, coinbase or kraken, its symbol";
        Failure::usage(format!("--{option} {text}: VENUE:SYMBOL={rest} is expected ({example})"))
    };
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((key(name).ok_or_else(wrong)?, value.to_owned()))
}

fn steps(texts: &[String], option: &str) -> Result<BTreeMap<Key, Number>, Failure> {
    let mut steps = BTreeMap::new();
    for text in texts {
        let (key, value) = named(text, option, "STEP")?;
        let step = Number::read(value.as_bytes()).filter(|step| !step.is_zero());
        let step = step.ok_or_else(|| {
            Failure::usage(format!("--{option} {text}: a decimal number above 0 is expected"))
        })?;
        steps.insert(key, step);
    }
    Ok(steps)
}

impl ImportArgs {
    fn inputs(&self) -> Result<Vec<Input>, Failure> {
        let plain = |path: &PathBuf| Input { path: path.clone(), instrument: None };
        let mut inputs: Vec<Input> = self.files.iter().map(plain).collect();
        for text in &self.instrument {
            let (key, path) = named(text, "instrument", "FILE")?;
            inputs.push(Input { path: path.into(), instrument: Some(key) });
        }
        for (idx, input) in inputs.iter().enumerate() {
            if inputs[..idx].iter().any(|other| other.path == input.path) {
                let path = input.path.display();
                return Err(Failure::usage(format!("{path}: named twice; name it once")));
            }
        }
        Ok(inputs)
    }

    fn options(&self) -> Result<Options, Failure> {
        let mut pairs = BTreeMap::new();
        for text in &self.pair {
            let (key, value) = named(text, "pair", "BASE/QUOTE")?;
            let pair = value.split_once('/').filter(|(base, quote)| {
                let is_name = |name: &str| {
                    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
                };
                base != quote && is_name(base) && is_name(quote)
            });
            let (base, quote) = pair.ok_or_else(|| {
                Failure::usage(format!("--pair {text}: BASE/QUOTE is expected, two assets"))
            })?;
            pairs.insert(key, (base.to_owned(), quote.to_owned()));
        }
        Ok(Options {
            from: self.from.map(FromName::format),
            fees: Fees {
                taker_fee_ppm: self.taker_fee_ppm,
                edge_min_ppm: self.edge_min_ppm,
                slippage_ppm: self.slippage_ppm,
            },
            ticks: steps(&self.tick, "tick")?,
            lots: steps(&self.lot, "lot")?,
            pairs,
            correct_clocks: self.correct_clocks,
            latency_min_ns: self.latency_min_us * 1_000,
            reorder_ns: self.reorder_ms * 1_000_000,
            assumed_latency_ns: self.assume_latency_us * 1_000,
            start_empty: self.start_empty,
            window_levels: self.window_levels as usize,
        })
    }
}

/// `tandem journal import`.
pub fn import(args: &ImportArgs) -> Done {
    let report = data::import(&args.inputs()?, &args.to, &args.options()?).map_err(failure)?;
    if args.json {
        print_json(&report);
    } else {
        tell(&report, &args.to);
    }
    Ok(Outcome::Ok)
}

fn tell(report: &ImportReport, to: &Path) {
    let [cross_venue, triangular, cross_quote] = report.opportunities;
    print(format_args!(
        "{}: {} messages, {} records, opportunities: {cross_venue} cross-venue, {triangular} \
         triangular, {cross_quote} cross-quote",
        to.display(),
        report.messages,
        report.records,
    ));
    for file in &report.files {
        let latency = file.latency_min_ns.map_or("none".to_owned(), duration);
        print(format_args!(
            "{}: {}, {} rows, least latency {latency}",
            file.path.display(),
            file.format,
            file.rows,
        ));
    }
    if report.crossed != 0 {
        print(format_args!("{} messages left a book crossed or locked", report.crossed));
    }
    report.notes.iter().for_each(print);
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ToName {
    /// The journal's segments as they are.
    #[value(alias = "segments")]
    Journal,
    /// Parquet: day=…/venue=…/kind=…/part-N.parquet.
    Parquet,
    /// Tardis' CSV, two files an instrument.
    Csv,
    /// hftbacktest's npz, one an instrument.
    Hftbacktest,
    /// Every record as a line of JSON, one file.
    Jsonl,
    /// Every record as a line of CSV, one file.
    RecordsCsv,
}

/// What to export, and where to.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Directory of a journal, an archive, or a journal's folder in one (journal: of a journal alone).
    path: PathBuf,
    /// Directory to make (jsonl and records-csv: file); it must not be there.
    #[arg(long, visible_alias = "to", value_name = "DIR")]
    out: PathBuf,
    /// What to write.
    #[arg(long, default_value = "journal")]
    format: ToName,
    /// As JSON: what was written (parquet, csv and hftbacktest).
    #[arg(long)]
    json: bool,
}

/// `tandem journal export`.
pub fn export(args: &ExportArgs) -> Done {
    let form = match args.format {
        ToName::Parquet => data::export::Form::Parquet,
        ToName::Csv => data::export::Form::Csv,
        ToName::Hftbacktest => data::export::Form::Hftbacktest,
        ToName::Journal => return super::journal::copy(&args.path, &args.out),
        ToName::Jsonl => return super::journal::lines(&args.path, &args.out, true),
        ToName::RecordsCsv => return super::journal::lines(&args.path, &args.out, false),
    };
    let exported = data::export::export(&args.path, &args.out, form).map_err(failure)?;
    if args.json {
        print_json(&exported);
        return Ok(Outcome::Ok);
    }
    print(format_args!(
        "{}: {} records, {} rows in {} files",
        args.out.display(),
        exported.records,
        exported.rows,
        exported.files,
    ));
    if exported.moved != 0 {
        let count = exported.moved;
        print(format_args!("{count} messages were told some microseconds later, to stand apart"));
    }
    if exported.late != 0 {
        let count = exported.late;
        print(format_args!("{count} events came later by the exchange's stamp than is waited for"));
    }
    Ok(Outcome::Ok)
}
