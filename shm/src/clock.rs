//! One clock for all processes: ticks of the time-stamp counter, and a page that converts them.
//!
//! Invariant: records carry raw ticks; whoever wants nanoseconds converts with the same page, so two
//! processes never scale one tick differently. For one reader and growing ticks, converted time never
//! goes back, except when an operator or the time daemon sets the wall clock back by more than
//! [`STEP_NS`]; those steps are counted. Below that, a new epoch of the page starts where the old one
//! ends and slews towards the truth. Integers only.
//!
//! `CLOCK_MONOTONIC_RAW` and `CLOCK_REALTIME` are anchored separately; each anchor is the tightest of
//! several pairs (ticks, clock, ticks), and half its width is the error bound.
//!
//! Not here: per-venue offsets. Who updates the page: any one tile, every 10 ms or so.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::ShmError;
use crate::latest::{read_entry, write_entry};
use crate::region::{
    Expect, HEADER_BYTES, Note, Producer, RegionKind, RegionOwner, RegionSpec, RegionView,
};
use crate::sys::{self, fnv1a};

/// A difference beyond this between the page and the kernel is a step, not a drift: 1 ms.
///
/// A time daemon slews below 500 ppm, which is 5 µs in the 10 ms between updates.
pub const STEP_NS: i64 = 1_000_000;

/// An epoch absorbs its error over this time: ten updates, so jitter of one pair hardly shows.
const SLEW_OVER_NS: i64 = 100_000_000;
/// The rate bends by at most 500 ppm for it, so that time always advances.
const SLEW_PPM_MAX: i64 = 500;
/// Multipliers are nanoseconds per tick times 2^32.
const SHIFT: u32 = 32;
/// Pairs per joint read. The tightest of eight is rarely an interrupted one.
const PAIRS: u32 = 8;
/// First baseline of the rate: at 50 ns error per end, 5 ppm. Later updates lengthen it.
const BASELINE: Duration = Duration::from_millis(20);

/// Two seqlocked entries, written in turn, so a reader finds a whole one beside the busy one.
const EPOCHS: usize = 4;
const EPOCH_WORDS: usize = 9;
const ENTRY_BYTES: usize = 128;
const SCHEMA: u64 = fnv1a(
    b"clock 1: epoch, tsc, mono_ns, wall_ns, mono_mult, wall_mult, error_ns, back_steps, rate",
);

/// Reads the time-stamp counter; on machines without a constant one, nanoseconds of a monotonic clock.
///
/// The first call in a process takes up to 200 ms, for the checks behind it; call it at start.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    static SOURCE: OnceLock<quanta::Clock> = OnceLock::new();
    SOURCE.get_or_init(quanta::Clock::new).raw()
}

/// Ticks and both kernel clocks, read together.
#[derive(Clone, Copy, Debug)]
struct JointRead {
    mono_tsc: u64,
    mono_ns: i64,
    wall_tsc: u64,
    wall_ns: i64,
    /// Half the width of the wider pair.
    error_ticks: u64,
}

impl JointRead {
    fn now() -> Self {
        let mono = Self::tightest(libc::CLOCK_MONOTONIC_RAW);
        let wall = Self::tightest(libc::CLOCK_REALTIME);
        Self {
            mono_tsc: mono.0,
            mono_ns: mono.1,
            wall_tsc: wall.0,
            wall_ns: wall.1,
            error_ticks: mono.2.max(wall.2),
        }
    }

    /// Returns ticks in the middle of the tightest pair, the clock, and half the width.
    fn tightest(clock: libc::clockid_t) -> (u64, i64, u64) {
        let mut best = (0, 0, u64::MAX);
        for _ in 0..PAIRS {
            let before = tsc();
            let ns = sys::clock_ns(clock);
            let width = tsc().wrapping_sub(before);
            if width / 2 < best.2 {
                best = (before.wrapping_add(width / 2), ns, width / 2);
            }
        }
        best
    }
}

/// A line through ticks and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    tsc: u64,
    ns: i64,
    mult: u64,
}

