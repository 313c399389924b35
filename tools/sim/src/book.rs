//! One venue's book of one instrument: absolute quantities at integer prices.
//!
//! Invariant: each side is strictly sorted with the best price last and holds no zero quantity, so
//! the top is cheap to change and every reader sees the same order. Whether the two sides cross is
//! the writer's business: the model never crosses them, the `crossed` fault does.

/// Which side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Offers to buy.
    Bid,
    /// Offers to sell.
    Ask,
}

impl Side {
    /// Returns the opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Bid => Self::Ask,
            Self::Ask => Self::Bid,
        }
    }

    /// Returns `px` so that a larger key is a better price.
    #[must_use]
    pub fn key(self, px: i64) -> i64 {
        match self {
            Self::Bid => px,
            Self::Ask => -px,
        }
    }

    /// Returns whether an order of this side at `px` reaches the opposite price.
    #[must_use]
    pub fn reaches(self, px: i64, opposite: i64) -> bool {
        match self {
            Self::Bid => px >= opposite,
            Self::Ask => px <= opposite,
        }
    }
}

/// One price of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Price in ticks.
    pub px: i64,
    /// Quantity in lots; never zero inside a book.
    pub qty: i64,
}

/// Both sides of one instrument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    bids: Vec<Level>,
    asks: Vec<Level>,
}

impl Book {
    fn side(&self, side: Side) -> &Vec<Level> {
        match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        }
    }

    /// Sets the absolute quantity of a price (0 removes it) and returns the quantity before.
    pub fn set(&mut self, side: Side, px: i64, qty: i64) -> i64 {
        let levels = match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        };
        let key = side.key(px);
        match levels.binary_search_by_key(&key, |l| side.key(l.px)) {
            Ok(at) if qty == 0 => levels.remove(at).qty,
            Ok(at) => std::mem::replace(&mut levels[at].qty, qty),
            Err(_) if qty == 0 => 0,
            Err(at) => {
                levels.insert(at, Level { px, qty });
                0
            }
        }
    }

    /// Returns the quantity at a price, 0 if there is none.
    #[must_use]
    pub fn get(&self, side: Side, px: i64) -> i64 {
        let levels = self.side(side);
        let found = levels.binary_search_by_key(&side.key(px), |l| side.key(l.px));
        found.map_or(0, |at| levels[at].qty)
    }

    /// Returns the best level of a side.
    #[must_use]
    pub fn best(&self, side: Side) -> Option<Level> {
        self.side(side).last().copied()
    }

    /// Returns the worst level of a side.
    #[must_use]
    pub fn worst(&self, side: Side) -> Option<Level> {
        self.side(side).first().copied()
    }

    /// Returns the level at `rank`, 0 being the best.
    #[must_use]
    pub fn at(&self, side: Side, rank: usize) -> Option<Level> {
        let levels = self.side(side);
        levels.len().checked_sub(rank + 1).map(|at| levels[at])
    }

    /// Iterates over a side, best first.
    pub fn levels(&self, side: Side) -> impl Iterator<Item = Level> + '_ {
        self.side(side).iter().rev().copied()
    }

    /// Returns how many levels a side has.
    #[must_use]
    pub fn len(&self, side: Side) -> usize {
        self.side(side).len()
    }

    /// Returns whether no side has a level.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bids.is_empty() && self.asks.is_empty()
    }

    /// Returns whether the best bid reaches the best ask.
    #[must_use]
    pub fn is_crossed_or_locked(&self) -> bool {
        match (self.best(Side::Bid), self.best(Side::Ask)) {
            (Some(bid), Some(ask)) => bid.px >= ask.px,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_keeps_order_and_returns_the_old_quantity() {
        let mut book = Book::default();
        for (px, qty) in [(10, 1), (12, 2), (11, 3)] {
            assert_eq!(book.set(Side::Bid, px, qty), 0);
            assert_eq!(book.set(Side::Ask, px + 10, qty), 0);
        }
        let bids: Vec<i64> = book.levels(Side::Bid).map(|l| l.px).collect();
        let asks: Vec<i64> = book.levels(Side::Ask).map(|l| l.px).collect();
        assert_eq!((bids, asks), (vec![12, 11, 10], vec![20, 21, 22]));
        assert_eq!(book.set(Side::Bid, 11, 9), 3);
        assert_eq!(book.set(Side::Bid, 11, 0), 9);
        assert_eq!(book.set(Side::Bid, 11, 0), 0);
        assert_eq!(book.at(Side::Bid, 1).map(|l| l.px), Some(10));
        assert_eq!(book.at(Side::Bid, 2), None);
        assert!(!book.is_crossed_or_locked());
        book.set(Side::Bid, 20, 1);
        assert!(book.is_crossed_or_locked());
    }
}
