//! Whether a connection lives and how late it is.
//!
//! Invariant: pure. Silence is measured from the last frame; lag from the fastest message of the last
//! minute, because the two clocks differ by a constant nobody knows. A clock that steps is not trusted
//! until it was learned again: nothing is called fresh by a step.

const SECOND: i64 = 1_000_000_000;

/// What a connection's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Something came lately.
    None,
    /// Too long nothing: doubt its books and probe. Said once a silence.
    Began,
    /// Silent, and the probe's time is not over.
    Lasts,
    /// The probe's time is over too: the connection is dead. Said until it is closed.
    Dead,
}

/// A connection's signs of life.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    last_ns: i64,
    frames: u64,
    beaten_frames: u64,
    beaten_ns: i64,
    probed_ns: Option<i64>,
}

/// A receive stamp further back than this is of a clock that was stepped.
const STEPPED_NS: i64 = 1_000_000_000;

impl Pulse {
    /// Returns the pulse of a connection that opened now.
    #[must_use]
    pub const fn new(now_ns: i64) -> Pulse {
        Pulse { last_ns: now_ns, frames: 0, beaten_frames: 0, beaten_ns: i64::MIN, probed_ns: None }
    }

    /// Notes a frame. Returns whether it ended a silence.
    #[inline]
    pub fn frame(&mut self, now_ns: i64) -> bool {
        // The clock of receive stamps may be stepped: a little back is jitter between two connections'
        // reads, far back means that the last stamp was from the future and must not hide a silence.
        let stepped = now_ns.saturating_add(STEPPED_NS) < self.last_ns;
        self.last_ns = if stepped { now_ns } else { now_ns.max(self.last_ns) };
        self.frames += 1;
        self.probed_ns.take().is_some()
    }

    /// Something proved that there was nothing to send: the silence counts from here.
    pub fn quiet_is_right(&mut self, now_ns: i64) {
        self.last_ns = now_ns.max(self.last_ns);
        self.probed_ns = None;
    }

    /// Returns when the last frame came.
    #[must_use]
    pub const fn last_ns(&self) -> i64 {
        self.last_ns
    }

    /// Returns whether the connection is silent and being probed.
    #[must_use]
    pub const fn is_probed(&self) -> bool {
        self.probed_ns.is_some()
    }

    /// Returns `(last frame, frames)` where frames came since the last beat and it is time for another.
    pub fn beat(&mut self, now_ns: i64, every_ns: i64) -> Option<(i64, u64)> {
        let due = self.beaten_ns == i64::MIN || every_ns <= now_ns - self.beaten_ns;
        if !due || self.frames == self.beaten_frames {
            return None;
        }
        (self.beaten_ns, self.beaten_frames) = (now_ns, self.frames);
        Some((self.last_ns, self.frames))
    }

    /// Judges the silence.
    pub fn silence(&mut self, now_ns: i64, max_ns: i64, probe_ns_max: i64) -> Silence {
        match self.probed_ns {
            Some(since) if probe_ns_max < now_ns - since => Silence::Dead,
            Some(_) => Silence::Lasts,
            None if max_ns < now_ns - self.last_ns => {
                self.probed_ns = Some(now_ns);
                Silence::Began
            }
            None => Silence::None,
        }
    }
}

/// What a message's times say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// Later than the fastest of the last minute by this.
    By(i64),
    /// One of the clocks was stepped: earlier than ever by more than jitter makes.
    Step,
}

/// Half of the time that the fastest message is remembered for.
const HALF_NS: i64 = 30 * SECOND;

/// Messages before the fastest is known well enough to call a faster one a step.
const LEARNED: u32 = 64;

/// How much faster than ever a message may be without a clock having been stepped.
const STEP_NS: i64 = 50_000_000;

/// Lag of one connection with a learned offset.
#[derive(Clone, Copy, Debug)]
pub struct LagFilter {
    /// Smallest receive-minus-event of the current and of the previous half minute.
    fastest: [Option<i64>; 2],
    half_began_ns: i64,
    count: u32,
}

