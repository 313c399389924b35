//! Coinbase Advanced Trade's order entry: orders by REST over warm connections, the user stream beside it.
//!
//! Tokens for orders and cancels are made ahead; an order takes one from the pool, a free connection, and
//! is written. Queries sign when they ask: they are never on an order's path. The user channel tells only
//! running totals, which are reported at once; the fills behind them come by REST
//! (`protocols/coinbase.md` sections 2 to 9).
//!
//! Invariants: HTTP 200 is no success, and success is no fill: `success` is read, and what was filled is
//! believed from the user channel and the fills alone. Every frame's `sequence_num` is one more than the
//! last, or the connection is made anew.
//!
//! Not here: what errors mean (`codes`), texts (`wire`), what all venues share (`desk`).

pub mod codes;
pub mod sign;
pub mod wire;

use tandem_core::order::{DoneStatus, NewOrder, RejectClass, Tif, UnknownCause};
use tandem_core::record::Venue;
use tandem_core::units::{Amount, Px, Qty};
use tandem_feeds::machine::{CloseCause, Reply, Stamps};
use tandem_feeds::net::backoff::Backoff;
use tandem_shm::fnv1a;

use crate::busts::Word;
use crate::codes::{Effect, Verdict};
use crate::desk::{Ask, Asked, Desk, Fill, Link, OpenOrder};
use crate::guard::{GuardReason, Route};
use crate::json::Value;
use crate::keys::{Credentials, KeyError};
use crate::machine::{Action, Audit, CANCEL_LANE, Dialect, ORDER_LANE, QUERY_LANE, Spelled};
use crate::text::Text;
use sign::{Pool, Signer};

const SECOND: i64 = 1_000_000_000;

/// An unused connection is asked for the time this often, so that it stays.
const WARM_NS: i64 = 15 * SECOND;
/// Fills of one page.
const PAGE: usize = 100;
/// States of open orders: asking for OPEN does not give what is PENDING, and both at once may be refused.
const OPEN: [&str; 2] = ["OPEN", "PENDING"];

/// Coinbase.
#[derive(Debug)]
pub struct Coinbase {
    signer: Signer,
    order_tokens: Pool,
    cancel_tokens: Pool,
    text: Text,
    body: Text,
    conn: u32,
    opened_ns: i64,
    backoff: Backoff,
    streaming: bool,
    sequence: Option<u64>,
    /// Last request of each connection, and when it was made.
    lanes: Vec<(u64, i64)>,
}

impl Coinbase {
    /// Returns the venue with its key.
    pub fn new(credentials: &Credentials, desk: &Desk) -> Result<Coinbase, KeyError> {
        let host = &desk.config.rest_host;
        let size = desk.config.tokens.max(1);
        Ok(Coinbase {
            signer: Signer::new(credentials)?,
            order_tokens: Pool::new(format!("POST {host}{}", wire::ORDERS), size),
            cancel_tokens: Pool::new(format!("POST {host}{}", wire::CANCEL), size.div_ceil(2)),
            text: Text::default(),
            body: Text::default(),
            conn: 0,
            opened_ns: 0,
            // Eight connections a second are allowed to the address.
            backoff: Backoff::new(SECOND / 2, 30 * SECOND, 60 * SECOND, desk.config.seed),
            streaming: false,
            sequence: None,
            lanes: vec![(0, 0); usize::from(ORDER_LANE) + usize::from(desk.config.order_lanes)],
        })
    }

    fn get(&mut self, desk: &mut Desk, ask: Ask, path: &str, query: &str, now_ns: i64) {
        // The query is no part of what is signed (coinbase-advanced-py #56).
        let uri = format!("GET {}{path}", desk.config.rest_host);
        let token = self.signer.token(Some(&uri), now_ns / SECOND);
        let question = if query.is_empty() { "" } else { "?" };
        let path = format!("{path}{question}{query}");
        let bytes = wire::http("GET", &desk.config.rest_host, &path, Some(&token), "");
        desk.http(QUERY_LANE, ask, bytes, now_ns);
    }

    fn dial(&mut self, desk: &mut Desk, at_ns: i64) {
        self.conn = desk.connect(wire::WS_PATH, at_ns.max(desk.suspended_until()));
        (self.opened_ns, self.streaming, self.sequence) = (0, false, None);
    }

    fn consequence(
        &mut self,
        desk: &mut Desk,
        effect: Effect,
        wait_ns: i64,
        code: i64,
        now_ns: i64,
    ) {
        match effect {
            Effect::None => {}
            Effect::Wait => desk.suspend(now_ns + wait_ns, code),
            Effect::Ban => desk.banned(now_ns + wait_ns, code),
            Effect::Key => desk.refuse(code),
        }
    }

