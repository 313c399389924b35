//! One of the two journals: what its engine saw, was allowed, sent, and was told.
//!
//! Invariant: nothing is inferred. What is kept grows with opportunities, denials, orders and changes of state, not
//! with market records; a group of records that is none is passed over and counted.
//!
//! Not here: the other journal (`compare`).

use std::collections::BTreeMap;
use std::rc::Rc;

use tandem_core::engine::{Command, LEVEL_HALT};
use tandem_core::ledger::Posting;
use tandem_core::level::{Level, LevelWord};
use tandem_core::order::{Action, Purpose};
use tandem_core::record::{BookState, Kind, Record, Venue, flag};
use tandem_core::report::{Denial, LegReport, Opportunity, Phase};
use tandem_core::round::{RoundReport, Stage};
use tandem_drain::model::views::denial_code;

use crate::records::{Origin, Records};
use crate::reports::period::Period;
use crate::table::{Collector, Table};
use crate::trades::{Order, Trades, TradesError};

/// Records of the longest group; what is longer is none.
const GROUP_MAX: usize = 16;

/// An opportunity as it was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Cycle.
    pub cycle: u32,
    /// First seen, UNIX ns.
    pub first_ns: i64,
    /// Last seen.
    pub last_ns: i64,
    /// Net gain when it was first seen, of its start asset.
    pub net: i64,
    /// Buffers charged then, ppm: slippage, basis, and the age of the data.
    pub buffers_ppm: i64,
    /// Orders that would have taken it then.
    pub legs: Vec<LegReport>,
}

/// A denial.
#[derive(Clone, Debug)]
pub struct Denied {
    /// When, UNIX ns.
    pub at_ns: i64,
    /// Code of the verdict or the control.
    pub code: String,
}

/// A round with its orders.
#[derive(Clone, Debug)]
pub struct RoundStory {
    /// What was told last.
    pub report: RoundReport,
    /// Entry orders, in the order of the legs.
    pub entries: Vec<Order>,
    /// What hedged or took back, in the order they were sent.
    pub hedges: Vec<Order>,
    /// By leg: what there was of the asset that it spends when the round was opened.
    pub funds: Vec<Option<i64>>,
}

impl RoundStory {
    /// Returns whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.report.stage == Stage::Settled
    }

    /// Returns every order.
    pub fn orders(&self) -> impl Iterator<Item = &Order> {
        self.entries.iter().chain(&self.hedges)
    }
}

/// A journal, read.
#[derive(Debug, Default)]
pub struct Side {
    /// The instruments of its last run.
    pub table: Option<Rc<Table>>,
    /// Records read.
    pub records: u64,
    /// Groups of records that were none.
    pub malformed: u64,
    /// Time of its first record.
    pub from_ns: i64,
    /// Time of its last.
    pub to_ns: i64,
    /// Rounds by the time they were opened; those that follow from no opportunity too.
    pub rounds: Vec<RoundStory>,
    /// Opportunities by the time they were first seen.
    pub seen: Vec<Seen>,
    /// Denials by cycle, each by time.
    pub denials: BTreeMap<u32, Vec<Denied>>,
    /// Asset of the rounds' worth.
    pub numeraire: Option<u16>,
    levels: Vec<(i64, LevelWord)>,
    /// By instrument: halted from, until.
    halts: BTreeMap<u16, Vec<(i64, i64)>>,
    /// When a cycle was tried: a round, or a control's denial.
    tried: Vec<(i64, u32)>,
    /// By cycle: places in `seen`.
    by_cycle: BTreeMap<u32, Vec<usize>>,
    books: BTreeMap<u16, Vec<(i64, bool)>>,
    fees: BTreeMap<u16, Vec<(i64, i64)>>,
    /// By instrument: when orders were made, and what they filled.
    taken: BTreeMap<u16, Vec<(i64, i64)>>,
}

