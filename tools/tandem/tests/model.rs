//! The live model of a run against the engine itself, and against records that make no sense.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tandem_core::record::{Kind, Record, flag};
use tandem_core::report::{Opportunity, Phase};
use tandem_core::units::Side;
use tandem_drain::Plan;
use tandem_drain::model::Model;
use tandem_drain::plan::Names;
use tandem_feeds::tile::record_schema;
use tandem_shm::JournalReader;
use tandem_tools::table::{self, Collector};

fn plan() -> Plan {
    Plan {
        dir: PathBuf::from("/nowhere"),
        journal: PathBuf::from("/nowhere/journal"),
        segments_max: 4,
        segment_frames: 1_000,
        trades: false,
        is_live: false,
        venues: Vec::new(),
        parts: Vec::new(),
        names: Names {
            engine_stats: "engine_stats".to_owned(),
            journal_full: String::new(),
            outputs_lost: String::new(),
            overruns: String::new(),
            exposure_ppm: String::new(),
            warden_stats: "warden_stats".to_owned(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: table::run_info,
        instruments: BTreeMap::new(),
    }
}

fn records(name: &str, count: u64) -> Vec<Record> {
    let dir = std::env::temp_dir().join(format!("tandem-model-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    tandem_tools::generate::generate(&dir, 7, count).expect("a journal");
    let records = read(&dir);
    std::fs::remove_dir_all(&dir).expect("cleared");
    records
}

fn read(dir: &Path) -> Vec<Record> {
    let mut reader = JournalReader::<Record>::open(dir, record_schema()).expect("opens");
    let mut all = Vec::new();
    while let Some(record) = reader.next().expect("sound") {
        all.push(record);
    }
    all
}

/// At the end of a journal the model's books are the engine's, level for level, and it has counted what the
/// engine told.
#[test]
fn books_and_counts_are_the_engines() {
    let all = records("engine", 150_000);
    let (mut model, mut collector) = (Model::new(&plan()), Collector::default());
    let mut engine = None;
    let mut out = tandem_core::episode::Outbox::new(tandem_core::engine::OUTBOX_RECORDS);
    let (mut opened, mut closed) = (0u64, 0u64);
    let mut group = Vec::new();
    for record in &all {
        model.record(record);
        if record.kind() == Some(Kind::Config) {
            if let Some(table) = collector.take(record) {
                engine = Some(table.expect("a table").engine().expect("an engine"));
            }
            continue;
        }
        if record.kind() == Some(Kind::Opportunity) {
            if record.part == 0 {
                group.clear();
            }
            group.push(*record);
            if !record.has(flag::MORE) {
                let told = Opportunity::decode(&group).expect("whole");
                opened += u64::from(told.phase == Phase::Open);
                closed += u64::from(told.phase == Phase::Close);
            }
        }
        if !record.has(flag::OUTPUT) {
            out.clear();
            engine.as_mut().expect("configured").step(record, &mut out);
        }
    }
    let (engine, run) = (engine.expect("an engine"), model.run().expect("a run").clone());
    assert!(100 < opened && 100 < closed, "{opened} opened");
    assert_eq!(model.counts().opportunities.iter().sum::<u64>(), opened);
    assert_eq!(model.counts().opportunities, engine.counts().opportunities);
    assert_eq!(model.counts().unreadable, 0);
    let kept = model.opportunities(0).count();
    assert!(kept <= 2_000 && kept == usize::try_from(opened).unwrap_or(usize::MAX).min(2_000));
    for row in model.opportunities(0).filter(|row| row.life_us.is_some()) {
        assert_ne!(row.verdict, "open", "{row:?}");
    }
    for book in model.books(1_000) {
        let state = engine.market().get(book.instrument);
        assert_eq!(book.state, state.state.name());
        for (side, shown) in [(Side::Bid, &book.bids), (Side::Ask, &book.asks)] {
            let levels: Vec<_> = state
                .book
                .levels(side)
                .map(|level| {
                    (run.px(book.instrument, level.px.0), run.qty(book.instrument, level.qty.0))
                })
                .collect();
            let shown: Vec<_> = shown
                .iter()
                .take(levels.len())
                .map(|level| (level.0.clone(), level.1.clone()))
                .collect();
            assert_eq!(shown, levels, "{} {}", book.venue, book.symbol);
        }
    }
}

/// The books that an opportunity keeps are those that its legs were found in.
#[test]
fn an_opportunity_keeps_the_books_it_saw() {
    let all = records("seen", 60_000);
    let mut model = Model::new(&plan());
    all.iter().for_each(|record| model.record(record));
    let mut compared = 0;
    for row in model.opportunities(0) {
        assert!(row.legs.len() == row.seen.len(), "{row:?}");
        for (leg, book) in row.legs.iter().zip(&row.seen) {
            assert_eq!((leg.venue, &leg.symbol), (book.venue, &book.symbol));
            let side = if leg.action == "buy" { &book.asks } else { &book.bids };
            assert_eq!(Some(&leg.best_px), side.first().map(|level| &level.0), "{row:?}");
            compared += 1;
        }
    }
    assert!(200 < compared, "{compared}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Records of a real run with words of them overwritten, and records that are nothing at all.
    #[test]
    fn no_record_is_trouble(
        changes in proptest::collection::vec((0usize..6_000, 0usize..16, any::<u64>()), 1..400),
        noise in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<[i64; 4]>(), any::<u16>()), 0..400),
    ) {
        static RECORDS: std::sync::OnceLock<Vec<Record>> = std::sync::OnceLock::new();
        let mut all = RECORDS.get_or_init(|| records("trouble", 6_000)).clone();
        let head = all.iter().take_while(|record| record.kind() == Some(Kind::Config)).count();
        for (at, word, value) in changes {
            let at = head + at % (all.len() - head);
            let mut words: [u64; 16] = zerocopy::transmute!(all[at]);
            words[word] = value;
            all[at] = zerocopy::transmute!(words);
        }
        for (kind, part, data, instrument) in noise {
            let at = head + usize::from(instrument) % (all.len() - head);
            let mut record = Record::new(Kind::Level, part, instrument, data);
            (record.kind, record.part, record.asset) = (kind, part, instrument);
            all.insert(at, record);
        }
        let mut model = Model::new(&plan());
        all.iter().for_each(|record| model.record(record));
        model.lost("a test");
        // Everything that is shown can be written.
        serde_json::to_string(&model.books(15)).expect("books");
        serde_json::to_string(&model.limits()).expect("limits");
        for row in model.opportunities(0) {
            serde_json::to_string(&**row).expect("an opportunity");
        }
        for row in model.rounds(0) {
            serde_json::to_string(&**row).expect("a round");
        }
        for row in model.orders().newest(0) {
            serde_json::to_string(&**row).expect("an order");
        }
        for row in model.balances() {
            serde_json::to_string(row).expect("a balance");
        }
    }
}
