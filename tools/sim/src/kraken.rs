//! Kraken Spot: WebSocket v2 and public REST (`protocols/kraken.md` 2-4, 7.1, 8).
//!
//! Invariant: a client that applies every `book` message and cuts to its depth holds exactly the top of
//! the simulator's book, and the message's checksum is that of the best ten levels a side. A level pushed
//! beyond the depth is not deleted but published again when it comes back.
//!
//! Numbers are written with the instrument's full precision (`65000.0`, `0.50000000`), so that both
//! clients that take the raw text and clients that format anew get the same checksum.
//!
//! Not here: private REST (`private`), trading and private channels (`trading`).

mod private;
mod trading;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use crate::book::{Book, Side};
use crate::config::{SimConfig, Venue};
use crate::faults::{Class, Kind};
use crate::history::candles;
use crate::hub::{ConnId, Out, Outbox};
use crate::limits::{Buckets, FixedWindow};
use crate::market::{Event, MS, Market, Spec, Status, Trade, rng};
use crate::net::{Request, Response, parse_query};
use crate::observe::Mark;
use crate::units::{rfc1123_short, rfc3339_s, rfc3339_us, write_json_string};
use crate::world::{Ctx, Tape, spoil_snapshot};
use crate::ws::Incoming;

const VENUE: Venue = Venue::Kraken;
const DEPTHS: [u64; 5] = [10, 25, 100, 500, 1000];
const TRADES_KEPT: usize = 1_000;

type Rows = Vec<(i64, i64)>;

#[derive(Debug, Default)]
struct Conn {
    opened_ns: u64,
    sent_ns: u64,
    heartbeat_ns: u64,
    window: (u64, u32),
    /// Depth by instrument.
    books: BTreeMap<usize, usize>,
    trades: BTreeSet<usize>,
    /// Whether `event_trigger` is `bbo`, by instrument.
    tickers: BTreeMap<usize, bool>,
    instruments: bool,
    heartbeats: bool,
    /// Keys of the tokens used here while they were fresh.
    tokens: BTreeMap<String, usize>,
    executions: Option<trading::Private>,
    balances: Option<trading::Private>,
    /// Subscribed before the tape began.
    on_tape: bool,
}

impl Conn {
    fn is_subscribed(&self) -> bool {
        !self.books.is_empty()
            || !self.trades.is_empty()
            || !self.tickers.is_empty()
            || self.instruments
            || self.heartbeats
            || self.executions.is_some()
            || self.balances.is_some()
    }
}

/// What subscribers of one depth hold: bids and asks, best first.
#[derive(Debug, Default)]
struct View {
    sides: [Rows; 2],
}

#[derive(Debug, Default)]
struct Stats {
    trades: VecDeque<(u64, Trade)>,
    open: i64,
    high: i64,
    low: i64,
    last: i64,
    volume: i128,
    worth: f64,
    count: u64,
}

/// The Kraken face.
#[derive(Debug)]
pub(crate) struct Kraken {
    conns: BTreeMap<ConnId, Conn>,
    views: BTreeMap<(usize, usize), View>,
    stats: BTreeMap<usize, Stats>,
    rng: ChaCha8Rng,
    connects: FixedWindow,
    public: Buckets<std::net::IpAddr>,
    system: String,
    tokens: BTreeMap<String, trading::Token>,
    /// Private REST calls by key: when, and the counter then.
    calls: BTreeMap<usize, (u64, f64)>,
    /// The matching-engine counter by account and pair.
    engine: BTreeMap<(usize, usize), (u64, f64)>,
    amends: usize,
    /// Balances after each entry told, by account.
    ledger: BTreeMap<usize, BTreeMap<String, crate::amount::Amount>>,
}

impl Kraken {
    pub fn new(cfg: &SimConfig, market: &Market) -> Self {
        let mine = market.instruments().iter().enumerate().filter(|(_, i)| i.spec.venue == VENUE);
        Self {
            conns: BTreeMap::new(),
            views: BTreeMap::new(),
            stats: mine.map(|(i, _)| (i, Stats::default())).collect(),
            rng: rng(cfg.seed, 6),
            connects: FixedWindow::new(600),
            public: Buckets::new(cfg.kraken.public_per_s, cfg.kraken.public_burst),
            system: "online".to_owned(),
            tokens: BTreeMap::new(),
            calls: BTreeMap::new(),
            engine: BTreeMap::new(),
            amends: 0,
            ledger: BTreeMap::new(),
        }
    }

    pub fn has_subscriber(&self) -> bool {
        self.conns.values().any(|c| !c.books.is_empty())
    }

    pub fn closed(&mut self, id: ConnId) {
        self.conns.remove(&id);
        self.drop_views();
    }

    /// Forgets views that nobody subscribes to.
    fn drop_views(&mut self) {
        let conns = &self.conns;
        self.views
            .retain(|(inst, depth), _| conns.values().any(|c| c.books.get(inst) == Some(depth)));
    }

