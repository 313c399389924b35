//! What is wrong, from records and looks alone: every rule is fired and taken back, without a network.
//!
//! The fault model: a venue, a process, a control or the host does what `reference/reliability.md` section
//! 11.5 lists; the rule must say so within its time, once, with the right severity and scope, and stop
//! saying so when it is over. What was so before the drain started is state and no news.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use tandem_core::account::{Session, SessionState};
use tandem_core::controls::Control;
use tandem_core::engine::CONTROL_REASON;
use tandem_core::graph::CycleKind;
use tandem_core::instrument::AssetId;
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::order::{DoneStatus, OrderKey, Report, UnknownCause};
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::report::Phase;
use tandem_core::round::{Round, RoundReport, Stage};
use tandem_core::units::{Amount, Qty};
use tandem_drain::Plan;
use tandem_drain::alerts::rules::{Rules, Thresholds};
use tandem_drain::alerts::{Condition, Rule, Severity};
use tandem_drain::archive::State;
use tandem_drain::plan::Names;
use tandem_drain::source::{
    ArchiveLook, Death, EngineLook, GatewayLook, JournalLook, Life, Look, PartLook,
};
use tandem_drain::spool::What;
use tandem_drain::status::SinkLook;
use tandem_gateway::warden::Verdict;

const S: i64 = 1_000_000_000;

fn plan() -> Plan {
    let name = String::new;
    Plan {
        dir: PathBuf::new(),
        journal: PathBuf::new(),
        segments_max: 4,
        segment_frames: 1_000,
        trades: true,
        is_live: true,
        venues: Venue::ALL.into(),
        parts: Vec::new(),
        names: Names {
            engine_stats: name(),
            journal_full: name(),
            outputs_lost: name(),
            overruns: name(),
            exposure_ppm: name(),
            warden_stats: name(),
            warden_verdict: BTreeMap::new(),
        },
        read_run: |_| Err("no run here".to_owned()),
        instruments: BTreeMap::from([(7, "kraken BTC/USD".to_owned())]),
    }
}

/// The rules and a world that is well until a test changes it.
struct World {
    rules: Rules,
    look: Look,
}

impl World {
    fn new() -> World {
        let clean = Venue::ALL.map(|venue| (venue, Verdict::Clean));
        let gateway = GatewayLook { budget_left: 20, ..GatewayLook::default() };
        let mut world = World {
            rules: Rules::new(&plan(), Thresholds::default()),
            look: Look {
                level: Some(LevelWord::PAUSED),
                verdicts: clean.into(),
                gateways: Venue::ALL.map(|venue| (venue, gateway)).into(),
                feed_disconnects: Venue::ALL.map(|venue| (venue, 0)).into(),
                engine: Some(EngineLook::default()),
                journal: JournalLook { room: 4_000, capacity: 4_000, per_s: None, lag: 0 },
                ..Look::default()
            },
        };
        for name in ["engine", "warden", "gateway kraken", "feed kraken"] {
            world.look.parts.push(part(name, Life::Alive, 1));
        }
        assert_eq!(world.at(0), [], "a world that is well");
        assert_eq!(world.events(), []);
        world
    }

    /// What is wrong at a time.
    fn at(&mut self, s: i64) -> Vec<(Rule, String, Severity)> {
        self.look.now_ns = s * S;
        let found = self.rules.look(&self.look);
        found.into_iter().map(|c| (c.rule, c.scope, c.severity)).collect()
    }

    fn conditions(&mut self, s: i64) -> Vec<Condition> {
        self.look.now_ns = s * S;
        self.rules.look(&self.look)
    }

    fn events(&mut self) -> Vec<(Rule, String)> {
        self.rules.take_events().into_iter().map(|c| (c.rule, c.scope)).collect()
    }

    fn record(&mut self, record: Record, s: i64) {
        self.rules.record(&Record { engine_ts_ns: s * S, ..record }, false);
    }

    fn level(&mut self, change: impl FnOnce(LevelWord) -> Option<LevelWord>) {
        self.look.level = change(self.look.level.unwrap());
        assert!(self.look.level.is_some(), "a change");
    }

