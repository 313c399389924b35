//! A region: one file in shared memory with a header page, one owner and any number of readers.
//!
//! Invariant: an inode is created, filled, given its magic last (Release), renamed into place, and
//! never truncated, re-initialised or reused. Its owner holds the `flock` of that inode for life, so
//! "locked" means "its producer lives" and two producers cannot. Each start of a producer is a new
//! inode with the next epoch; the old one is told so (`DEAD`, successor, `SUPERSEDED`) by whoever holds
//! its lock. Identity everywhere is (name, epoch, sequence). Readers map `PROT_READ`, and believe no
//! number of the header before checking it against the size of the file.
//!
//! Words with different writers or rates are 128 bytes apart: adjacent-line prefetch pairs lines.
//!
//! The magic, the layout version and the producer line keep their offsets in all versions, so that any
//! build can refuse another's file by name and count its epoch on.
//!
//! Not here: what the bytes after the header mean (`ring`, `latest`, `journal`, `stats`, `clock`).

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::clock::tsc;
use crate::error::ShmError;
use crate::sys;

/// First word of every region, as bytes in the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TANDEMSH");
/// Readers refuse another major version.
pub const LAYOUT_MAJOR: u16 = 1;
/// Later minor versions only use words that were reserved.
pub const LAYOUT_MINOR: u16 = 0;
/// The header is one page; what it describes starts behind it.
pub const HEADER_BYTES: usize = 4096;
/// Longest region name; it is stored with a terminating zero.
pub const NAME_BYTES_MAX: usize = 63;

/// A producer that did not beat for so long is suspect, unless the reader chose otherwise.
///
/// A poll loop beats every millisecond or so, also while idle. 50 ms is far above its jitter on a
/// shared machine and far below what a stale book may live.
pub const SUSPECT_AFTER_MS: u64 = 50;

/// While a producer is suspect, its lock is probed at most this often (a probe is a system call).
const PROBE_EVERY_MS: u64 = 5;
/// A reader's probe may hold a dead owner's lock for an instant; a starting producer tries again.
const LOCK_TRIES: u32 = 10;
const LOCK_RETRY: Duration = Duration::from_millis(3);
/// How often creation starts over when other producers come and go under the same name.
const CREATE_TRIES: u32 = 16;

/// What a region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionKind {
    /// A ring of 128-byte records.
    Ring = 1,
    /// Seqlocked entries, each with its latest value.
    Latest = 2,
    /// The control page of a journal directory.
    Journal = 3,
    /// Self-describing counters, gauges and histograms.
    Stats = 4,
    /// The shared clock.
    Clock = 5,
    /// A number this build does not know.
    Unknown = 0,
}

impl RegionKind {
    fn from_u32(kind: u32) -> Self {
        match kind {
            1 => Self::Ring,
            2 => Self::Latest,
            3 => Self::Journal,
            4 => Self::Stats,
            5 => Self::Clock,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Latest => "latest page",
            Self::Journal => "journal control page",
            Self::Stats => "stats page",
            Self::Clock => "clock page",
            Self::Unknown => "region of unknown kind",
        })
    }
}

/// Values of the state word. A state only moves forward.
mod state {
    pub const INIT: u64 = 1;
    pub const LIVE: u64 = 2;
    pub const CLOSED: u64 = 3;
    pub const DEAD: u64 = 4;
    pub const SUPERSEDED: u64 = 5;
}

/// Counters every producer has, stored lazily with its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Records published.
    Published = 0,
    /// Batches published.
    Batches = 1,
    /// Times the producer had to rebuild its state from upstream.
    Resyncs = 2,
    /// Messages from upstream that could not be decoded.
    DecodeErrors = 3,
    /// Gaps seen in upstream's own sequence.
    UpstreamGaps = 4,
    /// Connections opened.
    Connects = 5,
    /// Bytes received from upstream.
    BytesReceived = 6,
    /// Records dropped on purpose before they were published.
    Dropped = 7,
}

/// How many counter words the header has.
pub const COUNTERS: usize = 16;

/// The header page. All words are atomics, for another process may read any of them at any time.
#[repr(C, align(4096))]
pub(crate) struct Header {
    // Lines 0 and 1: written once by the creator, before the magic.
    magic: AtomicU64,
    layout: AtomicU32,
    header_bytes: AtomicU32,
    slot_bytes: AtomicU32,
    kind: AtomicU32,
    slot_count: AtomicU64,
    slots_offset: AtomicU64,
    schema_hash: AtomicU64,
    region_bytes: AtomicU64,
    page_bytes: AtomicU32,
    tag: AtomicU32,
    boot_id_hash: AtomicU64,
    created_wall_ns: AtomicU64,
    created_mono_ns: AtomicU64,
    created_tsc: AtomicU64,
    reserved_0: [AtomicU64; 4],
    name: [AtomicU64; 8],
    build_id: [AtomicU64; 3],
    reserved_1: [AtomicU64; 5],
    // Line 2: written by the producer when its state changes, and by its heir after its death.
    epoch: AtomicU64,
    state: AtomicU64,
    successor: AtomicU64,
    producer_pid: AtomicU64,
    producer_start: AtomicU64,
    initial_seq: AtomicU64,
    reserved_2: [AtomicU64; 10],
    // Line 3: written by the producer with each beat.
    progress: AtomicU64,
    heartbeat_tsc: AtomicU64,
    heartbeat_count: AtomicU64,
    reserved_3: [AtomicU64; 13],
    // Line 4: the same, for people and tools.
    counters: [AtomicU64; COUNTERS],
    reserved_4: [AtomicU64; 432],
}

