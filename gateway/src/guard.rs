//! The egress guard (C26): the only way by which a new order leaves.
//!
//! Invariant: the bytes of a new order reach a socket through [`Guard::send`] and nowhere else: a
//! [`Wires`] hands staged bytes to the kernel only against a [`Permit`], and only this module makes one.
//! The guard trusts nothing above it: it counts, it remembers what was sent, its caps are constants, and
//! the last thing it does before the write is to load the level word (I5). What breaks an invariant of
//! ours (an order sent twice, more orders than intents, a cap) raises KILL and ends the process; what is
//! merely not allowed is refused and reported as not sent.
//!
//! Not here: what may be traded and how much (the engine's controls), the venue's own limits (`budget`).

use std::collections::{HashSet, VecDeque};

use tandem_core::level::{Cause, Level, Scope};
use tandem_core::order::{NewOrder, OrderKey};
use tandem_core::record::Venue;

use crate::gate::Gate;
use crate::mute::muted;

/// New orders that may leave in one second, whatever anybody configured.
pub const ORDERS_PER_SECOND_MAX: usize = 50;
/// What they may be worth in one second, in US dollars by [`usd_ceiling`].
pub const USD_PER_SECOND_MAX: i128 = 250_000;
/// Keys remembered one by one; what is older is below the water mark and refused.
const RECENT: usize = 4_096;

/// Why a new order was not sent. The numbers are part of the format (`Reject` with class `NotSent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GuardReason {
    /// The record is no order that makes sense.
    Malformed = 1,
    /// It is for another venue, or for an instrument that is not this venue's.
    Address = 2,
    /// Its time was up.
    Expired = 3,
    /// An order of this key was sent already: an invariant of ours.
    Repeated = 4,
    /// [`ORDERS_PER_SECOND_MAX`]: an invariant of ours.
    OrdersCap = 5,
    /// [`USD_PER_SECOND_MAX`]: an invariant of ours.
    NotionalCap = 6,
    /// More orders than intents: an invariant of ours.
    Intents = 7,
    /// The session is not ready.
    Session = 8,
    /// The venue's rate budget is used up.
    Budget = 9,
    /// The level word.
    Level = 10,
    /// The socket has not taken what was sent before.
    Backlog = 11,
    /// The venue has no such order.
    Unsupported = 12,
    /// No room to remember it.
    Full = 13,
    /// No signed token is ready.
    Token = 14,
    /// Older than what is remembered one by one: whether it was sent cannot be told, so it is not sent.
    TooOld = 15,
}

impl GuardReason {
    /// Every reason, in the order of its tag.
    pub const ALL: [GuardReason; 15] = [
        GuardReason::Malformed,
        GuardReason::Address,
        GuardReason::Expired,
        GuardReason::Repeated,
        GuardReason::OrdersCap,
        GuardReason::NotionalCap,
        GuardReason::Intents,
        GuardReason::Session,
        GuardReason::Budget,
        GuardReason::Level,
        GuardReason::Backlog,
        GuardReason::Unsupported,
        GuardReason::Full,
        GuardReason::Token,
        GuardReason::TooOld,
    ];

    /// Returns the reason's name as shown to people and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            GuardReason::Malformed => "malformed",
            GuardReason::Address => "address",
            GuardReason::Expired => "expired",
            GuardReason::Repeated => "repeated",
            GuardReason::OrdersCap => "orders_cap",
            GuardReason::NotionalCap => "notional_cap",
            GuardReason::Intents => "intents",
            GuardReason::Session => "session",
            GuardReason::Budget => "budget",
            GuardReason::Level => "level",
            GuardReason::Backlog => "backlog",
            GuardReason::Unsupported => "unsupported",
            GuardReason::Full => "full",
            GuardReason::Token => "token",
            GuardReason::TooOld => "too_old",
        }
    }

    /// Returns whether it means that we are broken, so that the process must end.
    #[must_use]
    pub const fn is_fatal(self) -> bool {
        matches!(
            self,
            GuardReason::Repeated
                | GuardReason::OrdersCap
                | GuardReason::NotionalCap
                | GuardReason::Intents
        )
    }
}

