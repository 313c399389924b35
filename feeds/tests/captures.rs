//! Recorded sessions against an independent implementation's result (`expected_books.json`).

use std::fs::File;
use std::path::Path;

use serde_json::Value;
use tandem_feeds::capture::{CaptureError, rebuild};

#[test]
fn every_recorded_book_is_the_expected_one() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let Ok(text) = std::fs::read(data.join("expected_books.json")) else {
        println!("skipped: no recordings at {}", data.display());
        return;
    };
    let expected: Value = serde_json::from_slice(&text).expect("expected_books.json is JSON");
    let files = expected["files"].as_object().expect("an object of files");
    let (mut fields, mut books, mut refused) = (0, 0, Vec::new());
    let mut wrong = Vec::new();
    for (name, file) in files {
        let reader = File::open(data.join(name)).expect(name);
        let reports = match rebuild(name, reader) {
            Ok(reports) => reports,
            Err(error @ CaptureError::NotSupported { .. }) => {
                refused.push(error.to_string());
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let theirs = file["books"].as_object().expect("an object of books");
        let names: Vec<_> = reports.iter().map(|report| report.symbol.as_str()).collect();
        assert_eq!(names, theirs.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        for report in &reports {
            books += 1;
            let ours = serde_json::to_value(report).expect("a report is JSON");
            for (field, theirs) in theirs[&report.symbol].as_object().expect("an object") {
                if let Some(ours) = ours.get(field) {
                    fields += 1;
                    if ours != theirs {
                        wrong.push(format!(
                            "{name} {} {field}: ours {ours}, theirs {theirs}",
                            report.symbol
                        ));
                    }
                }
            }
        }
    }
    println!("{books} books, {fields} fields");
    refused.iter().for_each(|line| println!("{line}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(26 <= books, "only {books} books");
    assert!(refused.iter().all(|line| {
        ["binance_usdm", "bitstamp", "cryptofeed_exchange", "cryptofeed_v1"]
            .iter()
            .any(|known| line.contains(known))
    }));
}

/// The production machine with `bookTicker` merged, over a real session of 99,574 messages: wherever the
/// diffs have caught up with the tickers, the merged book is the book of the diffs alone.
#[test]
fn merging_tickers_leaves_the_book_of_the_diffs() {
    use std::io::{BufRead, BufReader};

    use tandem_core::record::{BookState, TradingStatus, Venue};
    use tandem_core::units::Side;
    use tandem_feeds::binance::Binance;
    use tandem_feeds::machine::{Action, Discard, Machine, Options, Reply, Stamps};
    use tandem_feeds::spec::VenueInstrument;

    let name = "../../shared/data/captures/binance/hftbacktest_BTCUSDT_20240808T2354Z.jsonl.gz";
    let Ok(file) = File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)) else {
        println!("skipped: no recording at {name}");
        return;
    };
    let instrument = VenueInstrument {
        id: 0,
        venue: Venue::Binance,
        symbol: "BTCUSDT".into(),
        feed_symbol: "BTCUSDT".into(),
        rest_symbol: "BTCUSDT".into(),
        px_exponent: 2,
        qty_exponent: 8,
        notional_exponent: 8,
        price_precision: 2,
        qty_precision: 8,
        notional_min: 0,
        status: TradingStatus::Trading,
    };
    let options = |ticker| Options {
        ticker,
        audit: false,
        depth: 1_000,
        window: 50,
        ..Options::for_venue(Venue::Binance)
    };
    let mut lines: Vec<(i64, bool, String)> = BufReader::new(flate2::read::GzDecoder::new(file))
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
            let ts = line["ts_recv_ns"].as_i64().expect("a time");
            let raw = line["raw"].as_str().expect("a message").to_owned();
            (ts, line["kind"] == "rest", raw)
        })
        .collect();
    let start = lines[0].0;
    let mut merged = Binance::new(vec![instrument.clone()], options(true), start);
    let mut plain = Binance::new(vec![instrument], options(false), start);
    let (mut requests, mut compared, mut differing, mut live) = ([None; 2], 0u64, 0u64, 0u64);
    let mut newest_ticker = 0;
    let mut spent = std::time::Duration::ZERO;
    merged.on_open(1, start);
    plain.on_open(1, start);
    for (ts, is_rest, raw) in &mut lines {
        let at = Stamps { recv_ns: *ts, recv_tsc: 0, bytes: raw.len() as u32 };
        let machines: [&mut Binance; 2] = [&mut merged, &mut plain];
        for (idx, machine) in machines.into_iter().enumerate() {
            while let Some(action) = machine.next_action() {
                if let Action::Get { request, .. } = action {
                    requests[idx] = Some(request);
                }
            }
            let mut bytes = raw.clone().into_bytes();
            if *is_rest {
                let request = requests[idx].take().expect("a snapshot was asked for");
                let body = &mut bytes[..];
                let reply =
                    Reply::Answer { status: 200, retry_after_s: None, used_weight: None, body };
                machine.on_reply(request, reply, at, &mut Discard);
            } else {
                let began = std::time::Instant::now();
                machine.on_frame(1, &mut bytes, at, &mut Discard);
                if idx == 0 {
                    spent += began.elapsed();
                }
            }
        }
        if raw.contains("@bookTicker") {
            newest_ticker = merged.position(0).update_id.max(newest_ticker);
        } else if raw.contains("@depth") && merged.state(0).0 == BookState::Live {
            live += 1;
            let id = plain.position(0).update_id;
            if merged.position(0).update_id == id {
                compared += 1;
                let same = Side::BOTH
                    .into_iter()
                    .all(|side| merged.book(0).levels(side).eq(plain.book(0).levels(side)));
                differing += u64::from(!same);
            }
        }
    }
    let stats = merged.stats();
    println!(
        "{live} diffs live, {compared} books compared, {differing} differ, tickers equal {} differ {}, {} ns a message",
        stats.ticker_equal,
        stats.ticker_differs,
        spent.as_nanos() / lines.len() as u128
    );
    println!("{stats:?}");
    assert!(500 < compared);
    assert_eq!(differing, 0);
}
