//! Binance's WebSocket API and user data (`protocols/binance.md` 6, 7).
//!
//! Invariant: each request has one reply with its `id`, and each subscription gets each event of its account once,
//! in the order things happened. Nothing is replayed: who was not subscribed then does not hear of it.

use std::fmt::Write as _;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use super::private::{
    Call, Fail, Params, check_time, free_and_locked, is_signed, look, quote_asked, reason_of,
    side_of, status_of, stp_of, texts, tif_of, type_of, wrong,
};
use super::{Binance, DECIMALS, Pulse, VENUE, stamp, weight};
use crate::exchange::{Ended, Fill, Order, OrderType, Report, Status, What};
use crate::faults::Answer;
use crate::hub::{ConnId, Out};
use crate::market::MS;
use crate::net::Response;
use crate::world::{Ctx, Look};
use crate::ws::Incoming;

/// Subscriptions a connection may have at once.
const SUBSCRIPTIONS_MAX: usize = 1_000;

/// One subscription to an account's events.
#[derive(Clone, Debug)]
struct Subscription {
    id: u32,
    account: usize,
    /// Made under `session.logon`: ends with the session.
    by_session: bool,
}

/// One connection to the WebSocket API.
#[derive(Debug)]
pub(super) struct ApiConn {
    pub pulse: Pulse,
    /// Key of the session, and since when.
    session: Option<(usize, u64)>,
    opened_ns: u64,
    subscriptions: Vec<Subscription>,
    next_subscription: u32,
    limits: bool,
    micro: bool,
}

impl ApiConn {
    pub fn new(pulse: Pulse, opened_ns: u64, limits: bool, micro: bool) -> Self {
        Self {
            pulse,
            session: None,
            opened_ns,
            subscriptions: Vec::new(),
            next_subscription: 0,
            limits,
            micro,
        }
    }
}

/// A request, taken apart.
struct Asked {
    id: Value,
    method: String,
    params: Params,
}

/// Public methods and the REST path that answers them.
fn public_path(method: &str) -> Option<&'static str> {
    Some(match method {
        "ping" => "ping",
        "time" => "time",
        "exchangeInfo" => "exchangeInfo",
        "depth" => "depth",
        "trades.recent" => "trades",
        "ticker.price" => "ticker/price",
        "ticker.book" => "ticker/bookTicker",
        "avgPrice" => "avgPrice",
        "ticker.24hr" => "ticker/24hr",
        _ => return None,
    })
}

fn parse(text: &str, micro: bool) -> Result<Asked, (Value, Fail)> {
    let value: Value = serde_json::from_str(text)
        .map_err(|_| (Value::Null, Fail::new(400, -1135, "Invalid JSON Request")))?;
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    let method = value.get("method").and_then(Value::as_str).unwrap_or("");
    let method = method.strip_prefix("v3/").unwrap_or(method).to_owned();
    let list = texts(value.get("params").unwrap_or(&Value::Null)).ok_or_else(|| {
        let msg = "Invalid 'params' in JSON request; expected an object.";
        (id.clone(), Fail::new(400, -1135, msg))
    })?;
    Ok(Asked { id, method, params: Params { list, micro } })
}

impl Binance {
    /// What a message of a WebSocket API connection is about, if it is a private call.
    pub fn look_ws(&self, ctx: &Ctx<'_>, id: ConnId, text: &str) -> Option<Look> {
        let conn = self.api.get(&id)?;
        let asked = parse(text, false).ok()?;
        let call = Call::of_method(&asked.method)?;
        let key = match asked.params.get("apiKey") {
            Some(text) => ctx.keys.find(VENUE, text)?,
            None => conn.session?.0,
        };
        Some(look(ctx, call, &asked.params, ctx.keys.get(key).account))
    }

    /// The reply a fault wants instead of the right one.
    pub fn wrong_answer(&self, ctx: &Ctx<'_>, text: &str, answer: &Answer) -> String {
        let id = parse(text, false).map_or(Value::Null, |asked| asked.id);
        let mut fail = wrong(answer);
        if matches!(fail.status, 418 | 429) {
            let at = ctx.now / MS;
            fail.data = Some(format!("{{\"serverTime\":{at},\"retryAfter\":{}}}", at + 60_000));
        }
        format!(
            "{{\"id\":{id},\"status\":{},\"error\":{},\"rateLimits\":[]}}",
            fail.status,
            fail.object()
        )
    }

