//! Bytes of an archive's files: a header of 128 bytes, then blocks.
//!
//! Invariant: a block is a header of 64 bytes, its payload, and 32 bytes of chain: the SHA-256 of the chain
//! value before, the header and the payload. So a block that was changed, removed, swapped, repeated or
//! taken from elsewhere breaks the chain of everything after it, and the last block of a file has its own
//! proof too. The checksums (CRC32C) find damage without the chain. Everything is little-endian, reserved
//! bytes are zero and checked, and a later version is refused by its number.
//!
//! ```text
//! file    magic8 version4 bytes4 uuid16 schema8 first8 ordinal8 created8 chain32 reserved28 crc4
//! block   magic4 payload4 count4 reserved4 first8 first_ns8 last_ns8 crc4 reserved8 uuid8 crc4
//!         payload · chain32
//! ```

use aws_lc_rs::digest::{Context, SHA256};

use super::codec::{BLOCK_RECORDS_MAX, stored_bytes};

/// Bytes of a file's header.
pub const FILE_HEADER_BYTES: usize = 128;
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Bytes of a chain value.
pub const CHAIN_BYTES: usize = 32;
/// Most bytes of a payload: what zstd makes of records that do not compress, and some.
pub const PAYLOAD_BYTES_MAX: usize = stored_bytes(BLOCK_RECORDS_MAX) + 64 * 1024;
/// Most bytes of a block.
pub const BLOCK_BYTES_MAX: usize = BLOCK_HEADER_BYTES + PAYLOAD_BYTES_MAX + CHAIN_BYTES;
/// How a file begins.
pub const FILE_MAGIC: [u8; 8] = *b"TANDARC\0";
/// How a block begins.
pub const BLOCK_MAGIC: [u8; 4] = *b"TBLK";
/// Readers refuse another version.
pub const VERSION: u32 = 1;

/// A chain value.
pub type Chain = [u8; CHAIN_BYTES];

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Identity of the journal.
    pub uuid: u128,
    /// Schema of its records.
    pub schema_hash: u64,
    /// Sequence of the first record.
    pub first_seq: u64,
    /// Number of the journal in this archive.
    pub ordinal: u64,
    /// When it was made, UNIX ns.
    pub created_ns: i64,
    /// Chain value before its first block.
    pub chain: Chain,
}

/// What the header of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Records in it.
    pub count: u32,
    /// Sequence of the first.
    pub first_seq: u64,
    /// Engine time of its first record that has one, UNIX ns; 0 where none has.
    pub first_ns: i64,
    /// The latest engine time in it, UNIX ns; 0 where there is none.
    pub last_ns: i64,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Identity of the journal, folded.
    pub journal: u64,
}

/// Returns a journal's identity as blocks carry it.
#[must_use]
pub const fn folded(uuid: u128) -> u64 {
    (uuid >> 64) as u64 ^ uuid as u64
}

/// Returns the chain value before the first record that an archive has of a journal.
#[must_use]
pub fn chain_start(uuid: u128, first_seq: u64) -> Chain {
    let mut context = Context::new(&SHA256);
    context.update(b"tandem archive 1");
    context.update(&uuid.to_le_bytes());
    context.update(&first_seq.to_le_bytes());
    finish(context)
}

/// Returns the chain value after a block.
#[must_use]
pub fn chain_next(chain: &Chain, header: &[u8], payload: &[u8]) -> Chain {
    let mut context = Context::new(&SHA256);
    context.update(chain);
    context.update(header);
    context.update(payload);
    finish(context)
}

fn finish(context: Context) -> Chain {
    let mut chain = [0; CHAIN_BYTES];
    chain.copy_from_slice(context.finish().as_ref());
    chain
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It begins otherwise.
    Magic,
    /// Its checksum.
    Crc,
    /// Another version.
    Version(u32),
    /// The checksum fits, but what it says cannot be.
    Content,
}

impl FileHeader {
    /// Returns the header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&FILE_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.uuid.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.schema_hash.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.created_ns.to_le_bytes());
        bytes[64..96].copy_from_slice(&self.chain);
        let crc = crc32c::crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn read(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<FileHeader, BadHeader> {
        if bytes[0..8] != FILE_MAGIC {
            return Err(BadHeader::Magic);
        }
        if crc32c::crc32c(&bytes[..124]) != u32_at(bytes, 124) {
            return Err(BadHeader::Crc);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(BadHeader::Version(u32_at(bytes, 8)));
        }
        let mut chain = [0; CHAIN_BYTES];
        chain.copy_from_slice(&bytes[64..96]);
        let header = FileHeader {
            uuid: u128::from(u64_at(bytes, 16)) | u128::from(u64_at(bytes, 24)) << 64,
            schema_hash: u64_at(bytes, 32),
            first_seq: u64_at(bytes, 40),
            ordinal: u64_at(bytes, 48),
            created_ns: u64_at(bytes, 56) as i64,
            chain,
        };
        if header.first_seq == 0 || header.to_bytes() != *bytes {
            return Err(BadHeader::Content);
        }
        Ok(header)
    }
}

impl BlockHeader {
    /// Returns the header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.last_ns.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[52..60].copy_from_slice(&self.journal.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn read(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<BlockHeader, BadHeader> {
        if bytes[0..4] != BLOCK_MAGIC {
            return Err(BadHeader::Magic);
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadHeader::Crc);
        }
        let header = BlockHeader {
            payload_bytes: u32_at(bytes, 4),
            count: u32_at(bytes, 8),
            first_seq: u64_at(bytes, 16),
            first_ns: u64_at(bytes, 24) as i64,
            last_ns: u64_at(bytes, 32) as i64,
            payload_crc: u32_at(bytes, 40),
            journal: u64_at(bytes, 52),
        };
        let sizes = 1..=BLOCK_RECORDS_MAX as u32;
        let payloads = 1..=PAYLOAD_BYTES_MAX as u32;
        let fits = sizes.contains(&header.count)
            && payloads.contains(&header.payload_bytes)
            && header.first_seq.checked_add(u64::from(header.count)).is_some()
            && header.to_bytes() == *bytes;
        fits.then_some(header).ok_or(BadHeader::Content)
    }

    /// Returns the sequence after its last record.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count)
    }

    /// Returns the bytes of the whole block.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        (BLOCK_HEADER_BYTES + CHAIN_BYTES) as u64 + u64::from(self.payload_bytes)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
