//! What a run looks like now, built from its journal: for the dashboard and `tandem top`.
//!
//! Invariant: everything is bounded, whatever the journal holds: the newest of each list are kept and how many
//! there were is counted. Every row has a revision that grows with each change, so a reader that knows
//! revision `n` asks for what came after it. Nothing here decides anything; what cannot be read is counted.
//!
//! Not here: how it is served (`web`), how rows get into a database (`rows`).

mod books;
mod latency;
mod limits;
mod trade;
pub mod views;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tandem_core::account::{Balance, Session};
use tandem_core::controls::Control;
use tandem_core::instrument::AssetId;
use tandem_core::ledger::{Pnl, Posting, Tag};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::round::RoundReport;

pub use latency::Latency;
pub use limits::LimitView;
pub use trade::Orders;

use crate::plan::Plan;
use crate::run::{ConfigText, RunInfo};
use crate::source::Look;
use books::Books;
use views::{
    BalanceView, BookView, Counts, DenialView, EventView, LegView, OpportunityView, PhaseView,
    PnlPoint, RoundView, StageView,
};

/// Opportunities that are kept.
const OPPORTUNITIES_MAX: usize = 2_000;
/// Denials that are kept.
const DENIALS_MAX: usize = 500;
/// Denials that one opportunity shows.
const DENIALS_OF_ONE_MAX: usize = 16;
/// Phases that one opportunity shows.
const PHASES_MAX: usize = 64;
/// Rounds that are kept.
const ROUNDS_MAX: usize = 1_000;
/// Stages that one round shows.
const STAGES_MAX: usize = 32;
/// Events that are kept.
const EVENTS_MAX: usize = 1_000;
/// Points of the equity curve; when there are more, every second one is left out.
const POINTS_MAX: usize = 4_000;
/// Levels of a book that an opportunity keeps.
const SEEN_LEVELS: usize = 10;
/// Records of one group.
const GROUP_MAX: usize = 16;
/// Recent opportunities by cycle, to find which one a denial is about.
const OPEN_MAX: usize = 10_000;

/// Why a book says what it says is told in words.
const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::None => "in the ordinary course",
        Reason::SequenceGap => "the stream skipped an update",
        Reason::SequenceRewind => "the stream went backwards",
        Reason::Checksum => "the checksum did not match",
        Reason::Crossed => "the book was crossed",
        Reason::Malformed => "a message could not be read",
        Reason::Disconnect => "the connection was lost",
        Reason::Halted => "not trading",
        Reason::Audit => "a second source disagreed",
        Reason::Lag => "messages are late",
        Reason::Silence => "nothing arrives",
        Reason::Overrun => "the engine was overrun",
        Reason::Producer => "the feed handler died or restarted",
        Reason::Bounds => "more than the book holds",
        Reason::Rotation => "a planned move to another connection",
        Reason::Disagree => "two connections disagree",
    }
}

/// One series of rows, the newest of them kept, by a key.
struct Kept<K, V> {
    max: usize,
    rows: BTreeMap<K, Arc<V>>,
    /// Keys as they came.
    order: VecDeque<K>,
}

impl<K: Ord + Copy, V> Kept<K, V> {
    fn new(max: usize) -> Kept<K, V> {
        Kept { max, rows: BTreeMap::new(), order: VecDeque::new() }
    }

    fn put(&mut self, key: K, row: V) {
        if self.rows.insert(key, Arc::new(row)).is_none() {
            self.order.push_back(key);
            if self.max < self.order.len()
                && let Some(oldest) = self.order.pop_front()
            {
                self.rows.remove(&oldest);
            }
        }
    }

    fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V>
    where
        V: Clone,
    {
        self.rows.get_mut(key).map(Arc::make_mut)
    }

    /// The newest first.
    fn newest(&self) -> impl Iterator<Item = &Arc<V>> {
        self.order.iter().rev().filter_map(|key| self.rows.get(key))
    }
}

