//! A venue's order entry without I/O: records in, reports and actions out.
//!
//! Invariants:
//! - An order record leads to at most one send, and to a report in any case: sent, or refused with the
//!   reason. There is no path by which an order is sent a second time.
//! - `Ready` is told only while the user stream lives and after open orders, balances, trades and fees were
//!   read and every order in doubt was settled (S10 to S12).
//! - Whatever is in doubt is asked about until it is settled, within the budget for queries. Audits and
//!   questions about orders take turns where that is short: neither waits for the other for long.
//!
//! Not here: sockets and rings (`tile`), what venues say (`binance`, `coinbase`, `kraken`).

use tandem_core::account::Session;
use tandem_core::level::{Cause, Level, Scope};
use tandem_core::order::{NewOrder, OrderKey, RejectClass, Report, Tif, UnknownCause};
use tandem_core::record::{Kind, Record, Venue};
use tandem_feeds::machine::{CloseCause, Reply, Stamps};

use crate::desk::{Ask, Desk, Link, Recon};
use crate::gate::Gate;
use crate::guard::{Guard, GuardReason, OnBreach, Sent, Wires};
use crate::machine::{Action, Audit, Dialect};
use crate::orders::{End, Name};
use crate::predecessor::Predecessor;

const SECOND: i64 = 1_000_000_000;
/// Between two attempts with keys that the venue refuses.
const REFUSED_NS: i64 = 10 * SECOND;
/// A link that is not open after this long is made anew.
const OPEN_NS_MAX: i64 = 15 * SECOND;
/// Fills of an ended order are asked for at most this often.
const FILL_POLLS_MAX: u8 = 20;

/// Where the time is read and stamped right after a write.
pub trait Stamp {
    /// Returns UNIX ns and TSC of now.
    fn now(&self) -> (i64, u64);
}

/// An order of ours in the venue's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// TSC of the market message that led to it; 0 where its record names none.
    pub trigger_tsc: u64,
    /// TSC when the order record was taken from the ring.
    pub taken_tsc: u64,
    /// TSC right after the system call returned.
    pub sent_tsc: u64,
}

/// One venue's order entry.
pub struct Gateway {
    dialect: Box<dyn Dialect>,
    desk: Desk,
    guard: Guard,
    told: Option<Session>,
    next_session_ns: i64,
    audit_at_ns: [i64; 4],
    /// Which opening of the user stream these times are for.
    audits_of: u64,
    open_since_ns: i64,
    /// It is the audits' turn: one that finds no budget is waited for.
    audits_first: bool,
    /// An audit waits for budget: no order is asked about until it went out.
    audit_waits: bool,
}

impl Gateway {
    /// Returns a gateway that has done nothing yet. `on_breach` is [`crate::guard::abort`] in all but tests.
    #[must_use]
    pub fn new(dialect: Box<dyn Dialect>, desk: Desk, on_breach: OnBreach) -> Gateway {
        let guard = Guard::new(desk.venue, on_breach);
        Gateway {
            dialect,
            desk,
            guard,
            told: None,
            next_session_ns: 0,
            audit_at_ns: [0; 4],
            audits_of: 0,
            open_since_ns: 0,
            audits_first: true,
            audit_waits: false,
        }
    }

    /// Returns the venue.
    #[must_use]
    pub fn venue(&self) -> Venue {
        self.desk.venue
    }

