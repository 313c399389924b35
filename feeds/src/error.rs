//! What can be wrong with a message.
//!
//! Invariant: a decoder returns a value or one of these, for any bytes; the caller asks only whose book
//! is in doubt.

use tandem_core::record::Reason;
use tandem_core::units::DecimalError;

use crate::json::JsonError;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not of the message's grammar.
    #[error("json: {0}")]
    Json(#[from] JsonError),
    /// A price that is no exact decimal of ours.
    #[error("price: {0}")]
    Px(DecimalError),
    /// A quantity that is no exact decimal of ours.
    #[error("quantity: {0}")]
    Qty(DecimalError),
    /// A price that is not positive.
    #[error("a price that is not positive")]
    Price,
    /// A member the message cannot do without.
    #[error("no member `{0}`")]
    Missing(&'static str),
    /// A member with a value that must not be guessed at.
    #[error("member `{0}` has an unknown value")]
    Value(&'static str),
}

impl DecodeError {
    /// Returns the doubt that a book is in after such a message.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            DecodeError::Px(DecimalError::Overflow { .. } | DecimalError::Inexact { .. })
            | DecodeError::Qty(DecimalError::Overflow { .. } | DecimalError::Inexact { .. }) => {
                Reason::Bounds
            }
            _ => Reason::Malformed,
        }
    }
}

/// A refused message, and whose book it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Fault {
    /// What was wrong.
    pub error: DecodeError,
    /// The one book it concerns; nothing where it may be any of the connection's.
    pub slot: Option<usize>,
}

impl Fault {
    /// Returns the doubt that a book is in after such a message.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.error.reason()
    }
}

impl<E: Into<DecodeError>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault { error: error.into(), slot: None }
    }
}
