//! The trading desk: from an opportunity to orders, from reports to the ledger, from leftovers to hedges.
//!
//! Invariant: an order leaves only here ([`Desk::send`]), after every control passed, and once. A report
//! is taken in only here; what it moved is booked before anything is decided on it. What the desk raises
//! counts at once, whether or not the level page has told it back; until the page says `Armed` nothing is
//! entered. Nothing waits without a timer: every open order and every round is looked at by
//! [`Desk::on_timer`].
//!
//! Not here: which cycle pays (`detector`), each control (`controls`), each state (`orders`, `round`).

use alloc::vec::Vec;

use crate::account::{Balance, BalanceSource, Peer, Session};
use crate::controls::{self, Act, Breach, Control, Controls, View, Wish};
use crate::detector::{Detector, Evaluation, Verdict};
use crate::episode::Outbox;
use crate::graph::{Cycle, LEGS_MAX};
use crate::hedge::{self, Choice};
use crate::instrument::{AssetId, FeeIn, Instrument, Universe};
use crate::ledger::{Audit, Ledger, Pnl, Posting, Tag, clamp};
use crate::level::{Cause, Level, LevelWord, Scope};
use crate::limits::{Mode, Trading};
use crate::market::Market;
use crate::mutation::{Mute, muted};
use crate::order::{
    Action, FillTerms, NewOrder, OrderKey, Purpose, RejectClass, Report, Tif, UnknownCause, request,
};
use crate::orders::{Change, Fill, NO_ROUND, Order, Orders, State, TakenBack};
use crate::own::Own;
use crate::paper::Paper;
use crate::params::Params;
use crate::record::{Kind, Record, Venue, flag};
use crate::report::{BreachReport, Denial};
use crate::round::{Flows, RoundLeg, RoundReport, Rounds, Stage};
use crate::units::{Amount, PPM_PER_UNIT, Px, Qty, Side, div, div_ceil};
use crate::value::{Bias, Valuer, quote_of, shift_of};

const PPM: i128 = PPM_PER_UNIT as i128;
/// Instruments that may refuse one hedge in a row.
const TRIES: usize = 8;
/// Rounds that one step may enter.
const ENTRIES: usize = 4;

/// What the desk counted since the engine's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeCounts {
    /// Rounds whose legs were sent.
    pub rounds: u64,
    /// Of these, all legs filled whole.
    pub rounds_filled: u64,
    /// No leg filled at all.
    pub rounds_missed: u64,
    /// Something was left over and completed.
    pub hedged: u64,
    /// Something was left over and taken back.
    pub unwound: u64,
    /// Rounds that were held.
    pub held: u64,
    /// Rounds that follow from late fills, dust or earlier runs.
    pub orphans: u64,
    /// Orders sent.
    pub orders: u64,
    /// Orders that ended filled whole.
    pub orders_filled: u64,
    /// Orders that ended filled in part.
    pub orders_partial: u64,
    /// Orders that were refused.
    pub orders_rejected: u64,
    /// Orders whose outcome was unknown at some time.
    pub orders_unknown: u64,
    /// Fills booked.
    pub fills: u64,
    /// Of these, after the order was final.
    pub fills_late: u64,
    /// Fills that came again.
    pub fills_repeated: u64,
    /// Fills taken back or corrected, and booked so.
    pub busts: u64,
    /// The same word about one again.
    pub busts_repeated: u64,
    /// Of fills that nobody knows: booked as nothing.
    pub busts_strange: u64,
    /// Reports about orders that nobody knows any more.
    pub reports_strange: u64,
    /// Queries sent.
    pub queries: u64,
    /// Cancels sent.
    pub cancels: u64,
    /// Levels raised.
    pub raises: u64,
    /// Denials by [`Control`] number.
    pub denials: [u64; Control::COUNT],
}

impl Default for TradeCounts {
    fn default() -> TradeCounts {
        TradeCounts {
            rounds: 0,
            rounds_filled: 0,
            rounds_missed: 0,
            hedged: 0,
            unwound: 0,
            held: 0,
            orphans: 0,
            orders: 0,
            orders_filled: 0,
            orders_partial: 0,
            orders_rejected: 0,
            orders_unknown: 0,
            fills: 0,
            fills_late: 0,
            fills_repeated: 0,
            busts: 0,
            busts_repeated: 0,
            busts_strange: 0,
            reports_strange: 0,
            queries: 0,
            cancels: 0,
            raises: 0,
            denials: [0; Control::COUNT],
        }
    }
}

/// What surrounds the desk during one step.
#[derive(Debug)]
pub struct Env<'a> {
    /// Instruments.
    pub universe: &'a Universe,
    /// Detection's parameters.
    pub params: &'a Params,
    /// Books.
    pub market: &'a mut Market,
    /// Detector, for plans of another size.
    pub detector: &'a Detector,
    /// The engine's now.
    pub now_ns: i64,
    /// The record that is being taken.
    pub cause: &'a Record,
    /// Where outputs go.
    pub out: &'a mut Outbox,
}

/// A paying cycle: edge after skew, lower cycles first, and its place in the list.
type Ranked = (i64, core::cmp::Reverse<u32>, u32);

#[derive(Clone, Copy, Debug)]
struct Told {
    at_ns: i64,
    pending: i64,
}

/// The desk. Not `Clone`: its room is part of it.
#[derive(Debug)]
pub struct Desk {
    limits: Trading,
    valuer: Valuer,
    controls: Controls,
    orders: Orders,
    rounds: Rounds,
    ledger: Ledger,
    own: Own,
    paper: Paper,
    page: LevelWord,
    /// By scope, global first: what we raised and the page has not told back, with its epoch then.
    raised: [Option<(Level, u32)>; 4],
    /// What both make of each venue.
    effective: [Level; 3],
    /// Instruments to be halted by the engine, with the breach.
    halts: Vec<Breach>,
    /// Instruments whose depth came back without a change of their book.
    freed: Vec<u16>,
    /// By control: of the instruments, for orders of no cycle, and then of the cycles.
    told: Vec<Told>,
    /// By cycle: not before this.
    retry_ns: Vec<i64>,
    /// Room for [`Desk::consider`].
    ranked: Vec<Ranked>,
    ramp_left: i64,
    /// The round that the earlier runs' leftovers belong to; 0 where there is none.
    orphan: u64,
    /// The round that fills belong to which were taken back after their round was over; 0 where none.
    busted: u64,
    told_pnl: Pnl,
    audited_ns: i64,
    counts: TradeCounts,
}

/// Looks at everything, while the desk's controls may be changed.
macro_rules! view {
    ($desk:expr, $env:expr) => {
        View {
            universe: $env.universe,
            params: $env.params,
            limits: &$desk.limits,
            market: &*$env.market,
            valuer: &$desk.valuer,
            ledger: &$desk.ledger,
            orders: &$desk.orders,
            rounds: &$desk.rounds,
            levels: $desk.effective,
            now_ns: $env.now_ns,
        }
    };
}

fn scope_idx(scope: Scope) -> usize {
    match scope {
        Scope::Global => 0,
        Scope::Venue(venue) => 1 + venue.idx(),
    }
}

fn levels(page: LevelWord, raised: &[Option<(Level, u32)>; 4]) -> [Level; 3] {
    let own = |idx: usize| {
        let counts = !muted(Mute::OwnRaise);
        raised[idx].filter(|_| counts).map_or(Level::Armed, |raised| raised.0)
    };
    Venue::ALL.map(|venue| page.effective(venue).max(own(0)).max(own(1 + venue.idx())))
}

