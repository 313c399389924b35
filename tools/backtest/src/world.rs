//! The run: recorded messages, simulated venues and the engine on one clock.
//!
//! Invariant: events happen in the order of their time; of the same time the venue's book changes first, then orders
//! arrive (ties go to others), then answers reach us, then messages, then our timer. The engine sees what it would
//! see live: messages when they arrive, sessions, peers, balances, its own level word told back. The recording's
//! own orders, answers and timers are left out. Memory is that of the books, of a second of messages read ahead,
//! and of what is open.
//!
//! Not here: what a venue does with an order (`venue`), what the run adds up to (`tally`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sha2::{Digest, Sha256};
use tandem_core::account::{Balance, BalanceSource, Peer, PeerRole, Session, SessionState};
use tandem_core::controls::Control;
use tandem_core::engine::{Command, Engine, OUTBOX_RECORDS, gap};
use tandem_core::episode::Outbox;
use tandem_core::instrument::{AssetId, Universe};
use tandem_core::level::{Cause, Level, LevelWord, Scope};
use tandem_core::limits::{Mode, Trading};
use tandem_core::order::{DoneStatus, NewOrder, OrderKey, Purpose, RejectClass, Report};
use tandem_core::params::Params;
use tandem_core::record::{BookState, Kind, Reason, Record, Venue, flag};
use tandem_core::report::{Denial, Opportunity, Phase};
use tandem_core::round::RoundReport;
use tandem_core::units::{Amount, Decimal, Side, parse_decimal};
use tandem_core::value::{Bias, Valuer};
use zerocopy::IntoBytes;

use crate::books::Books;
use crate::config::{Arm, Config, VenueModel, VenueTime};
use crate::dice::{Dice, For};
use crate::latency::Way;
use crate::looks::{Counterfactual, Due, Looks};
use crate::outcome::{
    Conservation, Data, FORMAT, InventoryPoint, Outcome, Summary, Unit, VenueFigures,
};
use crate::resting::Resting;
use crate::stream::{LEAD_NS, Stream};
use crate::tally::{Inventories, Names, Tally, quanta};
use crate::venue::{Met, Plant, TierQuanta, VenueSim};

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;
/// Sessions, peers and the clock are told this often.
const HEALTH_NS: i64 = 500 * MS;
/// After the last message open orders and rounds have this long to end.
const TAIL_NS: i64 = 30 * S;

/// Records that are read at once.
const READ: usize = 64;

/// Where records come from, in the order in which an engine took them.
pub trait Source {
    /// Fills `to` from its front with the next records and returns how many: none at the end.
    ///
    /// # Errors
    /// What cannot be read, in words, with the place.
    fn read(&mut self, to: &mut [Record]) -> Result<usize, String>;
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Assets and instruments.
    pub universe: Universe,
    /// Detection.
    pub params: Params,
    /// Limits.
    pub trading: Trading,
    /// Venue symbols, by instrument.
    pub symbols: Vec<String>,
    /// What is assumed.
    pub config: Config,
    /// Balances at the start: venue, asset, amount.
    pub opening: Vec<(Venue, AssetId, Amount)>,
    /// What a test changes.
    pub plant: Plant,
}

/// Why a run was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A key of the configuration.
    #[error("{key}: {why}")]
    Key {
        /// Dotted.
        key: String,
        /// What is wrong and how to mend it.
        why: String,
    },
    /// The engine refuses the plan.
    #[error("the engine refuses: {0}")]
    Engine(String),
    /// The data.
    #[error("{0}")]
    Data(String),
}

fn refuse(key: impl Into<String>, why: impl Into<String>) -> RunError {
    RunError::Key { key: key.into(), why: why.into() }
}

#[derive(Clone, Debug)]
struct Transfer {
    asset: AssetId,
    from: Venue,
    to: Venue,
    below: i128,
    amount: i128,
    fee: i128,
    delay_ns: i64,
    fail_ppm: u32,
    day_max: i128,
    day: i64,
    sent_today: i128,
    under_way: i128,
    dice: Dice,
}

/// Something that happens at a time. The order is that of equal times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    OutageEnds(u8),
    OutageBegins(u8),
    Credit { transfer: u32, failed: bool },
    Look(u32, u8, u8),
    Arrive(i64),
    Query(i64),
    Report(u64),
    Balances(u8, Vec<u16>),
    Health,
    Level(i64),
    Rearm,
}

/// Most that an order carries until its answer is told.
#[derive(Clone, Debug)]
struct Flight {
    terms: NewOrder,
    crossed_ns: i64,
}

/// The world around the engine.
pub struct World<'a> {
    plan: &'a Plan,
    engine: Engine,
    out: Outbox,
    now_ns: i64,
    streams: [Stream; 3],
    is_there: [bool; 3],
    idx: u64,
    /// Room for what is read at once.
    read: Vec<Record>,
    read_to_ns: i64,
    lead_ns: i64,
    is_end: bool,
    books: Books,
    venues: Vec<VenueSim>,
    models: [VenueModel; 3],
    entry: [Way; 3],
    response: [Way; 3],
    outages: [Dice; 3],
    outage_counts: [u64; 3],
    /// The venue is in an outage: the engine hears nothing of it.
    is_deaf: [bool; 3],
    quarantines: Quarantines,
    /// The outage is over, and its books are not told anew yet.
    resync: [bool; 3],
    events: BinaryHeap<Reverse<(i64, Event, u64)>>,
    event_seq: u64,
    flights: BTreeMap<i64, Flight>,
    reports: BTreeMap<u64, (NewOrder, Vec<Report>)>,
    /// Answers that were lost, for whoever asks.
    lost: BTreeMap<i64, Option<(NewOrder, Vec<Report>)>>,
    lost_counts: [u64; 3],
    next_report: u64,
    page: LevelWord,
    next_timer_ns: i64,
    transfers: Vec<Transfer>,
    transfer_counts: [u64; 3],
    transfer_fees: Vec<i128>,
    opening: Vec<i128>,
    /// By instrument: venue time of the last message that the engine took.
    seen_ns: Vec<i64>,
    group: Vec<Record>,
    tally: Tally,
    looks: Looks,
    resting: Resting,
    inventories: Inventories,
    inventory_next_ns: i64,
    levels: BTreeMap<String, u64>,
    valuer: Valuer,
    told_fee: Vec<i64>,
    digest: Sha256,
    data: Data,
    told: Told<'a>,
}

/// Who is told of things while a run goes on.
#[derive(Default)]
pub struct Told<'a> {
    /// Every record as a journal would hold it.
    pub record: Option<&'a mut dyn FnMut(&Record)>,
    /// Every opportunity that was followed, when its last look is over.
    pub look: Option<&'a mut dyn FnMut(&Counterfactual)>,
}

/// Runs a plan over recorded messages.
pub fn run<'a>(
    plan: &'a Plan,
    source: &mut dyn Source,
    told: Told<'a>,
) -> Result<Outcome, RunError> {
    let mut world = World::new(plan, told)?;
    world.begin(source)?;
    while world.turn(source)? {}
    world.finish()
}

