//! The control page: the level word, and one row for each process that trading depends on.
//!
//! Invariant: the level word is changed only by a compare-and-swap, so no raise is ever lost; it is the
//! one word of shared memory with several writers, and what it means is the callers' (the word is handed
//! through unread). Whoever sends reads it last ([`ControlPage::level`], Acquire) and echoes the epoch it
//! has acted on; after the echo of a change nothing leaves that was not allowed under it. A row has one
//! writer, the process that holds its lock; the kernel frees the lock when that process dies, however.
//!
//! The page is made once, whole, and kept: it outlives every process of the run, so that a restart finds
//! the level that was. Nothing here is ever reset.
//!
//! Not here: which levels there are (`tandem-core::level`), the file that outlives the host (`tandem`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::ShmError;
use crate::region::Mapping;
use crate::slot::Cell;
use crate::sys;

/// Name of the page's file.
pub const NAME: &str = "control";
/// Rows for processes.
pub const ROWS: usize = 8;

const MAGIC: u64 = u64::from_le_bytes(*b"TANDEMCT");
const VERSION: u64 = 1;
const BYTES: usize = 4096;
const LEVEL_AT: usize = 128;
const ROWS_AT: usize = 256;
const ROW_BYTES: usize = 128;
const ROW_WORDS: usize = 6;

/// A shared word that can be swapped; see [`Cell`] for why this is a trait.
pub trait Swap: Cell {
    /// Writes `new` where the word is `current` and nothing where it is something else, which it returns.
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64>;
}

// AcqRel, partners: `level`, and other swaps.
impl Swap for AtomicU64 {
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(loom)]
impl Swap for loom::sync::atomic::AtomicU64 {
    fn swap_if(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// Reads the level word as a sender must: last before the write.
///
/// Acquire, partner: the swap in [`Swap::swap_if`]. What the raiser did before it raised is seen by whoever
/// sees the raise.
#[inline(always)]
pub fn level<C: Cell>(word: &C) -> u64 {
    word.load(Ordering::Acquire)
}

/// Changes the word by `change` and returns the new one; nothing where `change` wants none.
pub fn update<C: Swap>(word: &C, mut change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
    let mut now = word.load(Ordering::Acquire);
    loop {
        let next = change(now)?;
        match word.swap_if(now, next) {
            Ok(_) => return Some(next),
            Err(found) => now = found,
        }
    }
}

/// The page, mapped for reading and writing. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct ControlPage {
    map: Arc<Mapping>,
    dir: PathBuf,
}

/// What a row says of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Process id, 0 before the first.
    pub pid: u32,
    /// Its last beat, UNIX ns.
    pub beat_ns: u64,
    /// Epoch of the level word that it has acted on.
    pub echo: u32,
    /// Hash of its build.
    pub build: u64,
    /// Hash of its configuration.
    pub config: u64,
    /// How many processes have had the row.
    pub generation: u64,
}

