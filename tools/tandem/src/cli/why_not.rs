//! `why` without a round: what stands against trading now, and what was refused lately and for what.
//!
//! Invariant: it only reads; what it shows is what the journal and the processes' pages say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::opportunities::{DenialText, Told, read};
use super::{Done, Failure, Outcome, print, print_json};
use crate::config::Config;
use crate::demo::RunStats;
use crate::engine_tile::metric;
use crate::records::Origin;
use crate::stages::{self, Verdict};
use crate::time::now_ns;

/// What was refused for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// Name of the verdict or the control.
    pub reason: String,
    /// How many candidates.
    pub times: i64,
    /// The latest of them.
    pub last: DenialText,
}

#[derive(Clone, Debug, Serialize)]
struct Answer {
    level: Option<String>,
    venues: BTreeMap<String, String>,
    failed_stages: Vec<String>,
    rounds_open: i64,
    orders_open: i64,
    over_s: f64,
    opportunities: u64,
    refused: Vec<Reason>,
}

/// Returns what a journal's last `over` says was refused, the most frequent first, and how many
/// opportunities opened meanwhile. `symbol` leaves only those with such a leg.
pub fn refused(
    journal: impl Into<Origin>,
    over: Duration,
    symbol: Option<&str>,
) -> Result<(Vec<Reason>, u64), Failure> {
    let since_ns = now_ns() - i64::try_from(over.as_nanos()).unwrap_or(i64::MAX);
    let is_wanted = |legs: &[super::opportunities::LegText]| {
        symbol.is_none_or(|symbol| legs.iter().any(|leg| leg.symbol == symbol))
    };
    let mut reasons: BTreeMap<String, Reason> = BTreeMap::new();
    let mut opened = 0;
    read(journal, |told| match told {
        Told::Opportunity(told) => {
            opened +=
                u64::from(told.phase == "open" && since_ns <= told.at_ns && is_wanted(&told.legs));
        }
        Told::Denial(told) if since_ns <= told.at_ns && is_wanted(&told.legs) => {
            let name = told.verdict.clone();
            let times = told.times + reasons.get(&name).map_or(0, |reason| reason.times);
            reasons.insert(name.clone(), Reason { reason: name, times, last: *told });
        }
        Told::Denial(_) => {}
    })?;
    let mut reasons: Vec<Reason> = reasons.into_values().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.times));
    Ok((reasons, opened))
}

/// `tandem why` without a round.
pub fn run(config: &Config, over: Duration, symbol: Option<&str>, json: bool) -> Done {
    let (refused, opportunities) = refused(Origin::of(config), over, symbol)?;
    let failed = stages::check(config)
        .into_iter()
        .filter(|stage| stage.verdict == Verdict::Fail)
        .map(|stage| format!("{} {}: {}", stage.id, stage.name, stage.detail))
        .collect();
    let levels = stages::levels(config);
    let stats = RunStats::open(config, Duration::ZERO).ok();
    let engine = stats.as_ref().map(RunStats::engine);
    let gauge = |name| engine.as_ref().and_then(|engine| engine.gauge(name)).unwrap_or(0);
    let answer = Answer {
        level: levels.as_ref().map(|(global, _)| global.name().to_owned()),
        venues: levels
            .into_iter()
            .flat_map(|(_, venues)| venues)
            .map(|(venue, level)| (venue.name().to_owned(), level.name().to_owned()))
            .collect(),
        failed_stages: failed,
        rounds_open: gauge(metric::ROUNDS_OPEN),
        orders_open: gauge(metric::ORDERS_OPEN),
        over_s: over.as_secs_f64(),
        opportunities,
        refused,
    };
    if json {
        print_json(&answer);
        return Ok(Outcome::Ok);
    }
    let level = answer.level.as_deref().unwrap_or("unknown: nothing runs");
    let venues: Vec<String> =
        answer.venues.iter().map(|(venue, level)| format!("{venue} {level}")).collect();
    print(format_args!("level {level} ({})", venues.join(", ")));
    for stage in &answer.failed_stages {
        print(format_args!("stands against READY: {stage}"));
    }
    print(format_args!("{} rounds and {} orders are open", answer.rounds_open, answer.orders_open));
    print(format_args!(
        "in the last {} s {} opportunities opened; refused:",
        answer.over_s, answer.opportunities
    ));
    for reason in &answer.refused {
        let told = &reason.last;
        let legs: Vec<String> = told
            .legs
            .iter()
            .map(|leg| format!("{} {} {}", leg.action, leg.symbol, leg.venue))
            .collect();
        let numbers = told.found.as_ref().map_or_else(String::new, |found| {
            format!(" · found {}, allowed {}", found.observed, found.limit)
        });
        print(format_args!(
            "{:>8} x {:<24} last {}: {}{numbers}",
            reason.times,
            reason.reason,
            told.at,
            legs.join(", ")
        ));
    }
    Ok(Outcome::Ok)
}
