//! What an engine that starts needs of records that are not in shared memory any more.
//!
//! Invariant: the checkpoint of a journal is the exact state of [`Gatherer`] after one of its records, with the
//! configuration of the run that wrote it, and it is on its medium, whole, before a segment that it covers is
//! released. So a checkpoint and the records after it yield what all records would. It lies in the journal's
//! own directory and lives as long as that.
//!
//! Not here: what is restored (`tandem_core::restore`), when segments go (`archiver`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tandem_core::instrument::Universe;
use tandem_core::record::{Kind, Record};
use tandem_core::restore::Gatherer;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalReader, oldest_seq};

use crate::run::{ConfigText, ReadRun};

/// Name of the checkpoint in a journal's directory.
pub const CHECKPOINT: &str = "checkpoint";
const MAGIC: [u8; 8] = *b"TANDCHK2";
/// Magic, identity, sequence, begin of the run, three lengths.
const HEAD_BYTES: usize = 8 + 16 + 8 + 8 + 3 * 8;
/// More is no checkpoint: the state of an engine is some MiB.
const BYTES_MAX: u64 = 1 << 30;

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The kernel.
    #[error("{path}: {op}: {source}")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// It is there and cannot be believed.
    #[error(
        "{path}: is damaged: {what}; segments that it covers are gone, so an engine cannot know its open \
         orders: reconcile by hand, then begin a new journal (see deploy/runbooks/journal-corruption.md)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// The state after a record.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Identity of the journal.
    pub uuid: u128,
    /// The last record that is in it.
    pub seq: u64,
    /// The configuration of the run that wrote that record: text of its `Config` records.
    pub config: String,
    /// When that run began: engine time of its first record with one, ns; 0 before that.
    pub begun_ns: i64,
    /// The beginning of another one, where the record is in the middle of it.
    pub text: ConfigText,
    /// What is to be restored.
    pub gatherer: Gatherer,
}

fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { op, path, source }
}

impl Checkpoint {
    /// Returns the checkpoint as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (config, text, saved) =
            (self.config.as_bytes(), self.text.bytes(), self.gatherer.save());
        let mut bytes =
            Vec::with_capacity(HEAD_BYTES + config.len() + text.len() + saved.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.uuid.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.begun_ns.to_le_bytes());
        for part in [config, text, &saved] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        }
        for part in [config, text, &saved] {
            bytes.extend_from_slice(part);
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a checkpoint's bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint, &'static str> {
        let parts = bytes.len().checked_sub(4).and_then(|end| bytes.split_at_checked(end));
        let (body, crc) = parts.ok_or("it is too short")?;
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err("its checksum");
        }
        let (head, rest) = body.split_at_checked(HEAD_BYTES).ok_or("it is too short")?;
        if head[..8] != MAGIC {
            return Err("it is none, or of another version");
        }
        let word =
            |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let mut rest = rest;
        let mut part = |length: u64| {
            let length = usize::try_from(length).ok()?;
            let (taken, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(taken)
        };
        let (config, text, saved) = (part(word(40)), part(word(48)), part(word(56)));
        let (Some(config), Some(text), Some(saved), true) = (config, text, saved, rest.is_empty())
        else {
            return Err("its lengths");
        };
        Ok(Checkpoint {
            uuid: u128::from(word(8)) | u128::from(word(16)) << 64,
            seq: word(24),
            begun_ns: word(32).cast_signed(),
            config: String::from_utf8(config.to_vec()).map_err(|_| "its configuration")?,
            text: ConfigText::from_bytes(text.to_vec()),
            gatherer: Gatherer::load(saved).ok_or("its state is of another version")?,
        })
    }

    /// Returns the records of the configuration, as the run wrote them; their sequences are 0.
    #[must_use]
    pub fn config_records(&self) -> Vec<Record> {
        ConfigText::payloads(self.config.as_bytes())
            .map(|(data, flags, update_id)| {
                let record = Record::new(Kind::Config, 0, u16::MAX, data);
                Record { flags, update_id, ..record }
            })
            .collect()
    }
}

/// Reads the checkpoint of a journal, if it has one.
pub fn read(journal: &Path) -> Result<Option<Checkpoint>, CheckpointError> {
    let path = journal.join(CHECKPOINT);
    let bytes = match fs::metadata(&path) {
        Ok(meta) if BYTES_MAX < meta.len() => {
            return Err(CheckpointError::Damaged { path, what: "it is too long" });
        }
        Ok(_) => fs::read(&path),
        Err(error) => Err(error),
    };
    match bytes {
        Ok(bytes) => Checkpoint::from_bytes(&bytes)
            .map(Some)
            .map_err(|what| CheckpointError::Damaged { path, what }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// Replaces the checkpoint of a journal, whole or not at all.
pub fn write(journal: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let path = journal.join(CHECKPOINT);
    let temp = journal.join("checkpoint.new");
    let mut options = File::options();
    options.create(true).write(true).truncate(true).mode(0o640);
    let mut file = options.open(&temp).map_err(io("create", &temp))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &temp))?;
    fs::rename(&temp, &path).map_err(io("rename", &path))?;
    File::open(journal).and_then(|dir| dir.sync_all()).map_err(io("sync", journal))
}

/// Why what an earlier run left cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Records are gone that nothing covers.
    #[error(
        "{dir}: begins with record {oldest}, and no checkpoint covers what was before it: an engine cannot \
         know its open orders. Reconcile by hand, then move the directory away: a new journal begins"
    )]
    Uncovered {
        /// The journal.
        dir: PathBuf,
        /// The oldest record that is there.
        oldest: u64,
    },
}

