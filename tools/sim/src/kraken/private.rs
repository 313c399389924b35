//! Kraken's private REST calls (`protocols/kraken.md` 7.2, 7.3, 8).
//!
//! Invariant: a call is carried out only if `API-Sign` is right over the bytes received and the nonce is new to its
//! key. Errors are the venue's texts in an answer of HTTP 200.

use std::fmt::Write as _;

use serde_json::Value;

use super::trading::{Add, engine_error};
use super::{Kraken, VENUE, envelope_error, find_pair, form_or_json, internal, names};
use crate::amount::Amount;
use crate::book::Side;
use crate::crypto::{base64, hmac_sha512, sha256};
use crate::exchange::desk::money_decimals;
use crate::exchange::{Ended, Fill, NewOrder, Order, OrderType, Reject, Size, Status, Stp, Tif};
use crate::faults::{Answer, Refused};
use crate::keys::Proof;
use crate::market::Spec;
use crate::net::{Request, Response};
use crate::observe::Wants;
use crate::units::{parse_rfc3339, rfc3339_s, write_json_string};
use crate::world::{Ctx, Look};

/// Rows of one page of a history.
const PAGE: usize = 50;

/// Parameters of a call as text.
pub(super) struct Params(pub Vec<(String, String)>);

impl Params {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true") || v == "1")
    }
}

fn wants_of(method: &str) -> Wants {
    match method {
        "AddOrder" | "AddOrderBatch" | "EditOrder" | "AmendOrder" => Wants::New,
        "CancelOrder" | "CancelAll" | "CancelOrderBatch" | "CancelAllOrdersAfter" => Wants::Cancel,
        _ => Wants::Query,
    }
}

impl Kraken {
    /// What a REST request is about, if it is private.
    pub fn look(&self, ctx: &Ctx<'_>, request: &Request) -> Option<Look> {
        let method = request.path.strip_prefix("/0/private/")?;
        let key = ctx.keys.find(VENUE, request.header("api-key")?)?;
        let params = Params(form_or_json(&request.body));
        let pair = params.get("pair").and_then(|p| find_pair(ctx, p)).map(|(_, inst)| inst);
        let spec = pair.map(|inst| &ctx.market.instruments()[inst].spec);
        let worth = spec.and_then(|spec| {
            let px = spec.tick.parse(params.get("price")?)?;
            let lots = spec.lot.parse(params.get("volume")?)?;
            Some((spec.quote.clone(), Amount::worth(spec.tick, px, spec.lot, lots)))
        });
        let client_id = params.get("cl_ord_id").or(params.get("txid")).unwrap_or("").to_owned();
        Some(Look {
            wants: Some(wants_of(method)),
            account: Some(ctx.keys.get(key).account),
            symbol: spec.map(|s| s.symbol.clone()).unwrap_or_default(),
            client_id,
            worth: worth.filter(|_| wants_of(method) == Wants::New),
        })
    }

    /// The answer a fault wants instead of the right one.
    pub fn wrong_response(&self, _ctx: &Ctx<'_>, answer: &Answer) -> Response {
        match wrong(answer) {
            Ok(text) => envelope_error(&text),
            Err(status) => self.error_page(status),
        }
    }

    /// Answers a private call.
    pub(super) fn private_rest(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &Request,
        method: &str,
    ) -> Response {
        let params = Params(form_or_json(&request.body));
        let result = self
            .authenticate(ctx, request, &params)
            .and_then(|key| self.call(ctx, key, method, &params, &request.body));
        match result {
            Ok(result) => Response::json(200, format!("{{\"error\":[],\"result\":{result}}}")),
            Err(error) => envelope_error(&error),
        }
    }

