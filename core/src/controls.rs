//! Pre-trade controls C1 to C25 (`reference/reliability.md` section 7): every new order passes all of
//! them, in that order, or is not sent.
//!
//! Invariant: fail closed. An input that is missing, stale or does not fit denies. Limits are inclusive.
//! What an order may do is counted when it is decided and until it is final. All legs of a round pass
//! before the first one leaves, each with the others already counted (C12). Hedges skip only what the
//! table lets them skip.
//!
//! "HALT strategy" (C15, C21) is a global PAUSE here: there is one strategy, and its leftovers must still
//! be hedged. C5's second reference is the middle over all venues that show the pair; where only one does,
//! it is what base and quote are worth in the numeraire; where that is not known either, it denies.
//!
//! Not here: C26, the last look before the bytes leave (`tandem-gateway`); levels' effects (`trading`).

use alloc::vec;
use alloc::vec::Vec;

use crate::account::{Peer, PeerRole, Session, SessionState};
use crate::instrument::{AssetId, FeeIn, Universe};
use crate::ledger::{Ledger, clamp};
use crate::level::{Cause, Level, Scope};
use crate::limits::{Mode, Trading};
use crate::market::Market;
use crate::mutation::{Mute, muted};
use crate::order::{Action, Purpose, Tif};
use crate::orders::{Order, Orders, State};
use crate::params::Params;
use crate::record::{BookState, TradingStatus, Venue};
use crate::round::Rounds;
use crate::units::{PPM_PER_UNIT, Px, Qty, div, div_ceil, pow10};
use crate::value::{Bias, Valuer, quote_of, shift_of};

const S: i64 = 1_000_000_000;
const PPM: i128 = PPM_PER_UNIT as i128;
/// C2: a warden or gateway without a beat for longer is dead.
const BEAT_NS_MAX: i64 = S;
/// C23: a word about the clock that is older is none.
const CLOCK_AGE_NS_MAX: i64 = 60 * S;
/// C14: the same order for the same opportunity within this time is a duplicate.
const DUPLICATE_NS: i64 = 50_000_000;
/// C14: most equal orders for any opportunity in one second.
const EQUAL_1S_MAX: i64 = 2;
/// C5b: this many collar denials halt the instrument.
const COLLAR_DENIALS: i64 = 3;
/// C22: samples.
const ACKS: usize = 20;
/// C21: rounds.
const SHORTFALLS: usize = 50;
/// AC-08: fills.
const FEES: i64 = 50;
const SENT: usize = 128;
const FOREIGN: usize = 64;

/// A control. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Control {
    /// C1: the level.
    Level = 1,
    /// C2: session, stream, dead-man switch, warden.
    Venue = 2,
    /// C3: the instrument and the age of its rules.
    Instrument = 3,
    /// C4: tick, lot, minimums.
    Grid = 4,
    /// C5: the limit price against two references.
    Collar = 5,
    /// C6: quantity.
    Quantity = 6,
    /// C7: notional.
    Notional = 7,
    /// C8: worst-case exposure.
    Exposure = 8,
    /// C9: open orders.
    OpenOrders = 9,
    /// C10: unknown orders.
    Unknown = 10,
    /// C11: funds.
    Funds = 11,
    /// C12: room for the whole round.
    Pair = 12,
    /// C13: messages.
    Throttle = 13,
    /// C14: duplicates.
    Duplicate = 14,
    /// C15: repeated execution.
    Repeated = 15,
    /// C16: self-trade.
    SelfTrade = 16,
    /// C17: freshness.
    Freshness = 17,
    /// C18: edge and depth.
    Edge = 18,
    /// C19: losses.
    Loss = 19,
    /// C20: inventory.
    Inventory = 20,
    /// C21: slippage.
    Slippage = 21,
    /// C22: acknowledgements.
    Ack = 22,
    /// C23: clock.
    Clock = 23,
    /// C24: build and configuration.
    Build = 24,
    /// C25: session caps.
    Session = 25,
    /// C5b: prices over time.
    Moves = 26,
    /// Too many denials in one second.
    Denials = 27,
    /// Single legs in a row.
    SingleLegs = 28,
    /// What is too little to trade exceeds its cap.
    Dust = 29,
    /// A round's budget is used up and something is left over.
    Held = 30,
    /// The ledger differs from the venue's balance.
    Drift = 31,
    /// An invariant broke; see [`crate::orders::Broken`].
    Invariant = 32,
    /// The venue refused for a reason that stops trading there.
    Refusal = 33,
    /// Realised fees differ from the model.
    FeeModel = 34,
    /// Orders stayed unknown.
    LongUnknown = 35,
    /// A venue took a fill back, or corrected one.
    Bust = 36,
    /// What our own bounds leave of a candidate does not pay.
    Size = 37,
    /// As many rounds as may be are open.
    Rounds = 38,
    /// The step tried as many better ones as it may.
    Outranked = 39,
}

impl Control {
    /// How many numbers there are, 0 included.
    pub const COUNT: usize = 40;

    /// Every control of the table, C5b last.
    pub const TABLE: [Control; 26] = [
        Control::Level,
        Control::Venue,
        Control::Instrument,
        Control::Grid,
        Control::Collar,
        Control::Quantity,
        Control::Notional,
        Control::Exposure,
        Control::OpenOrders,
        Control::Unknown,
        Control::Funds,
        Control::Pair,
        Control::Throttle,
        Control::Duplicate,
        Control::Repeated,
        Control::SelfTrade,
        Control::Freshness,
        Control::Edge,
        Control::Loss,
        Control::Inventory,
        Control::Slippage,
        Control::Ack,
        Control::Clock,
        Control::Build,
        Control::Session,
        Control::Moves,
    ];

    /// Returns the control's name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Control::Level => "C1 level",
            Control::Venue => "C2 venue",
            Control::Instrument => "C3 instrument",
            Control::Grid => "C4 grid",
            Control::Collar => "C5 collar",
            Control::Quantity => "C6 quantity",
            Control::Notional => "C7 notional",
            Control::Exposure => "C8 exposure",
            Control::OpenOrders => "C9 open orders",
            Control::Unknown => "C10 unknown",
            Control::Funds => "C11 funds",
            Control::Pair => "C12 pair",
            Control::Throttle => "C13 throttle",
            Control::Duplicate => "C14 duplicate",
            Control::Repeated => "C15 repeated",
            Control::SelfTrade => "C16 self-trade",
            Control::Freshness => "C17 freshness",
            Control::Edge => "C18 edge",
            Control::Loss => "C19 loss",
            Control::Inventory => "C20 inventory",
            Control::Slippage => "C21 slippage",
            Control::Ack => "C22 acknowledgements",
            Control::Clock => "C23 clock",
            Control::Build => "C24 build",
            Control::Session => "C25 session",
            Control::Moves => "C5b moves",
            Control::Denials => "denials",
            Control::SingleLegs => "single legs",
            Control::Dust => "dust",
            Control::Held => "held round",
            Control::Drift => "drift",
            Control::Invariant => "invariant",
            Control::Refusal => "refusal",
            Control::FeeModel => "fee model",
            Control::LongUnknown => "long unknown",
            Control::Bust => "bust",
            Control::Size => "size",
            Control::Rounds => "open rounds",
            Control::Outranked => "outranked",
        }
    }

    /// Returns the control with this number.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Control> {
        let others = [
            Control::Denials,
            Control::SingleLegs,
            Control::Dust,
            Control::Held,
            Control::Drift,
            Control::Invariant,
            Control::Refusal,
            Control::FeeModel,
            Control::LongUnknown,
            Control::Bust,
            Control::Size,
            Control::Rounds,
            Control::Outranked,
        ];
        Control::TABLE.into_iter().chain(others).find(|control| *control as u8 == tag)
    }
}

