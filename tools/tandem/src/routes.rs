//! The engine tile's way to the gateways and back, and its row on the control page.
//!
//! Invariant: an order is published to its gateway's ring only after it stands in the journal; what a
//! gateway reports is an input like any other. A change of the level word is told to the engine before
//! anything else is taken, and echoed once it was. A ring of reports that was overrun means orders whose
//! end nobody saw: that venue is halted and the engine told that the session is down.
//!
//! Not here: which orders (`tandem-core`), how they leave the host (`tandem-gateway`).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tandem_core::account::{Peer, PeerRole, Session, SessionState};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_feeds::tile::record_schema;
use tandem_gateway::tile::{bell_name, orders_ring, reports_ring};
use tandem_shm::control::Actor;
use tandem_shm::{
    ControlPage, Producer, Read, RingReader, RingSpec, RingWriter, Ringer, ShmError, tsc,
};

use crate::config::{Config, Mode};
use crate::identity::Identity;
use crate::latch;

/// Slots of an order ring: far more than limits let be open.
const ORDER_SLOTS: u64 = 4_096;
/// Rows of the control page.
pub const ENGINE_ROW: usize = 0;
/// The warden's row.
pub const WARDEN_ROW: usize = 4;
/// A process that did not beat for so long does not live.
const BEAT_NS_MAX: i64 = 1_000_000_000;
/// What did not change is told again after this.
const TELL_EVERY_NS: i64 = 500_000_000;
/// A start has this long to hear two venues; then the clock is in doubt.
const HEARD_WITHIN_NS: i64 = 10_000_000_000;
/// The clock is judged by what came in the last one or two of these ...
const CLOCK_TURN_NS: i64 = 1_000_000_000;
/// ... and in so many: a path that is congested for seconds is no clock.
const CLOCK_TURNS: usize = 12;
/// A delay that grows by more is a step and no congestion.
const CLOCK_STEP_NS: i64 = 1_000_000_000;
/// A venue that says nothing is believed its last word for so long.
const CLOCK_WORD_NS_MAX: i64 = 60_000_000_000;

/// Returns a gateway's row.
#[must_use]
pub const fn gateway_row(venue: Venue) -> usize {
    venue as usize
}

/// Why trading was refused.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// Another engine has the row.
    #[error(
        "another engine runs on {dir}: stop it first (`tandem status` shows it); two engines would send \
         every order twice"
    )]
    SecondEngine {
        /// Directory of the run.
        dir: PathBuf,
    },
    /// Shared memory.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// Files.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One gateway as the engine sees it.
struct Gateway {
    venue: Venue,
    orders: RingWriter<Record>,
    /// Wakes the gateway, in case it sleeps.
    bell: Ringer,
    reports: Option<RingReader<Record>>,
    /// Its ring's producer was seen dead, and the engine was told.
    down: bool,
    told: Option<Peer>,
}

/// Smallest delays of a venue's events by turn, and the last one there was.
#[derive(Clone, Copy, Debug)]
struct Delay {
    venue: Venue,
    now_ns: i64,
    /// Of the turns before, the latest first.
    before_ns: [i64; CLOCK_TURNS],
    /// Delay, and when that turn ended.
    last: Option<(i64, i64)>,
}

impl Delay {
    fn new(venue: Venue) -> Delay {
        Delay { venue, now_ns: i64::MAX, before_ns: [i64::MAX; CLOCK_TURNS], last: None }
    }

    fn turn(&mut self, now_ns: i64) {
        let ended_ns = std::mem::replace(&mut self.now_ns, i64::MAX);
        self.before_ns.rotate_right(1);
        self.before_ns[0] = ended_ns;
        if ended_ns != i64::MAX {
            self.last = Some((ended_ns, now_ns));
        }
    }

    /// Events from the future and steps show at once; a moderate lateness only where it lasts.
    fn known(&self, now_ns: i64) -> Option<i64> {
        let short_ns = self.now_ns.min(self.before_ns[0]);
        let long_ns = self.before_ns.into_iter().fold(short_ns, i64::min);
        if short_ns == i64::MAX {
            let (delay_ns, at_ns) = self.last?;
            return (now_ns - at_ns <= CLOCK_WORD_NS_MAX).then_some(delay_ns);
        }
        let is_step = CLOCK_STEP_NS < short_ns - long_ns;
        Some(if short_ns < 0 || is_step { short_ns } else { long_ns })
    }
}