impl Desk {
    /// Returns a desk that holds nothing and is paused; nothing is allocated afterwards.
    #[must_use]
    pub fn new(universe: &Universe, limits: Trading, cycle_count: usize) -> Desk {
        let (assets, instruments) = (universe.assets.len(), universe.instruments.len());
        let never = Told { at_ns: i64::MIN, pending: 0 };
        Desk {
            valuer: Valuer::new(universe, limits.numeraire),
            controls: Controls::new(instruments),
            orders: Orders::new(instruments),
            rounds: Rounds::new(limits.rounds_max),
            ledger: Ledger::new(assets, instruments),
            own: Own::new(instruments),
            paper: Paper::new(assets, u64::from(limits.run) << 32),
            page: LevelWord::PAUSED,
            raised: [None; 4],
            effective: levels(LevelWord::PAUSED, &[None; 4]),
            halts: Vec::with_capacity(64),
            freed: Vec::with_capacity(64),
            told: alloc::vec![never; Control::COUNT * (instruments + 1 + cycle_count)],
            retry_ns: alloc::vec![i64::MIN; cycle_count],
            ranked: Vec::with_capacity(cycle_count),
            ramp_left: limits.ramp_rounds,
            orphan: 0,
            busted: 0,
            told_pnl: Pnl::default(),
            audited_ns: 0,
            counts: TradeCounts::default(),
            limits,
        }
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> &Trading {
        &self.limits
    }

    /// Returns the controls.
    #[must_use]
    pub fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Returns our own books.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns our orders.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Returns our rounds.
    #[must_use]
    pub fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Returns the paper venues.
    #[must_use]
    pub fn paper(&self) -> &Paper {
        &self.paper
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> &TradeCounts {
        &self.counts
    }

    /// Returns the effective level of a venue, own raises included.
    #[must_use]
    pub fn level(&self, venue: Venue) -> Level {
        self.effective[venue.idx()]
    }

    /// Returns what is reserved of a venue's balance for open orders.
    #[must_use]
    pub fn reserved(&self, view: &View<'_>, venue: Venue, asset: AssetId) -> i128 {
        view.reserved(venue, asset, &[])
    }

    /// Returns what the controls look at.
    #[must_use]
    pub fn view<'a>(
        &'a self,
        (universe, params, market): (&'a Universe, &'a Params, &'a Market),
        now_ns: i64,
    ) -> View<'a> {
        View {
            universe,
            params,
            limits: &self.limits,
            market,
            valuer: &self.valuer,
            ledger: &self.ledger,
            orders: &self.orders,
            rounds: &self.rounds,
            levels: self.effective,
            now_ns,
        }
    }

    /// Takes out one instrument that is to be halted.
    pub fn pop_halt(&mut self) -> Option<Breach> {
        self.halts.pop()
    }

    /// Takes out one instrument whose depth came back: its cycles are to be decided again.
    pub fn pop_freed(&mut self) -> Option<u16> {
        self.freed.pop()
    }

    fn free(&mut self, market: &mut Market, instrument: u16) {
        self.own.rebuild(market, instrument);
        if !self.freed.contains(&instrument) && self.freed.len() < self.freed.capacity() {
            self.freed.push(instrument);
        }
    }

    // Levels.

    fn raise(
        &mut self,
        env: &mut Env<'_>,
        (scope, level, cause): (Scope, Level, Cause),
        (control, evidence): (Control, i64),
    ) {
        let idx = scope_idx(scope);
        let is_known = level <= self.page.of(scope)
            || self.raised[idx].is_some_and(|raised| level <= raised.0);
        if is_known {
            return;
        }
        self.raised[idx] = Some((level, self.page.epoch()));
        self.effective = levels(self.page, &self.raised);
        self.counts.raises += 1;
        let venue = match scope {
            Scope::Global => 0,
            Scope::Venue(venue) => venue as u8,
        };
        let data = [level as i64, cause as i64, control as i64, evidence];
        put(env, Record::new(Kind::ControlLevel, venue, u16::MAX, data));
        if Level::Halt <= level {
            self.cancel_all(env, scope);
        }
    }

    fn cancel_all(&mut self, env: &mut Env<'_>, scope: Scope) {
        if muted(Mute::CancelOnHalt) {
            return;
        }
        for position in 0..self.orders.open_count() {
            let slot = self.orders.open_slot(position);
            let order = self.orders.get_mut(slot);
            let terms = order.terms;
            let meant = match scope {
                Scope::Global => true,
                Scope::Venue(venue) => venue == terms.venue,
            };
            if !meant || order.is_final() || order.is_cancelling() {
                continue;
            }
            order.cancel();
            self.counts.cancels += 1;
            let (venue, instrument) = (terms.venue, terms.instrument);
            let cancel = request(Kind::OrderCancel, venue, instrument, terms.run, terms.key);
            put(env, cancel);
        }
    }

    /// Takes the level word as the page holds it.
    pub fn on_levels(&mut self, env: &mut Env<'_>, word: LevelWord) {
        let before = self.effective;
        let passed = word.epoch().wrapping_sub(self.page.epoch()) & 0xff_ffff;
        self.page = word;
        for (idx, raised) in self.raised.iter_mut().enumerate() {
            let scope = match idx.checked_sub(1) {
                None => Scope::Global,
                Some(venue) => Scope::Venue(Venue::ALL[venue]),
            };
            // The page has it; or it had it and an operator lowered it since: two more epochs.
            let told_back = raised.is_some_and(|(level, epoch)| {
                level <= word.of(scope) || 2 <= word.epoch().wrapping_sub(epoch) & 0xff_ffff
            });
            if told_back {
                *raised = None;
            }
        }
        let after = levels(self.page, &self.raised);
        self.effective = after;
        let is_armed = |venue: Venue| {
            let idx = venue.idx();
            passed != 0 && before[idx] != Level::Armed && after[idx] == Level::Armed
        };
        if !before.contains(&Level::Armed) && after.contains(&Level::Armed) && passed != 0 {
            self.controls.rearm();
        }
        for venue in Venue::ALL.into_iter().filter(|venue| is_armed(*venue)) {
            // An operator looked at that venue, whatever the others are at.
            self.controls.rearm_venue(venue);
        }
        if Venue::ALL.into_iter().any(is_armed) {
            self.ramp_left = self.limits.ramp_rounds;
            // An operator armed: what was held is tried again with fresh budgets.
            for slot in 0..self.rounds.places() {
                if let Some(round) = self.rounds.get_mut(slot)
                    && round.stage == Stage::Held
                {
                    round.stage = Stage::Hedge;
                    (round.hedges, round.exposed_ns) = (0, env.now_ns);
                }
            }
        }
        for venue in Venue::ALL {
            let idx = venue.idx();
            if before[idx] < Level::Halt && Level::Halt <= after[idx] {
                self.cancel_all(env, Scope::Venue(venue));
            }
        }
    }

    // Entries.

    /// Tries to take paying cycles, the best first. `id` gives each one's opportunity.
    pub fn consider(
        &mut self,
        env: &mut Env<'_>,
        assessed: &[Evaluation],
        id: impl Fn(u32) -> u64,
    ) {
        // Nearly every tick: nothing was decided.
        if assessed.is_empty() || self.limits.mode == Mode::Observe {
            return;
        }
        // Ranked once: what is attempted moves no balance until it is filled, so no rank changes meanwhile.
        let mut ranked = core::mem::take(&mut self.ranked);
        ranked.clear();
        let pays = assessed.iter().enumerate().filter(|(_, e)| e.verdict == Verdict::Pays);
        ranked.extend(pays.map(|(idx, e)| {
            // Of the same edge the one that brings balances back; then the lowest cycle.
            let skew = self.skew_ppm(env, e.cycle);
            (e.net_ppm().saturating_sub(skew), core::cmp::Reverse(e.cycle), idx as u32)
        }));
        self.attempt_best(env, assessed, &mut ranked, id);
        self.ranked = ranked;
    }

    fn attempt_best(
        &mut self,
        env: &mut Env<'_>,
        assessed: &[Evaluation],
        ranked: &mut Vec<Ranked>,
        id: impl Fn(u32) -> u64,
    ) {
        for _ in 0..ENTRIES {
            let best = ranked
                .iter()
                .enumerate()
                .filter(|(_, (_, cycle, _))| self.retry_ns[cycle.0 as usize] <= env.now_ns)
                .max_by_key(|(_, rank)| **rank);
            let Some((at, (.., idx))) = best else { return };
            let best = &assessed[*idx as usize];
            ranked.swap_remove(at);
            let cycle = env.detector.graph().cycles()[best.cycle as usize];
            self.attempt(env, best, &cycle, id(best.cycle));
        }
        self.outranked(env, assessed, ranked);
    }

    /// Tells of what is left over when a step has tried as many as it may: it is not tried now, and nothing
    /// else would say so. What rests was told when it was denied; where the level is shut, the level is why.
    fn outranked(&mut self, env: &mut Env<'_>, assessed: &[Evaluation], left: &[Ranked]) {
        let waits = |desk: &Desk, env: &Env<'_>, cycle: u32| {
            let of = &env.detector.graph().cycles()[cycle as usize];
            desk.retry_ns[cycle as usize] <= env.now_ns && desk.is_armed(env, of)
        };
        let count = left.iter().filter(|rank| waits(self, env, rank.1.0)).count();
        for (_, cycle, idx) in left {
            if !waits(self, env, cycle.0) {
                continue;
            }
            let cycle = env.detector.graph().cycles()[cycle.0 as usize];
            let breach = Breach {
                control: Control::Outranked,
                instrument: cycle.edges()[0].instrument(),
                observed: (ENTRIES + count) as i64,
                limit: ENTRIES as i64,
                act: Act::Deny,
            };
            self.denied(env, &breach, Some((&assessed[*idx as usize], &cycle)));
        }
    }

    /// Returns whether every venue of a cycle may be entered.
    fn is_armed(&self, env: &Env<'_>, cycle: &Cycle) -> bool {
        cycle.edges().iter().all(|edge| {
            let rules = &env.universe.instruments[usize::from(edge.instrument())];
            self.level(rules.venue) == Level::Armed
        })
    }

    /// Edge that a cycle needs more for what it does to balances: positive where it takes them further
    /// from their targets.
    fn skew_ppm(&self, env: &Env<'_>, cycle: u32) -> i64 {
        if muted(Mute::Skew) || self.limits.skew_ppm == 0 {
            return 0;
        }
        let mut sum: i128 = 0;
        for edge in env.detector.graph().cycles()[cycle as usize].edges() {
            let rules = &env.universe.instruments[usize::from(edge.instrument())];
            let sign = if edge.action() == Action::Buy { 1 } else { -1 };
            for (asset, sign) in [(rules.base, sign), (rules.quote, -sign)] {
                let band = &self.limits.assets[usize::from(asset.0)].bands[rules.venue.idx()];
                let away =
                    self.ledger.account(rules.venue, asset).balance - i128::from(band.target.0);
                let room = match away < 0 {
                    true => band.target.0 - band.floor.0,
                    false => band.ceiling.0 - band.target.0,
                };
                let share = div(away.saturating_mul(PPM), room.max(1).into());
                sum += share.clamp(-PPM, PPM) * sign * i128::from(self.limits.skew_ppm) / PPM;
            }
        }
        clamp(sum).0
    }

