//! `export`: fills for the taxman, disposals lot by lot, audit, ledger and opportunities, as CSV or Parquet.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::latch;
use crate::records::Origin;
use crate::reports::exports::{self, Exported, FillTable, Target};
use crate::reports::fills::{FillsError, Method, OpeningCosts};
use crate::reports::period::{Period, PeriodArgs};
use crate::reports::sheet::Format;
use crate::time::now_ns;

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Every fill, with proceeds, cost basis and gain.
    Fills,
    /// What the fills disposed of, a row for each lot.
    Disposals,
    /// Decisions and operators' acts: who, when, why.
    Audit,
    /// Every posting of the ledger.
    Ledger,
    /// Every opportunity with its verdict.
    Opportunities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Csv,
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LotsName {
    All,
    Venue,
}

/// What to export, and where to.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// fills, disposals, audit, ledger or opportunities.
    what: What,
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of a journal, an archive, or a journal's folder in one; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// csv (RFC 4180) or parquet (zstd; amounts DECIMAL(38, 18), times in nanoseconds UTC).
    #[arg(long, default_value = "csv")]
    format: FormatName,
    /// The file to make: whole, or not at all.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replaces a file that is there.
    #[arg(long)]
    force: bool,
    /// A calendar year, UTC.
    #[arg(long, conflicts_with_all = ["since", "until"])]
    year: Option<u32>,
    #[command(flatten)]
    period: PeriodArgs,
    /// fills and disposals: all lots of an asset together, or each venue's apart.
    #[arg(long, default_value = "all")]
    lots: LotsName,
    /// fills and disposals: what opening balances cost, CSV `asset,venue,quantity,cost,acquired_at`.
    #[arg(long, value_name = "FILE")]
    opening_cost: Option<PathBuf>,
    /// As JSON: what was exported.
    #[arg(long)]
    json: bool,
}

/// What tells apart a file that cannot be made and a journal that cannot be read.
fn failure(error: FillsError) -> Failure {
    match &error {
        FillsError::Journal(_) => Failure::unreachable(error),
        FillsError::Sheet(crate::reports::sheet::SheetError::Exists(_))
        | FillsError::Opening { .. } => Failure::usage(error),
        FillsError::Sheet(_) | FillsError::Numeraire { .. } => Failure::failed(error),
    }
}

/// `tandem export`.
pub fn run(args: &ExportArgs) -> Done {
    let config = match &args.journal {
        Some(_) => None,
        None => Some(args.config.load()?),
    };
    let origin = match (&args.journal, &config) {
        (Some(journal), _) => Origin::from(journal),
        (None, Some(config)) => Origin::of(config),
        (None, None) => return Err(Failure::usage("name a --journal or a --config")),
    };
    let period = match args.year {
        Some(year) => Period::year(year),
        None => Period::read(&args.period, now_ns()),
    };
    let format = match args.format {
        FormatName::Csv => Format::Csv,
        FormatName::Parquet => Format::Parquet,
    };
    let target = Target {
        path: &args.out,
        format,
        force: args.force,
        period: period.map_err(Failure::usage)?,
    };
    let of_fills = matches!(args.what, What::Fills | What::Disposals);
    if !of_fills && (args.opening_cost.is_some() || args.lots != LotsName::All) {
        return Err(Failure::usage("--lots and --opening-cost are for fills and disposals"));
    }
    let method = || -> Result<Method, FillsError> {
        let opening = match &args.opening_cost {
            Some(path) => OpeningCosts::read(path)?,
            None => OpeningCosts::default(),
        };
        Ok(Method { lots_by_venue: args.lots == LotsName::Venue, opening })
    };
    let log = config.as_ref().map(|config| config.run.state_dir.join(latch::LOG));
    let exported = match args.what {
        What::Fills => method().and_then(|m| exports::fills(origin, target, FillTable::Fills, m)),
        What::Disposals => {
            method().and_then(|m| exports::fills(origin, target, FillTable::Disposals, m))
        }
        What::Audit => exports::audit(origin, target, log.as_deref()),
        What::Ledger => exports::ledger(origin, target),
        What::Opportunities => exports::opportunities(origin, target),
    };
    tell(args, &exported.map_err(failure)?)
}

fn tell(args: &ExportArgs, exported: &Exported) -> Done {
    if args.json {
        print_json(exported);
    } else {
        print(format_args!("{}: {} rows", args.out.display(), exported.rows));
        exported.notes.iter().for_each(print);
        for problem in &exported.problems {
            eprintln!("tandem: {problem}");
        }
    }
    Ok(if exported.problems.is_empty() { Outcome::Ok } else { Outcome::Partial })
}
