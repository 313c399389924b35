//! The gateway tile: moves bytes between a venue's sockets and its [`Gateway`], and records between rings.
//!
//! Invariant: the tile decides nothing. Orders are taken from the ring before anything else in a turn, so
//! that no reply or timer makes one wait; every turn the level word's epoch is echoed after the orders that
//! were sent under it. An overrun of the order ring is a broken invariant: KILL is raised and the tile
//! ends.
//!
//! Not here: everything that is decided (`gateway`), when `turn` is called and what happens where it
//! fails (the host).

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tandem_core::record::{Record, Venue};
use tandem_feeds::machine::{CloseCause, Reply, Stamps};
use tandem_feeds::net::http::{self, Client};
use tandem_feeds::net::resolve::Resolver;
use tandem_feeds::net::transport::{ReadStamp, Transport};
use tandem_feeds::net::ws::{Connection, Event};
use tandem_feeds::tile::{ENGINE_BELL, Endpoint, record_schema};
use tandem_shm::{
    Bell, Clock, Producer, Read, RingReader, RingSpec, RingWriter, Ringer, ShmError, WaitMode, tsc,
};

use crate::gate::Post;
use crate::gateway::{Gateway, Left, Stamp};
use crate::guard::{Permit, Route, Wires};
use crate::machine::{Action, ORDER_LANE};
use crate::predecessor::Predecessor;
use crate::stats::Stats;

/// Order records taken in one turn.
const ORDERS_PER_TURN: usize = 64;
/// Messages taken from one connection in one turn.
const MESSAGES_PER_TURN: usize = 64;
/// Between two looks at the clock-driven work.
const TIMER_NS: i64 = 10_000_000;
/// A handshake that takes longer has failed.
const HANDSHAKE_NS: i64 = 10_000_000_000;
/// Between two attempts at one HTTP connection.
const HTTP_AGAIN_NS: i64 = 100_000_000;
/// The longest sleep in `park`: data and orders wake it at once; the level word and timers do not.
const PARK: Duration = Duration::from_millis(1);
/// Orders of the ring that were there before us are asked about when they are no older than this.
const INHERIT_NS: i64 = 60_000_000_000;
/// Tokens of HTTP connections begin here; those of WebSockets are their numbers.
const HTTP_TOKENS: usize = 1 << 32;
/// The token of the bell.
const BELL_TOKEN: Token = Token(usize::MAX - 1);

/// The name of the ring that the engine writes a venue's orders into.
#[must_use]
pub fn orders_ring(venue: Venue) -> String {
    format!("orders_{}", venue.name())
}

/// The name of the ring that a venue's gateway writes its reports into.
#[must_use]
pub fn reports_ring(venue: Venue) -> String {
    format!("reports_{}", venue.name())
}

/// The name of a venue's bell: the engine rings for orders, in case the gateway sleeps.
#[must_use]
pub fn bell_name(venue: Venue) -> String {
    orders_ring(venue)
}

/// The name of a gateway's stats.
#[must_use]
pub fn stats_name(venue: Venue) -> String {
    format!("gateway_{}", venue.name())
}

/// What a tile is to be.
pub struct TileSpec<'a> {
    /// Directory of the shared memory.
    pub dir: &'a Path,
    /// Where the venue is.
    pub endpoint: Endpoint,
    /// Slots of the report ring; a power of two.
    pub report_slots: u64,
    /// How long to wait for the engine to make the order ring.
    pub orders_timeout: Duration,
    /// How it waits.
    pub wait: WaitMode,
}

