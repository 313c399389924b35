//! What an engine must know of earlier runs, out of their journal.
//!
//! Invariant: a pure function of the journal. What it yields is given to the next engine before anything
//! else, as [`Kind::Restore`] records whose `part` is the kind that each one carries on: balances as the
//! ledger told them last (`Ledger`), the day's result (`Pnl`), every order that is not settled with all
//! that was said about it, the recent trades of every instrument, and what rounds that are not over have
//! left over (`Round`: `[amount, 0, 0, 0]` of venue and asset). A fill carries in `epoch` what its order did
//! (1 bought, 2 sold), and one that was taken back is followed by that word. So a dead run's orders are unknown to the
//! next one until their venue tells, its fills are never booked twice, and what it left naked is hedged as
//! one orphan round as soon as the level allows.
//!
//! Paper orders die with their run: there is no venue that could tell of them.
//!
//! A journal of several runs is read as one: what a run was given to restore is its beginning.
//!
//! Not here: what the engine does with it (`trading`), where the journal is read (`tandem`).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::instrument::Universe;
use crate::ledger::{Posting, Tag};
use crate::order::{Action, FillTerms, NewOrder, OrderKey, Report};
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
    /// It came from a run before the one that is being read.
    is_carried: bool,
}

/// A round by its run and number.
type RoundName = (u32, u64);

/// Fills whose round was over: the next orphan round is theirs.
const NEXT_ORPHAN: RoundName = (0, u64::MAX);

/// What was moved by the fill that was just taken back: the round that is told next has it.
const NEXT_TOLD: RoundName = (0, u64::MAX - 1);

/// Returns what the order of a carried fill did; nothing where that was not known.
#[must_use]
pub fn action_of(inner: &Record) -> Option<Action> {
    match inner.epoch {
        1 => Some(Action::Buy),
        2 => Some(Action::Sell),
        _ => None,
    }
}

/// What a round has moved of an asset at a venue.
#[derive(Clone, Copy, Debug)]
struct Flow {
    round: RoundName,
    venue: u8,
    asset: u16,
    amount: i128,
}

/// Gathers what the next run must know.
#[derive(Debug)]
struct Gathering<'a> {
    universe: &'a Universe,
    postings: BTreeMap<(u8, u16), Record>,
    pnl: Option<Record>,
    orders: BTreeMap<(u32, OrderKey), Known>,
    trades: Vec<Record>,
    trade_ids: BTreeSet<(u16, u64)>,
    /// The last word on fills that were taken back or corrected, by instrument and trade.
    busts: BTreeMap<(u16, u64), Record>,
    /// The last input was such a word: what is posted now belongs to it.
    is_busting: bool,
    flows: Vec<Flow>,
    orphans: BTreeSet<RoundName>,
    settled: BTreeSet<RoundName>,
    /// The round that restored leftovers belong to.
    restored: RoundName,
    is_restoring: bool,
    group: Vec<Record>,
}