/// What an entry of a history was at a time.
fn at<T: Copy>(history: &[(i64, T)], ns: i64) -> Option<T> {
    let after = history.partition_point(|(from, _)| *from <= ns);
    after.checked_sub(1).and_then(|idx| history.get(idx)).map(|(_, value)| *value)
}

impl Side {
    /// Reads a journal or an archive.
    pub fn read(origin: impl Into<Origin>) -> Result<Side, TradesError> {
        Side::read_within(origin, Period::ALL)
    }

    /// The same, of a period alone: of what was before it only levels, books, fees and balances count.
    pub fn read_within(origin: impl Into<Origin>, period: Period) -> Result<Side, TradesError> {
        let mut records = Records::strict(origin)?;
        let mut reader = Reader::default();
        while let Some(record) = records.next()? {
            if record.kind() == Some(Kind::Config) || period.holds(record.engine_ts_ns) {
                reader.take(&record)?;
            } else if record.engine_ts_ns < period.from_ns {
                reader.before(&record);
            }
        }
        Ok(reader.end())
    }

    /// Returns the level that rules a venue at a time; nothing before the first word.
    #[must_use]
    pub fn level(&self, venue: Venue, ns: i64) -> Option<Level> {
        at(&self.levels, ns).map(|word| word.effective(venue))
    }

    /// Returns whether an instrument's book was proven in sync at a time; nothing before the first word on it.
    #[must_use]
    pub fn is_live(&self, instrument: u16, ns: i64) -> Option<bool> {
        self.books.get(&instrument).and_then(|history| at(history, ns))
    }

    /// Returns whether a control had halted an instrument at a time.
    #[must_use]
    pub fn is_halted(&self, instrument: u16, ns: i64) -> bool {
        let halts = self.halts.get(&instrument).into_iter().flatten();
        halts.into_iter().any(|(from, until)| *from <= ns && ns < *until)
    }

    /// Returns how many other cycles were tried in a step.
    #[must_use]
    pub fn tried_others(&self, cycle: u32, ns: i64) -> usize {
        let first = self.tried.partition_point(|(at, _)| *at < ns);
        let step = self.tried.iter().skip(first).take_while(|(at, _)| *at == ns);
        step.filter(|(_, other)| *other != cycle).count()
    }

    /// Returns an opportunity of a cycle that was there between two times.
    #[must_use]
    pub fn seen_between(&self, cycle: u32, from_ns: i64, to_ns: i64) -> Option<&Seen> {
        let all = self.by_cycle.get(&cycle)?;
        let first = |idx: &usize| self.seen.get(*idx).is_some_and(|seen| seen.first_ns <= to_ns);
        // A cycle has one opportunity at a time: the last that had begun lasted longest.
        let last = all.get(all.partition_point(first).checked_sub(1)?)?;
        self.seen.get(*last).filter(|seen| from_ns <= seen.last_ns)
    }

    /// Returns the rounds that were opened between two times.
    #[must_use]
    pub fn rounds_between(&self, from_ns: i64, to_ns: i64) -> &[RoundStory] {
        let first = self.rounds.partition_point(|round| round.report.opened_ns < from_ns);
        let last = self.rounds.partition_point(|round| round.report.opened_ns <= to_ns);
        self.rounds.get(first..last).unwrap_or_default()
    }

    /// Returns the taker's fee of an instrument at a time, ppm.
    #[must_use]
    pub fn fee(&self, instrument: u16, ns: i64) -> Option<i64> {
        self.fees.get(&instrument).and_then(|history| at(history, ns))
    }

    /// Returns what own orders took of an instrument between two times.
    #[must_use]
    pub fn taken(&self, instrument: u16, from_ns: i64, to_ns: i64) -> i64 {
        let Some(all) = self.taken.get(&instrument) else { return 0 };
        let first = all.partition_point(|(made, _)| *made < from_ns);
        let of = all.iter().skip(first).take_while(|(made, _)| *made <= to_ns);
        of.fold(0, |sum, (_, qty)| sum.saturating_add(*qty))
    }

