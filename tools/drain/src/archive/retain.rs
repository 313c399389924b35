//! What is removed of an archive, and when.
//!
//! Invariant: whole files, the oldest first, and never the last file of a journal that is the newest one. What
//! is left is proven as before: the header of its first file carries the chain value of what was before it.
//! Every removal is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::disk::Disk;
use super::index::index_path;
use super::{ArchiveError, file_path, list_files, list_journals};

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Files that were last written longer ago are removed; nothing keeps all.
    pub age: Option<Duration>,
    /// The oldest files are removed until no more bytes than this are left; nothing keeps all.
    pub bytes: Option<u64>,
}

/// A file of an archive.
struct Held {
    path: PathBuf,
    bytes: u64,
    written: SystemTime,
    /// The last of its journal, and how many journals come after that one.
    is_last: bool,
    is_newest: bool,
}

/// Removes what need not be kept; returns which files.
pub fn retain(
    disk: &dyn Disk,
    root: &Path,
    keep: Retention,
    now: SystemTime,
) -> Result<Vec<PathBuf>, ArchiveError> {
    if keep == Retention::default() {
        return Ok(Vec::new());
    }
    let held = held(root)?;
    let mut total: u64 = held.iter().map(|file| file.bytes).sum();
    let mut removed = Vec::new();
    for file in &held {
        let age = now.duration_since(file.written).unwrap_or_default();
        let is_old = keep.age.is_some_and(|most| most < age);
        let is_much = keep.bytes.is_some_and(|most| most < total);
        // The oldest first, without a hole: what follows a file that stays, stays.
        if !is_old && !is_much || file.is_last && file.is_newest {
            break;
        }
        disk.remove(&file.path).map_err(ArchiveError::io("remove", &file.path))?;
        let _ = disk.remove(&index_path(&file.path));
        total -= file.bytes;
        if file.is_last
            && let Some(dir) = file.path.parent()
        {
            // Of an old journal nothing is left but what was put aside; that stays, and its folder with it.
            let _ = fs::remove_dir(dir);
        }
        removed.push(file.path.clone());
    }
    Ok(removed)
}

fn held(root: &Path) -> Result<Vec<Held>, ArchiveError> {
    let journals = list_journals(root).map_err(ArchiveError::io("list", root))?;
    let mut held = Vec::new();
    for (at, journal) in journals.iter().enumerate() {
        let files = list_files(&journal.dir).map_err(ArchiveError::io("list", &journal.dir))?;
        for (file, first) in files.iter().enumerate() {
            let path = file_path(&journal.dir, *first);
            let meta = fs::metadata(&path).map_err(ArchiveError::io("stat", &path))?;
            let written = meta.modified().map_err(ArchiveError::io("stat", &path))?;
            let (is_last, is_newest) = (file + 1 == files.len(), at + 1 == journals.len());
            held.push(Held { path, bytes: meta.len(), written, is_last, is_newest });
        }
    }
    Ok(held)
}
