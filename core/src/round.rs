//! Rounds: the orders of one arbitrage as a group, from the first leg to nothing left over.
//!
//! Invariant: a round is the sum of its fills and fees, by venue and asset, each in its own asset. It
//! settles only when every order of it is settled and what is left over of every asset but its start is
//! too little to trade. No stage waits without a clock: a round hedges until its time, attempts or loss
//! are used up, and is then held, which is told and stays watched; a fill that comes later is part of
//! it, or opens an orphan round of its own.
//!
//! What is unknown is not hedged: a hedge against a fill that then turns out never to have been is a
//! second naked leg. Both worlds are within the exposure limits (C8 counts every open order as filled and
//! as not filled), the venue is paused (C10), and the round waits for the proof.
//!
//! Not here: which hedge is sent (`hedge`), when (`trading`).

use alloc::vec::Vec;

use crate::graph::LEGS_MAX;
use crate::instrument::AssetId;
use crate::order::Action;
use crate::record::{Kind, Record, Venue, flag};
use crate::units::{Amount, Px, Qty};

/// Venue and asset pairs that one round may touch: an orphan round may hold every asset of every venue, of
/// a universe of ten. What does not fit is kept as dust.
pub const FLOWS: usize = 32;
/// Places for rounds beyond those that may be entered: late fills and earlier runs.
pub const SPARE: usize = 8;
/// Cycle of a round that follows from none.
pub const NO_CYCLE: u32 = u32::MAX;

/// Where a round is in its life. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// Its legs are out.
    Entry = 1,
    /// Something is left over and being hedged.
    Hedge = 2,
    /// Something is left over and the budget is used up: an operator is called.
    Held = 3,
    /// It is over.
    Settled = 4,
}

impl Stage {
    /// Returns the stage's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Entry => "entry",
            Stage::Hedge => "hedge",
            Stage::Held => "held",
            Stage::Settled => "settled",
        }
    }
}

/// What moved, by venue and asset.
#[derive(Clone, Copy, Debug)]
pub struct Flows {
    items: [(Venue, AssetId, i128); FLOWS],
    len: usize,
}

impl Default for Flows {
    fn default() -> Flows {
        Flows { items: [(Venue::Binance, AssetId(0), 0); FLOWS], len: 0 }
    }
}

impl Flows {
    /// Adds; false where there is no place for another pair.
    #[must_use]
    pub fn add(&mut self, venue: Venue, asset: AssetId, delta: i128) -> bool {
        let known = self.items[..self.len].iter_mut().find(|i| (i.0, i.1) == (venue, asset));
        if let Some(item) = known {
            item.2 = item.2.saturating_add(delta);
        } else if self.len < FLOWS {
            self.items[self.len] = (venue, asset, delta);
            self.len += 1;
        } else {
            return false;
        }
        true
    }

    /// Returns every pair.
    #[must_use]
    #[inline]
    pub fn items(&self) -> &[(Venue, AssetId, i128)] {
        &self.items[..self.len]
    }

    /// Returns the sum of an asset, over all venues or at one.
    #[must_use]
    #[inline]
    pub fn of(&self, asset: AssetId, venue: Option<Venue>) -> i128 {
        let of = |i: &&(Venue, AssetId, i128)| i.1 == asset && venue.is_none_or(|v| v == i.0);
        self.items().iter().filter(of).map(|i| i.2).sum()
    }

    /// Calls `each` once per asset with its sum.
    pub fn each_asset(&self, mut each: impl FnMut(AssetId, i128)) {
        for (idx, item) in self.items().iter().enumerate() {
            if !self.items[..idx].iter().any(|before| before.1 == item.1) {
                each(item.1, self.of(item.1, None));
            }
        }
    }
}

/// One leg as planned and as filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundLeg {
    /// Venue's tag.
    pub venue: u8,
    /// Instrument.
    pub instrument: u16,
    /// Which way.
    pub action: Action,
    /// Limit.
    pub px: Px,
    /// Planned.
    pub qty: Qty,
    /// Filled.
    pub filled: Qty,
}