/// Why a tile could not start.
#[derive(Debug, thiserror::Error)]
pub enum TileError {
    /// Shared memory.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// The poller.
    #[error("poller: {0}")]
    Io(#[from] io::Error),
}

struct Peer {
    connection: Connection,
    deadline_ns: i64,
    more: bool,
}

struct Lane {
    client: Client,
    again_ns: i64,
}

/// The sockets, as the guard and the actions see them.
struct Sockets {
    peers: HashMap<u32, Peer>,
    lanes: Vec<Lane>,
    /// Connections that the guard has closed: their machines are to be told.
    broken: Vec<u32>,
    /// HTTP requests that were lost with their connection.
    lost: Vec<u32>,
}

impl Wires for Sockets {
    fn stage(&mut self, route: Route, bytes: &[u8]) -> bool {
        let staged = match route {
            Route::Ws { conn } => match self.peers.get_mut(&conn) {
                Some(peer) => peer.connection.stage(bytes),
                None => return false,
            },
            Route::Http { lane, request } => match self.lanes.get_mut(usize::from(lane)) {
                Some(lane) => lane.client.stage(request, bytes, unix_now_ns()),
                None => return false,
            },
        };
        match staged {
            Ok(()) => true,
            Err(err) => {
                tracing::debug!(%err, "an order was not staged");
                false
            }
        }
    }

    fn commit(&mut self, route: Route, _permit: Permit) -> bool {
        let done = match route {
            Route::Ws { conn } => match self.peers.get_mut(&conn) {
                Some(peer) => peer.connection.commit(),
                None => Err(io::ErrorKind::NotConnected.into()),
            },
            Route::Http { lane, .. } => match self.lanes.get_mut(usize::from(lane)) {
                Some(lane) => lane.client.commit(),
                None => Err(io::ErrorKind::NotConnected.into()),
            },
        };
        if let Err(err) = &done {
            tracing::warn!(%err, "an order did not leave whole");
            self.discard(route);
        }
        done.is_ok()
    }

    fn discard(&mut self, route: Route) {
        match route {
            Route::Ws { conn } => {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.connection.close(true);
                    self.broken.push(conn);
                }
            }
            Route::Http { lane, request } => {
                if let Some(lane) = self.lanes.get_mut(usize::from(lane)) {
                    lane.client.discard();
                    self.lost.push(request);
                }
            }
        }
    }
}

struct WallClock;

impl Stamp for WallClock {
    fn now(&self) -> (i64, u64) {
        let at = tsc();
        (unix_now_ns(), at)
    }
}

fn unix_now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads what the gateway before this one has told, where there was one.
fn before(dir: &Path, venue: Venue) -> Predecessor {
    let mut before = Predecessor::default();
    let name = reports_ring(venue);
    let ring = RingReader::<Record>::open(dir, &name, record_schema(), Duration::ZERO);
    if let Ok(mut ring) = ring {
        while let Read::Item(record) = ring.poll() {
            before.take(&record);
        }
    }
    before
}

/// A gateway tile.
pub struct GatewayTile {
    gateway: Gateway,
    gate: Box<dyn Post>,
    endpoint: Endpoint,
    poll: Poll,
    events: Events,
    resolver: Resolver,
    sockets: Sockets,
    due: Vec<(i64, Action)>,
    orders: RingReader<Record>,
    reports: RingWriter<Record>,
    /// Wakes the engine, in case it sleeps.
    engine: Ringer,
    /// Wakes this tile; only one that parks has it.
    bell: Option<Bell>,
    stats: Stats,
    clock: Clock,
    wait: WaitMode,
    ready: Vec<usize>,
    next_timer_ns: i64,
    healthy: bool,
}

