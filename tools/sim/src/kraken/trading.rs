//! Kraken's trading over WebSocket and its private channels (`protocols/kraken.md` 5, 6, 8.2).
//!
//! Invariant: REST and WebSocket share the orders, the matching-engine counter and the dead-man switch. A
//! subscription's `sequence` starts at 1 with its snapshot and has no holes but those a fault makes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rand::Rng;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use super::private::{
    average, dead_man_json, deadline, reason_of, text_of, trade_id, unknown_order, wrong,
};
use super::{Call, Conn, Kraken, VENUE, number};
use crate::amount::Amount;
use crate::book::Side;
use crate::exchange::desk::money_decimals;
use crate::exchange::{
    Ended, Fill, Mode, NewOrder, Order, OrderType, Reject, Report, Size, Status, Stp, Tif, What,
};
use crate::faults::{Answer, Class};
use crate::hub::ConnId;
use crate::observe::Wants;
use crate::units::{rfc3339_us, write_json_string};
use crate::world::{Ctx, Look};

/// An order to add, with the time after which it must not match.
pub(super) struct Add {
    pub order: NewOrder,
    pub deadline_ns: Option<u64>,
}

/// A WebSocket token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub key: usize,
    pub issued_ns: u64,
}

/// One private subscription.
#[derive(Clone, Debug)]
pub(super) struct Private {
    pub account: usize,
    pub sequence: u64,
    /// `ratecounter` of `executions`.
    pub ratecounter: bool,
    /// `order_status` of `executions`.
    pub all_states: bool,
}

pub(super) const METHODS: [&str; 8] = [
    "add_order",
    "amend_order",
    "edit_order",
    "cancel_order",
    "cancel_all",
    "cancel_all_orders_after",
    "batch_add",
    "batch_cancel",
];

/// The venue's text of a refusal.
pub(super) fn engine_error(reject: &Reject) -> String {
    match reject {
        Reject::Tick => "EOrder:Tick size check failed",
        Reject::Lot | Reject::MaxQty => "EGeneral:Invalid arguments:volume",
        Reject::MinQty => "EOrder:Order minimum not met",
        Reject::MinNotional | Reject::MaxNotional => "EOrder:Cost minimum not met",
        Reject::PriceBand => "EOrder:Invalid price",
        Reject::Funds => "EOrder:Insufficient funds",
        Reject::WouldTake => "EOrder:Post only order",
        Reject::DuplicateId => "EGeneral:Invalid arguments:cl_ord_id",
        Reject::UnknownOrder => "EOrder:Unknown order",
        Reject::Closed(Mode::PostOnly) => "EService:Market in post_only mode",
        Reject::Closed(Mode::LimitOnly) => "EService:Market in limit_only mode",
        Reject::Closed(Mode::Maintenance) => "EService:Unavailable",
        Reject::Closed(_) => "EService:Market in cancel_only mode",
        Reject::TooManyOrders => "EOrder:Orders limit exceeded",
        Reject::NoLiquidity => "EGeneral:Invalid arguments:Index unavailable",
        Reject::BadAmend => "EOrder:Not enough leaves qty",
        Reject::Said(text) => text,
    }
    .to_owned()
}

impl Kraken {
    pub(super) fn issue_token(&mut self, ctx: &Ctx<'_>, key: usize) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let text: String =
            (0..44).map(|_| char::from(DIGITS[self.rng.random_range(0..DIGITS.len())])).collect();
        let life = ctx.cfg.kraken.token_s * 1_000_000_000;
        self.tokens.retain(|_, t| ctx.now.saturating_sub(t.issued_ns) < life);
        self.tokens.insert(text.clone(), Token { key, issued_ns: ctx.now });
        text
    }

    /// Ends all tokens and what connections got by them.
    pub fn expire_sessions(&mut self) {
        self.tokens.clear();
        for conn in self.conns.values_mut() {
            conn.tokens.clear();
            conn.executions = None;
            conn.balances = None;
        }
    }

    /// The key of a token that is fresh, or that this connection used while it was.
    pub(super) fn key_of(
        &self,
        ctx: &Ctx<'_>,
        conn: &mut Conn,
        params: &Value,
    ) -> Result<usize, String> {
        let invalid = || "ESession:Invalid session".to_owned();
        let text = params.get("token").and_then(Value::as_str).ok_or_else(invalid)?;
        if let Some(key) = conn.tokens.get(text) {
            return if ctx.keys.get(*key).revoked { Err(invalid()) } else { Ok(*key) };
        }
        let life = ctx.cfg.kraken.token_s * 1_000_000_000;
        let token = self.tokens.get(text).ok_or_else(invalid)?;
        if ctx.now.saturating_sub(token.issued_ns) >= life || ctx.keys.get(token.key).revoked {
            return Err(invalid());
        }
        conn.tokens.insert(text.to_owned(), token.key);
        Ok(token.key)
    }

