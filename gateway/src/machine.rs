//! The face between sockets and a venue's order entry: everything without I/O.
//!
//! Invariant: a [`Dialect`] is a pure function of what it is told, as the feeds' machines are: no clock, no
//! socket, no randomness but from its seed. What it wants done it queues at the [`Desk`] as [`Action`]s, and
//! what it learns of orders it tells the desk, which makes records of it. No [`Action`] carries a new order:
//! those leave by [`crate::guard`] alone.
//!
//! Not here: sockets (`tile`), the order states and the reconciliation that all venues share (`desk`,
//! `gateway`).

use tandem_core::order::NewOrder;
use tandem_core::record::Venue;
use tandem_feeds::machine::{CloseCause, Reply, Stamps};

use crate::desk::Desk;
use crate::guard::{GuardReason, Route};

/// What a gateway wants done, besides new orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a WebSocket.
    Connect {
        /// Number of the connection from here on.
        conn: u32,
        /// Path and query.
        path: &'static str,
        /// Not before this UNIX time.
        not_before_ns: i64,
    },
    /// Send a text frame.
    Send {
        /// Connection.
        conn: u32,
        /// Text.
        text: String,
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
        /// Without the closing handshake.
        reset: bool,
    },
    /// Give up an HTTP connection whose request is not answered: it would hold up the next one.
    Drop {
        /// Which.
        lane: u8,
        /// The request on it, which fails.
        request: u32,
    },
    /// Send an HTTP request.
    Http {
        /// Connection for it: [`QUERY_LANE`], [`CANCEL_LANE`], or one of the order lanes above.
        lane: u8,
        /// Number of the request.
        request: u32,
        /// Head and body.
        bytes: Vec<u8>,
    },
}

/// The HTTP connection that queries go by.
pub const QUERY_LANE: u8 = 0;
/// The HTTP connection that cancels go by.
pub const CANCEL_LANE: u8 = 1;
/// The first HTTP connection for new orders.
pub const ORDER_LANE: u8 = 2;

/// What is compared with the venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audit {
    /// What is open there.
    OpenOrders,
    /// What we hold there.
    Balances,
    /// What was traded since a time.
    Trades,
    /// What the venue charges; at the start of a session only.
    Fees,
}

impl Audit {
    /// Every audit.
    pub const ALL: [Audit; 4] = [Audit::OpenOrders, Audit::Balances, Audit::Trades, Audit::Fees];
}

/// A new order as a venue spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelled {
    /// Which connection it leaves by.
    pub route: Route,
    /// The number by which its reply is known.
    pub id: u64,
    /// Until when the venue may accept it, UNIX ns.
    pub ttl_ns: i64,
}

/// One venue's way of saying things.
pub trait Dialect {
    /// Returns the venue.
    fn venue(&self) -> Venue;

    /// Opens the connections; called once.
    fn start(&mut self, desk: &mut Desk, now_ns: i64);

    /// A WebSocket is open.
    fn on_open(&mut self, desk: &mut Desk, conn: u32, now_ns: i64);

    /// A text frame came.
    fn on_text(&mut self, desk: &mut Desk, conn: u32, text: &[u8], at: Stamps);

    /// A pong came.
    fn on_pong(&mut self, desk: &mut Desk, conn: u32, now_ns: i64);

    /// A connection is gone, or never came to be.
    fn on_close(&mut self, desk: &mut Desk, conn: u32, cause: CloseCause, now_ns: i64);

    /// An HTTP request has its outcome.
    fn on_reply(&mut self, desk: &mut Desk, request: u32, reply: Reply<'_>, at: Stamps);

    /// Time passed.
    fn on_timer(&mut self, desk: &mut Desk, now_ns: i64);

    /// Spells a new order into [`Dialect::spelled`]. Neither allocates nor signs.
    fn spell(
        &mut self,
        desk: &mut Desk,
        order: &NewOrder,
        position: usize,
        now_ns: i64,
    ) -> Result<Spelled, GuardReason>;

    /// Returns what [`Dialect::spell`] wrote.
    fn spelled(&self) -> &[u8];

    /// An order that was spelled for this route found its connection not ready and did not leave.
    fn not_ready(&mut self, _route: Route) {}

    /// Sends a cancel; returns whether it could.
    fn cancel(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool;

    /// Asks what became of an order; returns whether it could.
    fn query(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool;

    /// Asks for the trades of an order; returns whether it could.
    fn order_trades(&mut self, desk: &mut Desk, slot: usize, now_ns: i64) -> bool;

    /// Asks which order of ours has this id of the venue's; returns whether it could.
    fn identify(&mut self, desk: &mut Desk, venue_id: u128, now_ns: i64) -> bool;

    /// Begins an audit; returns how many requests it takes, nothing where it could not begin.
    fn audit(&mut self, desk: &mut Desk, audit: Audit, now_ns: i64) -> Option<usize>;

    /// The user stream is in doubt: opens it anew.
    fn renew(&mut self, desk: &mut Desk, now_ns: i64);
}
