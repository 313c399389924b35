//! hftbacktest over a journal of ours: what `bench/backtest/run` puts beside `tandem backtest`.
//!
//! Invariant: the peer sees every level, clear and trade of the journal, on both of its clocks, in the same order,
//! and decides as often as our engine does: when a message has ended. What is chosen, is chosen for it: books as a
//! flat vector over the very range of prices, no orders, and a strategy that only compares best prices. With
//! `memory` its files are read before the clock starts; with `files` as it goes, as ours reads its journal.
//!
//!   backtest_peer convert JOURNAL DIR REPEAT     every event in files of its own format, repeated with later times
//!   backtest_peer run DIR memory|files           one JSON object: events, wakes, seconds, processor seconds
//!
//! Not here: what is measured around it (`bench/backtest/run`).

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use hftbacktest::backtest::assettype::LinearAsset;
use hftbacktest::backtest::data::{DataSource, read_npy_file, write_npy};
use hftbacktest::backtest::models::{
    CommonFees, ConstantLatency, RiskAdverseQueueModel, TradingValueFeeModel,
};
use hftbacktest::backtest::{Asset, Backtest, ExchangeKind, L2AssetBuilder};
use hftbacktest::depth::{MarketDepth, ROIVectorMarketDepth};
use hftbacktest::prelude::{Bot, ElapseResult};
use hftbacktest::types::{
    BUY_EVENT, DEPTH_CLEAR_EVENT, DEPTH_EVENT, EXCH_EVENT, Event, LOCAL_EVENT, SELL_EVENT,
    TRADE_EVENT,
};
use serde_json::{Value, json};
use tandem_core::record::{Kind, LAYOUT_HASH, Record, flag};
use tandem_shm::JournalReader;

/// Events of one file: what the peer has in memory at a time of each asset.
const FILE_EVENTS: usize = 1_000_000;
/// Between one time and the next, as `tandem backtest --repeat` leaves it.
const PAUSE_NS: i64 = 1_000_000_000;
/// Prices and quantities count in these; the journal's own quanta are a power of ten of the same.
const TICK: f64 = 0.01;
const LOT: f64 = 0.000_000_01;

/// One of the two assets on its way into files.
struct Out {
    id: u16,
    events: Vec<Event>,
    files: usize,
    exch_ns: i64,
    px_min: f64,
    px_max: f64,
    count: u64,
}

impl Out {
    fn add(
        &mut self,
        record: &Record,
        shift_ns: i64,
        dir: &Path,
        asset: usize,
    ) -> std::io::Result<()> {
        let [px, qty, side, _] = record.data;
        let of_side = if side == 0 { BUY_EVENT } else { SELL_EVENT };
        let ev = match record.kind() {
            Some(Kind::Level) => DEPTH_EVENT | of_side,
            Some(Kind::Trade) => TRADE_EVENT | of_side,
            _ => DEPTH_CLEAR_EVENT,
        };
        let (px, qty) = (px as f64 * TICK, qty as f64 * LOT);
        if record.kind() == Some(Kind::Level) {
            (self.px_min, self.px_max) = (self.px_min.min(px), self.px_max.max(px));
        }
        let local_ts = record.engine_ts_ns + shift_ns;
        let told = if record.venue_ts_ns == 0 { local_ts } else { record.venue_ts_ns + shift_ns };
        // Neither clock goes back, and nothing is received before it happened: the peer asks for it.
        self.exch_ns = self.exch_ns.max(told.min(local_ts));
        self.events.push(Event {
            ev: ev | EXCH_EVENT | LOCAL_EVENT,
            exch_ts: self.exch_ns,
            local_ts,
            px,
            qty,
            order_id: 0,
            ival: 0,
            fval: 0.0,
        });
        self.count += 1;
        if self.events.len() == FILE_EVENTS { self.flush(dir, asset) } else { Ok(()) }
    }

    fn flush(&mut self, dir: &Path, asset: usize) -> std::io::Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        let path = dir.join(format!("asset{asset}-{:05}.npy", self.files));
        let mut file = BufWriter::new(File::create(path)?);
        write_npy(&mut file, &self.events)?;
        file.flush()?;
        self.files += 1;
        self.events.clear();
        Ok(())
    }
}

