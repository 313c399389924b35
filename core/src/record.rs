//! The one record that moves between tiles: 128 bytes, two cache lines.
//!
//! Invariant: a ring slot and a journal frame are these same bytes. Every field is plain integers
//! without padding, so that capture, replay, audit and backtest read one format, and a record that was
//! never written by us still reads as some record: tags are checked by [`Record::kind`], never trusted.
//!
//! Line 0 is what the engine needs, line 1 is where it came from. Word 0 belongs to the ring or the
//! journal that carries the record, the low half of word 15 to the journal (its checksum).
//!
//! Not here: how records travel (`tandem-shm`), what venues send (`tandem-feeds`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::units::{Px, Qty, Side};

/// Version of this layout and of the meaning of its fields; part of every region's schema hash.
pub const LAYOUT_VERSION: u32 = 2;

/// The layout spelled out; its hash guards every region that carries records.
pub const LAYOUT: &str = "v2 seq:u64@0 kind:u8@8 flags:u8@9 venue:u8@10 part:u8@11 instrument:u16@12 \
    epoch:u16@14 data:[i64;4]@16 pub_tsc:u64@48 update_id:u64@56 venue_ts_ns:i64@64 recv_ts_ns:i64@72 \
    recv_tsc:u64@80 decode_ticks:u32@88 bytes:u32@92 conn:u32@96 ring:u16@100 asset:u16@102 \
    ring_seq:u64@104 engine_ts_ns:i64@112 check:u32@120 run:u32@124";

/// FNV-1a over [`LAYOUT`]: what readers of another layout are refused by.
pub const LAYOUT_HASH: u64 = {
    let bytes = LAYOUT.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
};

/// One event, decision or command.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Record {
    /// Sequence in the ring or journal that carries it.
    pub seq: u64,
    /// [`Kind`] as a tag.
    pub kind: u8,
    /// [`flag`] bits.
    pub flags: u8,
    /// [`Venue`] as a tag; 0 where none applies.
    pub venue: u8,
    /// Index of this record within a group joined by [`flag::MORE`].
    pub part: u8,
    /// Index of the instrument in the run's table (an instrument belongs to one venue).
    pub instrument: u16,
    /// Low bits of the producer's epoch; a restarted feed handler has another one.
    pub epoch: u16,
    /// Payload by kind; see [`Kind`].
    pub data: [i64; 4],
    /// TSC as the last thing before the record was published.
    pub pub_tsc: u64,
    /// The venue's own update id or sequence number; 0 where it has none.
    pub update_id: u64,
    /// Venue's event time, UNIX ns, by the venue's clock; 0 where the message has none.
    pub venue_ts_ns: i64,
    /// When our host received the message, UNIX ns: the kernel's stamp, or ours where it gives none.
    pub recv_ts_ns: i64,
    /// TSC when the read that completed the message returned.
    pub recv_tsc: u64,
    /// TSC ticks from `recv_tsc` to the decoded record, saturating.
    pub decode_ticks: u32,
    /// Bytes of the message it came from.
    pub bytes: u32,
    /// Connection it came over: counts every connection of the feed tile since its start.
    pub conn: u32,
    /// Ring it was taken from (set by the engine tile); index in the topology.
    pub ring: u16,
    /// Index of the asset that an account record or a fee is counted in; 0 elsewhere.
    pub asset: u16,
    /// Sequence in that ring (set by the engine tile).
    pub ring_seq: u64,
    /// When the engine took it, UNIX ns: the only "now" the engine knows (set by the engine tile).
    pub engine_ts_ns: i64,
    /// Journal checksum (set by the journal).
    pub check: u32,
    /// Run of the order that `data[0]` names, in order records; 0 elsewhere.
    pub run: u32,
}

const _: () = assert!(size_of::<Record>() == 128, "one record, two cache lines");
const _: () = assert!(core::mem::offset_of!(Record, data) == 16);
const _: () = assert!(core::mem::offset_of!(Record, pub_tsc) == 48);
const _: () = assert!(core::mem::offset_of!(Record, venue_ts_ns) == 64, "line 1 starts here");
const _: () = assert!(core::mem::offset_of!(Record, conn) == 96);
const _: () = assert!(core::mem::offset_of!(Record, check) == 120, "low half of word 15");