fn market_kind(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Level
            | Kind::Clear
            | Kind::Bbo
            | Kind::Trade
            | Kind::BookState
            | Kind::Status
            | Kind::InstrumentChange
            | Kind::Beat
            | Kind::Gap
            | Kind::Fee
    )
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, told: Told<'a>) -> Result<World<'a>, RunError> {
        let config = &plan.config;
        let universe = &plan.universe;
        if let Some(name) = config.venue.keys().find(|name| venue_named(name).is_none()) {
            return Err(refuse(
                format!("venue.{name}"),
                "no venue of ours: binance, coinbase, kraken",
            ));
        }
        let models =
            Venue::ALL.map(|venue| config.venue.get(venue.name()).cloned().unwrap_or_default());
        for (venue, model) in Venue::ALL.into_iter().zip(&models) {
            check_model(venue, model)?;
        }
        let trading = Trading { mode: Mode::Live, rules_age_ns_max: 0, ..plan.trading.clone() };
        let numeraire = trading.numeraire;
        let valuer = Valuer::new(universe, numeraire);
        let engine = Engine::with_trading(universe.clone(), plan.params.clone(), trading)
            .map_err(|error| RunError::Engine(error.to_string()))?;
        let (seed, scale) = (config.seed, config.latency_ppm);
        let way = |which: fn(&VenueModel) -> &crate::config::Latency, purpose: For| {
            let models = &models;
            move |venue: Venue| {
                Way::new(which(&models[venue.idx()]), scale, seed, purpose, venue.idx())
            }
        };
        let stream = |venue: Venue| {
            let model = &models[venue.idx()];
            let feed = Way::new(&model.feed, scale, seed, For::Feed, venue.idx());
            Stream::new(model.venue_time, i64::from(model.feed_base_us) * 1_000, feed)
        };
        let venues = Venue::ALL.into_iter().map(|venue| {
            let model = &models[venue.idx()];
            let terms = fee_terms(venue, model, universe, numeraire)?;
            Ok(VenueSim::new(venue, model, terms, universe, (seed, plan.plant)))
        });
        let venues = venues.collect::<Result<Vec<_>, RunError>>()?;
        let is_there =
            Venue::ALL.map(|venue| universe.instruments.iter().any(|rules| rules.venue == venue));
        let recovery_ns = i64::from(config.recovery_ms) * MS;
        Ok(World {
            engine,
            out: Outbox::new(OUTBOX_RECORDS),
            now_ns: 0,
            streams: Venue::ALL.map(stream),
            is_there,
            idx: 0,
            read: vec![Record::default(); READ],
            read_to_ns: i64::MIN,
            lead_ns: match models.iter().all(|model| model.venue_time == VenueTime::Engine) {
                true => 0,
                false => LEAD_NS,
            },
            is_end: false,
            books: Books::new(universe, &plan.params, recovery_ns, config.competition),
            venues,
            entry: Venue::ALL.map(way(|model| &model.entry, For::Entry)),
            response: Venue::ALL.map(way(|model| &model.response, For::Response)),
            outages: Venue::ALL.map(|venue| Dice::new(seed, For::Outage, venue.idx() as u64)),
            outage_counts: [0; 3],
            is_deaf: [false; 3],
            quarantines: Quarantines::new(universe.instruments.len()),
            resync: [false; 3],
            events: BinaryHeap::new(),
            event_seq: 0,
            flights: BTreeMap::new(),
            reports: BTreeMap::new(),
            lost: BTreeMap::new(),
            lost_counts: [0; 3],
            next_report: 0,
            page: LevelWord::PAUSED,
            next_timer_ns: 0,
            transfers: transfers(config, universe)?,
            transfer_counts: [0; 3],
            transfer_fees: vec![0; universe.assets.len()],
            opening: vec![0; universe.assets.len()],
            seen_ns: vec![0; universe.instruments.len()],
            group: Vec::new(),
            tally: Tally::new(universe),
            looks: Looks::default(),
            resting: Resting::new(&config.resting, universe),
            inventories: Inventories::default(),
            inventory_next_ns: i64::MIN,
            levels: BTreeMap::new(),
            valuer,
            told_fee: universe.instruments.iter().map(|r| r.taker_fee.0.into()).collect(),
            digest: Sha256::new(),
            data: Data::default(),
            told,
            models,
            plan,
        })
    }

    // Reading.

    /// Reads ahead until messages up to `until_ns` on any clock are known.
    fn read(&mut self, source: &mut dyn Source, until_ns: i64) -> Result<(), RunError> {
        let mut read = std::mem::take(&mut self.read);
        while !self.is_end && self.known_to_ns() <= until_ns {
            let count = source.read(&mut read).map_err(RunError::Data)?;
            self.is_end = count == 0;
            read[..count].iter().for_each(|record| self.push(record));
        }
        self.read = read;
        Ok(())
    }

    /// Until when no message is missing, on any clock.
    fn known_to_ns(&self) -> i64 {
        self.read_to_ns.saturating_sub(self.lead_ns)
    }

    fn push(&mut self, record: &Record) {
        self.read_to_ns = self.read_to_ns.max(record.engine_ts_ns);
        let is_ours = !record.has(flag::OUTPUT) && 0 < record.engine_ts_ns;
        if is_ours && record.kind() == Some(Kind::Levels) && self.plan.config.arm == Arm::Recorded {
            self.at(record.engine_ts_ns, Event::Level(record.data[0]));
            return;
        }
        let (Some(kind), Some(venue)) = (record.kind(), Venue::from_tag(record.venue)) else {
            return;
        };
        if !is_ours || !market_kind(kind) {
            return;
        }
        if self.data.records == 0 {
            self.data.from_ns = record.engine_ts_ns;
        }
        self.data.records += 1;
        self.data.to_ns = self.data.to_ns.max(record.engine_ts_ns);
        self.idx += 1;
        self.streams[venue.idx()].push(record, self.idx);
    }

    // The clock.

    fn at(&mut self, at_ns: i64, event: Event) {
        self.event_seq += 1;
        self.events.push(Reverse((at_ns, event, self.event_seq)));
    }

    /// Opens accounts and arms, at the time of the first message.
    fn begin(&mut self, source: &mut dyn Source) -> Result<(), RunError> {
        self.read(source, i64::MIN)?;
        while self.data.records == 0 && !self.is_end {
            let to_ns = self.read_to_ns;
            self.read(source, to_ns)?;
        }
        if self.data.records == 0 {
            let why = "no market records in the data: name a journal, an archive, or import one";
            return Err(RunError::Data(why.to_owned()));
        }
        // Before anything that the engine takes: its clock never goes back.
        self.now_ns = self.data.from_ns - LEAD_NS;
        self.next_timer_ns = self.now_ns;
        for (venue, asset, amount) in &self.plan.opening {
            self.venues[venue.idx()].deposit(*asset, amount.0.into());
            self.opening[usize::from(asset.0)] += i128::from(amount.0);
        }
        for venue in Venue::ALL {
            for asset in (0..self.plan.universe.assets.len() as u16).map(AssetId) {
                self.tell_balance(venue, asset, BalanceSource::Opening);
                self.tell_balance(venue, asset, BalanceSource::Snapshot);
            }
        }
        self.health();
        self.at(self.now_ns + HEALTH_NS, Event::Health);
        for venue in Venue::ALL {
            self.fees(venue);
            self.next_outage(venue, self.now_ns);
        }
        if self.plan.config.arm == Arm::Start {
            self.arm();
        }
        Ok(())
    }

    /// The next outage of a venue begins some time after `from_ns`.
    fn next_outage(&mut self, venue: Venue, from_ns: i64) {
        let idx = venue.idx();
        if let (Some(outage), true) = (self.models[idx].outage, self.is_there[idx]) {
            let wait_ns = self.outages[idx].wait_ns(i64::from(outage.every_s) * S);
            self.at(from_ns + wait_ns, Event::OutageBegins(venue as u8));
        }
    }

    /// Lets the next thing happen; false when nothing is left to happen.
    fn turn(&mut self, source: &mut dyn Source) -> Result<bool, RunError> {
        let far = i64::MAX;
        loop {
            let is_watched = self.is_watched();
            let venue_next =
                is_watched.then(|| earliest(&self.streams, Stream::next_venue)).flatten();
            let engine_next = earliest(&self.streams, Stream::next_engine);
            let venue_ns = venue_next.map_or(far, |next| next.1);
            let engine_ns = engine_next.map_or(far, |next| next.1);
            let event_ns = self.events.peek().map_or(far, |Reverse((at_ns, _, _))| *at_ns);
            let next_ns = venue_ns.min(engine_ns).min(event_ns).min(self.next_timer_ns);
            if !self.is_end && self.known_to_ns() <= next_ns {
                self.read(source, next_ns)?;
                continue;
            }
            if self.is_end && engine_next.is_none() && !self.is_open(next_ns) {
                return Ok(false);
            }
            self.now_ns = self.now_ns.max(next_ns);
            match (venue_next, engine_next) {
                (Some((venue, at_ns)), _) if at_ns == next_ns => self.at_venue(venue),
                _ if event_ns == next_ns => self.happen(),
                (_, Some((venue, at_ns))) if at_ns == next_ns => {
                    // Until then nothing else happens, and no message is missing.
                    let others = self.streams.iter().enumerate().filter(|(idx, _)| *idx != venue);
                    let other_ns = others.filter_map(|(_, stream)| stream.next_engine());
                    let other_ns = other_ns.map(|next| next.0).min().unwrap_or(far);
                    let known_ns = if self.is_end { far } else { self.known_to_ns() };
                    let before_ns = match is_watched {
                        true => next_ns,
                        false => other_ns.min(event_ns).min(self.next_timer_ns).min(known_ns),
                    };
                    self.at_engine(venue, before_ns);
                }
                _ => self.timer(),
            }
            return Ok(true);
        }
    }

    /// Whether something has to happen at the very time when a venue's book changes.
    fn is_watched(&self) -> bool {
        let is_attentive = self.plan.plant == Plant::Attentive;
        self.resync != [false; 3] || self.resting.is_any() || is_attentive
    }

    /// Whether something is under way that the end waits for.
    fn is_open(&self, next_ns: i64) -> bool {
        if self.data.to_ns.saturating_add(TAIL_NS) < next_ns {
            return false;
        }
        let Some(desk) = self.engine.desk() else { return false };
        !self.flights.is_empty()
            || !self.reports.is_empty()
            || desk.orders().open_count() != 0
            || desk.rounds().iter().next().is_some()
    }

    fn timer(&mut self) {
        let desk = self.engine.desk();
        let is_busy = self.engine.open_count() != 0
            || desk.is_some_and(|desk| {
                desk.orders().open_count() != 0 || desk.rounds().iter().next().is_some()
            });
        let config = &self.plan.config;
        let ms = if is_busy { config.timer_ms } else { config.timer_idle_ms.max(config.timer_ms) };
        self.next_timer_ns = self.now_ns + i64::from(ms.max(1)) * MS;
        let timer = Record::new(Kind::Timer, 0, u16::MAX, [0; 4]);
        self.step(&Record { engine_ts_ns: self.now_ns, ..timer });
    }

    /// The venues' books take what happened there until now. They are brought up to date when somebody looks at them,
    /// not with every message. While something happens at the very time of their changes, they are up to date.
    fn settle(&mut self) {
        if self.is_watched() {
            return;
        }
        for venue in 0..self.streams.len() {
            self.books.catch_up(Venue::ALL[venue], self.engine.market());
            while let Some(item) = self.streams[venue].pop_venue(self.now_ns) {
                changed(&mut self.books, &mut self.venues[venue], &item.record);
            }
        }
    }

    fn at_venue(&mut self, venue: usize) {
        let Some(item) = self.streams[venue].pop_venue(self.now_ns) else { return };
        let record = &item.record;
        changed(&mut self.books, &mut self.venues[venue], record);
        self.resting.take(record, &self.books, self.now_ns);
        if self.resync[venue] && record.has(flag::LAST) {
            self.resynchronise(Venue::ALL[venue]);
        }
    }

    /// The engine takes a venue's next message, and those behind it that come before `before_ns`, as long as nothing
    /// follows from them.
    fn at_engine(&mut self, venue: usize, before_ns: i64) {
        let is_deaf = self.is_deaf[venue] || self.resync[venue];
        let stream = &mut self.streams[venue];
        loop {
            if !stream.is_engine_behind()
                && let Some(item) = stream.pop_venue(i64::MAX)
            {
                // What the engine takes as well the books have from it, once they are asked for.
                let kind = item.record.kind();
                let is_needed = is_deaf || kind == Some(Kind::Fee) || self.books.needs(kind);
                match is_needed {
                    true => changed(&mut self.books, &mut self.venues[venue], &item.record),
                    false => self.books.skip(Venue::ALL[venue]),
                }
            }
            let Some(item) = stream.front_mut() else { return };
            self.now_ns = self.now_ns.max(item.engine_ns);
            if !is_deaf {
                let record = &mut item.record;
                if let Some(seen) = self.seen_ns.get_mut(usize::from(record.instrument)) {
                    *seen = item.venue_ns;
                }
                if record.kind() == Some(Kind::Fee) {
                    stream.advance();
                    self.settle();
                    self.fees(Venue::ALL[venue]);
                    return;
                }
                record.engine_ts_ns = self.now_ns;
                if let Some(sink) = &mut self.told.record {
                    sink(record);
                }
                self.engine.step(record, &mut self.out);
                self.quarantines.watch(record, &self.engine);
            }
            stream.advance();
            if !self.out.records().is_empty() {
                self.put_out();
                return;
            }
            if stream.next_engine().is_none_or(|(at_ns, _)| before_ns <= at_ns) {
                return;
            }
        }
    }

    // The engine.

    /// Gives the engine what is not of the recording, as of now, and does what it puts out.
    fn feed(&mut self, record: Record) {
        let record = Record { engine_ts_ns: self.now_ns, ..record };
        self.digest.update(record.as_bytes());
        self.step(&record);
    }

    fn step(&mut self, record: &Record) {
        if let Some(sink) = &mut self.told.record {
            sink(record);
        }
        self.engine.step(record, &mut self.out);
        if !self.out.records().is_empty() {
            self.put_out();
        }
    }

    /// Does what the engine put out.
    fn put_out(&mut self) {
        self.settle();
        let out = std::mem::replace(&mut self.out, Outbox::new(0));
        let mut is_raised = false;
        for output in out.records() {
            self.digest.update(output.as_bytes());
            if let Some(sink) = &mut self.told.record {
                sink(output);
            }
            is_raised |= self.output(output);
        }
        self.out = out;
        self.out.clear();
        if is_raised {
            self.feed(self.page.record());
        }
    }

    /// Does what an output asks for; true where the level word changed.
    fn output(&mut self, record: &Record) -> bool {
        match record.kind() {
            Some(Kind::OrderNew) => {
                if let Some(terms) = NewOrder::read(record) {
                    self.leave(terms);
                }
            }
            Some(Kind::OrderQuery) => {
                if let Some(venue) = Venue::from_tag(record.venue) {
                    let at_ns = self.entry[venue.idx()].arrival(self.left_ns());
                    self.at(at_ns, Event::Query(record.data[0]));
                }
            }
            Some(Kind::ControlLevel) if record.instrument == u16::MAX => {
                return self.raised(record);
            }
            Some(Kind::Opportunity | Kind::Denial | Kind::Round) => self.grouped(record),
            _ => {}
        }
        false
    }

    fn raised(&mut self, record: &Record) -> bool {
        let scope = Venue::from_tag(record.venue).map_or(Scope::Global, Scope::Venue);
        let level = Level::from_tag(record.data[0] as u8);
        let cause = Cause::from_tag(record.data[1] as u8).unwrap_or(Cause::Start);
        let control = Control::from_tag(record.data[2] as u8);
        let control = control.map_or("no control", Control::name);
        let place = Venue::from_tag(record.venue).map_or("global", Venue::name);
        let name = format!("{place} {} {control}", level.name());
        *self.levels.entry(name).or_default() += 1;
        let Some(word) = self.page.raised(scope, level, cause) else { return false };
        self.page = word;
        if self.plan.config.rearm_s != 0 && self.plan.config.arm == Arm::Start {
            let at_ns = self.now_ns + i64::from(self.plan.config.rearm_s) * S;
            self.at(at_ns, Event::Rearm);
        }
        true
    }

    fn arm(&mut self) {
        for scope in [Scope::Global].into_iter().chain(Venue::ALL.map(Scope::Venue)) {
            if let Some(word) = self.page.lowered(scope, Level::Armed) {
                self.page = word;
            }
        }
        self.feed(self.page.record());
    }

    fn grouped(&mut self, record: &Record) {
        self.group.push(*record);
        if record.has(flag::MORE) {
            return;
        }
        let group = std::mem::take(&mut self.group);
        let view = self.engine.view();
        match record.kind() {
            Some(Kind::Opportunity) => {
                if let Some(told) = Opportunity::decode(&group) {
                    self.tally.opportunity(&told, view.as_ref());
                    if told.phase == Phase::Open {
                        self.look_at(&told);
                    }
                }
            }
            Some(Kind::Denial) => {
                if let Some(told) = Denial::decode(&group) {
                    self.tally.denial(&told);
                }
            }
            _ => {
                if let Some(told) = RoundReport::decode(&group) {
                    let graph = self.engine.graph();
                    let universe = &self.plan.universe;
                    self.tally.round(&told, (graph, universe), view.as_ref(), self.now_ns);
                }
            }
        }
        self.group = group;
        self.group.clear();
    }

    fn left_ns(&self) -> i64 {
        let config = &self.plan.config;
        let ns = i128::from(config.decision_us) * 1_000 * i128::from(config.latency_ppm);
        self.now_ns.saturating_add((ns / i128::from(crate::config::PPM)) as i64)
    }

    fn look_at(&mut self, told: &Opportunity) {
        self.resting.open(told, &self.books, self.now_ns);
        if !self.plan.config.counterfactual {
            return;
        }
        let crossed_ns = told.legs().iter().map(|leg| self.seen_ns[usize::from(leg.instrument)]);
        let crossed_ns = crossed_ns.max().unwrap_or(self.now_ns);
        let host_ns = self.left_ns() - self.now_ns;
        let way_ns = Venue::ALL.map(|venue| host_ns + self.entry[venue.idx()].typical_ns());
        let mut dues = Vec::new();
        let at = (crossed_ns, self.now_ns);
        let expected = self
            .engine
            .view()
            .and_then(|view| view.worth(told.start, told.net.0.into(), Bias::Low));
        let expected = quanta(expected.unwrap_or(0));
        self.looks.open((told, expected), &self.plan.universe, at, way_ns, |due| dues.push(due));
        for due in dues {
            self.at(due.at_ns, Event::Look(due.slot, due.leg, due.late));
        }
    }

    // Orders.

    /// An order leaves.
    fn leave(&mut self, terms: NewOrder) {
        let left_ns = self.left_ns();
        let venue = terms.venue.idx();
        if terms.expires_ns != 0 && terms.expires_ns < left_ns {
            let report = Report::Reject { class: RejectClass::NotSent, code: 0 };
            self.answer(terms, vec![report], self.now_ns);
            return;
        }
        let crossed_ns = match terms.purpose {
            Purpose::Entry => self.crossed_ns(terms.key.round()),
            // Nobody else is after what a hedge takes.
            Purpose::Hedge | Purpose::Unwind | Purpose::Operator => i64::MAX,
        };
        let at_ns = self.entry[venue].arrival(left_ns);
        self.flights.insert(terms.key.0, Flight { terms, crossed_ns });
        self.at(at_ns, Event::Arrive(terms.key.0));
    }

    /// When the crossing of a round came to be at the venues: with the newest of its legs' books.
    fn crossed_ns(&self, round: u64) -> i64 {
        let desk = self.engine.desk();
        let round = desk.and_then(|desk| desk.rounds().get(desk.rounds().find(round)?));
        let legs = round.map_or(&[][..], |round| round.legs());
        let newest = legs.iter().map(|leg| self.seen_ns[usize::from(leg.instrument)]).max();
        newest.unwrap_or(self.now_ns)
    }

    fn answer(&mut self, terms: NewOrder, reports: Vec<Report>, at_ns: i64) {
        self.next_report += 1;
        self.reports.insert(self.next_report, (terms, reports));
        self.at(at_ns, Event::Report(self.next_report));
    }

    fn happen(&mut self) {
        let Some(Reverse((_, event, _))) = self.events.pop() else { return };
        self.settle();
        match event {
            Event::Arrive(key) => self.arrive(key),
            Event::Report(id) => self.reported(id),
            Event::Look(slot, leg, late) => {
                self.look(Due { at_ns: self.now_ns, slot, leg, late });
            }
            Event::Query(key) => self.queried(key),
            Event::Balances(venue, assets) => {
                let Some(venue) = Venue::from_tag(venue) else { return };
                for asset in assets {
                    self.tell_balance(venue, AssetId(asset), BalanceSource::Stream);
                }
            }
            Event::Health => {
                self.health();
                self.transfer();
                self.at(self.now_ns + HEALTH_NS, Event::Health);
            }
            Event::Level(word) => {
                self.page = LevelWord(word as u64);
                self.feed(self.page.record());
            }
            Event::Rearm => self.arm(),
            Event::Credit { transfer, failed } => self.credit(transfer as usize, failed),
            Event::OutageBegins(venue) => self.outage(venue),
            Event::OutageEnds(venue) => {
                let Some(venue) = Venue::from_tag(venue) else { return };
                self.is_deaf[venue.idx()] = false;
                self.resync[venue.idx()] = true;
            }
        }
    }

    fn arrive(&mut self, key: i64) {
        let Some(flight) = self.flights.remove(&key) else { return };
        let terms = flight.terms;
        let idx = terms.venue.idx();
        let is_contested = flight.crossed_ns != i64::MAX;
        let age_ns = self.now_ns.saturating_sub(flight.crossed_ns);
        let others = if is_contested { self.books.others_ppm(age_ns) } else { 0 };
        if is_contested {
            self.tally.arrived(terms.key.round(), age_ns);
        }
        let is_late = terms.expires_ns != 0 && terms.expires_ns < self.now_ns && is_contested;
        let met = if is_late {
            // The venue was told until when the order is meant.
            let status = DoneStatus::Expired;
            let done = Report::Done { status, qty: tandem_core::units::Qty(0) };
            let reports = vec![Report::Ack { venue_id: key as u128 }, done];
            let moved = Vec::new();
            Some(Met { reports, moved, taken_by_others: 0 })
        } else {
            let (universe, at) = (&self.plan.universe, (others, self.now_ns));
            self.venues[idx].arrive(&terms, universe, &mut self.books, at)
        };
        let Some(met) = met else {
            // The venue is gone: the order never was there, and nobody says so.
            self.lost_counts[idx] += 1;
            self.lost.insert(key, None);
            return;
        };
        let name = u64::from(terms.run) << 48 ^ key as u64;
        let lost_ppm = self.models[idx].lost_ppm;
        let at_ns = self.response[idx].arrival(self.now_ns);
        let moved: Vec<u16> = {
            let mut moved: Vec<u16> = met.moved.iter().map(|(asset, _)| asset.0).collect();
            moved.sort_unstable();
            moved.dedup();
            moved
        };
        if Dice::new(self.plan.config.seed, For::Lost, name).chance(lost_ppm) {
            self.lost_counts[idx] += 1;
            self.lost.insert(key, Some((terms, met.reports)));
            return;
        }
        self.answer(terms, met.reports, at_ns);
        if !moved.is_empty() {
            self.at(at_ns, Event::Balances(terms.venue as u8, moved));
        }
    }

    fn queried(&mut self, key: i64) {
        let run = self.plan.trading.run;
        let key = OrderKey(key);
        let open = self.engine.desk().and_then(|desk| {
            let slot = desk.orders().find(run, key)?;
            Some(desk.orders().get(slot).terms)
        });
        let Some(terms) = open else { return };
        let idx = terms.venue.idx();
        if self.venues[idx].is_gone(self.now_ns) {
            return;
        }
        let Some(result) = self.lost.remove(&key.0) else { return };
        let at_ns = self.response[idx].arrival(self.now_ns);
        let never =
            Report::Done { status: DoneStatus::NeverAccepted, qty: tandem_core::units::Qty(0) };
        let (terms, reports) = result.unwrap_or((terms, vec![never]));
        self.answer(terms, reports, at_ns);
        let all = (0..self.plan.universe.assets.len() as u16).collect();
        self.at(at_ns, Event::Balances(terms.venue as u8, all));
    }

    fn reported(&mut self, id: u64) {
        let Some((terms, reports)) = self.reports.remove(&id) else { return };
        for report in reports {
            if let Report::Fill { px, qty, fee, asset, .. } = report {
                let view = self.engine.view();
                let fill = (px, qty, fee, asset);
                let universe = &self.plan.universe;
                let worth = self.tally.fill(&terms, fill, universe, view.as_ref());
                self.venues[terms.venue.idx()].traded(worth.into(), self.now_ns);
            }
            let record = report.record(terms.venue, terms.instrument, terms.run, terms.key);
            self.feed(Record { recv_ts_ns: self.now_ns, ..record });
        }
        self.fees(terms.venue);
    }

    fn look(&mut self, due: Due) {
        let (venues, now_ns) = (&self.venues, self.now_ns);
        let (plan, valuer) = (self.plan, &self.valuer);
        let fee_ppm = |instrument: u16| {
            let venue = plan.universe.instruments[usize::from(instrument)].venue;
            venues[venue.idx()].effective_ppm(instrument, now_ns)
        };
        let books = (&plan.universe, &self.books);
        let seen = self.looks.look(due, books, fee_ppm, |market, asset, amount, bias| {
            valuer.worth((market, &plan.universe, &plan.params), asset, amount, bias, now_ns)
        });
        if let (Some(seen), Some(told)) = (seen, &mut self.told.look) {
            told(&seen);
        }
    }

    // Accounts.

    fn tell_balance(&mut self, venue: Venue, asset: AssetId, source: BalanceSource) {
        let total = Amount(quanta(self.venues[venue.idx()].balance(asset).max(0)));
        let balance = Balance { venue, asset: asset.0, total, held: Amount(0), source };
        self.feed(balance.record(true));
    }

    /// Tells what the venue charges now, where that has changed.
    fn fees(&mut self, venue: Venue) {
        for instrument in 0..self.plan.universe.instruments.len() as u16 {
            let idx = usize::from(instrument);
            if self.plan.universe.instruments[idx].venue != venue {
                continue;
            }
            let ppm = self.venues[venue.idx()].effective_ppm(instrument, self.now_ns);
            if std::mem::replace(&mut self.told_fee[idx], ppm) != ppm {
                let maker = i64::from(self.models[venue.idx()].maker_fee_ppm);
                let data = [ppm, maker, 0, 0];
                self.feed(Record::new(Kind::Fee, venue as u8, instrument, data));
            }
        }
    }

    fn health(&mut self) {
        for venue in Venue::ALL {
            if !self.is_there[venue.idx()] {
                continue;
            }
            let sim = &self.venues[venue.idx()];
            let state = if sim.is_gone(self.now_ns) {
                SessionState::Down
            } else if self.now_ns < sim.banned_until_ns {
                SessionState::Suspended
            } else {
                SessionState::Ready
            };
            let heard_ns = if state == SessionState::Down { 0 } else { self.now_ns };
            let session = Session { venue, state, code: 0, heard_ns, deadman_ns: 0 };
            self.feed(session.record());
            let role = PeerRole::Gateway;
            self.peer(Peer { role, venue: Some(venue), alive: true, beat_ns: 0, same_build: true });
        }
        let role = PeerRole::Warden;
        self.peer(Peer { role, venue: None, alive: true, beat_ns: 0, same_build: true });
        self.feed(Record::new(Kind::ClockState, 0, u16::MAX, [0, 0, 1, 0]));
        self.inventory();
    }

    fn peer(&mut self, peer: Peer) {
        self.feed(Peer { beat_ns: self.now_ns, ..peer }.record());
    }

    fn inventory(&mut self) {
        if self.now_ns < self.inventory_next_ns {
            return;
        }
        self.inventory_next_ns = self.now_ns + S;
        let view = self.engine.view();
        for venue in Venue::ALL.into_iter().filter(|venue| self.is_there[venue.idx()]) {
            for asset in (0..self.plan.universe.assets.len() as u16).map(AssetId) {
                let amount = self.venues[venue.idx()].balance(asset);
                let worth = view.as_ref().and_then(|view| view.worth(asset, amount, Bias::Low));
                let point = InventoryPoint {
                    at_ns: self.now_ns,
                    amount: quanta(amount),
                    worth: worth.map(quanta),
                };
                self.inventories.add(venue, asset, point);
            }
        }
    }

    fn transfer(&mut self) {
        for at in 0..self.transfers.len() {
            let rule = &self.transfers[at];
            let day = self.now_ns.div_euclid(86_400 * S);
            let sent_today = if rule.day == day { rule.sent_today } else { 0 };
            let (asset, from, to, amount) = (rule.asset, rule.from, rule.to, rule.amount);
            let is_needed = self.venues[to.idx()].balance(asset) < rule.below
                && rule.under_way == 0
                && amount <= self.venues[from.idx()].balance(asset)
                && sent_today + amount <= rule.day_max
                && !self.venues[from.idx()].is_gone(self.now_ns);
            if !is_needed {
                continue;
            }
            let rule = &mut self.transfers[at];
            (rule.day, rule.sent_today) = (day, sent_today + amount);
            rule.under_way = amount - rule.fee;
            let failed = rule.dice.chance(rule.fail_ppm);
            let (fee, delay_ns) = (rule.fee, rule.delay_ns);
            self.transfer_fees[usize::from(asset.0)] += fee;
            self.venues[from.idx()].deposit(asset, -amount);
            self.adjust(from, asset, -amount);
            let transfer = at as u32;
            self.at(self.now_ns + delay_ns, Event::Credit { transfer, failed });
        }
    }

    fn credit(&mut self, at: usize, failed: bool) {
        let rule = &mut self.transfers[at];
        let amount = std::mem::take(&mut rule.under_way);
        let (asset, into) = (rule.asset, if failed { rule.from } else { rule.to });
        self.transfer_counts[into.idx()] += u64::from(!failed);
        self.venues[into.idx()].deposit(asset, amount);
        self.adjust(into, asset, amount);
    }

    fn adjust(&mut self, venue: Venue, asset: AssetId, by: i128) {
        let data = [Command::Adjust as i64, quanta(by), 0, 0];
        let record = Record::new(Kind::Command, venue as u8, u16::MAX, data);
        self.feed(Record { asset: asset.0, ..record });
        self.tell_balance(venue, asset, BalanceSource::Stream);
    }

    // Outages.

    fn outage(&mut self, venue: u8) {
        let Some(venue) = Venue::from_tag(venue) else { return };
        let Some(outage) = self.models[venue.idx()].outage else { return };
        let until_ns = self.now_ns + i64::from(outage.lasts_ms) * MS;
        self.outage_counts[venue.idx()] += 1;
        self.venues[venue.idx()].gone_until_ns = until_ns;
        self.is_deaf[venue.idx()] = true;
        self.feed(gap(venue, Reason::Disconnect, 0, 0));
        self.quarantines.accept(&self.engine);
        let state = SessionState::Down;
        let session = Session { venue, state, code: 0, heard_ns: 0, deadman_ns: 0 };
        self.feed(session.record());
        self.at(until_ns, Event::OutageEnds(venue as u8));
        self.next_outage(venue, until_ns);
    }

    /// The venue is back: its books are told anew as a feed would after a reconnect. What is still on its way from
    /// before is older than that and left out.
    fn resynchronise(&mut self, venue: Venue) {
        let ids: Vec<u16> = (0..self.plan.universe.instruments.len() as u16)
            .filter(|id| self.plan.universe.instruments[usize::from(*id)].venue == venue)
            .collect();
        if ids.iter().any(|id| self.books.market().get(*id).in_batch) {
            return;
        }
        while self.streams[venue.idx()].is_engine_behind() {
            self.streams[venue.idx()].advance();
        }
        self.tell_trading(venue, &ids);
        for id in ids {
            let stamp = Record {
                recv_ts_ns: self.now_ns,
                venue_ts_ns: self.now_ns,
                conn: self.books.market().conn(id).0,
                epoch: self.books.market().conn(id).1,
                ..Record::new(Kind::Clear, venue as u8, id, [0; 4])
            };
            self.feed(Record { flags: flag::SNAPSHOT, ..stamp });
            let state = self.books.market().get(id);
            let told = state.state;
            let mut levels = Vec::new();
            for side in Side::BOTH {
                levels.extend(state.book.levels(side).map(|level| (side, level)));
            }
            for (side, level) in levels {
                let data = [level.px.0, level.qty.0, side.idx() as i64, 0];
                let record = Record { kind: Kind::Level as u8, data, ..stamp };
                self.feed(Record { flags: flag::SNAPSHOT, ..record });
            }
            let is_live = told == BookState::Live;
            let data = [if is_live { told } else { BookState::Stale } as i64, 0, 0, 0];
            let record = Record { kind: Kind::BookState as u8, data, ..stamp };
            self.feed(Record { flags: flag::LAST, ..record });
        }
        self.resync[venue.idx()] = false;
        self.quarantines.accept(&self.engine);
        self.health();
        for asset in (0..self.plan.universe.assets.len() as u16).map(AssetId) {
            self.tell_balance(venue, asset, BalanceSource::Stream);
        }
    }

    /// Tells what takes orders now, where that changed while the engine was deaf.
    fn tell_trading(&mut self, venue: Venue, ids: &[u16]) {
        let status = self.books.market().venue_status(venue);
        if self.engine.market().venue_status(venue) != status {
            let record = Record::new(Kind::Status, venue as u8, u16::MAX, [status as i64, 0, 0, 0]);
            self.feed(Record { flags: flag::LAST, ..record });
        }
        for id in ids {
            let trading = self.books.market().get(*id).trading;
            if self.engine.market().get(*id).trading == trading {
                continue;
            }
            let rules = &self.engine.universe().instruments[usize::from(*id)];
            let data = [trading as i64, rules.tick.0, rules.lot.0, rules.notional_min.0];
            let record = Record::new(Kind::InstrumentChange, venue as u8, *id, data);
            self.feed(Record { flags: flag::LAST, ..record });
        }
    }

    // The end.

    fn conservation(&self) -> (Vec<Conservation>, bool) {
        let universe = &self.plan.universe;
        let mut is_conserved = true;
        let mut rows = Vec::new();
        for (idx, asset) in universe.assets.iter().enumerate() {
            let id = AssetId(idx as u16);
            let closing: i128 = self.venues.iter().map(|venue| venue.balance(id)).sum();
            let ledger: i128 = self.engine.desk().map_or(0, |desk| {
                Venue::ALL.map(|venue| desk.ledger().account(venue, id).balance).iter().sum()
            });
            let in_transit: i128 =
                self.transfers.iter().filter(|rule| rule.asset == id).map(|r| r.under_way).sum();
            let moved = self.tally.moved[idx];
            let fees = self.transfer_fees[idx];
            let expected = self.opening[idx] + moved.traded - moved.fees - fees - in_transit;
            let difference = (closing - expected).abs().max((closing - ledger).abs());
            is_conserved &= difference == 0;
            let text = |amount: i128| amount_text(amount, asset.exponent);
            rows.push(Conservation {
                asset: asset.name.clone(),
                opening: text(self.opening[idx]),
                traded: text(moved.traded),
                fees: text(moved.fees),
                transfer_fees: text(fees),
                in_transit: text(in_transit),
                closing: text(closing),
                ledger: text(ledger),
                difference: difference.to_string(),
            });
        }
        (rows, is_conserved)
    }

    fn finish(mut self) -> Result<Outcome, RunError> {
        self.inventory_next_ns = i64::MIN;
        self.inventory();
        // Answers that were never asked for are told now: the venues' books have them.
        for (_, result) in std::mem::take(&mut self.lost) {
            if let Some((terms, reports)) = result {
                self.next_report += 1;
                self.reports.insert(self.next_report, (terms, reports));
            }
        }
        for id in self.reports.keys().copied().collect::<Vec<_>>() {
            self.reported(id);
        }
        let (conservation, is_conserved) = self.conservation();
        let universe = &self.plan.universe;
        let numeraire = self.plan.trading.numeraire;
        let graph = self.engine.graph();
        let names = Names { universe, symbols: &self.plan.symbols, graph };
        let [by_venue, by_instrument, by_kind, by_route, by_hour] = self.tally.buckets(&names);
        let (edges, lives, capture) = self.tally.bins();
        let span_ns = self.data.to_ns - self.data.from_ns;
        let Some(desk) = self.engine.desk() else {
            return Err(RunError::Engine("it does not trade".to_owned()));
        };
        let counts = *desk.counts();
        let view = self.engine.view();
        let worth = |asset: usize, amount: i128, bias: Bias| {
            let asset = AssetId(asset as u16);
            quanta(view.as_ref().and_then(|v| v.worth(asset, amount, bias)).unwrap_or(0))
        };
        let open_flows = desk.rounds().iter().flat_map(|round| round.flows.items());
        let open: i64 = open_flows
            .map(|(_, asset, amount)| worth(usize::from(asset.0), *amount, Bias::Low))
            .fold(0, i64::saturating_add);
        let transfer_fees: i64 = self
            .transfer_fees
            .iter()
            .enumerate()
            .map(|(asset, fee)| worth(asset, *fee, Bias::High))
            .fold(0, i64::saturating_add);
        let mut data = self.data;
        data.quarantines = self.quarantines.count;
        data.negative_latencies = self.streams.iter().map(|stream| stream.negative).sum();
        let mut funnel = self.tally.funnel.clone();
        funnel.evaluations = self.engine.counts().evaluations;
        funnel.not_followed = self.looks.skipped;
        let orders_filled = counts.orders_filled + counts.orders_partial;
        let summary = Summary {
            seed: self.plan.config.seed,
            is_conserved,
            digest: self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            pnl: self.tally.pnl,
            pnl_marked: self.tally.pnl.saturating_add(open),
            fees: self.tally.fees,
            transfer_fees,
            drawdown: self.tally.drawdown,
            turnover: self.tally.turnover,
            opportunities: funnel.opportunities,
            rounds: counts.rounds,
            rounds_filled: counts.rounds_filled,
            rounds_missed: counts.rounds_missed,
            rounds_hedged: counts.hedged + counts.unwound,
            rounds_held: counts.held,
            rounds_lost: self.tally.rounds_lost,
            orders: counts.orders,
            orders_filled,
            orders_rejected: counts.orders_rejected,
            fills: counts.fills,
            seconds: span_ns / S,
        };
        let mut venues = BTreeMap::new();
        let mut value_of_ms = BTreeMap::new();
        for venue in Venue::ALL.into_iter().filter(|venue| self.is_there[venue.idx()]) {
            let idx = venue.idx();
            let sim = &self.venues[idx];
            let fee = universe.instruments.iter().position(|rules| rules.venue == venue);
            let fee = fee.map_or(0, |id| sim.taker_ppm(id as u16, self.now_ns));
            let seen = &sim.counts;
            venues.insert(
                venue.name().to_owned(),
                VenueFigures {
                    orders: seen.orders,
                    filled: seen.filled,
                    partial: seen.partial,
                    missed: seen.missed,
                    rejected: seen.rejected.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
                    unknown: self.lost_counts[idx],
                    quarantined: seen.quarantined,
                    taken_by_others_ppm: (seen.others_ppm / seen.wanted.max(1)) as i64,
                    bans: seen.bans,
                    outages: self.outage_counts[idx],
                    entry_us: self.entry[idx].quantiles_us(),
                    feed_us: self.streams[idx].latency.quantiles_us(),
                    taker_fee_ppm: fee.into(),
                    transfers: self.transfer_counts[idx],
                },
            );
            if let Some(value) = self.looks.value_of_ms(venue, span_ns) {
                value_of_ms.insert(venue.name().to_owned(), value);
            }
        }
        let unit = &universe.assets[usize::from(numeraire.0)];
        Ok(Outcome {
            format: FORMAT,
            config: self.plan.config.clone(),
            data,
            numeraire: Unit { name: unit.name.clone(), exponent: unit.exponent },
            assets: universe.assets.iter().map(|a| (a.name.clone(), a.exponent)).collect(),
            summary,
            conservation,
            equity: self.tally.equity(),
            by_venue,
            by_instrument,
            by_kind,
            by_route,
            by_hour,
            funnel,
            edges,
            lives,
            decay: if self.plan.config.counterfactual { self.looks.decay() } else { Vec::new() },
            value_of_ms,
            capture,
            one_leg: self.tally.one_leg,
            venues,
            levels: self.levels,
            resting: self.resting.figures(&names),
            calibration: None,
            inventory: self.inventories.into_lines(universe),
        })
    }
}

