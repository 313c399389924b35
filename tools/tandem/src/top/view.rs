//! What `top` draws: a picture of the model at one moment, in text and numbers.

use std::collections::BTreeMap;

use tandem_core::account::Session;
use tandem_core::level::{Cause, Scope};
use tandem_core::record::Venue;
use tandem_drain::alerts::board::Board;
use tandem_drain::model::Model;
use tandem_drain::source::Life;

use crate::engine_tile::metric;

/// A venue.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct VenueLine {
    pub venue: String,
    pub level: String,
    pub feed: String,
    pub books_live: usize,
    pub books: usize,
    pub age_us: Option<i64>,
    pub session: String,
    pub budget_left: Option<i64>,
    pub disconnects: u64,
    pub deadman_s: Option<i64>,
    pub warden: String,
    pub reply_p50_ns: Option<u64>,
    pub reply_p99_ns: Option<u64>,
}

/// A pair over the venues.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PairLine {
    pub pair: String,
    /// By venue: bid, ask, state.
    pub at: Vec<(String, String, String, String)>,
    /// Best bid of one venue over the best ask of another, before fees, tenths of a basis point.
    pub edge_dbp: Option<i64>,
    pub age_us: Option<i64>,
}

/// An order that is not over.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct OrderLine {
    pub id: String,
    pub what: String,
    pub qty: String,
    pub px: String,
    pub state: String,
    pub age_us: i64,
    pub round: u64,
}

/// A limit.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct LimitLine {
    pub name: String,
    pub ppm: Option<i64>,
}

/// A stage.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct StageLine {
    pub process: String,
    pub stage: String,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    pub count: u64,
}

/// Everything.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each name says it")]
pub struct View {
    pub now_us: i64,
    pub mode: String,
    pub run: u32,
    pub level: String,
    pub cause: String,
    pub result: Option<(String, String)>,
    pub loss_ppm: Option<i64>,
    pub clock_ns: Option<i64>,
    pub catching_up: bool,
    pub venues: Vec<VenueLine>,
    pub pairs: Vec<PairLine>,
    pub orders: Vec<OrderLine>,
    pub recent: Vec<OrderLine>,
    pub balances: Vec<(String, String, String)>,
    pub limits: Vec<LimitLine>,
    pub exposure_ppm: Option<i64>,
    pub processes: Vec<(String, String, u64)>,
    pub overruns: u64,
    pub journal_free_ppm: Option<u64>,
    pub records_per_s: Option<u64>,
    pub lag: u64,
    pub denied: Vec<(String, u64)>,
    pub counts: (u64, u64, u64, u64),
    pub alerts: Vec<(String, String)>,
    pub events: Vec<(i64, String)>,
    pub stages: Vec<StageLine>,
}

/// Text that a terminal shows and does not obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn life_name(life: Life) -> &'static str {
    match life {
        Life::Alive => "alive",
        Life::Absent => "absent",
        Life::Dead => "DEAD",
    }
}

