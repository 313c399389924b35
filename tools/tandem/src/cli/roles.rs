//! `sim`, `feed`, `engine`, `up`: one role each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use tandem_core::record::Venue;
use tandem_feeds::net::tls;
use tandem_feeds::tile::{Endpoint, FeedTile, TileSpec};
use tandem_shm::{ClockWriter, WaitMode};
use tandem_sim::{Pace, SimConfig, Source};

use super::{ConfigArg, Done, Failure, Outcome, print};
use crate::config::{Config, venue_named};
use crate::engine_tile::{CLOCK, EngineTile};
use crate::{supervisor, table, venues};

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
    let machine = venues::machine(venue, table.of_venue(venue), options, crate::time::now_ns());
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

/// `tandem engine`.
pub fn engine(config: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = config.load()?;
    prepare(&config)?;
    let table = table::load_or_ask(&config).map_err(Failure::unreachable)?;
    let stop = stop_flag(while_pid)?;
    pin(config.engine.core)?;
    let mut tile = EngineTile::new(&config, &table).map_err(Failure::unreachable)?;
    while !stop.load(Ordering::Relaxed) {
        tile.turn().map_err(Failure::failed)?;
    }
    tile.close().map_err(Failure::failed)?;
    Ok(Outcome::Ok)
}

/// `tandem up`.
pub fn up(arg: &ConfigArg, while_pid: Option<u32>) -> Done {
    let config = arg.load()?;
    prepare(&config)?;
    let stop = stop_flag(while_pid)?;
    // Whoever holds the clock page owns the run: a second `up` is refused before it changes anything.
    let clock = ClockWriter::create(&config.run.dir, CLOCK).map_err(Failure::failed)?;
    // Asked afresh at each start: rules and fees change.
    let setup = table::ask_venues(&config).map_err(Failure::unreachable)?;
    let table = table::Table::build(setup, "the venues").map_err(Failure::usage)?;
    table.engine().map_err(Failure::usage)?;
    table::save(&config.run.dir, &table.setup).map_err(Failure::failed)?;
    supervisor::run(&config, &arg.config, &stop, clock).map_err(Failure::failed)?;
    Ok(Outcome::Ok)
}

fn prepare(config: &Config) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = &config.run.dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(|error| Failure::failed(format!("{}: {error}", dir.display())))
}
