//! How everything here is measured: interleaved blocks, a floor around each round, and no figure alone.
//!
//! Invariant: a round runs the floor, every contender once, and the floor again, in an order that turns
//! from round to round. A round whose two floors differ by more than [`FLOORS_DIFFER`] is left out, and so
//! is a block in which the scheduler took the processor away. Ratios are made within a round, so that a
//! machine that slows down slows down both sides of them. A job times itself: what prepares it is not in
//! its figure, and it checks its results.
//!
//! Not here: what is measured (one file a group), how it is shown (`report`).

use std::sync::OnceLock;

use tandem_shm::{Clock, tsc};

/// Floors of one round that differ more than this say that the machine was disturbed.
const FLOORS_DIFFER: f64 = 0.15;

/// Fewer kept rounds than this are no measurement; all rounds are shown then, and the table says so.
const ROUNDS_LEAST: usize = 5;

/// The process's clock, calibrated once.
pub fn clock() -> &'static Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(Clock::calibrate)
}

/// Ticks as nanoseconds, with fractions.
pub fn ticks_ns(ticks: f64) -> f64 {
    ticks * 1e6 / clock().ticks_per_ms() as f64
}

/// A histogram of ticks: exact below 64, then 64 buckets an octave (1.6 %).
#[derive(Clone)]
pub struct Hist {
    buckets: Box<[u64; Hist::BUCKETS]>,
    count: u64,
    max: u64,
}

impl Hist {
    const SUB: u32 = 6;
    const BUCKETS: usize = 64 * 36;

    /// Returns an empty histogram.
    pub fn new() -> Hist {
        Hist { buckets: Box::new([0; Hist::BUCKETS]), count: 0, max: 0 }
    }

    /// Adds one value.
    #[inline]
    pub fn add(&mut self, ticks: u64) {
        self.buckets[Hist::index(ticks)] += 1;
        self.count += 1;
        self.max = self.max.max(ticks);
    }

    #[inline]
    fn index(ticks: u64) -> usize {
        let octave = (u64::BITS - ticks.leading_zeros()).saturating_sub(Hist::SUB + 1);
        let at = (ticks >> octave) as usize + octave as usize * 64;
        at.min(Hist::BUCKETS - 1)
    }

    /// Middle of a bucket.
    fn value(index: usize) -> f64 {
        if index < 128 {
            return index as f64;
        }
        let octave = index as u32 / 64 - 1;
        let low = ((index as u64) - u64::from(octave) * 64) << octave;
        low as f64 + ((1u64 << octave) - 1) as f64 / 2.0
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Hist) {
        self.buckets.iter_mut().zip(other.buckets.iter()).for_each(|(ours, more)| *ours += more);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Returns how many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the largest value in nanoseconds.
    pub fn max_ns(&self) -> f64 {
        ticks_ns(self.max as f64)
    }

    /// Returns a quantile in nanoseconds.
    pub fn quantile_ns(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if wanted <= seen {
                return ticks_ns(Hist::value(index).min(self.max as f64));
            }
        }
        0.0
    }
}

/// One block of a contender: it says what it did and how long it took.
pub struct Lap {
    /// Operations done.
    pub ops: u64,
    /// Ticks they took, together.
    pub ticks: u64,
    /// Single operations, where each was timed.
    pub hist: Hist,
    /// Ticks of one operation where the middle of the histogram stands for the block.
    by_median: bool,
    preemptions: i64,
}

impl Lap {
    fn new() -> Lap {
        Lap { ops: 0, ticks: 0, hist: Hist::new(), by_median: false, preemptions: preemptions() }
    }

    /// Preparation is over: what the scheduler did until here does not count.
    pub fn begin(&mut self) {
        self.preemptions = preemptions();
    }

    /// Times `work`, which does `ops` operations.
    #[inline]
    pub fn time<R>(&mut self, ops: u64, work: impl FnOnce() -> R) -> R {
        let start = tsc();
        let result = work();
        self.ticks += tsc() - start;
        self.ops += ops;
        result
    }

    /// Judges the block by the median of its single operations, not by their mean.
    pub fn judge_by_median(&mut self) {
        self.by_median = true;
    }

    fn ns(&self) -> f64 {
        if self.by_median {
            self.hist.quantile_ns(0.5)
        } else {
            ticks_ns(self.ticks as f64) / self.ops.max(1) as f64
        }
    }
}

