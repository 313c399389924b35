//! Coinbase's private calls and its `user` channel (`protocols/coinbase.md` 2, 4.4, 6-9).
//!
//! Invariant: a call is carried out only for a token whose signature, times and `uri` are right. A refused order is
//! an answer of HTTP 200 that says so. `user` tells cumulative figures: who misses an update misses no quantity.

use std::fmt::Write as _;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Bytes;

use super::{Coinbase, Conn, PREFIX, VENUE, generic, too_many};
use crate::amount::Amount;
use crate::book::Side;
use crate::crypto::unbase64_url;
use crate::exchange::{
    Ended, Fill, Mode, NewOrder, Order, OrderType, Reject, Report, Size, Status, Tif, What,
};
use crate::faults::{Answer, Class, Refused};
use crate::hub::ConnId;
use crate::keys::Proof;
use crate::market::MS;
use crate::net::{Request, Response};
use crate::observe::Wants;
use crate::units::{parse_rfc3339, rfc3339_us, write_json_string};
use crate::world::{Ctx, Look};

/// How far clocks may differ, in seconds.
const SKEW_S: u64 = 5;
/// Orders of one snapshot event (sheet 4.4).
const SNAPSHOT_ORDERS: usize = 50;
/// Ids of one batch cancel (sheet 7.3).
const CANCELS_MAX: usize = 100;

/// What a token claims, before it is believed.
struct Claims {
    key: usize,
    signed: bool,
    times: bool,
    uris: Vec<String>,
}

fn part(text: &str) -> Option<Value> {
    serde_json::from_slice(&unbase64_url(text)?).ok()
}

/// Reads a token and checks all but its `uri`.
fn read_token(ctx: &Ctx<'_>, token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (header_text, claims_text, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let (header, claims) = (part(header_text)?, part(claims_text)?);
    let kid = header.get("kid").and_then(Value::as_str)?;
    let key = ctx.keys.find(VENUE, kid)?;
    let known = ctx.keys.get(key);
    let Proof::Public(public) = &known.proof else { return None };
    let message = &token[..header_text.len() + 1 + claims_text.len()];
    let signed = header.get("alg").and_then(Value::as_str) == Some(public.algorithm())
        && header.get("nonce").is_some()
        && claims.get("sub").and_then(Value::as_str) == Some(kid)
        && unbase64_url(signature).is_some_and(|s| public.verify(message.as_bytes(), &s))
        && !known.revoked;
    let now_s = ctx.hub.venue_now(VENUE) / 1_000_000_000;
    let number = |name: &str| claims.get(name).and_then(Value::as_u64);
    let times = number("nbf").is_none_or(|nbf| nbf <= now_s + SKEW_S)
        && number("exp").is_some_and(|exp| exp + SKEW_S > now_s && exp <= now_s + 3_600);
    let mut uris: Vec<String> = Vec::new();
    uris.extend(claims.get("uri").and_then(Value::as_str).map(str::to_owned));
    let list = claims.get("uris").and_then(Value::as_array);
    uris.extend(list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    Some(Claims { key, signed, times, uris })
}

/// The key of a WebSocket message's token, if it is right.
pub(super) fn ws_key(ctx: &Ctx<'_>, token: &str) -> Option<usize> {
    let claims = read_token(ctx, token)?;
    (claims.signed && claims.times).then_some(claims.key)
}

fn bearer(request: &Request) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

/// The key of a REST request's token, if it is right for this request.
pub(super) fn rest_key(ctx: &Ctx<'_>, request: &Request) -> Option<usize> {
    let claims = read_token(ctx, bearer(request)?)?;
    let host = request.header("host").unwrap_or("");
    let fits = |uri: &String| {
        [host, "api.coinbase.com"]
            .iter()
            .any(|host| *uri == format!("{} {host}{}", request.method, request.path))
    };
    (claims.signed && claims.times && claims.uris.iter().any(fits)).then_some(claims.key)
}

pub(super) fn unauthorized() -> Response {
    Response { body: b"Unauthorized\n".to_vec(), ..Response::html(401, "") }
}

fn wants_of(method: &str, path: &str) -> Wants {
    match (method, path) {
        ("POST", "orders" | "orders/edit") => Wants::New,
        ("POST", "orders/batch_cancel") => Wants::Cancel,
        _ => Wants::Query,
    }
}

/// Whether a path needs a token (market data under `products` only needs one to be there).
pub(super) fn is_private(path: &str) -> bool {
    [
        "accounts",
        "orders",
        "transaction_summary",
        "key_permissions",
        "portfolios",
        "payment_methods",
    ]
    .iter()
    .any(|p| path == *p || path.starts_with(&format!("{p}/")))
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str).filter(|t| !t.is_empty())
}

/// The product as submitted and its configuration, as [`NewOrder::tag`] keeps them.
fn tag_of(order: &Order) -> (&str, &str) {
    order.ask.tag.split_once('\n').unwrap_or(("", "{}"))
}

/// A refusal in the venue's words: `error`, and the same with its prefix.
fn reason(reject: &Reject) -> String {
    match reject {
        Reject::Tick => "INVALID_PRICE_PRECISION",
        Reject::Lot => "INVALID_SIZE_PRECISION",
        Reject::MinQty => "INVALID_BASE_SIZE_TOO_SMALL",
        Reject::MaxQty => "INVALID_BASE_SIZE_TOO_LARGE",
        Reject::MinNotional => "INVALID_QUOTE_SIZE_TOO_SMALL",
        Reject::MaxNotional => "INVALID_QUOTE_SIZE_TOO_LARGE",
        Reject::PriceBand => "LIMIT_PRICE_TOO_FAR_FROM_MARKET",
        Reject::Funds => "INSUFFICIENT_FUND",
        Reject::WouldTake => "INVALID_LIMIT_PRICE_POST_ONLY",
        Reject::DuplicateId => "DUPLICATE_CLIENT_ORDER_ID",
        Reject::UnknownOrder => "ORDER_NOT_FOUND",
        Reject::Closed(Mode::PostOnly | Mode::LimitOnly) => "ORDER_ENTRY_DISABLED",
        Reject::Closed(_) => "TRADING_DISABLED",
        Reject::TooManyOrders => "TOO_MANY_OPEN_ORDERS",
        Reject::NoLiquidity => "INVALID_NO_LIQUIDITY",
        Reject::BadAmend => "INVALID_EDITED_SIZE",
        Reject::Said(text) => text,
    }
    .to_owned()
}

