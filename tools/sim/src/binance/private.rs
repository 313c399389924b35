//! Binance's private calls: orders, account, permissions, over REST and the WebSocket API alike
//! (`protocols/binance.md` 4-9, 12).
//!
//! Invariant: a call is carried out only for a key whose signature over the bytes received is right and whose
//! timestamp is within its window, whichever way it came; the body of an answer is the same either way.

use std::fmt::Write as _;

use rand::Rng;
use serde_json::Value;

use super::{Binance, DECIMALS, Query, VENUE, stamp};
use crate::amount::Amount;
use crate::book::Side;
use crate::crypto::{base64, hmac_sha256_hex, unbase64};
use crate::exchange::{
    Ended, Fill, Mode, NewOrder, Order, OrderType, Reject, Size, Status, Stp, Tif,
};
use crate::faults::{Answer, Refused};
use crate::keys::Proof;
use crate::market::{MS, Spec};
use crate::net::{Request, Response, parse_query};
use crate::observe::Wants;
use crate::units::write_json_string;
use crate::world::{Ctx, Look};

/// A private call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Place,
    Test,
    Get,
    Cancel,
    OpenOrders,
    CancelAll,
    AllOrders,
    Account,
    MyTrades,
    Commission,
    OrderCounts,
    CancelReplace,
    Amend,
    Restrictions,
    TradeFee,
    Filters,
    /// What clients ask at start and can do without.
    Nothing,
}

impl Call {
    fn of_rest(method: &str, path: &str) -> Option<Self> {
        Some(match (method, path) {
            ("POST", "/api/v3/order") => Self::Place,
            ("POST", "/api/v3/order/test") => Self::Test,
            ("GET", "/api/v3/order") => Self::Get,
            ("DELETE", "/api/v3/order") => Self::Cancel,
            ("GET", "/api/v3/openOrders") => Self::OpenOrders,
            ("DELETE", "/api/v3/openOrders") => Self::CancelAll,
            ("GET", "/api/v3/allOrders") => Self::AllOrders,
            ("GET", "/api/v3/account") => Self::Account,
            ("GET", "/api/v3/myTrades") => Self::MyTrades,
            ("GET", "/api/v3/account/commission") => Self::Commission,
            ("GET", "/api/v3/rateLimit/order") => Self::OrderCounts,
            ("POST", "/api/v3/order/cancelReplace") => Self::CancelReplace,
            ("PUT", "/api/v3/order/amend/keepPriority") => Self::Amend,
            ("GET", "/sapi/v1/account/apiRestrictions") => Self::Restrictions,
            ("GET", "/sapi/v1/asset/tradeFee") => Self::TradeFee,
            ("GET", "/api/v3/myFilters") => Self::Filters,
            ("GET", "/api/v3/myPreventedMatches" | "/api/v3/myAllocations")
            | ("GET", "/api/v3/openOrderList" | "/api/v3/allOrderList")
            | ("GET", "/sapi/v1/capital/config/getall")
            | ("GET", "/sapi/v1/margin/allPairs" | "/sapi/v1/margin/isolated/allPairs") => {
                Self::Nothing
            }
            _ => return None,
        })
    }

    pub(super) fn of_method(method: &str) -> Option<Self> {
        Some(match method {
            "order.place" => Self::Place,
            "order.test" => Self::Test,
            "order.status" => Self::Get,
            "order.cancel" => Self::Cancel,
            "openOrders.status" => Self::OpenOrders,
            "openOrders.cancelAll" => Self::CancelAll,
            "allOrders" => Self::AllOrders,
            "account.status" => Self::Account,
            "myTrades" => Self::MyTrades,
            "account.commission" => Self::Commission,
            "account.rateLimits.orders" => Self::OrderCounts,
            "order.cancelReplace" => Self::CancelReplace,
            "order.amend.keepPriority" => Self::Amend,
            "myFilters" => Self::Filters,
            "myPreventedMatches" | "myAllocations" | "openOrderLists.status" | "allOrderLists" => {
                Self::Nothing
            }
            _ => return None,
        })
    }

    pub(super) fn wants(self) -> Wants {
        match self {
            Self::Place | Self::CancelReplace | Self::Amend => Wants::New,
            Self::Cancel | Self::CancelAll => Wants::Cancel,
            _ => Wants::Query,
        }
    }

    /// Whether it touches the unfilled-order limits.
    pub(super) fn is_order(self) -> bool {
        self.wants() != Wants::Query
    }

    /// Request weight (sheet 4.5); order traffic costs nothing if it succeeds.
    pub(super) fn weight(self, params: &Params, ok: bool) -> u64 {
        match self {
            Self::Place | Self::Cancel | Self::CancelAll | Self::CancelReplace => u64::from(!ok),
            Self::Test if params.get("computeCommissionRates") == Some("true") => 20,
            Self::Test | Self::Restrictions | Self::TradeFee | Self::Nothing => 1,
            Self::Get | Self::Amend => 4,
            Self::OpenOrders if params.get("symbol").is_some() => 6,
            Self::OpenOrders => 80,
            Self::MyTrades if params.get("orderId").is_some() => 5,
            Self::AllOrders | Self::Account | Self::MyTrades | Self::Commission => 20,
            Self::OrderCounts | Self::Filters => 40,
        }
    }
}

/// Parameters of a call, as text, with the unit of the answer's times.
#[derive(Clone, Debug, Default)]
pub(super) struct Params {
    pub list: Vec<(String, String)>,
    pub micro: bool,
}

impl Params {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.list.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn need(&self, name: &str) -> Result<&str, Fail> {
        self.get(name).ok_or_else(|| Fail::missing(name))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Fail> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Fail::illegal(name, "^[0-9]{1,20}$"))
    }

    fn query(&self) -> Query<'_> {
        Query { params: &self.list }
    }
}

/// An error as both ways say it.
#[derive(Clone, Debug)]
pub(super) struct Fail {
    pub status: u16,
    pub code: i64,
    pub msg: String,
    /// What cancelReplace and limits add, as JSON.
    pub data: Option<String>,
    /// Seconds for `Retry-After`.
    pub retry_s: Option<u64>,
}

impl Fail {
    pub fn new(status: u16, code: i64, msg: &str) -> Self {
        Self { status, code, msg: msg.to_owned(), data: None, retry_s: None }
    }

    pub fn missing(name: &str) -> Self {
        let msg =
            format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed.");
        Self::new(400, -1102, &msg)
    }

