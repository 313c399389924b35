//! Shared memory between the tiles of Tandem. Knows nothing of markets: a record is 128 bytes.
//!
//! | module | what it holds | its promise |
//! | --- | --- | --- |
//! | [`region`] | a file with a header page and one owner | never half-made, never truncated, never two owners |
//! | [`ring`] | records, one producer, many consumers | whole records; taken + lost = published |
//! | [`latest`] | entries that hold their latest value | whole values |
//! | [`journal`] | every record, in order, in segments | what was committed survives `kill -9`; damage shows |
//! | [`stats`] | counters, gauges, histograms | read live without disturbing the writer |
//! | [`clock`] | ticks to nanoseconds, for all processes alike | does not go back |
//! | [`control`] | the level word, and a row per process | no raise is lost; a row has one process |
//! | [`bell`] | a mark and a pipe | who sleeps is woken for what is published |
//! | [`wait`] | what an idle tile does | ends by itself |
//!
//! Below them: [`slot`], the protocol of one slot with its proofs, and [`payload`], what a record must be.
//!
//! Every word has one writer, but for the level word, which is swapped. Readers map `PROT_READ`. `unsafe` is for layout and ownership only.

#[cfg(not(all(target_os = "linux", target_endian = "little", target_pointer_width = "64")))]
compile_error!("tandem-shm is for 64-bit little-endian Linux");

pub mod bell;
pub mod clock;
pub mod control;
pub mod error;
pub mod journal;
pub mod latest;
pub mod payload;
pub mod region;
pub mod ring;
pub mod slot;
pub mod stats;
mod sys;
pub mod wait;

pub use bell::{Bell, Ringer};
pub use clock::{Clock, ClockReader, ClockWriter, tsc};
pub use control::{ControlPage, ControlView};
pub use error::ShmError;
pub use journal::{
    JournalError, JournalFull, JournalMonitor, JournalReader, JournalRelease, JournalSpec,
    JournalWriter, VerifyReport, oldest_seq, read_released, record_check, verify,
};
pub use latest::{LatestReader, LatestSpec, LatestWriter};
pub use payload::{Payload, RECORD_BYTES, RECORD_WORDS};
pub use region::{Counter, Note, Producer, RegionInfo, RegionKind};
pub use ring::{Read, ReaderCounts, RingReader, RingSpec, RingWriter};
pub use stats::{
    CounterHandle, GaugeHandle, HistogramHandle, HistogramSnapshot, Metric, MetricKind,
    MetricValue, Snapshot, StatsReader, StatsWriter,
};
pub use sys::{disk_bytes, euid, fnv1a, forbid_dumps, free_bytes};
pub use wait::{WaitMode, Waiter};
