//! Order entry: what the engine asks for goes to the venues, what the venues say comes back as records.
//!
//! ```text
//!  engine ══ order ring ══►  gateway ──► spell (venue) ──► guard ──► socket ══► venue
//!                              desk  ◄── decode (venue) ◄──────────── socket ◄══ venue
//!  engine ◄═ report ring ══   states, proofs, audits
//! ```
//! Invariants: a new order leaves through [`guard`] alone, once; an outcome that is not proven is unknown;
//! secrets are seen by `sign` alone. Everything but [`tile`] and [`client`] is without I/O.
//!
//! Read in this order: [`machine`] (the face to sockets), [`guard`], [`desk`], [`gateway`], one venue.

#![forbid(unsafe_code)]

pub mod binance;
pub mod budget;
pub mod busts;
pub mod client;
pub mod codes;
pub mod coinbase;
pub mod config;
pub mod desk;
pub mod gate;
pub mod gateway;
pub mod guard;
pub mod json;
pub mod keys;
pub mod kraken;
pub mod machine;
pub mod mute;
pub mod orders;
pub mod predecessor;
pub mod stats;
pub mod text;
pub mod tile;
pub mod warden;
