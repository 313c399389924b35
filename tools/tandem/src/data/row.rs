//! One line of a file in a form that all formats share.
//!
//! Invariant: a row is checked by its decoder: prices are positive, quantities not negative, stamps are UNIX ns
//! between 2009 and 2100. What a row means for a book is decided by `merge` alone.

use tandem_core::record::Venue;
use tandem_core::units::Side;

use super::error::{DataError, Place};
use super::number::Number;

/// A price and what rests there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// Price, positive.
    pub px: Number,
    /// Quantity, not negative.
    pub qty: Number,
}

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A level as it is from now on; quantity 0 removes it.
    Level {
        /// Side.
        side: Side,
        /// Price and quantity.
        at: Resting,
        /// Part of a snapshot.
        snapshot: bool,
    },
    /// The levels of a side (both where none) are gone, from the best to this price (all where none).
    Clear {
        /// Side.
        side: Option<Side>,
        /// Last price that is gone.
        to: Option<Number>,
    },
    /// The best of one side.
    Best {
        /// Side.
        side: Side,
        /// What rests there; nothing where the side is empty.
        level: Option<Resting>,
    },
    /// The best of both sides.
    Quote([Option<Resting>; 2]),
    /// A trade.
    Trade {
        /// Price and quantity.
        at: Resting,
        /// Side of the book that was taken, where it is told.
        taken: Option<Side>,
        /// The venue's number of it, or one made of its text; 0 where it has none.
        id: u64,
    },
}

/// Rows of which kind belong to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Trades: told before the book that they changed.
    Trade,
    /// A snapshot of a book, or what empties it.
    Snapshot,
    /// Changes of a book.
    Update,
    /// Best prices.
    Quote,
}

impl What {
    /// Returns its class.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            What::Trade { .. } => Class::Trade,
            What::Clear { .. } | What::Level { snapshot: true, .. } => Class::Snapshot,
            What::Level { .. } => Class::Update,
            What::Best { .. } | What::Quote(_) => Class::Quote,
        }
    }

    /// Calls `each` with every price and quantity.
    pub fn resting(&self, mut each: impl FnMut(Resting)) {
        match self {
            What::Level { at, .. } | What::Trade { at, .. } => each(*at),
            What::Best { level, .. } => level.iter().for_each(|level| each(*level)),
            What::Quote(best) => best.iter().flatten().for_each(|level| each(*level)),
            What::Clear { to, .. } => {
                to.iter().for_each(|px| each(Resting { px: *px, qty: Number::ZERO }));
            }
        }
    }
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Line or row of the file, from 1.
    pub line: u64,
    /// When it was received, UNIX ns.
    pub recv_ns: i64,
    /// The venue's time, UNIX ns; 0 where it told none.
    pub venue_ns: i64,
    /// The venue's update number; 0 where it has none.
    pub update_id: u64,
    /// What it says.
    pub what: What,
}

/// Of which instrument a row is: as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<'a> {
    /// Venue.
    pub venue: Venue,
    /// The exchange as the file calls it, where several are one venue here.
    pub exchange: &'a str,
    /// The venue's symbol.
    pub symbol: &'a str,
}

/// A file's rows, one after the other.
pub trait Rows {
    /// Returns the next row with its instrument; nothing at the end.
    fn next(&mut self) -> Result<Option<(Named<'_>, Row)>, DataError>;

    /// Returns the place of a line, for messages.
    fn place(&self, line: u64) -> Place;

    /// Returns whether a snapshot is the whole book, or else tells levels and first what is gone.
    fn snapshots_replace(&self) -> bool {
        true
    }

    /// Returns how many rows only say again, in another order, what others say, and were passed over.
    fn passed_over(&self) -> u64 {
        0
    }

    /// Returns how many floats were no decimals and were rounded to the nearest.
    fn rounded(&self) -> u64 {
        0
    }
}

/// Returns whether a stamp is one: between 2009 and 2100.
#[must_use]
pub const fn is_stamp(ns: i64) -> bool {
    1_230_768_000_000_000_000 <= ns && ns < 4_102_444_800_000_000_000
}