    /// Rules of the legs, made smaller by what we may spend, hold and risk.
    fn smaller(
        &self,
        env: &Env<'_>,
        cycle: &Cycle,
        evaluation: &Evaluation,
    ) -> [Instrument; LEGS_MAX] {
        let view = self.view((env.universe, env.params, env.market), env.now_ns);
        let rules_of = |idx: usize| {
            let edge = cycle.edges().get(idx).unwrap_or(&cycle.edges()[0]);
            env.universe.instruments[usize::from(edge.instrument())].clone()
        };
        let mut all: [Instrument; LEGS_MAX] = [rules_of(0), rules_of(1), rules_of(2), rules_of(3)];
        let entry = self.ramp_left > 0;
        for ((rules, edge), order) in
            all.iter_mut().zip(cycle.edges()).zip(evaluation.plan.orders())
        {
            let (id, venue) = (edge.instrument(), rules.venue);
            let limits = &self.limits.instruments[usize::from(id)];
            let buffer = i128::from(self.limits.notional_min_buffer_ppm);
            let notional_min = i128::from(rules.notional_min.0) * (PPM + buffer);
            rules.notional_min = clamp(div_ceil(notional_min, PPM));
            let mut qty_max = i128::from(rules.qty_max.min(limits.qty_max).0);
            let mut quote_max = i128::from(rules.notional_max.0);
            // The worth of the quote, seen at the order's own size, bounds the notional. C7 counts all of it at
            // the limit price, which for a buyer is the dearest level of the walk.
            let quote = i128::from(order.notional.0.max(1));
            let at_limit = match edge.action() {
                Action::Buy => quote_of(order.px, order.qty.0, shift_of(env.universe, id), true),
                Action::Sell => quote,
            };
            if let Some(worth) = view.worth(rules.quote, at_limit.max(quote), Bias::High)
                && i128::from(self.limits.notional_max) < worth
            {
                let most = quote.saturating_mul(self.limits.notional_max.into()) / worth;
                quote_max = quote_max.min(most);
            }
            let exposure = |asset: AssetId| {
                let most = i128::from(self.limits.assets[usize::from(asset.0)].exposure_max.0);
                let (low, high) = view.exposure(asset, None, &[]);
                most - low.unsigned_abs().max(high.unsigned_abs()) as i128
            };
            if rules.base != self.limits.numeraire {
                qty_max = qty_max.min(exposure(rules.base));
            }
            if rules.quote != self.limits.numeraire {
                quote_max = quote_max.min(exposure(rules.quote));
            }
            let room = |asset: AssetId, spends: bool| {
                let band = &self.limits.assets[usize::from(asset.0)].bands[venue.idx()];
                match spends {
                    true => {
                        let available = view.available(venue, asset, &[]).unwrap_or(0);
                        available - i128::from(band.floor.0)
                    }
                    false => i128::from(band.ceiling.0) - self.ledger.account(venue, asset).balance,
                }
            };
            match edge.action() {
                Action::Buy => {
                    let fee = i128::from(rules.taker_fee.0.max(0));
                    let funds = room(rules.quote, true);
                    let funds = match rules.fee_in {
                        FeeIn::Quote => funds.saturating_mul(PPM) / (PPM + fee),
                        FeeIn::Received => funds,
                    };
                    quote_max = quote_max.min(funds);
                    qty_max = qty_max.min(room(rules.base, false));
                }
                Action::Sell => {
                    qty_max = qty_max.min(room(rules.base, true));
                    quote_max = quote_max.min(room(rules.quote, false));
                }
            }
            let levels = env.market.get(id).depth().levels(edge.action().takes());
            let visible: i128 = levels.map(|level| i128::from(level.qty.0)).sum();
            qty_max = qty_max.min(div(visible * i128::from(self.limits.depth_ppm_max), PPM));
            if entry && *edge == cycle.edges()[0] {
                qty_max = qty_max.min(hedge::smallest(&view, id, rules, order.px).into());
            }
            rules.qty_max = Qty(clamp(qty_max.max(0)).0);
            rules.notional_max = clamp(quote_max.max(0));
        }
        all
    }

    fn attempt(&mut self, env: &mut Env<'_>, seen: &Evaluation, cycle: &Cycle, cause: u64) {
        let skew_ppm = self.skew_ppm(env, seen.cycle).max(0);
        let mut wanted = *seen;
        if self.is_armed(env, cycle) || muted(Mute::C1) {
            // Smaller where our own bounds are smaller than the market's; denied only where even that
            // does not pay, and then with the control that the larger one fails.
            let rules = self.smaller(env, cycle, seen);
            let smaller = env.detector.evaluate_within(
                env.universe,
                env.params,
                env.market,
                (seen.cycle, env.now_ns),
                (Some(&rules), skew_ppm),
            );
            if smaller.verdict == Verdict::Pays {
                wanted = smaller;
            } else if smaller.verdict == Verdict::Edge {
                let breach = Breach {
                    control: Control::Size,
                    instrument: cycle.edges()[0].instrument(),
                    observed: smaller.net_ppm(),
                    limit: skew_ppm,
                    act: Act::Deny,
                };
                self.denied(env, &breach, Some((&wanted, cycle)));
                self.retry_ns[seen.cycle as usize] =
                    env.now_ns.saturating_add(self.limits.retry_ns);
                return;
            }
        }
        let mut wishes = [WISH; LEGS_MAX];
        let legs = wanted.plan.orders().len().min(cycle.edges().len());
        for ((wish, edge), order) in wishes.iter_mut().zip(cycle.edges()).zip(wanted.plan.orders())
        {
            *wish = Wish {
                venue: env.universe.instruments[usize::from(edge.instrument())].venue,
                instrument: edge.instrument(),
                action: edge.action(),
                px: order.px,
                qty: order.qty,
                purpose: Purpose::Entry,
                cause,
                edge_ppm: wanted.net_ppm(),
            };
        }
        let wishes = &wishes[..legs];
        let view = view!(self, env);
        if let Err(breach) = self.controls.check(&view, wishes) {
            self.denied(env, &breach, Some((&wanted, cycle)));
            self.retry_ns[seen.cycle as usize] = env.now_ns.saturating_add(self.limits.retry_ns);
            return;
        }
        let Some(slot) = self.rounds.open(cycle.start, env.now_ns) else {
            let open = self.rounds.iter().count() as i64;
            let breach = Breach {
                control: Control::Rounds,
                instrument: wishes[0].instrument,
                observed: open + 1,
                limit: open,
                act: Act::Deny,
            };
            self.denied(env, &breach, Some((&wanted, cycle)));
            self.retry_ns[seen.cycle as usize] = env.now_ns.saturating_add(self.limits.retry_ns);
            return;
        };
        let Some(round) = self.rounds.get_mut(slot) else { return };
        (round.cycle, round.cause) = (seen.cycle, cause);
        (round.expected, round.input) = (wanted.net, wanted.plan.input());
        for wish in wishes {
            round.push_leg(RoundLeg {
                venue: wish.venue as u8,
                instrument: wish.instrument,
                action: wish.action,
                px: wish.px,
                qty: wish.qty,
                filled: Qty(0),
            });
        }
        self.counts.rounds += 1;
        self.ramp_left = (self.ramp_left - 1).max(0);
        self.tell_round(env, slot);
        for wish in wishes {
            self.send(env, slot, wish);
        }
        self.progress_at(env, slot);
    }

    /// Sends an order that passed every control: it counts from here on.
    fn send(&mut self, env: &mut Env<'_>, slot: usize, wish: &Wish) {
        let Some(round) = self.rounds.get_mut(slot) else { return };
        let key = OrderKey::new(round.id, round.next_n);
        round.next_n += 1;
        let round_id = round.id;
        let terms = NewOrder {
            run: self.limits.run,
            key,
            venue: wish.venue,
            instrument: wish.instrument,
            action: wish.action,
            px: wish.px,
            qty: wish.qty,
            tif: Tif::Ioc,
            purpose: wish.purpose,
            expires_ns: env.now_ns.saturating_add(self.limits.order_ttl_ns),
            cause: wish.cause,
            level_epoch: self.page.epoch() as u16,
        };
        let order = Order::new(terms, round_id, env.now_ns);
        // C12 asked for room: the table is never full here. If it were, nothing is sent.
        if self.orders.insert(order).is_none() {
            return;
        }
        self.counts.orders += 1;
        let view = view!(self, env);
        self.controls.on_sent(&view, wish);
        self.own.take(&terms, env.market.get(terms.instrument).depth());
        self.own.rebuild(env.market, terms.instrument);
        env.out.push(Record { engine_ts_ns: env.now_ns, ..terms.record(env.cause) });
        if self.limits.mode == Mode::Paper {
            let latency = self.limits.venues[terms.venue.idx()].paper_latency_ns;
            let report = if self.paper.send(&terms, env.now_ns.saturating_add(latency)) {
                Report::Sent { at_ns: env.now_ns, tsc: 0 }
            } else {
                Report::Reject { class: RejectClass::NotSent, code: 0 }
            };
            self.paper_report(env, &terms, &report);
        }
    }