/// Books that the engine had to stop using because of what was recorded. What it does not hear in an outage does not
/// count, nor does the outage.
struct Quarantines {
    /// By instrument.
    is_live: Vec<bool>,
    /// Records that made no sense to the engine, so far.
    rejected: u64,
    count: u64,
}

impl Quarantines {
    fn new(instruments: usize) -> Quarantines {
        Quarantines { is_live: vec![false; instruments], rejected: 0, count: 0 }
    }

    /// After the engine took a record.
    #[inline]
    fn watch(&mut self, record: &Record, engine: &Engine) {
        let rejected = engine.counts().rejected;
        let is_told = matches!(record.kind(), Some(Kind::BookState | Kind::Gap));
        if !is_told && rejected == self.rejected {
            return;
        }
        self.count += self.accept(engine);
    }

    /// Takes over which books are live; returns how many are not any more.
    fn accept(&mut self, engine: &Engine) -> u64 {
        self.rejected = engine.counts().rejected;
        let mut gone = 0;
        for (was, state) in self.is_live.iter_mut().zip(engine.market().instruments()) {
            let is = state.state == BookState::Live;
            gone += u64::from(std::mem::replace(was, is) && !is);
        }
        gone
    }
}

/// A venue's message changes what is there: its books, or what it charges.
#[inline]
fn changed(books: &mut Books, venue: &mut VenueSim, record: &Record) {
    match record.kind() {
        Some(Kind::Fee) => venue.told_fee(record.instrument, record.data[0]),
        _ => books.take(record),
    }
}

