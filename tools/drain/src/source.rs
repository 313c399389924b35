//! The one place where the run is followed: its journal record by record, and how everything stands.
//!
//! Invariant: everything is mapped read-only. Records come in the journal's order, each once; where some
//! could not be read, that is told before the next one. A turn takes a bounded number of records and makes
//! no call that waits for another process.
//!
//! Not here: what any of it means (`alerts`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tandem_core::level::LevelWord;
use tandem_core::record::{Kind, Record, Venue};
use tandem_feeds::page;
use tandem_feeds::tile::{metric as feed_metric, page_name, page_schema, record_schema};
use tandem_gateway::stats::metric as gateway_metric;
use tandem_gateway::warden::Verdict;
use tandem_shm::{
    Clock, ControlView, JournalError, JournalMonitor, JournalReader, LatestReader, Producer,
    Snapshot, StatsReader, tsc,
};

use crate::archive::status::{self as archive_status, metric as archive_metric};
use crate::archive::{self, checkpoint};
use crate::metrics::pages::long_turns;
use crate::plan::{Plan, Seen};
use crate::spool::{self, Line, What};
use crate::status::{Registry, SinkLook};

/// Records of one turn: some tens of milliseconds on a busy host.
const RECORDS_PER_TURN: usize = 65_536;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two tries to attach to what is not there.
const ATTACH_EVERY: Duration = Duration::from_secs(1);
/// A journal that goes on elsewhere, while nothing comes here, was begun anew.
const STALLED_FOR: Duration = Duration::from_secs(5);
/// A process on the control page that did not beat for so long does not live.
const BEAT_NS_MAX: i64 = 1_000_000_000;
/// Between two looks at files: keys, and what processes wrote down at their end.
const FILES_EVERY: Duration = Duration::from_secs(1);
/// Deaths of one look; more of them are in the files.
const DEATHS_MAX: usize = 16;
/// The rate of the journal is taken over this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What reading gives.
#[derive(Debug)]
pub enum Taken<'a> {
    /// A record, and whether it is older than the drain.
    Record(&'a Record, bool),
    /// Records were not read; in words.
    Lost(&'a str),
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It beats.
    Alive,
    /// It said goodbye, or was never there.
    Absent,
    /// It is there no more, or hangs.
    Dead,
}

/// A process at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartLook {
    /// Its name.
    pub name: String,
    /// Of which venue.
    pub venue: Option<Venue>,
    /// Whether it lives.
    pub life: Life,
    /// Which process of its kind it is, counted from the first; 0 none yet.
    pub generation: u64,
    /// Hash of its configuration; 0 where it tells none.
    pub config: u64,
}

/// A gateway's figures at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayLook {
    /// Orders that the venue refused for the key.
    pub auth_rejects: u64,
    /// New orders that the budget has room for.
    pub budget_left: i64,
    /// Times the venue told us to wait.
    pub suspensions: u64,
    /// Connections lost.
    pub disconnects: u64,
}

/// The engine's figures at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLook {
    /// Overruns of a ring.
    pub overruns: u64,
    /// Turns without room in the journal.
    pub journal_full: u64,
    /// Outputs missing in the journal.
    pub outputs_lost: u64,
    /// Exposure as a share of its limit; nothing where it cannot be valued.
    pub exposure_ppm: Option<i64>,
}

/// The journal at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalLook {
    /// Records that still fit.
    pub room: u64,
    /// Records that fit in all.
    pub capacity: u64,
    /// Records a second, over the last ten; nothing before that.
    pub per_s: Option<u64>,
    /// Records written and not read here yet.
    pub lag: u64,
}

/// The archive at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveLook {
    /// What it does.
    pub state: archive::State,
    /// Age of the oldest record that is not durable yet, ns.
    pub lag_ns: i64,
    /// Free share of its disk, ppm.
    pub free_ppm: i64,
    /// Whether trading should pause for it.
    pub wants_pause: bool,
}