    /// A request was answered by something that is no success.
    fn failed(
        &mut self,
        desk: &mut Desk,
        asked: Asked,
        (judged, code): ((Verdict, Effect), i64),
        wait_ns: i64,
        now_ns: i64,
    ) {
        let (verdict, effect) = judged;
        self.consequence(desk, effect, wait_ns, code, now_ns);
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
            (Ask::Query(name), Verdict::Refused(RejectClass::NoOrder)) => {
                if let Some(slot) = desk.orders.find(name) {
                    desk.not_found(slot, asked.sent_ns);
                }
            }
            (Ask::Identify(id), Verdict::Refused(RejectClass::NoOrder)) => {
                desk.identified(id, None)
            }
            _ => desk.unanswered(asked, UnknownCause::Venue),
        }
    }

    /// The reply to a new order: HTTP 200 also where it was refused.
    fn created(&mut self, desk: &mut Desk, asked: Asked, reply: Value<'_>, now_ns: i64) {
        let Ask::New(name) = asked.ask else { return };
        let [success, accepted, error] =
            reply.pick(["success", "success_response", "error_response"]);
        match success.and_then(Value::bool) {
            Some(true) => {
                let id = accepted.and_then(|a| a.get("order_id")).and_then(Value::word);
                match (desk.orders.find(name), id.and_then(wire::parse_id)) {
                    (Some(slot), Some(id)) => desk.accepted(slot, id, false),
                    _ => desk.unanswered(asked, UnknownCause::Unreadable),
                }
            }
            Some(false) => {
                let reason = error.map_or([None; 3], |error| {
                    error.pick(["new_order_failure_reason", "preview_failure_reason", "error"])
                });
                // The first that says anything.
                let says = |value: &Value<'_>| {
                    let text = value.text().unwrap_or_default();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    let empty = text.is_empty() || text.starts_with("UNKNOWN_");
                    (!empty).then_some(text)
                };
                let reason = reason.iter().flatten().find_map(says).unwrap_or_default();
                let wait_ns = desk.config.suspend_ns;
                self.failed(desk, asked, codes::judge(&reason), wait_ns, now_ns);
            }
            None => desk.unanswered(asked, UnknownCause::Unreadable),
        }
    }

    fn answered(&mut self, desk: &mut Desk, asked: Asked, reply: Value<'_>, now_ns: i64) {
        match asked.ask {
            Ask::New(_) => self.created(desk, asked, reply, now_ns),
            Ask::Cancel(name) => {
                let Some(slot) = desk.orders.find(name) else { return };
                let venue_id = desk.orders.get(slot).venue_id;
                let Some(results) = reply.get("results") else { return };
                // Joined by id; `failure_reason` is there even in success (trap: hummingbot PR #6458).
                results.each(|result| {
                    let [success, reason, id] =
                        result.pick(["success", "failure_reason", "order_id"]);
                    let id = id.and_then(Value::word).and_then(wire::parse_id);
                    if id == Some(venue_id) && success.and_then(Value::bool) == Some(false) {
                        let text = reason.and_then(Value::text).unwrap_or_default();
                        let ((verdict, _), code) = codes::judge(&String::from_utf8_lossy(&text));
                        match verdict {
                            Verdict::Refused(class) => desk.cancel_rejected(slot, class, code),
                            Verdict::Unknown => desk.orders.get_mut(slot).poll_at_ns = 0,
                        }
                    }
                });
            }
            Ask::Query(name) | Ask::QueryEnded(name) => {
                let Some(slot) = desk.orders.find(name) else { return };
                let client = desk.orders.get(slot).client;
                let mut found = None;
                match reply.get("order") {
                    Some(order) => found = Some(order),
                    None => {
                        if let Some(orders) = reply.get("orders") {
                            orders.each(|order| {
                                if order
                                    .get("client_order_id")
                                    .is_some_and(|c| c.is(client.as_str()))
                                {
                                    found = Some(order);
                                }
                            });
                        }
                    }
                }
                match found {
                    Some(order) => {
                        rest_order(desk, slot, order);
                        desk.settled(slot);
                    }
                    None if reply.get("has_next").and_then(Value::bool) == Some(true) => {}
                    None => desk.not_found(slot, asked.sent_ns),
                }
            }
            Ask::OrderTrades(name) => {
                let read = fills(desk, reply);
                let clean = read.is_some_and(|(clean, count)| clean && count < PAGE);
                if let (true, Some(slot)) = (clean, desk.orders.find(name)) {
                    desk.no_trades(slot, asked.sent_ns);
                }
            }
            Ask::Identify(venue_id) => {
                let order = reply.get("order");
                let [client, product] =
                    order.map_or([None; 2], |o| o.pick(["client_order_id", "product_id"]));
                let position = product.and_then(Value::word).and_then(|p| desk.position(p));
                let slot = client
                    .and_then(Value::text)
                    .zip(position)
                    .and_then(|(client, position)| desk.ours(&client, position));
                if let (Some(slot), Some(order)) = (slot, order) {
                    rest_order(desk, slot, order);
                }
                desk.identified(venue_id, slot);
            }
            Ask::Audit(audit, part) => self.audit_answered(desk, (audit, part), reply, now_ns),
            Ask::Logon | Ask::Subscribe | Ask::Alive | Ask::DeadMan => {}
        }
    }

    fn audit_answered(
        &mut self,
        desk: &mut Desk,
        (audit, part): (Audit, usize),
        reply: Value<'_>,
        now_ns: i64,
    ) {
        let cursor = reply.get("cursor").and_then(Value::text).unwrap_or_default();
        let cursor = String::from_utf8_lossy(&cursor).into_owned();
        let plain = cursor.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let next = (!cursor.is_empty() && plain).then_some(cursor);
        let has_next = reply.get("has_next").and_then(Value::bool) == Some(true);
        let well = match audit {
            Audit::OpenOrders => {
                let list = reply.get("orders").filter(|orders| orders.count().is_some());
                list.inspect(|orders| orders.each(|order| open_order(desk, order)));
                match next {
                    _ if list.is_none() => false,
                    Some(next) if has_next => {
                        desk.audit_goes_on(audit);
                        let status = OPEN[part % OPEN.len()];
                        let query = format!("order_status={status}&limit=250&cursor={next}");
                        let path = format!("{}/batch", wire::HISTORICAL);
                        let part = part + OPEN.len();
                        self.get(desk, Ask::Audit(audit, part), &path, &query, now_ns);
                        true
                    }
                    // What was not read is not gone.
                    _ => !has_next,
                }
            }
            Audit::Balances => {
                let whole = reply
                    .get("accounts")
                    .is_some_and(|accounts| balances(desk, accounts, part == 0));
                match next {
                    // What cannot be read is not zero: nothing is told, and it is asked again.
                    _ if !whole => false,
                    Some(next) if has_next => {
                        desk.audit_goes_on(audit);
                        let query = format!("limit=250&cursor={next}");
                        self.get(desk, Ask::Audit(audit, part + 1), wire::ACCOUNTS, &query, now_ns);
                        true
                    }
                    None if has_next => false,
                    _ => {
                        desk.balances_end();
                        true
                    }
                }
            }
            Audit::Trades => match fills(desk, reply) {
                Some((_, count)) => {
                    if count == PAGE
                        && let Some(next) = &next
                    {
                        desk.audit_goes_on(audit);
                        let query = format!("limit={PAGE}&cursor={next}");
                        let path = format!("{}/fills", wire::HISTORICAL);
                        self.get(desk, Ask::Audit(audit, part + 1), &path, &query, now_ns);
                    } else if next.is_some() {
                        // There is more than was given: what is not here may be there.
                        desk.read_is_partial();
                    }
                    true
                }
                None => false,
            },
            Audit::Fees => {
                let tier = reply.get("fee_tier");
                let [taker, maker] =
                    tier.map_or([None; 2], |t| t.pick(["taker_fee_rate", "maker_fee_rate"]));
                let ppm = |rate: Option<Value<'_>>| rate?.quanta_up(6);
                match (ppm(taker), ppm(maker)) {
                    (Some(taker), Some(maker)) => {
                        (0..desk.listings.len()).for_each(|at| desk.fee(at, taker, maker));
                        true
                    }
                    _ => false,
                }
            }
        };
        desk.audited(audit, well);
    }

    fn open_stream(&mut self, desk: &mut Desk, now_ns: i64) {
        if !self.streaming {
            self.streaming = true;
            desk.streams_open(now_ns);
        }
    }
}

