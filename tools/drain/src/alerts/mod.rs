//! Alerts: what is wrong is told to people, once, with what to do about it.
//!
//! Invariant: an alert has a fingerprint that does not change while it is the same trouble. One fingerprint
//! is one message, then updates no more often than configured, then the word that it is over. What is told
//! carries no secret and no text of a venue.
//!
//! ```text
//! records, looks ─► rules (what is wrong now) ─► book (new, again, over) ─► path ─► channels
//!                                                                            └─► heartbeat
//! ```
//! `path` also watches the channels themselves: who would hear nothing must not trade on.
//!
//! Not here: where records come from (`source`).

mod behind;
pub mod board;
pub mod book;
pub mod channel;
pub mod http;
pub mod path;
pub mod rules;
pub mod wire;

use std::time::Duration;

use tandem_core::record::Record;

use crate::plan::{Hands, Plan};
use crate::source::Look;
use crate::{DrainError, Sink};
use board::Board;
use book::{Book, BookSettings};
use path::{Path, PathSettings};
use rules::{Rules, Thresholds};

/// How much an alert wants of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at in working hours.
    Ticket,
    /// Now.
    Page,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Ticket, Severity::Page];

    /// Returns the name as shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Info => "INFO",
            Severity::Ticket => "TICKET",
            Severity::Page => "PAGE",
        }
    }

    /// Returns the severity of a name, in whatever case.
    #[must_use]
    pub fn named(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|severity| severity.name().eq_ignore_ascii_case(name))
    }
}

/// A kind of alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; fingerprints begin with it.
    pub id: &'static str,
    /// What it wants of people.
    pub severity: Severity,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// The page of `deploy/runbooks` that says what to do.
    pub runbook: &'static str,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = ($id:literal, $severity:ident, $title:literal, $runbook:literal);)*) => {
        impl Rule {
            $($(#[$doc])* pub const $name: Rule = Rule {
                id: $id, severity: Severity::$severity, title: $title, runbook: $runbook,
            };)*

            /// Every kind of alert.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];
        }
    };
}

rules! {
    /// KILL is set.
    KILL = ("kill", Page, "KILL is set", "kill-and-recover");
    /// KILL is set and the warden has not proven that nothing is open.
    UNCONFIRMED = ("kill-unconfirmed", Page, "killed, and not proven that nothing is open", "kill-and-recover");
    /// A level above PAUSE, or PAUSE that nobody ordered.
    LEVEL = ("level", Page, "trading is held back", "kill-and-recover");
    /// A loss limit.
    LOSS = ("loss", Page, "a loss limit was hit", "kill-and-recover");
    /// An instrument was halted by a control.
    INSTRUMENT = ("instrument-halt", Ticket, "an instrument was halted", "venue-maintenance");
    /// An order's outcome is unknown for too long.
    UNKNOWN = ("unknown-order", Page, "an order's outcome is unknown", "unknown-order");
    /// A round is not even for too long.
    ONE_LEG = ("one-leg", Page, "a round has one leg open", "one-leg");
    /// Exposure near its limit.
    EXPOSURE = ("exposure", Page, "exposure is near its limit", "one-leg");
    /// A process is down.
    DOWN = ("process-down", Page, "a process is down", "deploy-and-roll-back");
    /// A process was started again.
    RESTART = ("process-restart", Ticket, "a process died and was started again", "deploy-and-roll-back");
    /// The venue's dead-man switch is about to fire, or is not set.
    DEAD_MAN = ("dead-man", Page, "the dead-man switch is not being put off", "venue-maintenance");
    /// Ledger and venue differ.
    RECONCILE = ("reconcile", Page, "our books and the venue's differ", "unknown-order");
    /// Orders at the venue that are not ours.
    FOREIGN = ("foreign-order", Ticket, "the account has open orders that are not ours", "key-leak");
    /// The clock is in doubt.
    CLOCK = ("clock", Page, "the host's clock is in doubt", "clock");
    /// The venue refuses our key.
    AUTH = ("auth", Page, "the venue refuses our key", "key-rotation");
    /// Books resynchronise too often.
    RESYNC = ("resync", Ticket, "books are resynchronised too often", "venue-maintenance");
    /// The engine was overrun.
    LAP = ("ring-lap", Ticket, "the engine was overrun by a ring", "host-replacement");
    /// Near a venue's rate limit, or told to wait.
    RATE = ("rate-limit", Ticket, "near the venue's rate limit", "venue-maintenance");
    /// The journal fills up.
    HEADROOM = ("journal-headroom", Ticket, "the journal is filling up", "journal-corruption");
    /// The journal is full: nothing is taken.
    JOURNAL_FULL = ("journal-full", Page, "the journal is full: no input is taken", "journal-corruption");
    /// The journal cannot be followed.
    JOURNAL = ("journal-damaged", Page, "the journal cannot be followed", "journal-corruption");
    /// A connection was lost and made again.
    RECONNECT = ("reconnect", Info, "a connection was lost", "venue-maintenance");
    /// A trading session is not ready.
    SESSION = ("session", Ticket, "a trading session is not ready", "venue-maintenance");
    /// The engine runs on another configuration.
    CONFIG = ("config-change", Info, "the engine was started", "deploy-and-roll-back");
    /// Armed or disarmed.
    ARMED = ("arm", Info, "armed or disarmed", "kill-and-recover");
    /// A channel of alerts is lost.
    CHANNEL = ("alert-channel", Page, "an alert channel is lost", "alert-path");
    /// The heartbeat is not delivered.
    HEARTBEAT = ("heartbeat", Ticket, "the heartbeat is not delivered", "alert-path");
    /// The archive claims nothing as durable any more.
    ARCHIVE = ("archive", Page, "the archive stands still", "archive");
    /// The archive's disk is low, or full.
    ARCHIVE_DISK = ("archive-disk", Ticket, "the archive's disk is low", "archive");
    /// Records are not durable in time.
    ARCHIVE_LAG = ("archive-lag", Ticket, "records become durable too late", "archive");
    /// The database is gone.
    DATABASE = ("database", Ticket, "the database is gone", "db-outage");
    /// The database is behind.
    BACKLOG = ("database-backlog", Ticket, "the database is far behind", "db-outage");
    /// Redis is gone.
    REDIS = ("redis", Ticket, "Redis is gone", "db-outage");
    /// Rows were refused for good.
    DEAD_LETTER = ("dead-letter", Ticket, "rows were refused for good", "db-outage");
    /// Errors of processes are not forwarded.
    SENTRY = ("sentry", Ticket, "errors are not forwarded", "alert-path");
    /// A process panicked.
    PANIC = ("process-panic", Ticket, "a process panicked", "deploy-and-roll-back");
    /// A loop stalls.
    STALLS = ("loop-stalls", Ticket, "a loop stalls", "host-replacement");
    /// Rounds earn less than was predicted.
    EDGE = ("edge-shortfall", Ticket, "rounds earn less than predicted", "edge-shortfall");
    /// A venue's certificate ends soon.
    CERTIFICATE = ("certificate", Ticket, "a venue's certificate ends soon", "certificate");
    /// A key is old.
    KEY_AGE = ("key-age", Ticket, "a key is old", "key-rotation");
    /// What the day was.
    REPORT = ("daily-report", Info, "the day before", "edge-shortfall");
    /// A test.
    TEST = ("test", Info, "a test of the alert path", "alert-path");
}

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which kind.
    pub rule: Rule,
    /// Of what: a venue, a process; empty where there is only one.
    pub scope: String,
    /// More than the rule's, where it got worse.
    pub severity: Severity,
    /// What exactly.
    pub detail: String,
}

