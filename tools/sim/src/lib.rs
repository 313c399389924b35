//! Venue simulators: Binance, Coinbase and Kraken on loopback, from a seeded market or from recorded
//! captures, with a control port for faults and for the truth.
//!
//! ```text
//!   market (seeded) ─┐                       ┌─► binance face ──► hub ─► pump ─► plain / TLS client
//!                    ├─► world: book, truth ─┼─► coinbase face ──► │ faults act here
//!   captures ────────┘    ▲        ▲         └─► kraken face ────► │      │
//!     desk: accounts, ────┘        │                ▲───── orders, queries ┘
//!     orders, matching             └── control port: truth, faults, accounts, script
//! ```
//!
//! Invariant: everything about one event (book, accounts, truth, messages) happens under one lock, so a snapshot,
//! a stream and the control port never disagree unless a fault says so. The flow of the market depends on the
//! seed alone until a client's order meets it. Only loopback addresses are bound.
//!
//! [`exchange`] is the matching core without sockets, for tests that drive it directly.

#![forbid(unsafe_code)]

pub mod amount;
mod binance;
pub mod book;
mod captures;
mod coinbase;
pub mod config;
mod control;
mod crypto;
mod desk_control;
pub mod exchange;
pub mod faults;
mod history;
mod hub;
pub mod keys;
mod kraken;
mod limits;
pub mod market;
mod net;
mod observe;
mod tls;
mod truth;
pub mod units;
mod world;
mod ws;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use config::{Pace, SimConfig, Source, Venue};
pub use keys::Keys;

use net::Role;
use observe::{Departures, Mark, Sent};
use world::{World, unix_at};

