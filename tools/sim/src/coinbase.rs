//! Coinbase Advanced Trade: WebSocket and public REST (`protocols/coinbase.md` 4-6, 9, 10).
//!
//! Invariant: `sequence_num` counts every frame of a connection from 0, whatever its channel, and a fault
//! that loses a frame loses its number with it. A level2 snapshot and the updates after it join exactly.
//!
//! `market_trades.side` is the maker's side: in the recorded tapes a `BUY` trades at the bid.
//!
//! Not here: tokens, orders, accounts and the `user` channel (`private`).

mod private;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use crate::book::{Book, Side};
use crate::config::{SimConfig, Venue};
use crate::exchange::Mode;
use crate::faults::{Class, Kind};
use crate::history::candles;
use crate::hub::{ConnId, Out, Outbox};
use crate::limits::{Buckets, FixedWindow};
use crate::market::{Change, Event, MS, Market, Spec, Status, Trade, rng};
use crate::net::{Request, Response};
use crate::observe::Mark;
use crate::units::{go_time, rfc3339_ns, rfc3339_s, rfc3339_us, write_json_string};
use crate::world::{Ctx, Tape, changes_of, spoil_snapshot};
use crate::ws::Incoming;

const VENUE: Venue = Venue::Coinbase;
const PREFIX: &str = "/api/v3/brokerage/";
const TRADES_KEPT: usize = 300;
const CACHE_MAX: usize = 256;

const CHANNELS: [&str; 7] =
    ["heartbeats", "level2", "ticker", "ticker_batch", "market_trades", "status", "candles"];

#[derive(Debug)]
struct Conn {
    sequence: u64,
    opened_ns: u64,
    subscribed: bool,
    /// Channel to the product ids as the client wrote them.
    subs: BTreeMap<&'static str, BTreeSet<String>>,
    /// Instruments with level2, market_trades, ticker, candles: bits of [`bit`].
    wants: BTreeMap<usize, u8>,
    heartbeat_ns: u64,
    heartbeats: u64,
    data_ns: u64,
    trades: BTreeMap<usize, Vec<(u64, Trade)>>,
    trades_ns: u64,
    batch_ns: u64,
    status_ns: u64,
    candles_ns: u64,
    /// Acknowledgements that come after the snapshot.
    acks: Vec<u64>,
    /// Set when the client was subscribed before the tape began: it gets recorded bytes untouched.
    on_tape: bool,
    closing: bool,
    /// Account of the `user` subscription.
    user: Option<usize>,
}

/// Figures of one product beside its book.
#[derive(Debug, Default)]
struct Stats {
    trades: VecDeque<(u64, Trade)>,
    open: i64,
    high: i64,
    low: i64,
    last: i64,
    volume: i128,
    candle: Candle,
    traded_ns: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Candle {
    start_s: u64,
    open: i64,
    high: i64,
    low: i64,
    close: i64,
    volume: i64,
}

/// The Coinbase face.
#[derive(Debug)]
pub(crate) struct Coinbase {
    conns: BTreeMap<ConnId, Conn>,
    stats: BTreeMap<usize, Stats>,
    rng: ChaCha8Rng,
    connects: FixedWindow,
    messages: FixedWindow,
    public: Buckets<IpAddr>,
    /// By key, or by nobody's where there are no keys.
    private: Buckets<usize>,
    hourly: BTreeMap<usize, (u64, u64)>,
    cache: BTreeMap<String, (u64, String)>,
    /// Level2 events of this tick, in order.
    pending: Vec<(usize, String)>,
}

fn bit(channel: &str) -> u8 {
    match channel {
        "level2" => 1,
        "market_trades" => 2,
        "ticker" => 4,
        "ticker_batch" => 8,
        "candles" => 16,
        _ => 0,
    }
}

/// One frame of a tape.
pub(crate) struct Recorded<'a> {
    pub inst: Option<usize>,
    pub class: Class,
    pub raw: &'a Bytes,
    pub sequence: Option<u64>,
    /// `heartbeat_counter`, if it is a heartbeat.
    pub counter: Option<u64>,
}

/// Why a subscribe is refused.
struct Refused(String);

