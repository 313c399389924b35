//! The feed tile: moves bytes between a venue's sockets and its machine, and records into the ring.
//!
//! Invariant: the tile decides nothing. Every byte goes to the machine with its stamps, every record goes
//! into the ring as it comes, every action is done when it is due. A turn is bounded, so one busy
//! connection cannot keep the others, the timers or the heartbeat waiting.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tandem_core::record::{self, BookState, Kind, Record};
use tandem_shm::{
    Clock, CounterHandle, GaugeHandle, HistogramHandle, LatestSpec, LatestWriter, Metric, RingSpec,
    RingWriter, Ringer, ShmError, StatsWriter, WaitMode, fnv1a, tsc,
};

use crate::machine::{Action, CloseCause, Machine, MachineStats, Publish, Reply, Stamps};
use crate::net::http::{self, Client};
use crate::net::resolve::Resolver;
use crate::net::transport::Transport;
use crate::net::ws::{Connection, Event};
use crate::page;

/// Messages taken from one connection in one turn.
const MESSAGES_PER_TURN: usize = 256;
/// Between two looks at the clock-driven work.
const TIMER_NS: i64 = 10_000_000;
/// Between two writes of the latest page.
const PAGE_NS: i64 = 5_000_000;
/// A handshake that takes longer has failed.
const HANDSHAKE_NS: i64 = 10_000_000_000;
/// The longest sleep in `park`: data wakes it at once, timers need no more.
const PARK: Duration = Duration::from_millis(2);

const HTTP_TOKEN: Token = Token(0);

/// Where a venue is.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host of the streams.
    pub ws_host: String,
    /// Its port.
    pub ws_port: u16,
    /// Put before the machine's paths (simulators behind a prefix); usually empty.
    pub ws_prefix: String,
    /// Host of the REST interface.
    pub rest_host: String,
    /// Its port.
    pub rest_port: u16,
    /// TLS configuration; without it everything is plain text, which only loopback may be.
    pub tls: Option<Arc<ClientConfig>>,
}

/// What a tile is to be.
pub struct TileSpec<'a> {
    /// Directory of the shared memory.
    pub dir: &'a Path,
    /// Ring and page are named after it, e.g. `binance`.
    pub name: String,
    /// Where the venue is.
    pub endpoint: Endpoint,
    /// Slots of the ring.
    pub ring_slots: u64,
    /// Levels a side of a page entry.
    pub window: usize,
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

/// Returns the hash that guards every ring of records.
#[must_use]
pub fn record_schema() -> u64 {
    record::LAYOUT_HASH
}

/// The bell of the engine: whoever publishes to it rings, in case it sleeps.
pub const ENGINE_BELL: &str = "engine";

/// Returns the hash that guards the latest pages.
#[must_use]
pub fn page_schema() -> u64 {
    fnv1a(page::LAYOUT.as_bytes())
}

/// The name of a venue's ring.
#[must_use]
pub fn ring_name(name: &str) -> String {
    format!("{name}_engine")
}

/// The name of a venue's latest page.
#[must_use]
pub fn page_name(name: &str) -> String {
    format!("{name}_books")
}

/// The name of a venue's stats.
#[must_use]
pub fn stats_name(name: &str) -> String {
    format!("{name}_stats")
}

