//! What the engine knows of every instrument now: its book and whether the book may be used.
//!
//! Invariant: a book is usable only while all of this holds: its handler says `Live`, no batch is half
//! applied, it is not crossed, the venue and the instrument take orders, no control halted it, and something was received
//! on its connection within the venue's `age_ns_max` before the engine's now. Age is judged when the
//! book is used, not by a timer, so a handler that is stopped or dead makes no opportunity.

use alloc::vec::Vec;

use crate::book::{Book, Change, Level};
use crate::instrument::{AssetId, Universe};
use crate::params::VenueParams;
use crate::record::{BookState, Kind, Record, TradingStatus, Venue, flag};
use crate::units::{Px, Qty, Side};

/// Connections remembered a venue. Ids count up; older ones than this are forgotten, and a book that
/// still names one has no age and cannot be used.
const CONNECTIONS: usize = 64;

/// Everything known of one instrument.
#[derive(Clone, Debug)]
pub struct InstrumentState {
    /// Its venue.
    pub venue: Venue,
    /// Best levels of the venue's book.
    pub book: Book,
    /// What the handler says of it.
    pub state: BookState,
    /// Whether it takes orders.
    pub trading: TradingStatus,
    /// Halted by a control until this time; `i64::MAX` is until an operator releases it.
    pub halted_until_ns: i64,
    /// A batch began and has not ended.
    pub in_batch: bool,
    /// The venue's id of the last change.
    pub update_id: u64,
    /// The venue's time of the last change.
    pub venue_ts_ns: i64,
    /// When its last change was received.
    pub recv_ts_ns: i64,
    /// Orders of ours take from it: what is left is in `reduced`.
    pub own: bool,
    /// The book without what our own orders take; only right while `own`.
    pub reduced: Book,
    conn: u32,
    epoch: u16,
}

impl InstrumentState {
    /// Returns the depth that others offer: the book without what our own orders take.
    #[inline]
    #[must_use]
    pub fn depth(&self) -> &Book {
        if self.own { &self.reduced } else { &self.book }
    }

    /// Returns the middle of best bid and ask, rounded down; nothing where a side is empty.
    #[must_use]
    pub fn mid(&self) -> Option<i64> {
        let (bid, ask) = (self.book.best(Side::Bid)?.px.0, self.book.best(Side::Ask)?.px.0);
        Some(bid + (ask - bid).div_euclid(2))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    conn: u32,
    epoch: u16,
    last_ns: i64,
}

#[derive(Clone, Debug)]
struct VenueState {
    trading: TradingStatus,
    connections: [Connection; CONNECTIONS],
}

/// All instruments and venues.
#[derive(Clone, Debug)]
pub struct Market {
    instruments: Vec<InstrumentState>,
    venues: [VenueState; 3],
    /// Instruments by base and quote, sorted, for the consolidated view.
    pairs: Vec<(AssetId, AssetId, u16)>,
}

/// Why a book may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Its handler does not say `Live`, a batch is half applied, or it is crossed.
    NotLive,
    /// The venue or the instrument does not take orders.
    Status,
    /// A control halted it.
    Halted,
    /// Nothing was received for too long.
    Stale {
        /// How long, at the engine's now.
        age_ns: i64,
    },
}

impl Market {
    /// Returns a market without any data.
    #[must_use]
    pub fn new(universe: &Universe, window_levels: usize) -> Market {
        let instruments = universe.instruments.iter().map(|rules| InstrumentState {
            venue: rules.venue,
            book: Book::new(window_levels),
            state: BookState::Init,
            trading: rules.status,
            halted_until_ns: 0,
            in_batch: false,
            update_id: 0,
            venue_ts_ns: 0,
            recv_ts_ns: 0,
            own: false,
            reduced: Book::new(window_levels),
            conn: 0,
            epoch: 0,
        });
        let mut pairs: Vec<_> = universe
            .instruments
            .iter()
            .enumerate()
            .map(|(id, rules)| (rules.base, rules.quote, id as u16))
            .collect();
        pairs.sort_unstable();
        let venue = || VenueState {
            trading: TradingStatus::Trading,
            connections: [Connection::default(); CONNECTIONS],
        };
        Market { instruments: instruments.collect(), venues: [venue(), venue(), venue()], pairs }
    }