/// Which connection an order leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A WebSocket, as a text frame.
    Ws {
        /// Its number.
        conn: u32,
    },
    /// A kept HTTP connection.
    Http {
        /// Its number.
        lane: u8,
        /// Number of the request.
        request: u32,
    },
}

/// The right to hand staged bytes to the kernel. Only [`Guard::send`] makes one, once for each order.
#[derive(Debug)]
pub struct Permit(());

/// The sockets, as far as new orders are concerned.
pub trait Wires {
    /// Puts the bytes ready without a system call, encrypted where they have to be. Refuses where earlier
    /// bytes still wait.
    fn stage(&mut self, route: Route, bytes: &[u8]) -> bool;

    /// Hands the staged bytes to the kernel. Where that fails, fully or in part, the connection is closed
    /// by a reset and `false` returned: what left is not known.
    fn commit(&mut self, route: Route, permit: Permit) -> bool;

    /// Gives up what was staged. Encrypted bytes cannot be taken back, so the connection is closed.
    fn discard(&mut self, route: Route);
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took all of it.
    Whole,
    /// The connection failed under it: some of it may be out.
    InDoubt,
}

/// What a breach does after KILL was raised.
pub type OnBreach = fn(GuardReason);

/// Ends the process: what is not it sees it die and cancels what is open.
pub fn abort(reason: GuardReason) {
    tracing::error!(reason = reason.name(), "egress guard: broken invariant, process ends");
    std::process::abort();
}

/// An upper bound of what one unit of a quote asset is worth in US dollars. Constants of this build: they
/// only scale the notional cap, and being too high only makes it stricter. Dollars are 1, what is not
/// known counts as a bitcoin.
#[must_use]
pub fn usd_ceiling(asset: &str) -> i128 {
    match asset {
        "USD" | "USDT" | "USDC" | "FDUSD" | "TUSD" | "DAI" => 1,
        "EUR" | "GBP" | "CHF" => 2,
        "ETH" => 10_000,
        "BNB" => 5_000,
        _ => 250_000,
    }
}

/// The guard of one venue.
#[derive(Debug)]
pub struct Guard {
    venue: Venue,
    run: u32,
    /// Keys of this run that were sent, and their order of sending.
    recent: HashSet<i64>,
    order: VecDeque<i64>,
    /// Rounds up to here are forgotten one by one: nothing of them is sent any more.
    floor: i64,
    /// Time and dollars of what was sent in the last second.
    second: VecDeque<(i64, i128)>,
    intents: u64,
    sends: u64,
    on_breach: OnBreach,
}

impl Guard {
    /// Returns a guard that has sent nothing.
    #[must_use]
    pub fn new(venue: Venue, on_breach: OnBreach) -> Guard {
        Guard {
            venue,
            run: 0,
            recent: HashSet::with_capacity(2 * RECENT),
            order: VecDeque::with_capacity(RECENT + 1),
            floor: -1,
            second: VecDeque::with_capacity(ORDERS_PER_SECOND_MAX + 1),
            intents: 0,
            sends: 0,
            on_breach,
        }
    }

    /// Counts an intent: a new-order record taken from the engine's ring.
    pub fn intent(&mut self) {
        self.intents += 1;
    }

