//! Orders as records: what the engine asks of a gateway and what a gateway reports.
//!
//! Invariant: an order is named by its run and its [`OrderKey`] and by nothing else, for ever: the
//! client order id that the venue sees is those two numbers and can be read back from it. Every report
//! names the order, so reports may arrive in any sequence, twice, or years later.
//!
//! Not here: what the states of an order are and how they follow (`orders`), how venues spell all this
//! (`tandem-gateway`).

use crate::record::{Kind, Record, Venue, flag};
use crate::units::{Amount, Px, Qty, Side};

/// Most orders of one round; entry legs come first, what hedges them after.
pub const ORDERS_PER_ROUND: u16 = 1 << 12;
/// Most rounds of one run: thirty bits, so that the client id stays short.
pub const ROUNDS_MAX: u64 = 1 << 30;
/// Length of a client order id: Kraken takes at most 18 characters.
pub const CLIENT_ID_LEN: usize = 17;
/// First character of every client order id of ours.
pub const CLIENT_ID_PREFIX: u8 = b't';

/// An order's name within its run: round and number within the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct OrderKey(pub i64);

impl OrderKey {
    /// Returns the key of order `n` of a round.
    ///
    /// # Panics
    /// Never for rounds below [`ROUNDS_MAX`] and numbers below [`ORDERS_PER_ROUND`]; others are cut.
    #[must_use]
    pub const fn new(round: u64, n: u16) -> OrderKey {
        let round = (round % ROUNDS_MAX) as i64;
        OrderKey(round << 16 | (n % ORDERS_PER_ROUND) as i64)
    }

    /// Returns the round.
    #[must_use]
    pub const fn round(self) -> u64 {
        (self.0 as u64 >> 16) % ROUNDS_MAX
    }

    /// Returns the number within the round.
    #[must_use]
    pub const fn n(self) -> u16 {
        (self.0 & 0xffff) as u16 % ORDERS_PER_ROUND
    }
}

/// Crockford's base 32 in lower case: no letter is mistaken for a digit.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The client order id: prefix, run (7 digits), round (6), number (3), all base 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId([u8; CLIENT_ID_LEN]);

impl ClientId {
    /// Returns the id of an order.
    #[must_use]
    pub fn new(run: u32, key: OrderKey) -> ClientId {
        let mut text = [0; CLIENT_ID_LEN];
        text[0] = CLIENT_ID_PREFIX;
        put(&mut text[1..8], u64::from(run));
        put(&mut text[8..14], key.round());
        put(&mut text[14..17], u64::from(key.n()));
        ClientId(text)
    }

    /// Reads an id back; nothing where it is not one of ours.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<(u32, OrderKey)> {
        if text.len() != CLIENT_ID_LEN || text[0] != CLIENT_ID_PREFIX {
            return None;
        }
        let run = u32::try_from(take(&text[1..8])?).ok()?;
        let (round, n) = (take(&text[8..14])?, take(&text[14..17])?);
        let n = u16::try_from(n).ok().filter(|n| *n < ORDERS_PER_ROUND)?;
        Some((run, OrderKey::new(round, n)))
    }

    /// Returns the id's characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only digits of `DIGITS` and the prefix are ever put in.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn put(text: &mut [u8], mut value: u64) {
    for at in text.iter_mut().rev() {
        *at = DIGITS[(value % 32) as usize];
        value /= 32;
    }
}

fn take(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |value, c| {
        let digit = DIGITS.iter().position(|digit| digit == c)?;
        Some(value * 32 + digit as u64)
    })
}

/// What an order does to our base asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// Buys base.
    Buy = 0,
    /// Sells base.
    Sell = 1,
}

impl Action {
    /// Returns the opposite.
    #[must_use]
    pub const fn other(self) -> Action {
        match self {
            Action::Buy => Action::Sell,
            Action::Sell => Action::Buy,
        }
    }

    /// Returns the side of the book that a taker takes.
    #[must_use]
    pub const fn takes(self) -> Side {
        match self {
            Action::Buy => Side::Ask,
            Action::Sell => Side::Bid,
        }
    }