    pub(super) fn api_message(&mut self, ctx: &mut Ctx<'_>, id: ConnId, message: Incoming) {
        let Some(mut conn) = self.api.remove(&id) else { return };
        match message {
            Incoming::Ping(payload) => ctx.hub.control(id, Out::Pong(Bytes::from(payload))),
            Incoming::Pong(payload) => {
                if !conn.pulse.ponged(&payload, ctx.now) && !payload.is_empty() {
                    // This server is strict about a pong's payload (sheet 6.1).
                    ctx.hub.push(id, Out::Close(1008, "Pong timeout".to_owned()));
                }
            }
            Incoming::Text(text) => {
                let body = self.api_request(ctx, id, &mut conn, &text);
                ctx.replies.push((id, Bytes::from(body)));
            }
            Incoming::Binary | Incoming::Close(_) => {}
        }
        self.api.insert(id, conn);
    }

    fn api_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut ApiConn,
        text: &str,
    ) -> String {
        let asked = match parse(text, conn.micro) {
            Ok(asked) => asked,
            Err((id, fail)) => {
                return format!("{{\"id\":{id},\"status\":400,\"error\":{}}}", fail.object());
            }
        };
        let peer = ctx.hub.links.get(&id).map(|l| l.peer);
        let used = peer.map_or(0, |p| self.weight.add(p, 0, ctx.now));
        let limit = u64::from(ctx.cfg.binance.weight_per_min);
        let call = Call::of_method(&asked.method);
        let mut reply_id = asked.id.clone();
        let result = if used >= limit {
            let refused = peer.map(|p| self.refuse(ctx, p));
            let banned = refused.is_some_and(|r| r.status == 418);
            let at = ctx.now / MS;
            let left = self.weight.left_ns(ctx.now) / MS + 1;
            let mut fail = Fail::new(
                if banned { 418 } else { 429 },
                -1003,
                "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.",
            );
            fail.data = Some(format!("{{\"serverTime\":{at},\"retryAfter\":{}}}", at + left));
            if banned {
                ctx.hub.push(id, Out::Close(1008, "banned".to_owned()));
            }
            Err(fail)
        } else if let Some(call) = call {
            self.api_key(ctx, conn, &asked, &mut reply_id)
                .and_then(|key| self.call(ctx, key, call, &asked.params))
        } else if let Some(path) = public_path(&asked.method) {
            self.api_public(ctx, path, &asked.params)
        } else {
            self.api_session(ctx, id, conn, &asked)
        };
        let cost = match (call, public_path(&asked.method)) {
            (Some(call), _) => call.weight(&asked.params, result.is_ok()),
            (None, Some(path)) => weight(path, &asked.params.list),
            (None, None) => 2,
        };
        let used = peer.map_or(0, |p| self.weight.add(p, cost, ctx.now));
        let wanted = asked.params.get("returnRateLimits").map_or(conn.limits, |w| w == "true");
        let limits = if wanted {
            let key = conn.session.map(|(key, _)| key);
            let key = asked.params.get("apiKey").and_then(|k| ctx.keys.find(VENUE, k)).or(key);
            let orders = call.filter(|c| c.is_order()).and(key);
            self.limits_json(ctx, orders.map(|k| ctx.keys.get(k).account), used)
        } else {
            String::new()
        };
        match result {
            Ok(body) => format!("{{\"id\":{reply_id},\"status\":200,\"result\":{body}{limits}}}"),
            Err(fail) => format!(
                "{{\"id\":{reply_id},\"status\":{},\"error\":{}{limits}}}",
                fail.status,
                fail.object()
            ),
        }
    }

    fn limits_json(&mut self, ctx: &Ctx<'_>, account: Option<usize>, used: u64) -> String {
        let cfg = &ctx.cfg.binance;
        let mut out = ",\"rateLimits\":[".to_owned();
        if let Some(account) = account {
            let [ten, day] = self.order_counts(ctx, account);
            let _ = write!(
                out,
                "{{\"rateLimitType\":\"ORDERS\",\"interval\":\"SECOND\",\"intervalNum\":10,\"limit\":{},\"count\":{ten}}},\
                 {{\"rateLimitType\":\"ORDERS\",\"interval\":\"DAY\",\"intervalNum\":1,\"limit\":{},\"count\":{day}}},",
                cfg.orders_per_10s, cfg.orders_per_day
            );
        }
        let _ = write!(
            out,
            "{{\"rateLimitType\":\"REQUEST_WEIGHT\",\"interval\":\"MINUTE\",\"intervalNum\":1,\"limit\":{},\"count\":{used}}}]",
            cfg.weight_per_min
        );
        out
    }

    fn api_public(
        &mut self,
        ctx: &mut Ctx<'_>,
        path: &str,
        params: &Params,
    ) -> Result<String, Fail> {
        let own = ["returnRateLimits", "apiKey", "signature", "timestamp", "recvWindow"];
        let list: Vec<(String, String)> =
            params.list.iter().filter(|(n, _)| !own.contains(&n.as_str())).cloned().collect();
        let Response { status, body, .. } = self.answer_rest(ctx, path, &list);
        let body = String::from_utf8_lossy(&body).into_owned();
        if status == 200 {
            return Ok(body);
        }
        let value: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let code = value.get("code").and_then(Value::as_i64).unwrap_or(-1000);
        let msg = value.get("msg").and_then(Value::as_str).unwrap_or("").to_owned();
        Err(Fail::new(status, code, &msg))
    }

    /// The key a request is signed with, or that of the session.
    fn api_key(
        &self,
        ctx: &Ctx<'_>,
        conn: &ApiConn,
        asked: &Asked,
        reply_id: &mut Value,
    ) -> Result<usize, Fail> {
        let params = &asked.params;
        let Some(text) = params.get("apiKey") else {
            let Some((key, _)) = conn.session else { return Err(Fail::missing("apiKey")) };
            if ctx.keys.get(key).revoked {
                // A revoked session key is told without the request's id (sheet 6.2).
                *reply_id = Value::Null;
                return Err(Fail::key());
            }
            check_time(ctx, params)?;
            return Ok(key);
        };
        self.prove(ctx, text, params)
    }

    /// Checks a request's own key and signature.
    fn prove(&self, ctx: &Ctx<'_>, text: &str, params: &Params) -> Result<usize, Fail> {
        let key = ctx.keys.find(VENUE, text).ok_or_else(Fail::key)?;
        if ctx.keys.get(key).revoked {
            return Err(Fail::key());
        }
        let signature = params.get("signature").ok_or_else(|| Fail::missing("signature"))?;
        let mut list: Vec<&(String, String)> =
            params.list.iter().filter(|(n, _)| n != "signature").collect();
        list.sort();
        let joined = |encode: &dyn Fn(&str) -> String| {
            let pairs: Vec<String> =
                list.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect();
            pairs.join("&")
        };
        let proof = &ctx.keys.get(key).proof;
        // The documents sign raw text; the official Python SDK signs it percent-encoded (sheet 14.2).
        let raw = joined(&str::to_owned);
        let encoded = joined(&crate::net::percent_encode);
        let good = is_signed(proof, raw.as_bytes(), signature)
            || is_signed(proof, encoded.as_bytes(), signature);
        if !good {
            return Err(Fail::new(400, -1022, "Signature for this request is not valid."));
        }
        check_time(ctx, params)?;
        Ok(key)
    }

    fn api_session(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut ApiConn,
        asked: &Asked,
    ) -> Result<String, Fail> {
        match asked.method.as_str() {
            "session.logon" => {
                let text = asked.params.get("apiKey").ok_or_else(|| Fail::missing("apiKey"))?;
                let key = self.prove(ctx, text, &asked.params)?;
                if matches!(ctx.keys.get(key).proof, crate::keys::Proof::Hmac(_)) {
                    let msg = "HMAC_SHA256 API key is not supported.";
                    return Err(Fail::new(400, -4056, msg));
                }
                conn.session = Some((key, ctx.now));
                Ok(session_json(ctx, conn))
            }
            "session.status" => Ok(session_json(ctx, conn)),
            "session.logout" => {
                conn.session = None;
                end(ctx, id, conn, |s| s.by_session);
                Ok(session_json(ctx, conn))
            }
            "session.subscriptions" => {
                let ids: Vec<String> = conn
                    .subscriptions
                    .iter()
                    .map(|s| format!("{{\"subscriptionId\":{}}}", s.id))
                    .collect();
                Ok(format!("[{}]", ids.join(",")))
            }
            "userDataStream.subscribe" => {
                let Some((key, _)) = conn.session else { return Err(Fail::missing("apiKey")) };
                subscribe(ctx, id, conn, key, true)
            }
            "userDataStream.subscribe.signature" => {
                let key = match (asked.params.get("apiKey"), conn.session) {
                    (Some(text), _) => self.prove(ctx, text, &asked.params)?,
                    (None, Some((key, _))) => key,
                    (None, None) => return Err(Fail::missing("apiKey")),
                };
                subscribe(ctx, id, conn, key, false)
            }
            "userDataStream.unsubscribe" => {
                let wanted = asked.params.get("subscriptionId").and_then(|s| s.parse::<u32>().ok());
                let matches = |s: &Subscription| wanted.is_none_or(|w| w == s.id);
                if !conn.subscriptions.iter().any(matches) {
                    return Err(Fail::new(400, -2036, "No active user data stream subscription."));
                }
                end(ctx, id, conn, matches);
                Ok("{}".to_owned())
            }
            _ => Err(Fail::new(400, -1130, "Data sent for parameter 'method' is not valid.")),
        }
    }

    /// Ends all sessions and their subscriptions, as a venue's restart of its session service would.
    pub fn expire_sessions(&mut self, ctx: &mut Ctx<'_>) {
        for (id, conn) in &mut self.api {
            conn.session = None;
            end(ctx, *id, conn, |_| true);
        }
    }

    /// Tells an account's subscribers what happened.
    pub fn on_report(&mut self, ctx: &mut Ctx<'_>, report: &Report) {
        if let What::Trade(order, fill) = &report.what
            && order.fill_count == 1
        {
            self.earn_count(report.account, fill.maker);
        }
        let wanted =
            |conn: &ApiConn| conn.subscriptions.iter().any(|s| s.account == report.account);
        if !self.api.values().any(&wanted) {
            return;
        }
        let execution = self.execution_id();
        for (id, conn) in self.api.iter().filter(|(_, c)| wanted(c)) {
            let names = &self.cancel_ids;
            let event =
                event_json(ctx, report, execution, conn.micro, |order| names.get(&order).cloned());
            let Some((symbol, event)) = event else { continue };
            for one in conn.subscriptions.iter().filter(|s| s.account == report.account) {
                let body = format!("{{\"subscriptionId\":{},\"event\":{event}}}", one.id);
                ctx.hub.send_user(*id, &symbol, Bytes::from(body));
            }
        }
    }

    /// Announces a planned end to WebSocket API connections.
    pub(super) fn api_shutdown(&self, ctx: &mut Ctx<'_>, only: Option<ConnId>) {
        let at = ctx.hub.venue_now(VENUE);
        for (id, conn) in self.api.iter().filter(|(id, _)| only.is_none_or(|o| o == **id)) {
            let body = format!(
                "{{\"event\":{{\"e\":\"serverShutdown\",\"E\":{}}}}}",
                stamp(at, conn.micro)
            );
            ctx.hub.send(*id, crate::faults::Class::Reply, "", Bytes::from(body));
        }
    }
}

