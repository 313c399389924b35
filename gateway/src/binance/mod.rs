//! Binance's order entry over the WebSocket API.
//!
//! Two sessions, logged on ahead with an Ed25519 key: one for new orders and the user stream, a spare one
//! for cancels and queries, so that neither waits behind a stuck socket. REST takes over cancels and
//! queries where both are down. Nothing is signed for an order (`protocols/binance.md` sections 5 to 9).
//!
//! Invariants: a reply is matched by its id and no other way; an error of id null that refuses the key
//! refuses the session (trap 35). The client id of a cancelled order is in `C`, not in `c` (trap 19). A
//! status alone says nothing of quantities (trap 18). Letters' case matters.
//!
//! Not here: what errors mean (`codes`), texts (`wire`), what all venues share (`desk`).

pub mod codes;
pub mod sign;
pub mod wire;

use tandem_core::order::{DoneStatus, NewOrder, RejectClass, UnknownCause};
use tandem_core::record::Venue;
use tandem_core::units::{Amount, Px, Qty};
use tandem_feeds::machine::{CloseCause, Reply, Stamps};
use tandem_feeds::net::backoff::Backoff;

use crate::busts::Word;
use crate::codes::{Effect, Verdict};
use crate::desk::{Ask, Asked, Desk, Fill, OpenOrder};
use crate::guard::{GuardReason, Route};
use crate::json::Value;
use crate::keys::{Credentials, KeyError};
use crate::machine::{Action, Audit, CANCEL_LANE, Dialect, QUERY_LANE, Spelled};
use crate::text::Text;
use sign::Signer;
use wire::{Template, weight};

const SECOND: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;

/// Between two WebSocket pings of the order session: what proves the user stream's connection.
const PING_NS: i64 = SECOND;
/// Between two of the spare one.
const SPARE_PING_NS: i64 = 5 * SECOND;
/// The spare session is dead when nothing came for this long.
const SPARE_SILENCE_NS: i64 = 20 * SECOND;

/// Which session.
const ORDERS: usize = 0;
const SPARE: usize = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialing,
    LoggingOn,
    Subscribing,
    Ready,
}

#[derive(Debug)]
struct SessionLine {
    conn: u32,
    stage: Stage,
    opened_ns: i64,
    pinged_ns: i64,
    heard_ns: i64,
    backoff: Backoff,
}

/// Binance.
#[derive(Debug)]
pub struct Binance {
    signer: Signer,
    templates: Vec<Template>,
    text: Text,
    lines: [SessionLine; 2],
}

impl Binance {
    /// Returns the venue with its key. Orders need a key that can open a session.
    pub fn new(credentials: &Credentials, desk: &Desk) -> Result<Binance, KeyError> {
        let signer = Signer::new(credentials)?;
        if !signer.opens_sessions() {
            return Err(KeyError::NoSession);
        }
        let line = |seed: u64| SessionLine {
            conn: 0,
            stage: Stage::Dialing,
            opened_ns: 0,
            pinged_ns: 0,
            heard_ns: 0,
            // 300 connections in 5 minutes are allowed to the address; these two stay far below.
            backoff: Backoff::new(SECOND / 4, 30 * SECOND, 60 * SECOND, desk.config.seed ^ seed),
        };
        Ok(Binance {
            signer,
            templates: desk.listings.iter().map(Template::new).collect(),
            text: Text::default(),
            lines: [line(1), line(2)],
        })
    }

    fn line_of(&self, conn: u32) -> Option<usize> {
        self.lines.iter().position(|line| line.conn == conn)
    }

    fn dial(&mut self, desk: &mut Desk, which: usize, not_before_ns: i64) {
        let at_ns = not_before_ns.max(desk.suspended_until());
        let line = &mut self.lines[which];
        line.conn = desk.connect(wire::WS_PATH, at_ns);
        (line.stage, line.heard_ns, line.opened_ns) = (Stage::Dialing, at_ns, 0);
    }