    /// What a message is about, if it is a private one.
    pub fn look_ws(&self, ctx: &Ctx<'_>, text: &str) -> Option<Look> {
        let value: Value = serde_json::from_str(text).ok()?;
        let method = value.get("method").and_then(Value::as_str)?;
        if !METHODS.contains(&method) {
            return None;
        }
        let params = value.get("params")?;
        let token = params.get("token").and_then(Value::as_str)?;
        let key = self
            .tokens
            .get(token)
            .map(|t| t.key)
            .or_else(|| self.conns.values().find_map(|c| c.tokens.get(token).copied()))?;
        let wants = match method {
            "add_order" | "amend_order" | "edit_order" | "batch_add" => Wants::New,
            _ => Wants::Cancel,
        };
        let text = |name: &str| params.get(name).map(text_of).unwrap_or_default();
        let first = |name: &str| match params.get(name) {
            Some(Value::Array(list)) => list.first().map(text_of).unwrap_or_default(),
            Some(other) => text_of(other),
            None => String::new(),
        };
        let symbol = text("symbol");
        let spec = ctx.market.find(VENUE, &symbol).map(|i| &ctx.market.instruments()[i].spec);
        let worth = spec.and_then(|spec| {
            let px = spec.tick.parse(&text("limit_price"))?;
            let lots = spec.lot.parse(&text("order_qty"))?;
            Some((spec.quote.clone(), Amount::worth(spec.tick, px, spec.lot, lots)))
        });
        let client_id = Some(first("cl_ord_id")).filter(|c| !c.is_empty());
        Some(Look {
            wants: Some(wants),
            account: Some(ctx.keys.get(key).account),
            symbol,
            client_id: client_id.unwrap_or_else(|| first("order_id")),
            worth: worth.filter(|_| wants == Wants::New),
        })
    }

    /// The reply a fault wants instead of the right one.
    pub fn wrong_answer(&self, ctx: &Ctx<'_>, text: &str, answer: &Answer) -> String {
        let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let method = value.get("method").and_then(Value::as_str).unwrap_or("");
        let req_id = value.get("req_id").map_or(String::new(), |id| format!("\"req_id\":{id},"));
        let why = wrong(answer).unwrap_or_else(|_| "EGeneral:Internal error".to_owned());
        let at = rfc3339_us(ctx.hub.venue_now(VENUE));
        let times = format!("\"time_in\":\"{at}\",\"time_out\":\"{at}\"");
        let call = Call { method, req_id: &req_id, times: &times, params: &Value::Null };
        call.refuse(None, &why)
    }

    /// Adds to the matching-engine counter of an account and pair (sheet 8.2).
    fn charge(
        &mut self,
        ctx: &Ctx<'_>,
        account: usize,
        inst: usize,
        cost: f64,
    ) -> Result<(), String> {
        let cfg = &ctx.cfg.kraken;
        let (at, level) = self.engine.entry((account, inst)).or_insert((ctx.now, 0.0));
        #[expect(clippy::cast_precision_loss, reason = "a rate, not money")]
        let lost = ctx.now.saturating_sub(*at) as f64 / 1e9 * cfg.engine_decay;
        (*at, *level) = (ctx.now, (*level - lost).max(0.0));
        if *level + cost > cfg.engine_max {
            return Err("EOrder:Rate limit exceeded".to_owned());
        }
        *level += cost;
        Ok(())
    }

    /// Adds one order, whichever way it came.
    pub(super) fn add(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        add: Add,
    ) -> Result<usize, String> {
        self.charge(ctx, account, add.order.inst, 1.0)?;
        check_deadline(ctx, add.deadline_ns)?;
        let id = ctx.desk.place(ctx.market, ctx.now, account, add.order);
        id.map_err(|r| engine_error(&r))
    }

    /// Orders an id, a client id or a user reference names.
    pub(super) fn find(&self, ctx: &Ctx<'_>, account: usize, text: &str) -> Vec<usize> {
        let one = ctx.desk.by_ext(VENUE, text).or_else(|| ctx.desk.by_client(account, text));
        if let Some(id) = one {
            let order = &ctx.desk.orders()[id];
            let found = order.account == account && ctx.is_visible(id);
            return if found { vec![id] } else { Vec::new() };
        }
        let open = ctx.desk.accounts()[account].open.iter();
        open.copied().filter(|id| ctx.desk.orders()[*id].ask.tag == text).collect()
    }

