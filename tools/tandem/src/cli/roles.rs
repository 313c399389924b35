//! `sim`, `feed`, `engine`, `up`: one role each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::record::Venue;
use tandem_drain::alerts::{Alerts, Settings};
use tandem_drain::archive::disk::HostDisk;
use tandem_drain::archive::{ArchiveError, Archiver};
use tandem_drain::metrics::Metrics;
use tandem_drain::model::Model;
use tandem_drain::postgres::Postgres;
use tandem_drain::redis::Redis;
use tandem_drain::sentry::Sentry;
use tandem_drain::standing::Standing;
use tandem_drain::status::Registry;
use tandem_drain::web::Web;
use tandem_drain::{Drain, Sink};
use tandem_feeds::net::tls;
use tandem_feeds::tile::{Endpoint, FeedTile, TileSpec};
use tandem_gateway::client::{self, ClientError};
use tandem_gateway::config::Config as GatewayConfig;
use tandem_gateway::config::KrakenTier;
use tandem_gateway::desk::Desk;
use tandem_gateway::gate::SharedGate;
use tandem_gateway::gateway::Gateway;
use tandem_gateway::guard;
use tandem_gateway::keys::{Credentials, Secret};
use tandem_gateway::tile::GatewayTile;
use tandem_gateway::warden::{ClientSweeper, SweepScope, Verdict, Warden, WardenSpec};
use tandem_shm::control::Actor;
use tandem_shm::{ClockWriter, ShmError, WaitMode};
use tandem_sim::{Pace, SimConfig, Source};

use super::{ConfigArg, Done, Failure, Outcome, keys, print};
use crate::config::{Config, Mode, Secrets, venue_named};
use crate::drain_role::{self, AlertsError, Pauser};
use crate::engine_tile::{CLOCK, EngineTile, EngineTileError};
use crate::identity::Identity;
use crate::routes::{ENGINE_ROW, RoutesError, WARDEN_ROW, gateway_row};
use crate::secrets::{self, KeyFile};
use crate::warden_role::WardenStats;
use crate::{latch, postgres_config, supervisor, table, venues};

/// What a simulator is to be.
#[derive(Args, Debug)]
pub struct SimArgs {
    /// Configuration as JSON; every key has a default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of the market.
    #[arg(long)]
    seed: Option<u64>,
    /// Play a recording instead of the model; once a venue.
    #[arg(long, value_name = "FILE")]
    capture: Vec<PathBuf>,
    /// How fast recordings are played: recorded, asap, or a factor.
    #[arg(long, default_value = "recorded")]
    pace: String,
    /// Where the simulator's certificate authority is written; its key goes beside it as FILE.key, and a pair
    /// that is there already is used again.
    #[arg(long, visible_alias = "ca-out", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Clients' keys as JSON: each client gets an account at each venue it has a key of.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Written once everything listens: where each venue's REST and WebSocket roles are, as JSON.
    #[arg(long, value_name = "FILE")]
    urls: Option<PathBuf>,
    /// Name the TLS listeners in the file of --urls instead of the plain ones.
    #[arg(long, requires = "urls")]
    tls: bool,
    /// First of seven ports (plain and TLS of each venue, control); default: any free ones.
    #[arg(long, value_name = "PORT")]
    port_base: Option<u16>,
}

impl SimArgs {
    fn config(&self) -> Result<SimConfig, Failure> {
        let mut config = match &self.config {
            None => SimConfig::demo(self.seed.unwrap_or(1)),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                serde_json::from_str(&text)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?
            }
        };
        if let Some(seed) = self.seed {
            config.seed = seed;
        }
        if let Some(ca) = &self.ca {
            config.ca_path = Some(ca.clone());
            let mut key = ca.as_os_str().to_owned();
            key.push(".key");
            config.ca_key_path = Some(PathBuf::from(key));
        }
        if let Some(path) = &self.keys {
            let wrong = |error: &dyn std::fmt::Display| {
                Failure::usage(format!("{}: {error}", path.display()))
            };
            let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
            config.keys = tandem_sim::Keys::from_json(&text).map_err(|error| wrong(&error))?;
        }
        if !self.capture.is_empty() {
            let pace = match self.pace.as_str() {
                "recorded" => Pace::Recorded,
                "asap" => Pace::Asap,
                factor => Pace::Times(factor.parse().map_err(|_| {
                    Failure::usage(format!("--pace {factor}: write recorded, asap, or a factor"))
                })?),
            };
            config.source = Source::Captures { files: self.capture.clone(), pace };
        }
        if let Some(base) = self.port_base {
            set_ports(&mut config, base);
        }
        Ok(config)
    }
}

