//! The source follows a journal: across segments, restarts of its writer, its end and a new one; each record
//! once, in order, and what it could not read is told.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::{Kind, Record, Venue};
use tandem_drain::plan::{Names, Part, Seen};
use tandem_drain::source::{Life, Look, Taken, now_ns};
use tandem_drain::{Plan, Source};
use tandem_feeds::tile::record_schema;
use tandem_shm::{ControlPage, JournalSpec, JournalWriter, tsc};

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = PathBuf::from(format!("/dev/shm/tandem-drain-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Small segments: some hundred records each.
fn spec() -> JournalSpec {
    JournalSpec {
        segment_bytes: 64 << 10,
        segments_max: 64,
        reserve_frames: 16,
        ..JournalSpec::new(record_schema())
    }
}

fn plan(dir: &Path) -> Plan {
    let name = String::new;
    Plan {
        dir: dir.to_owned(),
        journal: dir.join("journal"),
        segments_max: 64,
        segment_frames: spec().frames_per_segment(),
        trades: true,
        is_live: true,
        venues: vec![Venue::Kraken],
        parts: vec![
            Part { name: "engine".to_owned(), venue: None, seen: Seen::Row(0) },
            Part {
                name: "feed kraken".to_owned(),
                venue: None,
                seen: Seen::Stats("none".to_owned()),
            },
        ],
        names: Names {
            engine_stats: "engine_stats".to_owned(),
            journal_full: name(),
            outputs_lost: name(),
            overruns: name(),
            exposure_ppm: name(),
            warden_stats: "warden_stats".to_owned(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: |_| Err("no run here".to_owned()),
        instruments: BTreeMap::new(),
    }
}

fn append(writer: &mut JournalWriter<Record>, from: i64, count: i64) {
    for n in from..from + count {
        let record = Record::new(Kind::Timer, 0, u16::MAX, [n, 0, 0, 0]);
        let record = Record { engine_ts_ns: now_ns(), ..record };
        let until = Instant::now() + Duration::from_secs(20);
        // The helper makes segments ahead; on a busy host it may be late.
        while writer.append(&record).is_err() {
            assert!(Instant::now() < until, "no room at {n}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    writer.beat(tsc());
}

/// What a source gave: numbers of records, whether each was past, and what it said was lost.
#[derive(Default)]
struct Given {
    numbers: Vec<i64>,
    past: usize,
    lost: Vec<String>,
    look: Option<Look>,
}

impl Given {
    fn take(&mut self, source: &mut Source) {
        source.read(|taken| match taken {
            Taken::Record(record, is_past) => {
                self.numbers.push(record.data[0]);
                self.past += usize::from(is_past);
            }
            Taken::Lost(what) => self.lost.push(what.to_owned()),
        });
        if let Some(look) = source.look() {
            self.look = Some(look);
        }
    }

    fn until(&mut self, source: &mut Source, within_s: u64, is_so: impl Fn(&Given) -> bool) {
        let until = Instant::now() + Duration::from_secs(within_s);
        while !is_so(self) {
            assert!(Instant::now() < until, "{} records, lost {:?}", self.numbers.len(), self.lost);
            self.take(source);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn a_journal_is_followed_through_restarts_and_a_new_one() {
    let dir = Dir::new("follow");
    let journal = dir.0.join("journal");
    let mut writer = JournalWriter::create(&journal, &spec()).unwrap();
    append(&mut writer, 0, 1_000);
    let mut source = Source::new(plan(&dir.0));
    let mut given = Given::default();
    given.until(&mut source, 20, |given| given.numbers.len() == 1_000);
    assert_eq!(given.past, 1_000, "what was there is no news");
    append(&mut writer, 1_000, 3_000);
    given.until(&mut source, 20, |given| given.numbers.len() == 4_000);
    // The writer dies without a word and another one goes on.
    drop(writer);
    let mut writer = JournalWriter::resume(&journal, &spec()).unwrap();
    append(&mut writer, 4_000, 2_000);
    given.until(&mut source, 20, |given| given.numbers.len() == 6_000);
    assert_eq!(given.numbers, (0..6_000).collect::<Vec<_>>());
    assert_eq!((given.past, given.lost.len()), (1_000, 0));
    given.until(&mut source, 5, |given| {
        given.look.as_ref().is_some_and(|look| !look.catching_up && look.journal.room < 64 * 512)
    });
    // An operator took it away and the engine began a new one: that is told, and it is followed.
    writer.close().unwrap();
    fs::remove_dir_all(&journal).unwrap();
    let mut writer = JournalWriter::create(&journal, &spec()).unwrap();
    append(&mut writer, 50_000, 100);
    given.until(&mut source, 30, |given| given.numbers.last() == Some(&50_099));
    assert_eq!(given.lost.len(), 1, "{:?}", given.lost);
    assert_eq!(given.numbers[6_000..], (50_000..50_100).collect::<Vec<_>>());
}

#[test]
fn damage_is_told_once_and_what_follows_whole_segments_is_read() {
    let dir = Dir::new("damage");
    let journal = dir.0.join("journal");
    let mut writer = JournalWriter::create(&journal, &spec()).unwrap();
    append(&mut writer, 0, 2_000);
    let victim = journal.join("seg-00000002.tj");
    let mut bytes = fs::read(&victim).unwrap();
    bytes[4_096 + 128 * 100 + 20] ^= 1;
    fs::write(&victim, &bytes).unwrap();
    let mut source = Source::new(plan(&dir.0));
    let mut given = Given::default();
    given.until(&mut source, 20, |given| !given.lost.is_empty());
    assert!(given.lost[0].contains("seg-00000002.tj"), "{:?}", given.lost);
    // It is attached again within a second or two, past the damage.
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        given.take(&mut source);
        std::thread::sleep(Duration::from_millis(10));
    }
    append(&mut writer, 2_000, 1_000);
    given.until(&mut source, 20, |given| given.numbers.last() == Some(&2_999));
    assert!(given.numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    assert!(given.lost.len() <= 2, "{:?}", given.lost);
    assert!(given.look.is_some_and(|look| !look.catching_up));
}

#[test]
fn a_row_says_whether_its_process_lives() {
    let dir = Dir::new("rows");
    let mut source = Source::new(plan(&dir.0));
    let mut given = Given::default();
    let life = |given: &Given| given.look.as_ref().map(|look| look.parts[0].life);
    given.until(&mut source, 5, |given| life(given) == Some(Life::Absent));
    assert!(given.look.as_ref().is_some_and(|look| look.level.is_none() && !look.catching_up));
    let page = ControlPage::create_or_open(&dir.0, LevelWord::PAUSED.0).unwrap();
    let actor = page.claim(0, 5, 6).unwrap();
    actor.beat(now_ns());
    given.until(&mut source, 5, |given| life(given) == Some(Life::Alive));
    page.update(|word| {
        LevelWord(word).raised(Scope::Global, Level::Kill, Cause::Drill).map(|w| w.0)
    });
    given.until(&mut source, 5, |given| {
        let level = given.look.as_ref().and_then(|look| look.level);
        level.is_some_and(|word| word.of(Scope::Global) == Level::Kill)
    });
    // It beats no more.
    given.until(&mut source, 5, |given| life(given) == Some(Life::Dead));
    let part = given.look.as_ref().unwrap().parts[0].clone();
    assert_eq!((part.generation, part.config), (1, 6));
    actor.leave();
    given.until(&mut source, 5, |given| life(given) == Some(Life::Absent));
}
