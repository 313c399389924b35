//! The way out: every message to every client passes here, and faults act here.
//!
//! Invariant: messages of one connection leave in the order of [`Hub::send`], unless a fault reorders
//! them. What waits for a slow reader is bounded: above the limit the connection is cut.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Bytes;

use crate::config::Venue;
use crate::faults::{Class, Faults, Kind};
use crate::observe::Mark;

/// Identity of a WebSocket connection, unique in a run.
pub(crate) type ConnId = u64;

/// One thing to do on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Out {
    Text(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    Close(u16, String),
    /// Bytes as they are, framing included.
    Raw(Vec<u8>),
    /// End of TCP without a close frame.
    Abrupt,
    /// RST.
    Reset,
}

impl Out {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(b) | Self::Ping(b) | Self::Pong(b) => b.len() + 16,
            Self::Raw(b) => b.len(),
            _ => 16,
        }
    }
}

/// An [`Out`] and when it may leave.
#[derive(Debug)]
pub(crate) struct Item {
    pub at: Option<Instant>,
    pub out: Out,
    pub bytes: usize,
    /// What the message told, if its leaving is to be noted.
    pub mark: Option<Mark>,
}

/// The connection task's end.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub id: ConnId,
    pub rx: UnboundedReceiver<Item>,
    /// Bytes between [`Hub::send`] and the socket.
    pub queued: Arc<AtomicUsize>,
}

/// The world's end of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub venue: Venue,
    pub peer: IpAddr,
    pub tls: bool,
    pub opened_ns: u64,
    pub sent_messages: u64,
    pub sent_bytes: u64,
    pub path: String,
    /// The client whose user stream it carries.
    pub account: Option<String>,
    tx: UnboundedSender<Item>,
    queued: Arc<AtomicUsize>,
    swapped: Option<(Vec<Bytes>, u64)>,
    held: VecDeque<Out>,
    held_bytes: usize,
    /// User messages held by a freeze of their own.
    user_held: VecDeque<Bytes>,
    /// The last user messages, for a replay.
    user_sent: VecDeque<Bytes>,
    cut: bool,
}

/// User messages a connection can be told again.
const REPLAY_MAX: usize = 1_000;

/// All connections and all faults.
#[derive(Debug)]
pub(crate) struct Hub {
    pub now_ns: u64,
    pub links: BTreeMap<ConnId, Link>,
    pub faults: Faults,
    pub slow_cut_total: u64,
    next_id: ConnId,
    queue_max: usize,
    mark: Option<Mark>,
    /// User messages that wait for their time, overtaken by everything else.
    late: Vec<(u64, ConnId, Bytes)>,
}

impl Hub {
    pub fn new(queue_max: usize) -> Self {
        Self {
            now_ns: 0,
            links: BTreeMap::new(),
            faults: Faults::default(),
            slow_cut_total: 0,
            next_id: 0,
            queue_max,
            mark: None,
            late: Vec::new(),
        }
    }

    pub fn open(&mut self, venue: Venue, peer: IpAddr, tls: bool, path: String) -> Outbox {
        self.next_id += 1;
        let (tx, rx) = unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let link = Link {
            venue,
            peer,
            tls,
            opened_ns: self.now_ns,
            sent_messages: 0,
            sent_bytes: 0,
            path,
            account: None,
            tx,
            queued: Arc::clone(&queued),
            swapped: None,
            held: VecDeque::new(),
            held_bytes: 0,
            user_held: VecDeque::new(),
            user_sent: VecDeque::new(),
            cut: false,
        };
        self.links.insert(self.next_id, link);
        Outbox { id: self.next_id, rx, queued }
    }

    /// Time as a venue's clock shows it.
    pub fn venue_now(&self, venue: Venue) -> u64 {
        if self.faults.is_idle() {
            return self.now_ns;
        }
        self.now_ns.saturating_add_signed(self.faults.clock_ns(venue))
    }

    /// Sends one text message whose leaving is noted.
    pub fn send_marked(
        &mut self,
        id: ConnId,
        class: Class,
        symbol: &str,
        body: Bytes,
        mark: Option<Mark>,
    ) {
        self.mark = mark;
        self.send(id, class, symbol, body);
        self.mark = None;
    }