/// What follows from a breach, besides the denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Deny,
    /// A level is raised.
    Raise(Scope, Level, Cause),
    /// The order's instrument is halted.
    HaltInstrument,
}

/// Why an order is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which control.
    pub control: Control,
    /// Instrument of the order.
    pub instrument: u16,
    /// What was found; `i64::MAX` where it is missing or does not fit.
    pub observed: i64,
    /// What is allowed.
    pub limit: i64,
    /// What follows.
    pub act: Act,
}

/// An order that wants to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Where.
    pub venue: Venue,
    /// What.
    pub instrument: u16,
    /// Which way.
    pub action: Action,
    /// Limit.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Why.
    pub purpose: Purpose,
    /// The opportunity.
    pub cause: u64,
    /// Expected edge of its round; entries alone.
    pub edge_ppm: i64,
}

/// Everything that the controls look at.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Instruments.
    pub universe: &'a Universe,
    /// Detection's parameters.
    pub params: &'a Params,
    /// The limits.
    pub limits: &'a Trading,
    /// Books.
    pub market: &'a Market,
    /// Worth.
    pub valuer: &'a Valuer,
    /// Our own books.
    pub ledger: &'a Ledger,
    /// Our orders.
    pub orders: &'a Orders,
    /// Our rounds.
    pub rounds: &'a Rounds,
    /// Effective level of each venue.
    pub levels: [Level; 3],
    /// The engine's now.
    pub now_ns: i64,
}

impl View<'_> {
    /// Returns the worth of an amount in the numeraire.
    #[must_use]
    #[inline]
    pub fn worth(&self, asset: AssetId, amount: i128, bias: Bias) -> Option<i128> {
        let books = (self.market, self.universe, self.params);
        self.valuer.worth(books, asset, amount, bias, self.now_ns)
    }

    #[inline]
    fn shift(&self, instrument: u16) -> u8 {
        shift_of(self.universe, instrument)
    }

    /// Returns what a quantity spends: asset and amount, fee in quote included.
    #[must_use]
    pub fn spends(&self, wish: &Wish) -> (AssetId, i128) {
        let rules = &self.universe.instruments[usize::from(wish.instrument)];
        match wish.action {
            Action::Sell => (rules.base, wish.qty.0.into()),
            Action::Buy => {
                let cost = quote_of(wish.px, wish.qty.0, self.shift(wish.instrument), true);
                let fee = match rules.fee_in {
                    FeeIn::Quote => {
                        let fee = i128::from(rules.taker_fee.0.max(0));
                        div_ceil(cost.saturating_mul(fee), PPM)
                    }
                    FeeIn::Received => 0,
                };
                (rules.quote, cost.saturating_add(fee))
            }
        }
    }

    /// Calls `each` with what every open order, and every wish of `with`, may still do.
    pub fn each_pending(&self, with: &[Wish], mut each: impl FnMut(&Wish)) {
        for order in self.orders.open() {
            let qty = order.remaining();
            if qty.0 != 0 {
                each(&wish_of(order, qty));
            }
        }
        with.iter().for_each(each);
    }

    /// Returns the least and the most that an asset's exposure may become, at a venue or in total.
    #[must_use]
    pub fn exposure(&self, asset: AssetId, venue: Option<Venue>, with: &[Wish]) -> (i128, i128) {
        let mut held: i128 = self.rounds.iter().map(|round| round.flows.of(asset, venue)).sum();
        if venue.is_none() {
            held += self.ledger.dust(asset);
        }
        let (mut low, mut high) = (held, held);
        self.each_pending(with, |wish| {
            if venue.is_some_and(|venue| venue != wish.venue) {
                return;
            }
            let rules = &self.universe.instruments[usize::from(wish.instrument)];
            let change = if rules.base == asset {
                i128::from(wish.qty.0) * if wish.action == Action::Buy { 1 } else { -1 }
            } else if rules.quote == asset {
                let quote = quote_of(wish.px, wish.qty.0, self.shift(wish.instrument), true);
                if wish.action == Action::Buy { -quote } else { quote }
            } else {
                0
            };
            low = low.saturating_add(change.min(0));
            high = high.saturating_add(change.max(0));
        });
        (low, high)
    }

    /// Returns the worst-case exposure of all assets together in the numeraire; nothing where one has
    /// no worth.
    #[must_use]
    pub fn exposure_worth(&self, venue: Option<Venue>, with: &[Wish]) -> Option<i128> {
        let mut sum: i128 = 0;
        for asset in (0..self.universe.assets.len() as u16).map(AssetId) {
            if asset == self.limits.numeraire {
                continue;
            }
            let (low, high) = self.exposure(asset, venue, with);
            let worst = low.unsigned_abs().max(high.unsigned_abs()) as i128;
            sum = sum.checked_add(self.worth(asset, worst, Bias::High)?)?;
        }
        Some(sum)
    }

    /// Returns what open orders and wishes may still take from a balance.
    #[must_use]
    pub fn reserved(&self, venue: Venue, asset: AssetId, with: &[Wish]) -> i128 {
        let mut sum: i128 = 0;
        self.each_pending(with, |wish| {
            let (spent, amount) = self.spends(wish);
            if (wish.venue, spent) == (venue, asset) {
                sum = sum.saturating_add(amount);
            }
        });
        sum
    }

    /// Returns what may be spent of a venue's balance: the lower of the ledger's and the venue's word,
    /// without what is reserved; nothing where either is missing.
    #[must_use]
    pub fn available(&self, venue: Venue, asset: AssetId, with: &[Wish]) -> Option<i128> {
        let account = self.ledger.account(venue, asset);
        if !account.is_open {
            return None;
        }
        let mut balance = account.balance;
        if self.limits.mode == Mode::Live {
            balance = balance.min(account.told?.0.0.into());
        }
        Some(balance.saturating_sub(self.reserved(venue, asset, with)))
    }

    /// Returns today's result: all trading flows marked with the worse side; nothing where one has no
    /// worth.
    #[must_use]
    pub fn marked(&self) -> Option<i128> {
        (0..self.universe.assets.len() as u16).map(AssetId).try_fold(0i128, |sum, asset| {
            sum.checked_add(self.worth(asset, self.ledger.day_flow(asset), Bias::Low)?)
        })
    }

    /// Returns the middle of an instrument's book where it may be believed.
    fn mid(&self, instrument: u16) -> Option<i64> {
        let state = self.market.get(instrument);
        let venue = self.universe.instruments[usize::from(instrument)].venue;
        let age_ns = self.market.age_ns(venue, instrument, self.now_ns);
        let is_live = state.state == BookState::Live
            && !state.in_batch
            && !state.book.is_crossed_or_locked()
            && age_ns <= self.params.venues[venue.idx()].age_ns_max;
        if is_live { state.mid() } else { None }
    }

    /// Returns C5's second reference; see the module.
    fn reference(&self, instrument: u16) -> Option<i64> {
        let rules = &self.universe.instruments[usize::from(instrument)];
        let (mut mids, mut count) = ([0i64; 8], 0);
        for other in self.market.pair(rules.base, rules.quote) {
            if let (Some(mid), true) = (self.mid(other), count < mids.len()) {
                mids[count] = mid;
                count += 1;
            }
        }
        if 2 <= count {
            let mids = &mut mids[..count];
            mids.sort_unstable();
            return Some(mids[count / 2 - usize::from(count % 2 == 0)] / 2 + mids[count / 2] / 2);
        }
        let one = |asset: AssetId| i128::from(pow10(self.universe.exponent(asset).min(9)));
        let middle = |asset: AssetId| {
            let amount = one(asset).checked_mul(1_000_000)?;
            let (high, low) =
                (self.worth(asset, amount, Bias::High)?, self.worth(asset, amount, Bias::Low)?);
            Some((high + low) / 2)
        };
        let (base, quote) = (middle(rules.base)?, middle(rules.quote)?);
        // px counts 10^-px_exponent quote per base; both middles are of a million `one`s.
        let px = i128::from(pow10(rules.px_exponent));
        let scale = one(rules.quote).checked_mul(i128::from(pow10(
            self.universe.exponent(rules.base) - self.universe.exponent(rules.base).min(9),
        )))?;
        let down = one(rules.base).checked_mul(i128::from(pow10(
            self.universe.exponent(rules.quote) - self.universe.exponent(rules.quote).min(9),
        )))?;
        let exact = base.checked_mul(px)?.checked_mul(scale)? / down.max(1);
        i64::try_from(exact.checked_div(quote)?).ok().filter(|px| 0 < *px)
    }
}