    fn arm(&mut self) {
        self.level(|word| word.lowered(Scope::Global, Level::Armed));
    }
}

fn part(name: &str, life: Life, generation: u64) -> PartLook {
    PartLook { name: name.to_owned(), venue: None, life, generation, config: 0 }
}

fn page(rule: Rule, scope: &str) -> (Rule, String, Severity) {
    (rule, scope.to_owned(), Severity::Page)
}

fn ticket(rule: Rule, scope: &str) -> (Rule, String, Severity) {
    (rule, scope.to_owned(), Severity::Ticket)
}

fn event(rule: Rule, scope: &str) -> (Rule, String) {
    (rule, scope.to_owned())
}

#[test]
fn a_kill_pages_and_pages_again_while_it_is_not_proven() {
    let mut world = World::new();
    world.arm();
    assert_eq!(world.at(1), []);
    assert_eq!(world.events(), [event(Rule::ARMED, "")]);
    world.level(|word| word.raised(Scope::Global, Level::Kill, Cause::Engine));
    world.look.verdicts.insert(Venue::Kraken, Verdict::Cancelling);
    assert_eq!(world.at(2), [page(Rule::KILL, "")]);
    assert_eq!(world.events(), [event(Rule::ARMED, "")]);
    world.look.verdicts.insert(Venue::Kraken, Verdict::Unconfirmed);
    world.look.verdicts.remove(&Venue::Binance);
    assert_eq!(world.at(12), [page(Rule::KILL, "")], "a warden may be starting");
    assert_eq!(
        world.at(14),
        [
            page(Rule::KILL, ""),
            page(Rule::UNCONFIRMED, "binance"),
            page(Rule::UNCONFIRMED, "kraken")
        ]
    );
    world.look.verdicts = Venue::ALL.map(|venue| (venue, Verdict::Clean)).into();
    assert_eq!(world.at(15), [page(Rule::KILL, "")]);
    world.arm();
    assert_eq!(world.at(16), []);
}

#[test]
fn a_drill_calls_nobody_out_of_bed() {
    let mut world = World::new();
    world.level(|word| word.raised(Scope::Global, Level::Kill, Cause::Drill));
    assert_eq!(world.at(1), [ticket(Rule::KILL, "")]);
}

#[test]
fn a_control_pages_and_an_operator_does_not() {
    let mut world = World::new();
    world.arm();
    world.at(1);
    world.level(|word| word.raised(Scope::Global, Level::Halt, Cause::Operator));
    assert_eq!(world.at(2), []);
    world.arm();
    world.at(3);
    let control = |venue: u8, cause: Cause, control: Control| {
        let data = [Level::Pause as i64, cause as i64, control as i64, 77];
        Record::new(Kind::ControlLevel, venue, u16::MAX, data)
    };
    world.record(control(0, Cause::Loss, Control::Loss), 4);
    world.level(|word| word.raised(Scope::Global, Level::Pause, Cause::Loss));
    let found = world.conditions(4);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, found[0].severity), (Rule::LOSS, Severity::Page));
    assert_eq!(found[0].detail, "PAUSE: loss limit; C19 loss, evidence 77");
    world.record(control(Venue::Kraken as u8, Cause::Reconcile, Control::Drift), 5);
    world.level(|word| word.raised(Scope::Venue(Venue::Kraken), Level::Pause, Cause::Reconcile));
    assert_eq!(world.at(5), [page(Rule::LOSS, ""), page(Rule::RECONCILE, "kraken")]);
    // Arming a venue ends what stood against it, and leaves the other.
    world.level(|word| word.lowered(Scope::Venue(Venue::Kraken), Level::Armed));
    assert_eq!(world.at(6), [page(Rule::LOSS, "")]);
    // The drain's own pause is no operator's either.
    world.arm();
    world.at(7);
    world.level(|word| word.raised(Scope::Global, Level::Pause, Cause::Alerts));
    assert_eq!(world.at(8), [page(Rule::LEVEL, "")]);
}