    /// Sends a request by the spare session, else by the order session, else by REST.
    fn ask(
        &mut self,
        desk: &mut Desk,
        ask: Ask,
        (method, rest): (&str, (&str, &str)),
        params: &[(&str, String)],
        now_ns: i64,
    ) {
        let now_ms = now_ns / MS;
        let ready =
            [SPARE, ORDERS].into_iter().find(|which| self.lines[*which].stage == Stage::Ready);
        if let Some(which) = ready {
            let mut members = String::new();
            for (name, value) in params {
                let quote = if value.bytes().all(|b| b.is_ascii_digit()) { "" } else { "\"" };
                members.push_str(&format!("\"{name}\":{quote}{value}{quote},"));
            }
            let id = desk.number();
            let text = wire::request(id, method, &members, now_ms);
            desk.send(self.lines[which].conn, id, ask, text, now_ns);
            return;
        }
        let (verb, path) = rest;
        let mut query = String::new();
        for (name, value) in params {
            query.push_str(&format!("{name}={value}&"));
        }
        let query = self.signer.query(&format!("{query}timestamp={now_ms}"));
        let bytes = wire::http(
            verb,
            &desk.config.rest_host,
            &format!("{path}?{query}"),
            self.signer.api_key(),
        );
        let lane = if matches!(ask, Ask::Cancel(_)) { CANCEL_LANE } else { QUERY_LANE };
        desk.http(lane, ask, bytes, now_ns);
    }

    fn reply(&mut self, desk: &mut Desk, message: Value<'_>, conn: u32, now_ns: i64) {
        let [id, status, result, error] = message.pick(["id", "status", "result", "error"]);
        let status = status.and_then(Value::u64).and_then(|s| u16::try_from(s).ok()).unwrap_or(0);
        let asked = id.and_then(Value::u64).and_then(|id| desk.answered(id, now_ns));
        match asked {
            Some(asked) => self.conclude(desk, asked, status, result, error, now_ns),
            None => {
                // Of no request of ours: an error of the whole session (trap 35), or an old reply.
                if id.is_none()
                    && let Some(error) = error
                {
                    desk.stats.malformed += 1;
                    self.consequences(desk, status, error, now_ns);
                }
                let _ = conn;
            }
        }
    }

    /// What an error means beyond its request.
    fn consequences(
        &mut self,
        desk: &mut Desk,
        status: u16,
        error: Value<'_>,
        now_ns: i64,
    ) -> Verdict {
        let [code, message, data] = error.pick(["code", "msg", "data"]);
        let code = code.and_then(Value::i64).unwrap_or(0);
        let text = message.and_then(Value::text).unwrap_or_default();
        let (verdict, effect) = codes::judge(status, code, &String::from_utf8_lossy(&text));
        // Milliseconds of UNIX time in the WebSocket API (trap 36).
        let until = data.and_then(|data| data.get("retryAfter")).and_then(Value::i64);
        let until_ns = until.map_or(now_ns + desk.config.suspend_ns, |ms| ms.saturating_mul(MS));
        self.consequence(desk, effect, until_ns, code);
        verdict
    }

    fn consequence(&mut self, desk: &mut Desk, effect: Effect, until_ns: i64, code: i64) {
        match effect {
            Effect::None => {}
            Effect::Wait => desk.suspend(until_ns, code),
            Effect::Ban => desk.banned(until_ns, code),
            Effect::Key => desk.refuse(code),
        }
    }

    /// A request has its reply.
    fn conclude(
        &mut self,
        desk: &mut Desk,
        asked: Asked,
        status: u16,
        result: Option<Value<'_>>,
        error: Option<Value<'_>>,
        now_ns: i64,
    ) {
        let Some(result) = result.filter(|_| status == 200) else {
            self.failed(desk, asked, status, error, now_ns);
            return;
        };
        match asked.ask {
            Ask::New(name) | Ask::Cancel(name) | Ask::Query(name) | Ask::QueryEnded(name) => {
                let Some(slot) = desk.orders.find(name) else { return };
                if !order_object(desk, slot, result) {
                    desk.stats.malformed += 1;
                    desk.unanswered(asked, UnknownCause::Unreadable);
                } else if matches!(asked.ask, Ask::Query(_)) {
                    desk.settled(slot);
                }
            }
            Ask::OrderTrades(name) => {
                let clean = trades(desk, result);
                if let (true, Some(slot)) = (clean, desk.orders.find(name)) {
                    desk.no_trades(slot, asked.sent_ns);
                }
            }
            Ask::Identify(venue_id) => {
                let [client, symbol] = result.pick(["clientOrderId", "symbol"]);
                let position = symbol.and_then(Value::word).and_then(|s| desk.position(s));
                let slot = client
                    .and_then(Value::text)
                    .zip(position)
                    .and_then(|(client, position)| desk.ours(&client, position));
                if let Some(slot) = slot {
                    order_object(desk, slot, result);
                }
                desk.identified(venue_id, slot);
            }
            Ask::Audit(audit, part) => self.audit_reply(desk, (audit, part), result, now_ns),
            Ask::Logon => self.logged_on(desk, asked.conn, now_ns),
            Ask::Subscribe => {
                if let Some(which) = self.line_of(asked.conn) {
                    self.lines[which].stage = Stage::Ready;
                    desk.streams_open(now_ns);
                }
            }
            Ask::Alive | Ask::DeadMan => {}
        }
    }