/// Why the simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A configuration value is wrong.
    #[error("configuration: {key} {why}")]
    Config {
        /// The key, dotted.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A socket or file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate authority could not be made.
    #[error("TLS: {what}")]
    Tls {
        /// What failed.
        what: String,
    },
    /// A capture file cannot be played.
    #[error("capture {file}: {why}")]
    Capture {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Where one venue listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenueAddresses {
    /// `host:port` without TLS.
    pub plain: SocketAddr,
    /// `host:port` with TLS.
    pub tls: SocketAddr,
    /// REST base URL without TLS.
    pub rest: String,
    /// REST base URL with TLS.
    pub rest_tls: String,
    /// WebSocket market-data URL without TLS.
    pub ws: String,
    /// WebSocket market-data URL with TLS.
    pub ws_tls: String,
}

/// Where everything listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Venues by name.
    pub venues: BTreeMap<Venue, VenueAddresses>,
    /// Control HTTP server.
    pub control: SocketAddr,
    /// CA certificate, PEM.
    pub ca_path: PathBuf,
}

impl Addresses {
    /// Returns one venue's addresses, if it is enabled.
    #[must_use]
    pub fn venue(&self, venue: Venue) -> Option<&VenueAddresses> {
        self.venues.get(&venue)
    }

    /// Returns the origin of each role by venue, without a path, as JSON.
    #[must_use]
    pub fn urls_json(&self, tls: bool) -> String {
        let mut all = serde_json::Map::new();
        for (venue, at) in &self.venues {
            let (http, ws) = if tls {
                let port = at.tls.port();
                (format!("https://localhost:{port}"), format!("wss://localhost:{port}"))
            } else {
                (format!("http://{}", at.plain), format!("ws://{}", at.plain))
            };
            let private = match venue {
                Venue::Binance => "ws_api",
                Venue::Coinbase => "ws_user",
                Venue::Kraken => "ws_auth",
            };
            all.insert(venue.name().to_owned(), json!({"rest": http, "ws": ws, private: ws}));
        }
        all.insert("control".to_owned(), json!(format!("http://{}", self.control)));
        serde_json::to_string_pretty(&all).unwrap_or_default()
    }
}

/// State shared by all tasks.
pub(crate) struct Shared {
    world: Mutex<World>,
    pub(crate) stop: watch::Sender<bool>,
    addresses: Addresses,
    /// When marked messages left; a lock of its own, because pumps take it without the world.
    departures: Mutex<Departures>,
    started: (Instant, u64),
}

impl Shared {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // A panic in one task must not silence the venue; the world is consistent between calls.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that all marked messages up to `done` bytes were handed to a socket.
    pub(crate) fn note_sent(
        &self,
        connection: u64,
        marks: &mut VecDeque<(usize, Mark)>,
        done: usize,
    ) {
        let at_ns = unix_at(self.started, Instant::now());
        let mut departures = self.departures();
        while let Some((_, mark)) = marks.front().filter(|(at, _)| *at <= done) {
            departures.note(Sent { mark: *mark, connection, at_ns });
            marks.pop_front();
        }
    }

    pub(crate) fn departures(&self) -> MutexGuard<'_, Departures> {
        self.departures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoints_json(&self) -> String {
        serde_json::to_string_pretty(&self.addresses).unwrap_or_default()
    }
}

/// A running simulator. Dropping it stops it without waiting.
pub struct SimHandle {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl SimHandle {
    /// Returns where everything listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.shared.addresses
    }

    /// Returns the addresses as JSON, to print.
    #[must_use]
    pub fn endpoints_json(&self) -> String {
        self.shared.endpoints_json()
    }

    /// Injects a fault, as `POST /fault` does, and returns its id.
    ///
    /// # Errors
    /// Returns why the fault makes no sense.
    pub fn inject(&self, fault: faults::Fault) -> Result<u64, String> {
        self.shared.world().inject(fault)
    }

    /// Writes where official clients find each role, as `--urls` wants it: whole or not at all.
    ///
    /// # Errors
    /// Returns what the file system said.
    pub fn write_urls(&self, path: &Path, tls: bool) -> Result<(), SimError> {
        let failed = |source| SimError::Io { what: format!("write {}", path.display()), source };
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, self.addresses().urls_json(tls)).map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)
    }

    /// Stops all tasks and waits for them.
    pub async fn shutdown(mut self) {
        self.shared.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    /// Waits until `POST /shutdown`, or [`SimHandle::shutdown`] of a clone of the signal.
    pub async fn stopped(&self) {
        let mut stop = self.shared.stop.subscribe();
        // An error means that the sender is gone, which is the same thing.
        let _ = stop.wait_for(|s| *s).await;
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

/// Starts the simulator on the current Tokio runtime.
///
/// # Errors
/// Returns a [`SimError`] if the configuration is wrong, a port is taken, or a file cannot be used.
pub async fn start(cfg: SimConfig) -> Result<SimHandle, SimError> {
    cfg.validate()?;
    let ca_path = cfg.ca_path.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("tandem-sim-ca-{}-{}.pem", std::process::id(), cfg.seed))
    });
    let acceptor = tls::acceptor(&ca_path, cfg.ca_key_path.as_deref(), cfg.certificate_days)?;
    let mut listeners = Vec::new();
    let mut venues = BTreeMap::new();
    for venue in Venue::ALL.into_iter().filter(|v| cfg.enabled(*v)) {
        let (plain_port, tls_port) = cfg.ports(venue);
        let (plain, plain_at) = bind(plain_port).await?;
        let (tls, tls_at) = bind(tls_port).await?;
        venues.insert(venue, venue_addresses(venue, plain_at, tls_at));
        listeners.push((Role::Venue(venue), plain, plain_at, None));
        listeners.push((Role::Venue(venue), tls, tls_at, Some(acceptor.clone())));
    }
    let (control, control_at) = bind(cfg.control_port).await?;
    listeners.push((Role::Control, control, control_at, None));
    let step = Duration::from_millis(cfg.market.step_ms);
    let world = World::new(cfg)?;
    let (stop, _) = watch::channel(false);
    let addresses = Addresses { venues, control: control_at, ca_path };
    let shared = Arc::new(Shared {
        started: world.started(),
        world: Mutex::new(world),
        stop,
        addresses,
        departures: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for (role, listener, at, tls) in listeners {
        tasks.spawn(net::accept(Arc::clone(&shared), role, listener, at, tls));
    }
    tasks.spawn(tick(Arc::clone(&shared), step));
    Ok(SimHandle { shared, tasks })
}

/// Starts the simulator, prints nothing, and returns when the control port says shutdown.
///
/// `ready` is called once with the handle, for instance to print [`SimHandle::endpoints_json`].
///
/// # Errors
/// As [`start`].
pub async fn serve_forever(cfg: SimConfig, ready: impl FnOnce(&SimHandle)) -> Result<(), SimError> {
    let handle = start(cfg).await?;
    ready(&handle);
    handle.stopped().await;
    handle.shutdown().await;
    Ok(())
}

async fn bind(port: u16) -> Result<(TcpListener, SocketAddr), SimError> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let failed = |source| SimError::Io { what: format!("listen on {wanted}"), source };
    let listener = TcpListener::bind(wanted).await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    Ok((listener, at))
}

fn venue_addresses(venue: Venue, plain: SocketAddr, tls: SocketAddr) -> VenueAddresses {
    let path = match venue {
        Venue::Binance => "/stream",
        Venue::Coinbase => "/",
        Venue::Kraken => "/v2",
    };
    VenueAddresses {
        plain,
        tls,
        rest: format!("http://{plain}"),
        rest_tls: format!("https://localhost:{}", tls.port()),
        ws: format!("ws://{plain}{path}"),
        ws_tls: format!("wss://localhost:{}{path}", tls.port()),
    }
}

/// Waits for the stop signal, whether it comes or was there already: a task may be polled first after it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the same thing.
    let _ = stop.wait_for(|s| *s).await;
}

/// The event loop: moves the world a step at a time.
async fn tick(shared: Arc<Shared>, step: Duration) {
    let mut stop = shared.stop.subscribe();
    let mut timer = tokio::time::interval(step);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => shared.world().tick(),
            () = stopped(&mut stop) => return,
        }
    }
}
