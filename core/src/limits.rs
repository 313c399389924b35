//! What an operator allows the engine to do with money. Money without another unit in its name counts
//! quanta of the numeraire, rates are parts per million, times nanoseconds. Every limit is inclusive.
//!
//! Invariant: there is no default: a limit that was not chosen does not exist, and [`Trading::check`]
//! refuses a set in which one is missing, negative, or loosens what another one tightens.
//!
//! Not here: how limits are held against an order (`controls`), how orders are found (`params`).

use alloc::vec::Vec;

use crate::instrument::{AssetId, Universe};
use crate::params::ParamsError;
use crate::units::{Amount, Qty};

/// Most rounds at the same time that a configuration may ask for.
pub const ROUNDS_AT_ONCE_MAX: usize = 64;

/// What is done with an opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is told.
    Observe,
    /// It is told, and filled against the live books by the engine itself.
    Paper,
    /// Orders are sent.
    Live,
}

/// Limits of one venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueLimits {
    /// C2: the user stream must have been heard within this time.
    pub stream_age_ns_max: i64,
    /// C8: worst-case exposure at the venue, all assets together.
    pub exposure_max: i64,
    /// C9: open and unknown orders.
    pub orders_max: i64,
    /// C10: unknown orders.
    pub unknown_max: i64,
    /// C13: new orders per second, and how many at once. At most half of what the venue allows.
    pub orders_per_s: i64,
    /// C13: new orders that may leave at once.
    pub orders_burst: i64,
    /// C13: queries per second, and how many at once.
    pub queries_per_s: i64,
    /// C17: books older than this are not traded on.
    pub age_ns_max: i64,
    /// C17: how late an event may arrive, venue's time to receipt.
    pub lag_ns_max: i64,
    /// C22: the slowest of the last twenty acknowledgements.
    pub ack_ns_max: i64,
    /// Single legs in a row after which the venue is paused.
    pub single_legs_max: i64,
    /// Paper: how long an order takes to the venue's book.
    pub paper_latency_ns: i64,
    /// Paper: how long a report takes back.
    pub paper_response_ns: i64,
    /// Realised fees may differ from the model by this, over fifty fills.
    pub fee_error_ppm_max: i64,
}

/// Limits of one asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetLimits {
    /// C8: worst-case exposure over all venues, in the asset's quanta.
    pub exposure_max: Amount,
    /// Most of what is too little to trade, summed over rounds, in the asset's quanta.
    pub dust_max: Amount,
    /// A venue's balance may differ from the ledger by this, in the asset's quanta.
    pub drift_max: Amount,
    /// C20 and skew, by venue: see [`Band`].
    pub bands: [Band; 3],
}

/// What a venue should hold of an asset, in the asset's quanta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// Not below this after a fill.
    pub floor: Amount,
    /// What is wanted.
    pub target: Amount,
    /// Not above this after a fill.
    pub ceiling: Amount,
}

/// Limits of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstrumentLimits {
    /// C5: how far a limit price may be from both references.
    pub collar_ppm: i64,
    /// C5: the same for hedges.
    pub hedge_collar_ppm: i64,
    /// C6: largest order, in base quanta.
    pub qty_max: Qty,
    /// C9: open and unknown orders.
    pub orders_max: i64,
    /// C15: fills in ten seconds.
    pub fills_10s_max: i64,
    /// C15: fills in an hour.
    pub fills_1h_max: i64,
    /// C19: loss of a day on rounds through this instrument; above it the instrument is halted.
    pub loss_max: i64,
}

