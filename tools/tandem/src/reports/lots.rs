//! Lots: what was acquired when and for what, first in, first out.
//!
//! Invariant: what went in is what came out and what is left, of quantities and of costs, to the last unit: a
//! part of a lot takes its share of the cost rounded down to 10^-8, and the rest of the cost stays with the rest
//! of the lot. A lot whose cost is not known has none, which is not zero.
//!
//! Not here: what is acquired and disposed of, and what it is worth (`fills`).

use std::collections::BTreeMap;

use num_bigint::BigInt;

use super::Exact;

/// Costs are cut to 10^-8: ten places fewer than an amount has.
const CUT: i128 = 10_000_000_000;

/// Which lots are used up together: an asset, of one venue or (no name) of all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    /// The asset.
    pub asset: String,
    /// The venue; empty for all.
    pub venue: String,
}

/// Which lot: when it was acquired, and a number that is never used twice.
pub type LotId = (i64, u64);

/// A lot, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    /// How much.
    pub qty: Exact,
    /// What it cost, in the numeraire; nothing where that is not known.
    pub cost: Option<Exact>,
    /// When it was acquired, UNIX ns.
    pub acquired_ns: i64,
}

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// From which lots, oldest first.
    pub parts: Vec<Lot>,
    /// What no lot was there for.
    pub missing: Exact,
}

impl Taken {
    /// Returns what the parts cost; nothing where one of them has no cost.
    #[must_use]
    pub fn cost(&self) -> Option<Exact> {
        self.parts.iter().map(|part| part.cost).sum()
    }
}

/// All lots.
#[derive(Clone, Debug, Default)]
pub struct Lots {
    pools: BTreeMap<Pool, BTreeMap<LotId, Lot>>,
    made: u64,
}

impl Lots {
    /// Puts a lot in; nothing of nothing is none.
    pub fn add(&mut self, pool: &Pool, lot: Lot) -> Option<LotId> {
        if lot.qty <= Exact::ZERO {
            return None;
        }
        self.made += 1;
        let id = (lot.acquired_ns, self.made);
        self.pools.entry(pool.clone()).or_default().insert(id, lot);
        Some(id)
    }

    /// Says what a lot cost, as far as it is still there.
    pub fn price(&mut self, pool: &Pool, id: LotId, cost: impl Fn(Exact) -> Option<Exact>) {
        if let Some(lot) = self.pools.get_mut(pool).and_then(|lots| lots.get_mut(&id)) {
            lot.cost = cost(lot.qty);
        }
    }

    /// Takes a quantity, oldest lots first.
    pub fn take(&mut self, pool: &Pool, qty: Exact) -> Taken {
        self.take_first(pool, None, qty)
    }

    /// The same, but a certain lot before all others.
    pub fn take_first(&mut self, pool: &Pool, first: Option<LotId>, qty: Exact) -> Taken {
        let mut taken = Taken { parts: Vec::new(), missing: qty };
        let Some(lots) = self.pools.get_mut(pool) else { return taken };
        while Exact::ZERO < taken.missing {
            let wanted = first.filter(|id| lots.contains_key(id));
            let Some(id) = wanted.or_else(|| lots.keys().next().copied()) else { break };
            let Some(mut lot) = lots.remove(&id) else { break };
            if taken.missing < lot.qty {
                let part = split(&mut lot, taken.missing);
                lots.insert(id, lot);
                taken.parts.push(part);
                taken.missing = Exact::ZERO;
            } else {
                taken.missing = taken.missing.minus(lot.qty);
                taken.parts.push(lot);
            }
        }
        taken
    }

    /// Returns every lot that is left.
    pub fn left(&self) -> impl Iterator<Item = (&Pool, &Lot)> {
        self.pools.iter().flat_map(|(pool, lots)| lots.values().map(move |lot| (pool, lot)))
    }
}

/// Cuts a part off a lot that is larger.
fn split(lot: &mut Lot, qty: Exact) -> Lot {
    let cost = lot.cost.map(|cost| share(cost, qty, lot.qty));
    let part = Lot { qty, cost, acquired_ns: lot.acquired_ns };
    lot.qty = lot.qty.minus(qty);
    lot.cost = lot.cost.zip(cost).map(|(all, part)| all.minus(part));
    part
}

