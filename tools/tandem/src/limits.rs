//! `[limits]`: what an operator allows, as written and in quanta.
//!
//! Invariant: no limit has a default and an unknown key is an error; amounts are decimal text in the asset
//! that the key names, read exactly; what does not fit is refused by key. The text itself goes into the
//! journal, so that a replay holds the same limits.
//!
//! Not here: what each limit does (`tandem-core::limits`, `tandem-core::controls`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::limits::{AssetLimits, Band, InstrumentLimits, Mode, Trading, VenueLimits};
use tandem_core::record::Venue;
use tandem_core::units::{Amount, Qty, parse_decimal};

/// `[limits]`. Amounts without another unit are in `numeraire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml and in core's limits")]
pub struct Limits {
    pub numeraire: String,
    pub rounds_max: usize,
    pub order_ttl_ms: u32,
    pub ack_timeout_ms: u32,
    pub query_wait_ms: u32,
    pub query_wait_max_ms: u32,
    pub unknown_max_ms: u32,
    pub hedge_ms: u32,
    pub unwind_ms: u32,
    pub hedge_slippage_ppm: i64,
    pub unwind_slippage_ppm: i64,
    pub hedge_wait_ms: u32,
    pub hedges_max: i64,
    pub round_loss_max: String,
    pub notional_min_buffer_ppm: i64,
    pub rules_age_max_s: u32,
    pub move_1s_ppm_max: i64,
    pub move_60s_ppm_max: i64,
    pub notional_max: String,
    pub exposure_max: String,
    pub orders_max: i64,
    pub unknown_max: i64,
    pub losing_rounds_max: i64,
    pub edge_min_ppm: i64,
    pub edge_max_ppm: i64,
    pub depth_ppm_max: i64,
    pub loss_5min_max: String,
    pub loss_day_max: String,
    pub drawdown_max: String,
    pub shortfall_ppm_max: i64,
    pub clock_offset_max_ms: u32,
    pub clock_bound_max_ms: u32,
    pub session_orders_max: i64,
    pub session_notional_max: String,
    pub session_fees_max: String,
    pub denials_1s_max: i64,
    pub retry_ms: u32,
    pub drift_max_ms: u32,
    pub own_interest_ms: u32,
    pub skew_ppm: i64,
    pub ramp_rounds: i64,
    /// The same for every instrument.
    pub instrument: InstrumentText,
    /// By venue name.
    pub venue: BTreeMap<String, VenueText>,
    /// By asset name; every asset of the symbols needs one.
    pub asset: BTreeMap<String, AssetText>,
}

/// `[limits.instrument]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml and in core's limits")]
pub struct InstrumentText {
    pub collar_ppm: i64,
    pub hedge_collar_ppm: i64,
    pub orders_max: i64,
    pub fills_10s_max: i64,
    pub fills_1h_max: i64,
    pub loss_max: String,
}

/// `[limits.venue.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml and in core's limits")]
pub struct VenueText {
    pub stream_age_max_ms: u32,
    pub exposure_max: String,
    pub orders_max: i64,
    pub unknown_max: i64,
    pub orders_per_s: i64,
    pub orders_burst: i64,
    pub queries_per_s: i64,
    pub age_max_ms: u32,
    pub lag_max_ms: u32,
    pub ack_max_ms: u32,
    pub single_legs_max: i64,
    pub paper_latency_us: u32,
    pub paper_response_us: u32,
    pub fee_error_ppm_max: i64,
}

/// `[limits.asset.NAME]`. Amounts are of the asset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each key is explained in deploy/tandem.toml and in core's limits")]
pub struct AssetText {
    pub exposure_max: String,
    pub order_max: String,
    pub dust_max: String,
    pub drift_max: String,
    /// Floor, target and ceiling by venue name.
    pub band: BTreeMap<String, [String; 3]>,
    /// Paper: what the account begins with, by venue name.
    #[serde(default)]
    pub paper_opening: BTreeMap<String, String>,
}

/// A limit that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[limits] {key}: {why}")]
pub struct LimitsError {
    /// The key, dotted.
    pub key: String,
    /// What is wrong and how to mend it.
    pub why: String,
}

fn refuse(key: impl Into<String>, why: impl Into<String>) -> LimitsError {
    LimitsError { key: key.into(), why: why.into() }
}

const MS: i64 = 1_000_000;

fn ms(value: u32) -> i64 {
    i64::from(value) * MS
}

