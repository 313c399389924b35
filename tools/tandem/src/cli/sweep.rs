//! `sweep`: many backtests over a grid, on all cores or in shards; `sweep merge`: shards into one table.
//!
//! Invariant: what is done stays done: the same command goes on where it was. Exit code 5 where a run has an error
//! or was left, 1 where a run is void.
//!
//! Not here: what a sweep does (`crate::sweep`), what a run does (`crate::backtest`).

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Done, Failure, Outcome, print, print_json, roles};
use crate::backtest::{self, Recording};
use crate::sweep::grid::Job;
use crate::sweep::runs::{Plan, RunsError, SHARDS_MAX, Shard};
use crate::sweep::{self, Options, Report, Runner, SweepError, merge};

/// The number of its task that Kubernetes gives to each pod of an indexed job.
const TASK_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A sweep, or what becomes of its shards.
#[derive(Args, Debug)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct SweepArgs {
    #[command(subcommand)]
    command: Option<SweepCommand>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Subcommand, Debug)]
enum SweepCommand {
    /// Makes of all shards the table that one sweep would have made, byte for byte.
    #[command(after_help = "Examples:
  tandem sweep merge --out results.parquet out             every shard wrote into the same folder
  tandem sweep merge --out results.parquet out-0 out-1     or each into its own

Shards of different grids, configurations or data are refused, and so are missing and double ones.")]
    Merge {
        /// The table to make.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Replaces a file that is there.
        #[arg(long)]
        force: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Folders of the shards.
        #[arg(required = true, value_name = "DIR")]
        dirs: Vec<PathBuf>,
    },
}

/// What to sweep.
#[derive(Args, Debug)]
struct RunArgs {
    /// Configuration of the backtest that every run begins with; without one, its defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is varied; deploy/sweep/grid.example.toml explains it.
    #[arg(long, value_name = "FILE")]
    grid: PathBuf,
    /// Journals, archives, or folders of imported data.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Folder of the results. One that was begun is gone on with.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Runs at a time; default: one a core.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Into how many shards the runs are spread.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SHARDS_MAX))]
    shards: u64,
    /// Which of them this is, from 0, or `env`: what JOB_COMPLETION_INDEX says.
    #[arg(long, value_name = "I|env")]
    shard: Option<String>,
    /// Makes runs again that failed.
    #[arg(long)]
    retry_failed: bool,
    /// Says what would be run, and runs nothing.
    #[arg(long)]
    dry_run: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn failure(error: SweepError) -> Failure {
    match error {
        SweepError::Data(_) | SweepError::Runs(RunsError::Io { .. }) => Failure::unreachable(error),
        SweepError::Grid(_) | SweepError::Runs(_) => Failure::usage(error),
        SweepError::Sheet(crate::reports::sheet::SheetError::Exists(_)) => Failure::usage(error),
        SweepError::Job(_) | SweepError::Sheet(_) | SweepError::Merge(_) => Failure::failed(error),
    }
}

/// Returns the shard that the options say; `task` is what the environment says.
fn shard(shards: u64, shard: Option<&str>, task: Option<&str>) -> Result<Shard, String> {
    let shard = match (shard, task) {
        (None, _) if shards == 1 => return Ok(Shard::ALL),
        (None, _) => {
            return Err(format!("--shards {shards} needs --shard: which of them is this?"));
        }
        (Some("env"), None) => {
            return Err(format!(
                "--shard env: {TASK_VARIABLE} is not set: name the shard's number"
            ));
        }
        (Some("env"), Some(task)) => {
            task.parse().map_err(|_| format!("{TASK_VARIABLE} = `{task}` is no number"))?
        }
        (Some(number), _) => {
            number.parse().map_err(|_| format!("--shard {number}: write a number, or env"))?
        }
    };
    match shard < shards {
        true => Ok(Shard { shard, shards }),
        false => Err(format!("shard {shard} is none of {shards}: they are numbered from 0")),
    }
}

/// `tandem sweep`.
pub fn run(args: &SweepArgs) -> Done {
    match (&args.command, &args.run) {
        (Some(SweepCommand::Merge { out, force, json, dirs }), _) => {
            let report = merge::merge(dirs, out, *force).map_err(failure)?;
            tell(&report, *json)
        }
        (None, Some(args)) => sweep(args),
        (None, None) => Err(Failure::usage("name --grid, --data and --out, or `sweep merge`")),
    }
}

fn sweep(args: &RunArgs) -> Done {
    let task = std::env::var(TASK_VARIABLE).ok();
    let shard =
        shard(args.shards, args.shard.as_deref(), task.as_deref()).map_err(Failure::usage)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores);
    if jobs == 0 {
        return Err(Failure::usage("--jobs 0 runs nothing: name at least one"));
    }
    let plan = sweep::plan(&args.grid, args.config.as_deref(), &args.data).map_err(failure)?;
    let runs = plan.grid.runs().map_err(Failure::usage)?;
    if args.dry_run {
        let of_shard = (0..runs).filter(|job| shard.has(*job)).count() as u64;
        let Shard { shard, shards } = shard;
        let report = Report { runs, shard, shards, of_shard, left: of_shard, ..Report::default() };
        match args.json {
            true => print_json(&serde_json::json!({ "report": report, "plan": plan })),
            false => {
                for axis in &plan.grid.axes {
                    print(format_args!("{}: {} values", axis.key, axis.values.len()));
                }
                let (days, seeds) = (plan.grid.days.len(), plan.grid.seeds.len());
                print(format_args!(
                    "{days} days, {seeds} seeds, {} records: {runs} runs, {of_shard} of this shard",
                    plan.data.records
                ));
            }
        }
        return Ok(Outcome::Ok);
    }
    let stop = roles::stop_flag(None)?;
    let options = Options { out: args.out.clone(), shard, jobs, retry_failed: args.retry_failed };
    let recording = Recording::open(&args.data).map_err(Failure::failed)?;
    let report = sweep::run(&plan, &options, &stop, runner(&recording, &plan)).map_err(failure)?;
    tell(&report, args.json)
}

