//! The orders that a gateway knows: in flight, and lately ended.
//!
//! Invariant: one entry an order, found by its name or by the venue's id; fixed room. What is in flight is
//! never forgotten to make room: a full table refuses new orders, and only ended ones make way, oldest
//! first.
//!
//! Not here: what is told to the engine and when (`desk`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tandem_core::order::{Action, ClientId, DoneStatus, FillTerms, NewOrder, OrderKey, Tif};
use tandem_core::units::{Px, Qty};

/// Orders in flight at most.
pub const LIVE_MAX: usize = 256;
/// Entries in all.
const ROOM: usize = 2_048;

/// What names an order, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Run of the engine that made it.
    pub run: u32,
    /// Its name within the run.
    pub key: OrderKey,
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was in the venue's hands.
    Done(DoneStatus, Qty),
    /// It never was in a book.
    Rejected,
}

/// A fill that was told to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The trade id, as records carry it.
    pub trade_id: u64,
    /// What else the venue calls it; 0 where it has one name.
    pub alias: u64,
    /// What it was told as.
    pub first: FillTerms,
    /// What it is by the venue's last word; nothing where it was taken back.
    pub now: Option<FillTerms>,
    /// When, by the venue's clock; 0 where it did not say.
    pub at_ns: i64,
    /// When it was told, UNIX ns.
    pub told_ns: i64,
    /// The venue said itself what became of it: lists say nothing more about it.
    pub is_said: bool,
    /// What the last list of trades had instead, where it differed.
    pub doubt: Option<Option<FillTerms>>,
}

impl Told {
    /// Returns whether this is what it was told as, or what it is by now. Fees are not compared: venues
    /// round them differently in lists and streams.
    #[must_use]
    pub fn is(&self, fill: FillTerms) -> bool {
        same(self.first, fill) || self.now.is_some_and(|now| same(now, fill))
    }
}

/// Returns whether two words on a fill move the same; see [`Told::is`].
#[must_use]
pub fn same(one: FillTerms, other: FillTerms) -> bool {
    (one.px, one.qty) == (other.px, other.qty)
}

/// One order.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// What the venue calls it by our wish.
    pub client: ClientId,
    /// Instrument, as records carry it.
    pub instrument: u16,
    /// Which way.
    pub action: Action,
    /// Limit; 0 where we never knew it.
    pub px: Px,
    /// Quantity; 0 where we never knew it.
    pub qty: Qty,
    /// How long it stays.
    pub tif: Tif,
    /// The venue's id, 0 while unknown.
    pub venue_id: u128,
    /// When its bytes were handed over, UNIX ns.
    pub sent_ns: i64,
    /// Until when the venue may still accept it, UNIX ns.
    pub ttl_ns: i64,
    /// The venue has said that it has the order.
    pub acked: bool,
    /// The user stream has said so.
    pub streamed: bool,
    /// It was told as unknown and nothing has settled it since.
    pub unknown: bool,
    /// How it ended.
    pub end: Option<End>,
    /// The fills told.
    pub fills: Vec<Told>,
    /// Their sum.
    pub filled: i64,
    /// The venue's own total, and its worth and fee, as last told.
    pub totals: (i64, i64, i64),
    /// A cancel is wanted.
    pub cancel: bool,
    /// When the next cancel may be sent.
    pub cancel_at_ns: i64,
    /// Queries that found nothing.
    pub not_found: u8,
    /// When the last of them was asked.
    pub not_found_ns: i64,
    /// When a query for its trades was asked that found none; 0 never.
    pub clean_ns: i64,
    /// When the next query is to be asked; `i64::MAX` where nothing needs to be.
    pub poll_at_ns: i64,
    /// How many were asked.
    pub polls: u8,
    /// How often its fills were asked for after it ended.
    pub fill_polls: u8,
}

impl Entry {
    fn new(name: Name, instrument: u16) -> Entry {
        Entry {
            name,
            client: ClientId::new(name.run, name.key),
            instrument,
            action: Action::Buy,
            px: Px(0),
            qty: Qty(0),
            tif: Tif::Gtc,
            venue_id: 0,
            sent_ns: 0,
            ttl_ns: 0,
            acked: false,
            streamed: false,
            unknown: false,
            end: None,
            fills: Vec::new(),
            filled: 0,
            totals: (0, 0, 0),
            cancel: false,
            cancel_at_ns: 0,
            not_found: 0,
            not_found_ns: 0,
            clean_ns: 0,
            poll_at_ns: 0,
            polls: 0,
            fill_polls: 0,
        }
    }

    /// Returns whether it may still fill.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.end.is_none()
    }

    /// Returns what the venue says was filled in all, as far as we know.
    #[must_use]
    pub fn cum(&self) -> i64 {
        match self.end {
            Some(End::Done(_, qty)) => qty.0.max(self.filled),
            _ => self.filled.max(self.totals.0),
        }
    }
}

/// Hashes names: two multiplications instead of the keyed hash that the venues' ids get. Who makes names
/// collide slows down a table of fixed room, and no more.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value.cast_unsigned());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(29) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The table. Slots stay where they are until their entry makes way.
#[derive(Debug)]
pub struct Orders {
    entries: Vec<Entry>,
    by_name: HashMap<Name, usize, BuildHasherDefault<NameHasher>>,
    by_venue: HashMap<u128, usize>,
    /// Where to look for an entry to replace.
    hand: usize,
    live: usize,
}