/// A process ended in a way that nobody wanted, as it or its supervisor wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Which process.
    pub role: String,
    /// When, UNIX ns.
    pub at_ns: i64,
    /// What happened.
    pub what: What,
    /// Where in the source.
    pub place: String,
}

/// How everything stands.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Now, UNIX ns.
    pub now_ns: i64,
    /// The journal's past is still being read: what follows from records is not complete.
    pub catching_up: bool,
    /// The level word; nothing where there is no page.
    pub level: Option<LevelWord>,
    /// The processes.
    pub parts: Vec<PartLook>,
    /// The warden's verdict by venue; nothing of a venue while there is no warden.
    pub verdicts: BTreeMap<Venue, Verdict>,
    /// Gateways.
    pub gateways: BTreeMap<Venue, GatewayLook>,
    /// Connections that a feed lost, by venue.
    pub feed_disconnects: BTreeMap<Venue, u64>,
    /// The engine.
    pub engine: Option<EngineLook>,
    /// The journal.
    pub journal: JournalLook,
    /// The sinks of this drain.
    pub sinks: Vec<SinkLook>,
    /// The archive; nothing where there is none.
    pub archive: Option<ArchiveLook>,
    /// Turns of a loop that took longer than 200 us, by process, since it started.
    pub stalls: BTreeMap<String, u64>,
    /// When the venues' certificates end as they were last shown, UNIX seconds, by process.
    pub certificates: BTreeMap<String, i64>,
    /// When the files of keys were last changed, UNIX ns, by whose they are.
    pub keys: BTreeMap<String, i64>,
    /// Deaths that were written down since the last look.
    pub deaths: Vec<Death>,
}

/// The wall clock, UNIX ns.
#[must_use]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// One stats page, attached when it is there and followed through restarts.
pub(crate) struct Page {
    pub(crate) name: String,
    reader: Option<StatsReader>,
}

impl Page {
    pub(crate) fn named(name: String) -> Page {
        Page { name, reader: None }
    }

    /// Process of its producer.
    pub(crate) fn pid(&self) -> Option<u64> {
        self.reader.as_ref().map(|reader| reader.info().producer_pid)
    }

    pub(crate) fn follow(&mut self, dir: &Path) {
        match &mut self.reader {
            Some(reader) => drop(reader.reattach()),
            none => *none = StatsReader::open(dir, &self.name, Duration::ZERO).ok(),
        }
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.reader.as_ref().map(StatsReader::snapshot)
    }
}

/// What else is looked at, beside the run: nothing, unless somebody says so.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Pages of this drain's sinks.
    pub registry: Registry,
    /// Files of keys: whose they are, and where.
    pub keys: Vec<(String, PathBuf)>,
}

/// Follows a run.
pub struct Source {
    plan: Plan,
    beside: Beside,
    keys: BTreeMap<String, i64>,
    /// How far each file of the spool was read.
    read: BTreeMap<PathBuf, u64>,
    next_files: Instant,
    started_ns: i64,
    journal: Option<JournalReader<Record>>,
    /// The next sequence to read, kept while there is no reader.
    next_seq: u64,
    /// The end of the journal was reached once: what comes now is news.
    caught_up: bool,
    /// What was wrong with the journal when it was last tried.
    trouble: Option<String>,
    monitor: Option<JournalMonitor>,
    idle_since: Instant,
    pages: Vec<Page>,
    control: Option<ControlView>,
    ticks_per_ms: u64,
    next_look: Instant,
    next_attach: Instant,
    /// Sequence at a time, for the rate.
    mark: (Instant, u64),
    per_s: Option<u64>,
}