#[test]
fn a_halted_instrument_is_told_by_name_and_not_from_the_past() {
    let mut world = World::new();
    let reason = i64::from(CONTROL_REASON) + Control::Collar as i64;
    let halt = Record::new(Kind::ControlLevel, 3, 7, [Level::Halt as i64, reason, 1, 2]);
    world.rules.record(&halt, true);
    assert_eq!(world.events(), []);
    world.rules.record(&halt, false);
    let told = world.rules.take_events();
    assert_eq!(told[0].detail, "kraken BTC/USD: C5 collar");
    assert_eq!((told[0].rule, told[0].scope.as_str()), (Rule::INSTRUMENT, "kraken"));
}

#[test]
fn an_order_may_be_unknown_for_ten_seconds() {
    let mut world = World::new();
    let key = OrderKey::new(5, 1);
    let said = |report: Report| report.record(Venue::Kraken, 7, 3, key);
    world.record(said(Report::Unknown { cause: UnknownCause::Timeout }), 100);
    assert_eq!(world.at(109), []);
    world.record(
        said(Report::Totals { qty: Qty(0), cost: Amount(0), fee: Amount(0), asset: 0 }),
        109,
    );
    let found = world.conditions(110);
    assert_eq!(found[0].fingerprint(), "unknown-order/kraken");
    assert_eq!(found[0].detail, "1 order for up to 10 s, first round 5 order 1 of run 3");
    world.record(said(Report::Done { status: DoneStatus::NeverAccepted, qty: Qty(0) }), 111);
    assert_eq!(world.at(111), []);
    // An engine that begins is told of the open orders of the run before.
    world.record(said(Report::Unknown { cause: UnknownCause::Timeout }), 112);
    world.record(Record::new(Kind::Config, 0, u16::MAX, [0; 4]), 113);
    assert_eq!(world.at(130), []);
    let restored = Record {
        part: Kind::OrderNew as u8,
        run: 3,
        ..Record::new(Kind::Restore, 3, 7, [key.0, 1, 1, 0])
    };
    world.record(restored, 131);
    assert_eq!(world.at(140), []);
    assert_eq!(world.at(141), [page(Rule::UNKNOWN, "kraken")]);
}

#[test]
fn one_leg_may_be_open_for_five_seconds_and_a_held_one_not_at_all() {
    let mut world = World::new();
    let tell = |world: &mut World, stage: Stage, s: i64| {
        let mut round = Round::new(9, AssetId(0), 0);
        round.stage = stage;
        let mut group = Vec::new();
        RoundReport::new(&round, 3, Amount(0), 0).encode(&Record::default(), |r| group.push(r));
        group.into_iter().for_each(|record| world.record(record, s));
    };
    tell(&mut world, Stage::Entry, 1);
    assert_eq!(world.at(100), [], "legs that are out are not uneven");
    tell(&mut world, Stage::Hedge, 100);
    assert_eq!(world.at(104), []);
    assert_eq!(world.at(105), [page(Rule::ONE_LEG, "")]);
    tell(&mut world, Stage::Settled, 106);
    assert_eq!(world.at(106), []);
    tell(&mut world, Stage::Held, 107);
    assert_eq!(world.at(107), [page(Rule::ONE_LEG, "")]);
}

#[test]
fn a_process_that_dies_pages_and_one_that_comes_back_is_told() {
    let mut world = World::new();
    world.look.parts[0] = part("engine", Life::Dead, 1);
    assert_eq!(world.at(1), []);
    assert_eq!(world.at(3), [page(Rule::DOWN, "engine")]);
    world.look.parts[0] = PartLook { config: 5, ..part("engine", Life::Alive, 2) };
    assert_eq!(world.at(4), []);
    assert_eq!(world.events(), [event(Rule::RESTART, "engine"), event(Rule::CONFIG, "")]);
    world.look.parts[0] = PartLook { config: 6, ..part("engine", Life::Absent, 2) };
    assert_eq!(world.at(5), []);
    world.look.parts[0] = PartLook { config: 6, ..part("engine", Life::Alive, 3) };
    assert_eq!(world.at(6), []);
    let told = world.rules.take_events();
    assert_eq!(told.len(), 1, "it left in order: {told:?}");
    assert_eq!(told[0].detail, "configuration 0000000000000006, as before");
    world.look.parts[1] = part("warden", Life::Absent, 1);
    assert_eq!(world.at(10), []);
    assert_eq!(world.at(69), []);
    assert_eq!(world.at(70), [page(Rule::DOWN, "warden")]);
}