    /// Proves a request to be its key's, and its nonce to be new.
    fn authenticate(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &Request,
        params: &Params,
    ) -> Result<usize, String> {
        let text = request.header("api-key").filter(|k| !k.is_empty()).ok_or("EAPI:Invalid key")?;
        let key = ctx.keys.find(VENUE, text).ok_or("EAPI:Invalid key")?;
        if ctx.keys.get(key).revoked {
            return Err("EAPI:Invalid key".to_owned());
        }
        let nonce_text = params.get("nonce").ok_or("EAPI:Invalid nonce")?;
        let signature = request.header("api-sign").ok_or("EAPI:Invalid signature")?;
        let Proof::Hmac(secret) = &ctx.keys.get(key).proof else {
            return Err("EAPI:Invalid key".to_owned());
        };
        let mut inner = nonce_text.as_bytes().to_vec();
        inner.extend(&request.body);
        let mut message = request.path.clone().into_bytes();
        if !request.query.is_empty() {
            message.push(b'?');
            message.extend(request.query.as_bytes());
        }
        message.extend(sha256(&inner));
        if base64(&hmac_sha512(secret, &message)) != signature.trim() {
            return Err("EAPI:Invalid signature".to_owned());
        }
        let nonce: u64 = nonce_text.parse().map_err(|_| "EAPI:Invalid nonce")?;
        let key_state = ctx.keys.get_mut(key);
        let fresh = nonce > key_state.nonce
            || (key_state.nonce - nonce <= key_state.nonce_window
                && !key_state.used.contains(&nonce));
        if !fresh {
            return Err("EAPI:Invalid nonce".to_owned());
        }
        key_state.nonce = key_state.nonce.max(nonce);
        if key_state.nonce_window > 0 {
            key_state.used.insert(nonce);
            let oldest = key_state.nonce.saturating_sub(key_state.nonce_window);
            key_state.used = key_state.used.split_off(&oldest);
        }
        Ok(key)
    }

    /// Adds to the call counter of a key.
    fn count_call(&mut self, ctx: &Ctx<'_>, key: usize, cost: f64) -> Result<(), String> {
        let cfg = &ctx.cfg.kraken;
        let (at, level) = self.calls.entry(key).or_insert((ctx.now, 0.0));
        #[expect(clippy::cast_precision_loss, reason = "a rate, not money")]
        let lost = ctx.now.saturating_sub(*at) as f64 / 1e9 * cfg.calls_decay;
        (*at, *level) = (ctx.now, (*level - lost).max(0.0));
        if *level + cost > cfg.calls_max {
            return Err("EAPI:Rate limit exceeded".to_owned());
        }
        *level += cost;
        Ok(())
    }

