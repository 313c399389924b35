//! Kraken's order entry over the authenticated WebSocket v2.
//!
//! A token from REST opens one connection for orders, cancels, executions and balances; REST answers what
//! the stream cannot (orders that ended, trades, holds, fees) over a single connection, because nonces must
//! arrive in order. The dead-man switch is armed before the first order and put off only while the host
//! says that all is well (`protocols/kraken.md` sections 5 to 9).
//!
//! Invariants: a reply is matched by its `req_id` and no other way; every message of a channel is one more
//! than the last, or the connection is made anew. An update may hold almost nothing: what it lacks is known
//! from before or asked for. A token is fetched for every connection, never for an order.
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
use crate::machine::{Action, Audit, Dialect, QUERY_LANE, Spelled};
use crate::orders::Name;
use crate::text::Text;
use sign::{Nonces, Signer};
use tandem_feeds::json::Type;

const SECOND: i64 = 1_000_000_000;

/// Trades or ended orders of one page.
const PAGE: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing until `token_at_ns`.
    Resting,
    /// Asking for a token.
    Token,
    Dialing,
    Subscribing,
    Ready,
}

/// Channels with a sequence of their own.
const EXECUTIONS: usize = 0;
const BALANCES: usize = 1;

/// Kraken.
#[derive(Debug)]
pub struct Kraken {
    signer: Signer,
    nonces: Nonces,
    text: Text,
    stage: Stage,
    token: String,
    token_at_ns: i64,
    conn: u32,
    opened_ns: i64,
    backoff: Backoff,
    subscribed: [bool; 2],
    sequences: [Option<u64>; 2],
    /// Messages that came before all subscriptions were acknowledged.
    early: Vec<Vec<u8>>,
    deadman_at_ns: i64,
}

/// Why Kraken's order entry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file of its nonces.
    #[error("nonce file: {0}")]
    Nonces(#[from] std::io::Error),
}

impl Kraken {
    /// Returns the venue with its key, whose nonces are this process's from here on.
    pub fn new(credentials: &Credentials, desk: &Desk, unix_ns: i64) -> Result<Kraken, StartError> {
        let signer = Signer::new(credentials)?;
        let Credentials::Kraken { nonce_file, .. } = credentials else {
            return Err(KeyError::Venue { venue: "kraken" }.into());
        };
        Ok(Kraken {
            signer,
            nonces: Nonces::open(nonce_file, unix_ns)?,
            text: Text::default(),
            stage: Stage::Resting,
            token: String::new(),
            token_at_ns: 0,
            conn: 0,
            opened_ns: 0,
            // 150 connections in 10 minutes are let in by the edge: at most one in five seconds after
            // the first few.
            backoff: Backoff::new(SECOND / 2, 30 * SECOND, 60 * SECOND, desk.config.seed),
            subscribed: [false; 2],
            sequences: [None; 2],
            early: Vec::new(),
            deadman_at_ns: 0,
        })
    }

    /// Sends a private REST request.
    fn post(&mut self, desk: &mut Desk, ask: Ask, method: &str, params: &str, now_ns: i64) -> bool {
        let nonce = match self.nonces.take() {
            Ok(nonce) => nonce.to_string(),
            Err(err) => {
                tracing::error!(%err, "kraken nonce file");
                return false;
            }
        };
        let path = format!("/0/private/{method}");
        let separator = if params.is_empty() { "" } else { "&" };
        let body = format!("nonce={nonce}{separator}{params}");
        let signature = self.signer.sign(&path, &nonce, &body);
        let host = &desk.config.rest_host;
        let bytes = wire::post(host, &path, &body, self.signer.api_key(), &signature);
        desk.http(QUERY_LANE, ask, bytes, now_ns);
        true
    }

    fn ask_token(&mut self, desk: &mut Desk, now_ns: i64) {
        if desk.budgets.query(1, now_ns)
            && self.post(desk, Ask::Logon, "GetWebSocketsToken", "", now_ns)
        {
            self.stage = Stage::Token;
        } else {
            (self.stage, self.token_at_ns) = (Stage::Resting, now_ns + SECOND / 4);
        }
    }

    fn again(&mut self, desk: &Desk, lasted_ns: i64, now_ns: i64) {
        let wait_ns = self.backoff.next_ns(lasted_ns);
        self.stage = Stage::Resting;
        self.token_at_ns = (now_ns + wait_ns).max(desk.suspended_until());
    }

