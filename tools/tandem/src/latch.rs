//! The level that outlives the host: a small file beside the control page.
//!
//! Invariant: the shared word is changed first, the file follows at once and is synced, so that a raise
//! is never late for the sake of a disk; what cannot be read at start is the highest level. Only an
//! operator's command lowers, and the file says who did, when and why.
//!
//! Not here: the word itself (`tandem-core::level`) and the page it lives on (`tandem-shm::control`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::Venue;
use tandem_shm::{ControlPage, ShmError};

use crate::time::now_ns;

/// Name of the file in `run.state_dir`.
const NAME: &str = "level.json";
/// Every change, one line each, never cut: the operator's audit log.
pub const LOG: &str = "level.log";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latch {
    /// Global level by name.
    pub global: String,
    /// Levels of venues by name.
    pub venues: std::collections::BTreeMap<String, String>,
    /// Why it last changed.
    pub cause: String,
    /// Who changed it.
    pub who: String,
    /// In whose words.
    pub reason: String,
    /// When, UNIX ns.
    pub at_ns: i64,
}

/// Who changes the level, and why.
#[derive(Clone, Debug)]
pub struct Act<'a> {
    /// A process, or an operator's name.
    pub who: &'a str,
    /// In words.
    pub reason: &'a str,
}

fn level_named(name: &str) -> Option<Level> {
    Level::ALL.into_iter().find(|level| level.name() == name)
}

impl Latch {
    /// Returns what the file says of a word.
    #[must_use]
    pub fn of(word: LevelWord, act: &Act<'_>) -> Latch {
        let venues = Venue::ALL
            .map(|venue| (venue.name().to_owned(), word.of(Scope::Venue(venue)).name().to_owned()));
        Latch {
            global: word.of(Scope::Global).name().to_owned(),
            venues: venues.into(),
            cause: word.cause().map_or("unknown", Cause::name).to_owned(),
            who: act.who.to_owned(),
            reason: act.reason.to_owned(),
            at_ns: now_ns(),
        }
    }

    /// Returns the word to start with: what was, but at least PAUSE, for only an operator arms.
    fn word(&self) -> Option<LevelWord> {
        let mut word = LevelWord::PAUSED;
        let mut raise = |scope, name: &str, cause| {
            let level = level_named(name)?;
            word = word.raised(scope, level, cause).unwrap_or(word);
            Some(())
        };
        let cause =
            Cause::ALL.into_iter().find(|cause| cause.name() == self.cause).unwrap_or(Cause::Start);
        raise(Scope::Global, &self.global, cause)?;
        for (name, level) in &self.venues {
            raise(Scope::Venue(crate::config::venue_named(name)?), level, cause)?;
        }
        Some(word)
    }
}

/// Returns the word to start with. A directory that never had the file starts paused; a file that
/// cannot be read starts killed.
#[must_use]
pub fn initial(state_dir: &Path) -> LevelWord {
    match fs::read_to_string(state_dir.join(NAME)) {
        Ok(text) => serde_json::from_str::<Latch>(&text)
            .ok()
            .and_then(|latch| latch.word())
            .unwrap_or(LevelWord::KILLED),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !state_dir.join(LOG).exists() => {
            LevelWord::PAUSED
        }
        Err(_) => LevelWord::KILLED,
    }
}

/// Opens the control page of a run, making it from the file where the host has started anew.
pub fn open(run_dir: &Path, state_dir: &Path) -> Result<ControlPage, ShmError> {
    ControlPage::create_or_open(run_dir, initial(state_dir).0)
}

/// Writes what the page says now, and a line to the log; synced when this returns. One process at a time,
/// from reading the word to the file's new name: an older word never comes over a newer one.
pub fn persist(page: &ControlPage, state_dir: &Path, act: &Act<'_>) -> io::Result<Latch> {
    make_dir(state_dir)?;
    let lock = open_private(&state_dir.join(".level.lock"), true)?;
    lock.lock()?;
    let latch = Latch::of(LevelWord(page.level()), act);
    let text = serde_json::to_string(&latch).map_err(io::Error::other)?;
    let temp = state_dir.join(format!(".{NAME}.{}", std::process::id()));
    let mut file = open_private(&temp, false)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temp, state_dir.join(NAME))?;
    File::open(state_dir)?.sync_all()?;
    let mut log = open_private(&state_dir.join(LOG), true)?;
    log.write_all(format!("{text}\n").as_bytes())?;
    log.sync_data()?;
    Ok(latch)
}

fn open_private(path: &PathBuf, append: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .append(append)
        .truncate(!append)
        .mode(0o600)
        .open(path)
}

/// Makes the state directory where it is missing.
pub fn make_dir(state_dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)
}

