//! Binance Spot: JSON streams and public REST (`protocols/binance.md` 2-4, 8).
//!
//! Invariant: one update-id sequence a symbol is shared by `bookTicker`, both depth speeds and the REST
//! snapshot; consecutive depth events of one speed join without a gap (`U = previous u + 1`), and a slot
//! without a change sends nothing.
//!
//! Not here: private calls (`private`), the WebSocket API with its user data (`ws_api`), SBE, FIX.

mod private;
mod ws_api;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use crate::amount::Amount;
use crate::book::{Book, Side};
use crate::config::{SimConfig, Venue};
use crate::exchange::Mode;
use crate::faults::{Class, Kind};
use crate::history::candles;
use crate::hub::{ConnId, Out, Outbox};
use crate::limits::FixedWindow;
use crate::market::{Event, MS, Market, Spec, Status, Trade, rng};
use crate::net::{Request, Response};
use crate::observe::Mark;
use crate::units::write_json_string;
use crate::world::{Ctx, spoil_snapshot};
use crate::ws::Incoming;

const VENUE: Venue = Venue::Binance;
/// Prices and quantities are printed with eight decimals, whatever the step.
const DECIMALS: u8 = 8;
const TRADES_KEPT: usize = 1_000;

/// A stream's payload and speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StreamKind {
    BookTicker,
    /// Diffs; slow is 1000 ms.
    Depth {
        slow: bool,
    },
    Partial {
        levels: u8,
        slow: bool,
    },
    Trade,
    AggTrade,
    /// 24-hour figures, each second.
    Ticker,
    MiniTicker,
    /// Acknowledged and silent: not market data we need.
    Other,
}

impl StreamKind {
    fn parse(suffix: &str) -> Self {
        let (name, speed) = suffix.split_once('@').unwrap_or((suffix, ""));
        let slow = match speed {
            "" | "1000ms" => true,
            "100ms" => false,
            _ => return Self::Other,
        };
        match name {
            "bookTicker" => Self::BookTicker,
            "trade" => Self::Trade,
            "aggTrade" => Self::AggTrade,
            "ticker" => Self::Ticker,
            "miniTicker" => Self::MiniTicker,
            "depth" => Self::Depth { slow },
            "depth5" => Self::Partial { levels: 5, slow },
            "depth10" => Self::Partial { levels: 10, slow },
            "depth20" => Self::Partial { levels: 20, slow },
            _ => Self::Other,
        }
    }
}

/// One WebSocket connection.
#[derive(Debug)]
struct Conn {
    combined: bool,
    micro: bool,
    /// Names in order of subscription.
    names: Vec<String>,
    index: BTreeMap<(usize, StreamKind), Vec<String>>,
    opened_ns: u64,
    pulse: Pulse,
    window: (u64, u32),
}

/// Pings of one connection and its end.
#[derive(Debug)]
struct Pulse {
    pinged_ns: u64,
    ping: Option<Bytes>,
    ponged_ns: u64,
    ends_ns: u64,
}

impl Pulse {
    fn new(now: u64, lifetime_ms: u64) -> Self {
        Self { pinged_ns: now, ping: None, ponged_ns: now, ends_ns: now + lifetime_ms * MS }
    }

    /// Takes a pong; only one that copies our ping counts.
    fn ponged(&mut self, payload: &[u8], now: u64) -> bool {
        let same = self.ping.as_ref().is_some_and(|p| p.as_ref() == payload);
        if same {
            self.ponged_ns = now;
            self.ping = None;
        }
        same
    }

    /// Sends what is due: a ping, or the end.
    fn beat(&mut self, ctx: &mut Ctx<'_>, id: ConnId, rng: &mut ChaCha8Rng) {
        let cfg = &ctx.cfg.binance;
        if ctx.now >= self.ends_ns {
            self.ends_ns = u64::MAX;
            let clean = rng.random::<bool>();
            let out = if clean { Out::Close(1001, String::new()) } else { Out::Abrupt };
            ctx.hub.push(id, out);
        } else if self.ping.is_some() && ctx.now - self.ponged_ns > cfg.pong_timeout_ms * MS {
            self.ends_ns = u64::MAX;
            self.ping = None;
            ctx.hub.push(id, Out::Close(1008, "Pong timeout".to_owned()));
        } else if ctx.now - self.pinged_ns >= cfg.ping_ms * MS && self.ends_ns != u64::MAX {
            self.pinged_ns = ctx.now;
            if self.ping.is_none() {
                // The clock of the timeout starts with the first unanswered ping.
                self.ponged_ns = ctx.now;
            }
            let payload = Bytes::from((ctx.hub.venue_now(VENUE) / MS).to_string());
            self.ping = Some(payload.clone());
            ctx.hub.control(id, Out::Ping(payload));
        }
    }
}

/// Changes of one symbol since the last diff event of one speed.
#[derive(Debug, Default)]
struct Pending {
    first_id: u64,
    last_id: u64,
    levels: BTreeMap<(Side, i64), i64>,
    slot: u64,
}

/// State of one symbol beside its book.
#[derive(Debug, Default)]
struct Symbol {
    fast: Pending,
    slow: Pending,
    /// Whether the book changed since the last partial-depth message, by speed.
    partial: [bool; 2],
    trades: std::collections::VecDeque<(u64, Trade)>,
    agg_id: u64,
    last_px: i64,
    day: Day,
    ticker_slot: u64,
}

/// Figures of a symbol since the start: less than a day, so the 24-hour window holds all of it.
#[derive(Debug, Default)]
struct Day {
    open: i64,
    high: i64,
    low: i64,
    last_qty: i64,
    volume: i128,
    quote: Amount,
    first_id: u64,
    last_id: u64,
    count: u64,
}

impl Day {
    fn add(&mut self, spec: &Spec, trade: &Trade) {
        if self.count == 0 {
            (self.open, self.high, self.low) = (trade.px, trade.px, trade.px);
            self.first_id = trade.id;
        }
        self.high = self.high.max(trade.px);
        self.low = self.low.min(trade.px);
        self.last_qty = trade.qty;
        self.last_id = trade.id;
        self.volume += i128::from(trade.qty);
        self.quote += Amount::worth(spec.tick, trade.px, spec.lot, trade.qty);
        self.count += 1;
    }
}

#[derive(Debug)]
struct Ban {
    until_ns: u64,
    count: u32,
}

/// The Binance face.
#[derive(Debug)]
pub(crate) struct Binance {
    conns: BTreeMap<ConnId, Conn>,
    symbols: BTreeMap<usize, Symbol>,
    by_stream: HashMap<String, usize>,
    rng: ChaCha8Rng,
    weight: FixedWindow,
    raw: FixedWindow,
    connects: FixedWindow,
    refused: FixedWindow,
    bans: BTreeMap<IpAddr, Ban>,
    api: BTreeMap<ConnId, ws_api::ApiConn>,
    /// Unfilled orders by account: window and count, of 10 s and of a day.
    unfilled: BTreeMap<usize, [(u64, u64); 2]>,
    /// Names of cancels by order.
    cancel_ids: HashMap<usize, String>,
    executions: u64,
}

impl Binance {
    pub fn new(cfg: &SimConfig, market: &Market) -> Self {
        let mine =
            || market.instruments().iter().enumerate().filter(|(_, i)| i.spec.venue == VENUE);
        Self {
            conns: BTreeMap::new(),
            symbols: mine().map(|(i, _)| (i, Symbol::default())).collect(),
            by_stream: mine().map(|(i, inst)| (inst.spec.symbol.to_lowercase(), i)).collect(),
            rng: rng(cfg.seed, 4),
            weight: FixedWindow::new(60),
            raw: FixedWindow::new(300),
            connects: FixedWindow::new(300),
            refused: FixedWindow::new(60),
            bans: BTreeMap::new(),
            api: BTreeMap::new(),
            unfilled: BTreeMap::new(),
            cancel_ids: HashMap::new(),
            executions: 0,
        }
    }