    /// Cancels one order; a young one costs points, but is never refused for them.
    pub(super) fn cancel(&mut self, ctx: &mut Ctx<'_>, id: usize) -> Result<(), String> {
        let order = &ctx.desk.orders()[id];
        let (account, inst) = (order.account, order.ask.inst);
        let age_s = ctx.now.saturating_sub(order.accepted_ns) / 1_000_000_000;
        let cost = match age_s {
            0..5 => 8.0,
            5..10 => 6.0,
            10..15 => 5.0,
            15..45 => 4.0,
            45..90 => 2.0,
            90..300 => 1.0,
            _ => 0.0,
        };
        let done = match ctx.fate.fill_after_ns {
            Some(after) => ctx.desk.cancel_late(ctx.now, id, ctx.now + after),
            None => ctx.desk.cancel(ctx.market, ctx.now, id, Ended::User),
        };
        done.map_err(|r| engine_error(&r))?;
        if self.charge(ctx, account, inst, cost).is_err() {
            self.engine.insert((account, inst), (ctx.now, ctx.cfg.kraken.engine_max));
        }
        Ok(())
    }

    pub(super) fn cancel_all(&mut self, ctx: &mut Ctx<'_>, account: usize) -> usize {
        let open: Vec<usize> = ctx.desk.accounts()[account].open.iter().copied().collect();
        open.into_iter().filter(|id| self.cancel(ctx, *id).is_ok()).count()
    }

    pub(super) fn dead_man(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        timeout_s: u64,
    ) -> Result<String, String> {
        if timeout_s >= 86_400 {
            return Err("EGeneral:Invalid arguments:timeout".to_owned());
        }
        let trigger = (timeout_s > 0).then(|| ctx.now + timeout_s * 1_000_000_000);
        ctx.desk.account_mut(account).dead_man_ns = trigger;
        Ok(dead_man_json(ctx.now, trigger))
    }

    pub(super) fn amend(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        id: usize,
        lots: i64,
        px: i64,
        until: Option<&str>,
    ) -> Result<String, String> {
        let order = &ctx.desk.orders()[id];
        let inst = order.ask.inst;
        let age_s = ctx.now.saturating_sub(order.accepted_ns) / 1_000_000_000;
        let extra = match age_s {
            0..5 => 3.0,
            5..10 => 2.0,
            10..15 => 1.0,
            _ => 0.0,
        };
        self.charge(ctx, account, inst, 1.0 + extra)?;
        check_deadline(ctx, deadline(until)?)?;
        ctx.desk.amend(ctx.market, ctx.now, id, lots, px).map_err(|r| engine_error(&r))?;
        self.amends += 1;
        Ok(ctx.desk.ext_id(VENUE, 'A', self.amends))
    }

