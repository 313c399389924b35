//! What every venue's machine needs around its books: connections, requests, budgets.
//!
//! Invariant: bounded and pure. An action is queued once, connections and requests are numbered once, and
//! every outcome is matched to what was asked or ignored. The venue's limits on connecting and asking
//! hold here, so that no machine can forget them.
//!
//! Not here: what is asked and what an answer means (each venue's machine).

use std::collections::VecDeque;

use crate::freshness::{Lag, Pulse};
use crate::machine::{Action, CloseCause, MachineStats, Reply};
use crate::net::backoff::Backoff;
use crate::net::budget::Budget;

const SECOND: i64 = 1_000_000_000;

/// After a 403 (a firewall's page) or a 418 without a time.
const BAN_NS: i64 = 120 * SECOND;

/// After a 429 without a time.
const SLOW_NS: i64 = 30 * SECOND;

/// One WebSocket.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub conn: u32,
    /// Since when it is open; nothing while it is being opened.
    pub open_ns: Option<i64>,
    /// Signs of life.
    pub pulse: Pulse,
    /// Event time against receive time.
    pub lag: Lag,
    /// Control messages of ours.
    pub sent: Budget,
    /// When its last message about a book came, UNIX ns; 0 before the first.
    pub book_ns: i64,
}

impl Link {
    /// The handshake is done.
    pub fn open(&mut self, now_ns: i64) {
        self.open_ns = Some(now_ns);
        self.pulse = Pulse::new(now_ns);
        self.lag = self.lag.reopened();
        self.book_ns = 0;
    }
}

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The snapshot that a slot's book waits for.
    Snapshot(usize),
    /// The book to compare a slot's with.
    Audit(usize),
    /// A slot's book while the WebSocket is down.
    Fallback(usize),
    /// Whether a slot's silent stream should have said something.
    Probe(usize),
    /// The rules of a slot (and of those after it, where one request is for several).
    Rules(usize),
}

impl Purpose {
    /// Returns the slot it is about.
    #[must_use]
    pub const fn slot(self) -> usize {
        let (Purpose::Snapshot(slot)
        | Purpose::Audit(slot)
        | Purpose::Fallback(slot)
        | Purpose::Probe(slot)
        | Purpose::Rules(slot)) = self;
        slot
    }
}

/// What to do about an answer that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not now; everything waits until this time.
    Later(i64),
    /// The venue or the way to it is in trouble: back off.
    Trouble,
    /// The venue does not know what we asked for: asking faster will not help.
    Unknown,
}

/// Connections, requests and the queue of actions.
#[derive(Debug)]
pub struct Desk {
    actions: VecDeque<Action>,
    next_conn: u32,
    next_request: u32,
    connects: Budget,
    /// REST budget.
    pub rest: Budget,
    pending: Vec<(u32, Purpose)>,
}

impl Desk {
    /// Returns a desk with these budgets.
    #[must_use]
    pub fn new(connects: Budget, rest: Budget) -> Desk {
        Desk {
            actions: VecDeque::new(),
            next_conn: 1,
            next_request: 1,
            connects,
            rest,
            pending: Vec::new(),
        }
    }

    /// Returns the next action.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Asks for a connection, not before a time and within the budget.
    pub fn connect(&mut self, path: &str, not_before_ns: i64, sent: Budget) -> Link {
        let conn = self.next_conn;
        self.next_conn += 1;
        let at = self.connects.reserve(1, not_before_ns);
        self.actions.push_back(Action::Connect { conn, path: path.to_owned(), not_before_ns: at });
        Link { conn, open_ns: None, pulse: Pulse::new(at), lag: Lag::default(), sent, book_ns: 0 }
    }

    /// Queues a control message within the link's budget; returns when it will go.
    pub fn send(&mut self, link: &mut Link, text: String, now_ns: i64) -> i64 {
        let at = link.sent.reserve(1, now_ns);
        self.actions.push_back(Action::Send { conn: link.conn, text, not_before_ns: at });
        at
    }

    /// Queues a message whose time was already reserved.
    pub fn send_at(&mut self, conn: u32, text: String, not_before_ns: i64) {
        self.actions.push_back(Action::Send { conn, text, not_before_ns });
    }

    /// Asks for a ping.
    pub fn ping(&mut self, conn: u32) {
        self.actions.push_back(Action::Ping { conn });
    }

    /// Asks for a connection to be closed. Messages still queued for it are dropped.
    pub fn close(&mut self, conn: u32, reset: bool) {
        self.actions.retain(|action| !matches!(action, Action::Send { conn: c, .. } if *c == conn));
        self.actions.push_back(Action::Close { conn, reset });
    }

    /// Asks for a path if the budget allows it now; else says when it may.
    pub fn get(
        &mut self,
        path: String,
        cost: u64,
        purpose: Purpose,
        now_ns: i64,
        stats: &mut MachineStats,
    ) -> Result<u32, i64> {
        self.rest.take(cost, now_ns)?;
        let request = self.next_request;
        self.next_request += 1;
        self.pending.push((request, purpose));
        self.actions.push_back(Action::Get { request, path, not_before_ns: now_ns });
        stats.requests += 1;
        Ok(request)
    }

    /// Returns what a request was for, once.
    pub fn take(&mut self, request: u32) -> Option<Purpose> {
        let at = self.pending.iter().position(|(number, _)| *number == request)?;
        Some(self.pending.swap_remove(at).1)
    }

    /// Returns whether a request for this purpose is under way.
    #[must_use]
    pub fn is_pending(&self, purpose: Purpose) -> bool {
        self.pending.iter().any(|(_, other)| *other == purpose)
    }