    /// Returns an instrument's state. The id must be one of the universe.
    #[inline]
    #[must_use]
    pub fn get(&self, instrument: u16) -> &InstrumentState {
        &self.instruments[usize::from(instrument)]
    }

    /// Returns an instrument's state to change it.
    #[inline]
    pub fn get_mut(&mut self, instrument: u16) -> &mut InstrumentState {
        &mut self.instruments[usize::from(instrument)]
    }

    /// Returns every instrument's state; the index is the id.
    #[must_use]
    pub fn instruments(&self) -> &[InstrumentState] {
        &self.instruments
    }

    /// Notes that something was received on a connection.
    #[inline]
    pub fn heard(&mut self, venue: Venue, conn: u32, epoch: u16, recv_ns: i64) {
        let slot = &mut self.venues[venue.idx()].connections[conn as usize % CONNECTIONS];
        if slot.conn == conn && slot.epoch == epoch {
            slot.last_ns = slot.last_ns.max(recv_ns);
        } else {
            *slot = Connection { conn, epoch, last_ns: recv_ns };
        }
    }

    /// Notes which connection feeds an instrument.
    #[inline]
    pub fn fed_by(&mut self, instrument: u16, conn: u32, epoch: u16) {
        let state = self.get_mut(instrument);
        state.conn = conn;
        state.epoch = epoch;
    }

    /// Returns the connection and epoch that an instrument is fed by.
    #[must_use]
    pub fn conn(&self, instrument: u16) -> (u32, u16) {
        let state = self.get(instrument);
        (state.conn, state.epoch)
    }

    /// Takes a `Level`, `Clear`, `Bbo` or `BookState` of an instrument: a batch of it has begun. Returns which side's
    /// best changed; nothing where the record makes no sense: then the book is stale.
    #[inline]
    pub fn take(&mut self, record: &Record) -> Option<[bool; 2]> {
        self.fed_by(record.instrument, record.conn, record.epoch);
        let state = self.get_mut(record.instrument);
        state.in_batch = true;
        state.update_id = record.update_id;
        state.recv_ts_ns = record.recv_ts_ns;
        if record.venue_ts_ns != 0 {
            state.venue_ts_ns = record.venue_ts_ns;
        }
        let best = match record.kind() {
            Some(Kind::Level) => set_level(&mut state.book, &record.data),
            Some(Kind::Bbo) => set_bbo(&mut state.book, &record.data),
            Some(Kind::Clear) => {
                state.book.clear();
                Some([true, true])
            }
            Some(Kind::BookState) => BookState::from_tag(record.data[0]).map(|told| {
                let is_fallback = told == BookState::Live && record.has(flag::FALLBACK);
                state.state = if is_fallback { BookState::Fallback } else { told };
                [true, true]
            }),
            _ => None,
        };
        if best.is_none() {
            state.state = BookState::Stale;
        }
        best
    }

    /// Takes an `InstrumentChange`: whether it takes orders from now on. Rules that make no sense halt it: doubt does
    /// not trade. Returns whether they do; nothing where the status is none that we know, and nothing changed.
    pub fn change(&mut self, record: &Record) -> Option<bool> {
        let [status, tick, lot, notional_min] = record.data;
        let status = TradingStatus::from_tag(status)?;
        let is_sound = 0 < tick && 0 < lot && 0 <= notional_min;
        let state = self.get_mut(record.instrument);
        state.trading = if is_sound { status } else { TradingStatus::Halted };
        Some(is_sound)
    }

    /// Records of a venue were lost: none of its books is proven any more.
    pub fn lose(&mut self, venue: Venue) {
        for state in self.instruments.iter_mut().filter(|state| state.venue == venue) {
            state.state = BookState::Stale;
            state.in_batch = false;
        }
    }