    pub fn has_subscriber(&self) -> bool {
        self.conns.values().any(|c| c.index.keys().any(|(_, k)| *k != StreamKind::Other))
    }

    pub fn closed(&mut self, id: ConnId) {
        self.conns.remove(&id);
        self.api.remove(&id);
    }

    /// Accepts or refuses a handshake. Any path prefix before `/ws` or `/stream` is tolerated.
    pub fn open(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Result<Outbox, Response> {
        let tried = self.connects.add(request.peer, 1, ctx.now);
        if let Some(ban) = self.bans.get(&request.peer).filter(|b| b.until_ns > ctx.now) {
            return Err(banned(ban, ctx.now));
        }
        if tried > u64::from(ctx.cfg.binance.connects_per_5min) {
            let left_s = self.connects.left_ns(ctx.now) / 1_000_000_000 + 1;
            return Err(
                error(429, -1003, "Too many connection attempts.").with("Retry-After", left_s)
            );
        }
        let segments: Vec<&str> = request.path.split('/').filter(|s| !s.is_empty()).collect();
        let params = request.params();
        let param = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let micro = param("timeUnit").is_some_and(|u| u.eq_ignore_ascii_case("microsecond"));
        let path = format!("{}?{}", request.path, request.query);
        let pulse = Pulse::new(ctx.now, ctx.cfg.binance.lifetime_ms);
        if segments.ends_with(&["ws-api", "v3"]) {
            let outbox = ctx.hub.open(VENUE, request.peer, request.tls, path);
            let limits = param("returnRateLimits") != Some("false");
            // A connection costs two of weight (sheet 6.1).
            self.weight.add(request.peer, 2, ctx.now);
            let conn = ws_api::ApiConn::new(pulse, ctx.now, limits, micro);
            self.api.insert(outbox.id, conn);
            return Ok(outbox);
        }
        let (combined, names): (bool, Vec<String>) =
            if let Some(at) = segments.iter().position(|s| *s == "ws") {
                (false, segments[at + 1..].iter().map(|s| (*s).to_owned()).collect())
            } else if segments.last() == Some(&"stream") {
                let list = param("streams").unwrap_or("");
                let names = list.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
                (true, names)
            } else {
                return Err(Response::html(404, "<html><body>404 Not Found</body></html>"));
            };
        let outbox = ctx.hub.open(VENUE, request.peer, request.tls, path);
        let mut conn = Conn {
            combined,
            micro,
            names: Vec::new(),
            index: BTreeMap::new(),
            opened_ns: ctx.now,
            pulse,
            window: (0, 0),
        };
        // `/ws/0` and the like are labels, not streams; observed limit of the URI: 8,004 characters.
        let too_long = request.path.len() + request.query.len() > 8_004;
        for name in names.iter().filter(|n| !too_long && n.contains('@')) {
            if is_stream(name) {
                self.subscribe(&mut conn, name);
            } else {
                let reason = "{\"code\":-1,\"msg\":\"Illegal format ws or stream\"}";
                ctx.hub.push(outbox.id, Out::Close(1008, reason.to_owned()));
            }
        }
        self.conns.insert(outbox.id, conn);
        Ok(outbox)
    }

    fn subscribe(&self, conn: &mut Conn, name: &str) {
        if conn.names.iter().any(|n| n == name) {
            return;
        }
        conn.names.push(name.to_owned());
        let (symbol, suffix) = name.split_once('@').unwrap_or((name, ""));
        let kind = StreamKind::parse(suffix);
        if let Some(inst) = self.by_stream.get(symbol)
            && kind != StreamKind::Other
        {
            conn.index.entry((*inst, kind)).or_default().push(name.to_owned());
        }
    }

    /// Takes one message of a client.
    pub fn message(&mut self, ctx: &mut Ctx<'_>, id: ConnId, message: Incoming) {
        if self.api.contains_key(&id) {
            self.api_message(ctx, id, message);
            return;
        }
        let Some(mut conn) = self.conns.remove(&id) else { return };
        let second = ctx.now.saturating_sub(conn.opened_ns) / 1_000_000_000;
        if conn.window.0 != second {
            conn.window = (second, 0);
        }
        conn.window.1 += 1;
        if conn.window.1 > ctx.cfg.binance.messages_per_s {
            ctx.hub.push(id, Out::Close(1008, "Too many requests".to_owned()));
        } else {
            match message {
                Incoming::Ping(payload) => ctx.hub.control(id, Out::Pong(Bytes::from(payload))),
                // One that copies no ping of ours is tolerated.
                Incoming::Pong(payload) => {
                    conn.pulse.ponged(&payload, ctx.now);
                }
                Incoming::Text(text) => self.request(ctx, id, &mut conn, &text),
                Incoming::Binary | Incoming::Close(_) => {}
            }
        }
        self.conns.insert(id, conn);
    }

    /// Answers one control message.
    fn request(&mut self, ctx: &mut Ctx<'_>, id: ConnId, conn: &mut Conn, text: &str) {
        let silent = ctx.cfg.binance.silent_frame_bytes;
        if silent > 0 && text.len() > silent {
            return;
        }
        let reply = match serde_json::from_str::<Value>(text) {
            Err(e) => {
                let (line, column) = (e.line(), e.column());
                let why = format!("Invalid JSON: expected value at line {line} column {column}");
                Err((3, why, Value::Null))
            }
            Ok(value) => {
                let request_id = value.get("id").cloned().unwrap_or(Value::Null);
                if id_is_valid(&request_id) {
                    self.answer(ctx, conn, &value, text.len())
                        .map(|result| (result, request_id.clone()))
                        .map_err(|(code, why)| (code, why, request_id))
                } else {
                    let why = "Invalid request: request ID must be an unsigned integer";
                    Err((2, why.to_owned(), Value::Null))
                }
            }
        };
        let body = match reply {
            Ok((result, id)) => format!("{{\"result\":{result},\"id\":{id}}}"),
            Err((code, why, id)) => {
                let mut msg = String::new();
                write_json_string(&why, &mut msg);
                if ctx.cfg.binance.flat_errors {
                    format!("{{\"code\":{code},\"msg\":{msg},\"id\":{id}}}")
                } else {
                    format!("{{\"error\":{{\"code\":{code},\"msg\":{msg}}},\"id\":{id}}}")
                }
            }
        };
        ctx.hub.send(id, Class::Reply, "", Bytes::from(body));
    }

    fn answer(
        &mut self,
        ctx: &Ctx<'_>,
        conn: &mut Conn,
        value: &Value,
        len: usize,
    ) -> Result<Value, (i64, String)> {
        let invalid = |why: &str| Err((2, format!("Invalid request: {why}")));
        let Some(method) = value.get("method") else {
            return invalid(&format!("missing field `method` at line 1 column {len}"));
        };
        let method = method.as_str().unwrap_or("");
        let params = value.get("params").and_then(Value::as_array);
        match method {
            "SUBSCRIBE" | "UNSUBSCRIBE" => {
                let Some(params) = params else {
                    return invalid(&format!("missing field `params` at line 1 column {len}"));
                };
                if params.is_empty() {
                    return invalid("streams must have non-zero length");
                }
                let names: Option<Vec<&str>> = params.iter().map(Value::as_str).collect();
                let Some(names) = names.filter(|n| n.iter().all(|s| is_stream(s))) else {
                    return invalid("invalid stream");
                };
                if method == "UNSUBSCRIBE" {
                    for name in names {
                        conn.names.retain(|n| n != name);
                        conn.index.values_mut().for_each(|list| list.retain(|n| n != name));
                    }
                    conn.index.retain(|_, list| !list.is_empty());
                    return Ok(Value::Null);
                }
                if conn.names.len() + names.len() > ctx.cfg.binance.streams_max {
                    return invalid("too many parameters");
                }
                for name in names {
                    self.subscribe(conn, name);
                }
                Ok(Value::Null)
            }
            "LIST_SUBSCRIPTIONS" => {
                Ok(Value::Array(conn.names.iter().cloned().map(Value::String).collect()))
            }
            "SET_PROPERTY" | "GET_PROPERTY" => {
                let params = params.map_or(&[][..], Vec::as_slice);
                match params.first() {
                    Some(Value::String(name)) if name == "combined" => {}
                    Some(Value::String(_)) => return Err((0, "Unknown property".to_owned())),
                    _ => return invalid("property name must be a string"),
                }
                match (method, params) {
                    ("GET_PROPERTY", [_]) => Ok(Value::Bool(conn.combined)),
                    ("SET_PROPERTY", [_, Value::Bool(on)]) => {
                        conn.combined = *on;
                        Ok(Value::Null)
                    }
                    ("SET_PROPERTY", [_, _]) => {
                        Err((1, "Invalid value type: expected Boolean".to_owned()))
                    }
                    _ => invalid("too many parameters"),
                }
            }
            other => invalid(&format!(
                "unknown variant `{other}`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, \
                 `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY` at line 1 column {len}"
            )),
        }
    }

    /// Tells subscribers of an event: tickers and trades at once, depth with its slot.
    pub fn on_event(&mut self, ctx: &mut Ctx<'_>, event: &Event) {
        let now = ctx.now;
        let Some(symbol) = self.symbols.get_mut(&event.inst) else { return };
        for pending in [&mut symbol.fast, &mut symbol.slow] {
            if pending.levels.is_empty() && pending.first_id == 0 {
                pending.first_id = event.first_id;
            }
            pending.last_id = event.last_id;
            for change in &event.changes {
                pending.levels.insert((change.side, change.px), change.new);
            }
        }
        symbol.partial = [true, true];
        let spec = &ctx.market.instruments()[event.inst].spec;
        for trade in &event.trades {
            symbol.day.add(spec, trade);
            symbol.last_px = trade.px;
            symbol.trades.push_back((now, *trade));
        }
        let surplus = symbol.trades.len().saturating_sub(TRADES_KEPT);
        symbol.trades.drain(..surplus);

        let it = &ctx.market.instruments()[event.inst];
        if event.bbo_changed
            && self.rng.random_range(0..1_000_000) >= ctx.cfg.binance.book_ticker_skip_ppm
            && let Some(body) = book_ticker(&it.spec, &it.book, event.last_id)
        {
            let mark = Some(Mark { venue: VENUE, inst: event.inst, id: event.last_id });
            let kind = StreamKind::BookTicker;
            self.fan(ctx, event.inst, kind, (Class::Book, mark), |_| body.clone());
        }
        self.tell_trades(ctx, event);
    }

    fn tell_trades(&mut self, ctx: &mut Ctx<'_>, event: &Event) {
        if event.trades.is_empty() {
            return;
        }
        let spec = Arc::clone(&ctx.market.instruments()[event.inst].spec);
        let venue_ns = ctx.hub.venue_now(VENUE);
        for trade in &event.trades {
            self.fan(ctx, event.inst, StreamKind::Trade, (Class::Trade, None), |micro| {
                let at = stamp(venue_ns, micro);
                format!(
                    "{{\"e\":\"trade\",\"E\":{at},\"s\":\"{}\",\"t\":{},\"p\":\"{}\",\"q\":\"{}\",\
                     \"T\":{at},\"m\":{},\"M\":true}}",
                    spec.symbol,
                    trade.id,
                    spec.tick.fixed(trade.px, DECIMALS),
                    spec.lot.fixed(trade.qty, DECIMALS),
                    trade.maker == Side::Bid
                )
            });
        }
        // One aggressive order against several makers at one price is one aggregate.
        let mut rest = event.trades.as_slice();
        while let Some(first) = rest.first() {
            let same =
                rest.iter().take_while(|t| t.px == first.px && t.maker == first.maker).count();
            let (group, tail) = rest.split_at(same);
            rest = tail;
            let Some(symbol) = self.symbols.get_mut(&event.inst) else { return };
            symbol.agg_id = symbol.agg_id.max(first.id / 2) + 1;
            let agg_id = symbol.agg_id;
            let qty: i64 = group.iter().map(|t| t.qty).sum();
            let last = group.last().map_or(first.id, |t| t.id);
            self.fan(ctx, event.inst, StreamKind::AggTrade, (Class::Trade, None), |micro| {
                let at = stamp(venue_ns, micro);
                format!(
                    "{{\"e\":\"aggTrade\",\"E\":{at},\"s\":\"{}\",\"a\":{agg_id},\"p\":\"{}\",\
                     \"q\":\"{}\",\"f\":{},\"l\":{last},\"T\":{at},\"m\":{},\"M\":true}}",
                    spec.symbol,
                    spec.tick.fixed(first.px, DECIMALS),
                    spec.lot.fixed(qty, DECIMALS),
                    first.id,
                    first.maker == Side::Bid
                )
            });
        }
    }

    /// Sends one payload to all subscribers of a stream, wrapped as each wants it.
    fn fan(
        &self,
        ctx: &mut Ctx<'_>,
        inst: usize,
        kind: StreamKind,
        (class, mark): (Class, Option<Mark>),
        make: impl Fn(bool) -> String,
    ) {
        let symbol = &ctx.market.instruments()[inst].spec.symbol;
        let mut made: [Option<Bytes>; 2] = [None, None];
        for (id, conn) in &self.conns {
            for name in conn.index.get(&(inst, kind)).into_iter().flatten() {
                let data = made[usize::from(conn.micro)]
                    .get_or_insert_with(|| Bytes::from(make(conn.micro)))
                    .clone();
                let body = if conn.combined { wrap(name, &data) } else { data };
                ctx.hub.send_marked(*id, class, symbol, body, mark);
            }
        }
    }

    /// Sends depth slots that ended, pings, and planned closes.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        let mut symbols = std::mem::take(&mut self.symbols);
        for (inst, symbol) in &mut symbols {
            let spec = &ctx.market.instruments()[*inst].spec;
            let frozen = !ctx.hub.faults.is_idle()
                && ctx.hub.faults.state(Kind::FreezeSymbol, VENUE, Some(&spec.symbol)).is_some();
            if !frozen {
                self.slots(ctx, *inst, symbol);
            }
        }
        self.symbols = symbols;
        self.keep_alive(ctx);
    }

