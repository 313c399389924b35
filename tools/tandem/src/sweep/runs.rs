//! What a sweep has done so far: a file to which every run is added when it ends.
//!
//! Invariant: a run counts as done when its line is on the disk, and not before; it is never made again then, and
//! never lost, whenever the process is killed. Every line carries its checksum: one that is damaged counts as not
//! there, and its run is made again. The first line says what is swept: another grid, configuration, data or shard
//! is refused. One process at a time holds the file.
//!
//! Not here: the table that is made of it (`results`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tandem_backtest::Summary;
use tandem_backtest::config::Config;
use tandem_backtest::outcome::{self, Unit};

use super::data::Data;
use super::grid::{Grid, Job};
use super::sha256;

/// Version of the file and of what a run's outcome means.
const FORMAT: u32 = 1;
/// Bytes of a line beyond which it is damaged: the first one holds the whole grid.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// How long another process that holds the file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Most shards of one sweep.
pub const SHARDS_MAX: u64 = 100_000;

/// Why a file of runs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// It cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process sweeps into it.
    #[error("{path}: another process sweeps into this folder; wait for it, or give another --out")]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// Not a file of ours, or its beginning is damaged.
    #[error(
        "{path}: its first line does not say what is swept ({detail}); move the file away to begin anew"
    )]
    NoHeader {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// Runs of something else.
    #[error("{path}: holds runs of another {what}; give another --out, or what it was begun with")]
    Other {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A run that the file must not hold.
    #[error("{path}: run {job} does not belong to shard {shard} of {shards} with {runs} runs")]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// The run.
        job: u64,
        /// Shard of the file.
        shard: u64,
        /// Of how many.
        shards: u64,
        /// Runs of the sweep.
        runs: u64,
    },
}

/// What is swept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What every run begins with.
    pub base: Config,
    /// What is varied.
    pub grid: Grid,
    /// What is read.
    pub data: Data,
}

impl Plan {
    /// Returns which part of two plans differs; nothing where they are the same.
    #[must_use]
    pub fn differs(&self, other: &Plan) -> Option<&'static str> {
        let parts = [
            (self.base != other.base, "configuration"),
            (self.grid != other.grid, "grid"),
            (self.data != other.data, "data"),
        ];
        parts.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
    }
}

/// A part of a sweep: the runs whose number divided by `shards` leaves `shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which, from 0.
    pub shard: u64,
    /// Of how many.
    pub shards: u64,
}

impl Shard {
    /// Everything.
    pub const ALL: Shard = Shard { shard: 0, shards: 1 };

    /// Returns whether a run is of this shard.
    #[must_use]
    pub const fn has(self, job: u64) -> bool {
        job % self.shards == self.shard
    }

    /// Returns the name of its file of runs.
    #[must_use]
    pub fn file(self) -> String {
        format!("shard-{}-of-{}.runs", self.shard, self.shards)
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It gave this.
    Result(Box<Found>),
    /// It could not be made.
    Error(String),
}

/// What a run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The figures.
    pub summary: Summary,
    /// What its amounts count.
    pub numeraire: Unit,
    /// Market records that were read.
    pub records: u64,
    /// Time of the first at the engine.
    pub from_ns: i64,
    /// Time of the last.
    pub to_ns: i64,
}

impl From<outcome::Outcome> for Found {
    fn from(outcome: outcome::Outcome) -> Found {
        let data = outcome.data;
        let (records, from_ns, to_ns) = (data.records, data.from_ns, data.to_ns);
        Found { summary: outcome.summary, numeraire: outcome.numeraire, records, from_ns, to_ns }
    }
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Its number.
    pub job: u64,
    /// SHA-256 of its whole configuration.
    pub config: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What became of it.
    pub fate: Fate,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    outcome_format: u32,
    shard: Shard,
    plan: Plan,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Sweep(Box<Header>),
    /// Before a run: what was under way when a process died.
    Begun(u64),
    Ended(Box<Ended>),
}

/// What a file of runs holds.
#[derive(Debug)]
pub struct Held {
    /// What is swept.
    pub plan: Plan,
    /// Which part of it.
    pub shard: Shard,
    /// Runs that ended, by number.
    pub ended: BTreeMap<u64, Ended>,
    /// Runs that were begun and have no end.
    pub under_way: BTreeSet<u64>,
    /// How often a run was begun, over all.
    pub begun: u64,
    /// Numbers of lines that are damaged, from 1.
    pub damaged: Vec<u64>,
    /// Bytes up to the end of the last whole line.
    whole_bytes: u64,
    /// Bytes after it: a write that was cut short.
    pub torn_bytes: u64,
}

/// Returns the hash by which a configuration is known.
pub fn config_hash(job: &Job) -> Result<String, serde_json::Error> {
    serde_json::to_string(&job.config).map(|text| sha256(text.as_bytes()))
}

fn line(line: &Line) -> Result<Vec<u8>, io::Error> {
    let text = serde_json::to_string(line).map_err(io::Error::other)?;
    Ok(format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes())).into_bytes())
}

/// Reads a line without its end; nothing where it is damaged.
fn parse(bytes: &[u8]) -> Option<Line> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (check, text) = text.split_once(' ')?;
    let check = u32::from_str_radix(check, 16).ok().filter(|_| check.len() == 8)?;
    if check != crc32c::crc32c(text.as_bytes()) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Reads a file of runs; nothing where it has no whole line yet.
