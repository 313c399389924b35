//! A gateway on a scripted venue: no sockets, a clock that the test moves.

#![allow(dead_code, clippy::unwrap_used, reason = "every test file uses another part of it")]

use std::cell::Cell;

use tandem_core::account::{Session, SessionState};
use tandem_core::instrument::{FeeIn, Universe};
use tandem_core::order::{Action as Way, NewOrder, OrderKey, Purpose, Report, Tif};
use tandem_core::record::{Kind, Record, TradingStatus, Venue};
use tandem_core::units::{FeePpm, Px, Qty};
use tandem_feeds::machine::{CloseCause, Reply, Stamps};
use tandem_feeds::spec::{InstrumentRules, Listing, VenueInstrument, build_universe};
use tandem_gateway::config::Config;
use tandem_gateway::desk::Desk;
use tandem_gateway::gate::{Gate, LocalGate};
use tandem_gateway::gateway::{Gateway, Stamp};
use tandem_gateway::guard::{GuardReason, Permit, Route, Wires};
use tandem_gateway::keys::Credentials;
use tandem_gateway::machine::{Action, Dialect};

pub const START: i64 = 1_764_000_000_000_000_000;
pub const MS: i64 = 1_000_000;
pub const SECOND: i64 = 1_000 * MS;
pub const RUN: u32 = 7;

/// BTC in the venue's dollar, and ETH in BTC.
pub fn universe(venue: Venue) -> (Universe, Vec<VenueInstrument>) {
    let rules = |base: &str, quote: &str, tick: &str, lot: &str| {
        let (symbol, rest_symbol) = match venue {
            Venue::Binance => (format!("{base}{quote}"), format!("{base}{quote}")),
            Venue::Coinbase => (format!("{base}-{quote}"), format!("{base}-{quote}")),
            Venue::Kraken => {
                (format!("{base}/{quote}"), format!("{base}{quote}").replace("BTC", "XBT"))
            }
        };
        InstrumentRules {
            venue,
            feed_symbol: symbol.clone(),
            symbol,
            rest_symbol,
            base: base.into(),
            quote: quote.into(),
            tick: tick.into(),
            lot: lot.into(),
            qty_min: String::new(),
            qty_max: String::new(),
            notional_min: "1".into(),
            price_precision: None,
            qty_precision: None,
            asset_precision: None,
            status: TradingStatus::Trading,
        }
    };
    let dollar = if venue == Venue::Binance { "USDT" } else { "USD" };
    let listings: Vec<Listing> =
        [rules("BTC", dollar, "0.01", "0.00000001"), rules("ETH", "BTC", "0.00001", "0.0001")]
            .into_iter()
            .map(|rules| Listing {
                rules,
                taker_fee: FeePpm(1_000),
                fee_in: FeeIn::Quote,
                notional_max: "100000".into(),
            })
            .collect();
    build_universe(&listings).expect("a universe")
}

/// What a scripted venue says.
pub trait Script {
    /// A connection is open: what it says unasked.
    fn on_open(&mut self, _conn: u32) -> Vec<String> {
        Vec::new()
    }
    /// A text came: what it answers, now.
    fn on_text(&mut self, conn: u32, text: &str) -> Vec<String>;
    /// What comes every second.
    fn heartbeat(&mut self) -> Option<(u32, String)> {
        None
    }
    /// A request came: status and body; nothing for no answer.
    fn on_http(&mut self, _head: &str, _body: &str) -> Option<(u16, String)> {
        None
    }
}

#[derive(Default)]
pub struct Recorder {
    pub staged: Option<(Route, Vec<u8>)>,
    pub sent: Vec<(Route, String)>,
    pub refuse: bool,
    pub fail: bool,
    pub discarded: usize,
}

impl Wires for Recorder {
    fn stage(&mut self, route: Route, bytes: &[u8]) -> bool {
        self.staged = Some((route, bytes.to_vec()));
        !self.refuse
    }
    fn commit(&mut self, _: Route, _: Permit) -> bool {
        let (route, bytes) = self.staged.take().expect("staged before");
        self.sent.push((route, String::from_utf8(bytes).expect("text")));
        !self.fail
    }
    fn discard(&mut self, _: Route) {
        self.staged = None;
        self.discarded += 1;
    }
}

