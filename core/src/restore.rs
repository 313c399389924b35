//! What an engine must know of earlier runs, out of their journal.
//!
//! Invariant: a pure function of the journal. What it yields is given to the next engine before anything
//! else, as [`Kind::Restore`] records whose `part` is the kind that each one carries on: balances as the
//! ledger told them last (`Ledger`), the day's result (`Pnl`), every order that is not settled with all
//! that was said about it, the recent trades of every instrument, and what rounds that are not over have
//! left over (`Round`: `[amount, 0, 0, 0]` of venue and asset). So a dead run's orders are unknown to the
//! next one until their venue tells, its fills are never booked twice, and what it left naked is hedged as
//! one orphan round as soon as the level allows.
//!
//! A journal of several runs is read as one: what a run was given to restore is its beginning.
//!
//! Not here: what the engine does with it (`trading`), where the journal is read (`tandem`).

use alloc::vec::Vec;

use crate::instrument::Universe;
use crate::ledger::Posting;
use crate::order::{Action, NewOrder, OrderKey, Report};
use crate::orders::{NO_ROUND, Order, TRADES};
use crate::record::{Kind, Record, Venue, flag};
use crate::round::{RoundReport, Stage};
use crate::value::{quote_of, shift_of};

/// One order of the journal, with everything said about it.
#[derive(Clone, Debug)]
struct Known {
    order: Order,
    terms: Record,
    reports: Vec<Record>,
}

/// What a round, named by its run and number, has moved of an asset at a venue.
#[derive(Clone, Copy, Debug)]
struct Flow {
    run: u32,
    round: u64,
    venue: u8,
    asset: u16,
    amount: i128,
}

/// Gathers what the next run must know.
#[derive(Debug)]
struct Gathering<'a> {
    universe: &'a Universe,
    postings: Vec<Record>,
    pnl: Option<Record>,
    orders: Vec<Known>,
    trades: Vec<Record>,
    flows: Vec<Flow>,
    group: Vec<Record>,
}

/// Returns what to inject into the next engine, in order. `journal` is every record of the earlier runs,
/// inputs and outputs, in order.
#[must_use]
pub fn collect(universe: &Universe, journal: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut gathering = Gathering {
        universe,
        postings: Vec::new(),
        pnl: None,
        orders: Vec::new(),
        trades: Vec::new(),
        flows: Vec::new(),
        group: Vec::new(),
    };
    for record in journal {
        gathering.take(&record);
    }
    gathering.finish()
}

/// Returns a record as one to restore.
fn carried(record: &Record) -> Record {
    Record {
        seq: 0,
        check: 0,
        part: record.kind,
        kind: Kind::Restore as u8,
        flags: flag::LAST,
        ring: 0,
        ring_seq: 0,
        engine_ts_ns: 0,
        ..*record
    }
}

