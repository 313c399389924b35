//! Rows for people and scripts: exact decimal text for money, microseconds since 1970 (UTC) for moments,
//! nanoseconds or microseconds for durations, as each name says.
//!
//! Invariant: every integer fits the 53 bits that JavaScript has.

use std::collections::BTreeMap;

use serde::Serialize;
use tandem_core::controls::Control;
use tandem_core::graph::Action;
use tandem_core::instrument::AssetId;
use tandem_core::record::{TradingStatus, Venue};
use tandem_core::report::{Denial, LegReport, Phase};
use tandem_core::round::RoundLeg;
use tandem_core::units::Decimal;

use crate::run::RunInfo;

/// Price and quantity of a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LevelView(pub String, pub String);

/// A book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct BookView {
    pub instrument: u16,
    pub venue: &'static str,
    pub symbol: String,
    pub base: String,
    pub quote: String,
    pub state: &'static str,
    /// Why it is in that state.
    pub reason: &'static str,
    pub bids: Vec<LevelView>,
    pub asks: Vec<LevelView>,
    pub update_id: u64,
    /// The venue's time of the last change; 0 where it told none.
    pub venue_us: i64,
    /// When the last change was received.
    pub recv_us: i64,
    /// How long ago that was.
    pub age_us: Option<i64>,
}

/// One leg of an opportunity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct LegView {
    pub venue: &'static str,
    pub symbol: String,
    /// `buy` or `sell`.
    pub action: &'static str,
    /// Limit price.
    pub px: String,
    pub qty: String,
    /// Best price of the side taken.
    pub best_px: String,
    /// Levels touched.
    pub levels: u32,
    pub update_id: u64,
    pub recv_us: i64,
}

/// One moment of an opportunity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PhaseView {
    pub phase: &'static str,
    pub at_us: i64,
    pub net: String,
    pub net_ppm: i64,
}

/// An opportunity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct OpportunityView {
    /// Grows with each change of any row.
    pub rev: u64,
    pub run: u32,
    pub id: i64,
    /// Sequence in the journal of the last record that opened it.
    pub seq: u64,
    pub kind: &'static str,
    pub cycle: u32,
    /// The legs in a line.
    pub route: String,
    pub asset: String,
    /// `open`, `taken`, `gone`, or `denied: ` and why.
    pub verdict: String,
    /// The round that took it.
    pub round: Option<u64>,
    pub best_of_step: bool,
    /// Net gain at its best, of `asset`.
    pub net: String,
    pub spent: String,
    pub brought: String,
    pub net_ppm: i64,
    pub gross_ppb: i64,
    pub buffers_ppm: i64,
    /// Age of the oldest leg's data when it was seen.
    pub age_ns: i64,
    pub first_us: i64,
    pub last_us: i64,
    pub best_us: i64,
    /// From first to last seen, once it is gone.
    pub life_us: Option<i64>,
    /// How many times it was evaluated and paid.
    pub times: i64,
    /// What the same books gave one order latency later.
    pub after_net: Option<String>,
    pub legs: Vec<LegView>,
    /// The books it was found in, as they were.
    pub seen: Vec<BookView>,
    pub phases: Vec<PhaseView>,
    pub denials: Vec<DenialView>,
}

/// A denied candidate, or several with the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct DenialView {
    pub rev: u64,
    pub at_us: i64,
    pub code: String,
    /// The control that refused it.
    pub control: Option<&'static str>,
    /// What the control found and what it allows, in its own unit.
    pub observed: Option<i64>,
    pub limit: Option<i64>,
    pub kind: &'static str,
    pub cycle: u32,
    pub route: String,
    /// The opportunity that it is about.
    pub opportunity: Option<i64>,
    pub times: u64,
    pub asset: String,
    pub net: String,
    pub spent: String,
    pub gross_ppb: i64,
    pub age_ns: i64,
}

/// One leg of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct RoundLegView {
    pub venue: &'static str,
    pub symbol: String,
    pub action: &'static str,
    pub px: String,
    pub qty: String,
    pub filled: String,
}

/// A stage of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct StageView {
    pub stage: &'static str,
    /// Since the round was opened.
    pub after_us: i64,
    pub realised: String,
    pub hedges: i64,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct RoundView {
    pub rev: u64,
    pub run: u32,
    pub id: u64,
    pub stage: &'static str,
    pub is_orphan: bool,
    pub opportunity: Option<u64>,
    pub route: String,
    pub asset: String,
    pub numeraire: String,
    /// What it should gain and what it gained, of `asset`.
    pub expected: String,
    pub realised: String,
    /// What all of it is worth, of `numeraire`.
    pub worth: String,
    pub hedges: i64,
    pub opened_us: i64,
    pub duration_us: i64,
    pub legs: Vec<RoundLegView>,
    pub stages: Vec<StageView>,
}

/// A fill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct FillView {
    pub at_us: i64,
    pub trade_id: String,
    pub px: String,
    pub qty: String,
    pub fee: String,
    pub fee_asset: String,
    /// The venue took it back.
    pub busted: bool,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct OrderView {
    pub rev: u64,
    pub run: u32,
    pub client_id: String,
    pub round: u64,
    pub venue: &'static str,
    pub symbol: String,
    pub action: &'static str,
    pub purpose: &'static str,
    pub px: String,
    pub qty: String,
    pub filled: String,
    pub state: &'static str,
    /// More words on how it ended.
    pub detail: Option<String>,
    pub made_us: i64,
    pub sent_us: Option<i64>,
    pub acked_us: Option<i64>,
    pub ended_us: Option<i64>,
    /// How often its outcome was unknown.
    pub unknown: u32,
    pub fills: Vec<FillView>,
}

