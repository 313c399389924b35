//! What the journal says, counted: fills, denials, rounds, orders in doubt, edges, results.
//!
//! Invariant: a counter counts what happened while this process ran, as Prometheus has it; a record of the
//! past is state (what is unknown, uneven, valid) and raises no counter, so a start of the drain is no burst
//! of events. Memory is bounded: what is followed by name has a most, and beyond it nothing new is followed.
//!
//! Not here: what processes say of themselves (`pages`).

use std::collections::{BTreeMap, VecDeque};

use tandem_core::account::{Session, SessionState};
use tandem_core::controls::Control;
use tandem_core::detector::Verdict;
use tandem_core::graph::CycleKind;
use tandem_core::ledger::Pnl;
use tandem_core::order::{OrderKey, Report};
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::report::{Denial, GROUP_MAX, Opportunity, Phase};
use tandem_core::round::{RoundReport, Stage};

use super::PAIRS_MAX;
use super::family::Family;
use crate::plan::Plan;
use crate::run::{ConfigText, ReadRun, RunInfo};

/// Orders and rounds that are followed at once: far more than limits let be open.
const FOLLOWED_MAX: usize = 4_096;
/// Opportunities whose size is remembered until their round settles.
const SIZES_MAX: usize = 4_096;
/// Rounds that the edges are the mean of.
pub const EDGE_ROUNDS: usize = 100;

/// An instrument's book.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    venue: u8,
    is_live: bool,
    heard_ns: i64,
    resyncs: u64,
}

/// What has been seen.
pub struct Tally {
    is_live_run: bool,
    venues: Vec<Venue>,
    names: BTreeMap<u16, String>,
    config: ConfigText,
    run: Option<RunInfo>,
    books: BTreeMap<u16, Book>,
    lag_ns: [Option<i64>; 3],
    orders: [u64; 3],
    fills: [u64; 3],
    busts: [u64; 3],
    unknowns: [u64; 3],
    rejects: BTreeMap<(u8, &'static str), u64>,
    unknown: BTreeMap<(u32, OrderKey), (u8, i64)>,
    denied: BTreeMap<u8, u64>,
    passed: [u64; Verdict::ALL.len()],
    opportunities: [u64; CycleKind::ALL.len()],
    rounds: BTreeMap<&'static str, u64>,
    uneven: BTreeMap<u64, (Stage, i64)>,
    one_legs: u64,
    sizes: BTreeMap<i64, i64>,
    edges: VecDeque<(f64, f64)>,
    sessions: BTreeMap<Venue, Session>,
    clock: Option<(i64, bool)>,
    reconciled: BTreeMap<Venue, [i64; 4]>,
    pnl: Option<(Pnl, u16)>,
    group: Vec<Record>,
}

impl Tally {
    /// Returns one that has seen nothing.
    #[must_use]
    pub fn new(plan: &Plan) -> Tally {
        Tally {
            is_live_run: plan.is_live,
            venues: plan.venues.clone(),
            names: plan.instruments.clone(),
            config: ConfigText::default(),
            run: None,
            books: BTreeMap::new(),
            lag_ns: [None; 3],
            orders: [0; 3],
            fills: [0; 3],
            busts: [0; 3],
            unknowns: [0; 3],
            rejects: BTreeMap::new(),
            unknown: BTreeMap::new(),
            denied: BTreeMap::new(),
            passed: [0; Verdict::ALL.len()],
            opportunities: [0; CycleKind::ALL.len()],
            rounds: BTreeMap::new(),
            uneven: BTreeMap::new(),
            one_legs: 0,
            sizes: BTreeMap::new(),
            edges: VecDeque::new(),
            sessions: BTreeMap::new(),
            clock: None,
            reconciled: BTreeMap::new(),
            pnl: None,
            group: Vec::new(),
        }
    }

    /// Records were not seen: what was followed one by one may have ended unseen.
    pub fn lost(&mut self) {
        self.forget_run();
        self.group.clear();
        self.config = ConfigText::default();
    }

    fn forget_run(&mut self) {
        self.unknown.clear();
        self.uneven.clear();
        self.sizes.clear();
    }

