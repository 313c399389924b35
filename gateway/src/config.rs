//! What an operator chooses for a gateway.
//!
//! Invariant: plain values, checked by whoever reads the configuration; times are nanoseconds, shares are
//! parts per million. The shares of all processes that use one key or one address (gateway, warden, feed)
//! must sum to at most 1,000,000: the split is by configuration, no process sees another's use.

use tandem_core::record::Venue;

const SECOND: i64 = 1_000_000_000;

/// Kraken's tiers of an account (`protocols/kraken.md` section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KrakenTier {
    /// Where every account begins.
    #[default]
    Starter,
    /// Verified.
    Intermediate,
    /// Verified further.
    Pro,
}

impl KrakenTier {
    /// Every tier with its name.
    pub const NAMES: [(&'static str, KrakenTier); 3] = [
        ("starter", KrakenTier::Starter),
        ("intermediate", KrakenTier::Intermediate),
        ("pro", KrakenTier::Pro),
    ];

    /// Returns the tier of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<KrakenTier> {
        KrakenTier::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, tier)| tier)
    }
}

/// The values; [`Config::for_venue`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Longest time a venue may take to accept an order after its timestamp: Binance `recvWindow`, Kraken
    /// `deadline`. An order's own expiry makes it shorter.
    pub ttl_ns_max: i64,
    /// A request without its reply for this long is unknown.
    pub ack_ns_max: i64,
    /// "Not found" proves nothing before this time after sending, or the order's time to live if that is
    /// longer (OE-04) ...
    pub proof_ns: i64,
    /// ... and this margin.
    pub proof_margin_ns: i64,
    /// How many queries must have found nothing.
    pub proof_polls: u8,
    /// First wait between two queries of one order; doubles up to eight times.
    pub poll_ns: i64,
    /// A user stream from which nothing was heard for longer is dead.
    pub silence_ns_max: i64,
    /// An order that a reply told us of but the user stream did not, for this long: the stream is dead.
    pub stream_lag_ns_max: i64,
    /// Between two audits of open orders.
    pub open_orders_every_ns: i64,
    /// Between two audits of balances.
    pub balances_every_ns: i64,
    /// Between two audits of trades.
    pub trades_every_ns: i64,
    /// How far before the last known trade an audit begins.
    pub trades_overlap_ns: i64,
    /// A list of trades proves nothing about a fill that is younger: venues list them with a delay.
    pub bust_age_ns: i64,
    /// A second list that is to confirm the first is asked for after this time.
    pub bust_confirm_ns: i64,
    /// UNIX ns from which the first reconciliation asks for trades; 0 is one hour ago.
    pub trades_since_ns: i64,
    /// Share of the venue's limit on new orders.
    pub new_share_ppm: u32,
    /// Share of that which only hedges, unwinds and operators may use.
    pub hedge_share_ppm: u32,
    /// Share of the venue's limit on other requests.
    pub query_share_ppm: u32,
    /// Suspension after a limit that came without a time.
    pub suspend_ns: i64,
    /// Dead-man switch where the venue has one: it fires after this time ...
    pub deadman_ns: i64,
    /// ... and is put off this often.
    pub deadman_every_ns: i64,
    /// Session records at least this often.
    pub session_every_ns: i64,
    /// Age at which a connection is replaced while no order is in flight.
    pub rotate_ns: i64,
    /// Coinbase: kept connections for new orders.
    pub order_lanes: u8,
    /// Coinbase: signed tokens kept for new orders, and half as many for each other request.
    pub tokens: usize,
    /// Kraken: threshold of the engine's counter per pair, by tier (60, 125, 180).
    pub kraken_counter_max: u32,
    /// Kraken: its decay in thousandths a second (1,000, 2,340, 3,750).
    pub kraken_decay_milli: u32,
    /// Kraken: threshold of the REST counter of the key, by tier (15, 20, 20).
    pub kraken_rest_max: u32,
    /// Kraken: its decay in thousandths a second (330, 500, 1,000).
    pub kraken_rest_milli: u32,
    /// Host as it stands in HTTP heads and Coinbase tokens, with the port where it is not 443.
    pub rest_host: String,
    /// Seed of the backoff jitter.
    pub seed: u64,
}

