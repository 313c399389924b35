//! The books as they are at the venues: the same records as the engine's, at the venues' own time.
//!
//! Invariant: the same rules as the engine's quarantine: a book that is not proven in sync, half changed, crossed
//! or of an instrument that does not trade fills nothing. What our own orders took of a level is not there again
//! until the venue has shown the level anew and the time of recovery is over; what competitors take is a share of
//! what is displayed that only grows with the age of the crossing. In doubt less fills, never more.
//!
//! Not here: whose order it is and what it pays (`venue`).

use std::collections::BTreeMap;

use tandem_core::instrument::Universe;
use tandem_core::market::Market;
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{Kind, Record, TradingStatus, Venue, flag};
use tandem_core::units::{Px, Qty, Side};

use crate::config::{Competition, PPM};

/// What orders of ours took of a level.
#[derive(Clone, Copy, Debug)]
struct Taken {
    qty: i64,
    /// When the last of them did.
    at_ns: i64,
    /// The venue has shown that level since.
    is_shown: bool,
}

impl Taken {
    fn is_over(&self, recovery_ns: i64, now_ns: i64) -> bool {
        self.is_shown && self.at_ns.saturating_add(recovery_ns) <= now_ns
    }
}

/// Levels that are remembered: beyond that those go whose taking is longest ago.
const TAKEN_MAX: usize = 16_384;

/// What an order may take of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its price.
    pub px: Px,
    /// What is left for us.
    pub qty: Qty,
    /// What competitors have taken.
    pub others: Qty,
}

/// All venues' books.
#[derive(Debug)]
pub struct Books {
    market: Market,
    /// A venue's own book has no age there.
    params: VenueParams,
    /// By instrument, side and price.
    taken: BTreeMap<(u16, usize, i64), Taken>,
    recovery_ns: i64,
    competition: Competition,
    /// By venue: instruments of which a batch has begun.
    open: [Vec<u16>; 3],
    /// By venue: the engine's market has taken messages that these books have not.
    is_behind: [bool; 3],
}

impl Books {
    /// Returns books that nothing is known of.
    #[must_use]
    pub fn new(
        universe: &Universe,
        params: &Params,
        recovery_ns: i64,
        competition: Competition,
    ) -> Books {
        Books {
            market: Market::new(universe, params.window_levels),
            params: VenueParams { age_ns_max: i64::MAX, ..params.venues[0] },
            taken: BTreeMap::new(),
            recovery_ns,
            competition,
            open: Default::default(),
            is_behind: [false; 3],
        }
    }

    /// Returns the books.
    #[must_use]
    pub fn market(&self) -> &Market {
        debug_assert_eq!(
            self.is_behind, [false; 3],
            "somebody looks at books that are not up to date"
        );
        &self.market
    }

    /// Takes a market record at the venue's time, as the engine does at its own. What makes no sense puts its book in
    /// quarantine.
    pub fn take(&mut self, record: &Record) {
        let Some(venue) = Venue::from_tag(record.venue) else { return };
        let instrument = record.instrument;
        let state = self.market.instruments().get(usize::from(instrument));
        let is_ours = state.is_some_and(|state| state.venue == venue);
        let (conn, epoch) = (record.conn, record.epoch);
        match record.kind() {
            Some(Kind::Gap) => {
                self.market.lose(venue);
                self.open[venue.idx()].clear();
            }
            Some(Kind::Beat) => self.market.heard(venue, conn, epoch, record.data[0]),
            Some(Kind::Status) => {
                if let Some(status) = TradingStatus::from_tag(record.data[0]) {
                    self.market.set_venue_status(venue, status);
                }
            }
            Some(Kind::Trade) if is_ours => {
                self.market.heard(venue, conn, epoch, record.recv_ts_ns);
            }
            Some(Kind::InstrumentChange) if is_ours => {
                self.market.change(record);
            }
            Some(Kind::Level | Kind::Clear | Kind::Bbo | Kind::BookState) if is_ours => {
                self.market.heard(venue, conn, epoch, record.recv_ts_ns);
                let best = self.market.take(record);
                let open = &mut self.open[venue.idx()];
                if !open.contains(&instrument) {
                    open.push(instrument);
                }
                if let (Some(best), false) = (best, self.taken.is_empty()) {
                    self.shown(record, best);
                }
            }
            _ => {}
        }
        if record.has(flag::LAST) {
            for instrument in self.open[venue.idx()].drain(..) {
                self.market.get_mut(instrument).in_batch = false;
            }
        }
    }

    /// Returns whether the books have to take a message themselves. They do as long as orders of ours took levels that
    /// the venue has not shown anew since: nobody else knows what it shows of them. And the engine does not hear of
    /// what happens to trading while it is deaf.
    #[must_use]
    #[inline]
    pub fn needs(&self, kind: Option<Kind>) -> bool {
        !self.taken.is_empty() || matches!(kind, Some(Kind::Status | Kind::InstrumentChange))
    }