/// Returns what an order may still do, as a wish.
#[inline]
fn wish_of(order: &Order, qty: Qty) -> Wish {
    let terms = &order.terms;
    Wish {
        venue: terms.venue,
        instrument: terms.instrument,
        action: terms.action,
        px: terms.px,
        qty,
        purpose: terms.purpose,
        cause: terms.cause,
        edge_ppm: 0,
    }
}

/// Counts in a sliding window of buckets; never less than the truth.
#[derive(Clone, Copy, Debug)]
struct Window<const N: usize> {
    bucket_ns: i64,
    at: i64,
    counts: [u32; N],
}

impl<const N: usize> Window<N> {
    const fn new(bucket_ns: i64) -> Window<N> {
        Window { bucket_ns, at: 0, counts: [0; N] }
    }

    fn turn(&mut self, now_ns: i64) {
        let bucket = now_ns.div_euclid(self.bucket_ns);
        let passed = (bucket - self.at).clamp(0, N as i64);
        for step in 1..=passed {
            self.counts[(bucket - passed + step).rem_euclid(N as i64) as usize] = 0;
        }
        self.at = self.at.max(bucket);
    }

    fn add(&mut self, now_ns: i64) {
        self.turn(now_ns);
        let count = &mut self.counts[self.at.rem_euclid(N as i64) as usize];
        *count = count.saturating_add(1);
    }

    fn sum(&self, now_ns: i64) -> i64 {
        let mut turned = *self;
        turned.turn(now_ns);
        turned.counts.iter().map(|count| i64::from(*count)).sum()
    }
}

/// A rate as a time: the bucket is full again at `full_ns`.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_ns: i64,
}

impl Bucket {
    /// Returns how many tokens are missing for one more after `pending` others; 0 and less is enough.
    fn short(&self, per_s: i64, burst: i64, pending: i64, now_ns: i64) -> i64 {
        let interval = S / per_s;
        let full_ns = self.full_ns.max(now_ns) + interval * pending;
        let used = -(-(full_ns - now_ns)).div_euclid(interval);
        used + 1 - burst
    }

    fn take(&mut self, per_s: i64, now_ns: i64) {
        self.full_ns = self.full_ns.max(now_ns) + S / per_s;
    }
}

/// What the controls remember of a venue.
#[derive(Clone, Copy, Debug)]
struct VenueMemory {
    session: Option<Session>,
    gateway: Option<Peer>,
    orders: Bucket,
    queries: Bucket,
    acks: [i64; ACKS],
    ack_count: usize,
    funds: Window<10>,
    single_legs: i64,
    fee_fills: i64,
    fee_error_ppm: i64,
    /// More orders of somebody else are open there than are remembered: C16 is blind.
    foreign_lost: bool,
}

/// What the controls remember of an instrument.
#[derive(Clone, Copy, Debug)]
struct InstrumentMemory {
    fills_10s: Window<10>,
    fills_1h: Window<60>,
    collar_denials: Window<10>,
    /// When its rules were told last; 0 never.
    rules_ns: i64,
    mids: [i64; 60],
    mid_count: usize,
    mid_ns: i64,
}

#[derive(Clone, Copy, Debug)]
struct SentOrder {
    wish: Wish,
    at_ns: i64,
}

/// An open order at a venue that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Foreign {
    venue: Venue,
    instrument: u16,
    id: i64,
    action: Action,
    px: Px,
}

/// What the controls remember.
#[derive(Debug)]
pub struct Controls {
    venues: [VenueMemory; 3],
    instruments: Vec<InstrumentMemory>,
    warden: Option<Peer>,
    clock: Option<(i64, i64, bool, i64)>,
    sent: [Option<SentOrder>; SENT],
    sent_count: usize,
    foreign: Vec<Foreign>,
    denials: Window<10>,
    losing_rounds: i64,
    shortfalls: [i64; SHORTFALLS],
    shortfall_count: usize,
    session_orders: i64,
    session_notional: i128,
    session_fees: i128,
}

type Verdict = Result<(), Breach>;

impl Controls {
    /// Returns controls that heard nothing yet; nothing is allocated afterwards.
    #[must_use]
    pub fn new(instrument_count: usize) -> Controls {
        let venue = VenueMemory {
            session: None,
            gateway: None,
            orders: Bucket::default(),
            queries: Bucket::default(),
            acks: [0; ACKS],
            ack_count: 0,
            funds: Window::new(S),
            single_legs: 0,
            fee_fills: 0,
            fee_error_ppm: 0,
            foreign_lost: false,
        };
        let instrument = InstrumentMemory {
            fills_10s: Window::new(S),
            fills_1h: Window::new(60 * S),
            collar_denials: Window::new(S),
            rules_ns: 0,
            mids: [0; 60],
            mid_count: 0,
            mid_ns: 0,
        };
        Controls {
            venues: [venue; 3],
            instruments: vec![instrument; instrument_count],
            warden: None,
            clock: None,
            sent: [None; SENT],
            sent_count: 0,
            foreign: Vec::with_capacity(FOREIGN),
            denials: Window::new(S / 10),
            losing_rounds: 0,
            shortfalls: [0; SHORTFALLS],
            shortfall_count: 0,
            session_orders: 0,
            session_notional: 0,
            session_fees: 0,
        }
    }