impl Dialect for Coinbase {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn start(&mut self, desk: &mut Desk, now_ns: i64) {
        desk.link = Link::Connecting;
        self.dial(desk, now_ns);
    }

    fn on_open(&mut self, desk: &mut Desk, conn: u32, now_ns: i64) {
        if conn != self.conn {
            return;
        }
        self.opened_ns = now_ns;
        // Within five seconds, or the venue closes; one channel a message, a token each.
        for channel in ["heartbeats", "user"] {
            let token = self.signer.token(None, now_ns / SECOND);
            desk.act(Action::Send { conn, text: wire::subscribe(channel, &token) });
        }
    }

    fn on_text(&mut self, desk: &mut Desk, conn: u32, text: &[u8], at: Stamps) {
        if conn != self.conn {
            return;
        }
        let now_ns = at.recv_ns;
        let Some(message) = Value::parse(text) else {
            desk.stats.malformed += 1;
            return;
        };
        let [channel, sequence, events, kind] =
            message.pick(["channel", "sequence_num", "events", "type"]);
        if kind.is_some_and(|kind| kind.is("error")) {
            // The only error of this stream that we can cause is a refused token.
            let text = message.get("message").and_then(Value::text).unwrap_or_default();
            if String::from_utf8_lossy(&text).contains("auth") {
                desk.refuse(401);
            }
            desk.act(Action::Close { conn, reset: false });
            return;
        }
        let Some(channel) = channel else { return };
        let replayed = at.recv_tsc == 0 && at.bytes == 0;
        if !replayed && let Some(sequence) = sequence.and_then(Value::u64) {
            match self.sequence {
                Some(last) if sequence <= last => {
                    desk.stats.duplicates += 1;
                    return;
                }
                Some(last) if sequence != last + 1 => {
                    tracing::warn!(last, sequence, "coinbase: the user stream skipped a frame");
                    return self.renew(desk, now_ns);
                }
                _ => self.sequence = Some(sequence),
            }
        }
        desk.heard(now_ns);
        if channel.is("subscriptions") {
            let channels =
                events.and_then(Value::first).and_then(|event| event.get("subscriptions"));
            if channels.is_some_and(|channels| channels.get("user").is_some()) {
                self.open_stream(desk, now_ns);
            }
        } else if channel.is("user") {
            self.open_stream(desk, now_ns);
            if !desk.hold(conn, text)
                && let Some(events) = events
            {
                events.each(|event| {
                    if let Some(orders) = event.get("orders") {
                        orders.each(|order| user_order(desk, order));
                    }
                });
            }
        }
    }

