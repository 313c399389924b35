//! The face between sockets and sync machines: a venue's whole behaviour without I/O.
//!
//! Invariant: a [`Machine`] is a pure function of what it is told. It reads no clock, opens no socket and
//! draws no randomness but from its seed, so tests, replay, simulation and production run the same one.
//! What it wants done it says as [`Action`]s; what it knows it publishes as records.
//!
//! The contract with the tile that drives it:
//! - After every call that may have changed its mind (any `on_*`), call [`Machine::next_action`] until it
//!   returns nothing. An action that carries `not_before_ns` is done at that time, not before; actions of
//!   one connection keep their order.
//! - [`Machine::on_open`] or [`Machine::on_close`] follows every [`Action::Connect`]; `on_close` follows every
//!   connection exactly once, also a refused one and one closed by [`Action::Close`].
//! - [`Machine::on_reply`] follows every [`Action::Get`] exactly once, also when it failed.
//! - [`Machine::on_timer`] is called every 10 to 50 ms. A machine that is not called says nothing: the
//!   engine judges age when it uses a book, not when somebody reports it.
//! - Server pings are answered by the tile; what comes back on an [`Action::Ping`] goes to
//!   [`Machine::on_pong`].
//! - Connections and requests are numbered by the machine and never reused.
//!
//! Not here: sockets (`net`), rings (`tile`), what each venue needs (`binance`, `coinbase`, `kraken`).

use tandem_core::book::Book;
use tandem_core::record::{BookState, Reason, Record, Venue};

use crate::spec::VenueInstrument;

/// When a message came, as the tile measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// UNIX ns: the kernel's stamp, or ours where it gives none.
    pub recv_ns: i64,
    /// TSC when the read that completed the message returned.
    pub recv_tsc: u64,
    /// Bytes of the message.
    pub bytes: u32,
}

/// Where records go. The tile fills `pub_tsc`, `decode_ticks` and `epoch` and puts them into the ring.
pub trait Publish {
    /// Takes one record.
    fn publish(&mut self, record: &Record);
}

impl Publish for Vec<Record> {
    fn publish(&mut self, record: &Record) {
        self.push(*record);
    }
}

/// Drops every record: for drivers that look at the books alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Publish for Discard {
    fn publish(&mut self, _record: &Record) {}
}

/// What a machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a WebSocket at the venue's stream host.
    Connect {
        /// Number of the connection from here on.
        conn: u32,
        /// Path and query.
        path: String,
        /// Not before this UNIX time.
        not_before_ns: i64,
    },
    /// Send a text frame.
    Send {
        /// Connection.
        conn: u32,
        /// Text.
        text: String,
        /// Not before this UNIX time.
        not_before_ns: i64,
    },
    /// Send a WebSocket ping.
    Ping {
        /// Connection.
        conn: u32,
    },
    /// Close a connection.
    Close {
        /// Connection.
        conn: u32,
        /// Without the closing handshake: the peer is not believed to answer.
        reset: bool,
    },
    /// `GET` a path at the venue's REST host.
    Get {
        /// Number of the request.
        request: u32,
        /// Path and query.
        path: String,
        /// Not before this UNIX time.
        not_before_ns: i64,
    },
}

/// Why a connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The handshake was answered with another status than 101.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its `Retry-After`, if any.
        retry_after_s: Option<u32>,
    },
    /// Name, TCP or TLS failed, or timed out.
    Failed,
    /// The peer closed with this code.
    Closed {
        /// WebSocket close code; 1005 where it gave none.
        code: u16,
    },
    /// The stream ended or was reset without a closing handshake.
    Reset,
    /// The peer broke the WebSocket protocol, or a frame was larger than we take.
    Protocol,
    /// We closed it.
    Local,
}

