//! The writing end, and the helper thread that keeps the kernel away from it.
//!
//! Invariant: the writer owns the current segment and the position in it; the helper owns the directory.
//! They meet in two queues: prepared segments one way, full ones to unmap the other way. A segment the
//! writer took is never deleted before it went on to the next.

use std::fs::{self, File, Permissions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::segment::{
    HeaderState, Segment, SegmentHeader, chain_next, chain_start, list_segments, segment_path,
    uuid_seed, write_frame,
};
use super::tail::Next;
use super::{CONTROL, JournalError, JournalFull, ReleasedPage};
use crate::clock::tsc;
use crate::error::ShmError;
use crate::payload::{Payload, RECORD_BYTES, assert_size, to_words};
use crate::region::{
    HEADER_BYTES, Note, RegionKind, RegionOwner, RegionSpec, allocate, ensure_dir,
};
use crate::sys;

/// The helper looks for work this often. A 64 MiB segment at 2 M records/s lasts 260 ms.
const NAP: Duration = Duration::from_millis(1);
/// After a failure it waits longer: memory does not come back within a millisecond.
const NAP_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// How many naps between two looks at the drain's page.
const NAPS_PER_RELEASE: u32 = 20;

/// What a journal is to be.
#[derive(Clone, Debug)]
pub struct JournalSpec {
    /// Size of a segment, header included; rounded up to whole pages.
    pub segment_bytes: u64,
    /// Most segments that may exist: prepared, in use, full and not yet released.
    pub segments_max: u64,
    /// How many segments to prepare ahead.
    pub segments_ahead: u64,
    /// Hash over names, types and offsets of the record's fields.
    pub schema_hash: u64,
    /// Room kept for `append_reserved`: for orders in flight when the journal is full.
    pub reserve_frames: u64,
    /// Which build writes it.
    pub build_id: String,
    /// Whether to pin the pages in memory.
    pub lock_memory: bool,
}

impl JournalSpec {
    /// Returns 16 segments of 64 MiB, two of them ahead: 8 million records, a reserve of 4096.
    #[must_use]
    pub fn new(schema_hash: u64) -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_max: 16,
            segments_ahead: 2,
            schema_hash,
            reserve_frames: 4096,
            build_id: env!("CARGO_PKG_VERSION").to_owned(),
            lock_memory: true,
        }
    }

    /// Returns how many records fit a segment.
    #[must_use]
    pub fn frames_per_segment(&self) -> u64 {
        (self.file_bytes().saturating_sub(HEADER_BYTES as u64)) / RECORD_BYTES as u64
    }

    fn file_bytes(&self) -> u64 {
        self.segment_bytes.next_multiple_of(u64::from(sys::page_bytes()))
    }

    fn check(&self) -> Result<(), JournalError> {
        let error = |what, found, rule| Err(JournalError::Spec { what, found, rule });
        if !(2 * HEADER_BYTES as u64..=1 << 40).contains(&self.segment_bytes) {
            return error("segment_bytes", self.segment_bytes, "must be 8 KiB to 1 TiB");
        }
        if self.segments_max < 2 {
            return error("segments_max", self.segments_max, "must be at least 2");
        }
        if self.segments_ahead == 0 || self.segments_ahead >= self.segments_max {
            let rule = "must be at least 1 and less than segments_max";
            return error("segments_ahead", self.segments_ahead, rule);
        }
        if self.reserve_frames >= self.frames_per_segment() {
            let rule = "must be less than a segment holds, or nothing else could be appended";
            return error("reserve_frames", self.reserve_frames, rule);
        }
        Ok(())
    }
}

/// Where the next record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// Segment in use, 0 before the first.
    pub segment: u64,
    /// Index of the next frame in it.
    pub frame: u64,
    /// Sequence of the next record.
    pub next_seq: u64,
}

/// A segment ready for use.
#[derive(Debug)]
struct Prepared {
    segment: Segment,
    created_wall_ns: i64,
    created_mono_ns: i64,
    created_tsc: u64,
}

/// What writer and helper share beside the queues.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Written by the writer: the segment in use, and what it released itself.
    active: CachePadded<AtomicU64>,
    released: AtomicU64,
    /// Written by the helper: segments that exist.
    segments: CachePadded<AtomicU64>,
    failure: Mutex<Option<String>>,
}

