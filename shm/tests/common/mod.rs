//! What the integration tests share: directories that clean up, records that prove themselves.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const SCHEMA: u64 = 0x7a3d_0001;

/// A directory of its own below `/dev/shm`, gone afterwards.
pub struct TestDir(PathBuf);

impl TestDir {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = format!("/dev/shm/tandem-test-{}-{count}-{name}", std::process::id());
        fs::create_dir_all(&dir).unwrap();
        Self(PathBuf::from(dir))
    }
}

impl std::ops::Deref for TestDir {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A record whose words all follow from one number, so that a mixture of two shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Record {
    pub seq: u64,
    pub words: [u64; 14],
    /// The journal's half and ours.
    pub checksum: u32,
    pub last: u32,
}

impl Record {
    pub fn of(number: u64) -> Self {
        Self {
            seq: 0,
            words: std::array::from_fn(|at| word(number, at as u64)),
            checksum: 0,
            last: word(number, 14) as u32,
        }
    }

    /// Asserts that all words follow from this number.
    #[track_caller]
    pub fn check(&self, number: u64) {
        let expected = Self::of(number);
        assert_eq!((self.words, self.last), (expected.words, expected.last), "torn at {number}");
    }
}

/// Spreads a number over 64 bits, differently for each place.
fn word(number: u64, at: u64) -> u64 {
    let mixed = (number ^ at << 56).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// Starts one test of this very binary as another process, with its role in the environment.
pub fn spawn_child(test: &str, dir: &Path, arguments: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env("TANDEM_CHILD_DIR", dir)
        .env("TANDEM_CHILD_ARGS", arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns directory and arguments if this process is a child; a child test does nothing otherwise.
pub fn child_role() -> Option<(PathBuf, Vec<u64>)> {
    let dir = std::env::var_os("TANDEM_CHILD_DIR")?;
    let arguments = std::env::var("TANDEM_CHILD_ARGS").unwrap();
    let arguments = arguments.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Some((PathBuf::from(dir), arguments))
}

/// A small generator for choices that need no quality, only a seed to print.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