impl View {
    /// Takes the picture.
    #[must_use]
    pub fn new(model: &Model, board: &Board) -> View {
        let look = model.last_look();
        let run = model.run();
        let now_us = look.now_ns / 1_000;
        let books = model.books(1);
        let stages: Vec<StageLine> = model
            .latency()
            .stages()
            .iter()
            .filter_map(|stage| {
                let whole = stage.whole?;
                Some(StageLine {
                    process: stage.process.clone(),
                    stage: stage.stage.clone(),
                    p50: whole.p50,
                    p99: whole.p99,
                    p999: whole.p999,
                    max: whole.max,
                    count: whole.count,
                })
            })
            .collect();
        let part = |name: &str| look.parts.iter().find(|part| part.name == name);
        let venues = model.plan().venues.iter().map(|venue| {
            let name = venue.name();
            let gateway = format!("gateway {name}");
            let lives = part(&gateway).is_some_and(|part| part.life == Life::Alive);
            let session: Option<&Session> = model.sessions().get(venue).filter(|_| lives);
            let of_venue = books.iter().filter(|book| book.venue == name);
            let reply = stages
                .iter()
                .find(|stage| stage.process == gateway && stage.stage.contains("reply"));
            VenueLine {
                venue: name.to_owned(),
                level: look.level.map_or("-", |word| word.effective(*venue).name()).to_owned(),
                feed: part(&format!("feed {name}"))
                    .map_or("-", |part| life_name(part.life))
                    .to_owned(),
                books_live: of_venue.clone().filter(|book| book.state == "live").count(),
                books: of_venue.clone().count(),
                age_us: of_venue.filter_map(|book| book.age_us).min(),
                session: session.map_or("-", |session| session.state.name()).to_owned(),
                budget_left: look.gateways.get(venue).map(|gateway| gateway.budget_left),
                disconnects: look.feed_disconnects.get(venue).copied().unwrap_or(0),
                deadman_s: session
                    .filter(|session| 0 < session.deadman_ns)
                    .map(|session| (session.deadman_ns - look.now_ns) / 1_000_000_000),
                warden: look.verdicts.get(venue).map_or("-", |verdict| verdict.name()).to_owned(),
                reply_p50_ns: reply.map(|stage| stage.p50),
                reply_p99_ns: reply.map(|stage| stage.p99),
            }
        });
        let order = |row: &tandem_drain::model::views::OrderView| OrderLine {
            id: row.client_id.clone(),
            what: plain(&format!("{} {} {}", row.action, row.symbol, row.venue)),
            qty: row.qty.clone(),
            px: row.px.clone(),
            state: row.state.to_owned(),
            age_us: now_us - row.made_us,
            round: row.round,
        };
        let mut denied: Vec<(String, u64)> =
            model.counts().denied.iter().map(|(code, times)| (code.clone(), *times)).collect();
        denied.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let (orders, fills) = model.orders().counts();
        let limits = model.limits();
        let loss = limits.iter().find(|limit| limit.name == "loss of the day");
        View {
            now_us,
            mode: run.map_or("-", |run| run.mode.as_str()).to_owned(),
            run: run.map_or(0, |run| run.run),
            level: look.level.map_or("-", |word| word.of(Scope::Global).name()).to_owned(),
            cause: look.level.and_then(|word| word.cause()).map_or("", Cause::name).to_owned(),
            result: model.pnl().zip(run).map(|((pnl, asset), run)| {
                (run.amount(asset, pnl.marked), plain(run.asset(asset)))
            }),
            loss_ppm: loss.and_then(|limit| limit.ppm),
            clock_ns: model.latency().gauge("engine", metric::CLOCK_OFFSET_NS),
            catching_up: look.catching_up,
            venues: venues.collect(),
            pairs: pairs(&books),
            orders: model
                .orders()
                .newest(0)
                .filter(|row| row.ended_us.is_none())
                .map(|row| order(row))
                .collect(),
            recent: model.orders().newest(0).take(60).map(|row| order(row)).collect(),
            balances: balances(model),
            exposure_ppm: look.engine.and_then(|engine| engine.exposure_ppm),
            limits: limits
                .into_iter()
                .map(|limit| LimitLine { name: limit.name.to_owned(), ppm: limit.ppm })
                .collect(),
            processes: look
                .parts
                .iter()
                .map(|part| (part.name.clone(), life_name(part.life).to_owned(), part.generation))
                .collect(),
            overruns: look.engine.map_or(0, |engine| engine.overruns),
            journal_free_ppm: (look.journal.room * 1_000_000).checked_div(look.journal.capacity),
            records_per_s: look.journal.per_s,
            lag: look.journal.lag,
            denied,
            counts: (
                model.counts().opportunities.iter().sum(),
                model.counts().rounds,
                orders,
                fills,
            ),
            alerts: board
                .standing()
                .iter()
                .map(|alert| {
                    let of = alert.fingerprint.split_once('/').map_or("", |(_, of)| of);
                    let gap = if of.is_empty() { "" } else { ": " };
                    let text = format!("{}{gap}{of} · {}", alert.title, alert.detail);
                    (alert.severity.to_owned(), plain(&text))
                })
                .collect(),
            events: model
                .events(0)
                .take(40)
                .map(|event| {
                    let venue = event.venue.map_or(String::new(), |venue| format!("{venue}: "));
                    (event.at_us, plain(&format!("{venue}{}", event.text)))
                })
                .collect(),
            stages,
        }
    }
}

fn pairs(books: &[tandem_drain::model::views::BookView]) -> Vec<PairLine> {
    let mut by_pair: BTreeMap<String, Vec<&tandem_drain::model::views::BookView>> = BTreeMap::new();
    for book in books {
        by_pair.entry(format!("{}/{}", book.base, book.quote)).or_default().push(book);
    }
    let first = |levels: &[tandem_drain::model::views::LevelView]| {
        levels.first().map_or_else(|| "-".to_owned(), |level| level.0.clone())
    };
    let number = |text: &str| text.parse::<f64>().ok();
    let mut lines: Vec<PairLine> = by_pair
        .into_iter()
        .map(|(pair, books)| {
            let live = || books.iter().filter(|book| book.state == "live");
            let mut edge: Option<f64> = None;
            for seller in live() {
                for buyer in live().filter(|buyer| buyer.venue != seller.venue) {
                    let (bid, ask) = (number(&first(&buyer.bids)), number(&first(&seller.asks)));
                    if let (Some(bid), Some(ask)) = (bid, ask.filter(|ask| 0.0 < *ask)) {
                        let found = (bid / ask - 1.0) * 1e5;
                        edge = Some(edge.map_or(found, |known| known.max(found)));
                    }
                }
            }
            PairLine {
                pair: plain(&pair),
                age_us: books.iter().filter_map(|book| book.age_us).max(),
                edge_dbp: edge.map(|edge| edge.round() as i64),
                at: Venue::ALL
                    .into_iter()
                    .filter_map(|venue| books.iter().find(|book| book.venue == venue.name()))
                    .map(|book| {
                        let (bid, ask) = (first(&book.bids), first(&book.asks));
                        (book.venue.to_owned(), bid, ask, book.state.to_owned())
                    })
                    .collect(),
            }
        })
        .collect();
    // What pays most is looked at first; what only one venue has cannot be compared.
    lines.sort_by_key(|line| std::cmp::Reverse(line.edge_dbp.unwrap_or(i64::MIN)));
    lines
}

fn balances(model: &Model) -> Vec<(String, String, String)> {
    let rows = model.balances().map(|row| {
        let ours = row.ledger.clone().or_else(|| row.told.clone()).unwrap_or_default();
        (row.venue.to_owned(), plain(&row.asset), ours)
    });
    rows.collect()
}
