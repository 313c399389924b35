//! The venue.
pub mod sign;