/// Bits of [`Record::flags`].
pub mod flag {
    /// Last record of a batch (one message from a venue); the engine decides only here.
    pub const LAST: u8 = 1 << 0;
    /// The payload goes on in the next record.
    pub const MORE: u8 = 1 << 1;
    /// Part of a snapshot.
    pub const SNAPSHOT: u8 = 1 << 2;
    /// From REST while the WebSocket is down: shown, never traded on.
    pub const FALLBACK: u8 = 1 << 3;
    /// Written by the engine, not consumed by it: replay compares these.
    pub const OUTPUT: u8 = 1 << 7;
}

/// What a record is. The numbers are part of the format and never reused; 32 to 63 are orders and
/// accounts, whose payloads `order` and `account` read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// One price level, absolute: `[px, qty, side, 0]`; quantity 0 removes.
    Level = 1,
    /// The book is emptied; a snapshot follows.
    Clear = 2,
    /// Best bid and ask, newer than the levels: `[bid px, bid qty, ask px, ask qty]`; quantity 0 is an
    /// empty side. Better levels than these are gone.
    Bbo = 3,
    /// A trade: `[px, qty, side of the book that was taken, trade id]`.
    Trade = 4,
    /// State of the instrument's book: `[BookState, Reason, levels beyond the window bid, ask]`.
    BookState = 5,
    /// State of the venue: `[VenueStatus, 0, 0, 0]`.
    Status = 16,
    /// Conversion of TSC to time at this moment: `[tsc, UNIX ns, ticks per ms, error ns]`.
    Clock = 17,
    /// An instrument's rules: `[InstrumentStatus, tick, lot, min notional]`.
    InstrumentChange = 18,
    /// A connection lives: something was received on it: `[UNIX ns of the last frame, frames, 0, 0]`.
    Beat = 19,
    /// Engine to gateway: send this order; see [`crate::order::NewOrder`].
    OrderNew = 32,
    /// Engine to gateway: cancel: `[key, 0, 0, 0]`.
    OrderCancel = 33,
    /// Engine to gateway: find out what became of it: `[key, 0, 0, 0]`.
    OrderQuery = 34,
    /// The order's bytes were handed to the socket: `[key, UNIX ns, tsc, connection]`.
    OrderSent = 35,
    /// The venue has the order: `[key, venue id low, venue id high, 0]`.
    OrderAck = 36,
    /// One fill: `[key, px, qty, fee]`, fee in `asset`, trade id in `update_id`.
    OrderFill = 37,
    /// The venue's running totals: `[key, filled qty, cost in quote, fee]`, fee in `asset`.
    OrderTotals = 38,
    /// Final: `[key, DoneStatus, filled qty, 0]`.
    OrderDone = 39,
    /// Never in the book: `[key, RejectClass, venue code, 0]`.
    OrderReject = 40,
    /// The outcome is not known: `[key, UnknownCause, 0, 0]`.
    OrderUnknown = 41,
    /// A cancel was refused: `[key, RejectClass, venue code, 0]`.
    CancelReject = 42,
    /// An open order at the venue that is not ours: `[px, qty left, side, hash of its id]`.
    ForeignOrder = 43,
    /// A venue's balance: `[total, held, BalanceSource, 0]` of `asset`.
    Balance = 44,
    /// What the venue charges: `[taker ppm, maker ppm, 0, 0]` of the instrument.
    Fee = 45,
    /// State of a venue's trading session: `[SessionState, reason, user stream heard ns, dead-man ns]`.
    Session = 46,
    /// A round changed state; see `round`.
    Round = 47,
    /// A ledger entry; see `ledger`.
    Ledger = 48,
    /// Profit and loss; see `ledger`.
    Pnl = 49,
    /// The level word as the engine's host read it: `[LevelWord, 0, 0, 0]`.
    Levels = 50,
    /// Another process as the engine's host sees it: `[PeerRole, alive, beat ns, same build]`.
    Peer = 51,
    /// The host's clock against the venues: `[offset ns, bound ns, synchronised, 0]`.
    ClockState = 52,
    /// State carried over from an earlier run of the engine; see `restore`.
    Restore = 53,
    /// A reconciliation ended: `[open ours, open foreign, fills added, differences]`.
    Reconciled = 54,
    /// A fill that the venue took back or corrected: `[key, px, qty, fee]` is what it is from now on, all
    /// 0 for nothing; fee in `asset`, trade id in `update_id`.
    OrderBust = 55,
    /// An arbitrage found; see `detector` for the parts.
    Opportunity = 64,
    /// A candidate that was not taken; see `detector` for the parts.
    Denial = 65,
    /// A control level was raised: `[level, reason, cycle, evidence ppm]`.
    ControlLevel = 68,
    /// Time passed: the engine's clock where no market record comes.
    Timer = 69,
    /// An operator's command: `[command, argument, 0, 0]`.
    Command = 70,
    /// Records were lost: `[Lost, from, to, count]`.
    Gap = 71,
    /// Bytes of the run's configuration, joined by [`flag::MORE`]; the engine's host reads them.
    Config = 72,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Kind; 40] = [
        Kind::Level,
        Kind::Clear,
        Kind::Bbo,
        Kind::Trade,
        Kind::BookState,
        Kind::Status,
        Kind::Clock,
        Kind::InstrumentChange,
        Kind::Beat,
        Kind::OrderNew,
        Kind::OrderCancel,
        Kind::OrderQuery,
        Kind::OrderSent,
        Kind::OrderAck,
        Kind::OrderFill,
        Kind::OrderTotals,
        Kind::OrderDone,
        Kind::OrderReject,
        Kind::OrderUnknown,
        Kind::CancelReject,
        Kind::ForeignOrder,
        Kind::Balance,
        Kind::Fee,
        Kind::Session,
        Kind::Round,
        Kind::Ledger,
        Kind::Pnl,
        Kind::Levels,
        Kind::Peer,
        Kind::ClockState,
        Kind::Restore,
        Kind::Reconciled,
        Kind::OrderBust,
        Kind::Opportunity,
        Kind::Denial,
        Kind::ControlLevel,
        Kind::Timer,
        Kind::Command,
        Kind::Gap,
        Kind::Config,
    ];

    /// By tag: asked for several times a record.
    const BY_TAG: [Option<Kind>; 256] = {
        let mut by_tag = [None; 256];
        let mut idx = 0;
        while idx < Kind::ALL.len() {
            by_tag[Kind::ALL[idx] as usize] = Some(Kind::ALL[idx]);
            idx += 1;
        }
        by_tag
    };

    /// Returns the kind with this tag.
    #[inline]
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Kind> {
        Kind::BY_TAG[tag as usize]
    }
}

