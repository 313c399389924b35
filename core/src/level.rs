//! Control levels and the one word that holds them.
//!
//! Invariant: raising never lowers anything; lowering takes a word of its own. Every change makes a new
//! epoch, so whoever echoes the epoch has seen the change. The effective level of an order is the larger
//! of the global one and its venue's. Levels of single instruments are the engine's (`market`).
//!
//! Not here: where the word lives and how it is shared and persisted (`tandem-shm`, `tandem`).

use crate::record::{Kind, Record, Venue, flag};

/// What is still allowed (`reference/reliability.md` section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Everything.
    Armed = 0,
    /// No new rounds; what is left over is hedged and unwound.
    Pause = 1,
    /// Only orders that lower what a round has left over.
    Reduce = 2,
    /// Only cancels.
    Halt = 3,
    /// Only cancels, and everything is cancelled, swept and proven.
    Kill = 4,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Level; 5] =
        [Level::Armed, Level::Pause, Level::Reduce, Level::Halt, Level::Kill];

    /// Returns the level with this tag; a tag that does not exist is the highest level.
    #[must_use]
    pub fn from_tag(tag: u8) -> Level {
        Level::ALL.into_iter().find(|level| *level as u8 == tag).unwrap_or(Level::Kill)
    }

    /// Returns the level's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Armed => "ARMED",
            Level::Pause => "PAUSE",
            Level::Reduce => "REDUCE",
            Level::Halt => "HALT",
            Level::Kill => "KILL",
        }
    }
}

/// Why a level was raised. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Not armed yet since the start.
    Start = 0,
    /// An operator.
    Operator = 1,
    /// The engine died or hangs.
    Engine = 2,
    /// The warden died.
    Warden = 3,
    /// A gateway died or lost its session.
    Gateway = 4,
    /// A control; its number is in the record that tells it.
    Control = 5,
    /// An order's outcome stayed unknown.
    Unknown = 6,
    /// The ledger and the venue differ.
    Reconcile = 7,
    /// The clock is in doubt.
    Clock = 8,
    /// The journal has no room.
    Journal = 9,
    /// Processes of different builds or configurations.
    Build = 10,
    /// The venue: maintenance, ban, key revoked.
    Venue = 11,
    /// The file that keeps the level could not be read.
    Latch = 12,
    /// An invariant broke.
    Invariant = 13,
    /// A loss limit.
    Loss = 14,
    /// A drill.
    Drill = 15,
    /// A venue took a fill back, or corrected one.
    Bust = 16,
    /// Nobody would hear of trouble: alert channels are lost.
    Alerts = 17,
}

impl Cause {
    /// Every cause, in the order of its tag.
    pub const ALL: [Cause; 18] = [
        Cause::Start,
        Cause::Operator,
        Cause::Engine,
        Cause::Warden,
        Cause::Gateway,
        Cause::Control,
        Cause::Unknown,
        Cause::Reconcile,
        Cause::Clock,
        Cause::Journal,
        Cause::Build,
        Cause::Venue,
        Cause::Latch,
        Cause::Invariant,
        Cause::Loss,
        Cause::Drill,
        Cause::Bust,
        Cause::Alerts,
    ];

    /// Returns the cause with this tag.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| *cause as u8 == tag)
    }

    /// Returns the cause's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Start => "not armed since the start",
            Cause::Operator => "operator",
            Cause::Engine => "engine dead or hanging",
            Cause::Warden => "warden dead",
            Cause::Gateway => "gateway dead or without session",
            Cause::Control => "control",
            Cause::Unknown => "order outcome unknown",
            Cause::Reconcile => "ledger and venue differ",
            Cause::Clock => "clock in doubt",
            Cause::Journal => "journal full",
            Cause::Build => "different builds or configurations",
            Cause::Venue => "venue",
            Cause::Latch => "level file unreadable",
            Cause::Invariant => "broken invariant",
            Cause::Loss => "loss limit",
            Cause::Drill => "drill",
            Cause::Bust => "fill taken back",
            Cause::Alerts => "alert channels lost",
        }
    }
}

/// Whom a level is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Global,
    /// One venue.
    Venue(Venue),
}

