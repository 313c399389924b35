//! `top`: the run on a terminal, or once as text.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::{ConfigArg, Done, Failure, Outcome, print};
use crate::top::{Colours, Follow, Show, draw, text_of};

/// What is there is read for so long before the one picture is taken.
const ONCE_WITHIN: Duration = Duration::from_secs(20);

/// How to show it.
#[derive(Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// One picture as plain text, then end.
    #[arg(long)]
    once: bool,
    /// Columns and rows of the picture.
    #[arg(long, requires = "once", default_value = "80x24", value_parser = size)]
    size: (u16, u16),
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((width @ 40..=500, height @ 10..=200)) => Ok((width, height)),
        _ => Err(format!("`{text}`: write columns x rows, 40x10 to 500x200, such as 80x24")),
    }
}

/// `tandem top`.
pub fn run(args: &TopArgs) -> Done {
    let config = args.config.load()?;
    if args.once {
        let mut follow = Follow::new(&config).map_err(Failure::failed)?;
        let until = Instant::now() + ONCE_WITHIN;
        while follow.turn() && Instant::now() < until {}
        let mut terminal =
            Terminal::new(TestBackend::new(args.size.0, args.size.1)).map_err(Failure::failed)?;
        let view = follow.view();
        terminal.draw(|frame| draw(frame, &view, &Show::default())).map_err(Failure::failed)?;
        print(format_args!("{}", text_of(terminal.backend().buffer())));
        return Ok(Outcome::Ok);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "the output is no terminal: use `tandem top --once`, or `tandem status --json`",
        ));
    }
    let colours = match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        true => Colours::Off,
        false => Colours::On,
    };
    let stop = super::roles::stop_flag(None)?;
    crate::top::run(&config, &stop, colours).map_err(Failure::failed)?;
    Ok(Outcome::Ok)
}
