//! One best-price change, from the record to the decision, where nothing pays; and one exact evaluation.
//!
//! Ours is [`Engine::step`]: book, rates, every cycle through the changed edges, episodes. The floor is
//! what no detector can do without: the changed best prices against those of the other venues, both ways,
//! as an exact comparison of two products with the fees in. It sees the same pair alone, no triangles.
//! In a row is the mean over a block; singly is each change timed by itself, two reads of the counter
//! included, which the third table row shows.
//!
//! Checked: the engine took every record, decided every batch, walked nothing and put out nothing. For the
//! evaluations: the verdict, and that a paying plan touches several levels.

use std::error::Error;
use std::hint::black_box;

use tandem_core::detector::Verdict;
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::graph::Action;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Amount, FeePpm, Px, Qty, Side};
use tandem_shm::tsc;

use crate::Effort;
use crate::harness::{Contender, Lap, Lcg, compare};
use crate::markets::params;
use crate::report::{Budget, Report, Table};

const PX_EXPONENT: u8 = 6;
const FEE_PPM: i32 = 1_000;
const HALF_SPREAD_PPM: i64 = 100;
const LEVELS: i64 = 20;
const LEVEL_STEP_PPM: i64 = 200;
const CHANGES: usize = 8_192;
/// Passes of the floor a block: a single one is too short to be judged.
const PASSES: u64 = 8;

const FLOOR: &str = "two multiplications a pair";
const FLOOR_SINGLY: &str = "two multiplications, singly";
const OURS: &str = "tandem step, in a row";
const SINGLY: &str = "tandem step, singly";
const COUNTER: &str = "two reads of the counter";

/// Assets with what they are worth, and instruments as venue, base, quote.
struct World {
    universe: Universe,
    values: Vec<f64>,
}

impl World {
    fn new(assets: &[(String, f64)], listed: &[(Venue, u16, u16)]) -> World {
        let instrument = |&(venue, base, quote): &(Venue, u16, u16)| Instrument {
            venue,
            base: AssetId(base),
            quote: AssetId(quote),
            px_exponent: PX_EXPONENT,
            tick: Px(1),
            lot: Qty(10),
            qty_min: Qty(10),
            qty_max: Qty(1 << 40),
            notional_min: Amount(1),
            notional_max: Amount(1 << 50),
            taker_fee: FeePpm(FEE_PPM),
            fee_in: if venue == Venue::Binance { FeeIn::Received } else { FeeIn::Quote },
            status: TradingStatus::Trading,
        };
        let asset = |(name, _): &(String, f64)| Asset { name: name.clone(), exponent: 6 };
        World {
            universe: Universe {
                assets: assets.iter().map(asset).collect(),
                instruments: listed.iter().map(instrument).collect(),
            },
            values: assets.iter().map(|(_, value)| *value).collect(),
        }
    }

    /// The same `pairs` against one quote at all three venues.
    fn pairs(pairs: u16) -> World {
        let mut assets = vec![("USD".to_owned(), 1.0)];
        let mut listed = Vec::new();
        for base in 1..=pairs {
            assets.push((format!("A{base}"), 20_000.0 / f64::from(base)));
            listed.extend(Venue::ALL.map(|venue| (venue, base, 0)));
        }
        World::new(&assets, &listed)
    }

