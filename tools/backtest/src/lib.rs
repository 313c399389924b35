//! Backtests: recorded books and simulated venues around the engine that trades live.
//!
//! Invariant: the engine, its controls and its rounds are those of the live system; only what surrounds them is
//! simulated. Everything that is drawn comes from the seed. Pessimistic by default: takers only, no credit for a
//! place in a queue, ties go to competitors.
//!
//! Not here: where records come from and how results are shown (the binary).

mod books;
pub mod config;
#[cfg(test)]
#[path = "../../../core/tests/desk/mod.rs"]
mod desk;
mod dice;
mod latency;
mod looks;
pub mod outcome;
mod resting;
mod stream;
mod tally;
mod venue;
mod world;

pub use config::Config;
pub use looks::{Counterfactual, LATE_US};
pub use outcome::{Outcome, Summary};
pub use venue::Plant;
pub use world::{Plan, RunError, Source, Told, run};