impl Gathering<'_> {
    fn take(&mut self, record: &Record) {
        match record.kind() {
            Some(Kind::Restore) => self.take_restored(record),
            Some(Kind::OrderNew) => self.take_order(record),
            Some(Kind::Ledger) => self.take_posting(record),
            Some(Kind::Pnl) => self.pnl = Some(*record),
            Some(Kind::Round) => self.take_round(record),
            _ => self.take_report(record, true),
        }
    }

    /// What an earlier run was given: of its orders alone. Its balances and results were told by it
    /// again, and so were its fills' ids.
    fn take_restored(&mut self, record: &Record) {
        let inner = Record { kind: record.part, part: 0, ..*record };
        match inner.kind() {
            Some(Kind::OrderNew) => self.take_order(&inner),
            Some(Kind::Round) => {
                // Of no run that still counts rounds: run 0 is everything from before.
                self.flow(0, 0, inner.venue, inner.asset, inner.data[0].into());
            }
            Some(Kind::Ledger | Kind::Pnl) => {}
            _ => self.take_report(&inner, false),
        }
    }

    fn take_order(&mut self, record: &Record) {
        let Some(terms) = NewOrder::read(record) else { return };
        if self.find(terms.run, terms.key).is_none() {
            let order = Order::new(terms, NO_ROUND, record.engine_ts_ns);
            self.orders.push(Known { order, terms: *record, reports: Vec::new() });
        }
    }

    fn find(&mut self, run: u32, key: OrderKey) -> Option<&mut Known> {
        let same = |k: &&mut Known| (k.order.terms.run, k.order.terms.key) == (run, key);
        self.orders.iter_mut().rev().find(same)
    }

    fn take_posting(&mut self, record: &Record) {
        if Posting::read(record).is_none() {
            return;
        }
        let account = |r: &Record| (r.venue, r.asset);
        match self.postings.iter_mut().find(|known| account(known) == account(record)) {
            Some(known) => *known = *record,
            None => self.postings.push(*record),
        }
    }

    fn take_round(&mut self, record: &Record) {
        if record.part == 0 {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        let Some(report) = RoundReport::decode(&self.group) else { return };
        if report.stage == Stage::Settled {
            self.flows.retain(|flow| (flow.run, flow.round) != (report.run, report.id));
        }
    }

    fn take_report(&mut self, record: &Record, books: bool) {
        let Some((run, key, report)) = Report::read(record) else { return };
        let is_fill = matches!(report, Report::Fill { .. });
        if is_fill {
            let same = |known: &Record| {
                (known.instrument, known.update_id) == (record.instrument, record.update_id)
            };
            if self.trades.iter().any(same) {
                return;
            }
            self.trades.push(*record);
        }
        let Some(known) = self.find(run, key) else { return };
        known.order.absorb(&report);
        known.reports.push(*record);
        if books && let Report::Fill { px, qty, fee, asset, .. } = report {
            let terms = known.order.terms;
            let round = terms.key.round();
            if self.universe.get(terms.instrument).is_none() {
                return;
            }
            let rules = &self.universe.instruments[usize::from(terms.instrument)];
            let buys = terms.action == Action::Buy;
            let quote = quote_of(px, qty.0, shift_of(self.universe, terms.instrument), buys);
            let sign = if buys { 1 } else { -1 };
            let (base, quote_asset, venue) = (rules.base.0, rules.quote.0, terms.venue as u8);
            self.flow(run, round, venue, base, i128::from(qty.0) * sign);
            self.flow(run, round, venue, quote_asset, -quote * sign);
            self.flow(run, round, venue, asset, -i128::from(fee.0));
        }
    }

    fn flow(&mut self, run: u32, round: u64, venue: u8, asset: u16, amount: i128) {
        let same = |f: &&mut Flow| (f.run, f.round, f.venue, f.asset) == (run, round, venue, asset);
        match self.flows.iter_mut().find(same) {
            Some(flow) => flow.amount += amount,
            None => self.flows.push(Flow { run, round, venue, asset, amount }),
        }
    }

    fn finish(self) -> Vec<Record> {
        let mut all: Vec<Record> = self.postings.iter().map(carried).collect();
        all.extend(self.pnl.as_ref().map(carried));
        let open = || self.orders.iter().filter(|known| !known.order.is_settled());
        for known in open() {
            all.push(carried(&known.terms));
            all.extend(known.reports.iter().map(carried));
        }
        // The most recent trades of each instrument, oldest first; those of open orders are there already.
        let of_open = |record: &Record| {
            open().any(|known| {
                (known.order.terms.run, known.order.terms.key.0) == (record.run, record.data[0])
            })
        };
        let later = |at: usize, instrument: u16| {
            self.trades[at..].iter().filter(|t| t.instrument == instrument).count()
        };
        for (at, trade) in self.trades.iter().enumerate() {
            if later(at, trade.instrument) <= TRADES && !of_open(trade) {
                all.push(carried(trade));
            }
        }
        let mut sums: Vec<Flow> = Vec::new();
        for flow in &self.flows {
            match sums.iter_mut().find(|sum| (sum.venue, sum.asset) == (flow.venue, flow.asset)) {
                Some(sum) => sum.amount += flow.amount,
                None => sums.push(*flow),
            }
        }
        for sum in sums.iter().filter(|sum| sum.amount != 0) {
            let amount = crate::ledger::clamp(sum.amount).0;
            let round = Record::new(Kind::Round, sum.venue, u16::MAX, [amount, 0, 0, 0]);
            all.push(carried(&Record { asset: sum.asset, ..round }));
        }
        debug_assert!(all.iter().all(|r| r.venue == 0 || Venue::from_tag(r.venue).is_some()));
        all
    }
}
