//! The shards of a sweep become the one table that a sweep in one place would have made.
//!
//! Invariant: merged is what belongs together and is whole: the same grid, configuration and data, every shard
//! once, every run once. Anything else is refused with its name, and nothing is written.
//!
//! Not here: how a shard is made (the parent).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::runs::{self, Ended, Held, RunsError};
use super::{Report, SweepError, count, results};

/// Merges all files of runs in some folders into a table.
pub fn merge(dirs: &[PathBuf], out: &Path, force: bool) -> Result<Report, SweepError> {
    let mut files = Vec::new();
    for dir in dirs {
        let before = files.len();
        list(dir, &mut files)?;
        if files.len() == before {
            return Err(wrong(format!("{}: no shard-*.runs in this folder", dir.display())));
        }
    }
    let mut shards: BTreeMap<u64, (PathBuf, Held)> = BTreeMap::new();
    for path in files {
        let held = runs::read(&path)?.ok_or_else(|| {
            wrong(format!("{}: is empty: let its shard run first", path.display()))
        })?;
        if let Some((first, one)) = shards.values().next() {
            belongs(&path, &held, first, one)?;
        }
        let shard = held.shard.shard;
        if let Some((other, _)) = shards.get(&shard) {
            let (a, b) = (other.display(), path.display());
            return Err(wrong(format!("shard {shard} is there twice: {a} and {b}; name one")));
        }
        shards.insert(shard, (path, held));
    }
    whole(&shards)?;
    let mut report = Report::default();
    let mut ended: BTreeMap<u64, Ended> = BTreeMap::new();
    let mut plan = None;
    for (path, held) in shards.into_values() {
        report.runs = held.plan.grid.runs().map_err(SweepError::Job)?;
        report.shards = held.shard.shards;
        for (job, one) in held.ended {
            if ended.insert(job, one).is_some() {
                return Err(wrong(format!("{}: run {job} is there twice", path.display())));
            }
        }
        plan = Some(held.plan);
    }
    let plan = plan.ok_or_else(|| wrong("no folder is named".to_owned()))?;
    report.of_shard = ended.len() as u64;
    report.before = report.of_shard;
    count(&ended, &mut report);
    results::write(out, force, &plan, ended.values())?;
    report.results = Some(out.to_owned());
    Ok(report)
}

fn wrong(text: String) -> SweepError {
    SweepError::Merge(text)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), SweepError> {
    let io = |error| SweepError::Runs(RunsError::Io { path: dir.to_owned(), error });
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("shard-") && name.ends_with(".runs") {
            found.push(entry.path());
        }
    }
    found.sort();
    files.extend(found);
    Ok(())
}

fn belongs(path: &Path, held: &Held, first: &Path, one: &Held) -> Result<(), SweepError> {
    let (a, b) = (first.display(), path.display());
    if let Some(what) = one.plan.differs(&held.plan) {
        return Err(wrong(format!("{a} and {b} are of different sweeps: the {what} differs")));
    }
    let (x, y) = (one.shard.shards, held.shard.shards);
    if x != y {
        return Err(wrong(format!(
            "{a} is of {x} shards and {b} of {y}: merge those of one sweep, each from its folder"
        )));
    }
    Ok(())
}

/// Every shard is there, with every run of it.
fn whole(shards: &BTreeMap<u64, (PathBuf, Held)>) -> Result<(), SweepError> {
    let Some((_, one)) = shards.values().next() else {
        return Err(wrong("no folder is named".to_owned()));
    };
    let runs = one.plan.grid.runs().map_err(SweepError::Job)?;
    // A shard beyond the last run has nothing to do and may never have been started.
    let wanted = one.shard.shards.min(runs);
    let missing: Vec<String> = (0..wanted)
        .filter(|shard| !shards.contains_key(shard))
        .take(10)
        .map(|shard| shard.to_string())
        .collect();
    if !missing.is_empty() {
        let (missing, of) = (missing.join(", "), one.shard.shards);
        return Err(wrong(format!("shard {missing} of {of} is missing: name its folder too")));
    }
    for (path, held) in shards.values() {
        let mut jobs = (held.shard.shard..runs).step_by(held.shard.shards as usize);
        if let Some(job) = jobs.find(|job| !held.ended.contains_key(job)) {
            let path = path.display();
            return Err(wrong(format!(
                "{path}: run {job} is missing; let that shard run to its end: what is done is not made again"
            )));
        }
    }
    Ok(())
}