// The layout is a contract between builds: a line that fails here means a new LAYOUT_MAJOR.
const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(offset_of!(Header, magic) == 0);
    assert!(offset_of!(Header, layout) == 8);
    assert!(offset_of!(Header, header_bytes) == 12);
    assert!(offset_of!(Header, slot_bytes) == 16);
    assert!(offset_of!(Header, kind) == 20);
    assert!(offset_of!(Header, slot_count) == 24);
    assert!(offset_of!(Header, slots_offset) == 32);
    assert!(offset_of!(Header, schema_hash) == 40);
    assert!(offset_of!(Header, region_bytes) == 48);
    assert!(offset_of!(Header, page_bytes) == 56);
    assert!(offset_of!(Header, tag) == 60);
    assert!(offset_of!(Header, boot_id_hash) == 64);
    assert!(offset_of!(Header, created_wall_ns) == 72);
    assert!(offset_of!(Header, created_mono_ns) == 80);
    assert!(offset_of!(Header, created_tsc) == 88);
    assert!(offset_of!(Header, name) == 128);
    assert!(offset_of!(Header, build_id) == 192);
    assert!(offset_of!(Header, epoch) == 256);
    assert!(offset_of!(Header, state) == 264);
    assert!(offset_of!(Header, successor) == 272);
    assert!(offset_of!(Header, producer_pid) == 280);
    assert!(offset_of!(Header, producer_start) == 288);
    assert!(offset_of!(Header, initial_seq) == 296);
    assert!(offset_of!(Header, progress) == 384);
    assert!(offset_of!(Header, heartbeat_tsc) == 392);
    assert!(offset_of!(Header, heartbeat_count) == 400);
    assert!(offset_of!(Header, counters) == 512);
    assert!(offset_of!(Header, reserved_4) == 640);
};

/// Returns name, offset and bytes of each header field, for the golden layout test and for tools.
#[must_use]
pub fn header_layout() -> Vec<(&'static str, usize, usize)> {
    vec![
        ("magic", offset_of!(Header, magic), 8),
        ("layout", offset_of!(Header, layout), 4),
        ("header_bytes", offset_of!(Header, header_bytes), 4),
        ("slot_bytes", offset_of!(Header, slot_bytes), 4),
        ("kind", offset_of!(Header, kind), 4),
        ("slot_count", offset_of!(Header, slot_count), 8),
        ("slots_offset", offset_of!(Header, slots_offset), 8),
        ("schema_hash", offset_of!(Header, schema_hash), 8),
        ("region_bytes", offset_of!(Header, region_bytes), 8),
        ("page_bytes", offset_of!(Header, page_bytes), 4),
        ("tag", offset_of!(Header, tag), 4),
        ("boot_id_hash", offset_of!(Header, boot_id_hash), 8),
        ("created_wall_ns", offset_of!(Header, created_wall_ns), 8),
        ("created_mono_ns", offset_of!(Header, created_mono_ns), 8),
        ("created_tsc", offset_of!(Header, created_tsc), 8),
        ("name", offset_of!(Header, name), 64),
        ("build_id", offset_of!(Header, build_id), 24),
        ("epoch", offset_of!(Header, epoch), 8),
        ("state", offset_of!(Header, state), 8),
        ("successor", offset_of!(Header, successor), 8),
        ("producer_pid", offset_of!(Header, producer_pid), 8),
        ("producer_start", offset_of!(Header, producer_start), 8),
        ("initial_seq", offset_of!(Header, initial_seq), 8),
        ("progress", offset_of!(Header, progress), 8),
        ("heartbeat_tsc", offset_of!(Header, heartbeat_tsc), 8),
        ("heartbeat_count", offset_of!(Header, heartbeat_count), 8),
        ("counters", offset_of!(Header, counters), 8 * COUNTERS),
    ]
}

/// What a region is to be.
#[derive(Clone, Debug)]
pub struct RegionSpec {
    /// File name in the shared-memory directory.
    pub name: String,
    /// What it holds.
    pub kind: RegionKind,
    /// Bytes of one slot.
    pub slot_bytes: u32,
    /// How many slots.
    pub slot_count: u64,
    /// Hash over names, types and offsets of the record's fields.
    pub schema_hash: u64,
    /// First sequence that will be published.
    pub initial_seq: u64,
    /// A number for the application: venue, role.
    pub tag: u32,
    /// Which build writes it; at most 23 bytes are kept.
    pub build_id: String,
    /// Whether to pin the pages in memory.
    pub lock_memory: bool,
}

impl RegionSpec {
    fn bytes(&self) -> Option<u64> {
        let slots = u64::from(self.slot_bytes).checked_mul(self.slot_count)?;
        let bytes = slots.checked_add(HEADER_BYTES as u64)?;
        bytes.checked_next_multiple_of(u64::from(sys::page_bytes()))
    }

