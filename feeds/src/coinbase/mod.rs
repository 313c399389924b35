//! Coinbase Advanced Trade market data.
pub mod decode;
pub mod sync;
pub mod wire;
