//! What is wrong now, out of records and looks.
//!
//! Invariant: a pure function of what it was given, with the time in it; so every rule has a test without a
//! network. What stands is told at each look; what happens is told once. What a record of the past says
//! counts as state and is never news.
//!
//! Not here: how often the same is told (`book`).

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use tandem_core::account::{Session, SessionState};
use tandem_core::controls::Control;
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::order::{OrderKey, Report};
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::round::{RoundReport, Stage};
use tandem_gateway::warden::Verdict;

use super::behind::Behind;
use super::{Condition, Rule, Severity};
use crate::plan::Plan;
use crate::source::{EngineLook, GatewayLook, Life, Look};

const S: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * S;
/// Orders and rounds that are watched at once: far more than limits let be open.
const WATCHED_MAX: usize = 4_096;
/// Resynchronisations of one instrument that are remembered.
const RESYNCS_MAX: usize = 64;
/// Records of one group.
const GROUP_MAX: usize = 16;
/// The journal is nearly full at this part of it, and with so little time left.
const HEADROOM_PAGE_PART: u64 = 10;
const HEADROOM_PAGE_S: u64 = 1_800;
/// A journal that was full a moment ago is full.
const FULL_FOR_NS: i64 = 2 * S;

/// What the rules hold against (`reference/reliability.md` section 11.5).
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// An order may be unknown for so long.
    pub unknown: Duration,
    /// A round may be uneven for so long.
    pub one_leg: Duration,
    /// Exposure as a share of its limit.
    pub exposure_ppm: i64,
    /// Exposure may be above that for so long: orders in flight count with their worst end, and C8 lets them come
    /// near the limit for the fraction of a second that they live.
    pub exposure_for: Duration,
    /// What must be left of a dead-man switch.
    pub dead_man: Duration,
    /// Resynchronisations of one instrument in an hour.
    pub resyncs_per_h: usize,
    /// Use of a venue's budget, for longer than [`Thresholds::rate_for`].
    pub rate_ppm: i64,
    /// See there.
    pub rate_for: Duration,
    /// The journal must last for so long.
    pub headroom: Duration,
    /// A process may be dead for so long.
    pub down: Duration,
    /// A process may be absent for so long.
    pub absent: Duration,
    /// A session may be not ready for so long.
    pub session: Duration,
    /// The host's clock may be off by so much.
    pub clock_offset: Duration,
    /// The other side of a sink may be gone for so long.
    pub sink_down: Duration,
    /// The database may be so far behind.
    pub backlog: Duration,
    /// A record may be without a durable copy for so long.
    pub durable: Duration,
    /// Free share of the archive's disk, ppm.
    pub disk_ppm: i64,
    /// Turns of a loop above 200 us, in a minute.
    pub stalls_per_min: u64,
    /// Rounds may earn so much less than predicted, ppm of what they spend, on the mean of ...
    pub edge_shortfall_ppm: i64,
    /// ... so many.
    pub edge_rounds: usize,
    /// A certificate must last for so long.
    pub certificate: Duration,
    /// A key's file may be so old.
    pub key_age: Duration,
    /// The day's report is told so long after midnight UTC.
    pub report_after: Duration,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        let s = Duration::from_secs;
        Thresholds {
            unknown: s(10),
            one_leg: s(5),
            exposure_ppm: 900_000,
            exposure_for: s(2),
            dead_man: s(20),
            resyncs_per_h: 3,
            rate_ppm: 700_000,
            rate_for: s(10),
            headroom: s(86_400),
            down: s(2),
            absent: s(60),
            session: s(15),
            clock_offset: Duration::from_millis(250),
            sink_down: s(30),
            backlog: s(600),
            durable: s(10),
            disk_ppm: 200_000,
            stalls_per_min: 10,
            edge_shortfall_ppm: 100,
            edge_rounds: 100,
            certificate: s(14 * 86_400),
            key_age: s(90 * 86_400),
            report_after: s(600),
        }
    }
}