fn refused_json(why: &str, configuration: &str) -> String {
    let error = why.strip_prefix("PREVIEW_").unwrap_or(why);
    let message = match error {
        "INSUFFICIENT_FUND" => "Insufficient balance in source account",
        "INVALID_LIMIT_PRICE_POST_ONLY" => "Post only order would take liquidity",
        other => other,
    };
    format!(
        "{{\"success\":false,\"error_response\":{{\"error\":\"{error}\",\"message\":\"{message}\",\
         \"error_details\":\"\",\"preview_failure_reason\":\"PREVIEW_{error}\"}},\"order_configuration\":{configuration}}}"
    )
}

impl Coinbase {
    /// What a request is about, if it is private.
    pub fn look(&self, ctx: &Ctx<'_>, request: &Request) -> Option<Look> {
        let path = match request.path.as_str() {
            "/v2/accounts" => "accounts",
            other => other.strip_prefix(PREFIX).filter(|path| is_private(path))?,
        };
        let header = part(bearer(request)?.split('.').next()?)?;
        let key = ctx.keys.find(VENUE, header.get("kid")?.as_str()?)?;
        let wants = wants_of(&request.method, path);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let product = text(&body, "product_id").unwrap_or("");
        let inst = Self::resolve(ctx.market, product);
        let worth = inst.and_then(|inst| {
            let spec = &ctx.market.instruments()[inst].spec;
            let configuration = body.get("order_configuration")?.as_object()?.values().next()?;
            let px = spec.tick.parse(text(configuration, "limit_price")?)?;
            let lots = spec.lot.parse(text(configuration, "base_size")?)?;
            Some((spec.quote.clone(), Amount::worth(spec.tick, px, spec.lot, lots)))
        });
        let first = body.get("order_ids").and_then(|l| l.get(0)).and_then(Value::as_str);
        let client_id = text(&body, "client_order_id").or(first).unwrap_or("").to_owned();
        let symbol = inst.map(|i| ctx.market.instruments()[i].spec.symbol.clone());
        Some(Look {
            wants: Some(wants),
            account: Some(ctx.keys.get(key).account),
            symbol: symbol.unwrap_or_default(),
            client_id,
            worth: worth.filter(|_| wants == Wants::New),
        })
    }

