//! Where imported inputs go: the journal, with the engine's answers.
//!
//! Invariant: every input stands in the journal before what the engine puts out for it, stamped with the time at
//! which it is taken; so a replay of what was written gives the same outputs.
//!
//! Not here: where inputs come from (`captures`, `merge`, `crate::generate`).

use std::path::Path;
use std::time::Duration;

use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::record::Record;
use tandem_feeds::machine::Publish;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalSpec, JournalWriter};

use super::error::DataError;
use crate::table::{self, Table};

/// What was written.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Recorded {
    /// Messages taken.
    pub messages: u64,
    /// Records in the journal.
    pub records: u64,
    /// Opportunities found, by kind: cross-venue, triangular, cross-quote.
    pub opportunities: [u64; 3],
}

/// Begins an empty journal at `to`.
pub fn journal(to: &Path) -> Result<JournalWriter<Record>, JournalError> {
    let spec = JournalSpec {
        segment_bytes: 32 << 20,
        segments_max: 4_096,
        ..JournalSpec::new(record_schema())
    };
    JournalWriter::create(to, &spec)
}

/// Where recorded inputs go: the journal, with the engine's answers.
pub struct Recorder {
    engine: Engine,
    out: Outbox,
    journal: JournalWriter<Record>,
    now_ns: i64,
    failure: Option<String>,
}

impl Recorder {
    /// Begins a journal at `to` with what the engine is built from.
    pub fn begin(to: &Path, table: &Table) -> Result<Recorder, DataError> {
        let mut recorder = Recorder::new(table.engine()?, journal(to)?);
        table::to_records(&table.setup)?.iter().for_each(|record| recorder.append(record));
        Ok(recorder)
    }

    /// Returns a recorder of an engine that has seen nothing.
    #[must_use]
    pub fn new(engine: Engine, journal: JournalWriter<Record>) -> Recorder {
        let out = Outbox::new(OUTBOX_RECORDS);
        Recorder { engine, out, journal, now_ns: 0, failure: None }
    }

    /// Appends a record as it is.
    pub fn append(&mut self, record: &Record) {
        if let Err(failure) = append(&mut self.journal, record) {
            self.failure = Some(failure);
        }
    }

    /// Takes one input at a time of the recording: into the journal, into the engine, its outputs too.
    pub fn take(&mut self, now_ns: i64, record: &Record) {
        self.now_ns = now_ns;
        if self.failure.is_some() {
            return;
        }
        let stamped = Record { engine_ts_ns: now_ns, ..*record };
        self.append(&stamped);
        self.engine.step(&stamped, &mut self.out);
        let outputs = std::mem::replace(&mut self.out, Outbox::new(0));
        outputs.records().iter().for_each(|output| self.append(output));
        self.out = outputs;
        self.out.clear();
    }

    /// Sets the time at which the inputs that follow are taken; it never goes back.
    pub fn at(&mut self, now_ns: i64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Returns the time at which the last input was taken, UNIX ns.
    #[must_use]
    pub const fn now_ns(&self) -> i64 {
        self.now_ns
    }

    /// Returns the journal's next sequence.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.journal.next_seq()
    }

    /// Returns whether the journal had no room.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Closes the journal and reports.
    pub fn finish(self, messages: u64) -> Result<Recorded, DataError> {
        if let Some(failure) = self.failure {
            return Err(DataError::Full(failure));
        }
        let records = self.journal.next_seq() - 1;
        let opportunities = self.engine.counts().opportunities;
        self.journal.close()?;
        Ok(Recorded { messages, records, opportunities })
    }
}

/// Appends a record to a journal; says why where there is no room.
pub fn append(journal: &mut JournalWriter<Record>, record: &Record) -> Result<(), String> {
    // The journal's helper makes segments ready as fast as memory comes; we may wait for it here.
    for _ in 0..20_000 {
        if journal.append(record).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Err(journal.helper_failure().unwrap_or_else(|| "segments_max is reached".to_owned()))
}

impl Publish for Recorder {
    fn publish(&mut self, record: &Record) {
        self.take(self.now_ns, record);
    }
}