impl Condition {
    /// Returns a condition of a rule's own severity.
    #[must_use]
    pub fn new(rule: Rule, scope: impl Into<String>, detail: impl Into<String>) -> Condition {
        Condition { rule, scope: scope.into(), severity: rule.severity, detail: detail.into() }
    }

    /// Returns the name under which it is the same trouble.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        match self.scope.as_str() {
            "" => self.rule.id.to_owned(),
            scope => format!("{}/{scope}", self.rule.id),
        }
    }
}

/// What is to be told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Firing,
    /// It is there, or happened, again.
    Again,
    /// It is over.
    Resolved,
    /// It happened; there is nothing to resolve.
    Event,
}

impl State {
    /// Returns the name as told.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Firing => "firing",
            State::Again => "again",
            State::Resolved => "resolved",
            State::Event => "event",
        }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What became of it.
    pub state: State,
    /// How much it wants of people.
    pub severity: Severity,
    /// The alert's name, stable while it is the same trouble.
    pub fingerprint: String,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// What exactly.
    pub detail: String,
    /// Page of the runbook.
    pub runbook: &'static str,
    /// First seen, UNIX ns.
    pub first_ns: i64,
    /// Last seen, UNIX ns.
    pub last_ns: i64,
    /// How many times it began, or happened, since it was first seen.
    pub count: u64,
}

/// All that alerts are told to be.
#[derive(Debug)]
pub struct Settings {
    /// What the rules hold against.
    pub thresholds: Thresholds,
    /// How often the same is told.
    pub book: BookSettings,
    /// Channels and heartbeat.
    pub path: PathSettings,
}

/// The sink.
pub struct Alerts {
    rules: Rules,
    book: Book,
    path: Path,
    board: Board,
    notices: Vec<Notice>,
}

impl Alerts {
    /// Starts the channels.
    pub fn start(
        plan: &Plan,
        settings: Settings,
        hands: Option<Box<dyn Hands>>,
    ) -> Result<Alerts, DrainError> {
        Ok(Alerts {
            rules: Rules::new(plan, settings.thresholds),
            book: Book::new(settings.book),
            path: Path::start(settings.path, hands)?,
            board: Board::default(),
            notices: Vec::new(),
        })
    }

    /// Returns the board on which everything told is put.
    #[must_use]
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Returns how the channels are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Sink for Alerts {
    fn record(&mut self, record: &Record, is_past: bool) {
        self.rules.record(record, is_past);
    }

    fn lost(&mut self, what: &str) {
        self.rules.lost(what);
    }

    fn look(&mut self, look: &Look) {
        let mut conditions = self.rules.look(look);
        self.path.watch(look.now_ns, &mut conditions);
        for event in self.rules.take_events() {
            self.book.happened(&event, look.now_ns, &mut self.notices);
        }
        // Half of a history is no reason to call anybody, and none to say that something is over.
        if !look.catching_up {
            self.book.stands(&conditions, look.now_ns, &mut self.notices);
        }
        self.book.tick(look.now_ns, &mut self.notices);
        self.board.take(&self.notices);
        self.board.put_channels(self.path.stands());
        self.path.tell(&mut self.notices);
    }

    fn close(&mut self, within: Duration) {
        self.path.close(within);
    }
}