    /// Takes a session's word.
    pub fn on_session(&mut self, session: Session) {
        let memory = &mut self.venues[session.venue.idx()];
        memory.session = Some(session);
        if session.state == SessionState::Down {
            // What is open there is told anew before the session is ready again.
            memory.foreign_lost = false;
            self.foreign.retain(|known| known.venue != session.venue);
        }
    }

    /// Takes a word about another process.
    pub fn on_peer(&mut self, peer: Peer) {
        match (peer.role, peer.venue) {
            (PeerRole::Warden, _) => self.warden = Some(peer),
            (PeerRole::Gateway, Some(venue)) => self.venues[venue.idx()].gateway = Some(peer),
            _ => {}
        }
    }

    /// Takes a word about the clock: offset, bound, synchronised.
    pub fn on_clock(&mut self, offset_ns: i64, bound_ns: i64, is_synced: bool, now_ns: i64) {
        self.clock = Some((offset_ns, bound_ns, is_synced, now_ns));
    }

    /// Notes that an instrument's rules were told.
    pub fn on_rules(&mut self, instrument: u16, now_ns: i64) {
        self.instruments[usize::from(instrument)].rules_ns = now_ns;
    }

    /// Returns when an instrument's rules were told last; 0 where they never were.
    #[must_use]
    pub fn rules_told_ns(&self, instrument: u16) -> i64 {
        self.instruments.get(usize::from(instrument)).map_or(0, |memory| memory.rules_ns)
    }

    /// Notes an open order that is not ours, or that it is gone (`qty` 0).
    pub fn on_foreign(&mut self, at: (Venue, u16), action: Action, px: Px, qty: Qty, id: i64) {
        let (venue, instrument) = at;
        self.foreign.retain(|known| (known.venue, known.id) != (venue, id));
        if 0 < qty.0 {
            match self.foreign.len() < FOREIGN {
                true => self.foreign.push(Foreign { venue, instrument, id, action, px }),
                false => self.venues[venue.idx()].foreign_lost = true,
            }
        }
    }

    /// Notes an acknowledgement's latency.
    pub fn on_ack(&mut self, venue: Venue, latency_ns: i64) {
        let memory = &mut self.venues[venue.idx()];
        memory.acks[memory.ack_count % ACKS] = latency_ns;
        memory.ack_count += 1;
    }

    /// Notes a refusal for lack of funds; returns whether it is one too many.
    pub fn on_funds(&mut self, venue: Venue, now_ns: i64) -> bool {
        let window = &mut self.venues[venue.idx()].funds;
        window.add(now_ns);
        2 <= window.sum(now_ns)
    }

    /// Notes a fill; returns how far the realised fees are off the model once that is known.
    pub fn on_fill(
        &mut self,
        (venue, instrument): (Venue, u16),
        (fee_ppm, model_ppm): (i64, i64),
        fee_worth: i128,
        now_ns: i64,
    ) -> Option<i64> {
        let memory = &mut self.instruments[usize::from(instrument)];
        memory.fills_10s.add(now_ns);
        memory.fills_1h.add(now_ns);
        self.session_fees = self.session_fees.saturating_add(fee_worth.max(0));
        let venue = &mut self.venues[venue.idx()];
        venue.fee_fills += 1;
        venue.fee_error_ppm = venue.fee_error_ppm.saturating_add(fee_ppm - model_ppm);
        if venue.fee_fills < FEES || muted(Mute::FeeModel) {
            return None;
        }
        let mean = venue.fee_error_ppm / FEES;
        (venue.fee_fills, venue.fee_error_ppm) = (0, 0);
        Some(mean)
    }

    /// Notes that an order is sent: it counts from here on.
    pub fn on_sent(&mut self, view: &View<'_>, wish: &Wish) {
        let limits = &view.limits.venues[wish.venue.idx()];
        self.venues[wish.venue.idx()].orders.take(limits.orders_per_s, view.now_ns);
        self.sent[self.sent_count % SENT] = Some(SentOrder { wish: *wish, at_ns: view.now_ns });
        self.sent_count += 1;
        self.session_orders += 1;
        let notional = notional(view, wish).unwrap_or(0);
        self.session_notional = self.session_notional.saturating_add(notional);
    }

    /// Takes a query's token; false where there is none and the query must wait.
    pub fn may_query(&mut self, venue: Venue, per_s: i64, now_ns: i64) -> bool {
        let bucket = &mut self.venues[venue.idx()].queries;
        let may = bucket.short(per_s, per_s.max(1), 0, now_ns) <= 0;
        if may {
            bucket.take(per_s, now_ns);
        }
        may
    }

    /// Notes a round's end: expected and realised edge, and what it gained.
    pub fn on_round(&mut self, expected_ppm: i64, realised_ppm: i64, worth: i128) {
        self.shortfalls[self.shortfall_count % SHORTFALLS] = realised_ppm - expected_ppm;
        self.shortfall_count += 1;
        self.losing_rounds = if worth < 0 { self.losing_rounds + 1 } else { 0 };
    }

    /// Notes that a round had one leg only because of a venue, or that the venue filled its own;
    /// returns how many single legs there are in a row.
    pub fn on_legs(&mut self, venue: Venue, failed: bool) -> i64 {
        let memory = &mut self.venues[venue.idx()];
        memory.single_legs = if failed { memory.single_legs + 1 } else { 0 };
        memory.single_legs
    }

    /// Counts a denial; returns how many there were in the last second.
    pub fn on_denial(&mut self, now_ns: i64) -> i64 {
        self.denials.add(now_ns);
        self.denials.sum(now_ns)
    }

    /// Forgets what only an operator's new word clears: counts that raised the global level.
    pub fn rearm(&mut self) {
        self.losing_rounds = 0;
        self.shortfall_count = 0;
        self.denials = Window::new(S / 10);
    }

    /// Forgets what only an operator's new word about a venue clears: counts that raised its level.
    pub fn rearm_venue(&mut self, venue: Venue) {
        let memory = &mut self.venues[venue.idx()];
        (memory.single_legs, memory.ack_count) = (0, 0);
        memory.funds = Window::new(S);
    }

