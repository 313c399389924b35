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
