//! What every venue's order entry shares: order states, reports, requests under way, session, audits.
//!
//! Invariants:
//! - An order whose outcome is not known is told as unknown, never as rejected, and is asked about until
//!   there is proof (OE-03, OE-04). Nothing here can send an order again.
//! - A fill is told with the venue's own trade id, once; a fill that comes after its order's end is told
//!   too (OE-08), and the same id with another content halts the venue (AC-01).
//! - The first authoritative word on an order settles it, whichever way it comes; what comes later only
//!   adds fills (OE-06, AC-03).
//! - While a reconciliation runs, what the user stream says is held and applied after it (S10).
//!
//! Not here: what venues say and how (`binance`, `coinbase`, `kraken`), when to ask (`gateway`), what
//! becomes of fills that were told (`busts`).

use std::collections::{HashSet, VecDeque};

use tandem_core::account::{Balance, BalanceSource, Session, SessionState};
use tandem_core::instrument::Universe;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::order::{ClientId, DoneStatus, FillTerms, RejectClass, Report, UnknownCause};
use tandem_core::record::{Kind, Record, Venue, flag};
use tandem_core::units::{Amount, Px, Qty};
use tandem_feeds::machine::Stamps;
use tandem_feeds::spec::VenueInstrument;
use tandem_feeds::symbols::Symbols;
use tandem_shm::fnv1a;

use crate::budget::Budgets;
use crate::busts::{Busts, Word};
use crate::config::Config;
use crate::guard::{GuardReason, usd_ceiling};
use crate::machine::{Action, Audit};
use crate::mute::muted;
use crate::orders::{End, Name, Orders, Told};

/// Records that wait for the tile.
const RECORDS: usize = 4_096;
/// Requests under way.
const ASKED: usize = 1_024;
/// Messages of the user stream held while a reconciliation runs.
const HELD_MAX: usize = 8_192;
/// Trades whose order is not known yet.
const STRAYS_MAX: usize = 4_096;

/// An instrument of the venue.
#[derive(Clone, Debug)]
pub struct Listing {
    /// As records carry it.
    pub id: u16,
    /// As orders name it.
    pub symbol: String,
    /// As REST names it.
    pub rest_symbol: String,
    /// A price counts 10^-`px_exponent`.
    pub px_exponent: u8,
    /// A quantity counts 10^-`qty_exponent`.
    pub qty_exponent: u8,
    /// Amounts of quote count 10^-`quote_exponent`.
    pub quote_exponent: u8,
    /// Index of the quote asset.
    pub quote: u16,
    /// At most this many dollars for one of quote.
    pub usd_ceiling: i128,
}

impl Listing {
    /// Returns what an order may be worth at most, in US dollars, rounded up.
    #[must_use]
    pub fn usd(&self, px: Px, qty: Qty) -> i128 {
        let scale = 10i128.pow(u32::from(self.px_exponent) + u32::from(self.qty_exponent));
        let quote = i128::from(px.0) * i128::from(qty.0);
        quote.saturating_mul(self.usd_ceiling) / scale + 1
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A new order.
    New(Name),
    /// A cancel.
    Cancel(Name),
    /// What became of an order.
    Query(Name),
    /// The same, among those that have ended (Kraken lists them apart).
    QueryEnded(Name),
    /// The trades of an order.
    OrderTrades(Name),
    /// Which order a venue's id is.
    Identify(u128),
    /// Part of an audit: number of the part.
    Audit(Audit, usize),
    /// Opening the session.
    Logon,
    /// Opening the user stream.
    Subscribe,
    /// Something whose only purpose is to be answered.
    Alive,
    /// Putting off the dead-man switch.
    DeadMan,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its number.
    pub id: u64,
    /// The WebSocket it went by; 0 for HTTP.
    pub conn: u32,
    /// What it was for.
    pub ask: Ask,
    /// When it was sent.
    pub sent_ns: i64,
}

/// How far the connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// None.
    Down,
    /// Connecting, logging on, subscribing.
    Connecting,
    /// Logged on, user stream open.
    Open,
}

/// One fill as a venue tells it, in our quanta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Price.
    pub px: Px,
    /// Quantity.
    pub qty: Qty,
    /// Fee, rounded against us.
    pub fee: Amount,
    /// Its asset; `u16::MAX` where it is none of ours.
    pub asset: u16,
    /// The venue's trade id, or a hash of it.
    pub trade_id: u64,
    /// What else the venue calls it; 0 where it has one name.
    pub alias: u64,
    /// When, by the venue's clock.
    pub at_ns: i64,
    /// What is said of it.
    pub word: Word,
}

impl Fill {
    /// Returns what it moves.
    #[must_use]
    pub const fn terms(&self) -> FillTerms {
        FillTerms { px: self.px, qty: self.qty, fee: self.fee, asset: self.asset }
    }

    /// Returns its trade id as records carry it: zero is none there, so a venue that begins to count at
    /// zero gets the other end.
    #[must_use]
    pub const fn name(&self) -> u64 {
        if self.trade_id == 0 { u64::MAX } else { self.trade_id }
    }
}