#[test]
fn sessions_dead_man_and_keys() {
    let mut world = World::new();
    let session = |state, deadman_ns| {
        Session { venue: Venue::Kraken, state, code: 9, heard_ns: 0, deadman_ns }.record()
    };
    world.record(session(SessionState::Ready, 160 * S), 100);
    assert_eq!(world.at(140), []);
    assert_eq!(world.at(141), [page(Rule::DEAD_MAN, "kraken")]);
    world.record(session(SessionState::Ready, -1), 150);
    assert_eq!(world.at(150), [], "it is set before the first order");
    world.arm();
    assert_eq!(world.at(151), [page(Rule::DEAD_MAN, "kraken")]);
    world.record(session(SessionState::Ready, 0), 152);
    assert_eq!(world.at(152), []);
    world.record(session(SessionState::Down, 0), 160);
    assert_eq!(world.at(174), []);
    assert_eq!(world.at(175), [ticket(Rule::SESSION, "kraken")]);
    world.record(session(SessionState::Refused, 0), 180);
    assert_eq!(world.at(180), [page(Rule::AUTH, "kraken")]);
    world.events();
    world.look.gateways.get_mut(&Venue::Binance).unwrap().auth_rejects = 2;
    world.at(181);
    assert_eq!(world.events(), [event(Rule::AUTH, "binance orders")]);
}

#[test]
fn books_that_differ_and_orders_that_are_not_ours() {
    let mut world = World::new();
    let told =
        |counts| Record { flags: flag::LAST, ..Record::new(Kind::Reconciled, 2, u16::MAX, counts) };
    world.record(told([1, 0, 3, 0]), 1);
    assert_eq!(world.at(1), []);
    world.record(told([0, 2, 0, 1]), 2);
    assert_eq!(world.at(2), [page(Rule::RECONCILE, "coinbase"), ticket(Rule::FOREIGN, "coinbase")]);
    world.record(told([0, 0, 0, 0]), 3);
    assert_eq!(world.at(3), []);
}

#[test]
fn a_clock_that_is_off_or_that_nobody_vouches_for() {
    let mut world = World::new();
    let told = |offset_ms: i64, sync: i64| {
        Record::new(Kind::ClockState, 0, u16::MAX, [offset_ms * 1_000_000, 0, sync, 0])
    };
    for (offset_ms, sync, wrong) in
        [(250, 1, false), (251, 1, true), (-251, 1, true), (0, 0, true), (-250, 1, false)]
    {
        world.record(told(offset_ms, sync), 1);
        let found = world.at(1);
        assert_eq!(found, if wrong { vec![page(Rule::CLOCK, "")] } else { vec![] }, "{offset_ms}");
    }
}

#[test]
fn a_book_may_resynchronise_three_times_an_hour() {
    let mut world = World::new();
    let state = |state: BookState, reason: Reason| {
        Record::new(Kind::BookState, 3, 7, [state as i64, reason as i64, 0, 0])
    };
    let flap = |world: &mut World, reason, s| {
        world.record(state(BookState::Live, Reason::None), s);
        world.record(state(BookState::Stale, reason), s);
        // Once stale, more doubts are the same trouble.
        world.record(state(BookState::Stale, reason), s);
        world.record(state(BookState::Syncing, Reason::None), s);
    };
    for s in 0..3 {
        flap(&mut world, Reason::SequenceGap, 1_000 * s);
    }
    for s in 0..9 {
        flap(&mut world, Reason::Rotation, 2_000 + s);
    }
    assert_eq!(world.at(2_100), []);
    flap(&mut world, Reason::Checksum, 3_000);
    assert_eq!(world.at(3_000), [ticket(Rule::RESYNC, "kraken")]);
    assert_eq!(world.at(3_601), [], "the first is more than an hour ago");
}