/// Between two looks at the word.
const KEEP_EVERY: Duration = Duration::from_millis(10);
const LOOKS_A_SECOND: u32 = 100;

/// Starts a thread that writes the file whenever the word has changed and nobody wrote it: controls raise
/// from hot threads, which never wait for a disk. It lives as long as the process.
pub fn keep(page: ControlPage, state_dir: PathBuf) -> io::Result<()> {
    let act = Act { who: "control", reason: "raised by a program; the journal says which control" };
    let mut kept = LevelWord(page.level());
    persist(&page, &state_dir, &Act { who: "start", reason: "as found" })?;
    let watch = move || {
        let mut looks = 0u32;
        loop {
            std::thread::sleep(KEEP_EVERY);
            let word = LevelWord(page.level());
            looks += 1;
            // Now and then also where nothing changed: the file must not stay behind for any reason.
            if word == kept && !looks.is_multiple_of(LOOKS_A_SECOND) {
                continue;
            }
            if is_written(&state_dir, word) {
                kept = word;
                continue;
            }
            match persist(&page, &state_dir, &act) {
                Ok(_) => kept = word,
                Err(error) => tracing::error!(%error, "the level file cannot be written"),
            }
        }
    };
    std::thread::Builder::new().name("latch".to_owned()).spawn(watch).map(drop)
}

/// Returns whether the file already says what the word says: then somebody with more to say wrote it.
fn is_written(state_dir: &Path, word: LevelWord) -> bool {
    let wanted = Latch::of(word, &Act { who: "", reason: "" });
    fs::read_to_string(state_dir.join(NAME))
        .ok()
        .and_then(|text| serde_json::from_str::<Latch>(&text).ok())
        .is_some_and(|latch| latch.global == wanted.global && latch.venues == wanted.venues)
}

/// Raises a scope at once, then writes the file. Says whether anything changed.
pub fn raise(
    page: &ControlPage,
    state_dir: &Path,
    (scope, level, cause): (Scope, Level, Cause),
    act: &Act<'_>,
) -> io::Result<bool> {
    let raised = page.update(|word| LevelWord(word).raised(scope, level, cause).map(|word| word.0));
    // Also where nothing changed: the file may still be behind the word.
    persist(page, state_dir, act)?;
    Ok(raised.is_some())
}

/// Arms, with all venues where everything is armed, in one swap: only if the word is still `seen`, which
/// the stages were checked under. False where it changed meanwhile, and nothing was armed.
pub fn arm(
    page: &ControlPage,
    state_dir: &Path,
    (scope, seen): (Scope, LevelWord),
    without: &[Venue],
    act: &Act<'_>,
) -> io::Result<bool> {
    let lowered = |word: LevelWord| {
        let mut word = word;
        let venues: &[Venue] = if scope == Scope::Global { &Venue::ALL } else { &[] };
        for venue in venues {
            let at = Scope::Venue(*venue);
            word = match without.contains(venue) {
                // What held there by the global level holds there from now on by its own.
                true => word.raised(at, word.effective(*venue).max(Level::Pause), Cause::Operator),
                false => word.lowered(at, Level::Armed),
            }
            .unwrap_or(word);
        }
        word.lowered(scope, Level::Armed).unwrap_or(word)
    };
    let mut is_seen = true;
    page.update(|word| {
        is_seen = word == seen.0;
        is_seen.then(|| lowered(seen).0)
    });
    if is_seen {
        persist(page, state_dir, act)?;
    }
    Ok(is_seen)
}