    /// Returns the denial of a cycle that is nearest to a time, no further away than `within_ns`.
    #[must_use]
    pub fn denial(&self, cycle: u32, ns: i64, within_ns: i64) -> Option<&Denied> {
        let all = self.denials.get(&cycle)?;
        let after = all.partition_point(|denied| denied.at_ns < ns);
        let near = [after.checked_sub(1), Some(after)].into_iter().flatten();
        let near = near.filter_map(|idx| all.get(idx));
        near.filter(|d| d.at_ns.abs_diff(ns) <= within_ns.unsigned_abs())
            .min_by_key(|d| d.at_ns.abs_diff(ns))
    }
}

/// Reads one record after the other.
#[derive(Debug, Default)]
pub struct Reader {
    side: Side,
    collector: Collector,
    trades: Trades,
    group: Vec<Record>,
    rounds: BTreeMap<(u32, u64), RoundReport>,
    funds: BTreeMap<(u32, u64), Vec<Option<i64>>>,
    opportunities: BTreeMap<(u32, i64), Seen>,
    balances: BTreeMap<(Venue, u16), i64>,
}

impl Reader {
    /// Begins with instruments that are known; a configuration in the records replaces them.
    #[must_use]
    pub fn of(table: Table) -> Reader {
        let mut reader = Reader::default();
        reader.set(table);
        reader
    }

    fn set(&mut self, table: Table) {
        for (idx, rules) in table.universe.instruments.iter().enumerate() {
            let history = self.side.fees.entry(idx as u16).or_default();
            history.push((self.side.to_ns, rules.taker_fee.0.into()));
        }
        self.side.table = Some(Rc::new(table));
    }

    /// Takes a record.
    pub fn take(&mut self, record: &Record) -> Result<(), TradesError> {
        self.side.records += 1;
        if record.kind() == Some(Kind::Config) {
            if let Some(table) = self.collector.take(record) {
                self.set(table?);
            }
            return Ok(());
        }
        let now = record.engine_ts_ns;
        if now != 0 {
            if self.side.from_ns == 0 {
                self.side.from_ns = now;
            }
            self.side.to_ns = self.side.to_ns.max(now);
        }
        let Some(table) = self.side.table.clone() else { return Ok(()) };
        self.trades.take(record, &table);
        match record.kind() {
            Some(Kind::Round | Kind::Denial | Kind::Opportunity) => self.grouped(record, &table),
            _ => self.state(record, &table),
        }
        Ok(())
    }

    /// Takes a record from before the time that is read: only how things stood.
    pub fn before(&mut self, record: &Record) {
        if let Some(table) = self.side.table.clone() {
            self.state(record, &table);
        }
    }

    fn state(&mut self, record: &Record, table: &Table) {
        let now = record.engine_ts_ns;
        match record.kind() {
            Some(Kind::Levels) => self.side.levels.push((now, LevelWord(record.data[0] as u64))),
            Some(Kind::BookState) => {
                let is_live = record.data[0] == BookState::Live as i64;
                let history = self.side.books.entry(record.instrument).or_default();
                if history.last().is_none_or(|(_, was)| *was != is_live) {
                    history.push((now, is_live));
                }
            }
            Some(Kind::Fee) => {
                let history = self.side.fees.entry(record.instrument).or_default();
                if history.last().is_none_or(|(_, was)| *was != record.data[0]) {
                    history.push((now, record.data[0]));
                }
            }
            Some(Kind::ControlLevel)
                if record.data[0] == LEVEL_HALT && record.instrument != u16::MAX =>
            {
                let until = match table.params.edge_max_halt_ns {
                    0 => i64::MAX,
                    halt_ns => now.saturating_add(halt_ns),
                };
                self.side.halts.entry(record.instrument).or_default().push((now, until));
            }
            Some(Kind::Command) if record.data[0] == Command::Release as i64 => {
                if let Some(halts) = self.side.halts.get_mut(&record.instrument) {
                    halts.iter_mut().for_each(|(_, until)| *until = now.min(*until));
                }
            }
            Some(Kind::Ledger) => {
                if let Some(posting) = Posting::read(record)
                    && let Some(venue) = posting.venue
                {
                    self.balances.insert((venue, posting.asset.0), posting.after.0);
                }
            }
            _ => {}
        }
    }