impl Default for LagFilter {
    fn default() -> LagFilter {
        LagFilter { fastest: [None; 2], half_began_ns: i64::MIN, count: 0 }
    }
}

impl LagFilter {
    /// Notes a message and says how late it is.
    #[inline]
    pub fn on_message(&mut self, event_ns: i64, recv_ns: i64) -> Lateness {
        let delay = recv_ns.saturating_sub(event_ns);
        if self.half_began_ns == i64::MIN {
            self.half_began_ns = recv_ns;
        }
        // A receive clock that goes backwards by much starts over like one that ran ahead.
        if HALF_NS <= recv_ns.saturating_sub(self.half_began_ns).saturating_abs() {
            self.fastest = [None, self.fastest[0]];
            self.half_began_ns = recv_ns;
        }
        let known = match self.fastest {
            [Some(a), Some(b)] => a.min(b),
            [Some(a), None] | [None, Some(a)] => a,
            [None, None] => delay,
        };
        if LEARNED <= self.count && delay < known.saturating_sub(STEP_NS) {
            *self = LagFilter::default();
            return Lateness::Step;
        }
        self.count = self.count.saturating_add(1);
        self.fastest[0] = Some(self.fastest[0].map_or(delay, |fastest| fastest.min(delay)));
        Lateness::By(delay.saturating_sub(known).max(0))
    }
}

/// Whether a connection's books are too late to use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    filter: LagFilter,
    late_since_ns: Option<i64>,
    distrust_until_ns: i64,
}

/// What a message's lag changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagChange {
    /// Nothing.
    None,
    /// Late from here on.
    Late,
    /// In time again.
    Caught,
}

/// How long a stepped clock is not trusted.
const DISTRUST_NS: i64 = 5 * SECOND;

impl Lag {
    /// Notes a message.
    #[inline]
    pub fn on_message(&mut self, event_ns: i64, recv_ns: i64, max_ns: i64) -> LagChange {
        let late = match self.filter.on_message(event_ns, recv_ns) {
            Lateness::Step => {
                self.distrust_until_ns = recv_ns.saturating_add(DISTRUST_NS);
                true
            }
            // Half the limit to come back: a lag at the limit does not flicker.
            Lateness::By(lag) => max_ns < lag || self.late_since_ns.is_some() && max_ns / 2 < lag,
        };
        let late = late || recv_ns < self.distrust_until_ns;
        match (late, self.late_since_ns) {
            (true, None) => {
                self.late_since_ns = Some(recv_ns);
                LagChange::Late
            }
            (false, Some(_)) => {
                self.late_since_ns = None;
                LagChange::Caught
            }
            _ => LagChange::None,
        }
    }

    /// Returns what is known of the two clocks for the next connection: a venue that is slow is slow there
    /// too, and must not be learned as the usual.
    #[must_use]
    pub fn reopened(self) -> Lag {
        match self.distrust_until_ns {
            0 => Lag { filter: self.filter, ..Lag::default() },
            // A clock stepped: what was usual before it says nothing now.
            _ => Lag::default(),
        }
    }

    /// Takes the connection for late until a message proves that it is not: what comes after a pause may
    /// have waited as long as the pause, and not every message says when it was made.
    pub fn doubt(&mut self, now_ns: i64) {
        self.late_since_ns.get_or_insert(now_ns);
    }

    /// Returns whether the lag has lasted longer than `patience_ns`, a stepped clock apart.
    #[must_use]
    pub fn is_hopeless(&self, now_ns: i64, patience_ns: i64) -> bool {
        let since = self.late_since_ns.map(|since| since.max(self.distrust_until_ns));
        since.is_some_and(|since| patience_ns < now_ns.saturating_sub(since))
    }

