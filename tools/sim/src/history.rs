//! What a venue tells of the time before it was started: candles.
//!
//! Invariant: nothing was traded then, so a candle is flat at the price of now, and its volume is the configured
//! day's, a little different from candle to candle; the same question at the same price has the same answer.

use crate::amount::Amount;
use crate::book::Side;
use crate::config::MarketConfig;
use crate::market::{Instrument, Spec};

/// One candle.
#[derive(Clone, Copy, Debug)]
pub struct Candle {
    /// When it begins, UNIX seconds.
    pub start_s: u64,
    /// Open, high, low and close in ticks.
    pub px: i64,
    /// Traded, in lots.
    pub lots: i64,
    /// How many trades.
    pub count: u64,
}

impl Candle {
    /// Returns what was traded in quote currency.
    #[must_use]
    pub fn worth(&self, spec: &Spec) -> Amount {
        Amount::worth(spec.tick, self.px, spec.lot, self.lots)
    }
}

/// Returns the `count` candles of `step_s` seconds up to the one that holds `until_s`, the oldest first.
#[must_use]
pub fn candles(
    market: &MarketConfig,
    it: &Instrument,
    step_s: u64,
    until_s: u64,
    count: u64,
) -> Vec<Candle> {
    let px = it.book.best(Side::Bid).map_or(0, |level| level.px);
    let usd = market.assets.get(&it.spec.base).map_or(1.0, |asset| asset.usd);
    let lots_a_day = market.day_usd / usd / it.spec.lot.as_f64(1);
    let last = until_s / step_s;
    (last.saturating_sub(count.saturating_sub(1))..=last)
        .map(|number| {
            // Three quarters to five quarters of the mean, by the candle's number.
            let share = 0.75 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as f64 / 4.295e9;
            let lots = lots_a_day * share * step_s as f64 / 86_400.0;
            Candle { start_s: number * step_s, px, lots: lots as i64, count: 1 + step_s / 2 }
        })
        .collect()
}