#[inline]
fn earliest(
    streams: &[Stream; 3],
    next: impl Fn(&Stream) -> Option<(i64, u64)>,
) -> Option<(usize, i64)> {
    let heads = streams.iter().enumerate().filter_map(|(idx, stream)| {
        let (at_ns, place) = next(stream)?;
        Some((at_ns, place, idx))
    });
    heads.min().map(|(at_ns, _, idx)| (idx, at_ns))
}

fn venue_named(name: &str) -> Option<Venue> {
    Venue::ALL.into_iter().find(|venue| venue.name() == name)
}

/// An amount as decimal text.
fn amount_text(amount: i128, exponent: u8) -> String {
    match i64::try_from(amount) {
        Ok(quanta) => Decimal { quanta, exponent }.to_string(),
        Err(_) => format!("{amount}e-{exponent}"),
    }
}

fn check_model(venue: Venue, model: &VenueModel) -> Result<(), RunError> {
    use crate::config::Latency;
    let key = |name: &str| format!("venue.{}.{name}", venue.name());
    for (name, latency) in
        [("feed", &model.feed), ("entry", &model.entry), ("response", &model.response)]
    {
        match latency {
            Latency::Empirical { samples_us, .. } if samples_us.is_empty() => {
                return Err(refuse(key(name), "samples_us is empty: give measured latencies"));
            }
            Latency::Recorded { .. } => {
                let why = "\"recorded\" is for entry and response, of data that has orders";
                return Err(refuse(key(name), why));
            }
            Latency::Bursty { burst_every_ms: 0, .. } => {
                return Err(refuse(key(name), "burst_every_ms must be at least 1"));
            }
            _ => {}
        }
    }
    if model.outage.is_some_and(|outage| outage.every_s == 0 || outage.lasts_ms == 0) {
        return Err(refuse(key("outage"), "every_s and lasts_ms must be at least 1"));
    }
    let fees = model.taker_fee_ppm.into_iter().chain(model.tiers.iter().map(|t| t.taker_ppm));
    if fees.into_iter().any(|ppm| 100_000 < ppm.abs()) {
        return Err(refuse(key("taker_fee_ppm"), "a fee beyond 10 % (100000 ppm)"));
    }
    Ok(())
}

