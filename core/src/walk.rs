//! Sizes and money of one cycle: the exact walk down the depth of all its legs.
//!
//! Invariant: every amount is rounded once per order and against us: what we spend is rounded up, what
//! we receive is rounded down, quantities are cut down to lots, what is left of an asset between two
//! legs counts nothing. So a positive gain is never made by rounding.
//!
//! The size is the largest number of lots of the first leg for which
//! 1. every leg finds that much displayed depth and stays within its own limits, and
//! 2. the marginal rate, i.e. the product of the legs' rates at the last level each of them touches,
//!    still is at least 1 plus the threshold.
//!
//! Both conditions only turn from true to false as the size grows, and only where a leg comes to its
//! next level, its limit or the end of its book: only those sizes are tried. Then each leg but the last
//! is trimmed to the fewest lots that still feed the next one.
//!
//! Not here: which cycles are worth walking and what becomes of them (`detector`).

use crate::book::Book;
use crate::graph::{Action, LEGS_MAX};
use crate::instrument::{FeeIn, Instrument};
use crate::units::{Amount, PPM_PER_UNIT, Px, Qty, Side, div, div_ceil, pow10};
use crate::wide::U512;

const PPM: i128 = PPM_PER_UNIT as i128;

/// One leg as it stands in the market now.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'a> {
    /// What we would do.
    pub action: Action,
    /// The instrument's rules.
    pub rules: &'a Instrument,
    /// Its book.
    pub book: &'a Book,
    /// 10^-`shift` brings px × qty to the quote's quanta.
    pub shift: u8,
}

/// One order of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Quantity, a multiple of the lot.
    pub qty: Qty,
    /// Worst price touched: the limit price.
    pub px: Px,
    /// How many levels it touches.
    pub levels: u32,
    /// What it spends: quote when buying, base when selling.
    pub spends: Amount,
    /// What it brings, fee deducted.
    pub brings: Amount,
    /// Its worth in quote quanta, rounded down, fee not included.
    pub notional: Amount,
}

/// Orders of all legs, in the order of the cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    orders: [Order; LEGS_MAX],
    len: usize,
}

impl Plan {
    /// Returns the orders.
    #[must_use]
    #[inline]
    pub fn orders(&self) -> &[Order] {
        &self.orders[..self.len]
    }

    /// Returns what the first leg spends.
    #[must_use]
    #[inline]
    pub fn input(&self) -> Amount {
        self.orders[0].spends
    }

    /// Returns how many levels each leg touches; an order for nothing stands at the first.
    #[inline]
    fn touched(&self) -> [u32; LEGS_MAX] {
        core::array::from_fn(|idx| self.orders[idx].levels.max(1))
    }

    /// Returns what the last leg brings.
    #[must_use]
    #[inline]
    pub fn output(&self) -> Amount {
        self.orders[self.len - 1].brings
    }
}

/// Factors of a numerator and of a denominator.
type Rate = ([u64; 2], [u64; 2]);

/// Why a size is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// A leg's displayed depth does not suffice.
    Depth,
    /// A leg exceeds its largest quantity or notional.
    Limit,
    /// The marginal rate is below the threshold.
    Edge,
}

/// What filling an order takes from a book.
#[derive(Clone, Copy, Debug)]
struct Fill {
    qty: i64,
    /// Σ px × qty, exact.
    raw: i128,
    px: i64,
    levels: u32,
}

