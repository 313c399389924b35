//! What a run adds up to: rounds, edges, lives, hours, inventories.
//!
//! Invariant: nothing here changes anything. Sums are kept, not lists: memory grows with venues, instruments, hours
//! and open rounds, and a line over time is thinned to half when it is full ([`Line`]). Worth is the engine's own,
//! at the worse side, at the time.
//!
//! Not here: what happened (`world`, the engine).

use std::collections::BTreeMap;

use tandem_core::controls::{Control, View};
use tandem_core::graph::Graph;
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::order::{Action, NewOrder};
use tandem_core::record::Venue;
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::round::{RoundReport, Stage};
use tandem_core::units::{Amount, Px, Qty};
use tandem_core::value::{Bias, quote_of, shift_of};

use crate::outcome::{
    Bucket, CaptureBin, EdgeBin, EquityPoint, Funnel, InventoryPoint, LifeBin, OneLeg,
};

/// An amount that does not fit is as large as one can be.
#[must_use]
pub fn quanta(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

/// Points over time, at most so many: when it is full every second one goes, and from then on only every second
/// one comes.
#[derive(Clone, Debug)]
pub struct Line<T> {
    points: Vec<T>,
    most: usize,
    every: u64,
    count: u64,
    last: Option<T>,
}

impl<T: Copy> Line<T> {
    /// Returns a line without points.
    #[must_use]
    pub fn new(most: usize) -> Line<T> {
        Line { points: Vec::new(), most, every: 1, count: 0, last: None }
    }

    /// Adds a point.
    pub fn add(&mut self, point: T) {
        self.last = Some(point);
        if self.count.is_multiple_of(self.every) {
            if self.points.len() == self.most {
                let mut at = 0;
                self.points.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.every *= 2;
            }
            if self.count.is_multiple_of(self.every) {
                self.points.push(point);
                self.last = None;
            }
        }
        self.count += 1;
    }

    /// Returns the points, the last one always among them.
    #[must_use]
    pub fn into_points(mut self) -> Vec<T> {
        if let Some(last) = self.last {
            if self.points.len() == self.most {
                self.points.pop();
            }
            self.points.push(last);
        }
        self.points
    }
}

/// A round that is not over.
#[derive(Clone, Debug, Default)]
struct OpenRound {
    /// By instrument: fills, turnover and fees, numeraire.
    parts: BTreeMap<u16, (u64, i64, i64)>,
    /// Age of the crossing when the last entry leg arrived.
    age_ns: Option<i64>,
    expected: i64,
}

/// Bounds of edges, ppm.
const EDGES: [i64; 12] =
    [i64::MIN, 0, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, i64::MAX];
/// Bounds of lives and ages, microseconds.
const TIMES_US: [i64; 14] = [
    0,
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    10_000_000,
    i64::MAX,
];
/// Hours that are told apart: more than a year. What comes after is counted in the last one.
const HOURS_MAX: usize = 10_000;
/// Routes that are told.
const ROUTES_MAX: usize = 50;

fn bin(bounds: &[i64], value: i64) -> usize {
    bounds.partition_point(|bound| *bound <= value).clamp(1, bounds.len() - 1) - 1
}

/// One asset's sums from the fills that the engine was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Bought less sold.
    pub traded: i128,
    /// Fees.
    pub fees: i128,
}