    fn on_pong(&mut self, _desk: &mut Desk, _conn: u32, _now_ns: i64) {}

    fn on_close(&mut self, desk: &mut Desk, conn: u32, cause: CloseCause, now_ns: i64) {
        if conn != self.conn {
            return;
        }
        if let CloseCause::Refused { status: 429 | 403, retry_after_s } = cause {
            let wait_ns = retry_after_s.map_or(desk.config.suspend_ns, |s| i64::from(s) * SECOND);
            desk.suspend(now_ns + wait_ns, 429);
        }
        desk.streams_lost();
        let lasted_ns = if self.opened_ns == 0 { 0 } else { now_ns - self.opened_ns };
        let wait_ns = self.backoff.next_ns(lasted_ns);
        self.dial(desk, now_ns + wait_ns);
    }

    fn on_reply(&mut self, desk: &mut Desk, request: u32, reply: Reply<'_>, at: Stamps) {
        let now_ns = at.recv_ns;
        let Some(asked) = desk.answered(u64::from(request), now_ns) else { return };
        let Reply::Answer { status, retry_after_s, body, .. } = reply else {
            // Its connection is gone: it is made and warmed at once, not when an order needs it.
            let of_it = |lane: &&mut (u64, i64)| lane.0 == u64::from(request);
            self.lanes.iter_mut().filter(of_it).for_each(|lane| *lane = (0, 0));
            return desk.unanswered(asked, UnknownCause::Disconnect);
        };
        if matches!(asked.ask, Ask::Alive) {
            return;
        }
        let value = Value::parse(body);
        match (status, value) {
            (200, Some(value)) => self.answered(desk, asked, value, now_ns),
            (200, None) => desk.unanswered(asked, UnknownCause::Unreadable),
            (status, value) => {
                let wait_ns =
                    retry_after_s.map_or(desk.config.suspend_ns, |s| i64::from(s) * SECOND);
                let judged = codes::judge_status(status, value.is_some());
                self.failed(desk, asked, (judged, i64::from(status)), wait_ns, now_ns);
            }
        }
    }

