//! A reader of the journal with a place of its own: what a sink with a durable cursor follows.
//!
//! Invariant: records come in the journal's order, each once, from the place that was asked for; where some
//! cannot be read any more that is told ([`Step::Lost`]) before the next one, with how many. A tail holds no
//! records: a sink that is hours behind costs no memory here. Nothing waits.

use std::path::PathBuf;

use tandem_core::record::Record;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalReader};

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
        /// The next one that is there.
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

/// Reads a journal from a place of its own.
pub struct Tail {
    places: Places,
    from: Option<Position>,
    reader: Option<JournalReader<Record>>,
}

impl Tail {
    /// Begins at a place, or at the oldest record that is there. Nothing needs to be there yet.
    #[must_use]
    pub fn new(places: Places, from: Option<Position>) -> Tail {
        Tail { places, from, reader: None }
    }

    /// Returns the place of the next record; nothing before the first journal is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match &self.reader {
            Some(reader) => Some(Position { journal: reader.uuid(), seq: reader.next_seq() }),
            None => self.from,
        }
    }

    /// Takes one step.
    pub fn step(&mut self) -> Result<Step, JournalError> {
        let Some(reader) = &mut self.reader else { return self.open() };
        Ok(reader.next()?.map_or(Step::UpToDate, Step::Record))
    }

    fn open(&mut self) -> Result<Step, JournalError> {
        let from = self.from.map_or(1, |from| from.seq);
        match JournalReader::open_from(&self.places.journal, record_schema(), from) {
            Ok(reader) => {
                let place = Position { journal: reader.uuid(), seq: reader.next_seq() };
                self.reader = Some(reader);
                Ok(Step::Journal(place))
            }
            Err(JournalError::Missing { .. }) => Ok(Step::UpToDate),
            Err(error) => Err(error),
        }
    }
}
