//! Controls and behaviours that a test run can switch off, one at a time, to see that a test notices.
//!
//! Invariant: without the cargo feature `mutation` nothing can be switched off: [`muted`] is `false`
//! when the compiler reads it. The feature is for `scripts/` and tests alone.
//!
//! Not here: what the behaviours are (each is where [`muted`] is asked).

/// What can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mute {
    /// Level gate.
    C1 = 1,
    /// Venue gate.
    C2 = 2,
    /// Instrument gate.
    C3 = 3,
    /// Grid.
    C4 = 4,
    /// Price collar.
    C5 = 5,
    /// Largest quantity.
    C6 = 6,
    /// Largest notional.
    C7 = 7,
    /// Net exposure.
    C8 = 8,
    /// Open orders.
    C9 = 9,
    /// Unknown orders.
    C10 = 10,
    /// Funds.
    C11 = 11,
    /// Reservation of all legs together.
    C12 = 12,
    /// Message throttle.
    C13 = 13,
    /// Duplicates.
    C14 = 14,
    /// Repeated execution.
    C15 = 15,
    /// Self-trade.
    C16 = 16,
    /// Freshness.
    C17 = 17,
    /// Edge sanity.
    C18 = 18,
    /// Loss limits.
    C19 = 19,
    /// Inventory band.
    C20 = 20,
    /// Slippage feedback.
    C21 = 21,
    /// Acknowledgement latency.
    C22 = 22,
    /// Clock.
    C23 = 23,
    /// Build and configuration.
    C24 = 24,
    /// Session caps.
    C25 = 25,
    /// Price collar over time.
    C5b = 26,
    /// A fill that came before is not applied again.
    Dedupe = 32,
    /// The same trade with other content breaks the invariant.
    TradeConflict = 33,
    /// No reply in time is not a refusal.
    TimeoutIsUnknown = 34,
    /// A cancelled order keeps its reservation until its fills are booked.
    KeepReservation = 35,
    /// A new order is never sent twice.
    NoResend = 36,
    /// A final order stays final.
    ForwardOnly = 37,
    /// A fill on a final order is applied.
    LateFill = 38,
    /// More than ordered, or worse than the limit, halts the venue.
    Overfill = 39,
    /// An order whose outcome is unknown is exposure.
    UnknownIsExposure = 40,
    /// An order whose outcome is unknown is asked for.
    QueryUnknown = 41,
    /// What a round has left over is hedged.
    Hedge = 42,
    /// Nothing is hedged while an order of the round is open.
    HedgeWaits = 43,
    /// A hedge ends: its time, attempts and loss are bounded, then the round is held.
    HedgeBudget = 44,
    /// Fees count in the flows of their own asset.
    FeeFlow = 45,
    /// A breach of KILL or HALT cancels every live order.
    CancelOnHalt = 46,
    /// What our own orders take is not seen as depth.
    OwnInterest = 47,
    /// Single legs in a row pause the venue.
    SingleLegs = 48,
    /// What is too little to trade is netted over rounds, within a cap.
    DustCap = 49,
    /// A balance that differs for too long pauses the venue.
    BalanceAudit = 50,
    /// What paper takes from a level is gone until the level changes.
    PaperConsumption = 51,
    /// Paper orders need balances.
    PaperFunds = 52,
    /// Orders of dead runs come back as unknown.
    RestoreOrders = 53,
    /// Fills of dead runs are remembered.
    RestoreTrades = 54,
    /// An own raise counts at once, before the page tells it back.
    OwnRaise = 55,
    /// Too many denials pause.
    DenialRate = 56,
    /// A worsening cycle needs more edge.
    Skew = 57,
    /// Realised fees are compared with the model.
    FeeModel = 58,
    /// A fill that a venue takes back is reversed in the books.
    Bust = 59,
    /// A fill that was taken back is not reversed again.
    BustRepeat = 60,
    /// A venue that takes a fill back is halted.
    BustHalt = 61,
    /// What a fill that was taken back leaves naked waits for an operator.
    BustHeld = 62,
}

impl Mute {
    /// Everything that can be switched off.
    pub const ALL: [Mute; 57] = [
        Mute::C1,
        Mute::C2,
        Mute::C3,
        Mute::C4,
        Mute::C5,
        Mute::C6,
        Mute::C7,
        Mute::C8,
        Mute::C9,
        Mute::C10,
        Mute::C11,
        Mute::C12,
        Mute::C13,
        Mute::C14,
        Mute::C15,
        Mute::C16,
        Mute::C17,
        Mute::C18,
        Mute::C19,
        Mute::C20,
        Mute::C21,
        Mute::C22,
        Mute::C23,
        Mute::C24,
        Mute::C25,
        Mute::C5b,
        Mute::Dedupe,
        Mute::TradeConflict,
        Mute::TimeoutIsUnknown,
        Mute::KeepReservation,
        Mute::NoResend,
        Mute::ForwardOnly,
        Mute::LateFill,
        Mute::Overfill,
        Mute::UnknownIsExposure,
        Mute::QueryUnknown,
        Mute::Hedge,
        Mute::HedgeWaits,
        Mute::HedgeBudget,
        Mute::FeeFlow,
        Mute::CancelOnHalt,
        Mute::OwnInterest,
        Mute::SingleLegs,
        Mute::DustCap,
        Mute::BalanceAudit,
        Mute::PaperConsumption,
        Mute::PaperFunds,
        Mute::RestoreOrders,
        Mute::RestoreTrades,
        Mute::OwnRaise,
        Mute::DenialRate,
        Mute::Skew,
        Mute::FeeModel,
        Mute::Bust,
        Mute::BustRepeat,
        Mute::BustHalt,
        Mute::BustHeld,
    ];
}

#[cfg(feature = "mutation")]
static MUTED: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);

/// Switches `what` off for the whole process, and everything else on.
#[cfg(feature = "mutation")]
pub fn mute(what: Mute) {
    // Relaxed: it is set before a test begins and never changed after.
    MUTED.store(what as u32, core::sync::atomic::Ordering::Relaxed);
}

/// Returns whether `what` is switched off.
#[cfg(feature = "mutation")]
#[must_use]
pub fn muted(what: Mute) -> bool {
    MUTED.load(core::sync::atomic::Ordering::Relaxed) == what as u32
}

/// Returns whether `what` is switched off: never, in this build.
#[cfg(not(feature = "mutation"))]
#[inline(always)]
#[must_use]
pub const fn muted(_what: Mute) -> bool {
    false
}
