//! All state of a run behind one lock: market, desk, truth, faces, faults; and the tick that moves it.
//!
//! Invariant: the book, the accounts, the truth and the messages about an event change under one hold of the lock,
//! so that a REST snapshot, a stream and the control port never disagree. What an order did to the book and to its
//! owner is told before the lock is given back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::Bytes;

use crate::SimError;
use crate::amount::Amount;
use crate::binance::Binance;
use crate::book::Side;
use crate::captures::Player;
use crate::coinbase::Coinbase;
use crate::config::{SimConfig, Source, Venue};
use crate::exchange::{Balance, Desk, Ended, Mode, What};
use crate::faults::{Answer, Class, Fate, Fault, Kind, Refused};
use crate::hub::{ConnId, Hub, Out, Outbox};
use crate::keys::Registry;
use crate::kraken::Kraken;
use crate::market::{Change, Event, MS, Market, Status, rng};
use crate::net::{Refusal, Request, Response};
use crate::observe::{Arrival, Observations, Wants};
use crate::truth::Truth;
use crate::ws::{Breach, Incoming};

/// What a face needs to answer and to send.
pub(crate) struct Ctx<'a> {
    pub cfg: &'a SimConfig,
    pub market: &'a mut Market,
    pub desk: &'a mut Desk,
    pub keys: &'a mut Registry,
    pub truth: &'a [Truth],
    pub hub: &'a mut Hub,
    /// UNIX nanoseconds.
    pub now: u64,
    /// Since the start of the run.
    pub uptime_ns: u64,
    /// In capture mode: whether the tape is running or over.
    pub tape: Tape<'a>,
    /// What becomes of the request at hand.
    pub fate: Fate,
    /// When its bytes were read.
    pub arrived_ns: u64,
    /// Replies to a private request; they leave as its fate wants it.
    pub replies: Vec<(ConnId, Bytes)>,
    /// Balances as they were when a fault froze them.
    stale: &'a [BTreeMap<String, Balance>],
}

impl Ctx<'_> {
    /// Balances of an account as its venue shows them.
    pub fn balances(&self, account: usize) -> BTreeMap<String, Balance> {
        let owner = &self.desk.accounts()[account];
        let faults = &self.hub.faults;
        let wrong = faults
            .active()
            .iter()
            .map(|a| &a.fault)
            .find(|f| {
                f.kind == Kind::WrongBalances
                    && f.takes_venue(owner.venue)
                    && f.takes_account(Some(&owner.name))
            })
            .map(|f| f.mode.as_deref() == Some("stale"));
        match wrong {
            None => owner.balances.clone(),
            Some(true) => self.stale.get(account).cloned().unwrap_or_default(),
            Some(false) => owner.balances.keys().map(|a| (a.clone(), Balance::default())).collect(),
        }
    }

    /// Whether queries may see an order yet.
    pub fn is_visible(&self, order: usize) -> bool {
        self.desk.orders()[order].visible_ns <= self.now
    }
}

/// A private request, seen from outside: enough to count it and to decide its fate.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub wants: Option<Wants>,
    pub account: Option<usize>,
    pub symbol: String,
    pub client_id: String,
    pub worth: Option<(String, Amount)>,
}

/// Something that waits for its time.
#[derive(Debug)]
enum Deferred {
    /// A message to carry out.
    Run { id: ConnId, text: String, fate: Box<Fate>, arrived_ns: u64 },
    /// A reply to send.
    Reply { id: ConnId, body: Bytes },
}

/// What a face needs to know of the capture player.
#[derive(Clone, Copy)]
pub(crate) enum Tape<'a> {
    /// No captures: the model.
    None,
    /// Waiting for subscribers; these are the recorded messages sent on connect.
    Waiting(&'a [Bytes]),
    /// Playing or played.
    Started,
}

/// One scripted fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cue {
    /// Seconds after the script was posted.
    pub at_s: f64,
    /// What happens then.
    pub fault: Fault,
}

pub(crate) struct World {
    pub cfg: SimConfig,
    pub market: Market,
    pub desk: Desk,
    pub keys: Registry,
    pub seen: Observations,
    pub truth: Vec<Truth>,
    pub hub: Hub,
    pub binance: Binance,
    pub coinbase: Coinbase,
    pub kraken: Kraken,
    pub player: Option<Player>,
    pub script: Vec<(u64, Fault)>,
    pub events_total: u64,
    started: Instant,
    started_unix_ns: u64,
    /// Market time minus uptime: grows when the machine slept.
    skipped_ns: u64,
    last_ns: u64,
    /// Market time up to which events were drawn.
    market_at_ns: u64,
    /// Changes of instruments whose publisher is frozen.
    frozen: BTreeMap<usize, Event>,
    /// Times at which planned closes are due.
    closing: Vec<(u64, ConnId)>,
    deferred: Vec<(u64, u64, Deferred)>,
    deferred_total: u64,
    stale: Vec<BTreeMap<String, Balance>>,
    /// Whether replies or reports leave first: the venues promise neither.
    rng: ChaCha8Rng,
}