impl ControlPage {
    /// Opens the page, making it with `initial` as level word where there is none.
    pub fn create_or_open(dir: &Path, initial: u64) -> Result<ControlPage, ShmError> {
        let path = dir.join(NAME);
        if !path.exists() {
            let mut page = vec![0u8; BYTES];
            page[..8].copy_from_slice(&MAGIC.to_le_bytes());
            page[8..16].copy_from_slice(&VERSION.to_le_bytes());
            page[LEVEL_AT..LEVEL_AT + 8].copy_from_slice(&initial.to_le_bytes());
            let temp = dir.join(format!(".{NAME}.{}", std::process::id()));
            let made = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temp)
                .and_then(|mut file| file.write_all(&page))
                .and_then(|()| sys::rename_noreplace(&temp, &path));
            if let Err(error) = made {
                let _ = fs::remove_file(&temp);
                // Another process was faster: its page is as good as ours.
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(ShmError::io("create", &path)(error));
                }
            }
        }
        ControlPage::open(dir, Duration::ZERO)
    }

    /// Opens the page, waiting for a process that makes it.
    pub fn open(dir: &Path, timeout: Duration) -> Result<ControlPage, ShmError> {
        let path = dir.join(NAME);
        let until = Instant::now() + timeout;
        let file = loop {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => break file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(ShmError::io("open", &path)(error)),
            }
        };
        check(&file, &path)?;
        let map = Arc::new(Mapping::read_write(&file, &path)?);
        map.settle(&path, false)?;
        Ok(ControlPage { map, dir: dir.to_owned() })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.map.words(at, 1)[0]
    }

    /// Returns the level word. The last thing before a send.
    #[inline(always)]
    #[must_use]
    pub fn level(&self) -> u64 {
        level(self.word(LEVEL_AT))
    }

    /// Changes the level word; see [`update`].
    pub fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        update(self.word(LEVEL_AT), change)
    }

    /// Takes a row for this process; fails with `WouldBlock` inside while another process has it.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn claim(&self, row: usize, build: u64, config: u64) -> Result<Actor, ShmError> {
        assert!(row < ROWS, "the page has this row");
        let path = self.dir.join(format!("{NAME}.{row}.lock"));
        let lock = sys::open_locked(&path).map_err(ShmError::io("lock", &path))?;
        let actor = Actor { page: self.clone(), row, _lock: lock };
        let words = actor.words();
        words[3].store(build, Ordering::Relaxed);
        words[4].store(config, Ordering::Relaxed);
        words[5].fetch_add(1, Ordering::Relaxed);
        words[1].store(0, Ordering::Relaxed);
        // Release: whoever sees the new pid sees the row that belongs to it.
        words[0].store(u64::from(std::process::id()), Ordering::Release);
        Ok(actor)
    }

    /// Returns whether a process holds the row's lock. For the slow path: this is a system call.
    #[must_use]
    pub fn is_held(&self, row: usize) -> bool {
        let path = self.dir.join(format!("{NAME}.{row}.lock"));
        let Ok(file) = File::open(path) else { return false };
        matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }

    /// Returns what a row says.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> Row {
        assert!(row < ROWS, "the page has this row");
        let words = self.map.words(ROWS_AT + row * ROW_BYTES, ROW_WORDS);
        // Acquire, partner: the Release in `claim`.
        let pid = words[0].load(Ordering::Acquire) as u32;
        Row {
            pid,
            beat_ns: words[1].load(Ordering::Acquire),
            echo: words[2].load(Ordering::Acquire) as u32,
            build: words[3].load(Ordering::Relaxed),
            config: words[4].load(Ordering::Relaxed),
            generation: words[5].load(Ordering::Relaxed),
        }
    }
}

/// The page as somebody sees it who must not be able to change it: mapped for reading.
#[derive(Debug)]
pub struct ControlView(ControlPage);

impl ControlView {
    /// Opens the page; there is no waiting for one.
    pub fn open(dir: &Path) -> Result<ControlView, ShmError> {
        let path = dir.join(NAME);
        let file = File::open(&path).map_err(ShmError::io("open", &path))?;
        check(&file, &path)?;
        let map = Arc::new(Mapping::read_only(&file, &path, true)?);
        Ok(ControlView(ControlPage { map, dir: dir.to_owned() }))
    }

    /// Returns the level word; see [`ControlPage::level`].
    #[must_use]
    pub fn level(&self) -> u64 {
        self.0.level()
    }

    /// Returns what a row says.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> Row {
        self.0.row(row)
    }

    /// Returns whether a process holds the row's lock. For the slow path: this is a system call.
    #[must_use]
    pub fn is_held(&self, row: usize) -> bool {
        self.0.is_held(row)
    }
}