/// Reads an amount of an asset.
fn amount(key: &str, text: &str, exponent: u8, asset: &str) -> Result<i64, LimitsError> {
    // The venues' decoder also reads `1e9`; in a limit that is a slip of the pen.
    if !text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return Err(refuse(key, format!("`{text}` is no plain amount of {asset}, e.g. \"12.5\"")));
    }
    let value = parse_decimal(text.as_bytes(), exponent).map_err(|error| {
        refuse(key, format!("`{text}` is no amount of {asset} with {exponent} decimals: {error}"))
    })?;
    Ok(value)
}

impl Limits {
    /// Returns the limits in quanta, checked.
    pub fn trading(
        &self,
        universe: &Universe,
        mode: Mode,
        run: u32,
    ) -> Result<Trading, LimitsError> {
        self.paper_opening(universe)?;
        let named = |name: &str| universe.assets.iter().position(|asset| asset.name == name);
        let numeraire = named(&self.numeraire).ok_or_else(|| {
            refuse("numeraire", format!("`{}` is no asset of the symbols", self.numeraire))
        })?;
        let exponent = universe.assets[numeraire].exponent;
        let money = |key: &str, text: &str| amount(key, text, exponent, &self.numeraire);
        let trading = Trading {
            mode,
            run,
            numeraire: AssetId(numeraire as u16),
            venues: self.venues(&money)?,
            assets: self.assets(universe)?,
            instruments: self.instruments(universe, &money)?,
            rounds_max: self.rounds_max,
            order_ttl_ns: ms(self.order_ttl_ms),
            ack_timeout_ns: ms(self.ack_timeout_ms),
            query_wait_ns: ms(self.query_wait_ms),
            query_wait_ns_max: ms(self.query_wait_max_ms),
            unknown_ns_max: ms(self.unknown_max_ms),
            hedge_ns: ms(self.hedge_ms),
            unwind_ns: ms(self.unwind_ms),
            hedge_slippage_ppm: self.hedge_slippage_ppm,
            unwind_slippage_ppm: self.unwind_slippage_ppm,
            hedge_wait_ns: ms(self.hedge_wait_ms),
            hedges_max: self.hedges_max,
            round_loss_max: money("round_loss_max", &self.round_loss_max)?,
            notional_min_buffer_ppm: self.notional_min_buffer_ppm,
            rules_age_ns_max: i64::from(self.rules_age_max_s) * 1_000 * MS,
            move_1s_ppm_max: self.move_1s_ppm_max,
            move_60s_ppm_max: self.move_60s_ppm_max,
            notional_max: money("notional_max", &self.notional_max)?,
            exposure_max: money("exposure_max", &self.exposure_max)?,
            orders_max: self.orders_max,
            unknown_max: self.unknown_max,
            losing_rounds_max: self.losing_rounds_max,
            edge_min_ppm: self.edge_min_ppm,
            edge_max_ppm: self.edge_max_ppm,
            depth_ppm_max: self.depth_ppm_max,
            loss_5min_max: money("loss_5min_max", &self.loss_5min_max)?,
            loss_day_max: money("loss_day_max", &self.loss_day_max)?,
            drawdown_max: money("drawdown_max", &self.drawdown_max)?,
            shortfall_ppm_max: self.shortfall_ppm_max,
            clock_offset_ns_max: ms(self.clock_offset_max_ms),
            clock_bound_ns_max: ms(self.clock_bound_max_ms),
            session_orders_max: self.session_orders_max,
            session_notional_max: money("session_notional_max", &self.session_notional_max)?,
            session_fees_max: money("session_fees_max", &self.session_fees_max)?,
            denials_1s_max: self.denials_1s_max,
            retry_ns: ms(self.retry_ms),
            drift_ns_max: ms(self.drift_max_ms),
            own_interest_ns: ms(self.own_interest_ms),
            skew_ppm: self.skew_ppm,
            ramp_rounds: self.ramp_rounds,
        };
        trading
            .check(universe)
            .map_err(|error| refuse(error.key, format!("must be {}", error.range)))?;
        Ok(trading)
    }