fn session_json(ctx: &Ctx<'_>, conn: &ApiConn) -> String {
    let (key, since) = match conn.session {
        None => ("null".to_owned(), "null".to_owned()),
        Some((key, since)) => {
            let text = format!("\"{}\"", ctx.keys.get(key).text);
            (text, stamp(since, conn.micro).to_string())
        }
    };
    format!(
        "{{\"apiKey\":{key},\"authorizedSince\":{since},\"connectedSince\":{},\"returnRateLimits\":{},\
         \"serverTime\":{},\"userDataStream\":{}}}",
        stamp(conn.opened_ns, conn.micro),
        conn.limits,
        stamp(ctx.hub.venue_now(VENUE), conn.micro),
        conn.subscriptions.iter().any(|s| s.by_session)
    )
}

fn subscribe(
    ctx: &mut Ctx<'_>,
    id: ConnId,
    conn: &mut ApiConn,
    key: usize,
    by_session: bool,
) -> Result<String, Fail> {
    let account = ctx.keys.get(key).account;
    if conn.subscriptions.iter().any(|s| s.account == account) {
        return Err(Fail::new(400, -2035, "User data stream subscription is already active."));
    }
    if conn.subscriptions.len() >= SUBSCRIPTIONS_MAX {
        return Err(Fail::new(400, -2042, "Subscription limit reached."));
    }
    let one = conn.next_subscription;
    conn.next_subscription += 1;
    conn.subscriptions.push(Subscription { id: one, account, by_session });
    if let Some(link) = ctx.hub.links.get_mut(&id) {
        link.account = Some(ctx.desk.accounts()[account].name.clone());
    }
    Ok(format!("{{\"subscriptionId\":{one}}}"))
}