/// Outcome of a request.
#[derive(Debug)]
pub enum Reply<'a> {
    /// The venue answered.
    Answer {
        /// HTTP status.
        status: u16,
        /// `Retry-After` in seconds.
        retry_after_s: Option<u32>,
        /// Binance's `X-MBX-USED-WEIGHT-1M`.
        used_weight: Option<u32>,
        /// Body; may be HTML.
        body: &'a mut [u8],
    },
    /// No answer: connection, TLS, time-out.
    Failed,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one machine since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each name says it")]
        pub struct MachineStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl MachineStats {
            /// Returns the sums of both.
            #[must_use]
            pub const fn plus(&self, other: &MachineStats) -> MachineStats {
                MachineStats { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    frames,
    bytes,
    records,
    batches,
    /// Book updates applied.
    applied,
    /// Messages that came again or too late, and were dropped.
    duplicates,
    /// Messages of a kind we do not know; counted, not refused.
    unknown,
    malformed,
    gaps,
    /// Sequence numbers that went backwards.
    rewinds,
    /// Updates that overlapped the book's id other than right after a snapshot.
    overlaps,
    checksum_ok,
    checksum_bad,
    crossed,
    snapshots,
    /// Snapshots taken by a live book whose known part had worn off.
    refreshes,
    /// Snapshots that were older than the buffered updates.
    snapshots_old,
    buffer_overflows,
    /// Updates that a book's capacity could not hold.
    dropped_levels,
    resyncs,
    connects,
    disconnects,
    rotations,
    /// Error replies of the venue to what we sent.
    refused,
    /// Subscriptions that were acknowledged and then stayed silent.
    mute,
    /// Heartbeats the venue's counter says we missed.
    missed_heartbeats,
    /// Instruments whose rules or status changed.
    rule_changes,
    audits,
    audits_wrong,
    /// Best-price messages that agreed and disagreed with the book.
    ticker_equal,
    ticker_differs,
    silences,
    lags,
    clock_steps,
    requests,
    requests_failed,
    fallbacks,
    /// Live books that went over from one of two redundant connections to the other.
    takeovers,
    /// Times that two redundant connections said different best prices, and neither was behind.
    disagreements,
    /// Batches with a best price that the other connection was too late to confirm.
    unconfirmed,
    /// Books of the connection that does not lead that are live: how many could be taken over now.
    standby_live,
}

/// What an operator chooses for a machine. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Best levels a side that are published (W).
    pub window: usize,
    /// Levels a side that the full book holds.
    pub capacity: usize,
    /// Instruments a connection.
    pub per_conn: usize,
    /// Kraken: subscribed depth. Binance: levels of the REST snapshot.
    pub depth: u32,
    /// Binance: merge `bookTicker` into the book.
    pub ticker: bool,
    /// Compare books with the REST book, and be `Live` only after the first comparison.
    pub audit: bool,
    /// Between two audits of one book.
    pub audit_every_ns: i64,
    /// Between two readings of the instruments' rules; 0 is never. Kraken sends changes by itself.
    pub rules_every_ns: i64,
    /// Nothing received for longer: the connection's books are stale and it is probed.
    pub silence_ns_max: i64,
    /// Nothing received for this long after the probe: the connection is dead.
    pub probe_ns_max: i64,
    /// Events later than this beyond the usual are stale.
    pub lag_ns_max: i64,
    /// Lag that does not fall within this time: reconnect.
    pub lag_patience_ns: i64,
    /// A subscription without its first message for this long is repeated.
    pub first_message_ns_max: i64,
    /// `Beat` records at most this often.
    pub beat_every_ns: i64,
    /// WebSocket down for longer: REST snapshots instead.
    pub fallback_after_ns: i64,
    /// Between two REST snapshots of one book while falling back.
    pub fallback_every_ns: i64,
    /// Binance: age at which a connection is replaced, make-before-break (the venue ends it at 24 h).
    pub rotate_after_ns: i64,
    /// Share of the venue's REST budget this machine may use, in parts per million.
    pub rest_share_ppm: u32,
    /// Machines that share the venue's limits of this address; each keeps to its part of them.
    pub sharers: u32,
    /// Two redundant connections: one that brings a best price later than this after the other is behind
    /// and not waited for.
    pub confirm_ns_max: i64,
    /// Seed of the backoff jitter.
    pub seed: u64,
}

const SECOND: i64 = 1_000_000_000;

impl Options {
    /// Returns this machine's part of a limit of the address, at least one.
    #[must_use]
    pub fn part(&self, limit: u32) -> u32 {
        (limit / self.sharers.max(1)).max(1)
    }

    /// Returns this machine's part of the venue's REST budget, in parts per million.
    #[must_use]
    pub fn rest_part_ppm(&self) -> u32 {
        self.part(self.rest_share_ppm)
    }

    /// Returns what suits a venue on its recorded traffic.
    #[must_use]
    pub fn for_venue(venue: Venue) -> Options {
        let common = Options {
            window: 400,
            capacity: 8_192,
            per_conn: 64,
            depth: 5_000,
            ticker: true,
            audit: true,
            audit_every_ns: 300 * SECOND,
            rules_every_ns: 60 * SECOND,
            // A 100 ms slot without changes sends nothing; 19 s was seen on one small symbol, but not on
            // a connection that carries a busy one.
            silence_ns_max: 3 * SECOND,
            probe_ns_max: 2 * SECOND,
            lag_ns_max: SECOND,
            lag_patience_ns: 2 * SECOND,
            first_message_ns_max: 10 * SECOND,
            beat_every_ns: SECOND / 20,
            fallback_after_ns: 5 * SECOND,
            fallback_every_ns: 5 * SECOND,
            rotate_after_ns: 23 * 3600 * SECOND,
            rest_share_ppm: 500_000,
            sharers: 1,
            // The period of Binance's diffs: what comes later than that is not only on its way.
            confirm_ns_max: SECOND / 10,
            seed: 1,
        };
        match venue {
            Venue::Binance => common,
            Venue::Coinbase => Options {
                // BTC-USD snapshots hold 27,195 levels a side (2026-08-09).
                capacity: 65_536,
                per_conn: 4,
                // A heartbeat comes every second.
                silence_ns_max: 3 * SECOND,
                first_message_ns_max: 5 * SECOND,
                ..common
            },
            Venue::Kraken => Options {
                depth: 10,
                capacity: 1_024,
                // Every message proves itself.
                audit: false,
                // A heartbeat comes every second when nothing else does; the vendor says 5 s is dead.
                silence_ns_max: 4 * SECOND,
                first_message_ns_max: 5 * SECOND,
                ..common
            },
        }
    }
}

/// A venue's sync machine. See the module for the contract.
pub trait Machine {
    /// Returns the venue.
    fn venue(&self) -> Venue;

    /// Returns the next thing to be done, or nothing for now.
    fn next_action(&mut self) -> Option<Action>;

    /// A WebSocket is open.
    fn on_open(&mut self, conn: u32, now_ns: i64);

    /// A text frame came. The payload may be scribbled on.
    fn on_frame(&mut self, conn: u32, payload: &mut [u8], at: Stamps, out: &mut dyn Publish);

    /// A pong came.
    fn on_pong(&mut self, conn: u32, now_ns: i64);

    /// A connection is gone, or never came to be.
    fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, out: &mut dyn Publish);

    /// A request has its outcome.
    fn on_reply(&mut self, request: u32, reply: Reply<'_>, at: Stamps, out: &mut dyn Publish);

    /// Time passed.
    fn on_timer(&mut self, now_ns: i64, out: &mut dyn Publish);

    /// Returns the machine's instruments; `slot` below is an index into them, [`VenueInstrument::id`] is
    /// what records carry.
    fn instruments(&self) -> &[VenueInstrument];

    /// Returns the full book of a slot.
    fn book(&self, slot: usize) -> &Book;

    /// Returns how many levels of each side are published: the engine holds exactly these.
    fn shown(&self, slot: usize) -> [usize; 2];

    /// Returns the state of a slot's book as it was last published.
    fn state(&self, slot: usize) -> (BookState, Reason);

    /// Returns the venue's update id and event time that a slot's book stands at.
    fn position(&self, slot: usize) -> Position;

    /// Returns when a message about any book last came over the connection of a slot, UNIX ns; 0 where none
    /// did.
    fn heard_ns(&self, slot: usize) -> i64;

    /// Somebody has reason to doubt a slot's book: it is said to be stale, and it begins anew.
    fn doubt(&mut self, slot: usize, reason: Reason, now_ns: i64, out: &mut dyn Publish);

    /// Returns a slot whose book or state changed since it was last returned; for the latest page.
    fn take_dirty(&mut self) -> Option<usize>;

    /// Returns the counters.
    fn stats(&self) -> &MachineStats;
}

/// Where a book stands in the venue's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Venue's update id or sequence; 0 where it has none.
    pub update_id: u64,
    /// Venue's time of the last event, UNIX ns; 0 where unknown.
    pub venue_ts_ns: i64,
    /// When its message came, UNIX ns.
    pub recv_ns: i64,
    /// Connection it came over.
    pub conn: u32,
}