/// Returns `amount` × `part` / `whole`, rounded down to 10^-8.
#[must_use]
pub fn share(amount: Exact, part: Exact, whole: Exact) -> Exact {
    if part == whole || whole == Exact::ZERO {
        return amount;
    }
    ratio(amount, part.0, whole.0).unwrap_or_default()
}

/// Returns `amount` × `numerator` / `denominator`, rounded down to 10^-8; nothing where it does not fit.
#[must_use]
pub fn ratio(amount: Exact, numerator: i128, denominator: i128) -> Option<Exact> {
    if denominator <= 0 {
        return None;
    }
    let product = BigInt::from(amount.0) * BigInt::from(numerator);
    let divisor = BigInt::from(denominator) * BigInt::from(CUT);
    let mut quotient = &product / &divisor;
    if product < BigInt::ZERO && &quotient * &divisor != product {
        quotient -= 1;
    }
    i128::try_from(quotient * BigInt::from(CUT)).ok().map(Exact)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool() -> Pool {
        Pool { asset: "BTC".to_owned(), venue: String::new() }
    }

    fn lot(qty: &str, cost: &str, acquired_ns: i64) -> Lot {
        Lot { qty: Exact::read(qty).expect("a number"), cost: Exact::read(cost), acquired_ns }
    }

    #[test]
    fn the_first_go_first() {
        let mut lots = Lots::default();
        // Put in out of order: time decides.
        let second = lots.add(&pool(), lot("2", "90", 20)).expect("a lot");
        lots.add(&pool(), lot("1", "10", 10));
        let taken = lots.take(&pool(), Exact::read("1.5").expect("a number"));
        assert_eq!(taken.parts, [lot("1", "10", 10), lot("0.5", "22.5", 20)]);
        assert_eq!(taken.cost(), Exact::read("32.5"));
        lots.add(&pool(), lot("1", "x", 5));
        let taken = lots.take_first(&pool(), Some(second), Exact::read("4").expect("a number"));
        assert_eq!(taken.parts, [lot("1.5", "67.5", 20), lot("1", "x", 5)]);
        assert_eq!((taken.missing, taken.cost()), (Exact::read("1.5").expect("a number"), None));
        assert_eq!(lots.left().count(), 0);
    }

    #[test]
    fn a_share_is_rounded_down_once() {
        let one = Exact::read("1").expect("a number");
        let three = Exact::read("3").expect("a number");
        assert_eq!(share(one, one, three).to_string(), "0.33333333");
        assert_eq!(share(one.negated(), one, three).to_string(), "-0.33333334");
        assert_eq!(ratio(Exact(i128::MAX), i128::MAX, 1), None);
    }

    proptest! {
        /// Lots in are lots out and what is left, of quantity and of cost.
        #[test]
        fn nothing_is_lost_and_nothing_made(
            acts in proptest::collection::vec((any::<bool>(), 1i64..1_000_000, 0i64..1 << 50, 0i64..50), 1..200),
        ) {
            let mut lots = Lots::default();
            let (mut qty, mut cost) = (Exact::ZERO, Exact::ZERO);
            for (is_in, amount, paid, acquired_ns) in acts {
                let amount = Exact::quanta(amount, 8);
                if is_in {
                    let paid = Exact::quanta(paid, 10);
                    lots.add(&pool(), Lot { qty: amount, cost: Some(paid), acquired_ns });
                    (qty, cost) = (qty.plus(amount), cost.plus(paid));
                } else {
                    let taken = lots.take(&pool(), amount);
                    let out: Exact = taken.parts.iter().map(|part| part.qty).sum();
                    prop_assert_eq!(out.plus(taken.missing), amount);
                    qty = qty.minus(out);
                    cost = cost.minus(taken.cost().expect("all have one"));
                    prop_assert!(taken.parts.is_sorted_by_key(|part| part.acquired_ns));
                    let oldest = lots.left().map(|(_, lot)| lot.acquired_ns).min();
                    let last = taken.parts.last().map(|part| part.acquired_ns);
                    prop_assert!(oldest.zip(last).is_none_or(|(left, out)| out <= left));
                }
                prop_assert_eq!(lots.left().map(|(_, lot)| lot.qty).sum::<Exact>(), qty);
                let left: Option<Exact> = lots.left().map(|(_, lot)| lot.cost).sum();
                prop_assert_eq!(left, Some(cost));
            }
        }
    }
}
