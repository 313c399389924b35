//! A journal of a made-up market: as long as wanted, the same for the same seed, without any venue.
//!
//! Invariant: integers and a seeded generator only, so a seed and a length give the same records on any
//! machine. No book is ever crossed within itself; between venues they drift apart and come back, so
//! that every kind of opportunity occurs. For replay, digests and benchmarks; it is no model of a market.

use std::path::Path;

use tandem_core::book::Book;
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::data::{DataError, Recorded, Recorder};
use crate::table::{Detection, ListingText, Setup, Table, VenueDetection};

/// What is listed where: venue, base, quote, price in ticks, tick.
const LISTED: [(&str, &str, &str, i64, &str); 12] = [
    ("binance", "BTC", "USDT", 6_500_000, "0.01"),
    ("binance", "ETH", "USDT", 320_000, "0.01"),
    ("binance", "ETH", "BTC", 49_231, "0.000001"),
    ("coinbase", "BTC", "USD", 6_500_000, "0.01"),
    ("coinbase", "ETH", "USD", 320_000, "0.01"),
    ("coinbase", "USDT", "USD", 100_000, "0.00001"),
    ("coinbase", "ETH", "BTC", 49_231, "0.000001"),
    ("kraken", "BTC", "USD", 6_500_000, "0.01"),
    ("kraken", "ETH", "USD", 320_000, "0.01"),
    ("kraken", "USDT", "USD", 100_000, "0.00001"),
    ("kraken", "BTC", "USDT", 6_500_000, "0.01"),
    ("kraken", "ETH", "BTC", 49_231, "0.000001"),
];

/// Levels a side that are kept.
const LEVELS: i64 = 40;
/// Time between two messages.
const STEP_NS: i64 = 250_000;
/// When the made-up market begins, UNIX ns: 2026-01-01.
const BEGIN_NS: i64 = 1_767_225_600_000_000_000;

/// SplitMix64: small, and good enough for a market nobody believes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: i64) -> i64 {
        (self.next() % bound as u64) as i64
    }
}

struct Listed {
    venue: Venue,
    id: u16,
    /// Where its price belongs, and where it is, in ticks.
    home: i64,
    middle: i64,
    /// One ten-thousandth of the price, in ticks, at least 1.
    basis_point: i64,
    tick: i64,
    book: Book,
}

pub(crate) fn setup() -> Setup {
    let listings = LISTED.iter().map(|(venue, base, quote, _, tick)| ListingText {
        venue: (*venue).to_owned(),
        symbol: format!("{base}/{quote}"),
        feed_symbol: format!("{base}/{quote}"),
        rest_symbol: format!("{base}/{quote}"),
        base: (*base).to_owned(),
        quote: (*quote).to_owned(),
        tick: (*tick).to_owned(),
        lot: "0.00001".to_owned(),
        qty_min: "0.0001".to_owned(),
        qty_max: "9000".to_owned(),
        notional_min: String::new(),
        price_precision: None,
        qty_precision: None,
        asset_precision: None,
        status: TradingStatus::Trading as u8,
        taker_fee_ppm: 100,
        fee_in: if *venue == "binance" { "received" } else { "quote" }.to_owned(),
        notional_max: if *quote == "BTC" { "1" } else { "50000" }.to_owned(),
    });
    let venue = VenueDetection {
        slippage_ppm: 10,
        staleness_ppm_per_s: 100,
        age_max_ms: 1_000,
        order_latency_ms: 5,
    };
    Setup {
        mode: "observe".to_owned(),
        listings: listings.collect(),
        limits: None,
        run: 0,
        detection: Detection {
            edge_min_ppm: 20,
            edge_max_ppm: 50_000,
            edge_max_halt_s: 1,
            basis_ppm: 0,
            numeraires: ["USD", "USDT"].map(str::to_owned).to_vec(),
            legs_max: 3,
            cycles_max: 10_000,
            window_levels: 100,
            flicker_ms: 5,
            denial_ms: 1_000,
            update_ms: 10,
            venues: Venue::ALL.map(|v| (v.name().to_owned(), venue.clone())).into(),
        },
    }
}

