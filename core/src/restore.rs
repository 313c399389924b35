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
//! Nor need it be read whole: a [`Gatherer`] is a machine of bounded size that takes one record after the
//! other, and [`Gatherer::save`] and [`Gatherer::load`] carry it over exactly. So records that it has taken may
//! go, and what it yields is the same.
//!
//! Not here: what the engine does with it (`trading`), where the journal is read (`tandem`).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use crate::instrument::Universe;
use crate::ledger::{Posting, Tag};
use crate::order::{Action, DoneStatus, FillTerms, NewOrder, OrderKey, RejectClass, Report};
use crate::orders::{NO_ROUND, Order, TRADES};
use crate::record::{Kind, Record, Venue, flag};
use crate::round::{RoundReport, Stage};
use crate::units::Qty;
use crate::value::{quote_of, shift_of};

/// Settled orders that are remembered, the latest ones: what a venue still says of them is taken.
const SETTLED_ORDERS: usize = 4_096;
/// Ids of trades that are remembered of an instrument, the latest ones: more than the engine knows itself.
const TRADE_IDS: usize = 16 * TRADES;
/// Names of rounds, and last words on fills, that are remembered.
const NAMES: usize = 65_536;
/// Records of one round's report; it has a few.
const GROUP: usize = 64;
/// First word of a saved machine.
const SAVED: u64 = u64::from_le_bytes(*b"TANDGAT1");