    /// The answer a fault wants instead of the right one.
    pub fn wrong_response(&self, _ctx: &Ctx<'_>, request: &Request, answer: &Answer) -> Response {
        let why = match answer {
            Answer::Ambiguous(status) => return self.error_page(*status),
            Answer::Refused(Refused::Auth) => return unauthorized(),
            Answer::Refused(Refused::RateLimit(_)) => return too_many(),
            Answer::Refused(Refused::Said(text)) => text.clone(),
            _ => reason(&Reject::Funds),
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        match request.path.strip_prefix(PREFIX) {
            Some("orders") => {
                let configuration =
                    body.get("order_configuration").map_or("{}".to_owned(), Value::to_string);
                Response::json(200, refused_json(&why, &configuration))
            }
            Some("orders/batch_cancel") => {
                let ids = body.get("order_ids").and_then(Value::as_array);
                let rows: Vec<String> = ids
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(|id| cancel_row(id, Some(&why)))
                    .collect();
                Response::json(200, format!("{{\"results\":[{}]}}", rows.join(",")))
            }
            _ => generic(400, "INVALID_ARGUMENT", &why),
        }
    }

    /// Answers a private call of a key that proved itself.
    pub(super) fn private_rest(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &Request,
        path: &str,
        key: usize,
    ) -> Response {
        let account = ctx.keys.get(key).account;
        let permissions = ctx.keys.get(key).permissions;
        let wants = wants_of(&request.method, path);
        if wants != Wants::Query && !permissions.trade {
            return generic(403, "PERMISSION_DENIED", "Missing required scopes");
        }
        let params = request.params();
        let body: Value = match (request.method.as_str(), serde_json::from_slice(&request.body)) {
            ("POST", Err(_)) => {
                return generic(
                    400,
                    "INVALID_ARGUMENT",
                    "proto: syntax error (line 1:1): invalid value",
                );
            }
            (_, parsed) => parsed.unwrap_or(Value::Null),
        };
        match (request.method.as_str(), path) {
            ("GET", "accounts") => accounts(ctx, account, &params),
            ("GET", "key_permissions") => Response::json(
                200,
                format!(
                    "{{\"can_view\":true,\"can_trade\":{},\"can_transfer\":{},\"portfolio_uuid\":\"{}\",\
                     \"portfolio_type\":\"DEFAULT\"}}",
                    permissions.trade,
                    // The venue knows one scope for both.
                    permissions.transfer || permissions.withdraw,
                    portfolio(ctx, account)
                ),
            ),
            ("GET", "transaction_summary") => Response::json(200, summary(ctx, account)),
            ("GET", "portfolios") => Response::json(
                200,
                format!(
                    "{{\"portfolios\":[{{\"name\":\"Default\",\"uuid\":\"{}\",\"type\":\"DEFAULT\",\"deleted\":false}}]}}",
                    portfolio(ctx, account)
                ),
            ),
            ("GET", "payment_methods") => {
                Response::json(200, "{\"payment_methods\":[]}".to_owned())
            }
            ("POST", "orders") => self.create(ctx, account, &body),
            ("POST", "orders/preview") => self.preview(ctx, account, &body),
            ("POST", "orders/batch_cancel") => self.batch_cancel(ctx, account, &body),
            ("POST", "orders/edit") => self.edit(ctx, account, &body),
            ("POST", "orders/edit_preview") => {
                Response::json(200, "{\"errors\":[],\"slippage\":\"0\"}".to_owned())
            }
            ("GET", "orders/historical/batch") => list_orders(ctx, account, &params),
            ("GET", "orders/historical/fills") => self.list_fills(ctx, account, &params),
            ("GET", other) => match other.strip_prefix("orders/historical/") {
                Some(id) => match find(ctx, account, id) {
                    Some(id) => {
                        let row = order_row(ctx, &ctx.desk.view(id));
                        Response::json(200, format!("{{\"order\":{row}}}"))
                    }
                    None => generic(404, "NOT_FOUND", "order not found"),
                },
                None => match other.strip_prefix("accounts/") {
                    Some(uuid) => one_account(ctx, account, uuid),
                    None => generic(404, "NOT_FOUND", "unknown path"),
                },
            },
            _ => generic(404, "NOT_FOUND", "unknown path"),
        }
    }

    /// `/v2/…`: what ccxt asks at start and for balances.
    pub(super) fn consumer(&mut self, ctx: &mut Ctx<'_>, request: &Request) -> Response {
        let currencies = |member: &str| -> String {
            let mut names: Vec<String> = self
                .product_ids(ctx)
                .iter()
                .flat_map(|(_, inst, _)| {
                    let spec = &ctx.market.instruments()[*inst].spec;
                    [spec.base.clone(), spec.quote.clone()]
                })
                .chain(["USDC".to_owned()])
                .collect();
            names.sort();
            names.dedup();
            let rows: Vec<String> = names
                .iter()
                .map(|n| format!("{{\"{member}\":\"{n}\",\"code\":\"{n}\",\"name\":\"{n}\",\"min_size\":\"0.00000001\"}}"))
                .collect();
            rows.join(",")
        };
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v2/currencies") => {
                Response::json(200, format!("{{\"data\":[{}]}}", currencies("id")))
            }
            ("GET", "/v2/currencies/crypto") => {
                Response::json(200, format!("{{\"data\":[{}]}}", currencies("asset_id")))
            }
            ("GET", "/v2/exchange-rates") => Response::json(
                200,
                "{\"data\":{\"currency\":\"USD\",\"rates\":{\"USD\":\"1\"}}}".to_owned(),
            ),
            ("GET", "/v2/time") => Response::json(
                200,
                format!("{{\"data\":{{\"epoch\":{}}}}}", ctx.hub.venue_now(VENUE) / 1_000_000_000),
            ),
            ("GET", "/v2/accounts") => {
                let Some(key) = rest_key(ctx, request) else { return unauthorized() };
                let account = ctx.keys.get(key).account;
                let rows: Vec<String> = ctx
                    .balances(account)
                    .iter()
                    .enumerate()
                    .map(|(n, (asset, b))| {
                        format!(
                            "{{\"id\":\"{}\",\"name\":\"{asset} Wallet\",\"primary\":false,\"type\":\"wallet\",\
                             \"currency\":{{\"code\":\"{asset}\",\"name\":\"{asset}\"}},\
                             \"balance\":{{\"amount\":\"{}\",\"currency\":\"{asset}\"}}}}",
                            wallet(ctx, account, n),
                            b.free()
                        )
                    })
                    .collect();
                Response::json(
                    200,
                    format!(
                        "{{\"pagination\":{{\"next_uri\":null}},\"data\":[{}]}}",
                        rows.join(",")
                    ),
                )
            }
            _ => generic(404, "NOT_FOUND", "unknown path"),
        }
    }

    /// Reads an order; the error is the venue's reason.
    fn read_order(&self, ctx: &Ctx<'_>, body: &Value) -> Result<NewOrder, String> {
        let product = text(body, "product_id").ok_or("INVALID_PRODUCT_ID")?;
        let inst = Self::resolve(ctx.market, product).ok_or("INVALID_PRODUCT_ID")?;
        let spec = &ctx.market.instruments()[inst].spec;
        let side = match text(body, "side") {
            Some("BUY") => Side::Bid,
            Some("SELL") => Side::Ask,
            _ => return Err("INVALID_SIDE".to_owned()),
        };
        let unsupported = "UNSUPPORTED_ORDER_CONFIGURATION";
        let configuration = body.get("order_configuration").and_then(Value::as_object);
        let configuration = configuration.ok_or(unsupported)?;
        let [(name, members)] = configuration.iter().collect::<Vec<_>>()[..] else {
            return Err(unsupported.to_owned());
        };
        let post = members.get("post_only").and_then(Value::as_bool) == Some(true);
        let (kind, tif) = match name.as_str() {
            "market_market_ioc" => (OrderType::Market, Tif::Ioc),
            "sor_limit_ioc" => (OrderType::Limit, Tif::Ioc),
            "limit_limit_fok" => (OrderType::Limit, Tif::Fok),
            "limit_limit_gtc" => (OrderType::Limit, Tif::Gtc),
            "limit_limit_gtd" => {
                let end = text(members, "end_time").ok_or("GTD_ORDERS_MUST_HAVE_END_TIME")?;
                let end = parse_rfc3339(end).ok_or("GTD_ORDERS_MUST_HAVE_END_TIME")?;
                if end <= ctx.now {
                    return Err("END_TIME_IS_IN_THE_PAST".to_owned());
                }
                (OrderType::Limit, Tif::Gtd(end))
            }
            _ => return Err(unsupported.to_owned()),
        };
        let kind = if post && kind == OrderType::Limit { OrderType::PostOnly } else { kind };
        let px = match (kind, text(members, "limit_price")) {
            (OrderType::Market, _) => None,
            (_, None) => return Err("INVALID_LIMIT_PRICE".to_owned()),
            (_, Some(price)) => {
                Amount::parse(price).ok_or("PREVIEW_NON_NUMERIC_ORDER_SIZE")?;
                Some(spec.tick.parse(price).ok_or("INVALID_PRICE_PRECISION")?)
            }
        };
        let size = match (text(members, "base_size"), text(members, "quote_size")) {
            (Some(size), None) => {
                Amount::parse(size).ok_or("PREVIEW_NON_NUMERIC_ORDER_SIZE")?;
                Size::Base(spec.lot.parse(size).ok_or("INVALID_SIZE_PRECISION")?)
            }
            (None, Some(size)) => {
                Size::Quote(Amount::parse(size).ok_or("PREVIEW_NON_NUMERIC_ORDER_SIZE")?)
            }
            _ => return Err(unsupported.to_owned()),
        };
        let configuration =
            body.get("order_configuration").map_or("{}".to_owned(), Value::to_string);
        Ok(NewOrder {
            kind,
            px,
            size,
            stp: ctx.cfg.coinbase.stp,
            client_id: text(body, "client_order_id").unwrap_or("").to_owned(),
            quote: product.rsplit_once('-').map(|(_, quote)| quote.to_owned()),
            arrived_ns: ctx.arrived_ns,
            quirks: ctx.fate.quirks.clone(),
            tag: format!("{product}\n{configuration}"),
            ..NewOrder::limit(inst, side, 0, 0, tif)
        })
    }

    fn create(&mut self, ctx: &mut Ctx<'_>, account: usize, body: &Value) -> Response {
        let configuration =
            body.get("order_configuration").map_or("{}".to_owned(), Value::to_string);
        let Some(client_id) = text(body, "client_order_id") else {
            return generic(400, "INVALID_ARGUMENT", "client_order_id is required");
        };
        let refuse = |why: &str| Response::json(200, refused_json(why, &configuration));
        let known = ctx.desk.by_client(account, client_id);
        let id = match (known, self.read_order(ctx, body)) {
            (Some(_), _) if ctx.cfg.coinbase.refuse_duplicates => {
                return refuse("DUPLICATE_CLIENT_ORDER_ID");
            }
            // The id is known: nothing is placed, the order it names is the answer.
            (Some(id), _) => id,
            (None, Err(why)) => return refuse(&why),
            (None, Ok(order)) => match ctx.desk.place(ctx.market, ctx.now, account, order) {
                Ok(id) => id,
                Err(reject) => return refuse(&reason(&reject)),
            },
        };
        let order = &ctx.desk.orders()[id];
        let (product, configuration) = tag_of(order);
        let mut client = String::new();
        write_json_string(client_id, &mut client);
        Response::json(
            200,
            format!(
                "{{\"success\":true,\"success_response\":{{\"order_id\":\"{}\",\"product_id\":\"{product}\",\
                 \"side\":\"{}\",\"client_order_id\":{client}}},\"order_configuration\":{configuration}}}",
                order.ext,
                side_of(order.ask.side)
            ),
        )
    }

    fn preview(&mut self, ctx: &mut Ctx<'_>, account: usize, body: &Value) -> Response {
        let checked = self.read_order(ctx, body).and_then(|order| {
            let lots = ctx.desk.check(ctx.market, account, &order).map_err(|r| reason(&r))?;
            Ok((order, lots))
        });
        let (errs, order) = match checked {
            Ok(order) => (String::new(), Some(order)),
            Err(why) => {
                let why = why.strip_prefix("PREVIEW_").unwrap_or(&why);
                (format!("\"PREVIEW_{why}\""), None)
            }
        };
        let (mut base, mut total, mut fee, mut bid, mut ask) =
            (Amount::ZERO, Amount::ZERO, Amount::ZERO, String::new(), String::new());
        if let Some((order, lots)) = order {
            let it = &ctx.market.instruments()[order.inst];
            let best = |side| it.book.best(side).map_or(0, |l| l.px);
            let px = order.px.unwrap_or_else(|| best(order.side.other()));
            base = Amount::of(it.spec.lot, lots);
            total = Amount::worth(it.spec.tick, px, it.spec.lot, lots);
            fee = total.rate(ctx.desk.accounts()[account].fees.taker_ppm, 16);
            (bid, ask) =
                (it.spec.tick.trimmed(best(Side::Bid)), it.spec.tick.trimmed(best(Side::Ask)));
        }
        Response::json(
            200,
            format!(
                "{{\"order_total\":\"{}\",\"commission_total\":\"{fee}\",\"errs\":[{errs}],\"warning\":[],\
                 \"quote_size\":\"{total}\",\"base_size\":\"{base}\",\"best_bid\":\"{bid}\",\"best_ask\":\"{ask}\",\
                 \"is_max\":false,\"slippage\":\"0\",\"preview_id\":\"{}\",\"est_average_filled_price\":\"\"}}",
                total + fee,
                ctx.desk.ext_id(VENUE, 'V', usize::try_from(ctx.now % 1_000_003).unwrap_or(0))
            ),
        )
    }

    fn batch_cancel(&mut self, ctx: &mut Ctx<'_>, account: usize, body: &Value) -> Response {
        let ids = body.get("order_ids").and_then(Value::as_array).cloned().unwrap_or_default();
        if ids.is_empty() {
            return generic(400, "INVALID_ARGUMENT", "order_ids is required");
        }
        if ids.len() > CANCELS_MAX {
            let why = format!("Too many orderIDs entered, limit is {CANCELS_MAX}");
            return generic(400, "InvalidArgument", &why);
        }
        let mut rows = Vec::new();
        for text in ids.iter().filter_map(Value::as_str) {
            let Some(id) = find(ctx, account, text) else {
                rows.push(cancel_row(text, Some("UNKNOWN_CANCEL_ORDER")));
                continue;
            };
            if ctx.desk.orders()[id].status == Status::Filled {
                rows.push(cancel_row(text, Some("ORDER_IS_FULLY_FILLED")));
                continue;
            }
            let queued = ctx.desk.orders()[id].clone();
            let done = match ctx.fate.fill_after_ns {
                Some(after) => ctx.desk.cancel_late(ctx.now, id, ctx.now + after),
                None => ctx.desk.cancel(ctx.market, ctx.now, id, Ended::User),
            };
            if done.is_ok() {
                // The request is accepted before it is done (sheet 7.3).
                self.tell(ctx, account, &queued, Some("CANCEL_QUEUED"));
            }
            rows.push(cancel_row(text, done.is_err().then_some("UNKNOWN_CANCEL_ORDER")));
        }
        Response::json(200, format!("{{\"results\":[{}]}}", rows.join(",")))
    }

    fn edit(&mut self, ctx: &mut Ctx<'_>, account: usize, body: &Value) -> Response {
        let fail = |why: &str| {
            let body = format!(
                "{{\"success\":false,\"errors\":[{{\"edit_failure_reason\":\"{why}\",\"preview_failure_reason\":\"\"}}]}}"
            );
            Response::json(200, body)
        };
        let Some(id) = text(body, "order_id").and_then(|t| find(ctx, account, t)) else {
            return fail("ORDER_NOT_FOUND");
        };
        let order = &ctx.desk.orders()[id];
        if order.status.is_done() {
            return fail("ONLY_OPEN_ORDERS_CAN_BE_EDITED");
        }
        let spec = &ctx.market.instruments()[order.ask.inst].spec;
        let Some(px) = text(body, "price").and_then(|t| spec.tick.parse(t)) else {
            return fail("INVALID_EDITED_PRICE");
        };
        let Some(lots) = text(body, "size").and_then(|t| spec.lot.parse(t)) else {
            return fail("INVALID_EDITED_SIZE");
        };
        if lots <= order.filled {
            return fail("CANNOT_EDIT_TO_BELOW_FILLED_SIZE");
        }
        if Some(px) == order.ask.px && lots == order.lots {
            return fail("EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST");
        }
        match ctx.desk.amend(ctx.market, ctx.now, id, lots, px) {
            Ok(()) => Response::json(200, "{\"success\":true,\"errors\":[]}".to_owned()),
            Err(reject) => fail(&reason(&reject)),
        }
    }

    fn list_fills(
        &mut self,
        ctx: &Ctx<'_>,
        account: usize,
        params: &[(String, String)],
    ) -> Response {
        let lag = ctx.cfg.coinbase.fills_lag_ms * MS;
        let query = ListQuery { params };
        let (orders, products) =
            (query.all(&["order_ids", "order_id"]), query.all(&["product_ids", "product_id"]));
        let trades = query.all(&["trade_ids"]);
        let from = query.time("start_sequence_timestamp");
        let to = query.time("end_sequence_timestamp");
        let all: Vec<&Fill> = ctx
            .desk
            .fills()
            .iter()
            .rev()
            .filter(|f| f.account == account && f.at_ns + lag <= ctx.now && ctx.is_visible(f.order))
            .filter(|f| from.is_none_or(|t| f.at_ns >= t) && to.is_none_or(|t| f.at_ns <= t))
            .filter(|f| {
                let order = &ctx.desk.orders()[f.order];
                let listed = |list: &[&str], text: &str| list.is_empty() || list.contains(&text);
                listed(&orders, &order.ext)
                    && listed(&products, tag_of(order).0)
                    && listed(&trades, &f.trade_id.to_string())
            })
            .collect();
        let (page, cursor) = query.page(&all, 100);
        let rows: Vec<String> = page.iter().map(|f| fill_row(ctx, f)).collect();
        Response::json(200, format!("{{\"fills\":[{}],\"cursor\":\"{cursor}\"}}", rows.join(",")))
    }

    /// Tells an account's subscribers what happened.
    pub fn on_report(&mut self, ctx: &mut Ctx<'_>, report: &Report) {
        match &report.what {
            What::New(order) | What::Amended(order) | What::Prevented(order, _) => {
                self.tell(ctx, report.account, order, None);
            }
            What::Trade(order, _) | What::Ended(order, _) => {
                self.tell(ctx, report.account, order, None);
            }
            What::Balances(_) | What::External(..) => {}
        }
    }

    /// Sends one order's state to all `user` subscriptions of its account.
    fn tell(&mut self, ctx: &mut Ctx<'_>, account: usize, order: &Order, status: Option<&str>) {
        if !self.conns.values().any(|c| c.user == Some(account)) {
            return;
        }
        let row = user_row(ctx, order, status);
        let events = format!("[{{\"type\":\"update\",\"orders\":[{row}]}}]");
        let product = ctx.market.instruments()[order.ask.inst].spec.symbol.clone();
        for (id, conn) in self.conns.iter_mut().filter(|(_, c)| c.user == Some(account)) {
            Self::frame(ctx, *id, conn, "user", &product, Class::User, &events);
        }
    }

    /// Opens the `user` channel: open orders in events of fifty, the last with fewer.
    pub(super) fn open_user(
        &mut self,
        ctx: &mut Ctx<'_>,
        id: ConnId,
        conn: &mut Conn,
        account: usize,
    ) {
        conn.user = Some(account);
        if let Some(link) = ctx.hub.links.get_mut(&id) {
            link.account = Some(ctx.desk.accounts()[account].name.clone());
        }
        let open: Vec<usize> = ctx.desk.accounts()[account]
            .open
            .iter()
            .copied()
            .filter(|order| ctx.is_visible(*order))
            .collect();
        let mut rest = open.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(SNAPSHOT_ORDERS));
            let rows: Vec<String> =
                now.iter().map(|id| user_row(ctx, &ctx.desk.orders()[*id], None)).collect();
            let events = format!("[{{\"type\":\"snapshot\",\"orders\":[{}]}}]", rows.join(","));
            Self::frame(ctx, id, conn, "user", "", Class::User, &events);
            rest = later;
            if now.len() < SNAPSHOT_ORDERS {
                return;
            }
        }
    }

    /// Sends a frame of the `user` channel.
    pub(super) fn send_user(ctx: &mut Ctx<'_>, id: ConnId, symbol: &str, body: String) {
        ctx.hub.send_user(id, symbol, Bytes::from(body));
    }
}