impl Listed {
    /// One message: the price moves or a level changes; its records, the last one marked.
    fn message(&mut self, random: &mut Random, now_ns: i64, update_id: u64) -> Vec<Record> {
        let mut changes: Vec<(Side, i64, i64)> = Vec::new();
        if random.below(8) == 0 {
            // Mostly back home, now and then away from it.
            let away =
                if random.below(400) == 0 { 12 * self.basis_point } else { self.basis_point };
            let pull = (self.home - self.middle) / 16;
            self.middle += pull + random.below(2 * away + 1) - away;
            for side in Side::BOTH {
                let crossing = self.book.levels(side).map(|level| level.px.0 / self.tick);
                let crossing = crossing.filter(|px| match side {
                    Side::Bid => self.middle <= *px,
                    Side::Ask => *px <= self.middle,
                });
                changes.extend(crossing.map(|px| (side, px, 0)));
            }
        }
        for _ in 0..=random.below(3) {
            let side = if random.below(2) == 0 { Side::Bid } else { Side::Ask };
            let far = 1 + random.below(LEVELS) * self.basis_point / 8;
            let px = if side == Side::Bid { self.middle - far } else { self.middle + far };
            let qty = random.below(3) * (1 + random.below(200)) * 1_000;
            changes.push((side, px, qty));
        }
        let mut records = Vec::with_capacity(changes.len());
        for (side, px, qty) in changes {
            let (px, qty) = (Px(px * self.tick), Qty(qty));
            self.book.set(side, px, qty);
            records.push(Record {
                update_id,
                venue_ts_ns: now_ns - 1_000_000,
                recv_ts_ns: now_ns,
                conn: 1,
                ..Record::level(self.venue, self.id, side, px, qty)
            });
        }
        if let Some(last) = records.last_mut() {
            last.flags |= flag::LAST;
        }
        records
    }
}

/// Makes a journal of at least `records` records at `to`.
pub fn generate(to: &Path, seed: u64, records: u64) -> Result<Recorded, DataError> {
    let table = Table::build(setup(), "the generator")?;
    let mut recorder = Recorder::begin(to, &table)?;
    let mut random = Random(seed);
    let mut listed: Vec<Listed> = LISTED
        .iter()
        .zip(&table.instruments)
        .map(|((_, _, _, ticks, _), instrument)| Listed {
            venue: instrument.venue,
            id: instrument.id,
            home: *ticks,
            middle: *ticks,
            basis_point: (ticks / 10_000).max(1),
            tick: table.universe.instruments[usize::from(instrument.id)].tick.0,
            book: Book::new(1_000),
        })
        .collect();
    let mut now_ns = BEGIN_NS;
    for instrument in &listed {
        let data = [BookState::Live as i64, 0, 0, 0];
        let live = Record::new(Kind::BookState, instrument.venue as u8, instrument.id, data);
        recorder.take(now_ns, &Record { flags: flag::LAST, conn: 1, recv_ts_ns: now_ns, ..live });
    }
    let mut update_id = 0;
    while recorder.next_seq() <= records && !recorder.has_failed() {
        now_ns += STEP_NS;
        update_id += 1;
        let one = random.below(listed.len() as i64) as usize;
        for record in listed[one].message(&mut random, now_ns, update_id) {
            recorder.take(now_ns, &record);
        }
        if update_id.is_multiple_of(40) {
            recorder.take(now_ns, &Record::new(Kind::Timer, 0, u16::MAX, [0; 4]));
        }
    }
    recorder.finish(update_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_journal() {
        let digest = |name: &str, seed| {
            let dir = format!("/dev/shm/tandem-generate-{name}-{}", std::process::id());
            let _ = std::fs::remove_dir_all(&dir);
            let report = generate(Path::new(&dir), seed, 60_000).expect("room for two segments");
            let replayed = crate::replay::verify(Path::new(&dir)).expect("a journal");
            let _ = std::fs::remove_dir_all(&dir);
            assert!(replayed.identical && 60_000 <= report.records, "{report:?} {replayed:?}");
            assert!(report.opportunities.iter().all(|kind| 0 < *kind), "{report:?}");
            replayed.digest
        };
        assert_eq!(digest("a", 7), digest("b", 7));
        assert_ne!(digest("a", 7), digest("c", 8));
    }
}