    fn illegal(name: &str, range: &str) -> Self {
        let msg =
            format!("Illegal characters found in parameter '{name}'; legal range is '{range}'.");
        Self::new(400, -1100, &msg)
    }

    pub fn key() -> Self {
        Self::new(401, -2015, "Invalid API-key, IP, or permissions for action.")
    }

    fn filter(name: &str) -> Self {
        Self::new(400, -1013, &format!("Filter failure: {name}"))
    }

    /// An error of a fault's own words: a code, or a code and a text.
    fn said(text: &str) -> Self {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        let code: i64 = code.parse().unwrap_or(-2010);
        let status = match code {
            -1003 | -1015 => 429,
            -1002 | -2014 | -2015 => 401,
            -1000 | -1001 | -1006 => 500,
            -1007 => 504,
            -1008 => 503,
            _ => 400,
        };
        let known = match code {
            -1000 => "An unknown error occurred while processing the request.",
            -1001 => "Internal error; unable to process your request. Please try again.",
            -1003 => "Too many requests.",
            -1006 => {
                "An unexpected response was received from the message bus. Execution status unknown."
            }
            -1007 => {
                "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
            }
            -1008 => {
                "Server is currently overloaded with other requests. Please try again in a few minutes."
            }
            -1013 => "Filter failure: LOT_SIZE",
            -1015 => "Too many new orders; current limit is 100 orders per 10 SECOND.",
            -1021 => "Timestamp for this request is outside of the recvWindow.",
            -1022 => "Signature for this request is not valid.",
            -1111 => "Parameter 'quantity' has too much precision.",
            -1121 => "Invalid symbol.",
            -2011 => "Unknown order sent.",
            -2013 => "Order does not exist.",
            -2014 => "API-key format invalid.",
            -2015 => "Invalid API-key, IP, or permissions for action.",
            _ => "Account has insufficient balance for requested action.",
        };
        Self::new(status, code, if rest.is_empty() { known } else { rest })
    }

    fn reject(reject: &Reject) -> Self {
        match reject {
            Reject::Tick => Self::filter("PRICE_FILTER"),
            Reject::Lot | Reject::MinQty | Reject::MaxQty => Self::filter("LOT_SIZE"),
            Reject::MinNotional | Reject::MaxNotional => Self::filter("NOTIONAL"),
            Reject::PriceBand => Self::filter("PERCENT_PRICE_BY_SIDE"),
            Reject::TooManyOrders => Self::filter("MAX_NUM_ORDERS"),
            Reject::Closed(Mode::Maintenance) => Self::new(
                503,
                -1008,
                "Server is currently overloaded with other requests. Please try again in a few minutes.",
            ),
            Reject::Closed(_) => Self::new(400, -1013, "Market is closed."),
            Reject::Funds => {
                Self::new(400, -2010, "Account has insufficient balance for requested action.")
            }
            Reject::WouldTake => Self::new(400, -2010, "Order would immediately match and take."),
            Reject::DuplicateId => Self::new(400, -2010, "Duplicate order sent."),
            Reject::NoLiquidity => Self::new(400, -1112, "No orders on book for symbol."),
            Reject::UnknownOrder => Self::new(400, -2011, "Unknown order sent."),
            Reject::BadAmend => Self::new(400, -2038, "Order amend is not supported."),
            Reject::Said(text) => Self::said(text),
        }
    }

    pub fn object(&self) -> String {
        let mut out = format!("{{\"code\":{},\"msg\":", self.code);
        write_json_string(&self.msg, &mut out);
        if let Some(data) = &self.data {
            let _ = write!(out, ",\"data\":{data}");
        }
        out.push('}');
        out
    }

    fn response(&self) -> Response {
        let response = Response::json(self.status, self.object());
        match self.retry_s {
            Some(seconds) => response.with("Retry-After", seconds),
            None => response,
        }
    }
}

impl From<(i64, String)> for Fail {
    fn from((code, msg): (i64, String)) -> Self {
        Self::new(400, code, &msg)
    }
}

/// The bytes a REST signature is over: query and body as sent, each without its `signature`.
fn rest_payload(query: &str, body: &str) -> (String, Option<String>) {
    let mut signature = None;
    let mut strip = |text: &str| -> String {
        let kept: Vec<&str> = text
            .split('&')
            .filter(|pair| match pair.strip_prefix("signature=") {
                Some(value) => {
                    signature.get_or_insert_with(|| crate::net::percent_decode_raw(value));
                    false
                }
                None => true,
            })
            .collect();
        kept.join("&")
    };
    let query = strip(query);
    (query + &strip(body), signature)
}

/// Whether a signature over `payload` is right, as this kind of key writes it.
pub(super) fn is_signed(proof: &Proof, payload: &[u8], signature: &str) -> bool {
    match proof {
        Proof::Hmac(secret) => hmac_sha256_hex(secret, payload).eq_ignore_ascii_case(signature),
        Proof::Public(key) => unbase64(signature)
            .is_some_and(|raw| base64(&raw) == signature && key.verify(payload, &raw)),
    }
}

/// The time rules (sheet 4.2).
pub(super) fn check_time(ctx: &Ctx<'_>, params: &Params) -> Result<(), Fail> {
    let sent = params.need("timestamp")?;
    let sent: u64 = sent.parse().map_err(|_| Fail::illegal("timestamp", "^[0-9]{1,20}$"))?;
    // Milliseconds and microseconds do not overlap in any year of interest.
    let sent_ns = if sent > 100_000_000_000_000 {
        sent.saturating_mul(1_000)
    } else {
        sent.saturating_mul(MS)
    };
    let window = params.get("recvWindow").unwrap_or("5000");
    let window = Amount::parse(window)
        .filter(|w| w.is_positive())
        .ok_or_else(|| Fail::illegal("recvWindow", "^([0-9]{1,5})(\\.[0-9]{1,3})?$"))?;
    if window > Amount::parse("60000").unwrap_or_default() {
        return Err(Fail::new(400, -1131, "'recvWindow' must be less than 60000."));
    }
    let now = ctx.hub.venue_now(VENUE);
    if sent_ns >= now + 1_000 * MS {
        let msg = "Timestamp for this request was 1000ms ahead of the server's time.";
        return Err(Fail::new(400, -1021, msg));
    }
    // An amount has 16 decimals: a millisecond of window is 10^16, a nanosecond 10^10.
    let window_ns = u64::try_from(window.0 / 10_000_000_000).unwrap_or(u64::MAX);
    if now.saturating_sub(sent_ns) > window_ns {
        let msg = "Timestamp for this request is outside of the recvWindow.";
        return Err(Fail::new(400, -1021, msg));
    }
    Ok(())
}

