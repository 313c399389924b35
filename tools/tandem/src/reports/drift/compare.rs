//! Two journals of the same market, side by side: what is different, and why.
//!
//! Invariant: every round, order and opportunity of either side is looked at once. The money of all reasons and of
//! what is unexplained adds up to the whole difference, to the last quantum. A reason is given where the journals
//! hold evidence for it; where they hold none the difference is unexplained, however small it is.
//!
//! Not here: reading (`side`), showing (`mod`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tandem_backtest::outcome::Calibration;
use tandem_core::level::Level;
use tandem_core::order::Action;
use tandem_core::record::Venue;
use tandem_core::round::NO_CYCLE;
use tandem_core::value::{quote_of, shift_of};

use super::side::{RoundStory, Seen, Side};
use super::{Difference, Drift, Only, Reason, ReasonLine, SideText, What};
use crate::table::Table;
use crate::trades::{End, Order};

/// Answers that come this much apart are no difference of latency.
const LATENCY_NS: i64 = 200_000;
/// How long what an own order took is missed: the book shows it anew after that.
const OWN_NS: i64 = 2_000_000_000;
/// How long it may be missed where a level is not shown anew.
const LONG_OWN_NS: i64 = 60_000_000_000;
/// What names the limits that size an order.
const SIZING: [&str; 8] = [
    "notional_max",
    "exposure_max",
    "order_max",
    "depth_ppm_max",
    "band",
    "skew_ppm",
    "ramp_rounds",
    "session_",
];
/// Differences that are shown one by one.
const SHOWN: usize = 200;
/// Unexplained ones that are shown.
const EXAMPLES: usize = 20;

struct Compared<'a> {
    live: &'a Side,
    replayed: &'a Side,
    table: &'a Table,
    window_ns: i64,
    reasons: BTreeMap<(What, Only, Reason), (u64, i128)>,
    differences: Vec<Difference>,
    unexplained: Vec<Difference>,
}

/// Pairs two lists that are sorted by time: of equal keys the nearest within the window, each once.
fn pair<K: Ord + Copy>(
    live: &[(K, i64)],
    replayed: &[(K, i64)],
    window_ns: i64,
) -> (Vec<Option<usize>>, Vec<bool>) {
    let mut by_key: BTreeMap<K, Vec<(i64, usize)>> = BTreeMap::new();
    for (idx, (key, at)) in replayed.iter().enumerate() {
        by_key.entry(*key).or_default().push((*at, idx));
    }
    let mut taken = vec![false; replayed.len()];
    let mut pairs = vec![None; live.len()];
    for (one, (key, at)) in pairs.iter_mut().zip(live) {
        let Some(all) = by_key.get(key) else { continue };
        let first = all.partition_point(|(other, _)| *other < at.saturating_sub(window_ns));
        let near = all.iter().skip(first).take_while(|(o, _)| *o <= at.saturating_add(window_ns));
        let nearest = near
            .filter(|(_, idx)| !taken[*idx])
            .min_by_key(|(other, _)| other.abs_diff(*at))
            .map(|(_, idx)| *idx);
        if let Some(idx) = nearest {
            taken[idx] = true;
            *one = Some(idx);
        }
    }
    (pairs, taken)
}

/// Compares.
#[must_use]
pub fn compare(live: &Side, replayed: &Side, table: &Table, window_ns: i64) -> Drift {
    let mut compared = Compared {
        live,
        replayed,
        table,
        window_ns,
        reasons: BTreeMap::new(),
        differences: Vec::new(),
        unexplained: Vec::new(),
    };
    let (opportunities_matched, _) = compared.opportunities();
    let matched = compared.rounds();
    let calibration = calibration(live, replayed, &matched);
    let (unexplained, unexplained_money) = compared
        .reasons
        .iter()
        .filter(|((_, _, reason), _)| *reason == Reason::Unexplained)
        .fold((0, 0i128), |sum, (_, (count, money))| (sum.0 + count, sum.1 + money));
    let text = |money: i128| amount(table, live.numeraire.or(replayed.numeraire), money);
    let mut reasons: Vec<ReasonLine> = compared
        .reasons
        .iter()
        .map(|((what, only, reason), (count, money))| ReasonLine {
            what: *what,
            only: *only,
            code: reason.code(),
            reason: reason.words(),
            count: *count,
            money: text(*money),
            money_quanta: *money,
        })
        .collect();
    reasons.sort_by_key(|line| {
        (line.what, std::cmp::Reverse(line.money_quanta.unsigned_abs()), line.code.clone())
    });
    let sum = |side: &Side| -> i128 {
        side.rounds.iter().map(|round| i128::from(round.report.worth.0)).sum()
    };
    let difference = sum(live) - sum(replayed);
    compared.differences.sort_by_key(|one| std::cmp::Reverse(one.money_quanta.unsigned_abs()));
    compared.differences.truncate(SHOWN);
    compared.unexplained.truncate(EXAMPLES);
    let numeraire = live.numeraire.or(replayed.numeraire);
    Drift {
        live: side_text(live, table),
        replayed: side_text(replayed, table),
        asset: numeraire
            .and_then(|asset| table.universe.assets.get(usize::from(asset)))
            .map(|asset| asset.name.clone())
            .unwrap_or_default(),
        window_ms: window_ns / 1_000_000,
        opportunities_matched,
        rounds_matched: matched.len() as u64,
        difference: text(difference),
        difference_quanta: difference,
        reasons,
        unexplained,
        unexplained_money: text(unexplained_money),
        examples: compared.unexplained,
        differences: compared.differences,
        pnl_error: text(i128::from(calibration.pnl_error)),
        calibration,
    }
}

