//! One-way hop of a 128-byte record between two pinned threads, and how many of them pass in a stream.
//!
//! Hop: exactly one record is in flight. A writes all words and publishes to one ring; B copies, checks
//! all words, publishes the same to a second ring; A copies and checks. A figure is half a round trip.
//! The floor is the same on two `AtomicU64` in two lines of their own: no ring can be faster. That is one line and no payload; `16 words, one
//! flag` is what a whole record takes without any ring. Word 0 of our
//! records is the ring's sequence, which is checked instead. All contenders hold 4,096 records and spin
//! without a pause. The two cores of a virtual machine are near to each other or far; that shows in the
//! floor, so the two regimes are reported apart.
//!
//! Stream: every word is written, copied and checked. Ours and ringfire never block, so a count of what
//! was taken comes back every 256 records and nothing is lost; the others block by themselves. Ours also
//! without that count: what was taken and lost must be what was published.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel as crossbeam;
use disruptor::Producer as _;
use tandem_shm::{Read, RingReader, RingSpec, RingWriter, tsc};

use crate::Effort;
use crate::harness::{Contender, Hist, Lap, compare, pin, unpin};
use crate::report::{Budget, Report, Table};

type Words = [u64; 16];

const SLOTS: usize = 4_096;
const CPUS: [usize; 2] = [0, 1];
const HOP_WARM_UP: u64 = 1_000;
const HOPS: u64 = 20_000;
const STREAM: u64 = 200_000;
/// How often a reader of a ring without back-pressure says how far it is.
const CREDIT_EVERY: u64 = 256;
/// Floors below are of cores near to each other.
const NEAR_NS: f64 = 100.0;

const FLOOR: &str = "cache-line ping-pong";
const BARE: &str = "16 words, one flag, no ring";
const OURS: &str = "tandem ring";

/// The record of a number; each word is another one.
#[inline]
fn words(n: u64) -> Words {
    let base = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|at| base.wrapping_add(at as u64))
}

/// Whether a copy is the record of `n`, whole. Word 0 is left to the contender.
#[inline]
fn is_whole(found: &Words, n: u64) -> bool {
    let expected = words(n);
    found.iter().zip(&expected).skip(1).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// One end that sends.
trait Tx: Send {
    fn send(&mut self, item: &Words);
}

/// One end that takes; `None` is nothing yet.
trait Rx: Send {
    fn poll(&mut self) -> Option<Words>;
    /// Records that this end knows it will never see.
    fn lost(&self) -> u64 {
        0
    }
}

struct OurRx {
    reader: RingReader<Words>,
    next: u64,
}

impl Tx for RingWriter<Words> {
    #[inline]
    fn send(&mut self, item: &Words) {
        self.publish(item);
    }
}

impl Rx for OurRx {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        match self.reader.poll() {
            Read::Item(item) => {
                assert_eq!(item[0], self.next, "the sequence is word 0");
                self.next += 1;
                Some(item)
            }
            Read::Empty => None,
            Read::Overrun { lost } => {
                self.next += lost;
                None
            }
        }
    }
    fn lost(&self) -> u64 {
        self.reader.counts().lost
    }
}

impl Tx for ringfire::RingProducer<Words> {
    #[inline]
    fn send(&mut self, item: &Words) {
        self.push(item);
    }
}

impl Rx for ringfire::RingConsumer<Words> {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        self.try_recv()
    }
    fn lost(&self) -> u64 {
        self.lapped_count()
    }
}

impl Tx for rtrb::Producer<Words> {
    #[inline]
    fn send(&mut self, item: &Words) {
        while self.push(*item).is_err() {}
    }
}

impl Rx for rtrb::Consumer<Words> {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        self.pop().ok()
    }
}

impl Tx for crossbeam::Sender<Words> {
    #[inline]
    fn send(&mut self, item: &Words) {
        while self.try_send(*item).is_err() {}
    }
}

impl Rx for crossbeam::Receiver<Words> {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        self.try_recv().ok()
    }
}

type DisruptorTx = disruptor::SingleProducer<Words, disruptor::SingleConsumerBarrier>;
type DisruptorRx = disruptor::EventPoller<Words, disruptor::SingleProducerBarrier>;

impl Tx for DisruptorTx {
    #[inline]
    fn send(&mut self, item: &Words) {
        self.publish(|slot| *slot = *item);
    }
}

