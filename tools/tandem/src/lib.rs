//! Tandem's command line and everything that joins tiles to rings.
//!
//! Invariant: this crate alone reads configuration and knows which tile is connected to which ring; the
//! tiles below are told what they need and nothing else.

pub mod accounts;
pub mod backtest;
pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod demo_config;
pub mod demo_keys;
pub mod drain_role;
pub mod echo;
pub mod engine_tile;
pub mod fetch;
pub mod generate;
pub mod identity;
pub mod latch;
pub mod limits;
pub mod postgres_config;
pub mod progress;
pub mod records;
pub mod replay;
pub mod reports;
pub mod routes;
pub mod run_number;
pub mod sanity;
pub mod secrets;
pub mod services;
pub mod sim_control;
pub mod stages;
pub mod supervisor;
pub mod sweep;
pub mod table;
pub mod time;
pub mod top;
pub mod trades;
pub mod truth;
pub mod venues;
pub mod warden_role;