    pub fn open(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Result<Outbox, Response> {
        let tried = self.connects.add(request.peer, 1, ctx.now);
        if tried > u64::from(ctx.cfg.kraken.connects_per_10min) {
            return Err(Response::html(429, "<html><body>error code: 1015</body></html>"));
        }
        if !request.path.trim_end_matches('/').ends_with("/v2") {
            return Err(Response::html(404, "<html><body>404 Not Found</body></html>"));
        }
        let outbox = ctx.hub.open(VENUE, request.peer, request.tls, request.path.clone());
        let conn = Conn { opened_ns: ctx.now, sent_ns: ctx.now, ..Conn::default() };
        self.conns.insert(outbox.id, conn);
        match ctx.tape {
            Tape::Waiting(first) if !first.is_empty() => {
                for raw in first {
                    ctx.hub.send(outbox.id, Class::Info, "", raw.clone());
                }
            }
            _ => {
                let body = self.status_message();
                ctx.hub.send(outbox.id, Class::Info, "", body);
            }
        }
        Ok(outbox)
    }

    fn status_message(&mut self) -> Bytes {
        // Above 2^63 on purpose: the real ones are.
        let connection_id = self.rng.random::<u64>() | 1 << 63;
        Bytes::from(format!(
            "{{\"channel\":\"status\",\"type\":\"update\",\"data\":[{{\"version\":\"2.0.10\",\
             \"system\":\"{}\",\"api_version\":\"v2\",\"connection_id\":{connection_id}}}]}}",
            self.system
        ))
    }

    /// Changes the engine's state and tells every connection.
    pub fn set_system(&mut self, ctx: &mut Ctx<'_>, system: &str) {
        system.clone_into(&mut self.system);
        let ids: Vec<ConnId> = self.conns.keys().copied().collect();
        for id in ids {
            let body = self.status_message();
            ctx.hub.send(id, Class::Info, "", body);
        }
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
        let second = ctx.now.saturating_sub(conn.opened_ns) / 1_000_000_000;
        if conn.window.0 != second {
            conn.window = (second, 0);
        }
        conn.window.1 += 1;
        let replies = if conn.window.1 > ctx.cfg.kraken.messages_per_s {
            vec![(Class::Reply, String::new(), "{\"Error\":\"Exceeded msg rate\"}".to_owned())]
        } else {
            self.request(ctx, id, &mut conn, &text)
        };
        conn.sent_ns = ctx.now;
        self.conns.insert(id, conn);
        for (class, symbol, body) in replies {
            match class {
                // Replies to orders leave as their fate wants it.
                Class::Any => ctx.replies.push((id, Bytes::from(body))),
                Class::User => ctx.hub.send_user(id, &symbol, Bytes::from(body)),
                _ => ctx.hub.send(id, class, &symbol, Bytes::from(body)),
            }
        }
        self.drop_views();
    }

    fn request(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        text: &str,
    ) -> Vec<(Class, String, String)> {
        let times = self.times(ctx);
        let plain = |body: String| vec![(Class::Reply, String::new(), body)];
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return plain(format!("{{\"error\":\"Malformed request\",\"success\":false,{times}}}"));
        };
        let req_id = match value.get("req_id") {
            None | Some(Value::Null) => String::new(),
            Some(Value::Number(n)) if n.is_i64() || n.is_u64() => format!("\"req_id\":{n},"),
            Some(_) => {
                return plain(format!(
                    "{{\"error\":\"Invalid req_id\",\"success\":false,{times}}}"
                ));
            }
        };
        let method = value.get("method").and_then(Value::as_str).unwrap_or("");
        let empty = Value::Null;
        let params = value.get("params").unwrap_or(&empty);
        match method {
            "ping" => plain(format!("{{\"method\":\"pong\",{req_id}{times}}}")),
            "subscribe" | "unsubscribe" => {
                let call = Call { method, req_id: &req_id, times: &times, params };
                self.subscription(ctx, id, conn, &call)
            }
            method if trading::METHODS.contains(&method) => {
                let call = Call { method, req_id: &req_id, times: &times, params };
                let replies = self.trade_request(ctx, conn, &call);
                replies.into_iter().map(|body| (Class::Any, String::new(), body)).collect()
            }
            other => {
                let mut name = String::new();
                write_json_string(other, &mut name);
                plain(format!(
                    "{{\"method\":{name},{req_id}\"success\":false,\"error\":\"Method not supported\",{times}}}"
                ))
            }
        }
    }

    fn times(&mut self, ctx: &Ctx<'_>) -> String {
        let at = ctx.hub.venue_now(VENUE);
        let took = self.rng.random_range(15_000..60_000);
        format!("\"time_in\":\"{}\",\"time_out\":\"{}\"", rfc3339_us(at), rfc3339_us(at + took))
    }