/// What makes one run: the backtest, over the journals that have the day.
fn runner<'a>(recording: &'a Recording, plan: &'a Plan) -> impl Runner + 'a {
    move |job: &Job| {
        let recording = recording.only(&plan.data.paths_of(job.day.as_deref()));
        let options = backtest::Options { period: job.period, ..backtest::Options::default() };
        let run = recording.run(&job.config, &options).map_err(|error| error.to_string())?;
        Ok(run.outcome)
    }
}

fn tell(report: &Report, json: bool) -> Done {
    if json {
        print_json(report);
    } else {
        let Report { runs, of_shard, before, made, left, failed, void, .. } = report;
        if report.shards == 1 || report.shards == 0 {
            print(format_args!("{runs} runs: {before} done before, {made} made now, {left} left"));
        } else {
            let (shard, shards) = (report.shard, report.shards);
            print(format_args!(
                "shard {shard} of {shards}, {of_shard} of {runs} runs: {before} done before, {made} made now, \
                 {left} left"
            ));
        }
        if *made != 0 {
            print(format_args!(
                "{:.1} s with {} at a time, {:.1} s of runs: {:.2} times as fast as one after the other",
                report.seconds,
                report.jobs,
                report.run_seconds,
                report.run_seconds / report.seconds.max(1e-9),
            ));
        }
        for line in &report.damaged_lines {
            eprintln!(
                "tandem: line {line} of the file of runs was damaged; its run was made again"
            );
        }
        if let Some(first) = &report.first_error {
            eprintln!("tandem: {failed} runs failed; the first: {first}");
        }
        if *void != 0 {
            eprintln!("tandem: {void} runs are void: their sums do not agree (is_conserved)");
        }
        if let Some(results) = &report.results {
            print(results.display());
        }
    }
    Ok(match (report.void, report.failed + report.left) {
        (0, 0) => Outcome::Ok,
        (0, _) => Outcome::Partial,
        _ => Outcome::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_or_taken_from_the_environment() {
        let named = |shard, shards| Ok(Shard { shard, shards });
        assert_eq!(shard(1, None, None), named(0, 1));
        assert_eq!(shard(1, None, Some("7")), named(0, 1), "only when it is asked for");
        assert_eq!(shard(4, Some("3"), Some("1")), named(3, 4));
        assert_eq!(shard(4, Some("env"), Some("2")), named(2, 4));
        for (shards, which, task, wanted) in [
            (4, None, None, "needs --shard"),
            (4, Some("4"), None, "numbered from 0"),
            (4, Some("x"), None, "write a number"),
            (4, Some("env"), None, "is not set"),
            (4, Some("env"), Some("two"), "no number"),
            (4, Some("env"), Some("4"), "numbered from 0"),
        ] {
            let told = shard(shards, which, task).expect_err(wanted);
            assert!(told.contains(wanted), "{told}");
        }
    }
}