    fn call(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: usize,
        method: &str,
        params: &Params,
        body: &[u8],
    ) -> Result<String, String> {
        let account = ctx.keys.get(key).account;
        let wants = wants_of(method);
        match (wants, method) {
            (Wants::Query, "TradesHistory" | "QueryTrades" | "Ledgers" | "QueryLedgers") => {
                self.count_call(ctx, key, 2.0)?;
            }
            (Wants::Query, _) => self.count_call(ctx, key, 1.0)?,
            _ if !ctx.keys.get(key).permissions.trade => {
                return Err("EGeneral:Permission denied".to_owned());
            }
            _ => {}
        }
        match method {
            "Balance" => {
                let rows: Vec<String> = ctx
                    .balances(account)
                    .iter()
                    .map(|(asset, b)| {
                        let text = b.total.fixed(money_decimals(VENUE, asset));
                        format!("\"{}\":\"{text}\"", internal(asset))
                    })
                    .collect();
                Ok(format!("{{{}}}", rows.join(",")))
            }
            "BalanceEx" => {
                let rows: Vec<String> = ctx
                    .balances(account)
                    .iter()
                    .map(|(asset, b)| {
                        let decimals = money_decimals(VENUE, asset);
                        format!(
                            "\"{}\":{{\"balance\":\"{}\",\"hold_trade\":\"{}\"}}",
                            internal(asset),
                            b.total.fixed(decimals),
                            b.held.fixed(decimals)
                        )
                    })
                    .collect();
                Ok(format!("{{{}}}", rows.join(",")))
            }
            "TradeBalance" => {
                let usd = ctx.balances(account).get("USD").copied().unwrap_or_default();
                let (all, free) = (usd.total.fixed(4), usd.free().fixed(4));
                Ok(format!(
                    "{{\"eb\":\"{all}\",\"tb\":\"{all}\",\"m\":\"0.0000\",\"uv\":\"0.0000\",\"n\":\"0.0000\",\
                     \"c\":\"0.0000\",\"v\":\"0.0000\",\"e\":\"{all}\",\"mf\":\"{free}\"}}"
                ))
            }
            "TradeVolume" => trade_volume(ctx, account, params),
            "OpenOrders" => {
                let open = ctx.desk.accounts()[account].open.clone();
                let rows: Vec<String> = open
                    .into_iter()
                    .rev()
                    .filter(|id| ctx.is_visible(*id) && !ctx.desk.orders()[*id].canceling)
                    .filter(|id| is_asked(&ctx.desk.orders()[*id], params))
                    .map(|id| order_row(ctx, &ctx.desk.orders()[id], params.is_true("trades")))
                    .collect();
                Ok(format!("{{\"open\":{{{}}}}}", rows.join(",")))
            }
            "ClosedOrders" => {
                let (from, to) = (time(params, "start"), time(params, "end"));
                let all: Vec<usize> = ctx
                    .desk
                    .orders()
                    .iter()
                    .rev()
                    .filter(|o| o.account == account && ctx.is_visible(o.id))
                    .filter(|o| (o.status.is_done() || o.canceling) && is_asked(o, params))
                    .filter(|o| {
                        let at = o.done_ns.unwrap_or(o.updated_ns);
                        from.is_none_or(|f| at >= f) && to.is_none_or(|t| at <= t)
                    })
                    .map(|o| o.id)
                    .collect();
                let rows: Vec<String> = page(&all, params)
                    .map(|id| order_row(ctx, &ctx.desk.view(*id), params.is_true("trades")))
                    .collect();
                Ok(format!("{{\"closed\":{{{}}},\"count\":{}}}", rows.join(","), all.len()))
            }
            "QueryOrders" => {
                let list = params.get("txid").ok_or("EGeneral:Invalid arguments:txid")?;
                let mut rows = Vec::new();
                for txid in list.split(',') {
                    let id = ctx.desk.by_ext(VENUE, txid.trim());
                    let id = id
                        .filter(|i| ctx.desk.orders()[*i].account == account && ctx.is_visible(*i))
                        .ok_or("EOrder:Unknown order")?;
                    rows.push(order_row(ctx, &ctx.desk.view(id), params.is_true("trades")));
                }
                Ok(format!("{{{}}}", rows.join(",")))
            }
            "TradesHistory" => {
                let (from, to) = (time(params, "start"), time(params, "end"));
                let all: Vec<&Fill> = ctx
                    .desk
                    .fills()
                    .iter()
                    .rev()
                    .filter(|f| f.account == account && !f.busted && ctx.is_visible(f.order))
                    .filter(|f| {
                        from.is_none_or(|s| f.at_ns >= s) && to.is_none_or(|t| f.at_ns <= t)
                    })
                    .collect();
                let rows: Vec<String> = page(&all, params).map(|f| trade_row(ctx, f)).collect();
                Ok(format!("{{\"trades\":{{{}}},\"count\":{}}}", rows.join(","), all.len()))
            }
            "QueryTrades" => {
                let list = params.get("txid").ok_or("EGeneral:Invalid arguments:txid")?;
                let wanted: Vec<&str> = list.split(',').map(str::trim).collect();
                let rows: Vec<String> = ctx
                    .desk
                    .fills()
                    .iter()
                    .filter(|f| f.account == account && !f.busted)
                    .filter(|f| wanted.contains(&trade_id(ctx, f).as_str()))
                    .map(|f| trade_row(ctx, f))
                    .collect();
                Ok(format!("{{{}}}", rows.join(",")))
            }
            "GetWebSocketsToken" => {
                let token = self.issue_token(ctx, key);
                Ok(format!("{{\"token\":\"{token}\",\"expires\":{}}}", ctx.cfg.kraken.token_s))
            }
            "GetApiKeyInfo" => Ok(key_info(ctx, key)),
            "Ledgers" => Ok("{\"ledger\":{},\"count\":0}".to_owned()),
            "QueryLedgers" | "OpenPositions" => Ok("{}".to_owned()),
            "AddOrder" => {
                let (new, validate) = self.read_add(ctx, params)?;
                let describe = describe(ctx, &new);
                if validate {
                    ctx.desk
                        .check(ctx.market, account, &new.order)
                        .map_err(|r| engine_error(&r))?;
                    return Ok(format!("{{\"descr\":{{\"order\":\"{describe}\"}}}}"));
                }
                let id = self.add(ctx, account, new)?;
                Ok(format!(
                    "{{\"descr\":{{\"order\":\"{describe}\"}},\"txid\":[\"{}\"]}}",
                    ctx.desk.orders()[id].ext
                ))
            }
            "AddOrderBatch" => self.add_batch(ctx, account, body),
            "AmendOrder" => {
                let id = self.named(ctx, account, params)?;
                let order = &ctx.desk.orders()[id];
                let spec = &ctx.market.instruments()[order.ask.inst].spec;
                let lots = match params.get("order_qty") {
                    None => order.lots,
                    Some(text) => {
                        spec.lot.parse(text).ok_or("EGeneral:Invalid arguments:volume")?
                    }
                };
                let px = match params.get("limit_price") {
                    None => order.ask.px.unwrap_or(0),
                    Some(text) => spec.tick.parse(text).ok_or("EOrder:Tick size check failed")?,
                };
                let amended = self.amend(ctx, account, id, lots, px, params.get("deadline"))?;
                Ok(format!("{{\"amend_id\":\"{amended}\"}}"))
            }
            "CancelOrder" => {
                let mut count = 0;
                let list = params.get("cl_ord_id").or(params.get("txid"));
                for text in list.ok_or("EGeneral:Invalid arguments:txid")?.split(',') {
                    for id in self.find(ctx, account, text.trim()) {
                        count += u32::from(self.cancel(ctx, id).is_ok());
                    }
                }
                if count == 0 {
                    return Err("EOrder:Unknown order".to_owned());
                }
                Ok(format!("{{\"count\":{count}}}"))
            }
            "CancelOrderBatch" => {
                let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
                let mut names: Vec<String> = Vec::new();
                for member in ["orders", "cl_ord_ids"] {
                    let list = value.get(member).and_then(Value::as_array);
                    for one in list.into_iter().flatten() {
                        let text = one.get("txid").or_else(|| one.get("cl_ord_id")).unwrap_or(one);
                        names.push(text.as_str().map_or_else(|| text.to_string(), str::to_owned));
                    }
                }
                let mut count = 0;
                for text in names {
                    for id in self.find(ctx, account, &text) {
                        count += u32::from(self.cancel(ctx, id).is_ok());
                    }
                }
                Ok(format!("{{\"count\":{count}}}"))
            }
            "CancelAll" => Ok(format!("{{\"count\":{}}}", self.cancel_all(ctx, account))),
            "CancelAllOrdersAfter" => {
                let timeout = params.get("timeout").and_then(|t| t.parse::<u64>().ok());
                self.dead_man(ctx, account, timeout.ok_or("EGeneral:Invalid arguments:timeout")?)
            }
            "EditOrder" => self.edit(ctx, account, params),
            _ => Err("EGeneral:Unknown method".to_owned()),
        }
    }

