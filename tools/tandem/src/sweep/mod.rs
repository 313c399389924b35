//! Sweeps: many backtests over a grid of assumptions, days and seeds, on all cores or on many machines.
//!
//! Invariant: a run is a function of its number alone, so it does not matter where or when it is made; runs that
//! ended are never made again, and the table of results is the same to the byte however the runs were spread.
//! A run that fails is a row with its error, and stops nothing.
//!
//! Not here: what one run does (`tandem_backtest`), the command line (`crate::cli::sweep`).

pub mod data;
pub mod grid;
pub mod merge;
pub mod results;
pub mod runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};
use tandem_backtest::Outcome;

use crate::progress::Steps;
use crate::replay::hex;
use crate::reports::sheet::SheetError;
use data::DataError;
use grid::{GridError, Job};
use runs::{Ended, Fate, Plan, Runs, RunsError, Shard};

/// Why a sweep cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The grid or the configuration.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// A configuration that the grid gives.
    #[error("{0}")]
    Job(String),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The files of runs.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// The table.
    #[error(transparent)]
    Sheet(#[from] SheetError),
    /// What is to be merged does not belong together.
    #[error("{0}")]
    Merge(String),
}

/// How a sweep is made.
#[derive(Debug)]
pub struct Options {
    /// Folder of its files.
    pub out: PathBuf,
    /// Which runs.
    pub shard: Shard,
    /// Runs at a time, at least one.
    pub jobs: usize,
    /// Makes runs again that failed before.
    pub retry_failed: bool,
}

/// What a sweep came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Runs of the whole sweep.
    pub runs: u64,
    /// Which shard, from 0.
    pub shard: u64,
    /// Of how many.
    pub shards: u64,
    /// Runs of this shard.
    pub of_shard: u64,
    /// Of these, done before this process.
    pub before: u64,
    /// Made by it.
    pub made: u64,
    /// Not made, because it was told to stop.
    pub left: u64,
    /// Runs whose row has an error, all together.
    pub failed: u64,
    /// Runs that are void: their sums do not agree.
    pub void: u64,
    /// The first error, with its run.
    pub first_error: Option<String>,
    /// Runs that were under way when a process before this one died.
    pub under_way: Vec<u64>,
    /// Lines of the file of runs that were damaged: their runs were made again.
    pub damaged_lines: Vec<u64>,
    /// Runs at a time.
    pub jobs: usize,
    /// Seconds that it took, of the runs alone.
    pub seconds: f64,
    /// Seconds that its runs took, summed.
    pub run_seconds: f64,
    /// The table, where all runs are done.
    pub results: Option<PathBuf>,
}

/// Bytes as the hexadecimal text of their SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What makes one run; the same job gives the same outcome.
pub trait Runner: Fn(&Job) -> Result<Outcome, String> + Sync {}
impl<F: Fn(&Job) -> Result<Outcome, String> + Sync> Runner for F {}

/// Makes every run of a shard that is not done yet, and then the table.
pub fn run(
    plan: &Plan,
    options: &Options,
    stop: &AtomicBool,
    runner: impl Runner,
) -> Result<Report, SweepError> {
    plan.grid.check(&plan.base).map_err(SweepError::Job)?;
    let runs = plan.grid.runs().map_err(SweepError::Job)?;
    let (file, held) = Runs::open(&options.out, plan, options.shard)?;
    let of_shard: Vec<u64> = (0..runs).filter(|job| options.shard.has(*job)).collect();
    let mut ended = held.ended;
    if options.retry_failed {
        ended.retain(|_, ended| matches!(ended.fate, Fate::Result(_)));
    }
    let to_do: Vec<u64> = of_shard.iter().copied().filter(|job| !ended.contains_key(job)).collect();
    let mut report = Report {
        runs,
        shard: options.shard.shard,
        shards: options.shard.shards,
        of_shard: of_shard.len() as u64,
        before: ended.len() as u64,
        under_way: held.under_way.into_iter().collect(),
        damaged_lines: held.damaged,
        jobs: options.jobs.max(1).min(to_do.len().max(1)),
        ..Report::default()
    };
    let begun = Instant::now();
    let work = Work {
        plan,
        to_do: &to_do,
        next: AtomicUsize::new(0),
        stop,
        file: Mutex::new(file),
        progress: Steps::begin("runs", of_shard.len() as u64, ended.len() as u64),
        runner: &runner,
    };
    let made = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..report.jobs).map(|_| scope.spawn(|| work.all())).collect();
        let mut made = Vec::new();
        let mut wrong = None;
        for worker in workers {
            match worker.join() {
                Ok(Ok(more)) => made.extend(more),
                Ok(Err(error)) => wrong = Some(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        wrong.map_or(Ok(made), Err)
    })?;
    work.progress.end();
    report.seconds = begun.elapsed().as_secs_f64();
    report.made = made.len() as u64;
    report.run_seconds = made.iter().map(|ended| ended.took_ms as f64 / 1e3).sum();
    report.left = to_do.len() as u64 - report.made;
    ended.extend(made.into_iter().map(|made| (made.job, made)));
    count(&ended, &mut report);
    if report.left == 0 {
        let name = match options.shard {
            Shard::ALL => "results.parquet".to_owned(),
            Shard { shard, shards } => format!("shard-{shard}-of-{shards}.parquet"),
        };
        let path = options.out.join(name);
        results::write(&path, true, plan, ended.values())?;
        report.results = Some(path);
    }
    Ok(report)
}