#[test]
fn figures_of_the_engine() {
    let mut world = World::new();
    let mut engine = EngineLook { exposure_ppm: Some(900_000), ..EngineLook::default() };
    world.look.engine = Some(engine);
    assert_eq!(world.at(1), []);
    engine.exposure_ppm = Some(900_001);
    engine.overruns = 1;
    world.look.engine = Some(engine);
    assert_eq!(world.at(2), [], "orders in flight may come near it for a moment");
    assert_eq!(world.events(), [event(Rule::LAP, "")]);
    assert_eq!(world.at(3), []);
    assert_eq!(world.at(4), [page(Rule::EXPOSURE, "")]);
    world.look.engine = Some(EngineLook { exposure_ppm: Some(900_000), ..engine });
    assert_eq!(world.at(5), []);
    world.look.engine = Some(engine);
    assert_eq!(world.at(6), [], "it counts anew");
    engine = EngineLook { exposure_ppm: None, ..EngineLook::default() };
    world.look.engine = Some(engine);
    assert_eq!(world.at(13), [], "another engine counts anew");
    (engine.journal_full, engine.outputs_lost) = (10, 1);
    world.look.engine = Some(engine);
    assert_eq!(world.at(14), [page(Rule::JOURNAL_FULL, "")]);
    assert_eq!(world.events(), [event(Rule::JOURNAL_FULL, "outputs")]);
    assert_eq!(world.at(15), [page(Rule::JOURNAL_FULL, "")]);
    assert_eq!(world.at(16), []);
}

fn sink(name: &'static str, up: bool, trouble: Option<&str>) -> SinkLook {
    SinkLook { name, up, trouble: trouble.map(str::to_owned), ..SinkLook::default() }
}

#[test]
fn sinks_that_are_gone_behind_or_refused() {
    let mut world = World::new();
    for (name, rule) in
        [("postgres", Rule::DATABASE), ("redis", Rule::REDIS), ("sentry", Rule::SENTRY)]
    {
        world.look.sinks = vec![sink(name, false, None)];
        assert_eq!(world.at(100), [], "{name} is starting");
        world.look.sinks = vec![sink(name, false, Some("canary of its answer"))];
        assert_eq!(world.at(100), []);
        assert_eq!(world.at(129), []);
        let found = world.conditions(130);
        assert_eq!((found[0].rule, found[0].severity), (rule, Severity::Ticket));
        assert!(!found[0].detail.contains("canary"), "another side's text is not told");
        world.look.sinks = vec![sink(name, true, None)];
        assert_eq!(world.at(131), []);
    }
    let mut database = sink("postgres", true, None);
    (database.lag_records, database.lag_ns) = (7, 599 * S);
    world.look.sinks = vec![database.clone()];
    assert_eq!(world.at(200), []);
    database.lag_ns = 600 * S;
    database.dead_letters = 2;
    world.look.sinks = vec![database];
    assert_eq!(world.at(201), [ticket(Rule::BACKLOG, "")]);
    assert_eq!(world.events(), [event(Rule::DEAD_LETTER, "postgres")]);
    assert_eq!(world.at(202), [ticket(Rule::BACKLOG, "")]);
    assert_eq!(world.events(), [], "each is told once");
}

