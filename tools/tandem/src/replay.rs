//! A journal through the engine again: the same inputs must give the same outputs, byte for byte.
//!
//! Invariant: the outputs that the journal holds are compared one by one with those that a new engine
//! puts out for the journal's inputs. Only the outputs of the very last input of a run may be missing:
//! a process that is killed there has written its input and not yet all that followed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::record::{Kind, Record, flag};
use tandem_shm::JournalError;
use zerocopy::IntoBytes;

use crate::records::Records;
use crate::table::{Collector, Table, TableError};

/// What a replay found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReplayReport {
    /// Whether every output is identical.
    pub identical: bool,
    /// Records read, outputs included.
    pub records: u64,
    /// Inputs given to engines.
    pub inputs: u64,
    /// Outputs that the engines put out.
    pub outputs: u64,
    /// SHA-256 over the outputs put out, in order.
    pub digest: String,
    /// Runs in the journal: each begins with its configuration.
    pub runs: u64,
    /// Outputs missing at the end of a run that was killed.
    pub unfinished: u64,
    /// Outputs that differ.
    pub differences: u64,
    /// Where the first difference is: journal sequence, expected, found.
    pub first_difference: Option<Difference>,
    /// Records read a second.
    pub records_per_second: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// One output that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Sequence in the journal.
    pub seq: u64,
    /// What the engine put out on replay; nothing where it put out nothing.
    pub replayed: Option<String>,
    /// What stands in the journal; nothing where it is missing.
    pub journaled: Option<String>,
}

/// Why a replay could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The configuration in it.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Inputs before any configuration.
    #[error(
        "{path}: record {seq} comes before any configuration: the journal's first segment is missing, so \
         it cannot be replayed from here"
    )]
    NoConfiguration {
        /// The journal.
        path: PathBuf,
        /// The record.
        seq: u64,
    },
}

/// Replays a journal and compares its outputs.
pub fn verify(path: &Path) -> Result<ReplayReport, ReplayError> {
    let mut replay = Replay::new(path);
    let mut reader = Records::strict(path)?;
    let begun = Instant::now();
    while let Some(record) = reader.next()? {
        replay.take(&record)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    replay.end_of_run();
    let mut report = replay.report;
    // Nothing compared is nothing proven.
    report.identical = report.differences == 0 && report.runs != 0 && report.inputs != 0;
    report.digest = hex(&replay.digest.finalize());
    report.seconds = seconds;
    report.records_per_second = (report.records as f64 / seconds.max(1e-9)) as u64;
    Ok(report)
}

/// Bytes as lower-case hexadecimal text.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Replay {
    path: PathBuf,
    collector: Collector,
    engine: Option<Engine>,
    out: Outbox,
    expected: VecDeque<Record>,
    digest: Sha256,
    report: ReplayReport,
}

impl Replay {
    fn new(path: &Path) -> Replay {
        Replay {
            path: path.to_owned(),
            collector: Collector::default(),
            engine: None,
            out: Outbox::new(OUTBOX_RECORDS),
            expected: VecDeque::new(),
            digest: Sha256::new(),
            report: ReplayReport::default(),
        }
    }

    fn take(&mut self, record: &Record) -> Result<(), ReplayError> {
        self.report.records += 1;
        if record.kind() == Some(Kind::Config) {
            if let Some(table) = self.collector.take(record) {
                self.end_of_run();
                self.engine = Some(Table::engine(&table?)?);
                self.report.runs += 1;
            }
            return Ok(());
        }
        if record.has(flag::OUTPUT) {
            match self.expected.pop_front() {
                Some(expected) if expected.essence() == record.essence() => {}
                expected => self.differs(record.seq, expected.as_ref(), Some(record)),
            }
            return Ok(());
        }
        // All outputs of the input before must have been there.
        while let Some(missing) = self.expected.pop_front() {
            self.differs(record.seq, Some(&missing), None);
        }
        let Some(engine) = &mut self.engine else {
            let path = self.path.clone();
            return Err(ReplayError::NoConfiguration { path, seq: record.seq });
        };
        self.report.inputs += 1;
        engine.step(record, &mut self.out);
        for output in self.out.records() {
            self.report.outputs += 1;
            self.digest.update(output.essence().as_bytes());
            self.expected.push_back(*output);
        }
        self.out.clear();
        Ok(())
    }

    fn end_of_run(&mut self) {
        self.report.unfinished += self.expected.len() as u64;
        self.expected.clear();
    }

    fn differs(&mut self, seq: u64, replayed: Option<&Record>, journaled: Option<&Record>) {
        self.report.differences += 1;
        if self.report.first_difference.is_none() {
            let show = |record: Option<&Record>| record.map(|r| format!("{:?}", r.essence()));
            let (replayed, journaled) = (show(replayed), show(journaled));
            self.report.first_difference = Some(Difference { seq, replayed, journaled });
        }
    }
}