    /// Notes that a message was left out that the engine's market takes at this moment.
    #[inline]
    pub fn skip(&mut self, venue: Venue) {
        self.is_behind[venue.idx()] = true;
    }

    /// Makes up for the messages of a venue that were left out, from the engine's market: it must have taken all those
    /// that these books took, and those that they left out.
    pub fn catch_up(&mut self, venue: Venue, market: &Market) {
        if !std::mem::take(&mut self.is_behind[venue.idx()]) {
            return;
        }
        self.market.adopt(venue, market);
        let ids =
            (0..market.instruments().len() as u16).filter(|id| market.get(*id).venue == venue);
        let open = &mut self.open[venue.idx()];
        open.clear();
        open.extend(ids.filter(|id| market.get(*id).in_batch));
    }

    /// A book record shows levels anew.
    fn shown(&mut self, record: &Record, best: [bool; 2]) {
        let (instrument, now_ns) = (record.instrument, record.recv_ts_ns);
        match record.kind() {
            Some(Kind::Level) => {
                let level = Side::from_idx(record.data[2]).map(|side| (side, Px(record.data[0])));
                self.show(instrument, level, now_ns);
            }
            Some(Kind::Bbo) => {
                for side in Side::BOTH.into_iter().filter(|side| best[side.idx()]) {
                    let level = self.market.get(instrument).book.best(side);
                    self.show(instrument, level.map(|level| (side, level.px)), now_ns);
                }
            }
            Some(Kind::Clear) => self.show(instrument, None, now_ns),
            _ => {}
        }
    }

    /// The venue shows a level anew, or all of a book.
    fn show(&mut self, instrument: u16, level: Option<(Side, Px)>, now_ns: i64) {
        let recovery_ns = self.recovery_ns;
        match level {
            Some((side, px)) => {
                let key = (instrument, side.idx(), px.0);
                if let Some(taken) = self.taken.get_mut(&key) {
                    taken.is_shown = true;
                    if taken.is_over(recovery_ns, now_ns) {
                        self.taken.remove(&key);
                    }
                }
            }
            None => self.taken.retain(|key, taken| {
                taken.is_shown |= key.0 == instrument;
                !taken.is_over(recovery_ns, now_ns)
            }),
        }
    }

    fn taken(&self, instrument: u16, side: Side, px: Px, now_ns: i64) -> i64 {
        let taken = self.taken.get(&(instrument, side.idx(), px.0));
        taken.filter(|taken| !taken.is_over(self.recovery_ns, now_ns)).map_or(0, |taken| taken.qty)
    }

    /// Notes that an order of ours took something.
    pub fn took(&mut self, instrument: u16, side: Side, px: Px, qty: Qty, now_ns: i64) {
        if TAKEN_MAX <= self.taken.len() {
            let mut ages: Vec<i64> = self.taken.values().map(|taken| taken.at_ns).collect();
            ages.sort_unstable();
            let half = ages[ages.len() / 2];
            self.taken.retain(|_, taken| half < taken.at_ns);
        }
        let none = Taken { qty: 0, at_ns: now_ns, is_shown: false };
        let taken = self.taken.entry((instrument, side.idx(), px.0)).or_insert(none);
        if taken.is_over(self.recovery_ns, now_ns) {
            taken.qty = 0;
        }
        *taken = Taken { qty: taken.qty.saturating_add(qty.0), ..none };
    }

    /// Returns whether an instrument's book may fill anything.
    #[must_use]
    pub fn is_usable(&self, instrument: u16, now_ns: i64) -> bool {
        let venue = self.market().get(instrument).venue;
        self.market().usable(venue, instrument, &self.params, now_ns).is_ok()
    }

    /// Returns the share of displayed depth that others have taken of a crossing of this age.
    #[must_use]
    pub fn others_ppm(&self, age_ns: i64) -> u32 {
        let Competition { share_ppm, ramp_us } = self.competition;
        let ramp_ns = i64::from(ramp_us) * 1_000;
        if ramp_ns <= age_ns.max(0) {
            return share_ppm.min(PPM);
        }
        // Towards them: rounded up.
        let part = i128::from(share_ppm.min(PPM)) * i128::from(age_ns.max(0));
        -((-part).div_euclid(i128::from(ramp_ns))) as u32
    }