    /// Answers a trading method; one reply, or one an order.
    pub(super) fn trade_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        conn: &mut Conn,
        call: &Call<'_>,
    ) -> Vec<String> {
        let key = match self.key_of(ctx, conn, call.params) {
            Ok(key) if ctx.keys.get(key).permissions.trade => key,
            Ok(_) => return vec![call.refuse(None, "EGeneral:Permission denied")],
            Err(why) => return vec![call.refuse(None, &why)],
        };
        let account = ctx.keys.get(key).account;
        if call.method == "cancel_order" {
            return self.cancel_orders(ctx, account, call);
        }
        let result = match call.method {
            "add_order" => self.add_order(ctx, account, call.params),
            "batch_add" => self.batch_add(ctx, account, call.params),
            "amend_order" => self.amend_order(ctx, account, call.params),
            "edit_order" => self.edit_order(ctx, account, call.params),
            "cancel_all" => Ok(format!("{{\"count\":{}}}", self.cancel_all(ctx, account))),
            "batch_cancel" => {
                let mut count = 0;
                for text in listed(call.params, &["orders", "order_id", "cl_ord_id"]) {
                    for id in self.find(ctx, account, &text) {
                        count += u32::from(self.cancel(ctx, id).is_ok());
                    }
                }
                Ok(format!("{{\"count\":{count}}}"))
            }
            _ => {
                let timeout = call.params.get("timeout").and_then(Value::as_u64);
                timeout
                    .ok_or("EGeneral:Invalid arguments:timeout".to_owned())
                    .and_then(|timeout| self.dead_man(ctx, account, timeout))
            }
        };
        vec![match result {
            Ok(result) => call.accept(&format!("\"result\":{result}")),
            Err(why) => call.refuse(None, &why),
        }]
    }

    fn cancel_orders(&mut self, ctx: &mut Ctx<'_>, account: usize, call: &Call<'_>) -> Vec<String> {
        let mut replies = Vec::new();
        for member in ["order_id", "cl_ord_id", "order_userref"] {
            for text in listed(call.params, &[member]) {
                let ids = self.find(ctx, account, &text);
                let mut done = Vec::new();
                for id in ids {
                    if self.cancel(ctx, id).is_ok() {
                        done.push(id);
                    }
                }
                if done.is_empty() {
                    replies.push(call.refuse(None, &unknown_order()));
                }
                for id in done {
                    let order = &ctx.desk.orders()[id];
                    let mut result = format!("\"result\":{{\"order_id\":\"{}\"", order.ext);
                    if member == "cl_ord_id" {
                        result.push_str(",\"cl_ord_id\":");
                        write_json_string(&order.ask.client_id, &mut result);
                    }
                    result.push('}');
                    replies.push(call.accept(&result));
                }
            }
        }
        if replies.is_empty() {
            replies.push(call.refuse(None, "EGeneral:Invalid arguments:order_id"));
        }
        replies
    }

    fn add_order(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Value,
    ) -> Result<String, String> {
        let add = self.read_order(ctx, params, params)?;
        let (client, userref) = (add.order.client_id.clone(), add.order.tag.clone());
        if params.get("validate").and_then(Value::as_bool) == Some(true) {
            ctx.desk.check(ctx.market, account, &add.order).map_err(|r| engine_error(&r))?;
            return Ok("{}".to_owned());
        }
        let id = self.add(ctx, account, add)?;
        Ok(placed(&ctx.desk.orders()[id].ext, &client, &userref))
    }

    fn batch_add(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Value,
    ) -> Result<String, String> {
        let list = params.get("orders").and_then(Value::as_array).cloned().unwrap_or_default();
        if !(2..=15).contains(&list.len()) {
            return Err("EGeneral:Invalid arguments:orders".to_owned());
        }
        let adds: Result<Vec<Add>, String> =
            list.iter().map(|one| self.read_order(ctx, one, params)).collect();
        // What does not validate refuses the whole batch; the engine's refusals are an order's own.
        let adds = adds?;
        let mut rows = Vec::new();
        for add in adds {
            let (client, userref) = (add.order.client_id.clone(), add.order.tag.clone());
            rows.push(match self.add(ctx, account, add) {
                Ok(id) => placed(&ctx.desk.orders()[id].ext, &client, &userref),
                Err(why) => {
                    let mut row = "{\"cl_ord_id\":".to_owned();
                    write_json_string(&client, &mut row);
                    let _ = write!(row, ",\"success\":false,\"error\":\"{why}\"}}");
                    row
                }
            });
        }
        Ok(format!("[{}]", rows.join(",")))
    }

    fn amend_order(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Value,
    ) -> Result<String, String> {
        let names = listed(params, &["order_id", "cl_ord_id"]);
        let name = names.first().ok_or("EGeneral:Invalid arguments:order_id")?;
        let id = self.find(ctx, account, name).first().copied().ok_or_else(unknown_order)?;
        let order = &ctx.desk.orders()[id];
        let spec = &ctx.market.instruments()[order.ask.inst].spec;
        let lots = match params.get("order_qty").map(text_of) {
            None => order.lots,
            Some(text) => spec.lot.parse(&text).ok_or("EGeneral:Invalid arguments:volume")?,
        };
        let px = match params.get("limit_price").map(text_of) {
            None => order.ask.px.unwrap_or(0),
            Some(text) => spec.tick.parse(&text).ok_or("EOrder:Tick size check failed")?,
        };
        let ext = order.ext.clone();
        let until = params.get("deadline").and_then(Value::as_str);
        let amended = self.amend(ctx, account, id, lots, px, until)?;
        Ok(format!("{{\"amend_id\":\"{amended}\",\"order_id\":\"{ext}\"}}"))
    }

    fn edit_order(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Value,
    ) -> Result<String, String> {
        let names = listed(params, &["order_id"]);
        let name = names.first().ok_or("EGeneral:Invalid arguments:order_id")?;
        let old = self.find(ctx, account, name).first().copied().ok_or_else(unknown_order)?;
        let order = ctx.desk.orders()[old].clone();
        let spec = std::sync::Arc::clone(&ctx.market.instruments()[order.ask.inst].spec);
        let mut new = order.ask.clone();
        new.client_id = String::new();
        new.arrived_ns = ctx.arrived_ns;
        if let Some(text) = params.get("order_qty").map(text_of) {
            let lots = spec.lot.parse(&text).ok_or("EGeneral:Invalid arguments:volume")?;
            if lots <= order.filled {
                return Err(engine_error(&Reject::BadAmend));
            }
            new.size = Size::Base(lots - order.filled);
        }
        if let Some(text) = params.get("limit_price").map(text_of) {
            new.px = Some(spec.tick.parse(&text).ok_or("EOrder:Tick size check failed")?);
        }
        self.cancel(ctx, old)?;
        let id = self.add(ctx, account, Add { order: new, deadline_ns: None })?;
        Ok(format!(
            "{{\"order_id\":\"{}\",\"original_order_id\":\"{}\"}}",
            ctx.desk.orders()[id].ext,
            order.ext
        ))
    }

    /// Reads an order; members that a batch shares are in `shared`.
    fn read_order(&self, ctx: &Ctx<'_>, params: &Value, shared: &Value) -> Result<Add, String> {
        let text = |name: &str| params.get(name).filter(|v| !v.is_null()).map(text_of);
        let symbol = shared.get("symbol").map(text_of).unwrap_or_default();
        let inst = ctx.market.find(VENUE, &symbol);
        let inst = inst.ok_or_else(|| format!("Currency pair not supported {symbol}"))?;
        let spec = &ctx.market.instruments()[inst].spec;
        let side = match text("side").as_deref() {
            Some("buy") => Side::Bid,
            Some("sell") => Side::Ask,
            _ => return Err("EGeneral:Invalid arguments:side".to_owned()),
        };
        let post = params.get("post_only").and_then(Value::as_bool) == Some(true);
        let kind = match text("order_type").as_deref() {
            Some("limit") if post => OrderType::PostOnly,
            Some("limit") => OrderType::Limit,
            Some("market") => OrderType::Market,
            _ => return Err("EGeneral:Invalid arguments:order_type".to_owned()),
        };
        let px = match (kind, text("limit_price")) {
            (OrderType::Market, _) => None,
            (_, None) => return Err("EGeneral:Invalid arguments:limit_price".to_owned()),
            (_, Some(text)) => Some(spec.tick.parse(&text).ok_or("EOrder:Tick size check failed")?),
        };
        let size = match (text("order_qty"), text("cash_order_qty")) {
            (Some(qty), _) => {
                Size::Base(spec.lot.parse(&qty).ok_or("EGeneral:Invalid arguments:volume")?)
            }
            (None, Some(cash)) if kind == OrderType::Market => {
                Size::Quote(Amount::parse(&cash).ok_or("EGeneral:Invalid arguments:volume")?)
            }
            _ => return Err("EGeneral:Invalid arguments:volume".to_owned()),
        };
        let name = text("time_in_force");
        let expires = text("expire_time");
        let tif = self.tif(ctx, kind, name.as_deref(), expires.as_deref())?;
        let stp = match text("stp_type").as_deref() {
            None | Some("cancel_newest") => Stp::Taker,
            Some("cancel_oldest") => Stp::Maker,
            Some("cancel_both") => Stp::Both,
            Some(_) => return Err("EGeneral:Invalid arguments:stp_type".to_owned()),
        };
        let (client_id, tag) = (text("cl_ord_id"), text("order_userref"));
        if client_id.is_some() && tag.is_some() {
            return Err("EGeneral:Invalid arguments:cl_ord_id".to_owned());
        }
        if client_id.as_deref().is_some_and(|id| !is_client_id(id)) {
            return Err("EGeneral:Invalid arguments:cl_ord_id".to_owned());
        }
        let until = shared.get("deadline").or(params.get("deadline")).and_then(Value::as_str);
        Ok(Add {
            order: NewOrder {
                kind,
                px,
                size,
                stp,
                client_id: client_id.unwrap_or_default(),
                fee_in_base: text("fee_preference").as_deref() == Some("base"),
                arrived_ns: ctx.arrived_ns,
                quirks: ctx.fate.quirks.clone(),
                tag: tag.unwrap_or_default(),
                ..NewOrder::limit(inst, side, 0, 0, tif)
            },
            deadline_ns: deadline(until)?,
        })
    }

    /// Subscribes to `executions` or `balances`, or ends that; returns the ack and the snapshot.
    pub(super) fn private_channel(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        call: &Call<'_>,
        channel: &str,
    ) -> Vec<(Class, String, String)> {
        let reply = |body: String| (Class::Reply, String::new(), body);
        if call.method == "unsubscribe" {
            let slot =
                if channel == "executions" { &mut conn.executions } else { &mut conn.balances };
            *slot = None;
            return vec![reply(call.accept(&format!("\"result\":{{\"channel\":\"{channel}\"}}")))];
        }
        let key = match self.key_of(ctx, conn, call.params) {
            Ok(key) => key,
            Err(why) => return vec![reply(call.refuse(None, &why))],
        };
        let account = ctx.keys.get(key).account;
        if let Some(link) = ctx.hub.links.get_mut(&id) {
            link.account = Some(ctx.desk.accounts()[account].name.clone());
        }
        let flag = |names: &[&str], default: bool| {
            names.iter().find_map(|n| call.flag(n)).unwrap_or(default)
        };
        let private = Private {
            account,
            sequence: 1,
            ratecounter: flag(&["ratecounter"], false),
            all_states: flag(&["order_status"], true),
        };
        if channel == "balances" {
            conn.balances = Some(private);
            let rows: Vec<String> = ctx
                .balances(account)
                .iter()
                .map(|(asset, b)| {
                    let total = b.total.fixed(money_decimals(VENUE, asset));
                    format!(
                        "{{\"asset\":\"{asset}\",\"asset_class\":\"currency\",\"balance\":{total},\
                         \"wallets\":[{{\"type\":\"spot\",\"id\":\"main\",\"balance\":{total}}}]}}"
                    )
                })
                .collect();
            let ack = call.accept("\"result\":{\"channel\":\"balances\",\"snapshot\":true}");
            let snapshot = format!(
                "{{\"channel\":\"balances\",\"type\":\"snapshot\",\"data\":[{}],\"sequence\":1}}",
                rows.join(",")
            );
            return vec![reply(ack), (Class::User, String::new(), snapshot)];
        }
        let orders = flag(&["snap_orders", "snapshot"], true);
        let trades = flag(&["snap_trades", "snapshot_trades"], false);
        let mut rows = Vec::new();
        if trades {
            let fills: Vec<Fill> = ctx
                .desk
                .fills()
                .iter()
                .rev()
                .filter(|f| f.account == account && !f.busted)
                .take(50)
                .cloned()
                .collect();
            for fill in fills.iter().rev() {
                rows.push(trade_json(ctx, &ctx.desk.orders()[fill.order], fill, ""));
            }
        }
        if orders {
            let open = ctx.desk.accounts()[account].open.iter();
            for id in open.filter(|id| ctx.is_visible(**id)) {
                rows.push(full_json(ctx, &ctx.desk.orders()[*id], "new", ""));
            }
        }
        let ack = call.accept(&format!(
            "\"result\":{{\"channel\":\"executions\",\"maxratecount\":{},\"snap_orders\":{orders},\
             \"snap_trades\":{trades},\"snapshot\":true}}",
            ctx.cfg.kraken.engine_max
        ));
        let snapshot = format!(
            "{{\"channel\":\"executions\",\"type\":\"snapshot\",\"data\":[{}],\"sequence\":1}}",
            rows.join(",")
        );
        conn.executions = Some(private);
        vec![reply(ack), (Class::User, String::new(), snapshot)]
    }

    /// Tells an account's subscribers what happened.
    pub fn on_report(&mut self, ctx: &mut Ctx<'_>, report: &Report) {
        let ledger = self.ledger_entries(ctx, report);
        let account = report.account;
        let executions: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.executions.as_ref().is_some_and(|p| p.account == account))
            .map(|(id, _)| *id)
            .collect();
        for id in executions {
            let Some(private) = self.conns.get(&id).and_then(|c| c.executions.clone()) else {
                continue;
            };
            let mut rate = String::new();
            if private.ratecounter
                && let Some(inst) = inst_of(report)
            {
                let level = self.engine.get(&(account, inst)).map_or(0.0, |(_, level)| *level);
                rate = format!(",\"ratecount\":{level:.0}");
            }
            for (symbol, row) in execution_rows(ctx, report, private.all_states, &rate) {
                self.send_private(ctx, id, "executions", &symbol, &row);
            }
        }
        let balances: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, c)| c.balances.as_ref().is_some_and(|p| p.account == account))
            .map(|(id, _)| *id)
            .collect();
        for id in balances {
            for row in &ledger {
                self.send_private(ctx, id, "balances", "", row);
            }
        }
    }

    fn send_private(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        channel: &str,
        symbol: &str,
        row: &str,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let slot = if channel == "executions" { &mut conn.executions } else { &mut conn.balances };
        let Some(private) = slot else { return };
        private.sequence += 1;
        let body = format!(
            "{{\"channel\":\"{channel}\",\"type\":\"update\",\"data\":[{row}],\"sequence\":{}}}",
            private.sequence
        );
        conn.sent_ns = ctx.now;
        ctx.hub.send_user(id, symbol, Bytes::from(body));
    }

    /// Ledger entries of a report, each with the balance after it.
    fn ledger_entries(&mut self, ctx: &Ctx<'_>, report: &Report) -> Vec<String> {
        let account = report.account;
        let at = rfc3339_us(report.at_ns);
        let ledger: &mut BTreeMap<String, Amount> = self
            .ledger
            .entry(account)
            .or_insert_with(|| ctx.desk.accounts()[account].opening.clone());
        let mut rows = Vec::new();
        let mut entry = |n: usize,
                         kind: &str,
                         refid: &str,
                         asset: &str,
                         amount: Amount,
                         fee: Amount| {
            let balance = ledger.entry(asset.to_owned()).or_default();
            *balance += amount - fee;
            let decimals = money_decimals(VENUE, asset);
            rows.push(format!(
                "{{\"ledger_id\":\"{}\",\"ref_id\":\"{refid}\",\"timestamp\":\"{at}\",\"type\":\"{kind}\",\
                 \"asset\":\"{asset}\",\"asset_class\":\"currency\",\"category\":\"{kind}\",\"wallet_type\":\"spot\",\
                 \"wallet_id\":\"main\",\"amount\":{},\"fee\":{},\"balance\":{}}}",
                ctx.desk.ext_id(VENUE, 'L', n),
                amount.fixed(decimals),
                fee.fixed(decimals),
                balance.fixed(decimals)
            ));
        };
        match &report.what {
            What::Trade(order, fill) => {
                let refid = trade_id(ctx, fill);
                let sign = if fill.side == Side::Bid { 1 } else { -1 };
                let legs = [
                    (&order.base, Amount(fill.qty.0 * sign)),
                    (&order.quote, Amount(-fill.cost.0 * sign)),
                ];
                for (n, (asset, amount)) in legs.into_iter().enumerate() {
                    let fee = if fill.fee_asset == *asset { fill.fee } else { Amount::ZERO };
                    entry(fill.id * 2 + n, "trade", &refid, asset, amount, fee);
                }
            }
            What::External(asset, amount) => {
                let kind = if amount.is_positive() { "deposit" } else { "withdrawal" };
                let n = usize::try_from(report.at_ns % 1_000_000_007).unwrap_or(0);
                let refid = ctx.desk.ext_id(VENUE, 'D', n);
                entry(n, kind, &refid, asset, *amount, Amount::ZERO);
            }
            _ => {}
        }
        rows
    }
}

