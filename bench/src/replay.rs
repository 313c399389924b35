//! Records a second through the engine: two venues, BTC/USD, every decision made.
//!
//! The records are what the feed machines make of two minutes of Coinbase and Kraken, merged as they came,
//! with the engine tile's timer every 10 ms; they are repeated with later times until they are more than a
//! cache holds. Once with fees of 1000 ppm a leg, as venues charge them, where nothing is walked; and with
//! 100 ppm and none, where opportunities open, are walked with every change of their books, and close. `from the journal` reads them from a journal's files on tmpfs, every
//! checksum verified. The floor reads every byte of the records. hftbacktest's hash-map depth takes the same
//! level changes and decides nothing: what books alone cost there (its whole backtest is quoted at
//! 11 M records/s in the design).
//!
//! Checked: every record was understood, and every replay puts out the same.

use std::error::Error;
use std::hint::black_box;

use hftbacktest::depth::{HashMapMarketDepth, L2MarketDepth, MarketDepth};
use tandem_core::engine::{Engine, OUTBOX_RECORDS};
use tandem_core::episode::Outbox;
use tandem_core::instrument::Universe;
use tandem_core::record::{BookState, Kind, LAYOUT_HASH, Record, Venue, flag};
use tandem_core::units::{FeePpm, Px, Qty, Side};
use tandem_shm::{JournalReader, JournalSpec, JournalWriter};
use zerocopy::IntoBytes;

use crate::Effort;
use crate::harness::{Contender, Lap, Lcg, compare};
use crate::markets::{bitcoin, params, two_venues};
use crate::report::{Budget, Report, Table};
use crate::ring::ShmDir;

const RECORDS: usize = 250_000;
const TIMER_NS: i64 = 10_000_000;
const FLOOR: &str = "every byte once";
const OURS: &str = "tandem, fees 1000 ppm";
const CHEAP: &str = "tandem, fees 100 ppm";
const FREE: &str = "tandem, no fees";
const JOURNAL: &str = "tandem, from the journal";
const HFT: &str = "hftbacktest 0.9 HashMap, books only";

/// Repeats records with later times, and puts timers between them.
fn stretch(once: &[Record]) -> Vec<Record> {
    let first = once.first().map_or(0, |record| record.engine_ts_ns);
    let span = once.last().map_or(0, |record| record.engine_ts_ns) - first + TIMER_NS;
    let mut records = Vec::with_capacity(RECORDS + once.len());
    let (mut shift, mut timer_ns) = (0, first);
    while records.len() < RECORDS {
        for record in once {
            let now_ns = record.engine_ts_ns + shift;
            let batch_ended = records.last().is_none_or(|last: &Record| last.has(flag::LAST));
            if timer_ns <= now_ns && batch_ended {
                let timer = Record::new(Kind::Timer, 0, u16::MAX, [0; 4]);
                records.push(Record { engine_ts_ns: now_ns, flags: flag::LAST, ..timer });
                timer_ns = now_ns + TIMER_NS;
            }
            let mut later = *record;
            later.engine_ts_ns = now_ns;
            later.recv_ts_ns += shift;
            records.push(later);
        }
        shift += span;
    }
    records
}