    fn failed(
        &mut self,
        desk: &mut Desk,
        asked: Asked,
        status: u16,
        error: Option<Value<'_>>,
        now_ns: i64,
    ) {
        let code = error.and_then(|e| e.get("code")).and_then(Value::i64).unwrap_or(0);
        let verdict = match error {
            Some(error) => self.consequences(desk, status, error, now_ns),
            None => Verdict::Unknown,
        };
        match (asked.ask, verdict) {
            (Ask::New(name), Verdict::Refused(class)) => {
                if let Some(slot) = desk.orders.find(name) {
                    desk.rejected(slot, class, code);
                }
            }
            (Ask::New(_), Verdict::Unknown) => {
                desk.stats.unknown_codes += 1;
                desk.unanswered(asked, UnknownCause::Venue);
            }
            (Ask::Cancel(name), Verdict::Refused(class)) => {
                if let Some(slot) = desk.orders.find(name) {
                    desk.cancel_rejected(slot, class, code);
                }
            }
            (Ask::Query(name), Verdict::Refused(RejectClass::NoOrder)) => {
                if let Some(slot) = desk.orders.find(name) {
                    desk.not_found(slot, asked.sent_ns);
                }
            }
            (Ask::Identify(id), Verdict::Refused(RejectClass::NoOrder)) => {
                desk.identified(id, None)
            }
            (Ask::Logon | Ask::Subscribe, _) => {
                desk.act(Action::Close { conn: asked.conn, reset: false });
            }
            _ => desk.unanswered(asked, UnknownCause::Venue),
        }
    }

    fn logged_on(&mut self, desk: &mut Desk, conn: u32, now_ns: i64) {
        let Some(which) = self.line_of(conn) else { return };
        if which == SPARE {
            self.lines[SPARE].stage = Stage::Ready;
            return;
        }
        self.lines[ORDERS].stage = Stage::Subscribing;
        let id = desk.number();
        let text = format!("{{\"id\":{id},\"method\":\"userDataStream.subscribe\"}}");
        desk.send(conn, id, Ask::Subscribe, text, now_ns);
    }

    fn audit_reply(
        &mut self,
        desk: &mut Desk,
        (audit, part): (Audit, usize),
        result: Value<'_>,
        now_ns: i64,
    ) {
        match audit {
            Audit::OpenOrders => {
                if result.count().is_none() {
                    return desk.audited(audit, false);
                }
                result.each(|order| open_order(desk, order));
            }
            Audit::Balances => {
                let Some(balances) = result.get("balances") else {
                    return desk.audited(audit, false);
                };
                desk.balances_begin();
                let mut whole = balances.count().is_some();
                balances.each(|balance| {
                    match balance_of(desk, balance, ["asset", "free", "locked"]) {
                        Some((asset, Some((total, held)))) => desk.balance_read(asset, total, held),
                        Some((asset, None)) => whole = desk.balance_unreadable(asset),
                        None => {}
                    }
                });
                // What cannot be read is not zero: nothing is told, and it is asked again.
                if !whole {
                    return desk.audited(audit, false);
                }
                desk.balances_end();
            }
            Audit::Trades => {
                let Some(count) = result.count() else {
                    return desk.audited(audit, false);
                };
                trades(desk, result);
                if count == wire::TRADES_MAX {
                    let mut last = 0;
                    result.each(|t| last = t.get("id").and_then(Value::u64).unwrap_or(0).max(last));
                    desk.audit_goes_on(audit);
                    let symbol = desk.listings[part].symbol.clone();
                    let params = [
                        ("symbol", symbol),
                        ("fromId", (last + 1).to_string()),
                        ("limit", wire::TRADES_MAX.to_string()),
                    ];
                    let method = ("myTrades", ("GET", "/api/v3/myTrades"));
                    self.ask(desk, Ask::Audit(audit, part), method, &params, now_ns);
                }
            }
            Audit::Fees => match commission(result) {
                Some((taker, maker)) => desk.fee(part, taker, maker),
                None => return desk.audited(audit, false),
            },
        }
        desk.audited(audit, true);
    }

