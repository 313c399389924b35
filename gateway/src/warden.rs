//! The warden: cancels everything when the engine dies, hangs or is killed, and proves that nothing is open.
//!
//! Invariant: a venue is called clean only after two reads without an open order, at least a second apart,
//! both after the longest time to live of any order that may still have been on its way. Anything else is
//! said as it is: cancelling, or unconfirmed with the venue's own words. It never stops trying, and it
//! shares nothing with the engine but the control page.
//!
//! Not here: how a venue is asked (`client`), who starts this and with which keys (`tandem`).

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::order::ClientId;
use tandem_core::record::Venue;
use tandem_feeds::tile::Endpoint;
use tandem_shm::control::{Actor, ControlPage, Row};

use crate::client::{self, ClientError, OpenView, VenueClient};
use crate::keys::Credentials;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
/// Two clean reads are at least this far apart.
const READS_APART_NS: i64 = SECOND;
/// Not proven after this: unconfirmed, and told so.
const UNCONFIRMED_AFTER_NS: i64 = 10 * SECOND;
/// While nothing fails, a proof has this long after the last order could arrive.
const PROOF_NS_MAX: i64 = 5 * SECOND;
/// First and longest wait after a failure.
const RETRY_FIRST_NS: i64 = 100 * MS;
const RETRY_MAX_NS: i64 = 5 * SECOND;
/// A clean venue is read again this often while the kill lasts.
const WATCH_EVERY_NS: i64 = 10 * SECOND;
/// An idle connection is kept warm this often.
const PING_EVERY: Duration = Duration::from_secs(15);

/// What the warden asks of a venue, with keys and connections of its own.
pub trait Sweeper {
    /// Connects and authenticates where that is not so, and keeps an idle connection from being closed.
    fn keep_warm(&mut self) -> Result<(), String>;
    /// Cancels every open order of the account.
    fn cancel_all(&mut self) -> Result<(), String>;
    /// Returns all open orders.
    fn open_orders(&mut self) -> Result<Vec<OpenView>, String>;
    /// Cancels one order; an order that is gone already is no error.
    fn cancel(&mut self, order: &OpenView) -> Result<(), String>;
}

/// Makes a venue's [`Sweeper`] in the thread that uses it.
pub type MakeSweeper = Box<dyn FnOnce() -> Box<dyn Sweeper> + Send>;

/// A venue asked through a [`VenueClient`], which is made when it is first needed and again after it failed
/// to be.
pub struct ClientSweeper {
    connect: Box<dyn Fn() -> Result<Box<dyn VenueClient>, ClientError> + Send>,
    client: Option<Box<dyn VenueClient>>,
    scope: SweepScope,
}

/// Whose orders a sweep is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepScope {
    /// The account is ours alone: everything goes, in the fewest requests.
    Account,
    /// The account is shared: only orders with an id of ours are cancelled and looked for. The list is read
    /// first, so the first cancel leaves a round trip later.
    Ours,
}

impl ClientSweeper {
    /// Returns a sweeper that connects with these keys.
    #[must_use]
    pub fn make(
        credentials: Credentials,
        endpoint: Endpoint,
        symbols: Vec<String>,
        scope: SweepScope,
    ) -> MakeSweeper {
        Box::new(move || {
            let connect = Box::new(move || client::connect(&credentials, &endpoint, &symbols));
            Box::new(ClientSweeper { connect, client: None, scope })
        })
    }

    fn ask<T>(
        &mut self,
        what: impl FnOnce(&mut dyn VenueClient) -> Result<T, ClientError>,
    ) -> Result<T, String> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert((self.connect)().map_err(|error| error.to_string())?),
        };
        what(client.as_mut()).map_err(|error| error.to_string())
    }
}

impl Sweeper for ClientSweeper {
    fn keep_warm(&mut self) -> Result<(), String> {
        self.ask(|client| client.ping())
    }

    fn cancel_all(&mut self) -> Result<(), String> {
        match self.scope {
            SweepScope::Account => self.ask(|client| client.cancel_all().map(drop)),
            SweepScope::Ours => {
                let orders = self.open_orders()?;
                // Each is tried; the first failure is what is told.
                orders.iter().map(|order| self.cancel(order)).fold(Ok(()), Result::and)
            }
        }
    }

