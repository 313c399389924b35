//! The engine: one record in, any number of records out.
//!
//! Invariant: [`Engine::step`] depends on nothing but the engine's state and the record. It never
//! allocates, never reads a clock, never fails: a record that makes no sense is counted and changes
//! nothing, a book it could have damaged becomes stale. It decides only at the end of a batch, never on
//! a book that is half changed.
//!
//! Not here: rings, the journal, and who feeds whom (`tandem`, the binary).

use alloc::vec::Vec;

use crate::account::{Balance, Peer, Session};
use crate::controls::View;
use crate::detector::{Detector, Evaluation, Verdict};
use crate::episode::{Episodes, Outbox, Seen};
use crate::graph::{Action, EdgeId, Graph, GraphError};
use crate::instrument::{AssetId, Universe, UniverseError};
use crate::level::LevelWord;
use crate::limits::Trading;
use crate::market::Market;
use crate::params::{Params, ParamsError};
use crate::record::{BookState, Kind, Reason, Record, TradingStatus, Venue, flag};
use crate::report::{LegReport, Opportunity, Phase};
use crate::trading::{Desk, Env};
use crate::units::{Amount, FeePpm, Px, Qty, Side};

/// Room for what one step may put out. A step that opens every cycle of a large graph is beyond any
/// market; it is cut, counted, and told by the host.
pub const OUTBOX_RECORDS: usize = 8_192;

/// Control level HALT of [`Kind::ControlLevel`], for single instruments.
pub const LEVEL_HALT: i64 = crate::level::Level::Halt as i64;

/// In an instrument's halt, reasons from here on are [`crate::controls::Control`]s; below, verdicts.
pub const CONTROL_REASON: u8 = 64;

/// Operator's commands in [`Kind::Command`]. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum Command {
    /// Halts the record's instrument.
    Halt = 1,
    /// Releases a halt of the record's instrument.
    Release = 2,
    /// Cancels every open order of the record's venue, or of all where it names none.
    CancelAll = 3,
    /// Books the argument to the record's venue and asset: a deposit, a withdrawal, a correction.
    Adjust = 4,
}

/// What the engine counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records taken.
    pub records: u64,
    /// Records that made no sense.
    pub rejected: u64,
    /// Batches decided.
    pub batches: u64,
    /// Candidates walked exactly.
    pub evaluations: u64,
    /// Opportunities opened, by [`crate::graph::CycleKind`] in the order of its tag.
    pub opportunities: [u64; 3],
    /// Candidates denied.
    pub denials: u64,
    /// Instruments halted because an edge was too good to be true.
    pub halts: u64,
}

/// Why an engine was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The instruments do not fit.
    #[error(transparent)]
    Universe(#[from] UniverseError),
    /// A parameter is out of its range.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The graph of cycles cannot be made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A trading limit is missing or unsafe.
    #[error("trading limits: {0}")]
    Trading(ParamsError),
}

/// Which sides of a book changed in the batch under way.
#[derive(Clone, Copy, Debug)]
struct Touched {
    instrument: u16,
    venue: u8,
    /// Best level of the bid, ask changed.
    best: [bool; 2],
}

/// The engine. Not `Clone`, because its room is part of it; a second one is built by [`Engine::new`].
#[derive(Debug)]
pub struct Engine {
    universe: Universe,
    params: Params,
    market: Market,
    detector: Detector,
    episodes: Episodes,
    now_ns: i64,
    touched: Vec<Touched>,
    /// Cycles to decide in this step, each once: `seen[cycle]` is the step it was last listed in.
    candidates: Vec<u32>,
    seen: Vec<u64>,
    /// What was decided in this step.
    assessed: Vec<Evaluation>,
    halted: usize,
    counts: Counts,
    /// Trades; nothing in an engine that only observes.
    desk: Option<Desk>,
}