    fn slots(&self, ctx: &mut Ctx<'_>, inst: usize, symbol: &mut Symbol) {
        let spec = Arc::clone(&ctx.market.instruments()[inst].spec);
        let venue_ns = ctx.hub.venue_now(VENUE);
        // Symbols end their slots at different moments, as real ones do.
        let phase = inst as u64 % 20 * 5 * MS;
        let second = (ctx.now + phase) / (1_000 * MS);
        if std::mem::replace(&mut symbol.ticker_slot, second) != second {
            for kind in [StreamKind::Ticker, StreamKind::MiniTicker] {
                if self.conns.values().any(|c| c.index.contains_key(&(inst, kind))) {
                    let figures = Figures::of(&ctx.market.instruments()[inst], symbol);
                    self.fan(ctx, inst, kind, (Class::Info, None), |micro| {
                        figures.stream(&spec, stamp(venue_ns, micro), kind)
                    });
                }
            }
        }
        for (slow, pending, length) in
            [(false, &mut symbol.fast, 100 * MS), (true, &mut symbol.slow, 1_000 * MS)]
        {
            let slot = (ctx.now + phase) / length;
            if slot == pending.slot {
                continue;
            }
            pending.slot = slot;
            if pending.first_id != 0 {
                let mark = Some(Mark { venue: VENUE, inst, id: pending.last_id });
                self.fan(ctx, inst, StreamKind::Depth { slow }, (Class::Book, mark), |micro| {
                    depth_update(&spec, pending, stamp(venue_ns, micro))
                });
                *pending = Pending { slot, ..Pending::default() };
            }
            if std::mem::take(&mut symbol.partial[usize::from(slow)]) {
                for levels in [5u8, 10, 20] {
                    let kind = StreamKind::Partial { levels, slow };
                    if !self.conns.values().any(|c| c.index.contains_key(&(inst, kind))) {
                        continue;
                    }
                    let it = &ctx.market.instruments()[inst];
                    let mark = Some(Mark { venue: VENUE, inst, id: it.update_id });
                    let body = snapshot(&spec, &it.book, it.update_id, usize::from(levels), false);
                    self.fan(ctx, inst, kind, (Class::Book, mark), |_| body.clone());
                }
            }
        }
    }

