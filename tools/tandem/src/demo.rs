//! `tandem demo`: simulated venues and everything else, one command, no keys, and databases where they are wanted.
//!
//! Invariant: it runs the same processes as a real run, over TLS and WebSockets; only the venues are
//! simulated. What it reports is read from the run's own shared memory and journal, and the journal is
//! replayed before the report is printed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tandem_core::account::SessionState;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::record::Venue;
use tandem_feeds::tile::{metric as feed_metric, record_schema, stats_name};
use tandem_gateway::stats::metric as gateway_metric;
use tandem_shm::{Snapshot, StatsReader};
use tandem_sim::SimConfig;

use crate::config::{Config, ConfigError, Mode};
use crate::engine_tile::{self, metric};
use crate::latch::{self, Act};
use crate::records::Origin;
use crate::replay::{self, ReplayError, ReplayReport};
use crate::services::audit::{self, Journal, PrometheusAudit, ServicesReport};
use crate::services::{self, Services, ServicesError};
use crate::trades::TradesError;
use crate::truth::{Truth, TruthError};
use crate::{demo_config, demo_keys, drain_role, stages, supervisor};

pub mod trading;

pub use trading::{Controls, Money, Orders, Rounds};

/// Rounds under way have this long to end.
const END_ROUNDS_WITHIN: Duration = Duration::from_secs(10);
/// What is not in the database when everything has stopped comes within this time.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);
/// Segments that stay in shared memory with an archive: a quarter of a GiB.
const KEEP_SEGMENTS: u64 = 8;
/// All books must be in sync within this time.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

/// What the caller chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to run once all books are in sync.
    pub run_for: Duration,
    /// Seed of the simulated market.
    pub seed: u64,
    /// What is done with opportunities.
    pub mode: Mode,
    /// Directory of the run; made if missing.
    pub dir: PathBuf,
    /// Folder of PostgreSQL, Redis, Prometheus and the archive, on a disk; nothing where they are not wanted.
    pub services: Option<PathBuf>,
    /// Whether progress is told on the error stream.
    pub quiet: bool,
    /// Set from outside to end the run early; what was done until then is reported.
    pub stop: Arc<AtomicBool>,
}

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Files or processes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The simulator.
    #[error(transparent)]
    Sim(#[from] tandem_sim::SimError),
    /// The generated configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Shared memory.
    #[error(transparent)]
    Shm(#[from] tandem_shm::ShmError),
    /// Replay.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The books did not get in sync.
    #[error("after {seconds} s {live} of {books} books are in sync; the log is above")]
    NotInSync {
        /// How long it was waited.
        seconds: u64,
        /// Books in sync.
        live: i64,
        /// Books.
        books: i64,
    },
    /// Interrupted before all books were in sync.
    #[error("stopped before all books were in sync")]
    Stopped,
    /// A process ended too early.
    #[error("`tandem up` ended early: {0}")]
    UpEnded(std::process::ExitStatus),
    /// The trading sessions did not get ready.
    #[error("after {seconds} s not ready to trade: {detail}")]
    NotReady {
        /// How long it was waited.
        seconds: u64,
        /// What stands against it.
        detail: String,
    },
    /// The comparison with the simulator.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// The journal's orders.
    #[error(transparent)]
    Trades(#[from] TradesError),
    /// PostgreSQL, Redis, Prometheus or the archive.
    #[error(transparent)]
    Services(#[from] ServicesError),
}

/// One venue in the report.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VenueReport {
    /// Messages received.
    pub messages: u64,
    /// Books.
    pub books: i64,
    /// Books in sync at the end.
    pub books_in_sync: i64,
    /// Resynchronisations.
    pub resyncs: u64,
    /// Sequence gaps.
    pub gaps: u64,
}

/// Opportunities by kind.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of CycleKind")]
pub struct OpportunityReport {
    pub total: u64,
    pub cross_venue: u64,
    pub triangular: u64,
    pub cross_quote: u64,
}

/// Percentiles of one stage.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Percentiles {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub count: u64,
}

/// Stages of the hot path.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct LatencyReport {
    pub decode: Percentiles,
    pub ring: Percentiles,
    pub detect: Percentiles,
    pub wire_to_decision: Percentiles,
    pub tick_to_order: Percentiles,
}

/// The journal.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct JournalReport {
    pub path: PathBuf,
    pub records: u64,
    pub segments: u64,
    pub bytes: u64,
}

