//! How a tile passes the time when it has nothing to do.
//!
//! Invariant: the same tile code runs in all modes; only who gets the CPU meanwhile differs. No mode
//! waits for an event: a wait ends by itself, so nobody has to wake anybody.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

/// How long a parked tile sleeps, unless configured otherwise.
pub const PARK_DEFAULT: Duration = Duration::from_micros(100);

/// What an idle tile does with its core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitMode {
    /// Keeps it: lowest latency, for a core nobody else needs.
    Spin,
    /// Offers it to whoever else is runnable: for more tiles than cores.
    #[default]
    Yield,
    /// Sleeps for a bounded time: for tools and tiles that may be late.
    Park,
}

impl WaitMode {
    const NAMES: [(Self, &'static str); 3] =
        [(Self::Spin, "spin"), (Self::Yield, "yield"), (Self::Park, "park")];
}

impl fmt::Display for WaitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Yield => "yield",
            Self::Park => "park",
        })
    }
}

/// The text names no wait mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wait mode {0:?} is unknown; use spin, yield or park")]
pub struct UnknownWaitMode(String);

impl FromStr for WaitMode {
    type Err = UnknownWaitMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES
            .into_iter()
            .find(|(_, name)| *name == text)
            .map(|(mode, _)| mode)
            .ok_or_else(|| UnknownWaitMode(text.to_owned()))
    }
}

/// Waits between polls: `idle` after an empty one, `reset` after work.
#[derive(Clone, Debug)]
pub struct Waiter {
    mode: WaitMode,
    park: Duration,
    idles: u64,
}

impl Waiter {
    /// Returns a waiter that parks for [`PARK_DEFAULT`] if it parks.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        Self::with_park(mode, PARK_DEFAULT)
    }

    /// Returns a waiter that parks for `park` if it parks.
    #[must_use]
    pub fn with_park(mode: WaitMode, park: Duration) -> Self {
        Self { mode, park, idles: 0 }
    }

    /// Waits a little: there was nothing to do.
    #[inline]
    pub fn idle(&mut self) {
        self.idles += 1;
        match self.mode {
            WaitMode::Spin => std::hint::spin_loop(),
            WaitMode::Yield => thread::yield_now(),
            WaitMode::Park => thread::sleep(self.park),
        }
    }

    /// Notes that there was work.
    #[inline]
    pub fn reset(&mut self) {
        self.idles = 0;
    }

    /// Returns how often in a row there was nothing to do: what the slow path runs on.
    #[must_use]
    pub fn idles(&self) -> u64 {
        self.idles
    }

    /// Returns the mode.
    #[must_use]
    pub fn mode(&self) -> WaitMode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (mode, name) in WaitMode::NAMES {
            assert_eq!(mode.to_string(), name);
            assert_eq!(name.parse(), Ok(mode));
        }
        let error = "Spin".parse::<WaitMode>().unwrap_err().to_string();
        assert!(error.contains("spin, yield or park"), "{error}");
    }

    #[test]
    fn park_is_bounded_and_idles_count() {
        let mut waiter = Waiter::with_park(WaitMode::Park, Duration::from_millis(2));
        let start = std::time::Instant::now();
        for _ in 0..3 {
            waiter.idle();
        }
        assert!(start.elapsed() >= Duration::from_millis(6));
        assert_eq!(waiter.idles(), 3);
        waiter.reset();
        assert_eq!(waiter.idles(), 0);
    }
}