    fn denied(
        &mut self,
        env: &mut Env<'_>,
        breach: &Breach,
        candidate: Option<(&Evaluation, &Cycle)>,
    ) {
        self.counts.denials[breach.control as usize] += 1;
        match breach.act {
            Act::Deny => {}
            Act::Raise(scope, level, cause) => {
                let evidence = breach.observed;
                self.raise(env, (scope, level, cause), (breach.control, evidence));
            }
            Act::HaltInstrument => {
                if self.halts.len() < self.halts.capacity() {
                    self.halts.push(*breach);
                }
            }
        }
        // A gate that is shut denies everything; that is no sign of a fault. Nor is what is too small, or one
        // too many.
        let is_usual = matches!(
            breach.control,
            Control::Level | Control::Size | Control::Rounds | Control::Outranked
        );
        if !is_usual {
            let count = self.controls.on_denial(env.now_ns);
            let most = self.limits.denials_1s_max;
            if most < count && !muted(Mute::DenialRate) {
                let raise = (Scope::Global, Level::Pause, Cause::Control);
                self.raise(env, raise, (Control::Denials, count));
            }
        }
        let instruments = env.universe.instruments.len();
        let place = match candidate {
            Some((evaluation, _)) => instruments + 1 + evaluation.cycle as usize,
            None => usize::from(breach.instrument).min(instruments),
        };
        let places = self.told.len() / Control::COUNT;
        let told = &mut self.told[breach.control as usize * places + place];
        told.pending += 1;
        if env.now_ns.saturating_sub(told.at_ns) < env.params.denial_ns {
            return;
        }
        let times = told.pending;
        *told = Told { at_ns: env.now_ns, pending: 0 };
        let report = BreachReport {
            control: breach.control as u8,
            instrument: breach.instrument,
            observed: breach.observed,
            limit: breach.limit,
        };
        let (evaluation, cycle) = match candidate {
            Some((evaluation, cycle)) => (Some(evaluation), Some(cycle)),
            None => (None, None),
        };
        let denial = Denial {
            verdict: Verdict::Control,
            kind: cycle.map_or(crate::graph::CycleKind::CrossVenue, |cycle| cycle.kind),
            cycle: evaluation.map_or(crate::round::NO_CYCLE, |e| e.cycle),
            times,
            start: cycle.map_or(self.limits.numeraire, |cycle| cycle.start),
            net: evaluation.map_or(Amount(0), |e| e.net),
            spent: evaluation.map_or(Amount(0), |e| e.plan.input()),
            gross_ppb: evaluation.map_or(0, |e| e.gross_ppb),
            buffers_ppm: evaluation.map_or(0, |e| e.buffers_ppm),
            age_ns: evaluation.map_or(0, |e| e.age_ns),
            at_ns: env.now_ns,
            breach: Some(report),
        };
        denial.encode(env.cause, |part| env.out.push(part));
    }

    // Reports.

    /// Takes a report about an order; false where it makes no sense.
    pub fn on_report(&mut self, env: &mut Env<'_>, record: &Record) -> bool {
        let Some((run, key, report)) = Report::read(record) else { return false };
        if let Report::Bust { trade_id, instead } = report {
            return self.on_bust(env, record, (run, key), (trade_id, instead));
        }
        let Some(slot) = self.orders.find(run, key) else {
            return self.strange(env, record, &report);
        };
        let terms = self.orders.get(slot).terms;
        if (terms.venue as u8, terms.instrument) != (record.venue, record.instrument) {
            let broken = crate::orders::Broken::Place as i64;
            let raise = (Scope::Venue(terms.venue), Level::Halt, Cause::Invariant);
            self.raise(env, raise, (Control::Invariant, broken));
            return false;
        }
        self.take(env, slot, &report);
        true
    }

    /// A report about an order that the table does not know any more, or never knew. Never booked twice:
    /// if it is about a fill that we do not know, the venue is paused and the balance audit tells.
    fn strange(&mut self, env: &mut Env<'_>, record: &Record, report: &Report) -> bool {
        self.counts.reports_strange += 1;
        let (Some(venue), Report::Fill { trade_id, .. }) = (Venue::from_tag(record.venue), *report)
        else {
            return true;
        };
        if env.universe.get(record.instrument).is_none() {
            return false;
        }
        if !self.orders.has_trade(record.instrument, trade_id) {
            let raise = (Scope::Venue(venue), Level::Pause, Cause::Reconcile);
            self.raise(env, raise, (Control::Drift, record.data[0]));
        }
        true
    }

    fn take(&mut self, env: &mut Env<'_>, slot: usize, report: &Report) {
        let effect = self.orders.report(slot, report, env.now_ns);
        let terms = self.orders.get(slot).terms;
        let venue = Scope::Venue(terms.venue);
        if let Some(fill) = effect.fill {
            self.book(env, slot, &fill);
        }
        self.counts.fills_repeated += u64::from(effect.repeated);
        if let Some(broken) = effect.broken {
            let raise = (venue, Level::Halt, Cause::Invariant);
            self.raise(env, raise, (Control::Invariant, broken as i64));
        }
        match *report {
            Report::Ack { .. } if self.orders.get(slot).acked_ns == env.now_ns => {
                let latency_ns = env.now_ns - self.orders.get(slot).created_ns;
                self.controls.on_ack(terms.venue, latency_ns);
            }
            Report::Reject { class, code } => self.on_reject(env, &terms, class, code),
            _ => {}
        }
        if effect.before != State::Unknown && effect.after == State::Unknown {
            self.counts.orders_unknown += 1;
            self.ask(env, slot);
            self.unknowns(env, &terms);
        }
        if effect.after == State::AwaitingFills && effect.before != State::AwaitingFills {
            self.ask(env, slot);
        }
        let order = *self.orders.get(slot);
        if order.is_final() && !was_over(effect.before) {
            self.own.ended(terms.run, terms.key, order.filled.max(order.told()), env.now_ns);
            self.free(env.market, terms.instrument);
        }
        if order.is_settled() && effect.before != effect.after {
            match (order.filled.0, order.filled < terms.qty) {
                (0, _) if order.refused.is_some() => self.counts.orders_rejected += 1,
                (0, _) => {}
                (_, true) => self.counts.orders_partial += 1,
                (_, false) => self.counts.orders_filled += 1,
            }
        }
        // A fill that its end did not tell: there may be more of them.
        if effect.fill.is_some_and(|fill| fill.late) {
            self.counts.fills_late += 1;
            self.query(env, slot);
        }
        self.progress(env, order.round);
    }

    fn on_reject(&mut self, env: &mut Env<'_>, terms: &NewOrder, class: RejectClass, code: i64) {
        let venue = Scope::Venue(terms.venue);
        match class {
            RejectClass::Auth => {
                let raise = (venue, Level::Halt, Cause::Venue);
                self.raise(env, raise, (Control::Refusal, code));
            }
            RejectClass::RateLimit => {
                let raise = (venue, Level::Pause, Cause::Venue);
                self.raise(env, raise, (Control::Refusal, code));
            }
            RejectClass::Funds if self.controls.on_funds(terms.venue, env.now_ns) => {
                let raise = (venue, Level::Pause, Cause::Control);
                self.raise(env, raise, (Control::Funds, code));
            }
            _ => {}
        }
    }

    /// C10 the moment an order becomes unknown, not at the next entry.
    fn unknowns(&mut self, env: &mut Env<'_>, terms: &NewOrder) {
        if muted(Mute::C10) {
            return;
        }
        let at_venue = self.orders.unknown_count(Some(terms.venue)) as i64;
        let in_all = self.orders.unknown_count(None) as i64;
        if self.limits.venues[terms.venue.idx()].unknown_max < at_venue {
            let raise = (Scope::Venue(terms.venue), Level::Pause, Cause::Unknown);
            self.raise(env, raise, (Control::Unknown, at_venue));
        }
        if self.limits.unknown_max < in_all {
            let raise = (Scope::Global, Level::Pause, Cause::Unknown);
            self.raise(env, raise, (Control::Unknown, in_all));
        }
    }

    /// Books a fill: three postings, its round's flows, and what the controls remember.
    fn book(&mut self, env: &mut Env<'_>, slot: usize, fill: &Fill) {
        let order = *self.orders.get(slot);
        let terms = order.terms;
        let rules = &env.universe.instruments[usize::from(terms.instrument)];
        let buys = terms.action == Action::Buy;
        let quote = quote_of(fill.px, fill.qty.0, shift_of(env.universe, terms.instrument), buys);
        let qty = i128::from(fill.qty.0);
        self.counts.fills += 1;
        let Fill { px, fee, asset, .. } = *fill;
        let moved = FillTerms { px, qty: fill.qty, fee, asset };
        let entries = entries_of(env.universe, (terms.instrument, terms.action), &moved);
        if self.ledger.asset_count() <= usize::from(fill.asset) {
            let raise = (Scope::Venue(terms.venue), Level::Pause, Cause::Reconcile);
            self.raise(env, raise, (Control::Drift, fill.asset.into()));
        }
        let name = (terms.run, terms.key);
        let mut flows = Flows::default();
        for (asset, delta, tag) in entries {
            if delta == 0 {
                continue;
            }
            let posting = self.ledger.post(terms.venue, asset, delta, tag, name);
            env.out.push(posting.record(env.cause));
            if tag == Tag::Trade || !muted(Mute::FeeFlow) {
                // Three entries always fit.
                let _ = flows.add(terms.venue, asset, delta);
            }
        }
        let fee_base = if entries[2].0 == rules.base { qty } else { quote };
        let fee = i128::from(fill.fee.0);
        let is_alike = entries[2].0 == rules.base || entries[2].0 == rules.quote;
        let model = i64::from(rules.taker_fee.0);
        let fee_ppm =
            if is_alike { clamp(fee.saturating_mul(PPM) / fee_base.max(1)).0 } else { model };
        let view = view!(self, env);
        let fee_worth = view.worth(entries[2].0, fee, Bias::High).unwrap_or(0);
        let at = (terms.venue, terms.instrument);
        let error = self.controls.on_fill(at, (fee_ppm, model), fee_worth, env.now_ns);
        let error_max = self.limits.venues[terms.venue.idx()].fee_error_ppm_max;
        if let Some(error) = error.filter(|error| error_max < error.abs()) {
            let raise = (Scope::Venue(terms.venue), Level::Pause, Cause::Control);
            self.raise(env, raise, (Control::FeeModel, error));
        }
        self.flow(env, slot, &flows, fill.qty);
    }