    /// The one order a call names.
    fn named(&self, ctx: &Ctx<'_>, account: usize, params: &Params) -> Result<usize, String> {
        let text = params.get("cl_ord_id").or(params.get("txid"));
        let text = text.ok_or("EGeneral:Invalid arguments:txid")?;
        self.find(ctx, account, text).first().copied().ok_or("EOrder:Unknown order".to_owned())
    }

    fn edit(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, String> {
        let old = self.named(ctx, account, params)?;
        let order = ctx.desk.orders()[old].clone();
        let spec = std::sync::Arc::clone(&ctx.market.instruments()[order.ask.inst].spec);
        let mut new = order.ask.clone();
        if let Some(text) = params.get("volume") {
            let lots = spec.lot.parse(text).ok_or("EGeneral:Invalid arguments:volume")?;
            if lots <= order.filled {
                return Err("EOrder:Not enough leaves qty".to_owned());
            }
            new.size = Size::Base(lots - order.filled);
        }
        if let Some(text) = params.get("price") {
            new.px = Some(spec.tick.parse(text).ok_or("EOrder:Tick size check failed")?);
        }
        self.cancel(ctx, old).map_err(|_| "EOrder:Unknown order")?;
        new.client_id = String::new();
        new.arrived_ns = ctx.arrived_ns;
        let add = Add { order: new, deadline_ns: None };
        let describe = describe(ctx, &add);
        let id = self.add(ctx, account, add)?;
        Ok(format!(
            "{{\"status\":\"ok\",\"txid\":\"{}\",\"originaltxid\":\"{}\",\"orders_cancelled\":1,\
             \"descr\":{{\"order\":\"{describe}\"}}}}",
            ctx.desk.orders()[id].ext,
            order.ext
        ))
    }

    fn add_batch(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        body: &[u8],
    ) -> Result<String, String> {
        let value: Value =
            serde_json::from_slice(body).map_err(|_| "EGeneral:Invalid arguments")?;
        let list = value.get("orders").and_then(Value::as_array).cloned().unwrap_or_default();
        if !(2..=15).contains(&list.len()) {
            return Err("EGeneral:Invalid arguments:orders".to_owned());
        }
        let shared = |name: &str| value.get(name).map(|v| (name.to_owned(), text_of(v)));
        let mut adds = Vec::new();
        for one in &list {
            let mut params: Vec<(String, String)> = one
                .as_object()
                .into_iter()
                .flatten()
                .map(|(n, v)| (n.clone(), text_of(v)))
                .collect();
            params.extend(["pair", "deadline", "validate"].into_iter().filter_map(shared));
            adds.push(self.read_add(ctx, &Params(params))?);
        }
        let mut rows = Vec::new();
        for (new, validate) in adds {
            let describe = describe(ctx, &new);
            if validate {
                rows.push(format!("{{\"descr\":{{\"order\":\"{describe}\"}}}}"));
                continue;
            }
            rows.push(match self.add(ctx, account, new) {
                Ok(id) => format!(
                    "{{\"descr\":{{\"order\":\"{describe}\"}},\"txid\":\"{}\"}}",
                    ctx.desk.orders()[id].ext
                ),
                Err(error) => format!("{{\"error\":\"{error}\"}}"),
            });
        }
        Ok(format!("{{\"orders\":[{}]}}", rows.join(",")))
    }

    /// Reads AddOrder's parameters; returns the order, and whether it is only to be validated.
    fn read_add(&self, ctx: &Ctx<'_>, params: &Params) -> Result<(Add, bool), String> {
        let pair = params.get("pair").ok_or("EGeneral:Invalid arguments:pair")?;
        let (_, inst) = find_pair(ctx, pair).ok_or("EQuery:Unknown asset pair")?;
        let spec = &ctx.market.instruments()[inst].spec;
        let side = match params.get("type") {
            Some("buy") => Side::Bid,
            Some("sell") => Side::Ask,
            _ => return Err("EGeneral:Invalid arguments:type".to_owned()),
        };
        let flags: Vec<&str> = params.get("oflags").unwrap_or("").split(',').collect();
        let kind = match params.get("ordertype") {
            Some("limit") if flags.contains(&"post") => OrderType::PostOnly,
            Some("limit") => OrderType::Limit,
            Some("market") => OrderType::Market,
            _ => return Err("EGeneral:Invalid arguments:ordertype".to_owned()),
        };
        let px = match (kind, params.get("price")) {
            (OrderType::Market, _) => None,
            (_, None) => return Err("EGeneral:Invalid arguments:price".to_owned()),
            (_, Some(text)) => Some(spec.tick.parse(text).ok_or("EOrder:Tick size check failed")?),
        };
        let volume = params.get("volume").ok_or("EGeneral:Invalid arguments:volume")?;
        let size = if flags.contains(&"viqc") && kind == OrderType::Market {
            Size::Quote(Amount::parse(volume).ok_or("EGeneral:Invalid arguments:volume")?)
        } else {
            Size::Base(spec.lot.parse(volume).ok_or("EGeneral:Invalid arguments:volume")?)
        };
        let tif = self.tif(ctx, kind, params.get("timeinforce"), params.get("expiretm"))?;
        let stp = match params.get("stptype") {
            None | Some("cancel-newest") => Stp::Taker,
            Some("cancel-oldest") => Stp::Maker,
            Some("cancel-both") => Stp::Both,
            Some(_) => return Err("EGeneral:Invalid arguments:stptype".to_owned()),
        };
        let add = Add {
            order: NewOrder {
                kind,
                px,
                size,
                stp,
                client_id: params.get("cl_ord_id").unwrap_or("").to_owned(),
                fee_in_base: flags.contains(&"fcib"),
                arrived_ns: ctx.arrived_ns,
                quirks: ctx.fate.quirks.clone(),
                tag: params.get("userref").unwrap_or("").to_owned(),
                ..NewOrder::limit(inst, side, 0, 0, tif)
            },
            deadline_ns: deadline(params.get("deadline"))?,
        };
        Ok((add, params.is_true("validate")))
    }

    /// The time in force, with the expiry of GTD.
    pub(super) fn tif(
        &self,
        ctx: &Ctx<'_>,
        kind: OrderType,
        name: Option<&str>,
        expires: Option<&str>,
    ) -> Result<Tif, String> {
        let name = name.unwrap_or("gtc").to_ascii_lowercase();
        match name.as_str() {
            _ if kind == OrderType::Market => Ok(Tif::Ioc),
            "gtc" => Ok(Tif::Gtc),
            "ioc" => Ok(Tif::Ioc),
            "fok" if ctx.cfg.kraken.fok => Ok(Tif::Fok),
            "gtd" => {
                let text = expires.ok_or("EGeneral:Invalid arguments:expiretm")?;
                let relative = text.strip_prefix('+').and_then(|t| t.parse::<u64>().ok());
                let at = relative
                    .map(|s| ctx.now + s * 1_000_000_000)
                    .or_else(|| text.parse::<u64>().ok().map(|s| s * 1_000_000_000))
                    .or_else(|| parse_rfc3339(text));
                Ok(Tif::Gtd(at.ok_or("EGeneral:Invalid arguments:expiretm")?))
            }
            _ => Err("EGeneral:Invalid arguments:timeinforce".to_owned()),
        }
    }
}

/// The text a fault wants, or an HTTP status of the edge.
pub(super) fn wrong(answer: &Answer) -> Result<String, u16> {
    Ok(match answer {
        Answer::Refused(Refused::Auth) => "EAPI:Invalid key",
        Answer::Refused(Refused::RateLimit(_)) => "EAPI:Rate limit exceeded",
        Answer::Refused(Refused::Said(text)) => text,
        Answer::Ambiguous(503) => "EService:Unavailable",
        Answer::Ambiguous(504) => "EService:Timeout",
        Answer::Ambiguous(500) => "EGeneral:Internal error",
        Answer::Ambiguous(502) => "EService:Busy",
        Answer::Ambiguous(status) => return Err(*status),
        _ => "EOrder:Insufficient funds",
    }
    .to_owned())
}

/// Reads a `deadline`.
pub(super) fn deadline(text: Option<&str>) -> Result<Option<u64>, String> {
    match text {
        None => Ok(None),
        Some(text) => {
            let at = parse_rfc3339(text).ok_or("EGeneral:Invalid arguments:deadline")?;
            Ok(Some(at))
        }
    }
}

/// A JSON value as the text a form would hold; numbers without an exponent.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Number(n) if n.is_f64() => format!("{}", n.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
}

