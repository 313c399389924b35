//! Whole machines against small venues with faults: what a book says is true, or it does not say it.

mod support;

use proptest::prelude::*;
use support::binance::FakeBinance;
use support::coinbase::FakeCoinbase;
use support::kraken::FakeKraken;
use support::{Faults, MS, SECOND, START, World, instrument};
use tandem_core::record::{BookState, Kind, Reason, TradingStatus, Venue, flag};
use tandem_feeds::binance::Binance;
use tandem_feeds::coinbase::Coinbase;
use tandem_feeds::kraken::Kraken;
use tandem_feeds::machine::{CloseCause, Options};

const WINDOW: usize = 20;

fn options(venue: Venue, change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options { window: WINDOW, capacity: 512, ..Options::for_venue(venue) };
    options.audit = false;
    change(&mut options);
    options
}

fn binance(seed: u64, change: impl FnOnce(&mut Options)) -> World<FakeBinance> {
    let names = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
    let list = |(id, name)| instrument(Venue::Binance, id, name, (2, 5));
    let instruments = (3..).zip(names).map(list).collect();
    let options = options(Venue::Binance, change);
    let machine = Binance::new(instruments, options, START);
    World::new(Box::new(machine), FakeBinance::new(&names, (2, 5), seed), WINDOW, seed)
}

fn coinbase(seed: u64, change: impl FnOnce(&mut Options)) -> World<FakeCoinbase> {
    let names = ["BTC-USD", "ETH-USD", "SOL-USD"];
    let list = |(id, name)| instrument(Venue::Coinbase, id, name, (2, 8));
    let instruments = (0..).zip(names).map(list).collect();
    let options = options(Venue::Coinbase, |options| {
        options.per_conn = 2;
        change(options);
    });
    let machine = Coinbase::new(instruments, options, START);
    World::new(Box::new(machine), FakeCoinbase::new(&names, (2, 8), seed), WINDOW, seed)
}

fn kraken(seed: u64, change: impl FnOnce(&mut Options)) -> World<FakeKraken> {
    let names = ["BTC/USD", "ETH/USD", "DOGE/USD"];
    let list = |(id, name)| instrument(Venue::Kraken, id, name, (1, 8));
    let instruments = (0..).zip(names).map(list).collect();
    let options = options(Venue::Kraken, change);
    let machine = Kraken::new(instruments, options, START);
    World::new(Box::new(machine), FakeKraken::new(&names, (1, 8), seed), WINDOW, seed)
}

fn said<F: support::Fake>(world: &World<F>, state: BookState, reason: Reason) -> usize {
    let wanted = [state as i64, reason as i64];
    let is = |r: &&tandem_core::record::Record| {
        r.kind() == Some(Kind::BookState) && r.data[..2] == wanted
    };
    world.records.iter().filter(is).count()
}

macro_rules! healthy {
    ($world:expr) => {{
        let mut world = $world;
        world.run(20 * SECOND);
        assert!(world.all_live(), "{:?}", world.machine.stats());
        let stats = *world.machine.stats();
        assert_eq!(
            (stats.gaps, stats.crossed, stats.malformed, stats.resyncs),
            (0, 0, 0, 0),
            "{stats:?}"
        );
        assert!(100 < stats.applied && 100 < stats.batches, "{stats:?}");
        assert!(world.live_ns.iter().all(|ns| 18 * SECOND < *ns), "{:?}", world.live_ns);
        world
    }};
}

#[test]
fn healthy_venues_have_live_books() {
    healthy!(binance(1, |_| ()));
    healthy!(coinbase(1, |_| ()));
    let world = healthy!(kraken(1, |_| ()));
    assert!(100 < world.machine.stats().checksum_ok);
}

#[test]
fn audits_let_books_live_and_find_lies() {
    let mut world = binance(2, |options| {
        options.audit = true;
        options.audit_every_ns = 4 * SECOND;
    });
    world.keep_records = true;
    world.run(10 * SECOND);
    assert!(world.all_live());
    assert!(0 < said(&world, BookState::Syncing, Reason::Audit), "not live before the first audit");
    assert_eq!(world.machine.stats().audits_wrong, 0);
    world.fake.lie = true;
    world.run(12 * SECOND);
    assert!(0 < world.machine.stats().audits_wrong, "{:?}", world.machine.stats());
    assert!(0 < said(&world, BookState::Stale, Reason::Audit));

    let mut world = coinbase(2, |options| {
        options.audit = true;
        options.audit_every_ns = 4 * SECOND;
    });
    world.run(10 * SECOND);
    assert!(world.all_live(), "{:?}", world.machine.stats());
    // A REST book from before: the cache may be a second old, but no level of it stays as it is.
    world.fake.cached = Some(world.fake.products.iter().map(|p| p.market.sides.clone()).collect());
    world.run(900 * MS);
    world.fake.cached = None;
    world.run(8 * SECOND);
    assert_eq!(world.machine.stats().audits_wrong, 0, "{:?}", world.machine.stats());
    world.fake.lie = true;
    world.run(12 * SECOND);
    assert!(0 < world.machine.stats().audits_wrong, "{:?}", world.machine.stats());
}