/// The venues. The tag is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Venue {
    /// Binance spot.
    Binance = 1,
    /// Coinbase Advanced Trade.
    Coinbase = 2,
    /// Kraken spot.
    Kraken = 3,
}

impl Venue {
    /// Every venue, in the order of its tag.
    pub const ALL: [Venue; 3] = [Venue::Binance, Venue::Coinbase, Venue::Kraken];

    /// Returns the venue with this tag.
    #[inline]
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Venue> {
        match tag {
            1 => Some(Venue::Binance),
            2 => Some(Venue::Coinbase),
            3 => Some(Venue::Kraken),
            _ => None,
        }
    }

    /// Returns the venue's name as used in configuration and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Venue::Binance => "binance",
            Venue::Coinbase => "coinbase",
            Venue::Kraken => "kraken",
        }
    }

    /// Returns the venue's position in tables with one row a venue.
    #[must_use]
    pub const fn idx(self) -> usize {
        self as usize - 1
    }
}

/// What is known of a book. Only `Live` may make an opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BookState {
    /// Nothing is known yet.
    Init = 0,
    /// A snapshot is being fetched, spliced or audited.
    Syncing = 1,
    /// Proven in sync with the venue.
    Live = 2,
    /// Was live; something is in doubt.
    Stale = 3,
    /// From REST at the budgeted rate while the WebSocket is down.
    Fallback = 4,
}

impl BookState {
    /// Every state, in the order of its tag.
    pub const ALL: [BookState; 5] = [
        BookState::Init,
        BookState::Syncing,
        BookState::Live,
        BookState::Stale,
        BookState::Fallback,
    ];

    /// Returns the state with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<BookState> {
        BookState::ALL.into_iter().find(|state| *state as i64 == tag)
    }

    /// Returns the state's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BookState::Init => "init",
            BookState::Syncing => "syncing",
            BookState::Live => "live",
            BookState::Stale => "stale",
            BookState::Fallback => "fallback",
        }
    }
}

/// Why a book changed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No particular reason: the ordinary course.
    None = 0,
    /// The stream skipped an update (Binance `U`, Coinbase `sequence_num`).
    SequenceGap = 1,
    /// The stream went backwards.
    SequenceRewind = 2,
    /// Kraken's CRC32 did not match.
    Checksum = 3,
    /// Best bid at or above best ask.
    Crossed = 4,
    /// A message could not be read.
    Malformed = 5,
    /// The connection was lost or closed.
    Disconnect = 6,
    /// The venue said the instrument or itself is not trading.
    Halted = 7,
    /// The book disagreed with a second source (REST audit, ticker).
    Audit = 8,
    /// Messages arrive, but late.
    Lag = 9,
    /// Nothing arrives though the connection is open.
    Silence = 10,
    /// The engine was overrun by its ring.
    Overrun = 11,
    /// The feed handler died or restarted.
    Producer = 12,
    /// More than the book can hold, or a value that does not fit.
    Bounds = 13,
    /// A planned move to another connection.
    Rotation = 14,
    /// Two connections of the venue say different best prices, and neither is behind the other.
    Disagree = 15,
}

