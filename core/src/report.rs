//! How opportunities and denials stand in the journal: groups of records joined by `MORE`.
//!
//! Invariant: [`Opportunity::decode`] gives back what [`Opportunity::encode`] was given, for every group
//! it accepts; it accepts any records and refuses what is no such group. Encoding and decoding live
//! side by side so that the format is written once.
//!
//! Opportunity, 3 records and one a leg: `[phase | kind << 8 | legs << 16 | best << 24 | start << 32,
//! id, net, spent]`, `[gross ppb, buffers ppm, brought, age ns]`, `[first, last, best seen ns, times
//! seen]`, then per leg `[limit px, qty, best px, side | levels << 8]` with the leg's instrument and the
//! venue's update id. Denial, 2 records: `[verdict | kind << 8 | legs << 16 | start << 32, times, net,
//! spent]`, `[gross ppb, buffers ppm, age ns, 0]`, and with the verdict `Control` a third, `[control,
//! observed, limit, 0]` with the order's instrument. The update id of the others is the cycle's index.

use crate::detector::{Evaluation, Verdict};
use crate::graph::{Cycle, CycleKind, LEGS_MAX};
use crate::instrument::AssetId;
use crate::record::{Kind, Record, flag};
use crate::units::{Amount, Px, Qty};

/// Records of one opportunity without legs.
const HEAD: usize = 3;
/// Most records of one group.
pub const GROUP_MAX: usize = HEAD + LEGS_MAX;

/// Where in its life an opportunity is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Seen for the first time, with the orders that would take it.
    Open = 1,
    /// It got better.
    Update = 2,
    /// It is gone; the numbers are those of its best moment.
    Close = 3,
    /// What the same books gave one order latency after it was seen; net 0 is nothing.
    After = 4,
}

impl Phase {
    fn from_tag(tag: i64) -> Option<Phase> {
        match tag {
            1 => Some(Phase::Open),
            2 => Some(Phase::Update),
            3 => Some(Phase::Close),
            4 => Some(Phase::After),
            _ => None,
        }
    }
}

/// One leg as told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegReport {
    /// Instrument.
    pub instrument: u16,
    /// Tag of its venue.
    pub venue: u8,
    /// 0 sells to bids, 1 buys from asks: the side of the book that is taken.
    pub side: u8,
    /// Levels touched.
    pub levels: u32,
    /// Limit price.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Best price of the side taken.
    pub best_px: Px,
    /// The venue's id of the book used.
    pub update_id: u64,
    /// When the book's last change was received, UNIX ns.
    pub recv_ts_ns: i64,
}

/// One moment of an opportunity's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opportunity {
    /// Which moment.
    pub phase: Phase,
    /// Kind of its cycle.
    pub kind: CycleKind,
    /// Index of its cycle.
    pub cycle: u32,
    /// Counts opportunities from 1 since the engine's start.
    pub id: i64,
    /// Whether it was the best of its step among those with the same start asset.
    pub best: bool,
    /// Asset of the amounts.
    pub start: AssetId,
    /// Net gain after fees, slippage, staleness and basis.
    pub net: Amount,
    /// Spent by the first leg.
    pub spent: Amount,
    /// Brought by the last leg.
    pub brought: Amount,
    /// Edge of the best prices before fees.
    pub gross_ppb: i64,
    /// Buffers charged.
    pub buffers_ppm: i64,
    /// Age of the oldest leg's data.
    pub age_ns: i64,
    /// When it was first seen, UNIX ns.
    pub first_ns: i64,
    /// When it was last seen.
    pub last_ns: i64,
    /// When it was at its best.
    pub best_ns: i64,
    /// How many times it was evaluated and paid.
    pub times: i64,
    /// When it is told.
    pub at_ns: i64,
    legs: [LegReport; LEGS_MAX],
    leg_count: u8,
}