/// An open order as a venue lists it.
#[derive(Clone, Copy, Debug)]
pub struct OpenOrder<'a> {
    /// The client id it has, if any.
    pub client: &'a [u8],
    /// The venue's id.
    pub venue_id: u128,
    /// Position of its instrument among ours; nothing where it is none of ours.
    pub position: Option<usize>,
    /// Limit.
    pub px: Px,
    /// What is left of it.
    pub left: Qty,
    /// Filled so far.
    pub cum: Qty,
    /// 0 buys, 1 sells.
    pub side: i64,
}

/// Counters of a gateway since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each name says it")]
pub struct DeskStats {
    pub sent: u64,
    pub acks: u64,
    pub fills: u64,
    pub busts: u64,
    pub duplicates: u64,
    pub unknowns: u64,
    pub unknown_codes: u64,
    pub never_accepted: u64,
    pub rejects: [u64; RejectClass::ALL.len()],
    pub denials: [u64; GuardReason::ALL.len()],
    pub cancels: u64,
    pub cancel_rejects: u64,
    pub queries: u64,
    pub malformed: u64,
    pub foreign: u64,
    pub orphans: u64,
    pub fee_asset_unknown: u64,
    pub overflows: u64,
    pub reconciliations: u64,
    pub disconnects: u64,
    pub suspensions: u64,
    pub records: u64,
}

/// The progress of a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recon {
    /// None is needed until the user stream is open.
    Idle,
    /// Audits are under way: those that are to begin, and how many parts of each are out.
    Running {
        /// Whether each audit has ended well.
        done: [bool; 4],
    },
    /// Ended: the account is known.
    Clean,
}

/// An open order of somebody else, as the engine was told of it.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    instrument: u16,
    /// What it is called towards the engine.
    hash: i64,
    /// The list that is being read has it.
    is_listed: bool,
}

/// Most of them that are known one by one: as many as the engine keeps.
const FOREIGN: usize = 64;

/// The shared part of a venue's order entry.
#[derive(Debug)]
pub struct Desk {
    /// Where.
    pub venue: Venue,
    /// What the operator chose.
    pub config: Config,
    /// The venue's instruments.
    pub listings: Vec<Listing>,
    symbols: Symbols,
    rest_symbols: Symbols,
    assets: Vec<(String, u8)>,
    /// The orders.
    pub orders: Orders,
    /// What may be asked.
    pub budgets: Budgets,
    /// Counters.
    pub stats: DeskStats,
    actions: VecDeque<Action>,
    records: VecDeque<Record>,
    /// Levels to raise, for whoever has the gate.
    pub raises: Vec<(Scope, Level, Cause)>,
    /// Reply times in ns, for whoever has the histogram.
    pub reply_ns: VecDeque<u64>,
    asked: Vec<Asked>,
    next_conn: u32,
    next_request: u64,
    /// Stamps of the message that is being handled.
    pub at: Stamps,
    /// How far the connections are.
    pub link: Link,
    /// When the user stream was last proven alive.
    pub heard_ns: i64,
    /// Until when the dead-man switch is armed; -1 not armed, 0 the venue has none.
    pub deadman_ns: i64,
    suspended_ns: i64,
    /// The venue is in maintenance or takes no orders.
    pub paused: bool,
    refused: bool,
    code: i64,
    /// The reconciliation.
    pub recon: Recon,
    fees_known: bool,
    /// How often the user stream was opened.
    pub opened: u64,
    /// When it was opened last.
    pub opened_ns: i64,
    /// Parts of each audit that are out.
    parts: [usize; 4],
    /// A part of the audit failed.
    failed: [bool; 4],
    held: Vec<(u32, Vec<u8>)>,
    holding: bool,
    strays: Vec<(u128, usize, Fill)>,
    /// Ids of the venue's that are orders of somebody else.
    others: HashSet<u128>,
    foreign: Vec<Foreign>,
    /// How many the last list had that was read to its end.
    foreign_open: i64,
    /// The host's word that the engine and its surroundings are well: the dead-man switch is put off.
    pub healthy: bool,
    /// Ids that were asked about.
    strays_asked: Vec<u128>,
    balances: Vec<(i64, i64)>,
    /// The last trade known, by the venue's clock.
    pub last_trade_ns: i64,
    /// What becomes of fills that were told.
    pub busts: Busts,
    counted: [i64; 4],
}