impl Binance {
    /// A private REST request, before it is authenticated.
    fn private_call(request: &Request) -> Option<(Call, Params)> {
        let at = request.path.find("/api/v3/").or_else(|| request.path.find("/sapi/v1/"))?;
        let call = Call::of_rest(&request.method, &request.path[at..])?;
        let mut list = request.params();
        // On a duplicate the query string wins: it comes first.
        list.extend(parse_query(&String::from_utf8_lossy(&request.body)));
        let unit = request.header("x-mbx-time-unit");
        let micro = unit.is_some_and(|u| u.eq_ignore_ascii_case("microsecond"));
        Some((call, Params { list, micro }))
    }

    /// What a REST request is about.
    pub fn look(&self, ctx: &Ctx<'_>, request: &Request) -> Option<Look> {
        let (call, params) = Self::private_call(request)?;
        let key = request.header("x-mbx-apikey").and_then(|k| ctx.keys.find(VENUE, k))?;
        Some(look(ctx, call, &params, ctx.keys.get(key).account))
    }

    /// Answers a private REST request; `None` if it is none.
    pub(super) fn private_rest(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: &Request,
    ) -> Option<Response> {
        if request.path.ends_with("/userDataStream") {
            return Some(Response::html(410, "<html><body>410 Gone</body></html>"));
        }
        let (call, params) = Self::private_call(request)?;
        let limit = u64::from(ctx.cfg.binance.weight_per_min);
        if self.weight.add(request.peer, 0, ctx.now) >= limit {
            return Some(self.refuse(ctx, request.peer));
        }
        self.raw.add(request.peer, 1, ctx.now);
        let result = authenticate(ctx, request, &params)
            .and_then(|key| self.call(ctx, key, call, &params).map(|body| (key, body)));
        let weight = call.weight(&params, result.is_ok());
        let used = self.weight.add(request.peer, weight, ctx.now);
        let mut response = match &result {
            Ok((_, body)) => Response::json(200, body.clone()),
            Err(fail) => fail.response(),
        };
        if let (Ok((key, _)), true) = (&result, call.is_order()) {
            let [ten, day] = self.order_counts(ctx, ctx.keys.get(*key).account);
            response =
                response.with("x-mbx-order-count-10s", ten).with("x-mbx-order-count-1d", day);
        }
        Some(response.with("x-mbx-used-weight", used).with("x-mbx-used-weight-1m", used))
    }

    /// The answer a fault wants instead of the right one.
    pub fn wrong_response(&self, ctx: &Ctx<'_>, answer: &Answer) -> Response {
        match answer {
            Answer::Ambiguous(status) | Answer::Refused(Refused::RateLimit(status)) => {
                self.error_page(ctx, *status)
            }
            other => wrong(other).response(),
        }
    }

    /// Carries out a call for a key that proved itself.
    pub(super) fn call(
        &mut self,
        ctx: &mut Ctx<'_>,
        key: usize,
        call: Call,
        params: &Params,
    ) -> Result<String, Fail> {
        let permissions = ctx.keys.get(key).permissions;
        let account = ctx.keys.get(key).account;
        if (call.is_order() || call == Call::Test) && !permissions.trade {
            return Err(Fail::key());
        }
        match call {
            Call::Place => self.place(ctx, account, params),
            Call::Test => {
                let new = self.parse_order(ctx, params)?;
                ctx.desk.check(ctx.market, account, &new).map_err(|r| Fail::reject(&r))?;
                if params.get("computeCommissionRates") == Some("true") {
                    return Ok(commission(ctx, account, None, "ForOrder"));
                }
                Ok("{}".to_owned())
            }
            Call::Get => {
                let id = find_order(ctx, account, params, "origClientOrderId", -2013)?;
                Ok(order_json(ctx, &ctx.desk.view(id), params.micro))
            }
            Call::Cancel => self.cancel(ctx, account, params),
            Call::OpenOrders => {
                let inst = optional_symbol(ctx, params)?;
                let open = ctx.desk.accounts()[account].open.clone();
                let rows: Vec<String> = open
                    .into_iter()
                    .filter(|id| inst.is_none_or(|i| ctx.desk.orders()[*id].ask.inst == i))
                    .filter(|id| ctx.is_visible(*id) && !ctx.desk.orders()[*id].canceling)
                    .map(|id| order_json(ctx, &ctx.desk.orders()[id], params.micro))
                    .collect();
                Ok(format!("[{}]", rows.join(",")))
            }
            Call::CancelAll => self.cancel_all(ctx, account, params),
            Call::AllOrders => {
                let inst = params.query().symbol(ctx)?;
                let from = params.number("orderId")?.unwrap_or(0);
                let limit = params.query().limit(500, 1_000)?;
                let times = [params.number("startTime")?, params.number("endTime")?];
                let all: Vec<String> = ctx
                    .desk
                    .orders()
                    .iter()
                    .filter(|o| o.account == account && o.ask.inst == inst)
                    .filter(|o| o.ext.parse::<u64>().is_ok_and(|n| n >= from))
                    .filter(|o| within(o.accepted_ns, times) && ctx.is_visible(o.id))
                    .map(|o| order_json(ctx, &ctx.desk.view(o.id), params.micro))
                    .collect();
                Ok(format!("[{}]", page(&all, limit, from > 0)))
            }
            Call::Account => Ok(account_json(ctx, account, params)),
            Call::MyTrades => my_trades(ctx, account, params),
            Call::Commission => {
                let inst = params.query().symbol(ctx)?;
                Ok(commission(ctx, account, Some(inst), ""))
            }
            Call::OrderCounts => {
                let [ten, day] = self.order_counts(ctx, account);
                let cfg = &ctx.cfg.binance;
                Ok(format!(
                    "[{{\"rateLimitType\":\"ORDERS\",\"interval\":\"SECOND\",\"intervalNum\":10,\"limit\":{},\"count\":{ten}}},\
                     {{\"rateLimitType\":\"ORDERS\",\"interval\":\"DAY\",\"intervalNum\":1,\"limit\":{},\"count\":{day}}}]",
                    cfg.orders_per_10s, cfg.orders_per_day
                ))
            }
            Call::CancelReplace => self.cancel_replace(ctx, account, params),
            Call::Amend => self.amend(ctx, account, params),
            Call::Restrictions => {
                let p = permissions;
                Ok(format!(
                    "{{\"ipRestrict\":{},\"createTime\":1760000000000,\"enableReading\":true,\
                     \"enableWithdrawals\":{},\"enableInternalTransfer\":{t},\"enableMargin\":false,\
                     \"enableFutures\":false,\"permitsUniversalTransfer\":{t},\"enableVanillaOptions\":false,\
                     \"enableFixApiTrade\":false,\"enableFixReadOnly\":true,\"enableSpotAndMarginTrading\":{},\
                     \"enablePortfolioMarginTrading\":false}}",
                    p.ip_restricted,
                    p.withdraw,
                    p.trade,
                    t = p.transfer
                ))
            }
            Call::TradeFee => {
                let (list, _) = params.query().symbols(ctx)?;
                let fees = &ctx.desk.accounts()[account].fees;
                let (maker, taker) = (rate(fees.maker_ppm), rate(fees.taker_ppm));
                let rows: Vec<String> = list
                    .into_iter()
                    .map(|inst| {
                        format!(
                            "{{\"symbol\":\"{}\",\"makerCommission\":\"{maker}\",\"takerCommission\":\"{taker}\"}}",
                            ctx.market.instruments()[inst].spec.symbol
                        )
                    })
                    .collect();
                Ok(format!("[{}]", rows.join(",")))
            }
            Call::Filters => {
                Ok("{\"exchangeFilters\":[],\"symbolFilters\":[],\"assetFilters\":[]}".to_owned())
            }
            Call::Nothing => Ok("[]".to_owned()),
        }
    }