    /// Takes one record.
    pub fn record(&mut self, record: &Record, is_past: bool, read_run: ReadRun) {
        let Some(kind) = record.kind() else { return };
        let is_news = !is_past;
        match kind {
            Kind::Level | Kind::Bbo | Kind::Clear | Kind::Trade => self.on_market(record),
            Kind::BookState => self.on_book(record, is_news),
            Kind::Config => self.on_config(record, read_run),
            Kind::OrderNew if is_news => count(&mut self.orders, record.venue),
            Kind::OrderFill
            | Kind::OrderBust
            | Kind::OrderAck
            | Kind::OrderDone
            | Kind::OrderReject
            | Kind::OrderUnknown
            | Kind::OrderTotals => self.on_report(record, is_news),
            Kind::Restore => self.on_restore(record),
            Kind::Denial | Kind::Opportunity | Kind::Round => self.on_group(kind, record, is_news),
            Kind::Session => {
                if let Some(session) = Session::read(record) {
                    self.sessions.insert(session.venue, session);
                }
            }
            Kind::ClockState => self.clock = Some((record.data[0], record.data[2] != 0)),
            Kind::Reconciled => {
                if let Some(venue) = Venue::from_tag(record.venue) {
                    self.reconciled.insert(venue, record.data);
                }
            }
            Kind::Pnl => self.pnl = Pnl::read(record).map(|pnl| (pnl, record.asset)),
            _ => {}
        }
    }

    fn on_market(&mut self, record: &Record) {
        if record.recv_ts_ns == 0 {
            return;
        }
        if let Some(book) = self.books.get_mut(&record.instrument) {
            book.heard_ns = record.recv_ts_ns;
        }
        if let Some(venue) = Venue::from_tag(record.venue)
            && record.venue_ts_ns != 0
            && !record.has(flag::SNAPSHOT)
        {
            self.lag_ns[venue.idx()] = Some(record.recv_ts_ns.saturating_sub(record.venue_ts_ns));
        }
    }

    fn on_book(&mut self, record: &Record, is_news: bool) {
        let is_live = BookState::from_tag(record.data[0]) == Some(BookState::Live);
        if PAIRS_MAX <= self.books.len() && !self.books.contains_key(&record.instrument) {
            return;
        }
        let book = self.books.entry(record.instrument).or_default();
        let is_planned = Reason::from_tag(record.data[1]) == Some(Reason::Rotation);
        if is_news && book.is_live && !is_live && !is_planned {
            book.resyncs += 1;
        }
        (book.venue, book.is_live) = (record.venue, is_live);
        if record.recv_ts_ns != 0 {
            book.heard_ns = record.recv_ts_ns;
        }
    }

    fn on_config(&mut self, record: &Record, read_run: ReadRun) {
        if record.part == 0 {
            // An engine begins: it is given what is open as records of its own.
            self.forget_run();
        }
        let Some(text) = self.config.take(record) else { return };
        match text.and_then(|text| read_run(&text)) {
            Ok(run) => {
                // Numbers of instruments are those of the run.
                self.books.clear();
                self.run = Some(run);
            }
            Err(error) => tracing::warn!(%error, "a run's configuration cannot be read"),
        }
    }

    fn on_report(&mut self, record: &Record, is_news: bool) {
        let Some((run, key, report)) = Report::read(record) else { return };
        match &report {
            Report::Unknown { .. } => {
                self.is_unknown((run, key), record);
                if is_news {
                    count(&mut self.unknowns, record.venue);
                }
                return;
            }
            // What a running total of nothing says is not proof of an end.
            Report::Totals { qty, .. } if qty.0 == 0 => return,
            Report::Reject { class, .. } if is_news => {
                *self.rejects.entry((record.venue, class.name())).or_insert(0) += 1;
            }
            _ => {}
        }
        match record.kind() {
            Some(Kind::OrderFill) if is_news => count(&mut self.fills, record.venue),
            Some(Kind::OrderBust) if is_news => count(&mut self.busts, record.venue),
            _ => {}
        }
        self.unknown.remove(&(run, key));
    }

    fn is_unknown(&mut self, name: (u32, OrderKey), record: &Record) {
        if self.unknown.len() < FOLLOWED_MAX {
            self.unknown.entry(name).or_insert((record.venue, record.engine_ts_ns));
        }
    }

    /// An order of an earlier run is unknown until its venue tells.
    fn on_restore(&mut self, record: &Record) {
        match Kind::from_tag(record.part) {
            Some(Kind::OrderNew) if 0 <= record.data[0] => {
                self.is_unknown((record.run, OrderKey(record.data[0])), record);
            }
            Some(Kind::OrderDone | Kind::OrderReject) => {
                self.unknown.remove(&(record.run, OrderKey(record.data[0])));
            }
            _ => {}
        }
    }