/// Checked access to the parameters of a list.
struct ListQuery<'a> {
    params: &'a [(String, String)],
}

impl<'a> ListQuery<'a> {
    fn all(&self, names: &[&str]) -> Vec<&'a str> {
        let found =
            self.params.iter().filter(|(n, v)| names.contains(&n.as_str()) && !v.is_empty());
        found.flat_map(|(_, v)| v.split(',')).collect()
    }

    fn time(&self, name: &str) -> Option<u64> {
        self.all(&[name]).first().and_then(|t| parse_rfc3339(t))
    }

    fn page<T: Copy>(&self, all: &[T], default: usize) -> (Vec<T>, String) {
        let number = |name: &str| self.all(&[name]).first().and_then(|t| t.parse::<usize>().ok());
        let (skip, limit) = (number("cursor").unwrap_or(0), number("limit").unwrap_or(default));
        let limit = limit.clamp(1, 1_000);
        let page: Vec<T> = all.iter().skip(skip).take(limit).copied().collect();
        let next = skip + page.len();
        (page, if next < all.len() { next.to_string() } else { String::new() })
    }
}

fn find(ctx: &Ctx<'_>, account: usize, text: &str) -> Option<usize> {
    let id = ctx.desk.by_ext(VENUE, text)?;
    (ctx.desk.orders()[id].account == account && ctx.is_visible(id)).then_some(id)
}