/// Borrows the desk and, beside it, what surrounds it.
macro_rules! with_desk {
    ($engine:ident, $record:expr, $out:expr, |$desk:ident, $env:ident| $body:expr) => {{
        let Engine { universe, params, market, detector, now_ns, desk, .. } = &mut *$engine;
        match desk {
            Some($desk) => {
                let mut env = Env {
                    universe,
                    params,
                    market,
                    detector,
                    now_ns: *now_ns,
                    cause: $record,
                    out: $out,
                };
                let $env = &mut env;
                $body
            }
            // Without a desk nobody is concerned.
            None => true,
        }
    }};
}

impl Engine {
    /// Builds an engine that trades, or pretends to; this is where everything is allocated. It is
    /// paused until a `Levels` record says `Armed`.
    pub fn with_trading(
        universe: Universe,
        params: Params,
        trading: Trading,
    ) -> Result<Engine, EngineError> {
        trading.check(&universe).map_err(EngineError::Trading)?;
        let mut engine = Engine::new(universe, params)?;
        let cycle_count = engine.graph().cycles().len();
        engine.desk = Some(Desk::new(&engine.universe, trading, cycle_count));
        Ok(engine)
    }

    /// Builds an engine that observes; this is where everything is allocated.
    pub fn new(universe: Universe, params: Params) -> Result<Engine, EngineError> {
        universe.check()?;
        params.check()?;
        let graph = Graph::new(&universe, &params.numeraires, params.legs_max, params.cycles_max)?;
        let cycle_count = graph.cycles().len();
        Ok(Engine {
            market: Market::new(&universe, params.window_levels),
            detector: Detector::new(&universe, &params, graph),
            episodes: Episodes::new(cycle_count),
            now_ns: 0,
            touched: Vec::with_capacity(universe.instruments.len()),
            candidates: Vec::with_capacity(cycle_count),
            seen: alloc::vec![0; cycle_count],
            assessed: Vec::with_capacity(cycle_count),
            halted: 0,
            counts: Counts::default(),
            desk: None,
            universe,
            params,
        })
    }

    /// Takes one record and puts out what follows from it.
    pub fn step(&mut self, record: &Record, out: &mut Outbox) {
        self.counts.records += 1;
        self.now_ns = self.now_ns.max(record.engine_ts_ns);
        if record.has(flag::OUTPUT) {
            // What an engine wrote is never an input, not even another engine's.
            self.counts.rejected += 1;
            return;
        }
        let understood = match record.kind() {
            Some(Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState) => self.on_book(record),
            Some(Kind::Trade) => self.on_alive(record),
            Some(Kind::Beat) => self.on_beat(record),
            Some(Kind::Status) => self.on_status(record),
            Some(Kind::InstrumentChange) => self.on_instrument_change(record),
            Some(Kind::Gap) => self.on_gap(record),
            Some(Kind::Command) => self.on_command(record, out),
            Some(Kind::Timer | Kind::Clock | Kind::Config | Kind::Reconciled) => true,
            Some(kind) if is_about_orders(kind) => {
                // No end of a batch: a venue's books may be half changed while its orders are told.
                let understood = self.on_account(kind, record, out);
                self.counts.rejected += u64::from(!understood);
                self.halt_denied(record, out);
                return;
            }
            // Kinds that only an engine writes.
            Some(_) | None => false,
        };
        self.counts.rejected += u64::from(!understood);
        match record.kind() {
            Some(Kind::Timer) => self.on_timer(record, out),
            _ if record.has(flag::LAST) => self.decide(record, out),
            _ => {}
        }
    }

    /// Takes a record about orders, accounts, sessions or levels.
    fn on_account(&mut self, kind: Kind, record: &Record, out: &mut Outbox) -> bool {
        if kind == Kind::Fee {
            return self.on_fee(record);
        }
        let venue = Venue::from_tag(record.venue);
        with_desk!(self, record, out, |desk, env| match kind {
            Kind::Levels => {
                desk.on_levels(env, LevelWord(record.data[0] as u64));
                true
            }
            Kind::Session => Session::read(record).map(|told| desk.on_session(told)).is_some(),
            Kind::Peer => Peer::read(record).map(|told| desk.on_peer(told)).is_some(),
            Kind::Balance => Balance::read(record).is_some_and(|told| desk.on_balance(env, &told)),
            Kind::ClockState => {
                desk.on_clock(record, env.now_ns);
                true
            }
            Kind::ForeignOrder => venue.is_some_and(|venue| desk.on_foreign(record, venue)),
            Kind::Restore => desk.on_restore(env, record),
            _ => desk.on_report(env, record),
        })
    }