    fn on_group(&mut self, kind: Kind, record: &Record, is_news: bool) {
        if record.part == 0 {
            self.group.clear();
        }
        self.group.push(*record);
        if record.has(flag::MORE) && self.group.len() < GROUP_MAX {
            return;
        }
        let group = std::mem::take(&mut self.group);
        match kind {
            Kind::Denial => self.on_denial(&group, is_news),
            Kind::Opportunity => self.on_opportunity(&group, is_news),
            _ => self.on_round(&group, is_news),
        }
        self.group = group;
        self.group.clear();
    }

    fn on_denial(&mut self, group: &[Record], is_news: bool) {
        let Some(denial) = Denial::decode(group).filter(|_| is_news) else { return };
        let times = u64::try_from(denial.times).unwrap_or(0).clamp(1, 1 << 32);
        let place = Verdict::ALL.iter().position(|verdict| *verdict == denial.verdict);
        if let Some(place) = place {
            self.passed[place] += times;
        }
        if let Some(breach) = denial.breach
            && Control::from_tag(breach.control).is_some()
        {
            *self.denied.entry(breach.control).or_insert(0) += times;
        }
    }

    fn on_opportunity(&mut self, group: &[Record], is_news: bool) {
        let Some(found) = Opportunity::decode(group) else { return };
        if !matches!(found.phase, Phase::Open | Phase::Update) {
            return;
        }
        if is_news && found.phase == Phase::Open {
            let place = CycleKind::ALL.iter().position(|kind| *kind == found.kind);
            self.opportunities[place.unwrap_or(0)] += 1;
        }
        self.sizes.insert(found.id, found.spent.0);
        while SIZES_MAX < self.sizes.len() {
            self.sizes.pop_first();
        }
    }

    fn on_round(&mut self, group: &[Record], is_news: bool) {
        let Some(round) = RoundReport::decode(group) else { return };
        if is_news {
            *self.rounds.entry(round.stage.name()).or_insert(0) += 1;
        }
        match round.stage {
            // Legs that are out are not uneven yet.
            Stage::Entry => {}
            Stage::Settled => {
                self.uneven.remove(&round.id);
                self.on_settled(&round);
            }
            Stage::Hedge | Stage::Held if self.uneven.len() < FOLLOWED_MAX => {
                let at_ns = group.first().map_or(0, |record| record.engine_ts_ns);
                let known = self.uneven.len();
                self.uneven.entry(round.id).or_insert((round.stage, at_ns)).0 = round.stage;
                if is_news && known < self.uneven.len() {
                    self.one_legs += 1;
                }
            }
            Stage::Hedge | Stage::Held => {}
        }
    }

    fn on_settled(&mut self, round: &RoundReport) {
        let size = i64::try_from(round.cause).ok().and_then(|id| self.sizes.remove(&id));
        let Some(size) = size.filter(|size| 0 < *size && !round.is_orphan) else { return };
        let bps = |amount: i64| amount as f64 / size as f64 * 1e4;
        self.edges.push_back((bps(round.expected.0), bps(round.realised.0)));
        if EDGE_ROUNDS < self.edges.len() {
            self.edges.pop_front();
        }
    }

    fn pair(&self, instrument: u16) -> String {
        if let Some(run) = &self.run {
            return run.symbol(instrument).to_owned();
        }
        // `venue SYMBOL`, as the run was set up.
        match self.names.get(&instrument) {
            Some(name) => {
                name.split_once(' ').map_or(name.as_str(), |(_, symbol)| symbol).to_owned()
            }
            None => format!("instrument {instrument}"),
        }
    }

    // Families.

    /// Adds all of it.
    pub fn families(&self, now_ns: i64, out: &mut Vec<Family>) {
        self.feeds(now_ns, out);
        self.orders(now_ns, out);
        self.detection(now_ns, out);
        self.account(now_ns, out);
    }