/// A contender: its name, and what one block of it does.
pub struct Contender<'a> {
    name: String,
    job: Box<dyn FnMut(&mut Lap) + 'a>,
}

impl<'a> Contender<'a> {
    /// Names a job.
    pub fn new(name: impl Into<String>, job: impl FnMut(&mut Lap) + 'a) -> Contender<'a> {
        Contender { name: name.into(), job: Box::new(job) }
    }
}

/// What was found about one contender in one regime.
#[derive(Clone)]
pub struct Found {
    /// Contender.
    pub name: String,
    /// Median over the blocks of the nanoseconds of one operation.
    pub ns: f64,
    /// Single operations of all blocks that count.
    pub hist: Hist,
    /// By round: nanoseconds of one operation; nothing where the block was disturbed.
    by_round: Vec<Option<f64>>,
}

impl Found {
    /// Returns the median over rounds of ours divided by theirs.
    pub fn ratio_to(&self, other: &Found) -> Option<f64> {
        let both = self.by_round.iter().zip(&other.by_round);
        median(both.filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)).collect())
    }
}

/// All contenders of one comparison in one regime. The floor is the first.
#[derive(Clone)]
pub struct Comparison {
    /// Which regime of the floor: empty where there is one only.
    pub regime: &'static str,
    /// The floor, then the contenders as they were given.
    pub found: Vec<Found>,
    /// Rounds that count.
    pub kept: usize,
    /// Rounds in all.
    pub rounds: usize,
    /// Too few rounds were quiet, so all of them count.
    pub noisy: bool,
}

impl Comparison {
    /// Returns a contender's figures.
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.found.iter().find(|found| found.name == name)
    }

    /// Returns how many rounds count, in words.
    pub fn says(&self) -> String {
        let noisy = if self.noisy { ", NOISY: no quiet ones, all count" } else { "" };
        format!("{} of {} rounds{noisy}", self.kept, self.rounds)
    }
}

struct Round {
    floors: [f64; 2],
    laps: Vec<(Lap, bool)>,
}

impl Round {
    fn floor(&self) -> f64 {
        (self.floors[0] + self.floors[1]) / 2.0
    }

    fn is_quiet(&self) -> bool {
        let [a, b] = self.floors;
        (a - b).abs() <= FLOORS_DIFFER * a.min(b)
    }
}