/// Returns what to inject into the next engine, in order. `journal` is every record of the earlier runs,
/// inputs and outputs, in order.
#[must_use]
pub fn collect(universe: &Universe, journal: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut gathering = Gathering {
        universe,
        postings: BTreeMap::new(),
        pnl: None,
        orders: BTreeMap::new(),
        trades: Vec::new(),
        trade_ids: BTreeSet::new(),
        busts: BTreeMap::new(),
        is_busting: false,
        flows: Vec::new(),
        orphans: BTreeSet::new(),
        settled: BTreeSet::new(),
        restored: NEXT_ORPHAN,
        is_restoring: false,
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
        self.is_busting &= record.has(flag::OUTPUT);
        match record.kind() {
            Some(Kind::Restore) => {
                if !self.is_restoring {
                    // Another run begins, and all that counts of the earlier ones is given to it.
                    self.flows.clear();
                    self.orders.clear();
                    self.restored = NEXT_ORPHAN;
                    self.is_restoring = true;
                }
                self.take_restored(record);
            }
            Some(Kind::OrderNew) => self.take_order(record, false),
            Some(Kind::Ledger) => self.take_posting(record),
            Some(Kind::Pnl) => self.pnl = Some(*record),
            Some(Kind::Round) => self.take_round(record),
            _ => {
                self.is_restoring &= record.has(flag::OUTPUT);
                self.take_report(record, true);
            }
        }
    }

    /// What an earlier run was given: of its orders and rounds alone. Its balances and results were told
    /// by it again, and so were its fills' ids.
    fn take_restored(&mut self, record: &Record) {
        let inner = Record { kind: record.part, part: 0, ..*record };
        match inner.kind() {
            Some(Kind::OrderNew) => self.take_order(&inner, true),
            Some(Kind::Round) => {
                self.flow(self.restored, inner.venue, inner.asset, inner.data[0].into());
            }
            Some(Kind::Ledger | Kind::Pnl) => {}
            _ => self.take_report(&inner, false),
        }
    }

    fn take_order(&mut self, record: &Record, is_carried: bool) {
        let Some(terms) = NewOrder::read(record) else { return };
        let order = Order::new(terms, NO_ROUND, record.engine_ts_ns);
        let known = Known { order, terms: *record, reports: Vec::new(), is_carried };
        self.orders.entry((terms.run, terms.key)).or_insert(known);
    }

    fn take_posting(&mut self, record: &Record) {
        let Some(posting) = Posting::read(record) else { return };
        self.postings.insert((record.venue, record.asset), *record);
        if self.is_busting && posting.venue.is_some() {
            self.flow(NEXT_TOLD, record.venue, record.asset, posting.delta.0.into());
        }
        if self.is_busting && posting.tag == Tag::Dust && posting.run == 0 {
            // There was no place for a round: it is in the dust.
            self.flows.retain(|flow| flow.round != NEXT_TOLD);
        }
        // Dust that goes back into a round is that round's leftover.
        let round = (posting.run, posting.key.round());
        if posting.tag == Tag::Dust && posting.run != 0 && !self.settled.contains(&round) {
            let amount = -i128::from(posting.delta.0);
            self.flow(round, Venue::Binance as u8, record.asset, amount);
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
        let name = (report.run, report.id);
        for flow in self.flows.iter_mut().filter(|flow| flow.round == NEXT_TOLD) {
            flow.round = name;
        }
        if report.is_orphan && self.orphans.insert(name) {
            for flow in self.flows.iter_mut().filter(|flow| flow.round == NEXT_ORPHAN) {
                flow.round = name;
            }
            if self.is_restoring {
                self.restored = name;
            }
        }
        if report.stage == Stage::Settled {
            self.flows.retain(|flow| flow.round != name);
            self.settled.insert(name);
        }
    }

    fn take_report(&mut self, record: &Record, books: bool) {
        let Some((run, key, report)) = Report::read(record) else { return };
        if let Report::Bust { trade_id, .. } = report {
            self.is_busting = books;
            self.busts.insert((record.instrument, trade_id), *record);
            return;
        }
        let is_fill = matches!(report, Report::Fill { .. });
        if is_fill {
            let is_new = self.trade_ids.insert((record.instrument, record.update_id));
            let of_open = !books && self.orders.contains_key(&(run, key));
            if !is_new && !of_open {
                return;
            }
            if is_new {
                let action = self.orders.get(&(run, key)).map(|known| known.order.terms.action);
                let action = match (action, books) {
                    (Some(Action::Buy), _) => 1,
                    (Some(Action::Sell), _) => 2,
                    // Of an order of a run before: as that run said.
                    (None, false) => record.epoch,
                    (None, true) => 0,
                };
                self.trades.push(Record { epoch: action, ..*record });
            }
        }
        let Some(known) = self.orders.get_mut(&(run, key)) else { return };
        known.order.absorb(&report);
        known.reports.push(*record);
        let (terms, is_carried) = (known.order.terms, known.is_carried);
        if known.order.is_settled() {
            known.reports = Vec::new();
        }
        let Report::Fill { mut px, mut qty, mut fee, mut asset, .. } = report else { return };
        // What became of it was told before it came: that alone is booked.
        let early = self.busts.get(&(record.instrument, record.update_id)).and_then(Report::read);
        match early {
            Some((.., Report::Bust { instead: Some(is), .. })) => {
                FillTerms { px, qty, fee, asset } = is;
            }
            Some(_) => return,
            None => {}
        }
        let Some(rules) = self.universe.get(terms.instrument).filter(|_| books) else { return };
        let own = if is_carried { self.restored } else { (run, key.round()) };
        let round = if self.settled.contains(&own) { NEXT_ORPHAN } else { own };
        let buys = terms.action == Action::Buy;
        let quote = quote_of(px, qty.0, shift_of(self.universe, terms.instrument), buys);
        let sign = if buys { 1 } else { -1 };
        let (base, quote_asset, venue) = (rules.base.0, rules.quote.0, terms.venue as u8);
        self.flow(round, venue, base, i128::from(qty.0) * sign);
        self.flow(round, venue, quote_asset, -quote * sign);
        self.flow(round, venue, asset, -i128::from(fee.0));
    }

    fn flow(&mut self, round: RoundName, venue: u8, asset: u16, amount: i128) {
        let same = |f: &&mut Flow| (f.round, f.venue, f.asset) == (round, venue, asset);
        match self.flows.iter_mut().find(same) {
            Some(flow) => flow.amount += amount,
            None => self.flows.push(Flow { round, venue, asset, amount }),
        }
    }

    fn finish(self) -> Vec<Record> {
        let mut all: Vec<Record> = self.postings.values().map(carried).collect();
        all.extend(self.pnl.as_ref().map(carried));
        let mut sums: BTreeMap<(u8, u16), i128> = BTreeMap::new();
        for flow in &self.flows {
            *sums.entry((flow.venue, flow.asset)).or_default() += flow.amount;
        }
        for ((venue, asset), amount) in sums.into_iter().filter(|(_, amount)| *amount != 0) {
            let amount = crate::ledger::clamp(amount).0;
            let round = Record::new(Kind::Round, venue, u16::MAX, [amount, 0, 0, 0]);
            all.push(carried(&Record { asset, ..round }));
        }
        let mut of_open = BTreeSet::new();
        for known in self.orders.values().filter(|known| !known.order.is_settled()) {
            all.push(carried(&known.terms));
            for report in &known.reports {
                all.push(carried(report));
                of_open.insert((report.instrument, report.update_id));
            }
        }
        // The most recent trades of each instrument, oldest first; those of open orders are there already.
        let mut recent: Vec<&Record> = Vec::new();
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        for trade in self.trades.iter().rev() {
            let count = counts.entry(trade.instrument).or_default();
            *count += 1;
            if *count <= TRADES && !of_open.contains(&(trade.instrument, trade.update_id)) {
                recent.push(trade);
            }
        }
        all.extend(recent.iter().rev().map(|trade| carried(trade)));
        let kept = |name: &(u16, u64)| {
            let is_recent = |trade: &&Record| (trade.instrument, trade.update_id) == *name;
            !self.trade_ids.contains(name) || of_open.contains(name) || recent.iter().any(is_recent)
        };
        all.extend(self.busts.iter().filter(|(name, _)| kept(name)).map(|(_, bust)| carried(bust)));
        all
    }
}