    fn on_timer(&mut self, desk: &mut Desk, now_ns: i64) {
        // One token a call: signing takes tens of microseconds, and orders come between.
        let now_s = now_ns / SECOND;
        let _ = self.order_tokens.refill(&self.signer, now_s)
            || self.cancel_tokens.refill(&self.signer, now_s);
        for lane in usize::from(CANCEL_LANE)..self.lanes.len() {
            let (last, at_ns) = self.lanes[lane];
            if desk.is_asked_id(last) && desk.config.ack_ns_max < now_ns - at_ns {
                // Its request is unknown by now; the next order shall not wait behind it.
                desk.act(Action::Drop { lane: lane as u8, request: last as u32 });
                self.lanes[lane] = (0, 0);
                continue;
            }
            if now_ns < at_ns + WARM_NS || desk.is_asked_id(last) || !desk.budgets.query(1, now_ns)
            {
                continue;
            }
            let bytes = wire::http("GET", &desk.config.rest_host, wire::TIME, None, "");
            let id = desk.http(lane as u8, Ask::Alive, bytes, now_ns);
            // Not all at once, so that one is always free.
            self.lanes[lane] = (id, now_ns);
            break;
        }
        let old = self.opened_ns != 0 && desk.config.rotate_ns < now_ns - self.opened_ns;
        if old && self.streaming && desk.orders.live() == 0 {
            self.renew(desk, now_ns);
        }
    }

    fn spell(
        &mut self,
        desk: &mut Desk,
        order: &NewOrder,
        position: usize,
        now_ns: i64,
    ) -> Result<Spelled, GuardReason> {
        let lanes = usize::from(ORDER_LANE)..self.lanes.len();
        let lane = lanes
            .into_iter()
            .find(|lane| self.lanes[*lane].0 != 0 && !desk.is_asked_id(self.lanes[*lane].0))
            .ok_or(GuardReason::Backlog)?;
        let token = self.order_tokens.take(now_ns / SECOND).ok_or(GuardReason::Token)?;
        let id = desk.number();
        let host = &desk.config.rest_host;
        let listing = &desk.listings[position];
        wire::create((&mut self.text, &mut self.body), listing, order, (host, &token));
        self.lanes[lane] = (id, now_ns);
        match (self.body.bytes(), self.text.bytes()) {
            (Some(_), Some(_)) => Ok(Spelled {
                route: Route::Http { lane: lane as u8, request: id as u32 },
                id,
                // The venue offers no time to live: the proof waits for its own time.
                ttl_ns: now_ns,
            }),
            _ => Err(GuardReason::Malformed),
        }
    }

    fn not_ready(&mut self, route: Route) {
        if let Route::Http { lane, .. } = route {
            self.lanes[usize::from(lane)] = (0, 0);
        }
    }

    fn spelled(&self) -> &[u8] {
        self.text.bytes().unwrap_or_default()
    }

    fn cancel(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get_mut(slot);
        let (name, venue_id) = (entry.name, entry.venue_id);
        if venue_id == 0 {
            // Cancels take the venue's id alone: it is asked for.
            entry.poll_at_ns = 0;
            return false;
        }
        let uri = format!("POST {}{}", desk.config.rest_host, wire::CANCEL);
        let now_s = now_ns / SECOND;
        let token =
            self.cancel_tokens.take(now_s).unwrap_or_else(|| self.signer.token(Some(&uri), now_s));
        let body = format!("{{\"order_ids\":[\"{}\"]}}", wire::id_text(venue_id));
        let host = &desk.config.rest_host;
        let bytes = wire::http("POST", host, wire::CANCEL, Some(&token), &body);
        let id = desk.http(CANCEL_LANE, Ask::Cancel(name), bytes, now_ns);
        self.lanes[usize::from(CANCEL_LANE)] = (id, now_ns);
        true
    }

    fn query(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get(slot);
        let (name, venue_id, sent_ns) = (entry.name, entry.venue_id, entry.sent_ns);
        let Some(position) = desk.position_of(entry.instrument) else { return false };
        if !desk.budgets.query(1, now_ns) {
            return false;
        }
        if venue_id != 0 {
            let path = format!("{}/{}", wire::HISTORICAL, wire::id_text(venue_id));
            self.get(desk, Ask::Query(name), &path, "", now_ns);
            return true;
        }
        // There is no look-up by client id: the list since it was sent is gone through.
        let mut since = Text::default();
        since.time((sent_ns - 5 * SECOND).max(0));
        let since = String::from_utf8_lossy(since.bytes().unwrap_or_default()).into_owned();
        let product = &desk.listings[position].symbol;
        let since = if sent_ns == 0 { String::new() } else { format!("&start_date={since}") };
        let query = format!("product_ids={product}{since}&limit=250");
        let path = format!("{}/batch", wire::HISTORICAL);
        self.get(desk, Ask::Query(name), &path, &query, now_ns);
        true
    }

