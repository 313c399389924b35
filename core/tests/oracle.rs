//! The detector against a brute-force oracle in exact rationals.
//!
//! The oracle shares no code with the engine but the types it is given: it enumerates cycles by its own
//! recursion, tries every size one lot at a time, and computes with big rationals. Same cycles, same
//! verdict, same size, same net gain to the last unit.

use std::collections::BTreeMap;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};
use proptest::prelude::*;
use tandem_core::detector::Verdict;
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::report::{Opportunity, Phase};
use tandem_core::units::{Amount, FeePpm, Px, Qty, Side};

/// Bids and asks of one instrument, best first.
type Levels = [Vec<(i64, i64)>; 2];

#[derive(Clone, Debug)]
struct Case {
    universe: Universe,
    books: Vec<Levels>,
    params: Params,
}

fn rational(value: i64) -> BigRational {
    BigRational::from_integer(BigInt::from(value))
}

fn power(exponent: u8) -> BigRational {
    BigRational::from_integer(BigInt::from(10).pow(u32::from(exponent)))
}

fn floor(value: &BigRational) -> i64 {
    value.floor().to_integer().to_i64().expect("small numbers")
}

fn ceil(value: &BigRational) -> i64 {
    value.ceil().to_integer().to_i64().expect("small numbers")
}

/// Value of each asset in the oracle's world, so that books of different pairs roughly agree.
const VALUES: [i64; 4] = [1, 1, 40, 900];