/// The replay.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct ReplaySummary {
    pub identical: bool,
    pub records: u64,
    pub records_per_second: u64,
}

/// What was lost on the way.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct LossReport {
    pub overruns: u64,
    pub gaps: u64,
}

/// What a demo did. The field names are a contract for scripts.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Report {
    pub mode: String,
    pub seconds: f64,
    pub venues: BTreeMap<String, VenueReport>,
    pub records: u64,
    pub opportunities: OpportunityReport,
    pub denials: u64,
    pub latency_ns: LatencyReport,
    pub journal: JournalReport,
    pub replay: ReplaySummary,
    pub losses: LossReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Rounds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orders: Option<Orders>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pnl: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<Truth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controls: Option<Controls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire_to_wire_ns: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_echo_ns: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServicesReport>,
}

impl Report {
    /// Returns whether the demo showed what it should: books in sync, an identical replay, where it traded
    /// nothing that the simulator knows better, and where it had services all that the journal says in them.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.replay.identical
            && self.venues.values().all(|v| v.books_in_sync == v.books && 0 < v.books)
            && self.truth.as_ref().is_none_or(Truth::is_clean)
            && self.rounds.as_ref().is_none_or(|rounds| rounds.one_legged_open == 0)
            && self.orders.as_ref().is_none_or(|orders| orders.unknown_open == 0)
            && self.services.as_ref().is_none_or(ServicesReport::is_good)
    }
}

