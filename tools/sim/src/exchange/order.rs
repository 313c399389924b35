//! Orders, fills, and what is reported of them.
//!
//! Invariant: an [`Order`] is the venue's own record. `filled + left` is its quantity until a terminal status,
//! `reserved` is zero after it, and a fill names the order it belongs to for ever.

use serde::Serialize;

use crate::amount::Amount;
use crate::book::Side;
use crate::config::Venue;

/// How an order takes and rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderType {
    /// A limit order.
    Limit,
    /// A limit order that must not take.
    PostOnly,
    /// A market order.
    Market,
}

/// How long an order stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tif {
    /// Until cancelled.
    Gtc,
    /// What does not fill at once is gone.
    Ioc,
    /// All at once or nothing.
    Fok,
    /// Until a UNIX time in nanoseconds.
    Gtd(u64),
}

/// What becomes of orders of one account that would trade with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stp {
    /// They trade.
    None,
    /// The taking order ends.
    #[default]
    Taker,
    /// The resting order ends.
    Maker,
    /// Both end.
    Both,
    /// Both shrink by what would have traded.
    Decrement,
}

/// How much an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Lots of the base asset.
    Base(i64),
    /// Money to spend or to receive.
    Quote(Amount),
}

/// What one order suffers, drawn from the faults when it arrived.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quirks {
    /// Only this share of what could fill does, in parts per million.
    pub fraction_ppm: Option<u32>,
    /// Not to be found by queries until this long after acceptance.
    pub hidden_ns: u64,
    /// Every fill is this much worse than agreed, in parts per million: the venue lies.
    pub worse_ppm: i64,
    /// Fills this much more than was asked, in parts per million: the venue lies.
    pub overfill_ppm: u32,
    /// The quantity is silently reduced by this share, in parts per million.
    pub reduce_ppm: u32,
}

/// An order as a face hands it over.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOrder {
    /// Index of the instrument.
    pub inst: usize,
    /// [`Side::Bid`] buys.
    pub side: Side,
    /// How it takes and rests.
    pub kind: OrderType,
    /// How long it stays.
    pub tif: Tif,
    /// Limit in ticks; absent for market orders.
    pub px: Option<i64>,
    /// How much.
    pub size: Size,
    /// The client's name for it; empty is none.
    pub client_id: String,
    /// Against trading with oneself.
    pub stp: Stp,
    /// Whether the fee is wanted in the base asset (Kraken's `fcib`).
    pub fee_in_base: bool,
    /// Another wallet for the quote side (Coinbase's `X-USDC` on the book of `X-USD`).
    pub quote: Option<String>,
    /// When its bytes were read.
    pub arrived_ns: u64,
    /// Whether the control port placed it.
    pub foreign: bool,
    /// Faults it suffers.
    pub quirks: Quirks,
    /// What the face wants back: symbol as submitted, user references.
    pub tag: String,
}

impl NewOrder {
    /// Returns a plain limit order.
    #[must_use]
    pub fn limit(inst: usize, side: Side, px: i64, lots: i64, tif: Tif) -> Self {
        Self {
            inst,
            side,
            kind: OrderType::Limit,
            tif,
            px: Some(px),
            size: Size::Base(lots),
            client_id: String::new(),
            stp: Stp::default(),
            fee_in_base: false,
            quote: None,
            arrived_ns: 0,
            foreign: false,
            quirks: Quirks::default(),
            tag: String::new(),
        }
    }
}

/// Where an order is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, nothing filled.
    Open,
    /// Some filled, the rest open.
    PartiallyFilled,
    /// All filled.
    Filled,
    /// Ended by a cancel.
    Canceled,
    /// Ended by the venue.
    Expired,
    /// Ended by self-trade prevention.
    Prevented,
}

impl Status {
    /// Returns whether nothing can happen to it any more.
    #[must_use]
    pub fn is_done(self) -> bool {
        !matches!(self, Self::Open | Self::PartiallyFilled)
    }

    /// Returns the name the control port prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::PartiallyFilled => "partially_filled",
            Self::Filled => "filled",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
            Self::Prevented => "prevented",
        }
    }
}

/// Why an order ended without being filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A client asked.
    User,
    /// The rest of an IOC.
    Ioc,
    /// A FOK that could not fill.
    Fok,
    /// A market order that found no more.
    NoLiquidity,
    /// A post-only order that would have taken (Kraken tells so afterwards).
    PostOnly,
    /// Its time came.
    Gtd,
    /// Self-trade prevention.
    Stp,
    /// A dead-man switch.
    DeadMan,
    /// The venue, for its own reasons.
    Venue,
}

