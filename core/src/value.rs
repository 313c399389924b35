//! What an amount of an asset is worth in the numeraire, by live books and never to our advantage.
//!
//! Invariant: a worth is either on the side that was asked for ([`Bias`]) of every live book that shows
//! the pair, or there is none: no book, no worth, and whoever needs one denies. Products are exact in
//! `i128` and rounded once, away from us.
//!
//! Not here: which limits are held against a worth (`controls`), profit (`ledger`).

use alloc::vec;
use alloc::vec::Vec;

use crate::instrument::{AssetId, Universe};
use crate::market::Market;
use crate::params::Params;
use crate::record::BookState;
use crate::units::{Px, Side, div_ceil, div_floor, pow10};

/// On which side a worth may err.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// Not below the truth: for limits on what we put at stake.
    High,
    /// Not above the truth: for what we own.
    Low,
}

impl Bias {
    const fn other(self) -> Bias {
        match self {
            Bias::High => Bias::Low,
            Bias::Low => Bias::High,
        }
    }
}

/// How an asset comes to the numeraire: one instrument's conversion.
#[derive(Clone, Copy, Debug)]
struct Hop {
    instrument: u16,
    /// The asset is the instrument's base; otherwise its quote.
    is_base: bool,
    /// What it becomes.
    into: AssetId,
    shift: u8,
}

/// Routes of every asset to the numeraire, found at construction.
#[derive(Clone, Debug)]
pub struct Valuer {
    numeraire: AssetId,
    hops: Vec<Vec<Hop>>,
}

impl Valuer {
    /// Finds the routes: straight to the numeraire where an instrument allows it, else over one asset
    /// that has such a route.
    #[must_use]
    pub fn new(universe: &Universe, numeraire: AssetId) -> Valuer {
        let mut hops: Vec<Vec<Hop>> = vec![Vec::new(); universe.assets.len()];
        let each = |from: AssetId, into: AssetId, list: &mut Vec<Hop>| {
            for (id, rules) in universe.instruments.iter().enumerate() {
                let is_base = rules.base == from && rules.quote == into;
                if is_base || (rules.quote == from && rules.base == into) {
                    let shift = rules.px_exponent + universe.exponent(rules.base)
                        - universe.exponent(rules.quote);
                    list.push(Hop { instrument: id as u16, is_base, into, shift });
                }
            }
        };
        let all = || (0..universe.assets.len() as u16).map(AssetId);
        for asset in all().filter(|asset| *asset != numeraire) {
            each(asset, numeraire, &mut hops[usize::from(asset.0)]);
        }
        let direct: Vec<AssetId> = all().filter(|a| !hops[usize::from(a.0)].is_empty()).collect();
        for asset in all().filter(|a| *a != numeraire && !direct.contains(a)) {
            for middle in &direct {
                let mut list = Vec::new();
                each(asset, *middle, &mut list);
                hops[usize::from(asset.0)].append(&mut list);
            }
        }
        Valuer { numeraire, hops }
    }

    /// Returns the asset that worth is counted in.
    #[must_use]
    pub fn numeraire(&self) -> AssetId {
        self.numeraire
    }

    /// Returns the worth of a signed amount; nothing where no live book tells it, or it does not fit.
    #[must_use]
    pub fn worth(
        &self,
        (market, universe, params): (&Market, &Universe, &Params),
        asset: AssetId,
        amount: i128,
        bias: Bias,
        now_ns: i64,
    ) -> Option<i128> {
        if asset == self.numeraire || amount == 0 {
            return Some(amount);
        }
        // What we owe errs to the other side.
        let size_bias = if amount < 0 { bias.other() } else { bias };
        let size = amount.unsigned_abs().min(i128::MAX as u128) as i128;
        let mut found: Option<i128> = None;
        for hop in self.hops.get(usize::from(asset.0))? {
            let venue = universe.instruments[usize::from(hop.instrument)].venue;
            let state = market.get(hop.instrument);
            let age_ns = market.age_ns(venue, hop.instrument, now_ns);
            let is_live = state.state == BookState::Live
                && !state.in_batch
                && !state.book.is_crossed_or_locked()
                && age_ns <= params.venues[venue.idx()].age_ns_max;
            if !is_live {
                continue;
            }
            let Some(mut worth) = hop.convert(&state.book, size, size_bias) else { continue };
            if hop.into != self.numeraire {
                let onward = (market, universe, params);
                match self.worth(onward, hop.into, worth, size_bias, now_ns) {
                    Some(value) => worth = value,
                    None => continue,
                }
            }
            found = Some(match (found, size_bias) {
                (None, _) => worth,
                (Some(best), Bias::High) => best.max(worth),
                (Some(best), Bias::Low) => best.min(worth),
            });
        }
        found.map(|worth| if amount < 0 { -worth } else { worth })
    }
}

impl Hop {
    #[inline]
    fn convert(&self, book: &crate::book::Book, size: i128, bias: Bias) -> Option<i128> {
        // Base is dear at the ask; quote is dear where base is cheap, at the bid.
        let side = match (self.is_base, bias) {
            (true, Bias::High) | (false, Bias::Low) => Side::Ask,
            (true, Bias::Low) | (false, Bias::High) => Side::Bid,
        };
        let px = i128::from(book.best(side)?.px.0);
        let scale = i128::from(pow10(self.shift));
        let (numerator, denominator) = if self.is_base { (px, scale) } else { (scale, px) };
        let exact = size.checked_mul(numerator)?;
        Some(match bias {
            Bias::High => div_ceil(exact, denominator),
            Bias::Low => div_floor(exact, denominator),
        })
    }
}

/// Returns what `qty` at `px` is in quote quanta: rounded up where we pay, down where we receive.
#[must_use]
#[inline]
pub fn quote_of(px: Px, qty: i64, shift: u8, pays: bool) -> i128 {
    let exact = i128::from(px.0) * i128::from(qty);
    let scale = i128::from(pow10(shift));
    if pays { div_ceil(exact, scale) } else { div_floor(exact, scale) }
}

/// Returns 10^-shift that brings px × qty of an instrument to its quote's quanta.
#[must_use]
#[inline]
pub fn shift_of(universe: &Universe, instrument: u16) -> u8 {
    let rules = &universe.instruments[usize::from(instrument)];
    rules.px_exponent + universe.exponent(rules.base) - universe.exponent(rules.quote)
}
