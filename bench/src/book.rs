//! One level change and a look at both best prices, over the recorded changes of Binance BTCUSDT.
//!
//! The snapshot and the first 100,000 changes (four minutes) are applied in order; after each the best bid and ask are read.
//! Ours holds 8,192 levels a side, as the feed machine's does, and once 400, as the engine's. hftbacktest's
//! depths get the same as prices and quantities in `f64`, which is their interface. Checked: the sum over
//! the best prices after every message (within one, hftbacktest takes off crossed levels by itself and
//! others wait for their removal), and the number of levels at the end.
//!
//! The floor reads every change and adds it up.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;

use hftbacktest::depth::{
    BTreeMarketDepth, HashMapMarketDepth, L2MarketDepth, MarketDepth, ROIVectorMarketDepth,
};
use tandem_core::book::Book;
use tandem_core::units::{Px, Qty, Side};
use tandem_feeds::binance::decode::{Event, decode, decode_snapshot};
use tandem_feeds::publish::Update;
use tandem_feeds::scratch::Scale;
use tandem_feeds::symbols::Symbols;

use crate::Effort;
use crate::captures;
use crate::harness::{Contender, Lap, Lcg, compare};
use crate::report::{Budget, Report, Table};

const SCALE: Scale = Scale { px: 2, qty: 8 };
const TICK: f64 = 0.01;
const LOT: f64 = 0.00001;
const FLOOR: &str = "every change once";
const OURS: &str = "tandem book, 8192 a side";
const WINDOW: &str = "tandem book, 400 a side";

/// Changes of a block: blocks must be short beside the machine's disturbances.
const CHANGES: usize = 100_000;

/// A change, as each side wants it.
#[derive(Clone, Copy)]
struct Change {
    update: Update,
    px: f64,
    qty: f64,
    /// Last of its message.
    last: bool,
}

impl Change {
    fn new(update: Update, last: bool) -> Change {
        let (px, qty) = (update.px.0 as f64 / 1e2, update.qty.0 as f64 / 1e8);
        Change { update, px, qty, last }
    }
}

/// A book under test.
trait Depth {
    fn set(&mut self, change: &Change);
    /// Best bid and ask in ticks; 0 where the side is empty.
    fn best(&self) -> [i64; 2];
}

impl Depth for Book {
    #[inline]
    fn set(&mut self, change: &Change) {
        let Update { side, px, qty } = change.update;
        Book::set(self, side, px, qty);
    }
    #[inline]
    fn best(&self) -> [i64; 2] {
        Side::BOTH.map(|side| Book::best(self, side).map_or(0, |level| level.px.0))
    }
}

/// std's ordered maps.
#[derive(Default)]
struct Maps([BTreeMap<i64, i64>; 2]);

impl Depth for Maps {
    #[inline]
    fn set(&mut self, change: &Change) {
        let Update { side, px, qty } = change.update;
        let map = &mut self.0[side.idx()];
        if qty.0 == 0 {
            map.remove(&px.0);
        } else {
            map.insert(px.0, qty.0);
        }
    }
    #[inline]
    fn best(&self) -> [i64; 2] {
        let [bids, asks] = &self.0;
        let px = |level: Option<(&i64, &i64)>| level.map_or(0, |(px, _)| *px);
        [px(bids.last_key_value()), px(asks.first_key_value())]
    }
}

/// One of hftbacktest's.
struct Hft<D>(D);

impl<D: L2MarketDepth + MarketDepth> Depth for Hft<D> {
    #[inline]
    fn set(&mut self, change: &Change) {
        match change.update.side {
            Side::Bid => self.0.update_bid_depth(change.px, change.qty, 0),
            Side::Ask => self.0.update_ask_depth(change.px, change.qty, 0),
        };
    }
    #[inline]
    fn best(&self) -> [i64; 2] {
        let tick = |tick: i64| if tick == i64::MIN || tick == i64::MAX { 0 } else { tick };
        [tick(self.0.best_bid_tick()), tick(self.0.best_ask_tick())]
    }
}

/// The changes of a recording, its snapshot first; nothing where it is not there.
fn recorded() -> Option<(Vec<Change>, Vec<Change>)> {
    let messages = captures::load(captures::BINANCE)?;
    let symbols = Symbols::new(["BTCUSDT"].into_iter());
    let mut levels = Default::default();
    let body = &messages.iter().find(|message| message.rest)?.raw;
    let id = decode_snapshot(body, SCALE, &mut levels).expect("the venue's book");
    let all = |levels: &[Vec<Update>; 2]| {
        let mut all: Vec<Change> =
            levels.iter().flatten().map(|update| Change::new(*update, false)).collect();
        if let Some(last) = all.last_mut() {
            last.last = true;
        }
        all
    };
    let snapshot = all(&levels);
    let mut changes = Vec::new();
    for message in messages.iter().filter(|message| !message.rest) {
        match decode(&message.raw, &symbols, &[SCALE], &mut levels).expect("a recorded message") {
            Event::Depth { span, .. } if id < span.last => changes.extend(all(&levels)),
            _ => {}
        }
    }
    Some((snapshot, changes))
}

