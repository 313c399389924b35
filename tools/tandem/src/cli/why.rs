//! `why`: the story of one round, from the opportunity to the money, out of the journal.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tandem_core::record::{Kind, flag};
use tandem_core::report::Opportunity;
use tandem_core::round::RoundReport;

use super::orders::{OrderText, text};
use super::{ConfigArg, Done, Failure, Outcome, print, print_json};
use crate::records::Origin;
use crate::time::utc;
use crate::trades::Trades;

/// Which round.
#[derive(Args, Debug)]
pub struct WhyArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Number of the round.
    round: Option<u64>,
    /// The round that took this opportunity instead.
    #[arg(long, conflicts_with = "round")]
    opportunity: Option<u64>,
    /// Run of the engine; default: the last one that had such a round.
    #[arg(long)]
    run: Option<u32>,
    /// Without a round: how far to look back.
    #[arg(long, value_parser = super::duration, default_value = "60s")]
    over: Duration,
    /// Without a round: only what has a leg of this symbol.
    #[arg(long)]
    symbol: Option<String>,
    /// Directory of a journal; default: the configured run's.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// A stage of a round.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct StageText {
    pub stage: String,
    pub after_ms: f64,
    pub realised: String,
    pub worth: String,
    pub hedges: i64,
}

/// A level of a book as it was decided on.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct SeenText {
    pub venue: String,
    pub symbol: String,
    pub side: String,
    pub best_px: String,
    pub px: String,
    pub qty: String,
    pub levels: u32,
    pub update_id: u64,
    pub age_us: i64,
}

/// The story.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Story {
    pub run: u32,
    pub round: u64,
    pub opportunity: u64,
    pub opened: String,
    pub asset: String,
    pub expected: String,
    pub realised: String,
    pub seen: Vec<SeenText>,
    pub stages: Vec<StageText>,
    pub orders: Vec<OrderText>,
}

/// `tandem why`.
pub fn run(args: &WhyArgs) -> Done {
    if args.round.is_none() && args.opportunity.is_none() {
        let config = args.config.load()?;
        return super::why_not::run(&config, args.over, args.symbol.as_deref(), args.json);
    }
    let journal = match &args.journal {
        Some(journal) => Origin::from(journal),
        None => Origin::of(&args.config.load()?),
    };
    let mut group = Vec::new();
    let mut rounds: Vec<RoundReport> = Vec::new();
    let mut opportunities: Vec<Opportunity> = Vec::new();
    let mut told_in: Vec<u32> = Vec::new();
    let trades = Trades::read_with(journal, |record, table| {
        if !matches!(record.kind(), Some(Kind::Round | Kind::Opportunity)) {
            return;
        }
        if record.part == 0 {
            group.clear();
        }
        group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        if let Some(round) = RoundReport::decode(&group) {
            let wanted = args.round.is_none_or(|wanted| wanted == round.id)
                && args.opportunity.is_none_or(|wanted| wanted == round.cause)
                && args.run.is_none_or(|wanted| wanted == round.run);
            if wanted {
                rounds.push(round);
            }
        } else if let Some(opportunity) = Opportunity::decode(&group) {
            opportunities.push(opportunity);
            told_in.push(table.setup.run);
        }
    })
    .map_err(Failure::unreachable)?;
    let Some(last) = rounds.last().copied() else {
        return Err(Failure::failed(
            "no such round in this journal; `tandem orders` lists rounds, `tandem opportunities` what was seen",
        ));
    };
    rounds.retain(|round| (round.run, round.id) == (last.run, last.id));
    let table = trades.table.clone().ok_or_else(|| Failure::failed("the journal is empty"))?;
    // What the engine saw last before it opened the round.
    let seen = opportunities
        .iter()
        .zip(&told_in)
        .filter(|(told, run)| {
            **run == last.run && told.id as u64 == last.cause && told.at_ns <= last.opened_ns
        })
        .map(|(told, _)| told)
        .next_back();
    let symbol = |instrument: u16| {
        let found = table.instruments.get(usize::from(instrument));
        found.map_or("?", |listed| listed.symbol.as_str()).to_owned()
    };
    let seen = seen.map_or_else(Vec::new, |told| {
        let leg = |leg: &tandem_core::report::LegReport| SeenText {
            venue: tandem_core::record::Venue::from_tag(leg.venue)
                .map_or("?", |v| v.name())
                .to_owned(),
            symbol: symbol(leg.instrument),
            side: if leg.side == 1 { "ask" } else { "bid" }.to_owned(),
            best_px: table.px(leg.instrument, leg.best_px.0),
            px: table.px(leg.instrument, leg.px.0),
            qty: table.qty(leg.instrument, leg.qty.0),
            levels: leg.levels,
            update_id: leg.update_id,
            age_us: (told.at_ns - leg.recv_ts_ns) / 1_000,
        };
        told.legs().iter().map(leg).collect()
    });
    let amount = |quanta: i64| table.amount(last.start, quanta);
    let story = Story {
        run: last.run,
        round: last.id,
        opportunity: last.cause,
        opened: utc(last.opened_ns),
        asset: table.asset(last.start).to_owned(),
        expected: amount(last.expected.0),
        realised: amount(last.realised.0),
        seen,
        stages: rounds
            .iter()
            .map(|round| StageText {
                stage: round.stage.name().to_owned(),
                after_ms: round.duration_ns as f64 / 1e6,
                realised: amount(round.realised.0),
                worth: round.worth.0.to_string(),
                hedges: round.hedges,
            })
            .collect(),
        orders: trades
            .orders
            .values()
            .filter(|order| (order.new.run, order.new.key.round()) == (last.run, last.id))
            .map(text)
            .collect(),
    };
    if args.json {
        print_json(&story);
    } else {
        print_story(&story);
    }
    Ok(Outcome::Ok)
}

fn print_story(story: &Story) {
    print(format_args!(
        "round {} of run {}, opened {} on opportunity {}: expected {} {}",
        story.round, story.run, story.opened, story.opportunity, story.expected, story.asset
    ));
    for seen in &story.seen {
        print(format_args!(
            "  saw {} {} best {} {}, {} levels down to {} for {} · book {} us old, update {}",
            seen.venue,
            seen.symbol,
            seen.side,
            seen.best_px,
            seen.levels,
            seen.px,
            seen.qty,
            seen.age_us,
            seen.update_id
        ));
    }
    for order in &story.orders {
        print(format_args!(
            "  {} {} {} {} @ {} {}: {} {} {}",
            order.purpose,
            order.action,
            order.qty,
            order.symbol,
            order.px,
            order.venue,
            order.state,
            order.filled,
            order.reason
        ));
        for fill in &order.fills {
            print(format_args!(
                "    filled {} @ {} · fee {} {} · trade {}{}{}",
                fill.qty,
                fill.px,
                fill.fee,
                fill.fee_asset,
                fill.trade_id,
                if fill.late { " · after the order's end" } else { "" },
                if fill.busted { " · taken back by the venue" } else { "" }
            ));
        }
    }
    for stage in &story.stages {
        print(format_args!(
            "  {:>9.2} ms {} · {} {} so far · {} hedges",
            stage.after_ms, stage.stage, stage.realised, story.asset, stage.hedges
        ));
    }
    print(format_args!("  realised {} {}", story.realised, story.asset));
}