pub(super) fn ns(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What a control said when it raised a level.
#[derive(Clone, Copy, Debug)]
struct Raised {
    level: Level,
    cause: Option<Cause>,
    /// Number of the control and what it found.
    control: Option<(u8, i64)>,
}

/// A process as it was at the last look.
#[derive(Clone, Copy, Debug)]
struct Known {
    life: Life,
    /// Since when it is so.
    since_ns: i64,
    generation: u64,
    config: u64,
}

/// The rules and what they remember.
pub struct Rules {
    thresholds: Thresholds,
    is_live: bool,
    venues: Vec<Venue>,
    instruments: BTreeMap<u16, String>,
    events: Vec<Condition>,
    // Of records.
    unknown: BTreeMap<(u32, OrderKey), (u8, i64)>,
    rounds: BTreeMap<u64, (Stage, i64)>,
    group: Vec<Record>,
    sessions: BTreeMap<Venue, (Session, i64)>,
    clock: Option<(i64, bool)>,
    live_books: BTreeMap<u16, bool>,
    resyncs: BTreeMap<u16, (u8, VecDeque<i64>)>,
    told: BTreeMap<Option<u8>, Raised>,
    foreign: BTreeMap<u8, i64>,
    differences: BTreeMap<u8, i64>,
    // Of looks.
    word: Option<LevelWord>,
    raised: BTreeMap<u8, Raised>,
    parts: BTreeMap<String, Known>,
    engine: Option<EngineLook>,
    gateways: BTreeMap<Venue, GatewayLook>,
    feed_disconnects: BTreeMap<Venue, u64>,
    budget_max: BTreeMap<Venue, i64>,
    budget_low_ns: BTreeMap<Venue, i64>,
    /// Since when a killed venue has neither a proof nor one under way.
    unproven_ns: BTreeMap<Venue, i64>,
    full_ns: i64,
    /// Since when exposure is near its limit.
    exposed_ns: Option<i64>,
    behind: Behind,
}

impl Rules {
    /// Returns rules that have seen nothing.
    #[must_use]
    pub fn new(plan: &Plan, thresholds: Thresholds) -> Rules {
        Rules {
            thresholds,
            is_live: plan.is_live,
            venues: plan.venues.clone(),
            instruments: plan.instruments.clone(),
            events: Vec::new(),
            unknown: BTreeMap::new(),
            rounds: BTreeMap::new(),
            group: Vec::new(),
            sessions: BTreeMap::new(),
            clock: None,
            live_books: BTreeMap::new(),
            resyncs: BTreeMap::new(),
            told: BTreeMap::new(),
            foreign: BTreeMap::new(),
            differences: BTreeMap::new(),
            word: None,
            raised: BTreeMap::new(),
            parts: BTreeMap::new(),
            engine: None,
            gateways: BTreeMap::new(),
            feed_disconnects: BTreeMap::new(),
            budget_max: BTreeMap::new(),
            budget_low_ns: BTreeMap::new(),
            unproven_ns: BTreeMap::new(),
            full_ns: 0,
            exposed_ns: None,
            behind: Behind::default(),
        }
    }

    /// Takes out what happened since the last call.
    pub fn take_events(&mut self) -> Vec<Condition> {
        std::mem::take(&mut self.events)
    }

    fn happened(&mut self, rule: Rule, scope: impl Into<String>, detail: impl Into<String>) {
        self.events.push(Condition::new(rule, scope, detail));
    }

    /// Records were not seen: what is built from them is forgotten, for it may never be taken back.
    pub fn lost(&mut self, what: &str) {
        self.forget_run();
        self.group.clear();
        self.happened(Rule::JOURNAL, "", what);
    }

    fn forget_run(&mut self) {
        self.unknown.clear();
        self.rounds.clear();
        self.behind.forget_run();
    }

    fn instrument(&self, id: u16) -> String {
        self.instruments.get(&id).cloned().unwrap_or_else(|| format!("instrument {id}"))
    }

    // Records.

    /// Takes one record.
    pub fn record(&mut self, record: &Record, is_past: bool) {
        let at_ns = record.engine_ts_ns;
        match record.kind() {
            // An engine begins: it is given what is open as records of its own.
            Some(Kind::Config) if record.part == 0 => self.forget_run(),
            Some(Kind::Restore) => self.on_restore(record),
            Some(
                Kind::OrderUnknown
                | Kind::OrderAck
                | Kind::OrderDone
                | Kind::OrderReject
                | Kind::OrderFill
                | Kind::OrderTotals,
            ) => self.on_report(record),
            Some(Kind::Round | Kind::Opportunity) => self.on_group(record),
            Some(Kind::Session) => {
                if let Some(session) = Session::read(record) {
                    let known = self.sessions.get(&session.venue);
                    let since_ns = match known {
                        Some((before, since_ns)) if before.state == session.state => *since_ns,
                        _ => at_ns,
                    };
                    self.sessions.insert(session.venue, (session, since_ns));
                }
            }
            Some(Kind::ClockState) => self.clock = Some((record.data[0], record.data[2] != 0)),
            Some(Kind::BookState) => self.on_book(record),
            Some(Kind::ControlLevel) => self.on_control(record, is_past),
            Some(Kind::Reconciled) => {
                self.foreign.insert(record.venue, record.data[1]);
                self.differences.insert(record.venue, record.data[3]);
            }
            _ => {}
        }
    }

    fn on_report(&mut self, record: &Record) {
        let Some((run, key, report)) = Report::read(record) else { return };
        match report {
            Report::Unknown { .. } => self.is_unknown((run, key), record),
            // What a running total of nothing says is not proof of an end; all else is word of the order.
            Report::Totals { qty, .. } if qty.0 == 0 => {}
            _ => drop(self.unknown.remove(&(run, key))),
        }
    }

    fn is_unknown(&mut self, name: (u32, OrderKey), record: &Record) {
        if self.unknown.len() < WATCHED_MAX {
            self.unknown.entry(name).or_insert((record.venue, record.engine_ts_ns));
        }
    }

    /// An order of an earlier run is unknown until its venue tells.
    fn on_restore(&mut self, record: &Record) {
        let inner = Record { kind: record.part, ..*record };
        match inner.kind() {
            Some(Kind::OrderNew) if 0 <= record.data[0] => {
                self.is_unknown((record.run, OrderKey(record.data[0])), record);
            }
            Some(Kind::OrderDone | Kind::OrderReject) => {
                self.unknown.remove(&(record.run, OrderKey(record.data[0])));
            }
            _ => {}
        }
    }

    fn on_group(&mut self, record: &Record) {
        if record.part == 0 || self.group.first().is_some_and(|first| first.kind != record.kind) {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) && self.group.len() < GROUP_MAX {
            return;
        }
        let group = std::mem::take(&mut self.group);
        self.behind.group(&group, &self.thresholds);
        if record.kind() == Some(Kind::Round) {
            self.on_round(&group);
        }
    }

    fn on_round(&mut self, group: &[Record]) {
        let (Some(round), Some(record)) = (RoundReport::decode(group), group.last()) else {
            return;
        };
        match round.stage {
            Stage::Settled => drop(self.rounds.remove(&round.id)),
            // Legs that are out are not uneven yet.
            Stage::Entry => {}
            Stage::Hedge | Stage::Held if self.rounds.len() < WATCHED_MAX => {
                let known =
                    self.rounds.entry(round.id).or_insert((round.stage, record.engine_ts_ns));
                known.0 = round.stage;
            }
            Stage::Hedge | Stage::Held => {}
        }
    }

    fn on_book(&mut self, record: &Record) {
        let is_live = BookState::from_tag(record.data[0]) == Some(BookState::Live);
        let was_live = self.live_books.insert(record.instrument, is_live).unwrap_or(false);
        // A planned move to another connection is none.
        if !was_live || is_live || Reason::from_tag(record.data[1]) == Some(Reason::Rotation) {
            return;
        }
        let (venue, times) = self.resyncs.entry(record.instrument).or_default();
        *venue = record.venue;
        times.push_back(record.engine_ts_ns);
        if RESYNCS_MAX < times.len() {
            times.pop_front();
        }
    }

    fn on_control(&mut self, record: &Record, is_past: bool) {
        let [level, reason, cause_or_control, evidence] = record.data;
        if record.instrument != u16::MAX {
            if !is_past {
                let instrument = self.instrument(record.instrument);
                let venue = venue_name(record.venue);
                let control = reason.checked_sub(i64::from(tandem_core::engine::CONTROL_REASON));
                let why = match control.and_then(|n| Control::from_tag(u8::try_from(n).ok()?)) {
                    Some(control) => control.name(),
                    None => "an edge too good to be true",
                };
                self.happened(Rule::INSTRUMENT, venue, format!("{instrument}: {why}"));
            }
            return;
        }
        let cause = u8::try_from(reason).ok().and_then(Cause::from_tag);
        let control = u8::try_from(cause_or_control).ok().map(|tag| (tag, evidence));
        let level = u8::try_from(level).map_or(Level::Kill, Level::from_tag);
        let scope = Venue::from_tag(record.venue).map(|venue| venue as u8);
        self.told.insert(scope, Raised { level, cause, control });
    }

    // Looks.

    /// Returns what is wrong now.
    pub fn look(&mut self, look: &Look) -> Vec<Condition> {
        let mut out = Vec::new();
        self.levels(look, &mut out);
        self.processes(look, &mut out);
        self.orders(look, &mut out);
        self.venues(look, &mut out);
        self.engine(look, &mut out);
        self.journal(look, &mut out);
        self.behind.look(look, &self.thresholds, &mut out, &mut self.events);
        out
    }

    fn levels(&mut self, look: &Look, out: &mut Vec<Condition>) {
        let Some(word) = look.level else { return };
        let before = self.word.replace(word);
        let scopes = std::iter::once(Scope::Global).chain(Venue::ALL.map(Scope::Venue));
        for scope in scopes {
            let (tag, name) = match scope {
                Scope::Global => (0, String::new()),
                Scope::Venue(venue) => (venue as u8, venue.name().to_owned()),
            };
            let level = word.of(scope);
            let was = before.map(|word| word.of(scope));
            if was != Some(level) {
                self.changed(scope, tag, (was, level), word.cause());
            }
            let Some(raised) = self.raised.get(&tag).copied() else { continue };
            if level == Level::Kill {
                self.killed(look, scope, &name, raised, out);
            } else if Level::Pause <= level && !is_ordered(raised.cause) {
                let is_loss = raised.cause == Some(Cause::Loss)
                    || raised.control.is_some_and(|(n, _)| n == Control::Loss as u8);
                let rule = match raised.cause {
                    _ if is_loss => Rule::LOSS,
                    Some(Cause::Reconcile) => Rule::RECONCILE,
                    _ => Rule::LEVEL,
                };
                out.push(Condition::new(rule, name, why(level, raised)));
            }
        }
    }

    /// A scope's level is another one than at the last look.
    fn changed(
        &mut self,
        scope: Scope,
        tag: u8,
        (was, level): (Option<Level>, Level),
        cause: Option<Cause>,
    ) {
        if level == Level::Armed {
            self.raised.remove(&tag);
            self.unproven_ns.clear();
        } else if was.is_none_or(|was| was < level) {
            let venue = (tag != 0).then_some(tag);
            // The engine's own word says which control, and with what evidence.
            let told =
                self.told.get(&venue).filter(|told| told.level == level && told.cause == cause);
            let raised = told.copied().unwrap_or(Raised { level, cause, control: None });
            self.raised.insert(tag, raised);
        }
        // What was found at the start is no news, but for its being armed.
        let is_news = was.is_some() || level == Level::Armed;
        if scope == Scope::Global && is_news {
            let (was, cause) = (was.map_or("?", Level::name), cause.map_or("?", Cause::name));
            self.happened(Rule::ARMED, "", format!("{was} -> {} ({cause})", level.name()));
        }
    }

    fn killed(
        &mut self,
        look: &Look,
        scope: Scope,
        name: &str,
        raised: Raised,
        out: &mut Vec<Condition>,
    ) {
        let mut kill = Condition::new(Rule::KILL, name, why(Level::Kill, raised));
        if raised.cause == Some(Cause::Drill) {
            kill.severity = Severity::Ticket;
        }
        out.push(kill);
        if !self.is_live {
            return;
        }
        for venue in self.venues.iter().copied() {
            if scope != Scope::Global && scope != Scope::Venue(venue) {
                continue;
            }
            let detail = match look.verdicts.get(&venue) {
                Some(Verdict::Clean | Verdict::Cancelling) => {
                    self.unproven_ns.remove(&venue);
                    continue;
                }
                Some(_) => "the warden cannot prove it; cancel on the venue's own page",
                None => "there is no warden to prove it; cancel on the venue's own page",
            };
            // A warden that is being started again begins its proof at once.
            let since_ns = *self.unproven_ns.entry(venue).or_insert(look.now_ns);
            if ns(self.thresholds.down) <= passed(look.now_ns, since_ns) {
                out.push(Condition::new(Rule::UNCONFIRMED, venue.name(), detail));
            }
        }
    }

    fn processes(&mut self, look: &Look, out: &mut Vec<Condition>) {
        for part in &look.parts {
            let before = self.parts.get(&part.name).copied();
            let since_ns = match before {
                Some(before) if before.life == part.life => before.since_ns,
                _ => look.now_ns,
            };
            let (life, generation) = (part.life, part.generation);
            // A process that is gone says nothing of its configuration.
            let config =
                if part.config == 0 { before.map_or(0, |b| b.config) } else { part.config };
            self.parts.insert(part.name.clone(), Known { life, since_ns, generation, config });
            if let Some(before) = before.filter(|before| before.generation != generation) {
                if before.generation != 0 && before.life != Life::Absent {
                    let detail = format!("it is its process number {generation}");
                    self.happened(Rule::RESTART, &part.name, detail);
                }
                if part.name == "engine" && config != 0 {
                    let detail = match before.config {
                        0 => format!("configuration {config:016x}"),
                        same if same == config => format!("configuration {config:016x}, as before"),
                        other => format!("configuration {config:016x}, before {other:016x}"),
                    };
                    self.happened(Rule::CONFIG, "", detail);
                }
            }
            let lasted_ns = passed(look.now_ns, since_ns);
            let detail = match life {
                Life::Dead if ns(self.thresholds.down) <= lasted_ns => "it died or hangs",
                Life::Absent if ns(self.thresholds.absent) <= lasted_ns => "it does not run",
                _ => continue,
            };
            let detail = format!("{detail}, for {} s", lasted_ns / S);
            out.push(Condition::new(Rule::DOWN, &part.name, detail));
        }
    }

    fn orders(&mut self, look: &Look, out: &mut Vec<Condition>) {
        for venue in Venue::ALL {
            let of = self.unknown.iter().filter(|(_, (at, _))| *at == venue as u8);
            let late: Vec<_> = of
                .filter(|(_, (_, since_ns))| {
                    ns(self.thresholds.unknown) <= passed(look.now_ns, *since_ns)
                })
                .collect();
            let Some(((run, key), (_, since_ns))) = late.iter().min_by_key(|(_, (_, at))| *at)
            else {
                continue;
            };
            let detail = format!(
                "{} for up to {} s, first round {} order {} of run {run}",
                counted(late.len(), "order"),
                passed(look.now_ns, *since_ns) / S,
                key.round(),
                key.n()
            );
            out.push(Condition::new(Rule::UNKNOWN, venue.name(), detail));
        }
        let late: Vec<_> = self
            .rounds
            .iter()
            .filter(|(_, (stage, since_ns))| {
                *stage == Stage::Held
                    || ns(self.thresholds.one_leg) <= passed(look.now_ns, *since_ns)
            })
            .collect();
        if let Some((id, (stage, since_ns))) = late.iter().min_by_key(|(_, (_, at))| *at) {
            let detail = format!(
                "{} for up to {} s, first round {id} ({})",
                counted(late.len(), "round"),
                passed(look.now_ns, *since_ns) / S,
                stage.name()
            );
            out.push(Condition::new(Rule::ONE_LEG, "", detail));
        }
    }

    fn venues(&mut self, look: &Look, out: &mut Vec<Condition>) {
        let is_armed = |venue| look.level.is_some_and(|word| word.effective(venue) == Level::Armed);
        for (venue, (session, since_ns)) in &self.sessions {
            let name = venue.name();
            match session.state {
                SessionState::Refused => {
                    let detail = format!("the venue's code is {}", session.code);
                    out.push(Condition::new(Rule::AUTH, name, detail));
                }
                SessionState::Ready => {}
                state if ns(self.thresholds.session) <= passed(look.now_ns, *since_ns) => {
                    let lasted_s = passed(look.now_ns, *since_ns) / S;
                    let detail = format!("{} for {lasted_s} s", state.name());
                    out.push(Condition::new(Rule::SESSION, name, detail));
                }
                _ => {}
            }
            let left_ns = session.deadman_ns.saturating_sub(look.now_ns);
            if 0 < session.deadman_ns && left_ns < ns(self.thresholds.dead_man) {
                let detail = format!("it fires in {} s", left_ns.max(0) / S);
                out.push(Condition::new(Rule::DEAD_MAN, name, detail));
            } else if session.deadman_ns < 0 && is_armed(*venue) {
                out.push(Condition::new(Rule::DEAD_MAN, name, "armed, and it is not set"));
            }
        }
        for (tag, count) in self.differences.iter().filter(|(_, count)| **count != 0) {
            let detail = counted(usize::try_from(*count).unwrap_or(1), "difference");
            out.push(Condition::new(Rule::RECONCILE, venue_name(*tag), detail));
        }
        for (tag, count) in self.foreign.iter().filter(|(_, count)| **count != 0) {
            let detail = counted(usize::try_from(*count).unwrap_or(1), "order");
            out.push(Condition::new(Rule::FOREIGN, venue_name(*tag), detail));
        }
        if let Some((offset_ns, is_synchronised)) = self.clock {
            let off = ns(self.thresholds.clock_offset) < offset_ns.saturating_abs();
            if off || !is_synchronised {
                let sync =
                    if is_synchronised { "" } else { "; fewer than two venues vouch for it" };
                let detail = format!("{} ms against the venues{sync}", offset_ns / 1_000_000);
                out.push(Condition::new(Rule::CLOCK, "", detail));
            }
        }
        self.resynced(look.now_ns, out);
        self.rates(look, out);
    }

    fn resynced(&mut self, now_ns: i64, out: &mut Vec<Condition>) {
        let most = self.thresholds.resyncs_per_h;
        let mut by_venue: BTreeMap<u8, Vec<(u16, usize)>> = BTreeMap::new();
        for (instrument, (venue, times)) in &mut self.resyncs {
            while times.front().is_some_and(|at| HOUR_NS < passed(now_ns, *at)) {
                times.pop_front();
            }
            if most < times.len() {
                by_venue.entry(*venue).or_default().push((*instrument, times.len()));
            }
        }
        for (venue, instruments) in by_venue {
            let mut detail = counted(instruments.len(), "book");
            for (instrument, times) in instruments.iter().take(5) {
                let _ = write!(detail, ", {} {times} times", self.instrument(*instrument));
            }
            detail.push_str(" in an hour");
            out.push(Condition::new(Rule::RESYNC, venue_name(venue), detail));
        }
    }

    fn rates(&mut self, look: &Look, out: &mut Vec<Condition>) {
        for (venue, now) in &look.gateways {
            let most = self.budget_max.entry(*venue).or_default();
            *most = (*most).max(now.budget_left);
            let used_ppm = match *most {
                0 => 0,
                most => 1_000_000 - now.budget_left.max(0) * 1_000_000 / most,
            };
            if used_ppm <= self.thresholds.rate_ppm {
                self.budget_low_ns.remove(venue);
            } else {
                let since_ns = *self.budget_low_ns.entry(*venue).or_insert(look.now_ns);
                if ns(self.thresholds.rate_for) <= passed(look.now_ns, since_ns) {
                    let detail = format!("{} % of the orders it lets through", used_ppm / 10_000);
                    out.push(Condition::new(Rule::RATE, venue.name(), detail));
                }
            }
            let Some(before) = self.gateways.insert(*venue, *now) else { continue };
            if before.suspensions < now.suspensions {
                self.happened(Rule::RATE, format!("{} wait", venue.name()), "it told us to wait");
            }
            if before.auth_rejects < now.auth_rejects {
                let detail = counted((now.auth_rejects - before.auth_rejects) as usize, "order");
                self.happened(Rule::AUTH, format!("{} orders", venue.name()), detail);
            }
            if before.disconnects < now.disconnects {
                self.happened(Rule::RECONNECT, format!("gateway {}", venue.name()), "order entry");
            }
        }
        for (venue, now) in &look.feed_disconnects {
            let before = self.feed_disconnects.insert(*venue, *now);
            if before.is_some_and(|before| before < *now) {
                self.happened(Rule::RECONNECT, format!("feed {}", venue.name()), "market data");
            }
        }
    }

    fn engine(&mut self, look: &Look, out: &mut Vec<Condition>) {
        let Some(now) = look.engine else { return };
        match now.exposure_ppm.filter(|share| self.thresholds.exposure_ppm < *share) {
            None => self.exposed_ns = None,
            Some(share) => {
                let since_ns = *self.exposed_ns.get_or_insert(look.now_ns);
                if ns(self.thresholds.exposure_for) <= passed(look.now_ns, since_ns) {
                    let detail = format!("{} % of its limit", share / 10_000);
                    out.push(Condition::new(Rule::EXPOSURE, "", detail));
                }
            }
        }
        if let Some(before) = self.engine.replace(now) {
            // Smaller figures are those of another engine.
            if before.overruns < now.overruns {
                self.happened(Rule::LAP, "", "its books were taken over from the pages");
            }
            if before.outputs_lost < now.outputs_lost {
                let lost = (now.outputs_lost - before.outputs_lost) as usize;
                let detail = format!("{} found no room", counted(lost, "output"));
                self.happened(Rule::JOURNAL_FULL, "outputs", detail);
            }
            if before.journal_full < now.journal_full {
                self.full_ns = look.now_ns;
            }
        }
        if self.full_ns != 0 && passed(look.now_ns, self.full_ns) < FULL_FOR_NS {
            out.push(Condition::new(Rule::JOURNAL_FULL, "", "move segments away or stop"));
        }
    }

    fn journal(&mut self, look: &Look, out: &mut Vec<Condition>) {
        let journal = look.journal;
        let Some(per_s) = journal.per_s.filter(|per_s| 0 < *per_s) else { return };
        let left_s = journal.room / per_s;
        if self.thresholds.headroom.as_secs() <= left_s {
            return;
        }
        let part = journal.room * 100 / journal.capacity.max(1);
        let left = format!("{} min at {per_s} records a second, {part} % free", left_s / 60);
        let mut condition = Condition::new(Rule::HEADROOM, "", left);
        let is_near = journal.room < journal.capacity / HEADROOM_PAGE_PART;
        if left_s < HEADROOM_PAGE_S && is_near {
            condition.severity = Severity::Page;
        }
        out.push(condition);
    }
}

/// How long ago something was; a record may say anything.
pub(super) fn passed(now_ns: i64, at_ns: i64) -> i64 {
    now_ns.saturating_sub(at_ns)
}

/// Whether somebody wanted it, or it is how a run begins.
fn is_ordered(cause: Option<Cause>) -> bool {
    matches!(cause, Some(Cause::Start | Cause::Operator | Cause::Drill))
}

fn why(level: Level, raised: Raised) -> String {
    let cause = raised.cause.map_or("no cause is told", Cause::name);
    let mut text = format!("{}: {cause}", level.name());
    if let Some((tag, evidence)) = raised.control.filter(|(tag, _)| *tag != 0) {
        let name = Control::from_tag(tag).map_or("a control", Control::name);
        let _ = write!(text, "; {name}, evidence {evidence}");
    }
    text
}

fn venue_name(tag: u8) -> &'static str {
    Venue::from_tag(tag).map_or("unknown venue", Venue::name)
}

pub(super) fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