    /// Seven assets and twenty-six instruments, as the three venues list them.
    fn realistic() -> World {
        use Venue::{Binance, Coinbase, Kraken};
        const USD: u16 = 0;
        const USDT: u16 = 1;
        const USDC: u16 = 2;
        const EUR: u16 = 3;
        const BTC: u16 = 4;
        const ETH: u16 = 5;
        const SOL: u16 = 6;
        let worth = [
            ("USD", 1.0),
            ("USDT", 1.0),
            ("USDC", 1.0),
            ("EUR", 1.1),
            ("BTC", 60_000.0),
            ("ETH", 3_000.0),
            ("SOL", 150.0),
        ];
        let assets = worth.map(|(name, value)| (name.to_owned(), value));
        let by_venue: [(Venue, &[(u16, u16)]); 3] = [
            (
                Binance,
                &[
                    (BTC, USDT),
                    (ETH, USDT),
                    (SOL, USDT),
                    (BTC, USDC),
                    (ETH, USDC),
                    (SOL, USDC),
                    (ETH, BTC),
                    (SOL, BTC),
                    (USDC, USDT),
                    (EUR, USDT),
                ],
            ),
            (
                Coinbase,
                &[
                    (BTC, USD),
                    (ETH, USD),
                    (SOL, USD),
                    (BTC, EUR),
                    (ETH, EUR),
                    (ETH, BTC),
                    (USDT, USD),
                ],
            ),
            (
                Kraken,
                &[
                    (BTC, USD),
                    (ETH, USD),
                    (SOL, USD),
                    (BTC, EUR),
                    (ETH, EUR),
                    (ETH, BTC),
                    (USDT, USD),
                    (USDC, USD),
                    (EUR, USD),
                ],
            ),
        ];
        let listed: Vec<_> = by_venue
            .iter()
            .flat_map(|(venue, pairs)| pairs.iter().map(|(base, quote)| (*venue, *base, *quote)))
            .collect();
        World::new(&assets, &listed)
    }

    fn len(&self) -> usize {
        self.universe.instruments.len()
    }

    /// Fair price of an instrument in quanta, so many ppm away.
    fn px(&self, id: usize, away_ppm: i64) -> i64 {
        let rules = &self.universe.instruments[id];
        let value = |asset: AssetId| self.values[usize::from(asset.0)];
        let fair = value(rules.base) / value(rules.quote) * 10f64.powi(i32::from(PX_EXPONENT));
        (fair * (1.0 + away_ppm as f64 / 1e6)).round() as i64
    }

    fn record(&self, id: usize, kind: Kind, data: [i64; 4], at_ns: i64) -> Record {
        let venue = self.universe.instruments[id].venue as u8;
        let record = Record::new(kind, venue, id as u16, data);
        Record { recv_ts_ns: at_ns, engine_ts_ns: at_ns, flags: flag::LAST, conn: 1, ..record }
    }

    /// Twenty levels a side and `Live`, every price of `id` away by `away_ppm(id)`.
    fn books(&self, away_ppm: impl Fn(usize) -> i64) -> Vec<Record> {
        let mut records = Vec::new();
        for id in 0..self.len() {
            for level in 0..LEVELS {
                for (side, sign) in [(Side::Bid, -1), (Side::Ask, 1)] {
                    let away = sign * (HALF_SPREAD_PPM + level * LEVEL_STEP_PPM) + away_ppm(id);
                    let data = [self.px(id, away), 2_000_000, side.idx() as i64, 0];
                    let record = self.record(id, Kind::Level, data, START_NS);
                    records.push(Record { flags: 0, ..record });
                }
            }
            let data = [BookState::Live as i64, 0, 0, 0];
            records.push(self.record(id, Kind::BookState, data, START_NS));
        }
        records
    }

    /// Best prices that walk about their fair value and never far enough to pay.
    fn changes(&self) -> Vec<Record> {
        let mut random = Lcg(11);
        let change = |n: usize| {
            let id = random.below(self.len() as u64) as usize;
            let away = random.below(100) as i64 - 50;
            let data = [
                self.px(id, away - HALF_SPREAD_PPM),
                1_000 + random.below(1_000_000) as i64,
                self.px(id, away + HALF_SPREAD_PPM),
                1_000 + random.below(1_000_000) as i64,
            ];
            self.record(id, Kind::Bbo, data, START_NS + n as i64 * 1_000)
        };
        (0..CHANGES).map(change).collect()
    }

    fn engine(&self, legs_max: usize, away_ppm: impl Fn(usize) -> i64) -> (Engine, Outbox) {
        let params = params(legs_max, AssetId(0));
        let mut engine = Engine::new(self.universe.clone(), params).expect("a sound universe");
        let mut out = Outbox::new(OUTBOX_RECORDS);
        for record in self.books(away_ppm) {
            engine.step(&record, &mut out);
            out.clear();
        }
        (engine, out)
    }
}