    /// Samples an instrument's middle once a second; returns the move in ppm that is too large, with its
    /// limit (C5b).
    pub fn sample(&mut self, view: &View<'_>, instrument: u16) -> Option<(i64, i64)> {
        let mid = view.mid(instrument)?;
        let memory = &mut self.instruments[usize::from(instrument)];
        if view.now_ns - memory.mid_ns < S {
            return None;
        }
        let moved = |from: i64| {
            let exact = i128::from((mid - from).abs()) * PPM / i128::from(from.max(1));
            clamp(exact).0
        };
        let count = memory.mid_count.min(memory.mids.len());
        let is_fresh = view.now_ns - memory.mid_ns < 2 * S;
        let last = memory.mid_count.checked_sub(1).map(|idx| memory.mids[idx % 60]);
        let in_1s = last.filter(|_| is_fresh).map_or(0, moved);
        let in_60s = memory.mids[..count].iter().map(|from| moved(*from)).max().unwrap_or(0);
        memory.mids[memory.mid_count % 60] = mid;
        memory.mid_count += 1;
        memory.mid_ns = view.now_ns;
        if muted(Mute::C5b) {
            return None;
        }
        let (limit_1s, limit_60s) = (view.limits.move_1s_ppm_max, view.limits.move_60s_ppm_max);
        if limit_1s < in_1s {
            memory.mid_count = 0;
            return Some((in_1s, limit_1s));
        }
        if limit_60s < in_60s {
            memory.mid_count = 0;
            return Some((in_60s, limit_60s));
        }
        None
    }

    /// Decides about all orders of a decision together. `others` are wishes already granted in it.
    pub fn check(&mut self, view: &View<'_>, wishes: &[Wish]) -> Verdict {
        // Of all venues together it is the same for every leg.
        let mut worth = None;
        for (idx, wish) in wishes.iter().enumerate() {
            // Without C12 a leg is looked at as if it were alone.
            let before = if muted(Mute::C12) { &[] } else { &wishes[..idx] };
            c1(view, wish)?;
            self.c2(view, wish)?;
            self.c3(view, wish)?;
            c4(view, wish)?;
            self.c5(view, wish)?;
            c6(view, wish)?;
            c7(view, wish)?;
            c8(view, wish, (wishes, idx), &mut worth)?;
            self.c9(view, wish, before)?;
            c10(view, wish)?;
            c11(view, wish, before)?;
        }
        let Some(first) = wishes.first() else { return Ok(()) };
        c12(view, first, wishes.len())?;
        for (idx, wish) in wishes.iter().enumerate() {
            let before = &wishes[..idx];
            self.c13(view, wish, before)?;
            self.c14(view, wish, before)?;
            self.c15(view, wish)?;
            self.c16(view, wish)?;
            c17(view, wish)?;
            c18(view, wish)?;
        }
        c19(view, wishes)?;
        for wish in wishes {
            c20(view, wish, wishes)?;
        }
        self.c21(view, first)?;
        for wish in wishes {
            self.c22(view, wish)?;
        }
        self.c23(view, first)?;
        for wish in wishes {
            self.c24(view, wish)?;
        }
        self.c25(view, wishes)
    }

    fn c2(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        let (control, mute) = (Control::Venue, Mute::C2);
        if !view.market.venue_trades(wish.venue) {
            return deny(control, mute, wish, 0, 1);
        }
        if view.limits.mode != Mode::Live {
            return Ok(());
        }
        let memory = &self.venues[wish.venue.idx()];
        let Some(session) = memory.session else { return missing(control, mute, wish) };
        let ready = SessionState::Ready;
        if session.state != ready {
            return deny(control, mute, wish, session.state as i64, ready as i64);
        }
        let silence = view.now_ns.saturating_sub(session.heard_ns);
        let silence_max = view.limits.venues[wish.venue.idx()].stream_age_ns_max;
        if silence_max < silence || session.heard_ns == 0 {
            return deny(control, mute, wish, silence, silence_max);
        }
        // 0: the venue offers none; else it must still be armed.
        if session.deadman_ns != 0 && session.deadman_ns <= view.now_ns {
            return deny(control, mute, wish, session.deadman_ns, view.now_ns);
        }
        for peer in [self.warden, memory.gateway] {
            let Some(peer) = peer else { return missing(control, mute, wish) };
            let age = view.now_ns.saturating_sub(peer.beat_ns);
            if !peer.alive || BEAT_NS_MAX < age {
                return deny(control, mute, wish, age, BEAT_NS_MAX);
            }
        }
        Ok(())
    }

    fn c3(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        let (control, mute) = (Control::Instrument, Mute::C3);
        let state = view.market.get(wish.instrument);
        if state.trading != TradingStatus::Trading || view.now_ns < state.halted_until_ns {
            return deny(control, mute, wish, state.trading as i64, TradingStatus::Trading as i64);
        }
        let age_max = view.limits.rules_age_ns_max;
        if age_max == 0 {
            return Ok(());
        }
        let told_ns = self.instruments[usize::from(wish.instrument)].rules_ns;
        let age = view.now_ns.saturating_sub(told_ns);
        let late = told_ns == 0 || age_max < age;
        if late { deny(control, mute, wish, age, age_max) } else { Ok(()) }
    }

    fn c5(&mut self, view: &View<'_>, wish: &Wish) -> Verdict {
        let limits = &view.limits.instruments[usize::from(wish.instrument)];
        let collar =
            if wish.purpose.reduces() { limits.hedge_collar_ppm } else { limits.collar_ppm };
        let references = [view.mid(wish.instrument), view.reference(wish.instrument)];
        let mut worst = 0;
        for reference in references {
            let Some(reference) = reference else {
                return missing(Control::Collar, Mute::C5, wish);
            };
            let away = i128::from((wish.px.0 - reference).abs()) * PPM;
            // Rounded up: just above the collar is above it.
            worst = worst.max(clamp(div_ceil(away, reference.max(1).into())).0);
        }
        if worst <= collar || muted(Mute::C5) {
            return Ok(());
        }
        let memory = &mut self.instruments[usize::from(wish.instrument)];
        memory.collar_denials.add(view.now_ns);
        let often = COLLAR_DENIALS <= memory.collar_denials.sum(view.now_ns);
        if often && !wish.purpose.reduces() && !muted(Mute::C5b) {
            memory.collar_denials = Window::new(S);
            let act = Act::HaltInstrument;
            return Err(Breach { act, ..breach(Control::Moves, wish, worst, collar) });
        }
        Err(breach(Control::Collar, wish, worst, collar))
    }

    fn c9(&self, view: &View<'_>, wish: &Wish, before: &[Wish]) -> Verdict {
        if wish.purpose.reduces() {
            return Ok(());
        }
        let limits = view.limits;
        let count = |of: &dyn Fn(Venue, u16) -> bool| {
            let open = view.orders.open().filter(|o| of(o.terms.venue, o.terms.instrument)).count();
            let with = before.iter().filter(|w| of(w.venue, w.instrument)).count();
            let foreign = self.foreign.iter().filter(|f| of(f.venue, f.instrument)).count();
            (open + with + foreign + 1) as i64
        };
        let (id, venue) = (wish.instrument, wish.venue);
        let of_instrument =
            (count(&|_, i| i == id), limits.instruments[usize::from(id)].orders_max);
        let of_venue = (count(&|v, _| v == venue), limits.venues[venue.idx()].orders_max);
        for (count, most) in [of_instrument, of_venue, (count(&|_, _| true), limits.orders_max)] {
            if most < count {
                return deny(Control::OpenOrders, Mute::C9, wish, count, most);
            }
        }
        Ok(())
    }

