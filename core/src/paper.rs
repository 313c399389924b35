//! Paper: the engine fills its own orders against the live books, as a venue would.
//!
//! Invariant: a pure function of the inputs: an order arrives one latency after it was decided, at the
//! first end of a batch or timer that is not earlier, meets the book as known then without what our
//! earlier orders took of it, fills what its limit allows at each level's price, pays the taker's fee, and
//! its reports come one response time later. Nothing fills from a book that is not live. The paper venue has
//! balances of its own: an order that they do not cover is refused, and when every report has arrived
//! the ledger equals them.
//!
//! Not here: what the reports do (`trading`): they take the same way as a venue's.

use alloc::vec;
use alloc::vec::Vec;

use crate::instrument::{AssetId, FeeIn, Universe};
use crate::market::Market;
use crate::mutation::{Mute, muted};
use crate::order::{Action, DoneStatus, NewOrder, RejectClass, Report, Tif};
use crate::own::Own;
use crate::params::Params;
use crate::record::Venue;
use crate::units::{Amount, PPM_PER_UNIT, Px, Qty};
use crate::value::{quote_of, shift_of};

/// Orders under way.
const FLIGHTS: usize = 256;
/// Levels that one order may walk; a fill each.
const FILLS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct PaperFill {
    px: Px,
    qty: Qty,
    fee: Amount,
    asset: u16,
    trade_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    terms: NewOrder,
    arrives_ns: i64,
    /// 0 until it has met the book.
    reports_ns: i64,
    end: Result<DoneStatus, RejectClass>,
    fills: [PaperFill; FILLS],
    fill_count: usize,
}

/// All paper venues.
#[derive(Debug)]
pub struct Paper {
    flights: Vec<Flight>,
    asset_count: usize,
    balances: Vec<i128>,
    next_trade: u64,
    refused: u64,
}

impl Paper {
    /// Returns venues without balances; `trade_base` makes trade ids of this run. Nothing is allocated
    /// afterwards.
    #[must_use]
    pub fn new(asset_count: usize, trade_base: u64) -> Paper {
        Paper {
            flights: Vec::with_capacity(FLIGHTS),
            asset_count,
            balances: vec![0; asset_count * Venue::ALL.len()],
            next_trade: trade_base,
            refused: 0,
        }
    }

    fn balance_mut(&mut self, venue: Venue, asset: AssetId) -> &mut i128 {
        &mut self.balances[venue.idx() * self.asset_count + usize::from(asset.0)]
    }

    /// Returns what a paper venue holds.
    #[must_use]
    pub fn balance(&self, venue: Venue, asset: AssetId) -> i128 {
        self.balances[venue.idx() * self.asset_count + usize::from(asset.0)]
    }

    /// Adds to a balance: an opening, or an operator's word.
    pub fn deposit(&mut self, venue: Venue, asset: AssetId, amount: i128) {
        let balance = self.balance_mut(venue, asset);
        *balance = balance.saturating_add(amount);
    }

    /// Returns how many orders are under way.
    #[must_use]
    pub fn flight_count(&self) -> usize {
        self.flights.len()
    }

    /// Takes an order; false where there is no room, and it was not sent.
    pub fn send(&mut self, terms: &NewOrder, arrives_ns: i64) -> bool {
        if self.flights.len() == FLIGHTS {
            return false;
        }
        let blank = PaperFill { px: Px(0), qty: Qty(0), fee: Amount(0), asset: 0, trade_id: 0 };
        self.flights.push(Flight {
            terms: *terms,
            arrives_ns,
            reports_ns: 0,
            end: Ok(DoneStatus::Expired),
            fills: [blank; FILLS],
            fill_count: 0,
        });
        true
    }

    /// Lets every order that has arrived meet its book.
    pub fn execute(
        &mut self,
        (universe, params): (&Universe, &Params),
        market: &mut Market,
        own: &mut Own,
        response_ns: [i64; 3],
        now_ns: i64,
    ) {
        // The earliest first, of equal ones the first sent: what an earlier one took is gone.
        loop {
            let due = |f: &Flight| {
                let settled = !market.get(f.terms.instrument).in_batch;
                f.reports_ns == 0 && f.arrives_ns <= now_ns && settled
            };
            let next = self.flights.iter().enumerate().filter(|(_, f)| due(f));
            let Some((at, _)) = next.min_by_key(|(at, f)| (f.arrives_ns, *at)) else { return };
            self.meet(at, (universe, params), market, own, now_ns);
            let flight = &mut self.flights[at];
            let response = response_ns[flight.terms.venue.idx()];
            flight.reports_ns = now_ns.saturating_add(response).max(1);
        }
    }

