//! What a backtest found, as JSON: the only thing that reports, sweeps and comparisons read.
//!
//! Invariant: amounts of the numeraire are integers of its quanta ([`Outcome::numeraire`] has the exponent);
//! amounts of another asset are decimal text. Times are UNIX ns unless the name says otherwise. Lists are
//! bounded: they grow with books, venues and hours, not with records. The same seed, data and configuration give
//! the same text.
//!
//! Not here: how any of it is found (`world`, `tally`), how it is shown (the binary's report).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Config;

/// Version of this form.
pub const FORMAT: u32 = 1;

/// The result of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`FORMAT`].
    pub format: u32,
    /// What was assumed.
    pub config: Config,
    /// What was read.
    pub data: Data,
    /// What amounts count in.
    pub numeraire: Unit,
    /// Exponent of every asset's amounts.
    #[serde(default)]
    pub assets: BTreeMap<String, u8>,
    /// The figures on one line.
    pub summary: Summary,
    /// By asset: that nothing came from nowhere. A run with a difference is void.
    pub conservation: Vec<Conservation>,
    /// Result over time, at most [`EQUITY_POINTS`] points.
    pub equity: Vec<EquityPoint>,
    /// By venue: what the rounds' flows there were worth, fees, fills.
    pub by_venue: BTreeMap<String, Bucket>,
    /// By instrument, as `venue symbol`.
    pub by_instrument: BTreeMap<String, Bucket>,
    /// By kind of cycle (`cross`, `triangular`, `cross-triangular`).
    pub by_kind: BTreeMap<String, Bucket>,
    /// By route, as the assets and venues of its legs; the fifty with the most rounds.
    pub by_route: BTreeMap<String, Bucket>,
    /// By hour: `YYYY-MM-DDTHH`.
    pub by_hour: BTreeMap<String, Bucket>,
    /// From what was seen to what was earned.
    pub funnel: Funnel,
    /// Rounds by expected edge.
    pub edges: Vec<EdgeBin>,
    /// How long opportunities lived.
    pub lives: Vec<LifeBin>,
    /// What an opportunity is worth after a time, all venues' orders that late.
    pub decay: Vec<DecayPoint>,
    /// By venue: what its orders alone being later costs.
    pub value_of_ms: BTreeMap<String, ValueOfMs>,
    /// Rounds by the age of the crossing on arrival.
    pub capture: Vec<CaptureBin>,
    /// By venue and asset over time, at most [`INVENTORY_POINTS`] each; key `venue asset`.
    pub inventory: BTreeMap<String, Vec<InventoryPoint>>,
    /// What being left with one leg cost.
    pub one_leg: OneLeg,
    /// By venue: what happened to orders.
    pub venues: BTreeMap<String, VenueFigures>,
    /// Levels that controls raised: scope, level, cause and control, with how often.
    pub levels: BTreeMap<String, u64>,
    /// Resting orders, where they were asked for.
    pub resting: Vec<RestingFigures>,
    /// Simulated against recorded rounds, where the recording has some.
    pub calibration: Option<Calibration>,
}

/// Most points of [`Outcome::equity`].
pub const EQUITY_POINTS: usize = 2_000;
/// Most points of one line of [`Outcome::inventory`].
pub const INVENTORY_POINTS: usize = 500;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Paths as given.
    pub paths: Vec<String>,
    /// Market records.
    pub records: u64,
    /// Time of the first record at the engine.
    pub from_ns: i64,
    /// Time of the last.
    pub to_ns: i64,
    /// Gaps, checksum failures and reconnects in the recording: books that were quarantined.
    pub quarantines: u64,
    /// Messages whose venue time was later than their receipt; taken as received at once.
    pub negative_latencies: u64,
}

/// An asset that amounts count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// An amount counts 10^-this.
    pub exponent: u8,
}