    fn keep_alive(&mut self, ctx: &mut Ctx<'_>) {
        for (id, conn) in &mut self.conns {
            conn.pulse.beat(ctx, *id, &mut self.rng);
        }
        for (id, conn) in &mut self.api {
            conn.pulse.beat(ctx, *id, &mut self.rng);
        }
    }

    /// Announces a planned end.
    pub fn server_shutdown(&mut self, ctx: &mut Ctx<'_>, only: Option<ConnId>) {
        self.api_shutdown(ctx, only);
        let at = ctx.hub.venue_now(VENUE);
        for (id, conn) in self.conns.iter().filter(|(id, _)| only.is_none_or(|o| o == **id)) {
            let data = format!("{{\"e\":\"serverShutdown\",\"E\":{}}}", stamp(at, conn.micro));
            let data = Bytes::from(data);
            let body = if conn.combined { wrap("!serverShutdown", &data) } else { data };
            ctx.hub.send(*id, Class::Reply, "", body);
        }
    }

    /// Sends a recorded stream message to its subscribers, wrapped as each wants it.
    pub fn relay(&mut self, ctx: &mut Ctx<'_>, inst: usize, stream: &str, raw: &Bytes) {
        let (_, suffix) = stream.split_once('@').unwrap_or((stream, ""));
        let kind = StreamKind::parse(suffix);
        let class = match kind {
            StreamKind::Trade | StreamKind::AggTrade => Class::Trade,
            _ => Class::Book,
        };
        let symbol = &ctx.market.instruments()[inst].spec.symbol;
        let bare = unwrap(raw);
        for (id, conn) in &self.conns {
            if conn.index.contains_key(&(inst, kind)) {
                let body = if conn.combined { raw.clone() } else { bare.clone() };
                ctx.hub.send(*id, class, symbol, body);
            }
        }
    }

    /// A body for an injected HTTP status.
    pub fn error_page(&self, ctx: &Ctx<'_>, status: u16) -> Response {
        match status {
            429 => error(429, -1003, TOO_MUCH)
                .with("Retry-After", self.weight.left_ns(ctx.now) / 1_000_000_000 + 1),
            418 => {
                let until_ns = ctx.now + ctx.cfg.binance.ban_s * 1_000_000_000;
                banned(&Ban { until_ns, count: 1 }, ctx.now)
            }
            451 => Response::json(
                451,
                "{\"code\":0,\"msg\":\"Service unavailable from a restricted location\"}"
                    .to_owned(),
            ),
            503 => error(
                503,
                -1008,
                "Server is currently overloaded with other requests. Please try again in a few minutes.",
            ),
            504 => error(
                504,
                -1007,
                "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
            ),
            other => error(other, -1000, "An unknown error occurred while processing the request."),
        }
    }