impl Config {
    /// Returns the defaults for a venue.
    #[must_use]
    pub fn for_venue(venue: Venue) -> Config {
        let (rest_host, silence_ns_max) = match venue {
            // A WebSocket ping goes out every second and is answered by the venue's edge.
            Venue::Binance => ("api.binance.com", 3 * SECOND),
            // Heartbeats come every second.
            Venue::Coinbase => ("api.coinbase.com", 3 * SECOND),
            Venue::Kraken => ("api.kraken.com", 4 * SECOND),
        };
        // Kraken counts REST calls tightly (15, and one more every three seconds), and its streams are
        // numbered, so that nothing is lost unseen: audits there are seldom.
        let seldom = if venue == Venue::Kraken { 6 } else { 1 };
        Config {
            ttl_ns_max: SECOND,
            ack_ns_max: 2 * SECOND,
            proof_ns: 10 * SECOND,
            proof_margin_ns: 2 * SECOND,
            proof_polls: 3,
            poll_ns: SECOND / 2,
            silence_ns_max,
            stream_lag_ns_max: 5 * SECOND,
            open_orders_every_ns: seldom * 10 * SECOND,
            balances_every_ns: seldom * 30 * SECOND,
            trades_every_ns: seldom * 300 * SECOND,
            trades_overlap_ns: 3_600 * SECOND,
            bust_age_ns: 60 * SECOND,
            bust_confirm_ns: 10 * SECOND,
            trades_since_ns: 0,
            new_share_ppm: 500_000,
            hedge_share_ppm: 200_000,
            // Kraken counts by key, and every process has a key of its own.
            query_share_ppm: if venue == Venue::Kraken { 900_000 } else { 250_000 },
            suspend_ns: 10 * SECOND,
            deadman_ns: 60 * SECOND,
            deadman_every_ns: 15 * SECOND,
            session_every_ns: SECOND / 2,
            rotate_ns: 23 * 3_600 * SECOND,
            order_lanes: 2,
            tokens: 8,
            kraken_counter_max: 60,
            kraken_decay_milli: 1_000,
            kraken_rest_max: 15,
            kraken_rest_milli: 330,
            rest_host: rest_host.to_owned(),
            seed: 1,
        }
    }

    /// Sets Kraken's limits to those of a tier.
    pub fn set_kraken_tier(&mut self, tier: KrakenTier) {
        let (counter_max, decay_milli, rest_max, rest_milli) = match tier {
            KrakenTier::Starter => (60, 1_000, 15, 330),
            KrakenTier::Intermediate => (125, 2_340, 20, 500),
            KrakenTier::Pro => (180, 3_750, 20, 1_000),
        };
        (self.kraken_counter_max, self.kraken_decay_milli) = (counter_max, decay_milli);
        (self.kraken_rest_max, self.kraken_rest_milli) = (rest_max, rest_milli);
    }

    /// Returns for how long after an order was sent it may still arrive at the venue: its longest time to
    /// live where the venue enforces one; at Coinbase, which knows none, the time after which "not found"
    /// is believed.
    #[must_use]
    pub const fn arrival_ns_max(&self, venue: Venue) -> i64 {
        match venue {
            Venue::Binance | Venue::Kraken => self.ttl_ns_max,
            Venue::Coinbase => self.proof_ns.saturating_add(self.proof_margin_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_expiry_arrives_later() {
        let of = |venue| Config::for_venue(venue).arrival_ns_max(venue);
        assert_eq!(Venue::ALL.map(of), [SECOND, 12 * SECOND, SECOND]);
        let short = Config {
            proof_ns: SECOND,
            proof_margin_ns: SECOND,
            ..Config::for_venue(Venue::Coinbase)
        };
        assert_eq!(short.arrival_ns_max(Venue::Coinbase), 2 * SECOND);
    }
}
