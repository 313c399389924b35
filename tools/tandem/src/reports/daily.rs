//! One UTC day: what was gained and paid, found and taken, what went wrong, and whether the books agree.
//!
//! Invariant: a report is a function of the records, and of the figures of running processes where it says so.
//! What cannot be told is said, never left out: a result has no venue, because a round moves assets between
//! venues; a latency that nobody kept is not zero.
//!
//! Not here: how it looks (`page`).

use std::collections::BTreeMap;

use serde::Serialize;
use tandem_core::record::{Kind, Record};
use tandem_drain::rows::{Row, Table};
use tandem_shm::JournalError;

use super::Exact;
use super::period::{DAY_NS, Period, day_name};
use super::rows::{self, amount, number, text};
use super::stories::{Outcome, Stories};
use crate::demo::{Percentiles, percentiles};
use crate::records::Origin;
use crate::time::utc;

/// Silence of the engine that counts as its absence: it takes a timer many times a second.
const ABSENT_NS: i64 = 5_000_000_000;
/// Longest wait that a histogram of orders tells apart: an hour.
const WAIT_NS_MAX: u64 = 3_600_000_000_000;
/// Lines of a list that may be long; how many there are is said.
const LINES: usize = 50;

/// An order's wait, from one word to the next.
const WAITS: [(&str, &str, &str); 3] = [
    ("decision to socket", "made_ns", "sent_ns"),
    ("socket to first answer", "sent_ns", "acked_ns"),
    ("socket to end", "sent_ns", "ended_ns"),
];

/// A run of the engine that was there on the day.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct RunLine {
    pub run: i64,
    pub mode: String,
    pub started: String,
    pub configuration: String,
}

/// The day's result, as the engine told it last.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of Pnl")]
pub struct PnlLine {
    pub realised: Exact,
    pub marked: Exact,
    pub peak: Exact,
    pub asset: String,
    pub told: String,
}

/// What one account of the ledger moved at a venue.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct FlowLine {
    pub venue: String,
    pub asset: String,
    pub account: String,
    pub amount: Exact,
    pub postings: i64,
}

/// What was found and what became of it, of one kind.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct FunnelLine {
    pub kind: String,
    pub found: u64,
    pub denied: u64,
    pub taken: u64,
    pub gone: u64,
    pub filled: u64,
    pub nothing_filled: u64,
    pub hedged: u64,
    pub taken_back: u64,
    pub partly: u64,
    pub held: u64,
    pub open: u64,
    /// Net edge of everything found, by asset: not all of it could have been taken.
    pub found_net: BTreeMap<String, Exact>,
    /// Realised by the rounds, by asset.
    pub realised: BTreeMap<String, Exact>,
}

/// How often a candidate was denied.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct DenialLine {
    pub code: String,
    pub kind: String,
    pub times: i64,
}

/// A round that was not filled on every leg.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct OneLegLine {
    pub run: i64,
    pub round: i64,
    pub at: String,
    pub outcome: String,
    pub kind: String,
    pub pair: String,
    pub hedges: i64,
    pub asset: String,
    pub expected: Exact,
    pub realised: Exact,
    /// Expected less realised.
    pub cost: Exact,
}

/// How long orders waited.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct WaitLine {
    pub venue: String,
    pub stage: String,
    pub today: Percentiles,
    pub yesterday: Option<Percentiles>,
}

/// A stage of a running process, since its start.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct StageLine {
    pub process: String,
    pub stage: String,
    pub since_start: Percentiles,
}

/// What went wrong, or might have: equal ones together.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct IncidentLine {
    pub what: String,
    pub place: String,
    pub why: String,
    pub times: u64,
    pub first: String,
    pub last: String,
}

/// An order whose outcome was not known for a time.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct UnknownLine {
    pub order: String,
    pub venue: String,
    pub symbol: String,
    pub since: String,
    pub why: String,
    /// How long, in ms; nothing where it still is.
    pub lasted_ms: Option<i64>,
}

/// How long a process was there.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct UptimeLine {
    pub process: String,
    /// Of which something is known.
    pub known_s: i64,
    pub up_s: i64,
    pub deaths: u64,
}