fn inst_of(report: &Report) -> Option<usize> {
    match &report.what {
        What::New(o) | What::Trade(o, _) | What::Ended(o, _) => Some(o.ask.inst),
        What::Amended(o) | What::Prevented(o, _) => Some(o.ask.inst),
        What::Balances(_) | What::External(..) => None,
    }
}

fn check_deadline(ctx: &Ctx<'_>, deadline_ns: Option<u64>) -> Result<(), String> {
    let now = ctx.hub.venue_now(VENUE);
    match deadline_ns {
        Some(at) if at <= now => Err("EService:Deadline elapsed".to_owned()),
        Some(at) if at > now + 60_000_000_000 => {
            Err("EGeneral:Invalid arguments:deadline".to_owned())
        }
        // Five seconds, if the client names none (sheet 6.1).
        None if now > ctx.arrived_ns + 5_000_000_000 => Err("EService:Deadline elapsed".to_owned()),
        _ => Ok(()),
    }
}

/// A UUID, 32 hexadecimal digits, or up to 18 printable characters.
fn is_client_id(id: &str) -> bool {
    let hex = |t: &str| t.bytes().all(|b| b.is_ascii_hexdigit());
    let uuid = id.len() == 36 && hex(&id.replace('-', ""));
    uuid || (id.len() == 32 && hex(id))
        || (id.len() <= 18 && id.bytes().all(|b| b.is_ascii_graphic()))
}