impl Rx for DisruptorRx {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        let mut guard = self.take(1).ok()?;
        (&mut guard).next().copied()
    }
}

/// The least that hands over a whole record: sixteen words in two lines, the first is the flag. No ring:
/// one record, no sequence that a lapped reader could tell.
#[repr(align(128))]
struct Bare([AtomicU64; 16]);

struct BareEnd<'a> {
    words: &'a Bare,
    flag: u64,
}

impl Tx for BareEnd<'_> {
    #[inline]
    fn send(&mut self, item: &Words) {
        self.flag += 1;
        // Relaxed: the Release store of the flag below orders them.
        (1..16).for_each(|at| self.words.0[at].store(item[at], Ordering::Relaxed));
        self.words.0[0].store(self.flag, Ordering::Release);
    }
}

impl Rx for BareEnd<'_> {
    #[inline]
    fn poll(&mut self) -> Option<Words> {
        if self.words.0[0].load(Ordering::Acquire) != self.flag + 1 {
            return None;
        }
        self.flag += 1;
        // Relaxed: the Acquire load above orders them.
        Some(std::array::from_fn(|at| self.words.0[at].load(Ordering::Relaxed)))
    }
}

fn bare_pair(lines: &[Bare; 2]) -> Pair<BareEnd<'_>, BareEnd<'_>> {
    let ends = |words| (BareEnd { words, flag: 0 }, BareEnd { words, flag: 0 });
    Pair { there: ends(&lines[0]), back: ends(&lines[1]) }
}

/// A ring there and a ring back.
struct Pair<T, R> {
    there: (T, R),
    back: (T, R),
}

/// A directory in shared memory that goes when we go.
pub struct ShmDir(pub PathBuf);

impl ShmDir {
    /// Makes one of this process.
    pub fn new(name: &str) -> std::io::Result<ShmDir> {
        let path = PathBuf::from(format!("/dev/shm/tandem-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(ShmDir(path))
    }
}

impl Drop for ShmDir {
    fn drop(&mut self) {
        // What is left there is ours alone; where it cannot be removed nothing can be done.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn our_pair(dir: &Path) -> Result<Pair<RingWriter<Words>, OurRx>, Box<dyn Error>> {
    let one = |name: &str| -> Result<_, Box<dyn Error>> {
        let writer = RingWriter::create(dir, &RingSpec::new(name, SLOTS as u64, 1))?;
        let reader = RingReader::open(dir, name, 1, Duration::ZERO)?;
        Ok((writer, OurRx { reader, next: 1 }))
    };
    Ok(Pair { there: one("there")?, back: one("back")? })
}

type RingfirePair = Pair<ringfire::RingProducer<Words>, ringfire::RingConsumer<Words>>;

fn ringfire_pair(dir: &Path) -> Result<RingfirePair, Box<dyn Error>> {
    let one = |name: &str| -> Result<_, Box<dyn Error>> {
        let path = dir.join(name);
        let producer = ringfire::RingProducer::create(&path, SLOTS as u64)?;
        Ok((producer, ringfire::RingConsumer::attach(&path)?))
    };
    Ok(Pair { there: one("ringfire_there")?, back: one("ringfire_back")? })
}

fn disruptor_one() -> (DisruptorTx, DisruptorRx) {
    let builder = disruptor::build_single_producer(SLOTS, || [0; 16], disruptor::BusySpin);
    let (poller, builder) = builder.new_event_poller();
    (builder.build(), poller)
}

/// Runs `theirs` on the second processor and `ours` on the first, from the same moment on.
fn both(theirs: impl FnOnce() + Send, ours: impl FnOnce()) {
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(CPUS[1]);
            ready.store(true, Ordering::Release);
            theirs();
        });
        pin(CPUS[0]);
        while !ready.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        ours();
    });
    unpin();
}

/// Adds half of each round trip. The ticks of a trip are halved as they are: the step of the counter is
/// said at the top of the report.
fn trips(lap: &mut Lap, mut trip: impl FnMut(u64)) {
    (0..HOP_WARM_UP).for_each(&mut trip);
    lap.begin();
    lap.judge_by_median();
    let mut hist = Hist::new();
    for n in HOP_WARM_UP..HOP_WARM_UP + HOPS {
        let start = tsc();
        trip(n);
        hist.add((tsc() - start) / 2);
    }
    lap.ops = HOPS;
    lap.hist = hist;
}