impl Coinbase {
    pub fn new(cfg: &SimConfig, market: &Market) -> Self {
        let mine = market.instruments().iter().enumerate().filter(|(_, i)| i.spec.venue == VENUE);
        let cc = &cfg.coinbase;
        Self {
            conns: BTreeMap::new(),
            stats: mine.map(|(i, _)| (i, Stats::default())).collect(),
            rng: rng(cfg.seed, 5),
            connects: FixedWindow::new(1),
            messages: FixedWindow::new(1),
            public: Buckets::new(f64::from(cc.public_per_s), f64::from(cc.public_per_s)),
            private: Buckets::new(f64::from(cc.private_per_s), f64::from(cc.private_per_s)),
            hourly: BTreeMap::new(),
            cache: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    pub fn has_subscriber(&self) -> bool {
        self.conns.values().any(|c| c.wants.values().any(|w| w & bit("level2") != 0))
    }

    pub fn closed(&mut self, id: ConnId) {
        self.conns.remove(&id);
    }

    pub fn open(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Result<Outbox, Response> {
        let tried = self.connects.add(request.peer, 1, ctx.now);
        if tried > u64::from(ctx.cfg.coinbase.connects_per_s) {
            return Err(too_many());
        }
        let outbox = ctx.hub.open(VENUE, request.peer, request.tls, request.path.clone());
        let conn = Conn {
            sequence: 0,
            opened_ns: ctx.now,
            subscribed: false,
            subs: BTreeMap::new(),
            wants: BTreeMap::new(),
            heartbeat_ns: 0,
            heartbeats: 0,
            data_ns: ctx.now,
            trades: BTreeMap::new(),
            trades_ns: ctx.now,
            batch_ns: ctx.now,
            status_ns: ctx.now,
            candles_ns: ctx.now,
            acks: Vec::new(),
            on_tape: false,
            closing: false,
            user: None,
        };
        self.conns.insert(outbox.id, conn);
        Ok(outbox)
    }

    /// Resolves a product id; `X-USDC` is `X-USD` unless it has its own book.
    fn resolve(market: &Market, product: &str) -> Option<usize> {
        market.find(VENUE, product).or_else(|| {
            let base = product.strip_suffix("-USDC")?;
            market.find(VENUE, &format!("{base}-USD"))
        })
    }

    pub fn message(&mut self, ctx: &mut Ctx<'_>, id: ConnId, message: Incoming) {
        let text = match message {
            Incoming::Ping(payload) => {
                ctx.hub.control(id, Out::Pong(Bytes::from(payload)));
                return;
            }
            Incoming::Text(text) => text,
            _ => return,
        };
        let Some(mut conn) = self.conns.remove(&id) else { return };
        if let Err(Refused(why)) = self.request(ctx, id, &mut conn, &text) {
            let mut body = "{\"type\":\"error\",\"message\":".to_owned();
            write_json_string(&why, &mut body);
            body.push('}');
            ctx.hub.send(id, Class::Reply, "", Bytes::from(body));
        }
        self.conns.insert(id, conn);
    }

    fn request(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        text: &str,
    ) -> Result<(), Refused> {
        let value: Value = serde_json::from_str(text)
            .map_err(|_| Refused("invalid request: not JSON".to_owned()))?;
        let has_token = value.get("jwt").and_then(Value::as_str).is_some_and(|t| !t.is_empty());
        let peer = ctx.hub.links.get(&id).map(|l| l.peer);
        if let Some(peer) = peer
            && !has_token
            && self.messages.add(peer, 1, ctx.now) > u64::from(ctx.cfg.coinbase.messages_per_s)
        {
            return Err(Refused("rate limit exceeded".to_owned()));
        }
        let channel = value
            .get("channel")
            .and_then(Value::as_str)
            .ok_or_else(|| Refused("channel is required".to_owned()))?;
        let key = value.get("jwt").and_then(Value::as_str).and_then(|t| private::ws_key(ctx, t));
        // A token is checked wherever it comes; a venue without keys lets any pass for market data.
        if has_token && key.is_none() && !ctx.keys.is_empty() {
            return Err(Refused("authentication failure".to_owned()));
        }
        if channel == "user" {
            let refused = || Refused("authentication failure".to_owned());
            return self.user_channel(ctx, id, conn, &value, key.ok_or_else(refused)?);
        }
        if channel == "futures_balance_summary" {
            return Err(Refused("authentication failure".to_owned()));
        }
        let channel = *CHANNELS
            .iter()
            .find(|c| **c == channel)
            .ok_or_else(|| Refused(format!("invalid channel: {channel}")))?;
        let products: Vec<String> = match value.get("product_ids") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let names: Option<Vec<String>> =
                    list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                names.ok_or_else(|| Refused("product_ids must be strings".to_owned()))?
            }
            Some(_) => return Err(Refused("product_ids must be a list".to_owned())),
        };
        for product in &products {
            if Self::resolve(ctx.market, product).is_none() {
                return Err(Refused(format!("invalid product: {product}")));
            }
        }
        // From its first own answer on, a connection on the tape has numbers of its own.
        conn.on_tape &= matches!(ctx.tape, Tape::Waiting(_));
        match value.get("type").and_then(Value::as_str) {
            Some("subscribe") => self.subscribe(ctx, id, conn, channel, products),
            Some("unsubscribe") => {
                self.unsubscribe(ctx, id, conn, channel, &products);
                Ok(())
            }
            _ => Err(Refused("type must be subscribe or unsubscribe".to_owned())),
        }
    }

    /// Subscribes to `user`, or ends that.
    fn user_channel(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        value: &Value,
        key: usize,
    ) -> Result<(), Refused> {
        conn.subscribed = true;
        let account = ctx.keys.get(key).account;
        match value.get("type").and_then(Value::as_str) {
            Some("subscribe") => {
                let id_text = ctx.desk.ext_id(VENUE, 'F', account);
                conn.subs.entry("user").or_default().insert(id_text);
                let late = self.rng.random::<bool>();
                if !late {
                    self.acknowledge(ctx, id, conn);
                }
                self.open_user(ctx, id, conn, account);
                if late {
                    self.acknowledge(ctx, id, conn);
                }
                Ok(())
            }
            Some("unsubscribe") => {
                conn.subs.remove("user");
                conn.user = None;
                self.acknowledge(ctx, id, conn);
                Ok(())
            }
            _ => Err(Refused("type must be subscribe or unsubscribe".to_owned())),
        }
    }

    fn subscribe(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        channel: &'static str,
        products: Vec<String>,
    ) -> Result<(), Refused> {
        let all = channel == "heartbeats";
        if products.is_empty() && !all {
            return Err(Refused("product_ids is required".to_owned()));
        }
        conn.subscribed = true;
        let mut fresh = Vec::new();
        let list = conn.subs.entry(channel).or_default();
        if all {
            list.insert("heartbeats".to_owned());
        }
        for product in products {
            if let Some(inst) = Self::resolve(ctx.market, &product) {
                let wants = conn.wants.entry(inst).or_insert(0);
                if channel == "status" || *wants & bit(channel) == 0 {
                    fresh.push(inst);
                }
                *wants |= bit(channel);
            }
            if !all {
                list.insert(product);
            }
        }
        if matches!(ctx.tape, Tape::Waiting(_)) {
            // The tape holds the acknowledgement and the snapshot; they come when it starts.
            conn.on_tape |= channel == "level2";
            return Ok(());
        }
        // The ack's place against the first snapshot is not documented; recorded ones come after.
        let late = channel == "level2" && self.rng.random::<f64>() < 0.7;
        if late {
            conn.acks.push(ctx.now + self.rng.random_range(0..30) * MS);
        } else {
            self.acknowledge(ctx, id, conn);
        }
        for inst in fresh {
            self.first(ctx, id, conn, channel, inst);
        }
        Ok(())
    }

    fn unsubscribe(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        channel: &'static str,
        products: &[String],
    ) {
        let list = conn.subs.entry(channel).or_default();
        if products.is_empty() {
            list.clear();
        }
        for product in products {
            list.remove(product);
        }
        // An alias may still hold the book.
        let held: BTreeSet<usize> =
            list.iter().filter_map(|p| Self::resolve(ctx.market, p)).collect();
        if list.is_empty() {
            conn.subs.remove(channel);
        }
        for (inst, wants) in &mut conn.wants {
            if !held.contains(inst) {
                *wants &= !bit(channel);
            }
        }
        self.acknowledge(ctx, id, conn);
    }

    /// Sends the full list of subscriptions.
    fn acknowledge(&mut self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn) {
        let mut events = "[{\"subscriptions\":{".to_owned();
        for (i, (channel, products)) in conn.subs.iter().enumerate() {
            let list: Vec<String> = products.iter().map(|p| format!("\"{p}\"")).collect();
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(events, "{comma}\"{channel}\":[{}]", list.join(","));
        }
        events.push_str("}}]");
        Self::frame(ctx, id, conn, "subscriptions", "", Class::Reply, &events);
    }

    /// Sends one frame under the connection's next number.
    fn frame(
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        channel: &str,
        symbol: &str,
        class: Class,
        events: &str,
    ) {
        let mut body = String::with_capacity(events.len() + 160);
        let _ = write!(
            body,
            "{{\"channel\":\"{channel}\",\"client_id\":\"\",\"timestamp\":\"{}\",\"sequence_num\":{},\
             \"events\":{events}}}",
            rfc3339_ns(ctx.hub.venue_now(VENUE)),
            conn.sequence
        );
        let inst = if class == Class::Book { ctx.market.find(VENUE, symbol) } else { None };
        let mark = inst.map(|inst| Mark { venue: VENUE, inst, id: conn.sequence });
        conn.sequence += 1;
        conn.data_ns = ctx.now;
        if class == Class::User {
            Self::send_user(ctx, id, symbol, body);
            return;
        }
        ctx.hub.send_marked(id, class, symbol, Bytes::from(body), mark);
    }

    /// The snapshot that opens a channel.
    fn first(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        channel: &str,
        inst: usize,
    ) {
        let spec = Arc::clone(&ctx.market.instruments()[inst].spec);
        match channel {
            "level2" => {
                let wrong =
                    ctx.hub.faults.take(Kind::WrongSnapshot, VENUE, &spec.symbol, id).is_some();
                let book = &ctx.market.instruments()[inst].book;
                let events = l2_snapshot(&spec, book, ctx.now, wrong);
                Self::frame(ctx, id, conn, "l2_data", &spec.symbol, Class::Book, &events);
            }
            "market_trades" => {
                let rows: Vec<String> = self
                    .stats
                    .get(&inst)
                    .into_iter()
                    .flat_map(|s| s.trades.iter().rev().take(100))
                    .map(|(at, t)| trade_row(&spec, *at, t))
                    .collect();
                let events = format!("[{{\"type\":\"snapshot\",\"trades\":[{}]}}]", rows.join(","));
                Self::frame(ctx, id, conn, "market_trades", &spec.symbol, Class::Trade, &events);
            }
            "ticker" | "ticker_batch" => {
                let row = self.ticker_row(ctx, inst);
                let events = format!("[{{\"type\":\"snapshot\",\"tickers\":[{row}]}}]");
                Self::frame(ctx, id, conn, channel, &spec.symbol, Class::Info, &events);
            }
            "status" => {
                let row = status_row(ctx, inst);
                let events = format!("[{{\"type\":\"snapshot\",\"products\":[{row}]}}]");
                Self::frame(ctx, id, conn, "status", &spec.symbol, Class::Info, &events);
            }
            "candles" => {
                let row = self.candle_row(ctx, inst);
                let events = format!("[{{\"type\":\"snapshot\",\"candles\":[{row}]}}]");
                Self::frame(ctx, id, conn, "candles", &spec.symbol, Class::Info, &events);
            }
            _ => {}
        }
    }

    /// Notes an event; its level2 messages leave with the tick.
    pub fn on_event(&mut self, ctx: &mut Ctx<'_>, event: &Event) {
        let it = &ctx.market.instruments()[event.inst];
        if !event.changes.is_empty() {
            let body = l2_update(&it.spec, &event.changes, ctx.hub.venue_now(VENUE));
            self.pending.push((event.inst, body));
        }
        if event.trades.is_empty() {
            return;
        }
        let at = ctx.hub.venue_now(VENUE);
        self.count(event, at);
        // The ticker must not overtake the level2 changes of the same match.
        self.flush(ctx);
        let row = self.ticker_row(ctx, event.inst);
        let events = format!("[{{\"type\":\"update\",\"tickers\":[{row}]}}]");
        let spec = Arc::clone(&ctx.market.instruments()[event.inst].spec);
        for (id, conn) in &mut self.conns {
            let wants = conn.wants.get(&event.inst).copied().unwrap_or(0);
            if wants & bit("market_trades") != 0 {
                let list = conn.trades.entry(event.inst).or_default();
                list.extend(event.trades.iter().map(|t| (at, *t)));
            }
            if wants & bit("ticker") != 0 {
                Self::frame(ctx, *id, conn, "ticker", &spec.symbol, Class::Info, &events);
            }
        }
    }

    fn count(&mut self, event: &Event, at: u64) {
        let Some(stats) = self.stats.get_mut(&event.inst) else { return };
        stats.traded_ns = at;
        for trade in &event.trades {
            if stats.open == 0 {
                (stats.open, stats.high, stats.low) = (trade.px, trade.px, trade.px);
            }
            stats.high = stats.high.max(trade.px);
            stats.low = stats.low.min(trade.px);
            stats.last = trade.px;
            stats.volume += i128::from(trade.qty);
            let start_s = at / 1_000_000_000 / 300 * 300;
            let candle = &mut stats.candle;
            if candle.start_s != start_s {
                let px = trade.px;
                *candle = Candle { start_s, open: px, high: px, low: px, close: px, volume: 0 };
            }
            candle.high = candle.high.max(trade.px);
            candle.low = candle.low.min(trade.px);
            candle.close = trade.px;
            candle.volume = candle.volume.saturating_add(trade.qty);
            stats.trades.push_back((at, *trade));
        }
        let surplus = stats.trades.len().saturating_sub(TRADES_KEPT);
        stats.trades.drain(..surplus);
    }

    /// Sends the level2 events that wait, sometimes several in one frame.
    fn flush(&mut self, ctx: &mut Ctx<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let together = pending.len() > 1 && self.rng.random::<f64>() < 0.125;
        for (id, conn) in &mut self.conns {
            let wanted = pending
                .iter()
                .filter(|(inst, _)| conn.wants.get(inst).is_some_and(|w| w & bit("level2") != 0));
            let wanted: Vec<&(usize, String)> = wanted.collect();
            if together && wanted.len() > 1 {
                let bodies: Vec<&str> = wanted.iter().map(|(_, body)| body.as_str()).collect();
                let events = format!("[{}]", bodies.join(","));
                // A frame of several products belongs to any of them for a fault.
                Self::frame(ctx, *id, conn, "l2_data", "*", Class::Book, &events);
                continue;
            }
            for (inst, body) in wanted {
                let spec = Arc::clone(&ctx.market.instruments()[*inst].spec);
                let events = format!("[{body}]");
                Self::frame(ctx, *id, conn, "l2_data", &spec.symbol, Class::Book, &events);
            }
        }
    }

    /// Sends what time brings: level2 of this tick, acks, heartbeats, batches, closes.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        self.flush(ctx);
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            if let Some(mut conn) = self.conns.remove(&id) {
                self.tick_one(ctx, id, &mut conn);
                self.conns.insert(id, conn);
            }
        }
    }

    fn tick_one(&mut self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn) {
        let cfg = &ctx.cfg.coinbase;
        if conn.closing {
            return;
        }
        if !conn.subscribed && ctx.now - conn.opened_ns > cfg.subscribe_deadline_ms * MS {
            conn.closing = true;
            ctx.hub.push(id, Out::Close(1008, "no subscribe within 5 seconds".to_owned()));
            return;
        }
        if matches!(ctx.tape, Tape::Waiting(_)) && conn.subscribed {
            conn.data_ns = ctx.now;
            return;
        }
        if ctx.now - conn.data_ns > cfg.idle_close_ms * MS {
            conn.closing = true;
            ctx.hub.push(id, Out::Close(1001, "idle".to_owned()));
            return;
        }
        if conn.on_tape {
            // Frames of ours would break into the recorded numbers.
            return;
        }
        while let Some(at) = conn.acks.iter().position(|due| *due <= ctx.now) {
            conn.acks.remove(at);
            self.acknowledge(ctx, id, conn);
        }
        if conn.subs.contains_key("heartbeats")
            && ctx.now - conn.heartbeat_ns >= cfg.heartbeat_ms * MS
        {
            self.heartbeat(ctx, id, conn);
        }
        if ctx.now - conn.trades_ns >= cfg.trades_batch_ms * MS {
            conn.trades_ns = ctx.now;
            for (inst, trades) in std::mem::take(&mut conn.trades) {
                let spec = Arc::clone(&ctx.market.instruments()[inst].spec);
                let rows: Vec<String> =
                    trades.iter().rev().map(|(at, t)| trade_row(&spec, *at, t)).collect();
                let events = format!("[{{\"type\":\"update\",\"trades\":[{}]}}]", rows.join(","));
                Self::frame(ctx, id, conn, "market_trades", &spec.symbol, Class::Trade, &events);
            }
        }
        self.tick_slow(ctx, id, conn);
    }

    fn tick_slow(&mut self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn) {
        let wanting = |conn: &Conn, channel: &str| -> Vec<usize> {
            let has = |(_, w): &(&usize, &u8)| **w & bit(channel) != 0;
            conn.wants.iter().filter(has).map(|(i, _)| *i).collect()
        };
        if ctx.now - conn.candles_ns >= 1_000 * MS {
            conn.candles_ns = ctx.now;
            for inst in wanting(conn, "candles") {
                let row = self.candle_row(ctx, inst);
                let events = format!("[{{\"type\":\"update\",\"candles\":[{row}]}}]");
                let spec = Arc::clone(&ctx.market.instruments()[inst].spec);
                Self::frame(ctx, id, conn, "candles", &spec.symbol, Class::Info, &events);
            }
        }
        if ctx.now - conn.batch_ns >= 5_000 * MS {
            let before = std::mem::replace(&mut conn.batch_ns, ctx.now);
            for inst in wanting(conn, "ticker_batch") {
                if self.stats.get(&inst).is_some_and(|s| s.traded_ns >= before) {
                    let row = self.ticker_row(ctx, inst);
                    let events = format!("[{{\"type\":\"update\",\"tickers\":[{row}]}}]");
                    let spec = Arc::clone(&ctx.market.instruments()[inst].spec);
                    Self::frame(ctx, id, conn, "ticker_batch", &spec.symbol, Class::Info, &events);
                }
            }
        }
        if ctx.now - conn.status_ns >= 5_000 * MS {
            conn.status_ns = ctx.now;
            self.status(ctx, id, conn, None);
        }
    }

    fn status(&self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn, only: Option<usize>) {
        let Some(products) = conn.subs.get("status") else { return };
        let rows: Vec<String> = products
            .iter()
            .filter_map(|p| Self::resolve(ctx.market, p))
            .filter(|inst| only.is_none_or(|o| o == *inst))
            .map(|inst| status_row(ctx, inst))
            .collect();
        if !rows.is_empty() {
            let events = format!("[{{\"type\":\"update\",\"products\":[{}]}}]", rows.join(","));
            Self::frame(ctx, id, conn, "status", "", Class::Info, &events);
        }
    }

    /// Tells subscribers of `status` that an instrument changed.
    pub fn on_status(&mut self, ctx: &mut Ctx<'_>, inst: usize) {
        let mut conns = std::mem::take(&mut self.conns);
        for (id, conn) in &mut conns {
            self.status(ctx, *id, conn, Some(inst));
        }
        self.conns = conns;
    }

    fn heartbeat(&mut self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn) {
        conn.heartbeat_ns = ctx.now;
        conn.heartbeats += 1;
        let quote = if ctx.cfg.coinbase.heartbeat_counter_text { "\"" } else { "" };
        let events = format!(
            "[{{\"current_time\":\"{}\",\"heartbeat_counter\":{quote}{}{quote}}}]",
            go_time(ctx.hub.venue_now(VENUE), ctx.uptime_ns),
            conn.heartbeats
        );
        Self::frame(ctx, id, conn, "heartbeats", "", Class::Heartbeat, &events);
    }

    /// Sends a recorded frame: untouched to those who were there at the start, renumbered to later ones.
    pub fn relay(&mut self, ctx: &mut Ctx<'_>, recorded: &Recorded<'_>) {
        let symbol = recorded.inst.map_or("", |i| ctx.market.instruments()[i].spec.symbol.as_str());
        let wanted_bit =
            if recorded.class == Class::Trade { bit("market_trades") } else { bit("level2") };
        for (id, conn) in &mut self.conns {
            if conn.on_tape {
                conn.sequence = recorded.sequence.map_or(conn.sequence, |s| s + 1);
                conn.heartbeats = recorded.counter.unwrap_or(conn.heartbeats);
                conn.data_ns = ctx.now;
                ctx.hub.send(*id, recorded.class, symbol, recorded.raw.clone());
                continue;
            }
            // Acks and heartbeats of the tape are not theirs.
            let wants = recorded.inst.and_then(|i| conn.wants.get(&i)).copied().unwrap_or(0);
            if wants & wanted_bit != 0
                && let Some(body) = renumber(recorded.raw, conn.sequence)
            {
                conn.sequence += 1;
                conn.data_ns = ctx.now;
                ctx.hub.send(*id, recorded.class, symbol, body);
            }
        }
    }

    /// The tape is over: from now on connections get heartbeats of our own.
    pub fn tape_ended(&mut self) {
        for conn in self.conns.values_mut().filter(|c| c.on_tape) {
            conn.on_tape = false;
            conn.subs.entry("heartbeats").or_default().insert("heartbeats".to_owned());
        }
    }

    fn ticker_row(&self, ctx: &Ctx<'_>, inst: usize) -> String {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let none = Stats::default();
        let stats = self.stats.get(&inst).unwrap_or(&none);
        let best = |side| {
            let level = it.book.best(side);
            (
                spec.tick.trimmed(level.map_or(0, |l| l.px)),
                spec.lot.trimmed(level.map_or(0, |l| l.qty)),
            )
        };
        let ((bid, bid_qty), (ask, ask_qty)) = (best(Side::Bid), best(Side::Ask));
        let last = if stats.last == 0 { bid.clone() } else { spec.tick.trimmed(stats.last) };
        let (low, high) = (spec.tick.trimmed(stats.low), spec.tick.trimmed(stats.high));
        let change = change_percent(stats.open, stats.last);
        format!(
            "{{\"type\":\"ticker\",\"product_id\":\"{}\",\"price\":\"{last}\",\"volume_24_h\":\"{}\",\
             \"low_24_h\":\"{low}\",\"high_24_h\":\"{high}\",\"low_52_w\":\"{low}\",\"high_52_w\":\"{high}\",\
             \"price_percent_chg_24_h\":\"{change}\",\"best_bid\":\"{bid}\",\"best_bid_quantity\":\"{bid_qty}\",\
             \"best_ask\":\"{ask}\",\"best_ask_quantity\":\"{ask_qty}\"}}",
            spec.symbol,
            spec.lot.trimmed(i64::try_from(stats.volume).unwrap_or(i64::MAX))
        )
    }

    fn candle_row(&self, ctx: &Ctx<'_>, inst: usize) -> String {
        let spec = &ctx.market.instruments()[inst].spec;
        let candle = self.stats.get(&inst).map_or_else(Candle::default, |s| s.candle);
        let px = |p: i64| spec.tick.trimmed(p);
        format!(
            "{{\"start\":\"{}\",\"high\":\"{}\",\"low\":\"{}\",\"open\":\"{}\",\"close\":\"{}\",\
             \"volume\":\"{}\",\"product_id\":\"{}\"}}",
            candle.start_s,
            px(candle.high),
            px(candle.low),
            px(candle.open),
            px(candle.close),
            spec.lot.trimmed(candle.volume),
            spec.symbol
        )
    }

    /// A body for an injected HTTP status.
    pub fn error_page(&self, status: u16) -> Response {
        match status {
            429 => too_many(),
            401 => Response { body: b"Unauthorized\n".to_vec(), ..Response::html(401, "") },
            other => generic(other, "INTERNAL", "internal error"),
        }
    }

    /// Answers a REST request.
    pub fn rest(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Response {
        if request.path.starts_with("/v2/") {
            return self.consumer(ctx, request);
        }
        let Some(path) = request.path.strip_prefix(PREFIX) else {
            return generic(404, "NOT_FOUND", "unknown path");
        };
        let token = request.header("authorization").is_some_and(|a| a.starts_with("Bearer "));
        let public = path == "time" || path.starts_with("market/");
        if !public && !token {
            return private::unauthorized();
        }
        // A venue without keys lets any token pass, for market data alone.
        let key = private::rest_key(ctx, request);
        let needed = !public && (private::is_private(path) || !ctx.keys.is_empty());
        if needed && key.is_none() {
            return private::unauthorized();
        }
        let (left, per_s) = if token {
            (self.private_budget(ctx, key), ctx.cfg.coinbase.private_per_s)
        } else {
            (self.public.take(request.peer, ctx.now), ctx.cfg.coinbase.public_per_s)
        };
        let response = match (left, key) {
            (None, _) => too_many(),
            (Some(_), Some(key)) if private::is_private(path) => {
                self.private_rest(ctx, request, path, key)
            }
            _ if request.method != "GET" => generic(404, "NOT_FOUND", "unknown path"),
            _ => self.cached(ctx, request, path),
        };
        response
            .with("x-ratelimit-limit", per_s)
            .with("x-ratelimit-remaining", format!("{:.0}", left.unwrap_or(0.0).floor()))
            .with("x-ratelimit-reset", 1)
    }

    /// Takes one request of a key's second and hour.
    fn private_budget(&mut self, ctx: &Ctx<'_>, key: Option<usize>) -> Option<f64> {
        let key = key.unwrap_or(usize::MAX);
        let left = self.private.take(key, ctx.now)?;
        let hour = ctx.now / 3_600_000_000_000;
        let used = self.hourly.entry(key).or_insert((hour, 0));
        if used.0 != hour {
            *used = (hour, 0);
        }
        used.1 += 1;
        let most = ctx.cfg.coinbase.private_per_hour;
        (most == 0 || used.1 <= most).then_some(left)
    }

    /// `/market/*` is cached for a second unless the request says otherwise.
    fn cached(&mut self, ctx: &mut Ctx<'_>, request: &Request, path: &str) -> Response {
        let Some(name) = path.strip_prefix("market/") else {
            return self.answer(ctx, path, &request.params());
        };
        let fresh = request.header("cache-control").is_some_and(|c| c.contains("no-cache"));
        let key = format!("{path}?{}", request.query);
        let age_max = ctx.cfg.coinbase.cache_ms * MS;
        if !fresh
            && let Some((at, body)) = self.cache.get(&key)
            && ctx.now - at < age_max
        {
            return Response::json(200, body.clone());
        }
        let response = self.answer(ctx, name, &request.params());
        if response.status == 200 && age_max > 0 {
            if self.cache.len() >= CACHE_MAX {
                self.cache.retain(|_, (at, _)| ctx.now - *at < age_max);
            }
            if self.cache.len() < CACHE_MAX {
                let body = String::from_utf8_lossy(&response.body).into_owned();
                self.cache.insert(key, (ctx.now, body));
            }
        }
        response
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>, name: &str, params: &[(String, String)]) -> Response {
        let get = |key: &str| params.iter().find(|(n, _)| n == key).map(|(_, v)| v.as_str());
        match name {
            "time" => {
                let at = ctx.hub.venue_now(VENUE);
                Response::json(
                    200,
                    format!(
                        "{{\"iso\":\"{}\",\"epochSeconds\":\"{}\",\"epochMillis\":\"{}\"}}",
                        rfc3339_s(at),
                        at / 1_000_000_000,
                        at / MS
                    ),
                )
            }
            "products" => self.products(ctx, params),
            "best_bid_ask" => {
                let wanted: Vec<&str> = params
                    .iter()
                    .filter(|(n, _)| n == "product_ids")
                    .map(|(_, v)| v.as_str())
                    .collect();
                let list: Vec<(String, usize)> = self
                    .product_ids(ctx)
                    .into_iter()
                    .filter(|(name, _, _)| wanted.is_empty() || wanted.contains(&name.as_str()))
                    .map(|(name, inst, _)| (name, inst))
                    .collect();
                private::best_bid_ask(ctx, &list, ctx.hub.venue_now(VENUE))
            }
            "product_book" => {
                let Some(product) = get("product_id") else {
                    return generic(400, "INVALID_ARGUMENT", "product_id is required");
                };
                let Some(inst) = Self::resolve(ctx.market, product) else {
                    return generic(404, "NOT_FOUND", "product not found");
                };
                let limit = match get("limit").map(str::parse::<usize>) {
                    None => 500,
                    Some(Ok(limit)) => limit,
                    Some(Err(_)) => {
                        return generic(400, "INVALID_ARGUMENT", "limit is not a number");
                    }
                };
                let wrong = {
                    let symbol = &ctx.market.instruments()[inst].spec.symbol;
                    ctx.hub.faults.take(Kind::WrongSnapshot, VENUE, symbol, 0).is_some()
                };
                self.product_book(ctx, inst, limit, wrong)
            }
            other => match other.strip_prefix("products/") {
                Some(rest) => {
                    let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
                    let found = self.product_ids(ctx).into_iter().find(|(name, _, _)| name == id);
                    match (found, part) {
                        (Some((name, inst, alias)), "") => {
                            Response::json(200, self.product(ctx, &name, inst, alias))
                        }
                        (Some((name, inst, _)), "ticker") => self.product_ticker(ctx, &name, inst),
                        (Some((_, inst, _)), "candles") => rest_candles(ctx, inst, params),
                        _ => generic(404, "NOT_FOUND", "product not found"),
                    }
                }
                None => generic(404, "NOT_FOUND", "unknown path"),
            },
        }
    }

    /// All product ids with their instrument; aliases are marked.
    fn product_ids(&self, ctx: &Ctx<'_>) -> Vec<(String, usize, bool)> {
        let mut ids = Vec::new();
        for (i, inst) in ctx.market.instruments().iter().enumerate() {
            if inst.spec.venue != VENUE {
                continue;
            }
            ids.push((inst.spec.symbol.clone(), i, false));
            if let Some(alias) = alias_of(ctx.market, &inst.spec) {
                ids.push((alias, i, true));
            }
        }
        ids
    }

    fn products(&self, ctx: &Ctx<'_>, params: &[(String, String)]) -> Response {
        let wanted: Vec<&str> =
            params.iter().filter(|(n, _)| n == "product_ids").map(|(_, v)| v.as_str()).collect();
        let number = |key: &str, default: usize| {
            let found = params.iter().find(|(n, _)| n == key);
            found.map_or(Ok(default), |(_, v)| v.parse::<usize>())
        };
        let (Ok(limit), Ok(offset)) = (number("limit", usize::MAX), number("offset", 0)) else {
            return generic(400, "INVALID_ARGUMENT", "limit and offset are numbers");
        };
        let kind = params.iter().find(|(n, _)| n == "product_type").map(|(_, v)| v.as_str());
        // Only spot is simulated: a client that asks for futures gets an empty list.
        let ids = match kind {
            None | Some("" | "SPOT" | "UNKNOWN_PRODUCT_TYPE") => self.product_ids(ctx),
            Some(_) => Vec::new(),
        };
        let rows: Vec<String> = ids
            .into_iter()
            .filter(|(name, _, _)| wanted.is_empty() || wanted.contains(&name.as_str()))
            .skip(offset)
            .take(limit)
            .map(|(name, inst, alias)| self.product(ctx, &name, inst, alias))
            .collect();
        let body = format!(
            "{{\"products\":[{}],\"num_products\":{},\"pagination\":null}}",
            rows.join(","),
            rows.len()
        );
        Response::json(200, body)
    }

    fn product(&self, ctx: &Ctx<'_>, name: &str, inst: usize, alias: bool) -> String {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let none = Stats::default();
        let stats = self.stats.get(&inst).unwrap_or(&none);
        let best = it.book.best(Side::Bid).map_or(0, |l| l.px);
        let last = spec.tick.trimmed(if stats.last == 0 { best } else { stats.last });
        let quote = if alias { "USDC" } else { spec.quote.as_str() };
        let mode = halt_mode(ctx, inst);
        let cancel_only = mode == Some("cancel_only");
        let (post_only, limit_only) = (mode == Some("post_only"), mode == Some("limit_only"));
        let halted = mode.is_some() && !post_only && !limit_only;
        let (alias_field, alias_to) = match (alias, alias_of(ctx.market, spec)) {
            (true, _) => (spec.symbol.clone(), String::new()),
            (false, Some(other)) => (String::new(), format!("\"{other}\"")),
            (false, None) => (String::new(), String::new()),
        };
        let label = |asset: &str| match asset {
            "BTC" => "Bitcoin".to_owned(),
            "ETH" => "Ethereum".to_owned(),
            "SOL" => "Solana".to_owned(),
            "USD" => "US Dollar".to_owned(),
            "USDT" => "Tether".to_owned(),
            other => other.to_owned(),
        };
        format!(
            "{{\"product_id\":\"{name}\",\"price\":\"{last}\",\"price_percentage_change_24h\":\"{}\",\
             \"volume_24h\":\"{}\",\"volume_percentage_change_24h\":\"0\",\"base_increment\":\"{}\",\
             \"quote_increment\":\"{tick}\",\"price_increment\":\"{tick}\",\"quote_min_size\":\"{}\",\
             \"quote_max_size\":\"150000000\",\"base_min_size\":\"{}\",\"base_max_size\":\"3400000\",\
             \"base_name\":\"{}\",\"quote_name\":\"{}\",\"watched\":false,\"is_disabled\":false,\"new\":false,\
             \"status\":\"online\",\"cancel_only\":{cancel_only},\"limit_only\":{limit_only},\"post_only\":{post_only},\
             \"trading_disabled\":{},\"auction_mode\":false,\"product_type\":\"SPOT\",\
             \"quote_currency_id\":\"{quote}\",\"base_currency_id\":\"{}\",\
             \"fcm_trading_session_details\":null,\"mid_market_price\":\"\",\"alias\":\"{alias_field}\",\
             \"alias_to\":[{alias_to}],\"base_display_symbol\":\"{}\",\"quote_display_symbol\":\"{quote}\",\
             \"view_only\":false,\"display_name\":\"{name}\",\
             \"product_venue\":\"CBE\",\"approximate_quote_24h_volume\":\"0\",\
             \"new_at\":\"2023-01-01T00:00:00Z\",\"best_bid_price\":\"\",\"best_ask_price\":\"\"}}",
            change_percent(stats.open, stats.last),
            spec.lot.trimmed(i64::try_from(stats.volume).unwrap_or(i64::MAX)),
            spec.lot_rule().trimmed(1),
            spec.min_notional,
            spec.min_qty,
            label(&spec.base),
            label(quote),
            halted && !cancel_only,
            spec.base,
            spec.base,
            tick = spec.tick_rule().trimmed(1)
        )
    }

    fn product_book(&self, ctx: &Ctx<'_>, inst: usize, limit: usize, wrong: bool) -> Response {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let rows = |side: Side| {
            let mut rows: Vec<(i64, i64)> =
                it.book.levels(side).take(limit).map(|l| (l.px, l.qty)).collect();
            if wrong {
                spoil_snapshot(&mut rows, side);
            }
            let text: Vec<String> = rows
                .into_iter()
                .map(|(px, qty)| {
                    let (px, qty) = (spec.tick.trimmed(px), spec.lot.trimmed(qty));
                    format!("{{\"price\":\"{px}\",\"size\":\"{qty}\"}}")
                })
                .collect();
            text.join(",")
        };
        let px = |side| it.book.best(side).map_or(0, |l| l.px);
        let (bid, ask) = (px(Side::Bid), px(Side::Ask));
        let half = crate::units::Grid {
            mantissa: spec.tick.mantissa * 5,
            decimals: spec.tick.decimals + 1,
        };
        let spread_bps =
            if bid > 0 { spec.tick.as_f64(ask - bid) / spec.tick.as_f64(bid) * 1e4 } else { 0.0 };
        let last = self.stats.get(&inst).map_or(0, |s| s.last);
        let body = format!(
            "{{\"pricebook\":{{\"product_id\":\"{}\",\"bids\":[{}],\"asks\":[{}],\"time\":\"{}\"}},\
             \"last\":\"{}\",\"mid_market\":\"{}\",\"spread_bps\":\"{spread_bps:.6}\",\"spread_absolute\":\"{}\"}}",
            spec.symbol,
            rows(Side::Bid),
            rows(Side::Ask),
            rfc3339_us(ctx.hub.venue_now(VENUE)),
            spec.tick.trimmed(if last == 0 { bid } else { last }),
            half.trimmed(bid + ask),
            spec.tick.trimmed((ask - bid).max(0))
        );
        Response::json(200, body)
    }

    fn product_ticker(&self, ctx: &Ctx<'_>, name: &str, inst: usize) -> Response {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let rows: Vec<String> = self
            .stats
            .get(&inst)
            .into_iter()
            .flat_map(|s| s.trades.iter().rev().take(100))
            .map(|(at, t)| {
                format!(
                    "{{\"trade_id\":\"{}\",\"product_id\":\"{name}\",\"price\":\"{}\",\"size\":\"{}\",\
                     \"time\":\"{}\",\"side\":\"{}\",\"bid\":\"\",\"ask\":\"\",\"exchange\":\"coinbase\"}}",
                    t.id,
                    spec.tick.trimmed(t.px),
                    spec.lot.trimmed(t.qty),
                    rfc3339_us(*at),
                    maker(t)
                )
            })
            .collect();
        let best = |side| spec.tick.trimmed(it.book.best(side).map_or(0, |l| l.px));
        Response::json(
            200,
            format!(
                "{{\"trades\":[{}],\"best_bid\":\"{}\",\"best_ask\":\"{}\"}}",
                rows.join(","),
                best(Side::Bid),
                best(Side::Ask)
            ),
        )
    }
}

