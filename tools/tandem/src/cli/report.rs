//! `report`: one day, or one backtest, for people: as text, as HTML, as JSON.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tandem_shm::MetricValue;

use super::latency::tiles;
use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::backtest::{Options, Recording};
use crate::config::Config;
use crate::demo::{RunStats, percentiles};
use crate::records::Origin;
use crate::reports::backtest::{self, BacktestReportError, Found};
use crate::reports::daily::{self, Daily, StageLine};
use crate::reports::drift::side::Reader;
use crate::reports::drift::{self, DriftError, Side};
use crate::reports::page;
use crate::reports::period::{DAY_NS, Period, read_day};
use crate::reports::sheet::{SheetError, Whole};
use crate::table::Table;
use crate::time::now_ns;

/// Which report.
#[derive(Subcommand, Debug)]
pub enum ReportCommand {
    /// One UTC day: result and fees, opportunities, cost of one leg, latency, incidents, reconciliation.
    #[command(after_help = "Examples:
  tandem report daily                                today, of the configured run
  tandem report daily --day 2026-11-29 --html report.html
  tandem report daily --journal /var/lib/tandem/archive --day 2026-11-29 --json")]
    Daily(DailyArgs),
    /// A backtest: verdict, what a millisecond is worth, result, opportunities, lateness, inventory.
    #[command(after_help = "Examples:
  tandem report backtest out                         the figures on one line each
  tandem report backtest out --html report.html      one page that needs nothing else
  tandem report backtest out --html report.html --out-json report.json --force

DIR is what `tandem backtest --out DIR` wrote. Every number of the page is in the JSON, with the query that gives
it from outcome.json and sensitivity.json. Exit code 1: the run is void, something came from nowhere.")]
    Backtest(BacktestArgs),
    /// A live (or paper) journal beside the journal of its own backtest: every difference with its reason.
    #[command(after_help = "Examples:
  tandem report drift --live /var/lib/tandem/archive --day 2026-11-29 --html drift.html
  tandem report drift --live journal --backtest my.toml --unexplained-max 3
  tandem report drift --live journal --replayed replayed     what `tandem backtest --journal` wrote

Without --replayed the replay is made here, as deploy/drift.toml says: armed when the run was, orders as slow as they
were, nobody else in the way.

Rounds are paired by cycle and time, orders by leg, fills by price. A reason is a fact that differs between the
journals: a denial of that cycle at that time, depth that own orders hid, the book, a fee, funds, latency. Exit code 1:
more differences without one than --unexplained-max.")]
    Drift(DriftArgs),
}

/// Which two journals.
#[derive(Args, Debug)]
pub struct DriftArgs {
    /// What happened: a journal, an archive, or a journal's folder in one.
    #[arg(long, value_name = "JOURNAL")]
    live: PathBuf,
    /// What the backtest of it says: what `tandem backtest --journal` wrote; without it one is made.
    #[arg(long, value_name = "JOURNAL", conflicts_with_all = ["backtest", "day"])]
    replayed: Option<PathBuf>,
    /// What the replay assumes, in place of deploy/drift.toml.
    #[arg(long, value_name = "FILE")]
    backtest: Option<PathBuf>,
    /// One day of the journal, YYYY-MM-DD in UTC.
    #[arg(long)]
    day: Option<String>,
    /// Two of a cycle this far apart in time are still one.
    #[arg(long, value_name = "MS", default_value_t = drift::WINDOW_MS,
        value_parser = clap::value_parser!(i64).range(0..=3_600_000))]
    window_ms: i64,
    /// So many differences may be without a reason.
    #[arg(long, value_name = "N", default_value_t = 0)]
    unexplained_max: u64,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replaces a page that is there.
    #[arg(long, requires = "html")]
    force: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Which backtest, and in which form.