    /// Returns whether `px` is worse than `limit` for whoever does this.
    #[must_use]
    pub const fn is_worse(self, px: Px, limit: Px) -> bool {
        match self {
            Action::Buy => limit.0 < px.0,
            Action::Sell => px.0 < limit.0,
        }
    }
}

/// How long an order stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tif {
    /// Fills what it can at once, the rest expires.
    Ioc = 0,
    /// All at once or nothing.
    Fok = 1,
    /// Rests until cancelled.
    Gtc = 2,
    /// Rests; refused where it would take.
    PostOnly = 3,
}

/// Why an order is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// A leg of a round.
    Entry = 0,
    /// Completes a round whose legs filled unequally.
    Hedge = 1,
    /// Takes back what a round had filled.
    Unwind = 2,
    /// An operator's or a drill's order.
    Operator = 3,
}

impl Purpose {
    /// Returns whether the order only lowers what a round has left over.
    #[must_use]
    pub const fn reduces(self) -> bool {
        matches!(self, Purpose::Hedge | Purpose::Unwind)
    }
}

/// A new order, one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// Run of the engine that made it.
    pub run: u32,
    /// Its name within the run.
    pub key: OrderKey,
    /// Where.
    pub venue: Venue,
    /// What.
    pub instrument: u16,
    /// Which way.
    pub action: Action,
    /// Limit.
    pub px: Px,
    /// Quantity of base.
    pub qty: Qty,
    /// How long it stays.
    pub tif: Tif,
    /// Why.
    pub purpose: Purpose,
    /// The gateway must not send it later than this, and tells the venue the same where it can; UNIX ns.
    pub expires_ns: i64,
    /// Opportunity it follows from; 0 where none.
    pub cause: u64,
    /// Epoch of the level word that it was allowed under.
    pub level_epoch: u16,
}

impl NewOrder {
    /// Returns the record; `trigger` is what made the engine decide, for latency.
    #[must_use]
    pub fn record(&self, trigger: &Record) -> Record {
        let terms = self.action as i64 | (self.tif as i64) << 8 | (self.purpose as i64) << 16;
        Record {
            flags: flag::OUTPUT | flag::LAST,
            epoch: self.level_epoch,
            update_id: self.cause,
            venue_ts_ns: self.expires_ns,
            recv_ts_ns: trigger.recv_ts_ns,
            recv_tsc: trigger.recv_tsc,
            ring: trigger.ring,
            ring_seq: trigger.ring_seq,
            engine_ts_ns: trigger.engine_ts_ns,
            run: self.run,
            ..Record::new(
                Kind::OrderNew,
                self.venue as u8,
                self.instrument,
                [self.key.0, self.px.0, self.qty.0, terms],
            )
        }
    }

    /// Reads the record; nothing where it is another kind or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<NewOrder> {
        if record.kind() != Some(Kind::OrderNew) {
            return None;
        }
        let [key, px, qty, terms] = record.data;
        if px <= 0 || qty <= 0 || key < 0 || terms >> 24 != 0 {
            return None;
        }
        Some(NewOrder {
            run: record.run,
            key: OrderKey(key),
            venue: Venue::from_tag(record.venue)?,
            instrument: record.instrument,
            action: [Action::Buy, Action::Sell].into_iter().find(|a| *a as i64 == terms & 0xff)?,
            px: Px(px),
            qty: Qty(qty),
            tif: [Tif::Ioc, Tif::Fok, Tif::Gtc, Tif::PostOnly]
                .into_iter()
                .find(|tif| *tif as i64 == terms >> 8 & 0xff)?,
            purpose: [Purpose::Entry, Purpose::Hedge, Purpose::Unwind, Purpose::Operator]
                .into_iter()
                .find(|purpose| *purpose as i64 == terms >> 16 & 0xff)?,
            expires_ns: record.venue_ts_ns,
            cause: record.update_id,
            level_epoch: record.epoch,
        })
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DoneStatus {
    /// All of it.
    Filled = 1,
    /// By a cancel, ours or the venue's.
    Cancelled = 2,
    /// The rest of an IOC, an unfillable FOK, or its time was up.
    Expired = 3,
    /// It would have met an order of our own.
    SelfTradePrevented = 4,
    /// Proven that the venue never had it (`reference/reliability.md` OE-04).
    NeverAccepted = 5,
}

/// Why an order or a cancel was refused for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RejectClass {
    /// No byte of it left us: egress guard, level, expiry, session down. The code is a `GuardReason`.
    NotSent = 1,
    /// Tick, lot, size, notional, price band.
    Filter = 2,
    /// Too little balance.
    Funds = 3,
    /// Too many requests; it was not looked at.
    RateLimit = 4,
    /// Key, signature, permission, clock.
    Auth = 5,
    /// The market takes no such order now.
    Market = 6,
    /// The client id is in use.
    Duplicate = 7,
    /// It would rest where it must not, or take where it must rest.
    PostOnly = 8,
    /// It would meet our own order.
    SelfTrade = 9,
    /// The order is not known there (cancels).
    NoOrder = 10,
    /// Another certain refusal.
    Other = 11,
}

