//! Finds the cycles that pay after fees, buffers and staleness, and says why the others do not.
//!
//! Invariant: no cycle is missed and none is invented. The fast test (a sum of fixed-point log rates
//! with a slack above its error) only ever lets through too much; what it lets through is decided by
//! the exact walk on all legs. A cycle with one unusable book never passes.
//!
//! Not here: sizes (`walk`), what one opportunity's life was (`episode`).

use alloc::vec;
use alloc::vec::Vec;

use crate::graph::{Action, CycleKind, EdgeId, Graph, LEGS_MAX};
use crate::instrument::{FeeIn, Instrument, Universe};
use crate::log::{LOG_ERROR, Log, NOTHING, log2};
use crate::market::{Market, Unusable};
use crate::params::Params;
use crate::units::{Amount, PPM_PER_UNIT, Side, div_ceil, div_floor, pow10};
use crate::walk::{self, Leg, Plan, TooLarge};

/// What was decided about a candidate. The numbers are part of the journal's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Pays, and everything allows it.
    Pays = 1,
    /// Denied: the net edge is below `edge_min_ppm` once buffers and staleness are charged.
    Edge = 16,
    /// Denied: a leg's displayed depth does not give one lot.
    Depth = 17,
    /// Denied: a leg comes out below one lot or the venue's smallest quantity.
    Lot = 18,
    /// Denied: a leg is worth less than the venue's smallest notional.
    NotionalMin = 19,
    /// Denied: one lot already exceeds a leg's largest quantity or notional.
    Limit = 20,
    /// Denied: a leg's data is too old.
    Stale = 21,
    /// Denied: a leg's book is not proven in sync.
    NotLive = 22,
    /// Denied: a leg's venue or instrument does not take orders.
    Status = 23,
    /// Denied: a control halted a leg's instrument.
    Halted = 24,
    /// Denied: too good to be true; the instruments are halted.
    EdgeMax = 25,
    /// Denied: a pre-trade control; which one is in the denial.
    Control = 26,
}

impl Verdict {
    /// Every verdict, in the order of its tag.
    pub const ALL: [Verdict; 12] = [
        Verdict::Pays,
        Verdict::Edge,
        Verdict::Depth,
        Verdict::Lot,
        Verdict::NotionalMin,
        Verdict::Limit,
        Verdict::Stale,
        Verdict::NotLive,
        Verdict::Status,
        Verdict::Halted,
        Verdict::EdgeMax,
        Verdict::Control,
    ];

    /// Returns the verdict with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<Verdict> {
        Verdict::ALL.into_iter().find(|verdict| *verdict as i64 == tag)
    }

    /// Returns the verdict's name as used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Pays => "pays",
            Verdict::Edge => "edge",
            Verdict::Depth => "depth",
            Verdict::Lot => "lot",
            Verdict::NotionalMin => "notional_min",
            Verdict::Limit => "limit",
            Verdict::Stale => "stale",
            Verdict::NotLive => "not_live",
            Verdict::Status => "status",
            Verdict::Halted => "halted",
            Verdict::EdgeMax => "edge_max",
            Verdict::Control => "control",
        }
    }
}

/// Everything that was computed of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Index of the cycle.
    pub cycle: u32,
    /// What was decided.
    pub verdict: Verdict,
    /// Orders of the legs; empty where no size was found.
    pub plan: Plan,
    /// What is left in the start asset after buffers; only meaningful with a plan.
    pub net: Amount,
    /// Slippage, staleness and basis together, of the amount spent.
    pub buffers_ppm: i64,
    /// Edge of the best prices before fees.
    pub gross_ppb: i64,
    /// Age of the oldest leg's data.
    pub age_ns: i64,
}

impl Evaluation {
    /// Returns the net edge of the amount spent, in ppm rounded down.
    #[must_use]
    #[inline]
    pub fn net_ppm(&self) -> i64 {
        if self.plan.orders().is_empty() || self.plan.input().0 == 0 {
            return 0;
        }
        let exact = i128::from(self.net.0) * i128::from(PPM_PER_UNIT);
        div_floor(exact, self.plan.input().0.into()) as i64
    }
}

/// The detector's state: one log rate an edge.
#[derive(Clone, Debug)]
pub struct Detector {
    graph: Graph,
    /// Log rate of every edge at its best price, fee included; the last is the blank edge's 0.
    rates: Vec<Log>,
    /// What fee and exponents add to an edge's log price.
    constants: Vec<Log>,
    /// By cycle: what the sum of log rates must exceed to be walked.
    thresholds: Vec<Log>,
    /// By cycle: slippage of all legs and basis.
    fixed_ppm: Vec<i64>,
    /// By instrument: 10^-shift brings px × qty to the quote's quanta.
    shifts: Vec<u8>,
}

