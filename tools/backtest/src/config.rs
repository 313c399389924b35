//! What a backtest assumes of venues, of others, and of the way there: `deploy/backtest.toml` explains every key.
//!
//! Invariant: an unknown key is an error, units are in names, and every default is the pessimistic one of
//! `reference/peers.md` section 5. Amounts are decimal text in the asset that the key names. The whole
//! configuration goes into the outcome, so that a result names what it rests on.
//!
//! Not here: detection and limits, which are the run's own (`engine` and `limits` only change them).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Parts per million of one.
pub const PPM: u32 = 1_000_000;

/// Everything that a backtest assumes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of everything that is drawn. The same seed, data and configuration give the same bytes.
    pub seed: u64,
    /// Every latency of orders, answers and feeds (beyond what was recorded) times this, in ppm.
    pub latency_ppm: u32,
    /// From the receipt of a message to the order's bytes, our own host, in microseconds.
    pub decision_us: u32,
    /// Our timer, in milliseconds, as live.
    pub timer_ms: u32,
    /// The same while nothing is open: no order, no round, no opportunity, no halt.
    pub timer_idle_ms: u32,
    /// When trading is allowed: from the start on, or as the recording's own level word said.
    pub arm: Arm,
    /// How long after a pause an operator arms again, in seconds; 0 never. With `arm = "start"`.
    pub rearm_s: u32,
    /// Whether each opportunity is also followed as if its orders had come later ([`crate::outcome::DecayPoint`]).
    pub counterfactual: bool,
    /// Depth that an order of ours took is not there again before this, and not before the venue has shown that
    /// level anew, in milliseconds.
    pub recovery_ms: u32,
    /// Others who want the same.
    pub competition: Competition,
    /// By venue name; what is not named has the defaults.
    pub venue: BTreeMap<String, VenueModel>,
    /// Balances at the start: venue, asset, amount. Where nothing is named, those of the recording.
    pub opening: BTreeMap<String, BTreeMap<String, String>>,
    /// Moves balances between venues.
    pub transfer: Vec<Transfer>,
    /// Orders that rest, to learn how long they would have waited; none are sent by the engine.
    pub resting: Resting,
    /// Keys of `[engine]` that are to differ from the recorded run's, e.g. `edge_min_ppm`.
    pub engine: serde_json::Map<String, serde_json::Value>,
    /// `"recorded"`, `"wide"`, or a whole `[limits]` section.
    pub limits: serde_json::Value,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            seed: 1,
            latency_ppm: PPM,
            decision_us: 50,
            timer_ms: 10,
            timer_idle_ms: 100,
            arm: Arm::Start,
            rearm_s: 900,
            counterfactual: true,
            recovery_ms: 1_000,
            competition: Competition::default(),
            venue: BTreeMap::new(),
            opening: BTreeMap::new(),
            transfer: Vec::new(),
            resting: Resting::default(),
            engine: serde_json::Map::new(),
            limits: serde_json::Value::String("recorded".to_owned()),
        }
    }
}

/// When trading is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// From the start on.
    Start,
    /// As the recording's level word said, to the record: for comparing with what was really traded.
    Recorded,
}

/// Competitors remove a share of the depth that an opportunity crosses, growing with its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Competition {
    /// Share of the crossing depth that is gone in the end, ppm.
    pub share_ppm: u32,
    /// How old the crossing is when all of that share is gone, in microseconds; 0 is at once: ties go to them.
    pub ramp_us: u32,
}

impl Default for Competition {
    fn default() -> Competition {
        Competition { share_ppm: 500_000, ramp_us: 0 }
    }
}

/// One venue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VenueModel {
    /// From the venue's book to our receipt, beyond what was recorded.
    pub feed: Latency,
    /// Which clock says when the venue's book was so.
    pub venue_time: VenueTime,
    /// How old the fastest message is on receipt, in microseconds (with `offset`, and where there is no stamp).
    pub feed_base_us: u32,
    /// From our order's bytes to the venue's book.
    pub entry: Latency,
    /// From the venue's book to our receipt of acknowledgements, fills and ends.
    pub response: Latency,
    /// What the venue charges takers, ppm; nothing: the recorded run's.
    pub taker_fee_ppm: Option<i32>,
    /// What it charges makers, ppm.
    pub maker_fee_ppm: i32,
    /// Fee by volume: the last tier whose volume is reached counts. Empty: the fee above.
    pub tiers: Vec<Tier>,
    /// Volume of the last thirty days at the start, in the numeraire.
    pub volume_30d: String,
    /// Fees are taken from this asset, while there is some (BNB); nothing: as the instrument says.
    pub fee_asset: Option<String>,
    /// Discount then, ppm of the fee.
    pub fee_discount_ppm: u32,
    /// Orders that the venue refuses for no reason of ours, ppm.
    pub reject_ppm: u32,
    /// Orders that execute and whose answer is lost, ppm.
    pub lost_ppm: u32,
    /// New orders in ten seconds; 0 is no limit. What is more is refused.
    pub orders_per_10s: u32,
    /// Refusals for that limit within a minute until the venue bans us; 0 never.
    pub ban_after: u32,
    /// How long a ban lasts, in seconds.
    pub ban_s: u32,
    /// Limit prices further from the middle than this are refused, ppm; 0 is no band.
    pub price_band_ppm: u32,
    /// Times in which the venue neither tells nor takes anything.
    pub outage: Option<Outage>,
}

