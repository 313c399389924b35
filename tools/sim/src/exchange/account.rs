//! One client's money at one venue.
//!
//! Invariant: `held` of an asset is the sum of what open orders reserve of it, and `total` changes only by fills,
//! fees and movements from outside, each of which has a counter-entry in [`House`].

use std::collections::{BTreeMap, BTreeSet};

use crate::amount::Amount;
use crate::config::Venue;

/// What an account has of one asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// All of it.
    pub total: Amount,
    /// Held for open orders.
    pub held: Amount,
}

impl Balance {
    /// Returns what may be used.
    #[must_use]
    pub fn free(self) -> Amount {
        self.total - self.held
    }
}

/// What a venue charges an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeeTier {
    /// Parts per million of what rested.
    pub maker_ppm: i64,
    /// Parts per million of what took.
    pub taker_ppm: i64,
    /// An asset all fees are taken from while there is enough of it (Binance's BNB).
    pub asset: Option<String>,
}

/// One client's account at one venue.
#[derive(Clone, Debug)]
pub struct Account {
    /// Name from the keys.
    pub name: String,
    /// Venue.
    pub venue: Venue,
    /// Balances by asset.
    pub balances: BTreeMap<String, Balance>,
    /// Balances at the start.
    pub opening: BTreeMap<String, Amount>,
    /// Deposits, withdrawals and corrections, net.
    pub external: BTreeMap<String, Amount>,
    /// What it pays.
    pub fees: FeeTier,
    /// Open orders.
    pub open: BTreeSet<usize>,
    /// When something last changed.
    pub updated_ns: u64,
    /// When its dead-man switch cancels all orders.
    pub dead_man_ns: Option<u64>,
}

impl Account {
    /// Returns one balance.
    #[must_use]
    pub fn balance(&self, asset: &str) -> Balance {
        self.balances.get(asset).copied().unwrap_or_default()
    }

    pub(crate) fn credit(&mut self, asset: &str, amount: Amount) {
        if amount != Amount::ZERO {
            self.balances.entry(asset.to_owned()).or_default().total += amount;
        }
    }

    pub(crate) fn hold(&mut self, asset: &str, amount: Amount) {
        if amount != Amount::ZERO {
            self.balances.entry(asset.to_owned()).or_default().held += amount;
        }
    }
}

/// The other side of the books: what the market has and what fees brought in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct House {
    /// Net of all trades with the flow.
    pub market: Amount,
    /// Fees taken.
    pub fees: Amount,
    /// Net of deposits, withdrawals, corrections, and what a lying fill made up.
    pub outside: Amount,
}