/// Money that moved for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    quanta: i128,
    exponent: u8,
}

impl Flow {
    pub(super) const fn new(exponent: u8) -> Flow {
        Flow { quanta: 0, exponent }
    }

    pub(super) fn add(&mut self, quanta: i64) {
        self.quanta = self.quanta.saturating_add(i128::from(quanta));
    }
}

impl Serialize for Flow {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let quanta = i64::try_from(self.quanta);
        let quanta = quanta.map_err(|_| serde::ser::Error::custom("a flow beyond 64 bits"))?;
        to.collect_str(&Decimal { quanta, exponent: self.exponent })
    }
}

/// A balance: what the venue says beside what our ledger says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct BalanceView {
    pub rev: u64,
    pub venue: &'static str,
    pub asset: String,
    /// By our ledger.
    pub ledger: Option<String>,
    /// By the venue's last word, and of that reserved for orders.
    pub told: Option<String>,
    pub held: Option<String>,
    pub told_us: i64,
    /// What moved, by account of the ledger.
    pub flows: BTreeMap<&'static str, Flow>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct EventView {
    pub rev: u64,
    pub at_us: i64,
    pub severity: &'static str,
    pub kind: &'static str,
    pub venue: Option<&'static str>,
    pub text: String,
}

/// A point of the equity curve, in the numeraire; for drawing, not for accounts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct PnlPoint {
    pub at_us: i64,
    pub realised: f64,
    pub marked: f64,
}

/// What was counted since the oldest record that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Counts {
    pub records: u64,
    /// Records that made no sense here.
    pub unreadable: u64,
    /// Opened: cross-venue, triangular, cross-quote.
    pub opportunities: [u64; 3],
    pub denials: u64,
    pub denied: BTreeMap<String, u64>,
    pub rounds: u64,
    pub settled: u64,
    pub postings: u64,
    pub gaps: u64,
}

/// Returns a ratio in ppm; 0 of nothing.
#[must_use]
pub fn ppm(part: i64, whole: i64) -> i64 {
    match whole {
        0 => 0,
        whole => {
            let ppm = i128::from(part) * 1_000_000 / i128::from(whole);
            i64::try_from(ppm).unwrap_or(i64::MAX)
        }
    }
}

/// Returns an amount as a number to draw.
#[must_use]
pub fn number(run: &RunInfo, asset: AssetId, quanta: i64) -> f64 {
    quanta as f64 / 10f64.powi(i32::from(run.asset_exponent(asset)))
}

/// Returns the name of a phase.
#[must_use]
pub const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Update => "update",
        Phase::Close => "close",
        Phase::After => "after",
    }
}

/// Returns the name of a trading status as records carry it.
#[must_use]
pub fn status_name(tag: i64) -> &'static str {
    match TradingStatus::from_tag(tag) {
        Some(TradingStatus::Trading) => "trading",
        Some(TradingStatus::CancelOnly) => "cancel only",
        Some(TradingStatus::PostOnly) => "post only",
        Some(TradingStatus::Halted) => "halted",
        None => "unknown",
    }
}

/// Returns the name of what is done.
#[must_use]
pub const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Buy => "buy",
        Action::Sell => "sell",
    }
}

/// Returns the code of a denial: the control's name or the verdict's.
#[must_use]
pub fn denial_code(denial: &Denial) -> String {
    match &denial.breach {
        Some(breach) => Control::from_tag(breach.control)
            .map_or("unknown", Control::name)
            .replace([' ', '-'], "_"),
        None => denial.verdict.name().to_owned(),
    }
}

fn venue_name(tag: u8) -> &'static str {
    Venue::from_tag(tag).map_or("?", Venue::name)
}

pub(super) fn leg(run: &RunInfo, leg: &LegReport) -> LegView {
    LegView {
        venue: venue_name(leg.venue),
        symbol: run.symbol(leg.instrument).to_owned(),
        action: if leg.side == 1 { "buy" } else { "sell" },
        px: run.px(leg.instrument, leg.px.0),
        qty: run.qty(leg.instrument, leg.qty.0),
        best_px: run.px(leg.instrument, leg.best_px.0),
        levels: leg.levels,
        update_id: leg.update_id,
        recv_us: leg.recv_ts_ns / 1_000,
    }
}

pub(super) fn round_leg(run: &RunInfo, leg: &RoundLeg) -> RoundLegView {
    RoundLegView {
        venue: venue_name(leg.venue),
        symbol: run.symbol(leg.instrument).to_owned(),
        action: action_name(leg.action),
        px: run.px(leg.instrument, leg.px.0),
        qty: run.qty(leg.instrument, leg.qty.0),
        filled: run.qty(leg.instrument, leg.filled.0),
    }
}

pub(super) fn route(legs: &[LegView]) -> String {
    let legs: Vec<String> =
        legs.iter().map(|leg| format!("{} {} {}", leg.action, leg.symbol, leg.venue)).collect();
    legs.join(" → ")
}

/// Returns the legs of a cycle in a line; nothing for what is no cycle of the run.
pub(super) fn cycle_route(run: &RunInfo, cycle: u32) -> String {
    let edges = run.cycles.get(cycle as usize).map_or(&[][..], |cycle| cycle.edges());
    let legs: Vec<String> = edges
        .iter()
        .map(|edge| {
            let instrument = run.universe.instruments.get(usize::from(edge.instrument()));
            let venue = instrument.map_or("?", |found| found.venue.name());
            format!("{} {} {venue}", action_name(edge.action()), run.symbol(edge.instrument()))
        })
        .collect();
    legs.join(" → ")
}