    fn check(&self) -> Result<u64, ShmError> {
        let name_error = |why| Err(ShmError::Name { name: self.name.clone(), why });
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return name_error("must have 1 to 63 bytes");
        }
        if self.name.contains('/') || self.name.contains('\0') || self.name.starts_with('.') {
            return name_error("must be a plain file name");
        }
        if self.name.ends_with(".tmp") {
            return name_error("must not end in .tmp, which marks unfinished files");
        }
        self.bytes().filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(|| ShmError::Spec {
            name: self.name.clone(),
            what: "slot count",
            found: self.slot_count,
            rule: "slots and header must fit the address space",
        })
    }
}

/// Something that is worth a line in the log and no reason to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The pages could not be pinned; they are populated, but may be swapped out.
    NotLocked {
        /// What was to be pinned.
        bytes: u64,
        /// What this process may pin (`ulimit -l`).
        limit_bytes: u64,
        /// The kernel's error number.
        errno: i32,
    },
    /// The region would be part of a core dump.
    Dumpable {
        /// The kernel's error number.
        errno: i32,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocked { bytes, limit_bytes, errno } => write!(
                f,
                "mlock of {bytes} bytes refused (errno {errno}, limit {limit_bytes}); raise \
                 LimitMEMLOCK or `ulimit -l`, or the region may be swapped out"
            ),
            Self::Dumpable { errno } => {
                write!(f, "MADV_DONTDUMP refused (errno {errno}); core dumps will hold the region")
            }
        }
    }
}

/// Raw words of a mapped file, from its first byte on.
pub(crate) struct Mapping {
    map: MmapRaw,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.map.len())
    }
}

impl Mapping {
    /// Maps a whole file for reading and writing.
    pub(crate) fn read_write(file: &File, path: &Path) -> Result<Self, ShmError> {
        let map = MmapOptions::new().map_raw(file).map_err(ShmError::io("mmap", path))?;
        Ok(Self { map })
    }

    /// Maps a whole file for reading; `populate` also takes the page faults now.
    pub(crate) fn read_only(file: &File, path: &Path, populate: bool) -> Result<Self, ShmError> {
        let mut options = MmapOptions::new();
        if populate {
            options.populate();
        }
        let map = options.map_raw_read_only(file).map_err(ShmError::io("mmap", path))?;
        Ok(Self { map })
    }

    /// Takes all page faults now, pins the pages and keeps them out of core dumps.
    pub(crate) fn settle(&self, path: &Path, lock: bool) -> Result<Vec<Note>, ShmError> {
        // Populate fails with an error where a store would raise SIGBUS.
        self.map.advise(Advice::PopulateWrite).map_err(ShmError::io("populate", path))?;
        let mut notes = Vec::new();
        if lock && let Err(error) = self.map.lock() {
            notes.push(Note::NotLocked {
                bytes: self.map.len() as u64,
                limit_bytes: sys::memlock_limit_bytes(),
                errno: error.raw_os_error().unwrap_or(0),
            });
        }
        if let Err(error) = self.map.advise(Advice::DontDump) {
            notes.push(Note::Dumpable { errno: error.raw_os_error().unwrap_or(0) });
        }
        Ok(notes)
    }

    /// Returns how many bytes are mapped.
    pub(crate) fn bytes(&self) -> usize {
        self.map.len()
    }

    /// Returns the address of `count` items of `T` at `offset`, which must lie inside the mapping.
    ///
    /// The pages stay where they are until the mapping drops, also when it moves.
    pub(crate) fn at<T>(&self, offset: usize, count: usize) -> *const T {
        let bytes = size_of::<T>().checked_mul(count).and_then(|bytes| bytes.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.map.len()), "the area lies inside the mapping");
        assert!(offset.is_multiple_of(align_of::<T>()), "the area is aligned");
        // A page-aligned mapping keeps the alignment of `offset` up to a page.
        self.map.as_ptr().wrapping_add(offset).cast()
    }

    /// Returns `count` words at `offset` as atomics.
    pub(crate) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let first = self.at::<AtomicU64>(offset, count);
        // SAFETY: `at` checked bounds and alignment; the pages live as long as `self`. Atomics may be
        // shared with other writers. On a read-only mapping only loads may follow, which is the duty
        // of the crate: no view type has a method that stores.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    fn header(&self) -> &Header {
        let header = self.at::<Header>(0, 1);
        // SAFETY: as in `words`; all fields of `Header` are atomics.
        unsafe { &*header }
    }
}

/// Removes a temporary file unless it was renamed into place.
struct TempFile {
    path: PathBuf,
    armed: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.armed {
            // Nobody else has it: its lock is ours. A leftover is cleared by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A region this process created: it holds the lock and is the only writer.
pub struct RegionOwner {
    map: Mapping,
    /// Holds the `flock`; the kernel releases it when the process ends, however it ends.
    _lock: File,
    path: PathBuf,
    epoch: u64,
    notes: Vec<Note>,
    counters: [u64; COUNTERS],
}

impl fmt::Debug for RegionOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionOwner({} epoch {})", self.path.display(), self.epoch)
    }
}

