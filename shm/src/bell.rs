//! What wakes a tile that sleeps: a mark that says so, and a pipe to wake it through.
//!
//! Invariant: no record waits for a sleeper. The sleeper sets its mark, fences, looks at its rings once more
//! and only then sleeps; the producer publishes, fences and only then looks at the mark. So one of the two
//! sees the other, whatever the order (`tests/loom.rs` has the model, and what goes wrong without the fences).
//! A byte in the pipe is never lost: one that comes before the sleeper has reached the kernel ends its sleep
//! at once. The mark is written by its sleeper alone; producers map it read-only.
//!
//! The hot path never waits: a producer's cost is one fence and one load while the sleeper is awake, and one
//! write that cannot block while it sleeps. A tile that spins or yields has no bell, and then there is not
//! even the fence. Sleeps stay bounded, so a bell that nobody could ring costs time and nothing else.
//!
//! Not here: what is looked at before sleeping (the tiles), how long a sleep is at most (`wait`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::ShmError;
use crate::region::Mapping;
use crate::slot::Cell;
use crate::sys;

/// The mark has a page of its own: nobody else's writes disturb who reads it.
const BYTES: usize = 4096;
const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;

/// Says that the caller is about to sleep. What it sleeps for is to be looked at once more after this.
pub fn lie_down<C: Cell>(mark: &C) {
    // Relaxed: ordered by the fence.
    mark.store(ASLEEP, Ordering::Relaxed);
    // SeqCst, partner: the fence in `is_asleep`. The mark is out before the rings are looked at again.
    C::fence(Ordering::SeqCst);
}

/// Says that the caller is up again.
pub fn get_up<C: Cell>(mark: &C) {
    // Relaxed: who still sees the sleeper writes a byte too many.
    mark.store(AWAKE, Ordering::Relaxed);
}

/// Returns whether the sleeper must be woken for what the caller has published before.
#[inline(always)]
pub fn is_asleep<C: Cell>(mark: &C) -> bool {
    // SeqCst, partner: the fence in `lie_down`. What was published is out before the mark is read.
    C::fence(Ordering::SeqCst);
    // Relaxed: ordered by the fence.
    mark.load(Ordering::Relaxed) == ASLEEP
}

fn mark_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.bell"))
}

fn pipe_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.wake"))
}

/// The sleeper's side.
#[derive(Debug)]
pub struct Bell {
    map: Mapping,
    pipe: File,
    /// Held for life: a bell has one sleeper.
    _lock: File,
}

impl Bell {
    /// Makes the bell `name`, or takes over that of a sleeper that is gone: producers keep theirs.
    ///
    /// # Errors
    /// Where another process has it (`WouldBlock` inside), or the files cannot be made.
    pub fn create(dir: &Path, name: &str) -> Result<Bell, ShmError> {
        let path = mark_path(dir, name);
        let file = sys::open_locked(&path).map_err(ShmError::io("lock", &path))?;
        sys::fallocate(&file, BYTES as u64).map_err(ShmError::io("allocate", &path))?;
        let map = Mapping::read_write(&file, &path)?;
        map.settle(&path, false)?;
        let pipe_path = pipe_path(dir, name);
        match sys::make_pipe(&pipe_path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(ShmError::io("make", &pipe_path)(error));
            }
            _ => {}
        }
        // For writing too: a pipe without a writer would say "end" instead of "nothing yet".
        let pipe = open_pipe(&pipe_path, true, true).map_err(ShmError::io("open", &pipe_path))?;
        let bell = Bell { map, pipe, _lock: file };
        bell.get_up();
        Ok(bell)
    }

    fn mark(&self) -> &std::sync::atomic::AtomicU64 {
        &self.map.words(0, 1)[0]
    }

    /// Says that the tile is about to sleep; see [`lie_down`].
    pub fn lie_down(&self) {
        lie_down(self.mark());
    }

    /// Says that the tile is awake, and takes what rang meanwhile.
    pub fn get_up(&self) {
        get_up(self.mark());
        let mut bytes = [0u8; 64];
        while matches!((&self.pipe).read(&mut bytes), Ok(count) if count == bytes.len()) {}
    }

    /// Sleeps until it rings, at most for `most`; for tiles without a poller of their own.
    pub fn sleep(&self, most: Duration) {
        sys::wait_readable(self.pipe.as_fd(), most);
    }

    /// Returns the pipe, for tiles that wait for sockets too.
    #[must_use]
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.get_up();
    }
}