/// Ends subscriptions and says so on each.
fn end(ctx: &mut Ctx<'_>, id: ConnId, conn: &mut ApiConn, which: impl Fn(&Subscription) -> bool) {
    let at = stamp(ctx.hub.venue_now(VENUE), conn.micro);
    for one in conn.subscriptions.iter().filter(|s| which(s)) {
        let body = format!(
            "{{\"subscriptionId\":{},\"event\":{{\"e\":\"eventStreamTerminated\",\"E\":{at}}}}}",
            one.id
        );
        ctx.hub.send_user(id, "", Bytes::from(body));
    }
    conn.subscriptions.retain(|s| !which(s));
}

/// One event with its symbol; `None` for what Binance does not tell.
fn event_json(
    ctx: &Ctx<'_>,
    report: &Report,
    execution: u64,
    micro: bool,
    cancel_id: impl Fn(usize) -> Option<String>,
) -> Option<(String, String)> {
    let at = stamp(ctx.hub.venue_now(VENUE), micro);
    let told = stamp(report.at_ns, micro);
    match &report.what {
        What::Balances(assets) => {
            let mut names: Vec<&String> = assets.iter().collect();
            names.sort();
            names.dedup();
            let rows: Vec<String> = names
                .into_iter()
                .map(|asset| {
                    let (free, locked) = free_and_locked(ctx, report.account, asset);
                    format!("{{\"a\":\"{asset}\",\"f\":\"{free}\",\"l\":\"{locked}\"}}")
                })
                .collect();
            Some((
                String::new(),
                format!(
                    "{{\"e\":\"outboundAccountPosition\",\"E\":{at},\"u\":{told},\"B\":[{}]}}",
                    rows.join(",")
                ),
            ))
        }
        What::External(asset, amount) => Some((
            String::new(),
            format!(
                "{{\"e\":\"balanceUpdate\",\"E\":{at},\"a\":\"{asset}\",\"d\":\"{}\",\"T\":{told}}}",
                amount.fixed(DECIMALS)
            ),
        )),
        What::New(order) => {
            let one = Execution { kind: "NEW", status: "NEW", ..Execution::of(order) };
            Some(one.json(ctx, at, told, execution, micro))
        }
        What::Trade(order, fill) => {
            let status = status_of(order);
            let one = Execution { kind: "TRADE", status, fill: Some(fill), ..Execution::of(order) };
            Some(one.json(ctx, at, told, execution, micro))
        }
        What::Amended(order) => {
            let one = Execution {
                kind: "REPLACED",
                original: order.ask.client_id.clone(),
                ..Execution::of(order)
            };
            Some(one.json(ctx, at, told, execution, micro))
        }
        What::Prevented(order, lots) => {
            let one = Execution {
                kind: "TRADE_PREVENTION",
                prevented: Some(*lots),
                ..Execution::of(order)
            };
            Some(one.json(ctx, at, told, execution, micro))
        }
        What::Ended(order, why) => {
            let canceled = order.status == Status::Canceled;
            let mut one = Execution {
                kind: if canceled { "CANCELED" } else { "EXPIRED" },
                ..Execution::of(order)
            };
            if order.status == Status::Prevented {
                one.kind = "EXPIRED";
            }
            if canceled && *why != Ended::Venue {
                one.original.clone_from(&order.ask.client_id);
                one.name = cancel_id(order.id).unwrap_or_else(|| order.ask.client_id.clone());
            }
            Some(one.json(ctx, at, told, execution, micro))
        }
    }
}

