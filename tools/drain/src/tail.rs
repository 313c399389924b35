//! A reader of the journal with a place of its own: what a sink with a durable cursor follows.
//!
//! Invariant: records come in the journal's order, each once, from the place that was asked for; where some
//! cannot be read any more that is told ([`Step::Lost`]) before the next one, with how many. What is in shared
//! memory is read there, what is not any more in the archive, and a journal that is gone is followed by the
//! next one. A tail holds one block of records: a sink that is days behind costs no memory here. Nothing waits.
//!
//! Not here: how an archive is read (`archive::reader`), when segments go (`archive::archiver`).

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tandem_core::record::Record;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalReader, ShmError, oldest_seq};

use crate::archive::reader::{ArchiveReader, Step as ArchiveStep};
use crate::archive::{ArchiveError, JournalDir, list_files, list_journals};

/// Where nothing comes, it is looked this often whether the journal was begun anew.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A place in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Identity of the journal.
    pub journal: u128,
    /// Sequence of the next record.
    pub seq: u64,
}

/// What one step of a tail gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What follows is of this journal, from this place on.
    Journal(Position),
    /// The next record.
    Record(Record),
    /// Records of the journal that cannot be read any more: from the first sequence to before the second.
    Lost {
        /// The first one that is missing.
        from: u64,
        /// The next one that is there; the same as `from` where the whole journal is gone and it is not known
        /// how many records it had.
        to: u64,
        /// Why, in words.
        why: String,
    },
    /// There is no further record now.
    UpToDate,
}

/// Where the records of a run are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The journal in shared memory.
    pub journal: PathBuf,
    /// Its archive on disk.
    pub archive: Option<PathBuf>,
}

enum Reading {
    /// Nothing is open.
    Nowhere,
    Memory(JournalReader<Record>),
    Archive(ArchiveReader),
}

/// What there is of a journal in shared memory.
#[derive(Clone, Copy)]
struct InMemory {
    uuid: u128,
    oldest: u64,
}

/// Reads a journal from a place of its own.
pub struct Tail {
    places: Places,
    from: Option<Position>,
    reading: Reading,
    /// The journal was told.
    is_told: bool,
    next_look: Instant,
}

impl Tail {
    /// Begins at a place, or at the oldest record that is there. Nothing needs to be there yet.
    #[must_use]
    pub fn new(places: Places, from: Option<Position>) -> Tail {
        let reading = Reading::Nowhere;
        Tail { places, from, reading, is_told: false, next_look: Instant::now() }
    }

