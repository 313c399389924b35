//! Reports and exports: what a journal, an archive or the configured run says, for people and for the taxman.
//!
//! Invariant: everything here is a function of the records (and, where it says so, of a file the operator
//! gave); amounts are exact decimals of eighteen places ([`Exact`]), rounded at most once, where it is said.
//! A table that is written to a file appears there whole or not at all.
//!
//! Not here: the command line (`crate::cli`), where records are (`crate::records`).

pub mod backtest;
pub mod daily;
pub mod drift;
pub mod exact;
pub mod exports;
pub mod fills;
pub mod lots;
pub mod page;
pub mod period;
pub mod pnl_by;
pub mod rates;
pub mod rows;
pub mod sheet;
pub mod stories;

pub use exact::Exact;
