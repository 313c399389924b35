//! A process that archives is killed at many moments under load: the archive is the journal, each record once, in
//! order; and an engine that starts after segments went is given what it would have been given by all records.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/archive.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::*;
use tandem_core::instrument::{Asset, AssetId, FeeIn, Instrument, Universe};
use tandem_core::order::{Action, DoneStatus, NewOrder, OrderKey, Purpose, Report, Tif};
use tandem_core::record::{Kind, Record, TradingStatus, Venue};
use tandem_core::restore::collect;
use tandem_core::units::{Amount, FeePpm, Px, Qty};
use tandem_drain::archive::checkpoint::{self, RestoreError};
use tandem_drain::archive::verify;
use tandem_drain::archive::{Archiver, Settings};
use tandem_drain::run::{ConfigText, RunInfo};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalReader, JournalSpec, JournalWriter, oldest_seq, read_released};

/// Names the directory that a child of this test archives.
const CHILD: &str = "TANDEM_TEST_ARCHIVE_DIR";

/// Not a test of its own: the process that is killed.
#[test]
fn child_that_archives() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let root = std::path::PathBuf::from(path);
    let settings = Settings {
        root: root.join("archive"),
        journal: root.join("journal"),
        ..settings(&Dir::new("unused"))
    };
    let _archiver = Archiver::start(settings, host).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn child(dir: &Dir) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_that_archives", "--exact", "--nocapture"])
        .env(CHILD, &dir.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Row ST-07; the archive's part of acceptance 2.
#[test]
fn killed_at_random_moments_the_archive_is_the_journal() {
    let kills = 200;
    let dir = Dir::new("kills");
    let spec = JournalSpec { segment_bytes: 256 << 10, segments_max: 40, ..spec() };
    let mut writer = journal(&dir.journal(), &spec);
    let uuid = writer.uuid();
    let mut random = StdRng::seed_from_u64(9);
    let begun = Instant::now();
    let (mut full_ns, mut torn) = (0u128, 0);
    for kill in 0..kills {
        let mut process = child(&dir);
        let until = Instant::now() + Duration::from_micros(random.random_range(8_000..60_000));
        while Instant::now() < until {
            for _ in 0..200 {
                let record = content(writer.next_seq());
                let at = Instant::now();
                while writer.append(&record).is_err() && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
                full_ns += at.elapsed().as_nanos();
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        // What it said is durable is in the archive, whatever it was doing.
        let durable = read_released(&dir.journal()).map_or(0, |(_, durable)| durable);
        let journals = verify::journals(&dir.archive()).unwrap();
        if kill % 8 != 7 && !journals.is_empty() {
            continue;
        }
        if let Some(journal) = journals.first() {
            let report = verify::verify(journal, record_schema(), |_| {}).unwrap();
            assert!(report.is_sound(), "{:?}", report.faults);
            assert!(
                durable <= report.last_seq,
                "{durable} was claimed, {} is there",
                report.last_seq
            );
            torn += u64::from(report.torn_bytes != 0);
        } else {
            assert_eq!(durable, 0);
        }
    }
    let end = writer.next_seq() - 1;
    let archiver = Archiver::start(settings(&dir), host).unwrap();
    let status = archiver.status();
    let by = Instant::now() + Duration::from_secs(60);
    while status.now().durable_seq < end {
        assert!(Instant::now() < by, "{:?}", status.now());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(archiver);
    let (records, missing) = archived(&dir.archive(), uuid);
    assert_eq!((records.len() as u64, missing), (end, Vec::new()));
    for (record, seq) in records.iter().zip(1..) {
        assert_eq!(*record, journaled(uuid, seq));
    }
    assert!(1 < oldest_seq(&dir.journal(), record_schema()).unwrap().1, "segments went");
    println!(
        "figure ST-07: {kills} kills in {:.1} s, {end} records, 0 lost, 0 twice, in order; {torn} torn ends; \
         {:.0} ns a record for the writer, waiting for room included",
        begun.elapsed().as_secs_f64(),
        full_ns as f64 / end as f64
    );
}

fn universe() -> Universe {
    let asset = |name: &str| Asset { name: name.to_owned(), exponent: 6 };
    let instrument = |venue| Instrument {
        venue,
        base: AssetId(1),
        quote: AssetId(0),
        px_exponent: 2,
        tick: Px(1),
        lot: Qty(1),
        qty_min: Qty(1),
        qty_max: Qty(1 << 40),
        notional_min: Amount(1),
        notional_max: Amount(1 << 50),
        taker_fee: FeePpm(100),
        fee_in: FeeIn::Quote,
        status: TradingStatus::Trading,
    };
    Universe {
        assets: vec![asset("USD"), asset("BTC")],
        instruments: vec![instrument(Venue::Binance), instrument(Venue::Kraken)],
    }
}

fn read_run(text: &str) -> Result<RunInfo, String> {
    Ok(RunInfo {
        run: 1,
        mode: "live".to_owned(),
        text: text.to_owned(),
        universe: universe(),
        instruments: Vec::new(),
        cycles: Vec::new(),
        window_levels: 100,
        numeraire: None,
    })
}

/// Appends a life with orders of every end: filled, in part, refused, unknown, and filled again by a venue that
/// says everything twice; with much market between.
fn live(writer: &mut JournalWriter<Record>, random: &mut StdRng, rounds: std::ops::Range<u64>) {
    let mut put = |record: Record| {
        let now = writer.next_seq() as i64 * 1_000;
        while writer.append(&Record { engine_ts_ns: now, ..record }).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for round in rounds {
        let (instrument, venue) =
            if round % 2 == 0 { (0, Venue::Binance) } else { (1, Venue::Kraken) };
        let key = OrderKey::new(round, 0);
        let order = NewOrder {
            run: 1,
            key,
            venue,
            instrument,
            action: if round % 3 == 0 { Action::Buy } else { Action::Sell },
            px: Px(6_000_000),
            qty: Qty(1_000),
            tif: Tif::Ioc,
            purpose: Purpose::Entry,
            expires_ns: 1,
            cause: 1,
            level_epoch: 1,
        };
        put(order.record(&Record::default()));
        let fill = |n: u64, qty| Report::Fill {
            px: Px(6_000_000),
            qty: Qty(qty),
            fee: Amount(3),
            asset: 0,
            trade_id: round * 4 + n,
        };
        let done = |qty| Report::Done { status: DoneStatus::Expired, qty: Qty(qty) };
        let reports: Vec<Report> = match random.random_range(0..6) {
            0 => vec![fill(0, 400), fill(1, 600), done(1_000)],
            1 => vec![done(700), fill(0, 300)],
            2 => vec![done(0)],
            3 => vec![fill(0, 500), fill(0, 500), done(500), fill(1, 20)],
            4 => vec![Report::Unknown { cause: tandem_core::order::UnknownCause::Timeout }],
            _ => vec![fill(0, 100), Report::Bust { trade_id: round * 4, instead: None }],
        };
        for report in reports {
            put(report.record(venue, instrument, 1, key));
            for n in 0..random.random_range(0..40) {
                put(content(n));
            }
        }
    }
}

fn all(journal: &std::path::Path) -> Vec<Record> {
    let mut reader = JournalReader::<Record>::open(journal, record_schema()).unwrap();
    std::iter::from_fn(|| reader.next().unwrap()).collect()
}

/// Row PR-02. An engine that starts after segments were released is given what all records would have given it.
#[test]
fn an_engine_that_starts_after_a_release_knows_what_the_dead_one_knew() {
    let dir = Dir::new("restore");
    let mut random = StdRng::seed_from_u64(3);
    let mut writer = journal(&dir.journal(), &spec());
    for (data, flags, update_id) in ConfigText::payloads(&[b'x'; 5_000]) {
        let record = Record { flags, update_id, ..Record::new(Kind::Config, 0, u16::MAX, data) };
        writer.append(&record).unwrap();
    }
    let start = || {
        let settings = Settings { read_run, ..settings(&dir) };
        Archiver::start(settings, host).unwrap()
    };
    let mut whole = Vec::new();
    let mut round = 1;
    for life in 0..6 {
        live(&mut writer, &mut random, round..round + 120);
        round += 120;
        // What is there now and was not there before: nothing of it is released yet.
        let seen = whole.len() as u64;
        whole.extend(all(&dir.journal()).into_iter().filter(|record| seen < record.seq));
        assert_eq!(whole.len() as u64, writer.next_seq() - 1);
        let expected = collect(&universe(), whole.iter().copied());
        assert_eq!(checkpoint::restore(&dir.journal(), &universe()).unwrap(), expected);
        let archiver = start();
        let by = Instant::now() + Duration::from_secs(20);
        let before = oldest_seq(&dir.journal(), record_schema()).unwrap().1;
        while archiver.status().now().durable_seq < writer.next_seq() - 1
            || oldest_seq(&dir.journal(), record_schema()).unwrap().1 == before
        {
            assert!(Instant::now() < by, "life {life}: {:?}", archiver.status().now());
            // Read while segments go.
            assert_eq!(checkpoint::restore(&dir.journal(), &universe()).unwrap(), expected);
        }
        drop(archiver);
        assert_eq!(checkpoint::restore(&dir.journal(), &universe()).unwrap(), expected);
        assert!(20 < expected.len());
        let kept = checkpoint::read(&dir.journal()).unwrap().unwrap();
        assert_eq!(kept.config, "x".repeat(5_000));
        if life == 3 {
            // A writer that is resumed, as with an engine that was killed.
            drop(writer);
            writer = JournalWriter::resume(&dir.journal(), &spec()).unwrap();
            assert_eq!(checkpoint::restore(&dir.journal(), &universe()).unwrap(), expected);
        }
    }
    // Without the checkpoint, or with a damaged one, it is refused: nothing is made up.
    let path = dir.journal().join(checkpoint::CHECKPOINT);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = checkpoint::restore(&dir.journal(), &universe());
    assert!(matches!(refused, Err(RestoreError::Checkpoint(_))), "{refused:?}");
    std::fs::remove_file(&path).unwrap();
    let refused = checkpoint::restore(&dir.journal(), &universe());
    assert!(matches!(refused, Err(RestoreError::Uncovered { .. })), "{refused:?}");
}