/// Names of the metrics of a feed tile; `status` and the metrics endpoint read them.
pub mod metric {
    /// Messages received.
    pub const MESSAGES: &str = "feed_message_total";
    /// Their bytes.
    pub const BYTES: &str = "feed_byte_total";
    /// Records published.
    pub const RECORDS: &str = "feed_record_total";
    /// Sequence gaps.
    pub const GAPS: &str = "feed_gap_total";
    /// Resynchronisations of a book.
    pub const RESYNCS: &str = "feed_resync_total";
    /// Messages that could not be read.
    pub const MALFORMED: &str = "feed_malformed_total";
    /// Checksums that matched.
    pub const CHECKSUM_OK: &str = "feed_checksum_ok_total";
    /// Checksums that did not.
    pub const CHECKSUM_BAD: &str = "feed_checksum_bad_total";
    /// Connections opened.
    pub const CONNECTS: &str = "feed_connect_total";
    /// Connections lost.
    pub const DISCONNECTS: &str = "feed_disconnect_total";
    /// REST requests.
    pub const REQUESTS: &str = "feed_request_total";
    /// REST requests that failed.
    pub const REQUESTS_FAILED: &str = "feed_request_failed_total";
    /// Live books that went over from one of two redundant connections to the other.
    pub const TAKEOVERS: &str = "feed_takeover_total";
    /// Times that two redundant connections disagreed.
    pub const DISAGREEMENTS: &str = "feed_disagreement_total";
    /// Batches that the other connection was too late to confirm.
    pub const UNCONFIRMED: &str = "feed_unconfirmed_total";
    /// Books that the other one of two redundant connections could take over now.
    pub const STANDBY_LIVE: &str = "feed_standby_live_count";
    /// Books of the venue.
    pub const BOOKS: &str = "feed_book_count";
    /// Books in sync.
    pub const BOOKS_LIVE: &str = "feed_book_live_count";
    /// When the venue's certificate ends, as it was shown at the last connect, UNIX seconds; 0 without TLS.
    pub const CERTIFICATE: &str = "feed_certificate_ends_seconds";
    /// From the kernel's stamp to the read's return, ns.
    pub const KERNEL_NS: &str = "feed_kernel_ns";
    /// From the read's return to the last record of the message published, ns.
    pub const DECODE_NS: &str = "feed_decode_ns";
    /// One turn of the loop that did something, ns.
    pub const TURN_NS: &str = "feed_turn_ns";
}

/// Reads one of a machine's counters.
type Get = fn(&MachineStats) -> u64;

struct Stats {
    writer: StatsWriter,
    /// Handle, what was told so far, and where it comes from.
    counters: Vec<(CounterHandle, u64, Get)>,
    books: GaugeHandle,
    books_live: GaugeHandle,
    standby_live: GaugeHandle,
    certificate: GaugeHandle,
    kernel_ns: HistogramHandle,
    decode_ns: HistogramHandle,
    turn_ns: HistogramHandle,
}

impl Stats {
    fn create(dir: &Path, name: &str) -> Result<Stats, ShmError> {
        let counters: [(&str, &str, Get); 15] = [
            (metric::MESSAGES, "message", |s| s.frames),
            (metric::BYTES, "byte", |s| s.bytes),
            (metric::RECORDS, "record", |s| s.records),
            (metric::GAPS, "gap", |s| s.gaps),
            (metric::RESYNCS, "resync", |s| s.resyncs),
            (metric::MALFORMED, "message", |s| s.malformed),
            (metric::CHECKSUM_OK, "message", |s| s.checksum_ok),
            (metric::CHECKSUM_BAD, "message", |s| s.checksum_bad),
            (metric::CONNECTS, "connection", |s| s.connects),
            (metric::DISCONNECTS, "connection", |s| s.disconnects),
            (metric::REQUESTS, "request", |s| s.requests),
            (metric::REQUESTS_FAILED, "request", |s| s.requests_failed),
            (metric::TAKEOVERS, "book", |s| s.takeovers),
            (metric::DISAGREEMENTS, "book", |s| s.disagreements),
            (metric::UNCONFIRMED, "batch", |s| s.unconfirmed),
        ];
        let mut metrics: Vec<Metric> =
            counters.iter().map(|(name, unit, _)| Metric::counter(*name, *unit)).collect();
        let gauges = [metric::BOOKS, metric::BOOKS_LIVE, metric::STANDBY_LIVE];
        metrics.extend(gauges.map(|name| Metric::gauge(name, "book")));
        metrics.push(Metric::gauge(metric::CERTIFICATE, "s"));
        let histograms = [metric::KERNEL_NS, metric::DECODE_NS, metric::TURN_NS];
        metrics.extend(histograms.map(|name| Metric::histogram(name, "ns")));
        let mut writer = StatsWriter::create(dir, name, &metrics)?;
        let missing = "a metric that was declared above";
        Ok(Stats {
            counters: counters
                .iter()
                .map(|(name, _, get)| (writer.counter(name).expect(missing), 0, *get))
                .collect(),
            books: writer.gauge(metric::BOOKS).expect(missing),
            books_live: writer.gauge(metric::BOOKS_LIVE).expect(missing),
            standby_live: writer.gauge(metric::STANDBY_LIVE).expect(missing),
            certificate: writer.gauge(metric::CERTIFICATE).expect(missing),
            kernel_ns: writer.histogram(metric::KERNEL_NS).expect(missing),
            decode_ns: writer.histogram(metric::DECODE_NS).expect(missing),
            turn_ns: writer.histogram(metric::TURN_NS).expect(missing),
            writer,
        })
    }