/// The figures on one line: a row of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Seed.
    pub seed: u64,
    /// Whether every asset's sums agree; where not, nothing else counts.
    pub is_conserved: bool,
    /// SHA-256 over every record that went into the engine and came out of it.
    pub digest: String,
    /// Worth of all rounds that settled, fees included.
    pub pnl: i64,
    /// The same with what is open marked with the worse side.
    pub pnl_marked: i64,
    /// Fees, worth at the time.
    pub fees: i64,
    /// Fees of transfers, worth at the end.
    pub transfer_fees: i64,
    /// Largest fall of the equity from a peak.
    pub drawdown: i64,
    /// Worth of all fills.
    pub turnover: i64,
    /// Opportunities opened.
    pub opportunities: u64,
    /// Rounds entered.
    pub rounds: u64,
    /// Of these, all legs filled whole.
    pub rounds_filled: u64,
    /// No leg filled.
    pub rounds_missed: u64,
    /// With something left over that was completed or taken back.
    pub rounds_hedged: u64,
    /// Held at the end.
    pub rounds_held: u64,
    /// Rounds that lost.
    pub rounds_lost: u64,
    /// Orders sent.
    pub orders: u64,
    /// Orders filled whole or in part.
    pub orders_filled: u64,
    /// Orders refused.
    pub orders_rejected: u64,
    /// Fills.
    pub fills: u64,
    /// Seconds of the recording.
    pub seconds: i64,
}

/// One asset's sums, decimal text of the asset: `opening + traded - fees - transfer_fees = closing`, where what
/// was traded is what others gave for it, and each side is counted by another part of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conservation {
    /// Asset.
    pub asset: String,
    /// At all venues at the start.
    pub opening: String,
    /// Bought less sold, from the fills.
    pub traded: String,
    /// From the fills.
    pub fees: String,
    /// From the transfers.
    pub transfer_fees: String,
    /// Under way between venues at the end.
    pub in_transit: String,
    /// At all venues at the end, by the venues' own books.
    pub closing: String,
    /// The same by the engine's ledger.
    pub ledger: String,
    /// What does not agree, in quanta; 0 unless the run is void.
    pub difference: String,
}

/// A point of the equity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquityPoint {
    /// When.
    pub at_ns: i64,
    /// Rounds settled so far.
    pub pnl: i64,
    /// Below the highest so far, 0 or negative.
    pub drawdown: i64,
}

/// Sums of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Rounds that touched it.
    pub rounds: u64,
    /// Fills.
    pub fills: u64,
    /// Result; over venues and instruments each round counts with its share of the turnover.
    pub pnl: i64,
    /// Fees.
    pub fees: i64,
    /// Worth of the fills.
    pub turnover: i64,
}

/// From what was seen to what was earned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Funnel {
    /// Candidates walked exactly.
    pub evaluations: u64,
    /// Denied, by verdict (`edge`) or control (`C11 funds`), with counts.
    pub denials: BTreeMap<String, u64>,
    /// Opportunities opened.
    pub opportunities: u64,
    /// What they would have earned had each been taken as first seen.
    pub opportunities_net: i64,
    /// Opportunities that found no room to be followed: they are missing in what lateness costs.
    #[serde(default)]
    pub not_followed: u64,
    /// Opportunities that a round was entered for.
    pub tried: u64,
    /// What those rounds expected.
    pub tried_net: i64,
    /// Rounds with all legs filled.
    pub filled: u64,
    /// Rounds that earned.
    pub earned: u64,
    /// What all rounds realised.
    pub realised: i64,
}

/// Rounds whose expected edge is within a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeBin {
    /// From this edge on, ppm of the input.
    pub from_ppm: i64,
    /// Below this.
    pub to_ppm: i64,
    /// Rounds.
    pub rounds: u64,
    /// Sum of what was expected.
    pub expected: i64,
    /// Sum of what was realised.
    pub realised: i64,
}

/// Opportunities whose life is within a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeBin {
    /// From this life on, microseconds.
    pub from_us: i64,
    /// Below this.
    pub to_us: i64,
    /// Opportunities.
    pub count: u64,
    /// Sum of their best net.
    pub net: i64,
}