/// Returns what earlier runs of the engine leave to the next one: out of the checkpoint and the records after
/// it, or out of all records where none was released.
pub fn restore(journal: &Path, universe: &Universe) -> Result<Vec<Record>, RestoreError> {
    for is_last_try in [false, false, false, false, true] {
        let begun = match begin(journal) {
            Ok(begun) => begun,
            Err(RestoreError::Journal(JournalError::Missing { .. })) => return Ok(Vec::new()),
            Err(RestoreError::Uncovered { .. }) if !is_last_try => continue,
            Err(error) => return Err(error),
        };
        let (mut gatherer, mut reader) = begun;
        let done = loop {
            match reader.next() {
                Ok(Some(record)) => gatherer.take(universe, &record),
                Ok(None) => return Ok(gatherer.finish()),
                Err(error) => break error,
            }
        };
        // The drain may release while we read: then a newer checkpoint covers what went.
        if is_last_try || !matches!(done, JournalError::SegmentMissing { .. }) {
            return Err(done.into());
        }
    }
    unreachable!("the last try returns")
}

/// Begins with the checkpoint, or with the first record.
fn begin(journal: &Path) -> Result<(Gatherer, JournalReader<Record>), RestoreError> {
    let (uuid, oldest) = oldest_seq(journal, record_schema())?;
    let open = |seq| JournalReader::<Record>::open_from(journal, record_schema(), seq);
    let (gatherer, from, reader) = if oldest == 1 {
        // Nothing was released: no checkpoint is needed, nor believed.
        (Gatherer::default(), 1, open(1)?)
    } else {
        let found = read(journal)?.filter(|found| found.uuid == uuid && oldest <= found.seq + 1);
        let uncovered = || RestoreError::Uncovered { dir: journal.to_owned(), oldest };
        let found = found.ok_or_else(uncovered)?;
        (found.gatherer, found.seq + 1, open(found.seq + 1)?)
    };
    if reader.next_seq() != from {
        return Err(RestoreError::Uncovered { dir: journal.to_owned(), oldest: reader.next_seq() });
    }
    Ok((gatherer, reader))
}

/// Follows a journal's records for its next checkpoint.
pub struct Checkpointer {
    read_run: ReadRun,
    universe: Universe,
    now: Checkpoint,
    trouble: Option<String>,
}

impl Checkpointer {
    /// Begins with the first record of a journal.
    #[must_use]
    pub fn new(uuid: u128, read_run: ReadRun) -> Checkpointer {
        let now = Checkpoint {
            uuid,
            seq: 0,
            config: String::new(),
            begun_ns: 0,
            text: ConfigText::default(),
            gatherer: Gatherer::default(),
        };
        let universe = Universe { assets: Vec::new(), instruments: Vec::new() };
        Checkpointer { read_run, universe, now, trouble: None }
    }

    /// Goes on after a checkpoint.
    #[must_use]
    pub fn resume(checkpoint: Checkpoint, read_run: ReadRun) -> Checkpointer {
        let mut resumed = Checkpointer::new(checkpoint.uuid, read_run);
        resumed.now = checkpoint;
        resumed.configure();
        resumed
    }

    fn configure(&mut self) {
        if self.now.config.is_empty() {
            return;
        }
        match (self.read_run)(&self.now.config) {
            Ok(run) => (self.universe, self.trouble) = (run.universe, None),
            Err(error) => self.trouble = Some(error),
        }
    }

    /// Returns the sequence of the record that is taken next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.now.seq + 1
    }

    /// Takes the next record; others are passed over.
    pub fn take(&mut self, record: &Record) {
        if record.seq != self.next_seq() {
            return;
        }
        self.now.seq = record.seq;
        if record.kind() != Some(Kind::Config) {
            if self.now.begun_ns == 0 {
                self.now.begun_ns = record.engine_ts_ns;
            }
            self.now.gatherer.take(&self.universe, record);
            return;
        }
        match self.now.text.take(record) {
            None => {}
            Some(Ok(text)) => {
                self.now.config = text;
                self.now.begun_ns = 0;
                self.configure();
            }
            Some(Err(error)) => self.trouble = Some(error),
        }
    }

    /// Returns the checkpoint after the last record that was taken; why not, where a run's configuration
    /// cannot be read.
    pub fn now(&self) -> Result<&Checkpoint, &str> {
        self.trouble.as_deref().map_or(Ok(&self.now), Err)
    }
}
