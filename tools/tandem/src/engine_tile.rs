//! The engine tile: rings in, journal out.
//!
//! Invariant: what the engine consumed and what it put out stand in the journal in exactly that order,
//! with the engine's time in each record; so the journal replays to the same bytes. Nothing is consumed
//! that the journal has no room for. After an overrun or a restart of a feed its books are doubted first
//! and then taken over from its latest page, without the network.

use std::io;
use std::path::Path;
use std::time::Duration;

use tandem_core::account::{Balance, BalanceSource};
use tandem_core::engine::{Engine, OUTBOX_RECORDS, gap};
use tandem_core::episode::Outbox;
use tandem_core::instrument::AssetId;
use tandem_core::order::{NewOrder, RejectClass, Report};
use tandem_core::record::{Kind, Reason, Record, Venue, flag};
use tandem_core::units::Amount;
use tandem_drain::archive::checkpoint::{self, RestoreError};
use tandem_feeds::page::{self, Page};
use tandem_feeds::tile::{ENGINE_BELL, page_name, page_schema, record_schema, ring_name};
use tandem_shm::{
    Bell, Clock, ClockReader, CounterHandle, GaugeHandle, HistogramHandle, JournalError,
    JournalSpec, JournalWriter, LatestReader, Metric, Producer, Read, RingReader, ShmError,
    StatsWriter, WaitMode, Waiter, tsc,
};

use crate::config::{Config, Mode};
use crate::routes::{Routes, RoutesError};
use crate::run_number;
use crate::table::{self, Table, TableError};
use crate::time::now_ns;

/// Records taken from one ring before the next one has its turn.
const RECORDS_PER_TURN: usize = 1_024;
/// The longest sleep in `park`: feeds and gateways wake it at once; the level word and timers do not.
const PARK: Duration = Duration::from_millis(1);
/// Between two looks at the feeds' life.
const WATCH_NS: i64 = 5_000_000;
/// Room in the journal that is kept free: the largest step's outputs and its input.
const ROOM_MIN: usize = OUTBOX_RECORDS + 64;
/// How long a tile waits for the feeds to appear at start.
const ATTACH: Duration = Duration::from_secs(30);
/// Looks of the watch between two valuations of the exposure: a quarter of a second.
const EXPOSURE_EVERY: u32 = 50;
/// A turn of the loop that takes longer is a stall.
const STALL_US: u64 = 200;
/// Number of the first gateway's ring in the journal; feeds begin at 0.
const REPORT_RINGS: u16 = 16;
/// Name of the engine's stats.
pub const STATS: &str = "engine_stats";
/// Name of the clock page.
pub const CLOCK: &str = "clock";