fn maker(trade: &Trade) -> &'static str {
    if trade.maker == Side::Bid { "BUY" } else { "SELL" }
}

fn alias_of(market: &Market, spec: &Spec) -> Option<String> {
    let alias = format!("{}-USDC", spec.base);
    (spec.quote == "USD" && spec.base != "USDC" && market.find(VENUE, &alias).is_none())
        .then_some(alias)
}

/// Why a product takes no orders, or not all: a halt of its own, or the venue's state.
fn halt_mode<'a>(ctx: &'a Ctx<'_>, inst: usize) -> Option<&'a str> {
    let it = &ctx.market.instruments()[inst];
    match ctx.desk.mode(VENUE) {
        Mode::Online => {}
        mode => return Some(mode.name()),
    }
    let fault = ctx.hub.faults.state(Kind::Halt, VENUE, Some(&it.spec.symbol))?;
    (it.status == Status::Halted).then(|| fault.mode.as_deref().unwrap_or("halt"))
}

fn too_many() -> Response {
    let body = "{\"errors\":[{\"id\":\"rate_limit_exceeded\",\"message\":\"Too many requests\"}]}";
    Response::json(429, body.to_owned())
}

fn generic(status: u16, error: &str, why: &str) -> Response {
    let body =
        format!("{{\"error\":\"{error}\",\"error_details\":\"{why}\",\"message\":\"{why}\"}}");
    Response::json(status, body)
}