    /// Unfilled orders of an account in the 10-second window and the day.
    pub(super) fn order_counts(&mut self, ctx: &Ctx<'_>, account: usize) -> [u64; 2] {
        let windows = [ctx.now / 10_000_000_000, ctx.now / 86_400_000_000_000];
        let counts = self.unfilled.entry(account).or_default();
        for (count, window) in counts.iter_mut().zip(windows) {
            if count.0 != window {
                *count = (window, 0);
            }
        }
        [counts[0].1, counts[1].1]
    }

    fn check_count(&mut self, ctx: &Ctx<'_>, account: usize) -> Result<(), Fail> {
        let [ten, day] = self.order_counts(ctx, account);
        let cfg = &ctx.cfg.binance;
        let (limit, what, left_s) = if ten >= cfg.orders_per_10s {
            (cfg.orders_per_10s, "10 SECOND", 10 - ctx.now / 1_000_000_000 % 10)
        } else if day >= cfg.orders_per_day {
            (cfg.orders_per_day, "1 DAY", 86_400 - ctx.now / 1_000_000_000 % 86_400)
        } else {
            return Ok(());
        };
        let msg = format!("Too many new orders; current limit is {limit} orders per {what}.");
        let mut fail = Fail::new(429, -1015, &msg);
        fail.retry_s = Some(left_s);
        fail.data = Some(format!(
            "{{\"serverTime\":{},\"retryAfter\":{}}}",
            ctx.now / MS,
            ctx.now / MS + left_s * 1_000
        ));
        Err(fail)
    }

    fn count_order(&mut self, ctx: &Ctx<'_>, account: usize) {
        self.order_counts(ctx, account);
        for count in self.unfilled.entry(account).or_default() {
            count.1 += 1;
        }
    }

    /// Gives back what the first fill of an order earns (sheet 5.9).
    pub(super) fn earn_count(&mut self, account: usize, maker: bool) {
        for count in self.unfilled.entry(account).or_default() {
            count.1 = count.1.saturating_sub(if maker { 5 } else { 1 });
        }
    }