impl GatewayTile {
    /// Creates the report ring and the stats, attaches to the order ring, and opens the connections with
    /// the first turns. Orders that are in the ring already are not sent: an earlier process may have, so
    /// they are asked about.
    pub fn new(
        mut gateway: Gateway,
        gate: Box<dyn Post>,
        spec: &TileSpec<'_>,
    ) -> Result<GatewayTile, TileError> {
        let venue = gateway.venue();
        let before = before(spec.dir, venue);
        let ring_spec = RingSpec {
            tag: venue as u32,
            ..RingSpec::new(reports_ring(venue), spec.report_slots, record_schema())
        };
        let reports = RingWriter::create(spec.dir, &ring_spec)?;
        let stats = Stats::create(spec.dir, &stats_name(venue))?;
        for note in reports.notes() {
            tracing::warn!(venue = venue.name(), %note, "shared memory");
        }
        let mut orders =
            RingReader::open(spec.dir, &orders_ring(venue), record_schema(), spec.orders_timeout)?;
        let now_ns = unix_now_ns();
        while let Read::Item(record) = orders.poll() {
            let record: Record = record;
            if now_ns - INHERIT_NS < record.venue_ts_ns {
                gateway.inherit(&record, &before, now_ns);
            }
        }
        let poll = Poll::new()?;
        let bell = match spec.wait {
            WaitMode::Park => Some(Bell::create(spec.dir, &bell_name(venue))?),
            WaitMode::Spin | WaitMode::Yield => None,
        };
        if let Some(bell) = &bell {
            let pipe = bell.pipe().as_raw_fd();
            poll.registry().register(&mut SourceFd(&pipe), BELL_TOKEN, Interest::READABLE)?;
        }
        let lanes = usize::from(ORDER_LANE) + usize::from(gateway.desk().config.order_lanes);
        let host = gateway.desk().config.rest_host.clone();
        let lane = || Lane { client: Client::new(host.clone()), again_ns: 0 };
        gateway.start(now_ns);
        Ok(GatewayTile {
            gateway,
            gate,
            endpoint: spec.endpoint.clone(),
            poll,
            events: Events::with_capacity(64),
            resolver: Resolver::start(),
            sockets: Sockets {
                peers: HashMap::new(),
                lanes: std::iter::repeat_with(lane).take(lanes).collect(),
                broken: Vec::with_capacity(8),
                lost: Vec::with_capacity(8),
            },
            due: Vec::new(),
            orders,
            reports,
            engine: Ringer::new(spec.dir, ENGINE_BELL),
            bell,
            stats,
            clock: Clock::calibrate(),
            wait: spec.wait,
            ready: Vec::with_capacity(64),
            next_timer_ns: 0,
            healthy: false,
        })
    }

    /// Tells whether engine and warden live and are well: the dead-man switch is put off only then.
    pub fn set_healthy(&mut self, healthy: bool) {
        self.healthy = healthy;
    }

    /// Returns the gateway, to look at.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// One turn: orders, what the last wait found at the sockets, timers, actions, reports, and a wait. Returns whether there was anything to do.
    pub fn turn(&mut self) -> io::Result<bool> {
        let epoch = self.gate.level().epoch();
        let mut busy = self.take_orders()?;
        // What was sent above was sent under this epoch or a later one; from here on nothing older counts.
        self.gate.echo(epoch);
        busy |= self.drive_ready();
        let now_ns = unix_now_ns();
        if self.next_timer_ns <= now_ns {
            self.next_timer_ns = now_ns + TIMER_NS;
            self.on_timer(now_ns);
        }
        self.tell_broken(now_ns);
        self.act(now_ns);
        self.publish();
        self.wait(busy)?;
        Ok(busy)
    }

    /// Looks what the sockets have for the next turn; waits where there was nothing in this one.
    fn wait(&mut self, busy: bool) -> io::Result<()> {
        let polled = match &self.bell {
            Some(bell) if !busy && !self.sockets.peers.values().any(|peer| peer.more) => {
                bell.lie_down();
                let most = if self.orders.is_empty() { PARK } else { Duration::ZERO };
                let polled = self.poll.poll(&mut self.events, Some(most));
                bell.get_up();
                polled
            }
            _ => self.poll.poll(&mut self.events, Some(Duration::ZERO)),
        };
        if !busy && self.wait == WaitMode::Yield {
            std::thread::yield_now();
        }
        match polled {
            Err(err) if err.kind() != io::ErrorKind::Interrupted => Err(err),
            _ => Ok(()),
        }
    }

    fn take_orders(&mut self) -> io::Result<bool> {
        let mut busy = false;
        for _ in 0..ORDERS_PER_TURN {
            match self.orders.poll() {
                Read::Item(record) => {
                    busy = true;
                    let left =
                        self.gateway.take(&record, &*self.gate, &mut self.sockets, &WallClock);
                    if let Some(left) = left {
                        self.measure(left);
                    }
                }
                Read::Empty => break,
                Read::Overrun { lost } => {
                    self.gateway.overrun(&*self.gate);
                    let text = format!("order ring overrun, {lost} records lost: KILL raised");
                    return Err(io::Error::other(text));
                }
            }
        }
        if busy {
            self.publish();
        }
        Ok(busy)
    }