/// MD-01, MD-02, MD-03, MD-06, MD-07, MD-08, MD-09: all faults at once for half a minute; then a quiet time
/// in which every book comes back. The world checks after every batch that no live book is wrong.
fn survives<F: support::Fake>(mut world: World<F>) -> World<F> {
    world.faults = Faults::ALL;
    world.run(25 * SECOND);
    world.faults = Faults::default();
    for conn in world.open_conns() {
        world.delay(conn, 0);
        world.mute(conn, 0);
    }
    world.run(45 * SECOND);
    assert!(
        world.all_live(),
        "{:?} {:?}",
        world.machine.stats(),
        (0..3).map(|s| world.machine.state(s)).collect::<Vec<_>>()
    );
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, ..ProptestConfig::default() })]

    #[test]
    fn binance_is_never_live_and_wrong(seed in any::<u64>(), age in 0..300u64) {
        let mut world = binance(seed, |options| options.seed = seed);
        world.fake.snapshot_age = age;
        world.fake.ticker_skip = 30_000;
        survives(world);
    }

    #[test]
    fn coinbase_is_never_live_and_wrong(seed in any::<u64>()) {
        survives(coinbase(seed, |options| options.seed = seed));
    }

    #[test]
    fn kraken_is_never_live_and_wrong(seed in any::<u64>()) {
        survives(kraken(seed, |options| options.seed = seed));
    }
}