pub fn read(path: &Path) -> Result<Option<Held>, RunsError> {
    let io = |error| RunsError::Io { path: path.to_owned(), error };
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut bytes = Vec::new();
    let mut held: Option<Held> = None;
    let (mut number, mut at) = (0u64, 0u64);
    loop {
        bytes.clear();
        let count = (&mut file).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(io)?;
        let is_whole = bytes.last() == Some(&b'\n');
        if !is_whole && (count as u64) < LINE_BYTES_MAX {
            if let Some(held) = &mut held {
                held.torn_bytes = count as u64;
            }
            return Ok(held);
        }
        number += 1;
        at += count as u64;
        if is_whole {
            bytes.pop();
        } else {
            // No line of ours: passed over to its end, without keeping it.
            at += file.skip_until(b'\n').map_err(io)? as u64;
            bytes.clear();
        }
        take(path, &mut held, number, parse(&bytes))?;
        if let Some(held) = &mut held {
            held.whole_bytes = at;
        }
    }
}

fn take(
    path: &Path,
    held: &mut Option<Held>,
    number: u64,
    line: Option<Line>,
) -> Result<(), RunsError> {
    let no_header =
        |detail: &str| RunsError::NoHeader { path: path.to_owned(), detail: detail.to_owned() };
    let Some(held) = held else {
        let Some(Line::Sweep(header)) = line else { return Err(no_header("it is damaged")) };
        if (header.format, header.outcome_format) != (FORMAT, outcome::FORMAT) {
            return Err(no_header("another version wrote it"));
        }
        let Shard { shard, shards } = header.shard;
        if shards == 0 || SHARDS_MAX < shards || shards <= shard {
            return Err(no_header("there is no such shard"));
        }
        let (plan, shard) = (header.plan, header.shard);
        plan.grid.runs().map_err(|error| no_header(&error))?;
        *held = Some(Held {
            plan,
            shard,
            ended: BTreeMap::new(),
            under_way: BTreeSet::new(),
            begun: 0,
            damaged: Vec::new(),
            whole_bytes: 0,
            torn_bytes: 0,
        });
        return Ok(());
    };
    let job = match &line {
        Some(Line::Begun(job)) => *job,
        Some(Line::Ended(ended)) => ended.job,
        Some(Line::Sweep(_)) | None => {
            held.damaged.push(number);
            return Ok(());
        }
    };
    let runs = held.plan.grid.runs().unwrap_or(0);
    if runs <= job || !held.shard.has(job) {
        let (path, Shard { shard, shards }) = (path.to_owned(), held.shard);
        return Err(RunsError::Foreign { path, job, shard, shards, runs });
    }
    match line {
        Some(Line::Begun(_)) => {
            held.begun += 1;
            held.under_way.insert(job);
        }
        Some(Line::Ended(ended)) => {
            held.under_way.remove(&job);
            // One that was made again because it had failed.
            held.ended.insert(job, *ended);
        }
        Some(Line::Sweep(_)) | None => {}
    }
    Ok(())
}

/// The file of runs, held by this process alone.
#[derive(Debug)]
pub struct Runs {
    path: PathBuf,
    file: File,
}

impl Runs {
    /// Opens the file of a shard, or begins it; also returns what it holds.
    pub fn open(dir: &Path, plan: &Plan, shard: Shard) -> Result<(Runs, Held), RunsError> {
        let path = dir.join(shard.file());
        let io = |error| RunsError::Io { path: path.clone(), error };
        fs::create_dir_all(dir).map_err(io)?;
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut runs = Runs { path: path.clone(), file: file.map_err(io)? };
        runs.lock()?;
        let held = match read(&path)? {
            Some(held) => held,
            // Not a whole line: the process was killed before anything was done.
            None => {
                runs.file.set_len(0).map_err(io)?;
                let header = Header {
                    format: FORMAT,
                    outcome_format: outcome::FORMAT,
                    shard,
                    plan: plan.clone(),
                };
                runs.write(&Line::Sweep(Box::new(header)))?;
                runs.file.sync_all().and_then(|()| File::open(dir)?.sync_all()).map_err(io)?;
                let is_empty = || io(io::Error::other("what was written is not there"));
                read(&path)?.ok_or_else(is_empty)?
            }
        };
        if let Some(what) = held.plan.differs(plan) {
            return Err(RunsError::Other { path, what });
        }
        if held.shard != shard {
            return Err(RunsError::Other { path, what: "shard" });
        }
        if held.torn_bytes != 0 {
            runs.file.set_len(held.whole_bytes).map_err(io)?;
        }
        runs.file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok((runs, held))
    }

    /// Takes the file for this process. One that was killed may still be on its way out: it is waited for, briefly.
    fn lock(&self) -> Result<(), RunsError> {
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match self.file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(RunsError::Busy { path: self.path.clone() });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(RunsError::Io { path: self.path.clone(), error });
                }
            }
        }
    }

    /// Says that a run begins; not synced, for it proves nothing.
    pub fn begin(&mut self, job: u64) -> Result<(), RunsError> {
        self.write(&Line::Begun(job))
    }

    /// Adds a run that ended; it counts once [`sync`] has returned.
    pub fn end(&mut self, ended: &Ended) -> Result<(), RunsError> {
        self.write(&Line::Ended(Box::new(ended.clone())))
    }

    /// Returns another handle of the file, to sync it with while others write.
    pub fn handle(&self) -> Result<File, RunsError> {
        self.file.try_clone().map_err(|error| RunsError::Io { path: self.path.clone(), error })
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line with one call: a process that is killed leaves all of it or nothing.
    fn write(&mut self, what: &Line) -> Result<(), RunsError> {
        let written = line(what).and_then(|bytes| self.file.write_all(&bytes));
        written.map_err(|error| RunsError::Io { path: self.path.clone(), error })
    }
}