impl Default for RoundLeg {
    fn default() -> RoundLeg {
        let (px, qty) = (Px(0), Qty(0));
        RoundLeg { venue: 0, instrument: 0, action: Action::Buy, px, qty, filled: Qty(0) }
    }
}

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Its number in the run; orders carry it.
    pub id: u64,
    /// Where it is.
    pub stage: Stage,
    /// It follows from a late fill, from dust, or from an earlier run.
    pub is_orphan: bool,
    /// Its cycle, or [`NO_CYCLE`].
    pub cycle: u32,
    /// The opportunity it follows from; 0 where none.
    pub cause: u64,
    /// Asset it begins and ends with.
    pub start: AssetId,
    /// What it should gain, in the start asset.
    pub expected: Amount,
    /// What its first leg spends.
    pub input: Amount,
    /// When it was opened.
    pub opened_ns: i64,
    /// Since when something is left over to hedge; 0 not.
    pub exposed_ns: i64,
    /// When its last hedge was sent.
    pub hedged_ns: i64,
    /// Hedges sent.
    pub hedges: i64,
    /// Fills and fees.
    pub flows: Flows,
    /// Number of the next order.
    pub next_n: u16,
    legs: [RoundLeg; LEGS_MAX],
    leg_count: usize,
}

impl Round {
    /// Returns a round without legs.
    #[must_use]
    pub fn new(id: u64, start: AssetId, now_ns: i64) -> Round {
        Round {
            id,
            stage: Stage::Entry,
            is_orphan: false,
            cycle: NO_CYCLE,
            cause: 0,
            start,
            expected: Amount(0),
            input: Amount(0),
            opened_ns: now_ns,
            exposed_ns: 0,
            hedged_ns: 0,
            hedges: 0,
            flows: Flows::default(),
            next_n: 0,
            legs: [RoundLeg::default(); LEGS_MAX],
            leg_count: 0,
        }
    }

    /// Returns the entry legs.
    #[must_use]
    pub fn legs(&self) -> &[RoundLeg] {
        &self.legs[..self.leg_count]
    }

    /// Returns the entry legs to note fills.
    pub fn legs_mut(&mut self) -> &mut [RoundLeg] {
        &mut self.legs[..self.leg_count]
    }

    /// Adds an entry leg.
    pub fn push_leg(&mut self, leg: RoundLeg) {
        self.legs[self.leg_count] = leg;
        self.leg_count += 1;
    }

    /// Returns how many legs filled whole, in part, and not at all.
    #[must_use]
    pub fn filled_legs(&self) -> [usize; 3] {
        let mut count = [0; 3];
        for leg in self.legs() {
            let which = if leg.filled == leg.qty { 0 } else { 1 + usize::from(leg.filled.0 == 0) };
            count[which] += 1;
        }
        count
    }

    /// Returns whether a leg of its cycle does this on an instrument: completing, not taking back.
    #[must_use]
    pub fn plans(&self, instrument: u16, action: Action) -> bool {
        self.legs().iter().any(|leg| (leg.instrument, leg.action) == (instrument, action))
    }
}

/// All rounds that are not over.
#[derive(Debug)]
pub struct Rounds {
    slots: Vec<Option<Round>>,
    entries_max: usize,
    next_id: u64,
}

impl Rounds {
    /// Returns no rounds; nothing is allocated afterwards.
    #[must_use]
    pub fn new(entries_max: usize) -> Rounds {
        Rounds { slots: alloc::vec![None; entries_max + SPARE], entries_max, next_id: 1 }
    }

    /// Returns how many rounds that were entered are not over.
    #[must_use]
    pub fn entered_count(&self) -> usize {
        self.iter().filter(|round| !round.is_orphan).count()
    }