impl Detector {
    /// Builds the detector; nothing is allocated afterwards.
    #[must_use]
    pub fn new(universe: &Universe, params: &Params, graph: Graph) -> Detector {
        let edge_count = universe.instruments.len() * 2;
        let mut rates = vec![NOTHING; edge_count + 1];
        rates[edge_count] = Log::ZERO;
        let constants = (0..edge_count as u32).map(|edge| constant(universe, EdgeId(edge)));
        let shifts = universe.instruments.iter().map(|rules| {
            rules.px_exponent + universe.exponent(rules.base) - universe.exponent(rules.quote)
        });
        let fixed_ppm: Vec<i64> = graph
            .cycles()
            .iter()
            .map(|cycle| {
                let slippage = |edge: &EdgeId| {
                    let venue = universe.instruments[usize::from(edge.instrument())].venue;
                    i64::from(params.venues[venue.idx()].slippage_ppm)
                };
                let basis = match cycle.kind {
                    CycleKind::CrossQuote => i64::from(params.basis_ppm),
                    CycleKind::CrossVenue | CycleKind::Triangular => 0,
                };
                cycle.edges().iter().map(slippage).sum::<i64>() + basis
            })
            .collect();
        let thresholds = fixed_ppm.iter().map(|fixed| {
            // Below the exact bound by more than all errors of the sum: 4 rates, 4 constants, the bound.
            let least = i64::from(params.edge_min_ppm) + fixed;
            log2(PPM_PER_UNIT + least) - log2(PPM_PER_UNIT) - LOG_ERROR * 16
        });
        Detector {
            rates,
            constants: constants.collect(),
            thresholds: thresholds.collect(),
            fixed_ppm,
            shifts: shifts.collect(),
            graph,
        }
    }

    /// Returns the graph.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Takes over an instrument's fee.
    pub fn refee(&mut self, universe: &Universe, instrument: u16) {
        for action in [Action::Buy, Action::Sell] {
            let edge = EdgeId::new(instrument, action);
            self.constants[edge.0 as usize] = constant(universe, edge);
        }
    }

    /// Takes over an edge's best price; an unusable or empty side takes the edge out.
    #[inline]
    pub fn refresh(&mut self, market: &Market, edge: EdgeId, live: bool) {
        let best = match edge.action() {
            Action::Buy => market.get(edge.instrument()).book.best(Side::Ask),
            Action::Sell => market.get(edge.instrument()).book.best(Side::Bid),
        };
        self.rates[edge.0 as usize] = match (live, best, edge.action()) {
            (true, Some(level), Action::Sell) => log2(level.px.0) + self.constants[edge.0 as usize],
            (true, Some(level), Action::Buy) => self.constants[edge.0 as usize] - log2(level.px.0),
            _ => NOTHING,
        };
    }

    /// Calls `found` with every cycle through `edge` that passes the fast test.
    #[inline]
    pub fn candidates(&self, edge: EdgeId, mut found: impl FnMut(u32)) {
        let own = self.rates[edge.0 as usize];
        if own == NOTHING {
            return;
        }
        for probe in self.graph.probes(edge) {
            let [a, b, c] = probe.others;
            let sum =
                own + self.rates[a as usize] + self.rates[b as usize] + self.rates[c as usize];
            if self.thresholds[probe.cycle as usize] < sum {
                found(probe.cycle);
            }
        }
    }

    /// Returns whether a cycle passes the fast test now.
    #[must_use]
    pub fn passes(&self, cycle: u32) -> bool {
        let edges = self.graph.cycles()[cycle as usize].edges();
        let sum: Log = edges.iter().map(|edge| self.rates[edge.0 as usize]).sum();
        self.thresholds[cycle as usize] < sum
    }

    /// Decides one candidate exactly.
    #[must_use]
    pub fn evaluate(
        &self,
        universe: &Universe,
        params: &Params,
        market: &Market,
        cycle: u32,
        now_ns: i64,
    ) -> Evaluation {
        self.evaluate_within(universe, params, market, (cycle, now_ns), (None, 0))
    }