/// Names of the engine's metrics.
pub mod metric {
    /// Records consumed.
    pub const RECORDS: &str = "engine_record_total";
    /// Batches decided.
    pub const BATCHES: &str = "engine_batch_total";
    /// Candidates walked exactly.
    pub const EVALUATIONS: &str = "engine_evaluation_total";
    /// Opportunities opened, by kind.
    pub const OPPORTUNITIES: [&str; 3] = [
        "engine_opportunity_cross_venue_total",
        "engine_opportunity_triangular_total",
        "engine_opportunity_cross_quote_total",
    ];
    /// Candidates denied.
    pub const DENIALS: &str = "engine_denial_total";
    /// Instruments halted for an unbelievable edge.
    pub const HALTS: &str = "engine_halt_total";
    /// Records that made no sense.
    pub const REJECTED: &str = "engine_rejected_total";
    /// Overruns of a ring.
    pub const OVERRUNS: &str = "engine_overrun_total";
    /// Records lost in overruns.
    pub const LOST: &str = "engine_lost_total";
    /// Gaps told to the engine: overruns, dead feeds, full journal.
    pub const GAPS: &str = "engine_gap_total";
    /// Turns without room in the journal.
    pub const JOURNAL_FULL: &str = "engine_journal_full_total";
    /// Outputs that found no room in the outbox or the journal.
    pub const OUTPUTS_LOST: &str = "engine_output_lost_total";
    /// Opportunities open now.
    pub const OPEN: &str = "engine_opportunity_open_count";
    /// Rounds under way.
    pub const ROUNDS_OPEN: &str = "engine_round_open_count";
    /// Orders without an end.
    pub const ORDERS_OPEN: &str = "engine_order_open_count";
    /// Balances that are not what their venue last said.
    pub const DIFFERING: &str = "engine_balance_differing_count";
    /// By venue: when the oldest rules in use were told, UNIX ns; 0 where some never were.
    pub const RULES_TOLD_NS: [&str; 3] = [
        "engine_rules_told_binance_ns",
        "engine_rules_told_coinbase_ns",
        "engine_rules_told_kraken_ns",
    ];
    /// The host's clock against the venues', ns.
    pub const CLOCK_OFFSET_NS: &str = "engine_clock_offset_ns";
    /// Whether enough venues were heard to tell: 1 or 0.
    pub const CLOCK_SYNCHRONISED: &str = "engine_clock_synchronised";
    /// Worst-case exposure as a share of its limit, ppm: the largest of the total and the venues'; -1 where
    /// it cannot be valued.
    pub const EXPOSURE_PPM: &str = "engine_exposure_ppm";
    /// Worst-case exposure in total and by venue, in millionths of the numeraire; -1 where it cannot be
    /// valued.
    pub const EXPOSURE_MICRO: [&str; 4] = [
        "engine_exposure_micro",
        "engine_exposure_binance_micro",
        "engine_exposure_coinbase_micro",
        "engine_exposure_kraken_micro",
    ];
    /// What the rounds of the day brought, in millionths of the numeraire.
    pub const PNL_REALISED_MICRO: &str = "engine_pnl_realised_micro";
    /// What all flows of the day are worth, marked with the worse side, in millionths of the numeraire.
    pub const PNL_MARKED_MICRO: &str = "engine_pnl_marked_micro";
    /// How much of each limit is used, ppm; -1 where it cannot be told. Over a million is a breach.
    pub const LIMIT_USED_PPM: [&str; 11] = [
        "engine_limit_exposure_ppm",
        "engine_limit_exposure_binance_ppm",
        "engine_limit_exposure_coinbase_ppm",
        "engine_limit_exposure_kraken_ppm",
        "engine_limit_open_orders_ppm",
        "engine_limit_unknown_orders_ppm",
        "engine_limit_rounds_ppm",
        "engine_limit_loss_day_ppm",
        "engine_limit_loss_5min_ppm",
        "engine_limit_drawdown_ppm",
        "engine_limit_dust_ppm",
    ];
    /// Turns of the loop that took longer than 200 us.
    pub const STALLS: &str = "engine_stall_total";
    /// By venue: records in the feed's ring that were not taken at the last look.
    pub const RING_DEPTH: [&str; 3] = [
        "engine_ring_depth_binance_count",
        "engine_ring_depth_coinbase_count",
        "engine_ring_depth_kraken_count",
    ];
    /// By venue: overruns of the feed's ring since the engine's start.
    pub const RING_OVERRUNS: [&str; 3] = [
        "engine_ring_overrun_binance_count",
        "engine_ring_overrun_coinbase_count",
        "engine_ring_overrun_kraken_count",
    ];
    /// Next sequence of the journal.
    pub const JOURNAL_SEQ: &str = "engine_journal_seq";
    /// From publishing to taking, ns.
    pub const RING_NS: &str = "engine_ring_ns";
    /// One decision at the end of a batch, ns.
    pub const DETECT_NS: &str = "engine_detect_ns";
    /// From the read's return at the socket to the decision, ns.
    pub const WIRE_NS: &str = "engine_wire_to_decision_ns";
    /// From the kernel's receive stamp to the decision, ns.
    pub const KERNEL_NS: &str = "engine_kernel_to_decision_ns";
}

/// Why the engine tile stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineTileError {
    /// Shared memory.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// Journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What earlier runs left.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Instruments or parameters.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Files.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Trading was refused.
    #[error(transparent)]
    Routes(#[from] RoutesError),
}

/// One feed as the engine sees it.
struct Source {
    venue: Venue,
    index: u16,
    ring: RingReader<Record>,
    pages: LatestReader,
    /// By id: ring records up to this sequence are in the page that was taken over.
    skip: Vec<(u16, u64)>,
    /// Books are to be taken over from the pages.
    resync: bool,
    /// Its producer was seen dead or closed, and the engine was told.
    down: bool,
    in_batch: bool,
    /// Overruns of its ring.
    overruns: i64,
}

struct Stats {
    writer: StatsWriter,
    counters: Vec<CounterHandle>,
    told: [u64; COUNTERS],
    open: GaugeHandle,
    rounds_open: GaugeHandle,
    orders_open: GaugeHandle,
    differing: GaugeHandle,
    rules_told_ns: [GaugeHandle; 3],
    clock_offset_ns: GaugeHandle,
    clock_synchronised: GaugeHandle,
    exposure_ppm: GaugeHandle,
    exposure_micro: [GaugeHandle; 4],
    pnl_micro: [GaugeHandle; 2],
    limit_used_ppm: [GaugeHandle; metric::LIMIT_USED_PPM.len()],
    ring_depth: [GaugeHandle; 3],
    ring_overruns: [GaugeHandle; 3],
    /// Updates until the exposure is valued again.
    until_exposure: u32,
    journal_seq: GaugeHandle,
    ring_ns: HistogramHandle,
    detect_ns: HistogramHandle,
    wire_ns: HistogramHandle,
    kernel_ns: HistogramHandle,
}

const COUNTERS: usize = 15;

/// What only the tile counts.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    overruns: u64,
    lost: u64,
    gaps: u64,
    journal_full: u64,
    outputs_lost: u64,
    stalls: u64,
}

