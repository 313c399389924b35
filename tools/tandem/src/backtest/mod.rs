//! Backtests: journals and archives through `tandem-backtest`, with the recorded run's own instruments, detection
//! and limits.
//!
//! Invariant: what the engine is built from is a [`Setup`] like a live run's, so that a backtest's own journal is
//! read, replayed and verified as any other. Data are read in order of time; what does not fit together is an error
//! that names it.
//!
//! Not here: the simulation (`tandem-backtest`).

pub mod counterfactual;
pub mod limits;
pub mod sensitivity;
pub mod window;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use tandem_backtest::config::Latency;
use tandem_backtest::{Config, Counterfactual, Outcome, Plan, Plant, RunError, Source, Told};
use tandem_core::account::{Balance, BalanceSource};
use tandem_core::instrument::AssetId;
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::units::{Amount, parse_decimal};
use tandem_feeds::tile::record_schema;
use tandem_shm::{JournalError, JournalSpec, JournalWriter};

use crate::config::{venue_named, with_nearest_key};
use crate::limits::Limits;
use crate::records::Records;
use crate::reports::period::Period;
use crate::reports::sheet::SheetError;
use crate::table::{self, Collector, Setup, Table, TableError};
use counterfactual::Sheets;
use window::Window;

/// Records that are looked through for the recorded run's balances.
const LOOK: usize = 2_000_000;

/// Samples of a latency that are taken from a recording, by venue.
const WAYS: usize = 10_000;
/// Within one journal a record may be stamped this much earlier than the one before.
const BACK_NS: i64 = 1_000_000_000;
/// No record is this much later than the one before.
const AHEAD_NS: i64 = 366 * 86_400 * 1_000_000_000;

/// Why a backtest was not made.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// The configuration cannot be read.
    #[error("{path}: {detail}")]
    Config {
        /// File.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A key of it.
    #[error("{key}: {why}")]
    Key {
        /// Dotted.
        key: String,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// The data cannot be read.
    #[error("{path}: {error}")]
    Journal {
        /// Journal.
        path: PathBuf,
        /// Why.
        error: JournalError,
    },
    /// The data do not fit.
    #[error("{path}: {detail}")]
    Data {
        /// Journal.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// The recorded configuration, or what is made of it.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The run itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file that is written.
    #[error(transparent)]
    Sheet(#[from] SheetError),
}

fn refuse(key: impl Into<String>, why: impl Into<String>) -> BacktestError {
    BacktestError::Key { key: key.into(), why: why.into() }
}

/// Reads a configuration; an unknown key is an error.
pub fn load(path: &Path) -> Result<Config, BacktestError> {
    let wrong = |detail: String| BacktestError::Config { path: path.to_owned(), detail };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(with_nearest_key(&error.to_string())))
}

/// What a live day's own replay assumes: `deploy/drift.toml`.
pub fn drift_config() -> Result<Config, BacktestError> {
    toml::from_str(include_str!("../../../../deploy/drift.toml")).map_err(
        |error: toml::de::Error| BacktestError::Config {
            path: PathBuf::from("deploy/drift.toml"),
            detail: error.to_string(),
        },
    )
}

/// What is done beside the simulation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Every record as a journal, in a new directory.
    pub journal: Option<PathBuf>,
    /// Every opportunity as it would have been found later, in a new file: Parquet where the name says so, CSV.
    pub counterfactual: Option<PathBuf>,
    /// How often the data are played, one after the other with shifted times.
    pub repeat: u32,
    /// What is played of the data.
    pub period: Period,
}

impl Default for Options {
    fn default() -> Options {
        Options { journal: None, counterfactual: None, repeat: 1, period: Period::ALL }
    }
}

/// What a run took.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it found.
    pub outcome: Outcome,
    /// Seconds it took, without the look for what was recorded.
    pub seconds: f64,
}

impl Run {
    /// Market records a second.
    #[must_use]
    pub fn records_per_second(&self) -> u64 {
        (self.outcome.data.records as f64 / self.seconds.max(1e-9)) as u64
    }
}