type FeeTerms = (Vec<TierQuanta>, i128, Option<AssetId>);

fn fee_terms(
    venue: Venue,
    model: &VenueModel,
    universe: &Universe,
    numeraire: AssetId,
) -> Result<FeeTerms, RunError> {
    let key = |name: &str| format!("venue.{}.{name}", venue.name());
    let exponent = universe.exponent(numeraire);
    let volume = |name: &str, text: &str| -> Result<i128, RunError> {
        let amount = parse_decimal(text.as_bytes(), exponent);
        amount.map(i128::from).map_err(|error| refuse(key(name), format!("`{text}`: {error}")))
    };
    let tiers = model.tiers.iter().map(|tier| {
        Ok(TierQuanta { volume: volume("tiers", &tier.volume)?, taker_ppm: tier.taker_ppm })
    });
    let tiers = tiers.collect::<Result<Vec<_>, RunError>>()?;
    if !tiers.is_sorted_by(|a, b| a.volume < b.volume) {
        return Err(refuse(key("tiers"), "the volumes must rise"));
    }
    let fee_asset = model.fee_asset.as_ref().map(|name| {
        let found = universe.assets.iter().position(|asset| asset.name == *name);
        let why = format!("`{name}` is no asset of the recording: nothing tells its price");
        found.map(|idx| AssetId(idx as u16)).ok_or_else(|| refuse(key("fee_asset"), why))
    });
    Ok((tiers, volume("volume_30d", &model.volume_30d)?, fee_asset.transpose()?))
}