impl Stats {
    fn create(dir: &Path) -> Result<Stats, ShmError> {
        let [cross_venue, triangular, cross_quote] = metric::OPPORTUNITIES;
        let counters: [&str; COUNTERS] = [
            metric::RECORDS,
            metric::BATCHES,
            metric::EVALUATIONS,
            cross_venue,
            triangular,
            cross_quote,
            metric::DENIALS,
            metric::HALTS,
            metric::REJECTED,
            metric::OVERRUNS,
            metric::LOST,
            metric::GAPS,
            metric::JOURNAL_FULL,
            metric::OUTPUTS_LOST,
            metric::STALLS,
        ];
        let mut metrics: Vec<Metric> =
            counters.iter().map(|name| Metric::counter(*name, "count")).collect();
        metrics.push(Metric::gauge(metric::OPEN, "opportunity"));
        metrics.push(Metric::gauge(metric::ROUNDS_OPEN, "round"));
        metrics.push(Metric::gauge(metric::ORDERS_OPEN, "order"));
        metrics.push(Metric::gauge(metric::DIFFERING, "balance"));
        metrics.extend(metric::RULES_TOLD_NS.map(|name| Metric::gauge(name, "ns")));
        metrics.push(Metric::gauge(metric::CLOCK_OFFSET_NS, "ns"));
        metrics.push(Metric::gauge(metric::CLOCK_SYNCHRONISED, "flag"));
        metrics.push(Metric::gauge(metric::EXPOSURE_PPM, "ppm"));
        metrics.extend(metric::EXPOSURE_MICRO.map(|name| Metric::gauge(name, "1e-6 numeraire")));
        let pnl = [metric::PNL_REALISED_MICRO, metric::PNL_MARKED_MICRO];
        metrics.extend(pnl.map(|name| Metric::gauge(name, "1e-6 numeraire")));
        metrics.extend(metric::LIMIT_USED_PPM.map(|name| Metric::gauge(name, "ppm")));
        metrics.extend(metric::RING_DEPTH.map(|name| Metric::gauge(name, "record")));
        metrics.extend(metric::RING_OVERRUNS.map(|name| Metric::gauge(name, "overrun")));
        metrics.push(Metric::gauge(metric::JOURNAL_SEQ, "record"));
        let histograms = [metric::RING_NS, metric::DETECT_NS, metric::WIRE_NS, metric::KERNEL_NS];
        metrics.extend(histograms.map(|name| Metric::histogram(name, "ns")));
        let mut writer = StatsWriter::create(dir, STATS, &metrics)?;
        let declared = "a metric that was declared above";
        Ok(Stats {
            counters: counters.iter().map(|name| writer.counter(name).expect(declared)).collect(),
            told: [0; COUNTERS],
            open: writer.gauge(metric::OPEN).expect(declared),
            rounds_open: writer.gauge(metric::ROUNDS_OPEN).expect(declared),
            orders_open: writer.gauge(metric::ORDERS_OPEN).expect(declared),
            differing: writer.gauge(metric::DIFFERING).expect(declared),
            rules_told_ns: metric::RULES_TOLD_NS.map(|name| writer.gauge(name).expect(declared)),
            clock_offset_ns: writer.gauge(metric::CLOCK_OFFSET_NS).expect(declared),
            clock_synchronised: writer.gauge(metric::CLOCK_SYNCHRONISED).expect(declared),
            exposure_ppm: writer.gauge(metric::EXPOSURE_PPM).expect(declared),
            exposure_micro: metric::EXPOSURE_MICRO.map(|name| writer.gauge(name).expect(declared)),
            pnl_micro: pnl.map(|name| writer.gauge(name).expect(declared)),
            limit_used_ppm: metric::LIMIT_USED_PPM.map(|name| writer.gauge(name).expect(declared)),
            ring_depth: metric::RING_DEPTH.map(|name| writer.gauge(name).expect(declared)),
            ring_overruns: metric::RING_OVERRUNS.map(|name| writer.gauge(name).expect(declared)),
            until_exposure: 0,
            journal_seq: writer.gauge(metric::JOURNAL_SEQ).expect(declared),
            ring_ns: writer.histogram(metric::RING_NS).expect(declared),
            detect_ns: writer.histogram(metric::DETECT_NS).expect(declared),
            wire_ns: writer.histogram(metric::WIRE_NS).expect(declared),
            kernel_ns: writer.histogram(metric::KERNEL_NS).expect(declared),
            writer,
        })
    }