/// Change since the open in percent; a figure nobody trades on.
#[expect(clippy::cast_precision_loss, reason = "a display figure")]
fn change_percent(open: i64, last: i64) -> String {
    if open == 0 {
        "0".to_owned()
    } else {
        format!("{:.4}", (last - open) as f64 / open as f64 * 100.0)
    }
}

fn status_row(ctx: &Ctx<'_>, inst: usize) -> String {
    let spec = &ctx.market.instruments()[inst].spec;
    let status = match halt_mode(ctx, inst) {
        None => "online",
        Some(mode @ ("cancel_only" | "post_only" | "limit_only")) => mode,
        Some(_) => "offline",
    };
    format!(
        "{{\"product_type\":\"SPOT\",\"id\":\"{id}\",\"base_currency\":\"{}\",\"quote_currency\":\"{}\",\
         \"base_increment\":\"{}\",\"quote_increment\":\"{}\",\"display_name\":\"{}/{}\",\
         \"status\":\"{status}\",\"status_message\":\"\",\"min_market_funds\":\"{}\"}}",
        spec.base,
        spec.quote,
        spec.lot_rule().trimmed(1),
        spec.tick_rule().trimmed(1),
        spec.base,
        spec.quote,
        spec.min_notional,
        id = spec.symbol
    )
}

