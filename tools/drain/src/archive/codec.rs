//! Records of one block, as bytes that compress well, and back.
//!
//! Invariant: what comes back is what went in, bit for bit, or nothing does. Two things are not stored
//! because they follow: the sequence (the block says the first, and there is no gap) and the journal's own
//! checksum of a record (a function of the rest and of the journal's identity). Neighbours differ little,
//! so every word is stored as its difference from the record before, column by column, byte plane by byte
//! plane; zstd finds the rest. Decoding is total: sizes are checked before anything is allocated.
//!
//! Not here: what a block looks like in a file (`format`).

use tandem_core::record::Record;
use tandem_shm::{RECORD_BYTES, RECORD_WORDS, record_check};
use zerocopy::{FromBytes, IntoBytes};

/// Most records of a block: 2 MiB of them, which bounds what a reader allocates.
pub const BLOCK_RECORDS_MAX: usize = 16_384;
/// Words of a record that are stored: all but its sequence.
const STORED_WORDS: usize = RECORD_WORDS - 1;
/// Records that are laid out at a time: they and their words stay in the nearest cache.
const TILE: usize = 64;
/// Words that are tags side by side, not numbers: a difference would only blur them.
const TAGS: [bool; RECORD_WORDS] = {
    let mut tags = [false; RECORD_WORDS];
    // kind, flags, venue, part, instrument, epoch
    tags[1] = true;
    // decode_ticks, bytes
    tags[11] = true;
    // conn, ring, asset
    tags[12] = true;
    // check, run
    tags[15] = true;
    tags
};

/// Why records cannot be stored, or bytes are not records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not the next sequence: the caller lost or repeated one.
    #[error("record {found} comes where {expected} is next")]
    Sequence {
        /// What the record says.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// The record is not what the journal wrote.
    #[error("record {seq} does not have its journal's checksum")]
    Check {
        /// Which.
        seq: u64,
    },
    /// Too many records, or none.
    #[error("{0} records make no block")]
    Count(usize),
    /// The compressed bytes are none, or not as many records as they should be.
    #[error("the payload does not decompress to {expected} bytes")]
    Payload {
        /// How many there should be.
        expected: usize,
    },
    /// zstd cannot compress.
    #[error("zstd: out of memory")]
    Zstd,
}

/// Returns how many bytes so many records have before compression.
#[must_use]
pub const fn stored_bytes(count: usize) -> usize {
    count * STORED_WORDS * 8
}

/// Compresses and restores blocks; its buffers are used again.
pub struct Codec {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    planes: Vec<u8>,
}

impl Codec {
    /// Makes a codec of a zstd level, 1 to 19.
    pub fn new(level: i32) -> Result<Codec, CodecError> {
        Ok(Codec {
            compressor: zstd::bulk::Compressor::new(level).map_err(|_| CodecError::Zstd)?,
            decompressor: zstd::bulk::Decompressor::new().map_err(|_| CodecError::Zstd)?,
            planes: Vec::new(),
        })
    }

    /// Compresses records that follow each other.
    pub fn encode(&mut self, uuid: u128, records: &[Record]) -> Result<Vec<u8>, CodecError> {
        if records.is_empty() || BLOCK_RECORDS_MAX < records.len() {
            return Err(CodecError::Count(records.len()));
        }
        for (record, expected) in records.iter().zip(records[0].seq..) {
            if record.seq != expected {
                return Err(CodecError::Sequence { found: record.seq, expected });
            }
            if record.check != check_of(uuid, record) {
                return Err(CodecError::Check { seq: record.seq });
            }
        }
        self.spread(records);
        self.compressor.compress(&self.planes).map_err(|_| CodecError::Zstd)
    }

    /// Lays records out column by column, plane by plane.
    fn spread(&mut self, records: &[Record]) {
        let count = records.len();
        self.planes.clear();
        self.planes.resize(stored_bytes(count), 0);
        let mut before = [0u64; RECORD_WORDS];
        for (tile, records) in records.chunks(TILE).enumerate() {
            let mut tile_words = [[0u64; RECORD_WORDS]; TILE];
            for (words, record) in tile_words.iter_mut().zip(records) {
                *words = words_of(&Record { check: 0, ..*record });
            }
            let tile_words = &tile_words[..records.len()];
            for word in 1..RECORD_WORDS {
                let mut values = [0u64; TILE];
                let mut last = before[word];
                for (value, words) in values.iter_mut().zip(tile_words) {
                    let now = words[word];
                    *value = if TAGS[word] { now } else { zigzag(now.wrapping_sub(last)) };
                    last = now;
                }
                before[word] = last;
                let column = (word - 1) * 8 * count + tile * TILE;
                for plane in 0..8 {
                    let from = column + plane * count;
                    let bytes = &mut self.planes[from..from + records.len()];
                    for (byte, value) in bytes.iter_mut().zip(&values) {
                        *byte = (value >> (plane * 8)) as u8;
                    }
                }
            }
        }
    }