/// The writing end. One per journal: the control region's lock sees to it.
#[derive(Debug)]
pub struct JournalWriter<T> {
    current: Option<Segment>,
    /// Next frame, and how many the current segment has; both 0 without one.
    frame: usize,
    frames: usize,
    next_seq: u64,
    chain: u64,
    seed: u32,
    reserve_frames: usize,
    frames_per_segment: usize,
    /// A segment that was prepared before the helper started.
    spare: Option<Prepared>,
    ready: rtrb::Consumer<Prepared>,
    retired: rtrb::Producer<Segment>,
    helper: Helper,
    header: SegmentHeader,
    segments_max: u64,
    // After the helper: its lock is what keeps a second writer out of the directory.
    control: RegionOwner,
    payload: PhantomData<fn(&T)>,
}

impl<T: Payload> JournalWriter<T> {
    /// Starts a new journal in a directory that has none.
    pub fn create(dir: &Path, spec: &JournalSpec) -> Result<Self, JournalError> {
        spec.check()?;
        ensure_dir(dir)?;
        if !list_segments(dir)?.is_empty() {
            return Err(JournalError::Exists { dir: dir.to_owned() });
        }
        let control = create_control(dir, spec)?;
        // Under the lock nobody else adds segments.
        if !list_segments(dir)?.is_empty() {
            return Err(JournalError::Exists { dir: dir.to_owned() });
        }
        let uuid = sys::random_uuid().map_err(ShmError::io("read a random uuid for", dir))?;
        let end = JournalEnd {
            uuid,
            next_number: 1,
            next_seq: 1,
            chain: chain_start(uuid),
            segments: 0,
            oldest: 1,
        };
        let mut writer = Self::start(dir, spec, control, end)?;
        // In use from the start, so that the journal has its uuid and can be resumed.
        assert!(writer.rotate(), "the first segment was just prepared");
        Ok(writer)
    }

    /// Goes on with a journal whose writer is gone, after its last committed record.
    ///
    /// Cuts off an append that was cut short; refuses anything it cannot explain that way.
    pub fn resume(dir: &Path, spec: &JournalSpec) -> Result<Self, JournalError> {
        spec.check()?;
        if list_segments(dir)?.is_empty() {
            return Err(JournalError::Missing { dir: dir.to_owned() });
        }
        let control = create_control(dir, spec)?;
        let end = recover(dir, spec)?;
        Self::start(dir, spec, control, end)
    }

    fn start(
        dir: &Path,
        spec: &JournalSpec,
        control: RegionOwner,
        end: JournalEnd,
    ) -> Result<Self, JournalError> {
        const { assert_size::<T>() };
        let spare = prepare(dir, spec, end.next_number)?;
        let frames_per_segment = spare.segment.frames();
        let shared = Arc::new(Shared::default());
        shared.segments.store(end.segments + 1, Ordering::Relaxed);
        shared.active.store(end.next_number.saturating_sub(1), Ordering::Relaxed);
        let ahead = usize::try_from(spec.segments_ahead).unwrap_or(1);
        let (ready_in, ready) = rtrb::RingBuffer::new(ahead);
        // The helper empties this before it prepares the next, so there are never more.
        let (retired, retired_out) = rtrb::RingBuffer::new(ahead + 2);
        let worker = Worker {
            dir: dir.to_owned(),
            spec: spec.clone(),
            shared: Arc::clone(&shared),
            ready: ready_in,
            retired: retired_out,
            released: ReleasedPage::default(),
            oldest: end.oldest,
            next_number: end.next_number + 1,
            segments: end.segments + 1,
        };
        let header = SegmentHeader {
            schema_hash: spec.schema_hash,
            uuid: end.uuid,
            number: 0,
            first_seq: 0,
            prev_chain: 0,
            boot_id_hash: sys::boot_id_hash(),
            created_wall_ns: 0,
            created_mono_ns: 0,
            created_tsc: 0,
            segment_bytes: 0,
            writer_epoch: control.epoch(),
            started_tsc: 0,
        };
        Ok(Self {
            current: None,
            frame: 0,
            frames: 0,
            next_seq: end.next_seq,
            chain: end.chain,
            seed: uuid_seed(end.uuid),
            reserve_frames: usize::try_from(spec.reserve_frames).unwrap_or(usize::MAX),
            frames_per_segment,
            spare: Some(spare),
            ready,
            retired,
            helper: Helper::spawn(shared, worker)?,
            header,
            segments_max: spec.segments_max,
            control,
            payload: PhantomData,
        })
    }