impl Desk {
    /// Returns a desk for a venue's instruments of a universe.
    #[must_use]
    pub fn new(
        venue: Venue,
        universe: &Universe,
        instruments: &[VenueInstrument],
        config: Config,
    ) -> Desk {
        let listings: Vec<Listing> = instruments
            .iter()
            .filter(|instrument| instrument.venue == venue)
            .map(|instrument| {
                let quote = universe.instruments[usize::from(instrument.id)].quote;
                Listing {
                    id: instrument.id,
                    symbol: instrument.symbol.clone(),
                    rest_symbol: instrument.rest_symbol.clone(),
                    px_exponent: instrument.px_exponent,
                    qty_exponent: instrument.qty_exponent,
                    quote_exponent: universe.exponent(quote),
                    quote: quote.0,
                    usd_ceiling: usd_ceiling(&universe.assets[usize::from(quote.0)].name),
                }
            })
            .collect();
        let budgets = Budgets::new(venue, listings.len(), &config);
        let since = config.trades_since_ns;
        Desk {
            venue,
            symbols: Symbols::new(listings.iter().map(|listing| listing.symbol.as_str())),
            rest_symbols: Symbols::new(listings.iter().map(|listing| listing.rest_symbol.as_str())),
            listings,
            assets: universe.assets.iter().map(|a| (a.name.clone(), a.exponent)).collect(),
            orders: Orders::default(),
            budgets,
            stats: DeskStats::default(),
            actions: VecDeque::with_capacity(256),
            records: VecDeque::with_capacity(RECORDS),
            raises: Vec::with_capacity(8),
            reply_ns: VecDeque::with_capacity(256),
            asked: Vec::with_capacity(ASKED),
            next_conn: 1,
            next_request: 1,
            at: Stamps::default(),
            link: Link::Down,
            heard_ns: 0,
            deadman_ns: if venue == Venue::Kraken { -1 } else { 0 },
            suspended_ns: 0,
            paused: false,
            refused: false,
            code: 0,
            recon: Recon::Idle,
            fees_known: false,
            opened: 0,
            opened_ns: 0,
            parts: [0; 4],
            failed: [false; 4],
            held: Vec::new(),
            holding: false,
            strays: Vec::new(),
            strays_asked: Vec::new(),
            others: HashSet::new(),
            foreign: Vec::with_capacity(FOREIGN),
            foreign_open: 0,
            healthy: false,
            balances: vec![(0, 0); universe.assets.len()],
            last_trade_ns: since,
            busts: Busts::default(),
            counted: [0; 4],
            config,
        }
    }

    // Instruments and assets.

    /// Returns the position of a symbol, as orders or REST name it.
    #[must_use]
    pub fn position(&self, symbol: &[u8]) -> Option<usize> {
        self.symbols.find(symbol).or_else(|| self.rest_symbols.find(symbol))
    }

    /// Returns the position of an instrument that records name.
    #[must_use]
    pub fn position_of(&self, instrument: u16) -> Option<usize> {
        self.listings.iter().position(|listing| listing.id == instrument)
    }

    /// Returns an asset's index and exponent by its common name.
    #[must_use]
    pub fn asset(&self, name: &[u8]) -> Option<(u16, u8)> {
        let idx = self.assets.iter().position(|(known, _)| known.as_bytes() == name)?;
        Some((idx as u16, self.assets[idx].1))
    }

    // Actions and requests.

    /// Returns the next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Queues something to do.
    pub fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Asks for a connection; returns its number.
    pub fn connect(&mut self, path: &'static str, not_before_ns: i64) -> u32 {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.act(Action::Connect { conn, path, not_before_ns });
        conn
    }

    /// Returns a number for a request, never given before.
    pub fn number(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// Notes a request that was sent.
    pub fn note(&mut self, id: u64, conn: u32, ask: Ask, sent_ns: i64) {
        if self.asked.len() == ASKED {
            // Never in an orderly run: the oldest is the least likely to be answered.
            self.asked.remove(0);
            self.stats.overflows += 1;
        }
        self.asked.push(Asked { id, conn, ask, sent_ns });
    }

    /// Sends a text frame and notes what it was for.
    pub fn send(&mut self, conn: u32, id: u64, ask: Ask, text: String, now_ns: i64) {
        self.note(id, conn, ask, now_ns);
        self.act(Action::Send { conn, text });
    }

    /// Sends an HTTP request and notes what it was for; returns its number.
    pub fn http(&mut self, lane: u8, ask: Ask, bytes: Vec<u8>, now_ns: i64) -> u64 {
        let id = self.number();
        self.note(id, 0, ask, now_ns);
        self.act(Action::Http { lane, request: id as u32, bytes });
        id
    }

    /// Returns what a reply answers, once.
    pub fn answered(&mut self, id: u64, now_ns: i64) -> Option<Asked> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        let asked = self.asked.remove(at);
        if matches!(asked.ask, Ask::New(_)) && self.reply_ns.len() < 256 {
            self.reply_ns.push_back((now_ns - asked.sent_ns).max(0).unsigned_abs());
        }
        Some(asked)
    }

    /// Returns whether such a request is under way.
    #[must_use]
    pub fn is_asked(&self, ask: Ask) -> bool {
        self.asked.iter().any(|asked| asked.ask == ask)
    }

    /// Returns whether the request of this number is under way.
    #[must_use]
    pub fn is_asked_id(&self, id: u64) -> bool {
        self.asked.iter().any(|asked| asked.id == id)
    }

    /// A connection is gone: what was asked over it has no answer. New orders become unknown.
    pub fn lost(&mut self, conn: u32) {
        let mut at = 0;
        while at < self.asked.len() {
            if self.asked[at].conn != conn {
                at += 1;
                continue;
            }
            let asked = self.asked.remove(at);
            self.unanswered(asked, UnknownCause::Disconnect);
        }
    }

    /// A request has no answer, or none that says anything.
    pub fn unanswered(&mut self, asked: Asked, cause: UnknownCause) {
        match asked.ask {
            Ask::New(name) => {
                if let Some(slot) = self.orders.find(name) {
                    self.unknown(slot, cause);
                }
            }
            Ask::Audit(audit, _) => self.audited(audit, false),
            Ask::Identify(id) => self.strays_asked.retain(|asked| *asked != id),
            _ => {}
        }
    }