/// Everything that bounds trading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trading {
    /// What is done with opportunities.
    pub mode: Mode,
    /// Number of this run of the engine; never used twice.
    pub run: u32,
    /// What limits and profit are counted in.
    pub numeraire: AssetId,
    /// By venue, in the order of [`crate::record::Venue::ALL`].
    pub venues: [VenueLimits; 3],
    /// By asset.
    pub assets: Vec<AssetLimits>,
    /// By instrument.
    pub instruments: Vec<InstrumentLimits>,
    /// Rounds at the same time.
    pub rounds_max: usize,
    /// An entry may be sent this long after it was decided.
    pub order_ttl_ns: i64,
    /// An order without an end for this long is unknown and asked for.
    pub ack_timeout_ns: i64,
    /// First wait between two questions about one order; it doubles.
    pub query_wait_ns: i64,
    /// Longest wait between two questions.
    pub query_wait_ns_max: i64,
    /// An order unknown for longer pauses its venue; the round goes on waiting.
    pub unknown_ns_max: i64,
    /// What is left over is completed within this time (T1).
    pub hedge_ns: i64,
    /// After that it is taken back within this time, then held.
    pub unwind_ns: i64,
    /// A hedge's limit may be this far from the middle of its book.
    pub hedge_slippage_ppm: i64,
    /// The same for taking back.
    pub unwind_slippage_ppm: i64,
    /// Wait between two hedges of one round.
    pub hedge_wait_ns: i64,
    /// Most hedges of a round.
    pub hedges_max: i64,
    /// Most that a round may lose by its hedges; what would lose more is held.
    pub round_loss_max: i64,
    /// Orders are this much larger than the venue's smallest notional.
    pub notional_min_buffer_ppm: i64,
    /// C3: instrument rules older than this are not traded on; 0 where rules never expire (paper).
    pub rules_age_ns_max: i64,
    /// C5b: a reference that moves further in one second halts the instrument.
    pub move_1s_ppm_max: i64,
    /// C5b: the same in sixty seconds.
    pub move_60s_ppm_max: i64,
    /// C7: largest order.
    pub notional_max: i64,
    /// C8: worst-case exposure in total.
    pub exposure_max: i64,
    /// C9: open and unknown orders in total.
    pub orders_max: i64,
    /// C10: unknown orders in total.
    pub unknown_max: i64,
    /// C15: losing rounds in a row.
    pub losing_rounds_max: i64,
    /// C18: smallest expected edge.
    pub edge_min_ppm: i64,
    /// C18: largest expected edge; above it the instruments are halted.
    pub edge_max_ppm: i64,
    /// C18: largest share of the visible depth that an order takes.
    pub depth_ppm_max: i64,
    /// C19: loss in five minutes that pauses.
    pub loss_5min_max: i64,
    /// C19: loss of a day that halts.
    pub loss_day_max: i64,
    /// C19: loss from the day's peak that kills.
    pub drawdown_max: i64,
    /// C21: mean shortfall of realised against expected edge over fifty rounds.
    pub shortfall_ppm_max: i64,
    /// C23: offset of the clock.
    pub clock_offset_ns_max: i64,
    /// C23: bound of the clock's error.
    pub clock_bound_ns_max: i64,
    /// C25: orders of this run.
    pub session_orders_max: i64,
    /// C25: notional of this run.
    pub session_notional_max: i64,
    /// C25: fees of this run.
    pub session_fees_max: i64,
    /// More denials than this in one second pause.
    pub denials_1s_max: i64,
    /// A cycle that a control denied is not tried again for this long.
    pub retry_ns: i64,
    /// A balance that differs for longer pauses its venue.
    pub drift_ns_max: i64,
    /// The engine's view of its own taking ends this long after the order did, if no level changes.
    pub own_interest_ns: i64,
    /// Edge that a cycle needs more where its legs take balances to their bounds; less never.
    pub skew_ppm: i64,
    /// After arming, this many rounds are of the smallest size.
    pub ramp_rounds: i64,
}

impl Trading {
    /// Checks that every limit is there and none is unsafe; the first fault is the error.
    pub fn check(&self, universe: &Universe) -> Result<(), ParamsError> {
        let err = |key, range| Err(ParamsError { key, range });
        if self.run == 0 || self.run == u32::MAX {
            return err("run", "1 to 4294967294, and never used before");
        }
        if universe.assets.len() <= usize::from(self.numeraire.0) {
            return err("numeraire", "an asset of the table");
        }
        if self.assets.len() != universe.assets.len() {
            return err("assets", "one set of limits for each asset");
        }
        if self.instruments.len() != universe.instruments.len() {
            return err("instruments", "one set of limits for each instrument");
        }
        if !(1..=ROUNDS_AT_ONCE_MAX).contains(&self.rounds_max) {
            return err("rounds_max", "between 1 and 64");
        }
        for (key, value) in self.positives() {
            if value <= 0 {
                return err(key, "positive");
            }
        }
        for (key, value) in self.shares() {
            if !(0..=1_000_000).contains(&value) {
                return err(key, "between 0 and 1000000");
            }
        }
        if self.query_wait_ns_max < self.query_wait_ns {
            return err("query_wait_ns_max", "at least query_wait_ns");
        }
        if self.edge_max_ppm <= self.edge_min_ppm {
            return err("edge_max_ppm", "above edge_min_ppm");
        }
        if self.unwind_slippage_ppm < self.hedge_slippage_ppm {
            return err("unwind_slippage_ppm", "at least hedge_slippage_ppm");
        }
        if self.ramp_rounds < 0 || self.rules_age_ns_max < 0 {
            return err("ramp_rounds and rules_age_ns_max", "not negative");
        }
        for venue in &self.venues {
            if let Some((key, _)) = venue.positives().into_iter().find(|(_, value)| *value <= 0) {
                return err(key, "positive");
            }
            if venue.paper_latency_ns < 0 || venue.paper_response_ns < 0 {
                return err("paper_latency_ns and paper_response_ns", "not negative");
            }
        }
        for asset in &self.assets {
            if asset.exposure_max.0 < 0 || asset.dust_max.0 < 0 || asset.drift_max.0 < 0 {
                return err("exposure_max, dust_max and drift_max of an asset", "not negative");
            }
            let sound = |b: &Band| 0 <= b.floor.0 && b.floor <= b.target && b.target <= b.ceiling;
            if !asset.bands.iter().all(sound) {
                return err("bands", "0 <= floor <= target <= ceiling");
            }
        }
        for instrument in &self.instruments {
            if !(1..=1_000_000).contains(&instrument.collar_ppm) {
                return err("collar_ppm", "between 1 and 1000000");
            }
            if !(instrument.collar_ppm..=1_000_000).contains(&instrument.hedge_collar_ppm) {
                return err("hedge_collar_ppm", "between collar_ppm and 1000000");
            }
            if instrument.qty_max.0 <= 0
                || instrument.orders_max <= 0
                || instrument.fills_10s_max <= 0
                || instrument.fills_1h_max <= 0
                || instrument.loss_max <= 0
            {
                return err("limits of an instrument", "positive");
            }
        }
        Ok(())
    }