#[test]
fn an_archive_that_stands_still_is_late_or_has_no_room() {
    let mut world = World::new();
    let well = ArchiveLook {
        state: State::Archiving,
        lag_ns: 10 * S - 1,
        free_ppm: 200_000,
        wants_pause: false,
    };
    let ticket = |rule| ticket(rule, "");
    let page = |rule| page(rule, "");
    type Told = (Rule, String, Severity);
    let cases: &[(ArchiveLook, &[Told])] = &[
        (well, &[]),
        (ArchiveLook { lag_ns: 10 * S, ..well }, &[ticket(Rule::ARCHIVE_LAG)]),
        (ArchiveLook { free_ppm: 199_999, ..well }, &[ticket(Rule::ARCHIVE_DISK)]),
        (ArchiveLook { wants_pause: true, ..well }, &[page(Rule::ARCHIVE_DISK)]),
        (ArchiveLook { state: State::NoSpace, ..well }, &[page(Rule::ARCHIVE_DISK)]),
        (ArchiveLook { state: State::Failed, ..well }, &[page(Rule::ARCHIVE)]),
        (ArchiveLook { state: State::Refused, ..well }, &[page(Rule::ARCHIVE)]),
        (ArchiveLook { state: State::Stopped, ..well }, &[]),
    ];
    for (archive, expected) in cases {
        world.look.archive = Some(*archive);
        assert_eq!(world.at(1), *expected, "{archive:?}");
    }
}

#[test]
fn a_loop_may_stall_ten_times_a_minute() {
    let mut world = World::new();
    let stalled = |world: &mut World, count| {
        world.look.stalls.insert("engine".to_owned(), count);
    };
    stalled(&mut world, 1_000);
    assert_eq!(world.at(1), [], "what was before is not counted");
    stalled(&mut world, 1_010);
    assert_eq!(world.at(20), []);
    stalled(&mut world, 1_011);
    assert_eq!(world.at(40), [ticket(Rule::STALLS, "engine")]);
    assert_eq!(world.at(60), [ticket(Rule::STALLS, "engine")]);
    assert_eq!(world.at(100), [], "a minute later they are past");
    stalled(&mut world, 5);
    assert_eq!(world.at(101), [], "another process counts anew");
}

#[test]
fn certificates_keys_and_deaths() {
    let mut world = World::new();
    let day = 86_400;
    world.look.certificates =
        BTreeMap::from([("feed kraken".to_owned(), 114 * day), ("gateway kraken".to_owned(), 0)]);
    world.look.keys = BTreeMap::from([("warden".to_owned(), 10 * day * S)]);
    assert_eq!(world.at(100 * day), [], "fourteen days, and ninety");
    let late = 100 * day + 1;
    assert_eq!(
        world.at(late),
        [ticket(Rule::CERTIFICATE, "feed kraken"), ticket(Rule::KEY_AGE, "warden")]
    );
    world.events();
    let death = Death {
        role: "gateway kraken".to_owned(),
        at_ns: 1,
        what: What::Panic,
        place: "x.rs:1:2".to_owned(),
    };
    world.look.deaths = vec![death];
    world.at(late + 1);
    assert_eq!(world.events(), [event(Rule::PANIC, "gateway kraken")]);
}

/// A round of the journal: what it should gain, and what it gained, of a million spent.
fn earned(world: &mut World, id: u64, expected: i64, realised: i64) {
    // An opportunity without legs: what it would spend is in its first record.
    let tags = Phase::Open as i64 | (CycleKind::CrossVenue as i64) << 8;
    let heads = [[tags, id as i64, expected, 1_000_000], [0; 4], [0; 4]];
    let mut group = Vec::new();
    for (part, data) in heads.into_iter().enumerate() {
        let flags = if part < 2 { flag::MORE } else { 0 };
        let record = Record::new(Kind::Opportunity, 0, u16::MAX, data);
        group.push(Record { part: part as u8, flags, ..record });
    }
    let mut round = Round::new(id, AssetId(0), 0);
    (round.stage, round.cause, round.expected) = (Stage::Settled, id, Amount(expected));
    let mut report = RoundReport::new(&round, 3, Amount(0), 0);
    report.realised = Amount(realised);
    report.encode(&Record::default(), |record| group.push(record));
    group.into_iter().for_each(|record| world.record(record, 1));
}