    fn consequence(&mut self, desk: &mut Desk, text: &str, code: i64, effect: Effect, now_ns: i64) {
        match effect {
            Effect::None => {}
            Effect::Wait => {
                let until_ns = codes::throttled_until(text);
                desk.suspend(until_ns.unwrap_or(now_ns + desk.config.suspend_ns), code);
            }
            Effect::Ban => desk.banned(now_ns + desk.config.suspend_ns, code),
            Effect::Key => desk.refuse(code),
        }
    }

    /// A request was refused with this text.
    fn failed(&mut self, desk: &mut Desk, asked: Asked, text: &str, now_ns: i64) {
        let ((verdict, effect), code) = codes::judge(text);
        self.consequence(desk, text, code, effect, now_ns);
        if text.starts_with("EAPI:Invalid nonce") {
            self.nonces.leap(now_ns);
        }
        if text.starts_with("ESession:Invalid session") {
            // The token died: nothing else over this connection will work (XChange PR #3697).
            self.renew(desk, now_ns);
        }
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
            (Ask::Query(name) | Ask::QueryEnded(name), Verdict::Refused(RejectClass::NoOrder)) => {
                self.none(desk, asked, name, now_ns);
            }
            (Ask::Identify(id), Verdict::Refused(RejectClass::NoOrder)) => {
                desk.identified(id, None)
            }
            (Ask::Logon, _) => self.again(desk, 0, now_ns),
            (Ask::Subscribe, _) => desk.act(Action::Close { conn: self.conn, reset: false }),
            (Ask::DeadMan, _) => self.deadman_at_ns = now_ns + SECOND,
            _ => desk.unanswered(asked, UnknownCause::Venue),
        }
    }

    /// A query found nothing: among the open ones, so the ended ones are asked for; or among both.
    fn none(&mut self, desk: &mut Desk, asked: Asked, name: Name, now_ns: i64) {
        let Some(slot) = desk.orders.find(name) else { return };
        if matches!(asked.ask, Ask::Query(_)) && desk.orders.get(slot).venue_id == 0 {
            let client = desk.orders.get(slot).client;
            let params = format!("cl_ord_id={}", client.as_str());
            self.post(desk, Ask::QueryEnded(name), "ClosedOrders", &params, now_ns);
        } else {
            desk.not_found(slot, asked.sent_ns);
        }
    }

    /// A REST request has its result.
    fn result(&mut self, desk: &mut Desk, asked: Asked, result: Value<'_>, now_ns: i64) {
        match asked.ask {
            Ask::Logon => {
                let token = result.get("token").and_then(Value::word);
                // Letters that would end a string have no business in a token.
                let token = token.and_then(|t| std::str::from_utf8(t).ok());
                match token.filter(|token| !token.is_empty()) {
                    Some(token) => {
                        token.clone_into(&mut self.token);
                        self.conn = desk.connect(wire::WS_PATH, now_ns);
                        self.stage = Stage::Dialing;
                    }
                    None => self.again(desk, 0, now_ns),
                }
            }
            Ask::Query(name) | Ask::QueryEnded(name) => {
                let Some(slot) = desk.orders.find(name) else { return };
                let entry = desk.orders.get(slot);
                let (client, venue_id) = (entry.client, entry.venue_id);
                let list = result.get("open").or(result.get("closed")).unwrap_or(result);
                let mut found = false;
                list.each_member(|id, order| {
                    let id = wire::parse_id(id).unwrap_or(0);
                    let same = order.get("cl_ord_id").is_some_and(|c| c.is(client.as_str()));
                    if same || id != 0 && id == venue_id {
                        found = true;
                        rest_order(desk, slot, id, order);
                    }
                });
                if found {
                    desk.settled(slot);
                } else {
                    self.none(desk, asked, name, now_ns);
                }
            }
            Ask::OrderTrades(name) => {
                let clean =
                    trades(desk, result).is_some_and(|(clean, count)| clean && count < PAGE);
                if let (true, Some(slot)) = (clean, desk.orders.find(name)) {
                    desk.no_trades(slot, asked.sent_ns);
                }
            }
            Ask::Identify(venue_id) => {
                let mut slot = None;
                result.each_member(|id, order| {
                    if wire::parse_id(id) != Some(venue_id) {
                        return;
                    }
                    let client = order.get("cl_ord_id").and_then(Value::text).unwrap_or_default();
                    let position = desk.stray_position(venue_id);
                    slot = position.and_then(|position| desk.ours(&client, position));
                    if let Some(slot) = slot {
                        rest_order(desk, slot, venue_id, order);
                    }
                });
                desk.identified(venue_id, slot);
            }
            Ask::Audit(audit, part) => self.audit_result(desk, (audit, part), result, now_ns),
            Ask::Cancel(_) | Ask::New(_) | Ask::Subscribe | Ask::Alive | Ask::DeadMan => {}
        }
    }

    fn audit_result(
        &mut self,
        desk: &mut Desk,
        (audit, part): (Audit, usize),
        result: Value<'_>,
        now_ns: i64,
    ) {
        let well = match audit {
            Audit::OpenOrders => {
                let open = result.get("open").filter(|open| open.kind() == Some(Type::Object));
                open.inspect(|open| open.each_member(|id, order| open_order(desk, id, order)));
                open.is_some()
            }
            Audit::Balances => {
                desk.balances_begin();
                let mut whole = result.kind() == Some(Type::Object);
                result.each_member(|name, balance| {
                    let name = std::str::from_utf8(name).ok().and_then(wire::common_asset);
                    let Some((asset, exponent)) = name.and_then(|n| desk.asset(n.as_bytes()))
                    else {
                        return;
                    };
                    let [total, held] = balance.pick(["balance", "hold_trade"]);
                    let read = || {
                        let held = held.map_or(Some(0), |held| held.quanta_up(exponent))?;
                        Some((total?.quanta_down(exponent)?, held))
                    };
                    match read() {
                        Some((total, held)) => desk.balance_read(asset, total, held),
                        None => whole = desk.balance_unreadable(asset),
                    }
                });
                // What cannot be read is not zero: nothing is told, and it is asked again.
                if whole {
                    desk.balances_end();
                }
                whole
            }
            Audit::Trades => match trades(desk, result) {
                Some((_, count)) if count < PAGE => {
                    // The venue counts them too: a last page that ends too early is no whole list.
                    let all = result.get("count").and_then(Value::u64).unwrap_or(0);
                    desk.read_is_of(all, (part * PAGE + count) as u64);
                    true
                }
                Some(_) => {
                    desk.audit_goes_on(audit);
                    let since_s = desk.trades_since_ns(now_ns) / SECOND;
                    let params = format!("start={since_s}&ofs={}", (part + 1) * PAGE);
                    self.post(desk, Ask::Audit(audit, part + 1), "TradesHistory", &params, now_ns)
                }
                None => false,
            },
            Audit::Fees => {
                let [fees, makers] = result.pick(["fees", "fees_maker"]);
                let mut told = 0;
                if let Some(fees) = fees {
                    fees.each_member(|pair, fee| {
                        let Some(position) = position_of(desk, pair) else { return };
                        // Percent: four decimals more are parts per million.
                        let ppm = |fee: Value<'_>| fee.get("fee").and_then(|f| f.quanta_up(4));
                        let name = std::str::from_utf8(pair).unwrap_or_default();
                        let maker = makers.and_then(|m| m.get(name)).and_then(ppm);
                        if let Some(taker) = ppm(fee) {
                            told += 1;
                            desk.fee(position, taker, maker.unwrap_or(taker));
                        }
                    });
                }
                told == desk.listings.len()
            }
        };
        desk.audited(audit, well);
    }

    /// A message of the WebSocket that answers a request.
    fn reply(&mut self, desk: &mut Desk, message: Value<'_>, now_ns: i64) {
        let [req, success, error, result, method] =
            message.pick(["req_id", "success", "error", "result", "method"]);
        if method.is_some_and(|method| method.is("pong")) {
            return;
        }
        let Some(asked) = req.and_then(Value::u64).and_then(|id| desk.answered(id, now_ns)) else {
            return;
        };
        if success.and_then(Value::bool) != Some(true) {
            let text = error.and_then(Value::text).unwrap_or_default();
            return self.failed(desk, asked, &String::from_utf8_lossy(&text), now_ns);
        }
        match asked.ask {
            Ask::New(name) => {
                let id = result.and_then(|r| r.get("order_id")).and_then(Value::word);
                match (desk.orders.find(name), id.and_then(wire::parse_id)) {
                    (Some(slot), Some(id)) => desk.accepted(slot, id, false),
                    _ => desk.unanswered(asked, UnknownCause::Unreadable),
                }
            }
            Ask::Subscribe => {
                let channel = result.and_then(|r| r.get("channel"));
                let is = |name: &str| channel.is_some_and(|channel| channel.is(name));
                self.subscribed[EXECUTIONS] |= is("executions");
                self.subscribed[BALANCES] |= is("balances");
                if self.subscribed == [true; 2] && self.stage == Stage::Subscribing {
                    self.stage = Stage::Ready;
                    desk.streams_open(now_ns);
                    for text in std::mem::take(&mut self.early) {
                        if !desk.hold(asked.conn, &text)
                            && let Some(message) = Value::parse(&text)
                        {
                            self.channel(desk, message, now_ns);
                        }
                    }
                }
            }
            Ask::DeadMan => {
                desk.deadman_ns = asked.sent_ns + desk.config.deadman_ns;
                self.deadman_at_ns = asked.sent_ns + desk.config.deadman_every_ns;
            }
            // A cancel is done when the executions say so.
            _ => {}
        }
    }

    /// A message of a channel with a sequence. Returns whether the sequence went on.
    fn in_sequence(&mut self, message: Value<'_>) -> bool {
        let [channel, sequence] = message.pick(["channel", "sequence"]);
        let which = match channel {
            Some(channel) if channel.is("executions") => EXECUTIONS,
            Some(channel) if channel.is("balances") => BALANCES,
            _ => return true,
        };
        let Some(sequence) = sequence.and_then(Value::u64) else { return true };
        let expected = self.sequences[which].map_or(sequence, |last| last + 1);
        self.sequences[which] = Some(sequence);
        sequence == expected
    }

    fn channel(&mut self, desk: &mut Desk, message: Value<'_>, now_ns: i64) {
        let [channel, data] = message.pick(["channel", "data"]);
        let (Some(channel), Some(data)) = (channel, data) else { return };
        if channel.is("executions") {
            data.each(|item| execution(desk, item));
        } else if channel.is("balances") {
            data.each(|item| {
                let [asset, balance, wallet, kind] =
                    item.pick(["asset", "balance", "wallet_type", "type"]);
                if wallet.is_some_and(|wallet| !wallet.is("spot")) {
                    return;
                }
                if kind.is_some_and(|kind| !kind.is("trade")) {
                    // No execution tells of it: it may be a trade that was taken back.
                    desk.suspect(now_ns);
                }
                let read = || {
                    let (asset, exponent) = desk.asset(asset?.word()?)?;
                    Some((asset, balance?.quanta_down(exponent)?))
                };
                if let Some((asset, total)) = read() {
                    // What is held is in it and not told: as it was last read.
                    let held = desk.held_of(asset).min(total);
                    desk.balance_streamed(asset, total, held);
                }
            });
        }
    }

    fn subscribe(&mut self, desk: &mut Desk, params: &str, now_ns: i64) {
        let id = desk.number();
        let text = wire::request(id, "subscribe", params, &self.token);
        desk.send(self.conn, id, Ask::Subscribe, text, now_ns);
    }
}