    fn update(&mut self, machine: &dyn Machine) {
        for (handle, told, get) in &mut self.counters {
            let now = get(machine.stats());
            handle.add(now.saturating_sub(*told));
            *told = now;
        }
        let count = machine.instruments().len();
        let live = (0..count).filter(|slot| machine.state(*slot).0 == BookState::Live).count();
        self.books.set(count as i64);
        self.books_live.set(live as i64);
        self.standby_live.set(machine.stats().standby_live.cast_signed());
        self.writer.beat(tsc());
    }
}

/// Each instrument's rules as they were published last, for the page: a consumer that starts later must not
/// wait for the venue's next word.
#[derive(Default)]
struct Rules {
    told: Vec<(u16, [i64; 4])>,
    /// Those that the page does not have yet.
    fresh: Vec<u16>,
}

impl Rules {
    fn of(&self, instrument: u16) -> Option<[i64; 4]> {
        self.told.iter().find(|(id, _)| *id == instrument).map(|(_, data)| *data)
    }

    #[cold]
    fn note(&mut self, record: &Record) {
        match self.told.iter_mut().find(|(id, _)| *id == record.instrument) {
            Some((_, data)) => *data = record.data,
            None => self.told.push((record.instrument, record.data)),
        }
        if !self.fresh.contains(&record.instrument) {
            self.fresh.push(record.instrument);
        }
    }
}

/// Puts records into the ring with what only the tile knows.
struct RingPublisher<'a> {
    ring: &'a mut RingWriter<Record>,
    rules: &'a mut Rules,
    recv_tsc: u64,
}

impl Publish for RingPublisher<'_> {
    #[inline]
    fn publish(&mut self, record: &Record) {
        if record.kind == Kind::InstrumentChange as u8 {
            self.rules.note(record);
        }
        let pub_tsc = tsc();
        let decode_ticks = match self.recv_tsc {
            0 => 0,
            recv_tsc => u32::try_from(pub_tsc.saturating_sub(recv_tsc)).unwrap_or(u32::MAX),
        };
        let epoch = self.ring.epoch() as u16;
        self.ring.publish(&Record { pub_tsc, decode_ticks, epoch, ..*record });
    }
}

struct Peer {
    connection: Connection,
    deadline_ns: i64,
    /// Stopped at the turn's bound: there is more to read.
    more: bool,
}

/// The host's wall clock, UNIX ns; the machine is told it, and reads none itself.
fn unix_now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A feed tile.
pub struct FeedTile {
    machine: Box<dyn Machine>,
    endpoint: Endpoint,
    poll: Poll,
    events: Events,
    resolver: Resolver,
    peers: HashMap<u32, Peer>,
    http: Client,
    http_deadline_ns: i64,
    due: Vec<(i64, Action)>,
    ring: RingWriter<Record>,
    rules: Rules,
    engine: Ringer,
    latest: LatestWriter,
    stats: Stats,
    /// For durations: its rate does not drift by more than the crystal.
    clock: Clock,
    wait: WaitMode,
    scratch: Vec<u8>,
    words: Vec<u64>,
    /// Tokens, then connections, to be looked at in a turn: kept, so that a turn allocates nothing.
    ready: Vec<usize>,
    next_timer_ns: i64,
    next_page_ns: i64,
}