/// One balance.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct BalanceLine {
    pub venue: String,
    pub asset: String,
    pub ledger: Option<Exact>,
    pub told: Option<Exact>,
    /// The ledger less the venue's last word.
    pub difference: Option<Exact>,
    pub told_at: String,
    pub words: u64,
    /// Words that were the ledger's balance when they came.
    pub words_equal: u64,
}

/// What proves that the books are the venues'.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Proof {
    pub postings: u64,
    /// Postings after which the balance is not the one before plus the amount.
    pub broken: u64,
    pub reconciliations: u64,
    pub reconciliations_differing: u64,
}

/// How many orders ended how.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct OrderLine {
    pub venue: String,
    pub state: String,
    pub count: u64,
}

/// The report.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "each name says it")]
pub struct Daily {
    pub day: String,
    /// First and last record of the day.
    pub from: String,
    pub to: String,
    pub records: u64,
    pub numeraire: String,
    pub runs: Vec<RunLine>,
    pub pnl: Option<PnlLine>,
    pub flows: Vec<FlowLine>,
    pub funnel: Vec<FunnelLine>,
    pub denials: Vec<DenialLine>,
    pub one_leg: Vec<OneLegLine>,
    pub one_leg_count: usize,
    /// By asset: rounds, expected, realised.
    pub one_leg_total: BTreeMap<String, (u64, Exact, Exact)>,
    pub waits: Vec<WaitLine>,
    pub stages: Vec<StageLine>,
    /// What must be said about the latencies.
    pub latency_note: String,
    pub incidents: Vec<IncidentLine>,
    pub unknown: Vec<UnknownLine>,
    pub unknown_count: usize,
    pub uptime: Vec<UptimeLine>,
    pub balances: Vec<BalanceLine>,
    pub proof: Proof,
    pub orders: Vec<OrderLine>,
}

impl Daily {
    /// Returns whether anything was recorded on the day.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }
}