fn cancel_row(id: &str, failure: Option<&str>) -> String {
    format!(
        "{{\"success\":{},\"failure_reason\":\"{}\",\"order_id\":\"{id}\"}}",
        failure.is_none(),
        // The reason is there even when nothing failed (sheet 7.3).
        failure.unwrap_or("UNKNOWN_CANCEL_FAILURE_REASON")
    )
}

fn portfolio(ctx: &Ctx<'_>, account: usize) -> String {
    ctx.desk.ext_id(VENUE, 'F', account)
}

fn wallet(ctx: &Ctx<'_>, account: usize, n: usize) -> String {
    ctx.desk.ext_id(VENUE, 'W', account * 1_000 + n)
}

fn account_row(
    ctx: &Ctx<'_>,
    account: usize,
    n: usize,
    asset: &str,
    available: Amount,
    hold: Amount,
) -> String {
    let kind = if matches!(asset, "USD" | "EUR") { "FIAT" } else { "CRYPTO" };
    format!(
        "{{\"uuid\":\"{}\",\"name\":\"{asset} Wallet\",\"currency\":\"{asset}\",\
         \"available_balance\":{{\"value\":\"{available}\",\"currency\":\"{asset}\"}},\"default\":true,\"active\":true,\
         \"created_at\":\"2023-01-01T00:00:00.000Z\",\"updated_at\":\"2023-01-01T00:00:00.000Z\",\"deleted_at\":null,\
         \"type\":\"ACCOUNT_TYPE_{kind}\",\"ready\":true,\"hold\":{{\"value\":\"{hold}\",\"currency\":\"{asset}\"}},\
         \"retail_portfolio_id\":\"{}\",\"platform\":\"ACCOUNT_PLATFORM_CONSUMER\"}}",
        wallet(ctx, account, n),
        portfolio(ctx, account)
    )
}