    fn subscription(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        call: &Call<'_>,
    ) -> Vec<(Class, String, String)> {
        let channel = call.params.get("channel").and_then(Value::as_str).unwrap_or("");
        let on = call.method == "subscribe";
        let mut out = Vec::new();
        match channel {
            "instrument" => {
                conn.instruments = on;
                let snapshot = call.flag("snapshot").unwrap_or(true);
                let warnings = "[\"tick_size is deprecated, use price_increment\"]";
                let result = format!(
                    "\"result\":{{\"channel\":\"instrument\",\"snapshot\":{snapshot},\"warnings\":{warnings}}}"
                );
                out.push((Class::Reply, String::new(), call.accept(&result)));
                if on && snapshot {
                    out.push((Class::Info, String::new(), instrument_snapshot(ctx)));
                }
                return out;
            }
            // Reference: cannot be subscribed; a newer guide does. No error either way.
            "heartbeat" | "status" => {
                conn.heartbeats |= on && channel == "heartbeat";
                let result = format!("\"result\":{{\"channel\":\"{channel}\"}}");
                return vec![(Class::Reply, String::new(), call.accept(&result))];
            }
            "book" | "trade" | "ticker" => {}
            "executions" | "balances" => {
                return self.private_channel(ctx, id, conn, call, channel);
            }
            other => {
                let mut name = String::new();
                write_json_string(other, &mut name);
                let why = format!("Subscription channel not supported {}", other.escape_default());
                return vec![(Class::Reply, String::new(), call.refuse(None, &why))];
            }
        }
        let symbols: Vec<String> = match call.params.get("symbol") {
            Some(Value::Array(list)) => {
                list.iter().map(|s| s.as_str().unwrap_or("").to_owned()).collect()
            }
            Some(Value::String(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        if symbols.is_empty() {
            return vec![(Class::Reply, String::new(), call.refuse(None, "Symbol(s) required"))];
        }
        // Snapshots come each after its own ack, or all after the last: both are legal.
        let apart = self.rng.random::<bool>();
        let mut snapshots = Vec::new();
        for symbol in symbols {
            let Some(inst) = ctx.market.find(VENUE, &symbol) else {
                let why = format!("Currency pair not supported {}", symbol.escape_default());
                out.push((Class::Reply, symbol.clone(), call.refuse(Some(&symbol), &why)));
                continue;
            };
            let (ack, snapshot) = if on {
                self.subscribe(ctx, id, conn, call, channel, inst)
            } else {
                (Self::unsubscribe(conn, call, channel, &symbol, inst), None)
            };
            if let Some(ack) = ack {
                out.push((Class::Reply, symbol.clone(), ack));
            }
            if let Some((class, body)) = snapshot {
                if apart {
                    snapshots.push((class, symbol, body));
                } else {
                    out.push((class, symbol, body));
                }
            }
        }
        out.extend(snapshots);
        out
    }

    /// Subscribes one symbol; returns its ack (none while a tape waits) and its snapshot.
    fn subscribe(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        call: &Call<'_>,
        channel: &str,
        inst: usize,
    ) -> (Option<String>, Option<(Class, String)>) {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let symbol = &spec.symbol;
        let refuse = |why: &str| (Some(call.refuse(Some(symbol), why)), None);
        let waiting = matches!(ctx.tape, Tape::Waiting(_));
        match channel {
            "book" => {
                let depth = match call.params.get("depth") {
                    None => 10,
                    Some(v) => v.as_u64().unwrap_or(0),
                };
                if !DEPTHS.contains(&depth) {
                    return refuse("Subscription depth not supported");
                }
                if conn.books.contains_key(&inst) {
                    return refuse("Already subscribed to one or more of the given channels");
                }
                let depth = usize::try_from(depth).unwrap_or(10);
                conn.books.insert(inst, depth);
                if waiting {
                    conn.on_tape = true;
                    return (None, None);
                }
                let snapshot = call.flag("snapshot").unwrap_or(true);
                let ack = call.accept(&format!(
                    "\"result\":{{\"channel\":\"book\",\"depth\":{depth},\"snapshot\":{snapshot},\"symbol\":\"{symbol}\"}}"
                ));
                let wrong = ctx.hub.faults.take(Kind::WrongSnapshot, VENUE, symbol, id).is_some();
                // A view that others already have may lag a frozen publisher: the newcomer joins it.
                let view = self
                    .views
                    .entry((inst, depth))
                    .or_insert_with(|| View { sides: top(&it.book, depth) });
                let body = book_snapshot(spec, view, ctx.hub.venue_now(VENUE), wrong);
                (Some(ack), snapshot.then_some((Class::Book, body)))
            }
            "trade" => {
                conn.trades.insert(inst);
                if waiting {
                    return (None, None);
                }
                let snapshot = call.flag("snapshot").unwrap_or(false);
                let ack = call.accept(&format!(
                    "\"result\":{{\"channel\":\"trade\",\"snapshot\":{snapshot},\"symbol\":\"{symbol}\"}}"
                ));
                let rows = self.stats.get(&inst).map(|s| {
                    let skip = s.trades.len().saturating_sub(50);
                    trade_rows(spec, s.trades.iter().skip(skip).map(|(at, t)| (*at, *t)))
                });
                let body = format!(
                    "{{\"channel\":\"trade\",\"type\":\"snapshot\",\"data\":[{}]}}",
                    rows.unwrap_or_default()
                );
                (Some(ack), snapshot.then_some((Class::Trade, body)))
            }
            _ => {
                let trigger = call.params.get("event_trigger").and_then(Value::as_str);
                let bbo = match trigger {
                    None | Some("trades") => false,
                    Some("bbo") => true,
                    Some(_) => return refuse("Event trigger not supported"),
                };
                conn.tickers.insert(inst, bbo);
                let snapshot = call.flag("snapshot").unwrap_or(true);
                let ack = call.accept(&format!(
                    "\"result\":{{\"channel\":\"ticker\",\"event_trigger\":\"{}\",\"snapshot\":{snapshot},\"symbol\":\"{symbol}\"}}",
                    if bbo { "bbo" } else { "trades" }
                ));
                let body = self.ticker(ctx, inst, "snapshot");
                (Some(ack), snapshot.then_some((Class::Info, body)))
            }
        }
    }

    fn unsubscribe(
        conn: &mut Conn,
        call: &Call<'_>,
        channel: &str,
        symbol: &str,
        inst: usize,
    ) -> Option<String> {
        let depth = call.params.get("depth").and_then(Value::as_u64).unwrap_or(10);
        let held = match channel {
            "book" => {
                let same = conn.books.get(&inst).is_some_and(|d| *d as u64 == depth);
                if same {
                    conn.books.remove(&inst);
                }
                same
            }
            "trade" => conn.trades.remove(&inst),
            _ => conn.tickers.remove(&inst).is_some(),
        };
        if !held {
            return Some(call.refuse(Some(symbol), "Subscription Not Found"));
        }
        let depth = if channel == "book" { format!("\"depth\":{depth},") } else { String::new() };
        Some(call.accept(&format!(
            "\"result\":{{\"channel\":\"{channel}\",{depth}\"symbol\":\"{symbol}\"}}"
        )))
    }

    /// Tells subscribers of an event.
    pub fn on_event(&mut self, ctx: &mut Ctx<'_>, event: &Event) {
        let inst = event.inst;
        self.count(ctx, event);
        let depths: BTreeSet<usize> =
            self.conns.values().filter_map(|c| c.books.get(&inst).copied()).collect();
        for depth in depths {
            self.tell_book(ctx, inst, depth);
        }
        let symbol = &ctx.market.instruments()[inst].spec.symbol;
        let at = ctx.hub.venue_now(VENUE);
        if !event.trades.is_empty() && self.conns.values().any(|c| c.trades.contains(&inst)) {
            let spec = &ctx.market.instruments()[inst].spec;
            let rows = trade_rows(spec, event.trades.iter().map(|t| (at, *t)));
            let body = Bytes::from(format!(
                "{{\"channel\":\"trade\",\"type\":\"update\",\"data\":[{rows}]}}"
            ));
            for (id, conn) in self.conns.iter_mut().filter(|(_, c)| c.trades.contains(&inst)) {
                conn.sent_ns = ctx.now;
                ctx.hub.send(*id, Class::Trade, symbol, body.clone());
            }
        }
        let wants = |conn: &Conn| match conn.tickers.get(&inst) {
            Some(true) => event.bbo_changed,
            Some(false) => !event.trades.is_empty(),
            None => false,
        };
        if self.conns.values().any(&wants) {
            let body = Bytes::from(self.ticker(ctx, inst, "update"));
            for (id, conn) in self.conns.iter_mut().filter(|(_, c)| wants(c)) {
                conn.sent_ns = ctx.now;
                ctx.hub.send(*id, Class::Info, symbol, body.clone());
            }
        }
    }

    fn count(&mut self, ctx: &Ctx<'_>, event: &Event) {
        let spec = &ctx.market.instruments()[event.inst].spec;
        let Some(stats) = self.stats.get_mut(&event.inst) else { return };
        let at = ctx.hub.venue_now(VENUE);
        for trade in &event.trades {
            if stats.open == 0 {
                (stats.open, stats.high, stats.low) = (trade.px, trade.px, trade.px);
            }
            stats.high = stats.high.max(trade.px);
            stats.low = stats.low.min(trade.px);
            stats.last = trade.px;
            stats.volume += i128::from(trade.qty);
            stats.worth += spec.tick.as_f64(trade.px) * spec.lot.as_f64(trade.qty);
            stats.count += 1;
            stats.trades.push_back((at, *trade));
        }
        let surplus = stats.trades.len().saturating_sub(TRADES_KEPT);
        stats.trades.drain(..surplus);
    }

    /// Brings one depth's view up to the book and tells its subscribers the difference.
    fn tell_book(&mut self, ctx: &mut Ctx<'_>, inst: usize, depth: usize) {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let Some(view) = self.views.get_mut(&(inst, depth)) else { return };
        let now = top(&it.book, depth);
        let mut changes: [Rows; 2] = [Vec::new(), Vec::new()];
        for (side, (rows, (old, new))) in [Side::Bid, Side::Ask]
            .into_iter()
            .zip(changes.iter_mut().zip(view.sides.iter().zip(now.iter())))
        {
            difference(&it.book, side, old, new, rows);
        }
        view.sides = now;
        if changes.iter().all(Vec::is_empty) {
            return;
        }
        let quirk = self.rng.random_range(0..1_000_000u32);
        let cfg = &ctx.cfg.kraken;
        if quirk < cfg.duplicate_price_ppm {
            // The same price twice, the last one right.
            if let Some(rows) = changes.iter_mut().find(|r| !r.is_empty()) {
                let (px, qty) = rows[0];
                rows.insert(0, (px, qty + 1));
            }
        } else if quirk < cfg.duplicate_price_ppm + cfg.unknown_delete_ppm
            && let Some((px, _)) = view.sides[0].last()
        {
            // A delete of a level the client does not hold.
            changes[0].push(((px - 1_000).max(1), 0));
        }
        // The message's time names it: Kraken's books have no ids.
        let at = ctx.hub.venue_now(VENUE) / 1_000 * 1_000;
        let mark = Some(Mark { venue: VENUE, inst, id: at });
        let body = book_message(spec, "update", &changes, checksum(spec, view), at);
        let body = Bytes::from(body);
        for (id, conn) in &mut self.conns {
            if conn.books.get(&inst) == Some(&depth) {
                conn.sent_ns = ctx.now;
                ctx.hub.send_marked(*id, Class::Book, &spec.symbol, body.clone(), mark);
            }
        }
    }

    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        let cfg = &ctx.cfg.kraken;
        let every = cfg.heartbeat_ms * MS;
        for (id, conn) in &mut self.conns {
            let since = if cfg.heartbeat_only_idle { conn.sent_ns } else { 0 };
            let due = ctx.now - conn.heartbeat_ns.max(since) >= every;
            if due && conn.is_subscribed() && !conn.on_tape {
                conn.heartbeat_ns = ctx.now;
                let body = Bytes::from_static(b"{\"channel\":\"heartbeat\"}");
                ctx.hub.send(*id, Class::Heartbeat, "", body);
            }
        }
    }

    /// Tells subscribers of `instrument` that a pair changed.
    pub fn on_status(&mut self, ctx: &mut Ctx<'_>, inst: usize) {
        let body = format!(
            "{{\"channel\":\"instrument\",\"type\":\"update\",\"data\":{{\"assets\":[],\"pairs\":[{}]}}}}",
            pair_row(ctx, inst)
        );
        let body = Bytes::from(body);
        let symbol = &ctx.market.instruments()[inst].spec.symbol;
        for (id, conn) in self.conns.iter_mut().filter(|(_, c)| c.instruments) {
            conn.sent_ns = ctx.now;
            ctx.hub.send(*id, Class::Info, symbol, body.clone());
        }
    }

    /// Sends a recorded message.
    pub fn relay(
        &mut self,
        ctx: &mut Ctx<'_>,
        inst: Option<usize>,
        class: Class,
        ack: bool,
        raw: &Bytes,
    ) {
        let symbol = inst.map_or("", |i| ctx.market.instruments()[i].spec.symbol.as_str());
        for (id, conn) in &mut self.conns {
            let wanted = match (class, inst) {
                // Who was there from the start gets everything, byte for byte, but for books it left.
                (Class::Book, Some(i)) if conn.on_tape => conn.books.contains_key(&i),
                _ if conn.on_tape => true,
                _ if ack => false,
                (Class::Book, Some(i)) => conn.books.contains_key(&i),
                (Class::Trade, Some(i)) => conn.trades.contains(&i),
                // Late comers have heartbeats of their own.
                _ => false,
            };
            if wanted {
                conn.sent_ns = ctx.now;
                ctx.hub.send(*id, class, symbol, raw.clone());
            }
        }
    }

    /// Brings views up to a book that recorded messages changed, without telling.
    pub fn sync_views(&mut self, market: &Market, inst: usize) {
        for ((_, depth), view) in self.views.iter_mut().filter(|((i, _), _)| *i == inst) {
            view.sides = top(&market.instruments()[inst].book, *depth);
        }
    }

    /// The tape is over: from now on connections get heartbeats of our own.
    pub fn tape_ended(&mut self) {
        for conn in self.conns.values_mut() {
            conn.on_tape = false;
        }
    }

    fn ticker(&self, ctx: &Ctx<'_>, inst: usize, kind: &str) -> String {
        let it = &ctx.market.instruments()[inst];
        let spec = &it.spec;
        let none = Stats::default();
        let stats = self.stats.get(&inst).unwrap_or(&none);
        let best = |side| it.book.best(side).map_or((0, 0), |l| (l.px, l.qty));
        let ((bid, bid_qty), (ask, ask_qty)) = (best(Side::Bid), best(Side::Ask));
        let last = if stats.last == 0 { bid } else { stats.last };
        let open = if stats.open == 0 { last } else { stats.open };
        let (px, qty) = (|p| number(spec, p, true), |q| number(spec, q, false));
        let volume = i64::try_from(stats.volume).unwrap_or(i64::MAX);
        let vwap =
            if volume > 0 { stats.worth / spec.lot.as_f64(volume) } else { spec.tick.as_f64(last) };
        let change = spec.tick.as_f64(last) - spec.tick.as_f64(open);
        let change_pct = if open > 0 { change / spec.tick.as_f64(open) * 100.0 } else { 0.0 };
        let decimals = usize::from(spec.tick.decimals);
        format!(
            "{{\"channel\":\"ticker\",\"type\":\"{kind}\",\"data\":[{{\"symbol\":\"{}\",\"bid\":{},\
             \"bid_qty\":{},\"ask\":{},\"ask_qty\":{},\"last\":{},\"volume\":{},\"vwap\":{vwap:.decimals$},\
             \"low\":{},\"high\":{},\"change\":{change:.decimals$},\"change_pct\":{change_pct:.2},\
             \"timestamp\":\"{}\"}}]}}",
            spec.symbol,
            px(bid),
            qty(bid_qty),
            px(ask),
            qty(ask_qty),
            px(last),
            qty(volume),
            px(if stats.low == 0 { last } else { stats.low }),
            px(if stats.high == 0 { last } else { stats.high }),
            rfc3339_us(ctx.hub.venue_now(VENUE))
        )
    }

    /// A body for an injected HTTP status. Kraken's own errors come with 200.
    pub fn error_page(&self, status: u16) -> Response {
        match status {
            429 => envelope_error("EGeneral:Too many requests").with("retry-after", 1),
            other => Response::html(
                other,
                "<html><head><title>error</title></head><body>cloudflare</body></html>",
            ),
        }
    }

    /// Answers a REST request.
    pub fn rest(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Response {
        if let Some(method) = request.path.strip_prefix("/0/private/") {
            return self.private_rest(ctx, request, method);
        }
        let Some(method) = request.path.strip_prefix("/0/public/") else {
            return envelope_error("EGeneral:Unknown method");
        };
        if self.public.take(request.peer, ctx.now).is_none() {
            return envelope_error("EGeneral:Too many requests");
        }
        let mut params = request.params();
        if request.method == "POST" {
            params.extend(form_or_json(&request.body));
        }
        let result = match method {
            "Time" => {
                let at = ctx.hub.venue_now(VENUE);
                Ok(format!(
                    "{{\"unixtime\":{},\"rfc1123\":\"{}\"}}",
                    at / 1_000_000_000,
                    rfc1123_short(at)
                ))
            }
            "SystemStatus" => Ok(format!(
                "{{\"status\":\"{}\",\"timestamp\":\"{}\"}}",
                self.system,
                rfc3339_s(ctx.hub.venue_now(VENUE))
            )),
            "Assets" => assets(ctx, &params),
            "AssetPairs" => asset_pairs(ctx, &params),
            "Depth" => rest_depth(ctx, &params),
            "Ticker" => self.rest_ticker(ctx, &params),
            "OHLC" => rest_candles(ctx, &params),
            "Trades" => self.rest_trades(ctx, &params),
            _ => Err("EGeneral:Unknown method".to_owned()),
        };
        match result {
            Ok(result) => Response::json(200, format!("{{\"error\":[],\"result\":{result}}}")),
            Err(error) => envelope_error(&error),
        }
    }

    fn rest_ticker(&self, ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
        let list = pairs_of(ctx, params, true)?;
        let rows: Vec<String> = list
            .into_iter()
            .map(|(key, inst)| {
                let it = &ctx.market.instruments()[inst];
                let spec = &it.spec;
                let none = Stats::default();
                let stats = self.stats.get(&inst).unwrap_or(&none);
                let px = |p: i64| spec.tick.fixed(p, 5);
                let lot = |q: i64| spec.lot.fixed(q, 8);
                let best = |side| it.book.best(side).map_or((0, 0), |l| (l.px, l.qty));
                let ((bid, bid_qty), (ask, ask_qty)) = (best(Side::Bid), best(Side::Ask));
                let last = if stats.last == 0 { bid } else { stats.last };
                let volume = i64::try_from(stats.volume).unwrap_or(i64::MAX);
                let last_qty = stats.trades.back().map_or(0, |(_, t)| t.qty);
                let whole = |q: i64| format!("{:.0}", spec.lot.as_f64(q).floor());
                let vwap = if volume > 0 { stats.worth / spec.lot.as_f64(volume) } else { 0.0 };
                let low = if stats.low == 0 { last } else { stats.low };
                let high = if stats.high == 0 { last } else { stats.high };
                let open = if stats.open == 0 { last } else { stats.open };
                format!(
                    "\"{key}\":{{\"a\":[\"{}\",\"{}\",\"{}\"],\"b\":[\"{}\",\"{}\",\"{}\"],\
                     \"c\":[\"{}\",\"{}\"],\"v\":[\"{v}\",\"{v}\"],\"p\":[\"{vwap:.5}\",\"{vwap:.5}\"],\
                     \"t\":[{t},{t}],\"l\":[\"{l}\",\"{l}\"],\"h\":[\"{h}\",\"{h}\"],\"o\":\"{}\"}}",
                    px(ask),
                    whole(ask_qty),
                    lot(ask_qty),
                    px(bid),
                    whole(bid_qty),
                    lot(bid_qty),
                    px(last),
                    lot(last_qty),
                    px(open),
                    v = lot(volume),
                    t = stats.count,
                    l = px(low),
                    h = px(high),
                )
            })
            .collect();
        Ok(format!("{{{}}}", rows.join(",")))
    }

    fn rest_trades(&self, ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
        let (key, inst) = one_pair(ctx, params)?;
        let spec = &ctx.market.instruments()[inst].spec;
        let get = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let since: u64 = get("since").and_then(|s| s.parse().ok()).unwrap_or(0);
        let count: usize =
            get("count").and_then(|c| c.parse().ok()).unwrap_or(1_000).clamp(1, 1_000);
        let all: Vec<&(u64, Trade)> = self
            .stats
            .get(&inst)
            .into_iter()
            .flat_map(|s| s.trades.iter())
            .filter(|(at, _)| *at > since)
            .collect();
        let skip = if since == 0 { all.len().saturating_sub(count) } else { 0 };
        let chosen: Vec<&(u64, Trade)> = all.into_iter().skip(skip).take(count).collect();
        let rows: Vec<String> = chosen
            .iter()
            .map(|(at, t)| {
                let taker = if t.maker == Side::Bid { "s" } else { "b" };
                format!(
                    "[\"{}\",\"{}\",{}.{:07},\"{taker}\",\"m\",\"\",{}]",
                    spec.tick.fixed(t.px, 5),
                    spec.lot.fixed(t.qty, 8),
                    at / 1_000_000_000,
                    at % 1_000_000_000 / 100,
                    t.id
                )
            })
            .collect();
        let last = chosen.last().map_or(since, |(at, _)| *at);
        Ok(format!("{{\"{key}\":[{}],\"last\":\"{last}\"}}", rows.join(",")))
    }
}

/// One subscribe or unsubscribe request.
struct Call<'a> {
    method: &'a str,
    req_id: &'a str,
    times: &'a str,
    params: &'a Value,
}

impl Call<'_> {
    fn flag(&self, name: &str) -> Option<bool> {
        self.params.get(name).and_then(Value::as_bool)
    }

    fn accept(&self, result: &str) -> String {
        format!(
            "{{\"method\":\"{}\",{}{result},\"success\":true,{}}}",
            self.method, self.req_id, self.times
        )
    }

    fn refuse(&self, symbol: Option<&str>, why: &str) -> String {
        let mut named = String::new();
        if let Some(symbol) = symbol {
            named.push_str("\"symbol\":");
            write_json_string(symbol, &mut named);
            named.push(',');
        }
        let mut text = String::new();
        write_json_string(why, &mut text);
        format!(
            "{{\"error\":{text},\"method\":\"{}\",{}\"success\":false,{named}{}}}",
            self.method, self.req_id, self.times
        )
    }
}

/// The best `depth` levels of both sides.
fn top(book: &Book, depth: usize) -> [Rows; 2] {
    [Side::Bid, Side::Ask]
        .map(|side| book.levels(side).take(depth).map(|l| (l.px, l.qty)).collect())
}

/// What a client that holds `old` must be told so that it holds `new` after cutting to the depth.
fn difference(book: &Book, side: Side, old: &Rows, new: &Rows, out: &mut Rows) {
    let (mut i, mut j) = (0, 0);
    let mut fresh = Vec::new();
    while i < old.len() || j < new.len() {
        let (a, b) = (old.get(i), new.get(j));
        let order = match (a, b) {
            (Some(a), Some(b)) => side.key(b.0).cmp(&side.key(a.0)),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match (order, a, b) {
            (std::cmp::Ordering::Equal, Some(a), Some(b)) => {
                if a.1 != b.1 {
                    fresh.push(*b);
                }
                i += 1;
                j += 1;
            }
            (std::cmp::Ordering::Less, Some(a), _) => {
                // Gone from the view: deleted, or pushed beyond the depth and then not told.
                if book.get(side, a.0) == 0 {
                    out.push((a.0, 0));
                }
                i += 1;
            }
            (_, _, Some(b)) => {
                fresh.push(*b);
                j += 1;
            }
            _ => break,
        }
    }
    // Deletes come first, as recorded.
    out.extend(fresh);
}

/// CRC-32 over the best ten asks, then the best ten bids (sheet 4.2).
fn checksum(spec: &Spec, view: &View) -> u32 {
    let mut digits = Vec::with_capacity(512);
    for rows in [&view.sides[1], &view.sides[0]] {
        for (px, qty) in rows.iter().take(10) {
            spec.tick.write_checksum_digits(*px, spec.tick.decimals, &mut digits);
            spec.lot.write_checksum_digits(*qty, spec.lot.decimals, &mut digits);
        }
    }
    crc32fast::hash(&digits)
}

fn number(spec: &Spec, steps: i64, is_px: bool) -> String {
    let grid = if is_px { spec.tick } else { spec.lot };
    grid.fixed(steps, grid.decimals)
}

fn write_rows(spec: &Spec, rows: &Rows, out: &mut String) {
    for (i, (px, qty)) in rows.iter().enumerate() {
        out.push_str(if i == 0 { "{\"price\":" } else { ",{\"price\":" });
        spec.tick.write_fixed(*px, spec.tick.decimals, out);
        out.push_str(",\"qty\":");
        spec.lot.write_fixed(*qty, spec.lot.decimals, out);
        out.push('}');
    }
}

fn book_message(spec: &Spec, kind: &str, sides: &[Rows; 2], checksum: u32, at: u64) -> String {
    let mut out = String::with_capacity(192 + (sides[0].len() + sides[1].len()) * 40);
    let _ = write!(
        out,
        "{{\"channel\":\"book\",\"type\":\"{kind}\",\"data\":[{{\"symbol\":\"{}\",\"bids\":[",
        spec.symbol
    );
    write_rows(spec, &sides[0], &mut out);
    out.push_str("],\"asks\":[");
    write_rows(spec, &sides[1], &mut out);
    let _ = write!(out, "],\"checksum\":{checksum},\"timestamp\":\"{}\"}}]}}", rfc3339_us(at));
    out
}

fn book_snapshot(spec: &Spec, view: &View, at: u64, wrong: bool) -> String {
    let sum = checksum(spec, view);
    if !wrong {
        return book_message(spec, "snapshot", &view.sides, sum, at);
    }
    let mut sides = view.sides.clone();
    spoil_snapshot(&mut sides[0], Side::Bid);
    spoil_snapshot(&mut sides[1], Side::Ask);
    book_message(spec, "snapshot", &sides, sum, at)
}

fn trade_rows(spec: &Spec, trades: impl Iterator<Item = (u64, Trade)>) -> String {
    let mut out = String::new();
    for (i, (at, trade)) in trades.enumerate() {
        let taker = if trade.maker == Side::Bid { "sell" } else { "buy" };
        let kind = if trade.id % 3 == 0 { "market" } else { "limit" };
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            out,
            "{comma}{{\"symbol\":\"{}\",\"side\":\"{taker}\",\"price\":{},\"qty\":{},\
             \"ord_type\":\"{kind}\",\"trade_id\":{},\"timestamp\":\"{}\"}}",
            spec.symbol,
            number(spec, trade.px, true),
            number(spec, trade.qty, false),
            trade.id,
            rfc3339_us(at)
        );
    }
    out
}

fn pair_status<'a>(ctx: &'a Ctx<'_>, inst: usize) -> &'a str {
    let it = &ctx.market.instruments()[inst];
    if it.status == Status::Online {
        return ctx.desk.mode(VENUE).name();
    }
    match ctx.hub.faults.state(Kind::Halt, VENUE, Some(&it.spec.symbol)) {
        Some(f) if f.mode.as_deref() == Some("cancel_only") => "cancel_only",
        _ => "maintenance",
    }
}

fn pair_row(ctx: &Ctx<'_>, inst: usize) -> String {
    let spec = &ctx.market.instruments()[inst].spec;
    let tick = spec.tick_rule().exponent_text();
    format!(
        "{{\"symbol\":\"{}\",\"base\":\"{}\",\"quote\":\"{}\",\"status\":\"{}\",\"qty_precision\":{},\
         \"qty_increment\":{},\"price_precision\":{},\"cost_precision\":5,\"marginable\":true,\
         \"has_index\":true,\"cost_min\":{},\"qty_min\":{},\"tick_size\":{tick},\"price_increment\":{tick},\
         \"margin_initial\":0.2,\"position_limit_long\":300,\"position_limit_short\":240}}",
        spec.symbol,
        spec.base,
        spec.quote,
        pair_status(ctx, inst),
        spec.lot.decimals,
        spec.lot_rule().exponent_text(),
        spec.tick.decimals,
        exponent(&spec.min_notional),
        exponent(&spec.min_qty)
    )
}

/// A decimal text as the instrument channel prints it: below 1e-4 in exponent form.
fn exponent(text: &str) -> String {
    let Some((whole, part)) = text.split_once('.') else { return text.to_owned() };
    let part = part.trim_end_matches('0');
    let digits = part.trim_start_matches('0');
    let zeros = part.len() - digits.len();
    if whole.bytes().any(|b| b != b'0') || zeros < 4 || digits.is_empty() {
        return text.to_owned();
    }
    let (lead, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{lead}{point}{rest}e-{:02}", zeros + 1)
}

fn instrument_snapshot(ctx: &Ctx<'_>) -> String {
    let pairs: Vec<String> = mine(ctx).map(|i| pair_row(ctx, i)).collect();
    let assets: Vec<String> = all_assets(ctx)
        .into_iter()
        .map(|asset| {
            let (precision, display) = decimals_of(&asset);
            format!(
                "{{\"id\":\"{asset}\",\"status\":\"enabled\",\"precision\":{precision},\
                 \"precision_display\":{display},\"borrowable\":true,\"collateral_value\":1.0,\"margin_rate\":0.01}}"
            )
        })
        .collect();
    format!(
        "{{\"channel\":\"instrument\",\"type\":\"snapshot\",\"data\":{{\"assets\":[{}],\"pairs\":[{}]}}}}",
        assets.join(","),
        pairs.join(",")
    )
}

fn mine<'a>(ctx: &'a Ctx<'_>) -> impl Iterator<Item = usize> + 'a {
    let all = ctx.market.instruments().iter().enumerate();
    all.filter(|(_, i)| i.spec.venue == VENUE).map(|(i, _)| i)
}

fn all_assets(ctx: &Ctx<'_>) -> BTreeSet<String> {
    mine(ctx)
        .flat_map(|i| {
            let spec = &ctx.market.instruments()[i].spec;
            [spec.base.clone(), spec.quote.clone()]
        })
        .collect()
}

fn decimals_of(asset: &str) -> (u8, u8) {
    match asset {
        "USD" | "EUR" => (4, 2),
        "USDT" | "USDC" => (8, 4),
        _ => (10, 5),
    }
}

/// Kraken's old name of an asset, as in `altname` and `wsname`.
fn alt(asset: &str) -> &str {
    match asset {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        other => other,
    }
}

/// Kraken's internal name of an asset.
fn internal(asset: &str) -> String {
    match asset {
        "BTC" => "XXBT".to_owned(),
        "ETH" => "XETH".to_owned(),
        "DOGE" => "XXDG".to_owned(),
        "LTC" => "XLTC".to_owned(),
        "XRP" => "XXRP".to_owned(),
        "USD" => "ZUSD".to_owned(),
        "EUR" => "ZEUR".to_owned(),
        other => other.to_owned(),
    }
}

/// A pair's names: internal key, `altname`, `wsname`.
fn names(spec: &Spec) -> (String, String, String) {
    let altname = format!("{}{}", alt(&spec.base), alt(&spec.quote));
    let wsname = format!("{}/{}", alt(&spec.base), alt(&spec.quote));
    let (base, quote) = (internal(&spec.base), internal(&spec.quote));
    let old = |asset: &str| asset.len() == 4 && (asset.starts_with('X') || asset.starts_with('Z'));
    let key = match (spec.base.as_str(), old(&base) && old(&quote)) {
        // The one stablecoin pair with a half-old key.
        ("USDT", _) if spec.quote == "USD" => "USDTZUSD".to_owned(),
        ("DOGE", _) => altname.clone(),
        (_, true) => format!("{base}{quote}"),
        _ => altname.clone(),
    };
    (key, altname, wsname)
}

/// Finds a pair by any of its names; the result key echoes slash forms and is internal otherwise.
fn find_pair(ctx: &Ctx<'_>, text: &str) -> Option<(String, usize)> {
    mine(ctx).find_map(|inst| {
        let spec = &ctx.market.instruments()[inst].spec;
        let (key, altname, wsname) = names(spec);
        if text == spec.symbol || text == wsname {
            return Some((text.to_owned(), inst));
        }
        (text == key || text == altname).then_some((key, inst))
    })
}

/// Pairs of the `pair` parameter (a comma list); all of them if it is absent and may be.
fn pairs_of(
    ctx: &Ctx<'_>,
    params: &[(String, String)],
    optional: bool,
) -> Result<Vec<(String, usize)>, String> {
    let given = params.iter().find(|(n, _)| n == "pair").map(|(_, v)| v.as_str());
    match given.filter(|p| !p.is_empty()) {
        Some(list) => list
            .split(',')
            .map(|text| {
                find_pair(ctx, text.trim()).ok_or_else(|| "EQuery:Unknown asset pair".to_owned())
            })
            .collect(),
        None if optional => {
            Ok(mine(ctx).map(|i| (names(&ctx.market.instruments()[i].spec).0, i)).collect())
        }
        None => Err("EGeneral:Invalid arguments".to_owned()),
    }
}

/// The last 720 candles of so many minutes.
fn rest_candles(ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
    let (key, inst) = one_pair(ctx, params)?;
    let get = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let minutes: u64 = get("interval").unwrap_or("1").parse().unwrap_or(0);
    if ![1, 5, 15, 30, 60, 240, 1_440, 10_080, 21_600].contains(&minutes) {
        return Err("EGeneral:Invalid arguments:interval".to_owned());
    }
    let since: u64 = get("since").and_then(|text| text.parse().ok()).unwrap_or(0);
    let it = &ctx.market.instruments()[inst];
    let spec = &it.spec;
    let now_s = ctx.hub.venue_now(VENUE) / 1_000_000_000;
    let all = candles(&ctx.cfg.market, it, minutes * 60, now_s, 720);
    let rows: Vec<String> = all
        .iter()
        .filter(|candle| since < candle.start_s)
        .map(|candle| {
            let (px, volume) = (spec.tick.fixed(candle.px, 5), spec.lot.fixed(candle.lots, 8));
            let (at, count) = (candle.start_s, candle.count);
            format!("[{at},\"{px}\",\"{px}\",\"{px}\",\"{px}\",\"{px}\",\"{volume}\",{count}]")
        })
        .collect();
    // The last one that has ended.
    let last = all.iter().rev().nth(1).map_or(0, |candle| candle.start_s);
    Ok(format!("{{\"{key}\":[{}],\"last\":{last}}}", rows.join(",")))
}

fn one_pair(ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<(String, usize), String> {
    let list = pairs_of(ctx, params, false)?;
    let [one] = <[(String, usize); 1]>::try_from(list)
        .map_err(|_| "EGeneral:Invalid arguments".to_owned())?;
    Ok(one)
}

fn assets(ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
    let wanted = params.iter().find(|(n, _)| n == "asset").map(|(_, v)| v.as_str());
    let all = all_assets(ctx);
    let chosen: Vec<String> = match wanted.filter(|w| !w.is_empty()) {
        None => all.into_iter().collect(),
        Some(list) => {
            let find = |text: &str| {
                all.iter().find(|a| *a == text || alt(a) == text || internal(a) == text).cloned()
            };
            let found: Option<Vec<String>> = list.split(',').map(|t| find(t.trim())).collect();
            found.ok_or("EQuery:Unknown asset")?
        }
    };
    let rows: Vec<String> = chosen
        .into_iter()
        .map(|asset| {
            let (decimals, display) = decimals_of(&asset);
            format!(
                "\"{}\":{{\"aclass\":\"currency\",\"altname\":\"{}\",\"decimals\":{decimals},\
                 \"display_decimals\":{display},\"collateral_value\":1,\"status\":\"enabled\"}}",
                internal(&asset),
                alt(&asset)
            )
        })
        .collect();
    Ok(format!("{{{}}}", rows.join(",")))
}

fn asset_pairs(ctx: &Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
    let class = params.iter().find(|(n, _)| n == "aclass_base").map(|(_, v)| v.as_str());
    if class.is_some_and(|c| c != "currency") {
        return Ok("{}".to_owned());
    }
    // The first tier is what new accounts pay.
    let percent = |ppm: i64| crate::amount::Amount(i128::from(ppm) * 10_i128.pow(12));
    let taker = percent(ctx.cfg.kraken.taker_fee_ppm);
    let maker = percent(ctx.cfg.kraken.maker_fee_ppm);
    let rows: Vec<String> = pairs_of(ctx, params, true)?
        .into_iter()
        .map(|(key, inst)| {
            let spec = &ctx.market.instruments()[inst].spec;
            let (_, altname, wsname) = names(spec);
            format!(
                "\"{key}\":{{\"altname\":\"{altname}\",\"wsname\":\"{wsname}\",\"aclass_base\":\"currency\",\
                 \"base\":\"{}\",\"aclass_quote\":\"currency\",\"quote\":\"{}\",\"lot\":\"unit\",\
                 \"cost_decimals\":5,\"pair_decimals\":{},\"lot_decimals\":{},\"lot_multiplier\":1,\
                 \"leverage_buy\":[2,3],\"leverage_sell\":[2,3],\
                 \"fees\":[[0,{taker}],[10000,0.35],[50000,0.24],[100000,0.22],[250000,0.2],[500000,0.18],[1000000,0.16],[2500000,0.14],[5000000,0.12],[10000000,0.1]],\
                 \"fees_maker\":[[0,{maker}],[10000,0.2],[50000,0.14],[100000,0.12],[250000,0.1],[500000,0.08],[1000000,0.06],[2500000,0.04],[5000000,0.02],[10000000,0.0]],\
                 \"fee_volume_currency\":\"ZUSD\",\"margin_call\":80,\"margin_stop\":40,\"ordermin\":\"{}\",\
                 \"costmin\":\"{}\",\"tick_size\":\"{}\",\"status\":\"{}\",\"long_position_limit\":80,\
                 \"short_position_limit\":80}}",
                internal(&spec.base),
                internal(&spec.quote),
                spec.tick.decimals,
                spec.lot.decimals,
                spec.min_qty,
                spec.min_notional,
                spec.tick_rule().trimmed(1),
                pair_status(ctx, inst)
            )
        })
        .collect();
    Ok(format!("{{{}}}", rows.join(",")))
}

fn rest_depth(ctx: &mut Ctx<'_>, params: &[(String, String)]) -> Result<String, String> {
    let (key, inst) = one_pair(ctx, params)?;
    let count = params.iter().find(|(n, _)| n == "count").map(|(_, v)| v.parse::<usize>());
    let count = match count {
        None => 100,
        Some(Ok(count)) if (1..=500).contains(&count) => count,
        Some(_) => return Err("EGeneral:Invalid arguments:count".to_owned()),
    };
    let it = &ctx.market.instruments()[inst];
    let spec = &it.spec;
    let wrong = ctx.hub.faults.take(Kind::WrongSnapshot, VENUE, &spec.symbol, 0).is_some();
    let seconds = ctx.hub.venue_now(VENUE) / 1_000_000_000;
    let side = |side: Side| {
        let mut rows: Rows = it.book.levels(side).take(count).map(|l| (l.px, l.qty)).collect();
        if wrong {
            spoil_snapshot(&mut rows, side);
        }
        let text: Vec<String> = rows
            .into_iter()
            .map(|(px, qty)| {
                // Prices are padded to five decimals whatever the pair's own; quantities are short.
                let (px, qty) =
                    (spec.tick.fixed(px, 5), spec.lot.fixed(qty, 3.max(spec.lot.decimals)));
                format!("[\"{px}\",\"{qty}\",{seconds}]")
            })
            .collect();
        text.join(",")
    };
    Ok(format!("{{\"{key}\":{{\"asks\":[{}],\"bids\":[{}]}}}}", side(Side::Ask), side(Side::Bid)))
}

fn envelope_error(error: &str) -> Response {
    Response::json(200, format!("{{\"error\":[\"{error}\"]}}"))
}

/// Parameters of a POST body, form or JSON.
fn form_or_json(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(map)) => map
            .into_iter()
            .map(|(name, value)| {
                let value = private::text_of(&value);
                (name, value)
            })
            .collect(),
        _ => parse_query(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Grid;

    fn spec(tick: &str) -> Spec {
        Spec {
            venue: VENUE,
            symbol: "BTC/USD".to_owned(),
            base: "BTC".to_owned(),
            quote: "USD".to_owned(),
            tick: Grid::parse_step(tick).unwrap(),
            lot: Grid::parse_step("0.00000001").unwrap(),
            min_qty: "0.00005".to_owned(),
            min_notional: "0.5".to_owned(),
            step_ticks: 1,
            step_lots: 1,
        }
    }

    /// Vectors of `protocols/kraken.md` 4.2, both of them, before and after their update.
    #[test]
    fn checksum_vectors() {
        let check = |tick: &str, asks: &[(&str, &str)], bids: &[(&str, &str)], expected: u32| {
            let spec = spec(tick);
            let rows = |side: &[(&str, &str)]| -> Rows {
                side.iter()
                    .map(|(p, q)| (spec.tick.parse(p).unwrap(), spec.lot.parse(q).unwrap()))
                    .collect()
            };
            assert_eq!(checksum(&spec, &View { sides: [rows(bids), rows(asks)] }), expected);
        };
        let a = [("65000.1", "0.5"), ("65000.2", "1.25"), ("65001.0", "0.0001")];
        let b = [("65000.0", "2"), ("64999.9", "0.03125"), ("64998.7", "10")];
        check("0.1", &a, &b, 364_537_153);
        let b2 = [b[0], b[1], ("64999.5", "0.7"), b[2]];
        check("0.1", &a[1..], &b2, 3_997_527_697);
        let asks = [
            ("0.5668", "4410.79769741"),
            ("0.5669", "4655.40412487"),
            ("0.5670", "49844.89424998"),
            ("0.5671", "24306.41678"),
            ("0.5672", "29783.25223475"),
            ("0.5673", "57234.71239278"),
            ("0.5674", "45065.04744"),
            ("0.5675", "5912.76380354"),
            ("0.5676", "42514.92434778"),
            ("0.5677", "36304.0847022"),
        ];
        let mut bids = [
            ("0.5666", "4831.75496356"),
            ("0.5665", "6658.22734739"),
            ("0.5664", "18724.91513344"),
            ("0.5663", "11563.92544914"),
            ("0.5662", "14006.65365711"),
            ("0.5661", "17454.85679807"),
            ("0.5660", "18097.1547"),
            ("0.5659", "33644.89175666"),
            ("0.5658", "148.3464"),
            ("0.5657", "606.70854372"),
        ];
        check("0.0001", &asks, &bids, 2_439_117_997);
        bids[9] = ("0.5657", "1098.3947558");
        check("0.0001", &asks, &bids, 2_114_181_697);
    }

    #[test]
    fn a_level_pushed_out_is_not_deleted_and_comes_back() {
        let mut book = Book::default();
        for px in [100, 99, 98] {
            book.set(Side::Bid, px, 5);
        }
        let diff = |book: &Book, old: &Rows| {
            let new = top(book, 3)[0].clone();
            let mut out = Vec::new();
            difference(book, Side::Bid, old, &new, &mut out);
            (new, out)
        };
        let (view, out) = diff(&book, &Vec::new());
        assert_eq!(out.len(), 3);
        book.set(Side::Bid, 101, 1);
        let (view, out) = diff(&book, &view);
        assert_eq!(out, vec![(101, 1)], "98 leaves silently");
        book.set(Side::Bid, 101, 0);
        let (view, out) = diff(&book, &view);
        assert_eq!(out, vec![(101, 0), (98, 5)], "98 is published again");
        book.set(Side::Bid, 97, 1);
        assert_eq!(diff(&book, &view).1, vec![], "beyond the depth");
    }

    #[test]
    fn small_numbers_have_exponents() {
        assert_eq!(exponent("0.00005"), "5e-05");
        assert_eq!(exponent("0.000016"), "1.6e-05");
        assert_eq!(exponent("0.0001"), "0.0001");
        assert_eq!(exponent("0.5"), "0.5");
        assert_eq!(exponent("5"), "5");
    }
}
