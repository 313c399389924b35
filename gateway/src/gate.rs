//! The level word as a gateway sees it.
//!
//! Invariant: [`Gate::level`] is an acquire-load of the one word that everybody shares, and nothing is kept
//! of it: whoever asks gets what it holds now. A gateway raises levels and never lowers one.
//!
//! Not here: where the word lives (`tandem_shm::control`), who watches whom (`warden`).

use tandem_core::level::{Cause, Level, LevelWord, Scope};

/// The word.
pub trait Gate {
    /// Returns what the word holds now.
    fn level(&self) -> LevelWord;

    /// Raises a scope; nothing happens where it is as high already.
    fn raise(&self, scope: Scope, level: Level, cause: Cause);
}

/// What a tile tells the other processes about itself.
pub trait Post: Gate {
    /// Says that this process lives, at this UNIX time.
    fn beat(&mut self, unix_ns: i64);

    /// Says which epoch of the level word this process has seen and obeys.
    fn echo(&mut self, epoch: u32);
}

/// A word of one's own, for tests and tools without shared memory.
#[derive(Debug)]
pub struct LocalGate(std::sync::atomic::AtomicU64);

impl LocalGate {
    /// Returns a gate that holds this word.
    #[must_use]
    pub fn new(word: LevelWord) -> LocalGate {
        LocalGate(std::sync::atomic::AtomicU64::new(word.0))
    }

    /// Returns a gate at which everything is allowed.
    #[must_use]
    pub fn armed() -> LocalGate {
        LocalGate::new(LevelWord(0))
    }
}

impl Gate for LocalGate {
    fn level(&self) -> LevelWord {
        // Acquire: pairs with the release of whoever raised.
        LevelWord(self.0.load(std::sync::atomic::Ordering::Acquire))
    }

    fn raise(&self, scope: Scope, level: Level, cause: Cause) {
        use std::sync::atomic::Ordering;
        let change = |word| LevelWord(word).raised(scope, level, cause).map(|word| word.0);
        // AcqRel: a raise is seen by every later load, and does not hide an earlier one.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }
}

impl Post for LocalGate {
    fn beat(&mut self, _unix_ns: i64) {}

    fn echo(&mut self, _epoch: u32) {}
}

/// The shared word, through a row of the control page.
#[derive(Debug)]
pub struct SharedGate(tandem_shm::control::Actor);

impl SharedGate {
    /// Takes the row that this process has claimed.
    #[must_use]
    pub fn new(actor: tandem_shm::control::Actor) -> SharedGate {
        SharedGate(actor)
    }
}

impl Gate for SharedGate {
    fn level(&self) -> LevelWord {
        LevelWord(self.0.page().level())
    }

    fn raise(&self, scope: Scope, level: Level, cause: Cause) {
        let change = |word| LevelWord(word).raised(scope, level, cause).map(|word| word.0);
        if self.0.page().update(change).is_some() {
            tracing::error!(?scope, level = level.name(), cause = cause.name(), "level raised");
        }
    }
}

impl Post for SharedGate {
    fn beat(&mut self, unix_ns: i64) {
        self.0.beat(unix_ns);
    }

    fn echo(&mut self, epoch: u32) {
        self.0.echo(epoch);
    }
}