/// Data whose recorded configuration and balances are known: to be run any number of times.
#[derive(Clone, Debug)]
pub struct Recording {
    paths: Vec<PathBuf>,
    setup: Setup,
    opening: BTreeMap<(Venue, u16), Amount>,
}

impl Recording {
    /// Looks through the beginning of the data.
    pub fn open(paths: &[PathBuf]) -> Result<Recording, BacktestError> {
        let mut found: Option<Setup> = None;
        let mut opening = BTreeMap::new();
        for path in paths {
            let journal = |error| BacktestError::Journal { path: path.clone(), error };
            let mut records = Records::strict(path).map_err(journal)?;
            let mut collector = Collector::default();
            let mut setup = None;
            for _ in 0..LOOK {
                let Some(record) = records.next().map_err(journal)? else { break };
                match record.kind() {
                    Some(Kind::Config) => {
                        if let Some(table) = collector.take(&record) {
                            setup = Some(table?.setup);
                        }
                    }
                    Some(Kind::OrderNew) => break,
                    // Of the first journal alone: the others go on from it.
                    _ if found.is_none() => {
                        if let Some(told) = Balance::read(&record)
                            && told.source != BalanceSource::Stream
                        {
                            opening.entry((told.venue, told.asset)).or_insert(told.total);
                        }
                    }
                    _ => {}
                }
            }
            let setup = setup.ok_or_else(|| BacktestError::Data {
                path: path.clone(),
                detail: "no configuration records: the journal's first segment is missing"
                    .to_owned(),
            })?;
            match &found {
                None => found = Some(setup),
                Some(first) if first.listings == setup.listings => {}
                Some(_) => {
                    let detail = format!(
                        "its instruments are not those of {}: run them apart",
                        paths[0].display()
                    );
                    return Err(BacktestError::Data { path: path.clone(), detail });
                }
            }
        }
        let setup = found.ok_or_else(|| refuse("--data", "name at least one journal"))?;
        Ok(Recording { paths: paths.to_vec(), setup, opening })
    }

    /// Returns the recorded setup.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Returns the same recording with some of its journals alone, by their place in the list.
    #[must_use]
    pub fn only(&self, of: &[usize]) -> Recording {
        let paths = of.iter().filter_map(|idx| self.paths.get(*idx).cloned()).collect();
        Recording { paths, ..self.clone() }
    }

    /// Returns the setup that the engine is built from: the recorded one, as the configuration changes it.
    pub fn effective(&self, config: &Config) -> Result<Setup, BacktestError> {
        let mut setup = self.setup.clone();
        setup.detection = overlay("engine", &setup.detection, &config.engine)?;
        setup.mode = "live".to_owned();
        setup.run = 1;
        let limits: Limits = match &config.limits {
            Value::String(word) if word == "recorded" => setup.limits.clone().ok_or_else(|| {
                let why =
                    "the recorded run had none: set limits = \"wide\", or give a [limits] section";
                refuse("limits", why)
            })?,
            Value::String(word) if word == "wide" => limits::wide(&setup)?,
            section @ Value::Object(_) => serde_json::from_value(section.clone())
                .map_err(|error| refuse("limits", error.to_string()))?,
            other => {
                let why = format!("{other} is none of \"recorded\", \"wide\", or a section");
                return Err(refuse("limits", why));
            }
        };
        // In a recording rules are not read anew, so they do not grow old; and no venue ever shows what we took, so
        // depth comes back to the engine as in paper: when its level changes, not after a time.
        setup.limits = Some(Limits { rules_age_max_s: 0, own_interest_ms: u32::MAX, ..limits });
        Ok(setup)
    }

