//! What a record must be to cross a ring or enter a journal: 128 plain bytes.
//!
//! Invariant: a payload has no padding and no invalid bit pattern (zerocopy proves both), so that its
//! sixteen words are all of it, and any sixteen words are one. Word 0 belongs to the ring or journal.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Words of a record.
pub const RECORD_WORDS: usize = 16;
/// Bytes of a record: two cache lines.
pub const RECORD_BYTES: usize = RECORD_WORDS * 8;

/// A type that can be a record. Implemented for all that qualify; the size is checked at compile time
/// where a ring or journal of it is made.
pub trait Payload: FromBytes + IntoBytes + Immutable + Copy + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Payload for T {}

/// Fails to compile for a type of another size.
pub(crate) const fn assert_size<T>() {
    assert!(size_of::<T>() == RECORD_BYTES, "a record is exactly 128 bytes");
}

/// Returns the words of a record, in memory order.
#[inline(always)]
pub(crate) fn to_words<T: Payload>(item: &T) -> [u64; RECORD_WORDS] {
    const { assert_size::<T>() };
    <[u64; RECORD_WORDS]>::read_from_bytes(item.as_bytes()).expect("both have 128 bytes")
}

/// Returns the record of these words.
#[inline(always)]
pub(crate) fn from_words<T: Payload>(words: &[u64; RECORD_WORDS]) -> T {
    const { assert_size::<T>() };
    T::read_from_bytes(words.as_bytes()).expect("both have 128 bytes")
}