    fn c13(&self, view: &View<'_>, wish: &Wish, before: &[Wish]) -> Verdict {
        let limits = &view.limits.venues[wish.venue.idx()];
        let pending = before.iter().filter(|w| w.venue == wish.venue).count() as i64;
        let bucket = &self.venues[wish.venue.idx()].orders;
        let short = bucket.short(limits.orders_per_s, limits.orders_burst, pending, view.now_ns);
        if 0 < short {
            let burst = limits.orders_burst;
            return deny(Control::Throttle, Mute::C13, wish, burst + short, burst);
        }
        Ok(())
    }

    fn c14(&self, view: &View<'_>, wish: &Wish, before: &[Wish]) -> Verdict {
        if wish.purpose.reduces() {
            return Ok(());
        }
        let same = |other: &Wish| {
            (other.venue, other.instrument, other.action, other.px, other.qty)
                == (wish.venue, wish.instrument, wish.action, wish.px, wish.qty)
        };
        // Newest first: what was sent before the last second is behind all that counts.
        let places = (0..self.sent_count.min(SENT)).map(|back| (self.sent_count - 1 - back) % SENT);
        let (mut twice, mut equal) = (None, before.iter().filter(|w| same(w)).count());
        for place in places {
            let Some(sent) = &self.sent[place] else { break };
            let age = view.now_ns - sent.at_ns;
            if S < age {
                break;
            }
            if !same(&sent.wish) {
                continue;
            }
            equal += 1;
            if sent.wish.cause == wish.cause && age <= DUPLICATE_NS {
                // Of several the first of the ring is told.
                twice = twice.filter(|(first, _)| *first < place).or(Some((place, age)));
            }
        }
        if let Some((_, age)) = twice {
            return deny(Control::Duplicate, Mute::C14, wish, age, DUPLICATE_NS);
        }
        if EQUAL_1S_MAX < equal as i64 + 1 {
            return deny(Control::Duplicate, Mute::C14, wish, equal as i64 + 1, EQUAL_1S_MAX);
        }
        Ok(())
    }

    fn c15(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        if wish.purpose.reduces() {
            return Ok(());
        }
        let memory = &self.instruments[usize::from(wish.instrument)];
        let limits = &view.limits.instruments[usize::from(wish.instrument)];
        let found = [
            (memory.fills_10s.sum(view.now_ns), limits.fills_10s_max),
            (memory.fills_1h.sum(view.now_ns), limits.fills_1h_max),
            (self.losing_rounds, view.limits.losing_rounds_max),
        ];
        for (count, most) in found {
            if most < count {
                let act = Act::Raise(Scope::Global, Level::Pause, Cause::Control);
                return deny_and(act, Control::Repeated, Mute::C15, wish, count, most);
            }
        }
        Ok(())
    }

    fn c16(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        let crosses =
            |action: Action, px: Px| action != wish.action && !wish.action.is_worse(px, wish.px);
        let rests = |order: &&Order| matches!(order.terms.tif, Tif::Gtc | Tif::PostOnly);
        let own =
            view.orders.open().filter(rests).filter(|o| o.terms.instrument == wish.instrument);
        let own = own.map(|o| (o.terms.action, o.terms.px));
        let foreign = self.foreign.iter().filter(|f| f.instrument == wish.instrument);
        let met = own.chain(foreign.map(|f| (f.action, f.px))).find(|o| crosses(o.0, o.1));
        match met {
            Some((_, px)) => deny(Control::SelfTrade, Mute::C16, wish, wish.px.0, px.0),
            // One of those that are not remembered may be met.
            None if self.venues[wish.venue.idx()].foreign_lost && !wish.purpose.reduces() => {
                missing(Control::SelfTrade, Mute::C16, wish)
            }
            None => Ok(()),
        }
    }

    fn c21(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        if wish.purpose.reduces() || self.shortfall_count < SHORTFALLS {
            return Ok(());
        }
        let sum: i128 = self.shortfalls.iter().map(|ppm| i128::from(*ppm)).sum();
        let mean = clamp(sum.div_euclid(SHORTFALLS as i128)).0;
        let limit = -view.limits.shortfall_ppm_max;
        if mean < limit {
            let act = Act::Raise(Scope::Global, Level::Pause, Cause::Control);
            return deny_and(act, Control::Slippage, Mute::C21, wish, mean, limit);
        }
        Ok(())
    }

    fn c22(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        if wish.purpose.reduces() {
            return Ok(());
        }
        let memory = &self.venues[wish.venue.idx()];
        let worst = memory.acks[..memory.ack_count.min(ACKS)].iter().copied().max().unwrap_or(0);
        // The 99th percentile of twenty is the largest; a single one beyond two seconds is enough.
        let full = ACKS <= memory.ack_count;
        let most = view.limits.venues[wish.venue.idx()].ack_ns_max;
        let limit = if full { most.min(2 * S) } else { 2 * S };
        if limit < worst {
            let act = Act::Raise(Scope::Venue(wish.venue), Level::Pause, Cause::Control);
            return deny_and(act, Control::Ack, Mute::C22, wish, worst, limit);
        }
        Ok(())
    }

    fn c23(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        if view.limits.mode != Mode::Live {
            return Ok(());
        }
        let act = Act::Raise(Scope::Global, Level::Pause, Cause::Clock);
        let Some((offset, bound, is_synced, at_ns)) = self.clock else {
            return missing(Control::Clock, Mute::C23, wish);
        };
        let limits = view.limits;
        let age = view.now_ns - at_ns;
        let found = [
            (offset.saturating_abs(), limits.clock_offset_ns_max),
            (bound, limits.clock_bound_ns_max),
            (age, CLOCK_AGE_NS_MAX),
            (i64::from(!is_synced), 0),
        ];
        for (found, most) in found {
            if most < found {
                return deny_and(act, Control::Clock, Mute::C23, wish, found, most);
            }
        }
        Ok(())
    }

    fn c24(&self, view: &View<'_>, wish: &Wish) -> Verdict {
        if view.limits.mode != Mode::Live {
            return Ok(());
        }
        let act = Act::Raise(Scope::Global, Level::Halt, Cause::Build);
        for peer in [self.warden, self.venues[wish.venue.idx()].gateway] {
            let Some(peer) = peer else { return missing(Control::Build, Mute::C24, wish) };
            if !peer.same_build {
                return deny_and(act, Control::Build, Mute::C24, wish, 0, 1);
            }
        }
        Ok(())
    }

    fn c25(&self, view: &View<'_>, wishes: &[Wish]) -> Verdict {
        let Some(first) = wishes.first().filter(|wish| !wish.purpose.reduces()) else {
            return Ok(());
        };
        let mut notional_sum = self.session_notional;
        for wish in wishes {
            match notional(view, wish) {
                Some(notional) => notional_sum = notional_sum.saturating_add(notional),
                None => return missing(Control::Session, Mute::C25, wish),
            }
        }
        let limits = view.limits;
        let found = [
            (self.session_orders + wishes.len() as i64, limits.session_orders_max),
            (clamp(notional_sum).0, limits.session_notional_max),
            (clamp(self.session_fees).0, limits.session_fees_max),
        ];
        for (found, most) in found {
            if most < found {
                let act = Act::Raise(Scope::Global, Level::Pause, Cause::Control);
                return deny_and(act, Control::Session, Mute::C25, first, found, most);
            }
        }
        Ok(())
    }
}