/// Counts what did not go well.
fn count(ended: &BTreeMap<u64, Ended>, report: &mut Report) {
    for (job, ended) in ended {
        match &ended.fate {
            Fate::Error(error) => {
                report.failed += 1;
                if report.first_error.is_none() {
                    report.first_error = Some(format!("run {job}: {error}"));
                }
            }
            Fate::Result(found) => report.void += u64::from(!found.summary.is_conserved),
        }
    }
}

/// What the workers share.
struct Work<'a, R> {
    plan: &'a Plan,
    to_do: &'a [u64],
    next: AtomicUsize,
    stop: &'a AtomicBool,
    file: Mutex<Runs>,
    progress: Steps,
    runner: &'a R,
}

impl<R: Runner> Work<'_, R> {
    /// Takes runs until there are none, or until it is told to stop.
    fn all(&self) -> Result<Vec<Ended>, SweepError> {
        let done = self.until_done();
        if done.is_err() {
            // Nobody goes on where nothing can be kept.
            self.next.store(self.to_do.len(), Ordering::Relaxed);
        }
        done
    }

    fn until_done(&self) -> Result<Vec<Ended>, SweepError> {
        let handle = self.file()?.handle()?;
        let mut made = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            // Relaxed: the number itself is all that is shared by it.
            let taken = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(index) = self.to_do.get(taken) else { break };
            let job = self.plan.grid.job(&self.plan.base, *index).map_err(SweepError::Job)?;
            let missing = || SweepError::Job(format!("the grid has no run {index}"));
            let ended = self.one(&job.ok_or_else(missing)?)?;
            // Outside of the lock: others write meanwhile, and one sync is for all.
            handle.sync_data().map_err(|error| self.io(error))?;
            self.progress.add(1);
            made.push(ended);
        }
        Ok(made)
    }

    fn one(&self, job: &Job) -> Result<Ended, SweepError> {
        let config = runs::config_hash(job).map_err(|error| SweepError::Job(error.to_string()))?;
        self.file()?.begin(job.index)?;
        let begun = Instant::now();
        let fate = match (self.runner)(job) {
            Ok(outcome) => Fate::Result(Box::new(outcome.into())),
            Err(error) => Fate::Error(error),
        };
        let took_ms = begun.elapsed().min(Duration::from_secs(1 << 40)).as_millis() as u64;
        let ended = Ended { job: job.index, config, took_ms, fate };
        self.file()?.end(&ended)?;
        Ok(ended)
    }

    fn io(&self, error: std::io::Error) -> SweepError {
        let path = self.file.lock().map_or_else(|_| PathBuf::new(), |file| file.path().to_owned());
        SweepError::Runs(RunsError::Io { path, error })
    }

    /// A worker that panicked has written its lines whole or not at all; the others end with an error.
    fn file(&self) -> Result<std::sync::MutexGuard<'_, Runs>, SweepError> {
        self.file.lock().map_err(|_| SweepError::Job("another run panicked".to_owned()))
    }
}

/// Returns the plan of a sweep: reads grid, configuration and data.
pub fn plan(grid: &Path, config: Option<&Path>, data: &[PathBuf]) -> Result<Plan, SweepError> {
    let base = grid::read_base(config)?;
    let mut grid_read = grid::Grid::load(grid)?;
    let text = |detail| GridError::Text { path: grid.to_owned(), detail };
    grid_read.check(&base).map_err(text)?;
    let data = data::scan(data)?;
    if grid_read.by_day {
        grid_read.days.clone_from(&data.days);
    }
    if let Some(day) = grid_read.days.iter().find(|day| !data.days.contains(day)) {
        let (first, last) = (data.days.first(), data.days.last());
        let (first, last) = first.zip(last).map_or(("-", "-"), |(a, b)| (a.as_str(), b.as_str()));
        let detail = format!("days: {day} is not in the data, which has {first} to {last}");
        return Err(text(detail).into());
    }
    grid_read.check(&base).map_err(text)?;
    Ok(Plan { base, grid: grid_read, data })
}