    fn feeds(&self, now_ns: i64, out: &mut Vec<Family>) {
        let help = "Venue's event time to our receive stamp of its newest message; below 0 where its \
                    clock is ahead.";
        let mut lag = Family::gauge("feed_event_lag_seconds", help);
        for venue in &self.venues {
            if let Some(ns) = self.lag_ns[venue.idx()] {
                lag.push(&[("venue", venue.name())], seconds(ns));
            }
        }
        let mut age =
            Family::gauge("feed_age_seconds", "Since the book's last change was received.");
        let mut valid =
            Family::gauge("book_valid", "1 while the book is proven in sync with its venue.");
        let help = "Times that a live book lost its proof, planned moves aside.";
        let mut resyncs = Family::counter("feed_resyncs_total", help);
        for (instrument, book) in &self.books {
            let pair = self.pair(*instrument);
            let venue = Venue::from_tag(book.venue).map_or("", Venue::name);
            let labels = [("venue", venue), ("pair", pair.as_str())];
            if book.heard_ns != 0 {
                age.push(&labels, seconds(now_ns.saturating_sub(book.heard_ns)).max(0.0));
            }
            valid.push(&labels, f64::from(u8::from(book.is_live)));
            resyncs.push(&labels, book.resyncs as f64);
        }
        out.extend([lag, age, valid, resyncs]);
    }

    fn by_venue(&self, mut family: Family, of: &[u64; 3]) -> Family {
        for venue in &self.venues {
            family.push(&[("venue", venue.name())], of[venue.idx()] as f64);
        }
        family
    }

    fn orders(&self, now_ns: i64, out: &mut Vec<Family>) {
        if !self.is_live_run {
            // Live orders are counted by their gateway, as they leave.
            let orders = Family::counter("orders_sent_total", "New orders that were sent.");
            out.push(self.by_venue(orders, &self.orders));
        }
        out.push(self.by_venue(Family::counter("fills_total", "Fills."), &self.fills));
        let busts = Family::counter("fills_busted_total", "Fills that a venue took back.");
        out.push(self.by_venue(busts, &self.busts));
        let help = "Times that an order's outcome became unknown.";
        out.push(self.by_venue(Family::counter("orders_doubted_total", help), &self.unknowns));
        let mut rejects =
            Family::counter("orders_rejected_total", "Orders that never were in a book.");
        for ((venue, class), times) in &self.rejects {
            let venue = Venue::from_tag(*venue).map_or("", Venue::name);
            rejects.push(&[("venue", venue), ("reason", class)], *times as f64);
        }
        out.push(rejects);
        let mut unknown =
            Family::gauge("orders_unknown", "Orders whose outcome is not proven now.");
        let help = "How long the oldest of them is.";
        let mut oldest = Family::gauge("orders_unknown_age_seconds", help);
        for venue in &self.venues {
            let of_venue = self.unknown.values().filter(|(tag, _)| *tag == *venue as u8);
            let since_ns = of_venue.clone().map(|(_, since_ns)| *since_ns).min();
            unknown.push(&[("venue", venue.name())], of_venue.count() as f64);
            let age = since_ns.map_or(0.0, |since_ns| seconds(now_ns.saturating_sub(since_ns)));
            oldest.push(&[("venue", venue.name())], age.max(0.0));
        }
        out.extend([unknown, oldest]);
    }

