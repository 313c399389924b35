//! Counterfactuals: what every opportunity would have earned, taken or not, had its orders come a little later.
//!
//! Invariant: nothing here changes anything: the same venues' books are looked at, at the times at which the
//! orders would have arrived. Each leg is looked at once for each lateness; what one venue's lateness is worth
//! follows by putting together that venue's late legs with the others' punctual ones. Of the opportunities of one
//! step with the same start only the best counts, so that one depth is not earned twice at once. What a leg does
//! not fill is completed or taken back at the worse side when the last look is over.
//!
//! Not here: which opportunities there are (the engine).

use tandem_core::graph::LEGS_MAX;
use tandem_core::instrument::{AssetId, FeeIn, Universe};
use tandem_core::market::Market;
use tandem_core::order::Action;
use tandem_core::record::Venue;
use tandem_core::report::Opportunity;
use tandem_core::units::{PPM_PER_UNIT, Px, Side};
use tandem_core::value::{Bias, quote_of, shift_of};

use crate::books::Books;
use crate::outcome::{DecayPoint, ValueOfMs};

/// How much later than configured, microseconds. A negative one is earlier, never before the decision.
pub const LATE_US: [i64; 13] =
    [-1_000, 0, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];
/// Where in [`LATE_US`] punctual is.
const PUNCTUAL: usize = 1;
/// Where one millisecond is.
const ONE_MS: usize = 5;
/// Opportunities under way at once; more are counted as skipped.
const OPEN_MAX: usize = 4_096;

/// One opportunity, taken or not, as its orders would have found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterfactual {
    /// Its number in the run.
    pub opportunity: i64,
    /// Its cycle.
    pub cycle: u32,
    /// When it was first seen, UNIX ns.
    pub first_ns: i64,
    /// What it promised then, numeraire.
    pub expected: i64,
    /// By [`LATE_US`]: whether every leg would have filled whole, and what it would have earned.
    pub late: [(bool, i64); LATE_US.len()],
    /// By venue: the same with that venue's orders alone a millisecond later.
    pub venue_late: [i64; 3],
}

/// A leg at a time: base and quote that moved, both positive.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    qty: i64,
    quote: i128,
}

#[derive(Clone, Debug)]
struct Look {
    legs: [(u16, Action, Px, i64); LEGS_MAX],
    leg_count: usize,
    crossed_ns: i64,
    seen: [[Seen; LATE_US.len()]; LEGS_MAX],
    /// By leg: whether a millisecond earlier was possible.
    is_early: [bool; LEGS_MAX],
    missing: usize,
    opportunity: i64,
    cycle: u32,
    first_ns: i64,
    expected: i64,
}

/// When a leg is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// At this time.
    pub at_ns: i64,
    /// Which look.
    pub slot: u32,
    /// Which leg.
    pub leg: u8,
    /// Which lateness.
    pub late: u8,
}

/// All looks.
#[derive(Debug)]
pub struct Looks {
    slots: Vec<Option<Box<Look>>>,
    free: Vec<u32>,
    all: [DecayPoint; LATE_US.len()],
    by_venue: [[DecayPoint; LATE_US.len()]; 3],
    /// Opportunities by venue of which a leg there could have come a millisecond earlier.
    early: [bool; 3],
    is_seen: [bool; 3],
    /// Opportunities that found no room.
    pub skipped: u64,
}

impl Default for Looks {
    fn default() -> Looks {
        let points = || LATE_US.map(|late_us| DecayPoint { late_us, filled: 0, count: 0, net: 0 });
        Looks {
            slots: Vec::new(),
            free: Vec::new(),
            all: points(),
            by_venue: [points(), points(), points()],
            early: [true; 3],
            is_seen: [false; 3],
            skipped: 0,
        }
    }
}