fn amount(table: &Table, asset: Option<u16>, quanta: i128) -> String {
    let found = asset.and_then(|asset| table.universe.assets.get(usize::from(asset)));
    let exponent = found.map_or(0, |asset| asset.exponent);
    crate::reports::Exact::of(quanta, exponent)
        .map_or_else(|| format!("{quanta} quanta"), |exact| exact.to_string())
}

fn side_text(side: &Side, table: &Table) -> SideText {
    let worth: i128 = side.rounds.iter().map(|round| i128::from(round.report.worth.0)).sum();
    let orders = || side.rounds.iter().flat_map(RoundStory::orders);
    SideText {
        records: side.records,
        malformed: side.malformed,
        from: crate::time::utc(side.from_ns),
        to: crate::time::utc(side.to_ns),
        opportunities: side.seen.len() as u64,
        rounds: side.rounds.len() as u64,
        orders: orders().count() as u64,
        fills: orders().map(|order| order.kept().count() as u64).sum(),
        result: amount(table, side.numeraire, worth),
    }
}

/// What an order filled: quantity by price.
fn filled(order: &Order) -> BTreeMap<i64, i64> {
    let mut by_px = BTreeMap::new();
    for fill in order.kept() {
        let qty: &mut i64 = by_px.entry(fill.px.0).or_default();
        *qty = qty.saturating_add(fill.qty.0);
    }
    by_px
}

fn fees(order: &Order) -> BTreeMap<u16, i128> {
    let mut by_asset = BTreeMap::new();
    for fill in order.kept() {
        *by_asset.entry(fill.fee_asset).or_default() += i128::from(fill.fee.0);
    }
    by_asset
}

/// How long until the first fill; nothing where there was none.
fn to_fill_ns(order: &Order) -> Option<i64> {
    let first = order.kept().map(|fill| fill.at_ns).min()?;
    Some(first.saturating_sub(order.made_ns))
}

/// How long until the venue's first word.
fn to_word_ns(order: &Order) -> Option<i64> {
    Some(order.acked_ns?.saturating_sub(order.made_ns))
}