    fn open_orders(&mut self) -> Result<Vec<OpenView>, String> {
        let scope = self.scope;
        let mut orders = self.ask(|client| client.open_orders())?;
        orders.retain(|order| {
            scope == SweepScope::Account || ClientId::parse(order.client_id.as_bytes()).is_some()
        });
        Ok(orders)
    }

    fn cancel(&mut self, order: &OpenView) -> Result<(), String> {
        self.ask(|client| client.cancel(order))
    }
}

/// How far the proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing was asked.
    Idle = 0,
    /// Under way.
    Cancelling = 1,
    /// Proven: nothing is open.
    Clean = 2,
    /// Not proven within ten seconds; still trying.
    Unconfirmed = 3,
}

impl Verdict {
    /// Returns the verdict with this tag.
    #[must_use]
    pub fn from_tag(tag: i64) -> Option<Verdict> {
        [Verdict::Idle, Verdict::Cancelling, Verdict::Clean, Verdict::Unconfirmed]
            .into_iter()
            .find(|verdict| *verdict as i64 == tag)
    }

    /// Returns the verdict as told to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Idle => "IDLE",
            Verdict::Cancelling => "CANCELLING",
            Verdict::Clean => "CANCELLED",
            Verdict::Unconfirmed => "UNCONFIRMED",
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for the cancellation of everything.
    CancelAll,
    /// Cancel what a read has found.
    Cancel(Vec<OpenView>),
    /// Read the open orders.
    Read,
    /// Nothing before this time, UNIX ns.
    Wait(i64),
}

/// One venue's sweep, without I/O.
#[derive(Clone, Debug)]
pub struct Sweep {
    since_ns: i64,
    /// From here on no order can still arrive.
    settled_ns: i64,
    asked: bool,
    /// It was asked once more after nothing could arrive any more.
    asked_again: bool,
    found: Vec<OpenView>,
    clean_since_ns: Option<i64>,
    not_before_ns: i64,
    retry_ns: i64,
    /// The last outcome was a failure.
    failing: bool,
    verdict: Verdict,
}

impl Sweep {
    /// Begins a sweep; `ttl_ns` is the longest time after which an order that was sent may still arrive.
    #[must_use]
    pub fn new(now_ns: i64, ttl_ns: i64) -> Sweep {
        Sweep {
            since_ns: now_ns,
            settled_ns: now_ns.saturating_add(ttl_ns),
            asked: false,
            asked_again: false,
            found: Vec::new(),
            clean_since_ns: None,
            not_before_ns: now_ns,
            retry_ns: RETRY_FIRST_NS,
            failing: false,
            verdict: Verdict::Cancelling,
        }
    }

    /// Returns what is to be done now.
    #[must_use]
    pub fn next(&self, now_ns: i64) -> Step {
        if now_ns < self.not_before_ns {
            Step::Wait(self.not_before_ns)
        } else if !self.asked {
            Step::CancelAll
        } else if !self.found.is_empty() {
            Step::Cancel(self.found.clone())
        } else if now_ns < self.settled_ns {
            Step::Wait(self.settled_ns)
        } else if !self.asked_again {
            Step::CancelAll
        } else {
            Step::Read
        }
    }

    /// Takes the outcome of [`Step::CancelAll`] or [`Step::Cancel`].
    pub fn cancelled(&mut self, outcome: &Result<(), String>, now_ns: i64) {
        if outcome.is_err() {
            self.failed(now_ns);
            return;
        }
        self.failing = false;
        if self.found.is_empty() {
            self.retry_ns = RETRY_FIRST_NS;
        } else {
            // A list may lag behind a cancel: read at once and again it spends, as fast as the venue answers,
            // the budget that cancels need.
            self.not_before_ns = now_ns + self.retry_ns;
            self.retry_ns = (self.retry_ns * 2).min(READS_APART_NS);
        }
        self.found.clear();
        self.asked_again |= self.asked && self.settled_ns <= now_ns;
        self.asked = true;
    }