    /// Returns whether the connection is late now.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.late_since_ns.is_some()
    }

    /// Returns whether it is late for a stepped clock.
    #[must_use]
    pub const fn is_step(&self, now_ns: i64) -> bool {
        now_ns < self.distrust_until_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn silence_is_said_once_then_death() {
        let mut pulse = Pulse::new(0);
        assert_eq!(pulse.silence(3 * SECOND, 3 * SECOND, SECOND), Silence::None);
        assert_eq!(pulse.silence(3 * SECOND + 1, 3 * SECOND, SECOND), Silence::Began);
        assert_eq!(pulse.silence(4 * SECOND, 3 * SECOND, SECOND), Silence::Lasts);
        assert_eq!(pulse.silence(4 * SECOND + 2, 3 * SECOND, SECOND), Silence::Dead);
        assert!(pulse.frame(5 * SECOND));
        assert_eq!(pulse.silence(5 * SECOND, 3 * SECOND, SECOND), Silence::None);
        assert!(!pulse.frame(6 * SECOND));
    }

    #[test]
    fn beats_only_when_something_came() {
        let mut pulse = Pulse::new(0);
        assert_eq!(pulse.beat(0, 50 * MS), None);
        pulse.frame(MS);
        assert_eq!(pulse.beat(2 * MS, 50 * MS), Some((MS, 1)));
        pulse.frame(3 * MS);
        assert_eq!(pulse.beat(4 * MS, 50 * MS), None);
        assert_eq!(pulse.beat(52 * MS, 50 * MS), Some((3 * MS, 2)));
        assert_eq!(pulse.beat(500 * MS, 50 * MS), None, "a silent connection says nothing");
    }

    /// The recorder of the Binance capture ran 1.27 s behind the venue.
    #[test]
    fn a_constant_clock_difference_is_no_lag() {
        let mut lag = Lag::default();
        for i in 100..1_100 {
            let event = i * 100 * MS;
            assert_eq!(lag.on_message(event, event - 1_273 * MS, SECOND), LagChange::None);
        }
    }

    #[test]
    fn lag_is_said_and_taken_back_and_hopeless_after_patience() {
        let mut lag = Lag::default();
        let mut at = |delay: i64, i: i64| {
            let event = i * 100 * MS;
            (lag.on_message(event, event + delay, SECOND), lag)
        };
        for i in 0..100 {
            at(20 * MS, i);
        }
        assert_eq!(at(1_100 * MS, 100).0, LagChange::Late);
        assert_eq!(at(700 * MS, 101).0, LagChange::None, "half the limit to come back");
        assert_eq!(at(400 * MS, 102).0, LagChange::Caught);
        for i in 103..150 {
            at(3_000 * MS, i);
        }
        let (_, lag) = at(3_000 * MS, 150);
        assert!(lag.is_hopeless(15_000 * MS + 3_000 * MS, 2 * SECOND));
    }

    /// MD-16: event times step by ±10 s. No message is called fresh by a step.
    #[test]
    fn a_stepped_clock_is_never_fresh() {
        for step in [-10 * SECOND, 10 * SECOND] {
            let mut lag = Lag::default();
            for i in 0..200 {
                lag.on_message(i * 100 * MS, i * 100 * MS + 20 * MS, SECOND);
            }
            for i in 200..240 {
                lag.on_message(i * 100 * MS + step, i * 100 * MS + 20 * MS, SECOND);
                assert!(lag.is_late(), "step {step} message {i}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_times_give_an_answer(times in proptest::collection::vec((any::<i64>(), any::<i64>()), 0..200)) {
            let mut lag = Lag::default();
            let mut pulse = Pulse::new(0);
            for (event, recv) in times {
                lag.on_message(event, recv, SECOND);
                let _ = lag.is_hopeless(recv, SECOND);
                if let Lateness::By(by) = LagFilter::default().on_message(event, recv) { prop_assert!(0 <= by); }
                pulse.frame(recv / 4);
                pulse.silence(recv / 4, SECOND, SECOND);
            }
        }
    }
}
