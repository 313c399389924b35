//! The control port: plain HTTP and JSON on loopback.
//!
//! Invariant: reading never changes the world. Truth is the simulator's own book, whatever faults made of
//! the messages about it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | connections, events, tape, faults under way |
//! | `GET /endpoints` | addresses, as [`crate::SimHandle::endpoints_json`] |
//! | `GET /truth/book?venue=&symbol=&depth=` | the book now, decimal strings, update id |
//! | `GET /truth/history?venue=&symbol=&since_ns=` | every BBO state in force at or after `since_ns` |
//! | `GET /truth/levels?venue=&symbol=&side=&price=&from_ns=&to_ns=` | quantities one price had in a window |
//! | `GET /truth/accounts` | balances, openings, what came from outside |
//! | `GET /truth/orders?venue=&account=&after=&limit=` | every order ever accepted, by `seq` |
//! | `GET /truth/fills?venue=&account=&after=&limit=` | every fill, by `seq` |
//! | `GET /truth/limits?account=` | the largest rate, size, exposure and number of open orders seen |
//! | `GET /truth/requests?venue=&account=&since_ns=` | counts of requests, and when the last 4,096 arrived |
//! | `GET /truth/sent?venue=&symbol=&from=&to=&limit=` | when book messages left, by the venue's id in them |
//! | `POST /account` | one [`Action`]: deposit, fees, permissions, bust, order by hand, rules |
//! | `POST /fault` | starts one fault ([`crate::faults`]) |
//! | `GET /faults` | faults under way and ended |
//! | `POST /clear` | ends all faults and the script |
//! | `POST /script` | `[{"at_s":1.5,"fault":{…}},…]` |
//! | `POST /shutdown` | stops the simulator |

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Shared;
use crate::book::{Level, Side};
use crate::config::Venue;
use crate::desk_control::{self, Action};
use crate::faults::Fault;
use crate::market::Spec;
use crate::net::{Request, Response};
use crate::world::{Cue, World};

/// Answers one control request.
pub(crate) fn handle(shared: &Arc<Shared>, request: &Request) -> Response {
    let answer = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/endpoints") => return Response::json(200, shared.endpoints_json()),
        ("GET", "/status") => Ok(status(&mut shared.world())),
        ("GET", "/faults") => Ok(faults(&shared.world())),
        ("GET", "/truth/book") => book(&mut shared.world(), request),
        ("GET", "/truth/history") => history(&mut shared.world(), request),
        ("GET", "/truth/levels") => levels(&mut shared.world(), request),
        ("GET", "/truth/accounts") => Ok(desk_control::accounts(&shared.world())),
        ("GET", "/truth/orders") => desk_control::orders(&shared.world(), &Query::of(request)),
        ("GET", "/truth/fills") => desk_control::fills(&shared.world(), &Query::of(request)),
        ("GET", "/truth/limits") => desk_control::limits(&shared.world(), &Query::of(request)),
        ("GET", "/truth/requests") => desk_control::requests(&shared.world(), &Query::of(request)),
        ("GET", "/truth/sent") => {
            let (world, departures) = (shared.world(), shared.departures());
            desk_control::sent(&world, &departures, &Query::of(request))
        }
        ("POST", "/account") => parse::<Action>(&request.body)
            .and_then(|action| desk_control::act(&mut shared.world(), action)),
        ("POST", "/fault") => parse::<Fault>(&request.body)
            .and_then(|fault| shared.world().inject(fault))
            .map(|id| json!({"id": id})),
        ("POST", "/script") => parse::<Vec<Cue>>(&request.body)
            .and_then(|cues| shared.world().add_script(cues))
            .map(|count| json!({"scheduled": count})),
        ("POST", "/clear") => Ok(json!({"cleared": shared.world().clear_faults()})),
        ("POST", "/shutdown") => {
            // After the answer, which this task still has to write.
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                shared.stop.send_replace(true);
            });
            Ok(json!({"stopping": true}))
        }
        _ => return Response::json(404, json!({"error": "unknown path"}).to_string()),
    };
    match answer {
        Ok(value) => Response::json(200, value.to_string()),
        Err(why) => Response::json(400, json!({ "error": why }).to_string()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn status(world: &mut World) -> Value {
    let now = world.now();
    let connections: Vec<Value> = world
        .hub
        .links
        .iter()
        .map(|(id, link)| {
            json!({
                "id": id,
                "venue": link.venue.name(),
                "peer": link.peer.to_string(),
                "tls": link.tls,
                "path": link.path,
                "opened_ns": link.opened_ns,
                "sent_messages": link.sent_messages,
                "sent_bytes": link.sent_bytes,
                "queued_bytes": world.hub.queued(*id),
            })
        })
        .collect();
    let tape = world.player.as_ref().map(|player| {
        let (state, played, messages) = player.progress();
        json!({
            "state": state,
            "finished": state == "finished",
            "played": played,
            "messages": messages,
            "unparsed": player.unparsed_total,
        })
    });
    let crossed: Vec<&str> = world
        .market
        .instruments()
        .iter()
        .filter(|i| i.book.is_crossed_or_locked())
        .map(|i| i.spec.symbol.as_str())
        .collect();
    json!({
        "now_ns": now,
        "uptime_ns": world.uptime_ns(),
        "seed": world.cfg.seed,
        "events_total": world.events_total,
        "slow_readers_cut_total": world.hub.slow_cut_total,
        "connections": connections,
        "captures": tape,
        "crossed_now": crossed,
        "faults_active": world.hub.faults.active().len(),
        "script_pending": world.script.len(),
    })
}

fn faults(world: &World) -> Value {
    let script: Vec<Value> =
        world.script.iter().map(|(at, f)| json!({"at_ns": at, "fault": f})).collect();
    let ended: Vec<_> = world.hub.faults.ended().collect();
    json!({"active": world.hub.faults.active(), "ended": ended, "script": script})
}

/// Query parameters of the truth requests.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request) -> Self {
        Self(request.params())
    }

    pub fn text(&self, name: &str) -> Result<&str, String> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).ok_or_else(|| format!("{name} is missing"))
    }

    pub fn number(&self, name: &str, default: u64) -> Result<u64, String> {
        match self.text(name) {
            Err(_) => Ok(default),
            Ok(text) => text.parse().map_err(|_| format!("{name} is not a number")),
        }
    }

    fn instrument(&self, world: &World) -> Result<usize, String> {
        let venue = self.text("venue")?;
        let venue = Venue::from_name(venue).ok_or_else(|| format!("unknown venue {venue}"))?;
        let symbol = self.text("symbol")?;
        world.market.find(venue, symbol).ok_or_else(|| format!("unknown symbol {symbol}"))
    }
}

