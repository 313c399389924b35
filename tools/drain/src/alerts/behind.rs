//! What is wrong behind the journal and around the run: archive, databases, errors that processes wrote down,
//! loops that stall, certificates and keys that end, edges that are not earned, and the day's own report.
//!
//! Invariant: as of `rules`: a pure function of what it was given. A sink that never said anything is starting and
//! no alert; what stands is told at each look, what happens is told once.
//!
//! Not here: venues, orders, levels, processes, the journal (`rules`).

use std::collections::{BTreeMap, VecDeque};

use tandem_core::record::{Kind, Record};
use tandem_core::report::{Opportunity, Phase};
use tandem_core::round::{RoundReport, Stage};

use super::rules::{Thresholds, counted, ns, passed};
use super::{Condition, Rule, Severity};
use crate::archive::State;
use crate::source::Look;
use crate::status::SinkLook;

const S: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * S;
const DAY_NS: i64 = 86_400 * S;
/// Opportunities whose size is remembered until their round ends.
const SIZES_MAX: usize = 4_096;
/// Counts of stalls of one process: one each look, over a minute.
const COUNTS_MAX: usize = 1_024;

/// What a day's report counts.
#[derive(Clone, Copy, Debug, Default)]
struct Day {
    rounds: usize,
    hedged: usize,
    opportunities: usize,
}

/// What is remembered of it.
#[derive(Default)]
pub(super) struct Behind {
    /// Since when a sink's other side is gone.
    down_ns: BTreeMap<&'static str, i64>,
    dead_letters: BTreeMap<&'static str, u64>,
    stalls: BTreeMap<String, VecDeque<(i64, u64)>>,
    /// What an opportunity would spend, by its number.
    sizes: BTreeMap<i64, i64>,
    /// Of the last rounds: how much less they earned than was predicted, ppm of what they spent.
    shortfalls: VecDeque<i64>,
    days: BTreeMap<i64, Day>,
    /// The last day that was over at a look.
    reported: Option<i64>,
}

impl Behind {
    /// An engine begins: its numbers mean something else.
    pub(super) fn forget_run(&mut self) {
        self.sizes.clear();
    }

    fn day(&mut self, record: &Record) -> &mut Day {
        let number = record.engine_ts_ns.div_euclid(DAY_NS);
        // Today and the day before are all that is told of; a record may say anything.
        if 3 < self.days.len() && !self.days.contains_key(&number) {
            self.days.pop_first();
        }
        self.days.entry(number).or_default()
    }

    /// Takes a whole group of records: an opportunity's or a round's.
    pub(super) fn group(&mut self, group: &[Record], thresholds: &Thresholds) {
        let Some(first) = group.first() else { return };
        if first.kind() == Some(Kind::Opportunity) {
            let Some(found) = Opportunity::decode(group) else { return };
            if matches!(found.phase, Phase::Open | Phase::Update) {
                self.sizes.insert(found.id, found.spent.0);
            }
            if SIZES_MAX < self.sizes.len() {
                self.sizes.pop_first();
            }
            if found.phase == Phase::Open {
                self.day(first).opportunities += 1;
            }
            return;
        }
        let Some(round) = RoundReport::decode(group).filter(|told| told.stage == Stage::Settled)
        else {
            return;
        };
        let day = self.day(first);
        day.rounds += 1;
        day.hedged += usize::from(0 < round.hedges);
        let size = i64::try_from(round.cause).ok().and_then(|id| self.sizes.remove(&id));
        let Some(size) = size.filter(|size| 0 < *size && !round.is_orphan) else { return };
        let short = i128::from(round.expected.0) - i128::from(round.realised.0);
        let ppm = (short * 1_000_000 / i128::from(size)).clamp(-1_000_000, 1_000_000);
        self.shortfalls.push_back(ppm as i64);
        while thresholds.edge_rounds < self.shortfalls.len() {
            self.shortfalls.pop_front();
        }
    }

    /// Returns what is wrong now, and what happened since the last look.
    pub(super) fn look(
        &mut self,
        look: &Look,
        thresholds: &Thresholds,
        out: &mut Vec<Condition>,
        events: &mut Vec<Condition>,
    ) {
        for sink in &look.sinks {
            self.sink(sink, look.now_ns, thresholds, out, events);
        }
        archive(look, thresholds, out);
        self.stalls(look, thresholds, out);
        self.edge(thresholds, out);
        certificates_and_keys(look, thresholds, out);
        for death in &look.deaths {
            let detail = format!("at {}", death.place);
            events.push(Condition::new(Rule::PANIC, death.role.as_str(), detail));
        }
        self.report(look.now_ns, thresholds, events);
    }