    /// Returns intents and orders handed to sockets.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.intents, self.sends)
    }

    /// Remembers an order that an earlier process may have sent, so that it is never sent by this one.
    pub fn remember(&mut self, run: u32, key: OrderKey) {
        if self.run < run {
            self.begin(run);
        }
        if self.run == run {
            self.note(key);
        }
    }

    /// Checks what can be checked before the bytes exist: address, expiry, session.
    pub fn admit(&self, order: &NewOrder, ready: bool, now_ns: i64) -> Result<(), GuardReason> {
        if order.venue != self.venue && !muted("C26_ADDRESS") {
            return Err(GuardReason::Address);
        }
        if order.expires_ns <= now_ns && !muted("C26_EXPIRED") {
            return Err(GuardReason::Expired);
        }
        if !ready && !muted("C26_SESSION") {
            return Err(GuardReason::Session);
        }
        Ok(())
    }

    /// Sends a new order, or refuses. `usd` is what it may be worth at most.
    pub fn send(
        &mut self,
        order: &NewOrder,
        usd: i128,
        (route, bytes): (Route, &[u8]),
        (gate, wires): (&dyn Gate, &mut dyn Wires),
        now_ns: i64,
    ) -> Result<Sent, GuardReason> {
        if let Err(reason) = self.count(order, usd, now_ns) {
            if reason.is_fatal() {
                gate.raise(Scope::Global, Level::Kill, Cause::Invariant);
                (self.on_breach)(reason);
            }
            return Err(reason);
        }
        // Refused cheaply here; what counts is the second look below.
        if !allowed(gate, order) {
            return Err(GuardReason::Level);
        }
        if !wires.stage(route, bytes) {
            return Err(GuardReason::Backlog);
        }
        // The linearisation point (`reference/reliability.md` 6.3): between this load and the system call
        // that `commit` begins with there is nothing.
        if !allowed(gate, order) {
            wires.discard(route);
            return Err(GuardReason::Level);
        }
        let whole = wires.commit(route, Permit(()));
        self.sends += 1;
        self.second.push_back((now_ns, usd));
        if self.run != order.run {
            self.begin(order.run);
        }
        self.note(order.key);
        Ok(if whole { Sent::Whole } else { Sent::InDoubt })
    }

    fn begin(&mut self, run: u32) {
        self.run = run;
        self.recent.clear();
        self.order.clear();
        self.floor = -1;
    }

    fn note(&mut self, key: OrderKey) {
        if self.recent.insert(key.0) {
            self.order.push_back(key.0);
        }
        if RECENT < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
            self.floor = self.floor.max(oldest);
        }
    }

    fn count(&mut self, order: &NewOrder, usd: i128, now_ns: i64) -> Result<(), GuardReason> {
        let known =
            order.run < self.run || order.run == self.run && self.recent.contains(&order.key.0);
        if known && !muted("C26_REPEAT") {
            return Err(GuardReason::Repeated);
        }
        // A late hedge of a round that lasted: no fault of ours, but no proof either that it is new.
        if order.run == self.run && order.key.0 <= self.floor && !muted("C26_REPEAT") {
            return Err(GuardReason::TooOld);
        }
        if self.intents <= self.sends && !muted("C26_INTENTS") {
            return Err(GuardReason::Intents);
        }
        while self.second.front().is_some_and(|(at, _)| *at <= now_ns - 1_000_000_000) {
            self.second.pop_front();
        }
        if ORDERS_PER_SECOND_MAX <= self.second.len() && !muted("C26_ORDERS") {
            return Err(GuardReason::OrdersCap);
        }
        let worth: i128 = self.second.iter().map(|(_, usd)| *usd).sum();
        if USD_PER_SECOND_MAX < worth.saturating_add(usd) && !muted("C26_NOTIONAL") {
            return Err(GuardReason::NotionalCap);
        }
        Ok(())
    }
}