impl Line {
    /// Converts; exact to a nanosecond, also for ticks before the anchor.
    #[inline]
    fn at(self, tsc: u64) -> i64 {
        let ticks = i128::from(tsc.wrapping_sub(self.tsc).cast_signed());
        // 64 bits of ticks times 64 bits of multiplier fit; the shift rounds down, for all signs.
        let ns = (ticks * i128::from(self.mult)) >> SHIFT;
        self.ns.wrapping_add(ns as i64)
    }

    /// Continues the line at `tsc` towards a measured time. Returns the step if there was one.
    fn follow(&mut self, tsc: u64, measured_ns: i64, rate: u64) -> Option<i64> {
        let predicted_ns = self.at(tsc);
        let error_ns = measured_ns.wrapping_sub(predicted_ns);
        self.tsc = tsc;
        if error_ns.unsigned_abs() > STEP_NS.unsigned_abs() {
            (self.ns, self.mult) = (measured_ns, rate);
            return Some(error_ns);
        }
        self.ns = predicted_ns;
        let bend_max = i128::from(rate) * i128::from(SLEW_PPM_MAX) / 1_000_000;
        let bend = i128::from(rate) * i128::from(error_ns) / i128::from(SLEW_OVER_NS);
        let mult = i128::from(rate) + bend.clamp(-bend_max, bend_max);
        self.mult = u64::try_from(mult).unwrap_or(rate);
        None
    }
}

/// Ticks to nanoseconds: one epoch of the shared page, or a private calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    epoch: u64,
    mono: Line,
    wall: Line,
    /// Nanoseconds per tick times 2^32, without the slew.
    rate: u64,
    error_ns: u64,
    back_steps: u64,
}

impl Clock {
    /// Calibrates for a process without a page. Takes some 20 ms.
    #[must_use]
    pub fn calibrate() -> Self {
        let first = JointRead::now();
        let start = Instant::now();
        while start.elapsed() < BASELINE {
            std::thread::sleep(Duration::from_millis(1));
        }
        Self::between(&first, &JointRead::now())
    }

    fn between(first: &JointRead, last: &JointRead) -> Self {
        let rate = rate_between(first, last).unwrap_or(1 << SHIFT);
        let error = u128::from(last.error_ticks) * u128::from(rate);
        Self {
            epoch: 1,
            mono: Line { tsc: last.mono_tsc, ns: last.mono_ns, mult: rate },
            wall: Line { tsc: last.wall_tsc, ns: last.wall_ns, mult: rate },
            rate,
            error_ns: u64::try_from(error >> SHIFT).unwrap_or(u64::MAX) + 1,
            back_steps: 0,
        }
    }

    /// Converts ticks to UNIX nanoseconds.
    #[inline]
    #[must_use]
    pub fn now_ns(&self, tsc: u64) -> i64 {
        self.wall.at(tsc)
    }

    /// Converts ticks to nanoseconds of `CLOCK_MONOTONIC_RAW`.
    #[inline]
    #[must_use]
    pub fn mono_ns(&self, tsc: u64) -> i64 {
        self.mono.at(tsc)
    }

    /// Converts a difference of ticks to nanoseconds.
    #[inline]
    #[must_use]
    pub fn ticks_to_ns(&self, ticks: u64) -> u64 {
        u64::try_from((u128::from(ticks) * u128::from(self.rate)) >> SHIFT).unwrap_or(u64::MAX)
    }