/// Why an order's outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnknownCause {
    /// No reply in time.
    Timeout = 1,
    /// The connection was lost with the request on it.
    Disconnect = 2,
    /// The venue said that it does not know (HTTP 5xx, Binance -1006, -1007).
    Venue = 3,
    /// A reply that could not be read, or a code nobody documented.
    Unreadable = 4,
    /// The process that sent it died.
    Restart = 5,
}

/// What one fill moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillTerms {
    /// Price.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Fee, in the quanta of `asset`.
    pub fee: Amount,
    /// Asset index of the fee.
    pub asset: u16,
}

/// What a gateway says about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its bytes were handed to the socket.
    Sent {
        /// When, UNIX ns.
        at_ns: i64,
        /// When, TSC.
        tsc: u64,
    },
    /// The venue has it.
    Ack {
        /// The venue's id, 16 bytes: a number, a UUID, or Kraken's letters.
        venue_id: u128,
    },
    /// One fill.
    Fill {
        /// Price.
        px: Px,
        /// Quantity.
        qty: Qty,
        /// Fee, in the quanta of `asset`.
        fee: Amount,
        /// Asset index of the fee.
        asset: u16,
        /// The venue's trade id, or a hash of it where it is text; never 0.
        trade_id: u64,
    },
    /// Running totals where the venue tells no single fills, and from queries.
    Totals {
        /// Filled so far.
        qty: Qty,
        /// Its worth in quote.
        cost: Amount,
        /// Fees so far, in the quanta of `asset`.
        fee: Amount,
        /// Asset index of the fee.
        asset: u16,
    },
    /// Final, with the filled quantity the venue tells.
    Done {
        /// How.
        status: DoneStatus,
        /// Filled in all.
        qty: Qty,
    },
    /// Refused for certain; it never was in a book.
    Reject {
        /// Class of the reason.
        class: RejectClass,
        /// The venue's code, 0 where it has none.
        code: i64,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        cause: UnknownCause,
    },
    /// The cancel was refused.
    CancelReject {
        /// Class of the reason.
        class: RejectClass,
        /// The venue's code, 0 where it has none.
        code: i64,
    },
    /// The venue took a fill back, or corrected it. Said twice it is true once.
    Bust {
        /// The trade id that the fill was told with; never 0.
        trade_id: u64,
        /// What the fill is from now on; nothing where it never was.
        instead: Option<FillTerms>,
    },
}

/// Returns the variant whose tag this is.
fn tagged<T: Copy>(all: &[T], tag: i64, of: impl Fn(T) -> u8) -> Option<T> {
    all.iter().copied().find(|item| i64::from(of(*item)) == tag)
}

impl DoneStatus {
    /// Every status, in the order of its tag.
    pub const ALL: [DoneStatus; 5] = [
        DoneStatus::Filled,
        DoneStatus::Cancelled,
        DoneStatus::Expired,
        DoneStatus::SelfTradePrevented,
        DoneStatus::NeverAccepted,
    ];
}

impl RejectClass {
    /// Every class, in the order of its tag.
    pub const ALL: [RejectClass; 11] = [
        RejectClass::NotSent,
        RejectClass::Filter,
        RejectClass::Funds,
        RejectClass::RateLimit,
        RejectClass::Auth,
        RejectClass::Market,
        RejectClass::Duplicate,
        RejectClass::PostOnly,
        RejectClass::SelfTrade,
        RejectClass::NoOrder,
        RejectClass::Other,
    ];