impl Default for VenueModel {
    fn default() -> VenueModel {
        VenueModel {
            feed: Latency::Constant { us: 0 },
            venue_time: VenueTime::Offset,
            feed_base_us: 1_000,
            entry: Latency::Constant { us: 5_000 },
            response: Latency::Constant { us: 5_000 },
            taker_fee_ppm: None,
            maker_fee_ppm: 0,
            tiers: Vec::new(),
            volume_30d: "0".to_owned(),
            fee_asset: None,
            fee_discount_ppm: 0,
            reject_ppm: 0,
            lost_ppm: 0,
            orders_per_10s: 0,
            ban_after: 0,
            ban_s: 120,
            price_band_ppm: 0,
            outage: None,
        }
    }
}

/// Which clock says when a venue's book was as a message tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VenueTime {
    /// The venue's stamps, less the offset of its clock: the fastest message of some minutes is `feed_base_us` old,
    /// and the others as much older as their stamps say.
    Offset,
    /// The venue's stamps as they are: its clock and ours are one.
    Trusted,
    /// Our own: the book is so when the engine takes the message.
    Engine,
}

/// A fee tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Volume of thirty days from which on it counts, in the numeraire.
    pub volume: String,
    /// Taker's fee, ppm.
    pub taker_ppm: i32,
    /// Maker's fee, ppm.
    pub maker_ppm: i32,
}

/// A venue that is gone, at random times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// Mean time from one to the next, in seconds.
    pub every_s: u32,
    /// How long each lasts, in milliseconds.
    pub lasts_ms: u32,
}

/// How long something takes, one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "model", rename_all = "snake_case")]
pub enum Latency {
    /// Always the same.
    Constant {
        /// Microseconds.
        us: u32,
    },
    /// Drawn from samples that were measured; each draw is the last one's again with `correlation_ppm`.
    Empirical {
        /// Microseconds each, sorted or not.
        samples_us: Vec<u32>,
        /// How often a draw repeats the one before, ppm.
        #[serde(default)]
        correlation_ppm: u32,
        /// Added to each: another site, in microseconds; what falls below 0 is 0.
        #[serde(default)]
        shift_us: i32,
    },
    /// As [`Latency::Empirical`], from what the recording's own orders took: half of the time from an order's bytes
    /// to its acknowledgement each way. For orders and answers only.
    Recorded {
        /// How often a draw repeats the one before, ppm.
        #[serde(default)]
        correlation_ppm: u32,
        /// Added to each, in microseconds.
        #[serde(default)]
        shift_us: i32,
        /// What it is at a venue that acknowledged no order in the recording, microseconds; without it that is an
        /// error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        without_us: Option<u32>,
    },
    /// A calm time and bursts in which everything of the venue is slow together.
    Bursty {
        /// In calm, microseconds.
        us: u32,
        /// Up to this much more, drawn anew each time, microseconds.
        jitter_us: u32,
        /// More than that in a burst, microseconds.
        burst_us: u32,
        /// Mean time from one burst to the next, milliseconds.
        burst_every_ms: u32,
        /// How long a burst lasts, milliseconds.
        burst_lasts_ms: u32,
    },
}

/// Moves an asset to a venue that runs out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Which asset.
    pub asset: String,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// When less than this is there.
    pub below: String,
    /// How much is sent, the fee included.
    pub amount: String,
    /// What the sending venue keeps.
    pub fee: String,
    /// How long it takes, in seconds.
    pub delay_s: u32,
    /// Transfers that come back after the delay, the fee lost, ppm.
    #[serde(default)]
    pub fail_ppm: u32,
    /// Most that is sent in a day (UTC).
    pub day_max: String,
}

/// Resting orders, asked for to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resting {
    /// Whether each opportunity's legs are also followed as resting orders at the best price of their own side.
    pub is_on: bool,
    /// How long one rests before it is given up, in milliseconds.
    pub for_ms: u32,
    /// Where in the queue: 0 is behind all that was there and only trades move it on (risk-averse); above, a
    /// cancel ahead is assumed with this weight, ppm.
    pub cancels_ahead_ppm: u32,
}

impl Default for Resting {
    fn default() -> Resting {
        Resting { is_on: false, for_ms: 10_000, cancels_ahead_ppm: 0 }
    }
}