fn trade_row(spec: &Spec, at: u64, trade: &Trade) -> String {
    format!(
        "{{\"product_id\":\"{}\",\"trade_id\":\"{}\",\"price\":\"{}\",\"size\":\"{}\",\"time\":\"{}\",\
         \"side\":\"{}\"}}",
        spec.symbol,
        trade.id,
        spec.tick.trimmed(trade.px),
        spec.lot.trimmed(trade.qty),
        rfc3339_us(at),
        maker(trade)
    )
}

fn write_level(spec: &Spec, side: Side, px: i64, qty: i64, time: &str, out: &mut String) {
    out.push_str("{\"side\":\"");
    out.push_str(if side == Side::Bid { "bid" } else { "offer" });
    out.push_str("\",\"event_time\":\"");
    out.push_str(time);
    out.push_str("\",\"price_level\":\"");
    spec.tick.write_trimmed(px, out);
    out.push_str("\",\"new_quantity\":\"");
    spec.lot.write_trimmed(qty, out);
    out.push_str("\"}");
}

/// One update event, without the list around it.
fn l2_update(spec: &Spec, changes: &[Change], at: u64) -> String {
    let time = rfc3339_us(at);
    let mut out = String::with_capacity(64 + changes.len() * 140);
    let _ = write!(out, "{{\"type\":\"update\",\"product_id\":\"{}\",\"updates\":[", spec.symbol);
    let mut first = true;
    for side in [Side::Bid, Side::Ask] {
        for (px, qty) in changes_of(changes, side) {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write_level(spec, side, px, qty, &time, &mut out);
        }
    }
    out.push_str("]}");
    out
}