/// The producer's side. A sleeper that is not there yet, or that never sleeps, is nobody to wake.
#[derive(Debug)]
pub struct Ringer {
    dir: PathBuf,
    name: String,
    open: Option<(Mapping, File)>,
}

impl Ringer {
    /// Returns a ringer of the bell `name`; [`Ringer::refresh`] finds it.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Ringer {
        let mut ringer = Ringer { dir: dir.to_owned(), name: name.to_owned(), open: None };
        ringer.refresh();
        ringer
    }

    /// Looks for the bell where it is not there yet. For the slow path: these are system calls.
    pub fn refresh(&mut self) {
        if self.open.is_none() {
            self.open = self.find().ok();
        }
    }

    fn find(&self) -> io::Result<(Mapping, File)> {
        // Fails where nobody has it open for reading.
        let pipe = open_pipe(&pipe_path(&self.dir, &self.name), false, true)?;
        let path = mark_path(&self.dir, &self.name);
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != sys::euid() || metadata.len() != BYTES as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let map = Mapping::read_only(&file, &path, true).map_err(io::Error::other)?;
        Ok((map, pipe))
    }

    /// Wakes the sleeper if it sleeps. To be called after what it is to see was published.
    #[inline]
    pub fn ring(&mut self) {
        if let Some((map, _)) = &self.open
            && is_asleep(&map.words(0, 1)[0])
        {
            self.wake();
        }
    }

    #[cold]
    fn wake(&mut self) {
        let Some((_, pipe)) = &self.open else { return };
        match (&*pipe).write(&[1]) {
            // A full pipe wakes as well as one more byte.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The sleeper is gone; the next one is looked for in time.
            Err(_) => self.open = None,
        }
    }
}

fn open_pipe(path: &Path, read: bool, write: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(read)
        .write(write)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_fifo() || metadata.uid() != sys::euid() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::time::Instant;

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tandem-bell-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make the test's folder");
        dir
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_ring_ends_the_sleep_and_an_early_one_too() {
        let dir = dir("rings");
        let mut early = Ringer::new(&dir, "engine");
        early.ring();
        let bell = Bell::create(&dir, "engine").expect("create");
        early.refresh();
        let begun = Instant::now();
        // Between lying down and sleeping.
        bell.lie_down();
        early.ring();
        bell.sleep(LONG);
        bell.get_up();
        // While it sleeps.
        let ringer = std::thread::spawn({
            let mut ringer = Ringer::new(&dir, "engine");
            move || {
                std::thread::sleep(Duration::from_millis(20));
                ringer.ring();
            }
        });
        bell.lie_down();
        bell.sleep(LONG);
        bell.get_up();
        ringer.join().expect("rang");
        assert!(begun.elapsed() < LONG);
        // Awake: nothing is written, so the next sleep is a whole one.
        early.ring();
        let begun = Instant::now();
        bell.lie_down();
        bell.sleep(Duration::from_millis(30));
        bell.get_up();
        assert!(Duration::from_millis(29) <= begun.elapsed(), "woken by nobody");
        std::fs::remove_dir_all(&dir).expect("clean up");
    }

    #[test]
    fn a_bell_has_one_sleeper_and_outlives_it() {
        let dir = dir("one");
        let bell = Bell::create(&dir, "x").expect("create");
        assert!(Bell::create(&dir, "x").is_err(), "two sleepers");
        let mut ringer = Ringer::new(&dir, "x");
        drop(bell);
        // As a death in its sleep leaves it: the mark stays, and nobody reads.
        let file = OpenOptions::new().write(true).open(mark_path(&dir, "x")).expect("open");
        file.write_at(&ASLEEP.to_le_bytes(), 0).expect("write");
        ringer.ring();
        assert!(ringer.open.is_none(), "nobody is there to be woken");
        let bell = Bell::create(&dir, "x").expect("take over");
        ringer.refresh();
        bell.lie_down();
        ringer.ring();
        let begun = Instant::now();
        bell.sleep(LONG);
        assert!(begun.elapsed() < LONG);
        std::fs::remove_dir_all(&dir).expect("clean up");
    }
}