    /// Answers a REST request.
    pub fn rest(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Response {
        let mut response = self.gated(ctx, request);
        response
            .headers
            .retain(|(name, value)| name != "content-type" || value != "application/json");
        if !response.headers.iter().any(|(name, _)| name == "content-type") {
            response = response.with("content-type", "application/json;charset=UTF-8");
        }
        response
            .with("server", "nginx")
            .with("x-mbx-uuid", format!("{:032x}", self.rng.random::<u128>()))
    }

    fn gated(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Response {
        let cfg = &ctx.cfg.binance;
        if let Some(ban) = self.bans.get(&request.peer).filter(|b| b.until_ns > ctx.now) {
            return banned(ban, ctx.now);
        }
        if let Some(response) = self.private_rest(ctx, request) {
            return response;
        }
        let params = request.params();
        let Some(name) = request.path.strip_prefix("/api/v3/") else {
            return Response::html(404, "<html><body>404 Not Found</body></html>");
        };
        let weight = weight(name, &params);
        let raw = self.raw.add(request.peer, 1, ctx.now);
        let used = self.weight.add(request.peer, weight, ctx.now);
        if used > u64::from(cfg.weight_per_min) || raw > u64::from(cfg.raw_per_5min) {
            return self.refuse(ctx, request.peer);
        }
        let response = if request.method == "GET" {
            self.answer_rest(ctx, name, &params)
        } else {
            error(405, -1000, "Request method is not supported.")
        };
        response.with("x-mbx-used-weight", used).with("x-mbx-used-weight-1m", used)
    }

    /// 429, and 418 for an address that goes on.
    fn refuse(&mut self, ctx: &Ctx<'_>, peer: IpAddr) -> Response {
        let refused = self.refused.add(peer, 1, ctx.now);
        let left_s = self.weight.left_ns(ctx.now) / 1_000_000_000 + 1;
        if refused <= u64::from(ctx.cfg.binance.ban_after_refusals) {
            return error(429, -1003, TOO_MUCH).with("Retry-After", left_s);
        }
        if self.bans.len() >= 4_096 {
            self.bans.pop_first();
        }
        let ban = self.bans.entry(peer).or_insert(Ban { until_ns: 0, count: 0 });
        // Two minutes, doubled each time, up to three days.
        let seconds = (ctx.cfg.binance.ban_s << ban.count.min(12)).min(259_200);
        ban.count += 1;
        ban.until_ns = ctx.now + seconds * 1_000_000_000;
        banned(ban, ctx.now)
    }

    fn answer_rest(
        &mut self,
        ctx: &mut Ctx<'_>,
        name: &str,
        params: &[(String, String)],
    ) -> Response {
        let query = Query { params };
        let allowed: &[&str] = match name {
            "ping" | "time" => &[],
            "depth" => &["symbol", "limit", "symbolStatus"],
            "trades" => &["symbol", "limit"],
            "avgPrice" => &["symbol"],
            "klines" | "uiKlines" => {
                &["symbol", "interval", "startTime", "endTime", "timeZone", "limit"]
            }
            "ticker/24hr" => &["symbol", "symbols", "type", "symbolStatus"],
            "ticker/bookTicker" | "ticker/price" => &["symbol", "symbols", "symbolStatus"],
            "exchangeInfo" => {
                &["symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"]
            }
            _ => return Response::html(404, "<html><body>404 Not Found</body></html>"),
        };
        let read = params.iter().filter(|(n, _)| allowed.contains(&n.as_str())).count();
        if read < params.len() {
            let msg = format!(
                "Not all sent parameters were read; read '{read}' parameter(s) but was sent '{}'.",
                params.len()
            );
            return error(400, -1104, &msg);
        }
        let answer = match name {
            "ping" => Ok("{}".to_owned()),
            "time" => Ok(format!("{{\"serverTime\":{}}}", ctx.hub.venue_now(VENUE) / MS)),
            "depth" => self.rest_depth(ctx, &query),
            "trades" => self.rest_trades(ctx, &query),
            "exchangeInfo" => exchange_info(ctx, &query),
            "avgPrice" => self.rest_average(ctx, &query),
            "klines" | "uiKlines" => rest_klines(ctx, &query),
            "ticker/24hr" => self.rest_day(ctx, &query),
            ticker => self.rest_ticker(ctx, &query, ticker == "ticker/price"),
        };
        match answer {
            Ok(body) => Response::json(200, body),
            Err((code, msg)) => error(400, code, &msg),
        }
    }

    fn rest_depth(
        &mut self,
        ctx: &mut Ctx<'_>,
        query: &Query<'_>,
    ) -> Result<String, (i64, String)> {
        let inst = query.symbol(ctx)?;
        let limit = query.limit(100, 5_000)?;
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        if let Some(wanted) = query.get("symbolStatus")
            && wanted != status_name(ctx, inst)
        {
            return Err((
                -1220,
                "The symbol's status does not match the requested symbolStatus.".to_owned(),
            ));
        }
        let stale = ctx.hub.faults.take(Kind::StaleSnapshot, VENUE, &spec.symbol, 0);
        if let Some(fault) = stale {
            let age = u64::try_from(fault.ms.unwrap_or(2_000)).unwrap_or(0) * MS;
            let truth = &ctx.truth[inst];
            let (book, id) = truth.past_book(&it.book, it.update_id, ctx.now, age);
            return Ok(snapshot(spec, &book, id, limit, false));
        }
        let wrong = ctx.hub.faults.take(Kind::WrongSnapshot, VENUE, &spec.symbol, 0).is_some();
        Ok(snapshot(spec, &it.book, it.update_id, limit, wrong))
    }

    fn rest_trades(&self, ctx: &Ctx<'_>, query: &Query<'_>) -> Result<String, (i64, String)> {
        let inst = query.symbol(ctx)?;
        let limit = query.limit(500, 1_000)?;
        let spec = &ctx.market.instruments()[inst].spec;
        let Some(symbol) = self.symbols.get(&inst) else { return Ok("[]".to_owned()) };
        let skip = symbol.trades.len().saturating_sub(limit);
        let rows: Vec<String> = symbol
            .trades
            .iter()
            .skip(skip)
            .map(|(at, t)| {
                let worth = i128::from(t.px) * i128::from(t.qty);
                let worth = i64::try_from(worth).unwrap_or(i64::MAX);
                let grid = crate::units::Grid {
                    mantissa: spec.tick.mantissa * spec.lot.mantissa,
                    decimals: spec.tick.decimals + spec.lot.decimals,
                };
                let quote = grid.fixed(worth, DECIMALS);
                // Eight decimals are shown, whatever the product has.
                let shown = quote.find('.').map_or(quote.len(), |p| (p + 9).min(quote.len()));
                format!(
                    "{{\"id\":{},\"price\":\"{}\",\"qty\":\"{}\",\"quoteQty\":\"{}\",\"time\":{},\
                     \"isBuyerMaker\":{},\"isBestMatch\":true}}",
                    t.id,
                    spec.tick.fixed(t.px, DECIMALS),
                    spec.lot.fixed(t.qty, DECIMALS),
                    &quote[..shown],
                    at / MS,
                    t.maker == Side::Bid
                )
            })
            .collect();
        Ok(format!("[{}]", rows.join(",")))
    }

    fn rest_average(&self, ctx: &Ctx<'_>, query: &Query<'_>) -> Result<String, (i64, String)> {
        let inst = query.symbol(ctx)?;
        let it = &ctx.market.instruments()[inst];
        let none = Symbol::default();
        let symbol = self.symbols.get(&inst).unwrap_or(&none);
        let figures = Figures::of(it, symbol);
        Ok(format!(
            "{{\"mins\":5,\"price\":\"{}\",\"closeTime\":{}}}",
            figures.average.fixed(DECIMALS),
            ctx.hub.venue_now(VENUE) / MS
        ))
    }

    fn rest_day(&self, ctx: &Ctx<'_>, query: &Query<'_>) -> Result<String, (i64, String)> {
        let (list, single) = query.symbols(ctx)?;
        let at = ctx.hub.venue_now(VENUE) / MS;
        let none = Symbol::default();
        let rows: Vec<String> = list
            .into_iter()
            .map(|inst| {
                let it = &ctx.market.instruments()[inst];
                let symbol = self.symbols.get(&inst).unwrap_or(&none);
                Figures::of(it, symbol).rest(&it.spec, at)
            })
            .collect();
        Ok(if single { rows.concat() } else { format!("[{}]", rows.join(",")) })
    }

    fn rest_ticker(
        &self,
        ctx: &Ctx<'_>,
        query: &Query<'_>,
        price: bool,
    ) -> Result<String, (i64, String)> {
        let (list, single) = query.symbols(ctx)?;
        let rows: Vec<String> = list
            .into_iter()
            .map(|inst| {
                let it = &ctx.market.instruments()[inst];
                let spec = &it.spec;
                let side = |side: Side| {
                    let best = it.book.best(side);
                    let px = spec.tick.fixed(best.map_or(0, |l| l.px), DECIMALS);
                    (px, spec.lot.fixed(best.map_or(0, |l| l.qty), DECIMALS))
                };
                let ((bid, bid_qty), (ask, ask_qty)) = (side(Side::Bid), side(Side::Ask));
                if price {
                    let traded = self.symbols.get(&inst).map_or(0, |s| s.last_px);
                    let last = if traded == 0 { bid } else { spec.tick.fixed(traded, DECIMALS) };
                    return format!("{{\"symbol\":\"{}\",\"price\":\"{last}\"}}", spec.symbol);
                }
                format!(
                    "{{\"symbol\":\"{}\",\"bidPrice\":\"{bid}\",\"bidQty\":\"{bid_qty}\",\
                     \"askPrice\":\"{ask}\",\"askQty\":\"{ask_qty}\"}}",
                    spec.symbol
                )
            })
            .collect();
        Ok(if single { rows.concat() } else { format!("[{}]", rows.join(",")) })
    }
}

/// Intervals of a candle in seconds (sheet 4.5); weeks and months are not told.
const INTERVALS: [(&str, u64); 14] = [
    ("1s", 1),
    ("1m", 60),
    ("3m", 180),
    ("5m", 300),
    ("15m", 900),
    ("30m", 1_800),
    ("1h", 3_600),
    ("2h", 7_200),
    ("4h", 14_400),
    ("6h", 21_600),
    ("8h", 28_800),
    ("12h", 43_200),
    ("1d", 86_400),
    ("3d", 259_200),
];

fn rest_klines(ctx: &Ctx<'_>, query: &Query<'_>) -> Result<String, (i64, String)> {
    let inst = query.symbol(ctx)?;
    let wanted = query.get("interval").unwrap_or_default();
    let Some((_, step_s)) = INTERVALS.iter().find(|(name, _)| *name == wanted) else {
        return Err((-1120, "Invalid interval.".to_owned()));
    };
    let limit = query.limit(500, 1_000)? as u64;
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
    let now_s = ctx.hub.venue_now(VENUE) / 1_000_000_000;
    let end_s = number("endTime").map_or(now_s, |ms| ms / 1_000).min(now_s);
    let (until_s, count) = match number("startTime").map(|ms| ms / 1_000) {
        Some(start_s) if end_s < start_s => return Ok("[]".to_owned()),
        Some(start_s) => {
            let count = ((end_s - start_s) / step_s + 1).min(limit);
            (start_s + (count - 1) * step_s, count)
        }
        None => (end_s, limit),
    };
    let it = &ctx.market.instruments()[inst];
    let spec = &it.spec;
    let rows: Vec<String> = candles(&ctx.cfg.market, it, *step_s, until_s, count)
        .iter()
        .map(|candle| {
            let (px, volume) = (spec.tick.fixed(candle.px, DECIMALS), spec.lot.fixed(candle.lots, DECIMALS));
            let (half, worth) = (spec.lot.fixed(candle.lots / 2, DECIMALS), candle.worth(spec));
            format!(
                "[{},\"{px}\",\"{px}\",\"{px}\",\"{px}\",\"{volume}\",{},\"{}\",{},\"{half}\",\"{}\",\"0\"]",
                candle.start_s * 1_000,
                (candle.start_s + step_s) * 1_000 - 1,
                worth.fixed(DECIMALS),
                candle.count,
                Amount(worth.0 / 2).fixed(DECIMALS),
            )
        })
        .collect();
    Ok(format!("[{}]", rows.join(",")))
}

/// A symbol's 24-hour figures at one moment.
struct Figures {
    open: i64,
    high: i64,
    low: i64,
    last: i64,
    last_qty: i64,
    volume: Amount,
    quote: Amount,
    average: Amount,
    ids: [u64; 2],
    count: u64,
    bid: Option<crate::book::Level>,
    ask: Option<crate::book::Level>,
}

impl Figures {
    fn of(it: &crate::market::Instrument, symbol: &Symbol) -> Self {
        let day = &symbol.day;
        let (bid, ask) = (it.book.best(Side::Bid), it.book.best(Side::Ask));
        // Without a trade yet, the best bid stands for all prices.
        let or_bid = |px: i64| if px == 0 { bid.map_or(0, |l| l.px) } else { px };
        let lots = i64::try_from(day.volume).unwrap_or(i64::MAX);
        let volume = Amount::of(it.spec.lot, lots);
        let last = or_bid(symbol.last_px);
        let average = match day.count {
            0 => Amount::of(it.spec.tick, last),
            _ => day.quote.over(volume, DECIMALS),
        };
        Self {
            open: or_bid(day.open),
            high: or_bid(day.high),
            low: or_bid(day.low),
            last,
            last_qty: day.last_qty,
            volume,
            quote: day.quote,
            average,
            ids: [day.first_id, day.last_id],
            count: day.count,
            bid,
            ask,
        }
    }

    fn change(&self, spec: &Spec) -> (String, String) {
        let change = Amount::of(spec.tick, self.last - self.open);
        let percent = Amount(change.0 * 100).over(Amount::of(spec.tick, self.open.max(1)), 3);
        (change.fixed(DECIMALS), percent.fixed(3))
    }

    fn stream(&self, spec: &Spec, at: u64, kind: StreamKind) -> String {
        let px = |px: i64| spec.tick.fixed(px, DECIMALS);
        let qty = |qty: i64| spec.lot.fixed(qty, DECIMALS);
        let (volume, quote) = (self.volume.fixed(DECIMALS), self.quote.fixed(DECIMALS));
        if kind == StreamKind::MiniTicker {
            return format!(
                "{{\"e\":\"24hrMiniTicker\",\"E\":{at},\"s\":\"{}\",\"c\":\"{}\",\"o\":\"{}\",\"h\":\"{}\",\
                 \"l\":\"{}\",\"v\":\"{volume}\",\"q\":\"{quote}\"}}",
                spec.symbol,
                px(self.last),
                px(self.open),
                px(self.high),
                px(self.low)
            );
        }
        let (change, percent) = self.change(spec);
        let side = |level: Option<crate::book::Level>| {
            level.map_or((px(0), qty(0)), |l| (px(l.px), qty(l.qty)))
        };
        let ((bid, bid_qty), (ask, ask_qty)) = (side(self.bid), side(self.ask));
        format!(
            "{{\"e\":\"24hrTicker\",\"E\":{at},\"s\":\"{}\",\"p\":\"{change}\",\"P\":\"{percent}\",\"w\":\"{}\",\
             \"x\":\"{open}\",\"c\":\"{}\",\"Q\":\"{}\",\"b\":\"{bid}\",\"B\":\"{bid_qty}\",\"a\":\"{ask}\",\
             \"A\":\"{ask_qty}\",\"o\":\"{open}\",\"h\":\"{}\",\"l\":\"{}\",\"v\":\"{volume}\",\"q\":\"{quote}\",\
             \"O\":{},\"C\":{at},\"F\":{},\"L\":{},\"n\":{}}}",
            spec.symbol,
            self.average.fixed(DECIMALS),
            px(self.last),
            qty(self.last_qty),
            px(self.high),
            px(self.low),
            at.saturating_sub(86_400_000),
            self.ids[0],
            self.ids[1],
            self.count,
            open = px(self.open),
        )
    }

    fn rest(&self, spec: &Spec, at: u64) -> String {
        let px = |px: i64| spec.tick.fixed(px, DECIMALS);
        let qty = |qty: i64| spec.lot.fixed(qty, DECIMALS);
        let (change, percent) = self.change(spec);
        let side = |level: Option<crate::book::Level>| {
            level.map_or((px(0), qty(0)), |l| (px(l.px), qty(l.qty)))
        };
        let ((bid, bid_qty), (ask, ask_qty)) = (side(self.bid), side(self.ask));
        format!(
            "{{\"symbol\":\"{}\",\"priceChange\":\"{change}\",\"priceChangePercent\":\"{percent}\",\
             \"weightedAvgPrice\":\"{}\",\"prevClosePrice\":\"{open}\",\"lastPrice\":\"{}\",\"lastQty\":\"{}\",\
             \"bidPrice\":\"{bid}\",\"bidQty\":\"{bid_qty}\",\"askPrice\":\"{ask}\",\"askQty\":\"{ask_qty}\",\
             \"openPrice\":\"{open}\",\"highPrice\":\"{}\",\"lowPrice\":\"{}\",\"volume\":\"{}\",\
             \"quoteVolume\":\"{}\",\"openTime\":{},\"closeTime\":{at},\"firstId\":{},\"lastId\":{},\"count\":{}}}",
            spec.symbol,
            self.average.fixed(DECIMALS),
            px(self.last),
            qty(self.last_qty),
            px(self.high),
            px(self.low),
            self.volume.fixed(DECIMALS),
            self.quote.fixed(DECIMALS),
            at.saturating_sub(86_400_000),
            self.ids[0],
            self.ids[1],
            self.count,
            open = px(self.open),
        )
    }
}

const TOO_MUCH: &str = "Too much request weight used; current limit is 6000 request weight per 1 MINUTE. \
                        Please use WebSocket Streams for live updates to avoid polling the API.";

/// Milliseconds, or microseconds for a connection that asked for them.
fn stamp(unix_ns: u64, micro: bool) -> u64 {
    unix_ns / if micro { 1_000 } else { MS }
}

fn wrap(name: &str, data: &Bytes) -> Bytes {
    let mut body = Vec::with_capacity(data.len() + name.len() + 24);
    body.extend_from_slice(b"{\"stream\":\"");
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(b"\",\"data\":");
    body.extend_from_slice(data);
    body.push(b'}');
    Bytes::from(body)
}

/// The inside of a recorded combined message; a bare one is returned as it is.
fn unwrap(raw: &Bytes) -> Bytes {
    const MARK: &[u8] = b"\"data\":";
    if !raw.starts_with(b"{\"stream\":") {
        return raw.clone();
    }
    match raw.windows(MARK.len()).position(|w| w == MARK) {
        Some(at) if raw.len() > at + MARK.len() => raw.slice(at + MARK.len()..raw.len() - 1),
        _ => raw.clone(),
    }
}

/// Whether a stream name is well formed; whether its symbol exists is nobody's business here.
fn is_stream(name: &str) -> bool {
    let (symbol, suffix) = name.split_once('@').unwrap_or((name, ""));
    let all = name.starts_with('!');
    (all || (!symbol.is_empty() && !suffix.is_empty())) && !name.contains(char::is_whitespace)
}

fn id_is_valid(id: &Value) -> bool {
    match id {
        Value::Null => true,
        Value::Number(n) => n.is_i64(),
        // Documented as alphanumeric; the official Python SDK sends UUIDs with their dashes.
        Value::String(s) => {
            s.len() <= 36 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        }
        _ => false,
    }
}

fn write_rows(spec: &Spec, rows: impl Iterator<Item = (i64, i64)>, out: &mut String) {
    for (i, (px, qty)) in rows.enumerate() {
        out.push_str(if i == 0 { "[\"" } else { ",[\"" });
        spec.tick.write_fixed(px, DECIMALS, out);
        out.push_str("\",\"");
        spec.lot.write_fixed(qty, DECIMALS, out);
        out.push_str("\"]");
    }
}

fn depth_update(spec: &Spec, pending: &Pending, at: u64) -> String {
    let mut out = String::with_capacity(128 + pending.levels.len() * 32);
    let _ = write!(
        out,
        "{{\"e\":\"depthUpdate\",\"E\":{at},\"s\":\"{}\",\"U\":{},\"u\":{},\"b\":[",
        spec.symbol, pending.first_id, pending.last_id
    );
    let side = |wanted: Side| {
        let rows = pending.levels.iter().filter(move |((side, _), _)| *side == wanted);
        rows.map(|((_, px), qty)| (*px, *qty))
    };
    write_rows(spec, side(Side::Bid).rev(), &mut out);
    out.push_str("],\"a\":[");
    write_rows(spec, side(Side::Ask), &mut out);
    out.push_str("]}");
    out
}

fn snapshot(spec: &Spec, book: &Book, id: u64, limit: usize, wrong: bool) -> String {
    let mut out = String::with_capacity(64 + limit.min(5_000) * 64);
    let _ = write!(out, "{{\"lastUpdateId\":{id},\"bids\":[");
    for side in [Side::Bid, Side::Ask] {
        let mut rows: Vec<(i64, i64)> =
            book.levels(side).take(limit).map(|l| (l.px, l.qty)).collect();
        if wrong {
            spoil_snapshot(&mut rows, side);
        }
        write_rows(spec, rows.into_iter(), &mut out);
        out.push_str(if side == Side::Bid { "],\"asks\":[" } else { "]}" });
    }
    out
}

fn book_ticker(spec: &Spec, book: &Book, id: u64) -> Option<String> {
    let (bid, ask) = (book.best(Side::Bid)?, book.best(Side::Ask)?);
    let mut out = String::with_capacity(160);
    let _ = write!(out, "{{\"u\":{id},\"s\":\"{}\",\"b\":\"", spec.symbol);
    spec.tick.write_fixed(bid.px, DECIMALS, &mut out);
    out.push_str("\",\"B\":\"");
    spec.lot.write_fixed(bid.qty, DECIMALS, &mut out);
    out.push_str("\",\"a\":\"");
    spec.tick.write_fixed(ask.px, DECIMALS, &mut out);
    out.push_str("\",\"A\":\"");
    spec.lot.write_fixed(ask.qty, DECIMALS, &mut out);
    out.push_str("\"}");
    Some(out)
}

fn error(status: u16, code: i64, msg: &str) -> Response {
    let mut text = String::new();
    write_json_string(msg, &mut text);
    Response::json(status, format!("{{\"code\":{code},\"msg\":{text}}}"))
}

fn banned(ban: &Ban, now: u64) -> Response {
    let msg = format!(
        "Way too much request weight used; IP banned until {}. Please use WebSocket Streams for live \
         updates to avoid bans.",
        ban.until_ns / MS
    );
    let left_s = ban.until_ns.saturating_sub(now) / 1_000_000_000 + 1;
    error(418, -1003, &msg).with("Retry-After", left_s)
}

/// Request weight of an endpoint (sheet 4.5).
fn weight(name: &str, params: &[(String, String)]) -> u64 {
    let get = |key: &str| params.iter().find(|(n, _)| n == key).map(|(_, v)| v.as_str());
    match name {
        "exchangeInfo" => 20,
        "trades" => 25,
        "avgPrice" | "klines" | "uiKlines" => 2,
        "ticker/24hr" if get("symbol").is_some() => 2,
        "ticker/24hr" => 80,
        "depth" => match get("limit").and_then(|l| l.parse().ok()).unwrap_or(100u64) {
            0..=100 => 5,
            101..=500 => 25,
            501..=1_000 => 50,
            _ => 250,
        },
        "ticker/bookTicker" | "ticker/price" if get("symbol").is_some() => 2,
        "ticker/bookTicker" | "ticker/price" => 4,
        _ => 1,
    }
}

fn status_name<'a>(ctx: &'a Ctx<'_>, inst: usize) -> &'a str {
    let it = &ctx.market.instruments()[inst];
    if it.status == Status::Online {
        return match ctx.desk.mode(VENUE) {
            Mode::Online | Mode::PostOnly | Mode::LimitOnly => "TRADING",
            Mode::CancelOnly => "CANCEL_ONLY",
            Mode::Maintenance => "BREAK",
        };
    }
    match ctx.hub.faults.state(Kind::Halt, VENUE, Some(&it.spec.symbol)) {
        Some(f) if f.mode.as_deref() == Some("break") => "BREAK",
        Some(f) if f.mode.as_deref() == Some("cancel_only") => "CANCEL_ONLY",
        _ => "HALT",
    }
}

/// Checked access to query parameters.
struct Query<'a> {
    params: &'a [(String, String)],
}

impl Query<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn find(ctx: &Ctx<'_>, symbol: &str) -> Result<usize, (i64, String)> {
        let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if symbol.is_ascii() && !(symbol.len() <= 20 && symbol.bytes().all(legal)) {
            let msg = "Illegal characters found in parameter 'symbol'; legal range is \
                       '^[A-Z0-9-_.]{1,20}$'.";
            return Err((-1100, msg.to_owned()));
        }
        ctx.market.find(VENUE, symbol).ok_or((-1121, "Invalid symbol.".to_owned()))
    }

