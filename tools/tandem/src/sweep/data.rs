//! What a sweep reads, by its content: so that shards on many machines know that they have the same.
//!
//! Invariant: the digest is of the records as they are, in the order in which the paths were named. The same
//! journal in shared memory, copied or archived has the same digest; paths and places in a journal do not count.
//!
//! Not here: how records are read (`crate::records`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tandem_core::record::Kind;
use tandem_shm::JournalError;
use zerocopy::IntoBytes;

use crate::progress::Progress;
use crate::records::Records;
use crate::replay::hex;
use crate::reports::period::{DAY_NS, day_name};

/// Most days that data may have: ten years. Stamps that say more are damaged.
const DAYS_MAX: usize = 3_660;

/// Why data cannot be swept over.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A journal cannot be read.
    #[error("{path}: {error}")]
    Journal {
        /// Which.
        path: PathBuf,
        /// Why.
        error: JournalError,
    },
    /// Nothing in it.
    #[error("{path}: no market records; name a journal, an archive, or what was imported")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Stamps that cannot be.
    #[error("{path}: its stamps lie on more than {DAYS_MAX} days: they are damaged")]
    Days {
        /// Which.
        path: PathBuf,
    },
}

/// What data is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// SHA-256 over all records, hexadecimal.
    pub digest: String,
    /// Records.
    pub records: u64,
    /// Time of the first input at the engine, UNIX ns.
    pub from_ns: i64,
    /// Time of the last.
    pub to_ns: i64,
    /// Days, UTC, on which inputs were taken.
    pub days: Vec<String>,
    /// The same of each path that was named.
    pub of_path: Vec<Vec<String>>,
}

impl Data {
    /// Returns which paths have a day, by their place in the list; of no day in particular, all.
    #[must_use]
    pub fn paths_of(&self, day: Option<&str>) -> Vec<usize> {
        let has = |days: &Vec<String>| day.is_none_or(|day| days.iter().any(|one| one == day));
        let paths = self.of_path.iter().enumerate();
        paths.filter(|(_, days)| has(days)).map(|(idx, _)| idx).collect()
    }
}

/// Reads all records once.
pub fn scan(paths: &[PathBuf]) -> Result<Data, DataError> {
    let progress = Progress::count("reading the data");
    let (mut digest, mut all) = (Sha256::new(), BTreeSet::new());
    let mut of_path = Vec::with_capacity(paths.len());
    let (mut records, mut from_ns, mut to_ns) = (0, i64::MAX, i64::MIN);
    for path in paths {
        let wrong = |error| DataError::Journal { path: path.clone(), error };
        let mut reader = Records::strict(path).map_err(wrong)?;
        let (mut of_market, mut days) = (0u64, BTreeSet::new());
        while let Some(record) = reader.next().map_err(wrong)? {
            digest.update(record.essence().as_bytes());
            records += 1;
            if records % 65_536 == 0 {
                progress.add(65_536);
            }
            if !matches!(record.kind(), Some(Kind::Level | Kind::Clear | Kind::Bbo | Kind::Trade)) {
                continue;
            }
            of_market += 1;
            from_ns = from_ns.min(record.engine_ts_ns);
            to_ns = to_ns.max(record.engine_ts_ns);
            days.insert(record.engine_ts_ns.div_euclid(DAY_NS));
            if DAYS_MAX < days.len() {
                return Err(DataError::Days { path: path.clone() });
            }
        }
        if of_market == 0 {
            return Err(DataError::Empty { path: path.clone() });
        }
        // Where one ends and the next begins is part of it.
        digest.update(of_market.to_le_bytes());
        of_path.push(days.iter().copied().map(day_name).collect());
        all.extend(days);
    }
    progress.end();
    let days = all.into_iter().map(day_name).collect();
    Ok(Data { digest: hex(&digest.finalize()), records, from_ns, to_ns, days, of_path })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn content_counts_and_places_do_not() {
        let root = PathBuf::from(format!("/dev/shm/tandem-sweep-data-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).expect("a folder");
        let make = |name: &str, seed| {
            let path = root.join(name);
            crate::generate::generate(&path, seed, 5_000).expect("a journal");
            path
        };
        let (a, b, c) = (make("a", 1), make("b", 1), make("c", 2));
        let of = |paths: &[&Path]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
            scan(&paths)
        };
        let one = of(&[&a]).expect("data");
        assert_eq!(one, of(&[&b]).expect("data"));
        assert_ne!(one.digest, of(&[&c]).expect("data").digest);
        assert_ne!(of(&[&a, &c]).expect("data").digest, of(&[&c, &a]).expect("data").digest);
        assert!(one.records >= 5_000 && one.from_ns < one.to_ns);
        assert_eq!(one.days, ["2026-01-01"]);
        let two = of(&[&a, &c]).expect("data");
        assert_eq!(two.paths_of(None), [0, 1]);
        assert_eq!(two.paths_of(Some("2026-01-01")), [0, 1]);
        assert_eq!(two.paths_of(Some("2026-01-02")), [0; 0]);
        let none = of(&[&root.join("none")]).expect_err("nothing there").to_string();
        assert!(none.contains("none"), "{none}");
        std::fs::remove_dir_all(&root).expect("clean up");
    }
}