impl RegionOwner {
    /// Creates the region of the next epoch, and lets `fill` write its slots before others see it.
    pub(crate) fn create(
        dir: &Path,
        spec: &RegionSpec,
        fill: impl Fn(&Mapping),
    ) -> Result<Self, ShmError> {
        let bytes = spec.check()?;
        ensure_dir(dir)?;
        let path = dir.join(&spec.name);
        for _ in 0..CREATE_TRIES {
            let previous = Previous::lock(&path, spec.kind)?;
            let epoch = previous.as_ref().map_or(1, |previous| previous.epoch.wrapping_add(1));
            if let Some(previous) = &previous {
                previous.mark_dead(epoch);
            }
            let Some((file, mut temp)) = create_temp(dir, &spec.name, epoch)? else { continue };
            let (map, notes) = allocate(&file, &temp.path, bytes, spec.lock_memory)?;
            fill(&map);
            write_header(map.header(), spec, bytes, epoch);
            // Only now may the group read it: until here nobody but us could attach.
            file.set_permissions(Permissions::from_mode(0o640))
                .map_err(ShmError::io("chmod", &temp.path))?;
            let renamed = match &previous {
                // We hold the lock of what the name names, so nobody else may replace it.
                Some(_) => fs::rename(&temp.path, &path),
                // Two first starts: one rename wins, the other begins again and finds a living owner.
                None => sys::rename_noreplace(&temp.path, &path),
            };
            match renamed {
                Ok(()) => temp.armed = false,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(ShmError::io("rename", &path)(error)),
            }
            if let Some(previous) = previous {
                previous.mark_superseded();
            }
            // Relaxed: a reader that sees INIT a moment longer treats it like LIVE.
            map.header().state.store(state::LIVE, Ordering::Relaxed);
            let counters = [0; COUNTERS];
            return Ok(Self { map, _lock: file, path, epoch, notes, counters });
        }
        Err(ShmError::Contended { path })
    }

    /// Returns what could not be done for this region, for the log.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Returns the epoch: one more than that of the last producer under this name.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the words from the end of the header to the end of the region.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.map
    }

    /// Tells readers that we live and how far we are: everything before `progress` is published.
    pub(crate) fn beat(&mut self, tsc: u64, progress: u64) {
        for (word, &value) in self.map.header().counters.iter().zip(&self.counters) {
            // Relaxed: as in `stamp`.
            word.store(value, Ordering::Relaxed);
        }
        self.stamp(tsc, progress);
    }

    /// Beats without counters. Only the one producer may call this.
    pub(crate) fn stamp(&self, tsc: u64, progress: u64) {
        let header = self.map.header();
        // Relaxed: statistics and hints; nobody takes data on their word. The slots have their own
        // order.
        let beats = header.heartbeat_count.load(Ordering::Relaxed);
        header.progress.store(progress, Ordering::Relaxed);
        header.heartbeat_count.store(beats.wrapping_add(1), Ordering::Relaxed);
        header.heartbeat_tsc.store(tsc, Ordering::Relaxed);
    }

    /// Returns the private copy of a counter; readers see it with the next beat.
    pub(crate) fn counter(&mut self, counter: Counter) -> &mut u64 {
        &mut self.counters[counter as usize]
    }

    /// Says goodbye: readers see `Closed` and need not wait for the heartbeat to age.
    ///
    /// Dropping without this is what a crash looks like.
    pub(crate) fn close(&self, progress: u64) {
        self.stamp(tsc(), progress);
        // Release, partner: the Acquire load in `RegionView::producer`: who sees CLOSED sees the last
        // beat and all that was published.
        self.map.header().state.store(state::CLOSED, Ordering::Release);
    }
}

/// The region that is in our way at start, with its lock in our hand: its owner is dead.
struct Previous {
    map: Mapping,
    _lock: File,
    epoch: u64,
}

impl Previous {
    fn lock(path: &Path, kind: RegionKind) -> Result<Option<Self>, ShmError> {
        for _ in 0..CREATE_TRIES {
            let file = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(ShmError::io("open", path)(error)),
            };
            check_inode(&file, path)?;
            let map = Mapping::read_write(&file, path)?;
            match check_identity(map.header(), path, Some(kind)) {
                // Another build's leftover. Its producer line is where ours is, in all versions.
                Ok(()) | Err(ShmError::LayoutVersion { .. }) => {}
                Err(error) => return Err(error),
            }
            if !try_lock(&file, path)? {
                let pid = map.header().producer_pid.load(Ordering::Relaxed);
                let pid = u32::try_from(pid).unwrap_or(0);
                return Err(ShmError::Locked { path: path.to_owned(), pid });
            }
            if names_inode(path, &file)? {
                // Relaxed: its writer is dead, and the lock orders us after it.
                let epoch = map.header().epoch.load(Ordering::Relaxed);
                return Ok(Some(Self { map, _lock: file, epoch }));
            }
            // Somebody replaced it between open and lock.
        }
        Err(ShmError::Contended { path: path.to_owned() })
    }

    fn mark_dead(&self, successor: u64) {
        let header = self.map.header();
        // Relaxed: readers act on the state word, stored after it with Release.
        header.successor.store(successor, Ordering::Relaxed);
        let was = header.state.load(Ordering::Relaxed);
        if was == state::LIVE || was == state::INIT {
            // Release, partner: the Acquire load in `RegionView::producer`.
            header.state.store(state::DEAD, Ordering::Release);
        }
    }

    /// From here on the name leads to the successor.
    fn mark_superseded(self) {
        // Release, partner: the Acquire load in `RegionView::producer`.
        self.map.header().state.store(state::SUPERSEDED, Ordering::Release);
    }
}