fn breach(control: Control, wish: &Wish, observed: i64, limit: i64) -> Breach {
    Breach { control, instrument: wish.instrument, observed, limit, act: Act::Deny }
}

fn deny(control: Control, mute: Mute, wish: &Wish, observed: i64, limit: i64) -> Verdict {
    deny_and(Act::Deny, control, mute, wish, observed, limit)
}

fn deny_and(
    act: Act,
    control: Control,
    mute: Mute,
    wish: &Wish,
    observed: i64,
    limit: i64,
) -> Verdict {
    if muted(mute) { Ok(()) } else { Err(Breach { act, ..breach(control, wish, observed, limit) }) }
}

/// Denies for want of an input.
fn missing(control: Control, mute: Mute, wish: &Wish) -> Verdict {
    deny(control, mute, wish, i64::MAX, 0)
}

/// Returns an order's worth in the numeraire on the less favourable side.
#[inline]
fn notional(view: &View<'_>, wish: &Wish) -> Option<i128> {
    let rules = &view.universe.instruments[usize::from(wish.instrument)];
    let quote = quote_of(wish.px, wish.qty.0, view.shift(wish.instrument), true);
    view.worth(rules.quote, quote, Bias::High)
}

fn c1(view: &View<'_>, wish: &Wish) -> Verdict {
    let level = view.levels[wish.venue.idx()];
    let most = if wish.purpose.reduces() { Level::Reduce } else { Level::Armed };
    if most < level {
        return deny(Control::Level, Mute::C1, wish, level as i64, most as i64);
    }
    Ok(())
}

fn c4(view: &View<'_>, wish: &Wish) -> Verdict {
    let rules = &view.universe.instruments[usize::from(wish.instrument)];
    let notional = clamp(quote_of(wish.px, wish.qty.0, view.shift(wish.instrument), false)).0;
    let (px_rest, qty_rest) = (wish.px.0 % rules.tick.0, wish.qty.0 % rules.lot.0);
    let bad = if wish.px.0 <= 0 || px_rest != 0 {
        Some((px_rest, 0))
    } else if wish.qty.0 <= 0 || qty_rest != 0 {
        Some((qty_rest, 0))
    } else if wish.qty < rules.qty_min || rules.qty_max < wish.qty {
        Some((wish.qty.0, rules.qty_min.0))
    } else if notional < rules.notional_min.0 {
        Some((notional, rules.notional_min.0))
    } else {
        None
    };
    bad.map_or(Ok(()), |(found, limit)| deny(Control::Grid, Mute::C4, wish, found, limit))
}

fn c6(view: &View<'_>, wish: &Wish) -> Verdict {
    let most = view.limits.instruments[usize::from(wish.instrument)].qty_max;
    if most < wish.qty {
        deny(Control::Quantity, Mute::C6, wish, wish.qty.0, most.0)
    } else {
        Ok(())
    }
}

fn c7(view: &View<'_>, wish: &Wish) -> Verdict {
    let most = view.limits.notional_max;
    match notional(view, wish) {
        None => missing(Control::Notional, Mute::C7, wish),
        Some(found) if i128::from(most) < found => {
            deny(Control::Notional, Mute::C7, wish, clamp(found).0, most)
        }
        Some(_) => Ok(()),
    }
}