    fn update(&mut self, engine: &Engine, counts: &Counts, sources: &[Source], journal_seq: u64) {
        let e = engine.counts();
        let now = [
            e.records,
            e.batches,
            e.evaluations,
            e.opportunities[0],
            e.opportunities[1],
            e.opportunities[2],
            e.denials,
            e.halts,
            e.rejected,
            counts.overruns,
            counts.lost,
            counts.gaps,
            counts.journal_full,
            counts.outputs_lost,
            counts.stalls,
        ];
        for ((handle, told), now) in self.counters.iter_mut().zip(&mut self.told).zip(now) {
            handle.add(now - *told);
            *told = now;
        }
        self.open.set(engine.open_count() as i64);
        if let Some(desk) = engine.desk() {
            self.rounds_open.set(desk.rounds().iter().count() as i64);
            self.orders_open.set(desk.orders().open_count() as i64);
            self.differing.set(desk.ledger().differing_count() as i64);
            for (venue, gauge) in Venue::ALL.into_iter().zip(&mut self.rules_told_ns) {
                let of_venue = engine.universe().instruments.iter().enumerate();
                let of_venue = of_venue.filter(|(_, rules)| rules.venue == venue);
                let told = of_venue.map(|(id, _)| desk.controls().rules_told_ns(id as u16));
                gauge.set(told.min().unwrap_or(0));
            }
            // A sum over assets, rounds and orders: a few times a second is enough for whoever watches it.
            self.until_exposure = self.until_exposure.checked_sub(1).unwrap_or_else(|| {
                self.weigh(engine);
                EXPOSURE_EVERY
            });
        }
        for source in sources {
            let at = source.venue.idx();
            self.ring_depth[at].set(i64::try_from(source.ring.lag()).unwrap_or(i64::MAX));
            self.ring_overruns[at].set(source.overruns);
        }
        self.journal_seq.set(journal_seq as i64);
        self.writer.beat(tsc());
    }

    /// Exposure, results and how near each limit is.
    fn weigh(&mut self, engine: &Engine) {
        let Some(view) = engine.view() else { return };
        let limits = view.limits;
        let exponent = view.universe.assets[usize::from(limits.numeraire.0)].exponent;
        let unit = 10_i128.pow(u32::from(exponent.min(18)));
        let micro = |amount: i128| {
            let scaled = amount.saturating_mul(1_000_000) / unit;
            i64::try_from(scaled).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
        };
        let [binance, coinbase, kraken] = limits.venues.each_ref().map(|venue| venue.exposure_max);
        let scopes = [None, Some(Venue::Binance), Some(Venue::Coinbase), Some(Venue::Kraken)];
        let exposure = scopes.map(|venue| view.exposure_worth(venue, &[]));
        for (gauge, worth) in self.exposure_micro.iter_mut().zip(exposure) {
            gauge.set(worth.map_or(-1, micro));
        }
        let most = [limits.exposure_max, binance, coinbase, kraken];
        let [total, ..] = exposure;
        let shares = std::array::from_fn::<i64, 4, _>(|at| used_ppm(exposure[at], most[at]));
        let largest = shares.iter().copied().max().unwrap_or(-1);
        // One that cannot be valued leaves the whole unknown.
        let is_known = total.is_some() && shares.iter().all(|share| 0 <= *share);
        self.exposure_ppm.set(if is_known { largest } else { -1 });

        let pnl = view.ledger.pnl();
        let marked = view.marked().unwrap_or(pnl.marked.into());
        self.pnl_micro[0].set(micro(pnl.realised.into()));
        self.pnl_micro[1].set(micro(marked));
        let at_marks = i64::try_from(marked).unwrap_or(i64::MIN);
        let lost = |result: i64| Some(-i128::from(result));
        let result_5min = view.ledger.result_5min(at_marks, view.now_ns);
        let drawdown = at_marks.saturating_sub(pnl.peak.max(at_marks));
        let dust = limits.assets.iter().enumerate().map(|(at, of)| {
            let dust = view.ledger.dust(AssetId(at as u16)).saturating_abs();
            used_ppm(Some(dust), of.dust_max.0)
        });
        let count = |n: usize| Some(n as i128);
        let used = [
            shares[0],
            shares[1],
            shares[2],
            shares[3],
            used_ppm(count(view.orders.open_count()), limits.orders_max),
            used_ppm(count(view.orders.unknown_count(None)), limits.unknown_max),
            used_ppm(count(view.rounds.entered_count()), limits.rounds_max as i64),
            used_ppm(lost(at_marks), limits.loss_day_max),
            used_ppm(lost(result_5min), limits.loss_5min_max),
            used_ppm(lost(drawdown), limits.drawdown_max),
            dust.max().unwrap_or(0),
        ];
        for (gauge, used) in self.limit_used_ppm.iter_mut().zip(used) {
            gauge.set(used);
        }
    }
}

/// A limit's use in ppm; -1 where it is not known.
fn used_ppm(used: Option<i128>, most: i64) -> i64 {
    let share = used
        .and_then(|used| used.checked_mul(1_000_000))
        .map(|used| used / i128::from(most.max(1)));
    share.map_or(-1, |share| i64::try_from(share.max(0)).unwrap_or(i64::MAX))
}

/// The shared clock where there is one, else the host's.
enum TileClock {
    Shared(ClockReader),
    Own(Clock),
}

impl TileClock {
    fn open(dir: &Path) -> TileClock {
        match ClockReader::open(dir, CLOCK, Duration::ZERO) {
            Ok(reader) if reader.producer(tsc()).is_live() => TileClock::Shared(reader),
            _ => TileClock::Own(Clock::calibrate()),
        }
    }