    /// Returns the class's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RejectClass::NotSent => "not_sent",
            RejectClass::Filter => "filter",
            RejectClass::Funds => "funds",
            RejectClass::RateLimit => "rate_limit",
            RejectClass::Auth => "auth",
            RejectClass::Market => "market",
            RejectClass::Duplicate => "duplicate",
            RejectClass::PostOnly => "post_only",
            RejectClass::SelfTrade => "self_trade",
            RejectClass::NoOrder => "no_order",
            RejectClass::Other => "other",
        }
    }
}

impl UnknownCause {
    /// Every cause, in the order of its tag.
    pub const ALL: [UnknownCause; 5] = [
        UnknownCause::Timeout,
        UnknownCause::Disconnect,
        UnknownCause::Venue,
        UnknownCause::Unreadable,
        UnknownCause::Restart,
    ];
}

impl Report {
    /// Returns the record of this report about an order; receive stamps are the caller's to add.
    #[must_use]
    pub fn record(&self, venue: Venue, instrument: u16, run: u32, key: OrderKey) -> Record {
        let (kind, data, asset, update_id) = match *self {
            Report::Sent { at_ns, tsc } => (Kind::OrderSent, [at_ns, tsc as i64, 0], 0, 0),
            Report::Ack { venue_id } => {
                let halves = [venue_id as i64, (venue_id >> 64) as i64, 0];
                (Kind::OrderAck, halves, 0, 0)
            }
            Report::Fill { px, qty, fee, asset, trade_id } => {
                (Kind::OrderFill, [px.0, qty.0, fee.0], asset, trade_id)
            }
            Report::Totals { qty, cost, fee, asset } => {
                (Kind::OrderTotals, [qty.0, cost.0, fee.0], asset, 0)
            }
            Report::Done { status, qty } => (Kind::OrderDone, [status as i64, qty.0, 0], 0, 0),
            Report::Reject { class, code } => (Kind::OrderReject, [class as i64, code, 0], 0, 0),
            Report::Unknown { cause } => (Kind::OrderUnknown, [cause as i64, 0, 0], 0, 0),
            Report::CancelReject { class, code } => {
                (Kind::CancelReject, [class as i64, code, 0], 0, 0)
            }
            Report::Bust { trade_id, instead: None } => (Kind::OrderBust, [0; 3], 0, trade_id),
            Report::Bust { trade_id, instead: Some(is) } => {
                (Kind::OrderBust, [is.px.0, is.qty.0, is.fee.0], is.asset, trade_id)
            }
        };
        let data = [key.0, data[0], data[1], data[2]];
        let record = Record::new(kind, venue as u8, instrument, data);
        Record { flags: flag::LAST, asset, update_id, run, ..record }
    }

    /// Reads a report and the order it is about; nothing where the record is none or makes no sense.
    #[must_use]
    pub fn read(record: &Record) -> Option<(u32, OrderKey, Report)> {
        let [key, a, b, c] = record.data;
        let asset = record.asset;
        let report = match record.kind()? {
            Kind::OrderSent => Report::Sent { at_ns: a, tsc: b as u64 },
            Kind::OrderAck => {
                Report::Ack { venue_id: u128::from(a as u64) | u128::from(b as u64) << 64 }
            }
            Kind::OrderFill if 0 < a && 0 < b && record.update_id != 0 => Report::Fill {
                px: Px(a),
                qty: Qty(b),
                fee: Amount(c),
                asset,
                trade_id: record.update_id,
            },
            Kind::OrderTotals if 0 <= a && 0 <= b => {
                Report::Totals { qty: Qty(a), cost: Amount(b), fee: Amount(c), asset }
            }
            Kind::OrderDone if 0 <= b => {
                Report::Done { status: tagged(&DoneStatus::ALL, a, |s| s as u8)?, qty: Qty(b) }
            }
            Kind::OrderReject => {
                Report::Reject { class: tagged(&RejectClass::ALL, a, |s| s as u8)?, code: b }
            }
            Kind::OrderUnknown => {
                Report::Unknown { cause: tagged(&UnknownCause::ALL, a, |s| s as u8)? }
            }
            Kind::CancelReject => {
                Report::CancelReject { class: tagged(&RejectClass::ALL, a, |s| s as u8)?, code: b }
            }
            Kind::OrderBust if record.update_id != 0 => {
                let instead = match (a, b, c) {
                    (0, 0, 0) => None,
                    (1.., 1.., _) => {
                        Some(FillTerms { px: Px(a), qty: Qty(b), fee: Amount(c), asset })
                    }
                    _ => return None,
                };
                Report::Bust { trade_id: record.update_id, instead }
            }
            _ => return None,
        };
        (0 <= key).then_some((record.run, OrderKey(key), report))
    }
}