impl FeedTile {
    /// Creates ring, page and stats; connects with the first turns.
    pub fn new(machine: Box<dyn Machine>, spec: &TileSpec<'_>) -> Result<FeedTile, TileError> {
        let tag = machine.venue() as u32;
        let ring_spec = RingSpec {
            tag,
            ..RingSpec::new(ring_name(&spec.name), spec.ring_slots, record_schema())
        };
        let ring = RingWriter::create(spec.dir, &ring_spec)?;
        // One entry a book, and one that says up to where all of them are current.
        let entries = machine.instruments().len() + 1;
        let words = page::words(spec.window);
        let latest_spec = LatestSpec {
            tag,
            ..LatestSpec::new(page_name(&spec.name), entries, words, page_schema())
        };
        let latest = LatestWriter::create(spec.dir, &latest_spec)?;
        let stats = Stats::create(spec.dir, &stats_name(&spec.name))?;
        for note in ring.notes().iter().chain(latest.notes()) {
            tracing::warn!(venue = spec.name, %note, "shared memory");
        }
        let host = match spec.endpoint.rest_port {
            443 => spec.endpoint.rest_host.clone(),
            port => format!("{}:{port}", spec.endpoint.rest_host),
        };
        let mut tile = FeedTile {
            http: Client::new(host),
            http_deadline_ns: 0,
            endpoint: spec.endpoint.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(64),
            resolver: Resolver::start(),
            peers: HashMap::new(),
            due: Vec::new(),
            ring,
            rules: Rules::default(),
            engine: Ringer::new(spec.dir, ENGINE_BELL),
            latest,
            stats,
            clock: Clock::calibrate(),
            wait: spec.wait,
            scratch: Vec::with_capacity(1 << 20),
            words: Vec::with_capacity(words),
            ready: Vec::with_capacity(64),
            next_timer_ns: 0,
            next_page_ns: 0,
            machine,
        };
        // Every entry is there before the first record is: a reader never waits for a quiet book.
        for slot in 0..tile.machine.instruments().len() {
            tile.write_page(slot);
        }
        tile.write_pages();
        Ok(tile)
    }

    /// Returns the machine, to look at its books.
    #[must_use]
    pub fn machine(&self) -> &dyn Machine {
        self.machine.as_ref()
    }

    /// One turn: sockets, timers, actions, page. Returns whether anything was received.
    pub fn turn(&mut self) -> io::Result<bool> {
        let timeout = match self.wait {
            _ if self.peers.values().any(|peer| peer.more) => Duration::ZERO,
            WaitMode::Spin | WaitMode::Yield => Duration::ZERO,
            WaitMode::Park => PARK,
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(err) if err.kind() != io::ErrorKind::Interrupted => return Err(err),
            _ => {}
        }
        let begun = tsc();
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        ready.extend(self.events.iter().map(|event| event.token().0));
        let mut busy = false;
        for token in &ready {
            if *token == HTTP_TOKEN.0 {
                self.drive_http();
            } else {
                busy |= self.drive(*token as u32 - 1);
            }
        }
        ready.clear();
        let unread = self.peers.iter().filter(|(_, peer)| peer.more);
        ready.extend(unread.map(|(conn, _)| *conn as usize));
        for conn in &ready {
            busy |= self.drive(*conn as u32);
        }
        self.ready = ready;
        let now_ns = unix_now_ns();
        if self.next_timer_ns <= now_ns {
            self.next_timer_ns = now_ns + TIMER_NS;
            self.on_timer(now_ns);
        }
        self.act(now_ns);
        if self.next_page_ns <= now_ns {
            self.next_page_ns = now_ns + PAGE_NS;
            self.write_pages();
        }
        if busy {
            let ticks = tsc().saturating_sub(begun);
            self.stats.turn_ns.record(self.clock.ticks_to_ns(ticks));
        } else if self.wait == WaitMode::Yield {
            std::thread::yield_now();
        }
        Ok(busy)
    }

    /// Marks ring and page closed, so that readers know this was no crash.
    pub fn close(mut self) {
        let conns: Vec<u32> = self.peers.keys().copied().collect();
        for conn in conns {
            if let Some(mut peer) = self.peers.remove(&conn) {
                peer.connection.close(false);
            }
        }
        self.write_pages();
        self.stats.update(self.machine.as_ref());
        self.stats.writer.close();
        self.latest.close();
        self.ring.close();
    }