/// What a reader expects of a region, beyond what holds for all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    pub(crate) kind: RegionKind,
    /// `None` where the region describes itself.
    pub(crate) schema_hash: Option<u64>,
    /// `None` where slots may have any size.
    pub(crate) slot_bytes: Option<u32>,
    pub(crate) power_of_two: bool,
}

/// A region another process owns, mapped read-only.
pub struct RegionView {
    map: Mapping,
    /// For the lock probe; its own open file description, so it conflicts with the owner's lock.
    file: File,
    path: PathBuf,
    inode: u64,
    epoch: u64,
    expect: Expect,
    suspect_after_ms: u64,
    found_dead: AtomicBool,
    probed_tsc: AtomicU64,
}

impl fmt::Debug for RegionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionView({} epoch {})", self.path.display(), self.epoch)
    }
}

/// What a reader knows of the process that writes a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// It beats.
    Live {
        /// Time since its last beat.
        age_us: u64,
    },
    /// It did not beat for too long, but holds its lock: stopped, starved or hung. Do not trade on it.
    Suspect {
        /// Time since its last beat.
        age_us: u64,
    },
    /// It said goodbye.
    Closed,
    /// It died. Nothing will follow in this epoch.
    Dead {
        /// The epoch that ended.
        epoch: u64,
        /// The last sequence it published (for a ring), else its last progress word.
        last_seq: u64,
    },
    /// A new producer took over: drain, then reattach.
    Superseded {
        /// The epoch to expect.
        epoch: u64,
    },
}

impl Producer {
    /// Returns whether what it published last may still be acted on.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Live { .. })
    }
}