    /// Restores the records of a block.
    pub fn decode(
        &mut self,
        uuid: u128,
        first_seq: u64,
        count: usize,
        payload: &[u8],
        into: &mut Vec<Record>,
    ) -> Result<(), CodecError> {
        if count == 0 || BLOCK_RECORDS_MAX < count {
            return Err(CodecError::Count(count));
        }
        let expected = stored_bytes(count);
        self.planes.clear();
        self.planes.resize(expected, 0);
        match self.decompressor.decompress_to_buffer(payload, &mut self.planes[..]) {
            Ok(found) if found == expected => {}
            _ => return Err(CodecError::Payload { expected }),
        }
        into.reserve(count);
        let mut before = [0u64; RECORD_WORDS];
        for first in (0..count).step_by(TILE) {
            let taken = TILE.min(count - first);
            let mut tile_words = [[0u64; RECORD_WORDS]; TILE];
            for word in 1..RECORD_WORDS {
                let mut values = [0u64; TILE];
                let column = (word - 1) * 8 * count + first;
                for plane in 0..8 {
                    let from = column + plane * count;
                    let bytes = &self.planes[from..from + taken];
                    for (value, byte) in values.iter_mut().zip(bytes) {
                        *value |= u64::from(*byte) << (plane * 8);
                    }
                }
                let mut last = before[word];
                for (words, value) in tile_words[..taken].iter_mut().zip(values) {
                    last = if TAGS[word] { value } else { last.wrapping_add(unzigzag(value)) };
                    words[word] = last;
                }
                before[word] = last;
            }
            for (at, words) in tile_words[..taken].iter_mut().enumerate() {
                words[0] = first_seq.wrapping_add((first + at) as u64);
                let mut record = record_of(words);
                record.check = check_of(uuid, &record);
                into.push(record);
            }
        }
        Ok(())
    }
}

/// Small differences, up or down, become small numbers.
const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn words_of(record: &Record) -> [u64; RECORD_WORDS] {
    let mut words = [0; RECORD_WORDS];
    words.as_mut_bytes().copy_from_slice(record.as_bytes());
    words
}

fn record_of(words: &[u64; RECORD_WORDS]) -> Record {
    let mut record = Record::default();
    record.as_mut_bytes().copy_from_slice(words.as_bytes());
    record
}

fn check_of(uuid: u128, record: &Record) -> u32 {
    let bytes = <[u8; RECORD_BYTES]>::read_from_bytes(record.as_bytes());
    record_check(uuid, &bytes.expect("a record has that size"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_core::record::Kind;

    use super::*;

    fn records(uuid: u128, first_seq: u64, words: &[[u64; RECORD_WORDS]]) -> Vec<Record> {
        let each = words.iter().zip(first_seq..).map(|(words, seq)| {
            let mut record = Record { seq, ..record_of(words) };
            record.check = check_of(uuid, &record);
            record
        });
        each.collect()
    }

    proptest! {
        /// Whatever the words of a record are, and however many there are.
        #[test]
        fn what_comes_back_is_what_went_in(
            words in prop::collection::vec(any::<[u64; RECORD_WORDS]>(), 1..300),
            first_seq in 1..u64::MAX / 2,
            uuid in any::<u128>(),
        ) {
            let records = records(uuid, first_seq, &words);
            let mut codec = Codec::new(3).unwrap();
            let payload = codec.encode(uuid, &records).unwrap();
            let mut back = Vec::new();
            codec.decode(uuid, first_seq, records.len(), &payload, &mut back).unwrap();
            prop_assert_eq!(back, records);
        }

        /// Decoding is total.
        #[test]
        fn any_bytes_are_records_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..4_000),
            count in 0..=BLOCK_RECORDS_MAX + 1,
        ) {
            let mut into = Vec::new();
            let decoded = Codec::new(1).unwrap().decode(7, u64::MAX - 3, count, &bytes, &mut into);
            prop_assert_eq!(decoded.is_ok(), !into.is_empty());
        }
    }

    #[test]
    fn what_is_no_run_of_records_is_refused() {
        let uuid = 5;
        let mut codec = Codec::new(1).unwrap();
        let good = records(uuid, 9, &[[3; RECORD_WORDS], [4; RECORD_WORDS]]);
        assert_eq!(codec.encode(uuid, &[]), Err(CodecError::Count(0)));
        let hole = [good[0], Record { seq: 11, ..good[1] }];
        let refused = CodecError::Sequence { found: 11, expected: 10 };
        assert_eq!(codec.encode(uuid, &hole), Err(refused));
        let changed = [Record { kind: Kind::Gap as u8, ..good[0] }];
        assert_eq!(codec.encode(uuid, &changed), Err(CodecError::Check { seq: 9 }));
        assert_eq!(codec.encode(6, &good), Err(CodecError::Check { seq: 9 }), "another journal's");
    }
}
