//! The accounts of a journal: what our ledger says, what the venues said last, and what was gained.
//!
//! Invariant: ledger and venue are kept apart: a difference is shown, never explained away. Fees are
//! summed in the asset that they were taken from.
//!
//! Not here: single orders (`trades`), how the ledger is kept (`tandem-core::ledger`).

use std::collections::BTreeMap;
use std::rc::Rc;

use tandem_core::account::Balance;
use tandem_core::ledger::{Pnl, Posting, Tag};
use tandem_core::record::{Record, Venue};

use crate::records::Origin;
use crate::table::Table;
use crate::trades::{Trades, TradesError};

/// One venue's balance of one asset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holding {
    /// What our ledger says.
    pub ledger: i64,
    /// What the venue said last: total and held; nothing before its first word.
    pub venue: Option<(i64, i64)>,
    /// Sum of the ledger's postings by account, in the order of [`Tag::ALL`].
    pub by_tag: [i128; Tag::ALL.len()],
}

/// The accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    /// By venue and asset name.
    pub holdings: BTreeMap<(Venue, String), Holding>,
    /// The last word on each day, with the numeraire's name.
    pub days: BTreeMap<i64, (Pnl, String)>,
    /// The orders.
    pub trades: Trades,
    /// Instruments of the last run.
    pub table: Option<Rc<Table>>,
}

impl Accounts {
    /// Reads a journal.
    pub fn read(journal: impl Into<Origin>) -> Result<Accounts, TradesError> {
        let mut accounts = Accounts::default();
        let trades = Trades::read_with(journal, |record, table| accounts.take(record, table))?;
        accounts.table.clone_from(&trades.table);
        accounts.trades = trades;
        Ok(accounts)
    }

    fn take(&mut self, record: &Record, table: &Rc<Table>) {
        let name = |asset: u16| {
            let found = table.universe.assets.get(usize::from(asset));
            found.map_or_else(|| format!("asset {asset}"), |asset| asset.name.clone())
        };
        if let Some(posting) = Posting::read(record)
            && let Some(venue) = posting.venue
        {
            let holding = self.holdings.entry((venue, name(posting.asset.0))).or_default();
            holding.ledger = posting.after.0;
            let tag = Tag::ALL.iter().position(|tag| *tag == posting.tag).unwrap_or(0);
            holding.by_tag[tag] += i128::from(posting.delta.0);
        } else if let Some(balance) = Balance::read(record) {
            let holding = self.holdings.entry((balance.venue, name(balance.asset))).or_default();
            holding.venue = Some((balance.total.0, balance.held.0));
        } else if let Some(pnl) = Pnl::read(record) {
            self.days.insert(pnl.day, (pnl, name(record.asset)));
        }
    }

    /// Returns the decimals of an asset's amounts.
    #[must_use]
    pub fn exponent(&self, asset: &str) -> Option<u8> {
        let assets = &self.table.as_ref()?.universe.assets;
        assets.iter().find(|known| known.name == asset).map(|known| known.exponent)
    }

    /// Returns an amount of an asset as text.
    #[must_use]
    pub fn text(&self, asset: &str, quanta: i64) -> String {
        let Some(table) = &self.table else { return quanta.to_string() };
        let found = table.universe.assets.iter().position(|known| known.name == asset);
        found.map_or_else(
            || quanta.to_string(),
            |idx| table.amount(tandem_core::instrument::AssetId(idx as u16), quanta),
        )
    }
}