/// A run as it looks now.
pub struct Model {
    plan: Plan,
    config: ConfigText,
    run: Option<Arc<RunInfo>>,
    rev: u64,
    now_ns: i64,
    group: Vec<Record>,
    books: Books,
    opportunities: Kept<(u32, i64), OpportunityView>,
    /// The last opportunity of each cycle.
    of_cycle: BTreeMap<u32, i64>,
    denials: VecDeque<Arc<DenialView>>,
    rounds: Kept<(u32, u64), RoundView>,
    orders: Orders,
    balances: BTreeMap<(u8, u16), BalanceView>,
    sessions: BTreeMap<Venue, Session>,
    events: VecDeque<Arc<EventView>>,
    pnl: Option<(Pnl, AssetId)>,
    points: Vec<PnlPoint>,
    points_every_ns: i64,
    levels: Option<LevelWord>,
    counts: Counts,
    latency: Latency,
    look: Look,
}

impl Model {
    /// Returns the model of a run of which nothing is known yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Model {
        Model {
            plan: plan.clone(),
            config: ConfigText::default(),
            run: None,
            rev: 0,
            now_ns: 0,
            group: Vec::with_capacity(GROUP_MAX),
            books: Books::default(),
            opportunities: Kept::new(OPPORTUNITIES_MAX),
            of_cycle: BTreeMap::new(),
            denials: VecDeque::new(),
            rounds: Kept::new(ROUNDS_MAX),
            orders: Orders::default(),
            balances: BTreeMap::new(),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            pnl: None,
            points: Vec::new(),
            points_every_ns: 1_000_000_000,
            levels: None,
            counts: Counts::default(),
            latency: Latency::new(plan),
            look: Look::default(),
        }
    }

    /// Takes one record of the journal, in order.
    pub fn record(&mut self, record: &Record) {
        self.counts.records += 1;
        if record.engine_ts_ns != 0 {
            self.now_ns = record.engine_ts_ns;
        }
        let Some(kind) = record.kind() else {
            self.counts.unreadable += 1;
            return;
        };
        if kind == Kind::Config {
            self.on_config(record);
            return;
        }
        let Some(run) = self.run.clone() else {
            self.counts.unreadable += 1;
            return;
        };
        match kind {
            Kind::Level | Kind::Clear | Kind::Bbo => self.books.take(record),
            Kind::BookState => self.on_book_state(&run, record),
            Kind::Opportunity | Kind::Denial | Kind::Round => self.on_group(&run, record),
            Kind::Balance => self.on_balance(&run, record),
            Kind::Ledger => self.on_posting(&run, record),
            Kind::Pnl => self.on_pnl(record),
            Kind::Session => self.on_session(record),
            Kind::Levels => self.on_levels(record),
            Kind::ControlLevel => self.on_control_level(&run, record),
            Kind::Status => self.on_status(record),
            Kind::Gap => {
                self.counts.gaps += 1;
                let [_, from, to, count] = record.data;
                let text = format!("{count} records of a ring were lost, {from} to {to}");
                self.event("ticket", "gap", record, text);
            }
            Kind::Reconciled => {
                let [ours, foreign, fills, differences] = record.data;
                let text = format!(
                    "reconciled: {ours} open orders of ours, {foreign} foreign, {fills} fills added, \
                     {differences} differences"
                );
                self.event("info", "reconciled", record, text);
            }
            Kind::Command => {
                let text = format!("operator's command {} ({})", record.data[0], record.data[1]);
                self.event("info", "command", record, text);
            }
            _ => {
                if self.orders.take(&run, record, self.rev + 1) {
                    self.rev += 1;
                }
            }
        }
    }

    /// Records were not seen: what is shown may be wrong until it is told anew.
    pub fn lost(&mut self, what: &str) {
        self.books = self.run.as_ref().map_or_else(Books::default, |run| Books::new(run));
        let record = Record { engine_ts_ns: self.now_ns, ..Record::default() };
        self.event("ticket", "journal", &record, what.to_owned());
    }

    /// Takes how everything stands.
    pub fn look(&mut self, look: &Look) {
        self.now_ns = self.now_ns.max(look.now_ns);
        self.look = look.clone();
        self.latency.look(look.now_ns);
    }

    fn on_config(&mut self, record: &Record) {
        let Some(text) = self.config.take(record) else { return };
        match text.and_then(|text| (self.plan.read_run)(&text)) {
            Ok(run) => {
                self.books = Books::new(&run);
                self.of_cycle.clear();
                let text = format!("run {} of the engine began, mode {}", run.run, run.mode);
                self.event("info", "run", record, text);
                self.run = Some(Arc::new(run));
            }
            Err(error) => {
                self.counts.unreadable += 1;
                self.event(
                    "ticket",
                    "run",
                    record,
                    format!("a configuration is unreadable: {error}"),
                );
            }
        }
    }

    fn event(&mut self, severity: &'static str, kind: &'static str, record: &Record, text: String) {
        self.rev += 1;
        let venue = Venue::from_tag(record.venue).map(Venue::name);
        // What carries no time of its own happened after what was last seen.
        let at_ns = if record.engine_ts_ns == 0 { self.now_ns } else { record.engine_ts_ns };
        let event = EventView { rev: self.rev, at_us: at_ns / 1_000, severity, kind, venue, text };
        self.events.push_back(Arc::new(event));
        if EVENTS_MAX < self.events.len() {
            self.events.pop_front();
        }
    }

    fn on_book_state(&mut self, run: &RunInfo, record: &Record) {
        let (Some(state), before) =
            (BookState::from_tag(record.data[0]), self.books.state(record.instrument))
        else {
            self.counts.unreadable += 1;
            return;
        };
        self.books.take(record);
        // A book that is live or comes to live in the ordinary course is no news.
        if before == Some(BookState::Live) && state != BookState::Live {
            let why = Reason::from_tag(record.data[1]).map_or("for an unknown reason", reason_name);
            let text = format!("{} is {}: {why}", run.symbol(record.instrument), state.name());
            self.event("info", "book", record, text);
        }
    }

    fn on_group(&mut self, run: &Arc<RunInfo>, record: &Record) {
        if record.part == 0 {
            self.group.clear();
        }
        if self.group.len() < GROUP_MAX {
            self.group.push(*record);
        }
        if record.has(flag::MORE) {
            return;
        }
        let group = std::mem::take(&mut self.group);
        if let Some(told) = Opportunity::decode(&group) {
            self.on_opportunity(run, &told, record.seq);
        } else if let Some(told) = Denial::decode(&group) {
            self.on_denial(run, &told);
        } else if let Some(told) = RoundReport::decode(&group) {
            self.on_round(run, &told);
        } else {
            self.counts.unreadable += 1;
        }
        self.group = group;
        self.group.clear();
    }

    fn on_opportunity(&mut self, run: &RunInfo, told: &Opportunity, seq: u64) {
        self.rev += 1;
        let (rev, key) = (self.rev, (run.run, told.id));
        let phase = PhaseView {
            phase: views::phase_name(told.phase),
            at_us: told.at_ns / 1_000,
            net: run.amount(told.start, told.net.0),
            net_ppm: views::ppm(told.net.0, told.spent.0),
        };
        if told.phase == Phase::Open {
            self.counts.opportunities[told.kind as usize - 1] += 1;
            let legs: Vec<LegView> = told.legs().iter().map(|leg| views::leg(run, leg)).collect();
            let seen = told
                .legs()
                .iter()
                .filter_map(|leg| self.books.view(run, leg.instrument, SEEN_LEVELS, told.at_ns));
            let view = OpportunityView {
                rev,
                run: run.run,
                id: told.id,
                seq,
                kind: told.kind.name(),
                cycle: told.cycle,
                route: views::route(&legs),
                asset: run.asset(told.start).to_owned(),
                verdict: "open".to_owned(),
                round: None,
                best_of_step: told.best,
                net: run.amount(told.start, told.net.0),
                spent: run.amount(told.start, told.spent.0),
                brought: run.amount(told.start, told.brought.0),
                net_ppm: views::ppm(told.net.0, told.spent.0),
                gross_ppb: told.gross_ppb,
                buffers_ppm: told.buffers_ppm,
                age_ns: told.age_ns,
                first_us: told.first_ns / 1_000,
                last_us: told.last_ns / 1_000,
                best_us: told.best_ns / 1_000,
                life_us: None,
                times: told.times,
                after_net: None,
                legs,
                seen: seen.collect(),
                phases: vec![phase],
                denials: Vec::new(),
            };
            self.opportunities.put(key, view);
            if self.of_cycle.len() < OPEN_MAX {
                self.of_cycle.insert(told.cycle, told.id);
            }
            return;
        }
        // One that began before what is kept here.
        let Some(view) = self.opportunities.get_mut(&key) else { return };
        view.rev = rev;
        if view.phases.len() < PHASES_MAX || told.phase != Phase::Update {
            view.phases.push(phase);
        }
        match told.phase {
            Phase::After => view.after_net = Some(run.amount(told.start, told.net.0)),
            _ => {
                view.net = run.amount(told.start, told.net.0);
                view.spent = run.amount(told.start, told.spent.0);
                view.brought = run.amount(told.start, told.brought.0);
                view.net_ppm = views::ppm(told.net.0, told.spent.0);
                view.gross_ppb = told.gross_ppb;
                view.last_us = told.last_ns / 1_000;
                view.best_us = told.best_ns / 1_000;
                view.times = told.times;
            }
        }
        if told.phase == Phase::Close {
            view.life_us = Some((told.last_ns - told.first_ns).max(0) / 1_000);
            if view.verdict == "open" {
                "gone".clone_into(&mut view.verdict);
            }
            if self.of_cycle.get(&told.cycle) == Some(&told.id) {
                self.of_cycle.remove(&told.cycle);
            }
        }
    }

    fn on_denial(&mut self, run: &RunInfo, told: &Denial) {
        self.rev += 1;
        let code = views::denial_code(told);
        let times = u64::try_from(told.times).unwrap_or(0);
        self.counts.denials += times;
        *self.counts.denied.entry(code.clone()).or_default() += times;
        let mut view = DenialView {
            rev: self.rev,
            at_us: told.at_ns / 1_000,
            code,
            control: told
                .breach
                .and_then(|breach| Control::from_tag(breach.control))
                .map(Control::name),
            observed: told.breach.map(|breach| breach.observed),
            limit: told.breach.map(|breach| breach.limit),
            kind: told.kind.name(),
            cycle: told.cycle,
            route: views::cycle_route(run, told.cycle),
            opportunity: None,
            times,
            asset: run.asset(told.start).to_owned(),
            net: run.amount(told.start, told.net.0),
            spent: run.amount(told.start, told.spent.0),
            gross_ppb: told.gross_ppb,
            age_ns: told.age_ns,
        };
        if let Some(id) = self.of_cycle.get(&told.cycle).copied()
            && let Some(open) = self.opportunities.get_mut(&(run.run, id))
        {
            view.opportunity = Some(id);
            open.rev = self.rev;
            if open.round.is_none() {
                open.verdict = format!("denied: {}", view.code);
            }
            if open.denials.len() < DENIALS_OF_ONE_MAX {
                open.denials.push(view.clone());
            }
        }
        self.denials.push_back(Arc::new(view));
        if DENIALS_MAX < self.denials.len() {
            self.denials.pop_front();
        }
    }

    fn on_round(&mut self, run: &RunInfo, told: &RoundReport) {
        self.rev += 1;
        let (rev, key) = (self.rev, (told.run, told.id));
        let stage = StageView {
            stage: told.stage.name(),
            after_us: told.duration_ns / 1_000,
            realised: run.amount(told.start, told.realised.0),
            hedges: told.hedges,
        };
        let mut stages = self.rounds.get(&key).map_or_else(Vec::new, |known| known.stages.clone());
        if stages.is_empty() {
            self.counts.rounds += 1;
        }
        if stages.len() < STAGES_MAX {
            stages.push(stage);
        }
        if told.stage == tandem_core::round::Stage::Settled {
            self.counts.settled += 1;
        }
        let numeraire = run.numeraire.unwrap_or(told.start);
        let view = RoundView {
            rev,
            run: told.run,
            id: told.id,
            stage: told.stage.name(),
            is_orphan: told.is_orphan,
            opportunity: (told.cause != 0).then_some(told.cause),
            route: views::cycle_route(run, told.cycle),
            asset: run.asset(told.start).to_owned(),
            numeraire: run.asset(numeraire).to_owned(),
            expected: run.amount(told.start, told.expected.0),
            realised: run.amount(told.start, told.realised.0),
            worth: run.amount(numeraire, told.worth.0),
            hedges: told.hedges,
            opened_us: told.opened_ns / 1_000,
            duration_us: told.duration_ns / 1_000,
            legs: told.legs().iter().map(|leg| views::round_leg(run, leg)).collect(),
            stages,
        };
        self.rounds.put(key, view);
        let cause = (told.run, i64::try_from(told.cause).unwrap_or(0));
        if told.cause != 0
            && let Some(view) = self.opportunities.get_mut(&cause)
        {
            view.rev = rev;
            view.round = Some(told.id);
            "taken".clone_into(&mut view.verdict);
        }
    }

    fn balance(&mut self, run: &RunInfo, venue: Venue, asset: AssetId) -> &mut BalanceView {
        self.rev += 1;
        let rev = self.rev;
        let view = self.balances.entry((venue as u8, asset.0)).or_insert_with(|| BalanceView {
            rev,
            venue: venue.name(),
            asset: run.asset(asset).to_owned(),
            ledger: None,
            told: None,
            held: None,
            told_us: 0,
            flows: BTreeMap::new(),
        });
        view.rev = rev;
        view
    }

    fn on_balance(&mut self, run: &RunInfo, record: &Record) {
        let Some(told) = Balance::read(record) else {
            self.counts.unreadable += 1;
            return;
        };
        let asset = AssetId(told.asset);
        let view = self.balance(run, told.venue, asset);
        view.told = Some(run.amount(asset, told.total.0));
        view.held = Some(run.amount(asset, told.held.0));
        view.told_us = record.engine_ts_ns / 1_000;
    }

    fn on_posting(&mut self, run: &RunInfo, record: &Record) {
        let Some(posting) = Posting::read(record) else {
            self.counts.unreadable += 1;
            return;
        };
        self.counts.postings += 1;
        // Dust is of no venue.
        let Some(venue) = posting.venue else { return };
        let exponent = run.asset_exponent(posting.asset);
        let view = self.balance(run, venue, posting.asset);
        view.ledger = Some(run.amount(posting.asset, posting.after.0));
        if posting.tag != Tag::Opening {
            let flow = view.flows.entry(posting.tag.name()).or_insert(views::Flow::new(exponent));
            flow.add(posting.delta.0);
        }
    }

    fn on_pnl(&mut self, record: &Record) {
        let (Some(pnl), asset) = (Pnl::read(record), AssetId(record.asset)) else { return };
        self.rev += 1;
        self.pnl = Some((pnl, asset));
        let Some(run) = &self.run else { return };
        let point = PnlPoint {
            at_us: record.engine_ts_ns / 1_000,
            realised: views::number(run, asset, pnl.realised),
            marked: views::number(run, asset, pnl.marked),
        };
        // The last point moves until its time is over.
        let since = self.points.len().checked_sub(2).map(|idx| self.points[idx].at_us);
        match self.points.last_mut() {
            Some(last)
                if since.is_some_and(|at| point.at_us - at < self.points_every_ns / 1_000) =>
            {
                *last = point;
            }
            _ => self.points.push(point),
        }
        if POINTS_MAX < self.points.len() {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.points_every_ns *= 2;
        }
    }

    fn on_session(&mut self, record: &Record) {
        let Some(session) = Session::read(record) else {
            self.counts.unreadable += 1;
            return;
        };
        let before = self.sessions.insert(session.venue, session);
        if before.is_none_or(|before| before.state != session.state) {
            let text = format!("trading session {}", session.state.name());
            self.event("info", "session", record, text);
        }
    }

    fn on_levels(&mut self, record: &Record) {
        let word = LevelWord(record.data[0] as u64);
        let before = self.levels.replace(word);
        if before != Some(word) {
            let level = |scope| word.of(scope).name();
            let venues: Vec<String> = Venue::ALL
                .into_iter()
                .filter(|venue| word.of(Scope::Venue(*venue)) != Level::Armed)
                .map(|venue| format!("{} {}", venue.name(), level(Scope::Venue(venue))))
                .collect();
            let why = word.cause().map_or("unknown", Cause::name);
            let text = match venues.is_empty() {
                true => format!("level {} ({why})", level(Scope::Global)),
                false => format!("level {} ({why}); {}", level(Scope::Global), venues.join(", ")),
            };
            let severity = if word.of(Scope::Global) == Level::Kill { "page" } else { "info" };
            self.event(severity, "level", record, text);
        }
    }

    fn on_control_level(&mut self, run: &RunInfo, record: &Record) {
        let [level, control, ..] = record.data;
        let what = match record.instrument {
            u16::MAX => "everything".to_owned(),
            instrument => run.symbol(instrument).to_owned(),
        };
        let control = u8::try_from(control).ok().and_then(Control::from_tag);
        let why = control.map_or("a control", Control::name);
        let level = Level::from_tag(u8::try_from(level).unwrap_or(u8::MAX)).name();
        self.event("ticket", "control", record, format!("{why}: {what} is at {level}"));
    }

    fn on_status(&mut self, record: &Record) {
        let text = format!("the venue's status is {}", views::status_name(record.data[0]));
        self.event("info", "status", record, text);
    }

    /// Returns the revision of the newest change.
    #[must_use]
    pub fn rev(&self) -> u64 {
        self.rev
    }

    /// Returns the run, once its configuration was read.
    #[must_use]
    pub fn run(&self) -> Option<&Arc<RunInfo>> {
        self.run.as_ref()
    }

    /// Returns the plan that it was made for.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns how everything stood at the last look.
    #[must_use]
    pub fn last_look(&self) -> &Look {
        &self.look
    }

    /// Returns the opportunities that changed after a revision, the newest first.
    pub fn opportunities(&self, after: u64) -> impl Iterator<Item = &Arc<OpportunityView>> {
        self.opportunities.newest().filter(move |row| after < row.rev)
    }

    /// Returns one opportunity.
    #[must_use]
    pub fn opportunity(&self, run: u32, id: i64) -> Option<Arc<OpportunityView>> {
        self.opportunities.get(&(run, id)).cloned()
    }

    /// Returns the denials after a revision, the newest first.
    pub fn denials(&self, after: u64) -> impl Iterator<Item = &Arc<DenialView>> {
        self.denials.iter().rev().take_while(move |row| after < row.rev)
    }

    /// Returns the rounds that changed after a revision, the newest first.
    pub fn rounds(&self, after: u64) -> impl Iterator<Item = &Arc<RoundView>> {
        self.rounds.newest().filter(move |row| after < row.rev)
    }

    /// Returns one round.
    #[must_use]
    pub fn round(&self, run: u32, id: u64) -> Option<Arc<RoundView>> {
        self.rounds.get(&(run, id)).cloned()
    }

    /// Returns the orders.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Returns the events after a revision, the newest first.
    pub fn events(&self, after: u64) -> impl Iterator<Item = &Arc<EventView>> {
        self.events.iter().rev().take_while(move |row| after < row.rev)
    }

    /// Returns every balance.
    pub fn balances(&self) -> impl Iterator<Item = &BalanceView> {
        self.balances.values()
    }

    /// Returns every book with its best `levels` levels.
    #[must_use]
    pub fn books(&self, levels: usize) -> Vec<BookView> {
        let Some(run) = &self.run else { return Vec::new() };
        let all = 0..u16::try_from(run.instruments.len()).unwrap_or(u16::MAX);
        all.filter_map(|id| self.books.view(run, id, levels, self.look.now_ns)).collect()
    }

    /// Returns the equity curve.
    #[must_use]
    pub fn points(&self) -> &[PnlPoint] {
        &self.points
    }

    /// Returns profit and loss as last told, and the asset it is counted in.
    #[must_use]
    pub fn pnl(&self) -> Option<(Pnl, AssetId)> {
        self.pnl
    }

    /// Returns the trading sessions as last told.
    #[must_use]
    pub fn sessions(&self) -> &BTreeMap<Venue, Session> {
        &self.sessions
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the latency of every stage over time.
    #[must_use]
    pub fn latency(&self) -> &Latency {
        &self.latency
    }
}