    fn random_id(&mut self) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        (0..22).map(|_| char::from(DIGITS[self.rng.random_range(0..DIGITS.len())])).collect()
    }

    fn place(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, Fail> {
        let new = self.parse_order(ctx, params)?;
        self.check_count(ctx, account)?;
        let kind = new.kind;
        let placed = ctx.desk.place(ctx.market, ctx.now, account, new);
        let id = placed.map_err(|r| Fail::reject(&r))?;
        self.count_order(ctx, account);
        let default = if kind == OrderType::PostOnly { "ACK" } else { "FULL" };
        let wanted = params.get("newOrderRespType").unwrap_or(default);
        Ok(placed_json(ctx, &ctx.desk.orders()[id], wanted, params.micro))
    }

    /// Reads a new order's parameters, in the documented order of checks.
    fn parse_order(&mut self, ctx: &Ctx<'_>, params: &Params) -> Result<NewOrder, Fail> {
        let inst = params.query().symbol(ctx)?;
        let spec = &ctx.market.instruments()[inst].spec;
        let side = match params.need("side")? {
            "BUY" => Side::Bid,
            "SELL" => Side::Ask,
            _ => return Err(Fail::new(400, -1117, "Invalid side.")),
        };
        let kind = match params.need("type")? {
            "LIMIT" => OrderType::Limit,
            "LIMIT_MAKER" => OrderType::PostOnly,
            "MARKET" => OrderType::Market,
            _ => return Err(Fail::new(400, -1116, "Invalid orderType.")),
        };
        let tif = match (kind, params.get("timeInForce")) {
            (OrderType::Limit, None) => return Err(Fail::missing("timeInForce")),
            (OrderType::Limit, Some("GTC")) | (OrderType::PostOnly, None) => Tif::Gtc,
            (OrderType::Limit, Some("IOC")) | (OrderType::Market, None) => Tif::Ioc,
            (OrderType::Limit, Some("FOK")) => Tif::Fok,
            (OrderType::Limit, Some(_)) => {
                return Err(Fail::new(400, -1115, "Invalid timeInForce."));
            }
            (_, Some(_)) => return Err(unwanted("timeInForce")),
        };
        let px = match (kind, params.get("price")) {
            (OrderType::Market, None) => None,
            (OrderType::Market, Some(_)) => return Err(unwanted("price")),
            (_, None) => return Err(Fail::missing("price")),
            (_, Some(text)) => {
                decimal("price", text)?;
                let px = spec.tick.parse(text).ok_or_else(|| Fail::filter("PRICE_FILTER"))?;
                Some(px)
            }
        };
        let size = match (params.get("quantity"), params.get("quoteOrderQty")) {
            (Some(text), None) => {
                decimal("quantity", text)?;
                let lots = spec.lot.parse(text).ok_or_else(|| Fail::filter("LOT_SIZE"))?;
                Size::Base(lots)
            }
            (None, Some(text)) if kind == OrderType::Market => {
                Size::Quote(decimal("quoteOrderQty", text)?)
            }
            (None, Some(_)) | (Some(_), Some(_)) => return Err(unwanted("quoteOrderQty")),
            (None, None) => return Err(Fail::missing("quantity")),
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
        let client_id = match params.get("newClientOrderId") {
            None => self.random_id(),
            Some(id) if id.len() <= 36 && id.bytes().all(legal) => id.to_owned(),
            Some(_) => {
                return Err(Fail::illegal("newClientOrderId", "^[\\.A-Z\\:/a-z0-9_-]{1,36}$"));
            }
        };
        let stp = match params.get("selfTradePreventionMode") {
            None | Some("EXPIRE_MAKER") => Stp::Maker,
            Some("NONE") => Stp::None,
            Some("EXPIRE_TAKER") => Stp::Taker,
            Some("EXPIRE_BOTH") => Stp::Both,
            Some("DECREMENT" | "TRANSFER") => Stp::Decrement,
            Some(_) => {
                let msg = "This symbol does not allow the specified self-trade prevention mode.";
                return Err(Fail::new(400, -1013, msg));
            }
        };
        let response = params.get("newOrderRespType");
        if response.is_some_and(|r| !matches!(r, "ACK" | "RESULT" | "FULL")) {
            return Err(Fail::new(400, -1119, "Invalid newOrderRespType."));
        }
        let base = NewOrder::limit(inst, side, 0, 0, tif);
        Ok(NewOrder {
            kind,
            px,
            size,
            client_id,
            stp,
            arrived_ns: ctx.arrived_ns,
            quirks: ctx.fate.quirks.clone(),
            ..base
        })
    }

    /// Cancels one order, or acknowledges it and lets it fill later.
    fn cancel_one(&mut self, ctx: &mut Ctx<'_>, id: usize) -> Result<(), Fail> {
        let done = match ctx.fate.fill_after_ns {
            Some(after) => ctx.desk.cancel_late(ctx.now, id, ctx.now + after),
            None => ctx.desk.cancel(ctx.market, ctx.now, id, Ended::User),
        };
        done.map_err(|r| Fail::reject(&r))
    }

    fn cancel(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, Fail> {
        let id = find_order(ctx, account, params, "origClientOrderId", -2011)?;
        let order = &ctx.desk.orders()[id];
        let fits = match params.get("cancelRestrictions") {
            None => true,
            Some("ONLY_NEW") => order.status == Status::Open,
            Some("ONLY_PARTIALLY_FILLED") => order.status == Status::PartiallyFilled,
            Some(_) => return Err(Fail::new(400, -1145, "Invalid cancelRestrictions.")),
        };
        if !fits && !order.status.is_done() {
            let msg = "Order was not canceled due to cancel restrictions.";
            return Err(Fail::new(400, -2011, msg));
        }
        let name = params.get("newClientOrderId").map(str::to_owned);
        let name = name.unwrap_or_else(|| self.random_id());
        self.cancel_ids.insert(id, name.clone());
        self.cancel_one(ctx, id)?;
        Ok(canceled_json(ctx, &ctx.desk.view(id), &name, params.micro))
    }

    fn cancel_all(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, Fail> {
        let inst = params.query().symbol(ctx)?;
        let open: Vec<usize> = ctx.desk.accounts()[account].open.iter().copied().collect();
        let mut rows = Vec::new();
        for id in open {
            if ctx.desk.orders()[id].ask.inst != inst {
                continue;
            }
            let name = self.random_id();
            self.cancel_ids.insert(id, name.clone());
            if self.cancel_one(ctx, id).is_ok() {
                rows.push(canceled_json(ctx, &ctx.desk.view(id), &name, params.micro));
            }
        }
        if rows.is_empty() {
            return Err(Fail::reject(&Reject::UnknownOrder));
        }
        Ok(format!("[{}]", rows.join(",")))
    }

    fn cancel_replace(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, Fail> {
        let stop = match params.need("cancelReplaceMode")? {
            "STOP_ON_FAILURE" => true,
            "ALLOW_FAILURE" => false,
            _ => return Err(Fail::missing("cancelReplaceMode")),
        };
        // Filters and the order count are checked before the cancel.
        self.parse_order(ctx, params)?;
        self.check_count(ctx, account)?;
        let rename = |from: &str| params.get(from).map(str::to_owned);
        let mut cancel = Params { list: Vec::new(), micro: params.micro };
        let names = [
            ("symbol", "symbol"),
            ("orderId", "cancelOrderId"),
            ("origClientOrderId", "cancelOrigClientOrderId"),
            ("newClientOrderId", "cancelNewClientOrderId"),
            ("cancelRestrictions", "cancelRestrictions"),
        ];
        for (to, from) in names {
            cancel.list.extend(rename(from).map(|value| (to.to_owned(), value)));
        }
        let canceled = self.cancel(ctx, account, &cancel);
        let placed = match &canceled {
            Err(_) if stop => None,
            _ => Some(self.place(ctx, account, params)),
        };
        if placed.is_none() {
            self.count_order(ctx, account);
        }
        let word = |ok: bool| if ok { "SUCCESS" } else { "FAILURE" };
        let text = |result: &Result<String, Fail>| match result {
            Ok(body) => body.clone(),
            Err(fail) => fail.object(),
        };
        let data = format!(
            "{{\"cancelResult\":\"{}\",\"newOrderResult\":\"{}\",\"cancelResponse\":{},\"newOrderResponse\":{}}}",
            word(canceled.is_ok()),
            placed.as_ref().map_or("NOT_ATTEMPTED", |p| word(p.is_ok())),
            text(&canceled),
            placed.as_ref().map_or("null".to_owned(), text)
        );
        match (canceled.is_ok(), placed.is_some_and(|p| p.is_ok())) {
            (true, true) => Ok(data),
            (false, false) => {
                let mut fail = Fail::new(400, -2022, "Order cancel-replace failed.");
                fail.data = Some(data);
                Err(fail)
            }
            _ => {
                let mut fail = Fail::new(409, -2021, "Order cancel-replace partially failed.");
                fail.data = Some(data);
                Err(fail)
            }
        }
    }

    fn amend(
        &mut self,
        ctx: &mut Ctx<'_>,
        account: usize,
        params: &Params,
    ) -> Result<String, Fail> {
        let id = find_order(ctx, account, params, "origClientOrderId", -2013)?;
        let order = &ctx.desk.orders()[id];
        let spec = &ctx.market.instruments()[order.ask.inst].spec;
        let text = params.need("newQty")?;
        decimal("newQty", text)?;
        let lots = spec.lot.parse(text).ok_or_else(|| Fail::filter("LOT_SIZE"))?;
        if lots <= order.filled || lots >= order.lots {
            return Err(Fail::reject(&Reject::BadAmend));
        }
        let (px, old) = (order.ask.px.unwrap_or(0), order.ask.client_id.clone());
        ctx.desk.amend(ctx.market, ctx.now, id, lots, px).map_err(|r| Fail::reject(&r))?;
        let at = stamp(ctx.now, params.micro);
        let order = &ctx.desk.orders()[id];
        let mut amended = String::new();
        write_body(ctx, order, &mut amended);
        let amended = amended.replace("\"cummulativeQuoteQty\"", "\"cumulativeQuoteQty\"");
        Ok(format!(
            "{{\"transactTime\":{at},\"executionId\":{},\"amendedOrder\":{{\"symbol\":\"{}\",\"orderId\":{},\
             \"orderListId\":-1,\"origClientOrderId\":\"{old}\",\"clientOrderId\":\"{old}\",{amended}}}}}",
            self.execution_id(),
            ctx.market.instruments()[order.ask.inst].spec.symbol,
            order.ext
        ))
    }

    pub(super) fn execution_id(&mut self) -> u64 {
        self.executions += 1;
        70_000_000 + self.executions
    }
}

/// What a call is about, for the counters and the faults.
pub(super) fn look(ctx: &Ctx<'_>, call: Call, params: &Params, account: usize) -> Look {
    let symbol = params.get("symbol").unwrap_or("").to_owned();
    let quote = ctx.market.find(VENUE, &symbol).map(|i| &ctx.market.instruments()[i].spec.quote);
    let worth = (call.wants() == Wants::New)
        .then(|| {
            let px = Amount::parse(params.get("price")?)?;
            let qty = Amount::parse(params.get("quantity")?)?;
            // Both have at most eight decimals: half the digits each keep the product exact.
            let half = 10_i128.pow(8);
            Some((quote?.clone(), Amount((px.0 / half) * (qty.0 / half))))
        })
        .flatten();
    let id = if call.wants() == Wants::New { "newClientOrderId" } else { "origClientOrderId" };
    let client_id = params.get(id).or(params.get("orderId")).unwrap_or("").to_owned();
    Look { wants: Some(call.wants()), account: Some(account), symbol, client_id, worth }
}

/// Proves a REST request to be its key's.
fn authenticate(ctx: &Ctx<'_>, request: &Request, params: &Params) -> Result<usize, Fail> {
    let format = || Fail::new(401, -2014, "API-key format invalid.");
    let text = request.header("x-mbx-apikey").filter(|k| !k.is_empty()).ok_or_else(format)?;
    let key = ctx.keys.find(VENUE, text).ok_or_else(Fail::key)?;
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let (payload, signature) = rest_payload(&request.query, &body);
    let signature = signature.ok_or_else(|| Fail::missing("signature"))?;
    if ctx.keys.get(key).revoked {
        return Err(Fail::key());
    }
    if !is_signed(&ctx.keys.get(key).proof, payload.as_bytes(), &signature) {
        return Err(Fail::new(400, -1022, "Signature for this request is not valid."));
    }
    check_time(ctx, params)?;
    Ok(key)
}

/// The error a fault wants.
pub(super) fn wrong(answer: &Answer) -> Fail {
    match answer {
        Answer::Refused(Refused::Auth) => Fail::key(),
        Answer::Refused(Refused::Said(text)) => Fail::said(text),
        Answer::Refused(Refused::RateLimit(418)) => {
            Fail::new(418, -1003, "Way too much request weight used; IP banned.")
        }
        Answer::Refused(Refused::RateLimit(_)) => Fail::said("-1003"),
        Answer::Ambiguous(503) => Fail::said("-1008"),
        Answer::Ambiguous(500) => Fail::said("-1006"),
        Answer::Ambiguous(504) => Fail::said("-1007"),
        Answer::Ambiguous(status) => Fail { status: *status, ..Fail::said("-1000") },
        _ => Fail::reject(&Reject::Funds),
    }
}

fn unwanted(name: &str) -> Fail {
    Fail::new(400, -1106, &format!("Parameter '{name}' sent when not required."))
}

fn decimal(name: &str, text: &str) -> Result<Amount, Fail> {
    let plain = |t: &str| !t.is_empty() && t.len() <= 20 && t.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if !plain(whole) || !plain(part) {
        return Err(Fail::illegal(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$"));
    }
    if part.trim_end_matches('0').len() > 8 {
        let msg = format!("Parameter '{name}' has too much precision.");
        return Err(Fail::new(400, -1111, &msg));
    }
    Amount::parse(text).ok_or_else(|| Fail::illegal(name, "^([0-9]{1,20})(\\.[0-9]{1,20})?$"))
}

fn optional_symbol(ctx: &Ctx<'_>, params: &Params) -> Result<Option<usize>, Fail> {
    match params.get("symbol") {
        None => Ok(None),
        Some(_) => Ok(Some(params.query().symbol(ctx)?)),
    }
}

/// Finds an account's order by `orderId`, or by its client id; both must agree.
fn find_order(
    ctx: &Ctx<'_>,
    account: usize,
    params: &Params,
    by_client: &str,
    code: i64,
) -> Result<usize, Fail> {
    let inst = params.query().symbol(ctx)?;
    let unknown = || {
        let msg = if code == -2011 { "Unknown order sent." } else { "Order does not exist." };
        Fail::new(400, code, msg)
    };
    let number = params.number("orderId")?;
    let client = params.get(by_client);
    let id = match (number, client) {
        (Some(number), _) => ctx.desk.by_ext(VENUE, &number.to_string()),
        (None, Some(client)) => ctx.desk.by_client(account, client),
        (None, None) => {
            let msg =
                format!("Param '{by_client}' or 'orderId' must be sent, but both were empty/null!");
            return Err(Fail::new(400, -1102, &msg));
        }
    };
    let id = id.ok_or_else(unknown)?;
    let order = &ctx.desk.orders()[id];
    let same = number.is_none() || client.is_none_or(|c| c == order.ask.client_id);
    // A cancel is told at once that it is done; queries of a hidden order find nothing.
    if order.account != account || order.ask.inst != inst || !same || !ctx.is_visible(id) {
        return Err(unknown());
    }
    Ok(id)
}

fn within(at_ns: u64, [from, to]: [Option<u64>; 2]) -> bool {
    from.is_none_or(|f| at_ns / MS >= f) && to.is_none_or(|t| at_ns / MS <= t)
}

/// The newest `limit` rows, or the first ones after an id.
fn page(rows: &[String], limit: usize, from_start: bool) -> String {
    let skip = if from_start { 0 } else { rows.len().saturating_sub(limit) };
    rows.iter().skip(skip).take(limit).map(String::as_str).collect::<Vec<_>>().join(",")
}

pub(super) fn rate(ppm: i64) -> String {
    Amount(i128::from(ppm) * 10_i128.pow(10)).fixed(DECIMALS)
}

pub(super) fn status_of(order: &Order) -> &'static str {
    match order.status {
        Status::Open => "NEW",
        Status::PartiallyFilled => "PARTIALLY_FILLED",
        Status::Filled => "FILLED",
        Status::Canceled => "CANCELED",
        Status::Expired => "EXPIRED",
        Status::Prevented => "EXPIRED_IN_MATCH",
    }
}

pub(super) fn type_of(order: &Order) -> &'static str {
    match order.ask.kind {
        OrderType::Limit => "LIMIT",
        OrderType::PostOnly => "LIMIT_MAKER",
        OrderType::Market => "MARKET",
    }
}

pub(super) fn tif_of(order: &Order) -> &'static str {
    match (order.ask.kind, order.ask.tif) {
        (OrderType::Market, _) => "GTC",
        (_, Tif::Ioc) => "IOC",
        (_, Tif::Fok) => "FOK",
        _ => "GTC",
    }
}

pub(super) fn side_of(side: Side) -> &'static str {
    if side == Side::Bid { "BUY" } else { "SELL" }
}

pub(super) fn stp_of(order: &Order) -> &'static str {
    match order.ask.stp {
        Stp::None => "NONE",
        Stp::Taker => "EXPIRE_TAKER",
        Stp::Maker => "EXPIRE_MAKER",
        Stp::Both => "EXPIRE_BOTH",
        Stp::Decrement => "DECREMENT",
    }
}

/// Why an order expired, in the words of the reply.
pub(super) fn reason_of(order: &Order) -> Option<&'static str> {
    match order.ended? {
        Ended::Ioc => Some("UNFILLED_IOC_QUANTITY_EXPIRED"),
        Ended::Fok => Some("UNFILLED_FOK_ORDER_EXPIRED"),
        Ended::NoLiquidity => Some("INSUFFICIENT_LIQUIDITY"),
        Ended::Venue => Some("EXCHANGE_CANCELED"),
        _ => None,
    }
}