    /// What a venue charges, from its own word.
    fn on_fee(&mut self, record: &Record) -> bool {
        let taker_ppm = record.data[0];
        if self.venue_of(record).is_none() || 100_000 < taker_ppm.saturating_abs() {
            return false;
        }
        let instrument = record.instrument;
        self.universe.instruments[usize::from(instrument)].taker_fee = FeePpm(taker_ppm as i32);
        self.detector.refee(&self.universe, instrument);
        let live = self.may_trade(instrument) && !self.market.get(instrument).in_batch;
        for action in [Action::Buy, Action::Sell] {
            self.detector.refresh(&self.market, EdgeId::new(instrument, action), live);
        }
        true
    }

    /// Halts what a control of the desk wants halted.
    fn halt_denied(&mut self, record: &Record, out: &mut Outbox) {
        while let Some(breach) = self.desk.as_mut().and_then(Desk::pop_halt) {
            if self.universe.get(breach.instrument).is_none() {
                continue;
            }
            let until_ns = self.halt_until_ns();
            self.halt(breach.instrument, until_ns);
            for action in [Action::Buy, Action::Sell] {
                let edge = EdgeId::new(breach.instrument, action);
                self.detector.refresh(&self.market, edge, false);
            }
            self.counts.halts += 1;
            let control = i64::from(CONTROL_REASON) + breach.control as i64;
            let data = [LEVEL_HALT, control, breach.limit, breach.observed];
            let venue = self.universe.instruments[usize::from(breach.instrument)].venue as u8;
            out.push(Record {
                flags: flag::OUTPUT,
                engine_ts_ns: self.now_ns,
                ring: record.ring,
                ring_seq: record.ring_seq,
                ..Record::new(Kind::ControlLevel, venue, breach.instrument, data)
            });
        }
    }

    fn halt_until_ns(&self) -> i64 {
        match self.params.edge_max_halt_ns {
            0 => i64::MAX,
            halt_ns => self.now_ns.saturating_add(halt_ns),
        }
    }

    /// Returns the trading desk, where there is one.
    #[must_use]
    pub fn desk(&self) -> Option<&Desk> {
        self.desk.as_ref()
    }