    fn symbol(&self, ctx: &Ctx<'_>) -> Result<usize, (i64, String)> {
        let missing = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.";
        let symbol = self.get("symbol").filter(|s| !s.is_empty());
        Self::find(ctx, symbol.ok_or((-1102, missing.to_owned()))?)
    }

    fn limit(&self, default: usize, most: usize) -> Result<usize, (i64, String)> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        match text.parse::<usize>() {
            Ok(limit) if limit > 0 => Ok(limit.min(most)),
            Ok(_) => Err((-1130, "Data sent for parameter 'limit' is not valid.".to_owned())),
            Err(_) => Err((
                -1100,
                "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'."
                    .to_owned(),
            )),
        }
    }

    /// Instruments of `symbol` or `symbols`, else all; and whether one object is asked for.
    fn symbols(&self, ctx: &Ctx<'_>) -> Result<(Vec<usize>, bool), (i64, String)> {
        if self.get("symbol").is_some() && self.get("symbols").is_some() {
            let msg = "Combination of optional parameters invalid. Recommendation: 'symbol' or 'symbols'.";
            return Err((-1128, msg.to_owned()));
        }
        if self.get("symbol").is_some() {
            return Ok((vec![self.symbol(ctx)?], true));
        }
        let Some(list) = self.get("symbols") else {
            let all = ctx.market.instruments().iter().enumerate();
            return Ok((
                all.filter(|(_, i)| i.spec.venue == VENUE).map(|(i, _)| i).collect(),
                false,
            ));
        };
        let names: Vec<String> = serde_json::from_str(list)
            .map_err(|_| (-1100, "Illegal characters found in parameter 'symbols'.".to_owned()))?;
        let mut found = Vec::new();
        for name in &names {
            let inst = Self::find(ctx, name)?;
            if found.contains(&inst) {
                return Err((
                    -1151,
                    format!("Symbol is present multiple times in the list: {name}."),
                ));
            }
            found.push(inst);
        }
        Ok((found, false))
    }
}