fn hop<T: Tx, R: Rx>(lap: &mut Lap, pair: &mut Pair<T, R>) {
    let Pair { there: (tx_there, rx_there), back: (tx_back, rx_back) } = pair;
    let echo = || {
        for n in 0..HOP_WARM_UP + HOPS {
            let item = wait(rx_there);
            assert!(is_whole(&item, n), "record {n} came torn");
            tx_back.send(&item);
        }
    };
    both(echo, || {
        trips(lap, |n| {
            tx_there.send(&words(n));
            assert!(is_whole(&wait(rx_back), n), "record {n} came back torn");
        });
    });
}

#[inline]
fn wait(rx: &mut impl Rx) -> Words {
    loop {
        if let Some(item) = rx.poll() {
            return item;
        }
    }
}

/// A line of its own, and the one that the processor fetches with it.
#[repr(align(128))]
struct Line(AtomicU64);

fn hop_floor(lap: &mut Lap, there: &Line, back: &Line) {
    let start = there.0.load(Ordering::Relaxed);
    // Release and Acquire in pairs, as any hand-over needs at least.
    let see = |line: &Line, n: u64| while line.0.load(Ordering::Acquire) != n {};
    let echo = || {
        for n in 1..=HOP_WARM_UP + HOPS {
            see(there, start + n);
            back.0.store(start + n, Ordering::Release);
        }
    };
    both(echo, || {
        trips(lap, |n| {
            there.0.store(start + n + 1, Ordering::Release);
            see(back, start + n + 1);
        });
    });
}

/// A stream of records from the first processor to the second; time until the last was checked.
fn stream<T: Tx, R: Rx>(lap: &mut Lap, ends: &mut (T, R), credits: bool) {
    let (tx, rx) = ends;
    let taken = Line(AtomicU64::new(0));
    let done = AtomicBool::new(false);
    let lost = rx.lost();
    let consume = || {
        for n in 0..STREAM {
            assert!(is_whole(&wait(rx), n), "record {n} of a stream is another one");
            if n % CREDIT_EVERY == CREDIT_EVERY - 1 {
                taken.0.store(n + 1, Ordering::Release);
            }
        }
        assert_eq!(rx.lost(), lost, "a stream with back-pressure loses nothing");
        done.store(true, Ordering::Release);
    };
    both(consume, || {
        lap.begin();
        lap.time(STREAM, || {
            let mut seen = 0;
            for n in 0..STREAM {
                while credits && seen + SLOTS as u64 <= n {
                    seen = taken.0.load(Ordering::Acquire);
                }
                tx.send(&words(n));
            }
            while !done.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
        });
    });
}

/// The same without any back-pressure; figures are of records published. Returns what was taken and lost.
fn stream_lossy(lap: &mut Lap, ends: &mut (RingWriter<Words>, OurRx)) -> (u64, u64) {
    let (tx, rx) = ends;
    let before = rx.reader.counts();
    let first = tx.next_seq();
    let consume = || {
        while rx.next < first + STREAM {
            if let Some(item) = rx.poll() {
                assert!(is_whole(&item, item[0] - first), "record {} is torn", item[0]);
            }
        }
    };
    both(consume, || {
        lap.begin();
        lap.time(STREAM, || (0..STREAM).for_each(|n| tx.send(&words(n))));
    });
    let after = rx.reader.counts();
    let (taken, lost) = (after.taken - before.taken, after.lost - before.lost);
    assert_eq!(taken + lost, STREAM, "what was taken and what was lost is what was published");
    (taken, lost)
}

/// Runs the group.
pub fn run(effort: Effort, report: &mut Report) -> Result<(), Box<dyn Error>> {
    if std::thread::available_parallelism()?.get() < 2 {
        eprintln!("ring: needs two processors, left out");
        return Ok(());
    }
    let dir = ShmDir::new("ring")?;
    hops(effort, report, &dir.0)?;
    streams(effort, report, &dir.0)
}

