//! The tables: their columns, in order, and how a row that is told in parts becomes one.
//!
//! Invariant: this is the whole shape of what leaves the journal as rows. The SQL migrations
//! (`deploy/sql/migrations`) and `deploy/prisma/schema.prisma` say the same; a test compares all three.
//!
//! Not here: what fills them (`projector`), how a database is told (`crate::postgres`).

use super::Type::{Bool, Date, Int2, Int4, Int8, Json, Numeric, Text, Time, Uuid};
use super::{Column, Merge, Type};

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Journals that were drained.
    Journals,
    /// Runs of the engine.
    Runs,
    /// What each run was configured with: JSON as text.
    Configuration,
    /// Instruments of each run.
    Instruments,
    /// Assets of each run.
    Assets,
    /// What paid, from its first moment to its last, and what became of it.
    Opportunities,
    /// The orders that would take an opportunity, each time they were told.
    OpportunityLegs,
    /// Candidates that were refused, with the numbers behind it.
    Denials,
    /// Arbitrages that were tried.
    Rounds,
    /// The time line of rounds.
    RoundStages,
    /// Entry legs of rounds, planned and filled.
    RoundLegs,
    /// Orders, with everything that was said about them.
    Orders,
    /// The time line of orders: intents, requests, reports.
    OrderEvents,
    /// Fills, each once by the venue's trade id; what a venue took back or corrected beside what it told.
    Fills,
    /// What venues told of our balances.
    Balances,
    /// Postings of our own books.
    Ledger,
    /// Result of each day, in the numeraire.
    PnlDay,
    /// What moved at each venue on each day, by asset and account of the ledger: sums of postings, not marked.
    PnlVenueDay,
    /// Decisions about what is allowed, and operators' acts.
    Audit,
    /// Changes of venues, sessions, books, rules, fees and clocks.
    VenueEvents,
    /// Latency by process, stage and interval, read from shared memory.
    LatencyIntervals,
    /// Best bid and ask, at most one a second and instrument.
    BboSamples,
    /// Records of a journal that could not be drained.
    JournalGaps,
}

impl Table {
    /// Every table, in the order they are written.
    pub const ALL: [Table; 23] = [
        Table::Journals,
        Table::Runs,
        Table::Configuration,
        Table::Instruments,
        Table::Assets,
        Table::Opportunities,
        Table::OpportunityLegs,
        Table::Denials,
        Table::Rounds,
        Table::RoundStages,
        Table::RoundLegs,
        Table::Orders,
        Table::OrderEvents,
        Table::Fills,
        Table::Balances,
        Table::Ledger,
        Table::PnlDay,
        Table::PnlVenueDay,
        Table::Audit,
        Table::VenueEvents,
        Table::LatencyIntervals,
        Table::BboSamples,
        Table::JournalGaps,
    ];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Journals => "journals",
            Table::Runs => "runs",
            Table::Configuration => "configuration",
            Table::Instruments => "instruments",
            Table::Assets => "assets",
            Table::Opportunities => "opportunities",
            Table::OpportunityLegs => "opportunity_legs",
            Table::Denials => "denials",
            Table::Rounds => "rounds",
            Table::RoundStages => "round_stages",
            Table::RoundLegs => "round_legs",
            Table::Orders => "orders",
            Table::OrderEvents => "order_events",
            Table::Fills => "fills",
            Table::Balances => "balances",
            Table::Ledger => "ledger",
            Table::PnlDay => "pnl_day",
            Table::PnlVenueDay => "pnl_venue_day",
            Table::Audit => "audit",
            Table::VenueEvents => "venue_events",
            Table::LatencyIntervals => "latency_intervals",
            Table::BboSamples => "bbo_samples",
            Table::JournalGaps => "journal_gaps",
        }
    }

    /// Returns its columns.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Journals => JOURNALS,
            Table::Runs => RUNS,
            Table::Configuration => CONFIGURATION,
            Table::Instruments => INSTRUMENTS,
            Table::Assets => ASSETS,
            Table::Opportunities => OPPORTUNITIES,
            Table::OpportunityLegs => OPPORTUNITY_LEGS,
            Table::Denials => DENIALS,
            Table::Rounds => ROUNDS,
            Table::RoundStages => ROUND_STAGES,
            Table::RoundLegs => ROUND_LEGS,
            Table::Orders => ORDERS,
            Table::OrderEvents => ORDER_EVENTS,
            Table::Fills => FILLS,
            Table::Balances => BALANCES,
            Table::Ledger => LEDGER,
            Table::PnlDay => PNL_DAY,
            Table::PnlVenueDay => PNL_VENUE_DAY,
            Table::Audit => AUDIT,
            Table::VenueEvents => VENUE_EVENTS,
            Table::LatencyIntervals => LATENCY_INTERVALS,
            Table::BboSamples => BBO_SAMPLES,
            Table::JournalGaps => JOURNAL_GAPS,
        }
    }

    /// Returns whether its rows change after they were first told.
    #[must_use]
    pub const fn changes(self) -> bool {
        matches!(
            self,
            Table::Journals
                | Table::Opportunities
                | Table::Rounds
                | Table::RoundLegs
                | Table::Orders
                | Table::Fills
                | Table::PnlDay
                | Table::PnlVenueDay
                | Table::LatencyIntervals
        )
    }

    /// Returns the column whose day says in which partition a row is; nothing for a table in one piece.
    #[must_use]
    pub const fn partitioned_by(self) -> Option<&'static str> {
        match self {
            Table::Opportunities => Some("first_at"),
            Table::OpportunityLegs
            | Table::Denials
            | Table::OrderEvents
            | Table::Balances
            | Table::Ledger
            | Table::Audit
            | Table::VenueEvents
            | Table::BboSamples => Some("at"),
            Table::LatencyIntervals => Some("started_at"),
            _ => None,
        }
    }
}

