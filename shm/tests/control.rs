//! Two processes at the control page: one sends, one kills, a million times.
//!
//! The child is this binary's own ignored test; see `common::spawn_child`.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]

mod common;

use std::time::{Duration, Instant};

use common::{Record, SCHEMA, TestDir, child_role, spawn_child};
use tandem_shm::{Clock, ControlPage, RingReader, RingSpec, RingWriter, tsc};

const START: Duration = Duration::from_secs(20);
const KILLED: u64 = 1;

/// Epoch above, killed below: this test's own meaning of the word.
fn next(word: u64, killed: u64) -> u64 {
    ((word >> 1) + 1) << 1 | killed
}

/// Sends as long as it may: looks at the word, sends, echoes the epoch that it has acted on.
#[test]
#[ignore = "a child process"]
fn child_sender() {
    let Some((dir, _)) = child_role() else { return };
    let page = ControlPage::open(&dir, START).unwrap();
    let actor = page.claim(1, 1, 1).unwrap();
    let mut socket = RingWriter::create(&dir, &RingSpec::new("socket", 64, SCHEMA)).unwrap();
    let mut sent = 0;
    while !dir.join("stop").exists() {
        for _ in 0..100_000 {
            let word = page.level();
            if word & KILLED == 0 {
                sent += 1;
                socket.publish(&Record::of(sent));
            }
            actor.echo((word >> 1) as u32);
            if word & KILLED != 0 {
                std::thread::yield_now();
            }
        }
    }
}

/// Row OP-01.
#[test]
fn after_the_echo_of_a_kill_nothing_is_sent() {
    let races: u32 = match std::env::var("TANDEM_RACES") {
        Ok(races) => races.parse().unwrap(),
        Err(_) => 50_000,
    };
    let dir = TestDir::new("race");
    let page = ControlPage::create_or_open(&dir, KILLED).unwrap();
    let mut child = spawn_child("child_sender", &dir, "");
    let socket = RingReader::<Record>::open(&dir, "socket", SCHEMA, START).unwrap();
    let clock = Clock::calibrate();
    let (mut after, mut latch_ns) = (0u64, Vec::with_capacity(races as usize));
    let until = Instant::now() + Duration::from_secs(300);
    for race in 0..races {
        let before = socket.newest();
        page.update(|word| Some(next(word, 0))).unwrap();
        // Each race cuts at another moment: none, some, or many sends after it was armed.
        while socket.newest() < before + u64::from(race % 4) {
            std::hint::spin_loop();
        }
        let killed = page.update(|word| Some(next(word, KILLED))).unwrap();
        let latched = tsc();
        let mut turns = 0u32;
        while page.row(1).echo != (killed >> 1) as u32 {
            turns += 1;
            if turns.is_multiple_of(1_000) {
                assert!(Instant::now() < until, "the sender does not answer");
                std::thread::yield_now();
            }
        }
        latch_ns.push(clock.ticks_to_ns(tsc() - latched));
        let at_echo = socket.newest();
        for _ in 0..race % 64 {
            std::hint::spin_loop();
        }
        after += socket.newest() - at_echo;
    }
    std::fs::write(dir.join("stop"), "").unwrap();
    child.wait().unwrap();
    latch_ns.sort_unstable();
    let at = |share: usize| latch_ns[(latch_ns.len() - 1) * share / 1_000];
    println!(
        "figure OP-01: {after} sends after the echo of {races} kills in two processes; latch to echo \
         p50 {} ns, p99 {} ns, p99.9 {} ns",
        at(500),
        at(990),
        at(999)
    );
    assert_eq!(after, 0);
}