    /// Adds a fill's flows to its round; to an orphan round where that is over.
    fn flow(&mut self, env: &mut Env<'_>, slot: usize, flows: &Flows, qty: Qty) {
        let terms = self.orders.get(slot).terms;
        let round_id = self.orders.get(slot).round;
        let place = match self.rounds.find(round_id) {
            Some(place) => Some(place),
            None => self.adopt(env),
        };
        let Some(place) = place else {
            // No place for another round: kept as dust, whose cap calls an operator.
            self.keep(env, flows.items());
            return;
        };
        let Some(round) = self.rounds.get_mut(place) else { return };
        self.orders.get_mut(slot).round = round.id;
        // Only what does not fit becomes dust: what is in the round is hedged there.
        let mut over = Flows::default();
        for (venue, asset, delta) in flows.items() {
            if !round.flows.add(*venue, *asset, *delta) {
                let _ = over.add(*venue, *asset, *delta);
            }
        }
        let legs = round.legs_mut();
        if let Some(leg) = legs.get_mut(usize::from(terms.key.n()))
            && terms.purpose == Purpose::Entry
            && (leg.instrument, leg.action) == (terms.instrument, terms.action)
        {
            leg.filled = Qty(leg.filled.0.saturating_add(qty.0));
        }
        if !over.items().is_empty() {
            self.keep(env, over.items());
        }
    }

    /// A fill was taken back, or corrected: what was booked of it is reversed, leg by leg, in an account of
    /// its own, what it is instead is booked as a fill is, and the venue is halted. What that leaves naked
    /// is exposure at once and waits for an operator: a venue whose trades are not final is no reason to
    /// trade. Said again it changes nothing; of a fill that nobody knows nothing is booked.
    fn on_bust(
        &mut self,
        env: &mut Env<'_>,
        record: &Record,
        name: (u32, OrderKey),
        (trade_id, instead): (u64, Option<FillTerms>),
    ) -> bool {
        let Some(venue) = Venue::from_tag(record.venue) else { return false };
        let instrument = record.instrument;
        let fits = env.universe.get(instrument).is_some_and(|rules| rules.venue == venue);
        // Nobody takes back what was filled on paper.
        if !fits || self.limits.mode == Mode::Paper {
            return false;
        }
        let change = match self.orders.take_back(name, instrument, trade_id, instead) {
            TakenBack::Repeated => {
                self.counts.busts_repeated += 1;
                return true;
            }
            TakenBack::Unknown | TakenBack::Conflict => {
                self.counts.busts_strange += 1;
                None
            }
            TakenBack::Changed(change) => Some(change),
        };
        let flows = change.map(|change| self.reverse(env, (venue, instrument), name, &change));
        if !muted(Mute::BustHalt) {
            let raise = (Scope::Venue(venue), Level::Halt, Cause::Bust);
            self.raise(env, raise, (Control::Bust, trade_id as i64));
        }
        if let (Some(change), Some(flows)) = (change, flows) {
            self.counts.busts += 1;
            self.flow_back(env, name.1, &change, &flows);
        }
        true
    }

    /// Books what a change of a fill moves, and returns it.
    fn reverse(
        &mut self,
        env: &mut Env<'_>,
        (venue, instrument): (Venue, u16),
        name: (u32, OrderKey),
        change: &Change,
    ) -> Flows {
        let mut flows = Flows::default();
        if muted(Mute::Bust) {
            return flows;
        }
        for (fill, sign) in [(change.was, -1), (change.is, 1)] {
            let Some(fill) = fill else { continue };
            for (asset, delta, tag) in entries_of(env.universe, (instrument, change.action), &fill)
            {
                if delta == 0 {
                    continue;
                }
                let tag = if sign < 0 { Tag::Bust } else { tag };
                let before = self.ledger.account(venue, asset).balance;
                let posting = self.ledger.post(venue, asset, delta * sign, tag, name);
                let account = self.ledger.account(venue, asset);
                assert!(
                    account.is_sum() && account.balance - before == delta * sign,
                    "a reversal moves what the fill moved"
                );
                env.out.push(posting.record(env.cause));
                // Base, quote and two fees always fit.
                let _ = flows.add(venue, asset, delta * sign);
            }
        }
        flows
    }

    /// Adds what a change of a fill moved to its round, or to the one that is kept for such, and holds it.
    fn flow_back(&mut self, env: &mut Env<'_>, key: OrderKey, change: &Change, flows: &Flows) {
        let of_order = change.slot.and_then(|slot| self.rounds.find(self.orders.get(slot).round));
        let kept = self.rounds.find(self.busted).filter(|_| self.busted != 0);
        let place = match of_order.or(kept) {
            Some(place) => Some(place),
            None => self.adopt(env),
        };
        let Some(place) = place else {
            self.keep(env, flows.items());
            return;
        };
        let Some(round) = self.rounds.get_mut(place) else { return };
        if of_order.is_none() {
            self.busted = round.id;
        }
        let mut over = Flows::default();
        for (venue, asset, delta) in flows.items() {
            if !round.flows.add(*venue, *asset, *delta) {
                let _ = over.add(*venue, *asset, *delta);
            }
        }
        if !muted(Mute::BustHeld) {
            round.stage = Stage::Held;
        }
        if let Some(slot) = change.slot {
            let terms = self.orders.get(slot).terms;
            let qty = |fill: Option<FillTerms>| fill.map_or(0, |fill| fill.qty.0);
            let lost = qty(change.was) - qty(change.is);
            if let Some(leg) = round.legs_mut().get_mut(usize::from(key.n()))
                && terms.purpose == Purpose::Entry
                && (leg.instrument, leg.action) == (terms.instrument, terms.action)
            {
                leg.filled = Qty(leg.filled.0.saturating_sub(lost).max(0));
            }
            self.orders.get_mut(slot).round = round.id;
        }
        // Told in any case, and before anything else moves: a journal's reader knows by that whose it is.
        self.tell_round(env, place);
        if !over.items().is_empty() {
            self.keep(env, over.items());
        }
        self.progress_at(env, place);
    }

    /// Opens a round for what belongs to none.
    fn adopt(&mut self, env: &mut Env<'_>) -> Option<usize> {
        let place = self.rounds.open(self.limits.numeraire, env.now_ns)?;
        let round = self.rounds.get_mut(place)?;
        (round.is_orphan, round.stage) = (true, Stage::Hedge);
        self.counts.orphans += 1;
        // Told before anything moves in it: a journal's reader knows by that whose the fill is.
        self.tell_round(env, place);
        Some(place)
    }

    fn keep(&mut self, env: &mut Env<'_>, flows: &[(Venue, AssetId, i128)]) {
        for (_, asset, delta) in flows {
            if *asset != self.limits.numeraire {
                let posting = self.ledger.add_dust(*asset, *delta, (0, OrderKey(0)));
                env.out.push(posting.record(env.cause));
            }
        }
        self.check_dust(env);
    }

    fn check_dust(&mut self, env: &mut Env<'_>) {
        for asset in (0..env.universe.assets.len() as u16).map(AssetId) {
            let dust = self.ledger.dust(asset);
            let most = i128::from(self.limits.assets[usize::from(asset.0)].dust_max.0);
            if most < dust.abs() && !muted(Mute::DustCap) {
                let raise = (Scope::Global, Level::Pause, Cause::Control);
                self.raise(env, raise, (Control::Dust, clamp(dust).0));
            }
        }
    }

    // Queries and time-outs.

    fn query(&mut self, env: &mut Env<'_>, slot: usize) {
        if muted(Mute::QueryUnknown) {
            return;
        }
        let terms = self.orders.get(slot).terms;
        let per_s = self.limits.venues[terms.venue.idx()].queries_per_s;
        if self.limits.mode != Mode::Live
            || !self.controls.may_query(terms.venue, per_s, env.now_ns)
        {
            return;
        }
        self.counts.queries += 1;
        let (venue, instrument) = (terms.venue, terms.instrument);
        put(env, request(Kind::OrderQuery, venue, instrument, terms.run, terms.key));
    }

    /// Asks for an order now, and again with a doubling wait until it is settled.
    fn ask(&mut self, env: &mut Env<'_>, slot: usize) {
        let (wait, most) = (self.limits.query_wait_ns, self.limits.query_wait_ns_max);
        let order = self.orders.get_mut(slot);
        let wait = order.query_wait_ns.clamp(wait, most);
        order.query_ns = env.now_ns.saturating_add(wait);
        order.query_wait_ns = wait.saturating_mul(2).min(most);
        if order.unknown_ns == 0 {
            order.unknown_ns = env.now_ns;
        }
        if muted(Mute::NoResend) {
            let terms = order.terms;
            env.out.push(Record { engine_ts_ns: env.now_ns, ..terms.record(env.cause) });
        }
        self.query(env, slot);
    }