    /// The same with other rules than the universe's for each leg (smaller limits), and more edge
    /// wanted.
    #[must_use]
    pub fn evaluate_within(
        &self,
        universe: &Universe,
        params: &Params,
        market: &Market,
        (cycle, now_ns): (u32, i64),
        (rules, edge_more_ppm): (Option<&[Instrument; LEGS_MAX]>, i64),
    ) -> Evaluation {
        let edges = self.graph.cycles()[cycle as usize].edges();
        let mut evaluation = Evaluation {
            cycle,
            verdict: Verdict::Pays,
            plan: Plan::default(),
            net: Amount(0),
            buffers_ppm: self.fixed_ppm[cycle as usize],
            gross_ppb: 0,
            age_ns: 0,
        };
        let denied = |evaluation: Evaluation, verdict| Evaluation { verdict, ..evaluation };
        for edge in edges {
            let venue = universe.instruments[usize::from(edge.instrument())].venue;
            let venue_params = &params.venues[venue.idx()];
            match market.usable(venue, edge.instrument(), venue_params, now_ns) {
                Ok(age_ns) => {
                    evaluation.age_ns = evaluation.age_ns.max(age_ns);
                    evaluation.buffers_ppm +=
                        staleness_ppm(age_ns, venue_params.staleness_ppm_per_s);
                }
                Err(Unusable::NotLive) => return denied(evaluation, Verdict::NotLive),
                Err(Unusable::Status) => return denied(evaluation, Verdict::Status),
                Err(Unusable::Halted) => return denied(evaluation, Verdict::Halted),
                Err(Unusable::Stale { age_ns }) => {
                    evaluation.age_ns = age_ns;
                    return denied(evaluation, Verdict::Stale);
                }
            }
        }
        let mut legs = [self.leg(universe, market, edges[0]); LEGS_MAX];
        for (idx, edge) in edges.iter().enumerate().skip(1) {
            legs[idx] = self.leg(universe, market, *edge);
        }
        if let Some(rules) = rules {
            for (idx, leg) in legs.iter_mut().enumerate() {
                leg.rules = &rules[idx];
            }
        }
        let legs = &legs[..edges.len()];
        let Some(gross_ppb) = walk::gross_edge_ppb(legs) else {
            return denied(evaluation, Verdict::Depth);
        };
        evaluation.gross_ppb = gross_ppb;
        if i64::from(params.edge_max_ppm) * 1_000 < gross_ppb {
            return denied(evaluation, Verdict::EdgeMax);
        }
        let edge_min_ppm = i64::from(params.edge_min_ppm) + edge_more_ppm;
        match walk::largest(legs, edge_min_ppm + evaluation.buffers_ppm) {
            Err(TooLarge::Depth) => denied(evaluation, Verdict::Depth),
            Err(TooLarge::Limit) => denied(evaluation, Verdict::Limit),
            Err(TooLarge::Edge) => denied(evaluation, Verdict::Edge),
            Ok(plan) => {
                evaluation.plan = plan;
                let buffers = walk::ppm_of(plan.input(), evaluation.buffers_ppm);
                evaluation.net = Amount(
                    plan.output().0.saturating_sub(plan.input().0).saturating_sub(buffers.0),
                );
                let wanted = walk::ppm_of(plan.input(), edge_min_ppm);
                let verdict = minimums(legs, &plan);
                let pays = 0 < evaluation.net.0 && wanted <= evaluation.net;
                match verdict {
                    Some(verdict) => denied(evaluation, verdict),
                    None if !pays => denied(evaluation, Verdict::Edge),
                    None => evaluation,
                }
            }
        }
    }

    fn leg<'a>(&self, universe: &'a Universe, market: &'a Market, edge: EdgeId) -> Leg<'a> {
        let idx = usize::from(edge.instrument());
        Leg {
            action: edge.action(),
            rules: &universe.instruments[idx],
            book: market.get(edge.instrument()).depth(),
            shift: self.shifts[idx],
        }
    }
}

/// Returns which minimum a leg falls short of, if any.
fn minimums(legs: &[Leg<'_>], plan: &Plan) -> Option<Verdict> {
    let short_lot =
        |(leg, order): (&Leg<'_>, &walk::Order)| order.qty.0 == 0 || order.qty < leg.rules.qty_min;
    if legs.iter().zip(plan.orders()).any(short_lot) {
        return Some(Verdict::Lot);
    }
    let short_notional =
        |(leg, order): (&Leg<'_>, &walk::Order)| order.notional < leg.rules.notional_min;
    legs.iter().zip(plan.orders()).any(short_notional).then_some(Verdict::NotionalMin)
}

/// The price of a leg's age, rounded up.
fn staleness_ppm(age_ns: i64, ppm_per_s: i32) -> i64 {
    let exact = i128::from(age_ns) * i128::from(ppm_per_s);
    div_ceil(exact, 1_000_000_000) as i64
}

/// What fee and exponents add to an edge's log price, never below the true value.
fn constant(universe: &Universe, edge: EdgeId) -> Log {
    let rules = &universe.instruments[usize::from(edge.instrument())];
    let (fee, one) = (i64::from(rules.taker_fee.0), log2(PPM_PER_UNIT));
    let exponent = log2(pow10(rules.px_exponent));
    match (edge.action(), rules.fee_in) {
        (Action::Sell, _) => log2(PPM_PER_UNIT - fee) - one - exponent,
        (Action::Buy, FeeIn::Quote) => one - log2(PPM_PER_UNIT + fee) + exponent,
        (Action::Buy, FeeIn::Received) => log2(PPM_PER_UNIT - fee) - one + exponent,
    }
}