    fn event(&mut self, desk: &mut Desk, event: Value<'_>, now_ns: i64) {
        let kind = event.get("e").and_then(Value::text).unwrap_or_default();
        match &*kind {
            b"executionReport" => execution(desk, event),
            b"outboundAccountPosition" => {
                if let Some(balances) = event.get("B") {
                    balances.each(|balance| match balance_of(desk, balance, ["a", "f", "l"]) {
                        Some((asset, Some((total, held)))) => {
                            desk.balance_streamed(asset, total, held);
                        }
                        Some((asset, None)) => {
                            desk.balance_unreadable(asset);
                        }
                        None => {}
                    });
                }
            }
            // Only the change is told: the whole is read.
            b"balanceUpdate" | b"externalLockUpdate" => {
                // No trade tells of it: it may be one that was taken back, which no event says.
                desk.suspect(now_ns);
                if !desk.is_auditing(Audit::Balances)
                    && let Some(parts) = self.audit(desk, Audit::Balances, now_ns)
                {
                    desk.audit_begun(Audit::Balances, parts);
                }
            }
            b"eventStreamTerminated" => self.renew(desk, now_ns),
            // Maintenance: both sessions move as soon as no order is in flight.
            b"serverShutdown" => self.lines.iter_mut().for_each(|line| line.opened_ns = 1),
            _ => {}
        }
    }
}

impl Dialect for Binance {
    fn venue(&self) -> Venue {
        Venue::Binance
    }

    fn start(&mut self, desk: &mut Desk, now_ns: i64) {
        desk.link = crate::desk::Link::Connecting;
        self.dial(desk, ORDERS, now_ns);
        self.dial(desk, SPARE, now_ns);
    }

    fn on_open(&mut self, desk: &mut Desk, conn: u32, now_ns: i64) {
        let Some(which) = self.line_of(conn) else { return };
        let line = &mut self.lines[which];
        (line.stage, line.opened_ns, line.heard_ns, line.pinged_ns) =
            (Stage::LoggingOn, now_ns, now_ns, now_ns);
        let id = desk.number();
        let text = self.signer.logon(id, now_ns / MS);
        desk.send(conn, id, Ask::Logon, text, now_ns);
    }

    fn on_text(&mut self, desk: &mut Desk, conn: u32, text: &[u8], at: Stamps) {
        let now_ns = at.recv_ns;
        let Some(which) = self.line_of(conn) else { return };
        let Some(message) = Value::parse(text) else {
            desk.stats.malformed += 1;
            return;
        };
        self.lines[which].heard_ns = now_ns;
        if which == ORDERS && self.lines[ORDERS].stage == Stage::Ready {
            desk.heard(now_ns);
        }
        match message.get("event") {
            Some(event) => {
                if !desk.hold(conn, text) {
                    self.event(desk, event, now_ns);
                }
            }
            None => self.reply(desk, message, conn, now_ns),
        }
    }

    fn on_pong(&mut self, desk: &mut Desk, conn: u32, now_ns: i64) {
        if let Some(which) = self.line_of(conn) {
            self.lines[which].heard_ns = now_ns;
            if which == ORDERS && self.lines[ORDERS].stage == Stage::Ready {
                desk.heard(now_ns);
            }
        }
    }

    fn on_close(&mut self, desk: &mut Desk, conn: u32, cause: CloseCause, now_ns: i64) {
        let Some(which) = self.line_of(conn) else { return };
        if let CloseCause::Refused { status, retry_after_s } = cause {
            let wait_ns = retry_after_s.map_or(desk.config.suspend_ns, |s| i64::from(s) * SECOND);
            match status {
                418 => desk.banned(now_ns + wait_ns.max(120 * SECOND), i64::from(status)),
                429 => desk.suspend(now_ns + wait_ns, i64::from(status)),
                _ => {}
            }
        }
        if which == ORDERS {
            desk.streams_lost();
        }
        let opened_ns = self.lines[which].opened_ns;
        let lasted_ns = if opened_ns == 0 { 0 } else { now_ns - opened_ns };
        let wait_ns = self.lines[which].backoff.next_ns(lasted_ns);
        self.dial(desk, which, now_ns + wait_ns);
    }

