//! The journal read and made into batches, on a thread of its own: while the server takes one batch the next one
//! is gathered.
//!
//! Invariant: batches follow each other without a hole: each begins where the one before ends. At most one waits,
//! so memory is that of three batches. The thread ends when nobody takes batches any more.
//!
//! Not here: whether a batch was written (`mod`, which begins anew from the database where one was not).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::write::Batch;
use super::{CURSOR_EVERY, IDLE, Settings, Trouble};
use crate::rows::{Projector, Row, Table, Value};
use crate::run::ReadRun;
use crate::source::now_ns;
use crate::tail::{Position, Step, Tail};

/// Records of one batch at most: those that make no row are read fast.
const RECORDS_MAX: usize = 1 << 17;

/// Where the database is.
#[derive(Debug, Default)]
pub struct Start {
    /// The next record; nothing where nothing was drained yet.
    pub place: Option<Position>,
    /// What the projector keeps there.
    pub state: Vec<u8>,
    /// The run's configuration there.
    pub run_text: String,
}

/// Gathers batches.
pub struct Gatherer {
    from: Start,
    stop: Arc<AtomicBool>,
    rows_max: Arc<AtomicUsize>,
    batch_age: Duration,
    read_run: ReadRun,
    tail: Tail,
    projector: Option<Projector>,
    /// The next record, once it is known.
    next: Option<Position>,
    rows: Vec<Row>,
    records: usize,
    lost: u64,
    since: Instant,
}

impl Gatherer {
    /// Begins where the database is.
    pub fn new(
        settings: &Settings,
        from: Start,
        stop: Arc<AtomicBool>,
        rows_max: Arc<AtomicUsize>,
    ) -> Gatherer {
        Gatherer {
            tail: Tail::new(settings.places.clone(), from.place),
            projector: None,
            next: from.place,
            from,
            stop,
            rows_max,
            batch_age: settings.batch,
            read_run: settings.read_run,
            rows: Vec::new(),
            records: 0,
            lost: 0,
            since: Instant::now(),
        }
    }

    /// Gathers until nobody takes batches, the end is asked for, or the journal cannot be read.
    pub fn run(mut self, batches: &Sender<Result<Batch, Trouble>>) {
        if let Err(trouble) = self.follow(batches) {
            // Nobody who listens is nobody who needs it.
            drop(batches.blocking_send(Err(trouble)));
        }
    }

    fn follow(&mut self, batches: &Sender<Result<Batch, Trouble>>) -> Result<(), Trouble> {
        if let Some(place) = self.from.place {
            let state = std::mem::take(&mut self.from.state);
            let loaded = Projector::load(place.journal, self.read_run, &self.from.run_text, &state);
            self.projector = Some(loaded.map_err(|error| Trouble::Refused(error.to_string()))?);
        }
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            let up_to_date = self.gather(batches)?;
            let age = self.since.elapsed();
            let is_due = match self.rows.is_empty() {
                true => RECORDS_MAX <= self.records || (self.records != 0 && CURSOR_EVERY <= age),
                false => !up_to_date || self.batch_age <= age,
            };
            if (is_due || (stopping && self.records != 0)) && !self.hand_over(batches) {
                return Ok(());
            }
            if stopping && up_to_date || batches.is_closed() {
                return Ok(());
            }
            if up_to_date {
                std::thread::sleep(IDLE);
            }
        }
    }

    /// Takes what the journal has, up to a batch. Returns whether that was all of it.
    fn gather(&mut self, batches: &Sender<Result<Batch, Trouble>>) -> Result<bool, Trouble> {
        if self.records == 0 {
            self.since = Instant::now();
        }
        let rows_max = self.rows_max.load(Ordering::Relaxed);
        while self.rows.len() < rows_max && self.records < RECORDS_MAX {
            match self.tail.step().map_err(|error| Trouble::Journal(error.to_string()))? {
                Step::UpToDate => return Ok(true),
                Step::Journal(place) => {
                    let is_other = self.next.is_none_or(|next| next.journal != place.journal);
                    if is_other || self.projector.is_none() {
                        // What is gathered of the one before goes before anything of this one.
                        if self.records != 0 && !self.hand_over(batches) {
                            return Ok(true);
                        }
                        self.projector = Some(Projector::new(place.journal, self.read_run));
                        self.rows.push(journal_row(place));
                        self.records += 1;
                    }
                    self.next = Some(place);
                }
                Step::Record(record) => {
                    let Some(projector) = &mut self.projector else { continue };
                    projector.take(&record, &mut self.rows);
                    self.records += 1;
                    if let Some(next) = &mut self.next {
                        next.seq = record.seq + 1;
                    }
                }
                Step::Lost { from, to, why } => {
                    let Some(projector) = &mut self.projector else { continue };
                    projector.lost();
                    self.rows.push(gap_row(self.next, projector.last_ns(), (from, to), &why));
                    self.records += 1;
                    self.lost += to.saturating_sub(from);
                    if let Some(next) = &mut self.next {
                        next.seq = to;
                    }
                }
            }
        }
        Ok(false)
    }

    /// Hands over what is gathered; waits while one batch waits already. False where nobody takes it.
    fn hand_over(&mut self, batches: &Sender<Result<Batch, Trouble>>) -> bool {
        let (Some(next), Some(projector)) = (self.next, &self.projector) else { return true };
        let resume = projector.resume_from().unwrap_or(next.seq);
        let to = Some(Position { seq: resume, ..next });
        let run_text = projector.run().map_or("", |run| run.text.as_str());
        let is_other = run_text != self.from.run_text;
        let batch = Batch {
            rows: std::mem::take(&mut self.rows),
            from: self.from.place,
            to,
            last_ns: projector.last_ns(),
            state: projector.save(),
            run_text: is_other.then(|| run_text.to_owned()),
            lost: std::mem::take(&mut self.lost),
            skipped: projector.skipped(),
        };
        self.from.place = to;
        if let Some(text) = &batch.run_text {
            self.from.run_text.clone_from(text);
        }
        self.records = 0;
        batches.blocking_send(Ok(batch)).is_ok()
    }
}

fn journal_row(place: Position) -> Row {
    Row::empty(Table::Journals, place.seq)
        .with("journal", Value::Uuid(place.journal))
        .with("seq", Value::Int8(place.seq.cast_signed()))
        .with("first_seen", Value::Time(now_ns()))
}

fn gap_row(next: Option<Position>, at: i64, (from, to): (u64, u64), why: &str) -> Row {
    let journal = next.map_or(0, |next| next.journal);
    Row::empty(Table::JournalGaps, from)
        .with("journal", Value::Uuid(journal))
        .with("seq", Value::Int8(from.cast_signed()))
        .with("to_seq", Value::Int8(to.cast_signed()))
        .with("lost", Value::Int8(to.saturating_sub(from).cast_signed()))
        .with("at", Value::Time(at))
        .with("why", Value::text(why))
}