    /// Returns the rounds that are not over.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Round> + '_ {
        self.slots.iter().flatten()
    }

    /// Returns how many places there are.
    #[must_use]
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// Returns how many entered rounds there may be.
    #[must_use]
    pub fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// Returns the round at a place.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: usize) -> Option<&Round> {
        self.slots.get(slot)?.as_ref()
    }

    /// Returns the round at a place to change it.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Round> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Returns the place of a round.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<usize> {
        self.slots.iter().position(|round| round.as_ref().is_some_and(|round| round.id == id))
    }

    /// Opens a round, or nothing where there is no place.
    pub fn open(&mut self, start: AssetId, now_ns: i64) -> Option<usize> {
        let slot = self.slots.iter().position(Option::is_none)?;
        self.slots[slot] = Some(Round::new(self.next_id, start, now_ns));
        self.next_id += 1;
        Some(slot)
    }

    /// Forgets a round that is over.
    pub fn close(&mut self, slot: usize) {
        self.slots[slot] = None;
    }
}

/// A round as told when its stage changes. Two records and one a leg: `[stage | legs << 8 | orphan <<
/// 16 | hedges << 24 | start << 48, round, opportunity, expected]`, `[realised, worth, opened ns,
/// duration ns]`, then per leg `[limit px, planned, filled, action]`. The update id is the cycle, the run
/// is the engine's. `realised` is of the start asset, `worth` in the numeraire, which is `asset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundReport {
    /// Run of the engine.
    pub run: u32,
    /// Number of the round.
    pub id: u64,
    /// Its stage from now on.
    pub stage: Stage,
    /// Whether it follows from no opportunity of this run.
    pub is_orphan: bool,
    /// Its cycle, or [`NO_CYCLE`].
    pub cycle: u32,
    /// The opportunity.
    pub cause: u64,
    /// Its start asset.
    pub start: AssetId,
    /// What it should gain.
    pub expected: Amount,
    /// What it gained of the start asset.
    pub realised: Amount,
    /// What all of it is worth in the numeraire, marked with the worse side.
    pub worth: Amount,
    /// Hedges sent.
    pub hedges: i64,
    /// When it was opened.
    pub opened_ns: i64,
    /// How long ago that was.
    pub duration_ns: i64,
    legs: [RoundLeg; LEGS_MAX],
    leg_count: usize,
}

impl RoundReport {
    /// Returns what to tell of a round.
    #[must_use]
    pub fn new(round: &Round, run: u32, worth: Amount, now_ns: i64) -> RoundReport {
        RoundReport {
            run,
            id: round.id,
            stage: round.stage,
            is_orphan: round.is_orphan,
            cycle: round.cycle,
            cause: round.cause,
            start: round.start,
            expected: round.expected,
            realised: crate::ledger::clamp(round.flows.of(round.start, None)),
            worth,
            hedges: round.hedges,
            opened_ns: round.opened_ns,
            duration_ns: now_ns - round.opened_ns,
            legs: round.legs,
            leg_count: round.leg_count,
        }
    }

    /// Returns the legs.
    #[must_use]
    pub fn legs(&self) -> &[RoundLeg] {
        &self.legs[..self.leg_count]
    }

    /// Writes the group; `cause` is the record that led to it.
    pub fn encode(&self, cause: &Record, mut emit: impl FnMut(Record)) {
        let base = Record {
            update_id: u64::from(self.cycle),
            run: self.run,
            engine_ts_ns: cause.engine_ts_ns,
            ring: cause.ring,
            ring_seq: cause.ring_seq,
            ..Record::new(Kind::Round, 0, u16::MAX, [0; 4])
        };
        let count = 2 + self.leg_count;
        let mut part = |idx: usize, record: Record| {
            let more = if idx + 1 < count { flag::MORE } else { 0 };
            emit(Record { part: idx as u8, flags: flag::OUTPUT | more, ..record });
        };
        let tags = self.stage as i64
            | (self.leg_count as i64) << 8
            | i64::from(self.is_orphan) << 16
            | self.hedges.clamp(0, 0xff_ffff) << 24
            | i64::from(self.start.0) << 48;
        let data = [tags, self.id as i64, self.cause as i64, self.expected.0];
        part(0, Record { data, ..base });
        let data = [self.realised.0, self.worth.0, self.opened_ns, self.duration_ns];
        part(1, Record { data, ..base });
        for (idx, leg) in self.legs().iter().enumerate() {
            let data = [leg.px.0, leg.qty.0, leg.filled.0, leg.action as i64];
            let (venue, instrument) = (leg.venue, leg.instrument);
            part(2 + idx, Record { data, venue, instrument, ..base });
        }
    }