const START_NS: i64 = 1_000_000_000_000;

/// The floor: best prices by instrument, and who else lists the same pair.
struct Products {
    best: Vec<[i64; 2]>,
    twins: Vec<Vec<u16>>,
}

impl Products {
    fn new(world: &World) -> Products {
        let all = &world.universe.instruments;
        let twins = |id: usize| {
            let same = |other: &usize| {
                *other != id
                    && (all[*other].base, all[*other].quote) == (all[id].base, all[id].quote)
            };
            (0..all.len()).filter(same).map(|other| other as u16).collect()
        };
        let best = (0..all.len())
            .map(|id| [world.px(id, -HALF_SPREAD_PPM), world.px(id, HALF_SPREAD_PPM)])
            .collect();
        Products { best, twins: (0..all.len()).map(twins).collect() }
    }

    /// Takes a change; returns how many pairs pay.
    #[inline]
    fn step(&mut self, record: &Record) -> u64 {
        let id = usize::from(record.instrument);
        let [bid, _, ask, _] = record.data;
        self.best[id] = [bid, ask];
        let pays = |bid: i64, ask: i64| {
            let (less, more) = (1_000_000 - i128::from(FEE_PPM), 1_000_000 + i128::from(FEE_PPM));
            i128::from(ask) * more < i128::from(bid) * less
        };
        self.twins[id].iter().fold(0, |found, twin| {
            let [their_bid, their_ask] = self.best[usize::from(*twin)];
            found + u64::from(pays(bid, their_ask)) + u64::from(pays(their_bid, ask))
        })
    }
}

/// Times each call by itself.
fn singly(lap: &mut Lap, changes: &[Record], mut step: impl FnMut(&Record)) {
    lap.begin();
    lap.judge_by_median();
    for change in changes {
        let start = tsc();
        step(change);
        let took = tsc() - start;
        lap.hist.add(took);
        lap.ticks += took;
    }
    lap.ops = changes.len() as u64;
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let budget = Some(Budget::P50(100.0));
    let (one, hundred, graph) = (World::pairs(1), World::pairs(100), World::realistic());
    steps(effort, report, &one, 2, "3 venues, 1 pair", budget);
    steps(effort, report, &hundred, 2, "3 venues, 100 pairs", budget);
    for legs_max in [2, 3, 4] {
        let title = format!("7 assets, {} instruments, legs_max {legs_max}", graph.len());
        steps(effort, report, &graph, legs_max, &title, None);
    }
    evaluations(effort, report, &graph);
    Ok(())
}

fn steps(
    effort: Effort,
    report: &mut Report,
    world: &World,
    legs_max: usize,
    title: &str,
    budget: Option<Budget>,
) {
    let changes = world.changes();
    let changes = &changes[..];
    let engine = std::cell::RefCell::new(world.engine(legs_max, |_| 0));
    let cycles = engine.borrow().0.graph().cycles().len();
    let check = |before: tandem_core::engine::Counts| {
        let (engine, out) = &*engine.borrow();
        let after = engine.counts();
        assert_eq!(after.batches - before.batches, changes.len() as u64, "every change decided");
        assert_eq!((after.rejected, after.evaluations), (0, 0), "all understood, nothing walked");
        assert!(out.records().is_empty(), "nothing to say");
    };
    let mut products = [Products::new(world), Products::new(world)];
    let [products, products_singly] = &mut products;
    let mut floor = Contender::new(FLOOR, |lap| {
        let found = lap.time(PASSES * changes.len() as u64, || {
            let pass =
                |_| black_box(changes).iter().map(|change| products.step(change)).sum::<u64>();
            (0..PASSES).map(pass).sum::<u64>()
        });
        assert_eq!(found, 0, "nothing pays");
    });
    let mut contenders = [
        Contender::new(OURS, |lap| {
            let before = *engine.borrow().0.counts();
            {
                let (engine, out) = &mut *engine.borrow_mut();
                lap.begin();
                lap.time(changes.len() as u64, || {
                    black_box(changes).iter().for_each(|change| engine.step(change, out));
                });
            }
            check(before);
        }),
        Contender::new(SINGLY, |lap| {
            let before = *engine.borrow().0.counts();
            {
                let (engine, out) = &mut *engine.borrow_mut();
                singly(lap, changes, |change| engine.step(change, out));
            }
            check(before);
        }),
        Contender::new(FLOOR_SINGLY, |lap| {
            singly(lap, changes, |change| {
                black_box(products_singly.step(change));
            });
        }),
        Contender::new(COUNTER, |lap| singly(lap, changes, |_| ())),
    ];
    for found in compare(effort.rounds(100), &mut floor, &mut contenders, None) {
        let title = format!("best-price change to decision: {title} ({cycles} cycles)");
        let mut table = Table::new("detect", title, &found);
        table.beside(&found, SINGLY, &[FLOOR_SINGLY], budget);
        table.beside(&found, SINGLY, &[COUNTER], None);
        table.beside(&found, OURS, &[FLOOR], budget.map(|_| Budget::Ns(100.0)));
        table.singles(&found);
        report.add(table);
    }
}