fn spec_of<'a>(ctx: &'a Ctx<'_>, order: &Order) -> &'a Spec {
    &ctx.market.instruments()[order.ask.inst].spec
}

/// Money asked for by an order by money.
pub(super) fn quote_asked(order: &Order) -> String {
    match order.ask.size {
        Size::Quote(money) => money.fixed(DECIMALS),
        Size::Base(_) => Amount::ZERO.fixed(DECIMALS),
    }
}

/// Writes the members that every description of an order shares.
fn write_body(ctx: &Ctx<'_>, order: &Order, out: &mut String) {
    let spec = spec_of(ctx, order);
    let _ = write!(
        out,
        "\"price\":\"{}\",\"origQty\":\"{}\",\"executedQty\":\"{}\",\"origQuoteOrderQty\":\"{}\",\
         \"cummulativeQuoteQty\":\"{}\",\"status\":\"{}\",\"timeInForce\":\"{}\",\"type\":\"{}\",\"side\":\"{}\"",
        spec.tick.fixed(order.ask.px.unwrap_or(0), DECIMALS),
        spec.lot.fixed(order.lots, DECIMALS),
        spec.lot.fixed(order.filled, DECIMALS),
        quote_asked(order),
        order.cost.fixed(DECIMALS),
        status_of(order),
        tif_of(order),
        type_of(order),
        side_of(order.ask.side),
    );
    let _ = write!(out, ",\"selfTradePreventionMode\":\"{}\"", stp_of(order));
    if order.status == Status::Prevented {
        let prevented = spec.lot.fixed(order.prevented, DECIMALS);
        let _ = write!(out, ",\"preventedMatchId\":0,\"preventedQuantity\":\"{prevented}\"");
    }
    if let Some(reason) = reason_of(order) {
        let _ = write!(out, ",\"expiryReason\":\"{reason}\"");
    }
}

