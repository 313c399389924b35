//! One opportunity's life: first seen, best, last seen, gone.
//!
//! Invariant: a cycle has at most one open episode. It opens when the cycle pays, stays open while it
//! comes back within `flicker_ns`, and ends once; what is told in between is bounded in rate, and what
//! is not told is in the numbers of the end. So flicker cannot flood the journal, and nothing is lost.
//!
//! Not here: whether a cycle pays (`detector`).

use alloc::vec;
use alloc::vec::Vec;

use crate::detector::{Evaluation, Verdict};
use crate::graph::Cycle;
use crate::params::Params;
use crate::record::Record;
use crate::report::{Denial, Opportunity, Phase};
use crate::units::Amount;

/// Most opportunities open at the same time; one more is counted and not followed.
const OPEN_MAX: usize = 4_096;

/// An update is told when the net gain exceeds the last one told by an eighth.
const BETTER_SHIFT: u32 = 3;

const NO_SLOT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Episode {
    cycle: u32,
    id: i64,
    first_ns: i64,
    last_ns: i64,
    best_ns: i64,
    times: i64,
    best: Evaluation,
    told_ns: i64,
    told_net: Amount,
    /// When it was first seen not to pay; 0 while it pays.
    gone_ns: i64,
    /// It ended and waits only for its second look; its cycle may have another episode by now.
    closed: bool,
    /// When the books are looked at again; 0 once that was done.
    after_ns: i64,
}

/// Denials of one cycle and verdict.
#[derive(Clone, Copy, Debug)]
struct Denied {
    told_ns: i64,
    /// Candidates since the last record.
    pending: i64,
}

/// All episodes and what was denied. Not `Clone`: a copied vector has no room to spare, and the copy would
/// follow nothing.
#[derive(Debug)]
pub struct Episodes {
    open: Vec<Episode>,
    /// Most entries of `open`, set once; a vector's own capacity may be larger than asked for, and what
    /// is followed must not depend on the allocator.
    open_max: usize,
    slot: Vec<u32>,
    /// By cycle, then by verdict in the order of [`Verdict::ALL`].
    denied: Vec<[Denied; Verdict::ALL.len()]>,
    next_id: i64,
    untracked: u64,
}

/// What became of an evaluation that pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A new opportunity; it must be told with its legs.
    Opened,
    /// Better than what was told last, and it is time to tell; with its legs.
    Better,
    /// Known, or too many are open.
    Known,
}

impl Episodes {
    /// Returns no episodes; nothing is allocated afterwards.
    #[must_use]
    pub fn new(cycle_count: usize) -> Episodes {
        Episodes {
            // Twice: for each one open, another that ended may still wait for its second look.
            open: Vec::with_capacity(2 * cycle_count.min(OPEN_MAX)),
            open_max: 2 * cycle_count.min(OPEN_MAX),
            slot: vec![NO_SLOT; cycle_count],
            denied: vec![
                [Denied { told_ns: i64::MIN, pending: 0 }; Verdict::ALL.len()];
                cycle_count
            ],
            next_id: 1,
            untracked: 0,
        }
    }