    /// Forgets requests that were never answered; the orders they were about have their own clocks.
    pub fn sweep(&mut self, now_ns: i64) {
        let patience = (10 * self.config.ack_ns_max).max(15_000_000_000);
        let mut at = 0;
        while at < self.asked.len() {
            if now_ns - self.asked[at].sent_ns < patience {
                at += 1;
                continue;
            }
            let asked = self.asked.remove(at);
            if !matches!(asked.ask, Ask::New(_)) {
                self.unanswered(asked, UnknownCause::Timeout);
            }
        }
    }

    // Records.

    /// Returns the next record for the engine.
    pub fn next_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// Publishes a record with the stamps of the message that is being handled.
    pub fn publish(&mut self, record: Record) {
        let at = self.at;
        let (recv_ts_ns, recv_tsc, bytes) = (at.recv_ns, at.recv_tsc, at.bytes);
        self.stats.records += 1;
        self.records.push_back(Record { recv_ts_ns, recv_tsc, bytes, ..record });
    }

    /// Reports on an order by its name alone.
    pub fn report(&mut self, name: Name, instrument: u16, report: Report) {
        match report {
            Report::Sent { .. } => self.stats.sent += 1,
            Report::Ack { .. } => self.stats.acks += 1,
            Report::Fill { .. } => self.stats.fills += 1,
            Report::Unknown { .. } => self.stats.unknowns += 1,
            Report::Reject { class, code } => {
                self.stats.rejects[class as usize - 1] += 1;
                if class == RejectClass::NotSent {
                    let denial = GuardReason::ALL.iter().position(|r| *r as i64 == code);
                    denial.into_iter().for_each(|idx| self.stats.denials[idx] += 1);
                }
            }
            Report::CancelReject { .. } => self.stats.cancel_rejects += 1,
            Report::Bust { .. } => self.stats.busts += 1,
            Report::Totals { .. } | Report::Done { .. } => {}
        }
        self.publish(report.record(self.venue, instrument, name.run, name.key));
    }

    pub(crate) fn tell(&mut self, slot: usize, report: Report) {
        let entry = self.orders.get(slot);
        let (name, instrument) = (entry.name, entry.instrument);
        self.report(name, instrument, report);
    }

    // What happens to orders.

    /// Returns the slot of an order by the client id that a venue shows, adopting it where an earlier
    /// process sent it; nothing where the id is not one of ours.
    pub fn ours(&mut self, client: &[u8], position: usize) -> Option<usize> {
        let (run, key) = ClientId::parse(client)?;
        let name = Name { run, key };
        if let Some(slot) = self.orders.find(name) {
            return Some(slot);
        }
        self.stats.orphans += 1;
        let instrument = self.listings.get(position)?.id;
        Some(self.orders.adopt(name, instrument))
    }

    /// The venue has the order.
    pub fn accepted(&mut self, slot: usize, venue_id: u128, by_stream: bool) {
        self.orders.identify(slot, venue_id);
        let entry = self.orders.get_mut(slot);
        entry.unknown = false;
        entry.streamed |= by_stream;
        if !entry.acked {
            entry.acked = true;
            let venue_id = entry.venue_id;
            self.tell(slot, Report::Ack { venue_id });
        }
    }

