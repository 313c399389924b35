//! The thread between the journal and the archive.
//!
//! Invariant: it reads shared memory and nothing waits for it. Records become blocks by size and by time; only
//! when a block is durable is that published, and only then, and only once a checkpoint covers it, is a segment
//! released; the newest ones stay in any case. A full disk is waited for without reading on. Whatever else
//! goes wrong is told, and then nothing is released any more: the journal fills up, and the engine stops
//! taking new input before anything would be lost.
//!
//! Not here: how blocks are written (`writer`), what a checkpoint is (`checkpoint`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tandem_core::record::Record;
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalReader, JournalRelease, oldest_seq, read_released};

use super::checkpoint::{self, Checkpoint, Checkpointer};
use super::codec::BLOCK_RECORDS_MAX;
use super::disk::Disk;
use super::reader::{ArchiveReader, Step};
use super::retain::{Retention, retain};
use super::status::{Page, State, Status, StatusNow};
use super::writer::{ArchiveLock, ArchiveWriter, Format, Resume};
use super::{ArchiveError, list_files};
use crate::plan::Hands;
use crate::run::ReadRun;
use crate::source::now_ns;
use crate::status::SinkStatus;
use crate::{Look, Sink};

/// While there is nothing to read.
const NAP: Duration = Duration::from_millis(1);
/// Between two looks at the disk, and at whether the journal is still the same one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to write onto a full disk, or to attach to a journal.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks at what need not be kept.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// A reason to pause is acted on again after this time, should somebody have armed meanwhile.
const PAUSE_AGAIN: Duration = Duration::from_secs(10);
/// Below this share of the disk it is told, and below that trading pauses, ppm (ST-03).
const LOW_PPM: i64 = 200_000;
const PAUSE_PPM: i64 = 50_000;

/// What the archiver is to do.
pub struct Settings {
    /// The archive's directory.
    pub root: PathBuf,
    /// The journal in shared memory.
    pub journal: PathBuf,
    /// The run's directory, for the stats; nothing where nobody reads them.
    pub stats: Option<PathBuf>,
    /// Files and compression.
    pub format: Format,
    /// A record becomes durable within this time and that of one sync.
    pub sync: Duration,
    /// The newest segments are never released.
    pub keep_segments: u64,
    /// With fewer bytes free trading pauses, whatever share of the disk they are.
    pub free_min_bytes: u64,
    /// What is kept.
    pub retention: Retention,
    /// Reads a run's configuration.
    pub read_run: ReadRun,
    /// What may be done to the run when durability is in doubt.
    pub hands: Option<Box<dyn Hands>>,
    /// Where it tells how it is doing, as every sink does.
    pub page: Arc<SinkStatus>,
}

/// The running archive: a sink of the drain that reads the journal itself.
pub struct Archiver {
    stop: Arc<AtomicBool>,
    status: Arc<Status>,
    sink: Arc<SinkStatus>,
    /// The last record that the source gave.
    seen: u64,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    /// Takes the archive and starts. An archive that another process writes is refused; a directory that cannot
    /// be used now is tried again, told, and keeps nobody else from working.
    pub fn start(
        settings: Settings,
        disk: fn() -> Box<dyn Disk>,
    ) -> Result<Archiver, ArchiveError> {
        let lock = match ArchiveLock::take(&settings.root) {
            Ok(lock) => Some(lock),
            Err(error @ ArchiveError::Locked { .. }) => return Err(error),
            Err(_) => None,
        };
        let (stop, status) = (Arc::new(AtomicBool::new(false)), Arc::new(Status::default()));
        let (root, sink) = (settings.root.clone(), Arc::clone(&settings.page));
        let worker = Worker {
            page: None,
            settings,
            disk,
            lock,
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
            now: StatusNow::default(),
            written_before: 0,
            next_look: Instant::now(),
            next_retain: Instant::now(),
            next_pause: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("archive".to_owned());
        let thread = thread
            .spawn(move || worker.run())
            .map_err(ArchiveError::io("start the thread of", root))?;
        Ok(Archiver { stop, status, sink, seen: 0, thread: Some(thread) })
    }

    /// Returns how it stands.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Makes durable what was read, and ends; says whether it did within the time.
    pub fn stop(&mut self, within: Duration) -> bool {
        // Relaxed: the join is the synchronisation.
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return true };
        let by = Instant::now() + within;
        while !thread.is_finished() && Instant::now() < by {
            std::thread::sleep(NAP);
        }
        let ended = thread.is_finished();
        if ended {
            // It ended by itself, or panicked and has said so.
            let _ = thread.join();
        }
        ended
    }
}

