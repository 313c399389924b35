//! The books as they are at the venues: the same records as the engine's, at the venues' own time.
//!
//! Invariant: the same rules as the engine's quarantine: a book that is not proven in sync, half changed, crossed
//! or of an instrument that does not trade fills nothing. What our own orders took of a level is not there again
//! until the venue has shown the level anew and the time of recovery is over; what competitors take is a share of
//! what is displayed that only grows with the age of the crossing. In doubt less fills, never more.
//!
//! Not here: whose order it is and what it pays (`venue`).

use std::collections::BTreeMap;

use tandem_core::book::Level;
use tandem_core::instrument::Universe;
use tandem_core::market::Market;
use tandem_core::params::{Params, VenueParams};
use tandem_core::record::{BookState, Kind, Record, TradingStatus, Venue};
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
    params: [VenueParams; 3],
    venues: Vec<Venue>,
    /// By instrument, side and price.
    taken: BTreeMap<(u16, usize, i64), Taken>,
    recovery_ns: i64,
    competition: Competition,
    /// Books that came into quarantine.
    pub quarantines: u64,
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
        // A venue's own book has no age there.
        let venue = VenueParams { age_ns_max: i64::MAX, ..params.venues[0] };
        Books {
            market: Market::new(universe, params.window_levels),
            params: [venue; 3],
            venues: universe.instruments.iter().map(|rules| rules.venue).collect(),
            taken: BTreeMap::new(),
            recovery_ns,
            competition,
            quarantines: 0,
        }
    }

    /// Returns the books.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// Takes a market record at the venue's time. What makes no sense puts its book in quarantine.
    pub fn take(&mut self, record: &Record) {
        let kind = record.kind();
        if kind == Some(Kind::Gap) {
            for instrument in 0..self.venues.len() {
                if self.venues[instrument] as u8 == record.venue {
                    self.quarantine(instrument as u16);
                }
            }
            return;
        }
        if kind == Some(Kind::Status) {
            let told = TradingStatus::from_tag(record.data[0]);
            if let (Some(venue), Some(status)) = (Venue::from_tag(record.venue), told) {
                self.market.set_venue_status(venue, status);
            }
            return;
        }
        let instrument = record.instrument;
        let Some(venue) = self.venues.get(usize::from(instrument)).copied() else { return };
        if venue as u8 != record.venue {
            return;
        }
        self.market.heard(venue, record.conn, record.epoch, record.recv_ts_ns);
        self.market.fed_by(instrument, record.conn, record.epoch);
        let is_sound = match kind {
            Some(Kind::Level) => self.set_level(record),
            Some(Kind::Bbo) => self.set_bbo(record),
            Some(Kind::Clear) => {
                self.market.get_mut(instrument).book.clear();
                self.show(instrument, None, record.recv_ts_ns);
                true
            }
            Some(Kind::BookState) => {
                let told = BookState::from_tag(record.data[0]);
                let fallback = record.has(tandem_core::record::flag::FALLBACK);
                let state = match told {
                    Some(BookState::Live) if fallback => BookState::Fallback,
                    Some(state) => state,
                    None => BookState::Stale,
                };
                let is_now = state != BookState::Live;
                let was = self.market.get(instrument).state == BookState::Live;
                self.market.get_mut(instrument).state = state;
                self.quarantines += u64::from(was && is_now);
                told.is_some()
            }
            Some(Kind::InstrumentChange) => {
                let status = TradingStatus::from_tag(record.data[0]);
                self.market.get_mut(instrument).trading = status.unwrap_or(TradingStatus::Halted);
                return;
            }
            _ => return,
        };
        if !is_sound {
            self.quarantine(instrument);
        }
        let state = self.market.get_mut(instrument);
        state.in_batch = !record.has(tandem_core::record::flag::LAST);
        state.venue_ts_ns = record.venue_ts_ns;
    }

    fn quarantine(&mut self, instrument: u16) {
        let state = self.market.get_mut(instrument);
        self.quarantines += u64::from(state.state == BookState::Live);
        state.state = BookState::Stale;
        state.in_batch = false;
    }

    fn set_level(&mut self, record: &Record) -> bool {
        let [px, qty, side, _] = record.data;
        let Some(side) = Side::from_idx(side) else { return false };
        if px <= 0 || qty < 0 {
            return false;
        }
        self.market.get_mut(record.instrument).book.set(side, Px(px), Qty(qty));
        self.show(record.instrument, Some((side, Px(px))), record.recv_ts_ns);
        true
    }

    fn set_bbo(&mut self, record: &Record) -> bool {
        let [bid, bid_qty, ask, ask_qty] = record.data;
        for (side, px, qty) in [(Side::Bid, bid, bid_qty), (Side::Ask, ask, ask_qty)] {
            let level = match (px, qty) {
                (_, 0) => None,
                (px, qty) if 0 < px && 0 < qty => Some(Level { px: Px(px), qty: Qty(qty) }),
                _ => return false,
            };
            let book = &mut self.market.get_mut(record.instrument).book;
            let was = book.best(side);
            if book.set_best(side, level) || was != level {
                self.show(
                    record.instrument,
                    level.map(|level| (side, level.px)),
                    record.recv_ts_ns,
                );
            }
        }
        true
    }

    /// The venue shows a level anew, or all of a book.
    fn show(&mut self, instrument: u16, level: Option<(Side, Px)>, now_ns: i64) {
        if self.taken.is_empty() {
            return;
        }
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
        let venue = self.venues[usize::from(instrument)];
        self.market.usable(venue, instrument, &self.params[venue.idx()], now_ns).is_ok()
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
        for level in self.market.get(instrument).book.levels(side) {
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
