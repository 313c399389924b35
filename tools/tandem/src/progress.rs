//! How far long work is, on a terminal and nowhere else.
//!
//! Invariant: standard output stays what the command says; a bar is drawn on standard error, and only where
//! that is a terminal.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or nothing.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Begins a bar over so many bytes.
    #[must_use]
    pub fn bytes(what: &'static str, total: u64) -> Progress {
        if !stderr().is_terminal() {
            return Progress(None);
        }
        let style = "{msg} {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let bar = ProgressBar::new(total).with_message(what);
        // The template is a constant, and right; a plain bar would do as well.
        Progress(Some(match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }))
    }

    /// Begins a count of something whose end is not known.
    #[must_use]
    pub fn count(what: &'static str) -> Progress {
        if !stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::new_spinner().with_message(what);
        // As above.
        Progress(Some(match ProgressStyle::with_template("{spinner} {msg}: {pos}, {per_sec}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }))
    }

    /// Goes on by so much.
    pub fn add(&self, by: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(by);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
