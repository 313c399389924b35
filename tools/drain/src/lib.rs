//! Everything behind the journal: one process that follows the run and tells others of it.
//!
//! Invariant: nothing here can slow what is before the journal. Shared memory is mapped read-only, and the
//! only thing the drain may change is the level word, upwards, through what its host gave it
//! ([`Hands`]). The journal is followed in one place ([`source`]); each sink takes what it needs of that in
//! calls that never wait, and does its slow work on threads of its own, so a sink that is dead, hung or
//! slow costs the others nothing.
//!
//! Not here: configuration and where things are (`tandem`, which passes them in as a [`Plan`]).

pub mod alerts;
pub mod archive;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod postgres;
pub mod redis;
pub mod rows;
pub mod run;
pub mod sentry;
pub mod source;
pub mod spool;
pub mod standing;
pub mod status;
pub mod tail;
pub mod web;

use std::time::Duration;

use tandem_core::record::Record;
use tandem_shm::ShmError;

pub use plan::{Hands, Plan};
pub use source::{Look, Source};

/// Why the drain could not start.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Shared memory.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// A channel cannot be set up.
    #[error(transparent)]
    Channel(#[from] alerts::channel::ChannelError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Takes what the source gives. No call waits for anything: what is slow has its own thread behind a
/// bounded queue.
pub trait Sink {
    /// One record of the journal, in order. `is_past`: it was written before the drain started, so it
    /// tells how things are and is no news.
    fn record(&mut self, record: &Record, is_past: bool);

    /// Records of the journal were not seen by the drain; what was built from them is in doubt.
    fn lost(&mut self, what: &str);

    /// How everything stands now; several times a second.
    fn look(&mut self, look: &Look);

    /// Ends within this time; what cannot be done in it is told in the log.
    fn close(&mut self, within: Duration);
}

/// The process: the source and its sinks.
pub struct Drain {
    source: Source,
    sinks: Vec<Box<dyn Sink>>,
}

impl Drain {
    /// Joins a source to its sinks.
    #[must_use]
    pub fn new(source: Source, sinks: Vec<Box<dyn Sink>>) -> Drain {
        Drain { source, sinks }
    }

    /// One turn: takes what the journal has, up to a bound, and looks around when it is time. Returns
    /// whether there is more to take at once.
    pub fn turn(&mut self) -> bool {
        let sinks = &mut self.sinks;
        let more = self.source.read(|taken| match taken {
            source::Taken::Record(record, is_past) => {
                sinks.iter_mut().for_each(|sink| sink.record(record, is_past));
            }
            source::Taken::Lost(what) => sinks.iter_mut().for_each(|sink| sink.lost(what)),
        });
        if let Some(look) = self.source.look() {
            self.sinks.iter_mut().for_each(|sink| sink.look(&look));
        }
        more
    }

    /// Ends every sink.
    pub fn close(mut self, within: Duration) {
        self.turn();
        for sink in &mut self.sinks {
            sink.close(within);
        }
    }
}
