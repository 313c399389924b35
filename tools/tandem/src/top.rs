//! `tandem top`: the run on a terminal, four times a second, from shared memory alone.
//!
//! Invariant: it maps everything read-only; its only acts are those that tighten, PAUSE and KILL, by the
//! operator's own functions. What is drawn is a function of a [`View`], so every screen is tested as text.
//! Nothing of a venue reaches the terminal but printable characters.

mod screen;
mod view;

use std::io::{self, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tandem_core::level::{Cause, Level, Scope};
use tandem_drain::alerts::Alerts;
use tandem_drain::model::Model;
use tandem_drain::{Sink, Source};

use crate::config::{Config, Mode};
use crate::drain_role;
use crate::latch::{self, Act};

pub use screen::{Colours, Screen, Show, draw, text_of};
pub use view::{LimitLine, OrderLine, PairLine, StageLine, VenueLine, View};

/// Between two drawings.
const EVERY: Duration = Duration::from_millis(250);
/// Longest text of the filter.
const FILTER_MAX: usize = 40;

/// What `top` follows.
pub struct Follow {
    source: Source,
    model: Model,
    alerts: Alerts,
}

impl Follow {
    /// Attaches to a run; nothing of it needs to be there yet.
    pub fn new(config: &Config) -> Result<Follow, tandem_drain::DrainError> {
        let plan = drain_role::plan(config);
        Ok(Follow {
            alerts: Alerts::start(&plan, drain_role::silent_settings(config), None)?,
            model: Model::new(&plan),
            source: Source::new(plan),
        })
    }

    /// Takes what is new. Returns whether there is more at once.
    pub fn turn(&mut self) -> bool {
        let (model, alerts) = (&mut self.model, &mut self.alerts);
        let more = self.source.read(|taken| match taken {
            tandem_drain::source::Taken::Record(record, is_past) => {
                model.record(record);
                alerts.record(record, is_past);
            }
            tandem_drain::source::Taken::Lost(what) => {
                model.lost(what);
                alerts.lost(what);
            }
        });
        if let Some(look) = self.source.look() {
            self.model.look(&look);
            self.alerts.look(&look);
        }
        more
    }

    /// Returns what is to be drawn.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(&self.model, &self.alerts.board())
    }
}

fn raise(config: &Config, level: Level) -> String {
    if config.run.mode == Mode::Observe {
        return "the run only observes: there is nothing to hold back".to_owned();
    }
    let (run_dir, state_dir) = (&config.run.dir, &config.run.state_dir);
    let act = Act { who: "top", reason: "a key at `tandem top`" };
    let raised =
        latch::open(run_dir, state_dir).map_err(|error| error.to_string()).and_then(|page| {
            latch::raise(&page, state_dir, (Scope::Global, level, Cause::Operator), &act)
                .map_err(|error| error.to_string())
        });
    match raised {
        Ok(true) => format!("{} is set; `tandem arm` ends it", level.name()),
        Ok(false) => format!("it was at {} or above already", level.name()),
        Err(error) => format!("NOT DONE: {error}; use `tandem {}`", level.name().to_lowercase()),
    }
}

/// Puts the terminal back, whatever ends the screen.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Nothing is left to tell it to.
        let _ = disable_raw_mode();
        let _ = crossterm::execute!(stdout(), LeaveAlternateScreen);
    }
}

/// Draws until `q` or until `stop` is set.
pub fn run(config: &Config, stop: &Arc<AtomicBool>, colours: Colours) -> io::Result<()> {
    let mut follow = Follow::new(config).map_err(io::Error::other)?;
    enable_raw_mode()?;
    let _restore = Restore;
    crossterm::execute!(stdout(), EnterAlternateScreen)?;
    let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
    let mut show = Show { colours, ..Show::default() };
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while follow.turn() && Instant::now() < next + EVERY {}
        if next <= Instant::now() {
            let view = follow.view();
            terminal.draw(|frame| draw(frame, &view, &show))?;
            next = Instant::now() + EVERY;
        }
        if !event::poll(next.saturating_duration_since(Instant::now()).min(EVERY))? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        next = Instant::now();
        if show.is_typing {
            match key.code {
                KeyCode::Enter => show.is_typing = false,
                KeyCode::Esc => {
                    show.is_typing = false;
                    show.filter.clear();
                }
                KeyCode::Backspace => drop(show.filter.pop()),
                KeyCode::Char(c) if show.filter.chars().count() < FILTER_MAX => show.filter.push(c),
                _ => {}
            }
            continue;
        }
        let toggled = |screen, show: &Show| match show.screen == screen {
            true => Screen::Main,
            false => screen,
        };
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => break,
            KeyCode::Char('q') => break,
            KeyCode::Esc => (show.screen, show.filter) = (Screen::Main, String::new()),
            KeyCode::Char('p') => show.told = raise(config, Level::Pause),
            KeyCode::Char('K') => show.told = raise(config, Level::Kill),
            KeyCode::Char('/') => show.is_typing = true,
            KeyCode::Char('l') => show.screen = toggled(Screen::Latency, &show),
            KeyCode::Char('o') => show.screen = toggled(Screen::Orders, &show),
            KeyCode::Char('?') => show.screen = toggled(Screen::Help, &show),
            _ => {}
        }
    }
    Ok(())
}
