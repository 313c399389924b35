//! What is wrong with data, where, and what to do about it.
//!
//! Invariant: every message names the file, the line (the row of an array) where there is one, what was found and
//! the fix; bytes of a file are shown cut and escaped, so a hostile one writes nothing to a terminal.

use std::fmt;
use std::path::{Path, PathBuf};

use tandem_shm::JournalError;

use crate::reports::sheet::SheetError;
use crate::table::TableError;

/// Why data could not be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Something of a file as a whole.
    #[error("{path}: {found}; {fix}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        found: String,
        /// What to do.
        fix: String,
    },
    /// A line, or a row of an array.
    #[error("{place}: {found}; {fix}")]
    Line {
        /// File and line.
        place: Place,
        /// What is wrong.
        found: String,
        /// What to do.
        fix: String,
    },
    /// Stamps that cannot be, and nobody asked for them to be corrected.
    #[error("{}", .0.join("\n"))]
    Clocks(Vec<String>),
    /// The options do not fit the files.
    #[error("{0}")]
    Options(String),
    /// A directory or file of ours cannot be made.
    #[error("{path}: cannot {what}: {error}", path = path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// To do what.
        what: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// Instruments.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A table in a file.
    #[error(transparent)]
    Sheet(#[from] SheetError),
    /// The journal's helper gave up.
    #[error("the journal has no room: {0}")]
    Full(String),
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Line or row, from 1.
    pub line: u64,
    /// Whether it is a row of an array.
    pub is_row: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_row { "row" } else { "line" };
        write!(f, "{}: {what} {}", self.path.display(), self.line)
    }
}

impl DataError {
    /// Returns an error of a whole file.
    pub fn file(path: &Path, found: impl Into<String>, fix: impl Into<String>) -> DataError {
        DataError::File { path: path.to_owned(), found: found.into(), fix: fix.into() }
    }

    /// Returns what makes an error of something that could not be made.
    pub fn make(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> DataError {
        let path = path.to_owned();
        move |error| DataError::Make { path, what, error }
    }
}

/// Bytes of a file as a message shows them: at most sixty, escaped.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    const BYTES: usize = 60;
    let cut = &bytes[..bytes.len().min(BYTES)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    // Quotes harm nobody.
    let text = cut.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"");
    format!("`{text}{dots}`")
}