    fn positives(&self) -> [(&'static str, i64); 33] {
        [
            ("order_ttl_ns", self.order_ttl_ns),
            ("ack_timeout_ns", self.ack_timeout_ns),
            ("query_wait_ns", self.query_wait_ns),
            ("unknown_ns_max", self.unknown_ns_max),
            ("hedge_ns", self.hedge_ns),
            ("unwind_ns", self.unwind_ns),
            ("hedge_slippage_ppm", self.hedge_slippage_ppm),
            ("hedge_wait_ns", self.hedge_wait_ns),
            ("hedges_max", self.hedges_max),
            ("round_loss_max", self.round_loss_max),
            ("move_1s_ppm_max", self.move_1s_ppm_max),
            ("move_60s_ppm_max", self.move_60s_ppm_max),
            ("notional_max", self.notional_max),
            ("exposure_max", self.exposure_max),
            ("orders_max", self.orders_max),
            ("unknown_max", self.unknown_max),
            ("losing_rounds_max", self.losing_rounds_max),
            ("edge_max_ppm", self.edge_max_ppm),
            ("depth_ppm_max", self.depth_ppm_max),
            ("loss_5min_max", self.loss_5min_max),
            ("loss_day_max", self.loss_day_max),
            ("drawdown_max", self.drawdown_max),
            ("shortfall_ppm_max", self.shortfall_ppm_max),
            ("clock_offset_ns_max", self.clock_offset_ns_max),
            ("clock_bound_ns_max", self.clock_bound_ns_max),
            ("session_orders_max", self.session_orders_max),
            ("session_notional_max", self.session_notional_max),
            ("session_fees_max", self.session_fees_max),
            ("denials_1s_max", self.denials_1s_max),
            ("retry_ns", self.retry_ns),
            ("drift_ns_max", self.drift_ns_max),
            ("own_interest_ns", self.own_interest_ns),
            ("query_wait_ns_max", self.query_wait_ns_max),
        ]
    }

    fn shares(&self) -> [(&'static str, i64); 7] {
        [
            ("notional_min_buffer_ppm", self.notional_min_buffer_ppm),
            ("edge_min_ppm", self.edge_min_ppm),
            ("edge_max_ppm", self.edge_max_ppm),
            ("depth_ppm_max", self.depth_ppm_max),
            ("hedge_slippage_ppm", self.hedge_slippage_ppm),
            ("unwind_slippage_ppm", self.unwind_slippage_ppm),
            ("skew_ppm", self.skew_ppm),
        ]
    }
}

impl VenueLimits {
    fn positives(&self) -> [(&'static str, i64); 12] {
        [
            ("stream_age_ns_max", self.stream_age_ns_max),
            ("exposure_max", self.exposure_max),
            ("orders_max", self.orders_max),
            ("unknown_max", self.unknown_max),
            ("orders_per_s", self.orders_per_s),
            ("orders_burst", self.orders_burst),
            ("queries_per_s", self.queries_per_s),
            ("age_ns_max", self.age_ns_max),
            ("lag_ns_max", self.lag_ns_max),
            ("ack_ns_max", self.ack_ns_max),
            ("single_legs_max", self.single_legs_max),
            ("fee_error_ppm_max", self.fee_error_ppm_max),
        ]
    }
}