    /// Returns how many positions [`Episodes::open_cycle`] knows.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.open.len()
    }

    /// Returns the cycle of the episode at a position, where it has not ended.
    #[must_use]
    pub fn open_cycle(&self, position: usize) -> Option<u32> {
        self.open.get(position).filter(|episode| !episode.closed).map(|episode| episode.cycle)
    }

    /// Returns the cycle of the episode at a position, ended or not.
    #[must_use]
    pub fn cycle(&self, position: usize) -> u32 {
        self.open[position].cycle
    }

    /// Returns how many opportunities are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.iter().filter(|episode| !episode.closed).count()
    }

    /// Returns how many opportunities were not followed because too many were open.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Notes that a cycle pays.
    pub fn pays(
        &mut self,
        evaluation: &Evaluation,
        params: &Params,
        latency_ns: i64,
        now_ns: i64,
    ) -> Seen {
        let slot = self.slot[evaluation.cycle as usize];
        if slot == NO_SLOT {
            return self.open(evaluation, latency_ns, now_ns);
        }
        let episode = &mut self.open[slot as usize];
        episode.gone_ns = 0;
        episode.last_ns = now_ns;
        episode.times += 1;
        if episode.best.net < evaluation.net {
            episode.best = *evaluation;
            episode.best_ns = now_ns;
        }
        let step = Amount((episode.told_net.0 >> BETTER_SHIFT).max(1));
        let better = episode.told_net.0.saturating_add(step.0) <= evaluation.net.0;
        if better && params.update_ns <= now_ns - episode.told_ns {
            (episode.told_ns, episode.told_net) = (now_ns, evaluation.net);
            return Seen::Better;
        }
        Seen::Known
    }

    fn open(&mut self, evaluation: &Evaluation, latency_ns: i64, now_ns: i64) -> Seen {
        if self.open.len() == self.open_max {
            self.untracked += 1;
            return Seen::Known;
        }
        self.slot[evaluation.cycle as usize] = self.open.len() as u32;
        self.open.push(Episode {
            cycle: evaluation.cycle,
            id: self.next_id,
            first_ns: now_ns,
            last_ns: now_ns,
            best_ns: now_ns,
            times: 1,
            best: *evaluation,
            told_ns: now_ns,
            told_net: evaluation.net,
            gone_ns: 0,
            closed: false,
            after_ns: now_ns.saturating_add(latency_ns),
        });
        self.next_id += 1;
        Seen::Opened
    }

    /// Notes that a cycle does not pay now.
    pub fn fails(&mut self, cycle: u32, now_ns: i64) {
        let slot = self.slot[cycle as usize];
        if slot != NO_SLOT {
            let episode = &mut self.open[slot as usize];
            if episode.gone_ns == 0 {
                episode.gone_ns = now_ns;
            }
        }
    }

    /// Returns the id of a cycle's open opportunity; 0 where none is followed.
    #[must_use]
    pub fn id(&self, cycle: u32) -> u64 {
        match self.slot[cycle as usize] {
            NO_SLOT => 0,
            slot => self.open[slot as usize].id as u64,
        }
    }

    /// Fills in an opportunity's id and life.
    pub fn tell(&self, opportunity: &mut Opportunity) {
        let slot = self.slot[opportunity.cycle as usize];
        if slot != NO_SLOT {
            self.open[slot as usize].tell(opportunity);
        }
    }

    /// Returns the position of an episode whose second look is due, if any.
    #[must_use]
    pub fn look_due(&self, now_ns: i64) -> Option<usize> {
        self.open.iter().position(|e| e.after_ns != 0 && e.after_ns <= now_ns)
    }

    /// Takes the second look's result and returns what to tell.
    pub fn looked(&mut self, position: usize, cycle: &Cycle, then: &Evaluation) -> Opportunity {
        let episode = &mut self.open[position];
        episode.after_ns = 0;
        let mut opportunity = Opportunity::new(Phase::After, cycle, then, episode.id);
        if then.verdict != Verdict::Pays {
            (opportunity.net, opportunity.spent, opportunity.brought) =
                (Amount(0), Amount(0), Amount(0));
        }
        episode.tell(&mut opportunity);
        if episode.closed {
            self.forget(position);
        }
        opportunity
    }

    /// Ends one episode that has been gone for `flicker_ns`, if any, and returns what to tell.
    pub fn end_one(
        &mut self,
        cycles: &[Cycle],
        params: &Params,
        now_ns: i64,
    ) -> Option<Opportunity> {
        let over =
            |e: &Episode| !e.closed && e.gone_ns != 0 && params.flicker_ns <= now_ns - e.gone_ns;
        let position = self.open.iter().position(over)?;
        let episode = &mut self.open[position];
        episode.closed = true;
        self.slot[episode.cycle as usize] = NO_SLOT;
        let cycle = &cycles[episode.cycle as usize];
        let mut opportunity = Opportunity::new(Phase::Close, cycle, &episode.best, episode.id);
        episode.tell(&mut opportunity);
        if episode.after_ns == 0 {
            self.forget(position);
        }
        Some(opportunity)
    }

    /// Counts a denial, and returns a record for it where it is time to tell.
    pub fn denied(
        &mut self,
        evaluation: &Evaluation,
        cycle: &Cycle,
        params: &Params,
        now_ns: i64,
    ) -> Option<Denial> {
        let verdict = Verdict::ALL.iter().position(|known| *known == evaluation.verdict)?;
        let denied = &mut self.denied[evaluation.cycle as usize][verdict];
        denied.pending += 1;
        if now_ns.saturating_sub(denied.told_ns) < params.denial_ns {
            return None;
        }
        let times = denied.pending;
        *denied = Denied { told_ns: now_ns, pending: 0 };
        let sized = !evaluation.plan.orders().is_empty();
        Some(Denial {
            verdict: evaluation.verdict,
            kind: cycle.kind,
            cycle: evaluation.cycle,
            times,
            start: cycle.start,
            net: evaluation.net,
            spent: if sized { evaluation.plan.input() } else { Amount(0) },
            gross_ppb: evaluation.gross_ppb,
            buffers_ppm: evaluation.buffers_ppm,
            age_ns: evaluation.age_ns,
            at_ns: now_ns,
            breach: None,
        })
    }

    fn forget(&mut self, position: usize) {
        debug_assert!(self.open[position].closed, "only what ended is forgotten");
        self.open.swap_remove(position);
        if let Some(moved) = self.open.get(position).filter(|moved| !moved.closed) {
            self.slot[moved.cycle as usize] = position as u32;
        }
    }
}

impl Episode {
    fn tell(&self, opportunity: &mut Opportunity) {
        opportunity.id = self.id;
        opportunity.first_ns = self.first_ns;
        opportunity.last_ns = self.last_ns;
        opportunity.best_ns = self.best_ns;
        opportunity.times = self.times;
    }
}

/// What the engine hands out: records in order, into room that was allocated at start.
#[derive(Debug)]
pub struct Outbox {
    records: Vec<Record>,
    /// Most records of a step, set once: what is cut must not depend on the allocator.
    capacity: usize,
    lost: u64,
}

impl Outbox {
    /// Returns an outbox with room for `capacity` records a step.
    #[must_use]
    pub fn new(capacity: usize) -> Outbox {
        Outbox { records: Vec::with_capacity(capacity), capacity, lost: 0 }
    }

    /// Adds a record, or counts it as lost where there is no room: the host must say so (`Gap`).
    #[inline]
    pub fn push(&mut self, record: Record) {
        if self.records.len() < self.capacity {
            self.records.push(record);
        } else {
            self.lost += 1;
        }
    }

    /// Returns what was put in since the last [`Outbox::clear`].
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Returns how many records found no room since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Empties it; its room stays.
    pub fn clear(&mut self) {
        self.records.clear();
    }
}