fn convert(journal: &Path, dir: &Path, repeat: i64) -> Result<Value, Box<dyn Error>> {
    let mut reader = JournalReader::<Record>::open(journal, LAYOUT_HASH)?;
    let (mut records, mut first_ns, mut last_ns) = (Vec::new(), 0, 0);
    while let Some(record) = reader.next()? {
        // As `tandem backtest` reads them: what has a time and was an input.
        if record.has(flag::OUTPUT) || record.engine_ts_ns == 0 {
            continue;
        }
        first_ns = if first_ns == 0 { record.engine_ts_ns } else { first_ns };
        last_ns = record.engine_ts_ns;
        match record.kind() {
            Some(Kind::Level | Kind::Trade | Kind::Clear) => records.push(record),
            Some(Kind::Bbo) => {
                return Err("best prices beside levels are not converted here".into());
            }
            _ => {}
        }
    }
    let mut ids: Vec<u16> = records.iter().map(|record| record.instrument).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != 2 {
        return Err(format!("{}: {} instruments, not two", journal.display(), ids.len()).into());
    }
    fs::create_dir_all(dir)?;
    let mut outs: Vec<Out> = ids
        .into_iter()
        .map(|id| Out {
            id,
            events: Vec::new(),
            files: 0,
            exch_ns: i64::MIN,
            px_min: f64::MAX,
            px_max: 0.0,
            count: 0,
        })
        .collect();
    for time in 0..repeat {
        let shift_ns = time * (last_ns - first_ns + PAUSE_NS);
        for record in &records {
            for (asset, out) in outs.iter_mut().enumerate() {
                if out.id == record.instrument {
                    out.add(record, shift_ns, dir, asset)?;
                }
            }
        }
    }
    let mut assets = Vec::new();
    for (asset, out) in outs.iter_mut().enumerate() {
        out.flush(dir, asset)?;
        let of = json!({
            "files": out.files,
            "px_min": out.px_min,
            "px_max": out.px_max,
            "events": out.count,
        });
        assets.push(of);
    }
    let events: u64 = outs.iter().map(|out| out.count).sum();
    let meta = json!({ "assets": assets, "events": events, "tick": TICK, "lot": LOT });
    fs::write(dir.join("meta.json"), serde_json::to_string(&meta)?)?;
    Ok(meta)
}

/// Whether the files are read before the clock starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Before,
    Within,
}

fn asset(dir: &Path, at: usize, meta: &Value, reading: Reading) -> Result<L2Asset, Box<dyn Error>> {
    let of = &meta["assets"][at];
    let number = |key: &str| of[key].as_f64().ok_or(format!("meta.json has no {key}"));
    let (px_min, px_max) = (number("px_min")?, number("px_max")?);
    let mut data = Vec::new();
    for file in 0..of["files"].as_u64().unwrap_or(0) {
        let path = dir.join(format!("asset{at}-{file:05}.npy")).display().to_string();
        data.push(match reading {
            Reading::Before => DataSource::Data(read_npy_file(&path)?),
            Reading::Within => DataSource::File(path),
        });
    }
    Ok(L2AssetBuilder::new()
        .data(data)
        .parallel_load(false)
        .latency_model(ConstantLatency::new(5_000_000, 5_000_000))
        .asset_type(LinearAsset::new(1.0))
        .fee_model(TradingValueFeeModel::new(CommonFees::new(0.0, 0.0025)))
        .exchange(ExchangeKind::PartialFillExchange)
        .queue_model(RiskAdverseQueueModel::new())
        .depth(move || ROIVectorMarketDepth::new(TICK, LOT, px_min, px_max))
        .build()?)
}

type L2Asset = Asset<
    dyn hftbacktest::backtest::proc::LocalProcessor<ROIVectorMarketDepth>,
    dyn hftbacktest::backtest::proc::Processor,
    Event,
>;

fn one(dir: &Path, meta: &Value, reading: Reading) -> Result<Value, Box<dyn Error>> {
    let mut backtest = Backtest::builder()
        .add_asset(asset(dir, 0, meta, reading)?)
        .add_asset(asset(dir, 1, meta, reading)?)
        .build()?;
    let (begun, cpu_begun) = (Instant::now(), cpu_seconds()?);
    let (mut wakes, mut crossed) = (0u64, 0u64);
    // A day without any event is the end.
    while backtest.wait_next_feed(true, 86_400_000_000_000)? != ElapseResult::EndOfData {
        wakes += 1;
        let (a, b) = (backtest.depth(0), backtest.depth(1));
        // One buys, the other sells, either way, fees of both in between.
        let pays = |bid: f64, ask: f64| ask * 1.0025 < bid * 0.9975;
        crossed += u64::from(pays(a.best_bid(), b.best_ask()) || pays(b.best_bid(), a.best_ask()));
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu_begun);
    Ok(json!({ "wakes": wakes, "crossed": crossed, "seconds": seconds, "cpu": cpu }))
}

/// Seconds that this process was on a processor.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/schedstat")?;
    let ns: u64 = text.split(' ').next().unwrap_or("").parse()?;
    Ok(ns as f64 / 1e9)
}

fn run(dir: &Path, reading: Reading) -> Result<Value, Box<dyn Error>> {
    let meta: Value = serde_json::from_str(&fs::read_to_string(dir.join("meta.json"))?)?;
    let mut found = one(dir, &meta, reading)?;
    found["events"] = meta["events"].clone();
    Ok(found)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["convert", journal, dir, repeat] => match repeat.parse() {
            Ok(repeat) if 0 < repeat => convert(Path::new(journal), Path::new(dir), repeat),
            _ => Err(format!("REPEAT `{repeat}` is no number of times").into()),
        },
        ["run", dir, "memory"] => run(Path::new(dir), Reading::Before),
        ["run", dir, "files"] => run(Path::new(dir), Reading::Within),
        _ => {
            eprintln!("usage: backtest_peer convert JOURNAL DIR REPEAT | run DIR memory|files");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("backtest_peer: {error}");
            ExitCode::FAILURE
        }
    }
}