    fn on_reply(&mut self, desk: &mut Desk, request: u32, reply: Reply<'_>, at: Stamps) {
        let now_ns = at.recv_ns;
        let Some(asked) = desk.answered(u64::from(request), now_ns) else { return };
        let Reply::Answer { status, retry_after_s, used_weight, body } = reply else {
            return desk.unanswered(asked, UnknownCause::Disconnect);
        };
        if let Some(weight) = used_weight {
            desk.budgets.reported(u64::from(weight), now_ns);
        }
        let value = Value::parse(body);
        if matches!(status, 403 | 418 | 429) {
            let wait_ns = retry_after_s.map_or(desk.config.suspend_ns, |s| i64::from(s) * SECOND);
            let (_, effect) = codes::judge(status, -1003, "");
            self.consequence(desk, effect, now_ns + wait_ns, i64::from(status));
            return desk.unanswered(asked, UnknownCause::Venue);
        }
        match status {
            200 => self.conclude(desk, asked, 200, value, None, now_ns),
            _ => self.conclude(desk, asked, status, None, value, now_ns),
        }
    }

    fn on_timer(&mut self, desk: &mut Desk, now_ns: i64) {
        for which in [ORDERS, SPARE] {
            let line = &mut self.lines[which];
            if line.stage == Stage::Dialing {
                continue;
            }
            let every_ns = if which == ORDERS { PING_NS } else { SPARE_PING_NS };
            if line.pinged_ns + every_ns <= now_ns {
                line.pinged_ns = now_ns;
                desk.act(Action::Ping { conn: line.conn });
            }
            let silent = which == SPARE && SPARE_SILENCE_NS < now_ns - line.heard_ns;
            // Ten minutes apart, so that never both are cut at once (trap 15).
            let age_ns = desk.config.rotate_ns + which as i64 * 600 * SECOND;
            let old = age_ns < now_ns - line.opened_ns && desk.orders.live() == 0;
            if silent || old && line.stage == Stage::Ready {
                desk.act(Action::Close { conn: line.conn, reset: silent });
                line.stage = Stage::Dialing;
            }
        }
    }

    fn spell(
        &mut self,
        desk: &mut Desk,
        order: &NewOrder,
        position: usize,
        now_ns: i64,
    ) -> Result<Spelled, GuardReason> {
        let line = &self.lines[ORDERS];
        if line.stage != Stage::Ready {
            return Err(GuardReason::Session);
        }
        // A short window bounds how late an unknown order can still become one (section 4.2).
        let window_ns = desk.config.ttl_ns_max.min(order.expires_ns - now_ns);
        let window_ms = u64::try_from(window_ns / MS).unwrap_or(0);
        if window_ms == 0 {
            return Err(GuardReason::Expired);
        }
        let id = desk.number();
        let now_ms = (now_ns / MS).unsigned_abs();
        let of = (&self.templates[position], &desk.listings[position]);
        wire::place(&mut self.text, of, order, (id, window_ms, now_ms));
        let ttl_ns = (now_ms + window_ms) as i64 * MS;
        match self.text.bytes() {
            Some(_) => Ok(Spelled { route: Route::Ws { conn: line.conn }, id, ttl_ns }),
            None => Err(GuardReason::Malformed),
        }
    }

    fn spelled(&self) -> &[u8] {
        self.text.bytes().unwrap_or_default()
    }

    fn cancel(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let (params, name) = order_params(desk, slot);
        let method = ("order.cancel", ("DELETE", "/api/v3/order"));
        self.ask(desk, Ask::Cancel(name), method, &params, now_ns);
        true
    }

    fn query(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        if !desk.budgets.query(weight::ORDER, now_ns) {
            return false;
        }
        let (params, name) = order_params(desk, slot);
        let method = ("order.status", ("GET", "/api/v3/order"));
        self.ask(desk, Ask::Query(name), method, &params, now_ns);
        true
    }

    fn order_trades(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        if !desk.budgets.query(weight::TRADES, now_ns) {
            return false;
        }
        let entry = desk.orders.get(slot);
        let (name, venue_id) = (entry.name, entry.venue_id);
        let since_ms = (entry.sent_ns / MS - 1_000).max(0);
        let Some(position) = desk.position_of(entry.instrument) else { return false };
        let mut params = vec![("symbol", desk.listings[position].symbol.clone())];
        match venue_id {
            0 => params.push(("startTime", since_ms.to_string())),
            id => params.push(("orderId", id.to_string())),
        }
        let method = ("myTrades", ("GET", "/api/v3/myTrades"));
        self.ask(desk, Ask::OrderTrades(name), method, &params, now_ns);
        true
    }