/// One order of the journal, with everything said about it.
#[derive(Clone, Debug)]
struct Known {
    order: Order,
    terms: Record,
    reports: Vec<Record>,
    /// It came from a run before the one that is being read.
    is_carried: bool,
    /// It stands in the line of those that go when there are too many.
    is_leaving: bool,
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

/// Ids of an instrument's trades, and the order they came in.
#[derive(Clone, Debug, Default)]
struct TradeIds {
    known: BTreeSet<u64>,
    line: VecDeque<u64>,
}

impl TradeIds {
    /// Says whether it was not known.
    fn insert(&mut self, id: u64) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.line.push_back(id);
        if TRADE_IDS < self.line.len()
            && let Some(oldest) = self.line.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Gathers what the next run must know, record by record.
#[derive(Clone, Debug)]
pub struct Gatherer {
    postings: BTreeMap<(u8, u16), Record>,
    pnl: Option<Record>,
    orders: BTreeMap<(u32, OrderKey), Known>,
    /// Orders that were settled, the oldest first.
    leaving: VecDeque<(u32, OrderKey)>,
    /// The most recent trades of every instrument, by the order they came in.
    trades: BTreeMap<u64, Record>,
    trade_lines: BTreeMap<u16, VecDeque<u64>>,
    trade_count: u64,
    trade_ids: BTreeMap<u16, TradeIds>,
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

impl Default for Gatherer {
    fn default() -> Gatherer {
        Gatherer {
            postings: BTreeMap::new(),
            pnl: None,
            orders: BTreeMap::new(),
            leaving: VecDeque::new(),
            trades: BTreeMap::new(),
            trade_lines: BTreeMap::new(),
            trade_count: 0,
            trade_ids: BTreeMap::new(),
            busts: BTreeMap::new(),
            is_busting: false,
            flows: Vec::new(),
            orphans: BTreeSet::new(),
            settled: BTreeSet::new(),
            restored: NEXT_ORPHAN,
            is_restoring: false,
            group: Vec::new(),
        }
    }
}

/// Returns what to inject into the next engine, in order. `journal` is every record of the earlier runs,
/// inputs and outputs, in order.
#[must_use]
pub fn collect(universe: &Universe, journal: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut gatherer = Gatherer::default();
    for record in journal {
        gatherer.take(universe, &record);
    }
    gatherer.finish()
}

/// Keeps the latest names only.
fn remember(names: &mut BTreeSet<RoundName>, name: RoundName) -> bool {
    let is_new = names.insert(name);
    if NAMES < names.len() {
        names.pop_first();
    }
    is_new
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

impl Gatherer {
    /// Takes the next record of the journal; `universe` is that of the run that wrote it.
    pub fn take(&mut self, universe: &Universe, record: &Record) {
        self.is_busting &= record.has(flag::OUTPUT);
        match record.kind() {
            Some(Kind::Restore) => {
                if !self.is_restoring {
                    // Another run begins, and all that counts of the earlier ones is given to it.
                    self.flows.clear();
                    self.orders.clear();
                    self.leaving.clear();
                    self.restored = NEXT_ORPHAN;
                    self.is_restoring = true;
                }
                self.take_restored(universe, record);
            }
            Some(Kind::OrderNew) => self.take_order(record, false),
            Some(Kind::Ledger) => self.take_posting(record),
            Some(Kind::Pnl) => self.pnl = Some(*record),
            Some(Kind::Round) => self.take_round(record),
            _ => {
                self.is_restoring &= record.has(flag::OUTPUT);
                self.take_report(universe, record, true);
            }
        }
    }

    /// What an earlier run was given: of its orders and rounds alone. Its balances and results were told
    /// by it again, and so were its fills' ids.
    fn take_restored(&mut self, universe: &Universe, record: &Record) {
        let inner = Record { kind: record.part, part: 0, ..*record };
        match inner.kind() {
            Some(Kind::OrderNew) => self.take_order(&inner, true),
            Some(Kind::Round) => {
                self.flow(self.restored, inner.venue, inner.asset, inner.data[0].into());
            }
            Some(Kind::Ledger | Kind::Pnl) => {}
            _ => self.take_report(universe, &inner, false),
        }
    }

    fn take_order(&mut self, record: &Record, is_carried: bool) {
        let Some(terms) = NewOrder::read(record) else { return };
        let order = Order::new(terms, NO_ROUND, record.engine_ts_ns);
        let (terms_record, reports) = (*record, Vec::new());
        let known = Known { order, terms: terms_record, reports, is_carried, is_leaving: false };
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
        if self.group.len() < GROUP {
            self.group.push(*record);
        }
        if record.has(flag::MORE) {
            return;
        }
        let Some(report) = RoundReport::decode(&self.group) else { return };
        let name = (report.run, report.id);
        for flow in self.flows.iter_mut().filter(|flow| flow.round == NEXT_TOLD) {
            flow.round = name;
        }
        if report.is_orphan && remember(&mut self.orphans, name) {
            for flow in self.flows.iter_mut().filter(|flow| flow.round == NEXT_ORPHAN) {
                flow.round = name;
            }
            if self.is_restoring {
                self.restored = name;
            }
        }
        if report.stage == Stage::Settled {
            self.flows.retain(|flow| flow.round != name);
            remember(&mut self.settled, name);
        }
    }

    fn take_report(&mut self, universe: &Universe, record: &Record, books: bool) {
        let Some((run, key, report)) = Report::read(record) else { return };
        if let Report::Bust { trade_id, .. } = report {
            self.is_busting = books;
            self.busts.insert((record.instrument, trade_id), *record);
            if NAMES < self.busts.len() {
                self.busts.pop_first();
            }
            return;
        }
        let is_fill = matches!(report, Report::Fill { .. });
        if is_fill {
            let ids = self.trade_ids.entry(record.instrument).or_default();
            let is_new = ids.insert(record.update_id);
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
                self.keep_trade(Record { epoch: action, ..*record });
            }
        }
        let Some(known) = self.orders.get_mut(&(run, key)) else { return };
        known.order.absorb(&report);
        known.reports.push(*record);
        let (terms, is_carried) = (known.order.terms, known.is_carried);
        if known.order.is_settled() {
            known.reports = Vec::new();
            if !core::mem::replace(&mut known.is_leaving, true) {
                self.leaving.push_back((run, key));
            }
        }
        self.let_go();
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
        let Some(rules) = universe.get(terms.instrument).filter(|_| books) else { return };
        let own = if is_carried { self.restored } else { (run, key.round()) };
        let round = if self.settled.contains(&own) { NEXT_ORPHAN } else { own };
        let buys = terms.action == Action::Buy;
        let quote = quote_of(px, qty.0, shift_of(universe, terms.instrument), buys);
        let sign = if buys { 1 } else { -1 };
        let (base, quote_asset, venue) = (rules.base.0, rules.quote.0, terms.venue as u8);
        self.flow(round, venue, base, i128::from(qty.0) * sign);
        self.flow(round, venue, quote_asset, -quote * sign);
        self.flow(round, venue, asset, -i128::from(fee.0));
    }

    /// Keeps as many trades of an instrument as the engine does.
    fn keep_trade(&mut self, trade: Record) {
        let line = self.trade_lines.entry(trade.instrument).or_default();
        line.push_back(self.trade_count);
        self.trades.insert(self.trade_count, trade);
        self.trade_count += 1;
        if TRADES < line.len()
            && let Some(oldest) = line.pop_front()
        {
            self.trades.remove(&oldest);
        }
    }

    /// Forgets the oldest settled orders where there are too many.
    fn let_go(&mut self) {
        while SETTLED_ORDERS < self.leaving.len() {
            let Some(name) = self.leaving.pop_front() else { return };
            match self.orders.get_mut(&name) {
                // It is not settled any more: its venue said more.
                Some(known) if !known.order.is_settled() => known.is_leaving = false,
                _ => drop(self.orders.remove(&name)),
            }
        }
    }

    fn flow(&mut self, round: RoundName, venue: u8, asset: u16, amount: i128) {
        let same = |f: &&mut Flow| (f.round, f.venue, f.asset) == (round, venue, asset);
        match self.flows.iter_mut().find(same) {
            Some(flow) => flow.amount += amount,
            None => self.flows.push(Flow { round, venue, asset, amount }),
        }
    }

    /// Returns what to inject into an engine that starts now, in order.
    #[must_use]
    pub fn finish(&self) -> Vec<Record> {
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
        let is_apart = |trade: &&Record| !of_open.contains(&(trade.instrument, trade.update_id));
        let recent: Vec<&Record> = self.trades.values().filter(is_apart).collect();
        all.extend(recent.iter().map(|trade| carried(trade)));
        let kept = |name: &(u16, u64)| {
            let is_recent = |trade: &&Record| (trade.instrument, trade.update_id) == *name;
            let is_seen =
                self.trade_ids.get(&name.0).is_some_and(|ids| ids.known.contains(&name.1));
            !is_seen || of_open.contains(name) || recent.iter().any(is_recent)
        };
        all.extend(self.busts.iter().filter(|(name, _)| kept(name)).map(|(_, bust)| carried(bust)));
        all
    }

    /// Returns the machine as bytes, for [`Gatherer::load`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut out = Saver(Vec::new());
        out.word(SAVED);
        out.word(u64::from(self.is_busting) | u64::from(self.is_restoring) << 1);
        out.name(self.restored);
        out.records(self.postings.values());
        out.records(self.pnl.iter());
        out.records(self.busts.values());
        out.records(self.group.iter());
        out.word(self.trade_count);
        out.word(self.trades.len() as u64);
        for (at, trade) in &self.trades {
            out.word(*at);
            out.0.extend_from_slice(trade.as_bytes());
        }
        out.word(self.trade_ids.len() as u64);
        for (instrument, ids) in &self.trade_ids {
            out.word(u64::from(*instrument));
            out.word(ids.line.len() as u64);
            ids.line.iter().for_each(|id| out.word(*id));
        }
        out.word(self.flows.len() as u64);
        for flow in &self.flows {
            out.name(flow.round);
            out.word(u64::from(flow.venue) << 16 | u64::from(flow.asset));
            out.0.extend_from_slice(&flow.amount.to_le_bytes());
        }
        for names in [&self.orphans, &self.settled] {
            out.word(names.len() as u64);
            names.iter().for_each(|name| out.name(*name));
        }
        out.word(self.orders.len() as u64);
        for known in self.orders.values() {
            let order = &known.order;
            out.0.extend_from_slice(known.terms.as_bytes());
            let flags =
                [known.is_carried, known.is_leaving, order.done.is_some(), order.refused.is_some()];
            let flags = flags.iter().rev().fold(0, |all, flag| all << 1 | u64::from(*flag));
            out.word(flags);
            out.word(order.filled.0 as u64);
            out.word(order.claimed.0 as u64);
            out.word(order.done.map_or(0, |done| done.1.0) as u64);
            out.records(known.reports.iter());
        }
        out.word(self.leaving.len() as u64);
        for (run, key) in &self.leaving {
            out.name((*run, key.0 as u64));
        }
        out.0
    }

