//! `tandem backtest`: recorded data, simulated venues, the live engine.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tandem_backtest::{Config, Outcome as Found};
use tandem_core::units::Decimal;

use super::{Done, Failure, Outcome};
use crate::backtest::{self, BacktestError, Options, Recording, Run, sensitivity};
use crate::reports::drift::side::Reader;
use crate::reports::drift::{self, Side};
use crate::table::Table;

/// Arguments of `backtest`.
#[derive(Args)]
pub struct BacktestArgs {
    /// What is assumed of venues and others; without it the defaults, which are pessimistic.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Journals, archives or imported data, in the order of their time.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Seed, in place of the configuration's.
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for outcome.json (and sensitivity.json); it is made.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also at 1, 1.5, 2, 4 times the latency, 0, 50, 90 % competition, and other fees.
    #[arg(long, requires = "out")]
    sensitivity: bool,
    /// Also compares the rounds with those that the data's run really traded, and tells the error of the simulation.
    #[arg(long)]
    calibrate: bool,
    /// Also a journal of the simulated run, as a live one; read it with every other command.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Also every opportunity, taken or not, as its orders would have found it at other latencies; .parquet or CSV.
    #[arg(long, value_name = "FILE")]
    counterfactual: Option<PathBuf>,
    /// Plays the data so often, with shifted times.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// As JSON: the whole outcome, on one line.
    #[arg(long)]
    json: bool,
}

/// What a backtest's error ends a command with.
pub(super) fn failure(error: BacktestError) -> Failure {
    match error {
        BacktestError::Journal { .. } => Failure::unreachable(error),
        BacktestError::Data { .. } => Failure::failed(error),
        error => Failure::usage(error),
    }
}

#[derive(Serialize)]
struct Told<'a> {
    seconds: f64,
    records_per_second: u64,
    outcome: &'a Found,
}

/// Runs it.
pub fn backtest(args: &BacktestArgs) -> Done {
    let mut config = match &args.config {
        Some(path) => backtest::load(path).map_err(failure)?,
        None => Config::default(),
    };
    config.seed = args.seed.unwrap_or(config.seed);
    let recording = Recording::open(&args.data).map_err(failure)?;
    let options = Options {
        journal: args.journal.clone(),
        counterfactual: args.counterfactual.clone(),
        repeat: args.repeat,
        ..Options::default()
    };
    if let Some(out) = &args.out {
        fs::create_dir_all(out)
            .map_err(|error| Failure::failed(format!("{}: {error}", out.display())))?;
    }
    let run = match args.calibrate {
        false => recording.run(&config, &options).map_err(failure)?,
        true => calibrated(&recording, &config, &options, &args.data)?,
    };
    if let Some(out) = &args.out {
        write(&out.join("outcome.json"), &run.outcome)?;
        if args.sensitivity {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let cases = sensitivity::run(&recording, &config, threads).map_err(failure)?;
            write(&out.join("sensitivity.json"), &cases)?;
        }
    }
    if args.json {
        let told = Told {
            seconds: run.seconds,
            records_per_second: run.records_per_second(),
            outcome: &run.outcome,
        };
        super::print(&serde_json::to_string(&told).map_err(Failure::failed)?);
    } else {
        print(&run);
    }
    Ok(if run.outcome.summary.is_conserved { Outcome::Ok } else { Outcome::Failed })
}

/// A run beside what the data's own run traded.
fn calibrated(
    recording: &Recording,
    config: &Config,
    options: &Options,
    data: &[PathBuf],
) -> Result<Run, Failure> {
    let [live] = data else {
        return Err(Failure::usage("--calibrate compares with one journal: name one"));
    };
    let live = Side::read(live).map_err(Failure::failed)?;
    if live.rounds.is_empty() {
        return Err(Failure::usage("--calibrate: the data's run has no rounds to compare with"));
    }
    let setup = recording.effective(config).map_err(failure)?;
    let table = Table::build(setup, "the backtest's configuration").map_err(Failure::failed)?;
    let (mut reader, mut wrong) = (Reader::of(table), None);
    let mut run = recording
        .run_told(
            config,
            options,
            Some(&mut |record| {
                if wrong.is_none() {
                    wrong = reader.take(record).err();
                }
            }),
        )
        .map_err(failure)?;
    if let Some(error) = wrong {
        return Err(Failure::failed(error));
    }
    let found = drift::drift(&live, &reader.end(), drift::WINDOW_MS).map_err(Failure::failed)?;
    run.outcome.calibration = Some(found.calibration);
    Ok(run)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let wrong = |error: String| Failure::failed(format!("{}: {error}", path.display()));
    let text = serde_json::to_string_pretty(value).map_err(|error| wrong(error.to_string()))?;
    fs::write(path, text + "\n").map_err(|error| wrong(error.to_string()))
}

fn print(run: &Run) {
    let found = &run.outcome;
    let summary = &found.summary;
    let money = |quanta: i64| {
        let amount = Decimal { quanta, exponent: found.numeraire.exponent };
        format!("{amount} {}", found.numeraire.name)
    };
    let mut lines = Vec::new();
    if !summary.is_conserved {
        lines.push(
            "VOID: what there was, what was traded and what there is do not agree:".to_owned(),
        );
        let wrong = found.conservation.iter().filter(|row| row.difference != "0");
        lines.extend(wrong.map(|row| format!("  {}: {} quanta", row.asset, row.difference)));
    }
    lines.extend([
        format!(
            "{} market records over {} s, {} records/s",
            found.data.records,
            summary.seconds,
            run.records_per_second()
        ),
        format!(
            "result {} ({} with what is open), fees {}, largest fall {}",
            money(summary.pnl),
            money(summary.pnl_marked),
            money(summary.fees),
            money(summary.drawdown)
        ),
        format!(
            "{} opportunities, {} rounds: {} filled, {} missed, {} hedged, {} lost money, {} held",
            summary.opportunities,
            summary.rounds,
            summary.rounds_filled,
            summary.rounds_missed,
            summary.rounds_hedged,
            summary.rounds_lost,
            summary.rounds_held
        ),
        format!(
            "{} orders, {} filled, {} refused, {} fills",
            summary.orders, summary.orders_filled, summary.orders_rejected, summary.fills
        ),
    ]);
    if found.funnel.not_followed != 0 {
        let count = found.funnel.not_followed;
        lines.push(format!(
            "{count} opportunities found no room to be followed: lateness costs more than told"
        ));
    }
    for (venue, value) in &found.value_of_ms {
        let worth = money(value.per_ms_day);
        lines.push(format!("a millisecond at {venue} is worth {worth} a day"));
    }
    for (name, count) in &found.levels {
        lines.push(format!("level raised {count} times: {name}"));
    }
    lines.push(format!("digest {}", summary.digest));
    super::print(lines.join("\n"));
}