impl Sink for Archiver {
    // It reads the journal itself, from where the archive ends; this is for how far it is behind.
    fn record(&mut self, record: &Record, _is_past: bool) {
        self.seen = record.seq;
    }

    fn lost(&mut self, _what: &str) {}

    fn look(&mut self, _look: &Look) {
        let lag = self.seen.saturating_sub(self.status.now().durable_seq);
        self.sink.lag(lag, lag.saturating_mul(tandem_shm::RECORD_BYTES as u64));
    }

    fn close(&mut self, within: Duration) {
        if !self.stop(within) {
            tracing::warn!(
                "the archive is still writing: what is not durable is archived at the next start"
            );
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(5));
    }
}

/// Why a journal is not followed any further.
enum Ended {
    /// It was asked to.
    Stopped,
    /// The journal was begun anew.
    Replaced,
    /// Wait for an operator; nothing is released meanwhile.
    Refused(String),
    /// The disk failed: for good.
    Failed(String),
}

impl From<ArchiveError> for Ended {
    fn from(error: ArchiveError) -> Ended {
        match error {
            ArchiveError::Failed { .. } => Ended::Failed(error.to_string()),
            _ => Ended::Refused(error.to_string()),
        }
    }
}

struct Worker {
    settings: Settings,
    disk: fn() -> Box<dyn Disk>,
    lock: Option<ArchiveLock>,
    stop: Arc<AtomicBool>,
    status: Arc<Status>,
    page: Option<Page>,
    now: StatusNow,
    /// Bytes that the writers of earlier journals wrote.
    written_before: u64,
    next_look: Instant,
    next_retain: Instant,
    next_pause: Instant,
}

impl Worker {
    fn run(mut self) {
        while !self.is_stopped() {
            match self.follow() {
                Ended::Stopped => break,
                Ended::Replaced => {
                    tracing::warn!(
                        "the journal was begun anew; the archive goes on with the new one"
                    );
                }
                Ended::Refused(why) => {
                    self.trouble(State::Refused, &why);
                    self.wait(LOOK_EVERY);
                }
                Ended::Failed(why) => {
                    self.trouble(State::Failed, &why);
                    // Nothing is tried again: a success would prove nothing.
                    while !self.is_stopped() {
                        self.wait(LOOK_EVERY);
                    }
                }
            }
        }
        self.now.state = match self.now.state {
            State::Failed => State::Failed,
            _ => State::Stopped,
        };
        self.publish();
        if let Some(page) = self.page.take() {
            page.close();
        }
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: nothing else is read after it.
        self.stop.load(Ordering::Relaxed)
    }

    fn trouble(&mut self, state: State, why: &str) {
        if self.now.trouble.as_deref() != Some(why) {
            tracing::error!(state = state.name(), "archive: {why}");
            self.now.errors += 1;
            self.now.trouble = Some(why.to_owned());
            self.settings.page.failed(why, true);
        }
        self.now.state = state;
        self.look();
    }

    fn well(&mut self, state: State) {
        if let Some(was) = self.now.trouble.take() {
            tracing::info!("archive: over: {was}");
        }
        self.now.state = state;
        self.settings.page.alive(now_ns());
    }

    fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.look();
    }

    fn publish(&mut self) {
        self.status.set(&self.now);
        if self.page.is_none()
            && let Some(dir) = &self.settings.stats
        {
            self.page = Page::create(dir).ok();
        }
        if let Some(page) = &mut self.page {
            page.set(&self.now);
        }
    }

    /// Looks at the disk where it is time, tells what is to be told, and pauses where that is needed.
    fn look(&mut self) {
        if Instant::now() < self.next_look {
            return self.publish();
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let disk = (self.disk)();
        if let Ok((free, total)) = disk.space(&self.settings.root) {
            self.now.free_bytes = free;
            self.now.free_ppm =
                i64::try_from(u128::from(free) * 1_000_000 / u128::from(total.max(1))).unwrap_or(0);
            let percent = self.now.free_ppm / 10_000;
            let is_short = self.now.free_ppm < PAUSE_PPM || free < self.settings.free_min_bytes;
            let low = (self.now.free_ppm < LOW_PPM || is_short).then(|| {
                let root = self.settings.root.display();
                format!("{root}: {percent} % of the disk are free, {} MiB", free >> 20)
            });
            if low.is_some() != self.now.low.is_some()
                && let Some(low) = &low
            {
                tracing::warn!("archive: {low}");
            }
            let doubt = matches!(self.now.state, State::Failed | State::NoSpace | State::Refused);
            self.now.pause_wanted = match (doubt, is_short) {
                (true, _) => self.now.trouble.clone(),
                (false, true) => low.clone(),
                (false, false) => None,
            };
            self.now.low = low;
        }
        if let Some(reason) = &self.now.pause_wanted
            && self.next_pause <= Instant::now()
            && let Some(hands) = &mut self.settings.hands
        {
            self.next_pause = Instant::now() + PAUSE_AGAIN;
            // The level's reason is one line of a screen.
            let reason: String = format!("archive: {reason}").chars().take(200).collect();
            match hands.pause(&reason) {
                Ok(true) => tracing::warn!("paused: {reason}"),
                Ok(false) => {}
                Err(error) => tracing::error!("could not pause: {error}"),
            }
        }
        if self.next_retain <= Instant::now() {
            self.next_retain = Instant::now() + RETAIN_EVERY;
            match retain(&*disk, &self.settings.root, self.settings.retention, SystemTime::now()) {
                Ok(removed) => {
                    for path in &removed {
                        tracing::info!(path = %path.display(), "archive: removed, as retention says");
                    }
                    self.now.removed += removed.len() as u64;
                }
                Err(error) => {
                    tracing::error!("archive: retention: {error}");
                    self.now.errors += 1;
                }
            }
        }
        self.publish();
    }

    /// Waits for a journal and follows it.
    fn follow(&mut self) -> Ended {
        if self.lock.is_none() {
            match ArchiveLock::take(&self.settings.root) {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => return error.into(),
            }
        }
        let (uuid, oldest) = loop {
            match oldest_seq(&self.settings.journal, record_schema()) {
                Ok(found) => break found,
                Err(JournalError::Missing { .. }) => self.well(State::Waiting),
                Err(error) => return Ended::Refused(error.to_string()),
            }
            self.wait(RETRY);
            if self.is_stopped() {
                return Ended::Stopped;
            }
        };
        match Following::begin(self, uuid, oldest) {
            Ok(following) => {
                self.well(State::Archiving);
                let ended = following.run(self);
                self.written_before = self.now.written_bytes;
                ended
            }
            Err(ended) => ended,
        }
    }
}

/// A segment that was read whole.
struct Read {
    segment: u64,
    last_seq: u64,
    /// The state after its last record; why there is none.
    checkpoint: Result<Checkpoint, String>,
}

/// One journal being followed.
struct Following {
    uuid: u128,
    reader: JournalReader<Record>,
    writer: ArchiveWriter,
    checkpointer: Option<Checkpointer>,
    release: JournalRelease,
    /// Segments that are not released, the oldest first.
    read: VecDeque<Read>,
    batch: Vec<Record>,
    /// When the oldest record of the batch was taken.
    since: Instant,
    /// The first sequence that is to be archived.
    from: u64,
    /// When a record came last.
    heard: Instant,
}