#[test]
fn rounds_may_earn_a_basis_point_less_than_predicted() {
    let mut world = World::new();
    for id in 0..99 {
        earned(&mut world, id, 500, 300);
    }
    assert_eq!(world.at(1), [], "a hundred are needed");
    earned(&mut world, 99, 500, 300);
    let found = world.conditions(2);
    assert_eq!(found[0].detail, "2.0 bp below what was predicted, over 100 rounds");
    assert_eq!((found[0].rule, found[0].severity), (Rule::EDGE, Severity::Ticket));
    for id in 100..200 {
        earned(&mut world, id, 500, 400);
    }
    assert_eq!(world.at(3), [], "exactly one is not below it");
}

#[test]
fn a_day_is_reported_ten_minutes_after_it() {
    let mut world = World::new();
    let day = 86_400;
    world.at(10 * day + 599);
    earned(&mut world, 1, 500, 300);
    world.events();
    world.at(10 * day + 600);
    let told = world.rules.take_events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].rule, told[0].severity), (Rule::REPORT, Severity::Info));
    assert_eq!(told[0].detail, "1970-01-10: 0 opportunities, 0 rounds, 0 of them hedged");
    world.at(10 * day + 601);
    assert_eq!(world.events(), [], "once");
}

#[test]
fn rate_limits_and_connections() {
    let mut world = World::new();
    world.look.gateways.get_mut(&Venue::Kraken).unwrap().budget_left = 5;
    assert_eq!(world.at(1), []);
    assert_eq!(world.at(10), []);
    assert_eq!(world.at(11), [ticket(Rule::RATE, "kraken")]);
    world.look.gateways.get_mut(&Venue::Kraken).unwrap().budget_left = 6;
    assert_eq!(world.at(12), [], "exactly 70 % is not above it");
    let kraken = world.look.gateways.get_mut(&Venue::Kraken).unwrap();
    (kraken.suspensions, kraken.disconnects) = (1, 1);
    world.look.feed_disconnects.insert(Venue::Coinbase, 3);
    world.at(13);
    assert_eq!(
        world.events(),
        [
            event(Rule::RATE, "kraken wait"),
            event(Rule::RECONNECT, "gateway kraken"),
            event(Rule::RECONNECT, "feed coinbase")
        ]
    );
}

#[test]
fn a_journal_that_fills_up_or_cannot_be_followed() {
    let mut world = World::new();
    let mut journal = JournalLook { room: 86_400, capacity: 86_400, per_s: Some(1), lag: 0 };
    world.look.journal = journal;
    assert_eq!(world.at(1), []);
    journal.room = 86_399;
    world.look.journal = journal;
    assert_eq!(world.at(2), [ticket(Rule::HEADROOM, "")]);
    journal.room = 1_799;
    world.look.journal = journal;
    assert_eq!(world.at(3), [page(Rule::HEADROOM, "")]);
    journal.per_s = Some(0);
    world.look.journal = journal;
    assert_eq!(world.at(4), []);
    // What was built from records that may never be taken back is forgotten.
    let unknown = Report::Unknown { cause: UnknownCause::Timeout };
    world.record(unknown.record(Venue::Kraken, 7, 3, OrderKey::new(1, 1)), 1);
    world.rules.lost("frame 7 is damaged");
    assert_eq!(world.at(100), []);
    assert_eq!(world.events(), [event(Rule::JOURNAL, "")]);
}

/// Records of any bytes are survived, and say nothing that has no name.
#[test]
fn any_bytes_are_survived() {
    use zerocopy::FromBytes;
    let mut world = World::new();
    let mut state = 7u64;
    for n in 0..200_000 {
        let mut bytes = [0u8; 128];
        for chunk in bytes.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chunk.copy_from_slice(&(state >> 7).to_le_bytes());
        }
        let mut record = Record::read_from_bytes(&bytes).unwrap();
        record.kind = Kind::ALL[n % Kind::ALL.len()] as u8;
        record.venue %= 5;
        record.part %= 4;
        world.rules.record(&record, n % 2 == 0);
        if n % 10_000 == 0 {
            world.at(n as i64);
        }
    }
    world.at(i64::MAX / S - 1);
    world.rules.take_events();
}