impl Looks {
    /// Begins to follow an opportunity as first seen; `way_ns` is from the decision to each venue's book. Hands
    /// out when which leg is to be looked at.
    pub fn open(
        &mut self,
        (opportunity, expected): (&Opportunity, i64),
        universe: &Universe,
        (crossed_ns, now_ns): (i64, i64),
        way_ns: [i64; 3],
        mut due: impl FnMut(Due),
    ) {
        let legs = opportunity.legs();
        if !opportunity.best || legs.is_empty() || LEGS_MAX < legs.len() {
            return;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < OPEN_MAX => {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            }
            None => {
                self.skipped += 1;
                return;
            }
        };
        let mut look = Box::new(Look {
            legs: [(0, Action::Buy, Px(0), 0); LEGS_MAX],
            leg_count: legs.len(),
            crossed_ns,
            seen: [[Seen::default(); LATE_US.len()]; LEGS_MAX],
            is_early: [false; LEGS_MAX],
            missing: legs.len() * LATE_US.len(),
            opportunity: opportunity.id,
            cycle: opportunity.cycle,
            first_ns: now_ns,
            expected,
        });
        for (idx, leg) in legs.iter().enumerate() {
            let action = if leg.side == 1 { Action::Buy } else { Action::Sell };
            look.legs[idx] = (leg.instrument, action, leg.px, leg.qty.0);
            let venue = universe.instruments[usize::from(leg.instrument)].venue;
            let way_ns = way_ns[venue.idx()];
            look.is_early[idx] = 1_000_000 <= way_ns;
            for (late, us) in LATE_US.iter().enumerate() {
                let at_ns = now_ns + (way_ns + us * 1_000).max(0);
                due(Due { at_ns, slot, leg: idx as u8, late: late as u8 });
            }
        }
        self.slots[slot as usize] = Some(look);
    }

    /// Looks at one leg now; when it was the last one, the opportunity's worth is counted.
    pub fn look(
        &mut self,
        due: Due,
        (universe, books): (&Universe, &Books),
        fee_ppm: impl Fn(u16) -> i64,
        worth: impl Fn(&Market, AssetId, i128, Bias) -> Option<i128>,
    ) -> Option<Counterfactual> {
        let look = self.slots.get_mut(due.slot as usize)?.as_mut()?;
        let (instrument, action, px, wanted) = look.legs[usize::from(due.leg)];
        let rules = &universe.instruments[usize::from(instrument)];
        let shift = shift_of(universe, instrument);
        let buys = action == Action::Buy;
        let side = if buys { Side::Ask } else { Side::Bid };
        let mut seen = Seen::default();
        if books.is_usable(instrument, due.at_ns) {
            let others = books.others_ppm(due.at_ns - look.crossed_ns);
            books.offers((instrument, side), (others, due.at_ns), false, |offer| {
                let rest = wanted - seen.qty;
                if rest == 0 || action.is_worse(offer.px, px) {
                    return false;
                }
                let qty = rest.min(offer.qty.0);
                let qty = qty - qty % rules.lot.0;
                seen.qty += qty;
                seen.quote += quote_of(offer.px, qty, shift, buys);
                true
            });
        }
        look.seen[usize::from(due.leg)][usize::from(due.late)] = seen;
        look.missing -= 1;
        if look.missing != 0 {
            return None;
        }
        let look = self.slots[due.slot as usize].take()?;
        self.free.push(due.slot);
        Some(self.count(&look, universe, &fee_ppm, |asset, amount, bias| {
            worth(books.market(), asset, amount, bias)
        }))
    }