    /// Returns the shared part, to look at.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Returns the next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.desk.next_action()
    }

    /// Returns the next record for the engine.
    pub fn next_record(&mut self) -> Option<Record> {
        self.desk.next_record()
    }

    /// Returns the next reply time of a new order, in ns.
    pub fn next_reply_ns(&mut self) -> Option<u64> {
        self.desk.reply_ns.pop_front()
    }

    /// Opens the connections.
    pub fn start(&mut self, now_ns: i64) {
        self.open_since_ns = now_ns;
        self.dialect.start(&mut self.desk, now_ns);
    }

    /// Takes an order record that was in the ring before this process came: an earlier one may have sent
    /// it. It is never sent by us, and asked about until there is proof.
    pub fn inherit(&mut self, record: &Record, before: &Predecessor, now_ns: i64) {
        let Some(order) = NewOrder::read(record) else { return };
        if order.venue != self.desk.venue || self.desk.position_of(order.instrument).is_none() {
            return;
        }
        self.guard.remember(order.run, order.key);
        if before.has_settled(order.run, order.key) {
            return;
        }
        let slot = self.desk.orders.add(&order, now_ns, order.expires_ns.max(now_ns));
        self.desk.unknown(slot, UnknownCause::Restart);
    }

    /// Takes a record of the engine. Returns the stamps of an order that left.
    pub fn take(
        &mut self,
        record: &Record,
        gate: &dyn Gate,
        wires: &mut dyn Wires,
        stamp: &dyn Stamp,
    ) -> Option<Left> {
        self.desk.at = Stamps::default();
        let left = match record.kind() {
            Some(Kind::OrderNew) => self.take_new(record, gate, wires, stamp),
            Some(Kind::OrderCancel) => {
                self.want(record, stamp.now().0, |entry| {
                    (entry.cancel, entry.cancel_at_ns) = (true, 0)
                });
                None
            }
            Some(Kind::OrderQuery) => {
                self.want(record, stamp.now().0, |entry| entry.poll_at_ns = 0);
                None
            }
            _ => None,
        };
        self.raise(gate);
        left
    }

    fn take_new(
        &mut self,
        record: &Record,
        gate: &dyn Gate,
        wires: &mut dyn Wires,
        stamp: &dyn Stamp,
    ) -> Option<Left> {
        let (now_ns, taken_tsc) = stamp.now();
        self.guard.intent();
        let name = Name { run: record.run, key: OrderKey(record.data[0].max(0)) };
        let refusal = match NewOrder::read(record) {
            None => GuardReason::Malformed,
            Some(order) => match self.send(&order, gate, wires, now_ns) {
                Ok((sent, id, ttl_ns, conn)) => {
                    let (at_ns, sent_tsc) = stamp.now();
                    let slot = self.desk.orders.add(&order, at_ns, ttl_ns);
                    self.desk.note(id, conn, Ask::New(name), at_ns);
                    self.desk.report(name, order.instrument, Report::Sent { at_ns, tsc: sent_tsc });
                    if sent == Sent::InDoubt {
                        self.desk.unknown(slot, UnknownCause::Disconnect);
                    }
                    return Some(Left { trigger_tsc: record.recv_tsc, taken_tsc, sent_tsc });
                }
                Err(reason) => reason,
            },
        };
        if refusal == GuardReason::Repeated {
            // The first sending of this key lives: nothing may be said that would take it for refused.
            self.desk.stats.denials[refusal as usize - 1] += 1;
        } else {
            let report = Report::Reject { class: RejectClass::NotSent, code: refusal as i64 };
            self.desk.report(name, record.instrument, report);
        }
        None
    }

    fn send(
        &mut self,
        order: &NewOrder,
        gate: &dyn Gate,
        wires: &mut dyn Wires,
        now_ns: i64,
    ) -> Result<(Sent, u64, i64, u32), GuardReason> {
        let ready = self.desk.state(now_ns) == tandem_core::account::SessionState::Ready;
        self.guard.admit(order, ready, now_ns)?;
        let position = self.desk.position_of(order.instrument).ok_or(GuardReason::Address)?;
        if !self.desk.orders.has_room() {
            return Err(GuardReason::Full);
        }
        let usd = self.desk.listings[position].usd(order.px, order.qty);
        let spelled = self.dialect.spell(&mut self.desk, order, position, now_ns)?;
        let reduces = order.purpose.reduces();
        if !self.desk.budgets.new_order(position, reduces, now_ns) {
            return Err(GuardReason::Budget);
        }
        let bytes = self.dialect.spelled();
        let sent = self.guard.send(order, usd, (spelled.route, bytes), (gate, wires), now_ns);
        if sent == Err(GuardReason::Backlog) {
            self.dialect.not_ready(spelled.route);
        }
        let sent = sent?;
        let conn = match spelled.route {
            crate::guard::Route::Ws { conn } => conn,
            crate::guard::Route::Http { .. } => 0,
        };
        Ok((sent, spelled.id, spelled.ttl_ns, conn))
    }

    /// A cancel or a query: of an order that is known, or of one that an earlier process sent.
    fn want(&mut self, record: &Record, now_ns: i64, wish: impl FnOnce(&mut crate::orders::Entry)) {
        let name = Name { run: record.run, key: OrderKey(record.data[0]) };
        if record.data[0] < 0 || self.desk.position_of(record.instrument).is_none() {
            return;
        }
        let slot = match self.desk.orders.find(name) {
            Some(slot) => slot,
            None => self.desk.orders.adopt(name, record.instrument),
        };
        wish(self.desk.orders.get_mut(slot));
        self.watch_order(slot, now_ns);
    }

    /// The ring of orders was overrun: orders were lost that the engine believes in.
    pub fn overrun(&mut self, gate: &dyn Gate) {
        gate.raise(Scope::Global, Level::Kill, Cause::Invariant);
    }

    fn raise(&mut self, gate: &dyn Gate) {
        for (scope, level, cause) in self.desk.raises.drain(..) {
            gate.raise(scope, level, cause);
        }
    }

    /// A WebSocket is open.
    pub fn on_open(&mut self, conn: u32, now_ns: i64) {
        self.dialect.on_open(&mut self.desk, conn, now_ns);
    }

    /// A text frame came.
    pub fn on_text(&mut self, conn: u32, text: &[u8], at: Stamps, gate: &dyn Gate) {
        self.desk.at = at;
        self.dialect.on_text(&mut self.desk, conn, text, at);
        self.raise(gate);
    }

    /// A pong came.
    pub fn on_pong(&mut self, conn: u32, now_ns: i64) {
        self.dialect.on_pong(&mut self.desk, conn, now_ns);
    }

    /// A connection is gone, or never came to be.
    pub fn on_close(&mut self, conn: u32, cause: CloseCause, now_ns: i64, gate: &dyn Gate) {
        self.desk.at = Stamps::default();
        self.desk.stats.disconnects += 1;
        self.desk.lost(conn);
        self.dialect.on_close(&mut self.desk, conn, cause, now_ns);
        self.raise(gate);
        self.tell_session(now_ns);
    }

    /// An HTTP request has its outcome.
    pub fn on_reply(&mut self, request: u32, reply: Reply<'_>, at: Stamps, gate: &dyn Gate) {
        self.desk.at = at;
        self.dialect.on_reply(&mut self.desk, request, reply, at);
        self.raise(gate);
    }

    /// Time passed; called every 10 ms or so. `healthy` is the host's word that engine and warden live.
    pub fn on_timer(&mut self, now_ns: i64, healthy: bool, gate: &dyn Gate) {
        self.desk.at = Stamps::default();
        self.desk.healthy = healthy;
        self.dialect.on_timer(&mut self.desk, now_ns);
        self.desk.sweep(now_ns);
        self.watch_stream(now_ns);
        // Audits before orders: they are few, and while orders trade nothing else is left over for them.
        self.watch_account(now_ns);
        for slot in self.desk.orders.slots() {
            self.watch_order(slot, now_ns);
        }
        self.raise(gate);
        self.tell_session(now_ns);
    }

    /// AC-04: a stream that is silent, or that does not tell of orders that replies told of, is dead.
    fn watch_stream(&mut self, now_ns: i64) {
        if self.desk.link != Link::Open {
            if OPEN_NS_MAX < now_ns - self.open_since_ns {
                self.open_since_ns = now_ns;
                self.dialect.renew(&mut self.desk, now_ns);
            }
            return;
        }
        self.open_since_ns = now_ns;
        let silent = self.desk.config.silence_ns_max < now_ns - self.desk.heard_ns;
        let lag = self.desk.config.stream_lag_ns_max;
        let orders = &self.desk.orders;
        let mute = orders.slots().any(|slot| {
            let entry = orders.get(slot);
            // Of what was sent before it was opened the stream tells nothing.
            let told = entry.acked && self.desk.opened_ns < entry.sent_ns;
            told && !entry.streamed && lag < now_ns - entry.sent_ns
        });
        if silent || mute && self.desk.recon == Recon::Clean {
            tracing::warn!(venue = self.desk.venue.name(), silent, mute, "user stream in doubt");
            for slot in self.desk.orders.slots() {
                self.desk.orders.get_mut(slot).streamed = true;
            }
            self.dialect.renew(&mut self.desk, now_ns);
            self.tell_session(now_ns);
        }
    }

    /// One order's clocks: reply, cancel, query, missing fills.
    fn watch_order(&mut self, slot: usize, now_ns: i64) {
        let ack_ns_max = self.desk.config.ack_ns_max;
        let poll_ns = self.desk.config.poll_ns;
        let entry = self.desk.orders.get(slot);
        if let Some(end) = entry.end {
            let missing = matches!(end, End::Done(_, qty) if entry.filled < qty.0);
            let due = entry.poll_at_ns <= now_ns && entry.fill_polls < FILL_POLLS_MAX;
            if missing
                && due
                && !self.audit_waits
                && self.dialect.order_trades(&mut self.desk, slot, now_ns)
            {
                self.audits_first = true;
                let entry = self.desk.orders.get_mut(slot);
                entry.poll_at_ns = now_ns + (poll_ns << entry.fill_polls.min(4));
                entry.fill_polls += 1;
                self.desk.stats.queries += 1;
            }
            return;
        }
        let waited_ns = now_ns - entry.sent_ns;
        let late = entry.sent_ns != 0 && ack_ns_max <= waited_ns;
        if late && !entry.acked && !entry.unknown {
            self.desk.unknown(slot, UnknownCause::Timeout);
        }
        let entry = self.desk.orders.get(slot);
        // What does not rest and has no end in time: the user stream may have lost it.
        if late
            && entry.acked
            && matches!(entry.tif, Tif::Ioc | Tif::Fok)
            && entry.poll_at_ns == i64::MAX
        {
            let wait_ns = poll_ns << entry.polls.min(3);
            self.desk.orders.get_mut(slot).poll_at_ns = now_ns + wait_ns;
        }
        let entry = self.desk.orders.get(slot);
        if entry.cancel && entry.cancel_at_ns <= now_ns && self.desk.budgets.cancel(now_ns) {
            let sent = self.dialect.cancel(&mut self.desk, slot, now_ns);
            self.desk.stats.cancels += u64::from(sent);
            // Cancels are idempotent: without an end in time it is sent again.
            let wait_ns = if sent { ack_ns_max } else { poll_ns / 4 };
            self.desk.orders.get_mut(slot).cancel_at_ns = now_ns + wait_ns;
        }
        self.poll_order(slot, now_ns);
    }

    /// Asks what became of an order, where that is due: for its trades where only they are missing, so that
    /// a scarce budget is not spent on polls that prove nothing more.
    fn poll_order(&mut self, slot: usize, now_ns: i64) {
        let entry = self.desk.orders.get(slot);
        if now_ns < entry.poll_at_ns || self.audit_waits {
            return;
        }
        let from_ns = self.desk.proof_from_ns(slot);
        let polled = self.desk.is_polled(slot);
        let behind = entry.acked && entry.filled < entry.totals.0;
        let asked = if polled || behind && entry.polls % 2 == 1 {
            self.dialect.order_trades(&mut self.desk, slot, now_ns)
        } else {
            self.dialect.query(&mut self.desk, slot, now_ns)
        };
        if asked {
            self.audits_first = true;
            let poll_ns = self.desk.config.poll_ns;
            let entry = self.desk.orders.get_mut(slot);
            let at_ns = now_ns + (poll_ns << entry.polls.min(3));
            // One poll just when it begins to prove something.
            let aligned = now_ns < from_ns && from_ns < at_ns;
            entry.poll_at_ns = if aligned { from_ns } else { at_ns };
            entry.polls = entry.polls.saturating_add(1);
            self.desk.stats.queries += 1;
        }
    }

    /// Audits, strays, and the end of a reconciliation.
    fn watch_account(&mut self, now_ns: i64) {
        self.audit_waits = false;
        if self.desk.link != Link::Open {
            return;
        }
        if self.audits_of != self.desk.opened {
            (self.audits_of, self.audit_at_ns) = (self.desk.opened, [0; 4]);
        }
        let config = &self.desk.config;
        let every = [
            config.open_orders_every_ns,
            config.balances_every_ns,
            config.trades_every_ns,
            i64::MAX,
        ];
        if self.desk.is_refused() {
            let soon_ns = now_ns + REFUSED_NS;
            self.audit_at_ns = self.audit_at_ns.map(|at_ns| at_ns.min(soon_ns));
        }
        let recon = self.desk.recon;
        for audit in Audit::ALL {
            let idx = audit as usize;
            let due = match recon {
                Recon::Idle => false,
                Recon::Running { done } => !done[idx],
                Recon::Clean => every[idx] != i64::MAX,
            };
            // A doubt about a fill that was told is not left for the next turn.
            let wanted = audit == Audit::Trades && self.desk.busts.is_wanted(now_ns);
            let waits = now_ns < self.audit_at_ns[idx] && !wanted;
            if !due || waits || self.desk.is_auditing(audit) {
                continue;
            }
            self.audit_at_ns[idx] = match self.dialect.audit(&mut self.desk, audit, now_ns) {
                Some(parts) => {
                    self.desk.audit_begun(audit, parts);
                    self.audits_first = false;
                    let again_ns = if self.desk.is_refused() { REFUSED_NS } else { 2 * SECOND };
                    now_ns + if recon == Recon::Clean { every[idx] } else { again_ns }
                }
                None if self.audits_first => {
                    self.audit_waits = true;
                    now_ns
                }
                None => {
                    self.desk.busts.put_off(now_ns + SECOND / 4);
                    now_ns + SECOND / 4
                }
            };
        }
        if let Some(venue_id) = self.desk.stray()
            && !self.dialect.identify(&mut self.desk, venue_id, now_ns)
        {
            self.desk.not_asked(venue_id);
        }
        let Recon::Running { done } = self.desk.recon else { return };
        if done != [true; 4] || self.desk.has_strays() {
            return;
        }
        if self.desk.is_holding() {
            let at = Stamps { recv_ns: now_ns, ..Stamps::default() };
            for (conn, text) in self.desk.release() {
                self.dialect.on_text(&mut self.desk, conn, &text, at);
            }
        }
        if self.desk.is_settled() {
            self.desk.reconciled();
            for audit in Audit::ALL {
                let wait_ns = every[audit as usize].min(3_600 * SECOND);
                self.audit_at_ns[audit as usize] = now_ns + wait_ns;
            }
        }
    }

    fn tell_session(&mut self, now_ns: i64) {
        let session = self.desk.session(now_ns);
        let same = |told: &Session| (told.state, told.code) == (session.state, session.code);
        if self.told.as_ref().is_some_and(same) && now_ns < self.next_session_ns {
            return;
        }
        if !self.told.as_ref().is_some_and(same) {
            let (venue, state) = (self.desk.venue.name(), session.state.name());
            tracing::info!(venue, state, code = session.code, "session");
        }
        self.told = Some(session);
        self.next_session_ns = now_ns + self.desk.config.session_every_ns;
        self.desk.at = Stamps::default();
        self.desk.publish(session.record());
    }
}