    fn venues(
        &self,
        money: &impl Fn(&str, &str) -> Result<i64, LimitsError>,
    ) -> Result<[VenueLimits; 3], LimitsError> {
        if let Some(name) = self.venue.keys().find(|n| crate::config::venue_named(n).is_none()) {
            return Err(refuse(format!("venue.{name}"), "no venue of ours"));
        }
        // A venue that is not configured needs no limits: it gets the tightest there are.
        let none = VenueLimits {
            stream_age_ns_max: 1,
            exposure_max: 1,
            orders_max: 1,
            unknown_max: 1,
            orders_per_s: 1,
            orders_burst: 1,
            queries_per_s: 1,
            age_ns_max: 1,
            lag_ns_max: 1,
            ack_ns_max: 1,
            single_legs_max: 1,
            paper_latency_ns: 0,
            paper_response_ns: 0,
            fee_error_ppm_max: 1,
        };
        let mut venues = [none; 3];
        for venue in Venue::ALL {
            let Some(text) = self.venue.get(venue.name()) else { continue };
            let key = |name: &str| format!("venue.{}.{name}", venue.name());
            venues[venue.idx()] = VenueLimits {
                stream_age_ns_max: ms(text.stream_age_max_ms),
                exposure_max: money(&key("exposure_max"), &text.exposure_max)?,
                orders_max: text.orders_max,
                unknown_max: text.unknown_max,
                orders_per_s: text.orders_per_s,
                orders_burst: text.orders_burst,
                queries_per_s: text.queries_per_s,
                age_ns_max: ms(text.age_max_ms),
                lag_ns_max: ms(text.lag_max_ms),
                ack_ns_max: ms(text.ack_max_ms),
                single_legs_max: text.single_legs_max,
                paper_latency_ns: i64::from(text.paper_latency_us) * 1_000,
                paper_response_ns: i64::from(text.paper_response_us) * 1_000,
                fee_error_ppm_max: text.fee_error_ppm_max,
            };
        }
        Ok(venues)
    }

    fn asset_text(&self, name: &str) -> Result<&AssetText, LimitsError> {
        self.asset.get(name).ok_or_else(|| {
            refuse(format!("asset.{name}"), "missing: every asset of the symbols needs its limits")
        })
    }

    fn assets(&self, universe: &Universe) -> Result<Vec<AssetLimits>, LimitsError> {
        let one = |asset: &tandem_core::instrument::Asset| {
            let (name, text) = (&asset.name, self.asset_text(&asset.name)?);
            let own = |key: &str, text: &str| {
                amount(&format!("asset.{name}.{key}"), text, asset.exponent, name).map(Amount)
            };
            own("order_max", &text.order_max)?;
            let mut bands = [Band { floor: Amount(0), target: Amount(0), ceiling: Amount(0) }; 3];
            for (venue, [floor, target, ceiling]) in &text.band {
                let Some(venue) = crate::config::venue_named(venue) else {
                    return Err(refuse(format!("asset.{name}.band.{venue}"), "no venue of ours"));
                };
                bands[venue.idx()] = Band {
                    floor: own("band", floor)?,
                    target: own("band", target)?,
                    ceiling: own("band", ceiling)?,
                };
            }
            Ok(AssetLimits {
                exposure_max: own("exposure_max", &text.exposure_max)?,
                dust_max: own("dust_max", &text.dust_max)?,
                drift_max: own("drift_max", &text.drift_max)?,
                bands,
            })
        };
        universe.assets.iter().map(one).collect()
    }

    fn instruments(
        &self,
        universe: &Universe,
        money: &impl Fn(&str, &str) -> Result<i64, LimitsError>,
    ) -> Result<Vec<InstrumentLimits>, LimitsError> {
        let text = &self.instrument;
        let loss_max = money("instrument.loss_max", &text.loss_max)?;
        let one = |instrument: &tandem_core::instrument::Instrument| {
            let base = &universe.assets[usize::from(instrument.base.0)];
            let key = format!("asset.{}.order_max", base.name);
            let order_max = &self.asset_text(&base.name)?.order_max;
            Ok(InstrumentLimits {
                collar_ppm: text.collar_ppm,
                hedge_collar_ppm: text.hedge_collar_ppm,
                qty_max: Qty(amount(&key, order_max, base.exponent, &base.name)?),
                orders_max: text.orders_max,
                fills_10s_max: text.fills_10s_max,
                fills_1h_max: text.fills_1h_max,
                loss_max,
            })
        };
        universe.instruments.iter().map(one).collect()
    }

    /// Returns what a paper account begins with: venue, asset, amount.
    pub fn paper_opening(
        &self,
        universe: &Universe,
    ) -> Result<Vec<(Venue, u16, Amount)>, LimitsError> {
        let mut all = Vec::new();
        for (id, asset) in universe.assets.iter().enumerate() {
            for (venue, text) in &self.asset_text(&asset.name)?.paper_opening {
                let key = format!("asset.{}.paper_opening.{venue}", asset.name);
                let Some(venue) = crate::config::venue_named(venue) else {
                    return Err(refuse(key, "no venue of ours"));
                };
                let amount = amount(&key, text, asset.exponent, &asset.name)?;
                all.push((venue, id as u16, Amount(amount)));
            }
        }
        Ok(all)
    }
}