    /// Reads a group back; nothing where the records are no such group.
    #[must_use]
    pub fn decode(group: &[Record]) -> Option<RoundReport> {
        let [head, tail, legs @ ..] = group else { return None };
        let in_order = group.iter().enumerate().all(|(idx, record)| {
            record.kind == Kind::Round as u8 && usize::from(record.part) == idx
        });
        let tags = head.data[0];
        if !in_order || LEGS_MAX < legs.len() || legs.len() != (tags >> 8 & 0xff) as usize {
            return None;
        }
        let stages = [Stage::Entry, Stage::Hedge, Stage::Held, Stage::Settled];
        let mut report = RoundReport {
            run: head.run,
            id: head.data[1] as u64,
            stage: stages.into_iter().find(|stage| *stage as i64 == tags & 0xff)?,
            is_orphan: tags >> 16 & 0xff != 0,
            cycle: u32::try_from(head.update_id).ok()?,
            cause: head.data[2] as u64,
            start: AssetId((tags >> 48) as u16),
            expected: Amount(head.data[3]),
            realised: Amount(tail.data[0]),
            worth: Amount(tail.data[1]),
            hedges: tags >> 24 & 0xff_ffff,
            opened_ns: tail.data[2],
            duration_ns: tail.data[3],
            legs: [RoundLeg::default(); LEGS_MAX],
            leg_count: legs.len(),
        };
        for (leg, record) in report.legs.iter_mut().zip(legs) {
            *leg = RoundLeg {
                venue: record.venue,
                instrument: record.instrument,
                action: match record.data[3] {
                    0 => Action::Buy,
                    1 => Action::Sell,
                    _ => return None,
                },
                px: Px(record.data[0]),
                qty: Qty(record.data[1]),
                filled: Qty(record.data[2]),
            };
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_round_reads_back() {
        let mut round = Round::new(9, AssetId(3), 100);
        round.stage = Stage::Held;
        (round.cycle, round.cause, round.hedges, round.expected) = (4, 7, 2, Amount(55));
        let leg =
            RoundLeg { venue: 3, instrument: 1, px: Px(5), qty: Qty(6), ..RoundLeg::default() };
        round.push_leg(leg);
        round.push_leg(RoundLeg { action: Action::Sell, filled: Qty(2), ..leg });
        assert!(round.flows.add(Venue::Kraken, AssetId(3), -8));
        let report = RoundReport::new(&round, 12, Amount(-1), 150);
        let mut group = Vec::new();
        report.encode(&Record::default(), |record| group.push(record));
        assert_eq!(RoundReport::decode(&group), Some(report));
        assert_eq!(RoundReport::decode(&group[..3]), None);
        assert_eq!(round.filled_legs(), [0, 1, 1]);
    }

    #[test]
    fn flows_sum_by_asset_and_refuse_more_than_they_hold() {
        let mut flows = Flows::default();
        for asset in 0..FLOWS as u16 / 2 {
            assert!(flows.add(Venue::Kraken, AssetId(asset), 2));
            assert!(flows.add(Venue::Binance, AssetId(asset), -1));
        }
        assert!(!flows.add(Venue::Binance, AssetId(99), 1));
        assert!(flows.add(Venue::Binance, AssetId(0), 5));
        assert_eq!(flows.of(AssetId(0), None), 6);
        assert_eq!(flows.of(AssetId(0), Some(Venue::Kraken)), 2);
        let mut seen = 0;
        flows.each_asset(|_, _| seen += 1);
        assert_eq!(seen, FLOWS / 2);
    }
}
