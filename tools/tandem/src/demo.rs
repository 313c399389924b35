//! `tandem demo`: simulated venues and everything else, one command, no keys, no databases.
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
use tandem_core::record::Venue;
use tandem_feeds::tile::{metric as feed_metric, record_schema, stats_name};
use tandem_shm::{Snapshot, StatsReader};
use tandem_sim::{Addresses, SimConfig};

use crate::config::{Config, ConfigError};
use crate::engine_tile::{self, metric};
use crate::replay::{self, ReplayError, ReplayReport};
use crate::supervisor;

/// All books must be in sync within this time.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

/// What the caller chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to run once all books are in sync.
    pub run_for: Duration,
    /// Seed of the simulated market.
    pub seed: u64,
    /// Directory of the run; made if missing.
    pub dir: PathBuf,
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
}

impl Report {
    /// Returns whether the demo showed what it should: books in sync and an identical replay.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.replay.identical
            && self.venues.values().all(|v| v.books_in_sync == v.books && 0 < v.books)
    }
}

/// Returns the configuration for simulated venues at these addresses.
#[must_use]
pub fn config_text(
    dir: &Path,
    addresses: &Addresses,
    symbols: &BTreeMap<String, Vec<String>>,
) -> String {
    // Institutional fee tiers: at retail fees of 60 bp a leg no dislocation of a sane size would pay.
    let fees = [("binance", 200, "received"), ("coinbase", 400, "quote"), ("kraken", 400, "quote")];
    let mut text = format!(
        "[run]\ndir = \"{}\"\nmode = \"observe\"\n\n\
         [engine]\nwait = \"park\"\nedge_min_ppm = 50\nedge_max_ppm = 30000\nedge_max_halt_s = 5\n\
         basis_ppm = 0\nnumeraires = [\"USD\", \"USDT\", \"USDC\"]\nlegs_max = 3\ncycles_max = 20000\n\
         window_levels = 100\nflicker_ms = 5\ndenial_ms = 1000\nupdate_ms = 10\ntimer_ms = 10\n\n\
         [journal]\nsegment_mib = 32\nsegments_max = 40\n",
        dir.display()
    );
    for venue in tandem_sim::Venue::ALL {
        let (Some(at), Some((_, fee, fee_in)), Some(symbols)) = (
            addresses.venue(venue),
            fees.iter().find(|fee| fee.0 == venue.name()),
            symbols.get(venue.name()),
        ) else {
            continue;
        };
        let port = at.tls.port();
        text.push_str(&format!(
            "\n[venue.{}]\nws_url = \"wss://127.0.0.1:{port}\"\nrest_url = \"https://127.0.0.1:{port}\"\n\
             tls_ca_file = \"{}\"\nsymbols = {symbols:?}\ntaker_fee_ppm = {fee}\nfee_in = \"{fee_in}\"\n\
             notional_max = {{ USD = \"20000\", USDT = \"20000\", USDC = \"20000\", BTC = \"0.4\" }}\n\
             slippage_ppm = 20\nstaleness_ppm_per_s = 200\nage_max_ms = 1500\norder_latency_ms = 20\n\
             wait = \"park\"\n",
            venue.name(),
            addresses.ca_path.display(),
        ));
    }
    text
}

/// Runs a demo.
pub fn run(options: &Options) -> Result<Report, DemoError> {
    let say = |text: &str| {
        if !options.quiet {
            eprintln!("{text}");
        }
    };
    fs::create_dir_all(&options.dir)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut sim_config = SimConfig::demo(options.seed);
    sim_config.ca_path = Some(options.dir.join("sim-ca.pem"));
    let symbols = sim_symbols(&sim_config);
    let sim = runtime.block_on(tandem_sim::start(sim_config))?;
    say(&format!(
        "simulated venues are up; faults can be injected at http://{}",
        sim.addresses().control
    ));

    let config_path = options.dir.join("tandem.toml");
    fs::write(&config_path, config_text(&options.dir, sim.addresses(), &symbols))?;
    let config = Config::load(&config_path)?;
    let mut up = Command::new(std::env::current_exe()?)
        .arg("up")
        .arg("--config")
        .arg(&config_path)
        .args(["--while-pid", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let outcome = watch(&config, options, &mut up, &say);
    supervisor::stop(&mut up);
    runtime.block_on(sim.shutdown());
    let (mut report, seconds) = outcome?;
    report.seconds = seconds;
    report.mode = config.run.mode.name().to_owned();

    let journal = config.journal_dir();
    say(&format!("replaying {}", journal.display()));
    let checked = tandem_shm::verify(&journal, record_schema()).map_err(ReplayError::from)?;
    report.journal = JournalReport {
        path: journal.clone(),
        records: checked.records,
        segments: checked.segments,
        bytes: checked.bytes,
    };
    let ReplayReport { identical, records, records_per_second, .. } = replay::verify(&journal)?;
    report.replay =
        ReplaySummary { identical: identical && checked.is_sound(), records, records_per_second };
    Ok(report)
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
        Ok(RunStats { engine: StatsReader::open(dir, engine_tile::STATS, within)?, feeds })
    }

    /// Follows tiles that were started again.
    pub fn reattach(&mut self) {
        let _ = self.engine.reattach();
        for (_, reader) in &mut self.feeds {
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
        feeds
            .chain(std::iter::once(("engine".to_owned(), &self.engine)))
            .filter(|(_, reader)| is_dead(reader))
            .map(|(tile, _)| tile)
            .collect()
    }

    /// Returns how many books are in sync, and how many there are.
    #[must_use]
    pub fn books(&self) -> (i64, i64) {
        self.feeds().iter().fold((0, 0), |(live, books), (_, stats)| {
            let gauge = |name| stats.gauge(name).unwrap_or(0);
            (live + gauge(feed_metric::BOOKS_LIVE), books + gauge(feed_metric::BOOKS))
        })
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

fn watch(
    config: &Config,
    options: &Options,
    up: &mut std::process::Child,
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
    let running = Instant::now();
    while running.elapsed() < options.run_for && !stopped() {
        ended(up)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    // A book may be in a resync at this very moment: it has a few seconds to come back.
    let grace = Instant::now() + Duration::from_secs(10);
    while stats.books().0 != stats.books().1 && Instant::now() < grace && !stopped() {
        std::thread::sleep(Duration::from_millis(50));
    }
    stats.reattach();
    Ok((stats.report(), running.elapsed().as_secs_f64()))
}