/// Lowers a scope: an operator's act. After a crash between word and file a restart finds the higher
/// level.
pub fn lower(
    page: &ControlPage,
    state_dir: &Path,
    (scope, level): (Scope, Level),
    act: &Act<'_>,
) -> io::Result<bool> {
    let lowered = page.update(|word| LevelWord(word).lowered(scope, level).map(|word| word.0));
    persist(page, state_dir, act)?;
    Ok(lowered.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(name: &str) -> (PathBuf, PathBuf) {
        let base = std::env::temp_dir().join(format!("tandem-latch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let (run, state) = (base.join("run"), base.join("state"));
        fs::create_dir_all(&run).expect("make run");
        (run, state)
    }

    const ACT: Act<'_> = Act { who: "test", reason: "because" };

    /// Row OP-04: restart after kill stays killed, also after a reboot that empties shared memory.
    #[test]
    fn a_kill_outlives_everything_but_an_operator() {
        let (run, state) = dirs("kill");
        let page = open(&run, &state).expect("open");
        assert_eq!(
            LevelWord(page.level()).of(Scope::Global),
            Level::Pause,
            "never armed by itself"
        );
        assert!(lower(&page, &state, (Scope::Global, Level::Armed), &ACT).expect("arm"));
        assert!(
            raise(&page, &state, (Scope::Global, Level::Kill, Cause::Operator), &ACT)
                .expect("kill")
        );
        for _ in 0..100 {
            drop(open(&run, &state).expect("same page"));
            fs::remove_dir_all(&run).expect("reboot");
            fs::create_dir_all(&run).expect("make run");
            let page = open(&run, &state).expect("new page");
            assert_eq!(LevelWord(page.level()).of(Scope::Global), Level::Kill);
        }
        println!("figure OP-04: 100 restarts after a kill, armed by itself 0 times");
        let log = fs::read_to_string(state.join(LOG)).expect("log");
        assert!(log.lines().count() == 2 && log.contains("because"));
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }

    #[test]
    fn a_restart_pauses_what_was_armed_and_keeps_a_venue_halted() {
        let (run, state) = dirs("pause");
        let page = open(&run, &state).expect("open");
        lower(&page, &state, (Scope::Global, Level::Armed), &ACT).expect("arm");
        let venue = Scope::Venue(Venue::Kraken);
        raise(&page, &state, (venue, Level::Halt, Cause::Venue), &ACT).expect("halt");
        let word = initial(&state);
        assert_eq!(word.of(Scope::Global), Level::Pause);
        assert_eq!(word.of(venue), Level::Halt);
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }

    /// Row OP-01: a kill that lands between the checks and the arming is not armed away.
    #[test]
    fn arming_sees_a_kill_that_came_meanwhile() {
        let (run, state) = dirs("arm");
        let page = open(&run, &state).expect("open");
        let seen = LevelWord(page.level());
        let kill = (Scope::Global, Level::Kill, Cause::Engine);
        assert!(raise(&page, &state, kill, &ACT).expect("kill"));
        assert!(!arm(&page, &state, (Scope::Global, seen), &[], &ACT).expect("refused"));
        assert_eq!(LevelWord(page.level()).of(Scope::Global), Level::Kill);
        let seen = LevelWord(page.level());
        assert!(arm(&page, &state, (Scope::Global, seen), &[], &ACT).expect("armed"));
        assert_eq!(LevelWord(page.level()).effective(Venue::Kraken), Level::Armed);
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }

    /// Row PR-14: a venue that is left out keeps what held there, at least PAUSE.
    #[test]
    fn arming_without_a_venue_leaves_it_where_it_was() {
        let (run, state) = dirs("without");
        let page = open(&run, &state).expect("open");
        let kraken = &[Venue::Kraken][..];
        for global in [Level::Pause, Level::Kill] {
            let up = (Scope::Global, global, Cause::Operator);
            raise(&page, &state, up, &ACT).expect("raise");
            let seen = LevelWord(page.level());
            assert!(arm(&page, &state, (Scope::Global, seen), kraken, &ACT).expect("armed"));
            let word = LevelWord(page.level());
            assert_eq!(word.effective(Venue::Binance), Level::Armed);
            assert_eq!(word.effective(Venue::Kraken), global);
        }
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }

    /// Row OP-04: many processes write the file at once; at rest it says what the word says.
    #[test]
    fn the_file_is_never_older_than_the_word() {
        let (run, state) = dirs("race");
        let page = open(&run, &state).expect("open");
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let (page, state) = (page.clone(), state.clone());
                std::thread::spawn(move || {
                    for _ in 0..25 {
                        let venue = Scope::Venue(Venue::ALL[n % 3]);
                        let pause = (venue, Level::Pause, Cause::Operator);
                        raise(&page, &state, pause, &ACT).expect("pause");
                        lower(&page, &state, (venue, Level::Armed), &ACT).expect("lower");
                    }
                })
            })
            .collect();
        let kill = (Scope::Global, Level::Kill, Cause::Operator);
        raise(&page, &state, kill, &ACT).expect("kill");
        writers.into_iter().for_each(|writer| writer.join().expect("writer"));
        assert!(is_written(&state, LevelWord(page.level())));
        assert_eq!(initial(&state).of(Scope::Global), Level::Kill);
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }

    #[test]
    fn what_cannot_be_read_is_killed() {
        let (run, state) = dirs("bad");
        let page = open(&run, &state).expect("open");
        persist(&page, &state, &ACT).expect("persist");
        for bad in ["", "{}", "{\"global\":\"ARMED\"}", "\u{0}\u{0}"] {
            fs::write(state.join(NAME), bad).expect("write");
            assert_eq!(initial(&state), LevelWord::KILLED, "{bad}");
        }
        fs::remove_file(state.join(NAME)).expect("lose it");
        assert_eq!(initial(&state), LevelWord::KILLED, "a lost file is no fresh start");
        fs::remove_dir_all(run.parent().expect("base")).expect("clean up");
    }
}
