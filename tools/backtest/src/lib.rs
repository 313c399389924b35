//! Backtests: recorded books and simulated venues around the engine that trades live.
//!
//! Invariant: the engine, its controls and its rounds are those of the live system; only what surrounds them is
//! simulated. Everything that is drawn comes from the seed. Pessimistic by default: takers only, no credit for a
//! place in a queue, ties go to competitors.
//!
//! Not here: where records come from and how results are shown (the binary).

pub mod config;
pub mod outcome;

pub use config::Config;
pub use outcome::{Outcome, Summary};