    fn grouped(&mut self, record: &Record, table: &Rc<Table>) {
        if record.part == 0 || GROUP_MAX <= self.group.len() {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        let group = std::mem::take(&mut self.group);
        if let Some(report) = RoundReport::decode(&group) {
            self.side.numeraire = self.side.numeraire.or(Some(record.asset));
            self.round(report, table);
        } else if let Some(denial) = Denial::decode(&group) {
            let (at_ns, code) = (denial.at_ns, denial_code(&denial));
            if denial.breach.is_some() {
                self.side.tried.push((at_ns, denial.cycle));
            }
            self.side.denials.entry(denial.cycle).or_default().push(Denied { at_ns, code });
        } else if let Some(told) = Opportunity::decode(&group) {
            if told.phase == Phase::After {
                return;
            }
            let run = table.setup.run;
            let seen = self.opportunities.entry((run, told.id)).or_insert_with(|| Seen {
                cycle: told.cycle,
                first_ns: told.first_ns,
                last_ns: told.last_ns,
                net: told.net.0,
                buffers_ppm: told.buffers_ppm,
                legs: told.legs().to_vec(),
            });
            seen.last_ns = seen.last_ns.max(told.last_ns);
        } else {
            self.side.malformed += 1;
        }
    }

    fn round(&mut self, report: RoundReport, table: &Rc<Table>) {
        let name = (report.run, report.id);
        let is_new = self.rounds.insert(name, report).is_none();
        if !is_new {
            return;
        }
        let funds = report.legs().iter().map(|leg| {
            let rules = table.universe.get(leg.instrument)?;
            let asset = match leg.action {
                Action::Buy => rules.quote,
                Action::Sell => rules.base,
            };
            self.balances.get(&(rules.venue, asset.0)).copied()
        });
        let funds = funds.collect();
        self.funds.insert(name, funds);
        self.side.tried.push((report.opened_ns, report.cycle));
    }

    /// Ends the reading.
    #[must_use]
    pub fn end(self) -> Side {
        let Reader { mut side, trades, rounds, mut funds, opportunities, .. } = self;
        let mut orders: BTreeMap<(u32, u64), Vec<Order>> = BTreeMap::new();
        for ((run, key), order) in trades.orders {
            let filled = order.kept().fold(0i64, |sum, fill| sum.saturating_add(fill.qty.0));
            let taken = side.taken.entry(order.new.instrument).or_default();
            taken.push((order.made_ns, filled));
            orders.entry((run, key.round())).or_default().push(order);
        }
        side.taken.values_mut().for_each(|all| all.sort_unstable());
        side.rounds = rounds
            .into_iter()
            .map(|(name, report)| {
                let all = orders.remove(&name).unwrap_or_default();
                let (entries, hedges) =
                    all.into_iter().partition(|order| order.new.purpose == Purpose::Entry);
                let funds = funds.remove(&name).unwrap_or_default();
                RoundStory { report, entries, hedges, funds }
            })
            .collect();
        side.rounds
            .sort_by_key(|round| (round.report.opened_ns, round.report.run, round.report.id));
        side.seen = opportunities.into_values().collect();
        side.seen.sort_by_key(|seen| (seen.first_ns, seen.cycle));
        for (idx, seen) in side.seen.iter().enumerate() {
            side.by_cycle.entry(seen.cycle).or_default().push(idx);
        }
        side.tried.sort_unstable();
        side.denials.values_mut().for_each(|all| all.sort_by_key(|denied| denied.at_ns));
        side
    }
}
