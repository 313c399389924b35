//! The kernel calls the standard library lacks, each one small and checked.
//!
//! Invariant: nothing here keeps a pointer after it returns, and every failure is an `io::Error`.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Allocates the file's blocks now, so that a shortage is an error here and not a SIGBUS later.
pub(crate) fn fallocate(file: &File, bytes: u64) -> io::Result<()> {
    let len =
        libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Renames, and fails with `AlreadyExists` where a plain rename would replace.
pub(crate) fn rename_noreplace(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    // SAFETY: both strings are terminated and outlive the call.
    let answer = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a file for reading and writing, making it where it is missing, and takes its lock, which the kernel
/// frees with the process; fails with `WouldBlock` where another process has it.
pub(crate) fn open_locked(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes a named pipe that only this user may open; fails with `AlreadyExists` where the name is taken.
pub(crate) fn make_pipe(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the string is terminated and outlives the call.
    if unsafe { libc::mkfifo(path.as_ptr(), 0o600) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Waits until there is something to read, at most for `most`; also ends early on a signal.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, most: Duration) {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let most = libc::timespec {
        tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(1),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: both structures are ours and outlive the call, and the count is theirs. Whatever it answers,
    // the caller looks for itself.
    unsafe { libc::ppoll(&raw mut polled, 1, &raw const most, std::ptr::null()) };
}

/// Returns how many bytes an unprivileged process may still take from the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    disk_bytes(path).map(|(free, _)| free)
}

/// Returns how many bytes an unprivileged process may still take from the file system of `path`, and how
/// many the file system has in all.
pub fn disk_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let path = c_path(path)?;
    // SAFETY: all-zero is a valid `statvfs`: it holds integers only.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the string is terminated, and `stat` is ours to be written.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// Keeps this process's memory out of core dumps and away from other processes of the same user: for
/// those that hold keys.
pub fn forbid_dumps() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours and outlives the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes integers only.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns the effective user of this process.
pub fn euid() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns the size of a page.
pub(crate) fn page_bytes() -> u32 {
    // SAFETY: takes a constant and returns a number.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(bytes).unwrap_or(4096)
}

/// Returns how many bytes this process may lock, `u64::MAX` for no limit.
pub(crate) fn memlock_limit_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to be written.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0 {
        limit.rlim_cur
    } else {
        0
    }
}

/// Reads one of the kernel's clocks in nanoseconds; through the vDSO, so without a system call.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to be written. The clock ids used in this crate exist since Linux 2.6.28,
    // so the call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Returns a hash of the kernel's boot id, the same in all processes until the next boot.
pub(crate) fn boot_id_hash() -> u64 {
    static HASH: OnceLock<u64> = OnceLock::new();
    *HASH.get_or_init(|| {
        let id = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        fnv1a(&id)
    })
}

/// Returns field 22 of our stat file: with the pid it names one process and no later one.
pub(crate) fn process_start_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command name is in parentheses and may hold spaces; the rest starts at field 3.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or(0)
}

/// Returns 128 random bits from the kernel.
pub(crate) fn random_uuid() -> io::Result<u128> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&hex, 16).map_err(io::Error::other)
}

/// Hashes bytes with FNV-1a; for identities that are compared, never for anything secret.
#[must_use]
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}