impl Default for Orders {
    fn default() -> Orders {
        // Entries of no order, already ended: what is added takes their place and allocates nothing.
        let nobody = || {
            let entry = Entry::new(Name { run: 0, key: OrderKey(-1) }, u16::MAX);
            Entry { end: Some(End::Rejected), fills: Vec::with_capacity(16), ..entry }
        };
        Orders {
            entries: std::iter::repeat_with(nobody).take(ROOM).collect(),
            by_name: HashMap::with_capacity_and_hasher(2 * ROOM, BuildHasherDefault::default()),
            by_venue: HashMap::with_capacity(2 * ROOM),
            hand: 0,
            live: 0,
        }
    }
}

impl Orders {
    /// Returns whether a new order can be remembered.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.live < LIVE_MAX
    }

    /// Returns how many are in flight.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.live
    }

    /// Returns the slots of those in flight and lately ended.
    pub fn slots(&self) -> std::ops::Range<usize> {
        0..self.entries.len()
    }

    /// Returns an entry.
    #[must_use]
    pub fn get(&self, slot: usize) -> &Entry {
        &self.entries[slot]
    }

    /// Returns an entry, to change. Its end is changed by [`Orders::end`] alone.
    pub fn get_mut(&mut self, slot: usize) -> &mut Entry {
        &mut self.entries[slot]
    }

    /// Returns the slot of a name.
    #[must_use]
    pub fn find(&self, name: Name) -> Option<usize> {
        self.by_name.get(&name).copied()
    }

    /// Returns the slot of a venue's id.
    #[must_use]
    pub fn find_venue(&self, venue_id: u128) -> Option<usize> {
        self.by_venue.get(&venue_id).copied()
    }

    /// Notes the venue's id of an order.
    pub fn identify(&mut self, slot: usize, venue_id: u128) {
        if venue_id != 0 && self.entries[slot].venue_id != venue_id {
            self.by_venue.remove(&self.entries[slot].venue_id);
            self.entries[slot].venue_id = venue_id;
            self.by_venue.insert(venue_id, slot);
        }
    }

    /// Adds an order that was sent.
    pub fn add(&mut self, order: &NewOrder, sent_ns: i64, ttl_ns: i64) -> usize {
        let slot = self.adopt(Name { run: order.run, key: order.key }, order.instrument);
        let entry = &mut self.entries[slot];
        (entry.action, entry.px, entry.qty, entry.tif) =
            (order.action, order.px, order.qty, order.tif);
        (entry.sent_ns, entry.ttl_ns, entry.poll_at_ns) = (sent_ns, ttl_ns, i64::MAX);
        slot
    }

    /// Returns the slot of a name, with a new entry where there was none: an order of ours that was sent
    /// by an earlier process.
    pub fn adopt(&mut self, name: Name, instrument: u16) -> usize {
        if let Some(slot) = self.find(name) {
            return slot;
        }
        let slot = self.room();
        let fresh = Entry::new(name, instrument);
        match self.entries.get_mut(slot) {
            Some(old) => {
                // The list of fills keeps its room: what follows allocates nothing.
                let mut fills = std::mem::take(&mut old.fills);
                fills.clear();
                *old = Entry { fills, ..fresh };
            }
            None => self.entries.push(Entry { fills: Vec::with_capacity(16), ..fresh }),
        }
        self.by_name.insert(name, slot);
        self.live += 1;
        slot
    }

    fn room(&mut self) -> usize {
        // At most `LIVE_MAX` and the adopted are in flight; of the others the hand finds one soon.
        for _ in 0..ROOM {
            let slot = self.hand;
            self.hand = (self.hand + 1) % ROOM;
            let entry = &self.entries[slot];
            if !entry.is_live() {
                self.by_name.remove(&entry.name);
                self.by_venue.remove(&entry.venue_id);
                return slot;
            }
        }
        // Thousands of adopted orders in flight: grow rather than forget one that may fill.
        self.entries.len()
    }

    /// Notes how an order ended; the first end counts against the room, later ones correct it.
    pub fn end(&mut self, slot: usize, end: End) {
        let entry = &mut self.entries[slot];
        if entry.end.replace(end).is_none() {
            self.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_orders_make_way_and_others_do_not() {
        let mut orders = Orders::default();
        let name = |n: u64| Name { run: 1, key: OrderKey::new(n, 0) };
        let first = orders.adopt(name(0), 0);
        orders.identify(first, 77);
        for n in 1..3 * ROOM as u64 {
            let slot = orders.adopt(name(n), 0);
            orders.identify(slot, 1_000 + u128::from(n));
            orders.end(slot, End::Rejected);
        }
        assert_eq!(orders.find(name(0)), Some(first));
        assert_eq!(orders.find_venue(77), Some(first));
        assert_eq!(orders.live(), 1);
        assert_eq!(orders.slots().len(), ROOM);
        assert_eq!(orders.find(name(1)), None);
        assert_eq!(orders.find_venue(1_001), None);
        assert!(orders.find(name(3 * ROOM as u64 - 1)).is_some());
        assert_eq!(orders.adopt(name(0), 0), first, "an order is one entry");
    }
}