fn time(params: &Params, name: &str) -> Option<u64> {
    let seconds = Amount::parse(params.get(name)?)?;
    // An amount has 16 decimals, a second nine.
    u64::try_from(seconds.0 / 10_000_000).ok()
}

fn page<'a, T>(all: &'a [T], params: &Params) -> impl Iterator<Item = &'a T> {
    let skip = params.get("ofs").and_then(|o| o.parse().ok()).unwrap_or(0);
    all.iter().skip(skip).take(PAGE)
}

fn is_asked(order: &Order, params: &Params) -> bool {
    params.get("userref").is_none_or(|u| u == order.ask.tag)
        && params.get("cl_ord_id").is_none_or(|c| c == order.ask.client_id)
}

fn spec_of<'a>(ctx: &'a Ctx<'_>, order: &Order) -> &'a Spec {
    &ctx.market.instruments()[order.ask.inst].spec
}

/// Seconds with five decimals, as histories print them.
fn seconds(ns: u64) -> String {
    format!("{}.{:05}", ns / 1_000_000_000, ns % 1_000_000_000 / 10_000)
}

/// `buy 0.01000000 XBTUSD @ limit 50000.0`.
fn describe(ctx: &Ctx<'_>, add: &Add) -> String {
    describe_order(ctx, &add.order)
}

