//! Tandem's core: the engine as a pure function of its input records.
//!
//! Invariant: the outside enters only as a [`record::Record`] and leaves only as one. No clock, no I/O,
//! no float, no randomness, no environment; allocation at construction only. The same journal gives
//! the same outputs, byte for byte, on any machine.
//!
//! Read in this order: [`units`], [`record`], [`book`], [`graph`], [`walk`], [`detector`], [`engine`]; then
//! for trading [`limits`], [`orders`], [`ledger`], [`round`], [`controls`], [`hedge`], [`trading`], [`paper`],
//! [`restore`].
#![no_std]
#![deny(clippy::float_arithmetic)]

extern crate alloc;

pub mod account;
pub mod book;
pub mod controls;
pub mod detector;
pub mod engine;
pub mod episode;
#[cfg(test)]
mod fixtures;
pub mod graph;
pub mod hedge;
pub mod instrument;
pub mod ledger;
pub mod level;
pub mod limits;
pub mod log;
pub mod market;
pub mod mutation;
pub mod order;
pub mod orders;
pub mod own;
pub mod paper;
pub mod params;
pub mod record;
pub mod report;
pub mod restore;
pub mod round;
pub mod trading;
pub mod units;
pub mod value;
pub mod walk;
pub mod wide;
