//! How the drain stands, in a file of the run's directory: for whoever asks without the dashboard.
//!
//! Invariant: the file is put in place whole, once a second, so who reads it sees one moment's. It says when that
//! was: an old one is the last word of a drain that ended or hangs. It holds no secret, for a sink tells none.
//!
//! Not here: what a sink tells ([`crate::status`]), what a channel does ([`crate::alerts`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tandem_core::record::Record;

use crate::alerts::board::Board;
use crate::source::now_ns;
use crate::status::Registry;
use crate::{Look, Sink};

/// The file's name.
pub const FILE: &str = "drain.json";
/// Between two words.
const EVERY: Duration = Duration::from_secs(1);
/// A file beyond this is none of ours.
const BYTES_MAX: u64 = 1 << 20;

/// A sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStands {
    /// Its name.
    pub name: String,
    /// The last thing it did with its other side succeeded.
    pub up: bool,
    /// Records of the journal that it has not handed over.
    pub lag_records: u64,
    /// Rows (or messages) handed over since it started.
    pub written_rows: u64,
    /// Failures since it started.
    pub errors: u64,
    /// Rows put aside for good.
    pub dead_letters: u64,
    /// When it last succeeded, UNIX ns; 0 never.
    pub last_ok_ns: i64,
    /// What is wrong, in words.
    pub trouble: Option<String>,
}

/// A channel of the alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelStands {
    /// Its name.
    pub name: String,
    /// It is not lost.
    pub up: bool,
    /// Messages taken.
    pub delivered: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Notices that found no room.
    pub dropped: u64,
    /// Why it counts as lost.
    pub trouble: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stands {
    /// When, UNIX ns.
    pub at_ns: i64,
    /// The process.
    pub pid: u32,
    /// Its sinks.
    pub sinks: Vec<SinkStands>,
    /// Its channels.
    pub channels: Vec<ChannelStands>,
}

/// Reads the file of a run; nothing where no drain ever said anything.
pub fn read(dir: &Path) -> io::Result<Option<Stands>> {
    let path = dir.join(FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if BYTES_MAX < found.len() => {
            return Err(io::Error::other(format!("{}: {} bytes", path.display(), found.len())));
        }
        Ok(_) => {}
    }
    let text = fs::read(&path)?;
    serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
}

/// Writes it.
pub struct Standing {
    dir: PathBuf,
    registry: Registry,
    board: Board,
    next: Instant,
    is_told: bool,
}

impl Standing {
    /// Writes into a run's directory what the sinks and the channels tell.
    #[must_use]
    pub fn new(dir: PathBuf, registry: Registry, board: Board) -> Standing {
        Standing { dir, registry, board, next: Instant::now(), is_told: false }
    }

    fn now(&self, at_ns: i64) -> Stands {
        let sinks = self.registry.look().into_iter().map(|sink| SinkStands {
            name: sink.name.to_owned(),
            up: sink.up,
            lag_records: sink.lag_records,
            written_rows: sink.written_rows,
            errors: sink.errors,
            dead_letters: sink.dead_letters,
            last_ok_ns: sink.last_ok_ns,
            trouble: sink.trouble,
        });
        let channels = self.board.channels();
        Stands { at_ns, pid: std::process::id(), sinks: sinks.collect(), channels }
    }

    fn write(&mut self) {
        let text = serde_json::to_vec(&self.now(now_ns())).expect("plain words and numbers");
        let (place, new) = (self.dir.join(FILE), self.dir.join(".drain.json"));
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &place));
        if let Err(error) = &written
            && !self.is_told
        {
            tracing::warn!(%error, "how the drain stands cannot be told to `tandem status`");
        }
        self.is_told = written.is_err();
    }
}

impl Sink for Standing {
    fn record(&mut self, _record: &Record, _is_past: bool) {}

    fn lost(&mut self, _what: &str) {}

    fn look(&mut self, _look: &Look) {
        if self.next <= Instant::now() {
            self.next = Instant::now() + EVERY;
            self.write();
        }
    }

    fn close(&mut self, _within: Duration) {
        self.write();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = std::env::temp_dir().join(format!("tandem-standing-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        assert_eq!(read(&dir).expect("no file is no error"), None);
        let registry = Registry::default();
        registry.register("postgres").failed("connection refused", true);
        registry.register("archive").lag(7, 896);
        let board = Board::default();
        let slack = ChannelStands { name: "slack".to_owned(), up: true, ..Default::default() };
        board.put_channels(vec![slack.clone()]);
        let mut standing = Standing::new(dir.clone(), registry, board);
        standing.look(&Look::default());
        let found = read(&dir).expect("a file").expect("it is there");
        assert_eq!(found.channels, [slack]);
        let of = |sink: &SinkStands| (sink.up, sink.lag_records, sink.trouble.clone());
        let sinks: Vec<_> = found.sinks.iter().map(of).collect();
        assert_eq!(sinks, [(false, 0, Some("connection refused".to_owned())), (false, 7, None)]);
        fs::write(dir.join(FILE), b"{").expect("half a file");
        assert!(read(&dir).is_err());
        let _ = fs::remove_dir_all(&dir);
    }
}