fn accounts(ctx: &Ctx<'_>, account: usize, params: &[(String, String)]) -> Response {
    let all: Vec<String> = ctx
        .balances(account)
        .iter()
        .enumerate()
        .map(|(n, (asset, b))| account_row(ctx, account, n, asset, b.free(), b.held))
        .collect();
    let borrowed: Vec<&str> = all.iter().map(String::as_str).collect();
    let (page, cursor) = ListQuery { params }.page(&borrowed, 49);
    Response::json(
        200,
        format!(
            "{{\"accounts\":[{}],\"has_next\":{},\"cursor\":\"{cursor}\",\"size\":{}}}",
            page.join(","),
            !cursor.is_empty(),
            page.len()
        ),
    )
}

fn one_account(ctx: &Ctx<'_>, account: usize, uuid: &str) -> Response {
    let balances = ctx.balances(account);
    let found = balances.iter().enumerate().find(|(n, _)| wallet(ctx, account, *n) == uuid);
    match found {
        None => generic(404, "NOT_FOUND", "account not found"),
        Some((n, (asset, b))) => {
            let row = account_row(ctx, account, n, asset, b.free(), b.held);
            Response::json(200, format!("{{\"account\":{row}}}"))
        }
    }
}

/// A rate as a fraction: `0.006`.
fn fraction(ppm: i64) -> Amount {
    Amount(i128::from(ppm) * 10_i128.pow(10))
}

fn summary(ctx: &Ctx<'_>, account: usize) -> String {
    let owner = &ctx.desk.accounts()[account];
    let fills = || ctx.desk.fills().iter().filter(move |f| f.account == account);
    let volume: Amount = fills().map(|f| f.cost).sum();
    let fees: Amount = fills().map(|f| f.fee).sum();
    // Totals are JSON numbers.
    let (volume, fees) = (volume.fixed(2), fees.fixed(2));
    format!(
        "{{\"total_volume\":{volume},\"total_fees\":{fees},\"fee_tier\":{{\"pricing_tier\":\"Advanced 1\",\
         \"usd_from\":\"0\",\"usd_to\":\"1000\",\"taker_fee_rate\":\"{}\",\"maker_fee_rate\":\"{}\",\
         \"aop_from\":\"\",\"aop_to\":\"\"}},\"margin_rate\":null,\"goods_and_services_tax\":null,\
         \"advanced_trade_only_volumes\":{volume},\"advanced_trade_only_fees\":{fees},\"coinbase_pro_volume\":0,\
         \"coinbase_pro_fees\":0,\"total_balance\":\"0\",\"has_promo_fee\":false}}",
        fraction(owner.fees.taker_ppm),
        fraction(owner.fees.maker_ppm)
    )
}