    fn time_out(&mut self, env: &mut Env<'_>) {
        let mut position = 0;
        while position < self.orders.open_count() {
            let slot = self.orders.open_slot(position);
            let order = *self.orders.get(slot);
            position += 1;
            let rests = matches!(order.terms.tif, Tif::Gtc | Tif::PostOnly);
            let waited = env.now_ns - order.created_ns;
            let is_known = order.is_final() || order.state() == State::Unknown;
            if !is_known && self.limits.ack_timeout_ns < waited && !(rests && order.acked_ns != 0) {
                self.orders.get_mut(slot).overdue(env.now_ns);
                self.orders.file(slot);
                self.counts.orders_unknown += 1;
                self.ask(env, slot);
                self.unknowns(env, &order.terms);
                self.progress(env, order.round);
                continue;
            }
            let asks = matches!(order.state(), State::Unknown | State::AwaitingFills);
            if asks && order.query_ns <= env.now_ns {
                self.ask(env, slot);
            }
            let too_long = self.limits.unknown_ns_max;
            if asks && too_long < env.now_ns - order.unknown_ns {
                let raise = (Scope::Venue(order.terms.venue), Level::Pause, Cause::Unknown);
                self.raise(env, raise, (Control::LongUnknown, order.terms.key.0));
            }
        }
    }

    // Rounds.

    /// Looks at a round whose orders changed.
    fn progress(&mut self, env: &mut Env<'_>, round_id: u64) {
        if round_id != NO_ROUND
            && let Some(place) = self.rounds.find(round_id)
        {
            self.progress_at(env, place);
        }
    }

    fn progress_at(&mut self, env: &mut Env<'_>, place: usize) {
        let Some(round) = self.rounds.get(place).copied() else { return };
        let mut waits = false;
        let mut owed = Flows::default();
        for order in self.orders.open().filter(|order| order.round == round.id) {
            waits |= !order.is_final();
            if order.is_final() {
                claims(env.universe, order, &mut owed);
            }
        }
        if waits && !muted(Mute::HedgeWaits) {
            return;
        }
        // What was filled for certain but is not booked yet is hedged like what is.
        let mut left = round.flows;
        for (venue, asset, delta) in owed.items() {
            let _ = left.add(*venue, *asset, *delta);
        }
        if round.stage == Stage::Entry {
            self.count_legs(env, &round);
        }
        if round.stage != Stage::Held && self.hedge(env, place, &left) {
            return;
        }
        // A held round ends once nothing that can be traded is left over: by late fills, or by hand.
        let open = self.orders.open().any(|order| order.round == round.id);
        if !open && !self.is_exposed(env, place, &left) {
            self.settle(env, place);
        }
    }

    fn is_exposed(&self, env: &Env<'_>, place: usize, left: &Flows) -> bool {
        let Some(round) = self.rounds.get(place) else { return false };
        let view = view!(self, env);
        let mut exposed = false;
        left.each_asset(|asset, amount| {
            if asset != round.start && amount != 0 && !muted(Mute::Hedge) {
                let choice = hedge::choose(&view, (round, left), (asset, amount), 0, &[]);
                exposed |= choice != Choice::TooLittle;
            }
        });
        exposed
    }

    /// The circuit breaker: a venue whose legs fail while others' fill is paused.
    fn count_legs(&mut self, env: &mut Env<'_>, round: &crate::round::Round) {
        // What a venue told to be filled counts, also where it has not told the single fills yet.
        let is_filled = |(n, leg): (usize, &crate::round::RoundLeg)| {
            let told = |order: &Order| {
                order.round == round.id
                    && usize::from(order.terms.key.n()) == n
                    && 0 < order.told().0
            };
            0 < leg.filled.0 || self.orders.all().any(told)
        };
        let mut filled = [false; crate::graph::LEGS_MAX];
        for (idx, leg) in round.legs().iter().enumerate() {
            filled[idx] = is_filled((idx, leg));
        }
        if !filled.contains(&true) {
            return;
        }
        for (idx, leg) in round.legs().iter().enumerate() {
            let Some(venue) = Venue::from_tag(leg.venue) else { continue };
            let row = self.controls.on_legs(venue, !filled[idx]);
            let most = self.limits.venues[venue.idx()].single_legs_max;
            if most <= row && !muted(Mute::SingleLegs) {
                let raise = (Scope::Venue(venue), Level::Pause, Cause::Control);
                self.raise(env, raise, (Control::SingleLegs, row));
            }
        }
    }

    /// Hedges what is left over; true where the round has to wait for it.
    fn hedge(&mut self, env: &mut Env<'_>, place: usize, left: &Flows) -> bool {
        if muted(Mute::Hedge) {
            return false;
        }
        let Some(round) = self.rounds.get_mut(place) else { return false };
        let exposed_ns = if round.exposed_ns == 0 { env.now_ns } else { round.exposed_ns };
        let since = env.now_ns - exposed_ns;
        let takes_back = self.limits.hedge_ns < since;
        let slippage_ppm = match takes_back {
            true => self.limits.unwind_slippage_ppm,
            false => self.limits.hedge_slippage_ppm,
        };
        let too_soon =
            round.hedges != 0 && env.now_ns - round.hedged_ns < self.limits.hedge_wait_ns;
        let over = self.limits.hedge_ns + self.limits.unwind_ns < since
            || self.limits.hedges_max <= round.hedges;
        let over = over && !muted(Mute::HedgeBudget);
        let (mut waits, mut sent) = (false, false);
        let mut assets = [(AssetId(0), 0i128); crate::round::FLOWS];
        let mut count = 0;
        let start = round.start;
        left.each_asset(|asset, amount| {
            if asset != start && amount != 0 {
                assets[count] = (asset, amount);
                count += 1;
            }
        });
        for leftover in &assets[..count] {
            let mut not = [u16::MAX; TRIES];
            for tries in 0..=TRIES {
                let Some(round) = self.rounds.get(place).copied() else { break };
                let view = view!(self, env);
                let choice = hedge::choose(
                    &view,
                    (&round, left),
                    *leftover,
                    slippage_ppm,
                    &not[..tries.min(TRIES)],
                );
                let wish = match choice {
                    Choice::TooLittle => break,
                    Choice::Send(wish) if !over && !too_soon && tries < TRIES => wish,
                    Choice::Wait | Choice::Send(_) => {
                        waits = true;
                        break;
                    }
                };
                if let Err(breach) = self.controls.check(&view, &[wish]) {
                    self.denied(env, &breach, None);
                    not[tries] = wish.instrument;
                    waits = true;
                    continue;
                }
                match wish.purpose {
                    Purpose::Hedge => self.counts.hedged += 1,
                    _ => self.counts.unwound += 1,
                }
                if let Some(round) = self.rounds.get_mut(place) {
                    round.exposed_ns = exposed_ns;
                    (round.hedges, round.hedged_ns) = (round.hedges + 1, env.now_ns);
                    if round.stage == Stage::Entry {
                        round.stage = Stage::Hedge;
                    }
                }
                self.tell_round(env, place);
                self.send(env, place, &wish);
                sent = true;
                break;
            }
        }
        let Some(round) = self.rounds.get_mut(place) else { return true };
        if waits || sent {
            round.exposed_ns = exposed_ns;
        }
        if waits && round.stage == Stage::Entry {
            round.stage = Stage::Hedge;
            self.tell_round(env, place);
        }
        if waits && over && !sent {
            self.hold(env, place);
        }
        waits || sent
    }

    fn hold(&mut self, env: &mut Env<'_>, place: usize) {
        let Some(round) = self.rounds.get_mut(place) else { return };
        round.stage = Stage::Held;
        let id = round.id as i64;
        self.counts.held += 1;
        self.tell_round(env, place);
        let raise = (Scope::Global, Level::Pause, Cause::Control);
        self.raise(env, raise, (Control::Held, id));
    }

    fn settle(&mut self, env: &mut Env<'_>, place: usize) {
        let Some(round) = self.rounds.get_mut(place) else { return };
        round.stage = Stage::Settled;
        let round = *round;
        let view = view!(self, env);
        let own = clamp(round.flows.of(round.start, None)).0;
        let alone = || view.worth(round.start, own.into(), Bias::Low).unwrap_or(0);
        let worth = hedge::worth_of(&view, &round.flows).unwrap_or_else(alone);
        self.tell_round(env, place);
        self.rounds.close(place);
        if self.orphan == round.id {
            self.orphan = 0;
        }
        if self.busted == round.id {
            self.busted = 0;
        }
        let moved = round.flows.items().iter().any(|item| item.2 != 0);
        let filled = round.filled_legs();
        if !round.is_orphan {
            self.counts.rounds_filled += u64::from(filled[0] == round.legs().len());
            self.counts.rounds_missed += u64::from(filled[2] == round.legs().len());
        }
        if !moved {
            return;
        }
        round.flows.each_asset(|asset, amount| {
            if asset != round.start && amount != 0 {
                let name = (self.limits.run, OrderKey::new(round.id, 0));
                let posting = self.ledger.add_dust(asset, amount, name);
                env.out.push(posting.record(env.cause));
            }
        });
        let mut instruments = [0u16; LEGS_MAX];
        for (idx, leg) in instruments.iter_mut().zip(round.legs()) {
            *idx = leg.instrument;
        }
        self.ledger.realise(worth, &instruments[..round.legs().len()]);
        if !round.is_orphan {
            let input = i128::from(round.input.0.max(1));
            let ppm = |amount: i64| clamp((i128::from(amount) * PPM).div_euclid(input)).0;
            self.controls.on_round(ppm(round.expected.0), ppm(own), worth);
        }
        self.mark(env);
        self.tell_pnl(env);
        self.check_dust(env);
        self.sweep(env);
    }