/// Texts of members that are one value, a list, or objects with an order id.
fn listed(params: &Value, members: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for member in members {
        match params.get(*member) {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => all.extend(list.iter().map(text_of)),
            Some(one) => all.push(text_of(one)),
        }
    }
    all
}

fn placed(ext: &str, client: &str, userref: &str) -> String {
    let mut out = format!("{{\"order_id\":\"{ext}\"");
    if !client.is_empty() {
        out.push_str(",\"cl_ord_id\":");
        write_json_string(client, &mut out);
    }
    if !userref.is_empty() {
        let _ = write!(out, ",\"order_userref\":{userref}");
    }
    out.push('}');
    out
}

fn state_of(order: &Order) -> &'static str {
    match order.status {
        Status::Open => "new",
        Status::PartiallyFilled => "partially_filled",
        Status::Filled => "filled",
        Status::Expired if order.ended == Some(Ended::Gtd) => "expired",
        _ => "canceled",
    }
}

/// Members that name an order in every event of it.
fn names_json(order: &Order) -> String {
    let mut out = format!("\"order_id\":\"{}\"", order.ext);
    if !order.ask.client_id.is_empty() {
        out.push_str(",\"cl_ord_id\":");
        write_json_string(&order.ask.client_id, &mut out);
    }
    let userref = if order.ask.tag.is_empty() { "0" } else { &order.ask.tag };
    let _ = write!(out, ",\"order_userref\":{userref}");
    out
}

