//! The control port's view of accounts and orders (`control` has the table).
//!
//! Invariant: decimals are text, times are UNIX nanoseconds, and what is told is the desk's own record. Only
//! `POST /account` changes something, and each change is one a venue or an account's owner could make.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::amount::Amount;
use crate::book::Side;
use crate::config::Venue;
use crate::control::Query;
use crate::exchange::{NewOrder, OrderType, Size, Tif};
use crate::keys::Permissions;
use crate::observe::{Departures, Exposure, Seen};
use crate::units::Grid;
use crate::world::World;

/// Most rows of one answer; `after` and `limit` page.
const ROWS_MAX: u64 = 10_000;

fn texts(amounts: &BTreeMap<String, Amount>) -> Value {
    let rows = amounts.iter().map(|(asset, amount)| (asset.clone(), json!(amount.to_string())));
    Value::Object(rows.collect())
}

/// `GET /truth/accounts`.
pub(crate) fn accounts(world: &World) -> Value {
    let rows: Vec<Value> = world
        .desk
        .accounts()
        .iter()
        .map(|a| {
            let balances: Map<String, Value> = a
                .balances
                .iter()
                .map(|(asset, b)| {
                    let row = json!({"total": b.total.to_string(), "held": b.held.to_string()});
                    (asset.clone(), row)
                })
                .collect();
            json!({
                "name": a.name,
                "venue": a.venue.name(),
                "opening": texts(&a.opening),
                "balances": balances,
                "external": texts(&a.external),
                "maker_fee_ppm": a.fees.maker_ppm,
                "taker_fee_ppm": a.fees.taker_ppm,
                "fee_asset": a.fees.asset,
                "open_orders": a.open.len(),
            })
        })
        .collect();
    let tally = world.desk.tally();
    let sound = tally.imbalance.values().chain(tally.held.values()).all(|a| *a == Amount::ZERO);
    json!({"accounts": rows, "balanced": sound})
}

/// Whether a row's account is asked for.
fn wanted(world: &World, query: &Query, account: usize) -> bool {
    let owner = &world.desk.accounts()[account];
    query.text("venue").map_or(true, |v| v == owner.venue.name())
        && query.text("account").map_or(true, |a| a == owner.name)
}

