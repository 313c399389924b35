//! Our own Parquet back into a journal: `kind=record` holds every record, all of it.
//!
//! Invariant: the journal that is made has the very records that were exported, in their order; one that is
//! missing, is there twice or cannot be is an error that names its file.
//!
//! Not here: how it is written (`export::lake`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Row, RowAccessor};
use tandem_core::record::{Kind, Record, flag};
use tandem_core::report::{Opportunity, Phase};

use super::error::{DataError, Place};
use super::export::lake::{RAW, RECORD};
use super::recorder::{self, Recorded};
use crate::reports::sheet::Holds;

/// Records of a group that can be one.
const GROUP_MAX: usize = 16;

/// Returns whether a directory is an export in Parquet.
#[must_use]
pub fn is_lake(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("day="))
}

/// Files of one venue, in the order of their records.
struct Chain {
    files: VecDeque<PathBuf>,
    path: PathBuf,
    rows: Option<RowIter<'static>>,
    row: u64,
}

/// Folders in `path` whose name begins with `key=`, with the rest of it.
fn folders(path: &Path, key: &str) -> Result<Vec<(String, PathBuf)>, DataError> {
    let entries = fs::read_dir(path).map_err(DataError::make(path, "list"))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(value) = name.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            found.push((value.to_owned(), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Number of `part-N.parquet`.
fn part(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.strip_prefix("part-")?.parse().ok()
}

impl Chain {
    /// The chains of an export, one a venue.
    fn all(root: &Path) -> Result<Vec<Chain>, DataError> {
        let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
        for (_, day) in folders(root, "day")? {
            for (venue, path) in folders(&day, "venue")? {
                let dir = path.join(format!("kind={RECORD}"));
                let Ok(entries) = fs::read_dir(&dir) else { continue };
                let mut parts: Vec<(u32, PathBuf)> = entries
                    .flatten()
                    .filter_map(|entry| Some((part(&entry.path())?, entry.path())))
                    .collect();
                parts.sort();
                let chain = chains.entry(venue).or_insert_with(|| Chain {
                    files: VecDeque::new(),
                    path: PathBuf::new(),
                    rows: None,
                    row: 0,
                });
                chain.files.extend(parts.into_iter().map(|(_, path)| path));
            }
        }
        Ok(chains.into_values().collect())
    }

    fn error(&self, found: String) -> DataError {
        let place = Place { path: self.path.clone(), line: self.row, is_row: true };
        DataError::Line { place, found, fix: "export the journal again".to_owned() }
    }

    fn open(&mut self) -> Result<bool, DataError> {
        let Some(path) = self.files.pop_front() else { return Ok(false) };
        (self.path, self.row) = (path, 0);
        let file = fs::File::open(&self.path).map_err(DataError::make(&self.path, "read"))?;
        let unreadable = |error: parquet::errors::ParquetError| {
            let found = format!("cannot be read as Parquet: {error}");
            DataError::file(&self.path, found, "export the journal again")
        };
        let reader = SerializedFileReader::new(file).map_err(unreadable)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let names: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
        if !names.iter().eq(RAW.iter().map(|(name, _)| name)) {
            let found = format!("the columns are {}", names.join(", "));
            return Err(DataError::file(&self.path, found, "give an export of this build"));
        }
        self.rows = Some(reader.into_iter());
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Record>, DataError> {
        loop {
            if self.rows.is_none() && !self.open()? {
                return Ok(None);
            }
            let Some(row) = self.rows.as_mut().and_then(Iterator::next) else {
                self.rows = None;
                continue;
            };
            self.row += 1;
            let row = row.map_err(|error| self.error(format!("cannot be read: {error}")))?;
            let record = record(&row);
            return record.map(Some).ok_or_else(|| self.error("is no record".to_owned()));
        }
    }
}

fn record(row: &Row) -> Option<Record> {
    let column = |name: &str| RAW.iter().position(|(known, _)| *known == name);
    let int = |name: &str| {
        let idx = column(name)?;
        debug_assert_eq!(RAW[idx].1, Holds::Int, "{name}");
        row.get_long(idx).ok()
    };
    let unsigned = |name: &str| row.get_ulong(column(name)?).ok();
    Some(Record {
        seq: unsigned("seq")?,
        kind: int("kind_tag")?.try_into().ok()?,
        flags: int("flags")?.try_into().ok()?,
        venue: int("venue_tag")?.try_into().ok()?,
        part: int("part")?.try_into().ok()?,
        instrument: int("instrument")?.try_into().ok()?,
        epoch: int("epoch")?.try_into().ok()?,
        data: [int("data0")?, int("data1")?, int("data2")?, int("data3")?],
        pub_tsc: unsigned("pub_tsc")?,
        update_id: unsigned("update_id")?,
        venue_ts_ns: int("venue_ts_ns")?,
        recv_ts_ns: int("recv_ts_ns")?,
        recv_tsc: unsigned("recv_tsc")?,
        decode_ticks: int("decode_ticks")?.try_into().ok()?,
        bytes: int("bytes")?.try_into().ok()?,
        conn: int("conn")?.try_into().ok()?,
        ring: int("ring")?.try_into().ok()?,
        asset: int("asset")?.try_into().ok()?,
        ring_seq: unsigned("ring_seq")?,
        engine_ts_ns: int("engine_ts_ns")?,
        run: int("run")?.try_into().ok()?,
        // The journal's own, made anew.
        check: 0,
    })
}

/// Makes the journal of an export again at `to`.
pub fn import(root: &Path, to: &Path) -> Result<Recorded, DataError> {
    let mut chains = Chain::all(root)?;
    let (mut queue, mut heads) = (BinaryHeap::new(), Vec::new());
    for (idx, chain) in chains.iter_mut().enumerate() {
        let head = chain.next()?;
        queue.extend(head.map(|record| Reverse((record.seq, idx))));
        heads.push(head);
    }
    if queue.is_empty() {
        let found = format!("has no files of kind={RECORD}");
        return Err(DataError::file(root, found, "give a directory that --format parquet made"));
    }
    let mut journal = recorder::journal(to)?;
    let (mut recorded, mut group) = (Recorded::default(), Vec::new());
    while let Some(Reverse((seq, idx))) = queue.pop() {
        let Some(record) = heads[idx].take() else { continue };
        let wanted = journal.next_seq();
        if seq != wanted {
            return Err(chains[idx].error(format!("is record {seq}, record {wanted} is expected")));
        }
        recorder::append(&mut journal, &record).map_err(DataError::Full)?;
        recorded.records += 1;
        let is_message = record.has(flag::LAST) && !record.has(flag::OUTPUT);
        recorded.messages += u64::from(is_message);
        count(&mut group, &record, &mut recorded);
        heads[idx] = chains[idx].next()?;
        queue.extend(heads[idx].map(|record| Reverse((record.seq, idx))));
    }
    journal.close()?;
    Ok(recorded)
}

/// Counts an opportunity when the group that opens it is whole.
fn count(group: &mut Vec<Record>, record: &Record, recorded: &mut Recorded) {
    if record.kind() != Some(Kind::Opportunity) {
        return;
    }
    if record.part == 0 || GROUP_MAX <= group.len() {
        group.clear();
    }
    group.push(*record);
    if !record.has(flag::MORE)
        && let Some(told) = Opportunity::decode(group)
        && told.phase == Phase::Open
    {
        recorded.opportunities[told.kind as usize - 1] += 1;
    }
}