impl RegionView {
    /// Attaches, waiting up to `timeout` for a producer that is just starting.
    pub(crate) fn open(
        dir: &Path,
        name: &str,
        expect: Expect,
        timeout: Duration,
    ) -> Result<Self, ShmError> {
        let path = dir.join(name);
        let start = Instant::now();
        loop {
            let mut error = match Self::open_once(&path, expect) {
                Ok(view) => return Ok(view),
                Err(error) => error,
            };
            let waited = start.elapsed();
            if !error.is_retryable() || waited >= timeout {
                if let ShmError::Missing { waited_ms, .. } = &mut error {
                    *waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                }
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1).min(timeout - waited));
        }
    }

    fn open_once(path: &Path, expect: Expect) -> Result<Self, ShmError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ShmError::Missing { path: path.to_owned(), waited_ms: 0 });
            }
            Err(error) => return Err(ShmError::io("open", path)(error)),
        };
        let inode = check_inode(&file, path)?;
        // Populated, or the reader takes a fault per page on its first lap.
        let map = Mapping::read_only(&file, path, true)?;
        check_identity(map.header(), path, Some(expect.kind))?;
        check_geometry(&map, path, expect)?;
        // Relaxed: `check_identity` loaded the magic with Acquire.
        let epoch = map.header().epoch.load(Ordering::Relaxed);
        Ok(Self {
            map,
            file,
            path: path.to_owned(),
            inode,
            epoch,
            expect,
            suspect_after_ms: SUSPECT_AFTER_MS,
            found_dead: AtomicBool::new(false),
            probed_tsc: AtomicU64::new(0),
        })
    }

    /// Returns the epoch this view is attached to.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns everything the header says, for tools.
    #[must_use]
    pub fn info(&self) -> RegionInfo {
        RegionInfo::of(self.map.header())
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.map
    }

    pub(crate) fn slot_count(&self) -> u64 {
        // Relaxed: written before the magic, which was loaded with Acquire.
        self.map.header().slot_count.load(Ordering::Relaxed)
    }

    pub(crate) fn slot_bytes(&self) -> u32 {
        // Relaxed: as in `slot_count`.
        self.map.header().slot_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn initial_seq(&self) -> u64 {
        // Relaxed: as in `slot_count`.
        self.map.header().initial_seq.load(Ordering::Relaxed)
    }

    /// Returns the producer's lazily stored hint: everything before it is published.
    pub(crate) fn progress(&self) -> u64 {
        // Relaxed: a hint; slots are believed, not this.
        self.map.header().progress.load(Ordering::Relaxed)
    }

    /// Chooses after how long without a beat the producer is suspect.
    pub(crate) fn set_suspect_after_ms(&mut self, after_ms: u64) {
        self.suspect_after_ms = after_ms;
    }

    /// Judges the producer: one line read, and a system call only when its heartbeat is old.
    ///
    /// In `Dead`, `last_seq` is the word before the progress hint; a ring corrects it.
    pub(crate) fn producer(&self, now_tsc: u64, ticks_per_ms: u64) -> Producer {
        let header = self.map.header();
        // Acquire, partner: the Release stores in `close`, `mark_dead` and `mark_superseded`.
        match header.state.load(Ordering::Acquire) {
            state::SUPERSEDED => {
                // Relaxed: ordered by the state word.
                return Producer::Superseded { epoch: header.successor.load(Ordering::Relaxed) };
            }
            state::CLOSED => return Producer::Closed,
            state::DEAD => return self.dead(),
            _ => {}
        }
        if self.found_dead.load(Ordering::Relaxed) {
            return self.dead();
        }
        // Relaxed: a time stamp; it may be a beat late.
        let beat_tsc = header.heartbeat_tsc.load(Ordering::Relaxed);
        // Another CPU's counter may be a few ticks ahead of ours.
        let age = u64::try_from(now_tsc.wrapping_sub(beat_tsc).cast_signed()).unwrap_or(0);
        let ticks_per_ms = ticks_per_ms.max(1);
        let age_us =
            u64::try_from(u128::from(age) * 1000 / u128::from(ticks_per_ms)).unwrap_or(u64::MAX);
        if age_us < self.suspect_after_ms.saturating_mul(1000) {
            return Producer::Live { age_us };
        }
        // Relaxed: only this process's readers share the two words below, and a probe too many is harmless.
        let probed_tsc = self.probed_tsc.load(Ordering::Relaxed);
        let due = probed_tsc == 0
            || now_tsc.wrapping_sub(probed_tsc) >= PROBE_EVERY_MS.saturating_mul(ticks_per_ms);
        if due {
            self.probed_tsc.store(now_tsc, Ordering::Relaxed);
            if self.lock_is_free() {
                self.found_dead.store(true, Ordering::Relaxed);
                return self.dead();
            }
        }
        Producer::Suspect { age_us }
    }

    fn dead(&self) -> Producer {
        Producer::Dead { epoch: self.epoch, last_seq: self.progress().wrapping_sub(1) }
    }

    /// Asks the kernel whether the owner is gone. A stopped or starved owner still holds its lock.
    fn lock_is_free(&self) -> bool {
        // Shared, so that readers do not hinder each other; held for an instant and only when the
        // owner is gone, which is why a starting producer tries more than once.
        match self.file.try_lock_shared() {
            Ok(()) => {
                let _ = self.file.unlock();
                true
            }
            Err(_) => false,
        }
    }

    /// Opens what the name leads to now. `None` when that is still this region, or nothing yet.
    pub(crate) fn reopen(&self) -> Result<Option<Self>, ShmError> {
        match fs::metadata(&self.path) {
            Ok(meta) if meta.ino() == self.inode => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ShmError::io("stat", &self.path)(error)),
        }
        match Self::open_once(&self.path, self.expect) {
            Ok(mut view) => {
                view.suspect_after_ms = self.suspect_after_ms;
                Ok(Some(view))
            }
            Err(error) if error.is_retryable() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a region says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: RegionKind,
    /// Layout version, major and minor.
    pub layout: (u16, u16),
    /// Bytes of one slot.
    pub slot_bytes: u32,
    /// How many slots.
    pub slot_count: u64,
    /// Hash of the record schema.
    pub schema_hash: u64,
    /// Size of the file.
    pub region_bytes: u64,
    /// The application's number.
    pub tag: u32,
    /// Which build wrote it.
    pub build_id: String,
    /// When it was created, UNIX nanoseconds.
    pub created_wall_ns: i64,
    /// Its epoch.
    pub epoch: u64,
    /// Its state word in plain text.
    pub state: &'static str,
    /// The epoch that replaced it, 0 for none.
    pub successor: u64,
    /// Process of its producer.
    pub producer_pid: u64,
    /// Start time of that process in ticks since boot, which tells it from a later one of the same pid.
    pub producer_start: u64,
    /// First sequence.
    pub initial_seq: u64,
    /// Everything before this was published at the last beat.
    pub progress: u64,
    /// Ticks of the last beat.
    pub heartbeat_tsc: u64,
    /// How many beats.
    pub heartbeat_count: u64,
    /// The producer's counters, by [`Counter`].
    pub counters: [u64; COUNTERS],
}

impl RegionInfo {
    fn of(header: &Header) -> Self {
        // Relaxed throughout: for people; the static part was ordered by the magic.
        let order = Ordering::Relaxed;
        let layout = header.layout.load(order);
        Self {
            name: load_text(&header.name),
            kind: RegionKind::from_u32(header.kind.load(order)),
            layout: ((layout >> 16) as u16, layout as u16),
            slot_bytes: header.slot_bytes.load(order),
            slot_count: header.slot_count.load(order),
            schema_hash: header.schema_hash.load(order),
            region_bytes: header.region_bytes.load(order),
            tag: header.tag.load(order),
            build_id: load_text(&header.build_id),
            created_wall_ns: header.created_wall_ns.load(order).cast_signed(),
            epoch: header.epoch.load(order),
            state: match header.state.load(order) {
                state::INIT => "init",
                state::LIVE => "live",
                state::CLOSED => "closed",
                state::DEAD => "dead",
                state::SUPERSEDED => "superseded",
                _ => "unknown",
            },
            successor: header.successor.load(order),
            producer_pid: header.producer_pid.load(order),
            producer_start: header.producer_start.load(order),
            initial_seq: header.initial_seq.load(order),
            progress: header.progress.load(order),
            heartbeat_tsc: header.heartbeat_tsc.load(order),
            heartbeat_count: header.heartbeat_count.load(order),
            counters: std::array::from_fn(|at| header.counters[at].load(order)),
        }
    }

    /// Reads the header of any region, whatever its kind, for tools that list a directory.
    pub fn read(path: &Path) -> Result<Self, ShmError> {
        let file = File::open(path).map_err(ShmError::io("open", path))?;
        check_inode(&file, path)?;
        let map = Mapping::read_only(&file, path, false)?;
        check_identity(map.header(), path, None)?;
        Ok(Self::of(map.header()))
    }
}

/// Makes the directory if it is missing; private to our user and group.
pub(crate) fn ensure_dir(dir: &Path) -> Result<(), ShmError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(ShmError::io("create directory", dir))
}