const fn col(name: &'static str, kind: Type, nullable: bool, merge: Merge) -> Column {
    Column { name, kind, nullable, merge }
}

/// Part of the key.
const fn key(name: &'static str, kind: Type) -> Column {
    col(name, kind, false, Merge::Key)
}

/// What is told first stays.
const fn first(name: &'static str, kind: Type) -> Column {
    col(name, kind, false, Merge::First)
}

/// The same where it may never be told.
const fn first_or_null(name: &'static str, kind: Type) -> Column {
    col(name, kind, true, Merge::First)
}

/// What is told last holds.
const fn last(name: &'static str, kind: Type) -> Column {
    col(name, kind, false, Merge::Last)
}

/// The same where it may never be told.
const fn last_or_null(name: &'static str, kind: Type) -> Column {
    col(name, kind, true, Merge::Last)
}

/// What is told is added.
const fn sum(name: &'static str, kind: Type) -> Column {
    col(name, kind, false, Merge::Sum)
}

/// The same where it may never be told.
const fn sum_or_null(name: &'static str, kind: Type) -> Column {
    col(name, kind, true, Merge::Sum)
}

const JOURNALS: &[Column] = &[key("journal", Uuid), first("seq", Int8), first("first_seen", Time)];

const RUNS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("run", Int8),
    first("mode", Text),
    first("started_at", Time),
    first("started_ns", Int8),
    first_or_null("numeraire", Text),
    first("instruments", Int4),
    first("cycles", Int4),
    first("config_hash", Text),
];

const CONFIGURATION: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("run", Int8),
    first("hash", Text),
    first("body", Text),
];

const INSTRUMENTS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("run", Int8),
    key("instrument", Int4),
    first("venue", Text),
    first("symbol", Text),
    first("base", Text),
    first("quote", Text),
    first("px_exponent", Int2),
    first("qty_exponent", Int2),
    first("tick", Numeric),
    first("lot", Numeric),
    first("qty_min", Numeric),
    first("qty_max", Numeric),
    first("notional_min", Numeric),
    first("notional_max", Numeric),
    first("taker_fee_ppm", Int4),
    first("status", Text),
];

const ASSETS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("run", Int8),
    key("asset", Int4),
    first("name", Text),
    first("exponent", Int2),
];