/// One denied candidate, or several in a row with the same verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub verdict: Verdict,
    /// Kind of its cycle.
    pub kind: CycleKind,
    /// Index of its cycle.
    pub cycle: u32,
    /// How many candidates of this cycle and verdict this record stands for.
    pub times: i64,
    /// Asset of the amounts.
    pub start: AssetId,
    /// Net gain that was computed, where a size was found.
    pub net: Amount,
    /// What would have been spent, where a size was found.
    pub spent: Amount,
    /// Edge of the best prices before fees, where books could be used.
    pub gross_ppb: i64,
    /// Buffers charged.
    pub buffers_ppm: i64,
    /// Age of the oldest leg's data.
    pub age_ns: i64,
    /// When it is told.
    pub at_ns: i64,
    /// What a control found, with the verdict [`Verdict::Control`].
    pub breach: Option<BreachReport>,
}

/// What a pre-trade control found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreachReport {
    /// Number of the control; see [`crate::controls::Control`].
    pub control: u8,
    /// Instrument of the order.
    pub instrument: u16,
    /// What was found.
    pub observed: i64,
    /// What is allowed.
    pub limit: i64,
}

impl Opportunity {
    /// Returns a moment of an evaluation that paid.
    #[must_use]
    pub fn new(phase: Phase, cycle: &Cycle, evaluation: &Evaluation, id: i64) -> Opportunity {
        let plan = &evaluation.plan;
        let (spent, brought) = match plan.orders() {
            [] => (Amount(0), Amount(0)),
            _ => (plan.input(), plan.output()),
        };
        Opportunity {
            phase,
            kind: cycle.kind,
            cycle: evaluation.cycle,
            id,
            best: false,
            start: cycle.start,
            net: evaluation.net,
            spent,
            brought,
            gross_ppb: evaluation.gross_ppb,
            buffers_ppm: evaluation.buffers_ppm,
            age_ns: evaluation.age_ns,
            first_ns: 0,
            last_ns: 0,
            best_ns: 0,
            times: 0,
            at_ns: 0,
            legs: [LegReport::default(); LEGS_MAX],
            leg_count: 0,
        }
    }

    /// Returns the legs told: at `Open` and `Update`.
    #[must_use]
    pub fn legs(&self) -> &[LegReport] {
        &self.legs[..usize::from(self.leg_count)]
    }

    /// Adds a leg.
    pub fn push_leg(&mut self, leg: LegReport) {
        self.legs[usize::from(self.leg_count)] = leg;
        self.leg_count += 1;
    }

    /// Writes the group; `cause` is the record that led to it, whose stamps go along.
    pub fn encode(&self, cause: &Record, mut emit: impl FnMut(Record)) {
        let first = self.legs().first().copied().unwrap_or_default();
        let base = Record {
            kind: Kind::Opportunity as u8,
            venue: first.venue,
            instrument: first.instrument,
            update_id: u64::from(self.cycle),
            engine_ts_ns: self.at_ns,
            ..stamps(cause)
        };
        let tags = i64::from(self.phase as u8)
            | i64::from(self.kind as u8) << 8
            | i64::from(self.leg_count) << 16
            | i64::from(self.best) << 24
            | i64::from(self.start.0) << 32;
        let count = HEAD + usize::from(self.leg_count);
        let mut part = |idx: usize, record: Record| {
            let more = if idx + 1 < count { flag::MORE } else { 0 };
            emit(Record { part: idx as u8, flags: flag::OUTPUT | more, ..record });
        };
        part(0, Record { data: [tags, self.id, self.net.0, self.spent.0], ..base });
        let data = [self.gross_ppb, self.buffers_ppm, self.brought.0, self.age_ns];
        part(1, Record { data, ..base });
        part(2, Record { data: [self.first_ns, self.last_ns, self.best_ns, self.times], ..base });
        for (idx, leg) in self.legs().iter().enumerate() {
            let place = i64::from(leg.side) | i64::from(leg.levels) << 8;
            let record = Record {
                venue: leg.venue,
                instrument: leg.instrument,
                update_id: leg.update_id,
                recv_ts_ns: leg.recv_ts_ns,
                data: [leg.px.0, leg.qty.0, leg.best_px.0, place],
                ..base
            };
            part(HEAD + idx, record);
        }
    }