/// All opportunities, taken a time after they were first seen, each by the orders it was seen with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecayPoint {
    /// How much later every order arrives, microseconds.
    pub late_us: i64,
    /// Opportunities whose orders would have filled whole.
    pub filled: u64,
    /// Opportunities looked at.
    pub count: u64,
    /// What they would have earned: legs that fill in part are completed or taken back at that moment's books;
    /// none are taken twice.
    pub net: i64,
}

/// What a venue's latency is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueOfMs {
    /// What one millisecond less on this venue's orders would have added, per day of the recording, numeraire.
    pub per_ms_day: i64,
    /// The curve it is read from: that venue's orders later by this, the others as configured.
    pub points: Vec<DecayPoint>,
}

/// Rounds by the age of the crossing when the last leg arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureBin {
    /// From this age on, microseconds.
    pub from_us: i64,
    /// Below this.
    pub to_us: i64,
    /// Rounds.
    pub rounds: u64,
    /// Of these, filled whole.
    pub filled: u64,
    /// Expected.
    pub expected: i64,
    /// Realised.
    pub realised: i64,
}

/// A balance at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPoint {
    /// When.
    pub at_ns: i64,
    /// Quanta of the asset.
    pub amount: i64,
    /// Worth in the numeraire, where books tell it.
    pub worth: Option<i64>,
}

/// What being left with one leg cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneLeg {
    /// Rounds.
    pub rounds: u64,
    /// What these expected.
    pub expected: i64,
    /// What they realised.
    pub realised: i64,
    /// Hedges sent.
    pub hedges: u64,
    /// Mean time until settled, microseconds.
    pub mean_us: i64,
    /// Longest.
    pub max_us: i64,
}

/// What happened to a venue's orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenueFigures {
    /// Orders that arrived or were lost.
    pub orders: u64,
    /// Filled whole.
    pub filled: u64,
    /// Filled in part.
    pub partial: u64,
    /// Expired without a fill.
    pub missed: u64,
    /// Refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Orders whose answer was lost.
    pub unknown: u64,
    /// Orders that met a book in quarantine.
    pub quarantined: u64,
    /// Share of the wanted quantity that competitors had taken, ppm.
    pub taken_by_others_ppm: i64,
    /// Bans.
    pub bans: u64,
    /// Outages.
    pub outages: u64,
    /// Order latency used, p50 and p99, microseconds.
    pub entry_us: [i64; 2],
    /// Feed latency, venue time to receipt, p50 and p99, microseconds.
    pub feed_us: [i64; 2],
    /// Taker's fee at the end, ppm.
    pub taker_fee_ppm: i64,
    /// Transfers that arrived at it.
    pub transfers: u64,
}

/// Orders that rested.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestingFigures {
    /// `venue symbol`.
    pub instrument: String,
    /// Orders.
    pub orders: u64,
    /// Filled whole within their time.
    pub filled: u64,
    /// Mean time to that, microseconds.
    pub mean_us: i64,
}

/// How near the simulation comes to what really happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// Rounds in the recording.
    pub recorded_rounds: u64,
    /// Rounds simulated.
    pub simulated_rounds: u64,
    /// Rounds that both entered.
    pub matched: u64,
    /// Difference of the fill rate, ppm of orders.
    pub fill_rate_error_ppm: i64,
    /// Mean difference of a fill's price, ppm, positive where the simulation was too good.
    pub price_error_ppm: i64,
    /// Mean difference of the time to fill, microseconds.
    pub time_error_us: i64,
    /// Median time to the first fill in the recording, microseconds, of orders that both filled; nothing where none.
    #[serde(default)]
    pub time_live_median_us: Option<i64>,
    /// The same in the simulation.
    #[serde(default)]
    pub time_simulated_median_us: Option<i64>,
    /// Difference of the result, numeraire.
    pub pnl_error: i64,
}