impl Reason {
    /// Every reason, in the order of its tag.
    pub const ALL: [Reason; 16] = [
        Reason::None,
        Reason::SequenceGap,
        Reason::SequenceRewind,
        Reason::Checksum,
        Reason::Crossed,
        Reason::Malformed,
        Reason::Disconnect,
        Reason::Halted,
        Reason::Audit,
        Reason::Lag,
        Reason::Silence,
        Reason::Overrun,
        Reason::Producer,
        Reason::Bounds,
        Reason::Rotation,
        Reason::Disagree,
    ];

    /// Returns the reason with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| *reason as i64 == tag)
    }
}

/// Whether an instrument (or a whole venue) takes orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TradingStatus {
    /// Orders are taken and matched.
    Trading = 1,
    /// Only cancels are taken.
    CancelOnly = 2,
    /// Only resting orders are taken.
    PostOnly = 3,
    /// Halted, in maintenance, delisted, or a word we do not know: doubt does not trade.
    Halted = 4,
}

impl TradingStatus {
    /// Returns the status with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<TradingStatus> {
        match tag {
            1 => Some(TradingStatus::Trading),
            2 => Some(TradingStatus::CancelOnly),
            3 => Some(TradingStatus::PostOnly),
            4 => Some(TradingStatus::Halted),
            _ => None,
        }
    }
}

impl Record {
    /// Returns a record of `kind` for an instrument, everything else zero.
    #[must_use]
    pub fn new(kind: Kind, venue: u8, instrument: u16, data: [i64; 4]) -> Record {
        Record { kind: kind as u8, venue, instrument, data, ..Record::default() }
    }

    /// Returns the kind, or nothing where the tag is unknown.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::from_tag(self.kind)
    }

    /// Returns whether all bits of `flags` are set.
    #[inline]
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns a level change of a book.
    #[must_use]
    pub fn level(venue: Venue, instrument: u16, side: Side, px: Px, qty: Qty) -> Record {
        Record::new(Kind::Level, venue as u8, instrument, [px.0, qty.0, side.idx() as i64, 0])
    }

    /// Returns the record with what its carrier and its host put into it taken out: what must be
    /// identical between a run and its replay.
    #[must_use]
    pub fn essence(&self) -> Record {
        Record { seq: 0, check: 0, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_back_and_unknown_ones_refused() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_tag(kind as u8), Some(kind));
        }
        for state in BookState::ALL {
            assert_eq!(BookState::from_tag(state as i64), Some(state));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_tag(reason as i64), Some(reason));
        }
        for venue in Venue::ALL {
            assert_eq!(Venue::from_tag(venue as u8), Some(venue));
        }
        assert_eq!(Kind::from_tag(0), None);
        assert_eq!(Kind::from_tag(255), None);
        assert_eq!(BookState::from_tag(-1), None);
        assert_eq!(Venue::from_tag(0), None);
    }

    /// The layout text is what other builds are refused by: it must say what the compiler laid out.
    #[test]
    fn the_layout_text_is_the_layout() {
        macro_rules! check {
            ($($field:ident),*) => {$(
                let said = LAYOUT
                    .split_whitespace()
                    .find(|word| word.starts_with(concat!(stringify!($field), ":")))
                    .and_then(|word| word.split('@').nth(1))
                    .and_then(|at| at.parse::<usize>().ok());
                assert_eq!(said, Some(core::mem::offset_of!(Record, $field)), stringify!($field));
            )*};
        }
        check!(
            seq,
            kind,
            flags,
            venue,
            part,
            instrument,
            epoch,
            pub_tsc,
            update_id,
            venue_ts_ns,
            recv_ts_ns,
            recv_tsc,
            decode_ticks,
            bytes,
            conn,
            ring,
            asset,
            ring_seq,
            engine_ts_ns,
            check,
            run
        );
    }

    #[test]
    fn any_bytes_are_some_record() {
        let bytes = [0xa5u8; 128];
        let record = Record::read_from_bytes(&bytes).expect("any 128 bytes are a record");
        assert_eq!(record.kind(), None);
    }
}