    /// Appends a record and returns its sequence, unless only the reserve is left.
    #[inline]
    pub fn append(&mut self, item: &T) -> Result<u64, JournalFull> {
        // Asking the helper costs a shared line, so only when this segment alone does not do.
        if self.frames - self.frame <= self.reserve_frames && self.room() <= self.reserve_frames {
            return Err(self.full());
        }
        self.append_reserved(item)
    }

    /// Appends a record, also into the reserve: for orders in flight, and the record of the gap.
    #[inline]
    pub fn append_reserved(&mut self, item: &T) -> Result<u64, JournalFull> {
        if self.frame == self.frames && !self.rotate() {
            return Err(self.full());
        }
        let Some(segment) = &self.current else { return Err(self.full()) };
        let seq = self.next_seq;
        let checksum = write_frame(segment.frame(self.frame), seq, self.seed, &to_words(item));
        self.chain = chain_next(self.chain, seq, checksum);
        self.frame += 1;
        self.next_seq = seq + 1;
        Ok(seq)
    }

    /// Returns how many records can be appended at once, the reserve included.
    #[must_use]
    pub fn room(&self) -> usize {
        let ready = self.ready.slots() + usize::from(self.spare.is_some());
        self.frames - self.frame + ready * self.frames_per_segment
    }

    /// Goes on to the next segment, if one is ready. No system call.
    #[cold]
    fn rotate(&mut self) -> bool {
        let Some(next) = self.spare.take().or_else(|| self.ready.pop().ok()) else { return false };
        next.segment.start(&SegmentHeader {
            number: next.segment.number(),
            first_seq: self.next_seq,
            prev_chain: self.chain,
            created_wall_ns: next.created_wall_ns,
            created_mono_ns: next.created_mono_ns,
            created_tsc: next.created_tsc,
            segment_bytes: next.segment.bytes(),
            started_tsc: tsc(),
            ..self.header
        });
        // Release, partner: the Acquire load in `Worker::release`: from here on the one before may go.
        self.helper.shared.active.store(next.segment.number(), Ordering::Release);
        self.frame = 0;
        self.frames = next.segment.frames();
        if let Some(full) = self.current.replace(next.segment) {
            // Unmapping is the helper's. The queue has room for all it ever gave us.
            let _ = self.retired.push(full);
        }
        true
    }

    #[cold]
    fn full(&self) -> JournalFull {
        JournalFull {
            next_seq: self.next_seq,
            // Relaxed: for the message.
            segments: self.helper.shared.segments.load(Ordering::Relaxed),
            segments_max: self.segments_max,
        }
    }

    /// Lets segments up to this number go, because their records are safe elsewhere.
    ///
    /// For a drain in this process; one in another process uses [`JournalRelease`](super::JournalRelease).
    /// The segment in use stays in any case.
    pub fn release_up_to(&self, segment: u64) {
        // Relaxed: the helper acts on the number alone, and not on anything behind it.
        self.helper.shared.released.fetch_max(segment, Ordering::Relaxed);
    }

    /// Tells readers that we live and how far we are.
    pub fn beat(&mut self, tsc: u64) {
        self.control.beat(tsc, self.next_seq);
    }

    /// Returns the sequence of the next record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns where the next record goes.
    #[must_use]
    pub fn position(&self) -> JournalPosition {
        JournalPosition {
            segment: self.current.as_ref().map_or(0, Segment::number),
            frame: self.frame as u64,
            next_seq: self.next_seq,
        }
    }

    /// Returns the identity of the journal: with a sequence, that of a record.
    #[must_use]
    pub fn uuid(&self) -> u128 {
        self.header.uuid
    }

    /// Returns how many writers this journal has had.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.control.epoch()
    }

    /// Returns what could not be done at start, for the log.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        self.control.notes()
    }

    /// Returns why the helper could not prepare the next segment, if so. For the slow path.
    #[must_use]
    pub fn helper_failure(&self) -> Option<String> {
        self.helper.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends cleanly: stops the helper, removes prepared segments, says goodbye.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.helper.stop();
        let mut unused: Vec<Prepared> = self.spare.take().into_iter().collect();
        while let Ok(prepared) = self.ready.pop() {
            unused.push(prepared);
        }
        // The newest first: a reader that looks meanwhile must not see a later one where the next is gone.
        for prepared in unused.into_iter().rev() {
            let path = prepared.segment.path();
            fs::remove_file(path).map_err(ShmError::io("unlink", path))?;
        }
        self.control.close(self.next_seq);
        Ok(())
    }
}