    /// Returns what the controls look at, where there is a desk.
    #[must_use]
    pub fn view(&self) -> Option<View<'_>> {
        let around = (&self.universe, &self.params, &self.market);
        self.desk.as_ref().map(|desk| desk.view(around, self.now_ns))
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns what is known of the market.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Returns the graph of cycles.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        self.detector.graph()
    }

    /// Returns the instruments as they are now.
    #[must_use]
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// Returns the parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Returns the engine's now, UNIX ns.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        self.now_ns
    }

    /// Returns how many opportunities are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.episodes.open_count()
    }

    /// Decides one cycle as of now, as [`Engine::step`] would, without any effect.
    #[must_use]
    pub fn evaluate(&self, cycle: u32) -> Evaluation {
        let (universe, params) = (&self.universe, &self.params);
        self.detector.evaluate(universe, params, &self.market, cycle, self.now_ns)
    }

    /// Returns whether a cycle passes the fast test as of now.
    #[must_use]
    pub fn passes(&self, cycle: u32) -> bool {
        self.detector.passes(cycle)
    }

    /// Returns the venue of a record's instrument where both are ours and belong together.
    fn venue_of(&self, record: &Record) -> Option<Venue> {
        let rules = self.universe.get(record.instrument)?;
        (rules.venue as u8 == record.venue).then_some(rules.venue)
    }

    // A receive stamp from the future (a clock that stepped) must not make a book young for ever: here and
    // below it counts as now.
    fn on_book(&mut self, record: &Record) -> bool {
        let Some(venue) = self.venue_of(record) else { return false };
        self.market.heard(venue, record.conn, record.epoch, record.recv_ts_ns.min(self.now_ns));
        let best = self.market.take(record);
        if let Some(desk) = &mut self.desk {
            desk.on_book(&mut self.market, record, self.now_ns);
        }
        self.touch(record, best.unwrap_or([true, true]));
        best.is_some()
    }

    fn touch(&mut self, record: &Record, best: [bool; 2]) {
        let known = self.touched.iter_mut().rev().find(|t| t.instrument == record.instrument);
        match known {
            Some(touched) => {
                touched.best[0] |= best[0];
                touched.best[1] |= best[1];
            }
            None => {
                let instrument = record.instrument;
                self.touched.push(Touched { instrument, venue: record.venue, best });
            }
        }
    }

    fn on_alive(&mut self, record: &Record) -> bool {
        let Some(venue) = self.venue_of(record) else { return false };
        self.market.heard(venue, record.conn, record.epoch, record.recv_ts_ns.min(self.now_ns));
        true
    }

    fn on_beat(&mut self, record: &Record) -> bool {
        let Some(venue) = Venue::from_tag(record.venue) else { return false };
        self.market.heard(venue, record.conn, record.epoch, record.data[0].min(self.now_ns));
        true
    }

    fn on_status(&mut self, record: &Record) -> bool {
        let (Some(venue), Some(status)) =
            (Venue::from_tag(record.venue), TradingStatus::from_tag(record.data[0]))
        else {
            return false;
        };
        self.market.set_venue_status(venue, status);
        self.touch_venue(venue);
        true
    }

    fn on_instrument_change(&mut self, record: &Record) -> bool {
        if self.venue_of(record).is_none() {
            return false;
        }
        let Some(sound) = self.market.change(record) else { return false };
        if sound {
            let [_, tick, lot, notional_min] = record.data;
            let rules = &mut self.universe.instruments[usize::from(record.instrument)];
            (rules.tick, rules.lot) = (Px(tick), Qty(lot));
            rules.notional_min = Amount(notional_min);
        }
        if let (true, Some(desk)) = (sound, &mut self.desk) {
            desk.on_rules(record.instrument, self.now_ns);
        }
        self.touch(record, [true, true]);
        sound
    }

    /// Records of a venue were lost: none of its books is proven any more.
    fn on_gap(&mut self, record: &Record) -> bool {
        let Some(venue) = Venue::from_tag(record.venue) else {
            return record.venue == 0;
        };
        self.market.lose(venue);
        self.touch_venue(venue);
        true
    }

    fn on_command(&mut self, record: &Record, out: &mut Outbox) -> bool {
        let venue = Venue::from_tag(record.venue);
        match record.data[0] {
            command if command == Command::CancelAll as i64 => {
                return with_desk!(self, record, out, |desk, env| {
                    desk.on_cancel_all(env, venue);
                    true
                });
            }
            command if command == Command::Adjust as i64 => {
                let Some(venue) = venue else { return false };
                let (asset, by) = (AssetId(record.asset), record.data[1]);
                return with_desk!(self, record, out, |desk, env| desk
                    .on_adjust(env, venue, asset, by));
            }
            _ => {}
        }
        if self.universe.get(record.instrument).is_none() {
            return false;
        }
        let until = match record.data[0] {
            command if command == Command::Halt as i64 => i64::MAX,
            command if command == Command::Release as i64 => 0,
            _ => return false,
        };
        self.halt(record.instrument, until);
        let venue = self.universe.instruments[usize::from(record.instrument)].venue as u8;
        self.touch(&Record { venue, ..*record }, [true, true]);
        true
    }

    fn halt(&mut self, instrument: u16, until_ns: i64) {
        let state = self.market.get_mut(instrument);
        let was = state.halted_until_ns != 0;
        state.halted_until_ns = until_ns;
        let is = until_ns != 0;
        self.halted = self.halted + usize::from(is) - usize::from(was);
    }

    fn touch_venue(&mut self, venue: Venue) {
        for id in 0..self.universe.instruments.len() {
            if self.universe.instruments[id].venue == venue {
                let at = Record::new(Kind::Status, venue as u8, id as u16, [0; 4]);
                self.touch(&at, [true, true]);
            }
        }
    }

    /// The end of a batch: takes over what changed and decides every cycle it is part of.
    fn decide(&mut self, record: &Record, out: &mut Outbox) {
        self.counts.batches += 1;
        self.candidates.clear();
        let step = self.counts.records;
        let mut idx = 0;
        while idx < self.touched.len() {
            let touched = self.touched[idx];
            // A batch of another venue may be under way; its books stay untouched until its own end.
            if touched.venue != record.venue {
                idx += 1;
                continue;
            }
            self.touched.swap_remove(idx);
            self.take_over(touched, step);
        }
        with_desk!(self, record, out, |desk, env| {
            desk.on_paper(env);
            true
        });
        for idx in 0..self.candidates.len() {
            self.assess(self.candidates[idx]);
        }
        self.tell(record, out);
        self.housekeep(record, out);
    }

    fn take_over(&mut self, touched: Touched, step: u64) {
        self.market.get_mut(touched.instrument).in_batch = false;
        let live = self.may_trade(touched.instrument);
        let (market, seen, candidates) = (&self.market, &mut self.seen, &mut self.candidates);
        let mut list = |cycle: u32| {
            if core::mem::replace(&mut seen[cycle as usize], step) != step {
                candidates.push(cycle);
            }
        };
        for action in [Action::Buy, Action::Sell] {
            let side = match action {
                Action::Buy => Side::Ask,
                Action::Sell => Side::Bid,
            };
            if touched.best[side.idx()] {
                let edge = EdgeId::new(touched.instrument, action);
                self.detector.refresh(market, edge, live);
                self.detector.candidates(edge, &mut list);
            }
        }
        // An open opportunity depends on depth too, and must be seen to end.
        for position in 0..self.episodes.positions() {
            let Some(cycle) = self.episodes.open_cycle(position) else { continue };
            let edges = self.detector.graph().cycles()[cycle as usize].edges();
            if edges.iter().any(|edge| edge.instrument() == touched.instrument) {
                list(cycle);
            }
        }
    }

    /// Returns whether an instrument's prices belong into the graph; its age is judged when used.
    fn may_trade(&self, instrument: u16) -> bool {
        let state = self.market.get(instrument);
        state.state == BookState::Live
            && state.trading == TradingStatus::Trading
            && state.halted_until_ns <= self.now_ns
    }

    fn assess(&mut self, cycle: u32) {
        if !self.detector.passes(cycle) {
            self.episodes.fails(cycle, self.now_ns);
            return;
        }
        self.counts.evaluations += 1;
        let evaluation = self.evaluate(cycle);
        self.assessed.push(evaluation);
    }

    /// Halts what an unbelievable edge was seen on, and withdraws what would pay through it: of one step
    /// nothing is told on an instrument that the same step halted.
    fn halt_unbelievable(&mut self, record: &Record, out: &mut Outbox) {
        let mut halted = false;
        for idx in 0..self.assessed.len() {
            if self.assessed[idx].verdict == Verdict::EdgeMax {
                let evaluation = self.assessed[idx];
                self.halt_legs(record, &evaluation, out);
                halted = true;
            }
        }
        if !halted {
            return;
        }
        for idx in 0..self.assessed.len() {
            let cycle = &self.detector.graph().cycles()[self.assessed[idx].cycle as usize];
            let is_halted =
                |edge: &EdgeId| self.now_ns < self.market.get(edge.instrument()).halted_until_ns;
            let withdrawn = cycle.edges().iter().any(is_halted);
            if withdrawn && self.assessed[idx].verdict == Verdict::Pays {
                self.assessed[idx].verdict = Verdict::Halted;
            }
        }
    }

    /// The slowest leg decides when the last order arrives.
    fn latency_ns(&self, cycle: u32) -> i64 {
        let latency = |edge: &EdgeId| {
            let venue = self.universe.instruments[usize::from(edge.instrument())].venue;
            self.params.venues[venue.idx()].order_latency_ns
        };
        let edges = self.detector.graph().cycles()[cycle as usize].edges();
        edges.iter().map(latency).max().unwrap_or(0)
    }

    /// Puts out what was decided in this step.
    fn tell(&mut self, record: &Record, out: &mut Outbox) {
        self.halt_unbelievable(record, out);
        for idx in 0..self.assessed.len() {
            let evaluation = self.assessed[idx];
            let cycle = self.detector.graph().cycles()[evaluation.cycle as usize];
            if evaluation.verdict == Verdict::Pays {
                let latency_ns = self.latency_ns(evaluation.cycle);
                let seen = self.episodes.pays(&evaluation, &self.params, latency_ns, self.now_ns);
                let phase = match seen {
                    Seen::Opened => Phase::Open,
                    Seen::Better => Phase::Update,
                    Seen::Known => continue,
                };
                let best = self.is_best(idx);
                if phase == Phase::Open {
                    self.counts.opportunities[cycle.kind as usize - 1] += 1;
                }
                let mut opportunity = Opportunity::new(phase, &cycle, &evaluation, 0);
                self.episodes.tell(&mut opportunity);
                opportunity.best = best;
                opportunity.at_ns = self.now_ns;
                self.add_legs(&mut opportunity, &evaluation);
                opportunity.encode(record, |part| out.push(part));
                continue;
            }
            self.episodes.fails(evaluation.cycle, self.now_ns);
            self.counts.denials += 1;
            let denial = self.episodes.denied(&evaluation, &cycle, &self.params, self.now_ns);
            if let Some(denial) = denial {
                denial.encode(record, |part| out.push(part));
            }
        }
        self.trade(record, out);
        self.assessed.clear();
    }

    /// Hands what pays to the desk.
    fn trade(&mut self, record: &Record, out: &mut Outbox) {
        let Engine { universe, params, market, detector, now_ns, desk, assessed, episodes, .. } =
            self;
        let Some(desk) = desk else { return };
        let (now_ns, cause) = (*now_ns, record);
        let mut env = Env { universe, params, market, detector, now_ns, cause, out };
        desk.consider(&mut env, assessed, |cycle| episodes.id(cycle));
        self.halt_denied(record, out);
    }

    /// Of the paying cycles of this step with the same start asset, the largest net gain is the best;
    /// of equal ones the lowest cycle.
    fn is_best(&self, idx: usize) -> bool {
        let start = |e: &Evaluation| self.detector.graph().cycles()[e.cycle as usize].start;
        let own = &self.assessed[idx];
        let rank = |e: &Evaluation| (e.net, core::cmp::Reverse(e.cycle));
        let rivals = self.assessed.iter().filter(|e| e.verdict == Verdict::Pays);
        rivals.filter(|e| start(e) == start(own)).all(|e| rank(e) <= rank(own))
    }

    fn add_legs(&self, opportunity: &mut Opportunity, evaluation: &Evaluation) {
        let cycle = &self.detector.graph().cycles()[evaluation.cycle as usize];
        for (edge, order) in cycle.edges().iter().zip(evaluation.plan.orders()) {
            let side = match edge.action() {
                Action::Buy => Side::Ask,
                Action::Sell => Side::Bid,
            };
            let state = self.market.get(edge.instrument());
            opportunity.push_leg(LegReport {
                instrument: edge.instrument(),
                venue: self.universe.instruments[usize::from(edge.instrument())].venue as u8,
                side: side.idx() as u8,
                levels: order.levels,
                px: order.px,
                qty: order.qty,
                best_px: state.book.best(side).map_or(Px(0), |level| level.px),
                update_id: state.update_id,
                recv_ts_ns: state.recv_ts_ns,
            });
        }
    }

    fn halt_legs(&mut self, record: &Record, evaluation: &Evaluation, out: &mut Outbox) {
        let cycle = self.detector.graph().cycles()[evaluation.cycle as usize];
        let until_ns = self.halt_until_ns();
        for edge in cycle.edges() {
            let instrument = edge.instrument();
            self.halt(instrument, until_ns);
            for action in [Action::Buy, Action::Sell] {
                self.detector.refresh(&self.market, EdgeId::new(instrument, action), false);
            }
            self.counts.halts += 1;
            let venue = self.universe.instruments[usize::from(instrument)].venue as u8;
            let evidence = evaluation.gross_ppb / 1_000;
            let data = [LEVEL_HALT, Verdict::EdgeMax as i64, i64::from(evaluation.cycle), evidence];
            out.push(Record {
                flags: flag::OUTPUT,
                engine_ts_ns: self.now_ns,
                ring: record.ring,
                ring_seq: record.ring_seq,
                ..Record::new(Kind::ControlLevel, venue, instrument, data)
            });
        }
    }

    /// Second looks and ends that have become due.
    fn housekeep(&mut self, record: &Record, out: &mut Outbox) {
        while let Some(position) = self.episodes.look_due(self.now_ns) {
            let cycle_idx = self.episodes.cycle(position);
            let then = self.evaluate(cycle_idx);
            let cycle = self.detector.graph().cycles()[cycle_idx as usize];
            let mut opportunity = self.episodes.looked(position, &cycle, &then);
            opportunity.at_ns = self.now_ns;
            opportunity.encode(record, |part| out.push(part));
        }
        let cycles = self.detector.graph().cycles();
        while let Some(mut opportunity) = self.episodes.end_one(cycles, &self.params, self.now_ns) {
            opportunity.at_ns = self.now_ns;
            opportunity.encode(record, |part| out.push(part));
        }
    }

    /// Time passed: halts run out, open opportunities age.
    fn on_timer(&mut self, record: &Record, out: &mut Outbox) {
        if self.halted != 0 {
            self.release_expired();
        }
        for position in 0..self.episodes.positions() {
            if let Some(cycle) = self.episodes.open_cycle(position) {
                self.assess(cycle);
            }
        }
        with_desk!(self, record, out, |desk, env| {
            desk.on_timer(env);
            true
        });
        self.halt_denied(record, out);
        self.reconsider();
        self.tell(record, out);
        self.housekeep(record, out);
    }

    /// Decides the cycles whose depth came back because an order of ours ended.
    fn reconsider(&mut self) {
        self.candidates.clear();
        while let Some(instrument) = self.desk.as_mut().and_then(Desk::pop_freed) {
            if !self.market.get(instrument).in_batch {
                let venue = self.universe.instruments[usize::from(instrument)].venue as u8;
                let best = [true, true];
                self.take_over(Touched { instrument, venue, best }, self.counts.records);
            }
        }
        for idx in 0..self.candidates.len() {
            let cycle = self.candidates[idx];
            if !self.assessed.iter().any(|known| known.cycle == cycle) {
                self.assess(cycle);
            }
        }
    }

    fn release_expired(&mut self) {
        for id in 0..self.universe.instruments.len() as u16 {
            let until_ns = self.market.get(id).halted_until_ns;
            if until_ns != 0 && until_ns <= self.now_ns {
                self.halt(id, 0);
                let live = self.may_trade(id);
                for action in [Action::Buy, Action::Sell] {
                    self.detector.refresh(&self.market, EdgeId::new(id, action), live);
                }
            }
        }
    }
}

/// Returns whether records of a kind are about orders, accounts, sessions or levels.
const fn is_about_orders(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::OrderSent
            | Kind::OrderAck
            | Kind::OrderFill
            | Kind::OrderBust
            | Kind::OrderTotals
            | Kind::OrderDone
            | Kind::OrderReject
            | Kind::OrderUnknown
            | Kind::CancelReject
            | Kind::ForeignOrder
            | Kind::Balance
            | Kind::Fee
            | Kind::Session
            | Kind::Levels
            | Kind::Peer
            | Kind::ClockState
            | Kind::Restore
    )
}

/// Returns the record that tells an engine that a venue's records were lost.
#[must_use]
pub fn gap(venue: Venue, reason: Reason, from: i64, count: i64) -> Record {
    let data = [reason as i64, from, from.saturating_add(count), count];
    Record { flags: flag::LAST, ..Record::new(Kind::Gap, venue as u8, u16::MAX, data) }
}
