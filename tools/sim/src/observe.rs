//! What the simulator itself saw of each account: arrivals, rates, sizes, exposure.
//!
//! Invariant: figures are of what arrived at the socket and of the simulator's own books, never of what a client
//! says. Rings are bounded; maxima are kept for the whole run.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::amount::Amount;
use crate::config::Venue;

const ARRIVALS_MAX: usize = 4_096;
const SENT_MAX: usize = 65_536;
/// Client ids remembered to find duplicates.
const IDS_MAX: usize = 2_000_000;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wants {
    New,
    Cancel,
    Query,
}

impl Wants {
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Cancel => "cancel",
            Self::Query => "query",
        }
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub at_ns: u64,
    pub wants: Wants,
    pub symbol: String,
    pub client_id: String,
    /// An order's worth, in its quote asset.
    pub worth: Option<(String, Amount)>,
}

/// What was seen of one account at one venue.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub new_total: u64,
    pub cancel_total: u64,
    pub query_total: u64,
    pub duplicates_total: u64,
    pub first_new_ns: Option<u64>,
    pub last_new_ns: Option<u64>,
    pub per_second_max: usize,
    pub notional_max: BTreeMap<String, Amount>,
    pub open_max: usize,
    pub refused_total: u64,
    pub limited_total: u64,
    pub arrivals: VecDeque<Arrival>,
    second: VecDeque<u64>,
    ids: HashSet<String>,
}

impl Seen {
    pub fn arrival(&mut self, one: Arrival) {
        match one.wants {
            Wants::New => {
                self.new_total += 1;
                self.first_new_ns.get_or_insert(one.at_ns);
                self.last_new_ns = Some(one.at_ns);
                if !one.client_id.is_empty() {
                    if self.ids.len() >= IDS_MAX {
                        self.ids.clear();
                    }
                    let is_new = self.ids.insert(one.client_id.clone());
                    self.duplicates_total += u64::from(!is_new);
                }
                if let Some((asset, worth)) = &one.worth {
                    let most = self.notional_max.entry(asset.clone()).or_default();
                    *most = (*most).max(*worth);
                }
                self.second.push_back(one.at_ns);
                while self.second.front().is_some_and(|t| t + 1_000_000_000 <= one.at_ns) {
                    self.second.pop_front();
                }
                self.per_second_max = self.per_second_max.max(self.second.len());
            }
            Wants::Cancel => self.cancel_total += 1,
            Wants::Query => self.query_total += 1,
        }
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(one);
    }
}

/// Net of what a client moved of each asset over all venues, by fills and fees.
#[derive(Debug, Default)]
pub(crate) struct Exposure {
    now: BTreeMap<String, Amount>,
    pub most: BTreeMap<String, Amount>,
}

impl Exposure {
    pub fn add(&mut self, asset: &str, amount: Amount) {
        let now = self.now.entry(asset.to_owned()).or_default();
        *now += amount;
        let most = self.most.entry(asset.to_owned()).or_default();
        *most = (*most).max(now.abs());
    }
}

/// Everything seen.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    pub seen: BTreeMap<usize, Seen>,
    pub exposure: BTreeMap<String, Exposure>,
}

impl Observations {
    pub fn of(&mut self, account: usize) -> &mut Seen {
        self.seen.entry(account).or_default()
    }
}

/// A market message whose leaving is noted: the venue's own id of what it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub venue: Venue,
    pub inst: usize,
    /// Binance: update id; Coinbase: `sequence_num`; Kraken: the message's time in nanoseconds.
    pub id: u64,
}

/// When a marked message's bytes were handed to its socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub mark: Mark,
    pub connection: u64,
    pub at_ns: u64,
}

/// The newest departures by venue index.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    rings: [VecDeque<Sent>; 3],
}

impl Departures {
    pub fn note(&mut self, sent: Sent) {
        let ring = &mut self.rings[sent.mark.venue.idx()];
        if ring.len() == SENT_MAX {
            ring.pop_front();
        }
        ring.push_back(sent);
    }

    pub fn of(&self, venue: Venue) -> impl Iterator<Item = &Sent> {
        self.rings[venue.idx()].iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_duplicates_are_of_arrivals() {
        let mut seen = Seen::default();
        for (at_ns, id) in [(0, "a"), (10, "b"), (999_999_999, "a"), (1_000_000_001, "c")] {
            seen.arrival(Arrival {
                at_ns,
                wants: Wants::New,
                symbol: String::new(),
                client_id: id.to_owned(),
                worth: None,
            });
        }
        assert_eq!((seen.new_total, seen.duplicates_total, seen.per_second_max), (4, 1, 3));
        assert_eq!((seen.first_new_ns, seen.last_new_ns), (Some(0), Some(1_000_000_001)));
        let mut exposure = Exposure::default();
        for amount in [5, -9, 3] {
            exposure.add("BTC", Amount(amount));
        }
        assert_eq!(exposure.most["BTC"], Amount(5));
    }
}