fn create_control(dir: &Path, spec: &JournalSpec) -> Result<RegionOwner, ShmError> {
    let region = RegionSpec {
        name: CONTROL.to_owned(),
        kind: RegionKind::Journal,
        slot_bytes: RECORD_BYTES as u32,
        slot_count: 1,
        schema_hash: spec.schema_hash,
        initial_seq: 1,
        tag: 0,
        build_id: spec.build_id.clone(),
        lock_memory: spec.lock_memory,
    };
    RegionOwner::create(dir, &region, |_| {})
}

/// Where a journal ends.
#[derive(Debug)]
struct JournalEnd {
    uuid: u128,
    next_number: u64,
    next_seq: u64,
    chain: u64,
    /// Segments that exist, and the lowest number among them.
    segments: u64,
    oldest: u64,
}

/// Finds the end of a journal and removes what was never part of it. Only under the control lock.
fn recover(dir: &Path, spec: &JournalSpec) -> Result<JournalEnd, JournalError> {
    remove_temporaries(dir)?;
    let mut numbers = list_segments(dir)?;
    let (last, header) = loop {
        let Some(&number) = numbers.last() else {
            return Err(JournalError::Missing { dir: dir.to_owned() });
        };
        let segment = Segment::open(dir, number, true)?;
        match segment.header() {
            HeaderState::Used(header) => break (segment, header),
            // Prepared, or being taken into use when its writer died: no record was in it.
            HeaderState::Prepared | HeaderState::Unfinished if segment.is_blank() => {
                fs::remove_file(segment.path()).map_err(ShmError::io("unlink", segment.path()))?;
                numbers.pop();
            }
            HeaderState::Prepared | HeaderState::Unfinished => {
                let what = "records follow a header that was never finished";
                return Err(JournalError::SegmentHeader { path: segment.path().to_owned(), what });
            }
            HeaderState::Damaged(what) => {
                return Err(JournalError::SegmentHeader { path: segment.path().to_owned(), what });
            }
        }
    };
    check_schema(&last, &header, spec.schema_hash)?;
    let scan = last.scan(&header, |_, _| Next::None);
    if let Some(&(at, found)) = scan.faults.first() {
        return Err(JournalError::Corrupt {
            path: last.path().to_owned(),
            frame: at as u64,
            seq: header.first_seq + at as u64,
            found,
        });
    }
    if let Some(at) = scan.torn {
        last.clear(at);
    }
    // Nobody else deletes, so what the drain released while no writer lived goes now.
    let released = ReleasedPage::default().read(dir).map_or(0, |(segment, _)| segment);
    let mut oldest = numbers[0];
    let mut segments = numbers.len() as u64;
    for &number in numbers.iter().filter(|&&number| number <= released && number < last.number()) {
        let path = segment_path(dir, number);
        fs::remove_file(&path).map_err(ShmError::io("unlink", &path))?;
        oldest = number + 1;
        segments -= 1;
    }
    if segments >= spec.segments_max {
        let dir = dir.to_owned();
        return Err(JournalError::Full { dir, segments, segments_max: spec.segments_max });
    }
    Ok(JournalEnd {
        uuid: header.uuid,
        next_number: last.number() + 1,
        next_seq: header.first_seq + scan.frames as u64,
        chain: scan.chain,
        segments,
        oldest,
    })
}

pub(super) fn check_schema(
    segment: &Segment,
    header: &SegmentHeader,
    expected: u64,
) -> Result<(), JournalError> {
    if header.schema_hash == expected {
        return Ok(());
    }
    let path = segment.path().to_owned();
    Err(JournalError::Schema { path, found: header.schema_hash, expected })
}

/// Removes segments a helper was killed over; they never had their final name.
fn remove_temporaries(dir: &Path) -> Result<(), JournalError> {
    for entry in fs::read_dir(dir).map_err(ShmError::io("list", dir))? {
        let entry = entry.map_err(ShmError::io("list", dir))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("seg-") && name.ends_with(".tj.tmp")) {
            fs::remove_file(entry.path()).map_err(ShmError::io("unlink", entry.path()))?;
        }
    }
    Ok(())
}