fn side_of(side: Side) -> &'static str {
    if side == Side::Bid { "BUY" } else { "SELL" }
}

fn status_of(order: &Order) -> &'static str {
    match order.status {
        Status::Open | Status::PartiallyFilled => "OPEN",
        Status::Filled => "FILLED",
        Status::Expired if order.ended == Some(Ended::Gtd) => "EXPIRED",
        _ => "CANCELLED",
    }
}

fn tif_of(order: &Order) -> &'static str {
    match order.ask.tif {
        Tif::Gtc => "GOOD_UNTIL_CANCELLED",
        Tif::Ioc => "IMMEDIATE_OR_CANCEL",
        Tif::Fok => "FILL_OR_KILL",
        Tif::Gtd(_) => "GOOD_UNTIL_DATE_TIME",
    }
}

fn average(ctx: &Ctx<'_>, order: &Order) -> Amount {
    let spec = &ctx.market.instruments()[order.ask.inst].spec;
    order.cost.over(Amount::of(spec.lot, order.filled), 8)
}

/// Fees with the sign that `total_value_after_fees` wants.
fn after_fees(order: &Order, fees: Amount) -> Amount {
    if order.ask.side == Side::Bid { order.cost + fees } else { order.cost - fees }
}

/// Percent of the order that filled.
fn completion(order: &Order) -> Amount {
    let share = Amount(i128::from(order.filled) * 100);
    share.over(Amount(i128::from(order.lots.max(1))), 2)
}

/// An order on the `user` channel: all values are text.
fn user_row(ctx: &Ctx<'_>, order: &Order, status: Option<&str>) -> String {
    let spec = &ctx.market.instruments()[order.ask.inst].spec;
    let fees: Amount = order.fees.iter().map(|(_, f)| *f).sum();
    let kind = if order.ask.kind == OrderType::Market { "Market" } else { "Limit" };
    let mut client = String::new();
    write_json_string(&order.ask.client_id, &mut client);
    let end = match order.ask.tif {
        Tif::Gtd(at) => rfc3339_us(at),
        _ => String::new(),
    };
    format!(
        "{{\"order_id\":\"{}\",\"client_order_id\":{client},\"cumulative_quantity\":\"{}\",\"leaves_quantity\":\"{}\",\
         \"avg_price\":\"{}\",\"total_fees\":\"{fees}\",\"filled_value\":\"{}\",\"number_of_fills\":\"{}\",\
         \"completion_percentage\":\"{}\",\"outstanding_hold_amount\":\"{}\",\"limit_price\":\"{}\",\
         \"stop_price\":\"\",\"status\":\"{}\",\"product_id\":\"{}\",\"product_type\":\"SPOT\",\
         \"creation_time\":\"{}\",\"end_time\":\"{end}\",\"start_time\":\"\",\"order_side\":\"{}\",\"order_type\":\"{kind}\",\
         \"time_in_force\":\"{}\",\"trigger_status\":\"INVALID_ORDER_TYPE\",\"post_only\":\"{}\",\"cancel_reason\":\"{}\",\
         \"reject_reason\":\"\",\"total_value_after_fees\":\"{}\",\
         \"contract_expiry_type\":\"UNKNOWN_CONTRACT_EXPIRY_TYPE\",\"risk_managed_by\":\"UNKNOWN_RISK_MANAGEMENT_TYPE\",\
         \"retail_portfolio_id\":\"{}\"}}",
        order.ext,
        spec.lot.trimmed(order.filled),
        spec.lot.trimmed(order.left()),
        average(ctx, order),
        order.cost,
        order.fill_count,
        completion(order),
        order.reserved,
        order.ask.px.map_or(String::new(), |px| spec.tick.trimmed(px)),
        status.unwrap_or_else(|| status_of(order)),
        tag_of(order).0,
        rfc3339_us(order.accepted_ns),
        side_of(order.ask.side),
        tif_of(order),
        order.ask.kind == OrderType::PostOnly,
        if status_of(order) == "CANCELLED" { "User requested" } else { "" },
        after_fees(order, fees),
        portfolio(ctx, order.account)
    )
}

