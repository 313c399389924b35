//! What the pages show, as JSON by topic.
//!
//! Invariant: a topic gives what changed after the revision that the client has, the newest first and at most
//! [`ROWS_MAX`] rows, or nothing where nothing changed. The model is held while rows are picked (they are
//! shared, not copied), not while they are written.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tandem_core::account::SessionState;
use tandem_core::level::{Cause, Scope};
use tandem_core::record::{BookState, Venue};
use tandem_gateway::warden::Verdict;

use super::Shared;
use crate::model::Model;
use crate::model::views::{self, OpportunityView};
use crate::source::Life;

/// The topics.
pub const TOPICS: [&str; 13] = [
    "overview",
    "opportunities",
    "denials",
    "rounds",
    "orders",
    "bbo",
    "books",
    "latency",
    "balances",
    "pnl",
    "events",
    "alerts",
    "drain",
];
/// Rows of one answer.
const ROWS_MAX: usize = 400;
/// Levels a side of the books page.
const DEPTH: usize = 15;

/// What a client has, and what it wants.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The revision that it has; what it is given makes it newer.
    pub after: u64,
    /// Pair whose books are wanted.
    pub pair: Option<String>,
}

/// Returns a topic; nothing where nothing changed or there is no such topic.
pub fn topic(shared: &Shared, name: &str, asked: &mut Asked) -> Option<Value> {
    match name {
        "overview" => Some(overview(shared)),
        "opportunities" => rows(shared, asked, |model, after| {
            model.opportunities(after).take(ROWS_MAX).map(|row| Row(row.clone())).collect()
        }),
        "denials" => rows(shared, asked, |model, after| {
            model.denials(after).take(ROWS_MAX).map(Whole::of).collect()
        }),
        "rounds" => rows(shared, asked, |model, after| {
            model.rounds(after).take(ROWS_MAX).map(Whole::of).collect()
        }),
        "orders" => rows(shared, asked, |model, after| {
            model.orders().newest(after).take(ROWS_MAX).map(Whole::of).collect()
        }),
        "events" => rows(shared, asked, |model, after| {
            model.events(after).take(ROWS_MAX).map(Whole::of).collect()
        }),
        "balances" => rows(shared, asked, |model, after| {
            model.balances().filter(|row| after < row.rev).cloned().collect()
        }),
        "bbo" => Some(json!(shared.model().books(1))),
        "books" => Some(books(shared, asked)),
        "latency" => latency(shared, asked),
        "pnl" => pnl(shared, asked),
        "alerts" => alerts(shared, asked),
        "drain" => Some(drain(shared)),
        _ => None,
    }
}

fn rows<T: Serialize>(
    shared: &Shared,
    asked: &mut Asked,
    pick: impl FnOnce(&Model, u64) -> Vec<T>,
) -> Option<Value> {
    let model = shared.model();
    let rev = model.rev();
    if rev == asked.after && rev != 0 {
        return None;
    }
    let rows = pick(&model, asked.after);
    drop(model);
    let first = asked.after == 0;
    asked.after = rev;
    (first || !rows.is_empty()).then(|| json!(rows))
}

/// A row as it is kept.
struct Whole<T>(Arc<T>);

impl<T> Whole<T> {
    fn of(row: &Arc<T>) -> Whole<T> {
        Whole(row.clone())
    }
}

impl<T: Serialize> Serialize for Whole<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

/// An opportunity in a list: without the books it saw.
struct Row(Arc<OpportunityView>);

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let row = &self.0;
        json!({
            "rev": row.rev, "run": row.run, "id": row.id, "kind": row.kind, "route": row.route,
            "asset": row.asset, "verdict": row.verdict, "round": row.round, "net": row.net,
            "spent": row.spent, "net_ppm": row.net_ppm, "gross_ppb": row.gross_ppb,
            "age_ns": row.age_ns, "first_us": row.first_us, "last_us": row.last_us,
            "life_us": row.life_us, "times": row.times, "after_net": row.after_net,
        })
        .serialize(to)
    }
}