    /// Returns ticks in a millisecond.
    #[must_use]
    pub fn ticks_per_ms(&self) -> u64 {
        let ticks = (1_000_000_u128 << SHIFT) / u128::from(self.rate.max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Returns how far off the anchor may be.
    #[must_use]
    pub fn error_ns(&self) -> u64 {
        self.error_ns
    }

    /// Returns how often the wall clock was set back by more than [`STEP_NS`].
    #[must_use]
    pub fn back_steps(&self) -> u64 {
        self.back_steps
    }

    /// Returns the epoch: one more with every update of the page.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn to_words(self) -> [u64; EPOCH_WORDS] {
        // Both lines are anchored to the same ticks in the page; `ClockWriter` sees to it.
        [
            self.epoch,
            self.mono.tsc,
            self.mono.ns.cast_unsigned(),
            self.wall.ns.cast_unsigned(),
            self.mono.mult,
            self.wall.mult,
            self.error_ns,
            self.back_steps,
            self.rate,
        ]
    }

    fn from_words(words: &[u64; EPOCH_WORDS]) -> Self {
        let [epoch, tsc, mono_ns, wall_ns, mono_mult, wall_mult, error_ns, back_steps, rate] =
            *words;
        Self {
            epoch,
            mono: Line { tsc, ns: mono_ns.cast_signed(), mult: mono_mult },
            wall: Line { tsc, ns: wall_ns.cast_signed(), mult: wall_mult },
            rate,
            error_ns,
            back_steps,
        }
    }
}

/// Returns nanoseconds per tick times 2^32 over a baseline of the raw clock.
fn rate_between(first: &JointRead, last: &JointRead) -> Option<u64> {
    let ticks = u128::from(last.mono_tsc.wrapping_sub(first.mono_tsc));
    let ns = u128::try_from(last.mono_ns.wrapping_sub(first.mono_ns)).ok()?;
    u64::try_from((ns << SHIFT).checked_div(ticks)?).ok().filter(|&rate| rate > 0)
}

/// The page's one writer.
#[derive(Debug)]
pub struct ClockWriter {
    region: RegionOwner,
    /// Where the baseline of the rate starts: the longer it is, the better the rate.
    first: JointRead,
    clock: Clock,
}

impl ClockWriter {
    /// Creates the page and writes its first epoch. Takes some 20 ms.
    pub fn create(dir: &Path, name: &str) -> Result<Self, ShmError> {
        let spec = RegionSpec {
            name: name.to_owned(),
            kind: RegionKind::Clock,
            slot_bytes: ENTRY_BYTES as u32,
            slot_count: EPOCHS as u64,
            schema_hash: SCHEMA,
            initial_seq: 0,
            tag: 0,
            build_id: env!("CARGO_PKG_VERSION").to_owned(),
            lock_memory: true,
        };
        let first = JointRead::now();
        std::thread::sleep(BASELINE);
        let mut clock = Clock::between(&first, &JointRead::now());
        clock.wall = Line { tsc: clock.mono.tsc, ns: clock.wall.at(clock.mono.tsc), ..clock.wall };
        let region = RegionOwner::create(dir, &spec, |map| {
            write_entry(map.words(entry_offset(clock.epoch), ENTRY_BYTES / 8), &clock.to_words());
        })?;
        let mut writer = Self { region, first, clock };
        writer.region.beat(tsc(), writer.clock.epoch);
        Ok(writer)
    }

    /// Starts the next epoch: reads all clocks, slews or steps, publishes. Call it every 10 ms or so.
    pub fn update(&mut self) -> Clock {
        let read = JointRead::now();
        self.follow(&read);
        let words = self.clock.to_words();
        let entry = self.region.mapping().words(entry_offset(self.clock.epoch), ENTRY_BYTES / 8);
        write_entry(entry, &words);
        // The progress word is the index of the page: which entry to read first.
        self.region.beat(read.mono_tsc, self.clock.epoch);
        self.clock
    }

    fn follow(&mut self, read: &JointRead) {
        let clock = &mut self.clock;
        clock.epoch += 1;
        if let Some(rate) = rate_between(&self.first, read) {
            clock.rate = rate;
        }
        clock.mono.follow(read.mono_tsc, read.mono_ns, clock.rate);
        // Both lines share an anchor: the wall clock moves to the ticks of the raw one.
        let apart = Line { tsc: read.wall_tsc, ns: read.wall_ns, mult: clock.rate };
        let step = clock.wall.follow(read.mono_tsc, apart.at(read.mono_tsc), clock.rate);
        if step.is_some_and(|step| step < 0) {
            clock.back_steps += 1;
        }
        let error = u128::from(read.error_ticks) * u128::from(clock.rate);
        clock.error_ns = u64::try_from(error >> SHIFT).unwrap_or(u64::MAX) + 1;
    }