fn exchange_info(ctx: &Ctx<'_>, query: &Query<'_>) -> Result<String, (i64, String)> {
    let (list, _) = query.symbols(ctx)?;
    let wanted = query.get("symbolStatus");
    if wanted.is_some() && (query.get("symbol").is_some() || query.get("symbols").is_some()) {
        return Err((-1128, "Combination of optional parameters invalid.".to_owned()));
    }
    let cfg = &ctx.cfg.binance;
    let mut out = format!(
        "{{\"timezone\":\"UTC\",\"serverTime\":{},\"rateLimits\":[\
         {{\"rateLimitType\":\"REQUEST_WEIGHT\",\"interval\":\"MINUTE\",\"intervalNum\":1,\"limit\":{}}},\
         {{\"rateLimitType\":\"ORDERS\",\"interval\":\"SECOND\",\"intervalNum\":10,\"limit\":{}}},\
         {{\"rateLimitType\":\"ORDERS\",\"interval\":\"DAY\",\"intervalNum\":1,\"limit\":{}}},\
         {{\"rateLimitType\":\"RAW_REQUESTS\",\"interval\":\"MINUTE\",\"intervalNum\":5,\"limit\":{}}}],\
         \"exchangeFilters\":[],\"symbols\":[",
        ctx.hub.venue_now(VENUE) / MS,
        cfg.weight_per_min,
        cfg.orders_per_10s,
        cfg.orders_per_day,
        cfg.raw_per_5min
    );
    let mut first = true;
    for inst in list {
        let status = status_name(ctx, inst);
        if wanted.is_some_and(|w| w != status) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        write_symbol(&ctx.market.instruments()[inst].spec, status, &mut out);
    }
    out.push_str("],\"sors\":[]}");
    Ok(out)
}

