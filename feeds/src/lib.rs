//! Venue market data: decoders, sync machines, and the sockets below them.
//!
//! Invariant: what a venue sends becomes records that are proven in sync with it, or a doubt that is said
//! at once. Any bytes give a value or an error, memory is bounded, and no message of the hot kinds
//! allocates.
//!
//! Read in this order: [`machine`] (the face to sockets), [`publish`] (the face to the engine), one venue.

pub mod audit;
pub mod binance;
pub mod capture;
pub mod coinbase;
pub mod error;
pub mod freshness;
pub mod fuzz;
pub mod json;
pub mod kraken;
pub mod machine;
pub mod net;
pub mod page;
pub mod publish;
pub mod redundant;
pub mod scratch;
pub mod session;
pub mod spec;
pub mod stamp;
pub mod symbols;
pub mod tile;