/// Returns the request to cancel an order, or to find out about it.
#[must_use]
pub fn request(kind: Kind, venue: Venue, instrument: u16, run: u32, key: OrderKey) -> Record {
    debug_assert!(matches!(kind, Kind::OrderCancel | Kind::OrderQuery), "the two requests");
    let record = Record::new(kind, venue as u8, instrument, [key.0, 0, 0, 0]);
    Record { flags: flag::OUTPUT | flag::LAST, run, ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_reads_back_and_no_other_text_does() {
        for (run, round, n) in
            [(0, 0, 0), (u32::MAX, ROUNDS_MAX - 1, ORDERS_PER_ROUND - 1), (7, 9, 4)]
        {
            let key = OrderKey::new(round, n);
            assert_eq!((key.round(), key.n()), (round, n));
            let id = ClientId::new(run, key);
            assert_eq!(ClientId::parse(id.as_bytes()), Some((run, key)));
            assert_eq!(id.as_str().len(), CLIENT_ID_LEN);
        }
        for text in [
            "",
            "t",
            "x0000000000000000",
            "t000000000000000u",
            "t00000000000000000",
            "tzzzzzzz000000000",
        ] {
            assert_eq!(ClientId::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn orders_and_reports_read_back() {
        let order = NewOrder {
            run: 3,
            key: OrderKey::new(77, 2),
            venue: Venue::Kraken,
            instrument: 5,
            action: Action::Sell,
            px: Px(100),
            qty: Qty(7),
            tif: Tif::PostOnly,
            purpose: Purpose::Unwind,
            expires_ns: 42,
            cause: 9,
            level_epoch: 8,
        };
        assert_eq!(NewOrder::read(&order.record(&Record::default())), Some(order));
        let mut bad = order.record(&Record::default());
        bad.data[3] = 0xff;
        assert_eq!(NewOrder::read(&bad), None);
        let key = order.key;
        for report in [
            Report::Sent { at_ns: 1, tsc: 2 },
            Report::Ack { venue_id: u128::MAX - 5 },
            Report::Fill { px: Px(1), qty: Qty(2), fee: Amount(-3), asset: 4, trade_id: 5 },
            Report::Totals { qty: Qty(0), cost: Amount(0), fee: Amount(3), asset: 1 },
            Report::Done { status: DoneStatus::Expired, qty: Qty(0) },
            Report::Reject { class: RejectClass::Funds, code: -2010 },
            Report::Unknown { cause: UnknownCause::Venue },
            Report::CancelReject { class: RejectClass::NoOrder, code: -2011 },
            Report::Bust { trade_id: 5, instead: None },
            Report::Bust {
                trade_id: 5,
                instead: Some(FillTerms { px: Px(1), qty: Qty(2), fee: Amount(-3), asset: 4 }),
            },
        ] {
            let record = report.record(Venue::Binance, 1, 3, key);
            assert_eq!(Report::read(&record), Some((3, key, report)));
        }
        let no_trade_id =
            Report::Fill { px: Px(1), qty: Qty(2), fee: Amount(0), asset: 0, trade_id: 0 };
        assert_eq!(Report::read(&no_trade_id.record(Venue::Binance, 1, 3, key)), None);
        let half = Report::Bust { trade_id: 5, instead: None }.record(Venue::Binance, 1, 3, key);
        assert_eq!(Report::read(&Record { data: [key.0, 7, 0, 0], ..half }), None);
        assert_eq!(Report::read(&Record { update_id: 0, ..half }), None);
    }
}