    fn order_trades(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get(slot);
        let (name, venue_id, sent_ns) = (entry.name, entry.venue_id, entry.sent_ns);
        let Some(position) = desk.position_of(entry.instrument) else { return false };
        if !desk.budgets.query(1, now_ns) {
            return false;
        }
        let query = match venue_id {
            0 => {
                let mut since = Text::default();
                since.time((sent_ns - 5 * SECOND).max(0));
                let since = String::from_utf8_lossy(since.bytes().unwrap_or_default()).into_owned();
                let product = &desk.listings[position].symbol;
                format!("product_ids={product}&start_sequence_timestamp={since}&limit={PAGE}")
            }
            id => format!("order_ids={}&limit={PAGE}", wire::id_text(id)),
        };
        let path = format!("{}/fills", wire::HISTORICAL);
        self.get(desk, Ask::OrderTrades(name), &path, &query, now_ns);
        true
    }

    fn identify(&mut self, desk: &mut Desk, venue_id: u128, now_ns: i64) -> bool {
        if !desk.budgets.query(1, now_ns) {
            return false;
        }
        let path = format!("{}/{}", wire::HISTORICAL, wire::id_text(venue_id));
        self.get(desk, Ask::Identify(venue_id), &path, "", now_ns);
        true
    }

    fn audit(&mut self, desk: &mut Desk, audit: Audit, now_ns: i64) -> Option<usize> {
        let parts = if audit == Audit::OpenOrders { 2 } else { 1 };
        if !desk.budgets.query(parts, now_ns) {
            return None;
        }
        match audit {
            Audit::OpenOrders => {
                desk.open_begin();
                let path = format!("{}/batch", wire::HISTORICAL);
                for (part, status) in OPEN.iter().enumerate() {
                    let query = format!("order_status={status}&limit=250");
                    self.get(desk, Ask::Audit(audit, part), &path, &query, now_ns);
                }
            }
            Audit::Balances => {
                self.get(desk, Ask::Audit(audit, 0), wire::ACCOUNTS, "limit=250", now_ns);
            }
            Audit::Trades => {
                let mut since = Text::default();
                let since_ns = desk.trades_since_ns(now_ns);
                desk.read_begin(since_ns, now_ns);
                since.time(since_ns);
                let since = String::from_utf8_lossy(since.bytes().unwrap_or_default()).into_owned();
                let query = format!("start_sequence_timestamp={since}&limit={PAGE}");
                let path = format!("{}/fills", wire::HISTORICAL);
                self.get(desk, Ask::Audit(audit, 0), &path, &query, now_ns);
            }
            Audit::Fees => {
                let query = "product_type=SPOT";
                self.get(desk, Ask::Audit(audit, 0), wire::SUMMARY, query, now_ns);
            }
        }
        Some(parts as usize)
    }

    fn renew(&mut self, desk: &mut Desk, _now_ns: i64) {
        desk.streams_lost();
        (self.streaming, self.opened_ns) = (false, 0);
        desk.act(Action::Close { conn: self.conn, reset: true });
    }
}

/// What an order's members say, whichever way it is shown.
struct Shown {
    filled: i64,
    cost: i64,
    fee: i64,
}

/// Reads quantities; empty texts are absent ones (section 10).
fn shown(
    desk: &Desk,
    position: usize,
    [filled, value, fee]: [Option<Value<'_>>; 3],
) -> Option<Shown> {
    let listing = &desk.listings[position];
    let number = |value: Option<Value<'_>>, read: &dyn Fn(Value<'_>) -> Option<i64>| match value {
        Some(value) if !value.is("") => read(value),
        _ => Some(0),
    };
    Some(Shown {
        filled: number(filled, &|v| v.quanta(listing.qty_exponent))?,
        cost: number(value, &|v| v.quanta_up(listing.quote_exponent))?,
        fee: number(fee, &|v| v.quanta_up(listing.quote_exponent))?,
    })
}

/// The end that a status means.
fn end_of(status: &[u8], tif: Tif) -> Option<DoneStatus> {
    match status {
        b"FILLED" => Some(DoneStatus::Filled),
        // What is left of an IOC is called cancelled here.
        b"CANCELLED" if matches!(tif, Tif::Ioc | Tif::Fok) => Some(DoneStatus::Expired),
        b"CANCELLED" => Some(DoneStatus::Cancelled),
        b"EXPIRED" => Some(DoneStatus::Expired),
        b"FAILED" => Some(DoneStatus::Cancelled),
        _ => None,
    }
}