    /// Makes a venue's books, and what is known of their age, those of another market of the same universe. That one
    /// must have taken the very book records of the venue that this one has and those it has missed. Whether anything
    /// trades, and what our own orders and controls did, is left as it is.
    pub fn adopt(&mut self, venue: Venue, from: &Market) {
        self.venues[venue.idx()].connections = from.venues[venue.idx()].connections;
        for (ours, theirs) in self.instruments.iter_mut().zip(&from.instruments) {
            if theirs.venue != venue {
                continue;
            }
            for side in Side::BOTH {
                ours.book.copy(side, &theirs.book);
            }
            (ours.state, ours.in_batch) = (theirs.state, theirs.in_batch);
            ours.update_id = theirs.update_id;
            (ours.venue_ts_ns, ours.recv_ts_ns) = (theirs.venue_ts_ns, theirs.recv_ts_ns);
            (ours.conn, ours.epoch) = (theirs.conn, theirs.epoch);
        }
    }

    /// Notes a venue's own state.
    pub fn set_venue_status(&mut self, venue: Venue, status: TradingStatus) {
        self.venues[venue.idx()].trading = status;
    }

    /// Returns how long nothing was received on the connection that feeds an instrument.
    #[inline]
    #[must_use]
    pub fn age_ns(&self, venue: Venue, instrument: u16, now_ns: i64) -> i64 {
        let state = self.get(instrument);
        let slot = &self.venues[venue.idx()].connections[state.conn as usize % CONNECTIONS];
        if (slot.conn, slot.epoch) == (state.conn, state.epoch) && slot.last_ns != 0 {
            now_ns.saturating_sub(slot.last_ns).max(0)
        } else {
            i64::MAX
        }
    }

    /// Returns the age of a usable book, or why it may not be used.
    #[inline]
    pub fn usable(
        &self,
        venue: Venue,
        instrument: u16,
        params: &VenueParams,
        now_ns: i64,
    ) -> Result<i64, Unusable> {
        let state = self.get(instrument);
        // The feeds resynchronise a crossed book; here it is only never used, whoever says it is live.
        if state.state != BookState::Live || state.in_batch || state.book.is_crossed_or_locked() {
            return Err(Unusable::NotLive);
        }
        let trading = TradingStatus::Trading;
        if state.trading != trading || self.venues[venue.idx()].trading != trading {
            return Err(Unusable::Status);
        }
        if now_ns < state.halted_until_ns {
            return Err(Unusable::Halted);
        }
        let age_ns = self.age_ns(venue, instrument, now_ns);
        if params.age_ns_max < age_ns { Err(Unusable::Stale { age_ns }) } else { Ok(age_ns) }
    }

    /// Returns a venue's own state.
    #[must_use]
    pub fn venue_status(&self, venue: Venue) -> TradingStatus {
        self.venues[venue.idx()].trading
    }

    /// Returns whether a venue takes orders.
    #[must_use]
    pub fn venue_trades(&self, venue: Venue) -> bool {
        self.venue_status(venue) == TradingStatus::Trading
    }

    /// Returns the instruments that trade a pair, at any venue.
    #[inline]
    pub fn pair(&self, base: AssetId, quote: AssetId) -> impl Iterator<Item = u16> + '_ {
        let from = self.pairs.partition_point(|pair| (pair.0, pair.1) < (base, quote));
        let same = move |pair: &&(AssetId, AssetId, u16)| (pair.0, pair.1) == (base, quote);
        self.pairs[from..].iter().take_while(same).map(|pair| pair.2)
    }

    /// Consolidated view: the best level of a side over all live books of a pair, and the instrument
    /// that shows it.
    #[must_use]
    pub fn consolidated(&self, base: AssetId, quote: AssetId, side: Side) -> Option<(u16, Level)> {
        let from = self.pairs.partition_point(|pair| (pair.0, pair.1) < (base, quote));
        self.pairs[from..]
            .iter()
            .take_while(|pair| (pair.0, pair.1) == (base, quote))
            .filter(|pair| self.get(pair.2).state == BookState::Live)
            .filter_map(|pair| Some((pair.2, self.get(pair.2).book.best(side)?)))
            .reduce(
                |best, next| {
                    if side.rank_key(best.1.px) < side.rank_key(next.1.px) { next } else { best }
                },
            )
    }
}