type Wait = (String, &'static str);

#[derive(Default)]
struct Gather {
    period: Option<Period>,
    report: Daily,
    first_ns: i64,
    last_ns: i64,
    /// Time of the day that no record of the engine covers.
    absent_ns: i64,
    flows: BTreeMap<(String, String, String), (Exact, i64)>,
    /// By run and number: kind, asset, net, whether denied and taken.
    found: BTreeMap<(i64, i64), Row>,
    denials: BTreeMap<(String, String), i64>,
    stories: Stories,
    /// What is known of orders: the row with everything told so far.
    orders: BTreeMap<(i64, i64), Row>,
    incidents: BTreeMap<(String, String, String), (u64, i64, i64)>,
    /// Orders whose outcome is not known: since when.
    unknown: BTreeMap<(i64, i64), (i64, UnknownLine)>,
    resolved: Vec<UnknownLine>,
    /// By process: since when it is known, alive since, time alive, deaths.
    processes: BTreeMap<String, (i64, Option<i64>, i64, u64)>,
    ledger: BTreeMap<(String, String), Exact>,
    told: BTreeMap<(String, String), BalanceLine>,
}

/// Reads a journal and tells of one day.
pub fn read(origin: impl Into<Origin>, day: i64) -> Result<Daily, JournalError> {
    let period = Period::day(day);
    let mut gather = Gather { period: Some(period), ..Gather::default() };
    rows::read::<JournalError>(origin, |record, _, rows| {
        gather.record(record, &period);
        for row in rows {
            gather.row(row, &period);
        }
        Ok(())
    })?;
    Ok(gather.end(day))
}

/// Returns the last day that a journal has records of; nothing where it has none.
pub fn last_day(origin: impl Into<Origin>) -> Result<Option<i64>, JournalError> {
    let mut last = None;
    let mut records = crate::records::Records::open(origin)?;
    while let Some(record) = records.next()? {
        if record.engine_ts_ns != 0 {
            last = Some(record.engine_ts_ns.div_euclid(DAY_NS));
        }
    }
    Ok(last)
}

impl Gather {
    fn record(&mut self, record: &Record, period: &Period) {
        let at_ns = record.engine_ts_ns;
        if at_ns == 0 || !period.holds(at_ns) || record.kind() == Some(Kind::Config) {
            return;
        }
        self.report.records += 1;
        if self.first_ns == 0 {
            self.first_ns = at_ns;
        } else if ABSENT_NS < at_ns.saturating_sub(self.last_ns) {
            self.absent_ns = self.absent_ns.saturating_add(at_ns.saturating_sub(self.last_ns));
        }
        self.last_ns = self.last_ns.max(at_ns);
    }

    fn incident(&mut self, (what, place, why): (&str, &str, &str), at_ns: i64) {
        let name = (what.to_owned(), place.to_owned(), why.to_owned());
        let seen = self.incidents.entry(name).or_insert((0, at_ns, at_ns));
        *seen = (seen.0 + 1, seen.1, at_ns);
    }

    fn row(&mut self, row: Row, period: &Period) {
        let of = |column: &str| number(&row, column).unwrap_or_default();
        let at_ns = number(&row, "at").or(number(&row, "told_at")).unwrap_or_default();
        let is_today = period.holds(at_ns);
        self.stories.take(&row);
        match row.table {
            Table::Runs => {
                let started_ns = of("started_ns");
                if started_ns < period.to_ns {
                    let line = RunLine {
                        run: of("run"),
                        mode: text(&row, "mode").to_owned(),
                        started: utc(started_ns),
                        configuration: text(&row, "config_hash").to_owned(),
                    };
                    // Only the run that the day began in is of a day before.
                    if started_ns < period.from_ns {
                        self.report.runs.clear();
                    }
                    self.report.runs.push(line);
                }
                text(&row, "numeraire").clone_into(&mut self.report.numeraire);
            }
            Table::PnlDay if of("day") == period.from_ns.div_euclid(DAY_NS) => {
                let exact = |column| amount(&row, column).unwrap_or_default();
                self.report.pnl = Some(PnlLine {
                    realised: exact("realised"),
                    marked: exact("marked"),
                    peak: exact("peak"),
                    asset: text(&row, "asset").to_owned(),
                    told: utc(of("told_at")),
                });
            }
            Table::Ledger => self.on_posting(&row, is_today),
            Table::Balances if at_ns < period.to_ns => self.on_balance(&row, at_ns),
            Table::Opportunities if period.holds(of("first_at")) => {
                match self.found.entry((of("run"), of("opportunity"))) {
                    std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(row)),
                    std::collections::btree_map::Entry::Occupied(mut known) => {
                        known.get_mut().merge(row);
                    }
                }
            }
            Table::Denials if is_today => {
                let name = (text(&row, "verdict").to_owned(), text(&row, "kind").to_owned());
                let times = self.denials.entry(name).or_default();
                *times = times.saturating_add(of("times"));
            }
            Table::Orders => {
                // Of days before yesterday nothing is asked; a report without an intent has no times.
                let is_old = number(&row, "made_ns")
                    .is_none_or(|made| made < period.from_ns.saturating_sub(DAY_NS));
                if is_old && !self.orders.contains_key(&(of("run"), of("order_key"))) {
                    return;
                }
                match self.orders.entry((of("run"), of("order_key"))) {
                    std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(row)),
                    std::collections::btree_map::Entry::Occupied(mut known) => {
                        known.get_mut().merge(row);
                    }
                }
            }
            Table::OrderEvents => self.on_order_event(&row, at_ns, is_today),
            Table::Audit => self.on_audit(&row, at_ns, is_today),
            Table::VenueEvents => self.on_event(&row, at_ns, period),
            _ => {}
        }
    }

    fn on_posting(&mut self, row: &Row, is_today: bool) {
        let of = |column| text(row, column).to_owned();
        let exact = |column| amount(row, column).unwrap_or_default();
        let (delta, after) = (exact("delta"), exact("after"));
        let (venue, account) = (of("venue"), of("account"));
        if is_today {
            let place = if venue.is_empty() { "no venue" } else { &venue };
            let flow =
                self.flows.entry((place.to_owned(), of("asset"), account.clone())).or_default();
            *flow = (flow.0.plus(delta), flow.1 + 1);
        }
        if venue.is_empty() {
            return;
        }
        let before = self.ledger.insert((venue, of("asset")), after);
        let begins = matches!(account.as_str(), "opening" | "carried");
        let is_sum = begins || before.unwrap_or_default().plus(delta) == after;
        if is_today {
            self.report.proof.postings += 1;
            self.report.proof.broken += u64::from(!is_sum);
        }
    }

    fn on_balance(&mut self, row: &Row, at_ns: i64) {
        let account = (text(row, "venue").to_owned(), text(row, "asset").to_owned());
        let ledger = self.ledger.get(&account).copied();
        let (venue, asset) = account.clone();
        let line = self.told.entry(account).or_insert_with(|| BalanceLine {
            venue,
            asset,
            ledger: None,
            told: None,
            difference: None,
            told_at: String::new(),
            words: 0,
            words_equal: 0,
        });
        line.told = amount(row, "total");
        line.told_at = utc(at_ns);
        line.words += 1;
        line.words_equal += u64::from(ledger.is_some() && ledger == line.told);
        // The balance that the word is about: what came later is another word's.
        line.ledger = ledger;
    }

    fn on_order_event(&mut self, row: &Row, at_ns: i64, is_today: bool) {
        let order =
            (number(row, "run").unwrap_or_default(), number(row, "order_key").unwrap_or_default());
        let (venue, symbol) = (text(row, "venue"), text(row, "symbol"));
        match text(row, "event") {
            "unknown" if is_today => {
                let line = UnknownLine {
                    order: String::new(),
                    venue: venue.to_owned(),
                    symbol: symbol.to_owned(),
                    since: utc(at_ns),
                    why: text(row, "detail").to_owned(),
                    lasted_ms: None,
                };
                self.unknown.entry(order).or_insert((at_ns, line));
            }
            "ack" | "fill" | "totals" | "done" | "reject" => {
                if let Some((since, mut line)) = self.unknown.remove(&order) {
                    line.lasted_ms = Some(at_ns.saturating_sub(since) / 1_000_000);
                    line.order = self.order_id(order);
                    self.resolved.push(line);
                }
            }
            event @ ("bust" | "correction") if is_today => {
                let what =
                    if event == "bust" { "a fill was taken back" } else { "a fill was corrected" };
                self.incident((what, &format!("{venue} {symbol}"), ""), at_ns);
            }
            "cancel_reject" if is_today => {
                let place = format!("{venue} {symbol}");
                self.incident(("a cancel was refused", &place, text(row, "detail")), at_ns);
            }
            _ => {}
        }
    }

    fn order_id(&self, order: (i64, i64)) -> String {
        let row = self.orders.get(&order);
        row.map_or("", |row| text(row, "client_order_id")).to_owned()
    }

    fn on_audit(&mut self, row: &Row, at_ns: i64, is_today: bool) {
        if !is_today {
            return;
        }
        let (what, cause) = (text(row, "what"), text(row, "cause"));
        let place = [text(row, "venue"), text(row, "symbol")].join(" ").trim().to_owned();
        match text(row, "kind") {
            "level" => self.incident((&format!("level {what}"), &place, cause), at_ns),
            "raised" => {
                self.incident((&format!("a control raised to {what}"), &place, cause), at_ns)
            }
            "command" => self.incident((&format!("command {what}"), &place, cause), at_ns),
            "config" => self.incident(("a configuration cannot be read", &place, what), at_ns),
            "reconciled" => {
                self.report.proof.reconciliations += 1;
                if what == "differs" {
                    self.report.proof.reconciliations_differing += 1;
                    self.incident(("a reconciliation differs", &place, cause), at_ns);
                }
            }
            _ => {}
        }
    }

    fn on_event(&mut self, row: &Row, at_ns: i64, period: &Period) {
        let (kind, what, why) = (text(row, "kind"), text(row, "what"), text(row, "reason"));
        let venue = text(row, "venue");
        if kind == "process" && at_ns < period.to_ns {
            let name = [why, venue].join(" ").trim().to_owned();
            let begin = at_ns.max(period.from_ns);
            let process = self.processes.entry(name.clone()).or_insert((begin, None, 0, 0));
            // The first word of a start is no death.
            let was_alive = process.1.is_some();
            match (what, process.1) {
                ("alive", None) => process.1 = Some(begin),
                ("dead", Some(since)) => {
                    process.2 = process.2.saturating_add(begin.saturating_sub(since));
                    process.1 = None;
                }
                _ => {}
            }
            if what == "dead" && was_alive && period.holds(at_ns) {
                process.3 += 1;
                self.incident(("a process died", &name, ""), at_ns);
            }
        }
        if !period.holds(at_ns) {
            return;
        }
        let place = [venue, text(row, "symbol")].join(" ").trim().to_owned();
        match (kind, what) {
            // For no reason: the ordinary course of a start.
            ("book", "stale" | "syncing") if why != "none" => {
                self.incident((&format!("a book went {what}"), &place, why), at_ns);
            }
            ("session", state) if !matches!(state, "connecting" | "authenticated" | "ready") => {
                self.incident((&format!("session {state}"), &place, why), at_ns);
            }
            ("status" | "rules", state) if state != "trading" => {
                self.incident((&format!("{kind} {state}"), &place, why), at_ns);
            }
            ("clock", "in doubt") => self.incident(("our clock is in doubt", &place, why), at_ns),
            ("gap", _) => self.incident(("records were lost", &place, why), at_ns),
            ("foreign_order", _) => {
                self.incident(("an open order that is not ours", &place, why), at_ns);
            }
            _ => {}
        }
    }

    fn end(mut self, day: i64) -> Daily {
        let period = self.period.unwrap_or(Period::day(day));
        self.report.day = day_name(day);
        self.report.from = utc(self.first_ns);
        self.report.to = utc(self.last_ns);
        let flows = std::mem::take(&mut self.flows).into_iter();
        self.report.flows = flows
            .map(|((venue, asset, account), (amount, postings))| FlowLine {
                venue,
                asset,
                account,
                amount,
                postings,
            })
            .collect();
        self.funnel(&period);
        self.one_leg(&period);
        self.waits(&period);
        self.incidents_end();
        self.uptime();
        self.report.balances = std::mem::take(&mut self.told).into_values().collect();
        for line in &mut self.report.balances {
            line.difference = line.ledger.zip(line.told).map(|(ours, told)| ours.minus(told));
        }
        let mut orders: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in self.orders.values() {
            if number(row, "made_ns").is_some_and(|at| period.holds(at)) {
                let state = match text(row, "end_state") {
                    "" => "no end told",
                    state => state,
                };
                let name = (text(row, "venue").to_owned(), state.to_owned());
                *orders.entry(name).or_default() += 1;
            }
        }
        let orders = orders.into_iter();
        self.report.orders =
            orders.map(|((venue, state), count)| OrderLine { venue, state, count }).collect();
        self.report
    }

    fn funnel(&mut self, period: &Period) {
        let mut kinds: BTreeMap<String, FunnelLine> = BTreeMap::new();
        let stories = self.stories.by_round.iter();
        let taken: std::collections::BTreeSet<(i64, i64)> =
            stories.filter_map(|((run, _), story)| Some((*run, story.opportunity?))).collect();
        for (name, row) in &self.found {
            let line = kinds.entry(text(row, "kind").to_owned()).or_default();
            let is_taken = taken.contains(name);
            let is_denied = !is_taken && !text(row, "denied_by").is_empty();
            line.found += 1;
            line.taken += u64::from(is_taken);
            line.denied += u64::from(is_denied);
            line.gone += u64::from(!is_taken && !is_denied);
            let net = line.found_net.entry(text(row, "asset").to_owned()).or_default();
            *net = net.plus(amount(row, "net").unwrap_or_default());
        }
        for story in self.stories.by_round.values() {
            if story.is_orphan || !period.holds(story.opened_ns) {
                continue;
            }
            let line = kinds.entry(story.kind.clone()).or_default();
            let count = match story.outcome() {
                Outcome::Filled => &mut line.filled,
                Outcome::Missed => &mut line.nothing_filled,
                Outcome::Hedged => &mut line.hedged,
                Outcome::TakenBack => &mut line.taken_back,
                Outcome::Partly => &mut line.partly,
                Outcome::Held => &mut line.held,
                Outcome::Open => &mut line.open,
            };
            *count += 1;
            let realised = line.realised.entry(story.asset.clone()).or_default();
            *realised = realised.plus(story.realised);
        }
        self.report.funnel =
            kinds.into_iter().map(|(kind, line)| FunnelLine { kind, ..line }).collect();
        let mut denials: Vec<DenialLine> = std::mem::take(&mut self.denials)
            .into_iter()
            .map(|((code, kind), times)| DenialLine { code, kind, times })
            .collect();
        denials.sort_by_key(|line| std::cmp::Reverse(line.times));
        self.report.denials = denials;
    }

    fn one_leg(&mut self, period: &Period) {
        let mut lines = Vec::new();
        for ((run, round), story) in &self.stories.by_round {
            let outcome = story.outcome();
            let is_whole = matches!(outcome, Outcome::Filled | Outcome::Missed | Outcome::Open);
            if is_whole || !period.holds(story.opened_ns) {
                continue;
            }
            let total = self.report.one_leg_total.entry(story.asset.clone()).or_default();
            *total = (total.0 + 1, total.1.plus(story.expected), total.2.plus(story.realised));
            lines.push(OneLegLine {
                run: *run,
                round: *round,
                at: utc(story.opened_ns),
                outcome: outcome.name().to_owned(),
                kind: story.kind.clone(),
                pair: story.pair.clone(),
                hedges: story.hedges,
                asset: story.asset.clone(),
                expected: story.expected,
                realised: story.realised,
                cost: story.expected.minus(story.realised),
            });
        }
        self.report.one_leg_count = lines.len();
        lines.sort_by_key(|line| std::cmp::Reverse(line.cost));
        lines.truncate(LINES);
        self.report.one_leg = lines;
    }

    fn waits(&mut self, period: &Period) {
        let yesterday =
            Period { from_ns: period.from_ns.saturating_sub(DAY_NS), to_ns: period.from_ns };
        let mut waits: BTreeMap<Wait, [Option<hdrhistogram::Histogram<u64>>; 2]> = BTreeMap::new();
        for row in self.orders.values() {
            let Some(made) = number(row, "made_ns") else { continue };
            let of_day = if period.holds(made) { 0 } else { 1 };
            if of_day == 1 && !yesterday.holds(made) {
                continue;
            }
            for (stage, from, to) in WAITS {
                let (Some(from), Some(to)) = (number(row, from), number(row, to)) else { continue };
                let wait = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
                let kept = waits.entry((text(row, "venue").to_owned(), stage)).or_default();
                let kept = &mut kept[of_day];
                if kept.is_none() {
                    *kept = hdrhistogram::Histogram::new_with_bounds(1, WAIT_NS_MAX, 3).ok();
                }
                if let Some(kept) = kept {
                    kept.saturating_record(wait);
                }
            }
        }
        let lines = waits.into_iter().filter_map(|((venue, stage), [today, before])| {
            Some(WaitLine {
                venue,
                stage: stage.to_owned(),
                today: percentiles(&today?),
                yesterday: before.as_ref().map(percentiles),
            })
        });
        self.report.waits = lines.collect();
    }

    fn incidents_end(&mut self) {
        let mut lines: Vec<_> = std::mem::take(&mut self.incidents).into_iter().collect();
        lines.sort_by_key(|(_, (_, first, _))| *first);
        let lines = lines.into_iter().map(|((what, place, why), (times, first, last))| {
            IncidentLine { what, place, why, times, first: utc(first), last: utc(last) }
        });
        self.report.incidents = lines.collect();
        let still = std::mem::take(&mut self.unknown);
        for (order, (_, mut line)) in still {
            line.order = self.order_id(order);
            self.resolved.push(line);
        }
        let mut unknown = std::mem::take(&mut self.resolved);
        self.report.unknown_count = unknown.len();
        unknown.sort_by_key(|line| std::cmp::Reverse(line.lasted_ms.unwrap_or(i64::MAX)));
        unknown.truncate(LINES);
        self.report.unknown = unknown;
    }

    fn uptime(&mut self) {
        let seconds = |ns: i64| ns / 1_000_000_000;
        let span = self.last_ns.saturating_sub(self.first_ns);
        if span != 0 {
            self.report.uptime.push(UptimeLine {
                process: "engine (by its records)".to_owned(),
                known_s: seconds(span),
                up_s: seconds(span.saturating_sub(self.absent_ns)),
                deaths: 0,
            });
        }
        for (process, (known, alive, up, deaths)) in std::mem::take(&mut self.processes) {
            let until = self.last_ns;
            let now = alive.map_or(0, |since| until.saturating_sub(since));
            self.report.uptime.push(UptimeLine {
                process,
                known_s: seconds(until.saturating_sub(known)).max(0),
                up_s: seconds(up.saturating_add(now)).max(0),
                deaths,
            });
        }
    }
}
