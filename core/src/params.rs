//! What an operator chooses for detection. Every rate is in parts per million, every time in
//! nanoseconds.
//!
//! Invariant: [`Params::check`] accepts nothing that loosens a limit by accident: every bound is
//! positive, the largest believable edge is above the smallest wanted one.

use alloc::vec::Vec;

use crate::instrument::AssetId;

/// What is assumed of one venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueParams {
    /// Buffer for what a taker order loses against the displayed book, per leg.
    pub slippage_ppm: i32,
    /// Price of old data: per second of a book's age, charged per leg.
    pub staleness_ppm_per_s: i32,
    /// Data older than this makes no opportunity at all.
    pub age_ns_max: i64,
    /// How long an order takes to reach the venue's book: when the books are looked at again.
    pub order_latency_ns: i64,
}

/// Parameters of the detector and of the engine around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Smallest net edge wanted, of the amount spent.
    pub edge_min_ppm: i32,
    /// Largest believable gross edge; above it the instruments are halted.
    pub edge_max_ppm: i32,
    /// How long such a halt lasts; 0 is until an operator releases it.
    pub edge_max_halt_ns: i64,
    /// Further buffer for cycles that cross quote currencies.
    pub basis_ppm: i32,
    /// By venue, in the order of [`crate::record::Venue::ALL`].
    pub venues: [VenueParams; 3],
    /// Assets that gains are counted in, the most wanted first.
    pub numeraires: Vec<AssetId>,
    /// Most legs of a cycle, 2 to 4.
    pub legs_max: usize,
    /// Most cycles; a larger graph is refused at start.
    pub cycles_max: usize,
    /// Levels a side that the engine's books hold: the window that the feed handlers publish.
    pub window_levels: usize,
    /// An opportunity that comes back within this time is the same one.
    pub flicker_ns: i64,
    /// At most one record per cycle and denial code in this time; the rest is counted in the next.
    pub denial_ns: i64,
    /// At most one record per open opportunity in this time, and only where it got better.
    pub update_ns: i64,
}

/// Which parameter is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {range}")]
pub struct ParamsError {
    /// The configuration key.
    pub key: &'static str,
    /// What it must be.
    pub range: &'static str,
}

impl Params {
    /// Checks every range; the first fault is the error.
    pub fn check(&self) -> Result<(), ParamsError> {
        let err = |key, range| Err(ParamsError { key, range });
        if !(0..=1_000_000).contains(&self.edge_min_ppm) {
            return err("edge_min_ppm", "between 0 and 1000000");
        }
        if !(self.edge_min_ppm + 1..=1_000_000).contains(&self.edge_max_ppm) {
            return err("edge_max_ppm", "above edge_min_ppm and at most 1000000");
        }
        if !(0..=1_000_000).contains(&self.basis_ppm) {
            return err("basis_ppm", "between 0 and 1000000");
        }
        for venue in &self.venues {
            if !(0..=1_000_000).contains(&venue.slippage_ppm) {
                return err("slippage_ppm", "between 0 and 1000000");
            }
            if !(0..=1_000_000).contains(&venue.staleness_ppm_per_s) {
                return err("staleness_ppm_per_s", "between 0 and 1000000");
            }
            if venue.age_ns_max <= 0 {
                return err("age_ns_max", "positive");
            }
            if venue.order_latency_ns < 0 {
                return err("order_latency_ns", "not negative");
            }
        }
        if self.window_levels == 0 {
            return err("window_levels", "positive");
        }
        if self.edge_max_halt_ns < 0 || self.flicker_ns < 0 {
            return err("edge_max_halt_ns and flicker_ns", "not negative");
        }
        if self.denial_ns <= 0 || self.update_ns <= 0 {
            return err("denial_ns and update_ns", "positive, or the journal floods");
        }
        Ok(())
    }
}