/// Changes of a similar shape: half of them within eight levels of the best, 40 % removals, few far away.
fn generated() -> (Vec<Change>, Vec<Change>) {
    let mut random = Lcg(7);
    let mut middle = 6_183_763i64;
    let at = |middle: i64, side: Side, away: i64| match side {
        Side::Bid => Px(middle - away),
        Side::Ask => Px(middle + 1 + away),
    };
    let mut snapshot = Vec::new();
    for away in 0..1_000 {
        for side in Side::BOTH {
            let update = Update { side, px: at(middle, side, away * 7), qty: Qty(1_000_000) };
            snapshot.push(Change::new(update, false));
        }
    }
    let mut changes = Vec::new();
    for _ in 0..250_000 {
        middle += random.below(3) as i64 - 1;
        let side = Side::BOTH[random.below(2) as usize];
        let away = match random.below(10) {
            0..5 => random.below(8),
            5..9 => random.below(400),
            _ => random.below(7_000),
        };
        let qty =
            Qty(if random.below(10) < 4 { 0 } else { 1_000 * (1 + random.below(9_999)) as i64 });
        let update = Update { side, px: at(middle, side, away as i64), qty };
        changes.push(Change::new(update, random.below(20) == 0));
    }
    (snapshot, changes)
}

/// Applies all; returns the sum over the best prices after each message.
#[inline(never)]
fn replay(depth: &mut impl Depth, changes: &[Change]) -> u64 {
    let mut sum = 0u64;
    for change in changes {
        depth.set(change);
        // Read after every change; counted where a message ends.
        let [bid, ask] = black_box(depth.best());
        if change.last {
            sum = sum.wrapping_mul(31).wrapping_add((bid as u64) << 1 ^ ask as u64);
        }
    }
    sum
}

fn block<D: Depth>(
    lap: &mut Lap,
    snapshot: &[Change],
    changes: &[Change],
    expected: Option<u64>,
    mut depth: D,
) {
    snapshot.iter().for_each(|change| depth.set(change));
    lap.begin();
    let sum = lap.time(changes.len() as u64, || replay(&mut depth, black_box(changes)));
    if let Some(expected) = expected {
        assert_eq!(sum, expected, "the best prices are those of the ordered maps");
    }
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let real = recorded();
    let from = if real.is_some() { "recorded" } else { "GENERATED, no recordings here" };
    let (snapshot, changes) = real.unwrap_or_else(generated);
    let (snapshot, changes) = (&snapshot[..], &changes[..changes.len().min(CHANGES)]);
    let sum_of = |depth: &mut dyn FnMut() -> u64| depth();
    let load = |depth: &mut Maps| snapshot.iter().for_each(|change| depth.set(change));
    let mut maps = Maps::default();
    load(&mut maps);
    let expected = sum_of(&mut || replay(&mut maps, changes));
    let crossed = maps.best()[1] <= maps.best()[0];
    // hftbacktest takes off what a change crosses, which our source never needs after a whole message.
    let same = (!crossed && from == "recorded").then_some(expected);
    let px = |change: &Change| change.px;
    let lowest = snapshot.iter().chain(changes).map(px).fold(f64::MAX, f64::min);
    let highest = snapshot.iter().chain(changes).map(px).fold(0.0, f64::max);
    // Its region of interest; what is outside is passed over by it, so all is inside where memory allows.
    let (lowest, highest) = (lowest.max(30_000.0), highest.min(120_000.0));

    let mut floor = Contender::new(FLOOR, |lap| {
        lap.time(changes.len() as u64, || {
            black_box(changes.iter().fold(0i64, |sum, change| {
                let Update { px, qty, .. } = change.update;
                sum.wrapping_add(px.0).wrapping_add(qty.0)
            }))
        });
    });
    let peers = [
        "hftbacktest 0.9 HashMap",
        "hftbacktest 0.9 BTree",
        "hftbacktest 0.9 ROIVector",
        "std BTreeMap",
    ];
    let mut contenders = [
        Contender::new(OURS, |lap| block(lap, snapshot, changes, Some(expected), Book::new(8_192))),
        // Four hundred levels forget what is beyond, so in a wild market the best may differ; not here.
        Contender::new(WINDOW, |lap| block(lap, snapshot, changes, None, Book::new(400))),
        Contender::new(peers[0], |lap| {
            block(lap, snapshot, changes, same, Hft(HashMapMarketDepth::new(TICK, LOT)));
        }),
        Contender::new(peers[1], |lap| {
            block(lap, snapshot, changes, same, Hft(BTreeMarketDepth::new(TICK, LOT)));
        }),
        Contender::new(peers[2], |lap| {
            let depth = ROIVectorMarketDepth::new(TICK, LOT, lowest, highest);
            block(lap, snapshot, changes, same, Hft(depth));
        }),
        Contender::new(peers[3], |lap| {
            block(lap, snapshot, changes, Some(expected), Maps::default());
        }),
    ];
    for found in compare(effort.rounds(60), &mut floor, &mut contenders, None) {
        let title = format!("level change and both best prices, {} changes, {from}", changes.len());
        let mut table = Table::new("book", title, &found);
        table.beside(&found, OURS, &peers[..1], Some(Budget::Ns(20.0)));
        table.beside(&found, OURS, &peers[1..], None);
        table.beside(&found, OURS, &[FLOOR], None);
        table.beside(&found, WINDOW, &peers[..1], Some(Budget::Ns(20.0)));
        report.add(table);
    }
    Ok(())
}
