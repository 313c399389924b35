//! What rounds expected and what they gained, by pair, hour, kind, route or venue.
//!
//! Invariant: a round counts once in its group, when it was settled; sums are exact, in the asset that the round
//! starts and ends with, and in the numeraire as the engine valued them. A venue has no result of its own: by
//! venue are what its ledger accounts moved, and the rounds that touched it, which others touched too.
//!
//! Not here: days (`tandem pnl` without `--by`), lots and taxes (`fills`).

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;
use tandem_drain::rows::Table;
use tandem_shm::JournalError;

use super::Exact;
use super::period::Period;
use super::rows::{self, amount, number, text};
use super::stories::{Outcome, Stories, Story};
use crate::records::Origin;
use crate::time::utc;

/// By what results are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Venue: flows and fees of its accounts.
    Venue,
    /// Pairs of the cycle.
    Pair,
    /// Hour of the settlement, UTC.
    Hour,
    /// Kind of the cycle.
    Kind,
    /// The legs in their order.
    Route,
}

/// The rounds of a group that start and end with one asset.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Line {
    pub group: String,
    pub asset: String,
    pub rounds: u64,
    pub filled: u64,
    /// What the opportunities promised.
    pub expected: Exact,
    /// What the rounds brought, of the same asset.
    pub realised: Exact,
    /// Realised less expected.
    pub difference: Exact,
    /// Everything the rounds moved, in the numeraire.
    pub worth: Exact,
}

/// What one account moved.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Flow {
    pub venue: String,
    pub asset: String,
    pub account: String,
    pub amount: Exact,
}

/// Results by group.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PnlBy {
    pub numeraire: String,
    pub lines: Vec<Line>,
    /// By venue only.
    pub flows: Vec<Flow>,
    /// Rounds that were opened and are not settled.
    pub unsettled: u64,
}

fn groups(by: By, story: &Story) -> Vec<String> {
    let or = |text: &str| if text.is_empty() { "no cycle".to_owned() } else { text.to_owned() };
    match by {
        By::Venue if story.venues.is_empty() => vec!["no cycle".to_owned()],
        By::Venue => story.venues.split(' ').map(str::to_owned).collect(),
        By::Pair => vec![or(&story.pair)],
        By::Kind => vec![or(&story.kind)],
        By::Route => vec![story.route()],
        By::Hour => {
            let settled = utc(story.settled_ns.unwrap_or_default());
            vec![format!("{}:00Z", settled.get(..13).unwrap_or_default())]
        }
    }
}

/// Reads a journal.
pub fn read(origin: impl Into<Origin>, by: By, period: Period) -> Result<PnlBy, JournalError> {
    let (mut stories, mut told) = (Stories::default(), PnlBy::default());
    let mut flows: BTreeMap<(String, String, String), Exact> = BTreeMap::new();
    rows::read::<JournalError>(origin, |_, _, rows| {
        for row in &rows {
            stories.take(row);
            match row.table {
                Table::Runs => text(row, "numeraire").clone_into(&mut told.numeraire),
                Table::Ledger
                    if by == By::Venue
                        && matches!(text(row, "account"), "trade" | "fee" | "bust")
                        && number(row, "at").is_some_and(|at| period.holds(at)) =>
                {
                    let of = |column| text(row, column).to_owned();
                    let flow = flows.entry((of("venue"), of("asset"), of("account"))).or_default();
                    *flow = flow.plus(amount(row, "delta").unwrap_or_default());
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    let flows = flows.into_iter();
    told.flows = flows
        .map(|((venue, asset, account), amount)| Flow { venue, asset, account, amount })
        .collect();
    let mut lines: BTreeMap<(String, String), Line> = BTreeMap::new();
    for story in stories.by_round.values() {
        let Some(settled_ns) = story.settled_ns.filter(|_| story.stage == "settled") else {
            told.unsettled += u64::from(period.holds(story.opened_ns));
            continue;
        };
        if !period.holds(settled_ns) {
            continue;
        }
        for group in groups(by, story) {
            let line = lines.entry((group, story.asset.clone())).or_default();
            line.rounds += 1;
            line.filled += u64::from(story.outcome() == Outcome::Filled);
            line.expected = line.expected.plus(story.expected);
            line.realised = line.realised.plus(story.realised);
            line.difference = line.realised.minus(line.expected);
            line.worth = line.worth.plus(story.worth);
        }
    }
    let lines = lines.into_iter();
    told.lines = lines.map(|((group, asset), line)| Line { group, asset, ..line }).collect();
    Ok(told)
}