    /// Takes the outcome of [`Step::Read`]; `asked_ns` is when it was asked.
    pub fn read(&mut self, outcome: &Result<Vec<OpenView>, String>, asked_ns: i64, now_ns: i64) {
        match outcome {
            Err(_) => self.failed(now_ns),
            Ok(open) if open.is_empty() => {
                (self.retry_ns, self.failing) = (RETRY_FIRST_NS, false);
                let since = *self.clean_since_ns.get_or_insert(now_ns);
                if READS_APART_NS <= asked_ns - since {
                    self.verdict = Verdict::Clean;
                    self.not_before_ns = now_ns + WATCH_EVERY_NS;
                } else {
                    self.not_before_ns = since + READS_APART_NS;
                }
            }
            Ok(open) => {
                self.doubt(now_ns);
                self.failing = false;
                self.found.clone_from(open);
            }
        }
    }

    fn failed(&mut self, now_ns: i64) {
        self.failing = true;
        self.doubt(now_ns);
        self.not_before_ns = now_ns + self.retry_ns;
        self.retry_ns = (self.retry_ns * 2).min(RETRY_MAX_NS);
    }

    fn doubt(&mut self, now_ns: i64) {
        self.clean_since_ns = None;
        if self.verdict == Verdict::Clean {
            // It was proven once; what came after begins a proof of its own.
            self.since_ns = now_ns;
        }
        self.verdict = Verdict::Cancelling;
    }

    /// Until when a proof may be missing without a word. Waiting for what may still arrive is no failure.
    fn overdue_ns(&self) -> i64 {
        let overdue_ns = self.since_ns.saturating_add(UNCONFIRMED_AFTER_NS);
        match self.failing {
            true => overdue_ns,
            false => overdue_ns.max(self.settled_ns.saturating_add(PROOF_NS_MAX)),
        }
    }

    /// Returns how far the proof is.
    #[must_use]
    pub fn verdict(&self, now_ns: i64) -> Verdict {
        match self.verdict {
            Verdict::Cancelling if self.overdue_ns() < now_ns => Verdict::Unconfirmed,
            verdict => verdict,
        }
    }
}

/// What is known of one venue's sweep.
#[derive(Clone, Debug)]
pub struct Progress {
    /// How far.
    pub verdict: Verdict,
    /// Epoch of the level word that it sweeps for.
    pub epoch: u32,
    /// When it began, UNIX ns.
    pub began_ns: i64,
    /// When the first cancel was handed to the connection, UNIX ns; 0 before.
    pub first_cancel_ns: i64,
    /// When it was proven, UNIX ns; 0 before.
    pub proven_ns: i64,
    /// Orders that reads have found and that were cancelled one by one.
    pub late: u64,
    /// The last failure in the venue's own words.
    pub trouble: String,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            verdict: Verdict::Idle,
            epoch: 0,
            began_ns: 0,
            first_cancel_ns: 0,
            proven_ns: 0,
            late: 0,
            trouble: String::new(),
        }
    }
}

enum Order {
    Sweep { ttl_ns: i64 },
    Rest,
}

struct Post {
    venue: Venue,
    orders: Sender<Order>,
    progress: Arc<Mutex<Progress>>,
    sweeping: Option<u32>,
}

/// What the warden watches for.
#[derive(Clone, Copy, Debug)]
pub struct WardenSpec {
    /// An engine that did not beat for longer hangs, ns.
    pub hang_ns: i64,
    /// By venue: for how long after an order was sent it may still arrive, ns; see
    /// [`crate::config::Config::arrival_ns_max`].
    pub ttl_ns: [i64; 3],
    /// Row of the engine on the control page.
    pub engine_row: usize,
}

/// The warden: one thread a venue, and this one to watch.
pub struct Warden {
    spec: WardenSpec,
    actor: Actor,
    posts: Vec<Post>,
    now: fn() -> i64,
    /// The engine was seen alive since the last kill or orderly end.
    engine_seen: bool,
    /// Which engine that was.
    generation: u64,
    /// The last proof is under way: it does not end with the level.
    leaving: bool,
}