/// Returns how far our clock is off, and whether enough venues say so: the middle one of their delays (of two
/// the smaller). One venue that is wrong moves nothing; if two agree that we are, we are.
fn offset(delays: &[Delay], now_ns: i64) -> (i64, bool) {
    let mut known = [i64::MAX; 3];
    for (at, delay) in delays.iter().enumerate() {
        known[at] = delay.known(now_ns).unwrap_or(i64::MAX);
    }
    known.sort_unstable();
    let count = known.iter().filter(|delay| **delay != i64::MAX).count();
    let offset_ns = match count {
        0 => 0,
        count => known[(count - 1) / 2],
    };
    (offset_ns, delays.len().min(2) <= count)
}

/// The routes.
pub struct Routes {
    mode: Mode,
    dir: PathBuf,
    actor: Actor,
    identity: Identity,
    gateways: Vec<Gateway>,
    warden: Option<Peer>,
    level: Option<u64>,
    delays: Vec<Delay>,
    delays_turn_ns: i64,
    next_tell_ns: i64,
    next_clock_ns: i64,
    /// Two venues must have been heard by then.
    heard_by_ns: Option<i64>,
    /// What gateways observed before this is the past of another engine.
    started_tsc: u64,
}

impl Routes {
    /// Takes the engine's row and makes the order rings.
    pub fn open(config: &Config) -> Result<Routes, RoutesError> {
        let (dir, state_dir) = (config.run.dir.clone(), config.run.state_dir.clone());
        let page = latch::open(&dir, &state_dir)?;
        let identity = Identity::of(config)?;
        let actor =
            page.claim(ENGINE_ROW, identity.build, identity.config).map_err(|error| match page
                .is_held(ENGINE_ROW)
            {
                true => RoutesError::SecondEngine { dir: dir.clone() },
                false => RoutesError::Shm(error),
            })?;
        // A start never arms, also one after a death that no warden saw.
        page.update(|word| {
            LevelWord(word).raised(Scope::Global, Level::Pause, Cause::Start).map(|w| w.0)
        });
        latch::keep(page.clone(), state_dir)?;
        let mut gateways = Vec::new();
        if config.run.mode == Mode::Live {
            for (venue, _) in config.venues() {
                let name = orders_ring(venue);
                let spec = RingSpec::new(name, ORDER_SLOTS, record_schema());
                let orders = RingWriter::create(&dir, &spec)?;
                let bell = Ringer::new(&dir, &bell_name(venue));
                gateways.push(Gateway {
                    venue,
                    orders,
                    bell,
                    reports: None,
                    down: true,
                    told: None,
                });
            }
        }
        let delays = config.venues().into_iter().map(|(venue, _)| Delay::new(venue)).collect();
        Ok(Routes {
            mode: config.run.mode,
            dir,
            actor,
            identity,
            gateways,
            warden: None,
            level: None,
            delays,
            delays_turn_ns: 0,
            next_tell_ns: 0,
            next_clock_ns: 0,
            heard_by_ns: None,
            started_tsc: tsc(),
        })
    }

    fn page(&self) -> &ControlPage {
        self.actor.page()
    }

    /// Returns whether orders go nowhere.
    #[must_use]
    pub fn is_paper(&self) -> bool {
        self.mode == Mode::Paper
    }

    /// Returns the level word's record where the engine has not seen this word yet.
    #[inline]
    pub fn level_change(&mut self) -> Option<Record> {
        let word = self.page().level();
        if self.level == Some(word) {
            return None;
        }
        self.level = Some(word);
        Some(LevelWord(word).record())
    }

    /// Tells the others that the engine has acted on the word that [`Routes::level_change`] gave.
    pub fn echo(&self) {
        self.actor.echo(LevelWord(self.level.unwrap_or(0)).epoch());
    }

    /// Tells the others that the engine lives.
    pub fn beat(&self, now_ns: i64) {
        self.actor.beat(now_ns);
    }

    /// Publishes an order or a request to its gateway; false where there is none.
    pub fn send(&mut self, record: &Record) -> bool {
        let wanted = |gateway: &&mut Gateway| gateway.venue as u8 == record.venue;
        match self.gateways.iter_mut().find(wanted) {
            Some(gateway) => {
                gateway.orders.publish(&Record { pub_tsc: tsc(), ..*record });
                gateway.bell.ring();
                true
            }
            None => false,
        }
    }

    /// Raises what the engine asks to raise.
    pub fn raise(&self, record: &Record) {
        let level = u8::try_from(record.data[0]).map_or(Level::Kill, Level::from_tag);
        let cause = u8::try_from(record.data[1]).ok().and_then(Cause::from_tag);
        let cause = cause.unwrap_or(Cause::Invariant);
        let scope = Venue::from_tag(record.venue).map_or(Scope::Global, Scope::Venue);
        self.raise_to(scope, level, cause);
    }

    fn raise_to(&self, scope: Scope, level: Level, cause: Cause) {
        let raised =
            self.page().update(|word| LevelWord(word).raised(scope, level, cause).map(|w| w.0));
        if raised.is_some() {
            tracing::error!(?scope, level = level.name(), cause = cause.name(), "level raised");
        }
    }

