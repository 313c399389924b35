//! The clock page against the kernel's clocks, in one process and two.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{TestDir, child_role, spawn_child};
use tandem_shm::{Clock, ClockReader, ClockWriter, Producer, tsc};

const START: Duration = Duration::from_secs(20);

fn wall_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn mono_raw_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours to be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Returns how far a conversion is off, in the best of many tries: preemption only adds.
fn best_error(clock: impl Fn() -> i64, convert: impl Fn(u64) -> i64) -> i64 {
    (0..2_000)
        .map(|_| {
            let before = tsc();
            let truth = clock();
            let after = tsc();
            let (early, late) = (convert(before), convert(after));
            // Inside the pair there is no error to see.
            (early - truth).max(truth - late).max(0)
        })
        .min()
        .unwrap()
}

#[test]
fn a_private_calibration_is_right_to_a_microsecond() {
    let clock = Clock::calibrate();
    assert!(best_error(wall_ns, |tsc| clock.now_ns(tsc)) < 1_000 + clock.error_ns() as i64);
    assert!(best_error(mono_raw_ns, |tsc| clock.mono_ns(tsc)) < 1_000 + clock.error_ns() as i64);
    let (start, ticks) = (Instant::now(), tsc());
    std::thread::sleep(Duration::from_millis(50));
    let (elapsed, ticks) = (start.elapsed(), tsc() - ticks);
    let found = clock.ticks_to_ns(ticks) as i64;
    assert!((found - elapsed.as_nanos() as i64).abs() < 1_000_000, "{found} for {elapsed:?}");
    let per_ms = clock.ticks_to_ns(clock.ticks_per_ms());
    assert!((999_998..=1_000_000).contains(&per_ms), "{per_ms}");
}

#[test]
fn the_page_stays_with_the_kernel_and_never_goes_back() {
    let dir = TestDir::new("clock");
    let mut writer = ClockWriter::create(&dir, "clock").unwrap();
    let mut reader = ClockReader::open(&dir, "clock", Duration::ZERO).unwrap();
    assert!(!reader.refresh(), "nothing newer than what it opened with");
    let (mut last_wall, mut last_mono) = (i64::MIN, i64::MIN);
    for update in 1..=40_u64 {
        std::thread::sleep(Duration::from_millis(5));
        let clock = writer.update();
        assert_eq!(clock.epoch(), update + 1);
        // Not at each: a reader may sleep over updates.
        if update % 3 == 0 {
            assert!(reader.refresh());
            assert_eq!(reader.clock().epoch(), update + 1);
        }
        for _ in 0..2_000 {
            let now = tsc();
            let (wall, mono) = (reader.now_ns(now), reader.mono_ns(now));
            assert!(wall >= last_wall && mono >= last_mono, "time went back");
            (last_wall, last_mono) = (wall, mono);
        }
    }
    reader.refresh();
    assert_eq!(reader.clock().back_steps(), 0);
    let allowed = 5_000 + reader.clock().error_ns() as i64;
    let (wall, mono) = (
        best_error(wall_ns, |tsc| reader.now_ns(tsc)),
        best_error(mono_raw_ns, |tsc| reader.mono_ns(tsc)),
    );
    println!("wall off by {wall} ns, raw by {mono} ns, bound {} ns", reader.clock().error_ns());
    assert!(wall < allowed && mono < allowed, "{wall} {mono}");
    assert!(reader.producer(tsc()).is_live());
    writer.close();
    assert_eq!(reader.producer(tsc()), Producer::Closed);
}

/// Updates the page every 2 ms until it is killed.
#[test]
#[ignore = "a child process"]
fn child_clock() {
    let Some((dir, _)) = child_role() else { return };
    let mut writer = ClockWriter::create(&dir, "clock").unwrap();
    loop {
        writer.update();
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn another_process_converts_alike_and_a_restart_does_not_turn_time_back() {
    let dir = TestDir::new("process");
    let mut child = spawn_child("child_clock", &dir, "");
    let mut one = ClockReader::open(&dir, "clock", START).unwrap();
    let mut two = ClockReader::open(&dir, "clock", START).unwrap();
    let mut last = i64::MIN;
    let mut refreshed = 0;
    for round in 0..300 {
        refreshed += u32::from(one.refresh());
        two.refresh();
        let now = tsc();
        let (a, b) = (one.now_ns(now), two.now_ns(now));
        assert!((a - b).abs() < 20_000, "{a} and {b} for one tick");
        assert!(a >= last);
        last = a;
        if round == 150 {
            child.kill().unwrap();
            child.wait().unwrap();
            child = spawn_child("child_clock", &dir, "");
            let deadline = Instant::now() + START;
            while !one.reattach().unwrap() {
                assert!(Instant::now() < deadline);
                // A page nobody updates still converts.
                let now = one.now_ns(tsc());
                assert!(now >= last);
                last = now;
                std::thread::sleep(Duration::from_millis(1));
            }
            two.reattach().unwrap();
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(refreshed > 5, "{refreshed}");
}