impl Following {
    fn begin(worker: &mut Worker, uuid: u128, oldest: u64) -> Result<Following, Ended> {
        let journal = worker.settings.journal.clone();
        // Released segments are gone, so what is in shared memory begins right after them or before.
        let durable = read_released(&journal).map(|(_, durable)| durable);
        let confirmed = durable.filter(|durable| oldest <= durable + 1);
        let resume = Resume { uuid, confirmed };
        let lock = worker.lock.as_ref().expect("taken before a journal is followed");
        let (writer, recovered) =
            ArchiveWriter::open(lock, (worker.disk)(), resume, worker.settings.format)?;
        if let Some((bytes, aside)) = &recovered.torn {
            tracing::warn!(
                "archive: a write was cut short: {bytes} bytes after the last whole block are kept as {}",
                aside.display()
            );
        }
        if recovered.unconfirmed != 0 {
            let bytes = recovered.unconfirmed;
            tracing::info!(
                "archive: {bytes} bytes were never confirmed by the disk; written again"
            );
        }
        let from = writer.next_seq().unwrap_or(oldest);
        if from < oldest {
            return Err(
                ArchiveError::Gap { dir: writer.dir().to_owned(), next: from, oldest }.into()
            );
        }
        if let Some(durable) = durable.filter(|durable| from <= *durable) {
            tracing::error!(
                "archive: it was durable up to record {durable} and ends before {from}: the disk lost what it \
                 had confirmed; the records are archived again from shared memory"
            );
            worker.now.errors += 1;
        }
        let checkpointer = checkpointer(worker, uuid, oldest, &writer);
        let start = checkpointer.as_ref().map_or(from, |taken| taken.next_seq().min(from));
        let refused = |error: JournalError| Ended::Refused(error.to_string());
        let ends = JournalReader::<Record>::open_from(&journal, record_schema(), from);
        let ends = ends.map_err(refused)?.next_seq();
        if ends < from {
            let dir = writer.dir().to_owned();
            return Err(ArchiveError::Ahead { dir, next: from, ends }.into());
        }
        let mut release =
            JournalRelease::create(&journal).map_err(|error| Ended::Refused(error.to_string()))?;
        release.release_up_to(0, from - 1);
        let reader = JournalReader::open_from(&journal, record_schema(), start).map_err(refused)?;
        let now = Instant::now();
        worker.now.durable_seq = from - 1;
        worker.now.released_segment = release.segment();
        Ok(Following {
            uuid,
            reader,
            writer,
            checkpointer,
            release,
            read: VecDeque::new(),
            batch: Vec::with_capacity(BLOCK_RECORDS_MAX),
            since: now,
            from,
            heard: now,
        })
    }

    fn run(mut self, worker: &mut Worker) -> Ended {
        let ended = loop {
            let is_stopping = worker.is_stopped();
            let more = match self.fill() {
                Ok(more) => more,
                Err(error) => {
                    // What was read before it is archived all the same.
                    let flushed = self.flush(worker);
                    let ended = match self.is_replaced(worker) {
                        true => Ended::Replaced,
                        false => Ended::Refused(error.to_string()),
                    };
                    break flushed.err().unwrap_or(ended);
                }
            };
            let is_due = worker.settings.sync <= self.since.elapsed();
            if !self.batch.is_empty()
                && (is_due || is_stopping || BLOCK_RECORDS_MAX <= self.batch.len())
                && let Err(ended) = self.flush(worker)
            {
                break ended;
            }
            if is_stopping && !more {
                break Ended::Stopped;
            }
            self.tell(worker);
            if !more {
                if LOOK_EVERY < self.heard.elapsed() {
                    self.heard = Instant::now();
                    if self.is_replaced(worker) {
                        break self.flush(worker).err().unwrap_or(Ended::Replaced);
                    }
                }
                std::thread::sleep(NAP);
            }
        };
        self.tell(worker);
        self.release.close();
        ended
    }

    /// Whether another journal was begun in the place of this one.
    fn is_replaced(&self, worker: &Worker) -> bool {
        let found = oldest_seq(&worker.settings.journal, record_schema());
        found.is_ok_and(|(uuid, _)| uuid != self.uuid)
    }

    /// Takes records until the block is full or there are none; says whether there are more.
    fn fill(&mut self) -> Result<bool, JournalError> {
        while self.batch.len() < BLOCK_RECORDS_MAX {
            let segment = self.reader.segment();
            let Some(record) = self.reader.next()? else { return Ok(false) };
            if self.reader.segment() != segment {
                self.read.push_back(Read {
                    segment,
                    last_seq: record.seq - 1,
                    checkpoint: self.checkpoint(record.seq),
                });
            }
            if let Some(checkpointer) = &mut self.checkpointer {
                checkpointer.take(&record);
            }
            if self.from <= record.seq {
                if self.batch.is_empty() {
                    self.since = Instant::now();
                }
                self.batch.push(record);
            }
            self.heard = Instant::now();
        }
        Ok(true)
    }

    /// Returns the state before a record.
    fn checkpoint(&self, next_seq: u64) -> Result<Checkpoint, String> {
        let Some(checkpointer) = &self.checkpointer else {
            return Err("no checkpoint could be begun".to_owned());
        };
        if checkpointer.next_seq() != next_seq {
            return Err("the checkpoint does not reach here".to_owned());
        }
        checkpointer.now().cloned().map_err(str::to_owned)
    }