impl Compared<'_> {
    fn side(&self, only: Only) -> &Side {
        match only {
            Only::Live => self.live,
            Only::Replayed | Only::Both => self.replayed,
        }
    }

    fn other(&self, only: Only) -> &Side {
        match only {
            Only::Live => self.replayed,
            Only::Replayed | Only::Both => self.live,
        }
    }

    fn tell(
        &mut self,
        what: What,
        only: Only,
        at_ns: i64,
        place: String,
        found: Found,
        money: i128,
    ) {
        let Found { reason, detail, .. } = found;
        let sum = self.reasons.entry((what, only, reason.clone())).or_default();
        *sum = (sum.0 + 1, sum.1 + money);
        let numeraire = self.live.numeraire.or(self.replayed.numeraire);
        let difference = Difference {
            what,
            only,
            at: crate::time::utc(at_ns),
            place,
            code: reason.code(),
            reason: reason.words(),
            detail,
            money: amount(self.table, numeraire, money),
            money_quanta: money,
        };
        if reason == Reason::Unexplained && self.unexplained.len() < EXAMPLES {
            self.unexplained.push(difference.clone());
        }
        self.differences.push(difference);
        // Memory is bounded: the dearest stay.
        if SHOWN * 8 < self.differences.len() {
            self.differences.sort_by_key(|d| std::cmp::Reverse(d.money_quanta.unsigned_abs()));
            self.differences.truncate(SHOWN);
        }
    }

    fn symbol(&self, instrument: u16) -> String {
        self.table.instruments.get(usize::from(instrument)).map_or_else(
            || format!("instrument {instrument}"),
            |known| format!("{} {}", known.venue.name(), known.symbol),
        )
    }

    fn px(&self, instrument: u16, quanta: i64) -> String {
        match usize::from(instrument) < self.table.instruments.len() {
            true => self.table.px(instrument, quanta),
            false => quanta.to_string(),
        }
    }

    fn qty(&self, instrument: u16, quanta: i64) -> String {
        match usize::from(instrument) < self.table.instruments.len() {
            true => self.table.qty(instrument, quanta),
            false => quanta.to_string(),
        }
    }

    fn fills_text(&self, order: &Order) -> String {
        let of = |(px, qty): (&i64, &i64)| {
            let instrument = order.new.instrument;
            format!("{} at {}", self.qty(instrument, *qty), self.px(instrument, *px))
        };
        let all: Vec<String> = filled(order).iter().map(of).collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    }

    /// Opportunities of both sides; returns how many both saw.
    fn opportunities(&mut self) -> (u64, u64) {
        let key = |side: &Side| -> Vec<(u32, i64)> {
            side.seen.iter().map(|seen| (seen.cycle, seen.first_ns)).collect()
        };
        let (pairs, taken) = pair(&key(self.live), &key(self.replayed), self.window_ns);
        let (live, replayed) = (self.live, self.replayed);
        let mut matched = 0;
        for (seen, other) in live.seen.iter().zip(&pairs) {
            match other.and_then(|idx| replayed.seen.get(idx)) {
                Some(other) => {
                    matched += 1;
                    self.seen_by_both(seen, other);
                }
                None => self.seen_by_one(Only::Live, seen),
            }
        }
        for (seen, _) in replayed.seen.iter().zip(&taken).filter(|(_, taken)| !**taken) {
            self.seen_by_one(Only::Replayed, seen);
        }
        (matched, pairs.len() as u64)
    }

    fn route(&self, seen: &Seen) -> String {
        let legs: Vec<String> = seen
            .legs
            .iter()
            .map(|leg| {
                let word = if leg.side == 1 { "buy" } else { "sell" };
                format!("{word} {}", self.symbol(leg.instrument))
            })
            .collect();
        legs.join(", ")
    }

    fn seen_by_both(&mut self, live: &Seen, replayed: &Seen) {
        let legs = || live.legs.iter().zip(&replayed.legs);
        let differs = legs().find(|(l, r)| {
            (l.px, l.qty, l.best_px, l.instrument) != (r.px, r.qty, r.best_px, r.instrument)
        });
        if differs.is_none() && live.net == replayed.net {
            return;
        }
        let instruments: Vec<u16> = live.legs.iter().map(|leg| leg.instrument).collect();
        let found =
            self.surroundings(&instruments, live.first_ns).unwrap_or_else(|| match differs {
                Some((l, r)) if (l.best_px, l.update_id) != (r.best_px, r.update_id) => Found::new(
                    Reason::BookAtDecision,
                    format!(
                        "{}: best {} live, {} replayed",
                        self.symbol(l.instrument),
                        self.px(l.instrument, l.best_px.0),
                        self.px(r.instrument, r.best_px.0)
                    ),
                ),
                _ if live.buffers_ppm != replayed.buffers_ppm => Found::new(
                    Reason::Staleness,
                    format!("{} ppm live, {} ppm replayed", live.buffers_ppm, replayed.buffers_ppm),
                ),
                Some((l, r)) => {
                    let detail = format!(
                        "{}: {} at {} live, {} at {} replayed, of the same best price",
                        self.symbol(l.instrument),
                        self.qty(l.instrument, l.qty.0),
                        self.px(l.instrument, l.px.0),
                        self.qty(r.instrument, r.qty.0),
                        self.px(r.instrument, r.px.0)
                    );
                    self.long_ago(&instruments, live.first_ns, detail)
                }
                None => {
                    let detail = "the same orders were worth another gain".to_owned();
                    self.long_ago(&instruments, live.first_ns, detail)
                }
            });
        let place = self.route(live);
        self.tell(What::Opportunity, Only::Both, live.first_ns, place, found, 0);
    }

    fn seen_by_one(&mut self, only: Only, seen: &Seen) {
        let place = self.route(seen);
        let instruments: Vec<u16> = seen.legs.iter().map(|leg| leg.instrument).collect();
        let longer = self.other(only).seen_between(seen.cycle, seen.first_ns, seen.last_ns);
        let found = match longer {
            Some(longer) => Found::new(
                Reason::OneLife,
                format!("there from {}", crate::time::utc(longer.first_ns)),
            ),
            None => {
                let found = self.absent(only, seen.cycle, &instruments, seen.first_ns);
                found.unwrap_or_else(|| {
                    let detail = "not seen there, and nothing that was told stands against it";
                    self.long_ago(&instruments, seen.first_ns, detail.to_owned())
                })
            }
        };
        self.tell(What::Opportunity, only, seen.first_ns, place, found, 0);
    }

    /// What is different around some instruments at a time: fees, settings, what own orders took.
    fn surroundings(&self, instruments: &[u16], ns: i64) -> Option<Found> {
        for instrument in instruments {
            let (live, replayed) =
                (self.live.fee(*instrument, ns), self.replayed.fee(*instrument, ns));
            if live != replayed {
                let text =
                    |fee: Option<i64>| fee.map_or("none".to_owned(), |fee| format!("{fee} ppm"));
                let detail = format!(
                    "{}: fee {} live, {} replayed",
                    self.symbol(*instrument),
                    text(live),
                    text(replayed)
                );
                return Some(Found::new(Reason::Fees, detail));
            }
        }
        if let Some(detail) = self.settings() {
            return Some(Found::new(Reason::Settings, detail));
        }
        self.own(instruments, ns, OWN_NS).map(|detail| Found::new(Reason::OwnOrders, detail))
    }

    /// What own orders took differently of some instruments before a time.
    fn own(&self, instruments: &[u16], ns: i64, within_ns: i64) -> Option<String> {
        let (from, to) = (ns.saturating_sub(within_ns), ns.saturating_sub(1));
        let differs = instruments.iter().find_map(|instrument| {
            let taken = |side: &Side| side.taken(*instrument, from, to);
            let (live, replayed) = (taken(self.live), taken(self.replayed));
            (live != replayed).then_some((*instrument, live, replayed))
        });
        differs.map(|(instrument, live, replayed)| {
            format!(
                "{}: own orders had taken {} live, {} replayed",
                self.symbol(instrument),
                self.qty(instrument, live),
                self.qty(instrument, replayed)
            )
        })
    }

    /// The last that is asked: own orders long ago, of levels that were not shown anew.
    fn long_ago(&self, instruments: &[u16], ns: i64, otherwise: String) -> Found {
        match self.own(instruments, ns, LONG_OWN_NS) {
            Some(detail) => Found::new(Reason::OwnOrdersLong, detail),
            None => Found::unexplained(otherwise),
        }
    }

    /// Which settings of detection differ.
    fn settings(&self) -> Option<String> {
        let (live, replayed) = (self.live.table.as_ref()?, self.replayed.table.as_ref()?);
        let of = |table: &Table| serde_json::to_value(&table.setup.detection).ok();
        let differs = differing(&of(live)?, &of(replayed)?, "engine");
        differs.first().map(|key| format!("{key} differs"))
    }

    /// Why the other side has no such thing at that time, where what it told says so.
    fn absent(&self, only: Only, cycle: u32, instruments: &[u16], ns: i64) -> Option<Found> {
        let other = self.other(only);
        let there = match only {
            Only::Live => "in the replay",
            Only::Replayed | Only::Both => "live",
        };
        if ns < other.from_ns || other.to_ns < ns {
            let detail = format!("{there} the journal has no records of that time");
            return Some(Found::new(Reason::Outside, detail));
        }
        if let Some(instrument) = instruments.iter().find(|i| other.is_live(**i, ns) == Some(false))
        {
            let detail = format!("{}: not in sync {there}", self.symbol(*instrument));
            return Some(Found::new(Reason::BookNotLive, detail));
        }
        if let Some(instrument) = instruments.iter().find(|i| other.is_halted(**i, ns)) {
            let detail = format!("{}: halted by a control {there}", self.symbol(*instrument));
            return Some(Found::new(Reason::Halted, detail));
        }
        let reach = self
            .window_ns
            .saturating_add(other.table.as_ref().map_or(0, |table| table.params.denial_ns));
        if let Some(denied) = other.denial(cycle, ns, reach) {
            let away = denied.at_ns.saturating_sub(ns) / 1_000;
            let detail = format!("denied {there}, {away} us from then");
            return Some(Found::new(Reason::Denied(denied.code.clone()), detail));
        }
        self.surroundings(instruments, ns)
    }

    /// Rounds of both sides; returns the pairs.
    fn rounds(&mut self) -> Vec<(usize, usize)> {
        let key = |side: &Side| -> Vec<((u32, bool), i64)> {
            let of = |round: &RoundStory| {
                ((round.report.cycle, round.report.is_orphan), round.report.opened_ns)
            };
            side.rounds.iter().map(of).collect()
        };
        let (pairs, taken) = pair(&key(self.live), &key(self.replayed), self.window_ns);
        let (live, replayed) = (self.live, self.replayed);
        let mut matched = Vec::new();
        for (idx, (round, other)) in live.rounds.iter().zip(&pairs).enumerate() {
            match other.and_then(|at| Some((at, replayed.rounds.get(at)?))) {
                Some((at, other)) => {
                    matched.push((idx, at));
                    self.round_of_both(round, other);
                }
                None => self.round_of_one(Only::Live, round),
            }
        }
        for (round, _) in replayed.rounds.iter().zip(&taken).filter(|(_, taken)| !**taken) {
            self.round_of_one(Only::Replayed, round);
        }
        matched
    }

    fn round_place(&self, round: &RoundStory) -> String {
        let legs: Vec<String> = round
            .report
            .legs()
            .iter()
            .map(|leg| {
                let word = match leg.action {
                    Action::Buy => "buy",
                    Action::Sell => "sell",
                };
                format!("{word} {}", self.symbol(leg.instrument))
            })
            .collect();
        let legs = if legs.is_empty() { "no cycle".to_owned() } else { legs.join(", ") };
        format!("round {} of run {}: {legs}", round.report.id, round.report.run)
    }

    fn round_of_one(&mut self, only: Only, round: &RoundStory) {
        let report = &round.report;
        let money = match only {
            Only::Live => i128::from(report.worth.0),
            Only::Replayed | Only::Both => -i128::from(report.worth.0),
        };
        let found = self.why_one(only, round);
        let place = self.round_place(round);
        self.tell(What::Round, only, report.opened_ns, place, found, money);
    }

    fn why_one(&self, only: Only, round: &RoundStory) -> Found {
        let report = &round.report;
        if report.is_orphan || report.cycle == NO_CYCLE {
            let detail =
                "it follows from no opportunity of its run: late fills, or an earlier run's orders";
            return Found::new(Reason::Orphan, detail.to_owned());
        }
        let (other, ns) = (self.other(only), report.opened_ns);
        let within = other.from_ns <= ns && ns <= other.to_ns;
        let venues = report.legs().iter().filter_map(|leg| Venue::from_tag(leg.venue));
        for venue in venues.filter(|_| within) {
            let level = other.level(venue, ns);
            if level != Some(Level::Armed) {
                let name = level.map_or("not told yet", Level::name);
                let detail = format!("the other's level at {} was {name}", venue.name());
                return Found::new(Reason::NotArmed, detail);
            }
        }
        let instruments: Vec<u16> = report.legs().iter().map(|leg| leg.instrument).collect();
        if let Some(found) = self.absent(only, report.cycle, &instruments, ns) {
            return found;
        }
        if let Some(found) = self.instead(only, round) {
            return found;
        }
        // A step tries few cycles: what ranked lower was not tried, and nothing is told of that.
        let (from, to) = (ns.saturating_sub(self.window_ns), ns.saturating_add(self.window_ns));
        let first = other.seen_between(report.cycle, from, to).map(|seen| seen.first_ns);
        let steps = [Some(ns), first].into_iter().flatten();
        if let Some(others) = steps
            .map(|at| other.tried_others(report.cycle, at))
            .find(|others| *others != 0 && first.is_some())
        {
            let detail = format!("there {others} other cycles were tried in that step");
            return Found::new(Reason::Outranked, detail);
        }
        let detail = "no round there, and nothing that was told stands against it".to_owned();
        // Where it was seen as well, older orders have nothing to do with it.
        if first.is_some() {
            Found::unexplained(detail)
        } else {
            self.long_ago(&instruments, ns, detail)
        }
    }

    /// Another cycle through one of the same books, at the same time, in its place.
    fn instead(&self, only: Only, round: &RoundStory) -> Option<Found> {
        let report = &round.report;
        let around = |side: &'_ Side, ns: i64| -> Vec<u32> {
            let (from, to) = (ns.saturating_sub(self.window_ns), ns.saturating_add(self.window_ns));
            side.rounds_between(from, to).iter().map(|round| round.report.cycle).collect()
        };
        let legs = || report.legs().iter().map(|leg| (leg.instrument, leg.action));
        let is_instead = |one: &&RoundStory| {
            let mut theirs = one.report.legs().iter().map(|leg| (leg.instrument, leg.action));
            one.report.cycle != report.cycle
                && theirs.any(|leg| legs().any(|own| own == leg))
                && !around(self.side(only), one.report.opened_ns).contains(&one.report.cycle)
        };
        let (from, to) = (
            report.opened_ns.saturating_sub(self.window_ns),
            report.opened_ns.saturating_add(self.window_ns),
        );
        let one = self.other(only).rounds_between(from, to).iter().find(is_instead)?;
        let detail = format!("there {} took it", self.round_place(one));
        Some(Found::new(Reason::OtherCycle, detail))
    }

    fn round_of_both(&mut self, live: &RoundStory, replayed: &RoundStory) {
        let money = i128::from(live.report.worth.0) - i128::from(replayed.report.worth.0);
        let mut found = Vec::new();
        if live.is_over() != replayed.is_over() {
            let name = |round: &RoundStory| round.report.stage.name();
            let detail = format!("{} live, {} replayed", name(live), name(replayed));
            found.push((What::Round, Found::new(Reason::Stage, detail)));
        }
        self.sizes(live, replayed, &mut found);
        let entries_before = found.len();
        for (l, r) in live.entries.iter().zip(&replayed.entries) {
            self.orders(l, r, &mut found);
        }
        if live.entries.len() != replayed.entries.len() {
            let detail =
                format!("{} orders live, {} replayed", live.entries.len(), replayed.entries.len());
            found.push((What::Order, Found::unexplained(detail)));
        }
        let is_followed = found.len() != entries_before || entries_before != 0;
        self.hedges(live, replayed, is_followed, &mut found);
        // A fee of the numeraire is its own money; what is left belongs to the first other cause, and what
        // follows from that is told and counted once.
        let mut rest = money;
        let mut lines: Vec<(What, Found, i128)> = Vec::new();
        for (what, one) in found {
            let own = one.money.unwrap_or(0);
            rest -= own;
            lines.push((what, one, own));
        }
        if rest != 0 {
            match lines.iter_mut().find(|(_, one, _)| one.money.is_none()) {
                Some((_, _, money)) => *money += rest,
                None => lines.push((What::Round, self.valued(live, replayed), rest)),
            }
        }
        let place = self.round_place(live);
        for (what, one, money) in lines {
            self.tell(what, Only::Both, live.report.opened_ns, place.clone(), one, money);
        }
    }

    /// Why the same fills may be worth another result.
    fn valued(&self, live: &RoundStory, replayed: &RoundStory) -> Found {
        // Another asset than the numeraire is worth what its book says when the round is over.
        let numeraire = self.live.numeraire.or(self.replayed.numeraire);
        let other = |asset: u16| Some(asset) != numeraire;
        let mut fee_assets = live.orders().flat_map(|order| fees(order).into_keys());
        let is_valued = other(live.report.start.0)
            || fee_assets.any(other)
            || live.report.legs().iter().any(|leg| leg.filled != leg.qty);
        let over =
            |round: &RoundStory| round.report.opened_ns.saturating_add(round.report.duration_ns);
        let reason = match is_valued && over(live) != over(replayed) {
            true => Reason::Valuation,
            false => Reason::Unexplained,
        };
        Found::new(reason, "the same fills were worth another result when it was over".to_owned())
    }

    /// Whether the legs were planned alike.
    fn sizes(&self, live: &RoundStory, replayed: &RoundStory, found: &mut Vec<(What, Found)>) {
        let legs = live.report.legs().iter().zip(replayed.report.legs());
        for (l, r) in legs {
            if (l.px, l.qty) == (r.px, r.qty) {
                continue;
            }
            let ns = live.report.opened_ns;
            let mut detail = format!(
                "{}: {} at {} live, {} at {} replayed",
                self.symbol(l.instrument),
                self.qty(l.instrument, l.qty.0),
                self.px(l.instrument, l.px.0),
                self.qty(r.instrument, r.qty.0),
                self.px(r.instrument, r.px.0)
            );
            let reason = if let Some(symbol) = self.uncovered(live, replayed) {
                detail = format!("{detail}; what there was for {symbol} did not cover more");
                Reason::Balances
            } else if let Some(around) = self.surroundings(&[l.instrument], ns) {
                detail = format!("{detail}; {}", around.detail);
                around.reason
            } else if live.report.opened_ns != replayed.report.opened_ns {
                let by = live.report.opened_ns.saturating_sub(replayed.report.opened_ns) / 1_000;
                detail = format!("{detail}; decided {by} us later live");
                Reason::OtherMoment
            } else if l.px != r.px {
                Reason::BookAtDecision
            } else if let Some(key) = self.limits() {
                detail = format!("{detail}; {key} differs");
                Reason::Limits
            } else {
                Reason::Unexplained
            };
            found.push((What::Round, Found::new(reason, detail)));
            // One leg sizes the others.
            return;
        }
    }

    /// The leg of the smaller round that there was not enough for to be as large as the other.
    fn uncovered(&self, live: &RoundStory, replayed: &RoundStory) -> Option<String> {
        let legs = live.report.legs().iter().zip(replayed.report.legs()).enumerate();
        legs.filter(|(_, (l, r))| l.qty != r.qty)
            .find(|(idx, (l, r))| {
                let funds = |round: &RoundStory| round.funds.get(*idx).copied().flatten();
                let (small, large) = if l.qty < r.qty { (live, r) } else { (replayed, l) };
                let needs = self.spends(large.instrument, large.action, large.px.0, large.qty.0);
                funds(live) != funds(replayed)
                    && funds(small).is_some_and(|there| i128::from(there) < needs)
            })
            .map(|(_, (l, _))| self.symbol(l.instrument))
    }

    /// Which limit that sizes orders differs.
    fn limits(&self) -> Option<String> {
        let of = |side: &Side| serde_json::to_value(&side.table.as_ref()?.setup.limits).ok();
        let differs = differing(&of(self.live)?, &of(self.replayed)?, "limits");
        differs.into_iter().find(|key| SIZING.iter().any(|word| key.contains(word)))
    }

    /// What an order spends, in quanta of the asset that it spends.
    fn spends(&self, instrument: u16, action: Action, px: i64, qty: i64) -> i128 {
        if action == Action::Sell || self.table.universe.get(instrument).is_none() {
            return qty.into();
        }
        let shift = shift_of(&self.table.universe, instrument);
        quote_of(tandem_core::units::Px(px), qty, shift, true)
    }

    /// Two orders that were to do the same.
    fn orders(&self, live: &Order, replayed: &Order, found: &mut Vec<(What, Found)>) {
        let symbol = self.symbol(live.new.instrument);
        if filled(live) == filled(replayed) {
            let (l, r) = (fees(live), fees(replayed));
            if l != r {
                let text = |fees: &BTreeMap<u16, i128>| {
                    let all: Vec<String> = fees
                        .iter()
                        .map(|(asset, fee)| amount(self.table, Some(*asset), *fee))
                        .collect();
                    all.join(" and ")
                };
                let detail = format!("{symbol}: fee {} live, {} replayed", text(&l), text(&r));
                let numeraire = self.live.numeraire.or(self.replayed.numeraire);
                let sum = |fees: &BTreeMap<u16, i128>| fees.values().sum::<i128>();
                let mut assets = l.keys().chain(r.keys());
                let money =
                    assets.all(|asset| Some(*asset) == numeraire).then(|| sum(&r) - sum(&l));
                let reason = Reason::FeeCharged;
                found.push((What::Fill, Found { reason, detail, money }));
            }
            return;
        }
        let fills = format!(
            "{symbol}: {} live, {} replayed",
            self.fills_text(live),
            self.fills_text(replayed)
        );
        let refused = |order: &Order| match order.end {
            Some(End::Rejected(class, code)) => Some(format!("{} ({code})", class.name())),
            _ => None,
        };
        let (l, r) = (refused(live), refused(replayed));
        if l != r {
            let word = |one: Option<String>| one.unwrap_or_else(|| "taken".to_owned());
            let detail = format!("{symbol}: {} live, {} replayed", word(l), word(r));
            return found.push((What::Order, Found::new(Reason::Rejected, detail)));
        }
        if (0 < live.unknown) != (0 < replayed.unknown) {
            let place = if 0 < live.unknown { "live" } else { "in the replay" };
            let detail = format!("{fills}; its outcome was unknown for a time {place}");
            return found.push((What::Order, Found::new(Reason::Unknown, detail)));
        }
        if (live.new.px, live.new.qty) != (replayed.new.px, replayed.new.qty) {
            let is_told = found.iter().any(|(what, _)| *what == What::Round);
            let reason = if is_told { Reason::OtherOrder } else { Reason::Unexplained };
            return found.push((What::Order, Found::new(reason, fills)));
        }
        let away = |order: &Order| to_word_ns(order);
        if let (Some(l), Some(r)) = (away(live), away(replayed))
            && LATENCY_NS < l.saturating_sub(r).saturating_abs()
        {
            let detail =
                format!("{fills}; answered after {} us live, {} us replayed", l / 1_000, r / 1_000);
            return found.push((What::Fill, Found::new(Reason::Latency, detail)));
        }
        let whole = |order: &Order| filled(order).values().sum::<i64>();
        let reason = match whole(live) == whole(replayed) {
            true => Reason::PriceOnArrival,
            false => Reason::DepthOnArrival,
        };
        found.push((What::Fill, Found::new(reason, fills)));
    }

    fn hedges(
        &self,
        live: &RoundStory,
        replayed: &RoundStory,
        is_followed: bool,
        found: &mut Vec<(What, Found)>,
    ) {
        let terms =
            |order: &Order| (order.new.instrument, order.new.action, order.new.px, order.new.qty);
        let same_count = live.hedges.len() == replayed.hedges.len();
        let mut pairs = live.hedges.iter().zip(&replayed.hedges);
        let same = same_count && pairs.all(|(l, r)| terms(l) == terms(r) && filled(l) == filled(r));
        if same {
            for (l, r) in live.hedges.iter().zip(&replayed.hedges) {
                self.orders(l, r, found);
            }
            return;
        }
        let detail =
            format!("{} hedges live, {} replayed", live.hedges.len(), replayed.hedges.len());
        if is_followed {
            return found.push((What::Order, Found::new(Reason::FirstLeg, detail)));
        }
        for (l, r) in live.hedges.iter().zip(&replayed.hedges) {
            if terms(l) != terms(r) {
                let detail = format!(
                    "{}: limit {} live; {}: limit {} replayed",
                    self.symbol(l.new.instrument),
                    self.px(l.new.instrument, l.new.px.0),
                    self.symbol(r.new.instrument),
                    self.px(r.new.instrument, r.new.px.0)
                );
                return found.push((What::Order, Found::new(Reason::HedgeBook, detail)));
            }
            let before = found.len();
            self.orders(l, r, found);
            if found.len() != before {
                return;
            }
        }
        found.push((What::Order, Found::unexplained(detail)));
    }
}

