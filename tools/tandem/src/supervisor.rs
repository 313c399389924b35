//! `tandem up`: every tile of the configuration as a process of its own, kept alive.
//!
//! Invariant: a tile that ends is started again, after a pause that grows while it keeps ending; the
//! others are not touched. A start never arms: what was armed is paused. On the way out the engine stops
//! first, while everything it needs to end its rounds still lives; then the gateways; then the warden, who
//! proves that nothing is open; the feeds; and last the drain, which tells people. The clock page is written here.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tandem_drain::spool::What;
use tandem_shm::ClockWriter;

use crate::config::{Config, Mode};

/// Between two looks at the children and two updates of the clock page.
const TICK: Duration = Duration::from_millis(10);
/// First and longest pause before a tile is started again.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A tile that ran this long is started again without a longer pause.
const STABLE: Duration = Duration::from_secs(10);
/// A child that does not end by itself is killed: longer than the engine needs to end its rounds and the
/// warden for its proof.
const STOP_WITHIN: Duration = Duration::from_secs(35);

struct Tile {
    args: Vec<String>,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

/// Sends a signal to a process of ours.
fn signal(child: &Child, signal: i32) {
    let pid = child.id().to_string();
    // The shell's own command, so that no unsafe code is needed for a rare thing.
    let sent = Command::new("kill")
        .args([format!("-{signal}"), pid])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = sent {
        tracing::warn!(%error, "signal not sent");
    }
}

/// Asks a child to end, and ends it if it does not.
pub fn stop(child: &mut Child) {
    signal(child, 15);
    let until = Instant::now() + STOP_WITHIN;
    while Instant::now() < until {
        match child.try_wait() {
            Ok(Some(_)) | Err(_) => return,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Tile {
    fn start(&mut self, program: &Path, config: &Path) -> io::Result<()> {
        let child = Command::new(program)
            .args(&self.args)
            .arg("--config")
            .arg(config)
            .args(["--while-pid", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A terminal's interrupt is for us alone: we stop the tiles in their order.
            .process_group(0)
            .spawn()?;
        tracing::info!(tile = self.args.join(" "), pid = child.id(), "started");
        self.child = Some(child);
        self.started = Instant::now();
        Ok(())
    }

    /// Starts the tile again if it ended and its pause is over.
    fn tend(&mut self, program: &Path, config: &Path) -> io::Result<()> {
        if let Some(child) = &mut self.child {
            let Some(status) = child.try_wait()? else { return Ok(()) };
            let ran = self.started.elapsed();
            tracing::warn!(tile = self.args.join(" "), %status, ?ran, "ended");
            if !status.success() {
                // One that was killed could not say so itself.
                let message = format!("{} ended: {status}", self.args.join(" "));
                let fields = [("tile", self.args.join(" ")), ("ran", format!("{ran:?}"))];
                tandem_drain::spool::tell(What::Exit, &message, "supervisor", &fields);
            }
            self.child = None;
            self.pause = if STABLE < ran {
                PAUSE_FIRST
            } else {
                (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX)
            };
            self.started = Instant::now();
        }
        if self.pause <= self.started.elapsed() { self.start(program, config) } else { Ok(()) }
    }
}

/// Runs all tiles until `stop_requested`. `clock` is the run's clock page: who holds it owns the run.
pub fn run(
    config: &Config,
    config_path: &Path,
    stop_requested: &Arc<AtomicBool>,
    mut clock: ClockWriter,
) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let tile = |args: Vec<String>| Tile {
        args,
        child: None,
        started: Instant::now(),
        pause: Duration::ZERO,
    };
    // The engine first in this list, so that it is also the first to stop.
    let mut tiles = vec![tile(vec!["engine".to_owned()])];
    if config.run.mode == Mode::Live {
        for (venue, _) in config.venues() {
            tiles.push(tile(vec!["gateway".to_owned(), venue.name().to_owned()]));
        }
        tiles.push(tile(vec!["warden".to_owned()]));
    }
    for (venue, _) in config.venues() {
        tiles.push(tile(vec!["feed".to_owned(), venue.name().to_owned()]));
    }
    if config.has_drain() {
        // The last to stop: the others' ends are told too.
        tiles.push(tile(vec!["drain".to_owned()]));
    }
    while !stop_requested.load(Ordering::Relaxed) {
        clock.update();
        for tile in &mut tiles {
            // One tile that cannot be started now must not take the others down.
            if let Err(error) = tile.tend(&program, config_path) {
                tracing::error!(tile = tile.args.join(" "), %error, "not started");
                tile.pause = (tile.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
                tile.started = Instant::now();
            }
        }
        std::thread::sleep(TICK);
    }
    for tile in &mut tiles {
        if let Some(child) = &mut tile.child {
            stop(child);
        }
    }
    clock.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tandem_drain::spool;

    use super::*;

    /// A process that was killed cannot tell of it: who started it does.
    #[test]
    fn the_end_of_a_tile_is_kept_for_the_drain() {
        let dir = std::env::temp_dir().join(format!("tandem-supervisor-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        spool::begin(&dir, "up").expect("a file");
        for (script, told) in [("kill -9 $$", "signal: 9"), ("exit 3", "exit status: 3")] {
            let mut tile = Tile {
                args: vec!["-c".to_owned(), script.to_owned()],
                child: None,
                started: Instant::now(),
                pause: Duration::ZERO,
            };
            tile.tend(Path::new("/bin/sh"), Path::new("x")).expect("it starts");
            let until = Instant::now() + Duration::from_secs(10);
            while tile.child.is_some() && Instant::now() < until {
                tile.tend(Path::new("/bin/sh"), Path::new("x")).expect("it ended");
                std::thread::sleep(Duration::from_millis(5));
            }
            let files = spool::files(&dir.join(spool::FOLDER)).expect("files");
            let text = fs::read_to_string(&files[0]).expect("a file");
            assert!(text.contains(told) && text.contains("\"what\":\"exit\""), "{told}: {text}");
        }
        let _ = fs::remove_dir_all(&dir);
    }
}