#[derive(Args, Debug)]
pub struct BacktestArgs {
    /// Folder with outcome.json and, perhaps, sensitivity.json.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes every figure of the page as JSON.
    #[arg(long, value_name = "FILE")]
    out_json: Option<PathBuf>,
    /// Replaces files that are there.
    #[arg(long)]
    force: bool,
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Which day, and in which form.
#[derive(Args, Debug)]
pub struct DailyArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Directory of a journal, an archive, or a journal's folder in one; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// The day, YYYY-MM-DD in UTC; default: the last one with records.
    #[arg(long)]
    day: Option<String>,
    /// Writes one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replaces a page that is there.
    #[arg(long, requires = "html")]
    force: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// `tandem report …`.
pub fn run(command: &ReportCommand) -> Done {
    match command {
        ReportCommand::Daily(args) => day(args),
        ReportCommand::Backtest(args) => of_backtest(args),
        ReportCommand::Drift(args) => of_drift(args),
    }
}

fn of_drift(args: &DriftArgs) -> Done {
    let read = |which: &'static str, path: &PathBuf| {
        Side::read(path).map_err(|error| Failure::unreachable(DriftError::Read { which, error }))
    };
    let whole = args.html.as_ref().map(|path| Whole::begin(path, args.force));
    let whole = whole.transpose().map_err(refused)?;
    let period = match &args.day {
        Some(day) => Period::day(read_day(day).map_err(Failure::usage)?),
        None => Period::ALL,
    };
    let live = Side::read_within(&args.live, period)
        .map_err(|error| Failure::unreachable(DriftError::Read { which: "--live", error }))?;
    let replayed = match &args.replayed {
        Some(path) => read("--replayed", path)?,
        None => replay(args, period)?,
    };
    let report = drift::drift(&live, &replayed, args.window_ms).map_err(Failure::usage)?;
    let page = drift::page(&report);
    if let (Some((whole, mut file)), Some(path)) = (whole, &args.html) {
        file.write_all(page::html(&page).as_bytes())
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        whole.finish(&file).map_err(refused)?;
    }
    match (args.json, &args.html) {
        (true, _) => print_json(&report),
        (false, Some(path)) => print(format_args!(
            "{}: {} differences without a reason",
            path.display(),
            report.unexplained
        )),
        (false, None) => print(page::text(&page).trim_end()),
    }
    Ok(if report.unexplained <= args.unexplained_max { Outcome::Ok } else { Outcome::Failed })
}

/// The live journal's own replay, made here.
fn replay(args: &DriftArgs, period: Period) -> Result<Side, Failure> {
    let failure = super::backtest::failure;
    let config = match &args.backtest {
        Some(path) => crate::backtest::load(path).map_err(failure)?,
        None => crate::backtest::drift_config().map_err(failure)?,
    };
    let recording = Recording::open(std::slice::from_ref(&args.live)).map_err(failure)?;
    let setup = recording.effective(&config).map_err(failure)?;
    let table = Table::build(setup, "the replay's configuration").map_err(Failure::failed)?;
    let (mut reader, mut wrong) = (Reader::of(table), None);
    let options = Options { period, ..Options::default() };
    let run = recording.run_told(
        &config,
        &options,
        Some(&mut |record| {
            if wrong.is_none() {
                wrong = reader.take(record).err();
            }
        }),
    );
    let run = run.map_err(failure)?;
    match (wrong, run.outcome.summary.is_conserved) {
        (Some(error), _) => Err(Failure::failed(error)),
        (None, false) => Err(Failure::failed("the replay is void: see `tandem backtest`")),
        (None, true) => Ok(reader.end()),
    }
}