/// An order in full.
fn full_json(ctx: &Ctx<'_>, order: &Order, exec: &str, rate: &str) -> String {
    let spec = &ctx.market.instruments()[order.ask.inst].spec;
    let side = if order.ask.side == Side::Bid { "buy" } else { "sell" };
    let kind = if order.ask.kind == OrderType::Market { "market" } else { "limit" };
    let tif = match order.ask.tif {
        Tif::Gtc => "GTC",
        Tif::Ioc => "IOC",
        Tif::Fok => "FOK",
        Tif::Gtd(_) => "GTD",
    };
    let state = if exec == "pending_new" { "pending_new" } else { state_of(order) };
    let mut out = format!(
        "{{{},\"symbol\":\"{}\",\"side\":\"{side}\",\"order_type\":\"{kind}\",\"order_qty\":{},",
        names_json(order),
        spec.symbol,
        number(spec, order.lots, false)
    );
    if let Some(px) = order.ask.px {
        let _ = write!(
            out,
            "\"limit_price\":{},\"limit_price_type\":\"static\",",
            number(spec, px, true)
        );
    }
    let _ = write!(
        out,
        "\"time_in_force\":\"{tif}\",\"post_only\":{},\"reduce_only\":false,\"exec_type\":\"{exec}\",\
         \"order_status\":\"{state}\",\"cum_qty\":{},\"cum_cost\":{},\"avg_price\":{},\"fee_usd_equiv\":0.0,\
         \"fee_ccy_pref\":\"{}\",\"timestamp\":\"{}\"{rate}}}",
        order.ask.kind == OrderType::PostOnly,
        number(spec, order.filled, false),
        order.cost.fixed(money_decimals(VENUE, &order.quote)),
        average(spec, order),
        if order.ask.fee_in_base { "fcib" } else { "fciq" },
        rfc3339_us(order.updated_ns)
    );
    out
}