const SCRIPT_MAX: usize = 10_000;

impl World {
    pub fn new(cfg: SimConfig) -> Result<Self, SimError> {
        let player = match &cfg.source {
            Source::Model => None,
            Source::Captures { files, pace } => Some(Player::load(files, *pace)?),
        };
        let mut cfg = cfg;
        if let Some(player) = &player {
            player.adapt(&mut cfg);
        }
        let market = Market::new(&cfg)?;
        let now = unix_ns();
        let truth = market
            .instruments()
            .iter()
            .map(|i| Truth::new(now, cfg.truth_s, &i.book, i.update_id))
            .collect();
        let mut desk = Desk::new(cfg.seed, cfg.accounts.fee_asset_price);
        let keys = Registry::build(&cfg.keys, |name, client, venue| {
            desk.find_account(name, venue).unwrap_or_else(|| {
                let mut opening = cfg.opening(venue);
                if let Some(chosen) = client.balances.get(&venue) {
                    opening.extend(chosen.iter().map(|(a, amount)| (a.clone(), *amount)));
                }
                desk.open_account(name, venue, cfg.fee_tier(venue), opening)
            })
        })?;
        let mut world = Self {
            desk,
            keys,
            seen: Observations::default(),
            rng: rng(cfg.seed, 8),
            binance: Binance::new(&cfg, &market),
            coinbase: Coinbase::new(&cfg, &market),
            kraken: Kraken::new(&cfg, &market),
            hub: Hub::new(cfg.queue_mib_max << 20),
            cfg,
            market,
            truth,
            player,
            script: Vec::new(),
            events_total: 0,
            started: Instant::now(),
            started_unix_ns: now,
            skipped_ns: 0,
            last_ns: now,
            market_at_ns: 0,
            frozen: BTreeMap::new(),
            closing: Vec::new(),
            deferred: Vec::new(),
            deferred_total: 0,
            stale: Vec::new(),
        };
        if let Some(player) = &mut world.player {
            player.prepare(&mut world.market, &mut world.truth, now);
        }
        Ok(world)
    }

    /// The clock's start: the monotonic instant and the UNIX time that belong together.
    pub fn started(&self) -> (Instant, u64) {
        (self.started, self.started_unix_ns)
    }

    /// UNIX nanoseconds, monotonic: steps of the machine's clock do not reach the market.
    pub fn now(&mut self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_ns = (self.last_ns + 1).max(self.started_unix_ns + elapsed);
        self.hub.now_ns = self.last_ns;
        self.last_ns
    }

    pub fn uptime_ns(&self) -> u64 {
        self.last_ns - self.started_unix_ns
    }

    fn market_ns(&self) -> u64 {
        self.uptime_ns().saturating_sub(self.skipped_ns)
    }

    /// Splits the world into what faces see and the faces.
    pub fn split(&mut self) -> (Ctx<'_>, &mut Binance, &mut Coinbase, &mut Kraken) {
        let uptime_ns = self.last_ns - self.started_unix_ns;
        let tape = match &self.player {
            None => Tape::None,
            Some(player) if player.is_started() => Tape::Started,
            Some(player) => Tape::Waiting(player.on_connect()),
        };
        let ctx = Ctx {
            cfg: &self.cfg,
            market: &mut self.market,
            desk: &mut self.desk,
            keys: &mut self.keys,
            fate: Fate::default(),
            arrived_ns: self.last_ns,
            replies: Vec::new(),
            stale: &self.stale,
            truth: &self.truth,
            hub: &mut self.hub,
            now: self.last_ns,
            uptime_ns,
            tape,
        };
        (ctx, &mut self.binance, &mut self.coinbase, &mut self.kraken)
    }