/// Creates and locks `NAME.epochN.tmp`. `None`: somebody else's leftover was cleared, begin again.
fn create_temp(dir: &Path, name: &str, epoch: u64) -> Result<Option<(File, TempFile)>, ShmError> {
    let path = dir.join(format!("{name}.epoch{epoch}.tmp"));
    match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => {
            if !try_lock(&file, &path)? || !names_inode(&path, &file)? {
                // Another start took our file for a leftover between our two calls.
                return Ok(None);
            }
            Ok(Some((file, TempFile { path, armed: true })))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            clear_leftover(&path)?;
            Ok(None)
        }
        Err(error) => Err(ShmError::io("create", &path)(error)),
    }
}

/// Removes a temporary file whose creator died; only under its lock, so never under its creator.
fn clear_leftover(path: &Path) -> Result<(), ShmError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ShmError::io("open", path)(error)),
    };
    if !try_lock(&file, path)? {
        // Its creator lives and has not written its pid yet.
        return Err(ShmError::Locked { path: path.to_owned(), pid: 0 });
    }
    if names_inode(path, &file)? {
        fs::remove_file(path).map_err(ShmError::io("unlink", path))?;
    }
    Ok(())
}

/// Gives the file its final size, for good, and maps it with every page present.
pub(crate) fn allocate(
    file: &File,
    path: &Path,
    bytes: u64,
    lock: bool,
) -> Result<(Mapping, Vec<Note>), ShmError> {
    if let Err(error) = sys::fallocate(file, bytes) {
        let mount = path.parent().unwrap_or(path);
        return Err(if error.raw_os_error() == Some(libc::ENOSPC) {
            ShmError::NoSpace {
                path: path.to_owned(),
                mount: mount.to_owned(),
                wanted_bytes: bytes,
                free_bytes: sys::free_bytes(mount).unwrap_or(0),
            }
        } else {
            ShmError::io("fallocate", path)(error)
        });
    }
    let map = Mapping::read_write(file, path)?;
    let notes = map.settle(path, lock)?;
    Ok((map, notes))
}

fn write_header(header: &Header, spec: &RegionSpec, bytes: u64, epoch: u64) {
    // Relaxed throughout: nobody else has the file, and the magic below publishes all of it.
    let order = Ordering::Relaxed;
    let now_tsc = tsc();
    header.layout.store(u32::from(LAYOUT_MAJOR) << 16 | u32::from(LAYOUT_MINOR), order);
    header.header_bytes.store(HEADER_BYTES as u32, order);
    header.slot_bytes.store(spec.slot_bytes, order);
    header.kind.store(spec.kind as u32, order);
    header.slot_count.store(spec.slot_count, order);
    header.slots_offset.store(HEADER_BYTES as u64, order);
    header.schema_hash.store(spec.schema_hash, order);
    header.region_bytes.store(bytes, order);
    header.page_bytes.store(sys::page_bytes(), order);
    header.tag.store(spec.tag, order);
    header.boot_id_hash.store(sys::boot_id_hash(), order);
    header.created_wall_ns.store(sys::clock_ns(libc::CLOCK_REALTIME).cast_unsigned(), order);
    header.created_mono_ns.store(sys::clock_ns(libc::CLOCK_MONOTONIC_RAW).cast_unsigned(), order);
    header.created_tsc.store(now_tsc, order);
    store_text(&header.name, &spec.name);
    store_text(&header.build_id, &spec.build_id);
    header.epoch.store(epoch, order);
    header.state.store(state::INIT, order);
    header.successor.store(0, order);
    header.producer_pid.store(u64::from(std::process::id()), order);
    header.producer_start.store(sys::process_start_ticks(), order);
    header.initial_seq.store(spec.initial_seq, order);
    header.progress.store(spec.initial_seq, order);
    header.heartbeat_tsc.store(now_tsc, order);
    // Release, partner: the Acquire load in `check_identity`: who sees the magic sees the rest.
    header.magic.store(MAGIC, Ordering::Release);
}

/// Checks owner, permissions and least size; returns the inode.
fn check_inode(file: &File, path: &Path) -> Result<u64, ShmError> {
    let meta = file.metadata().map_err(ShmError::io("stat", path))?;
    let ours = sys::euid();
    let trusted = [ours, 0].contains(&meta.uid()) || {
        // Whoever owns the directory can replace what is in it anyway.
        let dir = path.parent().unwrap_or(path);
        fs::metadata(dir).map_err(ShmError::io("stat", dir))?.uid() == meta.uid()
    };
    if !trusted {
        return Err(ShmError::Owner { path: path.to_owned(), found: meta.uid(), expected: ours });
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(ShmError::Mode { path: path.to_owned(), mode });
    }
    if meta.len() < HEADER_BYTES as u64 {
        return Err(ShmError::Truncated {
            path: path.to_owned(),
            found_bytes: meta.len(),
            needed_bytes: HEADER_BYTES as u64,
        });
    }
    Ok(meta.ino())
}