    fn count(
        &mut self,
        look: &Look,
        universe: &Universe,
        fee_ppm: &impl Fn(u16) -> i64,
        worth: impl Fn(AssetId, i128, Bias) -> Option<i128>,
    ) -> Counterfactual {
        let venue_of = |leg: usize| universe.instruments[usize::from(look.legs[leg].0)].venue.idx();
        let net = |late: &dyn Fn(usize) -> usize| -> (i64, bool) {
            let mut flows: Vec<(AssetId, i128)> = Vec::with_capacity(6);
            let mut is_whole = true;
            for leg in 0..look.leg_count {
                let (instrument, action, _, wanted) = look.legs[leg];
                let rules = &universe.instruments[usize::from(instrument)];
                let seen = look.seen[leg][late(leg)];
                is_whole &= seen.qty == wanted;
                let fee = |amount: i128| {
                    -((-amount * i128::from(fee_ppm(instrument)))
                        .div_euclid(i128::from(PPM_PER_UNIT)))
                };
                let (base, quote) = (i128::from(seen.qty), seen.quote);
                match action {
                    Action::Buy if rules.fee_in == FeeIn::Received => {
                        flows.extend([(rules.base, base - fee(base)), (rules.quote, -quote)]);
                    }
                    Action::Buy => {
                        flows.extend([(rules.base, base), (rules.quote, -quote - fee(quote))]);
                    }
                    Action::Sell => {
                        flows.extend([(rules.base, -base), (rules.quote, quote - fee(quote))]);
                    }
                }
            }
            flows.sort_by_key(|flow| flow.0);
            let mut sum = 0i128;
            let mut at = 0;
            while at < flows.len() {
                let asset = flows[at].0;
                let same = flows[at..].iter().take_while(|flow| flow.0 == asset);
                let (count, amount) =
                    same.fold((0, 0i128), |(count, sum), flow| (count + 1, sum + flow.1));
                at += count;
                sum += worth(asset, amount, Bias::Low).unwrap_or(0);
            }
            (crate::tally::quanta(sum), is_whole)
        };
        let add = |point: &mut DecayPoint, (net, is_whole): (i64, bool)| {
            point.count += 1;
            point.filled += u64::from(is_whole);
            point.net = point.net.saturating_add(net);
        };
        let all: [(i64, bool); LATE_US.len()] = std::array::from_fn(|late| net(&|_| late));
        let punctual = all[PUNCTUAL];
        for (point, of) in self.all.iter_mut().zip(all) {
            add(point, of);
        }
        let mut venue_late = [punctual.0; 3];
        for (venue, later) in venue_late.iter_mut().enumerate() {
            let legs = (0..look.leg_count).filter(|leg| venue_of(*leg) == venue);
            let (mut is_there, mut is_early) = (false, true);
            for leg in legs {
                (is_there, is_early) = (true, is_early && look.is_early[leg]);
            }
            self.is_seen[venue] |= is_there;
            self.early[venue] &= is_early;
            for (late, point) in self.by_venue[venue].iter_mut().enumerate() {
                let at = |leg: usize| if venue_of(leg) == venue { late } else { PUNCTUAL };
                let of = if is_there && late != PUNCTUAL { net(&at) } else { punctual };
                if late == ONE_MS {
                    *later = of.0;
                }
                add(point, of);
            }
        }
        let Look { opportunity, cycle, first_ns, expected, .. } = *look;
        let late = all.map(|(net, is_whole)| (is_whole, net));
        Counterfactual { opportunity, cycle, first_ns, expected, late, venue_late }
    }

    /// Returns what all opportunities are worth by lateness.
    #[must_use]
    pub fn decay(&self) -> Vec<DecayPoint> {
        self.all[PUNCTUAL..].to_vec()
    }

    /// Returns what a venue's latency is worth; nothing of a venue that no opportunity had a leg at.
    #[must_use]
    pub fn value_of_ms(&self, venue: Venue, span_ns: i64) -> Option<ValueOfMs> {
        let idx = venue.idx();
        let points = &self.by_venue[idx];
        if !self.is_seen[idx] {
            return None;
        }
        // One millisecond less where there is one to be had; else what one more would cost.
        let gain = match self.early[idx] {
            true => points[0].net - points[PUNCTUAL].net,
            false => points[PUNCTUAL].net - points[ONE_MS].net,
        };
        const DAY_NS: i128 = 86_400_000_000_000;
        let a_day = i128::from(gain) * DAY_NS / i128::from(span_ns.max(1));
        let first = if self.early[idx] { 0 } else { PUNCTUAL };
        Some(ValueOfMs {
            per_ms_day: crate::tally::quanta(a_day),
            points: points[first..].to_vec(),
        })
    }
}
