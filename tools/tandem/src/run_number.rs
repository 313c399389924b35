//! Numbers for the engine's runs: client order ids begin with one, so none is ever used twice.
//!
//! Invariant: a number is on disk, synced, before it is given out. A file that cannot be read is refused,
//! never begun anew: an id that was used before could name another order.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::latch;

const NAME: &str = "run";

/// Returns a number that no run of this state directory had.
pub fn next(state_dir: &Path) -> io::Result<u32> {
    latch::make_dir(state_dir)?;
    let path = state_dir.join(NAME);
    let lock = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(state_dir.join(".run.lock"))?;
    lock.lock()?;
    // Never below the second: a lost directory goes on above every number it gave, for starts are rarer.
    let second = u32::try_from(crate::time::now_ns() / 1_000_000_000).unwrap_or(0);
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u32>().map_err(|_| {
            io::Error::other(format!(
                "{}: is no run number; write a number there that is larger than any run's in the \
                 journals and at the venues",
                path.display()
            ))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let run = last
        .checked_add(1)
        .map(|next| next.max(second))
        .filter(|run| *run != u32::MAX)
        .ok_or_else(|| io::Error::other("run numbers are used up"))?;
    let temp = state_dir.join(".run.new");
    let mut file = File::create(&temp)?;
    file.write_all(run.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temp, &path)?;
    File::open(state_dir)?.sync_all()?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row OE-15: restarts do not reuse ids.
    #[test]
    fn no_number_comes_twice() {
        let dir = std::env::temp_dir().join(format!("tandem-run-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let dir = dir.clone();
                std::thread::spawn(move || {
                    (0..250).map(|_| next(&dir).expect("number")).collect::<Vec<u32>>()
                })
            })
            .collect();
        let mut all: Vec<u32> =
            threads.into_iter().flat_map(|t| t.join().expect("thread")).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        println!("figure OE-15: {count} starts, {} numbers, 0 collisions", all.len());
        assert_eq!(all.len(), count);
        fs::write(dir.join(NAME), "garbage").expect("damage");
        assert!(next(&dir).is_err(), "a damaged number is refused");
        fs::remove_dir_all(&dir).expect("clean up");
    }
}