fn hops(effort: Effort, report: &mut Report, dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut ours = our_pair(dir)?;
    let mut ringfire = ringfire_pair(dir)?;
    let mut rtrb = Pair { there: rtrb::RingBuffer::new(SLOTS), back: rtrb::RingBuffer::new(SLOTS) };
    let mut disruptor = Pair { there: disruptor_one(), back: disruptor_one() };
    let mut crossbeam = Pair { there: crossbeam::bounded(SLOTS), back: crossbeam::bounded(SLOTS) };
    let lines = [Line(AtomicU64::new(0)), Line(AtomicU64::new(0))];
    let bare = [(); 2].map(|()| Bare(std::array::from_fn(|_| AtomicU64::new(0))));
    let mut bare = bare_pair(&bare);
    let mut floor = Contender::new(FLOOR, |lap| hop_floor(lap, &lines[0], &lines[1]));
    let peers = ["ringfire 0.5", "rtrb 0.4", "disruptor 4", "crossbeam-channel 0.5"];
    let mut contenders = [
        Contender::new(OURS, |lap| hop(lap, &mut ours)),
        Contender::new(peers[0], |lap| hop(lap, &mut ringfire)),
        Contender::new(peers[1], |lap| hop(lap, &mut rtrb)),
        Contender::new(peers[2], |lap| hop(lap, &mut disruptor)),
        Contender::new(peers[3], |lap| hop(lap, &mut crossbeam)),
        Contender::new(BARE, |lap| hop(lap, &mut bare)),
    ];
    let regimes = Some((NEAR_NS, ["cores near", "cores far"]));
    for found in compare(effort.rounds(150), &mut floor, &mut contenders, regimes) {
        let title = "one-way hop of a 128-byte record, half a round trip, median of a block";
        let mut table = Table::new("ring", title, &found);
        table.beside(&found, OURS, &[FLOOR], Some(Budget::Ratio(1.15)));
        table.beside(&found, OURS, &[BARE], None);
        table.beside(&found, OURS, &peers, None);
        table.beside(&found, BARE, &[FLOOR], None);
        peers.iter().for_each(|peer| table.beside(&found, peer, &[FLOOR], None));
        table.singles(&found);
        report.add(table);
    }
    Ok(())
}

fn streams(effort: Effort, report: &mut Report, dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut ours = our_pair(dir)?;
    let mut ringfire = ringfire_pair(dir)?.there;
    let mut rtrb = rtrb::RingBuffer::new(SLOTS);
    let mut disruptor = disruptor_one();
    let mut crossbeam = crossbeam::bounded(SLOTS);
    let (mut taken, mut lost) = (0, 0);
    let floor_name = "one thread: write, copy, check";
    let mut floor = Contender::new(floor_name, |lap| {
        let mut slots = vec![[0u64; 16]; SLOTS];
        lap.time(STREAM, || {
            for n in 0..STREAM {
                slots[n as usize % SLOTS] = std::hint::black_box(words(n));
                let copy = std::hint::black_box(&slots)[n as usize % SLOTS];
                assert!(is_whole(&copy, n), "a plain copy is whole");
            }
        });
    });
    let peers = ["ringfire 0.5", "rtrb 0.4", "disruptor 4", "crossbeam-channel 0.5"];
    let lossy = "tandem ring, lossy, published";
    let mut contenders = [
        Contender::new(OURS, |lap| stream(lap, &mut ours.there, true)),
        Contender::new(peers[0], |lap| stream(lap, &mut ringfire, true)),
        Contender::new(peers[1], |lap| stream(lap, &mut rtrb, false)),
        Contender::new(peers[2], |lap| stream(lap, &mut disruptor, false)),
        Contender::new(peers[3], |lap| stream(lap, &mut crossbeam, false)),
        Contender::new(lossy, |lap| {
            let (got, missed) = stream_lossy(lap, &mut ours.back);
            (taken, lost) = (taken + got, lost + missed);
        }),
    ];
    let found = compare(effort.rounds(40), &mut floor, &mut contenders, None);
    drop(contenders);
    for found in found {
        let title = "stream of 128-byte records, every word checked, ns a record";
        let mut table = Table::new("ring", title, &found);
        table.beside(&found, OURS, &peers, None);
        table.beside(&found, OURS, &[floor_name], None);
        table.beside(&found, lossy, &[floor_name], None);
        table.note(format!(
            "lossy: {taken} taken + {lost} lost = {} published ({:.1} % lost)",
            taken + lost,
            100.0 * lost as f64 / (taken + lost) as f64
        ));
        report.add(table);
    }
    Ok(())
}