fn trade_json(ctx: &Ctx<'_>, order: &Order, fill: &Fill, rate: &str) -> String {
    let spec = &ctx.market.instruments()[order.ask.inst].spec;
    let side = if fill.side == Side::Bid { "buy" } else { "sell" };
    let kind = if order.ask.kind == OrderType::Market { "market" } else { "limit" };
    let decimals = money_decimals(VENUE, &order.quote);
    let fee_decimals = money_decimals(VENUE, &fill.fee_asset);
    format!(
        "{{{},\"symbol\":\"{}\",\"side\":\"{side}\",\"order_type\":\"{kind}\",\"order_qty\":{},\
         \"exec_type\":\"trade\",\"order_status\":\"partially_filled\",\"exec_id\":\"{}\",\"trade_id\":{},\
         \"last_qty\":{},\"last_price\":{},\"cost\":{},\"liquidity_ind\":\"{}\",\
         \"fees\":[{{\"asset\":\"{}\",\"qty\":{}}}],\"cum_qty\":{},\"cum_cost\":{},\"avg_price\":{},\
         \"timestamp\":\"{}\"{rate}}}",
        names_json(order),
        spec.symbol,
        number(spec, order.lots, false),
        trade_id(ctx, fill),
        fill.trade_id,
        number(spec, fill.lots, false),
        number(spec, fill.px, true),
        fill.cost.fixed(decimals),
        if fill.maker { "m" } else { "t" },
        fill.fee_asset,
        fill.fee.fixed(fee_decimals),
        number(spec, order.filled, false),
        order.cost.fixed(decimals),
        average(spec, order),
        rfc3339_us(fill.at_ns)
    )
}

/// The events of a report with their symbol, each to be one message.
fn execution_rows(
    ctx: &Ctx<'_>,
    report: &Report,
    all_states: bool,
    rate: &str,
) -> Vec<(String, String)> {
    let symbol = |order: &Order| ctx.market.instruments()[order.ask.inst].spec.symbol.clone();
    let at = rfc3339_us(report.at_ns);
    let sparse = |order: &Order, exec: &str, more: &str| {
        let spec = &ctx.market.instruments()[order.ask.inst].spec;
        format!(
            "{{{},\"exec_type\":\"{exec}\",\"order_status\":\"{exec}\"{more},\"cum_qty\":{},\"cum_cost\":{},\
             \"avg_price\":{},\"timestamp\":\"{at}\"{rate}}}",
            names_json(order),
            number(spec, order.filled, false),
            order.cost.fixed(money_decimals(VENUE, &order.quote)),
            average(spec, order)
        )
    };
    match &report.what {
        What::New(order) => {
            let new = format!(
                "{{{},\"exec_type\":\"new\",\"order_status\":\"new\",\"timestamp\":\"{at}\"{rate}}}",
                names_json(order)
            );
            let mut rows = Vec::new();
            if all_states {
                rows.push((symbol(order), full_json(ctx, order, "pending_new", rate)));
            }
            rows.push((symbol(order), new));
            rows
        }
        What::Trade(order, fill) => {
            let mut rows = vec![(symbol(order), trade_json(ctx, order, fill, rate))];
            if order.status == Status::Filled {
                rows.push((symbol(order), sparse(order, "filled", "")));
            }
            rows
        }
        What::Ended(order, why) => {
            let exec = if *why == Ended::Gtd { "expired" } else { "canceled" };
            let reason = format!(",\"reason\":\"{}\"", reason_of(*why));
            vec![(symbol(order), sparse(order, exec, &reason))]
        }
        What::Amended(order) => vec![(symbol(order), full_json(ctx, order, "amended", rate))],
        What::Prevented(..) | What::Balances(_) | What::External(..) => Vec::new(),
    }
}