/// Row MD-01.
#[test]
fn binance_gap_costs_one_symbol_and_is_said_first() {
    let mut world = binance(3, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    let symbol = &world.fake.symbols[0];
    let id = symbol.id + 50;
    let text = FakeBinance::diff(symbol, &[(0, 99_999, 5)], id, id, world.now);
    world.inject(conn, &text);
    let first = world.records[0];
    assert_eq!(first.kind(), Some(Kind::BookState));
    assert_eq!(first.data[..2], [BookState::Stale as i64, Reason::SequenceGap as i64]);
    assert!(first.has(flag::LAST) && first.instrument == 3);
    assert_eq!(world.machine.state(1).0, BookState::Live);
    assert_eq!(world.machine.state(2).0, BookState::Live);
    // The ids run past the injected one before the book can come back.
    world.run(5 * SECOND);
    assert!(world.all_live(), "{:?}", world.machine.stats());
    assert_eq!(said(&world, BookState::Stale, Reason::SequenceGap), 1);
}

/// Row MD-03.
#[test]
fn binance_trap_1_old_snapshots_are_fetched_again_with_backoff() {
    // 50 of weight each; at 250 the budget of a minute would end the test.
    let mut world = binance(4, |options| options.depth = 1_000);
    world.fake.snapshot_age = 2_000;
    world.run(40 * SECOND);
    let stats = *world.machine.stats();
    assert!(0 < stats.snapshots_old, "{stats:?}");
    assert!(stats.requests < 200, "{stats:?}");
    assert!(world.all_live(), "{stats:?}");
}

#[test]
fn binance_trap_2_events_before_the_acknowledgement_count() {
    let mut world = binance(5, |_| ());
    world.run(15 * MS);
    let conn = world.open_conns()[0];
    let symbol = &world.fake.symbols[0];
    let text = FakeBinance::diff(symbol, &[], symbol.id + 1, symbol.id + 1, world.now);
    world.inject(conn, &text);
    assert_eq!(world.machine.state(0).0, BookState::Syncing);
    world.run(100 * MS);
    assert!(world.asked[0].1.contains("symbol=BTCUSDT"), "{:?}", world.asked);
}

#[test]
fn binance_trap_3_levels_beyond_the_snapshot_are_not_shown() {
    // The snapshot holds 30 levels of 60; W is 20.
    let mut world = binance(6, |options| options.depth = 30);
    world.fake.partial = true;
    world.run(60 * SECOND);
    // The world's check compares every shown level with the truth. A book that wears takes another
    // snapshot and stays live; hardly ever it wears too fast for that.
    let stats = *world.machine.stats();
    assert!(0 < stats.refreshes && stats.resyncs <= stats.refreshes / 4, "{stats:?}");
    assert!(world.live_ns.iter().all(|ns| 55 * SECOND < *ns), "{:?} {stats:?}", world.live_ns);
}

/// Row MD-06.
#[test]
fn binance_trap_8_silence_with_an_open_socket() {
    let mut world = binance(7, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    world.mute(conn, 60 * SECOND);
    let before = world.connects.len();
    world.run(4 * SECOND);
    assert_eq!(said(&world, BookState::Stale, Reason::Silence), 3);
    assert!(!world.is_live(0));
    let beats = world.records.iter().filter(|r| r.kind() == Some(Kind::Beat)).count();
    assert!(beats <= 2, "a silent connection says nothing: {beats}");
    world.run(6 * SECOND);
    assert!(before < world.connects.len());
    assert!(world.all_live(), "{:?}", world.machine.stats());
}

#[test]
fn binance_a_quiet_market_is_proven_by_rest_and_not_reconnected() {
    let mut world = binance(8, |_| ());
    world.run(5 * SECOND);
    world.fake.quiet = true;
    let before = world.connects.len();
    world.run(20 * SECOND);
    assert_eq!(world.connects.len(), before, "{:?}", world.machine.stats());
    assert!(0 < world.machine.stats().silences);
    assert!(world.asked.iter().any(|(_, path)| path.ends_with("limit=5")));
}

#[test]
fn binance_trap_11_control_messages_stay_below_the_limit() {
    let names: Vec<String> = (0..400).map(|i| format!("SYM{i}USDT")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let list = |(id, name): (u16, &&str)| instrument(Venue::Binance, id, name, (2, 5));
    let instruments = (0..).zip(&names).map(list).collect();
    let options = options(Venue::Binance, |o| o.per_conn = 400);
    let machine = Binance::new(instruments, options, START);
    let mut world =
        World::new(Box::new(machine), FakeBinance::new(&names[..1], (2, 5), 1), WINDOW, 1);
    world.run(9 * SECOND);
    assert!(8 <= world.sent.len());
    for (time, ..) in &world.sent {
        let in_second =
            world.sent.iter().filter(|(t, ..)| (*time..time + SECOND).contains(t)).count();
        assert!(in_second <= 5, "{in_second} in one second");
    }
}

#[test]
fn binance_trap_13_mute_subscriptions_are_repeated() {
    let mut world = binance(9, |options| options.silence_ns_max = 60 * SECOND);
    world.fake.mute_streams = true;
    world.run(12 * SECOND);
    assert!(3 <= world.machine.stats().mute, "{:?}", world.machine.stats());
    assert_eq!(world.machine.state(0).0, BookState::Init);
    world.fake.mute_streams = false;
    world.run(15 * SECOND);
    assert!(world.all_live());
}

/// Row MD-08.
#[test]
fn binance_trap_14_every_close_is_survived() {
    for cause in [
        CloseCause::Closed { code: 1000 },
        CloseCause::Closed { code: 1008 },
        CloseCause::Reset,
        CloseCause::Protocol,
        CloseCause::Failed,
    ] {
        let mut world = binance(10, |_| ());
        world.run(5 * SECOND);
        world.keep_records = true;
        let conn = world.open_conns()[0];
        world.close(conn, cause);
        world.run(10 * MS);
        assert_eq!(said(&world, BookState::Stale, Reason::Disconnect), 3);
        world.run(5 * SECOND);
        assert!(world.all_live(), "{cause:?}");
    }
}

/// MD-08: the 24-hour end and `serverShutdown` cost no blind time.
/// Row MD-08.
#[test]
fn binance_trap_15_rotation_is_make_before_break() {
    let shutdown =
        r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1764000000000}}"#;
    for by_age in [true, false] {
        let mut world = binance(11, |options| {
            if by_age {
                options.rotate_after_ns = 10 * SECOND;
            }
        });
        world.run(5 * SECOND);
        assert!(world.all_live());
        world.keep_records = true;
        let live = world.live_ns.clone();
        let old = world.open_conns()[0];
        if !by_age {
            world.inject(old, shutdown);
        }
        world.run(12 * SECOND);
        assert!(1 <= world.machine.stats().rotations, "{:?}", world.machine.stats());
        assert!(!world.open_conns().contains(&old));
        let blind: Vec<i64> =
            world.live_ns.iter().zip(live).map(|(a, b)| 12 * SECOND - (a - b)).collect();
        assert_eq!(blind, [0, 0, 0], "planned blind time");
        assert!(world.records.iter().all(|record| record.kind() != Some(Kind::BookState)));
        assert!(0 < world.machine.stats().duplicates, "both connections were heard");
    }
}

#[test]
fn binance_an_unreadable_frame_doubts_all_until_the_next_diff_joins() {
    let mut world = binance(12, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    world.inject(conn, "{\"stream\":");
    assert_eq!(said(&world, BookState::Stale, Reason::Malformed), 3);
    let requests = world.asked.len();
    world.run(2 * SECOND);
    assert!(world.all_live());
    assert_eq!(world.asked.len(), requests, "no snapshot was needed");
}

/// Row MD-05.
#[test]
fn binance_a_crossed_book_is_doubted_and_built_anew() {
    let mut world = binance(13, |options| options.ticker = false);
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    let symbol = &world.fake.symbols[0];
    let id = world.machine.position(0).update_id;
    let text = FakeBinance::diff(symbol, &[(0, 101_000, 5)], id + 1, id + 1, world.now);
    world.inject(conn, &text);
    let of_first: Vec<_> = world.records.iter().filter(|record| record.instrument == 3).collect();
    assert_eq!(of_first.len(), 1, "nothing of the crossing message is said");
    assert_eq!(of_first[0].data[1], Reason::Crossed as i64);
    world.run(5 * SECOND);
    assert!(world.all_live());
}

/// Row MD-07.
#[test]
fn binance_lag_is_said_and_taken_back_or_ends_in_a_new_connection() {
    let mut world = binance(14, |_| ());
    world.run(20 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    world.delay(conn, 1_500 * MS);
    world.run(2_500 * MS);
    assert_eq!(said(&world, BookState::Stale, Reason::Lag), 3);
    world.run(20 * SECOND);
    assert!(world.all_live());
    assert!(!world.open_conns().contains(&conn), "a lag that stays is left behind");
}

#[test]
fn binance_tickers_that_disagree_for_long_are_a_doubt() {
    let mut world = binance(15, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    world.fake.quiet = true;
    world.run(SECOND);
    for _ in 0..6 {
        let id = world.machine.position(0).update_id;
        let ticker = format!(
            "{{\"u\":{},\"s\":\"BTCUSDT\",\"b\":\"990.00\",\"B\":\"7\",\"a\":\"1010.00\",\"A\":\"7\"}}",
            id + 1
        );
        let symbol = &world.fake.symbols[0];
        let levels = [(0, 99_100, 1 + id as i64), (1, 100_900, 1)];
        let diff = FakeBinance::diff(symbol, &levels, id + 1, id + 1, world.now);
        // The fake's own history does not know these ids.
        world.fake.lie = true;
        world.inject(conn, &ticker);
        world.inject(conn, &diff);
    }
    assert_eq!(said(&world, BookState::Stale, Reason::Audit), 1, "{:?}", world.machine.stats());
}

#[test]
fn websocket_down_means_rest_at_the_budgeted_rate_and_never_live() {
    fn check<F: support::Fake>(mut world: World<F>) {
        world.run(5 * SECOND);
        assert!(world.all_live());
        world.keep_records = true;
        world.faults.refuse = 1_000_000;
        for conn in world.open_conns() {
            world.close(conn, CloseCause::Reset);
        }
        let asked = world.asked.len();
        world.run(30 * SECOND);
        assert!((0..3).all(|slot| world.machine.state(slot).0 == BookState::Fallback));
        assert!(3 <= world.machine.stats().fallbacks);
        assert!(world.asked.len() - asked <= 20, "{}", world.asked.len() - asked);
        let fallback: Vec<_> = world.records.iter().filter(|r| r.has(flag::FALLBACK)).collect();
        assert!(!fallback.is_empty());
        let from = world.records.iter().position(|r| r.has(flag::FALLBACK)).unwrap();
        assert!(
            world.records[from..].iter().all(|r| {
                r.kind() != Some(Kind::BookState) || r.data[0] != BookState::Live as i64
            })
        );
        world.faults.refuse = 0;
        world.run(40 * SECOND);
        assert!(world.all_live());
    }
    check(binance(16, |_| ()));
    check(coinbase(16, |_| ()));
    check(kraken(16, |_| ()));
}

/// MD-10, MD-11: a status that flips and rules that change are said within one reading.
/// Row MD-10. Row MD-11.
#[test]
fn halts_and_rules_are_read_at_run_time() {
    let mut world = binance(18, |options| options.rules_every_ns = 5 * SECOND);
    world.run(6 * SECOND);
    assert!(world.all_live());
    world.keep_records = true;
    world.fake.status = "BREAK".into();
    world.run(6 * SECOND);
    assert_eq!(said(&world, BookState::Stale, Reason::Halted), 3);
    let change = world.records.iter().find(|r| r.kind() == Some(Kind::InstrumentChange)).unwrap();
    assert_eq!(change.data[..3], [TradingStatus::Halted as i64, 1, 1]);
    world.fake.status = "TRADING".into();
    world.run(6 * SECOND);
    assert!(world.all_live());

    let mut world = coinbase(18, |options| options.rules_every_ns = 5 * SECOND);
    world.run(6 * SECOND);
    world.fake.offline.insert("ETH-USD".into());
    world.run(6 * SECOND);
    assert_eq!(world.machine.state(1), (BookState::Stale, Reason::Halted));
    assert!(world.is_live(0) && world.is_live(2));
    world.fake.offline.clear();
    world.run(6 * SECOND);
    assert!(world.all_live());
}

#[test]
fn beats_say_that_a_connection_lives() {
    let mut world = binance(17, |_| ());
    world.keep_records = true;
    world.run(5 * SECOND);
    let beats: Vec<_> = world.records.iter().filter(|r| r.kind() == Some(Kind::Beat)).collect();
    assert!((60..=101).contains(&beats.len()), "{}", beats.len());
    assert!(
        beats.iter().all(|beat| beat.conn != 0 && START < beat.data[0] && beat.has(flag::LAST))
    );
    assert!(beats.windows(2).all(|pair| pair[0].data[1] < pair[1].data[1]));
}

/// Row MD-01.
#[test]
fn coinbase_trap_a_gap_doubts_every_book_of_the_connection_and_only_these() {
    let mut world = coinbase(20, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.machine.position(0).conn;
    assert_eq!(world.machine.position(1).conn, conn);
    assert_ne!(world.machine.position(2).conn, conn);
    let text = r#"{"channel":"heartbeats","timestamp":"2026-11-22T00:00:05Z","sequence_num":999999,"events":[]}"#;
    world.inject(conn, text);
    assert_eq!(said(&world, BookState::Stale, Reason::SequenceGap), 2);
    assert!(world.is_live(2));
    world.run(5 * SECOND);
    assert!(world.all_live());
    assert!(!world.open_conns().contains(&conn), "no product can be told, so the connection goes");
}

/// Row MD-02.
#[test]
fn coinbase_trap_repeated_and_old_frames_are_discarded() {
    let mut world = coinbase(21, |_| ());
    world.run(5 * SECOND);
    let conn = world.machine.position(0).conn;
    let text = r#"{"channel":"l2_data","timestamp":"2026-11-22T00:00:05Z","sequence_num":3,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","price_level":"999.99","new_quantity":"7"}]}]}"#;
    let records = world.machine.stats().records;
    world.inject(conn, text);
    assert_eq!((world.machine.stats().duplicates, world.machine.stats().records), (1, records));
    assert!(world.all_live());
}

#[test]
fn coinbase_trap_no_snapshot_in_5_s_is_subscribed_again() {
    let mut world = coinbase(22, |_| ());
    world.fake.no_snapshots = true;
    world.run(7 * SECOND);
    assert!(3 <= world.machine.stats().mute, "{:?}", world.machine.stats());
    assert!((0..3).all(|slot| world.machine.state(slot).0 != BookState::Live));
    world.fake.no_snapshots = false;
    world.run(15 * SECOND);
    assert!(world.all_live(), "{:?}", world.machine.stats());
}

#[test]
fn coinbase_trap_subscribes_at_once_and_stays_below_8_a_second() {
    let names: Vec<String> = (0..40).map(|i| format!("P{i}-USD")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let list = |(id, name): (u16, &&str)| instrument(Venue::Coinbase, id, name, (2, 8));
    let instruments = (0..).zip(&names).map(list).collect();
    let options = options(Venue::Coinbase, |o| o.per_conn = 2);
    let machine = Coinbase::new(instruments, options, START);
    let fake = FakeCoinbase::new(&names, (2, 8), 1);
    let mut world = World::new(Box::new(machine), fake, WINDOW, 1);
    world.run(20 * SECOND);
    assert!(world.all_live(), "{:?}", world.machine.stats());
    for (time, ..) in &world.sent {
        let in_second =
            world.sent.iter().filter(|(t, ..)| (*time..time + SECOND).contains(t)).count();
        assert!(in_second <= 8, "{in_second} messages in one second");
    }
    for time in &world.connects {
        let in_second =
            world.connects.iter().filter(|t| (*time..time + SECOND).contains(*t)).count();
        assert!(in_second <= 8, "{in_second} connects in one second");
    }
    // The first message of every connection within 5 s of its opening.
    for conn in world.open_conns() {
        let first = world.sent.iter().find(|(_, c, _)| *c == conn).expect("a subscription");
        let opened = world.connects[conn as usize - 1];
        assert!(first.0 - opened < 4 * SECOND, "{} ms", (first.0 - opened) / MS);
    }
}

#[test]
fn coinbase_trap_usdc_alias_is_one_book_and_two_instruments() {
    let mut usdc = instrument(Venue::Coinbase, 9, "BTC-USDC", (4, 8));
    usdc.feed_symbol = "BTC-USD".into();
    let instruments = vec![usdc, instrument(Venue::Coinbase, 5, "BTC-USD", (2, 8))];
    let machine = Coinbase::new(instruments, options(Venue::Coinbase, |_| ()), START);
    let fake = FakeCoinbase::new(&["BTC-USD"], (2, 8), 1);
    let mut world = World::new(Box::new(machine), fake, WINDOW, 1);
    // Only the books with the fake's own exponents can be compared with it.
    world.fake.lie = true;
    world.run(5 * SECOND);
    assert!(world.all_live());
    let (usd, usdc) = (&world.mirrors[0].book, &world.mirrors[1].book);
    assert_eq!(world.machine.instruments()[0].symbol, "BTC-USD");
    for side in tandem_core::units::Side::BOTH {
        let scaled: Vec<_> = usd.levels(side).map(|l| (l.px.0 * 100, l.qty.0)).collect();
        assert_eq!(scaled, usdc.levels(side).map(|l| (l.px.0, l.qty.0)).collect::<Vec<_>>());
    }
    let text = &world.sent[0].2;
    assert_eq!(text.matches("BTC-USD").count(), 1, "{text}");
}

#[test]
fn coinbase_trap_multi_megabyte_snapshots() {
    use tandem_feeds::machine::{Machine, Stamps};
    let instruments = vec![instrument(Venue::Coinbase, 0, "BTC-USD", (2, 8))];
    let wide = options(Venue::Coinbase, |o| o.capacity = 65_536);
    let mut machine = Coinbase::new(instruments, wide, START);
    let mut out: Vec<tandem_core::record::Record> = Vec::new();
    machine.on_open(1, START);
    let mut text = String::from(
        r#"{"channel":"l2_data","client_id":"","timestamp":"2026-11-22T00:00:00Z","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":["#,
    );
    for n in 0..100_000 {
        let (side, px) = if n % 2 == 0 { ("bid", 6_000_000 - n) } else { ("offer", 6_000_000 + n) };
        if 0 < n {
            text.push(',');
        }
        text += &format!(
            r#"{{"side":"{side}","event_time":"1970-01-01T00:00:00Z","price_level":"{}","new_quantity":"1.5"}}"#,
            support::plain(px, 2)
        );
    }
    text += "]}]}";
    assert!(8 << 20 < text.len());
    let mut bytes = text.into_bytes();
    machine.on_frame(1, &mut bytes, Stamps { recv_ns: START, ..Stamps::default() }, &mut out);
    assert_eq!(machine.state(0).0, BookState::Live);
    assert_eq!(machine.book(0).len(tandem_core::units::Side::Bid), 50_000);
    assert_eq!(out.len(), 2 + 2 * WINDOW);
    assert_eq!(out.last().unwrap().data[2], 50_000 - WINDOW as i64, "levels beyond the window");
}

#[test]
fn coinbase_trap_heartbeats_with_text_counters_keep_alive() {
    let mut world = coinbase(23, |_| ());
    world.fake.text_counters = true;
    world.run(5 * SECOND);
    assert!(world.all_live());
    assert_eq!(world.machine.stats().malformed, 0);
}

#[test]
fn coinbase_trap_a_clean_close_is_no_end() {
    let mut world = coinbase(24, |_| ());
    world.run(5 * SECOND);
    for conn in world.open_conns() {
        world.close(conn, CloseCause::Closed { code: 1000 });
    }
    world.run(5 * SECOND);
    assert!(world.all_live());
}

/// Row MD-05.
#[test]
fn coinbase_one_product_crossed_costs_that_product() {
    let mut world = coinbase(25, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.machine.position(0).conn;
    let next = world.machine.position(0).update_id.max(world.machine.position(1).update_id);
    // The next number of the connection: heartbeats count too, so look for it.
    let mut number = next + 1;
    while world.machine.stats().crossed == 0 && number < next + 5 {
        let text = format!(
            r#"{{"channel":"l2_data","timestamp":"2026-11-22T00:00:05Z","sequence_num":{number},"events":[{{"type":"update","product_id":"ETH-USD","updates":[{{"side":"bid","price_level":"1.00","new_quantity":"3"}}]}},{{"type":"update","product_id":"BTC-USD","updates":[{{"side":"bid","price_level":"2000.00","new_quantity":"7"}}]}}]}}"#
        );
        world.fake.lie = true;
        world.inject(conn, &text);
        number += 1;
    }
    assert_eq!(world.machine.stats().crossed, 1, "{:?}", world.machine.stats());
    let of_btc: Vec<_> = world.records.iter().filter(|r| r.instrument == 0).collect();
    assert_eq!(of_btc.len(), 1);
    assert_eq!(of_btc[0].data[..2], [BookState::Stale as i64, Reason::Crossed as i64]);
    assert!(world.is_live(1) && world.is_live(2));
}

/// Row MD-04.
#[test]
fn kraken_trap_one_bad_checksum_costs_one_symbol() {
    let mut world = kraken(30, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    let text = world.fake.pairs[0].message("update", [&[(99_000, 5)], &[]], 12_345, world.now);
    world.inject(conn, &text);
    let of_first: Vec<_> = world.records.iter().filter(|r| r.instrument == 0).collect();
    assert_eq!(of_first.len(), 1, "nothing of the wrong message is said");
    assert_eq!(of_first[0].data[..2], [BookState::Stale as i64, Reason::Checksum as i64]);
    assert!(world.is_live(1) && world.is_live(2));
    let sent = world.sent.len();
    world.run(3 * SECOND);
    assert!(world.all_live());
    let texts: Vec<_> = world.sent[sent..].iter().map(|(.., text)| text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[0].contains("unsubscribe")
            && texts[0].contains("BTC/USD")
            && !texts[0].contains("ETH")
    );
    assert!(texts[1].contains("\"subscribe\"") && texts[1].contains("\"depth\":10"));
}

#[test]
fn kraken_trap_no_truncation_drift() {
    // Thousands of updates in which levels are pushed beyond the depth without a word: without the cut
    // the checksums would drift.
    let mut world = kraken(31, |_| ());
    world.run(60 * SECOND);
    let stats = world.machine.stats();
    assert!(1_000 < stats.checksum_ok && stats.checksum_bad == 0, "{stats:?}");
    assert!((0..3).all(|slot| world.mirrors[slot].book.len(tandem_core::units::Side::Bid) <= 10));
}

#[test]
fn kraken_trap_thin_books() {
    use support::kraken::checksum;
    use tandem_feeds::machine::{Machine, Stamps};
    let instruments = vec![instrument(Venue::Kraken, 0, "LUNA/USD", (1, 8))];
    let mut machine = Kraken::new(instruments, options(Venue::Kraken, |_| ()), START);
    let mut out: Vec<tandem_core::record::Record> = Vec::new();
    machine.on_open(1, START);
    let fake = FakeKraken::new(&["LUNA/USD"], (1, 8), 1);
    let mut say = |sides: [Vec<(i64, i64)>; 2], levels: [&[(i64, i64)]; 2], kind: &str| {
        let sum = checksum(&sides, (1, 8));
        let text = fake.pairs[0].message(kind, levels, sum, START);
        let at = Stamps { recv_ns: START, ..Stamps::default() };
        machine.on_frame(1, &mut text.into_bytes(), at, &mut out);
        assert_eq!(machine.state(0).0, BookState::Live);
    };
    say([vec![(10, 1)], vec![(12, 1), (13, 2)]], [&[(10, 1)], &[(12, 1), (13, 2)]], "snapshot");
    say([vec![], vec![(13, 2)]], [&[(10, 0)], &[(12, 0)]], "update");
    say([vec![], vec![]], [&[], &[(13, 0)]], "update");
}

#[test]
fn kraken_trap_same_level_twice_and_unknown_deletes_and_a_cross_inside_one_message() {
    use support::kraken::checksum;
    use tandem_feeds::machine::{Machine, Stamps};
    let instruments = vec![instrument(Venue::Kraken, 0, "BTC/USD", (1, 8))];
    let mut machine = Kraken::new(instruments, options(Venue::Kraken, |_| ()), START);
    let mut out: Vec<tandem_core::record::Record> = Vec::new();
    machine.on_open(1, START);
    let fake = FakeKraken::new(&["BTC/USD"], (1, 8), 1);
    let mut say = |sides: [Vec<(i64, i64)>; 2], levels: [&[(i64, i64)]; 2], kind: &str| {
        let text = fake.pairs[0].message(kind, levels, checksum(&sides, (1, 8)), START);
        let at = Stamps { recv_ns: START, ..Stamps::default() };
        machine.on_frame(1, &mut text.into_bytes(), at, &mut out);
        machine.state(0)
    };
    let live = (BookState::Live, Reason::None);
    assert_eq!(say([vec![(10, 1)], vec![(12, 1)]], [&[(10, 1)], &[(12, 1)]], "snapshot"), live);
    assert_eq!(
        say([vec![(10, 3)], vec![(12, 1)]], [&[(10, 2), (10, 3), (5, 0)], &[]], "update"),
        live
    );
    // The bid at 13 crosses the ask at 12 until the asks of the same message are applied.
    assert_eq!(
        say([vec![(13, 1), (10, 3)], vec![(14, 1)]], [&[(13, 1)], &[(12, 0), (14, 1)]], "update"),
        live
    );
    // Crossed after the whole message, with a right checksum: no book to trade on.
    let crossed =
        say([vec![(15, 1), (13, 1), (10, 3)], vec![(14, 1)]], [&[(15, 1)], &[]], "update");
    assert_eq!(crossed, (BookState::Stale, Reason::Crossed));
}

#[test]
fn kraken_trap_status_and_pair_status_halt() {
    let mut world = kraken(32, |_| ());
    world.run(5 * SECOND);
    world.keep_records = true;
    let conn = world.open_conns()[0];
    world.fake.status = "maintenance".into();
    let text = world.fake.status_message();
    world.inject(conn, &text);
    assert_eq!(said(&world, BookState::Stale, Reason::Halted), 3);
    let status = world.records.iter().find(|r| r.kind() == Some(Kind::Status)).unwrap();
    assert_eq!(status.data[0], TradingStatus::Halted as i64);
    world.run(SECOND);
    assert!(!world.is_live(0));
    world.fake.status = "online".into();
    let text = world.fake.status_message();
    world.inject(conn, &text);
    assert!(world.all_live(), "checksums went on matching meanwhile");
    let text = world.fake.instrument("cancel_only");
    world.inject(conn, &text);
    assert_eq!(world.machine.state(1), (BookState::Stale, Reason::Halted));
    let change = world.records.iter().rfind(|r| r.kind() == Some(Kind::InstrumentChange)).unwrap();
    assert_eq!(change.data, [TradingStatus::CancelOnly as i64, 1, 1, 50_000_000]);
    let text = world.fake.instrument("online");
    world.inject(conn, &text);
    assert!(world.all_live());
}

#[test]
fn kraken_trap_a_finer_tick_than_ours_halts_the_pair() {
    let mut world = kraken(33, |_| ());
    world.run(5 * SECOND);
    let conn = world.open_conns()[0];
    let text = world
        .fake
        .instrument("online")
        .replace("\"price_increment\":0.1", "\"price_increment\":0.01");
    world.inject(conn, &text);
    assert_eq!(world.machine.state(0), (BookState::Stale, Reason::Halted));
}

#[test]
fn kraken_trap_refused_symbols_and_floods_do_not_storm() {
    let mut world = kraken(34, |_| ());
    world.fake.refused.insert("ETH/USD".into());
    world.run(25 * SECOND);
    assert!(world.is_live(0) && world.is_live(2) && !world.is_live(1));
    assert!(world.sent.len() <= 5, "{:?}", world.sent);
    let conn = world.open_conns()[0];
    world.inject(conn, r#"{"Error":"Exceeded msg rate"}"#);
    assert!(world.is_live(0));
    assert_eq!(world.machine.stats().refused, 2);
}

#[test]
fn kraken_trap_a_stall_with_pongs_is_still_a_stall() {
    let mut world = kraken(35, |_| ());
    world.run(5 * SECOND);
    world.fake.stall = true;
    world.keep_records = true;
    let before = world.connects.len();
    world.run(6 * SECOND);
    assert_eq!(said(&world, BookState::Stale, Reason::Silence), 3);
    world.run(2 * SECOND);
    assert!(before < world.connects.len(), "the pong came, the stream did not");
    world.fake.stall = false;
    world.run(10 * SECOND);
    assert!(world.all_live());
}

#[test]
fn kraken_trap_heartbeats_alone_keep_a_quiet_market_live() {
    let mut world = kraken(36, |_| ());
    world.run(5 * SECOND);
    world.fake.stall = true;
    let conn = world.open_conns()[0];
    for _ in 0..20 {
        world.run(SECOND);
        world.inject(conn, r#"{"channel":"heartbeat"}"#);
    }
    assert!(world.all_live());
}