const fn life_name(life: Life) -> &'static str {
    match life {
        Life::Alive => "alive",
        Life::Absent => "absent",
        Life::Dead => "dead",
    }
}

fn overview(shared: &Shared) -> Value {
    let model = shared.model();
    let look = model.last_look();
    let run = model.run();
    let books = model.books(0);
    let venues: Vec<Value> = model
        .plan()
        .venues
        .iter()
        .map(|venue| {
            let of_venue = books.iter().filter(|book| book.venue == venue.name());
            let live = of_venue.clone().filter(|book| book.state == BookState::Live.name()).count();
            let newest = of_venue.clone().filter_map(|book| book.age_us).min();
            let life = |name: String| {
                let part = look.parts.iter().find(|part| part.name == name);
                part.map(|part| life_name(part.life))
            };
            // What a gateway last said is no state once it is gone.
            let lives = life(format!("gateway {}", venue.name())) == Some("alive");
            let session = model.sessions().get(venue).filter(|_| lives);
            let gateway = look.gateways.get(venue);
            json!({
                "venue": venue.name(),
                "level": look.level.map(|word| word.effective(*venue).name()),
                "feed": life(format!("feed {}", venue.name())),
                "gateway": life(format!("gateway {}", venue.name())),
                "session": session.map(|session| session.state.name()),
                "deadman_us": session.map(|s| s.deadman_ns / 1_000).filter(|at| 0 < *at),
                "books": of_venue.count(),
                "books_live": live,
                "age_us": newest,
                "disconnects": look.feed_disconnects.get(venue),
                "budget_left": gateway.map(|gateway| gateway.budget_left),
                "suspensions": gateway.map(|gateway| gateway.suspensions),
                "warden": look.verdicts.get(venue).map(|verdict| Verdict::name(*verdict)),
            })
        })
        .collect();
    let parts: Vec<Value> = look
        .parts
        .iter()
        .map(|part| {
            json!({ "name": part.name, "life": life_name(part.life), "generation": part.generation })
        })
        .collect();
    let ready = model.sessions().values().filter(|s| s.state == SessionState::Ready).count();
    let open = model.orders().newest(0).filter(|order| order.ended_us.is_none()).count();
    let (orders, fills) = model.orders().counts();
    json!({
        "build": shared.settings.build,
        "acts": shared.acts(),
        "now_us": look.now_ns / 1_000,
        "catching_up": look.catching_up,
        "mode": run.map(|run| run.mode.as_str()),
        "run": run.map(|run| run.run),
        "trades": model.plan().trades,
        "level": look.level.map(|word| json!({
            "global": word.of(Scope::Global).name(),
            "cause": word.cause().map(Cause::name),
            "epoch": word.epoch(),
        })),
        "pnl": model.pnl().map(|(pnl, asset)| json!({
            "asset": run.map(|run| run.asset(asset)),
            "day": pnl.day,
            "realised": run.map(|run| run.amount(asset, pnl.realised)),
            "marked": run.map(|run| run.amount(asset, pnl.marked)),
            "peak": run.map(|run| run.amount(asset, pnl.peak)),
        })),
        "limits": model.limits(),
        "venues": venues,
        "sessions_ready": ready,
        "parts": parts,
        "counts": model.counts(),
        "orders": { "total": orders, "fills": fills, "open": open },
        "engine": look.engine.map(|engine| json!({
            "exposure_ppm": engine.exposure_ppm,
            "overruns": engine.overruns,
            "journal_full": engine.journal_full,
            "outputs_lost": engine.outputs_lost,
        })),
        "journal": {
            "room": look.journal.room, "capacity": look.journal.capacity,
            "per_s": look.journal.per_s, "lag": look.journal.lag,
        },
        "alerts": shared.settings.board.standing().len(),
    })
}