    /// Returns the configuration with the recording's own latencies where it asks for them.
    fn resolved(&self, config: &Config) -> Result<Config, BacktestError> {
        let mut config = config.clone();
        let asks = |latency: &Latency| matches!(latency, Latency::Recorded { .. });
        if !config.venue.values().any(|model| asks(&model.entry) || asks(&model.response)) {
            return Ok(config);
        }
        let ways = self.ways()?;
        for (name, model) in &mut config.venue {
            for (key, latency) in [("entry", &mut model.entry), ("response", &mut model.response)] {
                let Latency::Recorded { correlation_ppm, shift_us, without_us } = *latency else {
                    continue;
                };
                if !self.setup.listings.iter().any(|listing| listing.venue == *name) {
                    // No order ever goes there.
                    *latency = Latency::Constant { us: 0 };
                    continue;
                }
                let samples = venue_named(name).map(|venue| &ways[venue.idx()]);
                *latency = match (samples.filter(|s| !s.is_empty()).cloned(), without_us) {
                    (Some(samples_us), _) => {
                        Latency::Empirical { samples_us, correlation_ppm, shift_us }
                    }
                    (None, Some(us)) => Latency::Constant { us },
                    (None, None) => {
                        let why = "the recording has no acknowledged order there: say what it is \
                                   then as without_us, or give another model";
                        return Err(refuse(format!("venue.{name}.{key}"), why));
                    }
                };
            }
        }
        Ok(config)
    }