fn transfers(config: &Config, universe: &Universe) -> Result<Vec<Transfer>, RunError> {
    let mut rules = Vec::new();
    for (at, rule) in config.transfer.iter().enumerate() {
        let key = |name: &str| format!("transfer[{at}].{name}");
        let found = universe.assets.iter().position(|asset| asset.name == rule.asset);
        let asset = found.ok_or_else(|| {
            refuse(key("asset"), format!("`{}` is no asset of the recording", rule.asset))
        })?;
        let exponent = universe.assets[asset].exponent;
        let amount = |name: &str, text: &str| -> Result<i128, RunError> {
            let amount = parse_decimal(text.as_bytes(), exponent);
            amount.map(i128::from).map_err(|error| refuse(key(name), format!("`{text}`: {error}")))
        };
        let venue = |name: &str, text: &str| {
            venue_named(text).ok_or_else(|| refuse(key(name), format!("`{text}` is no venue")))
        };
        let rule = Transfer {
            asset: AssetId(asset as u16),
            from: venue("from", &rule.from)?,
            to: venue("to", &rule.to)?,
            below: amount("below", &rule.below)?,
            amount: amount("amount", &rule.amount)?,
            fee: amount("fee", &rule.fee)?,
            delay_ns: i64::from(rule.delay_s) * S,
            fail_ppm: rule.fail_ppm,
            day_max: amount("day_max", &rule.day_max)?,
            day: i64::MIN,
            sent_today: 0,
            under_way: 0,
            dice: Dice::new(config.seed, For::Transfer, at as u64),
        };
        if rule.amount <= rule.fee || rule.from == rule.to {
            return Err(refuse(key("amount"), "must be more than the fee, between two venues"));
        }
        rules.push(rule);
    }
    Ok(rules)
}
