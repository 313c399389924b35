//! What all connections need, whatever the venue.
//!
//! Invariant: nothing here knows what a message means.

pub mod backoff;
pub mod budget;
pub mod certificate;
pub mod http;
pub mod resolve;
pub mod sockopt;
pub mod tls;
pub mod transport;
pub mod ws;