/// Runs rounds. `regimes` names the classes of the floor below and above a bound in nanoseconds.
pub fn compare(
    rounds: usize,
    floor: &mut Contender<'_>,
    contenders: &mut [Contender<'_>],
    regimes: Option<(f64, [&'static str; 2])>,
) -> Vec<Comparison> {
    // One round for caches, branch predictors and page faults, not counted.
    run_round(0, floor, contenders);
    let all: Vec<Round> = (0..rounds).map(|round| run_round(round, floor, contenders)).collect();
    let names: Vec<&str> = std::iter::once(floor.name.as_str())
        .chain(contenders.iter().map(|contender| contender.name.as_str()))
        .collect();
    match regimes {
        None => vec![summarise("", &names, &all.iter().collect::<Vec<_>>())],
        Some((bound, [near, far])) => {
            let class = |low: bool| all.iter().filter(move |r| (r.floor() < bound) == low);
            [(near, true), (far, false)]
                .into_iter()
                .map(|(regime, low)| (regime, class(low).collect::<Vec<_>>()))
                .filter(|(_, rounds)| !rounds.is_empty())
                .map(|(regime, rounds)| summarise(regime, &names, &rounds))
                .collect()
        }
    }
}

fn run_round(round: usize, floor: &mut Contender<'_>, contenders: &mut [Contender<'_>]) -> Round {
    let count = contenders.len();
    let (mut first, first_calm) = run(floor);
    let mut laps: Vec<Option<(Lap, bool)>> = (0..count).map(|_| None).collect();
    for step in 0..count {
        let at = (round + step) % count;
        laps[at] = Some(run(&mut contenders[at]));
    }
    let (second, second_calm) = run(floor);
    let floors = [first.ns(), second.ns()];
    if first.by_median {
        first.hist.merge(&second.hist);
    } else {
        first.ticks += second.ticks;
        first.ops += second.ops;
        first.hist.merge(&second.hist);
    }
    let mut all = vec![(first, first_calm && second_calm)];
    all.extend(laps.into_iter().flatten());
    Round { floors, laps: all }
}

/// Runs one block; tells whether the scheduler left it alone.
fn run(contender: &mut Contender<'_>) -> (Lap, bool) {
    let mut lap = Lap::new();
    (contender.job)(&mut lap);
    assert!(0 < lap.ops, "{}: a block does something", contender.name);
    let calm = preemptions() == lap.preemptions;
    (lap, calm)
}

fn summarise(regime: &'static str, names: &[&str], all: &[&Round]) -> Comparison {
    let quiet: Vec<&&Round> = all.iter().filter(|round| round.is_quiet()).collect();
    let noisy = quiet.len() < ROUNDS_LEAST;
    let kept: Vec<&&Round> = if noisy { all.iter().collect() } else { quiet };
    let found = names.iter().enumerate().map(|(idx, name)| {
        let calm = kept.iter().filter(|round| round.laps[idx].1).count();
        // Where hardly a block was left alone, medians over disturbed ones are better than nothing.
        let any = calm < ROUNDS_LEAST;
        let mut hist = Hist::new();
        let mut by_round = Vec::with_capacity(kept.len());
        for round in &kept {
            let (lap, calm) = &round.laps[idx];
            let counts = any || *calm;
            by_round.push(counts.then(|| lap.ns()));
            if counts {
                hist.merge(&lap.hist);
            }
        }
        let ns: Vec<f64> = by_round.iter().flatten().copied().collect();
        let ns = median(ns).unwrap_or(f64::NAN);
        Found { name: (*name).to_owned(), ns, hist, by_round }
    });
    let found = found.collect();
    Comparison { regime, found, kept: kept.len(), rounds: all.len(), noisy }
}

/// Returns the middle value.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// How often the scheduler took this process's threads off a processor.
fn preemptions() -> i64 {
    // SAFETY: all-zero bytes are a valid `rusage`, which is plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a whole `rusage` that the call may write.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    if result == 0 { usage.ru_nivcsw } else { 0 }
}

/// Binds the calling thread to a processor; `false` where that is refused.
pub fn pin(cpu: usize) -> bool {
    // SAFETY: all-zero bytes are an empty `cpu_set_t`, which is plain integers.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `CPU_SET` checks `cpu` against the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is whole and its size is given; 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0 }
}

/// Lets the calling thread run anywhere again.
pub fn unpin() {
    // SAFETY: as in `pin`.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let cpus = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    // SAFETY: as in `pin`.
    (0..cpus).for_each(|cpu| unsafe { libc::CPU_SET(cpu, &mut set) });
    // SAFETY: as in `pin`. Where it is refused we stay where we are.
    let _ = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// A small generator: the same inputs in every run.
pub struct Lcg(pub u64);

impl Lcg {
    /// Returns the next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The counter's usual step when it moves, and the median of two reads in a row; in nanoseconds.
pub fn counter_step_ns() -> (f64, f64) {
    let mut all = Hist::new();
    let mut steps = Hist::new();
    for _ in 0..200_000 {
        let before = tsc();
        let step = tsc() - before;
        all.add(step);
        if 0 < step {
            steps.add(step);
        }
    }
    (steps.quantile_ns(0.5), all.quantile_ns(0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_its_values() {
        for ticks in (0..5_000u64).chain([1 << 20, (1 << 30) + 12_345, 1 << 38]) {
            let value = Hist::value(Hist::index(ticks));
            let error = (value - ticks as f64).abs() / (ticks.max(1) as f64);
            assert!(error < 0.01, "{ticks} came out as {value}");
        }
    }

    #[test]
    fn quantiles_are_where_the_values_are() {
        let mut hist = Hist::new();
        (1..=100).for_each(|ticks| hist.add(ticks));
        let ns = |ticks: f64| ticks_ns(ticks);
        assert!((hist.quantile_ns(0.5) - ns(50.0)).abs() < ns(1.0));
        assert!((hist.quantile_ns(0.99) - ns(99.0)).abs() < ns(1.0));
        assert!((hist.max_ns() - ns(100.0)).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_made_within_rounds() {
        let found = |by_round: &[f64]| Found {
            name: String::new(),
            ns: 0.0,
            hist: Hist::new(),
            by_round: by_round.iter().copied().map(Some).collect(),
        };
        // The machine halved its speed from the second round on; the ratio did not change.
        let (ours, theirs) = (found(&[1.0, 2.0, 2.0]), found(&[2.0, 4.0, 4.0]));
        assert_eq!(ours.ratio_to(&theirs), Some(0.5));
    }
}