/// An order over REST.
fn order_row(ctx: &Ctx<'_>, order: &Order) -> String {
    let fees: Amount = order.fees.iter().map(|(_, f)| *f).sum();
    let spec = &ctx.market.instruments()[order.ask.inst].spec;
    let kind = if order.ask.kind == OrderType::Market { "MARKET" } else { "LIMIT" };
    let (product, configuration) = tag_of(order);
    let (product, configuration) =
        if product.is_empty() { (spec.symbol.as_str(), "{}") } else { (product, configuration) };
    let mut client = String::new();
    write_json_string(&order.ask.client_id, &mut client);
    // Fills are in order of time: none of this order is older than it.
    let mut newer = ctx.desk.fills().iter().rev().take_while(|f| f.at_ns >= order.accepted_ns);
    let last = if order.fill_count > 0 { newer.find(|f| f.order == order.id) } else { None };
    let last = last.map_or("null".to_owned(), |f| format!("\"{}\"", rfc3339_us(f.at_ns)));
    let message = match order.ended {
        Some(Ended::User) => "User requested cancel",
        Some(_) => "Internal error",
        None => "",
    };
    format!(
        "{{\"order_id\":\"{}\",\"product_id\":\"{product}\",\"user_id\":\"{}\",\"order_configuration\":{configuration},\
         \"side\":\"{}\",\"client_order_id\":{client},\"status\":\"{}\",\"time_in_force\":\"{}\",\"created_time\":\"{}\",\
         \"completion_percentage\":\"{}\",\"filled_size\":\"{}\",\"average_filled_price\":\"{}\",\"fee\":\"\",\
         \"number_of_fills\":\"{}\",\"filled_value\":\"{}\",\"pending_cancel\":false,\"size_in_quote\":{},\
         \"total_fees\":\"{fees}\",\"size_inclusive_of_fees\":{},\"total_value_after_fees\":\"{}\",\
         \"trigger_status\":\"INVALID_ORDER_TYPE\",\"order_type\":\"{kind}\",\
         \"reject_reason\":\"REJECT_REASON_UNSPECIFIED\",\"settled\":{},\"product_type\":\"SPOT\",\"reject_message\":\"\",\
         \"cancel_message\":\"{message}\",\"order_placement_source\":\"RETAIL_ADVANCED\",\
         \"outstanding_hold_amount\":\"{}\",\"is_liquidation\":false,\"last_fill_time\":{last},\"edit_history\":[],\
         \"leverage\":\"\",\"margin_type\":\"UNKNOWN_MARGIN_TYPE\",\"retail_portfolio_id\":\"{}\",\
         \"originating_order_id\":\"\",\"attached_order_id\":\"\"}}",
        order.ext,
        portfolio(ctx, order.account),
        side_of(order.ask.side),
        status_of(order),
        tif_of(order),
        rfc3339_us(order.accepted_ns),
        completion(order),
        spec.lot.trimmed(order.filled),
        average(ctx, order),
        order.fill_count,
        order.cost,
        matches!(order.ask.size, Size::Quote(_)),
        matches!(order.ask.size, Size::Quote(_)),
        after_fees(order, fees),
        order.status == Status::Filled,
        order.reserved,
        portfolio(ctx, order.account)
    )
}

fn fill_row(ctx: &Ctx<'_>, fill: &Fill) -> String {
    let order = &ctx.desk.orders()[fill.order];
    let spec = &ctx.market.instruments()[fill.inst].spec;
    let at = rfc3339_us(fill.at_ns);
    let mut out = String::with_capacity(512);
    let _ = write!(
        out,
        "{{\"entry_id\":\"{}\",\"trade_id\":\"{}\",\"order_id\":\"{}\",\"trade_time\":\"{at}\",\"trade_type\":\"{}\",\
         \"price\":\"{}\",\"size\":\"{}\",\"commission\":\"{}\",\"product_id\":\"{}\",\"sequence_timestamp\":\"{at}\",\
         \"liquidity_indicator\":\"{}\",\"size_in_quote\":false,\"user_id\":\"{}\",\"side\":\"{}\",\
         \"retail_portfolio_id\":\"{}\"}}",
        ctx.desk.ext_id(VENUE, 'E', fill.id),
        fill.trade_id,
        order.ext,
        if fill.busted { "REVERSAL" } else { "FILL" },
        spec.tick.trimmed(fill.px),
        spec.lot.trimmed(fill.lots),
        fill.fee,
        tag_of(order).0,
        if fill.maker { "MAKER" } else { "TAKER" },
        portfolio(ctx, fill.account),
        side_of(fill.side),
        portfolio(ctx, fill.account)
    );
    out
}

fn list_orders(ctx: &Ctx<'_>, account: usize, params: &[(String, String)]) -> Response {
    let query = ListQuery { params };
    let ids = query.all(&["order_ids"]);
    let products = query.all(&["product_ids", "product_id"]);
    let statuses = query.all(&["order_status"]);
    let sides = query.all(&["order_side"]);
    let (from, to) = (query.time("start_date"), query.time("end_date"));
    let listed = |list: &[&str], text: &str| list.is_empty() || list.contains(&text);
    let all: Vec<usize> = ctx
        .desk
        .orders()
        .iter()
        .rev()
        .filter(|o| o.account == account && ctx.is_visible(o.id))
        .filter(|o| {
            from.is_none_or(|t| o.accepted_ns >= t) && to.is_none_or(|t| o.accepted_ns <= t)
        })
        .filter(|o| {
            listed(&ids, &o.ext)
                && listed(&products, tag_of(o).0)
                && listed(&sides, side_of(o.ask.side))
                && listed(&statuses, if o.canceling { "CANCELLED" } else { status_of(o) })
        })
        .map(|o| o.id)
        .collect();
    let (page, cursor) = query.page(&all, 1_000);
    let rows: Vec<String> = page.iter().map(|id| order_row(ctx, &ctx.desk.view(*id))).collect();
    Response::json(
        200,
        format!(
            "{{\"orders\":[{}],\"sequence\":\"0\",\"has_next\":{},\"cursor\":\"{cursor}\"}}",
            rows.join(","),
            !cursor.is_empty()
        ),
    )
}

/// `best_bid_ask`.
pub(super) fn best_bid_ask(ctx: &Ctx<'_>, products: &[(String, usize)], at: u64) -> Response {
    let rows: Vec<String> = products
        .iter()
        .map(|(name, inst)| {
            let it = &ctx.market.instruments()[*inst];
            let side = |side| {
                it.book.best(side).map_or(String::new(), |l| {
                    format!(
                        "{{\"price\":\"{}\",\"size\":\"{}\"}}",
                        it.spec.tick.trimmed(l.px),
                        it.spec.lot.trimmed(l.qty)
                    )
                })
            };
            format!(
                "{{\"product_id\":\"{name}\",\"bids\":[{}],\"asks\":[{}],\"time\":\"{}\"}}",
                side(Side::Bid),
                side(Side::Ask),
                rfc3339_us(at)
            )
        })
        .collect();
    Response::json(200, format!("{{\"pricebooks\":[{}]}}", rows.join(",")))
}