    /// Sends a message of a user stream; its faults are judged by the client.
    pub fn send_user(&mut self, id: ConnId, symbol: &str, body: Bytes) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.user_sent.len() == REPLAY_MAX {
            link.user_sent.pop_front();
        }
        link.user_sent.push_back(body.clone());
        if self.faults.is_idle() {
            self.send(id, Class::User, symbol, body);
            return;
        }
        let account = link.account.as_deref();
        let held = self.faults.user_freeze(link.venue, account);
        if held.is_some_and(|f| f.mode.as_deref() == Some("hold")) {
            link.user_held.push_back(body);
            return;
        }
        match self.faults.user_delay_ms(link.venue, account) {
            0 => self.send(id, Class::User, symbol, body),
            ms => self.late.push((self.now_ns + ms * 1_000_000, id, body)),
        }
    }

    /// Sends the last `count` user messages of a connection again.
    pub fn replay(&mut self, id: ConnId, count: usize) {
        let Some(link) = self.links.get(&id) else { return };
        let skip = link.user_sent.len().saturating_sub(count);
        let again: Vec<Bytes> = link.user_sent.iter().skip(skip).cloned().collect();
        for body in again {
            self.push(id, Out::Text(body));
        }
    }

    /// Sends one text message, as the faults let it.
    pub fn send(&mut self, id: ConnId, class: Class, symbol: &str, body: Bytes) {
        // What a freeze held goes first: TCP delivers late, never in another order.
        self.release(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        let quiet = self.faults.is_idle() && link.swapped.is_none();
        if quiet {
            self.push(id, Out::Text(body));
            return;
        }
        let account = link.account.as_deref();
        let verdict = self.faults.judge(link.venue, id, class, symbol, body, account);
        if verdict.hold {
            for body in verdict.messages {
                link.held_bytes += body.len();
                link.held.push_back(Out::Text(body));
            }
            if link.held_bytes > self.queue_max {
                self.cut(id);
            }
            return;
        }
        let waiting = link.swapped.take();
        if verdict.swap && waiting.is_none() {
            link.swapped = Some((verdict.messages, self.now_ns));
            return;
        }
        for body in verdict.messages {
            self.push(id, Out::Text(body));
        }
        for body in waiting.into_iter().flat_map(|(bodies, _)| bodies) {
            self.push(id, Out::Text(body));
        }
    }

    /// Sends a control frame; a freeze swallows it unless it lets pongs through.
    pub fn control(&mut self, id: ConnId, out: Out) {
        let Some(link) = self.links.get(&id) else { return };
        let swallowed = self
            .faults
            .freeze(link.venue, id)
            .is_some_and(|f| !(matches!(out, Out::Pong(_)) && f.pongs == Some(true)));
        if !swallowed {
            self.push(id, out);
        }
    }

    /// Puts something into a connection's queue with no fault but delay.
    pub fn push(&mut self, id: ConnId, out: Out) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.cut {
            return;
        }
        let delay_ms = if self.faults.is_idle() { 0 } else { self.faults.delay_ms(link.venue, id) };
        let at = (delay_ms > 0).then(|| Instant::now() + Duration::from_millis(delay_ms));
        let bytes = out.bytes();
        link.sent_messages += u64::from(matches!(out, Out::Text(_)));
        link.sent_bytes += bytes as u64;
        // Relaxed: a figure for the limit below; the channel orders the item itself.
        let queued = link.queued.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A closed channel means that the task is gone; `on_closed` will remove the link.
        let _ = link.tx.send(Item { at, out, bytes, mark: self.mark });
        if queued > self.queue_max {
            self.cut(id);
        }
    }

    /// Cuts a slow reader: what is queued is dropped with its connection.
    fn cut(&mut self, id: ConnId) {
        if let Some(link) = self.links.get_mut(&id)
            && !link.cut
        {
            link.cut = true;
            link.held.clear();
            self.slow_cut_total += 1;
            let _ = link.tx.send(Item { at: None, out: Out::Reset, bytes: 0, mark: None });
            // The task looks at this figure before it writes on: too large means "stop".
            link.queued.store(usize::MAX / 2, Ordering::Relaxed);
        }
    }

    /// Bytes queued for a connection.
    pub fn queued(&self, id: ConnId) -> usize {
        self.links.get(&id).map_or(0, |l| l.queued.load(Ordering::Relaxed))
    }

    /// Sends what a freeze held of a connection, once it is over.
    fn release(&mut self, id: ConnId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.held.is_empty()) else {
            return;
        };
        if self.faults.freeze(link.venue, id).is_none() {
            link.held_bytes = 0;
            for out in std::mem::take(&mut link.held) {
                self.push(id, out);
            }
        }
    }

    /// Releases what a freeze held, and messages that waited too long for a successor.
    pub fn tick(&mut self) {
        self.release_user();
        let ids: Vec<ConnId> = self
            .links
            .iter()
            .filter(|(_, l)| !l.held.is_empty() || l.swapped.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.release(id);
            let Some(link) = self.links.get_mut(&id) else { continue };
            let mut ready: Vec<Out> = Vec::new();
            if link.swapped.as_ref().is_some_and(|(_, at)| self.now_ns > at + 2_000_000_000) {
                let bodies = link.swapped.take().map(|(bodies, _)| bodies).unwrap_or_default();
                ready.extend(bodies.into_iter().map(Out::Text));
            }
            for out in ready {
                self.push(id, out);
            }
        }
    }

    /// Sends user messages whose time has come or whose freeze is over.
    fn release_user(&mut self) {
        let now = self.now_ns;
        let mut due = Vec::new();
        self.late.retain(|(at, id, body)| {
            let is_due = *at <= now;
            if is_due {
                due.push((*id, body.clone()));
            }
            !is_due
        });
        for (id, link) in &mut self.links {
            let account = link.account.as_deref();
            if !link.user_held.is_empty() && self.faults.user_freeze(link.venue, account).is_none()
            {
                due.extend(link.user_held.drain(..).map(|body| (*id, body)));
            }
        }
        for (id, body) in due {
            self.push(id, Out::Text(body));
        }
    }

    /// Replays or ends the user streams among some connections.
    pub fn act_on_users(&mut self, kind: Kind, ids: &[ConnId], count: usize, out: &Out) {
        for id in ids {
            if self.links.get(id).is_none_or(|l| l.account.is_none()) {
                continue;
            }
            match kind {
                Kind::UserReplay => self.replay(*id, count),
                _ => self.push(*id, out.clone()),
            }
        }
    }

    /// Connections of a venue.
    pub fn of(&self, venue: Venue) -> Vec<ConnId> {
        self.links.iter().filter(|(_, l)| l.venue == venue).map(|(id, _)| *id).collect()
    }
}
