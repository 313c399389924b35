//! Instruments for tests: everything ordinary but what the test names.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use crate::record::{TradingStatus, Venue};
use crate::units::{Amount, FeePpm, Px, Qty};

/// Exponent of every asset in a test universe.
pub const ASSET_EXPONENT: u8 = 8;
/// Exponent of every price in a test universe.
pub const PX_EXPONENT: u8 = 2;

/// Returns an instrument that trades `base` (asset index) in `quote`, free of fees.
pub fn instrument(venue: Venue, base: u16, quote: u16) -> Instrument {
    Instrument {
        venue,
        base: AssetId(base),
        quote: AssetId(quote),
        px_exponent: PX_EXPONENT,
        tick: Px(1),
        lot: Qty(1),
        qty_min: Qty(0),
        qty_max: Qty(1 << 50),
        notional_min: Amount(0),
        notional_max: Amount(1 << 55),
        taker_fee: FeePpm(0),
        fee_in: FeeIn::Quote,
        status: TradingStatus::Trading,
    }
}

/// Returns a universe of these assets and instruments.
pub fn universe(assets: &[&str], instruments: Vec<Instrument>) -> Universe {
    let assets = assets
        .iter()
        .map(|name| Asset { name: name.to_string(), exponent: ASSET_EXPONENT })
        .collect();
    let universe = Universe { assets, instruments };
    universe.check().expect("a test's universe is right");
    universe
}