/// Checks magic, version and kind: what holds for every region of every version.
fn check_identity(header: &Header, path: &Path, kind: Option<RegionKind>) -> Result<(), ShmError> {
    let path = || path.to_owned();
    // Acquire, partner: the Release store in `write_header`.
    match header.magic.load(Ordering::Acquire) {
        MAGIC => {}
        0 => return Err(ShmError::HalfInitialised { path: path() }),
        found => return Err(ShmError::WrongMagic { path: path(), found, expected: MAGIC }),
    }
    // Relaxed, here and in `check_geometry`: ordered by the magic.
    let layout = header.layout.load(Ordering::Relaxed);
    let (found_major, found_minor) = ((layout >> 16) as u16, layout as u16);
    if found_major != LAYOUT_MAJOR {
        return Err(ShmError::LayoutVersion {
            path: path(),
            found_major,
            found_minor,
            our_major: LAYOUT_MAJOR,
            our_minor: LAYOUT_MINOR,
        });
    }
    let found = RegionKind::from_u32(header.kind.load(Ordering::Relaxed));
    match kind {
        Some(expected) if found != expected => {
            Err(ShmError::Kind { path: path(), found, expected })
        }
        _ => Ok(()),
    }
}

/// Checks every size the header claims, before anything is read through it.
fn check_geometry(map: &Mapping, path: &Path, expect: Expect) -> Result<(), ShmError> {
    let header = map.header();
    let order = Ordering::Relaxed;
    let geometry = |what, found, expected| {
        Err(ShmError::Geometry { path: path.to_owned(), what, found, expected })
    };
    let found = header.boot_id_hash.load(order);
    if found != sys::boot_id_hash() {
        return Err(ShmError::BootId { path: path.to_owned(), found, ours: sys::boot_id_hash() });
    }
    if let Some(expected) = expect.schema_hash {
        let found = header.schema_hash.load(order);
        if found != expected {
            return Err(ShmError::SchemaHash { path: path.to_owned(), found, expected });
        }
    }
    let header_bytes = u64::from(header.header_bytes.load(order));
    if header_bytes != HEADER_BYTES as u64 {
        return geometry("header size", header_bytes, HEADER_BYTES as u64);
    }
    let slots_offset = header.slots_offset.load(order);
    if slots_offset != HEADER_BYTES as u64 {
        return geometry("slots offset", slots_offset, HEADER_BYTES as u64);
    }
    let slot_bytes = u64::from(header.slot_bytes.load(order));
    if let Some(expected) = expect.slot_bytes
        && slot_bytes != u64::from(expected)
    {
        return geometry("slot size", slot_bytes, u64::from(expected));
    }
    let slot_count = header.slot_count.load(order);
    if expect.power_of_two && !(slot_count.is_power_of_two() && slot_count >= 2) {
        return geometry("slot count", slot_count, slot_count.max(2).next_power_of_two());
    }
    let file_bytes = map.bytes() as u64;
    let region_bytes = header.region_bytes.load(order);
    if file_bytes < region_bytes {
        return Err(ShmError::Truncated {
            path: path.to_owned(),
            found_bytes: file_bytes,
            needed_bytes: region_bytes,
        });
    }
    if file_bytes != region_bytes {
        return geometry("region size", region_bytes, file_bytes);
    }
    let end = slot_bytes.checked_mul(slot_count).and_then(|bytes| bytes.checked_add(slots_offset));
    match end {
        Some(end) if end <= region_bytes && slot_bytes % 8 == 0 => Ok(()),
        _ => geometry("end of slots", end.unwrap_or(u64::MAX), region_bytes),
    }
}

/// Tries to take the lock for life; patient enough for a reader's probe to pass.
fn try_lock(file: &File, path: &Path) -> Result<bool, ShmError> {
    for attempt in 0..LOCK_TRIES {
        if attempt > 0 {
            std::thread::sleep(LOCK_RETRY);
        }
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(ShmError::io("flock", path)(error)),
        }
    }
    Ok(false)
}

/// Returns whether the path still names the file that is open.
fn names_inode(path: &Path, file: &File) -> Result<bool, ShmError> {
    let open = file.metadata().map_err(ShmError::io("stat", path))?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ShmError::io("stat", path)(error)),
    }
}

/// Stores as much of `text` as fits with a terminating zero.
pub(crate) fn store_text(words: &[AtomicU64], text: &str) {
    let bytes = text.as_bytes();
    let kept = bytes.len().min(words.len() * 8 - 1);
    for (at, word) in words.iter().enumerate() {
        let mut chunk = [0; 8];
        for (byte, slot) in chunk.iter_mut().enumerate() {
            *slot = if at * 8 + byte < kept { bytes[at * 8 + byte] } else { 0 };
        }
        // Relaxed: published by whatever marks the text complete.
        word.store(u64::from_le_bytes(chunk), Ordering::Relaxed);
    }
}

/// Loads text up to its terminating zero; a damaged one becomes replacement characters.
pub(crate) fn load_text(words: &[AtomicU64]) -> String {
    // Relaxed: as in `store_text`.
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