fn instruments() -> impl Strategy<Value = (Vec<Instrument>, Vec<Levels>)> {
    // One side in ten is empty; no side has more than four levels.
    let sides = || {
        let levels = proptest::collection::vec((1i64..6, 1i64..120), 1..5);
        prop_oneof![1 => Just(Vec::new()), 9 => levels]
    };
    let one = (
        0usize..3,
        (0u16..4, 0u16..4).prop_filter("two assets", |(base, quote)| base != quote),
        (
            prop_oneof![3 => 1..6i64, 1 => 6..60i64],
            prop_oneof![3 => Just(0i64), 1 => 1..80i64],
            prop_oneof![3 => Just(0i64), 1 => 1..90_000i64],
        ),
        (
            prop_oneof![4 => Just(1i64 << 60), 1 => 1..100i64],
            prop_oneof![4 => Just(i64::MAX / (1 << 30)), 1 => 20_000..9_000_000i64],
        ),
        (prop_oneof![Just(0i32), -200..1_500i32], any::<bool>()),
        (-30i64..30, 1i64..4),
        sides(),
        sides(),
    );
    proptest::collection::vec(one, 2..7).prop_map(|specs| {
        let mut instruments = Vec::new();
        let mut books = Vec::new();
        for (
            venue,
            (base, quote),
            (lot, qty_min, notional_min),
            (qty_max, notional_max),
            (fee, received),
            (shift, spread),
            bids,
            asks,
        ) in specs
        {
            instruments.push(Instrument {
                venue: Venue::ALL[venue],
                base: AssetId(base),
                quote: AssetId(quote),
                px_exponent: 3,
                tick: Px(1),
                lot: Qty(lot),
                qty_min: Qty(qty_min),
                qty_max: Qty(qty_max),
                notional_min: Amount(notional_min),
                notional_max: Amount(notional_max),
                taker_fee: FeePpm(fee),
                fee_in: if received { FeeIn::Received } else { FeeIn::Quote },
                status: TradingStatus::Trading,
            });
            // Prices are per mille of the ratio of values, so that even 1/900 has digits.
            let middle = VALUES[usize::from(base)] * 1_000 / VALUES[usize::from(quote)]
                * (1_000 + shift)
                / 1_000;
            let side = |steps: Vec<(i64, i64)>, sign: i64| {
                let mut px = middle + sign * spread;
                let mut levels = Vec::new();
                for (step, qty) in steps {
                    if 0 < px {
                        levels.push((px, qty));
                    }
                    px += sign * step;
                }
                levels
            };
            books.push([side(bids, -1), side(asks, 1)]);
        }
        (instruments, books)
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let venue =
        (0i32..300, 0i32..500).prop_map(|(slippage_ppm, staleness_ppm_per_s)| VenueParams {
            slippage_ppm,
            staleness_ppm_per_s,
            age_ns_max: 10_000_000_000,
            order_latency_ns: 0,
        });
    (
        instruments(),
        [0i32..1_000, 0..200],
        proptest::array::uniform3(venue),
        proptest::sample::select(vec![vec![], vec![1u16], vec![3, 0]]),
        [3u8..6, 3..6, 2..4, 2..4],
    )
        .prop_map(
            |((instruments, books), [edge_min_ppm, basis_ppm], venues, numeraires, exponents)| {
                // The shift px + base - quote must not be negative: quotes are no finer than 3 + base.
                let exponents = exponents.map(|e| e.min(4));
                let assets = ["A", "B", "C", "D"]
                    .iter()
                    .zip(exponents)
                    .map(|(name, exponent)| Asset { name: (*name).to_string(), exponent })
                    .collect();
                Case {
                    universe: Universe { assets, instruments },
                    books,
                    params: Params {
                        edge_min_ppm,
                        edge_max_ppm: 1_000_000,
                        edge_max_halt_ns: 0,
                        basis_ppm,
                        venues,
                        numeraires: numeraires.into_iter().map(AssetId).collect(),
                        legs_max: 4,
                        cycles_max: 100_000,
                        window_levels: 16,
                        flicker_ns: 0,
                        denial_ns: 1,
                        update_ns: 1,
                    },
                }
            },
        )
}

/// The oracle's view of a leg: instrument and whether it buys.
type Step = (usize, bool);

struct Oracle<'a> {
    case: &'a Case,
    ages_ns: Vec<i64>,
}

#[derive(Debug, PartialEq)]
struct Answer {
    verdict: Verdict,
    quantities: Vec<i64>,
    net: i64,
}

/// One order in the oracle: quantity, spent, brought, worth, marginal rate; `None` without depth.
struct Filled {
    qty: i64,
    spends: i64,
    brings: i64,
    notional: i64,
    rate: BigRational,
}

impl Oracle<'_> {
    fn rank(&self, asset: u16) -> usize {
        let numeraires = &self.case.params.numeraires;
        let named = numeraires.iter().position(|n| n.0 == asset);
        named.unwrap_or(numeraires.len() + usize::from(asset))
    }

    fn ends(&self, step: Step) -> (u16, u16) {
        let rules = &self.case.universe.instruments[step.0];
        if step.1 { (rules.quote.0, rules.base.0) } else { (rules.base.0, rules.quote.0) }
    }

    /// Every sequence of 2 to 4 steps that closes, visits no asset and no instrument twice, and starts
    /// at its best-ranked asset: by trying all sequences.
    fn cycles(&self) -> Vec<Vec<Step>> {
        let steps: Vec<Step> = (0..self.case.universe.instruments.len())
            .flat_map(|id| [(id, true), (id, false)])
            .collect();
        let mut found = Vec::new();
        let mut paths: Vec<Vec<Step>> = steps.iter().map(|step| vec![*step]).collect();
        while let Some(path) = paths.pop() {
            let starts: Vec<u16> = path.iter().map(|step| self.ends(*step).0).collect();
            let end = self.ends(path[path.len() - 1]).1;
            if end == starts[0] {
                let least = starts.iter().map(|asset| self.rank(*asset)).min();
                if 2 <= path.len() && least == Some(self.rank(starts[0])) {
                    found.push(path);
                }
                continue;
            }
            if path.len() == 4 || starts.contains(&end) {
                continue;
            }
            for step in &steps {
                if self.ends(*step).0 == end && path.iter().all(|used| used.0 != step.0) {
                    let mut longer = path.clone();
                    longer.push(*step);
                    paths.push(longer);
                }
            }
        }
        found
    }

    fn levels(&self, step: Step) -> &[(i64, i64)] {
        &self.case.books[step.0][usize::from(step.1)]
    }

    fn unit(&self, step: Step) -> BigRational {
        let rules = &self.case.universe.instruments[step.0];
        let exponent = |asset: AssetId| self.case.universe.assets[usize::from(asset.0)].exponent;
        power(rules.px_exponent) * power(exponent(rules.base)) / power(exponent(rules.quote))
    }

    fn fee(&self, step: Step) -> BigRational {
        let fee = i64::from(self.case.universe.instruments[step.0].taker_fee.0);
        BigRational::new(fee.into(), 1_000_000.into())
    }

    /// Takes `qty`; worst price and exact px × qty in quote quanta.
    fn take(&self, step: Step, qty: i64) -> Option<(i64, BigRational)> {
        let (mut rest, mut worth, mut worst) =
            (qty, BigRational::zero(), self.levels(step).first()?.0);
        for (px, available) in self.levels(step) {
            if rest == 0 {
                break;
            }
            let part = rest.min(*available);
            worth += rational(*px) * rational(part);
            worst = *px;
            rest -= part;
        }
        (rest == 0).then(|| (worst, worth / self.unit(step)))
    }

    fn fill(&self, step: Step, qty: i64) -> Option<Filled> {
        let rules = &self.case.universe.instruments[step.0];
        let (one, fee) = (BigRational::one(), self.fee(step));
        let (px, worth) = self.take(step, qty)?;
        let price = rational(px) / power(rules.px_exponent);
        let (spends, brings, rate) = match (step.1, rules.fee_in) {
            (false, _) => (qty, floor(&(&worth * (&one - &fee))), price * (&one - &fee)),
            (true, FeeIn::Quote) => {
                (ceil(&(&worth * (&one + &fee))), qty, (price * (&one + &fee)).recip())
            }
            (true, FeeIn::Received) => {
                (ceil(&worth), floor(&(rational(qty) * (&one - &fee))), (&one - &fee) / price)
            }
        };
        Some(Filled { qty, spends, brings, notional: floor(&worth), rate })
    }

    fn lot(&self, step: Step) -> i64 {
        self.case.universe.instruments[step.0].lot.0
    }

    /// Converts an amount of the step's input asset, one lot at a time.
    fn convert(&self, step: Step, input: i64) -> Option<Filled> {
        let lot = self.lot(step);
        if !step.1 {
            return self.fill(step, input / lot * lot);
        }
        let depth: i64 = self.levels(step).iter().map(|level| level.1).sum();
        // More money than all that is displayed costs: we do not know what it would buy.
        let all = self.take(step, depth)?.1;
        let cost = |worth: BigRational| match self.case.universe.instruments[step.0].fee_in {
            FeeIn::Quote => worth * (BigRational::one() + self.fee(step)),
            FeeIn::Received => worth,
        };
        let bought_all = cost(all);
        // The next unit of the worst level would still be affordable: depth does not suffice. Units are
        // whole quanta of px × qty, as the venue counts them.
        let slack = rational(input) - &bought_all;
        let unit_cost = cost(BigRational::one() / self.unit(step));
        if unit_cost <= slack {
            return None;
        }
        let mut best = self.fill(step, 0)?;
        let mut qty = lot;
        while let Some(next) = self.fill(step, qty) {
            if input < next.spends {
                break;
            }
            best = next;
            qty += lot;
        }
        Some(best)
    }

    /// The orders for `lots` lots of the first leg, or why that is too large.
    fn plan(
        &self,
        cycle: &[Step],
        lots: i64,
        threshold: &BigRational,
    ) -> Result<Vec<Filled>, Verdict> {
        let mut orders: Vec<Filled> = Vec::new();
        for step in cycle {
            let order = match orders.last() {
                None => self.fill(*step, lots * self.lot(*step)),
                Some(before) => self.convert(*step, before.brings),
            };
            let order = order.ok_or(Verdict::Depth)?;
            let rules = &self.case.universe.instruments[step.0];
            if rules.qty_max.0 < order.qty || rules.notional_max.0 < order.notional {
                return Err(Verdict::Limit);
            }
            orders.push(order);
        }
        let rate = orders.iter().fold(BigRational::one(), |rate, order| rate * &order.rate);
        if &rate < threshold { Err(Verdict::Edge) } else { Ok(orders) }
    }

    fn answer(&self, cycle: &[Step]) -> Answer {
        let params = &self.case.params;
        let venue = |step: &Step| self.case.universe.instruments[step.0].venue;
        let mut buffers = 0i64;
        for step in cycle {
            let venue_params = &params.venues[venue(step).idx()];
            let staleness = BigRational::new(
                BigInt::from(self.ages_ns[step.0]) * venue_params.staleness_ppm_per_s,
                1_000_000_000.into(),
            );
            buffers += i64::from(venue_params.slippage_ppm) + ceil(&staleness);
        }
        let several = cycle.iter().any(|step| venue(step) != venue(&cycle[0]));
        if 2 < cycle.len() && several {
            buffers += i64::from(params.basis_ppm);
        }
        let denied = |verdict| Answer { verdict, quantities: vec![], net: 0 };
        if cycle.iter().any(|step| self.levels(*step).is_empty()) {
            return denied(Verdict::Depth);
        }
        let edge_min = i64::from(params.edge_min_ppm);
        let million = rational(1_000_000);
        let threshold = (&million + rational(edge_min + buffers)) / &million;
        // Every size there is, up to all that the first leg displays.
        let depth: i64 = self.levels(cycle[0]).iter().map(|level| level.1).sum();
        let mut best = None;
        let mut ended = false;
        for lots in 1..=depth / self.lot(cycle[0]) + 1 {
            match self.plan(cycle, lots, &threshold) {
                Ok(orders) => {
                    assert!(!ended, "a size passes above one that does not");
                    best = Some(orders);
                }
                Err(verdict) => {
                    ended = true;
                    if lots == 1 {
                        return denied(verdict);
                    }
                }
            }
        }
        let mut orders = best.expect("one lot passed");
        for idx in (0..cycle.len() - 1).rev() {
            let needed = orders[idx + 1].spends;
            if orders[idx].qty == 0 || needed == 0 {
                break;
            }
            while let Some(fewer) = self.fill(cycle[idx], orders[idx].qty - self.lot(cycle[idx])) {
                if fewer.qty == 0 || fewer.brings < needed {
                    break;
                }
                orders[idx] = fewer;
            }
        }
        let (spent, brought) = (orders[0].spends, orders[orders.len() - 1].brings);
        let share = |ppm: i64| ceil(&(rational(spent) * rational(ppm) / &million));
        let net = brought - spent - share(buffers);
        let rules = |idx: usize| &self.case.universe.instruments[cycle[idx].0];
        let short_lot =
            orders.iter().enumerate().any(|(i, o)| o.qty == 0 || o.qty < rules(i).qty_min.0);
        let short_notional =
            orders.iter().enumerate().any(|(i, o)| o.notional < rules(i).notional_min.0);
        let verdict = if short_lot {
            Verdict::Lot
        } else if short_notional {
            Verdict::NotionalMin
        } else if net <= 0 || net < share(edge_min) {
            Verdict::Edge
        } else {
            Verdict::Pays
        };
        Answer { verdict, quantities: orders.iter().map(|order| order.qty).collect(), net }
    }
}