impl Warden {
    /// Starts a thread for each venue, connected and ready. `now` is UNIX ns. An engine that died while no
    /// warden lived is found by its row, and is a KILL.
    #[must_use]
    pub fn start(
        spec: WardenSpec,
        actor: Actor,
        sweepers: Vec<(Venue, MakeSweeper)>,
        now: fn() -> i64,
    ) -> Warden {
        let posts = sweepers.into_iter().map(|(venue, sweeper)| {
            let (orders, inbox) = channel();
            let progress = Arc::new(Mutex::new(Progress::default()));
            let shared = Arc::clone(&progress);
            thread::spawn(move || tend(venue, sweeper(), &inbox, &shared, now));
            Post { venue, orders, progress, sweeping: None }
        });
        let posts = posts.collect();
        let (engine_seen, generation, leaving) = (false, 0, false);
        let mut warden = Warden { spec, actor, posts, now, engine_seen, generation, leaving };
        let (row, held) = warden.look();
        warden.generation = row.generation;
        // One that is there and does not beat hangs as if it had been seen.
        warden.engine_seen = held && row.pid != 0 && row.beat_ns != 0;
        if row.pid != 0 && !held {
            warden.kill(Scope::Global, Cause::Engine);
        }
        warden
    }

    fn page(&self) -> &ControlPage {
        self.actor.page()
    }

    /// One look at the engine and the level; a few microseconds, to be called every few milliseconds.
    pub fn turn(&mut self) {
        let now_ns = (self.now)();
        self.actor.beat(now_ns);
        self.watch_engine(now_ns);
        let word = LevelWord(self.page().level());
        for at in 0..self.posts.len() {
            let venue = self.posts[at].venue;
            let killed = word.effective(venue) == Level::Kill;
            match (killed, self.posts[at].sweeping) {
                (true, None) => self.sweep(at, word.epoch()),
                (false, Some(_)) if !self.leaving => {
                    self.posts[at].sweeping = None;
                    let _ = self.posts[at].orders.send(Order::Rest);
                }
                _ => {}
            }
        }
        self.actor.echo(word.epoch());
    }

    /// Sweeps every venue whatever the level is: the last proof of an orderly stop.
    pub fn sweep_all(&mut self) {
        self.leaving = true;
        let epoch = LevelWord(self.page().level()).epoch();
        for at in 0..self.posts.len() {
            self.sweep(at, epoch);
        }
    }

    fn sweep(&mut self, at: usize, epoch: u32) {
        let post = &mut self.posts[at];
        post.sweeping = Some(epoch);
        {
            let mut progress = post.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let began_ns = (self.now)();
            *progress =
                Progress { verdict: Verdict::Cancelling, epoch, began_ns, ..Progress::default() };
        }
        let order = Order::Sweep { ttl_ns: self.spec.ttl_ns[post.venue.idx()] };
        if post.orders.send(order).is_err() {
            let mut progress = post.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.verdict = Verdict::Unconfirmed;
            progress.trouble = "the venue's thread is gone".to_owned();
        }
    }

    /// Returns the engine's row, and whether a process holds it, of one moment: an engine that leaves first
    /// empties its row and then lets go of it.
    fn look(&self) -> (Row, bool) {
        let row = self.spec.engine_row;
        loop {
            let (before, held, after) =
                (self.page().row(row), self.page().is_held(row), self.page().row(row));
            if (before.pid, before.generation) == (after.pid, after.generation) {
                return (after, held);
            }
        }
    }

    fn watch_engine(&mut self, now_ns: i64) {
        let (row, held) = self.look();
        let before = std::mem::replace(&mut self.generation, row.generation);
        // Another one, and the one that was seen was not seen to leave: it died between two looks.
        if self.engine_seen && before != row.generation {
            self.engine_seen = false;
            self.kill(Scope::Global, Cause::Engine);
        }
        if row.pid == 0 {
            // It left in order, or was never here.
            self.engine_seen = false;
            return;
        }
        let beats = held && row.beat_ns != 0;
        if beats && now_ns - row.beat_ns as i64 <= self.spec.hang_ns {
            self.engine_seen = true;
        } else if self.engine_seen {
            self.engine_seen = false;
            self.kill(Scope::Global, Cause::Engine);
        }
    }

    fn kill(&self, scope: Scope, cause: Cause) {
        let change = |word| LevelWord(word).raised(scope, Level::Kill, cause).map(|word| word.0);
        if self.page().update(change).is_some() {
            tracing::error!(cause = cause.name(), "KILL: everything is being cancelled");
        }
    }

