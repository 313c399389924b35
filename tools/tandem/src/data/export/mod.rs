//! A journal, or an archive, in files for others.
//!
//! Invariant: a directory that is made is whole or not there (`place`); every record is read once, in order, in
//! bounded memory. What is missing in an archive is an error: an export has no holes that nobody knows of.
//!
//! Not here: the command line (`crate::cli::data`), tables for people (`crate::reports`).

mod csv;
mod events;
pub mod lake;
pub mod tape;

use std::path::Path;

use serde::Serialize;
use tandem_core::record::{Kind, Record};
use tandem_drain::run::{ConfigText, RunInfo};

use self::csv::Csv;
use self::events::Arrays;
use self::lake::Lake;
use self::tape::Tape;
use super::error::DataError;
use super::place::Making;
use crate::progress::Progress;
use crate::records::Records;
use crate::table;

/// Records between two looks at the clock of a progress bar.
const STEP: u64 = 4_096;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parquet by day, venue and kind.
    Parquet,
    /// Tardis' CSV.
    Csv,
    /// hftbacktest's arrays.
    Hftbacktest,
}

/// What was written.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Exported {
    /// Records read.
    pub records: u64,
    /// Files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// CSV: messages whose stamp was moved by microseconds, to stand apart from the one before.
    pub moved: u64,
    /// hftbacktest: events whose exchange stamp was moved to the one before.
    pub late: u64,
}

enum Out {
    Parquet(Box<Lake>),
    Csv(Tape, Csv),
    Hftbacktest(Tape, Arrays),
}

/// Writes the records at `from` to a new directory.
pub fn export(from: &Path, to: &Path, form: Form) -> Result<Exported, DataError> {
    let mut records = Records::strict(from)?;
    let making = Making::begin(to)?;
    let inside = making.inside();
    std::fs::create_dir_all(&inside).map_err(DataError::make(&inside, "make the directory"))?;
    let mut out = match form {
        Form::Parquet => Out::Parquet(Box::new(Lake::new(&inside, 0))),
        Form::Csv => Out::Csv(Tape::default(), Csv::new(&inside)),
        Form::Hftbacktest => Out::Hftbacktest(Tape::default(), Arrays::new(&inside)),
    };
    let mut exported = Exported::default();
    let (mut text, mut run): (ConfigText, Option<RunInfo>) = Default::default();
    let progress = Progress::count("records");
    while let Some(record) = records.next()? {
        exported.records += 1;
        if record.kind() == Some(Kind::Config)
            && let Some(text) = text.take(&record)
        {
            let told = text.and_then(|text| table::run_info(&text));
            let told = told.map_err(|error| {
                let found =
                    format!("the configuration that ends at record {}: {error}", record.seq);
                DataError::file(from, found, "export it with the build that wrote it")
            })?;
            begin_run(&mut out, &told);
            run = Some(told);
        }
        add(&mut out, &record, run.as_ref(), &mut exported)?;
        if exported.records.is_multiple_of(STEP) {
            progress.add(STEP);
        }
    }
    progress.end();
    if run.is_none() {
        let found = "no configuration in it: what its numbers mean is not known";
        return Err(DataError::file(from, found, "export from the journal's first record on"));
    }
    match out {
        Out::Parquet(lake) => lake.finish(&mut exported)?,
        Out::Csv(_, csv) => csv.finish(&mut exported)?,
        Out::Hftbacktest(_, arrays) => arrays.finish(&mut exported)?,
    }
    making.finish()?;
    Ok(exported)
}

fn begin_run(out: &mut Out, run: &RunInfo) {
    match out {
        Out::Parquet(lake) => lake.begin_run(run),
        Out::Csv(tape, _) | Out::Hftbacktest(tape, _) => tape.renew(run),
    }
}

fn add(
    out: &mut Out,
    record: &Record,
    run: Option<&RunInfo>,
    exported: &mut Exported,
) -> Result<(), DataError> {
    match (out, run) {
        (Out::Parquet(lake), run) => lake.add(record, run),
        (Out::Csv(tape, csv), Some(run)) => {
            tape.take(record, |instrument, message| csv.add(run, instrument, message, exported))
        }
        (Out::Hftbacktest(tape, arrays), Some(run)) => {
            tape.take(record, |instrument, message| arrays.add(run, instrument, message))
        }
        (_, None) => Ok(()),
    }
}

/// A symbol as a part of a file's name.
fn file_name(symbol: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    symbol.chars().map(plain).collect()
}