fn describe_order(ctx: &Ctx<'_>, ask: &NewOrder) -> String {
    let spec = &ctx.market.instruments()[ask.inst].spec;
    let side = if ask.side == Side::Bid { "buy" } else { "sell" };
    let qty = match ask.size {
        Size::Base(lots) => spec.lot.fixed(lots, spec.lot.decimals),
        Size::Quote(money) => money.fixed(5),
    };
    let pair = names(spec).1;
    match ask.px {
        None => format!("{side} {qty} {pair} @ market"),
        Some(px) => {
            format!("{side} {qty} {pair} @ limit {}", spec.tick.fixed(px, spec.tick.decimals))
        }
    }
}

pub(super) fn status_of(order: &Order) -> &'static str {
    match order.status {
        Status::Open | Status::PartiallyFilled => "open",
        Status::Filled => "closed",
        Status::Expired if order.ended == Some(Ended::Gtd) => "expired",
        _ => "canceled",
    }
}

/// Why an order ended, in the venue's words.
pub(super) fn reason_of(why: Ended) -> &'static str {
    match why {
        Ended::User => "User requested",
        Ended::Ioc | Ended::NoLiquidity => "Insufficient liquidity",
        Ended::Fok => "Fill or kill",
        Ended::PostOnly => "Post only order",
        Ended::Gtd => "Order expired",
        Ended::Stp => "Self trade prevention",
        Ended::DeadMan => "Dead man switch",
        Ended::Venue => "Canceled by the exchange",
    }
}