/// The reply to a new order.
fn placed_json(ctx: &Ctx<'_>, order: &Order, wanted: &str, micro: bool) -> String {
    let spec = spec_of(ctx, order);
    let at = stamp(order.accepted_ns, micro);
    let mut out = format!(
        "{{\"symbol\":\"{}\",\"orderId\":{},\"orderListId\":-1,\"clientOrderId\":\"{}\",\"transactTime\":{at}",
        spec.symbol, order.ext, order.ask.client_id
    );
    if wanted != "ACK" {
        out.push(',');
        write_body(ctx, order, &mut out);
        let _ = write!(out, ",\"workingTime\":{at}");
    }
    if wanted == "FULL" {
        out.push_str(",\"fills\":[");
        let fills = ctx.desk.fills().iter().rev().take_while(|f| f.at_ns >= order.accepted_ns);
        let mut fills: Vec<&Fill> = fills.filter(|f| f.order == order.id).collect();
        fills.reverse();
        for (i, fill) in fills.into_iter().enumerate() {
            let _ = write!(
                out,
                "{}{{\"price\":\"{}\",\"qty\":\"{}\",\"commission\":\"{}\",\"commissionAsset\":\"{}\",\"tradeId\":{}}}",
                if i == 0 { "" } else { "," },
                spec.tick.fixed(fill.px, DECIMALS),
                spec.lot.fixed(fill.lots, DECIMALS),
                fill.fee.fixed(DECIMALS),
                fill.fee_asset,
                fill.trade_id
            );
        }
        out.push(']');
    }
    out.push('}');
    out
}

/// An order as queries show it.
fn order_json(ctx: &Ctx<'_>, order: &Order, micro: bool) -> String {
    let spec = spec_of(ctx, order);
    let mut out = format!(
        "{{\"symbol\":\"{}\",\"orderId\":{},\"orderListId\":-1,\"clientOrderId\":\"{}\",",
        spec.symbol, order.ext, order.ask.client_id
    );
    write_body(ctx, order, &mut out);
    let (at, updated) = (stamp(order.accepted_ns, micro), stamp(order.updated_ns, micro));
    let _ = write!(
        out,
        ",\"stopPrice\":\"0.00000000\",\"icebergQty\":\"0.00000000\",\"time\":{at},\"updateTime\":{updated},\
         \"isWorking\":true,\"workingTime\":{at}}}"
    );
    out
}