pub struct TestClock(pub Cell<i64>);

impl Stamp for TestClock {
    fn now(&self) -> (i64, u64) {
        (self.0.get(), self.0.get().unsigned_abs())
    }
}

pub struct Bench<S> {
    pub gateway: Gateway,
    pub gate: LocalGate,
    pub wires: Recorder,
    pub clock: TestClock,
    pub script: S,
    pub open: Vec<u32>,
    pub records: Vec<Record>,
    /// Everything that was sent besides orders.
    pub said: Vec<String>,
    pub waiting: Vec<(u32, i64)>,
    pub orders: u64,
}

pub fn no_abort(_: GuardReason) {}

pub fn config(venue: Venue) -> Config {
    Config { rest_host: "venue.test".into(), ..Config::for_venue(venue) }
}

/// Lists of trades come every 30 s, count for fills older than 5 s, and are confirmed after 3 s.
pub fn quick(venue: Venue) -> Config {
    Config {
        trades_every_ns: 30 * SECOND,
        bust_age_ns: 5 * SECOND,
        bust_confirm_ns: 3 * SECOND,
        ..config(venue)
    }
}

impl<S: Script> Bench<S> {
    pub fn new(
        venue: Venue,
        config: Config,
        credentials: &Credentials,
        make: impl FnOnce(&Credentials, &Desk) -> Box<dyn Dialect>,
        script: S,
    ) -> Bench<S> {
        let (universe, instruments) = universe(venue);
        let desk = Desk::new(venue, &universe, &instruments, config);
        let dialect = make(credentials, &desk);
        let mut bench = Bench {
            gateway: Gateway::new(dialect, desk, no_abort),
            gate: LocalGate::armed(),
            wires: Recorder::default(),
            clock: TestClock(Cell::new(START)),
            script,
            open: Vec::new(),
            records: Vec::new(),
            said: Vec::new(),
            waiting: Vec::new(),
            orders: 0,
        };
        bench.gateway.start(START);
        bench
    }

    pub fn now(&self) -> i64 {
        self.clock.0.get()
    }

    pub fn at(&self) -> Stamps {
        Stamps { recv_ns: self.now(), recv_tsc: 1, bytes: 10 }
    }

    /// Does what the gateway wants, until it wants nothing.
    pub fn pump(&mut self) {
        loop {
            let now = self.now();
            if let Some(at) = self.waiting.iter().position(|(_, due)| *due <= now) {
                let (conn, _) = self.waiting.remove(at);
                self.open.push(conn);
                self.gateway.on_open(conn, now);
                for text in self.script.on_open(conn) {
                    self.hear(conn, &text);
                }
            }
            match self.gateway.next_action() {
                None if self.waiting.iter().all(|(_, due)| now < *due) => break,
                None => {}
                Some(Action::Connect { conn, not_before_ns, .. }) => {
                    self.waiting.push((conn, not_before_ns));
                }
                Some(Action::Send { conn, text }) => {
                    assert!(!is_order(&text), "an order left as an action: {text}");
                    if !self.open.contains(&conn) {
                        continue;
                    }
                    self.said.push(text.clone());
                    for answer in self.script.on_text(conn, &text) {
                        self.hear(conn, &answer);
                    }
                }
                Some(Action::Ping { conn }) => self.gateway.on_pong(conn, now),
                Some(Action::Close { conn, .. }) => self.close(conn, CloseCause::Local),
                Some(Action::Drop { request, .. }) => {
                    let at = self.at();
                    self.gateway.on_reply(request, Reply::Failed, at, &self.gate);
                }
                Some(Action::Http { request, bytes, .. }) => {
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(!is_order(&text), "an order left as an action: {text}");
                    let (head, body) = text.split_once("\r\n\r\n").unwrap();
                    self.said.push(text.clone());
                    if let Some((status, body)) = self.script.on_http(head, body) {
                        self.answer(request, status, &body);
                    }
                }
            }
        }
        while let Some(record) = self.gateway.next_record() {
            self.records.push(record);
        }
    }