    /// Opens a round for dust that has become enough to trade.
    fn sweep(&mut self, env: &mut Env<'_>) {
        for asset in (0..env.universe.assets.len() as u16).map(AssetId) {
            let dust = self.ledger.dust(asset);
            if dust == 0 || asset == self.limits.numeraire || muted(Mute::Hedge) {
                continue;
            }
            let probe = crate::round::Round::new(0, self.limits.numeraire, env.now_ns);
            let view = view!(self, env);
            // Only where it can be traded now: it has waited, it can wait on.
            let slippage = self.limits.hedge_slippage_ppm;
            let choice = hedge::choose(&view, (&probe, &probe.flows), (asset, dust), slippage, &[]);
            let Choice::Send(wish) = choice else { continue };
            if self.level(wish.venue) > Level::Armed {
                continue;
            }
            let Some(place) = self.adopt(env) else { return };
            let Some(round) = self.rounds.get_mut(place) else { return };
            let _ = round.flows.add(wish.venue, asset, dust);
            let name = (self.limits.run, OrderKey::new(round.id, 0));
            let posting = self.ledger.add_dust(asset, -dust, name);
            env.out.push(posting.record(env.cause));
            self.progress_at(env, place);
        }
    }

    fn tell_round(&mut self, env: &mut Env<'_>, place: usize) {
        let Some(round) = self.rounds.get(place) else { return };
        let view = view!(self, env);
        let worth = hedge::worth_of(&view, &round.flows).map_or(Amount(0), clamp);
        let report = RoundReport::new(round, self.limits.run, worth, env.now_ns);
        let cause = Record { engine_ts_ns: env.now_ns, asset: 0, ..*env.cause };
        let numeraire = self.limits.numeraire.0;
        report.encode(&cause, |part| env.out.push(Record { asset: numeraire, ..part }));
    }

    // Profit and audits.

    fn mark(&mut self, env: &mut Env<'_>) {
        let view = view!(self, env);
        let Some(marked) = view.marked() else { return };
        let lost = controls::losses(&view, marked);
        self.ledger.mark(marked, env.now_ns);
        if let Some(Breach { act: Act::Raise(scope, level, cause), observed, .. }) = lost {
            self.raise(env, (scope, level, cause), (Control::Loss, observed));
        }
    }

    fn tell_pnl(&mut self, env: &mut Env<'_>) {
        let pnl = *self.ledger.pnl();
        if pnl != self.told_pnl {
            self.told_pnl = pnl;
            let cause = Record { engine_ts_ns: env.now_ns, ..*env.cause };
            env.out.push(pnl.record(self.limits.numeraire, &cause));
        }
    }

    /// Takes a venue's word about a balance; false where it makes no sense.
    pub fn on_balance(&mut self, env: &mut Env<'_>, balance: &Balance) -> bool {
        let asset = AssetId(balance.asset);
        if self.ledger.asset_count() <= usize::from(asset.0) || balance.total.0 < 0 {
            return false;
        }
        let is_open = self.ledger.account(balance.venue, asset).is_open;
        if balance.source != BalanceSource::Opening {
            self.ledger.account_mut(balance.venue, asset).told = Some((balance.total, env.now_ns));
        }
        // The first word opens the account; every later one is an audit.
        let opens = match balance.source {
            BalanceSource::Opening | BalanceSource::Snapshot => !is_open,
            BalanceSource::Stream => false,
        };
        if opens {
            let total = i128::from(balance.total.0);
            let amount = total - self.ledger.account(balance.venue, asset).balance;
            let name = (self.limits.run, OrderKey(0));
            let posting = self.ledger.post(balance.venue, asset, amount, Tag::Opening, name);
            env.out.push(posting.record(env.cause));
            if self.limits.mode == Mode::Paper {
                self.paper.deposit(balance.venue, asset, total);
            }
        } else if balance.source != BalanceSource::Opening {
            self.audit(env, balance.venue, asset, true);
        }
        true
    }

    fn audit(&mut self, env: &mut Env<'_>, venue: Venue, asset: AssetId, is_word: bool) {
        if muted(Mute::BalanceAudit) || self.limits.mode != Mode::Live {
            return;
        }
        let mut pending: i128 = 0;
        for order in self.orders.open().filter(|order| order.terms.venue == venue) {
            let rules = &env.universe.instruments[usize::from(order.terms.instrument)];
            let qty = order.remaining().0;
            let shift = shift_of(env.universe, order.terms.instrument);
            if rules.base == asset {
                pending += i128::from(qty);
            } else if rules.quote == asset {
                // Twice: a seller's price may be better than the limit, and there are fees.
                pending += quote_of(order.terms.px, qty, shift, true).saturating_mul(2);
            }
        }
        let limits = &self.limits.assets[usize::from(asset.0)];
        let bounds = (limits.drift_max, self.limits.drift_ns_max);
        if let Audit::Drift(by) =
            self.ledger.audit(venue, asset, bounds, (pending, is_word), env.now_ns)
        {
            let raise = (Scope::Venue(venue), Level::Pause, Cause::Reconcile);
            self.raise(env, raise, (Control::Drift, clamp(by).0));
        }
    }

    /// An operator's adjustment: a deposit, a withdrawal, a correction.
    pub fn on_adjust(&mut self, env: &mut Env<'_>, venue: Venue, asset: AssetId, by: i64) -> bool {
        if self.ledger.asset_count() <= usize::from(asset.0) {
            return false;
        }
        let name = (self.limits.run, OrderKey(0));
        let posting = self.ledger.post(venue, asset, by.into(), Tag::External, name);
        env.out.push(posting.record(env.cause));
        if self.limits.mode == Mode::Paper {
            self.paper.deposit(venue, asset, by.into());
        }
        true
    }

    /// An operator's cancel of everything, or of one venue's orders.
    pub fn on_cancel_all(&mut self, env: &mut Env<'_>, venue: Option<Venue>) {
        self.cancel_all(env, venue.map_or(Scope::Global, Scope::Venue));
    }

    /// Takes a session's word.
    pub fn on_session(&mut self, session: Session) {
        self.controls.on_session(session);
    }

    /// Takes a word about another process.
    pub fn on_peer(&mut self, peer: Peer) {
        self.controls.on_peer(peer);
    }

    /// Takes a word about the clock.
    pub fn on_clock(&mut self, record: &Record, now_ns: i64) {
        let [offset_ns, bound_ns, synced, _] = record.data;
        self.controls.on_clock(offset_ns, bound_ns, synced == 1, now_ns);
    }

    /// Notes that an instrument's rules were told.
    pub fn on_rules(&mut self, instrument: u16, now_ns: i64) {
        self.controls.on_rules(instrument, now_ns);
    }

    /// Takes a word about an open order that is not ours; false where it makes no sense.
    pub fn on_foreign(&mut self, record: &Record, venue: Venue) -> bool {
        let [px, qty, side, id] = record.data;
        let Some(side) = Side::from_idx(side) else { return false };
        if px < 0 || qty < 0 {
            return false;
        }
        let action = if side == Side::Bid { Action::Buy } else { Action::Sell };
        self.controls.on_foreign((venue, record.instrument), action, Px(px), Qty(qty), id);
        true
    }

    /// Notes that a book changed: what our own orders took of a level that is shown anew is over.
    pub fn on_book(&mut self, market: &mut Market, record: &Record, now_ns: i64) {
        if self.own.is_empty() {
            return;
        }
        let recv_ns = record.recv_ts_ns.min(now_ns);
        let level = match record.kind() {
            Some(Kind::Level) => match Side::from_idx(record.data[2]) {
                Some(side) => Some((side, Px(record.data[0]))),
                None => return,
            },
            Some(Kind::Clear) => None,
            _ => {
                self.own.rebuild(market, record.instrument);
                return;
            }
        };
        self.own.shown(record.instrument, level, recv_ns);
        self.own.rebuild(market, record.instrument);
    }

    // Time and paper.

    /// Lets paper orders arrive and report. Called at the end of every batch and by the timer.
    pub fn on_paper(&mut self, env: &mut Env<'_>) {
        if self.limits.mode != Mode::Paper || self.paper.flight_count() == 0 {
            return;
        }
        let response = self.limits.venues.map(|venue| venue.paper_response_ns);
        let rules = (env.universe, env.params);
        self.paper.execute(rules, env.market, &mut self.own, response, env.now_ns);
        while let Some(mut delivery) = self.paper.deliver(env.now_ns) {
            let terms = *delivery.terms();
            for report in &mut delivery {
                self.paper_report(env, &terms, &report);
            }
        }
    }

