//! One venue's recorded messages on their two clocks: when the venue's book changed, and when we knew.
//!
//! Invariant: of each message the venue's time is never later than ours, and neither clock goes back; messages
//! stay in their order. Venues' clocks are not compared with each other: what a stamp says is how much later than
//! the earliest of its venue a message came ([`Offset`]), unless the configuration trusts the clocks.
//!
//! Not here: what a message does (`books`, the engine).

use std::collections::VecDeque;

use tandem_core::record::{Kind, Record};

use crate::config::VenueTime;
use crate::latency::{Samples, Way};

/// A message may have left its venue this long before the engine took it, at most: how far is read ahead.
pub const LEAD_NS: i64 = 1_000_000_000;

/// One message on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// When the venue's book was so.
    pub venue_ns: i64,
    /// When the engine takes it.
    pub engine_ns: i64,
    /// Its place in the recording.
    pub idx: u64,
    /// The message, with our stamps as simulated.
    pub record: Record,
}

/// The smallest of what was seen in the last ten to twenty minutes.
#[derive(Clone, Copy, Debug)]
struct Offset {
    since_ns: i64,
    before_ns: i64,
    least_ns: i64,
}

const OFFSET_NS: i64 = 600_000_000_000;

impl Offset {
    fn least(&mut self, now_ns: i64, difference_ns: i64) -> i64 {
        if OFFSET_NS <= now_ns.saturating_sub(self.since_ns) {
            (self.before_ns, self.least_ns, self.since_ns) = (self.least_ns, i64::MAX, now_ns);
        }
        self.least_ns = self.least_ns.min(difference_ns);
        self.least_ns.min(self.before_ns)
    }
}

/// One venue's messages.
#[derive(Debug)]
pub struct Stream {
    items: VecDeque<Item>,
    /// How many of `items` the venue's side has taken.
    ahead: usize,
    time: VenueTime,
    base_ns: i64,
    offset: Offset,
    venue_ns: i64,
    engine_ns: i64,
    feed: Way,
    /// Venue time to receipt.
    pub latency: Samples,
    /// Messages whose stamp is later than their receipt.
    pub negative: u64,
}

impl Stream {
    /// Returns a stream that nothing came on.
    #[must_use]
    pub fn new(time: VenueTime, base_ns: i64, feed: Way) -> Stream {
        Stream {
            items: VecDeque::new(),
            ahead: 0,
            time,
            base_ns,
            offset: Offset { since_ns: i64::MIN, before_ns: i64::MAX, least_ns: i64::MAX },
            venue_ns: i64::MIN,
            engine_ns: i64::MIN,
            feed,
            latency: Samples::default(),
            negative: 0,
        }
    }

    /// Takes the next recorded message.
    pub fn push(&mut self, record: &Record, idx: u64) {
        let recorded_ns = record.engine_ts_ns;
        let recv_ns = if record.recv_ts_ns == 0 { recorded_ns } else { record.recv_ts_ns };
        let stamped = record.venue_ts_ns != 0
            && matches!(record.kind(), Some(Kind::Level | Kind::Bbo | Kind::Clear | Kind::Trade));
        let left_ns = match self.time {
            VenueTime::Engine => recorded_ns,
            VenueTime::Trusted if stamped => record.venue_ts_ns,
            VenueTime::Offset if stamped => {
                let late_ns = recv_ns.saturating_sub(record.venue_ts_ns);
                let least_ns = self.offset.least(recv_ns, late_ns);
                recv_ns.saturating_sub(self.base_ns).saturating_sub(late_ns - least_ns)
            }
            VenueTime::Trusted | VenueTime::Offset => recv_ns.saturating_sub(self.base_ns),
        };
        self.negative += u64::from(stamped && recv_ns < record.venue_ts_ns);
        let left_ns = left_ns.clamp(recorded_ns.saturating_sub(LEAD_NS), recorded_ns);
        self.venue_ns = self.venue_ns.max(left_ns);
        let arrives_ns = match self.feed.is_nothing() {
            true => recorded_ns,
            false => self.feed.arrival(recorded_ns),
        };
        self.engine_ns = self.engine_ns.max(arrives_ns).max(self.venue_ns);
        let later_ns = self.engine_ns - recorded_ns;
        if stamped {
            self.latency.add(recv_ns.saturating_add(later_ns).saturating_sub(self.venue_ns));
        }
        let (venue_ns, engine_ns) = (self.venue_ns, self.engine_ns);
        self.items.push_back(Item { venue_ns, engine_ns, idx, record: *record });
        if later_ns == 0 {
            return;
        }
        let Some(Item { record, .. }) = self.items.back_mut() else { return };
        record.engine_ts_ns = engine_ns;
        if record.recv_ts_ns != 0 {
            record.recv_ts_ns = record.recv_ts_ns.saturating_add(later_ns);
        }
        if record.kind() == Some(Kind::Beat) {
            record.data[0] = record.data[0].saturating_add(later_ns);
        }
    }

    /// Returns when the venue's side takes its next message, and its place.
    #[must_use]
    #[inline]
    pub fn next_venue(&self) -> Option<(i64, u64)> {
        self.items.get(self.ahead).map(|item| (item.venue_ns, item.idx))
    }

    /// Returns when the engine takes its next message, and its place.
    #[must_use]
    #[inline]
    pub fn next_engine(&self) -> Option<(i64, u64)> {
        self.items.front().map(|item| (item.engine_ns, item.idx))
    }

    /// Takes out the venue's next message where it is not later than `until_ns`; the engine's side still has it.
    #[inline]
    pub fn pop_venue(&mut self, until_ns: i64) -> Option<&Item> {
        let item = self.items.get(self.ahead).filter(|item| item.venue_ns <= until_ns)?;
        self.ahead += 1;
        Some(item)
    }

    /// Returns whether the venue's side has taken a message that the engine has not.
    #[must_use]
    #[inline]
    pub fn is_engine_behind(&self) -> bool {
        self.ahead != 0
    }

    /// Returns the engine's next message.
    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut Item> {
        self.items.front_mut()
    }

    /// Drops the engine's next message, which the venue's side has taken.
    #[inline]
    pub fn advance(&mut self) {
        debug_assert!(self.is_engine_behind(), "the venue's time is never later");
        self.items.pop_front();
        self.ahead = self.ahead.saturating_sub(1);
    }
}