fn canceled_json(ctx: &Ctx<'_>, order: &Order, name: &str, micro: bool) -> String {
    let spec = spec_of(ctx, order);
    let mut out = format!(
        "{{\"symbol\":\"{}\",\"origClientOrderId\":\"{}\",\"orderId\":{},\"orderListId\":-1,\
         \"clientOrderId\":\"{name}\",\"transactTime\":{},",
        spec.symbol,
        order.ask.client_id,
        order.ext,
        stamp(ctx.now, micro)
    );
    write_body(ctx, order, &mut out);
    out.push('}');
    out
}

/// A balance as account and stream show it.
pub(super) fn free_and_locked(ctx: &Ctx<'_>, account: usize, asset: &str) -> (String, String) {
    let balance = ctx.balances(account).get(asset).copied().unwrap_or_default();
    (balance.free().fixed(DECIMALS), balance.held.fixed(DECIMALS))
}

fn account_json(ctx: &Ctx<'_>, account: usize, params: &Params) -> String {
    let owner = &ctx.desk.accounts()[account];
    let omit = params.get("omitZeroBalances") == Some("true");
    let rows: Vec<String> = ctx
        .balances(account)
        .iter()
        .filter(|(_, b)| !omit || b.total != Amount::ZERO)
        .map(|(asset, b)| {
            format!(
                "{{\"asset\":\"{asset}\",\"free\":\"{}\",\"locked\":\"{}\"}}",
                b.free().fixed(DECIMALS),
                b.held.fixed(DECIMALS)
            )
        })
        .collect();
    let (maker, taker) = (owner.fees.maker_ppm, owner.fees.taker_ppm);
    format!(
        "{{\"makerCommission\":{},\"takerCommission\":{},\"buyerCommission\":0,\"sellerCommission\":0,\
         \"commissionRates\":{{\"maker\":\"{}\",\"taker\":\"{}\",\"buyer\":\"0.00000000\",\"seller\":\"0.00000000\"}},\
         \"canTrade\":true,\"canWithdraw\":true,\"canDeposit\":true,\"brokered\":false,\
         \"requireSelfTradePrevention\":false,\"preventSor\":false,\"updateTime\":{},\"accountType\":\"SPOT\",\
         \"balances\":[{}],\"permissions\":[\"SPOT\"],\"uid\":{}}}",
        maker / 100,
        taker / 100,
        rate(maker),
        rate(taker),
        stamp(owner.updated_ns.max(1), params.micro),
        rows.join(","),
        354_937_868 + account
    )
}

fn my_trades(ctx: &Ctx<'_>, account: usize, params: &Params) -> Result<String, Fail> {
    let inst = params.query().symbol(ctx)?;
    let limit = params.query().limit(500, 1_000)?;
    let order = params.number("orderId")?;
    let from = params.number("fromId")?;
    let times = [params.number("startTime")?, params.number("endTime")?];
    if let [Some(start), Some(end)] = times
        && end.saturating_sub(start) > 86_400_000
    {
        return Err(Fail::new(400, -1127, "More than 24 hours between startTime and endTime."));
    }
    let spec = &ctx.market.instruments()[inst].spec;
    let rows: Vec<String> = ctx
        .desk
        .fills()
        .iter()
        .filter(|f| f.account == account && f.inst == inst && !f.busted)
        .filter(|f| ctx.is_visible(f.order) && within(f.at_ns, times))
        .filter(|f| from.is_none_or(|id| f.trade_id >= id))
        .filter(|f| order.is_none_or(|o| ctx.desk.orders()[f.order].ext == o.to_string()))
        .map(|f| {
            format!(
                "{{\"symbol\":\"{}\",\"id\":{},\"orderId\":{},\"orderListId\":-1,\"price\":\"{}\",\"qty\":\"{}\",\
                 \"quoteQty\":\"{}\",\"commission\":\"{}\",\"commissionAsset\":\"{}\",\"time\":{},\
                 \"isBuyer\":{},\"isMaker\":{},\"isBestMatch\":true}}",
                spec.symbol,
                f.trade_id,
                ctx.desk.orders()[f.order].ext,
                spec.tick.fixed(f.px, DECIMALS),
                spec.lot.fixed(f.lots, DECIMALS),
                f.cost.fixed(DECIMALS),
                f.fee.fixed(DECIMALS),
                f.fee_asset,
                stamp(f.at_ns, params.micro),
                f.side == Side::Bid,
                f.maker
            )
        })
        .collect();
    Ok(format!("[{}]", page(&rows, limit, from.is_some() || times[0].is_some())))
}

/// The commission object, of an account (`suffix` empty) or of an order test.
fn commission(ctx: &Ctx<'_>, account: usize, inst: Option<usize>, suffix: &str) -> String {
    let fees = &ctx.desk.accounts()[account].fees;
    let (maker, taker) = (rate(fees.maker_ppm), rate(fees.taker_ppm));
    let zero = "0.00000000";
    let sides = if suffix.is_empty() {
        format!(",\"buyer\":\"{zero}\",\"seller\":\"{zero}\"")
    } else {
        String::new()
    };
    let symbol = inst.map_or(String::new(), |i| {
        format!("\"symbol\":\"{}\",", ctx.market.instruments()[i].spec.symbol)
    });
    format!(
        "{{{symbol}\"standardCommission{suffix}\":{{\"maker\":\"{maker}\",\"taker\":\"{taker}\"{sides}}},\
         \"specialCommission{suffix}\":{{\"maker\":\"{zero}\",\"taker\":\"{zero}\"{sides}}},\
         \"taxCommission{suffix}\":{{\"maker\":\"{zero}\",\"taker\":\"{zero}\"{sides}}},\
         \"discount\":{{\"enabledForAccount\":{},\"enabledForSymbol\":true,\"discountAsset\":\"BNB\",\
         \"discount\":\"0.75000000\"}}}}",
        fees.asset.is_some()
    )
}

/// JSON parameters as text, as the signature sees them.
pub(super) fn texts(params: &Value) -> Option<Vec<(String, String)>> {
    let text = |value: &Value| match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    match params {
        Value::Null => Some(Vec::new()),
        Value::Object(map) => Some(map.iter().map(|(n, v)| (n.clone(), text(v))).collect()),
        _ => None,
    }
}
