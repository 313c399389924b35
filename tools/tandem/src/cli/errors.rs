//! What this process tells of its errors: scrubbed on the error stream, and kept for the drain.
//!
//! Invariant: no text of a secret that was read leaves by either way. Of a log's event only fields that are
//! listed are kept ([`spool::FIELDS`]).
//!
//! Not here: what is taken out and where it is written (`tandem_drain::spool`).

use std::fmt;
use std::io::{self, Write};

use tandem_drain::spool::{self, What};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// Returns what this process is: its arguments up to the first option.
#[must_use]
pub fn role() -> String {
    let words = std::env::args().skip(1).take_while(|word| !word.starts_with('-')).take(2);
    words.collect::<Vec<_>>().join(" ")
}

/// The error stream, scrubbed.
pub struct Scrubbed;

/// One line for it.
pub struct ScrubbedLine;

impl<'a> MakeWriter<'a> for Scrubbed {
    type Writer = ScrubbedLine;

    fn make_writer(&'a self) -> ScrubbedLine {
        ScrubbedLine
    }
}

impl Write for ScrubbedLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter gives a whole line at once.
        io::stderr().write_all(spool::scrub(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Keeps every event of level ERROR.
pub struct SpoolErrors;

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name if spool::FIELDS.contains(&name) => self.others.push((name, format!("{value:?}"))),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for SpoolErrors {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        spool::tell(What::Error, &fields.message, event.metadata().target(), &fields.others);
    }
}
