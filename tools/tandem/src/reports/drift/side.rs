//! One of the two journals: what its engine saw, was allowed, sent, and was told.
//!
//! Invariant: nothing is inferred. What is kept grows with opportunities, denials, orders and changes of state, not
//! with market records; a group of records that is none is passed over and counted.
//!
//! Not here: the books and what own orders hid of them (`depth`), the other journal (`compare`).

use std::collections::BTreeMap;
use std::rc::Rc;

use tandem_core::account::{Balance, BalanceSource};
use tandem_core::controls::Control;
use tandem_core::engine::{Command, LEVEL_HALT};
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::ledger::Posting;
use tandem_core::level::{Level, LevelWord};
use tandem_core::limits::Trading;
use tandem_core::order::{Action, Purpose};
use tandem_core::record::{BookState, Kind, Record, Venue, flag};
use tandem_core::report::{Denial, LegReport, Opportunity, Phase};
use tandem_core::round::{RoundLeg, RoundReport, Stage};
use tandem_core::units::{PPM_PER_UNIT, div};
use tandem_drain::model::views::denial_code;

use super::depth::{Depth, Hidden};
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
    /// By leg: what own orders hid of its instrument then.
    pub hidden: Vec<Hidden>,
}

/// A denial.
#[derive(Clone, Debug)]
pub struct Denied {
    /// When, UNIX ns.
    pub at_ns: i64,
    /// Code of the verdict or the control.
    pub code: String,
    /// How many it stands for: itself and those since the record before that were not told.
    pub times: i64,
    /// A control's; the others are of what the books showed.
    pub is_control: bool,
    /// The cycle is not tried again for a time.
    pub rests: bool,
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
    /// By leg: how things stood when it was decided.
    pub stands: Vec<Stand>,
    /// Edge that it had to bring more, or less, for what it does to balances, ppm.
    pub skew_ppm: i64,
    /// Rounds that were entered before it since a venue was armed: the first are of the smallest size.
    pub since_armed: i64,
}

/// How things stood for one leg when its round was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// What could be spent of the asset that it spends: the lower of ledger and venue, less what open orders may
    /// take and what has to stay; nothing where no balance was told.
    pub funds: Option<i128>,
    /// What could be added of the asset that it brings; nothing where there is no such bound.
    pub room: Option<i128>,
    /// What more its base and its quote could be exposed; nothing where there is no such bound.
    pub exposure: [Option<i128>; 2],
    /// What own orders hid of its instrument.
    pub hidden: Hidden,
    /// Its book: the venue's number of the last change, and when that was received.
    pub book: (u64, i64),
}

/// A denial that says what became of a cycle at a time.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// It.
    pub denied: &'a Denied,
    /// How many more were counted until the next of the same was told, and when that was.
    pub more: Option<(i64, i64)>,
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
    /// How long a cycle rests that a control denied.
    retry_ns: i64,
    /// So many rounds after arming are of the smallest size.
    pub ramp_rounds: i64,
    levels: Vec<(i64, LevelWord)>,
    /// By instrument: halted from, until.
    halts: BTreeMap<u16, Vec<(i64, i64)>>,
    /// By cycle: places in `seen`.
    by_cycle: BTreeMap<u32, Vec<usize>>,
    books: BTreeMap<u16, Vec<(i64, bool)>>,
    fees: BTreeMap<u16, Vec<(i64, i64)>>,
    /// By instrument: what own orders hid of its book from a time on.
    hidden: BTreeMap<u16, Vec<(i64, Hidden)>>,
}