const NOW_NS: i64 = 5_000_000_000;

/// Feeds every book as a snapshot batch; returns the engine and what the last book put out.
fn engine(case: &Case, ages_ns: &[i64]) -> (Engine, Vec<Record>) {
    let mut engine = Engine::new(case.universe.clone(), case.params.clone()).expect("sound case");
    let mut out = Outbox::new(OUTBOX_RECORDS);
    for (id, (rules, book)) in case.universe.instruments.iter().zip(&case.books).enumerate() {
        let stamp = |record: Record| Record {
            engine_ts_ns: NOW_NS,
            recv_ts_ns: NOW_NS - ages_ns[id],
            conn: id as u32,
            ..record
        };
        for side in Side::BOTH {
            // Worst first, so that insertion is tried from both ends.
            for (px, qty) in book[side.idx()].iter().rev() {
                let record = Record::level(rules.venue, id as u16, side, Px(*px), Qty(*qty));
                engine.step(&stamp(record), &mut out);
            }
        }
        out.clear();
        let data = [BookState::Live as i64, 0, 0, 0];
        let live = Record::new(Kind::BookState, rules.venue as u8, id as u16, data);
        engine.step(&stamp(Record { flags: flag::LAST, ..live }), &mut out);
    }
    (engine, out.records().to_vec())
}

