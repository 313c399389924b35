//! How far long work is, on a terminal; work of many steps says so in lines elsewhere too.
//!
//! Invariant: standard output stays what the command says; a bar is drawn on standard error, and only where
//! that is a terminal. Lines come at most every ten seconds.

use std::io::{IsTerminal, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines of long work where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

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

/// Work of a known number of steps: a bar with the time left, or a line now and then.
#[derive(Debug)]
pub struct Steps {
    what: &'static str,
    bar: Option<ProgressBar>,
    total: u64,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    begun: Instant,
    told: Instant,
    before: u64,
    done: u64,
}

impl Steps {
    /// Begins work of so many steps, of which some are done before.
    #[must_use]
    pub fn begin(what: &'static str, total: u64, before: u64) -> Steps {
        let style = "{msg} {bar:40} {pos} of {len}, {per_sec}, {eta} left";
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_message(what).with_position(before);
            bar.reset_eta();
            // As above.
            match ProgressStyle::with_template(style) {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        let now = Instant::now();
        let lines = Mutex::new(Lines { begun: now, told: now, before, done: before });
        Steps { what, bar, total, lines }
    }

    /// Goes on by so many.
    pub fn add(&self, by: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(by);
        }
        let Ok(mut lines) = self.lines.lock() else { return };
        lines.done += by;
        if self.bar.is_none() && LINE_EVERY <= lines.told.elapsed() {
            lines.told = Instant::now();
            eprintln!("{}", self.line(&lines));
        }
    }

    fn line(&self, lines: &Lines) -> String {
        let made = lines.done.saturating_sub(lines.before).max(1);
        let left = self.total.saturating_sub(lines.done);
        let seconds = lines.begun.elapsed().as_secs().saturating_mul(left) / made;
        let (what, done, total) = (self.what, lines.done, self.total);
        format!("{what}: {done} of {total}, {} min {:02} s left", seconds / 60, seconds % 60)
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_left() {
        let steps = Steps { bar: None, ..Steps::begin("runs", 100, 40) };
        steps.add(10);
        let Ok(mut lines) = steps.lines.lock() else { panic!("nobody else has it") };
        lines.begun =
            Instant::now().checked_sub(Duration::from_secs(20)).expect("a clock that ran");
        // Ten in twenty seconds: fifty more take a hundred.
        assert_eq!(steps.line(&lines), "runs: 50 of 100, 1 min 40 s left");
    }
}
