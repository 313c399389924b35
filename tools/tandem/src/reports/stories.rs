//! The rounds of a journal: what each expected, what became of it, what it gained.
//!
//! Invariant: a round is what its last report says; it hedged or took back where an order of that purpose was
//! filled, not where one was sent.
//!
//! Not here: who asks (`daily`, `pnl_by`).

use std::collections::BTreeMap;

use tandem_drain::rows::{Row, Table};

use super::Exact;
use super::rows::{amount, number, text, yes};

/// How a round ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every leg whole.
    Filled,
    /// Nothing at all.
    Missed,
    /// Something was left over, and other orders completed it.
    Hedged,
    /// Something was left over, and was sold back.
    TakenBack,
    /// Filled in part, and nothing was left over that could be traded.
    Partly,
    /// Something is left over, and an operator was called.
    Held,
    /// Not over.
    Open,
}

impl Outcome {
    /// Returns the word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Filled => "filled on every leg",
            Outcome::Missed => "nothing filled",
            Outcome::Hedged => "hedged",
            Outcome::TakenBack => "taken back",
            Outcome::Partly => "partly filled",
            Outcome::Held => "held",
            Outcome::Open => "open",
        }
    }
}

/// One round.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Its stage as last told.
    pub stage: String,
    /// It follows from no opportunity of its run.
    pub is_orphan: bool,
    /// The opportunity that it took.
    pub opportunity: Option<i64>,
    /// Kind of its cycle; empty where it follows from none.
    pub kind: String,
    /// Pairs of its cycle.
    pub pair: String,
    /// Venues of its cycle.
    pub venues: String,
    /// Its legs in order: `buy BTC-USD coinbase, …`.
    pub legs: BTreeMap<i64, String>,
    /// Asset it starts and ends with.
    pub asset: String,
    /// What it should gain, of that asset.
    pub expected: Exact,
    /// What it gained.
    pub realised: Exact,
    /// What all of it is worth, in the numeraire.
    pub worth: Exact,
    /// Hedges sent.
    pub hedges: i64,
    /// When it was opened, UNIX ns.
    pub opened_ns: i64,
    /// When it was over.
    pub settled_ns: Option<i64>,
    filled: [i64; 3],
    has_hedge: bool,
    has_unwind: bool,
}

impl Story {
    /// Returns how it ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.stage.as_str(), self.filled) {
            ("held", _) => Outcome::Held,
            ("settled", _) if self.has_unwind => Outcome::TakenBack,
            ("settled", _) if self.has_hedge => Outcome::Hedged,
            ("settled", [_, 0, 0]) => Outcome::Filled,
            ("settled", [0, 0, _]) => Outcome::Missed,
            ("settled", _) => Outcome::Partly,
            _ => Outcome::Open,
        }
    }

    /// Returns its legs in words.
    #[must_use]
    pub fn route(&self) -> String {
        let legs: Vec<&str> = self.legs.values().map(String::as_str).collect();
        if legs.is_empty() { "no cycle".to_owned() } else { legs.join(", ") }
    }
}

/// All rounds, by run and number.
#[derive(Debug, Default)]
pub struct Stories {
    /// The rounds.
    pub by_round: BTreeMap<(i64, i64), Story>,
    /// Orders that hedge or take back.
    purposes: BTreeMap<(i64, i64), bool>,
}

impl Stories {
    /// Takes a row.
    pub fn take(&mut self, row: &Row) {
        let of = |column: &str| number(row, column).unwrap_or_default();
        match row.table {
            Table::Rounds => {
                let story = self.by_round.entry((of("run"), of("round"))).or_default();
                let exact = |column: &str| amount(row, column).unwrap_or_default();
                text(row, "stage").clone_into(&mut story.stage);
                story.is_orphan = yes(row, "orphan");
                story.opportunity = number(row, "opportunity");
                text(row, "kind").clone_into(&mut story.kind);
                text(row, "pair").clone_into(&mut story.pair);
                text(row, "venues").clone_into(&mut story.venues);
                text(row, "asset").clone_into(&mut story.asset);
                story.expected = exact("expected");
                story.realised = exact("realised");
                story.worth = exact("worth");
                story.hedges = of("hedges");
                story.opened_ns = of("opened_ns");
                story.settled_ns = number(row, "settled_ns").or(story.settled_ns);
                story.filled = [of("legs_filled"), of("legs_partial"), of("legs_empty")];
            }
            Table::RoundLegs => {
                if let Some(story) = self.by_round.get_mut(&(of("run"), of("round"))) {
                    let leg =
                        [text(row, "action"), text(row, "symbol"), text(row, "venue")].join(" ");
                    story.legs.insert(of("leg"), leg);
                }
            }
            Table::Orders if matches!(text(row, "purpose"), "hedge" | "unwind") => {
                let is_unwind = text(row, "purpose") == "unwind";
                self.purposes.insert((of("run"), of("order_key")), is_unwind);
            }
            Table::Fills => {
                let Some(is_unwind) = self.purposes.get(&(of("run"), of("order_key"))) else {
                    return;
                };
                let story = self.by_round.entry((of("run"), of("round"))).or_default();
                story.has_unwind |= is_unwind;
                story.has_hedge |= !is_unwind;
            }
            _ => {}
        }
    }
}