/// Applies a `Level`; nothing where it makes no sense, else which best changed.
#[inline]
fn set_level(book: &mut Book, data: &[i64; 4]) -> Option<[bool; 2]> {
    let side = Side::from_idx(data[2])?;
    if data[0] <= 0 || data[1] < 0 {
        return None;
    }
    // Only the best has rank 0, before or after.
    let is_best = match book.set(side, Px(data[0]), Qty(data[1])) {
        Change::Inserted { rank, .. } | Change::Updated { rank } | Change::Removed { rank } => {
            rank == 0
        }
        Change::Nothing => false,
    };
    let mut best = [false; 2];
    best[side.idx()] = is_best;
    Some(best)
}

/// Applies a `Bbo`; nothing where it makes no sense, else which best changed.
fn set_bbo(book: &mut Book, data: &[i64; 4]) -> Option<[bool; 2]> {
    let level = |px: i64, qty: i64| match (px, qty) {
        (_, 0) => Some(None),
        (px, qty) if 0 < px && 0 < qty => Some(Some(Level { px: Px(px), qty: Qty(qty) })),
        _ => None,
    };
    let (bid, ask) = (level(data[0], data[1])?, level(data[2], data[3])?);
    Some([book.set_best(Side::Bid, bid), book.set_best(Side::Ask, ask)])
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::fixtures::{instrument, universe};
    use crate::units::{Px, Qty};

    const PARAMS: VenueParams = VenueParams {
        slippage_ppm: 0,
        staleness_ppm_per_s: 0,
        age_ns_max: 100,
        order_latency_ns: 0,
    };

    fn live_market() -> Market {
        let universe = universe(
            &["USD", "BTC"],
            vec![instrument(Venue::Coinbase, 1, 0), instrument(Venue::Kraken, 1, 0)],
        );
        let mut market = Market::new(&universe, 4);
        for (id, venue) in [(0, Venue::Coinbase), (1, Venue::Kraken)] {
            market.get_mut(id).state = BookState::Live;
            market.fed_by(id, 7, 1);
            market.heard(venue, 7, 1, 1_000);
        }
        market
    }

    #[test]
    fn every_doubt_makes_a_book_unusable() {
        let market = live_market();
        let usable = |market: &Market, now| market.usable(Venue::Coinbase, 0, &PARAMS, now);
        assert_eq!(usable(&market, 1_050), Ok(50));
        assert_eq!(usable(&market, 1_101), Err(Unusable::Stale { age_ns: 101 }));
        let with = |change: fn(&mut Market)| {
            let mut market = market.clone();
            change(&mut market);
            usable(&market, 1_050)
        };
        assert_eq!(with(|m| m.get_mut(0).state = BookState::Fallback), Err(Unusable::NotLive));
        assert_eq!(with(|m| m.get_mut(0).in_batch = true), Err(Unusable::NotLive));
        assert_eq!(
            with(|m| m.get_mut(0).trading = TradingStatus::CancelOnly),
            Err(Unusable::Status)
        );
        assert_eq!(
            with(|m| m.set_venue_status(Venue::Coinbase, TradingStatus::Halted)),
            Err(Unusable::Status)
        );
        assert_eq!(with(|m| m.get_mut(0).halted_until_ns = 1_051), Err(Unusable::Halted));
        // Another connection's life says nothing about this one; nor does another epoch's.
        assert_eq!(with(|m| m.fed_by(0, 8, 1)), Err(Unusable::Stale { age_ns: i64::MAX }));
        assert_eq!(with(|m| m.fed_by(0, 7, 2)), Err(Unusable::Stale { age_ns: i64::MAX }));
    }

    #[test]
    fn the_consolidated_view_takes_the_best_live_book() {
        let mut market = live_market();
        market.get_mut(0).book.set(Side::Bid, Px(100), Qty(1));
        market.get_mut(1).book.set(Side::Bid, Px(101), Qty(1));
        let best = |market: &Market| market.consolidated(AssetId(1), AssetId(0), Side::Bid);
        assert_eq!(best(&market).map(|(id, level)| (id, level.px)), Some((1, Px(101))));
        market.get_mut(1).state = BookState::Stale;
        assert_eq!(best(&market).map(|(id, level)| (id, level.px)), Some((0, Px(100))));
        assert_eq!(market.consolidated(AssetId(0), AssetId(1), Side::Bid), None);
    }
}