    /// Pauses everything, for an orderly stop.
    pub fn pause(&self) {
        self.raise_to(Scope::Global, Level::Pause, Cause::Start);
    }

    /// Leaves in order: the warden does not take the end for a death.
    pub fn close(self) {
        for gateway in self.gateways {
            gateway.orders.close();
        }
        self.actor.leave();
    }

    /// Returns how many gateways there are.
    #[must_use]
    pub fn gateway_count(&self) -> usize {
        self.gateways.len()
    }

    /// Returns whether no gateway has reported anything that was not taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut reports = self.gateways.iter().filter_map(|gateway| gateway.reports.as_ref());
        reports.all(RingReader::is_empty)
    }

    /// Takes one report of a gateway.
    #[inline]
    pub fn poll(&mut self, gateway: usize) -> Option<Record> {
        let started_tsc = self.started_tsc;
        let gateway = &mut self.gateways[gateway];
        let venue = gateway.venue;
        match gateway.reports.as_mut()?.poll() {
            // What became of orders is never old. A balance or a session is: it would pass for news.
            Read::Item(record) if record.pub_tsc < started_tsc && is_observation(&record) => {
                Some(Record { flags: flag::LAST, ..Record::new(Kind::Timer, 0, u16::MAX, [0; 4]) })
            }
            Read::Item(record) => Some(record),
            Read::Empty => None,
            Read::Overrun { lost } => {
                tracing::error!(venue = venue.name(), lost, "reports were lost");
                gateway.down = true;
                self.raise_to(Scope::Venue(venue), Level::Halt, Cause::Invariant);
                Some(session_down(venue))
            }
        }
    }

    /// Notes how late a venue's event came, for the clock.
    #[inline]
    pub fn heard(&mut self, record: &Record) {
        if record.venue_ts_ns == 0 || record.recv_ts_ns == 0 {
            return;
        }
        let wanted = |delay: &&mut Delay| delay.venue as u8 == record.venue;
        if let Some(delay) = self.delays.iter_mut().find(wanted) {
            delay.now_ns = delay.now_ns.min(record.recv_ts_ns - record.venue_ts_ns);
        }
    }

    /// Looks after gateways, peers and the clock; what changed, or is to be told again, goes to `tell`.
    pub fn watch(&mut self, now_ns: i64, ticks_per_ms: u64, mut tell: impl FnMut(Record)) {
        let again = self.next_tell_ns <= now_ns;
        if again {
            self.next_tell_ns = now_ns + TELL_EVERY_NS;
        }
        for at in 0..self.gateways.len() {
            if let Some(record) = self.follow(at, ticks_per_ms) {
                tell(record);
            }
            self.gateways[at].orders.beat(tsc());
            self.gateways[at].bell.refresh();
            let venue = self.gateways[at].venue;
            let peer = self.peer(PeerRole::Gateway, Some(venue), gateway_row(venue), now_ns);
            let told = &mut self.gateways[at].told;
            if again || told.is_none_or(|told| differs(&told, &peer)) {
                *told = Some(peer);
                tell(peer.record());
            }
        }
        if self.mode == Mode::Live {
            let peer = self.peer(PeerRole::Warden, None, WARDEN_ROW, now_ns);
            if again || self.warden.is_none_or(|told| differs(&told, &peer)) {
                self.warden = Some(peer);
                tell(peer.record());
            }
        }
        if self.next_clock_ns <= now_ns {
            let clock = self.clock(now_ns);
            // A start that has not heard the venues yet knows nothing: untold, nothing is sent, and nothing is
            // raised against an operator who arms at once.
            let is_synchronised = clock.data[2] != 0;
            let heard_by_ns = *self.heard_by_ns.get_or_insert(now_ns + HEARD_WITHIN_NS);
            if is_synchronised || heard_by_ns <= now_ns {
                self.next_clock_ns = now_ns + TELL_EVERY_NS;
                tell(clock);
            }
        }
    }

    fn peer(&self, role: PeerRole, venue: Option<Venue>, row: usize, now_ns: i64) -> Peer {
        let row = self.page().row(row);
        let beat_ns = row.beat_ns as i64;
        Peer {
            role,
            venue,
            alive: row.pid != 0 && beat_ns != 0 && now_ns - beat_ns <= BEAT_NS_MAX,
            beat_ns,
            same_build: row.build == self.identity.build && row.config == self.identity.config,
        }
    }

    /// Attaches to a gateway's reports and follows it through restarts.
    fn follow(&mut self, at: usize, ticks_per_ms: u64) -> Option<Record> {
        let gateway = &mut self.gateways[at];
        let venue = gateway.venue;
        let Some(reports) = &mut gateway.reports else {
            let name = reports_ring(venue);
            let opened = RingReader::open(&self.dir, &name, record_schema(), Duration::ZERO);
            gateway.reports = opened.ok();
            gateway.down = gateway.reports.is_none();
            return None;
        };
        match reports.producer(tsc(), ticks_per_ms) {
            Producer::Live { .. } | Producer::Suspect { .. } => None,
            Producer::Closed | Producer::Dead { .. } | Producer::Superseded { .. } => {
                // What it published before it ended is taken first.
                if reports.lag() != 0 {
                    return None;
                }
                let reattached = matches!(reports.reattach(), Ok(true));
                let was_down = std::mem::replace(&mut gateway.down, !reattached);
                (!was_down).then(|| session_down(venue))
            }
        }
    }

    /// The host's clock against the venues.
    fn clock(&mut self, now_ns: i64) -> Record {
        if self.delays_turn_ns <= now_ns {
            self.delays_turn_ns = now_ns + CLOCK_TURN_NS;
            self.delays.iter_mut().for_each(|delay| delay.turn(now_ns));
        }
        let (offset_ns, is_synchronised) = offset(&self.delays, now_ns);
        let data = [offset_ns, 0, i64::from(is_synchronised), 0];
        Record { flags: flag::LAST, ..Record::new(Kind::ClockState, 0, u16::MAX, data) }
    }
}