/// One execution report in the making.
struct Execution<'a> {
    order: &'a Order,
    fill: Option<&'a Fill>,
    kind: &'static str,
    status: &'static str,
    /// `c`: the order's id, or the cancel's.
    name: String,
    /// `C`: the order's id when `c` is another.
    original: String,
    prevented: Option<i64>,
}

impl<'a> Execution<'a> {
    fn of(order: &'a Order) -> Self {
        Self {
            order,
            fill: None,
            kind: "NEW",
            status: status_of(order),
            name: order.ask.client_id.clone(),
            original: String::new(),
            prevented: None,
        }
    }

    fn json(
        &self,
        ctx: &Ctx<'_>,
        at: u64,
        told: u64,
        execution: u64,
        micro: bool,
    ) -> (String, String) {
        let order = self.order;
        let spec = &ctx.market.instruments()[order.ask.inst].spec;
        let lots = |n: i64| spec.lot.fixed(n, DECIMALS);
        let zero = "0.00000000".to_owned();
        let (last, last_px, last_cost, fee, asset, trade, maker) = match self.fill {
            None => {
                (zero.clone(), zero.clone(), zero, "0".to_owned(), "null".to_owned(), -1, false)
            }
            Some(fill) => (
                lots(fill.lots),
                spec.tick.fixed(fill.px, DECIMALS),
                fill.cost.fixed(DECIMALS),
                fill.fee.fixed(DECIMALS),
                format!("\"{}\"", fill.fee_asset),
                i64::try_from(fill.trade_id).unwrap_or(-1),
                fill.maker,
            ),
        };
        let created = stamp(order.accepted_ns, micro);
        let on_book = !order.status.is_done() && order.ask.kind != OrderType::Market;
        let mut out = format!(
            "{{\"e\":\"executionReport\",\"E\":{at},\"s\":\"{}\",\"c\":\"{}\",\"S\":\"{}\",\"o\":\"{}\",\
             \"f\":\"{}\",\"q\":\"{}\",\"p\":\"{}\",\"P\":\"0.00000000\",\"F\":\"0.00000000\",\"g\":-1,\
             \"C\":\"{}\",\"x\":\"{}\",\"X\":\"{}\",\"r\":\"NONE\",\"i\":{},\"l\":\"{last}\",\"z\":\"{}\",\
             \"L\":\"{last_px}\",\"n\":\"{fee}\",\"N\":{asset},\"T\":{told},\"t\":{trade},\"I\":{execution},\
             \"w\":{on_book},\"m\":{maker},\"M\":{},\"O\":{created},\"Z\":\"{}\",\"Y\":\"{last_cost}\",\"Q\":\"{}\",\
             \"W\":{created},\"V\":\"{}\"",
            spec.symbol,
            self.name,
            side_of(order.ask.side),
            type_of(order),
            tif_of(order),
            lots(order.lots),
            spec.tick.fixed(order.ask.px.unwrap_or(0), DECIMALS),
            self.original,
            self.kind,
            self.status,
            order.ext,
            lots(order.filled),
            self.fill.is_some(),
            order.cost.fixed(DECIMALS),
            quote_asked(order),
            stp_of(order),
        );
        if let Some(last) = self.prevented {
            let _ = write!(
                out,
                ",\"v\":{execution},\"A\":\"{}\",\"B\":\"{}\",\"u\":1,\"U\":{}",
                lots(order.prevented),
                lots(last),
                order.ext
            );
        }
        if let (true, Some(reason)) = (self.kind == "EXPIRED", reason_of(order)) {
            let _ = write!(out, ",\"eR\":\"{reason}\"");
        }
        out.push('}');
        (spec.symbol.clone(), out)
    }
}
