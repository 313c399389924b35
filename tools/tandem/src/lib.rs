//! Tandem's command line and everything that joins tiles to rings.
//!
//! Invariant: this crate alone reads configuration and knows which tile is connected to which ring; the
//! tiles below are told what they need and nothing else.

pub mod cli;
pub mod config;
pub mod demo;
pub mod engine_tile;
pub mod fetch;
pub mod generate;
pub mod import;
pub mod latch;
pub mod replay;
pub mod secrets;
pub mod supervisor;
pub mod table;
pub mod time;
pub mod venues;