fn l2_snapshot(spec: &Spec, book: &Book, at: u64, wrong: bool) -> String {
    let time = rfc3339_us(at);
    let mut out = String::with_capacity(128 + (book.len(Side::Bid) + book.len(Side::Ask)) * 140);
    let _ =
        write!(out, "[{{\"type\":\"snapshot\",\"product_id\":\"{}\",\"updates\":[", spec.symbol);
    let mut first = true;
    for side in [Side::Bid, Side::Ask] {
        let mut rows: Vec<(i64, i64)> = book.levels(side).map(|l| (l.px, l.qty)).collect();
        if wrong {
            spoil_snapshot(&mut rows, side);
        }
        for (px, qty) in rows {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write_level(spec, side, px, qty, &time, &mut out);
        }
    }
    out.push_str("]}]");
    out
}

/// Replaces the recorded `sequence_num`.
fn renumber(raw: &Bytes, sequence: u64) -> Option<Bytes> {
    let text = std::str::from_utf8(raw).ok()?;
    let at = text.find("\"sequence_num\":")? + "\"sequence_num\":".len();
    let end = at + text[at..].find(|c: char| !c.is_ascii_digit())?;
    Some(Bytes::from(format!("{}{sequence}{}", &text[..at], &text[end..])))
}

/// Candles between two times, the newest first; at most 350.
fn rest_candles(ctx: &Ctx<'_>, inst: usize, params: &[(String, String)]) -> Response {
    const STEPS: [(&str, u64); 9] = [
        ("ONE_MINUTE", 60),
        ("FIVE_MINUTE", 300),
        ("FIFTEEN_MINUTE", 900),
        ("THIRTY_MINUTE", 1_800),
        ("ONE_HOUR", 3_600),
        ("TWO_HOUR", 7_200),
        ("FOUR_HOUR", 14_400),
        ("SIX_HOUR", 21_600),
        ("ONE_DAY", 86_400),
    ];
    let get = |key: &str| params.iter().find(|(n, _)| n == key).map(|(_, v)| v.as_str());
    let number = |key: &str| get(key).and_then(|text| text.parse::<u64>().ok());
    let step = STEPS.iter().find(|(name, _)| Some(*name) == get("granularity"));
    let (Some((_, step_s)), Some(start_s), Some(end_s)) = (step, number("start"), number("end"))
    else {
        return generic(400, "INVALID_ARGUMENT", "start, end and granularity are required");
    };
    let limit = number("limit").unwrap_or(350).clamp(1, 350);
    let now_s = ctx.hub.venue_now(VENUE) / 1_000_000_000;
    let end_s = end_s.min(now_s);
    let wanted = end_s.saturating_sub(start_s) / step_s + 1;
    if 350 < wanted {
        let text = "number of candles requested should be less than 350";
        return generic(400, "INVALID_ARGUMENT", text);
    }
    let it = &ctx.market.instruments()[inst];
    let spec = &it.spec;
    let rows: Vec<String> = candles(&ctx.cfg.market, it, *step_s, end_s, wanted.min(limit))
        .iter()
        .rev()
        .map(|candle| {
            let (px, volume) = (spec.tick.trimmed(candle.px), spec.lot.trimmed(candle.lots));
            format!(
                "{{\"start\":\"{}\",\"low\":\"{px}\",\"high\":\"{px}\",\"open\":\"{px}\",\"close\":\"{px}\",\
                 \"volume\":\"{volume}\"}}",
                candle.start_s
            )
        })
        .collect();
    Response::json(200, format!("{{\"candles\":[{}]}}", rows.join(",")))
}