fn of_backtest(args: &BacktestArgs) -> Done {
    let found = Found::read(&args.dir).map_err(|error| match error {
        BacktestReportError::Io { .. } => Failure::unreachable(error),
        BacktestReportError::Form { .. } => Failure::failed(error),
    })?;
    let report = backtest::report(&found);
    let json = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
    for (path, text) in [(&args.html, &report.html), (&args.out_json, &json)] {
        let Some(path) = path else { continue };
        let (whole, mut file) = Whole::begin(path, args.force).map_err(refused)?;
        file.write_all(text.as_bytes())
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        whole.finish(&file).map_err(refused)?;
    }
    if args.json {
        print_json(&report);
    } else if args.html.is_none() && args.out_json.is_none() {
        if !report.is_conserved {
            print("VOID: this run does not add up; none of its figures can be believed");
        }
        for figure in &report.figures {
            if let Some(shown) = &figure.shown {
                let shown: String = shown.chars().filter(|c| !c.is_control()).collect();
                print(format_args!("{}: {shown}", figure.title));
            }
        }
    } else {
        for path in args.html.iter().chain(&args.out_json) {
            print(path.display());
        }
    }
    Ok(if report.is_conserved { Outcome::Ok } else { Outcome::Failed })
}

fn day(args: &DailyArgs) -> Done {
    let config = match &args.journal {
        Some(_) => None,
        None => Some(args.config.load()?),
    };
    let origin = match (&args.journal, &config) {
        (Some(journal), _) => Origin::from(journal),
        (None, Some(config)) => Origin::of(config),
        (None, None) => return Err(Failure::usage("name a --journal or a --config")),
    };
    let day = match &args.day {
        Some(day) => read_day(day).map_err(|wrong| Failure::usage(format!("--day {wrong}")))?,
        None => daily::last_day(origin.clone())
            .map_err(Failure::unreachable)?
            .ok_or_else(|| Failure::failed("the journal has no records with a time"))?,
    };
    // Before the long reading: a place that is taken is told at once.
    let whole = args.html.as_ref().map(|path| Whole::begin(path, args.force));
    let whole = whole.transpose().map_err(refused)?;
    let mut report = daily::read(origin, day).map_err(Failure::unreachable)?;
    add_stages(&mut report, config.as_ref(), day);
    if let (Some((whole, mut file)), Some(path)) = (whole, &args.html) {
        let text = page::html(&page::of_day(&report));
        file.write_all(text.as_bytes())
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
        whole.finish(&file).map_err(refused)?;
    }
    match (args.json, &args.html) {
        (true, _) => print_json(&report),
        (false, Some(path)) => print(format_args!("{}: {} UTC", path.display(), report.day)),
        (false, None) => print(page::text(&page::of_day(&report)).trim_end()),
    }
    Ok(if report.is_empty() { Outcome::Failed } else { Outcome::Ok })
}

fn refused(error: SheetError) -> Failure {
    match error {
        SheetError::Exists(_) => Failure::usage(error),
        _ => Failure::failed(error),
    }
}

/// Adds the stages of running processes where the day is today, and says what the figures are.
fn add_stages(report: &mut Daily, config: Option<&Config>, day: i64) {
    let kept = "Histograms of the stages are in no journal: with [postgres] they are in its table \
                latency_intervals, day by day.";
    let is_today = now_ns().div_euclid(DAY_NS) == day;
    let stats = config
        .filter(|_| is_today)
        .map(|config| RunStats::open(config, Duration::from_millis(200)));
    let why = match &stats {
        None if config.is_none() => {
            "A journal was named, not a run: only what its records say is told."
        }
        None => "The day is over: of the stages since then only what records say is told.",
        Some(Err(_)) => "Nothing runs now: of the stages only what records say is told.",
        Some(Ok(_)) => {
            "The stages of running processes count since their start, not since midnight."
        }
    };
    report.latency_note = format!("{why} {kept}");
    let Some(Ok(stats)) = stats else { return };
    for (process, snapshot) in tiles(&stats) {
        for (metric, value) in snapshot.iter() {
            if let MetricValue::Histogram(histogram) = value {
                let since_start = percentiles(&histogram.to_hdr());
                if since_start.count != 0 {
                    let (process, stage) = (process.clone(), metric.name.clone());
                    report.stages.push(StageLine { process, stage, since_start });
                }
            }
        }
    }
}
