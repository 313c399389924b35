//! What all connections need, whatever the venue.
//!
//! Invariant: nothing here knows what a message means.

pub mod backoff;
pub mod budget;