/// The levels in one word: global, three venues, the last cause (8 bits each), a spare byte, epoch (24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LevelWord(pub u64);

const EPOCH_SHIFT: u32 = 40;
const CAUSE_SHIFT: u32 = 32;

impl LevelWord {
    /// What a fresh page holds: nothing may be sent.
    pub const KILLED: LevelWord =
        LevelWord(Level::Kill as u64 | (Cause::Start as u64) << CAUSE_SHIFT);
    /// What an orderly start holds until an operator arms.
    pub const PAUSED: LevelWord =
        LevelWord(Level::Pause as u64 | (Cause::Start as u64) << CAUSE_SHIFT);

    const fn shift(scope: Scope) -> u32 {
        match scope {
            Scope::Global => 0,
            Scope::Venue(venue) => 8 * venue as u32,
        }
    }

    /// Returns the level of one scope alone.
    #[must_use]
    pub fn of(self, scope: Scope) -> Level {
        Level::from_tag((self.0 >> LevelWord::shift(scope)) as u8)
    }

    /// Returns what counts for an order at a venue.
    #[must_use]
    pub fn effective(self, venue: Venue) -> Level {
        self.of(Scope::Global).max(self.of(Scope::Venue(venue)))
    }

    /// Returns how often the word has changed, modulo 2^24.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        (self.0 >> EPOCH_SHIFT) as u32
    }

    /// Returns why it last changed.
    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        Cause::from_tag((self.0 >> CAUSE_SHIFT) as u8)
    }

    fn with(self, scope: Scope, level: Level, cause: Cause) -> LevelWord {
        let shift = LevelWord::shift(scope);
        let levels = self.0 & 0xffff_ffff & !(0xff << shift) | (level as u64) << shift;
        let epoch = u64::from(self.epoch().wrapping_add(1)) << EPOCH_SHIFT;
        LevelWord(levels | (cause as u64) << CAUSE_SHIFT | epoch)
    }

    /// Returns the word with a scope raised to `level`; nothing where it already is as high.
    #[must_use]
    pub fn raised(self, scope: Scope, level: Level, cause: Cause) -> Option<LevelWord> {
        (self.of(scope) < level).then(|| self.with(scope, level, cause))
    }

    /// Returns the word with a scope lowered to `level`: an operator's act, never a program's.
    #[must_use]
    pub fn lowered(self, scope: Scope, level: Level) -> Option<LevelWord> {
        (level < self.of(scope)).then(|| self.with(scope, level, Cause::Operator))
    }

    /// Returns the record that tells the engine the word.
    #[must_use]
    pub fn record(self) -> Record {
        let record = Record::new(Kind::Levels, 0, u16::MAX, [self.0 as i64, 0, 0, 0]);
        Record { flags: flag::LAST, ..record }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_only_raises_and_every_change_is_an_epoch() {
        let armed = LevelWord::PAUSED.lowered(Scope::Global, Level::Armed).expect("lower");
        assert_eq!(armed.effective(Venue::Kraken), Level::Armed);
        assert_eq!(armed.epoch(), 1);
        let venue = Scope::Venue(Venue::Kraken);
        let halted = armed.raised(venue, Level::Halt, Cause::Venue).expect("raise");
        assert_eq!(halted.effective(Venue::Kraken), Level::Halt);
        assert_eq!(halted.effective(Venue::Binance), Level::Armed);
        assert_eq!((halted.epoch(), halted.cause()), (2, Some(Cause::Venue)));
        assert_eq!(halted.raised(venue, Level::Pause, Cause::Operator), None);
        assert_eq!(halted.lowered(venue, Level::Kill), None);
        let wrapped =
            LevelWord(0xffff_ff00_0000_0000).raised(Scope::Global, Level::Kill, Cause::Engine);
        assert_eq!(wrapped.map(|w| (w.epoch(), w.of(Scope::Global))), Some((0, Level::Kill)));
    }

    #[test]
    fn what_cannot_be_read_is_the_highest_level() {
        assert_eq!(LevelWord(0x77).effective(Venue::Binance), Level::Kill);
        assert_eq!(LevelWord::KILLED.effective(Venue::Binance), Level::Kill);
    }
}