impl Source {
    /// Begins to follow. Nothing needs to be there yet.
    #[must_use]
    pub fn new(plan: Plan) -> Source {
        let (engine, warden) = (&plan.names.engine_stats, &plan.names.warden_stats);
        let mut pages = vec![Page::named(engine.clone()), Page::named(warden.clone())];
        for venue in &plan.venues {
            pages.push(Page::named(tandem_gateway::tile::stats_name(*venue)));
            pages.push(Page::named(tandem_feeds::tile::stats_name(venue.name())));
        }
        pages.push(Page::named(archive_status::STATS.to_owned()));
        let now = Instant::now();
        Source {
            plan,
            beside: Beside::default(),
            keys: BTreeMap::new(),
            read: BTreeMap::new(),
            next_files: now,
            started_ns: now_ns(),
            journal: None,
            next_seq: 0,
            caught_up: false,
            trouble: None,
            monitor: None,
            idle_since: now,
            pages,
            control: None,
            ticks_per_ms: Clock::calibrate().ticks_per_ms(),
            next_look: now,
            next_attach: now,
            mark: (now, 0),
            per_s: None,
        }
    }

    /// Looks at this too.
    #[must_use]
    pub fn beside(self, beside: Beside) -> Source {
        Source { beside, ..self }
    }

