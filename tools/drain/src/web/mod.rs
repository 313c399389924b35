//! The dashboard's server: pages, their data, a live stream, and two buttons that only tighten.
//!
//! Invariant: it listens on loopback alone and serves nobody who came by another name (`guard`). Reading
//! changes nothing. What acts needs the token and can raise the level to PAUSE or KILL, nothing else. A client
//! that reads slowly costs one connection: what it is sent is made when it is taken, from what is then true.
//!
//! Not here: what is shown (`model`), how it is made into JSON (`topics`), the pages (`tools/dashboard`).

mod assets;
mod guard;
mod routes;
mod topics;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tandem_core::level::Level;
use tandem_core::record::Record;
use tandem_gateway::keys::Secret;
use tokio::sync::{Semaphore, watch};

pub use guard::TOKEN_MIN;
pub use topics::TOPICS;

use crate::Sink;
use crate::alerts::board::Board;
use crate::model::Model;
use crate::source::Look;
use crate::status::Registry;

/// Connections at the same time; one more waits.
const CONNECTIONS_MAX: usize = 64;
/// Live streams at the same time; one more is refused.
const STREAMS_MAX: u32 = 16;
/// A request's head must be there within this time.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;

/// Raises the level for somebody at the dashboard.
pub trait Operator: Send + Sync {
    /// Raises the global level to `PAUSE` or `KILL`. Says whether that changed anything.
    fn raise(&self, level: Level, reason: &str) -> Result<bool, String>;
}

/// What `/metrics` answers: content type and body, for what the client accepts.
pub type Metrics = Arc<dyn Fn(Option<&str>) -> (String, Vec<u8>) + Send + Sync>;

/// What the server is told.
pub struct WebSettings {
    /// Where to listen; loopback.
    pub listen: SocketAddr,
    /// Further names that it may be asked for by, e.g. of a tunnel's end; without a port any port is meant.
    pub hosts: Vec<String>,
    /// What the buttons need; without it there are none.
    pub token: Option<Secret>,
    /// What the buttons do; without it there are none.
    pub operator: Option<Box<dyn Operator>>,
    /// What alerts told.
    pub board: Board,
    /// How the sinks are doing.
    pub registry: Registry,
    /// What `/metrics` answers; nothing there without.
    pub metrics: Option<Metrics>,
    /// The program's version, for the page.
    pub build: String,
}

/// What every handler has.
pub(crate) struct Shared {
    model: Arc<Mutex<Model>>,
    settings: WebSettings,
    /// The address that was really bound.
    at: SocketAddr,
    streams: AtomicU32,
    tries: Mutex<guard::Tries>,
    /// Turns true when the server ends.
    ends: watch::Receiver<bool>,
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Model> {
        // A row is whole or not there; a model whose writer panicked shows what it last was.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acts(&self) -> bool {
        self.settings.token.is_some() && self.settings.operator.is_some()
    }
}

/// The server.
pub struct Web {
    model: Arc<Mutex<Model>>,
    at: SocketAddr,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Binds and serves.
    pub fn start(model: Model, settings: WebSettings) -> io::Result<Web> {
        if !settings.listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "web.listen = {}: only loopback is served; reach it through an SSH tunnel",
                    settings.listen
                ),
            ));
        }
        let listener = TcpListener::bind(settings.listen).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", settings.listen))
        })?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        let model = Arc::new(Mutex::new(model));
        let (end, ends) = watch::channel(false);
        let shared = Arc::new(Shared {
            model: model.clone(),
            settings,
            at,
            streams: AtomicU32::new(0),
            tries: Mutex::default(),
            ends: ends.clone(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("web".to_owned()).spawn(move || {
            runtime.block_on(serve(listener, shared, ends));
        })?;
        Ok(Web { model, at, end, thread: Some(thread) })
    }

    /// Returns where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.at
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut ends: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the dashboard is not served");
            return;
        }
    };
    let service = routes::router(shared.clone());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ends.wait_for(|ended| *ended) => return,
        };
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, or a client that is gone already: no reason to spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(service.clone());
        let mut ends = ends.clone();
        tokio::spawn(async move {
            let _place = place;
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX);
            let connection = builder.serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                // How a client leaves is its own matter.
                _ = connection => {}
                _ = ends.wait_for(|ended| *ended) => {}
            }
        });
    }
}

impl Sink for Web {
    fn record(&mut self, record: &Record, _is_past: bool) {
        self.model().record(record);
    }

    fn lost(&mut self, what: &str) {
        self.model().lost(what);
    }

    fn look(&mut self, look: &Look) {
        self.model().look(look);
    }

    fn close(&mut self, within: Duration) {
        // Nobody listens where the thread has ended already.
        let _ = self.end.send(true);
        let until = std::time::Instant::now() + within;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && std::time::Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Counts a live stream while it lives.
struct StreamPlace(Arc<Shared>);

impl StreamPlace {
    fn take(shared: &Arc<Shared>) -> Option<StreamPlace> {
        let room = |count: u32| (count < STREAMS_MAX).then_some(count + 1);
        shared.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(StreamPlace(shared.clone()))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
