//! What an amount of an asset is worth in the numeraire, by live books and never to our advantage.
//!
//! Invariant: a worth is either on the side that was asked for ([`Bias`]) of every live book that shows
//! the pair, or there is none: no book, no worth, and whoever needs one denies. Products are exact in
//! `i128` and rounded once, away from us.
//!
//! Not here: which limits are held against a worth (`controls`), profit (`ledger`).

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
    /// By asset: instruments straight to the numeraire.
    direct: Vec<Vec<Hop>>,
    /// By asset: instruments to an asset that has such a one.
    over: Vec<Vec<Hop>>,
}

impl Valuer {
    /// Finds the routes: straight to the numeraire, and over one asset for where no instrument goes straight,
    /// or none of their books is live: a venue that is gone must not take the worth of an asset with it.
    #[must_use]
    pub fn new(universe: &Universe, numeraire: AssetId) -> Valuer {
        let between = |from: AssetId, into: AssetId| {
            let mut list = Vec::new();
            for (id, rules) in universe.instruments.iter().enumerate() {
                let is_base = rules.base == from && rules.quote == into;
                if is_base || (rules.quote == from && rules.base == into) {
                    let shift = rules.px_exponent + universe.exponent(rules.base)
                        - universe.exponent(rules.quote);
                    list.push(Hop { instrument: id as u16, is_base, into, shift });
                }
            }
            list
        };
        let all = || (0..universe.assets.len() as u16).map(AssetId);
        let to_numeraire = |asset| match asset == numeraire {
            true => Vec::new(),
            false => between(asset, numeraire),
        };
        let direct: Vec<Vec<Hop>> = all().map(to_numeraire).collect();
        let over = |asset: AssetId| {
            let is_middle =
                |middle: &AssetId| *middle != asset && !direct[usize::from(middle.0)].is_empty();
            let middles = all().filter(|_| asset != numeraire).filter(is_middle);
            middles.flat_map(|middle| between(asset, middle)).collect()
        };
        let over = all().map(over).collect();
        Valuer { numeraire, direct, over }
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
        books: (&Market, &Universe, &Params),
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
        let worth = self.straight(books, asset, size, size_bias, now_ns).or_else(|| {
            let hops = self.over.get(usize::from(asset.0))?;
            worst(books, hops, size, size_bias, now_ns, |middle, worth| {
                self.straight(books, middle, worth, size_bias, now_ns)
            })
        })?;
        Some(if amount < 0 { -worth } else { worth })
    }

    fn straight(
        &self,
        books: (&Market, &Universe, &Params),
        asset: AssetId,
        size: i128,
        bias: Bias,
        now_ns: i64,
    ) -> Option<i128> {
        let hops = self.direct.get(usize::from(asset.0))?;
        worst(books, hops, size, bias, now_ns, |_, worth| Some(worth))
    }
}

/// Returns the worst of what the live books of `hops` make of `size`, each taken `onward`.
#[inline]
fn worst(
    (market, universe, params): (&Market, &Universe, &Params),
    hops: &[Hop],
    size: i128,
    bias: Bias,
    now_ns: i64,
    onward: impl Fn(AssetId, i128) -> Option<i128>,
) -> Option<i128> {
    let mut found: Option<i128> = None;
    for hop in hops {
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
        let converted = hop.convert(&state.book, size, bias);
        let Some(worth) = converted.and_then(|worth| onward(hop.into, worth)) else { continue };
        found = Some(match (found, bias) {
            (None, _) => worth,
            (Some(best), Bias::High) => best.max(worth),
            (Some(best), Bias::Low) => best.min(worth),
        });
    }
    found
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