    /// Reads a reply's outer part: its body, or what to do instead. Notes the venue's own counts and
    /// its orders to wait.
    pub fn judge<'a>(
        &mut self,
        reply: Reply<'a>,
        now_ns: i64,
        stats: &mut MachineStats,
    ) -> Result<&'a mut [u8], Refusal> {
        let Reply::Answer { status, retry_after_s, used_weight, body } = reply else {
            stats.requests_failed += 1;
            return Err(Refusal::Trouble);
        };
        if let Some(weight) = used_weight {
            self.rest.reported(u64::from(weight), now_ns);
        }
        if status == 200 {
            return Ok(body);
        }
        stats.requests_failed += 1;
        let wait = |default: i64| retry_after_s.map_or(default, |s| i64::from(s) * SECOND);
        match status {
            429 => Err(self.block(now_ns + wait(SLOW_NS))),
            403 | 418 => Err(self.block(now_ns + wait(BAN_NS))),
            400..=499 => Err(Refusal::Unknown),
            _ => Err(Refusal::Trouble),
        }
    }

    fn block(&mut self, until_ns: i64) -> Refusal {
        self.rest.block_until(until_ns);
        Refusal::Later(until_ns)
    }

    /// Returns when to dial again after a connection that ended for `cause`.
    pub fn redial_ns(
        &mut self,
        backoff: &mut Backoff,
        cause: CloseCause,
        lasted_ns: i64,
        now_ns: i64,
    ) -> i64 {
        let wait = backoff.next_ns(lasted_ns);
        let ordered = match cause {
            CloseCause::Refused { status: 429, retry_after_s } => {
                Some(retry_after_s.map_or(SLOW_NS, |s| i64::from(s) * SECOND))
            }
            CloseCause::Refused { status: 403 | 418 | 451, retry_after_s } => {
                Some(retry_after_s.map_or(BAN_NS, |s| i64::from(s) * SECOND))
            }
            _ => None,
        };
        if let Some(ordered) = ordered {
            self.connects.block_until(now_ns + ordered);
        }
        now_ns + wait.max(ordered.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> Desk {
        Desk::new(Budget::bucket(1_000, 2), Budget::window(6_000, 60 * SECOND, 1_000_000))
    }

    fn answer(status: u16, retry_after_s: Option<u32>) -> Reply<'static> {
        Reply::Answer { status, retry_after_s, used_weight: Some(5), body: &mut [] }
    }

    #[test]
    fn connects_are_spread_over_the_budget() {
        let mut desk = desk();
        let sent = Budget::bucket(1_000, 1);
        let links: Vec<Link> = (0..3).map(|_| desk.connect("/", 0, sent.clone())).collect();
        assert_eq!(links.len(), 3);
        let times: Vec<_> = std::iter::from_fn(|| desk.next_action())
            .map(|action| match action {
                Action::Connect { not_before_ns, .. } => not_before_ns,
                _ => panic!("a connect"),
            })
            .collect();
        assert_eq!(times, [0, 0, SECOND]);
    }

    #[test]
    fn a_closed_connection_gets_no_more_messages() {
        let mut desk = desk();
        let mut link = desk.connect("/", 0, Budget::bucket(1_000, 1));
        desk.send(&mut link, "a".into(), 0);
        desk.close(link.conn, true);
        desk.next_action();
        assert_eq!(desk.next_action(), Some(Action::Close { conn: link.conn, reset: true }));
    }

    #[test]
    fn statuses_and_what_they_order() {
        let mut stats = MachineStats::default();
        let mut desk = desk();
        assert!(desk.judge(answer(200, None), 0, &mut stats).is_ok());
        assert_eq!(desk.judge(answer(503, None), 0, &mut stats), Err(Refusal::Trouble));
        assert_eq!(desk.judge(answer(400, None), 0, &mut stats), Err(Refusal::Unknown));
        assert_eq!(desk.judge(Reply::Failed, 0, &mut stats), Err(Refusal::Trouble));
        assert_eq!(
            desk.judge(answer(429, Some(7)), 0, &mut stats),
            Err(Refusal::Later(7 * SECOND))
        );
        let get = desk.get("/".into(), 1, Purpose::Audit(0), SECOND, &mut stats);
        assert_eq!(get, Err(7 * SECOND));
        assert_eq!(desk.judge(answer(403, None), 0, &mut stats), Err(Refusal::Later(BAN_NS)));
        assert_eq!(desk.judge(answer(418, None), 0, &mut stats), Err(Refusal::Later(BAN_NS)));
        assert_eq!(stats.requests_failed, 6);
    }

    #[test]
    fn a_ban_stops_dialing() {
        let mut desk = desk();
        let mut backoff = Backoff::new(1, 10, 100, 1);
        let cause = CloseCause::Refused { status: 418, retry_after_s: Some(300) };
        assert_eq!(desk.redial_ns(&mut backoff, cause, 0, 0), 300 * SECOND);
        assert!(desk.redial_ns(&mut backoff, CloseCause::Reset, 0, 0) <= 10);
    }

    #[test]
    fn a_request_is_answered_once() {
        let mut desk = desk();
        let mut stats = MachineStats::default();
        let request = desk.get("/".into(), 1, Purpose::Audit(3), 0, &mut stats).unwrap();
        assert!(desk.is_pending(Purpose::Audit(3)));
        assert_eq!(desk.take(request), Some(Purpose::Audit(3)));
        assert_eq!(desk.take(request), None);
    }
}