fn books(shared: &Shared, asked: &Asked) -> Value {
    let all = shared.model().books(DEPTH);
    let wanted = asked.pair.as_deref();
    let of_pair = |book: &views::BookView| format!("{}/{}", book.base, book.quote);
    let mut pairs: Vec<String> = all.iter().map(of_pair).collect();
    pairs.sort_unstable();
    pairs.dedup();
    // Without a wish the pair that most venues have: there is most to compare.
    let venues = |pair: &&String| all.iter().filter(|book| of_pair(book) == **pair).count();
    let widest = || pairs.iter().max_by_key(|pair| (venues(pair), std::cmp::Reverse(*pair)));
    let shown = wanted.map(str::to_owned).or_else(|| widest().cloned());
    let books: Vec<_> = all.into_iter().filter(|book| Some(of_pair(book)) == shown).collect();
    json!({ "pairs": pairs, "pair": shown, "books": books })
}

fn latency(shared: &Shared, asked: &mut Asked) -> Option<Value> {
    let model = shared.model();
    let after = i64::try_from(asked.after).unwrap_or(i64::MAX);
    let mut newest = after;
    let stages: Vec<Value> = model
        .latency()
        .stages()
        .iter()
        .map(|stage| {
            let new: Vec<_> = stage.intervals.iter().filter(|one| after < one.at_us).collect();
            newest = new.last().map_or(newest, |last| newest.max(last.at_us));
            json!({
                "process": stage.process, "stage": stage.stage, "whole": stage.whole, "intervals": new,
            })
        })
        .collect();
    if newest == after && after != 0 {
        return None;
    }
    asked.after = u64::try_from(newest).unwrap_or(0);
    Some(json!(stages))
}

fn pnl(shared: &Shared, asked: &mut Asked) -> Option<Value> {
    let model = shared.model();
    let after = i64::try_from(asked.after).unwrap_or(i64::MAX);
    let new: Vec<_> = model.points().iter().filter(|point| after < point.at_us).copied().collect();
    let asset = model.pnl().zip(model.run()).map(|((_, asset), run)| run.asset(asset).to_owned());
    let mode = model.run().map(|run| run.mode.clone());
    drop(model);
    let newest = new.last().map(|point| point.at_us);
    if newest.is_none() && after != 0 {
        return None;
    }
    asked.after = newest.map_or(asked.after, |at| u64::try_from(at).unwrap_or(0));
    Some(json!({ "asset": asset, "mode": mode, "points": new }))
}

fn alerts(shared: &Shared, asked: &mut Asked) -> Option<Value> {
    let board = &shared.settings.board;
    let rev = board.rev();
    if rev == asked.after && rev != 0 {
        return None;
    }
    let told = board.told(asked.after);
    asked.after = rev;
    Some(json!({ "standing": board.standing(), "told": told }))
}

fn drain(shared: &Shared) -> Value {
    let sinks: Vec<Value> = shared
        .settings
        .registry
        .look()
        .into_iter()
        .map(|sink| {
            json!({
                "name": sink.name, "up": sink.up, "lag_records": sink.lag_records,
                "lag_bytes": sink.lag_bytes, "backlog_rows": sink.backlog_rows,
                "written_rows": sink.written_rows, "conflated": sink.conflated,
                "last_ok_us": sink.last_ok_ns / 1_000, "errors": sink.errors,
                "dead_letters": sink.dead_letters, "trouble": sink.trouble,
            })
        })
        .collect();
    let model = shared.model();
    let look = model.last_look();
    json!({
        "sinks": sinks,
        "journal": {
            "room": look.journal.room, "capacity": look.journal.capacity,
            "per_s": look.journal.per_s, "lag": look.journal.lag,
        },
        "records": model.counts().records,
        "unreadable": model.counts().unreadable,
        "catching_up": look.catching_up,
        "venues": Venue::ALL.map(Venue::name),
    })
}
