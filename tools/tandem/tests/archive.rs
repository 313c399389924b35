//! A run with an archive, end to end: segments go while it trades, engine and drain are killed, and the engine
//! that comes back knows what the dead one knew; every command reads archive and shared memory as one.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;
#[path = "support/trading.rs"]
mod trading;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::{signal, wait_for};
use tandem_core::level::Level;
use tandem_drain::archive;
use tandem_feeds::tile::record_schema;
use tandem_shm::oldest_seq;
use tandem_tools::demo_keys::ACCOUNT;
use tandem_tools::records::{Origin, Records};
use tandem_tools::{replay, truth};
use trading::Live;

const SOON: Duration = Duration::from_secs(60);

/// A command that takes no configuration: its exit code, and its last line as JSON.
fn say(live: &Live, words: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(live.dir.program()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or("null");
    (output.status.code(), serde_json::from_str(last).unwrap_or(Value::Null))
}

#[test]
fn segments_go_while_it_trades_and_a_restart_knows_everything() {
    let mut live = Live::with(
        "archive",
        |_| {},
        |text| {
            let (_, rest) = text.split_once("dir = \"").unwrap();
            let (dir, _) = rest.split_once('"').unwrap();
            let small = format!(
                "segment_mib = 2\nsegments_max = 40\n[archive]\ndir = \"{dir}/archive\"\nfile_mib = 1\n\
                 keep_segments = 1\nfree_min_mib = 1\n"
            );
            text.replace("segment_mib = 32\nsegments_max = 40\n", &small)
        },
    );
    let root = live.config.archive.as_ref().expect("an archive").dir.clone();
    let journal = live.config.journal_dir();
    let oldest = || oldest_seq(&journal, record_schema()).map_or(0, |(_, oldest)| oldest);
    live.trade();
    let mut before = 1;
    for kill in 0..2 {
        live.wait_orders(2, SOON);
        assert!(wait_for(SOON, || before < oldest()), "no segment goes");
        let drain = live.up.as_ref().unwrap().tiles()["drain"];
        signal(drain, 9);
        let engine = live.engine_pid();
        live.kill_9(engine);
        assert!(wait_for(Duration::from_secs(5), || live.level() == Level::Kill));
        before = oldest();
        live.wait_ready();
        assert_ne!(live.engine_pid(), engine, "kill {kill}");
        live.arm();
    }
    live.wait_orders(2, SOON);
    assert!(wait_for(SOON, || before < oldest()), "no segment goes after the last restart");
    live.stop();
    let found = truth::compare(Origin::of(&live.config), live.control, ACCOUNT).unwrap();
    assert!(found.is_clean(), "{found:?}");

    // All records, from the first one on, though shared memory begins later.
    assert!(1 < oldest());
    let mut records = Records::strict(Origin::of(&live.config)).unwrap();
    let mut seq = 0;
    while let Some(record) = records.next().unwrap() {
        seq += 1;
        assert_eq!(record.seq, seq);
    }
    let place = root.display().to_string();
    let (code, archived) = say(&live, &["journal", "verify", &place, "--json"]);
    assert_eq!(code, Some(0), "{archived}");
    assert_eq!(archived["journals"][0]["from_beginning"], true);
    let archived = archived["records"].as_u64().unwrap();
    assert!(oldest() <= archived + 1 && archived <= seq);
    let replayed = replay::verify(&root).unwrap();
    assert!(replayed.identical && replayed.runs == 3, "{replayed:?}");
    assert_eq!(replayed.records, archived);
    let orders = live.say(&["orders", "--json"]);
    let of_archive = live.say(&["orders", "--json", "--journal", &place]);
    assert_eq!((orders.code, of_archive.code), (0, 0), "{orders:?}");
    let from = archived.to_string();
    let (_, newest) = say(&live, &["journal", "cat", &place, "--from", &from, "--json"]);
    assert_eq!(newest["seq"].as_u64(), Some(archived));
    let (_, stat) = say(&live, &["journal", "stat", &place, "--json"]);
    assert_eq!(stat["records"].as_u64(), Some(archived));
    let run = live.config.run.dir.display().to_string();
    let (_, listed) = say(&live, &["journal", "ls", &run, "--json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    let exported = live.dir.path().join("all.jsonl").display().to_string();
    let words = ["journal", "export", &place, "--to", &exported, "--format", "jsonl"];
    assert_eq!(say(&live, &words).0, Some(0));
    let lines = std::fs::read_to_string(&exported).unwrap().lines().count() as u64;
    assert_eq!(lines, archived);

    // One byte is enough.
    let folder = archive::list_journals(&root).unwrap().remove(0).dir;
    let first = archive::file_path(&folder, 1);
    let mut bytes = std::fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&first, bytes).unwrap();
    let (code, damaged) = say(&live, &["journal", "verify", &place, "--json"]);
    assert_eq!((code, damaged["ok"].as_bool()), (Some(1), Some(false)));
    println!(
        "figure ST-07: {seq} records, {archived} of them in the archive, engine and drain killed twice: books \
         equal to the venues', {} runs replay to the same bytes",
        replayed.runs
    );
}