/// One order.
#[derive(Clone, Debug)]
pub struct Order {
    /// Index in the desk; it grows with acceptance.
    pub id: usize,
    /// The venue's name for it.
    pub ext: String,
    /// Index of the account.
    pub account: usize,
    /// Venue.
    pub venue: Venue,
    /// What was asked.
    pub ask: NewOrder,
    /// Asset bought or sold.
    pub base: String,
    /// Asset of the wallet that pays or is paid.
    pub quote: String,
    /// Quantity in lots; for an order by money what it came to.
    pub lots: i64,
    /// Lots filled.
    pub filled: i64,
    /// Lots taken away by self-trade prevention or silently.
    pub prevented: i64,
    /// Money moved, before fees.
    pub cost: Amount,
    /// Fees paid, in whatever assets.
    pub fees: Vec<(String, Amount)>,
    /// Fills so far.
    pub fill_count: u32,
    /// Where it is.
    pub status: Status,
    /// Why it ended, if it did without being filled.
    pub ended: Option<Ended>,
    /// When it was accepted.
    pub accepted_ns: u64,
    /// When it last changed.
    pub updated_ns: u64,
    /// When it ended.
    pub done_ns: Option<u64>,
    /// Held of [`Order::hold_asset`].
    pub reserved: Amount,
    /// Lots of the flow that were there first.
    pub ahead: i64,
    /// Queries do not find it before this time.
    pub visible_ns: u64,
    /// When a cancel was asked for and acknowledged, though it still rests (a fault).
    pub canceling: bool,
}

impl Order {
    /// Lots that may still fill.
    #[must_use]
    pub fn left(&self) -> i64 {
        if self.status.is_done() { 0 } else { (self.lots - self.filled - self.prevented).max(0) }
    }

    /// Returns the asset it holds while it is open.
    #[must_use]
    pub fn hold_asset(&self) -> &str {
        if self.ask.side == Side::Bid { &self.quote } else { &self.base }
    }

    /// Returns the total of its fees in one asset.
    #[must_use]
    pub fn fee_in(&self, asset: &str) -> Amount {
        self.fees.iter().filter(|(a, _)| a == asset).map(|(_, fee)| *fee).sum()
    }
}

/// One fill of one order.
#[derive(Clone, Debug)]
pub struct Fill {
    /// Index in the desk.
    pub id: usize,
    /// The order.
    pub order: usize,
    /// Its account.
    pub account: usize,
    /// Instrument.
    pub inst: usize,
    /// Side of the order.
    pub side: Side,
    /// The instrument's trade id.
    pub trade_id: u64,
    /// Price in ticks.
    pub px: i64,
    /// Lots.
    pub lots: i64,
    /// The same in the base asset.
    pub qty: Amount,
    /// Money moved.
    pub cost: Amount,
    /// Fee.
    pub fee: Amount,
    /// Asset of the fee.
    pub fee_asset: String,
    /// Whether the order rested.
    pub maker: bool,
    /// When.
    pub at_ns: u64,
    /// Whether it was taken back.
    pub busted: bool,
}

/// Something the owner of an account is told.
#[derive(Clone, Debug)]
pub struct Report {
    /// When.
    pub at_ns: u64,
    /// Whom.
    pub account: usize,
    /// What.
    pub what: What,
}

/// What is told.
#[derive(Clone, Debug)]
pub enum What {
    /// The order was accepted; as it was then.
    New(Box<Order>),
    /// It filled; as it is after the fill.
    Trade(Box<Order>, Box<Fill>),
    /// It ended.
    Ended(Box<Order>, Ended),
    /// Its quantity or price changed.
    Amended(Box<Order>),
    /// Self-trade prevention took lots.
    Prevented(Box<Order>, i64),
    /// These balances may have changed.
    Balances(Vec<String>),
    /// Money came or went from outside.
    External(String, Amount),
}

/// Why an order or a cancel was refused; faces put it into their venue's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A price off the step in force.
    Tick,
    /// A quantity off the step in force.
    Lot,
    /// A quantity below the least.
    MinQty,
    /// A quantity above the most.
    MaxQty,
    /// A worth below the least.
    MinNotional,
    /// A worth above the most.
    MaxNotional,
    /// A price too far from the market.
    PriceBand,
    /// Not enough money.
    Funds,
    /// A post-only order that would take.
    WouldTake,
    /// A client id that an open order already has.
    DuplicateId,
    /// No such order, or it is done.
    UnknownOrder,
    /// The instrument or the venue does not take this now.
    Closed(Mode),
    /// Too many open orders.
    TooManyOrders,
    /// No quantity on the other side to price a market order.
    NoLiquidity,
    /// An amendment that makes no sense.
    BadAmend,
    /// A fault's own words: the venue's code or text.
    Said(String),
}

/// What a venue's engine takes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    #[default]
    Online,
    /// Only orders that rest.
    PostOnly,
    /// No market orders.
    LimitOnly,
    /// Only cancels.
    CancelOnly,
    /// Nothing.
    Maintenance,
}

impl Mode {
    /// Returns the mode of a venue's name for it.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "post_only" => Self::PostOnly,
            "limit_only" => Self::LimitOnly,
            "cancel_only" => Self::CancelOnly,
            "online" => Self::Online,
            _ => Self::Maintenance,
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::PostOnly => "post_only",
            Self::LimitOnly => "limit_only",
            Self::CancelOnly => "cancel_only",
            Self::Maintenance => "maintenance",
        }
    }
}