    fn now_ns(&mut self, at_tsc: u64) -> i64 {
        match self {
            TileClock::Shared(reader) => reader.now_ns(at_tsc),
            TileClock::Own(_) => now_ns(),
        }
    }

    fn refresh(&mut self, dir: &Path) {
        if let TileClock::Shared(reader) = self {
            reader.refresh();
            let alive = reader.producer(tsc()).is_live();
            if !alive && !matches!(reader.reattach(), Ok(true)) {
                // The page's writer is gone: the host's clock is right, only dearer.
                *self = TileClock::Own(*reader.clock());
            }
        } else if let Ok(reader) = ClockReader::open(dir, CLOCK, Duration::ZERO)
            && reader.producer(tsc()).is_live()
        {
            *self = TileClock::Shared(reader);
        }
    }

    fn clock(&self) -> &Clock {
        match self {
            TileClock::Shared(reader) => reader.clock(),
            TileClock::Own(clock) => clock,
        }
    }
}

/// The engine tile.
pub struct EngineTile {
    dir: std::path::PathBuf,
    engine: Engine,
    /// Where orders go and reports come from; nothing in observe mode.
    routes: Option<Routes>,
    /// Orders that the journal had no room for: they were not sent, and the engine is told so.
    unsent: Vec<Record>,
    /// What the routes want told, before it is.
    told: Vec<Record>,
    out: Outbox,
    sources: Vec<Source>,
    journal: JournalWriter<Record>,
    clock: TileClock,
    stats: Stats,
    counts: Counts,
    waiter: Waiter,
    /// Wakes this tile; only one that parks has it.
    bell: Option<Bell>,
    words: Vec<u64>,
    first_source: usize,
    timer_ns: i64,
    next_timer_ns: i64,
    next_watch_ns: i64,
    next_clock_ns: i64,
    full: bool,
    /// When the last turn began, ticks, if it found something to do; else 0.
    busy_since: u64,
    stall_ticks: u64,
}

/// Returns what earlier runs of the engine leave to this one: their open orders, ledger and results; for
/// a paper account that has none, what it begins with.
fn carried(config: &Config, table: &Table, journal: &Path) -> Result<Vec<Record>, EngineTileError> {
    let mut records = checkpoint::restore(journal, &table.universe)?;
    if config.run.mode == Mode::Paper && records.is_empty() {
        let limits = config.limits.as_ref();
        let opening = limits.map(|limits| limits.paper_opening(&table.universe));
        for (venue, asset, total) in
            opening.transpose().map_err(TableError::from)?.unwrap_or_default()
        {
            let (held, source) = (Amount(0), BalanceSource::Opening);
            records.push(Balance { venue, asset, total, held, source }.record(true));
        }
    }
    Ok(records)
}

impl EngineTile {
    /// Attaches to the feeds and opens or continues the journal.
    pub fn new(config: &Config, table: &Table) -> Result<EngineTile, EngineTileError> {
        let dir = config.run.dir.clone();
        // The row first: a second engine must not touch anything.
        let routes = match config.run.mode {
            Mode::Observe => None,
            Mode::Paper | Mode::Live => Some(Routes::open(config)?),
        };
        let mut setup = table.setup.clone();
        if routes.is_some() {
            setup.run = run_number::next(&config.run.state_dir)?;
        }
        let table = &Table::build(setup, "this run")?;
        let engine = table.engine()?;
        let stats = Stats::create(&dir)?;
        let spec = JournalSpec {
            segment_bytes: config.journal.segment_mib << 20,
            segments_max: config.journal.segments_max,
            ..JournalSpec::new(record_schema())
        };
        let journal_dir = config.journal_dir();
        let mut journal = match JournalWriter::resume(&journal_dir, &spec) {
            Err(JournalError::Missing { .. }) => JournalWriter::create(&journal_dir, &spec)?,
            other => other?,
        };
        for note in journal.notes() {
            tracing::warn!(%note, "journal");
        }
        // The first segment is made ready by the journal's helper.
        let ready_by = std::time::Instant::now() + ATTACH;
        while journal.room() < ROOM_MIN && std::time::Instant::now() < ready_by {
            std::thread::sleep(Duration::from_millis(1));
        }
        let carried = match config.run.mode {
            Mode::Observe => Vec::new(),
            Mode::Paper | Mode::Live => carried(config, table, &journal_dir)?,
        };
        for record in table::to_records(&table.setup)? {
            if journal.append(&record).is_err() {
                return Err(io::Error::other(
                    "the journal has no room for the configuration: raise journal.segments_max, or \
                     move the old journal away",
                )
                .into());
            }
        }
        let window = table.params.window_levels;
        let mut sources = Vec::new();
        for (index, (venue, _)) in config.venues().into_iter().enumerate() {
            let name = venue.name();
            let ring = RingReader::open(&dir, &ring_name(name), record_schema(), ATTACH)?;
            let pages = LatestReader::open(&dir, &page_name(name), page_schema(), ATTACH)?;
            let skip = table.of_venue(venue).iter().map(|i| (i.id, 0)).collect();
            sources.push(Source {
                venue,
                index: index as u16,
                ring,
                pages,
                skip,
                resync: true,
                down: false,
                in_batch: false,
                overruns: 0,
            });
        }
        let clock = TileClock::open(&dir);
        let stall_ticks = clock.clock().ticks_per_ms() * STALL_US / 1_000;
        let wait = config.engine.wait_mode();
        let bell = match wait {
            WaitMode::Park => Some(Bell::create(&dir, ENGINE_BELL)?),
            WaitMode::Spin | WaitMode::Yield => None,
        };
        let mut tile = EngineTile {
            dir,
            engine,
            routes,
            unsent: Vec::with_capacity(64),
            told: Vec::with_capacity(16),
            out: Outbox::new(OUTBOX_RECORDS),
            sources,
            journal,
            clock,
            stats,
            counts: Counts::default(),
            waiter: Waiter::new(wait),
            bell,
            words: vec![0; page::words(window)],
            first_source: 0,
            timer_ns: i64::from(config.engine.timer_ms) * 1_000_000,
            next_timer_ns: 0,
            next_watch_ns: 0,
            next_clock_ns: 0,
            full: false,
            busy_since: 0,
            stall_ticks,
        };
        for record in carried {
            let engine_ts_ns = tile.clock.now_ns(tsc());
            tile.feed(&Record { engine_ts_ns, ..record });
        }
        Ok(tile)
    }