fn groups(records: &[Record]) -> Vec<Vec<Record>> {
    let mut groups = vec![Vec::new()];
    for record in records {
        groups.last_mut().expect("never empty").push(*record);
        if !record.has(flag::MORE) {
            groups.push(Vec::new());
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn check(case: &Case, ages_ns: Vec<i64>, tally: &mut BTreeMap<String, u64>) {
    let (engine, last) = engine(case, &ages_ns);
    let oracle = Oracle { case, ages_ns };
    let mut theirs: BTreeMap<Vec<Step>, Answer> = BTreeMap::new();
    for cycle in oracle.cycles() {
        let answer = oracle.answer(&cycle);
        assert!(theirs.insert(cycle, answer).is_none(), "the oracle found a cycle twice");
    }
    assert_eq!(engine.graph().cycles().len(), theirs.len(), "same cycles");
    let mut pays_in_last: BTreeMap<u16, Vec<(i64, u32)>> = BTreeMap::new();
    for (idx, cycle) in engine.graph().cycles().iter().enumerate() {
        let steps: Vec<Step> = cycle
            .edges()
            .iter()
            .map(|edge| {
                (
                    usize::from(edge.instrument()),
                    matches!(edge.action(), tandem_core::graph::Action::Buy),
                )
            })
            .collect();
        let expected = theirs.get(&steps).expect("the oracle knows the cycle");
        let ours = engine.evaluate(idx as u32);
        let quantities: Vec<i64> = ours.plan.orders().iter().map(|order| order.qty.0).collect();
        let ours_answer = Answer { verdict: ours.verdict, quantities, net: ours.net.0 };
        assert_eq!(&ours_answer, expected, "cycle {steps:?} of {case:?}");
        *tally.entry(format!("{:?}", expected.verdict)).or_default() += 1;
        if expected.verdict == Verdict::Pays {
            assert!(engine.passes(idx as u32), "the fast test refused a cycle that pays");
            if steps.iter().any(|step| step.0 == case.books.len() - 1) {
                pays_in_last.entry(cycle.start.0).or_default().push((-expected.net, idx as u32));
            }
        }
    }
    // What the last book put out: exactly the paying cycles through it, and the right best ones.
    let mut opened: BTreeMap<u16, Vec<(i64, u32)>> = BTreeMap::new();
    for group in groups(&last) {
        if let Some(told) = Opportunity::decode(&group).filter(|told| told.phase == Phase::Open) {
            let twin = engine.evaluate(told.cycle);
            assert_eq!(told.net, twin.net);
            let entry = opened.entry(told.start.0).or_default();
            entry.push((-told.net.0, told.cycle));
            let best = pays_in_last[&told.start.0].iter().min().expect("it pays");
            assert_eq!(told.best, *best == (-told.net.0, told.cycle), "same best cycle");
        }
    }
    for list in pays_in_last.values_mut().chain(opened.values_mut()) {
        list.sort_unstable();
    }
    assert_eq!(opened, pays_in_last);
}

#[test]
fn the_detector_equals_the_oracle() {
    let cases_wanted: u32 =
        std::env::var("TANDEM_ORACLE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases_wanted,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tally = std::cell::RefCell::new(BTreeMap::new());
    let strategy = (cases(), proptest::collection::vec(0i64..3_000_000_000, 8));
    runner
        .run(&strategy, |(case, ages_ns)| {
            if case.universe.check().is_ok() {
                check(&case, ages_ns, &mut tally.borrow_mut());
                *tally.borrow_mut().entry("cases".to_string()).or_default() += 1;
            }
            Ok(())
        })
        .unwrap();
    let tally = tally.into_inner();
    println!("oracle and detector agree: {tally:?}");
    // The test means something only if it met every answer.
    for verdict in ["Pays", "Edge", "Depth", "Lot", "NotionalMin", "Limit"] {
        assert!(
            tally.get(verdict).is_some_and(|count| 20 <= *count),
            "too few {verdict}: {tally:?}"
        );
    }
    assert!(tally["cases"] * 2 > u64::from(cases_wanted), "too many cases were refused: {tally:?}");
}
