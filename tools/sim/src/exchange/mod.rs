//! Accounts and matching, without a socket: what the faces drive, and what tests drive directly.
//!
//! Invariant: the same configuration, seed and calls give the same outcome, whatever the machine's clock. Nothing
//! here reads a clock, blocks, or knows a venue's format.
//!
//! ```
//! use tandem_sim::SimConfig;
//! use tandem_sim::book::Side;
//! use tandem_sim::config::Venue;
//! use tandem_sim::exchange::{Exchange, NewOrder, Tif};
//!
//! let mut exchange = Exchange::new(SimConfig::demo(1), 1).unwrap();
//! let account = exchange.open_account("me", Venue::Binance);
//! let inst = exchange.market.find(Venue::Binance, "BTCUSDT").unwrap();
//! let ask = exchange.market.instruments()[inst].book.best(Side::Ask).unwrap();
//! let order = NewOrder::limit(inst, Side::Bid, ask.px, 10, Tif::Ioc);
//! let (id, _) = exchange.place(1_000, account, order);
//! assert!(id.is_ok());
//! exchange.advance(50_000_000);
//! ```

pub mod account;
pub mod desk;
mod later;
pub mod order;

use std::collections::BTreeMap;

pub use account::{Account, Balance, FeeTier, House};
pub use desk::Desk;
pub use order::{
    Ended, Fill, Mode, NewOrder, Order, OrderType, Quirks, Reject, Report, Size, Status, Stp, Tif,
    What,
};

use crate::SimError;
use crate::amount::Amount;
use crate::config::{SimConfig, Venue};
use crate::market::{Event, Market};

/// A market and a desk, driven by calls with explicit times.
#[derive(Debug)]
pub struct Exchange {
    /// Books and the flow.
    pub market: Market,
    /// Accounts and orders.
    pub desk: Desk,
    cfg: SimConfig,
}

/// What a call caused: owners' reports and events of the books, each in order.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What owners are told.
    pub reports: Vec<Report>,
    /// What everyone is told.
    pub events: Vec<Event>,
}

/// What the books of the accounts say, to compare with.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// For every venue and asset: accounts and house together, less the openings. Zero by construction.
    pub imbalance: BTreeMap<(Venue, String), Amount>,
    /// For every account and asset: held less what open orders reserve. Zero by construction.
    pub held: BTreeMap<(usize, String), Amount>,
}

impl Exchange {
    /// Returns an exchange with the configuration's instruments and no account.
    ///
    /// # Errors
    /// Returns what is wrong with the configuration.
    pub fn new(cfg: SimConfig, seed: u64) -> Result<Self, SimError> {
        let cfg = SimConfig { seed, ..cfg };
        let market = Market::new(&cfg)?;
        let desk = Desk::new(seed, cfg.accounts.fee_asset_price);
        Ok(Self { market, desk, cfg })
    }

    /// Opens an account with the configuration's balances and fees.
    pub fn open_account(&mut self, name: &str, venue: Venue) -> usize {
        let opening = self.cfg.opening(venue);
        self.desk.open_account(name, venue, self.cfg.fee_tier(venue), opening)
    }

    /// Places an order.
    pub fn place(
        &mut self,
        now_ns: u64,
        account: usize,
        order: NewOrder,
    ) -> (Result<usize, Reject>, Outcome) {
        let result = self.desk.place(&mut self.market, now_ns, account, order);
        (result, self.outcome())
    }

    /// Cancels an order.
    pub fn cancel(&mut self, now_ns: u64, order: usize) -> (Result<(), Reject>, Outcome) {
        let result = self.desk.cancel(&mut self.market, now_ns, order, Ended::User);
        (result, self.outcome())
    }

    /// Moves the market and everything that waits for time to `now_ns`.
    pub fn advance(&mut self, now_ns: u64) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some(event) = self.market.next(now_ns) {
            let at_ns = event.at_ns;
            let event = self.desk.react(&mut self.market, at_ns, event);
            outcome.events.push(event);
        }
        self.desk.advance(&mut self.market, now_ns);
        let last = self.outcome();
        outcome.reports.extend(last.reports);
        outcome.events.extend(last.events);
        outcome
    }

    fn outcome(&mut self) -> Outcome {
        Outcome { reports: self.desk.take_reports(), events: self.desk.take_events() }
    }

    /// Returns what must be zero.
    #[must_use]
    pub fn truth(&self) -> Tally {
        self.desk.tally()
    }
}

impl Desk {
    /// Returns what must be zero: see [`Tally`].
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut imbalance: BTreeMap<(Venue, String), Amount> = BTreeMap::new();
        let mut held: BTreeMap<(usize, String), Amount> = BTreeMap::new();
        for (index, account) in self.accounts().iter().enumerate() {
            for (asset, balance) in &account.balances {
                *imbalance.entry((account.venue, asset.clone())).or_default() += balance.total;
                *held.entry((index, asset.clone())).or_default() += balance.held;
            }
            for (asset, opening) in &account.opening {
                *imbalance.entry((account.venue, asset.clone())).or_default() -= *opening;
            }
            for id in &account.open {
                let order = &self.orders()[*id];
                *held.entry((index, order.hold_asset().to_owned())).or_default() -= order.reserved;
            }
        }
        for ((venue, asset), house) in self.house() {
            let all = house.market + house.fees + house.outside;
            *imbalance.entry((*venue, asset.clone())).or_default() += all;
        }
        Tally { imbalance, held }
    }
}