    fn paper_report(&mut self, env: &mut Env<'_>, terms: &NewOrder, report: &Report) {
        let record = report.record(terms.venue, terms.instrument, terms.run, terms.key);
        put(env, Record { flags: record.flags | flag::OUTPUT, ..record });
        if let Some(slot) = self.orders.find(terms.run, terms.key) {
            self.take(env, slot, report);
        }
    }

    /// Time passed: orders become overdue, rounds go on, limits are looked at.
    pub fn on_timer(&mut self, env: &mut Env<'_>) {
        if self.ledger.turn_day(env.now_ns) {
            self.tell_pnl(env);
        }
        self.on_paper(env);
        self.time_out(env);
        for place in 0..self.rounds.places() {
            if self.rounds.get(place).is_some() {
                self.progress_at(env, place);
            }
        }
        if self.limits.mode != Mode::Paper {
            let before = env.now_ns.saturating_sub(self.limits.own_interest_ns);
            let mut concerned = [u16::MAX; 16];
            let mut count = 0;
            self.own.expire(before, |instrument| {
                if !concerned.contains(&instrument) && count < concerned.len() {
                    concerned[count] = instrument;
                    count += 1;
                }
            });
            for instrument in &concerned[..count] {
                self.free(env.market, *instrument);
            }
        }
        if env.now_ns - self.audited_ns < SECOND_NS {
            return;
        }
        self.audited_ns = env.now_ns;
        self.mark(env);
        self.tell_pnl(env);
        self.sweep(env);
        for venue in Venue::ALL {
            for asset in (0..env.universe.assets.len() as u16).map(AssetId) {
                self.audit(env, venue, asset, false);
            }
        }
        for instrument in 0..env.universe.instruments.len() as u16 {
            let view = view!(self, env);
            let moved = self.controls.sample(&view, instrument);
            if let Some((observed, limit)) = moved
                && self.halts.len() < self.halts.capacity()
            {
                let act = Act::HaltInstrument;
                self.counts.denials[Control::Moves as usize] += 1;
                self.halts.push(Breach {
                    control: Control::Moves,
                    instrument,
                    observed,
                    limit,
                    act,
                });
            }
        }
    }

    // Earlier runs.

    /// Takes a record that [`crate::restore::collect`] made of an earlier run's journal.
    pub fn on_restore(&mut self, env: &mut Env<'_>, record: &Record) -> bool {
        let inner = Record { kind: record.part, part: 0, flags: 0, ..*record };
        match inner.kind() {
            Some(Kind::Ledger) => self.restore_posting(env, &inner),
            Some(Kind::Pnl) => match Pnl::read(&inner) {
                Some(pnl) => {
                    self.ledger.carry(&pnl, self.limits.numeraire);
                    true
                }
                None => false,
            },
            Some(Kind::OrderNew) => self.restore_order(env, &inner),
            Some(Kind::Round) => self.restore_flow(env, &inner),
            _ => self.restore_report(env, &inner),
        }
    }

    fn restore_posting(&mut self, env: &mut Env<'_>, inner: &Record) -> bool {
        let Some(posting) = Posting::read(inner) else { return false };
        if self.ledger.asset_count() <= usize::from(posting.asset.0) {
            return false;
        }
        let after = i128::from(posting.after.0);
        let told = match posting.venue {
            Some(venue) => {
                let name = (self.limits.run, OrderKey(0));
                if self.limits.mode == Mode::Paper {
                    self.paper.deposit(venue, posting.asset, after);
                }
                self.ledger.post(venue, posting.asset, after, Tag::Carried, name)
            }
            None => self.ledger.add_dust(posting.asset, after, (0, OrderKey(0))),
        };
        env.out.push(told.record(env.cause));
        true
    }

    /// The round that everything of earlier runs belongs to.
    fn orphan_place(&mut self, env: &mut Env<'_>) -> Option<usize> {
        if let Some(place) = self.rounds.find(self.orphan).filter(|_| self.orphan != 0) {
            return Some(place);
        }
        let place = self.adopt(env)?;
        self.orphan = self.rounds.get(place)?.id;
        Some(place)
    }

    fn restore_order(&mut self, env: &mut Env<'_>, inner: &Record) -> bool {
        let Some(terms) = NewOrder::read(inner) else { return false };
        if muted(Mute::RestoreOrders) {
            return true;
        }
        let fits = env.universe.get(terms.instrument).is_some_and(|r| r.venue == terms.venue);
        if !fits || terms.run == self.limits.run {
            return false;
        }
        if self.limits.mode == Mode::Paper {
            // A paper order dies with its run: nobody is left to fill it, or to ask.
            return true;
        }
        let Some(place) = self.orphan_place(env) else { return false };
        let Some(round) = self.rounds.get(place) else { return false };
        let order = Order::new(terms, round.id, env.now_ns);
        let Some(slot) = self.orders.insert(order) else { return false };
        let lost = Report::Unknown { cause: UnknownCause::Restart };
        self.orders.report(slot, &lost, env.now_ns);
        self.orders.get_mut(slot).overdue(env.now_ns);
        self.counts.orders_unknown += 1;
        // Asked for by the first timer, once the sessions may be up.
        true
    }

    fn restore_flow(&mut self, env: &mut Env<'_>, inner: &Record) -> bool {
        let Some(venue) = Venue::from_tag(inner.venue) else { return false };
        let asset = AssetId(inner.asset);
        if self.ledger.asset_count() <= usize::from(asset.0) {
            return false;
        }
        let amount = inner.data[0].into();
        let place = self.orphan_place(env);
        let round = place.and_then(|place| self.rounds.get_mut(place));
        if !round.is_some_and(|round| round.flows.add(venue, asset, amount)) {
            // No place for it: kept as dust, which is swept or calls an operator, and not forgotten.
            self.keep(env, &[(venue, asset, amount)]);
        }
        true
    }

    /// A report of an earlier run: the order's own facts, and the trade's id; money is in the balances.
    fn restore_report(&mut self, env: &mut Env<'_>, inner: &Record) -> bool {
        let Some((run, key, report)) = Report::read(inner) else { return false };
        if env.universe.get(inner.instrument).is_none() {
            return false;
        }
        if let Report::Bust { trade_id, instead } = report {
            // What it moved is in the balances and in what was left over.
            self.orders.take_back((run, key), inner.instrument, trade_id, instead);
            return true;
        }
        match self.orders.find(run, key) {
            Some(slot) if self.orders.get(slot).terms.instrument == inner.instrument => {
                self.orders.report(slot, &report, env.now_ns);
            }
            _ if !muted(Mute::RestoreTrades) => {
                let action = crate::restore::action_of(inner);
                self.orders.remember((run, key), inner.instrument, action, &report);
            }
            _ => {}
        }
        true
    }
}

const SECOND_NS: i64 = 1_000_000_000;

const WISH: Wish = Wish {
    venue: Venue::Binance,
    instrument: 0,
    action: Action::Buy,
    px: Px(0),
    qty: Qty(0),
    purpose: Purpose::Entry,
    cause: 0,
    edge_ppm: 0,
};

/// Returns what a fill moves: base, quote and fee, each in its own asset. A fee in an asset that we do not
/// know cannot be booked and moves nothing; the balance audit will differ.
fn entries_of(
    universe: &Universe,
    (instrument, action): (u16, Action),
    fill: &FillTerms,
) -> [(AssetId, i128, Tag); 3] {
    let rules = &universe.instruments[usize::from(instrument)];
    let buys = action == Action::Buy;
    let quote = quote_of(fill.px, fill.qty.0, shift_of(universe, instrument), buys);
    let sign = if buys { 1 } else { -1 };
    let is_known = usize::from(fill.asset) < universe.assets.len();
    let fee = match is_known {
        true => (AssetId(fill.asset), -i128::from(fill.fee.0), Tag::Fee),
        false => (rules.quote, 0, Tag::Fee),
    };
    [
        (rules.base, i128::from(fill.qty.0) * sign, Tag::Trade),
        (rules.quote, -quote * sign, Tag::Trade),
        fee,
    ]
}

fn was_over(state: State) -> bool {
    matches!(state, State::Done | State::Rejected | State::AwaitingFills)
}

/// Adds what an ended order is told to have filled and we have not booked: base for certain, quote at
/// the told cost or the limit.
fn claims(universe: &Universe, order: &Order, owed: &mut Flows) {
    let missing = order.remaining().0;
    if missing == 0 {
        return;
    }
    let terms = &order.terms;
    let rules = &universe.instruments[usize::from(terms.instrument)];
    let buys = terms.action == Action::Buy;
    let sign = if buys { 1 } else { -1 };
    let qty = i128::from(missing);
    let quote = quote_of(terms.px, missing, shift_of(universe, terms.instrument), buys);
    let fee = i128::from(rules.taker_fee.0);
    let fee_of = |amount: i128| -(-amount * fee).div_euclid(PPM);
    let in_base = buys && rules.fee_in == FeeIn::Received;
    let base = if in_base { qty - fee_of(qty) } else { qty * sign };
    let quote = if in_base { -quote } else { -quote * sign - fee_of(quote) };
    let _ = owed.add(terms.venue, rules.base, base);
    let _ = owed.add(terms.venue, rules.quote, quote);
}

/// Puts out a record that we made now.
fn put(env: &mut Env<'_>, record: Record) {
    env.out.push(Record {
        flags: record.flags | flag::OUTPUT,
        engine_ts_ns: env.now_ns,
        ring: env.cause.ring,
        ring_seq: env.cause.ring_seq,
        ..record
    });
}