    /// Makes the batch durable, waiting for a full disk.
    fn flush(&mut self, worker: &mut Worker) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut done = self.writer.append(&self.batch);
        while let Err(error @ ArchiveError::NoSpace { .. }) = &done {
            worker.trouble(State::NoSpace, &error.to_string());
            self.tell(worker);
            worker.wait(RETRY);
            if worker.is_stopped() {
                // Nothing is lost: it is in shared memory, and the archive goes on there.
                return Err(Ended::Stopped);
            }
            done = self.writer.retry();
        }
        let next_seq = done?;
        if worker.now.state != State::Archiving {
            worker.well(State::Archiving);
        }
        worker.now.records += self.batch.len() as u64;
        worker.settings.page.wrote(self.batch.len() as u64, self.since.elapsed(), now_ns());
        worker.now.written_bytes = worker.written_before + self.writer.bytes_written();
        if let Some(page) = &mut worker.page {
            page.committed(u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        self.batch.clear();
        self.release(worker, next_seq - 1);
        Ok(())
    }

    /// Publishes what is durable, and lets segments go that nobody needs any more.
    fn release(&mut self, worker: &mut Worker, durable: u64) {
        let newest = self.reader.segment();
        let mut last = None;
        while let Some(read) = self.read.front() {
            let is_kept = newest < read.segment + worker.settings.keep_segments;
            if durable < read.last_seq || is_kept {
                break;
            }
            last = self.read.pop_front();
        }
        let Some(read) = last else { return self.release.release_up_to(0, durable) };
        let journal = worker.settings.journal.clone();
        let written = read.checkpoint.as_ref().map_err(Clone::clone).and_then(|checkpoint| {
            debug_assert_eq!(checkpoint.seq, read.last_seq);
            checkpoint::write(&journal, &checkpoint.to_bytes()).map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => self.release.release_up_to(read.segment, durable),
            Err(why) => {
                tracing::error!(
                    "archive: segment {} is not released, for an engine's restart needs it: {why}",
                    read.segment
                );
                worker.now.errors += 1;
                self.release.release_up_to(0, durable);
            }
        }
    }

    fn tell(&mut self, worker: &mut Worker) {
        worker.now.durable_seq = self.release.durable_seq();
        worker.now.released_segment = self.release.segment();
        worker.now.files = self.writer.files();
        worker.now.lag_records = self.batch.len() as u64;
        worker.now.lag_ns = match self.batch.is_empty() {
            true => 0,
            false => u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        self.release.beat(tandem_shm::tsc());
        worker.look();
    }
}

/// Begins to follow for checkpoints: after the one that is there, with the first record, or out of the archive.
/// Without one no segment is released, and that is told.
fn checkpointer(
    worker: &mut Worker,
    uuid: u128,
    oldest: u64,
    writer: &ArchiveWriter,
) -> Option<Checkpointer> {
    let read_run = worker.settings.read_run;
    let found = match checkpoint::read(&worker.settings.journal) {
        Ok(Some(found)) if found.uuid == uuid && oldest <= found.seq + 1 => {
            return Some(Checkpointer::resume(found, read_run));
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    let mut begun = Checkpointer::new(uuid, read_run);
    if oldest == 1 {
        return Some(begun);
    }
    let made = match list_files(writer.dir()) {
        Ok(files) if files.first() == Some(&1) => replay(&mut begun, writer, uuid, oldest),
        _ => Err("the archive does not begin with the journal's first record".to_owned()),
    };
    match made {
        Ok(()) => Some(begun),
        Err(why) => {
            let why = found.unwrap_or(why);
            tracing::error!("archive: no segment is released: a checkpoint cannot be made: {why}");
            worker.now.errors += 1;
            None
        }
    }
}

/// Gives a checkpoint all records of the archive before one.
fn replay(
    begun: &mut Checkpointer,
    writer: &ArchiveWriter,
    uuid: u128,
    before: u64,
) -> Result<(), String> {
    let mut reader =
        ArchiveReader::open(writer.dir(), uuid, 1).map_err(|error| error.to_string())?;
    while begun.next_seq() < before {
        match reader.step().map_err(|error| error.to_string())? {
            Step::Record(record) => begun.take(&record),
            Step::Missing { why, .. } => return Err(why),
            Step::End => return Err("the archive ends before shared memory begins".to_owned()),
        }
    }
    Ok(())
}