/// What an entry of a history was at a time.
fn at<T>(history: &[(i64, T)], ns: i64) -> Option<&T> {
    let after = history.partition_point(|(from, _)| *from <= ns);
    after.checked_sub(1).and_then(|idx| history.get(idx)).map(|(_, value)| value)
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
        self.books.get(&instrument).and_then(|history| at(history, ns)).copied()
    }

    /// Returns whether a control had halted an instrument at a time.
    #[must_use]
    pub fn is_halted(&self, instrument: u16, ns: i64) -> bool {
        let halts = self.halts.get(&instrument).into_iter().flatten();
        halts.into_iter().any(|(from, until)| *from <= ns && ns < *until)
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
        self.fees.get(&instrument).and_then(|history| at(history, ns)).copied()
    }

    /// Returns what own orders hid of an instrument at a time.
    #[must_use]
    pub fn hidden(&self, instrument: u16, ns: i64) -> Option<&Hidden> {
        self.hidden.get(&instrument).and_then(|history| at(history, ns))
    }

    /// Returns the denial of a cycle that says what became of it at a time: told no more than `window_ns` after it, or
    /// so shortly before that the cycle was at rest or repeats were counted and not told. Where the next of the same
    /// tells that there were none, it says nothing. `wanted` says which count.
    #[must_use]
    pub fn denial(
        &self,
        cycle: u32,
        ns: i64,
        window_ns: i64,
        wanted: impl Fn(&Denied) -> bool,
    ) -> Option<Standing<'_>> {
        let all = self.denials.get(&cycle)?;
        let most = self.table.as_ref().map_or(0, |table| table.params.denial_ns);
        let from = all.partition_point(|denied| denied.at_ns < ns.saturating_sub(most));
        let near = all.iter().enumerate().skip(from);
        let near = near.take_while(|(_, d)| d.at_ns <= ns.saturating_add(window_ns));
        let standing = near.filter_map(|(idx, denied)| {
            let later = all.iter().skip(idx + 1).find(|later| later.code == denied.code);
            let more = later.map(|later| (later.times.saturating_sub(1), later.at_ns));
            let rest_ns = if denied.rests { self.retry_ns } else { 0 };
            let is_at_rest = ns.saturating_sub(denied.at_ns) <= rest_ns;
            let goes_on = more.is_none_or(|(times, until_ns)| 0 < times && ns <= until_ns);
            (wanted(denied) && (is_at_rest || goes_on)).then_some(Standing { denied, more })
        });
        standing.min_by_key(|standing| standing.denied.at_ns.abs_diff(ns))
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
    stands: BTreeMap<(u32, u64), (Vec<Stand>, i64, i64)>,
    /// Rounds entered since a venue was armed, and the number of the last.
    since_armed: (i64, u64),
    depth: Option<Depth>,
    trading: Option<Trading>,
    opportunities: BTreeMap<(u32, i64), Seen>,
    balances: BTreeMap<(Venue, u16), i64>,
    /// The venues' own words.
    told: BTreeMap<(Venue, u16), i64>,
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
        self.trading = table.trading().ok().flatten();
        let (retry_ns, ramp_rounds) =
            self.trading.as_ref().map_or((0, 0), |limits| (limits.retry_ns, limits.ramp_rounds));
        (self.side.retry_ns, self.side.ramp_rounds) = (retry_ns, ramp_rounds);
        self.told.clear();
        self.since_armed = (0, 0);
        match &mut self.depth {
            Some(depth) => depth.again(&table, self.side.to_ns),
            None => self.depth = Some(Depth::new(&table)),
        }
        self.side.table = Some(Rc::new(table));
    }

    /// What own orders hide now of some instruments.
    fn hidden(&self, instruments: impl Iterator<Item = u16>) -> Vec<Hidden> {
        let Some(depth) = &self.depth else { return Vec::new() };
        instruments.map(|instrument| depth.now(instrument)).collect()
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
        // The first record of a round has its stage, and whether it follows from no opportunity.
        let [tags, id, ..] = record.data;
        let is_entry = tags & 0xff == Stage::Entry as i64 && tags >> 16 & 0xff == 0;
        if record.kind() == Some(Kind::Round) && record.part == 0 && is_entry {
            self.entered(id as u64);
        }
    }

    fn entered(&mut self, id: u64) {
        if self.since_armed.1 < id {
            self.since_armed = (self.since_armed.0.saturating_add(1), id);
        }
    }

    fn state(&mut self, record: &Record, table: &Table) {
        let now = record.engine_ts_ns;
        if let Some(depth) = &mut self.depth {
            depth.take(record, table);
        }
        match record.kind() {
            Some(Kind::Levels) => {
                let word = LevelWord(record.data[0] as u64);
                let before = self.side.levels.last().map_or(LevelWord::PAUSED, |(_, word)| *word);
                let is_armed = |word: LevelWord, venue| word.effective(venue) == Level::Armed;
                let arms = |venue| !is_armed(before, venue) && is_armed(word, venue);
                if Venue::ALL.into_iter().any(arms) {
                    self.since_armed.0 = 0;
                }
                self.side.levels.push((now, word));
            }
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
            Some(Kind::Balance) => {
                if let Some(balance) = Balance::read(record)
                    && balance.source != BalanceSource::Opening
                {
                    self.told.insert((balance.venue, balance.asset), balance.total.0);
                }
            }
            _ => {}
        }
    }

    fn grouped(&mut self, record: &Record, table: &Rc<Table>) {
        if let Some(depth) = &mut self.depth {
            depth.take(record, table);
        }
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
            let (times, breach) = (denial.times, denial.breach);
            let rests = breach.is_some_and(|breach| breach.control != Control::Outranked as u8);
            let denied = Denied { at_ns, code, times, is_control: breach.is_some(), rests };
            self.side.denials.entry(denial.cycle).or_default().push(denied);
        } else if let Some(told) = Opportunity::decode(&group) {
            if told.phase == Phase::After {
                return;
            }
            let name = (table.setup.run, told.id);
            if !self.opportunities.contains_key(&name) {
                let hidden = self.hidden(told.legs().iter().map(|leg| leg.instrument));
                let seen = Seen {
                    cycle: told.cycle,
                    first_ns: told.first_ns,
                    last_ns: told.last_ns,
                    net: told.net.0,
                    buffers_ppm: told.buffers_ppm,
                    legs: told.legs().to_vec(),
                    hidden,
                };
                self.opportunities.insert(name, seen);
            }
            let Some(seen) = self.opportunities.get_mut(&name) else { return };
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
        let stands = report.legs().iter().map(|leg| self.stand(leg, &table.universe)).collect();
        let skew_ppm = self.skew_ppm(&report, &table.universe);
        self.stands.insert(name, (stands, skew_ppm, self.since_armed.0));
        if !report.is_orphan {
            self.entered(report.id);
        }
    }

    /// How things stand for a leg whose round is told for the first time: its own orders come after that.
    fn stand(&self, leg: &RoundLeg, universe: &Universe) -> Stand {
        let (Some(depth), Some(rules)) = (&self.depth, universe.get(leg.instrument)) else {
            return Stand::default();
        };
        let (spent, brought) = match leg.action {
            Action::Buy => (rules.quote, rules.base),
            Action::Sell => (rules.base, rules.quote),
        };
        let balance = |asset: AssetId| self.balances.get(&(rules.venue, asset.0)).copied();
        let band = |asset: AssetId| {
            let limits = self.trading.as_ref()?.assets.get(usize::from(asset.0))?;
            Some(limits.bands[rules.venue.idx()])
        };
        let funds = balance(spent).map(|balance| {
            let told = self.told.get(&(rules.venue, spent.0)).copied();
            let lower = i128::from(told.map_or(balance, |told| told.min(balance)));
            let floor = band(spent).map_or(0, |band| band.floor.0.into());
            lower.saturating_sub(depth.reserved(rules.venue, spent, universe)).saturating_sub(floor)
        });
        let room = band(brought).zip(balance(brought));
        let room = room.map(|(band, balance)| i128::from(band.ceiling.0) - i128::from(balance));
        let exposure = [rules.base, rules.quote].map(|asset| {
            let trading = self.trading.as_ref().filter(|limits| limits.numeraire != asset)?;
            let most = trading.assets.get(usize::from(asset.0))?.exposure_max;
            Some(i128::from(most.0).saturating_sub(depth.exposure(asset, universe)))
        });
        let hidden = depth.now(leg.instrument);
        Stand { funds, room, exposure, hidden, book: depth.book_of(leg.instrument) }
    }

    /// What the desk asks more of a cycle that takes balances further from their targets.
    fn skew_ppm(&self, report: &RoundReport, universe: &Universe) -> i64 {
        let Some(trading) = &self.trading else { return 0 };
        const PPM: i128 = PPM_PER_UNIT as i128;
        let mut sum = 0i128;
        for leg in report.legs() {
            let Some(rules) = universe.get(leg.instrument) else { continue };
            let sign = if leg.action == Action::Buy { 1 } else { -1 };
            for (asset, sign) in [(rules.base, sign), (rules.quote, -sign)] {
                let Some(limits) = trading.assets.get(usize::from(asset.0)) else { continue };
                let band = limits.bands[rules.venue.idx()];
                let balance = self.balances.get(&(rules.venue, asset.0)).copied().unwrap_or(0);
                let away = i128::from(balance) - i128::from(band.target.0);
                let room = match away < 0 {
                    true => band.target.0 - band.floor.0,
                    false => band.ceiling.0 - band.target.0,
                };
                let share = div(away.saturating_mul(PPM), room.max(1).into());
                sum += share.clamp(-PPM, PPM) * sign * i128::from(trading.skew_ppm) / PPM;
            }
        }
        i64::try_from(sum).unwrap_or(i64::MAX)
    }

    /// Ends the reading.
    #[must_use]
    pub fn end(self) -> Side {
        let Reader { mut side, trades, rounds, mut stands, opportunities, depth, .. } = self;
        side.hidden = depth.map(Depth::into_history).unwrap_or_default();
        let mut orders: BTreeMap<(u32, u64), Vec<Order>> = BTreeMap::new();
        for ((run, key), order) in trades.orders {
            orders.entry((run, key.round())).or_default().push(order);
        }
        side.rounds = rounds
            .into_iter()
            .map(|(name, report)| {
                let all = orders.remove(&name).unwrap_or_default();
                let (entries, hedges) =
                    all.into_iter().partition(|order| order.new.purpose == Purpose::Entry);
                let (stands, skew_ppm, since_armed) = stands.remove(&name).unwrap_or_default();
                RoundStory { report, entries, hedges, stands, skew_ppm, since_armed }
            })
            .collect();
        side.rounds
            .sort_by_key(|round| (round.report.opened_ns, round.report.run, round.report.id));
        side.seen = opportunities.into_values().collect();
        side.seen.sort_by_key(|seen| (seen.first_ns, seen.cycle));
        for (idx, seen) in side.seen.iter().enumerate() {
            side.by_cycle.entry(seen.cycle).or_default().push(idx);
        }
        side.denials.values_mut().for_each(|all| all.sort_by_key(|denied| denied.at_ns));
        side
    }
}