/// Loads the level word and judges an order by it: entries only at ARMED, what reduces also at PAUSE and
/// REDUCE, nothing above.
fn allowed(gate: &dyn Gate, order: &NewOrder) -> bool {
    let level = gate.level().effective(order.venue);
    let most = if order.purpose.reduces() { Level::Reduce } else { Level::Armed };
    level <= most || muted("LEVEL")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tandem_core::level::LevelWord;
    use tandem_core::order::{Action, Purpose, Tif};
    use tandem_core::units::{Px, Qty};

    use super::*;
    use crate::gate::LocalGate;

    fn order(n: u64) -> NewOrder {
        NewOrder {
            run: 7,
            key: OrderKey::new(n, 0),
            venue: Venue::Kraken,
            instrument: 0,
            action: Action::Buy,
            px: Px(100),
            qty: Qty(100),
            tif: Tif::Ioc,
            purpose: Purpose::Entry,
            expires_ns: i64::MAX,
            cause: 0,
            level_epoch: 0,
        }
    }

    /// Sockets that take everything, and run something between staging and the second look.
    struct Taking<'a> {
        staged: usize,
        committed: usize,
        discarded: usize,
        between: &'a dyn Fn(),
    }

    impl Wires for Taking<'_> {
        fn stage(&mut self, _: Route, _: &[u8]) -> bool {
            self.staged += 1;
            (self.between)();
            true
        }
        fn commit(&mut self, _: Route, _: Permit) -> bool {
            self.committed += 1;
            true
        }
        fn discard(&mut self, _: Route) {
            self.discarded += 1;
        }
    }

    fn taking(between: &dyn Fn()) -> Taking<'_> {
        Taking { staged: 0, committed: 0, discarded: 0, between }
    }

    static BREACHES: AtomicU32 = AtomicU32::new(0);

    fn breached(_: GuardReason) {
        BREACHES.fetch_add(1, Ordering::Relaxed);
    }

    fn guard() -> Guard {
        Guard::new(Venue::Kraken, breached)
    }

    fn send(
        guard: &mut Guard,
        order: &NewOrder,
        usd: i128,
        gate: &dyn Gate,
        wires: &mut dyn Wires,
        now_ns: i64,
    ) -> Result<Sent, GuardReason> {
        guard.admit(order, true, now_ns)?;
        guard.send(order, usd, (Route::Ws { conn: 1 }, b"x"), (gate, wires), now_ns)
    }

    #[test]
    fn entries_only_when_armed_and_reductions_until_reduce() {
        for (level, entry, hedge) in [
            (Level::Armed, true, true),
            (Level::Pause, false, true),
            (Level::Reduce, false, true),
            (Level::Halt, false, false),
            (Level::Kill, false, false),
        ] {
            for scope in [Scope::Global, Scope::Venue(Venue::Kraken)] {
                for (purpose, expected) in [
                    (Purpose::Entry, entry),
                    (Purpose::Operator, entry),
                    (Purpose::Hedge, hedge),
                    (Purpose::Unwind, hedge),
                ] {
                    let gate = LocalGate::armed();
                    gate.raise(scope, level, Cause::Operator);
                    let mut guard = guard();
                    guard.intent();
                    let mut wires = taking(&|| {});
                    let order = NewOrder { purpose, ..order(1) };
                    let sent = send(&mut guard, &order, 1, &gate, &mut wires, 0);
                    assert_eq!(sent.is_ok(), expected, "{level:?} {purpose:?}");
                    assert_eq!(wires.committed, usize::from(expected));
                }
            }
        }
    }

    /// I5: a level that is raised after the bytes were made still stops them.
    #[test]
    fn the_level_is_looked_at_last() {
        let gate = LocalGate::armed();
        let raise = || gate.raise(Scope::Global, Level::Halt, Cause::Operator);
        let mut wires = taking(&raise);
        let mut guard = guard();
        guard.intent();
        let sent = send(&mut guard, &order(1), 1, &gate, &mut wires, 0);
        assert_eq!(sent, Err(GuardReason::Level));
        assert_eq!((wires.staged, wires.committed, wires.discarded), (1, 0, 1));
        assert_eq!(guard.counts(), (1, 0));
    }

    #[test]
    fn what_raises_from_another_thread_is_obeyed() {
        let gate = LocalGate::armed();
        std::thread::scope(|scope| {
            scope.spawn(|| gate.raise(Scope::Global, Level::Kill, Cause::Operator));
        });
        let mut guard = guard();
        guard.intent();
        let sent = send(&mut guard, &order(1), 1, &gate, &mut taking(&|| {}), 0);
        assert_eq!(sent, Err(GuardReason::Level));
    }

    #[test]
    fn a_key_is_sent_once_and_old_ones_never() {
        let gate = LocalGate::armed();
        let mut guard = guard();
        let mut wires = taking(&|| {});
        let mut now_ns = 0;
        let mut go = |guard: &mut Guard, order: &NewOrder| {
            now_ns += 1_000_000_000;
            guard.intent();
            send(guard, order, 1, &gate, &mut wires, now_ns)
        };
        for n in 1..=RECENT as u64 + 10 {
            assert_eq!(go(&mut guard, &order(n)), Ok(Sent::Whole));
        }
        assert_eq!(gate.level().effective(Venue::Kraken), Level::Armed);
        // Below the water mark, and the late hedge of a round whose legs are below it: no fault.
        let late = NewOrder { key: OrderKey::new(4, 3), purpose: Purpose::Hedge, ..order(4) };
        for old in [order(1), order(9), order(10), late] {
            assert_eq!(go(&mut guard, &old), Err(GuardReason::TooOld), "{old:?}");
        }
        assert_eq!(gate.level().effective(Venue::Kraken), Level::Armed, "nothing was broken");
        for n in [11, RECENT as u64 + 10] {
            assert_eq!(go(&mut guard, &order(n)), Err(GuardReason::Repeated), "{n}");
        }
        assert_eq!(gate.level().effective(Venue::Kraken), Level::Kill, "an invariant of ours");
        let gate = LocalGate::armed();
        let mut older = order(RECENT as u64 + 99);
        older.run = 6;
        assert_eq!(
            send(&mut guard, &older, 1, &gate, &mut taking(&|| {}), 0),
            Err(GuardReason::Repeated)
        );
        guard.remember(8, OrderKey::new(3, 1));
        let mut again = NewOrder { key: OrderKey::new(3, 1), ..order(3) };
        again.run = 8;
        let gate = LocalGate::armed();
        assert_eq!(
            send(&mut guard, &again, 1, &gate, &mut taking(&|| {}), 0),
            Err(GuardReason::Repeated)
        );
    }

    #[test]
    fn caps_of_the_build_hold() {
        let before = BREACHES.load(Ordering::Relaxed);
        let gate = LocalGate::armed();
        let mut guard = guard();
        let mut wires = taking(&|| {});
        for n in 0..ORDERS_PER_SECOND_MAX as u64 {
            guard.intent();
            assert_eq!(send(&mut guard, &order(n), 1, &gate, &mut wires, 5), Ok(Sent::Whole));
        }
        guard.intent();
        assert_eq!(
            send(&mut guard, &order(900), 1, &gate, &mut wires, 5 + 999_999_999),
            Err(GuardReason::OrdersCap)
        );
        assert_eq!(gate.level().of(Scope::Global), Level::Kill);
        assert!(before < BREACHES.load(Ordering::Relaxed), "the process ends");
        let gate = LocalGate::armed();
        let later = 5 + 1_000_000_000;
        assert_eq!(
            send(&mut guard, &order(901), 249_999, &gate, &mut wires, later),
            Ok(Sent::Whole)
        );
        guard.intent();
        assert_eq!(
            send(&mut guard, &order(902), 2, &gate, &mut wires, later),
            Err(GuardReason::NotionalCap)
        );
        let gate = LocalGate::armed();
        assert_eq!(send(&mut guard, &order(903), 1, &gate, &mut wires, later), Ok(Sent::Whole));
    }

    #[test]
    fn never_more_orders_than_intents() {
        let gate = LocalGate::armed();
        let mut guard = guard();
        guard.intent();
        let mut wires = taking(&|| {});
        assert_eq!(send(&mut guard, &order(1), 1, &gate, &mut wires, 0), Ok(Sent::Whole));
        assert_eq!(send(&mut guard, &order(2), 1, &gate, &mut wires, 0), Err(GuardReason::Intents));
        assert_eq!(
            gate.level(),
            LevelWord(0).raised(Scope::Global, Level::Kill, Cause::Invariant).expect("raised")
        );
    }

    #[test]
    fn address_expiry_and_session_come_first() {
        let guard = guard();
        let cases = [
            (NewOrder { venue: Venue::Binance, ..order(1) }, true, Err(GuardReason::Address)),
            (NewOrder { expires_ns: 100, ..order(1) }, true, Err(GuardReason::Expired)),
            (NewOrder { expires_ns: 101, ..order(1) }, true, Ok(())),
            (order(1), false, Err(GuardReason::Session)),
        ];
        for (order, ready, expected) in cases {
            assert_eq!(guard.admit(&order, ready, 100), expected);
        }
    }
}