    /// One turn over all rings and timers; waits where there was nothing.
    pub fn turn(&mut self) -> Result<(), EngineTileError> {
        let now = tsc();
        let now_ns = self.clock.now_ns(now);
        // The last turn's end is this one's begin, where it did not sleep.
        if self.busy_since != 0 && self.stall_ticks < now.saturating_sub(self.busy_since) {
            self.counts.stalls += 1;
        }
        self.busy_since = 0;
        if self.next_watch_ns <= now_ns {
            self.next_watch_ns = now_ns + WATCH_NS;
            self.watch(now_ns)?;
        }
        if self.journal.room() < ROOM_MIN {
            self.pause();
            return Ok(());
        }
        if std::mem::take(&mut self.full) {
            self.resume_after_full();
        }
        let mut busy = self.attend(now_ns);
        let count = self.sources.len();
        self.first_source = (self.first_source + 1) % count;
        for offset in 0..count {
            busy |= self.drain((self.first_source + offset) % count);
        }
        if self.next_timer_ns <= now_ns {
            self.next_timer_ns = now_ns + self.timer_ns;
            let timer = Record::new(Kind::Timer, 0, u16::MAX, [0; 4]);
            self.feed(&Record { engine_ts_ns: now_ns, ..timer });
        }
        if busy {
            self.waiter.reset();
            self.busy_since = now;
        } else {
            self.idle();
        }
        Ok(())
    }

    /// Waits where a turn found nothing; asleep, a feed or a gateway that publishes wakes it.
    fn idle(&mut self) {
        let Some(bell) = &self.bell else { return self.waiter.idle() };
        bell.lie_down();
        // One whose books are to be taken over waits for its page, not for its ring.
        let waits = |source: &Source| source.resync || source.ring.is_empty();
        let nothing =
            self.sources.iter().all(waits) && self.routes.as_ref().is_none_or(Routes::is_empty);
        if nothing {
            bell.sleep(PARK);
        }
        bell.get_up();
    }

    /// Begins no new rounds from here on.
    pub fn pause_trading(&self) {
        if let Some(routes) = &self.routes {
            routes.pause();
        }
    }

    /// Returns whether a round or an order is under way.
    #[must_use]
    pub fn is_trading(&self) -> bool {
        self.engine.desk().is_some_and(|desk| {
            desk.rounds().iter().next().is_some() || desk.orders().open_count() != 0
        })
    }

    /// Marks everything closed, so that readers know this was no crash.
    pub fn close(mut self) -> Result<(), EngineTileError> {
        if let Some(routes) = self.routes.take() {
            routes.close();
        }
        self.stats.update(&self.engine, &self.counts, &self.sources, self.journal.next_seq());
        self.stats.writer.close();
        self.journal.close()?;
        Ok(())
    }

    /// What comes before any market data: the level, then what the gateways report.
    fn attend(&mut self, now_ns: i64) -> bool {
        let Some(routes) = &mut self.routes else { return false };
        let mut busy = false;
        if let Some(level) = routes.level_change() {
            self.feed(&Record { engine_ts_ns: now_ns, ..level });
            busy = true;
        }
        let Some(routes) = &mut self.routes else { return busy };
        routes.echo();
        for gateway in 0..routes.gateway_count() {
            for _ in 0..RECORDS_PER_TURN {
                if self.journal.room() < ROOM_MIN {
                    return busy;
                }
                let Some(record) = self.routes.as_mut().and_then(|routes| routes.poll(gateway))
                else {
                    break;
                };
                busy = true;
                let ring = REPORT_RINGS + gateway as u16;
                let engine_ts_ns = self.clock.now_ns(tsc());
                self.feed(&Record { engine_ts_ns, ring, ring_seq: record.seq, ..record });
            }
        }
        while let Some(order) = self.unsent.pop() {
            let Some(new) = NewOrder::read(&order) else { continue };
            let report = Report::Reject { class: RejectClass::NotSent, code: 0 };
            let record = report.record(new.venue, new.instrument, new.run, new.key);
            self.feed(&Record { engine_ts_ns: now_ns, ..record });
        }
        busy
    }