    /// A fill, from wherever. Returns whether it was new.
    pub fn fill(&mut self, slot: usize, fill: Fill) -> bool {
        let fill = Fill { trade_id: fill.name(), ..fill };
        self.last_trade_ns = self.last_trade_ns.max(fill.at_ns);
        let told_ns = self.at.recv_ns;
        let entry = self.orders.get_mut(slot);
        entry.unknown = false;
        let known = entry.fills.iter().find(|told| told.trade_id == fill.trade_id);
        if let Some(told) = known
            && !muted("DEDUPE")
        {
            self.stats.duplicates += 1;
            if !told.is(fill.terms()) {
                // AC-01: one id, two contents: somebody's books are wrong.
                self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Invariant));
            }
            return false;
        }
        entry.fills.push(Told {
            trade_id: fill.trade_id,
            alias: fill.alias,
            first: fill.terms(),
            now: Some(fill.terms()),
            at_ns: fill.at_ns,
            told_ns,
            is_said: false,
            doubt: None,
        });
        entry.filled = entry.filled.saturating_add(fill.qty.0);
        // I8: more than was ordered, or worse than the limit, is impossible by contract (OE-14).
        let over = 0 < entry.qty.0 && entry.qty.0 < entry.filled;
        let worse = 0 < entry.px.0
            && match entry.action {
                tandem_core::order::Action::Buy => entry.px.0 < fill.px.0,
                tandem_core::order::Action::Sell => fill.px.0 < entry.px.0,
            };
        if over || worse {
            self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Invariant));
        }
        if fill.asset == u16::MAX {
            self.stats.fee_asset_unknown += 1;
        }
        let Fill { px, qty, fee, asset, trade_id, at_ns, .. } = fill;
        let (name, instrument) = (self.orders.get(slot).name, self.orders.get(slot).instrument);
        self.stats.fills += 1;
        let report = Report::Fill { px, qty, fee, asset, trade_id };
        let record = report.record(self.venue, instrument, name.run, name.key);
        self.publish(Record { venue_ts_ns: at_ns, ..record });
        true
    }

    /// The venue's running totals; told only when they grew.
    pub fn totals(&mut self, slot: usize, qty: Qty, cost: Amount, fee: Amount, asset: u16) {
        let entry = self.orders.get_mut(slot);
        entry.unknown = false;
        if qty.0 < entry.totals.0 || (qty.0, cost.0, fee.0) == entry.totals {
            return;
        }
        entry.totals = (qty.0, cost.0, fee.0);
        self.tell(slot, Report::Totals { qty, cost, fee, asset });
    }

    /// The venue's total is known, but not yet the fills that make it: they are asked for.
    pub fn behind(&mut self, slot: usize, qty: Qty) {
        let entry = self.orders.get_mut(slot);
        entry.totals.0 = entry.totals.0.max(qty.0);
        if entry.filled < qty.0 && entry.is_live() {
            entry.poll_at_ns = entry.poll_at_ns.min(self.at.recv_ns + self.config.poll_ns);
        }
    }

    /// The order has ended with this quantity filled in all. Told again only with a larger quantity.
    pub fn done(&mut self, slot: usize, status: DoneStatus, qty: Qty) {
        let entry = self.orders.get_mut(slot);
        entry.unknown = false;
        entry.cancel = false;
        let qty = Qty(qty.0.max(entry.filled));
        let news = match entry.end {
            None => true,
            Some(End::Rejected) => 0 < qty.0,
            Some(End::Done(_, told)) => told.0 < qty.0,
        };
        if news {
            entry.poll_at_ns = 0;
            self.orders.end(slot, End::Done(status, qty));
            self.tell(slot, Report::Done { status, qty });
        }
    }

    /// The venue refused the order for certain. An order that the venue is known to have is not refused by
    /// a later word; it is asked about.
    pub fn rejected(&mut self, slot: usize, class: RejectClass, code: i64) {
        let entry = self.orders.get_mut(slot);
        if entry.end.is_some() || entry.acked || !entry.fills.is_empty() {
            entry.poll_at_ns = 0;
            return;
        }
        entry.unknown = false;
        self.orders.end(slot, End::Rejected);
        self.tell(slot, Report::Reject { class, code });
    }

    /// Nobody knows what became of the order.
    pub fn unknown(&mut self, slot: usize, cause: UnknownCause) {
        let entry = self.orders.get_mut(slot);
        if entry.end.is_some() || entry.acked || entry.unknown {
            entry.poll_at_ns = 0;
            return;
        }
        if muted("TIMEOUT") {
            return self.rejected(slot, RejectClass::Other, 0);
        }
        entry.unknown = true;
        entry.poll_at_ns = 0;
        self.tell(slot, Report::Unknown { cause });
    }

    /// A cancel was refused. The order is asked about: it may have ended (`-2011` may mean filled).
    pub fn cancel_rejected(&mut self, slot: usize, class: RejectClass, code: i64) {
        self.orders.get_mut(slot).poll_at_ns = 0;
        self.tell(slot, Report::CancelReject { class, code });
    }

    /// A query has told what becomes of the order: nothing more needs to be asked for now.
    pub fn settled(&mut self, slot: usize) {
        let entry = self.orders.get_mut(slot);
        if entry.is_live() {
            entry.poll_at_ns = i64::MAX;
        }
    }

    /// A query that was asked at `asked_ns` found no such order.
    pub fn not_found(&mut self, slot: usize, asked_ns: i64) {
        let entry = self.orders.get_mut(slot);
        entry.not_found = entry.not_found.saturating_add(1);
        entry.not_found_ns = entry.not_found_ns.max(asked_ns);
        if self.is_polled(slot) {
            // Only its trades are missing for the proof.
            self.orders.get_mut(slot).poll_at_ns = 0;
        }
        self.prove(slot);
    }

    /// A query for the order's trades that was asked at `asked_ns` has found none.
    pub fn no_trades(&mut self, slot: usize, asked_ns: i64) {
        let entry = self.orders.get_mut(slot);
        entry.clean_ns = entry.clean_ns.max(asked_ns);
        self.prove(slot);
    }

    /// Returns from when on "not found" proves something (OE-04).
    #[must_use]
    pub fn proof_from_ns(&self, slot: usize) -> i64 {
        let entry = self.orders.get(slot);
        entry.ttl_ns.max(entry.sent_ns + self.config.proof_ns) + self.config.proof_margin_ns
    }

    /// Returns whether the queries' part of the proof is there: often enough, the last one late enough.
    #[must_use]
    pub fn is_polled(&self, slot: usize) -> bool {
        let entry = self.orders.get(slot);
        let late = self.proof_from_ns(slot) <= entry.not_found_ns || muted("PROOF_TIME");
        let often = self.config.proof_polls <= entry.not_found || muted("PROOF_POLLS");
        0 < entry.not_found && late && often
    }

    /// The rule of OE-04: polled, and no trade found as late.
    fn prove(&mut self, slot: usize) {
        let polled = self.is_polled(slot);
        let entry = self.orders.get(slot);
        let clean = self.proof_from_ns(slot) <= entry.clean_ns
            || (muted("PROOF_TIME") && 0 < entry.clean_ns)
            || muted("PROOF_TRADES");
        let silent = !entry.acked && entry.fills.is_empty() && entry.end.is_none();
        if silent && polled && clean {
            self.stats.never_accepted += 1;
            self.done(slot, DoneStatus::NeverAccepted, Qty(0));
        }
    }

    /// A trade of a list, whose order is known by the venue's id alone.
    pub fn trade(&mut self, venue_id: u128, position: usize, fill: Fill) {
        self.busts.list(venue_id, &fill);
        if self.busts.keep(venue_id, position, fill) {
            return;
        }
        if let Some(slot) = self.orders.find_venue(venue_id) {
            self.listed(slot, fill);
        } else if self.others.contains(&venue_id) {
            // A trade of somebody else with our account; the balances tell of it.
            if fill.word != Word::Fill {
                self.strange_bust(fill.name());
            }
        } else if self.strays.len() < STRAYS_MAX {
            self.strays.push((venue_id, position, fill));
        } else {
            self.stats.overflows += 1;
        }
    }

    /// Returns an id of the venue's whose order is not known and not asked about yet.
    pub fn stray(&mut self) -> Option<u128> {
        let asked = &self.strays_asked;
        let id = self.strays.iter().map(|(id, ..)| *id).find(|id| !asked.contains(id))?;
        self.strays_asked.push(id);
        Some(id)
    }

    /// Returns whether it is known whose order a venue's id is.
    #[must_use]
    pub fn is_attributed(&self, venue_id: u128) -> bool {
        self.orders.find_venue(venue_id).is_some() || self.others.contains(&venue_id)
    }

    /// Returns the position of the instrument that an unknown id traded.
    #[must_use]
    pub fn stray_position(&self, venue_id: u128) -> Option<usize> {
        self.strays.iter().find(|(id, ..)| *id == venue_id).map(|(_, position, _)| *position)
    }

    /// An id could not be asked about now.
    pub fn not_asked(&mut self, venue_id: u128) {
        self.strays_asked.retain(|id| *id != venue_id);
    }

    /// Returns whether trades wait for their order's name.
    #[must_use]
    pub fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// An id of the venue's turned out to be this order's, or nobody's of ours.
    pub fn identified(&mut self, venue_id: u128, slot: Option<usize>) {
        match slot {
            Some(slot) => self.orders.identify(slot, venue_id),
            None if self.others.len() < STRAYS_MAX => {
                self.others.insert(venue_id);
            }
            None => {}
        }
        let is_of = |stray: &(u128, usize, Fill)| stray.0 == venue_id;
        let mut fills: Vec<Fill> =
            self.strays.iter().filter(|stray| is_of(stray)).map(|(.., fill)| *fill).collect();
        self.strays.retain(|stray| !is_of(stray));
        // A fill first, and then what became of it.
        fills.sort_by_key(|fill| fill.word != Word::Fill);
        for fill in fills {
            match slot {
                Some(slot) => self.listed(slot, fill),
                None if fill.word != Word::Fill => self.strange_bust(fill.name()),
                None => {}
            }
        }
        self.strays_asked.retain(|id| *id != venue_id);
    }

    /// A trade of a list, of a known order.
    fn listed(&mut self, slot: usize, fill: Fill) {
        if fill.word != Word::Fill {
            return self.said(slot, &fill);
        }
        let terms = fill.terms();
        let entry = self.orders.get(slot);
        let known = entry.fills.iter().find(|told| told.trade_id == fill.name());
        if known.is_some_and(|told| !told.is(terms)) {
            // A list that has something else for it: two of them are a correction (`busts`).
            self.stats.duplicates += 1;
            self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Bust));
            return;
        }
        let new = self.fill(slot, fill);
        self.counted[2] += i64::from(new);
    }

    // The account.

    /// Begins to read a snapshot of balances.
    pub fn balances_begin(&mut self) {
        self.balances.fill((0, 0));
    }

    /// Reads one balance of a snapshot. Assets that are not ours are passed over.
    pub fn balance_read(&mut self, asset: u16, total: i64, held: i64) {
        if let Some(balance) = self.balances.get_mut(usize::from(asset)) {
            *balance = (total, held);
        }
    }

    /// Notes that a balance of ours could not be read. Always false: the snapshot is not whole.
    pub fn balance_unreadable(&mut self, asset: u16) -> bool {
        self.stats.malformed += 1;
        tracing::warn!(venue = self.venue.name(), asset, "a balance cannot be read");
        false
    }

    /// Tells the snapshot: every asset of the universe, zero where the venue listed none.
    pub fn balances_end(&mut self) {
        for asset in 0..self.balances.len() {
            let (total, held) = self.balances[asset];
            let balance = Balance {
                venue: self.venue,
                asset: asset as u16,
                total: Amount(total),
                held: Amount(held),
                source: BalanceSource::Snapshot,
            };
            let last = asset + 1 == self.balances.len();
            self.publish(balance.record(last));
        }
    }

    /// Tells a balance that the user stream said.
    pub fn balance_streamed(&mut self, asset: u16, total: i64, held: i64) {
        self.balance_read(asset, total, held);
        let (total, held) = (Amount(total), Amount(held));
        let source = BalanceSource::Stream;
        let balance = Balance { venue: self.venue, asset, total, held, source };
        self.publish(balance.record(true));
    }

    /// Returns what is held of an asset for open orders, as last read.
    #[must_use]
    pub fn held_of(&self, asset: u16) -> i64 {
        self.balances.get(usize::from(asset)).map_or(0, |(_, held)| *held)
    }

    /// Tells what the venue charges for an instrument.
    pub fn fee(&mut self, position: usize, taker_ppm: i64, maker_ppm: i64) {
        let instrument = self.listings[position].id;
        let data = [taker_ppm, maker_ppm, 0, 0];
        let record = Record::new(Kind::Fee, self.venue as u8, instrument, data);
        self.publish(Record { flags: flag::LAST, ..record });
    }

    /// Begins to read a list of open orders.
    pub fn open_begin(&mut self) {
        (self.counted[0], self.counted[1]) = (0, 0);
        self.foreign.iter_mut().for_each(|order| order.is_listed = false);
    }

    /// Reads one open order. Ours of this run are confirmed; ours of another run or of an earlier process
    /// are adopted and cancelled (policy: start flat of working orders); others are told and left alone.
    pub fn open_order(&mut self, order: &OpenOrder<'_>) {
        let known = self.orders.find_venue(order.venue_id).is_some();
        let parsed = ClientId::parse(order.client).map(|(run, key)| Name { run, key });
        match (parsed, order.position) {
            (Some(name), Some(position)) => {
                self.counted[0] += 1;
                let orphan = !known && self.orders.find(name).is_none();
                let Some(slot) = self.ours(order.client, position) else { return };
                self.accepted(slot, order.venue_id, false);
                let entry = self.orders.get_mut(slot);
                if orphan {
                    entry.qty = Qty(order.cum.0.saturating_add(order.left.0));
                    entry.px = order.px;
                    entry.cancel = true;
                }
                if entry.filled < order.cum.0 {
                    // Its fills are asked for by the order's own poll.
                    entry.totals.0 = entry.totals.0.max(order.cum.0);
                    entry.poll_at_ns = 0;
                }
            }
            _ => {
                self.counted[1] += 1;
                self.stats.foreign += 1;
                let instrument = order.position.map_or(u16::MAX, |at| self.listings[at].id);
                let hash = fnv1a(&order.venue_id.to_le_bytes()) as i64;
                let data = [order.px.0, order.left.0, order.side, hash];
                let known = self.foreign.iter().position(|known| known.hash == hash);
                match known {
                    Some(at) => self.foreign[at].is_listed = true,
                    None if self.foreign.len() < FOREIGN => {
                        self.foreign.push(Foreign { instrument, hash, is_listed: true });
                    }
                    None => self.stats.overflows += 1,
                }
                let record = Record::new(Kind::ForeignOrder, self.venue as u8, instrument, data);
                self.publish(Record { flags: flag::LAST, ..record });
            }
        }
    }

    /// A list was read to its end: orders of somebody else that it has no more are gone, and told so.
    fn open_end(&mut self) {
        self.foreign_open = self.counted[1];
        for order in std::mem::take(&mut self.foreign) {
            if order.is_listed {
                self.foreign.push(order);
                continue;
            }
            let data = [0, 0, 0, order.hash];
            let venue = self.venue as u8;
            let record = Record::new(Kind::ForeignOrder, venue, order.instrument, data);
            self.publish(Record { flags: flag::LAST, ..record });
        }
    }

    /// Returns how many open orders of the account are somebody else's, as the last list has it; one that is
    /// being read says nothing yet.
    #[must_use]
    pub const fn foreign_open(&self) -> i64 {
        self.foreign_open
    }

    // Session and audits.

    /// Returns from when on trades are asked for: the last one known less the overlap.
    #[must_use]
    pub fn trades_since_ns(&self, now_ns: i64) -> i64 {
        let last_ns = if self.last_trade_ns == 0 { now_ns } else { self.last_trade_ns };
        (last_ns - self.config.trades_overlap_ns).max(0)
    }

    /// Returns whether all is known of every order in flight.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let doubtful = |slot| {
            let entry = self.orders.get(slot);
            entry.is_live() && (entry.unknown || !entry.acked && entry.sent_ns == 0)
        };
        !self.orders.slots().any(doubtful)
    }

    /// Returns whether messages of the user stream are being held.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.holding
    }

    /// Returns how far the session is.
    #[must_use]
    pub fn state(&self, now_ns: i64) -> SessionState {
        if self.refused {
            return SessionState::Refused;
        }
        match self.link {
            Link::Down => SessionState::Down,
            Link::Connecting => SessionState::Connecting,
            Link::Open if now_ns < self.suspended_ns || self.paused => SessionState::Suspended,
            Link::Open if self.recon == Recon::Clean => SessionState::Ready,
            Link::Open => SessionState::Authenticated,
        }
    }

    /// Returns the session as a record's content.
    #[must_use]
    pub fn session(&self, now_ns: i64) -> Session {
        Session {
            venue: self.venue,
            state: self.state(now_ns),
            code: self.code,
            heard_ns: self.heard_ns,
            deadman_ns: self.deadman_ns,
        }
    }

    /// Something was heard on the user stream.
    pub fn heard(&mut self, now_ns: i64) {
        self.heard_ns = self.heard_ns.max(now_ns);
    }

    /// The venue said to wait: no new orders and no queries until then (OE-02).
    pub fn suspend(&mut self, until_ns: i64, code: i64) {
        self.suspended_ns = self.suspended_ns.max(until_ns);
        self.code = code;
        self.stats.suspensions += 1;
        self.budgets.block_until(self.suspended_ns);
    }

    /// The address is banned: as [`Desk::suspend`], and the venue halts (418).
    pub fn banned(&mut self, until_ns: i64, code: i64) {
        self.suspend(until_ns, code);
        self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Venue));
    }

    /// Returns until when the venue said to wait.
    #[must_use]
    pub const fn suspended_until(&self) -> i64 {
        self.suspended_ns
    }

    /// The venue refuses our key (OE-17): the venue halts until an operator looks.
    pub fn refuse(&mut self, code: i64) {
        if !self.refused {
            self.raises.push((Scope::Venue(self.venue), Level::Halt, Cause::Venue));
        }
        (self.refused, self.code) = (true, code);
        // A key may be taken back, and a clock set right: the account is read anew, slowly, until the venue
        // answers all of it. The level stays where it is until an operator lowers it.
        if self.recon == Recon::Clean {
            self.recon = Recon::Running { done: [false, false, false, self.fees_known] };
        }
    }

    /// Returns whether the venue refuses our keys.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.refused
    }

    /// The user stream is open: from here on everything it says counts, and what is not known is read.
    pub fn streams_open(&mut self, now_ns: i64) {
        self.link = Link::Open;
        self.refused = false;
        self.heard(now_ns);
        // What the venue charges was read once and does not change with a connection.
        self.recon = Recon::Running { done: [false, false, false, self.fees_known] };
        // What was asked before the stream was open may be older than it.
        self.busts.abandon();
        self.asked.retain(|asked| !matches!(asked.ask, Ask::Audit(..)));
        (self.opened, self.opened_ns) = (self.opened + 1, now_ns);
        self.parts = [0; 4];
        self.failed = [false; 4];
        self.holding = true;
        self.counted = [0; 4];
    }

    /// The user stream is gone: nothing is certain until it is open and the account read again.
    pub fn streams_lost(&mut self) {
        self.link = Link::Connecting;
        self.recon = Recon::Idle;
        self.holding = false;
        self.held.clear();
        for slot in self.orders.slots() {
            // An order in flight may have changed meanwhile, also one the stream had told of.
            let entry = self.orders.get_mut(slot);
            if entry.is_live() {
                entry.poll_at_ns = 0;
            }
        }
    }

    /// Holds a message of the user stream while the account is being read; returns whether it did.
    pub fn hold(&mut self, conn: u32, text: &[u8]) -> bool {
        if !self.holding {
            return false;
        }
        if self.held.len() == HELD_MAX {
            // More than can be held: it is applied now. Every message is true whenever it is applied; only
            // the order of balances suffers, and the next audit reads them.
            self.stats.overflows += 1;
            return false;
        }
        self.held.push((conn, text.to_vec()));
        true
    }

    /// Notes that an audit takes this many requests.
    pub fn audit_begun(&mut self, audit: Audit, parts: usize) {
        (self.parts[audit as usize], self.failed[audit as usize]) = (parts, false);
        if parts == 0 {
            self.parts[audit as usize] = 1;
            self.audited(audit, true);
        }
    }

    /// Returns whether an audit is under way.
    #[must_use]
    pub fn is_auditing(&self, audit: Audit) -> bool {
        0 < self.parts[audit as usize]
    }

    /// Another request belongs to an audit: its reply said that there is more.
    pub fn audit_goes_on(&mut self, audit: Audit) {
        self.parts[audit as usize] += 1;
    }

    /// One request of an audit has its reply.
    pub fn audited(&mut self, audit: Audit, well: bool) {
        let idx = audit as usize;
        self.failed[idx] |= !well;
        self.parts[idx] = self.parts[idx].saturating_sub(1);
        if self.parts[idx] == 0 && !self.failed[idx] && audit == Audit::OpenOrders {
            self.open_end();
        }
        if self.parts[idx] == 0 && audit == Audit::Trades {
            self.read_ended(!self.failed[idx]);
        }
        if self.parts[idx] == 0
            && !self.failed[idx]
            && let Recon::Running { done } = &mut self.recon
        {
            done[idx] = true;
            self.fees_known |= audit == Audit::Fees;
        }
    }

    /// Returns the messages held, once the account is read; the reconciliation ends with them.
    pub fn release(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.holding = false;
        std::mem::take(&mut self.held)
    }

    /// The reconciliation ended.
    pub fn reconciled(&mut self) {
        (self.recon, self.refused) = (Recon::Clean, false);
        self.stats.reconciliations += 1;
        let record = Record::new(Kind::Reconciled, self.venue as u8, u16::MAX, self.counted);
        self.publish(Record { flags: flag::LAST, ..record });
    }
}
