//! Limits for recordings that have none: chosen by whoever writes `limits = "wide"`.
//!
//! Invariant: wide, not absent: the same controls run, with bounds that only a fault reaches. What bounds trading
//! then is depth, balances and what the venues take.

use std::collections::BTreeMap;

use tandem_core::record::Venue;

use super::{BacktestError, refuse};
use crate::limits::{AssetText, InstrumentText, Limits, VenueText};
use crate::table::{Setup, Table};

/// Returns wide limits for every asset and venue of a setup.
pub fn wide(setup: &Setup) -> Result<Limits, BacktestError> {
    let table = Table::build(setup.clone(), "the recorded configuration")?;
    let assets = &table.universe.assets;
    let is_asset = |name: &&String| assets.iter().any(|asset| asset.name == **name);
    let numeraire = setup.detection.numeraires.iter().find(is_asset).ok_or_else(|| {
        let why = "none of them is an asset of the recording: set engine.numeraires";
        refuse("engine.numeraires", why)
    })?;
    // As much as fits with room for sums: a billion, or less of an asset with many decimals.
    let most = |exponent: u8| {
        let digits = 17u32.saturating_sub(u32::from(exponent)).min(9);
        10u64.pow(digits).to_string()
    };
    let exponent_of = |name: &str| {
        assets.iter().find(|asset| asset.name == name).map_or(0, |asset| asset.exponent)
    };
    let money = most(exponent_of(numeraire));
    let venue = VenueText {
        stream_age_max_ms: 5_000,
        exposure_max: money.clone(),
        orders_max: 100,
        unknown_max: 10,
        orders_per_s: 1_000,
        orders_burst: 1_000,
        queries_per_s: 1_000,
        age_max_ms: 600_000,
        lag_max_ms: 600_000,
        ack_max_ms: 60_000,
        single_legs_max: 1_000_000,
        paper_latency_us: 0,
        paper_response_us: 0,
        fee_error_ppm_max: 1_000_000,
    };
    let asset = |name: &str| {
        let much = most(exponent_of(name));
        let band = ["0".to_owned(), "0".to_owned(), much.clone()];
        AssetText {
            exposure_max: much.clone(),
            order_max: much.clone(),
            dust_max: much.clone(),
            drift_max: "0".to_owned(),
            band: Venue::ALL.map(|venue| (venue.name().to_owned(), band.clone())).into(),
            paper_opening: BTreeMap::new(),
        }
    };
    Ok(Limits {
        numeraire: numeraire.clone(),
        rounds_max: 16,
        order_ttl_ms: 1_000,
        ack_timeout_ms: 5_000,
        query_wait_ms: 200,
        query_wait_max_ms: 2_000,
        unknown_max_ms: 60_000,
        hedge_ms: 5_000,
        unwind_ms: 5_000,
        hedge_slippage_ppm: 5_000,
        unwind_slippage_ppm: 20_000,
        hedge_wait_ms: 50,
        hedges_max: 50,
        round_loss_max: money.clone(),
        notional_min_buffer_ppm: 0,
        rules_age_max_s: 0,
        move_1s_ppm_max: 1_000_000,
        move_60s_ppm_max: 1_000_000,
        notional_max: money.clone(),
        exposure_max: money.clone(),
        orders_max: 200,
        unknown_max: 20,
        losing_rounds_max: 1_000_000_000,
        edge_min_ppm: 0,
        edge_max_ppm: 500_000,
        depth_ppm_max: 1_000_000,
        loss_5min_max: money.clone(),
        loss_day_max: money.clone(),
        drawdown_max: money.clone(),
        shortfall_ppm_max: 1_000_000_000,
        clock_offset_max_ms: 600_000,
        clock_bound_max_ms: 600_000,
        session_orders_max: 1_000_000_000_000,
        session_notional_max: money.clone(),
        session_fees_max: money.clone(),
        denials_1s_max: 1_000_000_000,
        retry_ms: 10,
        drift_max_ms: 60_000,
        own_interest_ms: 1_000,
        skew_ppm: 0,
        ramp_rounds: 0,
        instrument: InstrumentText {
            collar_ppm: 1_000_000,
            hedge_collar_ppm: 1_000_000,
            orders_max: 100,
            fills_10s_max: 1_000_000_000,
            fills_1h_max: 1_000_000_000,
            loss_max: money,
        },
        venue: Venue::ALL.map(|name| (name.name().to_owned(), venue.clone())).into(),
        asset: assets.iter().map(|known| (known.name.clone(), asset(&known.name))).collect(),
    })
}