impl Dialect for Kraken {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    fn start(&mut self, desk: &mut Desk, now_ns: i64) {
        desk.link = Link::Connecting;
        self.ask_token(desk, now_ns);
    }

    fn on_open(&mut self, desk: &mut Desk, conn: u32, now_ns: i64) {
        if conn != self.conn {
            return;
        }
        (self.stage, self.opened_ns) = (Stage::Subscribing, now_ns);
        (self.subscribed, self.sequences) = ([false; 2], [None; 2]);
        self.early.clear();
        self.subscribe(
            desk,
            "\"channel\":\"executions\",\"snap_orders\":true,\"snap_trades\":false,\"order_status\":true,\"ratecounter\":true,",
            now_ns,
        );
        self.subscribe(desk, "\"channel\":\"balances\",\"snapshot\":true,", now_ns);
        self.deadman_at_ns = 0;
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
        desk.heard(now_ns);
        let [channel, data, flood] = message.pick(["channel", "data", "Error"]);
        if flood.is_some() {
            // `{"Error":"Exceeded msg rate"}`: of no request, and with a capital letter.
            return desk.suspend(now_ns + desk.config.suspend_ns, 0);
        }
        let Some(channel) = channel else { return self.reply(desk, message, now_ns) };
        if channel.is("status") {
            if let Some(system) = data.and_then(Value::first).and_then(|d| d.get("system")) {
                desk.paused = !system.is("online");
            }
            return;
        }
        // Held messages come here again: their sequence was checked when they came.
        let replayed = at.recv_tsc == 0 && at.bytes == 0;
        if !replayed && !self.in_sequence(message) {
            tracing::warn!("kraken: the user stream skipped a message");
            return self.renew(desk, now_ns);
        }
        if self.stage != Stage::Ready {
            self.early.push(text.to_vec());
        } else if !desk.hold(conn, text) {
            self.channel(desk, message, now_ns);
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
        self.opened_ns = 0;
        self.again(desk, lasted_ns, now_ns);
    }

    fn on_reply(&mut self, desk: &mut Desk, request: u32, reply: Reply<'_>, at: Stamps) {
        let now_ns = at.recv_ns;
        let Some(asked) = desk.answered(u64::from(request), now_ns) else { return };
        let Reply::Answer { status, body, .. } = reply else {
            if matches!(asked.ask, Ask::Logon) {
                self.again(desk, 0, now_ns);
            }
            return desk.unanswered(asked, UnknownCause::Disconnect);
        };
        let value = Value::parse(body);
        let [errors, result] = value.map_or([None, None], |value| value.pick(["error", "result"]));
        let mut error = None;
        if let Some(errors) = errors {
            // `W` are warnings.
            errors.each(|text| {
                if let Some(text) = text.text()
                    && text.first() == Some(&b'E')
                {
                    error.get_or_insert(String::from_utf8_lossy(&text).into_owned());
                }
            });
        }
        match (status, error, result) {
            (_, Some(text), _) => self.failed(desk, asked, &text, now_ns),
            (200, None, Some(result)) => self.result(desk, asked, result, now_ns),
            (429, ..) => self.failed(desk, asked, "EGeneral:Too many requests", now_ns),
            // The edge's pages, and whatever is neither error nor result.
            _ => {
                if matches!(asked.ask, Ask::Logon) {
                    self.again(desk, 0, now_ns);
                }
                desk.unanswered(asked, UnknownCause::Venue);
            }
        }
    }

    fn on_timer(&mut self, desk: &mut Desk, now_ns: i64) {
        if self.stage == Stage::Resting && self.token_at_ns <= now_ns {
            self.ask_token(desk, now_ns);
        }
        if 0 < desk.deadman_ns && desk.deadman_ns <= now_ns {
            // It has fired, once; now nothing is armed.
            desk.deadman_ns = -1;
        }
        // The first time it is armed whatever the host says: nothing rests yet, and only an armed one
        // may be put off.
        let armed = 0 < desk.deadman_ns;
        let wanted = (desk.healthy || !armed) && self.deadman_at_ns <= now_ns;
        if self.stage == Stage::Ready && wanted && !desk.is_asked(Ask::DeadMan) {
            let id = desk.number();
            let params = format!("\"timeout\":{},", desk.config.deadman_ns / SECOND);
            let text = wire::request(id, "cancel_all_orders_after", &params, &self.token);
            desk.send(self.conn, id, Ask::DeadMan, text, now_ns);
        }
        let old = self.opened_ns != 0 && desk.config.rotate_ns < now_ns - self.opened_ns;
        if old && self.stage == Stage::Ready && desk.orders.live() == 0 {
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
        if self.stage != Stage::Ready {
            return Err(GuardReason::Session);
        }
        if order.tif == Tif::Fok {
            // The reference lists none (section 6.1).
            return Err(GuardReason::Unsupported);
        }
        // Not shorter than the venue takes: an order may live a little longer than it was wished, and its
        // proof waits for that.
        let (least_ns, most_ns) = wire::DEADLINE_NS;
        let wish_ns = (order.expires_ns - now_ns).min(desk.config.ttl_ns_max);
        let ttl_ns = now_ns + wish_ns.clamp(least_ns + SECOND / 10, most_ns);
        let id = desk.number();
        let listing = &desk.listings[position];
        wire::add_order(&mut self.text, listing, order, (id, ttl_ns, &self.token));
        match self.text.bytes() {
            Some(_) => Ok(Spelled { route: Route::Ws { conn: self.conn }, id, ttl_ns }),
            None => Err(GuardReason::Malformed),
        }
    }

    fn spelled(&self) -> &[u8] {
        self.text.bytes().unwrap_or_default()
    }

    fn cancel(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get(slot);
        let (name, client) = (entry.name, entry.client);
        if matches!(self.stage, Stage::Ready | Stage::Subscribing) {
            let id = desk.number();
            let params = format!("\"cl_ord_id\":[\"{}\"],", client.as_str());
            let text = wire::request(id, "cancel_order", &params, &self.token);
            desk.send(self.conn, id, Ask::Cancel(name), text, now_ns);
            return true;
        }
        let params = format!("cl_ord_id={}", client.as_str());
        self.post(desk, Ask::Cancel(name), "CancelOrder", &params, now_ns)
    }

    fn query(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get(slot);
        let (name, client, venue_id) = (entry.name, entry.client, entry.venue_id);
        if desk.is_asked(Ask::Query(name)) || desk.is_asked(Ask::QueryEnded(name)) {
            return false;
        }
        // By name it takes two: the open ones, then the ended ones.
        if !desk.budgets.query(if venue_id == 0 { 2 } else { 1 }, now_ns) {
            return false;
        }
        match venue_id {
            0 => {
                let params = format!("cl_ord_id={}", client.as_str());
                self.post(desk, Ask::Query(name), "OpenOrders", &params, now_ns)
            }
            id => {
                let params = format!("txid={}", wire::id_text(id));
                self.post(desk, Ask::Query(name), "QueryOrders", &params, now_ns)
            }
        }
    }

    fn order_trades(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool {
        let entry = desk.orders.get(slot);
        let name = entry.name;
        let since_s = (entry.sent_ns / SECOND - 2).max(0);
        if desk.is_asked(Ask::OrderTrades(name)) || !desk.budgets.query(2, now_ns) {
            return false;
        }
        let params = format!("start={since_s}");
        self.post(desk, Ask::OrderTrades(name), "TradesHistory", &params, now_ns)
    }

    fn identify(&mut self, desk: &mut Desk, venue_id: u128, now_ns: i64) -> bool {
        if !desk.budgets.query(1, now_ns) {
            return false;
        }
        let params = format!("txid={}", wire::id_text(venue_id));
        self.post(desk, Ask::Identify(venue_id), "QueryOrders", &params, now_ns)
    }

    fn audit(&mut self, desk: &mut Desk, audit: Audit, now_ns: i64) -> Option<usize> {
        let cost = if audit == Audit::Trades { 2 } else { 1 };
        if !desk.budgets.query(cost, now_ns) {
            return None;
        }
        let (method, params) = match audit {
            Audit::OpenOrders => {
                desk.open_begin();
                ("OpenOrders", String::new())
            }
            Audit::Balances => ("BalanceEx", String::new()),
            Audit::Trades => {
                let since_ns = desk.trades_since_ns(now_ns);
                desk.read_begin(since_ns, now_ns);
                ("TradesHistory", format!("start={}", since_ns / SECOND))
            }
            Audit::Fees => {
                let pairs: Vec<_> =
                    desk.listings.iter().map(|listing| listing.rest_symbol.as_str()).collect();
                ("TradeVolume", format!("pair={}", pairs.join("%2C")))
            }
        };
        self.post(desk, Ask::Audit(audit, 0), method, &params, now_ns).then_some(1)
    }

    fn renew(&mut self, desk: &mut Desk, now_ns: i64) {
        desk.streams_lost();
        match self.stage {
            Stage::Resting | Stage::Token => self.again(desk, 0, now_ns),
            Stage::Dialing | Stage::Subscribing | Stage::Ready => {
                self.stage = Stage::Resting;
                self.token_at_ns = i64::MAX;
                desk.act(Action::Close { conn: self.conn, reset: true });
            }
        }
    }
}

/// Returns the position of a pair as REST names it: internal (`XXBTZUSD`), alternative (`XBTUSD`) or with a
/// slash.
fn position_of(desk: &Desk, pair: &[u8]) -> Option<usize> {
    fn spellings(asset: &str) -> [String; 3] {
        let old = match asset {
            "BTC" => "XBT",
            "DOGE" => "XDG",
            other => other,
        };
        [old.to_owned(), format!("X{old}"), format!("Z{old}")]
    }
    desk.position(pair).or_else(|| {
        let pair = std::str::from_utf8(pair).ok()?;
        desk.listings.iter().position(|listing| {
            let Some((base, quote)) = listing.symbol.split_once('/') else { return false };
            spellings(base).iter().any(|base| {
                let rest = pair.strip_prefix(base.as_str());
                rest.is_some_and(|rest| {
                    let rest = rest.trim_start_matches('/');
                    rest == quote || spellings(quote).iter().any(|quote| rest == quote)
                })
            })
        })
    })
}

/// The end that a status means, with the reason the venue gives.
fn end_of(status: &[u8], reason: Option<Value<'_>>, tif: Tif) -> Option<DoneStatus> {
    let reason = reason.and_then(Value::text).unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason).to_ascii_lowercase();
    match status {
        b"filled" | b"closed" => Some(DoneStatus::Filled),
        b"canceled" if reason.contains("self") || reason.contains("stp") => {
            Some(DoneStatus::SelfTradePrevented)
        }
        // What is left of an IOC is called cancelled here.
        b"canceled" if tif == Tif::Ioc => Some(DoneStatus::Expired),
        b"canceled" => Some(DoneStatus::Cancelled),
        b"expired" => Some(DoneStatus::Expired),
        _ => None,
    }
}

/// Reads an order as REST shows it.
fn rest_order(desk: &mut Desk, slot: usize, id: u128, order: Value<'_>) {
    let entry = desk.orders.get(slot);
    let tif = entry.tif;
    let Some(position) = desk.position_of(entry.instrument) else { return };
    let listing = &desk.listings[position];
    let (qty_exponent, quote, quote_exponent) =
        (listing.qty_exponent, listing.quote, listing.quote_exponent);
    let [status, filled, cost, fee, reason] =
        order.pick(["status", "vol_exec", "cost", "fee", "reason"]);
    let read = || {
        let filled = filled?.quanta(qty_exponent)?;
        let cost = cost.and_then(|v| v.quanta_up(quote_exponent)).unwrap_or(0);
        let fee = fee.and_then(|v| v.quanta_up(quote_exponent)).unwrap_or(0);
        Some((filled, cost, fee, status?.text()?))
    };
    let Some((filled, cost, fee, status)) = read() else {
        desk.stats.malformed += 1;
        return;
    };
    desk.accepted(slot, id, false);
    if desk.orders.get(slot).filled < filled {
        desk.totals(slot, Qty(filled), Amount(cost), Amount(fee), quote);
        desk.behind(slot, Qty(filled));
    }
    if let Some(end) = end_of(&status, reason, tif) {
        desk.done(slot, end, Qty(filled));
    }
}

fn open_order(desk: &mut Desk, id: &[u8], order: Value<'_>) {
    let [client, descr, vol, filled] = order.pick(["cl_ord_id", "descr", "vol", "vol_exec"]);
    let [pair, px, side] = descr.map_or([None; 3], |d| d.pick(["pair", "price", "type"]));
    let position = pair.and_then(Value::word).and_then(|pair| position_of(desk, pair));
    let exponents = position.map_or((8, 8), |position| {
        (desk.listings[position].px_exponent, desk.listings[position].qty_exponent)
    });
    let cum = filled.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
    let whole = vol.and_then(|v| v.quanta(exponents.1)).unwrap_or(0);
    let client = client.and_then(Value::text).unwrap_or_default();
    desk.open_order(&OpenOrder {
        client: &client,
        venue_id: wire::parse_id(id).unwrap_or(0),
        position,
        px: Px(px.and_then(|v| v.quanta(exponents.0)).unwrap_or(0)),
        left: Qty((whole - cum).max(0)),
        cum: Qty(cum),
        side: i64::from(side.is_some_and(|side| side.is("sell"))),
    });
}

/// Reads a page of trades; returns whether each is of an order that is known, and how many there were.
fn trades(desk: &mut Desk, result: Value<'_>) -> Option<(bool, usize)> {
    let list = result.get("trades")?;
    let (mut clean, mut count) = (true, 0);
    list.each_member(|name, trade| {
        count += 1;
        let [order, pair, time, px, fee, qty, id] =
            trade.pick(["ordertxid", "pair", "time", "price", "fee", "vol", "trade_id"]);
        let read = || {
            let position = position_of(desk, pair?.word()?)?;
            let listing = &desk.listings[position];
            let fill = Fill {
                px: Px(px?.quanta(listing.px_exponent)?),
                qty: Qty(qty?.quanta(listing.qty_exponent)?),
                fee: Amount(fee?.quanta_up(listing.quote_exponent)?),
                asset: listing.quote,
                trade_id: trade_id(id, Some(name)),
                alias: 0,
                at_ns: time?.quanta_down(9)?,
                word: Word::Fill,
            };
            Some((wire::parse_id(order?.word()?)?, position, fill))
        };
        match read() {
            Some((venue_id, position, fill)) => {
                clean &= desk.is_attributed(venue_id);
                desk.trade(venue_id, position, fill);
            }
            // Of a pair that is none of ours, most likely. Of an order of ours it is a pair in a spelling that
            // we do not know: what is not read is not gone.
            None if pair.and_then(Value::word).is_some_and(|p| position_of(desk, p).is_none()) => {
                let id = order.and_then(Value::word).and_then(wire::parse_id);
                if id.is_some_and(|id| desk.orders.find_venue(id).is_some()) {
                    desk.unreadable_trade();
                    clean = false;
                }
            }
            None => {
                desk.unreadable_trade();
                clean = false;
            }
        }
    });
    Some((clean, count))
}

/// The number of a trade within its book; where there is none, a hash of its id.
fn trade_id(number: Option<Value<'_>>, text: Option<&[u8]>) -> u64 {
    match number.and_then(Value::u64) {
        Some(number) if number != 0 => number,
        _ => fnv1a(text.unwrap_or_default()).max(1),
    }
}

/// Reads one item of the executions.
fn execution(desk: &mut Desk, item: Value<'_>) {
    let [order, client, kind, status, symbol, cum, reason] = item.pick([
        "order_id",
        "cl_ord_id",
        "exec_type",
        "order_status",
        "symbol",
        "cum_qty",
        "reason",
    ]);
    let id = order.and_then(Value::word).and_then(wire::parse_id).unwrap_or(0);
    let position = symbol.and_then(Value::word).and_then(|symbol| desk.position(symbol));
    // A sparse update has no client id: the order is known by the venue's.
    let named = client
        .and_then(Value::text)
        .and_then(|client| desk.ours(&client, position.unwrap_or(usize::MAX)));
    let Some(slot) = named.or_else(|| desk.orders.find_venue(id)) else { return };
    let Some(position) = desk.position_of(desk.orders.get(slot).instrument) else { return };
    let listing = &desk.listings[position];
    let (px_exponent, qty_exponent) = (listing.px_exponent, listing.qty_exponent);
    let quote = listing.quote;
    desk.accepted(slot, id, true);
    if kind.is_some_and(|kind| kind.is("trade")) {
        let [px, qty, fees, number, exec, time] =
            item.pick(["last_price", "last_qty", "fees", "trade_id", "exec_id", "timestamp"]);
        // Usually one; of several the first that is an asset of ours is told with the fill.
        let mut fee = (Amount(0), quote);
        let mut read_fee = false;
        if let Some(fees) = fees {
            fees.each(|part| {
                let [asset, qty] = part.pick(["asset", "qty"]);
                let known = asset.and_then(Value::word).and_then(|name| desk.asset(name));
                let told = match known {
                    Some((idx, exponent)) => {
                        qty.and_then(|q| q.quanta_up(exponent)).map(|q| (q, idx))
                    }
                    None => qty.and_then(|q| q.quanta_up(8)).map(|q| (q, u16::MAX)),
                };
                match told {
                    Some((amount, asset)) if !read_fee || asset == fee.1 => {
                        fee = (Amount(fee.0.0 * i64::from(read_fee) + amount), asset);
                        read_fee = true;
                    }
                    Some(_) => desk.stats.fee_asset_unknown += 1,
                    None => desk.stats.malformed += 1,
                }
            });
        }
        let read = || {
            Some(Fill {
                px: Px(px?.quanta(px_exponent)?),
                qty: Qty(qty?.quanta(qty_exponent)?),
                fee: fee.0,
                asset: fee.1,
                trade_id: trade_id(number, exec.and_then(Value::word)),
                at_ns: time
                    .and_then(Value::word)
                    .map_or(0, |t| tandem_feeds::stamp::unix_ns(t).unwrap_or(0)),
                alias: 0,
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
    let cum = cum.and_then(|cum| cum.quanta(qty_exponent)).unwrap_or(0);
    desk.behind(slot, Qty(cum));
    let tif = desk.orders.get(slot).tif;
    // `trade` carries `partially_filled` even for the last fill; `filled` is a message of its own.
    if let Some(status) = status.and_then(Value::text)
        && let Some(end) = end_of(&status, reason, tif)
    {
        desk.done(slot, end, Qty(cum));
    }
}