/// The average price of what filled, with the pair's decimals and one more.
pub(super) fn average(spec: &Spec, order: &Order) -> String {
    let qty = Amount::of(spec.lot, order.filled);
    order.cost.over(qty, spec.tick.decimals.max(5)).fixed(spec.tick.decimals.max(5))
}

fn order_row(ctx: &Ctx<'_>, order: &Order, trades: bool) -> String {
    let spec = spec_of(ctx, order);
    let decimals = money_decimals(VENUE, &order.quote).max(5);
    let fee: Amount = order.fees.iter().map(|(_, f)| *f).sum();
    let side = if order.ask.side == Side::Bid { "buy" } else { "sell" };
    let kind = if order.ask.kind == OrderType::Market { "market" } else { "limit" };
    let px = order.ask.px.map_or("0".to_owned(), |p| spec.tick.fixed(p, spec.tick.decimals));
    let mut flags = vec![if order.ask.fee_in_base { "fcib" } else { "fciq" }];
    if order.ask.kind == OrderType::PostOnly {
        flags.push("post");
    }
    let userref = if order.ask.tag.is_empty() { "null" } else { &order.ask.tag };
    let mut out = format!("\"{}\":{{\"refid\":null,\"userref\":{userref},", order.ext);
    if !order.ask.client_id.is_empty() {
        out.push_str("\"cl_ord_id\":");
        write_json_string(&order.ask.client_id, &mut out);
        out.push(',');
    }
    let _ = write!(
        out,
        "\"status\":\"{}\",\"opentm\":{},\"starttm\":0,\"expiretm\":{},\"descr\":{{\"pair\":\"{}\",\"type\":\"{side}\",\
         \"ordertype\":\"{kind}\",\"price\":\"{px}\",\"price2\":\"0\",\"leverage\":\"none\",\"order\":\"{}\",\
         \"close\":\"\"}},\"vol\":\"{}\",\"vol_exec\":\"{}\",\"cost\":\"{}\",\"fee\":\"{}\",\"price\":\"{}\",\
         \"stopprice\":\"0.00000\",\"limitprice\":\"0.00000\",\"misc\":\"\",\"oflags\":\"{}\"",
        status_of(order),
        seconds(order.accepted_ns),
        match order.ask.tif {
            Tif::Gtd(at) => seconds(at),
            _ => "0".to_owned(),
        },
        names(spec).1,
        describe_order(ctx, &order.ask),
        spec.lot.fixed(order.lots, spec.lot.decimals),
        spec.lot.fixed(order.filled, spec.lot.decimals),
        order.cost.fixed(decimals),
        fee.fixed(decimals),
        average(spec, order),
        flags.join(","),
    );
    if order.status.is_done() {
        let at = order.done_ns.unwrap_or(order.updated_ns);
        let reason = match (order.status, order.ended) {
            (Status::Filled, _) | (_, None) => "null".to_owned(),
            (_, Some(why)) => format!("\"{}\"", reason_of(why)),
        };
        let _ = write!(out, ",\"closetm\":{},\"reason\":{reason}", seconds(at));
    }
    if trades {
        let ids: Vec<String> = ctx
            .desk
            .fills()
            .iter()
            .rev()
            .take_while(|f| f.at_ns >= order.accepted_ns)
            .filter(|f| f.order == order.id && !f.busted)
            .map(|f| format!("\"{}\"", trade_id(ctx, f)))
            .collect();
        let _ = write!(out, ",\"trades\":[{}]", ids.join(","));
    }
    out.push('}');
    out
}

/// The venue's name of a fill.
pub(super) fn trade_id(ctx: &Ctx<'_>, fill: &Fill) -> String {
    ctx.desk.ext_id(VENUE, 'T', fill.id)
}