    /// Moves everything to now.
    pub fn tick(&mut self) {
        let now = self.now();
        self.run_script(now);
        for fault in self.hub.faults.expire(now) {
            self.undo(&fault);
        }
        self.thaw();
        let mut until = self.market_ns();
        let behind = until.saturating_sub(self.market_at_ns);
        if behind > 1_000 * MS {
            // The machine slept or is overloaded: the market waits for it rather than rush.
            self.skipped_ns += behind - 100 * MS;
            until = self.market_ns();
        }
        self.market_at_ns = until;
        while let Some(event) = self.market.next(until) {
            let at = self.now();
            let event = self.desk.react(&mut self.market, at, event);
            self.publish(at, event);
        }
        self.run_deferred();
        self.desk.advance(&mut self.market, now);
        self.settle(Vec::new());
        self.play();
        self.hub.tick();
        let (mut ctx, binance, coinbase, kraken) = self.split();
        binance.tick(&mut ctx);
        coinbase.tick(&mut ctx);
        kraken.tick(&mut ctx);
        let due: Vec<ConnId> =
            self.closing.iter().filter(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        self.closing.retain(|(at, _)| *at > now);
        for id in due {
            self.hub.push(id, Out::Close(1001, "server shutdown".to_owned()));
        }
    }

    fn play(&mut self) {
        let Some(mut player) = self.player.take() else { return };
        player.play(self);
        self.player = Some(player);
    }

    /// Whether each venue of the tape has a subscriber.
    pub fn has_subscriber(&self, venue: Venue) -> bool {
        match venue {
            Venue::Binance => self.binance.has_subscriber(),
            Venue::Coinbase => self.coinbase.has_subscriber(),
            Venue::Kraken => self.kraken.has_subscriber(),
        }
    }

    /// Publishes what orders did to the books, and tells owners and askers; who hears first is drawn.
    fn settle(&mut self, replies: Vec<(ConnId, Bytes)>) {
        for event in self.desk.take_events() {
            let at = self.now();
            self.publish(at, event);
        }
        let reports = self.desk.take_reports();
        if reports.is_empty() && replies.is_empty() {
            return;
        }
        let replies_first = self.rng.random::<bool>();
        if replies_first {
            self.reply(&replies);
        }
        for report in &reports {
            let account = &self.desk.accounts()[report.account];
            let (venue, name) = (account.venue, account.name.clone());
            let seen = self.seen.of(report.account);
            seen.open_max = seen.open_max.max(account.open.len());
            if let What::Trade(order, fill) = &report.what {
                let exposure = self.seen.exposure.entry(name).or_default();
                let sign = if fill.side == Side::Bid { 1 } else { -1 };
                exposure.add(&order.base, Amount(fill.qty.0 * sign));
                exposure.add(&order.quote, Amount(-fill.cost.0 * sign));
                exposure.add(&fill.fee_asset, -fill.fee);
            }
            let (mut ctx, binance, coinbase, kraken) = self.split();
            match venue {
                Venue::Binance => binance.on_report(&mut ctx, report),
                Venue::Coinbase => coinbase.on_report(&mut ctx, report),
                Venue::Kraken => kraken.on_report(&mut ctx, report),
            }
        }
        if !replies_first {
            self.reply(&replies);
        }
    }

    fn reply(&mut self, replies: &[(ConnId, Bytes)]) {
        for (id, body) in replies {
            self.hub.send(*id, Class::Reply, "", body.clone());
        }
    }

    /// Records an event and tells the clients of it.
    pub fn publish(&mut self, at: u64, event: Event) {
        self.events_total += 1;
        let inst = &self.market.instruments()[event.inst];
        self.truth[event.inst].record(at, &event, &inst.book);
        let venue = inst.spec.venue;
        if !self.hub.faults.is_idle()
            && self.hub.faults.state(Kind::FreezeSymbol, venue, Some(&inst.spec.symbol)).is_some()
        {
            match self.frozen.get_mut(&event.inst) {
                Some(held) => merge(held, event),
                None => {
                    self.frozen.insert(event.inst, event);
                }
            }
            return;
        }
        self.tell(event);
    }

    /// Records an event of a tape; its raw message is what clients are sent.
    pub fn note(&mut self, at: u64, event: &Event) {
        self.events_total += 1;
        let inst = &self.market.instruments()[event.inst];
        self.truth[event.inst].record(at, event, &inst.book);
    }

    fn tell(&mut self, event: Event) {
        let venue = self.market.instruments()[event.inst].spec.venue;
        let (mut ctx, binance, coinbase, kraken) = self.split();
        match venue {
            Venue::Binance => binance.on_event(&mut ctx, &event),
            Venue::Coinbase => coinbase.on_event(&mut ctx, &event),
            Venue::Kraken => kraken.on_event(&mut ctx, &event),
        }
    }

    /// Publishes what frozen publishers held, once they may speak again.
    fn thaw(&mut self) {
        let ready: Vec<usize> = self
            .frozen
            .keys()
            .copied()
            .filter(|inst| {
                let spec = &self.market.instruments()[*inst].spec;
                let faults = &self.hub.faults;
                faults.state(Kind::FreezeSymbol, spec.venue, Some(&spec.symbol)).is_none()
            })
            .collect();
        for inst in ready {
            if let Some(mut event) = self.frozen.remove(&inst) {
                event.changes.retain(|c| c.old != c.new);
                self.tell(event);
            }
        }
    }

    /// Starts faults whose time has come.
    fn run_script(&mut self, now: u64) {
        let due: Vec<Fault> =
            self.script.iter().filter(|(at, _)| *at <= now).map(|(_, f)| f.clone()).collect();
        self.script.retain(|(at, _)| *at > now);
        for fault in due {
            if let Err(why) = self.inject(fault) {
                tracing::warn!(why, "a scripted fault was refused");
            }
        }
    }

    /// Adds cues to the script.
    pub fn add_script(&mut self, cues: Vec<Cue>) -> Result<usize, String> {
        let now = self.now();
        if self.script.len() + cues.len() > SCRIPT_MAX {
            return Err(format!("a script has at most {SCRIPT_MAX} cues"));
        }
        for cue in &cues {
            cue.fault.validate()?;
            if !(cue.at_s.is_finite() && (0.0..=604_800.0).contains(&cue.at_s)) {
                return Err("at_s must be from 0 to 604800".to_owned());
            }
        }
        let count = cues.len();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        self.script.extend(cues.into_iter().map(|c| (now + (c.at_s * 1e9) as u64, c.fault)));
        Ok(count)
    }

    /// Starts a fault and returns its id.
    pub fn inject(&mut self, fault: Fault) -> Result<u64, String> {
        fault.validate()?;
        let now = self.now();
        if let Some(symbol) = &fault.symbol
            && !Venue::ALL
                .into_iter()
                .filter(|v| fault.takes_venue(*v))
                .any(|v| self.market.find(v, symbol).is_some())
        {
            return Err(format!("unknown symbol {symbol}"));
        }
        let id = self.hub.faults.start(fault.clone(), now).ok_or("too many faults at once")?;
        tracing::info!(id, kind = ?fault.kind, venue = ?fault.venue, symbol = ?fault.symbol, "fault");
        let instant = self.act(&fault, now);
        if instant {
            self.hub.faults.finish(id);
        }
        Ok(id)
    }

    fn concerned(&self, fault: &Fault) -> Vec<usize> {
        let matches = |(_, i): &(usize, &crate::market::Instrument)| {
            fault.takes_venue(i.spec.venue) && fault.takes_symbol(&i.spec.symbol)
        };
        self.market.instruments().iter().enumerate().filter(matches).map(|(i, _)| i).collect()
    }

    fn connections(&self, fault: &Fault) -> Vec<ConnId> {
        Venue::ALL
            .into_iter()
            .filter(|v| fault.takes_venue(*v))
            .flat_map(|v| self.hub.of(v))
            .filter(|id| fault.connection.is_none_or(|c| c == *id))
            .collect()
    }

    /// Does what a fault does at once; returns whether that was all.
    fn act(&mut self, fault: &Fault, now: u64) -> bool {
        let ms = |default: i64| u64::try_from(fault.ms.unwrap_or(default)).unwrap_or(0) * MS;
        match fault.kind {
            Kind::Disconnect => {
                let out = match fault.mode.as_deref() {
                    Some("reset") => Out::Reset,
                    Some("abrupt") => Out::Abrupt,
                    _ => Out::Close(
                        fault.code.unwrap_or(1001),
                        fault.reason.clone().unwrap_or_default(),
                    ),
                };
                for id in self.connections(fault) {
                    self.hub.push(id, out.clone());
                }
                true
            }
            Kind::Oversized => {
                let padding = "x".repeat(fault.mib.unwrap_or(16) << 20);
                let body = Bytes::from(format!("{{\"zz_padding\":\"{padding}\"}}"));
                for id in self.connections(fault) {
                    self.hub.push(id, Out::Text(body.clone()));
                }
                true
            }
            Kind::HostileFrame => {
                for id in self.connections(fault) {
                    let bytes = self.hub.faults.hostile(fault.variant.as_deref());
                    self.hub.push(id, Out::Raw(bytes));
                }
                true
            }
            Kind::ServerShutdown => {
                let (mut ctx, binance, _, _) = self.split();
                binance.server_shutdown(&mut ctx, fault.connection);
                let at = now + ms(10_000);
                let ids: Vec<ConnId> = self
                    .connections(fault)
                    .into_iter()
                    .filter(|id| self.hub.links.get(id).is_some_and(|l| l.venue == Venue::Binance))
                    .collect();
                self.closing.extend(ids.into_iter().map(|id| (at, id)));
                true
            }
            Kind::Crossed => {
                for inst in self.concerned(fault) {
                    let market_now = self.market_ns();
                    if let Some(event) = self.market.cross(inst, market_now, ms(150)) {
                        let at = self.now();
                        self.publish(at, event);
                    }
                }
                true
            }
            Kind::Spike => {
                let market_now = self.market_ns();
                for inst in self.concerned(fault) {
                    let bps = fault.bps.unwrap_or(0.0);
                    self.market.spike(inst, market_now, bps, ms(500));
                }
                true
            }
            Kind::Burst => {
                let market_now = self.market_ns();
                for venue in Venue::ALL.into_iter().filter(|v| fault.takes_venue(*v)) {
                    self.market.set_burst(venue, fault.factor.unwrap_or(10.0), market_now);
                }
                false
            }
            Kind::Halt => {
                for inst in self.concerned(fault) {
                    self.set_status(inst, Status::Halted);
                }
                false
            }
            Kind::Maintenance => {
                self.set_modes(fault, fault.mode.as_deref().unwrap_or("maintenance"));
                false
            }
            Kind::WrongBalances => {
                self.stale = self.desk.accounts().iter().map(|a| a.balances.clone()).collect();
                false
            }
            Kind::SessionExpiry => {
                let (mut ctx, binance, _, kraken) = self.split();
                if fault.takes_venue(Venue::Binance) {
                    binance.expire_sessions(&mut ctx);
                }
                if fault.takes_venue(Venue::Kraken) {
                    kraken.expire_sessions();
                }
                true
            }
            Kind::StreamDrop | Kind::UserReplay => {
                let out = match fault.mode.as_deref() {
                    Some("close") => Out::Close(1001, String::new()),
                    _ => Out::Reset,
                };
                let count = usize::try_from(fault.count.unwrap_or(1_000)).unwrap_or(1_000);
                let ids: Vec<ConnId> = self
                    .connections(fault)
                    .into_iter()
                    .filter(|id| {
                        let link = self.hub.links.get(id);
                        link.is_some_and(|l| fault.takes_account(l.account.as_deref()))
                    })
                    .collect();
                self.hub.act_on_users(fault.kind, &ids, count, &out);
                true
            }
            _ => false,
        }
    }

    /// Takes back what a fault did, when it ends.
    fn undo(&mut self, fault: &Fault) {
        match fault.kind {
            Kind::Burst => {
                let market_now = self.market_ns();
                for venue in Venue::ALL.into_iter().filter(|v| fault.takes_venue(*v)) {
                    let still = self.hub.faults.state(Kind::Burst, venue, None);
                    let factor = still.map_or(1.0, |f| f.factor.unwrap_or(10.0));
                    self.market.set_burst(venue, factor, market_now);
                }
            }
            Kind::Halt => {
                for inst in self.concerned(fault) {
                    let spec = &self.market.instruments()[inst].spec;
                    let faults = &self.hub.faults;
                    if faults.state(Kind::Halt, spec.venue, Some(&spec.symbol)).is_none() {
                        self.set_status(inst, Status::Online);
                    }
                }
            }
            Kind::Maintenance => self.set_modes(fault, "online"),
            _ => {}
        }
    }

    /// Changes what the venues of a fault take, and lets them say so; a fault that still runs wins.
    fn set_modes(&mut self, fault: &Fault, mode: &str) {
        for venue in Venue::ALL.into_iter().filter(|v| fault.takes_venue(*v)) {
            let still = self.hub.faults.state(Kind::Maintenance, venue, None);
            let mode =
                still.map_or(mode, |f| f.mode.as_deref().unwrap_or("maintenance")).to_owned();
            self.desk.set_mode(venue, Mode::from_name(&mode));
            let insts: Vec<usize> = (0..self.market.instruments().len())
                .filter(|i| self.market.instruments()[*i].spec.venue == venue)
                .collect();
            let (mut ctx, _, coinbase, kraken) = self.split();
            match venue {
                Venue::Binance => {}
                Venue::Coinbase => insts.iter().for_each(|i| coinbase.on_status(&mut ctx, *i)),
                Venue::Kraken => {
                    kraken.set_system(&mut ctx, &mode);
                    insts.iter().for_each(|i| kraken.on_status(&mut ctx, *i));
                }
            }
        }
    }

    /// Tells the rules of an instrument anew after they changed.
    pub fn tell_rules(&mut self, inst: usize) {
        let venue = self.market.instruments()[inst].spec.venue;
        let (mut ctx, _, coinbase, kraken) = self.split();
        match venue {
            // Binance has no stream of rules: exchangeInfo tells.
            Venue::Binance => {}
            Venue::Coinbase => coinbase.on_status(&mut ctx, inst),
            Venue::Kraken => kraken.on_status(&mut ctx, inst),
        }
    }

    /// Publishes what the control port did to books and accounts.
    pub fn settle_control(&mut self) {
        self.settle(Vec::new());
    }

    /// Ends all open orders of an account as the venue's own act.
    pub fn venue_cancel(&mut self, account: usize) -> usize {
        let now = self.now();
        let ended = self.desk.cancel_all(&mut self.market, now, account, None, Ended::Venue);
        self.settle(Vec::new());
        ended.len()
    }

    fn set_status(&mut self, inst: usize, status: Status) {
        self.market.set_status(inst, status);
        let venue = self.market.instruments()[inst].spec.venue;
        let (mut ctx, _, coinbase, kraken) = self.split();
        match venue {
            // Binance has no status stream: exchangeInfo tells.
            Venue::Binance => {}
            Venue::Coinbase => coinbase.on_status(&mut ctx, inst),
            Venue::Kraken => kraken.on_status(&mut ctx, inst),
        }
    }

    /// Ends all faults and forgets the script.
    pub fn clear_faults(&mut self) -> usize {
        self.script.clear();
        let ended = self.hub.faults.clear();
        for fault in &ended {
            self.undo(fault);
        }
        ended.len()
    }

    /// How new connections of a venue are refused now.
    pub fn refusal(&self, venue: Venue) -> Refusal {
        match self.hub.faults.state(Kind::Refuse, venue, None) {
            None => Refusal::None,
            Some(fault) => match fault.mode.as_deref() {
                Some("reset") => Refusal::Reset,
                Some("http") => Refusal::Http(fault.status.unwrap_or(503)),
                _ => Refusal::Closed,
            },
        }
    }

    /// Decides about a WebSocket handshake.
    pub fn upgrade(&mut self, venue: Venue, request: &Request) -> Result<Outbox, Response> {
        self.now();
        if let Refusal::Http(status) = self.refusal(venue) {
            return Err(Response::html(status, "<html><body>unavailable</body></html>"));
        }
        let (mut ctx, binance, coinbase, kraken) = self.split();
        match venue {
            Venue::Binance => binance.open(&mut ctx, request),
            Venue::Coinbase => coinbase.open(&mut ctx, request),
            Venue::Kraken => kraken.open(&mut ctx, request),
        }
    }

    /// Takes one message of a client; returns how long something it caused must wait, if it must.
    pub fn message(&mut self, id: ConnId, message: Incoming, read_at: Instant) -> Option<Duration> {
        let now = self.now();
        let venue = self.hub.links.get(&id).map(|l| l.venue)?;
        if let Incoming::Close(code) = message {
            self.hub.control(id, Out::Close(code.unwrap_or(1000), String::new()));
            return None;
        }
        let arrived_ns = unix_at(self.started(), read_at);
        if let Incoming::Text(text) = &message {
            let (ctx, binance, _, kraken) = self.split();
            let look = match venue {
                Venue::Binance => binance.look_ws(&ctx, id, text),
                Venue::Coinbase => None,
                Venue::Kraken => kraken.look_ws(&ctx, text),
            };
            if let Some(look) = look {
                let fate = self.decide(venue, look, arrived_ns);
                let text = text.clone();
                if fate.before_ns > 0 {
                    let due = now + fate.before_ns;
                    return Some(
                        self.defer(
                            due,
                            Deferred::Run { id, text, fate: Box::new(fate), arrived_ns },
                        ),
                    );
                }
                return self.perform(id, text, fate, arrived_ns);
            }
        }
        let (mut ctx, binance, coinbase, kraken) = self.split();
        ctx.arrived_ns = arrived_ns;
        match venue {
            Venue::Binance => binance.message(&mut ctx, id, message),
            Venue::Coinbase => coinbase.message(&mut ctx, id, message),
            Venue::Kraken => kraken.message(&mut ctx, id, message),
        }
        let replies = std::mem::take(&mut ctx.replies);
        self.settle(replies);
        None
    }

    /// Counts a private request and decides its fate.
    fn decide(&mut self, venue: Venue, look: Look, arrived_ns: u64) -> Fate {
        let Some(wants) = look.wants else { return Fate::default() };
        let owner = look.account.map(|a| self.desk.accounts()[a].name.clone());
        let mut fate = if self.hub.faults.is_idle() {
            Fate::default()
        } else {
            let now = self.last_ns;
            self.hub.faults.fate(venue, owner.as_deref(), &look.symbol, wants, now)
        };
        if wants != Wants::Query {
            let [before, after] = self.cfg.order_delays_ns(venue);
            fate.before_ns += before;
            fate.after_ns += after;
        }
        if let Some(account) = look.account {
            let seen = self.seen.of(account);
            seen.arrival(Arrival {
                at_ns: arrived_ns,
                wants,
                symbol: look.symbol,
                client_id: look.client_id,
                worth: look.worth,
            });
            let limited = matches!(fate.answer, Answer::Refused(Refused::RateLimit(_)));
            seen.limited_total += u64::from(limited);
            seen.refused_total += u64::from(matches!(fate.answer, Answer::Refused(_)));
        }
        fate
    }

    fn defer(&mut self, due: u64, what: Deferred) -> Duration {
        self.deferred_total += 1;
        self.deferred.push((due, self.deferred_total, what));
        Duration::from_nanos(due.saturating_sub(self.last_ns))
    }

    /// Does what was deferred and is due, in order.
    pub fn run_deferred(&mut self) {
        let now = self.now();
        loop {
            let next = self
                .deferred
                .iter()
                .enumerate()
                .filter(|(_, (due, _, _))| *due <= now)
                .min_by_key(|(_, (due, n, _))| (*due, *n));
            let Some((at, _)) = next else { return };
            match self.deferred.swap_remove(at).2 {
                Deferred::Run { id, text, fate, arrived_ns } => {
                    // What it defers in turn is run by a later tick.
                    self.perform(id, text, *fate, arrived_ns);
                }
                Deferred::Reply { id, body } => self.hub.send(id, Class::Reply, "", body),
            }
        }
    }

    /// Carries out a private message under its fate.
    fn perform(
        &mut self,
        id: ConnId,
        text: String,
        fate: Fate,
        arrived_ns: u64,
    ) -> Option<Duration> {
        let venue = self.hub.links.get(&id).map(|l| l.venue)?;
        let (answer, after_ns, skipped) = (fate.answer.clone(), fate.after_ns, fate.skipped);
        let (mut ctx, binance, coinbase, kraken) = self.split();
        (ctx.fate, ctx.arrived_ns) = (fate, arrived_ns);
        if !skipped {
            let message = Incoming::Text(text.clone());
            match venue {
                Venue::Binance => binance.message(&mut ctx, id, message),
                Venue::Coinbase => coinbase.message(&mut ctx, id, message),
                Venue::Kraken => kraken.message(&mut ctx, id, message),
            }
        }
        let mut replies = std::mem::take(&mut ctx.replies);
        match &answer {
            Answer::Normal => {}
            Answer::None | Answer::Reset { .. } => replies.clear(),
            wrong @ (Answer::Ambiguous(_) | Answer::Refused(_)) => {
                let body = match venue {
                    Venue::Binance => binance.wrong_answer(&ctx, &text, wrong),
                    _ => kraken.wrong_answer(&ctx, &text, wrong),
                };
                replies = vec![(id, Bytes::from(body))];
            }
        }
        let mut wait = None;
        if after_ns > 0 {
            let due = self.last_ns + after_ns;
            for (id, body) in std::mem::take(&mut replies) {
                wait = Some(self.defer(due, Deferred::Reply { id, body }));
            }
        }
        if let Answer::Reset { close } = answer {
            self.hub.push(id, if close { Out::Close(1001, String::new()) } else { Out::Reset });
        }
        self.settle(replies);
        wait
    }

    /// Ends a connection that broke the WebSocket protocol.
    pub fn breach(&mut self, id: ConnId, breach: Breach) {
        self.hub.control(id, Out::Close(breach.code, breach.reason.to_owned()));
    }

    /// Forgets a connection that is gone.
    pub fn closed(&mut self, id: ConnId) {
        self.hub.links.remove(&id);
        self.closing.retain(|(_, c)| *c != id);
        self.binance.closed(id);
        self.coinbase.closed(id);
        self.kraken.closed(id);
    }

    /// Decides the fate of a REST request that is about to be answered.
    pub fn rest_fate(&mut self, venue: Venue, request: &Request) -> Fate {
        self.now();
        let arrived_ns = unix_at(self.started(), request.read_at);
        let (ctx, binance, coinbase, kraken) = self.split();
        let look = match venue {
            Venue::Binance => binance.look(&ctx, request),
            Venue::Coinbase => coinbase.look(&ctx, request),
            Venue::Kraken => kraken.look(&ctx, request),
        };
        look.map_or_else(Fate::default, |look| self.decide(venue, look, arrived_ns))
    }

    /// Answers a REST request.
    pub fn rest(&mut self, venue: Venue, request: &Request, fate: &Fate) -> Response {
        self.now();
        if let Refusal::Http(status) = self.refusal(venue) {
            return Response::html(status, "<html><body>unavailable</body></html>");
        }
        let arrived_ns = unix_at(self.started(), request.read_at);
        let spoilt = self.hub.faults.state(Kind::HttpStatus, venue, None).cloned();
        let (mut ctx, binance, coinbase, kraken) = self.split();
        if let Some(fault) = spoilt {
            let status = fault.status.unwrap_or(503);
            if fault.html.unwrap_or(matches!(status, 403 | 520..=529)) {
                let page = "<html><head><title>Error</title></head><body><h1>The request could \
                            not be satisfied.</h1></body></html>";
                return Response::html(status, page);
            }
            return match venue {
                Venue::Binance => binance.error_page(&ctx, status),
                Venue::Coinbase => coinbase.error_page(status),
                Venue::Kraken => kraken.error_page(status),
            };
        }
        (ctx.fate, ctx.arrived_ns) = (fate.clone(), arrived_ns);
        let mut response = Response::json(200, String::new());
        if !fate.skipped {
            response = match venue {
                Venue::Binance => binance.rest(&mut ctx, request),
                Venue::Coinbase => coinbase.rest(&mut ctx, request),
                Venue::Kraken => kraken.rest(&mut ctx, request),
            };
        }
        if matches!(fate.answer, Answer::Ambiguous(_) | Answer::Refused(_)) {
            response = match venue {
                Venue::Binance => binance.wrong_response(&ctx, &fate.answer),
                Venue::Coinbase => coinbase.wrong_response(&ctx, request, &fate.answer),
                Venue::Kraken => kraken.wrong_response(&ctx, &fate.answer),
            };
        }
        self.settle(Vec::new());
        response
    }
}

/// Adds an event to one that is held back: newest quantity wins, ids run on.
fn merge(held: &mut Event, event: Event) {
    for change in event.changes {
        match held.changes.iter_mut().find(|c| c.side == change.side && c.px == change.px) {
            Some(earlier) => earlier.new = change.new,
            None => held.changes.push(change),
        }
    }
    held.last_id = event.last_id;
    held.bbo_changed |= event.bbo_changed;
    held.trades.extend(event.trades);
    // A frozen minute of trades is not replayed in full: the newest thousand are.
    let surplus = held.trades.len().saturating_sub(1_000);
    held.trades.drain(..surplus);
}

/// A snapshot's levels, altered near the top for `wrong_snapshot`: one quantity, one level missing, one
/// level that never was.
pub(crate) fn spoil_snapshot(levels: &mut Vec<(i64, i64)>, side: Side) {
    if let Some(best) = levels.first_mut() {
        best.1 += best.1 / 2 + 1;
    }
    if levels.len() > 3 {
        levels.remove(2);
    }
    if let Some(last) = levels.get(4).copied() {
        let px = match side {
            Side::Bid => last.0 + 1,
            Side::Ask => last.0 - 1,
        };
        if !levels.iter().any(|l| l.0 == px) {
            levels.insert(4, (px, last.1 + 3));
        }
    }
}

/// Changes of one side as `(px, new)`, best first.
pub(crate) fn changes_of(changes: &[Change], side: Side) -> Vec<(i64, i64)> {
    let mut rows: Vec<(i64, i64)> =
        changes.iter().filter(|c| c.side == side).map(|c| (c.px, c.new)).collect();
    rows.sort_by_key(|(px, _)| std::cmp::Reverse(side.key(*px)));
    rows
}

/// UNIX nanoseconds of an instant, by the clock that began at `started`.
pub(crate) fn unix_at((started, unix_ns): (Instant, u64), at: Instant) -> u64 {
    let since = at.saturating_duration_since(started).as_nanos();
    unix_ns + u64::try_from(since).unwrap_or(0)
}

/// The machine's wall clock, read once at start.
pub(crate) fn unix_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|d| u64::try_from(d.as_nanos()).ok()).unwrap_or(0)
}