    fn measure(&mut self, left: Left) {
        let ns = |from: u64| self.clock.ticks_to_ns(left.sent_tsc.saturating_sub(from));
        let (tick, ring) = (ns(left.trigger_tsc), ns(left.taken_tsc));
        if left.trigger_tsc != 0 {
            self.stats.tick_to_order.record(tick);
        }
        self.stats.ring_to_socket.record(ring);
    }

    /// Puts the records for the engine into the ring.
    fn publish(&mut self) {
        let epoch = self.reports.epoch() as u16;
        let mut published = false;
        while let Some(record) = self.gateway.next_record() {
            let pub_tsc = tsc();
            let decode_ticks = match record.recv_tsc {
                0 => 0,
                recv_tsc => u32::try_from(pub_tsc.saturating_sub(recv_tsc)).unwrap_or(u32::MAX),
            };
            self.reports.publish(&Record { pub_tsc, decode_ticks, epoch, ..record });
            published = true;
        }
        if published {
            self.engine.ring();
        }
    }

    /// Marks ring and stats closed, so that readers know this was no crash.
    pub fn close(mut self) {
        self.publish();
        for (_, mut peer) in self.sockets.peers.drain() {
            peer.connection.close(false);
        }
        self.stats.close();
        self.reports.close();
    }

