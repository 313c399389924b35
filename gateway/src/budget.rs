//! How much may be asked of a venue, by class (C13).
//!
//! Invariant: new orders, cancels and queries have budgets of their own, so that no amount of one starves
//! another; what hedges has a part of the new orders' budget that entries cannot touch; and a venue's
//! order to wait stops new orders and queries but never cancels.
//!
//! The numbers are the venues' limits times this process's share ([`Config`]); the shares of all
//! processes of a key or address sum to at most one, because no process sees what another uses.
//!
//! Not here: counting (`tandem_feeds::net::budget`), what a refusal by the venue does (`desk`).

use tandem_core::record::Venue;
use tandem_feeds::net::budget::Budget;

use crate::config::Config;
use crate::mute::muted;

const SECOND: i64 = 1_000_000_000;

/// Binance: unfilled orders in 10 s (`protocols/binance.md` section 4.6; 50 is the lowest figure seen).
const BINANCE_ORDERS: u64 = 50;
/// Binance: request weight a minute.
const BINANCE_WEIGHT: u64 = 6_000;
/// Coinbase: requests a second, in thousandths (community figure; section 9).
const COINBASE_MILLI: u32 = 30_000;

/// The budgets of one venue.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// One for all, or one for each instrument (Kraken).
    entries: Vec<Budget>,
    hedges: Vec<Budget>,
    cancels: Budget,
    queries: Budget,
}

fn share(whole: u32, ppm: u32) -> u32 {
    ((u64::from(whole) * u64::from(ppm) / 1_000_000) as u32).max(1)
}

impl Budgets {
    /// Returns the budgets for a venue with this many instruments.
    #[must_use]
    pub fn new(venue: Venue, instruments: usize, config: &Config) -> Budgets {
        let hedge_ppm = config.hedge_share_ppm.min(1_000_000);
        let new_ppm = |of: u32| share(config.new_share_ppm, of);
        let (entry_ppm, hedge_ppm) = (new_ppm(1_000_000 - hedge_ppm), new_ppm(hedge_ppm));
        let new = |ppm: u32| match venue {
            Venue::Binance => {
                vec![Budget::window(BINANCE_ORDERS, 10 * SECOND, ppm)]
            }
            Venue::Coinbase => {
                let milli = share(COINBASE_MILLI, ppm);
                vec![Budget::bucket(milli, (milli / 1_000).max(1))]
            }
            Venue::Kraken => {
                let decay = share(config.kraken_decay_milli, ppm);
                let burst = share(config.kraken_counter_max, ppm);
                vec![Budget::bucket(decay, burst); instruments.max(1)]
            }
        };
        let queries = match venue {
            Venue::Binance => Budget::window(BINANCE_WEIGHT, 60 * SECOND, config.query_share_ppm),
            Venue::Coinbase => {
                let milli = share(COINBASE_MILLI, config.query_share_ppm);
                Budget::bucket(milli, (milli / 1_000).max(4))
            }
            Venue::Kraken => {
                // A start needs six requests at once, which must fit whatever the share.
                let burst = share(config.kraken_rest_max, config.query_share_ppm).max(8);
                Budget::bucket(share(config.kraken_rest_milli, config.query_share_ppm), burst)
            }
        };
        Budgets {
            entries: new(entry_ppm),
            hedges: new(hedge_ppm),
            // Successful cancels cost Binance nothing; Coinbase and Kraken count them as requests.
            cancels: Budget::bucket(10_000, 20),
            queries,
        }
    }

    /// Takes room for a new order; `position` is its instrument's among the venue's.
    pub fn new_order(&mut self, position: usize, reduces: bool, now_ns: i64) -> bool {
        let entry = position % self.entries.len();
        if self.entries[entry].take(1, now_ns).is_ok() || muted("C13_NEW") {
            return true;
        }
        reduces && !muted("C13_FLOOR") && self.hedges[entry].take(1, now_ns).is_ok()
    }

    /// Takes room for a cancel.
    pub fn cancel(&mut self, now_ns: i64) -> bool {
        self.cancels.take(1, now_ns).is_ok()
    }

    /// Takes room for a query of this weight.
    pub fn query(&mut self, weight: u64, now_ns: i64) -> bool {
        self.queries.take(weight, now_ns).is_ok()
    }

    /// Notes the venue's own count of weight used (it counts every process behind our address).
    pub fn reported(&mut self, weight: u64, now_ns: i64) {
        self.queries.reported(weight, now_ns);
    }

    /// Returns how many new entries the most used of the budgets has room for now; looks only.
    #[must_use]
    pub fn left(&self, now_ns: i64) -> i64 {
        let room = |budget: &Budget| {
            let mut budget = budget.clone();
            (0..1_000).take_while(|_| budget.take(1, now_ns).is_ok()).count() as i64
        };
        self.entries.iter().map(room).min().unwrap_or(0)
    }

    /// The venue said to wait.
    pub fn block_until(&mut self, until_ns: i64) {
        self.queries.block_until(until_ns);
        self.entries.iter_mut().chain(&mut self.hedges).for_each(|b| b.block_until(until_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mut grant: impl FnMut() -> bool) -> usize {
        (0..1_000).take_while(|_| grant()).count()
    }

    #[test]
    fn entries_cannot_use_what_hedges_need() {
        for venue in Venue::ALL {
            let config = Config::for_venue(venue);
            let mut budgets = Budgets::new(venue, 3, &config);
            let entries = count(|| budgets.new_order(0, false, SECOND));
            let hedges = count(|| budgets.new_order(0, true, SECOND));
            assert!(0 < entries && 0 < hedges && hedges < entries, "{venue:?} {entries} {hedges}");
            assert!(budgets.cancel(SECOND), "cancels are another class");
            assert!(budgets.query(4, SECOND), "queries too");
        }
    }

    #[test]
    fn half_of_a_limit_is_half_of_it() {
        let config = Config::for_venue(Venue::Binance);
        let mut budgets = Budgets::new(Venue::Binance, 1, &config);
        assert_eq!(count(|| budgets.new_order(0, false, SECOND)), 20);
        assert_eq!(count(|| budgets.new_order(0, true, SECOND)), 5);
        assert_eq!(count(|| budgets.query(80, SECOND)), 18, "1,500 of 6,000");
    }

    #[test]
    fn a_wait_stops_everything_but_cancels() {
        let mut budgets = Budgets::new(Venue::Kraken, 2, &Config::for_venue(Venue::Kraken));
        budgets.block_until(5 * SECOND);
        assert!(!budgets.new_order(0, true, 4 * SECOND));
        assert!(!budgets.query(1, 4 * SECOND));
        assert!(budgets.cancel(4 * SECOND));
        assert!(budgets.new_order(0, true, 5 * SECOND));
    }

    #[test]
    fn krakens_pairs_are_counted_apart() {
        let mut budgets = Budgets::new(Venue::Kraken, 2, &Config::for_venue(Venue::Kraken));
        let first = count(|| budgets.new_order(0, false, SECOND));
        assert_eq!(count(|| budgets.new_order(1, false, SECOND)), first);
    }
}