impl Leg<'_> {
    #[inline]
    fn side(&self) -> Side {
        match self.action {
            Action::Buy => Side::Ask,
            Action::Sell => Side::Bid,
        }
    }

    #[inline]
    fn fee(&self) -> i128 {
        i128::from(self.rules.taker_fee.0)
    }

    #[inline]
    fn scale(&self) -> i128 {
        i128::from(pow10(self.shift))
    }

    /// Takes exactly `qty`; nothing where the displayed depth is less.
    #[inline]
    fn take(&self, qty: i64) -> Option<Fill> {
        let mut fill = Fill { qty, raw: 0, px: 0, levels: 0 };
        let mut rest = qty;
        for level in self.book.levels(self.side()) {
            fill.px = level.px.0;
            fill.levels += 1;
            let part = rest.min(level.qty.0);
            fill.raw = fill.raw.checked_add(i128::from(level.px.0) * i128::from(part))?;
            rest -= part;
            if rest == 0 {
                return Some(fill);
            }
        }
        None
    }

    /// Buys as many lots as `budget` pays for; nothing where it would pay for more than is displayed.
    fn buy_for(&self, budget: i64) -> Option<Fill> {
        let mut rest = self.raw_for(budget)?;
        let mut qty: i64 = 0;
        let mut enough = false;
        for level in self.book.levels(Side::Ask) {
            let px = i128::from(level.px.0);
            let whole = px * i128::from(level.qty.0);
            if rest < whole {
                qty = qty.checked_add(div(rest, px) as i64)?;
                enough = true;
                break;
            }
            qty = qty.checked_add(level.qty.0)?;
            rest -= whole;
        }
        if (!enough && rest != 0) || self.book.len(Side::Ask) == 0 {
            return None;
        }
        self.take(qty - qty % self.rules.lot.0)
    }

    /// The largest Σ px × qty whose cost, fee included and rounded up, is within `budget`.
    fn raw_for(&self, budget: i64) -> Option<i128> {
        // 64 by 64 bits always fits.
        let exact = i128::from(budget) * self.scale();
        match self.rules.fee_in {
            FeeIn::Received => Some(exact),
            FeeIn::Quote => Some(div(times(exact, PPM)?, PPM + self.fee())),
        }
    }

    #[inline]
    fn order(&self, fill: Fill) -> Option<Order> {
        let scale = self.scale();
        let (spends, brings) = match (self.action, self.rules.fee_in) {
            (Action::Sell, _) => {
                let exact = times(fill.raw, PPM - self.fee())?;
                (fill.qty.into(), div(exact, PPM * scale))
            }
            (Action::Buy, FeeIn::Quote) => {
                let exact = times(fill.raw, PPM + self.fee())?;
                (div_ceil(exact, PPM * scale), fill.qty.into())
            }
            (Action::Buy, FeeIn::Received) => {
                (div_ceil(fill.raw, scale), div(i128::from(fill.qty) * (PPM - self.fee()), PPM))
            }
        };
        Some(Order {
            qty: Qty(fill.qty),
            px: Px(fill.px),
            levels: fill.levels,
            spends: amount(spends)?,
            brings: amount(brings)?,
            notional: amount(div(fill.raw, scale))?,
        })
    }

    /// An order for nothing: what a leg gets when the leg before rounds to nothing.
    fn nothing(&self) -> Option<Order> {
        let best = self.book.best(self.side())?;
        Some(Order { px: best.px, ..Order::default() })
    }

    /// The order that an amount of the leg's input asset gives.
    #[inline]
    fn convert(&self, input: Amount) -> Option<Order> {
        let fill = match self.action {
            Action::Sell => self.take(input.0 - input.0 % self.rules.lot.0),
            Action::Buy => self.buy_for(input.0),
        };
        match fill {
            Some(fill) if fill.qty != 0 => self.order(fill),
            Some(_) => self.nothing(),
            None => None,
        }
    }

    /// The fewest lots that bring at least `needed` of the leg's output asset.
    fn lots_for(&self, needed: Amount) -> Option<i64> {
        let keep = PPM - self.fee();
        let qty = match (self.action, self.rules.fee_in) {
            (Action::Buy, FeeIn::Quote) => i128::from(needed.0),
            (Action::Buy, FeeIn::Received) => div_ceil(i128::from(needed.0) * PPM, keep),
            (Action::Sell, _) => {
                let exact = i128::from(needed.0).checked_mul(PPM)?.checked_mul(self.scale())?;
                let mut rest = div_ceil(exact, keep);
                let mut qty: i128 = 0;
                for level in self.book.levels(Side::Bid) {
                    let px = i128::from(level.px.0);
                    let whole = px * i128::from(level.qty.0);
                    if rest <= whole {
                        qty += div_ceil(rest, px);
                        rest = 0;
                        break;
                    }
                    qty += i128::from(level.qty.0);
                    rest -= whole;
                }
                if rest != 0 {
                    return None;
                }
                qty
            }
        };
        i64::try_from(div_ceil(qty, self.rules.lot.0.into())).ok()
    }

    /// The largest quantity, in whole lots, within the first `levels` levels and the leg's limits.
    fn qty_within(&self, levels: u32) -> i64 {
        // Below this Σ px × qty the notional, rounded down, is within its limit.
        let mut rest = (i128::from(self.rules.notional_max.0) + 1) * self.scale() - 1;
        let mut qty: i64 = 0;
        for level in self.book.levels(self.side()).take(levels as usize) {
            let whole = i128::from(level.px.0) * i128::from(level.qty.0);
            if rest < whole {
                qty = qty.saturating_add(div(rest, level.px.0.into()) as i64);
                break;
            }
            qty = qty.saturating_add(level.qty.0);
            rest -= whole;
        }
        let qty = qty.min(self.rules.qty_max.0);
        qty - qty % self.rules.lot.0
    }

    /// The largest input that converts to at most `lots` lots; nothing where no input is too large.
    fn input_below(&self, lots: i64) -> Option<Amount> {
        let next = lots.checked_add(1)?.checked_mul(self.rules.lot.0)?;
        match self.action {
            Action::Sell => Some(Amount(next - 1)),
            Action::Buy => {
                let bound = match self.take(next) {
                    Some(fill) => i128::from(self.order(fill)?.spends.0),
                    // Beyond the displayed depth it is the depth that bounds: the least budget that
                    // would pay for more than all of it.
                    None => {
                        let levels = self.book.levels(Side::Ask);
                        let all: i128 =
                            levels.map(|l| i128::from(l.px.0) * i128::from(l.qty.0)).sum();
                        match self.rules.fee_in {
                            FeeIn::Received => div_ceil(all + 1, self.scale()),
                            FeeIn::Quote => div_ceil(
                                (all + 1).checked_mul(PPM + self.fee())?,
                                self.scale() * PPM,
                            ),
                        }
                    }
                };
                amount(bound - 1)
            }
        }
    }

    /// The leg's rate at a price as a fraction of products: output per input in real units, fee included.
    #[inline]
    fn rate(&self, px: Px) -> Rate {
        let (px, one) = (px.0 as u64, pow10(self.rules.px_exponent) as u64);
        // Fees are far below a whole, either way.
        let ppm = PPM_PER_UNIT as u64;
        let fee = i64::from(self.rules.taker_fee.0);
        let (less, more) = ((PPM_PER_UNIT - fee) as u64, (PPM_PER_UNIT + fee) as u64);
        match (self.action, self.rules.fee_in) {
            (Action::Sell, _) => ([px, less], [ppm, one]),
            (Action::Buy, FeeIn::Quote) => ([ppm, one], [px, more]),
            (Action::Buy, FeeIn::Received) => ([less, one], [ppm, px]),
        }
    }

    /// The same without the fee.
    #[inline]
    fn gross_rate(&self, px: Px) -> Rate {
        let (px, one) = (px.0 as u64, pow10(self.rules.px_exponent) as u64);
        match self.action {
            Action::Sell => ([px, 1], [one, 1]),
            Action::Buy => ([one, 1], [px, 1]),
        }
    }

    #[inline]
    fn within_limits(&self, order: &Order) -> bool {
        order.qty <= self.rules.qty_max && order.notional <= self.rules.notional_max
    }
}