fn trade_row(ctx: &Ctx<'_>, fill: &Fill) -> String {
    let order = &ctx.desk.orders()[fill.order];
    let spec = spec_of(ctx, order);
    let decimals = money_decimals(VENUE, &order.quote).max(5);
    format!(
        "\"{}\":{{\"ordertxid\":\"{}\",\"postxid\":\"{}\",\"pair\":\"{}\",\"time\":{},\"type\":\"{}\",\
         \"ordertype\":\"{}\",\"price\":\"{}\",\"cost\":\"{}\",\"fee\":\"{}\",\"vol\":\"{}\",\
         \"margin\":\"0.00000\",\"leverage\":\"0\",\"misc\":\"\",\"trade_id\":{},\"maker\":{},\"ledgers\":[]}}",
        trade_id(ctx, fill),
        order.ext,
        ctx.desk.ext_id(VENUE, 'P', fill.id),
        names(spec).0,
        seconds(fill.at_ns),
        if fill.side == Side::Bid { "buy" } else { "sell" },
        if order.ask.kind == OrderType::Market { "market" } else { "limit" },
        spec.tick.fixed(fill.px, spec.tick.decimals.max(5)),
        fill.cost.fixed(decimals),
        fill.fee.fixed(decimals),
        spec.lot.fixed(fill.lots, spec.lot.decimals),
        fill.trade_id,
        fill.maker
    )
}

/// Percent with four decimals.
fn percent(ppm: i64) -> String {
    Amount(i128::from(ppm) * 10_i128.pow(12)).fixed(4)
}

fn trade_volume(ctx: &Ctx<'_>, account: usize, params: &Params) -> Result<String, String> {
    let fees = &ctx.desk.accounts()[account].fees;
    let volume: Amount = ctx
        .desk
        .fills()
        .iter()
        .filter(|f| f.account == account)
        .filter(|f| matches!(ctx.desk.orders()[f.order].quote.as_str(), "USD" | "USDT" | "USDC"))
        .map(|f| f.cost)
        .sum();
    let mut sides = [String::new(), String::new()];
    for pair in params.get("pair").into_iter().flat_map(|list| list.split(',')) {
        let (key, _) = find_pair(ctx, pair.trim()).ok_or("EQuery:Unknown asset pair")?;
        for (side, ppm) in sides.iter_mut().zip([fees.taker_ppm, fees.maker_ppm]) {
            let rate = percent(ppm);
            let _ = write!(
                side,
                "{}\"{key}\":{{\"fee\":\"{rate}\",\"min_fee\":\"0.0000\",\"max_fee\":\"{rate}\",\"next_fee\":null,\
                 \"next_volume\":null,\"tier_volume\":\"0.0000\"}}",
                if side.is_empty() { "" } else { "," }
            );
        }
    }
    let [taker, maker] = sides;
    Ok(format!(
        "{{\"currency\":\"ZUSD\",\"volume\":\"{}\",\"fees\":{{{taker}}},\"fees_maker\":{{{maker}}}}}",
        volume.fixed(4)
    ))
}

/// What a key is allowed; the members of the venue's reference (`Get API Key Info`, read 2026-11-22).
fn key_info(ctx: &Ctx<'_>, key: usize) -> String {
    let key = ctx.keys.get(key);
    let mut permissions = vec!["query-funds", "query-open-trades", "query-closed-trades"];
    if key.permissions.trade {
        permissions.extend(["modify-trades", "close-trades"]);
    }
    permissions.extend(["query-ledger", "create-ws-token"]);
    if key.permissions.withdraw {
        permissions.push("withdraw-funds");
    }
    if key.permissions.transfer {
        permissions.push("transfer-funds");
    }
    let names: Vec<String> = permissions.iter().map(|p| format!("\"{p}\"")).collect();
    let addresses = if key.permissions.ip_restricted { "\"127.0.0.1\"" } else { "" };
    format!(
        "{{\"api_key_name\":\"{}\",\"api_key\":\"{}\",\"nonce\":\"{}\",\"nonce_window\":{},\
         \"permissions\":[{}],\"valid_until\":\"0\",\"query_from\":\"0\",\"query_to\":\"0\",\
         \"created_time\":\"1760000000\",\"modified_time\":\"1760000000\",\"ip_allowlist\":[{addresses}],\
         \"last_used\":\"{}\"}}",
        key.client,
        key.text,
        key.nonce,
        key.nonce_window,
        names.join(","),
        ctx.now / 1_000_000_000
    )
}

/// `CancelAllOrdersAfter`'s answer.
pub(super) fn dead_man_json(now: u64, trigger: Option<u64>) -> String {
    format!(
        "{{\"currentTime\":\"{}\",\"triggerTime\":\"{}\"}}",
        rfc3339_s(now),
        trigger.map_or("0".to_owned(), rfc3339_s)
    )
}

/// Whether a refusal may be retried is the client's affair; here only its text.
pub(super) fn unknown_order() -> String {
    engine_error(&Reject::UnknownOrder)
}