    pub fn answer(&mut self, request: u32, status: u16, body: &str) {
        let mut body = body.as_bytes().to_vec();
        let reply =
            Reply::Answer { status, retry_after_s: None, used_weight: None, body: &mut body };
        let at = self.at();
        self.gateway.on_reply(request, reply, at, &self.gate);
    }

    pub fn hear(&mut self, conn: u32, text: &str) {
        let at = self.at();
        self.gateway.on_text(conn, text.as_bytes(), at, &self.gate);
    }

    /// Hears a message and does what follows.
    pub fn say(&mut self, conn: u32, text: &str) {
        self.hear(conn, text);
        self.pump();
    }

    pub fn close(&mut self, conn: u32, cause: CloseCause) {
        self.open.retain(|open| *open != conn);
        self.waiting.retain(|(waiting, _)| *waiting != conn);
        let now = self.now();
        self.gateway.on_close(conn, cause, now, &self.gate);
    }

    /// Lets time pass in steps of 10 ms.
    pub fn pass(&mut self, ms: i64) {
        for _ in 0..(ms / 10).max(1) {
            self.clock.0.set(self.now() + 10 * MS);
            if (self.now() / (10 * MS)) % 100 == 0
                && let Some((conn, text)) = self.script.heartbeat()
                && self.open.contains(&conn)
            {
                self.hear(conn, &text);
            }
            self.gateway.on_timer(self.now(), true, &self.gate);
            self.pump();
        }
    }

    pub fn ready(&mut self) {
        for _ in 0..200 {
            self.pass(10);
            if self.state() == SessionState::Ready {
                return;
            }
        }
        panic!("not ready: {:?}, said {:#?}", self.gateway.desk().recon, self.said);
    }

    pub fn state(&self) -> SessionState {
        self.gateway.desk().state(self.now())
    }

    pub fn order(&mut self) -> NewOrder {
        self.orders += 1;
        NewOrder {
            run: RUN,
            key: OrderKey::new(self.orders, 0),
            venue: self.gateway.venue(),
            instrument: 0,
            action: Way::Buy,
            px: Px(6_000_010),
            qty: Qty(1_500_000),
            tif: Tif::Ioc,
            purpose: Purpose::Entry,
            expires_ns: self.now() + 500 * MS,
            cause: 1,
            level_epoch: 0,
        }
    }

    /// Gives an order to the gateway; returns its text where it left.
    pub fn send(&mut self, order: &NewOrder) -> Option<String> {
        let record = order.record(&Record { recv_tsc: 5, ..Record::default() });
        self.give(&record)
    }

    pub fn give(&mut self, record: &Record) -> Option<String> {
        let before = self.wires.sent.len();
        self.gateway.take(record, &self.gate, &mut self.wires, &self.clock);
        self.pump();
        self.wires.sent.get(before).map(|(_, text)| text.clone())
    }

    /// Returns what was reported on an order.
    pub fn reports(&self, order: &NewOrder) -> Vec<Report> {
        self.records
            .iter()
            .filter_map(Report::read)
            .filter(|(run, key, _)| (*run, *key) == (order.run, order.key))
            .map(|(_, _, report)| report)
            .collect()
    }

    pub fn kinds(&self, kind: Kind) -> Vec<Record> {
        self.records.iter().filter(|r| r.kind() == Some(kind)).copied().collect()
    }

    pub fn sessions(&self) -> Vec<SessionState> {
        let mut states: Vec<_> =
            self.records.iter().filter_map(Session::read).map(|s| s.state).collect();
        states.dedup();
        states
    }

    pub fn level(&self) -> tandem_core::level::Level {
        self.gate.level().effective(self.gateway.venue())
    }
}

/// Whether a text would place an order.
pub fn is_order(text: &str) -> bool {
    ["order.place", "\"add_order\"", "AddOrder", "POST /api/v3/brokerage/orders HTTP"]
        .iter()
        .any(|part| text.contains(part))
}

/// The value of a member, wherever in the text: enough for scripts.
pub fn member(text: &str, name: &str) -> String {
    let Some((_, rest)) = text.split_once(&format!("\"{name}\":")) else { return String::new() };
    let rest = rest.trim_start_matches('"');
    rest.split(['"', ',', '}']).next().unwrap_or_default().to_owned()
}