/// Makes a segment with every page present, all zero, under its final name.
fn prepare(dir: &Path, spec: &JournalSpec, number: u64) -> Result<Prepared, ShmError> {
    let path = segment_path(dir, number);
    let temp = path.with_extension("tj.tmp");
    let made = make_segment(spec, number, &temp, &path);
    if made.is_err() {
        let _ = fs::remove_file(&temp);
    }
    made
}

fn make_segment(
    spec: &JournalSpec,
    number: u64,
    temp: &Path,
    path: &PathBuf,
) -> Result<Prepared, ShmError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temp)
        .map_err(ShmError::io("create", temp))?;
    let (map, _notes) = allocate(&file, temp, spec.file_bytes(), spec.lock_memory)?;
    file.set_permissions(Permissions::from_mode(0o640)).map_err(ShmError::io("chmod", temp))?;
    let inode = file.metadata().map_err(ShmError::io("stat", temp))?.ino();
    // Never over a file that is there: numbers are used once.
    sys::rename_noreplace(temp, path).map_err(ShmError::io("rename", path))?;
    Ok(Prepared {
        segment: Segment::new(map, path.clone(), number, inode),
        created_wall_ns: sys::clock_ns(libc::CLOCK_REALTIME),
        created_mono_ns: sys::clock_ns(libc::CLOCK_MONOTONIC_RAW),
        created_tsc: tsc(),
    })
}

/// The helper thread's handle: stops and joins it, also when the writer is dropped.
#[derive(Debug)]
struct Helper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    fn spawn(shared: Arc<Shared>, worker: Worker) -> Result<Self, ShmError> {
        let dir = worker.dir.clone();
        let thread = std::thread::Builder::new()
            .name("journal-helper".to_owned())
            .spawn(move || worker.run())
            .map_err(ShmError::io("start the helper thread of", dir))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn stop(&mut self) {
        // Relaxed: the join below is the synchronisation.
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends by itself, or panicked and has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The helper thread.
struct Worker {
    dir: PathBuf,
    spec: JournalSpec,
    shared: Arc<Shared>,
    ready: rtrb::Producer<Prepared>,
    retired: rtrb::Consumer<Segment>,
    released: ReleasedPage,
    oldest: u64,
    next_number: u64,
    segments: u64,
}

impl Worker {
    fn run(mut self) {
        let mut naps = 0_u32;
        // Relaxed: the join is the synchronisation.
        while !self.shared.stop.load(Ordering::Relaxed) {
            while self.retired.pop().is_ok() {}
            if naps.is_multiple_of(NAPS_PER_RELEASE) {
                let released = self.released.read(&self.dir).map_or(0, |(segment, _)| segment);
                self.shared.released.fetch_max(released, Ordering::Relaxed);
            }
            naps = naps.wrapping_add(1);
            let step = self.release().and_then(|()| self.prepare_one());
            // Relaxed: for messages.
            self.shared.segments.store(self.segments, Ordering::Relaxed);
            match step {
                Ok(true) => {}
                Ok(false) => std::thread::park_timeout(NAP),
                Err(error) => {
                    self.note(Some(error.to_string()));
                    std::thread::park_timeout(NAP_AFTER_FAILURE);
                }
            }
        }
    }

    /// Deletes what was released, but never the segment in use nor one after it.
    fn release(&mut self) -> Result<(), ShmError> {
        // Relaxed: see `release_up_to`.
        let released = self.shared.released.load(Ordering::Relaxed);
        // Acquire, partner: the Release store in `rotate`.
        let active = self.shared.active.load(Ordering::Acquire);
        while self.oldest <= released && self.oldest < active {
            let path = segment_path(&self.dir, self.oldest);
            match fs::remove_file(&path) {
                Ok(()) => self.segments -= 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ShmError::io("unlink", path)(error)),
            }
            self.oldest += 1;
        }
        Ok(())
    }

    /// Prepares one segment if one is wanted and allowed.
    fn prepare_one(&mut self) -> Result<bool, ShmError> {
        if self.ready.is_full() || self.segments >= self.spec.segments_max {
            return Ok(false);
        }
        let prepared = prepare(&self.dir, &self.spec, self.next_number)?;
        self.next_number += 1;
        self.segments += 1;
        self.note(None);
        // Not full, and we are the only one to push.
        let _ = self.ready.push(prepared);
        Ok(true)
    }

    fn note(&self, failure: Option<String>) {
        let mut noted = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted != failure {
            *noted = failure;
        }
    }
}