    /// Takes what a ring has, whole batches where possible; returns whether there was anything.
    fn drain(&mut self, source: usize) -> bool {
        if self.sources[source].resync && !self.take_over(source) {
            return false;
        }
        let taken = tsc();
        let taken_ns = self.clock.now_ns(taken);
        let mut count = 0;
        // A batch that began is finished before another ring has its turn, so that the engine rarely
        // meets half a message; the bound only keeps a broken producer from holding the turn for ever.
        while count < RECORDS_PER_TURN
            || (self.sources[source].in_batch && count < 64 * RECORDS_PER_TURN)
        {
            if self.journal.room() < ROOM_MIN {
                break;
            }
            let from = &mut self.sources[source];
            match from.ring.poll() {
                Read::Item(record) => {
                    count += 1;
                    from.in_batch = !record.has(flag::LAST);
                    // The page that was taken over holds the book, and only the book: rules, status
                    // and life are always taken from the ring.
                    let is_book = matches!(
                        record.kind(),
                        Some(Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState)
                    );
                    let known = from.skip.iter().find(|(id, _)| *id == record.instrument);
                    if is_book && known.is_some_and(|(_, upto)| record.seq <= *upto) {
                        continue;
                    }
                    let ring_ticks = taken.saturating_sub(record.pub_tsc);
                    self.stats.ring_ns.record(self.clock.clock().ticks_to_ns(ring_ticks));
                    let stamped = Record {
                        ring: from.index,
                        ring_seq: record.seq,
                        engine_ts_ns: taken_ns,
                        ..record
                    };
                    if let Some(routes) = &mut self.routes {
                        routes.heard(&stamped);
                    }
                    self.feed_timed(&stamped);
                }
                Read::Empty => break,
                Read::Overrun { lost } => {
                    self.counts.overruns += 1;
                    from.overruns += 1;
                    self.counts.lost += lost;
                    let position = i64::try_from(from.ring.position()).unwrap_or(i64::MAX);
                    from.resync = true;
                    from.in_batch = false;
                    let (venue, lost) = (from.venue, i64::try_from(lost).unwrap_or(i64::MAX));
                    self.tell_gap(venue, Reason::Overrun, position.saturating_sub(lost), lost);
                    break;
                }
            }
        }
        count != 0
    }

    /// One input: into the journal, into the engine, its outputs into the journal.
    fn feed(&mut self, record: &Record) {
        // There is room: it was looked for before the record was taken.
        let kept = self.journal.append(record).or_else(|_| self.journal.append_reserved(record));
        if kept.is_err() {
            self.full = true;
            return;
        }
        let lost = self.out.lost();
        self.engine.step(record, &mut self.out);
        self.counts.outputs_lost += self.out.lost() - lost;
        for output in self.out.records() {
            let kept = self.journal.append(output).is_ok();
            if !kept {
                self.counts.outputs_lost += 1;
            }
            let Some(routes) = &mut self.routes else { continue };
            match output.kind() {
                // Paper orders go nowhere: the engine fills them itself.
                Some(Kind::OrderNew | Kind::OrderCancel | Kind::OrderQuery)
                    if routes.is_paper() => {}
                // An intent that is not in the journal does not leave; the engine hears so.
                Some(Kind::OrderNew) if !kept || !routes.send(output) => self.unsent.push(*output),
                // A cancel or a question makes nothing worse: it leaves in any case.
                Some(Kind::OrderCancel | Kind::OrderQuery) => {
                    let _ = routes.send(output);
                }
                Some(Kind::ControlLevel) if output.instrument == u16::MAX => routes.raise(output),
                _ => {}
            }
        }
        self.out.clear();
    }

    fn feed_timed(&mut self, record: &Record) {
        if !record.has(flag::LAST) {
            self.feed(record);
            return;
        }
        let begun = tsc();
        self.feed(record);
        let done = tsc();
        let clock = self.clock.clock();
        self.stats.detect_ns.record(clock.ticks_to_ns(done.saturating_sub(begun)));
        if record.recv_tsc != 0 {
            let ticks = done.saturating_sub(record.recv_tsc);
            self.stats.wire_ns.record(clock.ticks_to_ns(ticks));
            let since = record.engine_ts_ns - record.recv_ts_ns;
            self.stats.kernel_ns.record(u64::try_from(since).unwrap_or(0));
        }
    }

    fn tell_gap(&mut self, venue: Venue, reason: Reason, from: i64, count: i64) {
        self.counts.gaps += 1;
        let engine_ts_ns = self.clock.now_ns(tsc());
        self.feed(&Record { engine_ts_ns, ..gap(venue, reason, from, count) });
    }