/// Runs a demo.
pub fn run(options: &Options) -> Result<Report, DemoError> {
    let say = |text: &str| {
        if !options.quiet {
            eprintln!("{text}");
        }
    };
    fs::create_dir_all(&options.dir)?;
    let mut services = options.services.as_deref().map(Services::start).transpose()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let keys = demo_keys::make(&options.dir)?;
    let mut sim_config = SimConfig::demo(options.seed);
    sim_config.ca_path = Some(options.dir.join("sim-ca.pem"));
    demo_config::set_fees(&mut sim_config);
    demo_config::set_keys(&mut sim_config, &keys)?;
    let symbols = sim_symbols(&sim_config);
    let sim = runtime.block_on(tandem_sim::start(sim_config.clone()))?;
    let control = sim.addresses().control;
    say(&format!("simulated venues are up; faults can be injected at http://{control}"));

    let config_path = options.dir.join("tandem.toml");
    let trading = Some((options.mode, &keys));
    let web = demo_config::Dashboard::make(&options.dir)?;
    let at = sim.addresses();
    let mut text = demo_config::text(&options.dir, at, &sim_config, &symbols, trading, &web);
    text.extend(services.as_ref().map(|services| services.text(KEEP_SEGMENTS)));
    fs::write(&config_path, text)?;
    let config = Config::load(&config_path)?;
    if let Some(services) = &services {
        services.prepare(&config)?;
        say(&format!(
            "PostgreSQL and Redis are up; they and the archive are in {}",
            services.dir.display()
        ));
    }
    let mut up = Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--config")
        .arg(&config_path)
        .args(["--while-pid", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let outcome = watch(&config, options, &mut up, services.as_mut(), &say);
    supervisor::stop(&mut up);
    let told = outcome.and_then(|(mut report, seconds)| {
        report.seconds = seconds;
        report.mode = config.run.mode.name().to_owned();
        if config.run.mode != Mode::Observe {
            say("comparing our books with the simulator's");
            trading::add(&mut report, &config, control)?;
        }
        Ok(report)
    });
    runtime.block_on(sim.shutdown());
    let mut report = told?;
    let mut whole = config.journal_dir();
    if let Some(services) = services {
        say("comparing the services with the journal");
        let scraped = report.services.take().map(|found| found.prometheus).unwrap_or_default();
        report.services = Some(compare(&config, &config_path, &services, scraped)?);
        // Segments that were released are there alone.
        whole = services.archive();
    }

    let journal = config.journal_dir();
    say(&format!("replaying {}", whole.display()));
    let checked = tandem_shm::verify(&journal, record_schema()).map_err(ReplayError::from)?;
    let ReplayReport { identical, records, records_per_second, .. } = replay::verify(&whole)?;
    report.journal = JournalReport {
        path: journal,
        records: records.max(checked.records),
        segments: checked.segments,
        bytes: checked.bytes,
    };
    report.replay =
        ReplaySummary { identical: identical && checked.is_sound(), records, records_per_second };
    Ok(report)
}

/// Compares the services with the journal. What the drain had not handed over when it was stopped, one that is
/// started again hands over first, within a bound.
fn compare(
    config: &Config,
    config_path: &Path,
    services: &Services,
    scraped: PrometheusAudit,
) -> Result<ServicesReport, DemoError> {
    let journal = Journal::read(Origin::of(config))?;
    let mut client = services.postgres.client(services::postgres::READER, "postgres")?;
    if audit::drained(&mut client)? <= journal.last_seq() {
        let mut drain = Command::new(std::env::current_exe()?)
            .arg("drain")
            .arg("--config")
            .arg(config_path)
            .args(["--while-pid", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let until = Instant::now() + DRAINED_WITHIN;
        while audit::drained(&mut client)? <= journal.last_seq() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        supervisor::stop(&mut drain);
    }
    Ok(audit::all(services, &journal, scraped)?)
}

/// The symbols that a simulator has, by venue.
#[must_use]
pub fn sim_symbols(config: &SimConfig) -> BTreeMap<String, Vec<String>> {
    let names = |instruments: &[tandem_sim::config::InstrumentConfig]| {
        instruments.iter().map(|instrument| instrument.symbol.clone()).collect::<Vec<_>>()
    };
    BTreeMap::from([
        ("binance".to_owned(), names(&config.binance.instruments)),
        ("coinbase".to_owned(), names(&config.coinbase.instruments)),
        ("kraken".to_owned(), names(&config.kraken.instruments)),
    ])
}

/// The stats of all tiles of a run.
pub struct RunStats {
    engine: StatsReader,
    feeds: Vec<(Venue, StatsReader)>,
    gateways: Vec<(Venue, StatsReader)>,
}

impl RunStats {
    /// Attaches to a run's stats, waiting for them at most `within`.
    pub fn open(config: &Config, within: Duration) -> Result<RunStats, tandem_shm::ShmError> {
        let dir = &config.run.dir;
        let feeds = config
            .venues()
            .into_iter()
            .map(|(venue, _)| {
                Ok((venue, StatsReader::open(dir, &stats_name(venue.name()), within)?))
            })
            .collect::<Result<_, _>>()?;
        let mut gateways = Vec::new();
        if config.run.mode == Mode::Live {
            for (venue, _) in config.venues() {
                let name = tandem_gateway::tile::stats_name(venue);
                gateways.push((venue, StatsReader::open(dir, &name, within)?));
            }
        }
        let engine = StatsReader::open(dir, engine_tile::STATS, within)?;
        Ok(RunStats { engine, feeds, gateways })
    }

    /// Follows tiles that were started again.
    pub fn reattach(&mut self) {
        let _ = self.engine.reattach();
        for (_, reader) in self.feeds.iter_mut().chain(&mut self.gateways) {
            let _ = reader.reattach();
        }
    }

    /// Returns the engine's figures.
    #[must_use]
    pub fn engine(&self) -> Snapshot {
        self.engine.snapshot()
    }

    /// Returns every feed's figures.
    #[must_use]
    pub fn feeds(&self) -> Vec<(Venue, Snapshot)> {
        self.feeds.iter().map(|(venue, reader)| (*venue, reader.snapshot())).collect()
    }

    /// Returns the tiles whose stats nobody writes any more.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        let ticks_per_ms = tandem_shm::Clock::calibrate().ticks_per_ms();
        let is_dead = |reader: &StatsReader| {
            // Tiles beat every 10 ms; a second without one is no jitter.
            !matches!(
                reader.producer(tandem_shm::tsc(), ticks_per_ms),
                tandem_shm::Producer::Live { .. }
                    | tandem_shm::Producer::Suspect { age_us: 0..1_000_000 }
            )
        };
        let feeds =
            self.feeds.iter().map(|(venue, reader)| (format!("feed {}", venue.name()), reader));
        let gateways = self
            .gateways
            .iter()
            .map(|(venue, reader)| (format!("gateway {}", venue.name()), reader));
        feeds
            .chain(gateways)
            .chain(std::iter::once(("engine".to_owned(), &self.engine)))
            .filter(|(_, reader)| is_dead(reader))
            .map(|(tile, _)| tile)
            .collect()
    }

    /// Returns how far a venue's trading session is; nothing without a gateway.
    #[must_use]
    pub fn session(&self, venue: Venue) -> Option<SessionState> {
        let (_, reader) = self.gateways.iter().find(|(of, _)| *of == venue)?;
        let tag = reader.snapshot().gauge(gateway_metric::SESSION)?;
        SessionState::ALL.into_iter().find(|state| *state as i64 == tag)
    }

    /// Returns every gateway's figures.
    #[must_use]
    pub fn gateways(&self) -> Vec<(Venue, Snapshot)> {
        self.gateways.iter().map(|(venue, reader)| (*venue, reader.snapshot())).collect()
    }

    /// Returns how many books are in sync, and how many there are.
    #[must_use]
    pub fn books(&self) -> (i64, i64) {
        self.books_of(&Venue::ALL)
    }

    /// The same for some venues.
    #[must_use]
    pub fn books_of(&self, venues: &[Venue]) -> (i64, i64) {
        self.feeds().iter().filter(|(venue, _)| venues.contains(venue)).fold(
            (0, 0),
            |(live, books), (_, stats)| {
                let gauge = |name| stats.gauge(name).unwrap_or(0);
                (live + gauge(feed_metric::BOOKS_LIVE), books + gauge(feed_metric::BOOKS))
            },
        )
    }

    /// Returns the report of what the tiles counted.
    #[must_use]
    pub fn report(&self) -> Report {
        let engine = self.engine();
        let count = |name| engine.counter(name).unwrap_or(0);
        let [cross_venue, triangular, cross_quote] = metric::OPPORTUNITIES.map(count);
        let feeds = self.feeds();
        let decode = feeds
            .iter()
            .filter_map(|(_, stats)| stats.histogram(feed_metric::DECODE_NS))
            .fold(hdrhistogram::Histogram::<u64>::new(3).ok(), |sum, stage| {
                let mut sum = sum?;
                sum.add(stage.to_hdr()).ok()?;
                Some(sum)
            });
        let stage = |name| {
            let histogram = engine.histogram(name);
            histogram.map_or_else(Percentiles::default, |h| percentiles(&h.to_hdr()))
        };
        Report {
            venues: feeds
                .iter()
                .map(|(venue, stats)| {
                    let counter = |name| stats.counter(name).unwrap_or(0);
                    let report = VenueReport {
                        messages: counter(feed_metric::MESSAGES),
                        books: stats.gauge(feed_metric::BOOKS).unwrap_or(0),
                        books_in_sync: stats.gauge(feed_metric::BOOKS_LIVE).unwrap_or(0),
                        resyncs: counter(feed_metric::RESYNCS),
                        gaps: counter(feed_metric::GAPS),
                    };
                    (venue.name().to_owned(), report)
                })
                .collect(),
            records: count(metric::RECORDS),
            opportunities: OpportunityReport {
                total: cross_venue + triangular + cross_quote,
                cross_venue,
                triangular,
                cross_quote,
            },
            denials: count(metric::DENIALS),
            latency_ns: LatencyReport {
                decode: decode.map_or_else(Percentiles::default, |h| percentiles(&h)),
                ring: stage(metric::RING_NS),
                detect: stage(metric::DETECT_NS),
                wire_to_decision: stage(metric::WIRE_NS),
                tick_to_order: trading::tick_to_order(self),
            },
            losses: LossReport { overruns: count(metric::OVERRUNS), gaps: count(metric::GAPS) },
            ..Report::default()
        }
    }
}

/// Returns the percentiles that are told everywhere.
#[must_use]
pub fn percentiles(histogram: &hdrhistogram::Histogram<u64>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    Percentiles {
        p50: histogram.value_at_quantile(0.5),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
        count: histogram.len(),
    }
}

/// Waits until every stage has passed, then arms as an operator would.
fn arm(
    config: &Config,
    options: &Options,
    begun: Instant,
    say: &impl Fn(&str),
    mut alive: impl FnMut() -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    loop {
        alive()?;
        if options.stop.load(Ordering::Relaxed) {
            return Err(DemoError::Stopped);
        }
        let stages = stages::check(config);
        if stages::is_ready(&stages) {
            break;
        }
        if SYNC_WITHIN < begun.elapsed() {
            let failed = stages.iter().filter(|stage| stage.verdict == stages::Verdict::Fail);
            let detail: Vec<String> =
                failed.map(|stage| format!("{} {}", stage.id, stage.detail)).collect();
            let seconds = SYNC_WITHIN.as_secs();
            return Err(DemoError::NotReady { seconds, detail: detail.join("; ") });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let page = latch::open(&config.run.dir, &config.run.state_dir)?;
    let act = Act { who: "demo", reason: "simulated venues" };
    latch::lower(&page, &config.run.state_dir, (Scope::Global, Level::Armed), &act)?;
    say(&format!("armed after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn pause(config: &Config) -> Result<(), DemoError> {
    let page = latch::open(&config.run.dir, &config.run.state_dir)?;
    let act = Act { who: "demo", reason: "the time is over" };
    let what = (Scope::Global, Level::Pause, Cause::Operator);
    latch::raise(&page, &config.run.state_dir, what, &act)?;
    Ok(())
}

/// Starts Prometheus on the run's metrics, and says how a person looks into the services.
fn look_into(
    services: &mut Services,
    config: &Config,
    say: &impl Fn(&str),
    mut alive: impl FnMut() -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    let begun = Instant::now();
    let place = config.run.dir.join(drain_role::WEB_FILE);
    let address = loop {
        alive()?;
        let text = fs::read_to_string(&place).unwrap_or_default();
        match text.trim().strip_prefix("http://") {
            Some(address) => break address.trim_end_matches('/').to_owned(),
            None if SYNC_WITHIN < begun.elapsed() => {
                let what = format!("no address of the dashboard in {}", place.display());
                return Err(io::Error::other(what).into());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    services.watch(&address)?;
    say("to look into them while they run:");
    services.how_to_look().iter().for_each(|line| say(&format!("  {line}")));
    Ok(())
}

fn watch(
    config: &Config,
    options: &Options,
    up: &mut std::process::Child,
    mut services: Option<&mut Services>,
    say: &impl Fn(&str),
) -> Result<(Report, f64), DemoError> {
    let stopped = || options.stop.load(Ordering::Relaxed);
    let ended = |up: &mut std::process::Child| match up.try_wait() {
        Ok(Some(status)) => Err(DemoError::UpEnded(status)),
        _ => Ok(()),
    };
    let begun = Instant::now();
    let mut stats = loop {
        ended(up)?;
        if stopped() {
            return Err(DemoError::Stopped);
        }
        match RunStats::open(config, Duration::from_millis(100)) {
            Ok(stats) => break stats,
            Err(error) if SYNC_WITHIN < begun.elapsed() => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    loop {
        ended(up)?;
        let (live, books) = stats.books();
        if live == books && books != 0 {
            say(&format!("all {books} books in sync after {:.1} s", begun.elapsed().as_secs_f64()));
            break;
        }
        if stopped() {
            return Err(DemoError::Stopped);
        }
        if SYNC_WITHIN < begun.elapsed() {
            return Err(DemoError::NotInSync { seconds: SYNC_WITHIN.as_secs(), live, books });
        }
        std::thread::sleep(Duration::from_millis(50));
        stats.reattach();
    }
    if config.run.mode != Mode::Observe {
        arm(config, options, begun, say, || ended(up))?;
    }
    if let Some(services) = &mut services {
        look_into(services, config, say, || ended(up))?;
    }
    // The drain is the last to start; who only looks at numbers need not wait for it.
    if let Ok(at) = fs::read_to_string(config.run.dir.join(drain_role::WEB_FILE)) {
        let token = config.web.as_ref().and_then(|web| web.token_file.as_deref());
        say(&format!(
            "the dashboard is at {} (the token of its buttons: {})",
            at.trim(),
            token.unwrap_or("none")
        ));
    }
    let running = Instant::now();
    while running.elapsed() < options.run_for && !stopped() {
        ended(up)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    // Asked while there is a target.
    let scraped =
        services.as_ref().and_then(|services| services.prometheus()).map(audit::prometheus);
    if config.run.mode != Mode::Observe {
        say("pausing; rounds under way are ended");
        pause(config)?;
        let until = Instant::now() + END_ROUNDS_WITHIN;
        while stats.engine().gauge(metric::ROUNDS_OPEN).unwrap_or(0) != 0 && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // A book may be in a resync at this very moment: it has a few seconds to come back.
    let grace = Instant::now() + Duration::from_secs(10);
    while stats.books().0 != stats.books().1 && Instant::now() < grace && !stopped() {
        std::thread::sleep(Duration::from_millis(50));
    }
    stats.reattach();
    let services = scraped.map(|prometheus| ServicesReport { prometheus, ..Default::default() });
    Ok((Report { services, ..stats.report() }, running.elapsed().as_secs_f64()))
}
