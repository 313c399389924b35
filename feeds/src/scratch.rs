//! Where a decoder puts the levels of one message.
//!
//! Invariant: reused from message to message, so that decoding allocates only while it grows; a message
//! is decoded whole before any of it is applied.

use tandem_core::units::{Px, Qty, Side, parse_decimal};

use crate::error::DecodeError;
use crate::publish::Update;

/// The exponents of one instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// A price counts 10^-`px`.
    pub px: u8,
    /// A quantity counts 10^-`qty`.
    pub qty: u8,
}

impl Scale {
    /// Reads a price; it is positive.
    #[inline]
    pub fn px(self, text: &[u8]) -> Result<Px, DecodeError> {
        match parse_decimal(text, self.px).map_err(DecodeError::Px)? {
            0 => Err(DecodeError::Price),
            px => Ok(Px(px)),
        }
    }

    /// Reads a quantity; 0 removes a level.
    #[inline]
    pub fn qty(self, text: &[u8]) -> Result<Qty, DecodeError> {
        parse_decimal(text, self.qty).map(Qty).map_err(DecodeError::Qty)
    }

    /// Reads one level.
    #[inline]
    pub fn update(self, side: Side, px: &[u8], qty: &[u8]) -> Result<Update, DecodeError> {
        Ok(Update { side, px: self.px(px)?, qty: self.qty(qty)? })
    }
}
