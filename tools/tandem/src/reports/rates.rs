//! What an amount of an asset was worth in the numeraire at a moment, by the books in the journal.
//!
//! Invariant: an asset is worth what a book says that trades it against the numeraire, the middle of its best
//! bid and ask as they stood; nothing is ever one to one because of its name. Every worth says which book gave
//! it and when that book had last changed. What no book says is not known.
//!
//! Not here: what is valued (`fills`, `daily`).

use std::collections::BTreeMap;

use tandem_core::book::{Book, Level};
use tandem_core::record::{BookState, Kind, Record};
use tandem_core::units::{Px, Qty, Side};
use tandem_drain::run::RunInfo;

use super::Exact;
use super::lots::ratio;
use crate::time::utc;

/// Levels of a side that are kept: what a feed publishes at most, with room.
const LEVELS: usize = 256;

/// What an asset is worth, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worth {
    /// In the numeraire, rounded down to 10^-8.
    pub amount: Exact,
    /// Which book, its middle, and when.
    pub source: String,
}

/// The last word of a book: the sum of bid and ask, with its decimals.
#[derive(Clone, Debug)]
struct Quote {
    bid_and_ask: i128,
    /// 10^`px_exponent`.
    scale: i128,
    /// The asset is the pair's base.
    is_base: bool,
    place: String,
    is_live: bool,
    at_ns: i64,
}

impl Quote {
    fn worth(&self, amount: Exact) -> Option<Worth> {
        let (twice, sum) = (self.scale.checked_mul(2)?, self.bid_and_ask);
        let amount = match self.is_base {
            true => ratio(amount, sum, twice)?,
            false => ratio(amount, twice, sum)?,
        };
        let middle = ratio(Exact::of(1, 0)?, sum, twice)?;
        let note = if self.is_live { "" } else { " (not live)" };
        let source = format!("{} mid {middle} of {}{note}", self.place, utc(self.at_ns));
        Some(Worth { amount, source })
    }
}

#[derive(Debug)]
struct Direct {
    asset: String,
    book: Book,
    quote: Quote,
}

/// The books that trade something against the numeraire.
#[derive(Debug, Default)]
pub struct Rates {
    numeraire: String,
    direct: BTreeMap<u16, Direct>,
    /// The last word of books of runs before this one, by asset.
    before: BTreeMap<String, Quote>,
}

impl Rates {
    /// A run begins: its instruments are numbered anew.
    pub fn begin(&mut self, run: &RunInfo, numeraire: &str) {
        for (_, direct) in std::mem::take(&mut self.direct) {
            if direct.quote.bid_and_ask != 0 {
                self.before.insert(direct.asset, Quote { is_live: false, ..direct.quote });
            }
        }
        numeraire.clone_into(&mut self.numeraire);
        for (idx, (rules, listed)) in
            run.universe.instruments.iter().zip(&run.instruments).enumerate()
        {
            let (base, quote) = (run.asset(rules.base), run.asset(rules.quote));
            let is_base = quote == numeraire;
            let Ok(instrument) = u16::try_from(idx) else { break };
            if is_base || base == numeraire {
                let quote_of = Quote {
                    bid_and_ask: 0,
                    scale: tandem_core::units::pow10(listed.px_exponent).into(),
                    is_base,
                    place: format!("{} {}", listed.venue.name(), listed.symbol),
                    is_live: false,
                    at_ns: 0,
                };
                let asset = if is_base { base } else { quote }.to_owned();
                let direct = Direct { asset, book: Book::new(LEVELS), quote: quote_of };
                self.direct.insert(instrument, direct);
            }
        }
    }

    /// Returns whether a record is about one of these books.
    #[must_use]
    pub fn minds(&self, record: &Record) -> bool {
        let kinds = [Kind::Level, Kind::Bbo, Kind::Clear, Kind::BookState];
        record.kind().is_some_and(|kind| kinds.contains(&kind))
            && self.direct.contains_key(&record.instrument)
    }

    /// Takes a record about a book; what makes no sense changes nothing.
    pub fn take(&mut self, record: &Record) {
        let Some(direct) = self.direct.get_mut(&record.instrument) else { return };
        let [a, b, c, d] = record.data;
        match record.kind() {
            Some(Kind::Level) => match Side::from_idx(c) {
                Some(side) if 0 < a && 0 <= b => drop(direct.book.set(side, Px(a), Qty(b))),
                _ => return,
            },
            Some(Kind::Bbo) => {
                let level = |px: i64, qty: i64| match (px, qty) {
                    (_, 0) => Some(None),
                    (1.., 1..) => Some(Some(Level { px: Px(px), qty: Qty(qty) })),
                    _ => None,
                };
                let (Some(bid), Some(ask)) = (level(a, b), level(c, d)) else { return };
                direct.book.set_best(Side::Bid, bid);
                direct.book.set_best(Side::Ask, ask);
            }
            Some(Kind::Clear) => direct.book.clear(),
            Some(Kind::BookState) => direct.quote.is_live = a == BookState::Live as i64,
            _ => return,
        }
        // Between the records of one message a book may be anything.
        if !record.has(tandem_core::record::flag::LAST) || direct.book.is_crossed_or_locked() {
            return;
        }
        let (bid, ask) = (direct.book.best(Side::Bid), direct.book.best(Side::Ask));
        if let (Some(bid), Some(ask)) = (bid, ask) {
            direct.quote.bid_and_ask = i128::from(bid.px.0) + i128::from(ask.px.0);
            direct.quote.at_ns = record.engine_ts_ns;
        }
    }

    /// Returns what an amount is worth: by a live book before one that is not, by the one that changed last.
    #[must_use]
    pub fn worth(&self, asset: &str, amount: Exact) -> Option<Worth> {
        if asset == self.numeraire {
            return Some(Worth { amount, source: "is the numeraire".to_owned() });
        }
        let of_run = self.direct.values().filter(|direct| direct.asset == asset);
        let known = of_run.map(|direct| &direct.quote).filter(|quote| quote.bid_and_ask != 0);
        let best = known.max_by_key(|quote| (quote.is_live, quote.at_ns));
        best.or_else(|| self.before.get(asset))?.worth(amount)
    }
}