    fn on_timer(&mut self, now_ns: i64) {
        self.gate.beat(now_ns);
        self.follow_engine();
        self.gateway.on_timer(now_ns, self.healthy, &*self.gate);
        let late: Vec<u32> = self
            .sockets
            .peers
            .iter()
            .filter(|(_, peer)| !peer.connection.is_open() && peer.deadline_ns < now_ns)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            self.gone(conn, CloseCause::Failed);
        }
        for lane in 0..self.sockets.lanes.len() {
            let wants = &self.sockets.lanes[lane];
            if wants.client.wants_connection() && wants.again_ns < now_ns {
                self.connect_http(lane, now_ns);
            }
            self.drive_http(lane);
        }
        while let Some(ns) = self.gateway.next_reply_ns() {
            self.stats.reply.record(ns);
        }
        let state = self.gateway.desk().state(now_ns);
        self.stats.update(self.gateway.desk(), state, now_ns);
        self.reports.beat(tsc());
        self.engine.refresh();
    }

    /// Goes over to the ring of an engine that was started again. What it holds is of a new run: nobody can
    /// have sent it.
    fn follow_engine(&mut self) {
        let ended = match self.orders.producer(tsc(), self.clock.ticks_per_ms()) {
            Producer::Live { .. } | Producer::Suspect { .. } => false,
            Producer::Closed | Producer::Dead { .. } | Producer::Superseded { .. } => true,
        };
        // Where it is not there yet the next timer finds it.
        if ended && matches!(self.orders.reattach(), Ok(true)) {
            tracing::info!(venue = self.gateway.venue().name(), "a new engine's orders");
        }
    }

    /// Tells of connections that the guard closed.
    fn tell_broken(&mut self, now_ns: i64) {
        while let Some(conn) = self.sockets.broken.pop() {
            self.gone(conn, CloseCause::Local);
        }
        while let Some(request) = self.sockets.lost.pop() {
            let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
            self.gateway.on_reply(request, Reply::Failed, at, &*self.gate);
        }
    }

    fn stamps(&self, stamp: ReadStamp, bytes: usize) -> Stamps {
        let recv_ns = match stamp.kernel_ns {
            0 => {
                let ago = self.clock.ticks_to_ns(tsc().saturating_sub(stamp.tsc));
                unix_now_ns() - i64::try_from(ago).unwrap_or(0)
            }
            kernel_ns => kernel_ns,
        };
        Stamps { recv_ns, recv_tsc: stamp.tsc, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }

    fn drive_ready(&mut self) -> bool {
        let mut busy = false;
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        let of_sockets = self.events.iter().filter(|event| event.token() != BELL_TOKEN);
        ready.extend(of_sockets.map(|event| event.token().0));
        ready.extend(
            self.sockets.peers.iter().filter(|(_, p)| p.more).map(|(conn, _)| *conn as usize),
        );
        for token in &ready {
            match token.checked_sub(HTTP_TOKENS) {
                Some(lane) => self.drive_http(lane),
                None => busy |= self.drive(*token as u32),
            }
        }
        self.ready = ready;
        busy
    }

    fn drive(&mut self, conn: u32) -> bool {
        let mut got = false;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(peer) = self.sockets.peers.get_mut(&conn) else { return got };
            peer.more = false;
            match peer.connection.poll() {
                Event::Opened => {
                    // Looked at once a connection, before anything is sent on it.
                    self.stats.connected(peer.connection.certificate_ends_s().unwrap_or(0));
                    let now_ns = unix_now_ns();
                    self.gateway.on_open(conn, now_ns);
                    self.act(now_ns);
                }
                Event::Message(frame, stamp) => {
                    got = true;
                    let at = self.stamps(stamp, frame.as_bytes().len());
                    self.gateway.on_text(conn, frame.as_bytes(), at, &*self.gate);
                    self.publish();
                }
                Event::Pong => self.gateway.on_pong(conn, unix_now_ns()),
                Event::Gone(cause) => {
                    self.gone(conn, cause);
                    return got;
                }
                Event::Idle => return got,
            }
        }
        if let Some(peer) = self.sockets.peers.get_mut(&conn) {
            peer.more = true;
        }
        got
    }

    fn gone(&mut self, conn: u32, cause: CloseCause) {
        if let Some(mut peer) = self.sockets.peers.remove(&conn) {
            if let Some(socket) = peer.connection.socket() {
                let _ = self.poll.registry().deregister(socket);
            }
            peer.connection.close(false);
        }
        tracing::info!(venue = self.gateway.venue().name(), conn, ?cause, "connection gone");
        self.gateway.on_close(conn, cause, unix_now_ns(), &*self.gate);
    }

    fn act(&mut self, now_ns: i64) {
        loop {
            while let Some(action) = self.gateway.next_action() {
                let due_ns = match &action {
                    Action::Connect { not_before_ns, .. } => *not_before_ns,
                    _ => 0,
                };
                self.due.push((due_ns, action));
            }
            let Some(at) = self.due.iter().position(|(due_ns, _)| *due_ns <= now_ns) else {
                return;
            };
            let (_, action) = self.due.remove(at);
            self.perform(action, now_ns);
        }
    }

    fn perform(&mut self, action: Action, now_ns: i64) {
        match action {
            Action::Connect { conn, path, .. } => self.connect(conn, path, now_ns),
            Action::Send { conn, text } => {
                self.with_peer(conn, |connection| connection.send(text));
            }
            Action::Ping { conn } => self.with_peer(conn, Connection::ping),
            Action::Close { conn, reset } => {
                // One that is not dialled yet has nothing to close, and must not be dialled any more.
                self.due.retain(
                    |(_, due)| !matches!(due, Action::Connect { conn: c, .. } if *c == conn),
                );
                if let Some(peer) = self.sockets.peers.get_mut(&conn) {
                    peer.connection.close(reset);
                }
                self.gone(conn, CloseCause::Local);
            }
            Action::Drop { lane, request } => {
                if let Some(lane) = self.sockets.lanes.get_mut(usize::from(lane)) {
                    lane.client.discard();
                }
                let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
                self.gateway.on_reply(request, Reply::Failed, at, &*self.gate);
            }
            Action::Http { lane, request, bytes } => {
                let lane = usize::from(lane).min(self.sockets.lanes.len() - 1);
                // No request of these is an order, and each may be asked twice: all are queries, cancels
                // and tokens. Kraken's nonces make a repetition an error, which is asked again anew.
                self.sockets.lanes[lane].client.ask(request, bytes, false);
                if self.sockets.lanes[lane].client.wants_connection() {
                    self.connect_http(lane, now_ns);
                }
                self.drive_http(lane);
            }
        }
    }

    fn with_peer(
        &mut self,
        conn: u32,
        act: impl FnOnce(&mut Connection) -> Result<(), CloseCause>,
    ) {
        if let Some(peer) = self.sockets.peers.get_mut(&conn)
            && let Err(cause) = act(&mut peer.connection)
        {
            self.gone(conn, cause);
        }
    }

    fn tls<'e>(
        endpoint: &'e Endpoint,
        host: &str,
    ) -> io::Result<Option<(&'e Arc<ClientConfig>, ServerName<'static>)>> {
        match &endpoint.tls {
            None => Ok(None),
            Some(config) => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                Ok(Some((config, name)))
            }
        }
    }

    fn connect(&mut self, conn: u32, path: &'static str, now_ns: i64) {
        let endpoint = &self.endpoint;
        let Some(address) = self.resolver.address(&endpoint.ws_host, endpoint.ws_port) else {
            let not_before_ns = now_ns + 20_000_000;
            self.due.push((not_before_ns, Action::Connect { conn, path, not_before_ns }));
            return;
        };
        let scheme = if endpoint.tls.is_some() { "wss" } else { "ws" };
        let url = format!(
            "{scheme}://{}:{}{}{path}",
            endpoint.ws_host, endpoint.ws_port, endpoint.ws_prefix
        );
        let opened = Self::tls(endpoint, &endpoint.ws_host)
            .and_then(|tls| Connection::connect(address, &url, tls))
            .and_then(|mut connection| {
                if let Some(socket) = connection.socket() {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll.registry().register(socket, Token(conn as usize), interest)?;
                }
                Ok(connection)
            });
        match opened {
            Ok(connection) => {
                let deadline_ns = now_ns + HANDSHAKE_NS;
                self.sockets.peers.insert(conn, Peer { connection, deadline_ns, more: false });
            }
            Err(err) => {
                tracing::warn!(venue = self.gateway.venue().name(), %address, %err, "no connection");
                self.gone(conn, CloseCause::Failed);
            }
        }
    }

    fn connect_http(&mut self, lane: usize, now_ns: i64) {
        self.sockets.lanes[lane].again_ns = now_ns + HTTP_AGAIN_NS;
        let endpoint = &self.endpoint;
        let Some(address) = self.resolver.address(&endpoint.rest_host, endpoint.rest_port) else {
            return;
        };
        let made = Self::tls(endpoint, &endpoint.rest_host)
            .and_then(|tls| Transport::connect(address, tls))
            .and_then(|mut transport| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                let token = Token(HTTP_TOKENS + lane);
                self.poll.registry().register(transport.socket(), token, interest)?;
                Ok(transport)
            });
        match made {
            Ok(transport) => self.sockets.lanes[lane].client.attach(transport),
            Err(err) => {
                tracing::warn!(venue = self.gateway.venue().name(), %address, %err, "no REST");
                let event = self.sockets.lanes[lane].client.fail_first();
                self.on_http(event);
            }
        }
    }

    fn drive_http(&mut self, lane: usize) {
        loop {
            let event = self.sockets.lanes[lane].client.poll(unix_now_ns());
            if matches!(event, http::Event::Idle) {
                return;
            }
            self.on_http(event);
            self.publish();
        }
    }

    fn on_http(&mut self, event: http::Event) {
        match event {
            http::Event::Answered(mut answer) => {
                let at = self.stamps(answer.stamp, answer.body.len());
                let reply = Reply::Answer {
                    status: answer.head.status,
                    retry_after_s: answer.head.retry_after_s,
                    used_weight: answer.head.used_weight,
                    body: &mut answer.body,
                };
                self.gateway.on_reply(answer.request, reply, at, &*self.gate);
            }
            http::Event::Failed(request) => {
                let at = Stamps { recv_ns: unix_now_ns(), recv_tsc: tsc(), bytes: 0 };
                self.gateway.on_reply(request, Reply::Failed, at, &*self.gate);
            }
            http::Event::Idle => {}
        }
    }
}