/// The sums of a run.
#[derive(Debug)]
pub struct Tally {
    open: BTreeMap<u64, OpenRound>,
    /// By asset.
    pub moved: Vec<Moved>,
    /// Result of all settled rounds.
    pub pnl: i64,
    /// Fees, worth at the time.
    pub fees: i64,
    /// Worth of fills.
    pub turnover: i64,
    /// Fills.
    pub fills: u64,
    /// Rounds that lost.
    pub rounds_lost: u64,
    peak: i64,
    /// Largest fall from a peak.
    pub drawdown: i64,
    equity: Line<EquityPoint>,
    by_instrument: BTreeMap<u16, Bucket>,
    by_venue: [Bucket; 3],
    by_kind: BTreeMap<&'static str, Bucket>,
    by_cycle: BTreeMap<u32, Bucket>,
    by_hour: BTreeMap<i64, Bucket>,
    /// See [`Funnel`].
    pub funnel: Funnel,
    edges: [EdgeBin; EDGES.len() - 1],
    lives: [LifeBin; TIMES_US.len() - 1],
    capture: [CaptureBin; TIMES_US.len() - 1],
    /// See [`OneLeg`].
    pub one_leg: OneLeg,
    one_leg_us: i64,
}

const HOUR_NS: i64 = 3_600_000_000_000;

impl Tally {
    /// Returns no sums.
    #[must_use]
    pub fn new(universe: &Universe) -> Tally {
        let edge =
            |n: usize| EdgeBin { from_ppm: EDGES[n], to_ppm: EDGES[n + 1], ..EdgeBin::default() };
        let life = |n: usize| LifeBin {
            from_us: TIMES_US[n],
            to_us: TIMES_US[n + 1],
            ..LifeBin::default()
        };
        let capture = |n: usize| CaptureBin {
            from_us: TIMES_US[n],
            to_us: TIMES_US[n + 1],
            ..CaptureBin::default()
        };
        Tally {
            open: BTreeMap::new(),
            moved: vec![Moved::default(); universe.assets.len()],
            pnl: 0,
            fees: 0,
            turnover: 0,
            fills: 0,
            rounds_lost: 0,
            peak: 0,
            drawdown: 0,
            equity: Line::new(crate::outcome::EQUITY_POINTS),
            by_instrument: BTreeMap::new(),
            by_venue: [Bucket::default(); 3],
            by_kind: BTreeMap::new(),
            by_cycle: BTreeMap::new(),
            by_hour: BTreeMap::new(),
            funnel: Funnel::default(),
            edges: std::array::from_fn(edge),
            lives: std::array::from_fn(life),
            capture: std::array::from_fn(capture),
            one_leg: OneLeg::default(),
            one_leg_us: 0,
        }
    }

    /// An order of a round met its book: the age of the crossing then.
    pub fn arrived(&mut self, round: u64, age_ns: i64) {
        let open = self.open.entry(round).or_default();
        open.age_ns = Some(open.age_ns.unwrap_or(0).max(age_ns));
    }

    /// The engine was told of a fill.
    pub fn fill(
        &mut self,
        terms: &NewOrder,
        (px, qty, fee, fee_asset): (Px, Qty, Amount, u16),
        universe: &Universe,
        view: Option<&View<'_>>,
    ) -> i64 {
        let rules = &universe.instruments[usize::from(terms.instrument)];
        let buys = terms.action == Action::Buy;
        let quote = quote_of(px, qty.0, shift_of(universe, terms.instrument), buys);
        let sign = if buys { 1 } else { -1 };
        self.moved[usize::from(rules.base.0)].traded += i128::from(qty.0) * sign;
        self.moved[usize::from(rules.quote.0)].traded -= quote * sign;
        self.moved[usize::from(fee_asset)].fees += i128::from(fee.0);
        let worth = |asset: AssetId, amount: i128, bias: Bias| {
            quanta(view.and_then(|view| view.worth(asset, amount, bias)).unwrap_or(0))
        };
        let turnover = worth(rules.quote, quote, Bias::Low);
        let fees = worth(AssetId(fee_asset), fee.0.into(), Bias::High);
        self.fills += 1;
        self.turnover = self.turnover.saturating_add(turnover);
        self.fees = self.fees.saturating_add(fees);
        let part = self.open.entry(terms.key.round()).or_default().parts.entry(terms.instrument);
        let part = part.or_default();
        *part = (part.0 + 1, part.1.saturating_add(turnover), part.2.saturating_add(fees));
        turnover
    }

