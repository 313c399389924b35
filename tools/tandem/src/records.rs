//! The records of a journal wherever they are: in shared memory, copied to a directory, or in an archive.
//!
//! Invariant: whoever reads a journal reads it here, in order, each record once. Of the configured run that is
//! the journal that is written now, from its first record on: what was released is read from the archive.
//! Records that are missing are never passed over unseen: they are an error, or told where reading may go on.
//!
//! Not here: how it is done (`tandem_drain::tail`, `tandem_drain::archive`).

use std::io;
use std::path::{Path, PathBuf};

use tandem_core::record::Record;
use tandem_drain::archive::reader::{ArchiveReader, Step as ArchiveStep};
use tandem_drain::archive::{self, ArchiveError, verify};
use tandem_drain::tail::{Places, Position, Step, Tail};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalReader, ShmError, oldest_seq};

use crate::config::Config;

/// Where records are to be read.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A journal's directory, an archive, or a journal's folder in one.
    Path(PathBuf),
    /// A run's journal, with its archive.
    Run(Places),
}

impl Origin {
    /// The journal that is named, or the configured run's.
    #[must_use]
    pub fn of(config: &Config) -> Origin {
        match &config.archive {
            None => Origin::Path(config.journal_dir()),
            Some(_) => Origin::Run(crate::drain_role::places(config)),
        }
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Origin {
    fn from(path: &P) -> Origin {
        Origin::Path(path.as_ref().to_owned())
    }
}

enum Reading {
    Journal(JournalReader<Record>),
    Tail(Box<Tail>),
    Folder(Box<ArchiveReader>),
}

/// Reads records.
pub struct Records {
    reading: Reading,
    /// Whether missing records are an error.
    is_strict: bool,
    /// A fault behind records that were given out first.
    failed: Option<JournalError>,
}

fn wrong(error: ArchiveError) -> JournalError {
    let (op, path, source) = match error {
        ArchiveError::Io { op, path, source } => (op, path, source),
        other => ("read", PathBuf::from("archive"), io::Error::other(other.to_string())),
    };
    JournalError::Shm(ShmError::Io { op, path, source })
}

impl Records {
    /// Opens at the first record; what is missing is told on standard error and passed over.
    pub fn open(from: impl Into<Origin>) -> Result<Records, JournalError> {
        Records::open_from(from, 1)
    }

    /// The same, but what is missing is an error.
    pub fn strict(from: impl Into<Origin>) -> Result<Records, JournalError> {
        Ok(Records { is_strict: true, ..Records::open(from)? })
    }

    /// Opens at a sequence, or the oldest record if that is later; of an archive with several journals, in the
    /// last one, but from the first record of the first one for sequence 1.
    pub fn open_from(from: impl Into<Origin>, seq: u64) -> Result<Records, JournalError> {
        let reading = match from.into() {
            Origin::Run(places) => run(places, seq)?,
            Origin::Path(path) if archive::is_archive(&path) => in_archive(&path, seq)?,
            Origin::Path(path) => {
                Reading::Journal(JournalReader::open_from(&path, record_schema(), seq)?)
            }
        };
        Ok(Records { reading, is_strict: false, failed: None })
    }

    /// Fills `to` from its front with the next records and returns how many: none where there are none yet.
    ///
    /// # Errors
    /// As [`Records::next`]; what comes before the fault is returned first.
    pub fn fill(&mut self, to: &mut [Record]) -> Result<usize, JournalError> {
        if let Reading::Journal(reader) = &mut self.reading {
            return reader.fill(to);
        }
        for (count, slot) in to.iter_mut().enumerate() {
            match self.next() {
                Ok(Some(record)) => *slot = record,
                Ok(None) => return Ok(count),
                Err(error) if count == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(count);
                }
            }
        }
        Ok(to.len())
    }

    /// Returns the next record; nothing where there is none yet.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: a writer may follow")]
    pub fn next(&mut self) -> Result<Option<Record>, JournalError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let (from, to, why) = match &mut self.reading {
                Reading::Journal(reader) => return reader.next(),
                Reading::Tail(tail) => match tail.step()? {
                    Step::Record(record) => return Ok(Some(record)),
                    Step::UpToDate => return Ok(None),
                    Step::Journal(_) => continue,
                    Step::Lost { from, to, why } => (from, to, why),
                },
                Reading::Folder(reader) => match reader.step().map_err(wrong)? {
                    ArchiveStep::Record(record) => return Ok(Some(record)),
                    ArchiveStep::End => return Ok(None),
                    ArchiveStep::Missing { from, to, why } => (from, to, why),
                },
            };
            let text = format!("records {from} to {} are missing: {why}", to.saturating_sub(1));
            if self.is_strict {
                let source = io::Error::other(text);
                let path = PathBuf::from("archive");
                return Err(JournalError::Shm(ShmError::Io { op: "read", path, source }));
            }
            eprintln!("note: {text}");
        }
    }
}

/// The journal that is written now, or else the last one that was archived.
fn run(places: Places, seq: u64) -> Result<Reading, JournalError> {
    let uuid = match oldest_seq(&places.journal, record_schema()) {
        Ok((uuid, _)) => Some(uuid),
        Err(JournalError::Missing { .. }) => None,
        Err(error) => return Err(error),
    };
    let root = places.archive.clone().unwrap_or_default();
    let archived =
        archive::list_journals(&root).map_err(|e| wrong(ArchiveError::io("list", &root)(e)))?;
    let journal = match (uuid, archived.last()) {
        (Some(uuid), _) => uuid,
        (None, Some(last)) => last.uuid,
        (None, None) => return Err(JournalError::Missing { dir: places.journal }),
    };
    let (oldest, places) = (seq.max(1), places);
    Ok(Reading::Tail(Box::new(Tail::new(places, Some(Position { journal, seq: oldest })))))
}

fn in_archive(path: &Path, seq: u64) -> Result<Reading, JournalError> {
    let journals = verify::journals(path).map_err(wrong)?;
    let missing = || JournalError::Missing { dir: path.to_owned() };
    let last = journals.last().ok_or_else(missing)?;
    if last.dir == path {
        let reader = ArchiveReader::open(path, last.uuid, seq).map_err(wrong)?;
        return Ok(Reading::Folder(Box::new(reader)));
    }
    // No journal is in memory there: all of it is the archive's.
    let places = Places { journal: path.join("none"), archive: Some(path.to_owned()) };
    let from = (seq != 1).then_some(Position { journal: last.uuid, seq });
    Ok(Reading::Tail(Box::new(Tail::new(places, from))))
}