/// Keys at which two values differ.
fn differing(live: &Value, replayed: &Value, place: &str) -> Vec<String> {
    match (live, replayed) {
        (Value::Object(l), Value::Object(r)) => {
            let keys: BTreeSet<&String> = l.keys().chain(r.keys()).collect();
            let of = |key: &String| {
                let (l, r) = (l.get(key), r.get(key));
                let (l, r) = (l.unwrap_or(&Value::Null), r.unwrap_or(&Value::Null));
                differing(l, r, &format!("{place}.{key}"))
            };
            keys.into_iter().flat_map(of).collect()
        }
        (live, replayed) if live == replayed => Vec::new(),
        _ => vec![place.to_owned()],
    }
}

/// A reason with its evidence.
struct Found {
    reason: Reason,
    detail: String,
    /// Live less replayed, where it is exactly known.
    money: Option<i128>,
}

impl Found {
    fn new(reason: Reason, detail: String) -> Found {
        Found { reason, detail, money: None }
    }

    fn unexplained(detail: String) -> Found {
        Found::new(Reason::Unexplained, detail)
    }
}

/// Mean price of an order's fills times 10^6, and what it filled.
fn mean_px(order: &Order) -> Option<(i128, i128)> {
    let (mut worth, mut qty) = (0i128, 0i128);
    for fill in order.kept() {
        worth += i128::from(fill.px.0) * i128::from(fill.qty.0);
        qty += i128::from(fill.qty.0);
    }
    (0 < qty && 0 < worth).then_some((worth, qty))
}