/// What both kinds of showing lead to.
fn apply(
    desk: &mut Desk,
    slot: usize,
    position: usize,
    (id, by_stream): (u128, bool),
    shown: &Shown,
    (status, reason): (&[u8], Option<Value<'_>>),
) {
    let quote = desk.listings[position].quote;
    let tif = desk.orders.get(slot).tif;
    if status == b"FAILED" && shown.filled == 0 && !desk.orders.get(slot).acked {
        let reason = reason.and_then(Value::text).unwrap_or_default();
        let ((verdict, _), code) = codes::judge(&String::from_utf8_lossy(&reason));
        // A terminal failure is certain, whatever its reason is called.
        let class = match verdict {
            Verdict::Refused(class) => class,
            Verdict::Unknown => RejectClass::Other,
        };
        desk.orders.identify(slot, id);
        desk.orders.get_mut(slot).streamed |= by_stream;
        return desk.rejected(slot, class, code);
    }
    desk.accepted(slot, id, by_stream);
    if desk.orders.get(slot).filled < shown.filled {
        let (qty, cost, fee) = (Qty(shown.filled), Amount(shown.cost), Amount(shown.fee));
        desk.totals(slot, qty, cost, fee, quote);
        desk.behind(slot, qty);
    }
    if let Some(end) = end_of(status, tif) {
        desk.done(slot, end, Qty(shown.filled));
    }
}

/// Reads an order of the user channel.
fn user_order(desk: &mut Desk, order: Value<'_>) {
    let [id, client, product, status, filled, value, fee, reason, other] = order.pick([
        "order_id",
        "client_order_id",
        "product_id",
        "status",
        "cumulative_quantity",
        "filled_value",
        "total_fees",
        "reject_reason",
        "reject_Reason",
    ]);
    let Some(position) = product.and_then(Value::word).and_then(|p| desk.position(p)) else {
        return;
    };
    let Some(id) = id.and_then(Value::word).and_then(wire::parse_id) else { return };
    let named = client.and_then(Value::text).and_then(|client| desk.ours(&client, position));
    let Some(slot) = named.or_else(|| desk.orders.find_venue(id)) else { return };
    let status = status.and_then(Value::text).unwrap_or_default();
    match shown(desk, position, [filled, value, fee]) {
        Some(shown) => {
            apply(desk, slot, position, (id, true), &shown, (&status, reason.or(other)));
        }
        None => desk.stats.malformed += 1,
    }
}

/// Reads an order as REST shows it.
fn rest_order(desk: &mut Desk, slot: usize, order: Value<'_>) {
    let [id, status, filled, value, fee, reason] = order.pick([
        "order_id",
        "status",
        "filled_size",
        "filled_value",
        "total_fees",
        "reject_reason",
    ]);
    let Some(position) = desk.position_of(desk.orders.get(slot).instrument) else { return };
    let Some(id) = id.and_then(Value::word).and_then(wire::parse_id) else { return };
    let status = status.and_then(Value::text).unwrap_or_default();
    match shown(desk, position, [filled, value, fee]) {
        Some(shown) => apply(desk, slot, position, (id, false), &shown, (&status, reason)),
        None => desk.stats.malformed += 1,
    }
}

fn open_order(desk: &mut Desk, order: Value<'_>) {
    let [id, client, product, side, filled, configuration] = order.pick([
        "order_id",
        "client_order_id",
        "product_id",
        "side",
        "filled_size",
        "order_configuration",
    ]);
    let position = product.and_then(Value::word).and_then(|product| desk.position(product));
    let exponents = position.map_or((8, 8), |position| {
        (desk.listings[position].px_exponent, desk.listings[position].qty_exponent)
    });
    let (mut px, mut whole) = (0, 0);
    if let Some(configuration) = configuration {
        configuration.each_member(|_, terms| {
            let [size, limit] = terms.pick(["base_size", "limit_price"]);
            whole = size.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
            px = limit.and_then(|v| v.quanta(exponents.0)).unwrap_or(0);
        });
    }
    let cum = filled.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
    let client = client.and_then(Value::text).unwrap_or_default();
    desk.open_order(&OpenOrder {
        client: &client,
        venue_id: id.and_then(Value::word).and_then(wire::parse_id).unwrap_or(0),
        position,
        px: Px(px),
        left: Qty((whole - cum).max(0)),
        cum: Qty(cum),
        side: i64::from(side.is_some_and(|side| side.is("SELL"))),
    });
}

/// Reads one page of accounts; returns whether everything that is ours could be read.
fn balances(desk: &mut Desk, accounts: Value<'_>, first: bool) -> bool {
    if first {
        desk.balances_begin();
    }
    let mut whole = accounts.count().is_some();
    accounts.each(|account| {
        let [name, free, held] = account.pick(["currency", "available_balance", "hold"]);
        let Some((asset, exponent)) = name.and_then(Value::word).and_then(|n| desk.asset(n)) else {
            return;
        };
        let value = |value: Value<'_>| value.get("value")?.quanta_down(exponent);
        let read = || {
            let held = held.map_or(Some(0), value)?;
            Some((value(free?)?.checked_add(held)?, held))
        };
        match read() {
            Some((total, held)) => desk.balance_read(asset, total, held),
            None => whole = desk.balance_unreadable(asset),
        }
    });
    whole
}

/// Reads fills; returns whether each is of an order that is known, and how many there were.
fn fills(desk: &mut Desk, reply: Value<'_>) -> Option<(bool, usize)> {
    let list = reply.get("fills")?;
    let count = list.count()?;
    // The newest may come first: what became of a fill is read after the fill.
    let clean = fills_of(desk, list, false) & fills_of(desk, list, true);
    Some((clean, count))
}

/// Reads the plain fills of a list, or the others: `trade_type` is FILL, "also REVERSAL, CORRECTION,
/// SYNTHETIC in the schema" (`protocols/coinbase.md` section 7.6), and nothing more is documented of these.
/// A reversal or correction is taken as a word on the fill of the same `entry_id`, or else of the same
/// `trade_id` in the same order.
fn fills_of(desk: &mut Desk, list: Value<'_>, others: bool) -> bool {
    let mut clean = true;
    let mut rows: Vec<(u128, usize, Fill)> = Vec::new();
    list.each(|fill| {
        let [entry, trade, order, time, kind, px, size, fee, product, in_quote] = fill.pick([
            "entry_id",
            "trade_id",
            "order_id",
            "trade_time",
            "trade_type",
            "price",
            "size",
            "commission",
            "product_id",
            "size_in_quote",
        ]);
        let position = product.and_then(Value::word).and_then(|p| desk.position(p));
        let Some(position) = position else { return };
        let word = match kind.and_then(Value::text).as_deref() {
            None | Some(b"FILL") => Some(Word::Fill),
            Some(b"REVERSAL") => Some(Word::Reversal),
            Some(b"CORRECTION") => Some(Word::Correction),
            Some(_) => None,
        };
        if (word != Some(Word::Fill)) != others {
            return;
        }
        let name =
            |text: Option<Value<'_>>| text.and_then(Value::text).map_or(0, |id| fnv1a(&id).max(1));
        let Some(word) = word else {
            // A kind that nobody documented: the books must be looked at.
            desk.strange_bust(name(entry.or(trade)));
            clean = false;
            return;
        };
        let listing = &desk.listings[position];
        let read = || {
            if in_quote.and_then(Value::bool) == Some(true) {
                return None;
            }
            let trade_id = fnv1a(&entry.or(trade)?.text()?).max(1);
            // What is taken back may be told with its sign.
            let size = match word {
                Word::Fill => size?.quanta(listing.qty_exponent)?,
                Word::Reversal | Word::Correction => {
                    let exact = size?.quanta_down(listing.qty_exponent)?;
                    let is_exact = size?.quanta_up(listing.qty_exponent) == Some(exact);
                    exact.checked_abs().filter(|_| is_exact)?
                }
            };
            Some((
                wire::parse_id(order?.word()?)?,
                Fill {
                    px: Px(px?.quanta(listing.px_exponent)?),
                    qty: Qty(size),
                    fee: Amount(fee?.quanta_up(listing.quote_exponent)?),
                    asset: listing.quote,
                    trade_id,
                    alias: name(trade),
                    word,
                    at_ns: time
                        .and_then(Value::word)
                        .and_then(tandem_feeds::stamp::unix_ns)
                        .unwrap_or(0),
                },
            ))
        };
        match read() {
            Some((venue_id, fill)) => {
                clean &= desk.is_attributed(venue_id);
                rows.push((venue_id, position, fill));
            }
            None if word == Word::Fill => {
                desk.unreadable_trade();
                clean = false;
            }
            None => {
                desk.strange_bust(name(entry.or(trade)));
                clean = false;
            }
        }
    });
    // What is said last of a fill counts.
    rows.sort_by_key(|(_, _, fill)| fill.at_ns);
    for (venue_id, position, fill) in rows {
        desk.trade(venue_id, position, fill);
    }
    clean
}
