//! Benchmarks: ours beside the peer and the physical floor, in one run, as ratios.
//!
//! `cargo run --release -p tandem-bench -- [--only GROUP] [--quick] [--json]`
//!
//! | group | ours | beside |
//! | --- | --- | --- |
//! | [`ring`] | hop of a 128-byte record between two cores | cache-line ping-pong; ringfire, rtrb, disruptor, crossbeam |
//! | [`journal`] | append of a record | copy of 128 bytes |
//! | [`decode`] | a venue's message to integers | simd-json, sonic-rs, a pass over its bytes |
//! | [`book`] | level change and best prices | hftbacktest's depths, std's `BTreeMap` |
//! | [`detect`] | a best-price change to a decision | two exact multiplications a pair |
//! | [`replay`] | records a second through the engine | a pass over the records |
//!
//! Read [`harness`] first: it says what a figure is. Whole backtests are processes of their own, for their memory is
//! measured too: `bench/backtest/run` puts `tandem backtest` beside hftbacktest.

mod book;
mod captures;
mod decode;
mod detect;
mod harness;
mod journal;
mod markets;
mod replay;
mod report;
mod ring;

use std::error::Error;
use std::process::ExitCode;

use report::Report;

/// How much to do.
#[derive(Clone, Copy)]
pub struct Effort {
    quick: bool,
}

impl Effort {
    /// Rounds of a comparison: the usual number, or a tenth of it.
    pub fn rounds(self, usual: usize) -> usize {
        if self.quick { (usual / 10).max(6) } else { usual }
    }
}

/// What every group is: it adds its tables.
type Group = fn(Effort, &mut Report) -> Result<(), Box<dyn Error>>;

const GROUPS: [(&str, Group); 6] = [
    ("ring", ring::run),
    ("journal", journal::run),
    ("decode", decode::run),
    ("book", book::run),
    ("detect", detect::run),
    ("replay", replay::run),
];

/// The command line.
#[derive(Default)]
struct Args {
    only: Option<String>,
    quick: bool,
    json: bool,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut parsed = Args::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--only" => {
                    let group = args.next().ok_or("--only needs a group")?;
                    if !GROUPS.iter().any(|(name, _)| *name == group) {
                        return Err(format!("no group `{group}`"));
                    }
                    parsed.only = Some(group);
                }
                "--quick" => parsed.quick = true,
                "--json" => parsed.json = true,
                // What `cargo bench` adds.
                "--bench" => {}
                other => return Err(format!("no option `{other}`")),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
            eprintln!("{error}\nusage: tandem-bench [--only GROUP] [--quick] [--json]");
            eprintln!("groups: {}", names.join(" "));
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut report = Report::new(!args.json);
    let effort = Effort { quick: args.quick };
    for (name, group) in GROUPS {
        if args.only.as_deref().is_none_or(|only| only == name) {
            group(effort, &mut report)?;
        }
    }
    Ok(report.finish()?)
}
