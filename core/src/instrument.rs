//! Assets, instruments and their rules, in quanta.
//!
//! Invariant: every number of a [`Universe`] is in the quanta of its assets, and a product that the
//! engine forms from them cannot overflow: [`Universe::check`] proves it once at start and refuses the
//! instrument by name. An instrument belongs to one venue; the same pair at two venues is two
//! instruments with equal exponents.
//!
//! Not here: symbols and how rules are read from a venue (`tandem-feeds`).

use alloc::string::String;
use alloc::vec::Vec;

use crate::record::{TradingStatus, Venue};
use crate::units::{Amount, EXPONENT_MAX, FeePpm, Px, Qty};

/// Index of an asset in [`Universe::assets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetId(pub u16);

/// An asset. USD, USDT and USDC are three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Name as shown, e.g. `BTC`.
    pub name: String,
    /// An amount of this asset counts 10^-`exponent`; also the exponent of quantities where it is base.
    pub exponent: u8,
}

/// Which asset a venue takes its taker fee from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeeIn {
    /// Always the quote asset (Coinbase, Kraken).
    Quote,
    /// What the taker receives: base when buying, quote when selling (Binance without BNB).
    Received,
}

/// One instrument at one venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Where.
    pub venue: Venue,
    /// What is bought or sold.
    pub base: AssetId,
    /// What it is paid in.
    pub quote: AssetId,
    /// A price counts 10^-`px_exponent` quote per base.
    pub px_exponent: u8,
    /// Smallest price move.
    pub tick: Px,
    /// Smallest quantity move.
    pub lot: Qty,
    /// Smallest order.
    pub qty_min: Qty,
    /// Largest order the venue takes.
    pub qty_max: Qty,
    /// Smallest order worth, in quote quanta.
    pub notional_min: Amount,
    /// Largest order worth we allow, in quote quanta.
    pub notional_max: Amount,
    /// What the venue charges us to take.
    pub taker_fee: FeePpm,
    /// Which asset the fee comes from.
    pub fee_in: FeeIn,
    /// Whether orders are taken at start; changes arrive as records.
    pub status: TradingStatus,
}

/// Every asset and instrument of a run. The index of an instrument is its id in records.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Universe {
    /// Assets; the index is the [`AssetId`].
    pub assets: Vec<Asset>,
    /// Instruments; the index is the id in records.
    pub instruments: Vec<Instrument>,
}

/// Why a universe was refused. `instrument` is its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UniverseError {
    /// More than a record can name.
    #[error("{count} instruments, a record can name {max}: enable fewer")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// An asset index beyond the table, or base and quote the same asset.
    #[error("instrument {instrument}: base and quote must be two assets of the table")]
    Assets {
        /// Which.
        instrument: usize,
    },
    /// An exponent larger than [`EXPONENT_MAX`], or a product's shift that does not fit.
    #[error("instrument {instrument}: exponents of price, base and quote do not fit together")]
    Exponent {
        /// Which.
        instrument: usize,
    },
    /// A tick, lot or limit that is not positive, or a fee outside ±10 %.
    #[error(
        "instrument {instrument}: tick, lot and limits must be positive and the fee within 10 %"
    )]
    Rules {
        /// Which.
        instrument: usize,
    },
    /// Two venues' instruments of one pair differ in exponent, so they do not compare as integers.
    #[error("instruments {first} and {second}: the same pair with different price exponents")]
    Pair {
        /// The one seen first.
        first: usize,
        /// The one that differs.
        second: usize,
    },
}

/// Largest instrument count: the id is 16 bits, and the last one means "none".
pub const INSTRUMENTS_MAX: usize = u16::MAX as usize;

impl Universe {
    /// Returns the instrument with this id, or nothing where a record names none of ours.
    #[must_use]
    #[inline]
    pub fn get(&self, instrument: u16) -> Option<&Instrument> {
        self.instruments.get(usize::from(instrument))
    }

    /// Returns the exponent of an asset's amounts.
    #[must_use]
    #[inline]
    pub fn exponent(&self, asset: AssetId) -> u8 {
        self.assets[usize::from(asset.0)].exponent
    }

    /// Checks everything the engine relies on; the first fault is the error.
    pub fn check(&self) -> Result<(), UniverseError> {
        let count = self.instruments.len();
        if INSTRUMENTS_MAX <= count {
            return Err(UniverseError::TooMany { count, max: INSTRUMENTS_MAX - 1 });
        }
        for (idx, instrument) in self.instruments.iter().enumerate() {
            self.check_one(idx, instrument)?;
            let twin = self.instruments[..idx].iter().position(|other| {
                (other.base, other.quote) == (instrument.base, instrument.quote)
                    && other.px_exponent != instrument.px_exponent
            });
            if let Some(first) = twin {
                return Err(UniverseError::Pair { first, second: idx });
            }
        }
        Ok(())
    }

    fn check_one(&self, idx: usize, instrument: &Instrument) -> Result<(), UniverseError> {
        let known = |asset: AssetId| usize::from(asset.0) < self.assets.len();
        if !known(instrument.base)
            || !known(instrument.quote)
            || instrument.base == instrument.quote
        {
            return Err(UniverseError::Assets { instrument: idx });
        }
        let exponents = [
            instrument.px_exponent,
            self.exponent(instrument.base),
            self.exponent(instrument.quote),
        ];
        let shift = i32::from(instrument.px_exponent) + i32::from(self.exponent(instrument.base))
            - i32::from(self.exponent(instrument.quote));
        // px × qty counts 10^-(px + base); bringing it to the quote's exponent must be one division.
        if exponents.iter().any(|e| EXPONENT_MAX < *e)
            || !(0..=i32::from(EXPONENT_MAX)).contains(&shift)
        {
            return Err(UniverseError::Exponent { instrument: idx });
        }
        let positive =
            [instrument.tick.0, instrument.lot.0, instrument.qty_max.0, instrument.notional_max.0];
        let not_negative = [instrument.qty_min.0, instrument.notional_min.0];
        if positive.iter().any(|v| *v <= 0)
            || not_negative.iter().any(|v| *v < 0)
            || 100_000 < instrument.taker_fee.0.abs()
        {
            return Err(UniverseError::Rules { instrument: idx });
        }
        Ok(())
    }
}