    fn detection(&self, now_ns: i64, out: &mut Vec<Family>) {
        let mut found = Family::counter("opportunities_total", "Opportunities that opened.");
        for (kind, times) in CycleKind::ALL.into_iter().zip(self.opportunities) {
            found.push(&[("kind", kind.name())], times as f64);
        }
        let help = "Candidates that were not taken, by what spoke against them.";
        let mut passed = Family::counter("candidates_denied_total", help);
        for (verdict, times) in Verdict::ALL.into_iter().zip(self.passed) {
            if verdict != Verdict::Pays {
                passed.push(&[("reason", verdict.name())], times as f64);
            }
        }
        out.extend([found, passed]);
        // With the guards' refusals, which `pages` adds.
        let mut denied = Family::counter(
            "order_denied_total",
            "Orders that a control, or a gateway's guard, refused.",
        );
        for control in Control::TABLE {
            let times = self.denied.get(&(control as u8)).copied().unwrap_or(0);
            denied.push(&[("stage", "control"), ("code", control.name())], times as f64);
        }
        let rest = self.denied.iter().filter_map(|(tag, times)| {
            let control = Control::from_tag(*tag)?;
            (!Control::TABLE.contains(&control)).then_some((control, *times))
        });
        for (control, times) in rest {
            denied.push(&[("stage", "control"), ("code", control.name())], times as f64);
        }
        match out.iter_mut().find(|family| family.name == denied.name) {
            Some(family) => family.samples.extend(denied.samples),
            None => out.push(denied),
        }
        let mut rounds = Family::counter("rounds_total", "Rounds that came to a stage.");
        for stage in [Stage::Entry, Stage::Hedge, Stage::Held, Stage::Settled] {
            let times = self.rounds.get(stage.name()).copied().unwrap_or(0);
            rounds.push(&[("stage", stage.name())], times as f64);
        }
        let help = "Rounds of which something was left over.";
        let one_legs =
            Family::counter("one_leg_events_total", help).with(&[], self.one_legs as f64);
        let mut open = Family::gauge("one_leg_open", "Rounds with something left over now.");
        for stage in [Stage::Hedge, Stage::Held] {
            let at = self.uneven.values().filter(|(now, _)| *now == stage).count();
            open.push(&[("stage", stage.name())], at as f64);
        }
        let since_ns = self.uneven.values().map(|(_, since_ns)| *since_ns).min();
        let age = since_ns.map_or(0.0, |since_ns| seconds(now_ns.saturating_sub(since_ns)));
        let help = "How long the oldest of them is.";
        let age = Family::gauge("one_leg_age_seconds", help).with(&[], age.max(0.0));
        out.extend([rounds, one_legs, open, age]);
        let count = self.edges.len();
        let help = "Rounds that the edges are the mean of: the last ones, at most 100.";
        out.push(Family::gauge("edge_rounds", help).with(&[], count as f64));
        if count != 0 {
            let mean = |pick: fn(&(f64, f64)) -> f64| {
                self.edges.iter().map(pick).sum::<f64>() / count as f64
            };
            let help = "What the last rounds should have gained of what they spent, 1e-4.";
            let predicted = Family::gauge("edge_predicted_bps", help);
            let help = "What they gained of it, 1e-4.";
            let realised = Family::gauge("edge_realised_bps", help);
            out.push(predicted.with(&[], mean(|edge| edge.0)));
            out.push(realised.with(&[], mean(|edge| edge.1)));
        }
    }

    fn account(&self, now_ns: i64, out: &mut Vec<Family>) {
        let mut ready = Family::gauge("session_ready", "1 while the trading session takes orders.");
        let help = "State of the trading session: 0 down, 1 connecting, 2 authenticated, 3 ready, \
                    4 suspended, 5 refused.";
        let mut state = Family::gauge("session_state", help);
        let help =
            "Until the venue's dead-man switch fires; 0 where it offers one that is not set.";
        let mut dead_man = Family::gauge("deadman_seconds_left", help);
        for (venue, session) in &self.sessions {
            let labels = [("venue", venue.name())];
            let is_ready = session.state == SessionState::Ready;
            ready.push(&labels, f64::from(u8::from(is_ready)));
            state.push(&labels, f64::from(session.state as u8));
            match session.deadman_ns {
                0 => {}
                until_ns if until_ns < 0 => dead_man.push(&labels, 0.0),
                until_ns => {
                    let left = seconds(until_ns.saturating_sub(now_ns));
                    dead_man.push(&labels, left.max(0.0));
                }
            }
        }
        let help = "The host's clock against the venues'; above 0 it is ahead.";
        let mut offset = Family::gauge("clock_offset_seconds", help);
        let help = "1 while enough venues were heard to tell.";
        let mut synchronised = Family::gauge("clock_synchronised", help);
        if let Some((ns, is_told)) = self.clock {
            offset.push(&[], seconds(ns));
            synchronised.push(&[], f64::from(u8::from(is_told)));
        }
        let help = "Balances that differed at the last reconciliation with the venue.";
        let mut differences = Family::gauge("reconcile_differences", help);
        let help = "Open orders of the account that are not ours, at the last reconciliation.";
        let mut foreign = Family::gauge("foreign_orders", help);
        for (venue, [_, others, _, differing]) in &self.reconciled {
            differences.push(&[("venue", venue.name())], *differing as f64);
            foreign.push(&[("venue", venue.name())], *others as f64);
        }
        out.extend([ready, state, dead_man, offset, synchronised, differences, foreign]);
        let help = "Rounds that settled since the engine's start.";
        if let Some((pnl, _)) = &self.pnl {
            out.push(Family::gauge("rounds_settled", help).with(&[], pnl.rounds as f64));
        }
    }
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

fn count(of: &mut [u64; 3], venue: u8) {
    if let Some(venue) = Venue::from_tag(venue) {
        of[venue.idx()] += 1;
    }
}