/// Whether a record tells how things are, not what happened to an order.
fn is_observation(record: &Record) -> bool {
    matches!(
        record.kind(),
        Some(Kind::Balance | Kind::Session | Kind::ForeignOrder | Kind::Reconciled)
    )
}

fn differs(told: &Peer, peer: &Peer) -> bool {
    (told.alive, told.same_build) != (peer.alive, peer.same_build)
}

fn session_down(venue: Venue) -> Record {
    let state = SessionState::Down;
    Session { venue, state, code: 0, heard_ns: 0, deadman_ns: 0 }.record()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Row PR-09. A step of our clock, or of two venues', shows within two turns, whichever way; one venue
    /// alone moves nothing.
    #[test]
    fn a_step_shows_within_two_turns_either_way() {
        for step_ns in [10 * SECOND, -10 * SECOND] {
            for wrong in 0..=3usize {
                let mut delays = Venue::ALL.map(Delay::new);
                let mut now_ns = 0;
                let mut seen_after = None;
                for turn in 0..8 {
                    for (at, delay) in delays.iter_mut().enumerate() {
                        let is_off = 4 <= turn && at < wrong;
                        delay.now_ns = 2_000_000 + if is_off { step_ns } else { 0 };
                    }
                    let (offset_ns, synchronised) = offset(&delays, now_ns);
                    assert!(synchronised);
                    if SECOND < offset_ns.abs() {
                        seen_after.get_or_insert(turn - 4);
                    }
                    now_ns += CLOCK_TURN_NS;
                    delays.iter_mut().for_each(|delay| delay.turn(now_ns));
                }
                match wrong {
                    0 | 1 => assert_eq!(seen_after, None, "one venue is not the clock"),
                    _ => assert!(seen_after.is_some_and(|turns| turns <= 1), "{seen_after:?}"),
                }
            }
        }
    }

    /// Two venues late by 300 ms for some seconds is a path that is congested; for long it is the clock.
    #[test]
    fn congestion_is_no_clock() {
        let mut delays = Venue::ALL.map(Delay::new);
        let mut seen_after = None;
        for turn in 0..40 {
            for (at, delay) in delays.iter_mut().enumerate() {
                delay.now_ns = if 10 <= turn && at < 2 { 300_000_000 } else { 2_000_000 };
            }
            if 250_000_000 < offset(&delays, 0).0 {
                seen_after.get_or_insert(turn - 10);
            }
            delays.iter_mut().for_each(|delay| delay.turn(0));
        }
        assert_eq!(seen_after, Some(CLOCK_TURNS), "turns until it is the clock");
    }

    #[test]
    fn silence_keeps_the_last_word_for_a_minute() {
        let mut delays = Venue::ALL.map(Delay::new);
        assert_eq!(offset(&delays, 0), (0, false));
        delays.iter_mut().for_each(|delay| delay.now_ns = 5_000_000);
        let mut now_ns = 0;
        while now_ns <= CLOCK_WORD_NS_MAX {
            now_ns += CLOCK_TURN_NS;
            delays.iter_mut().for_each(|delay| delay.turn(now_ns));
            assert_eq!(offset(&delays, now_ns), (5_000_000, true));
        }
        assert_eq!(offset(&delays, now_ns + CLOCK_TURN_NS + 1), (0, false));
    }
}