    /// An opportunity is told.
    pub fn opportunity(&mut self, told: &Opportunity, view: Option<&View<'_>>) {
        let net = view.and_then(|view| view.worth(told.start, told.net.0.into(), Bias::Low));
        let net = quanta(net.unwrap_or(0));
        match told.phase {
            Phase::Open => {
                self.funnel.opportunities += 1;
                self.funnel.opportunities_net = self.funnel.opportunities_net.saturating_add(net);
            }
            Phase::Close => {
                let life_us = (told.last_ns - told.first_ns) / 1_000;
                let bin = &mut self.lives[bin(&TIMES_US, life_us)];
                bin.count += 1;
                bin.net = bin.net.saturating_add(net);
            }
            Phase::Update | Phase::After => {}
        }
    }

    /// A denial is told.
    pub fn denial(&mut self, denial: &Denial) {
        let control = denial.breach.and_then(|breach| Control::from_tag(breach.control));
        let name = control.map_or(denial.verdict.name(), Control::name).to_owned();
        *self.funnel.denials.entry(name).or_default() += denial.times.max(0) as u64;
    }

    /// A round is told.
    pub fn round(
        &mut self,
        told: &RoundReport,
        (graph, universe): (&Graph, &Universe),
        view: Option<&View<'_>>,
        now_ns: i64,
    ) {
        let expected =
            view.and_then(|view| view.worth(told.start, told.expected.0.into(), Bias::Low));
        let expected = quanta(expected.unwrap_or(0));
        if told.stage == Stage::Entry {
            self.funnel.tried += 1;
            self.funnel.tried_net = self.funnel.tried_net.saturating_add(expected);
            self.open.entry(told.id).or_default().expected = expected;
            return;
        }
        if told.stage != Stage::Settled {
            return;
        }
        let open = self.open.remove(&told.id).unwrap_or_default();
        let worth = told.worth.0;
        let add = |bucket: &mut Bucket, fills: u64, pnl: i64, fees: i64, turnover: i64| {
            bucket.rounds += 1;
            bucket.fills += fills;
            bucket.pnl = bucket.pnl.saturating_add(pnl);
            bucket.fees = bucket.fees.saturating_add(fees);
            bucket.turnover = bucket.turnover.saturating_add(turnover);
        };
        self.pnl = self.pnl.saturating_add(worth);
        self.rounds_lost += u64::from(worth < 0);
        self.funnel.realised = self.pnl;
        self.funnel.earned += u64::from(0 < worth);
        self.peak = self.peak.max(self.pnl);
        let drawdown = self.pnl - self.peak;
        self.drawdown = self.drawdown.max(-drawdown);
        self.equity.add(EquityPoint { at_ns: now_ns, pnl: self.pnl, drawdown });
        let all: i64 = open.parts.values().map(|part| part.1).fold(0, i64::saturating_add);
        let mut whole = (0u64, 0i64, 0i64);
        let mut venues = [(false, 0u64, 0i64, 0i64, 0i64); 3];
        // What rounding leaves goes to the last one: the parts sum to the whole.
        let mut rest = worth;
        let count = open.parts.len();
        for (at, (instrument, part)) in open.parts.iter().enumerate() {
            let share = match at + 1 == count {
                true => rest,
                false if all != 0 => {
                    quanta(i128::from(worth) * i128::from(part.1) / i128::from(all))
                }
                false => 0,
            };
            rest -= share;
            add(self.by_instrument.entry(*instrument).or_default(), part.0, share, part.2, part.1);
            let venue = &mut venues[universe.instruments[usize::from(*instrument)].venue.idx()];
            *venue = (true, venue.1 + part.0, venue.2 + share, venue.3 + part.2, venue.4 + part.1);
            whole = (whole.0 + part.0, whole.1 + part.1, whole.2 + part.2);
        }
        for (bucket, (is_there, fills, pnl, fees, turnover)) in self.by_venue.iter_mut().zip(venues)
        {
            if is_there {
                add(bucket, fills, pnl, fees, turnover);
            }
        }
        let (fills, turnover, fees) = whole;
        let cycle = graph.cycles().get(told.cycle as usize);
        let kind = cycle.map_or("orphan", |cycle| cycle.kind.name());
        add(self.by_kind.entry(kind).or_default(), fills, worth, fees, turnover);
        add(self.by_cycle.entry(told.cycle).or_default(), fills, worth, fees, turnover);
        let hour = told.opened_ns.div_euclid(HOUR_NS);
        let hour = match self.by_hour.len() < HOURS_MAX || self.by_hour.contains_key(&hour) {
            true => hour,
            false => self.by_hour.keys().next_back().copied().unwrap_or(hour),
        };
        add(self.by_hour.entry(hour).or_default(), fills, worth, fees, turnover);
        if told.is_orphan || told.legs().is_empty() {
            return;
        }
        let is_filled = told.legs().iter().all(|leg| leg.filled == leg.qty);
        let is_missed = told.legs().iter().all(|leg| leg.filled.0 == 0);
        self.funnel.filled += u64::from(is_filled);
        let input = open.parts.values().next().map_or(0, |part| part.1);
        let edge_ppm = match input {
            0 => 0,
            input => quanta(i128::from(open.expected) * 1_000_000 / i128::from(input)),
        };
        if !is_missed {
            let edge = &mut self.edges[bin(&EDGES, edge_ppm)];
            edge.rounds += 1;
            edge.expected = edge.expected.saturating_add(open.expected);
            edge.realised = edge.realised.saturating_add(worth);
        }
        if let Some(age_ns) = open.age_ns {
            let capture = &mut self.capture[bin(&TIMES_US, age_ns / 1_000)];
            capture.rounds += 1;
            capture.filled += u64::from(is_filled);
            capture.expected = capture.expected.saturating_add(open.expected);
            capture.realised = capture.realised.saturating_add(worth);
        }
        if told.hedges != 0 {
            let us = told.duration_ns / 1_000;
            self.one_leg.rounds += 1;
            self.one_leg.expected = self.one_leg.expected.saturating_add(open.expected);
            self.one_leg.realised = self.one_leg.realised.saturating_add(worth);
            self.one_leg.hedges += told.hedges as u64;
            self.one_leg.max_us = self.one_leg.max_us.max(us);
            self.one_leg_us = self.one_leg_us.saturating_add(us);
            self.one_leg.mean_us = self.one_leg_us / self.one_leg.rounds as i64;
        }
    }