    /// Makes the machine of what was saved of it; nothing of any other bytes.
    #[must_use]
    pub fn load(bytes: &[u8]) -> Option<Gatherer> {
        let mut from = Loader(bytes);
        let mut loaded = Gatherer::default();
        if from.word()? != SAVED {
            return None;
        }
        let flags = from.word()?;
        (loaded.is_busting, loaded.is_restoring) = (flags & 1 != 0, flags & 2 != 0);
        loaded.restored = from.name()?;
        for record in from.records()? {
            loaded.postings.insert((record.venue, record.asset), record);
        }
        loaded.pnl = from.records()?.pop();
        for record in from.records()? {
            let Some((.., Report::Bust { trade_id, .. })) = Report::read(&record) else {
                return None;
            };
            loaded.busts.insert((record.instrument, trade_id), record);
        }
        loaded.group = from.records()?;
        loaded.trade_count = from.word()?;
        for _ in 0..from.count()? {
            let (at, trade) = (from.word()?, from.record()?);
            loaded.trade_lines.entry(trade.instrument).or_default().push_back(at);
            loaded.trades.insert(at, trade);
        }
        for _ in 0..from.count()? {
            let instrument = u16::try_from(from.word()?).ok()?;
            let mut ids = TradeIds::default();
            for _ in 0..from.count()? {
                ids.insert(from.word()?);
            }
            loaded.trade_ids.insert(instrument, ids);
        }
        for _ in 0..from.count()? {
            let (round, place) = (from.name()?, from.word()?);
            let amount = i128::from_le_bytes(from.bytes(16)?.try_into().ok()?);
            let (venue, asset) = ((place >> 16) as u8, place as u16);
            loaded.flows.push(Flow { round, venue, asset, amount });
        }
        for names in [&mut loaded.orphans, &mut loaded.settled] {
            for _ in 0..from.count()? {
                names.insert(from.name()?);
            }
        }
        for _ in 0..from.count()? {
            let terms = from.record()?;
            let asked = NewOrder::read(&terms)?;
            let flags = from.word()?;
            let is = |bit: u32| flags >> bit & 1 != 0;
            let mut order = Order::new(asked, NO_ROUND, terms.engine_ts_ns);
            order.filled = Qty(from.word()? as i64);
            order.claimed = Qty(from.word()? as i64);
            let done = Qty(from.word()? as i64);
            // How it ended does not matter here; that it did, and with how much, does.
            order.done = is(2).then_some((DoneStatus::Expired, done));
            order.refused = is(3).then_some((RejectClass::Other, 0));
            let (is_carried, is_leaving) = (is(0), is(1));
            let reports = from.records()?;
            let known = Known { order, terms, reports, is_carried, is_leaving };
            loaded.orders.insert((asked.run, asked.key), known);
        }
        for _ in 0..from.count()? {
            let (run, key) = from.name()?;
            loaded.leaving.push_back((run, OrderKey(key as i64)));
        }
        from.0.is_empty().then_some(loaded)
    }
}

struct Saver(Vec<u8>);

impl Saver {
    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn name(&mut self, (run, id): RoundName) {
        self.word(u64::from(run));
        self.word(id);
    }

    fn records<'a>(&mut self, records: impl ExactSizeIterator<Item = &'a Record>) {
        self.word(records.len() as u64);
        records.for_each(|record| self.0.extend_from_slice(record.as_bytes()));
    }
}

struct Loader<'a>(&'a [u8]);

impl Loader<'_> {
    fn bytes(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// A number of things that follow, of which each has at least eight bytes.
    fn count(&mut self) -> Option<u64> {
        let count = self.word()?;
        (count <= self.0.len() as u64 / 8).then_some(count)
    }

    fn name(&mut self) -> Option<RoundName> {
        Some((u32::try_from(self.word()?).ok()?, self.word()?))
    }

    fn record(&mut self) -> Option<Record> {
        Record::read_from_bytes(self.bytes(size_of::<Record>())?).ok()
    }

    fn records(&mut self) -> Option<Vec<Record>> {
        (0..self.count()?).map(|_| self.record()).collect()
    }
}