/// Returns the orders that `lots` lots on the first leg lead to, or why that is too large. A leg may
/// come out with quantity 0 where its lot is coarser than what the leg before brings.
pub fn plan(legs: &[Leg<'_>], lots: i64, threshold_ppm: i64) -> Result<Plan, TooLarge> {
    let mut plan = Plan::default();
    plan_into(&mut plan, legs, lots, threshold_ppm)?;
    Ok(plan)
}

/// The same in place; what is left there is of no use where it fails.
fn plan_into(
    plan: &mut Plan,
    legs: &[Leg<'_>],
    lots: i64,
    threshold_ppm: i64,
) -> Result<(), TooLarge> {
    plan.len = legs.len();
    let first = lots.checked_mul(legs[0].rules.lot.0).ok_or(TooLarge::Depth)?;
    let mut flow = Amount(0);
    for (idx, leg) in legs.iter().enumerate() {
        let order = if idx == 0 {
            leg.take(first).and_then(|fill| leg.order(fill))
        } else {
            leg.convert(flow)
        };
        let order = order.ok_or(TooLarge::Depth)?;
        if !leg.within_limits(&order) {
            return Err(TooLarge::Limit);
        }
        flow = order.brings;
        plan.orders[idx] = order;
    }
    if marginal_at_least(legs, plan, threshold_ppm) { Ok(()) } else { Err(TooLarge::Edge) }
}

/// Returns the largest plan, or why not even one lot passes.
///
/// Between two sizes at which a leg comes to its next level nothing that decides changes, so only those
/// sizes are tried: the largest one that stays within the levels touched so far, and one lot more.
pub fn largest(legs: &[Leg<'_>], threshold_ppm: i64) -> Result<Plan, TooLarge> {
    debug_assert!((2..=LEGS_MAX).contains(&legs.len()), "a cycle has 2 to 4 legs");
    let (mut best, mut next) = (Plan::default(), Plan::default());
    plan_into(&mut best, legs, 1, threshold_ppm)?;
    let mut touched = best.touched();
    loop {
        let lots = lots_within(legs, touched);
        // One more than fits the levels first: where that passes, nothing smaller matters.
        if plan_into(&mut next, legs, lots.saturating_add(1), threshold_ppm).is_err() {
            if plan_into(&mut next, legs, lots, threshold_ppm).is_ok() {
                best = next;
            }
            break;
        }
        best = next;
        let before = touched;
        for (touched, now) in touched.iter_mut().zip(next.touched()) {
            *touched = now.max(*touched);
        }
        if touched == before {
            break;
        }
    }
    Ok(trim(legs, best))
}

/// Returns the most lots of the first leg for which no leg touches more levels than given, nor exceeds
/// its own limits.
fn lots_within(legs: &[Leg<'_>], touched: [u32; LEGS_MAX]) -> i64 {
    let mut lots = i64::MAX;
    for idx in 0..legs.len() {
        let leg = &legs[idx];
        let mut most = leg.qty_within(touched[idx]) / leg.rules.lot.0;
        for before in (0..idx).rev() {
            // More than `most` lots need more input than this; fewer lots before bring at most that.
            let Some(input) = legs[before + 1].input_below(most) else {
                most = i64::MAX;
                break;
            };
            let Some(next) = legs[before].lots_for(Amount(input.0.saturating_add(1))) else {
                most = i64::MAX;
                break;
            };
            most = next - 1;
        }
        lots = lots.min(most);
    }
    lots.max(1)
}

/// Trims every leg but the last to the fewest lots that still feed the next one.
fn trim(legs: &[Leg<'_>], plan: Plan) -> Plan {
    let mut trimmed = plan;
    for idx in (0..legs.len() - 1).rev() {
        let needed = trimmed.orders[idx + 1].spends;
        let order = legs[idx]
            .lots_for(needed)
            .and_then(|lots| legs[idx].take(lots.checked_mul(legs[idx].rules.lot.0)?))
            .filter(|fill| fill.qty != 0)
            .and_then(|fill| legs[idx].order(fill));
        match order {
            Some(order) => trimmed.orders[idx] = order,
            // Only where a leg has quantity 0, and such a plan is denied as it is.
            None => return plan,
        }
    }
    trimmed
}

/// Returns whether the product of the rates at the plan's worst prices is at least 1 plus the
/// threshold, exactly.
fn marginal_at_least(legs: &[Leg<'_>], plan: &Plan, threshold_ppm: i64) -> bool {
    let wanted = (PPM + i128::from(threshold_ppm)) as u128;
    let mut rates = [([1; 2], [1; 2]); LEGS_MAX];
    for (idx, leg) in legs.iter().enumerate() {
        rates[idx] = leg.rate(plan.orders[idx].px);
    }
    let rates = &rates[..legs.len()];
    match products(PPM as u128, wanted, rates) {
        Some((product, bound)) => bound <= product,
        None => {
            let (product, bound) = wide_products(PPM as u128, wanted, rates);
            bound <= product
        }
    }
}

/// Returns both products, exactly, where 128 bits hold them: nearly always.
#[inline]
fn products(mut product: u128, mut bound: u128, rates: &[Rate]) -> Option<(u128, u128)> {
    for (numerator, denominator) in rates {
        for (above, below) in [(numerator[0], denominator[0]), (numerator[1], denominator[1])] {
            product = times_limb(product, above)?;
            bound = times_limb(bound, below)?;
        }
    }
    Some((product, bound))
}

/// The product with 64 bits where 128 hold it.
#[inline]
fn times_limb(value: u128, factor: u64) -> Option<u128> {
    let low = u128::from(value as u64) * u128::from(factor);
    match (value >> 64) as u64 {
        0 => Some(low),
        high => low.checked_add(u128::from(high.checked_mul(factor)?) << 64),
    }
}

/// The same in 512 bits.
#[cold]
fn wide_products(product: u128, bound: u128, rates: &[Rate]) -> (U512, U512) {
    let (mut product, mut bound) = (U512::ONE.times(product), U512::ONE.times(bound));
    for (numerator, denominator) in rates {
        product = product.times(u128::from(numerator[0]) * u128::from(numerator[1]));
        bound = bound.times(u128::from(denominator[0]) * u128::from(denominator[1]));
    }
    (product, bound)
}

/// Largest gross edge that is told: a rate of 4.29, far beyond any `edge_max`.
const GROSS_RATE_PPB_MAX: u128 = u32::MAX as u128;

/// Returns the gross edge of the legs' best prices, before fees, in parts per billion rounded down;
/// nothing where a side is empty.
#[must_use]
pub fn gross_edge_ppb(legs: &[Leg<'_>]) -> Option<i64> {
    const PPB: u128 = 1_000_000_000;
    let mut rates = [([1; 2], [1; 2]); LEGS_MAX];
    for (idx, leg) in legs.iter().enumerate() {
        rates[idx] = leg.gross_rate(leg.book.best(leg.side())?.px);
    }
    let rates = &rates[..legs.len()];
    if let Some((product, bound)) = products(PPB, 1, rates) {
        let rate = match (u64::try_from(product), u64::try_from(bound)) {
            (Ok(product), Ok(bound)) => u128::from(product / bound),
            _ => product / bound,
        };
        return Some(rate.min(GROSS_RATE_PPB_MAX) as i64 - PPB as i64);
    }
    let (product, bound) = wide_products(PPB, 1, rates);
    // The largest rate with rate × denominators <= numerators, by halving.
    let (mut low, mut high) = (0u128, GROSS_RATE_PPB_MAX + 1);
    while 1 < high - low {
        let middle = low + (high - low) / 2;
        if bound.times(middle) <= product {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low as i64 - PPB as i64)
}

/// Returns `amount × ppm / 10^6` rounded up: what a buffer takes.
#[must_use]
#[inline]
pub fn ppm_of(amount: Amount, ppm: i64) -> Amount {
    let exact = i128::from(amount.0) * i128::from(ppm);
    Amount(i64::try_from(div_ceil(exact, PPM)).unwrap_or(i64::MAX))
}

/// `value × factor`, nothing where it does not fit.
#[inline]
fn times(value: i128, factor: i128) -> Option<i128> {
    match (u64::try_from(value), u32::try_from(factor)) {
        (Ok(value), Ok(factor)) => Some(i128::from(value) * i128::from(factor)),
        _ => value.checked_mul(factor),
    }
}

#[inline]
fn amount(value: i128) -> Option<Amount> {
    i64::try_from(value).ok().map(Amount)
}