    /// Returns the equity over time.
    #[must_use]
    pub fn equity(&self) -> Vec<EquityPoint> {
        self.equity.clone().into_points()
    }

    /// Returns the sums by venue, instrument, kind, route and hour.
    #[must_use]
    pub fn buckets(&self, names: &Names<'_>) -> [BTreeMap<String, Bucket>; 5] {
        let by_venue = Venue::ALL.into_iter().zip(self.by_venue);
        let by_venue = by_venue.filter(|(_, bucket)| bucket.rounds != 0);
        let mut routes: Vec<(&u32, &Bucket)> = self.by_cycle.iter().collect();
        routes.sort_by_key(|(cycle, bucket)| (std::cmp::Reverse(bucket.rounds), **cycle));
        routes.truncate(ROUTES_MAX);
        [
            by_venue.map(|(venue, bucket)| (venue.name().to_owned(), bucket)).collect(),
            self.by_instrument.iter().map(|(id, b)| (names.instrument(*id), *b)).collect(),
            self.by_kind.iter().map(|(name, b)| ((*name).to_owned(), *b)).collect(),
            routes.into_iter().map(|(cycle, b)| (names.route(*cycle), *b)).collect(),
            self.by_hour.iter().map(|(hour, b)| (hour_name(*hour), *b)).collect(),
        ]
    }