    fn identify(&mut self, desk: &mut Desk, venue_id: u128, now_ns: i64) -> bool {
        let Some(position) = desk.stray_position(venue_id) else { return false };
        if !desk.budgets.query(weight::ORDER, now_ns) {
            return false;
        }
        let params =
            [("symbol", desk.listings[position].symbol.clone()), ("orderId", venue_id.to_string())];
        let method = ("order.status", ("GET", "/api/v3/order"));
        self.ask(desk, Ask::Identify(venue_id), method, &params, now_ns);
        true
    }

    fn audit(&mut self, desk: &mut Desk, audit: Audit, now_ns: i64) -> Option<usize> {
        let count = desk.listings.len();
        let symbols = |part: usize, desk: &Desk| ("symbol", desk.listings[part].symbol.clone());
        let all = weight::OPEN_ORDERS_ALL <= weight::OPEN_ORDERS * count as u64;
        let (parts, cost) = match audit {
            Audit::OpenOrders if all => (1, weight::OPEN_ORDERS_ALL),
            Audit::OpenOrders => (count, weight::OPEN_ORDERS * count as u64),
            Audit::Balances => (1, weight::ACCOUNT),
            Audit::Trades => (count, weight::TRADES * count as u64),
            Audit::Fees => (count, weight::COMMISSION * count as u64),
        };
        if !desk.budgets.query(cost, now_ns) {
            return None;
        }
        if audit == Audit::OpenOrders {
            desk.open_begin();
        }
        // At most a day is given at once.
        let since_ns = desk.trades_since_ns(now_ns).max(now_ns - 24 * 3_600 * SECOND + SECOND);
        if audit == Audit::Trades {
            desk.read_begin(since_ns, now_ns);
        }
        for part in 0..parts {
            let (method, params) = match audit {
                Audit::OpenOrders if all => {
                    (("openOrders.status", ("GET", "/api/v3/openOrders")), vec![])
                }
                Audit::OpenOrders => {
                    let method = ("openOrders.status", ("GET", "/api/v3/openOrders"));
                    (method, vec![symbols(part, desk)])
                }
                Audit::Balances => (("account.status", ("GET", "/api/v3/account")), vec![]),
                Audit::Trades => (
                    ("myTrades", ("GET", "/api/v3/myTrades")),
                    vec![
                        symbols(part, desk),
                        ("startTime", (since_ns / MS).to_string()),
                        ("limit", wire::TRADES_MAX.to_string()),
                    ],
                ),
                Audit::Fees => (
                    ("account.commission", ("GET", "/api/v3/account/commission")),
                    vec![symbols(part, desk)],
                ),
            };
            self.ask(desk, Ask::Audit(audit, part), method, &params, now_ns);
        }
        Some(parts)
    }

    fn renew(&mut self, desk: &mut Desk, _now_ns: i64) {
        desk.streams_lost();
        let line = &mut self.lines[ORDERS];
        line.stage = Stage::Dialing;
        desk.act(Action::Close { conn: line.conn, reset: true });
    }
}