    /// Returns the place of the next record; nothing before the first journal is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.from
    }

    /// Takes one step. After an error the next step tries again.
    pub fn step(&mut self) -> Result<Step, JournalError> {
        loop {
            let step = match &mut self.reading {
                Reading::Nowhere => self.open()?,
                Reading::Memory(_) => self.memory()?,
                Reading::Archive(_) => self.archive()?,
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    fn took(&mut self, record: Record) -> Step {
        if let Some(from) = &mut self.from {
            from.seq = record.seq + 1;
        }
        Step::Record(record)
    }

    fn lost(&mut self, to: u64, why: String) -> Option<Step> {
        let from = self.from.as_mut()?;
        let missing = from.seq;
        from.seq = to;
        Some(Step::Lost { from: missing, to, why })
    }

    fn memory(&mut self) -> Result<Option<Step>, JournalError> {
        let Reading::Memory(reader) = &mut self.reading else { return Ok(None) };
        match reader.next() {
            Ok(Some(record)) => Ok(Some(self.took(record))),
            // Released before it was read here: the archive has it.
            Err(JournalError::SegmentMissing { .. }) => {
                self.reading = Reading::Nowhere;
                Ok(None)
            }
            Err(error) => {
                let uuid = reader.uuid();
                self.reading = Reading::Nowhere;
                match self.in_memory() {
                    // Begun anew: the other journal's segments have the names of this one's.
                    Ok(found) if found.is_none_or(|found| found.uuid != uuid) => Ok(None),
                    _ => Err(error),
                }
            }
            Ok(None) => {
                if Instant::now() < self.next_look {
                    return Ok(Some(Step::UpToDate));
                }
                self.next_look = Instant::now() + LOOK_EVERY;
                let uuid = reader.uuid();
                let next = reader.next_seq();
                match self.in_memory()? {
                    // Begun anew, or all that was read here is gone and more came.
                    Some(found) if found.uuid != uuid || next < found.oldest => {
                        self.reading = Reading::Nowhere;
                        Ok(None)
                    }
                    _ => Ok(Some(Step::UpToDate)),
                }
            }
        }
    }

    fn archive(&mut self) -> Result<Option<Step>, JournalError> {
        let Reading::Archive(reader) = &mut self.reading else { return Ok(None) };
        match reader.step().map_err(failed)? {
            ArchiveStep::Record(record) => Ok(Some(self.took(record))),
            ArchiveStep::Missing { to, why, .. } => {
                // Shared memory may still have it.
                self.reading = Reading::Nowhere;
                let at = self.from;
                match (self.in_memory()?, at) {
                    (Some(found), Some(at))
                        if found.uuid == at.journal && found.oldest <= at.seq =>
                    {
                        Ok(None)
                    }
                    _ => Ok(self.lost(to, why)),
                }
            }
            ArchiveStep::End => {
                self.reading = Reading::Nowhere;
                self.open()
            }
        }
    }

    /// Finds where the next record is and goes there.
    fn open(&mut self) -> Result<Option<Step>, JournalError> {
        // In this order: what is not in memory any more is in the archive by then.
        let memory = self.in_memory()?;
        let archived = self.archived(memory)?;
        let Some(at) = self.from else {
            // The oldest record there is: what was before that is not missed.
            let first = match (archived.first(), memory) {
                (Some((journal, Some(seq))), _) => Some((journal.uuid, *seq)),
                (Some((journal, None)), Some(found)) if journal.uuid == found.uuid => {
                    Some((found.uuid, found.oldest))
                }
                (None, Some(found)) => Some((found.uuid, found.oldest)),
                _ => None,
            };
            let Some((journal, seq)) = first else { return Ok(Some(Step::UpToDate)) };
            self.from = Some(Position { journal, seq });
            return Ok(None);
        };
        let own = archived.iter().position(|(journal, _)| journal.uuid == at.journal);
        let memory_own = memory.filter(|found| found.uuid == at.journal);
        if let Some(step) = self.open_memory(at, memory_own)? {
            return Ok(step);
        }
        if let Some(own) = own
            && let Some(step) = self.open_archive(at, &archived[own].0)?
        {
            return Ok(step);
        }
        match memory_own {
            // It goes on in memory, and what is between is nowhere.
            Some(found) if at.seq < found.oldest => {
                let to = found.oldest;
                let why = format!(
                    "records {} to {} are neither in shared memory nor in the archive",
                    at.seq,
                    to - 1
                );
                Ok(self.lost(to, why))
            }
            Some(_) => Ok(Some(Step::UpToDate)),
            None => self.next_journal(at, own, &archived, memory),
        }
    }

    /// Goes to shared memory, if the next record is there or comes there.
    fn open_memory(
        &mut self,
        at: Position,
        memory: Option<InMemory>,
    ) -> Result<Option<Option<Step>>, JournalError> {
        let Some(found) = memory.filter(|found| found.oldest <= at.seq) else { return Ok(None) };
        let path = self.places.journal.clone();
        let reader = match JournalReader::open_from(&path, record_schema(), at.seq) {
            Ok(reader) => reader,
            Err(JournalError::Missing { .. } | JournalError::SegmentMissing { .. }) => {
                return Ok(Some(Some(Step::UpToDate)));
            }
            Err(error) => return Err(error),
        };
        if reader.uuid() != found.uuid || at.seq < reader.next_seq() {
            // Begun anew, or released, since we looked: look again.
            return Ok(Some(None));
        }
        if reader.next_seq() < at.seq {
            // The place is behind the end: what was read there once is not there.
            return Ok(Some(Some(Step::UpToDate)));
        }
        self.reading = Reading::Memory(reader);
        self.next_look = Instant::now() + LOOK_EVERY;
        Ok(Some(self.tell(at)))
    }

    /// Goes to the archive, if the next record is there; tells what is missing before it.
    fn open_archive(
        &mut self,
        at: Position,
        journal: &JournalDir,
    ) -> Result<Option<Option<Step>>, JournalError> {
        let mut reader = ArchiveReader::open(&journal.dir, journal.uuid, at.seq).map_err(failed)?;
        if at.seq < reader.next_seq() {
            let to = reader.next_seq();
            let why =
                format!("the archive begins with record {to}: what was before it was removed");
            return Ok(Some(self.lost(to, why)));
        }
        match reader.step().map_err(failed)? {
            ArchiveStep::End => Ok(None),
            ArchiveStep::Missing { to, why, .. } => Ok(Some(self.lost(to, why))),
            ArchiveStep::Record(_) => {
                // Read again from the same place: one block is decoded twice, once in a long while.
                let reader =
                    ArchiveReader::open(&journal.dir, journal.uuid, at.seq).map_err(failed)?;
                self.reading = Reading::Archive(reader);
                Ok(Some(self.tell(at)))
            }
        }
    }

    /// The journal is over: its memory is gone, and the archive has no more of it.
    fn next_journal(
        &mut self,
        at: Position,
        own: Option<usize>,
        archived: &[(JournalDir, Option<u64>)],
        memory: Option<InMemory>,
    ) -> Result<Option<Step>, JournalError> {
        let next_archived = match own {
            Some(own) => archived.get(own + 1),
            // Nothing is known of it: whatever there is comes after it.
            None => archived.first(),
        };
        let next = match (next_archived, memory) {
            (Some((journal, oldest)), _) => {
                let oldest = oldest.or(memory
                    .filter(|found| found.uuid == journal.uuid)
                    .map(|found| found.oldest));
                oldest.map(|seq| Position { journal: journal.uuid, seq })
            }
            (None, Some(found)) => Some(Position { journal: found.uuid, seq: found.oldest }),
            (None, None) => None,
        };
        let Some(next) = next else { return Ok(Some(Step::UpToDate)) };
        self.from = Some(next);
        self.is_told = false;
        if own.is_some() {
            return Ok(None);
        }
        let why = format!(
            "journal {:032x} is gone, and no archive has it: what followed record {} is not known",
            at.journal,
            at.seq.saturating_sub(1)
        );
        Ok(Some(Step::Lost { from: at.seq, to: at.seq, why }))
    }

    /// Tells which journal is read, once.
    fn tell(&mut self, at: Position) -> Option<Step> {
        (!std::mem::replace(&mut self.is_told, true)).then_some(Step::Journal(at))
    }

    /// The journals of the archive that have something, with the first sequence of each, and the one that is
    /// read or written now even if it has nothing.
    fn archived(
        &self,
        memory: Option<InMemory>,
    ) -> Result<Vec<(JournalDir, Option<u64>)>, JournalError> {
        let Some(root) = &self.places.archive else { return Ok(Vec::new()) };
        let listed = list_journals(root).map_err(|e| failed(ArchiveError::io("list", root)(e)))?;
        let mut archived = Vec::with_capacity(listed.len());
        for journal in listed {
            let files = list_files(&journal.dir)
                .map_err(|error| failed(ArchiveError::io("list", &journal.dir)(error)))?;
            let first = files.first().copied();
            let is_now = self.from.is_some_and(|from| from.journal == journal.uuid)
                || memory.is_some_and(|found| found.uuid == journal.uuid);
            if first.is_some() || is_now {
                archived.push((journal, first));
            }
        }
        Ok(archived)
    }

    fn in_memory(&self) -> Result<Option<InMemory>, JournalError> {
        match oldest_seq(&self.places.journal, record_schema()) {
            Ok((uuid, oldest)) => Ok(Some(InMemory { uuid, oldest })),
            Err(JournalError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn failed(error: ArchiveError) -> JournalError {
    let (op, path, source) = match error {
        ArchiveError::Io { op, path, source } => (op, path, source),
        ArchiveError::Damaged { ref path, .. } => {
            ("read", path.clone(), io::Error::other(error.to_string()))
        }
        other => ("read", PathBuf::from("archive"), io::Error::other(other.to_string())),
    };
    JournalError::Shm(ShmError::Io { op, path, source })
}