    /// Returns what is known of each venue.
    #[must_use]
    pub fn progress(&self) -> Vec<(Venue, Progress)> {
        let of = |post: &Post| {
            let progress = post.progress.lock().unwrap_or_else(PoisonError::into_inner);
            (post.venue, progress.clone())
        };
        self.posts.iter().map(of).collect()
    }

    /// Leaves in order: the others do not take the end for a death.
    pub fn close(self) {
        self.actor.leave();
    }
}

/// One venue's thread.
fn tend(
    venue: Venue,
    mut sweeper: Box<dyn Sweeper>,
    inbox: &Receiver<Order>,
    shared: &Mutex<Progress>,
    now: fn() -> i64,
) {
    let mut sweep: Option<Sweep> = None;
    let mut warm = Instant::now() - PING_EVERY;
    loop {
        let wait = match &sweep {
            None => PING_EVERY.saturating_sub(warm.elapsed()),
            Some(sweep) => match sweep.next(now()) {
                // A sweep asks often enough to keep its connection; a ping's time is none of its business.
                Step::Wait(until) => {
                    Duration::from_nanos(u64::try_from(until - now()).unwrap_or(0))
                }
                _ => Duration::ZERO,
            },
        };
        match inbox.recv_timeout(wait) {
            Ok(Order::Sweep { ttl_ns }) => sweep = Some(Sweep::new(now(), ttl_ns)),
            Ok(Order::Rest) => sweep = None,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(sweep) = &mut sweep else {
            if PING_EVERY <= warm.elapsed() {
                warm = Instant::now();
                if let Err(error) = sweeper.keep_warm() {
                    tracing::warn!(venue = venue.name(), error, "the warden has no connection");
                    // Sooner than the next ping: a kill must find it warm.
                    warm = Instant::now().checked_sub(PING_EVERY * 14 / 15).unwrap_or(warm);
                }
            }
            continue;
        };
        work(sweep, sweeper.as_mut(), shared, now);
    }
}

/// Does the next step of a sweep.
fn work(sweep: &mut Sweep, sweeper: &mut dyn Sweeper, shared: &Mutex<Progress>, now: fn() -> i64) {
    let asked_ns = now();
    let mut trouble = String::new();
    let mut late = 0;
    match sweep.next(asked_ns) {
        Step::Wait(_) => {}
        Step::CancelAll => {
            note(shared, |progress| {
                if progress.first_cancel_ns == 0 {
                    progress.first_cancel_ns = asked_ns;
                }
            });
            let outcome = sweeper.cancel_all();
            sweep.cancelled(&outcome, now());
            trouble = outcome.err().unwrap_or_default();
        }
        Step::Cancel(orders) => {
            // Each is tried: one that cannot be cancelled does not shield those behind it.
            let outcome =
                orders.iter().map(|order| sweeper.cancel(order)).fold(Ok(()), Result::and);
            late = orders.len() as u64;
            sweep.cancelled(&outcome, now());
            trouble = outcome.err().unwrap_or_default();
        }
        Step::Read => {
            let outcome = sweeper.open_orders();
            sweep.read(&outcome, asked_ns, now());
            trouble = outcome.err().unwrap_or_default();
        }
    }
    let now_ns = now();
    note(shared, |progress| {
        progress.verdict = sweep.verdict(now_ns);
        progress.late += late;
        if !trouble.is_empty() {
            progress.trouble = trouble;
        }
        if progress.verdict == Verdict::Clean && progress.proven_ns == 0 {
            progress.proven_ns = now_ns;
        }
    });
}

fn note(shared: &Mutex<Progress>, change: impl FnOnce(&mut Progress)) {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn order(id: &str) -> OpenView {
        let empty = String::new;
        let venue_id = id.to_owned();
        OpenView { symbol: empty(), venue_id, client_id: empty(), qty: empty(), filled: empty() }
    }

    fn open(ids: &[&str]) -> Result<Vec<OpenView>, String> {
        Ok(ids.iter().map(|id| order(id)).collect())
    }

    /// A venue that answers nothing is tried again and again, and not by burning a core: a kill may last for
    /// days.
    #[test]
    fn a_failing_sweep_waits_between_its_tries() {
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        static TRIES: AtomicU64 = AtomicU64::new(0);
        fn counted() -> i64 {
            LOOKS.fetch_add(1, Ordering::Relaxed);
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        }
        struct Silent;
        impl Sweeper for Silent {
            fn keep_warm(&mut self) -> Result<(), String> {
                Err("silent".to_owned())
            }
            fn cancel_all(&mut self) -> Result<(), String> {
                TRIES.fetch_add(1, Ordering::Relaxed);
                Err("silent".to_owned())
            }
            fn open_orders(&mut self) -> Result<Vec<OpenView>, String> {
                Err("silent".to_owned())
            }
            fn cancel(&mut self, _: &OpenView) -> Result<(), String> {
                Err("silent".to_owned())
            }
        }
        let (orders, inbox) = channel();
        orders.send(Order::Sweep { ttl_ns: 0 }).expect("the inbox is here");
        let shared = Arc::new(Mutex::new(Progress::default()));
        let venue = thread::spawn({
            let shared = Arc::clone(&shared);
            move || tend(Venue::Kraken, Box::new(Silent), &inbox, &shared, counted)
        });
        thread::sleep(Duration::from_millis(500));
        drop(orders);
        venue.join().expect("it ends with its inbox");
        let (tries, looks) = (TRIES.load(Ordering::Relaxed), LOOKS.load(Ordering::Relaxed));
        assert!((2..=4).contains(&tries), "{tries} tries in half a second");
        assert!(looks < 100, "{looks} looks at the clock for {tries} tries");
    }

    /// An order that the venue will not cancel shields none of those behind it in the list.
    #[test]
    fn one_that_cannot_be_cancelled_shields_no_other() {
        struct Stubborn(Vec<String>);
        impl Sweeper for Stubborn {
            fn keep_warm(&mut self) -> Result<(), String> {
                Ok(())
            }
            fn cancel_all(&mut self) -> Result<(), String> {
                Ok(())
            }
            fn open_orders(&mut self) -> Result<Vec<OpenView>, String> {
                open(&["1", "2", "3"])
            }
            fn cancel(&mut self, order: &OpenView) -> Result<(), String> {
                self.0.push(order.venue_id.clone());
                if order.venue_id == "1" { Err("not this one".to_owned()) } else { Ok(()) }
            }
        }
        let (mut sweep, mut sweeper) = (Sweep::new(0, 0), Stubborn(Vec::new()));
        let shared = Mutex::new(Progress::default());
        // All at once, all at once again, a read, and what it found.
        for _ in 0..4 {
            work(&mut sweep, &mut sweeper, &shared, || MS);
        }
        assert_eq!(sweeper.0, ["1", "2", "3"]);
        assert_eq!(shared.lock().expect("nobody panicked").trouble, "not this one");
        assert_ne!(sweep.verdict(MS), Verdict::Clean);
    }

    /// A venue that takes every cancel and lists the order nevertheless is not asked as fast as it answers.
    #[test]
    fn a_list_that_lags_is_not_hammered() {
        let (mut sweep, mut now, mut steps) = (Sweep::new(0, 0), 0, 0);
        while now < 10 * SECOND {
            match sweep.next(now) {
                Step::Wait(until) => now = until,
                Step::CancelAll | Step::Cancel(_) => {
                    (now, steps) = (now + MS, steps + 1);
                    sweep.cancelled(&Ok(()), now);
                }
                Step::Read => {
                    (now, steps) = (now + MS, steps + 1);
                    sweep.read(&open(&["1"]), now - MS, now);
                }
            }
        }
        assert!((16..=40).contains(&steps), "{steps} requests in 10 s");
        // Gone at last: the next one that arrives is looked for soon again.
        sweep.read(&open(&[]), now, now);
        sweep.read(&open(&["2"]), now, now);
        sweep.cancelled(&Ok(()), now);
        assert_eq!(sweep.next(now), Step::Wait(now + RETRY_FIRST_NS));
    }

    /// Row OP-02: an order that was on its way when everything was cancelled is found and cancelled.
    #[test]
    fn a_late_arrival_is_swept() {
        let mut sweep = Sweep::new(0, SECOND);
        assert_eq!(sweep.next(0), Step::CancelAll);
        sweep.cancelled(&Ok(()), MS);
        assert_eq!(sweep.next(MS), Step::Wait(SECOND), "it may still arrive");
        assert_eq!(sweep.next(SECOND), Step::CancelAll, "once more, now that nothing can");
        sweep.cancelled(&Ok(()), SECOND);
        assert_eq!(sweep.next(SECOND), Step::Read);
        sweep.read(&open(&["7"]), SECOND, SECOND);
        assert_eq!(sweep.next(SECOND), Step::Cancel(vec![order("7")]));
        sweep.cancelled(&Ok(()), SECOND);
        sweep.read(&open(&[]), SECOND + MS, SECOND + 2 * MS);
        assert_ne!(sweep.verdict(SECOND + 2 * MS), Verdict::Clean, "one clean read is no proof");
        let second = 2 * SECOND + 2 * MS;
        assert_eq!(sweep.next(SECOND + 3 * MS), Step::Wait(second));
        sweep.read(&open(&[]), second, second + MS);
        assert_eq!(sweep.verdict(second + MS), Verdict::Clean);
        println!(
            "figure OP-02: found and cancelled; clean 2.0 s after the latch with a ttl of 1 s"
        );
    }

    /// Row OP-03: a venue that does not answer is never called clean.
    #[test]
    fn silence_is_unconfirmed() {
        let mut sweep = Sweep::new(0, 0);
        let mut now = 0;
        let mut tries = 0;
        while now < 60 * SECOND {
            match sweep.next(now) {
                Step::Wait(until) => now = until,
                _ => {
                    tries += 1;
                    sweep.cancelled(&Err("unreachable".to_owned()), now);
                }
            }
            assert_ne!(sweep.verdict(now), Verdict::Clean);
        }
        assert_eq!(sweep.verdict(now), Verdict::Unconfirmed);
        assert!(10 < tries, "it goes on trying: {tries}");
        println!("figure OP-03: 60 s without an answer: UNCONFIRMED, {tries} tries, false clean 0");
    }

    /// Waiting for what may still arrive is no failure; that nothing was proven long after it is.
    #[test]
    fn a_long_time_to_live_is_waited_for_without_alarm() {
        let mut sweep = Sweep::new(0, 12 * SECOND);
        sweep.cancelled(&Ok(()), MS);
        assert_eq!(sweep.next(MS), Step::Wait(12 * SECOND));
        assert_eq!(sweep.verdict(11 * SECOND), Verdict::Cancelling);
        sweep.cancelled(&Ok(()), 12 * SECOND);
        sweep.read(&open(&[]), 12 * SECOND, 12 * SECOND);
        assert_eq!(sweep.verdict(12 * SECOND), Verdict::Cancelling);
        assert_eq!(sweep.verdict(18 * SECOND), Verdict::Unconfirmed);
        sweep.read(&open(&[]), 13 * SECOND, 13 * SECOND);
        assert_eq!(sweep.verdict(13 * SECOND), Verdict::Clean);
        let mut sweep = Sweep::new(0, 12 * SECOND);
        sweep.cancelled(&Err("unreachable".to_owned()), MS);
        assert_eq!(sweep.verdict(11 * SECOND), Verdict::Unconfirmed, "a failure is told in time");
    }

    const ENGINE: usize = 0;
    const NOW: i64 = 1_000_000 * SECOND;

    fn page(name: &str) -> ControlPage {
        let dir = std::env::temp_dir().join(format!("tandem-warden-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("make the test's folder");
        ControlPage::create_or_open(&dir, 0).expect("a page")
    }

    fn warden(page: &ControlPage) -> Warden {
        let ttl_ns = [SECOND, 12 * SECOND, SECOND];
        let spec = WardenSpec { hang_ns: 100 * MS, ttl_ns, engine_row: ENGINE };
        Warden::start(spec, page.claim(1, 0, 0).expect("a row"), Vec::new(), || NOW)
    }

    fn engine(page: &ControlPage) -> Actor {
        let engine = page.claim(ENGINE, 0, 0).expect("the engine's row");
        engine.beat(NOW);
        engine
    }

    fn level(page: &ControlPage) -> Level {
        LevelWord(page.level()).of(Scope::Global)
    }

    /// Row PR-01: an engine that died and was replaced between two looks is a death.
    #[test]
    fn a_death_between_two_looks_is_found_by_its_generation() {
        let page = page("between");
        let mut warden = warden(&page);
        let first = engine(&page);
        warden.turn();
        assert_eq!(level(&page), Level::Armed);
        drop(first);
        let second = engine(&page);
        warden.turn();
        assert_eq!(level(&page), Level::Kill, "another one beats in its place");
        assert!(warden.engine_seen, "and is watched in turn");
        drop(second);
    }

    #[test]
    fn an_engine_that_leaves_in_order_and_comes_again_is_no_death() {
        let page = page("order");
        let mut warden = warden(&page);
        for _ in 0..3 {
            let engine = engine(&page);
            warden.turn();
            engine.leave();
            warden.turn();
        }
        assert_eq!(level(&page), Level::Armed);
        let engine = engine(&page);
        warden.turn();
        drop(engine);
        assert_eq!(level(&page), Level::Armed);
        warden.turn();
        assert_eq!(level(&page), Level::Kill, "this one died");
    }

    /// The engine died while no warden lived: the one that comes finds its row.
    #[test]
    fn a_death_that_nobody_saw_is_found_at_the_start() {
        let page = page("start");
        let nobody = warden(&page);
        assert_eq!(level(&page), Level::Armed, "there never was an engine");
        nobody.close();
        engine(&page).leave();
        warden(&page).close();
        assert_eq!(level(&page), Level::Armed, "it left in order");
        let alive = engine(&page);
        let mut watching = warden(&page);
        watching.turn();
        assert_eq!(level(&page), Level::Armed, "it lives");
        watching.close();
        drop(alive);
        warden(&page).close();
        assert_eq!(level(&page), Level::Kill);
    }

    #[test]
    fn an_engine_that_hung_before_the_warden_came_is_killed() {
        let page = page("hang");
        let hangs = page.claim(ENGINE, 0, 0).expect("the engine's row");
        warden(&page).turn();
        assert_eq!(level(&page), Level::Armed, "it has not begun to beat");
        hangs.beat(NOW - 100 * MS - 1);
        let mut warden = warden(&page);
        warden.turn();
        assert_eq!(level(&page), Level::Kill);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Against any sequence of answers: clean only after two clean reads a second apart, both after
        /// the last order could arrive, with nothing found and nothing failed between.
        #[test]
        fn clean_is_proven(answers in proptest::collection::vec(0u8..4, 1..60), ttl in 0i64..5) {
            let ttl_ns = ttl * SECOND;
            let mut sweep = Sweep::new(0, ttl_ns);
            let (mut now, mut clean): (i64, Vec<i64>) = (0, Vec::new());
            for answer in answers {
                loop {
                    match sweep.next(now) {
                        Step::Wait(until) => { prop_assert!(now < until); now = until; }
                        Step::CancelAll | Step::Cancel(_) => {
                            let outcome = if answer == 3 { Err("no".to_owned()) } else { Ok(()) };
                            now += 7 * MS;
                            sweep.cancelled(&outcome, now);
                            if outcome.is_err() { clean.clear(); }
                            break;
                        }
                        Step::Read => {
                            let asked = now;
                            now += 7 * MS;
                            let outcome = match answer { 0 | 1 => open(&[]), 2 => open(&["1"]), _ => Err("no".to_owned()) };
                            if matches!(&outcome, Ok(ids) if ids.is_empty()) {
                                prop_assert!(ttl_ns <= asked);
                                clean.push(asked);
                            } else {
                                clean.clear();
                            }
                            sweep.read(&outcome, asked, now);
                            break;
                        }
                    }
                }
                if sweep.verdict(now) == Verdict::Clean {
                    let first = clean.first().copied().unwrap_or(i64::MAX);
                    let last = clean.last().copied().unwrap_or(0);
                    prop_assert!(READS_APART_NS <= last - first, "{clean:?}");
                }
            }
        }
    }
}
