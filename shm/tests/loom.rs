//! The slot protocol under every ordering the C++ memory model allows, with loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tandem-shm --test loom --release`
//!
//! The protocol is the crate's own code on loom's atomics. The three shortcuts that are wrong, and that
//! we have seen in the field, stay here as tests that must fail: they prove that the model bites.
//! Loom cannot show stores executed early, so passing here is necessary and not sufficient.
#![allow(clippy::unwrap_used, reason = "tests; the lint only knows those with an attribute")]
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use tandem_shm::bell;
use tandem_shm::control;
use tandem_shm::slot::{self, SlotRead, initial_word};

/// Sequence and two words: enough for a mixture.
const WORDS: usize = 3;
type Slot = [AtomicU64; WORDS];
type Publish = fn(&Slot, u64, &[u64; WORDS]);
type Take = fn(&Slot, u64) -> SlotRead<WORDS>;

fn record(seq: u64) -> [u64; WORDS] {
    [seq, seq.wrapping_mul(3), seq.wrapping_mul(5)]
}

/// One writer publishes `count` records to a ring of `SLOTS`; each reader polls `polls` times, from the
/// start. Whatever they take must be whole, and they must be told the truth about the rest.
///
/// `preemptions` bounds how often a thread is interrupted; `None` is every interleaving there is.
fn model<const SLOTS: usize>(
    publish: Publish,
    take: Take,
    count: u64,
    readers: usize,
    polls: usize,
    preemptions: Option<usize>,
) {
    const INITIAL: u64 = u64::MAX; // The wrap is between the first record and the second.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let mask = SLOTS as u64 - 1;
        let ring: Arc<[Slot; SLOTS]> = Arc::new(std::array::from_fn(|index| {
            let word = initial_word(index as u64, INITIAL, mask);
            [AtomicU64::new(word), AtomicU64::new(0), AtomicU64::new(0)]
        }));
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    let mut cursor = INITIAL;
                    for _ in 0..polls {
                        match take(&ring[(cursor & mask) as usize], cursor) {
                            SlotRead::Item(words) => {
                                assert_eq!(words, record(cursor), "torn");
                                cursor = cursor.wrapping_add(1);
                            }
                            SlotRead::NotYet => thread::yield_now(),
                            SlotRead::Behind(found) | SlotRead::Changed(found) => {
                                assert!(slot::distance(found, cursor) > 0, "overrun goes forward");
                                cursor = found;
                            }
                        }
                    }
                })
            })
            .collect();
        for at in 0..count {
            let seq = INITIAL.wrapping_add(at);
            publish(&ring[(seq & mask) as usize], seq, &record(seq));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_reader_takes_whole_records() {
    model::<2>(slot::publish, slot::read, 3, 1, 1, None);
}

#[test]
fn a_reader_follows_over_a_lap() {
    model::<2>(slot::publish, slot::read, 4, 1, 3, Some(2));
}

#[test]
fn two_readers_take_whole_records() {
    model::<2>(slot::publish, slot::read, 3, 2, 1, Some(2));
}

/// The mark as a Release store, without a fence: what is stored after it may be seen before it.
fn publish_without_fence(slot: &Slot, seq: u64, words: &[u64; WORDS]) {
    slot[0].store(seq.wrapping_sub(1), Ordering::Release);
    for at in 1..WORDS {
        slot[at].store(words[at], Ordering::Relaxed);
    }
    slot[0].store(seq, Ordering::Release);
}

#[test]
#[should_panic(expected = "torn")]
fn a_release_store_is_no_busy_mark() {
    model::<2>(publish_without_fence, slot::read, 3, 1, 1, None);
}

/// No mark at all: a reader one lap behind finds the old sequence before and after.
fn publish_without_mark(slot: &Slot, seq: u64, words: &[u64; WORDS]) {
    for at in 1..WORDS {
        slot[at].store(words[at], Ordering::Relaxed);
    }
    slot[0].store(seq, Ordering::Release);
}

#[test]
#[should_panic(expected = "torn")]
fn a_slot_needs_a_busy_mark() {
    model::<2>(publish_without_mark, slot::read, 3, 1, 1, None);
}

/// The re-check as an Acquire load, without a fence: the words may be read after it.
fn read_without_fence(slot: &Slot, seq: u64) -> SlotRead<WORDS> {
    let found = slot[0].load(Ordering::Acquire);
    if found != seq {
        return if slot::distance(found, seq) < 0 {
            SlotRead::NotYet
        } else {
            SlotRead::Behind(found)
        };
    }
    let mut words = [seq; WORDS];
    for at in 1..WORDS {
        words[at] = slot[at].load(Ordering::Relaxed);
    }
    let now = slot[0].load(Ordering::Acquire);
    if now == seq { SlotRead::Item(words) } else { SlotRead::Changed(now) }
}

#[test]
#[should_panic(expected = "torn")]
fn an_acquire_load_is_no_recheck() {
    model::<2>(slot::publish, read_without_fence, 3, 1, 1, None);
}

/// A record beside a flag: a journal frame, committed by its sequence, and never written again.
#[test]
fn a_committed_frame_is_whole() {
    loom::model(|| {
        let frame: Arc<Slot> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let writer = {
            let frame = Arc::clone(&frame);
            thread::spawn(move || {
                for at in 1..WORDS {
                    frame[at].store(record(7)[at], Ordering::Relaxed);
                }
                frame[0].store(7, Ordering::Release);
            })
        };
        if frame[0].load(Ordering::Acquire) == 7 {
            for at in 1..WORDS {
                assert_eq!(frame[at].load(Ordering::Relaxed), record(7)[at]);
            }
        }
        writer.join().unwrap();
    });
}

/// A seqlocked entry, as in `latest`: the same fences around an even and odd version.
#[test]
fn an_entry_is_whole() {
    loom::model(|| {
        let entry: Arc<Slot> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let reader = {
            let entry = Arc::clone(&entry);
            thread::spawn(move || {
                let before = entry[0].load(Ordering::Acquire);
                if before == 0 || before % 2 == 1 {
                    return;
                }
                let words = [entry[1].load(Ordering::Relaxed), entry[2].load(Ordering::Relaxed)];
                fence(Ordering::Acquire);
                if entry[0].load(Ordering::Relaxed) == before {
                    assert_eq!(words[0], words[1], "torn");
                }
            })
        };
        for version in [0, 2] {
            entry[0].store(version + 1, Ordering::Relaxed);
            fence(Ordering::Release);
            entry[1].store(version, Ordering::Relaxed);
            entry[2].store(version, Ordering::Relaxed);
            entry[0].store(version + 2, Ordering::Release);
        }
        reader.join().unwrap();
    });
}

/// What a sender shares: the level word (epoch above, killed below), what it sent, what it has echoed.
#[derive(Default)]
struct Sender {
    word: AtomicU64,
    sent: AtomicU64,
    echo: AtomicU64,
}

impl Sender {
    fn send_if_allowed(&self, word: u64) {
        if word & 1 == 0 {
            self.sent.store(self.sent.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    fn echo(&self, word: u64) {
        self.echo.store(word >> 1, Ordering::Release);
    }
}

/// The race of a kill with a sender: whatever the sender sends, it sends before it echoes the kill.
fn kill_against_send(turn: fn(&Sender)) {
    loom::model(move || {
        let shared = Arc::new(Sender::default());
        let sender = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..2 {
                    turn(&shared);
                }
            })
        };
        control::update(&shared.word, |now| Some(now + 3)).unwrap();
        if shared.echo.load(Ordering::Acquire) == 1 {
            let at_echo = shared.sent.load(Ordering::Relaxed);
            sender.join().unwrap();
            let at_end = shared.sent.load(Ordering::Relaxed);
            assert_eq!(at_end, at_echo, "sent after the echo of the kill");
        } else {
            sender.join().unwrap();
        }
    });
}

/// Row OP-01.
#[test]
fn nothing_is_sent_after_the_echo_of_a_kill() {
    kill_against_send(|sender| {
        let word = control::level(&sender.word);
        sender.send_if_allowed(word);
        sender.echo(word);
    });
}

#[test]
#[should_panic(expected = "after the echo")]
fn a_level_read_before_the_echo_and_used_after_it_is_too_old() {
    kill_against_send(|sender| {
        let word = control::level(&sender.word);
        sender.echo(control::level(&sender.word));
        sender.send_if_allowed(word);
    });
}

#[test]
#[should_panic(expected = "after the echo")]
fn an_echo_without_order_says_too_much() {
    kill_against_send(|sender| {
        let word = control::level(&sender.word);
        sender.send_if_allowed(word);
        // Relaxed: the kill may be seen echoed before the send is seen.
        sender.echo.store(control::level(&sender.word) >> 1, Ordering::Relaxed);
    });
}

/// Two raisers at once: neither raise is lost.
#[test]
fn no_raise_is_lost() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let raise = |bit: u64| {
            let word = Arc::clone(&word);
            thread::spawn(move || control::update(&*word, |now| Some(now | bit)).unwrap())
        };
        let (one, two) = (raise(1), raise(2));
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(control::level(&*word), 3);
    });
}

/// A sleeper and a producer: where the sleeper finds nothing and sleeps, the producer has rung.
fn sleep_against_publish(lie_down: fn(&AtomicU64), is_asleep: fn(&AtomicU64) -> bool) {
    loom::model(move || {
        let (mark, ring) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let producer = {
            let (mark, ring) = (Arc::clone(&mark), Arc::clone(&ring));
            thread::spawn(move || {
                ring.store(1, Ordering::Release);
                is_asleep(&mark)
            })
        };
        lie_down(&mark);
        let sleeps = ring.load(Ordering::Acquire) == 0;
        let rang = producer.join().unwrap();
        assert!(!sleeps || rang, "it sleeps and nobody wakes it");
    });
}

#[test]
fn who_sleeps_is_woken() {
    sleep_against_publish(bell::lie_down, bell::is_asleep);
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn a_producer_that_does_not_fence_wakes_nobody() {
    sleep_against_publish(bell::lie_down, |mark| mark.load(Ordering::Relaxed) == 1);
}

#[test]
#[should_panic(expected = "nobody wakes it")]
fn a_sleeper_that_does_not_fence_is_not_seen() {
    sleep_against_publish(|mark| mark.store(1, Ordering::Relaxed), bell::is_asleep);
}