    fn sink(
        &mut self,
        sink: &SinkLook,
        now_ns: i64,
        thresholds: &Thresholds,
        out: &mut Vec<Condition>,
        events: &mut Vec<Condition>,
    ) {
        // The text of another side is not for people's phones: its page has it.
        let (rule, what) = match sink.name {
            "postgres" => (Rule::DATABASE, "nothing can be written"),
            "redis" => (Rule::REDIS, "nobody gets the books there"),
            "sentry" => (Rule::SENTRY, "nothing can be forwarded"),
            _ => return,
        };
        if sink.up || sink.trouble.is_none() {
            self.down_ns.remove(sink.name);
        } else {
            let since_ns = *self.down_ns.entry(sink.name).or_insert(now_ns);
            let lasted_ns = passed(now_ns, since_ns);
            if ns(thresholds.sink_down) <= lasted_ns {
                let detail = format!("{what}, for {} s", lasted_ns / S);
                out.push(Condition::new(rule, "", detail));
            }
        }
        if sink.name == "postgres" && ns(thresholds.backlog) <= sink.lag_ns {
            let detail =
                format!("{} records, the oldest {} s old", sink.lag_records, sink.lag_ns / S);
            out.push(Condition::new(Rule::BACKLOG, "", detail));
        }
        let before = self.dead_letters.insert(sink.name, sink.dead_letters).unwrap_or(0);
        if before < sink.dead_letters {
            let more = usize::try_from(sink.dead_letters - before).unwrap_or(usize::MAX);
            let detail = format!("{} put aside", counted(more, "row"));
            events.push(Condition::new(Rule::DEAD_LETTER, sink.name, detail));
        }
    }

    fn stalls(&mut self, look: &Look, thresholds: &Thresholds, out: &mut Vec<Condition>) {
        self.stalls.retain(|name, _| look.stalls.contains_key(name));
        for (name, count) in &look.stalls {
            let seen = self.stalls.entry(name.clone()).or_default();
            // Smaller figures are those of another process.
            if seen.back().is_some_and(|(_, before)| count < before) {
                seen.clear();
            }
            seen.push_back((look.now_ns, *count));
            while COUNTS_MAX < seen.len()
                || seen.get(1).is_some_and(|(at, _)| MINUTE_NS <= passed(look.now_ns, *at))
            {
                seen.pop_front();
            }
            let more = seen.front().map_or(0, |(_, first)| count.saturating_sub(*first));
            if thresholds.stalls_per_min < more {
                let detail = format!("{more} turns above 200 us in a minute");
                out.push(Condition::new(Rule::STALLS, name.as_str(), detail));
            }
        }
    }

    fn edge(&self, thresholds: &Thresholds, out: &mut Vec<Condition>) {
        let count = self.shortfalls.len();
        if count == 0 || count < thresholds.edge_rounds {
            return;
        }
        let mean_ppm = self.shortfalls.iter().sum::<i64>() / i64::try_from(count).unwrap_or(1);
        if thresholds.edge_shortfall_ppm < mean_ppm {
            let (bp, tenth) = (mean_ppm / 100, mean_ppm / 10 % 10);
            let detail = format!("{bp}.{tenth} bp below what was predicted, over {count} rounds");
            out.push(Condition::new(Rule::EDGE, "", detail));
        }
    }

    fn report(&mut self, now_ns: i64, thresholds: &Thresholds, events: &mut Vec<Condition>) {
        let over = (now_ns.saturating_sub(ns(thresholds.report_after))).div_euclid(DAY_NS) - 1;
        let Some(before) = self.reported.replace(over) else { return };
        if over <= before {
            return;
        }
        let day = self.days.get(&over).copied().unwrap_or_default();
        let detail = format!(
            "{}: {} opportunities, {}, {} of them hedged",
            super::wire::utc(over * DAY_NS).split(' ').next().unwrap_or_default(),
            day.opportunities,
            counted(day.rounds, "round"),
            day.hedged,
        );
        events.push(Condition::new(Rule::REPORT, "", detail));
    }
}

fn archive(look: &Look, thresholds: &Thresholds, out: &mut Vec<Condition>) {
    let Some(archive) = look.archive else { return };
    if matches!(archive.state, State::Failed | State::Refused) {
        let detail = format!("its state is {}: nothing more is durable", archive.state.name());
        out.push(Condition::new(Rule::ARCHIVE, "", detail));
    }
    let is_full = archive.state == State::NoSpace;
    let is_low = 0 < archive.free_ppm && archive.free_ppm < thresholds.disk_ppm;
    let is_short = archive.state == State::Archiving && archive.wants_pause;
    if is_full || is_low || is_short {
        let detail = format!("{} % are free", archive.free_ppm / 10_000);
        let mut low = Condition::new(Rule::ARCHIVE_DISK, "", detail);
        if is_full || is_short {
            low.severity = Severity::Page;
        }
        out.push(low);
    }
    if ns(thresholds.durable) <= archive.lag_ns {
        let detail = format!("the oldest record is not durable for {} s", archive.lag_ns / S);
        out.push(Condition::new(Rule::ARCHIVE_LAG, "", detail));
    }
}

fn certificates_and_keys(look: &Look, thresholds: &Thresholds, out: &mut Vec<Condition>) {
    for (whose, ends_s) in look.certificates.iter().filter(|(_, ends_s)| 0 < **ends_s) {
        let left_ns = ends_s.saturating_mul(S).saturating_sub(look.now_ns);
        if left_ns < ns(thresholds.certificate) {
            let detail = format!("it ends in {} days", left_ns.max(0) / DAY_NS);
            out.push(Condition::new(Rule::CERTIFICATE, whose.as_str(), detail));
        }
    }
    for (whose, changed_ns) in &look.keys {
        let age_ns = passed(look.now_ns, *changed_ns);
        if ns(thresholds.key_age) < age_ns {
            let detail = format!("its file was written {} days ago", age_ns / DAY_NS);
            out.push(Condition::new(Rule::KEY_AGE, whose.as_str(), detail));
        }
    }
}