    /// Hands out what may be taken on a side, best first, until `each` says stop; `with_own` leaves out what our
    /// own orders took.
    pub fn offers(
        &self,
        (instrument, side): (u16, Side),
        (others_ppm, now_ns): (u32, i64),
        with_own: bool,
        mut each: impl FnMut(Offer) -> bool,
    ) {
        for level in self.market().get(instrument).book.levels(side) {
            let own = match with_own && !self.taken.is_empty() {
                true => self.taken(instrument, side, level.px, now_ns),
                false => 0,
            };
            let shown = (level.qty.0 - own).max(0);
            let part = i128::from(level.qty.0) * i128::from(others_ppm);
            let others = (-((-part).div_euclid(i128::from(PPM)))) as i64;
            let others = others.min(shown);
            let offer = Offer { px: level.px, qty: Qty(shown - others), others: Qty(others) };
            if !each(offer) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tandem_core::engine::{Engine, OUTBOX_RECORDS};
    use tandem_core::episode::Outbox;

    use tandem_core::record::BookState;

    use super::*;
    use crate::desk;
    use crate::dice::{Dice, For};

    const RECORDS: i64 = 20_000;

    /// Anything that may stand in a recording, sound or not.
    fn record(dice: &mut Dice, at_ns: i64) -> Record {
        let mut below = |n: u64| dice.below(n) as i64;
        let kinds = [Kind::Bbo, Kind::Clear, Kind::BookState, Kind::Status, Kind::InstrumentChange];
        let rare = [Kind::Gap, Kind::Beat, Kind::Trade];
        let kind = match below(10) {
            0 => kinds[below(5) as usize],
            1 => rare[below(3) as usize],
            _ => Kind::Level,
        };
        let instrument = below(6) as u16;
        let venue = if below(20) == 0 { below(5) as u8 } else { 1 + instrument.min(2) as u8 };
        let is_odd = below(30) == 0;
        let side = if is_odd { below(3) } else { below(2) };
        let status = if below(8) == 0 { below(6) } else { TradingStatus::Trading as i64 };
        let live = BookState::Live as i64;
        let data = match kind {
            Kind::Level if is_odd => [below(40), below(9) - 1, side, 0],
            Kind::Level => [1 + 20 * side + below(20), below(9), side, 0],
            Kind::Bbo => [1 + below(20), below(4), 21 + below(20), below(8) - i64::from(is_odd)],
            Kind::Beat => [at_ns, 0, 0, 0],
            Kind::BookState => [if below(4) == 0 { below(7) - 1 } else { live }, 0, 0, 0],
            _ => [status, below(20), 1, 1],
        };
        Record {
            flags: if below(3) == 0 { flag::LAST } else { 0 },
            conn: below(3) as u32,
            epoch: below(2) as u16,
            update_id: below(100) as u64,
            venue_ts_ns: below(2) * at_ns,
            recv_ts_ns: at_ns,
            engine_ts_ns: at_ns,
            ..Record::new(kind, venue, instrument, data)
        }
    }

    #[test]
    fn catching_up_is_having_taken_everything() {
        let universe = desk::universe(true);
        let params = Params { window_levels: 8, ..desk::params() };
        let none = Competition { share_ppm: 0, ramp_us: 0 };
        let books = || Books::new(&universe, &params, 0, none);
        let (mut eager, mut lazy) = (books(), books());
        let mut engine = Engine::new(universe.clone(), params.clone()).expect("a sound plan");
        let mut out = Outbox::new(OUTBOX_RECORDS);
        let mut dice = Dice::new(5, For::Lost, 0);
        let (mut looks, mut usable) = (0, 0);
        for at_ns in 1..=RECORDS {
            let record = record(&mut dice, at_ns);
            engine.step(&record, &mut out);
            out.clear();
            eager.take(&record);
            match Venue::from_tag(record.venue) {
                // Some it takes itself: it must be able to go on from either.
                Some(_) if dice.chance(PPM / 2) && lazy.is_behind == [false; 3] => {
                    lazy.take(&record);
                }
                Some(_) if lazy.needs(record.kind()) => lazy.take(&record),
                Some(venue) => lazy.skip(venue),
                None => {}
            }
            if !dice.chance(PPM / 5) {
                continue;
            }
            Venue::ALL.into_iter().for_each(|venue| lazy.catch_up(venue, engine.market()));
            looks += 1;
            for id in 0..universe.instruments.len() as u16 {
                let (a, b) = (eager.market(), lazy.market());
                let venue = a.get(id).venue;
                let of = |market: &Market| {
                    let state = market.get(id);
                    let sides = Side::BOTH.map(|side| state.book.levels(side).collect::<Vec<_>>());
                    let flags = (state.state, state.trading, state.in_batch, state.update_id);
                    let stamps = (state.venue_ts_ns, market.age_ns(venue, id, at_ns));
                    (sides, flags, stamps, market.conn(id), market.venue_trades(venue))
                };
                assert_eq!(of(a), of(b), "record {at_ns}, instrument {id}");
                usable += u32::from(lazy.is_usable(id, at_ns));
            }
            let sorted = |books: &Books| books.open.clone().map(BTreeSet::from_iter);
            assert_eq!(sorted(&eager), sorted(&lazy), "record {at_ns}");
        }
        assert!(1_000 < looks && 50 < usable, "{looks} looks, {usable} usable books");
    }
}