/// How near the replay comes to what happened.
fn calibration(live: &Side, replayed: &Side, matched: &[(usize, usize)]) -> Calibration {
    let rate = |side: &Side| {
        let orders: Vec<&Order> = side.rounds.iter().flat_map(|round| &round.entries).collect();
        let hit = orders.iter().filter(|order| order.kept().next().is_some()).count() as i64;
        (hit * 1_000_000).checked_div(orders.len() as i64).unwrap_or(0)
    };
    let (mut prices, mut price_count, mut times, mut time_count) = (0i128, 0i128, 0i128, 0i128);
    for (l, r) in matched {
        let (Some(l), Some(r)) = (live.rounds.get(*l), replayed.rounds.get(*r)) else { continue };
        for (l, r) in l.entries.iter().zip(&r.entries) {
            if let (Some((lw, lq)), Some((rw, rq))) = (mean_px(l), mean_px(r)) {
                // Of the live price: what the replay paid less, or got more.
                let (lpx, rpx) = (lw * 1_000 / lq, rw * 1_000 / rq);
                let better = match l.new.action {
                    Action::Buy => lpx - rpx,
                    Action::Sell => rpx - lpx,
                };
                prices += better.saturating_mul(1_000_000) / lpx.max(1);
                price_count += 1;
            }
            if let (Some(l), Some(r)) = (to_fill_ns(l), to_fill_ns(r)) {
                times += i128::from(r) - i128::from(l);
                time_count += 1;
            }
        }
    }
    let mean = |sum: i128, count: i128| {
        i64::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(i64::MAX)
    };
    let worth = |side: &Side| -> i128 {
        side.rounds.iter().map(|round| i128::from(round.report.worth.0)).sum()
    };
    let error = worth(replayed) - worth(live);
    Calibration {
        recorded_rounds: live.rounds.len() as u64,
        simulated_rounds: replayed.rounds.len() as u64,
        matched: matched.len() as u64,
        fill_rate_error_ppm: rate(replayed) - rate(live),
        price_error_ppm: mean(prices, price_count),
        time_error_us: mean(times, time_count) / 1_000,
        pnl_error: error.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
    }
}