    /// Returns rounds by edge, opportunities by life, and rounds by age; empty ranges left out.
    #[must_use]
    pub fn bins(&self) -> (Vec<EdgeBin>, Vec<LifeBin>, Vec<CaptureBin>) {
        (
            self.edges.iter().filter(|bin| bin.rounds != 0).copied().collect(),
            self.lives.iter().filter(|bin| bin.count != 0).copied().collect(),
            self.capture.iter().filter(|bin| bin.rounds != 0).copied().collect(),
        )
    }
}

/// Names of what records name by number.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Assets and instruments.
    pub universe: &'a Universe,
    /// Venue symbols, by instrument.
    pub symbols: &'a [String],
    /// Cycles.
    pub graph: &'a Graph,
}

impl Names<'_> {
    /// `venue symbol`.
    #[must_use]
    pub fn instrument(&self, id: u16) -> String {
        let venue = self.universe.instruments[usize::from(id)].venue;
        format!("{} {}", venue.name(), self.symbols[usize::from(id)])
    }

    /// A cycle's legs: `buy BTC-USD coinbase, sell BTC/USD kraken`.
    #[must_use]
    pub fn route(&self, cycle: u32) -> String {
        let Some(cycle) = self.graph.cycles().get(cycle as usize) else {
            return "no cycle: late fills, dust".to_owned();
        };
        let legs = cycle.edges().iter().map(|edge| {
            let id = usize::from(edge.instrument());
            let what = match edge.action() {
                Action::Buy => "buy",
                Action::Sell => "sell",
            };
            format!("{what} {} {}", self.symbols[id], self.universe.instruments[id].venue.name())
        });
        legs.collect::<Vec<_>>().join(", ")
    }
}

/// `YYYY-MM-DDTHH` of hours since 1970.
fn hour_name(hour: i64) -> String {
    // Civil from days (H. Hinnant, chrono-compatible low-level date algorithms).
    let days = hour.div_euclid(24) + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}", hour.rem_euclid(24))
}

/// Inventories over time.
#[derive(Debug, Default)]
pub struct Inventories {
    lines: BTreeMap<(u8, u16), Line<InventoryPoint>>,
}

impl Inventories {
    /// Adds a balance.
    pub fn add(&mut self, venue: Venue, asset: AssetId, point: InventoryPoint) {
        let line = self.lines.entry((venue as u8, asset.0));
        line.or_insert_with(|| Line::new(crate::outcome::INVENTORY_POINTS)).add(point);
    }

    /// Returns every line by `venue asset`; what was always 0 is left out.
    #[must_use]
    pub fn into_lines(self, universe: &Universe) -> BTreeMap<String, Vec<InventoryPoint>> {
        let named = |((venue, asset), line): ((u8, u16), Line<InventoryPoint>)| {
            let venue = Venue::from_tag(venue)?;
            let points = line.into_points();
            let name = format!("{} {}", venue.name(), universe.assets[usize::from(asset)].name);
            points.iter().any(|point| point.amount != 0).then_some((name, points))
        };
        self.lines.into_iter().filter_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_length_its_order_and_its_end() {
        for count in [0usize, 1, 5, 7, 8, 9, 100, 1_000] {
            let mut line = Line::new(8);
            (0..count).for_each(|n| line.add(n));
            let points = line.into_points();
            assert!(points.len() <= 8 && points.is_sorted(), "{count}: {points:?}");
            assert_eq!(points.last().copied(), count.checked_sub(1), "{count}");
        }
    }

    #[test]
    fn hours_have_their_names_and_bins_their_bounds() {
        assert_eq!(hour_name(0), "1970-01-01T00");
        assert_eq!(hour_name(1_796_003_738 / 3_600), "2026-11-30T01");
        assert_eq!((bin(&EDGES, -5), bin(&EDGES, 0), bin(&EDGES, 60_000)), (0, 1, 10));
        assert_eq!((bin(&TIMES_US, -1), bin(&TIMES_US, 0), bin(&TIMES_US, 100)), (0, 0, 1));
    }
}