    /// Half of the time from each order's bytes to its acknowledgement, by venue, microseconds; the first ten
    /// thousand.
    fn ways(&self) -> Result<[Vec<u32>; 3], BacktestError> {
        let mut ways: [Vec<u32>; 3] = Default::default();
        let mut sent: BTreeMap<(u32, i64), i64> = BTreeMap::new();
        for path in &self.paths {
            let wrong = |error| BacktestError::Journal { path: path.clone(), error };
            let mut records = Records::strict(path).map_err(wrong)?;
            while let Some(record) = records.next().map_err(wrong)? {
                let name = (record.run, record.data[0]);
                match (record.kind(), Venue::from_tag(record.venue)) {
                    (Some(Kind::OrderSent), Some(_)) if sent.len() < WAYS => {
                        sent.insert(name, record.data[1]);
                    }
                    (Some(Kind::OrderAck), Some(venue)) => {
                        let Some(sent_ns) = sent.remove(&name) else { continue };
                        let us = (record.engine_ts_ns - sent_ns) / 2_000;
                        let way = &mut ways[venue.idx()];
                        if let (Ok(us), true) = (u32::try_from(us), way.len() < WAYS) {
                            way.push(us);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(ways)
    }

    /// Runs a configuration over the data.
    pub fn run(&self, config: &Config, options: &Options) -> Result<Run, BacktestError> {
        self.run_told(config, options, None)
    }

    /// The same, and `each` gets every record that the run's journal has or would have.
    pub fn run_told(
        &self,
        config: &Config,
        options: &Options,
        mut each: Option<&mut dyn FnMut(&Record)>,
    ) -> Result<Run, BacktestError> {
        let config = &self.resolved(config)?;
        let table = Table::build(self.effective(config)?, "the backtest's configuration")?;
        let trading = table.trading().map_err(TableError::from)?;
        let trading = trading.ok_or_else(|| refuse("limits", "there are none"))?;
        let plan = Plan {
            universe: table.universe.clone(),
            params: table.params.clone(),
            trading,
            symbols: table.instruments.iter().map(|i| i.symbol.clone()).collect(),
            config: config.clone(),
            opening: self.opening(config, &table)?,
            plant: Plant::Nothing,
        };
        let (mut whole, mut cut);
        let source: &mut dyn Source = match options.period {
            Period::ALL => {
                whole = Chain::new(&self.paths, options.repeat);
                &mut whole
            }
            period => {
                cut = Window::new(Chain::new(&self.paths, options.repeat), period);
                &mut cut
            }
        };
        let begun = Instant::now();
        let mut journal =
            options.journal.as_deref().map(|to| Journal::create(to, &table)).transpose()?;
        let mut looks = match &options.counterfactual {
            None => None,
            Some(_) if !config.counterfactual => {
                return Err(refuse("counterfactual", "is off: there is nothing to write"));
            }
            Some(path) => Some(Sheets::begin(path, &plan)?),
        };
        let is_told = each.is_some() || journal.is_some();
        let mut record = |record: &Record| {
            if let Some(each) = &mut each {
                each(record);
            }
            if let Some(journal) = &mut journal {
                journal.append(record);
            }
        };
        let mut look = |seen: &Counterfactual| {
            if let Some(looks) = &mut looks {
                looks.add(seen);
            }
        };
        let told = Told {
            record: is_told.then_some(&mut record),
            look: options.counterfactual.is_some().then_some(&mut look),
        };
        let outcome = tandem_backtest::run(&plan, source, told)?;
        if let Some(journal) = journal {
            journal.close()?;
        }
        if let Some(looks) = looks {
            looks.finish()?;
        }
        let mut outcome = outcome;
        outcome.data.paths = self.paths.iter().map(|path| path.display().to_string()).collect();
        Ok(Run { outcome, seconds: begun.elapsed().as_secs_f64() })
    }

    fn opening(
        &self,
        config: &Config,
        table: &Table,
    ) -> Result<Vec<(Venue, AssetId, Amount)>, BacktestError> {
        let mut all = Vec::new();
        if config.opening.is_empty() {
            let of_run = self
                .opening
                .iter()
                .map(|((venue, asset), total)| (*venue, AssetId(*asset), *total));
            all.extend(of_run);
            if all.is_empty() {
                let why =
                    "the recording has no balances: give [opening.VENUE] with amounts by asset";
                return Err(refuse("opening", why));
            }
        }
        for (name, assets) in &config.opening {
            let key = |asset: &str| format!("opening.{name}.{asset}");
            let venue = venue_named(name).ok_or_else(|| refuse(key("*"), "no venue of ours"))?;
            for (asset, text) in assets {
                let found = table.universe.assets.iter().position(|known| known.name == *asset);
                let Some(id) = found else {
                    return Err(refuse(key(asset), "no asset of the recording"));
                };
                let amount = parse_decimal(text.as_bytes(), table.universe.assets[id].exponent);
                let amount =
                    amount.map_err(|error| refuse(key(asset), format!("`{text}`: {error}")))?;
                all.push((venue, AssetId(id as u16), Amount(amount)));
            }
        }
        Ok(all)
    }
}

/// Runs a configuration over data.
pub fn run(config: &Config, data: &[PathBuf], options: &Options) -> Result<Run, BacktestError> {
    Recording::open(data)?.run(config, options)
}

/// Changes keys of something that was recorded; a key that it does not have is an error that names the nearest.
fn overlay<T: serde::Serialize + serde::de::DeserializeOwned>(
    place: &str,
    of: &T,
    by: &serde_json::Map<String, Value>,
) -> Result<T, BacktestError> {
    let mut value = serde_json::to_value(of).map_err(|error| refuse(place, error.to_string()))?;
    merge(place, &mut value, by)?;
    serde_json::from_value(value).map_err(|error| refuse(place, error.to_string()))
}

fn merge(
    place: &str,
    of: &mut Value,
    by: &serde_json::Map<String, Value>,
) -> Result<(), BacktestError> {
    let Value::Object(known) = of else {
        return Err(refuse(place, "is one value, not a section"));
    };
    for (name, value) in by {
        let key = format!("{place}.{name}");
        let Some(slot) = known.get_mut(name) else {
            let near = known.keys().max_by(|a, b| {
                strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b))
            });
            let near = near.map_or(String::new(), |near| format!("; the nearest is `{near}`"));
            return Err(refuse(key, format!("no such key{near}")));
        };
        match value {
            Value::Object(section) => merge(&key, slot, section)?,
            value => *slot = value.clone(),
        }
    }
    Ok(())
}

/// Journals one after the other, as often as asked for.
struct Chain {
    paths: Vec<PathBuf>,
    at: usize,
    reading: Option<Records>,
    repeat: u32,
    /// What is added to every time.
    shift_ns: i64,
    first_ns: i64,
    last_ns: i64,
    /// A fault behind records that were given out first.
    failed: Option<String>,
}

impl Chain {
    fn new(paths: &[PathBuf], repeat: u32) -> Chain {
        let (paths, repeat) = (paths.to_vec(), repeat.max(1));
        Chain {
            paths,
            at: 0,
            reading: None,
            repeat,
            shift_ns: 0,
            first_ns: 0,
            last_ns: 0,
            failed: None,
        }
    }

    /// Brings a record to its place in time; false where it is none that an engine takes.
    fn place(&mut self, record: &mut Record) -> Result<bool, String> {
        if record.has(flag::OUTPUT) || record.engine_ts_ns == 0 {
            return Ok(false);
        }
        if self.first_ns == 0 {
            self.first_ns = record.engine_ts_ns;
        }
        if self.shift_ns != 0 {
            shift(record, self.shift_ns);
        }
        let wrong = |why: &str| {
            let path = self.paths.get(self.at).map(|path| path.display().to_string());
            Err(format!("{}: record {} is {why}", path.unwrap_or_default(), record.seq))
        };
        if self.last_ns != 0 && self.last_ns.saturating_add(AHEAD_NS) < record.engine_ts_ns {
            return wrong("more than a year later than the one before it: run the parts apart");
        }
        if record.engine_ts_ns.saturating_add(BACK_NS) < self.last_ns {
            return wrong(
                "older than what was read before it: name the journals in the order of their time",
            );
        }
        // The engine's own clock is the latest that it was told.
        self.last_ns = self.last_ns.max(record.engine_ts_ns);
        record.engine_ts_ns = self.last_ns;
        Ok(true)
    }
}

impl Source for Chain {
    fn read(&mut self, to: &mut [Record]) -> Result<usize, String> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        loop {
            let Some(path) = self.paths.get(self.at) else {
                self.repeat -= 1;
                if self.repeat == 0 || self.first_ns == 0 {
                    self.repeat = 1;
                    return Ok(0);
                }
                // A second of silence between one time and the next.
                self.shift_ns = self.last_ns - self.first_ns + 1_000_000_000;
                self.at = 0;
                continue;
            };
            let wrong = |error: JournalError| format!("{}: {error}", path.display());
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => self.reading.insert(Records::strict(path).map_err(wrong)?),
            };
            let count = reading.fill(to).map_err(wrong)?;
            if count == 0 {
                self.reading = None;
                self.at += 1;
                continue;
            }
            let mut kept = 0;
            for idx in 0..count {
                match self.place(&mut to[idx]) {
                    Ok(true) => {
                        to[kept] = to[idx];
                        kept += 1;
                    }
                    Ok(false) => {}
                    Err(why) if kept == 0 => return Err(why),
                    Err(why) => {
                        self.failed = Some(why);
                        break;
                    }
                }
            }
            if kept != 0 {
                return Ok(kept);
            }
        }
    }
}

fn shift(record: &mut Record, by_ns: i64) {
    record.engine_ts_ns = record.engine_ts_ns.saturating_add(by_ns);
    for ns in [&mut record.venue_ts_ns, &mut record.recv_ts_ns] {
        if *ns != 0 {
            *ns = ns.saturating_add(by_ns);
        }
    }
    if record.kind() == Some(Kind::Beat) {
        record.data[0] = record.data[0].saturating_add(by_ns);
    }
}

/// A backtest's own journal.
struct Journal {
    writer: JournalWriter<Record>,
    path: PathBuf,
    failure: Option<String>,
}

impl Journal {
    fn create(to: &Path, table: &Table) -> Result<Journal, BacktestError> {
        let spec = JournalSpec {
            segment_bytes: 32 << 20,
            segments_max: 65_536,
            ..JournalSpec::new(record_schema())
        };
        let path = to.to_owned();
        let writer = JournalWriter::create(to, &spec)
            .map_err(|error| BacktestError::Journal { path: path.clone(), error })?;
        let mut journal = Journal { writer, path, failure: None };
        for record in table::to_records(&table.setup)? {
            journal.append(&record);
        }
        Ok(journal)
    }

    fn append(&mut self, record: &Record) {
        if self.failure.is_some() {
            return;
        }
        // The journal's helper makes segments ready as fast as the disk lets it.
        for _ in 0..20_000 {
            if self.writer.append(record).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        let why = self.writer.helper_failure();
        self.failure = Some(why.unwrap_or_else(|| "no room for another segment".to_owned()));
    }

    fn close(self) -> Result<(), BacktestError> {
        if let Some(detail) = self.failure {
            return Err(BacktestError::Data { path: self.path, detail });
        }
        let path = self.path;
        self.writer.close().map_err(|error| BacktestError::Journal { path, error })
    }
}