/// Gives a simulator seven ports in a row: plain and TLS of each venue, then control.
pub fn set_ports(config: &mut SimConfig, base: u16) {
    (config.binance.plain_port, config.binance.tls_port) = (base, base + 1);
    (config.coinbase.plain_port, config.coinbase.tls_port) = (base + 2, base + 3);
    (config.kraken.plain_port, config.kraken.tls_port) = (base + 4, base + 5);
    config.control_port = base + 6;
}

/// Returns a flag that SIGTERM and SIGINT set, and the end of the process `while_pid`.
pub fn stop_flag(while_pid: Option<u32>) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    if let Some(pid) = while_pid {
        let (owner, stop) = (PathBuf::from(format!("/proc/{pid}")), Arc::clone(&stop));
        std::thread::spawn(move || {
            while owner.exists() {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::failed)?;
    }
    Ok(stop)
}

/// Pins the calling thread; what cannot be done is an error, never silent.
fn pin(core: Option<usize>) -> Result<(), Failure> {
    let Some(wanted) = core else { return Ok(()) };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let found = cores.iter().find(|core| core.id == wanted);
    let pinned = found.is_some_and(|core| core_affinity::set_for_current(*core));
    if pinned {
        return Ok(());
    }
    let ids: Vec<usize> = cores.iter().map(|core| core.id).collect();
    Err(Failure {
        code: 4,
        text: format!("core {wanted} cannot be pinned to; this process may use {ids:?}"),
    })
}

/// `tandem sim`.
pub fn sim(args: &SimArgs) -> Done {
    let config = args.config()?;
    let stop = stop_flag(None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(async {
        let handle = tandem_sim::start(config).await.map_err(Failure::failed)?;
        if let Some(path) = &args.urls {
            handle.write_urls(path, args.tls).map_err(Failure::failed)?;
        }
        print(handle.endpoints_json());
        loop {
            tokio::select! {
                () = handle.stopped() => break,
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        }
        handle.shutdown().await;
        Ok(Outcome::Ok)
    })
}

/// Returns where a venue is.
pub fn endpoint(config: &Config, venue: Venue) -> Result<Endpoint, Failure> {
    let missing = || Failure::usage(format!("[venue.{}] is not configured", venue.name()));
    let venue_config = config.venue.get(venue.name()).ok_or_else(missing)?;
    let (ws, rest) = venue_config.addresses().ok_or_else(missing)?;
    if ws.tls != rest.tls {
        return Err(Failure::usage(format!(
            "[venue.{}] ws_url and rest_url must both use TLS, or neither",
            venue.name()
        )));
    }
    let tls = match ws.tls {
        true => {
            let file = venue_config.tls_ca_file.as_deref();
            Some(tls::client_config(file).map_err(Failure::usage)?)
        }
        false => None,
    };
    Ok(Endpoint {
        ws_host: ws.host,
        ws_port: ws.port,
        ws_prefix: ws.prefix,
        rest_host: rest.host,
        rest_port: rest.port,
        tls,
    })
}

/// Returns a venue's feed tile.
pub fn feed_tile(config: &Config, table: &table::Table, venue: Venue) -> Result<FeedTile, Failure> {
    let endpoint = endpoint(config, venue)?;
    let venue_config = &config.venue[venue.name()];
    let seed = u64::from(std::process::id()) ^ crate::time::now_ns() as u64;
    let window = table.params.window_levels;
    let options = venue_config.options(venue, window, seed);
    let instruments = table.of_venue(venue);
    let redundant = venue_config.redundant;
    let machine = venues::machine(venue, instruments, options, redundant, crate::time::now_ns());
    let spec = TileSpec {
        dir: &config.run.dir,
        name: venue.name().to_owned(),
        endpoint,
        ring_slots: venue_config.ring_slots,
        window,
        wait: venue_config.wait_mode(),
    };
    FeedTile::new(machine, &spec).map_err(Failure::failed)
}

/// `tandem feed VENUE`.
pub fn feed(config: &ConfigArg, venue: &str, while_pid: Option<u32>) -> Done {
    let config = config.load()?;
    let venue = venue_named(venue)
        .filter(|venue| config.venue.contains_key(venue.name()))
        .ok_or_else(|| {
            let known: Vec<&String> = config.venue.keys().collect();
            Failure::usage(format!("`{venue}` is not configured; configured are {known:?}"))
        })?;
    prepare(&config)?;
    let table = table::load_or_ask(&config).map_err(Failure::unreachable)?;
    let stop = stop_flag(while_pid)?;
    pin(config.venue[venue.name()].core)?;
    let mut tile = feed_tile(&config, &table, venue)?;
    while !stop.load(Ordering::Relaxed) {
        let busy = tile.turn().map_err(Failure::failed)?;
        if !busy && config.venue[venue.name()].wait_mode() == WaitMode::Spin {
            std::hint::spin_loop();
        }
    }
    tile.close();
    Ok(Outcome::Ok)
}

/// Returns a process's key file, if it belongs to the world of the configured addresses.
pub fn key_file(config: &Config, of: impl Fn(&Secrets) -> &String) -> Result<KeyFile, Failure> {
    let places = config.secrets.as_ref().ok_or_else(|| Failure::refused("no [secrets]"))?;
    let place = of(places);
    let file = secrets::load(place).map_err(Failure::refused)?;
    let world = config.environment().map_err(Failure::refused)?;
    if file.environment != world {
        return Err(Failure::refused(format!(
            "{place} holds {} keys, the configured addresses are {}: a key stays in its world",
            file.environment.name(),
            world.name()
        )));
    }
    Ok(file)
}

/// Returns one venue's credentials; nonces of `who` are kept in a file of their own.
pub fn credentials(
    config: &Config,
    file: &KeyFile,
    venue: Venue,
    who: &str,
) -> Result<Credentials, Failure> {
    let missing = || Failure::refused(format!("the key file has no [{}]", venue.name()));
    let keys = file.venues.get(venue.name()).ok_or_else(missing)?;
    let api_key = keys.api_key.clone();
    let nonce_file = config.run.state_dir.join(format!("nonce-{who}"));
    let secret = |text: &Option<zeroize::Zeroizing<String>>| {
        text.as_ref().map(|text| Secret::from(text.as_str())).ok_or_else(|| {
            Failure::refused(format!(
                "[{}] of the key file has the wrong kind of key for this venue",
                venue.name()
            ))
        })
    };
    Ok(match venue {
        Venue::Binance => {
            let private_key_pem = secret(&keys.private_key_pem)?;
            Credentials::BinanceEd25519 { api_key, private_key_pem }
        }
        Venue::Coinbase => {
            let private_key_pem = secret(&keys.private_key_pem)?;
            Credentials::Coinbase { api_key, private_key_pem }
        }
        Venue::Kraken => Credentials::Kraken { api_key, secret: secret(&keys.secret)?, nonce_file },
    })
}

/// Returns where a venue's order entry is.
pub fn order_endpoint(config: &Config, venue: Venue) -> Result<Endpoint, Failure> {
    let market = endpoint(config, venue)?;
    let orders = config.venue[venue.name()]
        .order_address()
        .ok_or_else(|| Failure::usage(format!("[venue.{}] has no order_url", venue.name())))?;
    Ok(Endpoint { ws_host: orders.host, ws_port: orders.port, ws_prefix: orders.prefix, ..market })
}

/// Asks the venue what a key may do (S3). A key that may more than trade is refused.
fn check_rights(config: &Config, venue: Venue, credentials: &Credentials) -> Result<(), Failure> {
    let endpoint = order_endpoint(config, venue)?;
    let mut failed = String::new();
    for _ in 0..RIGHTS_TRIES {
        match client::check(credentials, &endpoint) {
            Ok(report) => return keys::judge(config, venue, &report).map_err(Failure::refused),
            Err(error @ (ClientError::Refused { .. } | ClientError::Key(_))) => {
                return Err(Failure::refused(format!("{}: {error}", venue.name())));
            }
            Err(error) => failed = error.to_string(),
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    Err(Failure::unreachable(format!(
        "{}: the key's rights cannot be read: {failed}",
        venue.name()
    )))
}

/// Tries of a venue that does not answer.
const RIGHTS_TRIES: u32 = 5;

fn configured(config: &Config, name: &str) -> Result<Venue, Failure> {
    venue_named(name).filter(|venue| config.venue.contains_key(venue.name())).ok_or_else(|| {
        let known: Vec<&String> = config.venue.keys().collect();
        Failure::usage(format!("`{name}` is not configured; configured are {known:?}"))
    })
}

/// Takes a process's row of the control page; a second one of its kind is refused.
fn claim(config: &Config, row: usize, what: &str) -> Result<Actor, Failure> {
    let page = latch::open(&config.run.dir, &config.run.state_dir).map_err(Failure::failed)?;
    let identity = Identity::of(config).map_err(Failure::failed)?;
    page.claim(row, identity.build, identity.config).map_err(|error| match page.is_held(row) {
        true => Failure::refused(format!(
            "another {what} runs on {}: stop it first; two would share one key",
            config.run.dir.display()
        )),
        false => Failure::failed(error),
    })
}

fn live_only(config: &Config, what: &str) -> Result<(), Failure> {
    match config.run.mode {
        Mode::Live => Ok(()),
        other => Err(Failure::usage(format!("mode {} needs no {what}", other.name()))),
    }
}

/// `tandem gateway VENUE`.
pub fn gateway(config: &ConfigArg, venue: &str, while_pid: Option<u32>) -> Done {
    let config = config.load_to_trade()?;
    live_only(&config, "gateway")?;
    let venue = configured(&config, venue)?;
    prepare(&config)?;
    tandem_shm::forbid_dumps().map_err(Failure::failed)?;
    let file = key_file(&config, |places| &places.gateway)?;
    let credentials = credentials(&config, &file, venue, "gateway")?;
    drop(file);
    // Before the key is used: two processes with one key are refused at its first use by some venues.
    let actor = claim(&config, gateway_row(venue), "gateway of this venue")?;
    // What this host knows is wrong is not asked of the venue, start after start: its limits count that.
    let table = table::load_or_ask(&config).map_err(Failure::unreachable)?;
    check_rights(&config, venue, &credentials)?;
    let stop = stop_flag(while_pid)?;
    let page = actor.page().clone();
    let endpoint = order_endpoint(&config, venue)?;
    let gateway_config = gateway_config(&config, venue, &endpoint);
    let desk = Desk::new(venue, &table.universe, &table.instruments, gateway_config);
    let dialect = venues::dialect(venue, &credentials, &desk).map_err(Failure::refused)?;
    drop(credentials);
    let gateway = Gateway::new(dialect, desk, guard::abort);
    let wait = config.venue[venue.name()].wait_mode();
    let spec = tandem_gateway::tile::TileSpec {
        dir: &config.run.dir,
        endpoint,
        report_slots: REPORT_SLOTS,
        orders_timeout: ORDERS_WITHIN,
        wait,
    };
    let mut tile = GatewayTile::new(gateway, Box::new(SharedGate::new(actor)), &spec)
        .map_err(Failure::unreachable)?;
    while !stop.load(Ordering::Relaxed) {
        let now_ns = crate::time::now_ns();
        let lives = |row: usize| {
            let row = page.row(row);
            row.pid != 0 && now_ns - (row.beat_ns as i64) < HEALTHY_NS_MAX
        };
        tile.set_healthy(lives(ENGINE_ROW) && lives(WARDEN_ROW));
        let busy = tile.turn().map_err(Failure::failed)?;
        if !busy && wait == WaitMode::Spin {
            std::hint::spin_loop();
        }
    }
    tile.close();
    Ok(Outcome::Ok)
}

/// Slots of a report ring: a burst of a whole day's trades fits.
const REPORT_SLOTS: u64 = 1 << 16;
/// The engine makes the order ring; a gateway waits for it this long.
const ORDERS_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);
/// The dead-man switch is put off only while engine and warden beat.
const HEALTHY_NS_MAX: i64 = 1_000_000_000;

/// Returns a gateway's values: the defaults, and the host as the venue must see it.
fn gateway_config(config: &Config, venue: Venue, endpoint: &Endpoint) -> GatewayConfig {
    let mut values = GatewayConfig::for_venue(venue);
    values.rest_host = match (endpoint.tls.is_some(), endpoint.rest_port) {
        (true, 443) | (false, 80) => endpoint.rest_host.clone(),
        (_, port) => format!("{}:{port}", endpoint.rest_host),
    };
    if let Some(limits) = &config.limits {
        values.ack_ns_max = i64::from(limits.ack_timeout_ms) * 1_000_000;
    }
    if venue == Venue::Kraken {
        let tier = config.venue[venue.name()].rate_tier.as_deref().and_then(KrakenTier::named);
        values.set_kraken_tier(tier.unwrap_or_default());
    }
    // An order waits for no reply to another one.
    (values.order_lanes, values.tokens) = (8, 16);
    values.seed = u64::from(std::process::id()) ^ crate::time::now_ns() as u64;
    values
}

/// `tandem engine`.
pub fn engine(config: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = config.load_to_trade()?;
    prepare(&config)?;
    let table = table::load_or_ask(&config).map_err(Failure::unreachable)?;
    let stop = stop_flag(while_pid)?;
    pin(config.engine.core)?;
    let mut tile = EngineTile::new(&config, &table).map_err(|error| match error {
        EngineTileError::Routes(RoutesError::SecondEngine { .. }) => Failure::refused(error),
        other => Failure::unreachable(other),
    })?;
    while !stop.load(Ordering::Relaxed) {
        tile.turn().map_err(Failure::failed)?;
    }
    // No new rounds; those under way are ended, within a bound.
    tile.pause_trading();
    let until = std::time::Instant::now() + END_ROUNDS_WITHIN;
    while tile.is_trading() && std::time::Instant::now() < until {
        tile.turn().map_err(Failure::failed)?;
    }
    tile.close().map_err(Failure::failed)?;
    Ok(Outcome::Ok)
}

/// Rounds under way have this long to end when the engine is asked to stop.
const END_ROUNDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// `tandem warden`.
pub fn warden(config: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = config.load_to_trade()?;
    live_only(&config, "warden")?;
    prepare(&config)?;
    tandem_shm::forbid_dumps().map_err(Failure::failed)?;
    let file = key_file(&config, |places| &places.warden)?;
    let actor = claim(&config, WARDEN_ROW, "warden")?;
    let table = table::load_or_ask(&config).map_err(Failure::unreachable)?;
    let mut sweepers = Vec::new();
    let mut names = Vec::new();
    let mut ttl_ns = [0; 3];
    for (venue, _) in config.venues() {
        let credentials = credentials(&config, &file, venue, "warden")?;
        check_rights(&config, venue, &credentials)?;
        let endpoint = order_endpoint(&config, venue)?;
        ttl_ns[venue.idx()] = gateway_config(&config, venue, &endpoint).arrival_ns_max(venue);
        let symbols = table.of_venue(venue).into_iter().map(|listed| listed.symbol).collect();
        let scope = match config.venue[venue.name()].exclusive_account {
            true => SweepScope::Account,
            false => SweepScope::Ours,
        };
        sweepers.push((venue, ClientSweeper::make(credentials, endpoint, symbols, scope)));
        names.push(venue);
    }
    drop(file);
    let stop = stop_flag(while_pid)?;
    latch::keep(actor.page().clone(), config.run.state_dir.clone()).map_err(Failure::failed)?;
    let mut stats = WardenStats::create(&config.run.dir, &names).map_err(Failure::failed)?;
    let longest_ns = ttl_ns.into_iter().max().unwrap_or(0).unsigned_abs();
    let spec = WardenSpec { hang_ns: HANG_NS, ttl_ns, engine_row: ENGINE_ROW };
    let mut warden = Warden::start(spec, actor, sweepers, crate::time::now_ns);
    while !stop.load(Ordering::Relaxed) {
        warden.turn();
        stats.update(&warden);
        std::thread::sleep(WARDEN_TURN);
    }
    // The last proof: nothing is left open when everything is gone.
    warden.sweep_all();
    let until =
        std::time::Instant::now() + PROOF_WITHIN + std::time::Duration::from_nanos(longest_ns);
    let settled = |warden: &Warden| {
        warden.progress().iter().all(|(_, progress)| progress.verdict == Verdict::Clean)
    };
    while !settled(&warden) && std::time::Instant::now() < until {
        warden.turn();
        stats.update(&warden);
        std::thread::sleep(WARDEN_TURN);
    }
    let clean = settled(&warden);
    for (venue, progress) in warden.progress() {
        if progress.verdict != Verdict::Clean {
            tracing::error!(venue = venue.name(), trouble = progress.trouble, "NOT proven clean");
        }
    }
    stats.update(&warden);
    stats.close();
    warden.close();
    Ok(if clean { Outcome::Ok } else { Outcome::Partial })
}

/// Between two looks of the warden.
const WARDEN_TURN: std::time::Duration = std::time::Duration::from_millis(5);
/// An engine that did not beat for so long hangs.
const HANG_NS: i64 = 100_000_000;
/// The last proof has this long once nothing can arrive any more.
const PROOF_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// `tandem drain`.
pub fn drain(config: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = config.load()?;
    prepare(&config)?;
    tandem_shm::forbid_dumps().map_err(Failure::failed)?;
    let _lock = drain_role::lock(&config).map_err(Failure::failed)?.ok_or_else(|| {
        Failure::refused(format!(
            "another drain runs on {}: two would tell everything twice",
            config.run.dir.display()
        ))
    })?;
    let stop = stop_flag(while_pid)?;
    let plan = drain_role::plan(&config);
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let registry = Registry::default();
    // Without channels the dashboard is told what is wrong all the same.
    let settings = match &config.alerts {
        Some(_) => alert_settings(&config)?,
        None => drain_role::silent_settings(&config),
    };
    let alerts = Alerts::start(&plan, settings, Pauser::of(&config)).map_err(Failure::usage)?;
    let (board, told) = (alerts.board(), alerts.board());
    sinks.push(Box::new(alerts));
    let build = drain_role::build(&config).map_err(Failure::failed)?;
    let metrics = Metrics::new(&plan, build, registry.clone());
    let page = metrics.page();
    sinks.push(Box::new(metrics));
    if let Some(settings) = drain_role::redis(&config).map_err(Failure::refused)? {
        let redis = Redis::start(&plan, settings, registry.register("redis"));
        sinks.push(Box::new(redis.map_err(Failure::failed)?));
    }
    if let Some(settings) = drain_role::sentry(&config).map_err(Failure::refused)? {
        let sentry = Sentry::start(settings, registry.register("sentry"));
        sinks.push(Box::new(sentry.map_err(Failure::usage)?));
    }
    let web = drain_role::web(&config, board, registry.clone()).map_err(Failure::refused)?;
    if let Some(mut settings) = web {
        settings.metrics = Some(Arc::new(move |accept| {
            let (kind, body) = page.encode(accept);
            (kind.to_owned(), body)
        }));
        let web = Web::start(Model::new(&plan), settings).map_err(Failure::failed)?;
        let at = format!("http://{}/\n", web.address());
        std::fs::write(config.run.dir.join(drain_role::WEB_FILE), at).map_err(Failure::failed)?;
        tracing::info!(address = %web.address(), "the dashboard is served");
        sinks.push(Box::new(web));
    }
    if config.postgres.is_some() {
        let settings = postgres_config::settings(&config).map_err(Failure::refused)?;
        let page = registry.register("postgres");
        let postgres = Postgres::start(&plan, settings, page).map_err(Failure::failed)?;
        sinks.push(Box::new(postgres));
    }
    if config.archive.is_some()
        && let Some(settings) = drain_role::archive(&config, registry.register("archive"))
    {
        let archive = Archiver::start(settings, || Box::new(HostDisk));
        sinks.push(Box::new(archive.map_err(|error| match error {
            ArchiveError::Locked { .. } => Failure::refused(error),
            _ => Failure::failed(error),
        })?));
    }
    // The last one: what it tells is what the others have just told.
    sinks.push(Box::new(Standing::new(config.run.dir.clone(), registry.clone(), told)));
    let source = tandem_drain::Source::new(plan).beside(drain_role::beside(&config, registry));
    let mut drain = Drain::new(source, sinks);
    while !stop.load(Ordering::Relaxed) {
        if !drain.turn() {
            std::thread::sleep(DRAIN_TURN);
        }
    }
    drain.close(DRAIN_ENDS_WITHIN);
    Ok(Outcome::Ok)
}

/// Returns the alerts as configured, secrets read.
pub fn alert_settings(config: &Config) -> Result<Settings, Failure> {
    drain_role::settings(config).map_err(|error| match error {
        AlertsError::None => Failure::usage(error),
        AlertsError::Secrets(_) => Failure::refused(error),
    })
}

/// Between two looks of the drain at the journal, where it has read all of it.
const DRAIN_TURN: std::time::Duration = std::time::Duration::from_millis(20);
/// What is left to tell at the end has this long.
const DRAIN_ENDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// `tandem up`.
pub fn up(arg: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = arg.load_to_trade()?;
    prepare(&config)?;
    if config.alerts.is_some() {
        // Refused before anything runs: a run whose alerts nobody gets must not begin unnoticed.
        alert_settings(&config)?;
    }
    if config.postgres.is_some() {
        postgres_config::settings(&config).map_err(Failure::refused)?;
    }
    let stop = stop_flag(while_pid)?;
    // Whoever holds the clock page owns the run: a second `up` is refused before it changes anything.
    let clock = ClockWriter::create(&config.run.dir, CLOCK).map_err(|error| match &error {
        ShmError::Locked { .. } => Failure::refused(format!(
            "another `tandem up` runs on {}: stop it first ({error})",
            config.run.dir.display()
        )),
        _ => Failure::failed(error),
    })?;
    // Asked afresh at each start: rules and fees change.
    let setup = table::ask_venues(&config).map_err(Failure::unreachable)?;
    let table = table::Table::build(setup, "the venues").map_err(Failure::usage)?;
    table.engine().map_err(Failure::usage)?;
    table::save(&config.run.dir, &table.setup).map_err(Failure::failed)?;
    if config.run.mode != Mode::Observe {
        let state_dir = &config.run.state_dir;
        let page = latch::open(&config.run.dir, state_dir).map_err(Failure::failed)?;
        let act = latch::Act { who: "up", reason: "a start never arms" };
        let pause = (Scope::Global, Level::Pause, Cause::Start);
        latch::raise(&page, state_dir, pause, &act).map_err(Failure::failed)?;
    }
    supervisor::run(&config, &arg.config, &stop, clock).map_err(Failure::failed)?;
    Ok(Outcome::Ok)
}

/// Makes the directories of a run.
pub fn prepare(config: &Config) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = &config.run.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))?;
    // A run goes on without it; what is missing then is told where it would have been written.
    if let Err(error) = tandem_drain::spool::begin(dir, &super::errors::role()) {
        tracing::warn!(%error, "errors of this process are not kept");
    }
    if config.run.mode == Mode::Live {
        // Nonces are kept there before anything else is.
        let state_dir = &config.run.state_dir;
        latch::make_dir(state_dir)
            .map_err(|error| Failure::failed(format!("{}: {error}", state_dir.display())))?;
    }
    Ok(())
}