fn check(file: &File, path: &Path) -> Result<(), ShmError> {
    let metadata = file.metadata().map_err(ShmError::io("stat", path))?;
    let refuse = |why: &str| {
        Err(ShmError::io("read", path)(io::Error::new(io::ErrorKind::InvalidData, why.to_owned())))
    };
    if metadata.uid() != sys::euid() {
        return refuse("belongs to another user");
    }
    if metadata.len() != BYTES as u64 {
        return refuse("is no control page: its size is wrong");
    }
    let mut head = [0u8; 16];
    file.read_exact_at(&mut head, 0).map_err(ShmError::io("read", path))?;
    if head[..8] != MAGIC.to_le_bytes() {
        return refuse("is no control page");
    }
    if head[8..] != VERSION.to_le_bytes() {
        return refuse("is the control page of another build: stop everything, then remove it");
    }
    Ok(())
}

/// A process's own row.
#[derive(Debug)]
pub struct Actor {
    page: ControlPage,
    row: usize,
    /// Held for life; the kernel frees it.
    _lock: File,
}

impl Actor {
    fn words(&self) -> &[AtomicU64] {
        self.page.map.words(ROWS_AT + self.row * ROW_BYTES, ROW_WORDS)
    }

    /// Tells the others that we live.
    #[inline]
    pub fn beat(&self, unix_ns: i64) {
        // Release: a beat vouches for what was done before it.
        self.words()[1].store(unix_ns as u64, Ordering::Release);
    }

    /// Tells the others that we have acted on this epoch of the level word.
    #[inline]
    pub fn echo(&self, epoch: u32) {
        // Release: nothing that left us under the older epoch comes after it.
        self.words()[2].store(u64::from(epoch), Ordering::Release);
    }

    /// Leaves in order: the row names no process any more.
    pub fn leave(self) {
        // Release: what was done before is seen by whoever sees the row empty.
        self.words()[0].store(0, Ordering::Release);
    }

    /// Returns the page.
    #[must_use]
    pub fn page(&self) -> &ControlPage {
        &self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("tandem-control-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).expect("make the test's folder");
        dir
    }

    #[test]
    fn the_page_is_made_once_and_kept() {
        let dir = dir("once");
        let first = ControlPage::create_or_open(&dir, 7).expect("create");
        assert_eq!(first.update(|word| Some(word + 1)), Some(8));
        let second = ControlPage::create_or_open(&dir, 7).expect("open");
        assert_eq!(second.level(), 8);
        assert_eq!(second.update(|_| None), None);
        let view = ControlView::open(&dir).expect("look");
        assert_eq!((view.level(), view.row(0).pid, view.is_held(0)), (8, 0, false));
        fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn a_row_has_one_process() {
        let dir = dir("row");
        let page = ControlPage::create_or_open(&dir, 0).expect("create");
        assert!(!page.is_held(2));
        let actor = page.claim(2, 5, 6).expect("claim");
        assert!(page.is_held(2));
        assert!(page.claim(2, 5, 6).is_err());
        actor.beat(99);
        actor.echo(3);
        let row = page.row(2);
        assert_eq!((row.pid, row.beat_ns, row.echo), (std::process::id(), 99, 3));
        assert_eq!((row.build, row.config, row.generation), (5, 6, 1));
        drop(actor);
        assert_eq!(page.claim(2, 5, 6).expect("claim again").page().row(2).generation, 2);
        fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn foreign_files_are_refused_by_name() {
        let dir = dir("bad");
        for (bytes, word) in [(vec![0u8; 10], "size"), (vec![0u8; BYTES], "no control page")] {
            fs::write(dir.join(NAME), bytes).expect("write");
            let error = ControlPage::open(&dir, Duration::ZERO).expect_err("refused");
            let text = std::error::Error::source(&error).map(ToString::to_string);
            let text = format!("{error} {}", text.unwrap_or_default());
            assert!(text.contains(word) && text.contains(NAME), "{text}");
        }
        fs::remove_dir_all(&dir).expect("clean up");
    }
}
