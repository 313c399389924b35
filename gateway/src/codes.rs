//! What a venue's refusal means, whatever its spelling.
//!
//! Invariant: a refusal is certain only if the venue's documentation says that the order was not executed;
//! whatever is not in a venue's table is unknown (OE-01). The tables are each venue's `codes`.

use tandem_core::order::RejectClass;

/// What is known of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not executed.
    Refused(RejectClass),
    /// It may have been.
    Unknown,
}

/// What follows for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Wait before the next new order.
    Wait,
    /// The address is banned: wait, and halt.
    Ban,
    /// The key is refused: halt.
    Key,
}

/// One row of a table.
pub type Judged = (Verdict, Effect);

/// Not executed, and nothing else follows.
#[must_use]
pub const fn refused(class: RejectClass) -> Judged {
    (Verdict::Refused(class), Effect::None)
}

/// Nobody knows.
pub const UNKNOWN: Judged = (Verdict::Unknown, Effect::None);