    /// Takes over a feed's books from its pages; false where they are not current yet.
    fn take_over(&mut self, source: usize) -> bool {
        let from = &mut self.sources[source];
        let entries = from.skip.len();
        // The last entry says up to which sequence all others are current.
        let Some(2) = from.pages.read(entries, &mut self.words) else { return false };
        let (current_seq, epoch) = (self.words[0], self.words[1]);
        if epoch != from.ring.epoch() & 0xffff || current_seq.wrapping_add(1) < from.ring.position()
        {
            return false;
        }
        let mut pages: Vec<Page> = Vec::with_capacity(entries);
        for slot in 0..entries {
            // The handler writes every entry before its first turn: one that cannot be read is being
            // written, or its writer died at it. Both mean: not yet.
            let Some(count) = from.pages.read(slot, &mut self.words) else { return false };
            let Some(page) = page::decode(&self.words[..count]) else { return false };
            // The page says whose book it is; one that is not of this venue is nobody's.
            if let Some(skip) = from.skip.iter_mut().find(|(id, _)| *id == page.instrument) {
                skip.1 = page.as_of_seq.max(current_seq);
                pages.push(page);
            }
        }
        // All of it or nothing: a takeover that ends in the middle leaves half a book.
        let records: usize =
            pages.iter().map(|page| 3 + page.sides.iter().map(Vec::len).sum::<usize>()).sum();
        if self.journal.room() < ROOM_MIN + records {
            return false;
        }
        let from = &mut self.sources[source];
        from.resync = false;
        from.down = false;
        let (venue, index) = (from.venue, from.index);
        let engine_ts_ns = self.clock.now_ns(tsc());
        for page in &pages {
            for record in page.records(venue) {
                self.feed(&Record { engine_ts_ns, ring: index, ..record });
            }
        }
        true
    }

    /// Looks after the feeds' life, the clock and the stats.
    fn watch(&mut self, now_ns: i64) -> Result<(), EngineTileError> {
        let at = tsc();
        if self.next_clock_ns <= now_ns {
            self.next_clock_ns = now_ns + 50_000_000;
            self.clock.refresh(&self.dir);
        }
        let ticks_per_ms = self.clock.clock().ticks_per_ms();
        for source in 0..self.sources.len() {
            let from = &mut self.sources[source];
            let venue = from.venue;
            if from.resync {
                // A new handler's page comes with its ring, but not in the same moment.
                let _ = from.pages.reattach();
            }
            match from.ring.producer(at, ticks_per_ms) {
                Producer::Live { .. } | Producer::Suspect { .. } => {}
                Producer::Closed | Producer::Dead { .. } if !from.down => {
                    from.down = true;
                    self.tell_gap(venue, Reason::Producer, 0, 0);
                }
                Producer::Closed | Producer::Dead { .. } => self.reattach(source),
                Producer::Superseded { .. } => {
                    if !self.sources[source].down {
                        self.sources[source].down = true;
                        self.tell_gap(venue, Reason::Producer, 0, 0);
                    }
                    self.reattach(source);
                }
            }
        }
        self.stats.update(&self.engine, &self.counts, &self.sources, self.journal.next_seq());
        self.journal.beat(at);
        if let Some(routes) = &mut self.routes {
            routes.beat(now_ns);
            let told = &mut self.told;
            routes.watch(now_ns, ticks_per_ms, |record| told.push(record));
            for clock in told.iter().filter(|record| record.kind() == Some(Kind::ClockState)) {
                self.stats.clock_offset_ns.set(clock.data[0]);
                self.stats.clock_synchronised.set(clock.data[2]);
            }
            for at in 0..self.told.len() {
                let record = self.told[at];
                self.feed(&Record { engine_ts_ns: now_ns, ..record });
            }
            self.told.clear();
        }
        Ok(())
    }

    fn reattach(&mut self, source: usize) {
        let from = &mut self.sources[source];
        if from.resync {
            // What is left in the old ring is of no use without its page: a new one begins anew.
            from.ring.skip_to_newest();
        }
        let ring = matches!(from.ring.reattach(), Ok(true));
        if ring {
            from.resync = true;
            from.in_batch = false;
            from.skip.iter_mut().for_each(|(_, upto)| *upto = 0);
        }
    }

    /// No room in the journal: nothing is consumed, so nothing is missing from it.
    fn pause(&mut self) {
        if !self.full {
            self.full = true;
            tracing::error!(
                "the journal is full: no input is taken until segments are released or \
                 journal.segments_max is raised"
            );
        }
        self.counts.journal_full += 1;
        std::thread::sleep(Duration::from_millis(1));
    }

    fn resume_after_full(&mut self) {
        for source in 0..self.sources.len() {
            let venue = self.sources[source].venue;
            self.sources[source].resync = true;
            self.tell_gap(venue, Reason::Bounds, 0, 0);
        }
    }
}