const OPPORTUNITIES: &[Column] = &[
    key("journal", Uuid),
    key("run", Int8),
    key("opportunity", Int8),
    key("first_at", Time),
    first("first_ns", Int8),
    first("seq", Int8),
    last("seq_last", Int8),
    first("kind", Text),
    first("cycle", Int8),
    first("asset", Text),
    first("pair", Text),
    first("venues", Text),
    first("path", Text),
    last_or_null("phase", Text),
    last_or_null("best", Bool),
    last_or_null("net", Numeric),
    last_or_null("spent", Numeric),
    last_or_null("brought", Numeric),
    last_or_null("gross_ppb", Int8),
    last_or_null("buffers_ppm", Int8),
    last_or_null("age_ns", Int8),
    last_or_null("best_at", Time),
    last_or_null("best_ns", Int8),
    last_or_null("last_at", Time),
    last_or_null("last_ns", Int8),
    last_or_null("times", Int8),
    last_or_null("after_net", Numeric),
    last_or_null("closed", Bool),
    first_or_null("round", Int8),
    last_or_null("denied_by", Text),
    sum_or_null("denied_times", Int8),
    last_or_null("denied_observed", Int8),
    last_or_null("denied_limit", Int8),
];

const OPPORTUNITY_LEGS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("run", Int8),
    first("opportunity", Int8),
    first("phase", Text),
    first("leg", Int2),
    first("venue", Text),
    first("symbol", Text),
    first("action", Text),
    first("px", Numeric),
    first("qty", Numeric),
    first("best_px", Numeric),
    first("levels", Int8),
    first("update_id", Numeric),
    first_or_null("book_at", Time),
    first_or_null("book_ns", Int8),
];

const DENIALS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("run", Int8),
    first("verdict", Text),
    first("kind", Text),
    first_or_null("cycle", Int8),
    first("asset", Text),
    first_or_null("pair", Text),
    first_or_null("venues", Text),
    first_or_null("path", Text),
    first("times", Int8),
    first("net", Numeric),
    first("spent", Numeric),
    first("gross_ppb", Int8),
    first("buffers_ppm", Int8),
    first("age_ns", Int8),
    first_or_null("control", Int2),
    first_or_null("venue", Text),
    first_or_null("symbol", Text),
    first_or_null("observed", Int8),
    first_or_null("limit_value", Int8),
];

const ROUNDS: &[Column] = &[
    key("journal", Uuid),
    key("run", Int8),
    key("round", Int8),
    first("seq", Int8),
    last("seq_last", Int8),
    first_or_null("opportunity", Int8),
    last("stage", Text),
    last("orphan", Bool),
    first_or_null("cycle", Int8),
    first_or_null("kind", Text),
    first("asset", Text),
    first_or_null("pair", Text),
    first_or_null("venues", Text),
    first("numeraire", Text),
    first("expected", Numeric),
    last("realised", Numeric),
    last("worth", Numeric),
    last("hedges", Int8),
    first("opened_at", Time),
    first("opened_ns", Int8),
    first_or_null("settled_at", Time),
    first_or_null("settled_ns", Int8),
    last("duration_ns", Int8),
    last("legs_filled", Int2),
    last("legs_partial", Int2),
    last("legs_empty", Int2),
];

const ROUND_STAGES: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("at", Time),
    first("at_ns", Int8),
    first("run", Int8),
    first("round", Int8),
    first("stage", Text),
    first("realised", Numeric),
    first("worth", Numeric),
    first("hedges", Int8),
    first("duration_ns", Int8),
];

const ROUND_LEGS: &[Column] = &[
    key("journal", Uuid),
    key("run", Int8),
    key("round", Int8),
    key("leg", Int2),
    first("seq", Int8),
    last("seq_last", Int8),
    first("venue", Text),
    first("symbol", Text),
    first("action", Text),
    first("px", Numeric),
    first("qty", Numeric),
    last("filled", Numeric),
];

const ORDERS: &[Column] = &[
    key("journal", Uuid),
    key("run", Int8),
    key("order_key", Int8),
    first("seq", Int8),
    last("seq_last", Int8),
    first("round", Int8),
    first("n", Int4),
    first("client_order_id", Text),
    first("venue", Text),
    first("symbol", Text),
    first_or_null("action", Text),
    first_or_null("px", Numeric),
    first_or_null("qty", Numeric),
    first_or_null("tif", Text),
    first_or_null("purpose", Text),
    first_or_null("opportunity", Int8),
    first_or_null("made_at", Time),
    first_or_null("made_ns", Int8),
    first_or_null("expires_at", Time),
    first_or_null("sent_at", Time),
    first_or_null("sent_ns", Int8),
    first_or_null("acked_at", Time),
    first_or_null("acked_ns", Int8),
    first_or_null("venue_order_id", Text),
    first_or_null("cancel_at", Time),
    first_or_null("end_state", Text),
    first_or_null("end_class", Text),
    first_or_null("end_code", Int8),
    first_or_null("ended_at", Time),
    first_or_null("ended_ns", Int8),
    first_or_null("done_qty", Numeric),
    last_or_null("totals_qty", Numeric),
    last_or_null("totals_cost", Numeric),
    last_or_null("totals_fee", Numeric),
    last_or_null("totals_fee_asset", Text),
    sum_or_null("unknown_count", Int8),
];