/// A cycle, the engine in which it stands, and what it must come to.
struct Case {
    name: String,
    engine: Engine,
    cycle: u32,
    verdict: Verdict,
}

fn case(world: &World, legs: usize, pays: bool) -> Option<Case> {
    let (calm, _) = world.engine(4, |_| 0);
    let mut found = calm.graph().cycles().iter().enumerate().filter(|(_, cycle)| {
        cycle.edges().len() == legs && cycle.edges().iter().any(|e| e.action() == Action::Sell)
    });
    found.find_map(|(idx, cycle)| {
        // One instrument that the cycle sells is worth more by what all legs cost and a tenth of a percent.
        let sold = cycle.edges().iter().find(|edge| edge.action() == Action::Sell)?.instrument();
        let cost = legs as i64 * (i64::from(FEE_PPM) + HALF_SPREAD_PPM) + 1_000;
        let away = |id: usize| if pays && id == usize::from(sold) { cost } else { 0 };
        let (engine, _) = world.engine(4, away);
        let evaluation = engine.evaluate(idx as u32);
        let levels = evaluation.plan.orders().iter().map(|order| order.levels).max().unwrap_or(0);
        let right = match pays {
            true => evaluation.verdict == Verdict::Pays && 2 <= levels,
            false => evaluation.verdict == Verdict::Edge,
        };
        let what = if pays { format!("pays, {levels} levels") } else { "denied".to_owned() };
        let name = format!("tandem evaluate, {legs} legs, {what}");
        right.then_some(Case { name, engine, cycle: idx as u32, verdict: evaluation.verdict })
    })
}

fn evaluations(effort: Effort, report: &mut Report, world: &World) {
    let cases: Vec<Case> = [2, 3, 4]
        .into_iter()
        .flat_map(|legs| [case(world, legs, false), case(world, legs, true)])
        .flatten()
        .collect();
    assert_eq!(cases.len(), 6, "every kind of evaluation was found");
    let changes = world.changes();
    let mut products = Products::new(world);
    let mut floor = Contender::new(FLOOR, |lap| {
        lap.time(PASSES * changes.len() as u64, || {
            for _ in 0..PASSES {
                black_box(&changes).iter().for_each(|change| {
                    black_box(products.step(change));
                });
            }
        });
    });
    let mut contenders: Vec<_> = cases
        .iter()
        .map(|case| {
            Contender::new(case.name.clone(), |lap| {
                const TIMES: u64 = 1_000;
                lap.time(TIMES, || {
                    for _ in 0..TIMES {
                        let found = case.engine.evaluate(black_box(case.cycle));
                        assert_eq!(black_box(found).verdict, case.verdict);
                    }
                });
            })
        })
        .collect();
    for found in compare(effort.rounds(100), &mut floor, &mut contenders, None) {
        let title = "one exact evaluation of a cycle, 20 levels a side";
        let mut table = Table::new("detect", title, &found);
        cases.iter().for_each(|case| table.beside(&found, &case.name, &[FLOOR], None));
        report.add(table);
    }
}