    /// Reads a group back; nothing where the records are no such group.
    #[must_use]
    pub fn decode(group: &[Record]) -> Option<Opportunity> {
        let [head, middle, life, legs @ ..] = group else { return None };
        let tags = head.data[0];
        let leg_count = (tags >> 16) & 0xff;
        let in_order = group.iter().enumerate().all(|(idx, record)| {
            record.kind == Kind::Opportunity as u8 && usize::from(record.part) == idx
        });
        if !in_order || legs.len() != leg_count as usize || LEGS_MAX < legs.len() {
            return None;
        }
        let mut opportunity = Opportunity {
            phase: Phase::from_tag(tags & 0xff)?,
            kind: CycleKind::from_tag((tags >> 8) & 0xff)?,
            cycle: u32::try_from(head.update_id).ok()?,
            id: head.data[1],
            best: (tags >> 24) & 0xff != 0,
            start: AssetId((tags >> 32) as u16),
            net: Amount(head.data[2]),
            spent: Amount(head.data[3]),
            brought: Amount(middle.data[2]),
            gross_ppb: middle.data[0],
            buffers_ppm: middle.data[1],
            age_ns: middle.data[3],
            first_ns: life.data[0],
            last_ns: life.data[1],
            best_ns: life.data[2],
            times: life.data[3],
            at_ns: head.engine_ts_ns,
            legs: [LegReport::default(); LEGS_MAX],
            leg_count: 0,
        };
        for leg in legs {
            opportunity.push_leg(LegReport {
                instrument: leg.instrument,
                venue: leg.venue,
                side: (leg.data[3] & 0xff) as u8,
                levels: (leg.data[3] >> 8) as u32,
                px: Px(leg.data[0]),
                qty: Qty(leg.data[1]),
                best_px: Px(leg.data[2]),
                update_id: leg.update_id,
                recv_ts_ns: leg.recv_ts_ns,
            });
        }
        Some(opportunity)
    }
}

impl Denial {
    /// Writes the group.
    pub fn encode(&self, cause: &Record, mut emit: impl FnMut(Record)) {
        let base = Record {
            kind: Kind::Denial as u8,
            update_id: u64::from(self.cycle),
            engine_ts_ns: self.at_ns,
            ..stamps(cause)
        };
        let tags = i64::from(self.verdict as u8)
            | i64::from(self.kind as u8) << 8
            | i64::from(self.start.0) << 32;
        let data = [tags, self.times, self.net.0, self.spent.0];
        emit(Record { flags: flag::OUTPUT | flag::MORE, data, ..base });
        let data = [self.gross_ppb, self.buffers_ppm, self.age_ns, 0];
        let more = if self.breach.is_some() { flag::MORE } else { 0 };
        emit(Record { part: 1, flags: flag::OUTPUT | more, data, ..base });
        if let Some(breach) = self.breach {
            let data = [i64::from(breach.control), breach.observed, breach.limit, 0];
            let instrument = breach.instrument;
            emit(Record { part: 2, flags: flag::OUTPUT, data, instrument, ..base });
        }
    }

    /// Reads a group back; nothing where the records are no such group.
    #[must_use]
    pub fn decode(group: &[Record]) -> Option<Denial> {
        let [head, tail, rest @ ..] = group else { return None };
        if 1 < rest.len() || group.iter().any(|record| record.kind != Kind::Denial as u8) {
            return None;
        }
        let tags = head.data[0];
        Some(Denial {
            verdict: Verdict::from_tag(tags & 0xff)?,
            kind: CycleKind::from_tag((tags >> 8) & 0xff)?,
            cycle: u32::try_from(head.update_id).ok()?,
            times: head.data[1],
            start: AssetId((tags >> 32) as u16),
            net: Amount(head.data[2]),
            spent: Amount(head.data[3]),
            gross_ppb: tail.data[0],
            buffers_ppm: tail.data[1],
            age_ns: tail.data[2],
            at_ns: head.engine_ts_ns,
            breach: rest.first().map(|record| BreachReport {
                control: record.data[0] as u8,
                instrument: record.instrument,
                observed: record.data[1],
                limit: record.data[2],
            }),
        })
    }
}

/// Where the cause came from, in an output's provenance line.
fn stamps(cause: &Record) -> Record {
    Record {
        epoch: cause.epoch,
        pub_tsc: cause.pub_tsc,
        venue_ts_ns: cause.venue_ts_ns,
        recv_ts_ns: cause.recv_ts_ns,
        recv_tsc: cause.recv_tsc,
        conn: cause.conn,
        ring: cause.ring,
        ring_seq: cause.ring_seq,
        ..Record::default()
    }
}