const ORDER_EVENTS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("run", Int8),
    first("order_key", Int8),
    first("venue", Text),
    first("symbol", Text),
    first("event", Text),
    first_or_null("detail", Text),
    first_or_null("code", Int8),
    first_or_null("qty", Numeric),
    first_or_null("px", Numeric),
];

const FILLS: &[Column] = &[
    key("journal", Uuid),
    key("venue", Text),
    key("symbol", Text),
    key("trade_id", Numeric),
    first("seq", Int8),
    last("seq_last", Int8),
    first("run", Int8),
    first("order_key", Int8),
    first("round", Int8),
    first("client_order_id", Text),
    first_or_null("base", Text),
    first_or_null("quote", Text),
    first_or_null("fill_seq", Int8),
    first_or_null("told_at", Time),
    first_or_null("told_ns", Int8),
    first_or_null("px", Numeric),
    first_or_null("qty", Numeric),
    first_or_null("fee", Numeric),
    first_or_null("fee_asset", Text),
    sum_or_null("times_told", Int8),
    last_or_null("bust_seq", Int8),
    last_or_null("bust_at", Time),
    last_or_null("busted", Bool),
    last_or_null("px_now", Numeric),
    last_or_null("qty_now", Numeric),
    last_or_null("fee_now", Numeric),
    last_or_null("fee_asset_now", Text),
];

const BALANCES: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("venue", Text),
    first("asset", Text),
    first("total", Numeric),
    first("held", Numeric),
    first("source", Text),
];

const LEDGER: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("run", Int8),
    first_or_null("order_key", Int8),
    first_or_null("venue", Text),
    first("asset", Text),
    first("delta", Numeric),
    first("after", Numeric),
    first("account", Text),
];

const PNL_DAY: &[Column] = &[
    key("journal", Uuid),
    key("day", Date),
    key("asset", Text),
    first("seq", Int8),
    last("seq_last", Int8),
    last("realised", Numeric),
    last("marked", Numeric),
    last("peak", Numeric),
    last("rounds", Int8),
    last("told_at", Time),
];

const PNL_VENUE_DAY: &[Column] = &[
    key("journal", Uuid),
    key("day", Date),
    key("venue", Text),
    key("asset", Text),
    key("account", Text),
    first("seq", Int8),
    last("seq_last", Int8),
    sum("amount", Numeric),
    sum("postings", Int8),
];

const AUDIT: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("kind", Text),
    first_or_null("venue", Text),
    first_or_null("symbol", Text),
    first("what", Text),
    first_or_null("cause", Text),
    first_or_null("value", Int8),
    first_or_null("details", Json),
];

const VENUE_EVENTS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first_or_null("venue", Text),
    first_or_null("symbol", Text),
    first("kind", Text),
    first("what", Text),
    first_or_null("reason", Text),
    first_or_null("code", Int8),
    first_or_null("value", Int8),
];

const LATENCY_INTERVALS: &[Column] = &[
    key("process", Text),
    key("generation", Int8),
    key("stage", Text),
    key("started_at", Time),
    first("ended_at", Time),
    first("unit", Text),
    first("count", Int8),
    first("sum", Numeric),
    first("p50", Int8),
    first("p99", Int8),
    first("p999", Int8),
    first("max", Int8),
];

const BBO_SAMPLES: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    key("at", Time),
    first("at_ns", Int8),
    first("venue", Text),
    first("symbol", Text),
    first_or_null("bid_px", Numeric),
    first_or_null("bid_qty", Numeric),
    first_or_null("ask_px", Numeric),
    first_or_null("ask_qty", Numeric),
    first("state", Text),
];

const JOURNAL_GAPS: &[Column] = &[
    key("journal", Uuid),
    key("seq", Int8),
    first("to_seq", Int8),
    first("lost", Int8),
    first("at", Time),
    first("why", Text),
];