    fn meet(
        &mut self,
        at: usize,
        (universe, params): (&Universe, &Params),
        market: &mut Market,
        own: &mut Own,
        now_ns: i64,
    ) {
        let mut flight = self.flights[at];
        let terms = flight.terms;
        let rules = &universe.instruments[usize::from(terms.instrument)];
        let shift = shift_of(universe, terms.instrument);
        let fee = i128::from(rules.taker_fee.0);
        let fee_of = |amount: i128| -(-amount * fee).div_euclid(PPM_PER_UNIT.into());
        let spends_base = terms.action == Action::Sell;
        let spent = if spends_base { rules.base } else { rules.quote };
        let need = if spends_base {
            i128::from(terms.qty.0)
        } else {
            let cost = quote_of(terms.px, terms.qty.0, shift, true);
            if rules.fee_in == FeeIn::Quote { cost + fee_of(cost).max(0) } else { cost }
        };
        let name = (terms.run, terms.key);
        own.forget(terms.run, terms.key);
        let usable =
            market.usable(terms.venue, terms.instrument, &params.venues[terms.venue.idx()], now_ns);
        if self.balance(terms.venue, spent) < need && !muted(Mute::PaperFunds) {
            self.refused += 1;
            flight.end = Err(RejectClass::Funds);
        } else if usable.is_ok() {
            let side = terms.action.takes();
            let book = &market.get(terms.instrument).book;
            let mut rest = terms.qty.0;
            for level in book.levels(side) {
                if rest == 0 || flight.fill_count == FILLS {
                    break;
                }
                if terms.action.is_worse(level.px, terms.px) {
                    break;
                }
                let taken = if muted(Mute::PaperConsumption) {
                    0
                } else {
                    own.taken(terms.instrument, side, level.px, Some(name))
                };
                let qty = rest.min(level.qty.0 - taken).max(0);
                let qty = qty - qty % rules.lot.0;
                if qty == 0 {
                    continue;
                }
                rest -= qty;
                let quote = quote_of(level.px, qty, shift, !spends_base);
                let in_base = !spends_base && rules.fee_in == FeeIn::Received;
                let (fee, asset) = if in_base {
                    (fee_of(qty.into()), rules.base)
                } else {
                    (fee_of(quote), rules.quote)
                };
                self.next_trade += 1;
                flight.fills[flight.fill_count] = PaperFill {
                    px: level.px,
                    qty: Qty(qty),
                    fee: crate::ledger::clamp(fee),
                    asset: asset.0,
                    trade_id: self.next_trade,
                };
                flight.fill_count += 1;
            }
            if rest != 0 && terms.tif == Tif::Fok {
                flight.fill_count = 0;
            }
            let filled = rest == 0 && flight.fill_count != 0;
            flight.end = Ok(if filled { DoneStatus::Filled } else { DoneStatus::Expired });
        }
        for fill in &flight.fills[..flight.fill_count] {
            own.took(&terms, fill.px, fill.qty, now_ns);
            let quote = quote_of(fill.px, fill.qty.0, shift, !spends_base);
            let sign = if spends_base { -1 } else { 1 };
            *self.balance_mut(terms.venue, rules.base) += i128::from(fill.qty.0) * sign;
            *self.balance_mut(terms.venue, rules.quote) -= quote * sign;
            *self.balance_mut(terms.venue, AssetId(fill.asset)) -= i128::from(fill.fee.0);
        }
        self.flights[at] = flight;
        own.rebuild(market, terms.instrument);
    }

    /// Takes out the first order whose reports are due, and hands each report out.
    pub fn deliver(&mut self, now_ns: i64) -> Option<Delivery> {
        let due = |f: &Flight| f.reports_ns != 0 && f.reports_ns <= now_ns;
        let next = self.flights.iter().enumerate().filter(|(_, f)| due(f));
        let (at, _) = next.min_by_key(|(at, f)| (f.reports_ns, *at))?;
        Some(Delivery { flight: self.flights.remove(at), told: 0 })
    }
}

/// The reports of one order, in order.
#[derive(Debug)]
pub struct Delivery {
    flight: Flight,
    told: usize,
}

impl Delivery {
    /// Returns the order.
    #[must_use]
    pub fn terms(&self) -> &NewOrder {
        &self.flight.terms
    }
}

impl Iterator for Delivery {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        let told = self.told;
        self.told += 1;
        if let Err(class) = self.flight.end {
            return (told == 0).then_some(Report::Reject { class, code: 0 });
        }
        if told == 0 {
            let venue_id = u128::from(self.flight.terms.key.0 as u64);
            return Some(Report::Ack { venue_id });
        }
        let fills = &self.flight.fills[..self.flight.fill_count];
        if let Some(fill) = fills.get(told - 1) {
            return Some(Report::Fill {
                px: fill.px,
                qty: fill.qty,
                fee: fill.fee,
                asset: fill.asset,
                trade_id: fill.trade_id,
            });
        }
        let qty = Qty(fills.iter().map(|fill| fill.qty.0).sum());
        let status = self.flight.end.unwrap_or(DoneStatus::Expired);
        (told == fills.len() + 1).then_some(Report::Done { status, qty })
    }
}