    /// Returns the current epoch, for the writer's own use.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Returns what could not be done at creation, for the log.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        self.region.notes()
    }

    /// Says goodbye.
    pub fn close(self) {
        self.region.close(self.clock.epoch);
    }
}

/// A reader of the page, with a private copy of its newest epoch.
#[derive(Debug)]
pub struct ClockReader {
    view: RegionView,
    clock: Clock,
    /// Where the epoch before ended for us: ticks, wall and raw nanoseconds. Time does not go back here.
    floor: Option<(u64, i64, i64)>,
}

impl ClockReader {
    /// Attaches, waiting for a writer that starts.
    pub fn open(dir: &Path, name: &str, timeout: Duration) -> Result<Self, ShmError> {
        let expect = Expect {
            kind: RegionKind::Clock,
            schema_hash: Some(SCHEMA),
            slot_bytes: Some(ENTRY_BYTES as u32),
            power_of_two: false,
        };
        let view = RegionView::open(dir, name, expect, timeout)?;
        if view.slot_count() != EPOCHS as u64 {
            return Err(ShmError::Geometry {
                path: view.path().to_owned(),
                what: "epoch count",
                found: view.slot_count(),
                expected: EPOCHS as u64,
            });
        }
        // A page is renamed into place with its first epoch in it.
        let Some(clock) = newest_epoch(&view, 0) else {
            return Err(ShmError::HalfInitialised { path: view.path().to_owned() });
        };
        Ok(Self { view, clock, floor: None })
    }

    /// Takes the newest epoch of the page. Returns whether there was one. For the slow path.
    pub fn refresh(&mut self) -> bool {
        let Some(next) = newest_epoch(&self.view, self.clock.epoch) else { return false };
        self.adopt(next, tsc());
        true
    }

    fn adopt(&mut self, next: Clock, now_tsc: u64) {
        let (wall, mono) = (self.now_ns(now_tsc), self.mono_ns(now_tsc));
        let stepped_back = next.back_steps != self.clock.back_steps;
        // An honest step back must show, or we would stand still for its length.
        let wall_floor = if stepped_back { i64::MIN } else { wall };
        self.floor = Some((now_tsc, wall_floor, mono));
        self.clock = next;
    }

    /// Moves to the page of a new writer if there is one.
    pub fn reattach(&mut self) -> Result<bool, ShmError> {
        let Some(view) = self.view.reopen()? else { return Ok(false) };
        let Some(clock) = newest_epoch(&view, 0) else { return Ok(false) };
        self.adopt(clock, tsc());
        self.view = view;
        Ok(true)
    }

    /// Converts ticks to UNIX nanoseconds.
    #[inline]
    #[must_use]
    pub fn now_ns(&self, tsc: u64) -> i64 {
        let ns = self.clock.now_ns(tsc);
        match self.floor {
            Some((at, wall, _)) if wall != i64::MIN => above(ns, wall, tsc, at),
            _ => ns,
        }
    }

    /// Converts ticks to nanoseconds of `CLOCK_MONOTONIC_RAW`.
    #[inline]
    #[must_use]
    pub fn mono_ns(&self, tsc: u64) -> i64 {
        let ns = self.clock.mono_ns(tsc);
        match self.floor {
            Some((at, _, mono)) => above(ns, mono, tsc, at),
            None => ns,
        }
    }

    /// Returns the epoch in use, with its rate, error bound and count of steps.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns ticks in a millisecond.
    #[must_use]
    pub fn ticks_per_ms(&self) -> u64 {
        self.clock.ticks_per_ms()
    }

    /// Judges the writer. A page nobody updates drifts, by some ppm of its age.
    #[must_use]
    pub fn producer(&self, now_tsc: u64) -> Producer {
        self.view.producer(now_tsc, self.ticks_per_ms())
    }
}