fn row(spec: &Spec, level: Option<Level>) -> Value {
    level.map_or(Value::Null, |l| json!([spec.tick.trimmed(l.px), spec.lot.trimmed(l.qty)]))
}

fn book(world: &mut World, request: &Request) -> Result<Value, String> {
    let query = Query::of(request);
    let now = world.now();
    let it = &world.market.instruments()[query.instrument(world)?];
    let depth = usize::try_from(query.number("depth", 10)?).unwrap_or(usize::MAX);
    let side = |side| -> Vec<Value> {
        it.book.levels(side).take(depth).map(|l| row(&it.spec, Some(l))).collect()
    };
    Ok(json!({
        "venue": it.spec.venue.name(),
        "symbol": it.spec.symbol,
        "at_ns": now,
        "update_id": it.update_id,
        "bids": side(Side::Bid),
        "asks": side(Side::Ask),
    }))
}

fn history(world: &mut World, request: &Request) -> Result<Value, String> {
    let query = Query::of(request);
    let inst = query.instrument(world)?;
    let since = query.number("since_ns", 0)?;
    let spec = &world.market.instruments()[inst].spec;
    let states: Vec<Value> = world.truth[inst]
        .history(since)
        .map(|state| {
            json!({
                "at_ns": state.at_ns,
                "update_id": state.update_id,
                "bid": row(spec, state.bid),
                "ask": row(spec, state.ask),
            })
        })
        .collect();
    Ok(json!({"venue": spec.venue.name(), "symbol": spec.symbol, "states": states}))
}

fn levels(world: &mut World, request: &Request) -> Result<Value, String> {
    let query = Query::of(request);
    let now = world.now();
    let inst = query.instrument(world)?;
    let it = &world.market.instruments()[inst];
    let side = match query.text("side")? {
        "bid" | "buy" => Side::Bid,
        "ask" | "sell" | "offer" => Side::Ask,
        other => return Err(format!("side must be bid or ask, not {other}")),
    };
    let price = query.text("price")?;
    let px =
        it.spec.tick.parse(price).ok_or_else(|| format!("{price} is not on the price grid"))?;
    let from = query.number("from_ns", 0)?;
    let to = query.number("to_ns", now)?;
    if from > to {
        return Err("from_ns is after to_ns".to_owned());
    }
    let truth = &world.truth[inst];
    let states = truth.level(&it.book, side, px, from, to);
    let most = states.iter().map(|s| s.qty).max().unwrap_or(0);
    let list: Vec<Value> = states
        .iter()
        .map(|s| json!({"from_ns": s.from_ns, "qty": it.spec.lot.trimmed(s.qty)}))
        .collect();
    Ok(json!({
        "existed": most > 0,
        "qty_max": it.spec.lot.trimmed(most),
        "states": list,
        // Before this time the log does not reach: `existed: false` proves nothing then.
        "complete_from_ns": truth.complete_from_ns(),
    }))
}