/// Two books that move about one price, where there is no recording.
fn generated() -> Vec<Record> {
    let mut random = Lcg(3);
    let mut records = Vec::new();
    for (venue, id) in [(Venue::Coinbase, 1u16), (Venue::Kraken, 2)] {
        let live = Record::new(Kind::BookState, venue as u8, id, [BookState::Live as i64, 0, 0, 0]);
        records.push(Record { flags: flag::LAST, ..live });
    }
    let mut middle = 6_500_000i64;
    for _ in 0..100_000 {
        middle += random.below(3) as i64 - 1;
        let (venue, id) = [(Venue::Coinbase, 1u16), (Venue::Kraken, 2)][random.below(2) as usize];
        let side = Side::BOTH[random.below(2) as usize];
        let away = 1 + random.below(100) as i64;
        let px = if side == Side::Bid { middle - away } else { middle + away };
        let qty = Qty(random.below(3) as i64 * 1_000_000);
        let last = if random.below(4) == 0 { flag::LAST } else { 0 };
        let record = Record { instrument: id, ..Record::level(venue, id, side, Px(px), qty) };
        records.push(Record { flags: last, ..record });
    }
    for (n, record) in records.iter_mut().enumerate() {
        record.engine_ts_ns = 1_000_000_000 + n as i64 * 50_000;
        record.recv_ts_ns = record.engine_ts_ns;
    }
    records
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outcome {
    batches: u64,
    evaluations: u64,
    opportunities: u64,
    denials: u64,
    outputs: u64,
    hash: u64,
}

struct Replayed {
    engine: Engine,
    out: Outbox,
    outputs: u64,
    hash: u64,
}

impl Replayed {
    fn new(universe: &Universe, fee_ppm: i32) -> Replayed {
        let engine = engine(universe.clone(), fee_ppm);
        Replayed { engine, out: Outbox::new(OUTBOX_RECORDS), outputs: 0, hash: 0 }
    }

    #[inline]
    fn step(&mut self, record: &Record) {
        self.engine.step(record, &mut self.out);
        let outputs = self.out.records();
        if !outputs.is_empty() {
            self.outputs += outputs.len() as u64;
            for output in outputs {
                let word = output.data.iter().fold(0, |sum: i64, word| sum.wrapping_add(*word));
                self.hash = self.hash.wrapping_mul(31).wrapping_add(word as u64);
            }
            self.out.clear();
        }
    }

    fn outcome(&self, records: usize) -> Outcome {
        let counts = self.engine.counts();
        assert_eq!((counts.records, counts.rejected), (records as u64, 0), "all were understood");
        Outcome {
            batches: counts.batches,
            evaluations: counts.evaluations,
            opportunities: counts.opportunities.iter().sum(),
            denials: counts.denials,
            outputs: self.outputs,
            hash: self.hash,
        }
    }
}

fn engine(mut universe: Universe, fee_ppm: i32) -> Engine {
    universe.instruments.iter_mut().for_each(|rules| rules.taker_fee = FeePpm(fee_ppm));
    let usd = universe.instruments[1].quote;
    Engine::new(universe, params(4, usd)).expect("a sound universe")
}

fn block(
    lap: &mut Lap,
    mut replayed: Replayed,
    records: &[Record],
    expected: &mut Option<Outcome>,
) {
    lap.begin();
    lap.time(records.len() as u64, || records.iter().for_each(|record| replayed.step(record)));
    let outcome = replayed.outcome(records.len());
    assert_eq!(*expected.get_or_insert(outcome), outcome, "a replay is a replay");
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let real = two_venues();
    let from = if real.is_some() { "recorded" } else { "GENERATED, no recordings here" };
    let once = real.unwrap_or_else(generated);
    let records = stretch(&once);
    let records = &records[..];
    let universe = bitcoin().0;
    let fresh = |fee_ppm| Replayed::new(&universe, fee_ppm);

    let dir = ShmDir::new("replay")?;
    let path = dir.0.join("journal");
    let spec = JournalSpec { segments_ahead: 1, segments_max: 8, ..JournalSpec::new(LAYOUT_HASH) };
    let mut writer = JournalWriter::<Record>::create(&path, &spec)?;
    for record in records {
        while writer.append(record).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    writer.close()?;

    let (mut with_fees, mut cheap, mut without) = (None, None, None);
    let mut from_journal = None;
    let mut floor = Contender::new(FLOOR, |lap| {
        lap.time(records.len() as u64, || {
            let words = |record: &Record| {
                let bytes = record.as_bytes().as_chunks::<8>().0;
                bytes.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
            };
            black_box(records.iter().fold(0u64, |sum, record| sum.wrapping_add(words(record))))
        });
    });
    let mut contenders = [
        Contender::new(OURS, |lap| block(lap, fresh(1_000), records, &mut with_fees)),
        Contender::new(CHEAP, |lap| block(lap, fresh(100), records, &mut cheap)),
        Contender::new(FREE, |lap| block(lap, fresh(0), records, &mut without)),
        Contender::new(JOURNAL, |lap| {
            let mut replayed = fresh(1_000);
            let mut reader =
                JournalReader::<Record>::open(&path, LAYOUT_HASH).expect("it is there");
            lap.begin();
            lap.time(records.len() as u64, || {
                while let Some(record) = reader.next().expect("it is sound") {
                    replayed.step(&record);
                }
            });
            from_journal = Some(replayed.outcome(records.len()));
        }),
        Contender::new(HFT, |lap| books_only(lap, records)),
    ];
    let found = compare(effort.rounds(40), &mut floor, &mut contenders, None);
    drop(contenders);
    assert_eq!(from_journal, with_fees, "the journal replays to the same");
    for found in found {
        let title = format!("ns a record, {} records, {from}", records.len());
        let mut table = Table::new("replay", title, &found);
        let budget = Some(Budget::PerSecond(10e6));
        table.beside(&found, OURS, &[HFT], budget);
        table.beside(&found, OURS, &[FLOOR], None);
        table.beside(&found, CHEAP, &[OURS], budget);
        table.beside(&found, FREE, &[OURS], budget);
        table.beside(&found, JOURNAL, &[OURS], None);
        for (name, outcome) in [(OURS, with_fees), (CHEAP, cheap), (FREE, without)] {
            let Some(outcome) = outcome else { continue };
            let rate = found.get(name).map_or(0.0, |found| 1e3 / found.ns);
            table.note(format!("{name}: {rate:.1} M records/s, {outcome:?}"));
        }
        report.add(table);
    }
    Ok(())
}

/// The level changes into hftbacktest's books, best prices read where a message ends.
fn books_only(lap: &mut Lap, records: &[Record]) {
    let mut books = [(); 2].map(|()| HashMapMarketDepth::new(0.01, 0.00000001));
    let mut sum = 0i64;
    lap.begin();
    lap.time(records.len() as u64, || {
        for record in records {
            let Some(book) = books.get_mut(usize::from(record.instrument).wrapping_sub(1)) else {
                continue;
            };
            let [px, qty, side, _] = record.data;
            match record.kind() {
                Some(Kind::Level) if side == 0 => {
                    book.update_bid_depth(px as f64 / 1e2, qty as f64 / 1e8, 0);
                }
                Some(Kind::Level) => {
                    book.update_ask_depth(px as f64 / 1e2, qty as f64 / 1e8, 0);
                }
                // The recording starts anew.
                Some(Kind::Clear) => *book = HashMapMarketDepth::new(0.01, 0.00000001),
                _ => {}
            }
            if record.has(flag::LAST) {
                sum = sum.wrapping_add(book.best_bid_tick() ^ book.best_ask_tick());
            }
        }
    });
    assert_ne!(black_box(sum), 0, "there were best prices");
}