/// `GET /truth/orders`.
pub(crate) fn orders(world: &World, query: &Query) -> Result<Value, String> {
    let after = query.number("after", u64::MAX)?;
    let limit = query.number("limit", ROWS_MAX)?.min(ROWS_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let first = if after == u64::MAX { 0 } else { usize::try_from(after).unwrap_or(0) + 1 };
    let all = world.desk.orders();
    let mut matching = all.iter().skip(first).filter(|o| wanted(world, query, o.account));
    let rows: Vec<Value> = matching
        .by_ref()
        .take(limit)
        .map(|o| {
            let spec = &world.market.instruments()[o.ask.inst].spec;
            let kind = match o.ask.kind {
                OrderType::Limit => "limit",
                OrderType::PostOnly => "post_only",
                OrderType::Market => "market",
            };
            let tif = match o.ask.tif {
                Tif::Gtc => "gtc",
                Tif::Ioc => "ioc",
                Tif::Fok => "fok",
                Tif::Gtd(_) => "gtd",
            };
            json!({
                "seq": o.id,
                "venue": o.venue.name(),
                "account": world.desk.accounts()[o.account].name,
                "symbol": spec.symbol,
                "client_id": o.ask.client_id,
                "order_id": o.ext,
                "side": if o.ask.side == Side::Bid { "buy" } else { "sell" },
                "type": kind,
                "tif": tif,
                "price": o.ask.px.map(|px| spec.tick.trimmed(px)),
                "qty": spec.lot.trimmed(o.lots),
                "filled": spec.lot.trimmed(o.filled),
                "prevented": spec.lot.trimmed(o.prevented),
                "cost": o.cost.to_string(),
                "fees": o.fees.iter().map(|(a, f)| (a.clone(), json!(f.to_string()))).collect::<Map<_, _>>(),
                "status": o.status.name(),
                "arrived_ns": o.ask.arrived_ns,
                "accepted_ns": o.accepted_ns,
                "done_ns": o.done_ns,
                "foreign": o.ask.foreign,
            })
        })
        .collect();
    let more = matching.next().is_some();
    Ok(json!({"orders": rows, "more": more}))
}

/// `GET /truth/fills`.
pub(crate) fn fills(world: &World, query: &Query) -> Result<Value, String> {
    let after = query.number("after", u64::MAX)?;
    let limit = query.number("limit", ROWS_MAX)?.min(ROWS_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let first = if after == u64::MAX { 0 } else { usize::try_from(after).unwrap_or(0) + 1 };
    let all = world.desk.fills();
    let mut matching = all.iter().skip(first).filter(|f| wanted(world, query, f.account));
    let rows: Vec<Value> = matching
        .by_ref()
        .take(limit)
        .map(|f| {
            let order = &world.desk.orders()[f.order];
            let spec = &world.market.instruments()[f.inst].spec;
            json!({
                "seq": f.id,
                "venue": order.venue.name(),
                "account": world.desk.accounts()[f.account].name,
                "symbol": spec.symbol,
                "trade_id": f.trade_id,
                "order_id": order.ext,
                "client_id": order.ask.client_id,
                "side": if f.side == Side::Bid { "buy" } else { "sell" },
                "price": spec.tick.trimmed(f.px),
                "qty": spec.lot.trimmed(f.lots),
                "cost": f.cost.to_string(),
                "fee": f.fee.to_string(),
                "fee_asset": f.fee_asset,
                "maker": f.maker,
                "busted": f.busted,
                "ts_ns": f.at_ns,
            })
        })
        .collect();
    let more = matching.next().is_some();
    Ok(json!({"fills": rows, "more": more}))
}

fn seen_json(seen: &Seen) -> Value {
    let most = seen.notional_max.iter();
    // Currencies of one dollar each may be compared; the rest is told apart.
    let dollars = most.clone().filter(|(a, _)| matches!(a.as_str(), "USD" | "USDT" | "USDC"));
    json!({
        "orders_total": seen.new_total,
        "orders_per_s_max": seen.per_second_max,
        "open_orders_max": seen.open_max,
        "notional_max": dollars.map(|(_, w)| *w).max().unwrap_or_default().to_string(),
        "notional_max_by_quote": texts(&seen.notional_max),
        "rate_limited_total": seen.limited_total,
        "refused_total": seen.refused_total,
    })
}

/// `GET /truth/limits`.
pub(crate) fn limits(world: &World, query: &Query) -> Result<Value, String> {
    let name = query.text("account")?;
    let mut venues = Map::new();
    let mut orders_total = 0;
    let (mut rate, mut open, mut worth) = (0, 0, Amount::ZERO);
    for (account, owner) in world.desk.accounts().iter().enumerate() {
        if owner.name != name {
            continue;
        }
        let none = Seen::default();
        let seen = world.seen.seen.get(&account).unwrap_or(&none);
        orders_total += seen.new_total;
        rate = rate.max(seen.per_second_max);
        open = open.max(seen.open_max);
        let most = seen.notional_max.iter();
        let dollars = most.filter(|(a, _)| matches!(a.as_str(), "USD" | "USDT" | "USDC"));
        worth = dollars.map(|(_, w)| *w).fold(worth, Amount::max);
        venues.insert(owner.venue.name().to_owned(), seen_json(seen));
    }
    if venues.is_empty() {
        return Err(format!("unknown account {name}"));
    }
    let none = Exposure::default();
    let exposure = world.seen.exposure.get(name).unwrap_or(&none);
    Ok(json!({
        "account": name,
        "orders_total": orders_total,
        "orders_per_s_max": rate,
        "open_orders_max": open,
        "notional_max": worth.to_string(),
        "net_exposure_max": texts(&exposure.most),
        "venues": venues,
    }))
}

/// `GET /truth/requests`.
pub(crate) fn requests(world: &World, query: &Query) -> Result<Value, String> {
    let since = query.number("since_ns", 0)?;
    let mut rows = Vec::new();
    for (account, seen) in &world.seen.seen {
        if !wanted(world, query, *account) {
            continue;
        }
        let owner = &world.desk.accounts()[*account];
        let arrivals: Vec<Value> = seen
            .arrivals
            .iter()
            .filter(|a| a.at_ns >= since)
            .map(|a| {
                json!({
                    "at_ns": a.at_ns,
                    "kind": a.wants.name(),
                    "symbol": a.symbol,
                    "client_id": a.client_id,
                })
            })
            .collect();
        rows.push(json!({
            "account": owner.name,
            "venue": owner.venue.name(),
            "new": seen.new_total,
            "cancel": seen.cancel_total,
            "query": seen.query_total,
            "duplicates": seen.duplicates_total,
            "first_new_ns": seen.first_new_ns,
            "last_new_ns": seen.last_new_ns,
            "arrivals": arrivals,
        }));
    }
    Ok(json!({"requests": rows}))
}

/// `GET /truth/sent`.
pub(crate) fn sent(world: &World, departures: &Departures, query: &Query) -> Result<Value, String> {
    let venue = query.text("venue")?;
    let venue = Venue::from_name(venue).ok_or_else(|| format!("unknown venue {venue}"))?;
    let (from, to) = (query.number("from", 0)?, query.number("to", u64::MAX)?);
    let symbol = query.text("symbol").ok();
    let limit = usize::try_from(query.number("limit", ROWS_MAX)?).unwrap_or(usize::MAX);
    let rows: Vec<Value> = departures
        .of(venue)
        .filter(|s| (from..=to).contains(&s.mark.id))
        .filter_map(|s| {
            let spec = &world.market.instruments()[s.mark.inst].spec;
            symbol.is_none_or(|wanted| wanted == spec.symbol).then(|| {
                json!({
                    "symbol": spec.symbol,
                    "id": s.mark.id,
                    "connection": s.connection,
                    "sent_ns": s.at_ns,
                })
            })
        })
        .take(limit)
        .collect();
    Ok(json!({"venue": venue.name(), "sent": rows}))
}

/// What `POST /account` takes: an account, and what to do to it. Members that an action does not use are refused.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Action {
    /// Money comes, or goes if negative.
    Deposit { account: String, venue: Venue, asset: String, amount: Amount },
    /// Money goes.
    Withdraw { account: String, venue: Venue, asset: String, amount: Amount },
    /// Other fees from now on.
    Fees {
        account: String,
        venue: Venue,
        maker_ppm: Option<i64>,
        taker_ppm: Option<i64>,
        /// `""` ends payment in another asset.
        asset: Option<String>,
    },
    /// Other permissions of all keys of a client, or of one key.
    Permissions {
        client: String,
        venue: Option<Venue>,
        api_key: Option<String>,
        permissions: Permissions,
    },
    /// Keys stop being known (`revoked: false` brings them back).
    Revoke {
        client: String,
        venue: Option<Venue>,
        api_key: Option<String>,
        #[serde(default = "yes")]
        revoked: bool,
    },
    /// Takes a fill back, by its `seq` in `/truth/fills`.
    Bust { fill: usize },
    /// An order by hand.
    Order {
        account: String,
        venue: Venue,
        symbol: String,
        side: String,
        qty: String,
        price: Option<String>,
        tif: Option<String>,
        #[serde(default)]
        client_id: String,
    },
    /// Cancels one order (`order_id`) or all open ones, as the venue's own act.
    Cancel { account: String, venue: Venue, order_id: Option<String> },
    /// Other rules of an instrument: steps that are multiples of those configured, least worth.
    Rules {
        venue: Venue,
        symbol: String,
        tick: Option<String>,
        lot: Option<String>,
        min_notional: Option<String>,
    },
}

fn yes() -> bool {
    true
}

fn find(world: &World, account: &str, venue: Venue) -> Result<usize, String> {
    let found = world.desk.find_account(account, venue);
    found.ok_or_else(|| format!("unknown account {account} at {venue}"))
}

/// `POST /account`.
pub(crate) fn act(world: &mut World, action: Action) -> Result<Value, String> {
    let now = world.now();
    let answer = match action {
        Action::Deposit { account, venue, asset, amount } => {
            let account = find(world, &account, venue)?;
            world.desk.deposit(now, account, &asset, amount);
            json!({"total": world.desk.accounts()[account].balance(&asset).total.to_string()})
        }
        Action::Withdraw { account, venue, asset, amount } => {
            let account = find(world, &account, venue)?;
            world.desk.deposit(now, account, &asset, -amount);
            json!({"total": world.desk.accounts()[account].balance(&asset).total.to_string()})
        }
        Action::Fees { account, venue, maker_ppm, taker_ppm, asset } => {
            let account = find(world, &account, venue)?;
            let fees = &mut world.desk.account_mut(account).fees;
            fees.maker_ppm = maker_ppm.unwrap_or(fees.maker_ppm);
            fees.taker_ppm = taker_ppm.unwrap_or(fees.taker_ppm);
            if let Some(asset) = asset {
                fees.asset = (!asset.is_empty()).then_some(asset);
            }
            json!({"maker_ppm": fees.maker_ppm, "taker_ppm": fees.taker_ppm, "asset": fees.asset})
        }
        Action::Permissions { client, venue, api_key, permissions } => {
            let changed = on_keys(world, &client, venue, api_key.as_deref(), |key| {
                key.permissions = permissions;
            })?;
            json!({"keys": changed})
        }
        Action::Revoke { client, venue, api_key, revoked } => {
            let changed =
                on_keys(world, &client, venue, api_key.as_deref(), |key| key.revoked = revoked)?;
            json!({"keys": changed})
        }
        Action::Bust { fill } => {
            world.desk.bust(now, fill).map_err(|_| format!("no fill {fill} to bust"))?;
            json!({"busted": fill})
        }
        Action::Order { account, venue, symbol, side, qty, price, tif, client_id } => {
            let account = find(world, &account, venue)?;
            let inst = world.market.find(venue, &symbol);
            let inst = inst.ok_or_else(|| format!("unknown symbol {symbol}"))?;
            let spec = &world.market.instruments()[inst].spec;
            let side = match side.as_str() {
                "buy" => Side::Bid,
                "sell" => Side::Ask,
                other => return Err(format!("side must be buy or sell, not {other}")),
            };
            let lots = spec.lot.parse(&qty).ok_or_else(|| format!("{qty} is no quantity"))?;
            let mut new = match &price {
                None => NewOrder::market(inst, side, lots),
                Some(text) => {
                    let px = spec.tick.parse(text).ok_or_else(|| format!("{text} is no price"))?;
                    let tif = match tif.as_deref() {
                        None | Some("gtc") => Tif::Gtc,
                        Some("ioc") => Tif::Ioc,
                        Some("fok") => Tif::Fok,
                        Some(other) => return Err(format!("tif must not be {other}")),
                    };
                    NewOrder::limit(inst, side, px, lots, tif)
                }
            };
            new.client_id = client_id;
            new.size = Size::Base(lots);
            let placed = world.desk.place_foreign(&mut world.market, now, account, new);
            let id = placed.map_err(|reject| format!("refused: {reject:?}"))?;
            let order = &world.desk.orders()[id];
            json!({"order_id": order.ext, "seq": id, "status": order.status.name()})
        }
        Action::Cancel { account, venue, order_id } => {
            let account = find(world, &account, venue)?;
            match order_id {
                None => json!({"canceled": world.venue_cancel(account)}),
                Some(ext) => {
                    let id = world.desk.by_ext(venue, &ext);
                    let id = id.filter(|i| !world.desk.orders()[*i].status.is_done());
                    let id = id.ok_or_else(|| format!("no open order {ext}"))?;
                    let why = crate::exchange::Ended::Venue;
                    let done = world.desk.cancel(&mut world.market, now, id, why);
                    json!({"canceled": usize::from(done.is_ok())})
                }
            }
        }
        Action::Rules { venue, symbol, tick, lot, min_notional } => {
            let inst = world.market.find(venue, &symbol);
            let inst = inst.ok_or_else(|| format!("unknown symbol {symbol}"))?;
            let grid = |text: Option<String>| match text {
                None => Ok(None),
                Some(t) => Grid::parse_step(&t).map(Some).ok_or_else(|| format!("{t} is no step")),
            };
            let event = world.market.set_rules(inst, now, grid(tick)?, grid(lot)?, min_notional)?;
            world.tell_rules(inst);
            if let Some(event) = event {
                let at = world.now();
                world.publish(at, event);
            }
            let spec = &world.market.instruments()[inst].spec;
            json!({
                "tick": spec.tick_rule().trimmed(1),
                "lot": spec.lot_rule().trimmed(1),
                "min_notional": spec.min_notional,
            })
        }
    };
    world.settle_control();
    Ok(answer)
}

fn on_keys(
    world: &mut World,
    client: &str,
    venue: Option<Venue>,
    api_key: Option<&str>,
    mut change: impl FnMut(&mut crate::keys::Key),
) -> Result<usize, String> {
    let mut changed = 0;
    for key in world.keys.iter_mut() {
        let matches = key.client == client
            && venue.is_none_or(|v| v == key.venue)
            && api_key.is_none_or(|k| k == key.text);
        if matches {
            change(key);
            changed += 1;
        }
    }
    if changed == 0 { Err(format!("no such key of {client}")) } else { Ok(changed) }
}