    /// Reads what the journal has, up to a bound; returns whether there is more.
    pub fn read(&mut self, mut take: impl FnMut(Taken<'_>)) -> bool {
        if Instant::now() >= self.next_attach {
            self.next_attach = Instant::now() + ATTACH_EVERY;
            self.attach(&mut take);
        }
        let Some(reader) = &mut self.journal else { return false };
        for _ in 0..RECORDS_PER_TURN {
            match reader.next() {
                Ok(Some(record)) => {
                    let is_past = match record.engine_ts_ns {
                        // A configuration carries no time.
                        0 => !self.caught_up,
                        at_ns => at_ns < self.started_ns,
                    };
                    take(Taken::Record(&record, is_past));
                    self.idle_since = Instant::now();
                }
                Ok(None) => {
                    self.caught_up = true;
                    self.next_seq = reader.next_seq();
                    return false;
                }
                Err(error) => {
                    self.next_seq = reader.next_seq();
                    self.journal = None;
                    if !matches!(error, JournalError::SegmentMissing { .. }) {
                        self.pass_over();
                    }
                    self.tell_trouble(&error, &mut take);
                    return false;
                }
            }
        }
        self.next_seq = reader.next_seq();
        true
    }

    /// Tells once what is wrong with the journal.
    fn tell_trouble(&mut self, error: &JournalError, take: &mut impl FnMut(Taken<'_>)) {
        // There is nothing to wait for: what can be seen is judged.
        self.caught_up = true;
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            take(Taken::Lost(&text));
            self.trouble = Some(text);
        }
    }

    /// Attaches to the journal, and anew where the one that is read does not go on.
    fn attach(&mut self, take: &mut impl FnMut(Taken<'_>)) {
        let dir = self.plan.journal.clone();
        match &mut self.monitor {
            Some(monitor) => drop(monitor.reattach()),
            none => *none = JournalMonitor::open(&dir, record_schema(), Duration::ZERO).ok(),
        }
        if let Some(reader) = &self.journal {
            let written = self.monitor.as_ref().map_or(self.next_seq, JournalMonitor::next_seq);
            // A writer that was killed may have written more than it told last.
            if written == self.next_seq || self.idle_since.elapsed() <= STALLED_FOR {
                return;
            }
            self.idle_since = Instant::now();
            let Ok(oldest) = JournalReader::<Record>::open(&dir, record_schema()) else { return };
            if oldest.uuid() == reader.uuid() {
                return;
            }
            take(Taken::Lost(
                "the journal was begun anew; what followed from the old one is not known",
            ));
            self.journal = Some(oldest);
            self.next_seq = 0;
            return;
        }
        match JournalReader::open_from(&dir, record_schema(), self.next_seq) {
            Ok(reader) => {
                self.trouble = None;
                if self.next_seq != 0 && self.next_seq < reader.next_seq() {
                    let lost = reader.next_seq() - self.next_seq;
                    let text = format!("{lost} records were released before they were read");
                    take(Taken::Lost(&text));
                }
                if self.next_seq == 0 && 1 < reader.next_seq() {
                    // Its run's configuration went with the segments before; the checkpoint has it. Books
                    // that were built there are those of the feeds' pages.
                    if self.give_configuration(reader.uuid(), take) {
                        self.give_books(reader.next_seq(), take);
                    }
                }
                self.journal = Some(reader);
            }
            Err(JournalError::Missing { .. }) => self.caught_up = true,
            Err(JournalError::Shm(error)) if !dir.exists() => {
                self.caught_up = true;
                tracing::debug!(%error, "no journal yet");
            }
            Err(error) => {
                self.tell_trouble(&error, take);
                self.pass_over();
            }
        }
    }

    /// Gives the configuration of the run that the oldest record belongs to, and a record of when it began: that
    /// is the run's identity for some. Says whether there was one.
    fn give_configuration(&self, uuid: u128, take: &mut impl FnMut(Taken<'_>)) -> bool {
        match checkpoint::read(&self.plan.journal) {
            Ok(Some(found)) if found.uuid == uuid => {
                for record in found.config_records() {
                    take(Taken::Record(&record, true));
                }
                let began = Record::new(Kind::Timer, 0, u16::MAX, [0; 4]);
                let began = Record { engine_ts_ns: found.begun_ns, seq: found.seq, ..began };
                take(Taken::Record(&began, true));
                true
            }
            Ok(_) => false,
            Err(error) => {
                take(Taken::Lost(&error.to_string()));
                false
            }
        }
    }

    /// Gives the books of every feed that lives, as its pages have them now. Levels are absolute, and a page knows
    /// at least what the engine has taken: the records that follow from `oldest` on lead to the same books.
    fn give_books(&self, oldest: u64, take: &mut impl FnMut(Taken<'_>)) {
        let written = self.monitor.as_ref().map_or(oldest, JournalMonitor::next_seq);
        let seq = written.max(oldest) - 1;
        for venue in &self.plan.venues {
            let name = page_name(venue.name());
            let opened = LatestReader::open(&self.plan.dir, &name, page_schema(), Duration::ZERO);
            let Ok(pages) = opened else { continue };
            let life = pages.producer(tsc(), self.ticks_per_ms);
            // What a feed that is gone knew last is no book: the engine has told that it is not.
            if !matches!(life, Producer::Live { .. } | Producer::Suspect { .. }) {
                continue;
            }
            let mut words = vec![0; pages.words_max()];
            for slot in 0..pages.entries() {
                // One that is being written is missing until its next change; the last entry is no book.
                let Some(count) = pages.read(slot, &mut words) else { continue };
                let Some(page) = page::decode(&words[..count]) else { continue };
                for record in page.records(*venue) {
                    take(Taken::Record(&Record { seq, ..record }, true));
                }
            }
        }
    }

    /// Reads on past damage: from what is written now, which is in another segment sooner or later.
    fn pass_over(&mut self) {
        let written = self.monitor.as_ref().map(JournalMonitor::next_seq);
        self.next_seq = written.unwrap_or(0).max(self.next_seq);
    }

    /// Looks around, if it is time.
    pub fn look(&mut self) -> Option<Look> {
        if Instant::now() < self.next_look {
            return None;
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let dir = self.plan.dir.clone();
        self.pages.iter_mut().for_each(|page| page.follow(&dir));
        if self.plan.trades && self.control.is_none() {
            self.control = ControlView::open(&dir).ok();
        }
        let now = now_ns();
        let warden_lives = self.plan.parts.iter().any(|part| {
            part.name == "warden" && matches!(self.life(&part.seen, now).0, Life::Alive)
        });
        let engine = self.engine();
        let mut look = Look {
            now_ns: now,
            catching_up: !self.caught_up,
            level: self.control.as_ref().map(|page| LevelWord(page.level())),
            parts: Vec::new(),
            verdicts: BTreeMap::new(),
            gateways: BTreeMap::new(),
            feed_disconnects: BTreeMap::new(),
            engine,
            journal: self.journal_look(),
            sinks: self.beside.registry.look(),
            archive: self.archive(),
            stalls: BTreeMap::new(),
            certificates: BTreeMap::new(),
            keys: BTreeMap::new(),
            deaths: self.files(),
        };
        look.keys.clone_from(&self.keys);
        let stalls = self.page(&self.plan.names.engine_stats);
        let stalls = stalls.and_then(|engine| engine.counter("engine_stall_total"));
        look.stalls.extend(stalls.map(|stalls| ("engine".to_owned(), stalls)));
        for part in &self.plan.parts {
            let (life, generation, config) = self.life(&part.seen, now);
            let (name, venue) = (part.name.clone(), part.venue);
            look.parts.push(PartLook { name, venue, life, generation, config });
        }
        for venue in &self.plan.venues {
            let verdict = self
                .page(&self.plan.names.warden_stats)
                .and_then(|warden| warden.gauge(self.plan.names.warden_verdict.get(venue)?));
            if let Some(verdict) = verdict.and_then(Verdict::from_tag).filter(|_| warden_lives) {
                look.verdicts.insert(*venue, verdict);
            }
            if let Some(stats) = self.page(&tandem_gateway::tile::stats_name(*venue)) {
                look.gateways.insert(*venue, gateway(&stats));
                let ends_s = stats.gauge(gateway_metric::CERTIFICATE);
                let name = format!("gateway {}", venue.name());
                look.certificates.extend(ends_s.map(|ends_s| (name, ends_s)));
            }
            if let Some(stats) = self.page(&tandem_feeds::tile::stats_name(venue.name())) {
                let lost = stats.counter(feed_metric::DISCONNECTS);
                look.feed_disconnects.extend(lost.map(|lost| (*venue, lost)));
                let name = format!("feed {}", venue.name());
                let ends_s = stats.gauge(feed_metric::CERTIFICATE);
                look.certificates.extend(ends_s.map(|ends_s| (name.clone(), ends_s)));
                let turns = stats.histogram(feed_metric::TURN_NS);
                look.stalls.extend(turns.map(|turns| (name, long_turns(turns))));
            }
        }
        Some(look)
    }

    fn page(&self, name: &str) -> Option<Snapshot> {
        self.pages.iter().find(|page| page.name == name)?.snapshot()
    }

    fn archive(&self) -> Option<ArchiveLook> {
        let stats = self.page(archive_status::STATS)?;
        let gauge = |name: &str| stats.gauge(name).unwrap_or(0);
        Some(ArchiveLook {
            state: archive::State::from_tag(gauge(archive_metric::STATE))?,
            lag_ns: gauge(archive_metric::LAG_NS),
            free_ppm: gauge(archive_metric::FREE_PPM),
            wants_pause: gauge(archive_metric::PAUSE) != 0,
        })
    }

    /// Looks at files, if it is time; returns deaths that were not told yet.
    fn files(&mut self) -> Vec<Death> {
        if Instant::now() < self.next_files {
            return Vec::new();
        }
        self.next_files = Instant::now() + FILES_EVERY;
        for (whose, path) in &self.beside.keys {
            // Its modification alone: a key that is written anew is a new one. What cannot be seen has no age.
            let changed = std::fs::metadata(path).and_then(|found| found.modified());
            let since = changed.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let ns = since.and_then(|since| i64::try_from(since.as_nanos()).ok());
            self.keys.extend(ns.map(|ns| (whose.clone(), ns)));
        }
        let files = spool::files(&self.plan.dir.join(spool::FOLDER)).unwrap_or_default();
        self.read.retain(|path, _| files.contains(path));
        let mut deaths = Vec::new();
        for path in files {
            let from = self.read.get(&path).copied().unwrap_or(0);
            for (text, end) in spool::new_lines(&path, from) {
                self.read.insert(path.clone(), end);
                let Ok(line) = serde_json::from_slice::<Line>(&text) else { continue };
                let is_news = self.started_ns <= line.at_ns;
                if is_news && line.what == What::Panic && deaths.len() < DEATHS_MAX {
                    let Line { role, at_ns, what, place, .. } = line;
                    deaths.push(Death { role, at_ns, what, place });
                }
            }
        }
        deaths
    }

    fn engine(&self) -> Option<EngineLook> {
        let stats = self.page(&self.plan.names.engine_stats)?;
        let counter = |name: &str| stats.counter(name).unwrap_or(0);
        Some(EngineLook {
            overruns: counter(&self.plan.names.overruns),
            journal_full: counter(&self.plan.names.journal_full),
            outputs_lost: counter(&self.plan.names.outputs_lost),
            exposure_ppm: stats.gauge(&self.plan.names.exposure_ppm).filter(|share| 0 <= *share),
        })
    }

    fn life(&self, seen: &Seen, now: i64) -> (Life, u64, u64) {
        match seen {
            Seen::Row(row) => {
                let Some(page) = &self.control else { return (Life::Absent, 0, 0) };
                let found = page.row(*row);
                let fresh = now - (found.beat_ns as i64) <= BEAT_NS_MAX;
                let life = match found.pid {
                    0 => Life::Absent,
                    _ if found.beat_ns != 0 && fresh => Life::Alive,
                    // It holds its row and has not beaten yet: it is starting.
                    _ if found.beat_ns == 0 && page.is_held(*row) => Life::Absent,
                    _ => Life::Dead,
                };
                (life, found.generation, found.config)
            }
            Seen::Stats(name) => {
                let page = self.pages.iter().find(|page| page.name == *name);
                let Some(reader) = page.and_then(|page| page.reader.as_ref()) else {
                    return (Life::Absent, 0, 0);
                };
                let life = match reader.producer(tsc(), self.ticks_per_ms) {
                    Producer::Live { .. } | Producer::Suspect { age_us: 0..1_000_000 } => {
                        Life::Alive
                    }
                    Producer::Closed => Life::Absent,
                    _ => Life::Dead,
                };
                (life, reader.snapshot().epoch(), 0)
            }
        }
    }

    fn journal_look(&mut self) -> JournalLook {
        let written = self.monitor.as_ref().map_or(self.next_seq, JournalMonitor::next_seq);
        let (at, seq) = self.mark;
        let over = at.elapsed();
        if seq == 0 || written < seq {
            self.mark = (Instant::now(), written);
        } else if RATE_OVER <= over {
            self.per_s = u64::try_from(u128::from(written - seq) * 1_000 / over.as_millis()).ok();
            self.mark = (Instant::now(), written);
        }
        let frames = self.plan.segment_frames;
        let capacity = self.plan.segments_max.saturating_mul(frames);
        // Whole segments that are not in use; the one being written counts as used.
        let used = segments_used(&self.plan.journal, self.journal.as_ref());
        JournalLook {
            room: capacity.saturating_sub(used.saturating_mul(frames)),
            capacity,
            per_s: self.per_s,
            lag: written.saturating_sub(self.next_seq),
        }
    }
}

/// Segments from the oldest one that is there to the one that is read.
fn segments_used(dir: &Path, reader: Option<&JournalReader<Record>>) -> u64 {
    let Some(reader) = reader else { return 0 };
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let number = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix("seg-")?.strip_suffix(".tj")?.parse::<u64>().ok()
    };
    let oldest = entries.flatten().filter_map(|entry| number(entry.file_name())).min();
    oldest.map_or(0, |oldest| (reader.segment() + 1).saturating_sub(oldest))
}

fn gateway(stats: &Snapshot) -> GatewayLook {
    let counter = |name: &str| stats.counter(name).unwrap_or(0);
    GatewayLook {
        auth_rejects: counter("gateway_order_rejected_auth_total"),
        budget_left: stats.gauge(gateway_metric::BUDGET).unwrap_or(0),
        suspensions: counter(gateway_metric::SUSPENSIONS),
        disconnects: counter(gateway_metric::DISCONNECTS),
    }
}