/// An entry must leave every exposure within its limit with all legs of its round counted; a hedge must
/// not make the worst case of its asset worse than it is.
fn c8(
    view: &View<'_>,
    wish: &Wish,
    (wishes, idx): (&[Wish], usize),
    worth: &mut Option<Option<i128>>,
) -> Verdict {
    let (control, mute) = (Control::Exposure, Mute::C8);
    let rules = &view.universe.instruments[usize::from(wish.instrument)];
    if wish.purpose.reduces() {
        let asset = rules.base;
        let held: i128 = view.rounds.iter().map(|round| round.flows.of(asset, None)).sum();
        let worst = |with: &[Wish]| {
            let (low, high) = view.exposure(asset, None, with);
            low.unsigned_abs().max(high.unsigned_abs()) as i128
        };
        let (before, after) = (worst(&[]), worst(core::slice::from_ref(wish)));
        let most = i128::from(view.limits.assets[usize::from(asset.0)].exposure_max.0);
        // Of a quote asset (a conversion taken back) the base is a numeraire and only passed through.
        let reduces = held != 0 || asset == view.limits.numeraire;
        if (before.max(most) < after) || (most < after && !reduces) {
            return deny(control, mute, wish, clamp(after).0, clamp(before.max(most)).0);
        }
        return Ok(());
    }
    let with = if muted(Mute::C12) { &wishes[idx..=idx] } else { wishes };
    for asset in [rules.base, rules.quote] {
        if asset == view.limits.numeraire {
            continue;
        }
        let (low, high) = view.exposure(asset, None, with);
        let worst = clamp(low.unsigned_abs().max(high.unsigned_abs()) as i128).0;
        let most = view.limits.assets[usize::from(asset.0)].exposure_max.0;
        if most < worst {
            return deny(control, mute, wish, worst, most);
        }
    }
    let venue = Some(wish.venue);
    let venue_max = view.limits.venues[wish.venue.idx()].exposure_max;
    for (venue, most) in [(venue, venue_max), (None, view.limits.exposure_max)] {
        let found = match venue {
            Some(_) => view.exposure_worth(venue, with),
            None if muted(Mute::C12) => view.exposure_worth(None, with),
            None => *worth.get_or_insert_with(|| view.exposure_worth(None, with)),
        };
        match found {
            None => return missing(control, mute, wish),
            Some(worth) if i128::from(most) < worth => {
                return deny(control, mute, wish, clamp(worth).0, most);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn c10(view: &View<'_>, wish: &Wish) -> Verdict {
    let venue = Some(wish.venue);
    let (at_venue, in_all) =
        (view.orders.unknown_count(venue) as i64, view.orders.unknown_count(None) as i64);
    let (venue_max, all_max) =
        (view.limits.venues[wish.venue.idx()].unknown_max, view.limits.unknown_max);
    let (control, mute) = (Control::Unknown, Mute::C10);
    if venue_max < at_venue {
        let act = Act::Raise(Scope::Venue(wish.venue), Level::Pause, Cause::Unknown);
        return deny_and(act, control, mute, wish, at_venue, venue_max);
    }
    if all_max < in_all {
        let act = Act::Raise(Scope::Global, Level::Pause, Cause::Unknown);
        return deny_and(act, control, mute, wish, in_all, all_max);
    }
    // The next entry on that instrument waits for the answer, however many are allowed.
    let here = |order: &&Order| {
        order.terms.instrument == wish.instrument && order.state() == State::Unknown
    };
    let here = view.orders.open().filter(here).count() as i64;
    if 0 < here && !wish.purpose.reduces() {
        return deny(control, mute, wish, here, 0);
    }
    Ok(())
}

fn c11(view: &View<'_>, wish: &Wish, before: &[Wish]) -> Verdict {
    let (asset, need) = view.spends(wish);
    match view.available(wish.venue, asset, before) {
        None => missing(Control::Funds, Mute::C11, wish),
        Some(available) if available < need => {
            deny(Control::Funds, Mute::C11, wish, clamp(need).0, clamp(available).0)
        }
        Some(_) => Ok(()),
    }
}

/// Room for the whole round, before its first leg leaves.
fn c12(view: &View<'_>, first: &Wish, legs: usize) -> Verdict {
    if first.purpose.reduces() {
        return Ok(());
    }
    let (entered, most) = (view.rounds.entered_count(), view.rounds.entries_max());
    let room = crate::orders::ORDERS / 2;
    let full = most <= entered || room < view.orders.open_count() + legs;
    if full {
        deny(Control::Pair, Mute::C12, first, entered as i64 + 1, most as i64)
    } else {
        Ok(())
    }
}

fn c17(view: &View<'_>, wish: &Wish) -> Verdict {
    let (control, mute) = (Control::Freshness, Mute::C17);
    let state = view.market.get(wish.instrument);
    let limits = &view.limits.venues[wish.venue.idx()];
    // A hedge must go even on data that an entry would not trust.
    let wider = if wish.purpose.reduces() { 4 } else { 1 };
    let age = view.market.age_ns(wish.venue, wish.instrument, view.now_ns);
    let age_max = limits.age_ns_max.saturating_mul(wider);
    if state.state != BookState::Live || state.in_batch || age_max < age {
        return deny(control, mute, wish, age, age_max);
    }
    if wish.purpose.reduces() {
        return Ok(());
    }
    let lag = state.recv_ts_ns.saturating_sub(state.venue_ts_ns);
    if state.venue_ts_ns == 0 || limits.lag_ns_max < lag {
        return deny(control, mute, wish, lag, limits.lag_ns_max);
    }
    Ok(())
}

fn c18(view: &View<'_>, wish: &Wish) -> Verdict {
    if wish.purpose.reduces() {
        return Ok(());
    }
    let (control, mute) = (Control::Edge, Mute::C18);
    let limits = view.limits;
    if wish.edge_ppm < limits.edge_min_ppm {
        return deny(control, mute, wish, wish.edge_ppm, limits.edge_min_ppm);
    }
    if limits.edge_max_ppm < wish.edge_ppm {
        return deny_and(
            Act::HaltInstrument,
            control,
            mute,
            wish,
            wish.edge_ppm,
            limits.edge_max_ppm,
        );
    }
    let levels = view.market.get(wish.instrument).depth().levels(wish.action.takes());
    let visible: i128 = levels.map(|level| i128::from(level.qty.0)).sum();
    let most = div(visible * i128::from(limits.depth_ppm_max), PPM);
    if most < i128::from(wish.qty.0) {
        return deny(control, mute, wish, wish.qty.0, clamp(most).0);
    }
    Ok(())
}

/// C19 is also looked at by the timer; see [`losses`].
fn c19(view: &View<'_>, wishes: &[Wish]) -> Verdict {
    for wish in wishes.iter().filter(|wish| !wish.purpose.reduces()) {
        let Some(marked) = view.marked() else {
            return missing(Control::Loss, Mute::C19, wish);
        };
        if let Some(mut found) = losses(view, marked) {
            found.instrument = wish.instrument;
            return Err(found);
        }
        let result = clamp(view.ledger.instrument_result(wish.instrument)).0;
        let most = -view.limits.instruments[usize::from(wish.instrument)].loss_max;
        if result < most {
            return deny_and(Act::HaltInstrument, Control::Loss, Mute::C19, wish, result, most);
        }
    }
    Ok(())
}

/// Returns the worst loss limit that is exceeded at these marks.
#[must_use]
pub fn losses(view: &View<'_>, marked: i128) -> Option<Breach> {
    if muted(Mute::C19) {
        return None;
    }
    let limits = view.limits;
    let marked = clamp(marked).0;
    let peak = view.ledger.pnl().peak.max(marked);
    let tiers = [
        (marked.saturating_sub(peak), limits.drawdown_max, Level::Kill),
        (marked, limits.loss_day_max, Level::Halt),
        (view.ledger.result_5min(marked, view.now_ns), limits.loss_5min_max, Level::Pause),
    ];
    let worst = tiers.into_iter().find(|(found, most, _)| *found < -*most)?;
    Some(Breach {
        control: Control::Loss,
        instrument: u16::MAX,
        observed: worst.0,
        limit: -worst.1,
        act: Act::Raise(Scope::Global, worst.2, Cause::Loss),
    })
}

/// A fill must leave every balance within its band, whatever else fills; a hedge only has to bring a
/// balance nearer to its target, or leave it within.
fn c20(view: &View<'_>, wish: &Wish, wishes: &[Wish]) -> Verdict {
    let rules = &view.universe.instruments[usize::from(wish.instrument)];
    let (_, spent) = view.spends(wish);
    let quote = quote_of(wish.px, wish.qty.0, view.shift(wish.instrument), true);
    let qty = i128::from(wish.qty.0);
    let changes = match wish.action {
        Action::Buy => [(rules.base, qty), (rules.quote, -spent)],
        Action::Sell => [(rules.base, -qty), (rules.quote, quote)],
    };
    for (asset, change) in changes {
        let account = view.ledger.account(wish.venue, asset);
        let band = &view.limits.assets[usize::from(asset.0)].bands[wish.venue.idx()];
        let target = i128::from(band.target.0);
        if wish.purpose.reduces() {
            let after = account.balance + change;
            let nearer = (after - target).abs() <= (account.balance - target).abs();
            let within = i128::from(band.floor.0) <= after && after <= i128::from(band.ceiling.0);
            // Held by nobody is worse than held at the wrong venue: only what leaves the band further
            // than it already is waits for another venue.
            if !nearer && !within {
                let limit = if change < 0 { band.floor } else { band.ceiling };
                return deny(Control::Inventory, Mute::C20, wish, clamp(after).0, limit.0);
            }
            continue;
        }
        let (mut low, mut high) = (account.balance, account.balance);
        view.each_pending(wishes, |other| {
            if other.venue != wish.venue {
                return;
            }
            let theirs = &view.universe.instruments[usize::from(other.instrument)];
            let (from, amount) = view.spends(other);
            if from == asset {
                low = low.saturating_sub(amount);
            }
            let gains = match other.action {
                Action::Buy => (theirs.base, i128::from(other.qty.0)),
                Action::Sell => {
                    let shift = view.shift(other.instrument);
                    (theirs.quote, quote_of(other.px, other.qty.0, shift, true))
                }
            };
            if gains.0 == asset {
                high = high.saturating_add(gains.1);
            }
        });
        if low < i128::from(band.floor.0) && change < 0 {
            return deny(Control::Inventory, Mute::C20, wish, clamp(low).0, band.floor.0);
        }
        if i128::from(band.ceiling.0) < high && 0 < change {
            return deny(Control::Inventory, Mute::C20, wish, clamp(high).0, band.ceiling.0);
        }
    }
    Ok(())
}