/// Keeps time from going back where one epoch followed another: not below `floor` after `at`, and not
/// above it before.
#[inline]
fn above(ns: i64, floor: i64, tsc: u64, at: u64) -> i64 {
    if tsc.wrapping_sub(at).cast_signed() >= 0 { ns.max(floor) } else { ns.min(floor) }
}

fn entry_offset(epoch: u64) -> usize {
    HEADER_BYTES + (epoch % EPOCHS as u64) as usize * ENTRY_BYTES
}

/// Returns the newest whole epoch after `than`.
fn newest_epoch(view: &RegionView, than: u64) -> Option<Clock> {
    let hint = view.progress();
    // The hinted entry may be rewritten under us only if we slept for three updates; look around then.
    (hint..hint + EPOCHS as u64)
        .filter_map(|epoch| {
            let mut words = [0; EPOCH_WORDS];
            let entry = view.mapping().words(entry_offset(epoch), ENTRY_BYTES / 8);
            let len = read_entry(entry, &mut words)?;
            (len == EPOCH_WORDS).then(|| Clock::from_words(&words))
        })
        .max_by_key(|clock| clock.epoch)
        .filter(|clock| clock.epoch > than)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2.6 GHz.
    const RATE: u64 = (1 << 32) * 10 / 26;

    #[test]
    fn a_line_is_exact_on_both_sides_of_its_anchor() {
        let line = Line { tsc: u64::MAX - 5, ns: 1_000, mult: 2 << SHIFT };
        assert_eq!(line.at(u64::MAX - 5), 1_000);
        assert_eq!(line.at(4), 1_020, "across the wrap of the counter");
        assert_eq!(line.at(u64::MAX - 15), 980);
    }

    #[test]
    fn a_small_error_is_slewed_and_a_large_one_stepped() {
        let mut line = Line { tsc: 0, ns: 0, mult: RATE };
        let tsc = 26_000_000; // 10 ms
        let predicted = line.at(tsc);
        assert_eq!(line.follow(tsc, predicted - 5_000, RATE), None);
        assert_eq!(line.at(tsc), predicted, "the new epoch starts where the old one ends");
        assert!(line.mult < RATE, "and runs slower");
        assert_eq!(line.follow(tsc, predicted - 2 * STEP_NS, RATE), Some(-2 * STEP_NS));
        assert_eq!(line.at(tsc), predicted - 2 * STEP_NS);
    }

    proptest! {
        /// Whatever the daemon does below a step, growing ticks give growing time, also for a reader
        /// that refreshes late.
        #[test]
        fn time_never_goes_back(
            jitter in proptest::collection::vec(-400_000_i64..400_000, 1..40),
            late in proptest::collection::vec(0_u64..26_000_000, 40),
        ) {
            let mut clock = Clock {
                epoch: 1,
                mono: Line { tsc: 0, ns: 0, mult: RATE },
                wall: Line { tsc: 0, ns: 1 << 60, mult: RATE },
                rate: RATE, error_ns: 1, back_steps: 0,
            };
            let mut floor: Option<(u64, i64)> = None;
            let mut held = clock;
            let mut last = i64::MIN;
            let convert = |clock: &Clock, floor: Option<(u64, i64)>, tsc: u64| {
                let ns = clock.now_ns(tsc);
                floor.map_or(ns, |(at, floor)| above(ns, floor, tsc, at))
            };
            for (at, (jitter, late)) in jitter.iter().zip(&late).enumerate() {
                let update = (at as u64 + 1) * 26_000_000;
                let truth = (1 << 60) + Line { tsc: 0, ns: 0, mult: RATE }.at(update) + jitter;
                clock.epoch += 1;
                prop_assert_eq!(clock.wall.follow(update, truth, RATE), None);
                for tsc in [update, update + late / 2, update + late] {
                    let ns = convert(&held, floor, tsc);
                    prop_assert!(ns >= last);
                    last = ns;
                }
                let now = update + late;
                floor = Some((now, convert(&held, floor, now)));
                held = clock;
                let ns = convert(&held, floor, now);
                prop_assert!(ns >= last);
                last = ns;
            }
        }
    }
}
