//! Two journals of the same market, side by side: what is different, and why.
//!
//! Invariant: every round, order and opportunity of either side is looked at once. The money of all reasons and of
//! what is unexplained adds up to the whole difference, to the last quantum. A reason is a fact that the journals tell
//! differently of that cycle, leg and time; where they tell none the difference is unexplained, however small it is.
//!
//! Not here: reading (`side`), showing (`mod`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tandem_backtest::outcome::Calibration;
use tandem_core::level::Level;
use tandem_core::order::Action;
use tandem_core::record::Venue;
use tandem_core::report::LegReport;
use tandem_core::round::NO_CYCLE;
use tandem_core::units::Side as BookSide;
use tandem_core::value::{quote_of, shift_of};

use super::depth::Hidden;
use super::side::{Denied, RoundStory, Seen, Side};
use super::{Difference, Drift, Only, Reason, ReasonLine, SideText, What};
use crate::table::Table;
use crate::trades::{End, Order};

/// Answers that come this much apart are no difference of latency.
const LATENCY_NS: i64 = 200_000;
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
        let hidden = || {
            live.legs.iter().zip(&replayed.legs).enumerate().find_map(|(idx, (l, r))| {
                let (of_live, of_replayed) = (live.hidden.get(idx), replayed.hidden.get(idx));
                self.hidden(l.instrument, l.side, Some([l.px.0, r.px.0]), of_live, of_replayed)
            })
        };
        let found = self.surroundings(&instruments, live.first_ns).or_else(hidden);
        let book = |leg: &LegReport| (leg.best_px, leg.update_id, leg.recv_ts_ns);
        let found = found.unwrap_or_else(|| match differs {
            _ if let Some((l, r)) = legs().find(|(l, r)| book(l) != book(r)) => {
                self.other_book(l.instrument, [l, r].map(|leg| (leg.update_id, leg.recv_ts_ns)))
            }
            _ if live.buffers_ppm != replayed.buffers_ppm => Found::new(
                Reason::Staleness,
                format!("{} ppm live, {} ppm replayed", live.buffers_ppm, replayed.buffers_ppm),
            ),
            Some((l, r)) => Found::unexplained(format!(
                "{}: {} at {} live, {} at {} replayed, of the same best price",
                self.symbol(l.instrument),
                self.qty(l.instrument, l.qty.0),
                self.px(l.instrument, l.px.0),
                self.qty(r.instrument, r.qty.0),
                self.px(r.instrument, r.px.0)
            )),
            None => Found::unexplained("the same orders were worth another gain".to_owned()),
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
                let legs = seen.legs.iter().zip(&seen.hidden);
                let legs = legs.map(|(leg, hidden)| (leg.instrument, leg.side, leg.px.0, hidden));
                let legs: Vec<_> = legs.collect();
                self.absent(only, &instruments, seen.first_ns)
                    .or_else(|| self.unseen(only, seen.cycle, &legs, seen.first_ns))
                    .unwrap_or_else(|| {
                        let detail = "not seen there, and nothing that was told stands against it";
                        Found::unexplained(detail.to_owned())
                    })
            }
        };
        self.tell(What::Opportunity, only, seen.first_ns, place, found, 0);
    }

    /// What is different around some instruments at a time: fees, settings.
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
        None
    }

    /// What own orders hid differently of a side of an instrument, no further than the worse of some prices.
    fn hidden(
        &self,
        instrument: u16,
        side: u8,
        within: Option<[i64; 2]>,
        live: Option<&Hidden>,
        replayed: Option<&Hidden>,
    ) -> Option<Found> {
        let none = Hidden::new();
        let (live, replayed) = (live.unwrap_or(&none), replayed.unwrap_or(&none));
        let side = usize::from(side);
        let counts = |px: i64| {
            within.is_none_or(|[a, b]| match side == BookSide::Ask.idx() {
                true => px <= a.max(b),
                false => a.min(b) <= px,
            })
        };
        let prices: BTreeSet<i64> = live
            .keys()
            .chain(replayed.keys())
            .filter(|(of, px)| *of == side && counts(*px))
            .map(|(_, px)| *px)
            .collect();
        let qty = |of: &Hidden, px: i64| of.get(&(side, px)).copied().unwrap_or(0);
        let px = prices.into_iter().find(|px| qty(live, *px) != qty(replayed, *px))?;
        let detail = format!(
            "{}: own orders hid {} at {} live, {} replayed",
            self.symbol(instrument),
            self.qty(instrument, qty(live, px)),
            self.px(instrument, px),
            self.qty(instrument, qty(replayed, px))
        );
        Some(Found::new(Reason::OwnOrders, detail))
    }

    /// Which settings of detection differ.
    fn settings(&self) -> Option<String> {
        let (live, replayed) = (self.live.table.as_ref()?, self.replayed.table.as_ref()?);
        let of = |table: &Table| serde_json::to_value(&table.setup.detection).ok();
        let differs = differing(&of(live)?, &of(replayed)?, "engine");
        differs.first().map(|key| format!("{key} differs"))
    }

    /// Why the other side has no such thing at that time, where what it told says so.
    fn absent(&self, only: Only, instruments: &[u16], ns: i64) -> Option<Found> {
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
        self.surroundings(instruments, ns)
    }

    /// The other side's own word against a cycle at that time.
    fn denied(
        &self,
        only: Only,
        cycle: u32,
        ns: i64,
        wanted: impl Fn(&Denied) -> bool,
    ) -> Option<Found> {
        let there = match only {
            Only::Live => "in the replay",
            Only::Replayed | Only::Both => "live",
        };
        let standing = self.other(only).denial(cycle, ns, self.window_ns, wanted)?;
        let denied = standing.denied;
        let away = denied.at_ns.saturating_sub(ns) / 1_000;
        let mut detail = format!("denied {there}, {away} us from then");
        if let Some((more, until_ns)) = standing.more.filter(|_| away < 0) {
            detail =
                format!("{detail}, and {more} times more until {}", crate::time::utc(until_ns));
        }
        Some(Found::new(Reason::Denied(denied.code.clone()), detail))
    }

    /// Why the other side did not see at that time what this one saw; legs with side, limit and what was hidden.
    fn unseen(
        &self,
        only: Only,
        cycle: u32,
        legs: &[(u16, u8, i64, &Hidden)],
        ns: i64,
    ) -> Option<Found> {
        let found = legs.iter().find_map(|(instrument, side, px, hidden)| {
            let other = self.other(only).hidden(*instrument, ns);
            let (live, replayed) = match only {
                Only::Live => (Some(*hidden), other),
                Only::Replayed | Only::Both => (other, Some(*hidden)),
            };
            self.hidden(*instrument, *side, Some([*px; 2]), live, replayed)
        });
        found.or_else(|| self.denied(only, cycle, ns, |denied| !denied.is_control))
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
        if let Some(found) = self.absent(only, &instruments, ns) {
            return found;
        }
        // Seen there as well it was decided there, and what was decided is told.
        let (from, to) = (ns.saturating_sub(self.window_ns), ns.saturating_add(self.window_ns));
        let seen = other.seen_between(report.cycle, from, to);
        if seen.is_some()
            && let Some(found) = self.denied(only, report.cycle, ns, |denied| denied.is_control)
        {
            return found;
        }
        let legs = report.legs().iter().zip(&round.stands);
        let legs = legs.map(|(leg, stand)| {
            (leg.instrument, leg.action.takes().idx() as u8, leg.px.0, &stand.hidden)
        });
        let legs: Vec<_> = legs.collect();
        if let Some(found) = self.unseen(only, report.cycle, &legs, ns) {
            return found;
        }
        let seen = seen.map_or("not seen", |_| "seen");
        let detail =
            format!("no round there ({seen}), and nothing that was told stands against it");
        Found::unexplained(detail)
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
            let by_us = ns.saturating_sub(replayed.report.opened_ns) / 1_000;
            let because = self
                .ramp(live, replayed)
                .or_else(|| self.uncovered(live, replayed))
                .or_else(|| self.surroundings(&[l.instrument], ns))
                .or_else(|| self.hidden_of_rounds(live, replayed, true))
                .or_else(|| self.books(live, replayed))
                .or_else(|| {
                    let (l, r) = (live.skew_ppm, replayed.skew_ppm);
                    let detail = format!("{l} ppm more live, {r} ppm replayed");
                    (l != r).then(|| Found::new(Reason::Skew, detail))
                })
                .or_else(|| self.hidden_of_rounds(live, replayed, false))
                .or_else(|| {
                    let detail = format!("decided {by_us} us later live");
                    (by_us != 0).then(|| Found::new(Reason::OtherMoment, detail))
                })
                .or_else(|| {
                    let key = self.limits()?;
                    Some(Found::new(Reason::Limits, format!("{key} differs")))
                });
            let reason = match because {
                Some(because) => {
                    detail = format!("{detail}; {}", because.detail);
                    because.reason
                }
                None => Reason::Unexplained,
            };
            found.push((What::Round, Found::new(reason, detail)));
            // One leg sizes the others.
            return;
        }
    }

    /// Whether one of them alone was among the first after arming, which are of the smallest size.
    fn ramp(&self, live: &RoundStory, replayed: &RoundStory) -> Option<Found> {
        let (l, r) = (live.since_armed, replayed.since_armed);
        let is_small = (l < self.live.ramp_rounds, r < self.replayed.ramp_rounds);
        let detail = format!(
            "after {l} rounds since arming live, {r} replayed; the first {} and {} are of the smallest size",
            self.live.ramp_rounds, self.replayed.ramp_rounds
        );
        (is_small.0 != is_small.1).then(|| Found::new(Reason::Ramp, detail))
    }

    /// What own orders hid differently when two rounds were decided: within their limits, or anywhere, because a
    /// share of all that is left is the most that an order takes.
    fn hidden_of_rounds(
        &self,
        live: &RoundStory,
        replayed: &RoundStory,
        is_within: bool,
    ) -> Option<Found> {
        let legs = live.report.legs().iter().zip(replayed.report.legs()).enumerate();
        legs.into_iter().find_map(|(idx, (l, r))| {
            let hidden =
                |round: &RoundStory| round.stands.get(idx).map(|stand| stand.hidden.clone());
            let side = l.action.takes().idx() as u8;
            let within = is_within.then_some([l.px.0, r.px.0]);
            let (l, r, instrument) = (hidden(live), hidden(replayed), l.instrument);
            self.hidden(instrument, side, within, l.as_ref(), r.as_ref())
        })
    }

    /// The leg whose book was another one when two rounds were decided.
    fn books(&self, live: &RoundStory, replayed: &RoundStory) -> Option<Found> {
        let stands = live.stands.iter().zip(&replayed.stands).zip(live.report.legs());
        let (pair, leg) = stands.into_iter().find(|((l, r), _)| l.book != r.book)?;
        Some(self.other_book(leg.instrument, [pair.0.book, pair.1.book]))
    }

    fn other_book(&self, instrument: u16, [live, replayed]: [(u64, i64); 2]) -> Found {
        let text = |(update_id, recv_ns): (u64, i64)| {
            format!("update {update_id} of {}", crate::time::utc(recv_ns))
        };
        let symbol = self.symbol(instrument);
        let detail = format!("{symbol}: {} live, {} replayed", text(live), text(replayed));
        Found::new(Reason::BookAtDecision, detail)
    }

    /// The leg of the smaller round that there was not enough for, or no room for, to be as large as the other.
    fn uncovered(&self, live: &RoundStory, replayed: &RoundStory) -> Option<Found> {
        let legs = live.report.legs().iter().zip(replayed.report.legs()).enumerate();
        legs.filter(|(_, (l, r))| l.qty != r.qty).find_map(|(idx, (l, r))| {
            let (of_live, of_replayed) = (live.stands.get(idx)?, replayed.stands.get(idx)?);
            let (small, large) = if l.qty < r.qty { (of_live, r) } else { (of_replayed, l) };
            let quote = quote_of(large.px, large.qty.0, self.shift(large.instrument)?, true);
            let (spends, brings) = match large.action {
                Action::Buy => (quote, i128::from(large.qty.0)),
                Action::Sell => (i128::from(large.qty.0), quote),
            };
            let is_short = |bound: Option<i128>, needs| bound.is_some_and(|bound| bound < needs);
            let needs = [i128::from(large.qty.0), quote];
            let is_exposed = of_live.exposure != of_replayed.exposure
                && small.exposure.into_iter().zip(needs).any(|(room, needs)| is_short(room, needs));
            let place = if l.qty < r.qty { "live" } else { "in the replay" };
            let symbol = self.symbol(l.instrument);
            let detail = if of_live.funds != of_replayed.funds && is_short(small.funds, spends) {
                format!("what there was {place} for {symbol} did not cover more")
            } else if of_live.room != of_replayed.room && is_short(small.room, brings) {
                format!("what {symbol} brings had no more room {place}")
            } else if is_exposed {
                let detail = format!("other rounds left {symbol} no more exposure {place}");
                return Some(Found::new(Reason::Exposure, detail));
            } else {
                return None;
            };
            Some(Found::new(Reason::Balances, detail))
        })
    }

    fn shift(&self, instrument: u16) -> Option<u8> {
        let universe = &self.table.universe;
        universe.get(instrument).map(|_| shift_of(universe, instrument))
    }

    /// Which limit that sizes orders differs.
    fn limits(&self) -> Option<String> {
        let of = |side: &Side| serde_json::to_value(&side.table.as_ref()?.setup.limits).ok();
        let differs = differing(&of(self.live)?, &of(self.replayed)?, "limits");
        differs.into_iter().find(|key| SIZING.iter().any(|word| key.contains(word)))
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

/// The one in the middle, of two the mean; a few that were late do not move it.
fn median_us(mut all: Vec<i64>) -> Option<i64> {
    all.sort_unstable();
    let (low, high) = (all.len().checked_sub(1)? / 2, all.len() / 2);
    let sum = i128::from(*all.get(low)?) + i128::from(*all.get(high)?);
    i64::try_from(sum.div_euclid(2_000)).ok()
}

/// How near the replay comes to what happened.
fn calibration(live: &Side, replayed: &Side, matched: &[(usize, usize)]) -> Calibration {
    let rate = |side: &Side| {
        let orders: Vec<&Order> = side.rounds.iter().flat_map(|round| &round.entries).collect();
        let hit = orders.iter().filter(|order| order.kept().next().is_some()).count() as i64;
        (hit * 1_000_000).checked_div(orders.len() as i64).unwrap_or(0)
    };
    let (mut prices, mut price_count, mut times) = (0i128, 0i128, 0i128);
    let (mut live_ns, mut replayed_ns) = (Vec::new(), Vec::new());
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
                live_ns.push(l);
                replayed_ns.push(r);
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
        time_error_us: mean(times, live_ns.len() as i128) / 1_000,
        time_live_median_us: median_us(live_ns),
        time_simulated_median_us: median_us(replayed_ns),
        pnl_error: error.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
    }
}