fn write_symbol(spec: &Spec, status: &str, out: &mut String) {
    let pad = |text: &str| {
        let decimals = text.split_once('.').map_or(0, |(_, d)| d.len());
        let point = if decimals == 0 { "." } else { "" };
        format!("{text}{point}{}", "0".repeat(8usize.saturating_sub(decimals)))
    };
    let tick = spec.tick_rule().fixed(1, DECIMALS);
    let lot = spec.lot_rule().fixed(1, DECIMALS);
    let max_px = if spec.quote == "BTC" { "1000.00000000" } else { "1000000.00000000" };
    let max_notional = if spec.quote == "BTC" { "9000.00000000" } else { "9000000.00000000" };
    let _ = write!(
        out,
        "{{\"symbol\":\"{}\",\"status\":\"{status}\",\"baseAsset\":\"{}\",\"baseAssetPrecision\":8,\
         \"quoteAsset\":\"{}\",\"quotePrecision\":8,\"quoteAssetPrecision\":8,\
         \"baseCommissionPrecision\":8,\"quoteCommissionPrecision\":8,\
         \"orderTypes\":[\"LIMIT\",\"LIMIT_MAKER\",\"MARKET\",\"STOP_LOSS\",\"STOP_LOSS_LIMIT\",\
         \"TAKE_PROFIT\",\"TAKE_PROFIT_LIMIT\"],\"icebergAllowed\":true,\"ocoAllowed\":true,\
         \"otoAllowed\":true,\"opoAllowed\":true,\"quoteOrderQtyMarketAllowed\":true,\
         \"allowTrailingStop\":true,\"cancelReplaceAllowed\":true,\"amendAllowed\":true,\
         \"pegInstructionsAllowed\":true,\"isSpotTradingAllowed\":true,\"isMarginTradingAllowed\":true,\
         \"filters\":[\
         {{\"filterType\":\"PRICE_FILTER\",\"minPrice\":\"{tick}\",\"maxPrice\":\"{max_px}\",\"tickSize\":\"{tick}\"}},\
         {{\"filterType\":\"LOT_SIZE\",\"minQty\":\"{}\",\"maxQty\":\"9000000.00000000\",\"stepSize\":\"{lot}\"}},\
         {{\"filterType\":\"ICEBERG_PARTS\",\"limit\":100}},\
         {{\"filterType\":\"MARKET_LOT_SIZE\",\"minQty\":\"0.00000000\",\"maxQty\":\"9000000.00000000\",\"stepSize\":\"0.00000000\"}},\
         {{\"filterType\":\"TRAILING_DELTA\",\"minTrailingAboveDelta\":10,\"maxTrailingAboveDelta\":2000,\"minTrailingBelowDelta\":10,\"maxTrailingBelowDelta\":2000}},\
         {{\"filterType\":\"PERCENT_PRICE_BY_SIDE\",\"bidMultiplierUp\":\"5\",\"bidMultiplierDown\":\"0.2\",\"askMultiplierUp\":\"5\",\"askMultiplierDown\":\"0.2\",\"avgPriceMins\":5}},\
         {{\"filterType\":\"NOTIONAL\",\"minNotional\":\"{}\",\"applyMinToMarket\":true,\"maxNotional\":\"{max_notional}\",\"applyMaxToMarket\":false,\"avgPriceMins\":5}},\
         {{\"filterType\":\"MAX_NUM_ORDERS\",\"maxNumOrders\":200}},\
         {{\"filterType\":\"MAX_NUM_ALGO_ORDERS\",\"maxNumAlgoOrders\":5}},\
         {{\"filterType\":\"MAX_NUM_ORDER_LISTS\",\"maxNumOrderLists\":20}},\
         {{\"filterType\":\"MAX_NUM_ORDER_AMENDS\",\"maxNumOrderAmends\":10}}],\
         \"permissions\":[],\"permissionSets\":[[\"SPOT\",\"MARGIN\",\"TRD_GRP_004\"]],\
         \"defaultSelfTradePreventionMode\":\"EXPIRE_MAKER\",\
         \"allowedSelfTradePreventionModes\":[\"EXPIRE_TAKER\",\"EXPIRE_MAKER\",\"EXPIRE_BOTH\",\"DECREMENT\",\"TRANSFER\"]}}",
        spec.symbol,
        spec.base,
        spec.quote,
        pad(&spec.min_qty),
        pad(&spec.min_notional)
    );
}