    fn on_timer(&mut self, now_ns: i64) {
        let mut out = RingPublisher { ring: &mut self.ring, rules: &mut self.rules, recv_tsc: 0 };
        self.machine.on_timer(now_ns, &mut out);
        self.engine.ring();
        let late: Vec<u32> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.connection.is_open() && peer.deadline_ns < now_ns)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            self.gone(conn, CloseCause::Failed);
        }
        if self.http.wants_connection() && self.http_deadline_ns < now_ns {
            self.connect_http(now_ns);
        }
        self.drive_http();
        self.stats.update(self.machine.as_ref());
        self.engine.refresh();
        let at = tsc();
        self.ring.beat(at);
        self.latest.beat(at);
    }

    /// The UNIX time of a recent TSC reading.
    fn unix_ns(&self, at_tsc: u64) -> i64 {
        let ago = self.clock.ticks_to_ns(tsc().saturating_sub(at_tsc));
        unix_now_ns() - i64::try_from(ago).unwrap_or(0)
    }

    fn stamps(&self, stamp: crate::net::transport::ReadStamp, bytes: usize) -> Stamps {
        let recv_ns = match stamp.kernel_ns {
            0 => self.unix_ns(stamp.tsc),
            kernel_ns => kernel_ns,
        };
        Stamps { recv_ns, recv_tsc: stamp.tsc, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }

    /// Takes what a connection has; returns whether there was a message.
    fn drive(&mut self, conn: u32) -> bool {
        let mut got = false;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(peer) = self.peers.get_mut(&conn) else { return got };
            peer.more = false;
            match peer.connection.poll() {
                Event::Opened => {
                    // Looked at once a connection, before anything is read from it.
                    let ends_s = peer.connection.certificate_ends_s().unwrap_or(0);
                    self.stats.certificate.set(ends_s);
                    let now_ns = unix_now_ns();
                    self.machine.on_open(conn, now_ns);
                    self.act(now_ns);
                }
                Event::Message(frame, stamp) => {
                    got = true;
                    let at = self.stamps(stamp, frame.as_bytes().len());
                    self.scratch.clear();
                    self.scratch.extend_from_slice(frame.as_bytes());
                    let mut out = RingPublisher {
                        ring: &mut self.ring,
                        rules: &mut self.rules,
                        recv_tsc: at.recv_tsc,
                    };
                    self.machine.on_frame(conn, &mut self.scratch, at, &mut out);
                    self.engine.ring();
                    let ticks = tsc().saturating_sub(at.recv_tsc);
                    self.stats.decode_ns.record(self.clock.ticks_to_ns(ticks));
                    let read_ns = self.unix_ns(at.recv_tsc);
                    self.stats.kernel_ns.record(u64::try_from(read_ns - at.recv_ns).unwrap_or(0));
                }
                Event::Pong => self.machine.on_pong(conn, unix_now_ns()),
                Event::Gone(cause) => {
                    self.gone(conn, cause);
                    return got;
                }
                Event::Idle => return got,
            }
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.more = true;
        }
        got
    }

    fn gone(&mut self, conn: u32, cause: CloseCause) {
        if let Some(mut peer) = self.peers.remove(&conn) {
            if let Some(socket) = peer.connection.socket() {
                let _ = self.poll.registry().deregister(socket);
            }
            peer.connection.close(false);
        }
        tracing::info!(venue = self.machine.venue().name(), conn, ?cause, "connection gone");
        let mut out = RingPublisher { ring: &mut self.ring, rules: &mut self.rules, recv_tsc: 0 };
        self.machine.on_close(conn, cause, unix_now_ns(), &mut out);
        self.engine.ring();
    }

    /// Takes the machine's wishes and does those that are due.
    fn act(&mut self, now_ns: i64) {
        loop {
            while let Some(action) = self.machine.next_action() {
                let due_ns = match &action {
                    Action::Connect { not_before_ns, .. }
                    | Action::Send { not_before_ns, .. }
                    | Action::Get { not_before_ns, .. } => *not_before_ns,
                    Action::Ping { .. } | Action::Close { .. } => 0,
                };
                self.due.push((due_ns, action));
            }
            // In order of arrival among those that are due: actions of one connection keep their order.
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
            Action::Send { conn, text, .. } => {
                self.with_peer(conn, |connection| connection.send(text));
            }
            Action::Ping { conn } => self.with_peer(conn, Connection::ping),
            Action::Close { conn, reset } => {
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.connection.close(reset);
                    self.gone(conn, CloseCause::Local);
                }
            }
            Action::Get { request, path, .. } => {
                self.http.get(request, path);
                if self.http.wants_connection() {
                    self.connect_http(now_ns);
                }
                self.drive_http();
            }
        }
    }

    fn with_peer(
        &mut self,
        conn: u32,
        act: impl FnOnce(&mut Connection) -> Result<(), CloseCause>,
    ) {
        if let Some(peer) = self.peers.get_mut(&conn)
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

    fn connect(&mut self, conn: u32, path: String, now_ns: i64) {
        let endpoint = &self.endpoint;
        let Some(address) = self.resolver.address(&endpoint.ws_host, endpoint.ws_port) else {
            // The name is being asked for: try again shortly, give up never; the machine's own
            // time-outs see to the rest.
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
                    let token = Token(conn as usize + 1);
                    self.poll.registry().register(socket, token, interest)?;
                }
                Ok(connection)
            });
        match opened {
            Ok(connection) => {
                let deadline_ns = now_ns + HANDSHAKE_NS;
                self.peers.insert(conn, Peer { connection, deadline_ns, more: false });
            }
            Err(err) => {
                tracing::warn!(venue = self.machine.venue().name(), %address, %err, "no connection");
                self.gone(conn, CloseCause::Failed);
            }
        }
    }

    fn connect_http(&mut self, now_ns: i64) {
        self.http_deadline_ns = now_ns + 50_000_000;
        let endpoint = &self.endpoint;
        let Some(address) = self.resolver.address(&endpoint.rest_host, endpoint.rest_port) else {
            return;
        };
        let made = Self::tls(endpoint, &endpoint.rest_host)
            .and_then(|tls| Transport::connect(address, tls))
            .and_then(|mut transport| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(transport.socket(), HTTP_TOKEN, interest)?;
                Ok(transport)
            });
        match made {
            Ok(transport) => self.http.attach(transport),
            Err(err) => {
                tracing::warn!(venue = self.machine.venue().name(), %address, %err, "no REST");
                let event = self.http.fail_first();
                self.on_http(event);
            }
        }
    }

    fn drive_http(&mut self) {
        loop {
            let event = self.http.poll(unix_now_ns());
            if matches!(event, http::Event::Idle) {
                return;
            }
            self.on_http(event);
        }
    }

    fn on_http(&mut self, event: http::Event) {
        match event {
            http::Event::Answered(mut answer) => {
                let at = self.stamps(answer.stamp, answer.body.len());
                let mut out =
                    RingPublisher { ring: &mut self.ring, rules: &mut self.rules, recv_tsc: 0 };
                let reply = Reply::Answer {
                    status: answer.head.status,
                    retry_after_s: answer.head.retry_after_s,
                    used_weight: answer.head.used_weight,
                    body: &mut answer.body,
                };
                self.machine.on_reply(answer.request, reply, at, &mut out);
                self.engine.ring();
            }
            http::Event::Failed(request) => {
                let now = tsc();
                let at = Stamps { recv_ns: unix_now_ns(), recv_tsc: now, bytes: 0 };
                let mut out =
                    RingPublisher { ring: &mut self.ring, rules: &mut self.rules, recv_tsc: 0 };
                self.machine.on_reply(request, Reply::Failed, at, &mut out);
                self.engine.ring();
            }
            http::Event::Idle => {}
        }
    }

    fn write_page(&mut self, slot: usize) {
        page::encode(
            &mut self.words,
            self.ring.next_seq().wrapping_sub(1),
            (self.ring.epoch() as u16, self.machine.instruments()[slot].id),
            self.machine.state(slot),
            &self.machine.position(slot),
            self.rules.of(self.machine.instruments()[slot].id),
            self.machine.book(slot),
            self.machine.shown(slot),
        );
        self.latest.write(slot, &self.words);
    }

    fn write_pages(&mut self) {
        while let Some(slot) = self.machine.take_dirty() {
            self.write_page(slot);
        }
        while let Some(id) = self.rules.fresh.pop() {
            if let Some(slot) = self.machine.instruments().iter().position(|known| known.id == id) {
                self.write_page(slot);
            }
        }
        let as_of_seq = self.ring.next_seq().wrapping_sub(1);
        let epoch = self.ring.epoch() as u16;
        let last = self.machine.instruments().len();
        self.latest.write(last, &[as_of_seq, u64::from(epoch)]);
    }
}