/// How an order is named in a cancel or a query: by the venue's id where it is known (the fast path).
fn order_params(desk: &Desk, slot: usize) -> (Vec<(&'static str, String)>, crate::orders::Name) {
    let entry = desk.orders.get(slot);
    let symbol = desk
        .position_of(entry.instrument)
        .map(|position| desk.listings[position].symbol.clone())
        .unwrap_or_default();
    let id = match entry.venue_id {
        0 => ("origClientOrderId", entry.client.as_str().to_owned()),
        id => ("orderId", id.to_string()),
    };
    (vec![("symbol", symbol), id], entry.name)
}

/// An asset of ours, with what is there of it and what of that is held where both can be read.
type Held = (u16, Option<(i64, i64)>);

/// Reads free and locked of an asset of ours.
fn balance_of(desk: &Desk, balance: Value<'_>, names: [&str; 3]) -> Option<Held> {
    let [asset, free, locked] = balance.pick(names);
    let (asset, exponent) = desk.asset(asset?.word()?)?;
    let read = || {
        let held = locked?.quanta_down(exponent)?;
        Some((free?.quanta_down(exponent)?.checked_add(held)?, held))
    };
    Some((asset, read()))
}

/// An amount of fee and its asset; one that is not ours is told as such.
fn fee_of(
    desk: &Desk,
    amount: Option<Value<'_>>,
    asset: Option<Value<'_>>,
) -> Option<(Amount, u16)> {
    let Some(asset) = asset else { return Some((Amount(0), 0)) };
    match desk.asset(asset.word()?) {
        Some((idx, exponent)) => Some((Amount(amount?.quanta_up(exponent)?), idx)),
        None => Some((Amount(amount?.quanta_up(8)?), u16::MAX)),
    }
}

/// The end that a status means; nothing while the order lives.
fn end_of(status: &[u8]) -> Option<DoneStatus> {
    match status {
        b"FILLED" => Some(DoneStatus::Filled),
        b"CANCELED" => Some(DoneStatus::Cancelled),
        b"EXPIRED" => Some(DoneStatus::Expired),
        b"EXPIRED_IN_MATCH" => Some(DoneStatus::SelfTradePrevented),
        _ => None,
    }
}

/// Reads an order as replies show it: of a placement, a cancel, a query. Returns whether it made sense.
fn order_object(desk: &mut Desk, slot: usize, order: Value<'_>) -> bool {
    let [id, status, executed, fills] = order.pick(["orderId", "status", "executedQty", "fills"]);
    let entry = desk.orders.get(slot);
    let Some(position) = desk.position_of(entry.instrument) else { return false };
    let (px_exponent, qty_exponent) =
        (desk.listings[position].px_exponent, desk.listings[position].qty_exponent);
    let Some(id) = id.and_then(Value::u64) else { return false };
    let executed = match executed {
        Some(executed) => match executed.quanta(qty_exponent) {
            Some(executed) => executed,
            None => return false,
        },
        None => 0,
    };
    desk.accepted(slot, u128::from(id), false);
    let at_ns = order.get("transactTime").and_then(Value::i64).unwrap_or(0).saturating_mul(MS);
    if let Some(fills) = fills {
        fills.each(|fill| {
            let [px, qty, fee, asset, trade] =
                fill.pick(["price", "qty", "commission", "commissionAsset", "tradeId"]);
            let read = || {
                let (fee, asset) = fee_of(desk, fee, asset)?;
                Some(Fill {
                    px: Px(px?.quanta(px_exponent)?),
                    qty: Qty(qty?.quanta(qty_exponent)?),
                    fee,
                    asset,
                    trade_id: trade?.u64()?,
                    alias: 0,
                    at_ns,
                    word: Word::Fill,
                })
            };
            match read() {
                Some(fill) => {
                    desk.fill(slot, fill);
                }
                None => desk.stats.malformed += 1,
            }
        });
    }
    desk.behind(slot, Qty(executed));
    match status.and_then(Value::text).as_deref() {
        Some(b"REJECTED") => desk.done(slot, DoneStatus::Cancelled, Qty(executed)),
        Some(status) => {
            if let Some(end) = end_of(status) {
                desk.done(slot, end, Qty(executed));
            }
        }
        None => {}
    }
    true
}

/// Reads trades; returns whether each of them is of an order that is known, ours or not.
fn trades(desk: &mut Desk, list: Value<'_>) -> bool {
    let mut clean = list.count().is_some();
    list.each(|trade| {
        let [symbol, id, order, px, qty, fee, asset, time] = trade.pick([
            "symbol",
            "id",
            "orderId",
            "price",
            "qty",
            "commission",
            "commissionAsset",
            "time",
        ]);
        let read = || {
            let position = desk.position(symbol?.word()?)?;
            let listing = &desk.listings[position];
            let (fee, asset) = fee_of(desk, fee, asset)?;
            let fill = Fill {
                px: Px(px?.quanta(listing.px_exponent)?),
                qty: Qty(qty?.quanta(listing.qty_exponent)?),
                fee,
                asset,
                trade_id: id?.u64()?,
                alias: 0,
                at_ns: time?.i64()?.checked_mul(MS)?,
                word: Word::Fill,
            };
            Some((u128::from(order?.u64()?), position, fill))
        };
        match read() {
            Some((venue_id, position, fill)) => {
                clean &= desk.is_attributed(venue_id);
                desk.trade(venue_id, position, fill);
            }
            None => {
                desk.unreadable_trade();
                clean = false;
            }
        }
    });
    clean
}

fn open_order(desk: &mut Desk, order: Value<'_>) {
    let [symbol, client, id, px, qty, executed, side] = order.pick([
        "symbol",
        "clientOrderId",
        "orderId",
        "price",
        "origQty",
        "executedQty",
        "side",
    ]);
    let position = symbol.and_then(Value::word).and_then(|symbol| desk.position(symbol));
    let exponents = position.map_or((8, 8), |position| {
        (desk.listings[position].px_exponent, desk.listings[position].qty_exponent)
    });
    let cum = executed.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
    let whole = qty.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
    let client = client.and_then(Value::text).unwrap_or_default();
    desk.open_order(&OpenOrder {
        client: &client,
        venue_id: u128::from(id.and_then(Value::u64).unwrap_or(0)),
        position,
        px: Px(px.and_then(|v| v.quanta(exponents.0)).unwrap_or(0)),
        left: Qty((whole - cum).max(0)),
        cum: Qty(cum),
        side: i64::from(side.is_some_and(|side| side.is("SELL"))),
    });
}

/// Sums the rates of the three kinds: taker and maker with the larger of buyer's and seller's, in parts
/// per million, rounded up. The discount is left out: what the documents say of it is contradictory.
fn commission(result: Value<'_>) -> Option<(i64, i64)> {
    let mut sums = (0i64, 0i64);
    let kinds = result.pick(["standardCommission", "specialCommission", "taxCommission"]);
    kinds[0]?;
    for kind in kinds.into_iter().flatten() {
        let [taker, maker, buyer, seller] = kind.pick(["taker", "maker", "buyer", "seller"]);
        let ppm = |value: Option<Value<'_>>| value.and_then(|value| value.quanta_up(6));
        let side = ppm(buyer).unwrap_or(0).max(ppm(seller).unwrap_or(0));
        sums.0 += ppm(taker)? + side;
        sums.1 += ppm(maker)? + side;
    }
    Some(sums)
}

/// Reads an `executionReport`.
fn execution(desk: &mut Desk, event: Value<'_>) {
    let [client, original, kind, status, symbol, id, cum] =
        event.pick(["c", "C", "x", "X", "s", "i", "z"]);
    let Some(position) = symbol.and_then(Value::word).and_then(|s| desk.position(s)) else {
        return;
    };
    // On a cancel `c` is the cancel's id; the order's is then in `C`.
    let original = original.and_then(Value::text).unwrap_or_default();
    let client = client.and_then(Value::text).unwrap_or_default();
    let Some(slot) = desk.ours(&original, position).or_else(|| desk.ours(&client, position)) else {
        return;
    };
    let (px_exponent, qty_exponent) =
        (desk.listings[position].px_exponent, desk.listings[position].qty_exponent);
    let read = || Some((id?.u64()?, cum?.quanta(qty_exponent)?, kind?.text()?, status?.text()?));
    let Some((id, cum, kind, status)) = read() else {
        desk.stats.malformed += 1;
        return;
    };
    if &*kind == b"REJECTED" {
        let [reason] = event.pick(["r"]);
        let class = match reason.and_then(Value::text).as_deref() {
            Some(b"INSUFFICIENT_BALANCES") => RejectClass::Funds,
            Some(b"WOULD_MATCH_IMMEDIATELY") => RejectClass::PostOnly,
            _ => RejectClass::Other,
        };
        desk.rejected(slot, class, 0);
        return;
    }
    desk.accepted(slot, u128::from(id), true);
    if &*kind == b"TRADE" {
        let [px, qty, fee, asset, trade, time] = event.pick(["L", "l", "n", "N", "t", "T"]);
        let read = || {
            let (fee, asset) = fee_of(desk, fee, asset)?;
            Some(Fill {
                px: Px(px?.quanta(px_exponent)?),
                qty: Qty(qty?.quanta(qty_exponent)?),
                fee,
                asset,
                trade_id: trade?.u64()?,
                alias: 0,
                at_ns: time?.i64()?.checked_mul(MS)?,
                word: Word::Fill,
            })
        };
        match read() {
            Some(fill) => {
                desk.fill(slot, fill);
            }
            None => desk.stats.malformed += 1,
        }
    }
    desk.behind(slot, Qty(cum));
    if let Some(end) = end_of(&status) {
        desk.done(slot, end, Qty(cum));
    }
}
