//! Kraken spot market data.
pub mod decode;
pub mod meta;
pub mod sync;
pub mod wire;
